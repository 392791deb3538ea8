//! Accounting by value: while an [`InFlight`] lives, its backend carries one request more.

use crate::error::ProxyError;
use crate::timer::{Deadline, Timer};
use crate::worker::View;
use ringway_health::Outcome;
use ringway_ring::{AllFull, Pick, Selection, Slot};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Instant;

/// One request in flight to one backend. Dropping it is the end of the request, on whatever path that comes.
#[must_use]
pub(crate) struct InFlight {
    view: Rc<View>,
    service: usize,
    pub(crate) slot: Slot,
    shard: usize,
    /// An affinity cookie named the backend.
    sticky: bool,
    /// Its place has been given back before its end.
    left: bool,
}

impl InFlight {
    pub(crate) fn index(&self) -> usize {
        usize::from(self.slot.0)
    }

    /// Whether the client is to be told, by cookie, which backend this is: under a policy without keys, unless he named it.
    pub(crate) fn wants_cookie(&self) -> bool {
        let config = &self.view.services[self.service].service.config;
        config.affinity_cookie.is_some() && !config.policy.hashes() && !self.sticky
    }

    /// The backend has done all that it had to: its place is free, although its answer has not been passed on yet.
    pub(crate) fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            let service = &self.view.services[self.service].service;
            service.group.release(self.slot, self.shard);
            if service.live.line.handle_release() {
                service.live.room.notify_one();
            }
        }
    }

    /// The cookie that names this backend.
    pub(crate) fn cookie(&self) -> crate::affinity::Value {
        let service = &self.view.services[self.service].service;
        crate::affinity::Value(crate::snapshot::cookie_value(&service.backends[self.index()].config.id))
    }

    /// Tells the passive detector how the request went. A success that follows a success costs one load.
    pub(crate) fn report(&self, outcome: Outcome) {
        let service = &self.view.services[self.service].service;
        let backend = &service.backends[self.index()];
        let succeeded = match outcome {
            Outcome::Success => true,
            Outcome::Status(status) => !service.config.outlier.on.counts(status),
            _ => false,
        };
        if let (Outcome::Status(_), false) = (outcome, succeeded) {
            self.view.services[self.service].upstreams[self.index()].cells.errors.increment();
        }
        if succeeded && !backend.state.suspect.load(Relaxed) {
            return;
        }
        let mut health = service.live.health();
        health.handle_outcome(&backend.config.id, outcome, Instant::now());
        let events = service.apply_health(&mut health);
        drop(health);
        service.live.health_changed.notify_one();
        crate::checks::tell(service, &events);
    }
}

impl InFlight {
    /// Counts a try that failed, and tells the passive detector of it, if that was the backend's doing. The only place where
    /// failures are counted against a backend.
    pub(crate) fn report_error(&self, error: ProxyError) {
        if let Some(outcome) = error.outcome() {
            self.view.services[self.service].upstreams[self.index()].cells.failures.increment();
            self.report(outcome);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The next backend of the request's walk that has room, reserved.
///
/// # Errors
/// [`ProxyError::NoBackend`], [`ProxyError::AllFull`], [`ProxyError::QueueTimeout`], [`ProxyError::RequestTimeout`].
pub(crate) async fn acquire(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    shard: usize,
    timer: &Timer,
    limit: Deadline,
) -> Result<InFlight, ProxyError> {
    if let Some(found) = try_acquire(view, service, selection, shard)? {
        return Ok(found);
    }
    let this = &view.services[service];
    if this.service.config.all_full != AllFull::Queue {
        return Err(ProxyError::AllFull);
    }
    let live = &this.service.live;
    let queue = this.service.config.queue;
    let _place = Waiting::enter(live, queue.length_max).ok_or(ProxyError::AllFull)?;
    this.cells.queued.increment();
    timer.set_before(queue.timeout, limit);
    // The release up to which others have been told that this request could not use the place.
    let mut passed_on = live.line.look();
    loop {
        let mut room = pin!(live.room.notified());
        // Registered before the test, so that no release between the two is missed.
        room.as_mut().enable();
        let releases = live.line.look();
        this.service.group.restart(selection);
        if let Some(found) = try_acquire(view, service, selection, shard)? {
            return Ok(found);
        }
        // It may have been woken for a place on a backend that it has tried, or that its version does not know. Others can
        // use it: they are told once for each release, so that nobody is woken in circles.
        if releases != passed_on && (selection.has_tried() || !this.service.is_newest()) {
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
            return Err(if timer.now() >= limit { ProxyError::RequestTimeout } else { ProxyError::QueueTimeout });
        }
    }
}

/// As [`acquire`], but only what is to be had at once: for a retry of an answer, or a second try beside the first.
pub(crate) fn acquire_now(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    shard: usize,
) -> Option<InFlight> {
    try_acquire(view, service, selection, shard).ok().flatten()
}

/// A place on the backend that an affinity cookie names, if it is to be had.
pub(crate) fn acquire_sticky(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    slot: Slot,
    shard: usize,
) -> Option<InFlight> {
    let reserved = view.services[service].service.group.reserve(selection, slot, shard);
    reserved.then(|| InFlight { view: Rc::clone(view), service, slot, shard, sticky: true, left: false })
}

/// A place on a backend for what has begun there, although the backend takes nothing new.
pub(crate) fn resume(view: &Rc<View>, service: usize, slot: Slot, shard: usize) -> InFlight {
    view.services[service].service.group.resume(slot, shard);
    InFlight { view: Rc::clone(view), service, slot, shard, sticky: true, left: false }
}

fn try_acquire(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    shard: usize,
) -> Result<Option<InFlight>, ProxyError> {
    match view.services[service].service.group.next(selection, shard) {
        Pick::Backend(slot) => {
            Ok(Some(InFlight { view: Rc::clone(view), service, slot, shard, sticky: false, left: false }))
        }
        Pick::AllFull => Ok(None),
        Pick::None => Err(ProxyError::NoBackend),
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a crate::snapshot::ServiceLive);

impl<'a> Waiting<'a> {
    fn enter(live: &'a crate::snapshot::ServiceLive, length_max: u32) -> Option<Self> {
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
