//! Proxies that come and go, in order.

use crate::common::control::{Cluster, FleetProxy, curl, service};
use crate::common::{Backend, get, wait_for};
use serde_json::Value;

fn names(cluster: &Cluster) -> Vec<(String, String)> {
    let fleet = curl(&cluster.urls[0], "GET", "/v1/proxies", &Value::Null).json();
    let list = fleet["proxies"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|proxy| (proxy["name"].as_str().unwrap().to_owned(), proxy["state"].as_str().unwrap().to_owned()))
        .collect()
}

fn stopped(proxy: &mut FleetProxy, signal: &str) {
    proxy.ringway.signal(signal);
    proxy.ringway.wait();
}

#[test]
fn a_proxy_that_is_stopped_in_order_signs_off_and_one_that_dies_is_missed_until_it_is_forgotten() {
    let mut cluster = Cluster::of(3, "");
    let backend = Backend::echo("a");
    let mut proxies: Vec<FleetProxy> =
        ["p1", "p2", "p3"].iter().map(|name| FleetProxy::start(&cluster, name, "")).collect();
    let file = cluster.write("fleet.yaml", &service(&[("a", backend.address)]));
    assert!(cluster.control(&["apply", &file, "--yes"]).status.success());
    for proxy in &proxies {
        wait_for("the service", || (get(proxy.listen, "/x")?.status == 200).then_some(()));
    }
    // Scaled in: nobody is missing, and `verify` says so at once.
    stopped(&mut proxies[0], "TERM");
    assert!(names(&cluster).iter().all(|(name, _)| name != "p1"), "{:?}", names(&cluster));
    let verified = cluster.control(&["verify"]);
    assert!(verified.status.success(), "{verified:?}");
    // Killed: it is missed.
    stopped(&mut proxies[1], "KILL");
    wait_for("p2 to be missed", || names(&cluster).contains(&("p2".into(), "offline".into())).then_some(()));
    assert!(!cluster.control(&["verify"]).status.success());
    let forgotten = cluster.control(&["proxies", "forget", "p2"]);
    assert!(forgotten.status.success(), "{forgotten:?}");
    assert!(names(&cluster).iter().all(|(name, _)| name != "p2"));
    let verified = cluster.control(&["verify"]);
    assert!(verified.status.success(), "{verified:?}");
    let again = cluster.control(&["proxies", "forget", "p2"]);
    assert!(again.status.code() == Some(1) && again.error().contains("not_found"), "{again:?}");
    // With no control plane to hear of it, the end comes as soon.
    for member in 0..3 {
        cluster.kill(member);
    }
    stopped(&mut proxies[2], "TERM");
}
