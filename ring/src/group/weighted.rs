//! Looks for policies without keys: turns, draws by weight, comparisons of loads.

use super::{Group, Level, Seat};
use crate::order::{Alias, Drawn, Order, Preference};
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

impl Group {
    /// For policies without a walk: the one to be asked next.
    pub(super) fn chosen(&self, level: &Level, selection: &mut Selection, load: u64) -> Option<Slot> {
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

    /// Whether the member keeps what was drawn for it, and does not shed it.
    #[inline]
    fn keeps(&self, level: &Level, selection: &Selection, index: u16, random: u64) -> bool {
        selection.stage != Stage::Strict || self.seats[usize::from(level.slots[usize::from(index)])].load.keeps(random)
    }
}

/// A number below `whole`, from a random one.
#[inline]
pub(super) fn part(random: u64, whole: u64) -> u64 {
    ((u128::from(random) * u128::from(whole)) >> 64) as u64
}
