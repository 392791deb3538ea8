//! Proxies on one revision whose rings differ: those that are not as most are have drifted. Rings are compared by their numbers
//! ([`Seen::rings`]), and by name only where those differ and are not those that were compared last.

use super::seen::Seen;
use std::collections::{BTreeMap, BTreeSet};

/// What was compared last, and what came of it.
#[derive(Default, Clone)]
pub(super) struct Drift {
    /// How many proxies have which rings.
    groups: BTreeMap<u64, usize>,
    drifted: BTreeSet<u64>,
    /// Rings that have been compared by name.
    pub(super) compared: u64,
}

impl Drift {
    /// Of proxies that agree otherwise. A canary has a change that others do not have yet: it is none of them.
    pub(super) fn follow<'s>(&mut self, synced: impl Iterator<Item = &'s Seen>) {
        let synced: Vec<&Seen> = synced.filter(|seen| seen.heartbeat.canary.is_none()).collect();
        let mut groups: BTreeMap<u64, usize> = BTreeMap::new();
        for seen in &synced {
            *groups.entry(seen.rings).or_default() += 1;
        }
        if groups == self.groups {
            return;
        }
        self.drifted.clear();
        // As a rule all have the same.
        if groups.len() > 1 {
            let named = synced.iter().map(|seen| (seen.rings, &seen.heartbeat.rings)).collect();
            self.compare(&named, &groups);
        }
        self.groups = groups;
    }

    fn compare(&mut self, named: &BTreeMap<u64, &BTreeMap<String, String>>, groups: &BTreeMap<u64, usize>) {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (number, rings) in named {
            let proxies = groups.get(number).copied().unwrap_or(0);
            for (service, digest) in *rings {
                self.compared += 1;
                *counts.entry((service, digest)).or_default() += proxies;
            }
        }
        let mut most: BTreeMap<&str, usize> = BTreeMap::new();
        for ((service, _), count) in &counts {
            let most = most.entry(service).or_default();
            *most = (*most).max(*count);
        }
        for (number, rings) in named {
            let differs = rings.iter().any(|(service, digest)| {
                let own = counts.get(&(service.as_str(), digest.as_str())).copied().unwrap_or(0);
                most.get(service.as_str()).is_some_and(|most| *most > own)
            });
            if differs {
                self.drifted.insert(*number);
            }
        }
    }

    /// Whether a proxy that agrees otherwise has other rings than most, as far as they have been compared.
    pub(super) fn has_drifted(&self, seen: &Seen) -> bool {
        seen.heartbeat.canary.is_none() && self.drifted.contains(&seen.rings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::wire::Heartbeat;
    use serde_json::json;
    use std::time::Instant;

    /// A proxy with a thousand rings, of which one has this digest.
    fn proxy(odd: &str, canary: Option<u64>) -> Seen {
        let mut rings: BTreeMap<String, String> = (0..1000).map(|number| (format!("s{number}"), "d".into())).collect();
        rings.insert("s7".into(), odd.into());
        let heartbeat: Heartbeat = serde_json::from_value(json!({
            "version": "1", "epoch": 1, "revision": 1, "digest": "d", "rings": rings, "stuck": null, "generation": 1, "vote": null,
            "down": [], "requests": 0, "failed": 0, "canary": canary,
        }))
        .unwrap();
        Seen::new(heartbeat, Instant::now(), Instant::now())
    }

    #[test]
    fn a_thousand_proxies_with_a_thousand_rings_are_compared_by_name_only_when_they_begin_to_differ() {
        let mut drift = Drift::default();
        let mut fleet: Vec<Seen> = (0..1000).map(|_| proxy("d", None)).collect();
        drift.follow(fleet.iter());
        assert_eq!(drift.compared, 0, "all are the same");
        fleet[3] = proxy("other", None);
        for _ in 0..10 {
            drift.follow(fleet.iter());
        }
        assert_eq!(drift.compared, 2 * 1000, "two kinds of proxies, once");
        let drifted: Vec<usize> = (0..1000).filter(|&index| drift.has_drifted(&fleet[index])).collect();
        assert_eq!(drifted, [3]);
        fleet[3] = proxy("d", None);
        drift.follow(fleet.iter());
        assert_eq!((drift.compared, drift.has_drifted(&fleet[3])), (2 * 1000, false));
    }

    #[test]
    fn a_canary_has_not_drifted_and_makes_nobody_drift() {
        let mut drift = Drift::default();
        let fleet = [proxy("d", None), proxy("new", Some(1)), proxy("new", Some(1))];
        drift.follow(fleet.iter());
        assert!(!fleet.iter().any(|seen| drift.has_drifted(seen)));
        assert_eq!(drift.compared, 0);
    }
}
