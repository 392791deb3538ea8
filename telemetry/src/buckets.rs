//! The buckets that durations are counted in.

use std::time::Duration;

/// Upper bounds of the duration buckets, in microseconds: 1-2.5-5 steps from 100 us to 60 s.
pub const BUCKETS_MICROS: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// A duration with its bucket.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub(crate) bucket: usize,
    pub(crate) micros: u64,
}

impl Measured {
    /// Looks for its bucket.
    #[inline]
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // Most requests are short: a scan from below beats a binary search.
        let bucket = BUCKETS_MICROS.iter().position(|&bound| micros <= bound).unwrap_or(BUCKETS_MICROS.len());
        Self { bucket, micros }
    }

    /// In microseconds.
    #[inline]
    #[must_use]
    pub fn micros(&self) -> u64 {
        self.micros
    }
}
