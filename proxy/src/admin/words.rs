//! Parts of the configuration, in words.

use ringway_config::model::{HeaderMatch, HostMatch, KeySource, PathMatch, Route};

/// A route's conditions.
pub(crate) fn route(route: &Route) -> String {
    let mut words = Vec::new();
    words.extend(route.host.as_ref().map(|wanted| format!("host {}", host(wanted))));
    words.extend(route.path.as_ref().map(|wanted| format!("path {}", path(wanted))));
    if !route.methods.is_empty() {
        words.push(format!("method {}", route.methods.join(" or ")));
    }
    words.extend(route.headers.iter().map(header));
    if words.is_empty() { "any request".to_owned() } else { words.join(", ") }
}

pub(crate) fn host(wanted: &HostMatch) -> String {
    match wanted {
        HostMatch::Exact(host) => host.clone(),
        HostMatch::Suffix(suffix) => format!("*{suffix}"),
    }
}

pub(crate) fn path(wanted: &PathMatch) -> String {
    match wanted {
        PathMatch::Exact(path) => path.clone(),
        PathMatch::Prefix(prefix) => format!("{prefix}*"),
    }
}

pub(crate) fn header(wanted: &HeaderMatch) -> String {
    match &wanted.value {
        Some(value) => format!("{}: {value}", wanted.name),
        None => format!("any {}", wanted.name),
    }
}

/// Where a key comes from.
pub(crate) fn source(source: &KeySource) -> String {
    match source {
        KeySource::Header(name) => format!("header {name}"),
        KeySource::Cookie(name) => format!("cookie {name}"),
        KeySource::Sni => "server name (SNI)".to_owned(),
        KeySource::SourceIp { v4_bits: 32, v6_bits: 128 } => "client address".to_owned(),
        KeySource::SourceIp { v4_bits, v6_bits } => format!("client address (/{v4_bits}, IPv6 /{v6_bits})"),
        KeySource::Path { depth: 0 } => "path".to_owned(),
        KeySource::Path { depth } => format!("first {depth} segments of the path"),
        KeySource::Regex(of, capture) => format!("{} by {}", self::source(of), capture.0.as_str()),
        KeySource::Uri => "path and query".to_owned(),
        KeySource::Query(name) => format!("query parameter {name}"),
        KeySource::Host => "host".to_owned(),
        KeySource::Method => "method".to_owned(),
        KeySource::All(parts) => parts.iter().map(self::source).collect::<Vec<_>>().join(" and "),
    }
}

/// What is bytes of a request, for people: as text where it is.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
