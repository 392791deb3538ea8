//! Who the client is: forwarding fields believed of trusted hops only, and rewritten for the next one.

use crate::http::Peer;
use ipnet::IpNet;
use ringway_config::model::{Forwarded, ForwardedSource};
use ringway_message::{FieldName, HeadWriter, RequestHead};
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

mod rfc7239;

use rfc7239::Hop;

/// Whether an address is in one of the networks, which are canonical.
pub(crate) fn is_trusted(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// Where a request comes from: what everything goes by that asks who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The client's address: the peer's, or, through trusted hops, the last one that is not a hop's. IPv4 where it is mapped.
    pub(crate) address: IpAddr,
    /// The client speaks `https`.
    pub(crate) secure: bool,
    /// The peer is a trusted hop.
    pub(crate) trusted: bool,
}

/// What the peer is, or, if it is a trusted hop, what it says of the client.
pub(crate) fn origin(forwarded: &Forwarded, peer: &Peer, buffer: &[u8], head: &RequestHead) -> Origin {
    let trusted = is_trusted(&forwarded.trusted, peer.ip());
    let own = Origin { address: peer.ip(), secure: peer.secure, trusted };
    if !trusted {
        return own;
    }
    let (hop, secure) = match forwarded.source {
        ForwardedSource::XForwardedFor => {
            let values = head.fields.iter().rev().filter(|field| field.kind == FieldName::XForwardedFor);
            let hops = values.flat_map(|field| field.value.of(buffer).rsplit(|&byte| byte == b','));
            let hops = hops.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty()).map(parse_address);
            (nearest_first(&forwarded.trusted, hops), told_scheme(buffer, head))
        }
        ForwardedSource::Forwarded => {
            let hops = head.values_of_kind(buffer, FieldName::Forwarded).flat_map(rfc7239::elements);
            let hop = farthest_first(&forwarded.trusted, hops);
            (hop.map(|hop| hop.address), hop.and_then(|hop| hop.secure))
        }
    };
    Origin { address: hop.unwrap_or(own.address), secure: secure.unwrap_or(own.secure), trusted }
}

/// The nearest hop wrote the last element: goes back while the writers are trusted, and no farther than all is readable.
fn nearest_first(trusted: &[IpNet], hops: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
    let mut client = None;
    for hop in hops {
        let Some(address) = hop else { break };
        client = Some(address);
        if !is_trusted(trusted, address) {
            break;
        }
    }
    client
}

/// The same, from the other end: quoted strings can be read in one direction only.
fn farthest_first(trusted: &[IpNet], hops: impl Iterator<Item = Option<Hop>>) -> Option<Hop> {
    hops.fold(None, |client: Option<Hop>, hop| match hop {
        Some(hop) if client.is_some() && is_trusted(trusted, hop.address) => client,
        hop => hop,
    })
}

/// What a trusted hop says that the client speaks. A list, another scheme or none at all says nothing.
fn told_scheme(buffer: &[u8], head: &RequestHead) -> Option<bool> {
    let mut values = head.values_of_kind(buffer, FieldName::XForwardedProto);
    let value = values.next().filter(|_| values.next().is_none())?;
    is_https(value)
}

fn is_https(scheme: &[u8]) -> Option<bool> {
    if scheme.eq_ignore_ascii_case(b"https") {
        Some(true)
    } else if scheme.eq_ignore_ascii_case(b"http") {
        Some(false)
    } else {
        None
    }
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`; canonical. `None`: `unknown`, a name, an obfuscated one.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let address: Option<IpAddr> = text.parse().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip())).or_else(bracketed);
    address.map(|address| address.to_canonical())
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
        // An element tells of one hop: what was spoken with this one.
        let scheme = scheme_of(client.secure);
        // RFC 7239, 6: an IPv6 address is bracketed and quoted. Writing to a Vec does not fail.
        let _ = match client.ip() {
            IpAddr::V4(address) => write!(text, "for={address};proto={scheme}"),
            IpAddr::V6(address) => write!(text, "for=\"[{address}]\";proto={scheme}"),
        };
        let authority = head.authority.of(buffer);
        if !authority.is_empty() {
            // An authority has no quote or backslash in it: the codec has seen to that.
            text.extend_from_slice(b";host=\"");
            text.extend_from_slice(authority);
            text.push(b'"');
        }
        out.end(line);
    } else if trusted {
        believed(FieldName::Forwarded).for_each(|value| out.field("forwarded", value));
    }
}

/// `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`. Where `Forwarded` is what trusted hops write, the others are not their word.
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
    text.extend_from_slice(client.text.as_bytes());
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
    fn one_address_is_one_client_however_a_hop_writes_it() {
        for (field, expected) in [
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.4:5678", "1.2.3.4"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("[::ffff:1.2.3.4]:80", "1.2.3.4"),
            ("1.2.3.4, ::ffff:10.0.0.9", "1.2.3.4"),
            ("1.2.3.4,, , [::ffff:10.0.0.9]:7,", "1.2.3.4"),
            (",1.2.3.4\t,\t10.0.0.9,", "1.2.3.4"),
            ("[2001:DB8::1]", "2001:db8::1"),
            ("1.2.3.4, unknown", "10.0.0.1"),
            ("1.2.3.4, _gazonk, 10.0.0.9", "10.0.0.9"),
            ("1.2.3.4, [10.0.0.9]", "10.0.0.1"),
            ("1.2.3.4, 10.0.0.9:99999", "10.0.0.1"),
            (" , ,", "10.0.0.1"),
        ] {
            for peer in ["10.0.0.1", "::ffff:10.0.0.1"] {
                assert_eq!(
                    client(&["10.0.0.0/8"], peer, &format!("X-Forwarded-For: {field}\r\n")),
                    expected,
                    "{field}"
                );
            }
        }
        let apart = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: \r\nX-Forwarded-For: 10.0.0.9\r\n";
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", apart), "1.2.3.4");
    }

    #[test]
    fn forwarded_may_be_what_hops_write_and_is_read_as_its_rfc_says() {
        let read = |field: &str| {
            let fields = format!("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n{field}\r\n");
            let origin = read(ForwardedSource::Forwarded, &["10.0.0.0/8"], "10.0.0.1", &fields);
            format!("{} {}", origin.address, scheme_of(origin.secure))
        };
        for (field, expected) in [
            ("Forwarded: for=1.2.3.4", "1.2.3.4 http"),
            ("Forwarded: For=\"1.2.3.4:80\";Proto=HTTPS;by=_x", "1.2.3.4 https"),
            (
                "Forwarded: for=9.9.9.9, for=\"[2001:db8::1]:4711\";proto=https, for=10.0.0.9;proto=http",
                "2001:db8::1 https",
            ),
            ("Forwarded: for=\"\\[::ffff:1.2.3.4\\]\"", "1.2.3.4 http"),
            ("Forwarded: for=1.2.3.4;host=\"a,b;for=7.7.7.7\", , for=10.0.0.9", "1.2.3.4 http"),
            ("Forwarded: for=1.2.3.4\r\nForwarded:\r\nForwarded: for=10.0.0.9", "1.2.3.4 http"),
            ("Forwarded: ;for=1.2.3.4; proto=https;", "1.2.3.4 https"),
            // Nothing before what cannot be read is believed.
            ("Forwarded: for=1.2.3.4, for=unknown", "10.0.0.1 http"),
            ("Forwarded: for=1.2.3.4, for=_secret, for=10.0.0.9", "10.0.0.9 http"),
            ("Forwarded: for=1.2.3.4, proto=https", "10.0.0.1 http"),
            ("Forwarded: for=1.2.3.4;for=7.7.7.7", "10.0.0.1 http"),
            ("Forwarded: for=7.7.7.7;x=\", for=1.2.3.4", "10.0.0.1 http"),
            ("Forwarded: for=7.7.7.7;x=\", for=\"[2001:db8::1]\"", "10.0.0.1 http"),
            ("Forwarded: for = 1.2.3.4", "10.0.0.1 http"),
            ("X: y", "10.0.0.1 http"),
        ] {
            assert_eq!(read(field), expected, "{field}");
        }
    }

    #[test]
    fn both_ways_along_a_chain_come_to_the_same_client() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let kinds = [None, Some("10.0.0.7"), Some("10.0.0.8"), Some("1.1.1.1"), Some("2.2.2.2")];
        for number in 0..kinds.len().pow(4) {
            let chain: Vec<Option<IpAddr>> = (0..4)
                .map(|place| kinds[number / kinds.len().pow(place) % kinds.len()].map(|text| text.parse().unwrap()))
                .collect();
            let hops = chain.iter().map(|hop| hop.map(|address| Hop { address, secure: None }));
            let back = nearest_first(&trusted, chain.iter().rev().copied());
            assert_eq!(farthest_first(&trusted, hops).map(|hop| hop.address), back, "{chain:?}");
        }
    }

    #[test]
    fn a_scheme_is_believed_if_it_is_one_that_is_known() {
        let secure = |fields: &str| read(ForwardedSource::XForwardedFor, &["10.0.0.0/8"], "10.0.0.1", fields).secure;
        assert!(secure("X-Forwarded-Proto: https\r\n") && secure("X-Forwarded-Proto: HTTPS\r\n"));
        for field in
            ["http", "https, http", "https,https", "wss", "javascript", "", "https\r\nX-Forwarded-Proto: https"]
        {
            assert!(!secure(&format!("X-Forwarded-Proto: {field}\r\n")), "{field}");
        }
        assert!(!read(ForwardedSource::XForwardedFor, &[], "10.0.0.1", "X-Forwarded-Proto: https\r\n").secure);
    }
}
