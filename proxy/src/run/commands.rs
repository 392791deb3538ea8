//! One worker's loop: carries out commands of the control side, and periodic work.

use crate::ambient;
use crate::dispatcher::{
    Command, ConnectionPermit, Known, ListenerId, ListenerPermits, Listening, Shared, WorkerReport,
};
use crate::downstream::{self, Frontend, accept};
use crate::l4::udp;
use crate::net::timer::{Deadline, TICK};
use crate::net::transport::{Detached, Listener};
use crate::upstream::preconnect;
use crate::worker::{ActiveListener, Worker};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a connection waits for its listener's command.
const EARLY_TIME: Duration = Duration::from_secs(2);
/// Closed listeners that are remembered.
const RETIRED_MAX: usize = 64;
/// Ticks between two reports of hot keys, two looks at idle connections, two trims of spare memory.
const REPORT_TICKS: u64 = 5;
const BOOK_TICKS: u64 = 20;
/// Spans go in batches of half a second.
const SPAN_TICKS: u64 = 10;
const IDLE_TICKS: u64 = 20;
const TRIM_TICKS: u64 = 200;

/// A worker, and the state that only its loop has.
pub(crate) struct WorkerLoop {
    worker: Rc<Worker>,
    frontend: Rc<Frontend>,
    /// Listeners that were closed last: a connection may still be on its way here from another worker.
    retired: RefCell<VecDeque<Rc<ActiveListener>>>,
    /// Connections that other workers have sent here before this one has got their listener. Each has its permit.
    early: RefCell<Vec<Early>>,
    /// Whether connections are kept no longer, as of the last tick.
    saves: Cell<bool>,
}

/// A connection of a listener that is not known here yet.
struct Early {
    key: ListenerId,
    permit: ConnectionPermit,
    stream: Detached,
    peer: SocketAddr,
    /// Longer than a command takes from one worker to the next.
    until: Deadline,
}

impl WorkerLoop {
    /// The loop of a worker that begins.
    pub(crate) fn new(worker: Rc<Worker>) -> Rc<Self> {
        let frontend = Frontend::new(Rc::clone(&worker));
        Rc::new(Self {
            worker,
            frontend,
            retired: RefCell::default(),
            early: RefCell::default(),
            saves: Cell::new(false),
        })
    }

    #[cfg(test)]
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// What serves its clients.
    #[cfg(test)]
    pub(crate) fn frontend(&self) -> &Frontend {
        &self.frontend
    }

    fn listen(
        &self,
        key: ListenerId,
        socket: Listening,
        permits: Arc<ListenerPermits>,
        (open, known): (Arc<()>, Option<Known>),
    ) {
        let address = match &socket {
            Listening::Connections(socket) => socket.local_addr(),
            Listening::Datagrams(socket) => socket.local_addr(),
            #[cfg(test)]
            Listening::Memory(socket) => Ok(socket.address()),
        };
        let address = address.map_or_else(|_| key.address.to_string(), |address| address.to_string());
        let active_listener = self.active_listener(key.clone(), address.into(), permits);
        let (frontend, name) = (Rc::clone(&self.frontend), Rc::clone(&active_listener));
        let what = "the accept loop of a listener";
        let listening = match socket {
            Listening::Connections(socket) => Listener::attach(socket).map(|socket| {
                self.worker.spawn(what, accept::run(frontend, Rc::clone(&active_listener), socket, (open, known)))
            }),
            #[cfg(test)]
            Listening::Memory(socket) => {
                self.worker.spawn(
                    what,
                    accept::run(frontend, Rc::clone(&active_listener), Listener::Memory(socket), (open, known)),
                );
                Ok(())
            }
            Listening::Datagrams(socket) => tokio::net::UdpSocket::from_std(socket).map(|socket| {
                self.worker.spawn(what, udp::run(Rc::clone(&self.worker), Rc::clone(&active_listener), socket, open))
            }),
        };
        match listening {
            Ok(()) => drop(self.worker.listening.borrow_mut().insert(key, active_listener)),
            Err(error) => tracing::error!(listener = %name.name(), %error, "listening socket is unusable"),
        }
        self.adopt_early();
    }

    /// Accepts in place of a worker that is stuck, where it serves that listener itself.
    fn stand_in(&self, key: &ListenerId, socket: std::net::TcpListener, over: oneshot::Receiver<()>) {
        let Some(active_listener) = self.worker.listening.borrow().get(key).cloned() else { return };
        match Listener::attach(socket) {
            Ok(socket) => {
                let accepting = accept::stand_in(Rc::clone(&self.frontend), active_listener, socket, over);
                self.worker.spawn("the accept loop of a worker that is stuck", accepting);
            }
            Err(error) => tracing::warn!(%error, "the clients of a worker that is stuck wait for it"),
        }
    }

    fn active_listener(
        &self,
        key: ListenerId,
        address_text: Arc<str>,
        permits: Arc<ListenerPermits>,
    ) -> Rc<ActiveListener> {
        let active_listener = ActiveListener::new(key, address_text, permits);
        // To update its name.
        let _ = self.worker.listener(&active_listener);
        active_listener
    }

    /// The socket goes on as it is, with what its queue holds; its earlier connections end as those of a closing listener do.
    fn hand_over(&self, from: &ListenerId, to: ListenerId, permits: Arc<ListenerPermits>) {
        let old = self.worker.listening.borrow().get(from).cloned();
        if let Some(old) = old {
            let successor = self.active_listener(to.clone(), Arc::clone(&old.address_text), permits);
            *old.successor.borrow_mut() = Some(Rc::clone(&successor));
            self.worker.listening.borrow_mut().insert(to, successor);
            self.unlisten(from);
        }
        self.adopt_early();
    }

    fn unlisten(&self, key: &ListenerId) {
        if let Some(active_listener) = self.worker.listening.borrow_mut().remove(key) {
            active_listener.close(self.worker.leave_until(&self.worker.view()));
            let mut retired = self.retired.borrow_mut();
            retired.push_back(active_listener);
            if retired.len() > RETIRED_MAX {
                retired.pop_front();
            }
        }
        self.worker.timers.wake_all();
    }

    fn adopt(&self, key: &ListenerId, permit: ConnectionPermit, stream: Detached, peer: SocketAddr) {
        let open = self.worker.listening.borrow().get(key).cloned();
        let active_listener = open
            .or_else(|| self.retired.borrow().iter().rev().find(|active_listener| active_listener.is_of(key)).cloned());
        let Some(active_listener) = active_listener else {
            // Another worker has got the listener first, and has accepted on it already.
            let early =
                Early { key: key.clone(), permit, stream, peer, until: self.worker.timers.deadline(EARLY_TIME) };
            self.early.borrow_mut().push(early);
            return;
        };
        if let Ok(stream) = stream.attach() {
            downstream::serve(&self.frontend, &active_listener, permit, stream, peer);
        }
    }

    /// What it has, for who looks; of backends so many at most.
    fn report(&self, rows_max: usize, commands: usize) -> WorkerReport {
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let connections_early = self.early.borrow().len();
        WorkerReport { commands, tasks, connections_early, ..self.worker.report(rows_max) }
    }

    /// Serves the connections that came before their listener's command.
    fn adopt_early(&self) {
        for Early { key, permit, stream, peer, .. } in self.early.take() {
            self.adopt(&key, permit, stream, peer);
        }
    }

    /// Ends after what is served now; replies when the last connection has ended.
    fn drain(&self, done: oneshot::Sender<()>) {
        self.worker.set_draining();
        let active_listeners: Vec<_> = self.worker.listening.borrow().keys().cloned().collect();
        active_listeners.iter().for_each(|key| self.unlisten(key));
        let drained = Rc::clone(&self.worker);
        self.worker.spawn("a drain", async move {
            while !drained.is_empty() {
                // A connection on its way here may be lost then: nothing can be done for it.
                let _ = tokio::time::timeout(TICK, drained.all_closed.notified()).await;
            }
            // The receiver may have stopped waiting: its time was up.
            let _ = done.send(());
        });
    }

    /// As overload begins, has connections without a request see that they are to end.
    fn watch_overload(&self) {
        let saves = self.worker.shared.overload.stops_keep_alive();
        if saves && !self.saves.get() {
            self.worker.timers.wake_all();
        }
        self.saves.set(saves);
    }

    /// Frees memory, and connections to backends, that only a better time needs.
    fn save(&self) {
        self.worker.release_idle();
        self.worker.trim();
        self.frontend.trim();
    }

    /// Once a tick: timers. Once a second: idle upstream connections, spare memory.
    fn tick(&self, ticks: u64) {
        let worker = &self.worker;
        worker.timers.advance(ambient::now());
        self.watch_overload();
        if worker.shared.shortage.is_tight() {
            worker.release_idle();
            worker.pipes.refuse();
        }
        worker.flush_log();
        worker.taps.sweep();
        if ticks.is_multiple_of(SPAN_TICKS) {
            worker.flush_spans();
        }
        if ticks.is_multiple_of(BOOK_TICKS) {
            worker.book_keys();
        }
        if ticks.is_multiple_of(REPORT_TICKS) {
            worker.report_hot_keys();
        }
        if ticks.is_multiple_of(IDLE_TICKS) {
            let now = worker.timers.now();
            self.early.borrow_mut().retain(|early| early.until >= now);
            if worker.index == 0 {
                worker.shared.shortage.look();
            }
            worker.expire_idle();
            worker.timers.trim();
            preconnect::keep_open(worker);
            if self.saves.get() {
                self.save();
            }
        }
        if ticks.is_multiple_of(TRIM_TICKS) {
            worker.trim();
            self.frontend.trim();
        }
    }
}

/// Runs a worker until its commands end; reports once whether it has begun.
pub(crate) fn run(
    index: usize,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
    started: oneshot::Sender<std::io::Result<()>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Events per poll of the runtime: more than a busy worker has ready at once.
        .max_io_events_per_tick(512)
        .build_local(tokio::runtime::LocalOptions::default());
    // A starter that does not wait for that has given up, and sends `Stop`.
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
    // A task, not the future that the runtime blocks on: waking that one is a write and a wait more, at each tick.
    let work = async move { work(WorkerLoop::new(Worker::new(index, shared)), commands).await };
    let worked = runtime.block_on(async move { tokio::task::spawn_local(work).await });
    if let Err(Ok(panic)) = worked.map_err(tokio::task::JoinError::try_into_panic) {
        std::panic::resume_unwind(panic);
    }
    // Connections that are still there have outlived their drain.
    runtime.shutdown_background();
}

/// Carries out commands and periodic work, until there are no more commands.
pub(crate) async fn work(this: Rc<WorkerLoop>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let (overload, index) = (Arc::clone(&this.worker.shared.overload), this.worker.index);
    overload.busy.set(index, Some(tokio::runtime::Handle::current().metrics()));
    let mut ticker = tokio::time::interval(TICK);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut ticks = 0;
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                None | Some(Command::Stop) => break,
                Some(Command::Listen { key, socket, permits, open, known }) => {
                    this.listen(key, socket, permits, (open, known));
                }
                Some(Command::StandIn { key, socket, over }) => this.stand_in(&key, socket, over),
                Some(Command::HandOver { from, to, permits }) => this.hand_over(&from, to, permits),
                Some(Command::Adopt { key, permit, stream, peer }) => this.adopt(&key, permit, stream, peer),
                Some(Command::Unlisten { key }) => this.unlisten(&key),
                Some(Command::Refresh) => this.worker.refresh(),
                Some(Command::GiveWay(wanted)) => {
                    let (service, backend) = wanted.names();
                    wanted.handle(|| this.worker.close_idle(service, backend));
                }
                Some(Command::List(query, reply)) => {
                    // Who has asked may have given up, before or meanwhile.
                    if !reply.is_closed() {
                        let _ = reply.send(this.worker.sessions.list(&query));
                    }
                }
                Some(Command::Inspect(rows_max, reply)) => {
                    if !reply.is_closed() {
                        let _ = reply.send(this.report(rows_max, commands.len()));
                    }
                }
                Some(Command::Tap(tap, begun)) => {
                    this.worker.taps.arm(tap);
                    // Who has asked may have given up.
                    let _ = begun.send(());
                }
                Some(Command::TellSoFar(tap, told)) => {
                    this.worker.taps.tell_so_far(&tap);
                    let _ = told.send(());
                }
                Some(Command::Drain { done }) => this.drain(done),
            },
            due = ticker.tick() => {
                ticks += 1;
                overload.ticks.note(index, due.into_std(), ambient::now());
                this.tick(ticks);
            }
        }
    }
    overload.ticks.end(index);
    overload.busy.set(index, None);
    this.tick(0);
}
