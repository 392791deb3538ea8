//! Services of the topology: what is written and what has registered, what operators and the fleet say of it, and whether proxies have the
//! same rings.

use super::objects::{Objects, registered};
use crate::state::{Backend, Key, State};
use crate::watch::wire::FleetBrief;
use ringway_config::model::{self, Service};
use ringway_config::{Diagnostics, Loaded};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Services that are shown of all; how many there are stands beside them.
const SERVICES_MAX: usize = 500;
/// Backends that are shown of one; how many there are stands beside them.
const BACKENDS_MAX: usize = 2000;
/// Names of proxies that are told for each ring.
const NAMES_MAX: usize = 20;

/// What services are read from.
pub(super) struct Shown<'a> {
    pub(super) state: &'a State,
    pub(super) objects: &'a Objects,
    pub(super) told: &'a FleetBrief,
    pub(super) configuration: Option<&'a Result<Loaded, Diagnostics>>,
}

/// How many proxies have a ring, by its digest.
type Rings<'a> = BTreeMap<&'a str, usize>;

impl Shown<'_> {
    /// All of them, in sums.
    pub(super) fn overview(&self) -> Value {
        let kinds = self.kinds();
        let services = self
            .services()
            .iter()
            .take(SERVICES_MAX)
            .map(|service| (service.name.clone(), self.sums(service, &self.rings(&kinds, &service.name))));
        Value::Object(services.collect::<Map<_, _>>())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.services().len()
    }

    fn sums(&self, service: &Service, rings: &Rings<'_>) -> Value {
        let drained = service.backends.iter().filter(|backend| backend.drain || backend.weight == 0).count();
        let found = self.objects.of(&service.name);
        let most = rings.iter().max_by_key(|(_, count)| **count).map(|(digest, _)| *digest);
        json!({
            "policy": service.policy.name(), "backends": service.backends.len(), "drained": drained,
            "registered": found.registered, "ejected": found.ejected,
            "frozen": self.told.frozen.get(&service.name), "rings": rings.len(), "ring": most,
        })
    }

    /// One of them, with its backends.
    pub(super) fn one(&self, name: &str) -> Option<Value> {
        let service = self.services().iter().find(|service| service.name == name)?;
        let down = self.told.down.iter().filter_map(|(key, count)| match key {
            Key::Backend { service, id } if service == name => Some((id.as_str(), *count)),
            _ => None,
        });
        let down: BTreeMap<&str, usize> = down.collect();
        let known: BTreeMap<&str, &Backend> = registered(self.state, name).collect();
        let backends = service.backends.iter().take(BACKENDS_MAX).map(|backend| {
            let known = known.get(backend.id.as_str());
            let shown = json!({
                "address": backend.address.to_string(),
                "additional_address": backend.additional_address.map(|address| address.to_string()), "weight": backend.weight, "tier": backend.tier, "zone": backend.zone,
                "state": state(known.copied(), backend), "registered": known.is_some(), "lease": known.and_then(|known| known.lease),
                "source": known.and_then(|known| known.source.as_deref()), "down_at": down.get(backend.id.as_str()),
            });
            (backend.id.clone(), shown)
        });
        let backends = Value::Object(backends.collect::<Map<_, _>>());
        let live = self.told.proxies.iter().filter(|proxy| proxy.state != "offline").count();
        let rings = self.rings(&self.kinds(), name);
        Some(json!({
            "name": name, "sums": self.sums(service, &rings), "backends": backends, "rings": self.named(name, &rings),
            "proxies": live,
        }))
    }

    /// Which proxies have which ring; so many names as can be read.
    fn named(&self, name: &str, rings: &Rings<'_>) -> Value {
        let mut shown: Map<String, Value> = Map::new();
        for (digest, count) in rings {
            let have =
                |kind: &u64| self.told.rings.get(kind).and_then(|rings| rings.get(name)).is_some_and(|of| of == digest);
            let proxies = self.told.proxies.iter().zip(&self.told.kinds);
            let proxies = proxies.filter(|(_, kind)| kind.as_ref().is_some_and(have)).map(|(proxy, _)| &proxy.name);
            let proxies: Vec<&String> = proxies.take(NAMES_MAX).collect();
            shown.insert((*digest).to_owned(), json!({ "count": count, "proxies": proxies }));
        }
        Value::Object(shown)
    }

    fn services(&self) -> &[std::sync::Arc<Service>] {
        self.configuration.and_then(|read| read.as_ref().ok()).map_or(&[], |loaded| &loaded.config.services)
    }

    /// How many proxies have rings of each kind.
    fn kinds(&self) -> BTreeMap<u64, usize> {
        let mut kinds = BTreeMap::new();
        self.told.kinds.iter().flatten().for_each(|kind| *kinds.entry(*kind).or_default() += 1);
        kinds
    }

    fn rings(&self, kinds: &BTreeMap<u64, usize>, service: &str) -> Rings<'_> {
        let mut rings = Rings::new();
        for (kind, of) in &self.told.rings {
            if let (Some(digest), Some(count)) = (of.get(service), kinds.get(kind)) {
                *rings.entry(digest.as_str()).or_default() += count;
            }
        }
        rings
    }
}

/// What is agreed of a backend. Without weight it takes nothing, and is drained by nobody.
fn state(known: Option<&Backend>, backend: &model::Backend) -> &'static str {
    match known {
        Some(known) if known.ejected => "ejected",
        _ if backend.maintenance => "maintenance",
        _ if backend.drain => "drained",
        _ if backend.weight == 0 => "no weight",
        _ => "up",
    }
}
