//! A member: what is asked of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::raft::ClientWriteResponse;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::machine::{Raft, Retired};
use super::options::Timing;
use super::outcome::{COMMAND_BYTES_MAX, Failure, ProposeError, Proposed, Read};
use super::status::{self, Status};
use super::to_end::to_end;
use super::types::{Proposal, Types};
use crate::store::Store;
use crate::store::record::MemberInfo;
use crate::transport::{self, Dialer};

/// Connections that are kept for questions: more than a cluster has members.
const PEERS_MAX: usize = 64;

/// A member. Cheap to clone; all clones are one member.
#[derive(Clone)]
pub struct Node {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) id: u64,
    pub(super) info: MemberInfo,
    pub(super) timing: Timing,
    pub(super) raft: Raft,
    pub(super) store: Store,
    pub(super) retired: Retired,
    /// By [`Node::stop`].
    pub(super) stopped: AtomicBool,
    /// One membership change of this member's at a time.
    pub(super) changing: tokio::sync::Mutex<()>,
    pub(super) heard: status::Heard,
    pub(super) status: watch::Receiver<Status>,
    pub(super) failure: watch::Receiver<Option<Failure>>,
    pub(super) server: Mutex<Option<transport::Server>>,
    pub(super) dialer: Arc<Dialer>,
    /// For [`Node::ask`]: connections to members, by id, with the address.
    pub(super) peers: Mutex<BTreeMap<u64, (String, Arc<transport::Peer>)>>,
    pub(super) tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

impl Node {
    /// Proposes a command; on return it is committed and applied here.
    ///
    /// Waits up to `Timing::decide`. What each error says about the command is told at [`ProposeError`].
    pub async fn propose(&self, command: Vec<u8>) -> Result<Proposed, ProposeError> {
        if command.is_empty() {
            return Err(ProposeError::Empty);
        }
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: command.len() });
        }
        self.running()?;
        let raft = self.inner.raft.clone();
        let write = to_end(async move { raft.client_write(Proposal(Bytes::from(command))).await });
        match timeout(self.inner.timing.decide, write).await {
            Ok(Some(Ok(ClientWriteResponse { log_id, data, .. }))) => {
                Ok(Proposed { index: log_id.index(), answer: data })
            }
            Ok(Some(Err(error))) => Err(self.write_error(error)),
            Ok(None) | Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// Makes a read of the machine linearizable: what was committed before the call is applied on return.
    ///
    /// Only on the leader; waits up to `Timing::decide`.
    pub async fn read_barrier(&self, policy: Read) -> Result<(), ProposeError> {
        let policy = match policy {
            Read::Index => ReadPolicy::ReadIndex,
            Read::Lease => ReadPolicy::LeaseRead,
        };
        let raft = self.inner.raft.clone();
        let read = to_end(async move { raft.ensure_linearizable(policy).await });
        match timeout(self.inner.timing.decide, read).await {
            Ok(Some(Ok(_))) => Ok(()),
            Ok(Some(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))))) => {
                Err(self.forward(forward))
            }
            Ok(Some(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))))) | Err(_) => {
                Err(ProposeError::Unavailable)
            }
            Ok(Some(Err(RaftError::Fatal(_))) | None) => Err(ProposeError::Stopped),
        }
    }

    /// Waits after a restart until the machine is as new as the disk's log says it was; until then local reads may
    /// go back in time. `false` when that takes longer than `within`: without a quorum it never comes.
    pub async fn recovered(&self, within: Duration) -> bool {
        let raft = self.inner.raft.clone();
        to_end(async move { raft.wait_for_recovery(Some(within)).await.is_ok() }).await == Some(true)
    }

    /// This member's view of the cluster at this moment.
    pub fn status(&self) -> Status {
        status::of(&self.inner.raft, &self.inner.heard, self.inner.timing.election_max)
    }

    /// The view as it changes; `quorum_age` alone does not count as a change.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Asks what is above consensus on another member, over the members' own authenticated connections.
    ///
    /// # Errors
    /// [`CallError::is_unsent`](transport::CallError::is_unsent) says whether it may be asked again without a second effect.
    pub async fn ask(
        &self,
        node: u64,
        info: &MemberInfo,
        question: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, transport::CallError> {
        let peer = {
            let mut peers = self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner);
            match peers.get(&node) {
                Some((address, peer)) if *address == info.peer_address => Arc::clone(peer),
                _ => {
                    // Members that have gone for good leave theirs behind.
                    if peers.len() >= PEERS_MAX {
                        peers.clear();
                    }
                    let dialer = Arc::clone(&self.inner.dialer);
                    let peer = Arc::new(transport::Peer::new(dialer, node, info.peer_address.clone()));
                    peers.insert(node, (info.peer_address.clone(), Arc::clone(&peer)));
                    peer
                }
            }
        };
        let answer: Bytes = peer.call(transport::Rpc::Ask, &Bytes::from(question), deadline).await?;
        Ok(answer.into())
    }

    /// How long writes of the log took, until they were on disk.
    #[must_use]
    pub fn disk_writes(&self) -> crate::store::latency::Latencies {
        self.inner.store.writes()
    }

    /// What the log and its snapshots take on disk, in bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> Option<u64> {
        self.inner.store.file_bytes()
    }

    /// Takes a snapshot now; it is on disk some time after the return, see [`Status::snapshot`].
    pub async fn snapshot(&self) -> Result<(), ProposeError> {
        let raft = self.inner.raft.clone();
        let begun = to_end(async move { raft.trigger().snapshot().await.is_ok() }).await;
        if begun == Some(true) { Ok(()) } else { Err(ProposeError::Stopped) }
    }

    /// Resolves when the disk or the engine has failed for good; never after [`Node::stop`].
    pub async fn failed(&self) -> Failure {
        let mut failure = self.inner.failure.clone();
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            // Stopped without a failure.
            _ => std::future::pending().await,
        }
    }

    /// Leaves the network, writes what is queued and closes the disk. Other clones answer `Stopped` from then on.
    ///
    /// Does not hand over: [`Node::transfer`] first spares the others an election.
    pub async fn stop(self) {
        self.inner.stopped.store(true, Ordering::Relaxed);
        let server = self.inner.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.stop().await;
        }
        let tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            // Aborted: the error says just that.
            let _ = task.await;
        }
        // An engine that has failed before says so here again.
        let raft = self.inner.raft.clone();
        let _ = to_end(async move { raft.shutdown().await }).await;
        self.inner.store.close().await;
    }

    /// What is asked of a member that has ended is certainly not proposed.
    pub(super) fn running(&self) -> Result<(), ProposeError> {
        let ended = self.inner.stopped.load(Ordering::Relaxed) || self.inner.failure.borrow().is_some();
        if ended { Err(ProposeError::Stopped) } else { Ok(()) }
    }

    pub(super) fn write_error(&self, error: RaftError<Types, ClientWriteError<Types>>) -> ProposeError {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => self.forward(forward),
            // Appended here and then lost to another leader, which may have it too; or the engine ended with it.
            RaftError::APIError(_) | RaftError::Fatal(_) => ProposeError::Unknown,
        }
    }

    fn forward(&self, forward: ForwardToLeader<Types>) -> ProposeError {
        match (forward.leader_id, forward.leader_node) {
            (Some(leader), Some(info)) if leader != self.inner.id => {
                ProposeError::NotLeader { leader: Some((leader, info)) }
            }
            _ if self.inner.raft.metrics().borrow_watched().state.is_leader() => ProposeError::Unavailable,
            _ => ProposeError::NotLeader { leader: None },
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}
