//! Which requests are refused by their priority: what share of each.

use super::stage::{Resource, Stage, Usage};
use ringway_config::model::{Overload, Priority};

/// What share of new requests is refused, by priority: 1 is all. Of high priority none is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Shed {
    pub(crate) low: f64,
    pub(crate) default: f64,
}

impl Shed {
    /// By how far the resource that is used most has come on the way from this stage to the next, so that there is no step at which all
    /// clients are refused at once: low priority on the first half of the way, default on the second; without default, low priority on all of
    /// it. A resource that does not lead to the next stage takes nothing but what is low; where the next begins at once, it has what is left
    /// of the resource for that.
    pub(crate) fn of(usage: &Usage, config: &Overload) -> Self {
        let mut shed = Self::default();
        let begin = config.shed_low_priority;
        for resource in Resource::ALL {
            let last = resource.last_stage(config);
            if last < Stage::ShedLowPriority {
                continue;
            }
            let has_way = config.refuse_requests > begin;
            let end = if has_way || last > Stage::ShedLowPriority { config.refuse_requests } else { 1.0 };
            let come = (usage.pressure(resource) - begin) / (end - begin).max(f64::EPSILON);
            let low = if config.sheds_default && has_way { come * 2.0 } else { come };
            shed.low = shed.low.max(low.clamp(0.0, 1.0));
            if config.sheds_default && last > Stage::ShedLowPriority {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::Duration;

    /// A way from 80 % to 90 %, written.
    pub(in super::super) fn config() -> Overload {
        Overload {
            memory_bytes_max: None,
            memory_site: <_>::default(),
            lag_max: None,
            connections: true,
            stop_keep_alive: 0.7,
            shed_low_priority: 0.8,
            sheds_default: true,
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
    fn default_priority_is_refused_no_earlier_than_all_unless_the_threshold_is_written() {
        let unwritten = Overload { sheds_default: false, ..config() };
        for resource in Resource::ALL {
            for (percent, low) in [(800, 0.0), (810, 0.1), (850, 0.5), (899, 0.99), (900, 1.0)] {
                assert_eq!(shed(resource, percent, &unwritten), (low, 0.0), "{resource:?} {percent}");
            }
        }
    }

    #[test]
    fn thresholds_that_are_equal_leave_no_way_in_between_but_what_is_left_of_places() {
        for sheds_default in [true, false] {
            let equal = Overload { shed_low_priority: 0.9, sheds_default, ..config() };
            assert_eq!(shed(Resource::Memory, 900, &equal), (0.0, 0.0));
            for (percent, low) in [(900, 0.0), (925, 0.25), (950, 0.5), (1_000, 1.0)] {
                assert_eq!(shed(Resource::Connections, percent, &equal), (low, 0.0), "{percent}");
            }
        }
    }
}
