//! A version of the configuration with a worker's own part: pools and counters.

use super::ahead::Ahead;
use super::booked::{Booked, KeyInFlight};
use super::pool::Pool;
use crate::codec::http2;
use crate::dispatcher::Budget;
use crate::net::timer::Timers;
use crate::routes::{NameTable, RouteTable};
use crate::snapshot::{HotTable, ListenerTable, Service, Snapshot};
use ringway_config::model::{self, HttpListener, Protocol};
use ringway_ring::{Hash, Sketch};
use ringway_telemetry::counters::{BackendCounters, ServiceCounters};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The snapshot with this worker's own part: pools and counters.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    /// In the order of the configuration. What is the same in the next version is the same value.
    pub(crate) services: Box<[Rc<WorkerService>]>,
    pub(super) timers: Rc<Timers>,
}

impl View {
    /// A listener's HTTP part.
    #[inline]
    pub(crate) fn http(&self, listener: usize) -> &HttpListener {
        match &self.snapshot.config.listeners[listener].protocol {
            Protocol::Http(http) => http,
            Protocol::Tcp(_) | Protocol::Udp(_) => {
                unreachable!("invariant: a listener's protocol is part of its identity")
            }
        }
    }

    /// What an HTTP listener's requests are looked up in.
    #[inline]
    pub(crate) fn routes(&self, listener: usize) -> &RouteTable {
        match &self.snapshot.tables[listener] {
            ListenerTable::Http(routes) => routes,
            ListenerTable::Tcp(_) | ListenerTable::Udp => {
                unreachable!("invariant: a listener's protocol is part of its identity")
            }
        }
    }

    /// What the names are looked up in that a TCP listener's clients ask for.
    pub(crate) fn names(&self, listener: usize) -> &NameTable {
        match &self.snapshot.tables[listener] {
            ListenerTable::Tcp(names) => names,
            ListenerTable::Http(_) | ListenerTable::Udp => {
                unreachable!("invariant: a listener's protocol is part of its identity")
            }
        }
    }

    /// This worker's part of the service of that name.
    pub(crate) fn service(&self, name: &str) -> Option<&Rc<WorkerService>> {
        self.snapshot.index_of(name).and_then(|index| self.services.get(index))
    }

    /// The milliseconds that latencies fade by.
    pub(crate) fn millis(&self) -> u32 {
        self.timers.millis() as u32
    }
}

/// This worker's part of a service.
pub(crate) struct WorkerService {
    pub(crate) service: Arc<Service>,
    pub(crate) live: Rc<WorkerLive>,
    pub(crate) counters: Arc<ServiceCounters>,
    /// In slot order.
    pub(crate) upstreams: Box<[Rc<Upstream>]>,
}

impl WorkerService {
    /// Counts a request of a key that was in flight for so long.
    #[inline]
    pub(crate) fn count_key(&self, hash: Hash, micros: u64) {
        self.count_time(hash, micros, 1);
    }

    /// Counts so much time in flight of a key, and so many requests that had it.
    #[inline]
    fn count_time(&self, hash: Hash, micros: u64, requests: u64) {
        let Some(params) = &self.service.config.hot_keys else { return };
        let cost = ringway_ring::hot_cost(micros, params.half_life_millis);
        if self.live.sketch.borrow_mut().count_part(hash, cost, requests) {
            self.begin_use();
        }
    }

    /// Books what a key has been in flight, from the last time on. It counts as a request once it lasts, and again after each half-life: for as
    /// long as it is there it is remembered.
    pub(super) fn book_key(&self, key: KeyInFlight, now: Instant) {
        let Some(params) = &self.service.config.hot_keys else { return };
        let half_life = Duration::from_millis(params.half_life_millis.max(1).into());
        let requests = |until: Instant| 1 + (until - key.since).as_millis() as u64 / half_life.as_millis() as u64;
        let before = self.live.booked.until(key.since);
        let micros = (now - before.unwrap_or(key.since)).as_micros() as u64;
        self.count_time(key.hash, micros, requests(now) - before.map_or(0, requests));
    }

    /// Counts what of a key that was in flight for so long is not booked yet.
    #[cold]
    pub(crate) fn count_rest(&self, key: KeyInFlight, micros: u64) {
        match self.live.booked.until(key.since) {
            Some(until) => {
                let booked = (until - key.since).as_micros() as u64;
                self.count_time(key.hash, micros.saturating_sub(booked), 0);
            }
            None => self.count_key(key.hash, micros),
        }
    }

    /// Books now what would be booked if the key had been in the table since it is in flight.
    pub(crate) fn make_up_for(&self, key: KeyInFlight) {
        if let Some(until) = self.live.booked.until(key.since) {
            self.count_key(key.hash, (until - key.since).as_micros() as u64);
        }
    }

    /// Owners of a key that is hot, 0 of any other.
    #[inline]
    pub(crate) fn owners_of(&self, hash: Hash) -> u16 {
        if !self.live.used.replace(true) {
            self.begin_use();
        }
        self.live.hot.borrow().get(&hash).copied().unwrap_or(0)
    }

    /// Its keys are reported, and which are hot is taken over, from now on.
    #[cold]
    pub(super) fn begin_use(&self) {
        if !self.live.listed.replace(true) {
            self.live.in_use.borrow_mut().push(self.service.config.name.as_str().into());
        }
    }

    /// Whether it goes on being in use; `more`: there is something to report, or to take over.
    pub(super) fn stays_in_use(&self, more: bool) -> bool {
        let stays = self.live.used.replace(false) || more;
        self.live.listed.set(stays);
        stays
    }

    /// This worker's part of a backend.
    pub(super) fn upstream(&self, id: &str) -> Option<&Rc<Upstream>> {
        self.service.slot_of(id).map(|slot| &self.upstreams[usize::from(slot.0)])
    }
}

/// This worker's part of a service that outlives views.
pub(crate) struct WorkerLive {
    pub(super) counters: Arc<ServiceCounters>,
    /// Budget of retries.
    pub(crate) retries: RefCell<Budget>,
    /// Budget of hedges.
    pub(crate) hedges: RefCell<Budget>,
    /// Counts keys, if hot ones are looked for.
    pub(super) sketch: RefCell<Sketch>,
    /// A backend has been chosen for a key since the last tick.
    used: Cell<bool>,
    /// It is in the list of those in use.
    listed: Cell<bool>,
    /// The worker's services that are in use.
    pub(super) in_use: Rc<RefCell<Vec<Box<str>>>>,
    /// Until when the worker has booked what is in flight.
    booked: Rc<Booked>,
    /// Owners of each hot key, as of the last tick.
    pub(crate) hot: RefCell<Arc<HotTable>>,
}

impl WorkerLive {
    /// Nothing has been counted yet. `in_use` and `booked` are the worker's.
    pub(super) fn new(
        counters: Arc<ServiceCounters>,
        in_use: &Rc<RefCell<Vec<Box<str>>>>,
        booked: &Rc<Booked>,
    ) -> Self {
        Self {
            counters,
            retries: RefCell::default(),
            hedges: RefCell::default(),
            sketch: RefCell::default(),
            used: Cell::default(),
            listed: Cell::default(),
            in_use: Rc::clone(in_use),
            booked: Rc::clone(booked),
            hot: RefCell::default(),
        }
    }

    /// Counts a request that may have more than one attempt.
    pub(crate) fn count(&self, config: &model::Service, now_millis: u64) {
        self.retries.borrow_mut().count(now_millis);
        if config.hedge.is_some() {
            self.hedges.borrow_mut().count(now_millis);
        }
    }
}

/// This worker's part of a backend.
pub(crate) struct Upstream {
    pub(crate) pool: Pool,
    /// Connections that carry several requests at once.
    pub(crate) shared: http2::Shared,
    /// Connections that are opened before a request needs one.
    pub(crate) ahead: Ahead,
    pub(crate) counters: Arc<BackendCounters>,
}
