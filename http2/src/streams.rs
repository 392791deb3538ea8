//! Streams by slot and by identifier, and what is remembered of those that are over.

mod history;
mod ids;

pub(crate) use history::{Fate, History};

use crate::body::Body;
use crate::error::Reason;
use crate::flow::{ReceiveWindow, SendWindow};
use crate::pool::{Inbound, Memory};
use ids::Ids;
use ringway_message::Method;

/// Names a stream for as long as its user has not closed it. Afterwards it names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamKey {
    pub(crate) slot: u32,
    pub(crate) id: u32,
}

impl StreamKey {
    /// The identifier on the wire, for logs.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }

    /// A small number that no other stream of the connection has as long as this one is open: for tables of a user's.
    #[must_use]
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// How far the peer's message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiving {
    /// Its head, or the final one, is still to come.
    Head,
    Body,
    /// END_STREAM has come.
    Ended,
    /// Nothing more comes: the stream was reset.
    Cut,
}

/// How far our message has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    Head,
    Body,
    Ended,
    Cut,
}

/// Who has ended a stream before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The peer has reset it, or has said that it will not look at it.
    Peer,
    /// We have, because of what came on it.
    Local,
    /// The connection has ended.
    Connection,
}

/// How a stream has ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) reason: Reason,
    pub(crate) by: By,
    pub(crate) unprocessed: bool,
    pub(crate) fault: Option<ringway_message::ParseError>,
}

/// What its user is still to be told of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct News(u8);

impl News {
    pub(crate) const HEAD: u8 = 1;
    pub(crate) const DATA: u8 = 2;
    pub(crate) const TRAILERS: u8 = 4;
    pub(crate) const END: u8 = 8;
    pub(crate) const CUT: u8 = 16;

    pub(crate) fn add(&mut self, which: u8) {
        self.0 |= which;
    }

    pub(crate) fn remove(&mut self, which: u8) {
        self.0 &= !which;
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first, in the order in which things came.
    pub(crate) fn pop(&mut self) -> Option<u8> {
        let first = self.0 & self.0.wrapping_neg();
        self.0 &= !first;
        (first != 0).then_some(first)
    }
}

/// Whether a stream has bytes to send that it could not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    Nothing,
    /// Its own window is empty.
    Window,
    /// It stands in the queue for the connection's window and room in the output.
    Turn,
    /// Its turn has come.
    Called,
}

/// One stream. A slot keeps its buffers from stream to stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// 0: the slot is free.
    pub(crate) id: u32,
    /// Frames of it still mean something: it counts against limits, and is found by its identifier.
    pub(crate) open: bool,
    /// Its user knows of it.
    pub(crate) told: bool,
    /// It stands among those of which there is news.
    pub(crate) queued: bool,
    pub(crate) news: News,
    pub(crate) receiving: Receiving,
    pub(crate) sending: Sending,
    pub(crate) wants: Wants,
    pub(crate) method: Method,
    pub(crate) send_window: SendWindow,
    pub(crate) receive_window: ReceiveWindow,
    /// By how much its window has grown out of the budget.
    pub(crate) grown: u32,
    /// Small frames of data that wait to be taken.
    pub(crate) small: u32,
    /// Informational responses so far.
    pub(crate) informational: u32,
    pub(crate) informational_bytes: usize,
    /// What is to come by Content-Length.
    pub(crate) length_left: Option<u64>,
    pub(crate) body: Body,
    pub(crate) inbound: Option<Box<Inbound>>,
    pub(crate) cut: Option<Cut>,
}

impl Stream {
    fn new() -> Self {
        Self {
            id: 0,
            open: false,
            told: false,
            queued: false,
            news: News::default(),
            receiving: Receiving::Head,
            sending: Sending::Head,
            wants: Wants::Nothing,
            method: Method::Other,
            send_window: SendWindow::new(0),
            receive_window: ReceiveWindow::new(0),
            grown: 0,
            small: 0,
            informational: 0,
            informational_bytes: 0,
            length_left: None,
            body: Body::default(),
            inbound: None,
            cut: None,
        }
    }

    /// Both halves have come to their end.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.receiving, Receiving::Ended | Receiving::Cut)
            && matches!(self.sending, Sending::Ended | Sending::Cut)
    }

    pub(crate) fn push_inbound(&mut self, inbound: Box<Inbound>) {
        let mut last = &mut self.inbound;
        while let Some(next) = last {
            last = &mut next.next;
        }
        *last = Some(inbound);
    }

    /// What it held goes back to where it came from.
    pub(crate) fn give_back(&mut self, memory: &Memory) {
        self.body.consume(usize::MAX, memory);
        memory.release_growth(std::mem::take(&mut self.grown) as usize);
        let mut next = self.inbound.take();
        while let Some(mut inbound) = next {
            next = inbound.next.take();
            memory.give_inbound(inbound);
        }
    }
}

/// All streams of a connection.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    ids: Ids,
    open: usize,
}

impl Streams {
    /// Those of which frames still mean something.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Those that their users have not closed.
    pub(crate) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn find(&self, id: u32) -> Option<u32> {
        self.ids.get(id)
    }

    pub(crate) fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.slots.get(key.slot as usize).filter(|stream| stream.id == key.id)
    }

    pub(crate) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slots.get_mut(key.slot as usize).filter(|stream| stream.id == key.id)
    }

    pub(crate) fn at(&mut self, slot: u32) -> &mut Stream {
        &mut self.slots[slot as usize]
    }

    pub(crate) fn slots(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        self.slots
            .iter_mut()
            .enumerate()
            .filter(|(_, stream)| stream.id != 0)
            .map(|(slot, stream)| (slot as u32, stream))
    }

    /// A new stream, with windows of these sizes.
    pub(crate) fn open_slot(&mut self, id: u32, send_window: u32, receive_window: u32) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Stream::new());
            (self.slots.len() - 1) as u32
        });
        let stream = &mut self.slots[slot as usize];
        (stream.id, stream.open) = (id, true);
        (stream.receiving, stream.sending) = (Receiving::Head, Sending::Head);
        stream.send_window = SendWindow::new(send_window);
        stream.receive_window = ReceiveWindow::new(receive_window);
        self.ids.insert(id, slot);
        self.open += 1;
        slot
    }

    /// Frames of it mean nothing any more. Gives whether they did.
    pub(crate) fn close(&mut self, slot: u32) -> bool {
        let stream = &mut self.slots[slot as usize];
        let was_open = std::mem::replace(&mut stream.open, false);
        if was_open {
            self.ids.remove(stream.id);
            self.open -= 1;
        }
        was_open
    }

    /// Nobody needs it any more: it has been closed, and what it held given back.
    pub(crate) fn free(&mut self, slot: u32) {
        let stream = &mut self.slots[slot as usize];
        (stream.id, stream.told, stream.queued) = (0, false, false);
        (stream.news, stream.wants, stream.cut) = (News::default(), Wants::Nothing, None);
        (stream.grown, stream.small) = (0, 0);
        (stream.informational, stream.informational_bytes) = (0, 0);
        (stream.length_left, stream.method) = (None, Method::Other);
        self.free.push(slot);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Stream>() + self.free.capacity() * size_of::<u32>() + self.ids.memory_bytes()
    }

    /// Gives back the room of streams that were, if there are none.
    pub(crate) fn shrink(&mut self) {
        if self.used() == 0 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::MemoryLimits;

    #[test]
    fn news_come_in_the_order_of_what_they_are_and_each_once() {
        let mut news = News::default();
        assert!(news.is_empty() && news.pop().is_none());
        for which in [News::CUT, News::DATA, News::HEAD, News::DATA, News::END, News::TRAILERS] {
            news.add(which);
        }
        news.remove(News::TRAILERS);
        assert!(!news.is_empty());
        let came: Vec<u8> = std::iter::from_fn(|| news.pop()).collect();
        assert_eq!(came, [News::HEAD, News::DATA, News::END, News::CUT]);
        assert!(news.is_empty());
    }

    #[test]
    fn a_key_names_its_stream_and_no_later_one_in_its_place() {
        let mut streams = Streams::default();
        let slots = [1, 3, 5].map(|id| streams.open_slot(id, 10, 20));
        assert_eq!((slots, streams.open(), streams.used()), ([0, 1, 2], 3, 3));
        let key = StreamKey { slot: 1, id: 3 };
        assert_eq!((key.id(), key.slot(), streams.find(3), streams.find(4)), (3, 1, Some(1), None));
        assert!(streams.get(key).is_some() && streams.get_mut(key).is_some());
        // Closed: its frames mean nothing any more, once, and it is its user's still.
        assert!(streams.close(1) && !streams.close(1));
        assert_eq!((streams.find(3), streams.open(), streams.used()), (None, 2, 3));
        assert!(streams.get(key).is_some());
        streams.free(1);
        assert_eq!((streams.used(), streams.slots().map(|(slot, _)| slot).collect::<Vec<_>>()), (2, vec![0, 2]));
        assert!(streams.get(key).is_none() && streams.get_mut(key).is_none());
        assert_eq!(streams.open_slot(7, 10, 20), 1, "its slot is used again");
        assert!(streams.get(key).is_none() && streams.get(StreamKey { slot: 1, id: 7 }).is_some());
    }

    #[test]
    fn what_a_slot_was_is_forgotten_with_its_stream() {
        let mut streams = Streams::default();
        streams.open_slot(1, 10, 20);
        let stream = streams.at(0);
        (stream.told, stream.queued, stream.wants, stream.method) = (true, true, Wants::Turn, Method::Get);
        (stream.grown, stream.small, stream.informational, stream.informational_bytes) = (1, 2, 3, 4);
        (stream.length_left, stream.cut) =
            (Some(1), Some(Cut { reason: Reason::Cancel, by: By::Peer, unprocessed: false, fault: None }));
        stream.news.add(News::END);
        (stream.receiving, stream.sending) = (Receiving::Cut, Sending::Cut);
        streams.close(0);
        streams.free(0);
        streams.open_slot(3, 10, 20);
        let (stream, fresh) = (streams.at(0), Stream::new());
        assert_eq!(
            (stream.told, stream.queued, stream.wants, stream.method),
            (false, false, Wants::Nothing, Method::Other)
        );
        assert_eq!((stream.grown, stream.small, stream.informational, stream.informational_bytes), (0, 0, 0, 0));
        assert!(stream.length_left.is_none() && stream.cut.is_none() && stream.news.is_empty());
        assert_eq!((stream.receiving, stream.sending), (fresh.receiving, fresh.sending));
    }

    #[test]
    fn a_stream_is_done_when_both_halves_are_however_they_came_to_their_end() {
        let mut stream = Stream::new();
        for (receiving, ended) in
            [(Receiving::Head, false), (Receiving::Body, false), (Receiving::Ended, true), (Receiving::Cut, true)]
        {
            for (sending, sent) in
                [(Sending::Head, false), (Sending::Body, false), (Sending::Ended, true), (Sending::Cut, true)]
            {
                (stream.receiving, stream.sending) = (receiving, sending);
                assert_eq!(stream.is_done(), ended && sent, "{receiving:?} {sending:?}");
            }
        }
    }

    #[test]
    fn room_is_given_back_only_where_nobody_is_left() {
        let mut streams = Streams::default();
        for id in 0..40 {
            streams.open_slot(id * 2 + 1, 0, 0);
        }
        let busy = streams.memory_bytes();
        assert!(busy >= 40 * size_of::<Stream>());
        streams.shrink();
        assert_eq!((streams.memory_bytes(), streams.used()), (busy, 40));
        for slot in 0..40 {
            streams.close(slot);
            streams.free(slot);
        }
        let slots = streams.slots.capacity() * size_of::<Stream>();
        assert_eq!(streams.memory_bytes(), slots + streams.free.capacity() * 4 + streams.ids.memory_bytes());
        assert!(streams.memory_bytes() > busy, "the list of those that are free");
        streams.shrink();
        assert_eq!((streams.memory_bytes(), streams.open(), streams.used()), (Streams::default().memory_bytes(), 0, 0));
    }

    #[test]
    fn what_a_stream_held_goes_back() {
        let memory = Memory::new(MemoryLimits { window_growth_bytes: 100, buffers_kept: 8 });
        let mut stream = Stream::new();
        assert!(memory.reserve_growth(60));
        stream.grown = 60;
        stream.body.push(&[1; 40_000], &memory);
        (0..3).for_each(|_| stream.push_inbound(memory.take_inbound(crate::pool::InboundKind::Response)));
        assert_eq!((memory.grown_bytes(), memory.heads_waiting()), (60, 3));
        stream.give_back(&memory);
        assert_eq!((memory.grown_bytes(), memory.heads_waiting(), memory.used_bytes(), stream.grown), (0, 0, 0, 0));
    }
}
