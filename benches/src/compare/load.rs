//! Load: wrk for all that a proxy can carry, our own client for a fixed rate, idle connections and bulk.

use super::{Result, while_doing};
use crate::simulate::workload::Random;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What a load generator saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Answers.
    pub requests: u64,
    /// What failed: connections, time, status.
    pub errors: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Percentiles 50, 99 and 99.9 of the latency, in microseconds.
    pub latency_us: [f64; 3],
}

const WRK_SCRIPT: &str = r#"
local n, requests = 0, {}
local path, extra = os.getenv("BENCH_PATH"), os.getenv("BENCH_EXTRA")
for i = 1, 1000 do requests[i] = "GET " .. path .. " HTTP/1.1\r\nHost: bench\r\nx-user-id: user-" .. i .. "\r\n" .. extra .. "\r\n" end
request = function() n = n % 1000 + 1; return requests[n] end
done = function(s, l)
  local e = s.errors
  io.write(string.format("RESULT %d %d %f %d %d %d\n", s.requests, e.connect + e.read + e.write + e.status + e.timeout,
    s.duration / 1e6, l:percentile(50), l:percentile(99), l:percentile(99.9)))
end
"#;

/// As many requests as it can carry, over so many connections, of a thousand users; `close` opens one for each request.
///
/// # Errors
/// When wrk is missing or says nothing.
pub fn saturate(
    port: u16,
    core: usize,
    path: &str,
    connections: usize,
    close: bool,
    time: Duration,
    directory: &Path,
) -> Result<Seen> {
    let script = directory.join("wrk.lua");
    while_doing(std::fs::write(&script, WRK_SCRIPT), "write wrk's script")?;
    let output = Command::new("taskset")
        .args([
            "-c",
            &core.to_string(),
            "wrk",
            "-t1",
            &format!("-c{connections}"),
            &format!("-d{}s", time.as_secs().max(1)),
        ])
        .arg("-s")
        .arg(&script)
        .arg(format!("http://127.0.0.1:{port}/"))
        .env("BENCH_PATH", path)
        .env("BENCH_EXTRA", if close { "Connection: close\r\n" } else { "" })
        .output();
    let output = while_doing(output, "run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT ")).ok_or_else(|| {
        format!("wrk (apt-get install wrk) gave no result: {}", String::from_utf8_lossy(&output.stderr).trim())
    })?;
    let mut numbers = line.split_whitespace().map(|number| number.parse::<f64>().unwrap_or(f64::NAN));
    let mut next = || numbers.next().unwrap_or(f64::NAN);
    Ok(Seen { requests: next() as u64, errors: next() as u64, seconds: next(), latency_us: [next(), next(), next()] })
}

/// As many requests as it can carry, by h2load: HTTP/1.1 with one stream, else HTTP/2.
///
/// # Errors
/// When h2load is missing or says nothing.
pub fn h2load(url: &str, core: usize, connections: usize, streams: usize, time: Duration) -> Result<Seen> {
    h2load_with(url, core, connections, streams, time, &[])
}

/// The same, with more arguments.
///
/// # Errors
/// As [`h2load`].
pub fn h2load_with(
    url: &str,
    core: usize,
    connections: usize,
    streams: usize,
    time: Duration,
    more: &[&str],
) -> Result<Seen> {
    // It knows whole seconds only.
    let seconds = time.as_secs().max(1);
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), "h2load", "-t", "1", "-H", "x-user-id: user-1"]);
    command.args(["-c", &connections.to_string(), "-m", &streams.to_string(), "-D", &seconds.to_string()]);
    if streams == 1 {
        command.arg("--h1");
    }
    command.args(more);
    let output = while_doing(command.arg(url).output(), "run h2load (apt-get install nghttp2-client)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("requests: ")).ok_or("h2load gave no result")?;
    let number = |what: &str| -> u64 {
        let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let at = words.iter().position(|word| *word == what).unwrap_or(0);
        words.get(at.wrapping_sub(1)).and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let errors = number("failed") + number("errored");
    Ok(Seen { requests: number("succeeded"), errors, seconds: seconds as f64, latency_us: [f64::NAN; 3] })
}

/// TLS handshakes one after the other, by openssl.
///
/// # Errors
/// When openssl is missing or says nothing.
pub fn handshakes(port: u16, core: usize, resumed: bool, time: Duration) -> Result<Seen> {
    let how: &[&str] = if resumed { &["-reuse", "-tls1_2"] } else { &["-new"] };
    let seconds = time.as_secs().max(1);
    let output = Command::new("taskset")
        .args(["-c", &core.to_string(), "openssl", "s_time", "-connect", &format!("127.0.0.1:{port}")])
        .args(how)
        .args(["-time", &seconds.to_string()])
        .output();
    let output = while_doing(output, "run openssl (apt-get install openssl)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "N connections in M real seconds, ..."
    let line =
        text.lines().find(|line| line.contains(" connections in ") && line.contains("real")).ok_or_else(|| {
            format!(
                "openssl gave no result: {}",
                String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default()
            )
        })?;
    let mut words = line.split_whitespace();
    let requests = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let seconds = words.nth(2).and_then(|word| word.parse().ok()).unwrap_or(seconds as f64);
    Ok(Seen { requests, errors: 0, seconds, latency_us: [f64::NAN; 3] })
}

/// A client's connection.
struct Connection {
    stream: Option<TcpStream>,
    /// When the request that is under way was due.
    due: Option<Instant>,
    answer: Vec<u8>,
}

impl Connection {
    fn open(port: u16) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

/// A client that sends when it is time, whether or not answers have come: what waits, waits from when it was due.
pub struct OpenLoop {
    port: u16,
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    free: Vec<usize>,
    waiting: VecDeque<(Instant, u64)>,
    latencies_us: Vec<f64>,
    errors: u64,
}

impl OpenLoop {
    /// So many connections to this port.
    ///
    /// # Errors
    /// When it cannot connect.
    pub fn connect(port: u16, connections: usize) -> Result<Self> {
        let epoll = while_doing(epoll::create(CreateFlags::CLOEXEC), "epoll")?;
        let connections = (0..connections)
            .map(|_| Connection { stream: None, due: None, answer: Vec::with_capacity(4096) })
            .collect();
        let mut client = Self {
            port,
            epoll,
            connections,
            free: Vec::new(),
            waiting: VecDeque::new(),
            latencies_us: Vec::new(),
            errors: 0,
        };
        for index in 0..client.connections.len() {
            while_doing(client.reopen(index), format_args!("connect to port {port}"))?;
            client.free.push(index);
        }
        Ok(client)
    }

    fn reopen(&mut self, index: usize) -> std::io::Result<()> {
        let stream = Connection::open(self.port)?;
        epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), EventFlags::IN | EventFlags::RDHUP)?;
        let connection = &mut self.connections[index];
        connection.stream = Some(stream);
        connection.answer.clear();
        Ok(())
    }

    /// Sends at this rate for this long, then waits a second for what is under way. `draw` gives the keys.
    pub fn run(&mut self, rate: f64, time: Duration, mut draw: impl FnMut() -> u64) -> Seen {
        self.latencies_us.clear();
        self.errors = 0;
        let begin = Instant::now();
        let gap = Duration::from_secs_f64(1.0 / rate);
        let total = (time.as_secs_f64() * rate) as u32;
        let mut sent = 0;
        let mut events = Vec::with_capacity(512);
        loop {
            let now = Instant::now();
            while sent < total && begin + gap * sent <= now {
                self.waiting.push_back((begin + gap * sent, draw()));
                sent += 1;
            }
            while let Some(&(due, key)) = self.waiting.front()
                && let Some(index) = self.free.pop()
            {
                self.waiting.pop_front();
                self.send(index, due, key);
            }
            let done = sent == total && self.waiting.is_empty() && self.free.len() == self.connections.len();
            if done || now > begin + time + Duration::from_secs(2) {
                break;
            }
            let next = if sent < total { begin + gap * sent } else { now + Duration::from_millis(10) };
            let wait = next.saturating_duration_since(now);
            let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            events.clear();
            if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)).is_err() {
                continue;
            }
            for event in &events {
                self.handle_readable(event.data.u64() as usize);
            }
        }
        // What never came back is an error, and its connection is not used again.
        for index in 0..self.connections.len() {
            if self.connections[index].due.is_some() {
                self.fail(index);
            }
        }
        self.errors += self.waiting.len() as u64;
        self.waiting.clear();
        let mut latencies = std::mem::take(&mut self.latencies_us);
        latencies.sort_by(f64::total_cmp);
        let percentile = |part: f64| {
            latencies.get(((latencies.len() as f64 * part) as usize).min(latencies.len().saturating_sub(1))).copied()
        };
        Seen {
            requests: latencies.len() as u64,
            errors: self.errors,
            seconds: begin.elapsed().as_secs_f64(),
            latency_us: [0.5, 0.99, 0.999].map(|part| percentile(part).unwrap_or(f64::NAN)),
        }
    }

    fn send(&mut self, index: usize, due: Instant, key: u64) {
        if self.connections[index].stream.is_none() && self.reopen(index).is_err() {
            self.errors += 1;
            self.free.insert(0, index);
            return;
        }
        let head = format!("GET / HTTP/1.1\r\nHost: bench\r\nx-user-id: user-{key}\r\n\r\n");
        let connection = &mut self.connections[index];
        connection.due = Some(due);
        let sent = connection.stream.as_mut().map(|stream| stream.write_all(head.as_bytes()));
        if !matches!(sent, Some(Ok(()))) {
            self.fail(index);
        }
    }

    /// The connection is over; a request that was under way on it has failed.
    fn fail(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.stream = None;
        connection.answer.clear();
        if connection.due.take().is_some() {
            self.free.push(index);
        }
        self.errors += 1;
    }

    fn handle_readable(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let Some(stream) = &mut connection.stream else { return };
        let mut buffer = [0; 16 * 1024];
        let count = match stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => 0,
        };
        if count == 0 {
            // Closed while idle is the server's right, and no failure: the next request opens another.
            if connection.due.is_some() {
                self.fail(index);
            } else {
                connection.stream = None;
            }
            return;
        }
        connection.answer.extend_from_slice(&buffer[..count]);
        let Some(answer) = complete(&connection.answer) else { return };
        if let Some(due) = connection.due.take() {
            if answer.status == 200 {
                self.latencies_us.push(due.elapsed().as_secs_f64() * 1e6);
            } else {
                self.errors += 1;
            }
            self.free.push(index);
        }
        connection.answer.clear();
        if answer.close {
            connection.stream = None;
        }
    }
}

struct Answer {
    status: u16,
    close: bool,
}

/// The answer, once it is all there.
fn complete(bytes: &[u8]) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes).ok()? else { return None };
    let field = |name: &str| {
        let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok()
    };
    let close = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let chunked = field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let whole = if chunked {
        bytes[head..].ends_with(b"0\r\n\r\n")
    } else {
        bytes.len() - head >= field("content-length")?.trim().parse::<usize>().ok()?
    };
    whole.then_some(Answer { status: response.code.unwrap_or(0), close })
}

/// Opens idle keep-alive connections, one request on each.
///
/// # Errors
/// When one cannot be opened or is not answered.
pub fn idle(port: u16, count: usize) -> Result<Vec<TcpStream>> {
    let mut random = Random(1);
    (0..count)
        .map(|_| {
            let mut stream = while_doing(TcpStream::connect((Ipv4Addr::LOCALHOST, port)), "connect")?;
            while_doing(stream.set_read_timeout(Some(Duration::from_secs(10))), "set a timeout")?;
            let user = random.draw() % 1000;
            let head = format!("GET / HTTP/1.1\r\nHost: idle\r\nx-user-id: {user}\r\n\r\n");
            while_doing(stream.write_all(head.as_bytes()), "send")?;
            let count = while_doing(stream.read(&mut [0; 4096]), "receive")?;
            if count == 0 { Err("closed unanswered".to_owned()) } else { Ok(stream) }
        })
        .collect()
}

/// Reads a large body over two connections at once for this long; how many bytes came.
///
/// # Errors
/// When a connection fails.
pub fn bulk(port: u16, path: &str, time: Duration) -> Result<u64> {
    let one = || -> Result<u64> {
        let begin = Instant::now();
        let mut stream = while_doing(TcpStream::connect((Ipv4Addr::LOCALHOST, port)), "connect")?;
        while_doing(stream.set_read_timeout(Some(Duration::from_secs(10))), "set a timeout")?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: bulk\r\n\r\n");
        while_doing(stream.write_all(head.as_bytes()), "send")?;
        let mut buffer = vec![0; 256 * 1024];
        let mut sum = 0;
        while begin.elapsed() < time {
            match while_doing(stream.read(&mut buffer), "receive")? {
                0 => return Err(format!("the body ended after {sum} bytes")),
                count => sum += count as u64,
            }
        }
        Ok(sum)
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(one);
        let sum = one()?;
        Ok(sum + other.join().map_err(|_| "a reader panicked".to_owned())??)
    })
}
