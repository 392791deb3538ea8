//! One more try of a request: leave for it, the wait before it, its place. Whatever has failed, and whatever is spoken.

use super::client::Client;
use super::request::Request;
use crate::error::ProxyError;
use crate::upstream::in_flight::{self, InFlight};
use crate::upstream::retry;
use crate::worker::{Worker, WorkerService};
use ringway_ring::Slot;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Leave for one more try, once this time has passed.
#[must_use]
pub(super) struct Leave(Duration);

/// Leave for one more try, if there is time and somebody to ask, and attempts, budget and the service's limit allow it. Every retry
/// begins here, be it of a failure or of an answer (`answered`), which is in hand and must not be kept from the client for longer
/// than there is time.
pub(super) fn may_retry(client: &Client, request: &mut Request, answered: bool) -> Option<Leave> {
    let worker = Rc::clone(&client.open.worker);
    let view = Rc::clone(&request.view);
    let this = &view.services[request.service];
    let config = &this.service.config.retry;
    let number = request.report.retries - request.refusals.walked() + 1;
    let pause = retry::pause(config, number, worker.random());
    let late = worker.timers.now() >= request.limit
        || answered && !pause.is_zero() && client.timer.deadline(pause) >= request.limit;
    let may = request.replayable
        && number <= config.attempts
        && !late
        && retry::has_candidate(&this.service, &request.selection)
        && request.retries.take(this, &worker);
    may.then_some(Leave(pause))
}

impl Leave {
    /// Waits before the retry, where that is wanted, for as long as the client does, and no longer than the whole exchange may last.
    pub(super) async fn wait(self, client: &mut Client, request: &Request) -> Result<(), ProxyError> {
        if self.0.is_zero() {
            return Ok(());
        }
        let (presence, timer, _) = client.presence(request.may_half_close());
        let mut pause = pin!(tokio::time::sleep(self.0));
        timer.set_before(Duration::ZERO, request.limit);
        let waiting = poll_fn(|context| match pause.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            // Nobody waits for another try after the whole exchange's time.
            Poll::Pending if timer.poll_fired(context) => Poll::Ready(Err(ProxyError::RequestTimeout)),
            Poll::Pending => Poll::Pending,
        });
        presence.during(waiting).await?
    }
}

pub(super) fn count_retry(request: &mut Request, this: &WorkerService) {
    request.report.retries += 1;
    this.counters.retries.increment();
}

/// Every backend that was left has as many retries as it may have.
pub(super) struct RetryRefused;

/// A place for a retry, if there is one at once.
pub(super) fn place_for_retry(request: &mut Request, worker: &Worker) -> Result<Option<InFlight>, RetryRefused> {
    let Request { view, service, selection, report, .. } = request;
    let last = report.backend.map(|backend| Slot(backend as u16));
    in_flight::acquire_for_retry(view, *service, selection, last, worker.index).map_err(|limit| {
        view.services[*service].counters.refuse_retry(limit);
        RetryRefused
    })
}
