//! The engine's type parameters, filled in.
#![allow(deprecated, reason = "the engine names its runtime through a path that it has deprecated itself")]

use std::fmt;

use bytes::Bytes;
use openraft::alias;
#[cfg(not(test))]
use openraft::impls::TokioRuntime as Runtime;

#[cfg(test)]
use crate::simulation::Runtime;
use crate::store::record::MemberInfo;

openraft::declare_raft_types!(
    /// What the engine is built over.
    pub(super) Types:
        D = Proposal,
        R = Vec<u8>,
        NodeId = u64,
        Node = MemberInfo,
        AsyncRuntime = Runtime,
);

pub(super) type LogId = alias::LogIdOf<Types>;
pub(super) type Vote = alias::VoteOf<Types>;
pub(super) type Entry = alias::EntryOf<Types>;
pub(super) type Membership = openraft::Membership<u64, MemberInfo>;
pub(super) type StoredMembership = alias::StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = alias::SnapshotMetaOf<Types>;
/// Snapshots are whole in memory: the state is limited to 64 MiB.
pub(super) type Snapshot = alias::SnapshotOf<Types, Bytes>;

/// A command as the engine carries it: opaque, and cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proposal(pub(super) Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
