//! What a key is made of, and the cookie that stands in for one.

use regex::bytes::Regex;

/// A cookie made by Ringway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffinityCookie {
    /// The service's name, which its signature covers.
    pub service: String,
    /// Its name.
    pub name: String,
    /// `Set-Cookie` after the value: `; Path=/; HttpOnly`.
    pub attributes: String,
    /// Signs it.
    pub secret: Vec<u8>,
}

/// A regular expression with a capture group, equal to another by its text.
#[derive(Debug, Clone)]
pub struct Capture(pub Regex);

impl PartialEq for Capture {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Capture {}

/// Where a hash key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A field's value; name in lower case.
    Header(String),
    /// A cookie's value.
    Cookie(String),
    /// The server name that a TLS client asks for.
    Sni,
    /// The client's address, through trusted hops, masked to so many bits.
    SourceIp {
        /// Prefix length kept of an IPv4 address, 0 to 32.
        v4_bits: u8,
        /// Prefix length kept of an IPv6 address, 0 to 128.
        v6_bits: u8,
    },
    /// The path, without the query; so many segments of it, 0 is all.
    Path {
        /// Segments.
        depth: usize,
    },
    /// What an expression captures of another source.
    Regex(Box<Self>, Capture),
    /// Path and query, as sent.
    Uri,
    /// A query parameter's raw value.
    Query(String),
    /// The host, lower case, without port.
    Host,
    /// The method.
    Method,
    /// All of these, each present, joined by a NUL byte.
    All(Vec<Self>),
}

/// What to do when no hash key is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissing {
    /// Any backend.
    Random,
    /// The next in turn.
    RoundRobin,
    /// By the client's address.
    SourceIp,
    /// 400.
    Reject,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_equal_by_their_text() {
        let of = |text| Capture(Regex::new(text).unwrap());
        assert_eq!(of("a(.)"), of("a(.)"));
        assert_ne!(of("a(.)"), of("b(.)"));
    }
}
