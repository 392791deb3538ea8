//! Hand-off of keys: which of those that a change moves are still their previous owner's, and which have been handed over.
//!
//! A share of them that grows with time may be handed over ([`HandoffRamp`]): which keys that are is a matter of their hashes, so that all
//! proxies that know when it began agree. Of these, each one's first request is the previous owner's once more, while the next owner gets a
//! copy ([`KeysUnderWay`]); once that has been answered, it is the next owner's ([`HandedKeys`]). No key ever goes back.

use crate::hash::{Hash, mix};
use crate::sync::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::time::Duration;

/// Keeps apart when a key is handed over, where it stands in the filter, and whether it is copied, from each other and from places on the ring.
const RAMP_SALT: u64 = 0x7269_6e67_7761_7902;
const FILTER_SALT: u64 = 0x7269_6e67_7761_7903;
const COPY_SALT: u64 = 0x7269_6e67_7761_7904;
const UNDER_WAY_SALT: u64 = 0x7269_6e67_7761_7905;
/// Share of the keys that may be handed over at once.
const INITIAL: f64 = 0.05;
/// Blocks of a cache line each: 2^23 bits in all.
const BLOCKS: usize = 1 << 14;
/// Bits of a key.
const BITS: u32 = 6;
/// Words of a bit for each copy under way.
const WORDS_UNDER_WAY: usize = 1 << 10;
/// Bits by which one of a block's is chosen.
const BIT_WIDTH: u32 = 9;

/// Which of the moved keys may be handed over by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandoffRamp {
    /// Hashes below, of 2^32.
    below: u64,
}

impl HandoffRamp {
    /// So long after the change: `0.05 + 0.95 elapsed / window` of them, all once the window is over.
    #[must_use]
    pub fn at(elapsed: Duration, window: Duration) -> Self {
        let passed = if elapsed < window { elapsed.as_secs_f64() / window.as_secs_f64() } else { 1.0 };
        Self { below: ((INITIAL + (1.0 - INITIAL) * passed) * 2.0_f64.powi(32)) as u64 }
    }

    /// Whether this key may be.
    #[inline]
    #[must_use]
    pub fn includes(self, hash: Hash) -> bool {
        mix(hash ^ RAMP_SALT) >> 32 < self.below
    }

    /// The share of all keys that may be.
    #[must_use]
    pub fn share(self) -> f64 {
        self.below as f64 / 2.0_f64.powi(32)
    }
}

/// Whose a key's next request is, of a key that a change has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoffTurn {
    /// The previous owner's: the key's time has not come.
    Previous,
    /// The previous owner's, while the next one gets a copy.
    First,
    /// The next owner's.
    Next,
}

impl HandoffTurn {
    /// Of a key, at this point of the ramp, that has been handed over or has not. One that has been never goes back.
    #[inline]
    #[must_use]
    pub fn of(hash: Hash, ramp: HandoffRamp, is_handed: bool) -> Self {
        match (is_handed, ramp.includes(hash)) {
            (true, _) => Self::Next,
            (false, true) => Self::First,
            (false, false) => Self::Previous,
        }
    }
}

/// Whether a key is one of so many percent that are copied: the same ones everywhere.
#[must_use]
pub fn is_copied(hash: Hash, percent: u32) -> bool {
    (u64::from(percent) << 32) / 100 > mix(hash ^ COPY_SALT) >> 32
}

/// The keys that have been handed over, told by all threads. A blocked Bloom filter: one that was not told may be taken for one that was
/// (two in a thousand at half a million keys), and is then handed over without a copy; never the other way round. Source: Putze, Sanders,
/// Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007.
#[derive(Debug)]
pub struct HandedKeys {
    blocks: Box<[Block]>,
}

/// The bits of a key stand in one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Block([AtomicU64; 8]);

impl Default for HandedKeys {
    /// None; a mebibyte.
    fn default() -> Self {
        Self { blocks: (0..BLOCKS).map(|_| Block::default()).collect() }
    }
}

impl HandedKeys {
    #[inline]
    fn place(&self, hash: Hash) -> (&Block, u64) {
        let first = mix(hash ^ FILTER_SALT);
        (&self.blocks[first as usize % BLOCKS], mix(first))
    }

    /// Whether the key was told, or is taken for one that was.
    #[inline]
    #[must_use]
    pub fn contains(&self, hash: Hash) -> bool {
        let (Block(words), places) = self.place(hash);
        bits(places).all(|(word, bit)| words[word].load(Relaxed) & bit != 0)
    }

    /// Tells a key. `false`: it was told before, perhaps by another thread just now.
    pub fn insert(&self, hash: Hash) -> bool {
        let (Block(words), places) = self.place(hash);
        // Of two that tell the same key at once, one at least finds a bit that it is the first to set.
        bits(places).fold(false, |is_new, (word, bit)| is_new | (words[word].fetch_or(bit, Relaxed) & bit == 0))
    }

    /// Share of its bits that are set: at a half, one key of sixty is taken for one that was told.
    #[must_use]
    pub fn fill(&self) -> f64 {
        let words = self.blocks.iter().flat_map(|Block(words)| words);
        let set: u64 = words.map(|word| u64::from(word.load(Relaxed).count_ones())).sum();
        set as f64 / (BLOCKS * 8 * 64) as f64
    }
}

/// The keys of which a copy is under way, told by all threads: one at a time of each. A bit has many keys: of two that share one, the
/// second's copy waits for the first's.
#[derive(Debug)]
pub struct KeysUnderWay {
    words: Box<[AtomicU64]>,
}

impl Default for KeysUnderWay {
    /// None; eight kibibytes.
    fn default() -> Self {
        Self { words: (0..WORDS_UNDER_WAY).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl KeysUnderWay {
    fn place(&self, hash: Hash) -> (&AtomicU64, u64) {
        let place = mix(hash ^ UNDER_WAY_SALT);
        (&self.words[(place >> 6) as usize % WORDS_UNDER_WAY], 1 << (place & 63))
    }

    /// Whether one of the key is, or of a key that shares its bit.
    #[must_use]
    pub fn contains(&self, hash: Hash) -> bool {
        let (word, bit) = self.place(hash);
        // See [`crate::ChangesUnderWay::count`].
        word.load(SeqCst) & bit != 0
    }

    /// How many bits are set: as many as there are copies.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.load(Relaxed).count_ones()).sum()
    }

    /// One begins. `false`: [`KeysUnderWay::contains`] it. Whoever begins one after another sees what was told before that ended.
    pub fn begin(&self, hash: Hash) -> bool {
        let (word, bit) = self.place(hash);
        word.fetch_or(bit, SeqCst) & bit == 0
    }

    /// One that has begun is over.
    pub fn end(&self, hash: Hash) {
        let (word, bit) = self.place(hash);
        word.fetch_and(!bit, Release);
    }
}

/// Word and bit of each of a key's bits in its block.
#[inline]
fn bits(places: u64) -> impl Iterator<Item = (usize, u64)> {
    (0..BITS).map(move |number| {
        let place = places >> (number * BIT_WIDTH);
        ((place >> 6) as usize & 7, 1 << (place & 63))
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Barrier;

    const WINDOW: Duration = Duration::from_secs(60);

    fn keys(count: u64) -> impl Iterator<Item = Hash> {
        (0..count).map(|number| mix(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    #[test]
    fn a_twentieth_begins_and_all_have_gone_at_the_end_in_step_with_the_time() {
        for (seconds, share) in [(0, 0.05), (15, 0.2875), (30, 0.525), (45, 0.7625), (60, 1.0), (600, 1.0)] {
            let ramp = HandoffRamp::at(Duration::from_secs(seconds), WINDOW);
            assert!((ramp.share() - share).abs() < 1e-6, "{seconds}: {}", ramp.share());
            let gone = keys(100_000).filter(|&hash| ramp.includes(hash)).count() as f64 / 1e5;
            assert!((gone - share).abs() < 0.006, "{seconds}: {gone}");
        }
        // The last one too.
        let end = HandoffRamp::at(WINDOW, WINDOW);
        assert!(keys(100_000).all(|hash| end.includes(hash)));
        assert!(HandoffRamp::at(Duration::ZERO, Duration::ZERO).includes(7), "no window is over at once");
    }

    #[test]
    fn when_a_key_goes_says_nothing_of_whether_it_is_copied_nor_of_where_it_stands() {
        let half = HandoffRamp::at(WINDOW * 19 / 38, WINDOW);
        let early: Vec<Hash> = keys(40_000).filter(|&hash| half.includes(hash)).collect();
        let copied = early.iter().filter(|&&hash| is_copied(hash, 50)).count() as f64 / early.len() as f64;
        assert!((copied - 0.5).abs() < 0.02, "{copied}");
        let of_ring = early.iter().filter(|&&hash| hash >> 63 == 1).count() as f64 / early.len() as f64;
        assert!((of_ring - 0.5).abs() < 0.02, "{of_ring}");
        assert!(keys(1_000).all(|hash| is_copied(hash, 100) && !is_copied(hash, 0)));
    }

    #[test]
    fn few_keys_are_taken_for_told_at_half_a_million_and_none_is_forgotten() {
        let handed = HandedKeys::default();
        assert_eq!((handed.fill(), keys(1_000).any(|hash| handed.contains(hash))), (0.0, false));
        let told = 1 << 19;
        let fresh = keys(told).filter(|&hash| handed.insert(hash)).count();
        assert!(fresh as f64 > told as f64 * 0.998, "{fresh}");
        assert!(keys(told).all(|hash| handed.contains(hash) && !handed.insert(hash)));
        let mistaken = keys(2 * told).skip(told as usize).filter(|&hash| handed.contains(hash)).count();
        assert!((mistaken as f64) < told as f64 * 0.004, "{mistaken}");
        assert!((0.28..0.34).contains(&handed.fill()), "{}", handed.fill());
    }

    #[test]
    fn of_threads_that_tell_the_same_keys_at_once_one_at_least_is_first_and_no_key_is_lost() {
        let (handed, start, threads) = (HandedKeys::default(), Barrier::new(4), 4);
        let firsts: Vec<Vec<bool>> = std::thread::scope(|scope| {
            let tell = || {
                start.wait();
                keys(20_000).map(|hash| handed.insert(hash)).collect::<Vec<_>>()
            };
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(tell)).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let unclaimed = (0..20_000).filter(|&key| firsts.iter().all(|first| !first[key])).count();
        assert!(unclaimed < 20, "{unclaimed} were taken for told by others");
        assert!(keys(20_000).all(|hash| handed.contains(hash)));
    }

    #[test]
    fn of_threads_that_begin_copies_of_the_same_keys_one_does_at_a_time_and_it_can_be_begun_again() {
        let (under_way, handed, copies) = (KeysUnderWay::default(), HandedKeys::default(), std::sync::Mutex::new(0));
        let copy = |hash: Hash| {
            if under_way.begin(hash) {
                // What the one before has told is seen.
                if !handed.contains(hash) {
                    *copies.lock().unwrap() += 1;
                    handed.insert(hash);
                }
                under_way.end(hash);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| keys(2_000).for_each(copy)))));
        assert!((1_990..=2_000).contains(&*copies.lock().unwrap()), "{copies:?}");
        assert!(keys(2_000).all(|hash| !under_way.contains(hash)));
        assert!(under_way.begin(1) && !under_way.begin(1) && under_way.contains(1) && !under_way.contains(2));
        assert_eq!(under_way.count(), 1);
        under_way.end(1);
        assert!(under_way.begin(1));
        let shared = keys(4_000).filter(|&hash| !under_way.begin(hash)).count();
        assert!((80..160).contains(&shared), "{shared} of 4,000 wait for others");
    }

    #[test]
    fn the_bits_of_a_key_stand_in_one_cache_line() {
        assert_eq!((size_of::<Block>(), align_of::<Block>()), (64, 64));
    }

    proptest! {
        /// Whatever requests come, at whatever times: a key that was the next owner's once is never the previous one's again.
        #[test]
        fn no_key_goes_back(requests in prop::collection::vec((0_u64..40, 0_u64..70_000), 1..400)) {
            let mut requests = requests;
            requests.sort_by_key(|&(_, at)| at);
            let (handed, mut gone) = (HandedKeys::default(), std::collections::HashSet::new());
            for (key, at) in requests {
                let (hash, ramp) = (mix(key), HandoffRamp::at(Duration::from_millis(at), WINDOW));
                match HandoffTurn::of(hash, ramp, handed.contains(hash)) {
                    HandoffTurn::Previous => prop_assert!(!gone.contains(&key) && at < 60_000),
                    HandoffTurn::First => {
                        prop_assert!(!gone.contains(&key));
                        prop_assert!(handed.insert(hash));
                        gone.insert(key);
                    }
                    HandoffTurn::Next => prop_assert!(gone.contains(&key)),
                }
            }
        }

        /// Two proxies that know the same beginning let the same keys go, and only more of them later.
        #[test]
        fn what_may_go_may_go_everywhere_and_ever_after(hash: u64, at in 0_u64..60_000, later in 0_u64..60_000) {
            let ramp = |at| HandoffRamp::at(Duration::from_millis(at), WINDOW);
            prop_assert_eq!(ramp(at), ramp(at));
            prop_assert!(!ramp(at).includes(hash) || ramp(at + later).includes(hash));
        }
    }
}
