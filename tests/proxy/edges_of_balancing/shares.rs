//! Who gets what is left by whom: counted, over one connection and over many, beside HAProxy where it is there.

use crate::common::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

type Counts = BTreeMap<String, usize>;

/// Who has answered so many requests, sent one after the other over each of so many connections.
fn counts(listen: SocketAddr, requests: usize, connections: usize) -> Counts {
    let (left, counts) = (Arc::new(AtomicUsize::new(requests)), Arc::new(Mutex::new(Counts::new())));
    let client = || {
        let (left, counts) = (Arc::clone(&left), Arc::clone(&counts));
        move || {
            let mut stream = send(listen, b"");
            while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
                let answer = read_answer(&mut stream, true).expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text());
                *counts.lock().unwrap().entry(answer.text()).or_insert(0) += 1;
            }
        }
    };
    let clients: Vec<_> = (0..connections).map(|_| std::thread::spawn(client())).collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let counts = counts.lock().unwrap().clone();
    assert_eq!(counts.values().sum::<usize>(), requests);
    counts
}

/// Nobody else than these has any, and each has so many, within two percent and a turn.
fn assert_turns(counts: &Counts, due: &[(&str, usize)], what: &str) {
    for (id, due) in due {
        let has = counts.get(*id).copied().unwrap_or(0);
        assert!(has.abs_diff(*due) <= due / 50 + 1, "{what}: {id} is due {due}: {counts:?}");
    }
    assert_eq!(counts.len(), due.len(), "{what}: {counts:?}");
}

/// As [`assert_turns`], within five standard deviations of a count.
fn assert_drawn(counts: &Counts, due: &[(&str, usize)], what: &str) {
    let sum: usize = due.iter().map(|(_, due)| due).sum();
    for (id, due) in due {
        let has = counts.get(*id).copied().unwrap_or(0);
        let part = *due as f64 / sum as f64;
        let noise = 5.0 * (*due as f64 * (1.0 - part)).sqrt() + 2.0;
        assert!(has.abs_diff(*due) as f64 <= noise, "{what}: {id} is due {due}: {counts:?}");
    }
    assert_eq!(counts.len(), due.len(), "{what}: {counts:?}");
}

fn workers(config: String, workers: usize) -> String {
    config.replace("workers: 2", &format!("workers: {workers}"))
}

fn drained(config: &str, ids: &[&str]) -> String {
    ids.iter()
        .fold(config.to_owned(), |text, id| text.replace(&format!("id: {id},"), &format!("id: {id}, drain: true,")))
}

/// A real HAProxy over these servers, with their options, once so many are down for its checks.
fn haproxy(
    balance: &str,
    servers: &[(&str, SocketAddr, &str)],
    down: usize,
) -> (SocketAddr, Running, tempfile::TempDir) {
    let (listen, directory) = (free_address(), tempfile::tempdir().unwrap());
    let socket = directory.path().join("stats");
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn 500\n  stats socket {}\ndefaults\n  mode http\n  timeout connect 10s\n  timeout client 60s\n  \
         timeout server 60s\n  timeout check 10s\nlisten web\n  bind {listen}\n  balance {balance}\n",
        path_text(&socket)
    );
    for (id, address, options) in servers {
        text.push_str(&format!("  server {id} {address} {options}\n"));
    }
    let path = directory.path().join("haproxy.cfg");
    std::fs::write(&path, text).unwrap();
    let mut command = std::process::Command::new("haproxy");
    command.arg("-db").arg("-f").arg(path).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let running = Running(command.spawn().unwrap());
    wait_for("HAProxy to know who is down", || {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).ok()?;
        stream.write_all(b"show stat\n").ok()?;
        let mut told = String::new();
        std::io::Read::read_to_string(&mut stream, &mut told).ok()?;
        (told.matches(",DOWN,").count() == down && TcpStream::connect(listen).is_ok()).then_some(())
    });
    (listen, running, directory)
}

/// Everybody for whom HAProxy answers, counted as [`counts`] does; `None` without HAProxy.
fn haproxy_counts(
    balance: &str,
    servers: &[(&str, SocketAddr, &str)],
    down: usize,
    connections: usize,
) -> Option<Counts> {
    require("haproxy")?;
    let (listen, _running, _directory) = haproxy(balance, servers, down);
    Some(counts(listen, 600, connections))
}

#[test]
fn what_three_of_six_leave_is_had_by_the_other_three_alike_drained_or_down() {
    let fleet = echoes(6);
    // Nobody listens where a, b and c are down.
    let nobody: Vec<(&str, SocketAddr)> = ["a", "b", "c"].into_iter().map(|id| (id, free_address())).collect();
    let mut half_down = targets(&fleet);
    half_down.splice(..3, nobody);
    let due = [("d", 200), ("e", 200), ("f", 200)];
    for (number, connections) in [(1, 1), (1, 16), (4, 16)] {
        let listen = free_address();
        let whole = workers(simple(listen, "balance: { policy: round_robin }", &targets(&fleet)), number);
        let _ringway = Ringway::start(&drained(&whole, &["a", "b", "c"]));
        assert_turns(&counts(listen, 600, connections), &due, "drained");

        let listen = free_address();
        let service = "balance: { policy: round_robin }\nhealth: { tcp: {}, interval: 100ms, timeout: 60s, fall: 1 }";
        let ringway = Ringway::start(&workers(simple(listen, service, &half_down), number));
        for id in ["a", "b", "c"] {
            wait_for("the checks", || (backend_status(&ringway, id)["state"] == "down").then_some(()));
        }
        assert_turns(&counts(listen, 600, connections), &due, "down");
    }
    // HAProxy in the same two states.
    let server = |options: &'static str, away: &'static str| {
        move |(index, (id, address)): (usize, &(&'static str, SocketAddr))| {
            (*id, *address, if index < 3 { away } else { options })
        }
    };
    let targets = targets(&fleet);
    let servers: Vec<_> = targets.iter().enumerate().map(server("", "weight 0")).collect();
    for connections in [1, 16] {
        let Some(counts) = haproxy_counts("roundrobin", &servers, 0, connections) else { return };
        assert_turns(&counts, &due, "HAProxy, drained");
    }
    let check = "check inter 100ms fall 1 rise 1";
    let servers: Vec<_> = half_down.iter().enumerate().map(server(check, check)).collect();
    let Some(counts) = haproxy_counts("roundrobin", &servers, 3, 16) else { return };
    assert_turns(&counts, &due, "HAProxy, down");
}

#[test]
fn what_three_of_six_leave_goes_to_the_other_three_while_nobody_knows_that_they_are_gone() {
    let fleet = echoes(6);
    let nobody: Vec<(&str, SocketAddr)> = ["a", "b", "c"].into_iter().map(|id| (id, free_address())).collect();
    let mut stopped = targets(&fleet);
    stopped.splice(..3, nobody);
    for policy in ["round_robin", "random", "p2c", "least_request"] {
        let listen = free_address();
        // Nobody is checked, and nobody ejected.
        let service = format!("balance: {{ policy: {policy} }}\noutlier: {{ consecutive_failures: 0 }}");
        let ringway = Ringway::start(&simple(listen, &service, &stopped));
        for connections in [1, 16] {
            let counts = counts(listen, 600, connections);
            assert_drawn(&counts, &[("d", 200), ("e", 200), ("f", 200)], policy);
        }
        assert_eq!(backend_status(&ringway, "a")["state"], "up", "{policy}");
    }
}

#[test]
fn what_is_left_by_neighbours_or_by_a_heavy_one_goes_to_the_others_by_weight() {
    let fleet = echoes(6);
    let weighed = |config: String| {
        ["a", "b", "c", "d"].into_iter().zip([100, 10, 100, 50]).fold(config, |text, (id, weight)| {
            text.replace(&format!("id: {id},"), &format!("id: {id}, weight: {weight},"))
        })
    };
    for policy in ["round_robin", "random", "p2c", "least_request"] {
        let assert_due = if policy == "round_robin" { assert_turns } else { assert_drawn };
        let service = format!("balance: {{ policy: {policy} }}");
        let listen = free_address();
        let whole = simple(listen, &service, &targets(&fleet));
        let ringway = Ringway::start(&drained(&whole, &["b", "c", "d", "e"]));
        assert_due(&counts(listen, 600, 1), &[("a", 300), ("f", 300)], policy);
        drop(ringway);

        let listen = free_address();
        let four = weighed(simple(listen, &service, &targets(&fleet)[..4]));
        let ringway = Ringway::start(&drained(&four, &["a"]));
        assert_due(&counts(listen, 640, 1), &[("b", 40), ("c", 400), ("d", 200)], policy);
        drop(ringway);
    }
    let targets = targets(&fleet);
    let servers: Vec<_> = ["weight 0", "weight 10", "weight 100", "weight 50"]
        .into_iter()
        .zip(&targets)
        .map(|(options, (id, address))| (*id, *address, options))
        .collect();
    let Some(counts) = haproxy_counts("roundrobin", &servers, 0, 1) else { return };
    assert_turns(&counts, &[("b", 38), ("c", 375), ("d", 187)], "HAProxy");
}

#[test]
fn a_backend_in_slow_start_takes_its_part_and_the_others_share_the_rest_alike() {
    let fleet = echoes(6);
    for policy in ["round_robin", "random", "p2c", "least_request", "peak_ewma"] {
        let listen = free_address();
        let service = format!("balance: {{ policy: {policy} }}\nslow_start: {{ window: 10h, initial_percent: 10 }}");
        let whole = workers(simple(listen, &service, &targets(&fleet)), 3);
        let without: String =
            whole.lines().filter(|line| !line.contains("id: c,")).map(|line| format!("{line}\n")).collect();
        let ringway = Ringway::start(&without);
        // All have been measured, for who goes by that.
        counts(listen, 60, 1);
        ringway.reconfigure(&whole);
        for connections in [1, 16] {
            let counts = counts(listen, 600, connections);
            // A tenth of a member's part is 12 of 600; who goes by latency has to find out how fast it is.
            let newcomer = counts.get("c").copied().unwrap_or(0);
            let (least, most) = match policy {
                "peak_ewma" => (1, 60),
                "p2c" | "least_request" => (1, 40),
                _ => (2, 29),
            };
            assert!((least..=most).contains(&newcomer), "{policy}: {counts:?}");
            let others: Vec<usize> = ["a", "b", "d", "e", "f"].iter().map(|id| counts[*id]).collect();
            let due = (600 - newcomer) / 5;
            // Five standard deviations; in turn, two percent.
            let noise = if policy == "round_robin" { due / 50 + 2 } else { 50 };
            // Latencies are what they are here, and so is load where several requests are under way: who goes by them is held to have
            // forgotten nobody.
            let by_load = policy == "peak_ewma" || connections > 1 && matches!(policy, "p2c" | "least_request");
            let is_even = |count: &usize| if by_load { *count > 0 } else { count.abs_diff(due) <= noise };
            assert!(others.iter().all(is_even), "{policy}, {connections} connections: {counts:?}");
        }
    }
}

#[test]
fn one_request_at_a_time_is_shared_by_weight_by_policies_that_look_at_loads() {
    let fleet = echoes(6);
    for policy in ["least_request", "p2c"] {
        let listen = free_address();
        let service = format!("balance: {{ policy: {policy} }}");
        let _equal = Ringway::start(&workers(simple(listen, &service, &targets(&fleet)), 4));
        let due = ["a", "b", "c", "d", "e", "f"].map(|id| (id, 100));
        assert_drawn(&counts(listen, 600, 1), &due, policy);

        let listen = free_address();
        let three = simple(listen, &service, &targets(&fleet)[..3])
            .replace("id: b,", "id: b, weight: 50,")
            .replace("id: c,", "id: c, weight: 200,");
        let _weighed = Ringway::start(&three);
        let counts = counts(listen, 700, 1);
        assert_drawn(&counts, &[("a", 200), ("b", 100), ("c", 400)], policy);
        assert!(counts["b"] < counts["a"] && counts["a"] < counts["c"], "{policy}: {counts:?}");
    }
    // HAProxy lets nobody starve either.
    let targets = targets(&fleet);
    let servers: Vec<_> = ["weight 100", "weight 50", "weight 200"]
        .into_iter()
        .zip(&targets)
        .map(|(options, (id, address))| (*id, *address, options))
        .collect();
    let Some(counts) = haproxy_counts("leastconn", &servers, 0, 1) else { return };
    assert!(counts.len() == 3 && counts.values().all(|&count| count > 60), "{counts:?}");
}

#[test]
fn turns_go_on_where_they_were_however_often_the_file_changes() {
    let fleet = echoes(5);
    let listen = free_address();
    let whole = |connect: u32| {
        let service = format!("balance: {{ policy: round_robin }}\ntimeouts: {{ connect: {connect}s }}");
        simple(listen, &service, &targets(&fleet))
    };
    let ringway = Ringway::start(&whole(1));
    let mut all = Counts::new();
    for generation in 0..20 {
        for (id, count) in counts(listen, 3, 1) {
            *all.entry(id).or_insert(0) += count;
        }
        ringway.reconfigure(&whole(2 + generation));
    }
    assert_turns(&all, &["a", "b", "c", "d", "e"].map(|id| (id, 12)), "after twenty reloads");
}

/// Answers `GET /held` never, anything else at once.
fn holding(name: &'static str) -> Backend {
    scripted(move |head| {
        if head.starts_with("GET /held ") {
            std::thread::park();
        }
        response("200 OK", "", name)
    })
}

/// What the table of `all_full` in docs/balancing.md says, cell by cell: a is at its hard limit, and b and c are at their bound or at
/// their hard limits too.
#[test]
fn when_all_are_full_the_choice_decides_as_far_as_hard_limits_let_it() {
    for (all_full, at_bound, at_limit) in [
        ("owner", (200, ""), (503, "all_backends_full")),
        ("least_loaded", (200, ""), (503, "all_backends_full")),
        ("queue", (503, "queue_timeout"), (503, "queue_timeout")),
        ("reject", (503, "all_backends_full"), (503, "all_backends_full")),
    ] {
        for (limit, expected) in [("", at_bound), ("requests_max: 2, ", at_limit)] {
            let fleet: Vec<_> = ["a", "b", "c"].into_iter().map(|id| (id, holding(id))).collect();
            let listen = free_address();
            let service = format!(
                "balance: {{ policy: hrw, hash_key: [ {{ header: x-key }} ], bounded_load: {{ preset: strict, factor: 1.0, \
                 all_full: {all_full}, queue: {{ timeout: 300ms }} }} }}"
            );
            let config = simple(listen, &service, &targets(&fleet))
                .replace("id: a,", "id: a, requests_max: 1,")
                .replace("{ id: b,", &format!("{{ {limit}id: b,"))
                .replace("{ id: c,", &format!("{{ {limit}id: c,"));
            let ringway = Ringway::start(&config);
            let in_flight = |count: u64| {
                wait_for("requests to be held", || {
                    (ringway.status()["services"][0]["in_flight"] == count).then_some(())
                });
            };
            // One for a; then of five two are for each of the others, to whom a third of the load is due.
            let held: Vec<TcpStream> = (0..5_u64)
                .map(|number| {
                    let stream =
                        send(listen, format!("GET /held HTTP/1.1\r\nHost: t\r\nX-Key: {number}\r\n\r\n").as_bytes());
                    in_flight(number + 1);
                    stream
                })
                .collect();
            let carried = |id: &str| backend_status(&ringway, id)["in_flight"].as_u64().unwrap();
            assert_eq!(["a", "b", "c"].map(carried), [1, 2, 2], "{all_full}");
            let answer = get_with(listen, "/", "X-Key: 5\r\n").unwrap();
            let reason = answer.header("x-ringway-reason").unwrap_or("");
            assert_eq!((answer.status, reason), expected, "{all_full}, {limit:?}");
            drop(held);
        }
    }
}
