//! What is asked of the admin listener: `/metrics` of many backends, and the stream that the page in a browser lives by.

use super::process::Ringway;
use super::{http, median};
use crate::compare::{Result, free_port};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// While the page's stream is read.
const PER_SECOND: u32 = 500;
/// What comes at the beginning, the whole frame among it, is told by itself.
const BEGINNING: Duration = Duration::from_secs(2);

/// How long a page takes.
#[derive(Debug, Clone, Copy)]
pub struct Timed {
    /// The least, in milliseconds.
    pub best_millis: f64,
    /// The median.
    pub median_millis: f64,
    /// Bytes of the response.
    pub bytes: usize,
}

/// `/metrics` of so many backends, plain and in gzip, asked for so many times.
///
/// # Errors
/// Something does not start, or the response is no page.
pub fn metrics(backends: usize, of_each: &str, times: usize, directory: &Path) -> Result<[Timed; 2]> {
    let (port, admin, backend) = (free_port()?, free_port()?, http::serve(RESPONSE)?);
    let config = format!("metrics: {{ backends: {of_each} }}\n{}", config(port, admin, backend, backends));
    let _proxy = Ringway::start(&config, directory, port)?;
    let timed = |fields: &str| {
        let mut all = Vec::new();
        let mut bytes = 0;
        // The first pays for memory.
        for time in 0..=times {
            let (seconds, length) = http::get(admin, "/metrics", fields)?;
            bytes = length;
            if time > 0 {
                all.push(seconds * 1e3);
            }
        }
        let best_millis = all.iter().copied().fold(f64::INFINITY, f64::min);
        Ok::<_, String>(Timed { best_millis, median_millis: median(all), bytes })
    };
    Ok([timed("")?, timed("accept-encoding: gzip\r\n")?])
}

/// What a page costs that somebody looks at.
#[derive(Debug, Clone, Copy)]
pub struct Looked {
    /// Milliseconds of a core in each second, those of requests among them.
    pub millis_per_second: f64,
    /// What the same requests cost while nobody looks.
    pub unseen_millis_per_second: f64,
    /// Bytes of the first seconds, the whole frame among them.
    pub first_bytes: usize,
    /// Bytes of each second after that.
    pub bytes_per_second: f64,
}

/// The stream of a service's screen for so long, while requests of different keys come, 500 a second.
///
/// # Errors
/// Something does not start, or the stream ends.
pub fn page(backends: usize, time: Duration, directory: &Path) -> Result<Looked> {
    let (port, admin, backend) = (free_port()?, free_port()?, http::serve(RESPONSE)?);
    let proxy = Ringway::start(&config(port, admin, backend, backends), directory, port)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| requests(port, &over));
        let measured = (|| {
            std::thread::sleep(BEGINNING);
            let (began, before) = (Instant::now(), proxy.cpu()?);
            std::thread::sleep(time);
            let per_second =
                |before: f64, after: f64, began: Instant| (after - before) * 1e3 / began.elapsed().as_secs_f64();
            let unseen_millis_per_second = per_second(before.seconds, proxy.cpu()?.seconds, began);
            let mut stream = http::begin(admin, "/live?service=s", "")?;
            let first_bytes = read_for(&mut stream, BEGINNING)?;
            let (began, before) = (Instant::now(), proxy.cpu()?);
            let bytes = read_for(&mut stream, time)?;
            let bytes_per_second = bytes as f64 / began.elapsed().as_secs_f64();
            let millis_per_second = per_second(before.seconds, proxy.cpu()?.seconds, began);
            Ok(Looked { millis_per_second, unseen_millis_per_second, first_bytes, bytes_per_second })
        })();
        over.store(true, Relaxed);
        load.join().map_err(|_| "the load panicked".to_owned())??;
        measured
    })
}

fn config(port: u16, admin: u16, backend: u16, backends: usize) -> String {
    let backends: String = (0..backends)
        .map(|index| format!("      - {{ id: backend-{index:05}, address: \"127.0.0.1:{backend}\" }}\n"))
        .collect();
    format!(
        "workers: 2\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n\
         listeners: [ {{ name: front, address: \"127.0.0.1:{port}\", service: s }} ]\n\
         services:\n  - name: s\n    balance: {{ policy: ring, hash_key: [ {{ header: x-user-id }} ] }}\n    backends:\n{backends}"
    )
}

/// Requests of different keys until it is over, evenly spread.
fn requests(port: u16, over: &AtomicBool) -> Result<()> {
    let said = |error: std::io::Error| format!("a request: {error}");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(said)?;
    stream.set_nodelay(true).map_err(said)?;
    let (began, mut buffer) = (Instant::now(), [0; 4096]);
    for number in 0_u32.. {
        if over.load(Relaxed) {
            break;
        }
        let due = began + Duration::from_secs(1) * number / PER_SECOND;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        stream
            .write_all(format!("GET / HTTP/1.1\r\nhost: a\r\nx-user-id: {number}\r\n\r\n").as_bytes())
            .map_err(said)?;
        let count = stream.read(&mut buffer).map_err(said)?;
        if !buffer[..count].starts_with(b"HTTP/1.1 200") {
            return Err(format!("a request: {}", String::from_utf8_lossy(&buffer[..count])));
        }
    }
    Ok(())
}

/// Bytes of a stream that come in that time.
fn read_for(stream: &mut TcpStream, time: Duration) -> Result<usize> {
    let (until, mut bytes, mut buffer) = (Instant::now() + time, 0, vec![0; 256 * 1024]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(bytes);
        }
        stream.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err("the stream has ended".to_owned()),
            Ok(count) => bytes += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}
