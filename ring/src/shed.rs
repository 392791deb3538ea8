//! The slow half of load control: members whose mean load is above the target shed a part of their keys, the same keys every
//! time, to the next of their candidate sequences. The bound is the fast half.
//!
//! An integrating controller on mean loads: `shed += gain * (load / mean - target)`, with a dead band so that it rests.

use crate::load::FULL_SHARE;
use std::collections::BTreeMap;

/// Gain of a step.
const GAIN: f64 = 0.25;
/// Deviations from the target below this change nothing.
const DEAD_BAND: f64 = 0.05;
/// Weight of a new sample in the mean: about twenty samples make it.
const SMOOTHING: f64 = 0.1;
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
    shed: f64,
    seen: bool,
}

impl ShedController {
    /// Takes in the loads of the eligible members: id, requests in flight, effective weight, above 0. One that is not
    /// named is forgotten.
    pub fn handle_sample<'a>(&mut self, loads: impl Iterator<Item = (&'a str, u32, f64)>) {
        self.members.values_mut().for_each(|state| state.seen = false);
        for (id, in_flight, weight) in loads {
            let load = f64::from(in_flight) / weight;
            match self.members.get_mut(id) {
                Some(state) => {
                    state.mean += SMOOTHING * (load - state.mean);
                    state.seen = true;
                }
                None => drop(self.members.insert(id.to_owned(), State { mean: load, shed: 0.0, seen: true })),
            }
        }
        self.members.retain(|_, state| state.seen);
    }

    /// One step; gives the shed share of every member, for [`crate::Load::set_shed`].
    pub fn step(&mut self, params: &ShedParams) -> impl Iterator<Item = (&str, u16)> {
        let count = self.members.len().max(1) as f64;
        let mean = self.members.values().map(|state| state.mean).sum::<f64>() / count;
        for state in self.members.values_mut() {
            if mean < LOAD_MIN || count < 2.0 {
                state.shed *= 0.5;
                continue;
            }
            let error = state.mean / mean - params.target;
            if error.abs() > DEAD_BAND {
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
    fn each_step_adds_a_fourth_of_what_is_too_much_up_to_the_most() {
        let params = ShedParams { target: 1.2, share_max: 0.15 };
        // Half more than the mean: 0.3 above the target. The other is far below it.
        assert_eq!(steps(params, [30, 10], 3), [[75, 0], [150, 0], [150, 0]]);
        // A little above the target is near enough, and so is a little below.
        assert_eq!(steps(ShedParams { target: 1.2, ..params }, [124, 76], 2), [[0, 0]; 2]);
        assert_eq!(steps(ShedParams { target: 1.2, ..params }, [126, 74], 1), [[15, 0]]);
        // Less than half a hundredth is none: but it adds up.
        assert_eq!(steps(ShedParams { target: 1.0, share_max: 0.9 }, [106, 94], 2), [[15, 0], [30, 0]]);
        assert_eq!(steps(ShedParams { target: 1.0, share_max: 0.004 }, [200, 0], 2), [[0, 0]; 2]);
        // One request each is enough to be judged, less is not.
        assert_eq!(steps(params, [2, 0], 1), [[150, 0]]);
        assert_eq!(steps(params, [1, 0], 1), [[0, 0]]);
    }

    #[test]
    fn what_is_shed_fades_by_halves_once_there_is_nothing_to_shed_for_and_who_is_gone_is_forgotten() {
        let params = ShedParams { target: 1.0, share_max: 0.8 };
        let mut controller = ShedController::default();
        let step = |controller: &mut ShedController| -> Vec<u16> {
            let part = |share: u16| (f64::from(share) / f64::from(FULL_SHARE) * 1000.0).round() as u16;
            controller.step(&params).map(|(_, share)| part(share)).collect()
        };
        controller.handle_sample([("a", 30, 1.0), ("b", 10, 1.0)].into_iter());
        assert_eq!(step(&mut controller), [125, 0]);
        assert_eq!(step(&mut controller), [250, 0]);
        controller.handle_sample([("a", 30, 1.0)].into_iter());
        assert_eq!(step(&mut controller), [125], "alone");
        assert_eq!(step(&mut controller), [62]);
        // Loads are for their weights, and a tenth of each sample counts: (10 + (30 - 10) / 10) beside 15, and then nobody is above.
        let mut controller = ShedController::default();
        controller.handle_sample([("a", 20, 2.0), ("b", 10, 1.0)].into_iter());
        assert_eq!(step(&mut controller), [0, 0]);
        controller.handle_sample([("a", 120, 2.0), ("b", 10, 1.0)].into_iter());
        // 15 beside 10: a fifth above the mean.
        assert_eq!(step(&mut controller), [50, 0]);
    }
}
