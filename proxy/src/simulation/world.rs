//! The proxy as it runs, with its clients, backends and control side, on one thread in virtual time.

use super::backends::{self, Backend};
use super::checks;
use super::handing::Handing;
use super::happenings;
use super::ledger::Ledger;
use super::random::Random;
use super::setup::{self, SERVICES, Setup};
use super::{clients, counted, floods, sessions, streams};
use crate::ambient;
use crate::dispatcher::PerIp;
use crate::dispatcher::{Command, ListenerId, ListenerPermits, Listening, Occupancy, Shared};
use crate::net::shortage::Shortage;
use crate::net::transport::memory::{Network, Shape, Wire};
use crate::net::transport::{self};
use crate::overload::OverloadState;
use crate::run::{WorkerLoop, work};
use crate::snapshot::{Registry, Service, Snapshot};
use crate::worker::Worker;
use ringway_config::model::Config;
use ringway_health::{CheckFailure, Probe};
use ringway_ring::Published;
use ringway_telemetry::counters::Registry as Counters;
use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

pub(super) const WEB: &str = "10.1.0.1:80";
pub(super) const RAW: &str = "10.1.0.1:90";
/// How long clients go on.
const TIME: Duration = Duration::from_secs(30);
/// How long a busy client may take to end, and then how long resources that are kept for a while take to be released.
const LAST_TIME: Duration = Duration::from_secs(200);
const REST_TIME: Duration = Duration::from_secs(130);

pub(super) struct World {
    pub(super) network: Arc<Network>,
    pub(super) shared: Arc<Shared>,
    pub(super) workers: RefCell<Vec<Rc<Worker>>>,
    pub(super) loops: RefCell<Vec<Rc<WorkerLoop>>>,
    pub(super) backends: Vec<Rc<Backend>>,
    pub(super) listeners: RefCell<BTreeMap<SocketAddr, (ListenerId, Arc<ListenerPermits>)>>,
    ledger: RefCell<Ledger>,
    setup: RefCell<Setup>,
    /// What the operator has written.
    text: RefCell<String>,
    registry: Registry,
    over: Cell<bool>,
    changed: Cell<bool>,
    pub(super) unreachable: Cell<bool>,
    silenced: Cell<Option<Instant>>,
    /// What backends are working on: the request on each connection, by backend and number.
    pub(super) serving: RefCell<BTreeMap<(String, u16), (u64, Wire)>>,
    /// The same for HTTP/2 backends: backend, request, attempt.
    pub(super) streams: RefCell<BTreeSet<(String, u64, usize)>>,
    handing: RefCell<Handing>,
    /// Backends that flood at the moment: requests may be on their connections.
    flooding: Cell<usize>,
    /// Tasks of the scripts.
    pub(super) tasks: Cell<usize>,
}

impl World {
    pub(super) fn ledger(&self) -> RefMut<'_, Ledger> {
        self.ledger.borrow_mut()
    }

    pub(super) fn handing(&self) -> RefMut<'_, Handing> {
        self.handing.borrow_mut()
    }

    pub(super) fn setup(&self) -> Ref<'_, Setup> {
        self.setup.borrow()
    }

    /// The operator has written a new configuration.
    pub(super) fn replace(&self, setup: Setup) {
        self.text.replace(setup.text());
        self.setup.replace(setup);
        self.changed.set(true);
    }

    /// Whether anything has been put into force since the start: counts of an earlier version may be left.
    pub(super) fn was_changed(&self) -> bool {
        self.changed.get()
    }

    /// Whether a limit may have been lowered below the current count.
    pub(super) fn was_lowered(&self) -> bool {
        self.changed.get()
    }

    /// A connection has become dead.
    pub(super) fn note_silence(&self) {
        self.silenced.set(Some(ambient::now()));
    }

    pub(super) fn was_silenced_since(&self, begun: Instant) -> bool {
        self.silenced.get().is_some_and(|at| at >= begun)
    }

    /// Shared connections to a backend are about to be lost: their requests may have one more attempt, beyond all limits.
    pub(super) fn note_lost(&self, backend: &str) {
        let mut ledger = self.ledger();
        for (_, id, number) in self.streams.borrow().iter().filter(|(on, _, _)| on == backend) {
            if let Some(made) = ledger.of(*id, *number) {
                made.stale = true;
            }
        }
    }

    /// Some backend could not be connected to: waiting requests may have tried it.
    pub(super) fn was_unreachable(&self) -> bool {
        self.unreachable.get()
    }

    /// A backend begins to flood: any request may be on its connection, or be put there.
    pub(super) fn begin_flood(&self) {
        self.flooding.set(self.flooding.get() + 1);
        let mut ledger = self.ledger();
        ledger.records.values_mut().filter(|record| record.ended.is_none()).for_each(|record| record.excused = true);
    }

    pub(super) fn end_flood(&self) {
        self.flooding.set(self.flooding.get() - 1);
    }

    pub(super) fn is_flooded(&self) -> bool {
        self.flooding.get() > 0
    }

    /// Whether no client sends anything new.
    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Begins a script.
    pub(super) fn spawn(self: &Rc<Self>, script: impl Future<Output = ()> + 'static) {
        let world = Rc::clone(self);
        world.tasks.set(world.tasks.get() + 1);
        drop(tokio::task::spawn_local(counted("a script", async move {
            script.await;
            world.tasks.set(world.tasks.get() - 1);
        })));
    }

    fn new(seed: u64, loud: bool, random: &mut Random) -> Rc<Self> {
        let setup = Setup::draw(random);
        let text = setup.text();
        Self::with(seed, loud, setup, text, random)
    }

    /// A proxy with one worker and this configuration, and nothing else.
    pub(super) fn alone(text: &str) -> Rc<Self> {
        let mut random = Random::new(1);
        let mut setup = Setup::draw(&mut random);
        setup.workers = 1;
        let world = Self::with(1, false, setup, text.to_owned(), &mut random);
        world.network.set_shapes(Vec::new());
        world.begin();
        world
    }

    fn with(seed: u64, loud: bool, setup: Setup, text: String, random: &mut Random) -> Rc<Self> {
        let network = Arc::<Network>::default();
        let shape = |random: &mut Random| Shape {
            room: random.pick(&[1_000, 16 * 1024, 64 * 1024, 300_000]),
            stride: random.pick(&[700, 16 * 1024, usize::MAX, usize::MAX]),
            reset_overtakes: random.chance(50),
        };
        network.set_shapes((0..16).map(|_| shape(random)).collect());
        let empty = Arc::new(Config { listeners: Vec::new(), services: Vec::new(), ..config_of(&text) });
        let current = Arc::new(Published::new(Arc::new(Snapshot::empty(empty))));
        let counters = Arc::<Counters>::default();
        let shared = Arc::new(Shared {
            current,
            network: transport::Network::Memory(Arc::clone(&network)),
            overload: Arc::new(OverloadState::new(setup.workers, ambient::now())),
            shortage: Shortage::new(Arc::clone(&counters)),
            counters,
            secret: seed,
            instance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            workers: setup.workers,
            occupancy: Arc::new(Occupancy::new(setup.workers)),
            commands: OnceLock::new(),
            journal: Arc::default(),
            per_ip: PerIp::new(setup.workers, seed),
            doors: Arc::default(),
            access: Arc::default(),
            spans: Arc::default(),
        });
        let mut backends = Vec::new();
        for (service, name) in SERVICES.iter().enumerate() {
            for index in 0..setup.backends[service] {
                let (id, address) = (setup::backend_id(service, index), setup::backend_address(service, index));
                backends.push(Rc::new(Backend { service: name, id, address, well: Cell::new(true) }));
            }
        }
        let shade = "10.5.0.1:80".parse().expect("an address");
        backends.push(Rc::new(Backend {
            service: "shade",
            id: "shade-1".into(),
            address: shade,
            well: Cell::new(true),
        }));
        Rc::new(Self {
            network,
            shared,
            workers: RefCell::default(),
            loops: RefCell::default(),
            backends,
            listeners: RefCell::default(),
            ledger: RefCell::new(Ledger::new(loud)),
            setup: RefCell::new(setup),
            text: RefCell::new(text),
            registry: Registry::default(),
            over: Cell::new(false),
            changed: Cell::new(false),
            unreachable: Cell::new(false),
            silenced: Cell::new(None),
            serving: RefCell::default(),
            streams: RefCell::default(),
            handing: RefCell::default(),
            flooding: Cell::new(0),
            tasks: Cell::new(0),
        })
    }

    /// Starts the workers, and puts the configuration into force.
    fn begin(&self) {
        let mut commands = Vec::new();
        for index in 0..self.shared.workers {
            let (sender, receiver) = mpsc::unbounded_channel();
            let worker = Worker::new(index, Arc::clone(&self.shared));
            self.workers.borrow_mut().push(Rc::clone(&worker));
            let this = WorkerLoop::new(worker);
            self.loops.borrow_mut().push(Rc::clone(&this));
            drop(tokio::task::spawn_local(counted("a worker", work(this, receiver))));
            commands.push(sender);
        }
        // Set once, here.
        let _ = self.shared.commands.set(commands);
        self.apply();
    }

    /// Starts workers, backends and clients.
    fn start(self: &Rc<Self>, random: &mut Random) {
        self.begin();
        for backend in &self.backends {
            let listener = self.network.listen(backend.address);
            let (world, random) = (Rc::clone(self), random.fork());
            match backend.service {
                "grpc" => self.spawn(streams::serve_all(world, Rc::clone(backend), listener, random)),
                "bytes" => self.spawn(sessions::serve_all(world, listener, random)),
                _ => self.spawn(backends::run(world, Rc::clone(backend), listener, random)),
            }
        }
        // A key is copied once in a window, if somebody asks for it then.
        let more = if self.setup().hands_over() { 8 } else { 0 };
        for number in 1..=random.below(10) as u8 + 3 + more {
            self.spawn(clients::run(Rc::clone(self), number, random.fork()));
        }
        for number in 1..=random.below(4) as u8 {
            self.spawn(streams::run(Rc::clone(self), number, random.fork()));
        }
        for number in 1..=random.below(3) as u8 {
            self.spawn(floods::run(Rc::clone(self), number, random.fork()));
        }
        for number in 1..=random.below(3) as u8 {
            self.spawn(sessions::run(Rc::clone(self), number, random.fork()));
        }
    }

    /// Puts what the operator has written into force, as the control side does.
    pub(super) fn apply(&self) {
        let config = config_of(&self.text.borrow());
        let (current, now) = (&self.shared.current, ambient::now());
        let generation = current.load().generation + 1;
        let prepared = self.registry.prepare(Arc::new(config), generation, self.shared.workers, now);
        let snapshot = Arc::new(prepared.expect("a configuration that can be built"));
        self.registry.hand_over(&snapshot, Duration::ZERO, now);
        self.registry.commit(&snapshot, now);
        current.store(Arc::clone(&snapshot));
        for (service, _) in self.registry.settle(&snapshot) {
            service.live.wake_all();
        }
        self.handing().handle_change(&snapshot.services);
        self.listen(&snapshot.config);
        self.command(|| Command::Refresh);
    }

    fn listen(&self, config: &Config) {
        let mut listeners = self.listeners.borrow_mut();
        for listener in &config.listeners {
            let key = ListenerId::of(listener);
            listeners.entry(listener.address).or_insert_with(|| {
                let (permits, open) = (Arc::<ListenerPermits>::default(), Arc::new(()));
                self.command(|| Command::Listen {
                    key: key.clone(),
                    socket: Listening::Memory(self.network.listen(listener.address)),
                    permits: Arc::clone(&permits),
                    open: Arc::clone(&open),
                    known: None,
                });
                (key, permits)
            });
        }
    }

    pub(super) fn command(&self, command: impl Fn() -> Command) {
        for sender in self.shared.commands.get().into_iter().flatten() {
            // A worker that has ended takes no more.
            let _ = sender.send(command());
        }
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.current.load()
    }

    /// As the driver of the checks does.
    pub(super) fn check_health(&self) {
        let now = ambient::now();
        for service in &self.snapshot().services {
            service.handoff.poll(now);
            let mut health = service.live.health();
            health.handle_timeout(now);
            for id in health.poll_probes(now) {
                let well = self.backends.iter().any(|backend| backend.id == *id && backend.well.get());
                let probe = if well { Probe::Success } else { Probe::Failure(CheckFailure::Closed) };
                health.handle_probe(&id, probe, now);
            }
            let _ =
                if health.take_changed() { service.apply_health(&mut health) } else { Service::events(&mut health) };
        }
    }

    /// Runs until the world is idle at this time.
    pub(super) async fn settle(&self) {
        loop {
            let before = super::polls();
            tokio::task::yield_now().await;
            if super::polls() == before {
                return;
            }
        }
    }

    /// Clients and backends end; then everything must be released.
    async fn end(self: &Rc<Self>) {
        self.over.set(true);
        happenings::recover(self);
        let ended = |world: &Self| world.ledger().records.values().all(|record| record.ended.is_some());
        for _ in 0..LAST_TIME.as_secs() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.check_health();
            if ended(self) {
                break;
            }
        }
        let open: Vec<u64> =
            self.ledger().records.iter().filter(|(_, record)| record.ended.is_none()).map(|(id, _)| *id).collect();
        if !open.is_empty() {
            self.ledger().violation(&format!("requests {open:?} never end"));
        }
        tokio::time::sleep(Duration::from_secs(25)).await;
        self.settle().await;
        checks::after_the_last_request(self);
        // Hosts that were gone are back, and know nothing of these connections.
        self.network.wires().iter().for_each(Wire::reset);
        tokio::time::sleep(REST_TIME).await;
        self.settle().await;
        checks::at_rest(self);
        self.drain().await;
    }

    async fn drain(&self) {
        let mut waits = Vec::new();
        for sender in self.shared.commands.get().into_iter().flatten() {
            let (done, wait) = oneshot::channel();
            let _ = sender.send(Command::Drain { done });
            waits.push(wait);
        }
        for wait in waits {
            if tokio::time::timeout(Duration::from_secs(30), wait).await.is_err() {
                self.ledger().violation("a worker with nothing to do does not drain");
            }
        }
        self.command(|| Command::Stop);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn config_of(text: &str) -> Config {
    match ringway_config::load_str("simulation", text, &|_| None) {
        Ok(loaded) => loaded.config,
        Err(findings) => panic!("{findings}\n{text}"),
    }
}

/// Plays a seed; returns the trace's hash, and the number of events in it.
pub(super) fn play(seed: u64, loud: bool) -> Result<(String, String), String> {
    let runtime = super::runtime();
    super::begin();
    let world = runtime.block_on(async move {
        let mut random = Random::new(seed);
        let world = World::new(seed, loud, &mut random);
        world.ledger().tell(&format!("{:?}", world.setup()));
        world.start(&mut random);
        let until = ambient::now() + TIME;
        while ambient::now() < until {
            tokio::time::sleep(Duration::from_millis(5 + random.below(300))).await;
            world.settle().await;
            checks::at_any_time(&world);
            world.check_health();
            happenings::draw(&world, &mut random);
            if !world.ledger().wrong.is_empty() {
                return world;
            }
        }
        world.end().await;
        world
    });
    let left = runtime.metrics().num_alive_tasks();
    let ledger = world.ledger();
    let mut wrong = ledger.wrong.clone();
    if super::has_spun() {
        wrong.insert(0, "a task is polled again and again while time stands still".into());
    }
    let panics: u64 = world.workers.borrow().iter().map(|worker| worker.counters.panics.get()).sum();
    if panics > 0 {
        wrong.push(format!("{panics} tasks have panicked"));
    }
    if wrong.is_empty() && left > world.tasks.get() {
        wrong.push(format!("{left} tasks are left, and {} are the scripts'", world.tasks.get()));
    }
    if wrong.is_empty() {
        let counts: Vec<String> = ledger.counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
        return Ok((ledger.hash(), format!("{} requests: {}", ledger.records.len(), counts.join(", "))));
    }
    let wrong: Vec<String> = wrong.iter().map(|what| format!("VIOLATION {what}")).collect();
    Err(format!("{}\n{}", wrong.join("\n"), if loud { String::new() } else { ledger.trace() }))
}
