//! A sequence of distinct members, as an owned cursor: it outlives waits, and needs no allocation for its first steps.

use crate::slot::Slot;

/// Members that are remembered without an allocation.
const INLINE: usize = 8;

/// Where a key's (or a turn's) sequence of distinct members stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// The entry looked at next: its number in the circle, or in the block of a ring.
    position: u32,
    /// On a ring, the block.
    block: u32,
    seen: Seen,
}

/// A set of slots: a few inline, more as a bit set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    count: u16,
    first: [u16; INLINE],
    bits: Option<Box<[u64]>>,
}

impl Seen {
    pub(crate) fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub(crate) fn contains(&self, slot: u16) -> bool {
        match &self.bits {
            Some(bits) => bits[usize::from(slot / 64)] >> (slot % 64) & 1 == 1,
            None => self.first[..self.len()].contains(&slot),
        }
    }

    /// `members` is how many there are in all. The slot must not be in the set.
    pub(crate) fn insert(&mut self, slot: u16, members: usize) {
        if self.bits.is_none() && self.len() == INLINE {
            let mut bits = vec![0_u64; members.div_ceil(64)].into_boxed_slice();
            for seen in self.first {
                bits[usize::from(seen / 64)] |= 1 << (seen % 64);
            }
            self.bits = Some(bits);
        }
        match &mut self.bits {
            Some(bits) => bits[usize::from(slot / 64)] |= 1 << (slot % 64),
            None => self.first[usize::from(self.count)] = slot,
        }
        self.count += 1;
    }
}

impl Seen {
    /// Takes a slot out again, if it is in the set.
    pub(crate) fn remove(&mut self, slot: u16) {
        if !self.contains(slot) {
            return;
        }
        match &mut self.bits {
            Some(bits) => bits[usize::from(slot / 64)] &= !(1 << (slot % 64)),
            None => {
                let length = self.len();
                if let Some(at) = self.first[..length].iter().position(|seen| *seen == slot) {
                    self.first.copy_within(at + 1..length, at);
                }
            }
        }
        self.count -= 1;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> {
        let inline = if self.bits.is_none() { &self.first[..self.len()] } else { &[] };
        let bits = self.bits.iter().flat_map(|bits| bits.iter().enumerate());
        let bits = bits.flat_map(|(word, bits)| {
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| (word * 64 + bit) as u16)
        });
        inline.iter().copied().chain(bits)
    }
}

impl Candidates {
    pub(crate) fn new(position: u32) -> Self {
        Self::in_block(0, position)
    }

    pub(crate) fn in_block(block: u32, position: u32) -> Self {
        Self { position, block, seen: Seen::default() }
    }

    #[inline]
    pub(crate) fn block_position(&self) -> (u32, u32) {
        (self.block, self.position)
    }

    #[inline]
    pub(crate) fn pass_to(&mut self, block: u32, position: u32) {
        (self.block, self.position) = (block, position);
    }

    #[inline]
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    #[inline]
    pub(crate) fn seen_mut(&mut self) -> &mut Seen {
        &mut self.seen
    }

    /// The next member of the sequence, over any circle of `length` entries whose owners are `distinct` in number, out of `members`.
    ///
    /// It ends whatever `distinct` says: an entry is looked at once at most in a step.
    #[inline]
    pub(crate) fn step(
        &mut self,
        length: usize,
        distinct: usize,
        members: usize,
        owner_at: impl Fn(usize) -> u16,
    ) -> Option<Slot> {
        if self.seen.len() >= distinct {
            return None;
        }
        for _ in 0..length {
            // Behind the end is the beginning.
            if self.position as usize >= length {
                self.position = 0;
            }
            let owner = owner_at(self.position as usize);
            self.position += 1;
            if !self.seen.contains(owner) {
                self.seen.insert(owner, members);
                return Some(Slot(owner));
            }
        }
        None
    }

    /// After the `placed` members of a circle: those that own no entry of it, from one that `chance`, the key's own, decides on.
    #[cold]
    pub(crate) fn step_beyond(
        &mut self,
        placed: usize,
        without_entry: &[u16],
        members: usize,
        chance: u64,
    ) -> Option<Slot> {
        let step = self.seen.len().checked_sub(placed).filter(|step| *step < without_entry.len())?;
        let first = (chance % without_entry.len() as u64) as usize;
        let owner = without_entry[(first + step) % without_entry.len()];
        self.seen.insert(owner, members);
        Some(Slot(owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_not_taken_out_below_and_above_its_inline_size() {
        for count in [1, 7, 8, 9, 64, 65, 200_u16] {
            let mut seen = Seen::default();
            let slots: Vec<u16> = (0..count).map(|number| number * 7 % 997).collect();
            for (number, &slot) in slots.iter().enumerate() {
                assert!(!seen.contains(slot) && seen.len() == number);
                seen.insert(slot, 1000);
                assert!(seen.contains(slot));
            }
            let mut held: Vec<u16> = seen.iter().collect();
            let mut expected = slots.clone();
            held.sort_unstable();
            expected.sort_unstable();
            assert_eq!(held, expected);
            // One that is not in it may be taken out as well, which does nothing.
            seen.remove(998);
            assert_eq!(seen.len(), usize::from(count));
            for (number, &slot) in slots.iter().enumerate() {
                seen.remove(slot);
                assert!(!seen.contains(slot) && seen.len() == slots.len() - number - 1);
                assert!(slots[number + 1..].iter().all(|&other| seen.contains(other)));
            }
        }
    }

    #[test]
    fn steps_give_each_distinct_owner_once_in_order_and_wrap_round() {
        let owners = [3, 3, 1, 3, 0, 1_u16];
        let mut candidates = Candidates::new(3);
        let given: Vec<u16> =
            std::iter::from_fn(|| candidates.step(owners.len(), 3, 4, |at| owners[at])).map(|slot| slot.0).collect();
        assert_eq!(given, [3, 0, 1]);
        // A position behind the end is the beginning.
        assert_eq!(Candidates::new(6).step(owners.len(), 3, 4, |at| owners[at]), Some(Slot(3)));
        // More owners are promised than there are: it ends all the same.
        let mut candidates = Candidates::new(0);
        assert_eq!(std::iter::from_fn(|| candidates.step(owners.len(), 9, 10, |at| owners[at])).count(), 3);
        assert_eq!(Candidates::new(0).step(0, 1, 1, |_| 0), None);
    }

    #[test]
    fn members_without_an_entry_follow_all_others_each_once_from_one_that_the_key_decides_on() {
        let mut candidates = Candidates::new(0);
        let without = [5, 6, 7];
        assert_eq!(candidates.step(2, 2, 8, |at| at as u16), Some(Slot(0)));
        assert_eq!(candidates.step_beyond(2, &without, 8, 4), None, "one with an entry is still to come");
        assert_eq!(candidates.step(2, 2, 8, |at| at as u16), Some(Slot(1)));
        let rest: Vec<u16> =
            std::iter::from_fn(|| candidates.step_beyond(2, &without, 8, 4)).map(|slot| slot.0).collect();
        assert_eq!(rest, [6, 7, 5]);
    }
}
