//! A worker: one thread, one current-thread runtime, its own listening sockets, pools, buffers and timers.
//!
//! Nothing of the hot path crosses a thread but the in-flight counts and the snapshot pointer.

pub(crate) mod budget;
pub(crate) mod per_ip;

use crate::ambient;
use crate::codec::http2::{self, StreamTasks};
use crate::downstream::accept;
use crate::downstream::handshake;
use crate::downstream::handshake::TurnedAway;
use crate::l4::udp;
use crate::net::buffers::Buffers;
use crate::net::shortage::Shortage;
use crate::net::timer::{Deadline, TICK, Timer, Timers};
use crate::net::transport::{Detached, Listener, Network, Transport};
use crate::planted::{self, Fault};
use crate::snapshot::connection_slot::Wanted;
use crate::snapshot::{Current, HotTable, Service, Snapshot};
use crate::upstream::Pool;
use crate::worker::budget::Budget;
use crate::worker::per_ip::PerIp;
use ringway_config::model;
use ringway_message::{RequestHead, ResponseHead};
use ringway_ring::{Published, Reader, Sketch};
use ringway_telemetry::access::AccessLog;
use ringway_telemetry::cells::{BackendCells, Registry as Cells, ServiceCells, WorkerCells};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};

mod crew;
mod gate;
mod seat;
mod tasks;

pub(crate) use crew::Crew;
pub(crate) use gate::{Gate, GateKey, GateKind, Listening, OpenConnection};
pub(crate) use seat::{Full, Fullness, Places, Seat, WaitingForSeat};

/// How long a connection waits for its listener to be heard of.
const EARLY_TIME: Duration = Duration::from_secs(2);
/// Closed gates that are remembered.
const RETIRED_MAX: usize = 64;

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) current: Arc<Current>,
    pub(crate) cells: Arc<Cells>,
    /// Where connections to backends are opened.
    pub(crate) network: Network,
    /// When the process began: the clock of rate limits.
    pub(crate) started: Instant,
    /// Makes the hashes of rate limits' keys nobody's to choose.
    pub(crate) secret: u64,
    /// Tells ids of this process from those of others.
    pub(crate) instance: u64,
    /// How many workers there are.
    pub(crate) workers: usize,
    /// Client connections open now, or on their way to it, worker by worker.
    pub(crate) open: Box<[AtomicUsize]>,
    /// The workers' command channels; set once all are started.
    pub(crate) commands: OnceLock<Vec<mpsc::UnboundedSender<Command>>>,
    /// Places of client connections that are taken, over all workers: see [`Seat`].
    pub(crate) connections: AtomicUsize,
    /// How many of them are flows of datagrams.
    pub(crate) flows: AtomicUsize,
    /// What this host is short of.
    pub(crate) shortage: Arc<Shortage>,
    /// Client connections by address, where a listener limits them.
    pub(crate) per_ip: PerIp,
    /// Where access log lines go; changes with the configuration.
    pub(crate) access: Arc<Published<Option<AccessSink>>>,
}

/// An access log's form and its writer.
pub(crate) struct AccessSink {
    pub(crate) format: ringway_telemetry::access::Format,
    pub(crate) sender: std::sync::mpsc::SyncSender<Vec<u8>>,
}

/// What the control side asks of a worker.
pub(crate) enum Command {
    /// Serve this listening socket, whose places are `seats`; let go of `open` once it is closed.
    Listen { key: GateKey, socket: Listening, seats: Arc<Places>, open: Arc<()> },
    /// Go on with the sockets of a listener under another key: it speaks something else from now on.
    HandOver { from: GateKey, to: GateKey, seats: Arc<Places> },
    /// Serve this connection, which another worker has accepted and has no time for.
    Adopt { key: GateKey, seat: Seat, stream: Detached, peer: SocketAddr },
    /// Take what its queue holds, close it, let its connections end after their current request.
    Unlisten { key: GateKey },
    /// The snapshot has changed: idle workers drop what it no longer names.
    Refresh,
    /// Close an idle connection to a backend, if there is one: it is wanted elsewhere.
    GiveWay(Arc<Wanted>),
    /// As Unlisten for all; answers when the last connection has ended.
    Drain { done: oneshot::Sender<()> },
    /// End now.
    Stop,
}

/// A worker's own state. Never leaves its thread.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) buffers: Buffers,
    pub(crate) timers: Rc<Timers>,
    pub(crate) cells: Arc<WorkerCells>,
    pub(crate) scratch: RefCell<Scratch>,
    pub(crate) access: RefCell<Option<(usize, AccessLog)>>,
    draining: Cell<bool>,
    view: RefCell<Rc<View>>,
    snapshots: RefCell<Reader<Snapshot>>,
    sinks: RefCell<Reader<Option<AccessSink>>>,
    pools: RefCell<BTreeMap<PoolKey, Pooled>>,
    services: RefCell<HashMap<Box<str>, Rc<WorkerLive>>>,
    listening: RefCell<HashMap<GateKey, Rc<Gate>, BuildHasherDefault<DefaultHasher>>>,
    /// Gates that were closed last: a connection may still be on its way here from another worker.
    retired: RefCell<VecDeque<Rc<Gate>>>,
    /// Connections that other workers have sent here before this one has heard of their listener. Each has its place.
    early: RefCell<Vec<Early>>,
    open: Cell<usize>,
    /// Clients that are being told why they are turned away.
    pub(crate) farewells: Cell<u32>,
    /// Accept loops that have a socket.
    accepting: Cell<usize>,
    /// Tasks for streams of HTTP/2.
    pub(crate) streams: StreamTasks,
    /// Buffers and windows of all connections of HTTP/2.
    pub(crate) http2_memory: Rc<ringway_http2::Memory>,
    /// Copies of requests under way.
    pub(crate) mirroring: Cell<usize>,
    /// Bytes of requests' bodies that are kept to be sent again.
    pub(crate) kept_bytes: Cell<usize>,
    /// Answers being compressed.
    pub(crate) compressing: Cell<usize>,
    all_closed: Notify,
    random: Cell<u64>,
    /// Ids given out.
    ids: Cell<u64>,
}

/// See [`Worker::accepting`].
pub(crate) struct Accepting(Rc<Worker>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accepting.set(self.0.accepting.get() - 1);
        self.0.all_closed.notify_one();
    }
}

/// Service and backend.
type PoolKey = (Box<str>, Box<str>);

/// Connections to a backend, of use only at this address and for what is spoken there.
struct Pooled {
    address: SocketAddr,
    transport: u64,
    upstream: Rc<Upstream>,
}

/// A connection of a listener that is not known here yet.
struct Early {
    key: GateKey,
    seat: Seat,
    stream: Detached,
    peer: SocketAddr,
    /// Longer than a command takes from one worker to the next.
    until: Deadline,
}

/// Tables that are reused from request to request; borrowed only between two waits.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    pub(crate) key: Vec<u8>,
    /// What a head that came over HTTP/2 stands in.
    pub(crate) arena: Vec<u8>,
    /// A head that goes out over HTTP/2.
    pub(crate) block: Vec<u8>,
}

/// The snapshot with this worker's own part: pools and counters.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) services: Box<[WorkerService]>,
    timers: Rc<Timers>,
}

impl View {
    /// The milliseconds that latencies fade by.
    pub(crate) fn millis(&self) -> u32 {
        self.timers.millis() as u32
    }
}

/// This worker's part of a service.
pub(crate) struct WorkerService {
    pub(crate) service: Arc<Service>,
    pub(crate) live: Rc<WorkerLive>,
    pub(crate) cells: Arc<ServiceCells>,
    /// In slot order.
    pub(crate) upstreams: Box<[Rc<Upstream>]>,
}

/// This worker's part of a service that outlives views.
pub(crate) struct WorkerLive {
    cells: Arc<ServiceCells>,
    /// Of retries.
    pub(crate) retries: RefCell<Budget>,
    /// Of second tries beside the first.
    pub(crate) hedges: RefCell<Budget>,
    /// Counts keys, if hot ones are looked for.
    pub(crate) sketch: RefCell<Option<Box<Sketch>>>,
    /// Owners of each hot key, as of the last tick.
    pub(crate) hot: RefCell<Arc<HotTable>>,
}

impl WorkerLive {
    /// Counts a request, of which more than one try may be made.
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
    pub(crate) cells: Arc<BackendCells>,
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let mut snapshots = Reader::new(Arc::clone(&shared.current));
        let snapshot = Arc::clone(snapshots.read());
        let cells = shared.cells.worker();
        let timers = Timers::new(ambient::now());
        let none = View { snapshot: Arc::clone(&snapshot), services: Box::default(), timers: Rc::clone(&timers) };
        let worker = Self {
            index,
            buffers: Buffers::default(),
            timers,
            cells,
            scratch: RefCell::default(),
            access: RefCell::default(),
            draining: Cell::new(false),
            view: RefCell::new(Rc::new(none)),
            snapshots: RefCell::new(snapshots),
            sinks: RefCell::new(Reader::new(Arc::clone(&shared.access))),
            pools: RefCell::default(),
            services: RefCell::default(),
            listening: RefCell::default(),
            retired: RefCell::default(),
            early: RefCell::default(),
            open: Cell::new(0),
            farewells: Cell::new(0),
            accepting: Cell::new(0),
            streams: StreamTasks::default(),
            http2_memory: http2::memory(),
            mirroring: Cell::new(0),
            kept_bytes: Cell::new(0),
            compressing: Cell::new(0),
            all_closed: Notify::new(),
            random: Cell::new(0x9e37_79b9_7f4a_7c15 ^ (index as u64 + 1) << 32 ^ shared.instance),
            ids: Cell::new(0),
            shared,
        };
        let view = worker.build_view(snapshot);
        *worker.view.borrow_mut() = Rc::new(view);
        Rc::new(worker)
    }

    /// The snapshot in force, read once per request.
    pub(crate) fn view(&self) -> Rc<View> {
        let mut snapshots = self.snapshots.borrow_mut();
        let snapshot = snapshots.read();
        let view = self.view.borrow();
        if Arc::ptr_eq(snapshot, &view.snapshot) {
            return Rc::clone(&view);
        }
        let fresh = Rc::new(self.build_view(Arc::clone(snapshot)));
        drop(view);
        *self.view.borrow_mut() = Rc::clone(&fresh);
        fresh
    }

    /// Pools and counters of what is the same stay; the others' go.
    fn build_view(&self, snapshot: Arc<Snapshot>) -> View {
        let mut old_pools = std::mem::take(&mut *self.pools.borrow_mut());
        let mut pools = self.pools.borrow_mut();
        let mut lives = self.services.borrow_mut();
        lives.retain(|name, _| snapshot.service(name).is_some());
        let mut gone = Vec::new();
        let services = snapshot
            .services
            .iter()
            .map(|service| {
                let name = service.config.name.as_str();
                let live = lives.entry(name.into()).or_insert_with(|| {
                    Rc::new(WorkerLive {
                        cells: self.shared.cells.service(name),
                        retries: RefCell::default(),
                        hedges: RefCell::default(),
                        sketch: RefCell::default(),
                        hot: RefCell::default(),
                    })
                });
                let upstreams = service
                    .backends
                    .iter()
                    .map(|backend| {
                        let key: PoolKey = (name.into(), backend.config.id.as_str().into());
                        let (address, transport) = (backend.config.address, service.transport);
                        let upstream = match old_pools.remove(&key) {
                            Some(old) if old.address == address && old.transport == transport => old.upstream,
                            old => {
                                // A backend that has moved keeps its counters.
                                let cells = old.as_ref().map(|old| Arc::clone(&old.upstream.cells));
                                gone.extend(old);
                                let cells = cells.unwrap_or_else(|| self.shared.cells.backend(name, &key.1));
                                Rc::new(Upstream { pool: Pool::default(), shared: <_>::default(), cells })
                            }
                        };
                        pools.insert(key, Pooled { address, transport, upstream: Rc::clone(&upstream) });
                        upstream
                    })
                    .collect();
                let cells = Arc::clone(&live.cells);
                WorkerService { service: Arc::clone(service), live: Rc::clone(live), cells, upstreams }
            })
            .collect();
        for Pooled { upstream, .. } in old_pools.values().chain(&gone) {
            if planted::is_planted(Fault::IdleCounted) {
                continue;
            }
            upstream.pool.close(&self.cells);
            upstream.shared.close();
        }
        View { snapshot, services, timers: Rc::clone(&self.timers) }
    }

    /// The newest view that has the gate's listener, and the listener's index there.
    #[inline]
    pub(crate) fn listener(&self, gate: &Gate) -> Option<(Rc<View>, usize)> {
        let view = self.view();
        let mut latest = gate.latest.borrow_mut();
        if !latest.as_ref().is_some_and(|(known, _)| Rc::ptr_eq(known, &view))
            && let Some(index) = view.snapshot.config.listeners.iter().position(|listener| gate.key.is(listener))
        {
            let name = view.snapshot.config.listeners[index].name.as_str();
            if **gate.name.borrow() != *name {
                *gate.name.borrow_mut() = name.into();
            }
            *latest = Some((view, index));
        }
        latest.as_ref().map(|(view, index)| (Rc::clone(view), *index))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub(crate) fn timer(&self) -> Timer {
        self.timers.timer()
    }

    /// A number for "any backend": not secret, not reproducible.
    pub(crate) fn random(&self) -> u64 {
        // xorshift64*, Vigna 2016.
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 32 hex digits that no other process, worker or call gives.
    pub(crate) fn unique_id(&self) -> String {
        self.ids.set(self.ids.get() + 1);
        format!("{:016x}{:04x}{:012x}", self.shared.instance, self.index, self.ids.get())
    }

    /// A line of the access log, if there is one.
    pub(crate) fn log(&self, line: impl FnOnce(&mut AccessLog) -> u64) {
        let mut sinks = self.sinks.borrow_mut();
        let in_force = sinks.read();
        let mut access = self.access.borrow_mut();
        let Some(sink) = in_force.as_ref() else {
            *access = None;
            return;
        };
        let identity = Arc::as_ptr(in_force) as usize;
        if access.as_ref().is_none_or(|(current, _)| *current != identity) {
            if let Some((_, old)) = access.as_mut() {
                self.cells.access_log_lost.add(old.flush());
            }
            *access = Some((identity, AccessLog::new(sink.format, sink.sender.clone())));
        }
        if let Some((_, log)) = access.as_mut() {
            self.cells.access_log_lost.add(line(log));
        }
    }

    pub(crate) fn logs_access(&self) -> bool {
        self.sinks.borrow_mut().read().is_some()
    }

    /// Counts a connection for as long as the value lives, and a panic that ends it.
    pub(crate) fn connection(self: &Rc<Self>, gate: &Rc<Gate>, seat: Option<Seat>) -> OpenConnection {
        self.open.set(self.open.get() + 1);
        self.cells.connections.increment();
        self.cells.accepted.increment();
        OpenConnection { worker: Rc::clone(self), gate: Rc::clone(gate), _seat: seat, place: None }
    }

    /// Counts an accept loop for as long as the value lives.
    pub(crate) fn accepting(self: &Rc<Self>) -> Accepting {
        self.accepting.set(self.accepting.get() + 1);
        Accepting(Rc::clone(self))
    }

    /// Whether idle connections of a listener that goes close one by one.
    fn spreads(&self) -> bool {
        !self.view().snapshot.config.drain_spread.is_zero()
    }

    /// Nothing is open, about to be accepted, or on its way here from another worker.
    fn is_empty(&self) -> bool {
        self.open.get() == 0 && self.accepting.get() == 0 && self.shared.open[self.index].load(Relaxed) == 0
    }

    fn listen(self: &Rc<Self>, key: GateKey, socket: Listening, seats: Arc<Places>, open: Arc<()>) {
        let address = match &socket {
            Listening::Connections(socket) => socket.local_addr(),
            Listening::Datagrams(socket) => socket.local_addr(),
            #[cfg(test)]
            Listening::Memory(socket) => Ok(socket.address()),
        };
        let address = address.map_or_else(|_| key.address.to_string(), |address| address.to_string());
        let gate = self.gate(key.clone(), address.into(), seats);
        let (worker, name) = (Rc::clone(self), Rc::clone(&gate));
        let what = "the accept loop of a listener";
        let listening = match socket {
            Listening::Connections(socket) => Listener::attach(socket)
                .map(|socket| self.spawn(what, accept::run(worker, Rc::clone(&gate), socket, open))),
            #[cfg(test)]
            Listening::Memory(socket) => {
                self.spawn(what, accept::run(worker, Rc::clone(&gate), Listener::Memory(socket), open));
                Ok(())
            }
            Listening::Datagrams(socket) => tokio::net::UdpSocket::from_std(socket)
                .map(|socket| self.spawn(what, udp::run(worker, Rc::clone(&gate), socket, open))),
        };
        match listening {
            Ok(()) => drop(self.listening.borrow_mut().insert(key, gate)),
            Err(error) => tracing::error!(listener = %name.name(), %error, "listening socket is unusable"),
        }
        self.adopt_early();
    }

    /// The gate that is open for a key now.
    pub(crate) fn listening_on(&self, key: &GateKey) -> Option<Rc<Gate>> {
        self.listening.borrow().get(key).cloned()
    }

    fn gate(&self, key: GateKey, address_text: Arc<str>, seats: Arc<Places>) -> Rc<Gate> {
        let gate = Rc::new(Gate {
            key,
            name: RefCell::new("".into()),
            address_text,
            heir: RefCell::default(),
            closing: Cell::new(false),
            leave_until: Cell::new(Deadline::NEVER),
            seats,
            stop: Notify::new(),
            latest: RefCell::default(),
        });
        // For its name.
        let _ = self.listener(&gate);
        gate
    }

    /// The socket goes on as it is, with what its queue holds; connections of before end as those of a listener that goes.
    fn hand_over(self: &Rc<Self>, from: &GateKey, to: GateKey, seats: Arc<Places>) {
        let old = self.listening.borrow().get(from).cloned();
        if let Some(old) = old {
            let heir = self.gate(to.clone(), Arc::clone(&old.address_text), seats);
            *old.heir.borrow_mut() = Some(Rc::clone(&heir));
            self.listening.borrow_mut().insert(to, heir);
            self.unlisten(from);
        }
        self.adopt_early();
    }

    fn unlisten(&self, key: &GateKey) {
        if let Some(gate) = self.listening.borrow_mut().remove(key) {
            let spread = self.view().snapshot.config.drain_spread;
            gate.leave_until.set(if spread.is_zero() { self.timers.now() } else { self.timers.deadline(spread) });
            gate.closing.set(true);
            gate.stop.notify_one();
            let mut retired = self.retired.borrow_mut();
            retired.push_back(gate);
            if retired.len() > RETIRED_MAX {
                retired.pop_front();
            }
        }
        self.timers.wake_all();
    }

    /// A worker that has clearly fewer connections than this one. The kernel spreads connections over the workers'
    /// sockets by a hash: with few connections, one worker may get most of them while another idles.
    pub(crate) fn less_busy(&self) -> Option<(usize, &mpsc::UnboundedSender<Command>)> {
        if self.shared.workers == 1 || self.is_draining() {
            return None;
        }
        let counts = self.shared.open.iter().map(|open| open.load(Relaxed)).enumerate();
        let (index, fewest) = counts.min_by_key(|(_, open)| *open)?;
        // The connection that is about to be given away is counted here already.
        let own = self.shared.open[self.index].load(Relaxed).saturating_sub(1);
        let clearly = own > fewest + 1 + fewest / 8;
        if clearly { Some((index, self.shared.commands.get()?.get(index)?)) } else { None }
    }

    fn adopt(self: &Rc<Self>, key: &GateKey, seat: Seat, stream: Detached, peer: SocketAddr) {
        let open = self.listening.borrow().get(key).cloned();
        let gate = open.or_else(|| self.retired.borrow().iter().rev().find(|gate| gate.key == *key).cloned());
        let Some(gate) = gate else {
            // Another worker has heard of the listener first, and has accepted on it already.
            let early = Early { key: key.clone(), seat, stream, peer, until: self.timers.deadline(EARLY_TIME) };
            self.early.borrow_mut().push(early);
            return;
        };
        if let Ok(stream) = stream.attach() {
            serve(self, &gate, seat, stream, peer);
        }
    }

    /// Serves those that came before their listener was known here.
    fn adopt_early(self: &Rc<Self>) {
        for Early { key, seat, stream, peer, .. } in self.early.take() {
            self.adopt(&key, seat, stream, peer);
        }
    }

    /// Once a tick: timers. Once a second: idle upstream connections, spare memory.
    fn tick(&self, ticks: u64) {
        self.timers.advance(ambient::now());
        if self.shared.shortage.is_tight() {
            self.release_idle();
        }
        if let Some((_, log)) = self.access.borrow_mut().as_mut() {
            self.cells.access_log_lost.add(log.flush());
        }
        // Who writes no lines any more holds no end of their writer, who waits for the last to be dropped.
        if !self.logs_access() {
            *self.access.borrow_mut() = None;
        }
        if ticks.is_multiple_of(5) {
            for service in &self.view().services {
                self.report_hot_keys(service);
            }
        }
        if ticks.is_multiple_of(20) {
            let now = self.timers.now();
            self.early.borrow_mut().retain(|early| early.until >= now);
            if self.index == 0 {
                self.shared.shortage.look();
            }
            for service in &self.view().services {
                let oldest = self.timers.before(service.service.config.pool.idle_timeout);
                for upstream in &service.upstreams {
                    upstream.pool.expire(oldest, &self.cells);
                    upstream.shared.expire(oldest, self.timers.now());
                }
            }
        }
        if ticks.is_multiple_of(200) {
            self.buffers.trim();
            self.streams.trim();
            self.http2_memory.trim();
        }
    }
}

impl Worker {
    /// The milliseconds that latencies fade by.
    pub(crate) fn millis(&self) -> u32 {
        self.timers.millis() as u32
    }

    /// Closes the connections to backends that are idle; gives how many they were.
    pub(crate) fn release_idle(&self) -> usize {
        self.pools.borrow().values().map(|pooled| pooled.upstream.pool.release(&self.cells)).sum()
    }

    /// Closes an idle connection to a service's backend, or to any of them. `false`: there is none.
    pub(crate) fn close_idle(&self, service: &str, backend: Option<&str>) -> bool {
        let pools = self.pools.borrow();
        let close = |pooled: &Pooled| pooled.upstream.pool.close_one(&self.cells) || pooled.upstream.shared.close_one();
        match backend {
            Some(backend) => pools.get(&(service.into(), backend.into())).is_some_and(close),
            None => pools.iter().filter(|((name, _), _)| **name == *service).any(|(_, pooled)| close(pooled)),
        }
    }

    /// Asks all other workers for something.
    pub(crate) fn ask_others(&self, command: impl Fn() -> Command) {
        let commands = self.shared.commands.get().into_iter().flatten().enumerate();
        for (_, sender) in commands.filter(|(index, _)| *index != self.index) {
            // A worker that has ended has nothing to give.
            let _ = sender.send(command());
        }
    }

    /// Idle connections to a service's backend, one that several share counted among them.
    #[cfg(test)]
    pub(crate) fn idle_to(&self, service: &str, backend: &str) -> usize {
        let pools = self.pools.borrow();
        let pooled = pools.get(&(service.into(), backend.into()));
        pooled.map_or(0, |pooled| pooled.upstream.pool.len())
    }

    /// All idle connections, and client connections that are open.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.pools.borrow().values().map(|pooled| pooled.upstream.pool.len()).sum(), self.open.get())
    }

    /// Tells the driver what keys this worker has seen, and takes over which are hot.
    fn report_hot_keys(&self, this: &WorkerService) {
        let Some(params) = this.service.config.hot_keys else {
            this.live.sketch.replace(None);
            return;
        };
        let least = params.leave / this.service.backends.len().max(1) as f64 / 2.0;
        let report = this.live.sketch.borrow_mut().get_or_insert_default().report(least);
        let mut hot = this.service.live.hot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        hot.handle_report(self.index, report);
        drop(hot);
        *this.live.hot.borrow_mut() = this.service.live.hot_table.load();
    }
}

/// Runs a worker until its commands end; tells once whether it has begun.
pub(crate) fn run(
    index: usize,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
    started: oneshot::Sender<std::io::Result<()>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // How many events one wait takes in: more than a busy worker has ready at once.
        .max_io_events_per_tick(512)
        .build_local(tokio::runtime::LocalOptions::default());
    // Who does not wait for that has given up, and says so by `Stop`.
    let runtime = match runtime {
        Ok(runtime) => {
            let _ = started.send(Ok(()));
            runtime
        }
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    shared.shortage.count_idle_use();
    runtime.block_on(async move { work(Worker::new(index, shared), commands).await });
    // Connections that are still there have outlived their drain.
    runtime.shutdown_background();
}

/// Does what the control side asks, and what time brings, until there are no more commands.
pub(crate) async fn work(worker: Rc<Worker>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut ticker = tokio::time::interval(TICK);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut ticks = 0;
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                None | Some(Command::Stop) => break,
                Some(Command::Listen { key, socket, seats, open }) => worker.listen(key, socket, seats, open),
                Some(Command::HandOver { from, to, seats }) => worker.hand_over(&from, to, seats),
                Some(Command::Adopt { key, seat, stream, peer }) => worker.adopt(&key, seat, stream, peer),
                Some(Command::Unlisten { key }) => worker.unlisten(&key),
                Some(Command::Refresh) => drop(worker.view()),
                Some(Command::GiveWay(wanted)) => {
                    let (service, backend) = wanted.names();
                    wanted.handle(|| worker.close_idle(service, backend));
                }
                Some(Command::Drain { done }) => {
                    worker.draining.set(true);
                    let gates: Vec<_> = worker.listening.borrow().keys().cloned().collect();
                    gates.iter().for_each(|key| worker.unlisten(key));
                    let drained = Rc::clone(&worker);
                    worker.spawn("a drain", async move {
                        while !drained.is_empty() {
                            // What is on its way here may be lost there: that is nobody's to tell.
                            let _ = tokio::time::timeout(TICK, drained.all_closed.notified()).await;
                        }
                        // The other end may have stopped waiting: its time was up.
                        let _ = done.send(());
                    });
                }
            },
            _ = ticker.tick() => {
                ticks += 1;
                worker.tick(ticks);
            }
        }
    }
    worker.tick(0);
}

/// Starts the task that serves one client connection.
pub(crate) fn serve(worker: &Rc<Worker>, gate: &Rc<Gate>, seat: Seat, stream: Transport, peer: SocketAddr) {
    let Some((view, listener)) = worker.listener(gate) else { return };
    let config = &view.snapshot.config.listeners[listener];
    let mut open = worker.connection(gate, Some(seat));
    // Who begins with a PROXY header stands for somebody else, who is counted once he is known.
    let stands_in = crate::net::trusted::is_trusted(&config.proxy_protocol, peer.ip().to_canonical());
    if !stands_in && !open.enter(config, peer) {
        worker.shared.cells.error("", TurnedAway::PerIp.reason());
        handshake::turn_away(worker, Some(open), stream, TurnedAway::PerIp, handshake::speech(&view, listener));
        return;
    }
    worker.spawn("a connection", handshake::serve(open, stream, peer, view, listener));
}
