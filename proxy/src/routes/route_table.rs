//! Routes of an HTTP listener: a request's host leads to the routes of that host, its path to those of them that take it, and
//! what else they ask for is tested of these alone.

use super::by_field::{ByField, MANY};
use super::candidates::{BY_FIELD, List, Lists, SURE};
use super::prefix_forest::{Forwards, HostFromEnd, PrefixForest, host_key};
use ringway_config::model::{HeaderMatch, HostMatch, PathMatch, Route};
use ringway_message::{Authority, RequestHead, default_port, is_below};
use std::collections::BTreeMap;

/// So many routes are gone through one by one sooner than they are looked up.
const FEW: usize = 6;
/// Lists of candidates that are merged at a time.
const LISTS_MAX: usize = 8;
/// No tree, no route.
const NONE: u32 = u32::MAX;

/// A listener's routes, ready to be asked.
pub struct RouteTable {
    looks_at_paths: bool,
    /// `None`: there are few.
    index: Option<Index>,
}

/// Routes by host and path.
struct Index {
    /// Which paths belong to a host.
    hosts: PrefixForest<OfHost>,
    /// The tree of the routes for any host.
    any_host: u32,
    /// A tree for each host that is told apart.
    paths: PrefixForest<OfPath>,
    /// By tree: routes that take any path.
    any_path: Box<[List]>,
    /// Indices of routes, in their order; see [`SURE`].
    candidates: Box<[u32]>,
    /// Lists that a field's value tells apart.
    by_field: Box<[ByField<List>]>,
    /// How many of the candidates ask for more than host and path, of those that a field tells apart as many as one value leaves: a
    /// request with several values of the field has more.
    tested: usize,
}

/// The trees of paths that a name leads to.
struct OfHost {
    /// For the host of this name.
    exact: u32,
    /// For hosts that end so, and have something before it.
    below: u32,
}

/// The routes of a path.
#[derive(Default)]
struct OfPath {
    exact: List,
    below: List,
}

impl RouteTable {
    /// Of routes in the order of the configuration.
    #[must_use]
    pub fn new(routes: &[Route]) -> Self {
        Self::with_few(routes, FEW, MANY)
    }

    fn with_few(routes: &[Route], few: usize, many: usize) -> Self {
        Self {
            looks_at_paths: routes.iter().any(|route| route.path.is_some()),
            index: (routes.len() > few).then(|| Index::new(routes, many)),
        }
    }

    /// Whether any route has a condition on the path.
    #[inline]
    pub(crate) fn looks_at_paths(&self) -> bool {
        self.looks_at_paths
    }

    /// So many routes may have to be tested, at most, for a request that has each field once.
    pub(crate) fn tests_max(&self) -> usize {
        self.index.as_ref().map_or(FEW, |index| index.tested)
    }

    /// What a route asks for that a request does not have.
    pub(crate) fn unmet(route: &Route, buffer: &[u8], head: &RequestHead, secure: bool) -> Vec<Unmet> {
        let asked = Asked::new(buffer, head, secure);
        let mut unmet = Vec::new();
        unmet.extend((!asked.has_host(route)).then_some(Unmet::Host));
        unmet.extend((!asked.has_path(route)).then_some(Unmet::Path));
        unmet.extend((!asked.has_method(route)).then_some(Unmet::Method));
        let missing = route.headers.iter().enumerate().filter(|(_, wanted)| !asked.has_field(wanted));
        unmet.extend(missing.map(|(index, _)| Unmet::Header(index)));
        unmet
    }

    /// The index of the first route that matches, of the routes that the table was made of. `secure`: the client speaks `https`.
    #[inline]
    #[must_use]
    pub fn find(&self, routes: &[Route], buffer: &[u8], head: &RequestHead, secure: bool) -> Option<usize> {
        let asked = Asked::new(buffer, head, secure);
        match &self.index {
            None => routes.iter().position(|route| asked.is_placed(route) && asked.meets(route)),
            Some(index) => index.find(routes, &asked),
        }
    }
}

/// The path as it is forwarded.
#[inline]
pub(crate) fn path_of<'b>(buffer: &'b [u8], head: &RequestHead) -> &'b [u8] {
    let path = head.path.of(buffer);
    if path.is_empty() { b"/" } else { path }
}

/// A request, as far as routes look at it.
struct Asked<'a> {
    authority: Authority<'a>,
    path: &'a [u8],
    buffer: &'a [u8],
    head: &'a RequestHead,
    secure: bool,
}

impl<'a> Asked<'a> {
    #[inline]
    fn new(buffer: &'a [u8], head: &'a RequestHead, secure: bool) -> Self {
        let authority = Authority::new(head.authority.of(buffer));
        Self { authority, path: path_of(buffer, head), buffer, head, secure }
    }

    /// Whether the route takes its host and path.
    #[inline]
    fn is_placed(&self, route: &Route) -> bool {
        self.has_host(route) && self.has_path(route)
    }

    #[inline]
    fn has_host(&self, route: &Route) -> bool {
        route.host.as_ref().is_none_or(|wanted| host_matches(wanted, self.authority.host()))
    }

    #[inline]
    fn has_path(&self, route: &Route) -> bool {
        route.path.as_ref().is_none_or(|wanted| path_matches(wanted, self.path))
    }

    /// Whether it has what the route asks for beside host and path.
    #[inline]
    fn meets(&self, route: &Route) -> bool {
        if route.methods.is_empty() && route.headers.is_empty() {
            return true;
        }
        self.has_method(route) && route.headers.iter().all(|wanted| self.has_field(wanted))
    }

    fn has_method(&self, route: &Route) -> bool {
        let method = self.head.method_span.of(self.buffer);
        route.methods.is_empty() || route.methods.iter().any(|wanted| wanted.as_bytes() == method)
    }

    /// Whether any of the fields of that name is what is asked for; a field's value is one, commas and all.
    fn has_field(&self, wanted: &HeaderMatch) -> bool {
        let mut values = self.head.values_of(self.buffer, wanted.name.as_bytes());
        match &wanted.value {
            None => values.next().is_some(),
            // In whichever form it is written: an absolute target stands for the field.
            Some(value) if wanted.name == "host" => {
                let is_same = self.authority.is_same(Authority::new(value.as_bytes()), default_port(self.secure));
                is_same && values.next().is_some()
            }
            Some(value) => values.any(|found| found == value.as_bytes()),
        }
    }
}

/// A condition of a route that a request does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unmet {
    Host,
    Path,
    Method,
    /// The field with this index.
    Header(usize),
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

/// Which paths a route takes, in the order in which lists of candidates are laid out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    Any,
    Exact,
    Below,
}

/// A route in its place: the tree of its host, its path there, and which paths it takes.
type Placed<'r> = (u32, &'r str, Taken, usize);

impl Index {
    fn new(routes: &[Route], many: usize) -> Self {
        let (of_names, mut trees) = trees(routes);
        let any_host = if routes.iter().any(|route| route.host.is_none()) { trees } else { NONE };
        trees += u32::from(any_host != NONE);
        let (keys, values): (Vec<Vec<u8>>, Vec<OfHost>) = of_names.into_iter().unzip();
        let keys: Vec<(usize, &[u8])> = keys.iter().map(|key| (0, key.as_slice())).collect();
        let hosts = PrefixForest::new(1, &keys, values);
        let tree_of = |route: &Route| match &route.host {
            None => any_host,
            Some(HostMatch::Exact(name)) => last(&hosts, name).map_or(NONE, |of| of.exact),
            Some(HostMatch::Suffix(name)) => last(&hosts, name).map_or(NONE, |of| of.below),
        };
        let mut placed: Vec<Placed<'_>> = Vec::with_capacity(routes.len());
        placed.extend(routes.iter().enumerate().map(|(index, route)| match &route.path {
            None => (tree_of(route), "", Taken::Any, index),
            Some(PathMatch::Exact(path)) => (tree_of(route), path.as_str(), Taken::Exact, index),
            Some(PathMatch::Prefix(path)) => (tree_of(route), path.as_str(), Taken::Below, index),
        }));
        placed.sort_unstable();
        let mut any_path = vec![List::default(); trees as usize];
        let mut lists = Lists::new(routes, many);
        let (mut keys, mut values): (Vec<(usize, &[u8])>, Vec<OfPath>) = (Vec::new(), Vec::new());
        for alike in placed.chunk_by(|one, other| (one.0, one.1, one.2) == (other.0, other.1, other.2)) {
            let (tree, path, taken, _) = alike[0];
            let list = lists.add(alike.iter().map(|placed| placed.3));
            if taken == Taken::Any {
                any_path[tree as usize] = list;
                continue;
            }
            let key = (tree as usize, path.as_bytes());
            if keys.last() != Some(&key) {
                keys.push(key);
                values.push(OfPath::default());
            }
            match (values.last_mut(), taken) {
                (Some(of), Taken::Exact) => of.exact = list,
                (Some(of), Taken::Below) => of.below = list,
                (Some(_), Taken::Any) | (None, _) => {}
            }
        }
        let paths = PrefixForest::new(trees as usize, &keys, values);
        let Lists { candidates, by_field, tested, .. } = lists;
        let (candidates, by_field) = (candidates.into(), by_field.into());
        Self { hosts, any_host, paths, any_path: any_path.into(), candidates, by_field, tested }
    }

    #[inline]
    fn find(&self, routes: &[Route], asked: &Asked<'_>) -> Option<usize> {
        let mut search = Search { routes, asked, lists: [&[]; LISTS_MAX], len: 0, best: NONE };
        let host = asked.authority.host();
        self.hosts.each_prefix(0, HostFromEnd(host), |len, of| {
            self.of_tree(if len == host.len() { of.exact } else { of.below }, &mut search);
        });
        self.of_tree(self.any_host, &mut search);
        search.settle();
        (search.best != NONE).then_some(search.best as usize)
    }

    /// Gathers the candidates of a host, by the path.
    #[inline]
    fn of_tree<'s>(&'s self, tree: u32, search: &mut Search<'s>) {
        let tree = tree as usize;
        let Some(any_path) = self.any_path.get(tree) else { return };
        self.add(*any_path, search);
        let path = search.asked.path;
        self.paths.each_prefix(tree, Forwards(path), |len, of| {
            // As `is_below` says of the prefix that ends here.
            if len == path.len() {
                self.add(of.exact, search);
                self.add(of.below, search);
            } else if path[len] == b'/' || path[..len].ends_with(b"/") {
                self.add(of.below, search);
            }
        });
    }

    #[inline]
    fn add<'s>(&'s self, list: List, search: &mut Search<'s>) {
        if list.len == BY_FIELD {
            return self.add_by_field(list.start, search);
        }
        search.add(self.list(list));
    }

    /// Those routes alone that ask for a value of the field that the request has, and those that ask for none.
    fn add_by_field<'s>(&'s self, number: u32, search: &mut Search<'s>) {
        let ByField { name, by_value, rest } = &self.by_field[number as usize];
        search.add(self.list(*rest));
        let values = || search.asked.head.values_of(search.asked.buffer, name.as_bytes());
        for (at, value) in values().enumerate() {
            let Some(list) = by_value.get(value) else { continue };
            // A list is gone through once, however often its value is repeated.
            if !values().take(at).any(|before| before == value) {
                search.add(self.list(*list));
            }
        }
    }

    #[inline]
    fn list(&self, list: List) -> &[u32] {
        &self.candidates[list.start as usize..(list.start + list.len) as usize]
    }
}

/// Numbers the trees of paths: one for each host, and for each domain, that a route names.
fn trees(routes: &[Route]) -> (BTreeMap<Vec<u8>, OfHost>, u32) {
    let mut of_names: BTreeMap<Vec<u8>, OfHost> = BTreeMap::new();
    let mut trees = 0;
    for host in routes.iter().filter_map(|route| route.host.as_ref()) {
        let (HostMatch::Exact(name) | HostMatch::Suffix(name)) = host;
        let of = of_names.entry(host_key(name)).or_insert(OfHost { exact: NONE, below: NONE });
        let tree = match host {
            HostMatch::Exact(_) => &mut of.exact,
            HostMatch::Suffix(_) => &mut of.below,
        };
        if *tree == NONE {
            *tree = trees;
            trees += 1;
        }
    }
    (of_names, trees)
}

/// What is known of this name.
fn last<'h>(hosts: &'h PrefixForest<OfHost>, name: &str) -> Option<&'h OfHost> {
    let mut last = None;
    hosts.each_prefix(0, HostFromEnd(name.as_bytes()), |_, of| last = Some(of));
    last
}

/// Lists of candidates, each in the order of the routes, and the first route that is known to match.
struct Search<'s> {
    routes: &'s [Route],
    asked: &'s Asked<'s>,
    /// Not empty, as far as `len`.
    lists: [&'s [u32]; LISTS_MAX],
    len: usize,
    best: u32,
}

impl<'s> Search<'s> {
    #[inline]
    fn add(&mut self, list: &'s [u32]) {
        let Some(first) = list.first() else { return };
        if first & !SURE >= self.best {
            return;
        }
        if self.len == LISTS_MAX {
            self.settle();
        }
        self.lists[self.len] = list;
        self.len += 1;
    }

    /// Goes through the lists as if they were one, up to the first that matches.
    #[inline]
    fn settle(&mut self) {
        while let Some((place, candidate)) = self.first() {
            let index = candidate & !SURE;
            if index >= self.best {
                break;
            }
            if candidate & SURE != 0 || self.asked.meets(&self.routes[index as usize]) {
                self.best = index;
                break;
            }
            self.lists[place] = &self.lists[place][1..];
            if self.lists[place].is_empty() {
                self.len -= 1;
                self.lists[place] = self.lists[self.len];
            }
        }
        self.len = 0;
    }

    /// The first of all candidates, and in which list it is.
    #[inline]
    fn first(&self) -> Option<(usize, u32)> {
        let firsts =
            self.lists[..self.len].iter().enumerate().filter_map(|(place, list)| Some((place, *list.first()?)));
        firsts.min_by_key(|(_, candidate)| candidate & !SURE)
    }
}

#[cfg(test)]
mod tests;
