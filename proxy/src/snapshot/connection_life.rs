//! How long a connection to a backend lives that carries many requests: until it is so old, or has carried so many.
//!
//! Neither cuts anything off: what a connection carries ends as it would, and nothing new is sent on it.

use crate::net::timer::{Deadline, Timers};
use ringway_config::model::Pool;

/// Largest part, in thousandths, by which a connection's limits are lowered: connections that were opened together do not end together.
const JITTER_MAX: u64 = 100;

/// What is known of one connection. By default, nothing that would end it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLife {
    opened: Deadline,
    /// Requests that it has carried, or carries.
    requests: u32,
    /// In thousandths.
    jitter: u32,
}

impl Default for ConnectionLife {
    fn default() -> Self {
        Self { opened: Deadline::NEVER, requests: 0, jitter: 0 }
    }
}

impl ConnectionLife {
    /// Begins now. Its part of the jitter is drawn where there is a limit.
    pub(crate) fn begin(limits: &Pool, now: Deadline, draw: impl FnOnce() -> u64) -> Self {
        let jitter = if is_limited(limits) { draw() % (JITTER_MAX + 1) } else { 0 };
        Self { opened: now, requests: 0, jitter: jitter as u32 }
    }

    /// Begins again.
    pub(crate) fn renew(&mut self, now: Deadline) {
        (self.opened, self.requests) = (now, 0);
    }

    /// It carries one more request.
    pub(crate) fn count_request(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// Whether it takes no more requests, by the limits that hold now.
    #[inline]
    pub(crate) fn is_over(&self, limits: &Pool, timers: &Timers) -> bool {
        is_limited(limits) && self.has_reached(limits, timers)
    }

    #[cold]
    fn has_reached(&self, limits: &Pool, timers: &Timers) -> bool {
        let Pool { age_max, requests_max, .. } = *limits;
        let fewer = u64::from(requests_max) * u64::from(self.jitter) / 1000;
        let too_many = requests_max < u32::MAX && u64::from(self.requests) >= u64::from(requests_max) - fewer;
        let age = age_max.saturating_sub(age_max / 1000 * self.jitter);
        too_many || !age_max.is_zero() && self.opened < timers.before(age)
    }
}

fn is_limited(limits: &Pool) -> bool {
    limits.requests_max < u32::MAX || !limits.age_max.is_zero()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(age_max: Duration, requests_max: u32) -> Pool {
        Pool { idle_max: 8, idle_min: 0, idle_timeout: SECOND * 30, age_max, requests_max, streams_max: 100 }
    }

    #[test]
    fn without_limits_a_connection_lives_on() {
        let begin = ambient::now();
        let timers = Timers::new(begin);
        let none = limits(Duration::ZERO, u32::MAX);
        let mut life = ConnectionLife::begin(&none, timers.now(), || unreachable!("nothing is drawn"));
        timers.advance(begin + SECOND * 100_000);
        (0..1_000_000).for_each(|_| life.count_request());
        assert!(!life.is_over(&none, &timers));
    }

    #[test]
    fn it_is_over_after_so_many_requests_less_its_part_of_the_jitter() {
        let timers = Timers::new(ambient::now());
        let limits = limits(Duration::ZERO, 200);
        let carried = |random| {
            let mut life = ConnectionLife::begin(&limits, timers.now(), || random);
            let mut carried = 0;
            while !life.is_over(&limits, &timers) {
                life.count_request();
                carried += 1;
            }
            carried
        };
        assert_eq!([0, 50, 100, 101].map(carried), [200, 190, 180, 200]);
        let drawn: std::collections::BTreeSet<i32> = (0..1000).map(carried).collect();
        assert_eq!((drawn.first(), drawn.last(), drawn.len()), (Some(&180), Some(&200), 21));
    }

    #[test]
    fn it_is_over_at_such_an_age_less_its_part_of_the_jitter() {
        let begin = ambient::now();
        let timers = Timers::new(begin);
        let limits = limits(SECOND * 100, u32::MAX);
        let [whole, half, early] = [0, 50, 100].map(|random| ConnectionLife::begin(&limits, timers.now(), || random));
        let over_at = |seconds: u32| {
            timers.advance(begin + SECOND * seconds);
            [whole, half, early].map(|life| life.is_over(&limits, &timers))
        };
        assert_eq!(over_at(89), [false, false, false]);
        assert_eq!(over_at(91), [false, false, true]);
        assert_eq!(over_at(96), [false, true, true]);
        assert_eq!(over_at(99), [false, true, true]);
        assert_eq!(over_at(101), [true, true, true]);
    }
}
