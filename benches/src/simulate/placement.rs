//! What placement itself costs and moves: no traffic, only keys.

use ringway_ring::{BackendSet, Load, MemberSpec, Pick, PickContext, PolicyParams, SAMPLE_BUDGET, Total, set_movement};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// A group of so many equal members.
#[must_use]
pub fn group(policy: PolicyParams, ids: &[String], weights: &[u32]) -> BackendSet {
    let members = ids.iter().zip(weights).map(|(id, &weight)| MemberSpec {
        id,
        weight,
        requests_max: u32::MAX,
        level: 0,
        load: Arc::new(Load::new(id)),
    });
    BackendSet::build(policy, None, members, Arc::new(Total::new(1))).expect("invariant: ids are distinct")
}

/// Names of members.
#[must_use]
pub fn ids(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("node-{index:05}")).collect()
}

/// Keys moved over the least that must move: when one of `count` joins, leaves, and grows by half.
#[must_use]
pub fn movement(policy: PolicyParams, count: usize) -> [f64; 3] {
    let all = ids(count + 1);
    let equal = vec![100; count + 1];
    let old = group(policy, &all[..count], &equal[..count]);
    let new = group(policy, &all, &equal);
    let mut heavier = equal[..count].to_vec();
    heavier[count / 2] = 150;
    let grown = group(policy, &all[..count], &heavier);
    let names = |ids: &[String]| ids.iter().map(String::clone).collect::<Vec<_>>();
    let (few, many) = (names(&all[..count]), names(&all));
    let few: Vec<&str> = few.iter().map(String::as_str).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    // The least is what the one who changes gains or loses.
    let share = |group: &BackendSet, index: usize| group.shares()[index];
    [
        set_movement(&old, &few, &new, &many, SAMPLE_BUDGET).moved / share(&new, count),
        set_movement(&new, &many, &old, &few, SAMPLE_BUDGET).moved / share(&new, count),
        set_movement(&old, &few, &grown, &few, SAMPLE_BUDGET).moved
            / (share(&grown, count / 2) - share(&old, count / 2)),
    ]
}

/// Nanoseconds of a pick and its release, milliseconds of a build, bytes, and largest share over the fair one.
#[must_use]
pub fn cost(policy: PolicyParams, count: usize) -> (f64, f64, usize, f64) {
    let (ids, weights) = (ids(count), vec![100; count]);
    let begin = Instant::now();
    let group = group(policy, &ids, &weights);
    let build_ms = begin.elapsed().as_secs_f64() * 1e3;
    let rounds = if matches!(policy, PolicyParams::Rendezvous(_) | PolicyParams::LeastRequest) {
        (20_000_000 / count.max(10)).min(500_000)
    } else {
        500_000
    };
    let mut state = 1_u64;
    let begin = Instant::now();
    for _ in 0..rounds {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let hash = state ^ state >> 29;
        let mut selection = group.begin(PickContext { hash, chance: hash, ..PickContext::default() });
        if let Pick::Backend(slot) = group.next(&mut selection, 0) {
            group.release(black_box(slot), 0);
        }
    }
    let nanos = begin.elapsed().as_nanos() as f64 / rounds as f64;
    let peak = group.shares().into_iter().fold(0.0, f64::max) * count as f64;
    (nanos, build_ms, group.memory_bytes(), peak)
}
