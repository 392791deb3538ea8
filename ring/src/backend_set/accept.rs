//! Which share of its own keys a member takes, so that of all keys it has its effective weight's part.
//!
//! A member that takes half of its own keys does not have half of its weight's part of the traffic: of two equal ones it has a
//! quarter, and should have a third, as with half the weight. What it leaves goes on along the candidate sequences, to others of which some leave a
//! part of their own keys to it.
//!
//! A key's candidate sequence is a draw without replacement by weight, and so the order in which members would arrive if each came at a time that
//! is exponential in its weight. The first that takes the key has it: member j, which takes a share `f_j`, with the chance
//! `f_j * ∫ w_j exp(-w_j t) * Π (1 - f_i (1 - exp(-w_i t))) dt` over the others i. Members that ramp least take all their keys: among
//! them the rest is divided by weight, whatever the others leave. For the others each share follows from those of the others, and
//! grows with them: taken in turn, they come to rest from whatever they begin with.

/// Rounds at most. Four are usual; many are where nearly all of a fleet ramps.
const ROUNDS: usize = 40;
/// Power of each correction: a little too far comes to rest sooner.
const RELAXATION: f64 = 1.3;
/// Relative error of what a member has at which they end.
const PRECISION: f64 = 0.002;
/// Points at which the integral is taken, evenly spaced in the logarithm of the time.
const POINTS: usize = 64;
/// Kinds of members beyond which a first guess must do: it is near where no single member counts for much, and this is worked out
/// while others wait.
const KINDS_MAX: usize = 64;

/// Members of equal weight and share.
struct Kind {
    weight: f64,
    /// Of the largest active fraction.
    share: f64,
    count: f64,
    /// Effective weight of each.
    due: f64,
    accept: f64,
    /// `1 - exp(-w t)` at each point.
    came: Vec<f64>,
}

/// For members with these weights and active fractions (in any one unit, above 0), the accept shares, above 0 and up to 1. One member at least
/// takes all of its own keys, so that every key has a home.
///
/// `by_key`: each member is asked once about a key, in the order of its candidate sequence. Otherwise members are drawn until one takes the
/// request, and their active fractions are right as they are, but for a factor.
pub(super) fn shares(members: &[(f64, f64)], by_key: bool) -> Vec<f64> {
    let largest = members.iter().map(|&(_, share)| share).fold(0.0, f64::max);
    let ramped: Vec<f64> = members.iter().map(|&(_, share)| share / largest).collect();
    if !by_key || ramped.iter().all(|&share| share == 1.0) {
        return ramped;
    }
    let weights: f64 = members.iter().map(|&(weight, _)| weight).sum();
    let effective: f64 = members.iter().zip(&ramped).map(|(&(weight, _), share)| weight * share).sum();
    let mut order: Vec<usize> = (0..members.len()).collect();
    let key = |index: usize| (members[index].0, ramped[index]);
    order.sort_by(|&one, &other| key(one).partial_cmp(&key(other)).unwrap_or(std::cmp::Ordering::Equal));
    let groups: Vec<&[usize]> = order.chunk_by(|&one, &other| key(one) == key(other)).collect();
    // What it leaves goes to others alone: right for one that ramps among others that do not.
    let first_guess = |share: f64| (share * weights / effective).min(1.0);
    let mut kinds: Vec<Kind> = groups
        .iter()
        .map(|group| {
            let (weight, share) = key(group[0]);
            let due = weight * share / effective;
            Kind { weight, share, count: group.len() as f64, due, accept: first_guess(share), came: Vec::new() }
        })
        .collect();
    if kinds.len() <= KINDS_MAX {
        solve(&mut kinds, weights);
    }
    let mut accepts = vec![1.0; members.len()];
    for (group, kind) in groups.into_iter().zip(&kinds) {
        group.iter().for_each(|&index| accepts[index] = kind.accept);
    }
    accepts
}

/// Gives each in turn what is right beside what the others take, until nothing changes any more.
fn solve(kinds: &mut [Kind], weights: f64) {
    let lightest = kinds.iter().map(|kind| kind.weight).fold(f64::INFINITY, f64::min);
    let (first, last) = ((1e-4 / weights).ln(), (40.0 / lightest).ln());
    let step = (last - first) / (POINTS - 1) as f64;
    let times: Vec<f64> = (0..POINTS).map(|point| (first + step * point as f64).exp()).collect();
    let none_of = |kind: &Kind, point: usize| kind.count * (1.0 - kind.accept * kind.came[point]).max(1e-300).ln();
    // The logarithm of the chance that no member which has come by then takes the key.
    let mut free = vec![0.0; POINTS];
    for kind in kinds.iter_mut() {
        kind.accept = kind.share;
        kind.came = times.iter().map(|time| -(-kind.weight * time).exp_m1()).collect();
        free.iter_mut().enumerate().for_each(|(point, free)| *free += none_of(kind, point));
    }
    for _ in 0..ROUNDS {
        let mut off = 0.0_f64;
        for kind in kinds.iter_mut().filter(|kind| kind.share < 1.0) {
            let parts = (0..POINTS).map(|point| {
                let came = kind.came[point];
                (1.0 - came) * times[point] * free[point].exp() / (1.0 - kind.accept * came).max(1e-300)
            });
            let asked = kind.weight * parts.sum::<f64>() * step;
            let right = if asked > 0.0 { kind.due / asked } else { 1.0 };
            let accept = (kind.accept * (right / kind.accept).powf(RELAXATION)).clamp(1e-6, 1.0);
            off = off.max((accept / kind.accept - 1.0).abs());
            free.iter_mut().enumerate().for_each(|(point, free)| *free -= none_of(kind, point));
            kind.accept = accept;
            free.iter_mut().enumerate().for_each(|(point, free)| *free += none_of(kind, point));
        }
        if off < PRECISION {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_equal_members_one_at_half_has_a_third() {
        let accepts = shares(&[(100.0, 0.5), (100.0, 1.0)], true);
        assert!((accepts[0] - 2.0 / 3.0).abs() < 0.003, "{accepts:?}");
        assert_eq!(accepts[1], 1.0);
    }

    #[test]
    fn members_that_ramp_alike_take_all_their_keys() {
        assert_eq!(shares(&[(100.0, 0.3), (200.0, 0.3), (1.0, 0.3)], true), [1.0; 3]);
        assert_eq!(shares(&[(7.0, 0.3)], true), [1.0]);
        assert!(shares(&[], true).is_empty());
    }

    /// What each has of many keys whose candidate sequences are drawn by weight.
    fn has(members: &[(f64, f64)], accepts: &[f64]) -> Vec<f64> {
        let mut random = 5_u64;
        let mut draw = || {
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            (crate::hash::mix(random) >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut has = vec![0.0; members.len()];
        for _ in 0..100_000 {
            let mut candidates: Vec<(f64, usize)> =
                members.iter().enumerate().map(|(index, (weight, _))| (-(1.0 - draw()).ln() / weight, index)).collect();
            candidates.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
            let taken = candidates.iter().find(|(_, index)| draw() < accepts[*index]);
            taken.into_iter().for_each(|(_, index)| has[*index] += 1.0 / 100_000.0);
        }
        has
    }

    #[test]
    fn every_member_has_its_effective_weights_part_also_beside_one_that_outweighs_all() {
        let nearly_all: Vec<(f64, f64)> =
            (0..100).map(|index| ([100.0, 10.0, 1600.0][index % 3], if index == 0 { 1.0 } else { 0.1 })).collect();
        let fleets: [&[(f64, f64)]; 7] = [
            &nearly_all,
            &[(10.0, 1.0), (100.0, 0.1), (10.0, 1.0), (100.0, 0.1), (1.0, 1.0), (1600.0, 0.1)],
            &[(100.0, 1.0), (50.0, 0.5), (200.0, 0.5), (10.0, 0.5), (1600.0, 0.5), (100.0, 1.0)],
            &[(1.0, 1.0), (1600.0, 0.1)],
            &[(10.0, 0.01), (1600.0, 0.01), (10.0, 0.1), (10.0, 0.1)],
            &[(100.0, 0.9), (100.0, 0.5), (100.0, 0.1), (100.0, 1.0), (100.0, 0.01)],
            &[(1600.0, 1.0), (1.0, 0.5), (100.0, 0.1)],
        ];
        for members in fleets {
            let accepts = shares(members, true);
            let effective: f64 = members.iter().map(|(weight, share)| weight * share).sum();
            for ((weight, share), has) in members.iter().zip(has(members, &accepts)) {
                let due = weight * share / effective;
                let noise = 5.0 * (due / 100_000.0).sqrt();
                assert!((has - due).abs() < 0.05 * due + noise, "{members:?}: {accepts:?}: {has} of {due}");
            }
        }
    }

    #[test]
    fn draws_are_taken_in_proportion_to_lifecycle_shares() {
        assert_eq!(shares(&[(100.0, 0.25), (9.0, 0.5)], false), [0.5, 1.0]);
    }

    #[test]
    fn all_shares_are_sound_whatever_the_fleet() {
        let mut random = 7_u64;
        let mut draw = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        for _ in 0..2_000 {
            let members: Vec<(f64, f64)> =
                (0..1 + draw(40)).map(|_| ((1 + draw(1600)) as f64, (1 + draw(65_535)) as f64)).collect();
            let accepts = shares(&members, true);
            assert!(accepts.iter().all(|&accept| accept > 0.0 && accept <= 1.0), "{members:?}: {accepts:?}");
            assert!(accepts.contains(&1.0), "{members:?}: {accepts:?}");
        }
    }

    #[test]
    fn a_fleet_of_many_kinds_is_worked_out_in_bounded_time() {
        let members: Vec<(f64, f64)> =
            (0..10_000).map(|index| (1.0 + f64::from(index % 1600), 1.0 + f64::from(index % 7))).collect();
        let accepts = shares(&members, true);
        assert!(accepts.iter().all(|&accept| accept > 0.0 && accept <= 1.0));
        assert!(accepts.contains(&1.0));
    }
}
