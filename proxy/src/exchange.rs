//! One request: picks a backend, has it exchanged ([`pump`]), retries on the next of the walk, or goes two ways at once
//! ([`hedge`]).

pub(crate) mod actions;
pub(crate) mod answer;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod compress;
pub(crate) mod mirror;
pub(crate) mod refusal;
pub(crate) mod request;

pub(crate) mod attempt;
mod hedge;
mod pump;
mod wish;

use crate::ambient;
use crate::codec::end::ClientEnd;
use crate::codec::http1::Http1;
use crate::codec::source::Source;
use crate::error::ProxyError;
use crate::exchange::client::Client;
use crate::exchange::clock::Clock;
use crate::exchange::request::Request;
use crate::net::timer::Deadline;
use crate::upstream::in_flight::{self, InFlight};
use crate::upstream::refusals::Then;
use crate::upstream::retry;
use crate::upstream::{self, Connection, Reach};
use crate::worker::{Worker, WorkerService};
use attempt::Attempt;
use pump::{Exchange, TryError};
use ringway_config::model;
use ringway_health::Outcome;
use ringway_message::{HeadWriter, Method};
use ringway_ring::Slot;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// How often a request is sent anew to the same backend because its connection was going before the backend looked at it: on any
/// other, then on one that is opened for it.
const UNPROCESSED_MAX: u32 = 2;

/// What the client's connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It may carry another request.
    Request,
    /// It is closed, in peace.
    Close,
    /// It is closed at once: there is nobody there, or what he has got must not look whole.
    Abort,
    /// It is closed after what the client still sends has been read.
    Linger,
}

/// Carries a request out.
pub(crate) async fn run(client: &mut Client, request: &mut Request) -> Next {
    if let Some(mirror) = request.actions().and_then(|actions| actions.mirror) {
        if client.end.is_over() {
            request.take_trailers(&mut client.end);
        }
        mirror::copy(client, request, mirror);
    }
    let (status, error, next) = match carry(client, request).await {
        Ok((status, error, next)) => (status, error, next),
        Err(error) => {
            let next = refuse(client, request, error).await;
            (error.status(), Some(error), next)
        }
    };
    let this = &request.view.services[request.service];
    let class = if error == Some(ProxyError::ClientClosed) { 0 } else { usize::from(status / 100).min(5) };
    this.cells.requests[class].increment();
    this.cells.durations.record(ambient::since(request.started));
    if let Some(error) = error {
        client.open.worker.shared.cells.error(&this.service.config.name, error.reason());
    }
    request.log(client, status, error);
    let worker = &client.open.worker;
    worker.buffers.give_outgoing(std::mem::take(&mut request.out));
    worker.buffers.give_lines(std::mem::take(&mut request.lines));
    if let ClientEnd::Http1(Http1 { input, .. }) = &mut client.end
        && input.is_empty()
    {
        worker.buffers.give(std::mem::take(input));
    }
    next
}

/// Answers with an error of ours.
async fn refuse(client: &mut Client, request: &mut Request, error: ProxyError) -> Next {
    if error == ProxyError::ClientClosed {
        return Next::Abort;
    }
    // A body that is not here to its end stands between this request and the next.
    let rest = match &mut client.end {
        ClientEnd::Http1(Http1 { input, body, .. }) => {
            let rest = body.rest_len(input.bytes()).filter(|_| error.keeps_order());
            if let Some(rest) = rest {
                input.consume(rest);
                request.report.received_bytes += rest as u64;
            }
            rest.is_some()
        }
        // Nothing stands behind it on its stream.
        ClientEnd::Http2(_) => true,
    };
    let keep_alive = request.keep_alive && rest && !client.open.is_closing();
    let mut fields = HeadWriter::default();
    if request.explain || !request.answer_lines.is_empty() {
        request.append_fields(&mut fields);
    }
    let pages = &request.planned.http(request.listener).errors;
    let is_head = request.method == Method::Head;
    let mut out = client.own_head();
    let answer = answer::write(error, request.version, keep_alive, is_head, fields.text(), pages, &mut out);
    request.report.sent_bytes += out.text().len() as u64;
    match (client.send(answer, out).await, keep_alive) {
        (false, _) => Next::Abort,
        (true, true) => Next::Request,
        (true, false) => Next::Linger,
    }
}

/// Tries backends until one answers.
async fn carry(client: &mut Client, request: &mut Request) -> Result<(u16, Option<ProxyError>, Next), ProxyError> {
    let worker = Rc::clone(&client.open.worker);
    let view = Rc::clone(&request.view);
    let this = &view.services[request.service];
    this.live.count(&this.service.config, worker.timers.millis());
    let mut last_error = None;
    // A place that has been found already: the cookie's, or that of a retry which only goes if there is one.
    let mut ready = request
        .sticky
        .take()
        .and_then(|slot| in_flight::acquire_sticky(&view, request.service, &mut request.selection, slot, worker.index));
    loop {
        let guard = match ready.take() {
            Some(guard) => guard,
            None => {
                let found = match in_flight::acquire_or_wait(&mut request.placing(&worker)) {
                    Ok(Some(guard)) => Ok(guard),
                    Ok(None) => wait_for_room(client, request).await?,
                    Err(error) => Err(error),
                };
                match found {
                    Ok(guard) if request.retries.has_begun() => {
                        let Request { view, service, selection, .. } = &mut *request;
                        in_flight::settle_for_retry(guard, view, *service, selection, worker.index)
                            .ok_or(last_error.unwrap_or(ProxyError::AllFull))?
                    }
                    Ok(guard) => guard,
                    // The whole exchange's time is over, whatever was under way.
                    Err(error @ ProxyError::RequestTimeout) => return Err(error),
                    // The walk has come to its end: what the last backend did tells more than that.
                    Err(error) => return Err(last_error.unwrap_or(error)),
                }
            }
        };
        // A wait may have led to a newer version.
        let view = Rc::clone(&request.view);
        let this = &view.services[request.service];
        let config = &this.service.config;
        request.report.backend = Some(guard.index());
        request.refusals.begin(client.timer.deadline(config.timeouts.connect), this.service.turnover());
        let (guard, error) = match on_backend(client, request, guard).await {
            Tried::Done(done) => {
                count_served(this, request);
                return Ok(done);
            }
            Tried::Again(next) => {
                ready = Some(next);
                continue;
            }
            Tried::GivenUp(error) | Tried::Failed(_, TryError::Downstream(error)) => return Err(error),
            // It was not asked at all: another has room, or nobody.
            Tried::Failed(guard, TryError::Upstream(ProxyError::ConnectionLimit)) => {
                guard.give_back_full(&mut request.selection, &mut request.refusals);
                continue;
            }
            Tried::Failed(guard, TryError::Upstream(error)) => (guard, error),
        };
        if !request.refusals.cut_short(error) {
            guard.report_error(error);
        }
        drop(guard);
        if !error.retry().holds(&config.retry.on, repeatable(request, config)) {
            return Err(error);
        }
        match request.refusals.handle_failure(error, worker.timers.now()) {
            Then::End => return Err(error),
            Then::GoOn
                if request.replayable
                    && worker.timers.now() < request.limit
                    && !retry::goes_back(&this.service, &request.selection) =>
            {
                count_retry(request, this);
            }
            Then::GoOn | Then::Retry => {
                // It is no walk any more.
                request.refusals.handle_taken();
                let leave = may_retry(client, request, false).ok_or(error)?;
                count_retry(request, this);
                leave.wait(client, request).await?;
                ready = place_for_retry(request, &worker).map_err(|RetryRefused| error)?;
            }
        }
        last_error = Some(error);
    }
}

/// Waits in the queue, for as long as the client does.
async fn wait_for_room(client: &mut Client, request: &mut Request) -> Result<Result<InFlight, ProxyError>, ProxyError> {
    let worker = Rc::clone(&client.open.worker);
    let (presence, timer, _) = client.presence(request.may_half_close());
    let limit = request.limit;
    // In a box: what rarely happens makes no exchange larger.
    presence.during(Box::pin(in_flight::wait_for_room(request.placing(&worker), timer, limit))).await
}

/// Who served the request is known: affinity in numbers.
fn count_served(this: &WorkerService, request: &Request) {
    let selection = &request.selection;
    if request.keyed {
        this.cells.keyed.increment();
        if selection.owner().map(|slot| usize::from(slot.0)) == request.report.backend {
            this.cells.owned.increment();
        } else {
            this.cells.distance.add(u64::from(selection.spills() + selection.skipped()));
        }
    }
    if selection.spills() > 0 {
        this.cells.spills.increment();
    }
}

/// Whether sending the request twice means the same as once.
fn repeatable(request: &Request, config: &model::Service) -> bool {
    request.method.is_idempotent() || config.retry.non_idempotent
}

/// Leave for one more try, once this time has passed.
#[must_use]
struct Leave(Duration);

/// Leave for one more try, if there is time and somebody to ask, and attempts, budget and the service's limit allow it. Every retry
/// begins here, be it of a failure or of an answer (`answered`), which is in hand and must not be kept from the client for longer
/// than there is time.
fn may_retry(client: &Client, request: &mut Request, answered: bool) -> Option<Leave> {
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
    async fn wait(self, client: &mut Client, request: &Request) -> Result<(), ProxyError> {
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

fn count_retry(request: &mut Request, this: &WorkerService) {
    request.report.retries += 1;
    this.cells.retries.increment();
}

/// What came of one try.
enum Tried {
    /// The answer was passed on.
    Done((u16, Option<ProxyError>, Next)),
    /// The answer is one that is tried again, and there is a place for that.
    Again(InFlight),
    /// Its client has left while another try was to be begun.
    GivenUp(ProxyError),
    /// It failed, on this backend.
    Failed(InFlight, TryError),
}

/// A connection to the guard's backend: pooled, or fresh.
async fn connection(
    client: &mut Client,
    request: &mut Request,
    guard: &InFlight,
    fresh: bool,
    limit: Deadline,
) -> Result<Connection, TryError> {
    let worker = &Rc::clone(&client.open.worker);
    let service = &request.view.services[request.service];
    let certain = !repeatable(request, &service.service.config);
    if !fresh && let Some(connection) = upstream::at_hand(worker, service, guard.slot, certain) {
        request.refusals.handle_taken();
        return Ok(connection);
    }
    let before = worker.logs_access().then(ambient::now);
    let (presence, timer, peer) = client.presence(request.may_half_close());
    let limit = limit.min(request.refusals.limit());
    let reach = Reach { worker, service, slot: guard.slot, peer: Some(peer), limit, timer };
    let connected = presence.during(Box::pin(reach.connection(fresh, certain))).await.map_err(TryError::Downstream)?;
    let connection = connected.map_err(|error| TryError::Upstream(timed_out(error, worker, request.limit)))?;
    request.refusals.handle_taken();
    if !connection.reused {
        request.report.connect_micros = before.map(|before| ambient::since(before).as_micros() as u64);
    }
    Ok(connection)
}

/// One try: a pooled connection, a fresh one if that turns out to be stale, the exchange.
async fn on_backend(client: &mut Client, request: &mut Request, mut guard: InFlight) -> Tried {
    let view = Rc::clone(&request.view);
    let worker = Rc::clone(&client.open.worker);
    let this = &view.services[request.service];
    let config = &this.service.config;
    let repeatable = repeatable(request, config);
    let limit = client.timer.deadline(config.retry.per_try_timeout).min(request.limit);
    let mut hedge = hedge::Hedge::new(request, repeatable);
    let mut fresh = false;
    let mut unprocessed = 0;
    loop {
        let upstream = &this.upstreams[guard.index()];
        let connection = match connection(client, request, &guard, fresh, limit).await {
            Ok(connection) => connection,
            Err(error) => return Tried::Failed(guard, error),
        };
        upstream.cells.requests.increment();
        if guard.wants_cookie() {
            request.set_cookie = Some(guard.cookie());
        }
        let clock = Clock::begin(&view, request.service, &guard);
        let attempt = Attempt::begin(connection, clock, &worker);
        let mut exchange = Exchange::new(client, request, attempt, limit);
        let result = match hedge.as_mut() {
            None => poll_fn(|context| exchange.poll_answer(context)).await,
            Some(hedge) => hedge.race(&mut exchange, &mut guard).await,
        };
        let upstream = &this.upstreams[guard.index()];
        let failure = exchange.attempt.end.failure();
        let stale = exchange.attempt.is_silent_on_used() && failure.disconnected;
        match result {
            Ok(()) => {
                if worker.logs_access() {
                    exchange.request.report.head_micros =
                        Some(ambient::since(exchange.request.started).as_micros() as u64);
                }
                let status = exchange.status;
                exchange.take_place(guard, upstream, outcome_of(status, exchange.retry_after));
                if config.retry.on.has_status(status) && repeatable {
                    match next_try(&mut exchange).await {
                        Ok(Some(next)) => {
                            exchange.discard();
                            count_retry(request, this);
                            return Tried::Again(next);
                        }
                        Ok(None) => {}
                        Err(error) => {
                            exchange.discard();
                            return Tried::GivenUp(error);
                        }
                    }
                }
                return Tried::Done(exchange.finish().await);
            }
            Err(TryError::Upstream(ProxyError::UpstreamClosed))
                if exchange.request.replayable
                    && !fresh
                    && !failure.refused
                    && (stale && repeatable || failure.unprocessed) =>
            {
                unprocessed += u32::from(failure.unprocessed);
                // The backend closed the idle connection just as the request was sent: that is no failure of its.
                exchange.release();
                // What was not looked at may be sent as often as it takes, within reason.
                fresh = unprocessed == 0 || unprocessed >= UNPROCESSED_MAX;
            }
            // What the one before has left there, perhaps: more than its answer was due (RFC 9112, 6.3).
            Err(TryError::Upstream(ProxyError::BadAnswer(error))) if exchange.is_first_on_used() => {
                let again = exchange.request.replayable && repeatable;
                exchange.release();
                if !again {
                    return Tried::Failed(guard, TryError::Upstream(ProxyError::UnfitAnswer(error)));
                }
                fresh = true;
            }
            Err(error) => {
                exchange.release();
                return Tried::Failed(
                    guard,
                    match error {
                        // The next of the walk may have it, whatever it is.
                        TryError::Upstream(ProxyError::UpstreamClosed) if failure.unprocessed => {
                            TryError::Upstream(ProxyError::StreamRefused)
                        }
                        TryError::Upstream(error) => TryError::Upstream(timed_out(error, &worker, request.limit)),
                        TryError::Downstream(error) => TryError::Downstream(error),
                    },
                );
            }
        }
    }
}

/// What the passive detector hears of an answer.
fn outcome_of(status: u16, retry_after: Option<Duration>) -> Outcome {
    match retry_after {
        Some(wish) => Outcome::RetryAfter { status, wish },
        None => Outcome::Status(status),
    }
}

/// A place for another try of a request whose answer is in hand: without one, that answer is better than none. The passive detector
/// hears of it at once, and where the backend has said all, its place is free during the wait; the next one's is taken after the
/// wait, so that no place is held for nothing.
async fn next_try(exchange: &mut Exchange<'_>) -> Result<Option<InFlight>, ProxyError> {
    let Some(leave) = may_retry(exchange.client, exchange.request, true) else { return Ok(None) };
    exchange.handle_unwanted();
    match leave.wait(exchange.client, exchange.request).await {
        Err(ProxyError::RequestTimeout) => return Ok(None),
        waited => waited?,
    }
    let worker = Rc::clone(&exchange.client.open.worker);
    Ok(place_for_retry(exchange.request, &worker).unwrap_or(None))
}

/// Every backend that was left has as many retries as it may have.
struct RetryRefused;

/// A place for a retry, if there is one at once.
fn place_for_retry(request: &mut Request, worker: &Worker) -> Result<Option<InFlight>, RetryRefused> {
    let Request { view, service, selection, report, .. } = request;
    let last = report.backend.map(|backend| Slot(backend as u16));
    in_flight::acquire_for_retry(view, *service, selection, last, worker.index).map_err(|limit| {
        view.services[*service].cells.refuse_retry(limit);
        RetryRefused
    })
}

/// A time-out that was the whole exchange's is told as that.
fn timed_out(error: ProxyError, worker: &Worker, limit: Deadline) -> ProxyError {
    let is_timeout =
        matches!(error, ProxyError::ConnectTimeout | ProxyError::ResponseTimeout | ProxyError::SendTimeout);
    if is_timeout && worker.timers.now() >= limit { ProxyError::RequestTimeout } else { error }
}
