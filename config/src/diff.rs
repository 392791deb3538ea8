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
        old.services.iter().map(|service| (service.name.as_str(), service)),
        new.services.iter().map(|service| (service.name.as_str(), service)),
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
    if old.access_log != new.access_log {
        changes.push("access_log changed".into());
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
    let names = |config: &Config| config.admin.as_ref().map(|admin| admin.hosts.clone());
    if names(old).zip(names(new)).is_some_and(|(old, new)| old != new) {
        changes.push("admin hosts changed".into());
    }
    let address = |config: &Config| config.admin.as_ref().map(|admin| admin.address);
    if address(old) != address(new) {
        diff.needs_restart.push("admin changed".into());
    }
    if old.control != new.control {
        diff.needs_restart.push("control changed".into());
    }
    if old.process.connections_max != new.process.connections_max {
        changes.push("connections_max changed".into());
    }
    if old.process.workers != new.process.workers {
        diff.needs_restart.push("workers changed".into());
    }
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
    let bare = |service: &Service| Service { backends: Vec::new(), ..service.clone() };
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
