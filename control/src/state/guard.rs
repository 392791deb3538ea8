//! Accidents that have taken fleets down, as rules 0 have them; under later rules, `judge` sees to it.

use super::code::Code;
use super::model::{Change, Key, Object};
use super::traffic::takes_traffic;
use super::txn::Refusal;
use super::{Backend, BackendState, State, validate};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Largest share of a service's weight that one transaction may take away, in percent, unless forced.
const LOSS_PERCENT_MAX: u64 = 50;

/// Accidents that have taken fleets down: one transaction that empties a service or takes most of it away.
pub(super) fn guard(before: &State, after: &State, changes: &[Change]) -> Result<(), Refusal> {
    let takes = |object: &Option<Arc<Object>>| object.as_deref().is_some_and(|object| takes_traffic(object) > 0);
    // Only what takes traffic now and will not can be a loss: registering thousands looks at none of the others.
    let services: BTreeSet<&str> = changes
        .iter()
        .filter(|change| takes(&change.before) && !takes(&change.after))
        .filter_map(|change| match &change.key {
            Key::Backend { service, .. } => Some(service.as_str()),
            _ => None,
        })
        .collect();
    for service in services {
        // Registered ones alone first, because they are at hand; what a document says takes reading it.
        let registered = loss(service, &registered(before, service), &registered(after, service));
        if registered.is_err() {
            loss(service, &with_documents(before, service), &with_documents(after, service))?;
        }
    }
    Ok(())
}

/// Backends that take traffic, with their weights.
type Weights = BTreeMap<String, u64>;

fn registered(state: &State, service: &str) -> Weights {
    let takes = |backend: &Backend| backend.state == BackendState::Ready && backend.weight > 0;
    let list = state.backends(service).filter(|(_, _, backend)| takes(backend));
    list.map(|(id, _, backend)| (id.to_owned(), u64::from(backend.weight))).collect()
}

fn with_documents(state: &State, service: &str) -> Weights {
    let fleet = validate::fleet_config(state, |_| Default::default());
    let Ok(loaded) = ringway_config::check_fleet(&fleet) else { return registered(state, service) };
    match loaded.config.services.iter().find(|known| known.name == service) {
        Some(known) => known
            .backends
            .iter()
            .filter(|backend| !backend.drain && backend.weight > 0)
            .map(|backend| (backend.id.clone(), u64::from(backend.weight)))
            .collect(),
        // The proxies' own files have it: what else is in it is not known here.
        None => registered(state, service),
    }
}

/// What leaves is counted by the weight that it had: another weight is no loss as long as it takes traffic.
fn loss(service: &str, before: &Weights, after: &Weights) -> Result<(), Refusal> {
    let had: u64 = before.values().sum();
    let stays: u64 = before.iter().filter(|(id, _)| after.contains_key(*id)).map(|(_, weight)| weight).sum();
    let comes: u64 = after.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, weight)| weight).sum();
    let has = stays + comes;
    if had > 0 && after.is_empty() {
        return Err(Refusal::new(
            Code::GuardEmpty,
            format!("nothing of {service:?} would take traffic any more: force it if it is meant"),
        ));
    }
    if had.saturating_sub(has) * 100 > had * LOSS_PERCENT_MAX {
        return Err(Refusal::new(
            Code::GuardLoss,
            format!(
                "{service:?} would lose {} % of its weight at once, more than {LOSS_PERCENT_MAX} %: take smaller steps, \
                 or force it",
                (had - has) * 100 / had
            ),
        ));
    }
    Ok(())
}
