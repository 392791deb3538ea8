//! Rate limits: the generic cell rate algorithm (ITU-T I.371), for many keys in bounded memory.
//!
//! Each key has one number, the theoretical arrival time of its next request (TAT): a request conforms if it comes no earlier than the
//! TAT less what a burst allows. Keys live in sets of eight; a key that finds its set full replaces the one with the oldest TAT,
//! because forgetting that one changes least.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const WAYS: usize = 8;

/// Locks: workers seldom contend for one.
const SHARDS: usize = 64;

/// A limiter, shared by all workers.
pub(crate) struct RateLimiter {
    interval_nanos: u64,
    tolerance_nanos: u64,
    sets_per_shard: usize,
    shards: Box<[Mutex<Sets>]>,
}

/// One shard's cells.
type Sets = Box<[[Cell; WAYS]]>;

#[derive(Clone, Copy, Default)]
struct Cell {
    hash: u64,
    /// Theoretical arrival time, in nanoseconds since the limiter's clock began; 0 is free.
    arrival: u64,
}

impl RateLimiter {
    /// One request in each `interval`, `burst` at once, for about this many keys.
    pub(crate) fn new(interval: Duration, burst: u32, keys_max: usize) -> Self {
        let interval_nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX / 4).max(1);
        let sets_per_shard = keys_max.div_ceil(WAYS * SHARDS).max(1);
        let shard = || Mutex::new(vec![[Cell::default(); WAYS]; sets_per_shard].into_boxed_slice());
        Self {
            interval_nanos,
            tolerance_nanos: interval_nanos.saturating_mul(u64::from(burst.max(1)) - 1),
            sets_per_shard,
            shards: (0..SHARDS).map(|_| shard()).collect(),
        }
    }

    /// Checks a request of a key at a time since the clock began. `Err`: refused, and when it would be allowed.
    pub(crate) fn admit(&self, hash: u64, now: Duration) -> Result<(), Duration> {
        // One is added: 0 marks a free cell.
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2).saturating_add(1);
        let shard = &self.shards[(hash >> 58) as usize % SHARDS];
        let mut sets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let set = &mut sets[(hash & 0xffff_ffff) as usize % self.sets_per_shard];
        let index = match set.iter().position(|cell| cell.hash == hash && cell.arrival > 0) {
            Some(index) => index,
            None => {
                let oldest = set.iter().enumerate().min_by_key(|(_, cell)| cell.arrival);
                let index = oldest.map_or(0, |(index, _)| index);
                set[index] = Cell { hash, arrival: now };
                index
            }
        };
        let arrival = set[index].arrival.max(now);
        if arrival - now > self.tolerance_nanos {
            return Err(Duration::from_nanos(arrival - now - self.tolerance_nanos));
        }
        set[index].arrival = arrival.saturating_add(self.interval_nanos);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn burst_then_steady_rate_then_burst_again() {
        let limiter = RateLimiter::new(SECOND / 10, 5, 1024);
        let at = |millis| limiter.admit(7, Duration::from_millis(millis));
        for _ in 0..5 {
            assert!(at(0).is_ok());
        }
        let wait = at(0).unwrap_err();
        assert!(wait > Duration::from_millis(99) && wait <= Duration::from_millis(100), "{wait:?}");
        // One each 100 ms from now on; refused ones cost nothing.
        for tenth in 1..=20 {
            assert!(at(tenth * 100).is_ok(), "{tenth}");
            assert!(at(tenth * 100).is_err(), "{tenth}");
        }
        // After a pause, a burst again, no more.
        let admitted = (0..10).filter(|_| at(60_000).is_ok()).count();
        assert_eq!(admitted, 5);
    }

    #[test]
    fn keys_do_not_share_a_rate() {
        let limiter = RateLimiter::new(SECOND, 1, 65_536);
        for key in 0..1_000_u64 {
            assert!(limiter.admit(key.wrapping_mul(0x9e37_79b9_7f4a_7c15), SECOND).is_ok());
        }
        let refused =
            (0..1_000_u64).filter(|key| limiter.admit(key.wrapping_mul(0x9e37_79b9_7f4a_7c15), SECOND).is_err());
        assert_eq!(refused.count(), 1_000);
    }

    #[test]
    fn memory_is_bounded_and_a_flood_of_keys_forgets_the_oldest() {
        let limiter = RateLimiter::new(SECOND, 1, 256);
        for key in 0..1_000_000_u64 {
            assert!(limiter.admit(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, SECOND).is_ok() || key > 0);
        }
        // The limit errs towards admission, never towards refusing a new key.
        assert!(limiter.admit(2, SECOND * 5).is_ok());
    }
}
