//! A service's backends as requests see them: who is next for this key, and has he room?

use crate::hash::{Hash, mix};
use crate::load::{FULL_SHARE, Load};
use crate::order::{Drawn, Order, Preference};
use crate::params::{AllFull, BoundParams, PolicyParams};
use crate::ring::{BuildError, Member, Ring, Slot, WEIGHT_MAX};
use crate::selection::{Selection, Stage};
use crate::total::{InForce, LEVELS_MAX, Sum, Total};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// All keys, in the units of level shares.
const ALL_KEYS: u32 = 1 << 16;
/// Keeps the choice of a level apart from places on the ring.
const LEVEL_SALT: u64 = 0x7269_6e67_7761_7901;
/// Draws that may fail before all members are looked at in order.
const DRAWS_MAX: u32 = 16;
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

/// What one request brings to the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ask {
    /// The key's hash; for policies without keys, and requests without one, it is drawn.
    pub hash: Hash,
    /// A number drawn for this request.
    pub chance: u64,
    /// For latencies: see [`Load::observe`].
    pub now_millis: u32,
    /// The key is hot, and has so many owners; 0 or 1 is not.
    pub owners: u16,
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
        Ok(Self { levels, bound, seats, total, number, policy })
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
        let mut eligible = [0; LEVELS_MAX];
        for seat in &self.seats {
            let (claim, key) = (seat.claim(), self.levels[usize::from(seat.level)].key);
            eligible[usize::from(key)] += claim;
            self.total.count_in(&seat.load, if claim > 0 { Sum::of_level(key) } else { Sum::ELSEWHERE });
        }
        self.total.set_eligible(eligible);
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

    /// Begins to look for a member.
    #[inline]
    #[must_use]
    pub fn begin(&self, ask: Ask) -> Selection {
        let home = self.home(ask.hash);
        let (walk, hash) = self.levels[home].order.begin(ask.hash);
        let stage = if ask.owners > 1 && self.policy.hashes() { Stage::Hot } else { Stage::Strict };
        Selection::new(Ask { hash, ..ask }, home as u8, walk, stage)
    }

    /// The level in which a key is at home: the same key always in the same, as long as shares stand.
    #[inline]
    fn home(&self, hash: Hash) -> usize {
        if self.levels.len() == 1 {
            return 0;
        }
        let place = (mix(hash ^ LEVEL_SALT) >> 48) as u32;
        let home = self.levels.iter().position(|level| place < level.up_to.load(Relaxed));
        home.unwrap_or(self.levels.len() - 1)
    }

    /// Looks from the beginning again, because a wait may have made room; who was tried stays tried.
    pub fn restart(&self, selection: &mut Selection) {
        selection.level = selection.home;
        selection.visited = 0;
        self.rewind(selection);
        selection.stage = Stage::Strict;
        (selection.spills, selection.skipped) = (0, 0);
        (selection.ramped, selection.full_level) = (false, None);
    }

    fn rewind(&self, selection: &mut Selection) {
        let level = &self.levels[usize::from(selection.level)];
        selection.walk = match &level.order {
            Order::RoundRobin(turns) => turns.turn().1,
            order => order.begin(selection.ask.hash).0,
        };
        selection.draws = 0;
    }

    /// The next member that takes the request, its place reserved. `shard` is the calling worker's index.
    ///
    /// Called again after a member has failed, it goes on where it was: never to the same member twice.
    #[inline]
    pub fn next(&self, selection: &mut Selection, shard: usize) -> Pick {
        loop {
            let level = &self.levels[usize::from(selection.level)];
            let sum = self.shared_load(level);
            while let Some(slot) = self.candidate(level, selection) {
                let seat = &self.seats[usize::from(slot.0)];
                let cap =
                    if selection.stage == Stage::Forced { seat.requests_max } else { self.cap_of(level, seat, sum) };
                if let Some(sum) = seat.load.reserve(cap, &self.total) {
                    return self.reserved(selection, slot, sum, shard);
                }
                if selection.stage == Stage::Strict {
                    selection.spills += 1;
                }
                selection.full_level.get_or_insert(selection.level);
            }
            if let Err(pick) = self.next_stage(selection, shard) {
                return pick;
            }
        }
    }

    /// The next member of the level that accepts the key and has not been tried.
    #[inline]
    fn candidate(&self, level: &Level, selection: &mut Selection) -> Option<Slot> {
        if !level.order.is_walked() {
            return self.chosen(level, selection);
        }
        if selection.stage == Stage::Hot
            && let Some(owner) = self.hot_owner(level, selection)
        {
            return Some(owner);
        }
        while let Some(index) = level.order.step(&mut selection.walk, selection.ask.hash, level.slots.len()) {
            let slot = Slot(level.slots[usize::from(index.0)]);
            if selection.owner.is_none() {
                selection.owner = Some(slot);
            }
            if selection.tried.contains(slot.0) {
                continue;
            }
            let seat = &self.seats[usize::from(slot.0)];
            if seat.weight > 0 && seat.load.accepts(selection.ask.hash, selection.stage != Stage::Strict) {
                return Some(slot);
            }
            if selection.stage == Stage::Strict {
                selection.skipped += 1;
                selection.ramped |= seat.load.lifecycle() > 0;
            }
        }
        None
    }

    /// Of a hot key's owners, the first so many of its walk that are eligible, the less loaded of two drawn.
    fn hot_owner(&self, level: &Level, selection: &mut Selection) -> Option<Slot> {
        let mut owners = [Slot(0); HOT_OWNERS_MAX];
        let mut count = 0;
        let wanted = usize::from(selection.ask.owners).min(HOT_OWNERS_MAX);
        let mut walk = selection.walk.clone();
        // Whatever comes of it, the key's own walk follows.
        selection.stage = Stage::Strict;
        while count < wanted
            && let Some(index) = level.order.step(&mut walk, selection.ask.hash, level.slots.len())
        {
            let slot = Slot(level.slots[usize::from(index.0)]);
            if selection.owner.is_none() {
                selection.owner = Some(slot);
            }
            // Hot keys ignore shedding: there is nowhere colder to go.
            if self.seats[usize::from(slot.0)].load.accepts_lifecycle(selection.ask.hash) {
                owners[count] = slot;
                count += 1;
            }
        }
        let owners = &owners[..count];
        if owners.is_empty() {
            return None;
        }
        let first = owners[(selection.ask.chance % count as u64) as usize];
        let second = owners[((selection.ask.chance >> 32) % count as u64) as usize];
        let cost = |slot: Slot| self.seats[usize::from(slot.0)].relative_load();
        Some(if cost(second) < cost(first) { second } else { first })
    }

    /// For policies that look at loads: the one to be asked next.
    fn chosen(&self, level: &Level, selection: &mut Selection) -> Option<Slot> {
        let index = match &level.order {
            Order::Drawn(drawn) => self.drawn(level, drawn, selection)?,
            _ => self.least_of(level, selection)?,
        };
        selection.walk.seen_mut().insert(index, level.slots.len());
        let slot = Slot(level.slots[usize::from(index)]);
        selection.owner.get_or_insert(slot);
        Some(slot)
    }

    fn drawn(&self, level: &Level, drawn: &Drawn, selection: &mut Selection) -> Option<u16> {
        let first = self.draw(level, drawn, selection, None)?;
        if drawn.preference == Preference::None {
            return Some(first);
        }
        let Some(second) = self.draw(level, drawn, selection, Some(first)) else { return Some(first) };
        let now = selection.ask.now_millis;
        let cost = |index: u16| {
            let seat = &self.seats[usize::from(level.slots[usize::from(index)])];
            match drawn.preference {
                Preference::Cost { decay_millis } => seat.cost(now, decay_millis),
                _ => seat.relative_load(),
            }
        };
        Some(if cost(second) < cost(first) { second } else { first })
    }

    /// A member drawn by weight that may be asked and is not `other`.
    fn draw(&self, level: &Level, drawn: &Drawn, selection: &mut Selection, other: Option<u16>) -> Option<u16> {
        let mut random = 0;
        for _ in 0..DRAWS_MAX {
            selection.draws += 1;
            random =
                mix(selection.ask.chance.wrapping_add(u64::from(selection.draws).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            let index = drawn.alias.draw(random)?;
            if Some(index) != other && self.may_ask(level, selection, index) {
                let load = &self.seats[usize::from(level.slots[usize::from(index)])].load;
                if load.accepts(random, selection.stage != Stage::Strict) {
                    return Some(index);
                }
            }
        }
        // Most are down or have been asked: whoever is left, from a drawn place on.
        let count = level.slots.len() as u64;
        (0..count)
            .map(|step| ((random + step) % count) as u16)
            .find(|&index| Some(index) != other && self.may_ask(level, selection, index))
    }

    fn may_ask(&self, level: &Level, selection: &Selection, index: u16) -> bool {
        let slot = level.slots[usize::from(index)];
        self.seats[usize::from(slot)].claim() > 0
            && !selection.walk.seen().contains(index)
            && !selection.tried.contains(slot)
    }

    /// The least loaded for its weight; of equals, the first after a drawn place.
    fn least_of(&self, level: &Level, selection: &mut Selection) -> Option<u16> {
        let count = level.slots.len();
        let start = if count == 0 { 0 } else { (selection.ask.chance % count as u64) as usize };
        let mut best: Option<(f64, u16)> = None;
        for step in 0..count {
            let index = ((start + step) % count) as u16;
            if !self.may_ask(level, selection, index) {
                continue;
            }
            let load = self.seats[usize::from(level.slots[usize::from(index)])].relative_load();
            if best.is_none_or(|(least, _)| load < least) {
                best = Some((load, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// What follows when a stage's walk is over.
    #[cold]
    fn next_stage(&self, selection: &mut Selection, shard: usize) -> Result<(), Pick> {
        match selection.stage {
            Stage::Strict if selection.ramped => {
                selection.stage = Stage::Relaxed;
                self.rewind(selection);
                return Ok(());
            }
            Stage::Hot | Stage::Strict | Stage::Relaxed => {
                selection.visited |= 1 << selection.level;
                if let Some(level) = (0..self.levels.len()).find(|level| selection.visited >> level & 1 == 0) {
                    selection.level = level as u8;
                    selection.ramped = false;
                    selection.stage = Stage::Strict;
                    self.rewind(selection);
                    return Ok(());
                }
            }
            Stage::Forced | Stage::Over => {
                selection.stage = Stage::Over;
                let full = selection.full_level.take().is_some();
                return Err(if full { Pick::AllFull } else { Pick::None });
            }
        }
        // Asked again, for a retry, there is nobody left.
        let Some(full) = selection.full_level.take() else {
            selection.stage = Stage::Over;
            return Err(Pick::None);
        };
        selection.level = full;
        match self.bound.map_or(AllFull::Reject, |bound| bound.all_full) {
            AllFull::Owner => {
                selection.stage = Stage::Forced;
                self.rewind(selection);
                Ok(())
            }
            AllFull::LeastLoaded => {
                selection.stage = Stage::Over;
                Err(self.least_loaded(selection, shard))
            }
            AllFull::Queue | AllFull::Reject => {
                selection.stage = Stage::Over;
                Err(Pick::AllFull)
            }
        }
    }

    /// The level's eligible member with the least load for its weight, whatever its cap.
    fn least_loaded(&self, selection: &mut Selection, shard: usize) -> Pick {
        let level = &self.levels[usize::from(selection.level)];
        let candidates = || {
            level.slots.iter().filter_map(|&slot| {
                let seat = &self.seats[usize::from(slot)];
                (seat.claim() > 0 && !selection.tried.contains(slot)).then_some((slot, seat))
            })
        };
        let best = candidates()
            .filter(|(_, seat)| seat.load.in_flight() < seat.requests_max)
            .min_by_key(|(_, seat)| u64::from(seat.load.in_flight()) * u64::from(WEIGHT_MAX) / u64::from(seat.weight));
        let reserved = best.and_then(|(slot, seat)| Some((slot, seat.load.reserve(seat.requests_max, &self.total)?)));
        match reserved {
            Some((slot, sum)) => self.reserved(selection, Slot(slot), sum, shard),
            None if candidates().next().is_some() => Pick::AllFull,
            None => Pick::None,
        }
    }

    #[inline]
    fn reserved(&self, selection: &mut Selection, slot: Slot, sum: Sum, shard: usize) -> Pick {
        self.total.add(sum, shard, 1);
        selection.tried.insert(slot.0, self.seats.len());
        Pick::Backend(slot)
    }

    /// Reserves a place on one member for a request that has no choice (an affinity cookie names it), if it is eligible and
    /// below its cap. `true`: reserved.
    pub fn reserve(&self, selection: &mut Selection, slot: Slot, shard: usize) -> bool {
        let seat = &self.seats[usize::from(slot.0)];
        if seat.claim() == 0 || selection.tried.contains(slot.0) {
            return false;
        }
        let Some(sum) = seat.load.reserve(seat.requests_max, &self.total) else {
            selection.spills += 1;
            return false;
        };
        self.total.add(sum, shard, 1);
        selection.owner.get_or_insert(slot);
        selection.tried.insert(slot.0, self.seats.len());
        true
    }

    /// Counts what goes on with a member on which it has begun, whatever became of the member since.
    pub fn resume(&self, slot: Slot, shard: usize) {
        if let Some(sum) = self.seats[usize::from(slot.0)].load.reserve(u32::MAX, &self.total) {
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
            let (mut walk, hash) = level.order.begin(hash);
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
        seat.weight > 0 && seat.load.accepts(hash, false)
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

    /// Requests in flight, one more included, for its share.
    fn relative_load(&self) -> f64 {
        (f64::from(self.load.in_flight()) + 1.0) / self.claim().max(1) as f64
    }

    /// Mean latency times requests in flight for its share. Nobody knows how fast one is that was never used: it gets
    /// one request to find out, and no second before that is known.
    fn cost(&self, now_millis: u32, decay_millis: u32) -> f64 {
        const UNKNOWN_MICROS: f64 = 1e6;
        let in_flight = f64::from(self.load.in_flight());
        let latency = f64::from(self.load.latency_micros(now_millis, decay_millis));
        let cost = if latency > 0.0 { latency * (in_flight + 1.0) } else { UNKNOWN_MICROS * in_flight };
        cost / self.claim().max(1) as f64
    }
}
