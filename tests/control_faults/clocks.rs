//! Clocks that are an hour apart, and jump: the control plane shows the time, and decides nothing by it.

use crate::client;
use crate::cluster::Cluster;
use crate::common::{output, pace, require, wait_for};
use crate::random::Random;
use crate::witness::Witness;
use crate::workload::{self, Workload};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The library that tells a process another time.
fn library() -> Option<PathBuf> {
    require("faketime")?;
    let found = output("sh", &["-c", "find /usr/lib /lib -name 'libfaketimeMT.so.1' | head -n 1"]);
    let path = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
    assert!(path.is_file(), "faketime is here, and its library is not");
    Some(path)
}

/// Seconds from the true time; read again at every look at the clock.
fn set(clock: &Path, seconds: i64) {
    let beside = clock.with_extension("new");
    std::fs::write(&beside, format!("{seconds:+}s\n")).unwrap();
    std::fs::rename(&beside, clock).unwrap();
}

/// The time that a member puts beside a change.
fn time_of(api: SocketAddr) -> u64 {
    let body = json!({ "address": "127.0.0.1:9", "source": format!("at-{}", api.port()) });
    let done = wait_for("a write to be taken", || client::json(api, "PUT", "/v1/objects/backend/clock/c", &body).ok());
    let change = client::must(api, "GET", &format!("/v1/history/{}", done["revision"]), &Value::Null);
    change["at_ms"].as_u64().unwrap()
}

#[test]
fn clocks_that_are_wrong_and_jump_change_nothing() {
    let Some(library) = library() else { return };
    let mut random = Random::from_environment("clocks_that_are_wrong_and_jump_change_nothing");
    let directory = tempfile::tempdir().unwrap();
    let clocks: Vec<PathBuf> = (1..=3).map(|number| directory.path().join(format!("clock-{number}"))).collect();
    for (clock, hours) in clocks.iter().zip([-1, 0, 1]) {
        set(clock, hours * 3600);
    }
    let mut cluster = Cluster::with("clocks", 3, &mut random, |member| {
        let clock = &clocks[member.number - 1];
        member.environment = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            // As clocks are: the one that intervals are taken from does not jump.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    });
    let apis = cluster.apis();
    let (early, late) = (time_of(apis[0]), time_of(apis[2]));
    assert!(late - early > 7_000_000, "the clocks are not apart: {early}, {late}");

    let leader = cluster.settled();
    let term = cluster.member(leader).status().unwrap()["member"]["term"].clone();
    let witness = Witness::start(&apis);
    let nowhere: Vec<SocketAddr> = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
    let mut workload = Workload::start(&apis, &nowhere, &mut random);
    let (begun, mut jumps) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(3) {
        let clock: &PathBuf = random.pick(&clocks);
        set(clock, random.below(2 * 86_400) as i64 - 86_400);
        jumps += 1;
        pace(Duration::from_millis(100));
    }
    workload.stop();
    workload.read_all();
    workload::abandoned_lease_expires(apis[0]);
    let log = witness.finish(apis[0]);
    workload.check(&log);
    let now = cluster.settled();
    let status = cluster.member(now).status().unwrap();
    println!("{jumps} jumps, {}; term {term} before, {} after", workload.summary(), status["member"]["term"]);
}
