//! Proxies that have seen more than the cluster has: it was made anew from a backup that is older than what they follow.
//! The leader goes one epoch above what they report, and they follow. What they report may be a lie, so it moves the epoch
//! only so far and so often, whatever names it is told under.

use crate::state::{Command, State};
use crate::watch::wire::Heartbeat;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// One proxy moves the epoch once in this time.
const PROXY_PACE: Duration = Duration::from_secs(60);
/// All together once in this time,
const PACE: Duration = Duration::from_secs(1);
/// and so often within [`PROXY_PACE`]: whoever may speak for one proxy may give it many names. Each time every proxy takes the whole
/// topology again, and a rollout that is under way ends.
const MOVES_MAX: usize = 5;
/// How far above the cluster's epoch, and above the time, an epoch can be believed.
const LEAP_MAX: u64 = 1 << 20;

#[derive(Default)]
pub(super) struct Ahead {
    /// When each proxy moved the epoch last.
    moved: BTreeMap<String, Instant>,
    /// Proxies whose reports are not believed, for saying so once.
    doubted: BTreeSet<String>,
}

/// Whether a proxy of this cluster has what the cluster has not.
pub(super) fn is_ahead(state: &State, heartbeat: &Heartbeat) -> bool {
    let same = heartbeat.cluster.is_empty() || heartbeat.cluster == state.cluster;
    same && (heartbeat.epoch, heartbeat.revision) > (state.epoch, state.revision)
}

/// Epochs begin with the time in seconds: what is far above that, and above the cluster's own, none has had.
pub(super) fn is_credible(state: &State, epoch: u64, at_ms: u64) -> bool {
    epoch <= state.epoch.max(at_ms / 1000).saturating_add(LEAP_MAX)
}

impl Ahead {
    pub(super) fn handle<'a>(
        &mut self,
        state: &State,
        live: impl Iterator<Item = (&'a str, &'a Heartbeat)>,
        at_ms: u64,
        now: Instant,
    ) -> Option<Command> {
        self.moved.retain(|_, at| now - *at < PROXY_PACE);
        let mut found: Option<(&str, (u64, u64))> = None;
        let mut doubted = BTreeSet::new();
        for (name, heartbeat) in live.filter(|(_, heartbeat)| is_ahead(state, heartbeat)) {
            let seen = (heartbeat.epoch, heartbeat.revision);
            if !is_credible(state, heartbeat.epoch, at_ms) {
                if !self.doubted.contains(name) {
                    tracing::error!(
                        proxy = name,
                        epoch = heartbeat.epoch,
                        "a proxy reports an epoch that no cluster can have had: it is not followed"
                    );
                }
                doubted.insert(name.to_owned());
            } else if !self.moved.contains_key(name) && found.is_none_or(|(_, best)| seen > best) {
                found = Some((name, seen));
            }
        }
        self.doubted = doubted;
        let (name, seen) = found?;
        let last = self.moved.values().max();
        let too_often = last.is_some_and(|at| now - *at < PACE) || self.moved.len() >= MOVES_MAX;
        // Before rules, members do not know the command.
        if state.rules == 0 || too_often {
            return None;
        }
        tracing::warn!(
            proxy = name,
            epoch = seen.0,
            revision = seen.1,
            "a proxy is ahead of the cluster: the epoch is raised"
        );
        self.moved.insert(name.to_owned(), now);
        Some(Command::RaiseEpoch { seen, to: seen.0.max(state.epoch).saturating_add(1) })
    }
}
