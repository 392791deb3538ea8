//! A client's HTTP/1.1 connection: waits for heads, turns each into a [`Request`], has it exchanged, closes in peace.

use crate::buffers::Buffer;
use crate::error::ProxyError;
use crate::exchange::{self, Next};
use crate::presence::Presence;
use crate::request::{Refusal, Request, Why};
use crate::stream::Stream;
use crate::timer::Timer;
use crate::tls::ServerTls;
use crate::worker::{OpenConnection, View, Worker};
use crate::{answer, front, h2down, proxyproto, request};
use ringway_config::model::{ClientTimeouts, HttpListener, Protocol};
use ringway_http1::{Limits, Resume, parse_request_on};
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

/// The client's side of a connection.
pub(crate) struct Client {
    pub(crate) open: Rc<OpenConnection>,
    pub(crate) stream: Stream,
    pub(crate) timer: Timer,
    /// Bytes read and not yet dealt with.
    pub(crate) input: Buffer,
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
#[allow(clippy::large_enum_variant, reason = "moved once per request; boxing it would allocate once per request")]
enum Arrival {
    Request(Request),
    Refused(Refusal),
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
    pub(crate) fn take(&mut self, told: proxyproto::Told) {
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
            .map(|header| (header.clone(), leaf.map(|leaf| crate::tls::fingerprint(leaf)).unwrap_or_default()));
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
    pub(crate) fn new(open: Rc<OpenConnection>, stream: Stream, peer: Rc<Peer>, view: &View, listener: usize) -> Self {
        let timer = open.worker.timer();
        let http = http_of(view, listener);
        let (limits, timeouts) = (limits_of(http), http.timeouts);
        timer.set(timeouts.head);
        Self {
            open,
            stream,
            timer,
            input: Buffer::default(),
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
        let Self { open, stream, input, ended, timer, peer, .. } = self;
        (Presence { stream, input, ended, worker: &open.worker, may_end }, timer, peer)
    }

    /// Serves one stream of a connection.
    pub(crate) async fn serve(self) {
        // Within a stream nothing begins HTTP/2 anew.
        drop(self.serve_connection().await);
    }

    /// Serves a connection to its end; or gives it back, with what has been read of it, if it speaks HTTP/2.
    pub(crate) async fn serve_connection(mut self) -> Option<(Stream, Buffer)> {
        let changes = self.run().await;
        let input = std::mem::take(&mut self.input);
        if changes {
            return Some((self.stream, input));
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
                    let _ = self.send(front::TLS_ALERT).await;
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
                    Next::Close if !self.stream.has_unread() && !self.stream.says_goodbye() => return false,
                    Next::Close | Next::Linger => {
                        self.linger().await;
                        return false;
                    }
                },
            }
            // A stream of HTTP/2 is one request. What else came on it was for a tunnel that was not opened.
            if self.stream.carries_one() {
                return false;
            }
            self.resume.reset();
            // Part of the next head may be here already.
            self.timer.set(if self.input.is_empty() { self.timeouts.idle } else { self.timeouts.head });
        }
    }

    /// Waits for a whole head. Holds no buffer while nothing has come.
    fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<Arrival> {
        let worker = Rc::clone(&self.open.worker);
        // Session tickets and the like, which belong to no answer.
        self.stream.poll_drive(context);
        loop {
            if !self.input.is_empty() {
                match self.parse() {
                    Some(arrival) => return Poll::Ready(arrival),
                    None if self.input.capacity() == 0 => return Poll::Ready(Arrival::Closed),
                    None => {}
                }
            } else if !self.input.is_allocated() {
                match self.stream.poll_read_ready(context) {
                    Poll::Ready(Ok(())) => self.input = worker.buffers.take(),
                    Poll::Ready(Err(_)) => return Poll::Ready(Arrival::Closed),
                    Poll::Pending => {
                        if self.open.is_closing() && !std::mem::replace(&mut self.leaving, true) {
                            self.timer.shorten(self.open.leave_after(self.asked));
                        }
                        // Between requests nothing is lost by closing, unless one has just arrived.
                        return if !self.timer.poll_fired(context) || self.stream.has_unread() {
                            Poll::Pending
                        } else {
                            Poll::Ready(Arrival::Closed)
                        };
                    }
                }
            }
            let was_empty = self.input.is_empty();
            let bytes_max = self.head_bytes_max();
            match self.input.poll_read(&mut self.stream, bytes_max, context) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Arrival::Closed),
                Poll::Ready(Ok(count)) => {
                    worker.cells.received_bytes.add(count as u64);
                    if was_empty {
                        self.timer.set(self.timeouts.head);
                    }
                }
                Poll::Pending if self.input.is_empty() => {
                    worker.buffers.give(std::mem::take(&mut self.input));
                }
                Poll::Pending if self.timer.poll_fired(context) => {
                    return Poll::Ready(Arrival::Refused(Refusal::new(ProxyError::HeadTimeout)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// One more than the limit, so that a head of just that length is told from a longer one.
    fn head_bytes_max(&self) -> usize {
        self.limits.head_bytes_max + 1
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
        match parse_request_on(self.input.bytes(), &limits, &mut self.resume, &mut scratch.request) {
            Ok(false) => None,
            Err(error) => Some(match self.other_protocol(http.h2.enabled) {
                Some(None) => return None,
                Some(Some(arrival)) => arrival,
                None => Arrival::Refused(Refusal::new(ProxyError::BadRequest(error))),
            }),
            Ok(true) => Some(match request::plan(self, &view, listener, &mut scratch) {
                Ok(request) => {
                    (self.asked, self.leaving) = (true, false);
                    Arrival::Request(request)
                }
                Err(refusal) => Arrival::Refused(refusal),
            }),
        }
    }

    /// What the first bytes are, if they are no HTTP/1.1; `Some(None)`: that remains to be seen.
    #[cold]
    fn other_protocol(&self, h2: bool) -> Option<Option<Arrival>> {
        let bytes = self.input.bytes();
        if !matches!(self.stream, Stream::Plain(_)) {
            return None;
        }
        if bytes.starts_with(&[front::TLS_HANDSHAKE, 3]) {
            return Some(Some(Arrival::Tls));
        }
        let common = bytes.len().min(h2down::PREFACE.len());
        if h2 && bytes[..common] == h2down::PREFACE[..common] {
            return Some((common == h2down::PREFACE.len()).then_some(Arrival::Http2));
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
        let mut out = worker.buffers.take_outgoing();
        let listener = worker.listener(&self.open.gate);
        let pages = listener.as_ref().map_or(&[][..], |(view, listener)| &http_of(view, *listener).errors);
        match &refusal.why {
            Why::Error(error) => {
                answer::write(*error, refusal.version, keep_alive, refusal.is_head, b"", pages, &mut out);
            }
            Why::Answer(canned) => answer::write_canned(canned, refusal.version, keep_alive, &mut out),
        }
        let sent = self.send(&out).await;
        worker.buffers.give_outgoing(out);
        request::log_refusal(self, refusal);
        if sent && !keep_alive {
            self.linger().await;
        }
        sent && keep_alive
    }

    /// Writes all of an answer of ours, or gives up when the client does not read.
    pub(crate) async fn send(&mut self, out: &[u8]) -> bool {
        if let Stream::Downstream(stream) = &self.stream {
            stream.begin_own();
        }
        let mut sent = 0;
        self.timer.set(Duration::from_secs(10));
        let result = poll_fn(|context| {
            while sent < out.len() {
                match Pin::new(&mut self.stream).poll_write(context, &out[sent..]) {
                    Poll::Ready(Ok(count)) if count > 0 => sent += count,
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending if self.timer.poll_fired(context) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
            // What TLS has taken and the kernel has not is not sent.
            match Pin::new(&mut self.stream).poll_flush(context) {
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
        if !self.input.is_allocated() {
            self.input = worker.buffers.take();
        }
        let mut budget = LINGER_BYTES;
        self.timer.set(LINGER_TIME);
        poll_fn(|context| {
            // A client that reads nothing keeps TLS from saying goodbye.
            let over = self.timer.poll_fired(context);
            if Pin::new(&mut self.stream).poll_shutdown(context).is_pending() {
                return if over { Poll::Ready(()) } else { Poll::Pending };
            }
            loop {
                let held = self.input.len();
                self.input.consume(held);
                match self.input.poll_read(&mut self.stream, 0, context) {
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
