//! A client's connection, as it is listed.

use super::{Place, Sessions, version_name};
use crate::dispatcher::{SessionQuery, SessionState, TlsSession};
use crate::net::timer::Deadline;
use crate::overload::released;
use crate::worker::active_listener::ActiveListener;
use ringway_message::Version;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// A client's connection, and what is on it. There is one for each, idle ones too: it is small.
pub(super) struct Connected {
    pub(super) begun: Deadline,
    pub(super) listener: Rc<ActiveListener>,
    client: (IpAddr, u16),
    pub(super) number: u32,
    /// Requests, sessions and flows.
    pub(super) under_way: u32,
    /// Part of the next request's head has come.
    pub(super) is_receiving: bool,
    /// Of HTTP, once it is known.
    pub(super) version: Option<Version>,
    pub(super) tls: Option<TlsSession>,
}

impl Connected {
    pub(super) fn client(&self) -> SocketAddr {
        self.client.into()
    }

    /// What is spoken, as far as it is known.
    pub(super) fn protocol(&self) -> &'static str {
        self.version.map_or_else(|| self.listener.key().kind.name(), version_name)
    }

    pub(super) fn state(&self) -> SessionState {
        match (self.under_way, self.is_receiving) {
            (0, false) => SessionState::Idle,
            (0, true) => SessionState::Receiving,
            _ => SessionState::Busy,
        }
    }

    /// Whether client and listener are those that are asked for.
    pub(super) fn is_asked(&self, query: &SessionQuery) -> bool {
        query.client.is_none_or(|client| client == self.client.0.to_canonical())
            && query.kind.is_none_or(|kind| kind == self.listener.key().kind)
            && query.listener.as_ref().is_none_or(|wanted| *wanted == *self.listener.name())
    }
}

/// A connection's entry in the table: dropping it takes it out.
pub(crate) struct ConnectionEntry {
    pub(super) sessions: Rc<Sessions>,
    pub(super) place: Place,
}

impl ConnectionEntry {
    pub(in crate::worker) fn new(sessions: &Rc<Sessions>, listener: &Rc<ActiveListener>, client: SocketAddr) -> Self {
        let number = sessions.begun.get().wrapping_add(1);
        sessions.begun.set(number);
        let connected = Connected {
            begun: sessions.timers.now(),
            listener: Rc::clone(listener),
            client: (client.ip(), client.port()),
            number,
            under_way: 0,
            is_receiving: false,
            version: None,
            tls: None,
        };
        let mut connections = sessions.connections.borrow_mut();
        if connections.len() == connections.capacity() {
            // The table grows, and so do others that are as long as it: what they had before is free.
            released::note();
        }
        let index = connections.insert(connected) as u32;
        drop(connections);
        Self { sessions: Rc::clone(sessions), place: Place { index, number } }
    }

    fn ask<T>(&self, asking: impl FnOnce(&Connected) -> T) -> Option<T> {
        self.place.among(&self.sessions.connections.borrow()).map(asking)
    }

    fn tell(&self, telling: impl FnOnce(&mut Connected)) {
        self.place.among_mut(&mut self.sessions.connections.borrow_mut()).map(telling);
    }

    /// Its TLS session, once the handshake is done.
    pub(crate) fn set_tls(&self, session: TlsSession) {
        self.tell(|connected| connected.tls = Some(session));
    }

    /// The same, for who tells of a request on it.
    pub(crate) fn tls(&self) -> Option<TlsSession> {
        self.ask(|connected| connected.tls).flatten()
    }

    /// Part of a request's head has come, and the rest is waited for.
    pub(crate) fn set_receiving(&self) {
        self.tell(|connected| connected.is_receiving = true);
    }
}

impl Drop for ConnectionEntry {
    fn drop(&mut self) {
        let mut connections = self.sessions.connections.borrow_mut();
        connections.remove(self.place.index as usize);
        // A burst that has gone leaves no table of its size.
        if connections.is_empty() && connections.capacity() > Sessions::CONNECTIONS_KEPT {
            connections.shrink_to_fit();
        }
    }
}
