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
        secret: section.secret.value.as_bytes().to_vec(),
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

/// Ways that are held against each other, at most, to find cookies that replace each other.
const STEPS_MAX: usize = 5_000_000;

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
    let whole = Whole::new(&reaches);
    let mut ways: HashMap<usize, Vec<&Reach<'_>>> = HashMap::new();
    // What earlier routes take whole is reached by nobody.
    for reach in reaches.iter().filter(|reach| !whole.covers_before(reach, reach.host)) {
        reach.services.iter().for_each(|service| ways.entry(*service).or_default().push(reach));
    }
    let mut steps = STEPS_MAX;
    for ((name, _, domain), indices) in same.into_iter().filter(|(_, indices)| indices.len() > 1) {
        let mut seen = Seen::default();
        for (position, &second) in indices.iter().enumerate() {
            let own = ways.get(&second).map_or(&[][..], Vec::as_slice);
            let first = match domain {
                Some(_) => (position > 0).then_some(0),
                None => own.iter().filter_map(|reach| seen.first_that_meets(reach, &whole, &mut steps)).min(),
            };
            own.iter().for_each(|reach| seen.add(position, reach));
            let Some(first) = first.map(|position| indices[position]) else { continue };
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

/// Routes that take all requests of their hosts, by listener and host: the first place of each.
#[derive(Default)]
struct Whole<'a> {
    exact: HashMap<(usize, &'a str), usize>,
    below: HashMap<(usize, &'a str), usize>,
    any: HashMap<usize, usize>,
}

impl<'a> Whole<'a> {
    fn new(reaches: &[Reach<'a>]) -> Self {
        let mut this = Self::default();
        for reach in reaches.iter().filter(|reach| reach.whole) {
            // In the order of the listener: the first of a host stays.
            match reach.host {
                None => this.any.entry(reach.listener).or_insert(reach.position),
                Some(HostMatch::Exact(host)) => this.exact.entry((reach.listener, host)).or_insert(reach.position),
                Some(HostMatch::Suffix(suffix)) => this.below.entry((reach.listener, suffix)).or_insert(reach.position),
            };
        }
        this
    }

    /// Whether requests of these hosts do not come as far as this route.
    fn covers_before(&self, reach: &Reach<'_>, host: Option<&HostMatch>) -> bool {
        let listener = reach.listener;
        let before = |place: Option<&usize>| place.is_some_and(|place| *place < reach.position);
        let exact = match host {
            Some(HostMatch::Exact(host)) => before(self.exact.get(&(listener, host))),
            Some(HostMatch::Suffix(_)) | None => false,
        };
        exact
            || before(self.any.get(&listener))
            || host.is_some_and(|host| domains(host).any(|domain| before(self.below.get(&(listener, domain)))))
    }
}

/// Ways to services that have been looked at, by what meets them; each with the service's place among those of its cookie.
#[derive(Default)]
struct Seen<'a, 'r> {
    all: Vec<(usize, &'r Reach<'a>)>,
    any: Vec<(usize, &'r Reach<'a>)>,
    exact: HashMap<&'a str, Vec<(usize, &'r Reach<'a>)>>,
    /// Conditions on domains, by themselves.
    domain: HashMap<&'a str, Vec<(usize, &'r Reach<'a>)>>,
    /// Hosts and domains, by each domain that they are in.
    below: HashMap<&'a str, Vec<(usize, &'r Reach<'a>)>>,
}

impl<'a, 'r> Seen<'a, 'r> {
    fn add(&mut self, position: usize, reach: &'r Reach<'a>) {
        let entry = (position, reach);
        self.all.push(entry);
        match reach.host {
            None => self.any.push(entry),
            Some(HostMatch::Exact(host)) => self.exact.entry(host).or_default().push(entry),
            Some(HostMatch::Suffix(suffix)) => self.domain.entry(suffix).or_default().push(entry),
        }
        for domain in reach.host.into_iter().flat_map(domains) {
            self.below.entry(domain).or_default().push(entry);
        }
    }

    /// The first service that some host's requests come to as they come to this way's. Ports do not part cookies, so listeners do
    /// not either. Two targets of one split do not count: a client stays with its target.
    fn first_that_meets(&self, reach: &Reach<'_>, whole: &Whole<'_>, steps: &mut usize) -> Option<usize> {
        let mut first = None;
        let mut look = |list: &[(usize, &Reach<'_>)], narrow: &dyn Fn(&Reach<'_>) -> bool| {
            for (position, other) in list {
                if *steps == 0 || first.is_some_and(|first| first <= *position) {
                    return;
                }
                *steps -= 1;
                // The hosts that both take are those of the narrower one.
                let host = if narrow(other) { other.host } else { reach.host };
                let meets = || !whole.covers_before(other, host) && !whole.covers_before(reach, host);
                if !std::ptr::eq(*other, reach) && meets() {
                    first = Some(*position);
                    return;
                }
            }
        };
        let (own, others) = (|_: &Reach<'_>| false, |_: &Reach<'_>| true);
        fn listed<'l, 'a, 'r>(
            map: &'l HashMap<&'a str, Vec<(usize, &'r Reach<'a>)>>,
            key: &str,
        ) -> &'l [(usize, &'r Reach<'a>)] {
            map.get(key).map_or(&[], Vec::as_slice)
        }
        match reach.host {
            None => look(&self.all, &others),
            Some(host) => {
                match host {
                    HostMatch::Exact(name) => look(listed(&self.exact, name), &own),
                    HostMatch::Suffix(suffix) => look(listed(&self.below, suffix), &others),
                }
                domains(host).for_each(|domain| look(listed(&self.domain, domain), &own));
                look(&self.any, &own);
            }
        }
        first
    }
}

/// The domains that a host or a domain is in, as conditions name them: of a domain itself too.
fn domains(host: &HostMatch) -> impl Iterator<Item = &str> {
    let (text, least) = match host {
        HostMatch::Exact(host) => (host, 1),
        HostMatch::Suffix(suffix) => (suffix, 0),
    };
    text.match_indices('.').filter(move |(at, _)| *at >= least).map(|(at, _)| &text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    /// Whether one host's requests may come to both services, by holding every way against every other.
    fn meet(reaches: &[Reach<'_>], first: usize, second: usize) -> bool {
        let ways = |service: usize| reaches.iter().filter(move |reach| reach.services.contains(&service));
        ways(first).any(|one| {
            ways(second).filter(|other| !std::ptr::eq(one, *other)).any(|other| {
                let Some(host) = common(one.host, other.host) else { return false };
                [one, other].into_iter().all(|reach| {
                    let mut before = reaches.iter().filter(|earlier| {
                        earlier.listener == reach.listener && earlier.position < reach.position && earlier.whole
                    });
                    !before.any(|earlier| covers(earlier.host, host))
                })
            })
        })
    }

    const SERVICES: usize = 6;

    /// Routes of a listener: each to one service or two, for a host or all, with a path or without.
    fn a_route() -> impl Strategy<Value = String> {
        let host = prop_oneof![1 => Just(String::new()), 2 => "[ab](\\.[ab]){0,2}", 2 => "\\*(\\.[ab]){1,2}"];
        (host, proptest::bool::weighted(0.4), 0..SERVICES, proptest::option::weighted(0.2, 0..SERVICES)).prop_map(
            |(host, has_path, one, other)| {
                let host = if host.is_empty() { host } else { format!("host: \"{host}\"") };
                let path = if has_path { "path_prefix: /x" } else { "" };
                let comma = if host.is_empty() || path.is_empty() { "" } else { ", " };
                let target = match other.filter(|other| *other != one) {
                    Some(other) => format!("split: [ {{ service: s{one} }}, {{ service: s{other} }} ]"),
                    None => format!("service: s{one}"),
                };
                format!("{{ match: {{ {host}{comma}{path} }}, {target} }}")
            },
        )
    }

    proptest! {
        #[test]
        fn cookies_collide_where_some_way_to_one_service_meets_some_way_to_the_other(
            listeners in proptest::collection::vec(proptest::collection::vec(a_route(), 1..12), 1..3),
        ) {
            let mut text = "listeners:\n".to_owned();
            for (index, routes) in listeners.iter().enumerate() {
                let routes = routes.join(", ");
                text.push_str(&format!("  - {{ name: l{index}, address: \"127.0.0.1:{}\", routes: [ {routes} ] }}\n", 9000 + index));
            }
            text.push_str("services:\n");
            for index in 0..SERVICES {
                let balance = "balance: { policy: ring, affinity_cookie: { name: sid, secret: 0123456789abcdef } }";
                text.push_str(&format!("  - {{ name: s{index}, {balance}, backends: [ {{ id: a, address: \"127.0.0.1:1\" }} ] }}\n"));
            }
            let loaded = crate::load_str("test.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}\n{text}"));
            let told: Vec<String> = loaded.warnings.iter()
                .filter(|warning| warning.code == "shared_cookie").map(|warning| warning.message.clone()).collect();
            let models: Vec<Option<model::Listener>> = loaded.config.listeners.into_iter().map(Some).collect();
            let reaches = reaches(&models);
            let mut wanted = Vec::new();
            for second in 0..SERVICES {
                if let Some(first) = (0..second).find(|first| meet(&reaches, *first, second)) {
                    wanted.push(format!(
                        "services \"s{first}\" and \"s{second}\" set the cookie `sid` on one host: each replaces the other's"
                    ));
                }
            }
            prop_assert_eq!(told, wanted, "{}", text);
        }
    }

    #[test]
    fn ten_thousand_services_with_a_cookie_of_one_name_are_looked_at_in_one_pass() {
        let host = |index: usize| Some(HostMatch::Exact(format!("h{index}.example")));
        let hosts: Vec<Option<HostMatch>> = (0..10_000).map(host).chain([None]).collect();
        let reaches: Vec<Reach<'_>> = hosts
            .iter()
            .enumerate()
            .map(|(position, host)| Reach {
                listener: 0,
                position,
                host: host.as_ref(),
                whole: true,
                services: vec![position],
            })
            .collect();
        let (whole, mut seen, mut steps) = (Whole::new(&reaches), Seen::default(), STEPS_MAX);
        for (position, reach) in reaches.iter().enumerate() {
            assert_eq!(seen.first_that_meets(reach, &whole, &mut steps), None);
            seen.add(position, reach);
        }
        // The last alone may meet any, and is held against each.
        assert_eq!(STEPS_MAX - steps, 10_000);
    }
}
