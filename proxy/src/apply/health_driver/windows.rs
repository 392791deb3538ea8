//! Windows of the statistical detectors: what each backend has done from one end to the next.

use ringway_health::{Window, mean_latency_micros};
use ringway_telemetry::counters::BackendTotals;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The windows of one service.
pub(super) struct Windows {
    /// Numbers of the backends at the last window's end.
    totals: HashMap<String, BackendTotals>,
    next: Instant,
}

impl Windows {
    pub(super) fn new(now: Instant) -> Self {
        Self { totals: HashMap::new(), next: now }
    }

    /// When the window ends.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// No detector needs windows: the next that does begins with its first.
    pub(super) fn forget(&mut self) {
        self.totals.clear();
    }

    /// At the end of a window, gives what each backend has done in it. A backend that was not there at its beginning has no
    /// window yet. `None`: it has not ended.
    pub(super) fn poll<'a>(
        &mut self,
        totals: impl Iterator<Item = (&'a str, BackendTotals)>,
        interval: Duration,
        now: Instant,
    ) -> Option<Vec<Window<'a>>> {
        if self.next > now {
            return None;
        }
        self.next = now + interval;
        let mut windows = Vec::new();
        let mut at_end = HashMap::new();
        for (id, total) in totals {
            windows.extend(self.totals.get(id).map(|before| window(id, before, &total)));
            at_end.insert(id.to_owned(), total);
        }
        self.totals = at_end;
        Some(windows)
    }
}

fn window<'a>(id: &'a str, before: &BackendTotals, after: &BackendTotals) -> Window<'a> {
    // Counters of a backend that was away meanwhile begin anew.
    let since = |pick: fn(&BackendTotals) -> u64| pick(after).saturating_sub(pick(before));
    Window {
        id,
        requests: since(|totals| totals.requests),
        failures: since(|totals| totals.failures),
        latency_micros: mean_latency_micros(
            (since(|totals| totals.timed), since(|totals| totals.latency_micros)),
            (since(|totals| totals.cut), since(|totals| totals.cut_micros)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn totals(requests: u64, failures: u64) -> BackendTotals {
        BackendTotals {
            requests,
            failures,
            timed: requests,
            latency_micros: requests * 500,
            ..BackendTotals::default()
        }
    }

    /// Id, requests and failures of each window.
    fn ends<'a>(
        windows: &mut Windows,
        backends: &[(&'a str, u64, u64)],
        now: Instant,
    ) -> Option<Vec<(&'a str, u64, u64)>> {
        let backends = backends.iter().map(|&(id, requests, failures)| (id, totals(requests, failures)));
        let ended = windows.poll(backends, INTERVAL, now)?;
        Some(ended.iter().map(|window| (window.id, window.requests, window.failures)).collect())
    }

    #[test]
    fn a_window_has_what_was_done_since_the_last_one_ended() {
        let begin = ambient::now();
        let mut windows = Windows::new(begin);
        assert_eq!(ends(&mut windows, &[("a", 100, 9)], begin), Some(vec![]), "nothing to compare with");
        assert_eq!(ends(&mut windows, &[("a", 105, 9)], begin + INTERVAL / 2), None);
        assert_eq!(windows.next(), begin + INTERVAL);
        let second = begin + INTERVAL;
        assert_eq!(ends(&mut windows, &[("a", 130, 10), ("b", 7, 7)], second), Some(vec![("a", 30, 1)]));
        let third = second + INTERVAL;
        assert_eq!(ends(&mut windows, &[("a", 130, 10), ("b", 8, 7)], third), Some(vec![("a", 0, 0), ("b", 1, 0)]));
    }

    #[test]
    fn a_backend_whose_counters_begin_anew_has_done_nothing_and_one_that_was_away_is_new() {
        let begin = ambient::now();
        let mut windows = Windows::new(begin);
        ends(&mut windows, &[("a", 100, 50), ("b", 100, 50)], begin);
        assert_eq!(ends(&mut windows, &[("a", 3, 3)], begin + INTERVAL), Some(vec![("a", 0, 0)]));
        assert_eq!(ends(&mut windows, &[("b", 900, 800)], begin + INTERVAL * 2), Some(vec![]));
    }

    #[test]
    fn a_detector_that_is_turned_on_again_does_not_judge_by_what_was_before() {
        let begin = ambient::now();
        let mut windows = Windows::new(begin);
        ends(&mut windows, &[("a", 100, 0)], begin);
        windows.forget();
        assert_eq!(ends(&mut windows, &[("a", 900, 800)], begin + INTERVAL), Some(vec![]));
    }

    #[test]
    fn latency_is_the_mean_of_what_was_timed_in_the_window() {
        let slow = BackendTotals { timed: 12, latency_micros: 10 * 500 + 2 * 9_000, ..totals(12, 0) };
        assert_eq!(window("a", &totals(10, 0), &slow).latency_micros, 9_000);
    }
}
