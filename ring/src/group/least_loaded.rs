//! The look for when all are full and the least loaded is to take the request over its bound.

use super::weighted::part;
use super::{Group, Pick};
use crate::hash::mix;
use crate::selection::Selection;
use crate::slot::Slot;

/// Looks for the least loaded that may end at one who has become full meanwhile.
const LOOKS_MAX: u32 = 4;

impl Group {
    /// The eligible member with the least load for its effective weight, whatever its bound, of the first level where one is below
    /// its hard limit; of equals, one drawn by weight.
    pub(super) fn least_loaded(&self, selection: &mut Selection, shard: usize) -> Pick {
        let home = selection.home;
        let levels = std::iter::once(home).chain((0..self.levels.len() as u8).filter(|level| *level != home));
        let mut full = false;
        for level in levels.map(|level| &self.levels[usize::from(level)]) {
            for _ in 0..LOOKS_MAX {
                let random = mix(selection.ask.hash) ^ selection.draw();
                let (mut least, mut sum, mut best) = (f64::INFINITY, 0_u64, None);
                for (slot, seat) in level.slots.iter().map(|&slot| (slot, &self.seats[usize::from(slot)])) {
                    let claim = seat.kept_claim();
                    if claim == 0 || selection.tried.contains(slot) {
                        continue;
                    }
                    let load = seat.relative_load();
                    if seat.load.in_flight() >= seat.requests_max {
                        full = true;
                        continue;
                    }
                    if load < least {
                        (least, sum) = (load, 0);
                    }
                    if load == least {
                        sum += claim;
                        if part(mix(random ^ u64::from(slot)), sum) < claim {
                            best = Some((slot, seat));
                        }
                    }
                }
                let Some((slot, seat)) = best else { break };
                if let Some(sum) = seat.load.reserve(seat.requests_max) {
                    return self.reserved(selection, Slot(slot), sum, shard);
                }
                full = true;
            }
        }
        if full || selection.full { Pick::AllFull } else { Pick::None }
    }
}
