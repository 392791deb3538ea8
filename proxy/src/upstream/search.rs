//! A request's way along its candidates: which reservation it gets, of those that are available at once.

use crate::error::ProxyError;
use crate::upstream::failover::Failover;
use crate::upstream::in_flight::{Connected, InFlight};
use crate::upstream::retry::last_resort;
use crate::worker::{View, Worker};
use ringway_config::model;
use ringway_ring::{AllFull, HeldShare, Pick, Selection, Slot};
use ringway_telemetry::counters::RetryLimit;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A request that looks for a backend: its candidates, and how far in their sequence it is.
pub(crate) struct BackendSearch<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) view: &'a mut Rc<View>,
    pub(crate) service: &'a mut usize,
    pub(crate) selection: &'a mut Selection,
    /// The backend that was tried last, by its slot.
    pub(crate) backend: &'a mut Option<usize>,
    pub(crate) failover: &'a mut Failover,
}

impl BackendSearch<'_> {
    pub(super) fn acquire_now(&mut self) -> Result<Option<InFlight>, ProxyError> {
        try_acquire(self.view, *self.service, self.selection, self.worker.index)
    }

    /// Moves on to the version in force, if that has the service and its protocol settings are the same: a waiting request gets a
    /// reservation on a backend that has been added meanwhile, as new requests do.
    ///
    /// `false`: it stays on its version.
    pub(super) fn follow(&mut self) -> bool {
        let newest = self.worker.view();
        if Rc::ptr_eq(&newest, self.view) {
            return false;
        }
        let old = Arc::clone(&self.view.services[*self.service].service);
        let Some(index) = newest.snapshot.index_of(&old.config.name) else { return false };
        let new = &newest.services[index].service;
        // A service that was removed and added again has another queue.
        let is_same = Arc::ptr_eq(&new.live, &old.live);
        if !is_same || new.config.protocol != old.config.protocol {
            return false;
        }
        let moved = |slot: Slot| new.slot_of(&old.backends[usize::from(slot.0)].config.id);
        let tried: Vec<Slot> = self.selection.tried().filter_map(moved).collect();
        *self.selection = new.backend_set.begin_again(self.selection, tried);
        *self.backend = self.backend.and_then(|slot| moved(Slot(slot as u16))).map(|slot| usize::from(slot.0));
        (*self.view, *self.service) = (newest, index);
        true
    }
}

/// The request's next candidate that has room, reserved. It may be one of a newer version than the request began with. `None`: the
/// caller waits for room, in the queue.
///
/// # Errors
/// [`ProxyError::NoBackend`], [`ProxyError::AllFull`].
pub(crate) fn acquire_or_wait(search: &mut BackendSearch<'_>) -> Result<Option<InFlight>, ProxyError> {
    let found = match search.acquire_now() {
        // Its snapshot is outdated: a reload may have removed all its backends, and added others.
        Err(ProxyError::NoBackend) if search.follow() => search.acquire_now(),
        found => found,
    };
    let found = match found {
        Err(ProxyError::NoBackend) => {
            let ejected = acquire_ejected(search.view, *search.service, search.selection, search.worker.index);
            Some(ejected.ok_or(ProxyError::NoBackend)?)
        }
        found => found?,
    };
    let waits = || search.view.services[*search.service].service.config.all_full == AllFull::Queue;
    if found.is_some() || waits() { Ok(found) } else { Err(ProxyError::AllFull) }
}

/// The next candidate that has room at once: for a retry after a response, or a hedge.
pub(crate) fn acquire_now(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    shard: usize,
) -> Option<InFlight> {
    try_acquire(view, service, selection, shard).ok().flatten()
}

/// A reservation on an ejected backend, for a request that all others have failed: what live traffic said of it is over before its ejection
/// is, as often as not.
fn acquire_ejected(view: &Rc<View>, service: usize, selection: &mut Selection, shard: usize) -> Option<InFlight> {
    let this = &view.services[service].service;
    let slot = last_resort(this, selection)?;
    let connected = Connected::enter(this)?;
    if !this.backend_set.reserve(selection, slot, true, shard) {
        connected.give_back_unused();
        return None;
    }
    Some(InFlight::new(view, service, (slot, shard), false, connected))
}

/// A reservation on a backend that the request has tried, if it is available.
fn acquire_again(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    slot: Slot,
    shard: usize,
) -> Option<InFlight> {
    let connected = Connected::enter(&view.services[service].service)?;
    if !view.services[service].service.backend_set.reserve_again(selection, slot, shard) {
        connected.give_back_unused();
        return None;
    }
    Some(InFlight::new(view, service, (slot, shard), false, connected))
}

/// A reservation for a retry that is available at once, after an attempt on `last`. Backends with as many retries as allowed are
/// skipped.
///
/// # Errors
/// [`RetryLimit::Backend`]: there was one only on such backends.
pub(crate) fn acquire_for_retry(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    last: Option<Slot>,
    shard: usize,
) -> Result<Option<InFlight>, RetryLimit> {
    let this = &view.services[service].service;
    let same_backend = this.config.retry.same_backend;
    let mut passed_by = false;
    let mut take = |found: Option<InFlight>, selection: &mut Selection| {
        let mut guard = found?;
        if guard.begin_retry() {
            return Some(guard);
        }
        guard.pass_by(selection, false);
        passed_by = true;
        None
    };
    if let (model::SameBackend::Always, Some(slot)) = (same_backend, last)
        && let Some(found) = take(acquire_again(view, service, selection, slot, shard), selection)
    {
        return Ok(Some(found));
    }
    for round in 0..2 {
        // Each candidate is returned at most once: those that are skipped do not come again.
        for _ in 0..this.backends.len() {
            let Some(found) = acquire_now(view, service, selection, shard) else { break };
            if let Some(found) = take(Some(found), selection) {
                return Ok(Some(found));
            }
        }
        let ejected = acquire_ejected(view, service, selection, shard);
        if let Some(found) = take(ejected, selection) {
            return Ok(Some(found));
        }
        match same_backend {
            model::SameBackend::LastResort | model::SameBackend::Always if round == 0 => {
                this.backend_set.forgive(selection);
            }
            _ => break,
        }
    }
    if passed_by { Err(RetryLimit::Backend) } else { Ok(None) }
}

/// The reservation of a retry after its back-off: if its backend has as many retries as allowed, another backend's that is available at
/// once. `None`, counted: there is none.
pub(crate) fn settle_for_retry(
    mut guard: InFlight,
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    shard: usize,
) -> Option<InFlight> {
    if guard.begin_retry() {
        return Some(guard);
    }
    guard.pass_by(selection, false);
    let other = acquire_for_retry(view, service, selection, None, shard).ok().flatten();
    if other.is_none() {
        view.services[service].counters.refuse_retry(RetryLimit::Backend);
    }
    other
}

/// A reservation on the backend that an affinity cookie names, if it is available: also on one that takes no new clients, as long as it
/// keeps its old ones.
pub(crate) fn acquire_sticky(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    slot: Slot,
    shard: usize,
) -> Option<InFlight> {
    let this = &view.services[service];
    let connected = Connected::enter(&this.service)?;
    let kept = this.service.backends[usize::from(slot.0)].state.keeps_clients.load(Relaxed);
    if !this.service.backend_set.reserve(selection, slot, kept, shard) {
        connected.give_back_unused();
        return None;
    }
    if kept {
        this.counters.kept.increment();
    }
    Some(InFlight::new(view, service, (slot, shard), true, connected))
}

/// A reservation on a backend that a key is handed from or to, below the bound. `owner`: the backend that it belongs to from now on.
pub(crate) fn acquire_handed(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    (backend, owner): ((Slot, HeldShare), Slot),
    shard: usize,
) -> Option<InFlight> {
    let connected = Connected::enter(&view.services[service].service)?;
    reserve_handed(view, service, selection, (backend, owner, connected), shard)
}

/// A reservation for the copy of a request on the backend that its key goes to: where requests leave room.
pub(crate) fn acquire_copy(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    next: Slot,
    shard: usize,
) -> Option<InFlight> {
    let this = &view.services[service].service;
    if !this.has_room_for_copy(next) {
        return None;
    }
    let connected = Connected::enter_beside(this)?;
    reserve_handed(view, service, selection, ((next, HeldShare::default()), next, connected), shard)
}

fn reserve_handed(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    (backend, owner, connected): ((Slot, HeldShare), Slot, Connected),
    shard: usize,
) -> Option<InFlight> {
    let this = &view.services[service];
    if !this.service.backend_set.reserve_handed(selection, backend, owner, shard) {
        connected.give_back_unused();
        return None;
    }
    Some(InFlight::new(view, service, (backend.0, shard), false, connected))
}

/// A reservation on a backend for an exchange that has begun there, although the backend takes nothing new.
pub(crate) fn resume(view: &Rc<View>, service: usize, slot: Slot, shard: usize) -> InFlight {
    view.services[service].service.backend_set.resume(slot, shard);
    InFlight::new(view, service, (slot, shard), true, Connected::uncounted())
}

fn try_acquire(
    view: &Rc<View>,
    service: usize,
    selection: &mut Selection,
    shard: usize,
) -> Result<Option<InFlight>, ProxyError> {
    // If only the service's limit denies the reservation, the candidate does not count as skipped.
    let Some(connected) = Connected::enter(&view.services[service].service) else { return Ok(None) };
    match view.services[service].service.backend_set.next(selection, shard) {
        Pick::Backend(slot) => Ok(Some(InFlight::new(view, service, (slot, shard), false, connected))),
        Pick::AllFull => {
            connected.give_back_unused();
            Ok(None)
        }
        Pick::None => {
            connected.give_back_unused();
            Err(ProxyError::NoBackend)
        }
    }
}

/// A request that looks for a backend, for tests.
#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::routing::admission::pick_context;
    use crate::worker::testing::Rig;

    pub(in crate::upstream) const ONE: &str = "{ name: s, balance: { bounded_load: { all_full: queue, queue: { timeout: 1s } } }, \
                       backends: [ { id: a, address: \"127.0.0.1:1\", requests_max: 1 } ] }";

    /// Where a request looks, and how far it is.
    pub(in crate::upstream) struct Looking {
        view: Rc<View>,
        service: usize,
        pub(in crate::upstream) selection: Selection,
        backend: Option<usize>,
        pub(in crate::upstream) failover: Failover,
    }

    impl Looking {
        pub(in crate::upstream) fn begin(rig: &Rig) -> Self {
            let view = rig.worker.view();
            let this = &view.services[0];
            let selection = this.service.backend_set.begin(pick_context(&rig.worker, this, None));
            Self { view, service: 0, selection, backend: None, failover: Failover::default() }
        }

        pub(in crate::upstream) fn search<'a>(&'a mut self, worker: &'a Worker) -> BackendSearch<'a> {
            let Self { view, service, selection, backend, failover } = self;
            BackendSearch { worker, view, service, selection, backend, failover }
        }
    }

    pub(in crate::upstream) fn in_flight(rig: &Rig) -> u64 {
        rig.worker.view().services[0].service.live.total.sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::testing::{Looking, ONE, in_flight};
    use crate::net::timer::Deadline;
    use crate::worker::testing::Rig;

    #[test]
    fn a_reservation_is_counted_once_and_given_back_by_its_drop() {
        let rig = Rig::new(ONE);
        let (mut one, mut other) = (Looking::begin(&rig), Looking::begin(&rig));
        let guard = one.search(&rig.worker).acquire_now().unwrap().unwrap();
        assert_eq!((guard.index(), in_flight(&rig)), (0, 1));
        assert!(other.search(&rig.worker).acquire_now().unwrap().is_none(), "there is one reservation");
        assert_eq!(in_flight(&rig), 1);
        drop(guard);
        assert_eq!(in_flight(&rig), 0);
        let mut next = Looking::begin(&rig);
        assert!(next.search(&rig.worker).acquire_now().unwrap().is_some());
    }

    #[test]
    fn a_backend_that_turns_out_to_be_full_counts_as_full_and_not_as_tried() {
        let rig = Rig::new(ONE);
        let mut looking = Looking::begin(&rig);
        let guard = looking.search(&rig.worker).acquire_now().unwrap().unwrap();
        looking.failover.begin(Deadline::NEVER, 0);
        guard.give_back_full(&mut looking.selection, &mut looking.failover);
        assert_eq!(in_flight(&rig), 0);
        assert!(looking.search(&rig.worker).acquire_now().unwrap().is_none());
        let group = &rig.worker.view().services[0].service.backend_set;
        group.restart(&mut looking.selection);
        assert!(looking.search(&rig.worker).acquire_now().unwrap().is_some());
    }
}
