//! What the configuration says about balancing: the parameter types that `ringway-config` fills in.

/// The policy that orders the backends for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyParams {
    /// Virtual-node consistent-hash ring.
    Ring(RingParams),
    /// Maglev table: evener shares than the ring, at the price of more movement.
    Maglev(MaglevParams),
    /// Weighted rendezvous (highest random weight): perfect shares, minimal movement, O(n) a lookup.
    Rendezvous(RendezvousParams),
    /// Smooth weighted round robin; keys are not consulted.
    RoundRobin,
    /// Any backend, by weight.
    Random,
    /// The less loaded of two drawn by weight.
    PowerOfTwo,
    /// The least loaded of all, for its weight.
    LeastRequest,
    /// The cheaper of two drawn by weight: peak-sensitive mean latency times load.
    PeakEwma(PeakEwmaParams),
    /// The first in the order of ids that has room.
    First,
}

impl PolicyParams {
    /// Whether requests are placed by key.
    #[must_use]
    pub fn hashes(self) -> bool {
        matches!(self, Self::Ring(_) | Self::Maglev(_) | Self::Rendezvous(_))
    }

    /// The seed of key hashes; 0 for policies without keys.
    #[must_use]
    pub fn seed(self) -> u64 {
        match self {
            Self::Ring(params) => params.seed,
            Self::Maglev(params) => params.seed,
            Self::Rendezvous(params) => params.seed,
            _ => 0,
        }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring(_) => "ring",
            Self::Maglev(_) => "maglev",
            Self::Rendezvous(_) => "hrw",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::PowerOfTwo => "p2c",
            Self::LeastRequest => "least_request",
            Self::PeakEwma(_) => "peak_ewma",
            Self::First => "first",
        }
    }
}

/// What placement in a Maglev table depends on, besides the members' ids and weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaglevParams {
    /// Entries of the table: a prime, well above 100 per member for shares within 1 %.
    pub table_size: u32,
    /// As [`RingParams::seed`].
    pub seed: u64,
}

impl Default for MaglevParams {
    fn default() -> Self {
        Self { table_size: 65_537, seed: 0 }
    }
}

/// What rendezvous placement depends on, besides the members' ids and weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RendezvousParams {
    /// As [`RingParams::seed`].
    pub seed: u64,
}

/// How fast a peak latency is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeakEwmaParams {
    /// Time constant of the decay, in milliseconds.
    pub decay_millis: u32,
}

impl Default for PeakEwmaParams {
    fn default() -> Self {
        Self { decay_millis: 10_000 }
    }
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
    /// Floor of the cap, in requests: with 1, an idle fleet of more than ten members splits two concurrent requests of one key.
    pub min_slots: u32,
}

impl BoundParams {
    /// The cap of a member with this fair share of the load. A strict bound is strict whatever the least slack is.
    #[inline]
    pub(crate) fn cap(&self, fair: f64, slack_min: f64) -> u32 {
        let slack = if self.slack > 0.0 { self.slack.max(slack_min) } else { 0.0 };
        let cap = self.factor * fair + slack * fair.sqrt();
        // What rounding adds to a whole number is taken off again before it is rounded up.
        let cap = (cap * (1.0 - 1e-12)).ceil() as u32;
        cap.max(self.min_slots)
    }
}

impl Default for BoundParams {
    fn default() -> Self {
        Self { factor: 1.25, slack: 2.0, min_slots: 2 }
    }
}

/// What to do with a request when every eligible member is at its cap: its bound, its hard limit, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AllFull {
    /// The first eligible member of its sequence that is below its hard limit takes it over its bound.
    #[default]
    Owner,
    /// The eligible member with the least load per weight takes it over its bound, if it is below its hard limit.
    LeastLoaded,
    /// It waits until a member has room, or its time is up.
    Queue,
    /// It is refused.
    Reject,
}
