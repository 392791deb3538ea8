//! What a change would move, from two configurations alone: what `ringway plan` prints.

use crate::shadow::group_of;
use ringway_config::model::{Config, Service};
use ringway_ring::{BuildError, Movement, group_movement, independent_movement};
use thiserror::Error;

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
}

/// Why a plan cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("service {service:?}: {source}")]
pub struct PlanError {
    service: String,
    source: BuildError,
}

/// Compares two configurations, service by service, in the order of the new one; removed ones last. Every backend counts as
/// healthy; one that drains has no keys.
///
/// # Errors
/// A ring cannot be built.
pub fn plan(old: &Config, new: &Config) -> Result<Vec<ServicePlan>, PlanError> {
    let mut plans = Vec::new();
    for service in &new.services {
        let before = old.services.iter().find(|before| before.name == service.name);
        plans.push(compare(before, service)?);
    }
    for gone in old.services.iter().filter(|gone| !new.services.iter().any(|service| service.name == gone.name)) {
        plans.push(ServicePlan {
            name: gone.name.clone(),
            kind: "removed",
            movement: Movement::default(),
            shares: Vec::new(),
        });
    }
    Ok(plans)
}

fn compare(old: Option<&Service>, new: &Service) -> Result<ServicePlan, PlanError> {
    let build = |service: &Service| {
        let mut ids: Vec<String> = service.backends.iter().map(|backend| backend.id.clone()).collect();
        ids.sort_unstable();
        let group = group_of(service).map_err(|source| PlanError { service: service.name.clone(), source })?;
        Ok((group, ids))
    };
    let (after, after_ids) = build(new)?;
    let mut plan =
        ServicePlan { name: new.name.clone(), kind: "compared", movement: Movement::default(), shares: Vec::new() };
    if !new.policy.hashes() || old.is_some_and(|old| !old.policy.hashes()) {
        plan.kind = "no_keys";
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
    if old.hash_key != new.hash_key || old.affinity_cookie.is_some() != new.affinity_cookie.is_some() {
        plan.kind = "other_key";
        plan.movement = independent_movement(&before_shares, &before_ids, &after_shares, &after_ids);
    }
    Ok(plan)
}
