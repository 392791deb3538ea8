//! How members talk: `POST /raft/{append,vote,pre-vote,snapshot,transfer,ask}` over HTTP/2, with rustls where the caller
//! gives it.
//!
//! Bodies are records of `store/record.rs`, whose index is the call's number. Every request names the cluster, the
//! member it is meant for and the protocol; one that names others is answered 409 and never served: an address that
//! was given to another member must not let two clusters, or a member and its successor, mix.

mod client;
mod gate;
mod server;
pub mod tls;
mod wire;

use std::time::Duration;

pub use client::{CallError, Dialer, Peer};
pub use server::{Handler, Server};
#[cfg(any(test, fuzzing))]
pub(crate) use wire::fuzz;
#[cfg(test)]
pub(crate) use wire::parse as parse_call;
pub use wire::{
    AppendAnswer, AppendCall, Call, Reply, SnapshotAnswer, SnapshotCall, TransferAnswer, TransferCall, VoteAnswer,
    VoteCall,
};

/// Carries bodies from one member in place of sockets; whoever asks stops to wait at its own deadline.
#[cfg(test)]
pub(crate) trait Carrier: Send + Sync {
    /// Takes a call's body to the member `to` at `address`, and its answer's body back.
    fn carry(
        &self,
        to: u64,
        address: String,
        rpc: Rpc,
        body: bytes::Bytes,
    ) -> futures_util::future::BoxFuture<'static, Result<bytes::Bytes, CallError>>;
}

/// Where carried bodies arrive: the called side without sockets.
#[cfg(test)]
pub(crate) type Inbox = std::sync::Arc<
    dyn Fn(Rpc, bytes::Bytes) -> futures_util::future::BoxFuture<'static, Result<Vec<u8>, http::StatusCode>>
        + Send
        + Sync,
>;

/// Has carried bodies handled.
#[cfg(test)]
pub(crate) fn inbox<H: Handler>(handler: H) -> Inbox {
    let handler = std::sync::Arc::new(handler);
    std::sync::Arc::new(move |rpc, body| {
        let handler = std::sync::Arc::clone(&handler);
        Box::pin(async move { server::handle(&*handler, rpc, body, "a carrier").await })
    })
}

/// Raised when a member that knows only the old one could misread the new one.
const PROTOCOL: &str = "1";
const CLUSTER_HEADER: &str = "ringway-cluster";
const TO_NODE_HEADER: &str = "ringway-to-node";
const PROTOCOL_HEADER: &str = "ringway-proto";

/// Entries of an append call take at most half of this, see `consensus/log.rs`.
const APPEND_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The state is limited to 64 MiB; the rest is the header and growth of the encoding.
const SNAPSHOT_BYTES_MAX: u64 = 80 * 1024 * 1024;
/// A command, or a heartbeat.
const ASK_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The fleet: some hundred bytes for each of some ten thousand proxies.
const ASK_ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Votes and answers: some integers.
const SMALL_BYTES_MAX: u64 = 64 * 1024;

/// A silent connection is asked for a heartbeat this often.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// And is closed when there is none for this long.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The calls between members; the number is the record's index and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rpc {
    /// Entries, or a heartbeat.
    Append = 1,
    /// A request for a vote.
    Vote = 2,
    /// Whether a vote would be granted.
    PreVote = 3,
    /// A whole snapshot.
    Snapshot = 4,
    /// The leader steps down in favour of the receiver.
    Transfer = 5,
    /// What is above consensus asks of the leader.
    Ask = 6,
}

impl Rpc {
    const fn path(self) -> &'static str {
        match self {
            Self::Append => "/raft/append",
            Self::Vote => "/raft/vote",
            Self::PreVote => "/raft/pre-vote",
            Self::Snapshot => "/raft/snapshot",
            Self::Transfer => "/raft/transfer",
            Self::Ask => "/raft/ask",
        }
    }

    fn of_path(path: &str) -> Option<Self> {
        let all = [Self::Append, Self::Vote, Self::PreVote, Self::Snapshot, Self::Transfer, Self::Ask];
        all.into_iter().find(|rpc| rpc.path() == path)
    }

    const fn index(self) -> u64 {
        self as u64
    }

    const fn bytes_max(self) -> u64 {
        match self {
            Self::Append => APPEND_BYTES_MAX,
            Self::Snapshot => SNAPSHOT_BYTES_MAX,
            Self::Ask => ASK_BYTES_MAX,
            Self::Vote | Self::PreVote | Self::Transfer => SMALL_BYTES_MAX,
        }
    }

    const fn answer_bytes_max(self) -> u64 {
        if matches!(self, Self::Ask) { ASK_ANSWER_BYTES_MAX } else { SMALL_BYTES_MAX }
    }
}
