//! Paths: what a prefix covers, and which could lead out of it.

/// Whether a path lies below a prefix, by whole segments.
#[must_use]
pub fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    path.starts_with(prefix)
        && (prefix.ends_with(b"/") || path.len() == prefix.len() || path.get(prefix.len()) == Some(&b'/'))
}

/// Whether a backend could read the path as climbing out of the prefix that a route matched: a `..` segment, plain or
/// percent-encoded, ended by a slash, a backslash (or their encodings) or a path parameter.
#[must_use]
pub fn climbs(path: &[u8]) -> bool {
    if memchr::memchr(b'%', path).is_none() && memchr::memmem::find(path, b"..").is_none() {
        return false;
    }
    let mut segment = Segment::default();
    let mut at = 0;
    while at < path.len() {
        let (byte, len) = match path[at..] {
            [b'%', high, low, ..] => match ((high as char).to_digit(16), (low as char).to_digit(16)) {
                (Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
                _ => (b'%', 1),
            },
            _ => (path[at], 1),
        };
        at += len;
        match byte {
            b'/' | b'\\' | b';' | 0 => {
                if segment.is_dot_dot() {
                    return true;
                }
                segment = if byte == b';' { Segment { dots: 0, other: true } } else { Segment::default() };
            }
            b'.' => segment.dots += 1,
            _ => segment.other = true,
        }
    }
    segment.is_dot_dot()
}

#[derive(Default)]
struct Segment {
    dots: usize,
    other: bool,
}

impl Segment {
    fn is_dot_dot(&self) -> bool {
        self.dots == 2 && !self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn climbing_paths_are_told_from_harmless_ones() {
        for path in [
            "/a/../b",
            "/..",
            "/a/..;/b",
            "/a/%2e%2e/b",
            "/a/.%2E/b",
            "/a/..%2fb",
            "/a%2f..%2fb",
            "/a/..%5cb",
            "/a\\..\\b",
        ] {
            assert!(climbs(path.as_bytes()), "{path}");
        }
        for path in ["/", "/a..b", "/a/...", "/a/..b", "/a%20b", "/%", "/a.b/c..", "/a;x=..y", "/%zz.."] {
            assert!(!climbs(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_prefix_covers_whole_segments() {
        assert!(is_below(b"/v1", b"/v1") && is_below(b"/v1/x", b"/v1") && !is_below(b"/v10", b"/v1"));
        assert!(is_below(b"/anything", b"/") && is_below(b"/a/", b"/a/") && !is_below(b"/a", b"/a/"));
        assert!(!is_below(b"/", b"/v1") && is_below(b"", b""));
    }

    /// The segments as a backend may see them that decodes once, takes backslashes for slashes and drops parameters.
    fn segments(path: &str) -> Vec<String> {
        let (bytes, mut decoded, mut at) = (path.as_bytes(), Vec::new(), 0);
        while at < bytes.len() {
            let number = path.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
            let number = number.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
            match number.and_then(|text| u8::from_str_radix(text, 16).ok()) {
                Some(byte) => (decoded.push(byte), at += 3).0,
                None => (decoded.push(bytes[at]), at += 1).0,
            }
        }
        let parts = decoded.split(|byte| matches!(byte, b'/' | b'\\' | 0));
        parts
            .map(|part| String::from_utf8_lossy(part.split(|&byte| byte == b';').next().unwrap_or(&[])).into())
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn a_path_climbs_if_and_only_if_somebody_may_see_two_dots_for_a_segment(
            parts in prop::collection::vec(prop::sample::select(
                vec!["/", "..", ".", "%2e", "%2E", "%2f", "%5c", "\\", ";", "a", "%", "%2", "%zz", "%00", "%3b", "x=.."]
            ), 0..8),
        ) {
            let path = parts.concat();
            prop_assert_eq!(climbs(path.as_bytes()), segments(&path).iter().any(|segment| segment == ".."), "{}", path);
        }
    }
}
