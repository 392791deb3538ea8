//! A client's connection that is open: counted for as long as this lives.

use super::active_listener::ActiveListener;
use super::context::Worker;
use super::peer::Peer;
use super::sessions::ConnectionEntry;
use crate::dispatcher::ConnectionPermit;
use crate::net::timer::Deadline;
use ringway_config::model::{KeepAlive, Listener, Protocol};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// How long a connection without a request may wait for its first one, at least, when its listener closes.
const LAST_CALL: Duration = Duration::from_secs(2);

/// How long a connection that has had a request may wait for its next one, at least: a client that was served a moment ago may be about
/// to send again, and learns from that response that it has to reconnect.
const QUIET_TIME: Duration = Duration::from_secs(1);

/// Under overload, connections without a request close within this time.
const OVERLOAD_SPREAD: Duration = Duration::from_secs(3);

/// Most thousandths by which a connection ends before its greatest age.
const JITTER_MAX: u64 = 100;

/// A connection, from accept to its last byte. See [`OpenConnection::begin`]. Each is one block of memory, for as long as it idles too.
pub(crate) struct OpenConnection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) active_listener: Rc<ActiveListener>,
    /// Its permit; a flow of datagrams keeps its own.
    _permit: Option<ConnectionPermit>,
    /// The other end.
    pub(crate) peer: Peer,
    /// Among the connections of its client's address.
    is_entered: bool,
    /// In the table of what is open.
    pub(crate) entry: ConnectionEntry,
    begun: Deadline,
    /// [`ActiveListener::secured`] when it began.
    secured: u32,
    /// Requests that have come while their number or its age had a limit.
    requests: Cell<u32>,
    /// By so many thousandths its age is limited earlier.
    jitter: Cell<u16>,
    /// It has reached one.
    is_worn: Cell<bool>,
}

impl OpenConnection {
    /// Counts a connection for as long as the value lives.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        active_listener: &Rc<ActiveListener>,
        permit: Option<ConnectionPermit>,
        client: SocketAddr,
    ) -> Self {
        worker.open.set(worker.open.get() + 1);
        worker.counters.connections.increment();
        worker.counters.accepted.increment();
        active_listener.counters.accepted.increment();
        Self {
            worker: Rc::clone(worker),
            active_listener: Rc::clone(active_listener),
            _permit: permit,
            peer: Peer::new(client),
            is_entered: false,
            entry: ConnectionEntry::new(&worker.sessions, active_listener, client),
            begun: worker.timers.now(),
            secured: active_listener.secured.get(),
            requests: Cell::new(0),
            jitter: Cell::new(0),
            is_worn: Cell::new(false),
        }
    }

    /// Counts it among its client's. `false`: the client has as many as the listener allows.
    pub(crate) fn enter(&mut self, config: &Listener) -> bool {
        let is_trusted = || match &config.protocol {
            Protocol::Http(http) => http.forwarded.trusted.contains(self.peer.ip()),
            Protocol::Tcp(_) | Protocol::Udp(_) => false,
        };
        let most = match config.connections_per_ip_max {
            0 => u32::MAX,
            _ if is_trusted() => u32::MAX,
            most => most,
        };
        let (worker, listener) = (&self.worker, self.active_listener.address_hash);
        self.is_entered = worker.shared.per_ip.enter(worker.index, listener, self.peer.ip(), most);
        self.is_entered
    }

    /// Whether this connection should end after its current work.
    pub(crate) fn is_closing(&self) -> bool {
        let listener = &self.active_listener;
        self.worker.is_draining() || listener.closing.get() || listener.secured.get() != self.secured
    }

    /// A request has come.
    pub(crate) fn count_request(&self, most: &KeepAlive) {
        if self.requests.get() == 0 {
            self.jitter.set((self.worker.random() % (JITTER_MAX + 1)) as u16);
        }
        self.requests.set(self.requests.get().saturating_add(1));
        let age = self.worker.timers.now().since(self.begun);
        // Connections that came together do not end together.
        let age_max = most.age_max.saturating_sub(most.age_max / 1000 * u32::from(self.jitter.get()));
        if self.requests.get() >= most.requests_max || age >= age_max {
            self.is_worn.set(true);
        }
    }

    /// Whether it has had as many requests, or is as old, as it may.
    #[inline]
    pub(crate) fn is_worn(&self) -> bool {
        self.is_worn.get()
    }

    /// Whether its next response ends it: it is closing or worn, or none is kept at the moment.
    #[inline]
    pub(crate) fn ends_with_response(&self) -> bool {
        self.is_closing() || self.is_worn() || self.worker.shared.overload.stops_keep_alive()
    }

    /// How long this connection may stay without a request, once its listener closes, or none is kept: each has a time of its own, so
    /// that clients do not all come back at once.
    pub(crate) fn leave_after(&self, asked: bool) -> Duration {
        let left = match self.is_closing() {
            true => self.active_listener.leave_until.get().since(self.worker.timers.now()),
            false => OVERLOAD_SPREAD,
        };
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
        if self.is_entered {
            worker.shared.per_ip.leave(worker.index, self.active_listener.address_hash, self.peer.ip());
        }
        worker.open.set(worker.open.get() - 1);
        worker.counters.connections.subtract(1);
        self.active_listener.counters.closed.increment();
        if worker.open.get() == 0 {
            worker.all_closed.notify_one();
        }
    }
}
