//! Hashes of keys and points: XXH3-64, the same on every machine.

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

/// A key's place on the ring.
pub type Hash = u64;

/// The hash of a key.
///
/// Keys and points use different seeds, so that a client which can choose both ids and keys cannot aim one at the other. Seed
/// 0 is unseeded: plain XXH3-64.
#[must_use]
pub fn hash_key(key: &[u8], seed: u64) -> Hash {
    match seed {
        0 => xxh3_64(key),
        seed => xxh3_64_with_seed(key, xxh3_64_with_seed(b"ringway key seed", seed)),
    }
}

/// The hash of a member's `index`-th point. The NUL between id and index keeps `pod-1`, 12 apart from `pod-11`, 2.
pub(crate) fn hash_point(id: &str, index: u32, seed: u64, label: &mut Vec<u8>) -> u64 {
    label.clear();
    label.extend_from_slice(id.as_bytes());
    label.push(0);
    label.extend_from_slice(&index.to_le_bytes());
    xxh3_64_with_seed(label, seed)
}

/// Of members in their order and their weights: what proxies have in common for whom loads in that order mean the same.
#[must_use]
pub fn members_digest<'a>(members: impl IntoIterator<Item = (&'a str, u32)>, seed: u64) -> u64 {
    let mut hasher = Xxh3::with_seed(seed);
    for (id, weight) in members {
        hasher.update(id.as_bytes());
        // No id has a byte of zero.
        hasher.update(&[0]);
        hasher.update(&weight.to_le_bytes());
    }
    hasher.digest()
}

/// Spreads a key's hash anew for each member, for the accept threshold: David Stafford's mix 13.
#[inline]
pub(crate) fn mix(hash: u64) -> u64 {
    let mut mixed = hash;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: SplitMix64 (Vigna, splitmix64.c), whose output function this is: its first numbers for the seed 1234567.
    #[test]
    fn numbers_are_mixed_as_elsewhere() {
        let state = |count: u64| 1_234_567_u64.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let expected = [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([1, 2, 3].map(|count| mix(state(count))), expected);
        assert_eq!(mix(0), 0);
    }

    #[test]
    fn members_are_told_apart_by_ids_weights_and_order() {
        let digest = |members: &[(&str, u32)]| members_digest(members.iter().copied(), 0);
        assert_eq!(digest(&[("a", 1)]), xxh3_64(b"a\0\x01\0\0\0"));
        let all =
            [&[("a", 1), ("b", 2)][..], &[("a", 2), ("b", 2)], &[("b", 2), ("a", 1)], &[("a", 1)], &[]].map(digest);
        assert!((1..all.len()).all(|at| !all[..at].contains(&all[at])), "{all:?}");
        assert_ne!(members_digest([("a", 1)], 7), all[3]);
    }

    #[test]
    fn a_point_is_the_hash_of_its_id_a_nul_and_its_number() {
        let mut label = b"of before".to_vec();
        assert_eq!(hash_point("a", 258, 7, &mut label), xxh3_64_with_seed(b"a\0\x02\x01\0\0", 7));
        assert_eq!(label, b"a\0\x02\x01\0\0");
    }
}
