//! What the page asks for beside the status: the live view, and what has happened lately.

use super::access::{Caller, Level, Peer};
use super::live::Live;
use super::names;
use super::reply::{Reply, error, json_value, stream};
use crate::apply::handle::ControlHandle;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// Begins a stream of what is shown live, for as long as who asks may read.
pub(super) fn look<B>(control: &ControlHandle, live: &Arc<Live>, peer: &Peer, request: &Request<B>) -> Reply {
    let query = request.uri().query().unwrap_or_default();
    let service = query.split('&').find_map(|pair| pair.strip_prefix("service="));
    let service = service.map(|name| percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned());
    // A stream of a service that is not there would say nothing of it, for ever.
    if let Some(name) = &service
        && let Err(unknown) = names::service(&control.snapshot(), name)
    {
        return error(StatusCode::NOT_FOUND, &unknown);
    }
    let (control, peer, fields) = (control.clone(), peer.clone(), request.headers().clone());
    let is_known = Caller::of(&control, &peer, &fields).is_ok_and(|caller| caller.is_known());
    let still_may = move || Caller::of(&control, &peer, &fields).is_ok_and(|caller| caller.needs(Level::Read).is_ok());
    match live.look(service, is_known, Box::new(still_may)) {
        Some(events) => stream(events),
        None => error(StatusCode::SERVICE_UNAVAILABLE, "too many look at this proxy already: close a page"),
    }
}

/// What has happened lately, oldest first.
pub(super) fn events(control: &ControlHandle) -> Reply {
    let entries = control.journal().entries();
    let numbered = entries.into_iter().map(|(number, entry)| {
        let mut entry = Value::clone(&entry);
        entry["number"] = number.into();
        entry
    });
    json_value(StatusCode::OK, &json!({ "events": numbered.collect::<Vec<_>>() }))
}
