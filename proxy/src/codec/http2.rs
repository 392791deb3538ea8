//! HTTP/2 in the data path: connections of the codec, driven by a task each, and streams as the exchanges hold them.
//!
//! One task owns the socket of a connection ([`driver`]): it reads, passes bytes to the codec, wakes the tasks that an event concerns,
//! and writes what is due. Exchanges call the codec directly, and wake that task once a turn when they have queued something: it runs
//! after them, and writes once for all. No task is woken, and no exchange is dropped, while the codec is borrowed.

use crate::codec::source::Gone;
use crate::dispatcher::HTTP2_WINDOW_GROWTH;
use crate::net::buffers::Buffer;
use ringway_http1::Progress;
use ringway_http2::{By, Closed, Connection as Codec, Event, HeadKind, Reason, StreamKey};
use ringway_message::{Field, HeadWriter, RequestHead, ResponseHead, may_trail};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

mod downstream;
mod driver;
mod upstream;

pub(crate) use downstream::Downstream;
pub(crate) use driver::{Driver, End};
pub(crate) use upstream::{Connection, Opening, Outgoing, Shared, Upstream};

/// What begins an HTTP/2 connection.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Window that a stream begins with, in bytes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Largest window (RFC 9113, 6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// How long a connection has no stream before it frees what only a busy one needs: one request a second keeps it.
pub(crate) const REST_TIME: Duration = Duration::from_secs(5);
/// Stream slots that a connection without streams keeps room for.
const SEATS_KEPT: usize = 4;
/// Trailers, and bytes of them, that it keeps room for.
const TRAILERS_KEPT: usize = 16;
const TRAILER_BYTES_KEPT: usize = 1024;
/// Data that are moved into a buffer in one go: what is taken from a stream is granted to it again.
const MOVED_BYTES_MAX: usize = 64 * 1024;
/// Window of a connection with so many streams, each of which may fill its own, however large that has grown.
pub(crate) fn window_of_all(streams: u32) -> u32 {
    streams.saturating_mul(STREAM_WINDOW).saturating_add(HTTP2_WINDOW_GROWTH).min(WINDOW_MAX)
}

/// How a stream has ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) reason: Reason,
    pub(crate) by: By,
    /// The peer has not processed what was sent.
    pub(crate) unprocessed: bool,
}

/// A connection, as its task and its streams share it.
pub(crate) struct Link {
    pub(crate) codec: RefCell<Codec>,
    /// The tasks that wait for events of a stream, by the stream's slot.
    waiters: RefCell<Vec<Waiter>>,
    driver: RefCell<Option<Waker>>,
    /// Room for trailers that are forwarded.
    trailers: RefCell<(Vec<Field>, Vec<u8>)>,
    /// Streams that exchanges hold, ended or not.
    held: Cell<usize>,
    /// The task has been woken since it ran last.
    woken: Cell<bool>,
}

#[cfg(test)]
thread_local! {
    static LINKS: RefCell<Vec<std::rc::Weak<Link>>> = const { RefCell::new(Vec::new()) };
}

/// Memory of each connection of this thread that still lives.
#[cfg(test)]
pub(crate) fn memory_of_each() -> Vec<usize> {
    let living = LINKS.with_borrow(|links| links.iter().filter_map(std::rc::Weak::upgrade).collect::<Vec<_>>());
    living.iter().map(|link| link.ask(Codec::memory_bytes)).collect()
}

/// A task that waits for events of a stream.
#[derive(Default)]
struct Waiter {
    id: u32,
    waker: Option<Waker>,
    ended: Option<Ended>,
}

impl Link {
    pub(crate) fn new(codec: Codec) -> Rc<Self> {
        let this = Rc::new(Self {
            codec: RefCell::new(codec),
            waiters: RefCell::default(),
            driver: RefCell::default(),
            trailers: RefCell::default(),
            held: Cell::new(0),
            woken: Cell::new(false),
        });
        #[cfg(test)]
        LINKS.with_borrow_mut(|links| links.push(Rc::downgrade(&this)));
        this
    }

    /// Reads from the codec; nothing is to be written for that.
    pub(crate) fn ask<T>(&self, asking: impl FnOnce(&Codec) -> T) -> T {
        asking(&self.codec.borrow())
    }

    /// Calls the codec for something that may queue frames.
    fn tell<T>(&self, telling: impl FnOnce(&mut Codec) -> T) -> T {
        let told = telling(&mut self.codec.borrow_mut());
        self.wake_driver();
        told
    }

    /// The connection's task runs again, after those that are running now.
    fn wake_driver(&self) {
        if !self.woken.replace(true) {
            self.driver.borrow().iter().for_each(Waker::wake_by_ref);
        }
    }

    /// The connection's task runs.
    fn attend(&self, context: &Context<'_>) {
        self.woken.set(false);
        let mut driver = self.driver.borrow_mut();
        if !driver.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *driver = Some(context.waker().clone());
        }
    }

    /// A stream has begun, opened by either side.
    fn waiter(&self, key: StreamKey) {
        let mut waiters = self.waiters.borrow_mut();
        if waiters.len() <= key.slot() {
            waiters.resize_with(key.slot() + 1, Waiter::default);
        }
        waiters[key.slot()] = Waiter { id: key.id(), ..Waiter::default() };
    }

    /// No task waits for the stream any more.
    fn leave(&self, key: StreamKey) {
        let mut waiters = self.waiters.borrow_mut();
        let waker =
            waiters.get_mut(key.slot()).filter(|waiter| waiter.id == key.id()).and_then(|waiter| waiter.waker.take());
        self.held.set(self.held.get() - 1);
        if self.held.get() == 0 {
            // An idle connection keeps nothing of its busiest moment.
            waiters.clear();
            waiters.shrink_to(SEATS_KEPT);
            let (fields, arena) = &mut *self.trailers.borrow_mut();
            fields.clear();
            arena.clear();
            fields.shrink_to(TRAILERS_KEPT);
            arena.shrink_to(TRAILER_BYTES_KEPT);
        }
        drop(waiters);
        drop(waker);
    }

    /// Has the task woken at the next event of the stream.
    fn wait(&self, key: StreamKey, context: &Context<'_>) {
        let mut waiters = self.waiters.borrow_mut();
        let Some(waiter) = waiters.get_mut(key.slot()).filter(|waiter| waiter.id == key.id()) else { return };
        if !waiter.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            waiter.waker = Some(context.waker().clone());
        }
    }

    fn ended(&self, key: StreamKey) -> Option<Ended> {
        let waiters = self.waiters.borrow();
        waiters.get(key.slot()).filter(|waiter| waiter.id == key.id())?.ended
    }

    /// Wakes the task that waits for the stream.
    fn notify(&self, key: StreamKey, ended: Option<Ended>) {
        let waker = {
            let mut waiters = self.waiters.borrow_mut();
            let Some(waiter) = waiters.get_mut(key.slot()).filter(|waiter| waiter.id == key.id()) else { return };
            waiter.ended = waiter.ended.or(ended);
            waiter.waker.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes the tasks that an event concerns; returns events of the connection, or of a stream that no exchange holds yet.
    fn dispatch(&self, event: Event) -> Option<Event> {
        match event {
            Event::Response { key }
            | Event::Data { key }
            | Event::Trailers { key }
            | Event::End { key }
            | Event::Writable { key } => self.notify(key, None),
            Event::Reset { key, reason, by, unprocessed, fault: _ } => {
                self.notify(key, Some(Ended { reason, by, unprocessed }));
            }
            other @ (Event::Request { .. }
            | Event::Capacity
            | Event::Settings
            | Event::GoAway { .. }
            | Event::Pong(_)) => {
                return Some(other);
            }
        }
        None
    }

    fn next_event(&self) -> Option<Event> {
        self.codec.borrow_mut().poll_event()
    }
}

/// A stream, held by the exchange that it carries. When it is dropped, the part that is still open is reset.
pub(crate) struct Stream {
    link: Rc<Link>,
    key: StreamKey,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.link.tell(|codec| codec.close(self.key));
        self.link.leave(self.key);
    }
}

impl Stream {
    pub(crate) fn new(link: &Rc<Link>, key: StreamKey) -> Self {
        link.waiter(key);
        link.held.set(link.held.get() + 1);
        Self { link: Rc::clone(link), key }
    }

    /// How it has ended before its time, if it has.
    fn ended(&self) -> Option<Ended> {
        self.link.ended(self.key)
    }

    fn wait(&self, context: &Context<'_>) {
        self.link.wait(self.key, context);
    }

    /// Ready once it has ended before its time.
    fn poll_ended(&self, context: &Context<'_>) -> Poll<Ended> {
        if let Some(ended) = self.ended() {
            return Poll::Ready(ended);
        }
        self.wait(context);
        Poll::Pending
    }

    fn take_request(&self, head: &mut RequestHead, arena: &mut Vec<u8>) -> bool {
        self.link.codec.borrow_mut().take_request(self.key, head, arena)
    }

    fn poll_response(
        &self,
        head: &mut ResponseHead,
        arena: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Poll<Result<(), Ended>> {
        if self.link.codec.borrow_mut().take_response(self.key, head, arena) {
            return Poll::Ready(Ok(()));
        }
        self.poll_ended(context).map(Err)
    }

    /// Ready once there are data, or the end has come.
    fn poll_more(&self, context: &Context<'_>) -> Poll<Result<(), Ended>> {
        if self.link.ask(|codec| !codec.data(self.key).is_empty() || codec.is_received(self.key)) {
            return Poll::Ready(Ok(()));
        }
        self.poll_ended(context).map(Err)
    }

    /// Whether the peer has sent everything: part of it may not have been taken.
    fn is_received(&self) -> bool {
        self.link.ask(|codec| codec.is_received(self.key))
    }

    /// Whether nothing is left to be taken but trailers.
    fn is_drained(&self) -> bool {
        self.link.ask(|codec| codec.is_received(self.key) && codec.data_len(self.key) == 0)
    }

    /// Whether the data that are here are all that has come.
    fn shows_all(&self) -> bool {
        self.link.ask(|codec| codec.data(self.key).len() == codec.data_len(self.key))
    }

    fn has_trailers(&self) -> bool {
        self.link.ask(|codec| codec.has_trailers(self.key))
    }

    fn with_data<T>(&self, doing: impl FnOnce(&[u8]) -> T) -> T {
        self.link.ask(|codec| doing(codec.data(self.key)))
    }

    fn consume(&self, count: usize) {
        self.link.tell(|codec| codec.consume(self.key, count));
    }

    /// Ready once it is known whether trailers have come.
    fn poll_end(&self, context: &Context<'_>) -> Poll<Result<(), Gone>> {
        if self.is_received() {
            return Poll::Ready(Ok(()));
        }
        self.poll_ended(context).map(|_| Err(Gone))
    }

    /// Reads a trailer that has come, and leaves it there.
    fn with_trailer<T>(&self, name: &[u8], read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.link.codec.borrow().trailer(self.key, name).map(read)
    }

    fn write_trailers(&self, out: &mut HeadWriter, keep: impl Fn(&[u8]) -> bool) {
        let mut room = self.link.trailers.borrow_mut();
        let (fields, arena) = &mut *room;
        if self.link.codec.borrow_mut().take_trailers(self.key, fields, arena) {
            let may = |field: &Field| may_trail(field.name.of(arena)) && keep(field.name.of(arena));
            out.copy(arena, fields, may);
        }
    }

    fn send_head(&self, block: &[u8], kind: HeadKind, ends: bool) -> Result<(), Gone> {
        self.link.tell(|codec| codec.send_head(self.key, block, kind, ends)).map_err(|Closed| Gone)
    }

    /// Takes as much as the peer's windows and the connection's output allow. Returns how many bytes; `ends` holds once all are
    /// taken.
    fn poll_send(&self, bytes: &[u8], ends: bool, context: &Context<'_>) -> Poll<Result<usize, Gone>> {
        match self.link.tell(|codec| codec.send_data(self.key, bytes, ends)) {
            Err(Closed) => Poll::Ready(Err(Gone)),
            Ok(0) if !bytes.is_empty() => {
                if self.ended().is_some() {
                    return Poll::Ready(Err(Gone));
                }
                self.wait(context);
                Poll::Pending
            }
            Ok(count) => Poll::Ready(Ok(count)),
        }
    }

    pub(crate) fn reset(&self, reason: Reason) {
        self.link.tell(|codec| codec.reset(self.key, reason));
    }

    /// As [`crate::codec::source::Source::transfer`].
    fn transfer(&self, out: &mut Vec<u8>, encoding: ringway_http1::Encoding, keep: impl Fn(&[u8]) -> bool) -> Progress {
        let mut count = 0;
        while count < MOVED_BYTES_MAX {
            let piece = self.with_data(|data| {
                ringway_http1::write::data(data, out, encoding);
                data.len()
            });
            if piece == 0 {
                break;
            }
            self.consume(piece);
            count += piece;
        }
        let done = self.is_drained();
        if done && encoding == ringway_http1::Encoding::Chunked {
            let mut lines = HeadWriter::new(std::mem::take(out), Vec::new(), false);
            lines.text_mut().extend_from_slice(b"0\r\n");
            self.write_trailers(&mut lines, keep);
            lines.text_mut().extend_from_slice(b"\r\n");
            (*out, _) = lines.into_parts();
        }
        Progress { consumed: count, data: count, done }
    }
}

impl Stream {
    /// For a tunnel: puts bytes that have come into `buffer`. 0 is the end.
    fn poll_fill(&self, buffer: &mut Buffer, context: &Context<'_>) -> Poll<io::Result<usize>> {
        match self.poll_more(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(ended)) => Poll::Ready(Err(reset_error(ended))),
            Poll::Ready(Ok(())) => {
                let count = self.with_data(|data| buffer.put(data));
                if count > 0 {
                    self.consume(count);
                }
                Poll::Ready(Ok(count))
            }
        }
    }
}

/// A stream's end as an error of a tunnel.
fn reset_error(_: Ended) -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

fn gone_error(_: Gone) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
