//! Runtime changes and reloads on their way past each other: two operators, a file that changes meanwhile, backends that go and come back.

use crate::common::control::ringway_said;
use crate::common::{Backend, OrNotYet, Ringway, echoes, free_address, get, leave_time, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Three backends, of which a file has some; keys are paths.
struct Rig {
    ringway: Ringway,
    web: SocketAddr,
    fleet: Vec<(&'static str, Backend)>,
    directory: tempfile::TempDir,
}

impl Rig {
    fn new(more: &str) -> Self {
        let (fleet, directory, web) = (echoes(3), tempfile::tempdir().unwrap(), free_address());
        let ringway = Ringway::start(&Self::file(directory.path(), web, &fleet, more));
        Self { ringway, web, fleet, directory }
    }

    fn file(directory: &std::path::Path, web: SocketAddr, backends: &[(&str, Backend)], more: &str) -> String {
        let list: Vec<String> = backends
            .iter()
            .map(|(id, backend)| format!("      - {{ id: {id}, address: \"{}\" }}\n", backend.address))
            .collect();
        format!(
            "workers: 2\nadmin: {{ address: \"ADMIN\", socket: {{ path: {:?} }} }}\n\
             listeners: [ {{ name: web, address: \"{web}\", service: s }} ]\n\
             services:\n  - name: s\n    balance: {{ hash_key: [ {{ path: {{}} }} ]{more} }}\n    backends:\n{}",
            directory.join("admin.sock"),
            list.concat()
        )
    }

    /// A file with the first so many backends, and a comment.
    fn with(&self, count: usize, comment: &str) -> String {
        format!("# {comment}\n{}", Self::file(self.directory.path(), self.web, &self.fleet[..count], ""))
    }

    /// Runs a command; its JSON.
    fn ask(&self, args: &[&str]) -> Value {
        let unix = format!("unix:{}", self.directory.path().join("admin.sock").display());
        let said = ringway_said(&[args, &["--json", "--admin", &unix]].concat());
        assert!(said.status.success(), "{args:?}: {said:?}");
        said.json()
    }

    fn reloads(&self, result: &str) -> f64 {
        self.ringway.metric(&format!("ringway_reloads_total{{result=\"{result}\"}}"))
    }

    /// Who serves one key.
    fn served(&self, key: &str) -> BTreeSet<String> {
        (0..30).map(|_| get(self.web, key).or_not_yet().text()).collect()
    }
}

#[test]
fn a_file_that_somebody_has_had_read_is_not_read_again_by_itself() {
    let rig = Rig::new("");
    // Whoever comes first reads it: it is asked for until that is not the watcher.
    let counted = wait_for("a reload that comes before the watcher", || {
        let (applied, unchanged) = (rig.reloads("applied"), rig.reloads("unchanged"));
        let count = 2 + (applied as usize) % 2;
        rig.ringway.write_config(&rig.with(count, "a backend comes or goes"));
        let answer = rig.ask(&["reload"]);
        let was_first = !answer["changes"].as_array().or_not_yet().is_empty();
        was_first.then_some((applied + 1.0, unchanged, answer["generation"].clone()))
    });
    // For the watcher to look.
    leave_time(Duration::from_millis(400));
    let now = || (rig.reloads("applied"), rig.reloads("unchanged"), rig.ringway.status()["generation"].clone());
    assert_eq!(now(), counted);
    // It looks on: what nobody asks for is read.
    let before = rig.ringway.status()["generation"].as_u64().unwrap();
    rig.ringway.write_config(&rig.with(1, "one is left"));
    wait_for("the file to be followed", || (rig.ringway.status()["generation"] == before + 1).then_some(()));
    // A refusal ends although what was in force is what the file says again.
    let good = rig.with(1, "one is left");
    rig.ringway.write_config("nonsense: 1");
    wait_for("the refusal", || (rig.ringway.status()["last_reload"]["result"] == "refused").then_some(()));
    rig.ringway.write_config(&good);
    wait_for("its end", || (rig.ringway.status()["last_reload"]["result"] == "unchanged").then_some(()));
    assert_eq!(rig.ringway.metric("ringway_config_last_reload_successful"), 1.0);
}

#[test]
fn what_was_changed_of_a_backend_goes_with_it_and_does_not_come_back() {
    let rig = Rig::new("");
    rig.ask(&["backend", "weight", "s", "c", "7"]);
    rig.ask(&["backend", "drain", "s", "b"]);
    rig.ringway.write_config(&rig.with(2, "without c"));
    rig.ask(&["reload"]);
    let left = rig.ask(&["overrides"])["overrides"].clone();
    assert!(left.as_array().unwrap().len() == 1 && left[0]["backend"] == "b", "{left}");
    assert!(rig.ringway.log().contains("has gone, and what was changed of it with it"), "{}", rig.ringway.log());
    rig.ringway.write_config(&rig.with(3, "with c again"));
    rig.ask(&["reload"]);
    let status = rig.ringway.status();
    let backends = &status["services"][0]["backends"];
    assert_eq!((&backends[2]["weight"], &backends[2]["override"]), (&100.into(), &Value::Null));
    assert_eq!((&backends[1]["override"]["drain"], &backends[1]["state"]), (&true.into(), &"drained".into()));
    assert!((0..40).all(|key| get(rig.web, &format!("/{key}")).unwrap().text() != "b"));
}

#[test]
fn a_key_that_is_spread_leaves_a_backend_that_is_drained_and_comes_back_with_it() {
    let rig = Rig::new(", hot_keys: { enabled: false }");
    let owner = rig.served("/hot").into_iter().next().unwrap();
    rig.ask(&["spread", "s", "/hot", "--owners", "3", "--for", "10m"]);
    wait_for("the key to be spread", || (rig.served("/hot").len() == 3).then_some(()));
    rig.ask(&["backend", "drain", "s", &owner]);
    wait_for("its owner to be left", || Some(rig.served("/hot")).filter(|names| !names.contains(&owner)));
    assert!((0..60).all(|key| get(rig.web, &format!("/{key}")).unwrap().text() != owner));
    rig.ask(&["backend", "ready", "s", &owner]);
    wait_for("all three", || (rig.served("/hot").len() == 3).then_some(()));
    rig.ask(&["overrides", "--clear"]);
    wait_for("its owner alone", || (rig.served("/hot") == BTreeSet::from([owner.clone()])).then_some(()));
}

/// Whoever comes second is not told that the first has not been, and no change is lost between reloads by signal, by request and by the file.
#[test]
fn operators_and_reloads_at_once_lose_no_change_and_no_request() {
    let rig = Rig::new("");
    let stop = AtomicBool::new(false);
    let (failed, generations) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut failed = 0;
            for number in (0..).take_while(|_| !stop.load(Relaxed)) {
                failed += usize::from(get(rig.web, &format!("/{number}")).is_none_or(|answer| answer.status != 200));
            }
            failed
        });
        let operator = |backend: &'static str| {
            let rig = &rig;
            scope.spawn(move || {
                let change = |weight: u32| rig.ask(&["backend", "weight", "s", backend, &weight.to_string()]);
                (1..=6).map(|weight| change(weight)["generation"].as_u64().unwrap()).collect::<Vec<_>>()
            })
        };
        let operators = [operator("a"), operator("b")];
        for round in 0..4 {
            rig.ringway.write_config(&rig.with(3, &format!("round {round}")));
            rig.ringway.signal("HUP");
            rig.ask(&["reload"]);
        }
        let generations = operators.map(|operator| operator.join().unwrap());
        stop.store(true, Relaxed);
        (client.join().unwrap(), generations)
    });
    assert_eq!(failed, 0);
    let all: BTreeSet<u64> = generations.iter().flatten().copied().collect();
    assert!(all.len() == 12 && generations.iter().all(|list| list.is_sorted()), "{generations:?}");
    let status = rig.ringway.status();
    let backends = &status["services"][0]["backends"];
    assert_eq!(
        (&backends[0]["weight"], &backends[1]["weight"], &backends[2]["weight"]),
        (&6.into(), &6.into(), &100.into())
    );
    assert_eq!(status["generation"].as_u64(), Some(13), "a reload that changes nothing makes no version");
}
