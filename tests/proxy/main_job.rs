//! The main job: real nginx backends, a real load generator, reloads, a backend killed and one stopped, no failed request.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

const SERVICE: &str = "balance: { hash_key: [ { path: {} } ], bounded_load: { preset: affinity } }\n\
                       health: { http: { path: /healthz }, interval: 200ms, timeout: 150ms, rise: 2, fall: 2 }\n\
                       outlier: { on: connection, consecutive_failures: 3, base_ejection: 1s, max_ejection: 2s }\n\
                       timeouts: { connect: 300ms, response: 500ms }";

fn config(listen: SocketAddr, extra: Option<SocketAddr>, fleet: &[Nginx], weights: &[u32]) -> String {
    let backends: Vec<(&str, SocketAddr)> =
        fleet.iter().zip(weights).map(|(nginx, _)| (nginx.id.as_str(), nginx.address)).collect();
    let mut text = simple(listen, SERVICE, &backends);
    for (nginx, weight) in fleet.iter().zip(weights) {
        text =
            text.replace(&format!("\"{}\" }}", nginx.address), &format!("\"{}\", weight: {weight} }}", nginx.address));
    }
    match extra {
        Some(extra) => {
            text.replace("listeners: [", &format!("listeners: [ {{ name: extra, address: \"{extra}\", service: s }},"))
        }
        None => text,
    }
}

const KEYS: usize = 100;

fn owner(listen: SocketAddr, key: usize) -> String {
    get(listen, &format!("/key-{key}")).or_not_yet().text().trim().to_owned()
}

/// Under load the bound may send a request away now and then: a key's owner is where it is found again soon.
fn expect_owner(listen: SocketAddr, key: usize, what: &str, is: impl Fn(&str) -> bool) {
    wait_for(&format!("key {key}: {what}"), || is(&owner(listen, key)).then_some(()));
}

#[test]
fn no_request_fails_through_reloads_a_kill_and_a_stop() {
    let (Some(mut fleet), Some(())) = (Nginx::fleet(5), require("h2load")) else { return };
    let (listen, extra) = (free_address(), free_address());
    let ringway = Ringway::start(&config(listen, None, &fleet[..4], &[100; 4]));
    let before: Vec<String> = (0..KEYS).map(|key| owner(listen, key)).collect();

    // 2,000 requests/s over 20 connections, 200 keys.
    let mut load = Command::new("h2load");
    load.args(["--h1", "-c", "20", "-t", "1", "--rps", "100", "-D", "16"]);
    load.args((0..200).map(|key| format!("http://{listen}/key-{key}")));
    let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the load", || {
        (ringway.counter("ringway_requests_total{service=\"s\",class=\"2xx\"}") >= 500.0).then_some(())
    });

    for round in 0..5 {
        let weights = [[100; 5], [100, 200, 100, 50, 100]][round % 2];
        ringway.reconfigure(&config(listen, None, &fleet, &weights));
        pace(Duration::from_millis(150));
        ringway.reconfigure(&config(listen, Some(extra), &fleet, &[100; 5]));
        pace(Duration::from_millis(150));
        ringway.reconfigure(&config(listen, Some(extra), &fleet[..4], &[100; 4]));
        pace(Duration::from_millis(150));
        ringway.reconfigure(&config(listen, None, &fleet[..4], &[150, 100, 100, 100]));
        pace(Duration::from_millis(150));
    }
    ringway.reconfigure(&config(listen, None, &fleet[..4], &[100; 4]));

    fleet[1].kill();
    takes(Duration::from_millis(1500));
    // While one is dead, its keys have moved, and no others.
    for (key, home) in before.iter().enumerate() {
        expect_owner(listen, key, "without n1", |found| if home == "n1" { found != "n1" } else { found == home });
    }
    fleet[1].bring_back();
    wait_for("the killed backend to be back", || {
        let status = ringway.status();
        let backend =
            status["services"][0]["backends"].as_array()?.iter().find(|backend| backend["id"] == "n1")?.clone();
        (backend["state"] == "up").then_some(())
    });
    signal(fleet[2].pid(), "STOP");
    takes(Duration::from_millis(1500));
    signal(fleet[2].pid(), "CONT");
    wait_for("the stopped backend to be back", || {
        let status = ringway.status();
        let all_up = status["services"][0]["backends"].as_array()?.iter().all(|backend| backend["state"] == "up");
        all_up.then_some(())
    });

    let output = load.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let counts = text.lines().find(|line| line.starts_with("requests:")).unwrap_or_else(|| panic!("{text}"));
    let codes = text.lines().find(|line| line.starts_with("status codes:")).unwrap();
    let total: u64 = counts.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(counts.contains(" 0 failed, 0 errored, 0 timeout"), "{counts}\n{codes}\n{}", ringway.log());
    assert!(codes.contains(" 0 3xx, 0 4xx, 0 5xx"), "{codes}\n{}", ringway.log());
    assert!(total >= 10_000, "the load was no load: {counts}");

    // Nothing has moved for good.
    for (key, home) in before.iter().enumerate() {
        expect_owner(listen, key, "home again", |found| found == home);
    }
    assert_eq!(ringway.metric("ringway_panics_total"), 0.0);
}
