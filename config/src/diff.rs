//! What changes from one configuration to the next, in an operator's words.

use crate::model::{Config, Protocol, Service};
use serde::Serialize;
use std::fmt;

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
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let restart = self.needs_restart.iter().map(|line| format!("{line} (needs a restart)"));
        f.write_str(&self.changes.iter().cloned().chain(restart).collect::<Vec<_>>().join("; "))
    }
}

/// Compares two configurations.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Diff {
    let mut diff = Diff::default();
    let changes = &mut diff.changes;
    entries(
        changes,
        "listener",
        old.listeners.iter().map(|listener| (listener.name.as_str(), listener)),
        new.listeners.iter().map(|listener| (listener.name.as_str(), listener)),
        |name, old_listener, new_listener, changes| {
            // Routes refer to services by index, and an index may change where nothing else does.
            if format!("{:?}", Named(old, old_listener)) != format!("{:?}", Named(new, new_listener)) {
                changes.push(format!("listener {name:?} changed"));
            }
        },
    );
    entries(
        changes,
        "service",
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
            diff.needs_restart.push(format!("listener {:?}: datagrams of {families}", listener.name));
        }
    }
    whole(&mut diff, old, new);
    diff
}

/// What concerns the process as a whole.
fn whole(diff: &mut Diff, old: &Config, new: &Config) {
    let changes = &mut diff.changes;
    if old.overload != new.overload {
        changes.push("overload changed".into());
    }
    if old.outlier_interval != new.outlier_interval {
        changes.push("outlier_warnings changed".into());
    }
    if old.access_log != new.access_log {
        changes.push("access_log changed".into());
    }
    if old.metrics != new.metrics {
        changes.push("metrics changed".into());
    }
    if old.tracing != new.tracing {
        changes.push("tracing changed".into());
    }
    if old.zone != new.zone {
        changes.push("zone changed".into());
    }
    if old.shadow != new.shadow {
        changes.push("shadow changed".into());
    }
    if old.drain_delay != new.drain_delay {
        changes.push("drain_delay changed".into());
    }
    if old.drain_timeout != new.drain_timeout {
        changes.push("drain_timeout changed".into());
    }
    if old.drain_spread != new.drain_spread {
        changes.push("drain_spread changed".into());
    }
    admin(diff, old, new);
    if old.control != new.control {
        diff.needs_restart.push("control changed".into());
    }
    if old.process.connections_max != new.process.connections_max {
        diff.changes.push("connections_max changed".into());
    }
    if old.process.workers != new.process.workers {
        diff.needs_restart.push("workers changed".into());
    }
}

/// Who may ask is in force at once; where it listens is not.
fn admin(diff: &mut Diff, old: &Config, new: &Config) {
    let place = |config: &Config| config.admin.as_ref().map(|admin| (admin.address, admin.socket.clone()));
    if place(old) != place(new) {
        diff.needs_restart.push("admin changed".into());
    }
    let (Some(old), Some(new)) = (&old.admin, &new.admin) else { return };
    let fields = [
        ("hosts", old.hosts != new.hosts),
        ("tokens", old.tokens != new.tokens),
        ("tls", old.tls != new.tls),
        ("anonymous", old.anonymous != new.anonymous),
    ];
    diff.changes.extend(fields.iter().filter(|field| field.1).map(|(name, _)| format!("admin {name} changed")));
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

fn service(name: &str, old: &Service, new: &Service, changes: &mut Vec<String>) {
    if std::ptr::eq(old, new) {
        return;
    }
    entries(
        changes,
        &format!("service {name:?}: backend"),
        old.backends.iter().map(|backend| (backend.id.as_str(), backend)),
        new.backends.iter().map(|backend| (backend.id.as_str(), backend)),
        |id, old, new, changes| {
            let mut say = |what: String| changes.push(format!("service {name:?}: backend {id:?} {what}"));
            if old.address != new.address {
                say(format!("moved from {} to {}", old.address, new.address));
            }
            if old.weight != new.weight {
                say(format!("weight {} -> {}", old.weight, new.weight));
            }
            if (old.drain, old.maintenance) != (new.drain, new.maintenance) {
                say(match (new.drain, new.maintenance) {
                    (_, true) => "is in maintenance".into(),
                    (true, false) => "drains".into(),
                    (false, false) => "drains no longer".into(),
                });
            }
            if limits(old) != limits(new) {
                say("limits changed".into());
            }
            if (old.tier, &old.zone, old.level) != (new.tier, &new.zone, new.level) {
                say("tier or zone changed".into());
            }
        },
    );
    if old.spread != new.spread {
        let keys = new.spread.iter().map(|spread| format!("{:016x} over {}", spread.hash, spread.owners));
        let keys = keys.collect::<Vec<_>>().join(", ");
        changes
            .push(format!("service {name:?}: keys spread by hand: {}", if keys.is_empty() { "none" } else { &keys }));
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
        changes.push(format!("service {name:?} changed"));
    }
}

/// A backend's limits. All of its fields are named here, so that no new one is forgotten.
fn limits(backend: &crate::model::Backend) -> [u32; 4] {
    let crate::model::Backend {
        id: _,
        address: _,
        weight: _,
        drain: _,
        drain_written: _,
        maintenance: _,
        requests_max,
        connections_max,
        pending_max,
        retries_max,
        tier: _,
        zone: _,
        level: _,
    } = backend;
    [*requests_max, *connections_max, *pending_max, *retries_max]
}

fn entries<'a, T: 'a>(
    changes: &mut Vec<String>,
    what: &str,
    old: impl Iterator<Item = (&'a str, &'a T)> + Clone,
    new: impl Iterator<Item = (&'a str, &'a T)> + Clone,
    mut both: impl FnMut(&str, &T, &T, &mut Vec<String>),
) {
    let olds: std::collections::HashMap<&str, &T> = old.clone().collect();
    let news: std::collections::HashMap<&str, &T> = new.clone().collect();
    for (name, _) in old.filter(|(name, _)| !news.contains_key(name)) {
        changes.push(format!("{what} {name:?} removed"));
    }
    for (name, entry) in new {
        match olds.get(name) {
            None => changes.push(format!("{what} {name:?} added")),
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
            ("admin: { hosts: [ a.test ] }", "admin hosts changed"),
            ("admin: { anonymous: none }", "admin anonymous changed"),
            ("admin: { tls: { certificate: c, key: k } }", "admin tls changed"),
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
        let b = "service \"s\": backend \"b\" ";
        for (old, new, change) in [
            ("weight: 100", "weight: 0", "weight 100 -> 0"),
            ("weight: 100", "drain: true", "drains"),
            ("drain: true", "drain: false", "drains no longer"),
            ("drain: true", "maintenance: true", "is in maintenance"),
            ("maintenance: true", "drain: true", "drains"),
            ("maintenance: true", "weight: 100", "drains no longer"),
            ("weight: 100", "requests_max: 1", "limits changed"),
            ("weight: 100", "connections_max: 1", "limits changed"),
            ("weight: 100", "pending_max: 1", "limits changed"),
            ("weight: 100", "retries_max: 1", "limits changed"),
            ("weight: 100", "tier: 1", "tier or zone changed"),
            ("weight: 100", "zone: z", "tier or zone changed"),
        ] {
            let told = changes(("more: 0", old), ("more: 0", new)).0;
            assert_eq!(told, [format!("{b}{change}")], "{old} -> {new}");
            assert!(changes(("more: 0", new), ("more: 0", new)).0.is_empty());
        }
        let gone = changes(SAME, (", { id: b, address: \"10.0.0.1:2\", more: 0 }", "")).0;
        assert_eq!(gone, [format!("{}removed", b)]);
        assert_eq!(changes((", { id: b, address: \"10.0.0.1:2\", more: 0 }", ""), SAME).0, [format!("{b}added")]);
        assert_eq!(changes(SAME, ("{ name: s,", "{ name: s, protocol: h2,")).0, ["service \"s\" changed"]);
    }

    #[test]
    fn routes_that_lead_to_the_same_services_are_the_same_wherever_those_stand_in_the_list() {
        let first = "{ name: q, backends: [ { id: a, address: \"10.0.0.1:9\" } ] }";
        let before = format!("services:\n  - {first}");
        assert_eq!(changes(SAME, ("services:", &before)).0, ["service \"q\" added"]);
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
            assert_eq!(diff(&with(text, false), &with(text, true)).changes, ["service \"q\" added"], "{text}");
        }
        // And those that lead elsewhere are not, whatever leads there.
        for (one, other) in [
            ("{ service: s }", "{ service: r }"),
            ("{ split: [ { service: r }, { service: s } ] }", "{ split: [ { service: s }, { service: r } ] }"),
            ("{ service: r, mirror: { service: s } }", "{ service: r, mirror: { service: r } }"),
        ] {
            assert_eq!(diff(&with(one, false), &with(other, false)).changes, ["listener \"l\" changed"], "{one}");
        }
        for protocol in ["tcp", "udp"] {
            let (old, new) = (format!("protocol: {protocol}, service: s"), format!("protocol: {protocol}, service: r"));
            let name = &protocol[..1];
            assert_eq!(changes(SAME, (&old, &new)).0, [format!("listener {name:?} changed")]);
        }
        let named =
            |service: &str| format!("protocol: tcp, routes: [ {{ match: {{ host: a.test }}, service: {service} }} ]");
        let tcp = "protocol: tcp, service: s";
        assert_eq!(changes((tcp, &named("s")), (tcp, &named("r"))).0, ["listener \"t\" changed"]);
    }

    #[test]
    fn datagrams_of_other_families_need_a_restart() {
        let (alone, both) = ("address: \"[::]:3\", v6_only: true", "address: \"[::]:3\"");
        let told = |old: &str, new: &str| changes((both, old), (both, new));
        assert_eq!(told(both, alone).1, ["listener \"u\": datagrams of IPv6 alone"]);
        assert_eq!(told(alone, both).1, ["listener \"u\": datagrams of IPv4 as well"]);
        assert_eq!(told(both, both), (vec![], vec![]));
        assert!(told(both, "address: \"[::]:4\", v6_only: true").1.is_empty(), "a socket of its own");
        assert!(told(both, "address: \"[::]:3\", v6_only: true, connections_max: 0").1.len() == 1);
        let tcp = "address: \"10.0.0.1:2\", protocol: tcp";
        let both = ("address: \"[::]:2\", protocol: tcp", "address: \"[::]:2\", protocol: tcp, v6_only: true");
        let moved = changes((tcp, both.0), (tcp, both.1));
        assert!(moved.1.is_empty(), "of connections, another listener takes the place");
    }
}
