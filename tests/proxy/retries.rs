//! What is tried again and what is not: conditions, per-try time-outs, budgets, hedging, deadlines.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// `first` handles the keys' owner: backends in order of ids, so that the first is always asked first.
fn pair(listen: SocketAddr, service: &str, a: &Backend, b: &Backend) -> String {
    simple(listen, &format!("balance: {{ policy: first }}\n{service}"), &[("a", a.address), ("b", b.address)])
}

fn post(listen: SocketAddr, path: &str) -> Answer {
    let mut stream = send(listen, format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").as_bytes());
    read_answer(&mut stream, true).unwrap()
}

#[test]
fn answers_are_tried_again_as_the_conditions_say() {
    for (status, condition, retried) in [
        ("503 Service Unavailable", "gateway", true),
        ("500 Internal Server Error", "gateway", false),
        ("500 Internal Server Error", "server_errors", true),
        ("429 Too Many Requests", "throttled", true),
        ("409 Conflict", "conflict", true),
        ("404 Not Found", "server_errors", false),
    ] {
        let bad = scripted(move |_| response(status, "", "no"));
        let good = Backend::echo("good");
        let listen = free_address();
        let ringway = Ringway::start(&pair(listen, &format!("retry: {{ on: [ {condition} ] }}"), &bad, &good));
        let answer = get(listen, "/").unwrap();
        let expected = if retried { 200 } else { status[..3].parse().unwrap() };
        assert_eq!(answer.status, expected, "{status} {condition}");
        // What is not idempotent is never sent twice.
        assert_eq!(post(listen, "/").status.to_string(), &status[..3]);
        assert_eq!(ringway.metric("ringway_retries_total{service=\"s\"}"), f64::from(u8::from(retried)));
    }
}

#[test]
fn a_retry_that_finds_nobody_is_none() {
    let (dead, listen, stream) = (free_address(), free_address(), free_address());
    let file = format!(
        "workers: 1\nadmin: {{ address: \"ADMIN\" }}\naccess_log: {{ format: json, target: LOG }}\n\
         listeners: [ {{ name: w, address: \"{listen}\", service: s }}, {{ name: t, address: \"{stream}\", protocol: tcp, service: t }} ]\n\
         services: [ {{ name: s, retry: {{ attempts: 3 }}, backends: [ {{ id: a, address: \"{dead}\" }} ] }},\n\
         {{ name: t, retry: {{ attempts: 3 }}, backends: [ {{ id: a, address: \"{dead}\" }} ] }} ]\n"
    );
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("access.log");
    let ringway = Ringway::start(&file.replace("LOG", &format!("{log:?}")));
    assert_eq!(get(listen, "/").unwrap().status, 502);
    let mut client = std::net::TcpStream::connect(stream).unwrap();
    let _ = std::io::Read::read(&mut client, &mut [0; 1]);
    let lines = wait_for("two lines", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        (text.lines().count() == 2).then_some(text)
    });
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["retries"], 0, "{line}");
    }
    for service in ["s", "t"] {
        assert_eq!(ringway.metric(&format!("ringway_retries_total{{service=\"{service}\"}}")), 0.0, "{service}");
    }
}

#[test]
fn last_answer_is_passed_on_when_all_are_bad() {
    let bad = |name: &'static str| scripted(move |_| response("503 Service Unavailable", "", name));
    let (a, b) = (bad("a"), bad("b"));
    let listen = free_address();
    let config = pair(listen, "retry: { on: [ gateway ], attempts: 5 }", &a, &b).replace("workers: 2", "workers: 1");
    let _ringway = Ringway::start(&config);
    let answer = get(listen, "/").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (503, "b"));
    assert_eq!((a.requests().len(), b.requests().len()), (1, 1), "never the same backend twice");
    // The connections are whole, and are used again.
    let _ = get(listen, "/");
    assert_eq!(a.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn slow_try_is_given_up_for_the_next() {
    let slow = Backend::custom(|mut stream, seen| {
        while let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head);
            takes(Duration::from_secs(8).mul_f64(slowness()));
        }
    });
    let good = Backend::echo("good");
    let listen = free_address();
    let service =
        "retry: { per_try_timeout: 200ms }\ntimeouts: { response: 20s }\noutlier: { consecutive_failures: 0 }";
    let _ringway = Ringway::start(&pair(listen, service, &slow, &good));
    let begin = Instant::now();
    assert_eq!(get(listen, "/").unwrap().text(), "good");
    assert!(begin.elapsed() < Duration::from_secs(5).mul_f64(slowness()));
    // A POST has been processed, perhaps: it is not sent again.
    let answer = post(listen, "/");
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (504, Some("response_timeout")));
    assert_eq!(good.requests().len(), 1);
}

#[test]
fn budget_bounds_retries_of_a_fleet_that_fails() {
    let bad = || scripted(|_| response("503 Service Unavailable", "", "no"));
    let (a, b) = (bad(), bad());
    let listen = free_address();
    let service = "retry: { on: [ gateway ], budget: 10, budget_min: 0 }";
    let config = pair(listen, service, &a, &b).replace("workers: 2", "workers: 1");
    let ringway = Ringway::start(&config);
    for _ in 0..200 {
        assert_eq!(get(listen, "/").unwrap().status, 503);
    }
    let retries = ringway.metric("ringway_retries_total{service=\"s\"}");
    assert!((10.0..=20.0).contains(&retries), "{retries}");
    assert!(ringway.metric("ringway_retry_budget_exhausted_total{service=\"s\"}") >= 180.0);
    assert_eq!(b.requests().len(), retries as usize);
}

#[test]
fn hedge_takes_the_first_answer_and_counts_both_loads() {
    let slow_answers = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&slow_answers);
    let slow = Backend::custom(move |mut stream, seen| {
        use std::io::Write;
        while let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head);
            takes(Duration::from_millis(1_500).mul_f64(slowness()));
            if stream.write_all(response("200 OK", "", "slow").as_bytes()).is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let good = Backend::echo("fast");
    let listen = free_address();
    let service = "hedge: { after: 100ms, budget: 100 }";
    let ringway = Ringway::start(&pair(listen, service, &slow, &good));
    for _ in 0..5 {
        let begin = Instant::now();
        assert_eq!(get(listen, "/").unwrap().text(), "fast");
        assert!(begin.elapsed() < Duration::from_millis(1_400).mul_f64(slowness()), "{:?}", begin.elapsed());
    }
    assert_eq!(ringway.metric("ringway_hedges_total{service=\"s\"}"), 5.0);
    assert_eq!(ringway.metric("ringway_hedges_won_total{service=\"s\"}"), 5.0);
    // What is not idempotent goes to one backend only.
    assert_eq!(post(listen, "/").text(), "slow");
    assert!(good.requests().iter().all(|request| request.starts_with("GET ")));
    wait_for("both loads to be given back", || (ringway.status()["services"][0]["in_flight"] == 0).then_some(()));
}

#[test]
fn hedge_saves_a_request_whose_first_try_fails_late() {
    let dying = Backend::custom(|mut stream, _| {
        let _ = read_request(&mut stream);
        takes(Duration::from_millis(400));
    });
    let slowish = Backend::custom(|mut stream, _| {
        use std::io::Write;
        while read_request(&mut stream).is_some() {
            takes(Duration::from_millis(700));
            let _ = stream.write_all(response("200 OK", "", "second").as_bytes());
        }
    });
    let listen = free_address();
    let service = "hedge: { after: 50ms, budget: 100 }\nretry: { attempts: 0 }";
    let ringway = Ringway::start(&pair(listen, service, &dying, &slowish));
    assert_eq!(get(listen, "/").unwrap().text(), "second");
    wait_for("the loads to be given back", || (ringway.status()["services"][0]["in_flight"] == 0).then_some(()));
}

#[test]
fn deadline_of_a_client_is_kept() {
    let slow = Backend::custom(|mut stream, _| {
        let _ = read_request(&mut stream);
        takes(Duration::from_secs(8).mul_f64(slowness()));
    });
    let listen = free_address();
    let _ringway = Ringway::start(&pair(listen, "", &slow, &slow));
    let begin = Instant::now();
    let answer = get_with(listen, "/", "grpc-timeout: 300m\r\n").unwrap();
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (504, Some("request_timeout")));
    assert!(begin.elapsed() < Duration::from_secs(4).mul_f64(slowness()));
}

#[test]
fn connection_limit_sends_requests_to_the_next_backend() {
    let gate = Arc::new(std::sync::Mutex::new(()));
    let closed = gate.lock().unwrap();
    let held = Arc::clone(&gate);
    let a = scripted(move |_| {
        drop(held.lock());
        response("200 OK", "", "a")
    });
    let b = Backend::echo("b");
    let listen = free_address();
    let config = pair(listen, "", &a, &b).replace("id: a,", "id: a, connections_max: 2,");
    let ringway = Ringway::start(&config);
    let text = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut waiting: Vec<_> = (0..2).map(|_| send(listen, text)).collect();
    wait_for("both connections", || (backend_status(&ringway, "a")["connections"] == 2).then_some(()));
    assert_eq!(get(listen, "/").unwrap().text(), "b");
    assert_eq!(backend_status(&ringway, "a")["state"], "up", "a limit of ours is no fault of its");
    drop(closed);
    for stream in &mut waiting {
        assert_eq!(read_answer(stream, true).unwrap().text(), "a");
    }
}

#[test]
fn no_wait_goes_past_the_deadline() {
    // A back-off, and the queue: both would last for minutes.
    let silent = Backend::custom(|mut stream, _| {
        let _ = read_request(&mut stream);
        let _ = std::io::Read::read(&mut stream, &mut [0]);
    });
    let queue = "balance: { bounded_load: { all_full: queue, queue: { timeout: 300s } } }\ntimeouts: { response: 300s, request: 1s }";
    // A connection that is made and closed: what was refused would be walked past without a back-off.
    let closing = Backend::custom(|mut stream, _| drop(read_request(&mut stream)));
    let backoff = "retry: { backoff: 300s }\ntimeouts: { request: 1s }";
    let held_route = "routes: [ { match: { path: /held }, service: s, timeout: 300s }, { service: s } ] }";
    for (service, backend) in [(backoff, closing.address), (queue, silent.address)] {
        let listen = free_address();
        let config = simple(listen, service, &[("a", backend), ("b", backend)]).replace("service: s }", held_route);
        let ringway = Ringway::start(&config.replace("{ id:", "{ requests_max: 1, id:"));
        let mut held = Vec::new();
        if service == queue {
            held.extend((0..2).map(|_| send(listen, b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")));
            wait_for("all to be full", || (ringway.status()["services"][0]["in_flight"] == 2).then_some(()));
        }
        let answer = get(listen, "/").unwrap();
        assert_eq!((answer.status, answer.header("x-ringway-reason")), (504, Some("request_timeout")), "{service}");
        drop(held);
    }
}

/// A fleet of which one backend, the last, serves; the others refuse. Long names, so that ids sort as they stand.
fn one_of(count: usize, up: &Backend) -> Vec<(String, SocketAddr)> {
    let address = |index: usize| if index + 1 == count { up.address } else { free_address() };
    (0..count).map(|index| (format!("b{index:02}"), address(index))).collect()
}

fn named(list: &[(String, SocketAddr)]) -> Vec<(&str, SocketAddr)> {
    list.iter().map(|(id, address)| (id.as_str(), *address)).collect()
}

#[test]
fn refused_connects_are_walked_past_beyond_attempts_and_budget() {
    for (policy, retry) in [
        ("first", "retry: { attempts: 0 }"),
        ("round_robin", "retry: { budget: 0, budget_min: 0 }"),
        ("ring", ""),
        ("maglev", "retry: { attempts: 1, budget: 0, budget_min: 0, backoff: 60s }"),
        ("hrw", ""),
        ("least_request", ""),
        ("p2c", ""),
    ] {
        let up = Backend::echo("up");
        let list = one_of(12, &up);
        let listen = free_address();
        // Nobody is ejected: each request meets all the refusals.
        let service = format!("balance: {{ policy: {policy} }}\noutlier: {{ consecutive_failures: 0 }}\n{retry}");
        let ringway = Ringway::start(&simple(listen, &service, &named(&list)));
        for key in 0..10 {
            assert_eq!(get(listen, &format!("/{key}")).unwrap().status, 200, "{policy}");
            // Nothing was sent: the method does not matter.
            assert_eq!(post(listen, "/").status, 200, "{policy}");
        }
        assert_eq!(ringway.metric("ringway_retry_budget_exhausted_total{service=\"s\"}"), 0.0, "{policy}");
        // A session of TCP walks the same way.
        let config = simple(listen, &service, &named(&list)).replace("service: s }", "protocol: tcp, service: s }");
        ringway.reconfigure(&config);
        for _ in 0..10 {
            assert_eq!(get(listen, "/").unwrap().status, 200, "{policy} over TCP");
        }
    }
}

#[test]
fn walk_past_refusals_ends_at_sixteen_candidates() {
    let up = Backend::echo("up");
    let list = one_of(20, &up);
    let listen = free_address();
    let service = "balance: { policy: first }\noutlier: { consecutive_failures: 0 }\nretry: { attempts: 50 }";
    let ringway = Ringway::start(&simple(listen, service, &named(&list)));
    let answer = get(listen, "/").unwrap();
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (502, Some("connect_failed")));
    assert_eq!(ringway.metric("ringway_retries_total{service=\"s\"}"), 15.0);
    assert!(up.requests().is_empty());
}

#[test]
fn panic_serves_every_key_while_one_backend_is_up() {
    for (count, balance) in [
        (4, "hash_key: [ { path: {} } ]"),
        (30, "hash_key: [ { path: {} } ]"),
        (30, "policy: round_robin"),
        (30, "policy: least_request"),
        (30, "policy: p2c"),
        (30, "policy: peak_ewma"),
    ] {
        let up = Backend::echo("up");
        let list = one_of(count, &up);
        let listen = free_address();
        let service = format!("balance: {{ {balance} }}\nhealth: {{ tcp: {{}}, interval: 50ms, fall: 1, rise: 1 }}");
        let ringway = Ringway::start(&simple(listen, &service, &named(&list)));
        wait_for("the others to be down", || {
            let status = ringway.status();
            let backends = status["services"][0]["backends"].as_array()?.clone();
            let down = backends.iter().filter(|backend| backend["state"] == "down").count();
            (down == count - 1 && status["services"][0]["panic"] == true).then_some(())
        });
        for key in 0..60 {
            assert_eq!(get(listen, &format!("/{key}")).unwrap().status, 200, "{balance}");
        }
        // Those that are known to be up come first: nobody else was asked.
        assert_eq!(ringway.metric("ringway_retries_total{service=\"s\"}"), 0.0, "{balance}");
        if balance.starts_with("hash_key") {
            let arguments = ["explain", "--admin", &ringway.admin.to_string(), "--service", "s", "--key", "/1"];
            let text = String::from_utf8(crate::common::ringway(&arguments).stdout).unwrap();
            let last = format!("b{:02}", count - 1);
            assert!(text.contains("panic ") && text.contains(&format!("goes to     {last}")), "{text}");
            let tried = text.lines().filter(|line| line.trim_start().starts_with('b') && line.contains("in flight"));
            assert_eq!(tried.count(), count.min(16), "{text}");
        }
    }
}

#[test]
fn a_stale_connection_costs_an_idempotent_request_no_try_and_another_is_never_sent_again() {
    // Answers the first request of each connection, and closes it when the second has come.
    let backend = Backend::custom(|mut stream, seen| {
        for first in [true, false] {
            let Some((head, _)) = read_request(&mut stream) else { return };
            seen.lock().unwrap().push(head);
            if first {
                let _ = stream.write_all(response("200 OK", "", "ok").as_bytes());
            }
        }
    });
    let listen = free_address();
    let config =
        simple(listen, "retry: { attempts: 0 }\noutlier: { consecutive_failures: 0 }", &[("a", backend.address)]);
    let ringway = Ringway::start(&config.replace("workers: 2", "workers: 1"));
    assert_eq!(get(listen, "/1").unwrap().status, 200);
    assert_eq!(get(listen, "/2").unwrap().status, 200);
    let paths = || backend.requests().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(paths(), ["/1", "/2", "/2"]);
    assert_eq!(ringway.metric("ringway_retries_total{service=\"s\"}"), 0.0);
    let answer = post(listen, "/3");
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (502, Some("upstream_closed")));
    assert_eq!(paths(), ["/1", "/2", "/2", "/3"]);
}

#[test]
fn a_requests_own_retries_take_one_place_of_the_services_limit() {
    let closing = || Backend::custom(|mut stream, _| drop(read_request(&mut stream)));
    let (one, two, good) = (closing(), closing(), Backend::echo("good"));
    let listen = free_address();
    let service = "balance: { policy: first }\nretry: { attempts: 3 }\nlimits: { retries_max: 1 }\noutlier: { consecutive_failures: 0 }";
    let fleet = [("a", one.address), ("b", two.address), ("c", good.address)];
    let ringway = Ringway::start(&simple(listen, service, &fleet));
    for _ in 0..3 {
        assert_eq!(get(listen, "/").unwrap().text(), "good");
    }
    assert_eq!(ringway.metric("ringway_retries_total{service=\"s\"}"), 6.0);
}
