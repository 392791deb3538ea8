//! Every check of a service before a backend is chosen: its rate limit, the key, the cookie, its limit on concurrency; and the affinity
//! counts afterwards. One place for requests, sessions and flows.

use super::affinity_cookie::{self, Value as CookieValue};
use super::hash_key::{self, Found, KeyInput};
use super::rate_limit::{self, Admission};
use crate::error::ProxyError;
use crate::snapshot::Service;
use crate::worker::{View, Worker, WorkerService};
use ringway_config::model::Priority;
use ringway_ring::{PickContext, Selection, Slot};
use std::time::Instant;

/// Keys that are drawn for a new client until one belongs to no backend that is closed to new clients.
const FRESH_KEYS_MAX: usize = 64;

/// Whether this is a new arrival, or goes on with what was admitted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    /// It goes on with what was admitted before, from another address: it does not count against the rate.
    Moved,
}

/// A request, a session or a flow that its service has admitted.
#[derive(Default)]
pub(crate) struct Admitted {
    /// Its key, or the substitute for one, where the service places by keys.
    pub(crate) key: Option<Found>,
    /// The backend that an affinity cookie binds its client to.
    pub(crate) sticky: Option<Slot>,
    /// An affinity cookie that its client gets.
    pub(crate) set_cookie: Option<CookieValue>,
    /// Counts it against the service's limit on their number.
    pub(crate) admission: Option<Admission>,
}

/// Checks it against the service's limits, and finds its key. `priority`: its route's, if that has one. `key_bytes` is scratch space.
///
/// # Errors
/// [`ProxyError::Overloaded`], [`ProxyError::Shed`], [`ProxyError::RateLimited`], [`ProxyError::KeyMissing`], [`ProxyError::ServiceFull`].
pub(crate) fn admit(
    (view, service): (&View, usize),
    worker: &Worker,
    input: &KeyInput<'_>,
    (arrival, priority): (Arrival, Option<Priority>),
    key_bytes: &mut Vec<u8>,
    now: Instant,
) -> Result<Admitted, ProxyError> {
    let this = &view.services[service].service;
    if arrival == Arrival::New {
        shed(worker, priority.unwrap_or(this.config.priority))?;
        rate_limit::admit(this, worker, input, key_bytes, now)?;
    }
    let mut admitted = Admitted::default();
    if this.hashes() {
        find_key(&mut admitted, this, worker, input, key_bytes)?;
        if view.snapshot.shadow.is_some() && arrival == Arrival::New {
            compare_with_shadow(view, &view.services[service], &admitted, input, key_bytes);
        }
    } else if let (Some(cookie), Some(head)) = (&this.config.affinity_cookie, input.head) {
        let value = affinity_cookie::find(cookie, input.buffer, head);
        admitted.sticky = value.and_then(|value| this.slot_of_cookie(value.0));
    }
    admitted.admission = Admission::enter(this)?;
    Ok(admitted)
}

/// Refuses a request under overload, or does not.
///
/// # Errors
/// It is refused.
#[inline]
pub(crate) fn shed(worker: &Worker, priority: Priority) -> Result<(), ProxyError> {
    if worker.shared.overload.sheds() { shed_some(worker, priority) } else { Ok(()) }
}

/// Whether it is refused, now that some are: by chance, so that no client is hit by how its requests alternate with those of others.
#[cold]
fn shed_some(worker: &Worker, priority: Priority) -> Result<(), ProxyError> {
    let overload = &worker.shared.overload;
    if overload.refuses_all() {
        return Err(ProxyError::Overloaded);
    }
    if overload.refuses(priority, worker.random()) { Err(ProxyError::Shed(priority)) } else { Ok(()) }
}

/// The key: from an affinity cookie, from the first source that is present, or a substitute.
fn find_key(
    admitted: &mut Admitted,
    this: &Service,
    worker: &Worker,
    input: &KeyInput<'_>,
    key_bytes: &mut Vec<u8>,
) -> Result<(), ProxyError> {
    let (Some(cookie), Some(head)) = (&this.config.affinity_cookie, input.head) else {
        admitted.key = Some(hash_key::find(this, worker, input, key_bytes)?);
        return Ok(());
    };
    let hash_of = |value: CookieValue| ringway_ring::hash_key(&value.0.to_le_bytes(), this.seed());
    let hash = match affinity_cookie::find(cookie, input.buffer, head).map(hash_of) {
        Some(hash) => {
            admitted.sticky = this.keeper_of(hash);
            hash
        }
        None => {
            // A new client gets no key of a backend that keeps only its old clients: it would go there the next time.
            let draw = || CookieValue(worker.random());
            let mut fresh = draw();
            for _ in 1..FRESH_KEYS_MAX {
                if this.keeper_of(hash_of(fresh)).is_none() {
                    break;
                }
                fresh = draw();
            }
            admitted.set_cookie = Some(fresh);
            hash_of(fresh)
        }
    };
    admitted.key = Some(Found { hash, keyed: true });
    Ok(())
}

/// Counts whether the shadow configuration would choose another backend.
fn compare_with_shadow(
    view: &View,
    this: &WorkerService,
    admitted: &Admitted,
    input: &KeyInput<'_>,
    key_bytes: &mut Vec<u8>,
) {
    let shadow = view.snapshot.shadow.as_ref().and_then(|shadow| shadow.service(&this.service.config.name));
    let key = admitted.key.filter(|key| key.keyed);
    let (Some(shadow), Some(Found { hash, .. })) = (shadow, key) else { return };
    let ours =
        this.service.backend_set.owner(hash).map(|slot| this.service.backends[usize::from(slot.0)].config.id.as_str());
    this.counters.shadowed.increment();
    // Without a key there is no owner there.
    // The id of a QUIC connection comes before what is configured, there as here.
    let has_key = match input.connection_id {
        Some(id) => {
            key_bytes.clear();
            key_bytes.extend_from_slice(id);
            true
        }
        None => hash_key::extract(shadow.hash_key(), input, key_bytes),
    };
    let theirs = if has_key { shadow.owner(key_bytes) } else { None };
    if theirs != ours {
        this.counters.shadow_moved.increment();
    }
}

/// The context for choosing a backend. What has begun is then counted by [`count_spread`].
pub(crate) fn pick_context(worker: &Worker, this: &WorkerService, key: Option<Found>) -> PickContext {
    let owners = match key {
        Some(Found { hash, keyed: true }) if this.service.looks_for_hot_keys => this.owners_of(hash),
        _ => 0,
    };
    let chance = if key.is_none() || owners > 1 { worker.random() } else { 0 };
    PickContext { hash: key.map_or(chance, |key| key.hash), chance, now_millis: worker.millis(), owners }
}

/// Counts what begins with a hot key.
#[inline]
pub(crate) fn count_spread(this: &WorkerService, context: &PickContext) {
    if context.owners > 1 {
        this.counters.hot.increment();
    }
}

/// Counts affinity, once the backend that serves the request is known. `holder`: who has the key, while it is still to be handed to the
/// first of the candidate sequence.
pub(crate) fn count_served(
    this: &WorkerService,
    keyed: bool,
    (selection, holder): (&Selection, Option<Slot>),
    backend: Option<usize>,
) {
    let is_held = holder.is_some_and(|slot| Some(usize::from(slot.0)) == backend);
    if keyed {
        this.counters.keyed.increment();
        let owner = holder.or(selection.owner());
        if owner.map(|slot| usize::from(slot.0)) == backend {
            this.counters.owned.increment();
        } else {
            this.counters.distance.add(u64::from(selection.spills() + selection.skipped()));
        }
    }
    // Whoever has the key has served it, whatever was looked at before.
    if selection.spills() > 0 && !is_held {
        this.counters.spills.increment();
        if let Some(upstream) = backend.and_then(|index| this.upstreams.get(index)) {
            upstream.counters.spills.increment();
        }
    }
}
