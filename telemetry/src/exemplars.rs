//! Traces that stand for what a histogram has counted: for each bucket the last one, so that from a slow bucket a slow request is found.

use crate::buckets::{BUCKETS_MICROS, Measured};
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

/// One for each bucket.
pub(crate) type PerBucket = [Option<Exemplar>; BUCKETS_MICROS.len() + 1];

/// A request that was traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exemplar {
    trace: u128,
    micros: u64,
    /// Of Unix time.
    at_millis: u64,
}

/// One worker's. Written for requests that are traced, which are few, and read at a scrape.
#[derive(Debug, Default)]
pub struct Exemplars(Mutex<Option<Box<PerBucket>>>);

impl Exemplars {
    /// A request that has this trace has been counted.
    pub fn note(&self, measured: Measured, trace: u128, at_millis: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_or_insert_default()[measured.bucket] = Some(Exemplar { trace, micros: measured.micros, at_millis });
    }

    /// Takes over those of them that are newer.
    pub(crate) fn add_to(&self, newest: &mut PerBucket) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (newest, exemplar) in newest.iter_mut().zip(all.iter().flat_map(|all| all.iter())) {
            if exemplar.is_some_and(|one| newest.is_none_or(|known| known.at_millis <= one.at_millis)) {
                *newest = *exemplar;
            }
        }
    }
}

impl Exemplar {
    /// What stands behind a sample of OpenMetrics.
    pub(crate) fn write(&self, out: &mut String) {
        let Self { trace, micros, at_millis } = self;
        // Writing to a String does not fail.
        let _ = write!(
            out,
            " # {{trace_id=\"{trace:032x}\"}} {} {}.{:03}",
            *micros as f64 / 1e6,
            at_millis / 1000,
            at_millis % 1000
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_newest_of_all_workers_stands_for_its_bucket_alone() {
        let workers = [Exemplars::default(), Exemplars::default(), Exemplars::default()];
        let millis = |millis: u64| Measured::new(Duration::from_millis(millis));
        workers[0].note(millis(3), 1, 5_000);
        workers[1].note(millis(4), 2, 6_050);
        workers[0].note(millis(900), 3, 7_000);
        let mut newest = PerBucket::default();
        workers.iter().for_each(|worker| worker.add_to(&mut newest));
        let found: Vec<&Exemplar> = newest.iter().flatten().collect();
        assert_eq!(found.iter().map(|one| one.trace).collect::<Vec<_>>(), [2, 3]);
        let mut text = String::new();
        found[0].write(&mut text);
        assert_eq!(text, " # {trace_id=\"00000000000000000000000000000002\"} 0.004 6.050");
    }
}
