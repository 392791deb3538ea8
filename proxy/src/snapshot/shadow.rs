//! The shadow: another version of the configuration, whose placements are computed for live traffic and counted, while requests follow
//! the version in force.

use ringway_config::Diagnostics;
use ringway_config::model::{self, Config};
use ringway_health::{Member, Params, ServiceHealth};
use ringway_ring::{BackendSet, BuildError, Load, MemberSpec, PolicyParams, Total, hash_key};
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;

/// Why a shadow cannot be used.
#[derive(Debug, Error)]
pub enum ShadowError {
    /// Its file is wrong.
    #[error("{0}")]
    Invalid(Diagnostics),
    /// A ring cannot be built.
    #[error("service {service:?}: {source}")]
    Build {
        /// The service.
        service: String,
        /// Why.
        source: BuildError,
    },
}

/// Another version of the configuration, as far as it places keys.
pub(crate) struct Shadow {
    /// What it was built from.
    pub(crate) config: Config,
    services: Vec<ShadowService>,
}

pub(crate) struct ShadowService {
    config: Arc<model::Service>,
    backend_set: BackendSet,
    ids: Vec<String>,
}

impl Shadow {
    /// Reads and builds it.
    pub(crate) fn load(path: &Path) -> Result<Self, ShadowError> {
        let config = ringway_config::load_file_again(path).map_err(ShadowError::Invalid)?.config;
        let services = config
            .services
            .iter()
            .filter(|service| service.policy.hashes())
            .map(|service| {
                let backend_set =
                    group_of(service).map_err(|source| ShadowError::Build { service: service.name.clone(), source })?;
                let mut ids: Vec<String> = service.backends.iter().map(|backend| backend.id.clone()).collect();
                ids.sort_unstable();
                Ok(ShadowService { config: Arc::clone(service), backend_set, ids })
            })
            .collect::<Result<_, ShadowError>>()?;
        Ok(Self { config, services })
    }

    /// The shadow of a service.
    pub(crate) fn service(&self, name: &str) -> Option<&ShadowService> {
        self.services.iter().find(|service| service.config.name == name)
    }
}

impl ShadowService {
    /// The sources of its keys.
    pub(crate) fn hash_key(&self) -> &[model::KeySource] {
        &self.config.hash_key
    }

    /// Which backend would own a key.
    pub(crate) fn owner(&self, key: &[u8]) -> Option<&str> {
        let slot = self.backend_set.taker(hash_key(key, self.config.policy.seed()))?;
        Some(&self.ids[usize::from(slot.0)])
    }
}

/// A service's group without live state: every backend is healthy and idle, and one that drains takes no keys.
pub(crate) fn group_of(service: &model::Service) -> Result<BackendSet, BuildError> {
    group_of_after(None, service)
}

/// As [`group_of`], made of what it has in common with a set that is there.
pub(crate) fn group_of_after(before: Option<&BackendSet>, service: &model::Service) -> Result<BackendSet, BuildError> {
    // Where one that leaves takes nothing of what others own, it is the same as if it were not there; a Maglev table would be another.
    let stays = matches!(service.policy, PolicyParams::Maglev(_));
    let set = group_with(before, service, |backend| if backend.drain && !stays { 0 } else { backend.weight })?;
    set.set_level_shares(&level_shares(service));
    Ok(set)
}

/// Shares of the levels once all that is to drain has drained, by the machine that says so on the data path.
fn level_shares(service: &model::Service) -> Vec<(u8, f64)> {
    let overprovisioning_percent = service.overprovisioning_percent;
    let params = Params { overprovisioning_percent, ..Params::default() };
    let members: Vec<Member<'_>> = service
        .backends
        .iter()
        .map(|backend| Member {
            weight: backend.weight,
            drain: backend.drain,
            maintenance: backend.maintenance,
            level: backend.level,
            ..Member::new(&backend.id)
        })
        .collect();
    let now = crate::ambient::now();
    let mut health = ServiceHealth::new(params, 0, now);
    health.set_members(&members, now);
    health.level_shares().to_vec()
}

/// The digest of a service's ring, from its configuration alone: every proxy of a zone that runs it has the same. A function of membership (ids,
/// weights, levels, policy): a backend that drains, is ejected or ramps up is a member all the same. `None` for policies without a
/// ring.
///
/// # Errors
/// The ring cannot be built.
pub(crate) fn ring_digest(service: &model::Service) -> Result<Option<u64>, BuildError> {
    Ok(group_with(None, service, membership_weight)?.digest())
}

/// The digest of what every proxy of a fleet that runs the service has in common, whatever its zone; `None` for policies without a ring.
///
/// # Errors
/// The ring cannot be built.
pub fn agreed_digest(service: &model::Service) -> Result<Option<u64>, BuildError> {
    Ok(ring_digest(service)?.map(|ring| agreed_of(service, ring)))
}

/// What proxies must have in common so that keys are where all take them to be: the ring. Where backends of a proxy's own zone come first,
/// each zone has a ring of its own, and what these are made of is in common.
pub(crate) fn agreed_of(service: &model::Service, ring: u64) -> u64 {
    if !service.zone_aware {
        return ring;
    }
    let mut hasher = xxhash_rust::xxh3::Xxh3::with_seed(service.policy.seed());
    hasher.update(service.policy.name().as_bytes());
    match service.policy {
        PolicyParams::Ring(params) => hasher.update(&params.points.to_le_bytes()),
        PolicyParams::Maglev(params) => hasher.update(&params.table_size.to_le_bytes()),
        _ => {}
    }
    let mut backends: Vec<&model::Backend> = service.backends.iter().collect();
    backends.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    for backend in backends {
        // Neither an id nor a zone has a byte of zero.
        for text in [backend.id.as_str(), backend.zone.as_deref().unwrap_or_default()] {
            hasher.update(text.as_bytes());
            hasher.update(&[0]);
        }
        hasher.update(&backend.weight.to_le_bytes());
        hasher.update(&[backend.tier]);
    }
    hasher.digest()
}

/// A backend's weight in the ring. What it takes at the moment is a matter of its load.
pub(crate) fn membership_weight(backend: &model::Backend) -> u32 {
    backend.weight
}

fn group_with(
    before: Option<&BackendSet>,
    service: &model::Service,
    weight: impl Fn(&model::Backend) -> u32,
) -> Result<BackendSet, BuildError> {
    let members = service.backends.iter().map(|backend| MemberSpec {
        id: &backend.id,
        weight: weight(backend),
        requests_max: backend.requests_max,
        level: backend.level,
        load: load_of(backend),
    });
    BackendSet::build_after(before, service.policy, service.bound, members, Arc::new(Total::new(1)))
}

/// Of a backend that is healthy and idle.
fn load_of(backend: &model::Backend) -> Arc<Load> {
    let load = Load::new(&backend.id);
    if backend.drain {
        load.set_active_fraction(0);
    }
    Arc::new(load)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Registry;

    /// A number below `bound`, the next of a sequence that is always the same.
    fn draw(row: &mut u64, bound: u64) -> u64 {
        *row = row.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*row >> 33) % bound
    }

    #[test]
    fn the_digest_from_the_configuration_is_that_of_a_running_proxy_whichever_drains() {
        let mut row = 7;
        for round in 0..60 {
            let policy = ["ring", "maglev", "hrw"][round % 3];
            // No tier is empty.
            let (count, tiers) = (1 + draw(&mut row, 6), 1 + draw(&mut row, 3));
            let backends: Vec<(u64, u64)> = (0..count).map(|index| (draw(&mut row, 4) * 50, index % tiers)).collect();
            let build = |drains: u64| {
                let list: Vec<String> = backends
                    .iter()
                    .enumerate()
                    .map(|(index, (weight, tier))| {
                        let drain = drains >> index & 1 == 1;
                        format!("{{ id: b{index}, address: \"10.0.0.{index}:80\", weight: {weight}, tier: {tier}, drain: {drain} }}")
                    })
                    .collect();
                let text = format!(
                    "services: [ {{ name: s, balance: {{ policy: {policy}, hash_key: [ {{ path: {{}} }} ] }}, backends: [ {} ] }} ]\n\
                     listeners: [ {{ name: l, address: \"127.0.0.1:1\", service: s }} ]\n",
                    list.join(", ")
                );
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("proxy.yaml");
                std::fs::write(&path, &text).unwrap();
                ringway_config::load_file(&path).unwrap_or_else(|error| panic!("{error}: {text}")).config
            };
            let everybody = ring_digest(&build(0).services[0]).unwrap();
            assert!(everybody.is_some());
            let config = build(draw(&mut row, 64));
            let offline = ring_digest(&config.services[0]).unwrap();
            let explained = crate::explain(&config, "s", b"k").unwrap().ring_digest;
            let running = Registry::default().prepare(Arc::new(config), 0, 1, crate::ambient::now()).unwrap();
            assert_eq!(running.services[0].ring_digest(), offline, "{policy} {backends:?}");
            assert_eq!(Some(explained), offline);
            assert_eq!(everybody, offline, "draining is no membership");
        }
    }

    #[test]
    fn proxies_of_all_zones_agree_on_what_their_rings_are_made_of_and_on_nothing_else() {
        let digest = |own: &str, policy: &str, members: [(&str, u32, u8); 3]| {
            let list = members.iter().enumerate().map(|(index, (zone, weight, tier))| {
                format!(
                    "{{ id: b{index}, address: \"10.0.0.{index}:80\", zone: {zone}, weight: {weight}, tier: {tier} }}"
                )
            });
            let list: Vec<String> = list.collect();
            let text = format!(
                "zone: {own}\nservices: [ {{ name: s, zone_aware: true, balance: {{ {policy}, hash_key: [ {{ path: {{}} }} ] }}, backends: [ {} ] }} ]\n\
                 listeners: [ {{ name: l, address: \"127.0.0.1:1\", service: s }} ]\n",
                list.join(", ")
            );
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("proxy.yaml");
            std::fs::write(&path, &text).unwrap();
            let config = ringway_config::load_file(&path).unwrap_or_else(|error| panic!("{error}: {text}")).config;
            let (ring, agreed) =
                (ring_digest(&config.services[0]).unwrap(), agreed_digest(&config.services[0]).unwrap());
            let running = Registry::default().prepare(Arc::new(config), 0, 1, crate::ambient::now()).unwrap();
            assert_eq!(running.agreed_digests().get("s").copied(), agreed);
            (ring, agreed)
        };
        let members = [("x", 100, 0), ("x", 50, 0), ("y", 100, 0)];
        let (of_x, agreed) = digest("x", "policy: ring", members);
        let (of_y, too) = digest("y", "policy: ring", members);
        assert!(of_x != of_y && agreed == too && agreed.is_some());
        for (policy, members) in [
            ("policy: maglev", members),
            ("policy: ring, points: 100", members),
            ("policy: ring", [("x", 100, 0), ("x", 51, 0), ("y", 100, 0)]),
            ("policy: ring", [("x", 100, 0), ("y", 50, 0), ("y", 100, 0)]),
            ("policy: ring", [("x", 100, 0), ("x", 50, 1), ("y", 100, 0)]),
        ] {
            assert_ne!(digest("x", policy, members).1, agreed, "{policy} {members:?}");
        }
    }
}
