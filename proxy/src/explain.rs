//! Where a key goes and why: from the configuration alone, or as a running proxy sees it now.

use crate::shadow::group_of;
use crate::snapshot::Snapshot;
use ringway_config::model::Config;
use ringway_ring::{BuildError, FULL_SHARE, hash_key};
use serde_json::{Value, json};
use std::time::Instant;
use thiserror::Error;

/// A key's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The service.
    pub service: String,
    /// The policy's name.
    pub policy: &'static str,
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
    #[error("service {service:?} is balanced without keys (policy {policy}): there is nothing to explain")]
    NoKeys {
        /// The service.
        service: String,
        /// Its policy.
        policy: &'static str,
    },
    /// The ring cannot be built.
    #[error("service {service:?}: {source}")]
    Build {
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
    if !found.policy.hashes() {
        return Err(ExplainError::NoKeys { service: service.to_owned(), policy: found.policy.name() });
    }
    let group = group_of(found).map_err(|source| ExplainError::Build { service: service.to_owned(), source })?;
    let mut ids: Vec<&str> = found.backends.iter().map(|backend| backend.id.as_str()).collect();
    ids.sort_unstable();
    let hash = hash_key(key, found.policy.seed());
    let walk = group.sequence(hash).into_iter().map(|slot| ids[usize::from(slot.0)].to_owned()).collect();
    let ring_digest = group.digest().unwrap_or_default();
    Ok(Explanation { service: service.to_owned(), policy: found.policy.name(), hash, walk, ring_digest })
}

/// Explains where a key of a running service goes now, and why: every backend of its walk, with what speaks for and against
/// it. `None` without such a service; without keys the walk is empty.
pub(crate) fn live(snapshot: &Snapshot, service: &str, key: Subject<'_>) -> Option<Value> {
    let service = snapshot.service(service)?;
    let hash = match key {
        Subject::Key(key) => hash_key(key, service.seed()),
        Subject::Hash(hash) => hash,
    };
    let health = service.live.health();
    let now = Instant::now();
    let owners = service.live.hot_table.load().get(&hash).copied().unwrap_or(0);
    let mut chosen = None;
    let walk: Vec<Value> = service
        .group
        .sequence(hash)
        .into_iter()
        .enumerate()
        .map(|(index, slot)| {
            let backend = &service.backends[usize::from(slot.0)];
            let id = backend.config.id.as_str();
            let (in_flight, cap) = (backend.state.load.in_flight(), service.group.cap(slot));
            let view = health.view(id, now);
            let state = view.as_ref().map_or("unknown", |view| view.state);
            let accepts = service.group.accepts(slot, hash);
            let verdict = if !accepts && backend.state.load.lifecycle() == 0 {
                "not eligible"
            } else if !accepts {
                "does not take this key (ramp or shedding)"
            } else if in_flight >= cap {
                "full"
            } else if chosen.is_none() {
                chosen = Some(id.to_owned());
                if owners > 1 { "takes it (hot: the less loaded of two of its owners)" } else { "takes it" }
            } else if index < usize::from(owners) {
                "also an owner: the key is hot"
            } else {
                "next if those before cannot"
            };
            json!({
                "id": id,
                "verdict": verdict,
                "state": state,
                "why": view.and_then(|view| view.last_change).map(|(kind, _)| kind.to_string()),
                "tier": backend.config.tier,
                "zone": backend.config.zone,
                "in_flight": in_flight,
                "cap": (cap < u32::MAX).then_some(cap),
                "accept_share": f64::from(backend.state.load.lifecycle()) / f64::from(FULL_SHARE),
                "shed_share": f64::from(backend.state.load.shed()) / f64::from(FULL_SHARE),
            })
        })
        .collect();
    Some(json!({
        "service": service.config.name,
        "policy": service.config.policy.name(),
        "generation": snapshot.generation,
        "ring_digest": service.ring_digest().map(|digest| format!("{digest:016x}")),
        "hash": format!("{hash:016x}"),
        "owner": walk.first().map(|first| first["id"].clone()),
        "backend": chosen,
        "panic": health.is_panic(),
        "hot_owners": owners,
        "in_flight": service.live.total.sum(),
        "walk": walk,
    }))
}

/// What is explained: a key, or its hash as a log shows it.
pub(crate) enum Subject<'a> {
    /// The key's bytes.
    Key(&'a [u8]),
    /// The hash.
    Hash(u64),
}
