//! The state as bytes: for snapshots and backups.
//!
//! As long as members may run a build that knows no rules, the state is written as that build reads it; what has come since
//! is empty until then.

use super::encode::EncodeError;
use super::model::{Entry, Key, Lease, Lock, Revision, Token};
use super::rollout::Rollout;
use super::{Applied, Digest, State};
use rpds::RedBlackTreeMapSync as Map;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Of states under rules 0.
const FORMAT_1: u8 = 1;
/// Of states under rules 1. Fields of [`State`] are only ever added under a format of their own.
const FORMAT_2: u8 = 2;
/// Of states under rules 2; the same fields. Builds that know no rules above 1 must not go on from such a state.
const FORMAT_3: u8 = 3;
/// Of all others; the same fields, likewise.
const FORMAT_4: u8 = 4;

/// The newest format that builds know which know no rules above these.
pub(super) fn format_of(rules: u32) -> u8 {
    match rules {
        0 => FORMAT_1,
        1 => FORMAT_2,
        2 => FORMAT_3,
        _ => FORMAT_4,
    }
}

/// Why bytes are no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Another format.
    #[error("the state has format {0}, this version reads up to {FORMAT_4}: use a newer version")]
    Format(u8),
    /// Damaged.
    #[error("the state cannot be read: {0}")]
    Damaged(String),
}

/// As it was under rules 0; never changed.
#[derive(Serialize, Deserialize)]
struct First {
    cluster: String,
    epoch: u64,
    revision: u64,
    digest: Digest,
    objects: Map<Key, Entry>,
    objects_bytes: usize,
    leases: Map<u64, Lease>,
    locks: Map<String, Lock>,
    tokens: Map<String, Token>,
    history: Map<u64, Revision>,
    history_bytes: usize,
    requests: Map<String, (u64, Applied)>,
    requests_order: Map<u64, String>,
    rollouts: Map<u64, Rollout>,
    next_id: u64,
    restore: Vec<Arc<Vec<u8>>>,
}

impl From<State> for First {
    fn from(state: State) -> Self {
        Self {
            cluster: state.cluster,
            epoch: state.epoch,
            revision: state.revision,
            digest: state.digest,
            objects: state.objects,
            objects_bytes: state.objects_bytes,
            leases: state.leases,
            locks: state.locks,
            tokens: state.tokens,
            history: state.history,
            history_bytes: state.history_bytes,
            requests: state.requests,
            requests_order: state.requests_order,
            rollouts: state.rollouts,
            next_id: state.next_id,
            restore: state.restore,
        }
    }
}

impl From<First> for State {
    fn from(first: First) -> Self {
        Self {
            cluster: first.cluster,
            epoch: first.epoch,
            revision: first.revision,
            digest: first.digest,
            objects: first.objects,
            objects_bytes: first.objects_bytes,
            leases: first.leases,
            locks: first.locks,
            tokens: first.tokens,
            history: first.history,
            history_bytes: first.history_bytes,
            requests: first.requests,
            requests_order: first.requests_order,
            rollouts: first.rollouts,
            next_id: first.next_id,
            restore: first.restore,
            ..Self::default()
        }
    }
}

impl State {
    /// For snapshots and backups.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let bytes = match format_of(self.rules) {
            // A clone shares everything.
            FORMAT_1 => postcard::to_extend(&First::from(self.clone()), vec![FORMAT_1]),
            format => postcard::to_extend(self, vec![format]),
        };
        bytes.map_err(|error| EncodeError::new(&error))
    }

    /// The reverse of [`State::encode`].
    ///
    /// # Errors
    /// The bytes are another format's, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let damaged = |error: postcard::Error| DecodeError::Damaged(error.to_string());
        match bytes.split_first() {
            Some((&FORMAT_1, rest)) => postcard::from_bytes::<First>(rest).map(Self::from).map_err(damaged),
            Some((&(FORMAT_2 | FORMAT_3 | FORMAT_4), rest)) => postcard::from_bytes(rest).map_err(damaged),
            Some((&format, _)) => Err(DecodeError::Format(format)),
            None => Err(DecodeError::Damaged("it is empty".into())),
        }
    }
}
