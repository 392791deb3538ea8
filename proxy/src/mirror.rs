//! Copies of requests for another service: sent, read to their end, forgotten.

use crate::buffers::Buffer;
use crate::http::Client;
use crate::inflight;
use crate::request::Request;
use crate::upstream::{Connection, Reach};
use crate::worker::{View, Worker};
use ringway_config::model::Mirror;
use ringway_http1::{Body, Encoding, Limits, Method, ResponseHead, parse_response};
use ringway_ring::Ask;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use tokio::io::AsyncWrite;

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
    if !chosen || !request.replayable || !request.body.is_end() || request.upgrade {
        return;
    }
    if worker.mirroring.get() >= COPIES_MAX {
        return;
    }
    worker.mirroring.set(worker.mirroring.get() + 1);
    let copying = Copying(Rc::clone(worker));
    let (view, method) = (Rc::clone(&request.view), request.method);
    let hash = request.hash.unwrap_or_else(|| worker.random());
    let bytes = request.out.clone();
    let copy = async move { run(&copying.0, &view, mirror.service, hash, &bytes, method).await };
    worker.spawn("a copy of a request", async move {
        // Nobody waits for what came of it.
        let _ = copy.await;
    });
}

async fn run(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    service: usize,
    hash: u64,
    bytes: &[u8],
    method: Method,
) -> Option<()> {
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
    let mut exchange = Exchange { connection: &mut connection, sent: 0, body: None, keep_alive: false };
    let whole = poll_fn(|context| {
        if timer.poll_fired(context) {
            return Poll::Ready(None);
        }
        exchange.poll(bytes, method, worker, context)
    })
    .await;
    let keep_alive = exchange.keep_alive && whole.is_some();
    let Connection { stream, slot, input, .. } = connection;
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
    body: Option<Body>,
    keep_alive: bool,
}

impl Exchange<'_> {
    /// Sends the request and reads the answer away. `None`: it broke off.
    fn poll(
        &mut self,
        bytes: &[u8],
        method: Method,
        worker: &Worker,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<()>> {
        let Connection { stream, input, .. } = self.connection;
        while self.sent < bytes.len() {
            match Pin::new(&mut *stream).poll_write(context, &bytes[self.sent..]) {
                Poll::Ready(Ok(count @ 1..)) => self.sent += count,
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        stream.poll_drive(context);
        loop {
            if !input.is_allocated() {
                *input = worker.buffers.take();
            }
            match input.poll_read(stream, LIMITS.head_bytes_max + 1, context) {
                Poll::Ready(Ok(1..)) => {}
                // The end of the connection may be that of the body.
                Poll::Ready(Ok(0)) => return Poll::Ready(matches!(self.body, Some(Body::UntilClose)).then_some(())),
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
            if self.body.is_none() {
                match take_head(input, method, &mut self.body, &mut self.keep_alive) {
                    Some(true) => {}
                    Some(false) => continue,
                    None => return Poll::Ready(None),
                }
            }
            let Some(body) = &mut self.body else { continue };
            let mut sink = Vec::new();
            let Ok(progress) = body.transfer(input.bytes(), &mut sink, Encoding::Identity) else {
                return Poll::Ready(None);
            };
            input.consume(progress.consumed);
            if body.is_end() {
                return Poll::Ready(Some(()));
            }
        }
    }
}

/// `Some(true)`: the head was there, and is taken. `None`: it is malformed.
fn take_head(input: &mut Buffer, method: Method, body: &mut Option<Body>, keep_alive: &mut bool) -> Option<bool> {
    let mut head = ResponseHead::default();
    loop {
        match parse_response(input.bytes(), &LIMITS, method, false, &mut head) {
            Ok(true) => {}
            Ok(false) => return Some(false),
            Err(_) => return None,
        }
        input.consume(head.head_len);
        if !head.is_interim() {
            break;
        }
    }
    *keep_alive = head.keep_alive;
    *body = Some(head.body.into());
    Some(true)
}
