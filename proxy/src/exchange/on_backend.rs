//! One attempt of a request on one backend: a pooled connection, a fresh one if that turns out to be stale, then the exchange.

use super::attempt::Attempt;
use super::client::Client;
use super::clock::Clock;
use super::hedge::Hedge;
use super::outcome::{Next, TryError, outcome_of, timed_out};
use super::pump::Exchange;
use super::request::Request;
use super::retry::{count_retry, may_retry, place_for_retry};
use crate::ambient;
use crate::error::ProxyError;
use crate::net::timer::Deadline;
use crate::upstream::in_flight::InFlight;
use crate::upstream::{self, Connection, Connector};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Instant;

/// How often a request is sent anew to the same backend because its connection was closing before the backend processed it: first on
/// any other connection, then on a fresh one.
const UNPROCESSED_MAX: u32 = 2;

/// The outcome of one attempt.
pub(super) enum Tried {
    /// The response was forwarded.
    Done((u16, Option<ProxyError>, Next)),
    /// The response is to be retried, and there is a reservation for the retry.
    Again(InFlight),
    /// The client has left while another attempt was about to begin.
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
    request.begin_try(worker, guard.index());
    let service = &request.view.services[request.service];
    let certain = !request.is_repeatable();
    if !fresh && let Some(connection) = upstream::at_hand(worker, service, guard.slot, certain) {
        request.handle_connection(connection.reused);
        return Ok(connection);
    }
    let before = worker.logs_access().then(ambient::now);
    let (presence, timer, peer) = client.presence(request.may_half_close());
    let limit = limit.min(request.failover.limit());
    let reach = Connector { worker, service, slot: guard.slot, peer: Some(peer), limit, timer };
    let connected = presence.during(Box::pin(reach.connection(fresh, certain))).await.map_err(TryError::Downstream)?;
    let connection = connected.map_err(|error| TryError::Upstream(timed_out(error, worker, request.limit)))?;
    request.handle_connection(connection.reused);
    if !connection.reused {
        request.report.connect_micros = before.map(micros_since);
    }
    Ok(connection)
}

/// One attempt: a pooled connection, a fresh one if that turns out to be stale, then the exchange.
pub(super) async fn on_backend(client: &mut Client, request: &mut Request, mut guard: InFlight) -> Tried {
    let view = Rc::clone(&request.view);
    let worker = Rc::clone(&client.open.worker);
    let this = &view.services[request.service];
    let config = &this.service.config;
    let repeatable = request.is_repeatable();
    let limit = client.timer.deadline(config.retry.per_try_timeout).min(request.limit);
    let mut hedge = Hedge::new(request, repeatable);
    let mut fresh = false;
    let mut unprocessed = 0;
    loop {
        let upstream = &this.upstreams[guard.index()];
        let connection = match connection(client, request, &guard, fresh, limit).await {
            Ok(connection) => connection,
            Err(error) => return Tried::Failed(guard, error),
        };
        upstream.counters.requests.increment();
        if guard.wants_cookie() {
            request.set_cookie = Some(guard.cookie());
        }
        let clock = Clock::begin(&view, request.service, &guard);
        let attempt = Attempt::begin(connection, clock, &worker);
        let mut exchange = Exchange::new(client, request, attempt, limit);
        let result = match hedge.as_mut() {
            None => poll_fn(|context| exchange.poll_response(context)).await,
            Some(hedge) => hedge.race(&mut exchange, &mut guard).await,
        };
        match result {
            Ok(()) => {
                let logged = worker.logs_access();
                exchange.request.report.head_micros = logged.then(|| micros_since(exchange.request.started));
                let upstream = &this.upstreams[guard.index()];
                exchange.take_place(guard, upstream, outcome_of(exchange.status, exchange.retry_after));
                if !config.retry.on.has_status(exchange.status) || !exchange.request.is_repeatable() {
                    return Tried::Done(exchange.finish().await);
                }
                return match next_try(&mut exchange).await {
                    Ok(None) => Tried::Done(exchange.finish().await),
                    Ok(Some(next)) => {
                        count_retry(exchange.request, this);
                        exchange.discard();
                        Tried::Again(next)
                    }
                    Err(error) => {
                        exchange.discard();
                        Tried::GivenUp(error)
                    }
                };
            }
            Err(error) => {
                let follows = after_failure(&mut exchange, error, fresh, &mut unprocessed);
                exchange.release();
                match follows {
                    Follows::Again { on_fresh } => fresh = on_fresh,
                    Follows::Failed(error) => return Tried::Failed(guard, error),
                }
            }
        }
    }
}

fn micros_since(then: Instant) -> u64 {
    ambient::since(then).as_micros() as u64
}

/// What follows an attempt that has failed.
enum Follows {
    /// The same backend gets the request once more: on any connection, or on a fresh one.
    Again {
        on_fresh: bool,
    },
    Failed(TryError),
}

/// `fresh`: the attempt was on a fresh connection; `unprocessed`: how often the backend has not processed the request.
fn after_failure(exchange: &mut Exchange<'_>, error: TryError, fresh: bool, unprocessed: &mut u32) -> Follows {
    exchange.request.fail_try(&error);
    let request = &*exchange.request;
    let failure = exchange.attempt.end.failure();
    let stale = exchange.attempt.is_silent_on_used() && failure.disconnected;
    let repeatable = request.is_repeatable();
    match error {
        TryError::Upstream(ProxyError::UpstreamClosed)
            if request.replayable && !fresh && !failure.refused && (stale && repeatable || failure.unprocessed) =>
        {
            // The backend closed the idle connection just as the request was sent: that is no failure of the backend. A
            // request that was not processed may be sent again, up to a limit.
            *unprocessed += u32::from(failure.unprocessed);
            Follows::Again { on_fresh: *unprocessed == 0 || *unprocessed >= UNPROCESSED_MAX }
        }
        // Perhaps the bytes are leftovers of the exchange before: more than its response was due (RFC 9112, 6.3).
        TryError::Upstream(ProxyError::BadResponse(_))
            if exchange.is_first_on_used() && request.replayable && repeatable =>
        {
            Follows::Again { on_fresh: true }
        }
        TryError::Upstream(ProxyError::BadResponse(error)) if exchange.is_first_on_used() => {
            Follows::Failed(TryError::Upstream(ProxyError::UnfitResponse(error)))
        }
        // The next candidate may get it, whatever it is.
        TryError::Upstream(ProxyError::UpstreamClosed) if failure.unprocessed => {
            Follows::Failed(TryError::Upstream(ProxyError::StreamRefused))
        }
        TryError::Upstream(error) => {
            let error = timed_out(error, &exchange.client.open.worker, request.limit);
            Follows::Failed(TryError::Upstream(error))
        }
        TryError::Downstream(error) => Follows::Failed(TryError::Downstream(error)),
    }
}

/// A reservation for another attempt of a request whose response is at hand: without one, that response is forwarded. The response is
/// reported to the passive detector at once. Where it is complete, its reservation is released during the back-off; the next one is
/// taken after the back-off, so that none is held for nothing.
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
