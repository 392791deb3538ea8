//! Kinds of requests that two lists of routes can distinguish, each by one request that stands for it.
//!
//! Conditions of routes are all of the form "has this", so of all requests that two routes take, those that have nothing
//! else are taken by the fewest routes before them: if any request comes to both routes first, one of these does. They are
//! routed by the code that routes requests.

use crate::routes::RouteTable;
use ringway_config::model::{HeaderMatch, HostMatch, PathMatch, Route};
use ringway_http1::{Limits, RequestHead, parse_request};
use std::collections::{BTreeSet, HashMap};

/// Requests that are tried, at most, for pairs of routes that need not be the same.
const REQUESTS_MAX: usize = 300_000;
/// Comparisons of a request with a route that is not told from others by host and path, and of routes with each other, that all of
/// them may cost.
const STEPS_MAX: usize = 100_000_000;
/// A name that no configuration has.
const FRESH: &str = "zz-nobodys-name";

/// Pairs of routes, old and new, that some request comes to; `None`: to none.
pub(super) type Pairs = BTreeSet<(Option<usize>, Option<usize>)>;

/// The conditions of two routes together, as far as one request can meet them.
struct Conditions<'r> {
    hosts: Vec<&'r HostMatch>,
    paths: Vec<&'r PathMatch>,
    methods: Option<Vec<&'r str>>,
    headers: Vec<&'r HeaderMatch>,
}

impl<'r> Conditions<'r> {
    fn of(routes: &[&'r Route]) -> Self {
        let mut methods: Option<Vec<&str>> = None;
        for route in routes.iter().filter(|route| !route.methods.is_empty()) {
            let own = route.methods.iter().map(String::as_str);
            methods = Some(match methods {
                None => own.collect(),
                Some(so_far) => own.filter(|method| so_far.contains(method)).collect(),
            });
        }
        Self {
            hosts: routes.iter().filter_map(|route| route.host.as_ref()).collect(),
            paths: routes.iter().filter_map(|route| route.path.as_ref()).collect(),
            methods,
            headers: routes.iter().flat_map(|route| &route.headers).collect(),
        }
    }

    fn host(&self) -> String {
        let written = self.headers.iter().find_map(|header| (header.name == "host").then(|| header.value.clone())?);
        let exact = self.hosts.iter().find_map(|host| match host {
            HostMatch::Exact(host) => Some(host.clone()),
            HostMatch::Suffix(_) => None,
        });
        let longest = self.hosts.iter().filter_map(|host| match host {
            HostMatch::Suffix(suffix) => Some(suffix.as_str()),
            HostMatch::Exact(_) => None,
        });
        let longest = longest.max_by_key(|suffix| suffix.len()).unwrap_or(".invalid");
        // A port that no condition names.
        written.unwrap_or_else(|| format!("{}:9", exact.unwrap_or_else(|| format!("{FRESH}{longest}"))))
    }

    fn paths(&self) -> Vec<String> {
        let exact = self.paths.iter().find_map(|path| match path {
            PathMatch::Exact(path) => Some(path.clone()),
            PathMatch::Prefix(_) => None,
        });
        if let Some(exact) = exact {
            return vec![exact];
        }
        let prefixes = self.paths.iter().filter_map(|path| match path {
            PathMatch::Prefix(prefix) => Some(prefix.as_str()),
            PathMatch::Exact(_) => None,
        });
        match prefixes.max_by_key(|prefix| prefix.len()) {
            Some(prefix) => vec![format!("{}/{FRESH}", prefix.trim_end_matches('/')), prefix.to_owned()],
            None => vec![format!("/{FRESH}")],
        }
    }

    fn requests(&self) -> impl Iterator<Item = String> {
        let mut fields = format!("Host: {}\r\n", self.host());
        let mut named = BTreeSet::from(["host"]);
        // A field with a value is also present. Each comes once: who asks for two values of one is met by both, but nobody sends that.
        let (valued, present): (Vec<&HeaderMatch>, Vec<_>) =
            self.headers.iter().copied().partition(|header| header.value.is_some());
        for header in valued.into_iter().chain(present).filter(|header| named.insert(header.name.as_str())) {
            fields.push_str(&format!("{}: {}\r\n", header.name, header.value.as_deref().unwrap_or(FRESH)));
        }
        let methods = self.methods.clone().unwrap_or_else(|| vec!["ZZ-NOBODYS-METHOD"]);
        let paths = self.paths();
        methods.into_iter().flat_map(move |method| {
            let fields = fields.clone();
            let of_path = move |path: &String| format!("{method} {path} HTTP/1.1\r\n{fields}\r\n");
            paths.iter().map(of_path).collect::<Vec<_>>()
        })
    }
}

/// All pairs, as long as there are not too many routes; of more, those that requests made for one route each come to.
pub(super) fn pairs(old: &[Route], new: &[Route], secure: bool) -> Pairs {
    let mut pairs = Pairs::new();
    let mut head = RequestHead::default();
    let limits = Limits { head_bytes_max: 1 << 20, fields_max: 256 };
    let (table, other_table) = (RouteTable::new(old), RouteTable::new(new));
    let mut left = REQUESTS_MAX.min(STEPS_MAX / (table.tests_max() + other_table.tests_max()).max(1));
    let mut try_requests = |conditions: &Conditions<'_>| {
        for request in conditions.requests() {
            left = left.saturating_sub(1);
            let bytes = request.as_bytes();
            if matches!(parse_request(bytes, &limits, &mut head), Ok(true)) {
                let after = other_table.find(new, bytes, &head, secure);
                pairs.insert((table.find(old, bytes, &head, secure), after));
            }
        }
        left > 0
    };
    try_requests(&Conditions::of(&[]));
    old.iter().chain(new).for_each(|route| {
        try_requests(&Conditions::of(&[route]));
    });
    if is_same_list(old, new) {
        return pairs;
    }
    let by_host = ByHost::new(new);
    let mut steps = STEPS_MAX;
    'all: for one in old {
        for other in by_host.near(one) {
            steps = steps.saturating_sub(1);
            if steps == 0 || may_meet(one, other) && !try_requests(&Conditions::of(&[one, other])) {
                tracing::debug!("too many routes: not every pair of them is looked at");
                break 'all;
            }
        }
    }
    pairs
}

/// Routes by the host that they name.
struct ByHost<'r> {
    all: &'r [Route],
    exact: HashMap<&'r str, Vec<&'r Route>>,
    /// Of many hosts.
    wide: Vec<&'r Route>,
}

impl<'r> ByHost<'r> {
    fn new(all: &'r [Route]) -> Self {
        let (mut exact, mut wide): (HashMap<&str, Vec<&Route>>, Vec<&Route>) = (HashMap::new(), Vec::new());
        for route in all {
            match &route.host {
                Some(HostMatch::Exact(host)) => exact.entry(host).or_default().push(route),
                Some(HostMatch::Suffix(_)) | None => wide.push(route),
            }
        }
        Self { all, exact, wide }
    }

    /// Routes that may have a host in common with this one.
    fn near(&self, route: &Route) -> impl Iterator<Item = &'r Route> {
        let (all, same, wide): (&[Route], &[&Route], &[&Route]) = match &route.host {
            Some(HostMatch::Exact(host)) => (&[], self.exact.get(host.as_str()).map_or(&[], Vec::as_slice), &self.wide),
            Some(HostMatch::Suffix(_)) | None => (self.all, &[], &[]),
        };
        all.iter().chain(same.iter().chain(wide).copied().collect::<Vec<_>>())
    }
}

/// Whether the lists match alike, route by route: then each request comes to the same index in both.
fn is_same_list(old: &[Route], new: &[Route]) -> bool {
    let same = |(one, other): (&Route, &Route)| {
        (&one.host, &one.path, &one.methods, &one.headers) == (&other.host, &other.path, &other.methods, &other.headers)
    };
    old.len() == new.len() && old.iter().zip(new).all(same)
}

/// What is quickly seen to have no request in common has none.
fn may_meet(one: &Route, other: &Route) -> bool {
    let hosts = match (&one.host, &other.host) {
        (Some(HostMatch::Exact(one)), Some(HostMatch::Exact(other))) => one == other,
        (Some(HostMatch::Suffix(one)), Some(HostMatch::Suffix(other))) => {
            one.ends_with(other.as_str()) || other.ends_with(one.as_str())
        }
        (Some(HostMatch::Exact(host)), Some(HostMatch::Suffix(suffix)))
        | (Some(HostMatch::Suffix(suffix)), Some(HostMatch::Exact(host))) => host.ends_with(suffix.as_str()),
        (None, _) | (_, None) => true,
    };
    hosts
        && match (&one.path, &other.path) {
            (Some(PathMatch::Exact(one)), Some(PathMatch::Exact(other))) => one == other,
            (Some(PathMatch::Prefix(one)), Some(PathMatch::Prefix(other))) => {
                one.starts_with(other.as_str()) || other.starts_with(one.as_str())
            }
            (Some(PathMatch::Exact(exact)), Some(PathMatch::Prefix(prefix)))
            | (Some(PathMatch::Prefix(prefix)), Some(PathMatch::Exact(exact))) => exact.starts_with(prefix.as_str()),
            (None, _) | (_, None) => true,
        }
}
