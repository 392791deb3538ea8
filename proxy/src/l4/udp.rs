//! UDP: datagrams of one client address are a flow, which stays on its backend until it has been idle for a while.
//!
//! Where connection ids of QUIC count, they come before the address: a client address may have a flow for each of several
//! backends, and an id that was seen with a backend leads there from whatever address. That is a flow of its own, from a port of
//! its own: the backend must see that the path has changed, and validate it (RFC 9000, 9.3).

use super::flows::{Flow, Path};
use super::tapped::Tapped;
use crate::ambient;
use crate::dispatcher::ConnectionPermit;
use crate::error::ProxyError;
use crate::net::pktinfo;
use crate::net::quic_ids::{self, Destination, Id};
use crate::net::shortage::{Operation, Rank, Resource, Shortage};
use crate::routing::admission::{self, Arrival};
use crate::routing::hash_key::{Found, KeyInput};
use crate::snapshot::{Backend, BackendState};
use crate::upstream::in_flight::InFlight;
use crate::upstream::search;
use crate::worker::{ActiveListener, OpenConnection, SessionEntry, View, Worker};
use ringway_config::model::{Protocol, UdpListener};
use ringway_ring::{Selection, Slot};
use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;

mod front;
mod responses;

use front::{BATCH, Front};
use responses::{Started, answer};

/// The largest datagram there is.
const DATAGRAM_BYTES: usize = 65_535;
/// Serves a listening socket until its listener closes and its flows have ended. `_open` lives for as long as the socket.
pub(crate) async fn run(worker: Rc<Worker>, active_listener: Rc<ActiveListener>, socket: UdpSocket, _open: Arc<()>) {
    let active_listener = RefCell::new(active_listener);
    let buffer = RefCell::new(vec![0; DATAGRAM_BYTES].into_boxed_slice());
    let space = RefCell::new(pktinfo::Space::of(&socket));
    let front = Rc::new(Front { worker, active_listener, socket, flows: RefCell::default(), space, buffer });
    loop {
        let active_listener = front.active_listener();
        while !active_listener.closing.get() {
            tokio::select! {
                biased;
                readable = front.socket.readable() => if readable.is_err() { break },
                () = active_listener.stop.notified() => break,
            }
            front.take_in(true).await;
        }
        let successor = active_listener.successor.take();
        match successor {
            Some(successor) => *front.active_listener.borrow_mut() = successor,
            None => break,
        }
    }
    // Flows go on until they are idle, or the drain's time is up; no new ones begin. Unless the listener has come back meanwhile:
    // the kernel gives this socket its share of the clients for as long as it is open.
    while front.flows.borrow().count > 0 {
        tokio::select! {
            readable = front.socket.readable() => if readable.is_err() { break },
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        let back = front.worker.listening_on(&front.active_listener().key());
        let is_back = back.is_some();
        if let Some(back) = back {
            *front.active_listener.borrow_mut() = back;
        }
        front.take_in(is_back).await;
    }
}

impl Front {
    /// Reads the datagrams that have come.
    async fn take_in(self: &Rc<Self>, new_flows: bool) {
        let Some((view, listener)) = self.worker.listener(&self.active_listener()) else { return };
        let Protocol::Udp(udp) = &view.snapshot.config.listeners[listener].protocol else { return };
        for _ in 0..BATCH {
            let mut buffer = self.buffer.borrow_mut();
            let (count, path) = match self.receive(&mut buffer) {
                Ok(received) => received,
                // An ICMP error about an earlier response does not end this socket.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            self.worker.counters.received_bytes.add(count as u64);
            match self.flow_of(path, &buffer[..count], &view, udp, new_flows) {
                Ok(Some(flow)) => {
                    if let Err(error) = flow.send(&buffer[..count])
                        && Resource::of(&error).is_some()
                    {
                        self.worker.shared.shortage.note(Operation::Flow, &error, &flow.backend.id);
                    }
                }
                Ok(None) => {}
                Err(reason) => self.worker.shared.counters.error("", reason),
            }
        }
        // More is waiting: other tasks have their turn first.
        tokio::task::yield_now().await;
    }

    /// The flow that a datagram belongs to; `None`: it would begin one, and none may begin.
    fn flow_of(
        self: &Rc<Self>,
        path: Path,
        datagram: &[u8],
        view: &Rc<View>,
        udp: &UdpListener,
        new_flows: bool,
    ) -> Result<Option<Rc<Flow>>, &'static str> {
        let destination = udp.quic.and_then(|quic| quic_ids::destination(datagram, quic.length));
        let known = match destination {
            Some(Destination { id, .. }) => self.flows.borrow().by_id.get(&(path, id)).cloned(),
            None => self.flows.borrow().newest(path),
        };
        if known.is_some() {
            return Ok(known);
        }
        let backend = destination.and_then(|Destination { id, .. }| recall(view, udp, &id));
        let known = match (&backend, destination) {
            (Some(backend), _) => self.flows.borrow().on_backend(path, &backend.id),
            // An id that was issued under encryption: on the same path, it belongs to the same connection.
            (None, Some(Destination { long: false, .. })) => self.flows.borrow().newest(path),
            (None, _) => None,
        };
        let flow = match known {
            Some(flow) => flow,
            None if !new_flows => return Ok(None),
            None => self.begin(path, view, udp, destination.map(|destination| destination.id), backend)?,
        };
        if let Some(Destination { id, .. }) = destination {
            self.flows.borrow_mut().learn(&flow, id);
        }
        Ok(Some(flow))
    }

    /// Begins a flow: chooses a backend for it, if it is not known already.
    fn begin(
        self: &Rc<Self>,
        path: Path,
        view: &Rc<View>,
        udp: &UdpListener,
        id: Option<Id>,
        backend: Option<Arc<BackendState>>,
    ) -> Result<Rc<Flow>, &'static str> {
        let this = &view.services[udp.service];
        let refuse = |error: ProxyError| {
            this.counters.requests[0].increment();
            error.reason()
        };
        // A connection id is the key; a flow that has moved here from another address is no new connection.
        let id = id.as_ref().map(Id::as_bytes);
        let input = KeyInput::of_address(path.client.ip().to_canonical(), None, id);
        let arrival = if backend.is_some() { Arrival::Moved } else { Arrival::New };
        let now = ambient::now();
        let at = (&**view, udp.service);
        let admitted =
            admission::admit(at, &self.worker, &input, (arrival, None), &mut Vec::new(), now).map_err(refuse)?;
        let found = admitted.key;
        let context = admission::pick_context(&self.worker, this, found);
        let mut selection = this.service.backend_set.begin(context);
        let shard = self.worker.index;
        let known = backend.and_then(|backend| this.service.slot_of(&backend.id));
        let reserved = known
            .and_then(|slot| reserve_known((view, udp.service), &mut selection, slot, shard))
            .or_else(|| search::acquire_now(view, udp.service, &mut selection, shard));
        let mut guard = reserved.ok_or_else(|| refuse(ProxyError::NoBackend))?;
        let backend = Arc::clone(&this.service.backends[guard.index()].state);
        // Another connection of this client may be there already.
        if let Some(flow) = self.flows.borrow().on_backend(path, &backend.id) {
            return Ok(flow);
        }
        let active_listener = self.active_listener();
        let permit = self.permit(&active_listener, view, udp).ok_or("udp_flows_max")?;
        let key = guard.begin_try(now, found.and_then(Found::key));
        let upstream = connect(&this.service.backends[guard.index()], &self.worker).map_err(|error| {
            let error = ProxyError::of_io(&error, ProxyError::ConnectFailed);
            guard.report_error(error);
            refuse(error)
        })?;
        // Whoever gets no flow comes again with the next datagram.
        admission::count_spread(this, &context);
        this.upstreams[guard.index()].counters.requests.increment();
        let keyed = found.is_some_and(|found| found.keyed);
        admission::count_served(this, keyed, (&selection, None), Some(guard.index()));
        let open = OpenConnection::begin(&self.worker, &active_listener, None, path.client);
        let service = udp.service;
        let entry = SessionEntry::of_flow(&open.entry, view, service, (guard.index(), key));
        let (hash, at) = (found.map(|found| found.hash), ambient::now());
        let tapped = Tapped::of_flow((&open, path.client), (view, service, guard.index()), hash, at);
        let flow = Flow::new(path, (backend, upstream), permit, self.worker.timer(), udp, (entry, tapped));
        self.flows.borrow_mut().insert(&flow);
        let view = Rc::clone(view);
        let started = Started { open, view, service, guard, _admission: admitted.admission, selection, hash, at };
        self.worker.spawn("a flow of UDP", answer(Rc::clone(self), Rc::clone(&flow), started));
        Ok(flow)
    }

    /// A permit for one more flow: if none is free, that of a flow without a response.
    fn permit(&self, active_listener: &ActiveListener, view: &View, udp: &UdpListener) -> Option<ConnectionPermit> {
        let (shared, shard) = (&self.worker.shared, self.worker.index);
        let config = &view.snapshot.config;
        let most = config.process.connections_max;
        // Nobody has to answer for a flow: connections have half of the places, and of the descriptors, to themselves.
        let has_connections = config.listeners.iter().any(|listener| !matches!(listener.protocol, Protocol::Udp(_)));
        let flows_max = if has_connections { most.div_ceil(2).min(shared.shortage.connections_max()) } else { most };
        let most = (most, flows_max);
        let is_full = self.flows.borrow().count >= share(udp.flows_max, shared.workers, shard);
        let take =
            || ConnectionPermit::take_flow(&shared.occupancy, &active_listener.permits, shard, most, udp.flows_max);
        let permit = if is_full { None } else { take() };
        permit.or_else(|| self.flows.borrow_mut().evict())
    }
}

/// A reservation on the backend that has issued the flow's id: it is not chosen anew, even where the backend takes nothing new.
fn reserve_known(
    (view, service): (&Rc<View>, usize),
    selection: &mut Selection,
    slot: Slot,
    shard: usize,
) -> Option<InFlight> {
    let config = &view.services[service].service.backends[usize::from(slot.0)].config;
    if config.drain || config.weight == 0 {
        return Some(search::resume(view, service, slot, shard));
    }
    search::acquire_sticky(view, service, selection, slot, shard)
}

/// How many of a listener's flows one worker may have. Each worker has a share of its own, so that a flood on one leaves the others
/// room; the shares together are the limit. Where the limit is below the number of workers, each may use all of it.
fn share(flows_max: usize, workers: usize, worker: usize) -> usize {
    match flows_max / workers {
        0 => flows_max,
        least => least + usize::from(worker < flows_max % workers),
    }
}

/// The backend that has issued this id.
fn recall(view: &View, udp: &UdpListener, id: &Id) -> Option<Arc<BackendState>> {
    let ids = &view.services[udp.service].service.live.quic_ids;
    ids.lock().unwrap_or_else(PoisonError::into_inner).get(id, udp.quic?.ids_max)
}

/// Of two addresses, to the one that connections have been made to; to the other if there is no way to that one.
fn connect(backend: &Backend, worker: &Worker) -> io::Result<UdpSocket> {
    let shortage = &worker.shared.shortage;
    let open = |address| {
        open(address, shortage).inspect_err(|error| {
            if Resource::of(error).is_some() {
                shortage.note(Operation::Flow, error, address);
            }
        })
    };
    let Some(additional) = backend.config.additional_address else { return open(backend.config.address) };
    let addresses = [backend.config.address, additional];
    let [first, second] = backend.state.preferences.order_of_datagrams(addresses, ambient::now());
    open(first).or_else(|error| if Resource::of(&error).is_some() { Err(error) } else { open(second) })
}

/// A socket of the flow's own, within the descriptors that the data path may take.
fn open(backend: SocketAddr, shortage: &Shortage) -> io::Result<UdpSocket> {
    let any: SocketAddr = match backend {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    shortage.admit(&socket, Rank::Upstream)?;
    socket.connect(backend)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_workers_are_all_there_is() {
        for flows_max in 1..40 {
            for workers in 1..=flows_max {
                let parts = (0..workers).map(|worker| share(flows_max, workers, worker));
                assert!(parts.clone().all(|part| part > 0));
                assert_eq!(parts.sum::<usize>(), flows_max, "{flows_max} over {workers}");
            }
        }
        assert_eq!(share(2, 8, 7), 2);
    }
}
