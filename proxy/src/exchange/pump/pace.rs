//! Which side an exchange waits for, and for how long: pauses are limited on either side, and a client must keep a minimum rate. All of
//! it is judged when the timer fires, not per byte.

use crate::net::timer::{Deadline, Timer};
use ringway_config::model::ClientTimeouts;
use std::time::Duration;

/// The side that has to act next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Party {
    Client,
    Backend,
}

/// Limits for a client in one direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Longest pause.
    idle: Duration,
    /// Bytes that must move in each window.
    window_bytes: u64,
    window: Duration,
}

impl Terms {
    /// `measured`: whether the rate counts too.
    pub(super) fn of_reading(timeouts: &ClientTimeouts, measured: bool) -> Self {
        Self::new(timeouts.body_idle, timeouts.read_rate_min, timeouts.rate_window, measured)
    }

    pub(super) fn of_writing(timeouts: &ClientTimeouts, measured: bool) -> Self {
        Self::new(timeouts.write_idle, timeouts.write_rate_min, timeouts.rate_window, measured)
    }

    fn new(idle: Duration, rate_min: u32, window: Duration, measured: bool) -> Self {
        let bytes = if measured { window.as_secs_f64() * f64::from(rate_min) } else { 0.0 };
        Self { idle, window_bytes: bytes.ceil() as u64, window }
    }
}

/// The wait of one direction of an exchange.
pub(super) struct Pace {
    waits_for: Option<Party>,
    /// End of the pause.
    idle: Deadline,
    /// End of the window in which a client's rate is measured, and the bytes moved when it began.
    window: Deadline,
    mark: u64,
    /// End of all waiting for the client.
    total: Deadline,
}

impl Pace {
    /// `total`: how long the client may take altogether; zero is no limit.
    pub(super) fn new(timer: &Timer, total: Duration) -> Self {
        let never = Deadline::NEVER;
        Self { waits_for: None, idle: never, window: never, mark: 0, total: timer.deadline(total) }
    }

    /// The exchange waits for `party`, and `moved` bytes have gone the client's way so far. `progress`: the party has just made
    /// progress.
    pub(super) fn wait(
        &mut self,
        timer: &Timer,
        party: Party,
        (moved, progress): (u64, bool),
        (terms, backend_idle): (&Terms, Duration),
        limit: Deadline,
    ) {
        let turned = self.waits_for.replace(party) != Some(party);
        if turned {
            self.window = Deadline::NEVER;
        }
        if party == Party::Client && terms.window_bytes > 0 && self.window == Deadline::NEVER {
            (self.window, self.mark) = (timer.deadline(terms.window), moved);
        }
        if turned || progress {
            self.idle = timer.deadline(if party == Party::Client { terms.idle } else { backend_idle });
            self.arm(timer, limit);
        }
    }

    fn arm(&self, timer: &Timer, limit: Deadline) {
        let total = if self.waits_for == Some(Party::Client) { self.total } else { Deadline::NEVER };
        timer.set_before(Duration::ZERO, self.idle.min(self.window).min(total).min(limit));
    }

    /// The timer has fired. `true`: the time of the party that is waited for is over; `false`: the client keeps pace, and the timer
    /// runs again.
    pub(super) fn is_over(&mut self, timer: &Timer, moved: u64, terms: &Terms, limit: Deadline) -> bool {
        let now = timer.now();
        let kept = now >= self.window && moved.saturating_sub(self.mark) >= terms.window_bytes;
        let client = self.waits_for == Some(Party::Client);
        if !kept || now >= self.idle || now >= limit || client && now >= self.total {
            return true;
        }
        (self.window, self.mark) = (timer.deadline(terms.window), moved);
        self.arm(timer, limit);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::timer::Timers;
    use std::task::{Context, Waker};

    /// One step a second: `moved(second)` bytes so far. Returns the second in which it was over.
    fn over_at(terms: &Terms, total: Duration, moved: impl Fn(u64) -> u64, seconds: u64) -> Option<u64> {
        let begin = crate::ambient::now();
        let timers = Timers::new(begin);
        let timer = timers.timer();
        let mut pace = Pace::new(&timer, total);
        let (backend, never) = (Duration::from_secs(1000), Deadline::NEVER);
        pace.wait(&timer, Party::Client, (moved(0), true), (terms, backend), never);
        for second in 1..=seconds {
            timers.advance(begin + Duration::from_secs(second));
            if timer.poll_fired(&Context::from_waker(Waker::noop()))
                && pace.is_over(&timer, moved(second), terms, never)
            {
                return Some(second);
            }
            let progress = moved(second) > moved(second - 1);
            pace.wait(&timer, Party::Client, (moved(second), progress), (terms, backend), never);
        }
        None
    }

    #[test]
    fn pauses_trickles_and_totals_end_and_ordinary_lines_do_not() {
        let timeouts = ClientTimeouts {
            body_idle: Duration::from_secs(30),
            read_rate_min: 16,
            rate_window: Duration::from_secs(10),
            ..ClientTimeouts::default()
        };
        let terms = Terms::of_reading(&timeouts, true);
        let none = Duration::ZERO;
        // A byte a second; 20 a second; a burst each 8 seconds; nothing at all.
        assert!(over_at(&terms, none, |second| second, 100).is_some_and(|second| (10..=12).contains(&second)));
        assert_eq!(over_at(&terms, none, |second| second * 20, 1000), None);
        assert_eq!(over_at(&terms, none, |second| second / 8 * 400, 1000), None);
        assert!(over_at(&terms, none, |_| 0, 100).is_some_and(|second| second <= 12));
        // It begins well, and trickles then.
        assert!(over_at(&terms, none, |second| 1000 * second.min(20) + second, 100).is_some_and(|second| second <= 42));
        // Without a rate, only pauses count, and the total time where that is limited.
        let unmeasured = Terms::of_reading(&timeouts, false);
        assert_eq!(over_at(&unmeasured, none, |second| second / 20, 200), None);
        assert!(over_at(&unmeasured, none, |_| 0, 100).is_some_and(|second| (30..=32).contains(&second)));
        let whole = over_at(&terms, Duration::from_secs(50), |second| second * 1000, 100);
        assert!(whole.is_some_and(|second| (50..=52).contains(&second)));
    }

    #[test]
    fn time_that_the_backend_takes_is_not_the_clients() {
        let begin = crate::ambient::now();
        let timers = Timers::new(begin);
        let timer = timers.timer();
        let timeouts = ClientTimeouts {
            body_idle: Duration::from_secs(30),
            read_rate_min: 16,
            rate_window: Duration::from_secs(10),
            ..ClientTimeouts::default()
        };
        let terms = Terms::of_reading(&timeouts, true);
        let mut pace = Pace::new(&timer, Duration::ZERO);
        for second in 0..100 {
            timers.advance(begin + Duration::from_secs(second));
            let party = if second % 9 == 8 { Party::Client } else { Party::Backend };
            pace.wait(&timer, party, (0, true), (&terms, Duration::from_secs(20)), Deadline::NEVER);
            assert!(!timer.poll_fired(&Context::from_waker(Waker::noop())), "{second}");
        }
    }
}
