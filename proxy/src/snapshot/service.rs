//! A service: as requests see it ([`Service`], one per version), and its state that outlives versions ([`ServiceLive`]).

use super::backend::{Backend, BackendState};
use super::check_delay::CheckDelay;
use super::concurrency::LatencyMeter;
use super::connections::Connections;
use super::fleet_bounds::FleetBounds;
use super::handoff::Handoff;
use super::hot_table::HotTable;
use super::journal::Journal;
use super::rate_limiter::RateLimiter;
use crate::net::quic_ids;
use crate::net::tls::ClientTls;
use crate::probe::Prober;
use ringway_config::model;
use ringway_health::{Event, EventKind, MemberKey, ServiceHealth, StandingOut};
use ringway_ring::{BackendSet, Hash, HotKeys, Line, Load, Published, SharedLimit, Slot, Total};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use tokio::sync::Notify;

/// A service as requests see it.
pub struct Service {
    /// Its configuration.
    pub config: Arc<model::Service>,
    /// Policy, bound and loads of its backends.
    pub backend_set: BackendSet,
    /// In slot order: sorted by id.
    pub backends: Box<[Backend]>,
    /// Its state that outlives the snapshot.
    pub live: Arc<ServiceLive>,
    /// TLS towards its backends.
    pub(crate) tls: Option<Arc<ClientTls>>,
    /// Makes its active checks.
    pub(crate) prober: Option<Arc<Prober>>,
    /// A number that changes with the protocol settings towards its backends.
    pub(crate) transport: u64,
    /// A number that changes with the content of the files that its checks' TLS is made of.
    pub(super) check_files: u64,
    /// The limiter of the service's `rate_limit`.
    pub(crate) limiter: Option<Arc<RateLimiter>>,
    /// Under a policy without keys: which backend an affinity cookie's value names.
    pub(super) cookie_slots: HashMap<u64, Slot>,
    /// The policy or a detector uses the time until responses begin.
    pub(crate) times_responses: bool,
    /// Whether hot keys are looked for, and could be spread.
    pub(crate) looks_for_hot_keys: bool,
    /// Requests that wait for room may find that no connection is available.
    pub(crate) limits_connections: bool,
    /// Keys that are being handed from backend to backend.
    pub(crate) handoff: Handoff,
    pub(super) turn: AtomicU64,
}

impl Service {
    /// Publishes the health machine's state to where requests read it. Returns the events.
    ///
    /// The caller may still hold an old version, or one that is not the newest any more: levels and load shares are those of the
    /// newest, whose members the machine knows.
    pub fn apply_health(&self, health: &mut ServiceHealth) -> Vec<Event> {
        let newest = lock(&self.live.newest).upgrade();
        newest.as_deref().unwrap_or(self).write_health(health)
    }

    pub(super) fn write_health(&self, health: &mut ServiceHealth) -> Vec<Event> {
        let (mut some_keep, mut some_are_ejected) = (false, false);
        for backend in &self.backends {
            if let Some(share) = health.share(&backend.config.id) {
                // First: a backend that gets a share only in panic must not be taken for one that is up.
                backend.state.load.set_doubted(health.is_doubted(&backend.config.id));
                backend.state.load.set_active_fraction(share);
                backend.state.suspect.store(health.is_suspect(&backend.config.id), Relaxed);
            }
            let is_last_resort = health.is_last_resort(&backend.config.id);
            backend.state.last_resort.store(is_last_resort, Relaxed);
            some_are_ejected |= is_last_resort;
            let keeps = health.keeps_clients(&backend.config.id);
            backend.state.keeps_clients.store(keeps, Relaxed);
            some_keep |= keeps;
        }
        self.live.some_keep.store(some_keep, Relaxed);
        self.live.some_are_ejected.store(some_are_ejected, Relaxed);
        self.backend_set.set_level_shares(health.level_shares());
        self.backend_set.refresh();
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

    /// Tells a backend's limit, where it follows latency, what has become of a request. Each place by which it is raised is one waiting
    /// request's.
    #[inline]
    pub(crate) fn measure(&self, slot: Slot, tell: impl FnOnce(&LatencyMeter, &Load) -> u32) {
        if self.config.adaptive_concurrency.is_none() {
            return;
        }
        let state = &self.backends[usize::from(slot.0)].state;
        let raised = state.meter().map_or(0, |meter| tell(meter, &state.load));
        if raised == 0 {
            return;
        }
        // Between the limit that was raised and the look for who waits, as `Line` has it.
        fence(SeqCst);
        for _ in 0..raised.min(self.live.line.waiting()) {
            self.live.tell_room();
        }
    }

    /// See [`ServiceLive::turnover`]; 0 where it is not counted.
    pub(crate) fn turnover(&self) -> u64 {
        if self.live.limits_connections.load(Relaxed) { self.live.turnover.load(Relaxed) } else { 0 }
    }

    /// Whether a version with this configuration, and these files, has it as it is.
    pub(super) fn is_of(&self, config: &Arc<model::Service>, transport: u64, check_files: u64) -> bool {
        let same = Arc::ptr_eq(&self.config, config) || self.config == *config;
        same && self.transport == transport && self.check_files == check_files
    }

    /// Whether another version has these very backends, in the same slots.
    pub(super) fn has_backends_of(&self, other: &Self) -> bool {
        let pairs = || self.backends.iter().zip(&other.backends);
        self.backends.len() == other.backends.len() && pairs().all(|(one, other)| Arc::ptr_eq(&one.state, &other.state))
    }

    /// Whether it is of the version that was put into force last.
    pub(crate) fn is_newest(&self) -> bool {
        std::ptr::eq(lock(&self.live.newest).as_ptr(), self)
    }

    /// The events, without anything that requests would see.
    pub(crate) fn events(health: &mut ServiceHealth) -> Vec<Event> {
        std::iter::from_fn(|| health.poll_event()).collect()
    }

    /// The backend that an affinity cookie's value names.
    pub(crate) fn slot_of_cookie(&self, value: u64) -> Option<Slot> {
        self.cookie_slots.get(&value).copied()
    }

    /// The backend that keeps the client of a cookie whose value is a key, although it takes nothing new.
    pub(crate) fn keeper_of(&self, hash: Hash) -> Option<Slot> {
        if !self.live.some_keep.load(Relaxed) {
            return None;
        }
        let keeps = |slot: Slot| self.backends[usize::from(slot.0)].state.keeps_clients.load(Relaxed);
        self.backend_set.kept_owner(hash, keeps)
    }

    /// The slot of a backend for which something is due: where the health machine has it, as long as both have the same backends.
    pub(crate) fn slot_of_member(&self, member: &MemberKey) -> Option<Slot> {
        let index = member.index();
        if self.backends.get(index).is_some_and(|backend| *backend.config.id == **member) {
            return u16::try_from(index).ok().map(Slot);
        }
        self.slot_of(member)
    }

    /// The slot of a backend.
    #[must_use]
    pub fn slot_of(&self, id: &str) -> Option<Slot> {
        let index = self.backends.binary_search_by(|backend| (*backend.config.id).cmp(id)).ok()?;
        u16::try_from(index).ok().map(Slot)
    }
}

impl Service {
    /// The digest of the service's ring; none for policies without one.
    #[must_use]
    pub fn ring_digest(&self) -> Option<u64> {
        self.backend_set.digest()
    }

    /// What proxies must have in common so that loads and shares in slot order mean the same to them: the ring, and its members in their
    /// order, those too that have no point on it. None for policies without a ring.
    pub(crate) fn fleet_digest(&self) -> Option<u64> {
        Some(self.members_digest(self.ring_digest()?))
    }

    /// Of its members in their order, and their weights, which proxies have in common that place keys by other rings.
    pub(crate) fn members_digest(&self, seed: u64) -> u64 {
        let members = self.backends.iter().map(|backend| (backend.config.id.as_str(), backend.config.weight));
        ringway_ring::members_digest(members, seed)
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

    /// A hash that gives the backends their turns, for requests without a key.
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

/// State of a service that outlives snapshots.
pub struct ServiceLive {
    /// Unique name.
    pub name: Box<str>,
    /// Requests in flight, over all backends.
    pub total: Arc<Total>,
    /// Where what happens to it is kept.
    pub(super) journal: Arc<Journal>,
    /// The state machine that decides which backends may take traffic. Locked on failures and by the driver, never for a success
    /// that follows a success.
    health: Mutex<ServiceHealth>,
    /// Number of the last time that one of its backends has gone down.
    pub(crate) falls: AtomicU64,
    /// How late its checks begin.
    pub(crate) check_delay: CheckDelay,
    /// Wakes the driver: a deadline may be earlier now.
    pub health_changed: Notify,
    /// Some of its backends keep their clients although they take nothing new.
    pub(crate) some_keep: AtomicBool,
    /// Some of its backends are a last resort.
    pub(crate) some_are_ejected: AtomicBool,
    /// Requests admitted, where the service has a limit on them.
    pub(crate) admitted: AtomicU32,
    /// Retries under way, where the service has a limit on them.
    pub(crate) retrying: AtomicU32,
    /// Requests that wait for a reservation or for a connection, where that is limited.
    pub(crate) pending: AtomicU32,
    /// Connections to all its backends.
    pub(crate) connections: Connections,
    /// Requests on its backends, where its limit on connections bounds them.
    pub(crate) connected: SharedLimit,
    /// Reports of hot keys, worker by worker.
    pub(crate) hot: Mutex<HotKeys>,
    /// Owners of each hot key, as workers read them.
    pub(crate) hot_table: Published<HotTable>,
    /// Its part in bounds of a whole fleet.
    pub(crate) fleet_bounds: FleetBounds,
    /// Keys that the last change moved, as a share, and by which generation.
    pub(crate) moved: Mutex<(f64, u64)>,
    /// The limiter, and the limit that is in force there: a reload that limits the same keys keeps what they have used.
    pub(super) limiter: Mutex<Option<(model::RateLimit, Arc<RateLimiter>)>>,
    /// Backends of QUIC connections, by the ids that they have issued.
    pub(crate) quic_ids: Mutex<quic_ids::Ids<Arc<BackendState>>>,
    /// Backends that stand out from their peers.
    standing_out: Mutex<StandingOut>,
    /// Requests that wait for room.
    pub line: Line,
    /// Notifies one of them that there may be room.
    pub room: Notify,
    /// Copies of requests under way to backends that keys are handed over to.
    pub(crate) handoff_copies: AtomicU32,
    /// Requests that may change something, at previous owners of keys. Made for the first of them.
    pub(crate) handoff_changes: OnceLock<ringway_ring::ChangesUnderWay>,
    /// Counts what may have made room, where connections are limited: a request that finds none waits until it has moved.
    pub(crate) turnover: AtomicU64,
    /// Whether the newest version limits connections: only then ends of requests are counted there.
    pub(crate) limits_connections: AtomicBool,
    pub(super) backends: Mutex<HashMap<Box<str>, Arc<BackendState>>>,
    /// Backends that were removed from the configuration while requests still ran on them: one that comes back is not empty.
    pub(super) departed: Mutex<HashMap<Box<str>, Weak<BackendState>>>,
    /// The service of the last version that was put into force. Set under the lock of `health`.
    pub(super) newest: Mutex<Weak<Service>>,
}

impl ServiceLive {
    pub(super) fn new(name: &str, health: ServiceHealth, workers: usize, journal: Arc<Journal>) -> Self {
        Self {
            name: name.into(),
            total: Arc::new(Total::new(workers)),
            journal,
            health: Mutex::new(health),
            falls: AtomicU64::new(0),
            check_delay: CheckDelay::default(),
            health_changed: Notify::new(),
            some_keep: AtomicBool::new(false),
            some_are_ejected: AtomicBool::new(false),
            admitted: AtomicU32::new(0),
            retrying: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            connections: Connections::default(),
            connected: SharedLimit::default(),
            hot: Mutex::default(),
            hot_table: Published::default(),
            fleet_bounds: FleetBounds::default(),
            moved: Mutex::default(),
            limiter: Mutex::default(),
            quic_ids: Mutex::default(),
            standing_out: Mutex::default(),
            line: Line::default(),
            room: Notify::new(),
            handoff_copies: AtomicU32::new(0),
            handoff_changes: OnceLock::new(),
            turnover: AtomicU64::new(0),
            limits_connections: AtomicBool::new(false),
            backends: Mutex::default(),
            departed: Mutex::default(),
            newest: Mutex::default(),
        }
    }

    /// The health machine. Poisoning is ignored: its methods leave it consistent.
    pub fn health(&self) -> MutexGuard<'_, ServiceHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who stands out from its peers. Locked by those who judge and those who show it, never for a request.
    pub(crate) fn standing_out(&self) -> MutexGuard<'_, StandingOut> {
        self.standing_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be room for a waiting request.
    pub(crate) fn tell_room(&self) {
        self.turnover.fetch_add(1, Relaxed);
        if self.line.handle_release() {
            self.room.notify_one();
        }
    }

    /// Wakes all that wait for room: the candidates, or how many requests each may have, have changed.
    pub(crate) fn wake_all(&self) {
        self.turnover.fetch_add(1, Relaxed);
        if self.line.handle_release() {
            self.room.notify_waiters();
        }
    }
}

/// The value of an affinity cookie that names a backend, under a policy without keys.
pub(crate) fn cookie_value(id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes())
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
