//! `Forwarded` (RFC 7239), as far as it says who the client is.

use super::text::{is_https, parse_address};
use crate::is_token;
use std::net::IpAddr;

/// Longest node in a quoted string with escapes: an IPv6 address with its port has fewer.
const NODE_BYTES_MAX: usize = 64;

/// Whom one element is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) address: IpAddr,
    /// Whether it spoke `https`, if that is told.
    pub(super) secure: Option<bool>,
}

/// The elements of one field, in order; empty ones are left out (RFC 9110, 5.6.1). `None`: one that says nothing readable, an
/// obfuscated or unknown node among them. Where the grammar is broken, that is the last.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = Option<Hop>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_ascii_start();
            rest = match rest.first()? {
                b',' => &rest[1..],
                _ => break,
            };
        }
        match element(rest) {
            Some((hop, after)) => {
                rest = after;
                Some(hop)
            }
            None => {
                rest = &[];
                Some(None)
            }
        }
    })
}

/// One element, and what comes after it. `None`: it breaks the grammar.
fn element(mut rest: &[u8]) -> Option<(Option<Hop>, &[u8])> {
    let (mut node, mut proto) = (None, None);
    loop {
        rest = rest.trim_ascii_start();
        match rest.first() {
            Some(b';') => {
                rest = &rest[1..];
                continue;
            }
            Some(b',') | None => {
                let address = node.and_then(Value::address);
                let secure = proto.and_then(Value::is_https);
                return Some((address.map(|address| Hop { address, secure }), rest));
            }
            Some(_) => {}
        }
        let (name, after) = rest.split_at(memchr::memchr(b'=', rest)?);
        let (value, after) = pair_value(&after[1..])?;
        rest = after.trim_ascii_start();
        if !matches!(rest.first(), Some(b';' | b',') | None) {
            return None;
        }
        // A parameter comes once (RFC 7239, 4): with two, two readers could see two clients.
        let twice = if name.eq_ignore_ascii_case(b"for") {
            node.replace(value).is_some()
        } else if name.eq_ignore_ascii_case(b"proto") {
            proto.replace(value).is_some()
        } else {
            false
        };
        if twice || !is_token(name) {
            return None;
        }
    }
}

#[derive(Clone, Copy)]
enum Value<'b> {
    Plain(&'b [u8]),
    /// With backslashes in it.
    Escaped(&'b [u8]),
}

/// A token or a quoted string, and what comes after it. Colons and brackets are taken outside quotes as well, as many write.
fn pair_value(text: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| matches!(byte, b',' | b';' | b' ' | b'\t' | b'"')).unwrap_or(text.len());
        let (token, after) = text.split_at(end);
        return (!token.is_empty() && after.first() != Some(&b'"')).then_some((Value::Plain(token), after));
    };
    let (mut end, mut escaped) = (0, false);
    loop {
        match quoted.get(end)? {
            b'"' => break,
            b'\\' => {
                escaped = true;
                end += 2;
            }
            _ => end += 1,
        }
    }
    let (inner, after) = (&quoted[..end], &quoted[end + 1..]);
    Some((if escaped { Value::Escaped(inner) } else { Value::Plain(inner) }, after))
}

impl Value<'_> {
    fn address(self) -> Option<IpAddr> {
        match self {
            Value::Plain(text) => parse_address(text),
            Value::Escaped(text) => {
                let mut plain = [0; NODE_BYTES_MAX];
                let (mut length, mut literal) = (0, false);
                for &byte in text {
                    if byte == b'\\' && !literal {
                        literal = true;
                        continue;
                    }
                    literal = false;
                    *plain.get_mut(length)? = byte;
                    length += 1;
                }
                parse_address(&plain[..length])
            }
        }
    }

    fn is_https(self) -> Option<bool> {
        match self {
            Value::Plain(text) => is_https(text),
            // Nobody escapes letters.
            Value::Escaped(_) => None,
        }
    }
}
