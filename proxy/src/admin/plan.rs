//! What a change would move, from two configurations alone: what `ringway plan` prints.

mod classes;
mod routed;
#[cfg(test)]
mod tests;

pub use routed::RoutePlan;

use crate::snapshot::shadow::group_of;
use ringway_config::model::{Backend, Config, Listener, Protocol, Service};
use ringway_ring::{BuildError, Move, Movement, group_movement, independent_movement};
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
    pub heir: Option<String>,
}

/// Why a plan cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("service {service:?}: {source}")]
pub struct PlanError {
    service: String,
    source: BuildError,
}

/// Compares two configurations. Every backend counts as healthy; one that drains has no keys.
///
/// # Errors
/// A ring cannot be built.
pub fn plan(old: &Config, new: &Config, scope: Scope) -> Result<Plan, PlanError> {
    let mut services = Vec::new();
    for service in &new.services {
        let before = old.services.iter().find(|before| before.name == service.name);
        services.push(compare(before, service)?);
    }
    for (index, gone) in old.services.iter().enumerate() {
        if !new.services.iter().any(|service| service.name == gone.name) {
            // Routes that are known speak for themselves; those that are not known lead to where nothing is.
            let blind = scope == Scope::Fleet && !old.listeners.iter().any(|listener| leads_to(listener, index));
            services.push(removed(gone, new, blind));
        }
    }
    let routes = routed::routes(&routed::Side::new(old)?, &routed::Side::new(new)?, &services);
    Ok(Plan { services, routes })
}

/// Backends that take traffic as long as all are up: those of the first level that has any.
fn takers(service: &Service) -> impl Iterator<Item = &Backend> {
    let takes = |backend: &&Backend| !backend.drain && backend.weight > 0;
    let level = service.backends.iter().filter(takes).map(|backend| backend.level).min();
    service.backends.iter().filter(takes).filter(move |backend| Some(backend.level) == level)
}

fn leads_to(listener: &Listener, index: usize) -> bool {
    match &listener.protocol {
        Protocol::Http(http) => http.routes.iter().any(|route| {
            let arms = route.split.iter().flat_map(|split| &split.arms);
            route.service == index || arms.into_iter().any(|arm| arm.service == index)
        }),
        Protocol::Tcp(tcp) => tcp.service == Some(index) || tcp.names.iter().any(|(_, service)| *service == index),
        Protocol::Udp(udp) => udp.service == index,
    }
}

fn removed(gone: &Service, new: &Config, blind: bool) -> ServicePlan {
    let addresses: Vec<_> = gone.backends.iter().map(|backend| backend.address).collect();
    let common = |service: &Service| service.backends.iter().filter(|one| addresses.contains(&one.address)).count();
    let heir = new.services.iter().map(|service| (common(service), service)).filter(|(common, _)| *common > 0);
    let heir = heir.max_by_key(|(common, _)| *common).map(|(_, service)| service.name.clone());
    let movement = if blind { lost(&even(gone)) } else { Movement::default() };
    ServicePlan { name: gone.name.clone(), kind: "removed", movement, shares: Vec::new(), heir }
}

/// Shares of a service that need not have keys, by weight.
fn even(service: &Service) -> Vec<(String, f64)> {
    let all: u32 = takers(service).map(|backend| backend.weight).sum();
    takers(service).map(|backend| (backend.id.clone(), f64::from(backend.weight) / f64::from(all))).collect()
}

/// All that there was goes to nobody.
fn lost(shares: &[(String, f64)]) -> Movement {
    let owned = shares.iter().filter(|(_, share)| *share > 0.0);
    let moves: Vec<Move> =
        owned.map(|(id, share)| Move { from: id.clone(), to: "nobody".to_owned(), share: *share }).collect();
    Movement { moved: if moves.is_empty() { 0.0 } else { 1.0 }, moves, ..Movement::default() }
}

fn compare(old: Option<&Service>, new: &Service) -> Result<ServicePlan, PlanError> {
    let build = |service: &Service| {
        let mut ids: Vec<String> = service.backends.iter().map(|backend| backend.id.clone()).collect();
        ids.sort_unstable();
        let group = group_of(service).map_err(|source| PlanError { service: service.name.clone(), source })?;
        Ok((group, ids))
    };
    let (after, after_ids) = build(new)?;
    let mut plan = ServicePlan {
        name: new.name.clone(),
        kind: "compared",
        movement: Movement::default(),
        shares: Vec::new(),
        heir: None,
    };
    // Whom nobody takes any more, all keys leave.
    let emptied = old.filter(|old| takers(old).next().is_some() && takers(new).next().is_none());
    if !new.policy.hashes() || old.is_some_and(|old| !old.policy.hashes()) {
        plan.kind = "no_keys";
        plan.movement = emptied.map_or_else(Movement::default, |old| lost(&even(old)));
        return Ok(plan);
    }
    let share_of = |ids: &[String], shares: &[f64], id: &str| {
        ids.iter().position(|known| known == id).map_or(0.0, |at| shares[at])
    };
    let after_shares = after.shares();
    let Some(old) = old else {
        plan.kind = "added";
        plan.shares = after_ids.iter().zip(&after_shares).map(|(id, share)| (id.clone(), 0.0, *share)).collect();
        return Ok(plan);
    };
    let (before, before_ids) = build(old)?;
    let before_shares = before.shares();
    let names = |ids: &[String]| ids.iter().map(String::clone).collect::<Vec<_>>();
    let mut all = names(&before_ids);
    all.extend(after_ids.iter().filter(|id| !before_ids.contains(id)).cloned());
    all.sort_unstable();
    plan.shares = all
        .into_iter()
        .map(|id| {
            let pair = (share_of(&before_ids, &before_shares, &id), share_of(&after_ids, &after_shares, &id));
            (id, pair.0, pair.1)
        })
        .collect();
    let before_ids: Vec<&str> = before_ids.iter().map(String::as_str).collect();
    let after_ids: Vec<&str> = after_ids.iter().map(String::as_str).collect();
    plan.movement = group_movement(&before, &before_ids, &after, &after_ids);
    // A key that is read from elsewhere is another key: what it owns now says nothing of what it owned.
    let cookie = |service: &Service| {
        let cookie = service.affinity_cookie.as_ref();
        cookie.map(|cookie| (cookie.service.clone(), cookie.name.clone(), cookie.secret.clone()))
    };
    if old.hash_key != new.hash_key || cookie(old) != cookie(new) {
        plan.kind = "other_key";
        plan.movement = independent_movement(&before_shares, &before_ids, &after_shares, &after_ids);
    }
    if emptied.is_some() {
        let owned: Vec<(String, f64)> = plan.shares.iter().map(|(id, before, _)| (id.clone(), *before)).collect();
        plan.movement = lost(&owned);
    }
    Ok(plan)
}
