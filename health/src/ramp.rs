//! A share that moves from one value to another along a window of time.

use std::time::{Duration, Instant};

/// Ramps are moved in at most so many steps a window, and not more often than [`STEP_MIN`].
const STEPS: u32 = 100;
const STEP_MIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ramp {
    pub(crate) began: Instant,
    pub(crate) window: Duration,
    pub(crate) from: u16,
    pub(crate) to: u16,
}

impl Ramp {
    pub(crate) fn share(&self, now: Instant) -> u16 {
        let passed = now.saturating_duration_since(self.began);
        if passed >= self.window {
            return self.to;
        }
        let part = passed.as_secs_f64() / self.window.as_secs_f64();
        (f64::from(self.from) + (f64::from(self.to) - f64::from(self.from)) * part) as u16
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= self.window
    }

    /// When it moves next.
    pub(crate) fn next_step(&self, now: Instant) -> Option<Instant> {
        let step = (self.window / STEPS).max(STEP_MIN);
        (!self.is_over(now)).then(|| (now + step).min(self.began + self.window))
    }
}
