//! Looks for policies with keys: along the key's candidate sequence, and among a hot key's owners.

use super::{Group, HOT_OWNERS_MAX, Level};
use crate::selection::Selection;
use crate::slot::Slot;
use crate::stage::Stage;

impl Group {
    /// The next member of the level that accepts the key and has not been tried. `load`: what its members share.
    #[inline]
    pub(super) fn candidate(&self, level: &Level, selection: &mut Selection, load: u64) -> Option<Slot> {
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
    #[inline]
    pub(super) fn hot_owner(&self, level: &Level, selection: &mut Selection) -> Option<Slot> {
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
}
