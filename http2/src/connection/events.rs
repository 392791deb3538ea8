//! What came, for those who wait for it.

use super::Connection;
use crate::error::Reason;
use crate::frame::{FRAME_BYTES, HEADER_BYTES};
use crate::streams::{By, News, StreamKey, Wants};
use ringway_message::ParseError;

/// Something has happened. Each is told once: what came is there until it is taken, and told again only if more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A request's head is there. With a fault it is good for nothing but to be refused: 431 if that is one of size, else 400.
    Request {
        /// The new stream: it is its user's to close.
        key: StreamKey,
        /// Why it must be refused.
        fault: Option<ParseError>,
    },
    /// Heads of a response are there: informational ones, the final one, or several.
    Response {
        /// The stream.
        key: StreamKey,
    },
    /// Data is there.
    Data {
        /// The stream.
        key: StreamKey,
    },
    /// Trailers are there. With them the message ends.
    Trailers {
        /// The stream.
        key: StreamKey,
    },
    /// The peer has ended its message, whichever frame said so.
    End {
        /// The stream.
        key: StreamKey,
    },
    /// The stream has ended before its time, and nothing can be sent on it. What came before may still be taken.
    Reset {
        /// The stream: it is still its user's to close.
        key: StreamKey,
        /// Why.
        reason: Reason,
        /// Who has ended it.
        by: By,
        /// The peer has not looked at it: it may be sent elsewhere, whatever it is.
        unprocessed: bool,
        /// What was wrong with what came on it.
        fault: Option<ParseError>,
    },
    /// A stream that could not send all that it had can go on.
    Writable {
        /// The stream.
        key: StreamKey,
    },
    /// A client may open a stream again.
    Capacity,
    /// The peer's SETTINGS have come, or have changed.
    Settings,
    /// The peer takes no streams past this one.
    GoAway {
        /// Why.
        reason: Reason,
        /// The last stream that it looks at.
        last: u32,
    },
    /// A PING of [`Connection::ping`] has been answered.
    Pong([u8; 8]),
}

/// What is to be told of the connection itself.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Whether there may be any: nearly always there is none.
    any: bool,
    settings: bool,
    capacity: bool,
    go_away: Option<(Reason, u32)>,
    pong: Option<[u8; 8]>,
}

impl Notices {
    pub(super) fn tell_settings(&mut self) {
        (self.any, self.settings) = (true, true);
    }

    pub(super) fn tell_capacity(&mut self) {
        (self.any, self.capacity) = (true, true);
    }

    pub(super) fn tell_go_away(&mut self, (reason, last): (Reason, u32)) {
        (self.any, self.go_away) = (true, Some((reason, last)));
    }

    pub(super) fn tell_pong(&mut self, payload: [u8; 8]) {
        (self.any, self.pong) = (true, Some(payload));
    }

    #[cold]
    fn pop(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.settings) {
            return Some(Event::Settings);
        }
        if std::mem::take(&mut self.capacity) {
            return Some(Event::Capacity);
        }
        if let Some((reason, last)) = self.go_away.take() {
            return Some(Event::GoAway { reason, last });
        }
        self.any = false;
        self.pong.take().map(Event::Pong)
    }
}

impl Connection {
    /// The next event. Ask until there is none, after each call that takes or sends anything.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.notices.any
            && let Some(event) = self.notices.pop()
        {
            return Some(event);
        }
        while let Some(&slot) = self.ready.front() {
            let stream = self.streams.at(slot);
            if let Some(news) = stream.news.pop().filter(|_| stream.queued) {
                stream.told = true;
                if stream.news.is_empty() {
                    // What comes from now on is news again.
                    stream.queued = false;
                    self.ready.pop_front();
                }
                return Some(self.event(slot, news));
            }
            stream.queued = false;
            self.ready.pop_front();
        }
        self.poll_writable()
    }

    fn event(&mut self, slot: u32, news: u8) -> Event {
        let key = self.key(slot);
        let stream = self.streams.at(slot);
        match news {
            News::HEAD => match &stream.inbound {
                Some(inbound) if inbound.kind == crate::pool::InboundKind::Request => {
                    Event::Request { key, fault: inbound.fault }
                }
                _ => Event::Response { key },
            },
            News::DATA => Event::Data { key },
            News::TRAILERS => Event::Trailers { key },
            News::END => Event::End { key },
            _ => match stream.cut {
                Some(cut) => {
                    let crate::streams::Cut { reason, by, unprocessed, fault } = cut;
                    Event::Reset { key, reason, by, unprocessed, fault }
                }
                None => Event::End { key },
            },
        }
    }

    /// Calls those who wait for the connection's window or for room, in the order in which they came, and no more of them than can send a
    /// frame each.
    fn poll_writable(&mut self) -> Option<Event> {
        if self.waiting.is_empty() || self.output.room() < FRAME_BYTES + HEADER_BYTES {
            return None;
        }
        while self.promised < self.send_window.available().min(self.output.room()) {
            let key = self.waiting.pop_front()?;
            let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.wants == Wants::Turn) else { continue };
            if stream.send_window.available() == 0 {
                stream.wants = Wants::Window;
                continue;
            }
            stream.wants = Wants::Called;
            self.promised += FRAME_BYTES;
            return Some(Event::Writable { key });
        }
        None
    }
}
