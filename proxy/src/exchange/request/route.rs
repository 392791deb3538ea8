//! Where a request belongs: its route, its service, and every check that can refuse it before a backend is chosen.

use crate::codec::websocket;
use crate::error::ProxyError;
use crate::exchange::actions;
use crate::exchange::client::Client;
use crate::exchange::local_reply::Cause;
use crate::routes::{RouteTable, path_of};
use crate::routing::admission::{self, Admitted, Arrival};
use crate::routing::forwarded::{self, Origin};
use crate::routing::hash_key::KeyInput;
use crate::routing::split::{Target, target_of};
use crate::snapshot::Service;
use crate::worker::{Peer, View};
use ringway_config::model::{HttpListener, Networks, Priority, UpstreamProtocol};
use ringway_message::{BodyLength, Method, RequestHead, Span};
use std::net::IpAddr;
use std::time::Instant;

/// Why a request goes to no backend: an error, or a direct response of its route.
pub(super) struct Unrouted {
    pub(super) why: Cause,
    /// If one was found.
    pub(super) route: Option<usize>,
    /// If one was chosen.
    pub(super) service: Option<usize>,
}

/// Where a request belongs.
pub(super) struct Routed {
    pub(super) route: usize,
    pub(super) service: usize,
    pub(super) origin: Origin,
    /// The split target that was drawn for the request, if a cookie of the target is to hold its client there.
    pub(super) hold: Option<usize>,
    pub(super) explain: bool,
    pub(super) admitted: Admitted,
}

/// The route of a request.
pub(crate) struct Matched {
    pub(crate) origin: Origin,
    pub(crate) route: usize,
}

/// The route of a request, and all that refuses or answers it whatever its service is; with the route, if one was found.
pub(crate) fn match_route(
    http: &HttpListener,
    table: &RouteTable,
    peer: &Peer,
    buffer: &[u8],
    head: &RequestHead,
) -> Result<Matched, (Cause, Option<usize>)> {
    let refuse = |error| (Cause::Error(error), None);
    if head.method == Method::Connect {
        return Err(refuse(ProxyError::ConnectRefused));
    }
    // RFC 8441: WebSocket is the only tunnel that is opened over HTTP/2.
    if head.protocol.is_some_and(|protocol| !protocol.of(buffer).eq_ignore_ascii_case(websocket::PROTOCOL)) {
        return Err(refuse(ProxyError::UpgradeUnsupported));
    }
    if head.expect_unknown {
        return Err(refuse(ProxyError::Expectation));
    }
    // Routes that ignore the path cannot be fooled by it: such paths are the backend's business.
    if table.looks_at_paths() && ringway_message::climbs(path_of(buffer, head)) {
        return Err(refuse(ProxyError::PathTraversal));
    }
    let origin = forwarded::origin(&http.forwarded, peer, buffer, head);
    let route = table.find(&http.routes, buffer, head, origin.secure).ok_or(refuse(ProxyError::NoRoute))?;
    let actions = http.routes[route].actions.as_deref();
    if let Some(direct_response) =
        actions.and_then(|actions| actions::direct_response(actions, origin.secure, buffer, head))
    {
        return Err((Cause::Answer(direct_response), Some(route)));
    }
    let body_bytes_max = actions.and_then(|actions| actions.body_bytes_max).unwrap_or(http.body_bytes_max);
    if matches!(head.body, BodyLength::Sized(length) if length > body_bytes_max) {
        return Err((Cause::Error(ProxyError::BodyTooLarge), Some(route)));
    }
    Ok(Matched { origin, route })
}

/// Route, limits and key: every check that can refuse a request whose framing is valid. A refusal names the service, once one was
/// chosen.
pub(super) fn route_of(
    client: &Client,
    buffer: &[u8],
    view: &View,
    listener: usize,
    head: &RequestHead,
    key_bytes: &mut Vec<u8>,
    now: Instant,
) -> Result<Routed, Unrouted> {
    let (http, table) = (view.http(listener), view.routes(listener));
    let worker = &client.open.worker;
    let Matched { origin, route } =
        match_route(http, table, &client.open.peer, buffer, head).map_err(|(why, route)| {
            let priority = route.and_then(|route| http.routes[route].priority).unwrap_or(Priority::Default);
            // A redirection is refused as what is forwarded is. A preflight costs nothing, and what follows it is judged.
            let redirects = matches!(&why, Cause::Answer(answer) if answer.status >= 300);
            let shed = redirects.then(|| admission::shed(worker, priority).err()).flatten();
            Unrouted { why: shed.map_or(why, Cause::Error), route, service: None }
        })?;
    let server_name = client.open.peer.server_name.as_deref();
    let input = KeyInput {
        buffer,
        head: Some(head),
        client: origin.address,
        secure: origin.secure,
        server_name,
        connection_id: None,
    };
    let Target { service, hold } = target_of(&http.routes[route], view, &input, head, key_bytes, worker);
    let this = &view.services[service].service;
    let refuse = |error| Unrouted { why: Cause::Error(error), route: Some(route), service: Some(service) };

    // Towards HTTP/2, the response to the handshake is made here.
    if this.config.protocol == UpstreamProtocol::H2
        && upgrade_of(this, head, buffer).is_some()
        && head.protocol.is_none()
        && !head.value_of(buffer, b"sec-websocket-key").is_some_and(websocket::is_key)
    {
        return Err(refuse(ProxyError::WebSocketKey));
    }
    let explain = explains(&http.explain_allow, client.open.peer.ip(), head, buffer);
    let arrived = (Arrival::New, http.routes[route].priority);
    let admitted = admission::admit((view, service), worker, &input, arrived, key_bytes, now).map_err(refuse)?;
    Ok(Routed { route, service, origin, hold, explain, admitted })
}

/// Whether the request asks for an explanation of its routing, and may.
fn explains(allowed: &Networks, peer: IpAddr, head: &RequestHead, buffer: &[u8]) -> bool {
    !allowed.is_empty() && head.value_of(buffer, b"x-ringway-explain").is_some() && allowed.contains(peer)
}

/// The protocols that the request may be upgraded to. HTTP/2 carries WebSocket alone (RFC 8441); any other `Upgrade` may be
/// ignored (RFC 9110, 7.8).
pub(super) fn upgrade_of(service: &Service, head: &RequestHead, buffer: &[u8]) -> Option<Span> {
    let http1 = service.config.protocol == UpstreamProtocol::Http1;
    let bridged = |protocols: &Span| protocols.of(buffer).eq_ignore_ascii_case(websocket::PROTOCOL);
    let bodiless = matches!(head.body, BodyLength::None | BodyLength::Sized(0));
    head.upgrade.filter(|protocols| bodiless && (http1 || bridged(protocols)))
}
