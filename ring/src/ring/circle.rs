//! The points of a ring in the order of their places, cut into blocks. A circle that differs from another in few points has the other's blocks.

use std::sync::Arc;

/// The low bits of an entry are its owner's slot; the high ones its place.
pub(super) const SLOT_BITS: u32 = 16;
pub(super) const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// Buckets of a block: by the top bits of places, one point in each at most, on average.
const BUCKETS: usize = 512;
/// Numbers of a bucket's first entry in a word of the index.
const PER_WORD: usize = 4;

/// First an index, of 16 bits for each bucket: the word at which the first entry at or after it stands. Then the entries. One piece of
/// memory, so that a look-up has two places to go to, as if there were no blocks.
type Block = Arc<[u64]>;

/// Entries in order: by their places; of equal ones, by their owners' ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Circle {
    /// By the top bits of the place. None where there is no point; one in a small ring.
    blocks: Box<[Block]>,
    /// What is left of a hash is its bucket, over all blocks.
    shift: u32,
    /// Words of a block's index.
    index_words: usize,
    points: usize,
}

/// Where an entry stands. It may be the end of a block: then the next entry is meant, in a block behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) block: u32,
    pub(super) word: u32,
}

#[inline]
pub(super) fn owner(entry: u64) -> u16 {
    (entry & SLOT_MASK) as u16
}

#[inline]
pub(super) fn place(entry: u64) -> u64 {
    entry >> SLOT_BITS
}

impl Circle {
    /// Of entries in any order, whose slots are in the order of the ids.
    pub(super) fn build(unsorted: &[u64]) -> Self {
        if unsorted.is_empty() {
            return Self { blocks: Box::default(), shift: 63, index_words: 0, points: 0 };
        }
        let bits = unsorted.len().next_power_of_two().trailing_zeros().max(1);
        let shift = 64 - bits;
        let (entries, begins) = sort_into_buckets(unsorted, bits);
        let buckets = begins.len().min(BUCKETS);
        let index_words = buckets.div_ceil(PER_WORD);
        let ends = begins.iter().step_by(buckets).skip(1).map(|&end| end as usize).chain([entries.len()]);
        let mut begin = 0;
        let blocks = ends.map(|end| {
            let block = block_of(&entries[begin..end], shift, index_words);
            begin = end;
            block
        });
        Self { blocks: blocks.collect(), shift, index_words, points: entries.len() }
    }

    /// A hash's block, its number, and the word in it where its bucket begins.
    #[inline]
    fn bucket(&self, hash: u64) -> Option<(usize, &[u64], usize)> {
        let bucket = (hash >> self.shift) as usize;
        let number = bucket / BUCKETS;
        let block = self.blocks.get(number)?;
        let bucket = bucket % BUCKETS;
        let word = (block[bucket / PER_WORD] >> (bucket % PER_WORD * 16)) as u16;
        Some((number, block, usize::from(word)))
    }

    /// Where the first entry at or after the hash stands. Points are uniform, so the scan is less than a step on average.
    #[inline]
    pub(super) fn position(&self, hash: u64) -> Position {
        let Some((number, block, mut word)) = self.bucket(hash) else { return Position { block: 0, word: 0 } };
        let place = hash & !SLOT_MASK;
        while block.get(word).is_some_and(|&entry| entry < place) {
            word += 1;
        }
        Position { block: number as u32, word: word as u32 }
    }

    /// The first entry at or after the hash.
    #[inline]
    pub(super) fn first(&self, hash: u64) -> Option<u64> {
        let (number, block, mut word) = self.bucket(hash)?;
        let place = hash & !SLOT_MASK;
        loop {
            match block.get(word) {
                Some(&entry) if entry >= place => return Some(entry),
                Some(_) => word += 1,
                None => return self.first_behind(number),
            }
        }
    }

    /// The entry at a position, where one stands there.
    pub(super) fn entry_at(&self, at: Position) -> Option<u64> {
        self.blocks.get(at.block as usize)?.get(at.word as usize).copied()
    }

    /// The first entry behind a block, all round.
    #[cold]
    fn first_behind(&self, number: usize) -> Option<u64> {
        let (before, behind) = self.blocks.split_at(number + 1);
        behind.iter().chain(before).find_map(|block| block.get(self.index_words)).copied()
    }

    /// Passes over entries from a position on, all round and each once at most, up to and with the first of which `found` says so.
    #[inline]
    pub(super) fn advance(&self, at: &mut Position, mut found: impl FnMut(u16) -> bool) -> Option<u16> {
        for _ in 0..=self.blocks.len() {
            while let Some(&entry) = self.blocks.get(at.block as usize)?.get(at.word as usize) {
                at.word += 1;
                if found(owner(entry)) {
                    return Some(owner(entry));
                }
            }
            let next = at.block + 1;
            let block = if next as usize == self.blocks.len() { 0 } else { next };
            *at = Position { block, word: self.index_words as u32 };
        }
        None
    }

    pub(super) fn points(&self) -> usize {
        self.points
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = u64> {
        self.blocks_of_entries().flatten().copied()
    }

    /// The entries of each block, in order.
    pub(super) fn blocks_of_entries(&self) -> impl Iterator<Item = &[u64]> {
        self.blocks.iter().map(|block| &block[self.index_words..])
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.blocks) + self.blocks.iter().map(|block| size_of_val(&**block)).sum::<usize>()
    }

    /// Whether so many points are too many or too few for these buckets: a look-up would take more steps, or memory lie idle.
    pub(super) fn is_outgrown(&self, points: usize) -> bool {
        let buckets = 1_usize << (64 - self.shift);
        points == 0 || self.points == 0 || points > buckets * 2 || points < buckets / 4
    }

    /// Without the entries that are gone, of those that are there, and with the ones that come, both sorted. At the same place `rank` says
    /// which is first. Blocks in which none of them is are the same.
    pub(super) fn edit(&self, gone: &[u64], come: &[u64], rank: impl Fn(u64) -> u16) -> Self {
        let mut blocks = self.blocks.clone();
        let number = |entry: u64| (entry >> self.shift) as usize / BUCKETS;
        let (mut gone_left, mut come_left) = (gone, come);
        while let Some(&next) = gone_left.first().into_iter().chain(come_left.first()).min() {
            let at = number(next);
            let (gone, gone_behind) = gone_left.split_at(gone_left.partition_point(|&entry| number(entry) <= at));
            let (come, come_behind) = come_left.split_at(come_left.partition_point(|&entry| number(entry) <= at));
            (gone_left, come_left) = (gone_behind, come_behind);
            let entries = edited(&self.blocks[at][self.index_words..], gone, come, &rank);
            blocks[at] = block_of(&entries, self.shift, self.index_words);
        }
        Self { blocks, points: self.points + come.len() - gone.len(), ..*self }
    }

    /// Where the first entry stands.
    pub(super) fn begin(&self) -> Position {
        self.settled(Position { block: 0, word: self.index_words as u32 })
    }

    /// The position behind one at which an entry stands.
    pub(super) fn behind(&self, at: Position) -> Position {
        self.settled(Position { word: at.word + 1, ..at })
    }

    /// Where the first entry at or after a position stands; not round the end.
    fn settled(&self, mut at: Position) -> Position {
        while self.blocks.get(at.block as usize).is_some_and(|block| at.word as usize >= block.len()) {
            at = Position { block: at.block + 1, word: self.index_words as u32 };
        }
        at
    }

    /// Where both stand at the beginning of a block that they share: passes over it, and gives its last entry.
    pub(super) fn pass_shared(&self, at: &mut Position, other: &Self, other_at: &mut Position) -> Option<u64> {
        let shared = self.shift == other.shift && *at == *other_at && at.word as usize == self.index_words;
        let (block, of_other) = (self.blocks.get(at.block as usize)?, other.blocks.get(at.block as usize)?);
        let last = block.last().filter(|_| shared && Arc::ptr_eq(block, of_other))?;
        let next = Position { block: at.block + 1, ..*at };
        (*at, *other_at) = (self.settled(next), other.settled(next));
        Some(*last)
    }

    #[cfg(test)]
    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    #[cfg(test)]
    pub(super) fn block_number(&self, entry: u64) -> usize {
        (entry >> self.shift) as usize / BUCKETS
    }
}

/// A block of entries in order.
fn block_of(entries: &[u64], shift: u32, index_words: usize) -> Block {
    // What does not fit is found from the last that does.
    let number = |at: usize| (index_words + at).min(usize::from(u16::MAX)) as u16;
    let mut firsts = [number(entries.len()); BUCKETS];
    let mut begun = 0;
    for (at, &entry) in entries.iter().enumerate() {
        let bucket = (entry >> shift) as usize % BUCKETS;
        if bucket >= begun {
            firsts[begun..=bucket].fill(number(at));
            begun = bucket + 1;
        }
    }
    let (words, _) = firsts.as_chunks::<PER_WORD>();
    let word =
        |&[a, b, c, d]: &[u16; PER_WORD]| u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48;
    let mut block = Vec::with_capacity(index_words + entries.len());
    block.extend(words[..index_words].iter().map(word));
    block.extend_from_slice(entries);
    block.into()
}

/// Entries without those that are gone and with those that come.
fn edited(entries: &[u64], gone: &[u64], come: &[u64], rank: &impl Fn(u64) -> u16) -> Vec<u64> {
    let mut edited = Vec::with_capacity(entries.len() + come.len());
    edited.extend_from_slice(entries);
    for &gone in gone {
        let first = edited.partition_point(|&entry| place(entry) < place(gone));
        let found = edited[first..].iter().position(|&entry| entry == gone);
        debug_assert!(found.is_some(), "invariant: what goes was there");
        found.map(|away| edited.remove(first + away));
    }
    for &come in come {
        let order = |entry: u64| (place(entry), rank(entry));
        let at = edited.partition_point(|&entry| order(entry) < order(come));
        edited.insert(at, come);
    }
    edited
}

/// Points are uniform: one pass into buckets by their top bits leaves about one in each. Gives the entries, and where each bucket begins.
fn sort_into_buckets(unsorted: &[u64], bits: u32) -> (Vec<u64>, Vec<u32>) {
    let shift = 64 - bits;
    let mut begins = vec![0_u32; 1 << bits];
    for entry in unsorted {
        begins[(entry >> shift) as usize] += 1;
    }
    let mut begin = 0;
    for bucket in &mut begins {
        begin += std::mem::replace(bucket, begin);
    }
    let mut entries = vec![0_u64; unsorted.len()];
    for &entry in unsorted {
        let bucket = &mut begins[(entry >> shift) as usize];
        entries[*bucket as usize] = entry;
        *bucket += 1;
    }
    // Each bucket's number is now its end, which is the next one's begin.
    begins.rotate_right(1);
    begins[0] = 0;
    for bucket in 0..begins.len() {
        let begin = begins[bucket] as usize;
        let end = begins.get(bucket + 1).map_or(unsorted.len(), |&end| end as usize);
        if end - begin > 1 {
            entries[begin..end].sort_unstable();
        }
    }
    (entries, begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_with_more_entries_than_its_index_has_numbers_for_is_searched_all_the_same() {
        // All in one bucket, and one in the last.
        let mut entries: Vec<u64> = (0..70_000).map(|place| place << SLOT_BITS).collect();
        entries.push(!SLOT_MASK | 1);
        let circle = Circle::build(&entries);
        for hash in [0, 1, 65_400, 65_535, 65_536, 69_999].map(|place| place << SLOT_BITS) {
            assert_eq!(circle.first(hash), Some(hash));
            assert_eq!(circle.first(hash + 1), Some(hash));
        }
        // All blocks between are empty.
        for hash in [70_000 << SLOT_BITS, 1 << 60, u64::MAX] {
            assert_eq!(circle.first(hash), Some(!SLOT_MASK | 1));
        }
        assert!(circle.entries().eq(entries));
    }

    #[test]
    fn behind_the_last_entry_comes_the_first_and_each_is_passed_once() {
        let entries = [7 << SLOT_BITS | 3, 9 << SLOT_BITS | 4];
        let circle = Circle::build(&entries);
        let mut at = circle.position(8 << SLOT_BITS);
        let mut passed = Vec::new();
        let note = |owner| {
            passed.push(owner);
            false
        };
        assert_eq!(circle.advance(&mut at, note), None);
        assert_eq!(passed, [4, 3, 4], "the block it began in is gone through again");
        assert_eq!(circle.first(u64::MAX), Some(entries[0]));
        assert_eq!(Circle::build(&[]).first(7), None);
    }
}
