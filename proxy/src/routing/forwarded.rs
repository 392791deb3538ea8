//! The client's identity: forwarding fields, believed only from trusted hops, and rewritten for the next one. `message/` parses them.

use crate::worker::Peer;
use ringway_config::model::{Forwarded, ForwardedSource};
use ringway_message::{FieldName, HeadWriter, RequestHead, ToldClient};
use std::io::Write;
use std::net::IpAddr;

/// Where a request comes from: the identity of its client for everything that depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The client's address: the peer's, or, through trusted hops, the last one that is not a hop's. IPv4 where it is mapped.
    pub(crate) address: IpAddr,
    /// The client speaks `https`.
    pub(crate) secure: bool,
    /// The peer is a trusted hop.
    pub(crate) trusted: bool,
}

/// The peer, or, if it is a trusted hop, the client that it names.
pub(crate) fn origin(forwarded: &Forwarded, peer: &Peer, buffer: &[u8], head: &RequestHead) -> Origin {
    let trusted = forwarded.trusted.contains(peer.ip());
    let own = Origin { address: peer.ip(), secure: peer.secure, trusted };
    if !trusted {
        return own;
    }
    let is_hop = |address| forwarded.trusted.contains(address);
    let told = match forwarded.source {
        ForwardedSource::XForwardedFor => ToldClient::by_x_forwarded(buffer, head, is_hop),
        ForwardedSource::Forwarded => ToldClient::by_forwarded(buffer, head, is_hop),
    };
    Origin { address: told.address.unwrap_or(own.address), secure: told.secure.unwrap_or(own.secure), trusted }
}

/// Appends the forwarding fields for the next hop.
pub(crate) fn append(
    forwarded: &Forwarded,
    origin: Origin,
    client: &Peer,
    buffer: &[u8],
    head: &RequestHead,
    out: &mut HeadWriter,
) {
    let trusted = origin.trusted;
    let believed = |kind: FieldName| {
        let values = head.values_of_kind(buffer, kind).filter(move |_| trusted);
        values.filter(|value| !value.is_empty())
    };
    if forwarded.x_forwarded {
        append_x_forwarded(forwarded, origin, client, buffer, head, out);
    } else if trusted {
        out.copy(buffer, &head.fields, |field| field.kind.is_forwarding() && field.kind != FieldName::Forwarded);
    }
    if forwarded.forwarded {
        let line = out.begin("forwarded");
        let text = out.text_mut();
        for value in believed(FieldName::Forwarded) {
            text.extend_from_slice(value);
            text.extend_from_slice(b", ");
        }
        // An element describes one hop: the protocol on this one.
        let scheme = scheme_of(client.secure);
        // RFC 7239, 6: an IPv6 address is bracketed and quoted. Writing to a Vec does not fail.
        let _ = match client.ip() {
            IpAddr::V4(address) => write!(text, "for={address};proto={scheme}"),
            IpAddr::V6(address) => write!(text, "for=\"[{address}]\";proto={scheme}"),
        };
        let authority = head.authority.of(buffer);
        if !authority.is_empty() {
            // An authority has no quote or backslash in it: the codec ensures that.
            text.extend_from_slice(b";host=\"");
            text.extend_from_slice(authority);
            text.push(b'"');
        }
        out.end(line);
    } else if trusted {
        believed(FieldName::Forwarded).for_each(|value| out.field("forwarded", value));
    }
}

/// `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`. Where trusted hops write `Forwarded`, the others are not believed.
fn append_x_forwarded(
    forwarded: &Forwarded,
    origin: Origin,
    client: &Peer,
    buffer: &[u8],
    head: &RequestHead,
    out: &mut HeadWriter,
) {
    let told = origin.trusted && forwarded.source == ForwardedSource::XForwardedFor;
    let believed = |kind: FieldName| {
        let values = head.values_of_kind(buffer, kind).filter(move |_| told);
        values.filter(|value| !value.is_empty())
    };
    let line = out.begin("x-forwarded-for");
    let text = out.text_mut();
    for value in believed(FieldName::XForwardedFor) {
        text.extend_from_slice(value);
        text.extend_from_slice(b", ");
    }
    if !told && origin.address != client.ip() {
        // Writing to a Vec does not fail.
        let _ = write!(text, "{}, ", origin.address);
    }
    text.extend_from_slice(client.text_bytes());
    out.end(line);
    out.field("x-forwarded-proto", scheme_of(origin.secure).as_bytes());
    let host = believed(FieldName::XForwardedHost).next().unwrap_or_else(|| head.authority.of(buffer));
    if !host.is_empty() {
        out.field("x-forwarded-host", host);
    }
    if let Some(port) = believed(FieldName::XForwardedPort).next() {
        out.field("x-forwarded-port", port);
    }
}

fn scheme_of(secure: bool) -> &'static str {
    if secure { "https" } else { "http" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_http1::{Limits, parse_request};
    use std::net::SocketAddr;

    fn read(source: ForwardedSource, trusted: &[&str], peer: &str, fields: &str) -> Origin {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        assert!(parse_request(text.as_bytes(), &Limits::default(), &mut head).unwrap());
        let forwarded = Forwarded {
            trusted: trusted.iter().map(|network| network.parse().unwrap()).collect(),
            source,
            x_forwarded: true,
            forwarded: true,
        };
        let peer = Peer::new(SocketAddr::new(peer.parse().unwrap(), 1));
        origin(&forwarded, &peer, text.as_bytes(), &head)
    }

    fn client(trusted: &[&str], peer: &str, fields: &str) -> String {
        read(ForwardedSource::XForwardedFor, trusted, peer, fields).address.to_string()
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

    #[test]
    fn whichever_field_hops_write_is_read_and_the_other_is_not() {
        let fields = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4;proto=http\r\n";
        for (source, expected) in
            [(ForwardedSource::XForwardedFor, ("6.6.6.6", true)), (ForwardedSource::Forwarded, ("1.2.3.4", false))]
        {
            for peer in ["10.0.0.1", "::ffff:10.0.0.1"] {
                let origin = read(source, &["10.0.0.0/8"], peer, fields);
                assert_eq!((origin.address.to_string().as_str(), origin.secure), expected, "{source:?} {peer}");
            }
            let origin = read(source, &["10.0.0.0/8"], "9.9.9.9", fields);
            assert_eq!((origin.address.to_string().as_str(), origin.secure), ("9.9.9.9", false), "{source:?}");
        }
    }
}
