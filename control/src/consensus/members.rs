//! Changes of which members take part. All on the leader; each is committed on return.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::metrics::WaitError;
use openraft::{ChangeMembers, RaftMetrics};
use tokio::time::timeout;

use super::node::Node;
use super::outcome::ProposeError;
use super::status::{MemberStatus, Status};
use super::to_end::to_end;
use super::types::Types;
use crate::store::record::MemberInfo;

/// A learner that lacks more entries would hold up commits as a voter.
const LAG_MAX: u64 = 64;
const POLL: Duration = Duration::from_millis(10);

/// Why the membership did not change, or is not known to have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// As for any proposal.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// This member has a log or a vote already.
    #[error("this member has been in a cluster")]
    NotPristine,
    /// Another change is under way.
    #[error("another membership change is under way")]
    InProgress,
    /// No such member, or not in the role that the change needs.
    #[error("member {node} is not a {expected}")]
    NotFound {
        /// The member that was named.
        node: u64,
        /// "learner", "voter" or "member".
        expected: &'static str,
    },
    /// It takes part already, under another address.
    #[error("member {node} takes part already")]
    Exists {
        /// The member that was named.
        node: u64,
    },
    /// Removed members never come back: a lost disk is a lost vote.
    #[error("id {node} belonged to a member that was removed; take a new one")]
    Retired {
        /// The id that was named.
        node: u64,
    },
    /// The only voter cannot go.
    #[error("member {node} is the only voter")]
    LastVoter {
        /// The member that was named.
        node: u64,
    },
    /// The learner does not keep up; nothing was changed.
    #[error("learner {node} has not caught up")]
    Lagging {
        /// The member that was named.
        node: u64,
    },
    /// The leadership did not move in time.
    #[error("member {to} did not take over")]
    NotTransferred {
        /// The member that was named.
        to: u64,
    },
}

impl Node {
    /// Makes this member a cluster of one. Only on a member that has never been in one.
    pub async fn initialize(&self) -> Result<(), MemberError> {
        let members = BTreeMap::from([(self.inner.id, self.inner.info.clone())]);
        let raft = self.inner.raft.clone();
        match to_end(async move { raft.initialize(members).await }).await {
            Some(Ok(())) => Ok(()),
            Some(Err(RaftError::APIError(_))) => Err(MemberError::NotPristine),
            Some(Err(RaftError::Fatal(_))) | None => Err(MemberError::Propose(ProposeError::Stopped)),
        }
    }

    /// Adds a member without a vote. It need not run yet.
    ///
    /// Again with the same address: nothing happens.
    pub async fn add_learner(&self, node: u64, info: MemberInfo) -> Result<(), MemberError> {
        let _changing = self.inner.changing.lock().await;
        self.current().await?;
        let status = self.status();
        if let Some(member) = member(&status, node) {
            return if member.info == info { Ok(()) } else { Err(MemberError::Exists { node }) };
        }
        if self.has_removed(node) {
            return Err(MemberError::Retired { node });
        }
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(node, info)])), true).await
    }

    /// Whether a member with this id was removed, as far as this member has heard: then it was decided.
    #[must_use]
    pub fn has_removed(&self, node: u64) -> bool {
        self.inner.retired.read().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    /// Gives a learner a vote once it has caught up, for which it has `Timing::decide`.
    pub async fn promote(&self, node: u64) -> Result<(), MemberError> {
        let _changing = self.inner.changing.lock().await;
        self.current().await?;
        if self.status().voters.iter().any(|voter| voter.node == node) {
            return Ok(());
        }
        self.caught_up(node).await?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node])), true).await
    }

    /// Removes a member, with its vote where it has one. A leader that removes itself hands over.
    pub async fn remove(&self, node: u64) -> Result<(), MemberError> {
        let _changing = self.inner.changing.lock().await;
        self.current().await?;
        let status = self.status();
        if status.learners.iter().any(|learner| learner.node == node) {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node])), false).await;
        }
        if !status.voters.iter().any(|voter| voter.node == node) {
            return Err(MemberError::NotFound { node, expected: "member" });
        }
        if status.voters.len() == 1 {
            return Err(MemberError::LastVoter { node });
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([node])), false).await
    }

    /// Gives the vote of `old`, dead or alive, to the learner `new` in one joint change: never fewer voters.
    pub async fn replace(&self, old: u64, new: u64) -> Result<(), MemberError> {
        let _changing = self.inner.changing.lock().await;
        self.current().await?;
        if !self.status().voters.iter().any(|voter| voter.node == old) {
            return Err(MemberError::NotFound { node: old, expected: "voter" });
        }
        self.caught_up(new).await?;
        let change = ChangeMembers::Batch(vec![
            ChangeMembers::AddVoterIds(BTreeSet::from([new])),
            ChangeMembers::RemoveVoters(BTreeSet::from([old])),
        ]);
        self.change(change, false).await
    }

    /// Hands the leadership to a voter; on return another member leads, usually within 10 ms.
    pub async fn transfer(&self, to: u64) -> Result<(), MemberError> {
        let _changing = self.inner.changing.lock().await;
        self.current().await?;
        if to == self.inner.id {
            return Ok(());
        }
        if !self.status().voters.iter().any(|voter| voter.node == to) {
            return Err(MemberError::NotFound { node: to, expected: "voter" });
        }
        if !self.hand_to(to).await {
            return Err(ProposeError::Stopped.into());
        }
        let wait = self.inner.raft.wait(Some(self.inner.timing.election_max * 4));
        let moved = |metrics: &RaftMetrics<Types>| metrics.current_leader.is_some_and(|leader| leader != self.inner.id);
        match wait.metrics(moved, "another member leads").await {
            Ok(_) => Ok(()),
            Err(WaitError::ShuttingDown) => Err(ProposeError::Stopped.into()),
            Err(_) => Err(MemberError::NotTransferred { to }),
        }
    }

    /// Has the engine hand over. `false`: it has ended.
    pub(super) async fn hand_to(&self, to: u64) -> bool {
        let raft = self.inner.raft.clone();
        to_end(async move { raft.trigger().transfer_leader(to).await.is_ok() }).await == Some(true)
    }

    /// Ends a joint change in favour of its new set.
    pub(super) async fn flatten(&self) -> Result<(), MemberError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await
    }

    /// The checks above read this member's state, so it has to be the cluster's.
    async fn current(&self) -> Result<(), MemberError> {
        Ok(self.read_barrier(super::Read::Index).await?)
    }

    async fn caught_up(&self, node: u64) -> Result<(), MemberError> {
        if !self.status().learners.iter().any(|learner| learner.node == node) {
            return Err(MemberError::NotFound { node, expected: "learner" });
        }
        let near = async {
            loop {
                let lag = member(&self.status(), node).and_then(|member| member.lag);
                if lag.is_some_and(|lag| lag <= LAG_MAX) {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        timeout(self.inner.timing.decide, near).await.map_err(|_| MemberError::Lagging { node })
    }

    async fn change(&self, change: ChangeMembers<u64, MemberInfo>, retain: bool) -> Result<(), MemberError> {
        let raft = self.inner.raft.clone();
        let decided = to_end(async move { raft.change_membership(change, retain).await });
        match timeout(self.inner.timing.decide, decided).await {
            Ok(Some(Ok(_))) => Ok(()),
            Ok(Some(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))))) => match error {
                ChangeMembershipError::LearnerNotFound(error) => {
                    Err(MemberError::NotFound { node: error.node_id, expected: "learner" })
                }
                // A leader that has not committed an entry of its own term yet: it passes.
                ChangeMembershipError::UncommittedLeaderLog(_) => Err(ProposeError::Unavailable.into()),
                error => {
                    tracing::info!(%error, "a membership change was refused");
                    Err(MemberError::InProgress)
                }
            },
            Ok(Some(Err(error))) => Err(self.write_error(error).into()),
            Ok(None) | Err(_) => Err(ProposeError::Unknown.into()),
        }
    }
}

fn member(status: &Status, node: u64) -> Option<&MemberStatus> {
    status.voters.iter().chain(&status.learners).find(|member| member.node == node)
}
