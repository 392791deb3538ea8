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

    /// Of a hot key's owners, the first so many of its candidate sequence that are eligible, the less loaded of two drawn. The walk ends
    /// at the later of the two.
    #[inline]
    pub(super) fn hot_owner(&self, level: &Level, selection: &mut Selection) -> Option<Slot> {
        let wanted = usize::from(selection.context.owners).clamp(1, HOT_OWNERS_MAX);
        let mut candidates = selection.candidates.clone();
        let mut next = || level.policy.step(&mut candidates, selection.context.hash, level.slots.len());
        let slot_of = |index: Slot| Slot(level.slots[usize::from(index.0)]);
        let first = slot_of(next()?);
        selection.owner.get_or_insert(first);
        let is_retry = selection.has_tried();
        // Hot keys ignore shedding: there is nowhere colder to go.
        let takes = |slot: Slot| {
            let member = &self.members[usize::from(slot.0)];
            member.weight > 0
                && member.load.accepts_unshed(selection.context.hash)
                && !(is_retry && selection.tried.contains(slot.0))
        };
        let draws =
            |of: usize| [selection.context.chance, selection.context.chance >> 32].map(|draw| draw as usize % of);
        if wanted >= level.slots.len() {
            // All are: where they stand in the sequence is all the same.
            let drawn = draws(level.slots.len()).map(|index| Slot(level.slots[index]));
            if drawn.iter().all(|&slot| takes(slot)) {
                return Some(self.less_loaded(drawn));
            }
        }
        let mut owners = [Slot(0); HOT_OWNERS_MAX];
        let (mut count, mut slot) = (0, Some(first));
        let last = draws(wanted).into_iter().max().unwrap_or(0);
        while count <= last
            && let Some(candidate) = slot
        {
            if takes(candidate) {
                owners[count] = candidate;
                count += 1;
            }
            slot = next().map(slot_of);
        }
        if count == 0 {
            return None;
        }
        // Fewer are there than there should be, perhaps.
        let of = if count > last { wanted } else { count };
        Some(self.less_loaded(draws(of).map(|index| owners[index])))
    }

    /// The first, unless the second carries less for its weight.
    #[inline]
    fn less_loaded(&self, [first, second]: [Slot; 2]) -> Slot {
        let cost = |slot: Slot| self.members[usize::from(slot.0)].relative_load();
        if cost(second) < cost(first) { second } else { first }
    }
}
