//! Routes of one host and path that a field's value tells apart: many tenants behind one path.

use ringway_config::model::Route;
use std::collections::HashMap;

/// Of so many routes or more, most of which ask for values of one field, those are looked up by the request's.
pub(super) const MANY: usize = 16;

/// Which routes of a list ask for which value of a field.
pub(super) struct ByField<L> {
    /// In lower case.
    pub(super) name: String,
    pub(super) by_value: HashMap<Box<[u8]>, L>,
    /// Those that ask for none, or for more than a value of it.
    pub(super) rest: L,
}

/// The field of which most of the routes ask for a value, if that is worth a look: half of them at least.
pub(super) fn told_by<'r>(indices: &[usize], routes: &'r [Route], many: usize) -> Option<&'r str> {
    if indices.len() < many {
        return None;
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for name in indices.iter().flat_map(|index| names(&routes[*index])) {
        *counts.entry(name).or_default() += 1;
    }
    let (name, count) = counts.into_iter().max_by_key(|(name, count)| (*count, std::cmp::Reverse(*name)))?;
    (2 * count >= indices.len()).then_some(name)
}

/// Fields of which a route asks for a value, each once.
fn names(route: &Route) -> impl Iterator<Item = &str> {
    let is_first = |at: usize, name: &str| route.headers[..at].iter().all(|before| before.name != name);
    let valued = route.headers.iter().enumerate().filter(|(_, wanted)| wanted.value.is_some());
    // An authority is written in several forms.
    valued
        .map(|(at, wanted)| (at, wanted.name.as_str()))
        .filter(move |(at, name)| *name != "host" && is_first(*at, name))
        .map(|(_, name)| name)
}

/// The value of that field that a route asks for.
pub(super) fn value<'r>(route: &'r Route, name: &str) -> Option<&'r [u8]> {
    let wanted = route.headers.iter().find(|wanted| wanted.name == name && wanted.value.is_some())?;
    wanted.value.as_ref().map(String::as_bytes)
}
