//! Where a version of a service places its keys, whatever the state of its backends: what hand-off compares.

use super::shadow::group_of_after;
use ringway_config::model;
use ringway_ring::{BackendSet, BuildError, Slot};

/// Where a configuration places keys when all are healthy and idle.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) set: BackendSet,
    /// In slot order.
    pub(super) members: Box<[PlacedMember]>,
    overprovisioning_percent: u32,
}

/// One of those among whom keys are placed.
#[derive(Debug)]
pub(super) struct PlacedMember {
    pub(super) id: Box<str>,
    /// It takes no new keys.
    drained: bool,
    /// Of its level's keys, by weight.
    pub(super) share: f64,
}

impl Placement {
    pub(super) fn build(before: Option<&BackendSet>, config: &model::Service) -> Result<Self, BuildError> {
        let set = group_of_after(before, config)?;
        let weight = |backend: &model::Backend| if backend.drain { 0 } else { u64::from(backend.weight) };
        let mut levels = std::collections::BTreeMap::<u8, u64>::new();
        for backend in &config.backends {
            *levels.entry(backend.level).or_default() += weight(backend);
        }
        let member = |backend: &model::Backend| PlacedMember {
            id: backend.id.as_str().into(),
            drained: backend.drain,
            share: weight(backend) as f64 / levels[&backend.level].max(1) as f64,
        };
        let mut members: Box<[PlacedMember]> = config.backends.iter().map(member).collect();
        members.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        Ok(Self { set, members, overprovisioning_percent: config.overprovisioning_percent })
    }

    pub(super) fn slot_of(&self, id: &str) -> Option<Slot> {
        let index = self.members.binary_search_by(|known| (*known.id).cmp(id)).ok()?;
        u16::try_from(index).ok().map(Slot)
    }

    /// Whether every key is where it is in another.
    pub(super) fn places_alike(&self, other: &Self) -> bool {
        let drained = |placement: &Self| -> Vec<Box<str>> {
            placement.members.iter().filter(|member| member.drained).map(|member| member.id.clone()).collect()
        };
        self.overprovisioning_percent == other.overprovisioning_percent
            && drained(self) == drained(other)
            && self.set.places_alike(&other.set)
    }
}
