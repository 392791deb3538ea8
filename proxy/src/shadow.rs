//! The shadow: another version of the configuration, whose placements are worked out for live traffic and counted, while
//! requests go where the version in force says.

use crate::key::{self, KeyInput};
use ringway_config::Diagnostics;
use ringway_config::model::{self, Config};
use ringway_ring::{BuildError, Group, GroupMember, Load, Total, hash_key};
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
    config: model::Service,
    group: Group,
    ids: Vec<String>,
}

impl Shadow {
    /// Reads and builds it.
    pub(crate) fn load(path: &Path) -> Result<Self, ShadowError> {
        let config = ringway_config::load_file(path).map_err(ShadowError::Invalid)?.config;
        let services = config
            .services
            .iter()
            .filter(|service| service.policy.hashes())
            .map(|service| {
                let group =
                    group_of(service).map_err(|source| ShadowError::Build { service: service.name.clone(), source })?;
                let mut ids: Vec<String> = service.backends.iter().map(|backend| backend.id.clone()).collect();
                ids.sort_unstable();
                Ok(ShadowService { config: service.clone(), group, ids })
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
    /// Who would own the request. `None` if it has no key there.
    pub(crate) fn owner(&self, input: &KeyInput<'_>, scratch: &mut Vec<u8>) -> Option<&str> {
        if !key::extract(&self.config.hash_key, input, scratch) {
            return None;
        }
        let slot = self.group.owner(hash_key(scratch, self.config.policy.seed()))?;
        Some(&self.ids[usize::from(slot.0)])
    }
}

/// A service's group, apart from all live state: every backend is healthy and idle.
pub(crate) fn group_of(service: &model::Service) -> Result<Group, BuildError> {
    let members = service.backends.iter().map(|backend| GroupMember {
        id: &backend.id,
        weight: if backend.drain { 0 } else { backend.weight },
        requests_max: backend.requests_max,
        level: backend.level,
        load: Arc::new(Load::new(&backend.id)),
    });
    Group::build(service.policy, service.bound, members, Arc::new(Total::new(1)))
}
