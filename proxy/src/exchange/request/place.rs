//! Where a request belongs: its route, its service, its key, and everything that can refuse it before a backend is chosen.

use super::upgrade_of;
use crate::codec::websocket;
use crate::error::ProxyError;
use crate::exchange::actions;
use crate::exchange::client::Client;
use crate::exchange::refusal::Why;
use crate::routing::affinity_cookie::{self, Value as CookieValue};
use crate::routing::forwarded;
use crate::routing::forwarded::Origin;
use crate::routing::hash_key;
use crate::routing::matcher;
use crate::routing::rate_limit::{self, Admission};
use crate::snapshot::Service;
use crate::worker::{View, Worker};
use ringway_config::model::{Route, UpstreamProtocol};
use ringway_message::{BodyLength, Method, RequestHead};
use ringway_ring::{Hash, Slot};
use std::net::IpAddr;
use std::time::Instant;

/// Keys that are drawn for a new client until one is nobody's who takes no new clients.
const FRESH_KEYS_MAX: usize = 64;

/// Why a request has no place: an error, perhaps of a service that was chosen, or an answer of its route.
pub(super) struct Unplaced(pub(super) Why, pub(super) Option<usize>);

impl From<(ProxyError, Option<usize>)> for Unplaced {
    fn from((error, service): (ProxyError, Option<usize>)) -> Self {
        Self(Why::Error(error), service)
    }
}

/// Where a request belongs.
pub(super) struct Placed {
    pub(super) route: usize,
    pub(super) service: usize,
    pub(super) hash: Option<Hash>,
    pub(super) keyed: bool,
    pub(super) origin: Origin,
    pub(super) sticky: Option<Slot>,
    pub(super) set_cookie: Option<CookieValue>,
    /// The arm that the request was drawn into, if its client is to be held there by a cookie of the arm's.
    pub(super) hold: Option<usize>,
    pub(super) explain: bool,
    pub(super) admission: Option<Admission>,
}

/// Route, limits and key: everything that can refuse a request whose framing is good. A refusal names the service, once one
/// was chosen.
pub(super) fn place(
    client: &Client,
    buffer: &[u8],
    view: &View,
    listener: usize,
    head: &RequestHead,
    key_bytes: &mut Vec<u8>,
    now: Instant,
) -> Result<Placed, Unplaced> {
    let http = view.http(listener);
    let refuse = |error| (error, None);
    if head.method == Method::Connect {
        return Err(refuse(ProxyError::ConnectRefused).into());
    }
    if head.expect_unknown {
        return Err(refuse(ProxyError::Expectation).into());
    }
    // Routes that do not look at the path are not fooled by it: such paths are the backend's business.
    if http.routes.iter().any(|route| route.path.is_some()) && ringway_message::climbs(matcher::path_of(buffer, head)) {
        return Err(refuse(ProxyError::PathTraversal).into());
    }
    let origin = forwarded::origin(&http.forwarded, &client.peer, buffer, head);
    let route = matcher::find(&http.routes, buffer, head, origin.secure).ok_or(refuse(ProxyError::NoRoute))?;
    let actions = http.routes[route].actions.as_deref();
    if let Some(canned) = actions.and_then(|actions| actions::canned(actions, origin.secure, buffer, head)) {
        return Err(Unplaced(Why::Answer(canned), None));
    }
    let body_bytes_max = actions.and_then(|actions| actions.body_bytes_max).unwrap_or(http.body_bytes_max);
    if matches!(head.body, BodyLength::Sized(length) if length > body_bytes_max) {
        return Err(refuse(ProxyError::BodyTooLarge).into());
    }
    let server_name = client.peer.server_name.as_deref();
    let input =
        hash_key::KeyInput { buffer, head: Some(head), client: origin.address, secure: origin.secure, server_name };
    let worker = &client.open.worker;
    let Arm { service, hold } = arm_of(&http.routes[route], view, &input, head, key_bytes, worker);
    let this = &view.services[service].service;
    let refuse = |error| (error, Some(service));

    // Towards HTTP/2, the answer to the handshake is made here.
    if this.config.protocol == UpstreamProtocol::H2
        && upgrade_of(this, head, buffer).is_some()
        && head.protocol.is_none()
        && !head.value_of(buffer, b"sec-websocket-key").is_some_and(websocket::is_key)
    {
        return Err(refuse(ProxyError::WebSocketKey).into());
    }
    rate_limit::admit(this, worker, &input, key_bytes, now).map_err(refuse)?;
    let mut placed = Placed {
        route,
        service,
        hash: None,
        keyed: false,
        origin,
        sticky: None,
        set_cookie: None,
        hold,
        explain: explains(&http.explain_allow, client.peer.ip(), head, buffer),
        admission: None,
    };
    if this.hashes() {
        find_key(&mut placed, this, worker, &input, head, key_bytes).map_err(refuse)?;
        if placed.keyed && view.snapshot.shadow.is_some() {
            compare_with_shadow(view, &placed, &input, key_bytes);
        }
    } else if let Some(cookie) = &this.config.affinity_cookie {
        let value = affinity_cookie::find(cookie, buffer, head);
        placed.sticky = value.and_then(|value| this.slot_of_cookie(value.0));
    }
    placed.admission = Admission::enter(this).map_err(refuse)?;
    Ok(placed)
}

/// Where a route leads.
struct Arm {
    service: usize,
    /// The arm of the split whose cookie is to hold the client: it was drawn by chance, and its service sets no cookie itself.
    hold: Option<usize>,
}

/// The service of a route: of a split, the arm that the key falls into; without a key, the one that a cookie holds the client
/// in, or chance.
fn arm_of(
    route: &Route,
    view: &View,
    input: &hash_key::KeyInput<'_>,
    head: &RequestHead,
    key_bytes: &mut Vec<u8>,
    worker: &Worker,
) -> Arm {
    let Some(split) = &route.split else { return Arm { service: route.service, hold: None } };
    let keyed = hash_key::extract(&split.key, input, key_bytes);
    if !keyed && let Some(index) = affinity_cookie::held_arm(split, input.buffer, head) {
        return Arm { service: split.arms[index].service, hold: None };
    }
    let hash = if keyed { ringway_ring::hash_key(key_bytes, 0) } else { worker.random() };
    let arms = split.arms.iter().map(|arm| (arm.salt, arm.weight));
    let Some(index) = ringway_ring::choose_arm(hash, arms) else { return Arm { service: route.service, hold: None } };
    let service = split.arms[index].service;
    let sets_own = || view.services[service].service.config.affinity_cookie.is_some();
    Arm { service, hold: (!keyed && !sets_own()).then_some(index) }
}

/// The key's hash: of an affinity cookie, of the first source that is present, or of what stands for them.
fn find_key(
    placed: &mut Placed,
    this: &Service,
    worker: &Worker,
    input: &hash_key::KeyInput<'_>,
    head: &RequestHead,
    key_bytes: &mut Vec<u8>,
) -> Result<(), ProxyError> {
    if let Some(cookie) = &this.config.affinity_cookie {
        let hash_of = |value: CookieValue| ringway_ring::hash_key(&value.0.to_le_bytes(), this.seed());
        let hash = match affinity_cookie::find(cookie, input.buffer, head).map(hash_of) {
            Some(hash) => {
                placed.sticky = this.keeper_of(hash);
                hash
            }
            None => {
                // Who is new gets no key of a backend that keeps its old clients alone: it would be sent there the next time.
                let draw = || CookieValue(worker.random());
                let mut fresh = draw();
                for _ in 1..FRESH_KEYS_MAX {
                    if this.keeper_of(hash_of(fresh)).is_none() {
                        break;
                    }
                    fresh = draw();
                }
                placed.set_cookie = Some(fresh);
                hash_of(fresh)
            }
        };
        (placed.hash, placed.keyed) = (Some(hash), true);
        return Ok(());
    }
    let found = hash_key::find(this, worker, input, key_bytes)?;
    (placed.hash, placed.keyed) = (Some(found.hash), found.keyed);
    Ok(())
}

/// Counts whether the shadow configuration would send the request elsewhere.
fn compare_with_shadow(view: &View, placed: &Placed, input: &hash_key::KeyInput<'_>, key_bytes: &mut Vec<u8>) {
    let this = &view.services[placed.service];
    let shadow = view.snapshot.shadow.as_ref().and_then(|shadow| shadow.service(&this.service.config.name));
    let (Some(shadow), Some(hash)) = (shadow, placed.hash) else { return };
    let ours = this.service.group.owner(hash).map(|slot| this.service.backends[usize::from(slot.0)].config.id.as_str());
    this.cells.shadowed.increment();
    // No key there is no owner.
    let has_key = hash_key::extract(shadow.hash_key(), input, key_bytes);
    let theirs = if has_key { shadow.owner(key_bytes) } else { None };
    if theirs != ours {
        this.cells.shadow_moved.increment();
    }
}

/// Whether the request asks why it goes where it does, and may.
fn explains(allowed: &[ipnet::IpNet], peer: IpAddr, head: &RequestHead, buffer: &[u8]) -> bool {
    !allowed.is_empty()
        && head.value_of(buffer, b"x-ringway-explain").is_some()
        && crate::net::trusted::is_trusted(allowed, peer)
}
