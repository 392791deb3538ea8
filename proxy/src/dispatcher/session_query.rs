//! What an operator asks of workers about the connections and requests that are under way, and what they say.

use super::listener_id::ListenerKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    /// Requests, sessions and flows under way.
    Sessions,
    /// Connections of clients, busy or idle.
    Connections,
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The oldest.
    Age,
    /// What has moved most bytes, both ways.
    Bytes,
}

/// How far a request or a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// It waits for a backend with room.
    Queued,
    /// A connection to its backend is opened.
    Connecting,
    /// It has been sent, or is being sent: its response has not begun.
    Waiting,
    /// Its response is on its way.
    Responding,
    /// Bytes go both ways: a tunnel, a session of TCP, a flow of UDP.
    Relaying,
    /// Of a connection: nothing is under way.
    Idle,
    /// Of a connection: part of a request's head has come, and nothing is under way.
    Receiving,
    /// Of a connection: something is.
    Busy,
}

impl SessionState {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Queued,
        Self::Connecting,
        Self::Waiting,
        Self::Responding,
        Self::Relaying,
        Self::Idle,
        Self::Receiving,
        Self::Busy,
    ];

    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Connecting => "connecting",
            Self::Waiting => "waiting",
            Self::Responding => "responding",
            Self::Relaying => "relaying",
            Self::Idle => "idle",
            Self::Receiving => "receiving",
            Self::Busy => "busy",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct SessionQuery {
    pub(crate) listed: Listed,
    pub(crate) listener: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) backend: Option<String>,
    pub(crate) client: Option<IpAddr>,
    /// What kind of listener it came to.
    pub(crate) kind: Option<ListenerKind>,
    pub(crate) state: Option<SessionState>,
    /// Only what is at least as old.
    pub(crate) age_min: Duration,
    pub(crate) order: Order,
    /// Rows, at most.
    pub(crate) rows_max: usize,
}

/// What is told of a client's TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TlsSession {
    /// Of TLS 1.3, not 1.2.
    pub(crate) is_1_3: bool,
    /// It goes on with a session of before.
    pub(crate) is_resumed: bool,
}

impl TlsSession {
    /// `1.2` or `1.3`.
    pub(crate) fn version(self) -> &'static str {
        if self.is_1_3 { "1.3" } else { "1.2" }
    }
}

/// A connection, a request, a session or a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionRow {
    pub(crate) worker: usize,
    pub(crate) age: Duration,
    pub(crate) state: SessionState,
    pub(crate) protocol: &'static str,
    pub(crate) client: SocketAddr,
    pub(crate) listener: String,
    /// The TLS session of its connection.
    pub(crate) tls: Option<TlsSession>,
    /// Method and path, or their beginning.
    pub(crate) request: Option<String>,
    /// The number of the route on its listener, from 1.
    pub(crate) route: Option<usize>,
    pub(crate) service: Option<String>,
    pub(crate) backend: Option<String>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    /// Of a connection: what is under way on it.
    pub(crate) under_way: u32,
}

impl SessionRow {
    pub(crate) fn rank(&self, order: Order) -> u128 {
        match order {
            Order::Age => self.age.as_nanos(),
            Order::Bytes => u128::from(self.received_bytes) + u128::from(self.sent_bytes),
        }
    }
}

/// What a worker says: how many there are, and the first of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionPage {
    pub(crate) total: usize,
    pub(crate) rows: Vec<SessionRow>,
}
