//! What a plan says: values that everything here fills and nothing here reads back.

use ringway_ring::{BuildError, Movement};
use thiserror::Error;

/// What a change would do.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// To each service by itself: in the order of the new configuration, removed ones last.
    pub services: Vec<ServicePlan>,
    /// To requests as they are routed, in the order of the old listeners and their routes.
    pub routes: Vec<RoutePlan>,
}

impl Plan {
    /// What moves most of what it is part of, 0 to 1.
    #[must_use]
    pub fn moved(&self) -> f64 {
        let services = self.services.iter().map(|plan| plan.movement.moved);
        services.chain(self.routes.iter().map(|plan| plan.movement.moved)).fold(0.0, f64::max)
    }
}

/// How much of what proxies do a configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    Whole,
    /// Proxies have files of their own, whose routes may lead to any of its services.
    Fleet,
}

/// What a change does to one service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServicePlan {
    /// The service.
    pub name: String,
    /// Why there is nothing to compare: `added`, `removed`, `no_keys`; or `compared`; or `other_key`: the key is read
    /// from elsewhere, so that where a key was says nothing of where it will be.
    pub kind: &'static str,
    /// What moves; nothing where nothing was compared.
    pub movement: Movement,
    /// Backends with their shares of the key space, 0 to 1, before and after; absent is 0.
    pub shares: Vec<(String, f64, f64)>,
    /// Of one that is removed: the service that has most of its backends now.
    pub successor: Option<String>,
}

/// Why a plan cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("service {service:?}: {source}")]
pub struct PlanError {
    pub(super) service: String,
    pub(super) source: BuildError,
}

/// What a change does to the requests of one route: those that come to one route after it. If they come to several, each has
/// an entry of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutePlan {
    /// The listener, by its name before.
    pub listener: String,
    /// What the route asks of requests.
    pub route: String,
    /// The services that it leads to before, or `nobody`, `an answer`.
    pub from: String,
    /// And after.
    pub to: String,
    /// What share of these requests another backend takes, or none.
    pub movement: Movement,
}
