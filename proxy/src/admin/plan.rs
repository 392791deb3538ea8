//! What a change would move, from two configurations alone: what `ringway plan` prints.

mod classes;
mod outcome;
mod routed;
mod services;
#[cfg(test)]
mod tests;

pub use outcome::{Plan, PlanError, RoutePlan, Scope, ServicePlan};

use ringway_config::model::{Config, Listener, Protocol, Service};
use std::collections::HashMap;

fn by_name(config: &Config) -> HashMap<&str, &Service> {
    config.services.iter().map(|service| (service.name.as_str(), &**service)).collect()
}

/// Compares two configurations. Every backend counts as healthy; one that drains has no keys.
///
/// # Errors
/// A ring cannot be built.
pub fn plan(old: &Config, new: &Config, scope: Scope) -> Result<Plan, PlanError> {
    let mut plans = Vec::new();
    let (known, kept) = (by_name(old), by_name(new));
    for service in &new.services {
        let before = known.get(service.name.as_str()).copied();
        plans.push(services::compare(before, service)?);
    }
    for (index, gone) in old.services.iter().enumerate() {
        if !kept.contains_key(gone.name.as_str()) {
            // Routes that are known speak for themselves; those that are not known lead to where nothing is.
            let blind = scope == Scope::Fleet && !old.listeners.iter().any(|listener| leads_to(listener, index));
            plans.push(services::removed(gone, new, blind));
        }
    }
    let routes = routed::routes(&routed::Side::new(old)?, &routed::Side::new(new)?, &plans);
    Ok(Plan { services: plans, routes })
}

/// Whether a listener sends requests to a service.
fn leads_to(listener: &Listener, index: usize) -> bool {
    match &listener.protocol {
        Protocol::Http(http) => http.routes.iter().any(|route| {
            let mut targets = route.split.iter().flat_map(|split| &split.targets);
            route.service == index || targets.any(|target| target.service == index)
        }),
        Protocol::Tcp(tcp) => tcp.service == Some(index) || tcp.names.iter().any(|(_, service)| *service == index),
        Protocol::Udp(udp) => udp.service == index,
    }
}
