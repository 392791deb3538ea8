//! Who is in a ring or a level: ids and weights in the order of the ids, and which slot each has.

use std::cmp::Ordering;
use thiserror::Error;

/// Largest weight, in percent.
pub const WEIGHT_MAX: u32 = 1600;
/// So many members at most: a slot has 16 bits, and one value is spare.
pub(super) const MEMBERS_MAX: usize = 65_535;

/// A member as the ring is built from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Stable identity: what is hashed.
    pub id: &'a str,
    /// In percent; 100 is normal, 0 has no points.
    pub weight: u32,
}

/// Why a ring cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Two members have the same id.
    #[error("two members have the id {0:?}")]
    DuplicateId(String),
    /// A weight is above [`WEIGHT_MAX`].
    #[error("member {id:?} has weight {weight}, above {WEIGHT_MAX}")]
    Weight {
        /// The member.
        id: String,
        /// Its weight.
        weight: u32,
    },
    /// More than 65,535 members.
    #[error("{0} members, more than 65535")]
    TooManyMembers(usize),
    /// More than 2^30 points in all.
    #[error("{0} points, more than 2^30")]
    TooManyPoints(u64),
    /// The size of a Maglev table is not a prime, too large, or smaller than the number of members.
    #[error("a Maglev table cannot have {0} entries: a prime of at most 5000011, and more than there are members")]
    TableSize(u32),
    /// A member without points per weight.
    #[error("a ring needs at least one point per 100 of weight")]
    NoPoints,
}

/// Whether a set can be built of these members, given by id and weight in the order of their ids.
///
/// # Errors
/// [`BuildError::TooManyMembers`], [`BuildError::DuplicateId`], [`BuildError::Weight`].
pub(crate) fn check_members<'a>(
    members: impl ExactSizeIterator<Item = (&'a str, u32)> + Clone,
) -> Result<(), BuildError> {
    if members.len() > MEMBERS_MAX {
        return Err(BuildError::TooManyMembers(members.len()));
    }
    let mut pairs = members.clone().zip(members.clone().skip(1));
    if let Some(((id, _), _)) = pairs.find(|((one, _), (next, _))| one == next) {
        return Err(BuildError::DuplicateId(id.to_owned()));
    }
    let mut members = members;
    match members.find(|(_, weight)| *weight > WEIGHT_MAX) {
        Some((id, weight)) => Err(BuildError::Weight { id: id.to_owned(), weight }),
        None => Ok(()),
    }
}

/// Members in the order of their ids; a member's place in it is its rank. Immutable, and held by all that are built of the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roster {
    /// All ids, one behind the other.
    text: Box<str>,
    /// Where each id ends.
    ends: Box<[usize]>,
    weights: Box<[u32]>,
}

impl Roster {
    /// Of members in the order of their ids.
    ///
    /// # Errors
    /// As [`check_members`].
    pub(crate) fn new(members: &[Member<'_>]) -> Result<Self, BuildError> {
        check_members(members.iter().map(|member| (member.id, member.weight)))?;
        let mut text = String::with_capacity(members.iter().map(|member| member.id.len()).sum());
        let end = |member: &Member<'_>| {
            text.push_str(member.id);
            text.len()
        };
        let ends = members.iter().map(end).collect();
        Ok(Self { text: text.into(), ends, weights: members.iter().map(|member| member.weight).collect() })
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn member(&self, rank: usize) -> Member<'_> {
        let begin = rank.checked_sub(1).map_or(0, |before| self.ends[before]);
        Member { id: &self.text[begin..self.ends[rank]], weight: self.weights[rank] }
    }

    pub(crate) fn members(&self) -> Vec<Member<'_>> {
        (0..self.len()).map(|rank| self.member(rank)).collect()
    }

    pub(crate) fn weights(&self) -> &[u32] {
        &self.weights
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.ends) + size_of_val(&*self.weights)
    }
}

/// Which slot each member has: a member keeps its own as long as it can, whoever comes and goes beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slots {
    /// By rank.
    slots: Box<[u16]>,
    /// By slot.
    ranks: Box<[u16]>,
}

impl Slots {
    /// In the order of the ids.
    pub(super) fn ordered(members: usize) -> Self {
        let slots: Box<[u16]> = (0..members).map(|rank| rank as u16).collect();
        Self { ranks: slots.clone(), slots }
    }

    pub(super) fn slot(&self, rank: usize) -> u16 {
        self.slots[rank]
    }

    #[inline]
    pub(super) fn rank(&self, slot: u16) -> u16 {
        self.ranks[usize::from(slot)]
    }

    /// By slot, the rank of its member.
    pub(super) fn ranks(&self) -> &[u16] {
        &self.ranks
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.slots) + size_of_val(&*self.ranks)
    }

    /// Those of the members after a change. Who stays keeps its slot; those that join take the slots of those that have left, and
    /// further ones; and where fewer are left than there were, the last ones fill the gaps.
    pub(super) fn follow(&self, change: &Change) -> Self {
        let count = change.before.len();
        let mut slots = vec![u16::MAX; count];
        let mut ranks = vec![u16::MAX; count];
        let mut without = Vec::new();
        for (rank, before) in change.before.iter().enumerate() {
            let kept = before.map(|before| self.slot(before)).filter(|&slot| usize::from(slot) < count);
            match kept {
                Some(slot) => (slots[rank], ranks[usize::from(slot)]) = (slot, rank as u16),
                None => without.push(rank),
            }
        }
        let mut without = without.into_iter();
        for (slot, holder) in ranks.iter_mut().enumerate().filter(|(_, holder)| **holder == u16::MAX) {
            if let Some(rank) = without.next() {
                (slots[rank], *holder) = (slot as u16, rank as u16);
            }
        }
        Self { slots: slots.into(), ranks: ranks.into() }
    }
}

/// How one roster differs from another.
#[derive(Debug)]
pub(super) struct Change {
    /// By rank, the rank that the member had.
    pub(super) before: Vec<Option<usize>>,
    /// Ranks of those that have left.
    pub(super) left: Vec<usize>,
}

impl Change {
    pub(super) fn between(old: &Roster, new: &Roster) -> Self {
        let (mut before, mut left) = (Vec::with_capacity(new.len()), Vec::new());
        let mut at = 0;
        for rank in 0..new.len() {
            let id = new.member(rank).id;
            let mut order = Ordering::Greater;
            while at < old.len() && order.is_gt() {
                order = id.cmp(old.member(at).id);
                if order.is_gt() {
                    left.push(at);
                }
                at += usize::from(order.is_ge());
            }
            before.push(order.is_eq().then(|| at - 1));
        }
        left.extend(at..old.len());
        Self { before, left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(ids: &[&str]) -> Roster {
        Roster::new(&ids.iter().map(|id| Member { id, weight: 100 }).collect::<Vec<_>>()).unwrap()
    }

    fn by_slot<'a>(roster: &'a Roster, slots: &Slots) -> Vec<&'a str> {
        slots.ranks().iter().map(|&rank| roster.member(usize::from(rank)).id).collect()
    }

    #[test]
    fn who_stays_keeps_its_slot_and_the_last_fill_the_gaps() {
        let first = roster(&["a", "b", "c", "d"]);
        let slots = Slots::ordered(4);
        let mut play = (first, slots);
        for (ids, expected) in [
            // Joins at the end, wherever its id is.
            (&["a", "aa", "b", "c", "d"][..], &["a", "b", "c", "d", "aa"][..]),
            // The last fills the gap.
            (&["a", "aa", "c", "d"], &["a", "aa", "c", "d"]),
            // One for another.
            (&["a", "aa", "b", "d"], &["a", "aa", "b", "d"]),
            // Two leave, the last among them.
            (&["aa", "b"], &["b", "aa"]),
            (&[], &[]),
            (&["x", "y"], &["x", "y"]),
        ] {
            let next = roster(ids);
            let slots = play.1.follow(&Change::between(&play.0, &next));
            assert_eq!(by_slot(&next, &slots), expected);
            assert!((0..next.len()).all(|rank| usize::from(slots.rank(slots.slot(rank))) == rank));
            play = (next, slots);
        }
    }

    #[test]
    fn what_no_ring_can_be_built_of_is_said_at_its_edge() {
        let of = |count: usize| check_members((0..count).map(|slot| (["a", "b"][slot % 2], 1)));
        assert_eq!(of(MEMBERS_MAX), Ok(()));
        assert_eq!(of(MEMBERS_MAX + 1), Err(BuildError::TooManyMembers(MEMBERS_MAX + 1)));
        assert_eq!(check_members([("a", 0), ("b", WEIGHT_MAX)].into_iter()), Ok(()));
        let heavy = Err(BuildError::Weight { id: "b".into(), weight: WEIGHT_MAX + 1 });
        assert_eq!(check_members([("a", 0), ("b", WEIGHT_MAX + 1)].into_iter()), heavy);
        assert_eq!(check_members([("a", 1), ("b", 1), ("b", 1)].into_iter()), Err(BuildError::DuplicateId("b".into())));
    }
}
