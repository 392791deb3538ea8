//! A proxy that serves while the control plane dies, comes back, loses its leader: no request notices.

use crate::client;
use crate::cluster::{Cluster, Member};
use crate::common::{Backend, free_address, get, wait_for};
use crate::random::Random;
use crate::workload::{KEYS, Workload};
use crate::{chaos, witness::Witness};
use serde_json::json;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A proxy that pulls what it serves. Killed when dropped.
struct Proxy {
    child: Option<Child>,
    config: PathBuf,
    log: PathBuf,
    admin: SocketAddr,
    listen: SocketAddr,
    /// With the configuration, and with the last topology that was good.
    _directory: tempfile::TempDir,
}

impl Proxy {
    fn new(members: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (admin, listen) = (free_address(), free_address());
        let members: Vec<String> = members.iter().map(|member| format!("http://{member}")).collect();
        let text = format!(
            "workers: 1\nadmin: {{ address: \"{admin}\" }}\n\
             control: {{ proxy: p, directory: {:?}, members: {members:?} }}\n\
             listeners: [ {{ name: web, address: \"{listen}\", service: web }} ]\n",
            directory.path().join("data")
        );
        let config = directory.path().join("ringway.yaml");
        std::fs::write(&config, text).unwrap();
        let log = directory.path().join("log");
        let mut this = Self { child: None, config, log, admin, listen, _directory: directory };
        this.start();
        this
    }

    /// On return it serves.
    fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.args(["run", "-c"]).arg(&self.config).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        wait_for("the proxy to be ready", || (get(self.admin, "/readyz")?.status == 200).then_some(()));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn metric(&self, name: &str) -> f64 {
        let text = get(self.admin, "/metrics").expect("the admin listener answers").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| panic!("no metric {name} in {text}")).trim();
        value.parse().unwrap_or_else(|_| panic!("{name} {value}"))
    }

    fn revision(&self) -> u64 {
        self.metric("ringway_topology_revision") as u64
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Requests, one after the other, on kept connections and on new ones.
struct Traffic {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn start(listen: SocketAddr) -> Self {
        let mut this =
            Self { stop: Arc::default(), served: Arc::default(), failed: Arc::default(), threads: Vec::new() };
        for kept in [false, true] {
            let (stop, served, failed) = (Arc::clone(&this.stop), Arc::clone(&this.served), Arc::clone(&this.failed));
            this.threads.push(std::thread::spawn(move || {
                let mut connection = None;
                let mut number = 0;
                while !stop.load(SeqCst) {
                    number += 1;
                    match request(listen, number, kept, &mut connection) {
                        Ok(()) => drop(served.fetch_add(1, SeqCst)),
                        Err(why) => failed.lock().unwrap().push(why),
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }));
        }
        this
    }

    /// Gives how many were served: all.
    fn finish(mut self) -> usize {
        self.stop.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client panicked");
        }
        let failed = self.failed.lock().unwrap();
        assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
        self.served.load(SeqCst)
    }
}

fn request(listen: SocketAddr, number: usize, kept: bool, connection: &mut Option<TcpStream>) -> Result<(), String> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => TcpStream::connect(listen).map_err(|error| format!("connect: {error}"))?,
    };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let close = if kept { "" } else { "Connection: close\r\n" };
    let text = format!("GET /{number} HTTP/1.1\r\nHost: test\r\n{close}\r\n");
    stream.write_all(text.as_bytes()).map_err(|error| format!("send: {error}"))?;
    let answer = crate::common::read_answer(&mut stream, true).ok_or("the connection ended without an answer")?;
    if answer.status != 200 {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    let last = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    *connection = (kept && !last).then_some(stream);
    Ok(())
}

/// What the fleet agrees on: a service, and backends behind it that answer.
fn publish(api: SocketAddr, backends: &[SocketAddr]) {
    let text = "services: [ { name: web } ]";
    let mut ops = vec![json!({ "put": { "key": "document/main", "object": { "document": { "text": text } } } })];
    for (key, address) in KEYS.iter().zip(backends) {
        ops.push(json!({ "put": { "key": key, "object": { "backend": { "address": address, "source": "w0" } } } }));
    }
    client::must(api, "POST", "/v1/txn", &json!({ "ops": ops }));
}

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
    let mut proxy = Proxy::new(&apis);
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
        std::thread::sleep(outage / 2);
        proxy.metric("ringway_topology_age_seconds")
    }];
    assert!(ages[1] - ages[0] > outage.as_secs_f64() / 4.0, "{ages:?}");
    let served = traffic.finish();

    // It dies as well, and comes back alone.
    proxy.kill();
    proxy.start();
    let traffic = Traffic::start(proxy.listen);
    assert_eq!(proxy.revision(), last, "the last topology that was good");
    std::thread::sleep(outage.saturating_sub(dead.elapsed()));

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
