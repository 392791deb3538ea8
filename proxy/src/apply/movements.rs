//! What a change moves of each service's key space.

use crate::snapshot::shadow::group_of_after;
use crate::snapshot::{Service, Snapshot};
use ringway_ring::{Movement, set_movement, taken_movement};
use std::sync::Arc;

/// Flows of keys that the log of a reload names; the plan names all.
const FLOWS_LOGGED: usize = 8;

/// Comparisons of members that a change may cost before the next may come, over all services: a tenth of a second where all are placed by
/// weighted rendezvous. Rings cost none: what they move is reckoned.
const COMPARISONS_MAX: u64 = 3_000_000;

/// What a change moves, of the services that it changes. A backend that drains keeps its position in the ring, so that its keys
/// find it again; while it drains they belong to others: they have moved, as `ringway plan` says too.
pub(super) fn movements(old: &Snapshot, new: &Snapshot) -> Vec<(String, Movement)> {
    let drained = |service: &Service| -> Vec<String> {
        let drained = service.backends.iter().filter(|backend| backend.config.drain);
        drained.map(|backend| backend.config.id.clone()).collect()
    };
    let both = new.services.iter().filter_map(|service| Some((old.service(&service.config.name)?, service)));
    let changed: Vec<_> = both.filter(|(before, service)| !Arc::ptr_eq(before, service)).collect();
    let budget = COMPARISONS_MAX / changed.len().max(1) as u64;
    let mut moved = Vec::new();
    for (before, service) in changed {
        let (drained_before, drained_now) = (drained(before), drained(service));
        if drained_before == drained_now && before.backend_set.places_alike(&service.backend_set) {
            continue;
        }
        let movement = if drained_before.is_empty() && drained_now.is_empty() {
            set_movement(&before.backend_set, &before.ids(), &service.backend_set, &service.ids(), budget)
        } else {
            // Both were built a moment ago, and are there for the most part.
            let Ok(from) = group_of_after(Some(&before.backend_set), &before.config) else { continue };
            let Ok(to) = group_of_after(Some(&from), &service.config) else { continue };
            taken_movement(&from, &before.ids(), &to, &service.ids(), budget)
        };
        moved.push((service.config.name.clone(), movement));
    }
    moved
}

/// Logs what has moved, the largest flows by name.
pub(super) fn log(moved: &[(String, Movement)]) {
    for (service, movement) in moved {
        let flows: Vec<String> = movement
            .moves
            .iter()
            .take(FLOWS_LOGGED)
            .map(|flow| format!("{} -> {} {:.2} %", flow.from, flow.to, flow.share * 100.0))
            .collect();
        tracing::info!(%service, moved_percent = movement.moved * 100.0, flows = flows.join(", "), "keys have moved");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;
    use crate::snapshot::Registry;

    /// A version of one service with these backends; rebuilt, not served.
    fn with(backends: &[&str]) -> Snapshot {
        let backends: Vec<String> = backends
            .iter()
            .enumerate()
            .map(|(port, fields)| format!("{{ address: \"127.0.0.1:{}\", {fields} }}", port + 1))
            .collect();
        let text = format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", service: s }} ]\n\
             services: [ {{ name: s, balance: {{ hash_key: [ {{ path: {{}} }} ] }}, backends: [ {} ] }} ]\n",
            backends.join(", ")
        );
        let loaded = ringway_config::load_str("test.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        Registry::default().prepare(Arc::new(loaded.config), 1, 1, ambient::now()).unwrap()
    }

    #[test]
    fn keys_of_a_backend_that_goes_or_drains_are_what_moves() {
        let all = with(&["id: a", "id: b", "id: c"]);
        assert_eq!(movements(&all, &all), []);
        for fewer in [with(&["id: a", "id: b"]), with(&["id: a", "id: b", "id: c, drain: true"])] {
            let moved = movements(&all, &fewer);
            let [(service, movement)] = moved.as_slice() else { panic!("{moved:?}") };
            assert_eq!(service, "s");
            assert!(movement.moves.iter().all(|flow| flow.from == "c"), "{movement:?}");
            let owned = all.services[0].backend_set.shares()[2];
            assert!((movement.moved - owned).abs() < 0.01, "{} of {owned}", movement.moved);
        }
        // It comes back to what it had: keys go to it, and to nobody else.
        let back = movements(&with(&["id: a", "id: b", "id: c, drain: true"]), &all);
        assert!(back[0].1.moves.iter().all(|flow| flow.to == "c"), "{back:?}");
    }

    #[test]
    fn a_backend_that_drains_already_moves_nothing_by_an_address_of_another() {
        let drains = with(&["id: a", "id: b", "id: c, drain: true"]);
        assert_eq!(movements(&drains, &with(&["id: a", "id: b", "id: c, drain: true"])), []);
    }
}
