//! How many checks of a service may be under way at once: as many of backends that answer as of those that may not, so that silent ones,
//! each of which takes its check's whole time, keep nobody waiting but each other.

use crate::snapshot::Pace;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// A check that waits for longer than this part of its interval begins late.
const LATE_PART: u32 = 4;

/// Permits of one service's checks and queries of agents.
pub(super) struct Permits {
    concurrency: usize,
    prompt: Semaphore,
    slow: Semaphore,
}

impl Permits {
    pub(super) fn new(concurrency: usize) -> Self {
        Self { concurrency, prompt: Semaphore::new(concurrency), slow: Semaphore::new(concurrency) }
    }

    /// Of each of the two kinds.
    pub(super) fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Waits for a permit. Gives whether it had to.
    pub(super) async fn acquire(&self, pace: &Pace) -> (Option<SemaphorePermit<'_>>, bool) {
        let permits = if pace.is_slow() { &self.slow } else { &self.prompt };
        match permits.try_acquire() {
            Ok(permit) => (Some(permit), false),
            // They are never closed.
            Err(_) => (permits.acquire().await.ok(), true),
        }
    }
}

/// Whether a check that had to wait so long begins late.
pub(super) fn is_late(waited: Duration, interval: Duration) -> bool {
    waited >= interval / LATE_PART
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slow_ones_wait_for_each_other_alone() {
        let (permits, silent, alive) = (Permits::new(2), Pace::default(), Pace::default());
        silent.handle_end(Duration::from_secs(1), Duration::from_secs(1));
        alive.handle_end(Duration::from_millis(999), Duration::from_secs(1));
        let (one, waited) = permits.acquire(&silent).await;
        assert!(one.is_some() && !waited);
        let (two, waited) = permits.acquire(&silent).await;
        assert!(two.is_some() && !waited);
        let mut third = std::pin::pin!(permits.acquire(&silent));
        assert!(tokio::time::timeout(Duration::ZERO, &mut third).await.is_err());
        for _ in 0..10 {
            assert!(!permits.acquire(&alive).await.1, "others have their own");
        }
        drop(one);
        assert!(third.await.1);
        // It answers again.
        silent.handle_end(Duration::from_millis(1), Duration::from_secs(1));
        let (_held, _too) = (permits.acquire(&silent).await, permits.acquire(&alive).await);
        assert!(permits.prompt.try_acquire().is_err() && permits.slow.try_acquire().is_ok());
    }

    #[test]
    fn all_of_the_time_is_slow_and_a_quarter_of_the_interval_late() {
        let pace = Pace::default();
        for (millis, slow) in [(0, false), (999, false), (1_000, true), (1_001, true), (3, false)] {
            pace.handle_end(Duration::from_millis(millis), Duration::from_secs(1));
            assert_eq!(pace.is_slow(), slow, "{millis}");
        }
        assert!(!is_late(Duration::from_millis(499), Duration::from_secs(2)));
        assert!(is_late(Duration::from_millis(500), Duration::from_secs(2)));
    }
}
