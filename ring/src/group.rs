//! A service's backends as requests see them: who is next for this key, and has he room?

use crate::ask::Ask;
use crate::hash::{Hash, mix};
use crate::load::{FULL_SHARE, Load};
use crate::order::Order;
use crate::params::{AllFull, BoundParams, PolicyParams};
use crate::ring::{BuildError, Member, Ring};
use crate::selection::Selection;
use crate::slot::Slot;
use crate::stage::Stage;
use crate::sum::{LEVELS_MAX, Sum};
use crate::total::{InForce, Total};
use crate::walk::Seen;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

mod accept;
mod pick;

/// All keys, in the units of level shares.
const ALL_KEYS: u32 = 1 << 16;
/// Keeps the choice of a level apart from places on the ring.
const LEVEL_SALT: u64 = 0x7269_6e67_7761_7901;
/// Owners of a hot key at most.
pub const HOT_OWNERS_MAX: usize = 32;

/// A member as a group is built from it.
#[derive(Debug, Clone)]
pub struct GroupMember<'a> {
    /// Stable identity.
    pub id: &'a str,
    /// In percent; 100 is normal, 0 takes nothing.
    pub weight: u32,
    /// Hard limit on its requests in flight; `u32::MAX` is none.
    pub requests_max: u32,
    /// Preference: lower levels take all that they can (tiers, zones). Below [`LEVELS_MAX`].
    pub level: u8,
    /// What is known of it right now.
    pub load: Arc<Load>,
}

/// Members, their order, their bound. Immutable but for the loads.
#[derive(Debug)]
pub struct Group {
    /// Most preferred first.
    levels: Box<[Level]>,
    bound: Option<BoundParams>,
    all_full: AllFull,
    /// In slot order.
    seats: Box<[Seat]>,
    total: Arc<Total>,
    /// Its number among the groups of the total.
    number: u64,
    policy: PolicyParams,
}

/// Members of equal preference. Most groups have one level.
#[derive(Debug)]
struct Level {
    key: u8,
    order: Order,
    /// Slots of the members, which `order` knows by index.
    slots: Box<[u16]>,
    /// Keys up to here, of [`ALL_KEYS`], have their home in this level or one before.
    up_to: AtomicU32,
    /// Nobody is known to be up: those who choose without a walk need not look for such a one.
    all_doubted: AtomicBool,
}

#[derive(Debug)]
struct Seat {
    load: Arc<Load>,
    weight: u32,
    requests_max: u32,
    /// Index into `levels`.
    level: u8,
}

/// What a step gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// A place is reserved there; give it back by [`Group::release`].
    Backend(Slot),
    /// Members are eligible, but none has room.
    AllFull,
    /// No member is eligible, or all that are have been tried.
    None,
}

impl Group {
    /// Builds a group. Members are put into the order of their ids: their slots.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build<'a>(
        policy: PolicyParams,
        bound: Option<BoundParams>,
        members: impl IntoIterator<Item = GroupMember<'a>>,
        total: Arc<Total>,
    ) -> Result<Self, BuildError> {
        let mut members: Vec<GroupMember<'a>> = members.into_iter().collect();
        members.sort_by(|a, b| a.id.cmp(b.id));
        if members.len() > usize::from(u16::MAX) {
            return Err(BuildError::TooManyMembers(members.len()));
        }
        if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(BuildError::DuplicateId(pair[0].id.to_owned()));
        }
        let mut keys: Vec<u8> = members.iter().map(|member| member.level % LEVELS_MAX as u8).collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            keys.push(0);
        }
        let levels = keys
            .iter()
            .map(|&key| {
                let chosen =
                    || members.iter().enumerate().filter(move |(_, member)| member.level % LEVELS_MAX as u8 == key);
                let list: Vec<Member<'_>> =
                    chosen().map(|(_, member)| Member { id: member.id, weight: member.weight }).collect();
                Ok(Level {
                    key,
                    order: Order::build(policy, &list)?,
                    slots: chosen().map(|(slot, _)| slot as u16).collect(),
                    up_to: AtomicU32::new(ALL_KEYS),
                    all_doubted: AtomicBool::new(false),
                })
            })
            .collect::<Result<_, BuildError>>()?;
        let seats = members
            .into_iter()
            .map(|member| Seat {
                load: member.load,
                weight: member.weight,
                requests_max: member.requests_max,
                level: keys.iter().position(|&key| key == member.level % LEVELS_MAX as u8).unwrap_or(0) as u8,
            })
            .collect();
        let number = total.number_group();
        Ok(Self { levels, bound, all_full: AllFull::default(), seats, total, number, policy })
    }

    /// What is done when no eligible member has room, be it for the bound or for `requests_max`.
    #[must_use]
    pub fn with_all_full(self, all_full: AllFull) -> Self {
        Self { all_full, ..self }
    }

    /// Puts the group into force: from now on caps, also those of groups of before, are reckoned over its members. What others
    /// still carry counts for nobody's.
    pub fn install(&self) {
        let mut in_force = self.total.in_force();
        let loads: Vec<Arc<Load>> = self.seats.iter().map(|seat| Arc::clone(&seat.load)).collect();
        let mut mine: Vec<*const Load> = loads.iter().map(Arc::as_ptr).collect();
        mine.sort_unstable();
        let gone = in_force.loads.iter().filter(|load| mine.binary_search(&Arc::as_ptr(load)).is_err());
        gone.for_each(|load| self.total.count_in(load, Sum::ELSEWHERE));
        *in_force = InForce { group: self.number, loads };
        self.reckon();
    }

    /// Works out anew who shares the load. Call it after any lifecycle share has changed. Of a group that is not in force it
    /// does nothing.
    pub fn refresh(&self) {
        let in_force = self.total.in_force();
        if in_force.group == self.number {
            self.reckon();
        }
    }

    /// Under the total's lock, so that no two groups mix.
    fn reckon(&self) {
        let key = |seat: &Seat| self.levels[usize::from(seat.level)].key;
        // In panic those that are up share the load while there are any: the others are asked, but not relied on.
        let mut is_up = [false; LEVELS_MAX];
        for seat in self.seats.iter().filter(|seat| seat.claim() > 0) {
            is_up[usize::from(key(seat))] |= !seat.load.is_doubted();
        }
        let mut eligible = [0; LEVELS_MAX];
        for seat in &self.seats {
            let key = key(seat);
            let counts = !(seat.load.is_doubted() && is_up[usize::from(key)]);
            let claim = if counts { seat.claim() } else { 0 };
            eligible[usize::from(key)] += claim;
            self.total.count_in(&seat.load, if claim > 0 { Sum::of_level(key) } else { Sum::ELSEWHERE });
        }
        self.total.set_eligible(eligible);
        for level in &self.levels {
            let is_present =
                |seat: &Seat| seat.claim() > 0 && !(seat.load.is_doubted() && is_up[usize::from(level.key)]);
            let seats = || level.slots.iter().map(|&slot| &self.seats[usize::from(slot)]);
            if level.order.has_claims() {
                let claims = seats().map(|seat| if is_present(seat) { seat.claim() } else { 0 });
                level.order.set_claims(&claims.collect::<Vec<_>>());
            }
            level.all_doubted.store(!is_up[usize::from(level.key)], Relaxed);
            let present: Vec<&Seat> = seats().filter(|seat| is_present(seat)).collect();
            let shares = present.iter().map(|seat| (f64::from(seat.weight), f64::from(seat.load.lifecycle())));
            let accepts = accept::shares(&shares.collect::<Vec<_>>(), self.policy.hashes());
            for (seat, accept) in present.iter().zip(accepts) {
                seat.load.set_accept((accept * f64::from(FULL_SHARE)).round().max(1.0) as u16);
            }
        }
    }

    /// Divides the keys among the levels: for each level's key the share, 0 to 1, that has its home there. Levels that are
    /// not named have none; what the shares leave goes to the last level.
    pub fn set_level_shares(&self, shares: &[(u8, f64)]) {
        let mut sum = 0.0;
        for level in &self.levels {
            sum += shares.iter().find(|(key, _)| *key == level.key).map_or(0.0, |(_, share)| *share);
            level.up_to.store(((sum * f64::from(ALL_KEYS)).round() as u32).min(ALL_KEYS), Relaxed);
        }
    }

    /// Share of the keys that has its home in each level, with the level's key, most preferred first.
    #[must_use]
    pub fn level_shares(&self) -> Vec<(u8, f64)> {
        let mut before = 0;
        let last = self.levels.len() - 1;
        let share = |(index, level): (usize, &Level)| {
            let up_to = if index == last { ALL_KEYS } else { level.up_to.load(Relaxed).max(before) };
            let share = f64::from(up_to - before) / f64::from(ALL_KEYS);
            before = up_to;
            (level.key, share)
        };
        self.levels.iter().enumerate().map(share).collect()
    }

    /// Reserves a place on one member for a request that has no choice (an affinity cookie names it), if it is below its
    /// `requests_max` and eligible, or `kept`: then whoever is bound to it already stays, although it takes nothing new, and
    /// counts there alone. `true`: reserved.
    pub fn reserve(&self, selection: &mut Selection, slot: Slot, kept: bool, shard: usize) -> bool {
        let seat = &self.seats[usize::from(slot.0)];
        if seat.claim() == 0 && !kept || selection.tried.contains(slot.0) {
            return false;
        }
        let Some(sum) = seat.load.reserve(seat.requests_max) else {
            selection.spills += 1;
            return false;
        };
        self.total.add(sum, shard, 1);
        selection.owner.get_or_insert(slot);
        selection.tried.insert(slot.0, self.seats.len());
        true
    }

    /// As [`Group::reserve`], also if that member was given before: for a request that is to be tried again there.
    pub fn reserve_again(&self, selection: &mut Selection, slot: Slot, shard: usize) -> bool {
        selection.tried.remove(slot.0);
        self.reserve(selection, slot, false, shard)
    }

    /// Looks from the beginning again, and whoever was given may be given again.
    pub fn forgive(&self, selection: &mut Selection) {
        selection.tried = Seen::default();
        self.restart(selection);
    }

    /// Whether anybody is left who was not given to this request and takes keys at all, with room or without.
    #[must_use]
    pub fn has_another(&self, selection: &Selection) -> bool {
        let mut seats = self.seats.iter().enumerate();
        seats.any(|(slot, seat)| seat.claim() > 0 && !selection.tried.contains(slot as u16))
    }

    /// Counts what goes on with a member on which it has begun, whatever became of the member since.
    pub fn resume(&self, slot: Slot, shard: usize) {
        if let Some(sum) = self.seats[usize::from(slot.0)].load.reserve(u32::MAX) {
            self.total.add(sum, shard, 1);
        }
    }

    /// Gives a place back: the request has ended.
    #[inline]
    pub fn release(&self, slot: Slot, shard: usize) {
        let sum = self.seats[usize::from(slot.0)].load.release();
        self.total.add(sum, shard, -1);
    }

    /// The load that a member may carry now, the request being placed included.
    #[must_use]
    pub fn cap(&self, slot: Slot) -> u32 {
        let seat = &self.seats[usize::from(slot.0)];
        let level = &self.levels[usize::from(seat.level)];
        self.cap_of(level, seat, self.shared_load(level))
    }

    /// Load that a level's eligible members share, if that decides anything.
    #[inline]
    fn shared_load(&self, level: &Level) -> u64 {
        if self.bound.is_some() { self.total.sum_of(level.key) } else { 0 }
    }

    /// `max(min_slots, ceil(factor * a + slack * sqrt(a)))`, with `a` the fair share of the load, this request
    /// included; at most `requests_max`.
    #[inline]
    fn cap_of(&self, level: &Level, seat: &Seat, total: u64) -> u32 {
        let Some(bound) = self.bound else { return seat.requests_max };
        let eligible = self.total.eligible(level.key);
        if eligible == 0 {
            return bound.min_slots.min(seat.requests_max);
        }
        // Floating point cannot overflow here, and 53 bits are exact far beyond any real load; what rounding adds to
        // a whole number is taken off again before it is rounded up.
        let fair = (total + 1) as f64 * seat.claim() as f64 / eligible as f64;
        let cap = bound.factor * fair + bound.slack * fair.sqrt();
        let cap = (cap * (1.0 - 1e-12)).ceil() as u32;
        cap.max(bound.min_slots).min(seat.requests_max)
    }

    /// The ring of the most preferred level, if the policy has one.
    #[must_use]
    pub fn ring(&self) -> Option<&Ring> {
        match &self.levels[0].order {
            Order::Ring(ring) => Some(ring),
            _ => None,
        }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> PolicyParams {
        self.policy
    }

    pub(crate) fn level_orders(&self) -> impl Iterator<Item = (u8, &Order, &[u16])> {
        self.levels.iter().map(|level| (level.key, &level.order, &*level.slots))
    }

    /// A number that two groups share exactly if they place every key alike when all are healthy. None without keys.
    #[must_use]
    pub fn digest(&self) -> Option<u64> {
        let mut digests = self.levels.iter().map(|level| level.order.digest());
        let first = digests.next()??;
        // One level is its own digest; more are folded, their keys included.
        Some(
            self.levels.iter().zip(digests).fold(first, |all, (level, next)| {
                mix(all ^ u64::from(level.key)).wrapping_add(next.unwrap_or_default())
            }),
        )
    }

    /// The member that a key belongs to when all are healthy. None without keys.
    #[must_use]
    pub fn owner(&self, hash: Hash) -> Option<Slot> {
        let level = &self.levels[self.home(hash)];
        level.order.owner(hash).map(|index| Slot(level.slots[usize::from(index.0)]))
    }

    /// The member that a key belongs to when all are healthy, if `keeps` says that it keeps whom it has although it takes nothing
    /// new. A level of which nobody takes anything new is not forgotten for that.
    #[must_use]
    pub fn kept_owner(&self, hash: Hash, keeps: impl Fn(Slot) -> bool) -> Option<Slot> {
        let home = self.home(hash);
        let left = self.levels[..home].iter().filter(|level| self.total.eligible(level.key) == 0);
        let owners = left.chain([&self.levels[home]]).filter_map(|level| {
            let index = level.order.owner(hash)?;
            Some(Slot(level.slots[usize::from(index.0)]))
        });
        owners.into_iter().find(|slot| keeps(*slot))
    }

    /// A key's whole sequence of members, healthy or not, level after level: what spill, skip and retry follow.
    #[must_use]
    pub fn sequence(&self, hash: Hash) -> Vec<Slot> {
        let home = self.home(hash);
        let order = std::iter::once(home).chain((0..self.levels.len()).filter(move |&level| level != home));
        let mut sequence = Vec::with_capacity(self.seats.len());
        for level in order.map(|level| &self.levels[level]) {
            if !self.policy.hashes() {
                break;
            }
            let mut walk = level.order.begin(hash);
            while let Some(index) = level.order.step(&mut walk, hash, level.slots.len()) {
                sequence.push(Slot(level.slots[usize::from(index.0)]));
            }
        }
        sequence
    }

    /// Whether a member's accept threshold takes a key now: health, drain, ramps and shedding.
    #[must_use]
    pub fn accepts(&self, slot: Slot, hash: Hash) -> bool {
        let seat = &self.seats[usize::from(slot.0)];
        seat.weight > 0 && seat.load.accepts(hash, Stage::Strict)
    }

    /// A member's level, by its key.
    #[must_use]
    pub fn level(&self, slot: Slot) -> u8 {
        self.levels[usize::from(self.seats[usize::from(slot.0)].level)].key
    }

    /// Shares of all keys (without keys: of all turns) that the members own when all are healthy, in slot order.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        let mut shares = vec![0.0; self.seats.len()];
        for (level, (_, of_level)) in self.levels.iter().zip(self.level_shares()) {
            let weights: Vec<u32> = level.slots.iter().map(|&slot| self.seats[usize::from(slot)].weight).collect();
            for (&slot, share) in level.slots.iter().zip(level.order.shares(&weights)) {
                shares[usize::from(slot)] = share * of_level;
            }
        }
        shares
    }

    /// Bytes that the orders take on the heap.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.levels.iter().map(|level| level.order.memory_bytes()).sum()
    }

    /// Members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Members that take keys now, in any level.
    #[must_use]
    pub fn eligible_members(&self) -> usize {
        self.seats.iter().filter(|seat| seat.claim() > 0).count()
    }

    /// Share of the total weight that is eligible now, 0 to 1.
    #[must_use]
    pub fn eligible_share(&self) -> f64 {
        let all: u64 = self.seats.iter().map(|seat| u64::from(seat.weight) * u64::from(FULL_SHARE)).sum();
        let eligible: u64 = self.seats.iter().map(Seat::claim).sum();
        if all == 0 { 0.0 } else { eligible as f64 / all as f64 }
    }
}

impl Seat {
    /// Weight times lifecycle share.
    #[inline]
    fn claim(&self) -> u64 {
        self.load.claim(self.weight)
    }

    /// What it claims, less what it sheds.
    #[inline]
    fn kept_claim(&self) -> u64 {
        self.load.kept_claim(self.weight)
    }

    /// Requests in flight, one more included, for its share: as HAProxy's `leastconn` counts.
    fn relative_load(&self) -> f64 {
        (f64::from(self.load.in_flight()) + 1.0) / self.kept_claim().max(1) as f64
    }

    /// Mean latency times requests in flight for its share of `mean_claim`, this one not divided by it: of idle ones that are
    /// equally fast, none is better than another, whatever their weights. Nobody knows how fast one is that was never used: it gets
    /// one request to find out, and no second before that is known.
    fn cost(&self, mean_claim: f64, now_millis: u32, decay_millis: u32) -> f64 {
        const UNKNOWN_MICROS: f64 = 1e6;
        let in_flight = f64::from(self.load.in_flight()) * mean_claim / self.claim().max(1) as f64;
        match f64::from(self.load.latency_micros(now_millis, decay_millis)) {
            latency if latency > 0.0 => latency * (in_flight + 1.0),
            _ => UNKNOWN_MICROS * in_flight,
        }
    }
}
