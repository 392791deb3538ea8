//! A proxy that serves while the control plane dies, comes back, loses its leader: no request notices.

use crate::cluster::{Cluster, Member};
use crate::common::{Backend, get, takes, wait_for};
use crate::proxy::{Proxy, Traffic, publish};
use crate::random::Random;
use crate::workload::{KEYS, Workload};
use crate::{chaos, client, witness::Witness};
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn backends() -> Vec<SocketAddr> {
    ["a", "b", "c"].map(|name| Backend::echo(name).address).to_vec()
}

#[test]
fn no_request_notices_what_happens_to_the_control_plane() {
    let mut random = Random::from_environment("no_request_notices_what_happens_to_the_control_plane");
    let backends = backends();
    let mut cluster = Cluster::new("traffic", 3, &mut random);
    publish(cluster.member(1).api, &backends);
    let apis = cluster.apis();
    let mut proxy = Proxy::new("p", &apis);
    wait_for("the proxy to have the fleet's backends", || (get(proxy.listen, "/")?.status == 200).then_some(()));

    // Weights change all the time, and every change is a reload.
    let traffic = Traffic::start(proxy.listen);
    let witness = Witness::start(&apis);
    let mut workload = Workload::start(&apis, &backends, &mut random);
    let faults = chaos::torment(&mut cluster, &chaos::draw_short(&mut random), &mut random);
    workload.stop();
    let leader = cluster.settled();
    let log = witness.finish(cluster.member(leader).api);
    workload.check(&log);
    let last = cluster.member(leader).status().unwrap()["revision"].as_u64().unwrap();
    wait_for("the proxy to have the last revision", || (proxy.revision() == last).then_some(()));

    // Nobody is left.
    cluster.members.iter_mut().for_each(Member::kill);
    let dead = Instant::now();
    let outage = Duration::from_secs(if std::env::var_os("RINGWAY_FAULTS").is_some() { 600 } else { 10 });
    let ages = [proxy.metric("ringway_topology_age_seconds"), {
        takes(outage / 2);
        proxy.metric("ringway_topology_age_seconds")
    }];
    assert!(ages[1] - ages[0] > outage.as_secs_f64() / 4.0, "{ages:?}");
    let served = traffic.finish();

    // It dies as well, and comes back alone.
    proxy.kill();
    proxy.start();
    let traffic = Traffic::start(proxy.listen);
    assert_eq!(proxy.revision(), last, "the last topology that was good");
    takes(outage.saturating_sub(dead.elapsed()));

    // And the control plane comes back to it.
    cluster.start_all();
    let leader = cluster.settled();
    let body = json!({ "address": backends[0], "source": "w999999" });
    let path = format!("/v1/objects/{}?force=true", KEYS[0]);
    let done = client::must(cluster.member(leader).api, "PUT", &path, &body);
    let revision = done["revision"].as_u64().unwrap();
    wait_for("the proxy to follow again", || (proxy.revision() == revision).then_some(()));
    wait_for("its age to be young", || (proxy.metric("ringway_topology_age_seconds") < 6.0).then_some(()));
    let again = traffic.finish();
    println!("{faults} faults, {served} requests and {again} after the restart, 0 failed; {}", workload.summary());
}
