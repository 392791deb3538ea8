//! Waiting for room: whose time it takes, and what ends the wait.

use super::limits::{Gate, gated, held};
use crate::common::*;
use std::net::{SocketAddr, TcpStream};

const QUEUE: &str = "balance: { bounded_load: { all_full: queue, queue: { timeout: 300s } } }";

fn one_request_each(listen: SocketAddr, service: &str, backends: &[(&str, SocketAddr)]) -> String {
    simple(listen, service, backends).replace("      - { id:", "      - { requests_max: 1, id:")
}

fn waiting(ringway: &Ringway, count: u64) {
    wait_for("requests to wait", || (ringway.status()["services"][0]["waiting"] == count).then_some(()));
}

fn answer_of(mut stream: TcpStream) -> (u16, String) {
    let answer = read_answer(&mut stream, true).unwrap();
    (answer.status, answer.header("x-ringway-reason").map_or_else(|| answer.text(), str::to_owned))
}

fn ask(listen: SocketAddr, fields: &str) -> TcpStream {
    send(listen, format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n").as_bytes())
}

/// Each way to say how long a request may take: of its route, of its service, its client's.
const DEADLINES: [(&str, &str, &str); 3] = [
    ("{ service: s, timeout: 400ms }", "", ""),
    ("{ service: s }", "\ntimeouts: { request: 400ms }", ""),
    ("{ service: s }", "", "TE: trailers\r\ngrpc-timeout: 400m\r\n"),
];

fn with_route(config: &str, route: &str) -> String {
    let routes = format!("routes: [ {{ match: {{ path: /held }}, service: s, timeout: 300s }}, {route} ] }}");
    config.replace("service: s }", &routes)
}

#[test]
fn a_wait_for_room_ends_with_the_requests_own_time() {
    for (route, service, fields) in DEADLINES {
        let gate = Gate::default();
        let backend = gated("a", &gate);
        let listen = free_address();
        let config = one_request_each(listen, &format!("{QUEUE}{service}"), &[("a", backend.address)]);
        let ringway = Ringway::start(&with_route(&config, route));
        let first = held(listen);
        wait_for("it to be held", || (backend_status(&ringway, "a")["in_flight"] == 1).then_some(()));
        assert_eq!(answer_of(ask(listen, fields)), (504, "request_timeout".to_owned()), "{route} {service} {fields}");
        // What is left is nobody's place, and nobody waits.
        waiting(&ringway, 0);
        gate.open();
        assert_eq!(answer_of(first).0, 200);
        assert_eq!(answer_of(ask(listen, "")).0, 200);
    }
}

#[test]
fn time_in_the_queue_is_taken_from_the_exchange() {
    for (route, service, fields) in DEADLINES {
        let (gate, never) = (Gate::default(), Gate::default());
        let held_back = never.clone();
        let first_gate = gate.clone();
        let backend = scripted(move |head| {
            if head.starts_with("GET /held ") {
                first_gate.pass()
            } else {
                held_back.pass()
            }
            response("200 OK", "", "a")
        });
        let listen = free_address();
        let config = one_request_each(listen, &format!("{QUEUE}{service}"), &[("a", backend.address)]);
        let ringway = Ringway::start(&with_route(&config, route));
        let first = held(listen);
        wait_for("it to be held", || (backend_status(&ringway, "a")["in_flight"] == 1).then_some(()));
        let second = ask(listen, fields);
        // It may be over before it is seen to wait, on a machine that is busy.
        gate.open();
        assert_eq!(answer_of(first).0, 200);
        assert_eq!(answer_of(second), (504, "request_timeout".to_owned()), "{route} {service} {fields}");
        never.open();
    }
}

#[test]
fn a_waiting_request_takes_a_backend_that_a_reload_brings() {
    for tcp in [false, true] {
        let gate = Gate::default();
        let (a, b) = (gated("a", &gate), gated("b", &gate));
        let listen = free_address();
        let text = |backends: &[(&str, SocketAddr)]| {
            let config = one_request_each(listen, QUEUE, backends);
            if tcp { config.replace("service: s }", "protocol: tcp, service: s }") } else { config }
        };
        let ringway = Ringway::start(&text(&[("a", a.address)]));
        let first = held(listen);
        wait_for("it to be held", || (backend_status(&ringway, "a")["in_flight"] == 1).then_some(()));
        let second = ask(listen, "");
        waiting(&ringway, 1);
        ringway.reconfigure(&text(&[("a", a.address), ("b", b.address)]));
        assert_eq!(answer_of(second), (200, "b".to_owned()), "tcp: {tcp}");
        // Its place was counted where it was taken.
        wait_for("its end", || (backend_status(&ringway, "b")["in_flight"] == 0).then_some(()));
        assert_eq!(backend_status(&ringway, "a")["in_flight"], 1);
        gate.open();
        assert_eq!(answer_of(first).0, 200);
    }
}

#[test]
fn a_waiting_request_takes_the_room_that_a_reload_makes_and_goes_by_the_new_names() {
    let gate = Gate::default();
    let (a, b) = (gated("a", &gate), gated("b", &gate));
    let listen = free_address();
    let before = one_request_each(listen, QUEUE, &[("m", a.address)]);
    let ringway = Ringway::start(&before);
    let first = held(listen);
    wait_for("it to be held", || (backend_status(&ringway, "m")["in_flight"] == 1).then_some(()));
    let others: Vec<TcpStream> = (0..3).map(|_| ask(listen, "")).collect();
    waiting(&ringway, 3);
    // Another limit; a service and a backend more, both before the ones that there were.
    let after = before
        .replace(
            "services:\n",
            &format!("services:\n  - {{ name: first, backends: [ {{ id: x, address: \"{}\" }} ] }}\n", b.address),
        )
        .replace("requests_max: 1, id: m", "requests_max: 8, id: m");
    ringway.reconfigure(&after);
    for stream in others {
        assert_eq!(answer_of(stream), (200, "a".to_owned()));
    }
    gate.open();
    assert_eq!(answer_of(first).0, 200);
}

#[test]
fn a_request_that_has_tried_a_backend_waits_for_another_over_a_reload_too() {
    let gate = Gate::default();
    let b = gated("b", &gate);
    // Takes the request, and closes.
    let closing = Backend::custom(|mut stream, _| drop(read_request(&mut stream)));
    let c = gated("c", &gate);
    let listen = free_address();
    let service = "balance: { policy: first, bounded_load: { all_full: queue, queue: { timeout: 300s } } }\n\
                   retry: { attempts: 3, budget_min: 100 }\noutlier: { consecutive_failures: 0 }";
    let text = |backends: &[(&str, SocketAddr)]| one_request_each(listen, service, backends);
    let ringway = Ringway::start(&text(&[("a", closing.address), ("b", b.address)]));
    // The first takes b by way of a; the second is left to wait for b, because a is behind it.
    let first = held(listen);
    wait_for("it to be held", || (backend_status(&ringway, "b")["in_flight"] == 1).then_some(()));
    let second = ask(listen, "");
    waiting(&ringway, 1);
    ringway.reconfigure(&text(&[("a", closing.address), ("b", b.address), ("c", c.address)]));
    assert_eq!(answer_of(second), (200, "c".to_owned()));
    gate.open();
    assert_eq!(answer_of(first).0, 200);
}

#[test]
fn a_waiting_request_stays_with_what_it_knows_when_its_service_goes() {
    let gate = Gate::default();
    let a = gated("a", &gate);
    let other = Backend::echo("other");
    let listen = free_address();
    let config = one_request_each(listen, QUEUE, &[("a", a.address)]);
    let ringway = Ringway::start(&config);
    let first = held(listen);
    wait_for("it to be held", || (backend_status(&ringway, "a")["in_flight"] == 1).then_some(()));
    let second = ask(listen, "");
    waiting(&ringway, 1);
    let gone = simple(listen, "", &[("o", other.address)])
        .replace("name: s\n", "name: t\n")
        .replace("service: s }", "service: t }");
    ringway.reconfigure(&gone);
    assert_eq!(answer_of(ask(listen, "")), (200, "other".to_owned()));
    gate.open();
    assert_eq!((answer_of(first).0, answer_of(second)), (200, (200, "a".to_owned())));
}

#[test]
fn a_reload_that_drains_all_and_brings_another_fails_nobody() {
    for (policy, drained) in
        [("ring", "drain: true"), ("round_robin", "maintenance: true"), ("least_request", "drain: true")]
    {
        let (a, b) = (Backend::echo("a"), Backend::echo("b"));
        let listen = free_address();
        let service = format!("balance: {{ policy: {policy} }}\nretry: {{ attempts: 0 }}");
        let before = simple(listen, &service, &[("a", a.address)]);
        let after = simple(listen, &service, &[("a", a.address), ("b", b.address)])
            .replace("id: a,", &format!("id: a, {drained},"));
        let ringway = Ringway::start(&before);
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut failed = Vec::new();
                        while !over.load(std::sync::atomic::Ordering::Relaxed) {
                            let answer = get(listen, "/").unwrap();
                            if answer.status != 200 {
                                failed.push(answer.text());
                            }
                        }
                        failed
                    })
                })
                .collect();
            for _ in 0..6 {
                ringway.reconfigure(&after);
                ringway.reconfigure(&before);
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            for client in clients {
                assert_eq!(client.join().unwrap(), Vec::<String>::new(), "{policy}, {drained}");
            }
        });
    }
}

#[test]
fn a_request_that_waits_for_drained_backends_takes_those_that_come() {
    for policy in ["ring", "round_robin"] {
        let gate = Gate::default();
        let (a, b) = (gated("a", &gate), gated("b", &gate));
        let listen = free_address();
        // The policy changes too, from one without keys to one with, or back.
        let (before, after) = if policy == "ring" { ("first", "ring") } else { ("ring", "round_robin") };
        let service = |policy: &str| QUEUE.replace("balance: {", &format!("balance: {{ policy: {policy},"));
        let ringway = Ringway::start(&one_request_each(listen, &service(before), &[("a", a.address)]));
        let first = held(listen);
        wait_for("it to be held", || (backend_status(&ringway, "a")["in_flight"] == 1).then_some(()));
        let others: Vec<TcpStream> = (0..4).map(|_| ask(listen, "")).collect();
        waiting(&ringway, 4);
        let both = simple(listen, &service(after), &[("a", a.address), ("b", b.address)]);
        ringway.reconfigure(&both.replace("id: a,", "id: a, drain: true,"));
        for stream in others {
            assert_eq!(answer_of(stream), (200, "b".to_owned()), "{after}");
        }
        gate.open();
        assert_eq!(answer_of(first).0, 200);
    }
}

#[test]
fn a_session_whose_client_has_gone_leaves_the_queue() {
    let gate = Gate::default();
    let a = gated("a", &gate);
    let listen = free_address();
    let config =
        one_request_each(listen, QUEUE, &[("a", a.address)]).replace("service: s }", "protocol: tcp, service: s }");
    let ringway = Ringway::start(&config);
    let first = held(listen);
    wait_for("it to be held", || (backend_status(&ringway, "a")["in_flight"] == 1).then_some(()));
    let others: Vec<TcpStream> = (0..3).map(|_| ask(listen, "")).collect();
    waiting(&ringway, 3);
    for stream in others {
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
    waiting(&ringway, 0);
    // One that has only said all that it has to say still waits.
    let last = ask(listen, "");
    last.shutdown(std::net::Shutdown::Write).unwrap();
    waiting(&ringway, 1);
    gate.open();
    assert_eq!((answer_of(first).0, answer_of(last)), (200, (200, "a".to_owned())));
}
