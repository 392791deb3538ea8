//! How streams and connections end: GOAWAY both ways, PING, errors, the end of the transport.

use super::Connection;
use super::input::{Input, Leaving};
use crate::Role;
use crate::error::{ConnectionError, Reason};
use crate::frame::{self, FRAME_BYTES, U31_MAX};
use crate::streams::{By, Cut, News, Receiving, Sending, Wants};

/// Goes with the PING behind a first GOAWAY: its response says that the peer has read that.
const FAREWELL: [u8; 8] = *b"farewell";

impl Connection {
    /// Says goodbye: streams that are open come to their end, and [`Connection::is_over`] tells when.
    ///
    /// `graceful`: a server first tells that it will take no more, and takes what was under way until the peer has heard that; where the
    /// peer does not answer, a second call without `graceful` ends it. Otherwise no stream is looked at that has not come yet; with a
    /// reason other than NO_ERROR, the connection has failed, and all its streams with it.
    pub fn go_away(&mut self, graceful: bool, reason: Reason) {
        if self.error.is_some() || self.ended {
            return;
        }
        if !graceful && reason != Reason::NoError {
            return self.fail(ConnectionError::new(reason, ""));
        }
        match (self.leaving, graceful) {
            (Leaving::Final(_), _) | (Leaving::Announced, true) => {}
            (Leaving::No, true) if self.config.role == Role::Server => {
                self.leaving = Leaving::Announced;
                let out = self.output.buffer(&self.memory);
                frame::write_go_away(out, U31_MAX, reason, "");
                frame::write_ping(out, false, FAREWELL);
            }
            (Leaving::No | Leaving::Announced, _) => self.write_last_go_away(reason, ""),
        }
    }

    fn write_last_go_away(&mut self, reason: Reason, debug: &str) {
        let last = match (self.leaving, self.config.role) {
            // RFC 9113, 6.8: it never rises. Those that came since were not looked at.
            (Leaving::Final(last), _) => last,
            (Leaving::No | Leaving::Announced, Role::Server) => self.history.last(),
            // A client has looked at no stream of a server's: none of these has any.
            (Leaving::No | Leaving::Announced, Role::Client) => 0,
        };
        self.leaving = Leaving::Final(last);
        frame::write_go_away(self.output.buffer(&self.memory), last, reason, debug);
    }

    pub(super) fn is_final(&self) -> bool {
        matches!(self.leaving, Leaving::Final(_))
    }

    /// Whether no stream will be opened here any more.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving != Leaving::No || self.peer_last.is_some() || self.error.is_some() || self.ended
    }

    /// Whether nothing more will come of it: once [`Connection::output`] has been written, it is to be closed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let needs_close_notify = self.is_final() || self.config.role == Role::Client && self.peer_last.is_some();
        self.error.is_some() || self.ended || needs_close_notify && self.streams.open() == 0
    }

    /// Asks the peer for a sign of life: [`super::Event::Pong`] comes with the same bytes. One that was not answered yet is forgotten.
    pub fn ping(&mut self, payload: [u8; 8]) {
        if self.error.is_some() || self.ended {
            return;
        }
        self.ping = Some(payload);
        frame::write_ping(self.output.buffer(&self.memory), false, payload);
    }

    /// The peer has closed its side, or the transport has failed: nothing more comes, and nothing can be sent.
    pub fn handle_end(&mut self) {
        if self.error.is_some() || std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.end_streams(Reason::NoError);
    }

    /// The connection is over, and the peer is told why.
    pub(super) fn fail(&mut self, error: ConnectionError) {
        self.write_last_go_away(error.reason, error.debug);
        self.error = Some(error);
        self.block = None;
        self.input = Input::new(false);
        self.end_streams(error.reason);
    }

    fn end_streams(&mut self, reason: Reason) {
        let open: Vec<u32> = self.streams.slots().filter(|(_, stream)| stream.open).map(|(slot, _)| slot).collect();
        for slot in open {
            self.cut(slot, Cut { reason, by: By::Connection, unprocessed: false, fault: None });
        }
    }

    /// A stream that was called will not come: the next may.
    pub(super) fn forget_call(&mut self, wants: Wants) {
        if wants == Wants::Called {
            self.promised = self.promised.saturating_sub(FRAME_BYTES);
        }
    }

    /// A stream has ended before its time. What came of it stays, unless that was what ended it.
    pub(super) fn cut(&mut self, slot: u32, cut: Cut) {
        let stream = self.streams.at(slot);
        let (id, told) = (stream.id, stream.told);
        if stream.receiving != Receiving::Ended {
            stream.receiving = Receiving::Cut;
        }
        if stream.sending != Sending::Ended {
            stream.sending = Sending::Cut;
        }
        let wants = std::mem::replace(&mut stream.wants, Wants::Nothing);
        stream.cut = Some(cut);
        self.forget_call(wants);
        self.history.set_reset(id, cut.by != By::Peer);
        self.streams.close(slot);
        if told {
            if cut.by == By::Local {
                self.streams.at(slot).news.remove(u8::MAX);
                self.forget_body(slot);
            }
            self.tell(slot, News::CUT);
        } else {
            // The peer has not heard of it, and will not.
            self.free(slot);
        }
        self.handle_closed();
        if self.error.is_none() {
            self.give_back_connection();
        }
    }

    pub(super) fn handle_ping(&mut self, ack: bool, payload: &[u8]) -> Result<(), ConnectionError> {
        let payload = payload.first_chunk().copied().unwrap_or_default();
        if !ack {
            self.floods.handle_ping()?;
            self.check_answers()?;
            frame::write_ping(self.output.buffer(&self.memory), true, payload);
        } else if self.ping == Some(payload) {
            self.ping = None;
            self.notices.tell_pong(payload);
        } else if payload == FAREWELL && self.leaving == Leaving::Announced {
            self.write_last_go_away(Reason::NoError, "");
        } else {
            self.floods.handle_useless("http2_ping_flood")?;
        }
        Ok(())
    }

    pub(super) fn handle_go_away(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        self.floods.handle_useless("http2_other_flood")?;
        let last = frame::number(payload) & U31_MAX;
        let reason = Reason::from_code(frame::number(&payload[4..]));
        // RFC 9113, 6.8: it never takes back what it has given up.
        if self.peer_last.is_some_and(|before| last > before) {
            return Err(ConnectionError::protocol("GOAWAY with a higher stream than before"));
        }
        self.peer_last = Some(last);
        self.notices.tell_go_away((reason, last));
        if self.config.role == Role::Client {
            let cut = Cut { reason, by: By::Peer, unprocessed: true, fault: None };
            let refused: Vec<u32> = self
                .streams
                .slots()
                .filter(|(_, stream)| stream.open && stream.id > last)
                .map(|(slot, _)| slot)
                .collect();
            refused.into_iter().for_each(|slot| self.cut(slot, cut));
        }
        Ok(())
    }
}
