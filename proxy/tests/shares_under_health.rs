//! What the health machine says of backends, and who then has how much of the traffic: both crates in virtual time, joined as the
//! proxy joins them.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ringway_health::{CheckFailure, CheckParams, Member, Params, Probe, ServiceHealth, SlowStartParams};
use ringway_ring::{
    BackendSet, FULL_SHARE, Load, MaglevParams, MemberSpec, PeakEwmaParams, Pick, PickContext, PolicyParams,
    RendezvousParams, RingParams, Total, hash_key,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const DOWN: Probe = Probe::Failure(CheckFailure::Connect);
const POLICIES: [PolicyParams; 8] = [
    PolicyParams::Ring(RingParams { points: 2048, seed: 0 }),
    PolicyParams::Maglev(MaglevParams { table_size: 65_537, seed: 0 }),
    PolicyParams::Rendezvous(RendezvousParams { seed: 0 }),
    PolicyParams::RoundRobin,
    PolicyParams::Random,
    PolicyParams::PowerOfTwo,
    PolicyParams::LeastRequest,
    PolicyParams::PeakEwma(PeakEwmaParams { decay_millis: 10_000 }),
];

struct World {
    health: ServiceHealth,
    backend_set: BackendSet,
    loads: Vec<Arc<Load>>,
    ids: Vec<String>,
    now: Instant,
    asked: u64,
}

impl World {
    /// Of members in these levels, each of weight 100.
    fn new(policy: PolicyParams, levels: &[u8], params: Params) -> Self {
        let ids: Vec<String> = (0..levels.len()).map(|index| format!("b{index}")).collect();
        let loads: Vec<Arc<Load>> = ids.iter().map(|id| Arc::new(Load::new(id))).collect();
        let members = ids.iter().zip(levels).zip(&loads).map(|((id, &level), load)| MemberSpec {
            id,
            weight: 100,
            requests_max: u32::MAX,
            level,
            load: Arc::clone(load),
        });
        let backend_set = BackendSet::build(policy, None, members, Arc::new(Total::new(1))).unwrap();
        backend_set.install();
        // All equally fast, for who goes by that.
        loads.iter().for_each(|load| load.observe(1_000.0, 1_000, 10_000));
        let now = Instant::now();
        let mut health = ServiceHealth::new(params, 1, now);
        let list: Vec<Member<'_>> =
            ids.iter().zip(levels).map(|(id, &level)| Member { level, ..Member::new(id) }).collect();
        health.set_members(&list, now);
        let mut world = Self { health, backend_set, loads, ids, now, asked: 0 };
        (0..levels.len()).for_each(|index| world.probe(index, Probe::Success));
        world
    }

    fn probe(&mut self, index: usize, probe: Probe) {
        self.health.handle_probe(self.ids[index].as_str(), probe, self.now);
        self.apply();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.health.handle_timeout(self.now);
        self.apply();
    }

    fn drain(&mut self, index: usize) {
        let members = self.ids.iter().enumerate();
        let list: Vec<Member<'_>> =
            members.map(|(other, id)| Member { drain: other == index, ..Member::new(id) }).collect();
        self.health.set_members(&list, self.now);
        self.apply();
    }

    /// As the proxy writes it to where requests read it.
    fn apply(&mut self) {
        for (id, load) in self.ids.iter().zip(&self.loads) {
            load.set_doubted(self.health.is_doubted(id));
            load.set_active_fraction(self.health.share(id).unwrap());
        }
        self.backend_set.set_level_shares(self.health.level_shares());
        self.backend_set.refresh();
    }

    fn share(&self, index: usize) -> f64 {
        f64::from(self.loads[index].active_fraction()) / f64::from(FULL_SHARE)
    }

    /// Who serves so many requests, one at a time.
    fn counts(&mut self, requests: u64) -> Vec<f64> {
        let mut counts = vec![0.0; self.ids.len()];
        for _ in 0..requests {
            self.asked += 1;
            let hash = |seed| hash_key(&self.asked.to_le_bytes(), seed);
            let ask = PickContext { hash: hash(1), chance: hash(2), now_millis: 1_000, owners: 0 };
            let mut selection = self.backend_set.begin(ask);
            let Pick::Backend(slot) = self.backend_set.next(&mut selection, 0) else { panic!("somebody is there") };
            self.backend_set.release(slot, 0);
            counts[usize::from(slot.0)] += 1.0;
        }
        counts
    }

    /// Each has its part of 4,000 requests, but for chance and what a keyed policy is uneven by.
    fn assert_parts(&mut self, parts: &[f64], policy: PolicyParams, what: &str) {
        let sum: f64 = parts.iter().sum();
        let counts = self.counts(4_000);
        for (index, part) in parts.iter().enumerate() {
            let due = 4_000.0 * part / sum;
            let uneven = if policy.hashes() { 0.15 } else { 0.02 };
            let off = (counts[index] - due).abs();
            assert!(
                off <= uneven * due + 5.0 * due.sqrt() && (due > 0.0 || counts[index] == 0.0),
                "{policy:?}, {what}: {index} is due {due:.0}: {counts:?}"
            );
        }
    }
}

fn checked() -> Params {
    Params {
        check: Some(CheckParams { rise: 1, fall: 1, ..CheckParams::default() }),
        slow_start: Some(SlowStartParams { window: SECOND * 60, initial_percent: 10 }),
        drain_ramp: SECOND * 20,
        panic_threshold_percent: 50,
        overprovisioning_percent: 140,
        ..Params::default()
    }
}

#[test]
fn a_backend_that_fails_its_checks_and_comes_back_along_a_slow_start_has_its_part_at_every_step() {
    for policy in POLICIES {
        let mut world = World::new(policy, &[0; 6], checked());
        world.pass(SECOND * 120);
        world.assert_parts(&[1.0; 6], policy, "all are well");
        world.probe(2, DOWN);
        world.assert_parts(&[1.0, 1.0, 0.0, 1.0, 1.0, 1.0], policy, "one is down");
        world.probe(2, Probe::Success);
        let mut before = 0.0;
        for step in 0..=12 {
            let share = world.share(2);
            assert!(share >= before && (step < 12 || share == 1.0), "{step}: {share}");
            assert!(step > 0 || (0.09..0.11).contains(&share), "{share}");
            before = share;
            world.assert_parts(&[1.0, 1.0, share, 1.0, 1.0, 1.0], policy, &format!("at {share} of its ramp"));
            world.pass(SECOND * 5);
        }
    }
}

#[test]
fn a_drained_backend_gives_its_part_to_all_others_step_by_step() {
    for policy in POLICIES {
        let mut world = World::new(policy, &[0; 6], checked());
        world.pass(SECOND * 120);
        world.drain(4);
        let mut before = 1.0;
        for _ in 0..=5 {
            let share = world.share(4);
            assert!(share <= before);
            before = share;
            world.assert_parts(&[1.0, 1.0, 1.0, 1.0, share, 1.0], policy, &format!("at {share} of its drain"));
            world.pass(SECOND * 5);
        }
        assert_eq!(before, 0.0);
    }
}

#[test]
fn in_panic_those_that_are_up_share_all_and_with_nobody_up_all_do() {
    for policy in POLICIES {
        let mut world = World::new(policy, &[0; 6], Params { slow_start: None, ..checked() });
        (0..4).for_each(|index| world.probe(index, DOWN));
        assert!(world.health.is_panic());
        world.assert_parts(&[0.0, 0.0, 0.0, 0.0, 1.0, 1.0], policy, "two are up");
        (4..6).for_each(|index| world.probe(index, DOWN));
        world.assert_parts(&[1.0; 6], policy, "nobody is up");
        world.probe(3, Probe::Success);
        world.assert_parts(&[0.0, 0.0, 0.0, 1.0, 0.0, 0.0], policy, "one is up again");
    }
}

#[test]
fn what_a_tier_cannot_carry_is_shared_by_the_next_ones_members() {
    for policy in POLICIES {
        let mut world = World::new(policy, &[0, 0, 0, 0, 1, 1, 1], Params { slow_start: None, ..checked() });
        world.assert_parts(&[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0], policy, "the first tier is whole");
        (0..2).for_each(|index| world.probe(index, DOWN));
        // Half of it, overprovisioned by 1.4, carries seven tenths.
        world.assert_parts(&[0.0, 0.0, 0.35, 0.35, 0.1, 0.1, 0.1], policy, "half of the first tier");
        (2..4).for_each(|index| world.probe(index, DOWN));
        world.assert_parts(&[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0], policy, "the first tier is gone");
    }
}

#[test]
fn a_check_that_asks_for_a_part_of_the_weight_is_given_that_part() {
    for policy in POLICIES {
        let mut world = World::new(policy, &[0; 3], Params { slow_start: None, ..checked() });
        for percent in [50, 20, 1, 100] {
            world.probe(1, Probe::Weighted(percent));
            world.assert_parts(&[1.0, f64::from(percent) / 100.0, 1.0], policy, &format!("{percent} %"));
        }
    }
}
