//! What is known of members right now, in atomics that outlive every ring.
//!
//! All orderings are relaxed: these are counts and shares that order no other memory. A reservation is one
//! read-modify-write on one atomic, and its result alone decides.

use crate::hash::{Hash, mix};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use xxhash_rust::xxh3::xxh3_64;

/// A share of 1: all keys.
pub const FULL_SHARE: u16 = u16::MAX;

/// One member's load and the share of its keys that it accepts. On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Load {
    in_flight: AtomicU32,
    /// Lifecycle share in the low half, shed share in the high half: read together.
    shares: AtomicU32,
    /// Makes the order in which keys are accepted the member's own.
    salt: u64,
    /// Peak-sensitive mean latency in microseconds (an `f32`'s bits) in the high half, when it was told last, in
    /// milliseconds, in the low half.
    latency: AtomicU64,
}

impl Load {
    /// Of a member that accepts all its keys and carries nothing.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            shares: AtomicU32::new(u32::from(FULL_SHARE)),
            salt: xxh3_64(id.as_bytes()),
            latency: AtomicU64::new(0),
        }
    }

    /// Requests that the member carries now.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Share of its keys that health, drain and slow start let it take: 0 none, [`FULL_SHARE`] all.
    #[inline]
    #[must_use]
    pub fn lifecycle(&self) -> u16 {
        self.shares.load(Relaxed) as u16
    }

    /// Sets the lifecycle share. Raising it moves keys only to this member, lowering it only away from it, and always
    /// the same keys first.
    pub fn set_lifecycle(&self, share: u16) {
        self.update(|shares| shares & 0xffff_0000 | u32::from(share));
    }

    /// Share of its keys that it sheds to the next of their walks because it is overloaded.
    #[inline]
    #[must_use]
    pub fn shed(&self) -> u16 {
        (self.shares.load(Relaxed) >> 16) as u16
    }

    /// Sets the shed share.
    pub fn set_shed(&self, share: u16) {
        self.update(|shares| shares & 0xffff | u32::from(share) << 16);
    }

    /// Takes in a request's latency. A peak counts at once, what is below fades in with the time constant
    /// `decay_millis`. `now_millis` may begin anywhere and may wrap. Racing observations may lose one another: it is an
    /// estimate.
    pub fn observe(&self, latency_micros: f32, now_millis: u32, decay_millis: u32) {
        let (old, told) = self.mean(self.latency.load(Relaxed));
        let mean = if latency_micros >= old {
            latency_micros
        } else {
            let kept = decay(now_millis.wrapping_sub(told), decay_millis);
            old * kept + latency_micros * (1.0 - kept)
        };
        self.latency.store(u64::from(mean.to_bits()) << 32 | u64::from(now_millis), Relaxed);
    }

    /// The mean latency in microseconds, faded to `now_millis`; 0 before the first observation.
    #[must_use]
    pub fn latency_micros(&self, now_millis: u32, decay_millis: u32) -> f32 {
        let (mean, told) = self.mean(self.latency.load(Relaxed));
        mean * decay(now_millis.wrapping_sub(told), decay_millis)
    }

    fn mean(&self, packed: u64) -> (f32, u32) {
        (f32::from_bits((packed >> 32) as u32), packed as u32)
    }

    /// Share of keys or turns that it takes now, shedding aside.
    #[inline]
    pub(crate) fn claim(&self, weight: u32) -> u64 {
        u64::from(weight) * u64::from(self.lifecycle())
    }

    fn update(&self, change: impl Fn(u32) -> u32) {
        // The closure always gives a value, so this cannot fail.
        let _ = self.shares.fetch_update(Relaxed, Relaxed, |shares| Some(change(shares)));
    }

    /// Whether the member takes this key. `relaxed` ignores shedding and ramps, but not a share of 0.
    #[inline]
    pub(crate) fn accepts(&self, hash: Hash, relaxed: bool) -> bool {
        let shares = self.shares.load(Relaxed);
        if shares == u32::from(FULL_SHARE) {
            return true;
        }
        let (lifecycle, shed) = (shares as u16, (shares >> 16) as u16);
        if lifecycle == 0 || relaxed {
            return lifecycle > 0;
        }
        let full = u32::from(FULL_SHARE);
        let share = (u32::from(lifecycle) * (full - u32::from(shed)) / full) as u16;
        share == FULL_SHARE || ((mix(hash ^ self.salt) >> 48) as u16) < share
    }

    /// Whether health, drain and slow start let it take this key, shedding aside.
    #[inline]
    pub(crate) fn accepts_lifecycle(&self, hash: Hash) -> bool {
        let share = self.lifecycle();
        share == FULL_SHARE || ((mix(hash ^ self.salt) >> 48) as u16) < share
    }

    /// Reserves a place below `cap`: reserve first, then test, so that racing requests never pass it together.
    #[inline]
    pub(crate) fn reserve(&self, cap: u32) -> bool {
        if self.in_flight.fetch_add(1, Relaxed) < cap {
            return true;
        }
        self.in_flight.fetch_sub(1, Relaxed);
        false
    }

    #[inline]
    pub(crate) fn release(&self) {
        let before = self.in_flight.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "a release without its reservation");
    }
}

fn decay(passed_millis: u32, constant_millis: u32) -> f32 {
    // A clock that has gone back a little counts as one that stands.
    let passed = if passed_millis > u32::MAX / 2 { 0 } else { passed_millis };
    (-(passed as f32) / constant_millis.max(1) as f32).exp()
}

/// Levels of a service at most: 8 tiers, each of the own zone and of others.
pub const LEVELS_MAX: usize = 16;

/// Requests in flight over a whole service, level by level: one shard per worker, so that no two workers write one cache
/// line.
#[derive(Debug)]
pub struct Total {
    shards: Box<[Shard]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard([AtomicI64; LEVELS_MAX]);

impl Total {
    /// For so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { shards: (0..workers.max(1)).map(|_| Shard::default()).collect() }
    }

    /// The sum now. Each shard has one writer, so the sum is exact when nothing moves.
    #[must_use]
    pub fn sum(&self) -> u64 {
        (0..LEVELS_MAX).map(|level| self.sum_of(level as u8)).sum()
    }

    /// The sum of one level.
    #[inline]
    #[must_use]
    pub fn sum_of(&self, level: u8) -> u64 {
        let level = usize::from(level) % LEVELS_MAX;
        let sum: i64 = self.shards.iter().map(|shard| shard.0[level].load(Relaxed)).sum();
        // Shards are read one after the other: a request that ends elsewhere meanwhile may leave less than nothing.
        sum.max(0) as u64
    }

    #[inline]
    pub(crate) fn add(&self, level: u8, shard: usize, amount: i64) {
        // One writer per shard: a load and a store will do.
        let count = &self.shards[shard].0[usize::from(level) % LEVELS_MAX];
        count.store(count.load(Relaxed) + amount, Relaxed);
    }
}
