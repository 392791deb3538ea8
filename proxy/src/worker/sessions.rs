//! What a worker's clients have under way, for an operator who asks: connections, and the requests, sessions and flows on them.
//!
//! Each enters a table when it begins and leaves it when it ends, whichever way: its entry is a value that it owns. What changes
//! meanwhile is written to the table in place, so that nothing is looked up, allocated or formatted before somebody asks.

use self::connected::{Connected, Connections, Place, version_name};
use super::active_listener::ActiveListener;
use super::booked::KeyInFlight;
use super::view::View;
use crate::dispatcher::{Listed, Order, SessionPage, SessionQuery, SessionRow, SessionState, TlsSession};
use crate::net::timer::{Deadline, Timers};
use crate::snapshot::Backend;
use ringway_message::Version;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

mod connected;
mod counts;
mod keys;

/// Bytes of method and path that are kept.
const LINE_BYTES_MAX: usize = 64;

/// A worker's tables.
pub(crate) struct Sessions {
    worker: usize,
    timers: Rc<Timers>,
    connections: RefCell<Connections>,
    under_way: RefCell<Table>,
}

/// Entries that are written in place: each request has one, and it is not moved.
#[derive(Default)]
struct Table {
    entries: Vec<UnderWay>,
    /// Those that are nobody's.
    free: Vec<u32>,
}

/// A request, a session or a flow.
struct UnderWay {
    begun: Deadline,
    /// Its connection.
    connection: Place,
    /// `None`: the entry is nobody's.
    view: Option<Rc<View>>,
    route: Option<u32>,
    service: u32,
    backend: Option<u32>,
    /// What its backend has of it, where hot keys are looked for.
    key: Option<KeyInFlight>,
    is_flow: bool,
    /// Bytes of a flow whose time was booked last.
    booked_bytes: u64,
    state: SessionState,
    protocol: &'static str,
    received_bytes: u64,
    sent_bytes: u64,
    line: [u8; LINE_BYTES_MAX],
    line_len: u8,
}

impl Sessions {
    pub(super) fn new(worker: usize, timers: Rc<Timers>) -> Rc<Self> {
        Rc::new(Self { worker, timers, connections: RefCell::default(), under_way: RefCell::default() })
    }

    /// How many connections and requests it lists.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.connections.borrow().iter().count(), self.under_way.borrow().in_use().count())
    }

    /// Lists what is asked for, the first rows in their order.
    pub(crate) fn list(&self, query: &SessionQuery) -> SessionPage {
        match query.listed {
            Listed::Connections => self.list_connections(query),
            Listed::Sessions => self.list_under_way(query),
        }
    }

    fn list_connections(&self, query: &SessionQuery) -> SessionPage {
        let connections = self.connections.borrow();
        let now = self.timers.now();
        let is_asked = |one: &&Connected| {
            now.since(one.begun) >= query.age_min
                && one.is_asked(query)
                && query.state.is_none_or(|wanted| wanted == one.state())
        };
        let matching: Vec<&Connected> = connections.iter().filter(is_asked).collect();
        let row = |one: &&Connected| {
            Some(SessionRow {
                worker: self.worker,
                age: now.since(one.begun),
                state: one.state(),
                protocol: one.protocol(),
                client: one.client(),
                listener: one.listener.name().to_string(),
                tls: one.tls,
                request: None,
                route: None,
                service: None,
                backend: None,
                received_bytes: 0,
                sent_bytes: 0,
                under_way: one.under_way,
            })
        };
        page(matching, query, |one| now.since(one.begun).as_nanos(), row)
    }

    fn list_under_way(&self, query: &SessionQuery) -> SessionPage {
        let (connections, under_way) = (self.connections.borrow(), self.under_way.borrow());
        let now = self.timers.now();
        let connection_of = |one: &UnderWay| connections.at(one.connection);
        let is_asked = |one: &&UnderWay| {
            now.since(one.begun) >= query.age_min
                && query.state.is_none_or(|wanted| wanted == one.state)
                && connection_of(one).is_some_and(|connection| connection.is_asked(query))
                && query.service.as_ref().is_none_or(|wanted| wanted == one.service_name())
                && query.backend.as_deref().is_none_or(|wanted| one.backend_id() == Some(wanted))
        };
        let matching: Vec<&UnderWay> = under_way.in_use().filter(is_asked).collect();
        let row = |one: &&UnderWay| {
            let connection = connection_of(one)?;
            Some(SessionRow {
                worker: self.worker,
                age: now.since(one.begun),
                state: one.state,
                protocol: one.protocol,
                client: connection.client(),
                listener: connection.listener.name().to_string(),
                tls: connection.tls,
                request: one.request(),
                route: one.route.map(|route| route as usize + 1),
                service: Some(one.service_name().to_owned()),
                backend: one.backend_id().map(str::to_owned),
                received_bytes: one.received_bytes,
                sent_bytes: one.sent_bytes,
                under_way: 0,
            })
        };
        let rank = |one: &UnderWay| match query.order {
            Order::Age => now.since(one.begun).as_nanos(),
            Order::Bytes => u128::from(one.received_bytes) + u128::from(one.sent_bytes),
        };
        page(matching, query, rank, row)
    }
}

/// The first of what matches: only those are put in order and written out.
fn page<T>(
    mut matching: Vec<&T>,
    query: &SessionQuery,
    rank: impl Fn(&T) -> u128,
    row: impl Fn(&&T) -> Option<SessionRow>,
) -> SessionPage {
    let total = matching.len();
    let first = |one: &&T| std::cmp::Reverse(rank(one));
    if query.rows_max < total {
        matching.select_nth_unstable_by_key(query.rows_max, first);
        matching.truncate(query.rows_max);
    }
    matching.sort_by_key(first);
    SessionPage { total, rows: matching.iter().filter_map(row).collect() }
}

impl Table {
    /// So many are kept although nobody has them.
    const KEPT: usize = 1024;

    fn in_use(&self) -> impl Iterator<Item = &UnderWay> {
        self.entries.iter().filter(|entry| entry.view.is_some())
    }

    /// The index of an entry that is nobody's.
    #[inline]
    fn take(&mut self) -> usize {
        if let Some(index) = self.free.pop() {
            return index as usize;
        }
        self.entries.push(UnderWay::new());
        self.entries.len() - 1
    }

    #[inline]
    fn give(&mut self, index: usize) {
        self.entries[index].view = None;
        self.free.push(index as u32);
        if self.free.len() == self.entries.len() && self.entries.len() > Self::KEPT {
            *self = Self::default();
        }
    }
}

impl UnderWay {
    fn new() -> Self {
        Self {
            begun: Deadline::NEVER,
            connection: Place::default(),
            view: None,
            route: None,
            service: 0,
            backend: None,
            key: None,
            is_flow: false,
            booked_bytes: 0,
            state: SessionState::Queued,
            protocol: "",
            received_bytes: 0,
            sent_bytes: 0,
            line: [0; LINE_BYTES_MAX],
            line_len: 0,
        }
    }

    #[inline]
    fn begin(&mut self, view: &Rc<View>, service: usize, protocol: &'static str) {
        self.view = Some(Rc::clone(view));
        (self.route, self.service, self.backend) = (None, service as u32, None);
        (self.state, self.protocol, self.line_len) = (SessionState::Queued, protocol, 0);
        (self.received_bytes, self.sent_bytes) = (0, 0);
        (self.key, self.is_flow) = (None, false);
    }

    fn service_name(&self) -> &str {
        self.view.as_ref().map_or("", |view| &view.services[self.service as usize].service.config.name)
    }

    fn backend(&self) -> Option<&Backend> {
        let (view, backend) = (self.view.as_ref()?, self.backend? as usize);
        Some(&view.services[self.service as usize].service.backends[backend])
    }

    fn backend_id(&self) -> Option<&str> {
        self.backend().map(|backend| backend.config.id.as_str())
    }

    fn request(&self) -> Option<String> {
        let line = &self.line[..usize::from(self.line_len)];
        let text = || String::from_utf8_lossy(line).into_owned();
        (!line.is_empty()).then(|| if line.len() == LINE_BYTES_MAX { text() + "..." } else { text() })
    }
}

/// A connection's entry: dropping it takes it out.
pub(crate) struct ConnectionEntry {
    sessions: Rc<Sessions>,
    place: Place,
}

impl ConnectionEntry {
    pub(super) fn new(sessions: &Rc<Sessions>, listener: &Rc<ActiveListener>, client: SocketAddr) -> Self {
        let place = sessions.connections.borrow_mut().begin(sessions.timers.now(), listener, client);
        Self { sessions: Rc::clone(sessions), place }
    }

    /// Its TLS session, once the handshake is done.
    pub(crate) fn set_tls(&self, session: TlsSession) {
        self.tell(|connected| connected.tls = Some(session));
    }

    /// The same, for who tells of a request on it.
    pub(crate) fn tls(&self) -> Option<TlsSession> {
        self.sessions.connections.borrow().at(self.place)?.tls
    }

    /// Part of a request's head has come, and the rest is waited for.
    pub(crate) fn set_receiving(&self) {
        self.tell(|connected| connected.is_receiving = true);
    }

    #[inline]
    fn tell(&self, telling: impl FnOnce(&mut Connected)) {
        self.sessions.connections.borrow_mut().at_mut(self.place).map(telling);
    }
}

impl Drop for ConnectionEntry {
    fn drop(&mut self) {
        self.sessions.connections.borrow_mut().end(self.place);
    }
}

/// The entry of a request, a session or a flow.
pub(crate) struct SessionEntry {
    sessions: Rc<Sessions>,
    connection: Place,
    index: u32,
}

impl SessionEntry {
    /// One that begins on this connection.
    pub(crate) fn begin(on: &ConnectionEntry, view: &Rc<View>, service: usize, protocol: &'static str) -> Self {
        Self::enter(on, None, |entry| entry.begin(view, service, protocol))
    }

    /// A request, with method and path, the number of the route that has taken it, and the bytes of its head.
    pub(crate) fn of_request(
        (on, version): (&ConnectionEntry, Version),
        (view, service): (&Rc<View>, usize),
        (method, path): (&[u8], &[u8]),
        (route, head_bytes): (usize, u64),
    ) -> Self {
        Self::enter(on, Some(version), |entry| {
            entry.begin(view, service, version_name(version));
            entry.received_bytes = head_bytes;
            let of_method = method.len().min(LINE_BYTES_MAX / 2);
            entry.line[..of_method].copy_from_slice(&method[..of_method]);
            entry.line[of_method] = b' ';
            let of_path = path.len().min(LINE_BYTES_MAX - of_method - 1);
            entry.line[of_method + 1..][..of_path].copy_from_slice(&path[..of_path]);
            (entry.line_len, entry.route) = ((of_method + 1 + of_path) as u8, Some(route as u32));
        })
    }

    #[inline]
    fn enter(on: &ConnectionEntry, version: Option<Version>, fill: impl FnOnce(&mut UnderWay)) -> Self {
        on.tell(|connection| {
            connection.under_way += 1;
            connection.is_receiving = false;
            connection.version = version.or(connection.version);
        });
        let ConnectionEntry { sessions, place } = on;
        let mut table = sessions.under_way.borrow_mut();
        let index = table.take();
        let entry = &mut table.entries[index];
        (entry.begun, entry.connection) = (sessions.timers.now(), *place);
        fill(entry);
        Self { sessions: Rc::clone(sessions), connection: *place, index: index as u32 }
    }

    /// A flow of datagrams, which has its backend.
    pub(crate) fn of_flow(
        on: &ConnectionEntry,
        view: &Rc<View>,
        service: usize,
        (backend, key): (usize, Option<KeyInFlight>),
    ) -> Self {
        let this = Self::enter(on, None, |entry| {
            entry.begin(view, service, "udp");
            (entry.is_flow, entry.booked_bytes) = (true, 0);
        });
        this.set_backend(view, service, (backend, key));
        this.set_state(SessionState::Relaying);
        this
    }

    /// The backend that it goes to, of this version, and the key that it is in flight for there.
    pub(crate) fn set_backend(&self, view: &Rc<View>, service: usize, (backend, key): (usize, Option<KeyInFlight>)) {
        let mut table = self.sessions.under_way.borrow_mut();
        let entry = &mut table.entries[self.index as usize];
        if !entry.view.as_ref().is_some_and(|known| Rc::ptr_eq(known, view)) {
            entry.view = Some(Rc::clone(view));
        }
        (entry.service, entry.backend) = (service as u32, Some(backend as u32));
        (entry.state, entry.key) = (SessionState::Connecting, key);
    }

    /// Its backend has nothing of it any more.
    pub(crate) fn leave_backend(&self) {
        self.sessions.under_way.borrow_mut().entries[self.index as usize].key = None;
    }

    /// How far it has come.
    #[inline]
    pub(crate) fn set_state(&self, state: SessionState) {
        self.sessions.under_way.borrow_mut().entries[self.index as usize].state = state;
    }

    /// How many bytes have moved so far.
    #[inline]
    pub(crate) fn set_bytes(&self, received: u64, sent: u64) {
        let mut table = self.sessions.under_way.borrow_mut();
        let entry = &mut table.entries[self.index as usize];
        (entry.received_bytes, entry.sent_bytes) = (received, sent);
    }
}

impl Drop for SessionEntry {
    fn drop(&mut self) {
        self.sessions.under_way.borrow_mut().give(self.index as usize);
        if let Some(connection) = self.sessions.connections.borrow_mut().at_mut(self.connection) {
            connection.under_way -= 1;
        }
    }
}
