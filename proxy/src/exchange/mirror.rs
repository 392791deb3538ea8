//! Mirroring: copies of requests for another service, whose responses are read to their end and discarded.

use crate::ambient;
use crate::codec::end::BackendEnd;
use crate::codec::source::{Gone, Source};
use crate::codec::tunnel::Duplex;
use crate::error::ProxyError;
use crate::exchange::attempt::{Attempt, Part};
use crate::exchange::client::Client;
use crate::exchange::clock::Clock;
use crate::exchange::request::{Copied, Request};
use crate::upstream::Connector;
use crate::upstream::in_flight::InFlight;
use crate::upstream::search;
use crate::worker::{View, Worker};
use ringway_config::model::Mirror;
use ringway_http1::{Body, Encoding};
use ringway_ring::{PickContext, Selection};
use ringway_telemetry::counters::class_of;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Copies under way at once, per worker: beyond that none are made.
const COPIES_MAX: usize = 256;

/// Counts a copy for as long as it lives.
struct Copying(Rc<Worker>);

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.mirroring.set(self.0.mirroring.get() - 1);
    }
}

/// Makes a copy, if this request is one of those that are mirrored: at once where all of it is here, or else once the rest of its body has
/// come, as long as that is short.
pub(crate) fn begin(client: &Client, request: &mut Request, mirror: Mirror) {
    let worker = &client.open.worker;
    let chosen = mirror.percent >= 100 || worker.random() % 100 < u64::from(mirror.percent);
    if !chosen || request.upgrade {
        return;
    }
    if client.end.is_finished() {
        copy(client, request, mirror);
    } else {
        request.mirror = Some(mirror);
    }
}

/// The last byte of the body has come: makes the copy that has waited for it.
#[inline]
pub(super) fn copy_rest(client: &Client, request: &mut Request) {
    if let Some(mirror) = request.mirror {
        copy(client, request, mirror);
        request.end_mirror();
    }
}

/// The request is over, whatever has come of its body.
#[inline]
pub(super) fn end(request: &mut Request) {
    if request.mirror.take().is_some() {
        request.view.services[request.service].counters.mirror_left_out.increment();
    }
}

/// Sends a copy, or counts that it cannot be made: its body is too long, or too many are under way.
fn copy(client: &Client, request: &Request, mirror: Mirror) {
    let worker = &client.open.worker;
    let counters = &request.view.services[request.service].counters;
    if !request.is_copyable() || worker.mirroring.get() >= COPIES_MAX {
        counters.mirror_left_out.increment();
        return;
    }
    counters.mirrored.increment();
    worker.mirroring.set(worker.mirroring.get() + 1);
    let copying = Copying(Rc::clone(worker));
    // The mirror is one of the version that the request was routed by.
    let view = Rc::clone(&request.routed_by);
    let hash = request.hash.unwrap_or_else(|| worker.random());
    let copied = request.copied(view.services[mirror.service].service.config.protocol);
    let copy = async move { run(&copying.0, &view, mirror.service, hash, &copied).await };
    worker.spawn("a copy of a request", async move {
        // No task waits for the outcome.
        let _ = copy.await;
    });
}

async fn run(worker: &Rc<Worker>, view: &Rc<View>, service: usize, hash: u64, copied: &Copied) -> Option<Ended> {
    let mut selection = view.services[service].service.backend_set.begin(context(worker, hash));
    let guard = search::acquire_now(view, service, &mut selection, worker.index)?;
    Some(send(worker, (view, service), (guard, selection), copied).await)
}

/// What became of a copy.
pub(super) enum Ended {
    /// A response of this status came whole.
    Whole(u16),
    /// Its time was up in the midst of a response of this status.
    Late(u16),
    /// There is none, or it broke off.
    Broken,
}

/// What a copy brings to the choice of its backend.
pub(super) fn context(worker: &Worker, hash: u64) -> PickContext {
    PickContext { hash, chance: hash, now_millis: worker.millis(), owners: 0 }
}

/// Sends a copy to the backend of a reservation, and reads the response to its end.
pub(super) async fn send(
    worker: &Rc<Worker>,
    (view, service): (&Rc<View>, usize),
    (mut guard, mut selection): (InFlight, Selection),
    copied: &Copied,
) -> Ended {
    let this = &view.services[service];
    // A copy makes no key hot: it is no client's.
    guard.begin_try(ambient::now(), None);
    let upstream = &this.upstreams[guard.index()];
    let timer = worker.timer();
    let timeouts = &this.service.config.timeouts;
    let limit = timer.deadline(timeouts.connect + timeouts.response);
    let reach = Connector { worker, service: this, slot: guard.slot, peer: None, limit, timer: &timer };
    let connection = match reach.connection(false, true).await {
        Ok(connection) => connection,
        // Nothing was tried.
        Err(ProxyError::ConnectionLimit) => {
            guard.pass_by(&mut selection, true);
            return Ended::Broken;
        }
        Err(error) => {
            guard.report_error(error);
            return Ended::Broken;
        }
    };
    upstream.counters.requests.increment();
    timer.set_before(timeouts.response, limit);
    let attempt = Attempt::begin(connection, Clock::stopped(), worker);
    let mut copy = Copy { attempt, sent: 0, status: None, keep_alive: false };
    let mut is_late = false;
    let whole = poll_fn(|context| {
        is_late = timer.poll_fired(context);
        if is_late {
            return Poll::Ready(None);
        }
        copy.poll(copied, worker, context)
    })
    .await;
    let Copy { mut attempt, keep_alive, status, .. } = copy;
    guard.handle_class(status.map_or(0, class_of));
    let keeps = keep_alive && whole.is_some() && this.service.config.proxy_protocol.is_none();
    if let BackendEnd::Http1(http1) = &mut attempt.end {
        let input = std::mem::take(&mut http1.input);
        let keeps = keeps && input.is_empty();
        worker.buffers.give(input);
        attempt.give_back(keeps, upstream, &this.service.config.pool, worker);
    }
    match status {
        Some(status) if whole.is_some() => Ended::Whole(status),
        Some(status) if is_late => Ended::Late(status),
        _ => Ended::Broken,
    }
}

/// A copy under way.
struct Copy {
    attempt: Attempt,
    sent: usize,
    /// Of the response, once its head has come.
    status: Option<u16>,
    keep_alive: bool,
}

impl Copy {
    /// Sends the request and discards the response. `None`: it broke off.
    fn poll(&mut self, copied: &Copied, worker: &Worker, context: &mut Context<'_>) -> Poll<Option<()>> {
        let Self { attempt, sent, status, keep_alive } = self;
        let sending = copied.poll_send(&mut attempt.end, sent, &mut worker.scratch.borrow_mut().block, context);
        if ready!(sending) == Err(Gone) {
            return Poll::Ready(None);
        }
        attempt.end.poll_drive(context);
        if status.is_none() {
            let Ok((found, _)) = ready!(attempt.poll_final_head(copied.method, worker, context)) else {
                return Poll::Ready(None);
            };
            (*status, *keep_alive) = (Some(found), attempt.pass_head(copied.method));
        }
        let mut sink = Vec::new();
        loop {
            sink.clear();
            if attempt.end.transfer(&mut sink, Encoding::Identity, |_| true).is_err() {
                return Poll::Ready(None);
            }
            if attempt.end.is_over() {
                return Poll::Ready(Some(()));
            }
            if ready!(attempt.poll_read(true, Part::Head, worker, context)).is_err() {
                // The end of the connection may be that of the body.
                let is_end = matches!(&attempt.end, BackendEnd::Http1(http1) if http1.body == Body::UntilClose);
                return Poll::Ready(is_end.then_some(()));
            }
        }
    }
}
