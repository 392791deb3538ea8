//! When connections to a backend are opened before a request needs one (`pool.idle_min`), as one worker decides for itself.

use crate::net::timer::{Deadline, Timers};
use std::cell::Cell;
use std::time::Duration;

/// Connections of one worker to one backend that are begun at once.
const BEGUN_MAX: u32 = 4;
/// And to all backends.
const UNDER_WAY_MAX: u32 = 64;
/// Wait after a failure, doubled with each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Nothing is opened ahead for so long after this host was short of something.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(5);

/// What a worker opens ahead to all backends together.
#[derive(Default)]
pub(crate) struct Openings {
    under_way: Cell<u32>,
    /// The backend at which the last look had to stop, counted over all services.
    cursor: Cell<usize>,
    not_before: Cell<Option<Deadline>>,
}

/// What a worker knows of the connections that it opens ahead to one backend.
#[derive(Default)]
pub(crate) struct Ahead {
    under_way: Cell<u32>,
    /// On end.
    failures: Cell<u32>,
    not_before: Cell<Option<Deadline>>,
    /// Number of the look that began the last ones, and of the one after which a failure counts: those begun at once fail as one.
    look: Cell<u32>,
    fails_from: Cell<u32>,
    /// Opened since the last look, and what that look has seen.
    opened: Cell<u32>,
    seen: Cell<Seen>,
}

/// What a look sees of one backend.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) idle: u32,
    /// Sent to it by this worker so far.
    pub(crate) requests: u64,
}

/// This worker's part of so many idle connections. `turn`, a hash of the backend's id, has it that what cannot be divided is not always
/// the first workers', and stays where it is when other backends come and go.
pub(crate) fn part_of(idle_min: u32, worker: usize, workers: usize, turn: u64) -> u32 {
    let workers = workers.max(1) as u32;
    let place = (worker as u64 + turn % u64::from(workers)) % u64::from(workers);
    idle_min / workers + u32::from(place < u64::from(idle_min % workers))
}

impl Openings {
    /// Whether one more may begin.
    pub(crate) fn has_room(&self) -> bool {
        self.under_way.get() < UNDER_WAY_MAX
    }

    /// Not so soon after a shortage.
    pub(crate) fn is_paused(&self, timers: &Timers) -> bool {
        self.not_before.get().is_some_and(|not_before| timers.now() < not_before)
    }

    /// This host was short of something.
    pub(crate) fn handle_shortage(&self, timers: &Timers) {
        self.not_before.set(Some(timers.deadline(SHORTAGE_PAUSE)));
    }

    /// Which backend of so many comes first.
    pub(crate) fn first(&self, backends: usize) -> usize {
        self.cursor.get().checked_rem(backends).unwrap_or(0)
    }

    /// The look could go no further than to this one.
    pub(crate) fn stop_at(&self, backend: usize) {
        self.cursor.set(backend);
    }

    /// One begins; see [`Openings::end`].
    pub(crate) fn begin(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    /// One is over, however it ended.
    pub(crate) fn end(&self) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
    }
}

impl Ahead {
    /// How many are to be begun now, of `wanted`. After a failure one is tried before the others. What was opened since the last look and
    /// has closed by itself meanwhile is a failure too.
    pub(crate) fn due(&self, wanted: u32, seen: Seen, timers: &Timers, random: u64) -> u32 {
        let before = self.seen.replace(seen);
        if self.opened.take() > 0 {
            if seen.idle > before.idle || seen.requests != before.requests {
                self.reset();
            } else {
                self.fail(timers, random);
            }
        }
        let under_way = self.under_way.get();
        let most = if self.failures.get() > 0 { 1 } else { BEGUN_MAX };
        let waits = self.not_before.get().is_some_and(|not_before| timers.now() < not_before);
        if waits { 0 } else { wanted.saturating_sub(seen.idle + under_way).min(most.saturating_sub(under_way)) }
    }

    /// Some begin; gives the number of the look.
    pub(crate) fn next_look(&self) -> u32 {
        self.look.set(self.look.get().wrapping_add(1));
        self.look.get()
    }

    /// One begins; see [`Ahead::end`].
    pub(crate) fn begin(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    /// One is over, however it ended.
    pub(crate) fn end(&self) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
    }

    /// One is open. Whether that is a success is seen at the next look.
    pub(crate) fn handle_open(&self) {
        self.opened.set(self.opened.get() + 1);
    }

    /// One that this look has begun has failed.
    pub(crate) fn handle_failure(&self, look: u32, timers: &Timers, random: u64) {
        if look >= self.fails_from.get() {
            self.fail(timers, random);
        }
    }

    fn fail(&self, timers: &Timers, random: u64) {
        let failures = self.failures.get();
        let pause = (PAUSE_MIN * (1 << failures.min(6))).min(PAUSE_MAX);
        // Up to a half less, so that not all come back at once.
        self.not_before.set(Some(timers.deadline(pause - pause / 2 * (random % 1001) as u32 / 1000)));
        self.failures.set(failures.saturating_add(1));
        self.fails_from.set(self.look.get().saturating_add(1));
    }

    /// What has failed counts no more: a connection stands, or the backend is down by now, and has to come up again.
    pub(crate) fn reset(&self) {
        self.failures.set(0);
        self.not_before.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;

    fn idle(idle: u32) -> Seen {
        Seen { idle, requests: 0 }
    }

    #[test]
    fn workers_have_parts_that_differ_by_one_at_most_and_are_the_whole_together() {
        for (idle_min, workers) in [(1, 4), (4, 4), (7, 4), (2, 3), (100, 7)] {
            for turn in [0, 1, 2, 3, 4, u64::MAX] {
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
        let due = |wanted: u32, seen: u32| ahead.due(wanted, idle(seen), &timers, 0);
        assert_eq!([(0, 0), (2, 0), (2, 2), (2, 5), (9, 0)].map(|(wanted, seen)| due(wanted, seen)), [0, 2, 0, 0, 4]);
        (0..3).for_each(|_| ahead.begin());
        assert_eq!([(3, 0), (4, 0), (9, 0)].map(|(wanted, seen)| due(wanted, seen)), [0, 1, 1]);
        (0..2).for_each(|_| ahead.end());
        ahead.handle_open();
        assert_eq!(due(9, 1), 3);
    }

    #[test]
    fn a_worker_has_so_many_under_way_to_all_backends_and_none_just_after_a_shortage() {
        let begin = ambient::now();
        let (openings, timers) = (Openings::default(), Timers::new(begin));
        (0..UNDER_WAY_MAX).for_each(|_| {
            assert!(openings.has_room());
            openings.begin();
        });
        assert!(!openings.has_room() && !openings.is_paused(&timers));
        openings.end();
        assert!(openings.has_room());
        openings.stop_at(7);
        assert_eq!([openings.first(10), openings.first(5), openings.first(0)], [7, 2, 0]);
        openings.handle_shortage(&timers);
        assert!(openings.is_paused(&timers));
        timers.advance(begin + SHORTAGE_PAUSE + Duration::from_secs(1));
        assert!(!openings.is_paused(&timers));
    }

    /// Lets one look pass after the other, each of which begins one that fails as told, and gives the pauses between.
    fn pauses(ahead: &Ahead, count: usize, fails: impl Fn(&Ahead, u32, &Timers)) -> Vec<u64> {
        let mut now = ambient::now();
        let timers = Timers::new(now);
        let mut pauses = Vec::new();
        for _ in 0..count {
            let look = ahead.next_look();
            fails(ahead, look, &timers);
            let failed = now;
            while ahead.due(9, idle(0), &timers, 0) == 0 {
                now += Duration::from_millis(50);
                timers.advance(now);
            }
            assert_eq!(ahead.due(9, idle(0), &timers, 0), 1);
            pauses.push((now - failed).as_secs());
        }
        pauses
    }

    #[test]
    fn after_failures_one_is_tried_after_pauses_that_grow_to_a_minute_and_those_begun_at_once_fail_as_one() {
        let ahead = Ahead::default();
        let fails = |ahead: &Ahead, look: u32, timers: &Timers| {
            (0..4).for_each(|_| ahead.handle_failure(look, timers, 0));
        };
        assert_eq!(pauses(&ahead, 9, fails), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let timers = Timers::new(ambient::now());
        ahead.reset();
        assert_eq!(ahead.due(9, idle(1), &timers, 0), 4);
    }

    #[test]
    fn one_that_has_closed_by_the_next_look_has_failed_unless_a_request_has_had_it() {
        let ahead = Ahead::default();
        assert_eq!(pauses(&ahead, 3, |ahead, _, _| ahead.handle_open()), [1, 2, 4]);
        let timers = Timers::new(ambient::now());
        ahead.handle_open();
        assert_eq!(ahead.due(9, Seen { idle: 0, requests: 1 }, &timers, 0), 4);
        ahead.handle_open();
        assert_eq!(ahead.due(9, Seen { idle: 1, requests: 1 }, &timers, 0), 4);
    }

    #[test]
    fn drawn_a_pause_is_half_as_long_at_least() {
        let begin = ambient::now();
        let (ahead, timers) = (Ahead::default(), Timers::new(begin));
        ahead.handle_failure(ahead.next_look(), &timers, 1000);
        timers.advance(begin + Duration::from_millis(450));
        assert_eq!(ahead.due(9, idle(0), &timers, 0), 0);
        timers.advance(begin + Duration::from_millis(700));
        assert_eq!(ahead.due(9, idle(0), &timers, 0), 1);
    }
}
