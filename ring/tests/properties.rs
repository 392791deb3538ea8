//! The ring's promises, on arbitrary memberships.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use ringway_ring::{Member, Ring, RingParams, Slot, WEIGHT_MAX, hash_key, movement};
use std::collections::BTreeMap;

type Fleet = BTreeMap<String, u32>;

fn fleet(sizes: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Fleet> {
    btree_map("[a-z0-9:.-]{1,12}", 1..400_u32, sizes)
}

fn build(fleet: &Fleet) -> Ring {
    build_with(fleet, RingParams { points: 32, seed: 0 })
}

fn build_with(fleet: &Fleet, params: RingParams) -> Ring {
    let members: Vec<Member<'_>> = fleet.iter().map(|(id, &weight)| Member { id, weight }).collect();
    Ring::build(&members, params).unwrap()
}

fn walk<'a>(ring: &Ring, fleet: &'a Fleet, hash: u64) -> Vec<&'a str> {
    let ids: Vec<&str> = fleet.keys().map(String::as_str).collect();
    let mut candidates = ring.candidates(hash);
    std::iter::from_fn(|| candidates.next(ring)).map(|slot| ids[usize::from(slot.0)]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn order_of_the_list_means_nothing(fleet in fleet(0..12), seed in any::<u64>(), turn in 0..12_usize) {
        let mut members: Vec<Member<'_>> = fleet.iter().map(|(id, &weight)| Member { id, weight }).collect();
        let params = RingParams { points: 16, seed };
        let ring = Ring::build(&members, params).unwrap();
        if !members.is_empty() {
            let middle = turn % members.len();
            members.rotate_left(middle);
            members.reverse();
        }
        prop_assert_eq!(ring, Ring::build(&members, params).unwrap());
    }

    #[test]
    fn sequence_is_distinct_and_complete_and_begins_with_the_owner(fleet in fleet(1..20), hash in any::<u64>()) {
        let ring = build(&fleet);
        let sequence = walk(&ring, &fleet, hash);
        let mut sorted = sequence.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, fleet.keys().map(String::as_str).collect::<Vec<_>>());
        let owner = ring.owner(hash).unwrap();
        prop_assert_eq!(sequence[0], fleet.keys().nth(usize::from(owner.0)).unwrap().as_str());
    }

    #[test]
    fn skipping_a_member_is_the_ring_without_it(fleet in fleet(2..15), gone in any::<prop::sample::Index>(), hashes in vec(any::<u64>(), 20)) {
        let id = fleet.keys().nth(gone.index(fleet.len())).unwrap().clone();
        let mut without = fleet.clone();
        without.remove(&id);
        let (ring, smaller) = (build(&fleet), build(&without));
        for hash in hashes {
            let skipped: Vec<&str> = walk(&ring, &fleet, hash).into_iter().filter(|member| *member != id).collect();
            prop_assert_eq!(skipped, walk(&smaller, &without, hash));
        }
    }

    #[test]
    fn joining_and_growing_only_take_keys(fleet in fleet(1..12), id in "[a-z]{13}", weight in 1..300_u32, more in 0..300_u32, hashes in vec(any::<u64>(), 50)) {
        let mut joined = fleet.clone();
        joined.insert(id.clone(), weight);
        let mut grown = joined.clone();
        grown.insert(id.clone(), weight + more);
        let rings = [(&fleet, build(&fleet)), (&joined, build(&joined)), (&grown, build(&grown))];
        for hash in hashes {
            let owners: Vec<&str> = rings.iter().map(|(fleet, ring)| walk(ring, fleet, hash)[0]).collect();
            prop_assert!(owners[0] == owners[1] || owners[1] == id, "{:?}", owners);
            prop_assert!(owners[1] == owners[2] || owners[2] == id, "{:?}", owners);
        }
    }

    #[test]
    fn movement_is_what_sampling_finds(before in fleet(1..10), after in fleet(1..10)) {
        let (old, new) = (build(&before), build(&after));
        let names = |fleet: &Fleet| fleet.keys().cloned().collect::<Vec<_>>();
        let (old_ids, new_ids) = (names(&before), names(&after));
        let old_ids: Vec<&str> = old_ids.iter().map(String::as_str).collect();
        let new_ids: Vec<&str> = new_ids.iter().map(String::as_str).collect();
        let movement = movement(&old, &old_ids, &new, &new_ids);
        let samples = 20_000_u64;
        let moved = (0..samples)
            .map(|index| hash_key(&index.to_le_bytes(), 0))
            .filter(|&hash| old_ids[usize::from(old.owner(hash).unwrap().0)] != new_ids[usize::from(new.owner(hash).unwrap().0)])
            .count();
        prop_assert!((movement.moved - moved as f64 / samples as f64).abs() < 0.02, "{} {moved}", movement.moved);
        let sum: f64 = movement.moves.iter().map(|flow| flow.share).sum();
        prop_assert!((sum - movement.moved).abs() < 1e-9);
    }

    #[test]
    fn arcs_make_up_the_circle(fleet in fleet(1..20)) {
        prop_assert_eq!(build(&fleet).arcs().into_iter().sum::<u64>(), 1 << 48);
    }
}

#[test]
fn shares_follow_weights() {
    let fleet: Fleet = (0..40).map(|index| (format!("b{index}"), [50, 100, 200, 400][index % 4])).collect();
    let ring = build_with(&fleet, RingParams::default());
    let total: u32 = fleet.values().sum();
    for (slot, weight) in fleet.values().enumerate() {
        let fair = f64::from(*weight) / f64::from(total);
        let points = 256.0 * f64::from(*weight) / 100.0;
        // The standard deviation of a share is 1/sqrt(points) of it.
        let share = ring.share(Slot(slot as u16));
        assert!((share / fair - 1.0).abs() < 4.0 / points.sqrt(), "{slot}: {share} of {fair}");
    }
}

#[test]
fn imbalance_is_that_of_256_points() {
    let fleet: Fleet = (0..100).map(|index| (format!("node-{index}"), 100)).collect();
    let ring = build_with(&fleet, RingParams::default());
    let largest = (0..100).map(|slot| ring.share(Slot(slot))).fold(0.0, f64::max);
    assert!((1.05..1.25).contains(&(largest * 100.0)), "max/avg {}", largest * 100.0);
}

#[test]
fn labels_are_delimited() {
    // Without a delimiter, point 12 of `pod-1` would be point 2 of `pod-11`.
    let two: Fleet = [("pod-1".to_owned(), 100), ("pod-11".to_owned(), 100)].into();
    let ring = build_with(&two, RingParams { points: 256, seed: 0 });
    assert_eq!(ring.points(), 512);
    let one: Fleet = [("pod-11".to_owned(), 100)].into();
    assert_eq!(build_with(&one, RingParams::default()).points(), 256);
    let shares = [ring.share(Slot(0)), ring.share(Slot(1))];
    assert!(shares.iter().all(|share| (0.3..0.7).contains(share)), "{shares:?}");
}

#[test]
fn a_dead_members_keys_go_to_many_heirs() {
    let fleet: Fleet = (0..100).map(|index| (format!("node-{index}"), 100)).collect();
    let mut without = fleet.clone();
    without.remove("node-42");
    let (old, new) = (build_with(&fleet, RingParams::default()), build_with(&without, RingParams::default()));
    let (old_ids, new_ids): (Vec<&str>, Vec<&str>) =
        (fleet.keys().map(String::as_str).collect(), without.keys().map(String::as_str).collect());
    let movement = movement(&old, &old_ids, &new, &new_ids);
    assert!(movement.moves.iter().all(|flow| flow.from == "node-42"));
    assert!(movement.moves.len() > 60, "{} heirs", movement.moves.len());
    assert!(movement.moves[0].share / movement.moved < 0.08, "{:?}", movement.moves[0]);
}

#[test]
fn seed_turns_every_placement() {
    let fleet: Fleet = (0..10).map(|index| (format!("b{index}"), 100)).collect();
    let (a, b) = (
        build_with(&fleet, RingParams { points: 256, seed: 1 }),
        build_with(&fleet, RingParams { points: 256, seed: 2 }),
    );
    let same = (0..1000_u32).filter(|key| {
        let key = key.to_le_bytes();
        a.owner(hash_key(&key, 1)) == b.owner(hash_key(&key, 2))
    });
    let same = same.count();
    assert!((40..200).contains(&same), "{same} of 1000 agree by chance");
}

#[test]
fn edges_are_taken_or_refused_with_a_reason() {
    let params = RingParams { points: 1, seed: 0 };
    let ids: Vec<String> = (0..65_536).map(|index| index.to_string()).collect();
    let members: Vec<Member<'_>> = ids.iter().map(|id| Member { id, weight: 100 }).collect();
    assert!(Ring::build(&members, params).unwrap_err().to_string().contains("65536 members"));
    let ring = Ring::build(&members[..65_535], params).unwrap();
    for hash in [0, 1, u64::MAX, u64::MAX - 0xffff, 1 << 63] {
        let mut candidates = ring.candidates(hash);
        let mut seen = vec![false; 65_535];
        while let Some(slot) = candidates.next(&ring) {
            assert!(!std::mem::replace(&mut seen[usize::from(slot.0)], true));
        }
        assert!(seen.into_iter().all(|seen| seen));
    }
    let twice = [Member { id: "a", weight: 1 }, Member { id: "a", weight: 2 }];
    assert!(Ring::build(&twice, params).unwrap_err().to_string().contains("\"a\""));
    let heavy = [Member { id: "a", weight: WEIGHT_MAX + 1 }];
    assert!(Ring::build(&heavy, params).unwrap_err().to_string().contains("1601"));
    // Weight 0 has no points and breaks nothing.
    let drained = [Member { id: "a", weight: 0 }, Member { id: "b", weight: 1 }];
    let ring = Ring::build(&drained, RingParams::default()).unwrap();
    assert_eq!((ring.owner(7), ring.share(Slot(0))), (Some(Slot(1)), 0.0));
}
