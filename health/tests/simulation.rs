//! A month of flapping backends in a second, against a shadow model that is told the same. The seed is printed when it
//! fails; put it into `SEEDS` to replay it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says its seed"
)]

use ringway_health::{
    AgentMode, AgentParams, AgentReport, CheckFailure, CheckParams, Member, MemberKey, Outcome, OutlierOn,
    OutlierParams, Params, Probe, ServiceHealth,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SEEDS: [u64; 6] = [1, 2, 3, 4711, 0xdead_beef, 20_261_120];
const STEPS: usize = 20_000;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What one backend should be like, worked out in the most naive way: from its whole history.
#[derive(Default)]
struct Shadow {
    checks: Vec<bool>,
    up: bool,
    failures: u32,
    ejected: bool,
    drain: bool,
    /// What its agent has said.
    agent_down: bool,
    agent_drain: bool,
}

impl Shadow {
    fn is_up(&self) -> bool {
        self.up && !self.agent_down
    }

    /// Whether anybody wants it to take keys.
    fn is_wanted(&self) -> bool {
        !self.drain && !self.agent_drain
    }
}

#[test]
fn a_month_of_flaps_breaks_no_invariant() {
    for seed in SEEDS {
        let result = std::panic::catch_unwind(|| simulate(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}

fn simulate(seed: u64) {
    let mut random = Random(seed | 1);
    let check = CheckParams { rise: 2, fall: 3, interval: Duration::from_secs(2), ..CheckParams::default() };
    let outlier = OutlierParams {
        on: OutlierOn::ServerErrors,
        consecutive_failures: 4,
        base_ejection: Duration::from_secs(30),
        max_ejection: Duration::from_secs(120),
        jitter: 0.1,
        max_ejection_percent: 30,
        ..OutlierParams::default()
    };
    let agent = AgentParams { interval: Duration::from_secs(7), timeout: Duration::from_secs(1) };
    let params = Params {
        check: Some(check),
        agent: Some(agent),
        outlier,
        panic_threshold_percent: 40,
        keep_clients: Some(Duration::MAX),
        ..Params::default()
    };
    let begin = Instant::now();
    let mut now = begin;
    let mut health = ServiceHealth::new(params, seed, now);
    let mut shadows: BTreeMap<String, Shadow> = BTreeMap::new();
    let mut pending: Vec<MemberKey> = Vec::new();

    for step in 0..STEPS {
        now += Duration::from_millis(random.below(90_000) / (1 + random.below(20)));
        match random.below(100) {
            // Membership changes: somebody comes, goes, drains or returns.
            0 if shadows.len() < 12 => {
                let id = format!("b{}", random.below(40));
                shadows.entry(id).or_insert_with(|| Shadow { up: true, ..Shadow::default() });
                tell_members(&mut health, &mut shadows, now);
            }
            1 if shadows.len() > 3 => {
                let id = pick(&shadows, &mut random);
                shadows.remove(&id);
                pending.retain(|other| **other != *id);
                tell_members(&mut health, &mut shadows, now);
            }
            2 if !shadows.is_empty() => {
                let id = pick(&shadows, &mut random);
                let shadow = shadows.get_mut(&id).unwrap();
                shadow.drain = !shadow.drain;
                tell_members(&mut health, &mut shadows, now);
            }
            3..=30 if !shadows.is_empty() => {
                let id = pick(&shadows, &mut random);
                let failed = random.below(10) < 6;
                let may = may_eject(&shadows, &id);
                let shadow = shadows.get_mut(&id).unwrap();
                if !failed {
                    shadow.failures = 0;
                } else if !shadow.ejected {
                    shadow.failures += 1;
                    if shadow.failures >= 4 && may {
                        (shadow.ejected, shadow.failures) = (true, 0);
                    }
                }
                health.handle_outcome(&id, if failed { Outcome::Status(502) } else { Outcome::Success }, now);
            }
            31..=34 if !shadows.is_empty() => {
                let id = pick(&shadows, &mut random);
                let shadow = shadows.get_mut(&id).unwrap();
                let mut report = AgentReport::default();
                match random.below(4) {
                    0 => shadow.agent_down = !shadow.agent_down,
                    1 => shadow.agent_drain = !shadow.agent_drain,
                    // It says what it has said, or nothing.
                    _ => {}
                }
                if random.below(5) > 0 {
                    report.up = Some(!shadow.agent_down);
                    report.mode = Some(if shadow.agent_drain { AgentMode::Drain } else { AgentMode::Ready });
                    health.handle_agent(id.as_str(), report, now);
                } else {
                    // Lost on the way: what it meant to say is not known here.
                    (shadow.agent_down, shadow.agent_drain) = said(&health, &id, now);
                    health.handle_agent(id.as_str(), report, now);
                }
            }
            _ => {}
        }
        // Time passes: what is due is done, checks that are under way end.
        if health.poll_timeout().is_some_and(|at| at <= now) {
            health.handle_timeout(now);
        }
        for id in pending.drain(..) {
            let good = random.below(10) < 7;
            health.handle_probe(&id, if good { Probe::Success } else { Probe::Failure(CheckFailure::Timeout) }, now);
            let shadow = shadows.get_mut(&*id).unwrap();
            shadow.checks.push(good);
            shadow.up = replay(&shadow.checks);
        }
        while let Some(id) = health.poll_probe(now) {
            assert!(!pending.contains(&id), "a second check of {} at once", &*id);
            pending.push(id);
        }
        // Most agents have nothing to say.
        for id in health.poll_agents(now) {
            health.handle_agent(&id, AgentReport::default(), now);
        }
        while let Some(event) = health.poll_event() {
            if event.kind.name() == "returned" {
                let shadow = shadows.get_mut(&event.id).unwrap();
                (shadow.ejected, shadow.failures) = (false, 0);
            }
        }
        verify(&health, &shadows, step);
    }
    assert!(now - begin > Duration::from_secs(24 * 3600), "the simulation was too short: {:?}", now - begin);
}

/// The state after a history of checks, from its beginning.
fn replay(checks: &[bool]) -> bool {
    let mut up = checks[0];
    for end in 1..checks.len() {
        let needed = if up { 3 } else { 2 };
        let history = &checks[..=end];
        if history.len() > needed && history[history.len() - needed..].iter().all(|good| *good != up) {
            up = !up;
        }
    }
    up
}

fn verify(health: &ServiceHealth, shadows: &BTreeMap<String, Shadow>, step: usize) {
    let (mut all, mut healthy) = (0, 0);
    for shadow in shadows.values().filter(|shadow| shadow.is_wanted()) {
        all += 1;
        healthy += usize::from(shadow.is_up() && !shadow.ejected);
    }
    let panic = all > 0 && healthy * 100 < 40 * all;
    assert_eq!(health.is_panic(), panic, "step {step}: {healthy} of {all} are healthy");
    for (id, shadow) in shadows {
        let takes = shadow.is_wanted() && (panic || shadow.is_up() && !shadow.ejected);
        let expected = if takes { u16::MAX } else { 0 };
        assert_eq!(health.share(id), Some(expected), "step {step}: {id}");
        let keeps = !shadow.is_wanted() && shadow.is_up() && !shadow.ejected;
        assert_eq!(health.keeps_clients(id), keeps, "step {step}: {id}");
    }
}

/// Whether the rules allow that a backend be ejected: 30 % of those that could take traffic, one always, never the last.
fn may_eject(shadows: &BTreeMap<String, Shadow>, id: &str) -> bool {
    let others =
        || shadows.iter().filter(|(other, shadow)| *other != id && shadow.is_wanted()).map(|(_, shadow)| shadow);
    let takes_traffic = others().any(|shadow| shadow.is_up() && !shadow.ejected);
    let able = 1 + others().filter(|shadow| shadow.is_up()).count();
    let ejected = others().filter(|shadow| shadow.ejected).count();
    takes_traffic && (!shadows[id].is_wanted() || ejected < (able * 30 / 100).max(1))
}

/// What the agent has said last, as the status has it: down, drain.
fn said(health: &ServiceHealth, id: &str, now: Instant) -> (bool, bool) {
    let view = health.view(id, now).unwrap();
    (view.agent == "down", view.percent == 0)
}

fn pick(shadows: &BTreeMap<String, Shadow>, random: &mut Random) -> String {
    shadows.keys().nth(random.below(shadows.len() as u64) as usize).unwrap().clone()
}

fn tell_members(health: &mut ServiceHealth, shadows: &mut BTreeMap<String, Shadow>, now: Instant) {
    let list: Vec<Member<'_>> =
        shadows.iter().map(|(id, shadow)| Member { drain: shadow.drain, ..Member::new(id) }).collect();
    health.set_members(&list, now);
}
