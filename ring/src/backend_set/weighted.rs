//! Looks for policies without keys: turns, draws by weight, comparisons of loads.

use super::{BackendSet, Level, MemberState};
use crate::policy::{Alias, Drawn, Policy, Preference};
use crate::round_robin::RoundRobin;
use crate::selection::Selection;
use crate::slot::Slot;
use crate::stage::Stage;
use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

/// Draws that may fail before all members are looked at in order.
const DRAWS_MAX: u32 = 16;
/// Loads that differ by less are equal: shares are rounded, and half of 100 is to be as good as 50.
const ROUNDING: f64 = 1e-3;

impl BackendSet {
    /// For policies without a candidate sequence: the one to be asked next.
    pub(super) fn chosen(&self, level: &Level, selection: &mut Selection, load: u64) -> Option<Slot> {
        if selection.stage == Stage::Strict && level.all_doubted.load(Relaxed) {
            return None;
        }
        let index = match &*level.policy {
            Policy::RoundRobin(turns) => self.turned(level, turns, selection, load),
            Policy::Drawn(drawn) => self.drawn(level, drawn, selection, load),
            Policy::LeastRequest(alias) => self.least_of(level, alias, selection, load),
            Policy::Ring(_) | Policy::Maglev(_) | Policy::Rendezvous(_) | Policy::First => None,
        }?;
        let slot = Slot(level.slots[usize::from(index)]);
        selection.owner.get_or_insert(slot);
        Some(slot)
    }

    /// The member whose turn it is, if it takes it; else one of those whose turns are next.
    fn turned(&self, level: &Level, turns: &RoundRobin, selection: &mut Selection, load: u64) -> Option<u16> {
        // A second try takes no turn: a member that always fails would else keep step with the turns, and meet the same first
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
        let member = |index: u16| &self.members[usize::from(level.slots[usize::from(index)])];
        // A member that is drawn by weight and idle is taken: compared by load for its weight, the lighter of two would never be.
        if drawn.preference == Preference::None
            || drawn.preference == Preference::Load && member(first).load.in_flight() == 0
        {
            return Some(first);
        }
        let Some(second) = self.draw(level, &drawn.alias, selection, Some(first), load) else { return Some(first) };
        // Latencies know nothing of weights: of two that are as fast, a pair would serve each half, whatever they weigh. So a
        // lighter one is compared with a heavier in as many pairs as the heavier is with it.
        if let (Preference::Cost { .. }, first_claim, second_claim) =
            (drawn.preference, member(first).effective_weight(), member(second).effective_weight())
            && second_claim < first_claim
            && part(selection.draw(), first_claim) >= second_claim
        {
            return Some(first);
        }
        let now = selection.context.now_millis;
        let cost = |index: u16| match drawn.preference {
            Preference::Cost { decay_millis } => member(index).cost(drawn.alias.mean_weight(), now, decay_millis),
            Preference::Load | Preference::None => member(index).relative_load(),
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
        // Most have been asked: one of the members that are left, by weight.
        self.left(level, selection, other, load)
    }

    /// One of the members that may be asked and have room, drawn by weight. Looks at each once.
    fn left(&self, level: &Level, selection: &mut Selection, other: Option<u16>, load: u64) -> Option<u16> {
        self.best(level, selection, other, load, |_| 0.0)
    }

    /// The least loaded for its weight; of equals, one drawn by weight.
    fn least_of(&self, level: &Level, alias: &Alias, selection: &mut Selection, load: u64) -> Option<u16> {
        // A member that is drawn by weight and idle is taken: among idle ones loads say nothing, and compared by load for its weight the
        // lighter of two would never be.
        let drawn = self.draw(level, alias, selection, None, load)?;
        if self.members[usize::from(level.slots[usize::from(drawn)])].load.in_flight() == 0 {
            return Some(drawn);
        }
        let is_idle = |member: &MemberState| member.load.in_flight() == 0;
        let any_idle = Cell::new(false);
        let busy = |member: &MemberState| {
            any_idle.set(any_idle.get() || is_idle(member));
            if is_idle(member) { f64::INFINITY } else { member.relative_load() }
        };
        let least = self.best(level, selection, None, load, busy);
        if !any_idle.get() {
            return least;
        }
        let most = least
            .map_or(f64::INFINITY, |index| self.members[usize::from(level.slots[usize::from(index)])].relative_load());
        // Of idle ones that would still carry no more than any other, but for what shares are rounded, one by weight.
        let carries_less = |member: &MemberState| member.relative_load() <= most * (1.0 + ROUNDING);
        let idle = |member: &MemberState| if is_idle(member) && carries_less(member) { 0.0 } else { f64::INFINITY };
        self.best(level, selection, None, load, idle).or(least)
    }

    /// Of the members that may be asked and have room, the one with the least finite cost; of equals, one drawn by weight.
    /// Looks at each once.
    fn best(
        &self,
        level: &Level,
        selection: &mut Selection,
        other: Option<u16>,
        load: u64,
        cost: impl Fn(&MemberState) -> f64,
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
            let member = &self.members[usize::from(level.slots[usize::from(index)])];
            let (cost, weight) = (cost(member), member.kept_weight());
            if cost > least * (1.0 + ROUNDING) || cost == f64::INFINITY {
                continue;
            }
            if cost < least * (1.0 - ROUNDING) {
                (least, sum) = (cost, 0);
            }
            sum += weight;
            // Each takes the place of its equals before it with its share of their sum. Only high bits count, so that Knuth's
            // multiplication is random enough.
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            if part(random, sum) < weight {
                best = Some(index);
            }
        }
        best
    }

    #[inline]
    fn may_ask(&self, level: &Level, selection: &Selection, index: u16) -> bool {
        let slot = level.slots[usize::from(index)];
        let member = &self.members[usize::from(slot)];
        member.effective_weight() > 0
            && (selection.stage.asks_doubted() || !member.load.is_doubted())
            && !selection.candidates.seen().contains(slot)
            && !selection.tried.contains(slot)
    }

    /// Whether the member is below its cap. One that is not is noted, and not looked at again.
    #[inline]
    fn has_room(&self, level: &Level, selection: &mut Selection, index: u16, load: u64) -> bool {
        let member = &self.members[usize::from(level.slots[usize::from(index)])];
        let has_room = member.load.in_flight() < self.cap_now(level, member, load, selection);
        if !has_room {
            self.pass_over(level, selection, Slot(level.slots[usize::from(index)]));
        }
        has_room
    }

    /// Whether the member keeps what was drawn for it, and does not shed it.
    #[inline]
    fn keeps(&self, level: &Level, selection: &Selection, index: u16, random: u64) -> bool {
        selection.stage != Stage::Strict
            || self.members[usize::from(level.slots[usize::from(index)])].load.keeps(random)
    }
}

/// A number below `whole`, from a random one.
#[inline]
pub(super) fn part(random: u64, whole: u64) -> u64 {
    ((u128::from(random) * u128::from(whole)) >> 64) as u64
}
