//! What is left on one member's disk, and a new cluster made of it; while no member runs there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::convert;
use super::machine::{Retired, StateMachine, content_of};
use super::options::StartError;
use super::replicated::Machine;
use crate::store::record::{Identity, LogId, MemberInfo, Membership, SnapshotMeta, Vote};
use crate::store::{Store, StoreError};

/// A stopped member's disk. Nobody else has the directory as long as this lives.
#[derive(Debug)]
pub struct Survivor {
    store: Store,
    identity: Identity,
    /// The last entry, which the machine has taken in.
    pub last: u64,
    /// The last entry that this member knew to be committed.
    pub committed: u64,
    term: u64,
    /// Who took part, as the last entry says; one set of voters, or two during a change.
    pub membership: Membership,
    retired: BTreeSet<u64>,
}

impl Survivor {
    /// Reads a stopped member's disk into a machine: everything that it has, since what others acknowledged together with
    /// this member may be among its last entries, whether it knew or not.
    ///
    /// # Errors
    /// The disk does not verify, is another process's, or has never been in a cluster.
    pub fn open<M: Machine>(directory: &Path, identity: &Identity, machine: M) -> Result<Self, StartError> {
        let store = Store::open(directory, identity)?;
        let retired = Retired::default();
        let mut replayed = StateMachine::new(Box::new(machine), store.clone(), Arc::clone(&retired));
        let (last, membership) = replayed.replay().map_err(|error| StartError::Replay(error.to_string()))?;
        let last = last.ok_or_else(|| StartError::Replay("there is nothing in it".to_owned()))?;
        let last = convert::log_id(&last);
        let retired = retired.read().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Self {
            committed: store.committed().map_or(0, |id| id.index),
            last: last.index,
            term: store.vote().map_or(0, |vote| vote.term).max(last.term),
            membership: convert::membership(membership.membership()),
            retired,
            identity: identity.clone(),
            store,
        })
    }

    /// Whether these voters, with this member if it is one, could elect a leader: they have a majority of every set.
    #[must_use]
    pub fn is_quorum(&self, living: &BTreeSet<u64>) -> bool {
        let lives = |node: &&u64| living.contains(*node) || **node == self.identity.node;
        let majority = |voters: &Vec<u64>| voters.iter().filter(lives).count() > voters.len() / 2;
        !self.membership.configs.is_empty() && self.membership.configs.iter().all(majority)
    }

    /// Where a cluster that is made of it begins.
    #[must_use]
    pub fn beginning(&self) -> Beginning {
        let mut retired = self.retired.clone();
        // Nobody of the old cluster can come back under its id.
        retired.extend(self.membership.nodes.iter().map(|(node, _)| *node));
        Beginning { term: self.term.saturating_add(1), index: self.last.saturating_add(1), retired }
    }

    /// Gives the directory free.
    pub async fn close(self) {
        self.store.close().await;
    }
}

/// Where the log of a cluster begins that has a state from its first moment.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// The term of its first leader.
    pub term: u64,
    /// Of the entry that stands for the state.
    pub index: u64,
    /// Who can never be a member.
    pub retired: BTreeSet<u64>,
}

impl Default for Beginning {
    /// Of a cluster without a past.
    fn default() -> Self {
        Self { term: 1, index: 1, retired: BTreeSet::new() }
    }
}

impl Beginning {
    /// Writes the disk of a cluster whose only member is `identity`, into an empty directory. `state` is what the machine is to
    /// have, as it writes it, at [`Beginning::index`].
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn write(
        self,
        directory: &Path,
        identity: &Identity,
        info: MemberInfo,
        state: &[u8],
    ) -> Result<(), StartError> {
        let node = identity.node;
        let content = content_of(self.retired, state).map_err(|error| StartError::Replay(error.to_string()))?;
        let (place, owner) = (directory.to_owned(), identity.clone());
        let store = tokio::task::spawn_blocking(move || Store::open(&place, &owner)).await;
        let store = store.map_err(|error| StartError::Replay(error.to_string()))??;
        let last = LogId { term: self.term, leader: node, index: self.index };
        let membership = Membership { configs: vec![vec![node]], nodes: vec![(node, info)] };
        let meta = SnapshotMeta { last: Some(last), membership_at: Some(last), membership };
        let write = async {
            store.save_snapshot(meta, content).await?;
            store.purge(last).await?;
            store.save_committed(Some(last)).await?;
            store.save_vote(Vote { term: last.term, leader: node, committed: true }).await
        };
        let written: Result<(), Arc<StoreError>> = write.await;
        store.close().await;
        written.map_err(|error| StartError::Replay(error.to_string()))
    }
}
