//! A flow on its way back: the backend's datagrams to the client, until the flow ends.

use super::front::{BATCH, Front};
use crate::ambient;
use crate::error::ProxyError;
use crate::exchange::tapped::Routing;
use crate::l4::flows::Flow;
use crate::net::quic_ids;
use crate::routing::hash_key;
use crate::routing::rate_limit::Admission;
use crate::upstream::in_flight::InFlight;
use crate::worker::{OpenConnection, View};
use ringway_config::model::QuicIds;
use ringway_ring::Selection;
use ringway_telemetry::access::{Field, More, Value};
use ringway_telemetry::counters::SESSION;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Instant;
use tokio::io::Interest;

/// What a flow's task waits for. An ICMP error makes a socket erroneous, not readable: a task that does not wait for errors sees it
/// only with the client's next datagram, and many clients send one only.
const NEWS: Interest = Interest::READABLE.add(Interest::ERROR);

/// Values that a flow holds for as long as it lives.
pub(super) struct Started {
    pub(super) open: OpenConnection,
    pub(super) view: Rc<View>,
    pub(super) service: usize,
    pub(super) guard: InFlight,
    pub(super) _admission: Option<Admission>,
    pub(super) selection: Selection,
    pub(super) hash: Option<u64>,
    pub(super) at: Instant,
}

/// Forwards the backend's datagrams to the client, until the flow ends.
pub(super) async fn answer(front: Rc<Front>, flow: Rc<Flow>, mut started: Started) {
    let reason = pass_answers(&flow, &front, &started).await;
    front.flows.borrow_mut().remove(&flow);
    let this = &started.view.services[started.service];
    if flow.refused.get() {
        front.worker.shared.counters.error(&this.service.config.name, reason);
        // A datagram cannot be retried elsewhere: each further one to that backend would be lost as well, so this counts as a
        // connect failure does, and ejects as fast.
        started.guard.report_error(ProxyError::ConnectTimeout);
    } else if flow.down.get() > 0 {
        started.guard.report(ringway_health::Outcome::Success);
    }
    // A flow that was refused has not been served.
    let class = if flow.refused.get() { 0 } else { SESSION };
    this.counters.requests[class].increment();
    started.guard.handle_class(class);
    started.open.active_listener.counters.count(class, flow.up.get(), flow.down.get());
    this.counters.durations.record(ambient::since(started.at));
    if let Some(tapped) = flow.tapped.take() {
        let routing =
            Routing::of(&started.view, started.service, started.hash, &started.selection, Some(started.guard.index()));
        if flow.refused.get() {
            tapped.handle_connected(Some(reason));
        }
        let (received_bytes, sent_bytes) = (flow.up.get(), flow.down.get());
        tapped.end(&Routing { received_bytes, sent_bytes, ..routing }, reason, class > 0);
    }
    log(&started, &flow, reason);
}

/// Ends when the flow is over; returns why.
async fn pass_answers(flow: &Rc<Flow>, front: &Front, started: &Started) -> &'static str {
    loop {
        let mut news = pin!(flow.upstream.ready(NEWS));
        let over = poll_fn(|context| {
            if let Some(reason) = flow.end() {
                return Poll::Ready(Some(reason));
            }
            if let Poll::Ready(news) = news.as_mut().poll(context) {
                // Without a runtime nothing more can come.
                return Poll::Ready(news.is_err().then_some("ended"));
            }
            if flow.timer.poll_fired(context) {
                return Poll::Ready(Some("idle"));
            }
            flow.waker.set(Some(context.waker().clone()));
            Poll::Pending
        });
        if let Some(reason) = over.await {
            return reason;
        }
        for _ in 0..BATCH {
            let mut buffer = front.buffer.borrow_mut();
            match flow.receive(&mut buffer) {
                Ok(count) => pass(flow, front, started, &buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The next look shows whether it was the end.
                Err(_) if flow.refused.get() => break,
                Err(_) => {}
            }
        }
        // More may be waiting: other tasks have their turn first.
        tokio::task::yield_now().await;
    }
}

/// One datagram from the backend, to the client.
fn pass(flow: &Rc<Flow>, front: &Front, started: &Started, datagram: &[u8]) {
    if let Some(quic) = flow.quic {
        learn(flow, front, started, quic, datagram);
    }
    if flow.down.get() == 0
        && let Some(tapped) = &*flow.tapped.borrow()
    {
        tapped.handle_response();
    }
    if front.send(flow.path, datagram).is_ok() {
        flow.down.set(flow.down.get() + datagram.len() as u64);
        front.worker.counters.sent_bytes.add(datagram.len() as u64);
        flow.tell();
    }
    flow.timer.set(flow.idle);
}

/// Remembers the id that a backend has issued: its client will use it, from whatever address.
fn learn(flow: &Rc<Flow>, front: &Front, started: &Started, quic: QuicIds, datagram: &[u8]) {
    let Some(id) = quic_ids::source(datagram) else { return };
    if front.flows.borrow_mut().learn(flow, id) {
        let ids = &started.view.services[started.service].service.live.quic_ids;
        ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&flow.backend), quic.ids_max);
    }
}

fn log(started: &Started, flow: &Flow, reason: &str) {
    let worker = &started.open.worker;
    let elapsed = ambient::since(started.at);
    if !worker.wants_line(0, elapsed) {
        return;
    }
    let service = &started.view.services[started.service].service;
    let id = |index: usize| Value::Word(&service.backends[index].config.id);
    let owner = started.hash.and(started.selection.owner());
    let mut hash_text = [0; 16];
    let listener = started.open.active_listener.name();
    let peer = flow.path.client.ip().to_canonical().to_string();
    let pairs = [
        (Field::TIME_MS, Value::Number(ambient::unix_millis())),
        (Field::CLIENT, Value::Word(&peer)),
        (Field::LISTENER, Value::Word(&listener)),
        (Field::REASON, Value::Word(reason)),
        (Field::SERVICE, Value::Word(&service.config.name)),
        (Field::KEY_HASH, started.hash.map_or(Value::Nothing, |hash| Value::Word(hash_key::hex(hash, &mut hash_text)))),
        (Field::OWNER, owner.map_or(Value::Nothing, |slot| id(usize::from(slot.0)))),
        (Field::BACKEND, id(started.guard.index())),
        (Field::GENERATION, Value::Number(started.view.snapshot.generation)),
        (Field::RECEIVED_BYTES, Value::Number(flow.up.get())),
        (Field::SENT_BYTES, Value::Number(flow.down.get())),
        (Field::DURATION_US, Value::Number(elapsed.as_micros() as u64)),
    ];
    let more = || More {
        fields: [
            (Field::PEER, Value::Word(&peer)),
            (Field::PROTOCOL, Value::Word("UDP")),
            (Field::ROUTE, Value::Nothing),
            (Field::TRIES, Value::Number(1)),
            (Field::TLS_VERSION, Value::Nothing),
            (Field::TLS_CIPHER, Value::Nothing),
            (Field::SNI, Value::Nothing),
        ],
        head: &[],
    };
    worker.log(|log| log.line(pairs, more));
}
