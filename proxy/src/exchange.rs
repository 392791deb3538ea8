//! One request: picks a backend, has it exchanged ([`pump`]), retries on the next of the walk.

mod pump;

use crate::answer;
use crate::buffers::Buffer;
use crate::error::{ProxyError, RetryWhen};
use crate::http::Client;
use crate::inflight::{self, InFlight};
use crate::request::Request;
use crate::upstream::{self, Connection};
use pump::{Exchange, TryError};
use ringway_health::Outcome;
use ringway_http1::Method;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Instant;

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
    this.cells.durations.record(request.started.elapsed());
    if let Some(error) = error {
        client.open.worker.shared.cells.error(&this.service.config.name, error.reason());
    }
    request.log(client, status, error);
    let worker = &client.open.worker;
    worker.buffers.give_outgoing(std::mem::take(&mut request.out));
    if client.input.is_empty() {
        worker.buffers.give(std::mem::take(&mut client.input));
    }
    next
}

/// Answers with an error of ours.
async fn refuse(client: &mut Client, request: &mut Request, error: ProxyError) -> Next {
    if error == ProxyError::ClientClosed {
        return Next::Abort;
    }
    let worker = Rc::clone(&client.open.worker);
    // A body that was not read stands between this request and the next.
    let keep_alive = request.keep_alive && request.body.is_end() && !client.open.is_closing();
    let mut out = worker.buffers.take_outgoing();
    answer::write(error, request.version, keep_alive, request.method == Method::Head, &mut out);
    let sent = client.send(&out).await;
    request.report.sent_bytes += out.len() as u64;
    worker.buffers.give_outgoing(out);
    match (sent, keep_alive) {
        (false, _) => Next::Abort,
        (true, true) => Next::Request,
        (true, false) => Next::Linger,
    }
}

/// Tries backends until one answers.
async fn carry(client: &mut Client, request: &mut Request) -> Result<(u16, Option<ProxyError>, Next), ProxyError> {
    let view = Rc::clone(&request.view);
    let worker = Rc::clone(&client.open.worker);
    let this = &view.services[request.service];
    let config = &this.service.config;
    let mut last_error = None;
    loop {
        let found =
            inflight::acquire(&view, request.service, &mut request.selection, worker.index, &client.timer).await;
        let guard = match found {
            Ok(guard) => guard,
            // The walk has come to its end: what the last backend did tells more than that.
            Err(error) => return Err(last_error.unwrap_or(error)),
        };
        request.report.backend = Some(guard.index());
        let error = match on_backend(client, request, &guard).await {
            Ok(done) => {
                if request.hash.is_some() && request.selection.owner() == Some(guard.slot) {
                    this.cells.owned.increment();
                }
                if request.selection.spills() > 0 {
                    this.cells.spills.increment();
                }
                return Ok(done);
            }
            Err(TryError::Downstream(error)) => return Err(error),
            Err(TryError::Upstream(error)) => error,
        };
        this.upstreams[guard.index()].cells.failures.increment();
        guard.report_error(error);
        drop(guard);
        let may = match error.retry() {
            RetryWhen::Never => false,
            RetryWhen::Always => true,
            RetryWhen::Idempotent => request.method.is_idempotent() || config.retry.non_idempotent,
            RetryWhen::IdempotentTimeout => {
                config.retry.on_timeout && (request.method.is_idempotent() || config.retry.non_idempotent)
            }
        };
        if !may
            || !request.replayable
            || request.report.retries >= config.retry.attempts
            || worker.timers.now() >= request.limit
        {
            return Err(error);
        }
        request.report.retries += 1;
        this.cells.retries.increment();
        last_error = Some(error);
    }
}

/// One try: a pooled connection, a fresh one if that turns out to be stale, the exchange.
async fn on_backend(
    client: &mut Client,
    request: &mut Request,
    guard: &InFlight,
) -> Result<(u16, Option<ProxyError>, Next), TryError> {
    let view = Rc::clone(&request.view);
    let worker = Rc::clone(&client.open.worker);
    let this = &view.services[request.service];
    let config = &this.service.config;
    let upstream = &this.upstreams[guard.index()];
    let repeatable = request.method.is_idempotent() || config.retry.non_idempotent;
    let mut fresh = false;
    loop {
        // An upgrade takes the connection for good; a pooled one serves as well.
        let pooled = if fresh { None } else { upstream.pool.take(!repeatable, &worker.cells) };
        let reused = pooled.is_some();
        let stream = match pooled {
            Some(stream) => stream,
            None => {
                let before = worker.logs_access().then(Instant::now);
                let address = this.service.address(guard.slot);
                upstream.cells.connects.increment();
                let stream = upstream::connect(address, config.timeouts.connect, request.limit, &client.timer)
                    .await
                    .map_err(|error| TryError::Upstream(timed_out(error, client, request)))?;
                request.report.connect_micros = before.map(|before| before.elapsed().as_micros() as u64);
                stream
            }
        };
        upstream.cells.requests.increment();
        let connection = Connection { stream, input: Buffer::default(), reused };
        let mut exchange = Exchange::new(client, request, connection);
        let result = poll_fn(|context| exchange.poll_answer(context)).await;
        let stale = exchange.upstream.reused && exchange.upstream.input.is_empty() && exchange.interims == 0;
        match result {
            Ok(()) => {
                if worker.logs_access() {
                    exchange.request.report.head_micros = Some(exchange.request.started.elapsed().as_micros() as u64);
                }
                let status = exchange.status;
                let result = exchange.finish(guard, upstream, Outcome::Status(status)).await;
                return Ok(result);
            }
            Err(TryError::Upstream(ProxyError::UpstreamClosed))
                if stale && repeatable && exchange.request.replayable && !fresh =>
            {
                // The backend closed the idle connection just as the request was sent: that is no failure of its.
                exchange.release();
                fresh = true;
            }
            Err(error) => {
                exchange.release();
                return Err(match error {
                    TryError::Upstream(error) => TryError::Upstream(timed_out(error, client, request)),
                    TryError::Downstream(error) => TryError::Downstream(error),
                });
            }
        }
    }
}

/// A time-out that was the whole exchange's is told as that.
fn timed_out(error: ProxyError, client: &Client, request: &Request) -> ProxyError {
    let is_timeout =
        matches!(error, ProxyError::ConnectTimeout | ProxyError::ResponseTimeout | ProxyError::SendTimeout);
    if is_timeout && client.open.worker.timers.now() >= request.limit { ProxyError::RequestTimeout } else { error }
}
