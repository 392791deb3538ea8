//! A client's HTTP/1.1 connection: waits for heads, turns each into a [`Request`], has it exchanged, closes in peace.

use crate::codec::end::{ClientEnd, Gone, Http1};
use crate::codec::http2;
use crate::codec::local_reply::LocalReply;
use crate::codec::presence::Presence;
use crate::error::ProxyError;
use crate::exchange::answer;
use crate::exchange::request;
use crate::exchange::request::{Refusal, Request, Why};
use crate::exchange::{self, Next};
use crate::net::buffers::Buffer;
use crate::net::proxy_protocol;
use crate::net::stream::Stream;
use crate::net::timer::Timer;
use crate::net::tls::ServerTls;
use crate::worker::{OpenConnection, Scratch, View, Worker};
use ringway_config::model::{ClientTimeouts, HttpListener, Protocol};
use ringway_http1::{Body, Resume, parse_request_on};
use ringway_message::{HeadWriter, Limits, Method, ParseError};
use ringway_telemetry::access::Value;
use std::cell::OnceCell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;

/// How long, and for how many bytes, a client may go on sending after an answer that closes: closing at once would
/// reset the connection, and the answer with it.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;
/// How long a client may take to read an answer of ours.
const SEND_TIME: Duration = Duration::from_secs(10);

/// The client's side of a connection.
pub(crate) struct Client {
    pub(crate) open: Rc<OpenConnection>,
    pub(crate) end: ClientEnd,
    pub(crate) timer: Timer,
    pub(crate) peer: Rc<Peer>,
    /// Whether a request has come, and, on a listener that is going, whether its time to go has been set.
    asked: bool,
    leaving: bool,
    /// Whether the end of its input has come.
    ended: bool,
    /// How far the head has been walked over that stands in the input.
    resume: Resume,
    /// Limits of the listener, as of the last request.
    limits: Limits,
    timeouts: ClientTimeouts,
}

/// What came of waiting for a request.
enum Arrival {
    Request(Box<Request>),
    Refused(Box<Refusal>),
    /// The preface of HTTP/2, without TLS.
    Http2,
    /// TLS, where none is spoken.
    Tls,
    Closed,
}

/// Who is at the other end, and what his connection said about it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The address without port, as text.
    pub(crate) text: String,
    /// The address that he has reached: here, or before the proxy in front, if its PROXY header has told it.
    pub(crate) destination: Option<SocketAddr>,
    /// He came over TLS: here, or before the proxy in front.
    pub(crate) secure: bool,
    /// The server that he asked for in TLS.
    pub(crate) server_name: Option<String>,
    /// An id of his connection: of the proxy in front, or of ours once it is asked for.
    unique_id: OnceCell<Box<[u8]>>,
    /// SHA-256 of his certificate, as text, and the field that tells backends.
    pub(crate) certificate: Option<(Box<str>, String)>,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let text = address.ip().to_canonical().to_string();
        let unique_id = OnceCell::new();
        Self { address, text, destination: None, secure: false, server_name: None, unique_id, certificate: None }
    }

    /// An id of his connection that no other has.
    pub(crate) fn unique_id(&self, worker: &Worker) -> &[u8] {
        self.unique_id.get_or_init(|| worker.unique_id().into_bytes().into())
    }

    /// The same for the access log, if it has one.
    pub(crate) fn logged_id(&self) -> Value<'_> {
        self.unique_id.get().map_or(Value::Nothing, |id| Value::Bytes(id))
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// Believes a PROXY header.
    pub(crate) fn take(&mut self, told: proxy_protocol::Told) {
        if let Some((source, destination)) = told.addresses {
            *self = Self::new(source);
            self.destination = Some(destination);
        }
        (self.secure, self.server_name) = (told.secure, told.authority);
        self.unique_id = told.unique_id.map(OnceCell::from).unwrap_or_default();
    }

    /// Takes over what the TLS session knows.
    pub(crate) fn take_session<T>(&mut self, session: &tokio_rustls::server::TlsStream<T>, tls: &ServerTls) {
        let (_, session) = session.get_ref();
        self.secure = true;
        self.server_name = session.server_name().map(str::to_ascii_lowercase);
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        // An empty value when there is none: the field is Ringway's to say in any case.
        self.certificate = tls
            .header
            .as_ref()
            .map(|header| (header.clone(), leaf.map(|leaf| crate::net::tls::fingerprint(leaf)).unwrap_or_default()));
    }
}

/// The newest view that has the connection's listener.
pub(crate) fn view_of(open: &OpenConnection, known: Rc<View>) -> Rc<View> {
    open.worker.listener(&open.gate).map_or(known, |(view, _)| view)
}

/// The listener's HTTP part.
pub(crate) fn http_of(view: &View, listener: usize) -> &HttpListener {
    match &view.snapshot.config.listeners[listener].protocol {
        Protocol::Http(http) => http,
        Protocol::Tcp(_) | Protocol::Udp(_) => unreachable!("invariant: a gate's protocol is part of its identity"),
    }
}

fn limits_of(http: &HttpListener) -> Limits {
    Limits { head_bytes_max: http.head_bytes_max, fields_max: http.fields_max }
}

impl Client {
    pub(crate) fn new(open: Rc<OpenConnection>, end: ClientEnd, peer: Rc<Peer>, view: &View, listener: usize) -> Self {
        let timer = open.worker.timer();
        let http = http_of(view, listener);
        let (limits, timeouts) = (limits_of(http), http.timeouts);
        timer.set(timeouts.head);
        Self {
            open,
            end,
            timer,
            peer,
            asked: false,
            leaving: false,
            ended: false,
            resume: Resume::default(),
            limits,
            timeouts,
        }
    }

    /// What tells whether it is still there, and what can be used beside that. `may_end`: the end of its input alone is no
    /// leaving.
    pub(crate) fn presence(&mut self, may_end: bool) -> (Presence<'_>, &Timer, &Peer) {
        let Self { open, end, ended, timer, peer, .. } = self;
        (Presence { line: end.into(), ended, worker: &open.worker, may_end }, timer, peer)
    }

    /// Serves a stream of HTTP/2: one request, and the response to it.
    pub(crate) async fn serve_stream(&mut self, fault: Option<ParseError>, view: &Rc<View>, listener: usize) {
        match self.take_request(fault, view, listener) {
            None => {}
            Some(Err(refusal)) => {
                self.refuse(&refusal).await;
            }
            Some(Ok(mut request)) => {
                // What it leaves open is reset with the stream.
                let _: Next = exchange::run(self, &mut request).await;
            }
        }
    }

    /// The request of a stream; `None`: its client has taken it back before its turn, which is no request.
    fn take_request(
        &mut self,
        fault: Option<ParseError>,
        view: &Rc<View>,
        listener: usize,
    ) -> Option<Result<Box<Request>, Box<Refusal>>> {
        let worker = Rc::clone(&self.open.worker);
        let ClientEnd::Http2(stream) = &mut self.end else { return None };
        if stream.is_gone() {
            return None;
        }
        if let Some(fault) = fault {
            stream.handle_fault();
            return Some(Err(Refusal::of_stream(ProxyError::BadRequest(fault))));
        }
        let mut scratch = worker.scratch.borrow_mut();
        let mut arena = std::mem::take(&mut scratch.arena);
        let taken = stream.take_request(&mut scratch.request, &mut arena).then(|| {
            let mut request = request::plan(self, &arena, view, listener, &mut scratch)?;
            request.take_small_body(self).map_err(Refusal::of_stream)?;
            Ok(request)
        });
        scratch.arena = arena;
        taken
    }

    /// Serves a connection to its end; or gives it back, with what has been read of it, if it speaks HTTP/2.
    pub(crate) async fn serve_connection(mut self) -> Option<(Stream, Buffer)> {
        let changes = self.run().await;
        let ClientEnd::Http1(Http1 { stream, input, .. }) = self.end else { return None };
        if changes {
            return Some((stream, input));
        }
        self.open.worker.buffers.give(input);
        None
    }

    /// `true`: the connection speaks HTTP/2.
    async fn run(&mut self) -> bool {
        loop {
            match poll_fn(|context| self.poll_request(context)).await {
                Arrival::Closed => return false,
                Arrival::Http2 => return true,
                Arrival::Tls => {
                    self.open.worker.shared.cells.error("", "tls_on_plain_port");
                    let _ = self.send_bytes(crate::net::client_hello::TLS_ALERT).await;
                    self.linger().await;
                    return false;
                }
                Arrival::Refused(refusal) => {
                    if !self.refuse(&refusal).await {
                        return false;
                    }
                }
                Arrival::Request(mut request) => match exchange::run(self, &mut request).await {
                    Next::Request => {}
                    Next::Abort => return false,
                    // Bytes that nobody will read would turn the close into a reset.
                    Next::Close if !self.http1().stream.has_unread() && !self.http1().stream.says_goodbye() => {
                        return false;
                    }
                    Next::Close | Next::Linger => {
                        self.linger().await;
                        return false;
                    }
                },
            }
            self.resume.reset();
            // Part of the next head may be here already.
            let idle = self.http1().input.is_empty();
            self.timer.set(if idle { self.timeouts.idle } else { self.timeouts.head });
        }
    }

    fn http1(&mut self) -> &mut Http1 {
        self.end.http1()
    }

    /// Waits for a whole head. Holds no buffer while nothing has come.
    fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<Arrival> {
        let worker = Rc::clone(&self.open.worker);
        // Session tickets and the like, which belong to no answer.
        self.http1().stream.poll_drive(context);
        loop {
            if !self.http1().input.is_empty() {
                match self.parse() {
                    Some(arrival) => return Poll::Ready(arrival),
                    None if self.http1().input.capacity() == 0 => return Poll::Ready(Arrival::Closed),
                    None => {}
                }
            } else if !self.http1().input.is_allocated() {
                let Http1 { stream, input, .. } = self.http1();
                match stream.poll_read_ready(context) {
                    Poll::Ready(Ok(())) => *input = worker.buffers.take(),
                    Poll::Ready(Err(_)) => return Poll::Ready(Arrival::Closed),
                    Poll::Pending => {
                        if self.open.is_closing() && !std::mem::replace(&mut self.leaving, true) {
                            self.timer.shorten(self.open.leave_after(self.asked));
                        }
                        // Between requests nothing is lost by closing, unless one has just arrived.
                        return if !self.timer.poll_fired(context) || self.http1().stream.has_unread() {
                            Poll::Pending
                        } else {
                            Poll::Ready(Arrival::Closed)
                        };
                    }
                }
            }
            // One more than the limit, so that a head of just that length is told from a longer one.
            let bytes_max = self.limits.head_bytes_max + 1;
            let Http1 { stream, input, .. } = self.end.http1();
            let was_empty = input.is_empty();
            match input.poll_read(stream, bytes_max, context) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Arrival::Closed),
                Poll::Ready(Ok(count)) => {
                    worker.cells.received_bytes.add(count as u64);
                    if was_empty {
                        self.timer.set(self.timeouts.head);
                    }
                }
                Poll::Pending if input.is_empty() => {
                    worker.buffers.give(std::mem::take(input));
                }
                Poll::Pending if self.timer.poll_fired(context) => {
                    return Poll::Ready(Arrival::Refused(Refusal::new(ProxyError::HeadTimeout)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// `None`: the head is not complete.
    fn parse(&mut self) -> Option<Arrival> {
        let worker = Rc::clone(&self.open.worker);
        let Some((view, listener)) = worker.listener(&self.open.gate) else { return Some(Arrival::Closed) };
        // The listener may have changed since the last request.
        let http = http_of(&view, listener);
        (self.limits, self.timeouts) = (limits_of(http), http.timeouts);
        let limits = self.limits;
        let mut scratch = worker.scratch.borrow_mut();
        let Self { end, resume, .. } = self;
        match parse_request_on(end.http1().input.bytes(), &limits, resume, &mut scratch.request) {
            Ok(false) => None,
            Err(error) => Some(match self.other_protocol(http.h2.enabled) {
                Some(None) => return None,
                Some(Some(arrival)) => arrival,
                None => Arrival::Refused(Refusal::new(ProxyError::BadRequest(error))),
            }),
            Ok(true) => Some(match self.plan(&view, listener, &mut scratch) {
                Ok(request) => {
                    (self.asked, self.leaving) = (true, false);
                    Arrival::Request(request)
                }
                Err(refusal) => Arrival::Refused(refusal),
            }),
        }
    }

    /// Plans the request whose head stands at the start of the input, and takes the head out of it.
    fn plan(&mut self, view: &Rc<View>, listener: usize, scratch: &mut Scratch) -> Result<Box<Request>, Box<Refusal>> {
        let ClientEnd::Http1(Http1 { input, .. }) = &self.end else {
            return Err(Refusal::new(ProxyError::ClientClosed));
        };
        let planned = request::plan(self, input.bytes(), view, listener, scratch);
        let head = &scratch.request;
        let Http1 { input, body, .. } = self.end.http1();
        *body = head.body.into();
        match planned {
            Ok(mut request) => {
                input.consume(head.head_len);
                request.take_small_body(self).map_err(Refusal::new)?;
                Ok(request)
            }
            Err(mut refusal) => {
                // Where the body is here to its end, the next request's head is known to follow.
                let rest = Body::from(head.body).rest_len(&input.bytes()[head.head_len..]);
                if let Some(rest) = rest.filter(|_| head.method != Method::Connect && refusal.keeps_order()) {
                    refusal.keep_alive = head.keep_alive;
                    input.consume(head.head_len + rest);
                }
                Err(refusal)
            }
        }
    }

    /// What the first bytes are, if they are no HTTP/1.1; `Some(None)`: that remains to be seen.
    #[cold]
    fn other_protocol(&mut self, h2: bool) -> Option<Option<Arrival>> {
        let Http1 { stream, input, .. } = self.http1();
        let bytes = input.bytes();
        if !matches!(stream, Stream::Plain(_)) {
            return None;
        }
        if bytes.starts_with(&[crate::net::client_hello::TLS_HANDSHAKE, 3]) {
            return Some(Some(Arrival::Tls));
        }
        let common = bytes.len().min(http2::PREFACE.len());
        if h2 && bytes[..common] == http2::PREFACE[..common] {
            return Some((common == http2::PREFACE.len()).then_some(Arrival::Http2));
        }
        None
    }

    /// Answers a request that goes to no backend. Gives whether the connection goes on.
    async fn refuse(&mut self, refusal: &Refusal) -> bool {
        let worker = Rc::clone(&self.open.worker);
        if let Why::Error(error) = &refusal.why {
            worker.shared.cells.error(&refusal.service, error.reason());
        }
        let keep_alive = refusal.keep_alive && !self.open.is_closing();
        let listener = worker.listener(&self.open.gate);
        let pages = listener.as_ref().map_or(&[][..], |(view, listener)| &http_of(view, *listener).errors);
        let mut out = self.own_head();
        let answer = match &refusal.why {
            Why::Error(error) => {
                answer::write(*error, refusal.version, keep_alive, refusal.is_head, b"", pages, &mut out)
            }
            Why::Answer(canned) => answer::write_canned(canned, refusal.version, keep_alive, &mut out),
        };
        let sent = self.send(answer, out).await;
        request::log_refusal(self, refusal);
        if sent && !keep_alive && !self.end.is_http2() {
            self.linger().await;
        }
        sent && keep_alive
    }

    /// What an answer of ours is written into.
    pub(crate) fn own_head(&self) -> HeadWriter {
        self.open.worker.buffers.take_writer(self.end.is_http2())
    }

    /// Sends all of an answer of ours, or gives up when the client does not read.
    pub(crate) async fn send(&mut self, answer: LocalReply, out: HeadWriter) -> bool {
        let worker = Rc::clone(&self.open.worker);
        let sent = match &mut self.end {
            ClientEnd::Http1(_) => self.send_bytes(out.text()).await,
            ClientEnd::Http2(stream) => {
                let head = {
                    let block = &mut worker.scratch.borrow_mut().block;
                    let head = stream.answer(answer, &out, block);
                    worker.cells.sent_bytes.add(block.len() as u64);
                    head
                };
                match head {
                    Ok(true) => true,
                    Ok(false) => self.send_data(&out.text()[answer.body_from..]).await,
                    Err(Gone) => false,
                }
            }
        };
        worker.buffers.give_writer(out);
        sent
    }

    /// The body of an answer of ours, over HTTP/2.
    async fn send_data(&mut self, data: &[u8]) -> bool {
        let mut sent = 0;
        self.timer.set(SEND_TIME);
        poll_fn(|context| {
            let ClientEnd::Http2(stream) = &mut self.end else { return Poll::Ready(false) };
            while sent < data.len() {
                match stream.poll_send(&data[sent..], true, context) {
                    Poll::Ready(Ok(count)) => {
                        sent += count;
                        self.open.worker.cells.sent_bytes.add(count as u64);
                    }
                    Poll::Ready(Err(Gone)) => return Poll::Ready(false),
                    Poll::Pending if self.timer.poll_fired(context) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(true)
        })
        .await
    }

    /// Writes all of the bytes, or gives up when the client does not read.
    async fn send_bytes(&mut self, out: &[u8]) -> bool {
        let mut sent = 0;
        self.timer.set(SEND_TIME);
        let result = poll_fn(|context| {
            let Http1 { stream, .. } = self.end.http1();
            while sent < out.len() {
                match Pin::new(&mut *stream).poll_write(context, &out[sent..]) {
                    Poll::Ready(Ok(count)) if count > 0 => sent += count,
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending if self.timer.poll_fired(context) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
            // What TLS has taken and the kernel has not is not sent.
            match Pin::new(stream).poll_flush(context) {
                Poll::Ready(result) => Poll::Ready(result.is_ok()),
                Poll::Pending if self.timer.poll_fired(context) => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        self.open.worker.cells.sent_bytes.add(sent as u64);
        result
    }

    /// Closes the writing side and reads on for a while, so that the client sees the answer and not a reset.
    async fn linger(&mut self) {
        let worker = Rc::clone(&self.open.worker);
        let Self { end, timer, .. } = self;
        let Http1 { stream, input, .. } = end.http1();
        if !input.is_allocated() {
            *input = worker.buffers.take();
        }
        let mut budget = LINGER_BYTES;
        timer.set(LINGER_TIME);
        poll_fn(|context| {
            // A client that reads nothing keeps TLS from saying goodbye.
            let over = timer.poll_fired(context);
            if Pin::new(&mut *stream).poll_shutdown(context).is_pending() {
                return if over { Poll::Ready(()) } else { Poll::Pending };
            }
            loop {
                let held = input.len();
                input.consume(held);
                match input.poll_read(stream, 0, context) {
                    Poll::Ready(Ok(count)) if count > 0 && count <= budget => budget -= count,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending if over => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }
}
