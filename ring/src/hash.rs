//! Hashes of keys and points: XXH3-64, the same on every machine.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

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

/// Spreads a key's hash anew for each member, for the accept threshold: David Stafford's mix 13.
#[inline]
pub(crate) fn mix(hash: u64) -> u64 {
    let mut mixed = hash;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
