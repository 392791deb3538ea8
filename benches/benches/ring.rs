//! Ring: lookup, pick and release, build, change, memory.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringway_ring::{
    BackendSet, BoundParams, HandedKeys, HandoffRamp, HandoffTurn, Hash, Load, Member, MemberSpec, Pick, PickContext,
    PolicyParams, RendezvousParams, Ring, RingParams, Slot, Total, hash_key,
};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("backend-{index}")).collect()
}

/// Members of equal weight that carry nothing.
fn specs(ids: &[String]) -> impl Iterator<Item = MemberSpec<'_>> {
    let spec = |id| MemberSpec { id, weight: 100, requests_max: u32::MAX, level: 0, load: Arc::new(Load::new(id)) };
    ids.iter().map(String::as_str).map(spec)
}

fn ring(count: usize, points: u32) -> Ring {
    let ids = ids(count);
    let members: Vec<Member<'_>> = ids.iter().map(|id| Member { id, weight: 100 }).collect();
    Ring::build(&members, RingParams { points, seed: 0 }).unwrap()
}

/// Keys as they come: no pattern, cheap to make.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    *state ^ *state >> 29
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    for (count, points) in [(10, 256), (100, 256), (1000, 256), (4000, 256)] {
        let ring = ring(count, points);
        println!("{} points: {:.1} bytes each", ring.points(), ring.memory_bytes() as f64 / ring.points() as f64);
        let mut state = 1;
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("independent", ring.points()), |bencher| {
            bencher.iter(|| black_box(ring.owner(next(&mut state))));
        });
        let mut hash = 1_u64;
        group.bench_function(BenchmarkId::new("dependent", ring.points()), |bencher| {
            bencher.iter(|| {
                let owner = ring.owner(hash).unwrap();
                hash = next(&mut hash).wrapping_add(u64::from(owner.0));
            });
        });
    }
    group.finish();
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick_and_release");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    for count in [4, 1000] {
        for (name, bound) in [("bounded", Some(BoundParams::default())), ("unbounded", None)] {
            let ids = ids(count);
            let members = specs(&ids);
            let policy = PolicyParams::Ring(RingParams::default());
            let backends = BackendSet::build(policy, bound, members, Arc::new(Total::new(2))).unwrap();
            backends.install();
            let mut state = 1;
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    let mut selection =
                        backends.begin(PickContext { hash: next(&mut state), ..PickContext::default() });
                    if let Pick::Backend(slot) = backends.next(&mut selection, 0) {
                        backends.release(black_box(slot), 0);
                    }
                });
            });
        }
    }
    group.bench_function("hash_key/16 bytes", |bencher| bencher.iter(|| hash_key(black_box(b"user-12345678901"), 0)));
    group.finish();
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2)).sample_size(10);
    for count in [100, 1000, 10_000] {
        let ids = ids(count);
        let members: Vec<Member<'_>> = ids.iter().map(|id| Member { id, weight: 100 }).collect();
        group.bench_function(BenchmarkId::new("256 points each", count), |bencher| {
            bencher.iter(|| Ring::build(black_box(&members), RingParams::default()).unwrap());
        });
    }
    group.finish();
}

/// One of many joins and leaves again: two changes in each turn.
fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2)).sample_size(10);
    for count in [100, 1000, 10_000] {
        let ids = ids(count + 1);
        let members: Vec<Member<'_>> = ids.iter().map(|id| Member { id, weight: 100 }).collect();
        let ring = Ring::build(&members[..count], RingParams::default()).unwrap();
        group.bench_function(BenchmarkId::new("one joins and leaves", count), |bencher| {
            bencher.iter(|| {
                let joined = ring.change(black_box(&members)).unwrap();
                joined.change(black_box(&members[..count])).unwrap()
            });
        });
    }
    group.finish();
}

/// A set that places keys alone.
fn placement(policy: PolicyParams, count: usize) -> BackendSet {
    let ids = ids(count);
    let members = specs(&ids);
    let set = BackendSet::build(policy, None, members, Arc::new(Total::new(1))).unwrap();
    set.install();
    set
}

/// What a request looks up while keys are handed over: who has its key, who had it, and whose turn it is; as `snapshot/handoff.rs` of the
/// proxy does it for one window. Under `hrw` each look is one at every member.
fn handed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handed");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    let window = Duration::from_secs(60);
    for (name, policy) in [
        ("ring", PolicyParams::Ring(RingParams::default())),
        ("hrw", PolicyParams::Rendezvous(RendezvousParams::default())),
    ] {
        let (before, after) = (placement(policy, 99), placement(policy, 100));
        let (handed, half) = (HandedKeys::default(), HandoffRamp::at(window / 2, window));
        let look = |hash: Hash| -> Option<(HandoffTurn, Slot)> {
            let (next, previous) = (after.taker(hash)?, before.taker(hash)?);
            (previous != next).then(|| (HandoffTurn::of(hash, half, handed.contains(hash)), previous))
        };
        let mut state = 1;
        let keys: Vec<Hash> = (0..200_000).map(|_| next(&mut state)).collect();
        let of = |is: &dyn Fn(Option<HandoffTurn>) -> bool| -> Vec<Hash> {
            keys.iter().copied().filter(|hash| is(look(*hash).map(|(turn, _)| turn))).take(1 << 10).collect()
        };
        let (stays, waits) = (of(&|turn| turn.is_none()), of(&|turn| turn == Some(HandoffTurn::Previous)));
        let gone = of(&|turn| turn == Some(HandoffTurn::First));
        for hash in &gone {
            handed.insert(*hash);
        }
        for (case, keys) in [("has not moved", &stays), ("moved, not due", &waits), ("gone over", &gone)] {
            let mut at = 0;
            group.bench_function(BenchmarkId::new(name, case), |bencher| {
                bencher.iter(|| {
                    at = (at + 1) % keys.len();
                    look(black_box(keys[at]))
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lookup, pick, handed, build, change);
criterion_main!(benches);
