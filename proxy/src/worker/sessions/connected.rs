//! A client's connection, as it is listed.

use crate::dispatcher::{SessionQuery, SessionState, TlsSession};
use crate::net::timer::Deadline;
use crate::worker::active_listener::ActiveListener;
use ringway_message::Version;
use slab::Slab;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// A client's connection, and what is on it. There is one for each, idle ones too: it is small.
pub(super) struct Connected {
    pub(super) begun: Deadline,
    pub(super) listener: Rc<ActiveListener>,
    client: (IpAddr, u16),
    number: u32,
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

/// Where a connection stands in the table, as long as it is there: it has the number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    index: u32,
    number: u32,
}

/// Those that are open.
#[derive(Default)]
pub(super) struct Connections {
    rows: Slab<Connected>,
    /// How many there have been.
    begun: u32,
}

impl Connections {
    /// The table is freed once it is empty and has had room for more than these.
    const KEPT: usize = 1024;
    /// So many times as long as it is the table grows by.
    const GROWTH: usize = 15;
    const GROWTH_MAX: usize = 1 << 18;

    pub(super) fn begin(&mut self, now: Deadline, listener: &Rc<ActiveListener>, client: SocketAddr) -> Place {
        self.begun = self.begun.wrapping_add(1);
        if self.rows.len() == self.rows.capacity() {
            // By much: room that has not been used yet takes no memory, while the table of before is not given back at once.
            self.rows.reserve_exact((Self::GROWTH * self.rows.len().max(4)).min(Self::GROWTH_MAX));
        }
        let index = self.rows.insert(Connected {
            begun: now,
            listener: Rc::clone(listener),
            client: (client.ip(), client.port()),
            number: self.begun,
            under_way: 0,
            is_receiving: false,
            version: None,
            tls: None,
        });
        Place { index: index as u32, number: self.begun }
    }

    pub(super) fn end(&mut self, place: Place) {
        if self.at_mut(place).is_some() {
            self.rows.remove(place.index as usize);
        }
        // A burst that has gone leaves no table of its size.
        if self.rows.is_empty() && self.rows.capacity() > Self::KEPT {
            self.rows.shrink_to_fit();
        }
    }

    pub(super) fn at(&self, place: Place) -> Option<&Connected> {
        self.rows.get(place.index as usize).filter(|one| one.number == place.number)
    }

    #[inline]
    pub(super) fn at_mut(&mut self, place: Place) -> Option<&mut Connected> {
        self.rows.get_mut(place.index as usize).filter(|one| one.number == place.number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connected> {
        self.rows.iter().map(|(_, one)| one)
    }
}

/// As lists name it.
pub(super) fn version_name(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_has_a_small_row() {
        // As the table has it: in use or free.
        let bytes = size_of::<Option<Connected>>();
        assert!(bytes <= 48, "{bytes}");
    }
}
