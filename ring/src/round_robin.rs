//! Smooth weighted round robin, as a schedule worked out in advance.
//!
//! A member of weight w comes w times in a turn, as evenly spaced as can be: its k-th time is due at (k + 1/2) / w of
//! the turn. That is the order of nginx's smooth algorithm up to ties, at a constant cost per request.
//!
//! An absent member has no turns: the schedule in use is the whole one without its turns, so the others share what is left by
//! their weights, and no neighbour gets it all. A member that is still ramping up takes a part of its turns, evenly spaced as well, and
//! so does one whose weight had to be rounded up to fit the schedule: turns follow effective weights, exactly. A turn that is not taken
//! (a ramp, no room) is passed over by taking the next one, which all members share, for the same reason.

use crate::hash::mix;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicUsize, Ordering::Relaxed};

/// Longest schedule; weights that would need a longer one are rounded to fit.
const LENGTH_MAX: u64 = 1 << 16;
/// That every turn is taken.
const EVERY: u32 = u32::MAX;

/// A schedule. The place in it is the caller's: it outlives schedules, or each new one would begin with the same members.
#[derive(Debug)]
pub struct RoundRobin {
    /// Of all members.
    schedule: Box<[u16]>,
    /// Times that each member comes in it.
    times: Box<[u32]>,
    /// Of those that are there, in its first `length` entries. Rewritten in place: a reader meanwhile sees a turn of
    /// before or of after.
    present: Box<[AtomicU16]>,
    length: AtomicUsize,
    /// By slot, the share of its turns that a member takes: 0, it is absent; [`EVERY`], all. At least one member takes all.
    taken: Box<[AtomicU32]>,
}

impl RoundRobin {
    /// `weights` in slot order; members of weight 0 have no turn. All are there.
    #[must_use]
    pub fn build(weights: &[u32]) -> Self {
        let reduced = reduce(weights);
        let mut due: BinaryHeap<_> = reduced
            .iter()
            .enumerate()
            .filter(|&(_, &weight)| weight > 0)
            .map(|(slot, &weight)| Reverse((Due { numerator: 1, denominator: 2 * weight }, slot as u16)))
            .collect();
        let length: u64 = reduced.iter().sum();
        let mut schedule = Vec::with_capacity(length as usize);
        while (schedule.len() as u64) < length {
            let Some(Reverse((at, slot))) = due.pop() else { break };
            schedule.push(slot);
            due.push(Reverse((Due { numerator: at.numerator + 2, ..at }, slot)));
        }
        let built = Self {
            present: schedule.iter().map(|&slot| AtomicU16::new(slot)).collect(),
            length: AtomicUsize::new(schedule.len()),
            schedule: schedule.into(),
            times: reduced.iter().map(|&times| times as u32).collect(),
            taken: weights.iter().map(|&weight| AtomicU32::new(if weight > 0 { EVERY } else { 0 })).collect(),
        };
        let weights: Vec<u64> = weights.iter().map(|&weight| u64::from(weight)).collect();
        built.set_weights(&weights);
        built
    }

    /// Says how much each member takes, in slot order: its effective weight, 0 for one that is absent. One caller at a time;
    /// requests go on meanwhile. Where no member takes anything, nothing changes.
    pub fn set_weights(&self, weights: &[u64]) {
        let per_turn =
            || weights.iter().zip(&self.times).map(|(&weight, &times)| weight as f64 / f64::from(times.max(1)));
        let most = per_turn().fold(0.0, f64::max);
        if most == 0.0 {
            return;
        }
        let mut same = true;
        for ((taken, share), &times) in self.taken.iter().zip(per_turn()).zip(&self.times) {
            let now = match share / most {
                share if share > 0.0 && times > 0 => ((share * f64::from(EVERY)).round() as u32).max(1),
                _ => 0,
            };
            same &= (taken.swap(now, Relaxed) == 0) == (now == 0);
        }
        if same {
            return;
        }
        let mut length = 0;
        for &slot in self.schedule.iter().filter(|&&slot| self.taken[usize::from(slot)].load(Relaxed) > 0) {
            self.present[length].store(slot, Relaxed);
            length += 1;
        }
        self.length.store(length, Relaxed);
    }

    /// Takes the next turn from the place that all callers share: the member's slot, and whether it takes the turn. `None` without members.
    #[inline]
    pub fn turn(&self, place: &AtomicUsize) -> Option<(u16, bool)> {
        let length = self.length.load(Relaxed);
        if length == 0 {
            return None;
        }
        // Relaxed: it orders nothing, each turn is given once.
        let turn = place.fetch_add(1, Relaxed);
        let (round, position) = (turn / length, turn % length);
        let slot = self.present.get(position)?.load(Relaxed);
        let share = self.taken[usize::from(slot)].load(Relaxed);
        Some((slot, share == EVERY || is_taken(share, round, position)))
    }

    /// The schedule: slots in the order of their turns, absent members included.
    #[must_use]
    pub fn schedule(&self) -> &[u16] {
        &self.schedule
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.schedule.len() * 4 + self.times.len() * 8
    }
}

/// Whether the turn at a place of the schedule is taken in a round: in `share` of the rounds, which are spread evenly by the
/// golden ratio, and for each place begin elsewhere.
fn is_taken(share: u32, round: usize, position: usize) -> bool {
    let begin = (mix(position as u64) >> 32) as u32;
    (round as u32).wrapping_mul(0x9e37_79b9).wrapping_add(begin) < share
}

/// A time within the turn, as a fraction, compared exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    numerator: u64,
    denominator: u64,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // At most 2^18 * 2^18: no overflow.
        (self.numerator * other.denominator).cmp(&(other.numerator * self.denominator))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Weights divided by their greatest common divisor, and scaled down if their sum is still too long for a schedule.
fn reduce(weights: &[u32]) -> Vec<u64> {
    let divisor = weights.iter().fold(0, |divisor, &weight| gcd(divisor, u64::from(weight))).max(1);
    let reduced: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) / divisor).collect();
    let sum: u64 = reduced.iter().sum();
    if sum <= LENGTH_MAX {
        return reduced;
    }
    // Rounded up, by less than one for each member: what that is too much, they do not take.
    reduced.into_iter().map(|weight| (weight * LENGTH_MAX / 2).div_ceil(sum)).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_evenly() {
        assert_eq!(RoundRobin::build(&[100, 100, 100]).schedule(), [0, 1, 2]);
        assert_eq!(RoundRobin::build(&[300, 100]).schedule(), [0, 0, 1, 0]);
        assert_eq!(RoundRobin::build(&[500, 100, 100]).schedule(), [0, 0, 0, 1, 2, 0, 0]);
        assert!(RoundRobin::build(&[0, 0]).schedule().is_empty());
    }

    /// Times that each is given the turn, and takes it, of so many requests.
    fn counts(turns: &RoundRobin, members: usize, requests: usize) -> Vec<u64> {
        let place = AtomicUsize::new(12_345);
        let mut counts = vec![0; members];
        let mut served = 0;
        while served < requests {
            let (slot, takes) = turns.turn(&place).unwrap();
            counts[usize::from(slot)] += u64::from(takes);
            served += usize::from(takes);
        }
        counts
    }

    #[test]
    fn members_that_are_there_have_their_weights_of_the_turns_whichever_is_absent() {
        let weights = [100, 10, 300, 0, 70, 20];
        let turns = RoundRobin::build(&weights);
        for absent in 0..64_u32 {
            let weights: Vec<u64> =
                (0..6).map(|slot| if absent >> slot & 1 == 0 { u64::from(weights[slot]) } else { 0 }).collect();
            turns.set_weights(&weights);
            let sum: u64 = weights.iter().sum();
            if sum == 0 {
                continue;
            }
            // Whole turns: in units of ten.
            let due: Vec<u64> = weights.iter().map(|weight| weight / 10 * 3).collect();
            assert_eq!(counts(&turns, 6, sum as usize / 10 * 3), due, "{absent:b}");
        }
    }

    #[test]
    fn a_ramping_member_takes_its_share_of_its_turns_and_the_others_share_the_rest_evenly() {
        let turns = RoundRobin::build(&[100; 6]);
        for percent in [1, 10, 50, 90] {
            turns.set_weights(&[100, 100, percent, 100, 100, 100]);
            let counts = counts(&turns, 6, 6_000);
            let due = 6_000.0 * percent as f64 / (500 + percent) as f64;
            assert!((counts[2] as f64 - due).abs() <= 2.0, "{percent}: {counts:?}");
            let others = || counts.iter().enumerate().filter(|(slot, _)| *slot != 2).map(|(_, count)| *count);
            assert!(others().max().unwrap() - others().min().unwrap() <= 1, "{percent}: {counts:?}");
        }
        // All alike: no turn is passed on.
        turns.set_weights(&[3; 6]);
        let place = AtomicUsize::new(0);
        assert!((0..60).all(|turn| turns.turn(&place) == Some((turn % 6, true))));
    }

    #[test]
    fn weights_that_no_schedule_can_hold_are_followed_all_the_same() {
        // 100 members of all weights that there are, without a common divisor.
        let weights: Vec<u32> = (0..100).map(|slot| 1 + slot * 16 + slot % 7).collect();
        let turns = RoundRobin::build(&weights);
        assert!(turns.schedule().len() < LENGTH_MAX as usize);
        let sum: u32 = weights.iter().sum();
        let counts = counts(&turns, 100, sum as usize * 20);
        for (count, weight) in counts.iter().zip(&weights) {
            let due = f64::from(*weight) * 20.0;
            assert!((*count as f64 - due).abs() < 0.02 * due + 8.0, "{count} of {due}: {counts:?}");
        }
    }

    #[test]
    fn where_nobody_is_there_turns_go_on_as_before() {
        let (turns, place) = (RoundRobin::build(&[100, 0, 100]), AtomicUsize::new(0));
        turns.set_weights(&[0, 0, 0]);
        assert_eq!([0, 1, 2].map(|_| turns.turn(&place).unwrap().0), [0, 2, 0]);
        assert_eq!(RoundRobin::build(&[0, 0]).turn(&place), None);
    }

    #[test]
    fn every_member_gets_its_weight_in_a_turn() {
        let weights = [97, 101, 0, 103, 1600, 1];
        let schedule = RoundRobin::build(&weights);
        for (slot, &weight) in weights.iter().enumerate() {
            let turns = schedule.schedule().iter().filter(|&&turn| usize::from(turn) == slot).count();
            assert_eq!(turns, weight as usize);
        }
    }

    #[test]
    fn weights_are_divided_by_what_they_have_in_common_and_scaled_where_they_are_too_many() {
        assert_eq!(reduce(&[100, 300, 0, 50]), [2, 6, 0, 1]);
        assert_eq!(reduce(&[0, 0]), [0, 0]);
        assert_eq!(reduce(&[7]), [1]);
        assert_eq!(reduce(&[65_535, 1]), [65_535, 1], "exactly as long as may be");
        assert_eq!(reduce(&[65_536, 1]), [32_768, 1]);
        assert_eq!(reduce(&[60_000, 60_001]), [16_384, 16_385]);
        assert_eq!([(12, 18), (18, 12), (7, 0), (0, 7), (17, 5)].map(|(a, b)| gcd(a, b)), [6, 6, 7, 7, 1]);
    }

    #[test]
    fn turns_that_are_not_taken_are_spread_over_rounds_and_places() {
        let taken = |share: u32, round, position| is_taken(share, round, position);
        for percent in [1_u32, 25, 50, 99] {
            let share = u32::MAX / 100 * percent;
            let in_rounds = (0..1_000).filter(|&round| taken(share, round, 3)).count();
            assert!(in_rounds.abs_diff(10 * percent as usize) <= 3, "{percent}: {in_rounds}");
            let in_places = (0..10_000).filter(|&position| taken(share, 5, position)).count();
            assert!(in_places.abs_diff(100 * percent as usize) <= 250, "{percent}: {in_places}");
        }
        let bits = (0..64).fold(0_u64, |bits, turn| bits << 1 | u64::from(taken(u32::MAX / 3, turn / 8, turn % 8)));
        assert_eq!(bits, TAKEN);
    }

    #[test]
    fn a_share_is_below_what_a_turn_asks_for_or_the_turn_is_taken() {
        for position in 0..9 {
            // In round 0 it is the place alone that says.
            let begin = (mix(position as u64) >> 32) as u32;
            assert!(!is_taken(begin, 0, position) && is_taken(begin + 1, 0, position), "{position}");
        }
    }

    const TAKEN: u64 = 0x9104_a340_2e91_40ae;

    #[test]
    fn a_schedule_is_as_large_as_its_turns_and_members_are_many() {
        // Four turns of two members.
        assert_eq!(RoundRobin::build(&[300, 100]).memory_bytes(), 4 * 4 + 2 * 8);
        assert_eq!(RoundRobin::build(&[]).memory_bytes(), 0);
    }
}
