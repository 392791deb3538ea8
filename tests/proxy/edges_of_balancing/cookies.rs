//! Affinity cookies of backends that take nothing new.

use crate::common::control::{Cluster, FleetProxy};
use crate::common::*;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

const SECRET: &str = "0123456789abcdef";

/// A client with one cookie, as browsers keep them.
struct Client {
    listen: SocketAddr,
    cookie: String,
}

impl Client {
    /// One that comes for the first time.
    fn new(listen: SocketAddr) -> Self {
        let mut client = Self { listen, cookie: String::new() };
        client.get();
        assert!(!client.cookie.is_empty(), "it got none");
        client
    }

    fn ask(&mut self) -> Answer {
        let field = if self.cookie.is_empty() { String::new() } else { format!("Cookie: {}\r\n", self.cookie) };
        let answer = get_with(self.listen, "/", &field).or_not_yet();
        if let Some(set) = answer.header("set-cookie") {
            self.cookie = set.split(';').next().unwrap().to_owned();
        }
        answer
    }

    /// Who answers it.
    fn get(&mut self) -> String {
        self.ask().text()
    }
}

fn config(listen: SocketAddr, fleet: &[(&'static str, Backend)], policy: &str, cookie: &str, service: &str) -> String {
    // Whoever is asked for until something happens would be hot on a fast machine.
    let service = format!(
        "balance: {{ policy: {policy}, hot_keys: {{ enabled: false }}, affinity_cookie: {{ secret: {SECRET}{cookie} }} }}\n\
         panic_threshold: 0\n{service}"
    );
    simple(listen, &service, &targets(fleet))
}

fn drain(config: &str, id: &str, how: &str) -> String {
    config.replace(&format!("id: {id},"), &format!("id: {id}, {how},"))
}

/// Clients, so many of each backend.
fn clients(listen: SocketAddr, each: usize, backends: &[&str]) -> Vec<(String, Client)> {
    let mut found: Vec<(String, Client)> = Vec::new();
    wait_for("clients of every backend", || {
        let mut client = Client::new(listen);
        let id = client.get();
        if found.iter().filter(|(other, _)| *other == id).count() < each {
            found.push((id, client));
        }
        (found.len() == each * backends.len()).then_some(())
    });
    found
}

/// Whom new clients meet, and whom they meet the next time.
fn newcomers(listen: SocketAddr) -> BTreeSet<String> {
    let mut met = BTreeSet::new();
    for _ in 0..40 {
        let mut client = Client::new(listen);
        met.extend([client.get(), client.get()]);
    }
    met
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn clients_of_a_drained_backend_stay_and_new_ones_go_elsewhere() {
    for policy in ["round_robin", "least_request", "ring", "maglev"] {
        let fleet = echoes(3);
        let listen = free_address();
        let plain = config(listen, &fleet, policy, "", "");
        let ringway = Ringway::start(&plain);
        let mut bound = clients(listen, 2, &["a", "b", "c"]);
        ringway.reconfigure(&drain(&plain, "a", "drain: true"));
        assert_eq!(backend_status(&ringway, "a")["state"], "drained");
        assert_eq!(backend_status(&ringway, "a")["keeps_clients"], true);
        for (id, client) in &mut bound {
            for _ in 0..5 {
                assert_eq!(client.get(), *id, "{policy}: its backend is drained, not gone");
            }
        }
        assert_eq!(newcomers(listen), set(&["b", "c"]), "{policy}");
        assert!(ringway.metric("ringway_drained_kept_requests_total{service=\"s\"}") >= 10.0);
        // Back again, it is as before.
        ringway.reconfigure(&plain);
        assert_eq!(backend_status(&ringway, "a")["keeps_clients"], false);
        bound.iter_mut().for_each(|(id, client)| assert_eq!(client.get(), *id, "{policy}"));
        // Gone from the configuration, it keeps nobody.
        let line = plain.lines().find(|line| line.contains("id: a,")).unwrap();
        ringway.reconfigure(&plain.replace(line, ""));
        for (id, client) in &mut bound {
            let met = client.get();
            assert!(if id == "a" { met != "a" } else { met == *id }, "{policy}: {id} became {met}");
            assert_eq!(client.get(), met, "and stays there");
        }
    }
}

#[test]
fn drain_timeout_moves_clients_once_and_for_all() {
    for policy in ["round_robin", "ring"] {
        let fleet = echoes(3);
        let listen = free_address();
        let timeout = (1_000.0 * slowness()) as u64;
        let plain = config(listen, &fleet, policy, "", &format!("drain_timeout: {timeout}ms"));
        let ringway = Ringway::start(&plain);
        let mut bound = clients(listen, 1, &["a", "b", "c"]);
        ringway.reconfigure(&drain(&plain, "a", "drain: true"));
        let of_a = bound.iter_mut().find(|(id, _)| id == "a").map(|(_, client)| client).unwrap();
        assert_eq!(of_a.get(), "a");
        let met = wait_for("the end of its time", || Some(of_a.get()).filter(|met| met != "a"));
        for _ in 0..5 {
            assert_eq!(of_a.get(), met, "{policy}: it has a new home");
        }
        assert_eq!(backend_status(&ringway, "a")["last_change"]["to"], "clients_moved");
        for (id, client) in bound.iter_mut().filter(|(id, _)| id != "a") {
            assert_eq!(client.get(), *id);
        }
        // A drain that begins anew has its time anew.
        ringway.reconfigure(&plain);
        let mut again = clients(listen, 1, &["a", "b", "c"]);
        ringway.reconfigure(&drain(&plain, "a", "drain: true"));
        let of_a = again.iter_mut().find(|(id, _)| id == "a").map(|(_, client)| client).unwrap();
        assert_eq!(of_a.get(), "a");
    }
}

#[test]
fn maintenance_and_on_drain_move_take_a_drained_backends_clients_away_at_once() {
    for policy in ["p2c", "ring"] {
        for (cookie, how) in [(", on_drain: move", "drain: true"), ("", "maintenance: true")] {
            let fleet = echoes(3);
            let listen = free_address();
            let plain = config(listen, &fleet, policy, cookie, "");
            let ringway = Ringway::start(&plain);
            let mut bound = clients(listen, 1, &["a", "b", "c"]);
            // The drain that it is forced out of keeps them.
            if how.starts_with("maintenance") {
                ringway.reconfigure(&drain(&plain, "a", "drain: true"));
                bound.iter_mut().for_each(|(id, client)| assert_eq!(client.get(), *id));
            }
            ringway.reconfigure(&drain(&plain, "a", how));
            for (id, client) in &mut bound {
                let met = client.get();
                assert!(if id == "a" { met != "a" } else { met == *id }, "{policy}, {how}: {id} became {met}");
            }
            assert_eq!(newcomers(listen), set(&["b", "c"]));
        }
    }
}

#[test]
fn weight_of_nothing_keeps_the_clients_of_cookies_that_name_a_backend() {
    let fleet = echoes(3);
    let listen = free_address();
    let plain = config(listen, &fleet, "round_robin", "", "");
    let ringway = Ringway::start(&plain);
    let mut bound = clients(listen, 1, &["a", "b", "c"]);
    ringway.reconfigure(&drain(&plain, "a", "weight: 0"));
    bound.iter_mut().for_each(|(id, client)| assert_eq!(client.get(), *id));
    assert_eq!(newcomers(listen), set(&["b", "c"]));
}

#[test]
fn drained_backend_that_goes_down_or_is_ejected_loses_its_clients_at_once() {
    for policy in ["round_robin", "ring"] {
        let mut fleet = echoes(2);
        // Lives until it is told otherwise.
        let ill = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ill);
        fleet.push((
            "c",
            scripted(move |_| match seen.load(SeqCst) {
                true => response("500 Internal Server Error", "", "ill"),
                false => response("200 OK", "", "c"),
            }),
        ));
        let listen = free_address();
        let service = "outlier: { consecutive_failures: 2, base_ejection: 4m, max_ejection_percent: 0 }";
        let plain = config(listen, &fleet, policy, "", service);
        let ringway = Ringway::start(&plain);
        let mut bound = clients(listen, 1, &["a", "b", "c"]);
        ringway.reconfigure(&drain(&plain, "c", "drain: true"));
        let of_c = bound.iter_mut().find(|(id, _)| id == "c").map(|(_, client)| client).unwrap();
        assert_eq!(of_c.get(), "c");
        ill.store(true, SeqCst);
        let met = wait_for("another backend", || Some(of_c.get()).filter(|met| met != "ill"));
        assert_ne!(met, "c");
        assert_eq!(of_c.get(), met);
    }
}

#[test]
fn kept_clients_count_on_their_drained_backend_and_widen_nobodys_bound() {
    let gate = Arc::new(Mutex::new(()));
    let slow = |name: &'static str| {
        let gate = Arc::clone(&gate);
        scripted(move |head| {
            if head.starts_with("GET /slow") {
                drop(gate.lock());
            }
            response("200 OK", "", name)
        })
    };
    let fleet = [("a", slow("a")), ("b", slow("b")), ("c", slow("c"))];
    let listen = free_address();
    let plain = config(listen, &fleet, "ring", "", "");
    let plain = plain.replace("policy: ring,", "policy: ring, bounded_load: { preset: strict },");
    let ringway = Ringway::start(&plain);
    let bound = clients(listen, 1, &["a", "b", "c"]);
    let cap_before = backend_status(&ringway, "b")["cap"].as_u64().unwrap();
    ringway.reconfigure(&drain(&plain, "a", "drain: true"));
    let cookie = &bound.iter().find(|(id, _)| id == "a").unwrap().1.cookie;
    let field = format!("Cookie: {cookie}\r\n");
    let closed = gate.lock().unwrap();
    let running: Vec<_> = (0..12)
        .map(|_| {
            let field = field.clone();
            std::thread::spawn(move || get_with(listen, "/slow", &field).unwrap().text())
        })
        .collect();
    wait_for("requests on the drained backend", || (backend_status(&ringway, "a")["in_flight"] == 12).then_some(()));
    let cap = backend_status(&ringway, "b")["cap"].as_u64().unwrap();
    assert!(
        cap <= cap_before + 1,
        "{cap} from {cap_before}: what a drained backend carries is not the others' to share"
    );
    drop(closed);
    for thread in running {
        assert_eq!(thread.join().unwrap(), "a");
    }
}

#[test]
fn what_a_fleet_drains_keeps_its_clients_and_what_it_has_in_maintenance_does_not() {
    let cluster = Cluster::of(1, "");
    let proxies = ["p", "q"].map(|name| FleetProxy::start(&cluster, name, ""));
    let fleet = echoes(3);
    let text = format!(
        "services: [ {{ name: s, balance: {{ policy: round_robin, affinity_cookie: {{ secret: {SECRET} }} }} }} ]\n"
    );
    let applied = cluster.control(&["apply", &cluster.write("f.yaml", &text), "--yes"]);
    assert!(applied.status.success(), "{applied:?}");
    for (id, address) in targets(&fleet) {
        assert!(cluster.control(&["backend", "add", "s", id, &address.to_string()]).status.success());
    }
    let all_are = |id: &str, state: &str, keeps: bool| {
        wait_for(&format!("{id} to be {state}"), || {
            let is = |proxy: &FleetProxy| {
                let status = proxy.ringway.status();
                let backends = status["services"][0]["backends"].as_array()?.clone();
                let backend = backends.into_iter().find(|backend| backend["id"] == id)?;
                Some(backend["state"] == state && backend["keeps_clients"] == keeps)
            };
            proxies.iter().all(|proxy| is(proxy) == Some(true)).then_some(())
        });
    };
    ["a", "b", "c"].iter().for_each(|id| all_are(id, "up", false));
    let mut bound = clients(proxies[0].listen, 1, &["a", "b", "c"]);
    let of_a = bound.iter_mut().find(|(id, _)| id == "a").map(|(_, client)| client).unwrap();
    assert!(cluster.control(&["backend", "drain", "s", "a"]).status.success());
    all_are("a", "drained", true);
    // Every proxy of the fleet knows the cookie, and that its backend keeps him.
    for proxy in proxies.iter().chain(&proxies) {
        of_a.listen = proxy.listen;
        assert_eq!(of_a.get(), "a");
        assert_eq!(newcomers(proxy.listen), set(&["b", "c"]));
    }
    assert!(cluster.control(&["backend", "maintenance", "s", "a"]).status.success());
    all_are("a", "drained", false);
    let met = of_a.get();
    assert!(met != "a" && of_a.get() == met);
}
