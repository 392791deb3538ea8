//! From a request to its service: hosts, paths, methods, fields, in the order of the configuration.

use ringway_config::model::{HostMatch, PathMatch, Route};
use ringway_message::{Authority, RequestHead, default_port, is_below};

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
                // In whichever form it is written: an absolute target stands for the field.
                (Some(_), Some(value)) if wanted.name == "host" => {
                    authority.is_same(Authority::new(value.as_bytes()), default_port(secure))
                }
                (Some(found), Some(value)) => found == value.as_bytes(),
                (Some(_), None) => true,
                (None, _) => false,
            })
    })
}

/// The path as it is forwarded.
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
        PathMatch::Prefix(prefix) => is_below(path, prefix.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
