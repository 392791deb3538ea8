//! Places on members: how many each may carry, and taking and giving them back without a choice.

use super::{BackendSet, Level, MemberState};
use crate::selection::Selection;
use crate::slot::Slot;

/// What a member still carries of what it had before a change, whose keys go over little by little.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct HeldShare {
    /// Its share of its level's load before the change: 0 to 1.
    pub before: f64,
    /// The share of the moved keys that may not go over yet: 0 to 1.
    pub left: f64,
}

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

    /// Reserves a place on one member below the cap that it has with what it still holds, for a request whose key is handed off: its `owner`
    /// is known, and the member may be one that takes no new keys. `true`: reserved.
    pub fn reserve_handed(
        &self,
        selection: &mut Selection,
        (slot, held): (Slot, HeldShare),
        owner: Slot,
        shard: usize,
    ) -> bool {
        let member = &self.members[usize::from(slot.0)];
        if selection.tried.contains(slot.0) {
            return false;
        }
        let Some(sum) = member.load.reserve(self.cap_with(member, held)) else { return false };
        self.total.add(sum, shard, 1);
        selection.owner.get_or_insert(owner);
        selection.tried.insert(slot.0, self.members.len());
        true
    }

    /// Whether a place could be reserved on one member as [`BackendSet::reserve_handed`] does.
    #[must_use]
    pub fn has_room_handed(&self, (slot, held): (Slot, HeldShare)) -> bool {
        let member = &self.members[usize::from(slot.0)];
        member.load.in_flight() < self.cap_with(member, held)
    }

    /// The load that a member may carry now, while it goes from its share before a change to the one that it has since: each key that has
    /// not gone over is its load still.
    fn cap_with(&self, member: &MemberState, held: HeldShare) -> u32 {
        let Some(bound) = self.bound else { return member.requests_max() };
        let level = &self.levels[usize::from(member.level)];
        let weight = member.effective_weight();
        // What the members of the level share has no part of one that takes no new keys.
        let own = if weight == 0 { u64::from(member.load.in_flight()) } else { 0 };
        let all = (self.shared_load(level) + own + 1) as f64;
        let since = weight as f64 / self.total.eligible(level.key).max(1) as f64;
        let share = since + (held.before - since).max(0.0) * held.left;
        bound.cap(all * share, self.total.slack_min()).min(member.requests_max())
    }

    /// Whether a member is left that was not given to this request and takes keys at all, with room or without.
    #[must_use]
    pub fn has_another(&self, selection: &Selection) -> bool {
        let mut members = self.members.iter().enumerate();
        members.any(|(slot, member)| member.effective_weight() > 0 && !selection.tried.contains(slot as u16))
    }

    /// Whether a member has fewer requests than it may have.
    #[must_use]
    pub fn takes_more(&self, slot: Slot) -> bool {
        let member = &self.members[usize::from(slot.0)];
        member.load.in_flight() < member.requests_max()
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

#[cfg(test)]
mod tests {
    use super::HeldShare;
    use crate::backend_set::{BackendSet, MemberSpec};
    use crate::{BoundParams, Load, Pick, PickContext, PolicyParams, RingParams, Slot, Total, hash_key};
    use std::sync::Arc;

    /// Members of weight 100, of which the last one leaves, and 20 requests that the others have.
    struct Fleet {
        set: BackendSet,
        loads: Vec<Arc<Load>>,
        total: Arc<Total>,
    }

    impl Fleet {
        fn new(bound: Option<BoundParams>, requests_max: u32) -> Self {
            let loads: Vec<Arc<Load>> = ["a", "b", "c"].map(|id| Arc::new(Load::new(id))).into();
            let total = Arc::new(Total::new(1));
            let spec = |(id, load): (&'static str, &Arc<Load>)| MemberSpec {
                id,
                weight: 100,
                requests_max,
                level: 0,
                load: Arc::clone(load),
            };
            let members = ["a", "b", "c"].into_iter().zip(&loads).map(spec);
            let params = PolicyParams::Ring(RingParams { points: 64, seed: 0 });
            let set = BackendSet::build(params, bound, members, Arc::clone(&total)).unwrap();
            set.install();
            loads[2].set_active_fraction(0);
            set.refresh();
            let fleet = Self { set, loads, total };
            for number in 0..20 {
                let mut selection = fleet.begin(number);
                assert!(matches!(fleet.set.next(&mut selection, 0), Pick::Backend(slot) if slot != LEAVING));
            }
            fleet
        }

        fn begin(&self, number: u64) -> crate::Selection {
            self.set.begin(PickContext { hash: hash_key(&number.to_le_bytes(), 0), ..PickContext::default() })
        }

        fn reserve(&self, number: u64, slot: Slot) -> bool {
            self.set.reserve_handed(&mut self.begin(number), (slot, A_THIRD), Slot(0), 0)
        }

        /// How many places are given on a member, one after the other.
        fn fill(&self, slot: Slot) -> usize {
            let reserves = |number: &u64| {
                let said = self.set.has_room_handed((slot, A_THIRD));
                let reserved = self.reserve(*number, slot);
                assert_eq!(said, reserved, "who asks is told what would be");
                reserved
            };
            (100..200).take_while(reserves).count()
        }
    }

    const LEAVING: Slot = Slot(2);

    /// What each has had, just after the change.
    const A_THIRD: HeldShare = HeldShare { before: 1.0 / 3.0, left: 1.0 };

    fn bound(slack: f64) -> Option<BoundParams> {
        Some(BoundParams { factor: 1.25, slack, min_slots: 1 })
    }

    #[test]
    fn a_leaving_member_carries_for_handed_keys_what_its_weight_would_allow_beside_the_others() {
        let fleet = Fleet::new(bound(0.0), u32::MAX);
        // A third of what the others have, of what it has itself, and of this one, times 1.25: as many as before the change.
        assert_eq!(fleet.fill(LEAVING), 15);
        assert_eq!((fleet.loads[2].in_flight(), fleet.total.sum()), (15, 35));
        // A place that is given back is given again, once.
        fleet.set.release(LEAVING, 0);
        assert_eq!((fleet.loads[2].in_flight(), fleet.fill(LEAVING)), (14, 1));
        (0..15).for_each(|_| fleet.set.release(LEAVING, 0));
        assert_eq!((fleet.loads[2].in_flight(), fleet.total.sum()), (0, 20));
        // Half of its keys have had their time: a sixth.
        let half = HeldShare { left: 0.5, ..A_THIRD };
        let half = (0..100).take_while(|_| fleet.set.reserve_handed(&mut fleet.begin(7), (LEAVING, half), Slot(0), 0));
        assert_eq!(half.count(), 6);
    }

    #[test]
    fn a_strict_bound_is_strict_for_handed_keys_too_and_one_with_slack_has_the_fleets() {
        for (slack, least, expected) in [(0.0, 3.0, 15), (2.0, 3.0, 38), (2.0, 0.0, 29)] {
            let fleet = Fleet::new(bound(slack), u32::MAX);
            fleet.total.set_slack_min(least);
            assert_eq!(fleet.fill(LEAVING), expected, "{slack} {least}");
        }
    }

    #[test]
    fn a_member_that_takes_new_keys_carries_handed_ones_below_its_cap_or_what_its_share_was_while_keys_go_over() {
        let fleet = Fleet::new(bound(0.0), u32::MAX);
        let had_more = HeldShare { before: 0.75, left: 1.0 };
        assert!(fleet.set.has_room_handed((Slot(1), had_more)));
        let before = fleet.loads[1].in_flight();
        while fleet.loads[1].in_flight() < fleet.set.cap(Slot(1)) {
            assert!(fleet.reserve(1, Slot(1)));
        }
        assert!(!fleet.reserve(1, Slot(1)) && fleet.loads[1].in_flight() > before);
        let left = |left| fleet.set.has_room_handed((Slot(1), HeldShare { left, ..had_more }));
        assert!(left(1.0) && left(0.5) && !left(0.0), "as its keys go over, so does its share");
        assert_eq!(fleet.total.sum(), 20 + u64::from(fleet.loads[1].in_flight() - before));
    }

    #[test]
    fn without_a_bound_there_is_requests_max_and_a_limit_that_was_set() {
        let fleet = Fleet::new(None, 30);
        assert_eq!(fleet.fill(LEAVING), 30);
        fleet.loads[2].set_limit(31);
        assert_eq!(fleet.fill(LEAVING), 0);
        fleet.set.release(LEAVING, 0);
        fleet.loads[2].set_limit(29);
        assert_eq!(fleet.fill(LEAVING), 0);
    }

    #[test]
    fn one_request_has_no_two_places_on_a_member_and_belongs_to_the_owner_that_was_said() {
        let fleet = Fleet::new(bound(0.0), u32::MAX);
        let mut selection = fleet.begin(1);
        assert!(fleet.set.reserve_handed(&mut selection, (LEAVING, A_THIRD), Slot(1), 0));
        assert!(!fleet.set.reserve_handed(&mut selection, (LEAVING, A_THIRD), Slot(1), 0));
        assert_eq!((selection.owner(), fleet.loads[2].in_flight()), (Some(Slot(1)), 1));
        // A try that fails there goes on to others.
        assert!(matches!(fleet.set.next(&mut selection, 0), Pick::Backend(slot) if slot != LEAVING));
    }
}
