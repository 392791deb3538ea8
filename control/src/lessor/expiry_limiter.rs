//! Which of the leases without heartbeats may go. When many backends of a service fall silent together, the network is to
//! blame more often than they are: a few go, the others stay until somebody has heard of them or an operator has looked.

use crate::state::parsed::Parsed;
use crate::state::{Backend, BackendState, Key, Object, State};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Share of a service's leased backends that may expire within [`STORM_WINDOW`], in percent; one always may.
const STORM_PERCENT: usize = 20;
const STORM_WINDOW: Duration = Duration::from_secs(10);
/// A storm that has grown no further for this long, and of which no more is overdue than may go at once, was some hosts' death.
const CALM: Duration = Duration::from_secs(60);
/// Leases that expire in one entry of the log.
const EXPIRE_MAX: usize = 1000;

/// See the module.
pub(super) struct ExpiryLimiter {
    /// What has expired, by service: within the window, or since the storm began.
    gone: HashMap<String, VecDeque<Gone>>,
    /// Services of which more is overdue than may go. Their counts are kept until the storm is over.
    storms: BTreeMap<String, Storm>,
    frozen: BTreeMap<String, usize>,
    hanging: Hanging,
    parsed: Arc<Parsed>,
}

struct Storm {
    /// Backends that are overdue,
    overdue: usize,
    /// and since when there have been no more of them.
    since: Instant,
}

struct Gone {
    lease: u64,
    backends: usize,
    at: Instant,
}

/// What a service may still lose.
struct Room {
    /// Backends that may expire within a window.
    allowed: usize,
    /// Those that have.
    gone: usize,
    /// Registered ones that take traffic.
    ready: usize,
}

impl ExpiryLimiter {
    /// What the fleet's texts say.
    pub(super) fn parsed(&self) -> &Parsed {
        &self.parsed
    }

    /// `parsed`: what the fleet's texts say.
    pub(super) fn new(parsed: Arc<Parsed>) -> Self {
        Self {
            gone: HashMap::new(),
            storms: BTreeMap::new(),
            frozen: BTreeMap::new(),
            hanging: Hanging::default(),
            parsed,
        }
    }

    /// Services whose backends stay although they are overdue, and how many of them.
    pub(super) fn frozen(&self) -> &BTreeMap<String, usize> {
        &self.frozen
    }

    /// Those of the overdue leases that go now.
    pub(super) fn release(&mut self, state: &State, due: &[u64], now: Instant) -> Vec<u64> {
        self.frozen.clear();
        if due.is_empty() {
            self.storms.clear();
            return Vec::new();
        }
        self.hanging.follow(state);
        self.forget(state, due, now);
        let mut rooms = self.rooms();
        let mut ids = Vec::new();
        for id in due {
            if !self.is_held(state, *id, &rooms, now) && ids.len() < EXPIRE_MAX {
                self.let_go(*id, &mut rooms, now);
                ids.push(*id);
            }
        }
        ids
    }

    /// Ends storms that are over, and drops what does not count any more.
    fn forget(&mut self, state: &State, due: &[u64], now: Instant) {
        if !self.storms.is_empty() {
            let mut overdue: HashMap<usize, usize> = HashMap::new();
            for load in due.iter().flat_map(|id| self.hanging.of(*id)) {
                *overdue.entry(load.service).or_default() += 1;
            }
            let services = &self.hanging.services;
            let left = overdue.into_iter().map(|(service, count)| (services[service].name.as_str(), (service, count)));
            let left: HashMap<&str, (usize, usize)> = left.collect();
            self.storms.retain(|service, storm| {
                let Some(&(index, count)) = left.get(service.as_str()) else { return false };
                if count > storm.overdue {
                    storm.since = now;
                }
                storm.overdue = count;
                let few = count <= (services[index].leased * STORM_PERCENT / 100).max(1);
                !(few && now - storm.since >= CALM)
            });
        }
        for (service, list) in &mut self.gone {
            let storm = self.storms.contains_key(service);
            // A lease that is still there was proposed in vain.
            list.retain(|gone| !state.leases.contains_key(&gone.lease) && (storm || now - gone.at < STORM_WINDOW));
        }
        self.gone.retain(|_, list| !list.is_empty());
    }

    fn rooms(&self) -> Vec<Room> {
        let room = |service: &Service| {
            let gone = self.gone.get(&service.name).map_or(0, |list| list.iter().map(|gone| gone.backends).sum());
            // A share of as many as there were before the first of them went.
            let allowed = ((service.leased + gone) * STORM_PERCENT / 100).max(1);
            Room { allowed, gone, ready: service.ready }
        };
        self.hanging.services.iter().map(room).collect()
    }

    /// Whether a lease stays for the sake of any service that would lose by it.
    fn is_held(&mut self, state: &State, id: u64, rooms: &[Room], now: Instant) -> bool {
        let mut held = false;
        for loads in self.hanging.of(id).chunk_by(|a, b| a.service == b.service) {
            let name = self.hanging.name(loads[0].service);
            let room = &rooms[loads[0].service];
            let ready = loads.iter().filter(|load| load.ready).count();
            let storm = room.gone + loads.len() > room.allowed;
            if storm {
                self.storms.entry(name.to_owned()).or_insert(Storm { overdue: 0, since: now });
            } else if ready == 0 || ready < room.ready || is_written(&self.parsed, state, name) {
                continue;
            }
            held = true;
            *self.frozen.entry(name.to_owned()).or_default() += loads.len();
        }
        held
    }

    fn let_go(&mut self, lease: u64, rooms: &mut [Room], now: Instant) {
        for loads in self.hanging.of(lease).chunk_by(|a, b| a.service == b.service) {
            let room = &mut rooms[loads[0].service];
            room.gone += loads.len();
            room.ready -= loads.iter().filter(|load| load.ready).count();
            let name = self.hanging.name(loads[0].service).to_owned();
            self.gone.entry(name).or_default().push_back(Gone { lease, backends: loads.len(), at: now });
        }
    }
}

/// Whether a service has others in the fleet's texts. As long as those are not read, it has none: the registered one stays.
fn is_written(parsed: &Parsed, state: &State, service: &str) -> bool {
    parsed.written(state).is_some_and(|written| written.serves(service))
}

/// What hangs on which lease, as of one revision: read again only when that has changed.
#[derive(Default)]
struct Hanging {
    at: Option<(u64, u64)>,
    services: Vec<Service>,
    /// By lease, then by service.
    loads: Vec<Load>,
}

struct Service {
    name: String,
    leased: usize,
    ready: usize,
}

struct Load {
    lease: u64,
    /// Index of the service.
    service: usize,
    /// It takes traffic.
    ready: bool,
}

impl Hanging {
    fn follow(&mut self, state: &State) {
        let at = Some((state.epoch, state.revision));
        if self.at == at {
            return;
        }
        self.at = at;
        self.services.clear();
        self.loads.clear();
        for (key, entry) in state.objects.iter() {
            let (Key::Backend { service, .. }, Object::Backend(backend)) = (key, &*entry.object) else { continue };
            // In the order of their keys, those of a service stand together.
            if self.services.last().is_none_or(|last| last.name != *service) {
                self.services.push(Service { name: service.clone(), leased: 0, ready: 0 });
            }
            self.add(backend);
        }
        self.loads.sort_by_key(|load| (load.lease, load.service));
    }

    /// A backend of the last service.
    fn add(&mut self, backend: &Backend) {
        let index = self.services.len() - 1;
        let service = &mut self.services[index];
        let ready = backend.state == BackendState::Ready && backend.weight > 0;
        service.ready += usize::from(ready);
        if let Some(lease) = backend.lease {
            service.leased += 1;
            self.loads.push(Load { lease, service: index, ready });
        }
    }

    fn of(&self, lease: u64) -> &[Load] {
        let start = self.loads.partition_point(|load| load.lease < lease);
        let end = self.loads.partition_point(|load| load.lease <= lease);
        &self.loads[start..end]
    }

    fn name(&self, service: usize) -> &str {
        &self.services[service].name
    }
}
