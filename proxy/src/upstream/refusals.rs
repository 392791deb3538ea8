//! Going on to the next backend because one has not taken the connection: nothing of the request was sent there, so that going
//! on costs nobody anything. It is no retry: neither attempts nor the budget bound it, but candidates and time do.

use crate::error::ProxyError;
use crate::net::timer::Deadline;

/// Backends that one request may be offered to, retries included.
pub(crate) const CANDIDATES_MAX: u32 = 16;

/// How often a request was not taken, and how long that may go on.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// Backends that were asked.
    candidates: u32,
    /// Of them, those that came after one that had refused.
    walked: u32,
    /// When the connect time-out has passed since the first of those that refused in a row was asked.
    until: Deadline,
    /// The last one refused.
    walking: bool,
    /// What had made room until the backend was asked that was asked last, where that is counted.
    turnover: u64,
    /// The same for the last one that was full, if none was asked after it.
    full_at: Option<u64>,
    /// The release of a place of which others have been told.
    passed_on: Option<u64>,
    /// How long it may wait in the queue, once it has begun to.
    queue_until: Option<Deadline>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            candidates: 0,
            walked: 0,
            until: Deadline::NEVER,
            walking: false,
            turnover: 0,
            full_at: None,
            passed_on: None,
            queue_until: None,
        }
    }
}

/// What follows a try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next candidate, at once.
    GoOn,
    /// The next candidate, if a retry is allowed.
    Retry,
    /// Nobody else is asked.
    End,
}

impl Refusals {
    /// A backend is asked; `connect_timeout` as it would end from now on, `turnover` what has made room until now, where connections
    /// are limited.
    pub(crate) fn begin(&mut self, connect_timeout: Deadline, turnover: u64) {
        (self.turnover, self.full_at) = (turnover, None);
        self.candidates += 1;
        self.walked += u32::from(self.walking);
        if !self.walking {
            self.until = connect_timeout;
        }
    }

    /// The backend that was asked last is full: it counts for nothing. `releases` of places so far: others who wait are told once for
    /// each that this one had no use for it, so that nobody is woken in circles. `true`: now.
    pub(crate) fn handle_full(&mut self, releases: u64) -> bool {
        self.candidates -= 1;
        self.walked -= u32::from(self.walking);
        self.full_at = Some(self.turnover);
        self.passed_on.replace(releases) != Some(releases)
    }

    /// What had made room until the backend was asked that has just turned out to be full: until there is more, there is no use in
    /// asking again.
    pub(crate) fn full_at(&self) -> Option<u64> {
        self.full_at
    }

    /// When its time in the queue is over: `until` if it begins now, else what that was at its beginning.
    pub(crate) fn queue_until(&mut self, until: Deadline) -> Deadline {
        *self.queue_until.get_or_insert(until)
    }

    /// A backend has taken the connection: those that refused in a row are over.
    pub(crate) fn handle_taken(&mut self) {
        self.queue_until = None;
        self.walking = false;
    }

    /// When a connection has to be there, if the backend is asked only because another one has refused.
    pub(crate) fn limit(&self) -> Deadline {
        if self.walking { self.until } else { Deadline::NEVER }
    }

    /// Whether the time-out of this connect says less of the backend than one of its own: others had used up a part of it.
    pub(crate) fn cut_short(&self, error: ProxyError) -> bool {
        self.walking && error == ProxyError::ConnectTimeout
    }

    /// A try has failed in a way that allows another.
    pub(crate) fn handle_failure(&mut self, error: ProxyError, now: Deadline) -> Then {
        self.walking = error.was_not_taken() && now < self.until;
        match (self.candidates < CANDIDATES_MAX, self.walking) {
            (false, _) if error.was_not_taken() => Then::End,
            (true, true) => Then::GoOn,
            _ => {
                self.walking = false;
                Then::Retry
            }
        }
    }

    /// Tries that were no retries.
    pub(crate) fn walked(&self) -> u32 {
        self.walked
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
        let mut refusals = Refusals::default();
        for number in 1..=CANDIDATES_MAX {
            refusals.begin(timers.deadline(timeout), 0);
            let then = refusals.handle_failure(ProxyError::ConnectFailed, timers.now());
            assert_eq!(then, if number < CANDIDATES_MAX { Then::GoOn } else { Then::End }, "{number}");
        }
        assert_eq!(refusals.walked(), CANDIDATES_MAX - 1);
        // One that is full was not asked.
        let mut refusals = Refusals::default();
        for number in 0..2 * CANDIDATES_MAX {
            refusals.begin(timers.deadline(timeout), 0);
            assert_eq!(refusals.handle_full(7), number == 0);
        }
        refusals.begin(timers.deadline(timeout), 0);
        assert!(refusals.handle_full(8));
        refusals.begin(timers.deadline(timeout), 0);
        assert_eq!(refusals.handle_failure(ProxyError::ConnectFailed, timers.now()), Then::GoOn);
        refusals.begin(timers.deadline(timeout), 0);
        refusals.handle_full(0);
        refusals.begin(timers.deadline(timeout), 0);
        assert_eq!(refusals.walked(), 1);
        // Nothing is asked again before something has made room since it was asked before.
        refusals.begin(timers.deadline(timeout), 3);
        assert_eq!(refusals.full_at(), None);
        refusals.handle_full(9);
        assert_eq!(refusals.full_at(), Some(3));
        refusals.begin(timers.deadline(timeout), 4);
        assert_eq!(refusals.full_at(), None);
        // Time in the queue goes on until a backend has taken the connection.
        let until = timers.deadline(timeout);
        assert_eq!(refusals.queue_until(until), until);
        assert_eq!(refusals.queue_until(Deadline::NEVER), until);
        refusals.handle_taken();
        assert_eq!(refusals.queue_until(Deadline::NEVER), Deadline::NEVER);
        // The time runs from the first on.
        let mut refusals = Refusals::default();
        refusals.begin(timers.deadline(timeout), 0);
        assert_eq!(refusals.limit(), Deadline::NEVER);
        assert_eq!(refusals.handle_failure(ProxyError::ConnectFailed, timers.now()), Then::GoOn);
        let limit = refusals.limit();
        timers.advance(start + timeout / 2);
        refusals.begin(timers.deadline(timeout), 0);
        assert_eq!(refusals.limit(), limit);
        assert!(refusals.cut_short(ProxyError::ConnectTimeout));
        timers.advance(start + timeout * 2);
        assert_eq!(refusals.handle_failure(ProxyError::ConnectTimeout, timers.now()), Then::Retry);
        // A row ends where one takes the connection: what comes after it is a try of its own, with a time of its own.
        let mut refusals = Refusals::default();
        refusals.begin(timers.deadline(timeout), 0);
        assert_eq!(refusals.handle_failure(ProxyError::ConnectFailed, timers.now()), Then::GoOn);
        refusals.begin(timers.deadline(timeout), 0);
        refusals.handle_taken();
        refusals.begin(timers.deadline(timeout), 0);
        assert_eq!((refusals.walked(), refusals.limit()), (1, Deadline::NEVER));
        // What was sent is retried as retries are; it is nobody's refusal.
        refusals.begin(timers.deadline(timeout), 0);
        assert_eq!(refusals.handle_failure(ProxyError::UpstreamClosed, timers.now()), Then::Retry);
        assert_eq!(refusals.walked(), 1);
    }
}
