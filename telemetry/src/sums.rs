//! What services and backends have counted, summed over all workers: for who looks again and again, and wants to know what has
//! happened between two looks.

use crate::counters::{BUCKETS_MICROS, BackendCounters, CLASSES, Durations, Registry, ServiceCounters};

/// A service's or a backend's numbers, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// By class, as in [`ServiceCounters::requests`].
    pub classes: [u64; CLASSES],
    /// Durations, as in [`Durations::buckets`].
    pub buckets: [u64; BUCKETS_MICROS.len() + 1],
    /// Of a backend: tries that failed.
    pub failures: u64,
    /// Sent on because of the bound: by a service, or to a backend.
    pub spills: u64,
    /// Of a service: tries after the first.
    pub retries: u64,
    /// Durations, summed, in microseconds.
    pub duration_micros: u64,
}

impl Sums {
    fn of_service(counters: &ServiceCounters) -> Self {
        let mut sums = Self { spills: counters.spills.get(), retries: counters.retries.get(), ..Self::default() };
        sums.count(&counters.durations, counters.requests.iter().map(crate::counters::Cell::get));
        sums
    }

    fn of_backend(counters: &BackendCounters) -> Self {
        let mut sums = Self { failures: counters.failures.get(), spills: counters.spills.get(), ..Self::default() };
        sums.count(&counters.durations, counters.responses.iter().map(crate::counters::Cell::get));
        sums
    }

    fn count(&mut self, durations: &Durations, classes: impl Iterator<Item = u64>) {
        self.classes.iter_mut().zip(classes).for_each(|(sum, class)| *sum = class);
        self.duration_micros = durations.sum_micros.get();
        self.buckets.iter_mut().zip(&durations.buckets).for_each(|(sum, bucket)| *sum = bucket.get());
    }

    fn pairwise(&self, other: &Self, both: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            classes: std::array::from_fn(|at| both(self.classes[at], other.classes[at])),
            buckets: std::array::from_fn(|at| both(self.buckets[at], other.buckets[at])),
            failures: both(self.failures, other.failures),
            spills: both(self.spills, other.spills),
            retries: both(self.retries, other.retries),
            duration_micros: both(self.duration_micros, other.duration_micros),
        }
    }

    /// With those of another.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.pairwise(other, u64::wrapping_add)
    }

    /// What has come since an earlier look. Counters that began anew in between count from 0.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.pairwise(earlier, |now, then| now.checked_sub(then).unwrap_or(now))
    }
}

impl Registry {
    /// Each service's numbers.
    pub fn service_sums(&self, mut visit: impl FnMut(&str, Sums)) {
        self.for_services(|name, counters| {
            visit(name, counters.iter().fold(Sums::default(), |sum, one| sum.plus(&Sums::of_service(one))));
        });
    }

    /// Each backend's numbers, of the services that are `wanted`.
    pub fn backend_sums(&self, wanted: impl Fn(&str) -> bool, mut visit: impl FnMut(&str, &str, Sums)) {
        self.for_backends(|service, id, counters| {
            if wanted(service) {
                visit(service, id, counters.iter().fold(Sums::default(), |sum, one| sum.plus(&Sums::of_backend(one))));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn numbers_of_all_workers_are_summed_and_what_has_come_since_is_told() {
        let registry = Registry::default();
        let (one, two) = (registry.service("s"), registry.service("s"));
        one.requests[2].add(3);
        two.requests[2].add(4);
        two.durations.record(Duration::from_micros(90));
        registry.backend("s", "a").failures.increment();
        registry.backend("t", "a").failures.add(7);
        let mut seen = Vec::new();
        registry.service_sums(|name, sums| seen.push((name.to_owned(), sums)));
        assert_eq!((seen[0].0.as_str(), seen[0].1.classes[2], seen[0].1.buckets[0]), ("s", 7, 1));
        one.requests[2].add(5);
        registry.service_sums(|_, sums| assert_eq!(sums.since(&seen[0].1).classes[2], 5));
        let mut failures = Vec::new();
        registry.backend_sums(|service| service == "s", |_, id, sums| failures.push((id.to_owned(), sums.failures)));
        assert_eq!(failures, [("a".to_owned(), 1)]);
    }

    #[test]
    fn counters_that_begin_anew_count_from_nothing() {
        let (now, then) = (Sums { failures: 2, ..Sums::default() }, Sums { failures: 9, ..Sums::default() });
        assert_eq!(now.since(&then).failures, 2);
    }
}
