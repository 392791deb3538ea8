//! Keys that are not handed over for now: of which a copy was refused lately, and of which a change is under way at the previous owner.
//!
//! Both are tables of a fixed size. Where they are too small for what there is, a copy is made that could have waited, or a key waits that need
//! not; never the other way round for changes.

use crate::hash::{Hash, mix};
use crate::sync::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Keeps places here apart from those elsewhere.
const REFUSED_SALT: u64 = 0x7269_6e67_7761_7906;
const CHANGES_SALT: u64 = 0x7269_6e67_7761_7907;
/// Keys of which copies were refused, by sets of a few.
const SETS: usize = 1 << 10;
const WAYS: usize = 4;
/// How long a key waits after the first refusal; after each further one twice as long.
const FIRST_MILLIS: u64 = 250;
const DOUBLED_MAX: u32 = 8;
/// An entry: a part of the key's hash, refusals, and when it has waited for long enough, in milliseconds.
const TAG_SHIFT: u32 = 44;
const COUNT_SHIFT: u32 = 40;
const UNTIL_MASK: u64 = (1 << COUNT_SHIFT) - 1;
/// Places for changes under way, two to a word.
const CHANGE_WORDS: usize = 1 << 11;
const CHANGE_BITS: u32 = 32;

/// Keys of which a copy brought nothing lately, told by all threads: the next one waits a quarter of a second, then half of one, to a minute.
/// Keys that meet in a set of four push each other out, the one that has waited longest first.
#[derive(Debug)]
pub struct RefusedKeys {
    entries: Box<[AtomicU64]>,
}

impl Default for RefusedKeys {
    /// None; 32 kibibytes.
    fn default() -> Self {
        Self { entries: (0..SETS * WAYS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl RefusedKeys {
    /// The entries of the key's set, and the part of the hash that stands in its own.
    fn place(&self, hash: Hash) -> (&[AtomicU64], u64) {
        let mixed = mix(hash ^ REFUSED_SALT);
        let first = mixed as usize % SETS * WAYS;
        // No tag is that of an empty entry.
        (&self.entries[first..first + WAYS], (mixed >> TAG_SHIFT).max(1))
    }

    /// Whether the key waits at this time, in milliseconds since any beginning.
    #[must_use]
    pub fn waits(&self, hash: Hash, now_millis: u64) -> bool {
        let (set, tag) = self.place(hash);
        let known = set.iter().map(|entry| entry.load(Relaxed)).find(|entry| entry >> TAG_SHIFT == tag);
        known.is_some_and(|entry| now_millis < entry & UNTIL_MASK)
    }

    /// A copy of a request of the key has brought nothing.
    pub fn refuse(&self, hash: Hash, now_millis: u64) {
        let (set, tag) = self.place(hash);
        let until_of = |entry: &AtomicU64| entry.load(Relaxed) & UNTIL_MASK;
        let known = set.iter().find(|entry| entry.load(Relaxed) >> TAG_SHIFT == tag);
        let Some(entry) = known.or_else(|| set.iter().min_by_key(|entry| until_of(entry))) else { return };
        // One copy of a key is under way at a time: of two that write here at once, another key's refusal is forgotten.
        let refusals = known.map_or(0, |entry| (entry.load(Relaxed) >> COUNT_SHIFT) as u32 & 0xf);
        let wait = FIRST_MILLIS << refusals.min(DOUBLED_MAX);
        let until = now_millis.saturating_add(wait).min(UNTIL_MASK);
        let next = u64::from((refusals + 1).min(0xf));
        entry.store(tag << TAG_SHIFT | next << COUNT_SHIFT | until, Relaxed);
    }
}

/// Changes under way at the previous owners of their keys, told by all threads. A place has many keys: those that share one wait for each other.
#[derive(Debug)]
pub struct ChangesUnderWay {
    words: Box<[AtomicU64]>,
}

impl Default for ChangesUnderWay {
    /// None; 16 kibibytes.
    fn default() -> Self {
        Self { words: (0..CHANGE_WORDS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl ChangesUnderWay {
    fn place(&self, hash: Hash) -> (&AtomicU64, u32) {
        let place = mix(hash ^ CHANGES_SALT);
        (&self.words[(place >> 1) as usize % CHANGE_WORDS], (place & 1) as u32 * CHANGE_BITS)
    }

    /// How many changes of the key, or of one that shares its place, are under way.
    // Who begins a copy and then looks here, and who begins a change and then looks for copies: one of them at least sees the other.
    #[must_use]
    pub fn count(&self, hash: Hash) -> u32 {
        let (word, shift) = self.place(hash);
        (word.load(SeqCst) >> shift) as u32
    }

    /// Whether none is, of any key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| word.load(SeqCst) == 0)
    }

    /// One begins.
    pub fn begin(&self, hash: Hash) {
        let (word, shift) = self.place(hash);
        word.fetch_add(1 << shift, SeqCst);
    }

    /// One that has begun is over.
    pub fn end(&self, hash: Hash) {
        let (word, shift) = self.place(hash);
        word.fetch_sub(1 << shift, SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn keys(count: u64) -> impl Iterator<Item = Hash> {
        (0..count).map(|number| mix(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    #[test]
    fn a_key_waits_twice_as_long_after_each_refusal_to_a_minute_and_others_do_not() {
        let refused = RefusedKeys::default();
        assert!(!refused.waits(7, 0));
        let (mut now, mut waits) = (5_000, Vec::new());
        for _ in 0..12 {
            refused.refuse(7, now);
            let until = (now..).step_by(50).find(|at| !refused.waits(7, *at)).unwrap();
            waits.push(until - now);
            now = until + 100_000;
        }
        let expected = [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000, 64_000, 64_000];
        assert_eq!(waits, expected);
        assert!(!refused.waits(8, 0));
    }

    #[test]
    fn a_key_that_is_refused_for_good_is_copied_a_dozen_times_in_a_window_of_minutes_however_often_it_is_asked_for() {
        let refused = RefusedKeys::default();
        let copies = (0..300_000).filter(|now| {
            let copied = !refused.waits(7, *now);
            if copied {
                refused.refuse(7, *now);
            }
            copied
        });
        assert_eq!(copies.count(), 12);
    }

    #[test]
    fn many_keys_at_once_wait_and_the_table_does_not_grow() {
        let refused = RefusedKeys::default();
        keys(1_000).for_each(|hash| refused.refuse(hash, 0));
        let waiting = keys(1_000).filter(|hash| refused.waits(*hash, 249)).count();
        assert!(waiting >= 990, "{waiting}");
        assert!(keys(20_000).skip(1_000).filter(|hash| refused.waits(*hash, 249)).count() < 10);
        // More than it holds: as many as it holds wait.
        keys(50_000).for_each(|hash| refused.refuse(hash, 300));
        let waiting = keys(50_000).filter(|hash| refused.waits(*hash, 301)).count();
        assert!((3_900..=4_300).contains(&waiting), "{waiting}");
        assert_eq!(refused.entries.len(), 4_096);
    }

    #[test]
    fn changes_of_a_key_are_counted_and_all_ends_of_many_threads_leave_none() {
        let changes = ChangesUnderWay::default();
        changes.begin(7);
        changes.begin(7);
        changes.end(7);
        assert!(!changes.is_empty());
        assert_eq!((changes.count(7), keys(100).filter(|hash| changes.count(*hash) > 0).count()), (1, 0));
        changes.end(7);
        let change = |hash| {
            changes.begin(hash);
            assert!(changes.count(hash) > 0);
            changes.end(hash);
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| keys(5_000).for_each(change)))));
        assert!(changes.is_empty());
    }
}
