//! Limits as places on the walk.

use crate::common::peers::{config, service};
use crate::common::*;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// Opens once, for all who wait and all who come.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn pass(&self) {
        let mut open = self.0.0.lock().unwrap();
        while !*open {
            open = self.0.1.wait(open).unwrap();
        }
    }
}

/// Answers `GET /held` once the gate is open, anything else at once.
pub(crate) fn gated(name: &'static str, gate: &Gate) -> Backend {
    let gate = gate.clone();
    scripted(move |head| {
        if head.starts_with("GET /held ") {
            gate.pass();
        }
        response("200 OK", "", name)
    })
}

/// A request of its own connection that its backend holds.
pub(crate) fn held(listen: SocketAddr) -> TcpStream {
    send(listen, b"GET /held HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

fn text_of(mut stream: TcpStream) -> (u16, String) {
    let answer = read_answer(&mut stream, true).unwrap();
    (answer.status, answer.text())
}

fn in_flight(ringway: &Ringway, count: u64) {
    wait_for("requests to be in flight", || (ringway.status()["services"][0]["in_flight"] == count).then_some(()));
}

/// Every count of a backend's that a limit of ours must leave alone.
fn assert_blameless(ringway: &Ringway, ids: &[&str]) {
    for id in ids {
        let labels = format!("{{service=\"s\",backend=\"{id}\"}}");
        assert_eq!(ringway.metric(&format!("ringway_backend_failures_total{labels}")), 0.0, "{id}");
        assert_eq!(backend_status(ringway, id)["state"], "up", "{id}");
    }
    assert_eq!(ringway.metric("ringway_retries_total{service=\"s\"}"), 0.0);
}

/// Backends a to e with a connection each and f with as many as it likes.
fn five_with_one(listen: SocketAddr, service: &str, fleet: &[(&'static str, SocketAddr)]) -> String {
    simple(listen, service, fleet)
        .replace("      - { id:", "      - { connections_max: 1, id:")
        .replace("connections_max: 1, id: f", "id: f")
}

#[test]
fn a_backend_whose_connections_are_all_in_use_is_passed_over_whatever_the_policy() {
    for policy in ["round_robin", "random", "p2c", "least_request", "peak_ewma", "first", "ring", "maglev", "hrw"] {
        let keys = if matches!(policy, "ring" | "maglev" | "hrw") { ", hash_key: [ { header: x-key } ]" } else { "" };
        let gate = Gate::default();
        let fleet: Vec<_> = ["a", "b", "c", "d", "e", "f"].into_iter().map(|id| (id, gated(id, &gate))).collect();
        let listen = free_address();
        // The one retry that there may be is not spent on backends that are full.
        let text = format!("balance: {{ policy: {policy}{keys} }}\nretry: {{ attempts: 1, budget: 0, budget_min: 0 }}");
        let ringway =
            Ringway::start(&five_with_one(listen, &text, &targets(&fleet)).replace("workers: 2", "workers: 4"));
        // f is kept from taking any, until the others have one each.
        let drained = five_with_one(listen, &text, &targets(&fleet)).replace("id: f,", "id: f, drain: true,");
        ringway.reconfigure(&drained.replace("workers: 2", "workers: 4"));
        let mut waiting: Vec<_> = (0..5).map(|_| held(listen)).collect();
        in_flight(&ringway, 5);
        ringway.reconfigure(&drained.replace("workers: 2", "workers: 4").replace(", drain: true", ""));
        for number in 0..12 {
            let answer = get_with(listen, "/", &format!("X-Key: {number}\r\n")).unwrap();
            assert_eq!((answer.status, answer.text()), (200, "f".to_owned()), "{policy}, request {number}");
        }
        assert_blameless(&ringway, &["a", "b", "c", "d", "e", "f"]);
        gate.open();
        assert!(waiting.drain(..).all(|stream| text_of(stream).0 == 200), "{policy}");
    }
}

#[test]
fn tcp_sessions_pass_over_a_backend_whose_connections_are_all_in_use() {
    let gate = Gate::default();
    let fleet: Vec<_> = ["a", "b", "c", "d", "e", "f"].into_iter().map(|id| (id, gated(id, &gate))).collect();
    let listen = free_address();
    let tcp = |text: String| text.replace("service: s }", "protocol: tcp, service: s }");
    let text = "balance: { policy: first }\nretry: { attempts: 0 }";
    let ringway = Ringway::start(&tcp(five_with_one(listen, text, &targets(&fleet))));
    let waiting: Vec<_> = (0..5).map(|_| held(listen)).collect();
    in_flight(&ringway, 5);
    for number in 0..12 {
        let answer = get(listen, "/").unwrap_or_else(|| panic!("session {number} was reset"));
        assert_eq!(answer.text(), "f");
    }
    assert_blameless(&ringway, &["a", "b", "c", "d", "e", "f"]);
    gate.open();
    waiting.into_iter().for_each(|stream| assert_eq!(text_of(stream).0, 200));
    // What was in use is free again, one by one, for whoever comes next.
    for _ in 0..6 {
        in_flight(&ringway, 0);
        assert_eq!(get(listen, "/").unwrap().text(), "a");
    }
}

#[test]
fn an_idle_connection_of_another_worker_gives_way() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let patient = "timeouts: { connect: 300s }";
    for service in [patient, &format!("{patient}\nretry: {{ attempts: 0 }}\nlimits: {{ connections_max: 1 }}")] {
        let limit = if service == patient { "id: a, connections_max: 1," } else { "id: a," };
        let config = simple(listen, service, &[("a", backend.address)]).replace("id: a,", limit);
        let ringway = Ringway::start(&config.replace("workers: 2", "workers: 4"));
        for number in 0..60 {
            let answer = get(listen, "/").unwrap();
            assert_eq!(answer.status, 200, "request {number}, {service:?}: {}", answer.text());
            assert!(backend_status(&ringway, "a")["connections"].as_u64().unwrap() <= 1);
        }
        assert_blameless(&ringway, &["a"]);
    }
}

#[test]
fn a_services_limit_on_connections_moves_idle_ones_from_backend_to_backend() {
    let fleet = echoes(3);
    let listen = free_address();
    let service = "balance: { policy: round_robin }\nlimits: { connections_max: 2 }\ntimeouts: { connect: 300s }";
    let ringway = Ringway::start(&simple(listen, service, &targets(&fleet)).replace("workers: 2", "workers: 3"));
    let mut counts = [0; 3];
    for number in 0..60 {
        let answer = get(listen, "/").unwrap();
        assert_eq!(answer.status, 200, "request {number}: {}", answer.text());
        counts[usize::from(answer.text().as_bytes()[0] - b'a')] += 1;
        let open: u64 =
            ["a", "b", "c"].map(|id| backend_status(&ringway, id)["connections"].as_u64().unwrap()).iter().sum();
        assert!(open <= 2, "{open}");
    }
    assert_eq!(counts, [20; 3]);
    assert_blameless(&ringway, &["a", "b", "c"]);
}

#[test]
fn a_services_limit_on_connections_queues_or_refuses_as_all_full_says() {
    for all_full in ["queue", "reject", "owner", "least_loaded"] {
        let gate = Gate::default();
        let fleet = [("a", gated("a", &gate)), ("b", gated("b", &gate)), ("c", gated("c", &gate))];
        let listen = free_address();
        let service = format!(
            "balance: {{ policy: round_robin, bounded_load: {{ all_full: {all_full}, queue: {{ timeout: 300s }} }} }}\n\
             limits: {{ connections_max: 2 }}"
        );
        let ringway = Ringway::start(&simple(listen, &service, &targets(&fleet)));
        let waiting: Vec<_> = (0..2).map(|_| held(listen)).collect();
        in_flight(&ringway, 2);
        let mut third = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        if all_full == "queue" {
            wait_for("it to wait", || (ringway.status()["services"][0]["waiting"] == 1).then_some(()));
            gate.open();
            assert_eq!(read_answer(&mut third, true).unwrap().status, 200);
        } else {
            let answer = read_answer(&mut third, true).unwrap();
            assert_eq!(
                (answer.status, answer.header("x-ringway-reason")),
                (503, Some("all_backends_full")),
                "{all_full}"
            );
            gate.open();
        }
        waiting.into_iter().for_each(|stream| assert_eq!(text_of(stream).0, 200));
        assert_blameless(&ringway, &["a", "b", "c"]);
    }
}

#[test]
fn a_request_waits_for_a_connection_where_the_queue_is_for_all_that_are_full() {
    let gate = Gate::default();
    let backend = gated("a", &gate);
    let listen = free_address();
    let service = "balance: { bounded_load: { all_full: queue, queue: { timeout: 300s } } }";
    let config = simple(listen, service, &[("a", backend.address)]).replace("id: a,", "id: a, connections_max: 1,");
    let ringway = Ringway::start(&config.replace("workers: 2", "workers: 4"));
    let first = held(listen);
    in_flight(&ringway, 1);
    let others: Vec<_> =
        (0..8).map(|_| send(listen, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).collect();
    wait_for("them to wait", || (ringway.status()["services"][0]["waiting"] == 8).then_some(()));
    gate.open();
    for stream in others.into_iter().chain([first]) {
        assert_eq!(text_of(stream), (200, "a".to_owned()));
    }
    assert_blameless(&ringway, &["a"]);
}

#[test]
fn an_idle_shared_connection_gives_way_and_a_busy_one_makes_the_backend_full() {
    let gate = Gate::default();
    let (one, two) = (gated("one", &gate), gated("two", &gate));
    let [listen, first, second] = std::array::from_fn(|_| free_address());
    // Two Ringways' listeners that speak HTTP/2 are the backends.
    let listeners = format!(
        "  - {{ name: front, address: \"{listen}\", service: s }}\n  - {{ name: one, address: \"{first}\", service: one }}\n  \
         - {{ name: two, address: \"{second}\", service: two }}\n"
    );
    // A connection that gives way may take its time to close, on a machine that is busy.
    let more = "protocol: h2, balance: { policy: first }, retry: { attempts: 0 }, timeouts: { connect: 300s },";
    let services = service("s", more, &[("a", first), ("b", second)]).replace("id: a,", "id: a, connections_max: 1,")
        + &service("one", "", &[("one", one.address)])
        + &service("two", "", &[("two", two.address)]);
    let ringway = Ringway::start(&config(&listeners, &services).replace("workers: 2", "workers: 4"));
    for number in 0..40 {
        let answer = get(listen, "/").unwrap();
        assert_eq!((answer.status, answer.text()), (200, "one".to_owned()), "request {number}");
        in_flight(&ringway, 0);
    }
    // Some worker's connection is busy: the others go on to the next backend, and blame nobody.
    let busy = held(listen);
    // With the backend: before that it may wait for a connection that another worker has.
    wait_for("it to be under way", || (backend_status(&ringway, "one")["in_flight"] == 1).then_some(()));
    let texts: Vec<String> = (0..40).map(|_| get(listen, "/").unwrap().text()).collect();
    assert!(texts.iter().all(|text| text == "one" || text == "two"), "{texts:?}");
    assert!(texts.iter().any(|text| text == "two"), "no worker but one was asked: {texts:?}");
    gate.open();
    assert_eq!(text_of(busy).0, 200);
    assert_blameless(&ringway, &["a", "b"]);
}

#[test]
fn requests_that_wait_are_limited_over_the_whole_service() {
    let gate = Gate::default();
    let backend = gated("a", &gate);
    let listen = free_address();
    let service =
        "balance: { bounded_load: { all_full: queue, queue: { timeout: 300s } } }\nlimits: { pending_max: 1 }";
    let config = simple(listen, service, &[("a", backend.address)]).replace("id: a,", "id: a, requests_max: 1,");
    let ringway = Ringway::start(&config);
    let first = held(listen);
    in_flight(&ringway, 1);
    let second = held(listen);
    wait_for("it to wait", || (ringway.status()["services"][0]["waiting"] == 1).then_some(()));
    let answer = get(listen, "/").unwrap();
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (503, Some("pending_limit")));
    gate.open();
    assert_eq!((text_of(first).0, text_of(second).0), (200, 200));
    assert_eq!(get(listen, "/").unwrap().status, 200);
}

#[test]
fn a_backend_for_whose_connections_too_many_wait_is_passed_over() {
    // Takes connections, and never begins TLS.
    let silent = Backend::custom(|stream, _| {
        let mut stream = stream;
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        let _ = stream.flush();
    });
    let Some(certificates) = peers::Certificates::new() else { return };
    certificates.issue("one.test", "DNS:one.test", "30");
    let good = Backend::echo("b");
    let [listen, secure] = std::array::from_fn(|_| free_address());
    let listeners = format!(
        "  - {{ name: front, address: \"{listen}\", service: s }}\n  - {{ name: secure, address: \"{secure}\", service: plain, tls: {{ \
         certificates: [ {} ] }} }}\n",
        certificates.entry("one.test")
    );
    let more = format!(
        "balance: {{ policy: first }}, timeouts: {{ connect: 300s }}, tls: {{ ca: \"{}\", sni: one.test }},",
        certificates.text("ca.pem")
    );
    let services_text = service("s", &more, &[("a", silent.address), ("b", secure)])
        .replace("id: a,", "id: a, pending_max: 2,")
        + &service("plain", "", &[("b", good.address)]);
    let ringway = Ringway::start(&config(&listeners, &services_text));
    let waiting: Vec<_> = (0..2).map(|_| held(listen)).collect();
    in_flight(&ringway, 2);
    wait_for("both to wait for TLS", || (backend_status(&ringway, "a")["connections"] == 2).then_some(()));
    for _ in 0..6 {
        assert_eq!(get(listen, "/").unwrap().text(), "b");
    }
    assert_blameless(&ringway, &["a", "b"]);
    // Without another to turn to, it waits; who leaves makes room.
    let alone = services_text
        .replace("policy: first", "policy: first, bounded_load: { all_full: queue, queue: { timeout: 300s } }");
    ringway.reconfigure(&config(&listeners, &alone.replace(&format!(", {{ id: b, address: \"{secure}\" }}"), "")));
    let third = held(listen);
    wait_for("it to wait", || (ringway.status()["services"][0]["waiting"] == 1).then_some(()));
    drop((waiting, third));
    wait_for("nobody to wait", || (ringway.status()["services"][0]["waiting"] == 0).then_some(()));
    wait_for("them to leave", || (backend_status(&ringway, "a")["connections"] == 0).then_some(()));
}

#[test]
fn a_request_that_waits_for_a_backend_of_which_too_many_connections_are_wanted_takes_no_others_time() {
    let Some(certificates) = peers::Certificates::new() else { return };
    // Takes connections, and never begins TLS.
    let silent = Backend::custom(|mut stream, _| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    let listen = free_address();
    let more = format!(
        "balance: {{ bounded_load: {{ all_full: queue, queue: {{ timeout: 300ms }} }} }}, timeouts: {{ connect: 300s }}, \
         tls: {{ ca: \"{}\", sni: one.test }},",
        certificates.text("ca.pem")
    );
    let services = service("s", &more, &[("a", silent.address)]).replace("id: a,", "id: a, pending_max: 1,");
    let listeners = format!("  - {{ name: front, address: \"{listen}\", service: s }}\n");
    // One worker: if a request took all of its time, nobody else would be heard.
    let ringway = Ringway::start(&config(&listeners, &services).replace("workers: 2", "workers: 1"));
    let first = held(listen);
    wait_for("it to wait for TLS", || (backend_status(&ringway, "a")["connections"] == 1).then_some(()));
    for _ in 0..3 {
        let answer = get(listen, "/").unwrap();
        assert_eq!((answer.status, answer.header("x-ringway-reason")), (503, Some("queue_timeout")));
    }
    drop(first);
    wait_for("it to leave", || (backend_status(&ringway, "a")["connections"] == 0).then_some(()));
}

#[test]
fn who_has_the_end_of_a_response_finds_the_place_free() {
    let body: &'static str = "x".repeat(300_000).leak();
    let backend = scripted(move |head| match head.split(' ').nth(1) {
        Some("/long") => response("200 OK", "", body),
        Some("/chunks") => {
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
        }
        _ => response("200 OK", "", "short"),
    });
    let limits = [
        ("", "requests_max: 1, id: a"),
        ("timeouts: { connect: 300s }", "connections_max: 1, id: a"),
        ("limits: { requests_max: 1 }", "id: a"),
        ("timeouts: { connect: 300s }\nlimits: { connections_max: 1 }", "id: a"),
    ];
    for (service, backend_limit) in limits {
        let listen = free_address();
        let config = simple(listen, service, &[("a", backend.address)]).replace("id: a", backend_limit);
        let _ringway = Ringway::start(&config.replace("workers: 2", "workers: 4"));
        for number in 0..60 {
            let path = ["/", "/long", "/chunks"][number % 3];
            let answer = get(listen, path).unwrap();
            assert_eq!(answer.status, 200, "{path}, request {number}, {service} {backend_limit}: {}", answer.text());
        }
    }
}
