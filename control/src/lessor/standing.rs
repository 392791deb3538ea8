//! Registered backends as of one revision.

use crate::state::{Key, Object, State};
use std::collections::{BTreeSet, HashMap};

/// Registered backends as of one revision: read again only when that has changed.
#[derive(Default)]
pub(super) struct Standing {
    pub(super) at: Option<(u64, u64)>,
    pub(super) ejected: BTreeSet<Key>,
    /// By service.
    pub(super) all: HashMap<String, usize>,
    /// Objects that have been looked at.
    pub(super) looks: u64,
}

impl Standing {
    pub(super) fn follow(&mut self, state: &State) {
        let at = Some((state.epoch, state.revision));
        if self.at == at {
            return;
        }
        (self.at, self.ejected, self.all) = (at, BTreeSet::new(), HashMap::new());
        for (key, entry) in state.objects.iter() {
            self.looks += 1;
            let (Key::Backend { service, .. }, Object::Backend(backend)) = (key, &*entry.object) else { continue };
            match self.all.get_mut(service) {
                Some(count) => *count += 1,
                None => drop(self.all.insert(service.clone(), 1)),
            }
            if backend.ejected {
                self.ejected.insert(key.clone());
            }
        }
    }
}
