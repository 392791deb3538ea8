//! Every walk ends, gives each member once, and leaves nobody out who could have taken the request.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use ringway_ring::{
    AllFull, BackendSet, BoundParams, FULL_SHARE, Load, MaglevParams, MemberSpec, PeakEwmaParams, Pick, PickContext,
    PolicyParams, RendezvousParams, RingParams, Slot, Total, hash_key,
};
use std::sync::Arc;

const MAGLEV: PolicyParams = PolicyParams::Maglev(MaglevParams { table_size: 251, seed: 0 });
const ALL: [PolicyParams; 10] = [
    PolicyParams::Ring(RingParams { points: 1, seed: 0 }),
    MAGLEV,
    PolicyParams::Maglev(MaglevParams { table_size: 7, seed: 0 }),
    PolicyParams::Rendezvous(RendezvousParams { seed: 0 }),
    PolicyParams::RoundRobin,
    PolicyParams::Random,
    PolicyParams::PowerOfTwo,
    PolicyParams::LeastRequest,
    PolicyParams::PeakEwma(PeakEwmaParams { decay_millis: 10_000 }),
    PolicyParams::First,
];
const CHOICES: [AllFull; 4] = [AllFull::Owner, AllFull::LeastLoaded, AllFull::Queue, AllFull::Reject];
const STRICT: BoundParams = BoundParams { factor: 1.0, slack: 0.0, min_slots: 1 };

#[derive(Debug, Clone, Copy)]
struct Given {
    weight: u32,
    requests_max: u32,
    level: u8,
    share: u16,
}

const PLAIN: Given = Given { weight: 100, requests_max: u32::MAX, level: 0, share: FULL_SHARE };

fn group(policy: PolicyParams, bound: Option<BoundParams>, all_full: AllFull, members: &[Given]) -> BackendSet {
    let ids: Vec<String> = (0..members.len()).map(|index| format!("b{index:05}")).collect();
    let members = ids.iter().zip(members).map(|(id, given)| {
        let load = Arc::new(Load::new(id));
        load.set_active_fraction(given.share);
        MemberSpec { id, weight: given.weight, requests_max: given.requests_max, level: given.level, load }
    });
    let group = BackendSet::build(policy, bound, members, Arc::new(Total::new(1))).unwrap().with_all_full(all_full);
    group.install();
    group
}

fn ask(number: u64, owners: u16) -> PickContext {
    let hash = |seed| hash_key(&number.to_le_bytes(), seed);
    PickContext { hash: hash(0), chance: hash(1), now_millis: 1, owners }
}

/// All that a request is given, one after the other, as if each failed. `held`: places stay taken.
fn walk(group: &BackendSet, ask: PickContext, held: bool) -> (Vec<Slot>, Pick) {
    let mut selection = group.begin(ask);
    let mut given = Vec::new();
    loop {
        match group.next(&mut selection, 0) {
            Pick::Backend(slot) => {
                if !held {
                    group.release(slot, 0);
                }
                given.push(slot);
                assert!(given.len() <= group.len(), "{given:?}");
            }
            end => return (given, end),
        }
    }
}

fn givens() -> impl Strategy<Value = Vec<Given>> {
    let weight = prop::sample::select(vec![0, 1, 1, 2, 100, 1600]);
    let requests_max = prop::sample::select(vec![1, 2, u32::MAX]);
    let share = prop::sample::select(vec![0, 1, FULL_SHARE / 2, FULL_SHARE, FULL_SHARE]);
    let one = (weight, requests_max, 0..3_u8, share).prop_map(|(weight, requests_max, level, share)| Given {
        weight,
        requests_max,
        level,
        share,
    });
    prop::collection::vec(one, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_walk_ends_and_leaves_nobody_out(members in givens(), seed in any::<u64>(), bounded in any::<bool>()) {
        for policy in ALL {
            for all_full in CHOICES {
                let group = group(policy, bounded.then_some(STRICT), all_full, &members);
                let could: Vec<Slot> = (0..members.len() as u16)
                    .map(Slot)
                    .filter(|slot| members[usize::from(slot.0)].weight > 0 && members[usize::from(slot.0)].share > 0)
                    .collect();
                for number in 0..4 {
                    let (mut given, end) = walk(&group, ask(seed.wrapping_add(number), number as u16), false);
                    given.sort_unstable();
                    prop_assert_eq!(&given, &could, "{:?} {:?}", policy, all_full);
                    prop_assert_eq!(end, Pick::None, "{:?} {:?}", policy, all_full);
                }
                // Nor does one that finds them full, in whatever order.
                let mut most = 0;
                for number in 0..60 {
                    let (given, end) = walk(&group, ask(seed.wrapping_add(number), 0), true);
                    prop_assert!(end != Pick::Backend(Slot(0)) || given.is_empty());
                    most += given.len();
                }
                prop_assert!(most <= members.len() * 60);
            }
        }
    }

    #[test]
    fn a_member_below_its_hard_limit_is_found(members in givens(), seed in any::<u64>(), bounded in any::<bool>()) {
        for policy in ALL {
            for all_full in [AllFull::Owner, AllFull::LeastLoaded] {
                let members: Vec<Given> =
                    members.iter().map(|given| Given { requests_max: given.requests_max.min(2), ..*given }).collect();
                let group = group(policy, bounded.then_some(STRICT), all_full, &members);
                let takes = members.iter().filter(|given| given.weight > 0 && given.share > 0);
                let room: u32 = takes.map(|given| given.requests_max).sum();
                for number in 0..u64::from(room) {
                    let mut selection = group.begin(ask(seed.wrapping_add(number), 0));
                    let pick = group.next(&mut selection, 0);
                    prop_assert!(matches!(pick, Pick::Backend(_)), "{:?} {:?}: {} of {}", policy, all_full, number, room);
                }
                let mut selection = group.begin(ask(seed, 0));
                let end = if room == 0 { Pick::None } else { Pick::AllFull };
                prop_assert_eq!(group.next(&mut selection, 0), end, "{:?} {:?}", policy, all_full);
            }
        }
    }
}

#[test]
fn member_without_an_entry_is_the_last_resort() {
    let [heavy, light] = [1600, 1].map(|weight| Given { weight, ..PLAIN });
    let pair = group(MAGLEV, None, AllFull::Owner, &[heavy, light]);
    assert_eq!(walk(&pair, ask(1, 0), false).0, [Slot(0), Slot(1)]);
    let down = group(MAGLEV, None, AllFull::Owner, &[Given { share: 0, ..heavy }, light]);
    assert_eq!(walk(&down, ask(1, 0), false), (vec![Slot(1)], Pick::None));
    // More members than entries: the keys' last resorts differ.
    let many = group(PolicyParams::Maglev(MaglevParams { table_size: 7, seed: 0 }), None, AllFull::Owner, &[PLAIN; 30]);
    let mut resorts: Vec<Slot> = (0..50).map(|number| walk(&many, ask(number, 0), false).0[7]).collect();
    resorts.sort_unstable();
    resorts.dedup();
    assert!(resorts.len() > 3, "{resorts:?}");
}

#[test]
fn retry_after_the_least_loaded_walks_no_level_by_anothers_walk() {
    for policy in ALL {
        for sizes in [[3, 300], [300, 3]] {
            // Everybody is at his bound of one, nobody at his limit.
            let members: Vec<Given> = sizes
                .iter()
                .enumerate()
                .flat_map(|(level, &size)| vec![Given { level: level as u8, ..PLAIN }; size])
                .collect();
            let group = group(policy, Some(STRICT), AllFull::LeastLoaded, &members);
            (0..members.len()).for_each(|slot| group.resume(Slot(slot as u16), 0));
            for number in 0..20 {
                let (given, end) = walk(&group, ask(number, 0), false);
                assert_eq!((given.len(), end), (members.len(), Pick::None), "{policy:?}");
            }
        }
    }
}

#[test]
fn member_that_was_given_is_not_given_again_as_an_owner_of_a_hot_key() {
    let five = group(ALL[0], Some(STRICT), AllFull::Owner, &[PLAIN; 5]);
    for number in 0..200 {
        // By an affinity cookie, before the key was looked for.
        let mut selection = five.begin(ask(number, 3));
        let named = Slot((number % 5) as u16);
        assert!(five.reserve(&mut selection, named, false, 0));
        five.release(named, 0);
        let mut given = vec![named];
        while let Pick::Backend(slot) = five.next(&mut selection, 0) {
            five.release(slot, 0);
            given.push(slot);
        }
        // By a set that was replaced before the request was tried again.
        let mut selection = five.begin_again(&five.begin(ask(number, 3)), [Slot(0), Slot(1)]);
        let mut rest = vec![Slot(0), Slot(1)];
        while let Pick::Backend(slot) = five.next(&mut selection, 0) {
            five.release(slot, 0);
            rest.push(slot);
        }
        for mut all in [given, rest] {
            all.sort_unstable();
            assert_eq!(all, (0..5).map(Slot).collect::<Vec<_>>(), "key {number}");
        }
    }
}
