//! Limits on connections to backends, and how an idle one gives way to one that is wanted.
//!
//! Over HTTP/1.1 and TCP a request in flight is a connection in use: the limit is a place on the walk, as `requests_max` is (see
//! [`places`] and [`crate::upstream::in_flight`]). Who has a place there, and finds no idle connection with its own worker, opens one; if that is
//! one too many, then because another is idle with another worker. That one gives way. Over HTTP/2 connections are shared, and
//! a worker may have none while others use all there may be: then the backend is full for it, as for want of a place.

use crate::error::ProxyError;
use crate::net::timer::{Deadline, Timer};
use crate::snapshot::{BackendState, Service, ServiceLive};
use crate::worker::{Command, Worker};
use ringway_config::model::{self, UpstreamProtocol};
use ringway_ring::Slot;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicUsize, fence};
use std::task::Poll;
use tokio::sync::Notify;

/// How often an idle connection may be asked to give way for one request, where others take the place that it makes.
const ROUNDS_MAX: u32 = 32;

/// Requests in flight that a backend may have for its own limits' sake.
pub(crate) fn places(service: &model::Service, backend: &model::Backend) -> u32 {
    match service.protocol {
        UpstreamProtocol::Http1 => backend.requests_max.min(backend.connections_max),
        UpstreamProtocol::H2 => backend.requests_max,
    }
}

/// Requests in flight that a service may have on all its backends together, for its connections' sake; `u32::MAX` is no limit.
pub(crate) fn places_together(service: &model::Service) -> u32 {
    match service.protocol {
        UpstreamProtocol::Http1 => service.connections_max,
        UpstreamProtocol::H2 => u32::MAX,
    }
}

/// Connections to a service's backends, and who wants one.
#[derive(Default)]
pub(crate) struct Connections {
    /// Open now, idle ones included, over all workers and backends.
    open: AtomicU32,
    /// How many wait for one to be closed.
    wanting: AtomicU32,
    /// One was closed while somebody waited for that.
    closed: Notify,
}

/// One of a backend's connections, counted as long as this lives.
pub(crate) struct ConnectionSlot {
    service: Arc<ServiceLive>,
    backend: Arc<BackendState>,
}

impl ConnectionSlot {
    /// Counts one more, if there are fewer than there may be. Both counts are looked at before either is touched: one that was
    /// raised and lowered again would hide a place from others who look just then.
    fn take(service: &Service, slot: Slot) -> Option<Self> {
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
        Some(Self { service: Arc::clone(live), backend: Arc::clone(&backend.state) })
    }
}

/// Adds one to a count that is below a limit. One that was raised first and lowered again would hide a place from who looks just then.
pub(crate) fn add_below(count: &AtomicU32, limit: u32) -> bool {
    count.fetch_update(Relaxed, Relaxed, |count| (count < limit).then_some(count + 1)).is_ok()
}

impl Connections {
    /// Open now, and how many wait for one to be closed.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (u32, u32) {
        (self.open.load(Relaxed), self.wanting.load(Relaxed))
    }

    /// One is closed, and counted no more.
    fn tell(&self) {
        // Either this sees who waits, or that one sees the place: both write one word and read another.
        fence(SeqCst);
        if self.wanting.load(Relaxed) > 0 {
            self.closed.notify_waiters();
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.backend.connections.fetch_sub(1, Relaxed);
        self.service.connections.open.fetch_sub(1, Relaxed);
        self.service.connections.tell();
        // One that was shared may end after the last request on it.
        self.service.tell_room();
    }
}

/// A connection that is wanted where there may be no more: what workers are asked for.
pub(crate) struct Wanted {
    service: Arc<ServiceLive>,
    /// Which backend's; any backend's of the service if the service has all that it may.
    backend: Option<Arc<BackendState>>,
    /// Workers that have not looked yet.
    unanswered: AtomicUsize,
    /// Workers that have closed an idle one.
    given: AtomicUsize,
    answered: Notify,
}

impl Wanted {
    /// Service and, if only one backend's will do, backend.
    pub(crate) fn names(&self) -> (&str, Option<&str>) {
        (&self.service.name, self.backend.as_ref().map(|backend| &*backend.id))
    }

    /// A worker's answer, found by `close` if none has given one yet: whether it has closed one.
    pub(crate) fn handle(&self, close: impl FnOnce() -> bool) {
        if self.given.load(SeqCst) == 0 && close() {
            self.given.fetch_add(1, SeqCst);
        }
        if self.unanswered.fetch_sub(1, SeqCst) == 1 || self.given.load(SeqCst) > 0 {
            self.answered.notify_waiters();
        }
    }

    fn is_refused(&self) -> bool {
        self.unanswered.load(SeqCst) == 0 && self.given.load(SeqCst) == 0
    }
}

/// One who waits.
struct Wanting<'a>(&'a Connections);

impl<'a> Wanting<'a> {
    fn begin(connections: &'a Connections) -> Self {
        connections.wanting.fetch_add(1, Relaxed);
        Self(connections)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.wanting.fetch_sub(1, Relaxed);
    }
}

/// Leave for one more connection to a backend; idle ones give way to it.
///
/// # Errors
/// [`ProxyError::ConnectionLimit`]: as many as there may be are in use.
pub(crate) async fn slot(
    service: &Service,
    slot: Slot,
    worker: &Rc<Worker>,
    timer: &Timer,
    limit: Deadline,
) -> Result<ConnectionSlot, ProxyError> {
    match ConnectionSlot::take(service, slot) {
        Some(taken) => Ok(taken),
        None => wait_for_slot(service, slot, worker, timer, limit).await,
    }
}

#[cold]
async fn wait_for_slot(
    service: &Service,
    slot: Slot,
    worker: &Rc<Worker>,
    timer: &Timer,
    limit: Deadline,
) -> Result<ConnectionSlot, ProxyError> {
    let connections = &service.live.connections;
    let _wanting = Wanting::begin(connections);
    let is_shared = service.config.protocol == UpstreamProtocol::H2;
    timer.set_before(service.config.timeouts.connect, limit);
    for _ in 0..ROUNDS_MAX {
        let wanted = wanted(service, slot, worker.shared.workers.saturating_sub(1));
        let (service_name, backend) = wanted.names();
        let own = worker.close_idle(service_name, backend);
        if !own {
            worker.ask_others(|| Command::GiveWay(Arc::clone(&wanted)));
        }
        loop {
            let (mut closed, mut answered) = (pin!(connections.closed.notified()), pin!(wanted.answered.notified()));
            // Registered before the look, so that nothing between the two is missed.
            closed.as_mut().enable();
            answered.as_mut().enable();
            fence(SeqCst);
            // Before the look as well: what others have done on the way to their answer is done.
            let refused = !own && wanted.is_refused();
            if let Some(taken) = ConnectionSlot::take(service, slot) {
                return Ok(taken);
            }
            if refused {
                return Err(ProxyError::ConnectionLimit);
            }
            // One that nobody shares is closed by now, and somebody else has taken its place: the next one is asked for.
            if !is_shared && (own || wanted.given.load(SeqCst) > 0) {
                break;
            }
            let woken = poll_fn(|context| match closed.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(true)),
                Poll::Pending if answered.as_mut().poll(context).is_ready() => Poll::Ready(Some(false)),
                Poll::Pending if timer.poll_fired(context) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            let was_closed = woken.await.ok_or(ProxyError::ConnectionLimit)?;
            if let Some(taken) = ConnectionSlot::take(service, slot) {
                return Ok(taken);
            }
            // The place that was made has gone to somebody else: the next one is asked for.
            if was_closed && (own || wanted.given.load(SeqCst) > 0) {
                break;
            }
        }
    }
    Err(ProxyError::ConnectionLimit)
}

fn wanted(service: &Service, slot: Slot, others: usize) -> Arc<Wanted> {
    let backend = &service.backends[usize::from(slot.0)];
    let of_backend = backend.state.connections.load(Relaxed) >= backend.config.connections_max;
    Arc::new(Wanted {
        service: Arc::clone(&service.live),
        backend: of_backend.then(|| Arc::clone(&backend.state)),
        unanswered: AtomicUsize::new(others),
        given: AtomicUsize::new(0),
        answered: Notify::new(),
    })
}

/// A request that waits for a place or for a connection, counted where that is limited.
pub(crate) struct Pending {
    service: Option<Arc<ServiceLive>>,
    backend: Option<(Arc<BackendState>, Arc<ServiceLive>)>,
}

impl Pending {
    /// Begins to wait for a place on any backend.
    ///
    /// # Errors
    /// [`ProxyError::PendingLimit`]: as many wait as may.
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
    /// As [`Pending::enter`]; [`ProxyError::ConnectionLimit`]: as many wait for this backend as may.
    pub(crate) fn enter_for(service: &Service, slot: Slot) -> Result<Self, ProxyError> {
        let mut this = Self::enter(service)?;
        let backend = &service.backends[usize::from(slot.0)];
        let most = backend.config.pending_max;
        if most < u32::MAX {
            // One that is refused has not made room by leaving: it would wake itself for ever.
            if !add_below(&backend.state.pending, most) {
                return Err(ProxyError::ConnectionLimit);
            }
            this.backend = Some((Arc::clone(&backend.state), Arc::clone(&service.live)));
        }
        Ok(this)
    }
}

impl Pending {
    /// The wait is over, and this is what it has led to. That there was no connection to be had is no room made for others.
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
