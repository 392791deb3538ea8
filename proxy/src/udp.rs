//! UDP: datagrams of one client address are a flow, which stays on its backend until it has been idle for a while.

use crate::error::ProxyError;
use crate::inflight::{self, InFlight};
use crate::key;
use crate::request;
use crate::timer::Timer;
use crate::worker::{Gate, OpenConnection, View, Worker};
use ringway_config::model::{KeySource, Protocol};
use ringway_ring::{Ask, Selection};
use ringway_telemetry::access::Value;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// The largest datagram there is.
const DATAGRAM_BYTES: usize = 65_535;
/// Datagrams read in one go before others have their turn.
const BATCH: usize = 64;

/// What the listening task and its flows share.
struct Front {
    worker: Rc<Worker>,
    gate: Rc<Gate>,
    socket: UdpSocket,
    flows: RefCell<HashMap<SocketAddr, Rc<Flow>>>,
    buffer: RefCell<Box<[u8]>>,
}

/// One client's datagrams, and their backend's socket.
struct Flow {
    upstream: UdpSocket,
    timer: Timer,
    idle: Duration,
    up: Cell<u64>,
    down: Cell<u64>,
    /// The backend's host has said that nobody listens there.
    refused: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

/// Serves a listening socket until its gate closes and its flows have ended.
pub(crate) async fn run(worker: Rc<Worker>, gate: Rc<Gate>, socket: UdpSocket) {
    let buffer = RefCell::new(vec![0; DATAGRAM_BYTES].into_boxed_slice());
    let front = Rc::new(Front { worker, gate, socket, flows: RefCell::default(), buffer });
    while !front.gate.closing.get() {
        tokio::select! {
            biased;
            readable = front.socket.readable() => if readable.is_err() { break },
            () = front.gate.stop.notified() => break,
        }
        front.take_in(true).await;
    }
    // Flows go on until they are idle, or the drain's time is up; nothing new begins.
    while !front.flows.borrow().is_empty() {
        tokio::select! {
            readable = front.socket.readable() => if readable.is_err() { break },
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        front.take_in(false).await;
    }
}

impl Front {
    /// Takes in what has come.
    async fn take_in(self: &Rc<Self>, new_flows: bool) {
        for _ in 0..BATCH {
            let mut buffer = self.buffer.borrow_mut();
            let (count, client) = match self.socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                // An ICMP error of an earlier answer is not this socket's end.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            self.worker.cells.received_bytes.add(count as u64);
            let known = self.flows.borrow().get(&client).cloned();
            let flow = match known {
                Some(flow) => flow,
                None if !new_flows => continue,
                None => match self.begin(client) {
                    Ok(flow) => flow,
                    Err(reason) => {
                        self.worker.shared.cells.error("", reason);
                        continue;
                    }
                },
            };
            flow.send(&buffer[..count]);
        }
        // More is waiting: others have their turn first.
        tokio::task::yield_now().await;
    }

    /// Begins a client's flow: chooses a backend for it.
    fn begin(self: &Rc<Self>, client: SocketAddr) -> Result<Rc<Flow>, &'static str> {
        let (view, listener) = self.worker.listener(&self.gate).ok_or("no_listener")?;
        let Protocol::Udp(udp) = &view.snapshot.config.listeners[listener].protocol else { return Err("no_listener") };
        // Per worker, as the sockets are.
        if self.flows.borrow().len() >= udp.flows_max.div_ceil(self.worker.workers()).max(1) {
            return Err("udp_flows_max");
        }
        let this = &view.services[udp.service];
        let hash = this.service.hashes().then(|| hash_of(&this.service, client));
        let chance = self.worker.random();
        let mut selection = this.service.group.begin(Ask {
            hash: hash.unwrap_or(chance),
            chance,
            now_millis: self.worker.millis(),
            owners: 0,
        });
        let found = inflight::acquire_now(&view, udp.service, &mut selection, self.worker.index);
        let guard = found.ok_or_else(|| {
            this.cells.requests[5].increment();
            ProxyError::NoBackend.reason()
        })?;
        let upstream = connect(this.service.address(guard.slot)).map_err(|_| "udp_socket")?;
        this.upstreams[guard.index()].cells.requests.increment();
        this.cells.requests[2].increment();
        if hash.is_some() {
            this.cells.keyed.increment();
            if selection.owner() == Some(guard.slot) {
                this.cells.owned.increment();
            }
        }
        let timer = self.worker.timer();
        timer.set(udp.idle);
        let flow = Rc::new(Flow {
            upstream,
            timer,
            idle: udp.idle,
            up: Cell::new(0),
            down: Cell::new(0),
            refused: Cell::new(false),
            waker: Cell::default(),
        });
        self.flows.borrow_mut().insert(client, Rc::clone(&flow));
        self.worker.shared.open[self.worker.index].fetch_add(1, Relaxed);
        let open = self.worker.connection(&self.gate, None);
        let service = udp.service;
        let started = Started { open, view: Rc::clone(&view), service, guard, selection, hash, at: Instant::now() };
        tokio::task::spawn_local(answer(Rc::clone(self), Rc::clone(&flow), client, started));
        Ok(flow)
    }
}

/// What a flow holds for as long as it lives.
struct Started {
    open: OpenConnection,
    view: Rc<View>,
    service: usize,
    guard: InFlight,
    selection: Selection,
    hash: Option<u64>,
    at: Instant,
}

/// Passes the backend's datagrams on to the client, until the flow ends.
async fn answer(front: Rc<Front>, flow: Rc<Flow>, client: SocketAddr, started: Started) {
    let reason = poll_fn(|context| flow.poll_answers(&front, client, context)).await;
    front.flows.borrow_mut().remove(&client);
    if flow.refused.get() {
        front.worker.shared.cells.error(&started.view.services[started.service].service.config.name, reason);
        started.guard.report_error(ProxyError::ConnectFailed);
    } else if flow.down.get() > 0 {
        started.guard.report(ringway_health::Outcome::Success);
    }
    let this = &started.view.services[started.service];
    this.cells.durations.record(started.at.elapsed());
    log(&started, &flow, client, reason);
}

impl Flow {
    /// A datagram to the backend. One that cannot go now is lost, as datagrams are.
    fn send(&self, datagram: &[u8]) {
        // Past the runtime, which does not know yet whether a fresh socket takes anything.
        match socket2::SockRef::from(&self.upstream).send(datagram) {
            Ok(count) => self.up.set(self.up.get() + count as u64),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.refused.set(true);
                // Its task waits for datagrams: it is to see this.
                self.waker.take().iter().for_each(Waker::wake_by_ref);
            }
            Err(_) => {}
        }
        self.timer.set(self.idle);
    }

    /// Ready when the flow is over; says why.
    fn poll_answers(&self, front: &Front, client: SocketAddr, context: &mut Context<'_>) -> Poll<&'static str> {
        for _ in 0..BATCH {
            // Somebody who is there no more has no flow: the next datagram finds another.
            if self.refused.get() {
                return Poll::Ready("refused");
            }
            let mut buffer = front.buffer.borrow_mut();
            let mut space = ReadBuf::new(&mut buffer);
            match self.upstream.poll_recv(context, &mut space) {
                Poll::Ready(Ok(())) => {
                    let count = space.filled().len();
                    if socket2::SockRef::from(&front.socket).send_to(space.filled(), &client.into()).is_ok() {
                        self.down.set(self.down.get() + count as u64);
                        front.worker.cells.sent_bytes.add(count as u64);
                    }
                    self.timer.set(self.idle);
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => self.refused.set(true),
                Poll::Ready(Err(_)) => {}
                Poll::Pending if self.timer.poll_fired(context) => return Poll::Ready("idle"),
                Poll::Pending => {
                    self.waker.set(Some(context.waker().clone()));
                    return Poll::Pending;
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn connect(backend: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match backend {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(backend)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

fn hash_of(service: &crate::snapshot::Service, client: SocketAddr) -> u64 {
    // Of all the sources, a flow has an address only.
    let bits = service.config.hash_key.iter().find_map(|source| match source {
        KeySource::SourceIp { v4_bits, v6_bits } => Some((*v4_bits, *v6_bits)),
        _ => None,
    });
    let (v4_bits, v6_bits) = bits.unwrap_or((32, 128));
    let mut text = Vec::new();
    key::address_key(client.ip(), v4_bits, v6_bits, &mut text);
    ringway_ring::hash_key(&text, service.seed())
}

fn log(started: &Started, flow: &Flow, client: SocketAddr, reason: &str) {
    let worker = &started.open.worker;
    if !worker.logs_access() {
        return;
    }
    let service = &started.view.services[started.service].service;
    let id = |index: usize| Value::Word(&service.backends[index].config.id);
    let owner = started.hash.and(started.selection.owner());
    let mut hash_text = [0; 16];
    let peer = client.ip().to_canonical().to_string();
    let pairs = [
        ("time_ms", Value::Number(request::unix_millis())),
        ("client", Value::Word(&peer)),
        ("listener", Value::Word(started.open.gate.name())),
        ("reason", Value::Word(reason)),
        ("service", Value::Word(&service.config.name)),
        ("key_hash", started.hash.map_or(Value::Nothing, |hash| Value::Word(request::hex(hash, &mut hash_text)))),
        ("owner", owner.map_or(Value::Nothing, |slot| id(usize::from(slot.0)))),
        ("backend", id(started.guard.index())),
        ("generation", Value::Number(started.view.snapshot.generation)),
        ("received_bytes", Value::Number(flow.up.get())),
        ("sent_bytes", Value::Number(flow.down.get())),
        ("duration_us", Value::Number(started.at.elapsed().as_micros() as u64)),
    ];
    worker.log(|log| log.line(&pairs));
}
