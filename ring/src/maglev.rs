//! The Maglev table: every member takes turns in claiming the entries of its own permutation.
//!
//! Shares are even to within one part in (table size / members); a change of membership moves more keys than the minimum.
//! Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Weights
//! are honoured by skipping turns: a member of half the largest weight takes an entry in every other round.

use crate::candidates::Candidates;
use crate::hash::{Hash, mix};
use crate::params::MaglevParams;
use crate::ring::{BuildError, Member};
use crate::slot::Slot;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// Largest table.
pub const TABLE_SIZE_MAX: u32 = 5_000_011;

/// Keeps a key's stride apart from its accept thresholds.
const STRIDE_SALT: u64 = 0x6d61_676c_6576_0003;

/// A table, immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maglev {
    /// Owner's slot of every entry; empty if no member has weight.
    table: Box<[u16]>,
    members: usize,
    /// Members that own an entry, in number.
    placed: usize,
    /// Members of weight that own none, because the others had taken all before their first turn came.
    without_entry: Box<[u16]>,
    params: MaglevParams,
    digest: u64,
}

struct Claimant {
    slot: u16,
    weight: u64,
    next: u64,
    skip: u64,
    /// Turns owed, in units of the largest weight.
    credit: u64,
}

impl Maglev {
    /// Builds the table of members that are sorted by id, distinct, and of lawful weight.
    pub(crate) fn build(members: &[Member<'_>], params: MaglevParams) -> Result<Self, BuildError> {
        let size = u64::from(params.table_size);
        if !is_prime(params.table_size) || params.table_size > TABLE_SIZE_MAX {
            return Err(BuildError::TableSize(params.table_size));
        }
        let mut claimants: Vec<Claimant> = members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.weight > 0)
            .map(|(slot, member)| {
                let id = member.id.as_bytes();
                Claimant {
                    slot: slot as u16,
                    weight: u64::from(member.weight),
                    next: xxh3_64_with_seed(id, params.seed ^ 0x6d61_676c_6576_0001) % size,
                    skip: xxh3_64_with_seed(id, params.seed ^ 0x6d61_676c_6576_0002) % (size - 1) + 1,
                    credit: 0,
                }
            })
            .collect();
        let heaviest = claimants.iter().map(|claimant| claimant.weight).max().unwrap_or(0);
        let mut table = vec![u16::MAX; if claimants.is_empty() { 0 } else { size as usize }];
        let mut free = table.len();
        while free > 0 {
            for claimant in &mut claimants {
                claimant.credit += claimant.weight;
                if claimant.credit < heaviest {
                    continue;
                }
                claimant.credit -= heaviest;
                while table[claimant.next as usize] != u16::MAX {
                    claimant.next = (claimant.next + claimant.skip) % size;
                }
                table[claimant.next as usize] = claimant.slot;
                free -= 1;
                if free == 0 {
                    break;
                }
            }
        }
        let mut hasher = Xxh3::new();
        for &slot in &table {
            hasher.update(members[usize::from(slot)].id.as_bytes());
            hasher.update(&[0]);
        }
        let mut owns = vec![false; members.len()];
        table.iter().for_each(|&slot| owns[usize::from(slot)] = true);
        let without_entry = claimants.iter().map(|claimant| claimant.slot).filter(|&slot| !owns[usize::from(slot)]);
        let without_entry: Box<[u16]> = without_entry.collect();
        Ok(Self {
            placed: claimants.len() - without_entry.len(),
            table: table.into(),
            members: members.len(),
            without_entry,
            params,
            digest: hasher.digest(),
        })
    }

    /// The owner of a key. `None` if no member has weight.
    #[inline]
    #[must_use]
    pub fn owner(&self, hash: Hash) -> Option<Slot> {
        self.table.get(self.position(hash)).map(|&slot| Slot(slot))
    }

    /// The next of a key's candidates, which go round the table in steps of the key's own: the member that comes next is then drawn
    /// by weight. Entries side by side are not, as the table is filled: a member may lie behind one other half of the time. A
    /// member without an entry owns no key, but is the last resort of every key.
    #[inline]
    pub(crate) fn next(&self, hash: Hash, candidates: &mut Candidates) -> Option<Slot> {
        let size = u64::from(self.params.table_size);
        let entry = |step: usize| {
            // The size is a prime: whatever the stride, all entries are met.
            let away = if step == 0 { 0 } else { step as u64 * (1 + mix(hash ^ STRIDE_SALT) % (size - 1)) };
            self.table[((hash % size + away) % size) as usize]
        };
        let next = candidates.step(self.table.len(), self.placed, self.members, entry);
        next.or_else(|| candidates.step_beyond(self.placed, &self.without_entry, self.members, mix(hash ^ STRIDE_SALT)))
    }

    #[inline]
    fn position(&self, hash: Hash) -> usize {
        (hash % u64::from(self.params.table_size)) as usize
    }

    /// Owners' slots, entry by entry.
    #[must_use]
    pub fn table(&self) -> &[u16] {
        &self.table
    }

    /// Entries that each member owns, in slot order.
    #[must_use]
    pub fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.members];
        self.table.iter().for_each(|&slot| counts[usize::from(slot)] += 1);
        counts
    }

    /// A number that two tables share exactly if they place every key alike.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Bytes of memory, on the heap.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.table.len() * 2
    }
}

/// Which of a table's members get no entry, and from what size on every member gets one. `weights` in the order of the ids.
///
/// A member of weight w takes its first entry in round ceil(heaviest / w); by then the others may have taken all.
#[must_use]
pub fn without_entry(weights: &[u32], table_size: u32) -> (Vec<usize>, u64) {
    let heaviest = u64::from(weights.iter().copied().max().unwrap_or(0)).max(1);
    let mut counts = std::collections::BTreeMap::new();
    weights.iter().filter(|weight| **weight > 0).for_each(|&weight| *counts.entry(u64::from(weight)).or_insert(0) += 1);
    let turns = |weight: u64, rounds: u64| rounds * weight / heaviest;
    let (mut none, mut wanted) = (Vec::new(), 0);
    for &weight in counts.keys() {
        let first = heaviest.div_ceil(weight);
        let claimed = |rounds: u64| counts.iter().map(|(&other, count)| turns(other, rounds) * count).sum::<u64>();
        if claimed(first) <= u64::from(table_size) {
            wanted = wanted.max(claimed(first));
            continue;
        }
        let mut taken = claimed(first - 1);
        for (slot, &other) in weights.iter().enumerate() {
            taken += turns(other.into(), first) - turns(other.into(), first - 1);
            if u64::from(other) == weight {
                wanted = wanted.max(taken);
                if taken > u64::from(table_size) {
                    none.push(slot);
                }
            }
        }
    }
    none.sort_unstable();
    (none, wanted)
}

/// Whether a number is prime: every skip then visits the whole table.
#[must_use]
pub fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..).take_while(|&divisor: &u64| divisor * divisor <= u64::from(number)).all(|d| u64::from(number) % d != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn build(members: &[(&str, u32)], table_size: u32) -> Maglev {
        let mut members: Vec<Member<'_>> = members.iter().map(|&(id, weight)| Member { id, weight }).collect();
        members.sort_by_key(|member| member.id);
        Maglev::build(&members, MaglevParams { table_size, seed: 0 }).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn shares_are_even_and_follow_weights() {
        let counts = build(&[("a", 100), ("b", 100), ("c", 100)], 65_537).counts();
        assert!(counts.iter().all(|&count| (21_845..=21_846).contains(&count)), "{counts:?}");
        let counts = build(&[("a", 100), ("b", 300), ("c", 0)], 65_537).counts();
        assert!((16_380..=16_390).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    }

    #[test]
    fn entries_are_pinned() {
        // Made by another implementation.
        assert_eq!(build(&[("a", 100), ("b", 100), ("c", 100)], 251).table()[..24], PINNED);
    }

    const PINNED: [u16; 24] = [2, 0, 1, 1, 2, 0, 2, 1, 0, 0, 1, 1, 2, 2, 0, 2, 0, 1, 2, 1, 2, 2, 2, 1];

    #[test]
    fn sizes_that_are_no_primes_are_refused() {
        for size in [0, 1, 4, 65_536] {
            let member = Member { id: "a", weight: 100 };
            assert!(Maglev::build(&[member], MaglevParams { table_size: size, seed: 0 }).is_err(), "{size}");
        }
        assert!(is_prime(65_537) && is_prime(TABLE_SIZE_MAX) && !is_prime(65_535));
    }

    #[test]
    fn a_member_without_an_entry_is_known_without_the_table() {
        let cases: [(&[u32], u32); 9] = [
            // Full with the last first turn, and by it.
            (&[1, 2], 2),
            (&[2, 1], 2),
            (&[2, 1, 2], 3),
            (&[1600, 1], 997),
            (&[1, 1600], 997),
            (&[1600, 2, 1, 0, 900, 1], 997),
            (&[1600; 41], 65_537),
            (&[3, 2, 1, 7, 1, 1, 1], 7),
            (&[1600, 100, 1, 1], 1609),
        ];
        for (weights, size) in cases {
            let ids: Vec<String> = (0..weights.len()).map(|index| format!("b{index:02}")).collect();
            let members: Vec<Member<'_>> = ids.iter().zip(weights).map(|(id, &weight)| Member { id, weight }).collect();
            let entries =
                |size: u32| Maglev::build(&members, MaglevParams { table_size: size, seed: 0 }).unwrap().counts();
            let lacking = |size: u32| -> Vec<usize> {
                entries(size)
                    .iter()
                    .zip(weights)
                    .enumerate()
                    .filter(|(_, (count, weight))| **count == 0 && **weight > 0)
                    .map(|(slot, _)| slot)
                    .collect()
            };
            let (none, wanted) = without_entry(weights, size);
            assert_eq!(none, lacking(size), "{weights:?} {size}");
            let enough = (wanted as u32..).find(|size| is_prime(*size)).unwrap();
            assert!(lacking(enough).is_empty(), "{weights:?} {enough}");
        }
    }

    #[test]
    fn nobody_with_weight_owns_nothing() {
        assert_eq!(build(&[("a", 0)], 251).owner(7), None);
    }

    #[test]
    fn a_seeded_table_of_all_weights_and_its_candidates_are_pinned() {
        let ids: Vec<String> = (0..30).map(|slot| format!("b{slot:02}")).collect();
        let members: Vec<Member<'_>> =
            ids.iter().zip(0..).map(|(id, slot)| Member { id, weight: slot * 53 % 1600 }).collect();
        let maglev = Maglev::build(&members, MaglevParams { table_size: 2_053, seed: 0x1234_5678_9abc_def0 }).unwrap();
        let mut hasher = Xxh3::new();
        maglev.table().iter().for_each(|slot| hasher.update(&slot.to_le_bytes()));
        for key in 0..300 {
            let (mut candidates, mut count) = (Candidates::new(0), 0);
            let owner = maglev.owner(mix(key)).unwrap();
            while let Some(slot) = maglev.next(mix(key), &mut candidates) {
                assert!(count > 0 || slot == owner, "the owner is the first");
                hasher.update(&slot.0.to_le_bytes());
                count += 1;
            }
            assert_eq!(count, 29, "all but the one without weight");
        }
        assert_eq!(hasher.digest(), FLEET);
        assert_eq!(maglev.memory_bytes(), 2_053 * 2);
        assert_eq!(maglev.counts().iter().sum::<u32>(), 2_053);
    }

    const FLEET: u64 = 0x903a_bb66_b937_806a;

    #[test]
    fn digests_differ_where_tables_do() {
        let all = [
            build(&[("a", 100), ("b", 100)], 251).digest(),
            build(&[("a", 100), ("c", 100)], 251).digest(),
            build(&[("a", 100), ("b", 200)], 251).digest(),
            build(&[("a", 100), ("b", 100)], 257).digest(),
        ];
        let different: std::collections::BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(different.len(), all.len());
        // Who owns nothing changes nothing.
        assert_eq!(build(&[("a", 100), ("b", 100), ("c", 0)], 251).digest(), all[0]);
    }

    #[test]
    fn primes_are_those_and_the_largest_size_is_one() {
        let primes: Vec<u32> = (0..60).filter(|&number| is_prime(number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59]);
        assert!(!is_prime(65_521 * 65_521) && is_prime(u32::MAX - 4) && !is_prime(u32::MAX));
        let member = [Member { id: "a", weight: 100 }];
        let size = |table_size| Maglev::build(&member, MaglevParams { table_size, seed: 0 });
        assert_eq!(size(TABLE_SIZE_MAX).unwrap().table().len(), TABLE_SIZE_MAX as usize);
        let next = (TABLE_SIZE_MAX + 1..).find(|&number| is_prime(number)).unwrap();
        assert_eq!(size(next), Err(BuildError::TableSize(next)));
    }
}
