//! Smooth weighted round robin, as a schedule worked out in advance.
//!
//! A member of weight w comes w times in a turn, as evenly spaced as can be: its k-th time is due at (k + 1/2) / w of
//! the turn. That is the order of nginx's smooth algorithm up to ties, at a constant cost per request.
//!
//! Who is absent has no turns: the schedule in use is the whole one without theirs, so those who are there share what is left by
//! their weights, and no neighbour gets it all. Who has no room, has been tried, or is still ramping up is passed over by taking
//! the next turn, everybody's next turn, for the same reason; a ramp decides about each turn anew, so turns follow effective weights.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};

/// Longest schedule; weights that would need a longer one are rounded to fit.
const LENGTH_MAX: u64 = 1 << 16;

/// A schedule and the place in it.
#[derive(Debug)]
pub struct RoundRobin {
    /// Of all members.
    schedule: Box<[u16]>,
    /// Of those that are there, in its first `length` entries. Rewritten in place: whoever reads meanwhile sees a turn of
    /// before or of after.
    present: Box<[AtomicU16]>,
    length: AtomicUsize,
    cursor: AtomicUsize,
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
        Self {
            present: schedule.iter().map(|&slot| AtomicU16::new(slot)).collect(),
            length: AtomicUsize::new(schedule.len()),
            schedule: schedule.into(),
            cursor: AtomicUsize::new(0),
        }
    }

    /// Says who is there. One caller at a time; requests go on meanwhile. Without anybody, all are.
    pub fn set_present(&self, is_present: impl Fn(u16) -> bool) {
        let mut length = 0;
        for &slot in self.schedule.iter().filter(|&&slot| is_present(slot)) {
            self.present[length].store(slot, Relaxed);
            length += 1;
        }
        if length == 0 {
            self.present.iter().zip(&self.schedule).for_each(|(turn, &slot)| turn.store(slot, Relaxed));
            length = self.schedule.len();
        }
        self.length.store(length, Relaxed);
    }

    /// Takes the next turn: its number, and whose it is. `None` without members.
    #[inline]
    pub fn turn(&self) -> Option<(usize, u16)> {
        let length = self.length.load(Relaxed);
        if length == 0 {
            return None;
        }
        // Relaxed: it orders nothing, each turn is given once.
        let turn = self.cursor.fetch_add(1, Relaxed);
        Some((turn, self.present.get(turn % length)?.load(Relaxed)))
    }

    /// The schedule: slots in the order of their turns, absent members included.
    #[must_use]
    pub fn schedule(&self) -> &[u16] {
        &self.schedule
    }
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
    let scale = |weight: u64| if weight == 0 { 0 } else { (weight * LENGTH_MAX / 2 / sum).max(1) };
    reduced.into_iter().map(scale).collect()
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

    #[test]
    fn those_who_are_there_have_their_weights_of_the_turns_whoever_is_absent() {
        let weights = [100, 10, 300, 0, 70, 20];
        let turns = RoundRobin::build(&weights);
        for absent in 0..64_u32 {
            turns.set_present(|slot| absent >> slot & 1 == 0);
            let there: Vec<usize> = (0..6).filter(|&slot| absent >> slot & 1 == 0 && weights[slot] > 0).collect();
            let sum: u32 = there.iter().map(|&slot| weights[slot]).sum();
            if sum == 0 {
                continue;
            }
            // Whole turns: in units of ten.
            let mut counts = [0; 6];
            for _ in 0..sum / 10 * 3 {
                counts[usize::from(turns.turn().unwrap().1)] += 1;
            }
            for slot in 0..6 {
                let due = if there.contains(&slot) { weights[slot] / 10 * 3 } else { 0 };
                assert_eq!(counts[slot], due, "{absent:b}: {counts:?}");
            }
        }
    }

    #[test]
    fn where_nobody_is_there_all_have_their_turns() {
        let turns = RoundRobin::build(&[100, 0, 100]);
        turns.set_present(|_| false);
        assert_eq!([0, 1, 2].map(|_| turns.turn().unwrap().1), [0, 2, 0]);
        assert_eq!(RoundRobin::build(&[0, 0]).turn(), None);
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
}
