//! A version of the configuration with a worker's own part: pools and counters.

use super::ahead::Ahead;
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
        let Some(params) = &self.service.config.hot_keys else { return };
        let cost = ringway_ring::hot_cost(micros, params.half_life_millis);
        if self.live.sketch.borrow_mut().count(hash, cost) {
            self.begin_use();
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
    /// Owners of each hot key, as of the last tick.
    pub(crate) hot: RefCell<Arc<HotTable>>,
}

impl WorkerLive {
    /// Nothing has been counted yet. `in_use`: the worker's list.
    pub(super) fn new(counters: Arc<ServiceCounters>, in_use: &Rc<RefCell<Vec<Box<str>>>>) -> Self {
        Self {
            counters,
            retries: RefCell::default(),
            hedges: RefCell::default(),
            sketch: RefCell::default(),
            used: Cell::default(),
            listed: Cell::default(),
            in_use: Rc::clone(in_use),
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
