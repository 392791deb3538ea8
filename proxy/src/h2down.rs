//! HTTP/2 towards clients (RFC 9113): the connection, and each of its streams as a client of its own.

use crate::buffers::Buffer;
use crate::h2bridge::{self, Framing, Receiver, Sender};
use crate::h2watch::Watch;
use crate::http::{self, Client, Peer};
use crate::stream::Stream;
use crate::timer::Timer;
use crate::websocket;
use crate::worker::{OpenConnection, View, Worker};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use ringway_http1::{Authority, BodyLength, Limits, Method, ResponseHead, default_port, parse_response};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// What begins an HTTP/2 connection.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Window of a stream, in bytes: what a backend that does not read leaves here. A connection's is that of all its streams, so
/// that stalled uploads take nothing from others.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Largest window (RFC 9113, 6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// Bytes that a stream may have waiting to be sent.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a peer may have reset and we not yet seen: CVE-2023-44487.
const RESETS_PENDING: usize = 32;
/// Streams that we may reset for errors of the peer before the connection is ended: CVE-2025-8671.
const RESETS_LOCAL: usize = 256;
/// How long a peer may take to close after us.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// How long a peer may take to say that it has heard GOAWAY, and to take what is queued for it, once no stream is served.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// Why a tunnel is not opened that its backend did not open.
const NOT_SWITCHED: HeaderValue = HeaderValue::from_static("not_switched");
/// Largest answer head.
const ANSWER_LIMITS: Limits = Limits { head_bytes_max: 128 * 1024, fields_max: 512 };

/// How many streams are open, and the timer that runs while none is.
struct Activity {
    streams: Cell<usize>,
    /// How often one has begun or ended.
    turns: Cell<u64>,
    timer: Timer,
    /// How long it runs then: less once the connection ends.
    idle: Cell<Duration>,
}

struct Active(Rc<Activity>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.turns.set(self.0.turns.get() + 1);
        if self.0.streams.get() == 0 {
            self.0.timer.set(self.0.idle.get());
        }
    }
}

/// Serves a connection to its end. What has been read of it already comes first.
pub(crate) async fn serve(
    open: Rc<OpenConnection>,
    stream: Stream,
    read: Buffer,
    peer: Rc<Peer>,
    view: &Rc<View>,
    listener: usize,
) {
    let worker = Rc::clone(&open.worker);
    let http = http::http_of(view, listener);
    let timer = worker.timer();
    timer.set(http.timeouts.head);
    let activity =
        Rc::new(Activity { streams: Cell::new(0), turns: Cell::new(0), timer, idle: Cell::new(http.timeouts.idle) });
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(http.h2.streams_max)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(http.h2.streams_max.saturating_mul(STREAM_WINDOW).min(WINDOW_MAX))
        .max_header_list_size(u32::try_from(http.head_bytes_max).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS_PENDING)
        .max_local_error_reset_streams(Some(RESETS_LOCAL));
    if http.h2.extended_connect {
        builder.enable_connect_protocol();
    }
    let watch = Rc::new(RefCell::new(Watch::new(PREFACE.len())));
    let io = Prefixed { stream, read, worker: Rc::clone(&worker), linger: None, watch: Rc::clone(&watch) };
    let mut handshake = pin!(builder.handshake::<_, Bytes>(io));
    let connected = poll_fn(|context| match handshake.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(result.ok()),
        Poll::Pending if activity.timer.poll_fired(context) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    let Some(mut connection) = connected.await else { return };
    activity.timer.set(http.timeouts.idle);
    let mut closing = false;
    // On a listener that goes: when the connection is told, at the latest, and the turns at that time.
    let mut leave: Option<(Timer, u64)> = None;
    let mut asked = false;
    let mut flooded = false;
    loop {
        let accepted = poll_fn(|context| {
            loop {
                if let Poll::Ready(accepted) = connection.poll_accept(context) {
                    return Poll::Ready(accepted);
                }
                let flood = watch.borrow().flood();
                if let Some(reason) = flood.filter(|_| !std::mem::replace(&mut flooded, true)) {
                    worker.shared.cells.error("", reason);
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    continue;
                }
                // Polled in any case: it is also what wakes this task when the worker drains.
                let fired = activity.timer.poll_fired(context);
                let idle = fired && activity.streams.get() == 0;
                if closing {
                    // The last goodbye has been said: a peer that does not close is left.
                    return if idle { Poll::Ready(None) } else { Poll::Pending };
                }
                let told = open.is_closing() && {
                    let (timer, turns) = leave.get_or_insert_with(|| {
                        let timer = worker.timer();
                        timer.shorten(open.leave_after(asked));
                        (timer, activity.turns.get())
                    });
                    // A busy one is told along with its next answer.
                    timer.poll_fired(context) || *turns != activity.turns.get()
                };
                if !(told || idle) {
                    return Poll::Pending;
                }
                closing = true;
                connection.graceful_shutdown();
                activity.idle.set(CLOSE_TIME);
                activity.timer.set(CLOSE_TIME);
            }
        });
        let (request, respond) = match accepted.await {
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => {
                count_flood(&worker, &watch, &error, &mut flooded);
                break;
            }
            None => break,
        };
        asked = true;
        activity.streams.set(activity.streams.get() + 1);
        activity.turns.set(activity.turns.get() + 1);
        let active = Active(Rc::clone(&activity));
        let Some((view, listener)) = worker.listener(&open.gate) else { break };
        let Some(stream) = Downstream::new(request, respond) else {
            watch.borrow_mut().handle_malformed();
            continue;
        };
        let client = Client::new(
            Rc::clone(&open),
            Stream::Downstream(Box::new(stream.clone())),
            Rc::clone(&peer),
            &view,
            listener,
        );
        worker.streams.serve(&worker, Job { client, stream, _active: active });
    }
    // Streams that are still open end by themselves; the connection is driven until then, and a moment longer.
    activity.idle.set(CLOSE_TIME);
    activity.timer.set(CLOSE_TIME);
    poll_fn(|context| {
        if let Poll::Ready(closed) = connection.poll_closed(context) {
            if let Err(error) = closed {
                count_flood(&worker, &watch, &error, &mut flooded);
            }
            return Poll::Ready(());
        }
        let fired = activity.timer.poll_fired(context);
        if fired && activity.streams.get() == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Counts a flood that the library has found by itself, and ended the connection for: once, and never ours beside it.
fn count_flood(worker: &Worker, watch: &RefCell<Watch>, error: &h2::Error, flooded: &mut bool) {
    if let Some(reason) = watch.borrow().library_flood(error).filter(|_| !std::mem::replace(flooded, true)) {
        worker.shared.cells.error("", reason);
    }
}

/// A stream to be served.
struct Job {
    client: Client,
    stream: Downstream,
    _active: Active,
}

/// Tasks that serve streams, one after the other: a task is some kilobytes, which are not taken and given back for each
/// stream.
#[derive(Default)]
pub(crate) struct StreamTasks(Rc<RefCell<Vec<Rc<StreamTask>>>>);

/// A task that waits for its next stream.
#[derive(Default)]
struct StreamTask {
    job: RefCell<Option<Job>>,
    wake: Notify,
}

/// Tasks that wait, at most, per worker.
const TASKS_KEPT: usize = 256;

impl StreamTasks {
    fn serve(&self, worker: &Worker, job: Job) {
        let idle = self.0.borrow_mut().pop();
        if let Some(task) = idle {
            *task.job.borrow_mut() = Some(job);
            task.wake.notify_one();
            return;
        }
        let task = Rc::new(StreamTask { job: RefCell::new(Some(job)), wake: Notify::new() });
        worker.spawn("a stream of HTTP/2", run_streams(Rc::clone(&self.0), task));
    }

    /// Those that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.borrow().len()
    }

    /// Lets go of half of those that wait.
    pub(crate) fn trim(&self) {
        let mut idle = self.0.borrow_mut();
        let keep = idle.len() / 2;
        // Without a job, they end.
        idle.drain(keep..).for_each(|task| task.wake.notify_one());
    }
}

async fn run_streams(idle: Rc<RefCell<Vec<Rc<StreamTask>>>>, task: Rc<StreamTask>) {
    loop {
        let Some(job) = task.job.take() else { return };
        let Job { client, stream, _active } = job;
        {
            let mut serving = pin!(client.serve());
            // One that was reset before its turn is no request; one that its client resets later takes all that was begun for it
            // along.
            let mut begun = false;
            poll_fn(|context| {
                if !std::mem::replace(&mut begun, true) && stream.poll_reset(context).is_ready() {
                    return Poll::Ready(());
                }
                match serving.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(()),
                    Poll::Pending => stream.poll_reset(context),
                }
            })
            .await;
        }
        drop((stream, _active));
        if idle.borrow().len() >= TASKS_KEPT {
            return;
        }
        idle.borrow_mut().push(Rc::clone(&task));
        task.wake.notified().await;
    }
}

/// A connection of which some bytes have been read.
struct Prefixed {
    stream: Stream,
    read: Buffer,
    worker: Rc<Worker>,
    /// Runs from when our side begins to close.
    linger: Option<Timer>,
    /// Looks at the frames that pass.
    watch: Rc<RefCell<Watch>>,
}

impl AsyncRead for Prefixed {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut watch = this.watch.borrow_mut();
        if watch.flood().is_some() && this.linger.is_none() {
            // The connection's task is just being polled, and looks at that next.
            return Poll::Pending;
        }
        if this.read.is_empty() {
            if this.read.is_allocated() {
                this.worker.buffers.give(std::mem::take(&mut this.read));
            }
            let before = space.filled().len();
            let read = Pin::new(&mut this.stream).poll_read(context, space);
            watch.handle_read(&space.filled()[before..], this.worker.second());
            this.worker.cells.received_bytes.add((space.filled().len() - before) as u64);
            return read;
        }
        let count = this.read.len().min(space.remaining());
        watch.handle_read(&this.read.bytes()[..count], this.worker.second());
        space.put_slice(&this.read.bytes()[..count]);
        this.read.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        this.watch.borrow_mut().handle_written(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let timer = this.linger.get_or_insert_with(|| {
            let timer = this.worker.timer();
            timer.set(LINGER_TIME);
            timer
        });
        // Looked at first: a peer that reads nothing keeps TLS from saying goodbye.
        if timer.poll_fired(context) {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        // Frames that nobody reads would turn the end into a reset, and the last answers and GOAWAY with it.
        let mut sink = [0; 4096];
        loop {
            let mut space = ReadBuf::new(&mut sink);
            match Pin::new(&mut this.stream).poll_read(context, &mut space) {
                Poll::Ready(Ok(())) if !space.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// One stream, as a connection that carries one HTTP/1.1 exchange.
#[derive(Clone)]
pub(crate) struct Downstream(Rc<RefCell<Inner>>);

struct Inner {
    respond: SendResponse<Bytes>,
    receiver: Receiver,
    method: Method,
    /// An extended CONNECT (RFC 8441): shown as an upgrade.
    upgrade: bool,
    grpc: bool,
    /// The answer is Ringway's own.
    own: bool,
    /// After an answer's body, trailers may come.
    holds_end: bool,
    /// The length of a request whose text has chunks in its place.
    length: Option<HeaderValue>,
    /// The answer's head as far as it has come.
    head: Vec<u8>,
    sender: Option<Sender>,
}

impl Downstream {
    /// `None`: the request is malformed, and its stream has been reset (RFC 9113, 8.1.1).
    fn new(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Option<Self> {
        let (parts, body) = request.into_parts();
        let mut text = Vec::with_capacity(512);
        let upgrade = parts.extensions.get::<h2::ext::Protocol>().map(|protocol| protocol.as_str().to_owned());
        // The library sees to all other fields; of the protocol it knows that it is UTF-8.
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        if upgrade.as_ref().is_some_and(|protocol| !is_protocol(protocol)) || !agrees(&parts.headers, &parts.uri) {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return None;
        }
        let method = if upgrade.is_some() { "GET" } else { parts.method.as_str() };
        text.extend_from_slice(method.as_bytes());
        text.push(b' ');
        if parts.method == HttpMethod::CONNECT && upgrade.is_none() {
            text.extend_from_slice(authority.unwrap_or_default().as_bytes());
        } else {
            text.extend_from_slice(parts.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes());
        }
        text.extend_from_slice(b" HTTP/1.1\r\n");
        if let Some(authority) = authority {
            // RFC 9113, 8.3.1: where there is one, it stands for Host.
            h2bridge::write_field("host", authority.as_bytes(), &mut text);
        }
        let fields = &parts.headers;
        let ended = body.is_end_stream();
        // A body with a length has no place for trailers in text: if it says that some will come, it goes in chunks. The length goes
        // beside them, to who can have both.
        let length = fields.get("content-length").filter(|_| fields.contains_key("trailer") && !ended).cloned();
        let mut cookies = Vec::new();
        for (name, value) in fields {
            match name.as_str() {
                "content-length" if length.is_some() => {}
                "host" if authority.is_some() => {}
                // RFC 9113, 8.2.3: crumbs are one field again.
                "cookie" => {
                    if !cookies.is_empty() {
                        cookies.extend_from_slice(b"; ");
                    }
                    cookies.extend_from_slice(value.as_bytes());
                }
                name if h2bridge::is_connection_specific(name) => {}
                name => h2bridge::write_field(name, value.as_bytes(), &mut text),
            }
        }
        if !cookies.is_empty() {
            h2bridge::write_field("cookie", &cookies, &mut text);
        }
        if fields.get("te").is_some_and(|value| value == "trailers") && upgrade.is_none() {
            text.extend_from_slice(b"connection: te\r\nte: trailers\r\n");
        }
        if let Some(protocol) = &upgrade {
            text.extend_from_slice(b"connection: upgrade\r\n");
            h2bridge::write_field("upgrade", protocol.as_bytes(), &mut text);
            if protocol == "websocket" && !fields.contains_key("sec-websocket-key") {
                h2bridge::write_field("sec-websocket-key", websocket::KEY, &mut text);
            }
        }
        let chunked = !ended && (!fields.contains_key("content-length") || length.is_some()) && upgrade.is_none();
        if chunked {
            text.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        text.extend_from_slice(b"\r\n");
        let grpc = fields.get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        Some(Self(Rc::new(RefCell::new(Inner {
            respond,
            receiver: Receiver::new((!ended).then_some(body), chunked, text),
            method: if parts.method == HttpMethod::HEAD { Method::Head } else { Method::Get },
            upgrade: upgrade.is_some(),
            grpc,
            own: false,
            holds_end: false,
            length,
            head: Vec::new(),
            sender: None,
        }))))
    }

    pub(crate) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().receiver.poll_ready(context)
    }

    /// Ready once the client has reset the stream.
    pub(crate) fn poll_reset(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.borrow_mut();
        match &mut inner.sender {
            Some(sender) => sender.stream.poll_reset(context),
            None => inner.respond.poll_reset(context),
        }
        .map(|_| ())
    }

    /// What is written from now on is no backend's.
    pub(crate) fn begin_own(&self) {
        let mut inner = self.0.borrow_mut();
        (inner.own, inner.holds_end) = (true, false);
    }

    /// The length of a request whose text has chunks in its place.
    pub(crate) fn length(&self) -> Option<HeaderValue> {
        self.0.borrow().length.clone()
    }

    /// Whether trailers may come that the text has no place for.
    pub(crate) fn may_trail(&self) -> bool {
        self.0.borrow().receiver.may_trail()
    }

    pub(crate) fn poll_trailers(&self, context: &mut Context<'_>) -> Poll<io::Result<HeaderMap>> {
        self.0.borrow_mut().receiver.poll_trailers(context)
    }

    /// Whether trailers may follow the answer that is about to begin.
    pub(crate) fn hold_end(&self, holds: bool) {
        self.0.borrow_mut().holds_end = holds;
    }

    /// No trailers can follow any more.
    pub(crate) fn release_end(&self) {
        let mut inner = self.0.borrow_mut();
        inner.holds_end = false;
        inner.sender.iter_mut().for_each(Sender::release_end);
    }

    /// Whether the answer's body is over, and its end is to be told.
    pub(crate) fn awaits_end(&self) -> bool {
        self.0.borrow().sender.as_ref().is_some_and(Sender::awaits_end)
    }

    pub(crate) fn end(&self, trailers: HeaderMap) -> io::Result<()> {
        self.0.borrow_mut().sender.as_mut().map_or(Ok(()), |sender| sender.end(trailers))
    }

    /// The answer is cut off: the client must see that.
    pub(crate) fn abort(&self) {
        let mut inner = self.0.borrow_mut();
        match &mut inner.sender {
            Some(sender) => sender.stream.send_reset(Reason::INTERNAL_ERROR),
            None => inner.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

impl AsyncRead for Downstream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().receiver.poll_read(context, space)
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        match &mut inner.sender {
            Some(sender) => sender.poll_write(context, bytes),
            None => Poll::Ready(inner.take_head(bytes)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.borrow_mut().sender.as_mut().map_or(Ok(()), Sender::finish))
    }
}

impl Inner {
    /// Takes text of the answer's head; once that is whole, sends it. Gives how many bytes were taken.
    fn take_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let held = self.head.len();
        self.head.extend_from_slice(bytes);
        let invalid = |error| io::Error::new(ErrorKind::InvalidData, error);
        let mut answer = ResponseHead::default();
        if !parse_response(&self.head, &ANSWER_LIMITS, self.method, self.upgrade, &mut answer).map_err(invalid)? {
            return Ok(bytes.len());
        }
        let text = std::mem::take(&mut self.head);
        let taken = answer.head_len - held;
        let mut fields = HeaderMap::with_capacity(answer.fields.len());
        for field in &answer.fields {
            h2bridge::push_field(&mut fields, field.name.of(&text), field.value.of(&text))?;
        }
        let status = StatusCode::from_u16(answer.status).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        if answer.is_interim() {
            let mut interim = Response::new(());
            *interim.status_mut() = status;
            *interim.headers_mut() = fields;
            self.respond.send_informational(interim).map_err(h2bridge::io_error)?;
            return Ok(taken);
        }
        let mut response = Response::new(());
        let mut framing = match answer.body {
            _ if answer.is_switch() => Framing::Raw,
            BodyLength::None => Framing::Sized(0),
            BodyLength::Sized(length) => Framing::Sized(length),
            BodyLength::Chunked => Framing::Chunked(<_>::default()),
            BodyLength::UntilClose => Framing::Raw,
        };
        let holds_end = self.holds_end && matches!(answer.body, BodyLength::Sized(_));
        let mut ends = matches!(framing, Framing::Sized(0)) && !holds_end;
        if self.grpc && self.own && fields.contains_key("x-ringway-reason") {
            // Ringway's own refusal, in the form that gRPC clients read.
            let message = fields.get("x-ringway-reason").cloned();
            fields.remove("content-length");
            fields.insert("content-type", HeaderValue::from_static("application/grpc"));
            fields.insert("grpc-status", HeaderValue::from_static(grpc_status(answer.status)));
            fields.extend(message.map(|message| (HeaderName::from_static("grpc-message"), message)));
            (framing, ends) = (Framing::Discarded, true);
        } else if self.upgrade && !answer.is_switch() && status.is_success() {
            // A backend that answers the request and does not switch: here, that would be a tunnel (RFC 8441, 5).
            fields = HeaderMap::from_iter([(HeaderName::from_static("x-ringway-reason"), NOT_SWITCHED)]);
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            (framing, ends) = (Framing::Discarded, true);
        } else {
            // RFC 8441, 4: success of an extended CONNECT is 200.
            *response.status_mut() = if answer.is_switch() { StatusCode::OK } else { status };
        }
        if answer.is_switch() {
            fields.remove("sec-websocket-accept");
        }
        *response.headers_mut() = fields;
        let discards = matches!(framing, Framing::Discarded);
        let stream = self.respond.send_response(response, ends).map_err(h2bridge::io_error)?;
        self.sender = Some(Sender::new(stream, framing, ends && !discards, holds_end));
        Ok(taken)
    }
}

/// Whether Host, where there is one, says what `:authority` says: one name for whoever looks at either (RFC 9113, 8.3.1).
fn agrees(fields: &HeaderMap, uri: &Uri) -> bool {
    let mut hosts = fields.get_all("host").iter();
    match (hosts.next(), uri.authority()) {
        (Some(host), Some(authority)) => {
            let port = default_port(uri.scheme_str() == Some("https"));
            let (host, authority) = (Authority::new(host.as_bytes()), Authority::new(authority.as_str().as_bytes()));
            host.is_same(authority, port) && hosts.next().is_none()
        }
        // The rules of HTTP/1.1 see to what is alone.
        _ => true,
    }
}

/// Whether a name is one that `Upgrade` may have (RFC 9110, 7.8): a token, and perhaps a version.
fn is_protocol(name: &str) -> bool {
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    match name.split_once('/') {
        Some((name, version)) => is_token(name) && is_token(version),
        None => is_token(name),
    }
}

/// Codes of gRPC for statuses of HTTP. Source: "HTTP to gRPC Status Code Mapping"; a deadline and a limit of ours have
/// codes of their own.
fn grpc_status(status: u16) -> &'static str {
    match status {
        400 | 413 | 431 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        408 | 504 => "4",
        429 => "8",
        502 | 503 => "14",
        _ => "2",
    }
}
