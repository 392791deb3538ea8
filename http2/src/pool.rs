//! What connections of one thread share: buffers that are used again, and the budget out of which windows grow.

use ringway_message::{Field, ParseError, RequestHead, ResponseHead};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Size of a buffer for bodies, and of one for a frame that comes in pieces: any payload that we take fits in.
pub(crate) const CHUNK_BYTES: usize = crate::frame::FRAME_BYTES;
/// Largest arena that is kept: heads are rarely longer.
const ARENA_KEPT_BYTES: usize = 4 * 1024;
/// Most fields whose room is kept.
const FIELDS_KEPT: usize = 64;
/// Largest buffer for output that is kept.
const OUTPUT_KEPT_BYTES: usize = 128 * 1024;

/// A head or trailers that have come and wait to be taken.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    pub(crate) kind: InboundKind,
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    pub(crate) trailers: Vec<Field>,
    pub(crate) arena: Vec<u8>,
    /// Why it is only fit to be refused.
    pub(crate) fault: Option<ParseError>,
    /// What came after it.
    pub(crate) next: Option<Box<Self>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum InboundKind {
    #[default]
    Request,
    Response,
    Trailers,
}

/// Bounds of what the connections of a thread share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// What all windows together may grow by past those that connections and streams begin with.
    pub window_growth_bytes: usize,
    /// Buffers that are kept for bodies, of 16 KiB each; twice as many heads, and a fourth as many buffers for output.
    pub buffers_kept: usize,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { window_growth_bytes: 4 * 1024 * 1024, buffers_kept: 128 }
    }
}

/// Buffers and budget that the connections of one thread share.
#[derive(Debug)]
pub struct Memory {
    limits: MemoryLimits,
    chunks: RefCell<Vec<Vec<u8>>>,
    outputs: RefCell<Vec<Vec<u8>>>,
    #[allow(clippy::vec_box, reason = "they go to streams and back without being copied")]
    inbounds: RefCell<Vec<Box<Inbound>>>,
    /// Chunks that are in use.
    chunks_used: Cell<usize>,
    inbounds_used: Cell<usize>,
    growth_left: Cell<usize>,
}

impl Memory {
    /// Nothing is allocated before it is needed.
    #[must_use]
    pub fn new(limits: MemoryLimits) -> Rc<Self> {
        Rc::new(Self {
            limits,
            chunks: RefCell::default(),
            outputs: RefCell::default(),
            inbounds: RefCell::default(),
            chunks_used: Cell::new(0),
            inbounds_used: Cell::new(0),
            growth_left: Cell::new(limits.window_growth_bytes),
        })
    }

    /// Bytes of body buffers in use: what streams hold that was not taken yet.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.chunks_used.get() * CHUNK_BYTES
    }

    /// Heads that have come and were not taken yet.
    #[must_use]
    pub fn heads_waiting(&self) -> usize {
        self.inbounds_used.get()
    }

    /// Bytes by which windows have grown.
    #[must_use]
    pub fn grown_bytes(&self) -> usize {
        self.limits.window_growth_bytes - self.growth_left.get()
    }

    /// Bytes of buffers that are kept for the next stream that needs one.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let outputs: usize = self.outputs.borrow().iter().map(Vec::capacity).sum();
        let inbounds: usize = self.inbounds.borrow().iter().map(|inbound| inbound.held_bytes()).sum();
        self.chunks.borrow().len() * CHUNK_BYTES + outputs + inbounds
    }

    /// Lets go of half of what is kept.
    pub fn trim(&self) {
        fn halve<T>(kept: &RefCell<Vec<T>>) {
            let mut kept = kept.borrow_mut();
            let half = kept.len() / 2;
            kept.truncate(half);
            kept.shrink_to_fit();
        }
        halve(&self.chunks);
        halve(&self.outputs);
        halve(&self.inbounds);
    }

    pub(crate) fn take_chunk(&self) -> Vec<u8> {
        self.chunks_used.set(self.chunks_used.get() + 1);
        self.chunks.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES))
    }

    pub(crate) fn give_chunk(&self, mut chunk: Vec<u8>) {
        self.chunks_used.set(self.chunks_used.get() - 1);
        let mut kept = self.chunks.borrow_mut();
        if kept.len() < self.limits.buffers_kept {
            chunk.clear();
            kept.push(chunk);
        }
    }

    pub(crate) fn take_output(&self) -> Vec<u8> {
        self.outputs.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES))
    }

    pub(crate) fn give_output(&self, mut output: Vec<u8>) {
        let mut kept = self.outputs.borrow_mut();
        if kept.len() < self.limits.buffers_kept / 4 && output.capacity() <= OUTPUT_KEPT_BYTES {
            output.clear();
            kept.push(output);
        }
    }

    pub(crate) fn take_inbound(&self, kind: InboundKind) -> Box<Inbound> {
        self.inbounds_used.set(self.inbounds_used.get() + 1);
        let mut inbound = self.inbounds.borrow_mut().pop().unwrap_or_default();
        (inbound.kind, inbound.fault) = (kind, None);
        inbound
    }

    pub(crate) fn give_inbound(&self, mut inbound: Box<Inbound>) {
        self.inbounds_used.set(self.inbounds_used.get() - 1);
        let mut kept = self.inbounds.borrow_mut();
        if kept.len() < self.limits.buffers_kept * 2 {
            inbound.trim();
            kept.push(inbound);
        }
    }

    /// Leave to grow windows by so much.
    pub(crate) fn reserve_growth(&self, bytes: usize) -> bool {
        match self.growth_left.get().checked_sub(bytes) {
            Some(left) => {
                self.growth_left.set(left);
                true
            }
            None => false,
        }
    }

    pub(crate) fn release_growth(&self, bytes: usize) {
        self.growth_left.set(self.growth_left.get() + bytes);
    }
}

impl Inbound {
    /// One long head is not to be paid for by all that come after it.
    fn trim(&mut self) {
        if self.arena.capacity() > ARENA_KEPT_BYTES {
            self.arena = Vec::new();
        }
        for fields in [&mut self.request.fields, &mut self.response.fields, &mut self.trailers] {
            if fields.capacity() > FIELDS_KEPT {
                *fields = Vec::new();
            }
        }
    }

    fn held_bytes(&self) -> usize {
        let fields = self.request.fields.capacity() + self.response.fields.capacity() + self.trailers.capacity();
        size_of::<Self>() + self.arena.capacity() + fields * size_of::<Field>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_was_allowed_and_long_heads_are_not() {
        let memory = Memory::new(MemoryLimits { window_growth_bytes: 100, buffers_kept: 2 });
        let chunks: Vec<_> = (0..5).map(|_| memory.take_chunk()).collect();
        assert_eq!(memory.used_bytes(), 5 * CHUNK_BYTES);
        chunks.into_iter().for_each(|chunk| memory.give_chunk(chunk));
        assert_eq!((memory.used_bytes(), memory.kept_bytes()), (0, 2 * CHUNK_BYTES));
        memory.trim();
        memory.trim();
        assert_eq!(memory.kept_bytes(), 0);
        let mut inbound = memory.take_inbound(InboundKind::Request);
        inbound.arena.reserve(1 << 20);
        memory.give_inbound(inbound);
        assert!(memory.kept_bytes() < 8 * 1024);
    }

    #[test]
    fn the_budget_for_windows_is_never_exceeded() {
        let memory = Memory::new(MemoryLimits { window_growth_bytes: 100, buffers_kept: 2 });
        assert!(memory.reserve_growth(60) && !memory.reserve_growth(41) && memory.reserve_growth(40));
        memory.release_growth(60);
        assert_eq!(memory.grown_bytes(), 40);
    }

    #[test]
    fn each_kind_of_buffer_is_counted_while_it_is_used_and_kept_up_to_its_own_bound() {
        let memory = Memory::new(MemoryLimits { window_growth_bytes: 100, buffers_kept: 8 });
        // Twice as many heads, of an arena of a hundred bytes each.
        let inbounds: Vec<_> = (1..=20)
            .map(|count| {
                let mut inbound = memory.take_inbound(InboundKind::Trailers);
                inbound.arena = Vec::with_capacity(100);
                assert_eq!((memory.heads_waiting(), inbound.kind), (count, InboundKind::Trailers));
                inbound
            })
            .collect();
        inbounds.into_iter().for_each(|inbound| memory.give_inbound(inbound));
        assert_eq!((memory.heads_waiting(), memory.kept_bytes()), (0, 16 * (size_of::<Inbound>() + 100)));
        let empty = memory.kept_bytes();
        // A fourth as many for output, none of which is large.
        let mut outputs: Vec<_> = (0..4).map(|_| memory.take_output()).collect();
        outputs[0] = Vec::with_capacity(OUTPUT_KEPT_BYTES + 1);
        outputs[1] = Vec::with_capacity(OUTPUT_KEPT_BYTES);
        outputs[1].push(1);
        outputs.into_iter().for_each(|output| memory.give_output(output));
        assert_eq!(memory.kept_bytes() - empty, OUTPUT_KEPT_BYTES + CHUNK_BYTES);
        assert!(memory.take_output().is_empty() && memory.take_output().is_empty());
        assert_eq!(memory.kept_bytes(), empty);
        let chunks: Vec<_> = (0..9).map(|_| memory.take_chunk()).collect();
        assert_eq!(memory.used_bytes(), 9 * CHUNK_BYTES);
        chunks.into_iter().for_each(|mut chunk| {
            chunk.push(1);
            memory.give_chunk(chunk);
        });
        assert_eq!((memory.used_bytes(), memory.kept_bytes()), (0, empty + 8 * CHUNK_BYTES));
        assert!(memory.take_chunk().is_empty());
        memory.trim();
        // Seven chunks, of which three stay, and half of the heads.
        assert_eq!(memory.kept_bytes(), 3 * CHUNK_BYTES + empty / 2);
    }

    #[test]
    fn of_a_head_what_is_usual_is_kept_and_what_is_more_is_not() {
        let memory = Memory::new(MemoryLimits::default());
        let field = size_of::<Field>();
        for (arena, fields, kept) in [
            (ARENA_KEPT_BYTES, FIELDS_KEPT, ARENA_KEPT_BYTES + 3 * FIELDS_KEPT * field),
            (ARENA_KEPT_BYTES + 1, FIELDS_KEPT, 3 * FIELDS_KEPT * field),
            (ARENA_KEPT_BYTES, FIELDS_KEPT + 1, ARENA_KEPT_BYTES),
        ] {
            let mut inbound = memory.take_inbound(InboundKind::Request);
            inbound.arena = Vec::with_capacity(arena);
            for list in [&mut inbound.request.fields, &mut inbound.response.fields, &mut inbound.trailers] {
                *list = Vec::with_capacity(fields);
            }
            memory.give_inbound(inbound);
            assert_eq!(memory.kept_bytes(), size_of::<Inbound>() + kept, "{arena} {fields}");
        }
    }
}
