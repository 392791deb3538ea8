//! Who the client is by what hops before this one have written: `X-Forwarded-*` and `Forwarded`. Which hops are believed is the reader's
//! to say.

mod rfc7239;
mod text;

use crate::{FieldName, RequestHead};
use rfc7239::Hop;
use std::net::IpAddr;
use text::{is_https, parse_address};

/// What trusted hops say of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ToldClient {
    /// Its address: the last one that is not a hop's. IPv4 where it is mapped.
    pub address: Option<IpAddr>,
    /// Whether it speaks `https`.
    pub secure: Option<bool>,
}

impl ToldClient {
    /// By `X-Forwarded-For` and `X-Forwarded-Proto`. `is_hop`: whether an address, which is canonical, is one of a hop that is believed.
    /// Whoever has sent the request is one.
    #[must_use]
    pub fn by_x_forwarded(buffer: &[u8], head: &RequestHead, is_hop: impl Fn(IpAddr) -> bool) -> Self {
        let values = head.fields.iter().rev().filter(|field| field.kind == FieldName::XForwardedFor);
        let hops = values.flat_map(|field| field.value.of(buffer).rsplit(|&byte| byte == b','));
        let hops = hops.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty()).map(parse_address);
        Self { address: nearest_first(is_hop, hops), secure: told_scheme(buffer, head) }
    }

    /// By `Forwarded` (RFC 7239); `is_hop` as in [`ToldClient::by_x_forwarded`].
    #[must_use]
    pub fn by_forwarded(buffer: &[u8], head: &RequestHead, is_hop: impl Fn(IpAddr) -> bool) -> Self {
        let hops = head.values_of_kind(buffer, FieldName::Forwarded).flat_map(rfc7239::elements);
        let hop = farthest_first(is_hop, hops);
        Self { address: hop.map(|hop| hop.address), secure: hop.and_then(|hop| hop.secure) }
    }
}

/// The nearest hop wrote the last element: goes back while the writers are trusted, and no farther than all is readable.
fn nearest_first(is_hop: impl Fn(IpAddr) -> bool, hops: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
    let mut client = None;
    for hop in hops {
        let Some(address) = hop else { break };
        client = Some(address);
        if !is_hop(address) {
            break;
        }
    }
    client
}

/// The same, from the other end: quoted strings can be read in one direction only.
fn farthest_first(is_hop: impl Fn(IpAddr) -> bool, hops: impl Iterator<Item = Option<Hop>>) -> Option<Hop> {
    hops.fold(None, |client: Option<Hop>, hop| match hop {
        Some(hop) if client.is_some() && is_hop(hop.address) => client,
        hop => hop,
    })
}

/// What a trusted hop says that the client speaks. A list, another scheme or none at all says nothing.
fn told_scheme(buffer: &[u8], head: &RequestHead) -> Option<bool> {
    let mut values = head.values_of_kind(buffer, FieldName::XForwardedProto);
    let value = values.next().filter(|_| values.next().is_none())?;
    is_https(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Field, Span};
    use proptest::prelude::*;

    /// Hops are in 10.0.0.0/8.
    fn is_hop(address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
    }

    /// A head of these lines, and its bytes.
    fn head(lines: &str) -> (Vec<u8>, RequestHead) {
        let buffer = lines.as_bytes().to_vec();
        let fields = lines.split_terminator("\r\n").map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            let kind = FieldName::classify(name.as_bytes());
            let (name, value) = (name.as_bytes(), value.trim_matches([' ', '\t']).as_bytes());
            Field {
                name: Span::locate(lines.as_bytes(), name),
                value: Span::locate(lines.as_bytes(), value),
                kind,
                sensitive: false,
            }
        });
        let fields = fields.collect();
        (buffer, RequestHead { fields, ..RequestHead::default() })
    }

    fn by_x_forwarded(lines: &str) -> ToldClient {
        let (buffer, head) = head(lines);
        ToldClient::by_x_forwarded(&buffer, &head, is_hop)
    }

    fn by_forwarded(lines: &str) -> ToldClient {
        let (buffer, head) = head(lines);
        ToldClient::by_forwarded(&buffer, &head, is_hop)
    }

    /// The address, `-` if there is none.
    fn address(told: ToldClient) -> String {
        told.address.map_or("-".to_owned(), |address| address.to_string())
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
            ("1.2.3.4, unknown", "-"),
            ("1.2.3.4, _gazonk, 10.0.0.9", "10.0.0.9"),
            ("1.2.3.4, [10.0.0.9]", "-"),
            ("1.2.3.4, 10.0.0.9:99999", "-"),
            (" , ,", "-"),
        ] {
            assert_eq!(address(by_x_forwarded(&format!("X-Forwarded-For: {field}\r\n"))), expected, "{field}");
        }
        let apart = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: \r\nX-Forwarded-For: 10.0.0.9\r\n";
        assert_eq!(address(by_x_forwarded(apart)), "1.2.3.4");
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_says() {
        for (field, expected, secure) in [
            ("Forwarded: for=1.2.3.4", "1.2.3.4", None),
            ("Forwarded: For=\"1.2.3.4:80\";Proto=HTTPS;by=_x", "1.2.3.4", Some(true)),
            (
                "Forwarded: for=9.9.9.9, for=\"[2001:db8::1]:4711\";proto=https, for=10.0.0.9;proto=http",
                "2001:db8::1",
                Some(true),
            ),
            ("Forwarded: for=\"\\[::ffff:1.2.3.4\\]\"", "1.2.3.4", None),
            ("Forwarded: for=1.2.3.4;host=\"a,b;for=7.7.7.7\", , for=10.0.0.9", "1.2.3.4", None),
            ("Forwarded: for=1.2.3.4\r\nForwarded:\r\nForwarded: for=10.0.0.9", "1.2.3.4", None),
            ("Forwarded: ;for=1.2.3.4; proto=https;", "1.2.3.4", Some(true)),
            ("Forwarded: for=1.2.3.4; proto=http;", "1.2.3.4", Some(false)),
            // Nothing before what cannot be read is believed.
            ("Forwarded: for=1.2.3.4, for=unknown", "-", None),
            ("Forwarded: for=1.2.3.4, for=_secret, for=10.0.0.9", "10.0.0.9", None),
            ("Forwarded: for=1.2.3.4, proto=https", "-", None),
            ("Forwarded: for=1.2.3.4;for=7.7.7.7", "-", None),
            ("Forwarded: for=7.7.7.7;x=\", for=1.2.3.4", "-", None),
            ("Forwarded: for=7.7.7.7;x=\", for=\"[2001:db8::1]\"", "-", None),
            ("Forwarded: for = 1.2.3.4", "-", None),
            ("X: y", "-", None),
        ] {
            let fields = format!("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n{field}\r\n");
            let told = by_forwarded(&fields);
            assert_eq!((address(told).as_str(), told.secure), (expected, secure), "{field}");
        }
    }

    #[test]
    fn both_ways_along_a_chain_come_to_the_same_client() {
        let kinds = [None, Some("10.0.0.7"), Some("10.0.0.8"), Some("1.1.1.1"), Some("2.2.2.2")];
        for number in 0..kinds.len().pow(4) {
            let chain: Vec<Option<IpAddr>> = (0..4)
                .map(|place| kinds[number / kinds.len().pow(place) % kinds.len()].map(|text| text.parse().unwrap()))
                .collect();
            let hops = chain.iter().map(|hop| hop.map(|address| Hop { address, secure: None }));
            let back = nearest_first(is_hop, chain.iter().rev().copied());
            assert_eq!(farthest_first(is_hop, hops).map(|hop| hop.address), back, "{chain:?}");
        }
    }

    #[test]
    fn a_scheme_is_believed_if_it_is_one_that_is_known() {
        for (field, expected) in [
            ("https", Some(true)),
            ("HTTPS", Some(true)),
            ("http", Some(false)),
            ("https, http", None),
            ("https,https", None),
            ("wss", None),
            ("javascript", None),
            ("", None),
            ("https\r\nX-Forwarded-Proto: https", None),
        ] {
            assert_eq!(by_x_forwarded(&format!("X-Forwarded-Proto: {field}\r\n")).secure, expected, "{field}");
        }
        assert_eq!(by_x_forwarded("X: y\r\n"), ToldClient::default());
    }

    proptest! {
        /// Whatever stands there, reading it comes to an end, and what is told is an address that stands there.
        #[test]
        fn whatever_stands_in_the_fields_is_read_without_harm(value in "[ -~]{0,80}", twice in "[a-z0-9=;,\"\\\\ .:\\[\\]]{0,60}") {
            for told in [
                by_x_forwarded(&format!("X-Forwarded-For: {value}\r\nX-Forwarded-For: {twice}\r\n")),
                by_forwarded(&format!("Forwarded: {value}\r\nForwarded: {twice}\r\n")),
            ] {
                prop_assert!(told.address.is_none_or(|address| address == address.to_canonical()));
            }
        }

        #[test]
        fn what_a_hop_writes_in_either_field_is_the_same_client(
            chain in prop::collection::vec(prop::sample::select(vec!["10.0.0.1", "1.2.3.4", "5.6.7.8"]), 1..6),
        ) {
            let plain = by_x_forwarded(&format!("X-Forwarded-For: {}\r\n", chain.join(", ")));
            let elements: Vec<String> = chain.iter().map(|address| format!("for=\"{address}\"")).collect();
            let quoted = by_forwarded(&format!("Forwarded: {}\r\n", elements.join(",")));
            prop_assert_eq!(plain.address, quoted.address);
        }
    }
}
