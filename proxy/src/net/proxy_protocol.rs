//! The PROXY protocol, versions 1 and 2. Source: HAProxy's `proxy-protocol.txt`.

use crate::net::timer::Timer;
use crate::net::transport::Transport;
use ringway_config::model::ProxyHeader;
use std::future::poll_fn;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;
use tokio::io::ReadBuf;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest version 1 header.
const V1_BYTES_MAX: usize = 107;
/// Longest version 2 header that is accepted.
const V2_BYTES_MAX: usize = 4096;
const TLV_AUTHORITY: u8 = 0x02;
const TLV_CRC32C: u8 = 0x03;
const TLV_UNIQUE_ID: u8 = 0x05;
const TLV_SSL: u8 = 0x20;
const SSL_CLIENT: u8 = 0x01;

/// The contents of a header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Source and destination; `None`: the connection is the proxy's own (LOCAL, UNKNOWN).
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    /// The server name that the client asked for.
    pub(crate) authority: Option<String>,
    /// Whether the client came over TLS.
    pub(crate) secure: bool,
    /// An id of the client's connection.
    pub(crate) unique_id: Option<Box<[u8]>>,
}

/// Why a header cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads a header from the start of a connection, and nothing after it. `None`: no valid one has come in time.
pub(crate) async fn receive(stream: &Transport, timer: &Timer) -> Option<Header> {
    let mut held: Vec<u8> = Vec::new();
    poll_fn(|context| {
        loop {
            let mut space = [0; V2_BYTES_MAX];
            let mut peeked = ReadBuf::new(&mut space);
            match stream.poll_peek(context, &mut peeked) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending if timer.poll_fired(context) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
            let before = held.len();
            held.extend_from_slice(peeked.filled());
            let (take, told) = match parse(&held) {
                Ok(Some((told, length))) => (length - before, Some(told)),
                Ok(None) if held.len() < V2_BYTES_MAX => (held.len() - before, None),
                _ => return Poll::Ready(None),
            };
            // These bytes were peeked at: reading them does not wait.
            let mut rest = take;
            while rest > 0 {
                let mut sink = [0; V2_BYTES_MAX];
                match stream.try_read(&mut sink[..rest]) {
                    Ok(count) if count > 0 => rest -= count,
                    _ => return Poll::Ready(None),
                }
            }
            if told.is_some() {
                return Poll::Ready(told);
            }
        }
    })
    .await
}

/// A header at the start of the bytes, and its length. `None`: more is needed.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] == SIGNATURE[..common] {
        return parse_v2(bytes);
    }
    let common = bytes.len().min(6);
    if bytes[..common] != b"PROXY "[..common] {
        return Err(Malformed);
    }
    let Some(end) = bytes.iter().take(V1_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() < V1_BYTES_MAX { Ok(None) } else { Err(Malformed) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let mut words = line.split(' ').skip(1);
    let mut told = Header::default();
    let family = words.next().ok_or(Malformed)?;
    if family != "UNKNOWN" {
        let mut address = || words.next().and_then(|word| word.parse::<IpAddr>().ok()).ok_or(Malformed);
        let (source, destination) = (address()?, address()?);
        let mut port = || {
            let word = words.next().filter(|word| *word == "0" || !word.starts_with('0') && !word.starts_with('+'));
            word.and_then(|word| word.parse::<u16>().ok()).ok_or(Malformed)
        };
        let ports = (port()?, port()?);
        let fits = match family {
            "TCP4" => source.is_ipv4() && destination.is_ipv4(),
            "TCP6" => source.is_ipv6() && destination.is_ipv6(),
            _ => false,
        };
        if !fits || words.next().is_some() {
            return Err(Malformed);
        }
        told.addresses = Some((SocketAddr::new(source, ports.0), SocketAddr::new(destination, ports.1)));
    }
    Ok(Some((told, end + 1)))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let Some(head) = bytes.get(12..16) else { return Ok(None) };
    let length = 16 + usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[0] >> 4 != 2 || length > V2_BYTES_MAX {
        return Err(Malformed);
    }
    let Some(body) = bytes.get(16..length) else { return Ok(None) };
    let mut told = Header::default();
    let addresses_len = match (head[0] & 15, head[1]) {
        // LOCAL: whatever follows is skipped.
        (0, _) => return Ok(Some((told, length))),
        (1, 0x11 | 0x12) => 12,
        (1, 0x21 | 0x22) => 36,
        (1, 0x31 | 0x32) => 216,
        (1, 0x00) => 0,
        _ => return Err(Malformed),
    };
    let addresses = body.get(..addresses_len).ok_or(Malformed)?;
    told.addresses = addresses_of(addresses);
    let mut summed = false;
    let mut rest = &body[addresses_len..];
    while !rest.is_empty() {
        let [kind, high, low, ..] = *rest else { return Err(Malformed) };
        let end = 3 + usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(3..end).ok_or(Malformed)?;
        match kind {
            TLV_AUTHORITY => told.authority = std::str::from_utf8(value).ok().map(str::to_ascii_lowercase),
            TLV_CRC32C => {
                // Over the whole header, with zeros in place of the checksum.
                let sum: [u8; 4] = value.try_into().map_err(|_| Malformed)?;
                let at = length - rest.len() + 3;
                let parts = [&bytes[..at], &[0; 4], &bytes[at + 4..length]].concat();
                if std::mem::replace(&mut summed, true) || crc32c(&parts) != u32::from_be_bytes(sum) {
                    return Err(Malformed);
                }
            }
            // Longer ones are not ids: 128 bytes at most.
            TLV_UNIQUE_ID if value.len() > 128 => return Err(Malformed),
            TLV_UNIQUE_ID => told.unique_id = (!value.is_empty()).then(|| value.into()),
            TLV_SSL => told.secure = value.first().is_some_and(|flags| flags & SSL_CLIENT != 0),
            _ => {}
        }
        rest = &rest[end..];
    }
    Ok(Some((told, length)))
}

/// Source and destination, by the length of their block: IPv4, IPv6. `None`: a Unix socket, or an unknown family.
fn addresses_of(block: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    match block.len() {
        12 => {
            let address = |at: usize| Ipv4Addr::new(block[at], block[at + 1], block[at + 2], block[at + 3]);
            Some(((address(0), port(8)).into(), (address(4), port(10)).into()))
        }
        36 => {
            let address = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&block[at..at + 16]);
                Ipv6Addr::from(octets)
            };
            Some(((address(0), port(32)).into(), (address(16), port(34)).into()))
        }
        _ => None,
    }
}

/// CRC-32C (RFC 3720, 12.1), bit by bit: a header is short, and has one at most.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    })
}

/// Writes a header. `told` without addresses: the connection is the proxy's own.
pub(crate) fn write(version: ProxyHeader, told: &Header, out: &mut Vec<u8>) {
    // Both of one family: an IPv4 client of a dual-stack socket is an IPv4 client.
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let pair = told.addresses.map(|(source, destination)| {
        let (source, destination) = (canonical(source), canonical(destination));
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(address), IpAddr::V6(_)) => {
                (SocketAddr::new(address.to_ipv6_mapped().into(), source.port()), destination)
            }
            (IpAddr::V6(_), IpAddr::V4(address)) => {
                (source, SocketAddr::new(address.to_ipv6_mapped().into(), destination.port()))
            }
            _ => (source, destination),
        }
    });
    if version == ProxyHeader::V1 {
        // Writing to a vector cannot fail.
        let _ = match pair {
            None => write!(out, "PROXY UNKNOWN\r\n"),
            Some((source, destination)) => {
                let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from, to) = (source.ip(), destination.ip());
                write!(out, "PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
            }
        };
        return;
    }
    out.extend_from_slice(SIGNATURE);
    out.push(if pair.is_some() { 0x21 } else { 0x20 });
    let start = out.len() + 3;
    match pair {
        None => out.extend_from_slice(&[0, 0, 0]),
        Some((source, destination)) => {
            out.extend_from_slice(&[if source.is_ipv4() { 0x11 } else { 0x21 }, 0, 0]);
            for address in [source.ip(), destination.ip()] {
                match address {
                    IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
            if let Some(authority) = &told.authority {
                tlv(TLV_AUTHORITY, authority.as_bytes(), out);
            }
            if let (Some(id), ProxyHeader::V2 { unique_id: true }) = (&told.unique_id, version) {
                tlv(TLV_UNIQUE_ID, id, out);
            }
            if told.secure {
                // Flags, and four bytes of "not verified": no certificate was requested, or it is reported elsewhere.
                tlv(TLV_SSL, &[SSL_CLIENT, 0, 0, 0, 1], out);
            }
        }
    }
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX).to_be_bytes();
    out[start - 2..start].copy_from_slice(&length);
}

fn tlv(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(value.len()).unwrap_or(0);
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&value[..usize::from(length)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (source, destination) in
            [("1.2.3.4:5", "6.7.8.9:10"), ("[::1]:5", "[2001:db8::1]:443"), ("1.2.3.4:5", "[::1]:6")]
        {
            let addresses = (source.parse().unwrap(), destination.parse().unwrap());
            let told = Header {
                addresses: Some(addresses),
                authority: Some("a.example".into()),
                secure: true,
                unique_id: Some((*b"an id").into()),
            };
            let mut text = Vec::new();
            write(ProxyHeader::V2 { unique_id: true }, &told, &mut text);
            text.extend_from_slice(b"rest");
            let (read, length) = parse(&text).unwrap().unwrap();
            assert_eq!(&text[length..], b"rest");
            assert_eq!((read.authority.as_deref(), read.secure), (Some("a.example"), true));
            assert_eq!(read.unique_id.as_deref(), Some(&b"an id"[..]));
            assert_eq!(read.addresses.unwrap().0.ip().to_canonical(), addresses.0.ip());
            text.clear();
            write(ProxyHeader::V1, &told, &mut text);
            let (read, length) = parse(&text).unwrap().unwrap();
            assert_eq!((read.addresses.unwrap().0.port(), length), (5, text.len()));
            // However much has come, more is waited for, and nothing panics.
            for part in 0..length {
                assert_eq!(parse(&text[..part]), Ok(None), "{part}");
            }
        }
    }

    #[test]
    fn a_checksum_that_is_there_is_right() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let addresses = Some(("1.2.3.4:5".parse().unwrap(), "6.7.8.9:10".parse().unwrap()));
        let mut text = Vec::new();
        write(ProxyHeader::V2 { unique_id: false }, &Header { addresses, ..Header::default() }, &mut text);
        tlv(TLV_CRC32C, &[0; 4], &mut text);
        text[15] += 7;
        let sum = crc32c(&text).to_be_bytes();
        let at = text.len() - 4;
        assert_eq!(parse(&text), Err(Malformed), "a checksum of nothing");
        text[at..].copy_from_slice(&sum);
        assert_eq!(parse(&text).unwrap().unwrap().0.addresses, addresses);
        // Every byte but the one that declares the checksum.
        for wrong in (13..text.len()).filter(|at| *at != 28) {
            let mut bad = text.clone();
            bad[wrong] ^= 1;
            assert!(!matches!(parse(&bad), Ok(Some(_))), "{wrong}");
        }
        // Never two of them, or of another length.
        let mut twice = text.clone();
        tlv(TLV_CRC32C, &sum, &mut twice);
        twice[15] += 7;
        assert_eq!(parse(&twice), Err(Malformed));
        let mut short = text[..28].to_vec();
        tlv(TLV_CRC32C, &[0; 3], &mut short);
        short[15] = 18;
        assert_eq!(parse(&short), Err(Malformed));
    }

    #[test]
    fn names_are_told_in_small_letters() {
        let addresses = Some(("1.2.3.4:5".parse().unwrap(), "6.7.8.9:10".parse().unwrap()));
        let told = Header { addresses, authority: Some("WWW.Example".into()), ..Header::default() };
        let mut text = Vec::new();
        write(ProxyHeader::V2 { unique_id: false }, &told, &mut text);
        assert_eq!(parse(&text).unwrap().unwrap().0.authority.as_deref(), Some("www.example"));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bad in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(Malformed), "{bad:?}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert_eq!(parse(long.as_bytes()), Err(Malformed));
        let mut v2 = Vec::new();
        let told = Header {
            addresses: Some(("1.2.3.4:5".parse().unwrap(), "1.2.3.4:6".parse().unwrap())),
            ..Header::default()
        };
        write(ProxyHeader::V2 { unique_id: false }, &told, &mut v2);
        for (at, value) in [(12, 0x31), (12, 0x22), (13, 0x99), (14, 0xff), (15, 3)] {
            let mut bad = v2.clone();
            bad[at] = value;
            assert!(!matches!(parse(&bad), Ok(Some(_))), "{at} {value}");
        }
        for seed in 0..20_000_u32 {
            let mut noisy = v2.clone();
            let at = 12 + (seed as usize * 7 % (noisy.len() - 12));
            noisy[at] = noisy[at].wrapping_add((seed / 7) as u8);
            let _ = parse(&noisy);
        }
    }
}
