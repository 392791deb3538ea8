//! DATA in, and windows back.

use super::Connection;
use super::input::DataFrame;
use crate::error::{ConnectionError, Reason};
use crate::frame::{self, END_STREAM, FrameHeader, PADDED};
use crate::settings;
use crate::streams::{Fate, News, Receiving, StreamKey};

/// The window that new streams get while too much waits to be taken: a part of what they begin with otherwise.
const CROWDED: u32 = 4;
/// What streams that are not read may hold together.
const STALLED_BYTES: u32 = 32 * 1024;

impl Connection {
    pub(super) fn begin_data(&mut self, header: &FrameHeader) -> Result<DataFrame, ConnectionError> {
        let FrameHeader { length, stream: id, .. } = *header;
        let ends = header.has(END_STREAM);
        self.messages += 1;
        if length == 0 && !ends {
            self.floods.handle_empty_data()?;
        }
        if !self.receive_window.allows(length) {
            let debug = "more data than the connection's window allows";
            return Err(ConnectionError::new(Reason::FlowControlError, debug));
        }
        let key = match self.streams.find(id) {
            Some(slot) => self.judge_data(slot, length)?,
            None => {
                self.judge_data_elsewhere(id, length)?;
                None
            }
        };
        Ok(DataFrame { key, left: length, padding: 0, is_padded: header.has(PADDED), ends, length })
    }

    /// Whether a stream takes data now.
    fn judge_data(&mut self, slot: u32, length: u32) -> Result<Option<StreamKey>, ConnectionError> {
        let stream = self.streams.at(slot);
        let (id, allows) = (stream.id, stream.receive_window.allows(length));
        let reason = match stream.receiving {
            Receiving::Body if allows => return Ok(Some(StreamKey { slot, id })),
            Receiving::Body => Reason::FlowControlError,
            // Data before the final head (RFC 9113, 8.1).
            Receiving::Head => Reason::ProtocolError,
            Receiving::Ended | Receiving::Cut => Reason::StreamClosed,
        };
        self.fail_stream(id, reason, None)?;
        Ok(None)
    }

    fn judge_data_elsewhere(&mut self, id: u32, length: u32) -> Result<(), ConnectionError> {
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("DATA on an idle stream"));
        }
        match self.history.fate(id) {
            Fate::Idle | Fate::Unused | Fate::Ended => {
                Err(ConnectionError::new(Reason::StreamClosed, "DATA on a closed stream"))
            }
            Fate::ResetByPeer => self.fail_stream(id, Reason::StreamClosed, None),
            // It may have been under way: as much as windows had let in, of every stream that was reset at once.
            Fate::ResetByUs | Fate::Forgotten => self.floods.handle_late_data(length),
        }
    }

    /// Takes what there is of the frame. Gives whether that was all of it.
    pub(super) fn receive_data(
        &mut self,
        frame: &mut DataFrame,
        input: &[u8],
        at: &mut usize,
    ) -> Result<bool, ConnectionError> {
        if frame.is_padded {
            let Some(&padding) = input.get(*at) else { return Ok(false) };
            *at += 1;
            let padding = u32::from(padding);
            // RFC 9113, 6.1.
            if padding >= frame.left {
                return Err(ConnectionError::protocol("padding longer than the frame"));
            }
            self.take_padding(frame.key, 1);
            (frame.is_padded, frame.padding) = (false, padding);
            frame.left -= 1 + padding;
            frame.length = frame.left;
            if frame.length == 0 && !frame.ends {
                // However long its padding is, it is empty.
                self.floods.handle_empty_data()?;
            }
        }
        if frame.left > 0 {
            let piece = &input[*at..(*at + frame.left as usize).min(input.len())];
            if piece.is_empty() {
                return Ok(false);
            }
            *at += piece.len();
            frame.left -= piece.len() as u32;
            self.take_data(frame, piece)?;
        }
        let padding = (frame.padding as usize).min(input.len() - *at);
        if frame.left == 0 && padding > 0 {
            *at += padding;
            frame.padding -= padding as u32;
            self.take_padding(frame.key, padding as u32);
        }
        if frame.left > 0 || frame.padding > 0 {
            return Ok(false);
        }
        self.end_data(frame)?;
        Ok(true)
    }

    fn take_data(&mut self, frame: &mut DataFrame, piece: &[u8]) -> Result<(), ConnectionError> {
        let length = piece.len() as u32;
        self.receive_window.take(length);
        let Some(key) = frame.key else { return Ok(()) };
        // Its user may have let go of it since the frame began.
        let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.receiving == Receiving::Body) else {
            frame.key = None;
            return Ok(());
        };
        stream.receive_window.take(length);
        if let Some(left) = &mut stream.length_left {
            match left.checked_sub(u64::from(length)) {
                Some(less) => *left = less,
                // RFC 9113, 8.1.1.
                None => {
                    frame.key = None;
                    return self.fail_stream(key.id, Reason::ProtocolError, None);
                }
            }
        }
        stream.body.push(piece, &self.memory);
        self.held += length;
        self.tell(key.slot, News::DATA);
        Ok(())
    }

    /// Padding counts against the windows, and is not handed over.
    fn take_padding(&mut self, key: Option<StreamKey>, length: u32) {
        self.receive_window.take(length);
        if let Some(stream) = key.and_then(|key| self.streams.get_mut(key)) {
            stream.receive_window.take(length);
        }
        if let Some(key) = key {
            self.give_back_stream(key);
        }
    }

    fn end_data(&mut self, frame: &DataFrame) -> Result<(), ConnectionError> {
        if let Some(key) = frame.key
            && let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.receiving == Receiving::Body)
        {
            if frame.ends {
                if stream.length_left.is_some_and(|left| left > 0) {
                    self.fail_stream(key.id, Reason::ProtocolError, None)?;
                } else {
                    stream.receiving = Receiving::Ended;
                    self.tell(key.slot, News::END);
                    self.settle(key.slot);
                }
            } else if frame.length > 0 {
                stream.small += self.floods.handle_data(frame.length)?;
            }
        }
        self.give_back_connection();
        Ok(())
    }

    /// So much of [`Connection::data`] has been taken: only now the peer may send more.
    pub fn consume(&mut self, key: StreamKey, bytes: usize) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let before = stream.body.len();
        let consumed = stream.body.consume(bytes, &self.memory);
        if consumed == 0 {
            return;
        }
        if stream.small > 0 {
            let taken = (u64::from(stream.small) * u64::from(consumed)).div_ceil(u64::from(before)) as u32;
            stream.small -= taken;
            self.floods.release_small(taken);
        }
        self.held -= consumed;
        self.give_back_stream(key);
        self.give_back_connection();
    }

    /// Opens a stream's window again, once half of it has been consumed.
    pub(super) fn give_back_stream(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.receiving != Receiving::Body || !stream.open {
            return;
        }
        let (window, held) = (&mut stream.receive_window, stream.body.len());
        if !window.is_due(held) {
            return;
        }
        let target = window.target();
        if held == 0 && target < self.config.stream_window_max {
            // Taken as fast as it comes: more may be under way at a time.
            let more = target.min(self.config.stream_window_max - target);
            if self.memory.reserve_growth(more as usize) {
                stream.grown += more;
                window.set_target(target + more);
            }
        } else if held > target / 2 && stream.grown > 0 {
            // Not taken as fast as it comes.
            let less = stream.grown.min(target / 2);
            stream.grown -= less;
            self.memory.release_growth(less as usize);
            window.set_target(target - less);
        }
        if let Some(increment) = window.due(held) {
            frame::write_window_update(self.output.buffer(&self.memory), key.id, increment);
        }
    }

    /// The same for the connection's window.
    #[inline]
    pub(super) fn give_back_connection(&mut self) {
        // If neither, there is nothing to give, nor is it to grow.
        let window = &self.receive_window;
        if window.is_due_of_rest(self.held) || window.is_low() {
            self.open_connection_window();
        }
        self.adapt_first_window();
    }

    /// It grows as well if what is stalled leaves too little for the others.
    fn open_connection_window(&mut self) {
        let (window, is_busy) = (&mut self.receive_window, self.streams.open() > 0);
        let (target, most) = (window.target(), self.config.connection_window_max);
        let is_drained = self.held < target / 4 && window.is_due(self.held);
        let mut grows = false;
        if is_busy && target < most && (is_drained || window.is_low() && self.held >= target / 4) {
            let more = target.min(most - target);
            grows = self.memory.reserve_growth(more as usize);
            if grows {
                self.grown += more;
                window.set_target(target + more);
            }
        }
        let opens = grows || window.is_due_of_rest(self.held);
        let increment = if opens { window.open(self.held) } else { None };
        if let Some(increment) = increment {
            frame::write_window_update(self.output.buffer(&self.memory), 0, increment);
        }
    }

    /// Where much waits to be taken, further streams begin with less.
    fn adapt_first_window(&mut self) {
        // By how many there may be, not by the connection's window: that may have room for those as well that have grown.
        let (most, own) = (self.config.streams_max.saturating_mul(STALLED_BYTES), &mut self.own);
        let wanted = match self.held {
            held if held > most / 2 => self.config.stream_window / CROWDED,
            held if held < most / 8 => self.config.stream_window,
            _ => own.window_announced,
        };
        if wanted != own.window_announced && !own.pending && self.error.is_none() {
            (own.window_announced, own.pending) = (wanted, true);
            let from = own.window;
            settings::write(self.output.buffer(&self.memory), &[(settings::INITIAL_WINDOW_SIZE, wanted)]);
            if wanted > from {
                self.own.window = wanted;
                self.change_receive_windows(from, wanted);
            }
        }
    }
}
