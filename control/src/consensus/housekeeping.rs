//! What a member does without being asked: tells of failures, hands over when its disk hangs, finishes membership
//! changes that a lost leader left half done.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::machine::Raft;
use super::node::{Inner, Node};
use super::outcome::Failure;
use super::status::{Role, Status};
use super::types::LogId;
use crate::store::Store;
use ringway_places::Places;

/// A leader whose disk takes longer for one write hands over: writes would go on through the other members' disks,
/// but each would wait for it the moment one of those is lost.
const STALL_MAX: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(250);
/// A successor gets this long before another is asked.
const TRANSFER_INTERVAL: Duration = Duration::from_secs(5);

/// Tells of the first failure, with the disk's own words where it was the disk.
pub(super) async fn report(raft: Raft, store: Store, sender: watch::Sender<Option<Failure>>) {
    let mut metrics = raft.metrics();
    let failure = tokio::select! {
        biased;
        error = store.failed() => Failure::Store(error),
        failure = async {
            loop {
                let running = metrics.borrow_and_update().running_state.clone();
                if let Err(error) = running {
                    break Failure::Engine(error.to_string());
                }
                if metrics.changed().await.is_err() {
                    break Failure::Engine("it ended without a reason".to_owned());
                }
            }
        } => failure,
    };
    tracing::error!(%failure, "this member cannot go on");
    sender.send_replace(Some(failure));
}

/// Where members are is looked up again this often, and a name takes this long at most.
const KNOW_EVERY: Duration = Duration::from_secs(30);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps places on the listener for the members: by the addresses that the membership names.
pub(super) async fn know(mut status: watch::Receiver<Status>, places: Arc<Places>) {
    loop {
        let members = |status: &Status| -> BTreeSet<String> {
            status.voters.iter().chain(&status.learners).map(|member| member.info.peer_address.clone()).collect()
        };
        let named = members(&status.borrow_and_update());
        let mut known = HashSet::new();
        for address in &named {
            match timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(address.as_str())).await {
                Ok(Ok(found)) => known.extend(found.map(|address| address.ip())),
                Ok(Err(error)) => tracing::debug!(%error, address, "a member's address is not found"),
                Err(_) => tracing::debug!(address, "a member's address takes long to find"),
            }
        }
        places.know(known);
        let changed = status.wait_for(|status| members(status) != named);
        if matches!(timeout(KNOW_EVERY, changed).await.map(|changed| changed.is_err()), Ok(true)) {
            return;
        }
    }
}

/// Looks after a leader until its member is gone.
pub(super) async fn watch(inner: Weak<Inner>) {
    let mut transferred: Option<Instant> = None;
    let mut joint: Option<(LogId, Instant)> = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(node) = inner.upgrade().map(|inner| Node { inner }) else { return };
        let status = node.status();
        if status.role != Role::Leader {
            joint = None;
            continue;
        }
        let stalled = node.inner.store.stalled();
        if stalled > STALL_MAX && transferred.is_none_or(|at| at.elapsed() > TRANSFER_INTERVAL) {
            let others = status.voters.iter().filter(|voter| voter.node != status.id);
            if let Some(successor) = others.min_by_key(|voter| voter.lag.unwrap_or(u64::MAX)) {
                tracing::warn!(?stalled, to = successor.node, "the disk hangs; handing over");
                transferred = Some(Instant::now());
                // The engine has stopped where this fails, which is reported elsewhere.
                let _ = node.hand_to(successor.node).await;
            }
        }
        joint = node.finish_joint(joint).await;
    }
}

impl Node {
    /// Finishes a joint change that has stood still for longer than any change of a living leader takes.
    async fn finish_joint(&self, seen: Option<(LogId, Instant)>) -> Option<(LogId, Instant)> {
        let stored = self.inner.raft.metrics().borrow_watched().committed_membership_config.clone();
        let at = (*stored.log_id()).filter(|_| stored.membership().get_joint_config().len() > 1)?;
        let since = seen.filter(|(id, _)| *id == at).map_or_else(Instant::now, |(_, since)| since);
        if since.elapsed() > self.inner.timing.election_max * 4
            && let Ok(_changing) = self.inner.changing.try_lock()
        {
            tracing::warn!(index = at.index(), "finishing a membership change that a former leader began");
            if let Err(error) = self.flatten().await {
                tracing::warn!(%error, "the change is not finished yet");
            }
            return None;
        }
        Some((at, since))
    }
}
