//! A fleet on its way from the release before this one to this one, member by member, and back: both builds as processes.
//!
//! `RINGWAY_EARLIER=$(tests/earlier) cargo test --test control_faults upgrade::` makes the earlier one and tries it; without it the tests are
//! skipped.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says where it was; it shares parts with others"
)]

use crate::cluster::Cluster;
use crate::common::{Backend, get, wait_for};
use crate::proxy::{Proxy, Traffic, publish};
use crate::random::Random;
use crate::witness::Witness;
use crate::workload::Workload;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The release before this one.
fn earlier() -> Option<PathBuf> {
    let path = std::env::var_os("RINGWAY_EARLIER").filter(|path| !path.is_empty()).map(PathBuf::from);
    if path.is_none() {
        crate::common::skipped(
            "the earlier release is not named: RINGWAY_EARLIER=$(tests/earlier) cargo test --test control_faults upgrade:: makes it",
        );
    }
    path
}

fn this_build() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ringway"))
}

/// Three members of the earlier release.
fn members(earlier: &Path, name: &str, random: &mut Random) -> Cluster {
    Cluster::with(name, 3, random, |member| member.program = earlier.to_owned())
}

/// A member goes on as another build, with what is on its disk.
fn becomes(cluster: &mut Cluster, number: usize, program: &Path) {
    cluster.member_mut(number).terminate();
    cluster.member_mut(number).program = program.to_owned();
    cluster.start(number);
    cluster.settled();
}

/// Has a member lead.
fn leads(cluster: &mut Cluster, number: usize) {
    let heir = cluster.member(number).node;
    wait_for("another member to lead", || {
        let leader = cluster.settled();
        if leader != number {
            let _ = crate::client::json(cluster.member(leader).api, "POST", "/v1/transfer", &json!({ "to": heir }));
        }
        (leader == number).then_some(())
    });
}

/// A write through every member.
fn takes_writes(cluster: &Cluster, random: &mut Random) {
    for api in cluster.apis() {
        let body = json!({ "address": "127.0.0.1:9", "source": format!("p{}", random.below(1 << 40)) });
        wait_for("a write to be taken", || crate::client::json(api, "PUT", "/v1/objects/backend/probe/p", &body).ok());
    }
}

/// The proxies that a member has heard of, by name.
fn heard(api: SocketAddr) -> Option<Vec<(String, Value)>> {
    let fleet = crate::client::get(api, "/v1/proxies")?;
    let live = fleet["proxies"].as_array()?.iter().filter(|proxy| proxy["state"] != "offline");
    live.map(|proxy| Some((proxy["name"].as_str()?.to_owned(), proxy.clone()))).collect()
}

/// A change in two phases, asked of one member.
fn rolls_out(api: SocketAddr, number: u64, participants: u64) {
    let text = format!("services: [ {{ name: web }} ] # {number}");
    let ops = json!([{ "put": { "key": "document/main", "object": { "document": { "text": text } } } }]);
    wait_for("a rollout to be committed", || {
        let policy = json!({ "deadline_ms": 60_000 });
        let begun = crate::client::json(api, "POST", "/v1/rollouts", &json!({ "ops": ops, "policy": policy })).ok()?;
        // Committed already, and the answer was lost.
        let Some(id) = begun["id"].as_u64() else { return Some(()) };
        assert!(begun["participants"].as_u64() >= Some(participants), "{begun}");
        let phase = wait_for("a rollout to end", || {
            let phase = crate::client::get(api, &format!("/v1/rollouts/{id}"))?["phase"].clone();
            (!phase["committed"].is_null() || !phase["aborted"].is_null()).then_some(phase)
        });
        assert!(phase["aborted"].is_null(), "{phase}");
        Some(())
    });
}

/// With this leader: writes through everybody, heartbeats by way of followers, a rollout.
fn works_under(cluster: &mut Cluster, leader: usize, proxies: &[&Proxy], random: &mut Random) {
    leads(cluster, leader);
    takes_writes(cluster, random);
    for api in cluster.apis() {
        for proxy in proxies {
            wait_for("every member to know of every proxy", || {
                heard(api)?.iter().any(|(name, _)| *name == proxy.name).then_some(())
            });
        }
    }
    let last = 1 + leader % cluster.members.len();
    rolls_out(cluster.member(last).api, random.below(1 << 40), proxies.len() as u64);
}

/// Every proxy is where the members are, and every member says so.
fn all_equal(cluster: &Cluster, proxies: &[Proxy]) {
    for api in cluster.apis() {
        wait_for("all proxies to be synced", || {
            let status = crate::client::get(api, "/v1/status")?;
            let known = heard(api)?;
            let synced = known.iter().filter(|(_, proxy)| {
                proxy["state"] == "synced"
                    && proxy["heartbeat"]["digest"] == status["digest"]
                    && proxy["heartbeat"]["revision"] == status["revision"]
            });
            (synced.count() == proxies.len() && known.len() == proxies.len()).then_some(())
        });
    }
}

/// A member has written that all know the newest rules.
fn rules_are_agreed(cluster: &Cluster) {
    wait_for("the rules to be agreed", || {
        cluster.members.iter().any(|member| member.log().contains("all members know these rules")).then_some(())
    });
}

#[test]
fn a_fleet_is_upgraded_member_by_member_and_no_request_notices() {
    let Some(earlier) = earlier() else { return };
    let mut random = Random::from_environment("a_fleet_is_upgraded_member_by_member_and_no_request_notices");
    let backends = ["a", "b", "c"].map(|name| Backend::echo(name).address);
    let mut cluster = members(&earlier, "upgrade", &mut random);
    publish(cluster.member(1).api, &backends);
    let apis = cluster.apis();
    // Of both releases. The new one may say more of itself than the earlier members take: it follows them all the same.
    let proxies =
        [Proxy::of(&earlier, "p1", &apis), Proxy::of(&earlier, "p2", &apis), Proxy::of(this_build(), "p3", &apis)];
    for proxy in &proxies {
        wait_for("the fleet's backends", || (get(proxy.listen, "/")?.status == 200).then_some(()));
    }
    let traffic: Vec<Traffic> = proxies.iter().map(|proxy| Traffic::start(proxy.listen)).collect();
    let witness = Witness::start(&apis);
    let mut workload = Workload::start(&apis, &backends, &mut random);
    let old = [&proxies[0], &proxies[1]];
    for number in 1..=3 {
        becomes(&mut cluster, number, this_build());
        println!("member {number} is upgraded");
        // First one that is new, with followers that may be old, then the reverse.
        works_under(&mut cluster, number, &old, &mut random);
        if number < 3 {
            works_under(&mut cluster, 3, &old, &mut random);
        }
        let revision = crate::client::get(apis[0], "/v1/status").unwrap()["revision"].as_u64().unwrap();
        for proxy in &proxies {
            wait_for("every proxy to follow", || (proxy.revision() >= revision).then_some(()));
        }
    }
    rules_are_agreed(&cluster);
    takes_writes(&cluster, &mut random);
    workload.stop();
    let leader = cluster.settled();
    workload.read_all();
    let seen = witness.summary();
    let log = witness.finish(cluster.member(leader).api);
    workload.check(&log);
    all_equal(&cluster, &proxies);
    let served: usize = traffic.into_iter().map(Traffic::finish).sum();
    println!("{served} requests, 0 failed; {}; {seen}", workload.summary());
}

#[test]
fn an_upgrade_is_taken_back_until_all_members_know_the_new_rules_and_an_old_one_says_so_after() {
    let Some(earlier) = earlier() else { return };
    let mut random = Random::from_environment("an_upgrade_is_taken_back_until_all_members_know_the_new_rules");
    let mut cluster = members(&earlier, "downgrade", &mut random);
    becomes(&mut cluster, 1, this_build());
    becomes(&mut cluster, 2, this_build());
    leads(&mut cluster, 1);
    takes_writes(&cluster, &mut random);
    // What it has written under the new build, the earlier one reads.
    becomes(&mut cluster, 1, &earlier);
    takes_writes(&cluster, &mut random);
    leads(&mut cluster, 1);
    takes_writes(&cluster, &mut random);
    for number in [1, 3] {
        becomes(&mut cluster, number, this_build());
    }
    rules_are_agreed(&cluster);
    leads(&mut cluster, 2);
    takes_writes(&cluster, &mut random);
    // Too late.
    cluster.member_mut(3).terminate();
    cluster.member_mut(3).program = earlier;
    cluster.start(3);
    assert!(!cluster.member_mut(3).ended().success());
    let log = cluster.member(3).log();
    assert!(log.contains("install the newer one") || log.contains("use a newer version"), "{log}");
    // The others do not need it, and it comes back as what it was.
    let body = json!({ "address": "127.0.0.1:9", "source": "without" });
    crate::client::must(cluster.member(2).api, "PUT", "/v1/objects/backend/probe/p", &body);
    cluster.member_mut(3).program = this_build().to_owned();
    cluster.start(3);
    cluster.settled();
    takes_writes(&cluster, &mut random);
}

/// More than members keep of their log behind a snapshot.
const MANY: usize = 7_000;
const WRITERS: usize = 16;

/// So many entries.
fn fills(api: SocketAddr) {
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for round in 0..MANY / WRITERS {
                    let body = json!({ "address": "127.0.0.1:9", "source": format!("f{round}") });
                    crate::client::must(api, "PUT", &format!("/v1/objects/backend/fill/b{writer}"), &body);
                }
            });
        }
    });
}

/// A member is lost with its disk; a new one takes its place.
fn is_replaced(cluster: &mut Cluster, number: usize, program: &Path) {
    let old = cluster.member(number).node;
    cluster.member_mut(number).kill();
    std::fs::remove_dir_all(&cluster.member(number).directory).unwrap();
    cluster.member_mut(number).program = program.to_owned();
    cluster.join(number, &["--replace", &old.to_string()]);
    cluster.member_mut(number).read_plan();
    cluster.start(number);
    let (new, api) = (cluster.member(number).node, cluster.member(number).api);
    wait_for("the new member to vote in the old one's place", || {
        let members = crate::client::get(api, "/v1/members")?.to_string();
        (members.contains(&new.to_string()) && !members.contains(&old.to_string())).then_some(())
    });
    cluster.settled();
}

/// All members have one state, of which this one was sent a snapshot.
fn has_it_all(cluster: &Cluster, number: usize) {
    let shown = |api| {
        let status = crate::client::get(api, "/v1/status")?;
        Some([&status["revision"], &status["digest"], &status["leases"], &status["objects"]].map(Value::clone))
    };
    wait_for("all members to have the same state", || {
        let all: Option<Vec<_>> = cluster.apis().into_iter().map(shown).collect();
        all?.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    });
    let status = cluster.member(number).status().unwrap();
    assert!(!status["member"]["snapshot"].is_null(), "it was sent the log alone: {status}");
}

#[test]
fn each_release_takes_the_snapshots_of_the_other() {
    let Some(earlier) = earlier() else { return };
    let mut random = Random::from_environment("each_release_takes_the_snapshots_of_the_other");
    let mut cluster = members(&earlier, "snapshots", &mut random);
    let lease = json!({ "ttl": "3600s", "owner": "kept" });
    let lease = crate::client::must(cluster.member(1).api, "POST", "/v1/leases", &lease)["id"].clone();
    let body = json!({ "address": "127.0.0.1:9", "lease": lease });
    crate::client::must(cluster.member(1).api, "PUT", "/v1/objects/backend/web/leased", &body);
    leads(&mut cluster, 1);
    fills(cluster.member(1).api);
    is_replaced(&mut cluster, 3, this_build());
    has_it_all(&cluster, 3);
    leads(&mut cluster, 3);
    fills(cluster.member(3).api);
    is_replaced(&mut cluster, 2, &earlier);
    has_it_all(&cluster, 2);
    assert!(crate::client::get(cluster.member(2).api, "/v1/objects/backend/web/leased?consistency=stale").is_some());
    // And under the new rules.
    for number in [1, 2] {
        becomes(&mut cluster, number, this_build());
    }
    rules_are_agreed(&cluster);
    let leader = cluster.settled();
    fills(cluster.member(leader).api);
    let behind = 1 + leader % 3;
    is_replaced(&mut cluster, behind, this_build());
    has_it_all(&cluster, behind);
    takes_writes(&cluster, &mut random);
}
