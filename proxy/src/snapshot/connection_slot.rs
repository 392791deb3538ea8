//! One of a backend's connections, one that is wanted, one request that waits: values whose drop returns what they count.

use super::backend::BackendState;
use super::connection_life::ConnectionLife;
use super::connections::{Connections, add_below};
use super::service::{Service, ServiceLive};
use crate::error::ProxyError;
use crate::overload::released;
use ringway_ring::Slot;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicUsize, fence};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// One of a backend's connections, counted as long as this lives.
pub(crate) struct ConnectionSlot {
    service: Arc<ServiceLive>,
    backend: Arc<BackendState>,
    /// It is counted among the backend's idle ones too.
    idle: bool,
    /// It is counted among those that end.
    ending: Cell<bool>,
    /// Of a connection that carries one request after the other.
    pub(crate) life: ConnectionLife,
}

impl ConnectionSlot {
    /// Counts one more, if there are fewer than allowed. Both counts are checked before either is changed: one that was raised and
    /// lowered again would hide a slot from others that look just then.
    pub(crate) fn take(service: &Service, slot: Slot) -> Option<Self> {
        let backend = &service.backends[usize::from(slot.0)];
        let live = &service.live;
        if live.connections.open.load(Relaxed) >= service.config.connections_max
            || !add_below(&backend.state.connections, backend.config.connections_max)
        {
            return None;
        }
        if !add_below(&live.connections.open, service.config.connections_max) {
            backend.state.connections.fetch_sub(1, Relaxed);
            live.connections.tell();
            return None;
        }
        Some(Self {
            service: Arc::clone(live),
            backend: Arc::clone(&backend.state),
            life: ConnectionLife::default(),
            idle: false,
            ending: Cell::new(false),
        })
    }

    /// Counts it among the backend's idle ones, if there are fewer than `most` over all workers.
    pub(crate) fn begin_idle(&mut self, most: u32) -> bool {
        self.idle = self.idle || add_below(&self.backend.idle, most);
        self.idle
    }

    /// Its connection takes no more requests, and is closed once what it carries is over: who finds the limit reached waits for that.
    pub(crate) fn begin_ending(&self) {
        if !self.ending.replace(true) {
            self.backend.ending.fetch_add(1, SeqCst);
            self.service.connections.ending.fetch_add(1, SeqCst);
        }
    }

    /// Its connection takes requests after all.
    pub(crate) fn end_ending(&self) {
        if self.ending.replace(false) {
            self.backend.ending.fetch_sub(1, SeqCst);
            self.service.connections.ending.fetch_sub(1, SeqCst);
            // Whoever has waited for its end looks again.
            self.service.connections.tell();
        }
    }

    /// It is in use again.
    pub(crate) fn end_idle(&mut self) {
        if std::mem::take(&mut self.idle) {
            self.backend.idle.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.end_idle();
        self.backend.connections.fetch_sub(1, Relaxed);
        self.service.connections.open.fetch_sub(1, Relaxed);
        // The slot is given back before this: who sees none that ends any more finds it.
        self.end_ending();
        self.service.connections.tell();
        // A shared connection may end after the last request on it.
        self.service.tell_room();
        released::note();
    }
}

/// A connection that is wanted where the limit is reached: sent to the other workers.
pub(crate) struct Wanted {
    service: Arc<ServiceLive>,
    /// Which backend's; any backend's of the service if the service is at its limit.
    backend: Option<Arc<BackendState>>,
    /// Workers that have not looked yet.
    unanswered: AtomicUsize,
    /// Workers that have closed an idle one.
    given: AtomicUsize,
    answered: Notify,
}

impl Wanted {
    /// In place of a slot; `others`: workers that are asked.
    pub(crate) fn new(service: &Service, slot: Slot, others: usize) -> Self {
        let backend = &service.backends[usize::from(slot.0)];
        let of_backend = backend.state.connections.load(Relaxed) >= backend.config.connections_max;
        Self {
            service: Arc::clone(&service.live),
            backend: of_backend.then(|| Arc::clone(&backend.state)),
            unanswered: AtomicUsize::new(others),
            given: AtomicUsize::new(0),
            answered: Notify::new(),
        }
    }

    /// Whether a worker has closed one.
    pub(crate) fn is_given(&self) -> bool {
        self.given.load(SeqCst) > 0
    }

    /// Ready once a worker has replied.
    pub(crate) fn answered(&self) -> Notified<'_> {
        self.answered.notified()
    }

    /// Whether a connection in whose place this one would come is about to be closed.
    pub(crate) fn has_ending(&self) -> bool {
        let of_service = &self.service.connections.ending;
        self.backend.as_ref().map_or(of_service, |backend| &backend.ending).load(SeqCst) > 0
    }

    /// Service and, if only one backend's will do, backend.
    pub(crate) fn names(&self) -> (&str, Option<&str>) {
        (&self.service.name, self.backend.as_ref().map(|backend| &*backend.id))
    }

    /// A worker's reply, given by `close` if none has come yet: whether it has closed one.
    pub(crate) fn handle(&self, close: impl FnOnce() -> bool) {
        if self.given.load(SeqCst) == 0 && close() {
            self.given.fetch_add(1, SeqCst);
        }
        if self.unanswered.fetch_sub(1, SeqCst) == 1 || self.given.load(SeqCst) > 0 {
            self.answered.notify_waiters();
        }
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.unanswered.load(SeqCst) == 0 && self.given.load(SeqCst) == 0
    }
}

/// A task that waits.
pub(crate) struct Wanting<'a>(&'a Connections);

impl<'a> Wanting<'a> {
    pub(crate) fn begin(connections: &'a Connections) -> Self {
        connections.wanting.fetch_add(1, Relaxed);
        // Either an opening ahead sees that somebody waits, or whoever waits sees that opening.
        fence(SeqCst);
        connections.wanted.notify_waiters();
        Self(connections)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.wanting.fetch_sub(1, Relaxed);
    }
}

/// A connection that is being opened before a request needs it, and gives way to one that does. Its slot is given back before this.
pub(crate) struct OpeningAhead<'a>(&'a Connections);

impl<'a> OpeningAhead<'a> {
    pub(crate) fn begin(connections: &'a Connections) -> Self {
        connections.ahead.fetch_add(1, Relaxed);
        Self(connections)
    }
}

impl Drop for OpeningAhead<'_> {
    fn drop(&mut self) {
        self.0.ahead.fetch_sub(1, Relaxed);
        // Whoever has waited for it looks again.
        self.0.tell();
    }
}

/// A request that waits for a reservation or for a connection, counted where that is limited.
pub(crate) struct Pending {
    service: Option<Arc<ServiceLive>>,
    backend: Option<(Arc<BackendState>, Arc<ServiceLive>)>,
}

impl Pending {
    /// Begins to wait for a reservation on any backend.
    ///
    /// # Errors
    /// [`ProxyError::PendingLimit`]: as many wait as allowed.
    pub(crate) fn enter(service: &Service) -> Result<Self, ProxyError> {
        let most = service.config.pending_max;
        if most == u32::MAX {
            return Ok(Self { service: None, backend: None });
        }
        let enters = add_below(&service.live.pending, most);
        let this = || Self { service: Some(Arc::clone(&service.live)), backend: None };
        enters.then(this).ok_or(ProxyError::PendingLimit)
    }

    /// Begins to wait for a connection to this backend.
    ///
    /// # Errors
    /// As [`Pending::enter`]; [`ProxyError::ConnectionLimit`]: as many wait for this backend as allowed.
    pub(crate) fn enter_for(service: &Service, slot: Slot) -> Result<Self, ProxyError> {
        let mut this = Self::enter(service)?;
        let backend = &service.backends[usize::from(slot.0)];
        let most = backend.config.pending_max;
        if most < u32::MAX {
            // One that is refused makes no room by leaving: it would wake itself for ever.
            if !add_below(&backend.state.pending, most) {
                return Err(ProxyError::ConnectionLimit);
            }
            this.backend = Some((Arc::clone(&backend.state), Arc::clone(&service.live)));
        }
        Ok(this)
    }
}

impl Pending {
    /// The wait is over, with this result. That no connection was available makes no room for others.
    pub(crate) fn end<T>(mut self, result: &Result<T, ProxyError>) {
        if matches!(result, Err(ProxyError::ConnectionLimit))
            && let Some((backend, _)) = self.backend.take()
        {
            backend.pending.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(service) = &self.service {
            service.pending.fetch_sub(1, Relaxed);
        }
        if let Some((backend, live)) = &self.backend {
            backend.pending.fetch_sub(1, Relaxed);
            live.tell_room();
        }
    }
}
