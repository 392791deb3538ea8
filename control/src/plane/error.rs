//! Why something cannot be done.

use crate::state::{EncodeError, Refusal};

/// Why something cannot be done.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PlaneError {
    /// Nobody leads, or nobody has a quorum. Nothing was done; ask again.
    #[error("no member leads, or it has no quorum: nothing was changed; ask again in a moment")]
    NoLeader,
    /// It was proposed, and may come about or not.
    #[error("it was proposed, and is not known to be decided: read whether it holds before asking again")]
    Unknown,
    /// The state says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The members say no.
    #[error("{0}")]
    Member(String),
    /// A fault of this program's.
    #[error("{0}")]
    Internal(String),
}

impl From<EncodeError> for PlaneError {
    fn from(error: EncodeError) -> Self {
        Self::Internal(error.to_string())
    }
}
