//! A member that is cut off from the others, and reached by proxies all the same.

use crate::client;
use crate::cluster::Cluster;
use crate::common::{patience, wait_for};
use crate::proxy::{Proxy, publish};
use crate::random::Random;
use serde_json::Value;
use std::time::{Duration, Instant};

/// The number of the member that a proxy follows.
fn followed(cluster: &Cluster, proxy: &Proxy) -> Option<usize> {
    let topology = proxy.topology()?;
    let member = topology["member"].as_str()?;
    let found = cluster.members.iter().find(|known| member.contains(&known.api.to_string()));
    found.map(|member| member.number)
}

#[test]
fn a_proxy_leaves_a_member_that_is_cut_off_for_one_that_has_a_leader() {
    let mut random = Random::from_environment("a member is cut off");
    let cluster = Cluster::new("cut", 3, &mut random);
    publish(cluster.member(1).api, &["127.0.0.1:9".parse().unwrap()]);
    let proxy = Proxy::new("p1", &cluster.apis());
    let cut = wait_for("the proxy to follow a member", || followed(&cluster, &proxy));
    let others: Vec<usize> = (1..=3).filter(|number| *number != cut).collect();
    for other in &others {
        cluster.cut(cut, *other);
        cluster.cut(*other, cut);
    }
    let began = Instant::now();
    wait_for("the proxy to follow another", || followed(&cluster, &proxy).filter(|member| *member != cut));
    // Two seconds without a leader, and the answers of the others; it was 15 and more.
    assert!(began.elapsed() < Duration::from_secs(8).max(patience() / 4), "{:?}", began.elapsed());
    println!("the proxy has left after {:?}", began.elapsed());
    wait_for("the fleet to hear of it", || {
        let fleet = client::json(cluster.member(others[0]).api, "GET", "/v1/proxies", &Value::Null).ok()?;
        (fleet["proxies"][0]["state"] == "synced").then_some(())
    });
}
