//! Affinity cookies: what they are, what holds a client in its target of a split, and which replace each other.

use super::text::{is_token, path_text};
use crate::diagnostic::At;
use crate::findings::Findings;
use crate::model::{self, AffinityCookie, HostMatch, Protocol};
use crate::schema;
use std::collections::{BTreeMap, HashMap};

/// What a service's cookie is called if nobody says: two services on one host must not share a name, and what a service is
/// called in the configuration is nobody else's business.
fn default_name(service: &str) -> String {
    format!("ringway-{:08x}", xxhash_rust::xxh3::xxh3_64(service.as_bytes()) as u32)
}

/// Names that browsers take with certain attributes only (RFC 6265bis, section 4.1.3).
fn name_prefix(at: &At<String>, section: &schema::AffinityCookieSection, findings: &mut Findings) {
    let name = at.value.to_ascii_lowercase();
    let (is_host, is_secure) = (name.starts_with("__host-"), name.starts_with("__secure-"));
    let (message, help) = match (&section.domain, section.path.value.as_str()) {
        _ if (is_host || is_secure) && !section.secure.value => ("that is not `Secure`", "write `secure: true`"),
        (Some(_), _) if is_host => ("with a `Domain`", "remove `domain`, or call it `__Secure-...`"),
        (None, path) if is_host && path != "/" => {
            ("whose path is not `/`", "write `path: /`, or call it `__Secure-...`")
        }
        _ => return,
    };
    let message = format!("browsers refuse a cookie of the name `{}` {message}", at.value);
    findings.warning(at.place, "insecure_cookie", message, help);
}

/// The cookie of a service of this name.
pub(super) fn affinity_cookie(
    service: &str,
    section: &schema::AffinityCookieSection,
    findings: &mut Findings,
) -> Option<AffinityCookie> {
    if let Some(name) = section.name.as_ref().filter(|name| !is_token(&name.value)) {
        let message = format!("`{}` is not a cookie's name", name.value);
        findings.error(name.place, "bad_name", message, "write for example `sid`");
        return None;
    }
    if section.secret.value.len() < 16 {
        findings.error(
            section.secret.place,
            "weak_secret",
            "the secret is short enough to be guessed",
            "write 16 characters or more, for example what `openssl rand -hex 16` prints",
        );
    }
    let path = path_text(&section.path, findings)?;
    for at in std::iter::once(&section.path).chain(&section.domain) {
        if at.value.chars().any(|c| c == ';' || c == ',' || c.is_control() || c.is_whitespace()) {
            findings.error(
                at.place,
                "bad_cookie",
                format!("`{}` cannot stand in a cookie", at.value),
                "write it plainly",
            );
        }
    }
    let same_site = match section.same_site.value {
        schema::SameSiteName::Lax => "Lax",
        schema::SameSiteName::Strict => "Strict",
        schema::SameSiteName::None => "None",
    };
    if same_site == "None" && !section.secure.value {
        findings.warning(
            section.same_site.place,
            "insecure_cookie",
            "browsers refuse a cookie of `SameSite=None` that is not `Secure`",
            "write `secure: true`",
        );
    }
    if let Some(name) = &section.name {
        name_prefix(name, section, findings);
    }
    Some(AffinityCookie {
        service: service.to_owned(),
        name: section.name.as_ref().map_or_else(|| default_name(service), |at| at.value.clone()),
        attributes: attributes(section, &path, same_site),
        secret: section.secret.value.clone().into_bytes(),
    })
}

/// All that stands behind the value in `Set-Cookie`.
fn attributes(section: &schema::AffinityCookieSection, path: &str, same_site: &str) -> String {
    let mut attributes = format!("; Path={path}");
    if !section.ttl.value.is_zero() {
        attributes.push_str(&format!("; Max-Age={}", section.ttl.value.as_secs().max(1)));
    }
    if let Some(domain) = &section.domain {
        attributes.push_str(&format!("; Domain={}", domain.value));
    }
    if section.secure.value {
        attributes.push_str("; Secure");
    }
    if section.http_only.value {
        attributes.push_str("; HttpOnly");
    }
    attributes.push_str(&format!("; SameSite={same_site}"));
    attributes
}

/// Gives each target of a split the cookie that holds a client in it. A target whose service has none gets one after the
/// first target's that has: otherwise its clients alone would be drawn anew with each request.
pub(super) fn hold_targets(split: &mut model::Split, services: &[Option<model::Service>]) {
    let service = |index: usize| services.get(index).and_then(Option::as_ref);
    let own = |target: &model::SplitTarget| service(target.service).and_then(|service| service.affinity_cookie.clone());
    let Some(pattern) = split.targets.iter().find_map(own) else { return };
    for target in &mut split.targets {
        target.cookie = own(target).or_else(|| {
            let name = &service(target.service)?.name;
            Some(AffinityCookie { service: name.clone(), name: default_name(name), ..pattern.clone() })
        });
    }
}

/// Warns where a browser would keep one cookie for two services: the response of each would replace the other's, and every
/// client that uses both would be placed anew each time.
pub(super) fn collisions(
    root: &schema::Root,
    listeners: &[Option<model::Listener>],
    services: &[Option<model::Service>],
    findings: &mut Findings,
) {
    // A browser tells cookies apart by name, path and domain (RFC 6265, 5.3); with a domain, the host does not matter.
    let mut same: BTreeMap<(&str, &str, Option<&str>), Vec<usize>> = BTreeMap::new();
    for (index, (service, section)) in services.iter().zip(root.services.value.iter()).enumerate() {
        let cookie = service.as_ref().and_then(|service| service.affinity_cookie.as_ref());
        if let (Some(cookie), Some(at)) = (cookie, &section.value.balance.value.affinity_cookie) {
            let domain = at.value.domain.as_ref().map(|at| at.value.trim_start_matches('.'));
            same.entry((&cookie.name, &at.value.path.value, domain)).or_default().push(index);
        }
    }
    let reaches = reaches(listeners);
    let mut ways: HashMap<usize, Vec<&Reach<'_>>> = HashMap::new();
    for reach in &reaches {
        reach.services.iter().for_each(|service| ways.entry(*service).or_default().push(reach));
    }
    let meet = |first: usize, second: usize| match (ways.get(&first), ways.get(&second)) {
        (Some(first), Some(second)) => meet(&reaches, first, second),
        _ => false,
    };
    for ((name, _, domain), indices) in same.into_iter().filter(|(_, indices)| indices.len() > 1) {
        for (position, &second) in indices.iter().enumerate() {
            let meets = |first: &&usize| domain.is_some() || meet(**first, second);
            let Some(&first) = indices[..position].iter().find(meets) else { continue };
            let sections = &root.services.value;
            let section = &sections[second].value;
            let Some(cookie) = &section.balance.value.affinity_cookie else { continue };
            findings.warning(
                cookie.value.name.as_ref().map_or(cookie.place, |name| name.place),
                "shared_cookie",
                format!(
                    "services {:?} and {:?} set the cookie `{name}` on one host: each replaces the other's",
                    sections[first].value.name.value, section.name.value
                ),
                "give each its own `name` (or none), or a `path` of its own",
            );
        }
    }
}

/// Which requests come to a service: those of one route.
struct Reach<'a> {
    listener: usize,
    /// Place in the listener's list.
    position: usize,
    host: Option<&'a HostMatch>,
    /// Looks at nothing but the host: no request for it comes to a later route.
    whole: bool,
    services: Vec<usize>,
}

fn reaches(listeners: &[Option<model::Listener>]) -> Vec<Reach<'_>> {
    let mut reaches = Vec::new();
    for (listener, built) in listeners.iter().enumerate() {
        let Some(Protocol::Http(http)) = built.as_ref().map(|listener| &listener.protocol) else { continue };
        for (position, route) in http.routes.iter().enumerate() {
            let redirects = route.actions.as_ref().is_some_and(|actions| actions.redirect.is_some());
            let services = match &route.split {
                _ if redirects => Vec::new(),
                None => vec![route.service],
                Some(split) => split.targets.iter().map(|target| target.service).collect(),
            };
            reaches.push(Reach {
                listener,
                position,
                host: route.host.as_ref(),
                whole: route.path.is_none() && route.methods.is_empty() && route.headers.is_empty(),
                services,
            });
        }
    }
    reaches
}

/// Whether one host's requests may come to both services. Ports do not part cookies, so listeners do not either. Two targets of
/// one split do not count: a client stays with its target.
fn meet(reaches: &[Reach<'_>], first: &[&Reach<'_>], second: &[&Reach<'_>]) -> bool {
    first.iter().any(|one| {
        second.iter().filter(|other| !std::ptr::eq(*one, **other)).any(|other| {
            let Some(host) = common(one.host, other.host) else { return false };
            [one, other].into_iter().all(|reach| {
                let before = reaches.iter().filter(|earlier| {
                    earlier.listener == reach.listener && earlier.position < reach.position && earlier.whole
                });
                !before.into_iter().any(|earlier| covers(earlier.host, host))
            })
        })
    })
}

/// The hosts that both conditions take; `None` is no host at all.
fn common<'a>(one: Option<&'a HostMatch>, other: Option<&'a HostMatch>) -> Option<Option<&'a HostMatch>> {
    if covers(one, other) {
        Some(other)
    } else if covers(other, one) {
        Some(one)
    } else {
        None
    }
}

/// Whether a condition takes every host that another takes.
fn covers(wide: Option<&HostMatch>, narrow: Option<&HostMatch>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) | (Some(HostMatch::Exact(_)), Some(HostMatch::Suffix(_))) => false,
        (Some(HostMatch::Exact(one)), Some(HostMatch::Exact(other))) => one == other,
        (Some(HostMatch::Suffix(suffix)), Some(HostMatch::Exact(host))) => {
            host.len() > suffix.len() && host.ends_with(suffix.as_str())
        }
        (Some(HostMatch::Suffix(wide)), Some(HostMatch::Suffix(narrow))) => narrow.ends_with(wide.as_str()),
    }
}
