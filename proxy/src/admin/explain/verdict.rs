//! What becomes of a whole request: its route and key, and what its service makes of the key.

use super::described::{Described, DescribedError};
use super::key::{Subject, explain_subject, live};
use super::request::RequestExplanation;
use crate::overload::OverloadState;
use crate::snapshot::{Service, Snapshot};
use ringway_config::model::Config;
use ringway_ring::{AllFull, Slot};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;

/// Explains a request by a configuration alone, with every backend up.
///
/// JSON: `listener`, `client`, `route` (`number`, `conditions`), `nearest`, `service`, `key`, `hash`, `status` and `reason` of a response
/// that no backend gives, `verdict`, `steps`, `explanation` (of the key).
///
/// # Errors
/// See [`DescribedError`].
pub fn explain_request(config: &Config, described: &Described) -> Result<Value, DescribedError> {
    let request = RequestExplanation::new(config, None, &HashMap::new(), described)?;
    let explanation = request
        .service
        .zip(request.hash)
        .and_then(|(service, hash)| explain_subject(config, &config.services[service].name, Subject::Hash(hash)).ok());
    let verdict = match &explanation {
        Some(explanation) => match explanation.walk.first() {
            Some(owner) => format!("goes to {owner}, its owner, while that is up and has room"),
            None => "503: every weight is 0".to_owned(),
        },
        None if request.is_drawn() => DRAWN.to_owned(),
        None => "goes to any backend, as its policy chooses".to_owned(),
    };
    Ok(request.json(config, &verdict, explanation.map_or(Value::Null, |explanation| explanation.json())))
}

/// Explains a request as a running proxy sees it now. `bound`: where its listeners are bound.
///
/// # Errors
/// See [`DescribedError`].
pub(crate) fn live_request(
    snapshot: &Snapshot,
    bound: &HashMap<String, SocketAddr>,
    overload: &OverloadState,
    described: &Described,
) -> Result<Value, DescribedError> {
    let config = &snapshot.config;
    let mut request = RequestExplanation::new(config, Some(&snapshot.tables), bound, described)?;
    let Some(index) = request.service.filter(|_| !request.is_refused()) else {
        return Ok(request.json(config, DRAWN, Value::Null));
    };
    let service = &snapshot.services[index];
    let refused = overload.refused_share(request.priority(&service.config));
    if refused > 0.0 {
        let stage = overload.stage().name();
        request.note(format!("overload ({stage}): {:.0} % of such requests are refused now", refused * 100.0));
    }
    let explanation = request
        .hash
        .and_then(|hash| live(snapshot, &service.config.name, Subject::Hash(hash), request.asked))
        .unwrap_or(Value::Null);
    let verdict = match keeper(service, &request) {
        Some(slot) => format!("goes to {}, which its affinity cookie names, while that can take it", id(service, slot)),
        None if explanation.is_null() => "goes to any backend that can take it, as its policy chooses".to_owned(),
        None => verdict(service, &explanation),
    };
    Ok(request.json(config, &verdict, explanation))
}

fn id(service: &Service, slot: Slot) -> &str {
    &service.backends[usize::from(slot.0)].config.id
}

/// The backend that an affinity cookie binds the request to.
fn keeper(service: &Service, request: &RequestExplanation) -> Option<Slot> {
    match (request.held, request.hash) {
        (Some(value), _) => service.slot_of_cookie(value),
        (None, Some(hash)) if service.config.affinity_cookie.is_some() => service.keeper_of(hash),
        (None, _) => None,
    }
}

const DRAWN: &str = "goes to one of several services, by chance";

/// In words, what becomes of a request whose backends have no room, although some could serve it.
fn when_full(service: &Service) -> &'static str {
    match service.config.all_full {
        AllFull::Queue => "waits until a backend has room, up to the queue's limits: all are full now",
        AllFull::Owner => "goes over the bound to the first backend below its hard limit: all are full now",
        AllFull::LeastLoaded => {
            "goes over the bound to the least loaded backend below its hard limit: all are full now"
        }
        AllFull::Reject => "503: all backends are full now",
    }
}

/// In words, what the explanation of a key says.
fn verdict(service: &Service, explanation: &Value) -> String {
    let walk = || explanation["walk"].as_array().into_iter().flatten();
    let said = |id: &Value| walk().find(|one| one["id"] == *id).map_or("", |one| one["verdict"].as_str().unwrap_or(""));
    let (backend, owner) = (&explanation["backend"], &explanation["owner"]);
    let is_full = |one: &Value| one["verdict"].as_str().is_some_and(|verdict| verdict.starts_with("full"));
    let owners = explanation["hot_owners"].as_u64().unwrap_or(0);
    match (backend.as_str(), owner.as_str()) {
        (None, _) if walk().any(is_full) => when_full(service).to_owned(),
        (None, _) => "503: no backend can take it now".to_owned(),
        (Some(backend), _) if owners > 1 => {
            format!(
                "goes to the less loaded of two of its {owners} owners: the key is hot; {backend} is the first of them"
            )
        }
        (Some(backend), _) if explanation["handoff"]["previous"] == backend => {
            format!("goes to {backend}: {}", explanation["handoff"]["text"].as_str().unwrap_or(""))
        }
        (Some(backend), Some(owner)) if backend == owner => format!("goes to {backend}, its owner"),
        (Some(backend), Some(owner)) => {
            format!("goes to {backend}; its owner {owner}: {}", said(&json!(owner)))
        }
        (Some(backend), None) => format!("goes to {backend}"),
    }
}
