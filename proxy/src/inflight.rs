//! Accounting by value: while an [`InFlight`] lives, its backend carries one request more.

use crate::error::ProxyError;
use crate::timer::Timer;
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
pub(crate) struct InFlight {
    view: Rc<View>,
    service: usize,
    pub(crate) slot: Slot,
    shard: usize,
}

impl InFlight {
    pub(crate) fn index(&self) -> usize {
        usize::from(self.slot.0)
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
    /// Tells the passive detector of a try that failed, if that was the backend's doing.
    pub(crate) fn report_error(&self, error: ProxyError) {
        if let Some(outcome) = error.outcome() {
            self.report(outcome);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let service = &self.view.services[self.service].service;
        service.group.release(self.slot, self.shard);
        if service.live.waiting.load(Relaxed) > 0 {
            service.live.room.notify_one();
        }
    }
}

/// The next backend of the request's walk that has room, reserved.
///
/// # Errors
/// [`ProxyError::NoBackend`], [`ProxyError::AllFull`], [`ProxyError::QueueTimeout`].
pub(crate) async fn acquire(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    shard: usize,
    timer: &Timer,
) -> Result<InFlight, ProxyError> {
    if let Some(found) = try_acquire(view, service, selection, shard)? {
        return Ok(found);
    }
    let this = &view.services[service];
    if this.service.config.bound.is_none_or(|bound| bound.all_full != AllFull::Queue) {
        return Err(ProxyError::AllFull);
    }
    let live = &this.service.live;
    let queue = this.service.config.queue;
    let _place = Waiting::enter(live, queue.length_max).ok_or(ProxyError::AllFull)?;
    this.cells.queued.increment();
    timer.set(queue.timeout);
    loop {
        let mut room = pin!(live.room.notified());
        // Registered before the test, so that no release between the two is missed.
        room.as_mut().enable();
        this.service.group.restart(selection);
        if let Some(found) = try_acquire(view, service, selection, shard)? {
            return Ok(found);
        }
        let timed_out = poll_fn(|context| {
            if room.as_mut().poll(context).is_ready() {
                return Poll::Ready(false);
            }
            if timer.poll_fired(context) { Poll::Ready(true) } else { Poll::Pending }
        })
        .await;
        if timed_out {
            return Err(ProxyError::QueueTimeout);
        }
    }
}

fn try_acquire(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    shard: usize,
) -> Result<Option<InFlight>, ProxyError> {
    match view.services[service].service.group.next(selection, shard) {
        Pick::Backend(slot) => Ok(Some(InFlight { view: Rc::clone(view), service, slot, shard })),
        Pick::AllFull => Ok(None),
        Pick::None => Err(ProxyError::NoBackend),
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a crate::snapshot::ServiceLive);

impl<'a> Waiting<'a> {
    fn enter(live: &'a crate::snapshot::ServiceLive, length_max: u32) -> Option<Self> {
        if live.waiting.fetch_add(1, Relaxed) >= length_max {
            live.waiting.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Self(live))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}
