//! What of a service passes from version to version: the states of its backends, and what its limiter knows.

use super::backend::BackendState;
use super::rate_limiter::RateLimiter;
use super::service::{Service, ServiceLive, lock};
use ringway_config::model;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

impl ServiceLive {
    /// The limiter of this limit: the existing one, memory and all, if it limits the same keys. The limit itself comes into force with
    /// [`ServiceLive::keep_limiter`].
    pub(super) fn limiter_for(&self, limit: &model::RateLimit, now: Instant) -> Arc<RateLimiter> {
        match lock(&self.limiter).as_ref() {
            Some((known, limiter)) if known.key == limit.key => Arc::clone(limiter),
            _ => Arc::new(RateLimiter::new(limit.interval, limit.burst, limit.keys_max, now)),
        }
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        lock(&self.backends).contains_key(id)
    }

    pub(super) fn backend(&self, id: &str) -> Arc<BackendState> {
        if let Some(state) = lock(&self.backends).get(id) {
            return Arc::clone(state);
        }
        let still_used = lock(&self.departed).get(id).and_then(Weak::upgrade);
        still_used.unwrap_or_else(|| Arc::new(BackendState::new(id)))
    }

    /// The next snapshot finds the backends of this one, and of the removed ones those on which something still runs.
    pub(super) fn keep_backends(&self, service: &Service) {
        let states = service.backends.iter().map(|backend| (backend.state.id.clone(), Arc::clone(&backend.state)));
        let states: HashMap<_, _> = states.collect();
        let mut backends = lock(&self.backends);
        let mut departed = lock(&self.departed);
        departed.retain(|id, _| !states.contains_key(id));
        let gone = backends.iter().filter(|(id, _)| !states.contains_key(*id));
        departed.extend(gone.map(|(id, state)| (id.clone(), Arc::downgrade(state))));
        *backends = states;
    }

    /// The next snapshot finds this one's limiter, which goes by this one's limit from now on.
    pub(super) fn keep_limiter(&self, service: &Service, now: Instant) {
        let mut limiter = lock(&self.limiter);
        let limit = service.config.rate_limit.clone().zip(service.limiter.clone());
        if let Some((limit, of)) =
            limit.as_ref().filter(|(limit, _)| limiter.as_ref().is_none_or(|(known, _)| known != limit))
        {
            of.change(limit.interval, limit.burst, limit.keys_max, now);
        }
        *limiter = limit;
    }

    /// Forgets the backends that have departed and that nothing runs on any more.
    pub(super) fn forget_departed(&self) {
        lock(&self.departed).retain(|_, state| state.strong_count() > 0);
    }
}
