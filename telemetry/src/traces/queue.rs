//! What waits between the workers and the exporter: as many bytes as fit, however many batches they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bytes of spans that may wait, of all workers.
pub(super) const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Spans, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// As in `ScopeSpans.spans`.
    pub(super) bytes: Vec<u8>,
    /// How many they are.
    pub(super) spans: u64,
}

/// Where batches are handed over.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    batches: UnboundedSender<Batch>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// The exporter's end.
#[derive(Debug)]
pub(super) struct Receiver {
    batches: UnboundedReceiver<Batch>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// A queue that is bounded by [`WAITING_BYTES_MAX`].
pub(super) fn queue() -> (Sender, Receiver) {
    let (sender, receiver) = unbounded_channel();
    let waiting_bytes = Arc::<AtomicUsize>::default();
    let sender = Sender { batches: sender, waiting_bytes: Arc::clone(&waiting_bytes) };
    (sender, Receiver { batches: receiver, waiting_bytes })
}

impl Sender {
    /// Hands a batch over.
    ///
    /// # Errors
    /// It does not fit, or the exporter has gone: here it is again.
    pub(super) fn send(&self, batch: Batch) -> Result<(), Batch> {
        let len = batch.bytes.len();
        if self.waiting_bytes.fetch_add(len, Relaxed) + len > WAITING_BYTES_MAX {
            self.waiting_bytes.fetch_sub(len, Relaxed);
            return Err(batch);
        }
        self.batches.send(batch).map_err(|refused| refused.0)
    }
}

impl Receiver {
    /// The next batch, once there is one. `None`: no more comes.
    pub(super) async fn recv(&mut self) -> Option<Batch> {
        let batch = self.batches.recv().await;
        self.taken(batch)
    }

    /// The next one that is there.
    pub(super) fn try_recv(&mut self) -> Option<Batch> {
        let batch = self.batches.try_recv().ok();
        self.taken(batch)
    }

    /// No more is handed over.
    pub(super) fn close(&mut self) {
        self.batches.close();
    }

    fn taken(&self, batch: Option<Batch>) -> Option<Batch> {
        let batch = batch?;
        self.waiting_bytes.fetch_sub(batch.bytes.len(), Relaxed);
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_what_bounds_it_and_what_is_taken_makes_room() {
        let (sender, mut receiver) = queue();
        let batch = |len| Batch { bytes: vec![0; len], spans: 1 };
        for _ in 0..WAITING_BYTES_MAX / 4096 {
            assert!(sender.send(batch(4096)).is_ok());
        }
        assert_eq!(sender.send(batch(1)).map_err(|refused| refused.spans), Err(1));
        assert_eq!(receiver.try_recv().map(|batch| batch.bytes.len()), Some(4096));
        assert!(sender.send(batch(4097)).is_err() && sender.send(batch(4096)).is_ok());
        receiver.close();
        assert!(receiver.try_recv().is_some() && sender.send(batch(1)).is_err());
    }
}
