//! A tier of caches: HTTP servers whose answers are fast when they have the key, and slow when they must fetch it.

use super::{Result, while_doing};
use crate::simulate::fleet::Cache;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How long an answer takes from the cache, and when the key must be fetched.
const HIT: Duration = Duration::from_millis(4);
const MISS: Duration = Duration::from_millis(40);
/// Requests that a cache works on at once.
const WORKERS: usize = 64;

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
        Self::with_times(count, keys, (HIT, MISS))
    }

    /// The same, with the times of a hit and a miss.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn with_times(count: usize, keys: usize, times: (Duration, Duration)) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = while_doing(runtime, "start a runtime")?;
        let mut tier = Self { ports: Vec::new(), states: Vec::new(), up: Vec::new(), runtime };
        for _ in 0..count {
            let state = Arc::new(Mutex::new(State {
                cache: Cache::new(keys),
                keys: HashMap::new(),
                counts: Counts::default(),
                in_flight: 0,
                since: Instant::now(),
            }));
            let (up, watch) = watch::channel(true);
            let port = super::free_port()?;
            tier.runtime.spawn(serve(port, Arc::clone(&state), times, watch));
            super::wait_for_port(port, Duration::from_secs(5))?;
            tier.ports.push(port);
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

type Times = (Duration, Duration);

async fn serve(port: u16, state: Arc<Mutex<State>>, times: Times, mut up: watch::Receiver<bool>) {
    loop {
        if up.wait_for(|up| *up).await.is_err() {
            return;
        }
        let Ok(listener) = listen(port) else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let workers = Arc::new(Semaphore::new(WORKERS));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    connections.spawn(answer(stream, Arc::clone(&state), times, Arc::clone(&workers)));
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

async fn answer(
    mut stream: TcpStream,
    state: Arc<Mutex<State>>,
    (hit_time, miss_time): Times,
    workers: Arc<Semaphore>,
) {
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
        let key = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("x-user-id"));
        let key = key.map(|field| ringway_ring::hash_key(field.value, 0));
        bytes.drain(..head);
        // Without a key it is a health check.
        if let Some(key) = key {
            let guard = {
                let mut state_now = lock(&state);
                state_now.change(1);
                *state_now.keys.entry(key).or_default() += 1;
                Guard(Arc::clone(&state))
            };
            let Ok(_permit) = workers.acquire().await else { return };
            let hit = {
                let mut state_now = lock(&state);
                let hit = state_now.cache.touch(key);
                state_now.counts.hits += u64::from(hit);
                state_now.counts.misses += u64::from(!hit);
                hit
            };
            tokio::time::sleep(if hit { hit_time } else { miss_time }).await;
            drop(guard);
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}
