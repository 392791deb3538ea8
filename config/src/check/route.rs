//! Routes of a listener: what they match, and where they lead.

use super::names::{Names, service_index};
use super::text::{header_name, literal, method, path_text, unique};
use super::{actions, key};
use crate::diagnostic::At;
use crate::findings::Findings;
use crate::model::{self, HostMatch, PathMatch};
use crate::schema::{self, ProtocolName};

pub(super) fn routes(
    section: &schema::ListenerSection,
    services: &Names<'_>,
    findings: &mut Findings,
) -> Option<Vec<model::Route>> {
    match (&section.service, &section.routes.value[..]) {
        (Some(service), []) => {
            let service = service_index(service, services, findings)?;
            Some(vec![model::Route {
                host: None,
                path: None,
                methods: Vec::new(),
                headers: Vec::new(),
                service,
                split: None,
                actions: None,
                priority: None,
            }])
        }
        (Some(service), _) => {
            findings.error(
                service.place,
                "service_and_routes",
                "`service` and `routes` exclude each other",
                "make it the last route: `- { service: ... }`",
            );
            None
        }
        // Perhaps there are some that could not be read.
        (None, []) if section.routes.value.lost => None,
        (None, []) => {
            findings.absent(
                section.place,
                "no_route",
                format!("listener {:?} leads nowhere", section.name.value),
                "add `service: ...` or `routes:`",
            );
            None
        }
        (None, routes) => {
            let built: Vec<_> = routes.iter().map(|route| route_model(route, services, findings)).collect();
            let catch_all = routes.iter().position(|route| catches_all(&route.value, findings));
            if let Some(next) = catch_all.and_then(|index| routes.get(index + 1)) {
                findings.warning(
                    next.place,
                    "unreachable_route",
                    "no request comes as far as this route: the one before takes all",
                    "put the route without conditions last",
                );
            }
            let built: Option<Vec<model::Route>> = built.into_iter().collect();
            if let (Some(built), Some(last), ProtocolName::Http) = (&built, catch_all, section.protocol.value) {
                prefixes_before(&built[..=last], routes, findings);
            }
            built
        }
    }
}

/// Whether a route has no condition, not even one that could not be read.
fn catches_all(route: &schema::RouteSection, findings: &Findings) -> bool {
    let conditions = &route.r#match.value;
    conditions.host.is_none()
        && conditions.path.is_none()
        && conditions.path_prefix.is_none()
        && conditions.method.is_none()
        && conditions.methods.value.is_empty()
        && !conditions.methods.value.lost
        && conditions.headers.value.is_empty()
        && !conditions.headers.value.lost
        && !findings.is_lost(conditions.place)
        && !findings.is_lost(route.place)
}

/// Prefixes are compared with the path as the client wrote it: `//admin`, `/./admin` and `/%61dmin` are no `/admin`, and the
/// route that takes all (the last here) takes them too, unchanged. Told once a listener, of the first route that is passed by
/// so and does something else than the last one.
fn prefixes_before(routes: &[model::Route], sections: &[At<schema::RouteSection>], findings: &mut Findings) {
    let Some((last, before)) = routes.split_last() else { return };
    for (route, section) in before.iter().zip(sections) {
        let Some(prefix) = &section.value.r#match.value.path_prefix else { continue };
        let same = (route.service, &route.split, &route.actions) == (last.service, &last.split, &last.actions);
        if prefix.value != "/" && !same {
            let path = prefix.value.trim_end_matches('/');
            findings.warning(
                prefix.place,
                "prefix_is_no_wall",
                format!("paths such as `/{path}` and `/.{path}` are not below `{path}`: the route without conditions takes them"),
                "if this route keeps anybody out, give the last one a `path_prefix` too: what matches no route is answered 404",
            );
            return;
        }
    }
}

fn route_model(at: &At<schema::RouteSection>, services: &Names<'_>, findings: &mut Findings) -> Option<model::Route> {
    let section = &at.value;
    let target = if section.redirect.is_some() && section.service.is_none() && section.split.value.is_empty() {
        // Nobody is asked.
        Some((0, None))
    } else {
        target(at, services, findings)
    };
    let conditions = &section.r#match.value;
    let host = conditions.host.as_ref().map(|host| host_match(host, findings));
    let path = path_match(conditions, findings);
    let methods: Vec<String> =
        conditions.method.iter().chain(conditions.methods.value.iter()).map(|at| method(at, findings)).collect();
    let headers = conditions
        .headers
        .value
        .iter()
        .inspect(|header| {
            if let Some(value) = &header.value.value {
                literal(value, "leave `value` out where any will do".to_owned(), findings);
            }
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(|header| model::HeaderMatch {
            name: header_name(&header.value.name, findings),
            value: header.value.value.as_ref().map(|value| value.value.0.clone()),
        })
        .collect();
    let actions = actions::actions(section, path.as_ref(), services, findings);
    if let (Some(redirect), true) = (&section.redirect, section.service.is_some() || !section.split.value.is_empty()) {
        findings.error(
            redirect.place,
            "redirect_and_service",
            "a redirection goes to no service",
            "remove `redirect`, or `service` and `split`",
        );
    }
    if let (Some(priority), true) = (&section.priority, section.redirect.is_some()) {
        findings.error(
            priority.place,
            "redirect_and_priority",
            "a redirection is answered whatever its priority",
            "remove `priority`; where a service answers, write `service` in place of `redirect`",
        );
    }
    let (service, split) = target?;
    let priority = section.priority.as_ref().map(|at| priority(at.value));
    Some(model::Route { host, path, methods, headers, service, split, actions, priority })
}

pub(super) fn priority(name: schema::PriorityName) -> model::Priority {
    match name {
        schema::PriorityName::Low => model::Priority::Low,
        schema::PriorityName::Default => model::Priority::Default,
        schema::PriorityName::High => model::Priority::High,
    }
}

/// The longest name that there is (RFC 1035, 2.3.4), and `*.`.
const HOST_BYTES_MAX: usize = 255;

fn host_match(host: &At<String>, findings: &mut Findings) -> HostMatch {
    let text = host.value.to_ascii_lowercase();
    // With or without the dot of the root, it is one name.
    let text = text.strip_suffix('.').unwrap_or(&text);
    let bare = text.strip_prefix("*.").unwrap_or(text);
    if text.len() > HOST_BYTES_MAX {
        findings.error(
            host.place,
            "bad_host",
            format!("a host of {} bytes: no name has more than {HOST_BYTES_MAX}", text.len()),
            "write `api.example.com` or `*.example.com`, without port",
        );
    } else if bare.is_empty() || bare.contains(['*', '/', ' ']) || bare.contains(':') && !bare.starts_with('[') {
        findings.error(
            host.place,
            "bad_host",
            format!("`{}` is not a host", host.value),
            "write `api.example.com` or `*.example.com`, without port",
        );
    }
    if text.starts_with("*.") { HostMatch::Suffix(text[1..].to_owned()) } else { HostMatch::Exact(text.to_owned()) }
}

fn path_match(conditions: &schema::MatchSection, findings: &mut Findings) -> Option<PathMatch> {
    match (&conditions.path, &conditions.path_prefix) {
        (Some(path), Some(_)) => {
            findings.error(
                path.place,
                "path_and_prefix",
                "`path` and `path_prefix` exclude each other",
                "keep one of the two",
            );
            None
        }
        (Some(path), None) => {
            let prefix = path.value.split('*').next().unwrap_or_default();
            let prefix = if prefix.len() > 1 { prefix.trim_end_matches('/') } else { "/" };
            literal(path, format!("write `path_prefix: {prefix}` for all that is below it"), findings);
            path_text(path, findings).map(PathMatch::Exact)
        }
        (None, Some(path)) => {
            literal(path, "leave it out: a prefix matches all that is below it".to_owned(), findings);
            path_text(path, findings).map(PathMatch::Prefix)
        }
        (None, None) => None,
    }
}

/// The service of a route, or the targets of its split.
fn target(
    at: &At<schema::RouteSection>,
    services: &Names<'_>,
    findings: &mut Findings,
) -> Option<(usize, Option<model::Split>)> {
    let section = &at.value;
    let key = section.split_key.as_ref().map(|keys| key::sources(keys, findings));
    match (&section.service, &section.split.value[..]) {
        (Some(service), []) => {
            if let Some(keys) = &section.split_key {
                findings.warning(keys.place, "unused_split_key", "there is no split", "write `split:`, or remove this");
            }
            Some((service_index(service, services, findings)?, None))
        }
        (Some(service), _) => {
            findings.error(
                service.place,
                "service_and_split",
                "`service` and `split` exclude each other",
                "make it a target of the split",
            );
            None
        }
        (None, []) if section.split.value.lost => None,
        (None, []) => {
            findings.absent(at.place, "no_service", "the route leads nowhere", "add `service: ...`");
            None
        }
        (None, targets) => {
            unique(targets.iter().map(|target| &target.value.service), "split target", findings);
            if targets.iter().all(|target| target.value.weight.value.0 == 0) {
                findings.error(
                    section.split.place,
                    "empty_split",
                    "every target of the split has weight 0",
                    "give one a weight above 0",
                );
            }
            let built: Vec<Option<model::SplitTarget>> = targets
                .iter()
                .map(|target| {
                    Some(model::SplitTarget {
                        service: service_index(&target.value.service, services, findings)?,
                        weight: target.value.weight.value.0 as u32,
                        salt: xxhash_rust::xxh3::xxh3_64(target.value.service.value.as_bytes()),
                        cookie: None,
                    })
                })
                .collect();
            let targets: Option<Vec<model::SplitTarget>> = built.into_iter().collect();
            let targets = targets?;
            // Filled in when the services are known, if nothing is said here.
            Some((targets.first()?.service, Some(model::Split { targets, key: key.unwrap_or_default() })))
        }
    }
}
