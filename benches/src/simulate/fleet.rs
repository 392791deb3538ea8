//! Backends with caches and queues behind one balancer, in virtual time.

use super::queues::{End, Queues};
use super::workload::{Keys, Random, Workload};
use ringway_ring::{
    BackendSet, BoundParams, HotKeys, HotParams, Load, MemberSpec, Pick, PickContext, PolicyParams, Ring, RingParams,
    Selection, ShedController, ShedParams, Sketch, Slot, Total, hash_key, hot_cost,
};
use std::sync::Arc;

/// What chooses the backend.
#[derive(Debug, Clone, Copy)]
pub struct Balancer {
    /// Its name in the tables.
    pub name: &'static str,
    /// How it chooses.
    pub kind: Kind,
}

/// How a backend is chosen.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Ringway's own policies.
    Ringway {
        /// The policy.
        policy: PolicyParams,
        /// The bound, if any.
        bound: Option<BoundParams>,
        /// Hot keys are spread.
        hot_keys: bool,
        /// Overload is shed.
        shed: bool,
    },
    /// HAProxy's `hash-balance-factor` (src/lb_chash.c): the next distinct backend while `served < slots`.
    HaproxyRule(u32),
    /// Envoy's `hash_balance_factor` (thread_aware_lb_impl.cc): a seeded shuffle of the host list while `active / slots
    /// <= 1`.
    EnvoyRule(u32),
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Share of requests that their backend's cache had.
    pub hits: f64,
    /// Mean time from arrival to end, in milliseconds.
    pub mean_ms: f64,
    /// The same, 99th percentile.
    pub p99_ms: f64,
    /// Largest mean load of a backend over the mean of all.
    pub peak: f64,
    /// Largest load of a backend over the mean of all, at an instant: 99th percentile.
    pub peak_instant: f64,
    /// Share of requests that were served by their key's owner.
    pub owned: f64,
    /// Admissions that passed the cap as it stood.
    pub violations: u64,
}

/// The fleet's dimensions.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    /// Backends.
    pub backends: usize,
    /// Keys there are.
    pub keys: u64,
    /// Requests of a run.
    pub requests: u64,
    /// Load, of what the fleet can carry when all is even and the hit ratio is `hits_assumed`.
    pub utilisation: f64,
    /// See there.
    pub hits_assumed: f64,
}

/// A hit's and a miss's mean time of service, in milliseconds.
const HIT_MS: f64 = 1.0;
const MISS_MS: f64 = 8.0;
/// Requests that a backend serves at once; more wait there.
const WORKERS: usize = 16;
/// Part of all keys that the caches together hold.
const CACHED: f64 = 0.2;
/// Virtual milliseconds between two steps of hot keys and shedding, and two samples of loads.
const CONTROL_MS: f64 = 250.0;
const SAMPLE_MS: f64 = 50.0;

/// One run.
#[must_use]
pub fn run(fleet: &Fleet, balancer: &Balancer, workload: Workload, seed: u64) -> Outcome {
    let mut random = Random(seed);
    let keys = Keys::new(workload, fleet.keys);
    let cache_size = (fleet.keys as f64 * CACHED / fleet.backends as f64) as usize;
    let mut queues = Queues::new(fleet.backends, WORKERS, cache_size);
    let service_ms = fleet.hits_assumed * HIT_MS + (1.0 - fleet.hits_assumed) * MISS_MS;
    let gap_ms = service_ms / (fleet.backends * WORKERS) as f64 / fleet.utilisation;
    let mut chooser = Chooser::new(fleet.backends, balancer.kind);
    let (mut now, mut total) = (0.0, 0_u32);
    let (mut hits, mut owned, mut counted) = (0_u64, 0_u64, 0_u64);
    let mut times: Vec<f64> = Vec::with_capacity(fleet.requests as usize);
    let mut peaks: Vec<f64> = Vec::new();
    let mut next_sample = 0.0;
    let warm = fleet.requests / 4;
    let mut measured_from = 0.0;
    for number in 0..fleet.requests {
        let arrival = now + random.exponential(gap_ms);
        // What ends before this arrives.
        while let Some(end) = queues.pop_until(arrival) {
            total -= 1;
            chooser.release(&end);
            if end.arrived >= measured_from && number > warm {
                times.push(end.at - end.arrived);
            }
        }
        now = arrival;
        if number == warm {
            measured_from = now;
            queues.take_areas(now);
        }
        if now >= next_sample {
            next_sample = now + SAMPLE_MS;
            chooser.sample(now);
            if number > warm && total as usize >= fleet.backends {
                let most = queues.loads().into_iter().fold(0.0, f64::max);
                peaks.push(most * fleet.backends as f64 / f64::from(total));
            }
        }
        let key = keys.draw(&mut random, number as f64 / fleet.requests as f64);
        let hash = hash_key(&key.to_le_bytes(), 0);
        let (index, at_home) = chooser.choose(hash, total, &queues, &mut random);
        total += 1;
        let hit = queues.touch(index, key);
        if number >= warm {
            counted += 1;
            hits += u64::from(hit);
            owned += u64::from(at_home);
        }
        let work = random.exponential(if hit { HIT_MS } else { MISS_MS });
        queues.push(index, now, work, hash);
    }
    times.sort_by(f64::total_cmp);
    peaks.sort_by(f64::total_cmp);
    let percentile = |values: &[f64], part: f64| {
        values.get(((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    let areas = queues.take_areas(now);
    let mean_area = areas.iter().sum::<f64>() / areas.len() as f64;
    Outcome {
        hits: hits as f64 / counted as f64,
        mean_ms: times.iter().sum::<f64>() / times.len().max(1) as f64,
        p99_ms: percentile(&times, 0.99),
        peak: areas.iter().copied().fold(0.0, f64::max) / mean_area,
        peak_instant: percentile(&peaks, 0.99),
        owned: owned as f64 / counted as f64,
        violations: chooser.violations,
    }
}

struct Chooser {
    kind: Kind,
    group: BackendSet,
    ring: Option<Ring>,
    loads: Vec<Arc<Load>>,
    ids: Vec<String>,
    sketch: Sketch,
    hot: HotKeys,
    shed: ShedController,
    next_control: f64,
    now_millis: u32,
    violations: u64,
}

impl Chooser {
    fn new(count: usize, kind: Kind) -> Self {
        let (policy, bound) = match kind {
            Kind::Ringway { policy, bound, .. } => (policy, bound),
            Kind::HaproxyRule(_) | Kind::EnvoyRule(_) => (PolicyParams::Ring(RingParams::default()), None),
        };
        let ids: Vec<String> = (0..count).map(|index| format!("backend-{index:04}")).collect();
        let loads: Vec<Arc<Load>> = ids.iter().map(|id| Arc::new(Load::new(id))).collect();
        let members = ids.iter().zip(&loads).map(|(id, load)| MemberSpec {
            id,
            weight: 100,
            requests_max: u32::MAX,
            level: 0,
            load: Arc::clone(load),
        });
        let group =
            BackendSet::build(policy, bound, members, Arc::new(Total::new(1))).expect("invariant: ids are distinct");
        group.install();
        let ring = group.ring().cloned();
        Self {
            kind,
            group,
            ring,
            loads,
            ids,
            sketch: Sketch::default(),
            hot: HotKeys::default(),
            shed: ShedController::default(),
            next_control: 0.0,
            now_millis: 0,
            violations: 0,
        }
    }

    /// The backend, and whether it is the key's owner.
    fn choose(&mut self, hash: u64, total: u32, queues: &Queues<u64>, random: &mut Random) -> (usize, bool) {
        match self.kind {
            Kind::Ringway { hot_keys, .. } => {
                let mut owners = 0;
                if hot_keys {
                    owners = self.hot.keys().get(&hash).map_or(0, |key| key.owners);
                }
                let ask = PickContext { hash, chance: random.draw(), now_millis: self.now_millis, owners };
                let mut selection: Selection = self.group.begin(ask);
                let caps: Vec<u32> = (0..self.loads.len()).map(|slot| self.group.cap(Slot(slot as u16))).collect();
                let Pick::Backend(slot) = self.group.next(&mut selection, 0) else {
                    unreachable!("invariant: everybody is healthy, and caps leave room")
                };
                let index = usize::from(slot.0);
                self.violations += u64::from(self.loads[index].in_flight() > caps[index]);
                (index, selection.owner() == Some(slot) && self.group.policy().hashes())
            }
            Kind::HaproxyRule(factor) => {
                // tot = ceil((served + 1) * factor / 100), divided among equal weights: the remainder goes to the first.
                let tot = (u64::from(total + 1) * u64::from(factor)).div_ceil(100);
                let count = self.loads.len() as u64;
                let slots = |index: usize| (tot / count + u64::from((index as u64) < tot % count)).max(1);
                self.walk(hash, |index| (queues.in_flight(index) as u64) < slots(index))
            }
            Kind::EnvoyRule(factor) => {
                let slots =
                    ((u64::from(total + 1) * u64::from(factor)).div_ceil(100)).div_ceil(self.loads.len() as u64).max(1);
                let room = |index: usize| queues.in_flight(index) as u64 <= slots;
                let home = self.owner(hash);
                if room(home) {
                    return (home, true);
                }
                let mut order: Vec<usize> = (0..self.loads.len()).collect();
                let mut shuffle = Random(hash);
                for last in (1..order.len()).rev() {
                    order.swap(last, (shuffle.draw() % (last as u64 + 1)) as usize);
                }
                let free = order.iter().copied().find(|&index| index != home && room(index));
                let least = order.iter().copied().min_by_key(|&index| queues.in_flight(index));
                (free.or(least).unwrap_or(home), false)
            }
        }
    }

    fn owner(&self, hash: u64) -> usize {
        self.group.owner(hash).map_or(0, |slot| usize::from(slot.0))
    }

    fn walk(&self, hash: u64, room: impl Fn(usize) -> bool) -> (usize, bool) {
        let Some(ring) = &self.ring else { return (0, false) };
        let mut candidates = ring.candidates(hash);
        let mut first = None;
        while let Some(slot) = candidates.next(ring) {
            let index = usize::from(slot.0);
            let home = *first.get_or_insert(index);
            if room(index) {
                return (index, index == home);
            }
        }
        (first.unwrap_or(0), true)
    }

    fn release(&mut self, end: &End<u64>) {
        let Kind::Ringway { hot_keys, .. } = self.kind else { return };
        self.group.release(Slot(end.backend as u16), 0);
        if hot_keys {
            let micros = (end.at - end.arrived) * 1_000.0;
            self.sketch.count(end.of, hot_cost(micros as u64, HotParams::default().half_life_millis));
        }
    }

    fn sample(&mut self, now: f64) {
        self.now_millis = now as u32;
        let Kind::Ringway { hot_keys, shed, .. } = self.kind else { return };
        let loads = self.ids.iter().zip(&self.loads).map(|(id, load)| (id.as_str(), load.in_flight(), 1.0));
        self.shed.handle_sample(loads);
        if now < self.next_control {
            return;
        }
        self.next_control = now + CONTROL_MS;
        if hot_keys {
            let params = HotParams::default();
            self.sketch.handle_time(now as u64, params.half_life_millis);
            self.hot.handle_report(0, self.sketch.report(params.leave / self.ids.len() as f64 / 2.0));
            self.hot.update(&params, self.ids.len());
        }
        if shed {
            let steps = self.shed.step(&ShedParams { target: 1.2, share_max: 0.9 });
            for ((_, share), load) in steps.zip(&self.loads) {
                load.set_shed(share);
            }
        }
    }
}

/// A bound of this factor and slack.
#[must_use]
pub fn bound(factor: f64, slack: f64) -> Option<BoundParams> {
    // As the presets have it: strict is strict in an idle fleet too.
    Some(BoundParams { factor, slack, min_slots: if slack == 0.0 { 1 } else { 2 } })
}
