//! A digest of all objects that costs one hash per change: the sum of every entry's BLAKE3, in lanes of 64 bits. It finds
//! differences between members and proxies; it is no proof against somebody who makes objects so that sums collide.
//!
//! Source: Bellare, Micciancio, "A New Paradigm for Collision-Free Hashing: Incrementality at Reduced Cost", 1997 (AdHash).

use super::model::{Key, Object};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Equal objects have equal digests, whatever order they came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Digest([u64; 4]);

impl Digest {
    /// One object came.
    pub fn add(&mut self, key: &Key, object: &Object) {
        for (lane, part) in self.0.iter_mut().zip(parts(key, object)) {
            *lane = lane.wrapping_add(part);
        }
    }

    /// One object went.
    pub fn remove(&mut self, key: &Key, object: &Object) {
        for (lane, part) in self.0.iter_mut().zip(parts(key, object)) {
            *lane = lane.wrapping_sub(part);
        }
    }
}

fn parts(key: &Key, object: &Object) -> [u64; 4] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.to_string().as_bytes());
    // Names have no NUL: nothing can be part of the key in one object and of the value in another.
    hasher.update(&[0]);
    // A member that cannot hash what the others hash must stop, not go on with another digest.
    hasher
        .update(&super::encode::to_bytes(object).expect("invariant: texts and numbers have a form in every encoding"));
    let hash = hasher.finalize();
    let mut lanes = [0; 4];
    for (lane, bytes) in lanes.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
        *lane = u64::from_le_bytes(bytes.try_into().expect("invariant: chunks of eight bytes have eight bytes"));
    }
    lanes
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits are enough to tell states apart, and short enough to read out.
        write!(f, "{:016x}{:016x}", self.0[0], self.0[1])
    }
}
