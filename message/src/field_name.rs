//! What the names of fields mean: which are for one hop, which frame a message, which say who sent it.

use crate::scan::case_bits;

/// Names that mean something to a proxy; all others are [`FieldName::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the field's own name")]
pub enum FieldName {
    Other,
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    KeepAlive,
    ProxyConnection,
    ProxyAuthenticate,
    Te,
    Trailer,
    Upgrade,
    Http2Settings,
    Expect,
    Cookie,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XForwardedPort,
    Forwarded,
    /// `x-ringway-…`: ours, never a client's.
    Ringway,
    /// One of these but for `_` in place of `-`: a program that reads fields as variables (CGI, WSGI) cannot tell the two apart.
    Disguised,
    /// Any other name that `Connection` lists: for this hop only.
    Nominated,
}

/// How names of ours begin.
const RINGWAY: &[u8] = b"x-ringway-";

/// Longest name that [`FieldName::classify`] knows whole.
const KNOWN_BYTES_MAX: usize = 18;

/// Whether eight bytes are these, however they are spelled; `known` is in lower case.
#[inline(always)]
fn is_word(name: &[u8], known: &[u8]) -> bool {
    match (name.first_chunk(), known.first_chunk()) {
        (Some(name), Some(known)) => {
            let known = u64::from_le_bytes(*known);
            // Only where it has a letter, upper case is lower case as well.
            u64::from_le_bytes(*name) | case_bits(known) == known
        }
        _ => false,
    }
}

/// Whether a name is this one, however it is spelled; `known` is in lower case, and known when this is compiled.
#[inline(always)]
fn is(name: &[u8], known: &[u8]) -> bool {
    let length = known.len();
    if name.len() != length {
        return false;
    }
    match length {
        // The first eight and the last eight overlap.
        8..=16 => is_word(name, known) && is_word(&name[length - 8..], &known[length - 8..]),
        17..=24 => {
            is_word(name, known)
                && is_word(&name[8..], &known[8..])
                && is_word(&name[length - 8..], &known[length - 8..])
        }
        4..=7 => match (name.first_chunk(), name.last_chunk(), known.first_chunk(), known.last_chunk()) {
            (Some(&[a, b, c, d]), Some(&[e, f, g, h]), Some(&[i, j, k, l]), Some(&[m, n, o, p])) => {
                is_word(&[a, b, c, d, e, f, g, h], &[i, j, k, l, m, n, o, p])
            }
            _ => false,
        },
        _ => name.eq_ignore_ascii_case(known),
    }
}

/// Which lengths the names have that begin with a letter, a bit for each; 31 is that or more.
const LENGTHS: [u32; 32] = {
    let names: [&[u8]; 18] = [
        b"te",
        b"host",
        b"cookie",
        b"expect",
        b"upgrade",
        b"trailer",
        b"forwarded",
        b"connection",
        b"keep-alive",
        b"content-length",
        b"http2-settings",
        b"x-forwarded-for",
        b"proxy-connection",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"transfer-encoding",
        b"x-forwarded-proto",
        b"proxy-authenticate",
    ];
    let mut lengths = [0; 32];
    let mut at = 0;
    while at < names.len() {
        lengths[(names[at][0] & 31) as usize] |= 1 << names[at].len();
        at += 1;
    }
    // Ours have any length.
    lengths[(RINGWAY[0] & 31) as usize] |= !0 << (RINGWAY.len() + 1);
    lengths
};

impl FieldName {
    /// What a name means, however it is spelled.
    #[must_use]
    pub fn classify(name: &[u8]) -> Self {
        match Self::classify_plain(name) {
            Self::Other if memchr::memchr(b'_', name).is_some() => Self::unmask(name),
            kind => kind,
        }
    }

    /// The same, of a name that is known to have no `_`.
    #[inline]
    #[must_use]
    pub fn classify_plain(name: &[u8]) -> Self {
        // Most names are told from all of these by their length and first byte alone.
        let lengths = name.first().map_or(0, |first| LENGTHS[usize::from(first & 31)]);
        if lengths >> name.len().min(31) & 1 == 0 {
            return Self::Other;
        }
        Self::classify_known(name)
    }

    /// Of a name that has the length and the first letter of one that is known.
    fn classify_known(name: &[u8]) -> Self {
        match name.len() {
            2 if is(name, b"te") => Self::Te,
            4 if is(name, b"host") => Self::Host,
            6 if is(name, b"cookie") => Self::Cookie,
            6 if is(name, b"expect") => Self::Expect,
            7 if is(name, b"upgrade") => Self::Upgrade,
            7 if is(name, b"trailer") => Self::Trailer,
            9 if is(name, b"forwarded") => Self::Forwarded,
            10 if is(name, b"connection") => Self::Connection,
            10 if is(name, b"keep-alive") => Self::KeepAlive,
            14 if is(name, b"content-length") => Self::ContentLength,
            14 if is(name, b"http2-settings") => Self::Http2Settings,
            15 if is(name, b"x-forwarded-for") => Self::XForwardedFor,
            16 if is(name, b"proxy-connection") => Self::ProxyConnection,
            16 if is(name, b"x-forwarded-host") => Self::XForwardedHost,
            16 if is(name, b"x-forwarded-port") => Self::XForwardedPort,
            17 if is(name, b"transfer-encoding") => Self::TransferEncoding,
            17 if is(name, b"x-forwarded-proto") => Self::XForwardedProto,
            18 if is(name, b"proxy-authenticate") => Self::ProxyAuthenticate,
            11.. if is(&name[..RINGWAY.len()], RINGWAY) => Self::Ringway,
            _ => Self::Other,
        }
    }

    /// Whether a name with `_` is one of these with `-`.
    #[cold]
    fn unmask(name: &[u8]) -> Self {
        let mut dashed = [0; KNOWN_BYTES_MAX];
        for (to, from) in dashed.iter_mut().zip(name) {
            *to = if *from == b'_' { b'-' } else { *from };
        }
        let known = match dashed.get(..name.len()) {
            Some(dashed) => Self::classify(dashed) != Self::Other,
            None => dashed[..RINGWAY.len()].eq_ignore_ascii_case(RINGWAY),
        };
        if known { Self::Disguised } else { Self::Other }
    }

    /// Whether the field is for one hop only, or pretends to be, and is never passed on as it was received.
    #[must_use]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::Http2Settings
                | Self::Nominated
                | Self::Disguised
        )
    }

    /// Whether it belongs to one connection of HTTP/1, and makes a message of a later version malformed (RFC 9113, 8.2.2). `TE` may
    /// say `trailers` there.
    #[must_use]
    pub fn is_connection_specific(self) -> bool {
        matches!(
            self,
            Self::Connection | Self::KeepAlive | Self::ProxyConnection | Self::TransferEncoding | Self::Upgrade
        )
    }

    /// Whether `Connection` may make it hop-by-hop. Framing and routing are not the sender's to remove.
    #[must_use]
    pub fn may_be_nominated(self) -> bool {
        matches!(self, Self::Other | Self::Trailer | Self::Expect | Self::Cookie | Self::ProxyAuthenticate)
    }

    /// Whether it is about who sent the request: replaced or extended by each hop, never passed on beside what that says.
    #[must_use]
    pub fn is_forwarding(self) -> bool {
        matches!(
            self,
            Self::XForwardedFor | Self::XForwardedProto | Self::XForwardedHost | Self::XForwardedPort | Self::Forwarded
        )
    }
}

/// Names that mean something to whoever handles a message before its body, beside those that [`FieldName`] knows: what asks for it to be
/// handled otherwise, who asks, how long a response is good for, and how its content is to be read.
const NOT_BEHIND_BODIES: [&str; 26] = [
    "age",
    "authentication-info",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "date",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authentication-info",
    "proxy-authorization",
    "range",
    "retry-after",
    "set-cookie",
    "vary",
    "warning",
    "www-authenticate",
    "x-http-method-override",
];

/// Whether a field of that name may stand in a trailer section: never one that frames, routes or modifies a message, says who sent it, or how
/// its content is to be read (RFC 9110, 6.5.1; RFC 7230, 4.1.2 names them).
#[must_use]
pub fn may_trail(name: &[u8]) -> bool {
    let may_be_known = name.first().is_some_and(|first| FIRST_LETTERS >> (first & 31) & 1 == 1);
    FieldName::classify(name) == FieldName::Other
        && !(may_be_known && NOT_BEHIND_BODIES.iter().any(|known| reads_as(name, known)))
}

/// The letters that these begin with, a bit for each: most names that do stand in trailers begin with another.
const FIRST_LETTERS: u32 = {
    let (mut letters, mut at) = (0, 0);
    while at < NOT_BEHIND_BODIES.len() {
        letters |= 1 << (NOT_BEHIND_BODIES[at].as_bytes()[0] & 31);
        at += 1;
    }
    letters
};

/// Whether a field's name is that of another to a program that reads fields as variables: case aside, and with `_` for `-`.
#[must_use]
#[inline]
pub fn reads_as(name: &[u8], field: &str) -> bool {
    name.len() == field.len() && reads_alike(name, field)
}

fn reads_alike(name: &[u8], field: &str) -> bool {
    name.iter().zip(field.as_bytes()).all(|(a, b)| as_read(*a) == as_read(*b))
}

/// A byte of a name in the one form that all its spellings have for those who read `_` as `-`: see [`reads_as`].
#[must_use]
#[inline]
pub const fn as_read(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_by_every_byte_however_they_are_spelled() {
        let known = [
            ("te", FieldName::Te),
            ("host", FieldName::Host),
            ("cookie", FieldName::Cookie),
            ("expect", FieldName::Expect),
            ("upgrade", FieldName::Upgrade),
            ("trailer", FieldName::Trailer),
            ("forwarded", FieldName::Forwarded),
            ("connection", FieldName::Connection),
            ("keep-alive", FieldName::KeepAlive),
            ("content-length", FieldName::ContentLength),
            ("http2-settings", FieldName::Http2Settings),
            ("x-forwarded-for", FieldName::XForwardedFor),
            ("proxy-connection", FieldName::ProxyConnection),
            ("x-forwarded-host", FieldName::XForwardedHost),
            ("x-forwarded-port", FieldName::XForwardedPort),
            ("transfer-encoding", FieldName::TransferEncoding),
            ("x-forwarded-proto", FieldName::XForwardedProto),
            ("proxy-authenticate", FieldName::ProxyAuthenticate),
            ("x-ringway-explain", FieldName::Ringway),
            ("x-ringway-x", FieldName::Ringway),
        ];
        for (name, kind) in known {
            assert_eq!(FieldName::classify(name.as_bytes()), kind, "{name}");
            assert_eq!(FieldName::classify(name.to_ascii_uppercase().as_bytes()), kind, "{name}");
            assert_eq!(FieldName::classify(&name.as_bytes()[1..]), FieldName::Other, "{name}");
            if kind != FieldName::Ringway {
                assert_eq!(FieldName::classify(format!("{name}s").as_bytes()), FieldName::Other, "{name}");
            }
            // Any other byte anywhere in it makes it another name; of one of ours only the beginning is told.
            for place in 0..if kind == FieldName::Ringway { RINGWAY.len() } else { name.len() } {
                for byte in 0..=255_u8 {
                    let mut other = name.as_bytes().to_vec();
                    if byte.eq_ignore_ascii_case(&other[place]) || byte == b'_' && other[place] == b'-' {
                        continue;
                    }
                    other[place] = byte;
                    assert_eq!(FieldName::classify(&other), FieldName::Other, "{name} {place} {byte}");
                }
            }
        }
    }

    #[test]
    fn underscores_hide_nothing() {
        for name in [
            "X_Forwarded_For",
            "x-forwarded_host",
            "transfer_encoding",
            "X_RINGWAY_explain",
            "x_ringway-of-any-length-at-all",
        ] {
            assert_eq!(FieldName::classify(name.as_bytes()), FieldName::Disguised, "{name}");
        }
        for name in ["_", "x_request_id", "x_ringway_", "x_forwarded_for_", "proxy_authenticate_x"] {
            assert_eq!(FieldName::classify(name.as_bytes()), FieldName::Other, "{name}");
        }
    }

    #[test]
    fn names_that_read_alike_are_one_to_a_reader_of_variables() {
        for name in ["x-client-cert", "X_Client_Cert", "X-CLIENT_cert"] {
            assert!(reads_as(name.as_bytes(), "x-client-cert"), "{name}");
        }
        for name in ["x-client-certs", "xclient-cert", "x.client-cert", "x-client-cer"] {
            assert!(!reads_as(name.as_bytes(), "x-client-cert"), "{name}");
        }
    }

    #[test]
    fn what_belongs_to_one_connection_of_http1_is_named_one_by_one() {
        for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
            assert!(FieldName::classify(name.as_bytes()).is_connection_specific(), "{name}");
        }
        for name in ["te", "trailer", "host", "cookie", "content-length", "http2-settings", "x-forwarded-for", "x"] {
            assert!(!FieldName::classify(name.as_bytes()).is_connection_specific(), "{name}");
        }
    }

    #[test]
    fn only_what_means_nothing_to_a_proxy_may_stand_behind_a_body() {
        for name in
            ["x-checksum", "grpc-status", "grpc-status-details-bin", "server-timing", "etag", "content-digest", "x"]
        {
            assert!(may_trail(name.as_bytes()), "{name}");
        }
        for name in [
            "Content-Length",
            "transfer-encoding",
            "host",
            "trailer",
            "cookie",
            "x-forwarded-for",
            "connection",
            "Authorization",
            "content_type",
            "Content-Encoding",
            "set-cookie",
            "If-None-Match",
            "range",
            "location",
        ] {
            assert!(!may_trail(name.as_bytes()), "{name}");
        }
    }
}
