//! How a request goes from member to member: the state machine of [`Stage`] is driven here, and looks at members for it.

use super::{ALL_KEYS, Ask, Group, HOT_OWNERS_MAX, LEVEL_SALT, Level, Pick, Seat};
use crate::hash::{Hash, mix};
use crate::order::{Alias, Drawn, Order, Preference};
use crate::round_robin::RoundRobin;
use crate::selection::Selection;
use crate::slot::Slot;
use crate::stage::{Found, Next, Stage};
use crate::sum::Sum;
use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

/// Draws that may fail before all members are looked at in order.
const DRAWS_MAX: u32 = 16;
/// Loads that differ by less are equal: shares are rounded, and half of 100 is to be as good as 50.
const ROUNDING: f64 = 1e-3;
/// Looks for the least loaded that may end at one who has become full meanwhile.
const LOOKS_MAX: u32 = 4;

impl Group {
    /// Begins to look for a member.
    #[inline]
    #[must_use]
    pub fn begin(&self, ask: Ask) -> Selection {
        let home = self.home(ask.hash);
        let walk = self.levels[home].order.begin(ask.hash);
        let stage = if ask.owners > 1 && self.policy.hashes() { Stage::HotOwners } else { Stage::Strict };
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
        (selection.ramped, selection.doubted, selection.full) = (false, false, false);
        self.enter(selection, selection.home, Stage::Strict);
    }

    /// Looks from the beginning for what another group has looked for before; `tried` are the slots here of those that were given
    /// there.
    #[must_use]
    pub fn begin_again(&self, before: &Selection, tried: impl IntoIterator<Item = Slot>) -> Selection {
        // Who came with a key has drawn no number, and may need one here.
        let chance = if before.ask.chance == 0 { mix(before.ask.hash) } else { before.ask.chance };
        let mut selection = self.begin(Ask { chance, ..before.ask });
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
        self.pass_over(&self.levels[usize::from(selection.level())], selection, slot);
        // There is no walk that passes it by: it would be given for ever.
        if selection.stage == Stage::LeastLoaded {
            return;
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
                Stage::HotOwners => {
                    if let Some(pick) = self.try_hot_owner(selection, shard) {
                        return pick;
                    }
                }
                Stage::Strict | Stage::Relaxed | Stage::Panic | Stage::OverBound => {
                    let level = &self.levels[usize::from(selection.level())];
                    let load = self.shared_load(level);
                    while let Some(slot) = self.candidate(level, selection, load) {
                        if let Some(pick) = self.try_member(level, selection, slot, load, shard) {
                            return pick;
                        }
                    }
                    self.advance(selection);
                }
                Stage::LeastLoaded => return self.least_loaded(selection, shard),
                Stage::Exhausted => return if selection.full { Pick::AllFull } else { Pick::None },
            }
        }
    }

    /// Looks at a hot key's owners, once: whether one of them is had or not, the key's own candidate sequence follows.
    fn try_hot_owner(&self, selection: &mut Selection, shard: usize) -> Option<Pick> {
        let level = &self.levels[usize::from(selection.level())];
        let owner = self.hot_owner(level, selection);
        selection.stage = Stage::HotOwners.follow(Found::default(), self.all_full).stage();
        self.try_member(level, selection, owner?, self.shared_load(level), shard)
    }

    /// Reserves a place on the member, or notes that it has none.
    #[inline]
    fn try_member(
        &self,
        level: &Level,
        selection: &mut Selection,
        slot: Slot,
        load: u64,
        shard: usize,
    ) -> Option<Pick> {
        let seat = &self.seats[usize::from(slot.0)];
        let Some(sum) = seat.load.reserve(self.cap_now(level, seat, load, selection)) else {
            self.pass_over(level, selection, slot);
            return None;
        };
        Some(self.reserved(selection, slot, sum, shard))
    }

    /// One step of the state machine: a look has found no member (left).
    #[cold]
    fn advance(&self, selection: &mut Selection) {
        let visited = selection.visited | 1 << selection.level();
        let other_level = (0..self.levels.len() as u8).find(|level| visited >> level & 1 == 0);
        let next = selection.stage.follow(self.found(selection, other_level.is_some()), self.all_full);
        let before = selection.stage.left(self.levels_left(selection));
        match (next, other_level) {
            (Next::Continue(stage) | Next::End(stage), _) => selection.stage = stage,
            (Next::SameLevel(stage), _) => self.enter(selection, selection.level(), stage),
            (Next::OtherLevel(stage), Some(level)) => {
                selection.visited = visited;
                (selection.ramped, selection.doubted) = (false, false);
                self.enter(selection, level, stage);
            }
            // Nothing is there to go on with: it is followed only where a level is left.
            (Next::OtherLevel(_), None) => selection.stage = Stage::Exhausted,
            (Next::AllLevels(stage), _) => {
                // Asked again, for a retry, it is full only if a member still has no room.
                (selection.visited, selection.full) = (0, false);
                (selection.ramped, selection.doubted) = (false, false);
                self.enter(selection, selection.home, stage);
            }
        }
        debug_assert!(
            selection.stage.left(self.levels_left(selection)) < before,
            "invariant: each step leaves less to do: {next:?} after {before:?}"
        );
    }

    /// What the look that is over came upon.
    fn found(&self, selection: &Selection, level_left: bool) -> Found {
        let level = &self.levels[usize::from(selection.level())];
        // Looks of policies without a candidate sequence say nothing of the members that they pass over.
        let doubted = if selection.stage == Stage::Strict && !level.order.is_walked() {
            self.any_doubted(level, selection)
        } else {
            selection.doubted
        };
        Found { ramped: selection.ramped, doubted, level_left, full: selection.full }
    }

    /// Whether a member of the level that is believed to be down has not been tried.
    fn any_doubted(&self, level: &Level, selection: &Selection) -> bool {
        let all_doubted = level.all_doubted.load(Relaxed);
        let mut seats = level.slots.iter().map(|&slot| (slot, &self.seats[usize::from(slot)]));
        seats.any(|(slot, seat)| {
            seat.claim() > 0 && (all_doubted || seat.load.is_doubted()) && !selection.tried.contains(slot)
        })
    }

    /// Levels that the search has not left.
    fn levels_left(&self, selection: &Selection) -> u32 {
        self.levels.len() as u32 - selection.visited.count_ones()
    }

    /// What the member may carry in the stage that the selection is in.
    #[inline]
    fn cap_now(&self, level: &Level, seat: &Seat, load: u64, selection: &Selection) -> u32 {
        if selection.stage == Stage::OverBound { seat.requests_max } else { self.cap_of(level, seat, load) }
    }

    /// The next member of the level that accepts the key and has not been tried. `load`: what its members share.
    #[inline]
    fn candidate(&self, level: &Level, selection: &mut Selection, load: u64) -> Option<Slot> {
        if !level.order.is_walked() {
            return self.chosen(level, selection, load);
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
            if seat.weight > 0 && seat.load.accepts(selection.ask.hash, selection.stage) {
                return Some(slot);
            }
            if selection.stage == Stage::Strict {
                selection.skipped += 1;
                let (refuses, doubted) = (seat.claim() > 0, seat.load.is_doubted());
                selection.ramped |= refuses && !doubted;
                selection.doubted |= refuses && doubted;
            }
        }
        None
    }

    /// Of a hot key's owners, the first so many of its walk that are eligible, the less loaded of two drawn.
    fn hot_owner(&self, level: &Level, selection: &mut Selection) -> Option<Slot> {
        let mut owners = [Slot(0); HOT_OWNERS_MAX];
        let mut count = 0;
        let wanted = usize::from(selection.ask.owners).min(HOT_OWNERS_MAX);
        let is_retry = selection.has_tried();
        let mut walk = selection.walk.clone();
        while count < wanted
            && let Some(index) = level.order.step(&mut walk, selection.ask.hash, level.slots.len())
        {
            let slot = Slot(level.slots[usize::from(index.0)]);
            if selection.owner.is_none() {
                selection.owner = Some(slot);
            }
            // Hot keys ignore shedding: there is nowhere colder to go.
            let accepts = self.seats[usize::from(slot.0)].load.accepts_lifecycle(selection.ask.hash);
            if accepts && !(is_retry && selection.tried.contains(slot.0)) {
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
    fn chosen(&self, level: &Level, selection: &mut Selection, load: u64) -> Option<Slot> {
        if selection.stage == Stage::Strict && level.all_doubted.load(Relaxed) {
            return None;
        }
        let index = match &level.order {
            Order::RoundRobin(turns) => self.turned(level, turns, selection, load),
            Order::Drawn(drawn) => self.drawn(level, drawn, selection, load),
            Order::LeastRequest(alias) => self.least_of(level, alias, selection, load),
            Order::Ring(_) | Order::Maglev(_) | Order::Rendezvous(_) | Order::First => None,
        }?;
        let slot = Slot(level.slots[usize::from(index)]);
        selection.owner.get_or_insert(slot);
        Some(slot)
    }

    /// Whose turn it is, if he takes it; else whose the next turns are.
    fn turned(&self, level: &Level, turns: &RoundRobin, selection: &mut Selection, load: u64) -> Option<u16> {
        // A second try takes nobody's turn: one that always fails would else keep step with the turns, and meet the same first
        // tries again and again.
        while !selection.has_tried() && selection.draws < DRAWS_MAX {
            let random = selection.number();
            let (index, is_taken) = turns.turn(self.total.turns(level.key))?;
            selection.owner.get_or_insert(Slot(level.slots[usize::from(index)]));
            if is_taken && self.may_ask(level, selection, index) && self.keeps(level, selection, index, random) {
                return Some(index);
            }
            selection.skipped += u32::from(selection.stage == Stage::Strict);
        }
        self.left(level, selection, None, load)
    }

    fn drawn(&self, level: &Level, drawn: &Drawn, selection: &mut Selection, load: u64) -> Option<u16> {
        let first = self.draw(level, &drawn.alias, selection, None, load)?;
        let seat = |index: u16| &self.seats[usize::from(level.slots[usize::from(index)])];
        // Who is drawn by weight and idle is taken: compared by load for its weight, the lighter of two would never be.
        if drawn.preference == Preference::None
            || drawn.preference == Preference::Load && seat(first).load.in_flight() == 0
        {
            return Some(first);
        }
        let Some(second) = self.draw(level, &drawn.alias, selection, Some(first), load) else { return Some(first) };
        // Latencies know nothing of weights: of two that are as fast, a pair would serve each half, whatever they weigh. So a
        // lighter one is compared with a heavier in as many pairs as the heavier is with it.
        if let (Preference::Cost { .. }, first_claim, second_claim) =
            (drawn.preference, seat(first).claim(), seat(second).claim())
            && second_claim < first_claim
            && part(selection.draw(), first_claim) >= second_claim
        {
            return Some(first);
        }
        let now = selection.ask.now_millis;
        let cost = |index: u16| match drawn.preference {
            Preference::Cost { decay_millis } => seat(index).cost(drawn.alias.mean_claim(), now, decay_millis),
            Preference::Load | Preference::None => seat(index).relative_load(),
        };
        Some(if cost(second) < cost(first) { second } else { first })
    }

    /// A member drawn by its effective weight that may be asked, has room and is not `other`.
    fn draw(
        &self,
        level: &Level,
        alias: &Alias,
        selection: &mut Selection,
        other: Option<u16>,
        load: u64,
    ) -> Option<u16> {
        while selection.draws < DRAWS_MAX {
            let random = selection.draw();
            let index = alias.draw(random)?;
            if Some(index) != other
                && self.may_ask(level, selection, index)
                && self.keeps(level, selection, index, random)
                && self.has_room(level, selection, index, load)
            {
                return Some(index);
            }
        }
        // Most have been asked: one of whoever is left, by weight.
        self.left(level, selection, other, load)
    }

    /// One of those who may be asked and have room, drawn by what they claim; looks at each once.
    fn left(&self, level: &Level, selection: &mut Selection, other: Option<u16>, load: u64) -> Option<u16> {
        self.best(level, selection, other, load, |_| 0.0)
    }

    /// The least loaded for its weight; of equals, one drawn by weight.
    fn least_of(&self, level: &Level, alias: &Alias, selection: &mut Selection, load: u64) -> Option<u16> {
        // Who is drawn by weight and idle is taken: among idle ones loads say nothing, and compared by load for its weight the
        // lighter of two would never be.
        let drawn = self.draw(level, alias, selection, None, load)?;
        if self.seats[usize::from(level.slots[usize::from(drawn)])].load.in_flight() == 0 {
            return Some(drawn);
        }
        let is_idle = |seat: &Seat| seat.load.in_flight() == 0;
        let any_idle = Cell::new(false);
        let busy = |seat: &Seat| {
            any_idle.set(any_idle.get() || is_idle(seat));
            if is_idle(seat) { f64::INFINITY } else { seat.relative_load() }
        };
        let least = self.best(level, selection, None, load, busy);
        if !any_idle.get() {
            return least;
        }
        let most = least
            .map_or(f64::INFINITY, |index| self.seats[usize::from(level.slots[usize::from(index)])].relative_load());
        // Of idle ones that would still carry no more than any other, but for what shares are rounded, one by weight.
        let carries_less = |seat: &Seat| seat.relative_load() <= most * (1.0 + ROUNDING);
        let idle = |seat: &Seat| if is_idle(seat) && carries_less(seat) { 0.0 } else { f64::INFINITY };
        self.best(level, selection, None, load, idle).or(least)
    }

    /// Of those who may be asked and have room, the one with the least finite cost; of equals, one drawn by what they
    /// claim. Looks at each once.
    fn best(
        &self,
        level: &Level,
        selection: &mut Selection,
        other: Option<u16>,
        load: u64,
        cost: impl Fn(&Seat) -> f64,
    ) -> Option<u16> {
        let mut random = selection.draw();
        let (mut least, mut sum, mut best) = (f64::INFINITY, 0_u64, None);
        for index in 0..level.slots.len() as u16 {
            if Some(index) == other
                || !self.may_ask(level, selection, index)
                || !self.has_room(level, selection, index, load)
            {
                continue;
            }
            let seat = &self.seats[usize::from(level.slots[usize::from(index)])];
            let (cost, claim) = (cost(seat), seat.kept_claim());
            if cost > least * (1.0 + ROUNDING) || cost == f64::INFINITY {
                continue;
            }
            if cost < least * (1.0 - ROUNDING) {
                (least, sum) = (cost, 0);
            }
            sum += claim;
            // Each takes the place of its equals before it with its share of their sum. Only high bits count, so that Knuth's
            // multiplication is random enough.
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            if part(random, sum) < claim {
                best = Some(index);
            }
        }
        best
    }

    #[inline]
    fn may_ask(&self, level: &Level, selection: &Selection, index: u16) -> bool {
        let slot = level.slots[usize::from(index)];
        let seat = &self.seats[usize::from(slot)];
        seat.claim() > 0
            && (selection.stage.asks_doubted() || !seat.load.is_doubted())
            && !selection.walk.seen().contains(slot)
            && !selection.tried.contains(slot)
    }

    /// Whether the member is below its cap. Who is not is noted, and not looked at again.
    #[inline]
    fn has_room(&self, level: &Level, selection: &mut Selection, index: u16, load: u64) -> bool {
        let seat = &self.seats[usize::from(level.slots[usize::from(index)])];
        let has_room = seat.load.in_flight() < self.cap_now(level, seat, load, selection);
        if !has_room {
            self.pass_over(level, selection, Slot(level.slots[usize::from(index)]));
        }
        has_room
    }

    /// Notes that a member has no room. Those who choose without a walk have to be told not to choose it again.
    #[cold]
    fn pass_over(&self, level: &Level, selection: &mut Selection, slot: Slot) {
        if !level.order.is_walked() && !selection.walk.seen().contains(slot.0) {
            selection.walk.seen_mut().insert(slot.0, self.seats.len());
        }
        selection.spills += u32::from(matches!(selection.stage, Stage::HotOwners | Stage::Strict));
        selection.full = true;
    }

    /// Whether the member keeps what was drawn for it, and does not shed it.
    #[inline]
    fn keeps(&self, level: &Level, selection: &Selection, index: u16, random: u64) -> bool {
        selection.stage != Stage::Strict || self.seats[usize::from(level.slots[usize::from(index)])].load.keeps(random)
    }

    /// The eligible member with the least load for its effective weight, whatever its bound, of the first level where one is below
    /// its hard limit; of equals, one drawn by weight.
    fn least_loaded(&self, selection: &mut Selection, shard: usize) -> Pick {
        let home = selection.home;
        let levels = std::iter::once(home).chain((0..self.levels.len() as u8).filter(|level| *level != home));
        let mut full = false;
        for level in levels.map(|level| &self.levels[usize::from(level)]) {
            for _ in 0..LOOKS_MAX {
                let random = mix(selection.ask.hash) ^ selection.draw();
                let (mut least, mut sum, mut best) = (f64::INFINITY, 0_u64, None);
                for (slot, seat) in level.slots.iter().map(|&slot| (slot, &self.seats[usize::from(slot)])) {
                    let claim = seat.kept_claim();
                    if claim == 0 || selection.tried.contains(slot) {
                        continue;
                    }
                    let load = seat.relative_load();
                    if seat.load.in_flight() >= seat.requests_max {
                        full = true;
                        continue;
                    }
                    if load < least {
                        (least, sum) = (load, 0);
                    }
                    if load == least {
                        sum += claim;
                        if part(mix(random ^ u64::from(slot)), sum) < claim {
                            best = Some((slot, seat));
                        }
                    }
                }
                let Some((slot, seat)) = best else { break };
                if let Some(sum) = seat.load.reserve(seat.requests_max) {
                    return self.reserved(selection, Slot(slot), sum, shard);
                }
                full = true;
            }
        }
        if full || selection.full { Pick::AllFull } else { Pick::None }
    }

    #[inline]
    fn reserved(&self, selection: &mut Selection, slot: Slot, sum: Sum, shard: usize) -> Pick {
        self.total.add(sum, shard, 1);
        selection.tried.insert(slot.0, self.seats.len());
        Pick::Backend(slot)
    }
}

/// A number below `whole`, from a random one.
#[inline]
fn part(random: u64, whole: u64) -> u64 {
    ((u128::from(random) * u128::from(whole)) >> 64) as u64
}
