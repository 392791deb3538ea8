//! What a change of membership moves: exactly where the policy allows it, by interval arithmetic on the ring.

use crate::backend_set::BackendSet;
use crate::hash::mix;
use crate::maglev::Maglev;
use crate::policy::Policy;
use crate::ring::Ring;
use crate::slot::Slot;
use std::collections::BTreeMap;

/// Comparisons of members that a sample may cost where nobody waits for more than the answer: weighted rendezvous takes some 30 ns for each.
pub const SAMPLE_BUDGET: u64 = 20_000_000;

/// Keys that are asked about at most: at so many the standard error is below 0.2 %.
const SAMPLES_MAX: u32 = 100_000;

/// And at least, whatever the budget is: a share is then known to a few percent.
const SAMPLES_MIN: u32 = 200;

/// The whole circle, in places.
const CIRCLE: f64 = (1_u64 << 48) as f64;

/// What moves between two rings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Movement {
    /// Share of the key space that changes its owner, 0 to 1.
    pub moved: f64,
    /// From which member to which, largest first.
    pub moves: Vec<Move>,
    /// How it was found.
    pub method: Method,
}

/// How a movement was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// By arithmetic over the whole key space.
    #[default]
    Exact,
    /// From so many keys.
    Sampled(u32),
}

/// One flow of keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// The owner before.
    pub from: String,
    /// The owner after.
    pub to: String,
    /// Share of the key space, 0 to 1.
    pub share: f64,
}

/// Compares two rings; `ids` are in slot order. A ring without points owns nothing: nothing moves to or from it.
#[must_use]
pub fn movement(old: &Ring, old_ids: &[&str], new: &Ring, new_ids: &[&str]) -> Movement {
    if old.points() == 0 || new.points() == 0 {
        return Movement::default();
    }
    let mut flows: BTreeMap<(u16, u16), u64> = BTreeMap::new();
    // Most keys stay where they are, and most rings are large: only what moves is counted by pairs.
    let stays = same_slots(old_ids, new_ids);
    let mut add = |owners: (u16, u16), places: u64| {
        if stays.get(usize::from(owners.0)) != Some(&Some(owners.1)) {
            *flows.entry(owners).or_default() += places;
        }
    };
    let (mut of_old, mut of_new) = (old.walk(), new.walk());
    let mut begin = 0;
    // Between two neighbouring points of either ring all keys have one old and one new owner: those of the next points.
    while let Some(next) = of_old.place().into_iter().chain(of_new.place()).min() {
        if let Some(last) = of_old.pass_shared(&mut of_new) {
            begin = last + 1;
            continue;
        }
        let end = next + 1;
        add((of_old.owner(), of_new.owner()), end - begin);
        begin = end;
        of_old.pass(end);
        of_new.pass(end);
    }
    add((of_old.owner(), of_new.owner()), (1 << 48) - begin);

    let flows = flows.into_iter().map(|((from, to), places)| ((from, to), places as f64 / CIRCLE));
    collect(flows, old_ids, new_ids, Method::Exact)
}

/// For each old slot, the new one of the same member.
fn same_slots(old_ids: &[&str], new_ids: &[&str]) -> Vec<Option<u16>> {
    let known: BTreeMap<&str, u16> = (0..).zip(new_ids).map(|(slot, id)| (*id, slot)).collect();
    old_ids.iter().map(|id| known.get(id).copied()).collect()
}

/// Compares two sets as they are with every member healthy; `ids` are in slot order. Groups without keys own nothing. Where the policy allows
/// no arithmetic, a sample is taken that costs about `budget` comparisons of members: see [`SAMPLE_BUDGET`].
#[must_use]
pub fn set_movement(old: &BackendSet, old_ids: &[&str], new: &BackendSet, new_ids: &[&str], budget: u64) -> Movement {
    if !old.policy().hashes() || !new.policy().hashes() {
        return Movement::default();
    }
    if old.policy().seed() != new.policy().seed() {
        // Every key has a new hash that owes nothing to the old one.
        return independent_movement(&old.shares(), old_ids, &new.shares(), new_ids);
    }
    let (one, other) = (first_level(old), first_level(new));
    if let (Some((Policy::Ring(one), one_slots)), Some((Policy::Ring(other), other_slots))) = (one, other) {
        return movement(one, &named(one_slots, old_ids), other, &named(other_slots, new_ids));
    }
    if let (Some((Policy::Maglev(one), one_slots)), Some((Policy::Maglev(other), other_slots))) = (one, other) {
        return maglev(one, &named(one_slots, old_ids), other, &named(other_slots, new_ids));
    }
    let samples = samples_within(budget, old.look_cost() + new.look_cost());
    flows(hashes(samples).map(|hash| (old.owner(hash), new.owner(hash))), old_ids, new_ids)
}

/// As [`set_movement`], between those that take the keys in place of those that own them: a member that drains takes none.
#[must_use]
pub fn taken_movement(old: &BackendSet, old_ids: &[&str], new: &BackendSet, new_ids: &[&str], budget: u64) -> Movement {
    if old.takes_all() && new.takes_all() || !old.policy().hashes() || !new.policy().hashes() {
        return set_movement(old, old_ids, new, new_ids, budget);
    }
    if old.policy().seed() != new.policy().seed() {
        return independent_movement(&taken_shares(old), old_ids, &taken_shares(new), new_ids);
    }
    let (mut cost, mut asked) = (0, 0);
    // Where nearly all members drain, a key costs more, and fewer are asked about.
    let takers = |hash| {
        asked += 1;
        (cost < budget || asked <= SAMPLES_MIN)
            .then(|| (old.taker_at_cost(hash, &mut cost), new.taker_at_cost(hash, &mut cost)))
    };
    flows(hashes(SAMPLES_MAX).map_while(takers), old_ids, new_ids)
}

/// As [`BackendSet::shares`], of those that take the keys in place of those that own them.
#[must_use]
pub fn taken_shares(set: &BackendSet) -> Vec<f64> {
    if set.takes_all() || !set.policy().hashes() {
        return set.shares();
    }
    let (mut taken, mut samples, mut cost) = (vec![0_u32; set.len()], 0_u32, 0);
    let takers =
        hashes(SAMPLES_MAX).map_while(|hash| (cost < SAMPLE_BUDGET).then(|| set.taker_at_cost(hash, &mut cost)));
    for taker in takers {
        samples += 1;
        let of_taker = taker.and_then(|slot| taken.get_mut(usize::from(slot.0)));
        of_taker.into_iter().for_each(|count| *count += 1);
    }
    taken.into_iter().map(|count| f64::from(count) / f64::from(samples.max(1))).collect()
}

/// Hashes that are spread evenly, the same ones each time.
fn hashes(count: u32) -> impl Iterator<Item = u64> {
    (0..u64::from(count)).map(|number| mix(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// How many keys may be asked about, each of which costs so many comparisons.
fn samples_within(budget: u64, cost: u64) -> u32 {
    let most = u32::try_from(budget / cost.max(1)).unwrap_or(u32::MAX);
    most.clamp(SAMPLES_MIN, SAMPLES_MAX)
}

/// What moves, from where each key of a sample was and is.
fn flows(places: impl Iterator<Item = (Option<Slot>, Option<Slot>)>, old_ids: &[&str], new_ids: &[&str]) -> Movement {
    let mut flows: BTreeMap<(u16, u16), u32> = BTreeMap::new();
    let mut samples = 0;
    for pair in places {
        samples += 1;
        if let (Some(from), Some(to)) = pair {
            *flows.entry((from.0, to.0)).or_default() += 1;
        }
    }
    let flows = flows.into_iter().map(|(pair, count)| (pair, f64::from(count) / f64::from(samples)));
    collect(flows, old_ids, new_ids, Method::Sampled(samples))
}

/// The level that has all the keys, if one has.
fn first_level(group: &BackendSet) -> Option<(&Policy, &[u16])> {
    let share = group.level_shares();
    let has_all = share.first().is_some_and(|(_, share)| *share >= 1.0);
    group.level_policies().next().filter(|_| has_all).map(|(_, order, slots)| (order, slots))
}

fn named<'a>(slots: &[u16], ids: &[&'a str]) -> Vec<&'a str> {
    slots.iter().map(|&slot| ids[usize::from(slot)]).collect()
}

fn maglev(old: &Maglev, old_ids: &[&str], new: &Maglev, new_ids: &[&str]) -> Movement {
    let (one, other) = (old.table(), new.table());
    if one.is_empty() || other.is_empty() {
        return Movement::default();
    }
    if one.len() != other.len() {
        // Remainders of two different primes are independent (Chinese remainder theorem).
        let shares = |maglev: &Maglev| -> Vec<f64> {
            maglev.counts().iter().map(|&count| f64::from(count) / maglev.table().len() as f64).collect()
        };
        return independent_movement(&shares(old), old_ids, &shares(new), new_ids);
    }
    let mut flows: BTreeMap<(u16, u16), u32> = BTreeMap::new();
    one.iter().zip(other).for_each(|(&from, &to)| *flows.entry((from, to)).or_default() += 1);
    let flows = flows.into_iter().map(|(pair, count)| (pair, f64::from(count) / one.len() as f64));
    collect(flows, old_ids, new_ids, Method::Exact)
}

/// Of placements that have nothing to do with one another, by the shares that members own.
#[must_use]
pub fn independent_movement(old: &[f64], old_ids: &[&str], new: &[f64], new_ids: &[&str]) -> Movement {
    let pairs = old
        .iter()
        .enumerate()
        .flat_map(|(from, had)| new.iter().enumerate().map(move |(to, has)| ((from as u16, to as u16), had * has)));
    collect(pairs, old_ids, new_ids, Method::Exact)
}

fn collect(
    flows: impl Iterator<Item = ((u16, u16), f64)>,
    old_ids: &[&str],
    new_ids: &[&str],
    method: Method,
) -> Movement {
    let mut movement = Movement { method, ..Movement::default() };
    for ((from, to), share) in flows {
        let (from, to) = (old_ids[usize::from(from)], new_ids[usize::from(to)]);
        if from != to && share > 0.0 {
            movement.moved += share;
            movement.moves.push(Move { from: from.into(), to: to.into(), share });
        }
    }
    movement.moves.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| (&a.from, &a.to).cmp(&(&b.from, &b.to))));
    movement
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_set::MemberSpec;
    use crate::load::{FULL_SHARE, Load};
    use crate::params::{MaglevParams, PolicyParams, RendezvousParams, RingParams};
    use crate::total::Total;
    use std::sync::Arc;

    const KEYED: [PolicyParams; 3] = [
        PolicyParams::Ring(RingParams { points: 64, seed: 0 }),
        PolicyParams::Maglev(MaglevParams { table_size: 65_537, seed: 0 }),
        PolicyParams::Rendezvous(RendezvousParams { seed: 0 }),
    ];

    /// Members of which those drain that are told.
    fn set(policy: PolicyParams, count: usize, drains: impl Fn(usize) -> bool) -> (BackendSet, Vec<String>) {
        let ids: Vec<String> = (0..count).map(|index| format!("b{index:05}")).collect();
        let members = ids.iter().enumerate().map(|(index, id)| {
            let load = Load::new(id);
            load.set_active_fraction(if drains(index) { 0 } else { FULL_SHARE });
            MemberSpec { id, weight: 1, requests_max: u32::MAX, level: (index % 2) as u8, load: Arc::new(load) }
        });
        let set = BackendSet::build(policy, None, members, Arc::new(Total::new(1))).unwrap();
        set.install();
        (set, ids)
    }

    #[test]
    fn a_taker_is_the_first_of_the_sequence_that_accepts() {
        for policy in KEYED {
            for drains in [
                |index: usize| index.is_multiple_of(3),
                |index: usize| index != 7,
                |index: usize| index.is_multiple_of(2),
            ] {
                let (set, _) = set(policy, 30, drains);
                for hash in hashes(200) {
                    let first = set.sequence(hash).into_iter().find(|slot| set.accepts(*slot, hash));
                    assert!(first.is_some());
                    assert_eq!(set.taker(hash), first, "{policy:?}");
                }
            }
            assert_eq!(set(policy, 3, |_| true).0.taker(1), None);
        }
    }

    #[test]
    fn with_half_of_ten_thousand_drained_a_key_costs_a_few_steps() {
        let (half, _) = set(KEYED[1], 10_000, |index| (index / 2).is_multiple_of(2));
        let mut cost = 0;
        let keys = 10_000;
        assert!(hashes(keys).all(|hash| half.taker_at_cost(hash, &mut cost).is_some()));
        let mut of_one = 0;
        let full = set(KEYED[1], 2, |_| false).0;
        full.taker_at_cost(0, &mut of_one);
        assert!(cost < 5 * of_one * u64::from(keys), "{cost}");
    }

    #[test]
    fn what_a_sample_may_cost_ends_it_where_every_key_looks_at_all_members() {
        let ((before, ids), (after, more)) = (set(KEYED[2], 600, |_| false), set(KEYED[2], 800, |_| false));
        let (ids, more) =
            (ids.iter().map(String::as_str).collect::<Vec<_>>(), more.iter().map(String::as_str).collect::<Vec<_>>());
        for (budget, samples) in [(7_000_000, 10_000), (1, SAMPLES_MIN), (u64::MAX, SAMPLES_MAX)] {
            let movement = set_movement(&before, &ids, &after, &more, budget);
            assert_eq!(movement.method, Method::Sampled(samples), "{budget}");
            // A quarter of the members is new.
            let error = 4.0 * (0.25 * 0.75 / f64::from(samples)).sqrt();
            assert!((movement.moved - 0.25).abs() < error, "{budget}: {}", movement.moved);
        }
    }

    #[test]
    fn where_nearly_all_drain_what_it_may_cost_ends_the_sample() {
        let drains = |index: usize| index != 9_999;
        let ((before, ids), (after, _)) = (set(KEYED[1], 10_000, |_| false), set(KEYED[1], 10_000, drains));
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let movement = taken_movement(&before, &ids, &after, &ids, SAMPLE_BUDGET);
        let Method::Sampled(samples) = movement.method else { panic!("{:?}", movement.method) };
        assert!((100..SAMPLES_MAX).contains(&samples), "{samples}");
        assert!(movement.moved > 0.99 && movement.moves.iter().all(|flow| flow.to == "b09999"));
        let shares = taken_shares(&after);
        assert!((shares[9_999] - 1.0).abs() < 1e-9 && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }
}
