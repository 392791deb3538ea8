//! The state of the topology, for the status and the metrics. The control plane itself is not known here: the caller that runs the
//! proxy brings its topology along with [`Source::Joined`](crate::Source::Joined).

use serde_json::{Value, json};
use std::time::Duration;

/// Where the topology stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopologyStatus {
    /// `control plane`, `etcd`, `disk` or `none`.
    pub source: &'static str,
    /// This proxy's name in the fleet.
    pub proxy: String,
    /// The cluster's name.
    pub cluster: String,
    /// Revisions of different epochs are not comparable.
    pub epoch: u64,
    /// Of what is in force.
    pub revision: u64,
    /// Of the objects in force.
    pub digest: String,
    /// Since the control plane was heard of.
    pub age: Option<Duration>,
    /// The member that is followed.
    pub member: Option<String>,
    /// Why none is.
    pub error: Option<String>,
    /// What cannot be put into force, and why.
    pub stuck: Option<String>,
    /// The rollout whose change is in force here before it is for all.
    pub canary: Option<u64>,
    /// What the control plane has said last; `None`: nothing yet.
    pub published: Option<Published>,
}

/// A topology as the control plane has published it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Published {
    /// Revisions of different epochs are not comparable.
    pub epoch: u64,
    /// Its revision.
    pub revision: u64,
    /// Of its objects.
    pub digest: String,
}

/// Asked at each status and scrape.
pub(crate) type TopologySource = Box<dyn Fn() -> TopologyStatus + Send + Sync>;

impl TopologyStatus {
    pub(crate) fn json(&self) -> Value {
        json!({
            "source": self.source, "proxy": self.proxy, "cluster": self.cluster, "epoch": self.epoch,
            "revision": self.revision, "digest": self.digest, "age_seconds": self.age.map(|age| age.as_secs_f64()),
            "member": self.member, "error": self.error, "stuck": self.stuck, "canary": self.canary,
            "published": self.published.as_ref().map(|published| json!({
                "epoch": published.epoch, "revision": published.revision, "digest": published.digest,
            })),
        })
    }
}
