//! What request and response heads share: spans, fields, the names that mean something to a proxy.

/// Most fields in a head, whatever the configuration says.
pub const FIELDS_CEILING: usize = 256;

/// Limits on a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest head, in bytes, its last empty line included.
    pub head_bytes_max: usize,
    /// Most fields; values above 256 count as 256.
    pub fields_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes_max: 32 * 1024, fields_max: 100 }
    }
}

/// A piece of the buffer that a head was parsed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes, out of the buffer that was parsed.
    ///
    /// Empty if the span lies outside `buffer`, which is then another buffer than the one that was parsed.
    #[must_use]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Where `part` lies in `buffer`, of which it must be a piece; heads are at most 4 GiB because limits are.
    #[must_use]
    pub fn locate(buffer: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(buffer.as_ptr() as usize);
        Self { start: start as u32, end: (start + part.len()) as u32 }
    }
}

/// The version of HTTP that a message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

/// Request method, as far as a proxy cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// GET
    #[default]
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// TRACE
    Trace,
    /// CONNECT
    Connect,
    /// PATCH
    Patch,
    /// Any other token.
    Other,
}

impl Method {
    /// Methods are case-sensitive (RFC 9110, 9.1).
    #[must_use]
    pub fn parse(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Whether sending it twice means the same as once (RFC 9110, 9.2.2).
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}

/// A field line of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The name's bytes, as sent.
    pub name: Span,
    /// The value's bytes, without surrounding white space.
    pub value: Span,
    /// What the name means to a proxy.
    pub kind: FieldName,
    /// It came marked as never to be indexed (RFC 7541, 6.2.3), and stays so.
    pub sensitive: bool,
}

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
    /// One of these but for `_` in place of `-`: who reads fields as variables (CGI, WSGI) cannot tell the two apart.
    Disguised,
    /// Any other name that `Connection` lists: for this hop only.
    Nominated,
}

/// How names of ours begin.
const RINGWAY: &[u8] = b"x-ringway-";
/// Longest name that [`FieldName::classify`] knows whole.
const KNOWN_BYTES_MAX: usize = 18;

impl FieldName {
    /// What a name means, however it is spelled.
    #[must_use]
    pub fn classify(name: &[u8]) -> Self {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        // By length first: most names are told from all of these by it alone.
        match name.len() {
            2 if is(b"te") => Self::Te,
            4 if is(b"host") => Self::Host,
            6 if is(b"cookie") => Self::Cookie,
            6 if is(b"expect") => Self::Expect,
            7 if is(b"upgrade") => Self::Upgrade,
            7 if is(b"trailer") => Self::Trailer,
            9 if is(b"forwarded") => Self::Forwarded,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::KeepAlive,
            14 if is(b"content-length") => Self::ContentLength,
            14 if is(b"http2-settings") => Self::Http2Settings,
            15 if is(b"x-forwarded-for") => Self::XForwardedFor,
            16 if is(b"proxy-connection") => Self::ProxyConnection,
            16 if is(b"x-forwarded-host") => Self::XForwardedHost,
            16 if is(b"x-forwarded-port") => Self::XForwardedPort,
            17 if is(b"transfer-encoding") => Self::TransferEncoding,
            17 if is(b"x-forwarded-proto") => Self::XForwardedProto,
            18 if is(b"proxy-authenticate") => Self::ProxyAuthenticate,
            len if len > 10 && name[..10].eq_ignore_ascii_case(RINGWAY) => Self::Ringway,
            _ if memchr::memchr(b'_', name).is_some() => Self::unmask(name),
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

    /// Whether the field may stand in a trailer section: never what frames or routes a message, or says who sent it
    /// (RFC 9110, 6.5.1).
    #[must_use]
    pub fn may_trail(self) -> bool {
        matches!(self, Self::Other)
    }
}

/// Whether a field of that name may stand in a trailer section: never one that frames or routes a message, or says who sent it
/// (RFC 9110, 6.5.1).
#[must_use]
pub fn may_trail(name: &[u8]) -> bool {
    FieldName::classify(name).may_trail()
}

/// The elements of a comma-separated list, without the white space around them.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
