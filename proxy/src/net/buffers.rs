//! A worker's buffers: taken when there is something to read, returned when a connection idles.

use crate::net::stream::Stream;
use ringway_message::{HeadWriter, Line};
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// Size of an ordinary buffer: a head, or a small exchange.
pub(crate) const SMALL_BYTES: usize = 16 * 1024;
/// Size of a large buffer: bulk data are read in few, long reads.
pub(crate) const LARGE_BYTES: usize = 256 * 1024;
/// Lines of the longest head whose room is kept.
const LINES_MAX: usize = 128;
/// Idle buffers kept: together at most 4 + 8 MiB a worker.
const SMALL_KEPT: usize = 256;
const LARGE_KEPT: usize = 32;

/// Bytes read and not yet consumed: `data[start..end]`.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    data: Vec<u8>,
    start: usize,
    end: usize,
    /// For a large one: its part of the allowance.
    _place: Option<LargeBufferPermit>,
}

/// One of a worker's large buffers, counted as long as this lives: also where a cancelled exchange drops it.
#[derive(Debug)]
struct LargeBufferPermit(Rc<Cell<usize>>);

impl Drop for LargeBufferPermit {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Buffer {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether it holds memory at all.
    pub(crate) fn is_allocated(&self) -> bool {
        !self.data.is_empty()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.data.len()
    }

    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "no more is consumed than was read");
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Makes room behind the bytes: moves them to the front, and grows to `bytes_max` if that is not enough.
    fn make_room(&mut self, bytes_max: usize) {
        if self.end < self.data.len() {
            return;
        }
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else if self.data.len() < bytes_max {
            let grown = (self.data.len() * 2).clamp(SMALL_BYTES, bytes_max);
            self.data.resize(grown, 0);
        }
    }

    /// Puts bytes behind those that are there, as many as fit. Returns how many.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        self.make_room(SMALL_BYTES);
        let space = &mut self.data[self.end..];
        let count = space.len().min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        self.end += count;
        count
    }

    /// Reads once by a call, behind the bytes that are there.
    pub(crate) fn read_by(&mut self, read: impl FnOnce(&mut [u8]) -> std::io::Result<usize>) -> std::io::Result<usize> {
        self.make_room(SMALL_BYTES);
        let count = read(&mut self.data[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// Reads once; 0 is the end of the stream, or that the buffer is full at `bytes_max`.
    pub(crate) fn poll_read(
        &mut self,
        stream: &mut Stream,
        bytes_max: usize,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        self.make_room(bytes_max.max(SMALL_BYTES));
        let mut space = ReadBuf::new(&mut self.data[self.end..]);
        // Not try_read: a short read through poll_read clears the readiness, which saves the read that would say
        // "would block".
        ready!(Pin::new(stream).poll_read(context, &mut space))?;
        let count = space.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }
}

/// A worker's pool.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    small: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
    outgoing: RefCell<Vec<Vec<u8>>>,
    lines: RefCell<Vec<Vec<Line>>>,
    large_out: Rc<Cell<usize>>,
}

impl Buffers {
    pub(crate) fn take(&self) -> Buffer {
        let data = self.small.borrow_mut().pop().unwrap_or_else(|| vec![0; SMALL_BYTES]);
        Buffer { data, ..Buffer::default() }
    }

    /// Exchanges an empty small buffer for a large one, if the worker's allowance permits.
    pub(crate) fn grow(&self, buffer: &mut Buffer) {
        if buffer.capacity() >= LARGE_BYTES || !buffer.is_empty() || self.large_out.get() >= LARGE_KEPT {
            return;
        }
        let data = self.large.borrow_mut().pop().unwrap_or_else(|| vec![0; LARGE_BYTES]);
        self.large_out.set(self.large_out.get() + 1);
        let _place = Some(LargeBufferPermit(Rc::clone(&self.large_out)));
        self.give(std::mem::replace(buffer, Buffer { data, _place, ..Buffer::default() }));
    }

    pub(crate) fn give(&self, buffer: Buffer) {
        match buffer.data.len() {
            SMALL_BYTES if self.small.borrow().len() < SMALL_KEPT => self.small.borrow_mut().push(buffer.data),
            LARGE_BYTES if self.large.borrow().len() < LARGE_KEPT => self.large.borrow_mut().push(buffer.data),
            // Empty, or grown for one long head.
            _ => {}
        }
    }

    /// An empty vector to write a head into.
    pub(crate) fn take_outgoing(&self) -> Vec<u8> {
        self.outgoing.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(4096))
    }

    pub(crate) fn give_outgoing(&self, mut outgoing: Vec<u8>) {
        if outgoing.capacity() > 0
            && outgoing.capacity() <= 4 * SMALL_BYTES
            && self.outgoing.borrow().len() < SMALL_KEPT
        {
            outgoing.clear();
            self.outgoing.borrow_mut().push(outgoing);
        }
    }

    /// Room for a head; `indexed`: its lines are known by position as well as by text.
    pub(crate) fn take_writer(&self, indexed: bool) -> HeadWriter {
        let lines = if indexed { self.lines.borrow_mut().pop() } else { None };
        HeadWriter::new(self.take_outgoing(), lines.unwrap_or_default(), indexed)
    }

    pub(crate) fn give_writer(&self, writer: HeadWriter) {
        let (text, lines) = writer.into_parts();
        self.give_outgoing(text);
        self.give_lines(lines);
    }

    pub(crate) fn give_lines(&self, mut lines: Vec<Line>) {
        if lines.capacity() > 0 && lines.capacity() <= LINES_MAX && self.lines.borrow().len() < SMALL_KEPT {
            lines.clear();
            self.lines.borrow_mut().push(lines);
        }
    }

    /// Large buffers that are in use.
    pub(crate) fn large_out(&self) -> usize {
        self.large_out.get()
    }

    /// Buffers that are kept: small, large, for heads.
    pub(crate) fn kept(&self) -> (usize, usize, usize) {
        (self.small.borrow().len(), self.large.borrow().len(), self.outgoing.borrow().len())
    }

    /// Frees memory when the load that needed it is over.
    pub(crate) fn trim(&self) {
        for pool in [&self.small, &self.outgoing, &self.large] {
            let mut pool = pool.borrow_mut();
            let keep = pool.len() / 2;
            pool.truncate(keep);
        }
        let mut lines = self.lines.borrow_mut();
        let keep = lines.len() / 2;
        lines.truncate(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_that_are_dropped_give_their_places_back() {
        let buffers = Buffers::default();
        let grown = || {
            let mut buffer = buffers.take();
            buffers.grow(&mut buffer);
            buffer
        };
        for round in 0..3 {
            let mut held: Vec<Buffer> = (0..LARGE_KEPT).map(|_| grown()).collect();
            assert!(held.iter().all(|buffer| buffer.capacity() == LARGE_BYTES), "{round}");
            assert_eq!(grown().capacity(), SMALL_BYTES, "there are no more than these");
            // A cancelled exchange drops its own; others return them, or exchange them.
            buffers.give(held.remove(0));
            held[0] = Buffer::default();
        }
    }
}
