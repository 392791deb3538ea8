//! Several proxies in front of one tier of caches, each with a part of the same traffic: what a fleet's bounds cost in hits, and what they
//! give in balance. Requests come at random times at a fixed rate, whatever becomes of those before.

use super::cache::{Counts, Tier};
use super::peer::{Balance, Cover, Front, Peer, Setup};
use super::{Result, while_doing};
use crate::simulate::workload::{Keys, Random, Workload};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Caches of the tier, and the keys that there are; together the caches hold a fifth of them.
const CACHES: usize = 10;
const KEYS: u64 = 10_000;
/// How long an answer takes from the cache, and when the key must be fetched.
const HIT: Duration = Duration::from_millis(40);
const MISS: Duration = Duration::from_millis(320);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What all answers of the tier end with.
const ANSWER_END: &[u8] = b"\r\n\r\nok";

/// Who stands in front of the tier.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    /// As in the table.
    pub name: &'static str,
    /// The program.
    pub peer: Peer,
    /// How each of them chooses.
    pub balance: Balance,
    /// How many there are.
    pub proxies: usize,
}

/// What is compared: `count` proxies each, and before them one without a bound, which is what hits there could be.
#[must_use]
pub fn fleets(count: usize) -> Vec<Fleet> {
    let ringway = |name, balance| Fleet { name, peer: Peer::Ringway, balance: Balance::Own(balance), proxies: count };
    let peer = |name, peer| Fleet { name, peer, balance: Balance::HashBound, proxies: count };
    vec![
        Fleet { name: "ringway, one proxy, no bound", peer: Peer::Ringway, balance: Balance::Hash, proxies: 1 },
        ringway("ringway, default", ""),
        ringway("ringway, hot_keys off", ", hot_keys: { enabled: false }"),
        ringway("ringway, affinity", ", bounded_load: { preset: affinity }"),
        ringway("ringway, default, shed", ", shed: {}"),
        ringway("ringway, strict", ", bounded_load: { preset: strict }"),
        peer("haproxy, hash-balance-factor 125", Peer::Haproxy),
        peer("envoy, ring_hash 125", Peer::Envoy),
    ]
}

/// How much is asked.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Requests a second, over all proxies.
    pub rate: f64,
    /// Seconds before anything is counted: the caches fill.
    pub warm: u64,
    /// Seconds that count.
    pub seconds: u64,
    /// Core of the proxies; caches and load are where this program is.
    pub core: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Share of the requests that the cache which they reached could answer.
    pub hits: f64,
    /// Share of the requests that another cache got than the one that had most of their key's.
    pub away: f64,
    /// Requests in the fullest cache, over the mean of all, both averaged over time.
    pub peak: f64,
    /// Requests without an answer.
    pub failed: u64,
}

/// One fleet under one workload.
///
/// # Errors
/// A proxy that is missing or does not start.
pub fn measure(fleet: &Fleet, workload: Workload, effort: &Effort, directory: &Path) -> Result<Outcome> {
    let tier = Tier::with_times(CACHES, KEYS as usize / 5 / CACHES, (HIT, MISS))?;
    let setup = Setup {
        front: Front::Http,
        balance: fleet.balance,
        backends: tier.ports.clone(),
        checks: false,
        cover: Cover::Plain,
    };
    let proxies: Result<Vec<_>> =
        (0..fleet.proxies).map(|_| fleet.peer.start(&setup, effort.core, directory)).collect();
    let proxies = proxies?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = while_doing(runtime, "start a runtime")?;
    let load = Load::new(proxies.iter().map(|proxy| proxy.port).collect(), workload);
    let local = tokio::task::LocalSet::new();
    let failed = local.block_on(&runtime, async {
        load.run(effort.rate, Duration::from_secs(effort.warm)).await;
        tier.take();
        tier.take_keys();
        let before = *load.failed.borrow();
        load.run(effort.rate, Duration::from_secs(effort.seconds)).await;
        *load.failed.borrow() - before
    });
    let counts = tier.take();
    let sum = |of: fn(&Counts) -> f64| counts.iter().map(of).sum::<f64>();
    let asked = sum(|counts| (counts.hits + counts.misses) as f64).max(1.0);
    let fullest = counts.iter().map(|counts| counts.area).fold(0.0, f64::max);
    let by_key = tier.take_keys();
    let at_home: u64 = by_key.values().map(|caches| caches.iter().copied().max().unwrap_or(0)).sum();
    Ok(Outcome {
        hits: sum(|counts| counts.hits as f64) / asked,
        away: 1.0 - at_home as f64 / asked,
        peak: fullest * CACHES as f64 / sum(|counts| counts.area).max(f64::MIN_POSITIVE),
        failed,
    })
}

/// Clients of all proxies: each request goes to the next of them.
struct Load {
    ports: Vec<u16>,
    /// Idle connections to each.
    idle: Vec<Rc<RefCell<Vec<TcpStream>>>>,
    keys: Keys,
    random: RefCell<Random>,
    failed: Rc<RefCell<u64>>,
}

impl Load {
    fn new(ports: Vec<u16>, workload: Workload) -> Self {
        let idle = ports.iter().map(|_| Rc::default()).collect();
        Self { ports, idle, keys: Keys::new(workload, KEYS), random: RefCell::new(Random(42)), failed: Rc::default() }
    }

    /// Requests for so long, and until all of them have ended.
    async fn run(&self, rate: f64, time: Duration) {
        let began = Instant::now();
        let mut at = 0.0;
        let mut under_way = VecDeque::new();
        for number in 0.. {
            at += self.random.borrow_mut().exponential(1.0 / rate);
            if at >= time.as_secs_f64() {
                break;
            }
            tokio::time::sleep_until((began + Duration::from_secs_f64(at)).into()).await;
            let key = self.keys.draw(&mut self.random.borrow_mut(), 0.0);
            let proxy = number % self.ports.len();
            let (port, idle, failed) = (self.ports[proxy], Rc::clone(&self.idle[proxy]), Rc::clone(&self.failed));
            under_way.push_back(tokio::task::spawn_local(async move {
                let kept = idle.borrow_mut().pop();
                let was_kept = kept.is_some();
                let mut answered = ask(kept, port, key).await;
                // It may have been closed just then.
                if answered.is_none() && was_kept {
                    answered = ask(None, port, key).await;
                }
                match answered {
                    Some(stream) => idle.borrow_mut().push(stream),
                    None => *failed.borrow_mut() += 1,
                }
            }));
            while under_way.front().is_some_and(tokio::task::JoinHandle::is_finished) {
                under_way.pop_front();
            }
        }
        for task in under_way {
            // A task that has panicked has said so.
            let _ = task.await;
        }
    }
}

/// One request; gives the connection back. `None`: there was no good answer.
async fn ask(kept: Option<TcpStream>, port: u16, key: u64) -> Option<TcpStream> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
            stream.set_nodelay(true).ok()?;
            stream
        }
    };
    let request = format!("GET / HTTP/1.1\r\nHost: bench\r\nx-user-id: user-{key}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::with_capacity(512);
    let whole = async {
        while !answer.ends_with(ANSWER_END) {
            if stream.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
        }
        Some(())
    };
    tokio::time::timeout(PATIENCE, whole).await.ok()??;
    answer.starts_with(b"HTTP/1.1 200 ").then_some(stream)
}
