//! When connections to a backend are opened before a request needs one (`pool.idle_min`), as one worker decides for itself.

use crate::net::timer::{Deadline, Timers};
use std::cell::Cell;
use std::time::Duration;

/// Connections of one worker to one backend that are begun at once.
const BEGUN_MAX: u32 = 4;
/// Wait after a failure, doubled with each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What a worker knows of the connections that it opens ahead to one backend.
#[derive(Default)]
pub(crate) struct Ahead {
    under_way: Cell<u32>,
    /// On end.
    failures: Cell<u32>,
    not_before: Cell<Option<Deadline>>,
}

/// This worker's part of so many idle connections. `turn`, the backend's place, has it that what cannot be divided is not always the
/// first workers'.
pub(crate) fn part_of(idle_min: u32, worker: usize, workers: usize, turn: usize) -> u32 {
    let (workers, place) = (workers.max(1) as u32, ((worker + turn) % workers.max(1)) as u32);
    idle_min / workers + u32::from(place < idle_min % workers)
}

impl Ahead {
    /// How many are to be begun now, of `wanted`, of which there are `idle`. After a failure one is tried before the others.
    pub(crate) fn due(&self, wanted: u32, idle: u32, timers: &Timers) -> u32 {
        let under_way = self.under_way.get();
        let most = if self.failures.get() > 0 { 1 } else { BEGUN_MAX };
        let waits = self.not_before.get().is_some_and(|not_before| timers.now() < not_before);
        if waits { 0 } else { wanted.saturating_sub(idle + under_way).min(most.saturating_sub(under_way)) }
    }

    /// One begins.
    pub(crate) fn begin(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    /// One of them is over. `is_open`: whether it is open now; none where it was not tried.
    pub(crate) fn end(&self, is_open: Option<bool>, timers: &Timers, random: u64) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
        match is_open {
            None => {}
            Some(true) => {
                self.failures.set(0);
                self.not_before.set(None);
            }
            Some(false) => {
                let failures = self.failures.get();
                let pause = (PAUSE_MIN * (1 << failures.min(6))).min(PAUSE_MAX);
                // Up to a half less, so that not all come back at once.
                self.not_before.set(Some(timers.deadline(pause - pause / 2 * (random % 1001) as u32 / 1000)));
                self.failures.set(failures.saturating_add(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;

    #[test]
    fn workers_have_parts_that_differ_by_one_at_most_and_are_the_whole_together() {
        for (idle_min, workers) in [(1, 4), (4, 4), (7, 4), (2, 3), (100, 7)] {
            for turn in 0..5 {
                let parts: Vec<u32> = (0..workers).map(|worker| part_of(idle_min, worker, workers, turn)).collect();
                assert_eq!(parts.iter().sum::<u32>(), idle_min, "{parts:?}");
                assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1, "{parts:?}");
            }
        }
        let alone: Vec<usize> =
            (0..4).filter_map(|turn| (0..4).find(|&worker| part_of(1, worker, 4, turn) == 1)).collect();
        assert_eq!(alone, [0, 3, 2, 1]);
    }

    #[test]
    fn a_few_are_begun_at_once_and_no_more_than_are_missing() {
        let (ahead, timers) = (Ahead::default(), Timers::new(ambient::now()));
        assert_eq!(
            [(0, 0), (2, 0), (2, 2), (2, 5), (9, 0)].map(|(wanted, idle)| ahead.due(wanted, idle, &timers)),
            [0, 2, 0, 0, 4]
        );
        (0..3).for_each(|_| ahead.begin());
        assert_eq!([(3, 0), (4, 0), (9, 0)].map(|(wanted, idle)| ahead.due(wanted, idle, &timers)), [0, 1, 1]);
        ahead.end(Some(true), &timers, 0);
        ahead.end(None, &timers, 0);
        assert_eq!(ahead.due(9, 1, &timers), 3);
    }

    #[test]
    fn after_failures_one_is_tried_after_pauses_that_grow_to_a_minute() {
        let begin = ambient::now();
        let (ahead, timers) = (Ahead::default(), Timers::new(begin));
        let mut now = begin;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            ahead.begin();
            ahead.end(Some(false), &timers, 0);
            let failed = now;
            while ahead.due(9, 0, &timers) == 0 {
                now += Duration::from_millis(50);
                timers.advance(now);
            }
            assert_eq!(ahead.due(9, 0, &timers), 1);
            pauses.push((now - failed).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        ahead.begin();
        ahead.end(Some(true), &timers, 0);
        assert_eq!(ahead.due(9, 1, &timers), 4);
        // Drawn, a pause is half as long at least.
        ahead.begin();
        ahead.end(Some(false), &timers, 1000);
        timers.advance(now + Duration::from_millis(450));
        assert_eq!(ahead.due(9, 0, &timers), 0);
        timers.advance(now + Duration::from_millis(700));
        assert_eq!(ahead.due(9, 0, &timers), 1);
    }
}
