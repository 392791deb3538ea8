//! Which stage of overload follows from the pressures: a pure state machine with hysteresis.

use ringway_config::model::Overload;
use std::time::Instant;

/// A stage ends below this part of its threshold: what wavers about a threshold changes nothing.
const LEAVE_AT: f64 = 0.95;

/// What a process under pressure stops doing; each stage includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Normal,
    /// Clients' connections end with their next response.
    StopKeepAlive,
    /// New requests, sessions and flows are refused by their priority, the more of them the less is left.
    ShedLowPriority,
    /// All new requests, sessions and flows are refused.
    RefuseRequests,
    /// New connections wait in the kernel's queue.
    StopAccepting,
}

impl Stage {
    pub(crate) const ALL: [Self; 5] =
        [Self::Normal, Self::StopKeepAlive, Self::ShedLowPriority, Self::RefuseRequests, Self::StopAccepting];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::StopKeepAlive => "stop_keep_alive",
            Self::ShedLowPriority => "shed_low_priority",
            Self::RefuseRequests => "refuse_requests",
            Self::StopAccepting => "stop_accepting",
        }
    }

    /// The stage with this number; past the last one, the last.
    pub(super) fn of(number: u8) -> Self {
        Self::ALL[usize::from(number).min(Self::ALL.len() - 1)]
    }

    /// What becomes of clients in it.
    pub(crate) fn effect(self) -> &'static str {
        match self {
            Self::Normal => "nothing is stopped",
            Self::StopKeepAlive => "connections end with their next response",
            Self::ShedLowPriority => "new requests of low priority are refused, the more the less is left",
            Self::RefuseRequests => "new requests are refused",
            Self::StopAccepting => "new connections wait in the kernel's queue",
        }
    }

    fn before(self) -> Self {
        Self::of((self as u8).saturating_sub(1))
    }
}

/// What can be used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Resident memory against its limit.
    Memory,
    /// How late the slowest worker is, against `lag_max`.
    Lag,
    /// Client connections against `connections_max`.
    Connections,
    /// Descriptors against what clients may have of them.
    Descriptors,
}

impl Resource {
    pub(crate) const ALL: [Self; 4] = [Self::Memory, Self::Lag, Self::Connections, Self::Descriptors];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Lag => "lag",
            Self::Connections => "connections",
            Self::Descriptors => "descriptors",
        }
    }

    /// What is counted of it.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Memory => "bytes of memory",
            Self::Lag => "milliseconds of lag",
            Self::Connections => "connections",
            Self::Descriptors => "descriptors",
        }
    }

    /// The last stage that it may lead to. Where connections or descriptors are used up, clients wait in the kernel's queue anyway, and
    /// those that have one are served: only that they keep it for nothing, or for little, helps nobody. Late workers accept late by
    /// themselves.
    pub(super) fn last_stage(self, config: &Overload) -> Stage {
        match self {
            Self::Memory => Stage::StopAccepting,
            Self::Lag => Stage::RefuseRequests,
            Self::Connections | Self::Descriptors if config.connections => Stage::ShedLowPriority,
            Self::Connections | Self::Descriptors => Stage::Normal,
        }
    }
}

/// How much of each resource is used, and how much there is. Not there: it has no limit, or is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Usage([Option<(u64, u64)>; Resource::ALL.len()]);

impl Usage {
    /// Used, and most.
    pub(crate) fn set(&mut self, resource: Resource, measured: Option<(u64, u64)>) {
        self.0[resource as usize] = measured;
    }

    pub(crate) fn of(&self, resource: Resource) -> Option<(u64, u64)> {
        self.0[resource as usize]
    }

    /// The share that is used: 1 is all, 0 where it is not looked at.
    pub(crate) fn pressure(&self, resource: Resource) -> f64 {
        self.of(resource).map_or(0.0, |(used, most)| used as f64 / most.max(1) as f64)
    }

    /// The furthest stage that a resource asks for, and the resource, by this part of the configured thresholds. The one that is used
    /// most, if several ask for the same.
    fn asked(&self, config: &Overload, part: f64) -> (Stage, Resource) {
        let mut furthest = (Stage::Normal, Resource::Memory);
        for resource in Resource::ALL {
            let pressure = self.pressure(resource);
            let reached = |stage: &Stage| pressure >= enter_at(*stage, config) * part;
            let stage = Stage::ALL.into_iter().skip(1).take_while(reached).last().unwrap_or(Stage::Normal);
            let stage = stage.min(resource.last_stage(config));
            if stage > furthest.0 || (stage == furthest.0 && pressure > self.pressure(furthest.1)) {
                furthest = (stage, resource);
            }
        }
        furthest
    }
}

/// The pressure from which on a stage holds.
fn enter_at(stage: Stage, config: &Overload) -> f64 {
    match stage {
        Stage::Normal => 0.0,
        Stage::StopKeepAlive => config.stop_keep_alive,
        Stage::ShedLowPriority => config.shed_low_priority,
        Stage::RefuseRequests => config.refuse_requests,
        Stage::StopAccepting => config.stop_accepting,
    }
}

/// A change of stage, and the resource that has led to the highest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: Stage,
    pub(crate) to: Stage,
    pub(crate) by: Resource,
}

/// The stage that is in force. It is entered at once, and left one step at a time, each after all pressures have been below 95 % of its
/// threshold for `hold`, without a break; at once where the configuration has another section, or what has led to it has no limit any more.
/// Who has waited in the kernel's queue is served then: no step leads to where all are refused, unless something asks for that.
#[derive(Debug)]
pub(crate) struct Stages {
    stage: Stage,
    /// The resource that has led to it.
    by: Resource,
    /// Since when the stage could be left.
    below_since: Option<Instant>,
    /// What it was decided by.
    decided_by: Option<Overload>,
}

impl Default for Stages {
    /// Of a process that begins.
    fn default() -> Self {
        Self { stage: Stage::Normal, by: Resource::Memory, below_since: None, decided_by: None }
    }
}

impl Stages {
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes in what has been measured; without a configuration nothing is stopped. `Some`: the stage is another one now.
    pub(crate) fn handle_usage(&mut self, usage: &Usage, config: Option<&Overload>, now: Instant) -> Option<Change> {
        let from = self.stage;
        let Some(config) = config else {
            let change = Change { from, to: Stage::Normal, by: self.by };
            *self = Self::default();
            return (from != Stage::Normal).then_some(change);
        };
        let is_new = self.decided_by.replace(config.clone()).is_some_and(|before| before != *config);
        let (asked, by) = usage.asked(config, 1.0);
        if asked > from {
            (self.stage, self.by, self.below_since) = (asked, by, None);
            return Some(Change { from, to: asked, by });
        }
        let (held, holder) = usage.asked(config, LEAVE_AT);
        if held >= from {
            // Perhaps what has led to it asks for less by now, and another does not.
            (self.by, self.below_since) = (holder, None);
            return None;
        }
        let by = self.by;
        if held > Stage::Normal {
            self.by = holder;
        }
        if is_new || usage.of(by).is_none() {
            (self.stage, self.below_since) = (held, None);
            return Some(Change { from, to: held, by });
        }
        let since = *self.below_since.get_or_insert(now);
        if now.saturating_duration_since(since) < config.hold {
            return None;
        }
        self.stage = from.before();
        if self.stage == Stage::RefuseRequests && held < self.stage {
            self.stage = self.stage.before();
        }
        // The next step has to wait as long.
        self.below_since = Some(now);
        Some(Change { from, to: self.stage, by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;
    use proptest::prelude::*;
    use std::time::Duration;

    const HOLD: Duration = Duration::from_secs(2);
    const TURN: Duration = Duration::from_millis(250);

    fn config() -> Overload {
        Overload {
            memory_bytes_max: None,
            memory_site: <_>::default(),
            lag_max: None,
            connections: true,
            stop_keep_alive: 0.8,
            shed_low_priority: 0.86,
            sheds_default: true,
            refuse_requests: 0.9,
            stop_accepting: 0.95,
            hold: HOLD,
        }
    }

    /// Usage of one resource, out of 100,000.
    fn only(resource: Resource, pressure: f64) -> Usage {
        let mut usage = Usage::default();
        usage.set(resource, Some(((pressure * 100_000.0).round() as u64, 100_000)));
        usage
    }

    #[test]
    fn a_stage_is_entered_at_once_at_its_threshold_and_by_the_resource_that_has_reached_it() {
        for (pressure, stage) in [
            (0.79, Stage::Normal),
            (0.8, Stage::StopKeepAlive),
            (0.859, Stage::StopKeepAlive),
            (0.86, Stage::ShedLowPriority),
            (0.9, Stage::RefuseRequests),
            (0.95, Stage::StopAccepting),
            (40.0, Stage::StopAccepting),
        ] {
            let mut stages = Stages::default();
            let change = stages.handle_usage(&only(Resource::Memory, pressure), Some(&config()), ambient::now());
            assert_eq!(stages.stage(), stage, "{pressure}");
            let expected = Change { from: Stage::Normal, to: stage, by: Resource::Memory };
            assert_eq!(change, (stage != Stage::Normal).then_some(expected), "{pressure}");
        }
    }

    #[test]
    fn what_makes_clients_wait_anyway_refuses_low_priority_at_most_and_late_workers_still_accept() {
        for (resource, last) in [
            (Resource::Lag, Stage::RefuseRequests),
            (Resource::Connections, Stage::ShedLowPriority),
            (Resource::Descriptors, Stage::ShedLowPriority),
        ] {
            let mut stages = Stages::default();
            let change = stages.handle_usage(&only(resource, 5.0), Some(&config()), ambient::now()).unwrap();
            assert_eq!((change.to, change.by), (last, resource));
        }
    }

    #[test]
    fn a_stage_is_left_step_by_step_each_after_its_time_below() {
        let (mut stages, begin) = (Stages::default(), ambient::now());
        stages.handle_usage(&only(Resource::Memory, 1.0), Some(&config()), begin);
        let mut left = Vec::new();
        for turn in 1..=40 {
            let now = begin + TURN * turn;
            if let Some(change) = stages.handle_usage(&only(Resource::Memory, 0.1), Some(&config()), now) {
                left.push((change.to, now - begin));
            }
        }
        let after = |turns: u32| TURN * turns;
        // Those who have waited in the kernel's queue are not refused.
        let expected =
            [(Stage::ShedLowPriority, after(9)), (Stage::StopKeepAlive, after(17)), (Stage::Normal, after(25))];
        assert_eq!(left, expected);
        // Unless there is no room for them yet.
        stages.handle_usage(&only(Resource::Memory, 1.0), Some(&config()), begin);
        let some = only(Resource::Memory, 0.88);
        stages.handle_usage(&some, Some(&config()), begin);
        let change = stages.handle_usage(&some, Some(&config()), begin + HOLD).unwrap();
        assert_eq!(change.to, Stage::RefuseRequests);
    }

    #[test]
    fn what_has_no_limit_any_more_stops_nothing_and_who_still_asks_is_named() {
        let (mut stages, begin) = (Stages::default(), ambient::now());
        let mut usage = only(Resource::Connections, 0.9);
        stages.handle_usage(&usage, Some(&config()), begin);
        assert_eq!((stages.stage(), stages.by), (Stage::ShedLowPriority, Resource::Connections));
        usage.set(Resource::Memory, Some((92, 100)));
        let change = stages.handle_usage(&usage, Some(&config()), begin).unwrap();
        assert_eq!((change.to, change.by), (Stage::RefuseRequests, Resource::Memory));
        usage.set(Resource::Memory, None);
        let change = stages.handle_usage(&usage, Some(&config()), begin + TURN).unwrap();
        assert_eq!((change.to, change.by), (Stage::ShedLowPriority, Resource::Memory));
        // What ends now was the connections'.
        usage.set(Resource::Connections, Some((1, 100)));
        assert_eq!(stages.handle_usage(&usage, Some(&config()), begin + TURN * 2), None);
        let change = stages.handle_usage(&usage, Some(&config()), begin + TURN * 2 + HOLD).unwrap();
        assert_eq!((change.to, change.by), (Stage::StopKeepAlive, Resource::Connections));
        // Two ask for the same, and the one that has led to it goes.
        let mut both = only(Resource::Connections, 0.9);
        both.set(Resource::Memory, Some((87, 100)));
        let mut stages = Stages::default();
        stages.handle_usage(&both, Some(&config()), begin);
        assert_eq!(stages.by, Resource::Connections);
        both.set(Resource::Connections, Some((1, 100)));
        assert_eq!(stages.handle_usage(&both, Some(&config()), begin), None);
        assert_eq!(stages.by, Resource::Memory);
    }

    #[test]
    fn another_section_holds_at_once_in_both_directions() {
        let (mut stages, begin) = (Stages::default(), ambient::now());
        let usage = only(Resource::Memory, 0.97);
        stages.handle_usage(&usage, Some(&config()), begin);
        assert_eq!(stages.stage(), Stage::StopAccepting);
        let wider = Overload { stop_accepting: 1.05, refuse_requests: 1.05, ..config() };
        let change = stages.handle_usage(&usage, Some(&wider), begin + TURN).unwrap();
        assert_eq!((change.from, change.to), (Stage::StopAccepting, Stage::StopAccepting.before().before()));
        // The limit has gone.
        let none = Overload { memory_bytes_max: Some(1), ..config() };
        let change = stages.handle_usage(&Usage::default(), Some(&none), begin + TURN * 2).unwrap();
        assert_eq!(change.to, Stage::Normal);
        assert_eq!(stages.handle_usage(&Usage::default(), Some(&none), begin + TURN * 3), None);
        stages.handle_usage(&usage, Some(&config()), begin + TURN * 4);
        assert_eq!(stages.stage(), Stage::StopAccepting);
    }

    #[test]
    fn between_both_thresholds_nothing_changes_however_long() {
        let (mut stages, begin) = (Stages::default(), ambient::now());
        stages.handle_usage(&only(Resource::Memory, 0.9), Some(&config()), begin);
        for turn in 1..1_000 {
            let change = stages.handle_usage(&only(Resource::Memory, 0.8551), Some(&config()), begin + TURN * turn);
            assert_eq!((change, stages.stage()), (None, Stage::RefuseRequests));
        }
    }

    #[test]
    fn a_pressure_that_flaps_changes_the_stage_once() {
        let (mut stages, begin) = (Stages::default(), ambient::now());
        let mut changes = 0;
        for turn in 0..1_000 {
            let pressure = if turn % 4 == 0 { 0.97 } else { 0.1 };
            let change = stages.handle_usage(&only(Resource::Memory, pressure), Some(&config()), begin + TURN * turn);
            changes += usize::from(change.is_some());
        }
        assert_eq!((changes, stages.stage()), (1, Stage::StopAccepting));
    }

    #[test]
    fn resources_that_are_not_looked_at_stop_nothing() {
        let unseen = Overload { connections: false, ..config() };
        for resource in [Resource::Connections, Resource::Descriptors] {
            let mut stages = Stages::default();
            assert_eq!(stages.handle_usage(&only(resource, 9.0), Some(&unseen), ambient::now()), None);
        }
        assert_eq!(Stages::default().handle_usage(&Usage::default(), Some(&config()), ambient::now()), None);
    }

    #[test]
    fn without_a_configuration_a_stage_ends_at_once() {
        let (mut stages, now) = (Stages::default(), ambient::now());
        stages.handle_usage(&only(Resource::Memory, 2.0), Some(&config()), now);
        let change = stages.handle_usage(&only(Resource::Memory, 2.0), None, now).unwrap();
        assert_eq!((change.from, change.to, stages.stage()), (Stage::StopAccepting, Stage::Normal, Stage::Normal));
        assert_eq!(stages.handle_usage(&only(Resource::Memory, 2.0), None, now), None);
    }

    proptest! {
        #[test]
        fn a_stage_holds_as_long_as_a_pressure_is_at_its_leave_threshold(
            samples in prop::collection::vec((prop::array::uniform4(0_u64..1_200), 1_u64..3_000), 1..200),
        ) {
            let (config, mut now, mut stages) = (config(), ambient::now(), Stages::default());
            let mut below = Duration::ZERO;
            for (sample, millis) in samples {
                let usage = Usage(sample.map(|used| Some((used, 1_000))));
                let before = stages.stage();
                let step = Duration::from_millis(millis);
                now += step;
                let change = stages.handle_usage(&usage, Some(&config), now);
                prop_assert_eq!(change.map_or(before, |change| change.to), stages.stage());
                let asks = |stage: Stage, part: f64| {
                    stage == Stage::Normal
                        || Resource::ALL.into_iter().any(|resource| {
                            resource.last_stage(&config) >= stage
                                && usage.pressure(resource) >= enter_at(stage, &config) * part
                        })
                };
                // Never less than what is asked for now.
                prop_assert!(Stage::ALL.into_iter().filter(|stage| asks(*stage, 1.0)).all(|asked| stages.stage() >= asked));
                if stages.stage() > before {
                    prop_assert!(asks(stages.stage(), 1.0));
                }
                if stages.stage() < before {
                    prop_assert!(!asks(before, LEAVE_AT));
                    prop_assert!(below + step >= config.hold, "left after {:?}", below + step);
                    let is_skipped =
                        before == Stage::StopAccepting && !asks(Stage::RefuseRequests, LEAVE_AT);
                    let next = if is_skipped { Stage::ShedLowPriority } else { before.before() };
                    prop_assert_eq!(stages.stage(), next);
                }
                below = if stages.stage() < before {
                    Duration::ZERO
                } else if asks(before, LEAVE_AT) || stages.stage() > before {
                    // The time below begins with the next sample that is.
                    Duration::ZERO
                } else {
                    below + step
                };
            }
        }
    }
}
