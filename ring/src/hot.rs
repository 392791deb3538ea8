//! Hot keys: which keys take so much of a service's time that one owner cannot carry them.
//!
//! Keys are weighed by their cost, the time that their requests are in flight: a key that is asked for often and answered at once
//! burdens nobody, and to spread it would only cost hits. Each worker counts in a [`Sketch`] of its own; its reports are merged by
//! [`HotKeys`], which says which keys are hot and how many owners each has. Which they are follows from the key's candidate sequence
//! alone, so every proxy that sees a key as hot spreads it over the same members.

use crate::hash::{Hash, mix};
use std::collections::{BTreeMap, HashMap};

/// Counters of a sketch: sets of [`WAYS`].
const SETS: usize = 128;
const WAYS: usize = 8;
/// Counts are halved after so many requests, and sooner if time has passed, so that a sketch forgets.
const HALVE_AFTER: u64 = 100_000;
/// And when they have come to this cost, far below what a counter can hold.
const COST_MAX: u64 = 1 << 31;
/// A service's requests before any are told apart, or a half-life's cost if they last: one that is hardly used needs no counters.
const FIRST: u64 = 32;
/// Keys that a report names at most.
const REPORT_MAX: usize = 64;
/// Units of cost in a half-life: counters hold thousands of the longest requests, however long it is.
const UNITS: u64 = 1 << 19;

/// What a request costs that was in flight for so long, in parts of a half-life (57 µs where that is 30 s); each at least one. Of what
/// is older than the memory is long, only as much counts as is remembered.
#[inline]
#[must_use]
pub fn cost(in_flight_micros: u64, half_life_millis: u32) -> u32 {
    let half_life_micros = u64::from(half_life_millis.max(1)) * 1_000;
    let remembered = in_flight_micros.min(half_life_micros);
    (remembered * UNITS / half_life_micros) as u32 + 1
}

/// Counts the heavy hitters of one stream of keys, in constant space.
///
/// Space-Saving in sets of eight: a key that is not in its set takes the place of the least there, and inherits its count as
/// its possible error. Counts are upper bounds, counts less errors lower ones. Source: Metwally, Agrawal, El Abbadi,
/// "Efficient computation of frequent and top-k elements in data streams", ICDT 2005.
#[derive(Debug, Default)]
pub struct Sketch {
    /// Made once there is something to tell apart.
    sets: Option<Box<[[Counter; WAYS]]>>,
    /// Requests counted, halved as the counters are.
    requests: u64,
    /// Their cost, likewise.
    total: u64,
    /// When counts are halved next, once that is known.
    next_halving_millis: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    hash: Hash,
    count: u32,
    error: u32,
}

impl Sketch {
    /// Counts one request of this [`cost`]. `true`: it is the first that is remembered.
    #[inline]
    pub fn count(&mut self, hash: Hash, cost: u32) -> bool {
        self.count_part(hash, cost, 1)
    }

    /// Counts a part of a request's [`cost`], and so many requests for it: a part may be none. `true`: they are the first.
    #[inline]
    pub fn count_part(&mut self, hash: Hash, cost: u32, requests: u64) -> bool {
        self.requests += requests;
        self.total += u64::from(cost);
        match &mut self.sets {
            Some(sets) => {
                let set = &mut sets[(mix(hash) >> 32) as usize % SETS];
                if let Some(counter) = set.iter_mut().find(|counter| counter.hash == hash && counter.count > 0) {
                    counter.count = counter.count.saturating_add(cost);
                } else if let Some(least) = set.iter_mut().min_by_key(|counter| counter.count) {
                    *least = Counter { hash, count: least.count.saturating_add(cost), error: least.count };
                }
                if self.requests >= HALVE_AFTER || self.total >= COST_MAX {
                    self.halve();
                }
                false
            }
            None => self.begin(requests),
        }
    }

    #[cold]
    fn begin(&mut self, requests: u64) -> bool {
        if self.requests >= FIRST || self.total >= UNITS {
            self.sets = Some(vec![[Counter::default(); WAYS]; SETS].into());
        }
        requests > 0 && self.requests == requests
    }

    /// Time has passed: all counts are halved once for each half-life. What has nothing left gives its memory back.
    pub fn handle_time(&mut self, now_millis: u64, half_life_millis: u32) {
        let half_life = u64::from(half_life_millis.max(1));
        let next = *self.next_halving_millis.get_or_insert(now_millis + half_life);
        if now_millis >= next {
            let halvings = (now_millis - next) / half_life + 1;
            (0..halvings.min(64)).for_each(|_| self.halve());
            self.next_halving_millis = Some(next + halvings * half_life);
        }
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn halve(&mut self) {
        self.requests /= 2;
        self.total /= 2;
        for counter in self.sets.iter_mut().flatten().flatten() {
            counter.count /= 2;
            counter.error = counter.error.div_ceil(2).min(counter.count);
        }
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests == 0
    }

    /// The keys that surely have at least this share of the cost, 0 to 1, most costly first; at most 64.
    #[must_use]
    pub fn report(&self, share_min: f64) -> Report {
        let least = (share_min * self.total as f64).max(1.0);
        let mut keys: Vec<(Hash, u32)> = self
            .sets
            .iter()
            .flatten()
            .flatten()
            .map(|counter| (counter.hash, counter.count - counter.error))
            .filter(|(_, sure)| f64::from(*sure) >= least)
            .collect();
        keys.sort_unstable_by_key(|&(hash, sure)| (u32::MAX - sure, hash));
        keys.truncate(REPORT_MAX);
        Report { requests: self.requests, total: self.total, keys }
    }
}

/// What one worker has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests, of keys that are not named too.
    pub requests: u64,
    /// Their cost.
    pub total: u64,
    /// Keys, and what each surely had of it.
    pub keys: Vec<(Hash, u32)>,
}

/// When a key is hot. Shares are in units of one member's fair share of the cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HotParams {
    /// A key with more than this becomes hot.
    pub enter: f64,
    /// One with less than this is hot no more.
    pub leave: f64,
    /// Hot keys at most.
    pub keys_max: usize,
    /// Owners of one key at most; never more than [`crate::HOT_OWNERS_MAX`].
    pub owners_max: u16,
    /// Requests that must be remembered before any share is believed; a fourth of them, once one is.
    pub volume_min: u64,
    /// Time after which half is forgotten, in milliseconds.
    pub half_life_millis: u32,
}

impl Default for HotParams {
    fn default() -> Self {
        let owners_max = crate::HOT_OWNERS_MAX as u16;
        Self { enter: 0.5, leave: 0.35, keys_max: 256, owners_max, volume_min: 1_000, half_life_millis: 30_000 }
    }
}

/// A hot key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HotKey {
    /// Share of the service's cost, 0 to 1.
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

    /// Whether there is anything to work out: a key is hot, or a report names one.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.hot.is_empty() || self.reports.iter().any(|report| !report.keys.is_empty())
    }

    /// Works out which keys are hot now, among so many eligible members. `true`: the table has changed.
    ///
    /// A key of share `p` has `ceil(p * members / enter) + 1` owners, all members and `owners_max` at most; it gets a new number only when
    /// that has moved by more than one, or when it enters or leaves.
    pub fn update(&mut self, params: &HotParams, members: usize) -> bool {
        let next = hot_among(&self.hot, &Remembered::of(self.reports.iter()), params, members);
        let owners = |table: &BTreeMap<Hash, HotKey>| -> Vec<(Hash, u16)> {
            table.iter().map(|(hash, key)| (*hash, key.owners)).collect()
        };
        let changed = owners(&self.hot) != owners(&next);
        self.hot = next;
        changed
    }

    /// All reports as one, as of one who has seen what all have: its keys are the most costly.
    #[must_use]
    pub fn report(&self) -> Report {
        let Remembered { requests, total, counts } = Remembered::of(self.reports.iter());
        // A counter that is too large for a report halves them all, until it fits.
        let most = counts.values().copied().max().unwrap_or(0);
        let shift = (u64::BITS - most.leading_zeros()).saturating_sub(u32::BITS);
        let mut keys: Vec<(Hash, u32)> =
            counts.into_iter().map(|(hash, sure)| (hash, (sure >> shift) as u32)).collect();
        keys.sort_unstable_by_key(|&(hash, sure)| (u32::MAX - sure, hash));
        keys.truncate(REPORT_MAX);
        Report { requests, total: total >> shift, keys }
    }

    /// The hot keys now, by hash.
    #[must_use]
    pub fn keys(&self) -> &BTreeMap<Hash, HotKey> {
        &self.hot
    }
}

/// What several have seen, as one.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) requests: u64,
    pub(crate) total: u64,
    pub(crate) counts: HashMap<Hash, u64>,
}

impl Remembered {
    fn of<'a>(reports: impl Iterator<Item = &'a Report>) -> Self {
        let mut all = Self::default();
        reports.for_each(|report| all.add(report, 1.0));
        all
    }

    /// Adds a report, which counts for so much.
    pub(crate) fn add(&mut self, report: &Report, part: f64) {
        let scaled = |count: u64| if part >= 1.0 { count } else { (count as f64 * part) as u64 };
        self.requests = self.requests.saturating_add(scaled(report.requests));
        self.total = self.total.saturating_add(scaled(report.total));
        for (hash, count) in &report.keys {
            let sum = self.counts.entry(*hash).or_default();
            *sum = sum.saturating_add(scaled(u64::from(*count)));
        }
    }
}

/// Which keys are hot, after those that were `before`: see [`HotKeys::update`].
pub(crate) fn hot_among(
    before: &BTreeMap<Hash, HotKey>,
    seen: &Remembered,
    params: &HotParams,
    members: usize,
) -> BTreeMap<Hash, HotKey> {
    let mut next: Vec<(Hash, HotKey)> = Vec::new();
    // What fades by halves must not fall below what it had to reach: keys would be hot and cold in turn.
    let volume_min = if before.is_empty() { params.volume_min } else { params.volume_min / 4 };
    if seen.requests >= volume_min && seen.total > 0 && members > 1 {
        for (&hash, &count) in &seen.counts {
            let share = count as f64 / seen.total as f64;
            let relative = share * members as f64;
            let known = before.get(&hash);
            if relative < if known.is_some() { params.leave } else { params.enter } {
                continue;
            }
            let wanted = ((relative / params.enter.max(f64::MIN_POSITIVE)).ceil() as u64).saturating_add(1);
            let most = usize::from(params.owners_max).min(crate::HOT_OWNERS_MAX).min(members);
            let wanted = wanted.min(most as u64) as u16;
            let owners = match known {
                Some(key) if key.owners.abs_diff(wanted) <= 1 && usize::from(key.owners) <= most => key.owners,
                _ => wanted,
            };
            next.push((hash, HotKey { share, owners }));
        }
    }
    next.sort_unstable_by(|(one, a), (other, b)| b.share.total_cmp(&a.share).then(one.cmp(other)));
    next.truncate(params.keys_max);
    next.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With counters from the first request on.
    fn told_apart() -> Sketch {
        Sketch { sets: Some(vec![[Counter::default(); WAYS]; SETS].into()), ..Sketch::default() }
    }

    fn of(total: u64, keys: &[(Hash, u32)]) -> Report {
        Report { requests: total, total, keys: keys.to_vec() }
    }

    fn feed(sketch: &mut Sketch, share_percent: u64, rounds: u64) {
        for number in 0..rounds {
            let hash = if mix(number) % 100 < share_percent { 42 } else { mix(number ^ 0xabcdef) };
            sketch.count(hash, 1);
        }
    }

    #[test]
    fn heavy_hitter_is_found_among_many_that_come_once() {
        let mut sketch = told_apart();
        feed(&mut sketch, 5, 50_000);
        let report = sketch.report(0.02);
        assert_eq!(report.keys.len(), 1);
        let (hash, sure) = report.keys[0];
        assert_eq!(hash, 42);
        assert!((2_200..=2_800).contains(&sure), "{sure}");
    }

    #[test]
    fn counts_are_lower_bounds_and_fade() {
        let mut sketch = told_apart();
        feed(&mut sketch, 50, 90_000);
        let before = sketch.report(0.1).keys[0].1;
        assert!(u64::from(before) <= sketch.total);
        // Then it is not asked for any more.
        for number in 0..400_000_u64 {
            sketch.count(mix(number ^ 0x1234_5678), 1);
        }
        assert!(sketch.report(0.1).keys.is_empty());
        assert!(sketch.total < HALVE_AFTER);
    }

    #[test]
    fn no_report_names_a_key_with_more_requests_than_it_had_most_frequent_first() {
        let (mut sketch, mut counts) = (told_apart(), BTreeMap::<Hash, u32>::new());
        // More keys than there are counters: each new one takes over the count of the one that it replaces, as its error.
        for number in 0..60_000_u64 {
            let hash = mix(if number % 5 == 0 { number / 5 % 40 } else { number });
            sketch.count(hash, 1);
            *counts.entry(hash).or_default() += 1;
        }
        assert_eq!(sketch.total, 60_000);
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
            hot.handle_report(0, of(10_000, &[(7, count)]));
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
            hot.handle_report(worker, of(1_000, &[(worker as u64 % 2, 40)]));
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
        let mut sketch = told_apart();
        (0..HALVE_AFTER - 1).for_each(|_| _ = sketch.count(42, 1));
        assert_eq!(sketch.report(0.5), of(99_999, &[(42, 99_999)]));
        sketch.count(42, 1);
        assert_eq!(sketch.report(0.5), of(50_000, &[(42, 50_000)]));
        // Of a counter with a possible error, what is sure stays so: rounded against the key.
        let mut sketch = told_apart();
        let sets = sketch.sets.as_mut().unwrap();
        sets[0][0] = Counter { hash: 1, count: 9, error: 5 };
        sets[0][1] = Counter { hash: 2, count: 1, error: 1 };
        (sketch.requests, sketch.total) = (6, 10);
        sketch.halve();
        let set = sketch.sets.as_ref().unwrap()[0];
        assert_eq!((sketch.requests, sketch.total, set[0].count, set[0].error), (3, 5, 4, 3));
        assert_eq!((set[1].count, set[1].error), (0, 0));
    }

    #[test]
    fn a_report_names_who_surely_has_the_share_or_more() {
        let mut sketch = told_apart();
        for (hash, count) in [(1, 50), (2, 30), (3, 20)] {
            (0..count).for_each(|_| _ = sketch.count(hash, 1));
        }
        let names = |share: f64| sketch.report(share).keys.iter().map(|(hash, _)| *hash).collect::<Vec<_>>();
        assert_eq!((names(0.2), names(0.21), names(0.3), names(0.51)), (vec![1, 2, 3], vec![1, 2], vec![1, 2], vec![]));
        assert_eq!(sketch.report(0.0).keys, [(1, 50), (2, 30), (3, 20)], "and nobody who never came");
        // A set holds eight: the ninth takes the place of the least, whose count is its possible error.
        let mut sketch = told_apart();
        let set = |hash: u64| (mix(hash) >> 32) as usize % SETS;
        let mates: Vec<u64> = (0..).filter(|&hash| set(hash) == set(0)).take(WAYS + 1).collect();
        for (index, &hash) in mates.iter().enumerate() {
            (0..if index == 3 { 2 } else { 9 }).for_each(|_| _ = sketch.count(hash, 1));
        }
        let sets = sketch.sets.as_ref().unwrap();
        let counter = sets[set(0)].iter().find(|counter| counter.hash == mates[WAYS]).unwrap();
        assert_eq!((counter.count, counter.error), (11, 2));
        assert!(sets[set(0)].iter().all(|counter| counter.hash != mates[3]));
        assert_eq!(sketch.total, 9 * 8 + 2);
    }

    #[test]
    fn a_key_is_hot_by_its_share_among_those_that_are_there_and_enough_must_have_been_seen() {
        let update = |total: u64, counts: &[(Hash, u32)], params: &HotParams, members: usize| {
            let mut hot = HotKeys::default();
            hot.handle_report(1, of(total, counts));
            hot.update(params, members);
            hot.keys().iter().map(|(hash, key)| (*hash, key.owners, key.share)).collect::<Vec<_>>()
        };
        let params = HotParams { enter: 0.5, leave: 0.4, keys_max: 2, ..HotParams::default() };
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
        let params = HotParams { enter: 0.5, leave: 0.4, keys_max: 2, volume_min: 1, ..HotParams::default() };
        let mut at = |count: u32, members: usize| {
            hot.handle_report(0, of(1_000, &[(7, count)]));
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

    #[test]
    fn a_key_is_weighed_by_the_time_in_flight_and_not_by_how_often_it_comes() {
        let mut sketch = told_apart();
        // One that is asked for nine times in ten and answered in a millisecond, and one that takes a second each time.
        for number in 0..1_000 {
            let (hash, millis) = if number % 10 == 0 { (1, 1_000) } else { (2, 1) };
            sketch.count(hash, cost(millis * 1_000, 30_000));
        }
        let report = sketch.report(0.5);
        assert_eq!(report.keys.iter().map(|(hash, _)| *hash).collect::<Vec<_>>(), [1]);
        assert_eq!(report.requests, 1_000);
        assert!(f64::from(report.keys[0].1) / report.total as f64 > 0.98);
        // What is in flight for no time at all has come all the same, and of a session of a day only so much is remembered.
        assert_eq!(cost(0, 30_000), 1);
        assert_eq!(cost(u64::MAX, 30_000), cost(30_000_000, 30_000));
        assert_eq!(cost(15_000_000, 30_000), (1 << 18) + 1);
        for half_life_millis in [0, 1, 30_000, u32::MAX] {
            assert_eq!(cost(u64::MAX, half_life_millis), (1 << 19) + 1, "and nothing overflows");
        }
    }

    #[test]
    fn counts_fade_by_time_as_well_and_what_has_faded_needs_no_memory() {
        let mut sketch = told_apart();
        (0..800).for_each(|_| _ = sketch.count(42, 10));
        sketch.handle_time(5_000, 30_000);
        sketch.handle_time(34_999, 30_000);
        assert_eq!(sketch.report(0.5).keys, [(42, 8_000)]);
        sketch.handle_time(35_000, 30_000);
        assert_eq!(sketch.report(0.5).keys, [(42, 4_000)]);
        // Two more half-lives, seen late: halved for both, and the next comes when it is due.
        sketch.handle_time(100_000, 30_000);
        assert_eq!(sketch.report(0.5).keys, [(42, 1_000)]);
        sketch.handle_time(125_000, 30_000);
        assert_eq!((sketch.requests, sketch.report(0.5).keys[0].1), (50, 500));
        sketch.handle_time(u64::MAX / 2, 30_000);
        assert!(sketch.is_empty() && sketch.sets.is_none());
        assert_eq!(sketch.report(0.0), Report::default());
    }

    #[test]
    fn a_service_that_is_hardly_used_has_no_counters_and_its_first_request_is_told() {
        let mut sketch = Sketch::default();
        assert!(sketch.count(7, 1));
        for _ in 1..FIRST - 1 {
            assert!(!sketch.count(7, 1));
        }
        assert!(sketch.sets.is_none());
        assert!(!sketch.count(7, 1) && sketch.sets.is_some());
        assert!(sketch.report(0.0).keys.is_empty(), "what came before is in the total alone");
        sketch.count(7, 5);
        assert_eq!(sketch.report(0.0), Report { requests: FIRST + 1, total: FIRST + 5, keys: vec![(7, 5)] });
        sketch.handle_time(0, 1);
        sketch.handle_time(100, 1);
        assert!(sketch.count(7, 1), "after it has been forgotten it is the first again");
        sketch.count_part(7, UNITS as u32 - 2, 0);
        assert!(sketch.sets.is_none());
        sketch.count_part(7, 1, 0);
        assert!(sketch.sets.is_some(), "one that lasts for long is no little use");
    }

    #[test]
    fn a_request_may_be_counted_in_parts_of_which_one_makes_it_a_request() {
        let mut sketch = told_apart();
        sketch.count_part(7, 10, 1);
        sketch.count_part(7, 30, 0);
        assert_eq!(sketch.report(0.0), Report { requests: 1, total: 40, keys: vec![(7, 40)] });
        let mut sketch = Sketch::default();
        assert!(!sketch.count_part(7, 5, 0), "nothing is remembered by it");
        assert!(sketch.count_part(7, 5, 2) && !sketch.count_part(7, 5, 0) && !sketch.count_part(7, 5, 2));
    }

    #[test]
    fn no_cost_overflows_a_counter() {
        let mut sketch = told_apart();
        (0..100).for_each(|_| _ = sketch.count(7, u32::MAX));
        let report = sketch.report(0.5);
        const { assert!(COST_MAX / (UNITS + 1) > 4_000, "of the longest requests, many more than are to be seen") };
        assert!(report.total < COST_MAX * 4 && u64::from(report.keys[0].1) <= report.total, "{report:?}");
    }

    #[test]
    fn owners_have_a_limit_of_their_own() {
        let mut hot = HotKeys::default();
        let params = HotParams { owners_max: 3, ..HotParams::default() };
        assert!(!hot.has_work());
        hot.handle_report(0, of(10_000, &[(7, 9_000)]));
        assert!(hot.has_work());
        assert!(hot.update(&params, 10));
        assert_eq!(hot.keys()[&7].owners, 3);
        // Few requests of much cost are not believed, and of those that were enough a fourth is, until it has faded.
        hot.handle_report(0, Report { requests: 250, total: 1 << 30, keys: vec![(7, 1 << 29)] });
        assert!(!hot.update(&params, 10) && hot.keys().len() == 1);
        hot.handle_report(0, Report { requests: 249, total: 1 << 30, keys: vec![(7, 1 << 29)] });
        assert!(hot.update(&params, 10) && hot.keys().is_empty());
        hot.handle_report(0, Report { requests: 999, total: 1 << 30, keys: vec![(7, 1 << 29)] });
        assert!(!hot.update(&params, 10) && hot.keys().is_empty());
        hot.handle_report(0, Report::default());
        assert!(!hot.has_work());
    }
}
