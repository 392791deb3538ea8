//! Bytes of a body that have come and were not taken yet, in pooled buffers.

use crate::pool::{CHUNK_BYTES, Memory};
use std::collections::VecDeque;

/// Bytes are copied in once, and lie still until they are consumed.
#[derive(Debug, Default)]
pub(crate) struct Body {
    /// Nothing before this is left in the first buffer.
    start: usize,
    chunks: VecDeque<Vec<u8>>,
    len: u32,
}

impl Body {
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8], memory: &Memory) {
        self.len += bytes.len() as u32;
        while !bytes.is_empty() {
            let room = self.chunks.back().map_or(0, |chunk| CHUNK_BYTES - chunk.len());
            if room == 0 {
                self.chunks.push_back(memory.take_chunk());
                continue;
            }
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            self.chunks.back_mut().expect("invariant: there is room in a last one").extend_from_slice(piece);
            bytes = rest;
        }
    }

    /// The first of it, as far as it lies in one piece; empty only if all is.
    pub(crate) fn data(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| &chunk[self.start..])
    }

    /// Gives how much there was of that.
    #[inline]
    pub(crate) fn consume(&mut self, bytes: usize, memory: &Memory) -> u32 {
        if self.len == 0 { 0 } else { self.consume_some(bytes, memory) }
    }

    fn consume_some(&mut self, bytes: usize, memory: &Memory) -> u32 {
        let mut left = bytes;
        while let Some(front) = self.chunks.front() {
            let piece = front.len() - self.start;
            if left < piece {
                self.start += left;
                left = 0;
                break;
            }
            left -= piece;
            self.start = 0;
            self.chunks.pop_front().into_iter().for_each(|chunk| memory.give_chunk(chunk));
        }
        let consumed = (bytes - left) as u32;
        self.len -= consumed;
        consumed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::MemoryLimits;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in_and_buffers_go_back(
            steps in prop::collection::vec((any::<bool>(), 0_usize..40_000), 1..40),
        ) {
            let memory = Memory::new(MemoryLimits::default());
            let (mut body, mut model, mut next) = (Body::default(), VecDeque::new(), 0_u8);
            for (pushes, count) in steps {
                if pushes {
                    let bytes: Vec<u8> = (0..count).map(|_| { next = next.wrapping_add(7); next }).collect();
                    body.push(&bytes, &memory);
                    model.extend(bytes);
                } else {
                    let data = body.data();
                    prop_assert_eq!(data.is_empty(), model.is_empty());
                    let first: Vec<u8> = model.iter().copied().take(data.len()).collect();
                    prop_assert_eq!(data, &first[..]);
                    let consumed = body.consume(count, &memory) as usize;
                    prop_assert_eq!(consumed, count.min(model.len()));
                    model.drain(..consumed);
                }
                prop_assert_eq!(body.len() as usize, model.len());
                // Never more than one buffer begun at each end.
                prop_assert!(memory.used_bytes() <= model.len() + 2 * CHUNK_BYTES);
            }
            body.consume(usize::MAX, &memory);
            prop_assert_eq!(memory.used_bytes(), 0);
        }
    }
}
