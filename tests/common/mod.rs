//! What the end-to-end tests share: a running `ringway`, backends of several kinds, raw clients.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "each test binary uses its own part"
)]

pub mod control;
pub mod etcd;
mod pace;
pub mod peers;
mod polls;
mod ports;
mod stopped;

pub use pace::{leave_time, pace, slowness, takes};
pub use polls::{OrNotYet, not_yet, note, wait_for, wait_for_within};
pub(crate) use ports::free_port;
pub use stopped::StoppedWorker;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longest wait for anything on a quiet machine: generous, because tests must not depend on speed. See [`patience`].
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Longest wait for anything on this machine, as busy as it is now.
pub fn patience() -> Duration {
    PATIENCE.mul_f64(slowness())
}

/// Says that a test does nothing here, and why, so that it is seen: what `eprintln!` prints, cargo hides of a test that passes.
#[allow(clippy::disallowed_methods, reason = "a test says what it does")]
pub fn skipped(why: &str) {
    // Alone in its process, a test may run on the main thread.
    let test = std::env::var("NEXTEST_TEST_NAME").ok();
    let test = test.or_else(|| std::thread::current().name().map(str::to_owned)).unwrap_or_else(|| "a test".to_owned());
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// A running `ringway run`. Killed when dropped.
pub struct Ringway {
    child: Child,
    pub directory: tempfile::TempDir,
    pub config: PathBuf,
    pub admin: SocketAddr,
    pub log: PathBuf,
}

impl Ringway {
    /// Starts with a configuration in which `ADMIN` stands for the admin listener's address.
    pub fn start(config: &str) -> Self {
        Self::start_at(free_address(), config)
    }

    /// The same, with a given address for the admin listener.
    pub fn start_at(admin: SocketAddr, config: &str) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_ringway")), admin, config)
    }

    /// As [`Self::start`], with no more than so many descriptors.
    pub fn start_with_descriptors(most: usize, config: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_ringway")]);
        Self::start_by(shell, free_address(), config)
    }

    /// As [`Self::start`], of a proxy that does not say to everybody whether it is ready.
    pub fn start_unasked(config: &str) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_ringway")), free_address(), config)
    }

    fn start_by(command: Command, admin: SocketAddr, config: &str) -> Self {
        let mut this = Self::spawn(command, admin, config);
        wait_for("ringway to be ready", || {
            if let Some(status) = this.child.try_wait().unwrap() {
                panic!("ringway ended with {status}: {}", this.log());
            }
            (get(this.admin, "/readyz")?.status == 200).then_some(())
        });
        this
    }

    fn spawn(mut command: Command, admin: SocketAddr, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ringway.yaml");
        std::fs::write(&path, config.replace("ADMIN", &admin.to_string())).unwrap();
        let log = directory.path().join("log");
        let child = command
            .args(["run", "--config"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, directory, config: path, admin, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What the admin listener answers, which it does for as long as the process lives. In a condition, no answer means [`not_yet`].
    fn ask_admin(&self, path: &str) -> Answer {
        let answer = try_get_with(self.admin, path, "");
        let answer = answer.and_then(|answer| match answer.status {
            200 => Ok(answer),
            _ => Err(std::io::Error::other(format!("{}{}", answer.head, answer.text()))),
        });
        answer.unwrap_or_else(|error| {
            let pid = self.pid();
            let state = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let state = state.lines().find(|line| line.starts_with("State:")).unwrap_or("no such process");
            let what = format!("GET {path} of the admin listener at {}, process {pid} ({state}): {error}", self.admin);
            // It will never answer.
            assert!(!state.contains('Z'), "{what}");
            not_yet(what)
        })
    }

    pub fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&self.ask_admin("/status").body).or_not_yet()
    }

    pub fn metric(&self, line: &str) -> f64 {
        self.find_metric(line).unwrap_or_else(|| not_yet(format!("no metric {line:?}")))
    }

    /// Of what is counted from its first time on: none before.
    pub fn counter(&self, line: &str) -> f64 {
        self.find_metric(line).unwrap_or(0.0)
    }

    fn find_metric(&self, line: &str) -> Option<f64> {
        let text = self.ask_admin("/metrics").text();
        text.lines().find_map(|candidate| candidate.strip_prefix(line)?.trim().parse().ok())
    }

    /// Replaces the file, as editors do: a new file, renamed over the old one.
    pub fn write_config(&self, config: &str) {
        let fresh = self.directory.path().join("ringway.yaml.new");
        std::fs::write(&fresh, config.replace("ADMIN", &self.admin.to_string())).unwrap();
        std::fs::rename(&fresh, &self.config).unwrap();
    }

    /// Replaces the file and waits until it is in force.
    pub fn reconfigure(&self, config: &str) {
        let before = self.status()["generation"].as_u64().unwrap();
        self.write_config(config);
        wait_for("the new configuration", || (self.status()["generation"].as_u64().unwrap() > before).then_some(()));
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end; gives the exit code.
    pub fn wait(&mut self) -> i32 {
        wait_for("ringway to end", || self.child.try_wait().unwrap()).code().unwrap_or(-1)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Ringway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("ringway's log:\n{}", self.log());
        }
    }
}

pub fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap().success());
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Connects and sends bytes.
pub fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patience())).unwrap();
    stream.set_write_timeout(Some(patience())).unwrap();
    stream.set_nodelay(true).unwrap();
    // The other side may refuse before it has read all.
    let _ = stream.write_all(bytes);
    stream
}

/// Reads one answer; `None` if the connection ends first. `has_body` is false for answers to HEAD.
pub fn read_answer(stream: &mut (impl Read + ?Sized), has_body: bool) -> Option<Answer> {
    try_read_answer(stream, has_body).inspect_err(|error| note(format!("an answer: {error}"))).ok()
}

/// The same, with what has gone wrong.
pub fn try_read_answer(stream: &mut (impl Read + ?Sized), has_body: bool) -> std::io::Result<Answer> {
    let malformed = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        // As `read` alone does not, this goes on where a signal, or a machine that stood still, has interrupted it.
        stream.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| malformed("no status"))?;
    let mut answer = Answer { status, head, body: Vec::new() };
    if !has_body || status == 204 || status == 304 || status < 200 {
        return Ok(answer);
    }
    if answer.header("transfer-encoding").is_some() {
        let mut raw = Vec::new();
        while !raw.ends_with(b"0\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            raw.push(byte[0]);
        }
        let mut rest = &raw[..];
        while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
            let size = std::str::from_utf8(&rest[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.ok_or_else(|| malformed("no size of a chunk"))?;
            if size == 0 {
                break;
            }
            let data = rest.get(end + 2..end + 2 + size).ok_or_else(|| malformed("a chunk is cut off"))?;
            answer.body.extend_from_slice(data);
            rest = &rest[end + 2 + size + 2..];
        }
    } else if let Some(length) = answer.header("content-length") {
        answer.body = vec![0; length.parse().map_err(|_| malformed("no length"))?];
        stream.read_exact(&mut answer.body)?;
    } else {
        stream.read_to_end(&mut answer.body)?;
    }
    Ok(answer)
}

/// Sends raw bytes on a connection of their own and reads all that comes back until it ends.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = send(address, bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// GET on a connection of its own; `None` if nobody answers.
pub fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    get_with(address, path, "")
}

/// GET with more fields, each ended by CR LF.
pub fn get_with(address: SocketAddr, path: &str, fields: &str) -> Option<Answer> {
    let answer = try_get_with(address, path, fields);
    answer.inspect_err(|error| note(format!("GET {path} of {address}: {error}"))).ok()
}

/// The same, with what has gone wrong.
fn try_get_with(address: SocketAddr, path: &str, fields: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(patience()))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes())?;
    try_read_answer(&mut stream, true)
}

/// A backend that does with each connection what it is told. Lives as long as the process.
pub struct Backend {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub seen: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    /// `serve` gets every connection, and a place to note requests.
    pub fn custom(serve: impl Fn(TcpStream, &Mutex<Vec<String>>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, serve)
    }

    pub fn on(listener: TcpListener, serve: impl Fn(TcpStream, &Mutex<Vec<String>>) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let serve = Arc::new(serve);
        let (count, notes) = (Arc::clone(&connections), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let (serve, notes) = (Arc::clone(&serve), Arc::clone(&notes));
                std::thread::spawn(move || serve(stream, &notes));
            }
        });
        Self { address, connections, seen }
    }

    /// Answers every request of a keep-alive connection with its name, notes head and body.
    pub fn echo(name: &str) -> Self {
        let name = name.to_owned();
        Self::custom(move |mut stream, seen| {
            while let Some((head, body)) = read_request(&mut stream) {
                seen.lock().unwrap().push(format!("{head}{}", String::from_utf8_lossy(&body)));
                let text = if head.starts_with("HEAD ") { String::new() } else { name.clone() };
                let answer =
                    format!("HTTP/1.1 200 OK\r\nx-backend: {name}\r\ncontent-length: {}\r\n\r\n{text}", name.len());
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        })
    }

    /// Reads one request's head, answers these bytes, closes.
    pub fn says(answer: &'static [u8]) -> Self {
        Self::custom(move |mut stream, seen| {
            if let Some((head, _)) = read_request(&mut stream) {
                seen.lock().unwrap().push(head);
                let _ = stream.write_all(answer);
            }
        })
    }

    pub fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Reads a request: head, and body decoded from its framing.
pub fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let lower = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if let Some(length) = lower.lines().find_map(|line| line.strip_prefix("content-length:")) {
        body = vec![0; length.trim().parse().ok()?];
        stream.read_exact(&mut body).ok()?;
    } else if lower.contains("transfer-encoding: chunked") {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                if stream.read(&mut byte).ok()? == 0 {
                    return None;
                }
                line.push(byte[0]);
            }
            let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
            if size == 0 {
                let mut rest = Vec::new();
                while !rest.ends_with(b"\r\n\r\n") && rest != b"\r\n" {
                    if stream.read(&mut byte).ok()? == 0 {
                        return None;
                    }
                    rest.push(byte[0]);
                }
                body.extend_from_slice(&rest[..rest.len() - 2]);
                break;
            }
            let start = body.len();
            body.resize(start + size, 0);
            stream.read_exact(&mut body[start..]).ok()?;
            stream.read_exact(&mut [0; 2]).ok()?;
        }
    }
    Some((head, body))
}

/// Somebody's process, which ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A real nginx with one server; every answer names it in `x-backend`. Killed when dropped.
pub struct Nginx {
    pub address: SocketAddr,
    pub id: String,
    child: Option<Child>,
    directory: tempfile::TempDir,
}

impl Nginx {
    /// `None`, said aloud, if there is no nginx here.
    pub fn fleet(count: usize) -> Option<Vec<Self>> {
        require("nginx")?;
        Some((0..count).map(|index| Self::start(&format!("n{index}"), free_port())).collect())
    }

    pub fn start(id: &str, port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let config = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/f;\n\
             uwsgi_temp_path {path}/u; scgi_temp_path {path}/s; client_max_body_size 0;\n\
             server {{ listen 127.0.0.1:{port}; add_header x-backend {id} always;\n\
             location / {{ return 200 \"{id}\\n\"; }}\n\
             location /big {{ root {path}; }} }} }}\n"
        );
        std::fs::write(directory.path().join("nginx.conf"), config).unwrap();
        std::fs::write(directory.path().join("big"), vec![b'x'; 3 * 1024 * 1024 + 7]).unwrap();
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        let mut this = Self { address, id: id.to_owned(), child: None, directory };
        this.bring_back();
        this
    }

    /// Starts the process (again).
    pub fn bring_back(&mut self) {
        let child = Command::new("nginx")
            .arg("-c")
            .arg(self.directory.path().join("nginx.conf"))
            .arg("-e")
            .arg(self.directory.path().join("start.log"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_for("nginx", || TcpStream::connect(self.address).ok());
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if self.child.is_some() {
            // A stopped process takes its kill only when it goes on.
            let _ = Command::new("kill").args(["-CONT", &self.pid().to_string()]).status();
        }
        self.kill();
    }
}

/// Says why a test is skipped where a peer is missing. CI installs them all, and sets CI: there a missing one fails.
pub fn require(program: &str) -> Option<()> {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    if found {
        return Some(());
    }
    assert!(std::env::var_os("CI").is_none(), "CI has no {program}");
    skipped(&format!("{program} is not installed here"));
    None
}

/// Runs a program to its end.
pub fn output(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

/// `ringway` with arguments, to its end.
pub fn ringway(arguments: &[&str]) -> Output {
    output(env!("CARGO_BIN_EXE_ringway"), arguments)
}

/// A configuration with one HTTP listener and one service.
pub fn simple(listen: SocketAddr, service: &str, backends: &[(&str, SocketAddr)]) -> String {
    let mut text = format!(
        "workers: 2\nadmin: {{ address: \"ADMIN\" }}\nlisteners: [ {{ name: web, address: \"{listen}\", service: s }} ]\n\
         services:\n  - name: s\n"
    );
    for line in service.lines() {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("    backends:\n");
    for (id, address) in backends {
        text.push_str(&format!("      - {{ id: {id}, address: \"{address}\" }}\n"));
    }
    text
}

/// A free address of loopback.
pub fn free_address() -> SocketAddr {
    format!("127.0.0.1:{}", free_port()).parse().unwrap()
}

pub fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A fleet of echoes named `a`, `b`, ...
pub fn echoes(count: usize) -> Vec<(&'static str, Backend)> {
    ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().take(count).map(|name| (name, Backend::echo(name))).collect()
}

/// Names and addresses, for [`simple`].
pub fn targets(fleet: &[(&'static str, Backend)]) -> Vec<(&'static str, SocketAddr)> {
    fleet.iter().map(|(name, backend)| (*name, backend.address)).collect()
}

/// A backend that answers each request with what `respond` makes of its head; keeps connections alive.
pub fn scripted(respond: impl Fn(&str) -> String + Send + Sync + 'static) -> Backend {
    Backend::custom(move |mut stream, seen| {
        while let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head.clone());
            if stream.write_all(respond(&head).as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// An answer with a body.
pub fn response(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

/// The state of a backend in the status: of the first service that has one of this id.
pub fn backend_status(ringway: &Ringway, id: &str) -> serde_json::Value {
    let status = ringway.status();
    let services = status["services"].as_array().into_iter().flatten();
    let mut backends = services.flat_map(|service| service["backends"].as_array().into_iter().flatten());
    backends
        .find(|backend| backend["id"] == id)
        .unwrap_or_else(|| not_yet(format!("no backend {id}: {status}")))
        .clone()
}

/// As [`require`], for a module of Python.
pub fn require_python(module: &str) -> Option<()> {
    let found = Command::new("python3").args(["-c", &format!("import {module}")]).output().unwrap().status.success();
    if found {
        return Some(());
    }
    assert!(std::env::var_os("CI").is_none(), "CI has no Python module {module}");
    skipped(&format!("Python has no module {module} here"));
    None
}

/// Asks by each key under a configuration whose shadow is `new`, and then under `new` itself. What the shadow has counted, and how many of
/// these keys are served by another backend then.
pub fn shadow_and_moves(old: &str, new: &str, owners: impl Fn() -> Vec<String>) -> (serde_json::Value, usize) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new.yaml");
    std::fs::write(&path, new.replace("ADMIN", "127.0.0.1:9901")).unwrap();
    let shadowed = old.replacen("workers: 2", &format!("workers: 2\nshadow: {path:?}"), 1);
    assert_ne!(shadowed, old);
    let ringway = Ringway::start(&shadowed);
    let before = owners();
    let shadow = ringway.status()["services"][0]["shadow"].clone();
    drop(ringway);
    let _ringway = Ringway::start(new);
    let after = owners();
    (shadow, before.iter().zip(&after).filter(|(before, after)| before != after).count())
}
