//! What a change does to each service by itself.

use super::outcome::{PlanError, ServicePlan};
use crate::snapshot::shadow::group_of;
use ringway_config::model::{Backend, Config, Service};
use ringway_ring::{BackendSet, Move, Movement, SAMPLE_BUDGET, independent_movement, taken_movement, taken_shares};
use std::collections::HashSet;

/// A service's ring, with every backend up.
struct Ring {
    backend_set: BackendSet,
    /// In the order of the backend set's slots.
    ids: Vec<String>,
    shares: Vec<f64>,
}

impl Ring {
    fn of(service: &Service) -> Result<Self, PlanError> {
        let mut ids: Vec<String> = service.backends.iter().map(|backend| backend.id.clone()).collect();
        ids.sort_unstable();
        let backend_set = group_of(service).map_err(|source| PlanError { service: service.name.clone(), source })?;
        let shares = taken_shares(&backend_set);
        Ok(Self { backend_set, ids, shares })
    }

    /// Absent is 0.
    fn share_of(&self, id: &str) -> f64 {
        self.ids.iter().position(|known| known == id).map_or(0.0, |at| self.shares[at])
    }

    fn ids(&self) -> Vec<&str> {
        self.ids.iter().map(String::as_str).collect()
    }
}

pub(super) fn compare(old: Option<&Service>, new: &Service) -> Result<ServicePlan, PlanError> {
    let after = Ring::of(new)?;
    let mut plan = ServicePlan {
        name: new.name.clone(),
        kind: "compared",
        movement: Movement::default(),
        shares: Vec::new(),
        successor: None,
    };
    // A service that had backends for traffic and has none any more loses all its keys.
    let emptied = old.filter(|old| takers(old).next().is_some() && takers(new).next().is_none());
    if !new.policy.hashes() || old.is_some_and(|old| !old.policy.hashes()) {
        plan.kind = "no_keys";
        plan.movement = emptied.map_or_else(Movement::default, |old| lost(&even(old)));
        return Ok(plan);
    }
    let Some(old) = old else {
        plan.kind = "added";
        plan.shares = after.ids.iter().zip(&after.shares).map(|(id, share)| (id.clone(), 0.0, *share)).collect();
        return Ok(plan);
    };
    let before = Ring::of(old)?;
    plan.shares = shares(&before, &after);
    plan.movement = if emptied.is_some() {
        let owned: Vec<(String, f64)> = plan.shares.iter().map(|(id, before, _)| (id.clone(), *before)).collect();
        lost(&owned)
    } else if has_other_key(old, new) {
        independent_movement(&before.shares, &before.ids(), &after.shares, &after.ids())
    } else {
        taken_movement(&before.backend_set, &before.ids(), &after.backend_set, &after.ids(), SAMPLE_BUDGET)
    };
    if has_other_key(old, new) {
        plan.kind = "other_key";
    }
    Ok(plan)
}

/// Shares of the backends of either side, before and after.
fn shares(before: &Ring, after: &Ring) -> Vec<(String, f64, f64)> {
    let mut all = before.ids.clone();
    all.extend(after.ids.iter().filter(|id| !before.ids.contains(id)).cloned());
    all.sort_unstable();
    all.into_iter()
        .map(|id| {
            let pair = (before.share_of(&id), after.share_of(&id));
            (id, pair.0, pair.1)
        })
        .collect()
}

/// A key that is read from elsewhere is another key: what it owns now says nothing of what it owned.
fn has_other_key(old: &Service, new: &Service) -> bool {
    let cookie = |service: &Service| {
        let cookie = service.affinity_cookie.as_ref();
        cookie.map(|cookie| (cookie.service.clone(), cookie.name.clone(), cookie.secret.clone()))
    };
    old.hash_key != new.hash_key || cookie(old) != cookie(new)
}

pub(super) fn removed(gone: &Service, new: &Config, blind: bool) -> ServicePlan {
    let of = |backend: &Backend| [Some(backend.address), backend.additional_address].into_iter().flatten();
    let addresses: HashSet<_> = gone.backends.iter().flat_map(of).collect();
    let has_one = |backend: &Backend| of(backend).any(|address| addresses.contains(&address));
    let common = |service: &Service| service.backends.iter().filter(|backend| has_one(backend)).count();
    let candidates = new.services.iter().map(|service| (common(service), service)).filter(|(common, _)| *common > 0);
    let successor = candidates.max_by_key(|(common, _)| *common).map(|(_, service)| service.name.clone());
    let movement = if blind { lost(&even(gone)) } else { Movement::default() };
    ServicePlan { name: gone.name.clone(), kind: "removed", movement, shares: Vec::new(), successor }
}

/// Shares of a service that need not have keys, by weight.
fn even(service: &Service) -> Vec<(String, f64)> {
    let all: u32 = takers(service).map(|backend| backend.weight).sum();
    takers(service).map(|backend| (backend.id.clone(), f64::from(backend.weight) / f64::from(all))).collect()
}

/// All that there was is lost.
fn lost(shares: &[(String, f64)]) -> Movement {
    let owned = shares.iter().filter(|(_, share)| *share > 0.0);
    let moves: Vec<Move> =
        owned.map(|(id, share)| Move { from: id.clone(), to: "nobody".to_owned(), share: *share }).collect();
    Movement { moved: if moves.is_empty() { 0.0 } else { 1.0 }, moves, ..Movement::default() }
}

/// Backends that take traffic as long as all are up: those of the first level that has any.
pub(super) fn takers(service: &Service) -> impl Iterator<Item = &Backend> {
    let takes = |backend: &&Backend| !backend.drain && backend.weight > 0;
    let level = service.backends.iter().filter(takes).map(|backend| backend.level).min();
    service.backends.iter().filter(takes).filter(move |backend| Some(backend.level) == level)
}
