//! The hot keys of a service, as workers look them up.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Owners of each hot key.
pub(crate) type HotTable = HashMap<u64, u16, BuildHasherDefault<AsItIs>>;

/// Keys that are hashes already need no other: there are few of them, so that nobody gains anything by keys that collide.
#[derive(Debug, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
