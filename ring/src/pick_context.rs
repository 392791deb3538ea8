//! What one request brings to the choice of a backend.

use crate::hash::Hash;

/// What one request brings to the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PickContext {
    /// The key's hash; for policies without keys, and requests without one, it is drawn.
    pub hash: Hash,
    /// A number drawn for this request.
    pub chance: u64,
    /// For latencies: see [`crate::Load::observe`].
    pub now_millis: u32,
    /// The key is hot, and has so many owners; 0 or 1 is not.
    pub owners: u16,
}
