//! Backups, wipes, restores: every sequence of them ends with all proxies on what the members have.

use crate::common::control::{Cluster, FleetProxy, curl};
use crate::common::{get, wait_for};
use serde_json::{Value, json};

fn status(cluster: &Cluster) -> Value {
    wait_for("a member to answer", || {
        let said = curl(&cluster.urls[0], "GET", "/v1/status", &Value::Null);
        (said.status == 200).then(|| said.json())
    })
}

fn topology(proxy: &FleetProxy) -> Option<Value> {
    let said = get(proxy.ringway.admin, "/status")?;
    Some(serde_json::from_slice::<Value>(&said.body).ok()?["topology"].clone())
}

fn change(cluster: &Cluster, weight: u64) {
    let body = json!({ "address": "127.0.0.1:9", "weight": weight });
    wait_for("a change to be taken", || {
        (curl(&cluster.urls[0], "PUT", "/v1/objects/backend/s/a", &body).status == 200).then_some(())
    });
}

fn follow(cluster: &Cluster, proxies: &[&FleetProxy]) {
    for proxy in proxies {
        wait_for("the proxy to have what the members have", || {
            let (members, here) = (status(cluster), topology(proxy)?);
            let same = ["cluster", "epoch", "revision", "digest"].iter().all(|field| members[field] == here[field]);
            (same && here["error"].is_null()).then_some(())
        });
    }
}

fn restore(cluster: &Cluster, file: &str) {
    let out = cluster.control(&["restore", file, "--yes"]);
    assert!(out.status.success(), "{out:?}");
}

/// The proxies have seen more of the cluster than its new members know.
#[test]
fn a_restore_into_new_members_takes_every_proxy_along() {
    let mut cluster = Cluster::of(3, "");
    let name = status(&cluster)["cluster"].as_str().unwrap().to_owned();
    for weight in 1..6 {
        change(&cluster, weight);
    }
    let proxies = [FleetProxy::start(&cluster, "p", ""), FleetProxy::start(&cluster, "q", "")];
    let proxies: Vec<&FleetProxy> = proxies.iter().collect();
    let file = cluster.path("backup");
    assert!(cluster.control(&["backup", &file]).status.success());
    restore(&cluster, &file);
    for weight in 10..23 {
        change(&cluster, weight);
    }
    follow(&cluster, &proxies);
    cluster.wipe(&name);
    restore(&cluster, &file);
    follow(&cluster, &proxies);
    // And into a cluster that was given another name: it takes the one that proxies follow.
    cluster.wipe("another");
    restore(&cluster, &file);
    assert_eq!(status(&cluster)["cluster"], name.as_str());
    follow(&cluster, &proxies);
    change(&cluster, 50);
    follow(&cluster, &proxies);
}

#[test]
fn a_backup_of_another_cluster_is_refused_by_name_unless_it_is_meant() {
    let (one, other) = (Cluster::of(1, ""), Cluster::of(1, ""));
    change(&one, 1);
    change(&other, 2);
    let (file, cut) = (one.path("backup"), one.path("cut"));
    assert!(one.control(&["backup", &file]).status.success());
    let before = status(&other);
    let refused = other.control(&["restore", &file, "--yes", "--json"]);
    assert_eq!(refused.json()["code"], "other_cluster", "{refused:?}");
    let bytes = std::fs::read(&file).unwrap();
    for end in [0, 31, 32, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&cut, &bytes[..end]).unwrap();
        let refused = other.control(&["restore", &cut, "--yes", "--json"]);
        assert_eq!(refused.json()["code"], "damaged", "{refused:?}");
    }
    for field in ["cluster", "epoch", "revision", "digest"] {
        assert_eq!(status(&other)[field], before[field], "nothing is half applied");
    }
    let out = other.control(&["restore", &file, "--other-cluster", "--yes"]);
    assert!(out.status.success(), "{out:?}");
    let after = status(&other);
    assert_eq!((&after["cluster"], &after["digest"]), (&before["cluster"], &status(&one)["digest"]));
    assert!(after["epoch"].as_u64() > before["epoch"].as_u64());
}

#[test]
fn what_a_proxy_reports_moves_the_epoch_only_as_far_as_it_can_be_believed() {
    let cluster = Cluster::of(1, "");
    change(&cluster, 1);
    let epoch = status(&cluster)["epoch"].as_u64().unwrap();
    let report = |name: &str, epoch: u64, of: &str| {
        let body = json!({
            "version": "1", "epoch": epoch, "revision": 9, "digest": "d", "rings": {}, "stuck": null, "generation": 1,
            "vote": null, "down": [], "requests": 0, "failed": 0, "canary": null, "cluster": of,
        });
        assert_eq!(curl(&cluster.urls[0], "PUT", &format!("/v1/proxies/{name}"), &body).status, 200);
    };
    report("liar", u64::MAX, "");
    report("stranger", epoch + 7, "another cluster");
    let shown = |name: &str| {
        let fleet = curl(&cluster.urls[0], "GET", "/v1/proxies", &Value::Null).json();
        let found = fleet["proxies"].as_array().unwrap().iter().find(|proxy| proxy["name"] == name).cloned();
        found.unwrap()["state"].clone()
    };
    assert_eq!(shown("liar"), "ahead");
    report("honest", epoch + 3, "");
    wait_for("the epoch to be above what was seen", || (status(&cluster)["epoch"] == epoch + 4).then_some(()));
    assert_eq!(status(&cluster)["revision"], 1);
}
