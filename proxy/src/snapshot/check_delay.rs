//! What is known of checks beside their results: how long the last one took, and how late they begin for want of permits.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A spell of lateness is over when none has been late for as long.
const SPELL: Duration = Duration::from_secs(60);

/// Whether the last check of a backend, or the last query of its agent, was slow: it took all the time that it had. What takes less is no sign
/// of silence; where this host is busy, all do.
#[derive(Default)]
pub(crate) struct Pace {
    is_slow: AtomicBool,
}

impl Pace {
    /// One has ended, of which the whole time is `timeout`.
    pub(crate) fn handle_end(&self, took: Duration, timeout: Duration) {
        self.is_slow.store(took >= timeout, Relaxed);
    }

    /// Whether the next one waits among the slow ones.
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow.load(Relaxed)
    }
}

/// The last check that began late.
#[derive(Default)]
pub(crate) struct CheckDelay(Mutex<Option<(Instant, Duration)>>);

impl CheckDelay {
    /// A check begins, so much later than it was due. Gives whether it is the first for a time.
    pub(crate) fn handle_late(&self, by: Duration, now: Instant) -> bool {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace((now, by));
        before.is_none_or(|(at, _)| now.saturating_duration_since(at) >= SPELL)
    }

    /// How late the last late one was, zero if that is a minute ago.
    pub(crate) fn recent(&self, now: Instant) -> Duration {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|(at, _)| now.saturating_duration_since(*at) < SPELL).map_or(Duration::ZERO, |(_, by)| by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;

    #[test]
    fn a_spell_is_told_of_once_and_is_over_a_minute_after_its_last() {
        let (delay, begin, second) = (CheckDelay::default(), ambient::now(), Duration::from_secs(1));
        assert_eq!(delay.recent(begin), Duration::ZERO);
        assert!(delay.handle_late(second, begin));
        assert!(!delay.handle_late(second * 2, begin + second * 59));
        assert!(!delay.handle_late(second * 3, begin + second * 118));
        assert_eq!(delay.recent(begin + second * 177), second * 3);
        assert_eq!(delay.recent(begin + second * 178), Duration::ZERO);
        assert!(delay.handle_late(second, begin + second * 178));
    }
}
