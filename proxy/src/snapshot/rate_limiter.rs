//! Rate limits: the generic cell rate algorithm (ITU-T I.371), for many keys in bounded memory.
//!
//! Each key has one number, the theoretical arrival time of its next request (TAT): a request conforms if it comes no earlier than the
//! TAT less what a burst allows. Keys live in sets of eight; a key that finds its set full replaces the one with the oldest TAT,
//! because forgetting that one changes least.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const WAYS: usize = 8;

/// Locks: workers seldom contend for one.
const SHARDS: usize = 64;

/// A limiter, shared by all workers, and by all versions of a limit on the same keys.
pub(crate) struct RateLimiter {
    /// When its clock began.
    began: Instant,
    shards: Box<[Mutex<Shard>]>,
}

/// Some of the keys, and the rate that their numbers are counted at.
struct Shard {
    rate: Rate,
    sets: Sets,
}

type Sets = Box<[[Cell; WAYS]]>;

/// What each key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    interval_nanos: u64,
    burst: u32,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    hash: u64,
    /// Theoretical arrival time, in nanoseconds since the limiter's clock began; 0 is free.
    arrival: u64,
}

impl Rate {
    fn new(interval: Duration, burst: u32) -> Self {
        Self { interval_nanos: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX / 4).max(1), burst: burst.max(1) }
    }

    fn tolerance_nanos(self) -> u64 {
        self.interval_nanos.saturating_mul(u64::from(self.burst) - 1)
    }

    /// A theoretical arrival time of a key that has used as much of this rate as it had of the one `before`: parts of a request are
    /// rounded up, and what is more than the burst is all of it.
    fn convert(self, arrival: u64, before: Self, now: u64) -> u64 {
        let ahead = u128::from(arrival.saturating_sub(now));
        let used = (ahead * u128::from(self.interval_nanos)).div_ceil(u128::from(before.interval_nanos));
        let whole = u128::from(self.interval_nanos) * u128::from(self.burst);
        now.saturating_add(u64::try_from(used.min(whole)).unwrap_or(u64::MAX / 2))
    }
}

impl RateLimiter {
    /// One request in each `interval`, `burst` at once, for about this many keys.
    pub(crate) fn new(interval: Duration, burst: u32, keys_max: usize, now: Instant) -> Self {
        let rate = Rate::new(interval, burst);
        let shard = || Mutex::new(Shard { rate, sets: sets(sets_per_shard(keys_max)) });
        Self { began: now, shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Puts another limit into force, for all who ask from now on. What keys have used stays used: each has the new burst less that.
    pub(crate) fn change(&self, interval: Duration, burst: u32, keys_max: usize, now: Instant) {
        let (rate, now, count) = (Rate::new(interval, burst), self.nanos(now), sets_per_shard(keys_max));
        for shard in &self.shards {
            let fresh = (lock(shard).sets.len() != count).then(|| sets(count));
            let mut shard = lock(shard);
            let before = std::mem::replace(&mut shard.rate, rate);
            if before != rate {
                let cells = shard.sets.iter_mut().flatten().filter(|cell| cell.arrival > 0);
                cells.for_each(|cell| cell.arrival = rate.convert(cell.arrival, before, now));
            }
            if let Some(fresh) = fresh {
                let cells = std::mem::replace(&mut shard.sets, fresh);
                // What is over is nothing that is used.
                cells.iter().flatten().filter(|cell| cell.arrival > now).for_each(|cell| shard.take_over(*cell));
            }
        }
    }

    /// Checks a request of a key. `Err`: refused, and when it would be allowed.
    pub(crate) fn admit(&self, hash: u64, now: Instant) -> Result<(), Duration> {
        let now = self.nanos(now);
        let mut shard = lock(&self.shards[(hash >> 58) as usize % SHARDS]);
        let rate = shard.rate;
        let set = shard.set(hash);
        let index = match set.iter().position(|cell| cell.hash == hash && cell.arrival > 0) {
            Some(index) => index,
            None => {
                let index = oldest(set);
                set[index] = Cell { hash, arrival: now };
                index
            }
        };
        let arrival = set[index].arrival.max(now);
        if arrival - now > rate.tolerance_nanos() {
            return Err(Duration::from_nanos(arrival - now - rate.tolerance_nanos()));
        }
        set[index].arrival = arrival.saturating_add(rate.interval_nanos);
        Ok(())
    }

    /// A time by the limiter's clock. One is added: 0 marks a free cell.
    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX / 2).saturating_add(1)
    }
}

impl Shard {
    /// The only cells in which a key may be.
    fn set(&mut self, hash: u64) -> &mut [Cell; WAYS] {
        let index = (hash & 0xffff_ffff) as usize % self.sets.len();
        &mut self.sets[index]
    }

    /// A cell of other sets. Of too many for one set, those stay that have used most.
    fn take_over(&mut self, cell: Cell) {
        let set = self.set(cell.hash);
        let index = oldest(set);
        if set[index].arrival < cell.arrival {
            set[index] = cell;
        }
    }
}

/// Where the cell is that is forgotten first.
fn oldest(set: &[Cell; WAYS]) -> usize {
    set.iter().enumerate().min_by_key(|(_, cell)| cell.arrival).map_or(0, |(index, _)| index)
}

fn sets_per_shard(keys_max: usize) -> usize {
    keys_max.div_ceil(WAYS * SHARDS).max(1)
}

fn sets(count: usize) -> Sets {
    vec![[Cell::default(); WAYS]; count].into_boxed_slice()
}

/// Poisoning is ignored: whatever panics leaves each cell whole.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn burst_then_steady_rate_then_burst_again() {
        let began = ambient::now();
        let limiter = RateLimiter::new(SECOND / 10, 5, 1024, began);
        let at = |millis| limiter.admit(7, began + Duration::from_millis(millis));
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
        let now = ambient::now();
        let limiter = RateLimiter::new(SECOND, 1, 65_536, now);
        for key in 0..1_000_u64 {
            assert!(limiter.admit(key.wrapping_mul(0x9e37_79b9_7f4a_7c15), now).is_ok());
        }
        let refused = (0..1_000_u64).filter(|key| limiter.admit(key.wrapping_mul(0x9e37_79b9_7f4a_7c15), now).is_err());
        assert_eq!(refused.count(), 1_000);
    }

    #[test]
    fn memory_is_bounded_and_a_flood_of_keys_forgets_the_oldest() {
        let now = ambient::now();
        let limiter = RateLimiter::new(SECOND, 1, 256, now);
        for key in 0..1_000_000_u64 {
            assert!(limiter.admit(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, now).is_ok() || key > 0);
        }
        // The limit errs towards admission, never towards refusing a new key.
        assert!(limiter.admit(2, now + SECOND * 5).is_ok());
    }

    /// So many of the key's requests are admitted at once.
    fn admitted(limiter: &RateLimiter, key: u64, now: Instant) -> u32 {
        let asked = std::iter::repeat_with(|| limiter.admit(key, now)).take(1_000);
        u32::try_from(asked.take_while(Result::is_ok).count()).unwrap()
    }

    #[test]
    fn a_key_has_the_new_burst_less_what_it_has_used() {
        let (now, hour) = (ambient::now(), SECOND * 3_600);
        for (burst, left) in [(100, 70), (80, 50), (200, 170), (30, 0), (10, 0)] {
            let limiter = RateLimiter::new(hour / 100, 100, 1_024, now);
            for _ in 0..30 {
                assert!(limiter.admit(7, now).is_ok());
            }
            limiter.change(hour / burst, burst, 1_024, now);
            assert_eq!(admitted(&limiter, 7, now), left, "{burst}");
            assert_eq!(admitted(&limiter, 8, now), burst, "a key that has used nothing");
            // No longer than one that comes to the new limit for the first time.
            let wait = limiter.admit(7, now).unwrap_err();
            assert!(wait <= hour / burst + Duration::from_nanos(1), "{burst}: {wait:?}");
            assert_eq!(admitted(&limiter, 7, now + hour + SECOND), burst, "what was used long ago is not");
        }
    }

    #[test]
    fn a_change_after_a_pause_finds_nothing_used() {
        let now = ambient::now();
        let limiter = RateLimiter::new(SECOND / 100, 100, 1_024, now);
        assert_eq!(admitted(&limiter, 7, now), 100);
        let later = now + SECOND * 10;
        limiter.change(SECOND * 36, 100, 1_024, later);
        assert_eq!(admitted(&limiter, 7, later), 100);
    }

    #[test]
    fn keys_stay_known_where_more_or_fewer_are_remembered() {
        let now = ambient::now();
        let key = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let limiter = RateLimiter::new(SECOND, 3, 65_536, now);
        for (index, used) in (0..200).flat_map(|index| (0..=index % 3).map(move |used| (index, used))) {
            assert!(limiter.admit(key(index), now).is_ok(), "{used}");
        }
        for keys_max in [65_536 * 4, 8_192] {
            limiter.change(SECOND, 3, keys_max, now);
            for index in (0..200).filter(|index| index % 3 == 2) {
                assert!(limiter.admit(key(index), now).is_err(), "{keys_max}");
            }
        }
        // Far fewer: those stay that have used most, and memory is as for so few.
        limiter.change(SECOND, 3, 256, now);
        assert!(limiter.shards.iter().all(|shard| lock(shard).sets.len() == 1));
        for index in (0..200).filter(|index| index % 3 == 0) {
            assert!(limiter.admit(key(index), now).is_ok());
        }
    }

    proptest! {
        /// Whatever limits follow each other, at each change a key has the new burst less what it has used; and a change to what is in
        /// force is none.
        #[test]
        fn no_change_gives_or_takes_anything_that_was_used(
            steps in vec((1_u64..5_000_000_000, 1_u32..200, 0_u64..3_000, 0_u32..200), 1..12),
        ) {
            let mut now = ambient::now();
            let limiter = RateLimiter::new(SECOND, 100, 1_024, now);
            let mut rate = (SECOND, 100);
            for (interval, burst, pause_millis, asks) in steps {
                let had = admitted_of_copy(&limiter, rate, 7, now);
                limiter.change(rate.0, rate.1, 1_024, now);
                prop_assert_eq!(admitted_of_copy(&limiter, rate, 7, now), had);
                let used = rate.1 - had;
                rate = (Duration::from_nanos(interval), burst);
                limiter.change(rate.0, rate.1, 1_024, now);
                let has = admitted_of_copy(&limiter, rate, 7, now);
                prop_assert_eq!(has, burst.saturating_sub(used), "{} used", used);
                for _ in 0..asks {
                    let _ = limiter.admit(7, now);
                }
                now += Duration::from_millis(pause_millis);
            }
        }
    }

    /// So many would be admitted at once; nothing is used.
    fn admitted_of_copy(limiter: &RateLimiter, (interval, burst): (Duration, u32), key: u64, now: Instant) -> u32 {
        let copy = RateLimiter::new(interval, burst, 1_024, limiter.began);
        for (to, from) in copy.shards.iter().zip(&limiter.shards) {
            lock(to).sets.clone_from(&lock(from).sets);
        }
        admitted(&copy, key, now)
    }
}
