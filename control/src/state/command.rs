//! What can be asked of the state, and what it answers. Variants and fields are only ever added at the end: the log of one
//! version is read by the next.

use super::model::{Key, Role};
use super::rollout::{Policy, Vote};
use super::txn::{Author, Refusal, Txn};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// The first entry: names the cluster.
    Init {
        /// Never changes.
        cluster: String,
    },
    /// Changes objects, all or none.
    Txn(Txn),
    /// Makes objects as they were at a revision; a new revision.
    Rollback {
        /// Who, when, why.
        by: Author,
        /// The revision.
        to: u64,
    },
    /// Makes a lease.
    LeaseGrant {
        /// Who asks.
        owner: String,
        /// Milliseconds.
        ttl_ms: u64,
    },
    /// Ends leases, and what hangs on them, by their holders' or an operator's wish.
    LeaseRevoke {
        /// Who, when, why.
        by: Author,
        /// Which.
        ids: Vec<u64>,
    },
    /// Ends leases without heartbeats. Holds only if the entry is the proposer's own: a leader that was deposed while it was
    /// proposing revokes nothing.
    LeaseExpire {
        /// The member that proposes it.
        leader: u64,
        /// Unix milliseconds.
        at_ms: u64,
        /// Which.
        ids: Vec<u64>,
    },
    /// Takes a lock, if nobody else has it.
    LockAcquire {
        /// Of what.
        name: String,
        /// For whom.
        owner: String,
        /// Goes with it.
        lease: u64,
    },
    /// Gives a lock back.
    LockRelease {
        /// Of what.
        name: String,
        /// The holder's.
        token: u64,
    },
    /// Makes or replaces a token.
    TokenPut {
        /// For the audit log.
        name: String,
        /// What it allows.
        role: Role,
        /// BLAKE3 of its text.
        hash: [u8; 32],
        /// Unix milliseconds.
        expires_at_ms: Option<u64>,
    },
    /// Ends a token.
    TokenDelete {
        /// Which.
        name: String,
    },
    /// Shows a change to every proxy before it holds.
    RolloutStart {
        /// The change.
        txn: Txn,
        /// How.
        policy: Policy,
        /// Live proxies: all of them must say yes.
        participants: Vec<String>,
    },
    /// What proxies say.
    RolloutVotes {
        /// The rollout.
        id: u64,
        /// By proxy.
        votes: BTreeMap<String, Vote>,
    },
    /// Goes on to a share of the proxies.
    RolloutAdvance {
        /// The rollout.
        id: u64,
        /// Index of the stage.
        stage: u32,
    },
    /// The change holds for all.
    RolloutCommit {
        /// The rollout.
        id: u64,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// The change is dropped.
    RolloutAbort {
        /// The rollout.
        id: u64,
        /// Why.
        reason: String,
    },
    /// A part of a backup that is to be restored.
    RestoreChunk {
        /// BLAKE3 of the whole.
        whole: [u8; 32],
        /// From 0; part 0 begins anew.
        number: u32,
        /// At most some MiB.
        bytes: Vec<u8>,
    },
    /// Puts the parts into force: objects are the backup's, the epoch is raised.
    RestoreCommit {
        /// Who, when, why.
        by: Author,
        /// BLAKE3 of the whole.
        whole: [u8; 32],
    },
    /// What the leader's state was after this many changes: a member whose own differs has gone wrong and stops.
    Checkpoint {
        /// Revision.
        revision: u64,
        /// Digest, as text.
        digest: String,
    },
    /// What a quorum of proxies has seen.
    Agree {
        /// Unix milliseconds.
        at_ms: u64,
        /// Backends, and whether they are down for everybody.
        verdicts: Vec<(Key, bool)>,
        /// Proxies that stand behind it, for the history.
        note: String,
    },
    /// The first entry of a cluster whose first member knows rules: names it, and sets them. What [`Command::Init`] was.
    Found {
        /// Never changes, but by a restore into an empty cluster.
        cluster: String,
        /// Where its epochs begin.
        epoch: u64,
        /// See [`super::RULES`].
        rules: u32,
    },
    /// All members know these rules: they hold from here. From rules 0.
    Rules {
        /// See [`super::RULES`].
        version: u32,
    },
    /// [`Command::Txn`], [`Command::Rollback`] or [`Command::RolloutStart`], judged by whoever proposes it: the checks of
    /// configurations and the guards against accidents differ from build to build, what is applied must not. From rules 1.
    Judged {
        /// What it was judged by.
        basis: Basis,
        /// What is proposed.
        #[serde(deserialize_with = "unjudged")]
        command: Box<Self>,
    },
    /// What the leader knows of silent leases, for the one after it: the full TTL, if it has heard of them again. From rules 1.
    LeaseLives {
        /// Whose knowledge it is.
        leader: u64,
        /// By id, in milliseconds.
        lives: Vec<(u64, u64)>,
    },
    /// A proxy of this cluster has seen more than the cluster has: another life of it, before its disks were lost. One epoch
    /// above that, the proxy follows. Objects and revision stay. From rules 1.
    RaiseEpoch {
        /// Epoch and revision that the proxy has in force. Refused if the cluster has them by now: then it was no more than
        /// ahead of a member that lags.
        seen: (u64, u64),
        /// The new epoch.
        to: u64,
    },
    /// As [`Command::RestoreCommit`], with an epoch that no proxy has seen. From rules 1.
    RestoreAs {
        /// Who, when, why.
        by: Author,
        /// BLAKE3 of the whole.
        whole: [u8; 32],
        /// Not less than this.
        epoch: u64,
        /// Even if the backup is another cluster's: this one keeps its name.
        other_cluster: bool,
    },
}

impl Command {
    /// The rules that all members must have agreed on before it may be in the log: a member that does not know them stops there.
    #[must_use]
    pub fn rules(&self) -> u32 {
        match self {
            Self::Txn(txn) | Self::RolloutStart { txn, .. } => txn.rules(),
            Self::Init { .. }
            | Self::Rollback { .. }
            | Self::LeaseGrant { .. }
            | Self::LeaseRevoke { .. }
            | Self::LeaseExpire { .. }
            | Self::LockAcquire { .. }
            | Self::LockRelease { .. }
            | Self::TokenPut { .. }
            | Self::TokenDelete { .. }
            | Self::RolloutVotes { .. }
            | Self::RolloutAdvance { .. }
            | Self::RolloutCommit { .. }
            | Self::RolloutAbort { .. }
            | Self::RestoreChunk { .. }
            | Self::RestoreCommit { .. }
            | Self::Checkpoint { .. }
            | Self::Agree { .. } => 0,
            // The first says that its only member knows them; the second, that all have been asked.
            Self::Found { .. } | Self::Rules { .. } => 0,
            Self::Judged { command, .. } => command.rules().max(1),
            Self::LeaseLives { .. } | Self::RaiseEpoch { .. } | Self::RestoreAs { .. } => 1,
        }
    }
}

/// Reads what is judged, which is no judgement itself: of some hundred kilobytes that are nothing else, each of the next, the stack would
/// run over before anything could be refused.
fn unjudged<'de, D: Deserializer<'de>>(from: D) -> Result<Box<Command>, D::Error> {
    thread_local! {
        static WITHIN: Cell<bool> = const { Cell::new(false) };
    }
    if WITHIN.replace(true) {
        return Err(D::Error::custom("a judgement of a judgement"));
    }
    let command = Command::deserialize(from);
    WITHIN.set(false);
    command.map(Box::new)
}

/// What a judgement stands on. If something else is so when the command is applied, it is refused as `moved`, and judged again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Basis {
    /// The epoch.
    pub epoch: u64,
    /// [`super::State::configured`], where it was read.
    pub configured: Option<u64>,
    /// [`super::State::lost`], where it mattered which backends take traffic.
    pub lost: Option<u64>,
}

/// What came of a command.
pub type Answer = Result<Applied, Refusal>;

/// It holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The state's revision after it.
    pub revision: u64,
    /// What it made: a lease's or a rollout's id, a lock's fencing token.
    pub id: u64,
    /// Objects that it changed.
    pub changed: u32,
}
