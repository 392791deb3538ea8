//! How long something took, counted into buckets, as Prometheus' histograms are: no lock, nothing allocated.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds: from a good disk's sync to what a client no longer waits for.
const BOUNDS_US: [u64; 13] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000];

/// See the module.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [AtomicU64; BOUNDS_US.len()],
    /// Those past the last bound too.
    count: AtomicU64,
    sum_us: AtomicU64,
}

/// A histogram as it is read: all buckets cumulative.
#[derive(Debug, Clone, PartialEq)]
pub struct Latencies {
    /// Upper bound in seconds, and how many were at most that.
    pub buckets: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// All of them together, in seconds.
    pub sum: f64,
}

impl Latency {
    /// Something took so long.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(BOUNDS_US.partition_point(|bound| *bound < us)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
        self.count.fetch_add(1, Relaxed);
    }

    /// What there was so far.
    #[must_use]
    pub fn read(&self) -> Latencies {
        // First: what comes while the buckets are read must not be missing from the whole.
        let sum = self.sum_us.load(Relaxed) as f64 / 1e6;
        let mut below = 0;
        let buckets: Vec<(f64, u64)> = BOUNDS_US
            .iter()
            .zip(&self.buckets)
            .map(|(bound, bucket)| {
                below += bucket.load(Relaxed);
                (*bound as f64 / 1e6, below)
            })
            .collect();
        Latencies { count: self.count.load(Relaxed).max(below), buckets, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_as_long_as_a_bound_is_in_its_bucket_and_all_are_cumulative() {
        let latency = Latency::default();
        for us in [0, 250, 251, 2_500_000, 2_500_001, u64::MAX / 4] {
            latency.observe(Duration::from_micros(us));
        }
        let read = latency.read();
        assert_eq!(read.buckets[0], (0.000_25, 2));
        assert_eq!(read.buckets[1], (0.000_5, 3));
        assert_eq!(read.buckets.last(), Some(&(2.5, 4)));
        assert_eq!(read.count, 6);
        assert!(read.buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1 && pair[0].0 < pair[1].0));
    }
}
