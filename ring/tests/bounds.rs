//! The bound's promises: never broken, never needlessly tight, sticky in where it sends what does not fit.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use ringway_ring::{
    AllFull, BackendSet, BoundParams, FULL_SHARE, Load, MemberSpec, Pick, PickContext, PolicyParams, RingParams, Slot,
    Total, hash_key,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

struct Fixture {
    group: BackendSet,
    loads: Vec<Arc<Load>>,
    total: Arc<Total>,
}

fn fixture(weights: &[u32], requests_max: u32, bound: Option<(BoundParams, AllFull)>, workers: usize) -> Fixture {
    let ids: Vec<String> = (0..weights.len()).map(|index| format!("b{index:05}")).collect();
    let loads: Vec<Arc<Load>> = ids.iter().map(|id| Arc::new(Load::new(id))).collect();
    let total = Arc::new(Total::new(workers));
    let members = ids.iter().zip(weights).zip(&loads).map(|((id, &weight), load)| MemberSpec {
        id,
        weight,
        requests_max,
        level: 0,
        load: Arc::clone(load),
    });
    let params = PolicyParams::Ring(RingParams { points: 64, seed: 0 });
    let (bound, all_full) = bound.map_or((None, AllFull::default()), |(bound, all_full)| (Some(bound), all_full));
    let group = BackendSet::build(params, bound, members, Arc::clone(&total)).unwrap().with_all_full(all_full);
    group.install();
    Fixture { group, loads, total }
}

fn bound(factor: f64, slack: f64, all_full: AllFull) -> Option<(BoundParams, AllFull)> {
    Some((BoundParams { factor, slack, min_slots: 1 }, all_full))
}

fn key(number: u64) -> u64 {
    hash_key(&number.to_le_bytes(), 0)
}

/// Places a request; gives its slot.
fn place(fixture: &Fixture, hash: u64) -> Option<Slot> {
    let mut selection = fixture.group.begin(PickContext { hash, ..PickContext::default() });
    match fixture.group.next(&mut selection, 0) {
        Pick::Backend(slot) => Some(slot),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn admitted_load_never_passes_the_cap(
        weights in prop::collection::vec(1..400_u32, 1..12),
        factor in 1.0..3.0_f64,
        slack in prop::sample::select(vec![0.0, 2.0, 3.0]),
        steps in prop::collection::vec((any::<u64>(), any::<bool>()), 1..400),
    ) {
        let fixture = fixture(&weights, u32::MAX, bound(factor, slack, AllFull::Reject), 1);
        let mut running: Vec<Slot> = Vec::new();
        for (number, ends) in steps {
            if ends && !running.is_empty() {
                let slot = running.swap_remove(number as usize % running.len());
                fixture.group.release(slot, 0);
                continue;
            }
            let caps: Vec<u32> = (0..weights.len()).map(|slot| fixture.group.cap(Slot(slot as u16))).collect();
            // Together the caps always leave room: somebody takes it (pigeonhole).
            let slot = place(&fixture, key(number % 50));
            prop_assert!(slot.is_some(), "caps {caps:?} leave no room for {}", running.len() + 1);
            let slot = slot.unwrap();
            prop_assert!(fixture.loads[usize::from(slot.0)].in_flight() <= caps[usize::from(slot.0)]);
            running.push(slot);
        }
        prop_assert_eq!(fixture.total.sum(), running.len() as u64);
        let sum: u64 = fixture.loads.iter().map(|load| u64::from(load.in_flight())).sum();
        prop_assert_eq!(sum, running.len() as u64);
    }

    #[test]
    fn threshold_moves_keys_only_to_or_from_its_member(low in any::<u16>(), high in any::<u16>(), slot in 0..6_usize) {
        let (low, high) = (low.min(high), low.max(high));
        let fixture = fixture(&[100; 6], u32::MAX, None, 1);
        let owners = |share: u16| -> Vec<Slot> {
            fixture.loads[slot].set_active_fraction(share);
            fixture.group.refresh();
            (0..300).map(|number| {
                let owner = place(&fixture, key(number)).unwrap();
                fixture.group.release(owner, 0);
                owner
            }).collect()
        };
        let (before, after) = (owners(low), owners(high));
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(before == after || usize::from(after.0) == slot);
        }
    }
}

#[test]
fn cap_is_the_formula() {
    let exact = fixture(&[100, 100, 200], u32::MAX, bound(1.25, 0.0, AllFull::Owner), 1);
    // Nothing in flight: a = 1/4 and 1/2 of one request, rounded up to a slot each.
    assert_eq!([0, 1, 2].map(|slot| exact.group.cap(Slot(slot))), [1, 1, 1]);
    for number in 0..79 {
        place(&exact, key(number)).unwrap();
    }
    // 80 with the one being placed: a = 20, 20, 40; times 1.25, exactly: no rounding up past a whole number.
    assert_eq!([0, 1, 2].map(|slot| exact.group.cap(Slot(slot))), [25, 25, 50]);
    let slack = fixture(&[100; 4], u32::MAX, bound(1.25, 2.0, AllFull::Owner), 1);
    // a = 1/4: 0.3125 + 2 * 0.5 = 1.3125.
    assert_eq!(slack.group.cap(Slot(0)), 2);
}

#[test]
fn a_slack_that_all_are_to_have_at_least_widens_what_has_some_and_leaves_strict_bounds_strict() {
    for (slack, least, expected) in [(2.0, 3.0, 22), (3.0, 2.0, 22), (2.0, 0.0, 19), (0.0, 3.0, 13), (4.0, 3.0, 26)] {
        let fixture = fixture(&[100; 10], u32::MAX, bound(1.25, slack, AllFull::Owner), 1);
        fixture.total.set_slack_min(least);
        // With this one a hundred requests, ten for each: 12.5 and so many roots of ten.
        (0..99).for_each(|number| _ = place(&fixture, key(number)));
        assert_eq!(fixture.group.cap(Slot(3)), expected, "{slack} {least}");
        fixture.total.set_slack_min(0.0);
        assert_eq!(fixture.group.cap(Slot(3)), (12.5 + slack * 10.0_f64.sqrt()).ceil() as u32);
    }
}

#[test]
fn cap_does_not_overflow_at_any_size() {
    let fixture = fixture(&[1600; 10_000], u32::MAX, bound(1.25, 0.0, AllFull::Owner), 1);
    for number in 0..30_000 {
        place(&fixture, key(number)).unwrap();
    }
    let caps: u64 = (0..10_000).map(|slot| u64::from(fixture.group.cap(Slot(slot)))).sum();
    assert!((30_001..=60_000).contains(&caps), "{caps}");
}

#[test]
fn few_requests_on_many_members_are_not_spread_needlessly() {
    // 200 members and 100 requests allow 0.63 each: without a floor nobody could take one.
    let fixture = fixture(&[100; 200], u32::MAX, bound(1.25, 2.0, AllFull::Reject), 1);
    for number in 0..100 {
        assert!(place(&fixture, key(number)).is_some());
    }
    // Two requests of one key in an idle service stay together, thanks to the square root.
    let idle = self::fixture(&[100; 4], u32::MAX, bound(1.25, 2.0, AllFull::Reject), 1);
    assert_eq!(place(&idle, key(1)), place(&idle, key(1)));
}

#[test]
fn denominator_is_the_eligible_set() {
    let fixture = fixture(&[100; 4], u32::MAX, bound(1.25, 0.0, AllFull::Reject), 1);
    for number in 0..39 {
        place(&fixture, key(number)).unwrap();
    }
    assert_eq!(fixture.group.cap(Slot(0)), 13);
    // Two drained: their requests and their shares are no longer counted; the others divide their own among two.
    fixture.loads[2].set_active_fraction(0);
    fixture.loads[3].set_active_fraction(0);
    fixture.group.refresh();
    let theirs = fixture.loads[0].in_flight() + fixture.loads[1].in_flight();
    let cap = (1.25 * f64::from(theirs + 1) / 2.0).ceil() as u32;
    assert_eq!([0, 1].map(|slot| fixture.group.cap(Slot(slot))), [cap, cap]);
    assert!((fixture.group.eligible_share() - 0.5).abs() < 1e-9);
}

#[test]
fn spill_is_sticky_and_spread_over_neighbours() {
    let fixture = fixture(&[100; 20], 1, None, 1);
    let victim = Slot(7);
    let mine: Vec<u64> =
        (0..5_000).map(key).filter(|&hash| fixture.group.ring().unwrap().owner(hash) == Some(victim)).collect();
    let hold = place(&fixture, mine[0]).unwrap();
    assert_eq!(hold, victim);
    let second = |hash: u64| {
        let slot = place(&fixture, hash).unwrap();
        fixture.group.release(slot, 0);
        slot
    };
    let seconds: Vec<Slot> = mine.iter().map(|&hash| second(hash)).collect();
    assert!(seconds.iter().all(|slot| *slot != victim));
    assert_eq!(seconds, mine.iter().map(|&hash| second(hash)).collect::<Vec<_>>());
    let mut heirs = seconds.clone();
    heirs.sort_unstable();
    heirs.dedup();
    assert!(heirs.len() >= 10, "overflow goes to {} neighbours only", heirs.len());
}

#[test]
fn retry_goes_on_and_never_back() {
    let fixture = fixture(&[100; 5], u32::MAX, bound(1.25, 2.0, AllFull::Owner), 1);
    let mut selection = fixture.group.begin(PickContext { hash: key(3), ..PickContext::default() });
    let mut given = Vec::new();
    while let Pick::Backend(slot) = fixture.group.next(&mut selection, 0) {
        fixture.group.release(slot, 0);
        given.push(slot);
    }
    let walk: Vec<Slot> = {
        let ring = fixture.group.ring().unwrap();
        let mut walk = ring.candidates(key(3));
        std::iter::from_fn(|| walk.next(ring)).collect()
    };
    assert_eq!(given, walk);
    assert_eq!(fixture.group.next(&mut selection, 0), Pick::None);
    assert_eq!(selection.owner(), Some(walk[0]));
    // Nor after a wait for room.
    let mut selection = fixture.group.begin(PickContext { hash: key(3), ..PickContext::default() });
    assert_eq!(fixture.group.next(&mut selection, 0), Pick::Backend(walk[0]));
    fixture.group.restart(&mut selection);
    assert_eq!(fixture.group.next(&mut selection, 0), Pick::Backend(walk[1]));
}

#[test]
fn a_member_that_turned_out_to_be_full_is_passed_over_and_may_be_given_after_a_wait() {
    let fixture = fixture(&[100; 3], u32::MAX, None, 1);
    let mut selection = fixture.group.begin(PickContext { hash: key(3), ..PickContext::default() });
    let Pick::Backend(owner) = fixture.group.next(&mut selection, 0) else { panic!("somebody takes it") };
    fixture.group.release(owner, 0);
    fixture.group.handle_full(&mut selection, owner);
    let Pick::Backend(other) = fixture.group.next(&mut selection, 0) else { panic!("somebody else takes it") };
    assert_ne!(other, owner);
    fixture.group.release(other, 0);
    fixture.group.restart(&mut selection);
    assert_eq!(fixture.group.next(&mut selection, 0), Pick::Backend(owner));
}

#[test]
fn the_four_choices_when_all_are_full() {
    for (all_full, hard) in [(AllFull::Owner, 2), (AllFull::LeastLoaded, 2), (AllFull::Queue, 2), (AllFull::Reject, 2)]
    {
        // The bound cannot fill all, but a hard limit can.
        let fixture = fixture(&[100; 3], hard, bound(1.0, 0.0, all_full), 1);
        for number in 0..6 {
            assert!(place(&fixture, key(number)).is_some(), "{all_full:?}");
        }
        let mut selection = fixture.group.begin(PickContext { hash: key(9), ..PickContext::default() });
        assert_eq!(fixture.group.next(&mut selection, 0), Pick::AllFull, "{all_full:?}: a hard limit is never passed");
    }
    // Beyond the bound, but below the hard limit: a ramp leaves less room than there is load.
    let overfull = |all_full: AllFull| {
        let fixture = fixture(&[100; 3], u32::MAX, bound(1.0, 0.0, all_full), 1);
        for number in 0..9 {
            place(&fixture, key(number)).unwrap();
        }
        let placed: u32 = fixture.loads.iter().map(|load| load.in_flight()).sum();
        (fixture, placed)
    };
    let (fixture, placed) = overfull(AllFull::Owner);
    assert_eq!(placed, 9);
    assert!(place(&fixture, key(100)).is_some());
    let (fixture, _) = overfull(AllFull::LeastLoaded);
    assert!(place(&fixture, key(100)).is_some());
}

#[test]
fn refused_by_every_ramp_is_taken_all_the_same() {
    let fixture = fixture(&[100; 2], u32::MAX, bound(1.25, 2.0, AllFull::Reject), 1);
    for load in &fixture.loads {
        load.set_active_fraction(FULL_SHARE / 2);
    }
    fixture.group.refresh();
    for number in 0..200 {
        let slot = place(&fixture, key(number)).expect("somebody takes it");
        fixture.group.release(slot, 0);
    }
    // But not if all are down.
    for load in &fixture.loads {
        load.set_active_fraction(0);
    }
    fixture.group.refresh();
    assert_eq!(place(&fixture, key(1)), None);
}

#[test]
fn shed_share_sends_the_same_keys_away_each_time() {
    let fixture = fixture(&[100; 4], u32::MAX, None, 1);
    let owners = || -> Vec<Slot> {
        (0..2_000)
            .map(|number| {
                let slot = place(&fixture, key(number)).unwrap();
                fixture.group.release(slot, 0);
                slot
            })
            .collect()
    };
    let before = owners();
    fixture.loads[0].set_shed(FULL_SHARE / 2);
    let shed = owners();
    assert_eq!(shed, owners());
    let (had, has) = (count(&before), count(&shed));
    assert!((0.4..0.6).contains(&(has as f64 / had as f64)), "{had} -> {has}");
    assert!(before.iter().zip(&shed).all(|(before, after)| before == after || *before == Slot(0)));
    fn count(owners: &[Slot]) -> usize {
        owners.iter().filter(|slot| **slot == Slot(0)).count()
    }
}

#[test]
fn racing_workers_never_pass_the_bound_together() {
    const WORKERS: usize = 4;
    let fixture = Arc::new(fixture(&[100; 5], 3, None, WORKERS));
    // Counted apart from the loads, by those who were admitted.
    let admitted: Vec<AtomicU32> = (0..5).map(|_| AtomicU32::new(0)).collect();
    let served = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (fixture, admitted, served) = (Arc::clone(&fixture), &admitted, &served);
            scope.spawn(move || {
                for round in 0..50_000_u64 {
                    // Four keys only: all workers want the same few members.
                    let mut held = Vec::new();
                    for number in 0..3 {
                        let mut selection = fixture
                            .group
                            .begin(PickContext { hash: key((round + number) % 4), ..PickContext::default() });
                        if let Pick::Backend(slot) = fixture.group.next(&mut selection, worker) {
                            let before = admitted[usize::from(slot.0)].fetch_add(1, Ordering::SeqCst);
                            assert!(before < 3, "{} are in at once where 3 may be", before + 1);
                            held.push(slot);
                        }
                    }
                    served.fetch_add(held.len() as u64, Ordering::Relaxed);
                    for slot in held {
                        admitted[usize::from(slot.0)].fetch_sub(1, Ordering::SeqCst);
                        fixture.group.release(slot, worker);
                    }
                }
            });
        }
    });
    assert!(served.load(Ordering::Relaxed) > 300_000, "{served:?} of 600000 were let in");
    assert_eq!(fixture.total.sum(), 0);
    assert!(fixture.loads.iter().all(|load| load.in_flight() == 0));
}

#[test]
fn round_robin_takes_turns_and_skips_members_that_are_down() {
    let ids = ["a", "b", "c"];
    let loads: Vec<Arc<Load>> = ids.iter().map(|id| Arc::new(Load::new(id))).collect();
    let members = ids.iter().zip(&loads).map(|(id, load)| MemberSpec {
        id,
        weight: if *id == "a" { 200 } else { 100 },
        requests_max: u32::MAX,
        level: 0,
        load: Arc::clone(load),
    });
    let group = BackendSet::build(PolicyParams::RoundRobin, None, members, Arc::new(Total::new(1))).unwrap();
    let mut counts = [0; 3];
    let turn = |counts: &mut [u32; 3]| {
        let mut selection = group.begin(PickContext::default());
        let Pick::Backend(slot) = group.next(&mut selection, 0) else { panic!("somebody is up") };
        group.release(slot, 0);
        counts[usize::from(slot.0)] += 1;
    };
    for _ in 0..400 {
        turn(&mut counts);
    }
    assert_eq!(counts, [200, 100, 100]);
    loads[0].set_active_fraction(0);
    let mut counts = [0; 3];
    for _ in 0..400 {
        turn(&mut counts);
    }
    assert_eq!(counts[0], 0);
    assert!(counts[1] >= 100 && counts[2] >= 100);
}

#[test]
fn a_limit_that_was_set_is_kept_to_as_if_requests_max_were_it_whatever_is_done_when_all_are_full() {
    for all_full in [AllFull::Owner, AllFull::LeastLoaded, AllFull::Queue, AllFull::Reject] {
        for fixture in [fixture(&[100; 3], 5, bound(1.25, 2.0, all_full), 1), fixture(&[100; 3], 5, None, 1)] {
            fixture.loads[0].set_limit(2);
            for number in 0..100 {
                place(&fixture, key(number));
            }
            let in_flight: Vec<u32> = fixture.loads.iter().map(|load| load.in_flight()).collect();
            assert!(in_flight[0] == 2 && in_flight[1..].iter().all(|&load| load <= 5), "{all_full:?}: {in_flight:?}");
            let limited: Vec<bool> = fixture.loads.iter().map(|load| load.limited() > 0).collect();
            assert_eq!(limited, [true, false, false], "{all_full:?}");
            // Below what is in flight it lets nothing in; raised, it lets in as many as there is room for.
            let carried = in_flight[0];
            fixture.loads[0].set_limit(1);
            fixture.group.release(Slot(0), 0);
            assert!((0..100).all(|number| place(&fixture, key(number)) != Some(Slot(0))), "{all_full:?}");
            fixture.loads[0].set_limit(u32::MAX);
            let placed = (0..100).filter(|&number| place(&fixture, key(number)) == Some(Slot(0))).count() as u32;
            assert!(placed > 0 && fixture.loads[0].in_flight() == carried - 1 + placed, "{all_full:?}");
            assert!(fixture.loads[0].in_flight() <= 5, "{all_full:?}");
        }
    }
}
