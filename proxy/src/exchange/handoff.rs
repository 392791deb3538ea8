//! Hand-off of keys: a request whose key a change under way has moved goes to the backend that has had it, once more, while a copy goes to the
//! next one; or to the next one, which is told who had it. What becomes of it is decided in the ring's crate; here are the places.

use super::client::Client;
use super::mirror::{self, Ended};
use super::request::{Copied, Handed, Request};
use crate::ambient;
use crate::codec::source::Source;
use crate::planted::{self, Fault};
use crate::snapshot::ServiceLive;
use crate::snapshot::connections::{add_below, copies_max};
use crate::snapshot::handoff::Moving;
use crate::snapshot::handoff_copy::{ChangeOfKey, CopyOfKey};
use crate::snapshot::handoff_request::Asked;
use crate::upstream::in_flight::InFlight;
use crate::upstream::search;
use crate::worker::Worker;
use ringway_ring::{
    CopyPlace, HandoffDecision, HandoffFacts, HandoffRequest, HandoffTurn, HandoffWay, Hash, PreviousOwner, Selection,
    Slot,
};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Counts a copy for as long as it lives.
struct Copying(Arc<ServiceLive>);

impl Drop for Copying {
    fn drop(&mut self) {
        if !planted::is_planted(Fault::HandoffCopyLeaked) {
            self.0.handoff_copies.fetch_sub(1, Relaxed);
        }
    }
}

/// A copy that may go: its place on the next owner, among all copies, and among those of its key.
struct Ready {
    copying: Copying,
    of_key: CopyOfKey,
    guard: InFlight,
    selection: Selection,
    copied: Copied,
}

/// Of a request, and the places that it gets.
struct Facts<'a> {
    client: &'a Client,
    request: &'a mut Request,
    hash: Hash,
    moving: &'a Moving,
    asked: Asked,
    ready: Option<Ready>,
    guard: Option<InFlight>,
}

impl HandoffFacts for Facts<'_> {
    fn previous(&mut self) -> PreviousOwner {
        let service = &self.request.view.services[self.request.service].service;
        service.previous_owner(self.moving.previous.0, self.hash)
    }

    fn next_takes(&mut self) -> bool {
        let service = &self.request.view.services[self.request.service].service;
        service.backend_set.accepts(self.moving.next, self.hash)
    }

    fn request(&mut self) -> HandoffRequest {
        let Request { view, service, .. } = &*self.request;
        let Some(handoff) = &view.services[*service].service.config.handoff else { return HandoffRequest::Alone };
        self.asked.of_key(self.hash, handoff)
    }

    fn is_changing(&mut self) -> bool {
        let live = &self.request.view.services[self.request.service].service.live;
        ChangeOfKey::count(live, self.hash) > u32::from(self.asked.is_change())
    }

    fn reserve_copy(&mut self) -> CopyPlace {
        let Some(window) = &self.moving.window else { return CopyPlace::Full };
        let of_key = match CopyOfKey::begin(window, self.hash, self.request.started) {
            Ok(of_key) => of_key,
            Err(why) => return why,
        };
        // A change that has begun since would not see the copy.
        if self.is_changing() {
            return CopyPlace::UnderWay;
        }
        self.ready = prepare_copy(&self.client.open.worker, self.request, (self.hash, of_key), self.moving);
        if self.ready.is_some() { CopyPlace::Reserved } else { CopyPlace::Full }
    }

    fn reserve_previous(&mut self) -> bool {
        let Request { view, service, selection, .. } = &mut *self.request;
        let (owners, shard) = ((self.moving.previous, self.moving.next), self.client.open.worker.index);
        self.guard = search::acquire_handed(view, *service, selection, owners, shard);
        self.guard.is_some()
    }
}

/// Decides who serves a request, while keys are being handed over. Gives a reservation, where that is the previous owner.
#[cold]
pub(super) fn begin(client: &Client, request: &mut Request) -> Option<InFlight> {
    let view = Rc::clone(&request.view);
    let this = &view.services[request.service];
    let handoff = &this.service.handoff;
    // Hot keys have several owners, and cookies their own backends.
    let no_cookies = this.service.config.affinity_cookie.is_none();
    let hash = request.key().filter(|_| !request.selection.is_hot() && no_cookies)?;
    let asked = asked(client, request);
    let is_change = asked.is_change();
    // Told before it is looked where the key is: no copy of it begins from here on.
    let change = is_change.then(|| ChangeOfKey::begin(&this.service.live, hash));
    let mut moving = handoff.look(hash, request.started, is_change)?;
    let is_copying = || moving.window.as_ref().is_some_and(|window| window.is_copying(hash));
    if is_change && moving.turn == HandoffTurn::Previous && is_copying() {
        // A later one has found that its time has come.
        moving.turn = HandoffTurn::First;
    }
    let mut facts = Facts { client, request, hash, moving: &moving, asked, ready: None, guard: None };
    let decision = HandoffDecision::of(moving.turn, &mut facts);
    let Facts { request, ready, guard, .. } = facts;
    match decision {
        HandoffDecision::PreviousLost => handoff.handle_lost(moving.previous.0),
        HandoffDecision::NoPlaceForCopy => this.counters.handoff_copies_refused.increment(),
        HandoffDecision::PreviousFull => request.selection.handle_spill(),
        _ => {}
    }
    if let Some(window) = moving.window.as_ref().filter(|_| decision.hands_over()) {
        window.hand_over(hash);
    }
    match (decision.way(), ready) {
        (HandoffWay::Sequence, _) => return None,
        (HandoffWay::Copied, Some(ready)) => {
            this.counters.handoff_copies.increment();
            send(&client.open.worker, request, ready);
        }
        (HandoffWay::Previous, _) => this.counters.handoff_previous.increment(),
        // Counted once it has got there.
        (HandoffWay::Next | HandoffWay::Copied, _) => {}
    }
    let mut handed = Handed::new(&view, (moving.previous.0, moving.next), decision);
    handed.change = change.filter(|_| decision.way() == HandoffWay::Previous);
    request.handed = Some(Box::new(handed));
    guard
}

fn asked(client: &Client, request: &Request) -> Asked {
    Asked {
        method: request.method,
        has_body: request.out.len() > request.head_len || !client.end.is_finished(),
        upgrades: request.upgrade,
        has_credentials: request.has_credentials(),
    }
}

/// A try begins on a backend: whether it is told of a previous owner.
#[cold]
pub(super) fn begin_try(request: &mut Request, backend: Slot) {
    if request.tell_previous(backend) && request.report.retries == 0 {
        request.view.services[request.service].counters.handoff_moved.increment();
    }
}

/// A copy, if there is a place for it.
fn prepare_copy(
    worker: &Rc<Worker>,
    request: &Request,
    (hash, of_key): (Hash, CopyOfKey),
    moving: &Moving,
) -> Option<Ready> {
    let service = &request.view.services[request.service].service;
    let most = copies_max(&service.config)?;
    let most = if planted::is_planted(Fault::HandoffCopiesUnbounded) { u32::MAX } else { most };
    if !add_below(&service.live.handoff_copies, most) {
        return None;
    }
    let copying = Copying(Arc::clone(&service.live));
    let mut selection = service.backend_set.begin(mirror::context(worker, hash));
    let guard = search::acquire_copy(&request.view, request.service, &mut selection, moving.next, worker.index)?;
    let copied = request.copied_for(moving.next, moving.previous.0)?;
    Some(Ready { copying, of_key, guard, selection, copied })
}

/// Sends a copy. Once it has been answered, its key is the next owner's: that has what it needs, or is about to.
fn send(worker: &Rc<Worker>, request: &Request, ready: Ready) {
    let (sender, view, service) = (Rc::clone(worker), Rc::clone(&request.view), request.service);
    worker.spawn("a copy of a request for the next owner of its key", async move {
        let Ready { copying, of_key, guard, selection, copied } = ready;
        match mirror::send(&sender, (&view, service), (guard, selection), &copied).await {
            Ended::Whole(status) | Ended::Late(status) if status < 500 => of_key.arrive(),
            Ended::Whole(_) | Ended::Late(_) | Ended::Broken => {
                view.services[service].counters.handoff_copies_failed.increment();
                of_key.fail(ambient::now());
            }
        }
        drop(copying);
    });
}
