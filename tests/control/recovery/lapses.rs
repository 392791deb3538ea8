//! Agreed health and leases while the cluster is well, and while it loses its quorum for moments again and again.

use crate::common::control::{Cluster, FleetProxy, curl};
use crate::common::{Backend, free_address, get, pace, signal, slowness, takes, wait_for};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Service `s` with three backends that live, and `d`, whose address this is.
fn settle(cluster: &Cluster, backends: &[Backend], d: SocketAddr, health: &str) {
    let text = format!("services: [ {{ name: s, balance: {{ hash_key: [ {{ path: {{}} }} ] }}, {health} }} ]\n");
    let out = cluster.control(&["apply", &cluster.write("f.yaml", &text), "--yes"]);
    assert!(out.status.success(), "{out:?}");
    let addresses = backends.iter().map(|backend| backend.address).chain([d]);
    for (id, address) in ["a", "b", "c", "d"].iter().zip(addresses) {
        let out = cluster.control(&["backend", "add", "s", id, &address.to_string()]);
        assert!(out.status.success(), "{out:?}");
    }
}

fn is_ejected(url: &str) -> Option<bool> {
    let said = curl(url, "GET", "/v1/objects/backend/s/d?consistency=stale", &Value::Null);
    (said.status == 200).then(|| said.json()["object"]["backend"]["ejected"].as_bool()).flatten()
}

/// Whether a proxy gives it keys, and not only until its first check has ended.
fn takes_keys(proxy: &FleetProxy) -> Option<bool> {
    let status = proxy.ringway.status();
    let d = status["services"][0]["backends"].as_array()?.iter().find(|backend| backend["id"] == "d")?;
    Some(d["state"] == "up" && d["accept_share"].as_f64()? > 0.0)
}

/// Its checks hardly ever take it down here: what is seen of its death is that requests fail.
fn comes_back(return_on_check: bool, base_ejection: Duration) -> Duration {
    let cluster = Cluster::of(1, "");
    let proxies = ["p", "q"].map(|name| FleetProxy::start(&cluster, name, ""));
    let backends = ["a", "b", "c"].map(Backend::echo);
    // At a port that nobody takes once it is free.
    let mortal = TcpListener::bind(free_address()).unwrap();
    let address = mortal.local_addr().unwrap();
    let seconds = base_ejection.as_secs();
    let health = format!(
        "health: {{ tcp: {{}}, interval: 100ms, timeout: 100ms, rise: 2, fall: 1000 }}, outlier: {{ consecutive_failures: 1, \
         base_ejection: {seconds}s, max_ejection: {seconds}s, jitter: 0, return_on_check: {return_on_check} }}"
    );
    settle(&cluster, &backends, address, &health);
    for proxy in &proxies {
        wait_for("the backend to take keys", || takes_keys(proxy)?.then_some(()));
    }
    let died = Instant::now();
    drop(mortal);
    wait_for("the fleet to eject it", || {
        for proxy in &proxies {
            (0..20).for_each(|number| drop(get(proxy.listen, &format!("/{number}"))));
        }
        is_ejected(&cluster.urls[0])?.then_some(())
    });
    let listener = wait_for("its address", || TcpListener::bind(address).ok());
    let _returned = Backend::on(listener, |_, _| ());
    wait_for("the fleet to take it back", || (!is_ejected(&cluster.urls[0])?).then_some(()));
    let away = died.elapsed();
    for proxy in &proxies {
        wait_for("its keys", || takes_keys(proxy)?.then_some(()));
    }
    away
}

#[test]
fn a_backend_that_is_back_is_in_force_for_all_once_checks_succeed_where_that_is_asked_for() {
    let ejection = Duration::from_secs(3600);
    assert!(comes_back(true, ejection) < ejection);
}

#[test]
fn a_backend_that_is_back_stays_out_for_all_until_its_ejection_ends_where_checks_are_not_asked() {
    let ejection = Duration::from_secs(15);
    let away = comes_back(false, ejection);
    assert!(away >= ejection, "{away:?}");
}

const LAPSE: Duration = Duration::from_millis(550);

/// Stops these processes for moments until `over`; each ends up running.
fn lapse(pids: &[u32], lapses: &AtomicU32, over: &AtomicBool) {
    let between = Duration::from_millis(3200).mul_f64(slowness());
    while !over.load(SeqCst) {
        pids.iter().for_each(|pid| signal(*pid, "STOP"));
        takes(LAPSE);
        pids.iter().for_each(|pid| signal(*pid, "CONT"));
        lapses.fetch_add(1, SeqCst);
        let began = Instant::now();
        while began.elapsed() < between && !over.load(SeqCst) {
            pace(Duration::from_millis(50));
        }
    }
}

/// Ends what runs beside a test, also when that fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn grant(url: &str, ttl: Duration) -> u64 {
    wait_for("a lease", || {
        let said = curl(url, "POST", "/v1/leases", &json!({ "ttl": format!("{}ms", ttl.as_millis()) }));
        (said.status == 200).then(|| said.json()["id"].as_u64()).flatten()
    })
}

/// Whether a lease is there, as far as the members can say.
fn lives(url: &str, lease: u64) -> Option<bool> {
    let said = curl(url, "GET", "/v1/leases", &Value::Null);
    let list = (said.status == 200).then(|| said.json())?;
    Some(list["leases"].as_array()?.iter().any(|each| each["id"] == lease))
}

#[test]
fn moments_without_quorum_hold_up_neither_dead_leases_nor_agreed_health() {
    let cluster = Cluster::of(3, "");
    let proxies = ["p", "q"].map(|name| FleetProxy::start(&cluster, name, ""));
    let backends = ["a", "b", "c"].map(Backend::echo);
    // At a port that nobody takes once it is free.
    let mortal = TcpListener::bind(free_address()).unwrap();
    let health = "health: { tcp: {}, interval: 100ms, timeout: 100ms, rise: 1, fall: 2 }";
    settle(&cluster, &backends, mortal.local_addr().unwrap(), health);
    let leader = wait_for("a leader", || {
        let list = curl(&cluster.urls[0], "GET", "/v1/members", &Value::Null).json();
        list["members"].as_array()?.iter().find(|member| member["leader"] == true)?["name"].as_str().map(str::to_owned)
    });
    let leader = leader.trim_start_matches('m').parse::<usize>().unwrap() - 1;
    let url = &cluster.urls[leader];
    let followers: Vec<u32> = (0..3).filter(|index| *index != leader).map(|index| cluster.pid(index)).collect();
    let (lapses, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let ttl = Duration::from_secs(5).mul_f64(slowness());
    let slack = Duration::from_secs(10).mul_f64(slowness());
    std::thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| lapse(&followers, &lapses, &over));
        let kept = grant(url, ttl);
        let ends = &over;
        scope.spawn(move || {
            while !ends.load(SeqCst) {
                let _ = curl(url, "PUT", &format!("/v1/leases/{kept}"), &Value::Null);
                pace(Duration::from_millis(300));
            }
        });
        let dead = grant(url, ttl);
        let (granted, before) = (Instant::now(), lapses.load(SeqCst));
        wait_for("the lease to end", || (!lives(url, dead)?).then_some(()));
        let (took, lost) = (granted.elapsed(), LAPSE * (lapses.load(SeqCst) - before + 1));
        assert!(took < ttl + lost + slack, "{took:?}, of which {lost:?} were lost");
        let died = Instant::now();
        drop(mortal);
        wait_for("the fleet to eject a backend that is down for all", || is_ejected(url)?.then_some(()));
        let took = died.elapsed();
        assert!(took < 2 * slack, "{took:?}");
        assert!(wait_for("the leases", || lives(url, kept)), "it was kept alive");
        // On a slow machine they are far between.
        wait_for("a lapse", || (lapses.load(SeqCst) > before).then_some(()));
    });
    drop(proxies);
}
