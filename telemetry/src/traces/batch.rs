//! A worker's end: spans are gathered, and handed over batch by batch.

use super::counts::{Outcome, SpanCounts};
use super::queue::{Batch, Sender};
use super::span::Span;
use std::sync::Arc;

/// A batch is handed over when it is this long, in bytes, or when its worker's time has come.
const BATCH_BYTES: usize = 64 * 1024;
/// Most spans are far shorter.
const SPAN_BYTES: usize = 2 * 1024;

/// Where a worker's spans go, and where those are counted that are lost on the way.
#[derive(Debug, Clone)]
pub struct Sink {
    sender: Sender,
    counts: Arc<SpanCounts>,
}

impl Sink {
    pub(super) fn new(sender: Sender, counts: Arc<SpanCounts>) -> Self {
        Self { sender, counts }
    }
}

/// A worker's end of an exporter. Dropped, it hands over what it has.
#[derive(Debug)]
pub struct SpanBatch {
    sink: Sink,
    batch: Batch,
}

impl SpanBatch {
    /// A worker's end.
    #[must_use]
    pub fn new(sink: Sink) -> Self {
        Self { sink, batch: Batch::default() }
    }

    /// Adds a span.
    pub fn add(&mut self, span: &Span<'_>) {
        span.write(&mut self.batch.bytes);
        self.batch.spans += 1;
        if self.batch.bytes.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Hands over what has been gathered. What the exporter has no room for is lost.
    pub fn flush(&mut self) {
        if self.batch.spans == 0 {
            return;
        }
        // The next one will be about as long: it is not moved as it grows.
        let room = (self.batch.bytes.len() + self.batch.bytes.len() / 8).min(BATCH_BYTES + SPAN_BYTES);
        let fresh = Batch { bytes: Vec::with_capacity(room), spans: 0 };
        let mut batch = std::mem::replace(&mut self.batch, fresh);
        // What waits is counted by its length.
        if batch.bytes.capacity() / 2 > batch.bytes.len() {
            batch.bytes.shrink_to_fit();
        }
        if let Err(mut lost) = self.sink.sender.send(batch) {
            self.sink.counts.add(Outcome::Dropped, lost.spans);
            lost.bytes.clear();
            self.batch.bytes = lost.bytes;
        }
    }
}

impl Drop for SpanBatch {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::super::queue::{WAITING_BYTES_MAX, queue};
    use super::super::span::{Attributes, Kind};
    use super::*;

    fn span(attributes: &Attributes) -> Span<'_> {
        Span {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent: None,
            state: b"",
            name: ["GET", "", ""],
            kind: Kind::Server,
            start_nanos: 1,
            end_nanos: 2,
            attributes,
            is_error: false,
            is_random: true,
        }
    }

    /// The collector is silent: nothing is received.
    #[test]
    fn many_small_batches_wait_up_to_the_bound_and_exactly_those_beyond_it_are_counted_as_dropped() {
        let (sender, mut receiver) = queue();
        let counts = Arc::<SpanCounts>::default();
        let dropped = || counts.all().find(|(outcome, _)| *outcome == Outcome::Dropped).map(|(_, spans)| spans);
        let attributes = Attributes::default();
        let mut one = Vec::new();
        span(&attributes).write(&mut one);
        let room = (WAITING_BYTES_MAX / (2 * one.len())) as u64;
        let sink = Sink::new(sender, Arc::clone(&counts));
        let mut workers = [SpanBatch::new(sink.clone()), SpanBatch::new(sink)];
        let mut hand_over = |batches: u64| {
            for number in 0..batches {
                let worker = &mut workers[number as usize % 2];
                worker.flush();
                worker.add(&span(&attributes));
                worker.add(&span(&attributes));
                worker.flush();
            }
        };
        hand_over(room);
        assert_eq!(dropped(), Some(0));
        hand_over(7);
        assert_eq!(dropped(), Some(14));
        let waiting = std::iter::from_fn(|| receiver.try_recv()).map(|batch| batch.spans).sum::<u64>();
        assert_eq!(waiting, 2 * room);
        hand_over(1);
        assert_eq!((dropped(), receiver.try_recv().map(|batch| batch.spans)), (Some(14), Some(2)));
    }

    #[test]
    fn what_a_worker_has_when_it_lets_go_is_handed_over_or_counted() {
        let (sender, mut receiver) = queue();
        let counts = Arc::<SpanCounts>::default();
        let attributes = Attributes::default();
        let sink = Sink::new(sender, Arc::clone(&counts));
        for is_gone in [false, true] {
            if is_gone {
                receiver.close();
            }
            let mut batch = SpanBatch::new(sink.clone());
            batch.add(&span(&attributes));
            drop(batch);
            assert_eq!(receiver.try_recv().is_some(), !is_gone);
        }
        assert!(counts.all().any(|counted| counted == (Outcome::Dropped, 1)));
    }
}
