//! What becomes of a whole request: its route and key, and what its service makes of the key.

use super::described::{Described, DescribedError};
use super::key::{Subject, explain_subject, live};
use super::request::RequestExplanation;
use crate::overload::OverloadState;
use crate::snapshot::{Service, Snapshot};
use ringway_config::model::Config;
use ringway_ring::Slot;
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
        return Ok(request.json(config, "goes to one of several services, by chance", Value::Null));
    };
    let service = &snapshot.services[index];
    let refused = overload.refused_share(service.config.priority);
    if refused > 0.0 {
        let stage = overload.stage().name();
        request.note(format!("overload ({stage}): {:.0} % of such requests are refused now", refused * 100.0));
    }
    let explanation =
        request.hash.and_then(|hash| live(snapshot, &service.config.name, Subject::Hash(hash))).unwrap_or(Value::Null);
    let verdict = match keeper(service, &request) {
        Some(slot) => format!("goes to {}, which its affinity cookie names, while that can take it", id(service, slot)),
        None if explanation.is_null() => "goes to any backend that can take it, as its policy chooses".to_owned(),
        None => verdict(&explanation),
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

/// In words, what the explanation of a key says.
fn verdict(explanation: &Value) -> String {
    let walk = || explanation["walk"].as_array().into_iter().flatten();
    let said = |id: &Value| walk().find(|one| one["id"] == *id).map_or("", |one| one["verdict"].as_str().unwrap_or(""));
    let (backend, owner) = (&explanation["backend"], &explanation["owner"]);
    match (backend.as_str(), owner.as_str()) {
        (None, _) => "503: no backend can take it now".to_owned(),
        (Some(backend), Some(owner)) if backend == owner => format!("goes to {backend}, its owner"),
        (Some(backend), Some(owner)) => {
            format!("goes to {backend}; its owner {owner}: {}", said(&json!(owner)))
        }
        (Some(backend), None) => format!("goes to {backend}"),
    }
}
