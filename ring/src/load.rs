//! What is known of members right now, in atomics that outlive every ring.
//!
//! All orderings are relaxed: these are counts and shares that order no other memory. A reservation is one
//! read-modify-write on one atomic, and its result alone decides.

use crate::hash::{Hash, mix};
use crate::stage::Stage;
use crate::sum::Sum;
use crate::sync::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use xxhash_rust::xxh3::xxh3_64;

/// A share of 1: all keys.
pub const FULL_SHARE: u16 = u16::MAX;
/// A penalty is kept up for so long at most; what was told further in the future was told an age ago.
pub const HOLD_MILLIS_MAX: u32 = 60 * 60 * 1_000;
/// Bit of the shares: see [`Load::set_doubted`].
const DOUBT: u64 = 1 << 32;
/// Where the accept share stands.
const ACCEPT_SHIFT: u32 = 48;
/// Shares of a member that takes all its keys: most are.
const ALL: u64 = FULL_SHARE as u64 | (FULL_SHARE as u64) << ACCEPT_SHIFT;

/// One member's load and the share of its keys that it accepts. On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Load {
    /// Requests in flight in the low half, and in the high half the sum of [`crate::total::Total`] in which they are
    /// counted. One word: a caller that adds or takes away a request learns in the same step where it is counted, whatever moves.
    carried: AtomicU64,
    /// Lifecycle share in the low 16 bits, shed share in the next, then [`DOUBT`], and in the high 16 the accept share: read
    /// together.
    shares: AtomicU64,
    /// Makes the order in which keys are accepted the member's own.
    salt: u64,
    /// Peak-sensitive mean latency in microseconds (an `f32`'s bits) in the high half, in the low half since when it fades, in
    /// milliseconds: when it was told last, or the end of a hold.
    latency: AtomicU64,
    /// See [`Load::set_limit`]; in the high half, requests of which it counts none any more: see [`Load::begin_answer`].
    limit: AtomicU64,
    /// See [`Load::limited`].
    limited: AtomicU64,
}

/// No limit.
const UNLIMITED: u32 = u32::MAX;

impl Load {
    /// Of a member that accepts all its keys and carries nothing.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self {
            carried: AtomicU64::new(word(0, Sum::ELSEWHERE)),
            shares: AtomicU64::new(ALL),
            salt: xxh3_64(id.as_bytes()),
            latency: AtomicU64::new(0),
            limit: AtomicU64::new(u64::from(UNLIMITED)),
            limited: AtomicU64::new(0),
        }
    }

    /// Requests that the member carries now.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.carried.load(Relaxed) as u32
    }

    /// Most requests that it may have in flight, beside what its own configuration and the bound say; `u32::MAX` is no limit.
    #[inline]
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed) as u32
    }

    /// Sets the limit, which may be below what is in flight: then it takes nothing before that has ended. Gives the one before.
    pub fn set_limit(&self, limit: u32) -> u32 {
        let with = |word: u64| Some(word >> 32 << 32 | u64::from(limit));
        let (Ok(before) | Err(before)) = self.limit.fetch_update(Relaxed, Relaxed, with);
        before as u32
    }

    /// The response to a request in flight has begun: the limit does not count it any more, however long it lasts.
    #[inline]
    pub fn begin_answer(&self) {
        self.limit.fetch_add(1 << 32, Relaxed);
    }

    /// One of these is over: just before it gives its place back.
    #[inline]
    pub fn end_answer(&self) {
        self.limit.fetch_sub(1 << 32, Relaxed);
    }

    /// Requests in flight that the limit counts: those whose responses have not begun, as far as it was told.
    #[must_use]
    pub fn unanswered(&self) -> u32 {
        self.in_flight().saturating_sub((self.limit.load(Relaxed) >> 32) as u32)
    }

    /// Most requests that it may have in flight by its limit as things are: the limit, and those that this does not count.
    #[inline]
    #[must_use]
    pub fn in_flight_max(&self) -> u32 {
        let word = self.limit.load(Relaxed);
        (word as u32).saturating_add((word >> 32) as u32)
    }

    /// How often a request was passed on because of the limit.
    #[must_use]
    pub fn limited(&self) -> u64 {
        self.limited.load(Relaxed)
    }

    /// A request is passed on because it has no room.
    pub(crate) fn handle_full(&self) {
        if self.in_flight() >= self.in_flight_max() {
            self.limited.fetch_add(1, Relaxed);
        }
    }

    /// Share of its weight that health, drain and slow start leave it: 0 nothing, [`FULL_SHARE`] all.
    #[inline]
    #[must_use]
    pub fn active_fraction(&self) -> u16 {
        self.shares.load(Relaxed) as u16
    }

    /// Sets the active fraction, and as a first guess the accept share, until the set works that out.
    pub fn set_active_fraction(&self, share: u16) {
        if self.active_fraction() != share {
            self.update(|shares| with_accept(shares, share) & !0xffff | u64::from(share));
        }
    }

    /// Share of its own keys that it takes, so that, with what others leave it, it has its weight's part of all. Raising it
    /// moves keys only to this member, lowering it only away from it, and always the same keys first.
    pub(crate) fn set_accept(&self, share: u16) {
        if self.accept() != share {
            self.update(|shares| with_accept(shares, share));
        }
    }

    /// See [`Load::set_accept`].
    #[inline]
    pub(crate) fn accept(&self) -> u16 {
        (self.shares.load(Relaxed) >> ACCEPT_SHIFT) as u16
    }

    /// Share of its keys that it sheds to the next of their candidate sequences because it is overloaded.
    #[inline]
    #[must_use]
    pub fn shed(&self) -> u16 {
        (self.shares.load(Relaxed) >> 16) as u16
    }

    /// Sets the shed share.
    pub fn set_shed(&self, share: u16) {
        self.update(|shares| shares & !0xffff_0000 | u64::from(share) << 16);
    }

    /// Says whether it is believed to be down and gets keys all the same, because health is not to be relied on: then those
    /// that are known to be up come first.
    pub fn set_doubted(&self, doubted: bool) {
        self.update(|shares| if doubted { shares | DOUBT } else { shares & !DOUBT });
    }

    /// See [`Load::set_doubted`].
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.shares.load(Relaxed) & DOUBT != 0
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
        self.tell(mean, later(told, now_millis));
    }

    /// Takes in that a request has failed: as if it had taken `penalty_micros`, however soon it was over. For `hold_millis`, at most
    /// [`HOLD_MILLIS_MAX`], the mean stays there; only then it begins to fade.
    pub fn penalize(&self, penalty_micros: f32, hold_millis: u32, now_millis: u32, decay_millis: u32) {
        let (_, told) = self.mean(self.latency.load(Relaxed));
        let mean = self.latency_micros(now_millis, decay_millis).max(penalty_micros);
        self.tell(mean, later(told, now_millis.wrapping_add(hold_millis.min(HOLD_MILLIS_MAX))));
    }

    fn tell(&self, mean_micros: f32, now_millis: u32) {
        self.latency.store(u64::from(mean_micros.to_bits()) << 32 | u64::from(now_millis), Relaxed);
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
    pub(crate) fn effective_weight(&self, weight: u32) -> u64 {
        u64::from(weight) * u64::from(self.active_fraction())
    }

    /// The same, less what it sheds; above 0 where the other is.
    #[inline]
    pub(crate) fn kept_weight(&self, weight: u32) -> u64 {
        let shares = self.shares.load(Relaxed);
        let (lifecycle, shed) = (u64::from(shares as u16), u64::from((shares >> 16) as u16));
        let weight = u64::from(weight) * lifecycle;
        if shed == 0 {
            weight
        } else {
            (weight * (u64::from(FULL_SHARE) - shed)).div_ceil(u64::from(FULL_SHARE)).max(weight.min(1))
        }
    }

    fn update(&self, change: impl Fn(u64) -> u64) {
        // The closure always gives a value, so this cannot fail.
        let _ = self.shares.fetch_update(Relaxed, Relaxed, |shares| Some(change(shares)));
    }

    /// Whether the member takes this key, as far as the stage lets it say no.
    #[inline]
    pub(crate) fn accepts(&self, hash: Hash, stage: Stage) -> bool {
        let shares = self.shares.load(Relaxed);
        if shares == ALL {
            return true;
        }
        let (lifecycle, shed, accept) = (shares as u16, (shares >> 16) as u16, (shares >> ACCEPT_SHIFT) as u16);
        if lifecycle == 0 || shares & DOUBT != 0 && !stage.asks_doubted() {
            return false;
        }
        if stage.is_relaxed() {
            return true;
        }
        let full = u32::from(FULL_SHARE);
        let share = (u32::from(accept) * (full - u32::from(shed)) / full) as u16;
        share == FULL_SHARE || ((mix(hash ^ self.salt) >> 48) as u16) < share
    }

    /// Whether the member keeps a request that was drawn for it, and does not shed it.
    #[inline]
    pub(crate) fn keeps(&self, random: u64) -> bool {
        let shed = self.shed();
        shed == 0 || ((mix(random ^ self.salt) >> 48) as u16) >= shed
    }

    /// Whether health, drain and slow start let it take this key, shedding aside.
    #[inline]
    pub(crate) fn accepts_unshed(&self, hash: Hash) -> bool {
        let shares = self.shares.load(Relaxed);
        let accept = (shares >> ACCEPT_SHIFT) as u16;
        let takes = accept == FULL_SHARE || ((mix(hash ^ self.salt) >> 48) as u16) < accept;
        shares as u16 > 0 && shares & DOUBT == 0 && takes
    }

    /// Reserves a place, if fewer than `cap` requests are in flight. Gives the sum in which it is to be counted.
    ///
    /// The count is looked at before it is touched: one that was raised and lowered again would hide a place from a request that
    /// looks just then, finds none, and sleeps, with nothing left to wake it.
    #[inline]
    pub(crate) fn reserve(&self, cap: u32) -> Option<Sum> {
        let mut carried = self.carried.load(Relaxed);
        loop {
            let (in_flight, sum) = parts(carried);
            if in_flight >= cap {
                return None;
            }
            match self.carried.compare_exchange_weak(carried, carried + 1, Relaxed, Relaxed) {
                Ok(_) => return Some(sum),
                Err(now) => carried = now,
            }
        }
    }

    /// Gives a place back. Gives the sum in which the request was counted.
    #[inline]
    pub(crate) fn release(&self) -> Sum {
        let (before, sum) = parts(self.carried.fetch_sub(1, Relaxed));
        debug_assert!(before > 0, "a release without its reservation");
        sum
    }

    /// From now on the requests are counted in another sum. Gives how many there are, and where they were counted.
    pub(crate) fn count_in(&self, sum: Sum) -> (u32, Sum) {
        let mut carried = self.carried.load(Relaxed);
        loop {
            let (in_flight, before) = parts(carried);
            if before == sum {
                return (0, sum);
            }
            match self.carried.compare_exchange_weak(carried, word(in_flight, sum), Relaxed, Relaxed) {
                Ok(_) => return (in_flight, before),
                Err(now) => carried = now,
            }
        }
    }
}

fn with_accept(shares: u64, share: u16) -> u64 {
    shares & !(0xffff << ACCEPT_SHIFT) | u64::from(share) << ACCEPT_SHIFT
}

fn word(in_flight: u32, sum: Sum) -> u64 {
    u64::from(sum.0) << 32 | u64::from(in_flight)
}

#[inline]
fn parts(carried: u64) -> (u32, Sum) {
    (carried as u32, Sum((carried >> 32) as u8))
}

/// The later of two times, of which the first may be one up to which something is held.
fn later(told: u32, now: u32) -> u32 {
    if told.wrapping_sub(now) <= HOLD_MILLIS_MAX { told } else { now }
}

fn decay(passed_millis: u32, constant_millis: u32) -> f32 {
    // A time that has not come yet, because something is held or a clock has gone back a little, counts as now.
    let passed = if passed_millis.wrapping_neg() <= HOLD_MILLIS_MAX { 0 } else { passed_millis };
    (-(passed as f32) / constant_millis.max(1) as f32).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: u16 = FULL_SHARE / 2;

    fn accepted(load: &Load, stage: Stage) -> usize {
        (0..10_000).filter(|&number| load.accepts(mix(number), stage)).count()
    }

    #[test]
    fn what_a_member_accepts_depends_on_the_stage_and_on_why_it_would_refuse() {
        let stages = [Stage::HotOwners, Stage::Strict, Stage::Relaxed, Stage::Panic, Stage::OverBound];
        let all = |load: &Load| stages.map(|stage| accepted(load, stage));
        let near_half = |count: usize| (4_700..5_300).contains(&count);
        let load = Load::new("a");
        assert_eq!(all(&load), [10_000; 5]);
        load.set_active_fraction(HALF);
        let [hot, strict, rest @ ..] = all(&load);
        assert!(near_half(hot) && hot == strict && rest == [10_000; 3], "a ramp: {hot}");
        load.set_active_fraction(FULL_SHARE);
        load.set_shed(HALF);
        let [hot, strict, rest @ ..] = all(&load);
        assert!(near_half(hot) && hot == strict && rest == [10_000; 3], "shedding: {hot}");
        load.set_shed(0);
        load.set_doubted(true);
        assert_eq!(all(&load), [0, 0, 0, 10_000, 10_000], "believed to be down");
        load.set_doubted(false);
        assert_eq!(all(&load), [10_000; 5]);
        load.set_active_fraction(0);
        assert_eq!(all(&load), [0; 5], "down");
    }

    #[test]
    fn raising_a_share_keeps_all_keys_that_were_accepted_before() {
        let load = Load::new("a");
        let keys = |share| {
            load.set_active_fraction(share);
            (0..2_000).filter(|&number| load.accepts(mix(number), Stage::Strict)).collect::<Vec<u64>>()
        };
        let (fewer, more) = (keys(HALF / 2), keys(HALF));
        assert!(fewer.len() < more.len() && fewer.iter().all(|key| more.contains(key)));
    }

    #[test]
    fn a_hot_keys_owner_minds_health_and_ramps_but_no_shedding() {
        let load = Load::new("a");
        let accepted = || (0..10_000).filter(|&number| load.accepts_unshed(mix(number))).count();
        load.set_shed(FULL_SHARE);
        assert_eq!(accepted(), 10_000);
        load.set_active_fraction(HALF);
        assert!((4_700..5_300).contains(&accepted()));
        load.set_doubted(true);
        assert_eq!(accepted(), 0);
        load.set_doubted(false);
        load.set_active_fraction(0);
        assert_eq!(accepted(), 0);
    }

    #[test]
    fn effective_weight_is_weight_times_fraction_and_shedding_never_takes_all_of_it() {
        let load = Load::new("a");
        let full = u64::from(FULL_SHARE);
        assert_eq!((load.effective_weight(100), load.kept_weight(100)), (100 * full, 100 * full));
        load.set_active_fraction(1);
        load.set_shed(FULL_SHARE);
        assert_eq!((load.effective_weight(100), load.kept_weight(100)), (100, 1));
        load.set_shed(FULL_SHARE / 3);
        assert_eq!(load.kept_weight(300), 200);
        assert_eq!((load.effective_weight(0), load.kept_weight(0)), (0, 0));
        load.set_active_fraction(0);
        assert_eq!((load.effective_weight(100), load.kept_weight(100)), (0, 0));
    }

    #[test]
    fn a_drawn_request_is_kept_but_for_the_part_that_is_shed() {
        let load = Load::new("a");
        let kept = || (0..10_000).filter(|&number| load.keeps(mix(number))).count();
        assert_eq!(kept(), 10_000);
        load.set_shed(FULL_SHARE / 10 * 3);
        assert!((6_700..7_300).contains(&kept()), "{}", kept());
    }

    #[test]
    fn a_request_whose_response_has_begun_is_none_that_the_limit_counts() {
        let load = Load::new("a");
        load.set_limit(2);
        assert!([1, 2].iter().all(|_| load.reserve(load.in_flight_max()).is_some()));
        assert!(load.reserve(load.in_flight_max()).is_none());
        load.begin_answer();
        assert_eq!((load.limit(), load.in_flight_max(), load.unanswered()), (2, 3, 1));
        assert!(load.reserve(load.in_flight_max()).is_some() && load.reserve(load.in_flight_max()).is_none());
        // It is none of theirs which limit there was.
        assert_eq!((load.set_limit(5), load.in_flight_max()), (2, 6));
        assert_eq!((load.set_limit(u32::MAX), load.in_flight_max()), (5, u32::MAX));
        load.end_answer();
        load.release();
        assert_eq!((load.set_limit(4), load.in_flight_max(), load.unanswered()), (u32::MAX, 4, 2));
    }

    #[test]
    fn what_is_passed_on_counts_as_limited_only_where_the_limit_is_reached() {
        let load = Load::new("a");
        assert_eq!((load.reserve(1), load.limit()), (Some(Sum::ELSEWHERE), u32::MAX));
        load.handle_full();
        assert_eq!(load.limited(), 0, "another limit was in the way");
        assert_eq!((load.set_limit(1), load.limit()), (u32::MAX, 1));
        load.handle_full();
        load.release();
        load.handle_full();
        assert_eq!((load.limited(), load.set_limit(u32::MAX), load.limit()), (1, 1, u32::MAX));
    }

    #[test]
    fn places_are_reserved_up_to_the_cap_and_counted_where_the_member_is() {
        let load = Load::new("a");
        assert_eq!(
            (load.reserve(2), load.reserve(2), load.reserve(2)),
            (Some(Sum::ELSEWHERE), Some(Sum::ELSEWHERE), None)
        );
        assert_eq!(load.count_in(Sum::of_level(3)), (2, Sum::ELSEWHERE));
        assert_eq!(load.count_in(Sum::of_level(3)), (0, Sum::of_level(3)), "it is there already");
        assert_eq!((load.release(), load.in_flight()), (Sum::of_level(3), 1));
        assert_eq!((load.reserve(2), load.reserve(0)), (Some(Sum::of_level(3)), None));
    }

    #[test]
    fn a_peak_counts_at_once_and_fades_with_the_time_constant() {
        let load = Load::new("a");
        assert_eq!(load.latency_micros(5, 1_000), 0.0);
        load.observe(800.0, 0, 1_000);
        load.observe(100.0, 0, 1_000);
        assert_eq!(load.latency_micros(0, 1_000), 800.0, "no time has passed");
        let faded = load.latency_micros(1_000, 1_000);
        assert!((faded - 800.0 / std::f32::consts::E).abs() < 0.1, "{faded}");
        load.observe(100.0, 1_000, 1_000);
        let mean = load.latency_micros(1_000, 1_000);
        assert!((mean - (800.0 * 0.367_88 + 100.0 * 0.632_12)).abs() < 0.5, "{mean}");
        load.observe(900.0, 1_000, 1_000);
        assert_eq!(load.latency_micros(1_000, 1_000), 900.0);
    }

    #[test]
    fn a_penalty_holds_for_its_time_and_only_then_fades_also_where_the_clock_wraps() {
        for now in [0, u32::MAX - 100] {
            let load = Load::new("a");
            load.penalize(5_000.0, 300, now, 1_000);
            assert_eq!(load.latency_micros(now.wrapping_add(300), 1_000), 5_000.0);
            // What comes meanwhile is averaged in, and ends no hold.
            load.observe(1.0, now.wrapping_add(200), 1_000);
            assert_eq!(load.latency_micros(now.wrapping_add(300), 1_000), 5_000.0);
            assert!(load.latency_micros(now.wrapping_add(1_300), 1_000) < 1_900.0);
            // A smaller one changes nothing but the hold.
            load.penalize(10.0, 0, now.wrapping_add(300), 1_000);
            assert_eq!(load.latency_micros(now.wrapping_add(300), 1_000), 5_000.0);
        }
    }

    #[test]
    fn each_of_the_shares_is_its_own_whatever_the_others_are() {
        let load = Load::new("a");
        let seen = || (load.active_fraction(), load.shed(), load.accept(), load.is_doubted());
        assert_eq!(seen(), (FULL_SHARE, 0, FULL_SHARE, false));
        for (fraction, shed, accept) in [(1, 2, 3), (0x8000, 0x7fff, 0xfffe), (FULL_SHARE, FULL_SHARE, 0), (0, 0, 1)] {
            for doubted in [true, false] {
                load.set_active_fraction(fraction);
                load.set_shed(shed);
                load.set_doubted(doubted);
                load.set_accept(accept);
                assert_eq!(seen(), (fraction, shed, accept, doubted));
                // What is said again changes nothing, and another fraction is the first guess of what is accepted.
                load.set_active_fraction(fraction);
                assert_eq!(seen(), (fraction, shed, accept, doubted));
                load.set_active_fraction(0x1234);
                assert_eq!(seen(), (0x1234, shed, 0x1234, doubted));
            }
        }
    }

    /// By the hash of the member's id alone: whichever member is asked about whichever key, in whichever process, says the same.
    #[test]
    fn what_is_accepted_kept_and_shed_is_pinned() {
        let load = Load::new("member");
        load.set_active_fraction(0xa000);
        load.set_shed(0x5000);
        let bits =
            |says: &dyn Fn(u64) -> bool| (0..64).fold(0_u64, |bits, key| bits << 1 | u64::from(says(mix(key + 1))));
        let said = [
            bits(&|key| load.accepts(key, Stage::Strict)),
            bits(&|key| load.accepts_unshed(key)),
            bits(&|key| load.keeps(key)),
        ];
        assert_eq!(said, PINNED);
        assert!(said[0] & !said[1] == 0, "who sheds accepts no more for that");
    }

    const PINNED: [u64; 3] = [0x06ba_a133_ce04_e8a5, 0x06bb_b1fb_ce4d_fde7, 0xfb65_7efc_bbfb_575a];

    #[test]
    fn a_time_up_to_which_something_is_held_is_told_from_one_that_is_over() {
        for now in [0_u32, 1_000_000, u32::MAX - 5] {
            let at = |ahead: u32| now.wrapping_add(ahead);
            assert_eq!(later(at(0), now), now);
            assert_eq!(later(at(1), now), at(1));
            assert_eq!(later(at(HOLD_MILLIS_MAX), now), at(HOLD_MILLIS_MAX));
            assert_eq!(later(at(HOLD_MILLIS_MAX + 1), now), now);
            assert_eq!(later(now.wrapping_sub(1), now), now);
            // Told further ahead than anything is held: it was told an age ago.
            let load = Load::new("a");
            load.penalize(5_000.0, u32::MAX, now, 1_000);
            assert_eq!(load.latency_micros(at(HOLD_MILLIS_MAX), 1_000), 5_000.0);
            assert!(load.latency_micros(at(HOLD_MILLIS_MAX + 1_000), 1_000) < 2_000.0);
        }
        let near = |value: f32, expected: f32| assert!((value - expected).abs() < 1e-6, "{value} {expected}");
        near(decay(0, 1_000), 1.0);
        near(decay(500, 1_000), (-0.5_f32).exp());
        near(decay(2_000, 1_000), (-2.0_f32).exp());
        near(decay(2, 0), (-2.0_f32).exp());
        near(decay(1_u32.wrapping_neg(), 1_000), 1.0);
        near(decay(HOLD_MILLIS_MAX.wrapping_neg(), 1_000), 1.0);
        near(decay((HOLD_MILLIS_MAX + 1).wrapping_neg(), 1_000), 0.0);
    }

    #[test]
    fn keys_below_a_share_are_taken_and_those_at_it_are_not() {
        let load = Load::new("a");
        for key in (0..200).map(mix) {
            let place = (mix(key ^ load.salt) >> 48) as u16;
            if place == 0 || place == u16::MAX {
                continue;
            }
            for (share, takes) in [(place, false), (place + 1, true)] {
                load.set_accept(share);
                assert_eq!((load.accepts(key, Stage::Strict), load.accepts_unshed(key)), (takes, takes), "{place}");
            }
            for (shed, keeps) in [(place, true), (place + 1, false)] {
                load.set_shed(shed);
                assert_eq!(load.keeps(key), keeps, "{place}");
            }
            load.set_shed(0);
        }
    }
}
