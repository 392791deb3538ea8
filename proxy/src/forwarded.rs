//! Who the client is: forwarding fields believed of trusted hops only, and rewritten for the next one.

use crate::http::Peer;
use ipnet::IpNet;
use ringway_config::model::Forwarded;
use ringway_http1::{FieldName, RequestHead, write};
use std::io::Write;
use std::net::IpAddr;

/// Whether an address is in one of the networks.
pub(crate) fn is_trusted(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The client's address: the peer's, or, through trusted hops, the last address of `X-Forwarded-For` that is not one.
pub(crate) fn client_address(forwarded: &Forwarded, peer: IpAddr, buffer: &[u8], head: &RequestHead) -> IpAddr {
    if forwarded.trusted.is_empty() || !is_trusted(&forwarded.trusted, peer) {
        return peer;
    }
    let mut client = peer;
    // The nearest hop wrote the last element; walk back while the writers are trusted.
    let fields = head.fields.iter().rev().filter(|field| field.kind == FieldName::XForwardedFor);
    for element in fields.flat_map(|field| field.value.of(buffer).rsplit(|&byte| byte == b',')) {
        let Some(address) = parse_address(element.trim_ascii()) else { break };
        client = address;
        if !is_trusted(&forwarded.trusted, address) {
            break;
        }
    }
    client
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Whether a field's name is that of another to who reads fields as variables: case aside, and with `_` for `-`.
pub(crate) fn reads_as(name: &[u8], field: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == field.len() && name.iter().zip(field.as_bytes()).all(|(a, b)| plain(*a) == plain(*b))
}

/// Whether a field is about who sent the request: replaced or extended by [`append`], never passed on beside it.
pub(crate) fn is_forwarding(kind: FieldName) -> bool {
    matches!(
        kind,
        FieldName::XForwardedFor
            | FieldName::XForwardedProto
            | FieldName::XForwardedHost
            | FieldName::XForwardedPort
            | FieldName::Forwarded
    )
}

/// Appends the forwarding fields for the next hop. `peer_text` is the peer's address as text.
pub(crate) fn append(
    forwarded: &Forwarded,
    trusted: bool,
    client: &Peer,
    buffer: &[u8],
    head: &RequestHead,
    out: &mut Vec<u8>,
) {
    let scheme = if client.secure { "https" } else { "http" };
    let believed = |kind: FieldName| head.values_of_kind(buffer, kind).filter(move |_| trusted);
    if forwarded.x_forwarded {
        out.extend_from_slice(b"x-forwarded-for: ");
        for value in believed(FieldName::XForwardedFor) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(client.text.as_bytes());
        out.extend_from_slice(b"\r\n");
        match believed(FieldName::XForwardedProto).next() {
            Some(value) => write::field(out, "x-forwarded-proto", value),
            None => write::field(out, "x-forwarded-proto", scheme.as_bytes()),
        }
        let host = believed(FieldName::XForwardedHost).next().unwrap_or_else(|| head.authority.of(buffer));
        if !host.is_empty() {
            write::field(out, "x-forwarded-host", host);
        }
        if let Some(port) = believed(FieldName::XForwardedPort).next() {
            write::field(out, "x-forwarded-port", port);
        }
    } else if trusted {
        for field in head.fields.iter().filter(|field| is_forwarding(field.kind) && field.kind != FieldName::Forwarded)
        {
            out.extend_from_slice(field.name.of(buffer));
            out.extend_from_slice(b": ");
            out.extend_from_slice(field.value.of(buffer));
            out.extend_from_slice(b"\r\n");
        }
    }
    if forwarded.forwarded {
        out.extend_from_slice(b"forwarded: ");
        for value in believed(FieldName::Forwarded) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        // RFC 7239, 6: an IPv6 address is bracketed and quoted. Writing to a Vec does not fail.
        let _ = match client.ip() {
            IpAddr::V4(address) => write!(out, "for={address};proto={scheme}"),
            IpAddr::V6(address) => write!(out, "for=\"[{address}]\";proto={scheme}"),
        };
        let authority = head.authority.of(buffer);
        if !authority.is_empty() {
            // An authority has no quote or backslash in it: the codec has seen to that.
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(authority);
            out.push(b'"');
        }
        out.extend_from_slice(b"\r\n");
    } else if trusted {
        believed(FieldName::Forwarded).for_each(|value| write::field(out, "forwarded", value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_http1::{Limits, parse_request};

    fn client(trusted: &[&str], peer: &str, fields: &str) -> String {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        assert!(parse_request(text.as_bytes(), &Limits::default(), &mut head).unwrap());
        let forwarded = Forwarded {
            trusted: trusted.iter().map(|network| network.parse().unwrap()).collect(),
            x_forwarded: true,
            forwarded: true,
        };
        client_address(&forwarded, peer.parse().unwrap(), text.as_bytes(), &head).to_string()
    }

    #[test]
    fn only_trusted_hops_say_who_the_client_is() {
        let field = "X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.9\r\n";
        assert_eq!(client(&[], "10.0.0.1", field), "10.0.0.1");
        assert_eq!(client(&["10.0.0.0/8"], "9.9.9.9", field), "9.9.9.9");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", field), "1.2.3.4");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", "X-Forwarded-For: junk, 10.0.0.7\r\n"), "10.0.0.7");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", "X-Forwarded-For: a\r\nX-Forwarded-For: [::2]:80\r\n"), "::2");
    }
}
