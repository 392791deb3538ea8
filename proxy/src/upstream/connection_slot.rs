//! Permission for one more connection to a backend, and how an idle one gives way to it.
//!
//! Over HTTP/1.1 and TCP a request in flight is a connection in use: the limit bounds reservations, as `requests_max` does (see
//! [`places`](crate::snapshot::connections::places) and [`crate::upstream::in_flight`]). A request that has a reservation, and finds no
//! idle connection with its own worker, opens one; if that is one too many, then because another is idle with another worker. That one
//! gives way. Over HTTP/2 connections are shared, and a worker may have none while others use all there may be: then the backend is
//! full for it, as if no reservation were free. One that takes no more requests, and ends with those that it
//! carries, is waited for. What is being opened before a request needs it gives way as an idle one does.

use crate::dispatcher::Command;
use crate::error::ProxyError;
use crate::net::timer::{Deadline, Timer};
use crate::snapshot::Service;
use crate::snapshot::connection_slot::{ConnectionSlot, Wanted, Wanting};
use crate::worker::Worker;
use ringway_config::model::UpstreamProtocol;
use ringway_ring::Slot;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;
use std::task::Poll;

/// How often idle connections may be asked to give way for one request, when others take the freed slots.
const ROUNDS_MAX: u32 = 32;

/// Permission for one more connection to a backend; idle ones give way to it.
///
/// # Errors
/// [`ProxyError::ConnectionLimit`]: as many as allowed are in use.
pub(crate) async fn slot(
    service: &Service,
    slot: Slot,
    worker: &Rc<Worker>,
    timer: &Timer,
    limit: Deadline,
) -> Result<ConnectionSlot, ProxyError> {
    match ConnectionSlot::take(service, slot) {
        Some(taken) => Ok(taken),
        None => wait_for_slot(service, slot, worker, timer, limit).await,
    }
}

#[cold]
async fn wait_for_slot(
    service: &Service,
    slot: Slot,
    worker: &Rc<Worker>,
    timer: &Timer,
    limit: Deadline,
) -> Result<ConnectionSlot, ProxyError> {
    let connections = &service.live.connections;
    let _wanting = Wanting::begin(connections);
    let is_shared = service.config.protocol == UpstreamProtocol::H2;
    timer.set_before(service.config.timeouts.connect, limit);
    for _ in 0..ROUNDS_MAX {
        let wanted = Arc::new(Wanted::new(service, slot, worker.shared.workers.saturating_sub(1)));
        let (service_name, backend) = wanted.names();
        let own = worker.close_idle(service_name, backend);
        if !own {
            worker.ask_others(|| Command::GiveWay(Arc::clone(&wanted)));
        }
        loop {
            let (mut closed, mut answered) = (pin!(connections.closed()), pin!(wanted.answered()));
            // Registered before the check, so that no change between the two is missed.
            closed.as_mut().enable();
            answered.as_mut().enable();
            fence(SeqCst);
            // Before the check as well, so that what other workers did before they replied is seen.
            let none_is_idle = !own && wanted.is_refused();
            let awaits_others = none_is_idle && (connections.is_opening_ahead() || wanted.has_ending());
            if let Some(taken) = ConnectionSlot::take(service, slot) {
                return Ok(taken);
            }
            if none_is_idle && !awaits_others {
                return Err(ProxyError::ConnectionLimit);
            }
            // An idle connection has closed by now, and another request has taken its slot: the next one is asked for.
            if !is_shared && (own || wanted.is_given()) {
                break;
            }
            let woken = poll_fn(|context| match closed.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(true)),
                Poll::Pending if answered.as_mut().poll(context).is_ready() => Poll::Ready(Some(false)),
                Poll::Pending if timer.poll_fired(context) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            let was_closed = woken.await.ok_or(ProxyError::ConnectionLimit)?;
            if let Some(taken) = ConnectionSlot::take(service, slot) {
                return Ok(taken);
            }
            // The freed slot has gone to another request: the next one is asked for.
            if was_closed && (own || wanted.is_given() || awaits_others) {
                break;
            }
        }
    }
    Err(ProxyError::ConnectionLimit)
}
