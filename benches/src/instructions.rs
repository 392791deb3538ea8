//! Instructions that a request costs, counted by callgrind: a figure that neither load nor the machine's clock touches, so that
//! a change can be judged by it to the percent.
//!
//! Client and backends are other processes or threads than the proxy's, and only the proxy's workers are counted: user space. What its other
//! threads do goes by time, not by requests (they scrape, check, give memory back), and would be in a count or not by chance.
//! Callgrind writes its count and begins anew before a load and after it, so what starting costs is in none (a clock that is calibrated
//! then spins as long as it likes); what connecting costs is taken out by two loads, of so many requests and of twice as many.
//!
//! At rest, each request finds the proxy asleep, and the count repeats to the percent: that is what the gate compares. Under load many
//! share a wake-up, as in production; that count is for reading, and repeats to a few percent.

pub mod backend;
pub mod callgrind;
mod doing;
mod fresh;
pub mod parked;
pub mod record;

use crate::compare::{Result, free_port};
use callgrind::Counts;
use doing::doing;
use parked::Parked;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a proxy under callgrind may take to start or to end, and a load to run: a sign that something hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Requests before the first that is counted.
const WARMING: u64 = 200;

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
    /// HTTP/1.1 on both sides, and a client's connection for each request.
    Http1New,
    /// TCP, with a session for each request.
    TcpNew,
}

/// How many ask at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// One, and only once the proxy sleeps.
    AtRest,
    /// 64 connections of HTTP/1.1; 10 of HTTP/2, 32 streams on each; over so many workers. What locks the bus is counted too.
    Busy(u32),
}

/// Where a count is made, and with how many traces.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// For files.
    pub directory: &'a Path,
    /// The share of the requests whose traces are recorded, as the configuration has it; `None`: there are no traces.
    pub sample: Option<&'a str>,
}

/// Longer than spans are gathered for before they are sent.
const DELIVERY: Duration = Duration::from_secs(3);

impl Setting<'_> {
    /// The section of traces, and somebody who takes them.
    fn tracing(&self) -> Result<String> {
        let Some(sample) = self.sample else { return Ok(String::new()) };
        let collector = backend::serve_collector()?;
        Ok(format!("tracing: {{ endpoint: \"http://127.0.0.1:{collector}\", sample: {sample} }}\n"))
    }

    /// Waits until spans are delivered: that is a part of their cost.
    fn rest(&self) {
        if self.sample.is_some() {
            std::thread::sleep(DELIVERY);
        }
    }
}

impl Scenario {
    /// All: those over kept connections first, the cheapest before the others.
    pub const ALL: [Self; 6] = [Self::Http1, Self::Https, Self::Http2, Self::Grpc, Self::Http1New, Self::TcpNew];

    /// As in the record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Https => "https",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Http1New => "http1-new",
            Self::TcpNew => "tcp-new",
        }
    }

    /// User instructions per request. Both loads are counted so many times, and the least of each is taken: what disturbs a count (timers
    /// that fall due, a read that came in two, a handshake's numbers) only adds.
    ///
    /// # Errors
    /// What is missing, did not start, or answered wrongly.
    pub fn count(self, load: Load, requests: u64, times: u32, of: &Setting<'_>) -> Result<Counts> {
        let (mut once, mut twice) = (Counts::MAX, Counts::MAX);
        for _ in 0..times.max(1) {
            let counted = self.run(load, requests, of)?;
            (once, twice) = (once.min(counted.0), twice.min(counted.1));
        }
        Ok(twice.of_each(once, requests))
    }

    /// Instructions of so many requests, and of twice as many, on a connection of their own.
    fn run(self, load: Load, requests: u64, of: &Setting<'_>) -> Result<(Counts, Counts)> {
        let directory = of.directory;
        let parked = Parked::default();
        let backend = match self {
            Self::Grpc => backend::serve_grpc(&parked)?,
            Self::Http1 | Self::Https | Self::Http2 | Self::Http1New | Self::TcpNew => backend::serve_http1(&parked)?,
        };
        let port = free_port()?;
        let config = directory.join("ringway.yaml");
        let tracing = of.tracing()?;
        let text = tracing + &self.config(load, port, backend, directory);
        doing(std::fs::write(&config, text), "write the configuration")?;
        let ringway = doing(std::env::current_exe(), "find this program")?.with_file_name("ringway");
        let mut proxy = Proxy::start(&ringway, &config, load, directory)?;
        proxy.wait_until_it_listens(port)?;
        let front = match load {
            Load::AtRest => {
                parked.watch(proxy.child.id())?;
                // Who connects for each request waits itself until the proxy sleeps.
                if self.is_fresh() { port } else { parked.relay(port)? }
            }
            Load::Busy(_) => port,
        };
        let crowd = if load == Load::AtRest { (1, 1) } else { self.crowd() };
        // What comes first pays for what is made once: connections to the backends, buffers.
        let load = |requests| match self.is_fresh() {
            true => fresh::load(front, crowd.0, requests, self == Self::TcpNew, &parked),
            false => self.load(front, crowd, requests, directory),
        };
        load(WARMING)?;
        proxy.count()?;
        load(requests)?;
        of.rest();
        let once = proxy.count()?;
        load(2 * requests)?;
        of.rest();
        let twice = proxy.count()?;
        proxy.end()?;
        Ok((once, twice))
    }

    /// Whether each request has a connection of its own.
    fn is_fresh(self) -> bool {
        matches!(self, Self::Http1New | Self::TcpNew)
    }

    fn config(self, load: Load, port: u16, backend: u16, directory: &Path) -> String {
        let more = match self {
            Self::Https => format!(
                ", tls: {{ certificates: [ {{ certificate: {:?}, key: {:?} }} ] }}",
                directory.join("server.pem"),
                directory.join("server.key")
            ),
            Self::TcpNew => ", protocol: tcp".to_owned(),
            Self::Http1 | Self::Http2 | Self::Grpc | Self::Http1New => String::new(),
        };
        let protocol = if self == Self::Grpc { "    protocol: h2\n" } else { "" };
        let balance = match self {
            Self::TcpNew => "policy: round_robin",
            _ => "policy: ring, hash_key: [ { header: x-user-id } ], bounded_load: { factor: 1.25 }",
        };
        let backends: String =
            (0..4).map(|index| format!("      - {{ id: b{index}, address: \"127.0.0.1:{backend}\" }}\n")).collect();
        let workers = if let Load::Busy(workers) = load { workers } else { 1 };
        format!(
            "workers: {workers}\nadmin: {{ enabled: false }}\n\
             listeners: [ {{ name: front, address: \"127.0.0.1:{port}\", service: s{more} }} ]\n\
             services:\n  - name: s\n{protocol}    \
             balance: {{ {balance} }}\n    \
             backends:\n{backends}"
        )
    }

    /// Connections, and streams of each, of a busy proxy.
    fn crowd(self) -> (u32, u32) {
        match self {
            Self::Http1 | Self::Https | Self::Http1New | Self::TcpNew => (64, 1),
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
            Self::Http1 | Self::Https | Self::Http1New | Self::TcpNew => {
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
struct Proxy {
    child: Child,
    /// Where callgrind writes: the first count to this name with `.1` behind it, and so on.
    counts: PathBuf,
    written: u32,
    /// Its workers: the threads that do most.
    workers: usize,
    log: PathBuf,
}

impl Proxy {
    fn start(ringway: &Path, config: &Path, load: Load, directory: &Path) -> Result<Self> {
        let (bus, workers) = match load {
            Load::AtRest => ("--collect-bus=no", 1),
            Load::Busy(workers) => ("--collect-bus=yes", workers as usize),
        };
        let (counts, log) = (directory.join("callgrind.out"), directory.join("log"));
        let output = doing(std::fs::File::create(&log), "make a log")?;
        let child = Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet", "--separate-threads=yes", bus])
            .arg(format!("--callgrind-out-file={}", counts.display()))
            .arg(ringway)
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(doing(output.try_clone(), "make a log")?)
            .stderr(output)
            .spawn();
        Ok(Self { child: doing(child, "run valgrind (apt-get install valgrind)")?, counts, written: 0, workers, log })
    }

    fn wait_until_it_listens(&mut self, port: u16) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if !self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
                return Err(self.said("the proxy ended"));
            }
            if begin.elapsed() > LIMIT {
                return Err(self.said(&format!("nobody listens after {LIMIT:?}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What has been counted since it was asked last, or since the start.
    fn count(&mut self) -> Result<Counts> {
        let mut command = Command::new("timeout");
        command.arg(LIMIT.as_secs().to_string()).args(["callgrind_control", "--dump"]);
        let output = command.arg(self.child.id().to_string()).output();
        let output = doing(output, "run callgrind_control (apt-get install valgrind)")?;
        self.written += 1;
        let counted = self.take_counts(self.written);
        Counts::of_most(counted, self.workers).ok_or_else(|| {
            let control = String::from_utf8_lossy(&output.stdout);
            self.said(&format!("callgrind counted nothing: {control}"))
        })
    }

    /// What callgrind has written of each thread, the so many-th time. It is not needed again, and what is left of an earlier proxy would be
    /// taken for the next one's.
    fn take_counts(&self, written: u32) -> Vec<Counts> {
        let name = format!("{}.{written}-", self.counts.display());
        let directory = self.counts.parent().and_then(|directory| std::fs::read_dir(directory).ok());
        let files = directory.into_iter().flatten().flatten().map(|entry| entry.path());
        let files = files.filter(|path| path.to_str().is_some_and(|path| path.starts_with(&name)));
        files
            .filter_map(|file| {
                let text = std::fs::read_to_string(&file);
                let _ = std::fs::remove_file(&file);
                callgrind::totals(&text.ok()?)
            })
            .collect()
    }

    /// Ends it as an operator does.
    fn end(&mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        doing(rustix::process::kill_process(pid, rustix::process::Signal::TERM), "end the proxy")?;
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            if doing(self.child.try_wait(), "wait for the proxy")?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(self.said(&format!("the proxy has not ended after {LIMIT:?}")))
    }

    /// With what the proxy had to say itself.
    fn said(&self, error: &str) -> String {
        format!("{error}; it said: {}", std::fs::read_to_string(&self.log).unwrap_or_default())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Most often it has ended: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
