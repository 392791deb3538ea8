//! In-flight accounting by value: while an [`InFlight`] lives, its backend carries one request more.

use crate::ambient;
use crate::error::ProxyError;
use crate::net::timer::{Deadline, Timer};
use crate::planted::{self, Fault};
use crate::snapshot::connection_slot::Pending;
use crate::snapshot::connections;
use crate::snapshot::{BackendState, Service, ServiceLive};
use crate::upstream::refusals::Refusals;
use crate::worker::{View, Worker};
use ringway_config::model;
use ringway_health::Outcome;
use ringway_ring::{AllFull, Held, Pick, PolicyParams, Selection, Slot};
use ringway_telemetry::counters::RetryLimit;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

/// One request in flight to one backend. Dropping it ends the request, on every path.
#[must_use]
pub(crate) struct InFlight {
    view: Rc<View>,
    service: usize,
    pub(crate) slot: Slot,
    shard: usize,
    /// An affinity cookie named the backend.
    sticky: bool,
    connected: Connected,
    /// It is a retry, where its backend limits them.
    retrying: Option<Retrying>,
    /// No connection was available: its end makes no room.
    is_full: bool,
}

/// A retry under way on a backend that limits them.
struct Retrying(Arc<BackendState>);

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.retrying.fetch_sub(1, Relaxed);
    }
}

/// One of the requests that a service may have on its backends, where its limit on connections bounds them.
struct Connected(Option<(Arc<ServiceLive>, Held)>);

impl Connected {
    /// Counts one more. `None`: there are as many as allowed.
    fn enter(service: &Service) -> Option<Self> {
        let most = connections::places_together(&service.config);
        if most == u32::MAX {
            return Some(Self(None));
        }
        service.live.connected.take(most).map(|held| Self(Some((Arc::clone(&service.live), held))))
    }

    /// It is returned because no backend has room: nothing has been released. But others could not use it while it was held, so one
    /// waiting request is woken for it: only one, and it does not count as a release, which each request that cannot use it passes
    /// on to all others. Otherwise many that find nothing would wake each other in circles.
    fn give_back_unused(mut self) {
        if let Some((live, held)) = self.0.take()
            && live.connected.give_back_unused(held)
            && live.line.waiting() > 0
        {
            live.room.notify_one();
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some((live, held)) = self.0.take() {
            live.connected.give_back(held);
        }
    }
}

impl InFlight {
    /// For a reservation that has been made.
    fn new(view: &Rc<View>, service: usize, (slot, shard): (Slot, usize), sticky: bool, connected: Connected) -> Self {
        Self { view: Rc::clone(view), service, slot, shard, sticky, connected, retrying: None, is_full: false }
    }

    pub(crate) fn index(&self) -> usize {
        usize::from(self.slot.0)
    }

    /// Whether the client is to get a cookie that names this backend: under a policy without keys, unless its cookie already does.
    pub(crate) fn wants_cookie(&self) -> bool {
        let config = &self.view.services[self.service].service.config;
        config.affinity_cookie.is_some() && !config.policy.hashes() && !self.sticky
    }

    /// The cookie that names this backend.
    pub(crate) fn cookie(&self) -> crate::routing::affinity_cookie::Value {
        let service = &self.view.services[self.service].service;
        crate::routing::affinity_cookie::Value(crate::snapshot::cookie_value(&service.backends[self.index()].config.id))
    }

    /// Reports to the passive detector, and to a policy that goes by latency, how the request went. A success that follows a
    /// success costs one load.
    pub(crate) fn report(&self, outcome: Outcome) {
        let service = &self.view.services[self.service].service;
        let backend = &service.backends[self.index()];
        if let (PolicyParams::PeakEwma(params), true) = (service.config.policy, is_penalized(outcome)) {
            let penalty = service.config.penalty;
            let hold_millis = outcome.wish().min(penalty.retry_after_max).as_millis() as u32;
            let penalty_micros = penalty.latency.as_micros() as f32;
            backend.state.load.penalize(penalty_micros, hold_millis, self.view.millis(), params.decay_millis);
        }
        let succeeded = match outcome.status() {
            Some(status) => !service.config.outlier.on.counts(status),
            None => outcome == Outcome::Success,
        };
        if outcome.status().is_some() && !succeeded {
            self.view.services[self.service].upstreams[self.index()].counters.errors.increment();
        }
        let obeys = !outcome.wish().is_zero() && !service.config.outlier.retry_after_max.is_zero();
        if succeeded && !obeys && !backend.state.suspect.load(Relaxed) {
            return;
        }
        let mut health = service.live.health();
        health.handle_outcome(&backend.config.id, outcome, ambient::now());
        // Most outcomes change no backend's share: recomputing all shares for each would be a scan of the fleet per failure.
        let events = if health.take_changed() {
            service.apply_health(&mut health)
        } else {
            backend.state.suspect.store(health.is_suspect(&backend.config.id), Relaxed);
            Service::events(&mut health)
        };
        drop(health);
        service.live.health_changed.notify_one();
        crate::snapshot::health_events::publish(service, &events);
    }
}

impl InFlight {
    /// Releases the reservation because the backend has turned out to be full; the next candidate follows: nothing was tried. No
    /// room was made by that; but the wake-up that has led here may be of use to another waiting request, with another worker.
    pub(crate) fn give_back_full(mut self, selection: &mut Selection, refusals: &mut Refusals) {
        self.is_full = true;
        let live = Arc::clone(&self.view.services[self.service].service.live);
        self.view.services[self.service].service.group.handle_full(selection, self.slot);
        drop(self);
        if refusals.handle_full(live.line.look()) {
            live.room.notify_one();
        }
    }

    /// It is a retry. `false`: its backend has as many as allowed.
    pub(crate) fn begin_retry(&mut self) -> bool {
        let backend = &self.view.services[self.service].service.backends[self.index()];
        let most = backend.config.retries_max;
        if most == u32::MAX || self.retrying.is_some() {
            return true;
        }
        let begins = connections::add_below(&backend.state.retrying, most);
        self.retrying = begins.then(|| Retrying(Arc::clone(&backend.state)));
        begins
    }

    /// Releases an unused reservation so that the candidate sequence may go on without it: the backend counts as full, not as
    /// tried. `is_full`: it is full, so that no room was made by that.
    pub(crate) fn pass_by(mut self, selection: &mut Selection, is_full: bool) {
        self.is_full = is_full;
        self.view.services[self.service].service.group.handle_full(selection, self.slot);
    }

    /// Counts a failed attempt, and reports it to the passive detector if it was the backend's fault. The only place where failures
    /// are counted against a backend.
    pub(crate) fn report_error(&self, error: ProxyError) {
        if let Some(outcome) = error.outcome() {
            self.view.services[self.service].upstreams[self.index()].counters.failures.increment();
            self.report(outcome);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let service = &self.view.services[self.service].service;
        if !planted::is_planted(Fault::PlaceKept) {
            service.group.release(self.slot, self.shard);
        }
        if planted::is_planted(Fault::DeadCounted) && !service.is_newest() {
            std::mem::forget(std::mem::replace(&mut self.connected, Connected(None)));
        }
        self.retrying = None;
        let connected = std::mem::replace(&mut self.connected, Connected(None));
        if self.is_full {
            return connected.give_back_unused();
        }
        // Before any waiting request is woken for the freed reservation.
        drop(connected);
        if service.live.limits_connections.load(Relaxed) {
            service.live.turnover.fetch_add(1, Relaxed);
        }
        if service.live.line.handle_release() && !planted::is_planted(Fault::WakeUpLost) {
            service.live.room.notify_one();
        }
    }
}

/// Responses for which a backend gets a penalty: it has not served the request, or says that it is overloaded.
fn is_penalized(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Success => false,
        Outcome::Status(status) | Outcome::RetryAfter { status, .. } => matches!(status, 429 | 500..=599),
        Outcome::ConnectionFailure | Outcome::ConnectTimeout | Outcome::Timeout => true,
    }
}

/// A request that looks for a backend: its candidates, and how far in their sequence it is.
pub(crate) struct BackendSearch<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) view: &'a mut Rc<View>,
    pub(crate) service: &'a mut usize,
    pub(crate) selection: &'a mut Selection,
    /// The backend that was tried last, by its slot.
    pub(crate) backend: &'a mut Option<usize>,
    pub(crate) refusals: &'a mut Refusals,
}

impl BackendSearch<'_> {
    fn acquire_now(&mut self) -> Result<Option<InFlight>, ProxyError> {
        try_acquire(self.view, *self.service, self.selection, self.worker.index)
    }

    /// Moves on to the version in force, if that has the service and its protocol settings are the same: a waiting request gets a
    /// reservation on a backend that has been added meanwhile, as new requests do.
    ///
    /// `false`: it stays on its version.
    fn follow(&mut self) -> bool {
        let newest = self.worker.view();
        if Rc::ptr_eq(&newest, self.view) {
            return false;
        }
        let old = Arc::clone(&self.view.services[*self.service].service);
        let Some(index) = newest.snapshot.index_of(&old.config.name) else { return false };
        let new = &newest.services[index].service;
        // A service that was removed and added again has another queue.
        let is_same = Arc::ptr_eq(&new.live, &old.live);
        if !is_same || new.config.protocol != old.config.protocol {
            return false;
        }
        let moved = |slot: Slot| new.slot_of(&old.backends[usize::from(slot.0)].config.id);
        let tried: Vec<Slot> = self.selection.tried().filter_map(moved).collect();
        *self.selection = new.group.begin_again(self.selection, tried);
        *self.backend = self.backend.and_then(|slot| moved(Slot(slot as u16))).map(|slot| usize::from(slot.0));
        (*self.view, *self.service) = (newest, index);
        true
    }
}

/// The request's next candidate that has room, reserved. It may be one of a newer version than the request began with.
///
/// # Errors
/// [`ProxyError::NoBackend`], [`ProxyError::AllFull`], [`ProxyError::PendingLimit`], [`ProxyError::QueueTimeout`],
/// [`ProxyError::RequestTimeout`].
pub(crate) async fn acquire(
    mut search: BackendSearch<'_>,
    timer: &Timer,
    limit: Deadline,
) -> Result<InFlight, ProxyError> {
    match acquire_or_wait(&mut search)? {
        Some(found) => Ok(found),
        None => wait_for_room(search, timer, limit).await,
    }
}

/// As [`acquire`], if there is one at once. `None`: the caller waits for room with [`wait_for_room`].
///
/// # Errors
/// [`ProxyError::NoBackend`], [`ProxyError::AllFull`].
pub(crate) fn acquire_or_wait(search: &mut BackendSearch<'_>) -> Result<Option<InFlight>, ProxyError> {
    let found = match search.acquire_now() {
        // Its snapshot is outdated: a reload may have removed all its backends, and added others.
        Err(ProxyError::NoBackend) if search.follow() => search.acquire_now()?,
        found => found?,
    };
    let waits = || search.view.services[*search.service].service.config.all_full == AllFull::Queue;
    if found.is_some() || waits() { Ok(found) } else { Err(ProxyError::AllFull) }
}

/// Waits until a backend has room.
///
/// # Errors
/// As [`acquire`].
pub(crate) async fn wait_for_room(
    mut search: BackendSearch<'_>,
    timer: &Timer,
    limit: Deadline,
) -> Result<InFlight, ProxyError> {
    let this = &search.view.services[*search.service];
    // Found by the service's name: the same in every version.
    let live = Arc::clone(&this.service.live);
    let queue = this.service.config.queue;
    let _pending = Pending::enter(&this.service)?;
    let _place = Waiting::enter(&live, queue.length_max).ok_or(ProxyError::AllFull)?;
    this.counters.queued.increment();
    // A request that returns because no connection was available waits on: its time in the queue does not begin anew.
    let until = search.refusals.queue_until(timer.deadline(queue.timeout)).min(limit);
    let over = |now| if now >= limit { ProxyError::RequestTimeout } else { ProxyError::QueueTimeout };
    if timer.now() >= until {
        return Err(over(timer.now()));
    }
    timer.set_before(Duration::ZERO, until);
    // The release up to which others have been notified that this request could not use the reservation.
    let mut passed_on = live.line.look();
    loop {
        let mut room = pin!(live.room.notified());
        // Registered before the check, so that no release between the two is missed.
        room.as_mut().enable();
        let releases = live.line.look();
        search.follow();
        let view = Rc::clone(search.view);
        let service = &view.services[*search.service].service;
        if search.refusals.full_at() != Some(live.turnover.load(Relaxed)) {
            service.group.restart(search.selection);
            if let Some(found) = search.acquire_now()? {
                return Ok(found);
            }
        }
        // It may have been woken for a reservation on a backend that it has tried, or that its version does not know. Others can
        // use it: they are notified once for each release, so that no request is woken in circles.
        if releases != passed_on && (search.selection.has_tried() || !service.is_newest()) {
            passed_on = releases;
            live.room.notify_waiters();
        }
        let timed_out = poll_fn(|context| {
            if room.as_mut().poll(context).is_ready() {
                return Poll::Ready(false);
            }
            if timer.poll_fired(context) { Poll::Ready(true) } else { Poll::Pending }
        })
        .await;
        if timed_out {
            return Err(over(timer.now()));
        }
    }
}

/// As [`acquire`], but only what is available at once: for a retry after a response, or a hedge.
pub(crate) fn acquire_now(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    shard: usize,
) -> Option<InFlight> {
    try_acquire(view, service, selection, shard).ok().flatten()
}

/// A reservation on a backend that the request has tried, if it is available.
fn acquire_again(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    slot: Slot,
    shard: usize,
) -> Option<InFlight> {
    let connected = Connected::enter(&view.services[service].service)?;
    if !view.services[service].service.group.reserve_again(selection, slot, shard) {
        connected.give_back_unused();
        return None;
    }
    Some(InFlight::new(view, service, (slot, shard), false, connected))
}

/// A reservation for a retry that is available at once, after an attempt on `last`. Backends with as many retries as allowed are
/// skipped.
///
/// # Errors
/// [`RetryLimit::Backend`]: there was one only on such backends.
pub(crate) fn acquire_for_retry(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    last: Option<Slot>,
    shard: usize,
) -> Result<Option<InFlight>, RetryLimit> {
    let this = &view.services[service].service;
    let same_backend = this.config.retry.same_backend;
    let mut passed_by = false;
    let mut take = |found: Option<InFlight>, selection: &mut Selection| {
        let mut guard = found?;
        if guard.begin_retry() {
            return Some(guard);
        }
        guard.pass_by(selection, false);
        passed_by = true;
        None
    };
    if let (model::SameBackend::Always, Some(slot)) = (same_backend, last)
        && let Some(found) = take(acquire_again(view, service, selection, slot, shard), selection)
    {
        return Ok(Some(found));
    }
    for round in 0..2 {
        // Each candidate is returned at most once: those that are skipped do not come again.
        for _ in 0..this.backends.len() {
            let Some(found) = acquire_now(view, service, selection, shard) else { break };
            if let Some(found) = take(Some(found), selection) {
                return Ok(Some(found));
            }
        }
        match same_backend {
            model::SameBackend::LastResort | model::SameBackend::Always if round == 0 => {
                this.group.forgive(selection);
            }
            _ => break,
        }
    }
    if passed_by { Err(RetryLimit::Backend) } else { Ok(None) }
}

/// The reservation of a retry after its back-off: if its backend has as many retries as allowed, another backend's that is available at
/// once. `None`, counted: there is none.
pub(crate) fn settle_for_retry(
    mut guard: InFlight,
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    shard: usize,
) -> Option<InFlight> {
    if guard.begin_retry() {
        return Some(guard);
    }
    guard.pass_by(selection, false);
    let other = acquire_for_retry(view, service, selection, None, shard).ok().flatten();
    if other.is_none() {
        view.services[service].counters.refuse_retry(RetryLimit::Backend);
    }
    other
}

/// A reservation on the backend that an affinity cookie names, if it is available: also on one that takes no new clients, as long as it
/// keeps its old ones.
pub(crate) fn acquire_sticky(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    slot: Slot,
    shard: usize,
) -> Option<InFlight> {
    let this = &view.services[service];
    let connected = Connected::enter(&this.service)?;
    let kept = this.service.backends[usize::from(slot.0)].state.keeps_clients.load(Relaxed);
    if !this.service.group.reserve(selection, slot, kept, shard) {
        connected.give_back_unused();
        return None;
    }
    if kept {
        this.counters.kept.increment();
    }
    Some(InFlight::new(view, service, (slot, shard), true, connected))
}

/// A reservation on a backend for an exchange that has begun there, although the backend takes nothing new.
pub(crate) fn resume(view: &Rc<View>, service: usize, slot: Slot, shard: usize) -> InFlight {
    view.services[service].service.group.resume(slot, shard);
    InFlight::new(view, service, (slot, shard), true, Connected(None))
}

fn try_acquire(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    shard: usize,
) -> Result<Option<InFlight>, ProxyError> {
    // If only the service's limit denies the reservation, the candidate does not count as skipped.
    let Some(connected) = Connected::enter(&view.services[service].service) else { return Ok(None) };
    match view.services[service].service.group.next(selection, shard) {
        Pick::Backend(slot) => Ok(Some(InFlight::new(view, service, (slot, shard), false, connected))),
        Pick::AllFull => {
            connected.give_back_unused();
            Ok(None)
        }
        Pick::None => {
            connected.give_back_unused();
            Err(ProxyError::NoBackend)
        }
    }
}

/// A position in the queue.
struct Waiting<'a>(&'a ServiceLive);

impl<'a> Waiting<'a> {
    fn enter(live: &'a ServiceLive, length_max: u32) -> Option<Self> {
        if !live.line.enter(length_max) {
            return None;
        }
        Some(Self(live))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.line.leave();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::routing::admission::pick_context;
    use crate::worker::testing::Rig;
    use std::task::{Context, Waker};

    const ONE: &str = "{ name: s, balance: { bounded_load: { all_full: queue, queue: { timeout: 1s } } }, \
                       backends: [ { id: a, address: \"127.0.0.1:1\", requests_max: 1 } ] }";

    /// Where a request looks, and how far it is.
    struct Looking {
        view: Rc<View>,
        service: usize,
        selection: Selection,
        backend: Option<usize>,
        refusals: Refusals,
    }

    impl Looking {
        fn begin(rig: &Rig) -> Self {
            let view = rig.worker.view();
            let this = &view.services[0];
            let selection = this.service.group.begin(pick_context(&rig.worker, this, None));
            Self { view, service: 0, selection, backend: None, refusals: Refusals::default() }
        }

        fn search<'a>(&'a mut self, worker: &'a Worker) -> BackendSearch<'a> {
            let Self { view, service, selection, backend, refusals } = self;
            BackendSearch { worker, view, service, selection, backend, refusals }
        }
    }

    fn in_flight(rig: &Rig) -> u64 {
        rig.worker.view().services[0].service.live.total.sum()
    }

    #[test]
    fn a_reservation_is_counted_once_and_given_back_by_its_drop() {
        let rig = Rig::new(ONE);
        let (mut one, mut other) = (Looking::begin(&rig), Looking::begin(&rig));
        let guard = one.search(&rig.worker).acquire_now().unwrap().unwrap();
        assert_eq!((guard.index(), in_flight(&rig)), (0, 1));
        assert!(other.search(&rig.worker).acquire_now().unwrap().is_none(), "there is one reservation");
        assert_eq!(in_flight(&rig), 1);
        drop(guard);
        assert_eq!(in_flight(&rig), 0);
        let mut next = Looking::begin(&rig);
        assert!(next.search(&rig.worker).acquire_now().unwrap().is_some());
    }

    #[test]
    fn a_backend_that_turns_out_to_be_full_counts_as_full_and_not_as_tried() {
        let rig = Rig::new(ONE);
        let mut looking = Looking::begin(&rig);
        let guard = looking.search(&rig.worker).acquire_now().unwrap().unwrap();
        looking.refusals.begin(Deadline::NEVER, 0);
        guard.give_back_full(&mut looking.selection, &mut looking.refusals);
        assert_eq!(in_flight(&rig), 0);
        assert!(looking.search(&rig.worker).acquire_now().unwrap().is_none());
        let group = &rig.worker.view().services[0].service.group;
        group.restart(&mut looking.selection);
        assert!(looking.search(&rig.worker).acquire_now().unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_has_the_reservation_of_a_request_that_ends_and_not_before() {
        let rig = Rig::new(ONE);
        let (mut one, mut waiter) = (Looking::begin(&rig), Looking::begin(&rig));
        let guard = one.search(&rig.worker).acquire_now().unwrap().unwrap();
        let timer = rig.worker.timer();
        let mut waiting = pin!(wait_for_room(waiter.search(&rig.worker), &timer, Deadline::NEVER));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        drop(guard);
        let Poll::Ready(Ok(guard)) = waiting.as_mut().poll(&mut context) else { panic!("there is room") };
        assert_eq!((guard.index(), in_flight(&rig)), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_goes_to_a_backend_that_a_reload_brings() {
        let mut rig = Rig::new(ONE);
        let (mut one, mut waiter) = (Looking::begin(&rig), Looking::begin(&rig));
        let _guard = one.search(&rig.worker).acquire_now().unwrap().unwrap();
        let worker = Rc::clone(&rig.worker);
        let timer = worker.timer();
        let mut waiting = pin!(wait_for_room(waiter.search(&worker), &timer, Deadline::NEVER));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        let two = ONE.replace("backends: [ ", "backends: [ { id: b, address: \"127.0.0.1:2\", requests_max: 1 }, ");
        rig.apply(&two);
        let Poll::Ready(Ok(guard)) = waiting.as_mut().poll(&mut context) else { panic!("b has room") };
        assert_eq!(guard.index(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_ends_by_its_own_time_or_by_that_of_the_whole_exchange() {
        let rig = Rig::new(ONE);
        let mut one = Looking::begin(&rig);
        let _guard = one.search(&rig.worker).acquire_now().unwrap().unwrap();
        for (limit, error) in [(60, ProxyError::QueueTimeout), (0, ProxyError::RequestTimeout)] {
            let mut waiter = Looking::begin(&rig);
            let timer = rig.worker.timer();
            let limit = rig.worker.timers.deadline(Duration::from_millis(100 + 1_000 * limit));
            let mut waiting = pin!(wait_for_room(waiter.search(&rig.worker), &timer, limit));
            let mut context = Context::from_waker(Waker::noop());
            assert!(waiting.as_mut().poll(&mut context).is_pending());
            rig.pass(Duration::from_secs(2));
            let Poll::Ready(Err(found)) = waiting.as_mut().poll(&mut context) else { panic!("the time is over") };
            assert_eq!(found, error);
        }
        assert_eq!(rig.worker.view().services[0].service.live.line.waiting(), 0);
    }
}
