//! In-flight accounting by value: while an [`InFlight`] lives, its backend carries one request more.

use crate::ambient;
use crate::error::ProxyError;
use crate::planted::{self, Fault};
use crate::snapshot::connections;
use crate::snapshot::{BackendState, Service, ServiceLive};
use crate::upstream::failover::Failover;
use crate::worker::{KeyInFlight, LASTING, View, WorkerService};
use ringway_health::Outcome;
use ringway_ring::{Hash, Held, PolicyParams, Selection, Slot};
use ringway_telemetry::counters::{Measured, class_of};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

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
    /// The try that goes on with it, once there is one.
    trying: Option<Try>,
    /// Its response has begun, where a limit follows latency: that does not count it any more.
    is_answered: bool,
}

/// A try under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Try {
    since: Instant,
    slot: Slot,
    class: u8,
    /// Its key is in the table of what is under way, and booked there while it lasts.
    is_listed: bool,
    /// The key that it counts for, where hot ones are looked for.
    key: Option<Hash>,
}

impl Try {
    /// It has ended now: counts it among its backend's.
    #[inline]
    pub(crate) fn count(self, this: &WorkerService, now: Instant) {
        self.count_as(this, Measured::new(now.saturating_duration_since(self.since)));
    }

    /// It has ended with the whole request, which began at `since` and has taken so long: mostly that is all there was.
    #[inline]
    pub(crate) fn count_with(self, this: &WorkerService, now: Instant, (since, measured): (Instant, Measured)) {
        if since == self.since { self.count_as(this, measured) } else { self.count(this, now) }
    }

    #[inline]
    fn count_as(self, this: &WorkerService, measured: Measured) {
        if let Some(hash) = self.key {
            let micros = measured.micros();
            if self.is_listed && micros >= LASTING.as_micros() as u64 {
                this.count_rest(KeyInFlight { hash, since: self.since }, micros);
            } else {
                this.count_key(hash, micros);
            }
        }
        this.upstreams[usize::from(self.slot.0)].counters.count_try(usize::from(self.class), measured);
    }
}

/// A retry under way on a backend that limits them.
struct Retrying(Arc<BackendState>);

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.retrying.fetch_sub(1, Relaxed);
    }
}

/// One of the requests that a service may have on its backends, where its limit on connections bounds them.
pub(super) struct Connected(Option<(Arc<ServiceLive>, Held)>);

impl Connected {
    /// Counts one more. `None`: there are as many as allowed.
    #[inline]
    pub(super) fn enter(service: &Service) -> Option<Self> {
        let most = connections::places_together(&service.config);
        if most == u32::MAX {
            return Some(Self(None));
        }
        service.live.connected.take(most).map(|held| Self(Some((Arc::clone(&service.live), held))))
    }

    /// Counts one more for what can be left out: as long as half of the places are free.
    pub(super) fn enter_beside(service: &Service) -> Option<Self> {
        match connections::places_beside(&service.config) {
            u32::MAX => Some(Self(None)),
            most => service.live.connected.take(most).map(|held| Self(Some((Arc::clone(&service.live), held)))),
        }
    }

    /// For an exchange that the limit does not count.
    #[inline]
    pub(super) fn uncounted() -> Self {
        Self(None)
    }

    /// It is returned because no backend has room: nothing has been released. But others could not use it while it was held, so one
    /// waiting request is woken for it: only one, and it does not count as a release, which each request that cannot use it passes
    /// on to all others. Otherwise many that find nothing would wake each other in circles.
    #[inline]
    pub(super) fn give_back_unused(mut self) {
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
    #[inline]
    pub(super) fn new(
        view: &Rc<View>,
        service: usize,
        (slot, shard): (Slot, usize),
        sticky: bool,
        connected: Connected,
    ) -> Self {
        Self {
            view: Rc::clone(view),
            service,
            slot,
            shard,
            sticky,
            connected,
            retrying: None,
            is_full: false,
            trying: None,
            is_answered: false,
        }
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
    pub(crate) fn give_back_full(mut self, selection: &mut Selection, failover: &mut Failover) {
        self.is_full = true;
        let live = Arc::clone(&self.view.services[self.service].service.live);
        self.view.services[self.service].service.backend_set.handle_full(selection, self.slot);
        drop(self);
        if failover.handle_full(live.line.look()) {
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
        self.view.services[self.service].service.backend_set.handle_full(selection, self.slot);
    }

    /// A try begins: its backend's numbers have it, once it has ended, and so has its `key`, if it is one. What it gives belongs into the table
    /// of what is under way.
    #[inline]
    pub(crate) fn begin_try(&mut self, now: Instant, key: Option<Hash>) -> Option<KeyInFlight> {
        let key = key.filter(|_| self.view.services[self.service].service.looks_for_hot_keys);
        self.trying = Some(Try { since: now, slot: self.slot, class: 0, is_listed: true, key });
        key.map(|hash| KeyInFlight { hash, since: now })
    }

    /// The same of a try beside another, which the table has.
    pub(crate) fn begin_rival(&mut self, now: Instant, key: Option<Hash>) {
        self.begin_try(now, key);
        if let Some(trying) = &mut self.trying {
            trying.is_listed = false;
        }
    }

    /// The table is to have it instead of the other.
    pub(crate) fn list(&mut self) -> Option<KeyInFlight> {
        let trying = self.trying.as_mut()?;
        let key = KeyInFlight { hash: trying.key?, since: trying.since };
        if !std::mem::replace(&mut trying.is_listed, true) {
            self.view.services[self.service].make_up_for(key);
        }
        Some(key)
    }

    /// Its response has this class.
    #[inline]
    pub(crate) fn handle_class(&mut self, class: usize) {
        if let Some(trying) = &mut self.trying {
            trying.class = class as u8;
        }
    }

    /// The try has ended, and is counted by the caller.
    #[inline]
    pub(crate) fn end_try(&mut self) -> Option<Try> {
        self.trying.take()
    }

    /// The response has begun: the limit that follows latency, if there is one, has room for another request.
    #[inline]
    pub(crate) fn handle_response(&mut self, status: u16) {
        self.handle_class(class_of(status));
        let service = &self.view.services[self.service].service;
        if service.config.adaptive_concurrency.is_some() && !self.is_answered {
            service.backends[self.index()].state.load.begin_answer();
            service.live.tell_room();
            self.is_answered = true;
        }
    }

    /// Counts a failed attempt, and reports it to the passive detector if it was the backend's fault. The only place where failures
    /// are counted against a backend.
    pub(crate) fn report_error(&self, error: ProxyError) {
        if let Some(outcome) = error.outcome() {
            let this = &self.view.services[self.service];
            this.upstreams[self.index()].counters.failures.increment();
            this.service.measure(self.slot, |meter, load| meter.handle_drop(self.view.millis(), load));
            self.report(outcome);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let this = &self.view.services[self.service];
        let service = &this.service;
        if let Some(trying) = self.trying.filter(|_| !self.is_full) {
            trying.count(this, ambient::now());
        }
        if self.is_answered {
            service.backends[self.index()].state.load.end_answer();
        }
        if !planted::is_planted(Fault::ReservationLeaked) {
            service.backend_set.release(self.slot, self.shard);
        }
        if planted::is_planted(Fault::OldVersionCounted) && !service.is_newest() {
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
