//! Copies of requests for another service: sent, read to their end, forgotten.

use crate::end::{BackendEnd, Gone, Http1, Source};
use crate::http::Client;
use crate::inflight;
use crate::request::{Copied, Request};
use crate::tunnel::Duplex;
use crate::upstream::{Connection, Reach};
use crate::worker::{View, Worker};
use ringway_config::model::Mirror;
use ringway_http1::{Body, Encoding, parse_response};
use ringway_message::{Limits, Method, ResponseHead};
use ringway_ring::Ask;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Copies under way at once, per worker: more are not made.
const COPIES_MAX: usize = 256;
const LIMITS: Limits = Limits { head_bytes_max: 64 * 1024, fields_max: 256 };

/// Counts a copy for as long as it lives.
struct Copying(Rc<Worker>);

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.mirroring.set(self.0.mirroring.get() - 1);
    }
}

/// Sends a copy, if this request is one of those that are copied.
pub(crate) fn copy(client: &Client, request: &Request, mirror: Mirror) {
    let worker = &client.open.worker;
    let chosen = mirror.percent >= 100 || worker.random() % 100 < u64::from(mirror.percent);
    // Only what is all there already can be told twice.
    if !chosen || !request.replayable || !client.end.is_finished() || request.upgrade {
        return;
    }
    if worker.mirroring.get() >= COPIES_MAX {
        return;
    }
    worker.mirroring.set(worker.mirroring.get() + 1);
    let copying = Copying(Rc::clone(worker));
    let view = Rc::clone(&request.view);
    let hash = request.hash.unwrap_or_else(|| worker.random());
    let copied = request.copied(view.services[mirror.service].service.config.protocol);
    let copy = async move { run(&copying.0, &view, mirror.service, hash, &copied).await };
    worker.spawn("a copy of a request", async move {
        // Nobody waits for what came of it.
        let _ = copy.await;
    });
}

async fn run(worker: &Rc<Worker>, view: &Rc<View>, service: usize, hash: u64, copied: &Copied) -> Option<()> {
    let this = &view.services[service];
    let ask = Ask { hash, chance: hash, now_millis: worker.millis(), owners: 0 };
    let mut selection = this.service.group.begin(ask);
    let guard = inflight::acquire_now(view, service, &mut selection, worker.index)?;
    let upstream = &this.upstreams[guard.index()];
    let timer = worker.timer();
    let timeouts = &this.service.config.timeouts;
    let limit = timer.deadline(timeouts.connect + timeouts.response);
    let reach = Reach { worker, service: this, slot: guard.slot, peer: None, limit, timer: &timer };
    let mut connection = match reach.connection(false, true).await {
        Ok(connection) => connection,
        Err(error) => {
            guard.report_error(error);
            return None;
        }
    };
    upstream.cells.requests.increment();
    timer.set_before(timeouts.response, limit);
    let mut exchange = Exchange { connection: &mut connection, sent: 0, answered: false, keep_alive: false };
    let whole = poll_fn(|context| {
        if timer.poll_fired(context) {
            return Poll::Ready(None);
        }
        exchange.poll(copied, worker, context)
    })
    .await;
    let keep_alive = exchange.keep_alive && whole.is_some();
    let Connection { end: BackendEnd::Http1(Http1 { stream, input, .. }), slot, .. } = connection else { return whole };
    let clean = input.is_empty();
    worker.buffers.give(input);
    if let (true, Some(slot), None) = (keep_alive && clean, slot, this.service.config.proxy_protocol) {
        let pool = &this.service.config.pool;
        upstream.pool.put(stream, slot, pool.idle_max, worker.timers.now(), &worker.cells);
    }
    whole
}

struct Exchange<'a> {
    connection: &'a mut Connection,
    sent: usize,
    /// The answer's head has come.
    answered: bool,
    keep_alive: bool,
}

impl Exchange<'_> {
    /// Sends the request and reads the answer away. `None`: it broke off.
    fn poll(&mut self, copied: &Copied, worker: &Worker, context: &mut Context<'_>) -> Poll<Option<()>> {
        let end = &mut self.connection.end;
        {
            let block = &mut worker.scratch.borrow_mut().block;
            match ready!(copied.poll_send(end, &mut self.sent, block, context)) {
                Ok(()) => {}
                Err(Gone) => return Poll::Ready(None),
            }
        }
        end.poll_drive(context);
        let mut sink = Vec::new();
        loop {
            if self.answered {
                sink.clear();
                if end.transfer(&mut sink, Encoding::Identity, |_| true).is_err() {
                    return Poll::Ready(None);
                }
                if end.is_over() {
                    return Poll::Ready(Some(()));
                }
            }
            match end {
                BackendEnd::Http2(upstream) if !self.answered => match ready!(upstream.poll_head(context)) {
                    Ok(()) => {
                        let (head, arena) = upstream.lend_head();
                        self.answered = !head.is_interim();
                        upstream.return_head((head, arena), true);
                    }
                    Err(_) => return Poll::Ready(None),
                },
                BackendEnd::Http2(upstream) => match ready!(upstream.poll_more(context)) {
                    Ok(()) => {}
                    Err(_) => return Poll::Ready(None),
                },
                BackendEnd::Http1(http1) => {
                    if !http1.input.is_allocated() {
                        http1.input = worker.buffers.take();
                    }
                    match ready!(http1.input.poll_read(&mut http1.stream, LIMITS.head_bytes_max + 1, context)) {
                        Ok(1..) => {}
                        // The end of the connection may be that of the body.
                        Ok(0) => return Poll::Ready((self.answered && http1.body == Body::UntilClose).then_some(())),
                        Err(_) => return Poll::Ready(None),
                    }
                    if !self.answered {
                        match take_head(http1, copied.method, &mut self.keep_alive) {
                            Some(whole) => self.answered = whole,
                            None => return Poll::Ready(None),
                        }
                    }
                }
                BackendEnd::Returned => return Poll::Ready(None),
            }
        }
    }
}

/// `Some(true)`: the head was there, and is taken. `None`: it is malformed.
fn take_head(http1: &mut Http1, method: Method, keep_alive: &mut bool) -> Option<bool> {
    let mut head = ResponseHead::default();
    loop {
        match parse_response(http1.input.bytes(), &LIMITS, method, false, &mut head) {
            Ok(true) => {}
            Ok(false) => return Some(false),
            Err(_) => return None,
        }
        http1.input.consume(head.head_len);
        if !head.is_interim() {
            break;
        }
    }
    *keep_alive = head.keep_alive;
    http1.body = head.body.into();
    Some(true)
}
