//! Hand-off of keys: a request whose key a change under way has moved goes to the backend that has had it, once more, while a copy goes to the
//! next one; or to the next one, which is told who had it.

use super::client::Client;
use super::mirror;
use super::request::{Copied, Handed, HandedOutcome, Request};
use crate::codec::source::Source;
use crate::snapshot::ServiceLive;
use crate::snapshot::connections::add_below;
use crate::snapshot::handoff::{Moving, Window};
use crate::upstream::in_flight::InFlight;
use crate::upstream::search;
use crate::worker::Worker;
use ringway_config::model::SafeMethod;
use ringway_message::Method;
use ringway_ring::{HandoffTurn, Hash, Selection, Slot, is_copied};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Counts a copy for as long as it lives.
struct Copying(Arc<ServiceLive>);

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.handoff_copies.fetch_sub(1, Relaxed);
    }
}

/// A copy that may go: its place on the next owner, and among all copies.
struct Ready {
    copying: Copying,
    guard: InFlight,
    selection: Selection,
    copied: Copied,
}

/// Decides who serves a request, while keys are being handed over. Gives a reservation, where that is the previous owner.
#[cold]
pub(super) fn begin(client: &Client, request: &mut Request) -> Option<InFlight> {
    let view = Rc::clone(&request.view);
    let service = &view.services[request.service].service;
    // Hot keys have several owners, and cookies their own backends.
    let hash = request.key().filter(|_| !request.selection.is_hot() && service.config.affinity_cookie.is_none())?;
    let moving = service.handoff.look(hash, request.started)?;
    if !service.may_ask_again(moving.previous.0) {
        service.handoff.handle_lost(moving.previous.0);
        return None;
    }
    // What it sheds, or a ramp keeps from it, goes by the new order; and so does what the next owner does not take yet.
    let accepts = |slot: Slot| service.backend_set.accepts(slot, hash);
    if !accepts(moving.next) || !service.leaves(moving.previous.0) && !accepts(moving.previous.0) {
        return None;
    }
    let (outcome, guard) = match (moving.turn, &moving.window) {
        (HandoffTurn::Next, _) | (HandoffTurn::First, None) => (HandedOutcome::Moved, None),
        (HandoffTurn::Previous, _) => match previous(client, request, &moving) {
            Some(guard) => (HandedOutcome::Previous, Some(guard)),
            None => (HandedOutcome::Moved, None),
        },
        (HandoffTurn::First, Some(window)) => first(client, request, hash, &moving, window),
    };
    let counters = &view.services[request.service].counters;
    match outcome {
        HandedOutcome::Previous => counters.handoff_previous.increment(),
        HandedOutcome::Copied => counters.handoff_copies.increment(),
        // Counted once it has got there.
        HandedOutcome::Moved => {}
    }
    request.handed = Some(Box::new(Handed::new(&view, (moving.previous.0, moving.next), outcome)));
    guard
}

/// A try begins on a backend: whether it is told of a previous owner.
#[cold]
pub(super) fn begin_try(request: &mut Request, backend: Slot) {
    if request.tell_previous(backend) && request.report.retries == 0 {
        request.view.services[request.service].counters.handoff_moved.increment();
    }
}

fn previous(client: &Client, request: &mut Request, moving: &Moving) -> Option<InFlight> {
    let Request { view, service, selection, .. } = request;
    search::acquire_handed(view, *service, selection, (moving.previous, moving.next), client.open.worker.index)
}

/// The first request of a key that may be handed over.
fn first(
    client: &Client,
    request: &mut Request,
    hash: Hash,
    moving: &Moving,
    window: &Window,
) -> (HandedOutcome, Option<InFlight>) {
    let this = Rc::clone(&request.view.services[request.service]);
    let config = &this.service.config;
    match kind_of(client, request) {
        Kind::Copied => {}
        // It brings the next owner nothing: whoever can answer it from memory does.
        Kind::Read => {
            return match previous(client, request, moving) {
                Some(guard) => (HandedOutcome::Previous, Some(guard)),
                None => (HandedOutcome::Moved, None),
            };
        }
        // What it changes is known there from now on, and must not be asked of the previous owner again.
        Kind::Alone => {
            window.hand_over(hash);
            return (HandedOutcome::Moved, None);
        }
    }
    if !config.handoff.as_ref().is_some_and(|handoff| is_copied(hash, handoff.copy.percent)) {
        window.hand_over(hash);
        return (HandedOutcome::Moved, None);
    }
    let worker = &client.open.worker;
    let Some(ready) = prepare_copy(worker, request, hash, moving) else {
        this.counters.handoff_copies_refused.increment();
        return match previous(client, request, moving) {
            Some(guard) => (HandedOutcome::Previous, Some(guard)),
            None => (HandedOutcome::Moved, None),
        };
    };
    // Another request may have been faster; and where the previous owner is full, this one brings the next what it needs.
    if !window.hand_over(hash) {
        return (HandedOutcome::Moved, None);
    }
    let Some(guard) = previous(client, request, moving) else { return (HandedOutcome::Moved, None) };
    send(worker, request, ready);
    (HandedOutcome::Copied, Some(guard))
}

/// What a request can do for the next owner of its key.
enum Kind {
    /// A copy of it makes it remember what the previous one does.
    Copied,
    /// It changes nothing, but there are no copies of it.
    Read,
    /// It may change something, or says who asks: it is not sent twice, and the key's time has come.
    Alone,
}

/// A request is copied if it changes nothing, all of it is here, and it says of nobody that he has asked.
fn kind_of(client: &Client, request: &Request) -> Kind {
    let Some(handoff) = &request.view.services[request.service].service.config.handoff else { return Kind::Alone };
    let has_body = request.out.len() > request.head_len || !client.end.is_finished();
    let method = match request.method {
        Method::Get => SafeMethod::Get,
        Method::Head => SafeMethod::Head,
        Method::Options => SafeMethod::Options,
        _ => return Kind::Alone,
    };
    if has_body || request.upgrade || !handoff.copy.credentials && request.has_credentials() {
        return Kind::Alone;
    }
    if handoff.copy.methods.contains(&method) { Kind::Copied } else { Kind::Read }
}

/// A copy, if there is a place for it. The backend that it goes to takes new keys: one that does not gets none.
fn prepare_copy(worker: &Rc<Worker>, request: &Request, hash: Hash, moving: &Moving) -> Option<Ready> {
    let service = &request.view.services[request.service].service;
    let most = service.config.handoff.as_ref()?.copy.in_flight_max;
    let load = &service.backends[usize::from(moving.next.0)].state.load;
    if load.is_doubted() || load.active_fraction() == 0 || !add_below(&service.live.handoff_copies, most) {
        return None;
    }
    let copying = Copying(Arc::clone(&service.live));
    let mut selection = service.backend_set.begin(mirror::context(worker, hash));
    let next = ((moving.next, 0), moving.next);
    let guard = search::acquire_handed(&request.view, request.service, &mut selection, next, worker.index)?;
    let copied = request.copied_for(moving.next, moving.previous.0)?;
    Some(Ready { copying, guard, selection, copied })
}

fn send(worker: &Rc<Worker>, request: &Request, ready: Ready) {
    let (sender, view, service) = (Rc::clone(worker), Rc::clone(&request.view), request.service);
    worker.spawn("a copy of a request for the next owner of its key", async move {
        let Ready { copying, guard, selection, copied } = ready;
        // No task waits for the outcome.
        let _ = mirror::send(&sender, (&view, service), (guard, selection), &copied).await;
        drop(copying);
    });
}
