//! Looks for policies with keys: along the key's candidate sequence, and among a hot key's owners.

use super::{BackendSet, HOT_OWNERS_MAX, Level};
use crate::selection::Selection;
use crate::slot::Slot;
use crate::stage::Stage;

impl BackendSet {
    /// The next member of the level that accepts the key and has not been tried. `load`: what its members share.
    #[inline]
    pub(super) fn candidate(&self, level: &Level, selection: &mut Selection, load: u64) -> Option<Slot> {
        if !level.policy.has_sequence() {
            return self.chosen(level, selection, load);
        }
        while let Some(index) = level.policy.step(&mut selection.candidates, selection.context.hash, level.slots.len())
        {
            let slot = Slot(level.slots[usize::from(index.0)]);
            if selection.owner.is_none() {
                selection.owner = Some(slot);
            }
            if selection.tried.contains(slot.0) {
                continue;
            }
            let member = &self.members[usize::from(slot.0)];
            if member.weight > 0 && member.load.accepts(selection.context.hash, selection.stage) {
                return Some(slot);
            }
            if selection.stage == Stage::Strict {
                selection.skipped += 1;
                let (refuses, doubted) = (member.effective_weight() > 0, member.load.is_doubted());
                selection.ramped |= refuses && !doubted;
                selection.doubted |= refuses && doubted;
            }
        }
        None
    }

    /// Of a hot key's owners, the first so many of its candidate sequence that are eligible, the less loaded of two drawn.
    #[inline]
    pub(super) fn hot_owner(&self, level: &Level, selection: &mut Selection) -> Option<Slot> {
        let mut owners = [Slot(0); HOT_OWNERS_MAX];
        let mut count = 0;
        let wanted = usize::from(selection.context.owners).min(HOT_OWNERS_MAX);
        let is_retry = selection.has_tried();
        let mut candidates = selection.candidates.clone();
        while count < wanted
            && let Some(index) = level.policy.step(&mut candidates, selection.context.hash, level.slots.len())
        {
            let slot = Slot(level.slots[usize::from(index.0)]);
            if selection.owner.is_none() {
                selection.owner = Some(slot);
            }
            // Hot keys ignore shedding: there is nowhere colder to go.
            let accepts = self.members[usize::from(slot.0)].load.accepts_unshed(selection.context.hash);
            if accepts && !(is_retry && selection.tried.contains(slot.0)) {
                owners[count] = slot;
                count += 1;
            }
        }
        let owners = &owners[..count];
        if owners.is_empty() {
            return None;
        }
        let first = owners[(selection.context.chance % count as u64) as usize];
        let second = owners[((selection.context.chance >> 32) % count as u64) as usize];
        let cost = |slot: Slot| self.members[usize::from(slot.0)].relative_load();
        Some(if cost(second) < cost(first) { second } else { first })
    }
}
