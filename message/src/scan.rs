//! Which bytes may stand where: names, values, targets. Sixteen bytes are judged at a time, since heads are short and there are many.

mod block;
mod lanes;

use block::{BLOCK_BYTES, Block};
use lanes::{HIGHS, all};

/// A byte that a token may have (RFC 9110, 5.6.2): field names, methods, chunk extensions.
const TOKEN: u8 = 1;
/// A byte that a field's value may have: tab, space, what is printable, what is not ASCII.
const VALUE: u8 = 2;
/// A byte that a host's name may have: see [`is_all_host`].
const HOST: u8 = 4;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        let alphanumeric = value.is_ascii_alphanumeric();
        if alphanumeric || is_one_of(value, b"!#$%&'*+-.^_`|~") {
            classes[byte] |= TOKEN;
        }
        if value == b'\t' || value >= b' ' && value != 0x7f {
            classes[byte] |= VALUE;
        }
        if alphanumeric || is_one_of(value, b"-._~%!$&'()*+;=") {
            classes[byte] |= HOST;
        }
        byte += 1;
    }
    classes
};

const fn is_one_of(value: u8, list: &[u8]) -> bool {
    let mut at = 0;
    while at < list.len() {
        if list[at] == value {
            return true;
        }
        at += 1;
    }
    false
}

/// Whether a token may have it (RFC 9110, 5.6.2).
#[inline]
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

/// Whether a field's value may have it (RFC 9110, 5.5): never a byte that some parser takes for the end of a line or text.
#[inline]
#[must_use]
pub const fn is_value_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & VALUE != 0
}

/// Whether all of it may be in a host's name (RFC 3986, reg-name): unreserved, percent-encoded, sub-delims; the comma is left out, as
/// lists hide there.
#[inline]
pub(crate) fn is_all_host(bytes: &[u8]) -> bool {
    is_all(bytes, HOST)
}

/// Steps over blocks without a stop, then to the first byte that is one. Gives what begins there. `is_stop` says of a byte alone what
/// `stops` says of sixteen.
#[inline(always)]
fn skip(bytes: &[u8], stops: impl Fn(Block) -> u16, is_stop: impl Fn(u8) -> bool) -> &[u8] {
    let mut rest = bytes;
    while let Some((block, behind)) = rest.split_first_chunk() {
        let stops = stops(Block::new(block));
        if stops != 0 {
            return rest.get(stops.trailing_zeros() as usize..).unwrap_or_default();
        }
        rest = behind;
    }
    if rest.is_empty() { rest } else { skip_last(bytes, rest, stops, is_stop) }
}

/// The same of what is left, which is no whole block.
#[inline(never)]
fn skip_last<'b>(
    bytes: &'b [u8],
    rest: &'b [u8],
    stops: impl Fn(Block) -> u16,
    is_stop: impl Fn(u8) -> bool,
) -> &'b [u8] {
    let count = match bytes.last_chunk() {
        // Together with some that have been looked at, and are none.
        Some(block) => (stops(Block::new(block)).trailing_zeros() as usize + rest.len()).saturating_sub(BLOCK_BYTES),
        None => rest.iter().take_while(|byte| !is_stop(**byte)).count(),
    };
    rest.get(count..).unwrap_or_default()
}

/// What stands behind the bytes at the start that may be in a value.
#[inline]
#[must_use]
pub fn behind_value(bytes: &[u8]) -> &[u8] {
    match skip(bytes, Block::controls, |byte| byte.is_ascii_control()) {
        [b'\t', rest @ ..] => behind_tab(rest),
        rest => rest,
    }
}

#[cold]
fn behind_tab(mut rest: &[u8]) -> &[u8] {
    loop {
        match skip(rest, Block::controls, |byte| byte.is_ascii_control()) {
            [b'\t', behind @ ..] => rest = behind,
            rest => return rest,
        }
    }
}

/// Whether all of it may be in a value.
#[inline]
pub(crate) fn is_all_value(bytes: &[u8]) -> bool {
    if bytes.len() >= BLOCK_BYTES {
        return behind_value(bytes).is_empty();
    }
    is_all(bytes, VALUE)
}

/// Without a branch for each byte: nearly all of them are good.
#[inline(always)]
fn is_all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |classes, &byte| classes & CLASSES[usize::from(byte)]) != 0
}

/// How long the name is that these bytes begin with, if it is of letters and dashes only, as nearly all are, and a colon follows. 0:
/// that is to be seen by [`behind_token`].
#[inline(always)]
#[must_use]
pub fn usual_name_len(bytes: &[u8]) -> usize {
    let Some(block) = bytes.first_chunk() else { return 0 };
    let length = Block::new(block).not_letters().trailing_zeros() as usize;
    if bytes.get(length) == Some(&b':') { length } else { 0 }
}

/// What stands behind a token, which may be empty, and whether that is of letters, digits and dashes only.
#[inline(never)]
#[must_use]
pub fn behind_token(bytes: &[u8]) -> (&[u8], bool) {
    let (mut rest, mut plain) = (bytes, true);
    loop {
        rest = skip(rest, Block::not_letters, |byte| !byte.is_ascii_alphabetic() && byte != b'-');
        match rest {
            [byte, behind @ ..] if is_token_byte(*byte) => {
                plain &= byte.is_ascii_digit();
                rest = behind;
            }
            _ => return (rest, plain),
        }
    }
}

/// A target, as far as it has no white space and no control character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Its length in bytes.
    pub len: usize,
    /// Where the first `?` stands in it, or its length. `None`: it has what no URI has (RFC 3986: ASCII that is printed), or a fragment,
    /// which is never sent.
    pub query: Option<usize>,
}

/// The target that these bytes begin with.
#[inline]
#[must_use]
pub fn target(bytes: &[u8]) -> Target {
    let is_special = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#');
    let (mut rest, mut query, mut good) = (bytes, None, true);
    loop {
        rest = skip(rest, Block::not_plain_in_target, is_special);
        rest = match rest {
            [b'?', behind @ ..] => {
                query.get_or_insert(bytes.len() - rest.len());
                behind
            }
            [b'#' | 0x80.., behind @ ..] => {
                good = false;
                behind
            }
            _ => break,
        };
    }
    let len = bytes.len() - rest.len();
    Target { len, query: good.then_some(query.unwrap_or(len)) }
}

/// The bits that make upper case lower, where a word of ASCII has a letter in lower case.
#[inline(always)]
pub(crate) const fn case_bits(word: u64) -> u64 {
    let letters = (word + all(0x80 - b'a')) & !(word + all(0x80 - b'{')) & HIGHS;
    letters >> 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_byte_is_judged_alike_in_every_place_of_a_block() {
        for byte in 0..=255_u8 {
            for place in 0..37 {
                let mut text = [b'a'; 37];
                text[place] = byte;
                let end = |good: bool| if good { 37 } else { place };
                assert_eq!(text.len() - behind_value(&text).len(), end(is_value_byte(byte)), "{byte} {place}");
                assert_eq!(text.len() - behind_token(&text).0.len(), end(is_token_byte(byte)), "{byte} {place}");
                let plain = byte.is_ascii_alphanumeric() || byte == b'-' || !is_token_byte(byte);
                assert_eq!(behind_token(&text).1, plain, "{byte} {place}");
                let usual = if byte == b':' && place <= BLOCK_BYTES { place } else { 0 };
                assert_eq!(usual_name_len(&text), usual, "{byte} {place}");
                let len = end(byte > b' ' && byte != 0x7f);
                let query = (byte.is_ascii() && byte != b'#').then_some(if byte == b'?' { place } else { len });
                assert_eq!(target(&text), Target { len, query }, "{byte} {place}");
            }
            let bits = u64::from(byte.is_ascii_lowercase()) * all(0x20);
            assert!(!byte.is_ascii() || case_bits(all(byte)) == bits, "{byte}");
        }
    }

    #[test]
    fn classes_are_those_of_the_rfcs() {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        for byte in 0..=255_u8 {
            assert_eq!(is_token_byte(byte), token(byte), "{byte}");
            assert_eq!(is_value_byte(byte), matches!(byte, b'\t' | b' '..=b'~' | 0x80..), "{byte}");
            let host = byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte);
            assert_eq!(is_all_host(&[b'a', byte]), host, "{byte}");
        }
        assert!(!is_all_host(b"a,") && !is_all_host(b"@a") && !is_all_host(b":") && is_all_host(b"%"));
    }

    proptest! {
        #[test]
        fn blocks_and_bytes_come_to_the_same(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\t'), Just(b' '), Just(b'a'), Just(b'?'), Just(b'-')], 0..60),
        ) {
            let end = |good: fn(u8) -> bool| {
                bytes.iter().position(|&byte| !good(byte)).unwrap_or(bytes.len())
            };
            prop_assert_eq!(bytes.len() - behind_value(&bytes).len(), end(is_value_byte));
            let token = end(is_token_byte);
            prop_assert_eq!(bytes.len() - behind_token(&bytes).0.len(), token);
            let usual = usual_name_len(&bytes);
            prop_assert!(usual == 0 || usual == token && bytes[token] == b':' && behind_token(&bytes).1);
            prop_assert_eq!(is_all_value(&bytes), bytes.iter().all(|&byte| is_value_byte(byte)));
            let len = end(|byte| byte > b' ' && byte != 0x7f);
            let text = &bytes[..len];
            let good = text.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
            let query = text.iter().position(|&byte| byte == b'?').unwrap_or(len);
            prop_assert_eq!(target(&bytes), Target { len, query: good.then_some(query) });
        }
    }
}
