//! A majority of the members is gone, for a while or for good: what an operator sees, and the way out.

use crate::common::control::{Cluster, FleetProxy, Said, curl, ringway_said, service};
use crate::common::{Backend, get, pace, patience, signal, wait_for};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn status(cluster: &Cluster, index: usize) -> Value {
    wait_for("a member to answer", || {
        let said = curl(&cluster.urls[index], "GET", "/v1/status", &Value::Null);
        (said.status == 200).then(|| said.json())
    })
}

fn put(cluster: &Cluster, index: usize, id: &str, weight: u64) -> u16 {
    let body = json!({ "address": "127.0.0.1:9", "weight": weight });
    curl(&cluster.urls[index], "PUT", &format!("/v1/objects/backend/r/{id}"), &body).status
}

fn fill(cluster: &Cluster, text: &str) {
    wait_for("the document to be taken", || {
        let body = json!({ "text": text });
        (curl(&cluster.urls[0], "PUT", "/v1/objects/document/main", &body).status == 200).then_some(())
    });
}

fn recover(cluster: &Cluster, index: usize) -> Said {
    ringway_said(&["control", "--json", "recover", "-c", &cluster.config(index), "--yes"])
}

/// What says whose a member's directory is, and the names of all that is in it. (To read a log that was not closed repairs it.)
fn identity(directory: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let mut found: Vec<(String, String)> = entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            let text =
                if name.ends_with(".json") { std::fs::read_to_string(entry.path()).unwrap() } else { String::new() };
            (name, text)
        })
        .collect();
    found.sort();
    found
}

fn member<'a>(list: &'a Value, name: &str) -> &'a Value {
    list["members"].as_array().unwrap().iter().find(|member| member["name"] == name).unwrap()
}

#[test]
fn members_that_are_dead_are_shown_dead_and_nobody_is_said_to_lead_them() {
    let mut cluster = Cluster::of(3, "");
    let all = cluster.control(&["members", "--json"]).json();
    for name in ["m1", "m2", "m3"] {
        let shown = member(&all, name);
        assert_eq!((&shown["reachable"], &shown["why"]), (&json!(true), &Value::Null), "{all}");
        assert!(shown["lag"].is_u64() && shown["term"].is_u64() && shown["last_heard_ms"].is_u64(), "{all}");
    }
    assert_eq!(all["quorum"], json!({ "voters": 3, "reachable": 3, "needed": 2 }));
    for dead in [0, 1] {
        cluster.kill(dead);
    }
    let shown = wait_for("nobody to lead", || {
        let shown = cluster.control_at(2, &["members", "--json"]).json();
        shown["leader"].is_null().then_some(shown)
    });
    for name in ["m1", "m2"] {
        let dead = member(&shown, name);
        assert_eq!(dead["reachable"], false, "{shown}");
        assert!(dead["lag"].is_null() && dead["role"].is_null() && dead["leader"] == false, "{shown}");
        assert!(dead["why"].as_str().unwrap().contains("refused"), "{shown}");
    }
    assert_eq!(member(&shown, "m3")["reachable"], true);
    assert_eq!(shown["quorum"], json!({ "voters": 3, "reachable": 1, "needed": 2 }));
    let table = cluster.control_at(2, &["members"]);
    assert_eq!(table.text().matches("voter, unreachable").count(), 2, "{table:?}");
    assert!(table.error().contains("quorum lost: 1 of 3 voters answer, 2 are needed"), "{table:?}");
    // Who asks for a change is told who is missing, by the member, and by the command that has asked them all.
    let peer = |name: &str| member(&all, name)["peer_address"].as_str().unwrap().to_owned();
    let refused = cluster.control_at(2, &["--json", "backend", "drain", "s", "a"]).json();
    assert_eq!(refused["code"], "no_leader", "{refused}");
    let detail = refused["detail"].as_str().unwrap();
    for name in ["m1", "m2"] {
        assert!(detail.contains(&format!("{name} ({}): not reached", peer(name))), "{refused}");
    }
    assert!(detail.contains(&format!("m3 ({}): this member", peer("m3"))), "{refused}");
    let refused = cluster.control(&["--json", "backend", "drain", "s", "a"]).json();
    assert_eq!(refused["code"], "no_leader", "{refused}");
    let detail = refused["detail"].as_str().unwrap();
    for url in &cluster.urls[..2] {
        assert!(
            detail.contains(&format!("{url}: not reached")) || detail.contains(&format!("{url}/: not reached")),
            "{refused}"
        );
    }
    // They come back, and are shown so.
    cluster.begin(0);
    cluster.bring_back(1);
    wait_for("all to be well", || {
        let shown = cluster.control_at(2, &["members", "--json"]).json();
        let well = shown["members"].as_array()?.iter().all(|member| member["reachable"] == true);
        (well && !shown["leader"].is_null()).then_some(())
    });
}

#[test]
fn what_is_left_can_be_backed_up_without_a_leader() {
    let mut cluster = Cluster::of(3, "");
    assert_eq!(put(&cluster, 0, "a", 7), 200);
    let before = status(&cluster, 0);
    wait_for("every member to have it", || {
        (1..3).all(|index| status(&cluster, index)["digest"] == before["digest"]).then_some(())
    });
    cluster.kill(0);
    cluster.kill(1);
    let file = cluster.path("backup");
    wait_for("nobody to lead", || {
        let refused = cluster.control(&["--json", "backup", &file]);
        (!refused.status.success() && refused.json()["code"] == "no_leader").then_some(())
    });
    assert!(!Path::new(&file).exists());
    let out = cluster.control(&["backup", "--stale", &file]);
    assert!(out.status.success(), "{out:?}");
    assert!(out.error().contains("of member m3, which last knew of a leader"), "{out:?}");
    let fresh = Cluster::of(1, "");
    assert!(fresh.control(&["restore", &file, "--yes"]).status.success());
    let after = status(&fresh, 0);
    assert_eq!((&after["cluster"], &after["digest"]), (&before["cluster"], &before["digest"]));
}

#[test]
fn no_member_is_recovered_that_can_come_back_by_itself() {
    let mut cluster = Cluster::of(3, "");
    assert_eq!(put(&cluster, 0, "a", 1), 200);
    let refused = recover(&cluster, 0).json();
    assert_eq!(refused["code"], "running", "{refused}");
    cluster.kill(0);
    let before = identity(&cluster.home(0));
    // The others live and have a leader.
    wait_for("the others to lead", || (put(&cluster, 1, "a", 2) == 200).then_some(()));
    let refused = recover(&cluster, 0);
    assert_eq!((refused.status.code(), &refused.json()["code"]), (Some(1), &json!("quorum_alive")), "{refused:?}");
    // One of them hangs: it may go on at any moment.
    cluster.kill(1);
    signal(cluster.pid(2), "STOP");
    let refused = recover(&cluster, 0);
    signal(cluster.pid(2), "CONT");
    assert_eq!(refused.json()["code"], "quorum_alive", "{refused:?}");
    assert!(refused.json()["detail"].as_str().unwrap().contains("--lost m3"), "{refused:?}");
    // Who answers is not lost, whatever is said.
    let refused = ringway_said(&["control", "--json", "recover", "-c", &cluster.config(0), "--yes", "--lost", "m3"]);
    assert_eq!(refused.json()["code"], "quorum_alive", "{refused:?}");
    // One is enough to elect a leader with.
    assert_eq!(recover(&cluster, 0).json()["code"], "quorum_alive");
    assert_eq!(identity(&cluster.home(0)), before, "it is whose it was");
    cluster.bring_back(0);
    cluster.bring_back(1);
    wait_for("the change to be everywhere", || {
        let digests = [0, 1, 2].map(|index| status(&cluster, index)["digest"].clone());
        (digests[0] == digests[1] && digests[1] == digests[2]).then_some(())
    });
    // Where nobody has ever been, nobody survives.
    cluster.kill(0);
    std::fs::remove_dir_all(cluster.home(0)).unwrap();
    assert_eq!(recover(&cluster, 0).json()["code"], "no_member");
}

/// Asks a proxy again and again.
struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<(AtomicUsize, AtomicUsize)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn on(address: std::net::SocketAddr) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new((AtomicUsize::new(0), AtomicUsize::new(0))));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&counts));
        let thread = std::thread::spawn(move || {
            let mut number = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                counted.0.fetch_add(1, Ordering::Relaxed);
                if get(address, &format!("/{number}")).is_none_or(|answer| answer.status != 200) {
                    counted.1.fetch_add(1, Ordering::Relaxed);
                }
                pace(Duration::from_millis(2));
            }
        });
        Self { stop, counts, thread: Some(thread) }
    }

    /// How many were asked, and how many of them failed.
    fn end(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        (self.counts.0.load(Ordering::Relaxed), self.counts.1.load(Ordering::Relaxed))
    }
}

fn follows(cluster: &Cluster, index: usize, proxy: &FleetProxy) {
    wait_for("the proxy to have what the new cluster has", || {
        let (members, here) = (status(cluster, index), proxy.ringway.status()["topology"].clone());
        let same = ["cluster", "epoch", "revision", "digest"].iter().all(|field| members[field] == here[field]);
        (same && here["error"].is_null()).then_some(())
    });
}

#[test]
fn a_survivor_becomes_a_new_cluster_and_the_fleet_follows_without_a_failed_request() {
    let backends = [Backend::echo("a"), Backend::echo("b")];
    let mut cluster = Cluster::of(3, "");
    fill(&cluster, &service(&[("a", backends[0].address), ("b", backends[1].address)]));
    let (name, old) = (status(&cluster, 0)["cluster"].clone(), status(&cluster, 2)["identity"].clone());
    let proxies = [FleetProxy::start(&cluster, "p", ""), FleetProxy::start(&cluster, "q", "")];
    for proxy in &proxies {
        wait_for("the proxy to serve", || (get(proxy.listen, "/")?.status == 200).then_some(()));
    }
    let load = Load::on(proxies[0].listen);
    assert_eq!(put(&cluster, 0, "kept", 7), 200);
    let digest = status(&cluster, 0)["digest"].clone();
    wait_for("the survivor to have it", || (status(&cluster, 2)["digest"] == digest).then_some(()));
    cluster.kill(0);
    cluster.kill(1);
    wait_for("nobody to lead", || (put(&cluster, 2, "lost", 1) == 503).then_some(()));
    cluster.kill(2);
    let out = recover(&cluster, 2);
    assert!(out.status.success(), "{out:?}");
    let told = out.error();
    assert!(told.contains("m1") && told.contains("m2") && told.contains("gone:"), "{told}");
    cluster.bring_back(2);
    // Alone, it leads: everything is there, under the old name, in a later epoch.
    let after = status(&cluster, 2);
    assert_eq!((&after["cluster"], &after["digest"]), (&name, &digest));
    assert_ne!(after["identity"], old);
    for proxy in &proxies {
        follows(&cluster, 2, proxy);
    }
    wait_for("a change to be taken", || (put(&cluster, 2, "kept", 9) == 200).then_some(()));
    // Two new ones join; a restart of every one of them changes nothing.
    for _ in 0..2 {
        cluster.join(&[]);
    }
    wait_for("three to vote", || {
        let list = cluster.control_at(2, &["members", "--json"]).json();
        (list["quorum"] == json!({ "voters": 3, "reachable": 3, "needed": 2 })).then_some(())
    });
    for index in 2..5 {
        cluster.kill(index);
        cluster.bring_back(index);
    }
    wait_for("a change to be taken", || (put(&cluster, 4, "kept", 11) == 200).then_some(()));
    for proxy in &proxies {
        follows(&cluster, 3, proxy);
    }
    wait_for("every proxy to be verified", || cluster.control_at(3, &["verify"]).status.success().then_some(()));
    // One of the lost comes back: it is nobody's, and says so.
    cluster.begin(0);
    wait_for("the old member to see that it stands alone", || {
        let said = curl(&cluster.urls[0], "GET", "/v1/members", &Value::Null);
        let shown = (said.status == 200).then(|| said.json())?;
        let why = member(&shown, "m3")["why"].as_str()?.to_owned();
        (shown["leader"].is_null() && why.contains("of another cluster")).then_some(())
    });
    assert_eq!(put(&cluster, 0, "kept", 13), 503);
    for proxy in &proxies {
        follows(&cluster, 3, proxy);
    }
    let (asked, failed) = load.end();
    assert!(asked > 100 && failed == 0, "{failed} of {asked} requests failed");
    // What the disk was is kept beside.
    let kept: Vec<String> = std::fs::read_dir(cluster.home(2))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("before-recover-"))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
}

#[test]
fn what_was_acknowledged_together_with_the_survivor_is_not_lost() {
    let mut cluster = Cluster::of(3, "");
    // A heartbeat tells a follower what is committed: kill the leader between the two.
    signal(cluster.pid(2), "STOP");
    let leader = wait_for("one to lead the two that are left", || {
        (0..2).find(|index| status(&cluster, *index)["member"]["role"] == "leader")
    });
    let mut last = 0;
    let began = Instant::now();
    for weight in 1..200 {
        if began.elapsed() > patience() / 2 {
            break;
        }
        if put(&cluster, leader, "a", weight) == 200 {
            last = weight;
        }
    }
    cluster.kill(leader);
    cluster.kill(1 - leader);
    signal(cluster.pid(2), "CONT");
    cluster.kill(2);
    assert!(last > 0);
    let out = recover(&cluster, 1 - leader);
    assert!(out.status.success(), "{out:?}");
    cluster.bring_back(1 - leader);
    let shown = wait_for("it to lead", || {
        let said = curl(&cluster.urls[1 - leader], "GET", "/v1/objects/backend/r/a", &Value::Null);
        (said.status == 200).then(|| said.json())
    });
    assert!(shown.to_string().contains(&format!("\"weight\":{last}")), "{shown}");
}

#[test]
fn members_that_are_made_anew_take_no_topology_away_before_they_have_been_given_one() {
    let backends = [Backend::echo("a"), Backend::echo("b")];
    let mut cluster = Cluster::of(3, "");
    fill(&cluster, &service(&[("a", backends[0].address), ("b", backends[1].address)]));
    let before = status(&cluster, 0);
    let proxy = FleetProxy::start(&cluster, "p", "");
    wait_for("the proxy to serve", || (get(proxy.listen, "/")?.status == 200).then_some(()));
    let load = Load::on(proxy.listen);
    let file = cluster.path("backup");
    assert!(cluster.control(&["backup", &file]).status.success());
    // Of the same name, and empty: what is in force stays, and the proxy says why.
    cluster.wipe(before["cluster"].as_str().unwrap());
    wait_for("the proxy to say that there is nothing", || {
        proxy.ringway.status()["topology"]["error"].as_str()?.contains("no topology yet").then_some(())
    });
    wait_for("the operator to be told", || (!cluster.control(&["verify"]).status.success()).then_some(()));
    assert!(cluster.control(&["restore", &file, "--yes"]).status.success());
    follows(&cluster, 0, &proxy);
    // Agents that register backends do not wait for a restore: members that begin with the backup leave no moment between.
    let stop = Arc::new(AtomicBool::new(false));
    let agent = std::thread::spawn({
        let (url, address, stop) = (cluster.urls[0].clone(), backends[0].address, Arc::clone(&stop));
        move || {
            let mut taken = 0;
            while !stop.load(Ordering::Relaxed) {
                let body = json!({ "address": address.to_string() });
                taken += usize::from(curl(&url, "PUT", "/v1/objects/backend/s/agent", &body).status == 200);
            }
            taken
        }
    });
    cluster.wipe_and_init(&["--backup", &file]);
    let after = status(&cluster, 0);
    assert_eq!(after["cluster"], before["cluster"]);
    assert!(after["epoch"].as_u64() > before["epoch"].as_u64());
    stop.store(true, Ordering::Relaxed);
    assert!(agent.join().unwrap() > 0);
    follows(&cluster, 2, &proxy);
    wait_for("every proxy to be verified", || cluster.control(&["verify"]).status.success().then_some(()));
    let (asked, failed) = load.end();
    assert!(asked > 100 && failed == 0, "{failed} of {asked} requests failed");
}

#[test]
fn a_backup_that_is_none_makes_no_member() {
    let mut cluster = Cluster::of(1, "");
    assert_eq!(put(&cluster, 0, "a", 1), 200);
    let file = cluster.path("backup");
    assert!(cluster.control(&["backup", &file]).status.success());
    cluster.kill(0);
    let init = |path: &str| ringway_said(&["control", "--json", "init", "-c", &cluster.config(0), "--backup", path]);
    // What is there is not replaced.
    assert!(init(&file).error().contains("belongs to member"), "{:?}", init(&file));
    std::fs::remove_dir_all(cluster.home(0)).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    for end in [0, 1, 31, 32, 33, bytes.len() / 2, bytes.len() - 1] {
        let cut = cluster.path("cut");
        std::fs::write(&cut, &bytes[..end]).unwrap();
        assert_eq!(init(&cut).json()["code"], "damaged", "{end}");
    }
    for at in (0..bytes.len()).step_by(7) {
        let (flipped, mut other) = (cluster.path("flipped"), bytes.clone());
        other[at] ^= 1 << (at % 8);
        std::fs::write(&flipped, other).unwrap();
        assert_eq!(init(&flipped).json()["code"], "damaged", "{at}");
    }
    assert!(init(&cluster.path("nowhere")).error().contains("nowhere"));
    assert!(!Path::new(&cluster.home(0)).join("member.json").exists());
    let out = init(&file);
    assert!(out.status.success(), "{out:?}");
    cluster.bring_back(0);
    wait_for("it to have the backup's objects", || {
        let said = curl(&cluster.urls[0], "GET", "/v1/objects/backend/r/a", &Value::Null);
        (said.status == 200).then_some(())
    });
}
