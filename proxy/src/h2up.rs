//! HTTP/2 towards backends: connections shared by many exchanges, each of which sees HTTP/1.1.

use crate::error::ProxyError;
use crate::h2bridge::{self, Framing, Receiver, Sender};
use crate::timer::Deadline;
use crate::websocket;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderValue, Request, Version};
use ringway_http1::{BodyLength, Limits, RequestHead, parse_request};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, ErrorKind, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

mod connection;

pub(crate) use connection::Connection;
use connection::Mark;

/// Streams on one connection, whatever its peer would allow.
const STREAMS_MAX: usize = 100;
/// Connections that are being opened at once, where their peer takes few streams on each.
const OPENINGS_MAX: usize = 16;
/// Heads that we have written ourselves.
const REQUEST_LIMITS: Limits = Limits { head_bytes_max: 256 * 1024, fields_max: 512 };
/// Largest head of an answer.
const ANSWER_BYTES_MAX: u32 = 64 * 1024;

/// Connections of one worker to one backend.
#[derive(Default)]
pub(crate) struct Shared {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// Those that are being opened: all who need one wait for them.
    opening: Rc<Opens>,
}

#[derive(Default)]
struct Opens {
    under_way: Cell<usize>,
    waiting: Cell<usize>,
    /// Streams that the last one to be opened had room for; 0 while none is known.
    room: Cell<usize>,
    over: Notify,
    /// How the last opening failed, if it did: those who waited for it need not try one after the other.
    failed: Cell<Option<ProxyError>>,
}

/// Says that the opening is over, however it ended.
pub(crate) struct Opening(Rc<Opens>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.over.notify_waiters();
    }
}

/// One who waits for a connection to be opened.
pub(crate) struct Waiting(Rc<Opens>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl Shared {
    /// A connection with room for one more stream; `newest`: the one that was opened last comes first, and counts as fresh.
    pub(crate) fn take(&self, newest: bool) -> Option<Upstream> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| !connection.line.closed.get());
        let mut with_room = connections.iter().filter(|connection| connection.has_room());
        let chosen = if newest { with_room.next_back() } else { with_room.next() };
        chosen.map(|connection| Upstream::new(connection, connection.carried.replace(true)))
    }

    /// Counts one who waits.
    pub(crate) fn wait(&self) -> Waiting {
        self.opening.waiting.set(self.opening.waiting.get() + 1);
        Waiting(Rc::clone(&self.opening))
    }

    /// Leave to open one; `None`: those under way will do for all who wait, as far as is known.
    pub(crate) fn open(&self) -> Option<Opening> {
        let Opens { under_way, waiting, room, failed, .. } = &*self.opening;
        let each = if room.get() == 0 { STREAMS_MAX } else { room.get() };
        if under_way.get() >= waiting.get().div_ceil(each).min(OPENINGS_MAX) {
            return None;
        }
        under_way.set(under_way.get() + 1);
        failed.set(None);
        Some(Opening(Rc::clone(&self.opening)))
    }

    /// The end of an opening that is under way, or begins next.
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
            Ok(connection) => {
                opening.0.room.set(connection.streams_max());
                self.connections.borrow_mut().push(connection);
            }
            Err(error) => opening.0.failed.set(Some(error)),
        }
    }

    /// Lets go of connections without streams since before `oldest`.
    pub(crate) fn expire(&self, oldest: Deadline, now: Deadline) {
        self.connections.borrow_mut().retain(|connection| {
            if connection.line.streams.get() > 0 {
                connection.used.set(now);
            }
            !connection.line.closed.get() && connection.used.get() >= oldest
        });
    }

    /// Lets go of one without streams, which then closes. `false`: there is none.
    pub(crate) fn close_one(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let idle = |connection: &Rc<Connection>| connection.line.streams.get() == 0 && !connection.line.closed.get();
        let found = connections.iter().position(idle);
        found.map(|index| connections.remove(index)).is_some()
    }

    /// Lets go of all: streams that are open end in peace.
    pub(crate) fn close(&self) {
        self.connections.borrow_mut().clear();
    }
}

/// One stream, as a connection that carries one HTTP/1.1 exchange.
pub(crate) struct Upstream {
    connection: Rc<Connection>,
    send: SendRequest<Bytes>,
    /// When something of this stream, or anything before it, was last heard.
    heard: Mark,
    /// The library has the request, and has not sent it yet.
    unopened: bool,
    /// The head is all of the request.
    is_head_only: bool,
    /// Before: the connection has carried other streams.
    pub(crate) reused: bool,
    answer: Option<ResponseFuture>,
    is_head: bool,
    /// The client's part of a WebSocket handshake, answered here.
    websocket_accept: Option<[u8; 28]>,
    receiver: Receiver,
    sender: Option<Sender>,
    unprocessed: bool,
    refused: bool,
    /// The connection has failed, and not just this stream.
    disconnected: bool,
    /// The client speaks HTTP/2 as well: trailers go beside the text. To others, a body with a length has none, and goes in chunks if
    /// it says that it will.
    pub(crate) client_trails: bool,
    /// After a request's body, trailers may come.
    pub(crate) holds_end: bool,
    /// The length of a request whose text has chunks in its place.
    pub(crate) length: Option<HeaderValue>,
    /// The request could not be sent: there is no answer to wait for.
    broken: bool,
    /// Nor can it be: of that, the backend knows nothing.
    refusal: Option<ProxyError>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let line = &self.connection.line;
        line.streams.set(line.streams.get() - 1);
        if self.answer.is_some() {
            line.handle_given_up(self.heard);
        }
    }
}

impl Upstream {
    fn new(connection: &Rc<Connection>, reused: bool) -> Self {
        let line = &connection.line;
        line.streams.set(line.streams.get() + 1);
        Self {
            connection: Rc::clone(connection),
            send: connection.send.clone(),
            heard: line.mark(),
            unopened: false,
            is_head_only: false,
            reused,
            answer: None,
            is_head: false,
            websocket_accept: None,
            receiver: Receiver::new(None, false, Vec::new()),
            sender: None,
            unprocessed: false,
            refused: false,
            client_trails: false,
            holds_end: false,
            length: None,
            disconnected: false,
            broken: false,
            refusal: None,
        }
    }

    pub(crate) fn was_unprocessed(&self) -> bool {
        self.unprocessed
    }

    pub(crate) fn was_refused(&self) -> bool {
        self.refused
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
            self.connection.line.closed.set(true);
        }
        self.refused |= error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        // The library ends those streams alone with the peer's GOAWAY that it names as not looked at.
        if error.is_go_away() && error.is_remote() || self.refused || self.sender.is_none() {
            self.unprocessed = true;
        }
        h2bridge::io_error(error)
    }

    /// It was not sent, and will not be soon: its peer has come to take fewer streams than there are.
    fn not_sent(&mut self) -> io::Error {
        (self.unprocessed, self.disconnected) = (true, true);
        ErrorKind::ConnectionAborted.into()
    }

    /// What was asked for has not come in time.
    pub(crate) fn handle_timeout(&self) {
        self.connection.line.handle_timeout(self.heard);
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
        if let Err(error) = ready!(self.send.poll_ready(context)) {
            return Poll::Ready(Err(self.failed(error)));
        }
        if self.connection.is_over_full() {
            return Poll::Ready(Err(self.not_sent()));
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
        // That of the connection (RFC 9113, 8.3.1): some backends refuse another. What the client has asked for stands in fields.
        let scheme = if self.connection.secure { "https" } else { "http" };
        let uri = http::Uri::builder().scheme(scheme).authority(authority).path_and_query(target);
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
            if !self.send.is_extended_connect_protocol_enabled() {
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
        if let (Framing::Chunked(_), Some(length)) = (&framing, self.length.take()) {
            fields.insert("content-length", length);
        }
        *request.headers_mut() = fields;
        let holds_end = self.holds_end && matches!(head.body, BodyLength::Sized(_));
        let ends = matches!(framing, Framing::Sized(0)) && !holds_end;
        let sent = self.send.send_request(request, ends);
        let (answer, stream) = match sent {
            Ok(sent) => sent,
            Err(error) => return Poll::Ready(Err(self.failed(error))),
        };
        self.answer = Some(answer);
        (self.unopened, self.heard) = (true, self.connection.line.mark());
        self.is_head_only = ends;
        self.sender = Some(Sender::new(stream, framing, ends, holds_end));
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
        let bodiless = self.is_head || matches!(parts.status.as_u16(), 204 | 304) || switches;
        let ended = body.is_end_stream();
        if !self.client_trails && !bodiless && !ended && announces_trailers(&parts.headers) {
            parts.headers.remove("content-length");
        }
        h2bridge::write_fields(&parts.headers, &mut text);
        let sized = parts.headers.contains_key("content-length");
        if !sized && !bodiless {
            text.extend_from_slice(if ended { b"content-length: 0\r\n" } else { b"transfer-encoding: chunked\r\n" });
        }
        text.extend_from_slice(b"\r\n");
        self.receiver.stage(&text);
        self.receiver.follow((!ended && (!bodiless || switches)).then_some(body), !sized && !bodiless);
        Poll::Ready(Ok(()))
    }

    /// Whether trailers may come that the text has no place for.
    pub(crate) fn may_trail(&self) -> bool {
        self.receiver.may_trail()
    }

    pub(crate) fn poll_trailers(&mut self, context: &mut Context<'_>) -> Poll<io::Result<HeaderMap>> {
        self.receiver.poll_trailers(context)
    }

    /// Where the request's body ends, if trailers may follow it.
    pub(crate) fn body_end(&mut self) -> Option<&mut Sender> {
        self.sender.as_mut().filter(|sender| sender.awaits_end())
    }

    pub(crate) fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if self.sender.is_none() {
            // Nothing was asked yet; whoever asks polls again.
            return Poll::Pending;
        }
        if self.receiver.has_text() {
            return Poll::Ready(Ok(()));
        }
        if self.unopened && self.send.poll_ready(context).is_pending() {
            if self.connection.is_over_full() {
                // Of a stream that is given up before it was sent, the library sends head and reset once there is room: none is
                // to come.
                self.connection.line.closed.set(true);
                let error = self.not_sent();
                // The library may still send the head of it, once there is room: if that is all of the request, it may yet be processed.
                self.unprocessed = !self.is_head_only;
                return Poll::Ready(Err(error));
            }
            self.connection.line.wait(context);
            return Poll::Pending;
        }
        self.unopened = false;
        let came = if self.answer.is_some() { self.poll_answer(context) } else { self.receiver.poll_ready(context) };
        if came.is_ready() {
            self.heard = self.connection.line.mark();
        }
        came
    }
}

/// Whether an answer says that trailers will follow its body.
fn announces_trailers(fields: &HeaderMap) -> bool {
    fields.contains_key("trailer")
        || fields.get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
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
