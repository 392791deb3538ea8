//! Which requests are refused by their priority: what share of each, and which ones.

use super::stage::{Resource, Stage, Usage};
use ringway_config::model::{Overload, Priority};
use std::cell::Cell;

/// What share of new requests is refused, by priority: 1 is all. Of high priority none is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Shed {
    pub(crate) low: f64,
    pub(crate) default: f64,
}

impl Shed {
    /// By how far the resource that is used most has come on the way from this stage to the next: low priority on the first half of it,
    /// default on the second, so that there is no step at which all clients are refused at once. A resource that does not lead to the next
    /// stage takes nothing but what is low.
    pub(crate) fn of(usage: &Usage, config: &Overload) -> Self {
        let mut shed = Self::default();
        let way = (config.refuse_requests - config.shed_low_priority).max(f64::EPSILON);
        for resource in Resource::ALL {
            let last = resource.last_stage(config);
            if last < Stage::ShedLowPriority {
                continue;
            }
            let come = (usage.pressure(resource) - config.shed_low_priority) / way;
            shed.low = shed.low.max((come * 2.0).clamp(0.0, 1.0));
            if last > Stage::ShedLowPriority {
                shed.default = shed.default.max((come * 2.0 - 1.0).clamp(0.0, 1.0));
            }
        }
        shed
    }

    pub(crate) fn share(&self, priority: Priority) -> f64 {
        match priority {
            Priority::Low => self.low,
            Priority::Default => self.default,
            Priority::High => 0.0,
        }
    }
}

/// Whose turn it is to be refused, of one worker's requests of each priority: an even part of what comes, whoever sends it, so that the
/// refused do not come back together.
#[derive(Debug, Default)]
pub(crate) struct Turns([Cell<u32>; 3]);

impl Turns {
    /// Whether the next request of this priority is refused, of this share of all; `u32::MAX` is all.
    pub(super) fn next(&self, priority: Priority, share: u32) -> bool {
        let sum = &self.0[priority as usize];
        let (next, is_refused) = sum.get().overflowing_add(share);
        sum.set(next);
        is_refused || share == u32::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn config() -> Overload {
        Overload {
            memory_bytes_max: None,
            lag_max: None,
            connections: true,
            stop_keep_alive: 0.7,
            shed_low_priority: 0.8,
            refuse_requests: 0.9,
            stop_accepting: 0.95,
            hold: Duration::ZERO,
        }
    }

    fn shed(resource: Resource, percent: u64, config: &Overload) -> (f64, f64) {
        let mut usage = Usage::default();
        usage.set(resource, Some((percent, 1_000)));
        let shed = Shed::of(&usage, config);
        assert_eq!(shed.share(Priority::High), 0.0);
        let rounded = |share: f64| (share * 100.0).round() / 100.0;
        (rounded(shed.share(Priority::Low)), rounded(shed.share(Priority::Default)))
    }

    #[test]
    fn low_priority_goes_on_the_first_half_of_the_way_and_default_on_the_second() {
        for resource in [Resource::Memory, Resource::Lag] {
            for (percent, low, default) in [
                (0, 0.0, 0.0),
                (790, 0.0, 0.0),
                (800, 0.0, 0.0),
                (810, 0.2, 0.0),
                (840, 0.8, 0.0),
                (850, 1.0, 0.0),
                (875, 1.0, 0.5),
                (900, 1.0, 1.0),
                (2_000, 1.0, 1.0),
            ] {
                assert_eq!(shed(resource, percent, &config()), (low, default), "{percent}");
            }
        }
    }

    #[test]
    fn places_and_descriptors_are_freed_of_low_priority_alone_and_only_if_they_are_looked_at() {
        for resource in [Resource::Connections, Resource::Descriptors] {
            assert_eq!(shed(resource, 825, &config()), (0.5, 0.0));
            assert_eq!(shed(resource, 1_000, &config()), (1.0, 0.0));
            assert_eq!(shed(resource, 1_000, &Overload { connections: false, ..config() }), (0.0, 0.0));
        }
    }

    #[test]
    fn thresholds_that_are_equal_leave_no_way_in_between() {
        let equal = Overload { shed_low_priority: 0.9, ..config() };
        assert_eq!(shed(Resource::Memory, 899, &equal), (0.0, 0.0));
        assert_eq!(shed(Resource::Memory, 901, &equal), (1.0, 1.0));
    }

    #[test]
    fn each_share_is_kept_to_a_request_and_spread_evenly() {
        for percent in [0, 1, 10, 33, 50, 90, 99] {
            let share = (f64::from(percent) / 100.0 * f64::from(u32::MAX)) as u32;
            let turns = Turns::default();
            let refused: Vec<bool> = (0..1_000).map(|_| turns.next(Priority::Low, share)).collect();
            for (end, window) in refused.windows(100).enumerate() {
                let count = window.iter().filter(|refused| **refused).count();
                assert!(count.abs_diff(percent as usize) <= 1, "{percent} %: {count} of a hundred up to {end}");
            }
        }
        let turns = Turns::default();
        assert!((0..1_000).all(|_| turns.next(Priority::Default, u32::MAX)), "all are all");
        assert!(!turns.next(Priority::Low, u32::MAX / 2), "priorities have turns of their own");
    }
}
