//! A cap depends on what is live, however many generations of a group carry it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use ringway_ring::{
    BackendSet, BoundParams, FULL_SHARE, Load, MemberSpec, Pick, PickContext, PolicyParams, RingParams, Slot, Total,
    hash_key,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const IDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const BOUND: BoundParams = BoundParams { factor: 1.25, slack: 0.0, min_slots: 1 };

/// Weight and level of each member.
type Members = BTreeMap<usize, (u32, u8)>;

#[derive(Debug, Clone)]
enum Step {
    /// By the generation that is so many back.
    Place {
        back: usize,
        key: u64,
    },
    /// On a member that is named, whatever became of it.
    Resume {
        back: usize,
        member: usize,
    },
    End {
        which: usize,
    },
    /// Health or drain change what a member takes, and some generation says so.
    Share {
        member: usize,
        share: u16,
        back: usize,
    },
    Reload {
        members: Members,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let share = prop::sample::select(vec![0, 0, FULL_SHARE / 3, FULL_SHARE, FULL_SHARE]);
    let members = prop::collection::btree_map(0..IDS.len(), (0..400_u32, 0..3_u8), 1..=IDS.len());
    let step = prop_oneof![
        8 => (0..4_usize, any::<u64>()).prop_map(|(back, key)| Step::Place { back, key }),
        1 => (0..4_usize, 0..IDS.len()).prop_map(|(back, member)| Step::Resume { back, member }),
        5 => any::<usize>().prop_map(|which| Step::End { which }),
        2 => (0..IDS.len(), share, 0..4_usize).prop_map(|(member, share, back)| Step::Share { member, share, back }),
        1 => members.prop_map(|members| Step::Reload { members }),
    ];
    prop::collection::vec(step, 1..200)
}

struct Fleet {
    loads: Vec<Arc<Load>>,
    total: Arc<Total>,
    /// All that have ever been, the newest last.
    generations: Vec<(Arc<BackendSet>, Members)>,
}

impl Fleet {
    fn new() -> Self {
        let loads = IDS.iter().map(|id| Arc::new(Load::new(id))).collect();
        Self { loads, total: Arc::new(Total::new(2)), generations: Vec::new() }
    }

    fn reload(&mut self, members: Members) {
        let list = members.iter().map(|(&index, &(weight, level))| MemberSpec {
            id: IDS[index],
            weight,
            requests_max: u32::MAX,
            level,
            load: Arc::clone(&self.loads[index]),
        });
        let policy = PolicyParams::Ring(RingParams { points: 8, seed: 0 });
        let before = self.generations.last().map(|(group, _)| &**group);
        let group = BackendSet::build_after(before, policy, Some(BOUND), list, Arc::clone(&self.total)).unwrap();
        group.install();
        self.generations.push((Arc::new(group), members));
    }

    fn back(&self, back: usize) -> &(Arc<BackendSet>, Members) {
        &self.generations[self.generations.len().saturating_sub(back + 1)]
    }

    fn slot(members: &Members, index: usize) -> Option<Slot> {
        members.keys().position(|&member| member == index).map(|slot| Slot(slot as u16))
    }

    /// What the caps of the newest generation have to be, from its members and what is in flight on them alone.
    fn expected(&self) -> Vec<u32> {
        let (_, members) = self.generations.last().unwrap();
        let claim = |index: usize, weight: u32| u64::from(weight) * u64::from(self.loads[index].active_fraction());
        let caps = members.iter().map(|(&index, &(weight, level))| {
            let peers = || members.iter().filter(|(index, (weight, key))| *key == level && claim(**index, *weight) > 0);
            let eligible: u64 = peers().map(|(&index, &(weight, _))| claim(index, weight)).sum();
            if eligible == 0 {
                return BOUND.min_slots;
            }
            let live: u64 = peers().map(|(&index, _)| u64::from(self.loads[index].in_flight())).sum();
            let fair = (live + 1) as f64 * claim(index, weight) as f64 / eligible as f64;
            ((BOUND.factor * fair * (1.0 - 1e-12)).ceil() as u32).max(BOUND.min_slots)
        });
        caps.collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn caps_of_the_newest_are_the_formula_over_what_is_live(steps in steps()) {
        let mut fleet = Fleet::new();
        fleet.reload((0..4).map(|index| (index, (100, 0))).collect());
        let mut running: Vec<(Arc<BackendSet>, Slot, usize)> = Vec::new();
        for step in steps {
            match step {
                Step::Place { back, key } => {
                    let (group, _) = fleet.back(back);
                    let mut selection = group.begin(PickContext { hash: hash_key(&key.to_le_bytes(), 0), ..PickContext::default() });
                    let shard = key as usize % 2;
                    if let Pick::Backend(slot) = group.next(&mut selection, shard) {
                        running.push((Arc::clone(group), slot, shard));
                    }
                }
                Step::Resume { back, member } => {
                    let (group, members) = fleet.back(back);
                    if let Some(slot) = Fleet::slot(members, member) {
                        group.resume(slot, 0);
                        running.push((Arc::clone(group), slot, 0));
                    }
                }
                Step::End { which } if !running.is_empty() => {
                    let (group, slot, shard) = running.swap_remove(which % running.len());
                    group.release(slot, shard);
                }
                Step::End { .. } => {}
                Step::Share { member, share, back } => {
                    fleet.loads[member].set_active_fraction(share);
                    // Whoever has noticed says so; the one in force is always told.
                    fleet.back(back).0.refresh();
                    fleet.back(0).0.refresh();
                }
                Step::Reload { members } => fleet.reload(members),
            }
            let (newest, members) = fleet.generations.last().unwrap();
            let caps: Vec<u32> = (0..members.len()).map(|slot| newest.cap(Slot(slot as u16))).collect();
            prop_assert_eq!(caps, fleet.expected());
            prop_assert_eq!(fleet.total.sum(), running.len() as u64);
        }
    }
}

#[test]
fn in_panic_those_that_are_up_share_the_load_and_come_first() {
    let mut fleet = Fleet::new();
    fleet.reload((0..4).map(|index| (index, (100, 0))).collect());
    (1..4).for_each(|index| fleet.loads[index].set_doubted(true));
    let group = Arc::clone(&fleet.back(0).0);
    group.refresh();
    let selection = |number: u64| {
        let mut selection =
            group.begin(PickContext { hash: hash_key(&number.to_le_bytes(), 0), ..PickContext::default() });
        (group.next(&mut selection, 0), group.next(&mut selection, 0))
    };
    for number in 0..30 {
        // First the one that is up, whatever it carries; then, if it refuses, the others all the same.
        let (first, second) = selection(number);
        assert_eq!(first, Pick::Backend(Slot(0)));
        let Pick::Backend(second) = second else { panic!("{second:?}") };
        group.release(second, 0);
    }
    assert_eq!(group.cap(Slot(0)), 39, "ceil(1.25 * 31)");
    // Nobody is known to be up: all share.
    fleet.loads[0].set_doubted(true);
    group.refresh();
    assert_eq!(group.cap(Slot(0)), 10, "ceil(1.25 * 31 / 4)");
}

#[test]
fn what_is_live_is_exact_after_any_race_of_requests_and_changes() {
    const WORKERS: usize = 3;
    let mut fleet = Fleet { total: Arc::new(Total::new(WORKERS)), ..Fleet::new() };
    fleet.reload((0..4).map(|index| (index, (100, 0))).collect());
    fleet.reload((2..6).map(|index| (index, (100, (index % 2) as u8))).collect());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (fleet, stop) = (&fleet, &stop);
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for round in 0_u64.. {
                        let (group, _) = fleet.back((round % 2) as usize);
                        let hash = hash_key(&(round * WORKERS as u64 + worker as u64).to_le_bytes(), 0);
                        let mut selection = group.begin(PickContext { hash, ..PickContext::default() });
                        if let Pick::Backend(slot) = group.next(&mut selection, worker) {
                            held.push((group, slot));
                        }
                        if held.len() > 40 {
                            let (group, slot) = held.swap_remove(round as usize % 40);
                            group.release(slot, worker);
                        }
                        // Some of them stay: what is live in the end is not nothing.
                        if round >= 20_000 && stop.load(Ordering::Relaxed) {
                            return held.len() as u64;
                        }
                    }
                    0
                })
            })
            .collect();
        for round in 0..2_000_u32 {
            fleet.loads[round as usize % 6].set_active_fraction(if round % 3 == 0 { 0 } else { FULL_SHARE });
            let (group, _) = fleet.back(round as usize / 7 % 2);
            if round % 7 == 0 { group.install() } else { group.refresh() }
        }
        fleet.back(0).0.install();
        stop.store(true, Ordering::Relaxed);
        let held: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        assert_eq!(fleet.total.sum(), held);
    });
    let (newest, members) = fleet.generations.last().unwrap();
    let caps: Vec<u32> = (0..members.len()).map(|slot| newest.cap(Slot(slot as u16))).collect();
    assert_eq!(caps, fleet.expected());
}
