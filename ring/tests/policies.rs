//! Every policy honours weights, ramps, hard limits, levels; keys move no more than they must.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use ringway_ring::{
    BackendSet, BoundParams, FULL_SHARE, Load, MaglevParams, MemberSpec, Method, PeakEwmaParams, Pick, PickContext,
    PolicyParams, RendezvousParams, RingParams, SAMPLE_BUDGET, Slot, Total, hash_key, set_movement,
};
use std::sync::Arc;

const KEYED: [PolicyParams; 3] = [
    PolicyParams::Ring(RingParams { points: 64, seed: 0 }),
    PolicyParams::Maglev(MaglevParams { table_size: 1021, seed: 0 }),
    PolicyParams::Rendezvous(RendezvousParams { seed: 0 }),
];
const ALL: [PolicyParams; 9] = [
    KEYED[0],
    KEYED[1],
    KEYED[2],
    PolicyParams::RoundRobin,
    PolicyParams::Random,
    PolicyParams::PowerOfTwo,
    PolicyParams::LeastRequest,
    PolicyParams::PeakEwma(PeakEwmaParams { decay_millis: 10_000 }),
    PolicyParams::First,
];

struct Fleet {
    group: BackendSet,
    loads: Vec<Arc<Load>>,
    ids: Vec<String>,
}

/// Of (id, weight, requests_max, level), sorted by id.
fn fleet(policy: PolicyParams, bound: Option<BoundParams>, members: &[(&str, u32, u32, u8)]) -> Fleet {
    let loads: Vec<Arc<Load>> = members.iter().map(|(id, ..)| Arc::new(Load::new(id))).collect();
    let list = members.iter().zip(&loads).map(|(&(id, weight, requests_max, level), load)| MemberSpec {
        id,
        weight,
        requests_max,
        level,
        load: Arc::clone(load),
    });
    let group = BackendSet::build(policy, bound, list, Arc::new(Total::new(1))).unwrap();
    group.install();
    Fleet { group, loads, ids: members.iter().map(|(id, ..)| (*id).to_owned()).collect() }
}

fn equal(policy: PolicyParams, count: usize) -> Fleet {
    let ids: Vec<String> = (0..count).map(|index| format!("b{index:03}")).collect();
    let members: Vec<(&str, u32, u32, u8)> = ids.iter().map(|id| (id.as_str(), 100, u32::MAX, 0)).collect();
    fleet(policy, None, &members)
}

fn ask(number: u64) -> PickContext {
    PickContext {
        hash: hash_key(&number.to_le_bytes(), 0),
        chance: hash_key(&number.to_le_bytes(), 99),
        now_millis: 1_000,
        owners: 0,
    }
}

impl Fleet {
    fn place(&self, number: u64) -> Option<Slot> {
        let mut selection = self.group.begin(ask(number));
        match self.group.next(&mut selection, 0) {
            Pick::Backend(slot) => Some(slot),
            _ => None,
        }
    }

    fn touch(&self, number: u64) -> Option<Slot> {
        let slot = self.place(number)?;
        self.group.release(slot, 0);
        Some(slot)
    }

    fn counts(&self, requests: u64) -> Vec<u32> {
        let mut counts = vec![0; self.loads.len()];
        (0..requests).for_each(|number| counts[usize::from(self.touch(number).unwrap().0)] += 1);
        counts
    }
}

#[test]
fn every_policy_gives_each_member_once_and_then_nobody() {
    for policy in ALL {
        let fleet = equal(policy, 40);
        for number in 0..20 {
            let mut selection = fleet.group.begin(ask(number));
            let mut given = Vec::new();
            while let Pick::Backend(slot) = fleet.group.next(&mut selection, 0) {
                fleet.group.release(slot, 0);
                given.push(slot.0);
            }
            given.sort_unstable();
            assert_eq!(given, (0..40).collect::<Vec<_>>(), "{policy:?}");
            assert_eq!(fleet.group.next(&mut selection, 0), Pick::None, "{policy:?}");
        }
    }
}

#[test]
fn every_policy_honours_weight_zero_and_members_that_are_down() {
    for policy in ALL {
        let members =
            [("a", 100, u32::MAX, 0), ("b", 0, u32::MAX, 0), ("c", 100, u32::MAX, 0), ("d", 100, u32::MAX, 0)];
        let fleet = fleet(policy, None, &members);
        fleet.loads[2].set_active_fraction(0);
        fleet.group.refresh();
        let counts = fleet.counts(2_000);
        assert_eq!((counts[1], counts[2]), (0, 0), "{policy:?}: {counts:?}");
        assert_eq!(counts[0] + counts[3], 2_000);
        fleet.loads.iter().for_each(|load| load.set_active_fraction(0));
        fleet.group.refresh();
        assert_eq!(fleet.place(1), None, "{policy:?}");
    }
}

#[test]
fn every_policy_skips_a_full_member_and_says_when_all_are() {
    for policy in ALL {
        let fleet = fleet(policy, None, &[("a", 100, 2, 0), ("b", 100, 3, 0), ("c", 100, 1, 0)]);
        for number in 0..6 {
            assert!(fleet.place(number).is_some(), "{policy:?} {number}");
        }
        let mut selection = fleet.group.begin(ask(7));
        assert_eq!(fleet.group.next(&mut selection, 0), Pick::AllFull, "{policy:?}");
        fleet.group.release(Slot(2), 0);
        fleet.group.restart(&mut selection);
        assert_eq!(fleet.group.next(&mut selection, 0), Pick::Backend(Slot(2)), "{policy:?}");
    }
}

#[test]
fn every_policy_but_first_follows_weights_and_ramps() {
    for policy in ALL.into_iter().filter(|policy| *policy != PolicyParams::First) {
        let fleet = fleet(policy, None, &[("a", 100, u32::MAX, 0), ("b", 300, u32::MAX, 0)]);
        let spread = |fleet: &Fleet| {
            // Requests stay for a while, so that policies which look at loads have some to look at.
            let mut held = std::collections::VecDeque::new();
            let mut counts = [0.0; 2];
            for number in 0..8_000 {
                let slot = fleet.place(number).unwrap();
                counts[usize::from(slot.0)] += 1.0;
                held.push_back(slot);
                if held.len() > 40 {
                    fleet.group.release(held.pop_front().unwrap(), 0);
                }
            }
            held.into_iter().for_each(|slot| fleet.group.release(slot, 0));
            counts[1] / counts[0]
        };
        let ratio = spread(&fleet);
        assert!((2.0..4.5).contains(&ratio), "{policy:?}: {ratio}");
        // At a tenth of its ramp, the heavy one has 30 to the other's 100.
        fleet.loads[1].set_active_fraction(FULL_SHARE / 10);
        fleet.group.refresh();
        let ratio = spread(&fleet);
        assert!((0.05..0.6).contains(&ratio), "{policy:?} in its ramp: {ratio}");
    }
}

/// What keeps a member from taking a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Away {
    /// It is down or drained.
    Absent,
    /// It has no room.
    Full,
    /// It takes a tenth of its turns.
    Ramping,
}

const WITHOUT_KEYS: [PolicyParams; 5] = [ALL[3], ALL[4], ALL[5], ALL[6], ALL[7]];

/// Shares of requests, one at a time, among members of these weights, of which the first so many are away.
fn shares_of(policy: PolicyParams, weights: &[u32], away: usize, how: Away) -> (Vec<f64>, f64) {
    let ids: Vec<String> = (0..weights.len()).map(|index| format!("b{index:02}")).collect();
    let members: Vec<(&str, u32, u32, u8)> = ids
        .iter()
        .zip(weights)
        .enumerate()
        .map(|(index, (id, &weight))| {
            (id.as_str(), weight, if index < away && how == Away::Full { 0 } else { u32::MAX }, 0)
        })
        .collect();
    let fleet = fleet(policy, None, &members);
    for load in &fleet.loads[..away] {
        match how {
            Away::Absent => load.set_active_fraction(0),
            Away::Full => {}
            Away::Ramping => load.set_active_fraction(FULL_SHARE / 10),
        }
    }
    // All equally fast, or who was never used would be tried first.
    fleet.loads.iter().for_each(|load| load.observe(1_000.0, 1_000, 10_000));
    fleet.group.refresh();
    let requests = 60_000;
    let counts = fleet.counts(requests);
    let claims: Vec<f64> = weights
        .iter()
        .enumerate()
        .map(|(index, &weight)| match how {
            _ if index >= away => f64::from(weight),
            Away::Absent | Away::Full => 0.0,
            Away::Ramping => f64::from(weight) / 10.0,
        })
        .collect();
    let sum: f64 = claims.iter().sum();
    let off = counts
        .iter()
        .zip(&claims)
        .map(|(&count, claim)| (f64::from(count) / requests as f64 - claim / sum).abs())
        .fold(0.0, f64::max);
    (counts.iter().map(|&count| f64::from(count) / requests as f64).collect(), off)
}

/// HAProxy and Envoy share what is absent by weight among who is there; a neighbour that gets it all goes down next.
#[test]
fn what_members_leave_is_shared_by_weight_whatever_the_policy_and_whatever_keeps_them_away() {
    let fleets: [(&[u32], usize); 6] = [
        (&[100; 6], 3),
        (&[100; 6], 5),
        (&[100, 10, 100, 50], 1),
        (&[100, 50, 200], 0),
        (&[300, 300, 300, 1, 2, 3], 3),
        (&[100; 40], 37),
    ];
    for policy in WITHOUT_KEYS {
        for how in [Away::Absent, Away::Full, Away::Ramping] {
            for (weights, away) in fleets {
                let (shares, off) = shares_of(policy, weights, away, how);
                assert!(off < 0.012, "{policy:?} {how:?} {away} of {weights:?} away: {shares:?}");
            }
        }
    }
}

#[test]
fn half_of_a_weight_is_half_of_the_weight_whatever_the_policy() {
    const NORMAL: u16 = FULL_SHARE;
    let fleets: [&[(u32, u16)]; 6] = [
        &[(100, NORMAL / 2), (100, NORMAL)],
        &[(100, NORMAL / 10), (100, NORMAL / 2), (100, NORMAL)],
        &[(200, NORMAL / 2), (100, NORMAL), (100, NORMAL / 4), (50, NORMAL)],
        &[(100, NORMAL / 2); 5],
        &[(100, NORMAL / 100), (100, NORMAL), (100, NORMAL), (100, NORMAL), (100, NORMAL), (100, NORMAL)],
        &[(1600, NORMAL / 16), (100, NORMAL), (100, NORMAL / 2)],
    ];
    for policy in ALL.into_iter().filter(|policy| *policy != PolicyParams::First) {
        for members in fleets {
            let ids: Vec<String> = (0..members.len()).map(|index| format!("b{index}")).collect();
            let list: Vec<(&str, u32, u32, u8)> =
                ids.iter().zip(members).map(|(id, &(weight, _))| (id.as_str(), weight, u32::MAX, 0)).collect();
            let policy = match policy {
                PolicyParams::Ring(params) => PolicyParams::Ring(RingParams { points: 1024, ..params }),
                PolicyParams::Maglev(params) => PolicyParams::Maglev(MaglevParams { table_size: 65_537, ..params }),
                other => other,
            };
            let fleet = fleet(policy, None, &list);
            fleet.loads.iter().zip(members).for_each(|(load, &(_, share))| load.set_active_fraction(share));
            fleet.group.refresh();
            let sum: f64 = members.iter().map(|&(weight, share)| f64::from(weight) * f64::from(share)).sum();
            for (count, &(weight, share)) in fleet.counts(40_000).into_iter().zip(members) {
                let due = 40_000.0 * f64::from(weight) * f64::from(share) / sum;
                let off = (f64::from(count) - due).abs();
                assert!(off < 0.1 * due + 5.0 * due.sqrt(), "{policy:?} {members:?}: {count} of {due:.0}");
            }
        }
    }
}

#[test]
fn least_request_takes_the_least_and_first_fills_up() {
    let least = equal(PolicyParams::LeastRequest, 5);
    for number in 0..50 {
        least.place(number).unwrap();
    }
    assert!(least.loads.iter().all(|load| load.in_flight() == 10));
    let first = fleet(PolicyParams::First, None, &[("a", 100, 3, 0), ("b", 100, 3, 0), ("c", 100, 3, 0)]);
    let slots: Vec<u16> = (0..9).map(|number| first.place(number).unwrap().0).collect();
    assert_eq!(slots, [0, 0, 0, 1, 1, 1, 2, 2, 2]);
}

#[test]
fn two_choices_keep_loads_close() {
    let spread = |policy| {
        let fleet = equal(policy, 50);
        for number in 0..5_000 {
            fleet.place(number).unwrap();
        }
        fleet.loads.iter().map(|load| load.in_flight()).max().unwrap()
    };
    assert!(spread(PolicyParams::PowerOfTwo) <= 106);
    assert!(spread(PolicyParams::Random) >= 115);
}

#[test]
fn peak_ewma_avoids_the_slow_one_and_comes_back() {
    let fleet = equal(ALL[7], 2);
    for load in &fleet.loads {
        load.observe(1_000.0, 1_000, 10_000);
    }
    fleet.loads[0].observe(500_000.0, 1_000, 10_000);
    let counts = fleet.counts(1_000);
    assert_eq!(counts[0], 0, "{counts:?}");
    // A minute later the peak is forgotten: e^-6 of it is left, as much as the other has.
    let mut selection = (0..200)
        .map(|number| fleet.group.begin(PickContext { now_millis: 121_000, ..ask(number) }))
        .collect::<Vec<_>>();
    fleet.loads[1].observe(1_000.0, 121_000, 10_000);
    let to_first = selection
        .iter_mut()
        .filter_map(|selection| match fleet.group.next(selection, 0) {
            Pick::Backend(slot) => {
                fleet.group.release(slot, 0);
                Some(slot)
            }
            _ => None,
        })
        .filter(|slot| slot.0 == 0)
        .count();
    assert!(to_first > 50, "{to_first}");
}

#[test]
fn latency_peaks_at_once_and_fades_with_its_constant() {
    let load = Load::new("a");
    assert_eq!(load.latency_micros(5, 1_000), 0.0);
    load.observe(100.0, 0, 1_000);
    load.observe(900.0, 0, 1_000);
    assert_eq!(load.latency_micros(0, 1_000), 900.0);
    load.observe(100.0, 1_000, 1_000);
    let mean = load.latency_micros(1_000, 1_000);
    assert!((390.0..400.0).contains(&mean), "{mean}");
    // The clock wraps, and may go back a little.
    let load = Load::new("b");
    load.observe(900.0, u32::MAX, 1_000);
    assert!(load.latency_micros(u32::MAX - 5, 1_000) == 900.0 && load.latency_micros(999, 1_000) < 400.0);
}

#[test]
fn a_member_that_was_given_is_given_again_only_when_that_is_asked_for() {
    for policy in ALL {
        let fleet = equal(policy, 3);
        for number in 0..50 {
            let mut selection = fleet.group.begin(ask(number));
            let next = |selection: &mut _| match fleet.group.next(selection, 0) {
                Pick::Backend(slot) => {
                    fleet.group.release(slot, 0);
                    Some(slot)
                }
                _ => None,
            };
            let mut given: Vec<Slot> = std::iter::from_fn(|| next(&mut selection)).collect();
            let last = *given.last().unwrap();
            given.sort();
            assert_eq!(given, [Slot(0), Slot(1), Slot(2)], "{policy:?}");
            assert!(!fleet.group.has_another(&selection));
            // The one that was asked last, and nobody else beside it.
            assert!(fleet.group.reserve_again(&mut selection, last, 0));
            fleet.group.release(last, 0);
            assert_eq!(next(&mut selection), None, "{policy:?}");
            // All of them, each once.
            fleet.group.forgive(&mut selection);
            assert!(fleet.group.has_another(&selection));
            let mut again: Vec<Slot> = std::iter::from_fn(|| next(&mut selection)).collect();
            again.sort();
            assert_eq!(again, given, "{policy:?}");
            // Who takes nothing is not asked again, told or not.
            fleet.loads[usize::from(last.0)].set_active_fraction(0);
            assert!(!fleet.group.reserve_again(&mut selection, last, 0));
            fleet.loads[usize::from(last.0)].set_active_fraction(FULL_SHARE);
        }
        assert!(fleet.loads.iter().all(|load| load.in_flight() == 0));
    }
}

#[test]
fn a_member_that_refuses_at_once_gets_no_more_than_the_probes_that_it_costs() {
    for wish_millis in [0, 2_000] {
        let fleet = equal(ALL[7], 4);
        let (decay, mut to_refuser) = (10_000, Vec::new());
        // Two minutes of a request each 10 ms, one at a time: a refusal takes 100 us, an answer 10 ms.
        for number in 0..12_000_u64 {
            let now = number as u32 * 10;
            let mut selection = fleet.group.begin(PickContext { now_millis: now, ..ask(number) });
            let Pick::Backend(slot) = fleet.group.next(&mut selection, 0) else { panic!() };
            let load = &fleet.loads[usize::from(slot.0)];
            if slot.0 == 0 {
                load.observe(100.0, now, decay);
                load.penalize(5e6, wish_millis, now, decay);
                to_refuser.push(now);
            } else {
                load.observe(10_000.0, now, decay);
            }
            fleet.group.release(slot, 0);
        }
        assert!((1..=4).contains(&to_refuser.len()), "{to_refuser:?}");
        assert!(to_refuser.windows(2).all(|pair| pair[1] - pair[0] > wish_millis + decay), "{to_refuser:?}");
    }
}

#[test]
fn a_penalty_is_a_floor_that_is_held_as_long_as_asked_for_and_fades_then() {
    let load = Load::new("a");
    // A quick failure makes nobody faster, a slow one is as slow as it was.
    load.observe(10_000.0, 0, 1_000);
    load.observe(50.0, 0, 1_000);
    assert_eq!(load.latency_micros(0, 1_000), 10_000.0);
    load.penalize(5_000.0, 0, 0, 1_000);
    assert_eq!(load.latency_micros(0, 1_000), 10_000.0);
    load.penalize(1e6, 2_000, 0, 1_000);
    for now in [0, 1, 1_999, 2_000] {
        assert_eq!(load.latency_micros(now, 1_000), 1e6, "{now}");
        // What is answered meanwhile changes nothing, but for what is slower still.
        load.observe(10.0, now, 1_000);
    }
    load.penalize(1e6, 0, 2_000, 1_000);
    assert_eq!(load.latency_micros(2_000, 1_000), 1e6);
    let faded = load.latency_micros(3_000, 1_000);
    assert!((360_000.0..370_000.0).contains(&faded), "{faded}");
    // A shorter wish does not end a longer one.
    load.penalize(1e6, 10_000, 3_000, 1_000);
    load.penalize(1e6, 1_000, 4_000, 1_000);
    load.observe(20.0, 5_000, 1_000);
    assert_eq!(load.latency_micros(13_000, 1_000), 1e6);
    assert!(load.latency_micros(14_000, 1_000) < 400_000.0);
    // The clock wraps; a hold that was told an age ago holds nothing.
    let load = Load::new("b");
    load.penalize(1e6, 5_000, u32::MAX - 1_000, 1_000);
    assert_eq!(load.latency_micros(3_000, 1_000), 1e6);
    assert!(load.latency_micros(5_999, 1_000) < 200_000.0);
    assert!(load.latency_micros(u32::MAX / 2 + 10_000_000, 1_000) < 1.0);
    load.observe(10.0, u32::MAX / 2 + 10_000_000, 1_000);
    assert_eq!(load.latency_micros(u32::MAX / 2 + 10_000_000, 1_000), 10.0);
    // Nobody is left alone for ever.
    load.penalize(1e6, u32::MAX, 0, 1_000);
    assert!(load.latency_micros(ringway_ring::HOLD_MILLIS_MAX + 10_000, 1_000) < 100.0);
}

#[test]
fn lower_levels_take_all_until_their_share_shrinks() {
    for policy in ALL {
        let members =
            [("a", 100, u32::MAX, 0), ("b", 100, u32::MAX, 0), ("x", 100, u32::MAX, 2), ("y", 100, u32::MAX, 2)];
        let fleet = fleet(policy, None, &members);
        let counts = fleet.counts(4_000);
        assert_eq!(counts[2] + counts[3], 0, "{policy:?}");
        // 40 % of the keys move to the second level, and only they.
        let before: Vec<Slot> = (0..4_000).map(|number| fleet.touch(number).unwrap()).collect();
        fleet.group.set_level_shares(&[(0, 0.6), (2, 0.4)]);
        let after: Vec<Slot> = (0..4_000).map(|number| fleet.touch(number).unwrap()).collect();
        let moved = after.iter().filter(|slot| slot.0 >= 2).count();
        assert!((1_400..1_800).contains(&moved), "{policy:?}: {moved}");
        if policy.hashes() {
            assert!(before.iter().zip(&after).all(|(before, after)| after.0 >= 2 || before == after));
            assert_eq!(after, (0..4_000).map(|number| fleet.touch(number).unwrap()).collect::<Vec<_>>());
        }
        // The first level dies: everything goes on, whatever the shares say.
        fleet.loads[0].set_active_fraction(0);
        fleet.loads[1].set_active_fraction(0);
        fleet.group.refresh();
        let counts = fleet.counts(1_000);
        assert_eq!(counts[0] + counts[1], 0, "{policy:?}");
    }
}

#[test]
fn full_level_overflows_into_the_next() {
    for policy in ALL {
        let fleet =
            fleet(policy, Some(BoundParams::default()), &[("a", 100, 2, 0), ("b", 100, 2, 0), ("x", 100, 50, 1)]);
        let slots: Vec<u16> = (0..10).map(|number| fleet.place(number).unwrap().0).collect();
        assert_eq!(slots.iter().filter(|&&slot| slot == 2).count(), 6, "{policy:?}: {slots:?}");
    }
}

#[test]
fn bound_counts_its_own_level_and_not_ineligible_in_flight() {
    let bound = BoundParams { slack: 0.0, ..BoundParams::default() };
    let members = [("a", 100, u32::MAX, 0), ("b", 100, u32::MAX, 0), ("c", 100, u32::MAX, 0), ("x", 100, u32::MAX, 1)];
    let fleet = fleet(KEYED[0], Some(bound), &members);
    let mut held: Vec<Slot> = (0..29).map(|number| fleet.place(number).unwrap()).collect();
    assert_eq!([0, 1, 2, 3].map(|slot| fleet.group.cap(Slot(slot))), [13, 13, 13, 2]);
    // One dies with its requests hanging: they are no part of what the others share.
    fleet.loads[2].set_active_fraction(0);
    fleet.group.refresh();
    let ineligible = held.iter().filter(|slot| slot.0 == 2).count() as u32;
    let expected = ((30 - ineligible) as f64 * 1.25 / 2.0).ceil() as u32;
    assert_eq!(fleet.group.cap(Slot(0)), expected);
    // They end one by one: the bound does not move.
    held.retain(|slot| {
        let stays = slot.0 != 2;
        if !stays {
            fleet.group.release(*slot, 0);
        }
        stays
    });
    assert_eq!(fleet.group.cap(Slot(0)), expected);
}

#[test]
fn hot_key_is_spread_over_the_first_of_its_walk_and_no_others() {
    for policy in KEYED {
        let fleet = equal(policy, 20);
        let walk = fleet.group.sequence(ask(3).hash);
        let mut held = Vec::new();
        for turn in 0..400 {
            let mut selection = fleet.group.begin(PickContext { owners: 4, chance: ask(turn).chance, ..ask(3) });
            let Pick::Backend(slot) = fleet.group.next(&mut selection, 0) else { panic!("somebody takes it") };
            assert_eq!(selection.owner(), Some(walk[0]));
            held.push(slot);
        }
        for owner in &walk[..4] {
            let count = held.iter().filter(|slot| *slot == owner).count();
            assert!((90..=110).contains(&count), "{policy:?}: {count}");
        }
        // A retry goes on along the walk, never back.
        let mut selection = fleet.group.begin(PickContext { owners: 4, ..ask(3) });
        let mut given = Vec::new();
        while let Pick::Backend(slot) = fleet.group.next(&mut selection, 0) {
            assert!(!given.contains(&slot));
            given.push(slot);
        }
        assert_eq!(given.len(), 20);
    }
}

#[test]
fn reserving_by_name_obeys_health_and_the_hard_limit() {
    let fleet = fleet(KEYED[0], Some(BoundParams::default()), &[("a", 100, 1, 0), ("b", 100, u32::MAX, 0)]);
    let mut selection = fleet.group.begin(ask(1));
    assert!(fleet.group.reserve(&mut selection, Slot(0), false, 0));
    assert_eq!(selection.owner(), Some(Slot(0)));
    let mut other = fleet.group.begin(ask(2));
    assert!(!fleet.group.reserve(&mut other, Slot(0), false, 0), "it is full");
    fleet.group.release(Slot(0), 0);
    fleet.loads[0].set_active_fraction(0);
    fleet.group.refresh();
    assert!(!fleet.group.reserve(&mut other, Slot(0), false, 0), "it is down");
    // Whoever is bound to it may stay, within its limit all the same, and widens nobody's bound.
    let cap = fleet.group.cap(Slot(1));
    assert!(fleet.group.reserve(&mut other, Slot(0), true, 0));
    assert_eq!(fleet.group.cap(Slot(1)), cap);
    assert!(!fleet.group.reserve(&mut fleet.group.begin(ask(3)), Slot(0), true, 0), "it is full");
    fleet.group.release(Slot(0), 0);
    assert_eq!(fleet.group.next(&mut other, 0), Pick::Backend(Slot(1)));
}

#[test]
fn key_of_one_that_takes_nothing_new_is_found_where_it_was_also_in_a_tier_that_takes_nothing() {
    for policy in KEYED {
        let fleet = fleet(
            policy,
            None,
            &[("a", 100, u32::MAX, 0), ("b", 100, u32::MAX, 0), ("c", 100, u32::MAX, 1), ("d", 100, u32::MAX, 1)],
        );
        fleet.group.set_level_shares(&[(0, 1.0), (1, 0.0)]);
        fleet.group.refresh();
        let before: Vec<_> = (0..200).map(|key| fleet.group.owner(ask(key).hash).unwrap()).collect();
        let kept = |key: u64, keeping: &[u16]| fleet.group.kept_owner(ask(key).hash, |slot| keeping.contains(&slot.0));
        for (key, owner) in (0..200).zip(&before) {
            assert_eq!(kept(key, &[0]), (owner.0 == 0).then_some(Slot(0)));
            assert_eq!(kept(key, &[2, 3]), None, "the backups' old clients are none of theirs now");
        }
        // All of the first tier drained: their keys' home is the next, and their clients stay.
        fleet.loads[0].set_active_fraction(0);
        fleet.loads[1].set_active_fraction(0);
        fleet.group.set_level_shares(&[(0, 0.0), (1, 1.0)]);
        fleet.group.refresh();
        for (key, owner) in (0..200).zip(&before) {
            assert_eq!(kept(key, &[0, 1]), Some(*owner), "{policy:?}");
            assert_eq!(kept(key, &[1]), (owner.0 == 1).then_some(Slot(1)));
            assert_eq!(kept(key, &[]), None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_set_that_follows_another_places_as_one_built_anew(
        steps in prop::collection::vec(
            prop::collection::btree_map(0..9_usize, (prop::sample::select(vec![0, 50, 100, 300_u32]), 0..2_u8), 1..9),
            1..6,
        ),
    ) {
        for policy in ALL {
            let total = Arc::new(Total::new(1));
            let mut before: Option<BackendSet> = None;
            for step in &steps {
                let ids: Vec<String> = step.keys().map(|index| format!("b{index}")).collect();
                let members = || ids.iter().zip(step.values()).map(|(id, &(weight, level))| MemberSpec {
                    id,
                    weight,
                    requests_max: u32::MAX,
                    level,
                    load: Arc::new(Load::new(id)),
                });
                let changed =
                    BackendSet::build_after(before.as_ref(), policy, None, members(), Arc::clone(&total)).unwrap();
                let anew = BackendSet::build(policy, None, members(), Arc::new(Total::new(1))).unwrap();
                prop_assert_eq!(changed.digest(), anew.digest());
                prop_assert_eq!(changed.shares(), anew.shares());
                for hash in (0..50).map(|number| ask(number).hash) {
                    prop_assert_eq!(changed.owner(hash), anew.owner(hash));
                    prop_assert_eq!(changed.sequence(hash), anew.sequence(hash));
                }
                before = Some(changed);
            }
        }
    }
}

fn movement_of(old: &Fleet, new: &Fleet) -> ringway_ring::Movement {
    let ids = |fleet: &Fleet| -> Vec<String> { fleet.ids.clone() };
    let (old_ids, new_ids) = (ids(old), ids(new));
    let old_ids: Vec<&str> = old_ids.iter().map(String::as_str).collect();
    let new_ids: Vec<&str> = new_ids.iter().map(String::as_str).collect();
    set_movement(&old.group, &old_ids, &new.group, &new_ids, SAMPLE_BUDGET)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn movement_of_every_keyed_policy_is_what_counting_finds(
        kinds in (0..3_usize, 0..3_usize),
        sizes in (1..9_usize, 1..9_usize),
        seeds in (0..2_u64, 0..2_u64),
    ) {
        let policy = |kind: usize, seed: u64| match kind {
            0 => PolicyParams::Ring(RingParams { points: 64, seed }),
            1 => PolicyParams::Maglev(MaglevParams { table_size: 1021, seed }),
            _ => PolicyParams::Rendezvous(RendezvousParams { seed }),
        };
        let (old, new) = (equal(policy(kinds.0, seeds.0), sizes.0), equal(policy(kinds.1, seeds.1), sizes.1));
        let movement = movement_of(&old, &new);
        let samples = 20_000;
        let moved = (0..samples).filter(|number: &u64| {
            let key = number.to_le_bytes();
            let from = old.group.owner(hash_key(&key, seeds.0)).unwrap();
            let to = new.group.owner(hash_key(&key, seeds.1)).unwrap();
            old.ids[usize::from(from.0)] != new.ids[usize::from(to.0)]
        }).count();
        prop_assert!((movement.moved - moved as f64 / samples as f64).abs() < 0.02, "{} {}", movement.moved, moved);
    }

    #[test]
    fn rendezvous_and_ring_move_only_what_they_must(count in 2..20_usize, gone in any::<prop::sample::Index>()) {
        for policy in [KEYED[0], KEYED[2]] {
            let before = equal(policy, count);
            let gone = gone.index(count);
            let left: Vec<(&str, u32, u32, u8)> = before.ids.iter().enumerate()
                .filter(|(index, _)| *index != gone).map(|(_, id)| (id.as_str(), 100, u32::MAX, 0)).collect();
            let after = fleet(policy, None, &left);
            for number in 0..500 {
                let hash = ask(number).hash;
                let skipped: Vec<&str> = before.group.sequence(hash).into_iter()
                    .map(|slot| before.ids[usize::from(slot.0)].as_str()).filter(|id| *id != before.ids[gone]).collect();
                let rebuilt: Vec<&str> =
                    after.group.sequence(hash).into_iter().map(|slot| after.ids[usize::from(slot.0)].as_str()).collect();
                prop_assert_eq!(skipped, rebuilt);
            }
        }
    }
}

#[test]
fn exact_movement_equals_a_million_keys() {
    for kind in 0..2 {
        let policy = [PolicyParams::Ring(RingParams::default()), PolicyParams::Maglev(MaglevParams::default())][kind];
        let (old, new) = (equal(policy, 10), equal(policy, 11));
        let movement = movement_of(&old, &new);
        assert_eq!(movement.method, Method::Exact);
        let mut counted = std::collections::BTreeMap::new();
        for number in 0..1_000_000_u64 {
            let hash = hash_key(&number.to_le_bytes(), 0);
            let (from, to) = (old.group.owner(hash).unwrap(), new.group.owner(hash).unwrap());
            *counted.entry((from.0, to.0)).or_insert(0.0) += 1e-6;
        }
        let moved: f64 = counted.iter().filter(|((from, to), _)| from != to).map(|(_, share)| share).sum();
        assert!((moved - movement.moved).abs() < 0.002, "{moved} {}", movement.moved);
        for flow in &movement.moves {
            let slot = |ids: &[String], id: &str| ids.iter().position(|known| known == id).unwrap() as u16;
            let found = counted.get(&(slot(&old.ids, &flow.from), slot(&new.ids, &flow.to))).unwrap_or(&0.0);
            // Four standard deviations of a count of a million.
            assert!((found - flow.share).abs() < 4.0 * (flow.share / 1e6).sqrt() + 1e-5, "{flow:?} {found}");
        }
    }
}

#[test]
fn digest_tells_policies_memberships_and_levels_apart() {
    let mut digests: Vec<Option<u64>> = KEYED.iter().map(|policy| equal(*policy, 4).group.digest()).collect();
    digests.push(equal(KEYED[0], 5).group.digest());
    let tiers = [
        ("b000", 100, u32::MAX, 0),
        ("b001", 100, u32::MAX, 0),
        ("b002", 100, u32::MAX, 0),
        ("b003", 100, u32::MAX, 1),
    ];
    digests.push(fleet(KEYED[0], None, &tiers).group.digest());
    assert!(digests.iter().all(Option::is_some));
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 5);
    assert_eq!(equal(PolicyParams::Random, 4).group.digest(), None);
}

/// All are owners of a key that is as hot as can be: but who has no weight takes nothing, and neither does another tier's.
#[test]
fn a_key_of_which_all_are_owners_goes_to_nobody_without_weight_and_to_no_other_level() {
    for policy in KEYED {
        of_two_with_weight(policy);
    }
}

fn of_two_with_weight(policy: PolicyParams) {
    let most = u32::MAX;
    let fleet =
        fleet(policy, None, &[("a", 100, most, 0), ("b", 100, most, 0), ("c", 0, most, 0), ("d", 100, most, 1)]);
    let set = &fleet.group;
    set.set_level_shares(&[(0, 1.0), (1, 0.0)]);
    assert_eq!(set.members_of_a_key(), 2);
    let mut taken = [0; 4];
    for number in 0..2_000_u64 {
        let mut selection = set.begin(PickContext { owners: 4, chance: ask(number).chance, ..ask(3) });
        let Pick::Backend(slot) = set.next(&mut selection, 0) else { panic!("there is room") };
        taken[usize::from(slot.0)] += 1;
        set.release(slot, 0);
    }
    assert_eq!(taken[2..], [0, 0], "{taken:?}");
    assert!(taken[0] > 0 && taken[1] > 0, "{taken:?}");
    set.set_level_shares(&[(0, 0.0), (1, 1.0)]);
    assert_eq!(set.members_of_a_key(), 1);
}
