//! A service's backends as requests see them: which is next for this key, and has it room?

use crate::load::Load;
use crate::params::{AllFull, BoundParams, PolicyParams};
use crate::pick_context::PickContext;
use crate::policy::Policy;
use crate::ring::{BuildError, Member, Roster, check_members};
use crate::slot::Slot;
use crate::sum::LEVELS_MAX;
use crate::total::Total;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

mod accept;
mod keyed;
mod least_loaded;
mod member;
mod pick;
mod placement;
mod reckon;
mod reserve;
mod weighted;

use member::MemberState;
pub use reserve::HeldShare;

/// All keys, in the units of level shares.
const ALL_KEYS: u32 = 1 << 16;
/// Keeps the choice of a level apart from places on the ring.
const LEVEL_SALT: u64 = 0x7269_6e67_7761_7901;
/// Owners of a hot key at most.
pub const HOT_OWNERS_MAX: usize = 32;

/// A member as a set is built from it.
#[derive(Debug, Clone)]
pub struct MemberSpec<'a> {
    /// Stable identity.
    pub id: &'a str,
    /// In percent; 100 is normal, 0 takes nothing.
    pub weight: u32,
    /// Hard limit on its requests in flight; `u32::MAX` is none.
    pub requests_max: u32,
    /// Preference: lower levels take all that they can (tiers, zones). Below [`LEVELS_MAX`].
    pub level: u8,
    /// What is known of it right now.
    pub load: Arc<Load>,
}

/// Members, their order, their bound. Immutable but for the loads.
#[derive(Debug)]
pub struct BackendSet {
    /// Most preferred first.
    levels: Box<[Level]>,
    bound: Option<BoundParams>,
    all_full: AllFull,
    /// In slot order.
    members: Box<[MemberState]>,
    total: Arc<Total>,
    /// Its number among the sets of the total.
    number: u64,
    policy: PolicyParams,
}

/// Members of equal preference. Most sets have one level.
#[derive(Debug)]
struct Level {
    key: u8,
    /// Held by sets that follow one another, as long as the level's members and their weights are the same.
    policy: Arc<Policy>,
    roster: Arc<Roster>,
    /// Slots of the members, which `order` knows by index.
    slots: Box<[u16]>,
    /// Keys up to here, of [`ALL_KEYS`], have their home in this level or one before.
    up_to: AtomicU32,
    /// No member is known to be up: policies without a candidate sequence need not look for one.
    all_doubted: AtomicBool,
}

/// What a step gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// A place is reserved there; give it back by [`BackendSet::release`].
    Backend(Slot),
    /// Members are eligible, but none has room.
    AllFull,
    /// No member is eligible, or all that are have been tried.
    None,
}

impl BackendSet {
    /// Builds a set. Members are put into the order of their ids: their slots.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build<'a>(
        policy: PolicyParams,
        bound: Option<BoundParams>,
        members: impl IntoIterator<Item = MemberSpec<'a>>,
        total: Arc<Total>,
    ) -> Result<Self, BuildError> {
        Self::build_after(None, policy, bound, members, total)
    }

    /// As [`BackendSet::build`], and the set is the same as one that is built so; but it is made of what it has in common with the one
    /// before: levels with the same members and weights are shared, and a ring has all blocks that no point joins or leaves.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build_after<'a>(
        before: Option<&Self>,
        policy: PolicyParams,
        bound: Option<BoundParams>,
        members: impl IntoIterator<Item = MemberSpec<'a>>,
        total: Arc<Total>,
    ) -> Result<Self, BuildError> {
        let mut members: Vec<MemberSpec<'a>> = members.into_iter().collect();
        members.sort_by(|a, b| a.id.cmp(b.id));
        check_members(members.iter().map(|member| (member.id, member.weight)))?;
        let mut keys: Vec<u8> = members.iter().map(|member| member.level % LEVELS_MAX as u8).collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            keys.push(0);
        }
        let level = |&key: &u8| {
            let known = before.and_then(|before| {
                let level = before.levels.iter().find(|level| level.key == key)?;
                // What follows effective weights follows those of its own total.
                let is_of_use = level.policy.has_sequence() || Arc::ptr_eq(&before.total, &total);
                is_of_use.then_some((level, before.policy))
            });
            Level::build(key, policy, &members, known)
        };
        let levels = keys.iter().map(level).collect::<Result<_, BuildError>>()?;
        let members = members
            .into_iter()
            .map(|member| MemberState {
                load: member.load,
                weight: member.weight,
                own_requests_max: member.requests_max,
                level: keys.iter().position(|&key| key == member.level % LEVELS_MAX as u8).unwrap_or(0) as u8,
            })
            .collect();
        let number = total.number_group();
        Ok(Self { levels, bound, all_full: AllFull::default(), members, total, number, policy })
    }

    /// What is done when no eligible member has room, be it for the bound or for `requests_max`.
    #[must_use]
    pub fn with_all_full(self, all_full: AllFull) -> Self {
        Self { all_full, ..self }
    }
}

impl Level {
    /// `members` are all of the set, in slot order. `before`: the level in the set before, and its policy.
    fn build(
        key: u8,
        policy: PolicyParams,
        members: &[MemberSpec<'_>],
        before: Option<(&Self, PolicyParams)>,
    ) -> Result<Self, BuildError> {
        let chosen = || (0_u16..).zip(members).filter(|(_, member)| member.level % LEVELS_MAX as u8 == key);
        let list: Vec<Member<'_>> =
            chosen().map(|(_, member)| Member { id: member.id, weight: member.weight }).collect();
        let roster = Arc::new(Roster::new(&list)?);
        let (policy, roster) = match before {
            Some((level, params)) if params == policy && level.roster == roster => {
                (Arc::clone(&level.policy), Arc::clone(&level.roster))
            }
            before => (Arc::new(Policy::build(policy, &roster, before.map(|(level, _)| &*level.policy))?), roster),
        };
        let by_rank: Box<[u16]> = chosen().map(|(slot, _)| slot).collect();
        let slots = match policy.ranks() {
            Some(ranks) => ranks.iter().map(|&rank| by_rank[usize::from(rank)]).collect(),
            None => by_rank,
        };
        Ok(Self { key, policy, roster, slots, up_to: AtomicU32::new(ALL_KEYS), all_doubted: AtomicBool::new(false) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{MaglevParams, RendezvousParams, RingParams};

    const POLICIES: [PolicyParams; 7] = [
        PolicyParams::Ring(RingParams { points: 256, seed: 0 }),
        PolicyParams::Maglev(MaglevParams { table_size: 997, seed: 0 }),
        PolicyParams::Rendezvous(RendezvousParams { seed: 0 }),
        PolicyParams::RoundRobin,
        PolicyParams::PowerOfTwo,
        PolicyParams::LeastRequest,
        PolicyParams::First,
    ];

    fn after(before: Option<&BackendSet>, policy: PolicyParams, list: &[(&str, u8)], total: &Arc<Total>) -> BackendSet {
        let members = list.iter().map(|&(id, level)| MemberSpec {
            id,
            weight: 100,
            requests_max: u32::MAX,
            level,
            load: Arc::new(Load::new(id)),
        });
        BackendSet::build_after(before, policy, None, members, Arc::clone(total)).unwrap()
    }

    #[test]
    fn levels_that_do_not_change_are_shared_also_where_their_members_have_other_slots() {
        for policy in POLICIES {
            let total = Arc::new(Total::new(1));
            let first = after(None, policy, &[("b", 0), ("d", 0), ("c", 1)], &total);
            let next = after(Some(&first), policy, &[("a", 1), ("b", 0), ("c", 1), ("d", 0)], &total);
            assert!(Arc::ptr_eq(&first.levels[0].policy, &next.levels[0].policy), "{policy:?}");
            assert!(!Arc::ptr_eq(&first.levels[1].policy, &next.levels[1].policy), "{policy:?}");
            assert_eq!((&*first.levels[0].slots, &*next.levels[0].slots), (&[0, 2][..], &[1, 3][..]));
            // Nothing is shared with what counts elsewhere, unless it follows nothing that is counted.
            let apart = after(Some(&next), policy, &[("b", 0), ("d", 0)], &Arc::new(Total::new(1)));
            let shared = Arc::ptr_eq(&next.levels[0].policy, &apart.levels[0].policy);
            assert_eq!(shared, next.levels[0].policy.has_sequence(), "{policy:?}");
        }
        // Another policy, or the same with other parameters, shares nothing.
        let total = Arc::new(Total::new(1));
        let first = after(None, POLICIES[0], &[("a", 0)], &total);
        for policy in [POLICIES[1], PolicyParams::Ring(RingParams { points: 256, seed: 1 })] {
            let next = after(Some(&first), policy, &[("a", 0)], &total);
            assert!(!Arc::ptr_eq(&first.levels[0].policy, &next.levels[0].policy));
            assert_eq!(next.digest(), after(None, policy, &[("a", 0)], &total).digest());
        }
    }

    #[test]
    fn a_member_that_joins_in_the_middle_has_the_slot_of_its_id_and_the_last_of_the_ring() {
        let total = Arc::new(Total::new(1));
        let first = after(None, POLICIES[0], &["a", "b", "d", "e", "f", "g"].map(|id| (id, 0)), &total);
        let list = ["a", "b", "c", "d", "e", "f", "g"].map(|id| (id, 0));
        let next = after(Some(&first), POLICIES[0], &list, &total);
        assert_eq!(&*next.levels[0].slots, [0, 1, 3, 4, 5, 6, 2]);
        let anew = after(None, POLICIES[0], &list, &total);
        assert_eq!((next.digest(), next.shares()), (anew.digest(), anew.shares()));
        for hash in (0..200_u64).map(crate::hash::mix) {
            assert_eq!((next.owner(hash), next.sequence(hash)), (anew.owner(hash), anew.sequence(hash)));
        }
    }
}
