//! Listeners as a worker has them, and the connections that came in by them.

use super::{Places, Seat, View, Worker};
use crate::net::timer::Deadline;
use crate::worker::per_ip::Place;
use ringway_config::model::{Listener, Protocol};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long a connection that has not asked yet may wait with that, at least, when its listener goes.
const LAST_CALL: Duration = Duration::from_secs(2);
/// How long one that has asked may wait for its next request, at least: who was served a moment ago may be about to ask again, and
/// learns from the answer that he is to go.
const QUIET_TIME: Duration = Duration::from_secs(1);

/// What makes a listener the same one after a reload: a name may change, sockets and connections stay.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct GateKey {
    /// As configured: port 0 stays 0.
    pub(crate) address: SocketAddr,
    /// Whether IPv4 is left to others.
    pub(crate) v6_only: bool,
    pub(crate) kind: GateKind,
    /// Of a listener on port 0: nothing else tells it from others.
    pub(super) name: Option<Arc<str>>,
}

/// What a gate lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum GateKind {
    Http,
    Tcp,
    Udp,
}

impl GateKind {
    pub(super) fn of(listener: &Listener) -> Self {
        match listener.protocol {
            Protocol::Http(_) => Self::Http,
            Protocol::Tcp(_) => Self::Tcp,
            Protocol::Udp(_) => Self::Udp,
        }
    }
}

/// A listening socket.
pub(crate) enum Listening {
    Connections(std::net::TcpListener),
    Datagrams(std::net::UdpSocket),
    #[cfg(test)]
    Memory(crate::net::transport::memory::Listener),
}

impl GateKey {
    pub(crate) fn of(listener: &Listener) -> Self {
        let name = (listener.address.port() == 0).then(|| listener.name.as_str().into());
        Self { address: listener.address, v6_only: listener.v6_only, kind: GateKind::of(listener), name }
    }

    pub(super) fn is(&self, listener: &Listener) -> bool {
        self.address == listener.address
            && self.v6_only == listener.v6_only
            && self.kind == GateKind::of(listener)
            && self.name.as_ref().is_none_or(|name| **name == *listener.name)
    }

    /// Whether a listener of the one key can take the sockets of the other over.
    pub(crate) fn shares_sockets(&self, other: &Self) -> bool {
        let udp = |key: &Self| key.kind == GateKind::Udp;
        // Sockets take the families that they were bound for. Those of datagrams go on all the same: flows keep them, and while
        // they last, fresh sockets would not be asked.
        self.address == other.address
            && (self.v6_only == other.v6_only || udp(self))
            && self.name == other.name
            && udp(self) == udp(other)
    }
}

/// A listener's open-or-closing state, shared by its connections.
pub(crate) struct Gate {
    pub(super) key: GateKey,
    /// The listener's name, as far as this worker has heard.
    pub(super) name: RefCell<Arc<str>>,
    /// The address it is bound to, as text.
    pub(crate) address_text: Arc<str>,
    /// Who takes its socket over, once it closes.
    pub(crate) heir: RefCell<Option<Rc<Self>>>,
    pub(crate) closing: Cell<bool>,
    /// While it closes: when the last of its idle connections is to go.
    pub(super) leave_until: Cell<Deadline>,
    /// Its places, over all workers.
    pub(crate) seats: Arc<Places>,
    pub(crate) stop: Notify,
    /// The newest view that has this listener, and its index there: what is accepted while it goes is served by it.
    pub(super) latest: RefCell<Option<(Rc<View>, usize)>>,
}

impl Gate {
    pub(crate) fn key(&self) -> GateKey {
        self.key.clone()
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name.borrow())
    }
}

/// See [`Worker::connection`].
pub(crate) struct OpenConnection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) gate: Rc<Gate>,
    /// Its place; a flow of datagrams keeps its own.
    pub(super) _seat: Option<Seat>,
    /// Among the connections of its client's address.
    pub(super) place: Option<Place>,
}

impl OpenConnection {
    /// Counts it among its client's, where the listener limits them. `false`: he has as many as he may.
    pub(crate) fn enter(&mut self, config: &Listener, client: SocketAddr) -> bool {
        let most = config.connections_per_ip_max;
        let counted = most > 0
            && match &config.protocol {
                Protocol::Http(http) => {
                    !crate::net::trusted::is_trusted(&http.forwarded.trusted, client.ip().to_canonical())
                }
                Protocol::Tcp(_) | Protocol::Udp(_) => true,
            };
        if counted {
            self.place = self.worker.shared.per_ip.enter(&self.gate.address_text, client.ip(), most);
        }
        !counted || self.place.is_some()
    }

    /// Whether this connection should end after what it is doing.
    pub(crate) fn is_closing(&self) -> bool {
        self.worker.is_draining() || self.gate.closing.get()
    }

    /// How long this connection may stay without a request, once its listener goes: each its own time, so that clients do not
    /// all come back at once.
    pub(crate) fn leave_after(&self, asked: bool) -> Duration {
        let left = self.gate.leave_until.get().since(self.worker.timers.now());
        let least = match asked {
            true if self.worker.spreads() => QUIET_TIME,
            true => Duration::ZERO,
            false => LAST_CALL,
        };
        let span = left.saturating_sub(least).as_millis().try_into().unwrap_or(u64::MAX);
        least + Duration::from_millis(self.worker.random() % span.saturating_add(1))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let worker = &self.worker;
        if let Some(place) = self.place.take() {
            worker.shared.per_ip.leave(place);
        }
        worker.open.set(worker.open.get() - 1);
        worker.cells.connections.subtract(1);
        if worker.open.get() == 0 {
            worker.all_closed.notify_one();
        }
    }
}
