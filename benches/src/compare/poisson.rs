//! Clients that ask at random times at a fixed rate, whatever becomes of what they asked before, and note of each request when it was
//! due, for which key, and what came of it.

use super::cache::WARM;
use crate::simulate::workload::{Keys, Random};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What all answers of the tier end with.
const ANSWER_END: &[u8] = b"\r\n\r\nok";
/// Requests under way at once that only fill the caches.
const FILLING: usize = 16;

/// How a cache came by what it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It had it.
    Hit,
    /// The previous owner had it.
    Peer,
    /// The source of truth had to be asked.
    Miss,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// When it was due, in seconds since the clients began.
    pub at: f64,
    /// For what.
    pub key: u64,
    /// Which cache answered, and how it came by that; `None`: there was no good answer.
    pub answer: Option<(u16, How)>,
}

/// Clients of all proxies: each request goes to the next of them.
pub struct Clients {
    ports: Vec<u16>,
    /// Idle connections to each.
    idle: Vec<Rc<RefCell<Vec<TcpStream>>>>,
    keys: Keys,
    random: RefCell<Random>,
    began: Instant,
    next: Cell<usize>,
    seen: Rc<RefCell<Vec<Seen>>>,
}

impl Clients {
    /// Of proxies on these ports.
    #[must_use]
    pub fn new(ports: Vec<u16>, keys: Keys, seed: u64) -> Self {
        let idle = ports.iter().map(|_| Rc::default()).collect();
        Self {
            ports,
            idle,
            keys,
            random: RefCell::new(Random(seed)),
            began: Instant::now(),
            next: Cell::new(0),
            seen: Rc::default(),
        }
    }

    /// Seconds since they began.
    #[must_use]
    pub fn now(&self) -> f64 {
        self.seconds(Instant::now())
    }

    /// An instant, in seconds since they began.
    #[must_use]
    pub fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.began).as_secs_f64()
    }

    /// What was asked since the last call, as it was due.
    #[must_use]
    pub fn take(&self) -> Vec<Seen> {
        let mut seen = std::mem::take(&mut *self.seen.borrow_mut());
        seen.sort_by(|one, other| one.at.total_cmp(&other.at));
        seen
    }

    /// Requests for so long, and until all of them have ended.
    pub async fn run(&self, rate: f64, time: Duration) {
        let from = Instant::now();
        let mut at = 0.0;
        let mut under_way = VecDeque::new();
        loop {
            at += self.random.borrow_mut().exponential(1.0 / rate);
            if at >= time.as_secs_f64() {
                break;
            }
            let due = from + Duration::from_secs_f64(at);
            tokio::time::sleep_until(due.into()).await;
            let key = self.keys.draw(&mut self.random.borrow_mut(), 0.0);
            under_way.push_back(tokio::task::spawn_local(self.one(self.seconds(due), key, "")));
            while under_way.front().is_some_and(tokio::task::JoinHandle::is_finished) {
                under_way.pop_front();
            }
        }
        for task in under_way {
            // A task that has panicked has said so.
            let _ = task.await;
        }
    }

    /// Each of these keys once, as fast as it goes and with caches that answer at once.
    pub async fn fill(&self, keys: impl Iterator<Item = u64>) {
        let header = format!("{WARM}: 1\r\n");
        let mut under_way = VecDeque::new();
        for key in keys {
            under_way.push_back(tokio::task::spawn_local(self.one(self.now(), key, &header)));
            if under_way.len() >= FILLING
                && let Some(task) = under_way.pop_front()
            {
                let _ = task.await;
            }
        }
        for task in under_way {
            let _ = task.await;
        }
    }

    /// One request to the next proxy, noted when it has ended.
    fn one(&self, at: f64, key: u64, more: &str) -> impl Future<Output = ()> + 'static {
        let proxy = self.next.get();
        self.next.set((proxy + 1) % self.ports.len());
        let (port, idle, seen) = (self.ports[proxy], Rc::clone(&self.idle[proxy]), Rc::clone(&self.seen));
        let request = format!("GET / HTTP/1.1\r\nHost: bench\r\nx-user-id: user-{key}\r\n{more}\r\n");
        async move {
            let kept = idle.borrow_mut().pop();
            let was_kept = kept.is_some();
            let mut asked = ask(kept, port, &request).await;
            // It may have been closed just then.
            if was_kept && matches!(asked, Err(Failure::Closed)) {
                asked = ask(None, port, &request).await;
            }
            let answer = asked.ok().map(|(stream, answer)| {
                idle.borrow_mut().push(stream);
                answer
            });
            seen.borrow_mut().push(Seen { at, key, answer });
        }
    }
}

/// Why there was no good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// The connection ended before anything came.
    Closed,
    /// Anything else.
    Other,
}

/// One request; gives the connection back.
async fn ask(kept: Option<TcpStream>, port: u16, request: &str) -> Result<(TcpStream, (u16, How)), Failure> {
    let whole = async {
        let mut stream = match kept {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(|_| Failure::Other)?;
                stream.set_nodelay(true).map_err(|_| Failure::Other)?;
                stream
            }
        };
        stream.write_all(request.as_bytes()).await.map_err(|_| Failure::Closed)?;
        let mut answer = Vec::with_capacity(512);
        while !answer.ends_with(ANSWER_END) {
            if !matches!(stream.read_buf(&mut answer).await, Ok(1..)) {
                return Err(if answer.is_empty() { Failure::Closed } else { Failure::Other });
            }
        }
        let answer = understand(&answer).ok_or(Failure::Other)?;
        Ok((stream, answer))
    };
    tokio::time::timeout(PATIENCE, whole).await.unwrap_or(Err(Failure::Other))
}

/// Who answered, and how it came by that.
fn understand(answer: &[u8]) -> Option<(u16, How)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(answer).ok()?;
    if response.code != Some(200) {
        return None;
    }
    let field = |name: &str| {
        let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok()
    };
    let how = match field("x-cache")? {
        "hit" => How::Hit,
        "peer" => How::Peer,
        _ => How::Miss,
    };
    Some((field("x-origin")?.parse().ok()?, how))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_who_gave_it_and_how_it_came_by_it() {
        let of = |status: &str, how: &str| {
            let text = format!("HTTP/1.1 {status}\r\nX-Cache: {how}\r\nContent-Length: 2\r\nx-origin: 7\r\n\r\nok");
            understand(text.as_bytes())
        };
        assert_eq!(of("200 OK", "hit"), Some((7, How::Hit)));
        assert_eq!(of("200 OK", "peer"), Some((7, How::Peer)));
        assert_eq!(of("200 OK", "miss"), Some((7, How::Miss)));
        assert_eq!(of("503 Service Unavailable", "hit"), None);
        assert_eq!(understand(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), None);
    }
}
