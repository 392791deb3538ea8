//! How even a ring is.

use crate::snapshot::Service;
use ringway_ring::Slot;

/// Largest share of the key space for its weight, over the fair one. 1 is perfectly even.
pub(super) fn peak_share(service: &Service, shares: &[f64]) -> f64 {
    // Lower tiers own nothing while the first is healthy: fairness is among those that own.
    let owns =
        |index: &usize| service.backend_set.level(Slot(*index as u16)) == service.backend_set.level_shares()[0].0;
    let indices: Vec<usize> = (0..shares.len()).filter(owns).collect();
    let weight = |index: usize| f64::from(service.backends[index].config.weight);
    let all: f64 = indices.iter().map(|&index| weight(index)).sum();
    let ratios = indices.iter().filter(|&&index| weight(index) > 0.0).map(|&index| shares[index] * all / weight(index));
    ratios.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;
    use crate::snapshot::Registry;
    use std::sync::Arc;

    #[test]
    fn shares_are_held_against_weights_among_those_that_own() {
        let text = "listeners: [ { name: web, address: \"127.0.0.1:0\", service: s } ]\n\
                    services:\n  - name: s\n    balance: { hash_key: [ { path: {} } ] }\n    backends:\n\
                    \x20     - { id: a, address: \"127.0.0.1:1\" }\n      - { id: b, address: \"127.0.0.1:2\", weight: 300 }\n\
                    \x20     - { id: c, address: \"127.0.0.1:3\", tier: 1 }\n      - { id: d, address: \"127.0.0.1:4\", weight: 0 }\n";
        let loaded = ringway_config::load_str("test.yaml", text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let snapshot = Registry::default().prepare(Arc::new(loaded.config), 1, 1, ambient::now()).unwrap();
        let peak = |shares: [f64; 4]| peak_share(&snapshot.services[0], &shares);
        assert_eq!(peak([0.25, 0.75, 0.0, 0.0]), 1.0);
        assert_eq!(peak([0.5, 0.5, 0.0, 0.0]), 2.0);
        assert_eq!(peak([0.0, 0.0, 1.0, 0.0]), 0.0, "what a lower tier has is no unevenness of the first");
    }
}
