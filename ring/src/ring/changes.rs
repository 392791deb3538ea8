//! Rings that change: each is held to a model that knows of no blocks and no slots, over points that often lie at one place.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

type Fleet = BTreeMap<String, u32>;

/// Hashes of points that leave only so many bits of the place: many lie at the same.
fn coarse(bits: u32) -> impl Fn(&str, Range<u32>, &mut dyn FnMut(u64)) {
    move |id, points, give| {
        points.for_each(|index| give(xxh3_64(format!("{id} {index}").as_bytes()) >> (64 - bits) << (64 - bits)));
    }
}

fn roster(fleet: &Fleet) -> Arc<Roster> {
    sorted(&fleet.iter().map(|(id, &weight)| Member { id, weight }).collect::<Vec<_>>()).unwrap()
}

/// All points by place and id: what a ring is by definition.
fn model(fleet: &Fleet, points: u32, bits: u32) -> Vec<(u64, &str)> {
    let mut all = Vec::new();
    for (id, &weight) in fleet {
        coarse(bits)(id, 0..point_count(weight, points), &mut |hash| all.push((place(hash), id.as_str())));
    }
    all.sort_unstable();
    all
}

fn hold(ring: &Ring, fleet: &Fleet, bits: u32) {
    let model = model(fleet, ring.params.points, bits);
    let id = |slot: u16| ring.roster.member(usize::from(ring.slots.rank(slot))).id;
    let entries: Vec<(u64, &str)> = ring.circle.entries().map(|entry| (place(entry), id(owner(entry)))).collect();
    assert_eq!(entries, model);
    assert_eq!((ring.points(), ring.len()), (model.len(), fleet.len()));
    assert_eq!(ring.placed(), fleet.values().filter(|weight| **weight > 0).count());
    let mut hasher = Xxh3::new();
    let mut arcs: BTreeMap<&str, u64> = BTreeMap::new();
    let mut before = model.last().map_or(0, |(place, _)| place.wrapping_sub(1 << 48));
    for &(place, id) in &model {
        hasher.update(&(place << 16).to_le_bytes());
        hasher.update(id.as_bytes());
        hasher.update(&[0]);
        *arcs.entry(id).or_default() += place.wrapping_sub(std::mem::replace(&mut before, place));
    }
    assert_eq!(ring.digest(), hasher.digest());
    for (slot, arc) in ring.arcs().into_iter().enumerate() {
        assert_eq!(arc, arcs.get(id(slot as u16)).copied().unwrap_or(0));
    }
    for hash in (0..40_u64).map(|number| xxh3_64(&number.to_le_bytes())).chain([0, u64::MAX]) {
        let first = model.partition_point(|(at, _)| *at < place(hash));
        let mut expected: Vec<&str> = Vec::new();
        for (_, id) in model[first..].iter().chain(&model[..first]) {
            if expected.len() < 4 && !expected.contains(id) {
                expected.push(id);
            }
        }
        assert_eq!(ring.owner(hash).map(|slot| id(slot.0)), expected.first().copied());
        let mut candidates = ring.candidates(hash);
        let found: Vec<&str> = std::iter::from_fn(|| candidates.next(ring)).take(4).map(|slot| id(slot.0)).collect();
        assert_eq!(found, expected);
    }
}

/// In slot order.
fn ids(ring: &Ring) -> Vec<&str> {
    ring.ranks().iter().map(|&rank| ring.roster.member(usize::from(rank)).id).collect()
}

/// Blocks in which none of the points of those that differ lies are the same, not copies.
fn hold_shared(old: &Ring, new: &Ring) {
    let by_slot = |ring: &Ring, slot: u16| {
        (usize::from(slot) < ring.len()).then(|| {
            let member = ring.roster.member(usize::from(ring.slots.rank(slot)));
            (member.id.to_owned(), member.weight)
        })
    };
    let mut touched = vec![false; old.circle.blocks().len()];
    for ring in [old, new] {
        for entry in ring.circle.entries().filter(|&entry| by_slot(old, owner(entry)) != by_slot(new, owner(entry))) {
            touched[old.circle.block_number(entry)] = true;
        }
    }
    for (number, (one, other)) in old.circle.blocks().iter().zip(new.circle.blocks()).enumerate() {
        assert!(touched[number] || Arc::ptr_eq(one, other), "block {number}");
    }
}

fn apply(fleet: &mut Fleet, edit: &[(u8, u32)]) {
    for &(number, weight) in edit {
        let id = format!("b{number}");
        // As often as not one that is there leaves.
        if weight > 300 {
            fleet.remove(&id);
        } else {
            fleet.insert(id, weight);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_changed_ring_is_as_one_built_anew(
        first in prop::collection::vec((0..40_u8, 0..300_u32), 0..40),
        edits in prop::collection::vec(prop::collection::vec((0..40_u8, 0..500_u32), 1..4), 1..8),
        points in prop::sample::select(vec![1, 3, 100]),
        bits in prop::sample::select(vec![3_u32, 9, 13, 48]),
    ) {
        let mut fleet = Fleet::new();
        apply(&mut fleet, &first);
        let params = RingParams { points, seed: 0 };
        let mut ring = Ring::of(roster(&fleet), params, &coarse(bits)).unwrap();
        hold(&ring, &fleet, bits);
        for edit in edits {
            let before = fleet.clone();
            apply(&mut fleet, &edit);
            let changed = ring.follow(roster(&fleet), &coarse(bits)).unwrap();
            hold(&changed, &fleet, bits);
            // What is passed over because both have it is what moves nothing.
            let anew = |fleet: &Fleet| Ring::of(roster(fleet), params, &coarse(bits)).unwrap();
            let moved = |old: &Ring, new: &Ring| crate::movement::movement(old, &ids(old), new, &ids(new)).moves;
            prop_assert_eq!(moved(&ring, &changed), moved(&anew(&before), &anew(&fleet)));
            prop_assert_eq!(ring.places_alike(&changed), ring.digest() == changed.digest());
            prop_assert!(changed.places_alike(&anew(&fleet)));
            ring = changed;
        }
    }
}

#[test]
fn a_digest_is_of_places_and_ids_however_long_these_are() {
    for lengths in [&[1, 2][..], &[30, 31], &[31, 32, 33], &[32], &[40, 3, 255]] {
        let fleet: Fleet = lengths.iter().map(|&len| ("x".repeat(len), 100)).collect();
        // More than are hashed at once.
        hold(&Ring::of(roster(&fleet), RingParams { points: 700, seed: 0 }, &coarse(48)).unwrap(), &fleet, 48);
    }
}

#[test]
fn what_does_not_change_is_shared_however_long_the_chain() {
    let mut fleet: Fleet = (0..64).map(|number| (format!("b{number:02}"), 100)).collect();
    let build = |fleet: &Fleet| Ring::of(roster(fleet), RingParams { points: 256, seed: 0 }, &coarse(48)).unwrap();
    let first = build(&fleet);
    assert_eq!(first.circle.blocks().len(), 32);
    let mut ring = first.clone();
    for (id, weight) in [
        ("b031", Some(2)),
        ("b10", Some(103)),
        ("b10", Some(98)),
        ("b031", None),
        ("b10", Some(100)),
        ("a", Some(1)),
        ("a", None),
    ] {
        match weight {
            Some(weight) => fleet.insert(id.to_owned(), weight),
            None => fleet.remove(id),
        };
        let changed = ring.follow(roster(&fleet), &coarse(48)).unwrap();
        hold(&changed, &fleet, 48);
        hold_shared(&ring, &changed);
        let same =
            ring.circle.blocks().iter().zip(changed.circle.blocks()).filter(|(one, other)| Arc::ptr_eq(one, other));
        assert!(same.count() >= 16, "few blocks are rewritten: {id}");
        ring = changed;
    }
    assert_eq!(ring, first);
    // The same members: all of it.
    let same = ring.follow(roster(&fleet), &coarse(48)).unwrap();
    assert!(ring.circle.blocks().iter().zip(same.circle.blocks()).all(|(one, other)| Arc::ptr_eq(one, other)));
    // One that leaves has its slot filled by the last, and nobody else has another.
    fleet.remove("b05");
    let changed = ring.follow(roster(&fleet), &coarse(48)).unwrap();
    hold(&changed, &fleet, 48);
    hold_shared(&ring, &changed);
    let ids = ids(&changed);
    assert_eq!((ids[4], ids[5], ids[6]), ("b04", "b63", "b06"));
}
