//! Which bytes names, values and targets may have (RFC 9110, 5; RFC 3986), whatever version carries them.

use crate::scan::{is_all_value, is_token_byte};
use crate::{ParseError, Span};

const NAME: u8 = 1;
const NAME_IN_LOWER_CASE: u8 = 2;
const TARGET: u8 = 4;

/// What each byte may stand in, for those that are judged whole: by the same rules as [`crate::scan`] stops by.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        if is_token_byte(byte) {
            classes[at] |= NAME | if byte.is_ascii_uppercase() { 0 } else { NAME_IN_LOWER_CASE };
        }
        // A fragment is never sent.
        if byte.is_ascii_graphic() && byte != b'#' {
            classes[at] |= TARGET;
        }
        at += 1;
    }
    classes
};

fn all(bytes: &[u8], class: u8) -> bool {
    // Without a branch for each byte: nearly all of them are good.
    bytes.iter().fold(class, |classes, &byte| classes & CLASSES[usize::from(byte)]) != 0
}

/// Whether it is a token: the name of a field, a method (RFC 9110, 5.6.2).
#[must_use]
pub fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && all(name, NAME)
}

/// Whether it is a token without upper case, as names of fields are from HTTP/2 on (RFC 9113, 8.2.1).
#[must_use]
pub fn is_lower_token(name: &[u8]) -> bool {
    !name.is_empty() && all(name, NAME_IN_LOWER_CASE)
}

/// Whether it is a field's value: no controls but HTAB, no white space around it (RFC 9110, 5.5). Bytes from 0x80 on may be anything.
#[must_use]
pub fn is_value(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_all_value(value) && !is_space(value.first()) && !is_space(value.last())
}

/// Whether all its bytes may stand in a target: printable ASCII, no fragment.
#[must_use]
pub fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && all(target, TARGET)
}

/// Path and query of the part of a target that begins with its path. The query is without its `?`; empty if there is none.
#[must_use]
pub fn split_target(buffer: &[u8], target: Span) -> (Span, Span) {
    let Span { start, end } = target;
    match memchr::memchr(b'?', target.of(buffer)) {
        Some(len) => {
            let mark = start + len as u32;
            (Span { start, end: mark }, Span { start: mark + 1, end })
        }
        None => (target, Span { start: end, end }),
    }
}

/// A length: plain decimal digits, nothing else.
///
/// # Errors
/// [`ParseError::LengthInvalid`], or [`ParseError::LengthRepeated`] for a list of them.
pub fn content_length(value: &[u8]) -> Result<u64, ParseError> {
    let wrong = || if value.contains(&b',') { ParseError::LengthRepeated } else { ParseError::LengthInvalid };
    // 19 digits always fit in 64 bits; more are no real length.
    if value.is_empty() || value.len() > 19 {
        return Err(wrong());
    }
    let mut sum = 0_u64;
    for byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(wrong());
        }
        sum = sum * 10 + u64::from(digit);
    }
    Ok(sum)
}

/// Whether a name is one that `Upgrade` and `:protocol` may have (RFC 9110, 7.8): a token, and perhaps a version.
#[must_use]
pub fn is_protocol(name: &[u8]) -> bool {
    match memchr::memchr(b'/', name) {
        Some(slash) => is_token(&name[..slash]) && is_token(&name[slash + 1..]),
        None => is_token(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Target, target};

    #[test]
    fn every_byte_is_judged_as_the_grammar_says() {
        for byte in 0..=255_u8 {
            let text = [b'a', byte, b'b'];
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token(&text), token, "{byte}");
            assert_eq!(is_lower_token(&text), token && !byte.is_ascii_uppercase(), "{byte}");
            assert_eq!(is_value(&text), byte == b'\t' || (byte >= 0x20 && byte != 0x7f), "{byte}");
            assert_eq!(is_target(&text), byte.is_ascii_graphic() && byte != b'#', "{byte}");
            let whole = matches!(target(&text), Target { len: 3, query: Some(_) });
            assert_eq!(is_target(&text), whole, "{byte}");
        }
        assert!(!is_token(b"") && !is_lower_token(b"") && !is_target(b""));
        assert!(is_value(b"") && is_value(b"x") && is_value("\u{e4} b".as_bytes()));
        for bad in [&b" a"[..], b"a ", b"\ta", b"a\t", b" "] {
            assert!(!is_value(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_protocol_is_a_token_and_perhaps_a_version() {
        for good in [&b"websocket"[..], b"connect-udp", b"TLS/1.0"] {
            assert!(is_protocol(good), "{good:?}");
        }
        for bad in [&b""[..], b"/", b"a/", b"/1", b"a/b/c", b"a b", b"a\r\nb"] {
            assert!(!is_protocol(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_target_is_split_at_its_first_question_mark() {
        let split = |text: &str| {
            let span = Span { start: 1, end: text.len() as u32 };
            let (path, query) = split_target(text.as_bytes(), span);
            (String::from_utf8_lossy(path.of(text.as_bytes())).into_owned(), query.of(text.as_bytes()).to_vec())
        };
        assert_eq!(split(">/a"), ("/a".into(), b"".to_vec()));
        assert_eq!(split(">/a?"), ("/a".into(), b"".to_vec()));
        assert_eq!(split(">/a?b?c"), ("/a".into(), b"b?c".to_vec()));
        assert_eq!(split(">?b"), ("".into(), b"b".to_vec()));
    }

    #[test]
    fn a_length_is_plain_digits_of_which_there_are_nineteen_at_most() {
        for (text, length) in
            [("0", 0), ("00", 0), ("10", 10), ("907", 907), ("9999999999999999999", 9_999_999_999_999_999_999)]
        {
            assert_eq!(content_length(text.as_bytes()), Ok(length), "{text}");
        }
        for text in ["", "-1", "+1", " 1", "1 ", "1a", "0x1", "/", ":", "00000000000000000000"] {
            assert_eq!(content_length(text.as_bytes()), Err(ParseError::LengthInvalid), "{text}");
        }
        for text in ["1,1", "1, 1", ",", "10000000000000000000,1"] {
            assert_eq!(content_length(text.as_bytes()), Err(ParseError::LengthRepeated), "{text}");
        }
    }
}
