//! What the configuration says about balancing: the parameter types that `ringway-config` fills in.

/// The policy that orders the backends for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyParams {
    /// Virtual-node consistent-hash ring.
    Ring(RingParams),
    /// Smooth weighted round robin; keys are not consulted.
    RoundRobin,
}

/// What placement on the ring depends on, besides the members' ids and weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingParams {
    /// Points of a member of weight 100. Absolute: never normalised to the member set, so other members never move mine.
    pub points: u32,
    /// Secret seed against chosen keys (hash flooding); every proxy of a fleet has the same. 0 is unseeded.
    pub seed: u64,
}

impl Default for RingParams {
    fn default() -> Self {
        Self { points: 256, seed: 0 }
    }
}

/// The bound on a member's load.
///
/// `cap = max(min_slots, ceil(factor * a + slack * sqrt(a)))` with `a` the member's weighted fair share of the load of
/// the eligible set, the request being placed included. Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing
/// with Bounded Loads", SODA 2018; the square root absorbs Poisson noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoundParams {
    /// Load factor, at least 1.0.
    pub factor: f64,
    /// Multiple of the square root of the fair share that is allowed on top: 0 strict, 2 balanced, 3 affinity.
    pub slack: f64,
    /// Floor of the cap, in requests.
    pub min_slots: u32,
    /// What happens when every eligible member is at its cap.
    pub all_full: AllFull,
}

impl Default for BoundParams {
    fn default() -> Self {
        Self { factor: 1.25, slack: 2.0, min_slots: 1, all_full: AllFull::Owner }
    }
}

/// What to do with a request when every eligible member is at its cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AllFull {
    /// The first eligible member of the key's sequence takes it over its cap.
    #[default]
    Owner,
    /// The eligible member with the least load per weight takes it.
    LeastLoaded,
    /// It waits until a member has room, or its time is up.
    Queue,
    /// It is refused.
    Reject,
}
