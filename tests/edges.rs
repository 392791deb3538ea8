//! The architecture as tests: which crate may know which, which file of a crate which other, and what the pure crates stay
//! away from.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "edges/graph.rs"]
mod graph;
#[path = "edges/made_up.rs"]
mod made_up;
#[path = "edges/paths.rs"]
mod paths;
#[path = "edges/resolve.rs"]
mod resolve;
#[path = "edges/rooms.rs"]
mod rooms;
#[path = "edges/screens.rs"]
mod screens;
#[path = "edges/sources.rs"]
mod sources;

use std::collections::BTreeSet;
use std::process::Command;

/// Every edge between crates of ours. A new one is a decision: docs/decisions/.
const EDGES: &[(&str, &str)] = &[
    ("ringway", "ringway-config"),
    ("ringway", "ringway-control"),
    ("ringway", "ringway-fleet"),
    ("ringway", "ringway-proxy"),
    ("ringway", "ringway-telemetry"),
    ("ringway-proxy", "ringway-ring"),
    ("ringway-proxy", "ringway-health"),
    ("ringway-proxy", "ringway-http1"),
    ("ringway-http1", "ringway-message"),
    ("ringway-http2", "ringway-message"),
    ("ringway-proxy", "ringway-message"),
    ("ringway-proxy", "ringway-http2"),
    ("ringway-proxy", "ringway-config"),
    ("ringway-proxy", "ringway-telemetry"),
    ("ringway-proxy", "ringway-tls"),
    ("ringway-proxy", "ringway-page"),
    ("ringway-proxy", "ringway-places"),
    ("ringway-control", "ringway-config"),
    ("ringway-control", "ringway-ring"),
    ("ringway-control", "ringway-telemetry"),
    ("ringway-control", "ringway-tls"),
    ("ringway-control", "ringway-page"),
    ("ringway-control", "ringway-places"),
    ("ringway-fleet", "ringway-config"),
    ("ringway-fleet", "ringway-control"),
    ("ringway-fleet", "ringway-proxy"),
    ("ringway-config", "ringway-ring"),
    ("ringway-config", "ringway-health"),
    ("ringway-benches", "ringway-config"),
    ("ringway-benches", "ringway-control"),
    ("ringway-benches", "ringway-proxy"),
    ("ringway-benches", "ringway-ring"),
    ("ringway-benches", "ringway-http1"),
];
const PURE: &[&str] = &["ring", "health", "message", "http1", "http2"];
/// What a pure crate may be built from.
// loom is a model checker, under `--cfg loom` only. safe_arch is instructions of the processor: those that tell time are banned by
// message/clippy.toml.
const PURE_DEPENDENCIES: &[&str] =
    &["arc-swap", "loom", "memchr", "ringway-message", "safe_arch", "thiserror", "xxhash-rust"];

fn packages() -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn dependencies(package: &serde_json::Value) -> Vec<String> {
    let list = package["dependencies"].as_array().unwrap().iter().filter(|dependency| dependency["kind"] != "dev");
    list.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn crates_know_only_those_that_the_architecture_lets_them() {
    let packages = packages();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let mut found = BTreeSet::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        for dependency in dependencies(package).iter().filter(|dependency| ours.contains(dependency.as_str())) {
            found.insert((name.to_owned(), dependency.clone()));
        }
    }
    let allowed: BTreeSet<(String, String)> = EDGES.iter().map(|(from, to)| ((*from).into(), (*to).into())).collect();
    assert_eq!(found.difference(&allowed).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
}

#[test]
fn the_proxy_asks_for_the_time_in_one_place() {
    let lints = std::fs::read_to_string(format!("{}/proxy/clippy.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
    for banned in ["std::time::Instant", "std::time::SystemTime", "tokio::time::Instant"] {
        for method in ["now", "elapsed"] {
            assert!(lints.contains(&format!("\"{banned}::{method}\"")));
        }
    }
    let root = format!("{}/proxy/src", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("grep").args(["-rl", "clippy::disallowed_methods", &root]).output().unwrap();
    let allowed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(allowed.lines().collect::<Vec<_>>(), [format!("{root}/ambient.rs")]);
}

#[test]
fn pure_crates_have_no_clock_no_sockets_no_randomness() {
    for package in packages() {
        let name = package["name"].as_str().unwrap().trim_start_matches("ringway-").to_owned();
        if PURE.contains(&name.as_str()) {
            for dependency in dependencies(&package) {
                assert!(PURE_DEPENDENCIES.contains(&dependency.as_str()), "{name} is pure and depends on {dependency}");
            }
        }
    }
    for name in PURE {
        let lints = std::fs::read_to_string(format!("{}/{name}/clippy.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for banned in ["Instant::now", "SystemTime::now", "env::var", "TcpStream::connect", "thread::spawn"] {
            assert!(lints.contains(banned), "{name}/clippy.toml does not ban {banned}");
        }
    }
}
