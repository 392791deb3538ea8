//! What comes of a proposal, a read, a member's work.

use crate::store::StoreError;
use crate::store::record::MemberInfo;
use std::sync::Arc;

/// The largest command, in bytes: an append call holds several.
pub const COMMAND_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Why a proposal or a read has no good answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another member leads, as far as this one knows. Nothing was proposed.
    #[error("member {} leads", .leader.as_ref().map_or_else(|| "none".to_owned(), |(node, info)| format!("{node} ({})", info.name)))]
    NotLeader {
        /// Who does; `None` during an election.
        leader: Option<(u64, MemberInfo)>,
    },
    /// This leader has no quorum, or not yet, or is handing over. Nothing was proposed; try again.
    #[error("no quorum")]
    Unavailable,
    /// Proposed and not decided in time, or the leader changed meanwhile. It may be, or may yet become, committed:
    /// only a command that can be recognised may be tried again.
    #[error("proposed, and not known to be committed")]
    Unknown,
    /// Nothing: it would be an entry of the log that no member can read.
    #[error("a command without content is none")]
    Empty,
    /// Longer than [`COMMAND_BYTES_MAX`].
    #[error("{bytes} bytes are more than a command may have ({COMMAND_BYTES_MAX})")]
    TooLarge {
        /// The command's length.
        bytes: usize,
    },
    /// This member had stopped or failed before; nothing was proposed. See [`super::Node::failed`].
    #[error("this member has stopped")]
    Stopped,
}

/// Why a member cannot go on. The process should exit with an error and be restarted; boot verifies the disk.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The disk failed.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The engine stopped by itself: the machine halted, or an invariant broke.
    #[error("consensus failed: {0}")]
    Engine(String),
}

/// A committed and applied command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Where in the log it stands.
    pub index: u64,
    /// What [`super::Machine::apply`] said.
    pub answer: Vec<u8>,
}

/// How a read makes sure that this member still leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Asks a quorum.
    Index,
    /// Trusts the lease: no round trip, but clocks that run at different speeds could break it.
    Lease,
}
