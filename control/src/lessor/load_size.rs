//! How much there is to work out of all services, so that it has an end.

use super::load_rings::LoadRings;
use crate::loads::Tables;
use std::collections::BTreeMap;

/// What a ring takes, in loads of members: of each member, and besides.
const RING_HELD: (usize, usize) = (16, 64);

/// Services and members of all rings and tables, and how many rings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LoadSize {
    pub(super) services: usize,
    pub(super) members: usize,
    rings: usize,
}

impl LoadSize {
    /// A table of a ring that is there is counted once.
    pub(super) fn of(services: &BTreeMap<String, LoadRings>, tables: &Tables) -> Self {
        let mut size = Self { services: services.len(), ..Self::default() };
        for ring in services.values().flat_map(|service| service.rings.values()) {
            (size.members, size.rings) = (size.members + ring.members, size.rings + 1);
        }
        for (name, table) in &tables.services {
            let known = services.get(name);
            size.services += usize::from(known.is_none());
            if known.is_none_or(|known| !known.rings.contains_key(&table.digest)) {
                size.members += table.table.shed.len();
            }
        }
        size
    }

    /// And another ring; `is_new`: of another service.
    pub(super) fn with(self, is_new: bool, members: usize) -> Self {
        Self { services: self.services + usize::from(is_new), members: self.members + members, rings: self.rings + 1 }
    }

    /// What that takes, in loads of members.
    pub(super) fn held(self) -> usize {
        self.members * RING_HELD.0 + self.rings * RING_HELD.1
    }
}
