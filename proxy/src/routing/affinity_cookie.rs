//! Affinity cookies: `value.signature`, both in hexadecimal, made and checked here.
//!
//! Under a policy by key the value is a random key of the client's own; under others it is the hash of the backend's id. The signature
//! is a keyed BLAKE3 hash of service, name and value: without the secret no client can choose its backend, and a cookie of one service
//! means nothing to another.
//!
//! The cookie also holds a client in its split target, where its requests have no key of their own.

use ringway_config::model::{AffinityCookie, Split};
use ringway_message::{HeadWriter, RequestHead};

/// A cookie that the response is to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value(pub(crate) u64);

const VALUE_DIGITS: usize = 16;
const SIGNATURE_DIGITS: usize = 32;
/// Cookies of a request whose signatures are checked: each costs a hash, and a browser has no more than one for each path and domain.
const CANDIDATES_MAX: usize = 32;

/// The value of the first of a request's cookies that was made for this service with this secret. Others of the same name may stand
/// before it: stale ones, another service's, those of a wider domain.
pub(crate) fn find(cookie: &AffinityCookie, buffer: &[u8], head: &RequestHead) -> Option<Value> {
    candidates(buffer, head, |name| name == cookie.name.as_bytes()).find_map(|(_, text)| parse(cookie, text))
}

/// The split target that a cookie of the request was made for: the oldest such cookie, which browsers send first. A target of weight 0
/// holds no client.
pub(crate) fn held_target(split: &Split, buffer: &[u8], head: &RequestHead) -> Option<usize> {
    let cookies = || split.targets.iter().map(|target| target.cookie.as_ref().filter(|_| target.weight > 0));
    let ours = |name: &[u8]| cookies().flatten().any(|cookie| cookie.name.as_bytes() == name);
    candidates(buffer, head, ours).find_map(|(name, text)| {
        cookies().position(|cookie| {
            cookie.is_some_and(|cookie| cookie.name.as_bytes() == name && parse(cookie, text).is_some())
        })
    })
}

/// A request's cookies of certain names that have our form, limited in number so that checking them is bounded.
fn candidates<'b>(
    buffer: &'b [u8],
    head: &RequestHead,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
    head.cookies(buffer).filter(move |(name, text)| has_form(text) && is_wanted(name)).take(CANDIDATES_MAX)
}

fn has_form(text: &[u8]) -> bool {
    text.len() == VALUE_DIGITS + 1 + SIGNATURE_DIGITS && text[VALUE_DIGITS] == b'.'
}

/// The value of a cookie that was made for this service with this secret; `None` for all others.
fn parse(cookie: &AffinityCookie, text: &[u8]) -> Option<Value> {
    if !has_form(text) {
        return None;
    }
    let mut value = 0_u64;
    for digit in &text[..VALUE_DIGITS] {
        value = value << 4 | u64::from((*digit as char).to_digit(16)?);
    }
    let expected = signature(cookie, value);
    // Every digit is compared, however early one differs (constant time).
    let difference = expected.iter().zip(&text[VALUE_DIGITS + 1..]).fold(0, |all, (one, other)| all | (one ^ other));
    (difference == 0).then_some(Value(value))
}

/// Adds `set-cookie: name=value.signature; attributes`.
pub(crate) fn write(cookie: &AffinityCookie, value: Value, head: &mut HeadWriter) {
    let line = head.begin("set-cookie");
    let out = head.text_mut();
    out.extend_from_slice(cookie.name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(format!("{:016x}", value.0).as_bytes());
    out.push(b'.');
    out.extend_from_slice(&signature(cookie, value.0));
    out.extend_from_slice(cookie.attributes.as_bytes());
    head.end(line);
}

fn signature(cookie: &AffinityCookie, value: u64) -> [u8; SIGNATURE_DIGITS] {
    let key = blake3::derive_key("ringway 2026-11 affinity cookie", &cookie.secret);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    // Neither name has a zero byte in it.
    hasher.update(cookie.service.as_bytes()).update(&[0]);
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
        AffinityCookie {
            service: "s".into(),
            name: "sid".into(),
            attributes: "; Path=/".into(),
            secret: secret.as_bytes().to_vec(),
        }
    }

    fn text(cookie: &AffinityCookie, value: u64) -> Vec<u8> {
        let mut out = HeadWriter::default();
        write(cookie, Value(value), &mut out);
        let line = String::from_utf8(out.text().to_vec()).unwrap();
        let value = line.strip_prefix("set-cookie: sid=").unwrap().strip_suffix("; Path=/\r\n").unwrap();
        value.as_bytes().to_vec()
    }

    #[test]
    fn own_cookies_are_known_and_others_are_not() {
        let (ours, theirs) = (cookie("0123456789abcdef"), cookie("0123456789abcdeg"));
        let made = text(&ours, 0xfeed_0000_0000_0001);
        assert_eq!(parse(&ours, &made), Some(Value(0xfeed_0000_0000_0001)));
        assert_eq!(parse(&theirs, &made), None);
        let another = AffinityCookie { service: "t".into(), ..ours.clone() };
        assert_eq!(parse(&another, &made), None, "a cookie is its service's alone");
        for index in 0..made.len() {
            let mut bent = made.clone();
            bent[index] = if bent[index] == b'0' { b'1' } else { b'0' };
            assert_eq!(parse(&ours, &bent), None, "{index}");
        }
        for text in [&b""[..], b"x", &made[1..], &[made.as_slice(), b"0"].concat(), &[0xff; 49]] {
            assert_eq!(parse(&ours, text), None);
        }
    }

    fn parsed(cookies: &str) -> (String, RequestHead) {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{cookies}\r\n");
        let mut head = RequestHead::default();
        let limits = ringway_http1::Limits { head_bytes_max: 1 << 20, fields_max: 256 };
        assert!(ringway_http1::parse_request(text.as_bytes(), &limits, &mut head).unwrap());
        (text, head)
    }

    #[test]
    fn the_cookie_that_fits_is_found_among_others_of_its_name_within_a_bound() {
        let ours = cookie("0123456789abcdef");
        let good = String::from_utf8(text(&ours, 7)).unwrap();
        let stale = String::from_utf8(text(&cookie("an older secret!"), 7)).unwrap();
        let find = |cookies: &str| {
            let (text, head) = parsed(cookies);
            find(&ours, text.as_bytes(), &head)
        };
        assert_eq!(find(&format!("Cookie: sid={stale}; sid={good}\r\n")), Some(Value(7)));
        assert_eq!(find(&format!("Cookie: sid={stale}\r\nCookie: x=y;sid=;sid=\"{good}\"\r\n")), Some(Value(7)));
        assert_eq!(find(&format!("Cookie: SID={good}; sidx={good}\r\n")), None);
        // A cookie that is not of our form costs nothing, and hides no other.
        assert_eq!(find(&format!("Cookie: {}sid={good}\r\n", "sid=x; ".repeat(1000))), Some(Value(7)));
        assert_eq!(find(&format!("Cookie: {}sid={good}\r\n", format!("sid={stale}; ").repeat(32))), None);
    }

    #[test]
    fn the_oldest_cookie_of_an_arm_holds_its_client_unless_the_arm_has_no_weight() {
        use ringway_config::model::SplitTarget;
        let of = |service: &str| AffinityCookie { service: service.into(), ..cookie("0123456789abcdef") };
        let target = |service: usize, weight, cookie| SplitTarget { service, weight, salt: 0, cookie };
        let split = |weight| Split {
            targets: vec![target(0, 1, Some(of("a"))), target(1, weight, Some(of("b"))), target(2, 1, None)],
            key: Vec::new(),
        };
        let value = |service: &str| String::from_utf8(text(&of(service), 3)).unwrap();
        let (text, head) = parsed(&format!("Cookie: sid=; sid={}; sid={}\r\n", value("b"), value("a")));
        assert_eq!(held_target(&split(1), text.as_bytes(), &head), Some(1));
        assert_eq!(held_target(&split(0), text.as_bytes(), &head), Some(0));
        let (text, head) = parsed(&format!("Cookie: sid={}\r\n", value("c")));
        assert_eq!(held_target(&split(1), text.as_bytes(), &head), None);
    }
}
