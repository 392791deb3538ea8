//! What a change moves of requests as they are routed: listener, route, split target, backend.

use super::classes;
use super::outcome::{PlanError, RoutePlan, ServicePlan};
use super::services::takers;
use crate::admin::words::{self, Values};
use crate::routes::NameTable;
use crate::snapshot::shadow::group_of;
use ringway_config::model::{AffinityCookie, Config, HostMatch, Listener, Protocol, Route, Service, TcpListener};
use ringway_ring::{BackendSet, Method, Move, Movement, choose_split_target, hash_key};
use std::collections::BTreeMap;

/// Keys that one comparison takes, at most: at 100,000 the standard error is below 0.2 %.
const KEYS_MAX: usize = 100_000;
/// And at least.
const KEYS_MIN: usize = 2_000;
/// Keys that all comparisons together take.
const KEYS_ALL: usize = 10_000_000;
/// The name of what takes requests that no backend takes.
const NOBODY: &str = "nobody";

/// One side of the comparison.
pub(super) struct Side<'c> {
    config: &'c Config,
    pickers: Vec<Picker<'c>>,
}

/// Picks backends as the service itself would, with every backend up.
struct Picker<'c> {
    service: &'c Service,
    /// `None`: it takes nothing, or is balanced without keys.
    backend_set: Option<BackendSet>,
    /// In the order of the backend set's slots.
    ids: Vec<(&'c str, String)>,
    takes: bool,
}

impl<'c> Side<'c> {
    pub(super) fn new(config: &'c Config) -> Result<Self, PlanError> {
        let pickers = config.services.iter().map(|service| Picker::new(service)).collect::<Result<_, _>>()?;
        Ok(Self { config, pickers })
    }
}

impl<'c> Picker<'c> {
    fn new(service: &'c Service) -> Result<Self, PlanError> {
        let takes = takers(service).next().is_some();
        let backend_set = if takes && service.policy.hashes() {
            Some(group_of(service).map_err(|source| PlanError { service: service.name.clone(), source })?)
        } else {
            None
        };
        let mut ids: Vec<(&str, String)> =
            service.backends.iter().map(|backend| (backend.id.as_str(), backend.address.to_string())).collect();
        ids.sort_unstable();
        Ok(Self { service, backend_set, ids, takes })
    }

    /// The backend that takes a request. Without keys, any by weight: the same one of those that are on both sides.
    fn pick(&self, number: u64) -> Option<usize> {
        if !self.takes {
            return None;
        }
        if let Some(backend_set) = &self.backend_set {
            let service = self.service;
            let source = match &service.affinity_cookie {
                Some(AffinityCookie { service, name, secret, .. }) => format!("cookie {service} {name} {secret:?}"),
                None => format!("{:?}", service.hash_key),
            };
            let slot = backend_set.taker(hash_key(&key(number, &source), service.policy.seed()))?;
            return Some(usize::from(slot.0));
        }
        let list: Vec<_> = takers(self.service).collect();
        let weighted = list.iter().map(|backend| (hash_key(backend.address.to_string().as_bytes(), 0), backend.weight));
        let chosen = choose_split_target(hash_key(&number.to_le_bytes(), 0), weighted)?;
        self.ids.iter().position(|(id, _)| *id == list[chosen].id)
    }
}

/// The bytes of a key that is read from a source: from the same source before and after, it is the same key.
fn key(number: u64, source: &str) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.to_le_bytes());
    key[8..].copy_from_slice(&hash_key(source.as_bytes(), 0).to_le_bytes());
    key
}

/// Where requests are sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// Rejected, or closed.
    Nobody,
    /// A response of the proxy itself, as the route is configured.
    DirectResponse,
    /// Split targets: service, salt, weight; and where the key comes from that chooses.
    Services(Vec<(usize, u64, u32)>, String),
}

impl Target {
    fn service(index: usize) -> Self {
        Self::Services(vec![(index, 0, 1)], String::new())
    }

    fn of(route: Option<&Route>) -> Self {
        let Some(route) = route else { return Self::Nobody };
        if route.actions.as_ref().is_some_and(|actions| actions.redirect.is_some()) {
            return Self::DirectResponse;
        }
        match &route.split {
            None => Self::service(route.service),
            Some(split) => {
                let targets = split.targets.iter().map(|target| (target.service, target.salt, target.weight)).collect();
                Self::Services(targets, format!("{:?}", split.key))
            }
        }
    }

    fn name(&self, side: &Side<'_>) -> String {
        match self {
            Self::Nobody => NOBODY.to_owned(),
            Self::DirectResponse => "an answer".to_owned(),
            Self::Services(targets, _) => {
                let names: Vec<&str> =
                    targets.iter().map(|target| side.config.services[target.0].name.as_str()).collect();
                names.join(" | ")
            }
        }
    }

    /// The service, and its backend if one takes it.
    fn pick<'s, 'c>(&self, side: &'s Side<'c>, number: u64) -> Option<(&'s Picker<'c>, usize)> {
        let Self::Services(targets, source) = self else { return None };
        let chosen = match targets.as_slice() {
            [only] => only.0,
            several => {
                let hash = hash_key(&key(number, source), 0);
                // Without any weight the first has all, as on the data path.
                several[choose_split_target(hash, several.iter().map(|target| (target.1, target.2))).unwrap_or(0)].0
            }
        };
        let picker = &side.pickers[chosen];
        Some((picker, picker.pick(number)?))
    }
}

/// Requests of one kind, before and after.
struct Pair {
    listener: String,
    route: String,
    from: Target,
    to: Target,
}

/// Compares requests as they are routed; `services`: what the change does to each service by itself.
pub(super) fn routes(old: &Side<'_>, new: &Side<'_>, services: &[ServicePlan]) -> Vec<RoutePlan> {
    let mut pairs = Vec::new();
    for listener in &old.config.listeners {
        of_listener(listener, successor(listener, new.config), &mut pairs);
    }
    let mut known: BTreeMap<(Target, Target), Movement> = BTreeMap::new();
    let keys = (KEYS_ALL / pairs.len().max(1)).clamp(KEYS_MIN, KEYS_MAX);
    pairs
        .into_iter()
        .map(|pair| {
            let (from, to) = (pair.from.name(old), pair.to.name(new));
            let movement = known
                .entry((pair.from.clone(), pair.to.clone()))
                .or_insert_with(|| compare((old, &pair.from), (new, &pair.to), services, keys));
            RoutePlan { listener: pair.listener, route: pair.route, from, to, movement: movement.clone() }
        })
        .collect()
}

/// Clients know an address, not a name. Those whose port the kernel chooses have nothing but their name.
fn successor<'c>(listener: &Listener, new: &'c Config) -> Option<&'c Listener> {
    let datagrams = |listener: &Listener| matches!(listener.protocol, Protocol::Udp(_));
    new.listeners.iter().find(|other| {
        let same = listener.address == other.address && (listener.address.port() != 0 || listener.name == other.name);
        same && datagrams(listener) == datagrams(other)
    })
}

fn of_listener(old: &Listener, new: Option<&Listener>, pairs: &mut Vec<Pair>) {
    let mut add = |route: String, from: Target, to: Target| {
        pairs.push(Pair { listener: old.name.clone(), route, from, to });
    };
    let new = new.map(|new| &new.protocol);
    match (&old.protocol, new) {
        (Protocol::Http(http), Some(Protocol::Http(other))) => {
            for (before, after) in classes::pairs(&http.routes, &other.routes, old.tls.is_some()) {
                let (before, after) = (before.map(|at| &http.routes[at]), after.map(|at| &other.routes[at]));
                if let Some(route) = before {
                    add(words::route(route, Values::Shown), Target::of(before), Target::of(after));
                }
            }
        }
        (Protocol::Http(http), _) => {
            http.routes
                .iter()
                .for_each(|route| add(words::route(route, Values::Shown), Target::of(Some(route)), Target::Nobody));
        }
        (Protocol::Tcp(tcp), new) => {
            let other = match new {
                Some(Protocol::Tcp(other)) => Some(other),
                Some(Protocol::Http(_) | Protocol::Udp(_)) | None => None,
            };
            let names = other.into_iter().chain([tcp]).flat_map(|tcp| &tcp.names);
            let mut names: Vec<String> = names.map(|(name, _)| one_name(name)).chain([String::new()]).collect();
            names.sort_unstable();
            names.dedup();
            let table = |tcp: &TcpListener| NameTable::new(tcp.names.iter().map(|(name, _)| name));
            let (table, other) = (table(tcp), other.map(|other| (other, table(other))));
            for name in names {
                let to = other.as_ref().map_or(Target::Nobody, |(other, table)| of_name(other, table, &name));
                let route = if name.is_empty() { "any connection".to_owned() } else { format!("server name {name}") };
                add(route, of_name(tcp, &table, &name), to);
            }
        }
        (Protocol::Udp(udp), new) => {
            let to = match new {
                Some(Protocol::Udp(other)) => Target::service(other.service),
                Some(Protocol::Http(_) | Protocol::Tcp(_)) | None => Target::Nobody,
            };
            add("any datagram".to_owned(), Target::service(udp.service), to);
        }
    }
}

/// A name that matches and has nothing else to it.
fn one_name(name: &HostMatch) -> String {
    match name {
        HostMatch::Exact(name) => name.clone(),
        HostMatch::Suffix(suffix) => format!("zz-nobodys-name{suffix}"),
    }
}

fn of_name(tcp: &TcpListener, names: &NameTable, name: &str) -> Target {
    crate::l4::tcp::service_of(tcp, names, Some(name)).map_or(Target::Nobody, Target::service)
}

/// What moves from one target to another. What no backend took has nothing to lose.
fn compare(
    (old, from): (&Side<'_>, &Target),
    (new, to): (&Side<'_>, &Target),
    services: &[ServicePlan],
    keys: usize,
) -> Movement {
    if let (Target::Services(one, _), Target::Services(other, _)) = (from, to)
        && let ([one], [other]) = (one.as_slice(), other.as_slice())
        && old.config.services[one.0].name == new.config.services[other.0].name
        // Plans are in the order of the new configuration.
        && let Some(plan) = services.get(other.0)
    {
        return named(&plan.movement, &plan.name);
    }
    let mut flows: BTreeMap<(String, String), usize> = BTreeMap::new();
    for number in 0..keys as u64 {
        let (before, after) = (from.pick(old, number), to.pick(new, number));
        if !stays(before, after) {
            *flows.entry((label(before), label(after))).or_default() += 1;
        }
    }
    let method = match (from, to) {
        (Target::Services(..), Target::Services(..)) => Method::Sampled(keys as u32),
        _ => Method::Exact,
    };
    let mut movement = Movement { method, ..Movement::default() };
    for ((from, to), count) in flows {
        let share = count as f64 / keys as f64;
        movement.moved += share;
        movement.moves.push(Move { from, to, share });
    }
    movement.moves.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| (&a.from, &a.to).cmp(&(&b.from, &b.to))));
    movement
}

/// The service and its backend that take a request; `None`: no backend does.
type Picked<'s, 'c> = Option<(&'s Picker<'c>, usize)>;

/// In one service a backend is its id, wherever it is now; from service to service it is its address.
fn stays(before: Picked<'_, '_>, after: Picked<'_, '_>) -> bool {
    let (Some((one, slot)), Some((other, other_slot))) = (before, after) else { return before.is_none() };
    if one.service.name != other.service.name {
        return one.ids[slot].1 == other.ids[other_slot].1;
    }
    // Without keys no request has a backend that could be another.
    one.backend_set.is_none() || other.backend_set.is_none() || one.ids[slot].0 == other.ids[other_slot].0
}

fn label(picked: Picked<'_, '_>) -> String {
    picked.map_or_else(|| NOBODY.to_owned(), |(picker, slot)| format!("{}/{}", picker.service.name, picker.ids[slot].0))
}

/// A service's own movement, as a route's.
fn named(movement: &Movement, service: &str) -> Movement {
    let label = |id: &str| if id == NOBODY { NOBODY.to_owned() } else { format!("{service}/{id}") };
    let moves = movement.moves.iter();
    let moves = moves.map(|flow| Move { from: label(&flow.from), to: label(&flow.to), share: flow.share }).collect();
    Movement { moved: movement.moved, moves, method: movement.method }
}
