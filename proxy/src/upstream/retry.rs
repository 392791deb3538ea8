//! Permission for a retry, and the back-off before it: one place for everything that limits retries, for every kind of failure and
//! every protocol.

use crate::snapshot::connections;
use crate::snapshot::{Service, ServiceLive};
use crate::worker::{Worker, WorkerService};
use ringway_config::model;
use ringway_ring::{Selection, Slot};
use ringway_telemetry::counters::RetryLimit;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Doublings of the back-off at most.
const DOUBLINGS_MAX: u32 = 10;

/// One request's retries. They come one after the other, so that among the service's retries under way it is counted once, however
/// often it is retried.
#[derive(Default)]
pub(crate) struct Retries {
    under_way: Option<UnderWay>,
    /// There has been one.
    begun: bool,
}

/// A retry under way, where the service limits them.
struct UnderWay(Arc<ServiceLive>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.retrying.fetch_sub(1, Relaxed);
    }
}

impl Retries {
    /// Takes permission for one more, from the service's limit and from the budget. `false`: there is none, and that is counted;
    /// what the retry before this one took is returned.
    pub(crate) fn take(&mut self, this: &WorkerService, worker: &Worker) -> bool {
        let refused = self.refusal(this, worker);
        if let Some(limit) = refused {
            this.counters.refuse_retry(limit);
            self.under_way = None;
        }
        self.begun |= refused.is_none();
        refused.is_none()
    }

    /// The last attempt is over.
    pub(crate) fn end(&mut self) {
        self.under_way = None;
    }

    /// Whether the current attempt is a retry.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    fn refusal(&mut self, this: &WorkerService, worker: &Worker) -> Option<RetryLimit> {
        let limit = this.service.config.retries_max;
        if self.under_way.is_none() && limit < u32::MAX {
            let live = &this.service.live;
            if !connections::add_below(&live.retrying, limit) {
                return Some(RetryLimit::Service);
            }
            self.under_way = Some(UnderWay(Arc::clone(live)));
        }
        let retry = &this.service.config.retry;
        let taken = this.live.retries.borrow_mut().take(worker.timers.millis(), retry.budget_percent, retry.budget_min);
        (!taken).then_some(RetryLimit::Budget)
    }
}

/// An ejected backend for a request that has been given to others, which is to be asked where none of these is left: one with room that it
/// has not been given to. `None`: there is none, or it has been given to nobody.
pub(super) fn last_resort(service: &Service, selection: &Selection) -> Option<Slot> {
    if !service.live.some_are_ejected.load(Relaxed) || service.backend_set.has_another(selection) {
        return None;
    }
    let last = usize::from(selection.tried().last()?.0);
    let mut slots = (last..service.backends.len()).chain(0..last);
    let is_tried = |slot: usize| selection.tried().any(|tried| usize::from(tried.0) == slot);
    let is_one = |slot: usize| service.backends[slot].state.last_resort.load(Relaxed) && !is_tried(slot);
    let found = slots.find(|&slot| is_one(slot) && service.backend_set.takes_more(Slot(slot as u16)));
    found.map(|slot| Slot(slot as u16))
}

fn has_another(service: &Service, selection: &Selection) -> bool {
    service.backend_set.has_another(selection) || last_resort(service, selection).is_some()
}

/// Whether a request that was given to the backends of the selection may be retried at all: there is a backend that may be tried.
pub(crate) fn has_candidate(service: &Service, selection: &Selection) -> bool {
    match service.config.retry.same_backend {
        model::SameBackend::Never => has_another(service, selection),
        model::SameBackend::LastResort | model::SameBackend::Always => {
            service.backend_set.eligible_members() > 0 || last_resort(service, selection).is_some()
        }
    }
}

/// Whether the next attempt is a retry where the request has been, and not a failover past a backend that has refused.
pub(crate) fn goes_back(service: &Service, selection: &Selection) -> bool {
    match service.config.retry.same_backend {
        model::SameBackend::Never => false,
        model::SameBackend::LastResort => !has_another(service, selection),
        model::SameBackend::Always => true,
    }
}

/// The back-off before the retry of this number, of which 1 is the first: between half of the back-off and all of it, so that many do
/// not come back at once. `chance` is drawn.
pub(crate) fn pause(retry: &model::Retry, number: u32, chance: u64) -> Duration {
    if retry.backoff.is_zero() {
        return Duration::ZERO;
    }
    let doubled = retry.backoff.saturating_mul(1 << number.saturating_sub(1).min(DOUBLINGS_MAX));
    doubled.mul_f64((512 + chance % 512) as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::testing::Rig;

    #[test]
    fn the_wait_doubles_up_to_a_bound_and_is_between_half_of_it_and_all() {
        let rig = Rig::new("{ name: s, retry: { backoff: 10ms }, backends: [ { id: a, address: \"127.0.0.1:1\" } ] }");
        let view = rig.worker.view();
        let config = &view.services[0].service.config.retry;
        for (number, whole) in [(1, 10), (2, 20), (3, 40), (11, 10_240), (12, 10_240), (u32::MAX, 10_240)] {
            let whole = Duration::from_millis(whole);
            assert_eq!(pause(config, number, 0), whole / 2, "{number}");
            let longest = pause(config, number, 511);
            assert!(longest > whole / 2 && longest < whole, "{number}: {longest:?}");
        }
    }

    #[test]
    fn a_service_s_limit_holds_while_a_retry_is_under_way_and_counts_a_request_once() {
        let rig =
            Rig::new("{ name: s, limits: { retries_max: 1 }, backends: [ { id: a, address: \"127.0.0.1:1\" } ] }");
        let view = rig.worker.view();
        let this = &view.services[0];
        (0..100).for_each(|_| this.live.count(&this.service.config, 0));
        let (mut one, mut other) = (Retries::default(), Retries::default());
        assert!(one.take(this, &rig.worker) && one.has_begun());
        assert!(one.take(this, &rig.worker), "its second retry is no second request");
        assert!(!other.take(this, &rig.worker) && !other.has_begun());
        one.end();
        assert!(other.take(this, &rig.worker) && one.has_begun());
        drop(other);
        assert!(one.take(this, &rig.worker));
    }
}
