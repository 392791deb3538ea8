//! Shares where two rules meet: turns and second tries, panic and turns, groups that follow one another, ramps and overflow.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on fails, and one measures")]

use ringway_ring::{
    AllFull, BackendSet, BoundParams, FULL_SHARE, Load, MaglevParams, MemberSpec, PeakEwmaParams, Pick, PickContext,
    PolicyParams, RendezvousParams, RingParams, Slot, Total, hash_key,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PEAK_EWMA: PolicyParams = PolicyParams::PeakEwma(PeakEwmaParams { decay_millis: 10_000 });
const WITHOUT_KEYS: [PolicyParams; 5] =
    [PolicyParams::RoundRobin, PolicyParams::Random, PolicyParams::PowerOfTwo, PolicyParams::LeastRequest, PEAK_EWMA];

struct Fleet {
    group: BackendSet,
    loads: Vec<Arc<Load>>,
}

fn loads(count: usize) -> Vec<Arc<Load>> {
    (0..count).map(|index| Arc::new(Load::new(&format!("b{index:05}")))).collect()
}

fn group(
    policy: PolicyParams,
    members: impl Iterator<Item = (u32, u32)>,
    loads: &[Arc<Load>],
    total: &Arc<Total>,
) -> BackendSet {
    let ids: Vec<String> = (0..loads.len()).map(|index| format!("b{index:05}")).collect();
    let list = ids.iter().zip(members).zip(loads).map(|((id, (weight, requests_max)), load)| MemberSpec {
        id,
        weight,
        requests_max,
        level: 0,
        load: Arc::clone(load),
    });
    let group = BackendSet::build(policy, None, list, Arc::clone(total)).unwrap();
    group.install();
    group
}

fn fleet(policy: PolicyParams, weights: &[u32], requests_max: u32) -> Fleet {
    let loads = loads(weights.len());
    let members = weights.iter().map(|&weight| (weight, requests_max));
    Fleet { group: group(policy, members, &loads, &Arc::new(Total::new(1))), loads }
}

fn ask(number: u64) -> PickContext {
    let hash = |seed| hash_key(&number.to_le_bytes(), seed);
    PickContext { hash: hash(1), chance: hash(2), now_millis: 1_000, owners: 0 }
}

fn place(group: &BackendSet, number: u64) -> Option<Slot> {
    let mut selection = group.begin(ask(number));
    match group.next(&mut selection, 0) {
        Pick::Backend(slot) => Some(slot),
        Pick::AllFull | Pick::None => None,
    }
}

fn touch(group: &BackendSet, number: u64) -> usize {
    let slot = place(group, number).unwrap();
    group.release(slot, 0);
    usize::from(slot.0)
}

/// Each request in panic used to take as many turns as it looks at, and one more: seventeen, always the same member of seventeen.
#[test]
fn in_panic_every_member_has_its_turn_however_many_they_are() {
    for policy in WITHOUT_KEYS {
        for count in [2, 16, 17, 34] {
            let fleet = fleet(policy, &vec![100; count], u32::MAX);
            fleet.loads.iter().for_each(|load| load.set_doubted(true));
            fleet.loads.iter().for_each(|load| load.observe(1_000.0, 1_000, 10_000));
            fleet.group.refresh();
            let mut counts = vec![0_u32; count];
            (0..count as u64 * 100).for_each(|number| counts[touch(&fleet.group, number)] += 1);
            assert!(counts.iter().all(|count| (50..=150).contains(count)), "{policy:?} {count}: {counts:?}");
            // One comes up, and has all.
            fleet.loads[1].set_doubted(false);
            fleet.group.refresh();
            assert!((0..100).all(|number| touch(&fleet.group, number) == 1), "{policy:?} {count}");
        }
    }
}

/// A second try that takes a turn keeps step: of two, one that always fails would be the first to be asked every time.
#[test]
fn a_member_that_fails_every_time_is_tried_first_no_more_often_than_others() {
    for policy in [PolicyParams::RoundRobin, PolicyParams::Random, PolicyParams::PowerOfTwo, PolicyParams::LeastRequest]
    {
        for count in [2, 3, 5] {
            let fleet = fleet(policy, &vec![100; count], u32::MAX);
            let (mut first, mut served) = (vec![0_u32; count], vec![0_u32; count]);
            for number in 0..count as u64 * 600 {
                let mut selection = fleet.group.begin(ask(number));
                let mut tries = 0;
                while let Pick::Backend(slot) = fleet.group.next(&mut selection, 0) {
                    fleet.group.release(slot, 0);
                    first[usize::from(slot.0)] += u32::from(tries == 0);
                    tries += 1;
                    if slot.0 != 0 {
                        served[usize::from(slot.0)] += 1;
                        break;
                    }
                }
            }
            assert!(first.iter().all(|first| (500..=700).contains(first)), "{policy:?}: {first:?}");
            let due = 600 * count as u32 / (count as u32 - 1);
            assert!(served[1..].iter().all(|served| served.abs_diff(due) < due / 6), "{policy:?}: {served:?}");
        }
    }
}

/// A group of its own for every three requests, as with a configuration that changes all the time.
#[test]
fn turns_go_on_over_groups_that_follow_one_another() {
    let (loads, total) = (loads(5), Arc::new(Total::new(1)));
    let mut counts = [0_u32; 5];
    for generation in 0..100 {
        let group = group(PolicyParams::RoundRobin, [(100, u32::MAX); 5].into_iter(), &loads, &total);
        (0..3).for_each(|number| counts[touch(&group, generation * 3 + number)] += 1);
    }
    assert_eq!(counts, [60; 5]);
}

/// Overflow beyond the bound goes by effective weights: who has just come takes no more of it than of anything else.
#[test]
fn the_least_loaded_is_so_for_its_effective_weight() {
    let ids: Vec<String> = (0..3).map(|index| format!("b{index}")).collect();
    let loads = loads(3);
    let list = ids.iter().zip(&loads).map(|(id, load)| MemberSpec {
        id,
        weight: 100,
        // The first soon has no room, and what it leaves is beyond the others' bounds.
        requests_max: if id == "b0" { 1 } else { u32::MAX },
        level: 0,
        load: Arc::clone(load),
    });
    let bound = BoundParams { factor: 1.0, slack: 0.0, min_slots: 1 };
    let policy = PolicyParams::Ring(RingParams { points: 64, seed: 0 });
    let group = BackendSet::build(policy, Some(bound), list, Arc::new(Total::new(1))).unwrap();
    let group = group.with_all_full(AllFull::LeastLoaded);
    group.install();
    loads[2].set_active_fraction(FULL_SHARE / 10);
    group.refresh();
    for number in 0..111 {
        assert!(place(&group, number).is_some());
    }
    let carried: Vec<u32> = loads.iter().map(|load| load.in_flight()).collect();
    assert!(carried[0] == 1 && (8..=12).contains(&carried[2]), "{carried:?}");
}

/// It is found out by looking at each once, not at all once for each.
#[test]
fn that_all_are_full_is_found_out_in_time_proportional_to_how_many_they_are() {
    for policy in WITHOUT_KEYS {
        let shortest = |count: usize| -> Duration {
            let fleet = fleet(policy, &vec![100; count], 1);
            for slot in 0..count as u16 {
                let mut selection = fleet.group.begin(ask(0));
                assert!(fleet.group.reserve(&mut selection, Slot(slot), false, 0));
            }
            let rounds = (0..10).map(|number| {
                let begin = Instant::now();
                let mut selection = fleet.group.begin(ask(number));
                assert_eq!(fleet.group.next(&mut selection, 0), Pick::AllFull);
                assert_eq!(selection.spills(), count as u32);
                begin.elapsed()
            });
            rounds.min().unwrap()
        };
        let (few, many) = (shortest(500), shortest(8_000));
        // Sixteen times as many: not 256 times as long.
        assert!(many < few * 80, "{policy:?}: {few:?}, {many:?}");
    }
}

#[test]
fn latencies_are_compared_alike_whatever_the_scale_of_the_weights() {
    let picks = |weight: u32| -> Vec<usize> {
        let fleet = fleet(PEAK_EWMA, &[weight; 4], u32::MAX);
        for (load, latency) in fleet.loads.iter().zip([1_000.0, 3_000.0, 10_000.0, 50_000.0]) {
            load.observe(latency, 1_000, 10_000);
        }
        // Nobody finishes: loads grow until the slow ones are worth it.
        (0..200).map(|number| usize::from(place(&fleet.group, number).unwrap().0)).collect()
    };
    let usual = picks(100);
    assert_eq!(usual, picks(1));
    assert_eq!(usual, picks(1600));
    let of = |slot: usize| usual.iter().filter(|pick| **pick == slot).count();
    assert!(of(0) > of(1) && of(1) > of(2) && of(2) > of(3), "{usual:?}");
}

/// Nobody knows how fast a newcomer is: it gets one request to find out, and no herd.
#[test]
fn a_member_that_was_never_measured_has_one_request_at_a_time_until_it_is() {
    let fleet = fleet(PEAK_EWMA, &[100; 10], u32::MAX);
    fleet.loads[1..].iter().for_each(|load| load.observe(20_000.0, 1_000, 10_000));
    for number in 0..90 {
        place(&fleet.group, number).unwrap();
    }
    assert_eq!(fleet.loads[0].in_flight(), 1);
    fleet.loads[0].observe(20_000.0, 1_000, 10_000);
    for number in 100..200 {
        place(&fleet.group, number).unwrap();
    }
    assert!((14..=24).contains(&fleet.loads[0].in_flight()), "{}", fleet.loads[0].in_flight());
}

/// Who was slow once is asked again when that is long enough ago, and then for good.
#[test]
fn a_peak_keeps_nobody_away_for_ever() {
    let fleet = fleet(PEAK_EWMA, &[100; 5], u32::MAX);
    fleet.loads.iter().for_each(|load| load.observe(1_000.0, 0, 10_000));
    fleet.loads[0].observe(30_000_000.0, 0, 10_000);
    let mut asked_at = None;
    for second in 0..300_u32 {
        for number in 0..50 {
            let now = second * 1_000 + number * 20;
            let mut selection = fleet.group.begin(PickContext { now_millis: now, ..ask(u64::from(now)) });
            let Pick::Backend(slot) = fleet.group.next(&mut selection, 0) else { panic!("somebody is there") };
            fleet.group.release(slot, 0);
            fleet.loads[usize::from(slot.0)].observe(1_000.0, now, 10_000);
            if slot.0 == 0 {
                asked_at = asked_at.or(Some(second));
            }
        }
    }
    // Ten constants and a half make 30 s as short as 1 ms.
    assert!(asked_at.is_some_and(|second| (60..=140).contains(&second)), "{asked_at:?}");
}

/// A step of a slow start moves keys to its member, and no others.
#[test]
fn a_ramp_moves_keys_to_its_member_alone_and_those_of_others_stay() {
    let policy = PolicyParams::Ring(RingParams { points: 256, seed: 0 });
    let fleet = fleet(policy, &[100; 6], u32::MAX);
    let owners = |share: u16| -> Vec<usize> {
        fleet.loads[2].set_active_fraction(share);
        fleet.group.refresh();
        (0..2_000).map(|number| touch(&fleet.group, number)).collect()
    };
    let mut before = owners(0);
    for percent in [1, 5, 20, 50, 80, 100_u32] {
        let after = owners((u32::from(FULL_SHARE) * percent / 100) as u16);
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *after == 2), "{percent}");
        let has = after.iter().filter(|owner| **owner == 2).count() as f64;
        let due = 2_000.0 * f64::from(percent) / f64::from(500 + percent);
        assert!((has - due).abs() < 0.2 * due + 5.0 * due.sqrt(), "{percent}: {has} of {due}");
        before = after;
    }
}

/// In panic, who has just come up and ramps is asked before anybody who is believed to be down, by key as well.
#[test]
fn a_ramping_member_is_asked_before_one_that_is_down() {
    let keyed = [
        PolicyParams::Ring(RingParams { points: 64, seed: 0 }),
        PolicyParams::Rendezvous(RendezvousParams { seed: 0 }),
        PolicyParams::Maglev(MaglevParams { table_size: 1021, seed: 0 }),
        PolicyParams::First,
    ];
    for policy in keyed.into_iter().chain(WITHOUT_KEYS) {
        let fleet = fleet(policy, &[100; 5], u32::MAX);
        for (index, load) in fleet.loads.iter().enumerate() {
            load.set_doubted(index < 3);
        }
        fleet.loads[4].set_active_fraction(FULL_SHARE / 10);
        fleet.group.refresh();
        for number in 0..200 {
            let mut selection = fleet.group.begin(ask(number));
            let mut given = Vec::new();
            while let Pick::Backend(slot) = fleet.group.next(&mut selection, 0) {
                fleet.group.release(slot, 0);
                given.push(slot.0);
            }
            let mut first: Vec<u16> = given[..2].to_vec();
            first.sort_unstable();
            assert_eq!((given.len(), first), (5, vec![3, 4]), "{policy:?}: {given:?}");
        }
    }
}

/// Entries of a Maglev table that lie side by side are not drawn by weight: what one leaves is, all the same.
#[test]
fn what_is_left_of_a_maglev_table_is_had_by_weight() {
    let weights = [50, 100, 10, 100, 1, 1, 1600, 10, 100, 200];
    let fleet = fleet(PolicyParams::Maglev(MaglevParams { table_size: 65_537, seed: 0 }), &weights, u32::MAX);
    // The heaviest is away: nearly all keys go on.
    fleet.loads[6].set_active_fraction(0);
    fleet.group.refresh();
    let mut counts = [0.0; 10];
    (0..40_000).for_each(|number| counts[touch(&fleet.group, number)] += 1.0);
    let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum::<f64>() - 1600.0;
    for (slot, &weight) in weights.iter().enumerate().filter(|(slot, _)| *slot != 6) {
        let due = 40_000.0 * f64::from(weight) / sum;
        assert!((counts[slot] - due).abs() < 0.06 * due + 5.0 * due.sqrt(), "{slot} is due {due:.0}: {counts:?}");
    }
}

/// Schedules and draws are rewritten under the requests that use them: everybody finds somebody, and nobody who takes nothing.
#[test]
fn requests_go_on_while_members_come_and_go() {
    for policy in WITHOUT_KEYS {
        let fleet = fleet(policy, &[100, 100, 100, 100, 300], u32::MAX);
        fleet.loads[1].set_active_fraction(0);
        fleet.group.refresh();
        fleet.loads.iter().for_each(|load| load.observe(1_000.0, 1_000, 10_000));
        let served = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..3_u64)
                .map(|client| {
                    let group = &fleet.group;
                    scope.spawn(move || {
                        let mut counts = [0_u32; 5];
                        // Totals have one writer a shard, and this one has one shard: nothing here looks at them.
                        (0..10_000).for_each(|number| counts[touch(group, client << 32 | number)] += 1);
                        counts
                    })
                })
                .collect();
            for step in 0..400_u16 {
                fleet.loads[2].set_active_fraction(if step % 2 == 0 { 0 } else { FULL_SHARE });
                fleet.loads[3].set_active_fraction(FULL_SHARE / 400 * (step + 1));
                fleet.group.refresh();
                std::thread::yield_now();
            }
            fleet.loads[2].set_active_fraction(FULL_SHARE);
            fleet.group.refresh();
            clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
        });
        let sum = |slot: usize| served.iter().map(|counts| counts[slot]).sum::<u32>();
        assert_eq!((sum(1), (0..5).map(sum).sum::<u32>()), (0, 30_000), "{policy:?}");
        assert!(sum(4) > sum(0) && sum(0) > 2_000, "{policy:?}: {served:?}");
    }
}
