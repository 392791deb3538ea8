//! Faults of processes and of the network between them, one after the other, under a workload that must not notice more
//! than that it takes longer.

use crate::client::{self, Failure};
use crate::cluster::{Cluster, Network};
use crate::common::{patience, slowness, takes, wait_for};
use crate::random::Random;
use crate::relay::Link;
use crate::witness::Witness;
use crate::workload::{self, Workload};
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL.
    Kill,
    KillLeader,
    /// All but one.
    KillMajority,
    KillAll,
    /// SIGSTOP for longer than the lease, then it goes on as if nothing had been.
    PauseLeader,
    Transfer,
    /// SIGTERM.
    Restart,
    /// Neither direction.
    IsolateLeader,
    IsolateOne,
    /// It hears, and is not heard.
    MuteLeader,
    /// It is heard, and does not hear.
    DeafLeader,
    /// Each sees only its two neighbours: everyone a majority, and everyone another.
    Ring,
    /// Two halves that have one member in common.
    Bridge,
    /// The majority on one side, the leader on the other.
    Halves,
    /// The cable.
    Unplug,
    Slow,
    Lossy,
}

const RELAYED: [Fault; 12] = [
    Fault::Kill,
    Fault::KillLeader,
    Fault::KillMajority,
    Fault::KillAll,
    Fault::PauseLeader,
    Fault::Transfer,
    Fault::Restart,
    Fault::IsolateLeader,
    Fault::IsolateOne,
    Fault::MuteLeader,
    Fault::Slow,
    Fault::Lossy,
];

const ROUTED: [Fault; 9] = [
    Fault::IsolateLeader,
    Fault::IsolateOne,
    Fault::MuteLeader,
    Fault::DeafLeader,
    Fault::Ring,
    Fault::Bridge,
    Fault::Halves,
    Fault::Unplug,
    Fault::PauseLeader,
];

/// One of each kind, in an order that is drawn; or as many as are asked for.
fn draw(kinds: &[Fault], random: &mut Random) -> Vec<Fault> {
    let asked = std::env::var("RINGWAY_FAULTS").ok().and_then(|text| text.parse().ok());
    let mut faults = kinds.to_vec();
    random.shuffle(&mut faults);
    while faults.len() < asked.unwrap_or(0) {
        faults.push(*random.pick(kinds));
    }
    faults
}

/// Histories are checked each so many faults: with a new cluster, so that no run depends on all those before.
const FAULTS_PER_RUN: usize = 40;

#[test]
fn members_that_die_stop_and_lag_lose_nothing() {
    let mut random = Random::from_environment("members_that_die_stop_and_lag_lose_nothing");
    let faults = draw(&RELAYED, &mut random);
    for (run, faults) in faults.chunks(FAULTS_PER_RUN).enumerate() {
        let mut random = random.fork();
        let cluster = Cluster::new(&format!("relayed-{run}"), 3, &mut random);
        trial(cluster, faults, &mut random);
    }
}

#[test]
fn members_that_do_not_hear_each_other_lose_nothing() {
    let mut random = Random::from_environment("members_that_do_not_hear_each_other_lose_nothing");
    let faults = draw(&ROUTED, &mut random);
    for (run, faults) in faults.chunks(FAULTS_PER_RUN).enumerate() {
        let Some(cluster) = Cluster::in_namespaces(&format!("routed-{run}"), 5) else { return };
        trial(cluster, faults, &mut random.fork());
    }
}

/// Where backends stand that nobody asks.
fn nowhere() -> Vec<SocketAddr> {
    (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
}

/// A cluster from its birth to its check.
fn trial(mut cluster: Cluster, faults: &[Fault], random: &mut Random) {
    let apis = cluster.apis();
    let witness = Witness::start(&apis);
    let mut workload = Workload::start(&apis, &nowhere(), random);
    let count = torment(&mut cluster, faults, random);
    workload.stop();
    let leader = cluster.settled();
    workload.read_all();
    workload::abandoned_lease_expires(cluster.member(leader).api);
    let seen = witness.summary();
    let log = witness.finish(cluster.member(leader).api);
    workload.check(&log);
    println!("{count} faults, {}; {seen}", workload.summary());
}

/// One fault after the other, each mended before the next. Gives how many.
pub(crate) fn torment(cluster: &mut Cluster, faults: &[Fault], random: &mut Random) -> usize {
    let apis = cluster.apis();
    for fault in faults {
        let begun = Instant::now();
        inject(cluster, *fault, random);
        let lasted = begun.elapsed();
        cluster.mend();
        let mended = Instant::now();
        cluster.settled();
        writes_again(&apis, random);
        println!("{fault:?}: {lasted:.1?}, writes through every member {:.1?} after it was mended", mended.elapsed());
    }
    faults.len()
}

/// For a test whose subject is another: one of those that change most.
pub(crate) fn draw_short(random: &mut Random) -> Vec<Fault> {
    let mut faults =
        vec![Fault::KillLeader, Fault::PauseLeader, Fault::KillMajority, Fault::Transfer, Fault::IsolateOne];
    random.shuffle(&mut faults);
    faults
}

/// Through every member.
fn writes_again(apis: &[SocketAddr], random: &mut Random) {
    for api in apis {
        let body = json!({ "address": "127.0.0.1:9", "source": format!("p{}", random.below(1 << 40)) });
        wait_for("a write to be taken", || {
            client::json(*api, "PUT", "/v1/objects/backend/probe/p?force=true", &body).ok()
        });
    }
}

/// On return the fault has lasted; what can be mended is not mended yet.
fn inject(cluster: &mut Cluster, fault: Fault, random: &mut Random) {
    let count = cluster.members.len();
    let leader = cluster.leader_or(random);
    let any = 1 + random.below(count as u64) as usize;
    // Longer than the lease and an election.
    let lasting = Duration::from_millis(700 + random.below(700));
    let others: Vec<usize> = (1..=count).filter(|number| *number != leader).collect();
    match fault {
        Fault::Kill => cluster.member_mut(any).kill(),
        Fault::KillLeader => cluster.member_mut(leader).kill(),
        Fault::KillMajority => {
            for number in (1..=count).filter(|number| *number != any) {
                cluster.member_mut(number).kill();
            }
            no_leader(cluster, any);
        }
        Fault::KillAll => cluster.members.iter_mut().for_each(crate::cluster::Member::kill),
        Fault::PauseLeader => cluster.member_mut(leader).pause(),
        Fault::Transfer => {
            let heir = cluster.member(*random.pick(&others)).node;
            // It may have lost the lead since, or have another change under way.
            let _ = client::json(cluster.member(leader).api, "POST", "/v1/transfer", &json!({ "to": heir }));
        }
        Fault::Restart => {
            cluster.member_mut(any).terminate();
            cluster.start(any);
        }
        Fault::IsolateLeader => isolate(cluster, leader),
        Fault::IsolateOne => isolate(cluster, any),
        Fault::MuteLeader => others.iter().for_each(|other| cluster.cut(leader, *other)),
        Fault::DeafLeader => others.iter().for_each(|other| cluster.cut(*other, leader)),
        Fault::Ring => each_pair(count, |one, other| {
            let distance = one.abs_diff(other);
            if distance.min(count - distance) > 1 {
                cluster.cut(one, other);
            }
        }),
        Fault::Bridge => {
            let mut order: Vec<usize> = (1..=count).filter(|number| *number != any).collect();
            random.shuffle(&mut order);
            let (left, right) = order.split_at(order.len() / 2);
            part(cluster, left, right);
        }
        Fault::Halves => {
            let (with, without) = others.split_at(count / 2 - 1);
            part(cluster, &[with, &[leader]].concat(), without);
        }
        Fault::Unplug => {
            if let Network::Namespaces(namespaces) = &cluster.network {
                namespaces.link(any, "down");
            }
        }
        Fault::Slow | Fault::Lossy => {
            if let Network::Relay(relay) = &cluster.network {
                let link = match fault {
                    Fault::Slow => Link { delay: Duration::from_millis(random.below(120)), ..Link::default() },
                    _ => Link { loss_percent: 5 + random.below(20), ..Link::default() },
                };
                each_pair(count, |one, other| relay.set(one, other, link));
            }
        }
    }
    takes(lasting);
}

fn each_pair(count: usize, mut act: impl FnMut(usize, usize)) {
    for one in 1..=count {
        for other in (1..=count).filter(|other| *other != one) {
            act(one, other);
        }
    }
}

fn part(cluster: &Cluster, left: &[usize], right: &[usize]) {
    for one in left {
        for other in right {
            cluster.cut(*one, *other);
            cluster.cut(*other, *one);
        }
    }
}

fn isolate(cluster: &Cluster, number: usize) {
    let others: Vec<usize> = (1..=cluster.members.len()).filter(|other| *other != number).collect();
    part(cluster, &[number], &others);
    no_leader(cluster, number);
}

/// A member without a quorum says so, soon, and serves nothing that could be old. Of a read, it never says that its
/// outcome is not known.
fn no_leader(cluster: &Cluster, number: usize) {
    let api = cluster.member(number).api;
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        match client::ask(api, "GET", "/v1/objects/backend/web/a", "", "", patience()) {
            Err(Failure::Definite(503, code)) if code == "no_leader" => {
                let soon = Duration::from_secs(3).mul_f64(slowness());
                assert!(asked.elapsed() < soon, "it took {:?} to say so", asked.elapsed());
                let status = cluster.member(number).status().expect("a member without a quorum tells its status");
                let leader = status["leader"]["node"].as_u64().filter(|leader| *leader != cluster.member(number).node);
                assert!(status["member"]["role"] != "leader" && leader.is_none(), "{status}");
                return;
            }
            // It has not noticed yet.
            Ok(_) => assert!(begun.elapsed() < patience(), "a member without a quorum serves reads"),
            other => panic!("a member without a quorum answers {other:?}"),
        }
    }
}
