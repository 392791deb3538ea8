//! The backends of a service.

use super::text::{additional_address, backend_address, name, unique};
use crate::decode::Decode;
use crate::diagnostic::At;
use crate::findings::Findings;
use crate::fleet::{self, FleetBackend};
use crate::{model, schema};
use ringway_ring::PolicyParams;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::SocketAddr;

/// With a control plane (`fleet`), a service's backends may all be registered there, and none be so yet.
pub(super) fn backends(
    section: &schema::ServiceSection,
    zone: Option<&str>,
    fleet: bool,
    findings: &mut Findings,
) -> Vec<model::Backend> {
    let list = &section.backends.value;
    if list.is_empty() && !list.lost && !fleet {
        findings.error(
            section.backends.place,
            "empty_service",
            format!("service {:?} has no backend", section.name.value),
            "add one: `- { id: a, address: \"10.0.0.1:8080\" }`",
        );
    }
    if list.len() > usize::from(u16::MAX) {
        findings.error(
            section.backends.place,
            "too_many_backends",
            format!("{} backends", list.len()),
            "a service has at most 65535",
        );
    }
    unique(list.iter().map(|backend| &backend.value.id), "backend", findings);
    shared_addresses(list, findings);
    can_take_traffic(section, fleet, findings);
    if section.zone_aware.value && zone.is_none() && !fleet {
        findings.error(
            section.zone_aware.place,
            "no_zone",
            "nobody said which zone this proxy stands in",
            "write `zone: ...` at the top of the file, or remove `zone_aware`",
        );
    }
    list.iter().filter_map(|at| backend(&at.value, section.zone_aware.value, zone, findings)).collect()
}

/// A backend of a service that is registered, and of which no text says anything. `None`: not without a finding.
pub(crate) fn registered(
    of_fleet: &FleetBackend,
    service: &model::Service,
    zone: Option<&str>,
) -> Option<model::Backend> {
    let mut findings = Findings::default();
    let section = schema::BackendSection::decode(&fleet::registered(of_fleet), &mut findings)?;
    backend(&section, service.zone_aware, zone, &mut findings).filter(|_| findings.list.is_empty())
}

/// Whether there is nothing to be found about a service's backends together, in a file that knows of a control plane: whatever one
/// of them is looked at beside the others for must be named here.
pub(crate) fn is_plain(service: &model::Service, backends: &[model::Backend]) -> bool {
    let counts = matches!(service.policy, PolicyParams::Maglev(_) | PolicyParams::Rendezvous(_));
    let agent = service.health.as_ref().is_some_and(|health| health.agent.is_some());
    // What is registered comes in the order of its ids.
    let in_order = backends.is_sorted_by(|one, next| one.id < next.id);
    let are_ids_distinct = || in_order || are_distinct(backends.iter().map(|backend| backend.id.as_str()));
    let all = || backends.iter().flat_map(|backend| [Some(backend.address), backend.additional_address]).flatten();
    !counts
        && !agent
        && backends.len() <= usize::from(u16::MAX)
        && (backends.is_empty() || backends.iter().any(|backend| backend.weight > 0 && !backend.drain))
        && are_ids_distinct()
        && are_distinct(all())
}

fn are_distinct<T: Eq + Hash>(items: impl Iterator<Item = T>) -> bool {
    let mut seen = HashSet::with_capacity(items.size_hint().0);
    items.into_iter().all(|item| seen.insert(item))
}

/// That the backends together can take any traffic: not all are drained, and the first tier has one.
fn can_take_traffic(section: &schema::ServiceSection, fleet: bool, findings: &mut Findings) {
    let list = &section.backends.value;
    if !list.is_empty()
        && !list.lost
        && list
            .iter()
            .map(|backend| &backend.value)
            .all(|backend| backend.weight.value.0 == 0 || backend.drain.value || backend.maintenance.value)
    {
        findings.warning(
            section.backends.place,
            "nothing_takes_traffic",
            format!("every backend of {:?} is drained", section.name.value),
            "give one a weight above 0",
        );
    }
    // Backends that are registered come one by one: a backup may be the first.
    if !fleet && !list.is_empty() && !list.lost && list.iter().all(|backend| backend.value.tier.value.0 > 0) {
        let lowest = list.iter().map(|backend| backend.value.tier.value.0).min().unwrap_or(0);
        findings.error(
            section.backends.place,
            "empty_tier",
            format!("tier 0 of {:?} has no backend: the lowest is {lowest}", section.name.value),
            "write `tier: 0` for the backends that take the traffic (or leave it out)",
        );
    }
}

fn backend(
    backend: &schema::BackendSection,
    zone_aware: bool,
    zone: Option<&str>,
    findings: &mut Findings,
) -> Option<model::Backend> {
    let foreign = zone_aware && backend.zone.as_ref().map(|at| at.value.as_str()) != zone;
    name(&backend.id, "a backend's id", findings);
    let at = backend_address(&backend.address, findings);
    let more = additional_address(&backend.address, backend.additional_address.as_ref(), findings);
    Some(model::Backend {
        id: backend.id.value.clone(),
        address: at?,
        additional_address: more,
        weight: backend.weight.value.0 as u32,
        drain: backend.drain.value || backend.maintenance.value,
        drain_written: backend.drain.value,
        maintenance: backend.maintenance.value,
        requests_max: backend.requests_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
        connections_max: backend.connections_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
        pending_max: backend.pending_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
        retries_max: backend.retries_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
        tier: backend.tier.value.0 as u8,
        zone: backend.zone.as_ref().map(|at| at.value.clone()),
        level: backend.tier.value.0 as u8 * 2 + u8::from(foreign),
    })
}

/// Two ids on one address are one backend that is checked, counted and bounded twice. Of many, one warning tells how many they are.
fn shared_addresses(list: &[At<schema::BackendSection>], findings: &mut Findings) {
    let mut seen: HashMap<SocketAddr, &str> = HashMap::new();
    let mut shared = list.iter().filter_map(|backend| {
        let id = backend.value.id.value.as_str();
        let addresses = [Some(&backend.value.address), backend.value.additional_address.as_ref()];
        let shared = addresses.into_iter().flatten().filter_map(|at| {
            let address = at.value.parse::<SocketAddr>().ok()?;
            let other = seen.insert(address, id).filter(|other| *other != id)?;
            Some((at.place, address, other))
        });
        // Each of its addresses is put down, though it is told of once.
        shared.reduce(|first, _| first)
    });
    let Some((place, address, other)) = shared.next() else { return };
    let more = match shared.count() {
        0 => String::new(),
        1 => "; 1 more has another's address too".to_owned(),
        more => format!("; {more} more have another's address too"),
    };
    findings.warning(
        place,
        "shared_address",
        format!("{address} is the address of {other:?} already: one backend with two shares, two loads and two healths{more}"),
        "correct the address; for a larger share, give one of them a higher `weight` and remove the other",
    );
}
