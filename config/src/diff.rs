//! What changes from one configuration to the next: fields by their paths, items of lists by their names.

use crate::model::{Backend, Config, Protocol, Service};
use crate::plain::is_unseen;
use serde::Serialize;
use std::fmt;

/// Lines that are named; of more it is said how many.
const LINES_MAX: usize = 20;
/// In place of a value that is not there.
pub(crate) const UNSET: &str = "unset";

/// The changes, a line each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Diff {
    /// What will be in force after a reload.
    pub changes: Vec<String>,
    /// What will not be before a restart.
    pub needs_restart: Vec<String>,
}

impl Diff {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.needs_restart.is_empty()
    }

    /// Lines with a word on how they come into force, for lists that have both.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let restart = self.needs_restart.iter().map(|line| format!("{line} (needs a restart)"));
        self.changes.iter().cloned().chain(restart)
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().collect::<Vec<_>>().join("; "))
    }
}

/// One change, as far as the checked configurations tell it.
#[derive(Debug)]
pub(crate) enum Found {
    Line(String),
    /// Something in this section: which field it is, the texts say.
    Within(Section),
}

/// Fields of a section, or the section itself where a field is one.
#[derive(Debug)]
pub(crate) struct Section {
    /// Names of fields and of items of lists that lead to it.
    pub(crate) path: Vec<String>,
    pub(crate) fields: Fields,
}

/// Which fields of a section are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fields {
    All,
    Only(&'static [&'static str]),
    Except(&'static [&'static str]),
}

impl Fields {
    pub(crate) fn has(self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(&name),
            Self::Except(names) => !names.contains(&name),
        }
    }
}

impl Section {
    fn all(path: &[&str]) -> Found {
        Self::of(path, Fields::All)
    }

    fn of(path: &[&str], fields: Fields) -> Found {
        Found::Within(Self { path: path.iter().map(|&step| step.to_owned()).collect(), fields })
    }

    /// The line of one of which no more is known.
    pub(crate) fn changed(&self) -> String {
        let path = self.path.iter().map(|step| plain(step)).collect::<Vec<_>>().join(".");
        format!("{path} changed")
    }
}

/// A name or a value in a line: in quotes where it would not be told from what stands around it.
pub(crate) fn plain(text: &str) -> String {
    let stands_alone = |character: char| !character.is_whitespace() && character != '"' && !is_unseen(character);
    if !text.is_empty() && text.chars().all(stands_alone) { text.to_owned() } else { format!("{text:?}") }
}

/// All changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) now: Vec<Found>,
    pub(crate) after_restart: Vec<Found>,
}

impl Changes {
    /// As lines, of which the first are named. `fields` names those of a section that have changed; none: the section is named.
    pub(crate) fn named(self, mut fields: impl FnMut(&Section) -> Vec<String>) -> Diff {
        let mut lines = |found: Vec<Found>| {
            let (mut lines, mut more) = (Vec::new(), 0);
            for found in found {
                let next = match found {
                    Found::Line(line) => vec![line],
                    // What is not named need not be looked for.
                    Found::Within(section) if lines.len() >= LINES_MAX => vec![section.changed()],
                    Found::Within(section) => Some(fields(&section))
                        .filter(|lines| !lines.is_empty())
                        .unwrap_or_else(|| vec![section.changed()]),
                };
                let room = LINES_MAX.saturating_sub(lines.len());
                more += next.len().saturating_sub(room);
                lines.extend(next.into_iter().take(room));
            }
            if more > 0 {
                lines.push(format!("and {more} more"));
            }
            lines
        };
        Diff { changes: lines(self.now), needs_restart: lines(self.after_restart) }
    }
}

/// Compares two configurations, of which nothing else is known: where a field is not known, its section is named.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Diff {
    changes(old, new).named(|_| Vec::new())
}

/// What is different.
pub(crate) fn changes(old: &Config, new: &Config) -> Changes {
    let mut changes = Changes::default();
    // What concerns all comes first: services may be many.
    whole(&mut changes, old, new);
    let now = &mut changes.now;
    entries(
        now,
        "listeners",
        old.listeners.iter().map(|listener| (listener.name.as_str(), listener)),
        new.listeners.iter().map(|listener| (listener.name.as_str(), listener)),
        |name, old_listener, new_listener, now| {
            // Routes refer to services by index, and an index may change where nothing else does.
            if format!("{:?}", Named(old, old_listener)) != format!("{:?}", Named(new, new_listener)) {
                now.push(Section::all(&["listeners", name]));
            }
        },
    );
    entries(
        now,
        "services",
        old.services.iter().map(|service| (service.name.as_str(), &**service)),
        new.services.iter().map(|service| (service.name.as_str(), &**service)),
        service,
    );
    for listener in &new.listeners {
        let before = old.listeners.iter().find(|before| before.name == listener.name);
        let is_udp = matches!(listener.protocol, Protocol::Udp(_));
        let same_place = before.is_some_and(|before| before.address == listener.address);
        if is_udp && same_place && before.is_some_and(|before| before.v6_only != listener.v6_only) {
            let families = if listener.v6_only { "IPv6 alone" } else { "IPv4 as well" };
            let line = format!("listeners.{}: datagrams of {families}", plain(&listener.name));
            changes.after_restart.push(Found::Line(line));
        }
    }
    changes
}

/// What concerns the process as a whole.
fn whole(changes: &mut Changes, old: &Config, new: &Config) {
    let fields = [
        ("overload", old.overload != new.overload),
        ("outlier_warnings", old.outlier_interval != new.outlier_interval),
        ("access_log", old.access_log != new.access_log),
        ("metrics", old.metrics != new.metrics),
        ("tracing", old.tracing != new.tracing),
        ("zone", old.zone != new.zone),
        ("shadow", old.shadow != new.shadow),
        ("drain_delay", old.drain_delay != new.drain_delay),
        ("drain_timeout", old.drain_timeout != new.drain_timeout),
        ("drain_spread", old.drain_spread != new.drain_spread),
        ("connections_max", old.process.connections_max != new.process.connections_max),
    ];
    let changed = fields.iter().filter(|field| field.1);
    changes.now.extend(changed.map(|(name, _)| Section::all(&[name])));
    admin(changes, old, new);
    let fields = [("control", old.control != new.control), ("workers", old.process.workers != new.process.workers)];
    let changed = fields.iter().filter(|field| field.1);
    changes.after_restart.extend(changed.map(|(name, _)| Section::all(&[name])));
}

/// Who may ask is in force at once; where it listens is not.
fn admin(changes: &mut Changes, old: &Config, new: &Config) {
    let place = |config: &Config| config.admin.as_ref().map(|admin| (admin.address, admin.socket.clone()));
    if place(old) != place(new) {
        let fields = Fields::Only(&["enabled", "address", "socket"]);
        changes.after_restart.push(Section::of(&["admin"], fields));
    }
    let (Some(old), Some(new)) = (&old.admin, &new.admin) else { return };
    let fields = [
        ("hosts", old.hosts != new.hosts),
        ("tokens", old.tokens != new.tokens),
        ("tls", old.tls != new.tls),
        ("anonymous", old.anonymous != new.anonymous),
    ];
    let changed = fields.iter().filter(|field| field.1);
    changes.now.extend(changed.map(|(name, _)| Section::all(&["admin", name])));
}

/// A listener with its services' names in place of their indices.
struct Named<'a>(&'a Config, &'a crate::model::Listener);

impl fmt::Debug for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::model::Protocol;
        let Self(config, listener) = self;
        let mut plain = (*listener).clone();
        let mut names = Vec::new();
        match &mut plain.protocol {
            Protocol::Http(http) => {
                for route in &mut http.routes {
                    names.push(config.services.get(route.service).map(|service| service.name.clone()));
                    route.service = 0;
                    if let Some(mirror) = route.actions.as_mut().and_then(|actions| actions.mirror.as_mut()) {
                        names.push(config.services.get(mirror.service).map(|service| service.name.clone()));
                        mirror.service = 0;
                    }
                    for target in route.split.iter_mut().flat_map(|split| &mut split.targets) {
                        names.push(config.services.get(target.service).map(|service| service.name.clone()));
                        target.service = 0;
                    }
                }
            }
            Protocol::Udp(udp) => {
                names.push(config.services.get(udp.service).map(|service| service.name.clone()));
                udp.service = 0;
            }
            Protocol::Tcp(tcp) => {
                let indices = tcp.service.iter_mut().chain(tcp.names.iter_mut().map(|(_, service)| service));
                for service in indices {
                    names.push(config.services.get(*service).map(|service| service.name.clone()));
                    *service = 0;
                }
            }
        }
        write!(f, "{plain:?} {names:?}")
    }
}

fn service(name: &str, old: &Service, new: &Service, changes: &mut Vec<Found>) {
    if std::ptr::eq(old, new) {
        return;
    }
    let path = format!("services.{}", plain(name));
    entries(
        changes,
        &format!("{path}.backends"),
        old.backends.iter().map(|backend| (backend.id.as_str(), backend)),
        new.backends.iter().map(|backend| (backend.id.as_str(), backend)),
        |id, old, new, changes| {
            // Nearly all are alike, and there may be many.
            if old == new {
                return;
            }
            let (before, after) = (fields(old), fields(new));
            let pairs = before.into_iter().zip(after).filter(|(before, after)| before != after);
            changes.extend(pairs.map(|((field, before), (_, after))| {
                Found::Line(format!("{path}.backends.{}.{field} {before} -> {after}", plain(id)))
            }));
        },
    );
    if old.spread != new.spread {
        let keys = new.spread.iter().map(|spread| format!("{:016x} over {}", spread.hash, spread.owners));
        let keys = keys.collect::<Vec<_>>().join(", ");
        let keys = if keys.is_empty() { "none" } else { &keys };
        changes.push(Found::Line(format!("{path}: keys spread by hand: {keys}")));
    }
    // Where keys are spread by hand alone, none becomes hot by itself.
    let by_itself = |service: &Service| service.hot_keys.filter(|hot| hot.enter.is_finite());
    let bare = |service: &Service| Service {
        backends: Vec::new(),
        spread: Vec::new(),
        hot_keys: by_itself(service),
        ..service.clone()
    };
    if bare(old) != bare(new) {
        changes.push(Section::of(&["services", name], Fields::Except(&["backends"])));
    }
}

/// A backend's fields, as a file has them. All of them are named here, so that no new one is forgotten; the level is of tier and zone.
fn fields(backend: &Backend) -> [(&'static str, String); 11] {
    let Backend {
        id: _,
        address,
        additional_address,
        weight,
        drain,
        drain_written,
        maintenance,
        requests_max,
        connections_max,
        pending_max,
        retries_max,
        tier,
        zone,
        level: _,
    } = backend;
    let limit = |most: u32| if most == u32::MAX { UNSET.to_owned() } else { most.to_string() };
    [
        ("address", address.to_string()),
        ("additional_address", additional_address.map_or_else(|| UNSET.to_owned(), |address| address.to_string())),
        ("weight", weight.to_string()),
        ("drain", if *maintenance { drain_written } else { drain }.to_string()),
        ("maintenance", maintenance.to_string()),
        ("requests_max", limit(*requests_max)),
        ("connections_max", limit(*connections_max)),
        ("pending_max", limit(*pending_max)),
        ("retries_max", limit(*retries_max)),
        ("tier", tier.to_string()),
        ("zone", zone.as_deref().map_or_else(|| UNSET.to_owned(), plain)),
    ]
}

fn entries<'a, T: 'a>(
    changes: &mut Vec<Found>,
    list: &str,
    old: impl Iterator<Item = (&'a str, &'a T)> + Clone,
    new: impl Iterator<Item = (&'a str, &'a T)> + Clone,
    mut both: impl FnMut(&str, &T, &T, &mut Vec<Found>),
) {
    if old.clone().map(|(name, _)| name).eq(new.clone().map(|(name, _)| name)) {
        // Nobody has come or gone: no name need be looked for.
        return old.zip(new).for_each(|((name, before), (_, entry))| both(name, before, entry, changes));
    }
    let olds: std::collections::HashMap<&str, &T> = old.clone().collect();
    let news: std::collections::HashMap<&str, &T> = new.clone().collect();
    for (name, _) in old.filter(|(name, _)| !news.contains_key(name)) {
        changes.push(Found::Line(format!("{list}.{} removed", plain(name))));
    }
    for (name, entry) in new {
        match olds.get(name) {
            None => changes.push(Found::Line(format!("{list}.{} added", plain(name)))),
            Some(before) => both(name, before, entry, changes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "top: 0\nlisteners:\n  - { name: l, address: \"10.0.0.1:1\", service: s }\n  - { name: t, address: \"10.0.0.1:2\", protocol: tcp, service: s }\n  - { name: u, address: \"[::]:3\", protocol: udp, service: s }\nservices:\n  - { name: r, backends: [ { id: a, address: \"10.0.0.1:1\" } ] }\n  - { name: s, backends: [ { id: a, address: \"10.0.0.1:1\" }, { id: b, address: \"10.0.0.1:2\", more: 0 } ] }\n";

    fn config(change: (&str, &str)) -> Config {
        assert!(FILE.contains(change.0));
        let text = FILE.replace(change.0, change.1).replace("top: 0\n", "").replace(", more: 0", "");
        crate::load_str("diff", &text, &|_| None).unwrap_or_else(|found| panic!("{text}\n{found}")).config
    }

    fn changes(old: (&str, &str), new: (&str, &str)) -> (Vec<String>, Vec<String>) {
        let diff = diff(&config(old), &config(new));
        assert_eq!(diff.is_empty(), diff.changes.is_empty() && diff.needs_restart.is_empty());
        let shown: Vec<String> = diff.needs_restart.iter().map(|line| format!("{line} (needs a restart)")).collect();
        assert_eq!(diff.to_string(), [diff.changes.clone(), shown].concat().join("; "));
        (diff.changes, diff.needs_restart)
    }

    const SAME: (&str, &str) = ("top: 0\n", "");

    #[test]
    fn each_field_of_the_process_is_told_and_whether_it_needs_a_restart() {
        assert_eq!(changes(SAME, SAME), (vec![], vec![]));
        for (top, change) in [
            ("access_log: { format: json }", "access_log changed"),
            ("metrics: { backends: basic }", "metrics changed"),
            ("metrics: { full_backends_max: 7 }", "metrics changed"),
            ("access_log: { only: { status: [ 5xx ] } }", "access_log changed"),
            ("tracing: { endpoint: \"http://127.0.0.1:4318\" }", "tracing changed"),
            ("zone: z", "zone changed"),
            ("shadow: s.yaml", "shadow changed"),
            ("drain_delay: 1s", "drain_delay changed"),
            ("drain_spread: 1s", "drain_spread changed"),
            ("admin: { hosts: [ a.test ] }", "admin.hosts changed"),
            ("admin: { anonymous: none }", "admin.anonymous changed"),
            ("admin: { tls: { certificate: c, key: k } }", "admin.tls changed"),
            ("connections_max: 7", "connections_max changed"),
            ("overload: { hold: 7s }", "overload changed"),
            ("overload: { enabled: false }", "overload changed"),
            ("outlier_warnings: { interval: 7s }", "outlier_warnings changed"),
            ("outlier_warnings: { enabled: false }", "outlier_warnings changed"),
        ] {
            assert_eq!(changes(SAME, ("top: 0", top)), (vec![change.to_owned()], vec![]), "{top}");
        }
        let both = changes(SAME, ("top: 0", "drain_timeout: 1s"));
        assert_eq!(both.0, ["drain_timeout changed", "drain_spread changed"]);
        for (top, change) in [
            ("admin: { enabled: false }", "admin changed"),
            ("admin: { address: \"127.0.0.1:1\" }", "admin changed"),
            ("admin: { socket: { path: s } }", "admin changed"),
            ("control: { members: [ \"http://127.0.0.1:1\" ] }", "control changed"),
            ("workers: 7", "workers changed"),
        ] {
            assert_eq!(changes(SAME, ("top: 0", top)), (vec![], vec![change.to_owned()]), "{top}");
        }
    }

    #[test]
    fn each_field_of_a_backend_is_told_in_its_words() {
        let b = "services.s.backends.b";
        for (old, new, change) in [
            ("weight: 100", "weight: 0", vec!["weight 100 -> 0"]),
            ("weight: 100", "drain: true", vec!["drain false -> true"]),
            ("drain: true", "drain: false", vec!["drain true -> false"]),
            ("drain: true", "maintenance: true", vec!["drain true -> false", "maintenance false -> true"]),
            ("maintenance: true", "maintenance: true, drain: true", vec!["drain false -> true"]),
            ("maintenance: true", "weight: 100", vec!["maintenance true -> false"]),
            ("weight: 100", "requests_max: 1", vec!["requests_max unset -> 1"]),
            ("connections_max: 2", "connections_max: 1", vec!["connections_max 2 -> 1"]),
            ("pending_max: 1", "weight: 100", vec!["pending_max 1 -> unset"]),
            ("weight: 100", "retries_max: 1", vec!["retries_max unset -> 1"]),
            ("weight: 100", "tier: 1", vec!["tier 0 -> 1"]),
            ("weight: 100", "zone: z", vec!["zone unset -> z"]),
            ("weight: 100", "additional_address: \"[::1]:2\"", vec!["additional_address unset -> [::1]:2"]),
        ] {
            let told = changes(("more: 0", old), ("more: 0", new)).0;
            let change: Vec<String> = change.into_iter().map(|field| format!("{b}.{field}")).collect();
            assert_eq!(told, change, "{old} -> {new}");
            assert!(changes(("more: 0", new), ("more: 0", new)).0.is_empty());
        }
        let gone = changes(SAME, (", { id: b, address: \"10.0.0.1:2\", more: 0 }", "")).0;
        assert_eq!(gone, [format!("{b} removed")]);
        assert_eq!(changes((", { id: b, address: \"10.0.0.1:2\", more: 0 }", ""), SAME).0, [format!("{b} added")]);
        assert_eq!(changes(SAME, ("{ name: s,", "{ name: s, protocol: h2,")).0, ["services.s changed"]);
    }

    #[test]
    fn routes_that_lead_to_the_same_services_are_the_same_wherever_those_stand_in_the_list() {
        let first = "{ name: q, backends: [ { id: a, address: \"10.0.0.1:9\" } ] }";
        let before = format!("services:\n  - {first}");
        assert_eq!(changes(SAME, ("services:", &before)).0, ["services.q added"]);
        let routes = |routes: &str| format!("address: \"10.0.0.1:1\", routes: [ {routes} ]");
        let place = "address: \"10.0.0.1:1\", service: s }\n  - { name: t";
        let with = |text: &str, before: bool| {
            let file = FILE.replacen(place, &format!("{} }}\n  - {{ name: t", routes(text)), 1);
            let file = if before { file.replace("services:", &format!("services:\n  - {first}")) } else { file };
            let file = file.replace("top: 0\n", "").replace(", more: 0", "");
            crate::load_str("diff", &file, &|_| None).unwrap_or_else(|found| panic!("{file}\n{found}")).config
        };
        for text in [
            "{ service: s }",
            "{ split: [ { service: r }, { service: s } ] }",
            "{ service: r, mirror: { service: s } }",
        ] {
            assert_eq!(diff(&with(text, false), &with(text, true)).changes, ["services.q added"], "{text}");
        }
        // And those that lead elsewhere are not, whatever leads there.
        for (one, other) in [
            ("{ service: s }", "{ service: r }"),
            ("{ split: [ { service: r }, { service: s } ] }", "{ split: [ { service: s }, { service: r } ] }"),
            ("{ service: r, mirror: { service: s } }", "{ service: r, mirror: { service: r } }"),
        ] {
            assert_eq!(diff(&with(one, false), &with(other, false)).changes, ["listeners.l changed"], "{one}");
        }
        for protocol in ["tcp", "udp"] {
            let (old, new) = (format!("protocol: {protocol}, service: s"), format!("protocol: {protocol}, service: r"));
            let name = &protocol[..1];
            assert_eq!(changes(SAME, (&old, &new)).0, [format!("listeners.{name} changed")]);
        }
        let named =
            |service: &str| format!("protocol: tcp, routes: [ {{ match: {{ host: a.test }}, service: {service} }} ]");
        let tcp = "protocol: tcp, service: s";
        assert_eq!(changes((tcp, &named("s")), (tcp, &named("r"))).0, ["listeners.t changed"]);
    }

    #[test]
    fn datagrams_of_other_families_need_a_restart() {
        let (alone, both) = ("address: \"[::]:3\", v6_only: true", "address: \"[::]:3\"");
        let told = |old: &str, new: &str| changes((both, old), (both, new));
        assert_eq!(told(both, alone).1, ["listeners.u: datagrams of IPv6 alone"]);
        assert_eq!(told(alone, both).1, ["listeners.u: datagrams of IPv4 as well"]);
        assert_eq!(told(both, both), (vec![], vec![]));
        assert!(told(both, "address: \"[::]:4\", v6_only: true").1.is_empty(), "a socket of its own");
        assert!(told(both, "address: \"[::]:3\", v6_only: true, connections_max: 0").1.len() == 1);
        let tcp = "address: \"10.0.0.1:2\", protocol: tcp";
        let both = ("address: \"[::]:2\", protocol: tcp", "address: \"[::]:2\", protocol: tcp, v6_only: true");
        let moved = changes((tcp, both.0), (tcp, both.1));
        assert!(moved.1.is_empty(), "of connections, another listener takes the place");
    }

    #[test]
    fn of_many_changes_the_first_are_named_and_the_others_counted() {
        let mut asked = 0;
        let many = Changes {
            now: (0..LINES_MAX + 7).map(|at| Section::all(&[&at.to_string()])).collect(),
            after_restart: vec![Found::Line("one".into())],
        };
        let diff = many.named(|section| {
            asked += 1;
            vec![format!("{}.a", section.path[0]), format!("{}.b", section.path[0])]
        });
        assert_eq!((asked, diff.changes.len()), (LINES_MAX / 2, LINES_MAX + 1));
        assert_eq!(diff.changes[LINES_MAX - 1..], ["9.b", &format!("and {} more", LINES_MAX / 2 + 7)]);
        assert_eq!(diff.lines().last().unwrap(), "one (needs a restart)");
    }
}
