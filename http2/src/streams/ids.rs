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

    fn put(&mut self, id: u32, slot: u32) {
        let mut at = self.home(id);
        while self.entries[at].0 != 0 {
            at = self.next(at);
        }
        self.entries[at] = (id, slot);
    }

    pub(crate) fn remove(&mut self, id: u32) {
        if self.entries.is_empty() {
            return;
        }
        let mut hole = self.home(id);
        while self.entries[hole].0 != id {
            if self.entries[hole].0 == 0 {
                return;
            }
            hole = self.next(hole);
        }
        self.used -= 1;
        // Those behind that would not be found past the hole move up.
        let mut at = hole;
        loop {
            self.entries[hole] = (0, 0);
            loop {
                at = self.next(at);
                let (id, _) = self.entries[at];
                if id == 0 {
                    return;
                }
                let mask = self.entries.len() - 1;
                let way = at.wrapping_sub(self.home(id)) & mask;
                if way >= at.wrapping_sub(hole) & mask {
                    break;
                }
            }
            self.entries[hole] = self.entries[at];
            hole = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 1_u32..80), 1..300)) {
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
                for id in 0..80 {
                    prop_assert_eq!(ids.get(id).filter(|_| id > 0), model.get(&id).copied());
                }
            }
        }
    }
}
