//! A tier of caches: HTTP servers whose answers are fast when they have the key, and slow when they must fetch it from the source of
//! truth. Each answer says which cache it is of (`x-origin`), and how that came by it (`x-cache`): `hit`, `miss`, or `peer` where the
//! previous owner, whom Ringway has named, still had it.

use super::{Result, while_doing};
use crate::simulate::cache::Cache;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Header by which Ringway names who had a key before: its id and its address.
pub const PREVIOUS_OWNER: &str = "x-ringway-previous-owner";
/// Header of a request that only fills caches: it is answered at once.
pub const WARM: &str = "x-bench-warm";
/// Header of one cache's question to another: whoever has not got the key says so, and fetches nothing.
const FROM_CACHE: &str = "x-bench-from-cache";
/// Longest wait for another cache's answer.
const PEER_PATIENCE: Duration = Duration::from_secs(1);
/// Requests that a cache works on at once.
const WORKERS: usize = 64;

/// What the caches of a tier are like.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// How long an answer takes from the cache.
    pub hit: Duration,
    /// How long it takes when the key must be fetched.
    pub miss: Duration,
    /// Ask the previous owner, if one is named, before the source of truth.
    pub asks_previous_owner: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self { hit: Duration::from_millis(4), miss: Duration::from_millis(40), asks_previous_owner: false }
    }
}

/// What one cache saw since it was last asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Requests for a key that it had.
    pub hits: u64,
    /// Requests for others.
    pub misses: u64,
    /// Requests in it, summed over time, in request seconds.
    pub area: f64,
}

struct State {
    cache: Cache,
    /// How often each key has come.
    keys: HashMap<u64, u64>,
    counts: Counts,
    /// When the source of truth was asked.
    fetches: Vec<Instant>,
    in_flight: u32,
    since: Instant,
}

impl State {
    fn change(&mut self, by: i32) {
        self.counts.area += f64::from(self.in_flight) * self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        self.in_flight = self.in_flight.saturating_add_signed(by);
    }
}

/// The caches; they end with it.
pub struct Tier {
    /// Their ports on loopback.
    pub ports: Vec<u16>,
    states: Vec<Arc<Mutex<State>>>,
    up: Vec<watch::Sender<bool>>,
    runtime: tokio::runtime::Runtime,
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tier {
    /// So many caches of so many keys each.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn start(count: usize, keys: usize) -> Result<Self> {
        Self::with_habits(count, keys, Habits::default())
    }

    /// The same, with these habits.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn with_habits(count: usize, keys: usize, habits: Habits) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = while_doing(runtime, "start a runtime")?;
        let mut tier = Self { ports: Vec::new(), states: Vec::new(), up: Vec::new(), runtime };
        let ports: Result<Vec<u16>> = (0..count).map(|_| super::free_port()).collect();
        let ports: Arc<[u16]> = ports?.into();
        for index in 0..count {
            let state = Arc::new(Mutex::new(State {
                cache: Cache::new(keys),
                keys: HashMap::new(),
                counts: Counts::default(),
                fetches: Vec::new(),
                in_flight: 0,
                since: Instant::now(),
            }));
            let (up, watch) = watch::channel(true);
            let origin = Origin { index, ports: Arc::clone(&ports), habits, state: Arc::clone(&state) };
            tier.runtime.spawn(serve(Arc::new(origin), watch));
            super::wait_for_port(ports[index], Duration::from_secs(5))?;
            tier.ports.push(ports[index]);
            tier.states.push(state);
            tier.up.push(up);
        }
        Ok(tier)
    }

    /// Ends this cache, as a crash would: what it held is lost. Or starts it again.
    pub fn set_up(&self, index: usize, up: bool) {
        if !up {
            let mut state = lock(&self.states[index]);
            state.cache.clear();
        }
        self.up[index].send_replace(up);
    }

    /// This cache has nothing any more, as after a restart.
    pub fn empty(&self, index: usize) {
        lock(&self.states[index]).cache.clear();
    }

    /// When the source of truth was asked since the last call, by all.
    pub fn take_fetches(&self) -> Vec<Instant> {
        self.states.iter().flat_map(|state| std::mem::take(&mut lock(state).fetches)).collect()
    }

    /// How often each key came to each cache since the last call.
    pub fn take_keys(&self) -> HashMap<u64, Vec<u64>> {
        let mut all: HashMap<u64, Vec<u64>> = HashMap::new();
        for (index, state) in self.states.iter().enumerate() {
            for (key, count) in std::mem::take(&mut lock(state).keys) {
                all.entry(key).or_insert_with(|| vec![0; self.states.len()])[index] += count;
            }
        }
        all
    }

    /// What each saw since the last call.
    pub fn take(&self) -> Vec<Counts> {
        self.states
            .iter()
            .map(|state| {
                let mut state = lock(state);
                state.change(0);
                std::mem::take(&mut state.counts)
            })
            .collect()
    }
}

/// One cache as its tasks know it.
struct Origin {
    index: usize,
    /// Of all caches: no other address is ever asked, whatever a header says.
    ports: Arc<[u16]>,
    habits: Habits,
    state: Arc<Mutex<State>>,
}

async fn serve(origin: Arc<Origin>, mut up: watch::Receiver<bool>) {
    loop {
        if up.wait_for(|up| *up).await.is_err() {
            return;
        }
        let Ok(listener) = listen(origin.ports[origin.index]) else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let workers = Arc::new(Semaphore::new(WORKERS));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    connections.spawn(answer(stream, Arc::clone(&origin), Arc::clone(&workers)));
                },
                _ = up.wait_for(|up| !*up) => break,
            }
            while connections.try_join_next().is_some() {}
        }
        // Both the listener and the connections end here.
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(1024)
}

/// Counts a request out, also when its connection is torn down.
struct Guard(Arc<Mutex<State>>);

impl Drop for Guard {
    fn drop(&mut self) {
        lock(&self.0).change(-1);
    }
}

/// What a request asks of a cache.
#[derive(Debug, PartialEq)]
struct Question {
    /// None: it is a health check.
    key: Option<Vec<u8>>,
    is_warming: bool,
    from_cache: bool,
    previous_owner: Option<SocketAddr>,
}

fn question(fields: &[httparse::Header<'_>]) -> Question {
    let field = |name: &str| fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
    let address = |value: &[u8]| std::str::from_utf8(value).ok()?.split_whitespace().nth(1)?.parse().ok();
    Question {
        key: field("x-user-id").map(<[u8]>::to_vec),
        is_warming: field(WARM).is_some(),
        from_cache: field(FROM_CACHE).is_some(),
        previous_owner: field(PREVIOUS_OWNER).and_then(address),
    }
}

async fn answer(mut stream: TcpStream, origin: Arc<Origin>, workers: Arc<Semaphore>) {
    let _ = stream.set_nodelay(true);
    let mut bytes = Vec::with_capacity(2048);
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        let head = match request.parse(&bytes) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) => match stream.read_buf(&mut bytes).await {
                Ok(1..) => continue,
                _ => return,
            },
            Err(_) => return,
        };
        let question = question(request.headers);
        bytes.drain(..head);
        let response = match question.key.as_deref() {
            Some(key) if question.from_cache => from_cache(&origin, key).await,
            Some(key) => {
                let Some(how) = origin.had(key, &question, &workers).await else { return };
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-cache: {how}\r\nx-origin: {}\r\n\r\nok",
                    origin.index
                )
            }
            None => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        };
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// What another cache is told: looked up, and neither fetched nor kept any longer for it.
async fn from_cache(origin: &Origin, key: &[u8]) -> String {
    let has = lock(&origin.state).cache.has(ringway_ring::hash_key(key, 0));
    tokio::time::sleep(origin.habits.hit).await;
    let status = if has { "200 OK" } else { "404 Not Found" };
    format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

impl Origin {
    /// How it came by the key: `hit`, `peer`, `miss`; after the time which that takes.
    async fn had(&self, key: &[u8], question: &Question, workers: &Semaphore) -> Option<&'static str> {
        let hash = ringway_ring::hash_key(key, 0);
        let _guard = {
            let mut state = lock(&self.state);
            state.change(1);
            *state.keys.entry(hash).or_default() += 1;
            Guard(Arc::clone(&self.state))
        };
        let _permit = workers.acquire().await.ok()?;
        let hit = lock(&self.state).cache.touch(hash);
        let mut how = if hit { "hit" } else { "miss" };
        if !hit
            && self.habits.asks_previous_owner
            && let Some(previous) = question.previous_owner
            && previous.ip() == Ipv4Addr::LOCALHOST
            && self.ports.contains(&previous.port())
            && tokio::time::timeout(PEER_PATIENCE, ask_previous(previous, key)).await.is_ok_and(|had| had.is_some())
        {
            how = "peer";
        }
        self.count(how == "miss");
        if !question.is_warming {
            tokio::time::sleep(if how == "miss" { self.habits.miss } else { self.habits.hit }).await;
        }
        Some(how)
    }
}

impl Origin {
    fn count(&self, is_miss: bool) {
        let mut state = lock(&self.state);
        state.counts.hits += u64::from(!is_miss);
        state.counts.misses += u64::from(is_miss);
        if is_miss {
            state.fetches.push(Instant::now());
        }
    }
}

/// Whether that cache has the key.
async fn ask_previous(address: SocketAddr, key: &[u8]) -> Option<()> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let key = String::from_utf8_lossy(key);
    let request = format!("GET / HTTP/1.1\r\nHost: bench\r\nx-user-id: {key}\r\n{FROM_CACHE}: 1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::with_capacity(256);
    while !answer.ends_with(b"ok") {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
    answer.starts_with(b"HTTP/1.1 200 ").then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn ask(port: u16, key: &str, more: &str) -> String {
        let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nHost: t\r\nx-user-id: {key}\r\n{more}\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok") {
            let mut part = [0; 512];
            let count = stream.read(&mut part).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&part[..count]);
        }
        String::from_utf8(answer).unwrap()
    }

    fn quick(asks_previous_owner: bool) -> Habits {
        Habits { hit: Duration::ZERO, miss: Duration::ZERO, asks_previous_owner }
    }

    #[test]
    fn a_key_is_fetched_once_and_the_oldest_goes_when_there_is_no_room() {
        let tier = Tier::with_habits(1, 2, quick(false)).unwrap();
        for (key, how) in [("a", "miss"), ("b", "miss"), ("a", "hit"), ("c", "miss"), ("a", "hit"), ("b", "miss")] {
            let answer = ask(tier.ports[0], key, "");
            assert!(answer.contains(&format!("x-cache: {how}\r\n")), "{key}: {answer}");
        }
        assert_eq!(tier.take_fetches().len(), 4);
        tier.empty(0);
        assert!(ask(tier.ports[0], "a", "").contains("x-cache: miss"));
    }

    #[test]
    fn the_previous_owner_is_asked_where_that_is_the_habit_and_fetches_nothing_itself() {
        let tier = Tier::with_habits(2, 9, quick(true)).unwrap();
        let named = format!("{PREVIOUS_OWNER}: b0 127.0.0.1:{}\r\n", tier.ports[0]);
        ask(tier.ports[0], "a", "");
        assert!(ask(tier.ports[1], "a", &named).contains("x-cache: peer"));
        assert!(ask(tier.ports[1], "a", &named).contains("x-cache: hit"));
        assert_eq!(tier.take_fetches().len(), 1);
        // The other has not got this one, and the source of truth is asked once.
        assert!(ask(tier.ports[1], "b", &named).contains("x-cache: miss"));
        assert_eq!(tier.take_fetches().len(), 1);
        let other = Tier::with_habits(2, 9, quick(false)).unwrap();
        let named = format!("{PREVIOUS_OWNER}: b0 127.0.0.1:{}\r\n", other.ports[0]);
        ask(other.ports[0], "a", "");
        assert!(ask(other.ports[1], "a", &named).contains("x-cache: miss"));
    }

    #[test]
    fn nobody_but_the_caches_of_the_tier_is_asked() {
        let tier = Tier::with_habits(2, 9, quick(true)).unwrap();
        let stranger = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        stranger.set_nonblocking(true).unwrap();
        let port = stranger.local_addr().unwrap().port();
        for owner in [format!("b9 127.0.0.1:{port}"), "b0 nonsense".to_owned(), "b0".to_owned(), String::new()] {
            let answer = ask(tier.ports[1], &owner, &format!("{PREVIOUS_OWNER}: {owner}\r\n"));
            assert!(answer.contains("x-cache: miss"), "{owner}: {answer}");
        }
        assert!(stranger.accept().is_err());
    }
}
