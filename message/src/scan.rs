//! Which bytes may stand where: names, values, targets. Eight bytes are judged at a time, in plain arithmetic on a word, since heads
//! are short and there are many.

/// A byte that a token may have (RFC 9110, 5.6.2): field names, methods, chunk extensions.
const TOKEN: u8 = 1;
/// A byte that a field's value may have: tab, space, what is printable, what is not ASCII.
const VALUE: u8 = 2;
/// A byte that a host's name may have: see [`is_host_byte`].
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

/// Whether a field's value may have it (RFC 9110, 5.5): never what ends lines or texts for somebody.
#[inline]
#[must_use]
pub const fn is_value_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & VALUE != 0
}

/// Whether a host's name may have it (RFC 3986, reg-name): unreserved, percent-encoded, sub-delims; the comma is left out, as lists
/// hide there.
#[inline]
#[must_use]
pub const fn is_host_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & HOST != 0
}

/// Each byte 1, and the highest bit of each.
const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGHS: u64 = ONES << 7;

const fn all(byte: u8) -> u64 {
    ONES * byte as u64
}

/// The highest bits of bytes below `limit`. Above the lowest of them others may be marked that are none.
#[inline(always)]
const fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(all(limit)) & !word & HIGHS
}

/// The same, of bytes that are this one.
#[inline(always)]
const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ all(byte), 1)
}

/// The index of the first marked byte.
#[inline(always)]
const fn first(marks: u64) -> usize {
    marks.trailing_zeros() as usize / 8
}

/// Steps over words without a mark, then to the first byte that is marked. Gives what begins there, or what is too short for a word.
#[inline(always)]
fn skip(mut rest: &[u8], marks: impl Fn(u64) -> u64) -> &[u8] {
    while let Some((word, behind)) = rest.split_first_chunk() {
        let stops = marks(u64::from_le_bytes(*word));
        if stops != 0 {
            return &rest[first(stops)..];
        }
        rest = behind;
    }
    rest
}

/// What stands behind the bytes at the start that may be in a value. A loop of its own: amid another there are too few registers for
/// its constants.
#[inline(never)]
#[must_use]
pub fn behind_value(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    loop {
        rest = skip(rest, |word| below(word, b' ') | equal(word, 0x7f));
        match rest {
            // Tabs, and what is too short for a word.
            [byte, behind @ ..] if *byte != b'\r' && is_value_byte(*byte) => rest = behind,
            _ => return rest,
        }
    }
}

/// What stands behind a token, which may be empty, and whether that is of letters, digits and dashes only, as nearly all names are.
#[inline]
#[must_use]
pub fn behind_token(bytes: &[u8]) -> (&[u8], bool) {
    let (mut rest, mut plain) = (bytes, true);
    loop {
        rest = skip(rest, |word| {
            // Letters and dashes. Without their highest bits no sum leaves its byte.
            let low = word & !HIGHS;
            let folded = low | all(0x20);
            let letters = (folded + all(0x80 - b'a')) & !(folded + all(0x80 - b'{'));
            let dashes = !((low ^ all(b'-')) + all(0x7f));
            !((letters | dashes) & !word) & HIGHS
        });
        match rest {
            [byte, behind @ ..] if *byte != b':' && is_token_byte(*byte) => {
                plain &= byte.is_ascii_alphanumeric() || *byte == b'-';
                rest = behind;
            }
            _ => return (rest, plain),
        }
    }
}

/// How many bytes at the start are no white space and no control character. They may still be no target: see [`target_query`].
#[inline]
#[must_use]
pub fn target_len(bytes: &[u8]) -> usize {
    let rest = skip(bytes, |word| below(word, b'!') | equal(word, 0x7f));
    let count = rest.iter().take_while(|&&byte| byte > b' ' && byte != 0x7f).count();
    bytes.len() - rest.len() + count
}

/// Where the first `?` stands in a target, or its length. `None`: it has what no URI has (RFC 3986: ASCII that is printed), or a
/// fragment, which is never sent.
#[inline]
#[must_use]
pub fn target_query(target: &[u8]) -> Option<usize> {
    let length = target.len();
    let Some(last) = length.checked_sub(8) else { return short_query(target) };
    let (mut at, mut query, mut wrong) = (0, length, 0);
    loop {
        // The last eight bytes, if need be some of them for the second time.
        at = at.min(last);
        let word = target[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        // Controls and spaces have been stopped at, and are asked for again: whoever asks this need not know.
        wrong |= (word & HIGHS) | below(word, b'!') | equal(word, 0x7f) | equal(word, b'#');
        let marks = equal(word, b'?');
        if marks != 0 {
            query = query.min(at + first(marks));
        }
        if at == last {
            return (wrong == 0).then_some(query);
        }
        at += 8;
    }
}

fn short_query(target: &[u8]) -> Option<usize> {
    let good = target.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#');
    good.then(|| target.iter().position(|&byte| byte == b'?').unwrap_or(target.len()))
}

/// Eight bytes with their letters in lower case, as a number to be compared.
#[inline(always)]
pub(crate) const fn lower(bytes: [u8; 8]) -> u64 {
    let word = u64::from_le_bytes(bytes);
    let low = word & !HIGHS;
    let upper = (low + all(0x80 - b'A')) & !(low + all(0x80 - b'[')) & !word & HIGHS;
    word | upper >> 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_byte_is_judged_alike_in_every_place_of_a_word() {
        for byte in 0..=255_u8 {
            for place in 0..37 {
                let mut text = [b'a'; 37];
                text[place] = byte;
                let end = |good: bool| if good { 37 } else { place };
                assert_eq!(text.len() - behind_value(&text).len(), end(is_value_byte(byte)), "{byte} {place}");
                assert_eq!(text.len() - behind_token(&text).0.len(), end(is_token_byte(byte)), "{byte} {place}");
                let plain = byte.is_ascii_alphanumeric() || byte == b'-' || !is_token_byte(byte);
                assert_eq!(behind_token(&text).1, plain, "{byte} {place}");
                assert_eq!(target_len(&text), end(byte > b' ' && byte != 0x7f), "{byte} {place}");
                let query = (byte.is_ascii_graphic() && byte != b'#').then_some(if byte == b'?' { place } else { 37 });
                assert_eq!(target_query(&text), query, "{byte} {place}");
            }
            assert_eq!(lower([byte; 8]), u64::from_le_bytes([byte.to_ascii_lowercase(); 8]));
        }
    }

    #[test]
    fn classes_are_those_of_the_rfcs() {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        for byte in 0..=255_u8 {
            assert_eq!(is_token_byte(byte), token(byte), "{byte}");
            assert_eq!(is_value_byte(byte), matches!(byte, b'\t' | b' '..=b'~' | 0x80..), "{byte}");
        }
        assert!(!is_host_byte(b',') && !is_host_byte(b'@') && is_host_byte(b'%'));
    }

    proptest! {
        #[test]
        fn words_and_bytes_come_to_the_same(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\t'), Just(b' '), Just(b'a'), Just(b'?'), Just(b'-')], 0..60),
        ) {
            let end = |good: fn(u8) -> bool| {
                bytes.iter().position(|&byte| !good(byte)).unwrap_or(bytes.len())
            };
            prop_assert_eq!(bytes.len() - behind_value(&bytes).len(), end(is_value_byte));
            prop_assert_eq!(bytes.len() - behind_token(&bytes).0.len(), end(is_token_byte));
            prop_assert_eq!(target_len(&bytes), end(|byte| byte > b' ' && byte != 0x7f));
            let good = bytes.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
            let query = bytes.iter().position(|&byte| byte == b'?').unwrap_or(bytes.len());
            prop_assert_eq!(target_query(&bytes), good.then_some(query));
        }
    }
}
