//! Where a key goes, from the configuration alone: what `ringway explain` prints.

use ringway_config::model::Config;
use ringway_ring::{BuildError, Member, PolicyParams, Ring, hash_key};
use thiserror::Error;

/// A key's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The service.
    pub service: String,
    /// XXH3-64 of the key, with the service's seed.
    pub hash: u64,
    /// Ids, owner first: what spill, skip and retry follow.
    pub walk: Vec<String>,
    /// The ring's digest.
    pub ring_digest: u64,
}

/// Why a key cannot be explained.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExplainError {
    /// No such service.
    #[error("there is no service {wanted:?}; there are {}", .names.join(", "))]
    NoService {
        /// What was asked for.
        wanted: String,
        /// What there is.
        names: Vec<String>,
    },
    /// The policy places without keys.
    #[error("service {0:?} is balanced without keys (policy round_robin): there is nothing to explain")]
    NoKeys(String),
    /// The ring cannot be built.
    #[error("service {service:?}: {source}")]
    Ring {
        /// The service.
        service: String,
        /// Why.
        source: BuildError,
    },
}

/// Explains a key.
///
/// # Errors
/// See [`ExplainError`].
pub fn explain(config: &Config, service: &str, key: &[u8]) -> Result<Explanation, ExplainError> {
    let names = || config.services.iter().map(|service| service.name.clone()).collect();
    let found = config.services.iter().find(|candidate| candidate.name == service);
    let found = found.ok_or_else(|| ExplainError::NoService { wanted: service.to_owned(), names: names() })?;
    let PolicyParams::Ring(params) = found.policy else {
        return Err(ExplainError::NoKeys(service.to_owned()));
    };
    let members: Vec<Member<'_>> =
        found.backends.iter().map(|backend| Member { id: &backend.id, weight: backend.weight }).collect();
    let ring =
        Ring::build(&members, params).map_err(|source| ExplainError::Ring { service: service.to_owned(), source })?;
    let mut ids: Vec<&str> = found.backends.iter().map(|backend| backend.id.as_str()).collect();
    ids.sort_unstable();
    let hash = hash_key(key, params.seed);
    let mut cursor = ring.walk(hash);
    let walk = std::iter::from_fn(|| cursor.next(&ring)).map(|slot| ids[usize::from(slot.0)].to_owned()).collect();
    Ok(Explanation { service: service.to_owned(), hash, walk, ring_digest: ring.digest() })
}
