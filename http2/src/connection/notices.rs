//! Events, and what of the connection itself waits to become one.

use crate::error::Reason;
use crate::streams::{By, StreamKey};
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
    /// A PING of [`super::Connection::ping`] has been answered.
    Pong([u8; 8]),
}

/// What is to be told of the connection itself.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Whether there may be any: nearly always there is none.
    pub(super) any: bool,
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
    pub(super) fn pop(&mut self) -> Option<Event> {
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
