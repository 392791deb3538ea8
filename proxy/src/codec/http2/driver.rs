//! The driver of a connection: its socket, and the codec between that and the streams.

use super::Link;
use crate::dispatcher::{Dispatcher, wake_after_sockets};
use crate::net::buffers::Buffer;
use crate::net::stream::Stream;
use ringway_http2::{ConnectionError, Event};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncWrite, ReadBuf};

/// Reads of one turn, after which other tasks have theirs.
const READS_MAX: u32 = 16;
/// Bytes that wait to be written, beyond which nothing more is read: a peer that does not read its responses gets no more of them.
pub(super) const UNWRITTEN_MAX: usize = 256 * 1024;

/// Bytes that are discarded once the connection is over: no less than all windows together, since so much may be under way to it.
const READ_AWAY_MAX: usize = 64 * 1024 * 1024;
/// The same for a connection that has flooded.
const READ_AWAY_OF_FLOODS_MAX: usize = 1024 * 1024;

/// How a connection has ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The peer has closed, or the connection has failed.
    Closed,
    /// The peer has broken a rule: GOAWAY has been sent, as far as the peer reads it.
    Broken(ConnectionError),
}

/// A connection's socket, and what has been read from it.
pub(crate) struct Driver {
    pub(crate) link: Rc<Link>,
    stream: Stream,
    input: Buffer,
    dispatcher: Rc<Dispatcher>,
    /// How often bytes have come.
    pub(super) heard: u64,
    /// A client is not read from while it does not take its responses; a backend is always read from: two sides that wait for each
    /// other would wait for ever.
    serves: bool,
    /// Nothing more is read until something has been written.
    stopped: bool,
    /// Bytes that have been discarded since GOAWAY, once that has been sent.
    read_away: Option<usize>,
}

impl Driver {
    /// `input`: what has been read already.
    pub(crate) fn new(
        link: Rc<Link>,
        stream: Stream,
        input: Buffer,
        dispatcher: &Rc<Dispatcher>,
        serves: bool,
    ) -> Self {
        Self {
            link,
            stream,
            input,
            dispatcher: Rc::clone(dispatcher),
            heard: 0,
            serves,
            stopped: false,
            read_away: None,
        }
    }

    /// Handles what has been read: `handle` gets the events of the connection itself, and of streams that no exchange holds yet.
    /// Ready once the connection has ended; its streams have been notified.
    pub(crate) fn poll_read(&mut self, context: &mut Context<'_>, mut handle: impl FnMut(Event)) -> Poll<End> {
        self.link.attend(context);
        let mut reads = 0;
        loop {
            let end = self.take_in(&mut handle);
            if let Some(end) = end {
                return Poll::Ready(end);
            }
            let unwritten = self.link.ask(|codec| codec.output().len());
            self.stopped = self.serves && unwritten > UNWRITTEN_MAX || !self.input.is_empty();
            if self.stopped {
                return Poll::Pending;
            }
            reads += 1;
            if reads > READS_MAX {
                wake_after_sockets(context);
                return Poll::Pending;
            }
            let count = ready!(self.poll_fill(context));
            if count == 0 {
                return Poll::Ready(End::Closed);
            }
            self.heard += 1;
        }
    }

    /// Reads once. 0: the end, or a failure.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        if !self.input.is_allocated() {
            // A silent connection holds no buffer.
            match ready!(self.stream.poll_read_ready(context)) {
                Ok(()) => self.input = self.dispatcher.buffers.take(),
                Err(_) => return Poll::Ready(0),
            }
        }
        let bytes_max = self.input.capacity();
        match self.input.poll_read(&mut self.stream, bytes_max, context) {
            Poll::Ready(Ok(count)) => {
                if self.serves {
                    self.dispatcher.counters.received_bytes.add(count as u64);
                }
                Poll::Ready(count)
            }
            Poll::Ready(Err(_)) => Poll::Ready(0),
            Poll::Pending => {
                if self.input.is_empty() {
                    self.dispatcher.buffers.give(std::mem::take(&mut self.input));
                }
                Poll::Pending
            }
        }
    }

    /// Passes what has been read to the codec.
    fn take_in(&mut self, handle: &mut impl FnMut(Event)) -> Option<End> {
        if !self.input.is_empty() {
            let now_millis = self.dispatcher.timers.millis();
            let taken = self.link.codec.borrow_mut().handle_bytes(self.input.bytes(), now_millis);
            match taken {
                Ok(count) => self.input.consume(count),
                Err(error) => {
                    self.hand_on(handle);
                    return Some(End::Broken(error));
                }
            }
        }
        self.hand_on(handle);
        None
    }

    fn hand_on(&self, handle: &mut impl FnMut(Event)) {
        while let Some(event) = self.link.next_event() {
            if let Some(event) = self.link.dispatch(event) {
                handle(event);
            }
        }
    }

    /// Writes what is due. `Err`: the connection has failed; `Ok(true)`: all has been written.
    pub(crate) fn poll_write(&mut self, context: &mut Context<'_>) -> Result<bool, ()> {
        loop {
            let written = {
                let codec = self.link.codec.borrow();
                let output = codec.output();
                if output.is_empty() {
                    break;
                }
                Pin::new(&mut self.stream).poll_write(context, output)
            };
            match written {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.link.codec.borrow_mut().advance_output(count);
                    if std::mem::take(&mut self.stopped) {
                        // Frames that it has sent meanwhile are looked at again.
                        context.waker().wake_by_ref();
                    }
                    // There may be room again for a stream that waits for it; nothing has come that would concern
                    // others.
                    self.hand_on(&mut |_| ());
                }
                Poll::Ready(_) => return Err(()),
                Poll::Pending => return Ok(false),
            }
        }
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(_)) => Err(()),
            Poll::Pending => Ok(false),
        }
    }

    /// The connection has ended, but for its closing: streams that are still held are notified.
    pub(crate) fn end_streams(&self) {
        self.link.tell(ringway_http2::Connection::handle_end);
        self.hand_on(&mut |_| ());
    }

    /// Sends GOAWAY and FIN, and discards what still comes: unread frames would turn the close into a reset, and the last frames
    /// would be lost with it. Limited in time: a peer that goes on is reset.
    pub(crate) fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.read_away.is_none() {
            // What cannot be written is dropped.
            match self.poll_write(context) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(()) => return Poll::Ready(()),
            }
            if ready!(Pin::new(&mut self.stream).poll_shutdown(context)).is_err() {
                return Poll::Ready(());
            }
        }
        self.poll_read_away(READ_AWAY_MAX, context)
    }

    /// Sends GOAWAY to a peer that floods, and keeps the connection until its time is over or the peer closes: a peer that is cut
    /// off comes back at once, and a new connection costs more than the bytes on this one. Those are discarded unparsed; beyond
    /// some amount they are not even read.
    pub(crate) fn poll_hold(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.read_away.is_none() {
            match self.poll_write(context) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(()) => return Poll::Ready(()),
            }
        }
        match self.poll_read_away(READ_AWAY_OF_FLOODS_MAX, context) {
            Poll::Ready(()) if self.read_away.is_some_and(|bytes| bytes >= READ_AWAY_OF_FLOODS_MAX) => Poll::Pending,
            over => over,
        }
    }

    /// Ready at the end of the input, or once that is more than allowed.
    fn poll_read_away(&mut self, bytes_max: usize, context: &mut Context<'_>) -> Poll<()> {
        let read_away = self.read_away.get_or_insert(0);
        let mut sink = [0; 16 * 1024];
        while *read_away < bytes_max {
            let mut space = ReadBuf::new(&mut sink);
            match ready!(tokio::io::AsyncRead::poll_read(Pin::new(&mut self.stream), context, &mut space)) {
                Ok(()) if !space.filled().is_empty() => *read_away += space.filled().len(),
                _ => return Poll::Ready(()),
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end_streams();
        self.dispatcher.buffers.give(std::mem::take(&mut self.input));
    }
}
