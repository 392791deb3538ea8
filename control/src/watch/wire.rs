//! What members tell proxies, as lines of JSON. Fields are only ever added.

use crate::loads::{Confirmed, Position, TablesLine};
use crate::state::{Change, Key, Object, Revision, Rollout, State, Vote};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A line of the watch stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Everything: the first line, and again whenever changes alone will not do.
    Snapshot(Snapshot),
    /// What is different from the revision before.
    Delta(Delta),
    /// The change that is under way, or that none is.
    Rollout(Option<RolloutView>),
    /// Nothing has changed.
    Ping(Ping),
    /// Tables of loads; to those that have asked for them.
    Loads(TablesLine),
    /// That these hold still; likewise.
    LoadsConfirmed(Confirmed),
}

/// The topology at one revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The cluster's name.
    pub cluster: String,
    /// Revisions of different epochs are not comparable.
    pub epoch: u64,
    /// Counts changes.
    pub revision: u64,
    /// Of all objects, as text.
    pub digest: String,
    /// Everything that the fleet has agreed on.
    pub objects: Arc<BTreeMap<Key, Arc<Object>>>,
    /// The change that is under way.
    pub rollout: Option<RolloutView>,
    /// When the revision was made, in Unix milliseconds, by the clock of the member that proposed it. `None`: it is not known any more, or an
    /// earlier version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
}

/// When a state's revision was made.
pub(super) fn made_at(state: &State) -> Option<u64> {
    state.history.get(&state.revision).map(|revision| revision.at_ms)
}

impl Snapshot {
    /// Of a state.
    #[must_use]
    pub fn of(state: &State) -> Self {
        Self {
            cluster: state.cluster.clone(),
            epoch: state.epoch,
            revision: state.revision,
            digest: state.digest.to_string(),
            objects: Arc::new(
                state.objects.iter().map(|(key, entry)| (key.clone(), Arc::clone(&entry.object))).collect(),
            ),
            rollout: state.rollout().map(RolloutView::of),
            at_ms: made_at(state),
        }
    }
}

/// From one revision to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// The cluster's epoch.
    pub epoch: u64,
    /// It is a change of this revision.
    pub previous: u64,
    /// It makes this one.
    pub revision: u64,
    /// Of all objects after it.
    pub digest: String,
    /// Objects as they are now.
    pub changes: Vec<Replaced>,
    /// As in [`Snapshot::at_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
}

/// An object as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replaced {
    /// Which.
    pub key: Key,
    /// `None`: it has gone.
    pub object: Option<Arc<Object>>,
}

impl Replaced {
    /// Of a change.
    #[must_use]
    pub fn of(change: &Change) -> Self {
        Self { key: change.key.clone(), object: change.after.clone() }
    }
}

/// A change that proxies prepare, or that holds for some of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutView {
    /// Its number.
    pub id: u64,
    /// It holds for proxies whose hash lies below, in percent of all hashes: see [`Rollout::threshold`].
    pub percent: u8,
    /// Objects as they will be.
    pub changes: Vec<Replaced>,
}

impl RolloutView {
    /// Of a rollout that is under way.
    #[must_use]
    pub fn of(rollout: &Rollout) -> Self {
        Self {
            id: rollout.id,
            percent: rollout.threshold(),
            changes: rollout.changes.iter().map(Replaced::of).collect(),
        }
    }
}

/// A heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// The member's revision.
    pub revision: u64,
    /// Milliseconds since the member last heard of a leader that a quorum follows; `None`: never.
    pub leader_age_ms: Option<u64>,
    /// The member's cluster; empty: an earlier version does not say.
    #[serde(default)]
    pub cluster: String,
    /// The member's epoch; 0: an earlier version does not say.
    #[serde(default)]
    pub epoch: u64,
    /// The member's digest, as text; empty: an earlier version does not say.
    #[serde(default)]
    pub digest: String,
}

impl Ping {
    /// Of a state.
    #[must_use]
    pub fn of(state: &State, leader_age_ms: Option<u64>) -> Self {
        Self {
            revision: state.revision,
            leader_age_ms,
            cluster: state.cluster.clone(),
            epoch: state.epoch,
            digest: state.digest.to_string(),
        }
    }
}

/// What a proxy tells of itself, every two seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Its version.
    pub version: String,
    /// Epoch of what is in force there.
    pub epoch: u64,
    /// Revision of what is in force there.
    pub revision: u64,
    /// Its objects' digest.
    pub digest: String,
    /// Ring digests of the services that the fleet names.
    pub rings: BTreeMap<String, String>,
    /// What it cannot put into force, and why.
    pub stuck: Option<String>,
    /// Its generation.
    pub generation: u64,
    /// Its vote on the rollout with this number.
    pub vote: Option<(u64, Vote)>,
    /// Registered backends that it sees down.
    pub down: Vec<Key>,
    /// Requests that have ended since it started.
    pub requests: u64,
    /// Those of them that it could not serve, or that were answered 5xx.
    pub failed: u64,
    /// It has the change of the rollout with this number in force.
    pub canary: Option<u64>,
    /// Drawn when its process started: what one process says does not undo what its successor has said. 0: not told.
    #[serde(default)]
    pub instance: u64,
    /// The cluster that its topology is of; empty: it has none, or is of an earlier version.
    #[serde(default)]
    pub cluster: String,
}

/// A proxy as the control plane sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProxyView {
    /// Its name in the fleet.
    pub name: String,
    /// What it told last.
    pub heartbeat: Heartbeat,
    /// Milliseconds since.
    pub age_ms: u64,
    /// `synced`, `behind`, `ahead`, `drifted`, `stuck` or `offline`.
    pub state: Cow<'static, str>,
    /// For how many milliseconds it has stood so, as far as the leader has seen; `None`: an earlier version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// How it reports its loads; `None`: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loads: Option<ProxyLoads>,
}

/// How a proxy reports the loads that it sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyLoads {
    /// Milliseconds since it has.
    pub age_ms: u64,
    /// Of so many services.
    pub services: usize,
    /// The table by which it goes.
    pub holds: Option<Position>,
    /// Why a report was refused lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// The fleet as a page shows it: what many proxies have in common is said once, for a thousand rings of each of them are much.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetBrief {
    /// By name; without their rings, and without what they see down.
    pub proxies: Vec<ProxyView>,
    /// Which of `rings` each of them has, in their order. `None`: it is not of the fleet's revision, not there, or ahead of the others
    /// with a rollout.
    pub kinds: Vec<Option<u64>>,
    /// Rings, by what their names and digests hash to; as many as differ, within a bound.
    pub rings: BTreeMap<u64, BTreeMap<String, String>>,
    /// Backends that proxies see down, and how many do; within a bound.
    pub down: Vec<(Key, usize)>,
    /// Services whose backends do not expire although they should, because they are too many, and how many.
    pub frozen: BTreeMap<String, usize>,
    /// What has become of proxies lately, oldest first; of this leader.
    pub events: Vec<ProxyEvent>,
}

/// What has become of a proxy, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyEvent {
    /// Counts them; of one leader.
    pub number: u64,
    /// Unix milliseconds, by the leader's clock.
    pub at_ms: u64,
    /// Its name in the fleet.
    pub proxy: String,
    /// `came`, `left`, or how it stands: see [`ProxyView::state`].
    pub what: Cow<'static, str>,
    /// Why, in words.
    pub why: String,
}

/// A revision, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevisionView {
    /// Its number.
    pub revision: u64,
    /// Who, when, why, and what.
    #[serde(flatten)]
    pub change: Revision,
}
