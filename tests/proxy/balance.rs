//! Bounded loads, limits and turns, as requests meet them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
use crate::common::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Answers when it is let, and knows how many requests it had at once.
struct Gated {
    backend: Backend,
    most: Arc<AtomicUsize>,
    open: Arc<Mutex<bool>>,
}

fn gated(name: &'static str) -> Gated {
    gated_on(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), name)
}

fn gated_on(listener: std::net::TcpListener, name: &'static str) -> Gated {
    let (most, now, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(false)));
    let (most_seen, gate) = (Arc::clone(&most), Arc::clone(&open));
    let backend = Backend::on(listener, move |mut stream, _| {
        while read_request(&mut stream).is_some() {
            most_seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            wait_for("leave to answer", || gate.lock().unwrap().then_some(()));
            now.fetch_sub(1, Ordering::SeqCst);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    Gated { backend, most, open }
}

fn fleet() -> Vec<Gated> {
    vec![gated("a"), gated("b"), gated("c"), gated("d")]
}

fn addresses(fleet: &[Gated]) -> Vec<(&'static str, SocketAddr)> {
    ["a", "b", "c", "d"].into_iter().zip(fleet).map(|(id, gated)| (id, gated.backend.address)).collect()
}

fn request(listen: SocketAddr, key: usize) -> std::net::TcpStream {
    send(listen, format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nConnection: close\r\n\r\n").as_bytes())
}

fn in_flight(ringway: &Ringway) -> u64 {
    ringway.status()["services"][0]["in_flight"].as_u64().unwrap()
}

#[test]
fn no_backend_passes_its_bound_and_what_does_not_fit_is_spilled() {
    let fleet = fleet();
    let listen = free_address();
    let service = "balance: { hash_key: [ { header: x-key } ], bounded_load: { factor: 1.25, preset: strict } }\n\
                   timeouts: { response: 60s }";
    let ringway = Ringway::start(&simple(listen, service, &addresses(&fleet)));
    // One key for all: without a bound one backend would get them all.
    let requests: Vec<_> = (0..40).map(|_| request(listen, 1)).collect();
    wait_for("all to be in flight", || (in_flight(&ringway) == 40).then_some(()));
    let loads: Vec<u64> = ringway.status()["services"][0]["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backend| backend["in_flight"].as_u64().unwrap())
        .collect();
    // ceil(1.25 * 40 / 4) = 13.
    assert!(loads.iter().all(|load| *load <= 13) && loads.iter().sum::<u64>() == 40, "{loads:?}");
    fleet.iter().for_each(|gated| *gated.open.lock().unwrap() = true);
    for mut stream in requests {
        assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);
    }
    assert!(fleet.iter().all(|gated| gated.most.load(Ordering::SeqCst) <= 13));
    wait_for("the load to be given back", || (in_flight(&ringway) == 0).then_some(()));
    let spills = ringway.metric("ringway_spills_total{service=\"s\"}");
    assert!(spills >= 20.0);
    // Each was taken by some backend, and by none beyond what the owner left.
    let status = ringway.status();
    let taken = status["services"][0]["backends"].as_array().unwrap().iter();
    let taken: Vec<f64> = taken.map(|backend| backend["spills"].as_f64().unwrap()).collect();
    assert!(
        taken.iter().sum::<f64>() == spills && taken.iter().filter(|count| **count > 0.0).count() >= 2,
        "{taken:?}"
    );
    let told = ringway.metric("ringway_backend_spills_total{service=\"s\",backend=\"b\"}");
    assert_eq!(told, status["services"][0]["backends"][1]["spills"].as_f64().unwrap());
}

/// The fair share is near nothing then: a cap of one would take apart what belongs together.
#[test]
fn two_requests_of_one_key_at_once_stay_together_in_an_idle_service_however_many_backends_it_has() {
    for (count, preset, spilled) in [(20, "balanced", 0.0), (100, "balanced", 0.0), (20, "strict", 1.0)] {
        // One program, which all of the loopback network leads to.
        let all = gated_on(std::net::TcpListener::bind("0.0.0.0:0").unwrap(), "all");
        let port = all.backend.address.port();
        let ids: Vec<String> = (1..=count).map(|number| format!("b{number}")).collect();
        let address = |number: usize| SocketAddr::from(([127, 0, 7, number as u8], port));
        let backends: Vec<(&str, SocketAddr)> =
            ids.iter().enumerate().map(|(index, id)| (id.as_str(), address(index + 1))).collect();
        let listen = free_address();
        let service = format!(
            "balance: {{ hash_key: [ {{ header: x-key }} ], bounded_load: {{ preset: {preset} }} }}\n\
             timeouts: {{ response: 60s }}"
        );
        let ringway = Ringway::start(&simple(listen, &service, &backends));
        let both = [request(listen, 7), request(listen, 7)];
        wait_for("both to be there", || (all.most.load(Ordering::SeqCst) == 2).then_some(()));
        *all.open.lock().unwrap() = true;
        both.into_iter().for_each(|mut stream| assert_eq!(read_answer(&mut stream, true).unwrap().status, 200));
        // A request is counted after its response has gone.
        let ended = || ringway.metric("ringway_requests_total{service=\"s\",class=\"2xx\"}") == 2.0;
        wait_for("both to be counted", || ended().then_some(()));
        assert_eq!(ringway.metric("ringway_spills_total{service=\"s\"}"), spilled, "{count} backends, {preset}");
    }
}

#[test]
fn a_full_backend_is_skipped_and_when_all_are_full_the_policy_decides() {
    for (all_full, expected) in [("reject", "all_backends_full"), ("queue", "queue_timeout")] {
        let fleet = fleet();
        let listen = free_address();
        let service = format!(
            "balance: {{ hash_key: [ {{ header: x-key }} ], bounded_load: {{ all_full: {all_full}, queue: {{ timeout: 300ms, length_max: 2 }} }} }}\n\
             timeouts: {{ response: 60s }}"
        );
        let config =
            simple(listen, &service, &addresses(&fleet)).replace("      - { id:", "      - { requests_max: 1, id:");
        let ringway = Ringway::start(&config);
        let requests: Vec<_> = (0..4).map(|_| request(listen, 1)).collect();
        wait_for("one request on each", || (in_flight(&ringway) == 4).then_some(()));
        let refused = read_answer(&mut request(listen, 1), true).unwrap();
        assert_eq!((refused.status, refused.header("x-ringway-reason")), (503, Some(expected)));
        // One that waits takes the place of the first that ends.
        let mut waiting = request(listen, 1);
        if all_full == "queue" {
            wait_for("it to wait", || (ringway.status()["services"][0]["waiting"] == 1).then_some(()));
            fleet.iter().for_each(|gated| *gated.open.lock().unwrap() = true);
            assert_eq!(read_answer(&mut waiting, true).unwrap().status, 200);
        }
        fleet.iter().for_each(|gated| *gated.open.lock().unwrap() = true);
        for mut stream in requests {
            assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);
        }
        assert!(fleet.iter().all(|gated| gated.most.load(Ordering::SeqCst) <= 1));
    }
}

#[test]
fn round_robin_follows_weights() {
    let backends: Vec<Backend> = ["a", "b", "c"].iter().map(|name| Backend::echo(name)).collect();
    let listen = free_address();
    let list: Vec<(&str, SocketAddr)> =
        ["a", "b", "c"].into_iter().zip(&backends).map(|(id, b)| (id, b.address)).collect();
    let config = simple(listen, "balance: { policy: round_robin }", &list)
        .replace("id: a,", "id: a, weight: 200,")
        .replace("id: c,", "id: c, weight: 0,");
    let _ringway = Ringway::start(&config);
    let mut counts = BTreeMap::new();
    for _ in 0..30 {
        *counts.entry(get(listen, "/").unwrap().text()).or_insert(0) += 1;
    }
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 20), ("b".to_owned(), 10)]);
}

#[test]
fn drained_backend_gets_no_new_keys_and_keeps_what_it_has() {
    let (slow, other) = (gated("slow"), Backend::echo("other"));
    let listen = free_address();
    let service = "balance: { hash_key: [ { header: x-key } ] }\ntimeouts: { response: 60s }";
    let config = simple(listen, service, &[("slow", slow.backend.address), ("other", other.address)]);
    let ringway = Ringway::start(&config);
    let held: Vec<_> = (0..20).map(|key| request(listen, key)).collect();
    wait_for("requests on the slow one", || (in_flight(&ringway) >= 5).then_some(()));
    ringway.reconfigure(&config.replace("id: slow,", "id: slow, drain: true,"));
    for key in 0..20 {
        assert_eq!(get_with(listen, "/", &format!("X-Key: {key}\r\n")).unwrap().text(), "other");
    }
    let state = ringway.status()["services"][0]["backends"][1].clone();
    assert_eq!((state["id"].as_str(), state["state"].as_str()), (Some("slow"), Some("drained")));
    *slow.open.lock().unwrap() = true;
    for mut stream in held {
        assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);
    }
}

/// What the running proxy says of each backend of the walk: its requests in flight, its cap.
fn caps(ringway: &Ringway) -> BTreeMap<String, (u64, u64)> {
    let explained: serde_json::Value =
        serde_json::from_slice(&get(ringway.admin, "/explain?service=s&key=k").unwrap().body).unwrap();
    let entry = |backend: &serde_json::Value| {
        let number = |name: &str| backend[name].as_u64().unwrap();
        (backend["id"].as_str().unwrap().to_owned(), (number("in_flight"), number("cap")))
    };
    explained["walk"].as_array().unwrap().iter().map(entry).collect()
}

fn on(ringway: &Ringway, id: &str) -> u64 {
    let status = ringway.status();
    let backends = status["services"][0]["backends"].as_array().unwrap();
    let found = backends.iter().find(|backend| backend["id"] == id);
    found.map_or(0, |backend| backend["in_flight"].as_u64().unwrap())
}

const STRICT: &str = "balance: { hash_key: [ { header: x-key } ], bounded_load: { preset: strict, all_full: reject } }\n\
                      timeouts: { response: 60s }";

#[test]
fn backend_that_drains_and_empties_leaves_the_others_their_room() {
    let fleet = fleet();
    let listen = free_address();
    let config = simple(listen, STRICT, &addresses(&fleet));
    let ringway = Ringway::start(&config);
    let mut requests: Vec<_> = (0..40).map(|key| request(listen, key)).collect();
    wait_for("all to be in flight", || (in_flight(&ringway) == 40).then_some(()));
    let drained = on(&ringway, "d");
    assert!(drained > 0);
    ringway.reconfigure(&config.replace("id: d,", "id: d, drain: true,"));
    let expected = |live: u64| (1.25 * (live + 1) as f64 / 3.0).ceil() as u64;
    let check = |what: &str, live: u64| {
        for (id, (_, cap)) in caps(&ringway).into_iter().filter(|(id, _)| id != "d") {
            assert_eq!(cap, expected(live), "{id} {what}");
        }
    };
    check("while it drains", 40 - drained);
    *fleet[3].open.lock().unwrap() = true;
    wait_for("it to be empty", || (on(&ringway, "d") == 0).then_some(()));
    check("when it has drained", 40 - drained);
    // Together the caps leave room for everybody who comes.
    let live = in_flight(&ringway);
    requests.extend((40..52).map(|key| request(listen, key)));
    wait_for("nobody to be refused", || (in_flight(&ringway) == live + 12).then_some(()));
    fleet.iter().for_each(|gated| *gated.open.lock().unwrap() = true);
    for mut stream in requests {
        assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);
    }
}

#[test]
fn sessions_of_a_backend_that_has_gone_widen_nobodys_bound() {
    let fleet = fleet();
    let listen = free_address();
    let config = simple(listen, STRICT, &addresses(&fleet));
    let ringway = Ringway::start(&config);
    let requests: Vec<_> = (0..40).map(|key| request(listen, key)).collect();
    wait_for("all to be in flight", || (in_flight(&ringway) == 40).then_some(()));
    let gone = on(&ringway, "d");
    let line = format!("      - {{ id: d, address: \"{}\" }}\n", fleet[3].backend.address);
    for round in 0..2 {
        ringway.reconfigure(&config.replace(&line, ""));
        let expected = (1.25 * (40 - gone + 1) as f64 / 3.0).ceil() as u64;
        assert!(caps(&ringway).values().all(|(_, cap)| *cap == expected), "{:?} {expected} {round}", caps(&ringway));
        // It comes back, and is not empty.
        ringway.reconfigure(&config);
        assert_eq!(caps(&ringway)["d"], (gone, 13), "{round}");
    }
    fleet.iter().for_each(|gated| *gated.open.lock().unwrap() = true);
    for mut stream in requests {
        assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);
    }
    wait_for("all to have ended", || (in_flight(&ringway) == 0).then_some(()));
    assert!(caps(&ringway).values().all(|(in_flight, cap)| (*in_flight, *cap) == (0, 1)), "{:?}", caps(&ringway));
}

#[test]
fn all_full_holds_for_every_policy_and_limit() {
    let keyed = "hash_key: [ { header: x-key } ], ";
    let policies = ["round_robin", "random", "p2c", "least_request", "peak_ewma", "first", "ring", "maglev", "hrw"];
    for policy in policies {
        let keys = if matches!(policy, "ring" | "maglev" | "hrw") { keyed } else { "" };
        for all_full in ["queue", "reject"] {
            let fleet = [gated("a"), gated("b")];
            let listen = free_address();
            let service = format!(
                "balance: {{ policy: {policy}, {keys}bounded_load: {{ preset: \"off\", all_full: {all_full}, queue: {{ timeout: 60s }} }} }}\n\
                 timeouts: {{ response: 60s }}"
            );
            // One of them is of a tier of its own: a limit is one in every tier.
            let config = simple(listen, &service, &addresses(&fleet))
                .replace("      - { id:", "      - { requests_max: 1, id:")
                .replace("id: b,", "id: b, tier: 1,");
            let ringway = Ringway::start(&config);
            let held: Vec<_> = (0..2).map(|key| request(listen, key)).collect();
            wait_for("one request on each", || (in_flight(&ringway) == 2).then_some(()));
            let mut others: Vec<_> = (2..4).map(|key| request(listen, key)).collect();
            if all_full == "queue" {
                wait_for("them to wait", || (ringway.status()["services"][0]["waiting"] == 2).then_some(()));
            } else {
                for stream in &mut others {
                    let refused = read_answer(stream, true).unwrap();
                    let reason = refused.header("x-ringway-reason");
                    assert_eq!((refused.status, reason), (503, Some("all_backends_full")), "{policy}");
                }
                others.clear();
            }
            fleet.iter().for_each(|gated| *gated.open.lock().unwrap() = true);
            for mut stream in held.into_iter().chain(others) {
                assert_eq!(read_answer(&mut stream, true).unwrap().status, 200, "{policy} {all_full}");
            }
            assert!(fleet.iter().all(|gated| gated.most.load(Ordering::SeqCst) <= 1));
        }
    }
}

#[test]
fn member_without_a_table_entry_is_the_last_resort_and_check_says_so() {
    let light = Backend::echo("light");
    let listen = free_address();
    let service = "balance: { policy: maglev, table_size: 997, hash_key: [ { header: x-key } ] }";
    let config = simple(listen, service, &[("heavy", free_address()), ("light", light.address)])
        .replace("id: heavy,", "id: heavy, weight: 1600,");
    let config = config.replace("id: light,", "id: light, weight: 1,");
    let ringway = Ringway::start(&config);
    for key in 0..20 {
        assert_eq!(get_with(listen, "/", &format!("X-Key: {key}\r\n")).unwrap().text(), "light");
    }
    let checked = crate::common::ringway(&["check", path_text(&ringway.config)]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("no_table_entry") && said.contains("\"light\"") && said.contains("write `1601`"), "{said}");
}

#[test]
fn wake_up_for_a_place_that_one_cannot_use_goes_to_one_that_can() {
    let a = gated("a");
    let open = Arc::new(Mutex::new(false));
    let gate = Arc::clone(&open);
    let b = Backend::custom(move |mut stream, _| {
        while let Some((head, _)) = read_request(&mut stream) {
            if head.starts_with("GET /drop ") {
                return;
            }
            wait_for("leave to answer", || gate.lock().unwrap().then_some(()));
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb").is_err() {
                return;
            }
        }
    });
    let listen = free_address();
    let service = "balance: { policy: first, bounded_load: { all_full: queue, queue: { timeout: 120s } } }\n\
                   retry: { on: [ reset ], attempts: 3, budget_min: 10 }\ntimeouts: { response: 120s }";
    let config = simple(listen, service, &[("a", a.backend.address), ("b", b.address)])
        .replace("      - { id:", "      - { requests_max: 1, id:");
    let ringway = Ringway::start(&config);
    let get =
        |path: &str| send(listen, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    let waiting = |count: u64| (ringway.status()["services"][0]["waiting"] == count).then_some(());
    let mut on_a = get("/");
    wait_for("one on a", || (on(&ringway, "a") == 1).then_some(()));
    // It has been to b, and waits for a alone.
    let mut tried = get("/drop");
    wait_for("it to wait", || waiting(1));
    let mut on_b = get("/");
    wait_for("one on b", || (on(&ringway, "b") == 1).then_some(()));
    let mut other = get("/");
    wait_for("another to wait", || waiting(2));
    *open.lock().unwrap() = true;
    assert_eq!(read_answer(&mut on_b, true).unwrap().text(), "b");
    assert_eq!(read_answer(&mut other, true).unwrap().text(), "b");
    wait_for("the first to wait on", || waiting(1));
    *a.open.lock().unwrap() = true;
    assert_eq!(read_answer(&mut on_a, true).unwrap().text(), "a");
    assert_eq!(read_answer(&mut tried, true).unwrap().text(), "a");
}
