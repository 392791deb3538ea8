//! What the previous owner of a key that a change has moved can be asked for, and the next one.

use super::connections::places;
use super::service::Service;
use ringway_ring::{Hash, PreviousOwner, Slot};

impl Service {
    /// What a backend says to a key that it has had, before a change.
    pub(crate) fn previous_owner(&self, slot: Slot, hash: Hash) -> PreviousOwner {
        if !self.may_ask_again(slot) {
            PreviousOwner::Lost
        } else if self.leaves(slot) || self.backend_set.accepts(slot, hash) {
            PreviousOwner::Serves
        } else {
            PreviousOwner::Declines
        }
    }

    /// Whether a copy of a handed key's request may go to this backend, beside those that are under way: where requests leave it half of its
    /// places.
    pub(crate) fn has_room_for_copy(&self, slot: Slot) -> bool {
        let backend = &self.backends[usize::from(slot.0)];
        backend.state.load.in_flight() < places(&self.config, &backend.config).div_ceil(2)
    }

    /// Whether a backend may be asked for keys that it has had: it is well, and if it takes no new ones, that is because it leaves.
    pub(super) fn may_ask_again(&self, slot: Slot) -> bool {
        let backend = &self.backends[usize::from(slot.0)];
        let load = &backend.state.load;
        !load.is_doubted() && !backend.config.maintenance && (self.leaves(slot) || load.active_fraction() > 0)
    }

    /// Whether a backend takes no new keys because its operator wants it to leave.
    fn leaves(&self, slot: Slot) -> bool {
        let backend = &self.backends[usize::from(slot.0)];
        backend.config.drain || backend.config.weight == 0
    }
}
