//! One request: picks a backend, runs the exchange with it ([`super::pump`]), retries on the next candidate, or hedges
//! ([`super::hedge`]).

use super::client::Client;
use super::on_backend::{Tried, on_backend};
use super::outcome::{Next, TryError};
use super::request::{Report, Request};
use super::retry::{RetryRefused, count_retry, may_retry, place_for_retry};
use super::{error_response, handoff, mirror};
use crate::ambient;
use crate::codec::end::ClientEnd;
use crate::codec::http1::Http1;
use crate::codec::source::Source;
use crate::error::ProxyError;
use crate::routing::admission::count_served;
use crate::upstream::failover::Then;
use crate::upstream::in_flight::InFlight;
use crate::upstream::retry;
use crate::upstream::{queue, search};
use crate::worker::WorkerService;
use ringway_message::{HeadWriter, Method};
use ringway_telemetry::counters::{Measured, class_of};
use std::rc::Rc;
use std::time::Instant;

/// Carries a request out.
pub(crate) async fn run(client: &mut Client, request: &mut Request) -> Next {
    if let Some(mirror) = request.actions().and_then(|actions| actions.mirror) {
        if client.end.is_over() {
            request.take_trailers(&mut client.end);
        }
        mirror::begin(client, request, mirror);
    }
    let (status, error, next) = match carry(client, request).await {
        Ok((status, error, next)) => (status, error, next),
        Err(error) => {
            request.free_limits();
            let next = refuse(client, request, error).await;
            (error.status(), Some(error), next)
        }
    };
    mirror::end(request);
    let ended_try = request.ended_try.take();
    let this = &request.view.services[request.service];
    let counted = request.counted_status(status);
    let class = if error == Some(ProxyError::ClientClosed) { 0 } else { class_of(counted) };
    this.counters.requests[class].increment();
    let now = ambient::now();
    let measured = Measured::new(now.saturating_duration_since(request.started));
    this.counters.durations.count(measured);
    let Report { received_bytes, sent_bytes, .. } = request.report;
    client.open.active_listener.counters.count(class, received_bytes, sent_bytes);
    if let Some(ended) = ended_try {
        ended.count_with(this, now, (request.started, measured));
    }
    if let Some(error) = error {
        client.open.worker.shared.counters.error(&this.service.config.name, error.reason());
    }
    request.log(client, status, error);
    if let Some(mut trace) = request.trace.take() {
        if let Some(id) = trace.id() {
            this.counters.exemplars.note(measured, u128::from_be_bytes(id), ambient::unix_millis());
        }
        request.end_trace(&mut trace, &client.open.worker, status, error);
    }
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

/// Sends a local reply for an error.
async fn refuse(client: &mut Client, request: &mut Request, error: ProxyError) -> Next {
    if error == ProxyError::ClientClosed {
        return Next::Abort;
    }
    // A body that has not been read to its end stands between this request and the next.
    let rest = match &mut client.end {
        ClientEnd::Http1(Http1 { input, body, .. }) => {
            let rest = body.rest_len(input.bytes()).filter(|_| error.keeps_order());
            if let Some(rest) = rest {
                input.consume(rest);
                request.report.received_bytes += rest as u64;
            }
            rest.is_some()
        }
        // Nothing follows it on its stream.
        ClientEnd::Http2(_) => true,
    };
    let keep_alive = request.keep_alive && rest && !client.open.ends_with_response();
    let mut fields = HeadWriter::default();
    if request.explain || !request.response_lines.is_empty() {
        request.append_fields(&mut fields);
    }
    let pages = &request.routed_by.http(request.listener).errors;
    let is_head = request.method == Method::Head;
    let mut out = client.own_head();
    let answer = error_response::write(error, request.version, keep_alive, is_head, fields.text(), pages, &mut out);
    request.report.sent_bytes += out.text().len() as u64;
    match (client.send(answer, out).await, keep_alive) {
        (false, _) => Next::Abort,
        (true, true) => Next::Request,
        (true, false) => Next::Linger,
    }
}

/// Tries backends until one responds.
async fn carry(client: &mut Client, request: &mut Request) -> Result<(u16, Option<ProxyError>, Next), ProxyError> {
    let worker = Rc::clone(&client.open.worker);
    let view = Rc::clone(&request.view);
    let this = &view.services[request.service];
    this.live.count(&this.service.config, worker.timers.millis());
    // `has_failed`: the last try has, and no other has begun since.
    let (mut last_error, mut has_failed) = (None, false);
    // A reservation that has been found already: the cookie's backend, or that of a retry which only goes if there is one.
    let mut ready = request
        .sticky
        .take()
        .and_then(|slot| search::acquire_sticky(&view, request.service, &mut request.selection, slot, worker.index));
    if this.service.handoff.is_open() && ready.is_none() {
        ready = handoff::begin(client, request);
    }
    // A first try that has not waited begins with the request.
    let mut begins = Some(request.started);
    loop {
        let mut guard = match ready.take() {
            Some(guard) => guard,
            None => match search::acquire_or_wait(&mut request.search(&worker)) {
                Ok(Some(guard)) if !request.retries.has_begun() => guard,
                found => {
                    begins = None;
                    settle(client, request, found, last_error).await?
                }
            },
        };
        begin_try(client, request, &mut guard, begins.take(), std::mem::take(&mut has_failed));
        // A wait may have led to a newer version.
        let view = Rc::clone(&request.view);
        let this = &view.services[request.service];
        let tried = on_backend(client, request, guard).await;
        if let Tried::Failed(_, error) = &tried {
            request.fail_try(error);
        }
        match tried {
            Tried::Done(done) => {
                count_served(this, request.keyed, (&request.selection, request.holder()), request.report.backend);
                return Ok(done);
            }
            Tried::Again(next) => ready = Some(next),
            Tried::GivenUp(error) | Tried::Failed(_, TryError::Downstream(error)) => return Err(error),
            // It got nothing of the request: another backend may have room.
            Tried::Failed(guard, TryError::Upstream(ProxyError::ConnectionLimit)) => {
                guard.give_back_full(&mut request.selection, &mut request.failover);
            }
            Tried::Failed(guard, TryError::Upstream(error)) => {
                ready = go_on(client, request, this, guard, error).await?;
                (last_error, has_failed) = (Some(error), true);
            }
        }
    }
}

/// A try begins on a backend that has room, as it has for one that follows another: only now it is known that there is one.
fn begin_try(client: &Client, request: &mut Request, guard: &mut InFlight, since: Option<Instant>, is_retry: bool) {
    let key = guard.begin_try(since.unwrap_or_else(ambient::now), request.key());
    let view = Rc::clone(&request.view);
    let this = &view.services[request.service];
    if is_retry {
        count_retry(request, this);
    }
    if request.handed.is_some() {
        handoff::begin_try(request, guard.slot);
    }
    request.report.backend = Some(guard.index());
    request.entry.set_backend(&request.view, request.service, (guard.index(), key));
    let connect_timeout = client.timer.deadline(this.service.config.timeouts.connect);
    request.failover.begin(connect_timeout, this.service.turnover());
}

/// A reservation that was not there at once: the request waits for it, or it is a retry's.
async fn settle(
    client: &mut Client,
    request: &mut Request,
    found: Result<Option<InFlight>, ProxyError>,
    last_error: Option<ProxyError>,
) -> Result<InFlight, ProxyError> {
    let found = match found {
        Ok(Some(guard)) => Ok(guard),
        Ok(None) => wait_for_room(client, request).await?,
        Err(error) => Err(error),
    };
    match found {
        Ok(guard) if request.retries.has_begun() => {
            let Request { view, service, selection, .. } = &mut *request;
            let shard = client.open.worker.index;
            search::settle_for_retry(guard, view, *service, selection, shard)
                .ok_or(last_error.unwrap_or(ProxyError::AllFull))
        }
        Ok(guard) => Ok(guard),
        // The time of the whole exchange is over, whatever was under way.
        Err(error @ ProxyError::RequestTimeout) => Err(error),
        // No candidate is left: the last backend's failure is the better error.
        Err(error) => Err(last_error.unwrap_or(error)),
    }
}

/// A backend has failed: decides whether another attempt follows. Returns its reservation, if that has been found.
///
/// # Errors
/// No attempt follows.
async fn go_on(
    client: &mut Client,
    request: &mut Request,
    this: &WorkerService,
    guard: InFlight,
    error: ProxyError,
) -> Result<Option<InFlight>, ProxyError> {
    let worker = Rc::clone(&client.open.worker);
    if !request.failover.cut_short(error) {
        guard.report_error(error);
    }
    drop(guard);
    request.entry.leave_backend();
    if !error.retry().holds(&this.service.config.retry.on, request.is_repeatable()) {
        return Err(error);
    }
    match request.failover.handle_failure(error, worker.timers.now()) {
        Then::End => Err(error),
        Then::NextCandidate
            if request.replayable
                && worker.timers.now() < request.limit
                && !retry::goes_back(&this.service, &request.selection) =>
        {
            Ok(None)
        }
        Then::NextCandidate | Then::Retry => {
            // It no longer follows the candidate sequence.
            request.failover.handle_taken();
            let leave = may_retry(client, request, false).ok_or(error)?;
            leave.wait(client, request).await?;
            place_for_retry(request, &worker).map_err(|RetryRefused| error)
        }
    }
}

/// Waits in the queue, for as long as the client does.
async fn wait_for_room(client: &mut Client, request: &mut Request) -> Result<Result<InFlight, ProxyError>, ProxyError> {
    let worker = Rc::clone(&client.open.worker);
    let (presence, timer, _) = client.presence(request.may_half_close());
    let limit = request.limit;
    if let Some(trace) = &mut request.trace {
        trace.begin_wait(&worker);
    }
    // Boxed: a rare wait must not make every exchange larger.
    let found = presence.during(Box::pin(queue::wait_for_room(request.search(&worker), timer, limit))).await;
    if let Some(trace) = &mut request.trace {
        trace.end_wait();
    }
    found
}
