//! One more attempt of a request: its permission, its back-off, its reservation, for every kind of failure and both protocols.

use super::client::Client;
use super::request::Request;
use crate::error::ProxyError;
use crate::upstream::in_flight::InFlight;
use crate::upstream::retry;
use crate::upstream::search;
use crate::worker::{Worker, WorkerService};
use ringway_ring::Slot;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Permission for one more attempt, once this time has passed.
#[must_use]
pub(super) struct Leave(Duration);

/// Permission for one more attempt, if there is time and a candidate, and attempts, budget and the service's limit allow it. Every
/// retry begins here, after a failure or after a response (`answered`), which is at hand and must not be kept from the client for
/// longer than there is time.
pub(super) fn may_retry(client: &Client, request: &mut Request, answered: bool) -> Option<Leave> {
    let worker = Rc::clone(&client.open.worker);
    let view = Rc::clone(&request.view);
    let this = &view.services[request.service];
    let config = &this.service.config.retry;
    let number = request.report.retries - request.failover.failed_over() + 1;
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
    /// Waits the back-off, if any, for as long as the client does, and no longer than the whole exchange may last.
    pub(super) async fn wait(self, client: &mut Client, request: &Request) -> Result<(), ProxyError> {
        if self.0.is_zero() {
            return Ok(());
        }
        let (presence, timer, _) = client.presence(request.may_half_close());
        let mut pause = pin!(tokio::time::sleep(self.0));
        timer.set_before(Duration::ZERO, request.limit);
        let waiting = poll_fn(|context| match pause.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            // No client waits for another attempt after the time of the whole exchange.
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

/// Every candidate that was left has as many retries as it may have.
pub(super) struct RetryRefused;

/// A reservation for a retry, if there is one at once.
pub(super) fn place_for_retry(request: &mut Request, worker: &Worker) -> Result<Option<InFlight>, RetryRefused> {
    let Request { view, service, selection, report, .. } = request;
    let last = report.backend.map(|backend| Slot(backend as u16));
    search::acquire_for_retry(view, *service, selection, last, worker.index).map_err(|limit| {
        view.services[*service].counters.refuse_retry(limit);
        RetryRefused
    })
}
