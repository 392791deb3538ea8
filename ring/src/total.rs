//! What a service's backends carry together, and which of them share it: live, over all generations of its set.
//!
//! Requests outlive the set that placed them, and members become eligible and stop being it while they run. So nothing
//! here is remembered from an earlier look: each member's requests are counted in exactly one sum, which its [`Load`] names,
//! and go over to another with it when it changes. Caps are then a function of what is in flight on the eligible
//! members of the set in force, and of nothing else.

use crate::load::Load;
use crate::sum::{LEVELS_MAX, SUMS, Sum};
use crate::sync::{AtomicI64, AtomicU64, Mutex, MutexGuard};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};

/// Requests in flight over a whole service, level by level: one shard per worker, so that no two workers write one cache
/// line.
#[derive(Debug)]
pub struct Total {
    shards: Box<[Shard]>,
    /// What went from one sum to another because a member did.
    moved: [AtomicI64; SUMS],
    /// Weight times active fraction of each level's eligible members, in the set in force.
    eligible: [AtomicU64; LEVELS_MAX],
    /// Places in the schedules of the levels: they go on where they were, whatever sets come and go.
    turns: [Turns; LEVELS_MAX],
    /// See [`Total::set_slack_min`]: the bits of an `f64`.
    slack_min: AtomicU64,
    groups: AtomicU64,
    in_force: Mutex<InForce>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard([AtomicI64; SUMS]);

/// On a cache line of its own: all workers write it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Turns(AtomicUsize);

/// The set over whose members caps are reckoned.
#[derive(Debug, Default)]
pub(crate) struct InForce {
    /// Its number; 0 is none.
    pub(crate) group: u64,
    /// Its members.
    pub(crate) loads: Vec<Arc<Load>>,
}

impl Total {
    /// For so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            shards: (0..workers.max(1)).map(|_| Shard::default()).collect(),
            moved: Default::default(),
            eligible: Default::default(),
            turns: Default::default(),
            slack_min: AtomicU64::new(0),
            groups: AtomicU64::new(1),
            in_force: Mutex::default(),
        }
    }

    /// All that is in flight now, also on members that take nothing new. Each shard has one writer, so the sum is exact when
    /// nothing moves.
    #[must_use]
    pub fn sum(&self) -> u64 {
        // Moves cancel out: what has left one sum has come into another.
        let all = |shard: &Shard| shard.0.iter().map(|sum| sum.load(Relaxed)).sum::<i64>();
        self.shards.iter().map(all).sum::<i64>().max(0) as u64
    }

    /// What is in flight on one level's eligible members.
    #[inline]
    #[must_use]
    pub fn sum_of(&self, level: u8) -> u64 {
        let index = Sum::of_level(level).index();
        let sum: i64 = self.shards.iter().map(|shard| shard.0[index].load(Relaxed)).sum();
        // Parts are read one after the other: a request that ends elsewhere meanwhile may leave less than nothing.
        (sum + self.moved[index].load(Relaxed)).max(0) as u64
    }

    /// Weight times active fraction of a level's eligible members.
    #[inline]
    pub(crate) fn eligible(&self, level: u8) -> u64 {
        self.eligible[Sum::of_level(level).index()].load(Relaxed)
    }

    #[inline]
    pub(crate) fn add(&self, sum: Sum, shard: usize, amount: i64) {
        // One writer per shard: a load and a store will do.
        let count = &self.shards[shard].0[sum.index()];
        count.store(count.load(Relaxed) + amount, Relaxed);
    }

    /// Takes so much from one sum to another. Anybody may do so at any time, so these are whole read-modify-writes.
    #[cold]
    pub(crate) fn transfer(&self, from: Sum, to: Sum, amount: u32) {
        self.moved[from.index()].fetch_sub(i64::from(amount), Relaxed);
        self.moved[to.index()].fetch_add(i64::from(amount), Relaxed);
    }

    /// The place in a level's schedule, for policies that have one.
    #[inline]
    pub(crate) fn turns(&self, level: u8) -> &AtomicUsize {
        &self.turns[usize::from(level) % LEVELS_MAX].0
    }

    /// Bounds that allow for noise at all have this slack at least, from now on: somebody sees to it that loads are even over a longer
    /// time, so that a bound need not. 0 takes it back.
    pub fn set_slack_min(&self, slack: f64) {
        self.slack_min.store(slack.to_bits(), Relaxed);
    }

    /// See [`Total::set_slack_min`].
    #[inline]
    #[must_use]
    pub fn slack_min(&self) -> f64 {
        f64::from_bits(self.slack_min.load(Relaxed))
    }

    /// A number for a set that is being built.
    pub(crate) fn number_group(&self) -> u64 {
        self.groups.fetch_add(1, Relaxed)
    }

    /// What is in force. Nobody panics while it is held, and it is consistent at each step.
    pub(crate) fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a member's requests in another sum from now on.
    pub(crate) fn count_in(&self, load: &Load, sum: Sum) {
        let (in_flight, before) = load.count_in(sum);
        if before != sum {
            self.transfer(before, sum, in_flight);
        }
    }

    pub(crate) fn set_eligible(&self, eligible: [u64; LEVELS_MAX]) {
        self.eligible.iter().zip(eligible).for_each(|(kept, now)| kept.store(now, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_over_all_shards_and_follow_members_from_level_to_level() {
        let total = Total::new(3);
        for (shard, level, amount) in [(0, 1, 5), (1, 1, 7), (2, 2, 11), (0, 2, -1)] {
            total.add(Sum::of_level(level), shard, amount);
        }
        assert_eq!((total.sum(), total.sum_of(0), total.sum_of(1), total.sum_of(2)), (22, 0, 12, 10));
        total.transfer(Sum::of_level(1), Sum::of_level(0), 4);
        assert_eq!((total.sum(), total.sum_of(0), total.sum_of(1), total.sum_of(2)), (22, 4, 8, 10));
        // A member's requests go with it, once.
        let load = Load::new("a");
        (0..3).for_each(|_| assert_eq!(load.reserve(9), Some(Sum::ELSEWHERE)));
        total.add(Sum::ELSEWHERE, 0, 3);
        (0..2).for_each(|_| total.count_in(&load, Sum::of_level(2)));
        assert_eq!((total.sum(), total.sum_of(2)), (25, 13));
        // Less than nothing, for a moment, is nothing.
        total.add(Sum::of_level(0), 0, -9);
        assert_eq!(total.sum_of(0), 0);
        total.add(Sum::of_level(0), 0, -99);
        assert_eq!(total.sum(), 0);
    }

    #[test]
    fn each_level_has_its_weight_its_place_and_each_set_its_number() {
        let total = Total::new(0);
        total.add(Sum::of_level(0), 0, 1);
        assert_eq!(total.sum(), 1, "there is one shard at least");
        total.set_eligible(std::array::from_fn(|level| level as u64 * 10));
        assert_eq!([0, 1, 15, 17].map(|level| total.eligible(level)), [0, 10, 150, 10]);
        total.turns(1).store(5, Relaxed);
        assert_eq!([0, 1, 17].map(|level| total.turns(level).load(Relaxed)), [0, 5, 5]);
        assert_eq!([0; 3].map(|_| total.number_group()), [1, 2, 3], "0 is none");
    }
}
