//! Clients that take long bodies at a slow pace, all at once.

use super::{Result, while_doing};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often each looks whether it may read on.
const BEAT: Duration = Duration::from_millis(10);

/// Slow readers, as long as this lives.
#[derive(Debug)]
pub struct SlowReaders {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<(u64, usize)>>,
}

impl SlowReaders {
    /// So many ask for this path at once, and read so many bytes a second each.
    ///
    /// # Errors
    /// When one cannot connect.
    pub fn begin(port: u16, path: &str, count: usize, bytes_a_second: u64) -> Result<Self> {
        let mut streams = Vec::new();
        for _ in 0..count {
            let mut stream = while_doing(TcpStream::connect((Ipv4Addr::LOCALHOST, port)), "connect")?;
            let head = format!("GET {path} HTTP/1.1\r\nHost: slow\r\nx-user-id: slow\r\n\r\n");
            while_doing(stream.write_all(head.as_bytes()), "send")?;
            while_doing(stream.set_nonblocking(true), "set a socket to non-blocking")?;
            streams.push(stream);
        }
        let ends = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ends);
        let thread = std::thread::spawn(move || read(streams, bytes_a_second, &seen));
        Ok(Self { ends, thread: Some(thread) })
    }

    /// Ends them. Returns the bytes that all have read, and how many of them were cut off.
    #[must_use]
    pub fn end(mut self) -> (u64, usize) {
        self.ends.store(true, Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for SlowReaders {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
    }
}

fn read(streams: Vec<TcpStream>, bytes_a_second: u64, ends: &AtomicBool) -> (u64, usize) {
    let begin = Instant::now();
    let mut buffer = vec![0; 64 * 1024];
    let mut readers: Vec<(TcpStream, u64, bool)> = streams.into_iter().map(|stream| (stream, 0, false)).collect();
    while !ends.load(Relaxed) {
        let due = (begin.elapsed().as_secs_f64() * bytes_a_second as f64) as u64;
        for (stream, got, cut) in readers.iter_mut().filter(|(_, _, cut)| !cut) {
            while *got < due {
                let room = buffer.len().min((due - *got) as usize);
                match stream.read(&mut buffer[..room]) {
                    Ok(0) => *cut = true,
                    Ok(count) => *got += count as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => *cut = true,
                }
                if *cut {
                    break;
                }
            }
        }
        std::thread::sleep(BEAT);
    }
    (readers.iter().map(|(_, got, _)| got).sum(), readers.iter().filter(|(_, _, cut)| *cut).count())
}
