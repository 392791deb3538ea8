//! From identifier to slot.

/// A table with open addressing. Identifiers rise by two, so those in use lie side by side: nearly each is found at the first look.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    /// Identifier and slot; no identifier is 0. As many as a power of two, less than half of them in use.
    entries: Vec<(u32, u32)>,
    used: usize,
}

const ENTRIES_MIN: usize = 16;

impl Ids {
    fn home(&self, id: u32) -> usize {
        (id >> 1) as usize & (self.entries.len() - 1)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.entries.len() - 1)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<(u32, u32)>()
    }

    pub(crate) fn get(&self, id: u32) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        let mut at = self.home(id);
        loop {
            match self.entries[at] {
                (found, slot) if found == id => return Some(slot),
                (0, _) => return None,
                _ => at = self.next(at),
            }
        }
    }

    /// It is not in yet.
    pub(crate) fn insert(&mut self, id: u32, slot: u32) {
        if (self.used + 1) * 2 > self.entries.len() {
            let grown = vec![(0, 0); (self.entries.len() * 2).max(ENTRIES_MIN)];
            let old = std::mem::replace(&mut self.entries, grown);
            old.into_iter().filter(|(id, _)| *id != 0).for_each(|(id, slot)| self.put(id, slot));
        }
        self.put(id, slot);
        self.used += 1;
    }

    /// How far an entry is from where it is looked for first.
    fn way(&self, at: usize) -> usize {
        at.wrapping_sub(self.home(self.entries[at].0)) & (self.entries.len() - 1)
    }

    /// Entries further from home go first: so removing one moves no entry that is at home, nor any behind it.
    fn put(&mut self, id: u32, slot: u32) {
        let (mut at, mut way, mut entry) = (self.home(id), 0, (id, slot));
        while self.entries[at].0 != 0 {
            let other = self.way(at);
            if other < way {
                std::mem::swap(&mut self.entries[at], &mut entry);
                way = other;
            }
            (at, way) = (self.next(at), way + 1);
        }
        self.entries[at] = entry;
    }

    pub(crate) fn remove(&mut self, id: u32) {
        if self.entries.is_empty() {
            return;
        }
        let mut at = self.home(id);
        while self.entries[at].0 != id {
            if self.entries[at].0 == 0 {
                return;
            }
            at = self.next(at);
        }
        self.used -= 1;
        // Those behind that are not at home move up.
        loop {
            let next = self.next(at);
            if self.entries[next].0 == 0 || self.way(next) == 0 {
                self.entries[at] = (0, 0);
                return;
            }
            self.entries[at] = self.entries[next];
            at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn less_than_half_of_the_room_is_in_use_and_it_doubles() {
        let mut ids = Ids::default();
        assert_eq!(ids.memory_bytes(), 0);
        for number in 0..200_u32 {
            ids.insert(2 * number + 1, number);
            let room = ids.entries.len();
            assert!(room.is_power_of_two() && 2 * ids.used <= room && room <= ENTRIES_MIN.max(4 * ids.used), "{room}");
            assert!((8 * room..=16 * room).contains(&ids.memory_bytes()), "an identifier and a slot for each");
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), prop_oneof![1_u32..80, (1_u32..80).prop_map(|id| id * 64)]), 1..300)) {
            let (mut ids, mut model) = (Ids::default(), BTreeMap::new());
            for (slot, (inserts, id)) in steps.into_iter().enumerate() {
                let slot = slot as u32;
                if inserts && !model.contains_key(&id) {
                    ids.insert(id, slot);
                    model.insert(id, slot);
                } else {
                    ids.remove(id);
                    model.remove(&id);
                }
                prop_assert_eq!(ids.used, model.len());
                for id in (1..80).chain((1..80).map(|id| id * 64)) {
                    prop_assert_eq!(ids.get(id), model.get(&id).copied());
                }
            }
        }
    }
}
