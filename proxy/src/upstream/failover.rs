//! Failover to the next candidate after a connect that failed: nothing of the request was sent there, so it is safe for every request.
//! It is no retry: neither attempts nor the budget bound it, but candidates and time do.

use crate::error::ProxyError;
use crate::net::timer::Deadline;

/// Backends that one request may try, retries included.
pub(crate) const CANDIDATES_MAX: u32 = 16;

/// How often a request was not taken, and how long that may go on.
#[derive(Debug)]
pub(crate) struct Failover {
    /// Backends that were tried.
    candidates: u32,
    /// Of them, those that came after one that had refused.
    failed_over: u32,
    /// When the connect time-out has passed since the first of those that refused in a row was tried.
    until: Deadline,
    /// The last one refused.
    failing_over: bool,
    /// The turnover (count of what may have made room) when the last backend was tried, where that is counted.
    turnover: u64,
    /// The same for the last one that was full, if none was tried after it.
    full_at: Option<u64>,
    /// The release of a reservation of which others have been notified.
    passed_on: Option<u64>,
    /// How long it may wait in the queue, once it has begun to.
    queue_until: Option<Deadline>,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            candidates: 0,
            failed_over: 0,
            until: Deadline::NEVER,
            failing_over: false,
            turnover: 0,
            full_at: None,
            passed_on: None,
            queue_until: None,
        }
    }
}

/// What follows an attempt that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next candidate, at once.
    NextCandidate,
    /// The next candidate, if a retry is allowed.
    Retry,
    /// No other backend is tried.
    End,
}

impl Failover {
    /// A backend is tried; `connect_timeout` as it would end from now on, `turnover` the count so far of what may have made room,
    /// where connections are limited.
    pub(crate) fn begin(&mut self, connect_timeout: Deadline, turnover: u64) {
        (self.turnover, self.full_at) = (turnover, None);
        self.candidates += 1;
        self.failed_over += u32::from(self.failing_over);
        if !self.failing_over {
            self.until = connect_timeout;
        }
    }

    /// The backend that was tried last is full: it counts for nothing. `releases` of reservations so far: other waiting requests
    /// are notified once for each that this one had no use for, so that none is woken in circles. `true`: now.
    pub(crate) fn handle_full(&mut self, releases: u64) -> bool {
        self.candidates -= 1;
        self.failed_over -= u32::from(self.failing_over);
        self.full_at = Some(self.turnover);
        self.passed_on.replace(releases) != Some(releases)
    }

    /// The turnover when the backend was tried that has just turned out to be full: until it moves, there is no use in trying
    /// again.
    pub(crate) fn full_at(&self) -> Option<u64> {
        self.full_at
    }

    /// When its time in the queue is over: `until` if it begins now, else the end that was set at its beginning.
    pub(crate) fn queue_until(&mut self, until: Deadline) -> Deadline {
        *self.queue_until.get_or_insert(until)
    }

    /// A backend has taken the connection: the row of failover is over.
    pub(crate) fn handle_taken(&mut self) {
        self.queue_until = None;
        self.failing_over = false;
    }

    /// When a connection has to be there, if the backend is tried only because another one has refused.
    pub(crate) fn limit(&self) -> Deadline {
        if self.failing_over { self.until } else { Deadline::NEVER }
    }

    /// Whether the time-out of this connect says less about the backend than a full one: others had used up a part of it.
    pub(crate) fn cut_short(&self, error: ProxyError) -> bool {
        self.failing_over && error == ProxyError::ConnectTimeout
    }

    /// An attempt has failed in a way that allows another.
    pub(crate) fn handle_failure(&mut self, error: ProxyError, now: Deadline) -> Then {
        self.failing_over = error.was_not_taken() && now < self.until;
        match (self.candidates < CANDIDATES_MAX, self.failing_over) {
            (false, _) if error.was_not_taken() => Then::End,
            (true, true) => Then::NextCandidate,
            _ => {
                self.failing_over = false;
                Then::Retry
            }
        }
    }

    /// Attempts that were no retries.
    pub(crate) fn failed_over(&self) -> u32 {
        self.failed_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::timer::Timers;
    use std::time::Duration;

    #[test]
    fn refused_connects_go_on_until_time_or_candidates_end() {
        let start = crate::ambient::now();
        let timers = Timers::new(start);
        let timeout = Duration::from_secs(1);
        let mut failover = Failover::default();
        for number in 1..=CANDIDATES_MAX {
            failover.begin(timers.deadline(timeout), 0);
            let then = failover.handle_failure(ProxyError::ConnectFailed, timers.now());
            assert_eq!(then, if number < CANDIDATES_MAX { Then::NextCandidate } else { Then::End }, "{number}");
        }
        assert_eq!(failover.failed_over(), CANDIDATES_MAX - 1);
        // A backend that is full was not tried.
        let mut failover = Failover::default();
        for number in 0..2 * CANDIDATES_MAX {
            failover.begin(timers.deadline(timeout), 0);
            assert_eq!(failover.handle_full(7), number == 0);
        }
        failover.begin(timers.deadline(timeout), 0);
        assert!(failover.handle_full(8));
        failover.begin(timers.deadline(timeout), 0);
        assert_eq!(failover.handle_failure(ProxyError::ConnectFailed, timers.now()), Then::NextCandidate);
        failover.begin(timers.deadline(timeout), 0);
        failover.handle_full(0);
        failover.begin(timers.deadline(timeout), 0);
        assert_eq!(failover.failed_over(), 1);
        // No backend is tried again before something has made room since it was tried before.
        failover.begin(timers.deadline(timeout), 3);
        assert_eq!(failover.full_at(), None);
        failover.handle_full(9);
        assert_eq!(failover.full_at(), Some(3));
        failover.begin(timers.deadline(timeout), 4);
        assert_eq!(failover.full_at(), None);
        // Time in the queue goes on until a backend has taken the connection.
        let until = timers.deadline(timeout);
        assert_eq!(failover.queue_until(until), until);
        assert_eq!(failover.queue_until(Deadline::NEVER), until);
        failover.handle_taken();
        assert_eq!(failover.queue_until(Deadline::NEVER), Deadline::NEVER);
        // The time runs from the first on.
        let mut failover = Failover::default();
        failover.begin(timers.deadline(timeout), 0);
        assert_eq!(failover.limit(), Deadline::NEVER);
        assert_eq!(failover.handle_failure(ProxyError::ConnectFailed, timers.now()), Then::NextCandidate);
        let limit = failover.limit();
        timers.advance(start + timeout / 2);
        failover.begin(timers.deadline(timeout), 0);
        assert_eq!(failover.limit(), limit);
        assert!(failover.cut_short(ProxyError::ConnectTimeout));
        timers.advance(start + timeout * 2);
        assert_eq!(failover.handle_failure(ProxyError::ConnectTimeout, timers.now()), Then::Retry);
        // A row ends where a backend takes the connection: what comes after it is an attempt of its own, with a time of its own.
        let mut failover = Failover::default();
        failover.begin(timers.deadline(timeout), 0);
        assert_eq!(failover.handle_failure(ProxyError::ConnectFailed, timers.now()), Then::NextCandidate);
        failover.begin(timers.deadline(timeout), 0);
        failover.handle_taken();
        failover.begin(timers.deadline(timeout), 0);
        assert_eq!((failover.failed_over(), failover.limit()), (1, Deadline::NEVER));
        // A request that was sent is retried as retries are; it is no refusal.
        failover.begin(timers.deadline(timeout), 0);
        assert_eq!(failover.handle_failure(ProxyError::UpstreamClosed, timers.now()), Then::Retry);
        assert_eq!(failover.failed_over(), 1);
    }
}
