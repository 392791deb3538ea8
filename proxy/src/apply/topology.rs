//! What a proxy that belongs to a fleet is asked besides carrying traffic: to build a configuration without using it, and to
//! say how it goes. The control plane itself is not known here: whoever runs the proxy brings its topology along with
//! [`Source::Joined`](crate::Source::Joined).

use crate::ambient;
use crate::apply::control::{Control, Proxy, ReloadError};
use crate::apply::handle::Handle;
use crate::snapshot::Registry;
use ringway_config::model::Config;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What a configuration would be, built and thrown away.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Ring digests by service; those that hash.
    pub rings: BTreeMap<String, u64>,
    /// Largest share of a service's key space that would move, 0 to 1.
    pub moved: f64,
}

/// How a proxy goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Number of the configuration in force.
    pub generation: u64,
    /// Ring digests by service; those that hash.
    pub rings: BTreeMap<String, u64>,
    /// Backends that take no traffic by this proxy's own observation: service and id.
    pub down: Vec<(String, String)>,
    /// Requests that have ended.
    pub requests: u64,
    /// Those of them that could not be answered, or were answered 5xx.
    pub failed: u64,
}

/// Where the topology stands, for the status and the metrics.
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
}

/// Asked at each status and scrape.
pub(crate) type TopologySource = Box<dyn Fn() -> TopologyStatus + Send + Sync>;

impl Handle {
    /// Builds a configuration as [`Proxy::apply`] would, and throws it away: rings, certificates, sockets that are not
    /// there yet. Nothing that serves is touched. Takes as long as a build does.
    ///
    /// # Errors
    /// What `apply` would say.
    pub fn prepare(&self, config: Config) -> Result<Prepared, ReloadError> {
        let control: &Control = &self.control;
        let current = control.current.load();
        let plan = crate::admin::plan::plan(&current.config, &config, crate::admin::plan::Scope::Whole);
        // A registry of its own: what is tried leaves nothing behind in that of what serves.
        let snapshot = Registry::default().prepare(Arc::new(config), 0, control.workers, ambient::now())?;
        control.try_bind(&snapshot.config)?;
        Ok(Prepared { rings: snapshot.ring_digests(), moved: plan.map_or(0.0, |plan| plan.moved()) })
    }

    /// How it goes.
    #[must_use]
    pub fn report(&self) -> Report {
        let snapshot = self.control.current.load();
        let now = ambient::now();
        let mut down = Vec::new();
        for service in &snapshot.services {
            let health = service.live.health();
            for backend in &service.backends {
                // Drained or not: what all have agreed to drain must still be seen to come back.
                let unhealthy = health.view(&backend.config.id, now).is_some_and(|view| !view.healthy);
                if unhealthy {
                    down.push((service.config.name.clone(), backend.config.id.clone()));
                }
            }
        }
        let totals = self.control.metrics.cells.request_totals();
        Report {
            generation: snapshot.generation,
            rings: snapshot.ring_digests(),
            down,
            requests: totals.iter().sum(),
            failed: totals[0] + totals[5],
        }
    }
}

impl Proxy {
    /// From now on, the status and the metrics say where the topology stands. Holds for the first caller.
    pub fn show_topology(&self, source: impl Fn() -> TopologyStatus + Send + Sync + 'static) {
        // Set once: a second caller would be a mistake in the wiring, and changes nothing.
        let _ = self.control.topology.set(Box::new(source));
    }

    /// Whether it is ending.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.control.draining.load(Relaxed)
    }
}

impl TopologyStatus {
    pub(crate) fn json(&self) -> Value {
        json!({
            "source": self.source, "proxy": self.proxy, "cluster": self.cluster, "epoch": self.epoch,
            "revision": self.revision, "digest": self.digest, "age_seconds": self.age.map(|age| age.as_secs_f64()),
            "member": self.member, "error": self.error, "stuck": self.stuck, "canary": self.canary,
        })
    }
}
