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
}
