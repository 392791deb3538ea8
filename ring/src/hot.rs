//! Hot keys: which keys take so much of a service's traffic that one owner cannot carry them.
//!
//! Each worker counts in a [`Sketch`] of its own; its reports are merged by [`HotKeys`], which says which keys are hot and how
//! many owners each has. Which they are follows from the key's candidate sequence alone, so every proxy that sees a key as hot spreads it
//! over the same members.

use crate::hash::{Hash, mix};
use std::collections::{BTreeMap, HashMap};

/// Counters of a sketch: sets of [`WAYS`].
const SETS: usize = 128;
const WAYS: usize = 8;
/// Counts are halved after so many requests, so that a sketch forgets.
const HALVE_AFTER: u64 = 100_000;
/// Keys that a report names at most.
const REPORT_MAX: usize = 64;

/// Counts the heavy hitters of one stream of keys, in constant space.
///
/// Space-Saving in sets of eight: a key that is not in its set takes the place of the least there, and inherits its count as
/// its possible error. Counts are upper bounds, counts less errors lower ones. Source: Metwally, Agrawal, El Abbadi,
/// "Efficient computation of frequent and top-k elements in data streams", ICDT 2005.
#[derive(Debug)]
pub struct Sketch {
    sets: Box<[[Counter; WAYS]]>,
    /// Requests counted, halved as the counters are.
    total: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    hash: Hash,
    count: u32,
    error: u32,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { sets: vec![[Counter::default(); WAYS]; SETS].into(), total: 0 }
    }
}

impl Sketch {
    /// Counts one request.
    #[inline]
    pub fn count(&mut self, hash: Hash) {
        self.total += 1;
        let set = &mut self.sets[(mix(hash) >> 32) as usize % SETS];
        if let Some(counter) = set.iter_mut().find(|counter| counter.hash == hash && counter.count > 0) {
            counter.count += 1;
        } else if let Some(least) = set.iter_mut().min_by_key(|counter| counter.count) {
            *least = Counter { hash, count: least.count + 1, error: least.count };
        }
        if self.total >= HALVE_AFTER {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.total /= 2;
        for counter in self.sets.iter_mut().flatten() {
            counter.count /= 2;
            counter.error = counter.error.div_ceil(2).min(counter.count);
        }
    }

    /// Requests counted, as far as they are not forgotten.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The keys that surely have at least this share of the requests, 0 to 1, most frequent first; at most 64.
    #[must_use]
    pub fn report(&self, share_min: f64) -> Report {
        let least = (share_min * self.total as f64).max(1.0);
        let mut keys: Vec<(Hash, u32)> = self
            .sets
            .iter()
            .flatten()
            .map(|counter| (counter.hash, counter.count - counter.error))
            .filter(|(_, sure)| f64::from(*sure) >= least)
            .collect();
        keys.sort_unstable_by_key(|&(hash, sure)| (u32::MAX - sure, hash));
        keys.truncate(REPORT_MAX);
        Report { total: self.total, keys }
    }
}

/// What one worker has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests, keys that are not named included.
    pub total: u64,
    /// Keys, and how many requests each surely had.
    pub keys: Vec<(Hash, u32)>,
}

/// When a key is hot. Shares are in units of one member's fair share of the requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HotParams {
    /// A key with more than this becomes hot.
    pub enter: f64,
    /// One with less than this is hot no more.
    pub leave: f64,
    /// Hot keys at most.
    pub keys_max: usize,
    /// Requests that must have been seen before any share is believed.
    pub volume_min: u64,
}

impl Default for HotParams {
    fn default() -> Self {
        Self { enter: 0.5, leave: 0.35, keys_max: 256, volume_min: 1_000 }
    }
}

/// A hot key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HotKey {
    /// Share of the service's requests, 0 to 1.
    pub share: f64,
    /// Members that serve it: the first so many of its candidate sequence.
    pub owners: u16,
}

/// The hot keys of a service, from the reports of all its workers.
#[derive(Debug, Default)]
pub struct HotKeys {
    reports: Vec<Report>,
    hot: BTreeMap<Hash, HotKey>,
}

impl HotKeys {
    /// Takes in a worker's report; it replaces the one before.
    pub fn handle_report(&mut self, worker: usize, report: Report) {
        if self.reports.len() <= worker {
            self.reports.resize(worker + 1, Report::default());
        }
        self.reports[worker] = report;
    }

    /// Works out which keys are hot now, among so many eligible members. `true`: the table has changed.
    ///
    /// A key of share `p` has `ceil(p * members / enter) + 1` owners, all members at most; it gets a new number only when
    /// that has moved by more than one, or when it enters or leaves.
    pub fn update(&mut self, params: &HotParams, members: usize) -> bool {
        let total: u64 = self.reports.iter().map(|report| report.total).sum();
        let mut counts: HashMap<Hash, u64> = HashMap::new();
        for (hash, count) in self.reports.iter().flat_map(|report| &report.keys) {
            *counts.entry(*hash).or_default() += u64::from(*count);
        }
        let mut next: Vec<(Hash, HotKey)> = Vec::new();
        if total >= params.volume_min && members > 1 {
            for (hash, count) in counts {
                let share = count as f64 / total as f64;
                let relative = share * members as f64;
                let before = self.hot.get(&hash);
                if relative < if before.is_some() { params.leave } else { params.enter } {
                    continue;
                }
                let wanted = (relative / params.enter.max(f64::MIN_POSITIVE)).ceil() as u64 + 1;
                let wanted = wanted.min(members as u64).min(crate::HOT_OWNERS_MAX as u64) as u16;
                let owners = match before {
                    Some(key) if key.owners.abs_diff(wanted) <= 1 && usize::from(key.owners) <= members => key.owners,
                    _ => wanted,
                };
                next.push((hash, HotKey { share, owners }));
            }
        }
        next.sort_unstable_by(|(one, a), (other, b)| b.share.total_cmp(&a.share).then(one.cmp(other)));
        next.truncate(params.keys_max);
        let next: BTreeMap<Hash, HotKey> = next.into_iter().collect();
        let owners = |table: &BTreeMap<Hash, HotKey>| -> Vec<(Hash, u16)> {
            table.iter().map(|(hash, key)| (*hash, key.owners)).collect()
        };
        let changed = owners(&self.hot) != owners(&next);
        self.hot = next;
        changed
    }

    /// The hot keys now, by hash.
    #[must_use]
    pub fn keys(&self) -> &BTreeMap<Hash, HotKey> {
        &self.hot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(sketch: &mut Sketch, share_percent: u64, rounds: u64) {
        for number in 0..rounds {
            let hash = if mix(number) % 100 < share_percent { 42 } else { mix(number ^ 0xabcdef) };
            sketch.count(hash);
        }
    }

    #[test]
    fn heavy_hitter_is_found_among_many_that_come_once() {
        let mut sketch = Sketch::default();
        feed(&mut sketch, 5, 50_000);
        let report = sketch.report(0.02);
        assert_eq!(report.keys.len(), 1);
        let (hash, sure) = report.keys[0];
        assert_eq!(hash, 42);
        assert!((2_200..=2_800).contains(&sure), "{sure}");
    }

    #[test]
    fn counts_are_lower_bounds_and_fade() {
        let mut sketch = Sketch::default();
        feed(&mut sketch, 50, 90_000);
        let before = sketch.report(0.1).keys[0].1;
        assert!(u64::from(before) <= sketch.total());
        // Then it is not asked for any more.
        for number in 0..400_000_u64 {
            sketch.count(mix(number ^ 0x1234_5678));
        }
        assert!(sketch.report(0.1).keys.is_empty());
        assert!(sketch.total() < HALVE_AFTER);
    }

    #[test]
    fn no_report_names_a_key_with_more_requests_than_it_had_most_frequent_first() {
        let (mut sketch, mut counts) = (Sketch::default(), BTreeMap::<Hash, u32>::new());
        // More keys than there are counters: each new one takes over the count of the one that it replaces, as its error.
        for number in 0..60_000_u64 {
            let hash = mix(if number % 5 == 0 { number / 5 % 40 } else { number });
            sketch.count(hash);
            *counts.entry(hash).or_default() += 1;
        }
        assert_eq!(sketch.total(), 60_000);
        let report = sketch.report(0.0);
        assert_eq!(report.keys.len(), REPORT_MAX);
        assert!(report.keys.iter().all(|(hash, sure)| *sure > 0 && *sure <= counts[hash]), "{:?}", report.keys);
        assert!(report.keys.is_sorted_by_key(|(_, sure)| u32::MAX - sure));
    }

    #[test]
    fn hot_key_has_hysteresis_and_owners_for_its_share() {
        let mut hot = HotKeys::default();
        let params = HotParams::default();
        let mut at = |count: u32, members: usize| {
            hot.handle_report(0, Report { total: 10_000, keys: vec![(7, count)] });
            hot.update(&params, members);
            hot.keys().get(&7).map(|key| key.owners)
        };
        // Ten members: a fair share is 10 %, half of it 5 %.
        assert_eq!(at(450, 10), None);
        assert_eq!(at(500, 10), Some(2));
        assert_eq!(at(400, 10), Some(2));
        assert_eq!(at(340, 10), None);
        assert_eq!(at(2_000, 10), Some(5));
        assert_eq!(at(2_400, 10), Some(5), "one more is not worth a change");
        assert_eq!(at(4_000, 10), Some(9));
        assert_eq!(at(4_000, 3), Some(3));
        assert_eq!(at(4_000, 1), None);
    }

    #[test]
    fn reports_of_workers_are_added() {
        let mut hot = HotKeys::default();
        for worker in 0..4 {
            hot.handle_report(worker, Report { total: 1_000, keys: vec![(worker as u64 % 2, 40)] });
        }
        assert!(hot.update(&HotParams { enter: 0.19, leave: 0.1, ..HotParams::default() }, 10));
        assert_eq!(hot.keys().len(), 2);
        assert!(!hot.update(&HotParams { enter: 0.19, leave: 0.1, ..HotParams::default() }, 10), "nothing is new");
        hot.handle_report(0, Report::default());
        hot.handle_report(2, Report::default());
        assert!(hot.update(&HotParams { enter: 0.19, leave: 0.1, ..HotParams::default() }, 10));
    }

    #[test]
    fn counts_are_halved_as_one_and_no_sooner_than_that_many_have_come() {
        let mut sketch = Sketch::default();
        (0..HALVE_AFTER - 1).for_each(|_| sketch.count(42));
        assert_eq!(sketch.report(0.5), Report { total: 99_999, keys: vec![(42, 99_999)] });
        sketch.count(42);
        assert_eq!(sketch.report(0.5), Report { total: 50_000, keys: vec![(42, 50_000)] });
        // Of a counter with a possible error, what is sure stays so: rounded against the key.
        let mut sketch = Sketch::default();
        sketch.sets[0][0] = Counter { hash: 1, count: 9, error: 5 };
        sketch.sets[0][1] = Counter { hash: 2, count: 1, error: 1 };
        sketch.total = 10;
        sketch.halve();
        assert_eq!((sketch.total, sketch.sets[0][0].count, sketch.sets[0][0].error), (5, 4, 3));
        assert_eq!((sketch.sets[0][1].count, sketch.sets[0][1].error), (0, 0));
    }

    #[test]
    fn a_report_names_who_surely_has_the_share_or_more() {
        let mut sketch = Sketch::default();
        for (hash, count) in [(1, 50), (2, 30), (3, 20)] {
            (0..count).for_each(|_| sketch.count(hash));
        }
        let names = |share: f64| sketch.report(share).keys.iter().map(|(hash, _)| *hash).collect::<Vec<_>>();
        assert_eq!((names(0.2), names(0.21), names(0.3), names(0.51)), (vec![1, 2, 3], vec![1, 2], vec![1, 2], vec![]));
        assert_eq!(sketch.report(0.0).keys, [(1, 50), (2, 30), (3, 20)], "and nobody who never came");
        // A set holds eight: the ninth takes the place of the least, whose count is its possible error.
        let mut sketch = Sketch::default();
        let set = |hash: u64| (mix(hash) >> 32) as usize % SETS;
        let mates: Vec<u64> = (0..).filter(|&hash| set(hash) == set(0)).take(WAYS + 1).collect();
        for (index, &hash) in mates.iter().enumerate() {
            (0..if index == 3 { 2 } else { 9 }).for_each(|_| sketch.count(hash));
        }
        let counter = sketch.sets[set(0)].iter().find(|counter| counter.hash == mates[WAYS]).unwrap();
        assert_eq!((counter.count, counter.error), (11, 2));
        assert!(sketch.sets[set(0)].iter().all(|counter| counter.hash != mates[3]));
        assert_eq!(sketch.total(), 9 * 8 + 2);
    }

    #[test]
    fn a_key_is_hot_by_its_share_among_those_that_are_there_and_enough_must_have_been_seen() {
        let update = |total: u64, counts: &[(Hash, u32)], params: &HotParams, members: usize| {
            let mut hot = HotKeys::default();
            hot.handle_report(1, Report { total, keys: counts.to_vec() });
            hot.update(params, members);
            hot.keys().iter().map(|(hash, key)| (*hash, key.owners, key.share)).collect::<Vec<_>>()
        };
        let params = HotParams { enter: 0.5, leave: 0.4, keys_max: 2, volume_min: 1_000 };
        assert_eq!(update(1_000, &[(7, 50)], &params, 10), [(7, 2, 0.05)]);
        assert!(update(1_000, &[(7, 49)], &params, 10).is_empty());
        assert!(update(999, &[(7, 500)], &params, 10).is_empty());
        assert!(update(1_000, &[(7, 500)], &params, 1).is_empty(), "nobody to spread it over");
        assert_eq!(update(1_000, &[(7, 500)], &params, 2), [(7, 2, 0.5)], "all at most");
        assert_eq!(update(1_000, &[(7, 101)], &params, 10), [(7, 4, 0.101)]);
        assert_eq!(update(1_000, &[(7, 1_000)], &params, 10_000)[0].1, crate::HOT_OWNERS_MAX as u16);
        // Those with most, and of equals the smaller hash.
        let kept = update(1_000, &[(9, 100), (8, 100), (7, 100), (6, 200)], &params, 10);
        assert_eq!(kept.iter().map(|key| key.0).collect::<Vec<_>>(), [6, 7]);
    }

    #[test]
    fn the_number_of_owners_moves_by_more_than_one_or_not_at_all_and_never_beyond_the_members() {
        let mut hot = HotKeys::default();
        let params = HotParams { enter: 0.5, leave: 0.4, keys_max: 2, volume_min: 1 };
        let mut at = |count: u32, members: usize| {
            hot.handle_report(0, Report { total: 1_000, keys: vec![(7, count)] });
            let changed = hot.update(&params, members);
            (changed, hot.keys().get(&7).map(|key| key.owners))
        };
        assert_eq!(at(200, 10), (true, Some(5)));
        assert_eq!(at(201, 10), (false, Some(5)), "six would be right");
        assert_eq!(at(149, 10), (false, Some(5)), "four would be right");
        assert_eq!(at(260, 10), (true, Some(7)));
        assert_eq!(at(240, 10), (false, Some(7)));
        assert_eq!(at(700, 6), (true, Some(6)), "one less, but there are no more");
        assert_eq!(at(67, 6), (true, Some(2)));
        assert_eq!(at(66, 6), (true, None), "0.396 of a fair share");
    }
}
