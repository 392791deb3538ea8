//! From a request to its service: hosts, paths, methods, fields, in the order of the configuration.

use ringway_config::model::{HostMatch, PathMatch, Route};
use ringway_http1::{Authority, RequestHead, default_port};

/// The index of the first route that matches. `secure`: the client speaks `https`.
pub(crate) fn find(routes: &[Route], buffer: &[u8], head: &RequestHead, secure: bool) -> Option<usize> {
    let authority = Authority::new(head.authority.of(buffer));
    let host = authority.host();
    let path = path_of(buffer, head);
    let method = head.method_span.of(buffer);
    routes.iter().position(|route| {
        route.host.as_ref().is_none_or(|wanted| host_matches(wanted, host))
            && route.path.as_ref().is_none_or(|wanted| path_matches(wanted, path))
            && (route.methods.is_empty() || route.methods.iter().any(|wanted| wanted.as_bytes() == method))
            && route.headers.iter().all(|wanted| match (head.value_of(buffer, wanted.name.as_bytes()), &wanted.value) {
                // However it is written, and wherever: an absolute target stands for the field.
                (Some(_), Some(value)) if wanted.name == "host" => {
                    authority.is_same(Authority::new(value.as_bytes()), default_port(secure))
                }
                (Some(found), Some(value)) => found == value.as_bytes(),
                (Some(_), None) => true,
                (None, _) => false,
            })
    })
}

/// The path as it is sent on.
pub(crate) fn path_of<'b>(buffer: &'b [u8], head: &RequestHead) -> &'b [u8] {
    let path = head.path.of(buffer);
    if path.is_empty() { b"/" } else { path }
}

fn host_matches(wanted: &HostMatch, host: &[u8]) -> bool {
    match wanted {
        HostMatch::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
        HostMatch::Suffix(suffix) => {
            host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
        }
    }
}

fn path_matches(wanted: &PathMatch, path: &[u8]) -> bool {
    match wanted {
        PathMatch::Exact(exact) => path == exact.as_bytes(),
        PathMatch::Prefix(prefix) => {
            path.starts_with(prefix.as_bytes())
                && (prefix.ends_with('/') || path.len() == prefix.len() || path[prefix.len()] == b'/')
        }
    }
}

/// Whether a backend could read the path as climbing out of the prefix that a route matched: a `..` segment, plain or
/// percent-encoded, ended by a slash, a backslash (or their encodings) or a path parameter.
pub(crate) fn climbs(path: &[u8]) -> bool {
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
    fn prefix_matches_whole_segments() {
        let prefix = PathMatch::Prefix("/v1".into());
        assert!(path_matches(&prefix, b"/v1") && path_matches(&prefix, b"/v1/x") && !path_matches(&prefix, b"/v10"));
        assert!(path_matches(&PathMatch::Prefix("/".into()), b"/anything"));
    }

    #[test]
    fn host_is_compared_without_port_case_and_root_dot() {
        let host = |text: &'static str| Authority::new(text.as_bytes()).host();
        assert!(host_matches(&HostMatch::Exact("a.example".into()), host("A.example.:80")));
        assert!(host_matches(&HostMatch::Suffix(".example".into()), host("a.example")));
        assert!(!host_matches(&HostMatch::Suffix(".example".into()), host(".example")));
        assert_eq!(host("[::1]:80"), b"[::1]");
    }
}
