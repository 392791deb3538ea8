//! What is read off a list of requests: hit ratios over sliding windows, and the misses that a change cost. Pure arithmetic.

use super::poisson::{How, Seen};
use crate::simulate::cache::Cache;
use std::collections::{BTreeMap, HashMap};

/// Length of the windows of which the worst counts, and how far apart they begin, in seconds.
pub const WINDOW: f64 = 3.0;
const STRIDE: f64 = 0.5;

/// Whether a user got it without the source of truth.
fn is_hit(seen: &Seen) -> bool {
    matches!(seen.answer, Some((_, How::Hit | How::Peer)))
}

/// Requests that were due from then until then.
#[must_use]
pub fn between(seen: &[Seen], from: f64, to: f64) -> &[Seen] {
    let at = |time: f64| seen.partition_point(|one| one.at < time);
    &seen[at(from)..at(to).max(at(from))]
}

/// Share of the requests that did not have to wait for the source of truth; 1 of none.
#[must_use]
pub fn hit_ratio(seen: &[Seen]) -> f64 {
    if seen.is_empty() { 1.0 } else { seen.iter().filter(|seen| is_hit(seen)).count() as f64 / seen.len() as f64 }
}

/// Requests that had to wait for it.
#[must_use]
pub fn misses(seen: &[Seen]) -> u64 {
    seen.iter().filter(|seen| matches!(seen.answer, Some((_, How::Miss)))).count() as u64
}

/// Requests without a good answer.
#[must_use]
pub fn failed(seen: &[Seen]) -> u64 {
    seen.iter().filter(|seen| seen.answer.is_none()).count() as u64
}

/// Beginnings of the windows that lie between these times; at least one.
fn windows(from: f64, to: f64) -> impl Iterator<Item = f64> {
    let count = ((to - from - WINDOW) / STRIDE).max(0.0) as usize + 1;
    (0..count).map(move |index| from + index as f64 * STRIDE)
}

/// The lowest hit ratio of a window between these times.
#[must_use]
pub fn worst(seen: &[Seen], from: f64, to: f64) -> f64 {
    windows(from, to).map(|begin| hit_ratio(between(seen, begin, begin + WINDOW))).fold(1.0, f64::min)
}

/// Most of these instants in a window between these times, over what a window had on average between `before` and `from`.
#[must_use]
pub fn peak(instants: &[f64], before: f64, from: f64, to: f64) -> f64 {
    let count = |from: f64, to: f64| instants.iter().filter(|at| (from..to).contains(*at)).count() as f64;
    let usual = count(before, from) * WINDOW / (from - before);
    let most = windows(from, to).map(|begin| count(begin, begin + WINDOW)).fold(0.0, f64::max);
    if usual > 0.0 { most / usual } else { f64::NAN }
}

/// The cache that each key's requests went to: the one that had most of them.
#[must_use]
pub fn owners(seen: &[Seen]) -> HashMap<u64, u16> {
    let mut counts: HashMap<u64, BTreeMap<u16, u32>> = HashMap::new();
    for (key, (origin, _)) in seen.iter().filter_map(|seen| Some((seen.key, seen.answer?))) {
        *counts.entry(key).or_default().entry(origin).or_default() += 1;
    }
    let most =
        |counts: BTreeMap<u16, u32>| counts.into_iter().max_by_key(|(_, count)| *count).map(|(origin, _)| origin);
    counts.into_iter().filter_map(|(key, counts)| Some((key, most(counts)?))).collect()
}

/// Share of the keys that both know which have another owner in one than in the other.
#[must_use]
pub fn moved(before: &HashMap<u64, u16>, after: &HashMap<u64, u16>) -> f64 {
    let both = before.iter().filter_map(|(key, owner)| Some((owner, after.get(key)?)));
    let (count, moved) =
        both.fold((0_u64, 0_u64), |(count, moved), (one, other)| (count + 1, moved + u64::from(one != other)));
    moved as f64 / count.max(1) as f64
}

/// The same requests at caches of so many keys if each key had this owner all the time: what nothing but the caches' size costs.
#[must_use]
pub fn steady(seen: &[Seen], owners: &HashMap<u64, u16>, size: usize) -> Vec<Seen> {
    let mut caches: HashMap<u16, Cache> = HashMap::new();
    let one = |seen: &Seen| {
        let origin = owners.get(&seen.key).copied().unwrap_or(u16::MAX);
        let hit = caches.entry(origin).or_insert_with(|| Cache::new(size)).touch(seen.key);
        Seen { answer: Some((origin, if hit { How::Hit } else { How::Miss })), ..*seen }
    };
    seen.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(at: f64, key: u64, origin: u16, how: How) -> Seen {
        Seen { at, key, answer: Some((origin, how)) }
    }

    /// Ten requests a second for ten seconds; every second one between the fourth and the seventh is a miss.
    fn dip() -> Vec<Seen> {
        let one = |number: u32| {
            let at = f64::from(number) / 10.0;
            let is_miss = (4.0..7.0).contains(&at) && number.is_multiple_of(2);
            seen(at, u64::from(number % 3), 0, if is_miss { How::Miss } else { How::Hit })
        };
        (0..100).map(one).collect()
    }

    #[test]
    fn the_worst_window_is_found_wherever_it_lies() {
        let all = dip();
        assert!((worst(&all, 0.0, 10.0) - 0.5).abs() < 1e-9);
        assert!((worst(&all, 7.0, 10.0) - 1.0).abs() < 1e-9);
        // Half a window of it.
        assert!((worst(&all, 5.5, 8.5) - 1.0 + 7.0 / 30.0).abs() < 1e-9, "{}", worst(&all, 5.5, 8.5));
        assert!((hit_ratio(&all) - 0.85).abs() < 1e-9);
        assert_eq!(misses(&all), 15);
        assert_eq!(between(&all, 4.0, 7.0).len(), 30);
        assert!(between(&all, 7.0, 4.0).is_empty());
    }

    #[test]
    fn what_a_peer_had_is_a_hit_and_what_failed_is_none() {
        let failure = Seen { at: 1.0, key: 1, answer: None };
        let all = [seen(0.0, 1, 0, How::Peer), failure, seen(2.0, 1, 0, How::Miss)];
        assert!((hit_ratio(&all) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!((misses(&all), failed(&all)), (1, 1));
    }

    #[test]
    fn a_peak_is_told_in_units_of_what_was_usual() {
        // One a second for ten seconds; then nine at once.
        let mut instants: Vec<f64> = (0..10).map(f64::from).collect();
        instants.extend([12.2; 9]);
        assert!((peak(&instants, 0.0, 10.0, 20.0) - 3.0).abs() < 1e-9);
        assert!(peak(&instants, 20.0, 30.0, 40.0).is_nan());
    }

    #[test]
    fn an_owner_is_who_had_most_and_moved_are_those_that_have_another() {
        let early = [
            seen(0.0, 1, 3, How::Hit),
            seen(0.1, 1, 3, How::Hit),
            seen(0.2, 1, 4, How::Hit),
            seen(0.3, 2, 5, How::Hit),
        ];
        let late = [seen(1.0, 1, 6, How::Hit), seen(1.1, 2, 5, How::Hit), seen(1.2, 9, 5, How::Hit)];
        let (before, after) = (owners(&early), owners(&late));
        assert_eq!(before, HashMap::from([(1, 3), (2, 5)]));
        assert!((moved(&before, &after) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn extra_misses_are_those_that_the_same_caches_would_not_have_had() {
        // Two keys in a cache that has room for one: each request misses, as it would have anyway.
        let both = [1, 2, 1, 2].map(|key| seen(key as f64, key, 0, How::Miss));
        let known = HashMap::from([(1, 0), (2, 0)]);
        assert_eq!(misses(&steady(&both, &known, 1)), 4);
        // With room for both, the second pair need not have missed.
        assert_eq!(misses(&both) - misses(&steady(&both, &known, 2)), 2);
        // In a cache each, they would not have missed either.
        assert_eq!(misses(&steady(&both, &HashMap::from([(1, 0), (2, 1)]), 1)), 2);
    }
}
