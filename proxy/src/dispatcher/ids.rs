//! Ids that no other worker or process draws: 128 bits for requests and traces, 64 for spans. No secret, and drawn without asking the
//! system for anything.

use std::cell::Cell;

/// Where a worker's ids begin. The two halves of an id are counted up from two places that were drawn by chance: for two workers to draw
/// the same id, both would have to lie equally far apart.
pub(crate) struct Ids {
    begin: [u64; 3],
    drawn: Cell<u64>,
}

/// The step of splitmix64: any odd number visits all values.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Ids {
    /// The ids of a worker. `secret` and `instance` are the process's; nothing of them can be read from an id.
    pub(super) fn new(secret: u64, instance: u64, index: usize) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("ringway 2026-11 ids of requests and spans");
        for part in [secret, instance, index as u64] {
            hasher.update(&part.to_le_bytes());
        }
        let mut places = [[0; 8]; 3];
        let mut seeds = hasher.finalize_xof();
        places.iter_mut().for_each(|place| seeds.fill(place));
        Self { begin: places.map(u64::from_le_bytes), drawn: Cell::new(0) }
    }

    /// Another id of a request or a trace.
    #[inline]
    pub(crate) fn long(&self) -> [u8; 16] {
        let [high, low, _] = self.begin;
        let step = self.step();
        let id = u128::from(mix(high.wrapping_add(step))) << 64 | u128::from(mix(low.wrapping_add(step)));
        id.max(1).to_be_bytes()
    }

    /// Another id of a span.
    #[inline]
    pub(crate) fn short(&self) -> [u8; 8] {
        let id = mix(self.begin[2].wrapping_add(self.step()));
        id.max(1).to_be_bytes()
    }

    #[inline]
    fn step(&self) -> u64 {
        let drawn = self.drawn.get().wrapping_add(1);
        self.drawn.set(drawn);
        drawn.wrapping_mul(STEP)
    }
}

/// Spreads a number over all bits; no two become the same. Source: splitmix64, Steele, Lea, Flood, 2014.
#[inline]
fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_ids_are_the_same_whoever_draws_them() {
        let (mut long, mut short) = (HashSet::new(), HashSet::new());
        for (instance, index) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            let ids = Ids::new(7, instance, index);
            for _ in 0..10_000 {
                assert!(long.insert(ids.long()));
                assert!(short.insert(ids.short()));
            }
        }
    }

    #[test]
    fn each_bit_of_an_id_is_set_half_the_time() {
        let ids = Ids::new(1, 2, 3);
        let mut set = [0_u32; 128];
        for _ in 0..10_000 {
            let id = u128::from_be_bytes(ids.long());
            set.iter_mut().enumerate().for_each(|(bit, set)| *set += u32::from(id >> bit & 1 == 1));
        }
        assert!(set.iter().all(|set| (4_500..5_500).contains(set)), "{set:?}");
    }
}
