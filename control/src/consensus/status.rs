//! What a member knows of the cluster.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;

use super::machine::Raft;
use super::options::Timing;
use crate::store::record::MemberInfo;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Leads, and a quorum has said so within the lease.
    Leader,
    /// Led, and has not heard from a quorum for longer than the lease: another may lead by now.
    LeaderWithoutQuorum,
    /// Stands for election.
    Candidate,
    /// Follows.
    Follower,
    /// Follows without a vote, or is in no cluster yet.
    Learner,
    /// Stopped or failed.
    Stopped,
}

impl Role {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Leader, Self::LeaderWithoutQuorum, Self::Candidate, Self::Follower, Self::Learner, Self::Stopped];

    /// As in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::LeaderWithoutQuorum => "leader_without_quorum",
            Self::Candidate => "candidate",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        }
    }
}

/// One member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub node: u64,
    /// Where it is reached.
    pub info: MemberInfo,
    /// Entries that it is known to lack; `None` where unknown, and on all but the leader.
    pub lag: Option<u64>,
}

/// A member's view of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: u64,
    /// The term it is in.
    pub term: u64,
    /// Who leads, as far as this member knows: it has been heard of a moment ago. Its own leadership counts only with [`Role::Leader`].
    pub leader: Option<(u64, MemberInfo)>,
    /// What this member is.
    pub role: Role,
    /// The last entry's index.
    pub last_log: Option<u64>,
    /// The last entry known to be committed.
    pub committed: Option<u64>,
    /// The last entry in the machine.
    pub applied: Option<u64>,
    /// The last entry in the newest snapshot.
    pub snapshot: Option<u64>,
    /// The last entry that is only in snapshots.
    pub purged: Option<u64>,
    /// How long ago a quorum acknowledged this leader; `None` on all but leaders.
    pub quorum_age: Option<Duration>,
    /// Those that vote. During a joint change, of both sets.
    pub voters: Vec<MemberStatus>,
    /// Those that only listen.
    pub learners: Vec<MemberStatus>,
}

impl Status {
    /// Who is to be asked, and whether it is this member and may answer.
    pub(crate) fn leads(&self) -> (u64, Option<u64>, bool) {
        (self.term, self.leader.as_ref().map(|(node, _)| *node), self.role == Role::Leader)
    }

    /// Who leads with a quorum, as far as this member knows. A leader that nobody acknowledges leads nobody.
    #[must_use]
    pub fn acknowledged_leader(&self) -> Option<&(u64, MemberInfo)> {
        self.leader.as_ref().filter(|(leader, _)| *leader != self.id || self.role == Role::Leader)
    }
}

/// When a leader's call was last taken here. The engine remembers whom it voted for, not whether that one is still there:
/// to a member that is cut off, an old leader would lead for ever. All clones are one.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Option<Instant>>>);

impl Heard {
    pub(super) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn within(&self, time: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() <= time)
    }
}

/// The view at this moment.
pub(super) fn of(raft: &Raft, heard: &Heard, lease: Duration) -> Status {
    let metrics = raft.metrics().borrow_watched().clone();
    let acknowledged = metrics.last_quorum_acked.as_ref().map(|at| at.elapsed());
    // The only voter is a quorum, at any time; nobody acknowledges it.
    let alone = metrics.membership_config.membership().voter_ids().eq([metrics.id]);
    let quorum_age = if alone && metrics.state == ServerState::Leader { Some(Duration::ZERO) } else { acknowledged };
    let role = match metrics.state {
        _ if metrics.running_state.is_err() => Role::Stopped,
        ServerState::Leader if quorum_age.is_some_and(|age| age <= lease) => Role::Leader,
        ServerState::Leader => Role::LeaderWithoutQuorum,
        ServerState::Candidate => Role::Candidate,
        ServerState::Follower => Role::Follower,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    };
    let membership = metrics.membership_config.membership();
    let member = |node: u64| {
        let matched = metrics.replication.as_ref().and_then(|replication| replication.get(&node));
        // Positions, not indices: an empty log lacks one entry more than a log whose last index is 0.
        let length = |index: Option<u64>| index.map_or(0, |index| index.saturating_add(1));
        let lag = matched.map(|matched| {
            length(metrics.last_log_index).saturating_sub(length(matched.as_ref().map(|id| id.index())))
        });
        Some(MemberStatus { node, info: membership.get_node(&node)?.clone(), lag })
    };
    // A silence in which every follower would have stood for election.
    let leader = metrics.current_leader.filter(|leader| *leader == metrics.id || heard.within(lease * 2));
    Status {
        id: metrics.id,
        term: metrics.current_term,
        leader: leader.and_then(|leader| Some((leader, membership.get_node(&leader)?.clone()))),
        role,
        last_log: metrics.last_log_index,
        committed: metrics.local_committed.map(|id| id.index()),
        applied: metrics.last_applied.map(|id| id.index()),
        snapshot: metrics.snapshot.map(|id| id.index()),
        purged: metrics.purged.map(|id| id.index()),
        quorum_age,
        voters: membership.voter_ids().filter_map(member).collect(),
        learners: membership.learner_ids().filter_map(member).collect(),
    }
}

/// Keeps the watched view up to date. A lease runs out without the engine saying so, hence the timer.
pub(super) async fn publish(raft: Raft, heard: Heard, timing: Timing, sender: watch::Sender<Status>) {
    let mut metrics = raft.metrics();
    loop {
        let next = of(&raft, &heard, timing.election_max);
        sender.send_if_modified(|status| {
            let changed = Status { quorum_age: None, ..next.clone() } != Status { quorum_age: None, ..status.clone() };
            *status = next;
            changed
        });
        tokio::select! {
            biased;
            changed = metrics.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(timing.heartbeat) => {}
        }
    }
}
