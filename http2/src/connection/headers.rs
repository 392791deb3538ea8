//! Blocks of fields: requests, responses and trailers.

use super::Connection;
use super::input::Block;
use crate::error::{ConnectionError, Reason};
use crate::frame::{END_HEADERS, END_STREAM, FRAME_BYTES, FrameHeader, Headers};
use crate::head::{self, Fault};
use crate::hpack::HpackError;
use crate::pool::{Inbound, InboundKind};
use crate::streams::{Fate, News, Receiving};
use crate::{Role, frame};
use ringway_message::{BodyLength, ParseError};

/// Informational responses that a stream may have in all, and how many times the longest head they may be together: so much waits at
/// most for a caller that does not take them, and what becomes of them does not depend on how their bytes come.
const INFORMATIONAL_MAX: u32 = 64;
const INFORMATIONAL_HEADS_MAX: usize = 4;

/// Both ends' state of the compression is lost (RFC 9113, 4.3).
fn lost(error: HpackError) -> ConnectionError {
    match error {
        HpackError::ListTooLong => ConnectionError::flood("http2_head_flood"),
        _ => ConnectionError::new(Reason::CompressionError, "a block cannot be decoded"),
    }
}

impl Connection {
    pub(super) fn handle_headers(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        let Headers { fragment, dependency } = Headers::parse(header, payload)?;
        let (stream, ends) = (header.stream, header.has(END_STREAM));
        let depends_on_itself = dependency == Some(stream);
        if header.has(END_HEADERS) {
            return self.handle_block(stream, ends, depends_on_itself, fragment);
        }
        self.block = Some(Block { stream, ends, depends_on_itself, continuations: 0, bytes: fragment.to_vec() });
        Ok(())
    }

    pub(super) fn handle_continuation(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        let most = 2 * (self.config.head.head_bytes_max + FRAME_BYTES);
        // That there is one was seen to when the frame began.
        let Some(block) = &mut self.block else { return Ok(()) };
        block.continuations += 1;
        if block.continuations > self.config.floods.continuations_max {
            return Err(ConnectionError::flood("http2_continuation_flood"));
        }
        // Even all in long codes, a head within the limit takes no more than this. One that is a little longer is refused in peace.
        if block.bytes.len() + payload.len() > most {
            return Err(ConnectionError::flood("http2_head_flood"));
        }
        block.bytes.extend_from_slice(payload);
        if !header.has(END_HEADERS) {
            return Ok(());
        }
        let Some(block) = self.block.take() else { return Ok(()) };
        self.handle_block(block.stream, block.ends, block.depends_on_itself, &block.bytes)
    }

    fn handle_block(
        &mut self,
        id: u32,
        ends: bool,
        depends_on_itself: bool,
        block: &[u8],
    ) -> Result<(), ConnectionError> {
        self.messages += 1;
        if id.is_multiple_of(2) {
            return Err(ConnectionError::protocol("HEADERS on a stream that only a push could open"));
        }
        if depends_on_itself {
            self.discard_block(block)?;
            if self.is_idle(id) && self.config.role == Role::Server {
                self.history.open(id);
            }
            return self.fail_stream(id, Reason::ProtocolError, None);
        }
        match self.streams.find(id) {
            Some(slot) => match self.streams.at(slot).receiving {
                // On a server, a stream begins with its head.
                Receiving::Head => self.handle_response(slot, ends, block),
                Receiving::Body => self.handle_trailers(slot, ends, block),
                Receiving::Ended | Receiving::Cut => {
                    self.discard_block(block)?;
                    self.fail_stream(id, Reason::StreamClosed, None)
                }
            },
            None => self.handle_block_elsewhere(id, ends, block),
        }
    }

    /// On no stream that is open.
    fn handle_block_elsewhere(&mut self, id: u32, ends: bool, block: &[u8]) -> Result<(), ConnectionError> {
        match (self.history.fate(id), self.config.role) {
            (Fate::Idle, Role::Server) => self.handle_request(id, ends, block),
            (Fate::Idle, Role::Client) => Err(ConnectionError::protocol("a response to nothing")),
            // RFC 9113, 5.1.1.
            (Fate::Unused, _) => Err(ConnectionError::protocol("a stream with a lower number than one before it")),
            (Fate::Ended, _) => Err(ConnectionError::new(Reason::StreamClosed, "HEADERS on a closed stream")),
            (Fate::ResetByPeer, _) => {
                self.discard_block(block)?;
                self.fail_stream(id, Reason::StreamClosed, None)
            }
            // The peer may not know yet.
            (Fate::ResetByUs | Fate::Forgotten, _) => {
                self.floods.handle_useless("http2_other_flood")?;
                self.discard_block(block)
            }
        }
    }

    /// What it says of the compression is kept, and nothing else.
    fn discard_block(&mut self, block: &[u8]) -> Result<(), ConnectionError> {
        self.decoder.decode(block, |_| {}).map_err(lost)
    }

    fn handle_request(&mut self, id: u32, ends: bool, block: &[u8]) -> Result<(), ConnectionError> {
        self.history.open(id);
        self.floods.handle_opened();
        if self.is_final() {
            // It is past the last one that we have said that we look at (RFC 9113, 6.8).
            self.history.set_reset(id, true);
            self.discard_block(block)?;
            return self.floods.handle_refused();
        }
        let most = self.config.streams_max as usize;
        // Those that the peer has ended, but their users not yet, are bounded as well.
        if self.streams.open() >= most || self.streams.used() >= most * 2 + 16 {
            self.discard_block(block)?;
            frame::write_reset(self.output.buffer(&self.memory), id, Reason::RefusedStream);
            self.history.set_reset(id, true);
            return self.floods.handle_refused();
        }
        let mut inbound = self.memory.take_inbound(InboundKind::Request);
        let Inbound { request, arena, .. } = &mut *inbound;
        let fault = match head::request(&mut self.decoder, block, ends, &self.rules, request, arena) {
            Ok(Ok(())) => None,
            Ok(Err(Fault::Refused(error) | Fault::TooLarge(error))) => Some(error),
            Ok(Err(Fault::Malformed(_))) => {
                self.memory.give_inbound(inbound);
                return self.fail_stream(id, Reason::ProtocolError, None);
            }
            Err(error) => {
                self.memory.give_inbound(inbound);
                return Err(lost(error));
            }
        };
        if fault.is_some_and(ParseError::is_size)
            && let Err(error) = self.floods.handle_malformed()
        {
            // Each is refused in peace, but it costs as much to take as any.
            self.memory.give_inbound(inbound);
            return Err(error);
        }
        inbound.fault = fault;
        let length = if fault.is_some() { BodyLength::Chunked } else { inbound.request.body };
        let slot = self.streams.open_slot(id, self.peer.initial_window, self.own.window);
        let stream = self.streams.at(slot);
        stream.method = inbound.request.method;
        stream.length_left = length_left(length);
        stream.push_inbound(inbound);
        stream.receiving = if ends { Receiving::Ended } else { Receiving::Body };
        self.tell(slot, if ends { News::HEAD | News::END } else { News::HEAD });
        Ok(())
    }

    fn handle_response(&mut self, slot: u32, ends: bool, block: &[u8]) -> Result<(), ConnectionError> {
        let stream = self.streams.at(slot);
        let (id, method) = (stream.id, stream.method);
        let most = self.config.head.head_bytes_max.saturating_mul(INFORMATIONAL_HEADS_MAX);
        let too_many = stream.informational > INFORMATIONAL_MAX || stream.informational_bytes > most;
        if too_many {
            self.discard_block(block)?;
            return self.fail_stream(id, Reason::EnhanceYourCalm, None);
        }
        let mut inbound = self.memory.take_inbound(InboundKind::Response);
        let Inbound { response, arena, .. } = &mut *inbound;
        let limits = &self.config.head;
        let judged = head::response(&mut self.decoder, block, ends, limits, method, response, arena);
        let (status, body, length) = (response.status, response.body, arena.len());
        match judged {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                self.memory.give_inbound(inbound);
                return self.fail_stream(id, reason_of(fault), Some(fault.error()));
            }
            Err(error) => {
                self.memory.give_inbound(inbound);
                return Err(lost(error));
            }
        }
        let stream = self.streams.at(slot);
        stream.push_inbound(inbound);
        if status < 200 {
            stream.informational += 1;
            stream.informational_bytes += length;
            self.tell(slot, News::HEAD);
            return Ok(());
        }
        stream.length_left = length_left(body);
        stream.receiving = if ends { Receiving::Ended } else { Receiving::Body };
        self.tell(slot, if ends { News::HEAD | News::END } else { News::HEAD });
        self.settle(slot);
        Ok(())
    }

    fn handle_trailers(&mut self, slot: u32, ends: bool, block: &[u8]) -> Result<(), ConnectionError> {
        let stream = self.streams.at(slot);
        let (id, is_short) = (stream.id, stream.length_left.is_some_and(|left| left > 0));
        // RFC 9113, 8.1: nothing follows trailers; and 8.1.1: the body is as long as was said.
        if !ends || is_short {
            self.discard_block(block)?;
            return self.fail_stream(id, Reason::ProtocolError, None);
        }
        let mut inbound = self.memory.take_inbound(InboundKind::Trailers);
        let Inbound { trailers, arena, .. } = &mut *inbound;
        match head::trailers(&mut self.decoder, block, &self.config.head, trailers, arena) {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                self.memory.give_inbound(inbound);
                return self.fail_stream(id, reason_of(fault), Some(fault.error()));
            }
            Err(error) => {
                self.memory.give_inbound(inbound);
                return Err(lost(error));
            }
        }
        let stream = self.streams.at(slot);
        stream.push_inbound(inbound);
        stream.receiving = Receiving::Ended;
        self.tell(slot, News::TRAILERS | News::END);
        self.settle(slot);
        Ok(())
    }
}

/// Bytes that are to come, if that is known.
fn length_left(body: BodyLength) -> Option<u64> {
    match body {
        BodyLength::None => Some(0),
        BodyLength::Sized(length) => Some(length),
        BodyLength::Chunked | BodyLength::UntilClose => None,
    }
}

fn reason_of(fault: Fault) -> Reason {
    match fault {
        Fault::Malformed(_) | Fault::Refused(_) => Reason::ProtocolError,
        Fault::TooLarge(_) => Reason::Cancel,
    }
}
