use super::services::takers;
use super::*;
use crate::routes::RouteTable;
use crate::routing::hash_key::{self, KeyInput};
use crate::snapshot::shadow::group_of;
use ringway_config::model::{HttpListener, Route, Service};
use ringway_http1::{Limits, RequestHead, parse_request};
use ringway_ring::{Pick, PickContext};
use std::collections::BTreeMap;

fn config(text: &str) -> Config {
    match ringway_config::load_str("test", text, &|_| None) {
        Ok(loaded) => loaded.config,
        Err(diagnostics) => panic!("{diagnostics}\n{text}"),
    }
}

/// Draws that a seed repeats.
struct Draws(u64);

impl Draws {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = ringway_ring::hash_key(&self.0.to_le_bytes(), 7);
        self.0 % most
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }

    /// A condition with its separator, or nothing.
    fn maybe(&mut self, name: &str, values: &[&str]) -> String {
        if self.below(2) == 0 { format!("{name}: {}, ", self.of(values)) } else { String::new() }
    }
}

const HOSTS: [&str; 3] = ["a.example", "\"*.example\"", "b.a.example"];
const PATHS: [&str; 3] = ["/x", "/x/y", "/"];
const SERVICES: [&str; 4] = ["one", "two", "three", "four"];

fn a_route(draws: &mut Draws) -> String {
    let host = draws.maybe("host", &HOSTS);
    let path = if draws.below(2) == 0 { draws.maybe("path", &PATHS) } else { draws.maybe("path_prefix", &PATHS) };
    let methods = draws.maybe("methods", &["[ GET ]", "[ POST, GET ]"]);
    let headers = draws.maybe("headers", &["[ { name: x-beta } ]", "[ { name: x-beta, value: \"1\" } ]"]);
    let target = if draws.below(3) == 0 {
        let weights = (draws.below(90) + 1, draws.below(90) + 1);
        format!("split: [ {{ service: one, weight: {} }}, {{ service: two, weight: {} }} ]", weights.0, weights.1)
    } else {
        format!("service: {}", draws.of(&SERVICES))
    };
    format!("{{ match: {{ {host}{path}{methods}{headers} }}, {target} }}")
}

fn a_service(draws: &mut Draws, name: &str) -> String {
    let policy = draws.of(&["ring", "maglev, table_size: 1021", "hrw"]);
    let mut backends = String::new();
    for (index, id) in ["a", "b", "c", "d"].iter().enumerate() {
        let drain = if draws.below(6) == 0 { ", drain: true" } else { "" };
        if index == 0 || draws.below(3) > 0 {
            let weight = draws.of(&["100", "50"]);
            backends.push_str(&format!("{{ id: {id}, address: \"10.0.0.{index}:1\", weight: {weight}{drain} }}, "));
        }
    }
    format!(
        "{{ name: {name}, balance: {{ policy: {policy}, hash_key: [ {{ header: x-key }} ] }}, backends: [ {backends} ] }}"
    )
}

/// Routes and services, of which some are as they were.
fn edited(draws: &mut Draws, parts: &mut (Vec<String>, Vec<String>)) -> String {
    for (service, name) in parts.1.iter_mut().zip(SERVICES) {
        if service.is_empty() || draws.below(3) == 0 {
            *service = a_service(draws, name);
        }
    }
    match draws.below(4) {
        0 if parts.0.len() > 1 => drop(parts.0.remove(0)),
        1 => parts.0.swap(0, 1),
        2 => parts.0.insert(0, a_route(draws)),
        _ => {
            let last = parts.0.len() - 1;
            parts.0[last] = a_route(draws);
        }
    }
    format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:8080\", routes: [ {} ] }} ]\nservices: [ {} ]\n",
        parts.0.join(", "),
        parts.1.join(", ")
    )
}

fn http(config: &Config) -> &HttpListener {
    match &config.listeners[0].protocol {
        Protocol::Http(http) => http,
        Protocol::Tcp(_) | Protocol::Udp(_) => panic!("it speaks HTTP"),
    }
}

/// A configuration that serves, by the code that serves.
struct Serving<'c> {
    config: &'c Config,
    groups: Vec<(ringway_ring::BackendSet, Vec<(String, String)>)>,
}

impl<'c> Serving<'c> {
    fn new(config: &'c Config) -> Self {
        let group = |service: &Service| {
            let list = service.backends.iter().map(|backend| (backend.id.clone(), backend.address.to_string()));
            let mut ids: Vec<(String, String)> = list.collect();
            ids.sort();
            (group_of(service).unwrap(), ids)
        };
        Self { config, groups: config.services.iter().map(|service| group(service)).collect() }
    }

    fn route<'r>(&'r self, buffer: &[u8], head: &RequestHead) -> Option<(usize, &'r Route)> {
        let routes = &http(self.config).routes;
        RouteTable::new(routes).find(routes, buffer, head, false).map(|at| (at, &routes[at]))
    }

    /// The service's name, and its backend's id and address.
    fn backend(&self, route: &Route, buffer: &[u8], head: &RequestHead) -> Option<(String, String, String)> {
        let client = "192.0.2.1".parse().unwrap();
        let input =
            KeyInput { buffer, head: Some(head), client, secure: false, server_name: None, connection_id: None };
        let mut bytes = Vec::new();
        let mut service = route.service;
        if let Some(split) = &route.split {
            assert!(hash_key::extract(&split.key, &input, &mut bytes));
            let targets = split.targets.iter().map(|target| (target.salt, target.weight));
            let target = ringway_ring::choose_split_target(ringway_ring::hash_key(&bytes, 0), targets).unwrap();
            service = split.targets[target].service;
        }
        let (found, (group, ids)) = (&self.config.services[service], &self.groups[service]);
        takers(found).next()?;
        assert!(hash_key::extract(&found.hash_key, &input, &mut bytes));
        let slot = group.taker(ringway_ring::hash_key(&bytes, found.policy.seed()))?;
        let (id, address) = &ids[usize::from(slot.0)];
        Some((found.name.clone(), id.clone(), address.clone()))
    }
}

/// Every kind of request that there is, each with many keys: what share of them another backend takes, by the routes that
/// they come to.
fn counted(old: &Config, new: &Config) -> BTreeMap<(usize, Option<usize>), f64> {
    let (before, after) = (Serving::new(old), Serving::new(new));
    let mut counts: BTreeMap<(usize, Option<usize>), (u32, u32)> = BTreeMap::new();
    let mut head = RequestHead::default();
    for host in ["a.example", "b.a.example", "c.example", "other"] {
        for path in ["/x", "/x/y", "/x/y/z", "/", "/w"] {
            for method in ["GET", "POST", "PUT"] {
                for beta in ["", "X-Beta: 1\r\n", "X-Beta: 2\r\n"] {
                    for number in 0..60 {
                        let keyed = format!("X-Key: {host}{path}{method}{beta}{number}").replace("\r\n", "");
                        let text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{beta}{keyed}\r\n\r\n");
                        let buffer = text.as_bytes();
                        assert!(parse_request(buffer, &Limits::default(), &mut head).unwrap());
                        let Some((from, one)) = before.route(buffer, &head) else { continue };
                        let to = after.route(buffer, &head);
                        let was = before.backend(one, buffer, &head);
                        let is = to.and_then(|(_, route)| after.backend(route, buffer, &head));
                        let stays = match (&was, &is) {
                            (Some(was), Some(is)) if was.0 == is.0 => was.1 == is.1,
                            (Some(was), Some(is)) => was.2 == is.2,
                            (was, _) => was.is_none(),
                        };
                        let count = counts.entry((from, to.map(|(at, _)| at))).or_default();
                        count.0 += 1;
                        count.1 += u32::from(!stays);
                    }
                }
            }
        }
    }
    counts.into_iter().map(|(pair, (all, moved))| (pair, f64::from(moved) / f64::from(all))).collect()
}

#[test]
fn what_moves_of_requests_is_what_routing_many_of_them_counts() {
    let (mut compared, mut moving) = (0, 0);
    for seed in 0..15 {
        let mut draws = Draws(seed);
        let routes = (0..3).map(|_| a_route(&mut draws)).collect();
        let mut parts = (routes, vec![String::new(); SERVICES.len()]);
        let old = config(&edited(&mut draws, &mut parts));
        let new = config(&edited(&mut draws, &mut parts));
        let plan = plan(&old, &new, Scope::Whole).unwrap();
        let pairs = classes::pairs(&http(&old).routes, &http(&new).routes, false);
        let pairs: Vec<_> = pairs.into_iter().filter_map(|(from, to)| Some((from?, to))).collect();
        assert_eq!(pairs.len(), plan.routes.len());
        let counted = counted(&old, &new);
        let seen: Vec<_> = counted.keys().copied().collect();
        assert_eq!(pairs, seen, "seed {seed}: the same kinds of requests are found");
        for (pair, found) in pairs.iter().zip(&plan.routes) {
            let (said, is) = (found.movement.moved, counted[pair]);
            // Of 60 keys at the least.
            assert!((said - is).abs() < 0.25, "seed {seed}, {pair:?}: {said} {is}\n{found:?}");
            assert_eq!(said == 0.0, is == 0.0, "seed {seed}, {pair:?}: {said} {is}");
            compared += 1;
            moving += usize::from(said > 0.0);
        }
    }
    assert!(compared > 40 && moving > 20, "{compared} {moving}");
}

fn with(routes: &str, services: &str) -> Config {
    config(&format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:8080\", {routes} }} ]\nservices: [ {services} ]\n"
    ))
}

fn named(name: &str) -> String {
    format!(
        "{{ name: {name}, balance: {{ hash_key: [ {{ header: x-key }} ] }}, \
         backends: [ {{ id: a, address: \"10.0.0.1:1\" }}, {{ id: b, address: \"10.0.0.2:1\" }} ] }}"
    )
}

#[test]
fn a_service_that_is_renamed_keeps_its_requests_only_where_routes_follow() {
    let old = with("service: s", &named("s"));
    let followed = plan(&old, &with("service: t", &named("t")), Scope::Fleet).unwrap();
    assert_eq!(followed.moved(), 0.0, "{followed:?}");
    assert_eq!(followed.services.last().unwrap().successor.as_deref(), Some("t"));
    // Its routes are in files that are not seen here.
    let unseen = |name: &str| {
        let text = format!("services: [ {} ]\n", named(name));
        let document = ringway_config::FleetText { name: "main".into(), text };
        let fleet = ringway_config::FleetConfig { documents: vec![document], ..Default::default() };
        ringway_config::check_fleet(&fleet).unwrap().config
    };
    let moved = plan(&unseen("s"), &unseen("t"), Scope::Fleet).unwrap();
    assert_eq!((moved.moved(), moved.services.last().unwrap().kind), (1.0, "removed"));
    assert_eq!(plan(&unseen("s"), &unseen("t"), Scope::Whole).unwrap().moved(), 0.0, "nobody led to it");
}

#[test]
fn listeners_connections_and_empty_services_count_as_routes_do() {
    let tcp = |address: &str, tail: &str| {
        let listener = format!("{{ name: raw, address: \"{address}\", protocol: tcp, {tail} }}");
        let keyless = |name: &str| {
            named(name).replace("balance: { hash_key: [ { header: x-key } ] }", "balance: { policy: least_request }")
        };
        let empty = "{ name: gone, backends: [ { id: a, address: \"10.0.0.1:1\", drain: true } ] }";
        config(&format!("listeners: [ {listener} ]\nservices: [ {}, {}, {empty} ]\n", keyless("s"), keyless("t")))
    };
    let old = tcp("127.0.0.1:1", "service: s");
    let moved = |new: &Config| plan(&old, new, Scope::Whole).unwrap().moved();
    assert_eq!(moved(&tcp("127.0.0.1:1", "service: t")), 0.0, "the same backends");
    assert_eq!(moved(&tcp("127.0.0.1:2", "service: s")), 1.0, "clients know the address");
    assert_eq!(moved(&tcp("127.0.0.1:1", "service: gone")), 1.0);
    let web = |route: &str| with(&format!("routes: [ {{ {route} }} ]"), &format!("{}, {}", named("s"), named("t")));
    let http = web("service: s");
    let redirected = plan(&http, &web("redirect: { status: 301, host: a.example }"), Scope::Whole).unwrap();
    assert_eq!(redirected.moved(), 1.0);
    let shared = |weights: (u32, u32)| {
        let split =
            format!("split: [ {{ service: s, weight: {} }}, {{ service: u, weight: {} }} ]", weights.0, weights.1);
        with(
            &format!("routes: [ {{ {split} }} ]"),
            &format!("{}, {}", named("s"), named("u").replace("10.0.0", "10.0.1")),
        )
    };
    let plan = plan(&shared((100, 10)), &shared((10, 100)), Scope::Whole).unwrap();
    assert!((plan.moved() - 90.0 / 110.0).abs() < 0.01, "{plan:?}");
    assert_eq!(plan.services.iter().map(|service| service.movement.moved).sum::<f64>(), 0.0, "keys stay in each");
}

/// Who takes keys on the data path, as a registry builds it.
fn takers_of(config: &Config, keys: u64) -> Vec<String> {
    let registry = crate::snapshot::Registry::default();
    let now = crate::ambient::now();
    let snapshot = registry.prepare(std::sync::Arc::new(config.clone()), 1, 1, now).unwrap();
    registry.commit(&snapshot, now);
    registry.settle(&snapshot);
    let service = &snapshot.services[0];
    let ids = service.ids();
    let take = |key: u64| {
        let hash = ringway_ring::hash_key(&key.to_le_bytes(), service.config.policy.seed());
        let mut selection = service.backend_set.begin(PickContext { hash, chance: 0, now_millis: 1, owners: 0 });
        let Pick::Backend(slot) = service.backend_set.next(&mut selection, 0) else { panic!("nobody takes {key}") };
        service.backend_set.release(slot, 0);
        ids[usize::from(slot.0)].to_owned()
    };
    (0..keys).map(take).collect()
}

#[test]
fn what_a_drain_moves_is_what_moves_on_the_data_path() {
    const KEYS: u64 = 4_000;
    let service = |policy: &str, backends: [&str; 5]| {
        let backends: Vec<String> = backends
            .iter()
            .enumerate()
            .map(|(at, fields)| format!("{{ id: b{at}, address: \"10.0.0.{}:1\", {fields} }}", at + 1))
            .collect();
        let balance = format!("balance: {{ policy: {policy}, hash_key: [ {{ header: x-key }} ] }}");
        with("service: s", &format!("{{ name: s, {balance}, backends: [ {} ] }}", backends.join(", ")))
    };
    let (tier, drain) = ("tier: 1", "drain: true");
    for policy in ["ring", "maglev, table_size: 1021", "hrw"] {
        for (before, after) in [
            (["", "", "", "", ""], [drain, "", "", "", ""]),
            ([drain, "", "", "", ""], ["", "", "maintenance: true", "", ""]),
            (["", "", "", tier, tier], [drain, "", "", tier, tier]),
            (["", "", "", tier, tier], [drain, drain, drain, tier, tier]),
            ([drain, drain, drain, tier, tier], ["weight: 0", drain, "", tier, "tier: 1, drain: true"]),
        ] {
            let (old, new) = (service(policy, before), service(policy, after));
            let plan = plan(&old, &new, Scope::Whole).unwrap();
            let (from, to) = (takers_of(&old, KEYS), takers_of(&new, KEYS));
            let moved = from.iter().zip(&to).filter(|(from, to)| from != to).count() as f64 / KEYS as f64;
            for said in [plan.services[0].movement.moved, plan.routes[0].movement.moved] {
                assert!((said - moved).abs() < 0.05, "{policy} {before:?} {after:?}: {said} {moved}");
            }
            for (id, _, share) in &plan.services[0].shares {
                let has = to.iter().filter(|taker| *taker == id).count() as f64 / KEYS as f64;
                assert!((share - has).abs() < 0.05, "{policy} {after:?} {id}: {share} {has}");
                assert_eq!(*share == 0.0, has == 0.0, "{policy} {after:?} {id}: {share} {has}");
            }
        }
    }
}
