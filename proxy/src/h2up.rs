//! HTTP/2 towards backends: connections shared by many exchanges, each of which sees HTTP/1.1.

use crate::error::ProxyError;
use crate::h2bridge::{self, Framing, Receiver, Sender};
use crate::stream::Stream;
use crate::timer::Deadline;
use crate::upstream::ConnectionSlot;
use crate::websocket;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong};
use http::{HeaderMap, HeaderValue, Request, Version};
use ringway_http1::{BodyLength, Limits, RequestHead, parse_request};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, ErrorKind, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Window of a stream: what a client that does not read leaves here.
const STREAM_WINDOW: u32 = 64 * 1024;
/// All streams' together: the stalled ones take nothing from the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;
const SEND_BUFFER: usize = 64 * 1024;
/// Streams on one connection, whatever its peer would allow.
const STREAMS_MAX: usize = 100;
/// Heads that we have written ourselves.
const REQUEST_LIMITS: Limits = Limits { head_bytes_max: 256 * 1024, fields_max: 512 };
/// Largest head of an answer.
const ANSWER_BYTES_MAX: u32 = 64 * 1024;

/// Connections of one worker to one backend.
#[derive(Default)]
pub(crate) struct Shared {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// One is being opened: all who need one wait for that.
    opening: Rc<Opens>,
}

#[derive(Default)]
struct Opens {
    under_way: Cell<bool>,
    over: Notify,
    /// How the last opening failed, if it did: those who waited for it need not try one after the other.
    failed: Cell<Option<ProxyError>>,
}

/// Says that the opening is over, however it ended.
pub(crate) struct Opening(Rc<Opens>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.under_way.set(false);
        self.0.over.notify_waiters();
    }
}

impl Shared {
    /// A connection with room for one more stream; `newest`: the one that was opened last comes first, and counts as fresh.
    pub(crate) fn take(&self, newest: bool) -> Option<Upstream> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| !connection.closed.get());
        let mut with_room = connections.iter().filter(|connection| connection.has_room());
        let chosen = if newest { with_room.next_back() } else { with_room.next() };
        chosen.map(|connection| Upstream::new(connection, connection.carried.replace(true)))
    }

    /// Leave to open one; `None`: that is under way.
    pub(crate) fn open(&self) -> Option<Opening> {
        if self.opening.under_way.replace(true) {
            return None;
        }
        self.opening.failed.set(None);
        Some(Opening(Rc::clone(&self.opening)))
    }

    /// The end of the opening that is under way, or begins next.
    pub(crate) fn opened(&self) -> Notified<'_> {
        self.opening.over.notified()
    }

    /// How that ended.
    pub(crate) fn outcome(&self) -> Result<(), ProxyError> {
        self.opening.failed.get().map_or(Ok(()), Err)
    }

    /// Shares what was opened, or tells those who wait for it that nothing came of it.
    pub(crate) fn put(&self, opening: Opening, opened: Result<Rc<Connection>, ProxyError>) {
        match opened {
            Ok(connection) => self.connections.borrow_mut().push(connection),
            Err(error) => opening.0.failed.set(Some(error)),
        }
    }

    /// Lets go of connections without streams since before `oldest`.
    pub(crate) fn expire(&self, oldest: Deadline, now: Deadline) {
        self.connections.borrow_mut().retain(|connection| {
            if connection.streams.get() > 0 {
                connection.used.set(now);
            }
            !connection.closed.get() && connection.used.get() >= oldest
        });
    }

    /// Lets go of all: streams that are open end in peace.
    pub(crate) fn close(&self) {
        self.connections.borrow_mut().clear();
    }
}

/// A connection that carries many streams.
pub(crate) struct Connection {
    send: RefCell<SendRequest<Bytes>>,
    closed: Rc<Cell<bool>>,
    streams: Cell<usize>,
    /// Whether it has had a stream.
    carried: Cell<bool>,
    used: Cell<Deadline>,
    /// Whether the peer's settings have come.
    settings: Rc<Settings>,
}

/// Whether the peer's first settings are known: they say whether it takes extended CONNECT (RFC 8441, 3), and it is not to be
/// asked before. They come before its answer to a PING.
struct Settings {
    known: Cell<bool>,
    ping: RefCell<Option<PingPong>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Settings {
    /// Ready once they are known, or never will be.
    fn poll_known(self: &Rc<Self>, context: &Context<'_>) -> Poll<()> {
        if self.known.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        drop(waiting);
        let Some(mut ping) = self.ping.take() else { return Poll::Pending };
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            // A connection that has ended says so to who asks it for a stream.
            let _ = ping.ping(Ping::opaque()).await;
            this.known.set(true);
            this.waiting.take().into_iter().for_each(Waker::wake);
        });
        Poll::Pending
    }
}

impl Connection {
    /// Begins HTTP/2 on a fresh connection, which is counted by its slot as long as it lives.
    pub(crate) async fn begin(stream: Stream, slot: ConnectionSlot, now: Deadline) -> Result<Rc<Self>, h2::Error> {
        let (send, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(ANSWER_BYTES_MAX)
            .initial_max_send_streams(STREAMS_MAX)
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await?;
        let settings = Settings {
            known: Cell::new(false),
            ping: RefCell::new(connection.ping_pong()),
            waiting: RefCell::default(),
        };
        let closed = Rc::new(Cell::new(false));
        let ended = Rc::clone(&closed);
        tokio::task::spawn_local(async move {
            let _slot = slot;
            // Its streams have been told of an error.
            let _ = connection.await;
            ended.set(true);
        });
        let send = RefCell::new(send);
        Ok(Rc::new(Self {
            send,
            closed,
            streams: Cell::new(0),
            carried: Cell::new(false),
            used: Cell::new(now),
            settings: Rc::new(settings),
        }))
    }

    fn has_room(&self) -> bool {
        !self.closed.get() && self.streams.get() < self.send.borrow().current_max_send_streams().clamp(1, STREAMS_MAX)
    }
}

/// One stream, as a connection that carries one HTTP/1.1 exchange.
pub(crate) struct Upstream {
    connection: Rc<Connection>,
    /// Before: the connection has carried other streams.
    pub(crate) reused: bool,
    answer: Option<ResponseFuture>,
    is_head: bool,
    /// The client's part of a WebSocket handshake, answered here.
    websocket_accept: Option<[u8; 28]>,
    receiver: Receiver,
    sender: Option<Sender>,
    unprocessed: bool,
    /// The connection has failed, and not just this stream.
    disconnected: bool,
    /// The request could not be sent: there is no answer to wait for.
    broken: bool,
    /// Nor can it be: of that, the backend knows nothing.
    refusal: Option<ProxyError>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.connection.streams.set(self.connection.streams.get() - 1);
    }
}

impl Upstream {
    fn new(connection: &Rc<Connection>, reused: bool) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self {
            connection: Rc::clone(connection),
            reused,
            answer: None,
            is_head: false,
            websocket_accept: None,
            receiver: Receiver::new(None, false, Vec::new()),
            sender: None,
            unprocessed: false,
            disconnected: false,
            broken: false,
            refusal: None,
        }
    }

    pub(crate) fn was_unprocessed(&self) -> bool {
        self.unprocessed
    }

    /// Whether another connection may fare better.
    pub(crate) fn is_disconnected(&self) -> bool {
        self.disconnected
    }

    /// Why the request cannot be sent over HTTP/2 at all.
    pub(crate) fn refusal(&self) -> Option<ProxyError> {
        self.refusal
    }

    /// Remembers what has failed, and whether the backend has refused the stream before it looked at it (RFC 9113, 8.7).
    fn failed(&mut self, error: h2::Error) -> io::Error {
        if error.is_io() || error.is_go_away() || self.sender.is_none() {
            self.disconnected = true;
            self.connection.closed.set(true);
        }
        let refused = error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        if error.is_go_away() && error.is_remote() || refused || self.sender.is_none() {
            self.unprocessed = true;
        }
        h2bridge::io_error(error)
    }

    /// Takes text that begins with a whole head; sends it once the connection has room. Gives how much was the head.
    fn poll_head(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let invalid = || io::Error::from(ErrorKind::InvalidData);
        let mut head = RequestHead::default();
        if !parse_request(bytes, &REQUEST_LIMITS, &mut head)
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?
        {
            return Poll::Ready(Err(invalid()));
        }
        let ready = self.connection.send.borrow_mut().poll_ready(context);
        if let Err(error) = ready!(ready) {
            return Poll::Ready(Err(self.failed(error)));
        }
        let mut fields = HeaderMap::with_capacity(head.fields.len() + 1);
        for field in &head.fields {
            if !field.name.of(bytes).eq_ignore_ascii_case(b"host") {
                h2bridge::push_field(&mut fields, field.name.of(bytes), field.value.of(bytes))?;
            }
        }
        if head.te_trailers {
            fields.insert("te", HeaderValue::from_static("trailers"));
        }
        let target = std::str::from_utf8(head.target.of(bytes)).map_err(|_| invalid())?;
        let authority = std::str::from_utf8(head.authority.of(bytes)).map_err(|_| invalid())?;
        let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query(target);
        let mut request = Request::new(());
        *request.uri_mut() = uri.build().map_err(|_| invalid())?;
        *request.method_mut() = http::Method::from_bytes(head.method_span.of(bytes)).map_err(|_| invalid())?;
        *request.version_mut() = Version::HTTP_2;
        self.is_head = request.method() == http::Method::HEAD;
        let mut framing = match head.body {
            BodyLength::None | BodyLength::Sized(0) => Framing::Sized(0),
            BodyLength::Sized(length) => Framing::Sized(length),
            BodyLength::Chunked => Framing::Chunked(<_>::default()),
            BodyLength::UntilClose => Framing::Raw,
        };
        if let Some(protocol) = head.upgrade {
            // RFC 8441: an upgrade is an extended CONNECT here, if the backend knows that.
            ready!(self.connection.settings.poll_known(context));
            if !self.connection.send.borrow().is_extended_connect_protocol_enabled() {
                return Poll::Ready(Err(ErrorKind::Unsupported.into()));
            }
            // No other protocol comes as far as this: see `request::plan`.
            let key = head.value_of(bytes, b"sec-websocket-key").ok_or_else(invalid)?;
            self.websocket_accept = Some(websocket::accept(key));
            let protocol = std::str::from_utf8(protocol.of(bytes)).map_err(|_| invalid())?;
            request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
            *request.method_mut() = http::Method::CONNECT;
            fields.remove("sec-websocket-key");
            // That of a request without a body is 0; a tunnel has none.
            fields.remove("content-length");
            framing = Framing::Raw;
        }
        *request.headers_mut() = fields;
        let ends = matches!(framing, Framing::Sized(0));
        let sent = self.connection.send.borrow_mut().send_request(request, ends);
        let (answer, stream) = match sent {
            Ok(sent) => sent,
            Err(error) => return Poll::Ready(Err(self.failed(error))),
        };
        self.answer = Some(answer);
        self.sender = Some(Sender::new(stream, framing, ends));
        Poll::Ready(Ok(head.head_len))
    }

    /// Waits for the answer's head, and stages it as text.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(answer) = &mut self.answer else { return Poll::Ready(Ok(())) };
        if let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(context) {
            if interim.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(h2bridge::NoSwitching.into()));
            }
            let mut text = status_line(interim.status());
            h2bridge::write_fields(interim.headers(), &mut text);
            text.extend_from_slice(b"\r\n");
            self.receiver.stage(&text);
            return Poll::Ready(Ok(()));
        }
        let answer = match ready!(Pin::new(answer).poll(context)) {
            Ok(answer) => answer,
            Err(error) => return Poll::Ready(Err(self.failed(error))),
        };
        self.answer = None;
        if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Poll::Ready(Err(h2bridge::NoSwitching.into()));
        }
        let (mut parts, body) = answer.into_parts();
        let accept = self.websocket_accept.filter(|_| parts.status.is_success());
        let switches = accept.is_some();
        let mut text = match accept {
            Some(accept) => {
                let mut text = status_line(http::StatusCode::SWITCHING_PROTOCOLS);
                text.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
                h2bridge::write_field("sec-websocket-accept", &accept, &mut text);
                // A tunnel has no length, and its handshake is ours.
                parts.headers.remove("content-length");
                parts.headers.remove("sec-websocket-accept");
                text
            }
            None => status_line(parts.status),
        };
        h2bridge::write_fields(&parts.headers, &mut text);
        let bodiless = self.is_head || matches!(parts.status.as_u16(), 204 | 304) || switches;
        let ended = body.is_end_stream();
        let sized = parts.headers.contains_key("content-length");
        if !sized && !bodiless {
            text.extend_from_slice(if ended { b"content-length: 0\r\n" } else { b"transfer-encoding: chunked\r\n" });
        }
        text.extend_from_slice(b"\r\n");
        self.receiver.stage(&text);
        self.receiver.follow((!ended && (!bodiless || switches)).then_some(body), !sized && !bodiless);
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if self.sender.is_none() {
            // Nothing was asked yet; whoever asks polls again.
            return Poll::Pending;
        }
        if !self.receiver.has_text() && self.answer.is_some() {
            return self.poll_answer(context);
        }
        self.receiver.poll_ready(context)
    }
}

fn status_line(status: http::StatusCode) -> Vec<u8> {
    let mut text = Vec::with_capacity(256);
    // Writing to a vector cannot fail.
    let _ = write!(text, "HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    text
}

impl AsyncRead for Upstream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_read_ready(context))?;
        this.receiver.poll_read(context, space)
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match &mut this.sender {
            Some(sender) => sender.poll_write(context, bytes),
            None => {
                let sent = this.poll_head(context, bytes);
                if let Poll::Ready(Err(error)) = &sent {
                    this.broken = true;
                    this.refusal = match error.kind() {
                        ErrorKind::InvalidData => Some(ProxyError::BadTarget),
                        ErrorKind::Unsupported => Some(ProxyError::UpgradeUnsupported),
                        _ => None,
                    };
                }
                sent
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().sender.as_mut().map_or(Ok(()), Sender::finish))
    }
}
