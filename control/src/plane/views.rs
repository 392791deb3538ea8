//! What members tell each other of the fleet and of themselves.

use crate::loads::{Position, TablesLine};
use crate::watch::wire::{ProxyEvent, ProxyView};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The fleet as the leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetView {
    /// By name.
    pub proxies: Vec<ProxyView>,
    /// Services whose backends do not expire although they should, because they are too many, and how many.
    pub frozen: BTreeMap<String, usize>,
    /// What has become of proxies lately, oldest first; of this leader.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<ProxyEvent>,
}

/// A leader that a member has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderSeen {
    /// The term that it leads in.
    pub term: u64,
    /// Its id.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Unix milliseconds at which it was first heard of here.
    pub at_ms: u64,
}

/// A change of which members there are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum MemberChange {
    /// A new member: it follows, and votes as soon as it has caught up.
    Join {
        /// Its id, never used before.
        node: u64,
        /// Where it is reached.
        info: (String, String, String),
        /// It is to vote.
        voter: bool,
        /// The member that it takes the place of.
        replace: Option<u64>,
    },
    /// A learner is to vote.
    Promote(u64),
    /// A member goes.
    Remove(u64),
    /// Another member is to lead.
    Transfer(u64),
}

/// How a member is, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberView {
    /// The build that it runs.
    pub version: String,
    /// `leader`, `leader_without_quorum`, `candidate`, `follower`, `learner`, `stopped`.
    pub role: String,
    /// The term that it is in.
    pub term: u64,
    /// Who leads with a quorum, as far as it knows.
    pub leader: Option<u64>,
    /// The last entry of its log.
    pub last_log: u64,
    /// The last entry that it has applied.
    pub applied: u64,
    /// Where its topology is.
    pub epoch: u64,
    /// Where its topology is.
    pub revision: u64,
    /// What its log and snapshots take on its disk; `None`: an earlier version does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

/// The leader's tables of loads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TablesTold {
    /// Where they are; `None`: none have been published.
    pub position: Option<Position>,
    /// What leads there; `None`: whoever asked is there, or later.
    pub line: Option<TablesLine>,
    /// Milliseconds since they were known to hold.
    pub age_ms: Option<u64>,
    /// Milliseconds that whoever asked has been kept waiting for it.
    pub waited_ms: Option<u64>,
}
