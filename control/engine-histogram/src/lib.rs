//! Histograms by powers of two, in place of the crate of this name: that one fills tables of 25 MiB when its first histogram
//! is made, for precisions that the consensus engine does not use. This is what the engine uses of it, written anew.
#![warn(missing_docs)]

use std::fmt;
use std::marker::PhantomData;

/// Linear steps within a power of two: values are known to an eighth of themselves.
const STEPS: usize = 4;
/// 0 to 3 exactly, then four steps for each further bit of 64.
const BUCKETS: usize = STEPS + (64 - 2) * STEPS;

/// How often which values were recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    unused: PhantomData<T>,
}

/// Percentiles, and how many values they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "named for what they are")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// Nothing recorded yet: no memory taken.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: Vec::new(), unused: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value, so many times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        if self.counts.is_empty() {
            self.counts.resize(BUCKETS, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket(value)) {
            *count += times;
        }
    }

    /// The smallest value of the bucket in which the given share, in 0 to 1, is reached; 0 of nothing.
    #[must_use]
    pub fn percentile(&self, share: f64) -> u64 {
        let samples: u64 = self.counts.iter().sum();
        let rank = ((samples as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return smallest(index);
            }
        }
        0
    }

    /// The usual ones.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.counts.iter().sum(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

fn bucket(value: u64) -> usize {
    match value.checked_ilog2() {
        Some(bits @ 2..) => STEPS * (bits as usize - 1) + ((value >> (bits - 2)) & 3) as usize,
        _ => value as usize,
    }
}

fn smallest(bucket: usize) -> u64 {
    match bucket / STEPS {
        0 => bucket as u64,
        group => ((STEPS + bucket % STEPS) as u64) << (group - 1),
    }
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9 } = self;
        write!(f, "[samples: {samples}, P0.1: {p0_1}, P1: {p1}, P5: {p5}, P10: {p10}, ")?;
        write!(f, "P50: {p50}, P90: {p90}, P99: {p99}, P99.9: {p99_9}]")
    }
}

/// Histograms by their names, printed a line each.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    lines: Vec<(String, Histogram)>,
}

impl AsciiChart {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "the name that the engine calls it by")]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.lines.push((name.into(), histogram));
        self
    }

    /// There is one way of printing.
    #[must_use]
    pub fn detailed(self) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, histogram)| writeln!(f, "{name}: {}", histogram.percentile_stats()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_begins_where_it_says_and_ends_before_the_next() {
        for index in 0..BUCKETS {
            assert_eq!(bucket(smallest(index)), index);
            if index > 0 {
                assert_eq!(bucket(smallest(index) - 1), index - 1);
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        (0..1000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p10, stats.p50, stats.p99), (1000, 0, 96, 448, 896));
    }
}
