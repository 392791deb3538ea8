//! What `verify` and the list of proxies say of a fleet.

use crate::common::control::{Cluster, FleetProxy, curl, ringway_said, service};
use crate::common::{Backend, wait_for};
use serde_json::{Value, json};

#[test]
fn verify_and_explain_hold_while_a_backend_is_drained() {
    let cluster = Cluster::of(1, "");
    let (a, b) = (Backend::echo("a"), Backend::echo("b"));
    let text = service(&[("a", a.address)]);
    let document = cluster.write("main.yaml", &text);
    let applied = cluster.control(&["apply", &document, "--yes", "--direct"]);
    assert!(applied.status.success(), "{applied:?}");
    let object = json!({ "address": b.address.to_string(), "state": "drain" });
    let put = curl(&cluster.urls[0], "PUT", "/v1/objects/backend/s/b", &object);
    assert_eq!(put.status, 200, "{put:?}");
    let proxy = FleetProxy::start(&cluster, "p0", "");
    let said = cluster.control(&["verify", "--expect", "p0"]);
    assert!(said.status.success(), "{said:?}");
    // The file says the same as the proxy that runs it.
    let alone = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:1\", service: s }} ]\n{}",
        text.replace("\" } ] }", &format!("\" }}, {{ id: b, address: \"{}\", drain: true }} ] }}", b.address))
    );
    let file = cluster.write("alone.yaml", &alone);
    let explained = ringway_said(&["explain", "--config", &file, "--service", "s", "--key", "/", "--json"]);
    let running = proxy.ringway.status()["services"][0]["ring_digest"].clone();
    assert_eq!(explained.json()["ring_digest"], running, "{explained:?}");
}

#[test]
fn verify_fails_by_name_where_nothing_or_not_everything_was_compared() {
    let cluster = Cluster::of(1, "");
    let a = Backend::echo("a");
    let document = cluster.write("main.yaml", &service(&[("a", a.address)]));
    assert!(cluster.control(&["apply", &document, "--yes", "--direct"]).status.success());
    let said = cluster.control(&["verify"]);
    assert!(!said.status.success() && said.text().contains("no proxy"), "{said:?}");

    let _proxy = FleetProxy::start(&cluster, "p0", "");
    let said = cluster.control(&["verify"]);
    assert!(said.status.success(), "{said:?}");
    let said = cluster.control(&["verify", "--expect", "p0,p9"]);
    assert!(!said.status.success() && said.text().contains("p9 has not been heard of"), "{said:?}");

    // One that has seen a later epoch, as after a restore into new members.
    let mut heartbeat = wait_for("a synced proxy", || {
        let fleet = curl(&cluster.urls[0], "GET", "/v1/proxies", &Value::Null).json();
        (fleet["proxies"][0]["state"] == "synced").then(|| fleet["proxies"][0]["heartbeat"].clone())
    });
    heartbeat["epoch"] = json!(u64::MAX / 2);
    assert_eq!(curl(&cluster.urls[0], "PUT", "/v1/proxies/liar", &heartbeat).status, 200);
    let said = cluster.control(&["verify"]);
    assert!(!said.status.success() && said.text().contains("liar is "), "{said:?}");
}
