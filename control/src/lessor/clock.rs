//! The lessor's time: it passes while heartbeats can reach the leader, and stands still while they cannot. All that is counted from
//! a heartbeat is counted by it, so that what could not be said counts against nobody, and no more than that is granted:
//! what is due after a silence of `d` comes after `d` and the sum of the lapses.

use std::time::{Duration, Instant};

/// Time in which nobody looked: the process was stopped, or starved, and heard as little as one that does not lead.
const UNWATCHED_MAX: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Clock {
    /// The last moment at which it is known that heartbeats could come.
    led: Instant,
    /// All that has been lost until then.
    lost: Duration,
    /// Something is being lost since.
    lapsed: bool,
    lapses: u64,
    unwatched_max: Duration,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Self {
        Self { led: now, lost: Duration::ZERO, lapsed: false, lapses: 0, unwatched_max: UNWATCHED_MAX }
    }

    /// One that is told of every lapse, however seldom anybody looks.
    #[cfg(test)]
    pub(super) fn watched(now: Instant) -> Self {
        Self { unwatched_max: Duration::MAX, ..Self::new(now) }
    }

    /// From the last moment that led on, nobody can be heard.
    pub(super) fn lapse(&mut self) {
        self.lapsed = true;
    }

    /// Heartbeats can come at this moment. The lessor's time of it.
    pub(super) fn lead(&mut self, now: Instant) -> Instant {
        let silence = now.saturating_duration_since(self.led);
        if std::mem::take(&mut self.lapsed) || silence > self.unwatched_max {
            self.lost += silence;
            self.lapses += 1;
        }
        self.led = self.led.max(now);
        self.led - self.lost
    }

    /// The lessor's time, for readers.
    pub(super) fn read(&self, now: Instant) -> Instant {
        let silence = now.saturating_duration_since(self.led);
        let stands = self.lapsed || silence > self.unwatched_max;
        self.led - self.lost + if stands { Duration::ZERO } else { silence }
    }

    /// How often, and for how long in all, nobody could be heard.
    pub(super) fn lapses(&self) -> (u64, Duration) {
        (self.lapses, self.lost)
    }
}
