//! Real etcd, one member or several, each a process, and proxies that follow it.

use super::control::{Said, run};
use super::{OrNotYet, Ringway, free_address, not_yet, require, wait_for};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// What every key of a topology begins with here.
pub const PREFIX: &str = "/fleet/";

struct Member {
    client: SocketAddr,
    peer: SocketAddr,
    child: Option<Child>,
}

/// A cluster of etcd. Killed when dropped.
pub struct Etcd {
    members: Vec<Member>,
    directory: tempfile::TempDir,
    /// Part of what makes the cluster's number.
    pub token: String,
    scheme: &'static str,
    /// Added to each member's.
    arguments: Vec<String>,
    /// Added to each of etcdctl's.
    pub credentials: Vec<String>,
}

impl Etcd {
    /// So many members; `None`, said aloud, if there is no etcd here.
    pub fn of(count: usize) -> Option<Self> {
        let mut this = Self::prepared(count)?;
        this.start();
        Some(this)
    }

    /// One member that speaks TLS and asks for clients' certificates; `client` and `server` are names of certificates.
    pub fn with_tls(certificates: &super::peers::Certificates) -> Option<Self> {
        let mut this = Self::prepared(1)?;
        let file = |name: &str| certificates.text(name);
        this.scheme = "https";
        this.arguments = [
            "--client-cert-auth",
            &format!("--cert-file={}", file("server.pem")),
            &format!("--key-file={}", file("server.key")),
            &format!("--trusted-ca-file={}", file("ca.pem")),
        ]
        .map(str::to_owned)
        .to_vec();
        this.credentials = [
            format!("--cacert={}", file("ca.pem")),
            format!("--cert={}", file("client.pem")),
            format!("--key={}", file("client.key")),
        ]
        .to_vec();
        this.start();
        Some(this)
    }

    fn prepared(count: usize) -> Option<Self> {
        require("etcd")?;
        require("etcdctl")?;
        let members =
            (0..count).map(|_| Member { client: free_address(), peer: free_address(), child: None }).collect();
        let directory = tempfile::tempdir().unwrap();
        let (arguments, credentials) = Default::default();
        Some(Self { members, directory, token: "first".into(), scheme: "http", arguments, credentials })
    }

    fn start(&mut self) {
        (0..self.members.len()).for_each(|index| self.spawn(index));
        self.ready();
    }

    fn spawn(&mut self, index: usize) {
        let all: Vec<String> =
            self.members.iter().enumerate().map(|(index, member)| format!("e{index}=http://{}", member.peer)).collect();
        let member = &self.members[index];
        let (client, peer) = (format!("{}://{}", self.scheme, member.client), format!("http://{}", member.peer));
        let path = |name: &str| self.directory.path().join(format!("{name}-{index}"));
        let child = Command::new("etcd")
            .args(["--name", &format!("e{index}"), "--initial-cluster-state", "new", "--logger", "zap"])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-token", &self.token])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .arg("--data-dir")
            .arg(path("data"))
            .args(&self.arguments)
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        self.members[index].child = Some(child);
    }

    /// Waits until what is written is kept.
    pub fn ready(&self) {
        wait_for("etcd", || self.try_ctl(&["get", "ready"]).status.success().then_some(()));
    }

    pub fn pid(&self, index: usize) -> u32 {
        self.members[index].child.as_ref().unwrap().id()
    }

    /// kill -9.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.members[index].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn kill_all(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
    }

    /// Starts what is not running, with what is on its disk.
    pub fn bring_back(&mut self) {
        for index in 0..self.members.len() {
            if self.members[index].child.is_none() {
                self.spawn(index);
            }
        }
        self.ready();
    }

    /// A lone member goes, and comes back where nobody else finds it. Gives where it was.
    pub fn hide(&mut self) -> SocketAddr {
        self.kill(0);
        let known = std::mem::replace(&mut self.members[0].client, free_address());
        self.bring_back();
        known
    }

    /// It comes back where it was.
    pub fn unhide(&mut self, known: SocketAddr) {
        self.kill(0);
        self.members[0].client = known;
        self.bring_back();
    }

    /// A lone member loses all that it had, and begins anew.
    pub fn wipe(&mut self) {
        self.kill(0);
        std::fs::remove_dir_all(self.directory.path().join("data-0")).unwrap();
        self.bring_back();
    }

    /// `[ "http://127.0.0.1:2379" ]`
    pub fn endpoints(&self) -> String {
        let list: Vec<String> =
            self.members.iter().map(|member| format!("\"{}://{}\"", self.scheme, member.client)).collect();
        format!("[ {} ]", list.join(", "))
    }

    /// For command lines.
    pub fn urls(&self) -> String {
        let list: Vec<String> =
            self.members.iter().map(|member| format!("{}://{}", self.scheme, member.client)).collect();
        list.join(",")
    }

    pub fn try_ctl(&self, arguments: &[&str]) -> Said {
        let endpoints = format!("--endpoints={}", self.urls());
        let mut all = vec!["ETCDCTL_API=3", "etcdctl", &endpoints, "--dial-timeout=2s", "--command-timeout=3s"];
        all.extend(self.credentials.iter().map(String::as_str));
        all.extend(arguments);
        run("env", &all)
    }

    /// etcdctl, which must succeed; what it says. In a condition, a failure means [`not_yet`].
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let said = self.try_ctl(arguments);
        if !said.status.success() {
            not_yet(format!("{arguments:?}: {said:?}"));
        }
        said.text()
    }

    /// Puts an object of the topology.
    pub fn put(&self, name: &str, value: &str) {
        self.ctl(&["put", &format!("{PREFIX}{name}"), value]);
    }

    pub fn delete(&self, name: &str) {
        assert_eq!(self.ctl(&["del", &format!("{PREFIX}{name}")]).trim(), "1");
    }

    /// The store's revision.
    pub fn revision(&self) -> u64 {
        let status: Value = serde_json::from_str(&self.ctl(&["endpoint", "status", "-w", "json"])).or_not_yet();
        status[0]["Status"]["header"]["revision"].as_u64().unwrap()
    }

    /// The revision that has changed an object last.
    pub fn revision_of(&self, name: &str) -> u64 {
        let shown: Value = serde_json::from_str(&self.ctl(&["get", "-w", "json", &format!("{PREFIX}{name}")])).unwrap();
        shown["kvs"][0]["mod_revision"].as_u64().unwrap()
    }

    pub fn log(&self, index: usize) -> String {
        std::fs::read_to_string(self.directory.path().join(format!("log-{index}"))).unwrap_or_default()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking() {
            for index in 0..self.members.len() {
                let log = self.log(index);
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                eprintln!("etcd {index}:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

/// A proxy whose file says where it listens for service `s`, and that the rest is in etcd.
pub struct EtcdProxy {
    pub ringway: Ringway,
    pub listen: SocketAddr,
    text: String,
    directory: tempfile::TempDir,
}

impl EtcdProxy {
    /// `extra` is added to the section `etcd`.
    pub fn start(etcd: &Etcd, name: &str, extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listen = free_address();
        let text = format!(
            "admin: {{ address: ADMIN }}\n\
             control: {{ proxy: {name}, directory: {:?}, etcd: {{ endpoints: {}, prefix: {PREFIX}{extra} }} }}\n\
             listeners: [ {{ name: web, address: \"{listen}\", service: s }} ]\n",
            directory.path().join("stored"),
            etcd.endpoints(),
        );
        Self { ringway: Ringway::start(&text), listen, text, directory }
    }

    pub fn topology(&self) -> Value {
        self.ringway.status()["topology"].clone()
    }

    /// kill -9, and again with what is on its disk.
    pub fn restart(&mut self) {
        self.ringway.signal("KILL");
        self.ringway.wait();
        self.ringway = Ringway::start(&self.text);
    }

    /// Nothing is stored any more.
    pub fn forget(&self) {
        std::fs::remove_dir_all(self.directory.path().join("stored")).unwrap();
    }
}
