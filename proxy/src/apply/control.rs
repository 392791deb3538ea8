//! The control side: starts the workers, applies configurations all or nothing, drains.

use crate::admin;
use crate::admin::status::LastReload;
use crate::ambient;
use crate::apply::bind::{self, Place};
use crate::apply::files;
use crate::apply::health_driver;
use crate::apply::topology::TopologySource;
use crate::dispatcher::{
    AccessSink, Command, Fullness, GateKey, GateKind, Listening, Occupancy, PerIp, Places, Shared,
};
use crate::net::shortage::{PER_CONNECTION, Shortage};
use crate::net::transport::Network;
use crate::run::Crew;
use crate::snapshot::shadow::group_of;
use crate::snapshot::{Current, Registry, Service, ServiceLive, Snapshot, SnapshotError};
use ringway_config::model::{self, AccessLogFormat, Config, LogTarget};
use ringway_config::{Diagnostic, Diagnostics, Diff, Loaded, diff};
use ringway_ring::{Movement, Published, group_movement};
use ringway_telemetry::{Metrics, access, catalogue};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// Flows of keys that the log of a reload names; the plan names all.
const FLOWS_LOGGED: usize = 8;

/// Hears what has come of a configuration: the digests of the rings that are in force now, or why it is refused.
type Told = dyn Fn(Result<BTreeMap<String, u64>, &ReloadError>) + Send + Sync;

/// Where configurations come from.
pub enum Source {
    /// A file, read again on each reload.
    File(PathBuf),
    /// A file and what a fleet has agreed on, joined anew on each reload.
    Joined {
        /// Joins them.
        load: Box<dyn Fn() -> Result<Loaded, Diagnostics> + Send + Sync>,
        /// Told what has come of the last `load`, before there is another.
        told: Box<Told>,
    },
    /// Made in memory: it cannot be reloaded from outside.
    Memory,
}

/// A running proxy: its workers' threads, and the handle to steer them.
pub struct Proxy {
    pub(crate) control: Arc<Control>,
    crew: Crew,
}

/// What everybody on the control side shares.
pub(crate) struct Control {
    pub(crate) current: Arc<Current>,
    pub(crate) metrics: Metrics,
    pub(crate) source: Source,
    pub(crate) started: Instant,
    pub(crate) draining: AtomicBool,
    pub(crate) workers: usize,
    /// Where the admin listener is bound to, if there is one.
    pub(crate) admin: Option<SocketAddr>,
    /// Says where the topology stands, if there is a control plane.
    pub(crate) topology: OnceLock<TopologySource>,
    shared: Arc<Shared>,
    registry: Registry,
    commands: Vec<mpsc::UnboundedSender<Command>>,
    /// Held by whoever reads a configuration and puts it into force, as long as that takes.
    changing: Mutex<()>,
    /// Held for moments: the status is asked for while a configuration is built.
    state: Mutex<State>,
    runtime: tokio::runtime::Handle,
}

struct State {
    /// Listeners that are bound.
    bound: HashMap<GateKey, Bound>,
    /// Those that were, and whose sockets may still be open: they are closed once their queues are empty.
    going: Vec<Bound>,
    last_reload: LastReload,
    access: Option<AccessWriter>,
}

/// The access log's writer.
struct AccessWriter {
    thread: JoinHandle<()>,
    reopen: access::Reopen,
}

/// Where a listener really is.
#[derive(Clone)]
struct Bound {
    place: Place,
    /// Held by whoever accepts from one of its sockets.
    open: Weak<()>,
    /// Its places.
    seats: Arc<Places>,
}

/// Where a new listener's sockets come from.
enum Sockets {
    /// They were bound for it, one a worker.
    Fresh(Place, Vec<Listening>),
    /// They are those of this listener, which goes. A socket that was closed would take with it what the kernel has queued, and
    /// what is on its way into that queue.
    Of(GateKey),
}

/// Why a proxy does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A thread cannot be started.
    #[error("start a worker: {0}")]
    Thread(#[source] std::io::Error),
    /// The first configuration cannot be put to work.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// The admin listener's address cannot be bound.
    #[error("{0}")]
    Admin(Box<Diagnostic>),
}

/// Why a configuration is not applied. Nothing has changed.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error("{0}")]
    Invalid(Diagnostics),
    /// A ring cannot be built.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Addresses of listeners cannot be bound.
    #[error("{0}")]
    Bind(Diagnostics),
    /// The access log cannot be opened.
    #[error("open the access log {target}: {source}")]
    AccessLog {
        /// The file.
        target: String,
        /// Why.
        source: std::io::Error,
    },
    /// This proxy was not started from a file.
    #[error("this proxy has no configuration file to reload")]
    NoFile,
    /// The proxy is ending.
    #[error("the proxy is draining")]
    Draining,
}

/// A configuration that is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Its number.
    pub generation: u64,
    /// What it changed; empty if it was in force already.
    pub diff: Diff,
    /// What moved of each changed service's key space.
    pub moved: Vec<(String, Movement)>,
}

impl Proxy {
    /// Starts the workers and puts a configuration into force. Call it on the runtime that is to run the checks and the
    /// admin listener.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(config: Config, source: Source, metrics: Metrics) -> Result<Self, StartError> {
        let workers = match config.process.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let empty = Arc::new(Config { listeners: Vec::new(), services: Vec::new(), ..config.clone() });
        let current = Arc::new(Published::new(Arc::new(Snapshot::empty(Arc::clone(&empty)))));
        let shared = Arc::new(Shared {
            current: Arc::clone(&current),
            cells: Arc::clone(&metrics.cells),
            network: Network::Kernel,
            started: ambient::now(),
            secret: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8),
            instance: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 1_u8),
            shortage: Shortage::new(Arc::clone(&metrics.cells)),
            per_ip: PerIp::default(),
            workers,
            occupancy: Arc::new(Occupancy::new(workers)),
            commands: OnceLock::new(),
            access: Arc::default(),
        });
        let crew = Crew::start(&shared).await.map_err(StartError::Thread)?;
        let control = Arc::new(Control {
            current,
            metrics,
            source,
            started: ambient::now(),
            draining: AtomicBool::new(false),
            workers,
            admin: config.admin.as_ref().map(|admin| admin.address),
            topology: OnceLock::new(),
            shared,
            registry: Registry::default(),
            commands: crew.commands(),
            changing: Mutex::new(()),
            state: Mutex::new(State {
                bound: HashMap::new(),
                going: Vec::new(),
                last_reload: LastReload::default(),
                access: None,
            }),
            runtime: tokio::runtime::Handle::current(),
        });
        let admin = match &config.admin {
            Some(section) => {
                let bind = tokio::net::TcpListener::bind(section.address).await;
                Some(bind.map_err(|error| {
                    let what = format!("the admin listener to {}", section.address);
                    StartError::Admin(Box::new(bind::finding(&section.site, &what, section.address, &error)))
                })?)
            }
            None => None,
        };
        control.apply(config)?;
        // Counters that alerts are written for are there from the start.
        for result in ["applied", "unchanged", "refused"] {
            metrics::counter!(catalogue::RELOADS.name, "result" => result).absolute(0);
        }
        metrics::gauge!(catalogue::RELOAD_LAST_OK.name).set(1.0);
        tokio::spawn(files::watch_ends(Arc::clone(&control.current)));
        if let Some(socket) = admin {
            tokio::spawn(admin::serve(Arc::clone(&control), socket));
        }
        Ok(Self { control, crew })
    }

    /// Puts a configuration into force: all of it, or nothing.
    ///
    /// # Errors
    /// See [`ReloadError`]; what was in force stays, untouched.
    pub fn apply(&self, config: Config) -> Result<Applied, ReloadError> {
        self.control.apply(config)
    }

    /// A function that gives the files which the configuration in force names: certificates, keys, authorities.
    pub fn files(&self) -> impl Fn() -> Vec<PathBuf> + Send + Sync + 'static {
        let current = Arc::clone(&self.control.current);
        move || current.load().config.files().into_iter().map(Into::into).collect()
    }

    /// The address that a listener is bound to.
    #[must_use]
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.control.bound().get(listener).copied()
    }

    /// Is ready no longer, and after the configured delay stops accepting, lets requests end, for at most the configured time.
    /// `true`: all have ended.
    pub async fn drain(&self) -> bool {
        self.control.drain().await
    }

    /// Ends the workers, whatever they carry.
    pub fn stop(self) {
        let Self { control, crew } = self;
        control.draining.store(true, Relaxed);
        drop(crew);
        let writer = {
            // A change that is still being built ends before, or sees that it comes too late.
            let mut state = control.state();
            control.shared.access.store(Arc::default());
            state.access.take()
        };
        drop(control);
        if let Some(writer) = writer {
            // Its senders are gone: it writes what it has and ends.
            let _ = writer.thread.join();
        }
    }
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the access log's file again.
    pub(crate) fn reopen_logs(&self) {
        if let Some(writer) = &self.state().access {
            writer.reopen.ask();
        }
    }

    pub(crate) fn last_reload(&self) -> LastReload {
        self.state().last_reload.clone()
    }

    /// Bound addresses by listener name.
    pub(crate) fn bound(&self) -> HashMap<String, SocketAddr> {
        let (state, snapshot) = (self.state(), self.current.load());
        let listeners = snapshot.config.listeners.iter();
        let known =
            |listener: &model::Listener| state.bound.get(&GateKey::of(listener)).map(|bound| bound.place.address);
        listeners.filter_map(|listener| Some((listener.name.clone(), known(listener)?))).collect()
    }

    /// How full each listener is.
    pub(crate) fn fullness(&self, now: Instant) -> HashMap<String, Fullness> {
        let (state, snapshot) = (self.state(), self.current.load());
        let listeners = snapshot.config.listeners.iter();
        let known = |listener: &model::Listener| Some(state.bound.get(&GateKey::of(listener))?.seats.fullness(now));
        listeners.filter_map(|listener| Some((listener.name.clone(), known(listener)?))).collect()
    }

    /// Reads the file again and applies it. What comes of it is logged, counted and kept for the status; that nothing has
    /// changed does not hide the change before, but it ends a refusal. Takes as long as a build does.
    pub(crate) fn reload(&self) -> (Result<Applied, ReloadError>, LastReload) {
        // Read and applied as one: of two at a time, the one that has read last is the one that holds.
        let changing = self.changing();
        let loaded = match &self.source {
            Source::Memory => Err(ReloadError::NoFile),
            Source::File(path) => {
                ringway_config::load_file(path).and_then(files::verified).map_err(ReloadError::Invalid)
            }
            Source::Joined { load, .. } => load().map_err(ReloadError::Invalid),
        };
        let result = loaded.and_then(|loaded| {
            for warning in &loaded.warnings {
                tracing::warn!(code = warning.code, line = warning.line, "{}", warning.message);
            }
            self.put(loaded.config, &changing)
        });
        if let Source::Joined { told, .. } = &self.source {
            told(result.as_ref().map(|_| self.current.load().ring_digests()));
        }
        drop(changing);
        let label = match &result {
            Ok(applied) if applied.diff.is_empty() => "unchanged",
            Ok(_) => "applied",
            Err(_) => "refused",
        };
        metrics::counter!(catalogue::RELOADS.name, "result" => label).increment(1);
        metrics::gauge!(catalogue::RELOAD_LAST_OK.name).set(if result.is_ok() { 1.0 } else { 0.0 });
        match &result {
            Ok(applied) if applied.diff.is_empty() => {
                tracing::info!(generation = applied.generation, "configuration unchanged")
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "configuration refused: what was in force stays"),
        }
        let told = LastReload::new(label, &result);
        let mut state = self.state();
        if label != "unchanged" || !state.last_reload.was_applied() {
            state.last_reload = told.clone();
        }
        drop(state);
        (result, told)
    }

    fn apply(&self, config: Config) -> Result<Applied, ReloadError> {
        self.put(config, &self.changing())
    }

    /// One change at a time: the lock is held before and after.
    fn put(&self, config: Config, _changing: &MutexGuard<'_, ()>) -> Result<Applied, ReloadError> {
        if self.draining.load(Relaxed) {
            return Err(ReloadError::Draining);
        }
        let old = self.current.load();
        // A shadow is read from a file of its own, which may have changed where this one has not.
        let same_files = crate::net::tls::digest(&config) == old.files_digest;
        if *old.config == config && old.generation > 0 && config.shadow.is_none() && same_files {
            return Ok(Applied { generation: old.generation, diff: Diff::default(), moved: Vec::new() });
        }
        let mut changes = diff(&old.config, &config);
        if old.generation > 0 && !same_files {
            changes.changes.push("certificates changed".into());
        }
        let now = ambient::now();

        // Prepare: may fail, touches nothing that serves.
        let generation = old.generation + 1;
        let snapshot = self.registry.prepare(Arc::new(config), generation, self.workers, now)?;
        let config = Arc::clone(&snapshot.config);
        if *old.config == *snapshot.config && old.generation > 0 && same_shadow(&old, &snapshot) && same_files {
            return Ok(Applied { generation: old.generation, diff: Diff::default(), moved: Vec::new() });
        }
        let moved = movements(&old, &snapshot);
        let access = self.prepare_access(&old, &config)?;
        let mut state = self.state();
        // It may have begun while this was built.
        if self.draining.load(Relaxed) {
            return Err(ReloadError::Draining);
        }
        let sockets = self.bind_new(&state, &config)?;
        // The last that may fail: whoever connects to a socket that listens and is closed again would be reset.
        listen(&config, &sockets)?;

        // Commit: cannot fail.
        for (name, movement) in &moved {
            if let Some(service) = snapshot.service(name) {
                *service.live.moved.lock().unwrap_or_else(PoisonError::into_inner) = (movement.moved, generation);
            }
        }
        let snapshot = Arc::new(snapshot);
        self.registry.commit(&snapshot, now);
        let gone: Vec<Arc<Service>> = old.services.iter().map(Arc::clone).collect();
        self.current.store(Arc::clone(&snapshot));
        let happened = self.registry.settle(&snapshot);
        for (service, events) in &happened {
            // Who waits for room looks among the new backends too.
            service.live.wake_all();
            crate::snapshot::health_events::publish(service, events);
        }
        self.reconcile_listeners(&mut state, &config, sockets);
        self.hold_against_descriptors(&old.config, &config, old.generation == 0);
        if let Some((sink, writer)) = access {
            self.shared.access.store(Arc::new(sink));
            // The old writer ends by itself when the workers have dropped their ends.
            state.access = writer;
        }
        self.reconcile_drivers(&gone);
        let current = self.current.load();
        self.metrics.cells.retain(
            |name| current.service(name).is_some(),
            |name, id| current.service(name).is_some_and(|service| service.slot_of(id).is_some()),
        );
        tracing::info!(generation, changes = %changes, "configuration applied");
        for (service, movement) in &moved {
            let flows: Vec<String> = movement
                .moves
                .iter()
                .take(FLOWS_LOGGED)
                .map(|flow| format!("{} -> {} {:.2} %", flow.from, flow.to, flow.share * 100.0))
                .collect();
            tracing::info!(%service, moved_percent = movement.moved * 100.0, flows = flows.join(", "), "keys have moved");
        }
        Ok(Applied { generation, diff: changes, moved })
    }

    /// Whether the listeners that are not there yet could be bound.
    pub(crate) fn try_bind(&self, config: &Config) -> Result<(), ReloadError> {
        self.bind_new(&self.state(), config).map(drop)
    }

    /// Sockets for listeners that are not there yet: those of one that goes and stood in the same place, or one a worker.
    fn bind_new(&self, state: &State, config: &Config) -> Result<Vec<(GateKey, Sockets)>, ReloadError> {
        let (mut sockets, mut wrong) = (Vec::new(), Vec::new());
        for listener in &config.listeners {
            let key = GateKey::of(listener);
            if state.bound.contains_key(&key) {
                continue;
            }
            // Addresses are unique: who stands in the same place goes.
            if let Some(from) = state.bound.keys().find(|known| known.shares_sockets(&key)) {
                sockets.push((key, Sockets::Of(from.clone())));
                continue;
            }
            let place = Place { address: listener.address, v6_only: listener.v6_only, udp: key.kind == GateKind::Udp };
            let fresh = sockets.iter().filter_map(|(_, sockets)| match sockets {
                Sockets::Fresh(place, _) => Some(place),
                Sockets::Of(_) => None,
            });
            let going = state.going.iter().filter(|bound| bound.open.strong_count() > 0);
            let known = state.bound.values().chain(going).map(|bound| &bound.place);
            let ours = known.chain(fresh).any(|known| known.overlaps(&place));
            match bind::bind(place, self.workers, ours) {
                Ok((place, list)) => sockets.push((key, Sockets::Fresh(place, list))),
                Err(error) => {
                    let what = format!("listener {:?} to {}", listener.name, listener.address);
                    wrong.push(bind::finding(&listener.site, &what, listener.address, &error));
                }
            }
        }
        if wrong.is_empty() { Ok(sockets) } else { Err(ReloadError::Bind(Diagnostics(wrong))) }
    }

    fn reconcile_listeners(&self, state: &mut State, config: &Config, sockets: Vec<(GateKey, Sockets)>) {
        for (key, sockets) in sockets {
            let bound = match sockets {
                Sockets::Fresh(place, list) => {
                    let (open, seats) = (Arc::new(()), Arc::<Places>::default());
                    for (sender, socket) in self.commands.iter().zip(list) {
                        // A worker that has ended takes no more commands.
                        let (seats, open) = (Arc::clone(&seats), Arc::clone(&open));
                        let _ = sender.send(Command::Listen { key: key.clone(), socket, seats, open });
                    }
                    Bound { place, open: Arc::downgrade(&open), seats }
                }
                Sockets::Of(from) => {
                    let seats = Arc::<Places>::default();
                    for sender in &self.commands {
                        let seats = Arc::clone(&seats);
                        let _ = sender.send(Command::HandOver { from: from.clone(), to: key.clone(), seats });
                    }
                    match state.bound.remove(&from) {
                        Some(bound) => Bound { seats, ..bound },
                        None => continue,
                    }
                }
            };
            state.bound.insert(key, bound);
        }
        let wanted: Vec<GateKey> = config.listeners.iter().map(GateKey::of).collect();
        let going = &mut state.going;
        going.retain(|bound| bound.open.strong_count() > 0);
        state.bound.retain(|key, bound| {
            let keep = wanted.contains(key);
            if !keep {
                for sender in &self.commands {
                    let _ = sender.send(Command::Unlisten { key: key.clone() });
                }
                going.push(bound.clone());
            }
            keep
        });
        for sender in &self.commands {
            let _ = sender.send(Command::Refresh);
        }
    }

    /// Says so where the process may have fewer descriptors than `connections_max` could take.
    fn hold_against_descriptors(&self, old: &Config, new: &Config, first: bool) {
        let shortage = &self.shared.shortage;
        let most = new.process.connections_max;
        if first {
            shortage.count_idle_use();
        }
        if (first || old.process.connections_max != most) && most > shortage.connections_max() {
            tracing::warn!(
                "connections_max {most} can take {} descriptors ({PER_CONNECTION} a connection), and this process may have \
                 {}: {} connections are served at once, more wait in the kernel's queue; raise `ulimit -n` (systemd: \
                 LimitNOFILE=), or lower connections_max",
                most.saturating_mul(PER_CONNECTION),
                shortage.limit(),
                shortage.connections_max(),
            );
        }
    }

    /// What this host is short of.
    pub(crate) fn shortage(&self) -> &Shortage {
        &self.shared.shortage
    }

    /// A driver for each service that is new; those of services that have gone see that and end.
    fn reconcile_drivers(&self, old: &[Arc<Service>]) {
        let current = self.current.load();
        let driven: HashSet<*const ServiceLive> = old.iter().map(|old| Arc::as_ptr(&old.live)).collect();
        for service in &current.services {
            if !driven.contains(&Arc::as_ptr(&service.live)) {
                self.runtime.spawn(health_driver::drive(
                    Arc::clone(&self.current),
                    Arc::clone(&service.live),
                    Arc::clone(&self.metrics.cells),
                    Arc::clone(&self.shared.shortage),
                ));
            }
        }
        for service in old.iter().chain(&current.services) {
            service.live.health_changed.notify_one();
        }
    }

    /// `Some` if the access log changes: its sink, or that there is none any more.
    #[allow(clippy::type_complexity, reason = "read once, just below")]
    fn prepare_access(
        &self,
        old: &Snapshot,
        config: &Config,
    ) -> Result<Option<(Option<AccessSink>, Option<AccessWriter>)>, ReloadError> {
        let section: &model::AccessLog = &config.access_log;
        if old.generation > 0 && old.config.access_log == *section {
            return Ok(None);
        }
        let format = match section.format {
            AccessLogFormat::Off => return Ok(Some((None, None))),
            AccessLogFormat::Json => access::Format::Json,
            AccessLogFormat::Text => access::Format::Text,
        };
        let target = match &section.target {
            LogTarget::Stdout => access::Target::Stdout,
            LogTarget::Stderr => access::Target::Stderr,
            LogTarget::File(path) => access::Target::File(path.clone()),
        };
        let cells = Arc::clone(&self.metrics.cells);
        let writer = access::start(target, move |lines| cells.access_log_lost(lines))
            .map_err(|source| ReloadError::AccessLog { target: section.target.to_string(), source })?;
        let access::Writer { sender, thread, reopen } = writer;
        Ok(Some((Some(AccessSink { format, sender }), Some(AccessWriter { thread, reopen }))))
    }

    async fn drain(&self) -> bool {
        self.draining.store(true, Relaxed);
        let (delay, timeout) = {
            let config = &self.current.load().config;
            (config.drain_delay, config.drain_timeout)
        };
        if !delay.is_zero() {
            tracing::info!(?delay, "not ready any more; new connections are still accepted");
            tokio::time::sleep(delay).await;
        }
        tracing::info!("draining: no new connections, requests in flight may end");
        let all = async {
            self.drain_workers().await;
            // One that had no connection left may have been handed one by another that was not draining yet: from here on nobody
            // does that.
            self.drain_workers().await;
        };
        tokio::time::timeout(timeout, all).await.is_ok()
    }

    async fn drain_workers(&self) {
        let mut waits = Vec::new();
        for sender in &self.commands {
            let (done, wait) = oneshot::channel();
            // A worker that has ended has nothing left to drain.
            if sender.send(Command::Drain { done }).is_ok() {
                waits.push(wait);
            }
        }
        for wait in waits {
            let _ = wait.await;
        }
    }
}

/// Lets clients connect to the sockets that have been bound.
fn listen(config: &Config, sockets: &[(GateKey, Sockets)]) -> Result<(), ReloadError> {
    let fresh = sockets.iter().filter_map(|(key, sockets)| match sockets {
        Sockets::Fresh(_, list) => Some((key, list)),
        Sockets::Of(_) => None,
    });
    let mut wrong = Vec::new();
    for (key, list) in fresh {
        let failed = list.iter().find_map(|socket| bind::listen(socket).err());
        let listener = config.listeners.iter().find(|listener| GateKey::of(listener) == *key);
        if let (Some(error), Some(listener)) = (failed, listener) {
            let what = format!("listener {:?} to {}", listener.name, listener.address);
            wrong.push(bind::finding(&listener.site, &what, listener.address, &error));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(ReloadError::Bind(Diagnostics(wrong))) }
}

/// What a change moves of each service's key space. A backend that drains keeps its place in the ring, so that its keys find
/// it again; while it drains, they are others': they have moved, as `ringway plan` says too.
fn movements(old: &Snapshot, new: &Snapshot) -> Vec<(String, Movement)> {
    let drained = |service: &Service| -> Vec<String> {
        let drained = service.backends.iter().filter(|backend| backend.config.drain);
        drained.map(|backend| backend.config.id.clone()).collect()
    };
    let mut moved = Vec::new();
    for service in &new.services {
        let Some(before) = old.service(&service.config.name) else { continue };
        let (drained_before, drained_now) = (drained(before), drained(service));
        if before.group.digest() == service.group.digest() && drained_before == drained_now {
            continue;
        }
        let movement = if drained_before.is_empty() && drained_now.is_empty() {
            group_movement(&before.group, &before.ids(), &service.group, &service.ids())
        } else {
            let groups = (group_of(&before.config), group_of(&service.config));
            // Both were built a moment ago.
            let (Ok(from), Ok(to)) = groups else { continue };
            group_movement(&from, &before.ids(), &to, &service.ids())
        };
        moved.push((service.config.name.clone(), movement));
    }
    moved
}

fn same_shadow(old: &Snapshot, new: &Snapshot) -> bool {
    match (&old.shadow, &new.shadow) {
        (Some(old), Some(new)) => old.config == new.config,
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
#[path = "../../../tests/common/ports.rs"]
mod ports;

#[cfg(test)]
mod tests {
    use super::*;

    fn workers() -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |task: &std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        tasks.flatten().filter(|task| name(task).starts_with("worker-")).count()
    }

    #[tokio::test]
    async fn start_that_fails_leaves_no_worker_and_no_socket_behind() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, taken) = (SocketAddr::from(([127, 0, 0, 1], ports::free_port())), taken.local_addr().unwrap());
        let with = |admin: &str, second: &str, log: &str| {
            format!(
                "workers: 3\nadmin: {{ address: \"{admin}\" }}\n{log}\nlisteners:\n\
                 \x20 - {{ name: one, address: \"{address}\", service: s }}\n\
                 \x20 - {{ name: two, address: \"{second}\", service: s }}\n\
                 services: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
            )
        };
        let (any, taken) = ("127.0.0.1:0", taken.to_string());
        for text in [
            with(any, &taken, ""),
            with(&taken, any, ""),
            with(any, any, "access_log: { format: json, target: /nowhere/at/all }"),
        ] {
            let config = ringway_config::load_str("test", &text, &|_| None).unwrap().config;
            let started = Proxy::start(config, Source::Memory, Metrics::install()).await;
            assert!(started.is_err(), "{text}");
            assert_eq!(workers(), 0, "{text}");
            std::net::TcpListener::bind(address).unwrap();
        }
        let config = ringway_config::load_str("test", &with(any, any, ""), &|_| None).unwrap().config;
        let proxy = Proxy::start(config, Source::Memory, Metrics::install()).await.unwrap();
        assert_eq!(workers(), 3);
        proxy.stop();
        assert_eq!(workers(), 0);
    }
}
