//! Smooth weighted round robin, as a schedule worked out in advance.
//!
//! A member of weight w comes w times in a turn, as evenly spaced as can be: its k-th time is due at (k + 1/2) / w of
//! the turn. That is the order of nginx's smooth algorithm up to ties, at a constant cost per request.

use crate::walk::Walk;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Longest schedule; weights that would need a longer one are rounded to fit.
const LENGTH_MAX: u64 = 1 << 16;

/// A schedule and the place in it.
#[derive(Debug)]
pub struct RoundRobin {
    schedule: Box<[u16]>,
    distinct: usize,
    members: usize,
    cursor: AtomicUsize,
}

impl RoundRobin {
    /// `weights` in slot order; members of weight 0 have no turn.
    #[must_use]
    pub fn build(weights: &[u32]) -> Self {
        let reduced = reduce(weights);
        let mut due: BinaryHeap<_> = reduced
            .iter()
            .enumerate()
            .filter(|&(_, &weight)| weight > 0)
            .map(|(slot, &weight)| Reverse((Due { numerator: 1, denominator: 2 * weight }, slot as u16)))
            .collect();
        let distinct = due.len();
        let length: u64 = reduced.iter().sum();
        let mut schedule = Vec::with_capacity(length as usize);
        while (schedule.len() as u64) < length {
            let Some(Reverse((at, slot))) = due.pop() else { break };
            schedule.push(slot);
            due.push(Reverse((Due { numerator: at.numerator + 2, ..at }, slot)));
        }
        Self { schedule: schedule.into(), distinct, members: weights.len(), cursor: AtomicUsize::new(0) }
    }

    /// Takes the next turn: its number, and the walk over all members that begins with it.
    #[inline]
    pub fn turn(&self) -> (usize, Walk) {
        // Relaxed: it orders nothing, each turn is given once.
        let turn = self.cursor.fetch_add(1, Relaxed);
        let position = if self.schedule.is_empty() { 0 } else { turn % self.schedule.len() };
        (turn, Walk::new(position as u32))
    }

    /// The next member of a walk that [`RoundRobin::turn`] gave.
    #[inline]
    pub fn next(&self, walk: &mut Walk) -> Option<crate::Slot> {
        walk.step(self.schedule.len(), self.distinct, self.members, |position| self.schedule[position])
    }

    /// The schedule: slots in the order of their turns.
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
    fn every_member_gets_its_weight_in_a_turn() {
        let weights = [97, 101, 0, 103, 1600, 1];
        let schedule = RoundRobin::build(&weights);
        for (slot, &weight) in weights.iter().enumerate() {
            let turns = schedule.schedule().iter().filter(|&&turn| usize::from(turn) == slot).count();
            assert_eq!(turns, weight as usize);
        }
    }
}
