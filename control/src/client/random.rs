//! Numbers that spread proxies in time.

/// Enough to spread proxies in time, and no secret; seeded by their names and the process.
pub(super) struct Random(fastrand::Rng);

impl Random {
    pub(super) fn new(name: &str) -> Self {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), name);
        Self(fastrand::Rng::with_seed(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// From 0 to below 1.
    pub(super) fn unit(&mut self) -> f64 {
        self.0.f64()
    }

    /// From 0 to below the bound, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }
}
