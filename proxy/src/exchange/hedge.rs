//! Hedging: when no response has come for a while, the request also goes to the next candidate. The first response is taken, the other
//! connection is closed. A response that hedging is not to take while there may be a better one (`hedge.non_fatal`) waits for the other
//! attempt; if that brings nothing better, the first attempt's response is preferred.

use super::attempt::{Attempt, Found};
use super::outcome::{TryError, outcome_of, timed_out};
use super::pump::Exchange;
use crate::ambient;
use crate::codec::source::Gone;
use crate::codec::tunnel::Duplex;
use crate::dispatcher::SessionState;
use crate::error::ProxyError;
use crate::exchange::clock::Clock;
use crate::exchange::request::{Copied, Request};
use crate::net::timer::{Deadline, Timer};
use crate::upstream::Connector;
use crate::upstream::in_flight::InFlight;
use crate::upstream::search;
use crate::worker::{OpenConnection, View, Worker};
use ringway_config::model;
use ringway_telemetry::counters::class_of;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The hedge of an attempt. A retry is an attempt of its own, which may have a hedge too: the budget bounds all of them together.
pub(super) struct Hedge {
    config: model::Hedge,
    wait: Pin<Box<tokio::time::Sleep>>,
    second: Second,
}

enum Second {
    /// Its time has not come.
    Due,
    Trying(Trying),
    /// Had a response that does not win while the first attempt is under way.
    Answered(Box<Answered>),
    /// An attempt has one hedge at most.
    Over,
}

/// A response, or why there is none, with the guard of a backend that has turned out to be full.
type Trying = Pin<Box<dyn Future<Output = Result<Box<Answered>, (Option<InFlight>, ProxyError)>>>>;

/// Why a try has no response that a trace could tell: another's was taken.
const CANCELLED: &str = "cancelled";

/// State of the first attempt.
enum First {
    Trying,
    /// Had a response that does not win while the hedge is under way.
    Answered,
    Failed(ProxyError),
}

/// The hedge, with the head of its response.
struct Answered {
    guard: InFlight,
    attempt: Attempt,
    status: u16,
    retry_after: Option<Duration>,
}

/// Which attempt's response is taken.
enum Winner {
    First(Result<(), TryError>),
    Second(Box<Answered>),
}

impl Hedge {
    /// For an attempt of a request whose service hedges, and which may be sent twice.
    pub(super) fn new(request: &Request, repeatable: bool) -> Option<Self> {
        let this = &request.view.services[request.service];
        let may = repeatable && request.is_resendable() && !request.upgrade;
        let config = this.service.config.hedge.filter(|_| may)?;
        Some(Self { config, wait: Box::pin(tokio::time::sleep(config.after)), second: Second::Due })
    }

    /// The response that is taken. The guard is then that of its backend.
    pub(super) async fn race(&mut self, exchange: &mut Exchange<'_>, guard: &mut InFlight) -> Result<(), TryError> {
        let mut first = First::Trying;
        let winner = poll_fn(|context| self.poll(context, exchange, &mut first)).await;
        // The losing attempt is accounted by the response it had, if any, and its connection is closed.
        let loser = std::mem::replace(&mut self.second, Second::Over);
        let view = Rc::clone(&exchange.request.view);
        let this = &view.services[exchange.request.service];
        match winner {
            Winner::First(result) => {
                if let Some(trace) = &mut exchange.request.trace {
                    match &loser {
                        Second::Answered(answered) => trace.end_hedge(answered.status, None),
                        Second::Due | Second::Trying(_) | Second::Over => trace.end_hedge(0, Some(CANCELLED)),
                    }
                }
                if let Second::Answered(answered) = loser {
                    let Answered { mut guard, status, retry_after, .. } = *answered;
                    guard.handle_class(class_of(status));
                    guard.report(outcome_of(status, retry_after));
                }
                result
            }
            Winner::Second(second) => {
                this.counters.hedges_won.increment();
                let upstream = &this.upstreams[guard.index()];
                let first_guard = std::mem::replace(guard, second.guard);
                let first_guard = if exchange.status != 0 {
                    let outcome = outcome_of(exchange.status, exchange.retry_after);
                    exchange.take_place(first_guard, upstream, outcome);
                    None
                } else {
                    if let First::Failed(error) = first {
                        report_failure(exchange, &first_guard, error);
                    }
                    Some(first_guard)
                };
                if let Some(trace) = &mut exchange.request.trace {
                    let reason = match first {
                        First::Failed(error) => Some(error.reason()),
                        First::Trying | First::Answered => (exchange.status == 0).then_some(CANCELLED),
                    };
                    trace.take_hedge(exchange.status, reason);
                }
                let request = &mut *exchange.request;
                request.set_cookie = guard.wants_cookie().then(|| guard.cookie()).or(request.set_cookie);
                request.report.backend = Some(guard.index());
                request.entry.set_backend(&request.view, request.service, (guard.index(), guard.list()));
                request.entry.set_state(SessionState::Waiting);
                exchange.replace(second.attempt);
                // Once its connection is closed, its reservation is free for others, however long this response takes.
                drop(first_guard);
                poll_fn(|context| exchange.poll_response(context)).await
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, exchange: &mut Exchange<'_>, first: &mut First) -> Poll<Winner> {
        match first {
            First::Trying => match exchange.poll_response(context) {
                Poll::Ready(Ok(())) if self.waits_for_better(exchange.status) => *first = First::Answered,
                // The hedge, if there is one, may still get a response, or has one.
                Poll::Ready(Err(TryError::Upstream(error))) if self.is_under_way() => *first = First::Failed(error),
                Poll::Ready(result) => return Poll::Ready(Winner::First(result)),
                Poll::Pending if exchange.status != 0 && !self.config.non_fatal.has_status(exchange.status) => {
                    // The first attempt's response has begun.
                    if matches!(self.second, Second::Trying(_)) {
                        self.second = Second::Over;
                    }
                    return Poll::Pending;
                }
                Poll::Pending => {}
            },
            First::Answered | First::Failed(_) => {
                if exchange.poll_left(context, exchange.request.may_half_close()).is_ready() {
                    return Poll::Ready(Winner::First(Err(TryError::Downstream(ProxyError::ClientClosed))));
                }
            }
        }
        self.poll_second(context, exchange, first)
    }

    fn poll_second(&mut self, context: &mut Context<'_>, exchange: &mut Exchange<'_>, first: &First) -> Poll<Winner> {
        loop {
            self.second = match std::mem::replace(&mut self.second, Second::Over) {
                Second::Due => {
                    if !exchange.is_waiting() || self.wait.as_mut().poll(context).is_pending() {
                        self.second = Second::Due;
                        return Poll::Pending;
                    }
                    begin(exchange, self.config).map_or(Second::Over, Second::Trying)
                }
                Second::Trying(mut trying) => match trying.as_mut().poll(context) {
                    Poll::Pending => {
                        self.second = Second::Trying(trying);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(answered)) if !self.config.non_fatal.has_status(answered.status) => {
                        return Poll::Ready(Winner::Second(answered));
                    }
                    Poll::Ready(Ok(answered)) => Second::Answered(answered),
                    Poll::Ready(Err((full, error))) => {
                        if let Some(trace) = &mut exchange.request.trace {
                            match full {
                                Some(_) => trace.take_back_hedge(),
                                None => trace.end_hedge(0, Some(error.reason())),
                            }
                        }
                        // The backend got nothing of the request: a retry may find room there.
                        let selection = &mut exchange.request.selection;
                        full.into_iter().for_each(|guard| guard.pass_by(selection, true));
                        Second::Over
                    }
                },
                Second::Answered(answered) => match first {
                    First::Failed(_) => return Poll::Ready(Winner::Second(answered)),
                    First::Trying => {
                        self.second = Second::Answered(answered);
                        return Poll::Pending;
                    }
                    First::Answered => {
                        self.second = Second::Answered(answered);
                        return Poll::Ready(Winner::First(Ok(())));
                    }
                },
                Second::Over => {
                    return match first {
                        First::Trying => Poll::Pending,
                        First::Answered => Poll::Ready(Winner::First(Ok(()))),
                        First::Failed(error) => Poll::Ready(Winner::First(Err(TryError::Upstream(*error)))),
                    };
                }
            };
        }
    }

    /// Whether the hedge may still bring a response.
    fn is_under_way(&self) -> bool {
        matches!(self.second, Second::Trying(_) | Second::Answered(_))
    }

    /// Whether a response of the first attempt with this status waits for the hedge.
    fn waits_for_better(&self, status: u16) -> bool {
        matches!(self.second, Second::Trying(_)) && self.config.non_fatal.has_status(status)
    }
}

/// What is reported to the passive detector about a first attempt that has failed. Being slower than another is no failure; the
/// attempt's clock reports its latency.
fn report_failure(exchange: &Exchange<'_>, guard: &InFlight, error: ProxyError) {
    let worker = &exchange.client.open.worker;
    let error = timed_out(error, worker, exchange.request.limit);
    if !exchange.attempt.tells_nothing(error) {
        guard.report_error(error);
    }
}

/// The hedge, if the budget allows it and another backend has room. That backend counts as tried, whatever comes of it: no retry of the
/// request goes there again.
fn begin(exchange: &mut Exchange<'_>, hedge: model::Hedge) -> Option<Trying> {
    let worker = Rc::clone(&exchange.client.open.worker);
    let view = Rc::clone(&exchange.request.view);
    let service = exchange.request.service;
    let this = &view.services[service];
    let selection = &mut exchange.request.selection;
    if !this.service.backend_set.has_another(selection) {
        return None;
    }
    if !this.live.hedges.borrow_mut().take(worker.timers.millis(), hedge.budget_percent, hedge.budget_min) {
        this.counters.hedges_refused.increment();
        return None;
    }
    let Some(mut guard) = search::acquire_now(&view, service, selection, worker.index) else {
        // Backends that have no room now may have some when the first attempt has failed.
        this.service.backend_set.restart(selection);
        return None;
    };
    this.counters.hedges.increment();
    guard.begin_rival(ambient::now(), exchange.request.key());
    let timer = worker.timer();
    let mut copied = exchange.request.copied(this.service.config.protocol);
    exchange.request.begin_hedge(&worker, guard.index(), &mut copied);
    let request = &*exchange.request;
    let what = Sending {
        request: copied,
        limit: timer.deadline(this.service.config.retry.per_try_timeout).min(request.limit),
        request_limit: request.limit,
        open: Rc::clone(&exchange.client.open),
    };
    Some(Box::pin(async move {
        match run(&guard, (&view, service), &timer, &what, &worker).await {
            Ok((attempt, (status, retry_after))) => Ok(Box::new(Answered { guard, attempt, status, retry_after })),
            Err(Failure { error: error @ ProxyError::ConnectionLimit, .. }) => Err((Some(guard), error)),
            Err(Failure { error, tells_nothing }) => {
                let error = timed_out(error, &worker, what.request_limit);
                if !tells_nothing {
                    guard.report_error(error);
                }
                Err((None, error))
            }
        }
    }))
}

/// A request that is sent again.
struct Sending {
    request: Copied,
    /// End of the attempt.
    limit: Deadline,
    /// End of the whole exchange.
    request_limit: Deadline,
    open: Rc<OpenConnection>,
}

/// Why the hedge brought no response.
struct Failure {
    error: ProxyError,
    /// It went on a connection that the backend was about to close.
    tells_nothing: bool,
}

impl From<ProxyError> for Failure {
    fn from(error: ProxyError) -> Self {
        Self { error, tells_nothing: false }
    }
}

/// Sends the request and waits for the head of its response.
async fn run(
    guard: &InFlight,
    (view, service): (&Rc<View>, usize),
    timer: &Timer,
    what: &Sending,
    worker: &Rc<Worker>,
) -> Result<(Attempt, Found), Failure> {
    let this = &view.services[service];
    let config = &this.service.config;
    let upstream = &this.upstreams[guard.index()];
    let reach =
        Connector { worker, service: this, slot: guard.slot, peer: Some(&what.open.peer), limit: what.limit, timer };
    let connection = reach.connection(false, true).await?;
    upstream.counters.requests.increment();
    let mut attempt = Attempt::begin(connection, Clock::begin(view, service, guard), worker);
    timer.set_before(config.timeouts.body_idle, what.limit);
    let mut sent = 0;
    let sending = poll_fn(|context| {
        let block = &mut worker.scratch.borrow_mut().block;
        match what.request.poll_send(&mut attempt.end, &mut sent, block, context) {
            Poll::Ready(result) => Poll::Ready(result.map_err(|Gone| ProxyError::UpstreamClosed)),
            Poll::Pending if timer.poll_fired(context) => Poll::Ready(Err(ProxyError::SendTimeout)),
            Poll::Pending => Poll::Pending,
        }
    });
    if let Err(error) = sending.await {
        attempt.clock.forget();
        return Err(Failure { error, tells_nothing: attempt.tells_nothing(error) });
    }
    attempt.clock.handle_sent();
    timer.set_before(config.timeouts.response, what.limit);
    let answered = poll_fn(|context| {
        attempt.end.poll_drive(context);
        if let Poll::Ready(result) = attempt.poll_final_head(what.request.method, worker, context) {
            return Poll::Ready(result);
        }
        if timer.poll_fired(context) {
            attempt.handle_timeout(false, Some(upstream), worker);
            return Poll::Ready(Err(ProxyError::ResponseTimeout));
        }
        Poll::Pending
    });
    match answered.await {
        Ok(found) => {
            attempt.clock.handle_response(found.0);
            Ok((attempt, found))
        }
        Err(error) => {
            if error != ProxyError::ResponseTimeout {
                attempt.clock.forget();
            } else if timed_out(error, worker, what.request_limit) == error {
                attempt.clock.handle_timeout();
            }
            Err(Failure { error, tells_nothing: attempt.tells_nothing(error) })
        }
    }
}
