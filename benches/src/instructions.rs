//! Instructions that a request costs, counted by callgrind: a figure that neither load nor the machine's clock touches, so that
//! a change can be judged by it to the percent.
//!
//! Client and backends are other processes or threads than the proxy's, and only the proxy is counted: user space, all threads.
//! What starting, connecting and ending cost is taken out by counting twice, with so many requests and with twice as many.
//!
//! At rest, each request finds the proxy asleep, and the count repeats to the percent: that is what the gate compares. Under load many
//! share a wake-up, as in production; that count is for reading, and repeats to a few percent.

pub mod backend;
pub mod callgrind;
mod doing;
pub mod parked;
pub mod record;

use crate::compare::{Result, free_port};
use doing::doing;
use parked::Parked;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a proxy under callgrind may take to start or to end, and a load to run: a sign that something hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// What is counted: one connection, one request at a time, a ring with bounded load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// HTTP/1.1 on both sides.
    Http1,
    /// The same, over TLS in front.
    Https,
    /// HTTP/2 in front, HTTP/1.1 behind.
    Http2,
    /// Unary calls of gRPC: HTTP/2 on both sides.
    Grpc,
}

/// How many ask at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// One, and only once the proxy sleeps.
    AtRest,
    /// 64 connections of HTTP/1.1; 10 of HTTP/2, 32 streams on each.
    Busy,
}

impl Scenario {
    /// All, the cheapest first.
    pub const ALL: [Self; 4] = [Self::Http1, Self::Https, Self::Http2, Self::Grpc];

    /// As in the record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Https => "https",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }

    /// User instructions per request: the least of so many counts. What disturbs a count (timers that fall due, a read that came
    /// in two) only adds.
    ///
    /// # Errors
    /// What is missing, did not start, or answered wrongly.
    pub fn count(self, load: Load, requests: u64, times: u32, directory: &Path) -> Result<u64> {
        let mut least = u64::MAX;
        for _ in 0..times.max(1) {
            let (once, twice) = (self.run(load, requests, directory)?, self.run(load, 2 * requests, directory)?);
            least = least.min(twice.saturating_sub(once) / requests);
        }
        Ok(least)
    }

    /// Instructions of a whole life of the proxy.
    fn run(self, load: Load, requests: u64, directory: &Path) -> Result<u64> {
        let parked = Parked::default();
        let backend = match self {
            Self::Grpc => backend::serve_grpc(&parked)?,
            Self::Http1 | Self::Https | Self::Http2 => backend::serve_http1(&parked)?,
        };
        let port = free_port()?;
        let (config, counts) = (directory.join("ringway.yaml"), directory.join("callgrind.out"));
        // A count of an earlier run must not be taken for this one's.
        let _ = std::fs::remove_file(&counts);
        doing(std::fs::write(&config, self.config(port, backend, directory)), "write the configuration")?;
        let ringway = doing(std::env::current_exe(), "find this program")?.with_file_name("ringway");
        let log = doing(std::fs::File::create(directory.join("log")), "make a log")?;
        let child = Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", counts.display()))
            .arg(&ringway)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(doing(log.try_clone(), "make a log")?)
            .stderr(log)
            .spawn();
        let mut proxy = Proxy(doing(child, "run valgrind (apt-get install valgrind)")?);
        let said = || std::fs::read_to_string(directory.join("log")).unwrap_or_default();
        proxy.wait_until_it_listens(port).map_err(|error| format!("{error}; it said: {}", said()))?;
        match load {
            Load::AtRest => {
                parked.watch(proxy.0.id())?;
                self.load(parked.relay(port)?, (1, 1), requests, directory)?;
            }
            Load::Busy => self.load(port, self.crowd(), requests, directory)?,
        }
        proxy.end().map_err(|error| format!("{error}; it said: {}", said()))?;
        let text = doing(std::fs::read_to_string(&counts), "read callgrind's count")?;
        callgrind::instructions(&text).ok_or_else(|| "callgrind counted nothing".to_owned())
    }

    fn config(self, port: u16, backend: u16, directory: &Path) -> String {
        let tls = match self {
            Self::Https => format!(
                ", tls: {{ certificates: [ {{ certificate: {:?}, key: {:?} }} ] }}",
                directory.join("server.pem"),
                directory.join("server.key")
            ),
            Self::Http1 | Self::Http2 | Self::Grpc => String::new(),
        };
        let protocol = if self == Self::Grpc { "    protocol: h2\n" } else { "" };
        let backends: String =
            (0..4).map(|index| format!("      - {{ id: b{index}, address: \"127.0.0.1:{backend}\" }}\n")).collect();
        format!(
            "workers: 1\nadmin: {{ enabled: false }}\n\
             listeners: [ {{ name: front, address: \"127.0.0.1:{port}\", service: s{tls} }} ]\n\
             services:\n  - name: s\n{protocol}    \
             balance: {{ policy: ring, hash_key: [ {{ header: x-user-id }} ], bounded_load: {{ factor: 1.25 }} }}\n    \
             backends:\n{backends}"
        )
    }

    /// Connections, and streams of each, of a busy proxy.
    fn crowd(self) -> (u32, u32) {
        match self {
            Self::Http1 | Self::Https => (64, 1),
            Self::Http2 | Self::Grpc => (10, 32),
        }
    }

    /// Sends the requests over so many connections, so many at a time on each. Each must succeed.
    fn load(self, port: u16, (connections, streams): (u32, u32), requests: u64, directory: &Path) -> Result<()> {
        let scheme = if self == Self::Https { "https" } else { "http" };
        let mut command = Command::new("timeout");
        command.args([&LIMIT.as_secs().to_string(), "h2load", "-t1", "-H", "x-user-id: user-1"]);
        command.args([format!("-n{requests}"), format!("-c{connections}"), format!("-m{streams}")]);
        match self {
            Self::Http1 | Self::Https => {
                command.arg("--h1");
            }
            Self::Http2 => {}
            Self::Grpc => {
                let message = directory.join("message");
                doing(std::fs::write(&message, crate::compare::grpc::message()), "write a message")?;
                command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"]).arg(message);
            }
        }
        let output = command.arg(format!("{scheme}://127.0.0.1:{port}/package.Service/Method")).output();
        let output = doing(output, "run h2load (apt-get install nghttp2-client)")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let good = format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx");
        if text.lines().any(|line| line == good) { Ok(()) } else { Err(format!("not all were answered: {text}")) }
    }
}

/// A proxy under callgrind; dropped, it is killed.
struct Proxy(Child);

impl Proxy {
    fn wait_until_it_listens(&mut self, port: u16) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if !self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
                return Err("the proxy ended".to_owned());
            }
            if begin.elapsed() > LIMIT {
                return Err(format!("nobody listens after {LIMIT:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends it as an operator does, so that callgrind writes what it has counted.
    fn end(&mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.0);
        doing(rustix::process::kill_process(pid, rustix::process::Signal::TERM), "end the proxy")?;
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            if doing(self.0.try_wait(), "wait for the proxy")?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("the proxy has not ended after {LIMIT:?}"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Most often it has ended: then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes the certificate that HTTPS is spoken with.
///
/// # Errors
/// When it cannot be made or written.
pub fn write_certificate(directory: &Path) -> Result<()> {
    let made = doing(rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]), "make a certificate")?;
    doing(std::fs::write(directory.join("server.pem"), made.cert.pem()), "write the certificate")?;
    doing(std::fs::write(directory.join("server.key"), made.signing_key.serialize_pem()), "write the key")
}
