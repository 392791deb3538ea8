//! What a request's spans say, in the words of OpenTelemetry's semantic conventions for HTTP.

use super::client::Client;
use crate::routes::path_of;
use crate::routing::forwarded::Origin;
use ringway_config::model::PathMatch;
use ringway_message::{Authority, Method, RequestHead, Span as Bytes, Version, default_port};
use ringway_ring::Hash;
use ringway_telemetry::traces::Attributes;
use std::net::SocketAddr;
use std::time::Instant;

/// What there is to know of a request at its beginning.
pub(crate) struct Beginning<'a> {
    pub(crate) client: &'a Client,
    pub(crate) bytes: &'a [u8],
    pub(crate) head: &'a RequestHead,
    pub(crate) origin: Origin,
    pub(crate) started: Instant,
    pub(crate) route: Option<&'a PathMatch>,
    /// The route's number on its listener, from 1; the service, and the key's hash.
    pub(crate) number: Option<usize>,
    pub(crate) service: Option<&'a str>,
    pub(crate) hash: Option<Hash>,
}

pub(super) fn address_of(address: &SocketAddr, attributes: &mut Attributes) {
    attributes.word("server.address", &address.ip().to_string());
    attributes.number("server.port", u64::from(address.port()));
}

/// What `error.type` says: a reason, else the status.
pub(super) fn error_type<'t>(status: u16, reason: Option<&'static str>, text: &'t mut itoa::Buffer) -> &'t str {
    match reason {
        Some(reason) => reason,
        None => text.format(status),
    }
}

/// A method that is not known is any token: no name for many.
pub(super) fn method_of(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Connect => "CONNECT",
        Method::Patch => "PATCH",
        Method::Other => "_OTHER",
    }
}

/// A span's name, or its beginning.
pub(super) fn name_of(method: &'static str) -> &'static str {
    if method == "_OTHER" { "HTTP" } else { method }
}

/// What the head says.
pub(super) fn attributes(with_query: bool, beginning: &Beginning<'_>) -> Attributes {
    let Beginning { client, bytes, head, origin, route, .. } = beginning;
    let mut attributes = Attributes::with_capacity(1024);
    attributes.word("http.request.method", method_of(head.method));
    attributes.word("url.scheme", if origin.secure { "https" } else { "http" });
    attributes.word(
        "network.protocol.version",
        match head.version {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
            Version::Http2 => "2",
        },
    );
    attributes.word("ringway.listener", &client.open.active_listener.name());
    let mut text = |key: &str, value: &[u8]| {
        if !value.is_empty() {
            attributes.text(key, value);
        }
    };
    if head.method == Method::Other {
        text("http.request.method_original", head.method_span.of(bytes));
    }
    // A CONNECT names a host alone, which is told below.
    let path = path_of(bytes, head);
    if path.starts_with(b"/") || head.method != Method::Connect {
        text("url.path", path);
    }
    if with_query {
        let (path, target) = (head.path, head.forward_target);
        // The question mark stands between the two.
        text("url.query", Bytes { start: (path.end + 1).min(target.end), end: target.end }.of(bytes));
    }
    if let Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) = route {
        text("http.route", path.as_bytes());
    }
    text("user_agent.original", head.value_of(bytes, b"user-agent").unwrap_or_default());
    if origin.address == client.open.peer.ip() {
        text("client.address", client.open.peer.text_bytes());
    } else {
        text("client.address", origin.address.to_string().as_bytes());
        text("network.peer.address", client.open.peer.text_bytes());
    }
    let authority = Authority::new(head.authority.of(bytes));
    text("server.address", authority.host());
    if let Some(port) = authority.port(default_port(origin.secure)) {
        attributes.number("server.port", u64::from(port));
    }
    attributes
}
