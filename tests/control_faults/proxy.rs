//! Proxies as processes, and requests that go through them all the time.

use crate::client;
use crate::common::{OrNotYet, free_address, get, not_yet, pace, wait_for};
use crate::workload::KEYS;
use serde_json::{Value, json};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A proxy that pulls what it serves. Killed when dropped.
pub(crate) struct Proxy {
    pub(crate) name: String,
    /// What it runs from its next start on.
    pub(crate) program: PathBuf,
    child: Option<Child>,
    config: PathBuf,
    log: PathBuf,
    pub(crate) admin: SocketAddr,
    pub(crate) listen: SocketAddr,
    /// With the configuration, and with the last topology that was good.
    _directory: tempfile::TempDir,
}

impl Proxy {
    pub(crate) fn new(name: &str, members: &[SocketAddr]) -> Self {
        Self::of(Path::new(env!("CARGO_BIN_EXE_ringway")), name, members)
    }

    /// Of another build.
    pub(crate) fn of(program: &Path, name: &str, members: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (admin, listen) = (free_address(), free_address());
        let members: Vec<String> = members.iter().map(|member| format!("http://{member}")).collect();
        let text = format!(
            "workers: 1\nadmin: {{ address: \"{admin}\" }}\n\
             control: {{ proxy: {name}, directory: {:?}, members: {members:?} }}\n\
             listeners: [ {{ name: web, address: \"{listen}\", service: web }} ]\n",
            directory.path().join("data")
        );
        let config = directory.path().join("ringway.yaml");
        std::fs::write(&config, text).unwrap();
        let log = directory.path().join("log");
        let (name, program) = (name.to_owned(), program.to_owned());
        let mut this = Self { name, program, child: None, config, log, admin, listen, _directory: directory };
        this.start();
        this
    }

    /// On return it serves.
    pub(crate) fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["run", "-c"]).arg(&self.config).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        wait_for("the proxy to be ready", || (get(self.admin, "/readyz")?.status == 200).then_some(()));
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = get(self.admin, "/metrics").or_not_yet().text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| not_yet(format!("no metric {name} in {text}"))).trim();
        value.parse().unwrap_or_else(|_| panic!("{name} {value}"))
    }

    /// What it follows, as it says itself.
    pub(crate) fn topology(&self) -> Option<Value> {
        let status: Value = serde_json::from_slice(&get(self.admin, "/status")?.body).ok()?;
        status.get("topology").cloned()
    }

    pub(crate) fn revision(&self) -> u64 {
        self.metric("ringway_topology_revision") as u64
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the log of proxy {}:\n{}", self.name, std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Requests, one after the other, on kept connections and on new ones.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    pub(crate) fn start(listen: SocketAddr) -> Self {
        let mut this = Self::none();
        for kept in [false, true] {
            this.add(listen, kept, |number| format!("/{number}"));
        }
        this
    }

    /// So many clients that ask for these alone, by turns.
    pub(crate) fn of(listen: SocketAddr, clients: usize, paths: &[String]) -> Self {
        let mut this = Self::none();
        for client in 0..clients {
            let paths = paths.to_vec();
            this.add(listen, client > 0, move |number| paths[(number + client) % paths.len()].clone());
        }
        this
    }

    fn none() -> Self {
        Self { stop: Arc::default(), served: Arc::default(), failed: Arc::default(), threads: Vec::new() }
    }

    fn add(&mut self, listen: SocketAddr, kept: bool, path: impl Fn(usize) -> String + Send + 'static) {
        let (stop, served, failed) = (Arc::clone(&self.stop), Arc::clone(&self.served), Arc::clone(&self.failed));
        self.threads.push(std::thread::spawn(move || {
            let mut connection = None;
            let mut number = 0;
            while !stop.load(SeqCst) {
                number += 1;
                match request(listen, &path(number), kept, &mut connection) {
                    Ok(()) => drop(served.fetch_add(1, SeqCst)),
                    Err(why) => failed.lock().unwrap().push(why),
                }
                pace(Duration::from_millis(5));
            }
        }));
    }

    /// Requests that have failed so far.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failed.lock().unwrap().clone()
    }

    /// Gives how many were served: all.
    pub(crate) fn finish(mut self) -> usize {
        self.stop.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client panicked");
        }
        let failed = self.failed.lock().unwrap();
        assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
        self.served.load(SeqCst)
    }
}

fn request(listen: SocketAddr, path: &str, kept: bool, connection: &mut Option<TcpStream>) -> Result<(), String> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => TcpStream::connect(listen).map_err(|error| format!("connect: {error}"))?,
    };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let close = if kept { "" } else { "Connection: close\r\n" };
    let text = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{close}\r\n");
    stream.write_all(text.as_bytes()).map_err(|error| format!("send: {error}"))?;
    let answer = crate::common::try_read_answer(&mut stream, true).map_err(|error| format!("no answer: {error}"))?;
    if answer.status != 200 {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    let last = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    *connection = (kept && !last).then_some(stream);
    Ok(())
}

/// What the fleet agrees on: a service, and backends behind it that answer.
pub(crate) fn publish(api: SocketAddr, backends: &[SocketAddr]) {
    publish_as(api, "services: [ { name: web } ]", backends);
}

/// The same, as this text has the service.
pub(crate) fn publish_as(api: SocketAddr, text: &str, backends: &[SocketAddr]) {
    let mut ops = vec![json!({ "put": { "key": "document/main", "object": { "document": { "text": text } } } })];
    for (key, address) in KEYS.iter().zip(backends) {
        ops.push(json!({ "put": { "key": key, "object": { "backend": { "address": address, "source": "w0" } } } }));
    }
    client::must(api, "POST", "/v1/txn", &json!({ "ops": ops }));
}
