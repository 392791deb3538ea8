//! What a member's metrics say of the control plane and its fleet.

use crate::common::control::{Cluster, FleetProxy, curl, run, service};
use crate::common::{Backend, get, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;

/// Every sample of a member, by name and labels as they stand there.
fn scrape(url: &str) -> Option<BTreeMap<String, f64>> {
    let text = run("curl", &["-s", "--max-time", "10", &format!("{url}/metrics")]).text();
    let mut samples = BTreeMap::new();
    let mut families = BTreeMap::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let bare = name.split('{').next().unwrap();
            let family = families.keys().any(|family| {
                bare.strip_prefix(family.as_str())
                    .is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
            });
            assert!(family, "{line} has no family before it");
            let value = value.replace("+Inf", "inf").parse().unwrap();
            assert!(samples.insert(name.to_owned(), value).is_none(), "{name} is there twice");
        }
    }
    (!samples.is_empty()).then_some(samples)
}

/// The member that leads, by its index.
fn leader(cluster: &Cluster, alive: &[usize]) -> usize {
    wait_for("a leader", || {
        let leads = |index: &&usize| {
            scrape(&cluster.urls[**index]).is_some_and(|samples| samples.get("ringway_control_leader") == Some(&1.0))
        };
        alive.iter().find(leads).copied()
    })
}

#[test]
fn metrics_of_members_tell_of_proxies_rollouts_disks_lag_and_leaders() {
    let mut cluster = Cluster::of(3, "");
    let backend = Backend::echo("a");
    let proxy = FleetProxy::start(&cluster, "p1", "");
    let good = cluster.write("good.yaml", &service(&[("a", backend.address)]));
    assert!(cluster.control(&["apply", &good, "--yes"]).status.success());
    wait_for("the service", || (get(proxy.listen, "/x")?.status == 200).then_some(()));
    // What the proxy's own file does not go together with is refused by its vote.
    let taken = format!("listeners: [ {{ name: other, address: \"{}\", service: s }} ]\n", backend.address);
    let bad = cluster.write("bad.yaml", &format!("{taken}{}", service(&[("a", backend.address)])));
    let refused = cluster.control(&["apply", &bad, "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    for url in &cluster.urls {
        wait_for("the rollouts to be counted", || {
            let samples = scrape(url)?;
            let over = |result: &str| samples[&format!("ringway_control_rollouts_total{{result=\"{result}\"}}")];
            (over("committed") == 1.0 && over("aborted") == 1.0).then_some(())
        });
    }
    let led = leader(&cluster, &[0, 1, 2]);
    let state = |samples: &BTreeMap<String, f64>, state: &str| {
        samples.get(&format!("ringway_control_proxies{{state=\"{state}\"}}")).copied()
    };
    wait_for("the proxy to be synced", || (state(&scrape(&cluster.urls[led])?, "synced") == Some(1.0)).then_some(()));
    let samples = scrape(&cluster.urls[led]).unwrap();
    assert_eq!(state(&samples, "offline"), Some(0.0), "a state that nobody is in is there");
    for histogram in ["commit", "fsync"] {
        let name = |what: &str| format!("ringway_control_{histogram}_seconds_{what}");
        let count = samples[&name("count")];
        assert!(count > 0.0 && samples[&name("sum")] > 0.0, "{samples:?}");
        assert_eq!(samples[&name("bucket{le=\"+Inf\"}")], count);
        assert!(samples[&name("bucket{le=\"0.00025\"}")] <= samples[&name("bucket{le=\"2.5\"}")]);
    }
    assert!(samples["ringway_control_log_file_bytes"] > 0.0);
    for other in (0..3).filter(|index| *index != led) {
        let lag = wait_for("the others to have all", || {
            scrape(&cluster.urls[led])?
                .get(&format!("ringway_control_member_lag{{member=\"m{}\"}}", other + 1))
                .copied()
        });
        assert!(lag >= 0.0);
        assert_eq!(state(&scrape(&cluster.urls[other]).unwrap(), "synced"), None, "only who leads knows the fleet");
    }
    let before = scrape(&cluster.urls[(led + 1) % 3]).unwrap()["ringway_control_leader_changes_total"];
    cluster.kill(led);
    let alive: Vec<usize> = (0..3).filter(|index| *index != led).collect();
    let next = leader(&cluster, &alive);
    assert_ne!(next, led);
    wait_for("the change to be counted", || {
        (scrape(&cluster.urls[(led + 1) % 3])?["ringway_control_leader_changes_total"] > before).then_some(())
    });
    // The one that is dead is behind as soon as there is something that it lacks.
    wait_for("its lag to be seen", || {
        let put = curl(
            &cluster.urls[next],
            "PUT",
            "/v1/objects/backend/q/b",
            &serde_json::json!({ "address": "10.0.0.9:1" }),
        );
        assert!(put.status == 200 || put.json()["code"] == "no_leader", "{put:?}");
        let deleted = curl(&cluster.urls[next], "DELETE", "/v1/objects/backend/q/b?force", &Value::Null);
        drop(deleted);
        let lag =
            *scrape(&cluster.urls[next])?.get(&format!("ringway_control_member_lag{{member=\"m{}\"}}", led + 1))?;
        (lag > 3.0).then_some(())
    });
    for index in alive {
        let log = cluster.log(index);
        assert!(log.contains("a member leads") && log.contains("the leader is not heard of any more"), "{log}");
    }
    // Without the other, it has no quorum: a lapse.
    cluster.kill(alive_other(next, led));
    wait_for("the lapse to be counted", || {
        (scrape(&cluster.urls[next])?["ringway_control_lapses_total"] >= 1.0).then_some(())
    });
}

fn alive_other(next: usize, dead: usize) -> usize {
    3 - next - dead
}
