//! A client's stream of HTTP/2 (RFC 9113): the client's end of one exchange.

use super::Stream;
use super::driver::UNWRITTEN_MAX;
use crate::codec::encoded_reply::EncodedReply;
use crate::codec::grpc;
use crate::codec::source::{Gone, Source};
use crate::codec::tunnel::Duplex;
use crate::net::buffers::Buffer;
use ringway_http1::{Encoding, Progress};
use ringway_http2::hpack::encode;
use ringway_http2::{HeadKind, Reason};
use ringway_message::{BodyLength, HeadWriter, Method, ParseError, RequestHead};
use std::io;
use std::task::{Context, Poll};

/// A client's stream: its request, and the response to it.
pub(crate) struct Downstream {
    stream: Stream,
    /// How much of the request's data has not been taken, if its length is known.
    left: Option<u64>,
    /// It is a tunnel, or asks to be one: its bytes are no body.
    tunnel: bool,
    /// A gRPC call, whose errors have their own form.
    grpc: bool,
    /// A local reply has no body, and does not mention one.
    bodiless: bool,
    /// All of the response has been sent.
    ended: bool,
}

impl Downstream {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, left: None, tunnel: false, grpc: false, bodiless: false, ended: false }
    }

    /// Whether the client takes so little of the data that wait for it, on any stream, that no more is read from it.
    pub(crate) fn is_backlogged(&self) -> bool {
        self.stream.link.ask(|codec| codec.output().len()) > UNWRITTEN_MAX
    }

    /// Whether it asks to be a tunnel: any success means that it is one (RFC 8441, 5).
    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// Only the refusal of the request is known, perhaps not even its method: the reply has no body.
    pub(crate) fn handle_fault(&mut self) {
        self.bodiless = true;
    }

    /// Whether the client has reset it.
    pub(crate) fn is_gone(&self) -> bool {
        self.stream.ended().is_some()
    }

    /// Ready once the client has reset it, or its connection has ended.
    pub(crate) fn poll_left(&self, context: &Context<'_>) -> Poll<()> {
        self.stream.poll_ended(context).map(|_| ())
    }

    /// Takes the request's head.
    pub(crate) fn take_request(&mut self, head: &mut RequestHead, arena: &mut Vec<u8>) -> bool {
        if !self.stream.take_request(head, arena) {
            return false;
        }
        head.head_len = arena.len();
        if let Some(protocol) = head.protocol {
            // An extended CONNECT is an upgrade in HTTP/1.1 (RFC 8441, 5).
            self.tunnel = true;
            (head.method, head.upgrade, head.body) = (Method::Get, Some(protocol), BodyLength::None);
        }
        self.left = match head.body {
            BodyLength::None => Some(0),
            BodyLength::Sized(length) => Some(length),
            BodyLength::Chunked | BodyLength::UntilClose => None,
        };
        self.grpc = grpc::is_grpc(arena, head);
        true
    }

    /// Ready once more of the request has come, or its end.
    pub(crate) fn poll_more(&self, context: &Context<'_>) -> Poll<Result<(), Gone>> {
        self.stream.poll_more(context).map(|more| more.map_err(|_| Gone))
    }

    /// Sends a head whose lines stand in `head`. `ends`: nothing follows it.
    pub(crate) fn send_head(
        &mut self,
        status: u16,
        head: &HeadWriter,
        ends: bool,
        block: &mut Vec<u8>,
    ) -> Result<(), Gone> {
        block.clear();
        encode::status(block, status);
        write_lines(head, block);
        let kind = if status < 200 { HeadKind::Informational } else { HeadKind::Final };
        self.ended |= ends;
        self.stream.send_head(block, kind, ends)
    }

    /// Sends data of the response; `ends`: once all of it is taken, nothing follows.
    pub(crate) fn poll_send(&mut self, bytes: &[u8], ends: bool, context: &Context<'_>) -> Poll<Result<usize, Gone>> {
        let sent = self.stream.poll_send(bytes, ends, context);
        self.ended |= ends && matches!(sent, Poll::Ready(Ok(count)) if count == bytes.len());
        sent
    }

    /// Whether all of the response has been sent.
    pub(crate) fn is_answered(&self) -> bool {
        self.ended
    }

    /// Ends the response, perhaps with trailers.
    pub(crate) fn end(&mut self, trailers: &HeadWriter, block: &mut Vec<u8>) -> Result<(), Gone> {
        self.ended = true;
        if trailers.lines().is_empty() {
            return self
                .stream
                .link
                .tell(|codec| codec.send_data(self.stream.key, b"", true))
                .map(|_| ())
                .map_err(|_| Gone);
        }
        block.clear();
        write_lines(trailers, block);
        self.stream.send_head(block, HeadKind::Trailers, true)
    }

    /// Sends a local reply: in the form that gRPC clients read, where this is a gRPC call.
    pub(crate) fn answer(
        &mut self,
        answer: EncodedReply,
        head: &HeadWriter,
        block: &mut Vec<u8>,
    ) -> Result<bool, Gone> {
        let named = |name: &[u8]| {
            let mut lines = head.lines().iter();
            lines.find(|line| line.name.of(head.text()) == name).map(|line| line.value.of(head.text()))
        };
        let Some(reason) = named(b"x-ringway-reason").filter(|_| self.grpc) else {
            if self.bodiless {
                block.clear();
                encode::status(block, answer.status);
                let told = |name: &[u8]| !matches!(name, b"content-length" | b"content-type");
                for line in head.lines().iter().filter(|line| told(line.name.of(head.text()))) {
                    encode::field(block, line.name.of(head.text()), line.value.of(head.text()), false);
                }
                self.ended = true;
                return self.stream.send_head(block, HeadKind::Final, true).map(|()| true);
            }
            let ends = head.text().len() == answer.body_from;
            return self.send_head(answer.status, head, ends, block).map(|()| ends);
        };
        block.clear();
        // A gRPC client looks at the gRPC status.
        encode::status(block, 200);
        for line in head.lines() {
            let name = line.name.of(head.text());
            if !matches!(name, b"content-length" | b"content-type") {
                encode::field(block, name, line.value.of(head.text()), false);
            }
        }
        encode::field(block, b"content-type", b"application/grpc", false);
        encode::field(block, b"grpc-status", grpc::grpc_status(answer.status).as_bytes(), false);
        encode::field(block, b"grpc-message", reason, false);
        self.ended = true;
        self.stream.send_head(block, HeadKind::Final, true)?;
        Ok(true)
    }

    /// The response is cut off: the client must see that.
    pub(crate) fn abort(&self) {
        // RFC 9113, 8.5: a tunnel that has broken off.
        self.stream.reset(if self.tunnel { Reason::ConnectError } else { Reason::InternalError });
    }
}

/// Encodes lines as they stand.
fn write_lines(head: &HeadWriter, block: &mut Vec<u8>) {
    for line in head.lines() {
        encode::field(block, line.name.of(head.text()), line.value.of(head.text()), line.sensitive);
    }
}

impl Source for Downstream {
    fn is_over(&self) -> bool {
        self.tunnel || self.left == Some(0) || self.stream.is_drained()
    }

    fn is_finished(&self) -> bool {
        self.tunnel || self.stream.is_drained() && !self.stream.has_trailers()
    }

    fn ends_here(&self) -> bool {
        self.stream.is_received() && self.stream.shows_all() && !self.stream.has_trailers()
    }

    fn left(&self) -> Option<u64> {
        self.left
    }

    fn with_data<T>(&self, doing: impl FnOnce(&[u8]) -> T) -> Option<T> {
        Some(self.stream.with_data(doing))
    }

    fn consume(&mut self, count: usize) {
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
        self.stream.consume(count);
    }

    fn transfer(
        &mut self,
        out: &mut Vec<u8>,
        encoding: Encoding,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<Progress, ParseError> {
        let progress = self.stream.transfer(out, encoding, keep);
        self.left = self.left.map(|left| left.saturating_sub(progress.data as u64));
        Ok(progress)
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.tunnel { Poll::Ready(Ok(())) } else { self.stream.poll_end(context) }
    }

    fn write_trailers(&mut self, out: &mut HeadWriter, keep: impl Fn(&[u8]) -> bool) {
        self.stream.write_trailers(out, keep);
    }
}

impl Duplex for Downstream {
    fn poll_fill(&mut self, buffer: &mut Buffer, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stream.poll_fill(buffer, context)
    }

    fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_more(context).map(|more| more.map_err(super::reset_error))
    }

    fn poll_write(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stream.poll_send(bytes, false, context).map_err(super::gone_error)
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        self.stream.poll_send(b"", true, context).map_ok(|_| ()).map_err(super::gone_error)
    }

    fn poll_drive(&mut self, _: &mut Context<'_>) {}

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_ended(context).map(|_| ())
    }
}
