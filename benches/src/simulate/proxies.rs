//! Many proxies in front of one tier of caches, in virtual time: each has its own loads, bounds and hot keys, as the real crates have
//! them, and a leader adds up what they report. What is said travels as slowly, and is lost as often, as the run wants it.

use super::queues::Queues;
use super::workload::{Keys, Random, Workload};
use ringway_ring::{
    BackendSet, BoundParams, FRESH_MILLIS, FleetLoads, FleetParams, FleetTable, HotKeys, HotParams, LOAD_UNIT, Load,
    LoadReport, MemberSpec, Pick, PickContext, PolicyParams, REPORTED_LOAD_MAX, RingParams, STEP_MILLIS,
    ShedController, ShedParams, Sketch, Slot, Total, hash_key, hot_cost,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

/// A hit's and a miss's mean time of service, in milliseconds.
const HIT_MS: f64 = 20.0;
const MISS_MS: f64 = 160.0;
/// Hit ratio for which the load is reckoned.
const HITS_ASSUMED: f64 = 0.7;
/// Load, of what the backends can carry at that.
const UTILISATION: f64 = 0.6;
/// Keys there are, and the part of them that the caches hold together.
const KEYS: u64 = 50_000;
const CACHED: f64 = 0.2;
/// Time between two looks at the loads, and two steps of a proxy, in milliseconds; and how long a message is under way if nothing is
/// wrong.
const SAMPLE_MS: f64 = 50.0;
const STEP_MS: f64 = STEP_MILLIS as f64;
const PROMPT_MS: f64 = 5.0;
/// Slack of a bound while the fleet's table is fresh.
const FLEET_SLACK: f64 = 3.0;
/// A peak from second to second is one of so many: of a single one, most would be noise.
const PEAK_SECONDS: usize = 3;
const SHED: ShedParams = ShedParams { target: 1.2, share_max: 0.9 };

/// By what the proxies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// No bound, no hot keys: what hits there could be.
    Unbound,
    /// Ringway's default: bound and hot keys, each proxy by itself.
    Default,
    /// Shedding besides, each by itself.
    Proxy,
    /// Sheds and hot keys by the fleet's table.
    Fleet,
}

/// What happens to the exchange, or to the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Reports come a second late, and a fifth of them never.
    LateReports,
    /// Tables, too.
    Late,
    /// From the first counted second on, none comes.
    Cut,
    /// From the first counted second on, other keys are the frequent ones.
    NewKeys,
    /// Each quarter of the proxies has other frequent keys.
    Groups,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Backends.
    pub backends: usize,
    /// Proxies.
    pub proxies: usize,
    /// Requests that a backend serves at once.
    pub workers: usize,
    /// Zipf's exponent.
    pub exponent: f64,
    /// By what the proxies go.
    pub scope: Scope,
    /// What happens.
    pub fault: Fault,
    /// Virtual seconds before anything counts.
    pub warm: u32,
    /// Virtual seconds that count.
    pub seconds: u32,
    /// Of everything that is drawn.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Share of the requests that their backend's cache had.
    pub hits: f64,
    /// Share that another backend got than the first of the key's candidates.
    pub away: f64,
    /// Share that none of the key's owners got.
    pub not_owner: f64,
    /// Mean time from arrival to end, in milliseconds.
    pub mean_ms: f64,
    /// Largest load of a backend over the mean of all, both averaged over time.
    pub peak: f64,
    /// The same at an instant: 99th percentile.
    pub peak_instant: f64,
    /// Hit ratio and share away of each second, and the peak of this one and the two before it.
    pub by_second: Vec<[f64; 3]>,
}

impl Outcome {
    /// Largest change of the share away from one second to the next.
    #[must_use]
    pub fn largest_step(&self) -> f64 {
        self.by_second.windows(2).map(|pair| (pair[1][1] - pair[0][1]).abs()).fold(0.0, f64::max)
    }

    /// Seconds after which the peak stays below this.
    #[must_use]
    pub fn settled_below(&self, peak: f64) -> usize {
        self.by_second.iter().rposition(|second| second[2] >= peak).map_or(0, |last| last + 1)
    }

    /// Lowest hit ratio, and highest peak, of a second.
    #[must_use]
    pub fn extremes(&self) -> (f64, f64) {
        let lowest = self.by_second.iter().map(|second| second[0]).fold(1.0, f64::min);
        (lowest, self.by_second.iter().map(|second| second[2]).fold(0.0, f64::max))
    }
}

/// One proxy, with the machinery of one service.
struct Proxy {
    name: String,
    set: BackendSet,
    total: Arc<Total>,
    loads: Vec<Arc<Load>>,
    sketch: Sketch,
    hot: HotKeys,
    shed: ShedController,
    /// Sums of the loads at each look since the last report, and how many there were.
    sums: Vec<u64>,
    samples: u32,
    ended: u32,
    next_step: f64,
    /// The table that is obeyed, and when the leader last confirmed it.
    table: Option<(Arc<FleetTable>, f64)>,
    /// Owners of hot keys, as they are in force.
    owners: BTreeMap<u64, u16>,
}

impl Proxy {
    fn new(index: usize, plan: &Plan, ids: &[String]) -> Self {
        let bound = (plan.scope != Scope::Unbound).then(BoundParams::default);
        let loads: Vec<Arc<Load>> = ids.iter().map(|id| Arc::new(Load::new(id))).collect();
        let members = ids.iter().zip(&loads).map(|(id, load)| MemberSpec {
            id,
            weight: 100,
            requests_max: u32::MAX,
            level: 0,
            load: Arc::clone(load),
        });
        let (policy, total) = (PolicyParams::Ring(RingParams::default()), Arc::new(Total::new(1)));
        let set = BackendSet::build(policy, bound, members, Arc::clone(&total)).expect("invariant: ids are distinct");
        set.install();
        Self {
            name: format!("p{index}"),
            set,
            total,
            sums: vec![0; loads.len()],
            loads,
            sketch: Sketch::default(),
            hot: HotKeys::default(),
            shed: ShedController::default(),
            samples: 0,
            ended: 0,
            // They do not keep step with each other.
            next_step: STEP_MS * index as f64 / plan.proxies as f64,
            table: None,
            owners: BTreeMap::new(),
        }
    }

    /// The backend; whether that is the first of the key's candidates, and whether it is one of its owners.
    fn choose(&mut self, hash: u64, chance: u64, now: f64) -> (usize, bool, bool) {
        let owners = self.owners.get(&hash).copied().unwrap_or(0);
        let ask = PickContext { hash, chance, now_millis: now as u32, owners };
        let mut selection = self.set.begin(ask);
        let Pick::Backend(slot) = self.set.next(&mut selection, 0) else {
            unreachable!("invariant: everybody is healthy, and caps leave room")
        };
        let is_home = self.set.owner(hash) == Some(slot);
        let is_owner = is_home || owners > 1 && self.is_candidate(hash, slot, owners);
        (usize::from(slot.0), is_home, is_owner)
    }

    /// Whether it is among the first so many of the key's candidates.
    fn is_candidate(&self, hash: u64, slot: Slot, count: u16) -> bool {
        let Some(ring) = self.set.ring() else { return false };
        let mut candidates = ring.candidates(hash);
        (0..count).any(|_| candidates.next(ring) == Some(slot))
    }

    fn release(&mut self, backend: usize, hash: u64, in_flight_ms: f64) {
        self.set.release(Slot(backend as u16), 0);
        self.ended += 1;
        self.sketch.count(hash, hot_cost((in_flight_ms * 1e3) as u64, HotParams::default().half_life_millis));
    }

    fn sample(&mut self, ids: &[String], scope: Scope) {
        self.samples += 1;
        self.sums.iter_mut().zip(&self.loads).for_each(|(sum, load)| *sum += u64::from(load.in_flight()));
        if matches!(scope, Scope::Proxy | Scope::Fleet) {
            let loads = ids.iter().zip(&self.loads).map(|(id, load)| (id.as_str(), load.in_flight(), 1.0));
            self.shed.handle_sample(loads);
        }
    }

    /// What it says of the time since it said so last.
    fn report(&mut self) -> LoadReport {
        let samples = f64::from(std::mem::take(&mut self.samples).max(1));
        let load = |sum: &mut u64| {
            let mean = std::mem::take(sum) as f64 / samples * f64::from(LOAD_UNIT);
            (mean.round() as u64).min(u64::from(REPORTED_LOAD_MAX)) as u16
        };
        LoadReport {
            span_millis: STEP_MILLIS as u32,
            requests: std::mem::take(&mut self.ended),
            loads: self.sums.iter_mut().map(load).collect(),
            seen: self.hot.report(),
        }
    }

    /// A step: hot keys and sheds, by the fleet's table where there is one, and by what is seen here where not.
    fn step(&mut self, scope: Scope, now: f64) {
        let params = HotParams::default();
        self.sketch.handle_time(now as u64, params.half_life_millis);
        self.hot.handle_report(0, self.sketch.report(params.leave / self.loads.len() as f64 / 2.0));
        self.hot.update(&params, self.loads.len());
        let table = self.table.as_ref().filter(|_| scope == Scope::Fleet);
        let age = table.map(|(_, confirmed)| (now - confirmed).max(0.0) as u64);
        let fresh = table.filter(|_| age.is_some_and(|age| age < FRESH_MILLIS));
        self.total.set_slack_min(if fresh.is_some() { FLEET_SLACK } else { 0.0 });
        if let (Some((table, _)), Some(age)) = (table, age) {
            for (load, share) in self.loads.iter().zip(&table.shed) {
                load.set_shed(FleetTable::shed_after(*share, age));
            }
        } else if matches!(scope, Scope::Proxy | Scope::Fleet) {
            let steps = self.shed.step(&SHED);
            steps.zip(&self.loads).for_each(|((_, share), load)| load.set_shed(share));
        }
        self.owners = match fresh {
            Some((table, _)) => table.hot.iter().copied().collect(),
            None => self.hot.keys().iter().map(|(hash, key)| (*hash, key.owners)).collect(),
        };
    }
}

/// What is under way between a proxy and the leader.
enum Message {
    Report(LoadReport),
    Table(Arc<FleetTable>, f64),
}

struct Posted {
    at: f64,
    number: u64,
    proxy: usize,
    message: Message,
}

impl PartialEq for Posted {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Posted {}

impl PartialOrd for Posted {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Posted {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.total_cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

/// The leader, and the way to it.
struct Exchange {
    leader: FleetLoads,
    published: Arc<FleetTable>,
    under_way: BinaryHeap<Reverse<Posted>>,
    posted: u64,
    next_step: f64,
    random: Random,
    fault: Fault,
    cut_from: f64,
}

impl Exchange {
    fn post(&mut self, proxy: usize, message: Message, now: f64) {
        let is_late = match self.fault {
            Fault::LateReports => matches!(message, Message::Report(_)),
            Fault::Late => true,
            Fault::Cut if now >= self.cut_from => return,
            Fault::None | Fault::Cut | Fault::NewKeys | Fault::Groups => false,
        };
        if is_late && self.random.fraction() < 0.2 {
            return;
        }
        let late = if is_late { 1_000.0 } else { 0.0 };
        self.posted += 1;
        self.under_way.push(Reverse(Posted { at: now + PROMPT_MS + late, number: self.posted, proxy, message }));
    }

    /// Brings what is due, and lets the leader take its step.
    fn poll(&mut self, proxies: &mut [Proxy], now: f64) {
        while self.under_way.peek().is_some_and(|Reverse(posted)| posted.at <= now) {
            let Some(Reverse(Posted { at, proxy, message, .. })) = self.under_way.pop() else { break };
            match message {
                Message::Report(report) => {
                    let taken = self.leader.handle_report(&proxies[proxy].name, report, at as u64);
                    taken.expect("invariant: reports are of all members, and of a step");
                }
                Message::Table(table, confirmed) => proxies[proxy].table = Some((table, confirmed)),
            }
        }
        if now >= self.next_step {
            self.next_step += STEP_MS;
            let params = FleetParams { shed: SHED, hot: Some(HotParams::default()) };
            if self.leader.step(&params, now as u64) {
                self.published = Arc::new(self.leader.table().clone());
            }
            // Also where nothing has changed: that it holds is news.
            if !self.leader.wants_table() {
                (0..proxies.len())
                    .for_each(|proxy| self.post(proxy, Message::Table(Arc::clone(&self.published), now), now));
            }
        }
    }
}

/// What is counted, of a second and of all.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    requests: u64,
    hits: u64,
    away: u64,
    not_owner: u64,
}

impl Counts {
    fn add(&mut self, hit: bool, is_home: bool, is_owner: bool) {
        self.requests += 1;
        self.hits += u64::from(hit);
        self.away += u64::from(!is_home);
        self.not_owner += u64::from(!is_owner);
    }

    fn share(&self, of: u64) -> f64 {
        of as f64 / self.requests.max(1) as f64
    }
}

/// One run, from its plan alone.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    let mut fleet = Fleet::new(plan);
    let service_ms = HITS_ASSUMED * HIT_MS + (1.0 - HITS_ASSUMED) * MISS_MS;
    let gap_ms = service_ms / (plan.backends * plan.workers) as f64 / UTILISATION;
    let end = fleet.counts_from + f64::from(plan.seconds) * 1e3;
    let mut now = 0.0;
    loop {
        now += fleet.random.exponential(gap_ms);
        fleet.advance(now.min(end));
        if now >= end {
            return fleet.outcome();
        }
        fleet.arrive(now);
    }
}

struct Fleet {
    plan: Plan,
    ids: Vec<String>,
    proxies: Vec<Proxy>,
    queues: Queues<(usize, u64)>,
    exchange: Exchange,
    keys: Keys,
    random: Random,
    counts_from: f64,
    is_counting: bool,
    next_sample: f64,
    next_second: f64,
    all: Counts,
    second: Counts,
    times: (f64, u64),
    peaks: Vec<f64>,
    by_second: Vec<[f64; 3]>,
    areas: Vec<f64>,
    /// Those of the last seconds, the latest first.
    recent: VecDeque<Vec<f64>>,
}

impl Fleet {
    fn new(plan: &Plan) -> Self {
        let ids: Vec<String> = (0..plan.backends).map(|index| format!("backend-{index:04}")).collect();
        let counts_from = f64::from(plan.warm) * 1e3;
        let exchange = Exchange {
            leader: FleetLoads::new(plan.backends),
            published: Arc::new(FleetTable::idle(plan.backends)),
            under_way: BinaryHeap::new(),
            posted: 0,
            next_step: 0.0,
            random: Random(plan.seed ^ 0x5bd1_e995),
            fault: plan.fault,
            cut_from: counts_from,
        };
        Self {
            plan: *plan,
            proxies: (0..plan.proxies).map(|index| Proxy::new(index, plan, &ids)).collect(),
            ids,
            queues: Queues::new(plan.backends, plan.workers, (KEYS as f64 * CACHED) as usize / plan.backends),
            exchange,
            keys: Keys::new(Workload::Zipf(plan.exponent), KEYS),
            random: Random(plan.seed),
            counts_from,
            is_counting: false,
            next_sample: 0.0,
            next_second: counts_from + 1e3,
            all: Counts::default(),
            second: Counts::default(),
            times: (0.0, 0),
            peaks: Vec::new(),
            by_second: Vec::new(),
            areas: vec![0.0; plan.backends],
            recent: VecDeque::new(),
        }
    }

    /// All that happens until then, but for what arrives.
    fn advance(&mut self, to: f64) {
        while self.next_sample <= to {
            let at = self.next_sample;
            self.finish(at);
            self.sample(at);
            self.next_sample += SAMPLE_MS;
        }
        self.finish(to);
    }

    fn finish(&mut self, to: f64) {
        while let Some(end) = self.queues.pop_until(to) {
            let (proxy, hash) = end.of;
            self.proxies[proxy].release(end.backend, hash, end.at - end.arrived);
            if end.arrived >= self.counts_from {
                self.times.0 += end.at - end.arrived;
                self.times.1 += 1;
            }
        }
    }

    /// One look at the loads of all; steps and reports of those whose time it is.
    fn sample(&mut self, now: f64) {
        for index in 0..self.proxies.len() {
            let proxy = &mut self.proxies[index];
            proxy.sample(&self.ids, self.plan.scope);
            if now >= proxy.next_step && self.plan.scope != Scope::Unbound {
                // A tenth of jitter, so that nobody keeps step for long.
                proxy.next_step = now + STEP_MS * (0.9 + 0.2 * self.random.fraction());
                proxy.step(self.plan.scope, now);
                if self.plan.scope == Scope::Fleet {
                    let report = proxy.report();
                    self.exchange.post(index, Message::Report(report), now);
                }
            }
        }
        if self.plan.scope == Scope::Fleet {
            self.exchange.poll(&mut self.proxies, now);
        }
        if now < self.counts_from {
            return;
        }
        self.peaks.push(peak(&self.queues.loads()));
        if !std::mem::replace(&mut self.is_counting, true) {
            // What was in flight before does not count.
            self.queues.take_areas(now);
        } else if now >= self.next_second {
            self.next_second += 1e3;
            self.close_second(now);
        }
    }

    fn close_second(&mut self, now: f64) {
        let areas = self.queues.take_areas(now);
        self.areas.iter_mut().zip(&areas).for_each(|(sum, area)| *sum += area);
        self.recent.truncate(PEAK_SECONDS - 1);
        self.recent.push_front(areas);
        let sums: Vec<f64> =
            (0..self.areas.len()).map(|backend| self.recent.iter().map(|areas| areas[backend]).sum()).collect();
        let second = std::mem::take(&mut self.second);
        self.by_second.push([second.share(second.hits), second.share(second.away), peak(&sums)]);
    }

    fn key(&mut self, proxy: usize, now: f64) -> u64 {
        let rank = self.keys.draw(&mut self.random, 0.0);
        let shift = match self.plan.fault {
            Fault::NewKeys if now >= self.counts_from => KEYS / 2,
            Fault::Groups => proxy as u64 % 4 * (KEYS / 4),
            _ => 0,
        };
        (rank + shift) % KEYS
    }

    fn arrive(&mut self, now: f64) {
        let proxy = (self.random.draw() % self.proxies.len() as u64) as usize;
        let key = self.key(proxy, now);
        let (hash, chance) = (hash_key(&key.to_le_bytes(), 0), self.random.draw());
        let (backend, is_home, is_owner) = self.proxies[proxy].choose(hash, chance, now);
        let hit = self.queues.touch(backend, key);
        let work = self.random.exponential(if hit { HIT_MS } else { MISS_MS });
        self.queues.push(backend, now, work, (proxy, hash));
        if now >= self.counts_from {
            self.all.add(hit, is_home, is_owner);
            self.second.add(hit, is_home, is_owner);
        }
    }

    fn outcome(mut self) -> Outcome {
        self.peaks.sort_by(f64::total_cmp);
        let at = (self.peaks.len() as f64 * 0.99) as usize;
        Outcome {
            hits: self.all.share(self.all.hits),
            away: self.all.share(self.all.away),
            not_owner: self.all.share(self.all.not_owner),
            mean_ms: self.times.0 / self.times.1.max(1) as f64,
            peak: peak(&self.areas),
            peak_instant: self.peaks.get(at.min(self.peaks.len().saturating_sub(1))).copied().unwrap_or(1.0),
            by_second: self.by_second,
        }
    }
}

/// The largest over the mean; 1 where all are nothing.
fn peak(loads: &[f64]) -> f64 {
    let mean = loads.iter().sum::<f64>() / loads.len().max(1) as f64;
    if mean > 0.0 { loads.iter().copied().fold(0.0, f64::max) / mean } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        backends: 10,
        proxies: 4,
        workers: 8,
        exponent: 1.1,
        scope: Scope::Fleet,
        fault: Fault::None,
        warm: 4,
        seconds: 6,
        seed: 7,
    };

    #[test]
    fn the_same_seed_makes_the_same_run_and_another_one_another() {
        let one = run(&PLAN);
        assert_eq!(one.by_second.len(), 6);
        let same = run(&PLAN);
        assert_eq!((one.hits, one.mean_ms, &one.by_second), (same.hits, same.mean_ms, &same.by_second));
        assert!(run(&Plan { seed: 8, ..PLAN }).by_second != one.by_second);
    }

    #[test]
    fn the_fleets_table_evens_loads_out_and_its_keys_keep_to_their_owners() {
        let unbound = run(&Plan { scope: Scope::Unbound, ..PLAN });
        let fleet = run(&PLAN);
        assert_eq!((unbound.away, unbound.not_owner), (0.0, 0.0));
        assert!(fleet.peak < unbound.peak, "{} {}", fleet.peak, unbound.peak);
        assert!(fleet.not_owner < fleet.away, "hot keys have several owners: {} {}", fleet.not_owner, fleet.away);
        assert!(fleet.hits > 0.9 * unbound.hits);
    }

    #[test]
    fn what_is_cut_off_from_the_first_second_on_says_nothing_any_more() {
        let mut fleet = Fleet::new(&Plan { fault: Fault::Cut, ..PLAN });
        fleet.exchange.cut_from = 1_000.0;
        fleet.exchange.post(0, Message::Report(LoadReport::default()), 999.0);
        fleet.exchange.post(0, Message::Report(LoadReport::default()), 1_000.0);
        assert_eq!(fleet.exchange.under_way.len(), 1);
        // A second late, and a fifth of them lost.
        fleet.exchange.fault = Fault::Late;
        (0..1_000).for_each(|_| fleet.exchange.post(0, Message::Report(LoadReport::default()), 2_000.0));
        assert!((750..850).contains(&fleet.exchange.under_way.len()), "{}", fleet.exchange.under_way.len());
        let latest = fleet.exchange.under_way.iter().map(|Reverse(posted)| posted.at).fold(0.0, f64::max);
        assert_eq!(latest, 3_005.0);
    }

    #[test]
    fn what_is_read_off_the_seconds_is_the_largest_step_and_when_it_has_settled() {
        let by_second = vec![[0.5, 0.02, 1.9], [0.4, 0.05, 1.5], [0.6, 0.04, 1.3], [0.7, 0.04, 1.2]];
        let outcome = Outcome { by_second, ..Outcome::default() };
        assert!((outcome.largest_step() - 0.03).abs() < 1e-9);
        assert_eq!(outcome.settled_below(1.35), 2);
        assert_eq!((outcome.settled_below(1.25), outcome.settled_below(2.0)), (3, 0));
        assert_eq!(outcome.extremes(), (0.4, 1.9));
        assert!((peak(&[1.0, 3.0]) - 1.5).abs() < 1e-9 && peak(&[]) == 1.0);
    }
}
