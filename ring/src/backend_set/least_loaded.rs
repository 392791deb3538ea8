//! The look for when all are full and the least loaded is to take the request over its bound.

use super::weighted::part;
use super::{BackendSet, Pick};
use crate::hash::mix;
use crate::selection::Selection;
use crate::slot::Slot;

/// Looks for the least loaded that may end at a member which has become full meanwhile.
const LOOKS_MAX: u32 = 4;

impl BackendSet {
    /// The eligible member with the least load for its effective weight, whatever its bound, of the first level where one is below
    /// its hard limit; of equals, one drawn by weight.
    pub(super) fn least_loaded(&self, selection: &mut Selection, shard: usize) -> Pick {
        let home = selection.home;
        let levels = std::iter::once(home).chain((0..self.levels.len() as u8).filter(|level| *level != home));
        let mut full = false;
        for level in levels.map(|level| &self.levels[usize::from(level)]) {
            for _ in 0..LOOKS_MAX {
                let random = mix(selection.context.hash) ^ selection.draw();
                let (mut least, mut sum, mut best) = (f64::INFINITY, 0_u64, None);
                for (slot, member) in level.slots.iter().map(|&slot| (slot, &self.members[usize::from(slot)])) {
                    let weight = member.kept_weight();
                    if weight == 0 || selection.tried.contains(slot) {
                        continue;
                    }
                    let load = member.relative_load();
                    if member.load.in_flight() >= member.requests_max() {
                        full = true;
                        continue;
                    }
                    if load < least {
                        (least, sum) = (load, 0);
                    }
                    if load == least {
                        sum += weight;
                        if part(mix(random ^ u64::from(slot)), sum) < weight {
                            best = Some((slot, member));
                        }
                    }
                }
                let Some((slot, member)) = best else { break };
                if let Some(sum) = member.load.reserve(member.requests_max()) {
                    return self.reserved(selection, Slot(slot), sum, shard);
                }
                full = true;
            }
        }
        if full || selection.full { Pick::AllFull } else { Pick::None }
    }
}
