//! Names that somebody has typed: whether there is such a thing, and what it may be called instead.

use crate::snapshot::Snapshot;
use ringway_config::distance;
use std::collections::BTreeSet;

/// Names that are told.
const NAMED_MAX: usize = 8;

/// What there is instead of what is not there, the most alike first.
pub(super) fn unknown<'n>(kind: &str, wanted: &str, names: impl Iterator<Item = &'n str>) -> String {
    // Several services may each have a backend of the same name.
    let names: BTreeSet<&str> = names.collect();
    let count = names.len();
    let mut names: Vec<(usize, &str)> = names.into_iter().map(|name| (distance(wanted, name), name)).collect();
    if count == 0 {
        return format!("there is no {kind} {wanted:?}, nor any other");
    }
    names.sort_unstable();
    let mut told: Vec<String> = names.iter().take(NAMED_MAX).map(|(_, name)| (*name).to_owned()).collect();
    if count > NAMED_MAX {
        told.push(format!("and {} more", count - NAMED_MAX));
    }
    format!("there is no {kind} {wanted:?}; there are {}", told.join(", "))
}

/// Says that there is no such service, if there is none.
pub(super) fn service(snapshot: &Snapshot, wanted: &str) -> Result<(), String> {
    let names = || snapshot.services.iter().map(|service| service.config.name.as_str());
    if names().any(|name| name == wanted) { Ok(()) } else { Err(unknown("service", wanted, names())) }
}

/// As [`service`], of a listener.
pub(super) fn listener(snapshot: &Snapshot, wanted: &str) -> Result<(), String> {
    let names = || snapshot.config.listeners.iter().map(|listener| listener.name.as_str());
    if names().any(|name| name == wanted) { Ok(()) } else { Err(unknown("listener", wanted, names())) }
}

/// As [`service`], of a backend of this service, or of any.
pub(super) fn backend(snapshot: &Snapshot, of: Option<&str>, wanted: &str) -> Result<(), String> {
    let services = || snapshot.services.iter().filter(|service| of.is_none_or(|of| of == service.config.name));
    let names = || services().flat_map(|service| service.backends.iter().map(|backend| backend.config.id.as_str()));
    if names().any(|name| name == wanted) { Ok(()) } else { Err(unknown("backend", wanted, names())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_alike_is_named_first_and_not_all_of_many_are() {
        let names = ["web", "api-v2", "api", "batch", "api", "web"];
        let told = unknown("service", "apj", names.into_iter());
        assert_eq!(told, "there is no service \"apj\"; there are api, web, api-v2, batch");
        let many: Vec<String> = (0..1000).map(|number| format!("node-{number}")).collect();
        let told = unknown("backend", "nod-777", many.iter().map(String::as_str));
        assert!(told.contains("there are node-777, ") && told.ends_with("and 992 more"), "{told}");
        assert_eq!(unknown("service", "x", [].into_iter()), "there is no service \"x\", nor any other");
    }
}
