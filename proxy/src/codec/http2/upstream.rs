//! HTTP/2 towards backends: an exchange's stream, on a connection that many share.

use super::{Ended, Stream};
use crate::codec::source::{Failure, Gone, Source};
use crate::codec::tunnel::Duplex;
use crate::codec::websocket;
use crate::error::ProxyError;
use crate::net::buffers::Buffer;
use ringway_http1::{Encoding, Progress};
use ringway_http2::hpack::encode;
use ringway_http2::{By, OpenError, Reason};
use ringway_message::{BodyLength, Field, FieldName, HeadWriter, Method, ParseError, ResponseHead, Span};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

mod connection;
mod demand;
mod outgoing;
mod shared;

pub(crate) use connection::Connection;
use connection::Mark;
pub(crate) use outgoing::Outgoing;
pub(crate) use shared::{Opening, Shared};

/// One stream, or the reservation for one that is still to be opened.
pub(crate) struct Upstream {
    connection: Rc<Connection>,
    stream: Option<Stream>,
    /// When data of this stream, or of the connection before it, were last received.
    heard: Mark,
    /// The connection has carried other streams before.
    pub(crate) reused: bool,
    /// The head that has come last; `arena` is what its spans point into.
    head: ResponseHead,
    arena: Vec<u8>,
    /// That head waits to be taken, or is informational.
    head_came: bool,
    answered: bool,
    /// The client's part of a WebSocket handshake, to which the response is made here.
    websocket_accept: Option<[u8; 28]>,
    /// It is a tunnel: its bytes are no body.
    tunnel: bool,
    /// How much of the response's data has not been taken, if its length is known.
    left: Option<u64>,
    /// The request has been sent to its end.
    ended: bool,
    failure: Failure,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let line = &self.connection.line;
        line.streams.set(line.streams.get() - 1);
        if self.stream.is_some() && !self.answered {
            line.handle_given_up(self.heard);
        }
        self.connection.give_head((std::mem::take(&mut self.head), std::mem::take(&mut self.arena)));
    }
}

impl Upstream {
    #[inline]
    fn new(connection: &Rc<Connection>, reused: bool) -> Self {
        let line = &connection.line;
        line.streams.set(line.streams.get() + 1);
        let (head, arena) = connection.take_head();
        Self {
            connection: Rc::clone(connection),
            stream: None,
            heard: line.mark(),
            reused,
            head,
            arena,
            head_came: false,
            answered: false,
            websocket_accept: None,
            tunnel: false,
            left: None,
            ended: false,
            failure: Failure { disconnected: false, ..Failure::default() },
        }
    }

    /// See [`crate::codec::end::BackendEnd::failure`].
    pub(crate) fn failure(&self) -> Failure {
        self.failure
    }

    /// A deadline has passed while data were due.
    pub(crate) fn handle_timeout(&self) {
        self.connection.line.handle_timeout(self.heard);
    }

    /// Whether the request's head has been sent.
    pub(crate) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether nothing has come in response to the request.
    pub(crate) fn is_silent(&self) -> bool {
        !self.head_came && !self.answered
    }

    /// Sends the request's head; `ends`: it is all of the request.
    pub(crate) fn open(&mut self, request: &Outgoing<'_>, ends: bool, block: &mut Vec<u8>) -> Result<(), Gone> {
        let link = &self.connection.link;
        let text = request.text;
        let named = |name: &[u8]| {
            let mut lines = request.lines.iter();
            lines.find(|line| line.name.of(text).eq_ignore_ascii_case(name)).map(|line| line.value.of(text))
        };
        if let Some(protocol) = request.protocol {
            if !link.ask(ringway_http2::Connection::extended_connect) {
                self.failure.unsendable = Some(ProxyError::UpgradeUnsupported);
                return Err(Gone);
            }
            // No other protocol comes as far as this: see `request::prepare`.
            self.websocket_accept = Some(websocket::accept(named(b"sec-websocket-key").unwrap_or_default()));
            block.clear();
            encode::method(block, b"CONNECT");
            encode::protocol(block, protocol);
        } else {
            block.clear();
            encode::method(block, request.method_name.of(text));
        }
        // The scheme of the connection (RFC 9113, 8.3.1): some backends refuse another. The client's own scheme stands in
        // fields.
        encode::scheme(block, if self.connection.secure { b"https" } else { b"http" });
        encode::authority(block, request.authority.of(text), request.sensitive);
        encode::path(block, request.target.of(text), request.sensitive);
        for line in request.lines {
            let name = line.name.of(text);
            // A tunnel has no length, and its handshake is that of HTTP/2.
            let skips = |name: &[u8]| {
                name.eq_ignore_ascii_case(b"sec-websocket-key") || name.eq_ignore_ascii_case(b"content-length")
            };
            if request.protocol.is_some() && skips(name) {
                continue;
            }
            encode::field(block, name, line.value.of(text), line.sensitive);
        }
        let method = if request.protocol.is_some() { Method::Connect } else { request.method };
        match link.tell(|codec| codec.open(block, ends, method)) {
            Ok(key) => {
                self.stream = Some(Stream::new(link, key));
                self.heard = self.connection.line.mark();
                self.ended = ends;
                Ok(())
            }
            Err(error) => {
                // It takes no more streams, or fewer than are open: another connection, or another backend, may.
                if matches!(error, OpenError::GoingAway | OpenError::Exhausted) {
                    self.connection.line.closed.set(true);
                }
                (self.failure.unprocessed, self.failure.disconnected) = (true, true);
                Err(Gone)
            }
        }
    }

    /// Sends data of the request's body; `ends`: once all of it is taken, nothing follows.
    pub(crate) fn poll_send(&mut self, bytes: &[u8], ends: bool, context: &Context<'_>) -> Poll<Result<usize, Gone>> {
        let Some(stream) = &self.stream else { return Poll::Ready(Err(Gone)) };
        let sent = stream.poll_send(bytes, ends, context);
        self.ended |= ends && matches!(sent, Poll::Ready(Ok(count)) if count == bytes.len());
        sent
    }

    /// Whether the request has been sent to its end.
    pub(crate) fn is_told(&self) -> bool {
        self.ended
    }

    /// Reads a trailer of the response that has come, and leaves it there.
    pub(crate) fn with_trailer<T>(&self, name: &[u8], read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.stream()?.with_trailer(name, read)
    }

    /// Ends the request, perhaps with trailers.
    pub(crate) fn end(&mut self, trailers: &HeadWriter, block: &mut Vec<u8>) -> Result<(), Gone> {
        self.ended = true;
        let Some(stream) = &self.stream else { return Err(Gone) };
        if trailers.lines().is_empty() {
            return stream.link.tell(|codec| codec.send_data(stream.key, b"", true)).map(|_| ()).map_err(|_| Gone);
        }
        block.clear();
        for line in trailers.lines() {
            encode::field(block, line.name.of(trailers.text()), line.value.of(trailers.text()), line.sensitive);
        }
        stream.send_head(block, ringway_http2::HeadKind::Trailers, true)
    }

    /// The request is cut off: the backend must see that.
    pub(crate) fn abort(&self) {
        self.stream.iter().for_each(|stream| stream.reset(Reason::Cancel));
    }

    /// Waits for the next head of the response, which [`Upstream::lend_head`] then gives.
    ///
    /// # Errors
    /// None will come.
    pub(crate) fn poll_head(&mut self, context: &Context<'_>) -> Poll<Result<(), ProxyError>> {
        if self.head_came {
            return Poll::Ready(Ok(()));
        }
        let Some(stream) = &self.stream else {
            // The request was not sent yet, and the caller polls again; or it could not be sent.
            let failed = self.failure.unprocessed || self.failure.unsendable.is_some();
            return if failed { Poll::Ready(Err(ProxyError::UpstreamClosed)) } else { Poll::Pending };
        };
        match stream.poll_response(&mut self.head, &mut self.arena, context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(ended)) => return Poll::Ready(Err(self.failed(ended, ProxyError::UpstreamClosed))),
            Poll::Ready(Ok(())) => {}
        }
        self.heard = self.connection.line.mark();
        self.head_came = true;
        if !self.head.is_informational() {
            self.answered = true;
            self.take_switch();
            self.left = match self.head.body {
                BodyLength::None => Some(0),
                BodyLength::Sized(length) => Some(length),
                BodyLength::Chunked | BodyLength::UntilClose => None,
            };
        }
        Poll::Ready(Ok(()))
    }

    /// The success of an extended CONNECT is 101 in HTTP/1.1 (RFC 8441, 5).
    fn take_switch(&mut self) {
        let Some(accept) = self.websocket_accept.filter(|_| (200..300).contains(&self.head.status)) else { return };
        self.tunnel = true;
        let Self { head, arena, .. } = self;
        head.status = 101;
        head.body = BodyLength::None;
        for field in &mut head.fields {
            let of_handshake = field.name.of(arena).eq_ignore_ascii_case(b"sec-websocket-accept");
            if of_handshake || field.kind == FieldName::ContentLength {
                // It stays where it stands, between others, and is not forwarded.
                field.kind = FieldName::Nominated;
            }
        }
        let mut add = |name: &[u8], value: &[u8], kind| {
            let start = arena.len() as u32;
            arena.extend_from_slice(name);
            arena.extend_from_slice(b": ");
            let name = Span { start, end: start + name.len() as u32 };
            let start = arena.len() as u32;
            arena.extend_from_slice(value);
            arena.extend_from_slice(b"\r\n");
            let value = Span { start, end: start + value.len() as u32 };
            head.fields.push(Field { name, value, kind, sensitive: false });
            value
        };
        let protocol = add(b"upgrade", websocket::PROTOCOL, FieldName::Upgrade);
        add(b"sec-websocket-accept", &accept, FieldName::Other);
        head.upgrade = Some(protocol);
    }

    /// The head that has come, and what it points into; it stays until it is consumed.
    pub(crate) fn lend_head(&mut self) -> (ResponseHead, Vec<u8>) {
        (std::mem::take(&mut self.head), std::mem::take(&mut self.arena))
    }

    /// Takes back what was lent; `consumed`: the next one is waited for.
    pub(crate) fn return_head(&mut self, (head, arena): (ResponseHead, Vec<u8>), consumed: bool) {
        (self.head, self.arena) = (head, arena);
        self.head_came &= !consumed;
    }

    /// The response's length is not forwarded: its end is signalled otherwise.
    pub(crate) fn forget_length(&mut self) {
        self.left = None;
    }

    /// Ready once more of the body has come, or its end.
    pub(crate) fn poll_more(&mut self, context: &Context<'_>) -> Poll<Result<(), ProxyError>> {
        let Some(stream) = &self.stream else { return Poll::Ready(Err(ProxyError::ShortResponse)) };
        match stream.poll_more(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => {
                self.heard = self.connection.line.mark();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(ended)) => Poll::Ready(Err(self.failed(ended, ProxyError::ShortResponse))),
        }
    }

    /// Whether the backend has sent everything, taken or not.
    pub(crate) fn is_received(&self) -> bool {
        !self.tunnel && self.stream.as_ref().is_some_and(Stream::is_received)
    }

    /// Remembers what has failed, and whether the backend has refused the stream without processing it (RFC 9113, 8.7).
    fn failed(&mut self, ended: Ended, otherwise: ProxyError) -> ProxyError {
        let Ended { reason, by, unprocessed } = ended;
        self.failure.unprocessed |= unprocessed;
        // A stream that the peer has refused by itself, or with all that come after its last one (RFC 9113, 6.8).
        let refused = by == By::Peer && reason == Reason::RefusedStream;
        self.failure.disconnected |= by == By::Connection || unprocessed && !refused;
        self.failure.refused |= refused;
        match by {
            By::Local => ProxyError::UnfitStream,
            By::Peer | By::Connection => otherwise,
        }
    }

    fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }
}

impl Source for Upstream {
    fn is_over(&self) -> bool {
        self.tunnel || self.left == Some(0) || self.stream().is_none_or(Stream::is_drained)
    }

    fn is_finished(&self) -> bool {
        self.tunnel || self.stream().is_none_or(|stream| stream.is_drained() && !stream.has_trailers())
    }

    fn ends_here(&self) -> bool {
        self.stream().is_none_or(|stream| stream.is_received() && stream.shows_all() && !stream.has_trailers())
    }

    fn left(&self) -> Option<u64> {
        self.left
    }

    fn with_data<T>(&self, doing: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.stream().map(|stream| stream.with_data(doing))
    }

    fn consume(&mut self, count: usize) {
        self.heard = self.connection.line.mark();
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
        self.stream.iter().for_each(|stream| stream.consume(count));
    }

    fn transfer(
        &mut self,
        out: &mut Vec<u8>,
        encoding: Encoding,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<Progress, ParseError> {
        let Some(stream) = &self.stream else { return Ok(Progress::default()) };
        let progress = stream.transfer(out, encoding, keep);
        if progress.data > 0 {
            self.heard = self.connection.line.mark();
        }
        self.left = self.left.map(|left| left.saturating_sub(progress.data as u64));
        Ok(progress)
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match &self.stream {
            Some(stream) if !self.tunnel => stream.poll_end(context),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn write_trailers(&mut self, out: &mut HeadWriter, keep: impl Fn(&[u8]) -> bool) {
        self.stream.iter().for_each(|stream| stream.write_trailers(out, &keep));
    }
}

impl Duplex for Upstream {
    fn poll_fill(&mut self, buffer: &mut Buffer, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stream().map_or(Poll::Ready(Ok(0)), |stream| stream.poll_fill(buffer, context))
    }

    fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = |stream: &Stream| stream.poll_more(context).map(|more| more.map_err(super::reset_error));
        self.stream().map_or(Poll::Ready(Ok(())), ready)
    }

    fn poll_write(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Self::poll_send(self, bytes, false, context).map_err(super::gone_error)
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_send(self, b"", true, context).map_ok(|_| ()).map_err(super::gone_error)
    }

    fn poll_drive(&mut self, _: &mut Context<'_>) {}

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stream().map_or(Poll::Pending, |stream| stream.poll_ended(context).map(|_| ()))
    }
}
