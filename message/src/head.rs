//! What request and response heads share: spans, fields, the names that mean something to a proxy.

use crate::field_name::FieldName;

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

impl Version {
    /// As logs have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
        }
    }
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

/// The elements of a comma-separated list, without the white space around them.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_their_exact_names_and_some_may_be_sent_twice() {
        for (name, method, twice) in [
            ("GET", Method::Get, true),
            ("HEAD", Method::Head, true),
            ("POST", Method::Post, false),
            ("PUT", Method::Put, true),
            ("DELETE", Method::Delete, true),
            ("OPTIONS", Method::Options, true),
            ("TRACE", Method::Trace, true),
            ("CONNECT", Method::Connect, false),
            ("PATCH", Method::Patch, false),
            ("PROPFIND", Method::Other, false),
        ] {
            assert_eq!(Method::parse(name.as_bytes()), method);
            assert_eq!(method.is_idempotent(), twice, "{name}");
            assert_eq!(Method::parse(name.to_lowercase().as_bytes()), Method::Other, "they are case-sensitive");
        }
    }

    #[test]
    fn a_span_is_a_piece_of_the_buffer_that_it_was_found_in() {
        let buffer = b"one two three";
        let span = Span::locate(buffer, &buffer[4..7]);
        assert_eq!(
            (span, span.of(buffer), span.len(), span.is_empty()),
            (Span { start: 4, end: 7 }, &b"two"[..], 3, false)
        );
        assert_eq!(span.of(b"short"), b"", "of another buffer");
        let empty = Span::locate(buffer, &buffer[4..4]);
        assert_eq!((empty.is_empty(), empty.len()), (true, 0));
    }

    #[test]
    fn elements_of_lists_are_parted_by_commas_and_have_no_white_space_around_them() {
        let list = |text: &'static [u8]| tokens(text).collect::<Vec<_>>();
        assert_eq!(list(b" a,b\t, c d ,,"), [&b"a"[..], b"b", b"c d", b"", b""]);
        assert_eq!(list(b""), [b""]);
    }
}
