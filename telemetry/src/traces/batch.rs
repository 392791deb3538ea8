//! A worker's end: spans are gathered, and handed over batch by batch.

use super::span::Span;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

/// A batch is handed over when it is this long, in bytes, or when the worker's timer ticks.
const BATCH_BYTES: usize = 64 * 1024;

/// Spans, one behind the other.
#[derive(Debug, Default)]
pub struct Batch {
    /// As in `ScopeSpans.spans`.
    pub(super) bytes: Vec<u8>,
    /// How many they are.
    pub(super) spans: u64,
}

/// A worker's end of an exporter.
#[derive(Debug)]
pub struct SpanBatch {
    sender: Sender<Batch>,
    batch: Batch,
}

impl SpanBatch {
    /// A worker's end.
    #[must_use]
    pub fn new(sender: Sender<Batch>) -> Self {
        Self { sender, batch: Batch::default() }
    }

    /// Adds a span. Gives how many spans were lost by it: 0 or a whole batch.
    pub fn add(&mut self, span: &Span<'_>) -> u64 {
        if self.batch.bytes.capacity() == 0 {
            self.batch.bytes.reserve(BATCH_BYTES + 8 * 1024);
        }
        span.write(&mut self.batch.bytes);
        self.batch.spans += 1;
        if self.batch.bytes.len() >= BATCH_BYTES { self.flush() } else { 0 }
    }

    /// Hands over what has been gathered. Gives how many spans were lost, because the exporter cannot keep up, or has gone.
    pub fn flush(&mut self) -> u64 {
        if self.batch.spans == 0 {
            return 0;
        }
        match self.sender.try_send(std::mem::take(&mut self.batch)) {
            Ok(()) => 0,
            Err(TrySendError::Full(batch) | TrySendError::Closed(batch)) => {
                let Batch { mut bytes, spans } = batch;
                bytes.clear();
                self.batch.bytes = bytes;
                spans
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::span::{Attributes, Kind};
    use super::*;

    #[test]
    fn an_exporter_that_cannot_keep_up_loses_whole_batches_and_is_told_how_many_spans() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let mut batch = SpanBatch::new(sender);
        let span = Span {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent: None,
            state: b"",
            name: ["GET", "", ""],
            kind: Kind::Server,
            start_nanos: 1,
            end_nanos: 2,
            attributes: &Attributes::default(),
            is_error: false,
        };
        assert_eq!((batch.flush(), batch.add(&span), batch.flush()), (0, 0, 0));
        assert_eq!((batch.add(&span), batch.add(&span), batch.flush(), batch.flush()), (0, 0, 2, 0));
        assert_eq!(receiver.try_recv().unwrap().spans, 1);
        drop(receiver);
        assert_eq!((batch.add(&span), batch.flush()), (0, 1));
    }
}
