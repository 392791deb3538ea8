//! Loads of a whole fleet: proxies that are made up here report them, as bytes that are made up here, too, and watch the tables with curl.

use crate::common::control::{Cluster, FleetProxy, curl};
use crate::common::*;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const DIGEST: u64 = 0xabc;
/// Nine tenths, of 65535.
const MOST: u64 = 58_981;

/// Numbers as a report has them: seven bits a byte, the lowest first.
fn number(out: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A report of service `s`, whose table sheds from 1.2 times the mean on.
fn report(proxy: &str, seq: u64, digest: u64, tries: u64, loads: &[u64]) -> Vec<u8> {
    let mut out = vec![2];
    let text = |out: &mut Vec<u8>, text: &str| {
        number(out, text.len() as u64);
        out.extend(text.as_bytes());
    };
    text(&mut out, proxy);
    // Instance, number, services.
    [7, seq, 1].into_iter().for_each(|value| number(&mut out, value));
    text(&mut out, "s");
    // By ring, and by members, which all rings here have; revision.
    [digest, 1, 0].into_iter().for_each(|value| number(&mut out, value));
    out.extend(1.2_f64.to_le_bytes());
    out.extend(0.9_f64.to_le_bytes());
    // No hot keys; span, tries, members.
    out.push(0);
    [250, tries, loads.len() as u64].into_iter().for_each(|value| number(&mut out, value));
    loads.iter().for_each(|load| number(&mut out, load * 16));
    // Nothing seen of keys, no table held, none in force.
    out.extend([0; 5]);
    out
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}

fn post(url: &str, body: &[u8]) -> Option<Answer> {
    let head = format!(
        "POST /v1/loads HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
        address(url),
        body.len()
    );
    let mut stream = std::net::TcpStream::connect(address(url)).ok()?;
    stream.set_read_timeout(Some(patience())).ok()?;
    std::io::Write::write_all(&mut stream, &[head.as_bytes(), body].concat()).ok()?;
    read_answer(&mut stream, true)
}

fn heartbeat(url: &str, proxy: &str, requests: u64) -> u16 {
    let body = json!({
        "version": "1", "epoch": 1, "revision": 0, "digest": "", "rings": {}, "stuck": null, "generation": 1, "vote": null,
        "down": [], "requests": requests, "failed": 0, "canary": null, "instance": 7,
    });
    curl(url, "PUT", &format!("/v1/proxies/{proxy}"), &body).status
}

/// Proxies that report four times a second to whichever member takes it, until it is dropped.
struct Reporters {
    stop: Arc<AtomicBool>,
    /// Tries that the last of them tells of with each report.
    tries: Arc<AtomicU32>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Reporters {
    /// `rings`: what each has.
    fn start(urls: &[String], rings: &[(&'static str, u64)]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tries = Arc::new(AtomicU32::new(0));
        let last = rings.len() - 1;
        let threads = rings.iter().enumerate().map(|(index, &(name, digest))| {
            let (urls, stop, tries) = (urls.to_vec(), Arc::clone(&stop), Arc::clone(&tries));
            std::thread::spawn(move || {
                let mut at = index;
                for seq in 1.. {
                    if stop.load(Relaxed) {
                        return;
                    }
                    if seq % 8 == 1 {
                        urls.iter().any(|url| heartbeat(url, name, 0) == 200);
                    }
                    let tries = if index == last { u64::from(tries.load(Relaxed)) } else { 0 };
                    let body = report(name, seq, digest, tries, &[1_000, 10, 10]);
                    if post(&urls[at % urls.len()], &body).is_none_or(|answer| answer.status != 200) {
                        at += 1;
                    }
                    // As often as a proxy does.
                    pace(Duration::from_millis(200));
                }
            })
        });
        Self { threads: threads.collect(), stop, tries }
    }
}

impl Drop for Reporters {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Lines of a watch stream that curl reads.
struct Watch {
    curl: Child,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Watch {
    fn start(url: &str) -> Self {
        Self::of(url, "?loads=1")
    }

    fn of(url: &str, query: &str) -> Self {
        let url = format!("{url}/v1/watch{query}");
        let mut curl = Command::new("curl").args(["-sN", &url]).stdout(Stdio::piped()).spawn().unwrap();
        let (lines, out) = (Arc::new(Mutex::new(Vec::new())), curl.stdout.take().unwrap());
        let told = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                told.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { curl, lines }
    }

    /// Places of the lines of this kind, and the lines.
    fn told(&self, kind: &str) -> Vec<(Vec<u64>, Value)> {
        let lines = self.lines.lock().unwrap();
        let told = lines.iter().filter_map(|line| line.get(kind));
        told.map(|line| {
            (["epoch", "term", "seq"].map(|of| line["position"][of].as_u64().unwrap()).to_vec(), line.clone())
        })
        .collect()
    }

    /// What the first member sheds, of 65535, by each line that was told, and the line's place.
    fn sheds(&self) -> Vec<(Vec<u64>, u64)> {
        let mut share = 0;
        let told = self.told("loads").into_iter().map(|(place, line)| {
            let table = &line["services"]["s"][format!("{DIGEST:016x}")];
            if table.get("members").is_some() {
                share = 0;
            }
            // Of a pair, the first says how many members are passed over.
            if table["shed"][0] == 0 {
                share = table["shed"][1].as_u64().unwrap();
            }
            (place, share)
        });
        told.collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

fn leader(cluster: &Cluster) -> usize {
    wait_for("a leader", || {
        cluster.urls.iter().position(|url| {
            let status = get(address(url), "/v1/status").map(|answer| answer.body);
            let status: Option<Value> = status.and_then(|body| serde_json::from_slice(&body).ok());
            status.is_some_and(|status| status["member"]["role"] == "leader")
        })
    })
}

#[test]
fn one_table_for_all_is_relayed_and_goes_on_where_it_was_when_the_leader_is_killed() {
    let mut cluster = Cluster::of(3, "");
    let old = leader(&cluster);
    let others: Vec<usize> = (0..3).filter(|index| *index != old).collect();
    let watches = [Watch::start(&cluster.urls[others[0]]), Watch::start(&cluster.urls[others[1]])];
    let plain = Watch::of(&cluster.urls[others[0]], "");
    let reporters = Reporters::start(&cluster.urls, &[("p", DIGEST), ("q", DIGEST), ("behind", 1)]);
    let most = |watch: &Watch| watch.sheds().last().is_some_and(|(_, share)| *share == MOST);
    wait_for("the first member to shed as much as it may, at both followers", || {
        (most(&watches[0]) && most(&watches[1])).then_some(())
    });
    let shown = curl(&cluster.urls[others[0]], "GET", "/v1/loads", &Value::Null).json();
    // And one of the ring that is behind.
    let told = shown["services"]["s"].as_array().unwrap();
    let table = told.iter().find(|table| table["digest"] == format!("{DIGEST:016x}")).unwrap();
    assert_eq!((&table["digest"], &table["members"]), (&json!(format!("{DIGEST:016x}")), &json!(3)), "{shown}");
    assert_eq!((&shown["fresh"], &table["shed"]), (&json!(true), &json!([{ "member": 0, "percent": 90.0 }])));
    let term = watches[0].sheds().last().unwrap().0[1];
    cluster.kill(old);
    wait_for("tables of the next leader at both", || {
        watches.iter().all(|watch| watch.sheds().last().unwrap().0[1] > term).then_some(())
    });
    for watch in &watches {
        let sheds = watch.sheds();
        assert!(sheds.windows(2).all(|pair| pair[0].0 < pair[1].0), "never back: {sheds:?}");
        // Begun from nothing, it would have taken some steps to come there.
        assert!(sheds.iter().filter(|(place, _)| place[1] > term).all(|(_, share)| *share == MOST), "{sheds:?}");
        assert!(!watch.told("loads_confirmed").is_empty());
    }
    assert!(!plain.lines.lock().unwrap().iter().any(|line| line.get("loads").is_some()), "it has not asked for them");
    drop(reporters);
}

#[test]
fn who_contradicts_itself_or_sends_nonsense_is_named_and_the_others_balance_without_it() {
    let cluster = Cluster::of(1, "");
    let url = &cluster.urls[0];
    // A member leads before it is at work.
    wait_for("a report to be answered", || {
        let answer = post(url, &report("of-nobody", 1, DIGEST, 0, &[1]));
        (answer.or_not_yet().status == 200).then_some(())
    });
    assert_eq!(post(url, b"nonsense").unwrap().status, 400);
    assert_eq!(post(url, &[1; (1 << 20) + 1]).unwrap().status, 413);
    let reporters = Reporters::start(&cluster.urls, &[("p", DIGEST), ("liar", DIGEST)]);
    wait_for("a table", || {
        (curl(url, "GET", "/v1/loads", &Value::Null).json()["services"]["s"][0]["members"] == 3).then_some(())
    });
    reporters.tries.store(1_000_000, Relaxed);
    // Its heartbeats tell of no request.
    let said = wait_for("the liar to be named", || {
        // Between three heartbeats there are several reports, as there are of a proxy.
        pace(Duration::from_millis(300));
        heartbeat(url, "liar", 0);
        let table = cluster.control(&["proxies"]).text();
        let line = table.lines().find(|line| line.starts_with("liar"))?.to_owned();
        line.contains("refused: its reports tell of").then_some(table)
    });
    let honest = said.lines().find(|line| line.starts_with("p ")).unwrap();
    assert!(!honest.contains("refused"), "{said}");
    let refused = |reason: &str| {
        let text = String::from_utf8(get(address(url), "/metrics").or_not_yet().body).unwrap();
        let name = format!("ringway_control_fleet_load_refused_total{{reason=\"{reason}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    assert!(refused("contradiction") > 0.0 && refused("malformed") == 1.0 && refused("unknown") >= 1.0);
    reporters.tries.store(0, Relaxed);
    wait_for("it to be believed again", || {
        // Between three heartbeats there are several reports, as there are of a proxy.
        pace(Duration::from_millis(300));
        heartbeat(url, "liar", 0);
        let told = curl(url, "GET", "/v1/proxies", &Value::Null).json();
        let proxies = told["proxies"].as_array()?.clone();
        let liar = proxies.iter().find(|proxy| proxy["name"] == "liar")?;
        (liar["loads"]["services"] == 1).then_some(())
    });
}

#[test]
fn proxies_of_a_fleet_obey_one_table_and_the_next_leaders_after_it() {
    let mut cluster = Cluster::of(3, "");
    let backends = [Backend::echo("a"), Backend::echo("b")];
    let proxies = [FleetProxy::start(&cluster, "p1", ""), FleetProxy::start(&cluster, "p2", "")];
    let list = backends
        .iter()
        .zip(["a", "b"])
        .map(|(backend, id)| format!("{{ id: {id}, address: \"{}\" }}", backend.address));
    let balance = "{ hash_key: [ { path: {} } ], shed: { target: 1.2, scope: fleet } }";
    let list: Vec<String> = list.collect();
    let document = format!("services: [ {{ name: s, balance: {balance}, backends: [ {} ] }} ]\n", list.join(", "));
    assert!(cluster.control(&["apply", &cluster.write("main.yaml", &document), "--yes"]).status.success());
    // Each look is a request, too: who has nothing under way says so once, and has no table after a while.
    let table = |proxy: &FleetProxy| {
        (0..20).for_each(|key| drop(get(proxy.listen, &format!("/{key}"))));
        let table = proxy.ringway.status()["services"][0]["fleet_table"].clone();
        (table["state"] == "fresh").then(|| ["epoch", "term", "seq"].map(|of| table[of].as_u64().unwrap()))
    };
    let same = |least: u64| {
        wait_for("one fresh table at both", || {
            let held = [table(&proxies[0])?, table(&proxies[1])?];
            (held[0] == held[1] && held[0][1] >= least).then_some(held[0])
        })
    };
    let term = wait_for("both to be shown with the table that they have", || {
        let [epoch, term, seq] = same(0);
        let shown = cluster.control(&["proxies"]).text();
        let (start, end) = (shown.find("LOADS")?, shown.find("STUCK")?);
        let of = |line: &str| line.chars().skip(start).take(end - start).collect::<String>();
        let told: Vec<String> = shown.lines().filter(|line| line.starts_with('p')).map(of).collect();
        let position = format!("{epoch}.{term}.{seq},");
        (told.len() == 2 && told.iter().all(|told| told.starts_with(&position))).then_some(term)
    });
    cluster.kill(leader(&cluster));
    assert!(same(term + 1)[1] > term);
}

#[test]
fn proxies_of_two_zones_obey_tables_of_their_own() {
    let cluster = Cluster::of(1, "");
    let backends = [Backend::echo("a1"), Backend::echo("a2"), Backend::echo("b1"), Backend::echo("b2")];
    let zones = ["a", "a", "b"];
    let proxies: Vec<FleetProxy> = (0..3)
        .map(|index| FleetProxy::start(&cluster, &format!("p{index}"), &format!("zone: {}\n", zones[index])))
        .collect();
    let list = backends
        .iter()
        .zip(["a1", "a2", "b1", "b2"])
        .map(|(backend, id)| format!("{{ id: {id}, address: \"{}\", zone: {} }}", backend.address, &id[..1]));
    let list: Vec<String> = list.collect();
    let balance = "{ hash_key: [ { path: {} } ], shed: { target: 1.2, scope: fleet } }";
    let document = format!(
        "services: [ {{ name: s, zone_aware: true, balance: {balance}, backends: [ {} ] }} ]\n",
        list.join(", ")
    );
    // In a rollout: all vote for it, although each zone has a ring of its own; and nobody has drifted.
    let applied = cluster.control(&["apply", &cluster.write("main.yaml", &document), "--yes"]);
    assert!(applied.status.success(), "{}", applied.text());
    wait_for("all to be as agreed", || cluster.control(&["verify"]).status.success().then_some(()));
    let heavier = document.replace("id: a1,", "id: a1, weight: 200,");
    let applied = cluster.control(&["apply", &cluster.write("main.yaml", &heavier), "--yes"]);
    assert!(applied.status.success(), "{}", applied.text());
    wait_for("all to be as agreed", || cluster.control(&["verify"]).status.success().then_some(()));
    wait_for("a fresh table at each, of its zone", || {
        // Each look is a request, too: who has nothing under way says so once, and has no table after a while.
        let tables = proxies.iter().map(|proxy| {
            (0..20).for_each(|key| drop(get(proxy.listen, &format!("/{key}"))));
            proxy.ringway.status()["services"][0]["fleet_table"].clone()
        });
        let tables: Vec<Value> = tables.collect();
        let shown = curl(&cluster.urls[0], "GET", "/v1/loads", &Value::Null).json();
        let digests = shown["services"]["s"].as_array()?.len();
        let fresh = tables.iter().all(|table| table["state"] == "fresh" && table["refused"].is_null());
        (digests == 2 && fresh).then_some(())
    });
}

#[test]
fn what_is_slow_sheds_as_much_at_every_proxy() {
    let cluster = Cluster::of(1, "");
    let slow = Backend::custom(|mut stream, _| {
        while read_request(&mut stream).is_some() {
            // It is slow: that is what the test is about.
            pace(Duration::from_millis(200));
            if std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    });
    let fast = Backend::echo("fast");
    let proxies = [FleetProxy::start(&cluster, "p1", ""), FleetProxy::start(&cluster, "p2", "")];
    let document = format!(
        "services: [ {{ name: s, balance: {{ hash_key: [ {{ path: {{}} }} ], shed: {{ target: 1.2, scope: fleet }} }}, \
         backends: [ {{ id: fast, address: \"{}\" }}, {{ id: slow, address: \"{}\" }} ] }} ]\n",
        fast.address, slow.address
    );
    assert!(cluster.control(&["apply", &cluster.write("main.yaml", &document), "--yes"]).status.success());
    let stop = Arc::new(AtomicBool::new(false));
    // The second proxy sees a quarter of what the first one does.
    let clients = [(0, 8), (1, 2)].into_iter().flat_map(|(proxy, count)| (0..count).map(move |client| (proxy, client)));
    let clients: Vec<_> = clients
        .map(|(proxy, client)| {
            let (stop, listen) = (Arc::clone(&stop), proxies[proxy].listen);
            std::thread::spawn(move || {
                for key in (0..).take_while(|_| !stop.load(Relaxed)) {
                    drop(get(listen, &format!("/{client}-{key}")));
                }
            })
        })
        .collect();
    let share = |proxy: &FleetProxy| {
        let service = proxy.ringway.status()["services"][0].clone();
        let backends = service["backends"].as_array()?.clone();
        let shed = |id: &str| backends.iter().find(|backend| backend["id"] == id)?["shed_share"].as_f64();
        Some((service["fleet_table"]["seq"].as_u64()?, shed("slow")?, shed("fast")?))
    };
    wait_for("both to shed the same", || {
        let shares = [share(&proxies[0])?, share(&proxies[1])?];
        let (_, slow, fast) = shares[0];
        (shares[0] == shares[1] && slow > 0.0 && fast == 0.0).then_some(())
    });
    stop.store(true, Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
}
