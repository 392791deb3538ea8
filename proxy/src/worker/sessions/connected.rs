//! A client's connection, as it is listed.

use crate::dispatcher::{SessionQuery, SessionState, TlsSession};
use crate::net::timer::Deadline;
use crate::worker::active_listener::ActiveListener;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

/// A client's connection.
pub(super) struct Connected {
    pub(super) begun: Deadline,
    pub(super) listener: Rc<ActiveListener>,
    pub(super) client: SocketAddr,
    pub(super) tls: Option<TlsSession>,
    pub(super) activity: Rc<Activity>,
}

/// What is on a connection.
#[derive(Default)]
pub(super) struct Activity {
    /// Requests, sessions and flows.
    pub(super) under_way: Cell<u32>,
    /// Part of the next request's head has come.
    pub(super) is_receiving: Cell<bool>,
    /// What is spoken, once it is known.
    pub(super) protocol: Cell<Option<&'static str>>,
}

impl Connected {
    pub(super) fn state(&self) -> SessionState {
        match (self.activity.under_way.get(), self.activity.is_receiving.get()) {
            (0, false) => SessionState::Idle,
            (0, true) => SessionState::Receiving,
            _ => SessionState::Busy,
        }
    }

    /// Whether client and listener are those that are asked for.
    pub(super) fn is_asked(&self, query: &SessionQuery) -> bool {
        query.client.is_none_or(|client| client == self.client.ip().to_canonical())
            && query.kind.is_none_or(|kind| kind == self.listener.key().kind)
            && query.listener.as_ref().is_none_or(|wanted| *wanted == *self.listener.name())
    }
}
