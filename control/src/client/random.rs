//! Numbers that spread proxies in time.

/// Enough to spread proxies in time; seeded by their names and the process.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(name: &str) -> Self {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), name);
        Self(seed | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        // xorshift64*. Source: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
