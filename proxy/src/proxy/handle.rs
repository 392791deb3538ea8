//! What steers a running proxy from any thread, and what a fleet asks of it: to build a configuration without using it, and to
//! report how it does. Building a configuration takes seconds where the topology is large: a caller on the control thread has that
//! done elsewhere, and goes on.

use super::Proxy;
use crate::admin::plan::{self, Scope};
use crate::ambient;
use crate::apply::control::Control;
use crate::apply::outcome::{Applied, ReloadError};
use crate::snapshot::journal::Happening;
use crate::snapshot::{Registry, Snapshot};
use ringway_config::model::Config;
use std::collections::BTreeMap;
use std::path::Path;
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
        self.elsewhere(|handle| drop(handle.reload_blocking())).await;
    }

    /// The same, after a change of the file or of one that it names. What is in force already, because somebody has asked for it
    /// meanwhile, is not read once more.
    pub async fn follow(&self, file: &Path) {
        let file = file.to_owned();
        self.elsewhere(move |handle| handle.control.follow(&file)).await;
    }

    async fn elsewhere(&self, reload: impl FnOnce(&Self) + Send + 'static) {
        let handle = self.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || reload(&handle)).await {
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
        Ok(Prepared { rings: snapshot.agreed_digests(), moved: plan.map_or(0.0, |plan| plan.moved()) })
    }

    /// The version in force.
    pub(super) fn current(&self) -> Arc<Snapshot> {
        self.control.current().load()
    }

    /// Requests of a service that have ended.
    pub(super) fn service_requests(&self, service: &str) -> u64 {
        self.control.service_requests(service)
    }

    /// Keeps what a rollout has come to here, for an operator who comes late.
    pub fn note_rollout(&self, to: &'static str, text: String, keys: Vec<String>) {
        self.control.shared().journal.note(&Happening {
            kind: "rollout",
            to,
            text,
            changes: keys,
            ..Happening::default()
        });
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
            rings: snapshot.agreed_digests(),
            down,
            requests: totals.iter().sum(),
            failed: totals[0] + totals[5],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::ports::free_port;
    use crate::apply::source::Source;
    use crate::apply::testing;
    use ringway_health::{CheckFailure, Probe};

    fn text(port: u16, backends: &[&str]) -> String {
        let backend = |(index, id): (usize, &&str)| format!("{{ id: {id}, address: \"127.0.0.1:{}\" }}", index + 1);
        let backends: Vec<String> = backends.iter().enumerate().map(backend).collect();
        format!(
            "listeners: [ {{ name: l, address: \"127.0.0.1:{port}\", service: s }} ]\nservices:\n  - name: s\n\
             \x20   balance: {{ hash_key: [ {{ path: {{}} }} ] }}\n    health: {{ tcp: {{}}, fall: 1 }}\n    backends: [ {} ]\n",
            backends.join(", ")
        )
    }

    #[tokio::test]
    async fn what_is_prepared_is_known_by_its_rings_and_changes_nothing() {
        let (control, mut receivers) = testing::control(Source::Memory);
        let handle = Handle { control: Arc::new(control) };
        let (port, other) = (free_port(), free_port());
        handle.control.apply(testing::config(&text(port, &["a", "b"]))).unwrap();
        let before = handle.report();
        receivers.iter_mut().for_each(|receiver| while receiver.try_recv().is_ok() {});
        let same = handle.prepare(testing::config(&text(port, &["a", "b"]))).unwrap();
        assert_eq!((same.rings, same.moved), (before.rings.clone(), 0.0));
        let change = testing::config(&text(other, &["a", "b", "c"]));
        let prepared = handle.prepare(change.clone()).unwrap();
        assert!(prepared.moved > 0.1, "{}", prepared.moved);
        assert_eq!(handle.report(), before);
        assert!(receivers.iter_mut().all(|receiver| receiver.try_recv().is_err()));
        let taken = std::net::TcpListener::bind(("127.0.0.1", other)).unwrap();
        assert!(matches!(handle.prepare(change.clone()), Err(ReloadError::Bind(_))));
        drop(taken);
        handle.control.apply(change).unwrap();
        assert_eq!(handle.report().rings, prepared.rings, "as it was prepared");
    }

    #[tokio::test]
    async fn a_report_names_backends_that_are_seen_to_be_down() {
        let (control, _receivers) = testing::control(Source::Memory);
        let handle = Handle { control: Arc::new(control) };
        handle.control.apply(testing::config(&text(0, &["a", "b"]))).unwrap();
        assert_eq!(handle.report().down, []);
        let snapshot = handle.control.current().load();
        let failure = Probe::Failure(CheckFailure::Connect);
        snapshot.services[0].live.health().handle_probe("b", failure, ambient::now());
        assert_eq!(handle.report().down, [("s".to_owned(), "b".to_owned())]);
        assert_eq!(handle.report().generation, 1);
    }
}
