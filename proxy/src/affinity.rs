//! Affinity cookies: `value.signature`, both in hexadecimal, made and checked here.
//!
//! Under a policy by key the value is a random key of the client's own; under others it is the hash of the backend's id.
//! The signature is a keyed BLAKE3 hash of name and value: nobody who does not know the secret can choose where he goes.

use ringway_config::model::AffinityCookie;

/// A cookie that the answer is to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value(pub(crate) u64);

const VALUE_DIGITS: usize = 16;
const SIGNATURE_DIGITS: usize = 32;

/// The value of a cookie that was made with this secret; `None` for all others.
pub(crate) fn parse(cookie: &AffinityCookie, text: &[u8]) -> Option<Value> {
    if text.len() != VALUE_DIGITS + 1 + SIGNATURE_DIGITS || text[VALUE_DIGITS] != b'.' {
        return None;
    }
    let mut value = 0_u64;
    for digit in &text[..VALUE_DIGITS] {
        value = value << 4 | u64::from((*digit as char).to_digit(16)?);
    }
    let expected = signature(cookie, value);
    // Every digit is looked at, however early one differs.
    let difference = expected.iter().zip(&text[VALUE_DIGITS + 1..]).fold(0, |all, (one, other)| all | (one ^ other));
    (difference == 0).then_some(Value(value))
}

/// Appends `set-cookie: name=value.signature; attributes` and the end of the line.
pub(crate) fn write(cookie: &AffinityCookie, value: Value, out: &mut Vec<u8>) {
    out.extend_from_slice(b"set-cookie: ");
    out.extend_from_slice(cookie.name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(format!("{:016x}", value.0).as_bytes());
    out.push(b'.');
    out.extend_from_slice(&signature(cookie, value.0));
    out.extend_from_slice(cookie.attributes.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn signature(cookie: &AffinityCookie, value: u64) -> [u8; SIGNATURE_DIGITS] {
    let key = blake3::derive_key("ringway 2026-11 affinity cookie", &cookie.secret);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(cookie.name.as_bytes()).update(&[0]).update(&value.to_le_bytes());
    let hash = hasher.finalize();
    let mut digits = [0; SIGNATURE_DIGITS];
    for (byte, pair) in hash.as_bytes().iter().zip(digits.chunks_exact_mut(2)) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(secret: &str) -> AffinityCookie {
        AffinityCookie { name: "sid".into(), attributes: "; Path=/".into(), secret: secret.as_bytes().to_vec() }
    }

    fn text(cookie: &AffinityCookie, value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write(cookie, Value(value), &mut out);
        let line = String::from_utf8(out).unwrap();
        let value = line.strip_prefix("set-cookie: sid=").unwrap().strip_suffix("; Path=/\r\n").unwrap();
        value.as_bytes().to_vec()
    }

    #[test]
    fn own_cookies_are_known_and_others_are_not() {
        let (ours, theirs) = (cookie("0123456789abcdef"), cookie("0123456789abcdeg"));
        let made = text(&ours, 0xfeed_0000_0000_0001);
        assert_eq!(parse(&ours, &made), Some(Value(0xfeed_0000_0000_0001)));
        assert_eq!(parse(&theirs, &made), None);
        for index in 0..made.len() {
            let mut bent = made.clone();
            bent[index] = if bent[index] == b'0' { b'1' } else { b'0' };
            assert_eq!(parse(&ours, &bent), None, "{index}");
        }
        for text in [&b""[..], b"x", &made[1..], &[made.as_slice(), b"0"].concat(), &[0xff; 49]] {
            assert_eq!(parse(&ours, text), None);
        }
    }
}
