//! What came, for the streams that wait for it.

use super::Connection;
use super::notices::Event;
use crate::frame::{FRAME_BYTES, HEADER_BYTES};
use crate::streams::{News, Wants};

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

    /// Calls the streams that wait for the connection's window or for room, in the order in which they came, and no more of them than can send a
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
