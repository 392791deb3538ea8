//! Members of a control plane and proxies of a fleet, as processes.

use super::{OrNotYet, Ringway, free_address, get, not_yet, note, wait_for};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub status: ExitStatus,
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

impl Said {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub fn error(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }

    /// In a condition, anything else means [`not_yet`].
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| not_yet(format!("{error}: {self:?}")))
    }
}

/// Runs a command to its end.
pub fn run(program: &str, args: &[&str]) -> Said {
    said(Command::new(program).args(args))
}

fn said(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Said { status: output.status, out: output.stdout, err: output.stderr }
}

/// What curl got.
#[derive(Debug)]
pub struct Curl {
    pub status: u16,
    pub body: String,
}

impl Curl {
    /// In a condition, anything else means [`not_yet`].
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| not_yet(format!("{error}: {self:?}")))
    }
}

/// Asks with curl.
pub fn curl(url: &str, method: &str, path: &str, body: &Value) -> Curl {
    let (url, body) = (format!("{url}{path}"), body.to_string());
    let mut args = vec!["-s", "--max-time", "10", "-w", "\n%{http_code}", "-X", method, &url];
    if body != "null" {
        args.extend(["-d", &body]);
    }
    let said = run("curl", &args);
    let text = said.text();
    let (body, status) = text.rsplit_once('\n').or_not_yet();
    if !said.status.success() {
        note(format!("curl {method} {url}: {}", said.status));
    }
    Curl { status: status.parse().or_not_yet(), body: body.to_owned() }
}

/// Asks with curl over TLS; `None`: no connection, or one that is not trusted.
pub fn curl_tls(url: &str, ca: &str, token: &str, method: &str, path: &str, body: &str) -> Option<Curl> {
    let bearer = format!("Authorization: Bearer {}", std::fs::read_to_string(token).ok()?.trim());
    let target = format!("{url}{path}");
    let args =
        ["-s", "--max-time", "10", "-w", "\n%{http_code}", "--cacert", ca, "-H", &bearer, "-X", method, "-d", body];
    let said = run("curl", &[&args[..], &[&target]].concat());
    let text = said.status.success().then(|| said.text())?;
    let (body, status) = text.rsplit_once('\n')?;
    Some(Curl { status: status.parse().ok()?, body: body.to_owned() })
}

/// Runs `ringway` to its end.
pub fn ringway_said(args: &[&str]) -> Said {
    said(&mut ringway(args))
}

/// A document with service `s`, by path.
pub fn service(backends: &[(&str, SocketAddr)]) -> String {
    let list: Vec<String> =
        backends.iter().map(|(id, address)| format!("{{ id: {id}, address: \"{address}\" }}")).collect();
    format!(
        "services: [ {{ name: s, balance: {{ hash_key: [ {{ path: {{}} }} ] }}, backends: [ {} ] }} ]\n",
        list.join(", ")
    )
}

struct Member {
    child: Child,
    config: PathBuf,
}

/// Members, each a process. Killed when dropped.
pub struct Cluster {
    members: Vec<Member>,
    /// Of their APIs.
    pub urls: Vec<String>,
    directory: tempfile::TempDir,
    extra: String,
}

impl Cluster {
    /// So many members; `extra` is added to each one's settings.
    pub fn of(count: usize, extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = Self { members: Vec::new(), urls: Vec::new(), directory, extra: extra.to_owned() };
        let config = cluster.settle();
        assert!(said(&mut ringway(&["control", "init", "-c", config.to_str().unwrap()])).status.success());
        cluster.start(config);
        for _ in 1..count {
            cluster.join(&[]);
        }
        wait_for("every member to be a voter", || {
            let list = curl(&cluster.urls[0], "GET", "/v1/members", &Value::Null);
            // With tokens, nobody is asked: a lone member is one.
            if list.status == 401 {
                return Some(());
            }
            let voters = list.json()["members"].as_array()?.iter().filter(|member| member["voter"] == true).count();
            (voters == count).then_some(())
        });
        cluster
    }

    /// The next member's file.
    fn settle(&mut self) -> PathBuf {
        let (api, peers) = (free_address(), free_address());
        let index = self.urls.len() + 1;
        let path = self.directory.path().join(format!("member-{index}.yaml"));
        let text = format!(
            "control: {{ member: {{ name: m{index}, directory: {:?}, address: \"{api}\", peer_address: \"{peers}\"{} }} }}\n",
            self.directory.path().join(format!("member-{index}")),
            self.extra
        );
        std::fs::write(&path, text).unwrap();
        self.urls.push(format!("http://{api}"));
        path
    }

    fn start(&mut self, config: PathBuf) -> usize {
        let index = self.members.len();
        let child = self.spawn(&config, index);
        self.members.push(Member { child, config });
        self.ready(index);
        index
    }

    fn spawn(&self, config: &std::path::Path, index: usize) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path(index)).unwrap();
        ringway(&["control", "run", "-c", config.to_str().unwrap()]).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn ready(&self, index: usize) {
        let address: SocketAddr = self.urls[index].trim_start_matches("http://").parse().unwrap();
        wait_for("a member to be ready", || (get(address, "/readyz")?.status == 200).then_some(()));
    }

    /// One more member; its index.
    pub fn join(&mut self, args: &[&str]) -> usize {
        let from = self.urls.join(",");
        let config = self.settle();
        let all = [&["control", "join", "-c", config.to_str().unwrap(), "--members", &from], args].concat();
        let out = said(&mut ringway(&all));
        assert!(out.status.success(), "{out:?}");
        self.start(config)
    }

    /// Every member dies with its disk; as many new ones at the same addresses make a cluster of this name.
    pub fn wipe(&mut self, name: &str) {
        self.wipe_and_init(&["--cluster", name]);
    }

    /// As [`Cluster::wipe`]; the first new one begins so.
    pub fn wipe_and_init(&mut self, args: &[&str]) {
        for index in 0..self.members.len() {
            self.kill(index);
            std::fs::remove_dir_all(self.home(index)).unwrap();
        }
        for index in 0..self.members.len() {
            let config = self.config(index);
            let out = match index {
                0 => ringway_said(&[&["control", "init", "-c", &config], args].concat()),
                _ => ringway_said(&["control", "join", "-c", &config, "--members", &self.urls[0]]),
            };
            assert!(out.status.success(), "{out:?}");
            self.bring_back(index);
        }
    }

    /// A member's file.
    pub fn config(&self, index: usize) -> String {
        self.members[index].config.to_str().unwrap().to_owned()
    }

    /// Where a member keeps what it has.
    pub fn home(&self, index: usize) -> String {
        self.path(&format!("member-{}", index + 1))
    }

    /// kill -9.
    pub fn kill(&mut self, index: usize) {
        let _ = self.members[index].child.kill();
        let _ = self.members[index].child.wait();
    }

    /// Of a member's process.
    pub fn pid(&self, index: usize) -> u32 {
        self.members[index].child.id()
    }

    /// Starts a member again.
    pub fn bring_back(&mut self, index: usize) {
        self.begin(index);
        self.ready(index);
    }

    /// Starts a member again, which may never come to be ready.
    pub fn begin(&mut self, index: usize) {
        let child = self.spawn(&self.members[index].config, index);
        self.members[index].child = child;
    }

    fn log_path(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("member-{}.log", index + 1))
    }

    pub fn log(&self, index: usize) -> String {
        std::fs::read_to_string(self.log_path(index)).unwrap_or_default()
    }

    /// `ringway control` with these members.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = ringway(&[&["control", "--members", &self.urls.join(",")], args].concat());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    pub fn control(&self, args: &[&str]) -> Said {
        said(&mut ringway(&[&["control", "--members", &self.urls.join(",")], args].concat()))
    }

    pub fn control_at(&self, index: usize, args: &[&str]) -> Said {
        said(&mut ringway(&[&["control", "--members", &self.urls[index]], args].concat()))
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// A file; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
        if std::thread::panicking() {
            for index in 0..self.members.len() {
                let log = self.log(index);
                let tail: Vec<&str> = log.lines().rev().take(30).collect();
                eprintln!("member {}:\n{}", index + 1, tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

fn ringway(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(args).env_remove("RINGWAY_CONTROL").env_remove("RINGWAY_TOKEN_FILE").env_remove("RINGWAY_CA");
    command
}

/// A proxy whose file says where it listens for service `s`, and where the rest comes from.
pub struct FleetProxy {
    pub ringway: Ringway,
    pub listen: SocketAddr,
    text: String,
    _directory: tempfile::TempDir,
}

impl FleetProxy {
    pub fn start(cluster: &Cluster, name: &str, extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listen = free_address();
        let text = format!(
            "admin: {{ address: ADMIN }}\ncontrol: {{ proxy: {name}, directory: {:?}, members: {:?} }}\n\
             listeners: [ {{ name: web, address: \"{listen}\", service: s }} ]\n{extra}",
            directory.path().join("stored"),
            cluster.urls,
        );
        let ringway = Ringway::start(&text);
        wait_for("the proxy to be known", || {
            let fleet = curl(&cluster.urls[0], "GET", "/v1/proxies", &Value::Null);
            let known = fleet.json()["proxies"].as_array()?.iter().any(|proxy| proxy["name"] == name);
            known.then_some(())
        });
        Self { ringway, listen, text, _directory: directory }
    }

    /// kill -9, and again with what is on its disk.
    pub fn restart(&mut self) {
        self.kill();
        self.bring_back();
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.ringway.signal("KILL");
        self.ringway.wait();
    }

    /// Starts again with what is on its disk.
    pub fn bring_back(&mut self) {
        self.ringway = Ringway::start(&self.text);
    }
}
