//! What was changed while the proxy runs, without a file: laid over each configuration before it is built. Pure; times are arguments.

use ringway_config::BackendPatch;
use ringway_config::model::{Backend, Config, Service, Spread};
use ringway_ring::HotParams;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Keys that are spread at once, over all services.
const SPREADS_MAX: usize = 1024;

/// All runtime changes that are in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Overrides {
    /// By service and backend.
    pub(crate) backends: BTreeMap<(String, String), BackendOverride>,
    /// By service and the key's hash.
    pub(crate) spreads: BTreeMap<(String, u64), Set<Spread>>,
}

/// What is changed of a backend.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct BackendOverride {
    pub(crate) drain: Option<Set<bool>>,
    pub(crate) maintenance: Option<Set<bool>>,
    pub(crate) weight: Option<Set<u32>>,
}

/// A value that somebody has set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Set<T> {
    pub(crate) value: T,
    pub(crate) by: String,
    pub(crate) at: SystemTime,
}

/// What is asked for of a backend. `None` leaves a field alone, `Some(None)` gives it back to the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct BackendChange {
    pub(crate) drain: Option<Option<bool>>,
    pub(crate) maintenance: Option<Option<bool>>,
    pub(crate) weight: Option<Option<u32>>,
}

/// Who changes something, and when.
#[derive(Debug, Clone)]
pub(crate) struct Author {
    pub(crate) by: String,
    pub(crate) at: SystemTime,
}

impl Author {
    fn set<T>(&self, value: T) -> Set<T> {
        Set { value, by: self.by.clone(), at: self.at }
    }
}

impl BackendOverride {
    fn is_empty(&self) -> bool {
        self.drain.is_none() && self.maintenance.is_none() && self.weight.is_none()
    }

    /// The backend as it is by these.
    fn lay_over(&self, file: &mut Backend) {
        file.weight = self.weight.as_ref().map_or(file.weight, |set| set.value);
        file.maintenance = self.maintenance.as_ref().map_or(file.maintenance, |set| set.value);
        // Maintenance drains too.
        file.drain = self.drain.as_ref().map_or(file.drain_written, |set| set.value) || file.maintenance;
    }

    /// Forgets what is as the file has it: the file may say something else again, and that is then in force.
    fn forget_same(&mut self, file: &Backend) {
        if self.weight.as_ref().is_some_and(|set| set.value == file.weight) {
            self.weight = None;
        }
        if self.maintenance.as_ref().is_some_and(|set| set.value == file.maintenance) {
            self.maintenance = None;
        }
        if self.drain.as_ref().is_some_and(|set| set.value == file.drain_written) {
            self.drain = None;
        }
    }

    /// What is in force although the file says otherwise, field by field.
    fn differences(&self, file: &Backend) -> Vec<String> {
        let drain =
            self.drain.as_ref().map(|set| ("drain", set.value.to_string(), file.drain_written.to_string(), &set.by));
        let maintenance = self
            .maintenance
            .as_ref()
            .map(|set| ("maintenance", set.value.to_string(), file.maintenance.to_string(), &set.by));
        let weight =
            self.weight.as_ref().map(|set| ("weight", set.value.to_string(), file.weight.to_string(), &set.by));
        let fields = [drain, maintenance, weight].into_iter().flatten();
        fields
            .map(|(name, value, file, by)| format!("{name} is {value} (by {by}), not {file} as in the file"))
            .collect()
    }
}

impl Overrides {
    /// Takes in what is asked for of a backend. `file`: as the file has it.
    pub(super) fn change(&mut self, service: &str, file: &Backend, change: &BackendChange, author: &Author) {
        fn take<T: Copy + PartialEq>(field: &mut Option<Set<T>>, change: Option<Option<T>>, author: &Author) {
            match change {
                None => {}
                Some(None) => *field = None,
                // What is so already was done by somebody else.
                Some(Some(value)) if field.as_ref().is_some_and(|set| set.value == value) => {}
                Some(Some(value)) => *field = Some(author.set(value)),
            }
        }
        let key = (service.to_owned(), file.id.clone());
        let mut of = self.backends.remove(&key).unwrap_or_default();
        take(&mut of.drain, change.drain, author);
        take(&mut of.maintenance, change.maintenance, author);
        take(&mut of.weight, change.weight, author);
        of.forget_same(file);
        if !of.is_empty() {
            self.backends.insert(key, of);
        }
    }

    /// Spreads a key over so many owners, until then. `false`: too many are spread already.
    pub(super) fn spread(&mut self, service: &str, spread: Spread, author: &Author) -> bool {
        let key = (service.to_owned(), spread.hash);
        if self.spreads.len() >= SPREADS_MAX && !self.spreads.contains_key(&key) {
            return false;
        }
        self.spreads.insert(key, author.set(spread));
        true
    }

    /// Spreads a key no longer. `false`: nobody had spread it.
    pub(super) fn end_spread(&mut self, service: &str, hash: u64) -> bool {
        self.spreads.remove(&(service.to_owned(), hash)).is_some()
    }

    /// Forgets what is over, what is as the file has it by now, and what has gone; a line for each of what has gone.
    pub(super) fn settle(&mut self, file: &Config, now: Instant) -> Vec<String> {
        let mut gone = Vec::new();
        self.backends.retain(|(service, id), of| {
            let Some(backend) = service_of(file, service).and_then(|service| backend_of(service, id)) else {
                gone.push(format!("service {service:?}: backend {id:?} has gone, and what was changed of it with it"));
                return false;
            };
            of.forget_same(backend);
            !of.is_empty()
        });
        self.spreads.retain(|(service, hash), set| {
            let is_there = service_of(file, service).is_some_and(hashes);
            if !is_there {
                gone.push(format!("service {service:?}: the key {hash:016x} is spread no longer: there are no keys"));
            }
            is_there && set.value.until > now
        });
        gone
    }

    /// Lays them over a configuration of a file. Gives the services of before by name, and what the file says otherwise.
    pub(super) fn lay_over(&self, config: &mut Config) -> Overlaid {
        let mut overlaid = Overlaid::default();
        for ((name, id), of) in &self.backends {
            let Some(service) = overlaid.service_mut(config, name) else { continue };
            let Some(backend) = service.backends.iter_mut().find(|backend| backend.id == *id) else { continue };
            let differences = of.differences(backend);
            of.lay_over(backend);
            overlaid
                .differs
                .extend(differences.into_iter().map(|what| format!("service {name:?}: backend {id:?}: {what}")));
        }
        for ((name, _), set) in &self.spreads {
            let Some(service) = overlaid.service_mut(config, name) else { continue };
            service.spread.push(set.value);
            // No key becomes hot by itself where the file does not say when.
            let never = HotParams { enter: f64::INFINITY, leave: f64::INFINITY, ..HotParams::default() };
            service.hot_keys.get_or_insert(never);
        }
        overlaid
    }

    /// What is changed of backends, as a file would have it.
    pub(super) fn patches(&self) -> Vec<BackendPatch> {
        let mut patches = Vec::new();
        for ((service, backend), of) in &self.backends {
            let drain = of.drain.as_ref().map(|set| ("drain", set.value.to_string()));
            let maintenance = of.maintenance.as_ref().map(|set| ("maintenance", set.value.to_string()));
            let weight = of.weight.as_ref().map(|set| ("weight", set.value.to_string()));
            patches.extend([drain, maintenance, weight].into_iter().flatten().map(|(field, value)| BackendPatch {
                service: service.clone(),
                backend: backend.clone(),
                field,
                value,
            }));
        }
        patches
    }

    /// When the first of the spread keys is over.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.spreads.values().map(|set| set.value.until).min()
    }
}

/// What a configuration was before something was laid over it.
#[derive(Debug, Default)]
pub(crate) struct Overlaid {
    /// The services that are not as the file has them, as the file has them.
    pub(super) originals: BTreeMap<String, Arc<Service>>,
    /// What the file says otherwise.
    pub(super) differs: Vec<String>,
}

impl Overlaid {
    /// A service, to be changed; what it was is kept.
    fn service_mut<'c>(&mut self, config: &'c mut Config, name: &str) -> Option<&'c mut Service> {
        let service = config.services.iter_mut().find(|service| service.name == name)?;
        self.originals.entry(name.to_owned()).or_insert_with(|| Arc::clone(service));
        Some(Arc::make_mut(service))
    }

    /// The configuration as the file has it.
    pub(super) fn restore(&self, config: &Config) -> Config {
        let mut file = config.clone();
        for service in &mut file.services {
            if let Some(original) = self.originals.get(&service.name) {
                *service = Arc::clone(original);
            }
        }
        file
    }
}

pub(super) fn service_of<'c>(config: &'c Config, name: &str) -> Option<&'c Service> {
    config.services.iter().find(|service| service.name == name).map(|service| &**service)
}

pub(super) fn backend_of<'c>(service: &'c Service, id: &str) -> Option<&'c Backend> {
    service.backends.iter().find(|backend| backend.id == id)
}

/// Whether requests have keys there.
pub(super) fn hashes(service: &Service) -> bool {
    service.policy.hashes()
}

#[cfg(test)]
mod tests {
    use super::super::testing::config;
    use super::*;
    use crate::ambient;
    use std::time::Duration;

    fn file(backends: &str) -> Config {
        config(&format!(
            "listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\n\
             services:\n  - {{ name: s, balance: {{ hash_key: [ {{ path: {{}} }} ], hot_keys: {{ enabled: false }} }}, backends: [ {backends} ] }}\n  \
             - {{ name: t, balance: {{ policy: random }}, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }}\n"
        ))
    }

    fn one(more: &str) -> String {
        format!("{{ id: a, address: \"127.0.0.1:9\", {more} }}")
    }

    fn author() -> Author {
        Author { by: "ops".into(), at: SystemTime::UNIX_EPOCH }
    }

    fn drain(value: Option<bool>) -> BackendChange {
        BackendChange { drain: Some(value), ..BackendChange::default() }
    }

    /// What is in force of the first backend, and what the file says otherwise.
    fn in_force(overrides: &Overrides, file: &Config) -> ((bool, bool, u32), usize) {
        let mut laid = file.clone();
        let overlaid = overrides.lay_over(&mut laid);
        assert_eq!(overlaid.restore(&laid), *file);
        let backend = &laid.services[0].backends[0];
        ((backend.drain, backend.maintenance, backend.weight), overlaid.differs.len())
    }

    #[test]
    fn what_is_set_stands_over_what_the_file_says_until_it_is_given_back() {
        let (plain, mut overrides) = (file(&one("weight: 100")), Overrides::default());
        let backend = &plain.services[0].backends[0];
        let mut change = |change: &BackendChange| {
            overrides.change("s", backend, change, &author());
            (in_force(&overrides, &plain), in_force(&overrides, &file(&one("weight: 50"))), overrides.backends.len())
        };
        assert_eq!(change(&drain(Some(true))), (((true, false, 100), 1), ((true, false, 50), 1), 1));
        let more = BackendChange { maintenance: Some(Some(true)), weight: Some(Some(7)), ..BackendChange::default() };
        assert_eq!(change(&more), (((true, true, 7), 3), ((true, true, 7), 3), 1));
        assert_eq!(change(&drain(None)), (((true, true, 7), 2), ((true, true, 7), 2), 1), "maintenance drains too");
        let back = BackendChange { maintenance: Some(None), weight: Some(None), ..BackendChange::default() };
        assert_eq!(change(&back), (((false, false, 100), 0), ((false, false, 50), 0), 0));
        // What the file says anyway is no change, and stands over no later file.
        assert_eq!(change(&drain(Some(false))), (((false, false, 100), 0), ((false, false, 50), 0), 0));
    }

    #[test]
    fn a_backend_that_the_file_drains_is_made_ready_and_a_file_that_says_the_same_takes_over() {
        let (drained, mut overrides) = (file(&one("maintenance: true")), Overrides::default());
        let ready = BackendChange { drain: Some(Some(false)), maintenance: Some(Some(false)), weight: None };
        overrides.change("s", &drained.services[0].backends[0], &ready, &author());
        assert_eq!(in_force(&overrides, &drained), ((false, false, 100), 1));
        assert_eq!(overrides.settle(&drained, ambient::now()), [""; 0]);
        assert_eq!(overrides.backends.len(), 1);
        assert_eq!(overrides.settle(&file(&one("weight: 1")), ambient::now()), [""; 0]);
        assert_eq!(overrides, Overrides::default(), "from now on the file says it");
    }

    #[test]
    fn what_is_said_of_draining_and_of_maintenance_is_each_laid_over_what_the_file_says_of_it() {
        let said = [None, Some(None), Some(Some(false)), Some(Some(true))];
        for (file_drain, file_maintenance) in [(false, false), (false, true), (true, false), (true, true)] {
            let file = file(&one(&format!("drain: {file_drain}, maintenance: {file_maintenance}")));
            for (drain, maintenance) in said.iter().flat_map(|drain| said.map(|maintenance| (*drain, maintenance))) {
                let (change, mut overrides) =
                    (BackendChange { drain, maintenance, weight: None }, Overrides::default());
                overrides.change("s", &file.services[0].backends[0], &change, &author());
                let is = |said: Option<Option<bool>>, file| said.flatten().unwrap_or(file);
                let maintained = is(maintenance, file_maintenance);
                let expected = (is(drain, file_drain) || maintained, maintained, 100);
                let differs =
                    usize::from(is(drain, file_drain) != file_drain) + usize::from(maintained != file_maintenance);
                assert_eq!(
                    in_force(&overrides, &file),
                    (expected, differs),
                    "{change:?} {file_drain} {file_maintenance}"
                );
                overrides.settle(&file, ambient::now());
                assert_eq!(in_force(&overrides, &file), (expected, differs), "after a reload");
            }
        }
    }

    #[test]
    fn what_has_gone_takes_its_changes_with_it_and_the_untouched_is_shared() {
        let (both, mut overrides) =
            (file(&format!("{}, {{ id: b, address: \"127.0.0.1:8\" }}", one(""))), Overrides::default());
        for backend in &both.services[0].backends {
            overrides.change("s", backend, &drain(Some(true)), &author());
        }
        let mut laid = both.clone();
        let overlaid = overrides.lay_over(&mut laid);
        assert!(
            Arc::ptr_eq(&laid.services[1], &both.services[1]) && !Arc::ptr_eq(&laid.services[0], &both.services[0])
        );
        assert!(Arc::ptr_eq(&overlaid.restore(&laid).services[0], &both.services[0]));
        let gone = overrides.settle(&file(&one("")), ambient::now());
        assert!(gone.len() == 1 && gone[0].contains("\"b\" has gone"), "{gone:?}");
        assert_eq!(overrides.backends.len(), 1);
    }

    #[test]
    fn a_key_is_spread_for_its_time_where_there_are_keys() {
        let (now, file, mut overrides) = (ambient::now(), file(&one("")), Overrides::default());
        let spread = |hash| Spread { hash, owners: 2, until: now + Duration::from_secs(10) };
        assert!(overrides.spread("s", spread(7), &author()) && overrides.spread("t", spread(7), &author()));
        assert_eq!(overrides.next_end(), Some(now + Duration::from_secs(10)));
        let gone = overrides.settle(&file, now);
        assert_eq!((gone.len(), overrides.spreads.len()), (1, 1), "`t` has no keys");
        let mut laid = file.clone();
        overrides.lay_over(&mut laid);
        assert_eq!(laid.services[0].spread, [spread(7)]);
        assert!(laid.services[0].hot_keys.is_some_and(|hot| hot.enter.is_infinite()));
        assert!(overrides.settle(&file, now + Duration::from_secs(10)).is_empty());
        assert_eq!(overrides, Overrides::default());
        assert!((0..SPREADS_MAX as u64).all(|hash| overrides.spread("s", spread(hash), &author())));
        assert!(!overrides.spread("s", spread(u64::MAX), &author()) && overrides.spread("s", spread(1), &author()));
    }
}
