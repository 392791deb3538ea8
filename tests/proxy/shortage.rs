//! What this host has run out of is nobody else's fault.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Two listeners on one service with quick checks.
fn config(http: SocketAddr, tcp: SocketAddr, backends: &[(&str, SocketAddr)]) -> String {
    let service = "health: { tcp: {}, interval: 50ms, fall: 1, rise: 1 }\nlimits: { requests_max: 100000 }";
    simple(http, service, backends).replace(
        "service: s } ]",
        &format!("service: s }}, {{ name: raw, protocol: tcp, address: \"{tcp}\", service: s }} ]"),
    )
}

/// Answers requests, closing after each; holds connections that say nothing.
fn holder(name: &'static str) -> Backend {
    Backend::custom(move |mut stream, _| {
        if read_request(&mut stream).is_some() {
            let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n{name}");
            let _ = stream.write_all(answer.as_bytes());
        }
    })
}

fn checks(ringway: &Ringway, result: &str) -> f64 {
    ringway.counter(&format!("ringway_checks_total{{service=\"s\",result=\"{result}\"}}"))
}

fn assert_nobody_is_blamed(ringway: &Ringway) {
    for backend in ringway.status()["services"][0]["backends"].as_array().unwrap() {
        assert_eq!((&backend["state"], &backend["consecutive_failures"]), (&"up".into(), &0.into()), "{backend}");
    }
    let text = get(ringway.admin, "/metrics").or_not_yet().text();
    for line in text.lines().filter(|line| line.starts_with("ringway_backend_failures_total{")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
    for change in ["to=\"down\"", "to=\"ejected\"", "to=\"panic_began\"", "result=\"failure\""] {
        assert!(!text.lines().any(|line| !line.starts_with('#') && line.contains(change)), "{change}: {text}");
    }
}

#[test]
fn slots_filled_blame_no_backend_and_the_admin_listener_answers() {
    let (a, b) = (holder("a"), holder("b"));
    let (http, tcp) = (free_address(), free_address());
    let ringway = Ringway::start_with_descriptors(90, &config(http, tcp, &[("a", a.address), ("b", b.address)]));
    assert!(ringway.log().contains("connections_max 100000") && ringway.log().contains("may have 90"), "no warning");
    wait_for("checks", || (checks(&ringway, "success") >= 4.0).then_some(()));
    let before = ringway.log().lines().count();
    // Far more than there are descriptors for; the kernel takes them all.
    let raw: Vec<_> = (0..150).map(|_| send(tcp, b"x")).collect();
    let kept: Vec<_> = (0..150).map(|_| send(http, b"GET / HTTP/1.1\r\nHost: a\r\n")).collect();
    let made = checks(&ringway, "success");
    wait_for("checks to go on", || (checks(&ringway, "success") >= made + 60.0).then_some(()));
    assert_nobody_is_blamed(&ringway);
    assert!(ringway.metric("ringway_downstream_connections") >= 10.0, "some are served");
    // At most one line a second of each kind of thing.
    let lines = ringway.log().lines().count() - before;
    assert!(lines <= 100, "{lines} lines: {}", ringway.log());
    drop((raw, kept));
    for _ in 0..20 {
        wait_for("an answer", || (get(http, "/")?.status == 200).then_some(()));
    }
    let mut session = send(tcp, b"GET / HTTP/1.1\r\n\r\n");
    let mut answer = String::new();
    session.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_nobody_is_blamed(&ringway);
}

#[test]
fn what_cannot_be_opened_for_want_of_descriptors_is_no_failure_of_a_backend_nor_a_check() {
    let (a, b) = (holder("a"), holder("b"));
    let (http, tcp) = (free_address(), free_address());
    let ringway = Ringway::start(&config(http, tcp, &[("a", a.address), ("b", b.address)]));
    let mut kept = send(http, b"");
    let ask = |kept: &mut TcpStream| {
        kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_answer(kept, true).expect("the connection is kept")
    };
    assert_eq!(ask(&mut kept).status, 200);
    wait_for("checks", || (checks(&ringway, "success") >= 4.0).then_some(()));
    // Sessions that take more than the process does for itself.
    let held: Vec<_> = (0..30).map(|_| send(tcp, b"x")).collect();
    wait_for("the sessions", || (ringway.status()["services"][0]["in_flight"] == 30).then_some(()));
    let pid = Pid::from_raw(i32::try_from(ringway.pid()).unwrap());
    // Connections of checks and of the admin listener come and go: what counts is what stays open, without a gap.
    let numbers = || -> BTreeSet<u64> {
        let list = std::fs::read_dir(format!("/proc/{}/fd", ringway.pid())).unwrap().flatten();
        list.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect()
    };
    let stays = (0..20).fold(numbers(), |stays, _| {
        pace(Duration::from_millis(10));
        stays.intersection(&numbers()).copied().collect()
    });
    let open = (0..).find(|number| !stays.contains(number)).unwrap();
    let limit =
        |most: u64| prlimit(pid, Resource::Nofile, Rlimit { current: Some(most), maximum: Some(4096) }).unwrap();
    limit(open + 2);
    let refused = wait_for("a shortage", || Some(ask(&mut kept)).filter(|answer| answer.status != 200));
    assert_eq!((refused.status, refused.header("x-ringway-reason")), (503, Some("local_shortage")));
    wait_for("checks that cannot be made", || (checks(&ringway, "not_made") >= 3.0).then_some(()));
    // What checks and the admin listener give back for a moment, a request may have; nothing else becomes of it.
    let mut refused = 0;
    wait_for("thirty refusals", || {
        let answer = ask(&mut kept);
        match answer.header("x-ringway-reason") {
            Some("local_shortage") => refused += 1,
            reason => assert_eq!((answer.status, reason), (200, None)),
        }
        (refused >= 30).then_some(())
    });
    assert_nobody_is_blamed(&ringway);
    let counted = |operation: &str| {
        let line = format!("ringway_local_shortage_total{{operation=\"{operation}\",resource=\"descriptors\"}}");
        ringway.counter(&line)
    };
    assert!(counted("connect") >= 30.0 && counted("check") >= 3.0);
    let lines = ringway.log().lines().filter(|line| line.contains("this host is short of")).count();
    assert!((1..=60).contains(&lines), "{lines} lines");
    limit(4096);
    drop(held);
    wait_for("an end of the shortage", || (ask(&mut kept).status == 200).then_some(()));
    let made = checks(&ringway, "success");
    wait_for("checks", || (checks(&ringway, "success") >= made + 4.0).then_some(()));
    assert_nobody_is_blamed(&ringway);
}
