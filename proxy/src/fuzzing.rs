//! What `fuzz/` gives to the parsers of what clients, backends and agents send: a function for each, which asserts what must hold of
//! whatever comes. The unit tests play the same corpora, so that a find stays found.

use crate::net::client_hello::HelloReader;
use crate::net::proxy_protocol::{self, Header};
use crate::net::quic_ids;
use crate::probe;
use crate::routing::affinity_cookie::{self, Value};
use crate::routing::forwarded;
use crate::worker::Peer;
use ringway_config::model::{AffinityCookie, Forwarded, ForwardedSource, ProxyHeader};
use ringway_message::{HeadWriter, Limits, RequestHead, TraceParent};
use std::net::{IpAddr, SocketAddr};

/// PROXY headers: they end where they end whatever follows, of a part more is wanted, and what is read and written is read as the same.
pub fn proxy_header(bytes: &[u8]) {
    let Ok(Some((told, length))) = proxy_protocol::parse(bytes) else { return };
    assert_eq!(proxy_protocol::parse(&bytes[..length]), Ok(Some((told.clone(), length))));
    for part in [0, 1, length / 2, length - 1] {
        assert_eq!(proxy_protocol::parse(&bytes[..part]), Ok(None), "{part} of {length}");
    }
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let addresses = told.addresses.map(|(source, destination)| (canonical(source), canonical(destination)));
    for version in [ProxyHeader::V1, ProxyHeader::V2 { unique_id: true }, ProxyHeader::V2 { unique_id: false }] {
        let mut text = Vec::new();
        proxy_protocol::write(version, &told, &mut text);
        // Longer than is taken: the flags of TLS take more room than some write them in.
        if text.len() > 4096 {
            continue;
        }
        let (again, end) = proxy_protocol::parse(&text).expect("what is written is well formed").expect("and whole");
        assert_eq!(end, text.len());
        let read = again.addresses.map(|(source, destination)| (canonical(source), canonical(destination)));
        assert_eq!(read, addresses);
        let ProxyHeader::V2 { unique_id } = version else { continue };
        if addresses.is_some() {
            let expected = Header { unique_id: told.unique_id.clone().filter(|_| unique_id), ..told.clone() };
            assert_eq!(Header { addresses: told.addresses, ..again }, expected);
        }
    }
}

/// The first message of a client that speaks TLS: whole or in two pieces it asks for the same name.
pub fn client_hello(bytes: &[u8]) {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let mut whole = HelloReader::default();
    let whole = whole.read(bytes);
    let mut pieces = HelloReader::default();
    let in_pieces = match pieces.read(first) {
        Ok(None) => pieces.read(second),
        decided => decided,
    };
    assert_eq!(whole, in_pieces);
    if let Ok(Some(Some(name))) = whole {
        assert!(!name.is_empty() && name.len() < 256 && !name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name}");
    }
}

/// Datagrams of QUIC: an id is a part of the datagram, where it stands does not depend on what follows the header.
pub fn quic(bytes: &[u8]) {
    let Some((&length, datagram)) = bytes.split_first() else { return };
    let longer = [datagram, b"more"].concat();
    let is_part = |id: &[u8]| (1..=20).contains(&id.len()) && datagram.windows(id.len()).any(|part| part == id);
    for length in [usize::from(length) % 21, 8] {
        let Some(found) = quic_ids::destination(datagram, length) else { continue };
        assert!(is_part(found.id.as_bytes()));
        assert_eq!(quic_ids::destination(&longer, length), Some(found));
    }
    if let Some(found) = quic_ids::source(datagram) {
        assert!(is_part(found.as_bytes()));
        assert_eq!(quic_ids::source(&longer), Some(found));
    }
}

/// A request with these lines after its first two.
fn request(lines: &[u8]) -> Option<(Vec<u8>, RequestHead)> {
    let text = [b"GET / HTTP/1.1\r\nHost: a.test\r\n", lines, b"\r\n\r\n"].concat();
    let mut head = RequestHead::default();
    let limits = Limits { head_bytes_max: 1 << 20, fields_max: 256 };
    let whole = ringway_http1::parse_request(&text, &limits, &mut head).ok()?;
    // All of it, and nothing after it.
    (whole && head.head_len == text.len()).then_some((text, head))
}

/// Forwarding fields and trace context: what we add ourselves is understood by the next of us, whatever stood before it.
pub fn forwarded(bytes: &[u8]) {
    let Some((text, head)) = request(bytes) else { return };
    let _ = ringway_message::is_trace_state(&text, &head);
    if let Some(parent) = TraceParent::of(&text, &head) {
        let mut lines = HeadWriter::default();
        let value = lines.line(&parent.line(), TraceParent::LINE_NAME_BYTES);
        assert_eq!(TraceParent::parse(value.of(lines.text())), Some(parent));
    }
    let peer = Peer::new(SocketAddr::from(([10, 0, 0, 1], 5)));
    for source in [ForwardedSource::XForwardedFor, ForwardedSource::Forwarded] {
        for trusted in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.1/32"] {
            let trusted = [trusted.parse().expect("a network")].into_iter().collect();
            let setting = Forwarded { trusted, source, x_forwarded: true, forwarded: true };
            let origin = forwarded::origin(&setting, &peer, &text, &head);
            assert_eq!(origin.address, origin.address.to_canonical());
            if !origin.trusted {
                assert_eq!((origin.address, origin.secure), (peer.ip(), false));
            }
            let mut out = HeadWriter::default();
            forwarded::append(&setting, origin, &peer, &text, &head, &mut out);
            // The next hop trusts us, and nobody before us.
            let (text, head) = request(out.text().strip_suffix(b"\r\n").unwrap_or(out.text())).expect("well formed");
            let next =
                Forwarded { trusted: ["10.0.0.9/32".parse().expect("a network")].into_iter().collect(), ..setting };
            let told = forwarded::origin(&next, &Peer::new(SocketAddr::from(([10, 0, 0, 9], 5))), &text, &head);
            if next.source == ForwardedSource::XForwardedFor {
                assert_eq!(told.address, IpAddr::from([10, 0, 0, 1]));
            }
        }
    }
}

/// Affinity cookies: nothing but one of ours is taken for one, and ours is found behind any others within the bound.
pub fn cookie(bytes: &[u8]) {
    let ours = AffinityCookie {
        service: "s".into(),
        name: "sid".into(),
        attributes: String::new(),
        secret: b"0123456789abcdef".to_vec(),
    };
    let value = Value(bytes.iter().fold(7, |sum, byte| sum * 31 % (1 << 56) + u64::from(*byte)));
    let mut line = HeadWriter::default();
    affinity_cookie::write(&ours, value, &mut line);
    let made = line.text().strip_prefix(b"set-cookie: ").and_then(|rest| rest.strip_suffix(b"\r\n")).expect("a line");
    let fields = [b"Cookie: ", bytes].concat();
    if let Some((text, head)) = request(&fields) {
        assert_eq!(affinity_cookie::find(&ours, &text, &head), None);
    }
    if let Some((text, head)) = request(&[b"Cookie: ", made, b"\r\n", &fields[..]].concat()) {
        assert_eq!(affinity_cookie::find(&ours, &text, &head), Some(value));
    }
    if let Some((text, head)) = request(&[&fields[..], b"\r\nCookie: ", made].concat()) {
        let found = affinity_cookie::find(&ours, &text, &head);
        assert!(found == Some(value) || found.is_none() && head.cookies(&text).count() > 32);
    }
}

/// Lines of agents, and messages of gRPC's health protocol.
pub fn checks(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    let report = probe::agent_report(&line);
    assert!(report.percent.is_none_or(|percent| percent <= 100));
    assert_eq!(probe::agent_report(&format!("{line} # up drain 50%")), report, "what follows is for people");
    let length = u32::try_from(bytes.len()).expect("a short input").to_be_bytes();
    let framed = [&[0], &length[..], bytes].concat();
    let status = probe::serving_status(&framed);
    assert_eq!(probe::serving_status(&[&framed[..], b"x"].concat()), None, "more than one message");
    if status.is_some() {
        // A field that nobody knows changes nothing.
        let length = u32::try_from(bytes.len() + 2).expect("a short input").to_be_bytes();
        assert_eq!(probe::serving_status(&[&[0], &length[..], &[0x78, 1], bytes].concat()), status);
    }
}

#[cfg(test)]
mod tests {
    /// Every input of a target's corpus.
    fn plays(target: &str, play: fn(&[u8])) {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let entries: Vec<_> = std::fs::read_dir(&corpus).unwrap().flatten().collect();
        assert!(!entries.is_empty());
        for entry in entries {
            play(&std::fs::read(entry.path()).unwrap());
        }
    }

    #[test]
    fn what_fuzzing_has_found_stays_found() {
        plays("proxy_header", super::proxy_header);
        plays("client_hello", super::client_hello);
        plays("quic", super::quic);
        plays("forwarded", super::forwarded);
        plays("cookie", super::cookie);
        plays("checks", super::checks);
    }
}
