//! How a request goes from member to member: stage by stage, level by level, each walk to its end and no further.
//!
//! It ends, by proof: a walk gives each of its level's members once at most ([`Walk`](crate::Walk)), a level is left with
//! its bit in `visited`, and stages only follow one another as they stand in [`Stage`].

use super::{ALL_KEYS, Ask, Group, HOT_OWNERS_MAX, LEVEL_SALT, Level, Pick};
use crate::hash::{Hash, mix};
use crate::order::{Drawn, Order, Preference};
use crate::params::AllFull;
use crate::ring::{Slot, WEIGHT_MAX};
use crate::round_robin::RoundRobin;
use crate::selection::{Selection, Stage};
use crate::total::Sum;
use std::sync::atomic::Ordering::Relaxed;

/// Draws that may fail before all members are looked at in order.
const DRAWS_MAX: u32 = 16;
/// Looks for the least loaded that may end at one who has become full meanwhile.
const LOOKS_MAX: u32 = 4;

impl Group {
    /// Begins to look for a member.
    #[inline]
    #[must_use]
    pub fn begin(&self, ask: Ask) -> Selection {
        let home = self.home(ask.hash);
        let walk = self.levels[home].order.begin(ask.hash);
        let stage = if ask.owners > 1 && self.policy.hashes() { Stage::Hot } else { Stage::Strict };
        Selection::new(ask, home as u8, walk, stage)
    }

    /// The level in which a key is at home: the same key always in the same, as long as shares stand.
    #[inline]
    pub(super) fn home(&self, hash: Hash) -> usize {
        if self.levels.len() == 1 {
            return 0;
        }
        let place = (mix(hash ^ LEVEL_SALT) >> 48) as u32;
        debug_assert!(place < ALL_KEYS);
        let home = self.levels.iter().position(|level| place < level.up_to.load(Relaxed));
        home.unwrap_or(self.levels.len() - 1)
    }

    /// Looks from the beginning again, because a wait may have made room; who was tried stays tried.
    pub fn restart(&self, selection: &mut Selection) {
        selection.visited = 0;
        (selection.spills, selection.skipped) = (0, 0);
        (selection.ramped, selection.full) = (false, false);
        self.enter(selection, selection.home, Stage::Strict);
    }

    /// Looks from the beginning for what another group has looked for before; `tried` are the slots here of those that were given
    /// there.
    #[must_use]
    pub fn begin_again(&self, before: &Selection, tried: impl IntoIterator<Item = Slot>) -> Selection {
        let mut selection = self.begin(before.ask);
        for slot in tried {
            if !selection.tried.contains(slot.0) {
                selection.tried.insert(slot.0, self.seats.len());
            }
        }
        selection
    }

    /// A member that was given has turned out to have no room, for a reason that is not known here. Its place is to be given back;
    /// it counts as full, not as tried: after a [`Group::restart`] it may be given again.
    pub fn handle_full(&self, selection: &mut Selection, slot: Slot) {
        selection.full = true;
        match selection.stage {
            Stage::Hot | Stage::Strict => selection.spills += 1,
            Stage::Relaxed | Stage::Forced | Stage::Over => {}
            // There is no walk that passes it by: it would be given for ever.
            Stage::LeastLoaded => return,
        }
        selection.tried.remove(slot.0);
    }

    /// Begins a stage in a level: a walk is of the level that it was begun in, and of no other.
    fn enter(&self, selection: &mut Selection, level: u8, stage: Stage) {
        let walk = self.levels[usize::from(level)].order.begin(selection.ask.hash);
        selection.enter(level, walk, stage);
    }

    /// The next member that takes the request, its place reserved. `shard` is the calling worker's index.
    ///
    /// Called again after a member has failed, it goes on where it was: never to the same member twice.
    #[inline]
    pub fn next(&self, selection: &mut Selection, shard: usize) -> Pick {
        loop {
            match selection.stage {
                Stage::Hot | Stage::Strict | Stage::Relaxed | Stage::Forced => {}
                Stage::LeastLoaded => return self.least_loaded(selection, shard),
                Stage::Over => return if selection.full { Pick::AllFull } else { Pick::None },
            }
            let level = &self.levels[usize::from(selection.level())];
            let load = self.shared_load(level);
            while let Some(slot) = self.candidate(level, selection) {
                let seat = &self.seats[usize::from(slot.0)];
                let forced = selection.stage == Stage::Forced;
                let cap = if forced { seat.requests_max } else { self.cap_of(level, seat, load) };
                if let Some(sum) = seat.load.reserve(cap, &self.total) {
                    return self.reserved(selection, slot, sum, shard);
                }
                if selection.stage == Stage::Strict {
                    selection.spills += 1;
                }
                selection.full = true;
            }
            self.next_stage(selection);
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
                selection.ramped |= seat.claim() > 0;
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

    /// For policies without a walk: the one to be asked next.
    fn chosen(&self, level: &Level, selection: &mut Selection) -> Option<Slot> {
        let index = match &level.order {
            Order::RoundRobin(turns) => self.turned(level, turns, selection)?,
            Order::Drawn(drawn) => self.drawn(level, drawn, selection)?,
            _ => self.least_of(level, selection)?,
        };
        selection.walk.seen_mut().insert(index, level.slots.len());
        let slot = Slot(level.slots[usize::from(index)]);
        selection.owner.get_or_insert(slot);
        Some(slot)
    }

    /// Whose turn it is, if he takes it; else whose the next turns are.
    fn turned(&self, level: &Level, turns: &RoundRobin, selection: &mut Selection) -> Option<u16> {
        let relaxed = selection.stage != Stage::Strict;
        for _ in 0..DRAWS_MAX {
            let (turn, index) = turns.turn()?;
            let slot = level.slots[usize::from(index)];
            selection.owner.get_or_insert(Slot(slot));
            // A ramp takes its share of turns: it is asked about each anew.
            if self.may_ask(level, selection, index)
                && self.seats[usize::from(slot)].load.accepts(mix(turn as u64), relaxed)
            {
                return Some(index);
            }
            selection.skipped += u32::from(!relaxed);
        }
        self.left(level, selection, None, mix(selection.ask.chance))
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
        // Most are down or have been asked: one of whoever is left, by weight.
        self.left(level, selection, other, random)
    }

    /// One of those who may be asked, drawn by what they claim; looks at each once.
    fn left(&self, level: &Level, selection: &Selection, other: Option<u16>, random: u64) -> Option<u16> {
        let members = (0..level.slots.len() as u16)
            .filter(|&index| Some(index) != other && self.may_ask(level, selection, index));
        let (mut sum, mut drawn) = (0_u64, None);
        for index in members {
            let claim = self.seats[usize::from(level.slots[usize::from(index)])].claim();
            sum += claim;
            // Each takes the place of those before it with its share of the sum so far.
            if claim > 0 && mix(random ^ u64::from(index)) % sum < claim {
                drawn = Some(index);
            }
        }
        drawn
    }

    fn may_ask(&self, level: &Level, selection: &Selection, index: u16) -> bool {
        let slot = level.slots[usize::from(index)];
        let seat = &self.seats[usize::from(slot)];
        seat.claim() > 0
            && (selection.stage != Stage::Strict || !seat.load.is_doubted())
            && !selection.walk.seen().contains(index)
            && !selection.tried.contains(slot)
    }

    /// The least loaded for its weight; of equals, one drawn by weight.
    fn least_of(&self, level: &Level, selection: &mut Selection) -> Option<u16> {
        let load_of = |index: u16| self.seats[usize::from(level.slots[usize::from(index)])].relative_load();
        let may_ask = |index: &u16| self.may_ask(level, selection, *index);
        let candidates = || (0..level.slots.len() as u16).filter(may_ask);
        let (mut least, mut sum, mut drawn) = (f64::INFINITY, 0_u64, None);
        for index in candidates() {
            let (load, claim) = (load_of(index), self.seats[usize::from(level.slots[usize::from(index)])].claim());
            if load > least {
                continue;
            }
            if load < least {
                (least, sum) = (load, 0);
            }
            sum += claim;
            // Each takes the place of its equals before it with its share of their sum.
            if mix(selection.ask.chance ^ u64::from(index)) % sum < claim {
                drawn = Some(index);
            }
        }
        drawn
    }

    /// What follows when a stage's walk is over.
    #[cold]
    fn next_stage(&self, selection: &mut Selection) {
        let level = &self.levels[usize::from(selection.level())];
        if selection.stage == Stage::Strict && !level.order.is_walked() {
            // Those who choose by load have passed over whoever is doubted without a word.
            let mut seats = level.slots.iter().map(|&slot| (slot, &self.seats[usize::from(slot)]));
            selection.ramped =
                seats.any(|(slot, seat)| seat.claim() > 0 && seat.load.is_doubted() && !selection.tried.contains(slot));
        }
        if selection.stage == Stage::Strict && std::mem::take(&mut selection.ramped) {
            return self.enter(selection, selection.level(), Stage::Relaxed);
        }
        selection.visited |= 1 << selection.level();
        let left = (0..self.levels.len() as u8).find(|level| selection.visited >> level & 1 == 0);
        match (left, selection.stage) {
            (Some(level), Stage::Hot | Stage::Strict | Stage::Relaxed) => self.enter(selection, level, Stage::Strict),
            (Some(level), Stage::Forced) => self.enter(selection, level, Stage::Forced),
            (None, Stage::Hot | Stage::Strict | Stage::Relaxed) if selection.full => match self.all_full {
                // Asked again, for a retry, it is full only if somebody still has no room.
                AllFull::Owner => {
                    (selection.visited, selection.full) = (0, false);
                    self.enter(selection, selection.home, Stage::Forced);
                }
                AllFull::LeastLoaded => selection.stage = Stage::LeastLoaded,
                AllFull::Queue | AllFull::Reject => selection.stage = Stage::Over,
            },
            (None, Stage::Hot | Stage::Strict | Stage::Relaxed | Stage::Forced)
            | (_, Stage::LeastLoaded | Stage::Over) => selection.stage = Stage::Over,
        }
    }

    /// The eligible member with the least load for its weight, whatever its bound, of the first level where one is below its
    /// hard limit.
    fn least_loaded(&self, selection: &mut Selection, shard: usize) -> Pick {
        let levels = || {
            let others = (0..self.levels.len() as u8).filter(|level| *level != selection.home);
            std::iter::once(selection.home).chain(others).map(|level| &self.levels[usize::from(level)])
        };
        let candidates = |level: &'_ Level| {
            let untried = level.slots.iter().map(|&slot| (slot, &self.seats[usize::from(slot)]));
            untried.filter(|(slot, seat)| seat.claim() > 0 && !selection.tried.contains(*slot)).collect::<Vec<_>>()
        };
        for _ in 0..LOOKS_MAX {
            let best = levels().find_map(|level| {
                let below = candidates(level).into_iter().filter(|(_, seat)| seat.load.in_flight() < seat.requests_max);
                below.min_by_key(|(_, seat)| {
                    u64::from(seat.load.in_flight()) * u64::from(WEIGHT_MAX) / u64::from(seat.weight)
                })
            });
            let Some((slot, seat)) = best else { break };
            if let Some(sum) = seat.load.reserve(seat.requests_max, &self.total) {
                return self.reserved(selection, Slot(slot), sum, shard);
            }
        }
        if selection.full || levels().any(|level| !candidates(level).is_empty()) { Pick::AllFull } else { Pick::None }
    }

    #[inline]
    fn reserved(&self, selection: &mut Selection, slot: Slot, sum: Sum, shard: usize) -> Pick {
        self.total.add(sum, shard, 1);
        selection.tried.insert(slot.0, self.seats.len());
        Pick::Backend(slot)
    }
}
