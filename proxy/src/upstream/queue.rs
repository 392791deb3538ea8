//! The queue of a service whose backends are all full: a request waits until one has room, or its time is over.

use crate::error::ProxyError;
use crate::net::timer::{Deadline, Timer};
use crate::snapshot::ServiceLive;
use crate::snapshot::connection_slot::Pending;
use crate::upstream::in_flight::InFlight;
use crate::upstream::search::{BackendSearch, acquire_or_wait};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

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
    let until = search.failover.queue_until(timer.deadline(queue.timeout)).min(limit);
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
        if search.failover.full_at() != Some(live.turnover.load(Relaxed)) {
            service.backend_set.restart(search.selection);
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
    use crate::upstream::search::testing::{Looking, ONE, in_flight};
    use crate::worker::testing::Rig;
    use std::task::{Context, Waker};

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
