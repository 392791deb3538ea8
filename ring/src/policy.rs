//! The order in which a level's members are asked: one variant per policy, over the level's own indices.

use crate::candidates::Candidates;
use crate::hash::Hash;
use crate::load::FULL_SHARE;
use crate::maglev::Maglev;
use crate::params::PolicyParams;
use crate::rendezvous::Rendezvous;
use crate::ring::{BuildError, Ring, Roster};
use crate::round_robin::RoundRobin;
use crate::slot::Slot;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug)]
pub(crate) enum Policy {
    Ring(Ring),
    Maglev(Maglev),
    Rendezvous(Rendezvous),
    RoundRobin(RoundRobin),
    Drawn(Drawn),
    LeastRequest(Alias),
    First,
}

/// Members drawn by their effective weights; of two, the better by [`Preference`].
#[derive(Debug)]
pub(crate) struct Drawn {
    pub(crate) alias: Alias,
    pub(crate) preference: Preference,
}

/// Which of two draws is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preference {
    /// One draw, no choice.
    None,
    /// Less load for its weight.
    Load,
    /// Lower mean latency times load.
    Cost { decay_millis: u32 },
}

impl Policy {
    /// Of a level's members. A ring is made of one of before, where that has the same parameters.
    pub(crate) fn build(policy: PolicyParams, roster: &Arc<Roster>, before: Option<&Self>) -> Result<Self, BuildError> {
        let alias = || {
            let weights = roster.weights().iter().map(|&weight| u64::from(weight) * u64::from(FULL_SHARE));
            Alias::build(&weights.collect::<Vec<_>>())
        };
        let drawn = |preference| Self::Drawn(Drawn { alias: alias(), preference });
        Ok(match policy {
            PolicyParams::Ring(params) => Self::Ring(match before {
                Some(Self::Ring(before)) if before.params() == params => before.change_to(Arc::clone(roster))?,
                _ => Ring::build_of(Arc::clone(roster), params)?,
            }),
            PolicyParams::Maglev(params) => Self::Maglev(Maglev::build(&roster.members(), params)?),
            PolicyParams::Rendezvous(params) => Self::Rendezvous(Rendezvous::build(&roster.members(), params)),
            PolicyParams::RoundRobin => Self::RoundRobin(RoundRobin::build(roster.weights())),
            PolicyParams::Random => drawn(Preference::None),
            PolicyParams::PowerOfTwo => drawn(Preference::Load),
            PolicyParams::PeakEwma(params) => drawn(Preference::Cost { decay_millis: params.decay_millis }),
            PolicyParams::LeastRequest => Self::LeastRequest(alias()),
            PolicyParams::First => Self::First,
        })
    }

    /// By index, the rank of the level's member in the order of ids. `None`: they are equal.
    pub(crate) fn ranks(&self) -> Option<&[u16]> {
        match self {
            Self::Ring(ring) => Some(ring.ranks()),
            _ => None,
        }
    }

    /// A candidate sequence from its beginning.
    #[inline]
    pub(crate) fn begin(&self, hash: Hash) -> Candidates {
        match self {
            Self::Ring(ring) => ring.candidates(hash),
            _ => Candidates::new(0),
        }
    }

    /// The next member of a candidate sequence; none for policies without one.
    #[inline]
    pub(crate) fn step(&self, candidates: &mut Candidates, hash: Hash, members: usize) -> Option<Slot> {
        match self {
            Self::Ring(ring) => candidates.next(ring),
            Self::Maglev(maglev) => maglev.next(hash, candidates),
            Self::Rendezvous(rendezvous) => rendezvous.next(hash, candidates.seen_mut()),
            Self::First => candidates.step(members, members, members, |position| position as u16),
            Self::RoundRobin(_) | Self::Drawn(_) | Self::LeastRequest(_) => None,
        }
    }

    /// Whether [`Policy::step`] gives its members.
    #[inline]
    pub(crate) fn has_sequence(&self) -> bool {
        !matches!(self, Self::RoundRobin(_) | Self::Drawn(_) | Self::LeastRequest(_))
    }

    /// Shares of all keys or turns, by index; `weights` are the members'.
    pub(crate) fn shares(&self, weights: &[u32]) -> Vec<f64> {
        match self {
            Self::Ring(ring) => ring.arcs().into_iter().map(|arc| arc as f64 / (1_u64 << 48) as f64).collect(),
            Self::Maglev(maglev) => {
                let size = maglev.table().len().max(1) as f64;
                maglev.counts().into_iter().map(|count| f64::from(count) / size).collect()
            }
            Self::First => {
                let first = weights.iter().position(|&weight| weight > 0);
                (0..weights.len()).map(|index| if Some(index) == first { 1.0 } else { 0.0 }).collect()
            }
            _ => {
                let sum = weights.iter().map(|&weight| f64::from(weight)).sum::<f64>().max(1.0);
                weights.iter().map(|&weight| f64::from(weight) / sum).collect()
            }
        }
    }

    /// Whether [`Policy::set_weights`] changes anything.
    pub(crate) fn follows_weights(&self) -> bool {
        !self.has_sequence()
    }

    /// How much each of the level's members takes, by index: its effective weight, 0 for one that takes nothing. One caller at a time.
    pub(crate) fn set_weights(&self, weights: &[u64]) {
        match self {
            Self::RoundRobin(turns) => turns.set_weights(weights),
            Self::Drawn(Drawn { alias, .. }) | Self::LeastRequest(alias) => alias.set_weights(weights),
            Self::Ring(_) | Self::Maglev(_) | Self::Rendezvous(_) | Self::First => {}
        }
    }

    /// The owner of a key; none for policies without keys.
    pub(crate) fn owner(&self, hash: Hash) -> Option<Slot> {
        match self {
            Self::Ring(ring) => ring.owner(hash),
            Self::Maglev(maglev) => maglev.owner(hash),
            Self::Rendezvous(rendezvous) => rendezvous.owner(hash),
            _ => None,
        }
    }

    pub(crate) fn digest(&self) -> Option<u64> {
        match self {
            Self::Ring(ring) => Some(ring.digest()),
            Self::Maglev(maglev) => Some(maglev.digest()),
            Self::Rendezvous(rendezvous) => Some(rendezvous.digest()),
            _ => None,
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Self::Ring(ring) => ring.memory_bytes(),
            Self::Maglev(maglev) => maglev.memory_bytes(),
            Self::Rendezvous(rendezvous) => rendezvous.memory_bytes(),
            Self::RoundRobin(turns) => turns.memory_bytes(),
            Self::Drawn(Drawn { alias, .. }) | Self::LeastRequest(alias) => alias.entries.len() * 8,
            Self::First => 0,
        }
    }
}

/// Draws by effective weights in constant time, and follows them as they change. Source: Walker 1977, in the form of Vose, "A linear algorithm
/// for generating random numbers with a given distribution", 1991.
#[derive(Debug)]
pub(crate) struct Alias {
    /// The share of its own, of 2^32, above the slot that has the rest. Rewritten in place: a draw meanwhile is by what was or by what will be.
    entries: Box<[AtomicU64]>,
    /// The mean of the weights above 0; an `f64`'s bits.
    mean: AtomicU64,
}

impl Alias {
    pub(crate) fn build(weights: &[u64]) -> Self {
        let some = weights.iter().any(|&weight| weight > 0);
        let entries = if some { weights.iter().map(|_| AtomicU64::default()).collect() } else { Box::default() };
        let alias = Self { entries, mean: AtomicU64::new(1.0_f64.to_bits()) };
        alias.set_weights(weights);
        alias
    }

    /// Where all weights are 0, nothing changes.
    pub(crate) fn set_weights(&self, weights: &[u64]) {
        let total: u64 = weights.iter().sum();
        if total == 0 || self.entries.is_empty() {
            return;
        }
        let claiming = weights.iter().filter(|&&weight| weight > 0).count();
        self.mean.store((total as f64 / claiming as f64).to_bits(), Relaxed);
        let count = weights.len() as u64;
        let set = |slot: usize, own: u64, other: usize| {
            self.entries[slot].store(own << 16 | other as u64, Relaxed);
        };
        // In units of total / count: exact, so that a member of weight 0 is never drawn.
        let mut left: Vec<u64> = weights.iter().map(|&weight| weight * count).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|&slot| left[slot] < total);
        while let (Some(&low), Some(&high)) = (small.last(), large.last()) {
            small.pop();
            // Rounded up: a member's share is never rounded to nothing.
            set(low, (left[low] as f64 / total as f64 * 2.0_f64.powi(32)).ceil() as u64, high);
            left[high] -= total - left[low];
            if left[high] < total {
                large.pop();
                small.push(high);
            }
        }
        small.into_iter().chain(large).for_each(|slot| set(slot, 1 << 32, slot));
    }

    #[inline]
    pub(crate) fn draw(&self, random: u64) -> Option<u16> {
        if self.entries.is_empty() {
            return None;
        }
        // The high half chooses the entry (Lemire 2019, without the rejection: the bias is below 2^-16), the low the part.
        let index = (((random >> 32) * self.entries.len() as u64) >> 32) as usize;
        let entry = self.entries[index].load(Relaxed);
        Some(if (random & 0xffff_ffff) < entry >> 16 { index as u16 } else { entry as u16 })
    }

    /// The mean of the weights above 0.
    #[inline]
    pub(crate) fn mean_weight(&self) -> f64 {
        f64::from_bits(self.mean.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::mix;

    #[test]
    fn draws_follow_claims_as_they_change_and_never_give_nobody() {
        let alias = Alias::build(&[1; 5]);
        for weights in [[100, 0, 300, 1600, 1], [0, 0, 1, 0, 0], [65_535, 655, 6_553, 65_535, 1], [0, 0, 0, 9, 1]] {
            alias.set_weights(&weights);
            let mut counts = [0_u32; 5];
            for number in 0..400_000 {
                counts[usize::from(alias.draw(mix(number)).unwrap_or(1))] += 1;
            }
            let total: u64 = weights.iter().sum();
            for (slot, weight) in weights.into_iter().enumerate() {
                let fair = weight as f64 / total as f64 * 400_000.0;
                assert!(
                    (f64::from(counts[slot]) - fair).abs() <= 5.0 * fair.sqrt(),
                    "{slot} of {weights:?}: {counts:?}"
                );
            }
        }
        // Nobody is left: as before.
        alias.set_weights(&[0; 5]);
        assert!((0..100).all(|number| matches!(alias.draw(mix(number)), Some(3 | 4))));
        assert_eq!(Alias::build(&[0, 0]).draw(5), None);
    }

    #[test]
    fn cells_are_pinned() {
        let alias = Alias::build(&[5, 0, 1, 10]);
        let cells: Vec<(u64, u64)> =
            alias.entries.iter().map(|cell| cell.load(Relaxed)).map(|cell| (cell >> 16, cell & 0xffff)).collect();
        // Of 16 in four cells, each holds four: a fourth of the cell of 1 is its own, and all of those of 0 is somebody else's.
        assert_eq!(cells, [(1 << 32, 0), (0, 3), (1 << 30, 3), (3 << 30, 0)]);
        assert_eq!(alias.mean_weight(), 16.0 / 3.0);
        alias.set_weights(&[0, 0, 4, 6]);
        assert_eq!(alias.mean_weight(), 5.0);
        alias.set_weights(&[0; 4]);
        assert_eq!(alias.mean_weight(), 5.0, "nobody is left: as before");
        // The high half of a number chooses the cell, the low half the part.
        alias.set_weights(&[5, 0, 1, 10]);
        let quarter = 1_u64 << 62;
        for (number, slot) in [
            (0, 0),
            (quarter - 1, 0),
            (quarter, 3),
            (2 * quarter, 2),
            (2 * quarter + (1 << 30) - 1, 2),
            (2 * quarter + (1 << 30), 3),
            (3 * quarter, 3),
            (u64::MAX, 0),
        ] {
            assert_eq!(alias.draw(number), Some(slot), "{number:x}");
        }
    }

    #[test]
    fn each_policy_has_its_shares_its_owner_its_digest_and_its_size() {
        use crate::params::{MaglevParams, PeakEwmaParams, RendezvousParams, RingParams};
        use crate::ring::Member;
        let members = [Member { id: "a", weight: 0 }, Member { id: "b", weight: 100 }, Member { id: "c", weight: 300 }];
        let roster = Arc::new(Roster::new(&members).unwrap());
        let weights = [0, 100, 300];
        let near = |shares: &[f64], expected: [f64; 3]| shares.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.02);
        for (params, size, keyed) in [
            (PolicyParams::Ring(RingParams { points: 4096, seed: 0 }), 32 * 16 + 16_384 * (8 + 2) + 3 * 17, true),
            (PolicyParams::Maglev(MaglevParams { table_size: 1_009, seed: 0 }), 1_009 * 2, true),
            (PolicyParams::Rendezvous(RendezvousParams::default()), 3 * 16, true),
            (PolicyParams::RoundRobin, 4 * 4 + 3 * 8, false),
            (PolicyParams::Random, 3 * 8, false),
            (PolicyParams::PowerOfTwo, 3 * 8, false),
            (PolicyParams::LeastRequest, 3 * 8, false),
            (PolicyParams::PeakEwma(PeakEwmaParams::default()), 3 * 8, false),
            (PolicyParams::First, 0, false),
        ] {
            let policy = Policy::build(params, &roster, None).unwrap();
            assert_eq!(policy.memory_bytes(), size, "{params:?}");
            let expected = if params == PolicyParams::First { [0.0, 1.0, 0.0] } else { [0.0, 0.25, 0.75] };
            assert!(near(&policy.shares(&weights), expected), "{params:?}: {:?}", policy.shares(&weights));
            let is_first = params == PolicyParams::First;
            assert_eq!(policy.has_sequence(), keyed || is_first);
            assert_eq!(policy.follows_weights(), !keyed && !is_first);
            assert_eq!((policy.owner(7).is_some(), policy.digest().is_some()), (keyed, keyed));
            let mut candidates = policy.begin(7);
            let sequence: Vec<u16> =
                std::iter::from_fn(|| policy.step(&mut candidates, 7, 3)).map(|slot| slot.0).collect();
            match params {
                _ if keyed => {
                    assert!(sequence.len() == 2 && Some(Slot(sequence[0])) == policy.owner(7), "{sequence:?}")
                }
                PolicyParams::First => assert_eq!(sequence, [0, 1, 2]),
                _ => assert!(sequence.is_empty()),
            }
            assert_eq!(params.hashes(), keyed);
        }
        // Nobody has weight: nobody has a share.
        let nobody = Arc::new(Roster::new(&[Member { id: "a", weight: 0 }]).unwrap());
        for params in [PolicyParams::Random, PolicyParams::First, PolicyParams::Maglev(MaglevParams::default())] {
            assert_eq!(Policy::build(params, &nobody, None).unwrap().shares(&[0]), [0.0]);
        }
    }
}
