//! Weighted rendezvous hashing: every member has a score for every key, the highest owns it.
//!
//! Score `-weight / ln(u)` with `u` uniform from the hash of key and member. Shares are exactly proportional to weights,
//! and a change moves exactly the minimum; a lookup looks at every member. Sources: Thaler, Ravishankar, "Using name-based
//! mappings to increase hit rates", 1998; the weighted form: Schindelhauer, Schomaker, "Weighted distributed hash
//! tables", SPAA 2005.

use crate::candidates::Seen;
use crate::hash::{Hash, mix};
use crate::params::RendezvousParams;
use crate::ring::Member;
use crate::slot::Slot;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// Keeps scores apart from accept thresholds, which are salted by the id alone: a member would else give away first the
/// keys that want it most.
const SALT: u64 = 0x7265_6e64_657a_7673;

/// Keeps the targets of a split apart from everything that is placed by ids.
const SPLIT_SALT: u64 = 0x7370_6c69_7420_6172;

/// The members of a rendezvous.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendezvous {
    /// By slot: what makes a key's score the member's own, and the weight.
    members: Box<[(u64, f64)]>,
    placed: usize,
    digest: u64,
}

impl Rendezvous {
    /// Of members that are sorted by id.
    pub(crate) fn build(members: &[Member<'_>], params: RendezvousParams) -> Self {
        let mut hasher = Xxh3::new();
        for member in members {
            hasher.update(member.id.as_bytes());
            hasher.update(&[0]);
            hasher.update(&member.weight.to_le_bytes());
        }
        hasher.update(&params.seed.to_le_bytes());
        Self {
            placed: members.iter().filter(|member| member.weight > 0).count(),
            members: members
                .iter()
                .map(|member| (xxh3_64_with_seed(member.id.as_bytes(), params.seed ^ SALT), f64::from(member.weight)))
                .collect(),
            digest: hasher.digest(),
        }
    }

    /// The owner of a key. `None` if no member has weight.
    #[must_use]
    pub fn owner(&self, hash: Hash) -> Option<Slot> {
        self.best(hash, &Seen::default())
    }

    /// The member with the highest score of those not seen yet; it is seen from now on.
    pub(crate) fn next(&self, hash: Hash, seen: &mut Seen) -> Option<Slot> {
        if seen.len() >= self.placed {
            return None;
        }
        let best = self.best(hash, seen)?;
        seen.insert(best.0, self.members.len());
        Some(best)
    }

    fn best(&self, hash: Hash, seen: &Seen) -> Option<Slot> {
        let mut best: Option<(f64, u16)> = None;
        for (slot, &(salt, weight)) in self.members.iter().enumerate() {
            let slot = slot as u16;
            if weight == 0.0 || seen.contains(slot) {
                continue;
            }
            // The least of -ln(u) / weight: the first arrival of independent exponential clocks. Ties, one in 2^53, go to
            // the smaller id.
            let arrival = negative_ln(mix(hash ^ salt)) / weight;
            if best.is_none_or(|(least, _)| arrival < least) {
                best = Some((arrival, slot));
            }
        }
        best.map(|(_, slot)| Slot(slot))
    }

    /// A number that two of them share exactly if they place every key alike.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Bytes of memory, on the heap.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.members.len() * 16
    }
}

/// Which of several split targets a key falls into: targets are known by their salts, and have parts of all keys by weight. A change of
/// one target's weight moves keys to or from that target alone. `None` if every weight is 0.
#[must_use]
pub fn choose_split_target(hash: Hash, targets: impl Iterator<Item = (u64, u32)>) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for (index, (salt, weight)) in targets.enumerate().filter(|(_, (_, weight))| *weight > 0) {
        let arrival = negative_ln(mix(hash ^ salt ^ SPLIT_SALT)) / f64::from(weight);
        if best.is_none_or(|(least, _)| arrival < least) {
            best = Some((arrival, index));
        }
    }
    best.map(|(_, index)| index)
}

/// `-ln((number + 1/2) / 2^64)`, by additions, multiplications and divisions alone, which IEEE 754 rounds alike everywhere:
/// the logarithms of C libraries differ in the last bit, and placement must not.
fn negative_ln(number: u64) -> f64 {
    const LN_2: f64 = std::f64::consts::LN_2;
    // 53 bits, and a half, so that it is never 0.
    let scaled = (number >> 11) as f64 + 0.5;
    let bits = scaled.to_bits();
    let exponent = (bits >> 52) as i64 - 1023 - 53;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    // Centred on 1, so that the series converges fast: ln(m) = 2 artanh((m - 1) / (m + 1)).
    let (mantissa, exponent) =
        if mantissa > std::f64::consts::SQRT_2 { (mantissa / 2.0, exponent + 1) } else { (mantissa, exponent) };
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let q = s * s;
    let series = 1.0 / 15.0;
    let series = series * q + 1.0 / 13.0;
    let series = series * q + 1.0 / 11.0;
    let series = series * q + 1.0 / 9.0;
    let series = series * q + 1.0 / 7.0;
    let series = series * q + 1.0 / 5.0;
    let series = series * q + 1.0 / 3.0;
    let series = series * q + 1.0;
    -(2.0 * s * series + exponent as f64 * LN_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_is_one() {
        for number in [0, 1 << 11, 1 << 40, u64::MAX / 3, 1 << 63, u64::MAX] {
            let expected = -(((number >> 11) as f64 + 0.5) / (1_u64 << 53) as f64).ln();
            assert!((negative_ln(number) - expected).abs() <= 1e-12 * expected.max(1.0), "{number}: {expected}");
        }
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        let members = [Member { id: "a", weight: 100 }, Member { id: "b", weight: 300 }, Member { id: "c", weight: 0 }];
        let rendezvous = Rendezvous::build(&members, RendezvousParams::default());
        let mut counts = [0_u32; 3];
        for key in 0..40_000_u64 {
            counts[usize::from(rendezvous.owner(mix(key)).map_or(2, |slot| slot.0))] += 1;
        }
        assert!((9_700..=10_300).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    }

    #[test]
    fn growing_an_arm_moves_keys_to_it_alone() {
        let target = |key: u64, canary: u32| choose_split_target(mix(key), [(1, 90), (2, canary), (3, 10)].into_iter());
        let mut in_canary = 0;
        for key in 0..20_000 {
            let (before, after) = (target(key, 5), target(key, 20));
            assert!(before == after || after == Some(1), "{before:?} {after:?}");
            in_canary += u32::from(after == Some(1));
        }
        assert!((3_000..3_700).contains(&in_canary), "{in_canary}");
        assert_eq!(choose_split_target(7, [(1, 0)].into_iter()), None);
    }

    #[test]
    fn placements_are_pinned() {
        let members: Vec<Member<'_>> = ["a", "b", "c", "d"].iter().map(|id| Member { id, weight: 100 }).collect();
        let rendezvous = Rendezvous::build(&members, RendezvousParams::default());
        let owners: Vec<u16> =
            (0..16).map(|key| rendezvous.owner(crate::hash_key(&[key], 0)).map_or(9, |slot| slot.0)).collect();
        assert_eq!(owners, PINNED);
    }

    /// Made by another implementation of XXH3 and a C library's logarithm: changing it moves every key of every fleet.
    const PINNED: [u16; 16] = [3, 1, 2, 0, 2, 0, 2, 2, 2, 3, 3, 1, 0, 1, 2, 0];

    /// To the last bit: whoever is nearer by that has the key.
    #[test]
    fn logarithms_are_pinned() {
        let mut hasher = Xxh3::new();
        for number in (0..2_000).map(mix).chain([0, 1, 1 << 10, 1 << 11, 1 << 63, u64::MAX]) {
            hasher.update(&negative_ln(number).to_bits().to_le_bytes());
        }
        assert_eq!(hasher.digest(), LOGARITHMS);
    }

    const LOGARITHMS: u64 = 0x81f2_c034_0b0c_c862;

    #[test]
    fn placements_of_a_seeded_fleet_of_all_weights_and_of_a_split_are_pinned() {
        let ids: Vec<String> = (0..40).map(|slot| format!("b{slot:02}")).collect();
        let members: Vec<Member<'_>> =
            ids.iter().zip(0..).map(|(id, slot)| Member { id, weight: slot * 41 % 1600 }).collect();
        let rendezvous = Rendezvous::build(&members, RendezvousParams { seed: 0x1234_5678_9abc_def0 });
        let mut hasher = Xxh3::new();
        for key in 0..500 {
            let mut seen = Seen::default();
            while let Some(slot) = rendezvous.next(mix(key), &mut seen) {
                hasher.update(&slot.0.to_le_bytes());
            }
            assert_eq!(seen.len(), 39, "all but the one without weight");
            let target = choose_split_target(mix(key), [(7, 3), (mix(1), 50), (mix(2), 20)].into_iter());
            hasher.update(&[target.map_or(9, |target| target as u8)]);
        }
        assert_eq!(hasher.digest(), FLEET);
        assert_eq!(rendezvous.memory_bytes(), 40 * 16);
    }

    const FLEET: u64 = 0xce75_2716_51e1_b6ce;

    #[test]
    fn digests_differ_where_placements_do() {
        let digest = |members: &[(&str, u32)], seed| {
            let members: Vec<Member<'_>> = members.iter().map(|&(id, weight)| Member { id, weight }).collect();
            Rendezvous::build(&members, RendezvousParams { seed }).digest()
        };
        let all = [
            digest(&[("a", 1), ("b", 1)], 0),
            digest(&[("a", 1), ("b", 1)], 1),
            digest(&[("a", 1), ("b", 2)], 0),
            digest(&[("a", 1), ("c", 1)], 0),
            digest(&[("a", 1)], 0),
            digest(&[], 0),
        ];
        let different: std::collections::BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(digest(&[("a", 1), ("b", 1)], 0), all[0]);
    }
}
