//! Authorities: which there are, and when two of them name the same server. Routes, keys, redirections and the comparison of
//! target and `Host` all go by this; what is sent on stays as the client wrote it.

use crate::scan::is_all_host;

/// The port that a scheme means where none is written: `https` if `secure`, else `http` (RFC 9110, 4.2).
#[must_use]
pub const fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// An authority (RFC 3986, 3.2) without userinfo, taken apart.
#[derive(Debug, Clone, Copy)]
pub struct Authority<'b> {
    host: &'b [u8],
    /// Digits, perhaps none.
    port: &'b [u8],
}

impl<'b> Authority<'b> {
    /// Of a text that has been judged: a `Host` or a target of a parsed head.
    #[must_use]
    pub fn new(text: &'b [u8]) -> Self {
        let (host, port) = match memchr::memrchr(b':', text) {
            // `[::1]` has colons of its own.
            Some(colon) if text.last() != Some(&b']') => (&text[..colon], &text[colon + 1..]),
            _ => (text, &text[..0]),
        };
        Self { host, port }
    }

    /// The host, without the dot of the root: `a.example.` is `a.example`. Compare it without regard to case.
    #[must_use]
    pub fn host(self) -> &'b [u8] {
        match self.host {
            [host @ .., b'.'] if !host.is_empty() => host,
            host => host,
        }
    }

    /// The port, if it is another than the scheme's own.
    #[must_use]
    pub fn port(self, default: u16) -> Option<u32> {
        let number = self
            .port
            .iter()
            .fold(0_u32, |number, digit| number.saturating_mul(10).saturating_add(u32::from(digit.wrapping_sub(b'0'))));
        (!self.port.is_empty() && number != u32::from(default)).then_some(number)
    }

    /// Whether both name one server, where the scheme's own port is `default`.
    #[must_use]
    pub fn is_same(self, other: Self, default: u16) -> bool {
        self.host().eq_ignore_ascii_case(other.host()) && self.port(default) == other.port(default)
    }

    /// Appends the host in the one form that all its spellings have: lower case, without the dot of the root.
    pub fn append_host(self, out: &mut Vec<u8>) {
        out.extend(self.host().iter().map(u8::to_ascii_lowercase));
    }

    /// Appends host and port in that form; the scheme's own port is left out.
    pub fn append(self, default: u16, out: &mut Vec<u8>) {
        self.append_host(out);
        if let Some(mut port) = self.port(default) {
            out.push(b':');
            let start = out.len();
            loop {
                out.push(b'0' + (port % 10) as u8);
                port /= 10;
                if port == 0 {
                    break;
                }
            }
            out[start..].reverse();
        }
    }
}

/// `host:port`, as CONNECT names it: with a port that there is (RFC 9110, 9.3.6).
#[must_use]
pub fn is_host_and_port(value: &[u8]) -> bool {
    // Against port 0, which is none: so a port that is told, and is another.
    is_authority(value) && matches!(Authority::new(value).port(0), Some(1..=0xffff))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port` (RFC 3986, 3.2 without userinfo), not empty.
#[must_use]
pub fn is_authority(value: &[u8]) -> bool {
    if let [b'[', rest @ ..] = value {
        return is_bracketed(rest);
    }
    // No host has a colon: so there is none but before a port, and what stands before that is the host.
    let mut host = value;
    while let [rest @ .., b'0'..=b'9'] = host {
        host = rest;
    }
    let host = match host {
        [host @ .., b':'] if value.len() - host.len() <= 1 + PORT_DIGITS_MAX => host,
        _ => value,
    };
    !host.is_empty() && is_all_host(host)
}

const PORT_DIGITS_MAX: usize = 5;

/// What stands behind a bracket: an address of IPv6, and perhaps a port.
fn is_bracketed(rest: &[u8]) -> bool {
    let Some(close) = rest.iter().position(|&byte| byte == b']') else { return false };
    let is_good = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let port_is_good = match &rest[close + 1..] {
        [] => true,
        [b':', digits @ ..] => digits.len() <= PORT_DIGITS_MAX && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    close > 0 && rest[..close].iter().all(is_good) && port_is_good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_not_written_is_the_schemes_own() {
        assert_eq!((default_port(false), default_port(true)), (80, 443));
        let is_same = |one: &str, other: &str, secure| {
            Authority::new(one.as_bytes()).is_same(Authority::new(other.as_bytes()), default_port(secure))
        };
        assert!(is_same("a", "A.:80", false) && is_same("a:", "a:443", true));
        assert!(!is_same("a", "a:80", true) && !is_same("a", "a:443", false) && !is_same("a", "b", true));
    }

    #[test]
    fn a_tunnel_goes_to_a_port_that_there_is() {
        for good in ["a:443", "a:1", "a.:65535", "[::1]:80"] {
            assert!(is_host_and_port(good.as_bytes()), "{good}");
        }
        for bad in ["a", "a:", "a:0", "a:65536", "a:99999", "[::1]", "[::1]:", ":80", "", "u@a:80"] {
            assert!(!is_host_and_port(bad.as_bytes()), "{bad}");
        }
    }

    /// The same by the grammar from front to back.
    fn is_authority_by_grammar(value: &[u8]) -> bool {
        let (host, port) = match value {
            [b'[', rest @ ..] => {
                let Some(close) = rest.iter().position(|&byte| byte == b']') else { return false };
                if !rest[..close].iter().all(|&byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
                    return false;
                }
                (&rest[..close], &rest[close + 1..])
            }
            _ => {
                let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte);
                value.split_at(value.iter().position(|&byte| !is_host(byte)).unwrap_or(value.len()))
            }
        };
        let port_is_good = match port {
            [] => true,
            [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
            _ => false,
        };
        !host.is_empty() && port_is_good
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(5_000))]

        #[test]
        fn an_authority_is_one_from_either_end(text in "[a1:\\[\\]. @,/%-]{0,12}(:[0-9]{0,7})?", byte: u8, at in 0_usize..20) {
            let mut text = text.into_bytes();
            proptest::prop_assert_eq!(is_authority(&text), is_authority_by_grammar(&text), "{:?}", text);
            if let Some(place) = text.get_mut(at) {
                *place = byte;
            }
            proptest::prop_assert_eq!(is_authority(&text), is_authority_by_grammar(&text), "{:?}", text);
        }
    }

    #[test]
    fn all_spellings_of_a_server_have_one_form() {
        let form = |text: &str| {
            assert!(is_authority(text.as_bytes()), "{text}");
            let mut out = Vec::new();
            Authority::new(text.as_bytes()).append(80, &mut out);
            String::from_utf8(out).unwrap()
        };
        for text in ["shop.example", "SHOP.example.", "shop.Example:80", "shop.example.:080", "shop.example:"] {
            assert_eq!(form(text), "shop.example", "{text}");
        }
        assert_eq!(form("shop.example.:443"), "shop.example:443");
        assert_eq!(form("shop.example:00000"), "shop.example:0");
        assert_eq!(form("[::FF]:80"), "[::ff]");
        assert_eq!(form("[::1]"), "[::1]");
        assert_eq!(form("[::1]:8080"), "[::1]:8080");
        assert_eq!(form("."), ".");
        assert_eq!(form("a.."), "a.");
    }
}
