//! A service's backends, as its version, its balancing and its health machine have them: in slot order, which is that of their ids.

use super::backend::Backend;
use super::connections;
use super::service::{Service, ServiceLive};
use super::shadow;
use ringway_config::model;
use ringway_health::Member;
use ringway_ring::MemberSpec;
use std::sync::{Arc, OnceLock};

/// As requests see them.
pub(super) fn backends(config: &model::Service, live: &ServiceLive) -> Box<[Backend]> {
    let mut members: Vec<&model::Backend> = config.backends.iter().collect();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    let backend = |config: &model::Backend| Backend {
        config: config.clone(),
        state: live.backend(&config.id),
        span_attributes: OnceLock::new(),
    };
    members.into_iter().map(backend).collect()
}

/// As a set is built of them.
pub(super) fn of_set<'a>(config: &'a model::Service, backends: &'a [Backend]) -> impl Iterator<Item = MemberSpec<'a>> {
    backends.iter().map(|backend| MemberSpec {
        id: &backend.config.id,
        weight: shadow::membership_weight(&backend.config),
        requests_max: connections::places(config, &backend.config),
        level: backend.config.level,
        load: Arc::clone(&backend.state.load),
    })
}

/// As the health machine is told of them.
pub(super) fn of_health(service: &Service) -> Vec<Member<'_>> {
    let backends = service.backends.iter();
    backends
        .map(|backend| Member {
            id: &backend.config.id,
            weight: backend.config.weight,
            drain: backend.config.drain,
            maintenance: backend.config.maintenance,
            level: backend.config.level,
        })
        .collect()
}
