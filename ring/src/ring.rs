//! The virtual-node consistent-hash ring.
//!
//! Each member puts `points * weight / 100` points on a circle of 2^48 places; a key belongs to the member of the first
//! point at or after its own place. Points are absolute: another member's coming, going or weight never moves mine.
//! Karger et al., "Consistent Hashing and Random Trees", STOC 1997.

use crate::RingParams;
use crate::candidates::Candidates;
use crate::hash::{Hash, hash_point};
use crate::slot::Slot;
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

/// Largest weight, in percent.
pub const WEIGHT_MAX: u32 = 1600;
/// The low bits of an entry are its owner's slot.
const SLOT_BITS: u32 = 16;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
/// So many members at most: a slot has 16 bits, and one value is spare.
const MEMBERS_MAX: usize = 65_535;
/// So many points at most, so that a position fits 32 bits with room to spare.
const POINTS_MAX: u64 = 1 << 30;

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

/// A ring, immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Sorted: place in the high 48 bits, owner's slot in the low 16, so ties go to the smaller id. One more at the
    /// end, the owner of the first entry, so that the wrap needs no test.
    entries: Box<[u64]>,
    /// For each value of the top bits of a hash, the first entry at or after it: about one entry per bucket.
    index: Box<[u32]>,
    shift: u32,
    members: u16,
    /// Members that have points.
    placed: u16,
    params: RingParams,
    digest: u64,
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

impl Ring {
    /// Builds the ring of some members, in whatever order they are given.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(members: &[Member<'_>], params: RingParams) -> Result<Self, BuildError> {
        if params.points == 0 {
            return Err(BuildError::NoPoints);
        }
        let mut members = members.to_vec();
        members.sort_unstable_by_key(|member| member.id);
        check_members(members.iter().map(|member| (member.id, member.weight)))?;
        let total: u64 = members.iter().map(|member| u64::from(point_count(member.weight, params.points))).sum();
        if total > POINTS_MAX {
            return Err(BuildError::TooManyPoints(total));
        }

        let mut unsorted = Vec::with_capacity(total as usize);
        let mut label = Vec::new();
        for (slot, member) in members.iter().enumerate() {
            for index in 0..point_count(member.weight, params.points) {
                unsorted.push(hash_point(member.id, index, params.seed, &mut label) & !SLOT_MASK | slot as u64);
            }
        }
        let (entries, index, shift) = sort_into_buckets(&unsorted);
        let digest = digest(&entries[..entries.len().saturating_sub(1)], &members);
        Ok(Self {
            entries,
            index,
            shift,
            members: members.len() as u16,
            placed: members.iter().filter(|member| member.weight > 0).count() as u16,
            params,
            digest,
        })
    }

    /// The owner of a key: the first of its candidate sequence. `None` if no member has points.
    #[inline]
    #[must_use]
    pub fn owner(&self, hash: Hash) -> Option<Slot> {
        self.entries.get(self.position(hash)).map(|&entry| Slot((entry & SLOT_MASK) as u16))
    }

    /// The key's sequence of distinct members, owner first.
    #[inline]
    #[must_use]
    pub fn candidates(&self, hash: Hash) -> Candidates {
        Candidates::new(self.position(hash) as u32)
    }

    /// The first entry at or after the hash. Points are uniform, so the scan is less than a step on average.
    #[inline]
    fn position(&self, hash: Hash) -> usize {
        let Some(&first) = self.index.get((hash >> self.shift) as usize) else { return 0 };
        let place = hash & !SLOT_MASK;
        let mut position = first as usize;
        while self.entries[position] < place {
            position += 1;
        }
        position
    }

    /// Number of entries, without the one that repeats the first.
    #[must_use]
    pub fn points(&self) -> usize {
        self.entries.len().saturating_sub(1)
    }

    /// Owner of an entry.
    #[inline]
    pub(crate) fn owner_at(&self, position: usize) -> u16 {
        (self.entries[position] & SLOT_MASK) as u16
    }

    /// Place of an entry, 48 bits.
    pub(crate) fn place_at(&self, position: usize) -> u64 {
        self.entries[position] >> SLOT_BITS
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

    /// Bytes of memory, on the heap.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.entries.len() * 8 + self.index.len() * 4
    }

    /// A number that two rings share exactly if they place every key alike: XXH3-64 over (point as u64 LE, id, NUL) of
    /// every entry, in order.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
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
        let count = self.points();
        for position in 0..count {
            let length = match position {
                0 => self.place_at(0) + (1 << 48) - self.place_at(count - 1),
                position => self.place_at(position) - self.place_at(position - 1),
            };
            arcs[usize::from(self.owner_at(position))] += length;
        }
        arcs
    }

    /// Share of the key space that a member owns, 0 to 1, as arcs say exactly.
    #[must_use]
    pub fn share(&self, slot: Slot) -> f64 {
        self.arc(slot) as f64 / (1_u64 << 48) as f64
    }
}

/// Points of a member: its own weight decides, nothing else. At least one, if it has weight.
fn point_count(weight: u32, points: u32) -> u32 {
    match weight {
        0 => 0,
        weight => ((u64::from(weight) * u64::from(points) + 50) / 100).clamp(1, 16 * u64::from(points)) as u32,
    }
}

/// Points are uniform: one pass into buckets by their top bits leaves about one in each, and is the index as well.
fn sort_into_buckets(unsorted: &[u64]) -> (Box<[u64]>, Box<[u32]>, u32) {
    if unsorted.is_empty() {
        return (Box::default(), Box::default(), 63);
    }
    let bits = unsorted.len().next_power_of_two().trailing_zeros().max(1);
    let shift = 64 - bits;
    let mut index = vec![0_u32; 1 << bits];
    for entry in unsorted {
        index[(entry >> shift) as usize] += 1;
    }
    let mut begin = 0;
    for bucket in &mut index {
        begin += std::mem::replace(bucket, begin);
    }
    let mut entries = vec![0_u64; unsorted.len() + 1];
    for &entry in unsorted {
        let bucket = &mut index[(entry >> shift) as usize];
        entries[*bucket as usize] = entry;
        *bucket += 1;
    }
    // Each bucket's number is now its end, which is the next one's begin.
    index.rotate_right(1);
    index[0] = 0;
    for bucket in 0..index.len() {
        let begin = index[bucket] as usize;
        let end = index.get(bucket + 1).map_or(unsorted.len(), |&end| end as usize);
        if end - begin > 1 {
            entries[begin..end].sort_unstable();
        }
    }
    entries[unsorted.len()] = !SLOT_MASK | entries[0] & SLOT_MASK;
    (entries.into(), index.into(), shift)
}

fn digest(entries: &[u64], members: &[Member<'_>]) -> u64 {
    let mut hasher = Xxh3::new();
    for entry in entries {
        hasher.update(&(entry & !SLOT_MASK).to_le_bytes());
        hasher.update(members[(entry & SLOT_MASK) as usize].id.as_bytes());
        hasher.update(&[0]);
    }
    hasher.digest()
}

impl Candidates {
    /// The next member of the sequence on the ring that began it. `None` once all have been seen.
    #[inline]
    pub fn next(&mut self, ring: &Ring) -> Option<Slot> {
        self.step(ring.points(), ring.placed(), ring.len(), |position| ring.owner_at(position))
    }
}

#[cfg(test)]
mod tests {
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
            let mut entries: Vec<u64> = points.iter().map(|&(place, slot)| place << SLOT_BITS | slot).collect();
            entries.push(!SLOT_MASK | entries[0] & SLOT_MASK);
            Ring { entries: entries.into(), ..ring }
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
    fn what_no_ring_can_be_built_of_is_said_at_its_edge() {
        let of = |count: usize| check_members((0..count).map(|slot| (["a", "b"][slot % 2], 1)));
        assert_eq!(of(MEMBERS_MAX), Ok(()));
        assert_eq!(of(MEMBERS_MAX + 1), Err(BuildError::TooManyMembers(MEMBERS_MAX + 1)));
        assert_eq!(check_members([("a", 0), ("b", WEIGHT_MAX)].into_iter()), Ok(()));
        let heavy = Err(BuildError::Weight { id: "b".into(), weight: WEIGHT_MAX + 1 });
        assert_eq!(check_members([("a", 0), ("b", WEIGHT_MAX + 1)].into_iter()), heavy);
        assert_eq!(check_members([("a", 1), ("b", 1), ("b", 1)].into_iter()), Err(BuildError::DuplicateId("b".into())));
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
        for position in 0..6 {
            let before = ring.place_at((position + 5) % 6);
            let length = ring.place_at(position).wrapping_sub(before) & ((1 << 48) - 1);
            arcs[usize::from(ring.owner_at(position))] += length;
            // The point itself is its member's, and the place behind it the next one's.
            let place = ring.place_at(position) << SLOT_BITS;
            assert_eq!(ring.owner(place), Some(Slot(ring.owner_at(position))));
            assert_eq!(ring.owner(place.wrapping_add(1 << SLOT_BITS)), Some(Slot(ring.owner_at((position + 1) % 6))));
        }
        assert_eq!(ring.arcs(), arcs);
        assert_eq!([0, 1, 2].map(|slot| ring.arc(Slot(slot))), arcs);
        assert_eq!(arcs.iter().sum::<u64>(), 1 << 48);
        assert_eq!(ring.share(Slot(1)), arcs[1] as f64 / (1_u64 << 48) as f64);
        // Seven entries, and an index of eight.
        assert_eq!(ring.memory_bytes(), 7 * 8 + 8 * 4);
        assert_eq!(Ring::build(&[], RingParams::default()).unwrap().memory_bytes(), 0);
        assert!(Ring::build(&[], RingParams::default()).unwrap().is_empty());
    }
}
