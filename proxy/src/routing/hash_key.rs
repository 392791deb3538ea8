//! From a request, a session or a flow to its hash key.

use crate::error::ProxyError;
use crate::routes::path_of;
use crate::snapshot::Service;
use crate::worker::Worker;
use ringway_config::model::{KeySource, OnMissing};
use ringway_http1::{Authority, RequestHead, default_port};
use ringway_ring::Hash;
use std::io::Write;
use std::net::IpAddr;

/// The sources that keys are read from.
pub(crate) struct KeyInput<'a> {
    pub(crate) buffer: &'a [u8],
    /// Of a request; a TCP session and a UDP flow have none.
    pub(crate) head: Option<&'a RequestHead>,
    pub(crate) client: IpAddr,
    /// The client speaks `https`.
    pub(crate) secure: bool,
    /// The server name that a TLS client asks for.
    pub(crate) server_name: Option<&'a str>,
    /// The id of a QUIC connection, which takes precedence over every configured source.
    pub(crate) connection_id: Option<&'a [u8]>,
}

impl<'a> KeyInput<'a> {
    /// For a session or a flow, which has an address, and perhaps a server name or a connection id.
    pub(crate) fn of_address(client: IpAddr, server_name: Option<&'a str>, connection_id: Option<&'a [u8]>) -> Self {
        Self { buffer: b"", head: None, client, secure: false, server_name, connection_id }
    }
}

/// Writes the key's bytes to `key`: the first source that is present. `false`: none is.
pub(crate) fn extract(sources: &[KeySource], input: &KeyInput<'_>, key: &mut Vec<u8>) -> bool {
    sources.iter().any(|source| {
        key.clear();
        append(source, input, key)
    })
}

/// A key, or the substitute for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) hash: Hash,
    /// It is the hash of a key: every request with that key has the same.
    pub(crate) keyed: bool,
}

impl Found {
    /// The hash, if it is a key's.
    #[inline]
    pub(crate) fn key(self) -> Option<Hash> {
        self.keyed.then_some(self.hash)
    }
}

/// The hash of a service's key: from the first source that is present, or a substitute. HTTP, TCP and UDP alike.
///
/// # Errors
/// [`ProxyError::KeyMissing`].
pub(crate) fn find(
    service: &Service,
    worker: &Worker,
    input: &KeyInput<'_>,
    key: &mut Vec<u8>,
) -> Result<Found, ProxyError> {
    if let Some(id) = input.connection_id {
        return Ok(Found { hash: ringway_ring::hash_key(id, service.seed()), keyed: true });
    }
    if extract(&service.config.hash_key, input, key) {
        return Ok(Found { hash: ringway_ring::hash_key(key, service.seed()), keyed: true });
    }
    match service.config.on_missing {
        OnMissing::Reject => Err(ProxyError::KeyMissing),
        OnMissing::Random => Ok(Found { hash: worker.random(), keyed: false }),
        OnMissing::RoundRobin => Ok(Found { hash: service.next_in_turn(), keyed: false }),
        OnMissing::SourceIp => {
            key.clear();
            address_key(input.client, 32, 128, key);
            Ok(Found { hash: ringway_ring::hash_key(key, service.seed()), keyed: true })
        }
    }
}

fn append(source: &KeySource, input: &KeyInput<'_>, key: &mut Vec<u8>) -> bool {
    let KeyInput { buffer, client, secure, server_name, .. } = *input;
    let Some(head) = input.head else { return append_without_request(source, input, key) };
    let authority = || Authority::new(head.authority.of(buffer));
    let value = match source {
        KeySource::Header(name) if name == "host" && !head.authority.is_empty() => {
            authority().append(default_port(secure), key);
            return true;
        }
        KeySource::Header(name) => present(head.values_of(buffer, name.as_bytes())),
        KeySource::Cookie(name) => {
            present(head.cookies(buffer).filter(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value))
        }
        KeySource::Sni => server_name.map(sni),
        KeySource::Query(name) => present(query_values(head.query.of(buffer), name.as_bytes())),
        KeySource::Path { depth } => Some(first_segments(path_of(buffer, head), *depth)),
        KeySource::Regex(source, capture) => {
            let begin = key.len();
            if !append(source, input, key) {
                return false;
            }
            // The first capture group that took part.
            let captured = capture.0.captures(&key[begin..]).and_then(|groups| groups.iter().skip(1).flatten().next());
            let Some(range) = captured.map(|group| group.range()).filter(|range| !range.is_empty()) else {
                key.truncate(begin);
                return false;
            };
            key.truncate(begin + range.end);
            key.drain(begin..begin + range.start);
            return true;
        }
        KeySource::Uri if head.forward_target.is_empty() => Some(&b"/"[..]),
        KeySource::Uri => Some(head.forward_target.of(buffer)),
        KeySource::Method => Some(head.method_span.of(buffer)),
        KeySource::Host => {
            authority().append_host(key);
            return !head.authority.is_empty();
        }
        KeySource::SourceIp { v4_bits, v6_bits } => {
            address_key(client, *v4_bits, *v6_bits, key);
            return true;
        }
        KeySource::All(parts) => return append_all(parts, input, key),
    };
    // An empty field or cookie identifies no client: the next source is used.
    match value {
        Some(value) if !value.is_empty() => {
            key.extend_from_slice(value);
            true
        }
        _ => false,
    }
}

fn append_all(parts: &[KeySource], input: &KeyInput<'_>, key: &mut Vec<u8>) -> bool {
    parts.iter().enumerate().all(|(index, part)| {
        if index > 0 {
            key.push(0);
        }
        append(part, input, key)
    })
}

/// A server name as a key: with or without the dot of the root, it is the same.
fn sni(name: &str) -> &[u8] {
    name.strip_suffix('.').unwrap_or(name).as_bytes()
}

/// A session or a flow has an address, and perhaps a server name; `check` refuses a list that uses neither.
fn append_without_request(source: &KeySource, input: &KeyInput<'_>, key: &mut Vec<u8>) -> bool {
    match source {
        KeySource::Sni => match input.server_name.map(sni) {
            Some(name) if !name.is_empty() => {
                key.extend_from_slice(name);
                true
            }
            _ => false,
        },
        KeySource::SourceIp { v4_bits, v6_bits } => {
            address_key(input.client, *v4_bits, *v6_bits, key);
            true
        }
        KeySource::All(parts) => append_all(parts, input, key),
        KeySource::Header(_)
        | KeySource::Cookie(_)
        | KeySource::Query(_)
        | KeySource::Path { .. }
        | KeySource::Regex(..)
        | KeySource::Uri
        | KeySource::Method
        | KeySource::Host => false,
    }
}

/// The address's text, masked: what `ringway explain --key` takes.
pub(crate) fn address_key(address: IpAddr, v4_bits: u8, v6_bits: u8, key: &mut Vec<u8>) {
    // A client that comes over a dual-stack socket is the same client.
    let address = match address.to_canonical() {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(v4_bits.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(v6_bits.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    };
    // Writing to a Vec does not fail.
    let _ = write!(key, "{address}");
}

/// A path as far as its first so many segments; 0 is all of it.
fn first_segments(path: &[u8], depth: usize) -> &[u8] {
    if depth == 0 {
        return path;
    }
    let mut slashes = memchr::memchr_iter(b'/', path).filter(|&at| at > 0);
    match slashes.nth(depth - 1) {
        Some(end) => &path[..end],
        None => path,
    }
}

/// The first value that is not empty: an empty one before it hides nothing.
fn present<'b>(mut values: impl Iterator<Item = &'b [u8]>) -> Option<&'b [u8]> {
    values.find(|value| !value.is_empty())
}

fn query_values<'b>(query: &'b [u8], name: &[u8]) -> impl Iterator<Item = &'b [u8]> {
    query.split(|&byte| byte == b'&').filter_map(move |pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

/// A hash as 16 hex digits, as the access log has it.
pub(crate) fn hex(hash: u64, text: &mut [u8; 16]) -> &str {
    for (index, digit) in text.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(hash >> (60 - 4 * index) & 15) as usize];
    }
    std::str::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_config::model::Capture;
    use ringway_http1::{Limits, parse_request};

    fn key(sources: &[KeySource], text: &str) -> Option<String> {
        let mut head = RequestHead::default();
        assert!(parse_request(text.as_bytes(), &Limits::default(), &mut head).unwrap());
        let input = KeyInput {
            buffer: text.as_bytes(),
            head: Some(&head),
            client: "192.0.2.77".parse().unwrap(),
            secure: true,
            server_name: Some("shop.example."),
            connection_id: None,
        };
        let mut key = Vec::new();
        extract(sources, &input, &mut key).then(|| String::from_utf8(key).unwrap())
    }

    #[test]
    fn first_present_source_gives_the_key() {
        let request = "GET /a?u=7&v= HTTP/1.1\r\nHost: Ex.com:8\r\nCookie: sid=s1\r\nX-Empty:\r\n\r\n";
        let header = |name: &str| KeySource::Header(name.into());
        let cookie = || KeySource::Cookie("sid".into());
        assert_eq!(key(&[header("x-user"), header("x-empty"), cookie()], request).as_deref(), Some("s1"));
        assert_eq!(key(&[KeySource::Query("u".into())], request).as_deref(), Some("7"));
        assert_eq!(key(&[KeySource::Query("v".into())], request), None);
        assert_eq!(key(&[KeySource::Host], request).as_deref(), Some("ex.com"));
        assert_eq!(key(&[KeySource::Uri], request).as_deref(), Some("/a?u=7&v="));
        assert_eq!(key(&[KeySource::SourceIp { v4_bits: 24, v6_bits: 64 }], request).as_deref(), Some("192.0.2.0"));
        assert_eq!(key(&[KeySource::All(vec![KeySource::Method, cookie()])], request).as_deref(), Some("GET\0s1"));
        assert_eq!(key(&[KeySource::All(vec![KeySource::Method, header("x-user")])], request), None);
    }

    #[test]
    fn all_names_of_a_host_are_one_key() {
        for host in ["shop.example", "Shop.Example.", "shop.example:443", "shop.example.:443"] {
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            for source in [KeySource::Host, KeySource::Header("host".into()), KeySource::Sni] {
                assert_eq!(key(std::slice::from_ref(&source), &request).as_deref(), Some("shop.example"), "{source:?}");
            }
        }
        let other = "GET / HTTP/1.1\r\nHost: Shop.example.:80\r\n\r\n";
        assert_eq!(key(&[KeySource::Header("host".into())], other).as_deref(), Some("shop.example:80"));
    }

    #[test]
    fn an_empty_value_hides_no_later_one() {
        let request = "GET /?room=&a=b&room=7&room=8 HTTP/1.1\r\nHost: a\r\nX-User:\r\nX-User: u1\r\nX-User: u2\r\n\
                       Cookie: sid=; sid=\"\"\r\nCookie: sid=alice\r\n\r\n";
        assert_eq!(key(&[KeySource::Query("room".into())], request).as_deref(), Some("7"));
        assert_eq!(key(&[KeySource::Header("x-user".into())], request).as_deref(), Some("u1"));
        assert_eq!(key(&[KeySource::Cookie("sid".into())], request).as_deref(), Some("alice"));
        assert_eq!(key(&[KeySource::Cookie("si".into())], request), None);
    }

    #[test]
    fn paths_are_cut_and_expressions_capture() {
        let request = "GET /users/42/posts?page=2 HTTP/1.1\r\nHost: ex.com\r\nX-Tenant: acme-eu-7\r\n\r\n";
        let path = |depth| key(&[KeySource::Path { depth }], request);
        assert_eq!(path(0).as_deref(), Some("/users/42/posts"));
        assert_eq!(path(1).as_deref(), Some("/users"));
        assert_eq!(path(2).as_deref(), Some("/users/42"));
        assert_eq!(path(9).as_deref(), Some("/users/42/posts"));
        let regex = |source: KeySource, pattern: &str| {
            let capture = Capture(regex::bytes::Regex::new(pattern).unwrap());
            KeySource::Regex(Box::new(source), capture)
        };
        let all = || KeySource::Path { depth: 0 };
        assert_eq!(key(&[regex(all(), "^/users/([^/]+)")], request).as_deref(), Some("42"));
        assert_eq!(key(&[regex(all(), "^/(x)|/(posts)$")], request).as_deref(), Some("posts"));
        let tenant = || regex(KeySource::Header("x-tenant".into()), "^([a-z]+)-");
        assert_eq!(key(&[tenant()], request).as_deref(), Some("acme"));
        // No match, or an empty one, is no key: the next source is used.
        assert_eq!(key(&[regex(all(), "^/groups/(.*)"), tenant()], request).as_deref(), Some("acme"));
        assert_eq!(key(&[regex(all(), "(x*)"), KeySource::Host], request).as_deref(), Some("ex.com"));
        let parts = vec![KeySource::Host, tenant()];
        assert_eq!(key(&[KeySource::All(parts)], request).as_deref(), Some("ex.com\0acme"));
    }

    #[test]
    fn sessions_have_names_and_addresses_as_requests_do() {
        let key = |sources: &[KeySource], server_name| {
            let client = "192.0.2.77".parse().unwrap();
            let mut key = Vec::new();
            let input = KeyInput::of_address(client, server_name, None);
            extract(sources, &input, &mut key).then(|| String::from_utf8(key).unwrap())
        };
        let address = || KeySource::SourceIp { v4_bits: 24, v6_bits: 64 };
        let both = || KeySource::All(vec![KeySource::Sni, address()]);
        assert_eq!(key(&[KeySource::Sni, address()], Some("a.test")).as_deref(), Some("a.test"));
        assert_eq!(key(&[KeySource::Sni, address()], None).as_deref(), Some("192.0.2.0"));
        assert_eq!(key(&[address(), KeySource::Sni], Some("a.test")).as_deref(), Some("192.0.2.0"));
        assert_eq!(key(&[both()], Some("a.test")).as_deref(), Some("a.test\x00192.0.2.0"));
        assert_eq!(key(&[both()], None), None);
        assert_eq!(key(&[both(), address()], Some("")).as_deref(), Some("192.0.2.0"));
        assert_eq!(key(&[KeySource::Sni], Some("a.test.")).as_deref(), Some("a.test"));
        // No source that only a request has, not even the path that every request has.
        let regex = KeySource::Regex(
            Box::new(KeySource::Path { depth: 0 }),
            Capture(regex::bytes::Regex::new("(.*)").unwrap()),
        );
        for source in [KeySource::Uri, KeySource::Path { depth: 0 }, KeySource::Method, KeySource::Host, regex] {
            assert_eq!(key(&[source], Some("a.test")), None);
        }
    }

    #[test]
    fn mask_of_zero_bits_puts_everybody_together() {
        let mut key = Vec::new();
        address_key("192.0.2.77".parse().unwrap(), 0, 0, &mut key);
        assert_eq!(key, b"0.0.0.0");
        key.clear();
        address_key("::ffff:192.0.2.77".parse().unwrap(), 32, 128, &mut key);
        assert_eq!(key, b"192.0.2.77");
    }
}
