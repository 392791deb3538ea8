//! The virtual-node consistent-hash ring.
//!
//! Each member puts `points * weight / 100` points on a circle of 2^48 places; a key belongs to the member of the first
//! point at or after its own place. Points are absolute: another member's coming, going or weight never moves mine.
//! Karger et al., "Consistent Hashing and Random Trees", STOC 1997.
//!
//! So a ring that differs from another in few members differs in few points, and is made of the other's blocks (`circle`); members
//! keep their slots (`roster`).

use crate::RingParams;
use crate::candidates::Candidates;
use crate::hash::{Hash, hash_point};
use crate::slot::Slot;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

#[cfg(test)]
mod changes;
mod circle;
mod digest;
mod roster;

use circle::{Circle, Position, SLOT_MASK, owner, place};
pub use roster::{BuildError, Member, WEIGHT_MAX};
use roster::{Change, Slots};
pub(crate) use roster::{Roster, check_members};

/// So many points at most, so that a position fits 32 bits with room to spare.
const POINTS_MAX: u64 = 1 << 30;
/// Of a change of more than this part of the points, nothing is left to share.
const CHANGED_PART_MAX: u64 = 4;
/// Points of members, which are named by their ranks.
type Edits = Vec<(usize, Range<u32>)>;

/// A ring, immutable.
#[derive(Debug, Clone)]
pub struct Ring {
    circle: Circle,
    members: u16,
    /// Members that have points.
    placed: u16,
    params: RingParams,
    slots: Slots,
    roster: Arc<Roster>,
    /// Worked out by who asks first: it takes as long as there are points.
    digest: OnceLock<u64>,
}

impl PartialEq for Ring {
    /// Of the same members in the same slots.
    fn eq(&self, other: &Self) -> bool {
        self.params == other.params
            && self.roster == other.roster
            && self.slots == other.slots
            && self.circle.entries().eq(other.circle.entries())
    }
}

impl Eq for Ring {}

impl Ring {
    /// Builds the ring of some members, in whatever order they are given. Slots are in the order of ids.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(members: &[Member<'_>], params: RingParams) -> Result<Self, BuildError> {
        Self::of(sorted(members)?, params, &hasher(params))
    }

    /// The ring of other members, given in whatever order, made of what it has in common with this one: it places keys as one that is
    /// built anew, but a member that is in both keeps its slot, unless more have left than joined and it has to fill a gap.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn change(&self, members: &[Member<'_>]) -> Result<Self, BuildError> {
        self.follow(sorted(members)?, &hasher(self.params))
    }

    pub(crate) fn build_of(roster: Arc<Roster>, params: RingParams) -> Result<Self, BuildError> {
        Self::of(roster, params, &hasher(params))
    }

    /// As [`Ring::change`].
    pub(crate) fn change_to(&self, roster: Arc<Roster>) -> Result<Self, BuildError> {
        self.follow(roster, &hasher(self.params))
    }

    /// `hash` gives the place of a point: of whom, which.
    fn of(
        roster: Arc<Roster>,
        params: RingParams,
        hash: &impl Fn(&str, Range<u32>, &mut dyn FnMut(u64)),
    ) -> Result<Self, BuildError> {
        let total = point_total(&roster, params)?;
        let mut unsorted = Vec::with_capacity(total as usize);
        for rank in 0..roster.len() {
            let member = roster.member(rank);
            let points = 0..point_count(member.weight, params.points);
            hash(member.id, points, &mut |hash| unsorted.push(hash & !SLOT_MASK | rank as u64));
        }
        let slots = Slots::ordered(roster.len());
        Ok(Self::with(Circle::build(&unsorted), slots, roster, params))
    }

    fn with(circle: Circle, slots: Slots, roster: Arc<Roster>, params: RingParams) -> Self {
        Self {
            circle,
            members: roster.len() as u16,
            placed: roster.weights().iter().filter(|&&weight| weight > 0).count() as u16,
            params,
            slots,
            roster,
            digest: OnceLock::new(),
        }
    }

    fn follow(
        &self,
        roster: Arc<Roster>,
        hash: &impl Fn(&str, Range<u32>, &mut dyn FnMut(u64)),
    ) -> Result<Self, BuildError> {
        if *roster == *self.roster {
            return Ok(self.clone());
        }
        let total = point_total(&roster, self.params)?;
        let change = Change::between(&self.roster, &roster);
        let slots = self.slots.follow(&change);
        let (gone, come) = self.edits(&roster, &change, &slots);
        let changed: u64 = gone.iter().chain(&come).map(|(_, points)| points.len() as u64).sum();
        if self.circle.is_outgrown(total as usize) || changed > total / CHANGED_PART_MAX {
            return Self::of(roster, self.params, hash);
        }
        let entries = |edits: Edits, of: &Roster, slots: &Slots| {
            let mut entries = Vec::new();
            for (rank, points) in edits {
                let slot = u64::from(slots.slot(rank));
                hash(of.member(rank).id, points, &mut |hash| entries.push(hash & !SLOT_MASK | slot));
            }
            entries.sort_unstable();
            entries
        };
        let (gone, come) = (entries(gone, &self.roster, &self.slots), entries(come, &roster, &slots));
        let circle = self.circle.edit(&gone, &come, |entry| slots.rank(owner(entry)));
        Ok(Self::with(circle, slots, roster, self.params))
    }

    /// By rank, the points that go from the ring, and those that come: of who joins, leaves, has another slot or another weight.
    fn edits(&self, roster: &Roster, change: &Change, slots: &Slots) -> (Edits, Edits) {
        let points = |of: &Roster, rank: usize| point_count(of.weights()[rank], self.params.points);
        let mut gone: Edits = change.left.iter().map(|&rank| (rank, 0..points(&self.roster, rank))).collect();
        let mut come = Edits::new();
        for (rank, before) in change.before.iter().enumerate() {
            let now = points(roster, rank);
            let Some(before) = *before else {
                come.push((rank, 0..now));
                continue;
            };
            let had = points(&self.roster, before);
            if self.slots.slot(before) != slots.slot(rank) {
                gone.push((before, 0..had));
                come.push((rank, 0..now));
            } else if now > had {
                come.push((rank, had..now));
            } else if now < had {
                gone.push((before, now..had));
            }
        }
        (gone, come)
    }

    /// The owner of a key: the first of its candidate sequence. `None` if no member has points.
    #[inline]
    #[must_use]
    pub fn owner(&self, hash: Hash) -> Option<Slot> {
        self.circle.first(hash).map(|entry| Slot(owner(entry)))
    }

    /// The key's sequence of distinct members, owner first.
    #[inline]
    #[must_use]
    pub fn candidates(&self, hash: Hash) -> Candidates {
        let Position { block, word } = self.circle.position(hash);
        Candidates::in_block(block, word)
    }

    /// Points on the circle.
    #[must_use]
    pub fn points(&self) -> usize {
        self.circle.points()
    }

    /// By slot, the rank of its member in the order of ids: equal numbers in a ring that was built anew.
    #[must_use]
    pub fn ranks(&self) -> &[u16] {
        self.slots.ranks()
    }

    /// Members, those of weight 0 included.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.members)
    }

    /// Whether there are no members at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members == 0
    }

    /// Members that have points.
    #[must_use]
    pub fn placed(&self) -> usize {
        usize::from(self.placed)
    }

    /// What the ring was built with.
    #[must_use]
    pub fn params(&self) -> RingParams {
        self.params
    }

    /// Bytes of memory, on the heap; what is shared with other rings included.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.circle.memory_bytes() + self.slots.memory_bytes() + self.roster.memory_bytes()
    }

    /// A number that two rings share exactly if they place every key alike: XXH3-64 over (point as u64 LE, id, NUL) of
    /// every entry, in order. The first call takes as long as there are points: tens of milliseconds for a million.
    #[must_use]
    pub fn digest(&self) -> u64 {
        *self.digest.get_or_init(|| digest::of(&self.circle, &self.slots, &self.roster))
    }

    /// Whether two rings place every key alike: as their digests say, without looking at what one has of the other.
    pub(crate) fn places_alike(&self, other: &Self) -> bool {
        if self.points() != other.points() {
            return false;
        }
        let (mut one, mut two) = (self.walk(), other.walk());
        while let (Some(place), Some(of_other)) = (one.place(), two.place()) {
            if one.pass_shared(&mut two).is_some() {
                continue;
            }
            let id = |ring: &Self, walk: &Walk<'_>| usize::from(ring.slots.rank(walk.owner()));
            let same_id = self.roster.member(id(self, &one)).id == other.roster.member(id(other, &two)).id;
            if place != of_other || !same_id {
                return false;
            }
            one.step();
            two.step();
        }
        true
    }

    /// Length of the arcs that a member owns, in units of 2^-48 of the circle.
    #[must_use]
    pub fn arc(&self, slot: Slot) -> u64 {
        self.arcs()[usize::from(slot.0)]
    }

    /// The arcs of all members.
    #[must_use]
    pub fn arcs(&self) -> Vec<u64> {
        let mut arcs = vec![0; self.len()];
        let (mut first, mut before) = (None, 0);
        for entry in self.circle.entries() {
            arcs[usize::from(owner(entry))] += place(entry) - before;
            before = place(entry);
            first = first.or(Some(owner(entry)));
        }
        if let Some(first) = first {
            arcs[usize::from(first)] += (1 << 48) - before;
        }
        arcs
    }

    /// Share of the key space that a member owns, 0 to 1, as arcs say exactly.
    #[must_use]
    pub fn share(&self, slot: Slot) -> f64 {
        self.arc(slot) as f64 / (1_u64 << 48) as f64
    }

    /// A walk over the points, from the first on.
    pub(crate) fn walk(&self) -> Walk<'_> {
        let at = self.circle.begin();
        let entry = self.circle.entry_at(at);
        Walk { circle: &self.circle, at, entry, first: entry.map_or(0, owner) }
    }
}

/// Where a walk over a ring's points stands, once round.
pub(crate) struct Walk<'a> {
    circle: &'a Circle,
    at: Position,
    entry: Option<u64>,
    first: u16,
}

impl Walk<'_> {
    /// The place of the next point. `None` when all have been passed.
    pub(crate) fn place(&self) -> Option<u64> {
        self.entry.map(place)
    }

    /// Whose keys are before the next point. Behind the last one, whose the first is.
    pub(crate) fn owner(&self) -> u16 {
        self.entry.map_or(self.first, owner)
    }

    /// Passes over a point.
    fn step(&mut self) {
        self.at = self.circle.behind(self.at);
        self.entry = self.circle.entry_at(self.at);
    }

    /// Passes over the points before a place.
    pub(crate) fn pass(&mut self, end: u64) {
        while self.place().is_some_and(|place| place < end) {
            self.step();
        }
    }

    /// Passes over points that both rings hold in common, where both stand before the same: there every key has the same owner. The
    /// place of the last.
    pub(crate) fn pass_shared(&mut self, other: &mut Self) -> Option<u64> {
        let last = self.circle.pass_shared(&mut self.at, other.circle, &mut other.at)?;
        self.entry = self.circle.entry_at(self.at);
        other.entry = other.circle.entry_at(other.at);
        Some(place(last))
    }
}

fn sorted(members: &[Member<'_>]) -> Result<Arc<Roster>, BuildError> {
    let mut members = members.to_vec();
    members.sort_by_key(|member| member.id);
    Roster::new(&members).map(Arc::new)
}

/// Gives the hashes of a member's points.
fn hasher(params: RingParams) -> impl Fn(&str, Range<u32>, &mut dyn FnMut(u64)) {
    move |id, points, give| {
        let mut label = Vec::new();
        points.for_each(|index| give(hash_point(id, index, params.seed, &mut label)));
    }
}

/// Points of all members.
fn point_total(roster: &Roster, params: RingParams) -> Result<u64, BuildError> {
    if params.points == 0 {
        return Err(BuildError::NoPoints);
    }
    match roster.weights().iter().map(|&weight| u64::from(point_count(weight, params.points))).sum() {
        total if total > POINTS_MAX => Err(BuildError::TooManyPoints(total)),
        total => Ok(total),
    }
}

/// Points of a member: its own weight decides, nothing else. At least one, if it has weight.
fn point_count(weight: u32, points: u32) -> u32 {
    match weight {
        0 => 0,
        weight => ((u64::from(weight) * u64::from(points) + 50) / 100).clamp(1, 16 * u64::from(points)) as u32,
    }
}

impl Candidates {
    /// The next member of the sequence on the ring that began it. `None` once all have been seen.
    #[inline]
    pub fn next(&mut self, ring: &Ring) -> Option<Slot> {
        if self.seen().len() >= ring.placed() {
            return None;
        }
        let (block, word) = self.block_position();
        let mut at = Position { block, word };
        let owner = ring.circle.advance(&mut at, |owner| !self.seen().contains(owner))?;
        self.pass_to(at.block, at.word);
        self.seen_mut().insert(owner, ring.len());
        Some(Slot(owner))
    }
}

#[cfg(test)]
mod tests {
    use super::circle::SLOT_BITS;
    use super::*;

    #[test]
    fn empty_ring_owns_nothing() {
        let ring = Ring::build(&[], RingParams::default()).unwrap();
        assert_eq!((ring.owner(0), ring.owner(u64::MAX), ring.points()), (None, None, 0));
        let drained = Ring::build(&[Member { id: "a", weight: 0 }], RingParams::default()).unwrap();
        assert_eq!((drained.owner(7), drained.len(), drained.placed()), (None, 1, 0));
    }

    #[test]
    fn single_point_owns_everything() {
        let ring = Ring::build(&[Member { id: "a", weight: 100 }], RingParams { points: 1, seed: 0 }).unwrap();
        for hash in [0, 1, u64::MAX, 1 << 63] {
            assert_eq!(ring.owner(hash), Some(Slot(0)));
        }
        assert_eq!(ring.arc(Slot(0)), 1 << 48);
    }

    #[test]
    fn what_moves_is_told_to_the_single_place() {
        let ids = ["a", "b"];
        let of = |points: &[(u64, u64)]| {
            let ring = Ring::build(&ids.map(|id| Member { id, weight: 100 }), RingParams::default()).unwrap();
            let entries: Vec<u64> = points.iter().map(|&(place, slot)| place << SLOT_BITS | slot).collect();
            Ring { circle: Circle::build(&entries), ..ring }
        };
        // The place 11 alone is of another in the second.
        let (one, other) = (of(&[(10, 0), (20, 0)]), of(&[(10, 0), (11, 1), (20, 0)]));
        for (old, new, from, to) in [(&one, &other, "a", "b"), (&other, &one, "b", "a")] {
            let movement = crate::movement::movement(old, &ids, new, &ids);
            assert_eq!(movement.moved, 1.0 / (1_u64 << 48) as f64);
            assert_eq!(movement.moves.iter().map(|it| (&*it.from, &*it.to)).collect::<Vec<_>>(), [(from, to)]);
        }
    }

    #[test]
    fn points_are_by_weight_rounded_and_one_at_least() {
        for (weight, points, count) in [
            (0, 256, 0),
            (100, 256, 256),
            (50, 1, 1),
            (1, 1, 1),
            (1, 256, 3),
            (149, 1, 1),
            (150, 1, 2),
            (33, 100, 33),
            (250, 3, 8),
            (1600, 1, 16),
            (1600, 256, 4096),
        ] {
            assert_eq!(point_count(weight, points), count, "{weight} {points}");
        }
    }

    #[test]
    fn members_without_points_or_with_too_many_are_refused() {
        let member = [Member { id: "a", weight: 100 }];
        assert_eq!(Ring::build(&member, RingParams { points: 0, seed: 0 }), Err(BuildError::NoPoints));
        let many = Ring::build(&member, RingParams { points: u32::MAX, seed: 0 });
        assert_eq!(many, Err(BuildError::TooManyPoints(u32::MAX.into())));
    }

    #[test]
    fn arcs_end_at_their_points_and_the_first_begins_at_the_last() {
        let members = [Member { id: "a", weight: 100 }, Member { id: "b", weight: 200 }, Member { id: "c", weight: 0 }];
        let ring = Ring::build(&members, RingParams { points: 2, seed: 9 }).unwrap();
        assert_eq!((ring.points(), ring.len(), ring.placed(), ring.is_empty()), (6, 3, 2, false));
        let mut arcs = [0; 3];
        let entries: Vec<u64> = ring.circle.entries().collect();
        for position in 0..6 {
            let before = place(entries[(position + 5) % 6]);
            let length = place(entries[position]).wrapping_sub(before) & ((1 << 48) - 1);
            arcs[usize::from(owner(entries[position]))] += length;
            // The point itself is its member's, and the place behind it the next one's.
            let place = entries[position] & !SLOT_MASK;
            assert_eq!(ring.owner(place), Some(Slot(owner(entries[position]))));
            assert_eq!(ring.owner(place.wrapping_add(1 << SLOT_BITS)), Some(Slot(owner(entries[(position + 1) % 6]))));
        }
        assert_eq!(ring.arcs(), arcs);
        assert_eq!([0, 1, 2].map(|slot| ring.arc(Slot(slot))), arcs);
        assert_eq!(arcs.iter().sum::<u64>(), 1 << 48);
        assert_eq!(ring.share(Slot(1)), arcs[1] as f64 / (1_u64 << 48) as f64);
        // One block of six entries and an index of eight; three members: id, end, weight, slot and rank.
        assert_eq!(ring.memory_bytes(), 16 + 6 * 8 + 8 * 2 + 3 * (1 + 8 + 4 + 2 + 2));
        assert_eq!(Ring::build(&[], RingParams::default()).unwrap().memory_bytes(), 0);
        assert!(Ring::build(&[], RingParams::default()).unwrap().is_empty());
    }
}
