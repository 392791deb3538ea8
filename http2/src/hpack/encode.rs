//! The encoder, which keeps no state: what it writes refers to the static table only, and may be sent on any connection whose first
//! block begins with [`size_update_to_zero`].
//!
//! A name that the static table has is written in the form that asks for indexing where that is shorter: its index then fits into
//! the first byte. In a table of size 0 nothing is remembered by that (RFC 7541, 4.4).

use super::{huffman, integer, table};

/// Indices of names in the static table.
const AUTHORITY: u8 = 1;
const METHOD: u8 = 2;
const PATH: u8 = 4;
const SCHEME: u8 = 6;
const STATUS: u8 = 8;
const ACCEPT_ENCODING: u8 = 16;
const AUTHORIZATION: u8 = 23;
const COOKIE: u8 = 32;
const PROXY_AUTHORIZATION: u8 = 49;

/// Values shorter than this are guessed too easily (RFC 7541, 7.1.3).
const COOKIE_BYTES_SAFE: usize = 20;

/// What is copied of a short string, be it shorter.
const COPIED_BYTES: usize = 32;

/// How a field that is spelled out asks to be treated.
#[derive(Clone, Copy)]
struct Form {
    pattern: u8,
    prefix: u32,
}

const NOT_INDEXED: Form = Form { pattern: 0, prefix: 4 };
const INDEXED: Form = Form { pattern: 0x40, prefix: 6 };
const NEVER_INDEXED: Form = Form { pattern: 0x10, prefix: 4 };

/// Tells the peer's decoder that we use no table: what a connection's first block begins with.
pub fn size_update_to_zero(out: &mut Vec<u8>) {
    out.push(0x20);
}

/// Names that are often spelled out, ready to be sent.
const READY: [([u8; huffman::READY_BYTES], u8); table::OTHERS.len()] = {
    let mut ready = [([0; huffman::READY_BYTES], 0); table::OTHERS.len()];
    let mut at = 0;
    while at < ready.len() {
        ready[at] = huffman::ready(table::OTHERS[at]);
        at += 1;
    }
    ready
};

/// Appends a field. Its name is written in lower case.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8], sensitive: bool) {
    let index = table::number_of(name);
    let is_secret = match index {
        AUTHORIZATION | PROXY_AUTHORIZATION => true,
        COOKIE => value.len() < COOKIE_BYTES_SAFE,
        _ => false,
    };
    if index == 0 {
        spelled(out, name, value, sensitive);
    } else if let Some((bytes, length)) = usize::from(index).checked_sub(table::FIELDS.len() + 1).map(|at| &READY[at]) {
        let form = if sensitive { NEVER_INDEXED } else { NOT_INDEXED };
        out.push(form.pattern);
        let end = out.len() + usize::from(*length);
        out.extend_from_slice(bytes);
        out.truncate(end);
        string::<false>(out, value);
    } else if sensitive || is_secret {
        literal(out, NEVER_INDEXED, index, value);
    } else if index == ACCEPT_ENCODING && value == b"gzip, deflate" || index != ACCEPT_ENCODING && value.is_empty() {
        // Names that are no pseudo-fields' are there once, and all but this one without a value.
        whole(out, index);
    } else {
        // An index from 15 on takes a second byte after a prefix of four bits.
        literal(out, INDEXED, index, value);
    }
}

/// A field that nothing is known of.
#[inline(never)]
fn spelled(out: &mut Vec<u8>, name: &[u8], value: &[u8], sensitive: bool) {
    let form = if sensitive { NEVER_INDEXED } else { NOT_INDEXED };
    out.push(form.pattern);
    string::<true>(out, name);
    string::<false>(out, value);
}

/// What has an entry of its own in the static table.
fn whole(out: &mut Vec<u8>, index: u8) {
    out.push(0x80 | index);
}

/// `:status`
pub fn status(out: &mut Vec<u8>, status: u16) {
    match status {
        200 => whole(out, STATUS),
        204 => whole(out, STATUS + 1),
        206 => whole(out, STATUS + 2),
        304 => whole(out, STATUS + 3),
        400 => whole(out, STATUS + 4),
        404 => whole(out, STATUS + 5),
        500 => whole(out, STATUS + 6),
        _ => {
            let digit = |number: u16| b'0' + (number % 10) as u8;
            literal(out, NOT_INDEXED, STATUS, &[digit(status / 100), digit(status / 10), digit(status)]);
        }
    }
}

/// `:method`
pub fn method(out: &mut Vec<u8>, method: &[u8]) {
    match method {
        b"GET" => whole(out, METHOD),
        b"POST" => whole(out, METHOD + 1),
        _ => literal(out, NOT_INDEXED, METHOD, method),
    }
}

/// `:path`
pub fn path(out: &mut Vec<u8>, path: &[u8], sensitive: bool) {
    match path {
        b"/" if !sensitive => whole(out, PATH),
        b"/index.html" if !sensitive => whole(out, PATH + 1),
        _ => literal(out, if sensitive { NEVER_INDEXED } else { NOT_INDEXED }, PATH, path),
    }
}

/// `:scheme`
pub fn scheme(out: &mut Vec<u8>, scheme: &[u8]) {
    match scheme {
        b"http" => whole(out, SCHEME),
        b"https" => whole(out, SCHEME + 1),
        _ => literal(out, NOT_INDEXED, SCHEME, scheme),
    }
}

/// `:authority`
pub fn authority(out: &mut Vec<u8>, authority: &[u8], sensitive: bool) {
    if authority.is_empty() && !sensitive {
        return whole(out, AUTHORITY);
    }
    literal(out, if sensitive { NEVER_INDEXED } else { NOT_INDEXED }, AUTHORITY, authority);
}

/// `:protocol` (RFC 8441)
pub fn protocol(out: &mut Vec<u8>, protocol: &[u8]) {
    out.push(NOT_INDEXED.pattern);
    string::<true>(out, b":protocol");
    string::<false>(out, protocol);
}

/// A field whose name the static table has at `index`.
#[inline(always)]
fn literal(out: &mut Vec<u8>, form: Form, index: u8, value: &[u8]) {
    integer::encode(out, form.pattern, form.prefix, usize::from(index));
    string::<false>(out, value);
}

/// A string, in the shorter of its two forms. Names are written in lower case.
#[inline(always)]
fn string<const LOWER: bool>(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes {
        [] => out.push(0),
        &[byte] => out.extend_from_slice(&[1, if LOWER { byte.to_ascii_lowercase() } else { byte }]),
        _ => long_string::<LOWER>(out, bytes),
    }
}

/// One that may be shorter in the Huffman code: no symbol of that has less than five bits.
#[inline(never)]
fn long_string<const LOWER: bool>(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() <= huffman::SHORT_BYTES {
        let mut space = [0; huffman::SHORT_BYTES + 2];
        if let Some(length) = huffman::encode_short::<LOWER>(bytes, &mut space) {
            // So short that its length takes no second byte.
            space[0] = 0x80 | length as u8;
            let end = out.len() + 1 + length;
            match space.first_chunk::<COPIED_BYTES>() {
                // Of a length that is known when this is compiled: no call for a few bytes.
                Some(whole) if length < COPIED_BYTES => {
                    out.extend_from_slice(whole);
                    out.truncate(end);
                }
                _ => out.extend_from_slice(&space[..=length]),
            }
            return;
        }
    } else {
        let length = huffman::encoded_len(bytes, LOWER);
        if length < bytes.len() {
            integer::encode(out, 0x80, 7, length);
            return huffman::encode(bytes, LOWER, out);
        }
    }
    integer::encode(out, 0, 7, bytes.len());
    let start = out.len();
    out.extend_from_slice(bytes);
    if LOWER {
        out[start..].make_ascii_lowercase();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::*;
    use proptest::prelude::*;

    fn decode(block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>, bool)> {
        let mut fields = Vec::new();
        Decoder::new(4096)
            .decode(block, |field| fields.push((field.name.to_vec(), field.value.to_vec(), field.sensitive)))
            .unwrap();
        fields
    }

    #[test]
    fn what_the_static_table_has_takes_one_byte() {
        let mut out = Vec::new();
        method(&mut out, b"GET");
        method(&mut out, b"POST");
        path(&mut out, b"/", false);
        scheme(&mut out, b"http");
        scheme(&mut out, b"https");
        for code in [200, 204, 206, 304, 400, 404, 500] {
            status(&mut out, code);
        }
        field(&mut out, b"Accept-Encoding", b"gzip, deflate", false);
        field(&mut out, b"age", b"", false);
        assert_eq!(out, [0x82, 0x83, 0x84, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x8d, 0x8e, 0x90, 0x95]);
    }

    #[test]
    fn each_entry_of_the_static_table_is_written_as_its_index() {
        for (at, (name, value)) in table::FIELDS.iter().enumerate() {
            let mut out = Vec::new();
            match *name {
                b":authority" => authority(&mut out, value, false),
                b":method" => method(&mut out, value),
                b":path" => path(&mut out, value, false),
                b":scheme" => scheme(&mut out, value),
                b":status" => status(&mut out, std::str::from_utf8(value).unwrap().parse().unwrap()),
                _ => field(&mut out, name, value, false),
            }
            let is_secret = matches!(*name, b"authorization" | b"proxy-authorization" | b"cookie");
            assert_eq!(out == [0x81 + at as u8], !is_secret, "{at}");
        }
    }

    #[test]
    fn names_that_are_ready_are_what_would_be_written() {
        for (name, (bytes, length)) in table::OTHERS.iter().zip(&READY) {
            let mut written = Vec::new();
            string::<true>(&mut written, &name.to_ascii_uppercase());
            assert_eq!(bytes[..usize::from(*length)], written);
            for sensitive in [false, true] {
                let mut out = Vec::new();
                field(&mut out, &name.to_ascii_uppercase(), b"value", sensitive);
                assert_eq!(decode(&out), [(name.to_vec(), b"value".to_vec(), sensitive)]);
            }
        }
    }

    #[test]
    fn secrets_are_never_indexed_and_stay_so() {
        for (name, value, sensitive, never) in [
            ("authorization", "Basic eDp5", false, true),
            ("Proxy-Authorization", "x", false, true),
            ("cookie", "a=1", false, true),
            ("cookie", "sid=0123456789abcdef", false, false),
            ("cookie", "sid=0123456789abcdef", true, true),
            ("x-token", "t", true, true),
            ("x-token", "t", false, false),
            ("accept", "", true, true),
            ("date", "x", false, false),
        ] {
            let mut out = Vec::new();
            field(&mut out, name.as_bytes(), value.as_bytes(), sensitive);
            assert_eq!(out[0] & 0xf0 == 0x10, never, "{name}: {value}");
            assert_eq!(decode(&out), [(name.to_lowercase().into(), value.into(), never)]);
        }
    }

    #[test]
    fn an_encoded_block_belongs_to_no_connection() {
        // The same block twice in one connection, after the update, says the same: nothing was remembered, and nothing would be found.
        let mut decoder = Decoder::new(4096);
        let mut block = Vec::new();
        size_update_to_zero(&mut block);
        field(&mut block, b"server", b"nginx", false);
        let mut count = 0;
        decoder.decode(&block, |_| count += 1).unwrap();
        assert_eq!(decoder.decode(&[0xbe], |_| ()), Err(crate::hpack::HpackError::Index));
        decoder.decode(&block[1..], |field| assert_eq!(field.value, b"nginx")).unwrap();
        assert_eq!(count, 1);
    }

    /// Bytes that nginx 1.22 sends for the same head: `:status`, `server`, `date`, `content-type`, `content-length`, `last-modified` by
    /// their index in one byte, all other names spelled out.
    #[test]
    fn a_typical_response_head_is_no_longer_than_nginx_s() {
        let known = [
            ("server", "nginx/1.22.1"),
            ("date", "Sat, 28 Nov 2026 14:41:49 GMT"),
            ("content-type", "text/html; charset=utf-8"),
            ("content-length", "1256"),
            ("last-modified", "Sat, 28 Nov 2026 10:00:00 GMT"),
            ("vary", "Accept-Encoding"),
        ];
        let other = [("etag", "\"6569a3f0-4e8\""), ("cache-control", "max-age=3600"), ("accept-ranges", "bytes")];
        let mut out = Vec::new();
        status(&mut out, 200);
        let mut nginx = 1;
        let string = |text: &str| 1 + huffman::encoded_len(text.as_bytes(), false).min(text.len());
        for (name, value) in known {
            field(&mut out, name.as_bytes(), value.as_bytes(), false);
            nginx += 1 + string(value);
            assert!(out.len() <= nginx, "{name}: {} > {nginx}", out.len());
        }
        for (name, value) in other {
            field(&mut out, name.as_bytes(), value.as_bytes(), false);
            nginx += 1 + string(name) + string(value);
        }
        assert!(out.len() < nginx, "{} against {nginx}", out.len());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again_with_names_in_lower_case(
            fields in prop::collection::vec(
                (
                    prop_oneof![
                        "[a-zA-Z0-9-]{1,30}".prop_map(String::into_bytes),
                        prop::sample::select(&table::FIELDS[14..]).prop_map(|(name, _)| name.to_ascii_uppercase()),
                    ],
                    prop::collection::vec(any::<u8>(), 0..300),
                    any::<bool>(),
                ),
                0..20,
            )
        ) {
            let mut block = Vec::new();
            size_update_to_zero(&mut block);
            for (name, value, sensitive) in &fields {
                field(&mut block, name, value, *sensitive);
            }
            let decoded = decode(&block);
            prop_assert_eq!(decoded.len(), fields.len());
            for ((name, value, sensitive), (expected_name, expected, was)) in decoded.iter().zip(&fields) {
                prop_assert_eq!(name, &expected_name.to_ascii_lowercase());
                prop_assert_eq!(value, expected);
                prop_assert!(*sensitive || !was);
            }
        }
    }
}
