//! Pages of other origins, in a browser that reaches the admin listener.

use super::access::Peer;
use super::reply::{Reply, error};
use crate::apply::handle::ControlHandle;
use hyper::{Method, Request, StatusCode, Version, header};
use ringway_config::browser::Asked;

/// Rejects requests without the name that they are for: HTTP/1.1 has exactly one `Host` (RFC 9112, 3.2). Earlier versions need none, and
/// several are wrong in any. Checks whether the process is up that leave it out have always been answered.
pub(super) fn wrong_host<B>(request: &Request<B>) -> Option<Reply> {
    if matches!(request.uri().path(), "/healthz" | "/readyz") {
        return None;
    }
    let problem = match request.headers().get_all(header::HOST).iter().count() {
        0 if request.version() == Version::HTTP_11 => "the request has no Host: HTTP/1.1 needs one",
        0 | 1 => return None,
        _ => "the request has several fields Host",
    };
    Some(error(StatusCode::BAD_REQUEST, problem))
}

/// Rejects requests of other origins' pages in a browser that reaches this listener. To change something, the name in the request
/// must be one of this listener's; to read, it must where the listener is on loopback, which has no other names. Elsewhere reads
/// under any name are served: a client that reaches the listener can use its address as well. Over TLS the name is one that the listener's
/// certificate is for, and who shows a token is no page that does not know it: their `Host` may be any.
pub(super) fn reject_foreign<B>(control: &ControlHandle, peer: &Peer, request: &Request<B>) -> Option<Reply> {
    let field =
        |name: header::HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"));
    let asked = Asked {
        host: request.uri().authority().map(|authority| authority.as_str()).or(field(header::HOST)),
        origin: field(header::ORIGIN),
        fetch_site: field(header::HeaderName::from_static("sec-fetch-site")),
    };
    let snapshot = control.snapshot();
    let admin = snapshot.config.admin.as_ref();
    let names = admin.map_or(&[][..], |admin| &admin.hosts);
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let on_loopback = control.admin_address().is_none_or(|address| address.ip().is_loopback());
    if !is_read && asked.is_foreign_page() {
        return Some(error(StatusCode::FORBIDDEN, "a page of another origin must not change anything here"));
    }
    let may_read = !on_loopback || asked.has_short_host();
    let proven = match peer {
        Peer::Tcp { tls: true, .. } => true,
        // No browser opens a Unix socket, but one may come by a port that somebody forwards to it (`ssh -L`): the name is whatever the
        // client had to write, but none that a stranger can have registered.
        Peer::Socket { .. } => asked.has_short_host() || asked.host.is_none(),
        Peer::Tcp { .. } => false,
    };
    let proven = proven || request.headers().contains_key(header::AUTHORIZATION);
    if proven || asked.has_own_host(names) || (is_read && may_read) {
        return None;
    }
    Some(error(
        StatusCode::FORBIDDEN,
        "ask by an IP address or as localhost, or list the name in the file: `admin: { hosts: [ NAME ] }`",
    ))
}
