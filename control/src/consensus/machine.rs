//! The machine as the engine's state machine: in memory, rebuilt at boot from the newest snapshot and the log.
//!
//! Beside the machine's own state a snapshot holds the ids of removed members, so that no later change can give one
//! of them to another: a member that votes twice under one id could elect two leaders.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::{BufMut as _, Bytes};
use futures_util::{Stream, StreamExt as _};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use serde::{Deserialize, Serialize};

use super::convert;
use super::log::failed;
use super::replicated::{At, Machine, SnapshotWriter};
use super::types::{LogId, Membership, Proposal, Snapshot, SnapshotMeta, StoredMembership, Types};
use crate::store::{Store, record};

pub(super) type Raft = openraft::Raft<Types, StateMachine>;

/// Ids that were members once and are not any more.
pub(super) type Retired = Arc<RwLock<BTreeSet<u64>>>;

/// The first record of a snapshot's content, before the machine's bytes.
#[derive(Serialize, Deserialize)]
struct Head {
    retired: BTreeSet<u64>,
}

pub(super) struct StateMachine {
    machine: Box<dyn Machine>,
    store: Store,
    applied: Option<LogId>,
    membership: StoredMembership,
    retired: Retired,
}

impl StateMachine {
    pub(super) fn new(machine: Box<dyn Machine>, store: Store, retired: Retired) -> Self {
        Self { machine, store, applied: None, membership: StoredMembership::default(), retired }
    }

    fn apply_entry(
        &mut self,
        id: LogId,
        payload: EntryPayload<Proposal, u64, record::MemberInfo>,
    ) -> io::Result<Vec<u8>> {
        let answer = match payload {
            EntryPayload::Blank => Vec::new(),
            EntryPayload::Normal(Proposal(command)) => {
                let leader = id.committed_leader_id();
                let at = At { index: id.index(), term: leader.term, leader: leader.node_id };
                // A member that cannot apply an entry must stop: skipping it would make its state another one.
                let answer = catch_unwind(AssertUnwindSafe(|| self.machine.apply(at, &command)));
                let answer =
                    answer.map_err(|_| io::Error::other(format!("the machine panicked at entry {}", at.index)))?;
                answer.map_err(|halt| io::Error::other(format!("entry {}: {halt}", at.index)))?
            }
            EntryPayload::Membership(membership) => {
                self.retire(&membership);
                self.membership = StoredMembership::new(Some(id), membership);
                Vec::new()
            }
        };
        self.applied = Some(id);
        Ok(answer)
    }

    fn retire(&self, next: &Membership) {
        let gone = self.membership.membership().nodes().map(|(node, _)| *node);
        let gone = gone.filter(|node| next.get_node(node).is_none());
        self.retired.write().unwrap_or_else(PoisonError::into_inner).extend(gone);
    }

    /// Takes in the disk's newest snapshot and every entry behind it, committed or not, as a member that is elected would.
    /// Reads the disk: call it off the runtime's threads.
    pub(super) fn replay(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let newest = self.store.snapshot().map_err(|error| failed(&error))?;
        if let Some((meta, content)) = newest {
            self.restore(&content)?;
            let meta = convert::to_meta(meta).map_err(io::Error::other)?;
            (self.applied, self.membership) = (meta.last_log_id, meta.last_membership);
        }
        let next = self.applied.map_or(0, |id| id.index().saturating_add(1));
        for entry in self.store.entries(next.., usize::MAX) {
            let entry = convert::to_entry(&entry).map_err(io::Error::other)?;
            self.apply_entry(entry.log_id, entry.payload)?;
        }
        Ok((self.applied, self.membership.clone()))
    }

    fn restore(&mut self, content: &Bytes) -> io::Result<()> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the snapshot has no head");
        let (length, rest) = content.split_first_chunk::<4>().ok_or_else(malformed)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (head, state) = rest.split_at_checked(length).ok_or_else(malformed)?;
        let head: Head = record::decode(0, head).map_err(io::Error::other)?;
        let restored = catch_unwind(AssertUnwindSafe(|| self.machine.restore(state)));
        restored.map_err(|_| io::Error::other("the machine panicked at a snapshot"))?.map_err(io::Error::other)?;
        *self.retired.write().unwrap_or_else(PoisonError::into_inner) = head.retired;
        Ok(())
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let answer = self.apply_entry(entry.log_id, entry.payload)?;
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            store: self.store.clone(),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() },
            head: Head { retired: self.retired.read().unwrap_or_else(PoisonError::into_inner).clone() },
            state: Mutex::new(Some(self.machine.freeze())),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, content: Bytes) -> Result<(), io::Error> {
        self.restore(&content)?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let meta = convert::meta(meta);
        // At boot the engine installs what the store has given it.
        if self.store.snapshot_meta().as_ref() != Some(&meta) {
            self.store.save_snapshot(meta, content).await.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let store = self.store.clone();
        let read = self.store.off_runtime(move || store.snapshot()).await?;
        let Some((meta, snapshot)) = read.map_err(|error| failed(&error))? else { return Ok(None) };
        Ok(Some(Snapshot { meta: convert::to_meta(meta).map_err(io::Error::other)?, snapshot }))
    }
}

/// The state of one moment, serialised and saved off the path of `apply`.
pub(super) struct Builder {
    store: Store,
    meta: SnapshotMeta,
    head: Head,
    state: Mutex<Option<SnapshotWriter>>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        let state = state.ok_or_else(|| io::Error::other("the snapshot was built before"))?;
        let retired = self.head.retired.clone();
        let content = self.store.off_runtime(move || content_of(retired, &state().map_err(io::Error::other)?));
        let content = content.await??;
        let meta = convert::meta(&self.meta);
        self.store.save_snapshot(meta, content.clone()).await.map_err(|error| failed(&error))?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: content })
    }
}

/// A snapshot's content: ids that can never be a member's again, and the machine's bytes.
pub(super) fn content_of(retired: BTreeSet<u64>, state: &[u8]) -> io::Result<Bytes> {
    let head = record::encode(0, &Head { retired }).map_err(io::Error::other)?;
    let mut content = Vec::with_capacity(4 + head.len() + state.len());
    content.put_u32_le(u32::try_from(head.len()).unwrap_or(u32::MAX));
    content.extend_from_slice(&head);
    content.extend_from_slice(state);
    Ok(Bytes::from(content))
}
