//! One immutable value per version of the configuration, and the live state that outlives it.
//!
//! A request reads one [`Snapshot`], once (invariant 1). What must survive a reload (loads, health, counters) hangs on
//! the backend's id in the [`Registry`] and is carried from snapshot to snapshot (invariant 9).

pub(crate) mod shadow;

use crate::ambient;
use crate::apply::files::{self, CertificateEnd};
use crate::net::quic_ids;
use crate::net::tls::{self, ClientTls, ServerTls, Tickets, TlsError};
use crate::probe::Prober;
use crate::routing::rate_limit::RateLimiter;
use crate::snapshot::shadow::{Shadow, ShadowError};
use crate::upstream::connections::{self, Connections};
use ringway_config::model::{self, Config};
use ringway_health::{AgentParams, Event, EventKind, Member as HealthMember, ServiceHealth};
use ringway_ring::{
    BuildError, Group, GroupMember, Hash, HotKeys, Line, Load, PolicyParams, Published, SharedLimit, Slot, Total,
};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use thiserror::Error;
use tokio::sync::Notify;

/// A version of the configuration, ready to serve.
pub struct Snapshot {
    /// Counts applied changes from 1.
    pub generation: u64,
    /// What it was built from.
    pub config: Arc<Config>,
    /// In the order of the configuration: routes refer to them by index.
    pub services: Box<[Arc<Service>]>,
    /// Their indices.
    by_name: HashMap<Box<str>, usize>,
    /// TLS towards clients, listener by listener.
    pub(crate) tls: Box<[Option<Arc<ServerTls>>]>,
    /// Fields in which some listener tells backends of clients' certificates: no client says them on any listener.
    pub(crate) identity_fields: Box<[Box<str>]>,
    /// Of the files that TLS is made of.
    pub(crate) files_digest: u64,
    /// When the certificates that it uses end.
    pub(crate) certificates: Box<[CertificateEnd]>,
    /// The version whose placements are compared with these, or none.
    pub(crate) shadow: Option<Arc<Shadow>>,
}

/// A service as requests see it.
pub struct Service {
    /// Its configuration.
    pub config: model::Service,
    /// Order, bound and loads of its backends.
    pub group: Group,
    /// In slot order: sorted by id.
    pub backends: Box<[Backend]>,
    /// What outlives the snapshot.
    pub live: Arc<ServiceLive>,
    /// TLS towards its backends.
    pub(crate) tls: Option<ClientTls>,
    /// Makes its active checks.
    pub(crate) prober: Option<Arc<Prober>>,
    /// A number that changes with what is spoken with backends.
    pub(crate) transport: u64,
    /// The limiter of the service's `rate_limit`.
    pub(crate) limiter: Option<Arc<RateLimiter>>,
    /// Under a policy without keys: which backend an affinity cookie's value names.
    cookie_slots: HashMap<u64, Slot>,
    /// Somebody wants to know how long answers take to begin: the policy, or a detector.
    pub(crate) times_answers: bool,
    /// Who waits for room may find that there is no connection to be had.
    pub(crate) limits_connections: bool,
    turn: AtomicU64,
}

/// A backend as requests see it.
pub struct Backend {
    /// Its configuration.
    pub config: model::Backend,
    /// What outlives the snapshot.
    pub state: Arc<BackendState>,
}

/// What outlives snapshots of a backend: hangs on (service, id).
pub struct BackendState {
    /// Stable identity.
    pub id: Box<str>,
    /// In flight, and the share of its keys that it takes.
    pub load: Arc<Load>,
    /// Set while the next success matters to the passive detector, so that the hot path tells it of no other.
    pub suspect: AtomicBool,
    /// It takes nothing new, and keeps the clients that a cookie has bound to it.
    pub(crate) keeps_clients: AtomicBool,
    /// Connections open to it, idle ones included, over all workers.
    pub connections: AtomicU32,
    /// Retries under way there, where it has a limit on them.
    pub(crate) retrying: AtomicU32,
    /// Requests that wait for a connection to it, where that is limited.
    pub(crate) pending: AtomicU32,
    /// Tells its sessions that it has gone down.
    pub(crate) down: Falls,
}

/// When a backend has last gone down, in the order of its service's falls. Who chooses a backend takes the number of the last fall
/// first: then none is missed, whenever he comes to wait for the next one.
#[derive(Default)]
pub(crate) struct Falls {
    last: AtomicU64,
    fallen: Notify,
}

impl Falls {
    /// It has gone down; `number` is the fall's.
    fn fall(&self, number: u64) {
        self.last.store(number, SeqCst);
        self.fallen.notify_waiters();
    }

    /// Resolves once it has gone down after the fall `number`.
    pub(crate) async fn after(&self, number: u64) {
        let mut fallen = pin!(self.fallen.notified());
        // Registered before the test, so that no fall between the two is missed.
        fallen.as_mut().enable();
        if self.last.load(SeqCst) <= number {
            fallen.await;
        }
    }
}

/// What outlives snapshots of a service.
pub struct ServiceLive {
    /// Unique name.
    pub name: Box<str>,
    /// Requests in flight, over all backends.
    pub total: Arc<Total>,
    /// The state machine that says who may take traffic. Locked on failures and by the driver, never for a success
    /// that follows a success.
    health: Mutex<ServiceHealth>,
    /// Number of the last time that one of its backends has gone down.
    pub(crate) falls: AtomicU64,
    /// Wakes the driver: a deadline may have come nearer.
    pub health_changed: Notify,
    /// Some of its backends keep their clients although they take nothing new.
    pub(crate) some_keep: AtomicBool,
    /// Requests admitted, where the service has a limit on them.
    pub(crate) admitted: AtomicU32,
    /// Retries under way, where the service has a limit on them.
    pub(crate) retrying: AtomicU32,
    /// Requests that wait for a place or for a connection, where that is limited.
    pub(crate) pending: AtomicU32,
    /// Connections to all its backends.
    pub(crate) connections: Connections,
    /// Requests on its backends, where its limit on connections is one on them.
    pub(crate) connected: SharedLimit,
    /// Reports of hot keys, worker by worker.
    pub(crate) hot: Mutex<HotKeys>,
    /// Owners of each hot key: what workers look at.
    pub(crate) hot_table: Published<HotTable>,
    /// Keys that the last change moved, as a share, and by which generation.
    pub(crate) moved: Mutex<(f64, u64)>,
    /// The limiter, and what it was made from: a reload that leaves the limit alone leaves its memory alone.
    limiter: Mutex<Option<(model::RateLimit, Arc<RateLimiter>)>>,
    /// Backends of QUIC's connections, by the ids that they gave themselves.
    pub(crate) quic_ids: Mutex<quic_ids::Ids<Arc<BackendState>>>,
    /// Requests that wait for room.
    pub line: Line,
    /// Tells one of them that there may be room.
    pub room: Notify,
    /// Counts what may have made room, where connections are limited: who finds none waits until it has moved.
    pub(crate) turnover: AtomicU64,
    /// Whether the newest version limits connections: only then ends of requests are counted there.
    pub(crate) limits_connections: AtomicBool,
    backends: Mutex<HashMap<Box<str>, Arc<BackendState>>>,
    /// Backends that have gone from the configuration while requests still ran on them: who comes back is not empty.
    departed: Mutex<HashMap<Box<str>, Weak<BackendState>>>,
    /// The service of the last version that was put into force. Set under the lock of `health`.
    newest: Mutex<Weak<Service>>,
}

/// Owners of each hot key.
pub(crate) type HotTable = HashMap<u64, u16>;

/// Why a configuration that is valid cannot be put to work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A ring cannot be built.
    #[error("service {service:?}: {source}")]
    Build {
        /// The service.
        service: String,
        /// Why.
        source: BuildError,
    },
    /// The TLS of a listener cannot be set up.
    #[error("listener {listener:?}: {source}")]
    ListenerTls {
        /// The listener.
        listener: String,
        /// Why.
        source: TlsError,
    },
    /// The TLS of a service or its checks cannot be set up.
    #[error("service {service:?}: {source}")]
    Tls {
        /// The service.
        service: String,
        /// Why.
        source: TlsError,
    },
    /// The shadow configuration cannot be used.
    #[error("shadow configuration: {0}")]
    Shadow(#[from] ShadowError),
}

/// The live state of all services, by name.
#[derive(Default)]
pub struct Registry {
    services: Mutex<HashMap<Box<str>, Arc<ServiceLive>>>,
    tickets: Tickets,
}

impl Snapshot {
    /// Whether a field is one in which backends are told of clients' certificates.
    #[inline]
    pub(crate) fn is_identity(&self, name: &[u8]) -> bool {
        self.identity_fields.iter().any(|field| ringway_message::reads_as(name, field))
    }
}

/// The one pointer to what is in force.
pub type Current = Published<Snapshot>;

impl ServiceLive {
    /// The health machine. Poisoning is ignored: its methods leave it consistent.
    pub fn health(&self) -> MutexGuard<'_, ServiceHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be room for one who waits.
    pub(crate) fn tell_room(&self) {
        self.turnover.fetch_add(1, Relaxed);
        if self.line.handle_release() {
            self.room.notify_one();
        }
    }

    /// Wakes all who wait for room: who may be asked, or how many requests each may have, has changed.
    pub(crate) fn wake_all(&self) {
        self.turnover.fetch_add(1, Relaxed);
        if self.line.handle_release() {
            self.room.notify_waiters();
        }
    }
}

impl Service {
    /// Writes what the health machine says to where requests read it. Gives what has happened.
    ///
    /// Whoever calls may still hold a version of before, or one that is not the newest any more: levels and who shares the
    /// load are those of the newest, whose members the machine knows.
    pub fn apply_health(&self, health: &mut ServiceHealth) -> Vec<Event> {
        let newest = lock(&self.live.newest).upgrade();
        newest.as_deref().unwrap_or(self).write_health(health)
    }

    fn write_health(&self, health: &mut ServiceHealth) -> Vec<Event> {
        let mut some_keep = false;
        for backend in &self.backends {
            if let Some(share) = health.share(&backend.config.id) {
                // First: who gets a share in panic is not to be taken for one that is up.
                backend.state.load.set_doubted(health.is_doubted(&backend.config.id));
                backend.state.load.set_lifecycle(share);
                backend.state.suspect.store(health.is_suspect(&backend.config.id), Relaxed);
            }
            let keeps = health.keeps_clients(&backend.config.id);
            backend.state.keeps_clients.store(keeps, Relaxed);
            some_keep |= keeps;
        }
        self.live.some_keep.store(some_keep, Relaxed);
        self.group.set_level_shares(health.level_shares());
        self.group.refresh();
        self.live.wake_all();
        let events = Self::events(health);
        for event in events.iter().filter(|_| self.config.close_on_down) {
            if let (EventKind::Down(_) | EventKind::Ejected { .. }, Some(slot)) = (&event.kind, self.slot_of(&event.id))
            {
                self.backends[usize::from(slot.0)].state.down.fall(self.live.falls.fetch_add(1, SeqCst) + 1);
            }
        }
        events
    }

    /// See [`ServiceLive::turnover`]; 0 where it is not counted.
    pub(crate) fn turnover(&self) -> u64 {
        if self.live.limits_connections.load(Relaxed) { self.live.turnover.load(Relaxed) } else { 0 }
    }

    /// Whether it is of the version that was put into force last.
    pub(crate) fn is_newest(&self) -> bool {
        std::ptr::eq(lock(&self.live.newest).as_ptr(), self)
    }

    /// What has happened, without anything that requests would see.
    pub(crate) fn events(health: &mut ServiceHealth) -> Vec<Event> {
        std::iter::from_fn(|| health.poll_event()).collect()
    }

    /// The backend that an affinity cookie's value names.
    pub(crate) fn slot_of_cookie(&self, value: u64) -> Option<Slot> {
        self.cookie_slots.get(&value).copied()
    }

    /// The backend that keeps the client of a cookie which is a key, although it takes nothing new.
    pub(crate) fn keeper_of(&self, hash: Hash) -> Option<Slot> {
        if !self.live.some_keep.load(Relaxed) {
            return None;
        }
        let keeps = |slot: Slot| self.backends[usize::from(slot.0)].state.keeps_clients.load(Relaxed);
        self.group.kept_owner(hash, keeps)
    }

    /// The slot of a backend.
    #[must_use]
    pub fn slot_of(&self, id: &str) -> Option<Slot> {
        let index = self.backends.binary_search_by(|backend| (*backend.config.id).cmp(id)).ok()?;
        u16::try_from(index).ok().map(Slot)
    }
}

impl Registry {
    /// Builds the snapshot of a configuration. Changes nothing: what is new hangs on the snapshot alone, and is kept for the
    /// next one by [`Registry::commit`].
    ///
    /// # Errors
    /// A ring cannot be built.
    pub fn prepare(
        &self,
        config: Arc<Config>,
        generation: u64,
        workers: usize,
        now: Instant,
    ) -> Result<Snapshot, SnapshotError> {
        // Read before the files are: a file that changes in between is read again.
        let files_digest = tls::digest(&config);
        let services: Box<[Arc<Service>]> = config
            .services
            .iter()
            .map(|service| self.service(service, workers, now).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let shadow = match &config.shadow {
            Some(path) => Some(Arc::new(Shadow::load(path)?)),
            None => None,
        };
        let server = |listener: &model::Listener| {
            let Some(tls) = &listener.tls else { return Ok(None) };
            // As a listener's sockets, its tickets stay when its name changes.
            let by_name = if listener.address.port() == 0 { listener.name.as_str() } else { "" };
            let built = ServerTls::new(&format!("{}{by_name}", listener.address), tls, &self.tickets);
            built
                .map(|tls| Some(Arc::new(tls)))
                .map_err(|source| SnapshotError::ListenerTls { listener: listener.name.clone(), source })
        };
        let tls = config.listeners.iter().map(server).collect::<Result<_, _>>()?;
        let clients = config.listeners.iter().filter_map(|listener| listener.tls.as_ref()?.client.as_ref());
        let identity_fields = clients.map(|client| client.header.as_str().into()).collect();
        let certificates = files::certificates(&config);
        let by_name = by_name(&services);
        Ok(Snapshot { generation, config, services, by_name, tls, identity_fields, files_digest, certificates, shadow })
    }

    fn service(&self, config: &model::Service, workers: usize, now: Instant) -> Result<Service, SnapshotError> {
        let live = self.live(config, workers, now);
        let mut members: Vec<&model::Backend> = config.backends.iter().collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        let backends: Box<[Backend]> = members
            .into_iter()
            .map(|backend| Backend { config: backend.clone(), state: live.backend(&backend.id) })
            .collect();
        let group = Group::build(
            config.policy,
            config.bound,
            backends.iter().map(|backend| GroupMember {
                id: &backend.config.id,
                weight: shadow::membership_weight(&backend.config),
                requests_max: connections::places(config, &backend.config),
                level: backend.config.level,
                load: Arc::clone(&backend.state.load),
            }),
            Arc::clone(&live.total),
        )
        .map_err(|source| SnapshotError::Build { service: config.name.clone(), source })?
        .with_all_full(config.all_full);
        let prober = config.health.as_ref().map(Prober::new).transpose();
        let prober = prober.map_err(|source| SnapshotError::Tls { service: config.name.clone(), source })?;
        let alpn: &[&[u8]] = match config.protocol {
            model::UpstreamProtocol::H2 => &[b"h2"],
            model::UpstreamProtocol::Http1 => &[b"http/1.1"],
        };
        let tls = config.tls.as_ref().map(|tls| ClientTls::new(tls, alpn)).transpose();
        let tls = tls.map_err(|source| SnapshotError::Tls { service: config.name.clone(), source })?;
        let kept = (config.keepalive, config.timeouts.tcp_user_timeout);
        let spoken = format!("{:?} {:?} {:?} {kept:?}", config.protocol, config.proxy_protocol, config.tls);
        let mut transport = xxhash_rust::xxh3::Xxh3::new();
        transport.update(spoken.as_bytes());
        for path in config.tls.iter().flat_map(|tls| tls.files()) {
            transport.update(&std::fs::read(path).unwrap_or_default());
        }
        let limiter = config.rate_limit.as_ref().map(|limit| live.limiter_for(limit));
        let times_answers = matches!(config.policy, PolicyParams::PeakEwma(_)) || config.outlier.latency.is_some();
        let limited = |backend: &model::Backend| backend.connections_max.min(backend.pending_max) < u32::MAX;
        let limits_connections = config.connections_max < u32::MAX || config.backends.iter().any(limited);
        let sticky = config.affinity_cookie.is_some() && !config.policy.hashes();
        let named = backends.iter().enumerate().filter(|_| sticky);
        let cookie_slots = named.map(|(slot, backend)| (cookie_value(&backend.config.id), Slot(slot as u16))).collect();
        Ok(Service {
            config: config.clone(),
            group,
            backends,
            live,
            tls,
            prober: prober.map(Arc::new),
            transport: transport.digest(),
            limiter,
            cookie_slots,
            times_answers,
            limits_connections,
            turn: AtomicU64::new(0),
        })
    }

    /// What lives on of a service, or what will.
    fn live(&self, config: &model::Service, workers: usize, now: Instant) -> Arc<ServiceLive> {
        if let Some(live) = lock(&self.services).get(config.name.as_str()) {
            return Arc::clone(live);
        }
        // Jitter differs between services and processes; it is no secret.
        let seed = xxhash_rust::xxh3::xxh3_64(config.name.as_bytes()) ^ ambient::process_salt();
        Arc::new(ServiceLive {
            name: config.name.as_str().into(),
            total: Arc::new(Total::new(workers)),
            health: Mutex::new(ServiceHealth::new(health_params(config), seed, now)),
            falls: AtomicU64::new(0),
            health_changed: Notify::new(),
            some_keep: AtomicBool::new(false),
            admitted: AtomicU32::new(0),
            retrying: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            connections: Connections::default(),
            connected: SharedLimit::default(),
            hot: Mutex::default(),
            hot_table: Published::default(),
            moved: Mutex::default(),
            limiter: Mutex::default(),
            quic_ids: Mutex::default(),
            line: Line::default(),
            room: Notify::new(),
            turnover: AtomicU64::new(0),
            limits_connections: AtomicBool::new(false),
            backends: Mutex::default(),
            departed: Mutex::default(),
            newest: Mutex::default(),
        })
    }

    /// Keeps what a prepared snapshot has brought, puts its memberships into force in the health machines, and forgets what
    /// is in it no more. Cannot fail. Of backends that the version before has too, nobody takes less yet: its readers have no
    /// others. [`Registry::settle`] follows once the snapshot is what requests read.
    pub fn commit(&self, snapshot: &Snapshot, now: Instant) {
        let kept = snapshot.services.iter().map(|service| (service.live.name.clone(), Arc::clone(&service.live)));
        *lock(&self.services) = kept.collect();
        self.tickets.keep(snapshot.tls.iter().flatten().map(|tls| &tls.tickets));
        for service in &snapshot.services {
            let fresh: Vec<bool> =
                service.backends.iter().map(|backend| !service.live.knows(&backend.config.id)).collect();
            service.live.keep(service);
            let mut health = service.live.health();
            let members: Vec<HealthMember<'_>> = service
                .backends
                .iter()
                .map(|backend| HealthMember {
                    id: &backend.config.id,
                    weight: backend.config.weight,
                    drain: backend.config.drain,
                    maintenance: backend.config.maintenance,
                    level: backend.config.level,
                })
                .collect();
            health.set_params(health_params(&service.config), now);
            health.set_members(&members, now);
            for (backend, fresh) in service.backends.iter().zip(fresh) {
                let share = health.share(&backend.config.id).unwrap_or_default();
                if fresh || share > backend.state.load.lifecycle() {
                    backend.state.load.set_doubted(health.is_doubted(&backend.config.id));
                    backend.state.load.set_lifecycle(share);
                }
            }
            service.group.set_level_shares(health.level_shares());
            service.live.limits_connections.store(service.limits_connections, Relaxed);
            service.group.install();
        }
    }

    /// What a committed snapshot takes away takes effect, now that requests read it: whoever has read the one before and finds
    /// nobody there looks here. Gives the health events, by service.
    pub fn settle(&self, snapshot: &Snapshot) -> Vec<(Arc<Service>, Vec<Event>)> {
        let mut happened = Vec::new();
        for service in &snapshot.services {
            let mut health = service.live.health();
            *lock(&service.live.newest) = Arc::downgrade(service);
            let events = service.write_health(&mut health);
            drop(health);
            service.live.health_changed.notify_one();
            happened.push((Arc::clone(service), events));
        }
        happened
    }
}

impl ServiceLive {
    /// The limiter of this limit: the one there is, memory and all, if it is the same.
    fn limiter_for(&self, limit: &model::RateLimit) -> Arc<RateLimiter> {
        match lock(&self.limiter).as_ref() {
            Some((known, limiter)) if known == limit => Arc::clone(limiter),
            _ => Arc::new(RateLimiter::new(limit.interval, limit.burst, limit.keys_max)),
        }
    }

    fn knows(&self, id: &str) -> bool {
        lock(&self.backends).contains_key(id)
    }

    fn backend(&self, id: &str) -> Arc<BackendState> {
        if let Some(state) = lock(&self.backends).get(id) {
            return Arc::clone(state);
        }
        let still_used = lock(&self.departed).get(id).and_then(Weak::upgrade);
        still_used.unwrap_or_else(|| {
            Arc::new(BackendState {
                id: id.into(),
                load: Arc::new(Load::new(id)),
                suspect: AtomicBool::new(false),
                keeps_clients: AtomicBool::new(false),
                connections: AtomicU32::new(0),
                retrying: AtomicU32::new(0),
                pending: AtomicU32::new(0),
                down: Falls::default(),
            })
        })
    }

    /// The next snapshot finds what this one has, and of backends that go with it those on which something still runs.
    fn keep(&self, service: &Service) {
        let states = service.backends.iter().map(|backend| (backend.state.id.clone(), Arc::clone(&backend.state)));
        let states: HashMap<_, _> = states.collect();
        let mut backends = lock(&self.backends);
        let mut departed = lock(&self.departed);
        departed.retain(|id, state| !states.contains_key(id) && state.strong_count() > 0);
        let gone = backends.iter().filter(|(id, _)| !states.contains_key(*id));
        departed.extend(gone.map(|(id, state)| (id.clone(), Arc::downgrade(state))));
        *backends = states;
        drop((backends, departed));
        *lock(&self.limiter) = service.config.rate_limit.clone().zip(service.limiter.clone());
    }
}

/// What an affinity cookie says of a backend, under a policy without keys.
pub(crate) fn cookie_value(id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes())
}

fn by_name(services: &[Arc<Service>]) -> HashMap<Box<str>, usize> {
    services.iter().enumerate().map(|(index, service)| (service.config.name.as_str().into(), index)).collect()
}

fn health_params(config: &model::Service) -> ringway_health::Params {
    ringway_health::Params {
        check: config.health.as_ref().map(|health| health.params),
        agent: config
            .health
            .as_ref()
            .and_then(|health| health.agent.as_ref())
            .map(|agent| AgentParams { interval: agent.interval, timeout: agent.timeout }),
        outlier: config.outlier,
        panic_threshold_percent: config.panic_threshold_percent,
        panic_mode: config.panic_mode,
        overprovisioning_percent: config.overprovisioning_percent,
        slow_start: config.slow_start,
        drain_ramp: config.drain_ramp,
        keep_clients: config.keep_clients,
    }
}

impl Snapshot {
    /// The digests of its rings by service; those that hash.
    pub(crate) fn ring_digests(&self) -> BTreeMap<String, u64> {
        let services = self.services.iter();
        services.filter_map(|service| Some((service.config.name.clone(), service.ring_digest()?))).collect()
    }

    /// Index of a service.
    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.index_of(name).map(|index| &self.services[index])
    }

    /// What is in force before anything is: nothing.
    pub(crate) fn empty(config: Arc<Config>) -> Self {
        Self {
            generation: 0,
            config,
            services: Box::default(),
            by_name: HashMap::new(),
            tls: Box::default(),
            identity_fields: Box::default(),
            files_digest: 0,
            certificates: Box::default(),
            shadow: None,
        }
    }
}

impl Service {
    /// The digest of the service's ring; none for policies without one.
    #[must_use]
    pub fn ring_digest(&self) -> Option<u64> {
        self.group.digest()
    }

    /// The backends' ids, in slot order.
    #[must_use]
    pub fn ids(&self) -> Vec<&str> {
        self.backends.iter().map(|backend| backend.config.id.as_str()).collect()
    }

    /// Whether requests are placed by key.
    #[must_use]
    pub fn hashes(&self) -> bool {
        self.config.policy.hashes()
    }

    /// The seed of key hashes.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.config.policy.seed()
    }

    /// A hash that falls to the backends in turn, for requests without a key.
    #[must_use]
    pub fn next_in_turn(&self) -> u64 {
        // Golden-ratio steps visit the key space evenly (Fibonacci hashing), so backends get their shares in turn.
        self.turn.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Address of the backend in a slot.
    #[must_use]
    pub fn address(&self, slot: Slot) -> SocketAddr {
        self.backends[usize::from(slot.0)].config.address
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use ringway_health::{CheckFailure, Probe};

    /// A version of one service with a backend of the first tier, one of the second, and others; rebuilt, not served.
    fn prepared(registry: &Registry, generation: u64, second_tier: u8, others: &str) -> Snapshot {
        let text = format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", service: s }} ]\n\
             services:\n  - name: s\n    balance: {{ hash_key: [ {{ path: {{}} }} ] }}\n    panic_threshold: 0\n\
             \x20   health: {{ tcp: {{}}, fall: 1, rise: 1 }}\n    backends:\n\
             \x20     - {{ id: a, address: \"127.0.0.1:1\" }}\n\
             \x20     - {{ id: b, address: \"127.0.0.1:2\", tier: {second_tier} }}\n{others}"
        );
        let config = ringway_config::load_str("test.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        registry.prepare(Arc::new(config.config), generation, 1, ambient::now()).unwrap()
    }

    #[test]
    fn what_happens_while_versions_change_reaches_the_newest() {
        let registry = Registry::default();
        let now = ambient::now();
        let first = prepared(&registry, 1, 0, "");
        registry.commit(&first, now);
        registry.settle(&first);
        let second = prepared(&registry, 2, 1, "");
        registry.commit(&second, now);
        registry.settle(&second);
        let newest = &second.services[0];
        assert_eq!(newest.group.level_shares(), [(0, 1.0), (2, 0.0)]);
        // A check ends, and its driver still looks at the version of before.
        let old = &first.services[0];
        let mut health = old.live.health();
        health.handle_probe("a", Probe::Failure(CheckFailure::Connect), now);
        assert!(health.take_changed());
        let events = old.apply_health(&mut health);
        drop(health);
        assert!(events.iter().any(|event| event.id == "a"), "{events:?}");
        assert_eq!(newest.group.level_shares(), [(0, 0.0), (2, 1.0)]);
        assert_eq!(newest.group.eligible_members(), 1);
    }

    #[test]
    fn backend_that_comes_back_still_carries_what_it_carries() {
        let registry = Registry::default();
        let now = ambient::now();
        let with_c = "      - { id: c, address: \"127.0.0.1:3\" }\n";
        let first = prepared(&registry, 1, 0, with_c);
        registry.commit(&first, now);
        registry.settle(&first);
        let (old, slot) = (&first.services[0], first.services[0].slot_of("c").unwrap());
        (0..7).for_each(|_| old.group.resume(slot, 0));
        let second = prepared(&registry, 2, 0, "");
        registry.commit(&second, now);
        registry.settle(&second);
        assert_eq!(
            second.services[0].live.total.sum_of(0),
            0,
            "what a backend carries that has gone is nobody's share"
        );
        let third = prepared(&registry, 3, 0, with_c);
        registry.commit(&third, now);
        registry.settle(&third);
        let new = &third.services[0];
        assert_eq!(new.backends[2].state.load.in_flight(), 7);
        assert_eq!(new.live.total.sum_of(0), 7);
        (0..7).for_each(|_| old.group.release(slot, 0));
        assert_eq!((new.backends[2].state.load.in_flight(), new.live.total.sum_of(0)), (0, 0));
        // Nothing runs there any more: who comes back later is new.
        let next = prepared(&registry, 4, 0, "");
        registry.commit(&next, now);
        registry.settle(&next);
        drop((first, second, third));
        let next = prepared(&registry, 5, 0, "");
        registry.commit(&next, now);
        registry.settle(&next);
        assert!(lock(&registry.services)["s"].departed.lock().unwrap().is_empty());
    }
}
