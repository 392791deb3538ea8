//! Places on members: how many each may carry, and taking and giving them back without a choice.

use super::{BackendSet, Level, MemberState};
use crate::load::FULL_SHARE;
use crate::selection::Selection;
use crate::slot::Slot;

impl BackendSet {
    /// Reserves a place on one member for a request that has no choice (an affinity cookie names it), if it is below its
    /// `requests_max` and eligible, or `kept`: then a client that is bound to it already stays, although it takes nothing new, and
    /// counts there alone. `true`: reserved.
    pub fn reserve(&self, selection: &mut Selection, slot: Slot, kept: bool, shard: usize) -> bool {
        let member = &self.members[usize::from(slot.0)];
        if member.effective_weight() == 0 && !kept || selection.tried.contains(slot.0) {
            return false;
        }
        let Some(sum) = member.load.reserve(member.requests_max()) else {
            selection.spills += 1;
            member.load.handle_full();
            return false;
        };
        self.total.add(sum, shard, 1);
        selection.owner.get_or_insert(slot);
        selection.tried.insert(slot.0, self.members.len());
        true
    }

    /// As [`BackendSet::reserve`], also if that member was given before: for a request that is to be tried again there.
    pub fn reserve_again(&self, selection: &mut Selection, slot: Slot, shard: usize) -> bool {
        selection.tried.remove(slot.0);
        self.reserve(selection, slot, false, shard)
    }

    /// Reserves a place on one member below the cap that it has with this weight, for a request whose key is handed off: its `owner` is known,
    /// and the member may be one that takes no new keys. `true`: reserved.
    pub fn reserve_handed(
        &self,
        selection: &mut Selection,
        (slot, weight): (Slot, u32),
        owner: Slot,
        shard: usize,
    ) -> bool {
        let member = &self.members[usize::from(slot.0)];
        if selection.tried.contains(slot.0) {
            return false;
        }
        let Some(sum) = member.load.reserve(self.cap_with(member, weight)) else { return false };
        self.total.add(sum, shard, 1);
        selection.owner.get_or_insert(owner);
        selection.tried.insert(slot.0, self.members.len());
        true
    }

    /// The load that a member may carry now; one that takes no new keys, what it might if it had this weight.
    fn cap_with(&self, member: &MemberState, weight: u32) -> u32 {
        let level = &self.levels[usize::from(member.level)];
        if member.effective_weight() > 0 {
            return self.cap_of(level, member, self.shared_load(level));
        }
        let Some(bound) = self.bound else { return member.requests_max() };
        let own = u64::from(weight) * u64::from(FULL_SHARE);
        let all = self.total.eligible(level.key) + own;
        let fair = (self.shared_load(level) + 1) as f64 * own as f64 / all.max(1) as f64;
        bound.cap(fair, self.total.slack_min()).min(member.requests_max())
    }

    /// Whether a member is left that was not given to this request and takes keys at all, with room or without.
    #[must_use]
    pub fn has_another(&self, selection: &Selection) -> bool {
        let mut members = self.members.iter().enumerate();
        members.any(|(slot, member)| member.effective_weight() > 0 && !selection.tried.contains(slot as u16))
    }

    /// Counts what goes on with a member on which it has begun, whatever became of the member since.
    pub fn resume(&self, slot: Slot, shard: usize) {
        if let Some(sum) = self.members[usize::from(slot.0)].load.reserve(u32::MAX) {
            self.total.add(sum, shard, 1);
        }
    }

    /// Gives a place back: the request has ended.
    #[inline]
    pub fn release(&self, slot: Slot, shard: usize) {
        let sum = self.members[usize::from(slot.0)].load.release();
        self.total.add(sum, shard, -1);
    }

    /// The load that a member may carry now, the request being placed included.
    #[must_use]
    pub fn cap(&self, slot: Slot) -> u32 {
        let member = &self.members[usize::from(slot.0)];
        let level = &self.levels[usize::from(member.level)];
        self.cap_of(level, member, self.shared_load(level))
    }

    /// Load that a level's eligible members share, if that decides anything.
    #[inline]
    pub(super) fn shared_load(&self, level: &Level) -> u64 {
        if self.bound.is_some() { self.total.sum_of(level.key) } else { 0 }
    }

    /// `max(min_slots, ceil(factor * a + slack * sqrt(a)))`, with `a` the fair share of the load, this request
    /// included; at most `requests_max`. A strict bound is strict whatever [`crate::Total::set_slack_min`] says.
    #[inline]
    pub(super) fn cap_of(&self, level: &Level, member: &MemberState, total: u64) -> u32 {
        let Some(bound) = self.bound else { return member.requests_max() };
        let eligible = self.total.eligible(level.key);
        if eligible == 0 {
            return bound.min_slots.min(member.requests_max());
        }
        // Floating point cannot overflow here, and 53 bits are exact far beyond any real load.
        let fair = (total + 1) as f64 * member.effective_weight() as f64 / eligible as f64;
        bound.cap(fair, self.total.slack_min()).min(member.requests_max())
    }
}
