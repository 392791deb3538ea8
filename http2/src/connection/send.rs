//! What users send.

use super::Connection;
use crate::Role;
use crate::error::{Closed, OpenError, Reason};
use crate::frame::{self, FRAME_BYTES, HEADER_BYTES, U31_MAX};
use crate::streams::{News, Receiving, Sending, StreamKey, Wants};
use ringway_message::Method;

/// The peer's table of our encoder is set to nothing, before our first block: we use none, and a smaller one than 4096 bytes must be said
/// (RFC 7541, 4.2).
const NO_TABLE: &[u8] = &[0x20];

/// What a block of fields is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// A response's head with a status of 1xx.
    Informational,
    /// A response's head.
    Final,
    /// What follows a body, and ends it.
    Trailers,
}

impl Connection {
    /// Sends a request's head, encoded by [`crate::hpack::encode`]. `ends`: it is all of the request. The method is that of the head:
    /// responses to HEAD and CONNECT have no body of the usual kind.
    ///
    /// # Errors
    /// There is no room for another stream at the moment, or there will be none any more. Nothing has been sent.
    pub fn open(&mut self, block: &[u8], ends: bool, method: Method) -> Result<StreamKey, OpenError> {
        if self.is_leaving() || self.config.role == Role::Server {
            return Err(OpenError::GoingAway);
        }
        if self.next_id > U31_MAX {
            return Err(OpenError::Exhausted);
        }
        if self.streams.open() >= self.streams_max() {
            self.wants_capacity = true;
            return Err(OpenError::Full);
        }
        let id = self.next_id;
        self.next_id += 2;
        self.history.open(id);
        self.floods.handle_opened();
        let slot = self.streams.open_slot(id, self.peer.initial_window, self.own.window);
        let stream = self.streams.at(slot);
        (stream.told, stream.method) = (true, method);
        stream.sending = if ends { Sending::Ended } else { Sending::Body };
        self.write_block(id, block, ends);
        Ok(StreamKey { slot, id })
    }

    /// Sends a response's head or trailers, encoded by [`crate::hpack::encode`]. Trailers end the message in any case, an informational
    /// head never does.
    ///
    /// # Errors
    /// The stream is over, or its message has come too far for that.
    pub fn send_head(&mut self, key: StreamKey, block: &[u8], kind: HeadKind, ends: bool) -> Result<(), Closed> {
        let stream = self.streams.get_mut(key).ok_or(Closed)?;
        let (next, ends) = match (stream.sending, kind) {
            (Sending::Head, HeadKind::Informational) => (Sending::Head, false),
            (Sending::Head, HeadKind::Final) => (if ends { Sending::Ended } else { Sending::Body }, ends),
            (Sending::Body, HeadKind::Trailers) => (Sending::Ended, true),
            _ => return Err(Closed),
        };
        stream.sending = next;
        self.write_block(key.id, block, ends);
        if ends {
            self.settle(key.slot);
        }
        Ok(())
    }

    fn write_block(&mut self, id: u32, block: &[u8], ends: bool) {
        let prefix = if std::mem::replace(&mut self.prefixed, true) { &[][..] } else { NO_TABLE };
        let most = self.peer.frame_bytes_max as usize;
        frame::write_block(self.output.buffer(&self.memory), prefix, block, id, ends, most);
    }

    /// Sends as much as windows and room in the output allow, and gives how much that was. If something is left, [`super::Event::Writable`]
    /// comes: in fair turns, where several streams have more to send than there is room for. `ends`: with the last of these bytes the
    /// message ends.
    ///
    /// # Errors
    /// The stream is over, or its message is, or has not begun.
    pub fn send_data(&mut self, key: StreamKey, bytes: &[u8], ends: bool) -> Result<usize, Closed> {
        let stream = self.streams.get_mut(key).filter(|stream| stream.sending == Sending::Body).ok_or(Closed)?;
        let wants = std::mem::replace(&mut stream.wants, Wants::Nothing);
        self.forget_call(wants);
        if bytes.is_empty() {
            if ends {
                self.streams.at(key.slot).sending = Sending::Ended;
                frame::write_data(self.output.buffer(&self.memory), &[], key.id, true);
                self.settle(key.slot);
            }
            return Ok(0);
        }
        if !self.waiting.is_empty() && wants != Wants::Called {
            // Streams that have waited longer come first.
            self.wait(key, wants);
            return Ok(0);
        }
        let most = if self.waiting.is_empty() { usize::MAX } else { FRAME_BYTES };
        let sent = self.write_data(key, bytes, ends, most);
        if sent < bytes.len() {
            self.wait(key, Wants::Nothing);
        } else if ends {
            self.streams.at(key.slot).sending = Sending::Ended;
            self.settle(key.slot);
        }
        Ok(sent)
    }

    fn write_data(&mut self, key: StreamKey, bytes: &[u8], ends: bool, most: usize) -> usize {
        let stream = self.streams.at(key.slot);
        let mut sent = 0;
        while sent < bytes.len().min(most) {
            let windows = stream.send_window.available().min(self.send_window.available());
            let count = (bytes.len() - sent).min(windows).min(FRAME_BYTES);
            if count == 0 || count + HEADER_BYTES > self.output.room() {
                break;
            }
            stream.send_window.take(count);
            self.send_window.take(count);
            self.floods.handle_data_sent();
            let piece = &bytes[sent..sent + count];
            sent += count;
            frame::write_data(self.output.buffer(&self.memory), piece, key.id, ends && sent == bytes.len());
        }
        sent
    }

    /// Bytes are left: the stream waits for its own window, or for its turn. `had`: how it waited before.
    fn wait(&mut self, key: StreamKey, had: Wants) {
        let stream = self.streams.at(key.slot);
        if had == Wants::Turn {
            // It keeps its place.
            stream.wants = Wants::Turn;
        } else if stream.send_window.available() == 0 {
            stream.wants = Wants::Window;
        } else {
            stream.wants = Wants::Turn;
            self.waiting.push_back(key);
        }
    }

    /// How many bytes the peer's windows would take of a stream now.
    #[must_use]
    pub fn send_capacity(&self, key: StreamKey) -> usize {
        let window = self.streams.get(key).map_or(0, |stream| stream.send_window.available());
        window.min(self.send_window.available())
    }

    /// Whether our message on a stream has gone, with its end.
    #[must_use]
    pub fn is_sent(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_some_and(|stream| stream.sending == Sending::Ended)
    }

    /// Ends a stream at once, both ways. What came on it is forgotten. It is still its user's to close.
    pub fn reset(&mut self, key: StreamKey, reason: Reason) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.news.remove(u8::MAX);
        let wants = std::mem::replace(&mut stream.wants, Wants::Nothing);
        if !stream.open {
            return;
        }
        (stream.receiving, stream.sending) = (Receiving::Cut, Sending::Cut);
        self.forget_call(wants);
        self.forget_body(key.slot);
        frame::write_reset(self.output.buffer(&self.memory), key.id, reason);
        self.streams.close(key.slot);
        self.history.set_reset(key.id, true);
        self.handle_closed();
        self.give_back_connection();
    }

    /// Its user lets go of a stream: `key` names nothing any more. If it is not over, it is reset: with NO_ERROR where the response is
    /// complete (RFC 9113, 8.1), else with CANCEL.
    pub fn close(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        if stream.open {
            let is_complete = match self.config.role {
                Role::Server => stream.sending == Sending::Ended,
                Role::Client => stream.receiving == Receiving::Ended,
            };
            self.reset(key, if is_complete { Reason::NoError } else { Reason::Cancel });
        }
        self.free(key.slot);
        self.give_back_connection();
    }

    /// What has come of a stream's body is of no use any more.
    pub(super) fn forget_body(&mut self, slot: u32) {
        let stream = self.streams.at(slot);
        self.held -= stream.body.consume(usize::MAX, &self.memory);
        self.floods.release_small(std::mem::take(&mut stream.small));
        stream.news.remove(News::DATA);
    }
}
