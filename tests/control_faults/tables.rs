//! Tables of the fleet's loads under load, while their leader stops, a member is cut off, and a backup is restored: no request fails, no
//! key changes its backend for it, and what is said of tables is so.

use crate::client;
use crate::cluster::{Cluster, ringway_ok};
use crate::common::{Backend, get, pace, path_text, patience, read_request, takes, wait_for};
use crate::proxy::{Proxy, Traffic, publish_as};
use crate::random::Random;
use serde_json::Value;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The busy backend sheds as much as it may: by what it has, it would shed more.
const SERVICE: &str = "services: [ { name: web, balance: { hash_key: [ { path: {} } ], shed: { target: 1.2, max: 30, scope: fleet } } } ]";
const SHED: f64 = 0.3;
/// It owns about a third of all keys: what it sheds may change by this, so that two keys of a hundred move.
const STEP_MAX: f64 = 0.02 * 3.0;
/// Requests at a time, through each proxy.
const CLIENTS: usize = 12;
/// From the end of a fault on, on a quiet machine: two streams, an election, and a second in which a leader hears what is in force.
const FRESH: Duration = Duration::from_secs(10);
/// Longer than any lease and election.
const LASTING: Duration = Duration::from_secs(3);

/// Answers with its name, and takes its time.
fn slow(name: &'static str) -> Backend {
    Backend::custom(move |mut stream, _| {
        while read_request(&mut stream).is_some() {
            takes(Duration::from_millis(100));
            let head = format!("HTTP/1.1 200 OK\r\nx-backend: {name}\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(head.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// What a proxy says of the table that it obeys.
#[derive(Debug, Clone)]
struct Said {
    state: String,
    position: [u64; 3],
    age: f64,
    refused: (Value, u64),
    /// What backends shed, by their ids.
    shed: Vec<(String, f64)>,
}

fn said(proxy: &Proxy) -> Option<Said> {
    let status: Value = serde_json::from_slice(&get(proxy.admin, "/status")?.body).ok()?;
    let service = &status["services"][0];
    let (table, backends) = (&service["fleet_table"], service["backends"].as_array()?);
    let shed =
        backends.iter().map(|backend| Some((backend["id"].as_str()?.to_owned(), backend["shed_share"].as_f64()?)));
    Some(Said {
        state: table["state"].as_str()?.to_owned(),
        position: ["epoch", "term", "seq"].map(|of| table[of].as_u64().unwrap_or(0)),
        age: table["age_seconds"].as_f64().unwrap_or(f64::MAX),
        refused: (table["refused"].clone(), table["refusals"].as_u64()?),
        shed: shed.collect::<Option<_>>()?,
    })
}

/// Three members and two proxies, whose clients ask for what one of three backends has.
struct Rig {
    cluster: Cluster,
    proxies: Vec<Proxy>,
    traffic: Vec<Traffic>,
    busy: String,
    looks: Looks,
}

/// Looks at both proxies all the time: what went past what is allowed.
struct Looks {
    stop: Arc<AtomicBool>,
    bad: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<usize>>,
}

impl Looks {
    fn start(admins: Vec<SocketAddr>, busy: &str) -> Self {
        let (stop, bad) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (ends, found, busy) = (Arc::clone(&stop), Arc::clone(&bad), busy.to_owned());
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !ends.load(Relaxed) {
                for admin in &admins {
                    let status =
                        get(*admin, "/status").and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
                    let Some(status) = status else { continue };
                    let backends = status["services"][0]["backends"].as_array().cloned().unwrap_or_default();
                    for backend in backends {
                        let (id, shed) = (backend["id"].as_str().unwrap_or("?"), backend["shed_share"].as_f64());
                        let expected = if id == busy { SHED } else { 0.0 };
                        if shed.is_none_or(|shed| (shed - expected).abs() > STEP_MAX) {
                            found
                                .lock()
                                .unwrap()
                                .push(format!("{id} sheds {shed:?}: {}", status["services"][0]["fleet_table"]));
                        }
                    }
                    count += 1;
                }
                pace(Duration::from_millis(50));
            }
            count
        });
        Self { stop, bad, thread: Some(thread) }
    }

    /// Gives how often it looked.
    fn finish(&mut self) -> usize {
        self.stop.store(true, Relaxed);
        let count = self.thread.take().map_or(0, |thread| thread.join().unwrap());
        let bad = self.bad.lock().unwrap();
        assert!(bad.is_empty(), "{} of {count} looks: {:?}", bad.len(), bad.first());
        count
    }
}

impl Rig {
    fn start(mut cluster: Cluster) -> Self {
        let backends = ["a", "b", "c"].map(slow);
        let leader = cluster.settled();
        publish_as(cluster.member(leader).api, SERVICE, &backends.each_ref().map(|backend| backend.address));
        let apis = cluster.apis();
        let proxies: Vec<Proxy> = ["p1", "p2"].map(|name| Proxy::new(name, &apis)).into();
        for proxy in &proxies {
            wait_for("the proxy to have the fleet's backends", || {
                (get(proxy.listen, "/")?.status == 200).then_some(())
            });
        }
        // Keys of the backend that has the first, as long as nobody else asks.
        let owner = |key: usize| {
            wait_for("a key's owner", || {
                get(proxies[0].listen, &format!("/{key}"))?.header("x-backend").map(str::to_owned)
            })
        };
        let name = owner(0);
        let paths: Vec<String> = (0..60).filter(|key| owner(*key) == name).map(|key| format!("/{key}")).collect();
        let traffic = proxies.iter().map(|proxy| Traffic::of(proxy.listen, CLIENTS, &paths)).collect();
        let busy = wait_for("the busy backend to shed as much as it may, at both", || {
            let both = proxies.iter().map(said).collect::<Option<Vec<Said>>>()?;
            let ids = both.iter().map(|said| {
                let busy = said.shed.iter().find(|(_, share)| (share - SHED).abs() < STEP_MAX / 4.0);
                busy.map(|(id, _)| id.clone()).filter(|_| said.state == "fresh")
            });
            let ids = ids.collect::<Option<Vec<String>>>()?;
            (ids[0] == ids[1]).then(|| ids[0].clone())
        });
        let looks = Looks::start(proxies.iter().map(|proxy| proxy.admin).collect(), &busy);
        Self { cluster, proxies, traffic, busy, looks }
    }

    fn term(&self) -> u64 {
        wait_for("a table", || said(&self.proxies[0])).position[1]
    }

    /// Both proxies obey one table, later than this, that the leader has said not long ago; and the fleet says the same of both.
    fn fresh(&self, after: [u64; 2], through: usize) -> [u64; 3] {
        let began = Instant::now();
        let at = wait_for("one fresh table at both", || {
            let both = self.proxies.iter().map(said).collect::<Option<Vec<Said>>>()?;
            let at = both[0].position;
            let is_good = |said: &Said| {
                said.state == "fresh" && said.position == at && said.age < 2.5 && said.refused.0.is_null()
            };
            (both.iter().all(is_good) && [at[0], at[1]] > after).then_some(at)
        });
        let took = began.elapsed();
        println!("a fresh table {at:?} at both after {took:.1?}");
        assert!(took < FRESH.max(patience() / 2), "{took:?}");
        wait_for("the fleet to say by which table they go", || {
            let fleet = client::json(self.cluster.member(through).api, "GET", "/v1/proxies", &Value::Null).ok()?;
            let both = self.proxies.iter().map(said).collect::<Option<Vec<Said>>>()?;
            let of =
                |proxy: &Value| ["epoch", "term", "seq"].map(|of| proxy["loads"]["holds"][of].as_u64().unwrap_or(0));
            let proxies = fleet["proxies"].as_array()?;
            let told = proxies.iter().zip(&both).all(|(proxy, said)| {
                of(proxy) == said.position && proxy["loads"]["refused"].is_null() && said.refused.0.is_null()
            });
            (proxies.len() == 2 && told).then_some(())
        });
        at
    }

    fn finish(mut self) {
        let looks = self.looks.finish();
        let served: usize = self.traffic.drain(..).map(Traffic::finish).sum();
        println!("{served} requests, 0 failed; {looks} looks, {} sheds {SHED} of its keys in all", self.busy);
    }
}

#[test]
fn a_leader_that_stops_and_goes_on_moves_no_key() {
    let mut random = Random::from_environment("a_leader_that_stops_and_goes_on_moves_no_key");
    let mut rig = Rig::start(Cluster::new("tables", 3, &mut random));
    let (old, term) = (rig.cluster.settled(), rig.term());
    rig.cluster.member_mut(old).pause();
    takes(LASTING);
    let others = (1..=3).find(|number| *number != old).unwrap();
    let epoch = wait_for("a table", || said(&rig.proxies[0])).position[0];
    // While it stands still, another has taken its place.
    let [_, next, _] = rig.fresh([epoch, term], others);
    assert!(next > term);
    rig.cluster.member_mut(old).resume();
    rig.cluster.settled();
    rig.fresh([epoch, term], old);
    rig.finish();
}

#[test]
fn a_member_that_is_cut_off_makes_no_table_look_young_and_moves_no_key() {
    let Some(cluster) = Cluster::in_namespaces("tables", 3) else { return };
    let mut rig = Rig::start(cluster);
    let leader = rig.cluster.settled();
    let (cut, other) = match leader {
        1 => (2, 3),
        2 => (3, 1),
        _ => (1, 2),
    };
    let [epoch, term, _] = rig.fresh([0, 0], leader);
    for far in [leader, other] {
        rig.cluster.cut(cut, far);
        rig.cluster.cut(far, cut);
    }
    wait_for("the one that is cut off to tell no tables", || {
        let told = client::json(rig.cluster.member(cut).api, "GET", "/v1/loads", &Value::Null);
        matches!(told, Err(client::Failure::Definite(503, _))).then_some(())
    });
    takes(LASTING);
    // Of the same leader: nobody else was cut off.
    assert_eq!(rig.fresh([0, 0], other)[..2], [epoch, term]);
    rig.cluster.mend();
    rig.cluster.settled();
    rig.fresh([0, 0], cut);
    rig.finish();
}

#[test]
fn a_restore_under_proxies_that_run_moves_no_key() {
    let mut random = Random::from_environment("a_restore_under_proxies_that_run_moves_no_key");
    let mut rig = Rig::start(Cluster::new("tables", 3, &mut random));
    let leader = rig.cluster.settled();
    let [epoch, ..] = rig.fresh([0, 0], leader);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup");
    let member = format!("http://{}", rig.cluster.member(leader).api);
    let control = |arguments: &[&str]| ringway_ok(&[&["control", "--members", &member], arguments].concat());
    control(&["backup", path_text(&file)]);
    control(&["restore", path_text(&file), "--yes"]);
    let [now, ..] = rig.fresh([epoch, u64::MAX], leader);
    assert!(now > epoch);
    // What a leader would take back would be taken back by now.
    takes(LASTING);
    rig.finish();
}
