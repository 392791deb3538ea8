//! What everything on the control side shares: the snapshot in force, the workers' command channels, what is bound and written.

use super::access_log::AccessWriter;
use super::listeners::Listeners;
use super::log_change::LogChange;
use super::outcome::LastReload;
use super::overrides::{Overlaid, Overrides};
use super::scrapes::Scrapes;
use super::source::Source;
use super::topology::TopologySource;
use crate::ambient;
use crate::dispatcher::{Command, Shared};
use crate::snapshot::{Current, Registry};
use ringway_config::Origin;
use ringway_telemetry::Metrics;
use ringway_telemetry::traces::Exporter;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// How many may look at requests at once.
pub(super) const TAPS_MAX: usize = 4;

/// The control side of a running proxy.
pub(crate) struct Control {
    pub(super) current: Arc<Current>,
    pub(super) metrics: Metrics,
    pub(super) scrapes: Scrapes,
    pub(super) source: Source,
    pub(super) started: Instant,
    pub(super) draining: AtomicBool,
    pub(super) workers: usize,
    /// The address that the admin listener is bound to, if there is one.
    pub(super) admin: Option<SocketAddr>,
    /// When a refusal of the admin listener was last logged, and how many there have been since.
    pub(super) denials: Mutex<(Option<Instant>, u64)>,
    /// Gives the state of the topology, if there is a control plane.
    pub(super) topology: OnceLock<TopologySource>,
    pub(super) shared: Arc<Shared>,
    pub(super) registry: Registry,
    pub(super) commands: Vec<mpsc::UnboundedSender<Command>>,
    /// Of each worker, held by who waits for what it answers.
    pub(super) turns: Box<[tokio::sync::Mutex<()>]>,
    /// Held while a configuration is read and put into force, as long as that takes.
    changing: Mutex<()>,
    /// Runtime changes, and what the file has in their place. Held for moments, and changed by who holds `changing`.
    over: Mutex<(Overrides, Overlaid)>,
    /// The last change has taken services or backends away.
    pub(super) lost_some: AtomicBool,
    /// The task that takes back keys that are spread no longer.
    pub(super) spread_watch: Mutex<Option<tokio::task::AbortHandle>>,
    /// Places of those who look at requests at once.
    pub(super) tap_places: Arc<tokio::sync::Semaphore>,
    /// The last change of the log's filter.
    pub(super) log_change: Mutex<Option<LogChange>>,
    /// What the configuration in force was read from, if anybody has said it.
    pub(super) origin: Mutex<Option<Origin>>,
    /// Held for moments: the status is asked for while a configuration is built.
    state: Mutex<State>,
    pub(super) runtime: tokio::runtime::Handle,
}

pub(super) struct State {
    pub(super) listeners: Listeners,
    pub(super) last_reload: LastReload,
    pub(super) access: Option<AccessWriter>,
    pub(super) exporter: Option<Exporter>,
}

impl Control {
    /// Nothing is in force yet. Call it on the runtime that is to run the checks.
    pub(crate) fn new(
        shared: Arc<Shared>,
        commands: Vec<mpsc::UnboundedSender<Command>>,
        source: Source,
        metrics: Metrics,
        admin: Option<SocketAddr>,
    ) -> Self {
        Self {
            current: Arc::clone(&shared.current),
            metrics,
            scrapes: Scrapes::default(),
            source,
            started: ambient::now(),
            draining: AtomicBool::new(false),
            workers: shared.workers,
            admin,
            denials: Mutex::default(),
            topology: OnceLock::new(),
            registry: Registry::new(Arc::clone(&shared.journal)),
            shared,
            turns: commands.iter().map(|_| tokio::sync::Mutex::default()).collect(),
            commands,
            changing: Mutex::new(()),
            over: Mutex::default(),
            lost_some: AtomicBool::new(false),
            spread_watch: Mutex::default(),
            tap_places: Arc::new(tokio::sync::Semaphore::new(TAPS_MAX)),
            log_change: Mutex::default(),
            origin: Mutex::default(),
            state: Mutex::new(State {
                listeners: Listeners::default(),
                last_reload: LastReload::default(),
                access: None,
                exporter: None,
            }),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn over(&self) -> MutexGuard<'_, (Overrides, Overlaid)> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pointer to what is in force.
    pub(crate) fn current(&self) -> &Arc<Current> {
        &self.current
    }

    /// What all workers share.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Workers that carry traffic.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// Whether it is ending.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Requests of a service that have ended.
    pub(crate) fn service_requests(&self, service: &str) -> u64 {
        self.metrics.counters.service_requests(service)
    }

    /// Requests that have ended, by the class of their status.
    pub(crate) fn request_totals(&self) -> [u64; ringway_telemetry::counters::CLASSES] {
        self.metrics.counters.request_totals()
    }

    /// From now on, the status and the metrics say where the topology stands. Holds for the first caller.
    pub(crate) fn show_topology(&self, source: TopologySource) {
        // Set once: a second caller would be a mistake in the wiring, and changes nothing.
        let _ = self.topology.set(source);
    }

    /// The file that is read, if it is a file alone.
    pub(super) fn source_file(&self) -> Option<&std::path::Path> {
        match &self.source {
            Source::File(path) => Some(path),
            Source::Joined { .. } | Source::Memory => None,
        }
    }

    /// The address that a listener is bound to.
    pub(crate) fn address(&self, listener: &str) -> Option<SocketAddr> {
        let (state, snapshot) = (self.state(), self.current.load());
        state.listeners.addresses(&snapshot.config).get(listener).copied()
    }

    /// The configuration in force was read from these texts.
    pub(crate) fn show_origin(&self, origin: Origin) {
        *self.origin.lock().unwrap_or_else(PoisonError::into_inner) = Some(origin);
    }

    /// Opens the access log's file again.
    pub(crate) fn reopen_logs(&self) {
        if let Some(writer) = &self.state().access {
            writer.reopen();
        }
    }

    /// No change comes into force from here on: one that is still being built ends before, or sees that it comes too late.
    pub(crate) fn begin_end(&self) {
        self.draining.store(true, Relaxed);
        if let Some(watch) = self.spread_watch.lock().unwrap_or_else(PoisonError::into_inner).take() {
            watch.abort();
        }
    }

    /// Ends the access log and the exporter of spans, once the workers have gone.
    pub(crate) fn end(self: Arc<Self>, until: Instant) {
        let (writer, exporter) = {
            let mut state = self.state();
            self.shared.access.store(Arc::default());
            self.shared.spans.store(Arc::default());
            (state.access.take(), state.exporter.take())
        };
        drop(self);
        // The senders are gone: each does what it has, and ends.
        if writer.is_some_and(|writer| !writer.join(until)) {
            tracing::error!(
                "the last lines of the access log may be lost: what they are written to takes them too slowly, or a worker is stuck"
            );
        }
        if exporter.is_some_and(|exporter| !exporter.join(until)) {
            tracing::error!("the last spans may be lost: their collector takes them too slowly, or a worker is stuck");
        }
    }
}
