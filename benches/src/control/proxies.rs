//! What a proxy does with the fleet's topology: starts without members, and follows changes of a large service.

use super::members::Members;
use super::percentile;
use super::scenario::{Effort, Row, row, text};
use crate::compare::{Result, free_port};
use hyper::Method;
use ringway_control::http::Api;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Starts that are timed.
const STARTS: usize = 20;
/// Backends in one transaction of the log.
const BATCH: usize = 1000;
/// `s` by path.
const DOCUMENT: &str =
    "services: [ { name: s, balance: { hash_key: [ { path: {} } ] }, health: { enabled: false } } ]\n";

/// A proxy as a process, killed when dropped.
struct Proxy {
    child: Option<Child>,
    members: PathBuf,
    config: PathBuf,
    listen: u16,
}

impl Proxy {
    fn new(members: &Members) -> Result<Self> {
        let (listen, admin) = (free_port()?, free_port()?);
        let at = |name: &str| members.directory().join(name);
        let urls: Vec<&str> = members.list.iter().map(|process| process.url.as_str()).collect();
        let yaml = format!(
            "admin: {{ address: \"127.0.0.1:{admin}\" }}\n\
             control: {{ proxy: p, directory: {:?}, members: {urls:?}, token_file: {:?}, tls: {{ ca: {:?} }} }}\n\
             listeners: [ {{ name: web, address: \"127.0.0.1:{listen}\", service: s }} ]\n",
            at("stored"),
            at("token"),
            at("ca.pem"),
        );
        let config = at("p.yaml");
        std::fs::write(&config, yaml).map_err(text("write a file"))?;
        Ok(Self { child: None, members: members.binary().to_owned(), config, listen })
    }

    fn start(&mut self) -> Result<()> {
        self.stop();
        let mut command = Command::new(&self.members);
        command.args(["run", "-c"]).arg(&self.config).env("RINGWAY_LOG", "error");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(text("start a proxy"))?;
        self.child = Some(child);
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be dead already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Revision that the proxy has in force, as its members know it: its own status would be a list of all backends.
async fn reported(api: &Api) -> Option<u64> {
    let fleet = api.json(Method::GET, "/v1/proxies", None).await.ok()?;
    fleet["proxies"].as_array()?.first()?["heartbeat"]["revision"].as_u64()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A whole answer, if there is one.
async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

async fn backend() -> Result<(u16, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(text("bind"))?;
    let port = listener.local_addr().map_err(text("bind"))?.port();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                // What goes wrong is the proxy's to see.
                while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    Ok((port, task))
}

/// All members dead: from a proxy's start to its first answer, from the topology on its disk.
///
/// # Errors
/// It does not answer.
pub async fn cold_start(members: &mut Members) -> Result<Vec<Row>> {
    let api = members.api()?;
    let (port, _serving) = backend().await?;
    let put = async |path: &str, body: Value| api.json(Method::PUT, path, Some(&body)).await.map_err(text("put"));
    put("/v1/objects/document/main", json!({ "text": DOCUMENT })).await?;
    let last = put("/v1/objects/backend/s/a", json!({ "address": format!("127.0.0.1:{port}") })).await?;
    let mut proxy = Proxy::new(members)?;
    proxy.start()?;
    members.wait("the proxy", async || (reported(&api).await? >= last["revision"].as_u64()?).then_some(())).await?;
    for index in 0..members.list.len() {
        members.kill(index)?;
    }
    let mut all = Vec::new();
    for _ in 0..STARTS {
        proxy.stop();
        let began = Instant::now();
        proxy.start()?;
        members.wait("an answer", async || get(proxy.listen, "/").await.filter(|text| text.contains(" 200 "))).await?;
        all.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let (middle, most) = (percentile(&mut all, 0.5), percentile(&mut all, 1.0));
    Ok(vec![row(
        format!("a proxy starts with all members dead, to its first answer, {STARTS} times"),
        format!("p50 {middle:.0} ms, most {most:.0} ms"),
        "200 ms",
    )])
}

/// One backend of many changes: what the proxy does for it.
///
/// # Errors
/// It does not follow.
pub async fn large_service(members: &Members, effort: &Effort) -> Result<Vec<Row>> {
    let api = members.api()?;
    let put = async |method: Method, path: &str, body: Value| {
        let answer = api.json(method, path, Some(&body)).await.map_err(text("change"))?;
        answer["revision"].as_u64().ok_or_else(|| "no revision".to_owned())
    };
    let mut revision = put(Method::PUT, "/v1/objects/document/main", json!({ "text": DOCUMENT })).await?;
    for begin in (0..effort.backends).step_by(BATCH) {
        let one = |index: usize| {
            let address = format!("127.{}.{}.{}:9", 1 + index / 62_500, index / 250 % 250, 1 + index % 250);
            json!({ "put": { "key": format!("backend/s/b{index}"), "object": { "backend": { "address": address } } } })
        };
        let ops: Vec<Value> = (begin..(begin + BATCH).min(effort.backends)).map(one).collect();
        revision = put(Method::POST, "/v1/txn", json!({ "ops": ops })).await?;
    }
    let mut proxy = Proxy::new(members)?;
    proxy.start()?;
    let reached =
        async |wanted: u64| members.wait("the proxy", async || (reported(&api).await? >= wanted).then_some(())).await;
    reached(revision).await?;
    // Heartbeats and first checks are over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let pid = proxy.child.as_ref().map_or(0, Child::id);
    let (mut all, before) = (Vec::new(), super::members::cpu_of(pid));
    for change in 0..effort.changes {
        let began = Instant::now();
        let path = format!("/v1/objects/backend/s/b{}", change * 7 % effort.backends);
        let revision = put(Method::PATCH, &path, json!({ "weight": 50 + change })).await?;
        reached(revision).await?;
        all.push(began.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let each = (super::members::cpu_of(pid) - before) / effort.changes as f64 * 1e3;
    let (middle, p99) = (percentile(&mut all, 0.5), percentile(&mut all, 0.99));
    Ok(vec![row(
        format!("one of {} backends of a service changes, to in force at a proxy", effort.backends),
        format!("p50 {middle:.0} ms, p99 {p99:.0} ms, {each:.0} ms of the proxy's CPU"),
        "none",
    )])
}
