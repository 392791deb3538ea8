//! The slow half of load control: members whose mean load is above the target shed a part of their keys, the same keys every
//! time, to the next of their candidate sequences. The bound is the fast half.
//!
//! An integrating controller on mean loads: `shed += gain * (load / mean - target)`, with a dead band so that it rests. Each proxy has its
//! own: it sees a part of the traffic, and the less it sees, the more of what it sees is noise. So a mean is of the more samples the
//! fewer requests are in flight, and the dead band is as wide as what is left of the noise: shed for noise, keys would lose their
//! owners for nothing.

use crate::load::FULL_SHARE;
use std::collections::BTreeMap;

/// Gain of a step.
const GAIN: f64 = 0.05;
/// Deviations from the target below this change nothing, however well the loads are known.
const DEAD_BAND: f64 = 0.05;
/// Standard errors of a mean within which a deviation is noise.
const NOISE: f64 = 2.0;
/// Samples that a mean is of: at the twenty a second that are taken, five seconds.
const SAMPLES: f64 = 100.0;
/// Requests in flight that a mean is of, over all its samples, where few are in flight at a time.
const REQUESTS: f64 = 400.0;
/// Mean requests in flight per member below which loads are noise, and shedding fades.
const LOAD_MIN: f64 = 1.0;

/// When members shed, and how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShedParams {
    /// Load, relative to the mean of all, above which a member sheds.
    pub target: f64,
    /// Largest part of its keys that it sheds, 0 to 1.
    pub share_max: f64,
}

/// The controller of one service.
#[derive(Debug, Default)]
pub struct ShedController {
    members: BTreeMap<String, State>,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// Mean load for its weight.
    mean: f64,
    /// How many samples that is of.
    samples: f64,
    shed: f64,
    seen: bool,
}

/// Mean of the members' means, in requests in flight; above 0.
fn mean_of(members: &BTreeMap<String, State>) -> f64 {
    let sum: f64 = members.values().map(|state| state.mean).sum();
    (sum / members.len().max(1) as f64).max(f64::MIN_POSITIVE)
}

impl ShedController {
    /// Takes in the loads of the eligible members: id, requests in flight, effective weight, above 0. One that is not
    /// named is forgotten. To be called twenty times a second.
    pub fn handle_sample<'a>(&mut self, loads: impl Iterator<Item = (&'a str, u32, f64)>) {
        let most = SAMPLES.max(REQUESTS / mean_of(&self.members).max(LOAD_MIN));
        self.members.values_mut().for_each(|state| state.seen = false);
        for (id, in_flight, weight) in loads {
            let load = f64::from(in_flight) / weight;
            match self.members.get_mut(id) {
                Some(state) => {
                    // As long as there are few, each counts alike.
                    state.samples = (state.samples + 1.0).min(most);
                    state.mean += (load - state.mean) / state.samples;
                    state.seen = true;
                }
                None => {
                    self.members.insert(id.to_owned(), State { mean: load, samples: 1.0, shed: 0.0, seen: true });
                }
            }
        }
        self.members.retain(|_, state| state.seen);
    }

    /// One step; gives the shed share of every member, for [`crate::Load::set_shed`].
    pub fn step(&mut self, params: &ShedParams) -> impl Iterator<Item = (&str, u16)> {
        let (mean, is_alone) = (mean_of(&self.members), self.members.len() < 2);
        for state in self.members.values_mut() {
            if mean < LOAD_MIN || is_alone {
                state.shed *= 0.5;
                continue;
            }
            let error = state.mean / mean - params.target;
            // Samples are taken for independent: the standard error of a count, for its mean, is one over the root of all that were counted.
            // Where requests last longer than a sample they are not, and more of the noise is taken for load.
            if error.abs() > DEAD_BAND.max(NOISE / (mean * state.samples).sqrt()) {
                state.shed = (state.shed + GAIN * error).clamp(0.0, params.share_max);
            }
        }
        self.members.iter().map(|(id, state)| {
            let share = if state.shed < 0.005 { 0.0 } else { state.shed };
            (id.as_str(), (share * f64::from(FULL_SHARE)) as u16)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Member `a` attracts twice the load of each of nine others, less what it sheds.
    #[test]
    fn overloaded_member_sheds_until_it_is_at_the_target_and_stays_there() {
        let params = ShedParams { target: 1.2, share_max: 0.9 };
        let mut controller = ShedController::default();
        let ids: Vec<String> = ('a'..='j').map(String::from).collect();
        let mut shed = 0.0;
        let mut history = Vec::new();
        for _ in 0..60 {
            for _ in 0..5 {
                let kept = 200.0 * (1.0 - shed);
                let rest = 100.0 + 200.0 * shed / 9.0;
                let loads = ids
                    .iter()
                    .enumerate()
                    .map(|(index, id)| (id.as_str(), if index == 0 { kept as u32 } else { rest as u32 }, 1.0));
                controller.handle_sample(loads);
            }
            let shares: Vec<(String, u16)> =
                controller.step(&params).map(|(id, share)| (id.to_owned(), share)).collect();
            shed = f64::from(shares[0].1) / f64::from(FULL_SHARE);
            assert!(shares[1..].iter().all(|(_, share)| *share == 0), "{shares:?}");
            history.push(shed);
        }
        let load = 200.0 * (1.0 - shed) / 110.0;
        assert!((1.1..1.3).contains(&load), "{load}");
        let last = &history[50..];
        assert!(last.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 0.05), "{last:?}");
    }

    #[test]
    fn idle_services_and_single_members_shed_nothing() {
        let params = ShedParams { target: 1.2, share_max: 0.9 };
        let mut controller = ShedController::default();
        for _ in 0..50 {
            controller.handle_sample([("a", 1, 1.0), ("b", 0, 1.0), ("c", 0, 1.0)].into_iter());
            assert!(controller.step(&params).all(|(_, share)| share == 0));
        }
        let mut alone = ShedController::default();
        alone.handle_sample([("a", 900, 1.0)].into_iter());
        assert!(alone.step(&params).all(|(_, share)| share == 0));
    }

    /// The parts of its keys that each sheds after each step, in thousandths, with these loads.
    fn steps(params: ShedParams, loads: [u32; 2], count: usize) -> Vec<[u16; 2]> {
        let mut controller = ShedController::default();
        let part = |share: u16| (f64::from(share) / f64::from(FULL_SHARE) * 1000.0).round() as u16;
        let step = |controller: &mut ShedController| {
            controller.handle_sample([("a", loads[0], 1.0), ("b", loads[1], 1.0)].into_iter());
            let shares: Vec<u16> = controller.step(&params).map(|(_, share)| part(share)).collect();
            [shares[0], shares[1]]
        };
        (0..count).map(|_| step(&mut controller)).collect()
    }

    #[test]
    fn each_step_adds_a_twentieth_of_what_is_too_much_up_to_the_most() {
        let params = ShedParams { target: 1.2, share_max: 0.035 };
        // Half more than the mean: 0.3 above the target. The other is far below it.
        assert_eq!(steps(params, [3_000, 1_000], 4), [[15, 0], [30, 0], [35, 0], [35, 0]]);
        // A little above the target is near enough, and so is a little below.
        assert_eq!(steps(params, [12_400, 7_600], 2), [[0, 0]; 2]);
        // Less than half a hundredth is none: but it adds up.
        assert_eq!(steps(params, [13_000, 7_000], 2), [[5, 0], [10, 0]]);
        assert_eq!(steps(ShedParams { target: 1.0, share_max: 0.004 }, [20_000, 0], 2), [[0, 0]; 2]);
    }

    #[test]
    fn what_may_be_noise_sheds_nothing_until_enough_has_been_seen() {
        let params = ShedParams { target: 1.2, share_max: 0.9 };
        // Four in flight instead of two and a half on average: with one sample nobody knows; with many, it is too much.
        let mut controller = ShedController::default();
        let mut sheds_after = None;
        for number in 1..=400 {
            controller.handle_sample([("a", 4, 1.0), ("b", 1, 1.0)].into_iter());
            if controller.step(&params).any(|(_, share)| share > 0) && sheds_after.is_none() {
                sheds_after = Some(number);
            }
        }
        // The dead band is 0.4 wide, as the deviation is, at two over the root of 2.5 times ten samples; one twentieth of it must add up.
        assert!((10..=12).contains(&sheds_after.unwrap_or(0)), "{sheds_after:?}");
        // A mean is of a hundred samples, and of four hundred where one request is in flight.
        for (loads, samples) in [([40, 40], 100.0), ([2, 2], 200.0), ([1, 1], 400.0), ([0, 0], 400.0)] {
            let mut controller = ShedController::default();
            for _ in 0..500 {
                controller.handle_sample([("a", loads[0], 1.0), ("b", loads[1], 1.0)].into_iter());
            }
            assert_eq!(controller.members["a"].samples, samples, "{loads:?}");
        }
    }

    /// Loads that are Poisson around one mean, as of a proxy that sees a small part of the traffic: there is nothing to shed for.
    #[test]
    fn of_noise_alone_hardly_anything_is_shed() {
        let params = ShedParams { target: 1.2, share_max: 0.9 };
        let mut random = 7_u64;
        let mut draw = |mean: f64| {
            let (mut count, mut product) = (0_u32, 1.0_f64);
            loop {
                random = crate::hash::mix(random.wrapping_add(0x9e37_79b9_7f4a_7c15));
                product *= (random >> 11) as f64 / (1_u64 << 53) as f64;
                if product < (-mean).exp() {
                    return count;
                }
                count += 1;
            }
        };
        for mean in [1.5, 4.0, 15.0] {
            let ids: Vec<String> = (0..100).map(|index| format!("b{index}")).collect();
            let mut controller = ShedController::default();
            let (mut sum, mut steps) = (0.0, 0.0);
            for _ in 0..400 {
                for _ in 0..5 {
                    let loads: Vec<u32> = ids.iter().map(|_| draw(mean)).collect();
                    controller.handle_sample(ids.iter().zip(loads).map(|(id, load)| (id.as_str(), load, 1.0)));
                }
                sum += controller.step(&params).map(|(_, share)| f64::from(share)).sum::<f64>();
                steps += 100.0;
            }
            let share = sum / steps / f64::from(FULL_SHARE);
            assert!(share < 0.002, "at {mean} in flight each sheds {share} of its keys");
        }
    }

    #[test]
    fn what_is_shed_fades_by_halves_once_there_is_nothing_to_shed_for_and_who_is_gone_is_forgotten() {
        let params = ShedParams { target: 1.0, share_max: 0.8 };
        let mut controller = ShedController::default();
        let step = |controller: &mut ShedController| -> Vec<u16> {
            let part = |share: u16| (f64::from(share) / f64::from(FULL_SHARE) * 1000.0).round() as u16;
            controller.step(&params).map(|(_, share)| part(share)).collect()
        };
        controller.handle_sample([("a", 3_000, 1.0), ("b", 1_000, 1.0)].into_iter());
        assert_eq!(step(&mut controller), [25, 0]);
        assert_eq!(step(&mut controller), [50, 0]);
        controller.handle_sample([("a", 3_000, 1.0)].into_iter());
        assert_eq!(step(&mut controller), [25], "alone");
        assert_eq!(step(&mut controller), [12]);
        // Loads are for their weights, and as long as there are few samples all count alike: 1,500 beside 1,000.
        let mut controller = ShedController::default();
        controller.handle_sample([("a", 2_000, 2.0), ("b", 1_000, 1.0)].into_iter());
        assert_eq!(step(&mut controller), [0, 0]);
        controller.handle_sample([("a", 4_000, 2.0), ("b", 1_000, 1.0)].into_iter());
        // A fifth above the mean.
        assert_eq!(step(&mut controller), [10, 0]);
    }
}
