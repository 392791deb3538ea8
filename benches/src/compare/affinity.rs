//! Several proxies in front of one tier of caches, each with a part of the same traffic: what a fleet's bounds cost in hits, and what they
//! give in balance. Requests come at random times at a fixed rate, whatever becomes of those before.

use super::cache::{Counts, Habits, Tier};
use super::figures;
use super::peer::{Balance, Front, Peer, Setup};
use super::poisson::Clients;
use super::{Result, while_doing};
use crate::simulate::workload::{Keys, Workload};
use std::path::Path;
use std::time::Duration;

/// Caches of the tier, and the keys that there are; together the caches hold a fifth of them.
const CACHES: usize = 10;
const KEYS: u64 = 10_000;
/// How long an answer takes from the cache, and when the key must be fetched.
const HIT: Duration = Duration::from_millis(40);
const MISS: Duration = Duration::from_millis(320);

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
    let tier =
        Tier::with_habits(CACHES, KEYS as usize / 5 / CACHES, Habits { hit: HIT, miss: MISS, ..Habits::default() })?;
    let setup = Setup { front: Front::Http, balance: fleet.balance, backends: tier.ports.clone(), ..Setup::default() };
    let proxies: Result<Vec<_>> =
        (0..fleet.proxies).map(|_| fleet.peer.start(&setup, effort.core, directory)).collect();
    let proxies = proxies?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = while_doing(runtime, "start a runtime")?;
    let ports = proxies.iter().map(|proxy| proxy.port).collect();
    let clients = Clients::new(ports, Keys::new(workload, KEYS), 42);
    let local = tokio::task::LocalSet::new();
    let failed = local.block_on(&runtime, async {
        clients.run(effort.rate, Duration::from_secs(effort.warm)).await;
        drop(clients.take());
        tier.take();
        tier.take_keys();
        clients.run(effort.rate, Duration::from_secs(effort.seconds)).await;
        figures::failed(&clients.take())
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
