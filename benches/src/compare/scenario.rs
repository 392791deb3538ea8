//! What is measured.

use super::cache::{Counts, Tier};
use super::load::{OpenLoop, Seen, bulk, h2load, h2load_with, handshakes, idle, saturate};
use super::peer::{Balance, Cover, Front, Peer, Running, Setup};
use super::report::Table;
use super::slow_readers::SlowReaders;
use super::{Result, wait_for_port, while_doing};
use crate::simulate::workload::{Keys, Random, Workload};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Interleaved rounds.
    pub rounds: usize,
    /// Whether a round that is not counted comes first: it opens connections.
    pub warms: bool,
    /// Length of each measurement.
    pub time: Duration,
    /// Idle connections.
    pub idle: usize,
    /// Backends of the large fleet.
    pub many: usize,
    /// The proxies' core.
    pub proxy_core: usize,
    /// Load's and backends' core.
    pub load_core: usize,
}

impl Effort {
    /// Numbers of the rounds; that of number 0 is not counted.
    fn played(&self) -> std::ops::RangeInclusive<usize> {
        usize::from(!self.warms)..=self.rounds
    }
}

/// Names of all scenarios.
pub const NAMES: [&str; 23] = [
    "http-round-robin",
    "http-hash",
    "http-bound",
    "http-64k",
    "http-1m",
    "http-new",
    "http-new-both",
    "latency",
    "slow-readers",
    "https",
    "tls-handshake",
    "tls-resumed",
    "h2",
    "grpc",
    "tcp-small",
    "tcp-new",
    "tcp-bulk",
    "many",
    "idle",
    "bound-cost",
    "reload",
    "cache",
    "cache-skewed",
];

/// Measures one.
///
/// # Errors
/// When Ringway itself or the backends do not run, or nobody has this name.
pub fn run(name: &str, effort: &Effort, directory: &Path) -> Result<Table> {
    let setup =
        |front, balance, fleet: &Backends| Setup { front, balance, backends: fleet.ports.clone(), ..Setup::default() };
    let http = |title: &str, balance, path, connections| -> Result<Table> {
        let fleet = Backends::start(4, effort.load_core, directory)?;
        saturated(title, &setup(Front::Http, balance, &fleet), path, connections, false, effort, directory)
    };
    match name {
        "http-round-robin" => http("HTTP/1.1, 128 B, round robin", Balance::RoundRobin, "/", 64),
        "http-hash" => http("HTTP/1.1, 128 B, hash of a header", Balance::Hash, "/", 64),
        "http-bound" => http("HTTP/1.1, 128 B, hash of a header, bound 1.25", Balance::HashBound, "/", 64),
        "http-64k" => http("HTTP/1.1, 64 KiB, hash of a header, bound 1.25", Balance::HashBound, "/64k", 64),
        "http-1m" => http("HTTP/1.1, 1 MiB, hash of a header, bound 1.25", Balance::HashBound, "/1m", 16),
        "http-new" | "http-new-both" => {
            let fleet = Backends::start(4, effort.load_core, directory)?;
            let (title, fresh) = if name == "http-new" {
                ("HTTP/1.1, 128 B, round robin, a client's connection for each request", false)
            } else {
                ("HTTP/1.1, 128 B, round robin, a connection for each request on both sides", true)
            };
            let setup = Setup { fresh, ..setup(Front::Http, Balance::RoundRobin, &fleet) };
            saturated(title, &setup, "/", 64, true, effort, directory)
        }
        "https" | "tls-handshake" | "tls-resumed" | "h2" | "grpc" => covered(name, effort, directory),
        "tcp-small" | "tcp-new" => {
            let fleet = Backends::start(4, effort.load_core, directory)?;
            let (title, close) = if name == "tcp-small" {
                ("TCP, small requests over kept connections", false)
            } else {
                ("TCP, a connection for each request", true)
            };
            saturated(title, &setup(Front::Tcp, Balance::RoundRobin, &fleet), "/", 64, close, effort, directory)
        }
        "tcp-bulk" => {
            let fleet = Backends::start(4, effort.load_core, directory)?;
            tcp_bulk(&setup(Front::Tcp, Balance::RoundRobin, &fleet), effort, directory)
        }
        "latency" => {
            let fleet = Backends::start(4, effort.load_core, directory)?;
            latency(&setup(Front::Http, Balance::HashBound, &fleet), effort, directory)
        }
        "slow-readers" => {
            let fleet = Backends::with_strides(4, effort.load_core, "64k", directory)?;
            slow_readers(&setup(Front::Http, Balance::RoundRobin, &fleet), effort, directory)
        }
        "many" => many(effort, directory),
        "bound-cost" => bound_cost(effort, directory),
        "idle" => {
            let fleet = Backends::start(4, effort.load_core, directory)?;
            idle_memory(&setup(Front::Http, Balance::HashBound, &fleet), effort, directory)
        }
        "reload" => reload(effort, directory),
        "cache" => cache_tier("Cache tier, Zipf 0.9", 0.9, effort, directory),
        "cache-skewed" => cache_tier("Cache tier, Zipf 1.1", 1.1, effort, directory),
        _ => Err(format!("no scenario {name:?}; there are {}", NAMES.join(", "))),
    }
}

/// nginx that serves small, larger and endless bodies on so many ports.
#[derive(Debug)]
pub struct Backends {
    ports: Vec<u16>,
    child: Child,
}

impl Backends {
    /// Where they listen on loopback.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Starts them on this core, and waits until they listen.
    ///
    /// # Errors
    /// When nginx does not run.
    pub fn start(count: usize, core: usize, directory: &Path) -> Result<Self> {
        Self::with_strides(count, core, "512k", directory)
    }

    /// The same, with so much of a body before the next one has its turn.
    fn with_strides(count: usize, core: usize, stride: &str, directory: &Path) -> Result<Self> {
        let mut ports = Vec::new();
        // Taken together, or the same free port would be found again.
        let held: Vec<_> =
            (0..count).map(|_| std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))).collect();
        for listener in held {
            let listener = while_doing(listener, "bind a port")?;
            ports.push(while_doing(listener.local_addr(), "name a port")?.port());
        }
        let root = directory.join("root");
        while_doing(std::fs::create_dir_all(&root), root.display())?;
        for (name, size) in [("64k", 64 << 10), ("1m", 1 << 20), ("20m", 20_000_000), ("bulk", 64_u64 << 30)] {
            let file = while_doing(std::fs::File::create(root.join(name)), name)?;
            while_doing(file.set_len(size), name)?;
        }
        let mut text = format!(
            "daemon off; worker_processes 1; pid {0}/b.pid; error_log {0}/b.log; events {{ worker_connections 19000; }}\n\
             http {{ access_log off; sendfile on; sendfile_max_chunk {stride}; keepalive_requests 1000000000; keepalive_timeout 3600s;\n\
             open_file_cache max=16; root {0}/root;\nserver {{\n",
            directory.display()
        );
        for port in &ports {
            let _ = writeln!(text, "listen 127.0.0.1:{port};");
        }
        let _ = write!(text, "location = / {{ return 200 \"{}\"; }}\nlocation / {{ }} }} }}\n", "0".repeat(128));
        let path = directory.join("backends.conf");
        while_doing(std::fs::write(&path, text), path.display())?;
        let child = Command::new("taskset")
            .args(["-c", &core.to_string(), "nginx", "-c"])
            .arg(&path)
            .arg("-e")
            .arg(directory.join("b.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let backends =
            Self { ports, child: while_doing(child, "start nginx (apt-get install nginx-light) as backends")? };
        for port in &backends.ports {
            wait_for_port(*port, Duration::from_secs(10))?;
        }
        Ok(backends)
    }
}

impl Backends {
    /// HTTP with hash and bound over the first so many.
    fn first(&self, count: usize) -> Setup {
        Setup {
            front: Front::Http,
            balance: Balance::HashBound,
            backends: self.ports[..count].to_vec(),
            ..Setup::default()
        }
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        // QUIT and TERM go from the master to its worker; KILL would leave that behind.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Starts all that can do this; who cannot is named in the table.
fn start(setup: &Setup, peers: &[Peer], effort: &Effort, directory: &Path, table: &mut Table) -> Result<Vec<Running>> {
    let mut running = Vec::new();
    for &peer in peers {
        if let Some(reason) = peer.lacks(setup) {
            table.notes.push(format!("{} {reason}.", peer.name()));
            if peer != Peer::Nginx {
                continue;
            }
        }
        match peer.start(setup, effort.proxy_core, directory) {
            Ok(proxy) => running.push(proxy),
            Err(error) if peer == Peer::Ringway => return Err(error),
            Err(error) => table.notes.push(format!("skipped: {error}.")),
        }
    }
    // What they do at their start is not measured.
    if effort.warms {
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(running)
}

const SATURATED: [&str; 8] =
    ["CPU us per request", "requests/s", "MB/s", "errors", "p50 us", "p99 us", "p99.9 us", "resident MiB"];

/// Processor time, requests and so on of one measurement.
fn measure(proxy: &Running, load: impl FnOnce() -> Result<Seen>) -> Result<(Seen, f64)> {
    let before = proxy.cpu_nanos();
    let seen = load()?;
    let cpu_us = (proxy.cpu_nanos() - before) as f64 / 1e3 / seen.requests.max(1) as f64;
    Ok((seen, cpu_us))
}

fn saturated(
    title: &str,
    setup: &Setup,
    path: &str,
    connections: usize,
    close: bool,
    effort: &Effort,
    directory: &Path,
) -> Result<Table> {
    let mut table = Table::new(format!("{title}, {connections} connections, all they can"), &SATURATED);
    // The floor relays what it need not read: small answers only.
    let peers = if path == "/" && !close { &Peer::ALL[..] } else { &Peer::ALL[..5] };
    let proxies = start(setup, peers, effort, directory, &mut table)?;
    let size = match path {
        "/64k" => 65_536.0,
        "/1m" => 1_048_576.0,
        _ => 128.0,
    };
    for round in effort.played() {
        for proxy in &proxies {
            // The first round is short and only opens connections.
            let time = if round == 0 { Duration::from_secs(1) } else { effort.time };
            let load = || saturate(proxy.port, effort.load_core, path, connections, close, time, directory);
            let (seen, cpu_us) = measure(proxy, load)?;
            let rate = seen.requests as f64 / seen.seconds;
            let [p50, p99, p999] = seen.latency_us;
            let resident = proxy.resident_kib() as f64 / 1024.0;
            let row = [cpu_us, rate, rate * size / 1e6, seen.errors as f64, p50, p99, p999, resident];
            if round > 0 {
                table.push(proxy.peer.name(), &row);
            }
        }
    }
    Ok(table)
}

/// Requests come at a fixed rate, and latency counts from when they were due.
fn latency(setup: &Setup, effort: &Effort, directory: &Path) -> Result<Table> {
    let columns = ["p99 us", "p50 us", "p99.9 us", "CPU us per request", "errors"];
    let mut table = Table::new("HTTP/1.1, 128 B, hash and bound, 64 connections, 5,000 requests/s", &columns);
    let proxies = start(setup, &Peer::ALL, effort, directory, &mut table)?;
    for round in 0..effort.rounds {
        for proxy in &proxies {
            let mut client = OpenLoop::connect(proxy.port, 64)?;
            let mut random = Random(round as u64);
            client.run(5000.0, Duration::from_millis(300), || random.draw() % 1000);
            let (seen, cpu_us) = measure(proxy, || Ok(client.run(5000.0, effort.time, || random.draw() % 1000)))?;
            let [p50, p99, p999] = seen.latency_us;
            table.push(proxy.peer.name(), &[p99, p50, p999, cpu_us, seen.errors as f64]);
        }
    }
    Ok(table)
}

/// Requests at a fixed rate while slow readers begin, and go on.
fn slow_readers(setup: &Setup, effort: &Effort, directory: &Path) -> Result<Table> {
    let columns = ["p99 us", "p50 us", "p99.9 us", "errors", "MB/s read", "readers cut off", "resident MiB"];
    let title = "HTTP/1.1, 128 B, 1,000 requests/s, while 200 clients read 20 MB at 1 MB/s each, begun at once";
    let mut table = Table::new(title, &columns);
    let proxies = start(setup, &Peer::ALL[..5], effort, directory, &mut table)?;
    for round in 0..effort.rounds {
        for proxy in &proxies {
            let mut client = OpenLoop::connect(proxy.port, 16)?;
            let mut random = Random(round as u64);
            client.run(1000.0, Duration::from_millis(300), || random.draw() % 1000);
            let readers = SlowReaders::begin(proxy.port, "/20m", 200, 1_000_000)?;
            let seen = client.run(1000.0, effort.time, || random.draw() % 1000);
            let resident = proxy.resident_kib() as f64 / 1024.0;
            let (bytes, cut) = readers.end();
            let [p50, p99, p999] = seen.latency_us;
            let rate = bytes as f64 / 1e6 / seen.seconds;
            table.push(proxy.peer.name(), &[p99, p50, p999, seen.errors as f64, rate, cut as f64, resident]);
            // What is left of them is over before the next proxy's turn.
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    Ok(table)
}

/// TLS and HTTP/2 in front, HTTP/1.1 behind.
fn covered(name: &str, effort: &Effort, directory: &Path) -> Result<Table> {
    let (title, unit) = match name {
        "https" => ("HTTPS (TLS 1.3), HTTP/1.1, 128 B, hash and bound, 64 connections kept", "CPU us per request"),
        "tls-handshake" => ("Full TLS 1.3 handshakes, ECDSA P-256", "CPU us per handshake"),
        "tls-resumed" => ("Resumed TLS 1.2 handshakes, by ticket", "CPU us per handshake"),
        "grpc" => ("gRPC unary, 64 B each way, hash and bound, 10 connections of 32 streams", "CPU us per request"),
        _ => ("HTTP/2 to HTTP/1.1, 128 B, hash and bound, 10 connections of 32 streams", "CPU us per request"),
    };
    let mut table = Table::new(title, &[unit, "a second", "errors", "resident MiB"]);
    make_certificate(directory)?;
    let cover = match name {
        "h2" => Cover::H2,
        "grpc" => Cover::Grpc,
        _ => Cover::Tls,
    };
    let fleet = if name == "grpc" { None } else { Some(Backends::start(4, effort.load_core, directory)?) };
    let backends = match &fleet {
        Some(fleet) => fleet.ports.clone(),
        None => super::grpc::serve(4)?,
    };
    let setup = Setup { front: Front::Http, balance: Balance::HashBound, backends, cover, ..Setup::default() };
    let peers = if name == "grpc" { &Peer::ALL[..4] } else { &Peer::ALL[..3] };
    let proxies = start(&setup, peers, effort, directory, &mut table)?;
    let message = directory.join("message");
    while_doing(std::fs::write(&message, super::grpc::message()), "write a message")?;
    let message = message.display().to_string();
    let unary = ["-d", message.as_str(), "-H", "content-type: application/grpc", "-H", "te: trailers"];
    for round in effort.played() {
        for proxy in &proxies {
            let time = if round == 0 { Duration::from_secs(1) } else { effort.time };
            let (seen, cpu_us) = measure(proxy, || match name {
                "https" => h2load(&format!("https://127.0.0.1:{}/", proxy.port), effort.load_core, 64, 1, time),
                "h2" => h2load(&format!("http://127.0.0.1:{}/", proxy.port), effort.load_core, 10, 32, time),
                "grpc" => {
                    let url = format!("http://127.0.0.1:{}/bench.Echo/Unary", proxy.port);
                    h2load_with(&url, effort.load_core, 10, 32, time, &unary)
                }
                _ => handshakes(proxy.port, effort.load_core, name == "tls-resumed", time),
            })?;
            if round > 0 {
                let rate = seen.requests as f64 / seen.seconds;
                let resident = proxy.resident_kib() as f64 / 1024.0;
                table.push(proxy.peer.name(), &[cpu_us, rate, seen.errors as f64, resident]);
            }
        }
    }
    Ok(table)
}

/// A self-signed certificate for the proxies.
fn make_certificate(directory: &Path) -> Result<()> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=bench.test", "-addext", "subjectAltName=DNS:bench.test,IP:127.0.0.1"])
        .args(["-keyout", "server.key", "-out", "server.pem"])
        .current_dir(directory)
        .output();
    let made = while_doing(made, "run openssl (apt-get install openssl)")?;
    if !made.status.success() {
        return Err(format!("openssl: {}", String::from_utf8_lossy(&made.stderr).trim()));
    }
    let read = |name: &str| while_doing(std::fs::read(directory.join(name)), name);
    let both = [read("server.pem")?, read("server.key")?].concat();
    while_doing(std::fs::write(directory.join("server.both"), both), "server.both")
}

fn tcp_bulk(setup: &Setup, effort: &Effort, directory: &Path) -> Result<Table> {
    let columns = ["CPU ms per GB", "MB/s", "resident MiB"];
    let mut table = Table::new("TCP, bulk over two connections", &columns);
    let proxies = start(setup, &Peer::ALL[..5], effort, directory, &mut table)?;
    for _ in 0..effort.rounds {
        for proxy in &proxies {
            let (before, begin) = (proxy.cpu_nanos(), Instant::now());
            let bytes = bulk(proxy.port, "/bulk", effort.time)? as f64;
            let cpu = (proxy.cpu_nanos() - before) as f64 / 1e6 / (bytes / 1e9);
            let rate = bytes / 1e6 / begin.elapsed().as_secs_f64();
            table.push(proxy.peer.name(), &[cpu, rate, proxy.resident_kib() as f64 / 1024.0]);
        }
    }
    Ok(table)
}

/// The same proxy over four backends and over a thousand.
fn many(effort: &Effort, directory: &Path) -> Result<Table> {
    let mut table = Table::new(
        format!("HTTP/1.1, 128 B, hash and bound: {} backends over 4 (CPU of the same proxy)", effort.many),
        &["CPU, many over 4", "us over many", "us over 4", "errors"],
    );
    let fleet = Backends::start(effort.many, effort.load_core, directory)?;
    let setup = |count: usize| fleet.first(count);
    let few = start(&setup(4), &Peer::ALL[..4], effort, directory, &mut table)?;
    let mut unused = Table::new("", &[]);
    let many = start(&setup(effort.many), &Peer::ALL[..4], effort, directory, &mut unused)?;
    for round in effort.played() {
        for large in &many {
            let Some(small) = few.iter().find(|small| small.peer == large.peer) else { continue };
            let mut errors = 0;
            let mut cost = |proxy: &Running| -> Result<f64> {
                let load = || saturate(proxy.port, effort.load_core, "/", 64, false, effort.time, directory);
                let (seen, cpu_us) = measure(proxy, load)?;
                errors += seen.errors;
                Ok(cpu_us)
            };
            let (over_few, over_many) = (cost(small)?, cost(large)?);
            if round > 0 {
                table.push(large.peer.name(), &[over_many / over_few, over_many, over_few, errors as f64]);
            }
        }
    }
    Ok(table)
}

/// What hash and bound cost over round robin, in the same proxy.
fn bound_cost(effort: &Effort, directory: &Path) -> Result<Table> {
    let columns = ["CPU, bound over round robin", "us with bound", "us round robin"];
    let mut table = Table::new("HTTP/1.1, 128 B: hash and bound over round robin (CPU of the same proxy)", &columns);
    let fleet = Backends::start(4, effort.load_core, directory)?;
    let setup = |balance| Setup { front: Front::Http, balance, backends: fleet.ports.clone(), ..Setup::default() };
    let peers = [Peer::Ringway, Peer::Haproxy, Peer::Envoy];
    let plain = start(&setup(Balance::RoundRobin), &peers, effort, directory, &mut table)?;
    let bound = start(&setup(Balance::HashBound), &peers, effort, directory, &mut table)?;
    for round in effort.played() {
        for (plain, bound) in plain.iter().zip(&bound) {
            let cost = |proxy: &Running| -> Result<f64> {
                let load = || saturate(proxy.port, effort.load_core, "/", 64, false, effort.time, directory);
                Ok(measure(proxy, load)?.1)
            };
            let (without, with) = (cost(plain)?, cost(bound)?);
            if round > 0 {
                table.push(plain.peer.name(), &[with / without, with, without]);
            }
        }
    }
    Ok(table)
}

fn idle_memory(setup: &Setup, effort: &Effort, directory: &Path) -> Result<Table> {
    let columns = ["KiB per connection", "resident MiB with them", "resident MiB before", "resident MiB after"];
    let mut table = Table::new(format!("{} idle connections after one request each, then gone", effort.idle), &columns);
    // One after the other: each needs most of the descriptors there are.
    for peer in &Peer::ALL[..5] {
        for proxy in start(setup, &[*peer], effort, directory, &mut table)? {
            let before = proxy.resident_kib() as f64;
            match idle(proxy.port, effort.idle) {
                Ok(connections) => {
                    std::thread::sleep(Duration::from_secs(1));
                    let after = proxy.resident_kib() as f64;
                    let each = (after - before) / connections.len() as f64;
                    drop(connections);
                    // As long as an allocator that frees memory by and by needs for it.
                    std::thread::sleep((4 * effort.time).min(Duration::from_secs(15)));
                    let left = proxy.resident_kib() as f64;
                    table.push(proxy.peer.name(), &[each, after / 1024.0, before / 1024.0, left / 1024.0]);
                }
                Err(error) if proxy.peer == Peer::Ringway => return Err(error),
                Err(error) => table.notes.push(format!("skipped: {}: {error}.", proxy.peer.name())),
            }
        }
    }
    Ok(table)
}

/// A backend comes and goes, once a second, under 4,000 requests/s.
fn reload(effort: &Effort, directory: &Path) -> Result<Table> {
    let columns = ["p99 us", "failed", "requests", "p99.9 us", "CPU us per request", "reloads"];
    let mut table = Table::new("Reloads under 4,000 requests/s: a backend comes or goes every second", &columns);
    let fleet = Backends::start(5, effort.load_core, directory)?;
    let setup = |count: usize| fleet.first(count);
    let reloads = (2 * effort.time.as_secs()).max(2);
    for peer in &Peer::ALL[..5] {
        let mut own = setup(4);
        if *peer == Peer::Traefik {
            own.balance = Balance::RoundRobin;
            table.notes.push("traefik ran with round robin: it cannot hash a header.".to_owned());
        }
        for proxy in start(&own, &[*peer], effort, directory, &mut table)? {
            let mut client = OpenLoop::connect(proxy.port, 64)?;
            let mut random = Random(7);
            client.run(1000.0, Duration::from_millis(500), || random.draw() % 1000);
            let time = Duration::from_secs(reloads + 1);
            let (seen, cpu_us) = std::thread::scope(|scope| {
                let (proxy, own, ports) = (&proxy, &own, &fleet.ports);
                let reloader = scope.spawn(move || {
                    (0..reloads).try_for_each(|number| {
                        std::thread::sleep(Duration::from_millis(950));
                        let count = if number % 2 == 0 { 5 } else { 4 };
                        proxy.reload(&Setup { backends: ports[..count].to_vec(), ..own.clone() })
                    })
                });
                let measured = measure(proxy, || Ok(client.run(4000.0, time, || random.draw() % 1000)));
                reloader.join().map_err(|_| "the reloader panicked".to_owned())??;
                measured
            })?;
            let [_, p99, p999] = seen.latency_us;
            let row = [p99, seen.errors as f64, seen.requests as f64, p999, cpu_us, reloads as f64];
            table.push(proxy.peer.name(), &row);
        }
    }
    Ok(table)
}

/// Ten caches; an eleventh joins; one crashes and comes back empty.
fn cache_tier(title: &str, exponent: f64, effort: &Effort, directory: &Path) -> Result<Table> {
    const KEYS: u64 = 20_000;
    const RATE: f64 = 3000.0;
    let columns = [
        "hit ratio of all",
        "before",
        "scale-up",
        "after it",
        "flap",
        "after it",
        "peak/average load",
        "the same at worst",
        "p99 ms",
        "failed",
    ];
    let mut table = Table::new(
        format!(
            "{title}, {KEYS} keys, caches for a fifth of them, 3,000 requests/s; 10 caches become 11, then one crashes"
        ),
        &columns,
    );
    let keys = Keys::new(Workload::Zipf(exponent), KEYS);
    for peer in [Peer::Ringway, Peer::Haproxy, Peer::Nginx, Peer::Envoy] {
        let tier = Tier::start(11, KEYS as usize / 5 / 10)?;
        let mut setup = Setup {
            front: Front::Http,
            balance: Balance::HashBound,
            backends: tier.ports[..10].to_vec(),
            checks: true,
            ..Setup::default()
        };
        for proxy in start(&setup, &[peer], effort, directory, &mut table)? {
            std::thread::sleep(Duration::from_millis(700));
            let mut random = Random(3);
            let mut client = OpenLoop::connect(proxy.port, 512)?;
            let time = effort.time;
            let mut run = |time: Duration| client.run(RATE, time, || keys.draw(&mut random, 0.0));
            run(time * 3);
            tier.take();
            let mut phases: Vec<(Seen, Vec<Counts>)> = Vec::new();
            phases.push((run(time), tier.take()));
            setup.backends = tier.ports.clone();
            proxy.reload(&setup)?;
            phases.push((run(time), tier.take()));
            phases.push((run(time), tier.take()));
            // Down for half of the phase.
            let flap = std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(time / 8);
                    tier.set_up(4, false);
                    std::thread::sleep(time / 2);
                    tier.set_up(4, true);
                });
                run(time)
            });
            phases.push((flap, tier.take()));
            phases.push((run(time), tier.take()));
            table.push(proxy.peer.name(), &cache_row(&phases));
        }
    }
    Ok(table)
}

fn cache_row(phases: &[(Seen, Vec<Counts>)]) -> Vec<f64> {
    let ratio = |counts: &[Counts]| {
        let hits: u64 = counts.iter().map(|count| count.hits).sum();
        let all: u64 = counts.iter().map(|count| count.hits + count.misses).sum();
        hits as f64 / all.max(1) as f64
    };
    let peak = |counts: &[Counts]| {
        let used: Vec<f64> = counts.iter().map(|count| count.area).filter(|area| *area > 0.0).collect();
        used.iter().copied().fold(0.0, f64::max) * used.len() as f64 / used.iter().sum::<f64>()
    };
    let all: Vec<Counts> = phases.iter().flat_map(|(_, counts)| counts.iter().copied()).collect();
    let mut row = vec![ratio(&all)];
    row.extend(phases.iter().map(|(_, counts)| ratio(counts)));
    row.push(phases.first().map_or(f64::NAN, |(_, counts)| peak(counts)));
    row.push(phases.iter().map(|(_, counts)| peak(counts)).fold(0.0, f64::max));
    row.push(phases.iter().map(|(seen, _)| seen.latency_us[1] / 1e3).fold(0.0, f64::max));
    row.push(phases.iter().map(|(seen, _)| seen.errors as f64).sum());
    row
}
