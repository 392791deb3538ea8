//! What becomes of spans, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What becomes of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The collector has taken them.
    Exported,
    /// The collector does not want them.
    Refused,
    /// They could not be delivered.
    Failed,
    /// The exporter could not keep up with them.
    Dropped,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Exported, Self::Refused, Self::Failed, Self::Dropped];

    /// Its label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// Spans by what became of them. Counted by whole batches.
#[derive(Debug, Default)]
pub struct SpanCounts([AtomicU64; Outcome::ALL.len()]);

impl SpanCounts {
    /// Counts some.
    pub fn add(&self, outcome: Outcome, spans: u64) {
        if spans > 0 {
            self.0[outcome as usize].fetch_add(spans, Relaxed);
        }
    }

    /// All there are.
    pub fn all(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().zip(&self.0).map(|(outcome, spans)| (outcome, spans.load(Relaxed)))
    }
}
