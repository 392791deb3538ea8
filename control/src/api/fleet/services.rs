//! Services of the topology: what is written and what has registered, what operators and the fleet say of it, and whether proxies have the
//! same rings.

use crate::plane::FleetView;
use crate::state::{Backend, Key, Object, State};
use ringway_config::model::Service;
use ringway_config::{Diagnostics, Loaded};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Names of proxies that are told for each ring.
const NAMES_MAX: usize = 20;

/// What services are read from.
pub(super) struct Shown<'a> {
    pub(super) state: &'a State,
    pub(super) told: &'a FleetView,
    pub(super) configuration: Option<&'a Result<Loaded, Diagnostics>>,
}

impl Shown<'_> {
    /// All of them, in sums.
    pub(super) fn overview(&self) -> Value {
        let mut rings = self.rings();
        let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
        for (service, _, backend) in self.registered() {
            let sums = sums.entry(service).or_default();
            sums.registered += 1;
            sums.ejected += usize::from(backend.ejected);
        }
        let services = self.services().map(|service| {
            let drained = service.backends.iter().filter(|backend| backend.drain || backend.weight == 0).count();
            let found = sums.get(service.name.as_str()).copied().unwrap_or_default();
            let rings = rings.remove(service.name.as_str()).unwrap_or_default();
            let most = rings.iter().max_by_key(|(_, names)| names.len()).map(|(digest, _)| *digest);
            let shown = json!({
                "policy": service.policy.name(), "backends": service.backends.len(), "drained": drained,
                "registered": found.registered, "ejected": found.ejected,
                "frozen": self.told.frozen.get(&service.name), "rings": rings.len(), "ring": most,
            });
            (service.name.clone(), shown)
        });
        Value::Object(services.collect::<Map<_, _>>())
    }

    /// One of them, with its backends.
    pub(super) fn one(&self, name: &str) -> Option<Value> {
        let service = self.services().find(|service| service.name == name)?;
        let live = self.told.proxies.iter().filter(|proxy| proxy.state != "offline");
        let mut down: BTreeMap<&str, usize> = BTreeMap::new();
        for key in live.clone().flat_map(|proxy| &proxy.heartbeat.down) {
            if let Key::Backend { service, id } = key
                && service == name
            {
                *down.entry(id).or_default() += 1;
            }
        }
        let registered: BTreeMap<&str, &Backend> =
            self.registered().filter(|(of, ..)| *of == name).map(|(_, id, backend)| (id, backend)).collect();
        let backends = service.backends.iter().map(|backend| {
            let known = registered.get(backend.id.as_str());
            let state = match known {
                Some(known) if known.ejected => "ejected",
                _ if backend.maintenance => "maintenance",
                _ if backend.drain || backend.weight == 0 => "drained",
                _ => "up",
            };
            let shown = json!({
                "address": backend.address.to_string(), "weight": backend.weight, "tier": backend.tier, "zone": backend.zone,
                "state": state, "registered": known.is_some(), "lease": known.and_then(|known| known.lease),
                "source": known.and_then(|known| known.source.as_deref()), "down_at": down.get(backend.id.as_str()),
            });
            (backend.id.clone(), shown)
        });
        let backends = Value::Object(backends.collect::<Map<_, _>>());
        let rings = self.rings().remove(name).unwrap_or_default();
        let rings = rings.into_iter().map(|(digest, mut names)| {
            let count = names.len();
            names.truncate(NAMES_MAX);
            (digest.to_owned(), json!({ "count": count, "proxies": names }))
        });
        let rings = Value::Object(rings.collect::<Map<_, _>>());
        Some(json!({ "name": name, "backends": backends, "rings": rings, "proxies": live.count() }))
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        let loaded = self.configuration.and_then(|read| read.as_ref().ok());
        loaded.into_iter().flat_map(|loaded| &loaded.config.services).map(AsRef::as_ref)
    }

    fn registered(&self) -> impl Iterator<Item = (&str, &str, &Backend)> {
        self.state.objects.iter().filter_map(|(key, entry)| match (key, &*entry.object) {
            (Key::Backend { service, id }, Object::Backend(backend)) => Some((service.as_str(), id.as_str(), backend)),
            _ => None,
        })
    }

    /// By service and digest: the proxies of the fleet's revision that have such a ring.
    fn rings(&self) -> BTreeMap<&str, BTreeMap<&str, Vec<&str>>> {
        let mut rings: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
        let current = self.told.proxies.iter().filter(|proxy| {
            let heartbeat = &proxy.heartbeat;
            proxy.state != "offline" && (heartbeat.epoch, heartbeat.revision) == (self.state.epoch, self.state.revision)
        });
        for proxy in current {
            for (service, digest) in &proxy.heartbeat.rings {
                rings.entry(service).or_default().entry(digest).or_default().push(&proxy.name);
            }
        }
        rings
    }
}

#[derive(Default, Clone, Copy)]
struct Sums {
    registered: usize,
    ejected: usize,
}
