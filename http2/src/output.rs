//! What waits to be written, of all streams together.

use crate::pool::Memory;

/// Data that waits at most. Heads and what the connection itself has to say come on top: they are bounded by the number of streams, and
/// by [`crate::connection`] reading no further.
pub(crate) const OUTPUT_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Without room of its own while there is nothing to be written.
    bytes: Vec<u8>,
    /// What has been written of it.
    start: usize,
}

impl Output {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Room for data, frames' headers included.
    pub(crate) fn room(&self) -> usize {
        OUTPUT_BYTES.saturating_sub(self.len())
    }

    /// To append to.
    pub(crate) fn buffer(&mut self, memory: &Memory) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = memory.take_output();
        }
        &mut self.bytes
    }

    pub(crate) fn advance(&mut self, count: usize, memory: &Memory) {
        self.start += count.min(self.len());
        if self.start == self.bytes.len() {
            self.give_back(memory);
        } else if self.start > self.bytes.len() / 2 {
            // What is left is less than what has gone: to move it costs less than it did to write it.
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    pub(crate) fn give_back(&mut self, memory: &Memory) {
        self.start = 0;
        if self.bytes.capacity() > 0 {
            memory.give_output(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_goes_from_the_front_and_room_is_what_is_left() {
        let (memory, mut output) = (Memory::new(crate::pool::MemoryLimits::default()), Output::default());
        assert_eq!((output.len(), output.room(), output.bytes()), (0, OUTPUT_BYTES, &b""[..]));
        output.buffer(&memory).extend_from_slice(b"abcdefghij");
        assert_eq!((output.len(), output.room()), (10, OUTPUT_BYTES - 10));
        // Below and above half, which is when what is left is moved.
        for (count, left) in [(3, &b"defghij"[..]), (4, b"hij"), (0, b"hij"), (1, b"ij")] {
            output.advance(count, &memory);
            assert_eq!((output.bytes(), output.len(), output.room()), (left, left.len(), OUTPUT_BYTES - left.len()));
        }
        output.buffer(&memory).extend_from_slice(b"k");
        assert_eq!(output.bytes(), b"ijk");
        output.advance(100, &memory);
        assert_eq!((output.len(), output.bytes.capacity()), (0, 0), "its buffer is given back");
    }

    #[test]
    fn what_is_left_is_moved_once_it_is_less_than_what_has_gone() {
        let (memory, mut output) = (Memory::new(crate::pool::MemoryLimits::default()), Output::default());
        output.buffer(&memory).resize(100, b'x');
        output.advance(50, &memory);
        assert_eq!(output.start, 50, "as much is left as has gone: nothing is moved");
        output.advance(1, &memory);
        assert_eq!((output.start, output.bytes.len()), (0, 49));
        output.give_back(&memory);
    }

    #[test]
    fn more_than_there_is_room_for_leaves_none() {
        let (memory, mut output) = (Memory::new(crate::pool::MemoryLimits::default()), Output::default());
        output.buffer(&memory).resize(OUTPUT_BYTES + 9, 0);
        assert_eq!(output.room(), 0);
        output.advance(10, &memory);
        assert_eq!(output.room(), 1);
        output.give_back(&memory);
    }
}
