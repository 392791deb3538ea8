//! Hand-off of keys in a fleet: proxies that hear of a change at different times hand the same keys over, as long as they know who had them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::control::{Cluster, FleetProxy, curl, service};
use crate::common::*;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const KEYS: usize = 50;

fn document(backends: &[(&str, SocketAddr)]) -> String {
    service(backends).replace("backends:", "handoff: { window: 1h }, backends:")
}

/// What a proxy would do with a key: whose it is, whose it was, and whose its next request is.
fn decision(proxy: &FleetProxy, key: usize) -> Value {
    let told = get(proxy.ringway.admin, &format!("/explain?service=s&key=%2F{key}")).unwrap();
    assert_eq!(told.status, 200, "{}", told.text());
    let told: Value = serde_json::from_slice(&told.body).unwrap();
    json!([told["backend"], told["handoff"]])
}

fn windows(proxy: &FleetProxy) -> Vec<Value> {
    proxy.ringway.status()["services"][0]["handoffs"].as_array().cloned().unwrap_or_default()
}

fn await_backends(proxy: &FleetProxy, count: usize) {
    wait_for("the backends", || {
        (proxy.ringway.status()["services"][0]["backends"].as_array()?.len() == count).then_some(())
    });
}

#[test]
fn proxies_hand_the_same_keys_over_however_late_they_hear_of_a_change_or_start_and_one_that_has_stored_nothing_hands_none()
 {
    let cluster = Cluster::of(1, "");
    let backends = echoes(4);
    let all = targets(&backends);
    let mut proxies = ["p1", "p2"].map(|name| FleetProxy::start(&cluster, name, ""));
    assert!(cluster.control(&["apply", &cluster.write("fleet.yaml", &document(&all[..3])), "--yes"]).status.success());
    proxies.iter().for_each(|proxy| await_backends(proxy, 3));
    // One is away while the change is made, with what it has stored from before.
    proxies[1].kill();
    let put = curl(&cluster.urls[0], "PUT", "/v1/objects/backend/s/d", &json!({ "address": all[3].1.to_string() }));
    assert_eq!(put.status, 200, "{put:?}");
    await_backends(&proxies[0], 4);
    // So long that one which took the change for a new one would be told by it.
    leave_time(Duration::from_secs(1));
    let since = windows(&proxies[0])[0]["since"].as_f64().unwrap();
    let away = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - since;
    proxies[1].bring_back();
    await_backends(&proxies[1], 4);
    let other = windows(&proxies[1])[0]["since"].as_f64().unwrap();
    assert!((since - other).abs() < away / 2.0, "{since} {other}, {away} late");
    let mut turns = Vec::new();
    for key in 0..KEYS {
        // A key's time may come in between: then both are asked again.
        let decision = wait_for("two proxies to be asked within one moment", || {
            let [first, second, third] = [0, 1, 0].map(|index| decision(&proxies[index], key));
            (first == third).then(|| assert_eq!(first, second, "{key}")).map(|()| first)
        });
        turns.push(decision[1]["turn"].clone());
    }
    assert!(turns.contains(&json!("previous")) && turns.contains(&Value::Null), "{turns:?}");
    // One that starts within the window knows who had the keys before, if it has stored that.
    proxies[0].restart();
    await_backends(&proxies[0], 4);
    let again = windows(&proxies[0])[0]["since"].as_f64().unwrap();
    assert!((since - again).abs() < away / 2.0, "{since} {again}");
    for key in 0..KEYS {
        wait_for("two proxies to be asked within one moment", || {
            let [first, second, third] = [1, 0, 1].map(|index| decision(&proxies[index], key));
            (first == third).then(|| assert_eq!(first, second, "{key}"))
        });
    }
    // So does one that starts while two changes are under way.
    let less = json!({ "address": all[3].1.to_string(), "weight": 30 });
    assert_eq!(curl(&cluster.urls[0], "PUT", "/v1/objects/backend/s/d", &less).status, 200);
    let knows_both = |proxy: &FleetProxy| wait_for("both changes", || (windows(proxy).len() == 2).then_some(()));
    proxies.iter().for_each(knows_both);
    proxies[0].restart();
    knows_both(&proxies[0]);
    for key in 0..KEYS {
        wait_for("two proxies to be asked within one moment", || {
            let [first, second, third] = [1, 0, 1].map(|index| decision(&proxies[index], key));
            (first == third).then(|| assert_eq!(first, second, "{key}"))
        });
    }
    // One that has stored nothing knows of no previous owners: it places by the new order, and hands nothing over.
    let fresh = FleetProxy::start(&cluster, "p3", "");
    await_backends(&fresh, 4);
    assert_eq!((windows(&fresh).len(), windows(&proxies[1]).len()), (0, 2));
    let mut at_once = 0;
    for key in 0..KEYS {
        let [anew, other] = [&fresh, &proxies[1]].map(|proxy| decision(proxy, key));
        assert_eq!(anew[1], Value::Null);
        match other[1]["next"].as_str() {
            Some(next) => {
                assert_eq!(anew[0], next);
                at_once += usize::from(other[0] != next);
            }
            None => assert_eq!(anew[0], other[0]),
        }
        let answer = get(fresh.listen, &format!("/{key}")).unwrap();
        assert_eq!(answer.text(), anew[0].as_str().unwrap());
    }
    assert!(at_once > 0);
}
