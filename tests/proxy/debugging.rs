//! What an operator finds out of a running proxy, and has it say, without a restart: its log, its workers, the life of a request.

use crate::common::control::ringway_said;
use crate::common::peers::curl_body;
use crate::common::{Backend, Ringway, free_address, get, require, send, wait_for};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A proxy with a Unix socket, by which one may operate.
struct Rig {
    ringway: Ringway,
    web: SocketAddr,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Rig {
    fn new(backends: &[(&str, SocketAddr)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (web, socket) = (free_address(), directory.path().join("admin.sock"));
        let backends: Vec<String> =
            backends.iter().map(|(id, address)| format!("{{ id: {id}, address: \"{address}\" }}")).collect();
        let file = format!(
            "workers: 2\nadmin: {{ address: \"ADMIN\", socket: {{ path: {socket:?} }} }}\n\
             listeners: [ {{ name: web, address: \"{web}\", service: s }} ]\n\
             services: [ {{ name: s, balance: {{ hash_key: [ {{ path: {{}} }} ] }}, backends: [ {} ] }} ]\n",
            backends.join(", ")
        );
        Self { ringway: Ringway::start(&file), web, socket, _directory: directory }
    }

    /// Runs a command against the socket: its exit code, and all that it says.
    fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let said = ringway_said(&[args, &["--admin", &format!("unix:{}", self.socket.display())]].concat());
        (said.status.code(), format!("{}{}", said.text(), String::from_utf8_lossy(&said.err)))
    }

    /// Asks the socket by curl.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let (socket, body) = (self.socket.display().to_string(), body.to_string());
        let url = format!("http://localhost{path}");
        let said = curl_body(&["-sS", "--unix-socket", &socket, "-X", method, "-d", &body, &url]);
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

#[test]
fn the_log_says_more_for_a_time_and_goes_back_by_itself() {
    let Some(()) = require("curl") else { return };
    let backend = Backend::echo("a");
    let rig = Rig::new(&[("a", backend.address)]);
    let shown = |rig: &Rig| rig.ask("GET", "/log", &Value::Null);
    let start = shown(&rig)["filter"].clone();
    assert_eq!(shown(&rig), json!({ "filter": start, "start": start, "changed": null }));
    // Reloads that change nothing are told at `info`.
    let told = || rig.ringway.log().matches("configuration unchanged").count();
    let reload = || assert_eq!(rig.run(&["reload"]).0, Some(0));
    reload();
    wait_for("a line", || (told() == 1).then_some(()));
    let (code, said) = rig.run(&["log", "--filter", "warn,ringway_proxy=error", "--for", "1h"]);
    assert!(code == Some(0) && said.starts_with("warn,ringway_proxy=error\nchanged by"), "{said}");
    reload();
    assert_eq!(told(), 1, "it says less");
    let changed = shown(&rig);
    assert_eq!((&changed["filter"], &changed["start"]), (&"warn,ringway_proxy=error".into(), &start));
    let left = changed["changed"]["seconds_left"].as_f64().unwrap();
    assert!((1.0..=3600.0).contains(&left), "{changed}");
    assert!(rig.run(&["log", "--back"]).1.contains("as at the start"));
    reload();
    wait_for("a line", || (told() == 2).then_some(()));
    // It goes back by itself.
    let changed = rig.ask("POST", "/log", &json!({ "filter": "error", "for_seconds": 1 }));
    assert_eq!(changed["filter"], "error");
    wait_for("the filter of the start", || (shown(&rig)["filter"] == start).then_some(()));
    reload();
    wait_for("a line", || (told() == 3).then_some(()));
    let events: Value = serde_json::from_slice(&get(rig.ringway.admin, "/events").unwrap().body).unwrap();
    let told: Vec<&str> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["to"] == "log")
        .map(|event| event["text"].as_str().unwrap())
        .collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[3].contains("its time is over"), "{told:?}");
    // Nonsense changes nothing, and whoever only may read changes nothing either.
    for (body, said) in [
        (json!({ "filter": "dbug" }), "no level"),
        (json!({ "filter": "debug", "for_seconds": 999_999_999_u64 }), "1 to 86400"),
        (json!({ "filter": "a".repeat(5000) }), "at most 1024 bytes"),
        (json!({ "filter": "[{x=\"(a+)+$\"}]=trace" }), "no level"),
    ] {
        let refused = rig.ask("POST", "/log", &body);
        assert!(refused["error"].as_str().unwrap().contains(said), "{refused}");
    }
    assert_eq!(shown(&rig)["filter"], start);
    let admin = rig.ringway.admin.to_string();
    let refused = ringway_said(&["log", "--filter", "debug", "--admin", &admin]);
    assert!(refused.status.code() == Some(1) && String::from_utf8_lossy(&refused.err).contains("token"));
}

#[test]
fn a_worker_is_looked_into_with_its_listeners_connections_and_backends() {
    let backend = Backend::echo("a");
    let rig = Rig::new(&[("a", backend.address)]);
    // Idle on either side: a connection that has had a request, and one in a pool.
    let mut idle = send(rig.web, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(crate::common::read_answer(&mut idle, true).unwrap().status, 200);
    let ask = |path: &str| -> Value { serde_json::from_slice(&get(rig.ringway.admin, path).unwrap().body).unwrap() };
    let one = wait_for("the worker that has them", || {
        let workers = ask("/workers");
        let all = workers["workers"].as_array().unwrap();
        assert!(all.len() == 2 && all.iter().all(|worker| worker["answers"] == true), "{workers:#}");
        all.iter()
            .find(|worker| worker["connections"] == 1)
            .map(|worker| ask(&format!("/workers/{}", worker["worker"])))
    });
    assert_eq!(one["connections_by"], json!([ { "kind": "http", "state": "idle", "count": 1 } ]), "{one:#}");
    assert_eq!((&one["under_way_by"], &one["backends"], &one["generation"]), (&json!([]), &1.into(), &1.into()));
    assert!(one["tasks"].as_u64() > Some(1) && one["timers"].as_u64() > Some(0), "{one:#}");
    let listener = json!({
        "name": "web", "address": rig.web.to_string(), "kind": "http", "open": true, "permits_taken": 1,
    });
    assert_eq!(one["listeners"], json!([listener]));
    let upstream = json!({ "service": "s", "backend": "a", "in_flight": 0, "idle": 1, "shared": 0, "streams": 0 });
    assert_eq!(one["upstreams"], json!([upstream]));
    let (code, said) = rig.run(&["workers"]);
    assert!(code == Some(0) && said.lines().count() == 3 && said.contains("answers"), "{said}");
    let (_, said) = rig.run(&["workers", &one["worker"].to_string(), "--limit", "5"]);
    assert!(said.contains("of 1 backends") && said.contains(&rig.web.to_string()), "{said}");
    for (path, status) in [
        ("/workers/2", 404),
        ("/workers/-1", 404),
        ("/workers/0?limit=0", 400),
        ("/workers/0?x=1", 400),
        ("/workers?x", 400),
    ] {
        assert_eq!(get(rig.ringway.admin, path).unwrap().status, status, "{path}");
    }
    assert_eq!(rig.run(&["workers", "7"]).0, Some(1));
}
