//! A tier of warm caches whose members change: what users and the source of truth feel of it, under Ringway with and without a
//! hand-off of keys, HAProxy and Envoy. One open-loop client, requests at random times, no bounds and no hot keys: only the change shows.

use super::cache::{Habits, Tier};
use super::figures;
use super::peer::{Balance, Peer, Running, Setup};
use super::poisson::{Clients, Seen};
use super::{Result, rig, while_doing};
use crate::simulate::workload::{Keys, Workload};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use std::time::Duration;

/// Part of all keys that the caches hold together, before the change.
const CACHED: f64 = 0.9;
/// How long an answer takes from the cache, and when the key must be fetched.
const HIT: Duration = Duration::from_millis(10);
const MISS: Duration = Duration::from_millis(80);
/// Seconds after the window that count too.
const AFTER: f64 = 3.0;

/// How much is asked.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Ringway's program.
    pub ringway: PathBuf,
    /// Requests a second.
    pub rate: f64,
    /// Keys that there are.
    pub keys: u64,
    /// Seconds of traffic before the change; caches are filled before that.
    pub warm: u64,
    /// Seconds of a hand-off; a slow start takes half of it.
    pub window: u64,
    /// Of the requests' times and keys.
    pub seed: u64,
    /// Core of the proxy; caches and client are where this program is.
    pub core: usize,
}

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Ten become eleven.
    Join,
    /// Four become eight.
    Grow,
    /// One of ten is drained.
    Drain,
    /// One of ten is drained for a window, started again with nothing, and given its keys back.
    Restart,
}

impl Scenario {
    /// All, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::Join, Self::Grow, Self::Drain, Self::Restart];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Grow => "grow",
            Self::Drain => "drain",
            Self::Restart => "restart",
        }
    }

    /// As above the table.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Join => "a cache joins ten others",
            Self::Grow => "four caches become eight",
            Self::Drain => "one of ten caches is drained",
            Self::Restart => "one of ten caches is drained, and comes back with nothing after a window",
        }
    }

    /// Caches before it, and caches there are at all.
    fn caches(self) -> (usize, usize) {
        match self {
            Self::Join => (10, 11),
            Self::Grow => (4, 8),
            Self::Drain | Self::Restart => (10, 10),
        }
    }
}

/// Who stands in front of the caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Ringway, all at once.
    Immediate,
    /// Ringway, along a slow start (and a drain ramp).
    SlowStart,
    /// Ringway, by a hand-off of keys.
    Handoff,
    /// The same, before caches that ask the previous owner whom Ringway names.
    HandoffObeyed,
    /// HAProxy.
    Haproxy,
    /// Envoy.
    Envoy,
}

impl Variant {
    /// All, in the order of the tables.
    pub const ALL: [Self; 6] =
        [Self::Immediate, Self::SlowStart, Self::Handoff, Self::HandoffObeyed, Self::Haproxy, Self::Envoy];

    /// As in the tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Immediate => "ringway, immediate",
            Self::SlowStart => "ringway, slow_start",
            Self::Handoff => "ringway, handoff",
            Self::HandoffObeyed => "ringway, handoff, header obeyed",
            Self::Haproxy => "haproxy, consistent",
            Self::Envoy => "envoy, ring_hash",
        }
    }

    fn peer(self) -> Peer {
        match self {
            Self::Haproxy => Peer::Haproxy,
            Self::Envoy => Peer::Envoy,
            Self::Immediate | Self::SlowStart | Self::Handoff | Self::HandoffObeyed => Peer::Ringway,
        }
    }

    /// What Ringway's service says of it.
    fn service(self, window: u64) -> String {
        match self {
            Self::SlowStart => {
                let ramp = window as f64 / 2.0;
                format!("slow_start: {{ window: {}ms }}\ndrain_ramp: {0}ms\n", (ramp * 1e3) as u64)
            }
            Self::Handoff | Self::HandoffObeyed => format!("handoff: {{ window: {window}s }}\n"),
            Self::Immediate | Self::Haproxy | Self::Envoy => String::new(),
        }
    }

    /// Why this Ringway cannot do it, if it cannot: one of before there were hand-offs.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn refused(self, effort: &Effort, directory: &Path) -> Result<Option<String>> {
        if !matches!(self, Self::Handoff | Self::HandoffObeyed) {
            return Ok(None);
        }
        let service = self.service(effort.window).replace('\n', "\n    ");
        let text = format!(
            "listeners: [ {{ name: f, address: \"127.0.0.1:9\", service: s }} ]\nservices:\n  - name: s\n    balance: {{ policy: ring, hash_key: [ {{ header: x-user-id }} ] }}\n    {service}\n    \
             backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ]\n"
        );
        rig::refused(&effort.ringway, directory, &text)
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Share of the keys that have another owner in the end.
    pub moved: f64,
    /// Hit ratio before the change.
    pub before: f64,
    /// The lowest of three seconds after it.
    pub worst: f64,
    /// The same, if nothing had changed.
    pub worst_steady: f64,
    /// Misses that users had and would not have had in a tier that is as it was before, or as it is after where that has more.
    pub extra: i64,
    /// Most fetches from the source of truth in three seconds, over what was usual before.
    pub peak: f64,
    /// Requests without an answer.
    pub failed: u64,
}

/// A change, once it is its time.
struct Change {
    at: f64,
    backends: Vec<u16>,
    drained: Vec<u16>,
    /// Cache that is empty then.
    restarts: Option<usize>,
}

fn changes(scenario: Scenario, ports: &[u16], effort: &Effort) -> Vec<Change> {
    let (backends, at) = (ports.to_vec(), effort.warm as f64);
    match scenario {
        Scenario::Join | Scenario::Grow => vec![Change { at, backends, drained: Vec::new(), restarts: None }],
        Scenario::Drain | Scenario::Restart => {
            let last = ports.len() - 1;
            let drain = Change { at, backends: backends.clone(), drained: vec![ports[last]], restarts: None };
            // A second later, so that what is under way has ended.
            let at = at + effort.window as f64 + 1.0;
            let back = Change { at, backends, drained: Vec::new(), restarts: Some(last) };
            if scenario == Scenario::Restart { vec![drain, back] } else { vec![drain] }
        }
    }
}

/// What a run has shown.
struct Record {
    seen: Vec<Seen>,
    /// When the source of truth was asked, of the caches' filling too.
    fetches: Vec<f64>,
    /// When traffic began, when the change came, and when the last second ended that counts.
    times: [f64; 3],
    /// Keys' owners before the change, and in the end.
    owners: [HashMap<u64, u16>; 2],
}

/// One variant in one scenario.
///
/// # Errors
/// A proxy that is missing or does not start.
pub fn measure(scenario: Scenario, variant: Variant, effort: &Effort, directory: &Path) -> Result<Outcome> {
    let (before, all) = scenario.caches();
    let size = (effort.keys as f64 * CACHED / before as f64) as usize;
    let habits = Habits { hit: HIT, miss: MISS, asks_previous_owner: variant == Variant::HandoffObeyed };
    let tier = Tier::with_habits(all, size, habits)?;
    let setup = Setup {
        balance: Balance::HashAlone,
        backends: tier.ports[..before].to_vec(),
        service: variant.service(effort.window),
        ..Setup::default()
    };
    let program = if variant.peer() == Peer::Ringway { effort.ringway.clone() } else { variant.peer().find()? };
    let proxy = variant.peer().start_program(&program, &setup, effort.core, directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = while_doing(runtime, "start a runtime")?;
    let clients = Clients::new(vec![proxy.port], Keys::new(Workload::Zipf(1.0), effort.keys), effort.seed);
    let local = tokio::task::LocalSet::new();
    let record = local.block_on(&runtime, play(scenario, effort, &tier, &proxy, &setup, &clients))?;
    Ok(outcome(&record, size))
}

async fn play(
    scenario: Scenario,
    effort: &Effort,
    tier: &Tier,
    proxy: &Running,
    setup: &Setup,
    clients: &Clients,
) -> Result<Record> {
    // Rarest first, so that each cache ends with the most frequent of its keys.
    clients.fill((0..effort.keys).rev()).await;
    let mut seen = clients.take();
    let began = clients.now();
    let changes = changes(scenario, &tier.ports, effort);
    let end = changes.last().map_or(0.0, |change| change.at) + effort.window as f64 + AFTER;
    let changed = async {
        for change in &changes {
            let wait = began + change.at - clients.now();
            tokio::time::sleep(Duration::from_secs_f64(wait.max(0.0))).await;
            if let Some(cache) = change.restarts {
                tier.empty(cache);
            }
            let backends = change.backends.clone();
            proxy.reload(&Setup { backends, drained: change.drained.clone(), ..setup.clone() })?;
        }
        Result::Ok(())
    };
    let ((), changed): ((), Result<()>) = tokio::join!(clients.run(effort.rate, Duration::from_secs_f64(end)), changed);
    changed?;
    seen.extend(clients.take());
    let fetches = tier.take_fetches().into_iter().map(|at| clients.seconds(at)).collect();
    // Who has which key now.
    clients.fill(0..effort.keys).await;
    let change = began + effort.warm as f64;
    let owners = [figures::owners(figures::between(&seen, 0.0, change)), figures::owners(&clients.take())];
    Ok(Record { seen, fetches, times: [began, change, began + end], owners })
}

fn outcome(record: &Record, size: usize) -> Outcome {
    let [began, change, ended] = record.times;
    let [before, after] = &record.owners;
    let since = |seen: &[Seen]| figures::misses(figures::between(seen, change, ended));
    let steady = figures::steady(&record.seen, before, size);
    let anyway = since(&steady).max(since(&figures::steady(&record.seen, after, size)));
    Outcome {
        moved: figures::moved(before, after),
        before: figures::hit_ratio(figures::between(&record.seen, began, change)),
        worst: figures::worst(&record.seen, change, ended),
        worst_steady: figures::worst(&steady, change, ended),
        extra: since(&record.seen) as i64 - anyway as i64,
        peak: figures::peak(&record.fetches, began, change, ended),
        failed: figures::failed(&record.seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::poisson::How;

    /// A thousand keys in ten caches with room for all of them; after 10 s a tenth of them has another cache, where each misses once.
    fn record(scale: f64) -> Record {
        let owner = |key: u64, changed: bool| if changed && key.is_multiple_of(10) { 10 } else { (key % 7) as u16 };
        let mut met = std::collections::HashSet::new();
        let mut seen = Vec::new();
        for number in 0..20_000_u64 {
            let (at, key) = (number as f64 * scale, number * 7_919 % 1_000);
            let origin = owner(key, at >= 10.0);
            let how = if met.insert((key, origin)) { How::Miss } else { How::Hit };
            seen.push(Seen { at, key, answer: Some((origin, how)) });
        }
        let fetches = seen.iter().filter(|seen| seen.answer.is_some_and(|(_, how)| how == How::Miss));
        let fetches = fetches.map(|seen| seen.at).collect();
        let all = |changed| (0..1_000).map(|key| (key, owner(key, changed))).collect();
        Record { seen, fetches, times: [0.0, 10.0, 20.0], owners: [all(false), all(true)] }
    }

    #[test]
    fn a_change_costs_what_it_moved_and_nothing_else() {
        let outcome = outcome(&record(0.001), 1_000);
        assert!((outcome.moved - 0.1).abs() < 1e-9, "{outcome:?}");
        assert_eq!((outcome.extra, outcome.failed), (100, 0));
        // Each moved key once, of 3,000 requests.
        assert!((outcome.worst - (1.0 - 100.0 / 3_000.0)).abs() < 1e-9, "{outcome:?}");
        assert!((outcome.worst_steady - 1.0).abs() < 1e-9);
        // A thousand first requests in ten seconds, and a hundred in three.
        assert!((outcome.before - 0.9).abs() < 1e-9);
        assert!((outcome.peak - 100.0 / 300.0).abs() < 1e-9, "{outcome:?}");
    }

    #[test]
    fn what_a_smaller_tier_misses_for_good_is_not_the_changes_doing() {
        let mut smaller = record(0.001);
        // As if all keys had come to share one cache, which holds only half of them.
        smaller.owners[1] = (0..1_000).map(|key| (key, 0)).collect();
        let alone = outcome(&smaller, 500);
        assert!(alone.extra < -9_000, "{alone:?}");
    }

    #[test]
    fn a_restart_is_a_drain_and_a_return_without_memory() {
        let effort = Effort { ringway: PathBuf::new(), rate: 1.0, keys: 10, warm: 5, window: 20, seed: 1, core: 0 };
        let all = changes(Scenario::Restart, &[1, 2, 3], &effort);
        let told: Vec<_> = all.iter().map(|change| (change.at, change.drained.as_slice(), change.restarts)).collect();
        assert_eq!(told, [(5.0, &[3][..], None), (26.0, &[][..], Some(2))]);
        let joined = changes(Scenario::Join, &[1, 2, 3], &effort);
        assert_eq!((joined.len(), joined[0].backends.as_slice()), (1, &[1, 2, 3][..]));
    }
}
