//! Bytes in: frames are found, judged and handed on.

use super::Connection;
use super::input::Stage;
use crate::error::{ConnectionError, FrameError, Reason};
use crate::frame::{self, ACK, FrameHeader, Kind};
use crate::settings;
use crate::streams::{By, Cut, Fate, Stream, StreamKey, Wants};
use crate::{PREFACE, Role};

/// A server reads no further while more than this waits for a peer that does not read.
const OUTPUT_STOP_BYTES: usize = 256 * 1024;
/// Room for the beginning of a frame that is kept for the next: most heads are shorter.
const PAYLOAD_KEPT_BYTES: usize = 512;
/// Nobody needs so many answers to PING and SETTINGS before they read one.
const ANSWERS_BYTES_MAX: usize = 1024 * 1024;

impl Connection {
    /// Takes what has come. Gives how much was taken: what is left comes again once more of [`Connection::output`] has been written; that
    /// happens only where the peer does not read.
    ///
    /// # Errors
    /// The connection is over: what waits to be written tells the peer why. What comes afterwards is taken, and means nothing.
    pub fn handle_bytes(&mut self, input: &[u8], now_millis: u64) -> Result<usize, ConnectionError> {
        if self.error.is_some() || self.ended || input.is_empty() {
            return Ok(input.len());
        }
        self.heard += 1;
        self.promised = 0;
        self.floods.handle_time(now_millis);
        let taken = self.receive(input);
        if let Err(error) = taken {
            self.fail(error);
        }
        taken
    }

    fn receive(&mut self, input: &[u8]) -> Result<usize, ConnectionError> {
        let mut at = 0;
        loop {
            match self.input.stage {
                Stage::Header => {
                    if self.output.len() > OUTPUT_STOP_BYTES && self.config.role == Role::Server {
                        return Ok(at);
                    }
                    let Some(header) = self.input.header(input, &mut at) else { return Ok(at) };
                    self.input.stage = self.begin(header)?;
                }
                Stage::Payload(header) => {
                    if !self.receive_payload(header, input, &mut at)? {
                        return Ok(at);
                    }
                }
                Stage::Data(mut frame) => {
                    let whole = self.receive_data(&mut frame, input, &mut at)?;
                    self.input.stage = if whole { Stage::Header } else { Stage::Data(frame) };
                    if !whole {
                        return Ok(at);
                    }
                }
                Stage::Skip(left) => {
                    let skipped = (left as usize).min(input.len() - at);
                    at += skipped;
                    let left = left - skipped as u32;
                    self.input.stage = if left == 0 { Stage::Header } else { Stage::Skip(left) };
                    if left > 0 {
                        return Ok(at);
                    }
                }
                Stage::Preface(came) => {
                    let more = (PREFACE.len() - came).min(input.len() - at);
                    if input[at..at + more] != PREFACE[came..came + more] {
                        return Err(ConnectionError::protocol("not the preface of HTTP/2"));
                    }
                    at += more;
                    let came = came + more;
                    self.input.stage = if came == PREFACE.len() { Stage::Header } else { Stage::Preface(came) };
                    if came < PREFACE.len() {
                        return Ok(at);
                    }
                }
            }
        }
    }

    /// Judges a frame by its header, and says what is to become of its payload.
    fn begin(&mut self, header: FrameHeader) -> Result<Stage, ConnectionError> {
        if !self.settings_came && (header.kind != Kind::Settings || header.has(ACK)) {
            return Err(ConnectionError::protocol("the first frame is not SETTINGS"));
        }
        // RFC 9113, 6.10: a block is not interrupted.
        match &self.block {
            Some(block) if header.kind != Kind::Continuation || header.stream != block.stream() => {
                return Err(ConnectionError::protocol("a frame other than CONTINUATION within a block"));
            }
            None if header.kind == Kind::Continuation && header.stream != 0 => {
                return Err(ConnectionError::protocol("CONTINUATION without a block"));
            }
            Some(_) | None => {}
        }
        match header.check() {
            Ok(()) => {}
            Err(FrameError::Connection(error)) => return Err(error),
            Err(FrameError::Stream(reason)) => {
                self.fail_stream(header.stream, reason, None)?;
                return Ok(Stage::Skip(header.length));
            }
        }
        match header.kind {
            Kind::Data => Ok(Stage::Data(self.begin_data(&header)?)),
            Kind::Unknown(_) => {
                self.floods.handle_useless("http2_other_flood")?;
                Ok(Stage::Skip(header.length))
            }
            _ => Ok(Stage::Payload(header)),
        }
    }

    /// Hands a frame on once all of it is there. Gives whether it was.
    fn receive_payload(&mut self, header: FrameHeader, input: &[u8], at: &mut usize) -> Result<bool, ConnectionError> {
        let missing = header.length as usize - self.input.payload.len();
        let rest = &input[*at..];
        if self.input.payload.is_empty()
            && let Some(payload) = rest.get(..missing)
        {
            *at += missing;
            self.input.stage = Stage::Header;
            return self.handle_frame(&header, payload).map(|()| true);
        }
        let taken = missing.min(rest.len());
        self.input.payload.extend_from_slice(&rest[..taken]);
        *at += taken;
        if taken < missing {
            return Ok(false);
        }
        self.input.stage = Stage::Header;
        let mut payload = std::mem::take(&mut self.input.payload);
        self.handle_frame(&header, &payload)?;
        if payload.capacity() <= PAYLOAD_KEPT_BYTES {
            payload.clear();
            self.input.payload = payload;
        }
        Ok(true)
    }

    fn handle_frame(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        match header.kind {
            Kind::Headers => self.handle_headers(header, payload),
            Kind::Continuation => self.handle_continuation(header, payload),
            Kind::Priority => self.handle_priority(header.stream, payload),
            Kind::Reset => self.handle_reset(header.stream, Reason::from_code(frame::number(payload))),
            Kind::Settings if header.has(ACK) => self.handle_settings_ack(),
            Kind::Settings => self.handle_settings(payload),
            Kind::Ping => self.handle_ping(header.has(ACK), payload),
            Kind::GoAway => self.handle_go_away(payload),
            Kind::WindowUpdate => self.handle_window_update(header.stream, frame::number(payload) & frame::U31_MAX),
            // None of these gets as far as this.
            Kind::Data | Kind::PushPromise | Kind::Unknown(_) => Ok(()),
        }
    }

    /// Whether a stream has never been used: only PRIORITY may name it (RFC 9113, 5.1).
    pub(super) fn is_idle(&self, id: u32) -> bool {
        id.is_multiple_of(2) || self.history.fate(id) == Fate::Idle
    }

    fn handle_priority(&mut self, id: u32, payload: &[u8]) -> Result<(), ConnectionError> {
        self.floods.handle_useless("http2_other_flood")?;
        if frame::number(payload) & frame::U31_MAX == id {
            return self.fail_stream(id, Reason::ProtocolError, None);
        }
        Ok(())
    }

    fn handle_reset(&mut self, id: u32, reason: Reason) -> Result<(), ConnectionError> {
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("RST_STREAM of an idle stream"));
        }
        let found = self.streams.find(id);
        // A backend can reset what we have opened, each once.
        match (self.config.role, found) {
            (Role::Server, _) => self.floods.handle_reset()?,
            (Role::Client, None) => self.floods.handle_useless("http2_reset_flood")?,
            (Role::Client, Some(_)) => {}
        }
        if let Some(slot) = found {
            let unprocessed = reason == Reason::RefusedStream;
            self.cut(slot, Cut { reason, by: By::Peer, unprocessed, fault: None });
        }
        Ok(())
    }

    fn handle_settings(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        self.floods.handle_settings()?;
        let before = self.peer.initial_window;
        self.peer.apply(payload, self.config.role)?;
        let delta = i64::from(self.peer.initial_window) - i64::from(before);
        if delta != 0 {
            self.change_send_windows(delta)?;
        }
        self.settings_came = true;
        self.notices.tell_settings();
        if self.wants_capacity && self.has_capacity() {
            self.wants_capacity = false;
            self.notices.tell_capacity();
        }
        self.check_answers()?;
        settings::write_ack(self.output.buffer(&self.memory));
        Ok(())
    }

    /// RFC 9113, 6.9.2: all streams' windows change with the first one.
    fn change_send_windows(&mut self, delta: i64) -> Result<(), ConnectionError> {
        let waiting = &mut self.waiting;
        for (slot, stream) in self.streams.slots().filter(|(_, stream)| stream.open) {
            if stream.send_window.change(delta).is_err() {
                let debug = "SETTINGS_INITIAL_WINDOW_SIZE makes a window too large";
                return Err(ConnectionError::new(Reason::FlowControlError, debug));
            }
            if stream.wants == Wants::Window && stream.send_window.available() > 0 {
                stream.wants = Wants::Turn;
                waiting.push_back(StreamKey { slot, id: stream.id });
            }
        }
        Ok(())
    }

    fn handle_settings_ack(&mut self) -> Result<(), ConnectionError> {
        if !std::mem::take(&mut self.own.pending) {
            return Err(ConnectionError::protocol("SETTINGS acknowledged that were not sent"));
        }
        let (from, to) = (self.own.window, self.own.window_announced);
        if from != to {
            self.own.window = to;
            self.change_receive_windows(from, to);
        }
        Ok(())
    }

    /// What has become of a window may be so little that it is to be opened at once: its stream may have nothing more to consume.
    pub(super) fn change_receive_windows(&mut self, from: u32, to: u32) {
        let open = |(slot, stream): (u32, &mut Stream)| stream.open.then_some(StreamKey { slot, id: stream.id });
        let keys: Vec<StreamKey> = self.streams.slots().filter_map(open).collect();
        for key in keys {
            self.streams.at(key.slot).receive_window.change(from, to);
            self.give_back_stream(key);
        }
    }

    fn handle_window_update(&mut self, id: u32, increment: u32) -> Result<(), ConnectionError> {
        if id == 0 {
            self.floods.handle_window_update()?;
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE of 0"));
            }
            let debug = "the connection's window is too large";
            return self.send_window.add(increment).map_err(|_| ConnectionError::new(Reason::FlowControlError, debug));
        }
        self.floods.handle_stream_window_update()?;
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("WINDOW_UPDATE of an idle stream"));
        }
        let Some(slot) = self.streams.find(id) else { return Ok(()) };
        if increment == 0 {
            return self.fail_stream(id, Reason::ProtocolError, None);
        }
        let stream = self.streams.at(slot);
        if stream.send_window.add(increment).is_err() {
            return self.fail_stream(id, Reason::FlowControlError, None);
        }
        if stream.wants == Wants::Window && stream.send_window.available() > 0 {
            stream.wants = Wants::Turn;
            let key = self.key(slot);
            self.waiting.push_back(key);
        }
        Ok(())
    }

    /// Before a response is added to those that wait to be written.
    pub(super) fn check_answers(&self) -> Result<(), ConnectionError> {
        if self.output.len() > ANSWERS_BYTES_MAX {
            return Err(ConnectionError::flood("http2_other_flood"));
        }
        Ok(())
    }

    /// What the peer has sent on a stream ends that stream.
    pub(super) fn fail_stream(
        &mut self,
        id: u32,
        reason: Reason,
        fault: Option<ringway_message::ParseError>,
    ) -> Result<(), ConnectionError> {
        if self.is_idle(id) {
            // RFC 9113, 6.4: what was not opened is not reset. And 5.4.2: so the connection has the error.
            return Err(ConnectionError::new(reason, "a wrong frame of an idle stream"));
        }
        frame::write_reset(self.output.buffer(&self.memory), id, reason);
        match self.streams.find(id) {
            Some(slot) => self.cut(slot, Cut { reason, by: By::Local, unprocessed: false, fault }),
            None => self.history.set_reset(id, true),
        }
        match self.config.role {
            Role::Server => self.floods.handle_malformed(),
            // Each of these is a stream that we have asked for, or else of no use.
            Role::Client => self.floods.handle_useless("http2_malformed_flood"),
        }
    }
}
