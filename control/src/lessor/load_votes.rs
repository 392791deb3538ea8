//! What proxies that have the same ring want of its table.

use ringway_ring::FleetParams;
use std::sync::Arc;

/// Different parameters that are counted for a ring: a canary makes two of them.
const VARIANTS_MAX: usize = 8;

/// How many proxies have a ring, and what each wants a table to be made for.
#[derive(Default)]
pub(super) struct Votes<'r> {
    count: usize,
    params: Vec<(&'r Arc<FleetParams>, usize)>,
}

impl<'r> Votes<'r> {
    pub(super) fn add(&mut self, params: &'r Arc<FleetParams>) {
        self.count += 1;
        match self.params.iter().position(|(known, _)| Arc::ptr_eq(known, params) || *known == params) {
            Some(index) => self.params[index].1 += 1,
            None if self.params.len() < VARIANTS_MAX => self.params.push((params, 1)),
            None => {}
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Those that most want; of as many, the ones in force.
    pub(super) fn params(&self, in_force: &Arc<FleetParams>) -> Option<&'r Arc<FleetParams>> {
        let rank = |params: &Arc<FleetParams>, count: usize| (count, params == in_force);
        self.params.iter().max_by_key(|(params, count)| rank(params, *count)).map(|(params, _)| *params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_ring::ShedParams;

    #[test]
    fn parameters_are_those_of_most_and_of_as_many_those_in_force() {
        let made = |target| Arc::new(FleetParams { shed: ShedParams { target, share_max: 0.9 }, hot: None });
        let (old, new, odd) = (made(1.2), made(1.5), made(9.0));
        let chosen = |told: &[&Arc<FleetParams>], in_force: &Arc<FleetParams>| {
            let mut votes = Votes::default();
            told.iter().for_each(|params| votes.add(params));
            votes.params(in_force).map(|params| params.shed.target)
        };
        assert_eq!(chosen(&[&old, &new, &old], &new), Some(1.2));
        assert_eq!(chosen(&[&old, &new], &old), Some(1.2));
        assert_eq!(chosen(&[&old, &new], &new), Some(1.5));
        assert_eq!(chosen(&[&made(1.2), &new, &made(1.2)], &new), Some(1.2), "by what they say");
        assert_eq!(chosen(&[&odd, &odd], &old), Some(9.0));
        assert_eq!(chosen(&[], &old), None);
        let many: Vec<_> = (0..100).map(|target| made(f64::from(target))).collect();
        let mut votes = Votes::default();
        many.iter().for_each(|params| votes.add(params));
        assert_eq!((votes.count, votes.params.len()), (100, VARIANTS_MAX));
    }
}
