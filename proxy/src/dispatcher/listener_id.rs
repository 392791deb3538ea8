//! The identity of a listener from version to version, and the sockets that it is given.

use ringway_config::model::{Listener, Protocol};
use std::net::SocketAddr;
use std::sync::Arc;

/// What makes a listener the same one after a reload: a name may change, sockets and connections stay.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ListenerId {
    /// As configured: port 0 stays 0.
    pub(crate) address: SocketAddr,
    /// Whether IPv4 is left to others.
    pub(crate) v6_only: bool,
    pub(crate) kind: ListenerKind,
    /// The name, for a listener on port 0: nothing else tells it from others.
    name: Option<Arc<str>>,
}

/// What kind of traffic a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ListenerKind {
    Http,
    Tcp,
    Udp,
}

impl ListenerKind {
    pub(crate) fn of(listener: &Listener) -> Self {
        match listener.protocol {
            Protocol::Http(_) => Self::Http,
            Protocol::Tcp(_) => Self::Tcp,
            Protocol::Udp(_) => Self::Udp,
        }
    }

    /// The one that is written so.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        [Self::Http, Self::Tcp, Self::Udp].into_iter().find(|kind| kind.name() == name)
    }

    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
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

impl ListenerId {
    pub(crate) fn of(listener: &Listener) -> Self {
        let name = (listener.address.port() == 0).then(|| listener.name.as_str().into());
        Self { address: listener.address, v6_only: listener.v6_only, kind: ListenerKind::of(listener), name }
    }

    pub(crate) fn is(&self, listener: &Listener) -> bool {
        self.address == listener.address
            && self.v6_only == listener.v6_only
            && self.kind == ListenerKind::of(listener)
            && self.name.as_ref().is_none_or(|name| **name == *listener.name)
    }

    /// Whether a listener with the one key can take over the sockets of the other.
    pub(crate) fn shares_sockets(&self, other: &Self) -> bool {
        let udp = |key: &Self| key.kind == ListenerKind::Udp;
        // Sockets keep the address families that they were bound for. UDP sockets go on all the same: flows keep them, and while
        // they last, fresh sockets would get no datagrams.
        self.address == other.address
            && (self.v6_only == other.v6_only || udp(self))
            && self.name == other.name
            && udp(self) == udp(other)
    }
}
