//! What steers a running proxy from any thread, and what a fleet asks of it: to build a configuration without using it, and to
//! report how it does. Building a configuration takes seconds where the topology is large: a caller on the control thread has that
//! done elsewhere, and goes on.

use super::Proxy;
use crate::admin::plan::{self, Scope};
use crate::ambient;
use crate::apply::control::Control;
use crate::apply::outcome::{Applied, ReloadError};
use crate::snapshot::Registry;
use ringway_config::model::Config;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Outlives the proxy, if it must: what is asked of one that has ended is refused, and changes nothing.
#[derive(Clone)]
pub struct Handle {
    control: Arc<Control>,
}

/// What a configuration would be, built and thrown away.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Ring digests by service; those that hash.
    pub rings: BTreeMap<String, u64>,
    /// Largest share of a service's key space that would move, 0 to 1.
    pub moved: f64,
}

/// How a proxy does.
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
    /// Those of them that got no response, or a 5xx.
    pub failed: u64,
}

impl Proxy {
    /// To steer it from another thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { control: Arc::clone(&self.control) }
    }
}

impl Handle {
    /// Reads the file again and applies it, on the caller's thread. Logged and counted inside.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub fn reload_blocking(&self) -> Result<Applied, ReloadError> {
        self.control.reload().0
    }

    /// Reads the file again and applies it, while everything else on the caller's runtime goes on. The outcome is logged and
    /// counted.
    pub async fn reload(&self) {
        let handle = self.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || drop(handle.reload_blocking())).await {
            tracing::error!(%error, "a reload has ended before its time");
        }
    }

    /// Opens the access log's file again, after it was renamed.
    pub fn reopen_logs(&self) {
        self.control.reopen_logs();
    }

    /// Builds a configuration as [`Proxy::apply`] would, and throws it away: rings, certificates, sockets that are not
    /// there yet. Nothing that serves is touched. Takes as long as a build does.
    ///
    /// # Errors
    /// What `apply` would say.
    pub fn prepare(&self, config: Config) -> Result<Prepared, ReloadError> {
        let control: &Control = &self.control;
        let current = control.current().load();
        let plan = plan::plan(&current.config, &config, Scope::Whole);
        // A registry of its own: what is tried leaves nothing behind in that of what serves.
        let snapshot = Registry::default().prepare(Arc::new(config), 0, control.workers(), ambient::now())?;
        control.try_bind(&snapshot.config)?;
        Ok(Prepared { rings: snapshot.ring_digests(), moved: plan.map_or(0.0, |plan| plan.moved()) })
    }

    /// How it does.
    #[must_use]
    pub fn report(&self) -> Report {
        let snapshot = self.control.current().load();
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
        let totals = self.control.request_totals();
        Report {
            generation: snapshot.generation,
            rings: snapshot.ring_digests(),
            down,
            requests: totals.iter().sum(),
            failed: totals[0] + totals[5],
        }
    }
}
