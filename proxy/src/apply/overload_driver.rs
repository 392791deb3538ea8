//! The driver of overload: measures what is used, has the stage decided, tells workers and the log.

use super::health_driver::supervise;
use super::stand_ins::StandIns;
use crate::ambient;
use crate::dispatcher::Shared;
use crate::overload::memory;
use crate::overload::{BusyMeter, Change, OwnWork, Resource, Shed, Stage, Stages, Turn, Usage, Watchdog};
use crate::snapshot::journal::{Happening, Journal};
use ringway_config::model::{Config, Overload};
use ringway_telemetry::catalogue;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Time between two looks.
const TURN: Duration = Duration::from_millis(250);
/// Turns between two looks at the cgroup, whose limit may be changed from outside.
const LIMIT_TURNS: u64 = 4;

/// So many looks at lag count: what has been above its limit in all of them is no moment's.
const LAGS: usize = 4;

/// Drives it until the workers have ended.
pub(crate) async fn drive(shared: Arc<Shared>) {
    supervise(
        || drive_once(Arc::clone(&shared)),
        || {
            shared.counters.note_panic();
            tracing::error!("the driver of overload has panicked: a bug, please report it");
        },
    )
    .await;
}

async fn drive_once(shared: Arc<Shared>) {
    for stage in &Stage::ALL[1..] {
        metrics::counter!(catalogue::OVERLOAD_ENTERED.name, "stage" => stage.name()).absolute(0);
    }
    let mut driver = Driver::new(shared);
    let mut ticker = tokio::time::interval(TURN);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while driver.shared.has_workers() {
        ticker.tick().await;
        driver.turn(ambient::now());
    }
}

struct Driver {
    shared: Arc<Shared>,
    /// What follows from all but lag.
    room: Stages,
    /// What follows from lag: new requests are refused, by priority and then all, nothing else. Connections that end and are made anew would cost more time.
    time: Stages,
    watchdog: Watchdog,
    busy: BusyMeter,
    /// As of the last looks, the oldest overwritten next.
    lags: [Duration; LAGS],
    turns: u64,
    /// What the cgroup lets the process have.
    cgroup_bytes_max: Option<u64>,
    /// As of the last look that could be had.
    resident: Option<u64>,
    own_work: OwnWork,
    stand_ins: StandIns,
}

impl Driver {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            room: Stages::default(),
            time: Stages::default(),
            watchdog: Watchdog::new(TURN),
            busy: BusyMeter::default(),
            lags: [Duration::ZERO; LAGS],
            turns: 0,
            cgroup_bytes_max: None,
            resident: None,
            own_work: OwnWork::default(),
            stand_ins: StandIns::default(),
        }
    }

    fn turn(&mut self, now: Instant) {
        if self.turns.is_multiple_of(LIMIT_TURNS) {
            self.look_at_cgroup();
        }
        self.turns += 1;
        let snapshot = self.shared.current.load();
        let usage = self.measure(&snapshot.config, now);
        let overload = &self.shared.overload;
        self.busy.look(&overload.busy, overload.ticks.found().map(|found| found.is_stuck), now);
        let stuck: Vec<bool> = overload.ticks.found().map(|found| found.is_stuck).collect();
        self.stand_ins.look(&self.shared, &stuck);
        self.decide(&usage, snapshot.config.overload.as_ref(), now);
    }

    fn decide(&mut self, usage: &Usage, config: Option<&Overload>, now: Instant) {
        let (mut of_room, mut of_time) = (*usage, Usage::default());
        of_room.set(Resource::Lag, None);
        of_time.set(Resource::Lag, usage.of(Resource::Lag));
        let change = self.room.handle_usage(&of_room, config, now);
        let of_lag = self.time.handle_usage(&of_time, config, now).and_then(refusing);
        let stage = self.room.stage().max(of_lag_alone(self.time.stage()));
        let shed = config.map_or_else(Shed::default, |config| Shed::of(usage, config));
        self.shared.overload.publish(stage, self.room.stage() >= Stage::StopKeepAlive, shed, usage);
        change.into_iter().chain(of_lag).for_each(|change| tell(change, usage, &self.shared.journal));
    }

    fn look_at_cgroup(&mut self) {
        // Where no file can be opened, because no descriptor is left, there is no word of a limit; what was known holds.
        if memory::resident(memory::read).is_none() {
            return;
        }
        let limit = memory::limit(memory::read);
        if limit != self.cgroup_bytes_max || self.turns == 0 {
            match limit {
                Some(limit) => tracing::info!("the cgroup limits memory to {limit} bytes"),
                None => tracing::info!("no cgroup limits memory"),
            }
        }
        self.cgroup_bytes_max = limit;
    }

    fn measure(&mut self, config: &Config, now: Instant) -> Usage {
        let mut usage = Usage::default();
        let overload = config.overload.as_ref();
        usage.set(Resource::Lag, self.lag(overload.and_then(|overload| overload.lag_max), now));
        usage.set(Resource::Memory, self.memory(overload, now));
        usage.set(Resource::Connections, self.connections(config.process.connections_max));
        usage.set(Resource::Descriptors, self.shared.shortage.use_by_clients());
        usage
    }

    fn memory(&mut self, overload: Option<&Overload>, now: Instant) -> Option<(u64, u64)> {
        let limit = overload.and_then(|overload| overload.memory_bytes_max).or(self.cgroup_bytes_max)?;
        // One that cannot be read just now is not gone.
        let resident = memory::resident(memory::read).or(self.resident)?;
        self.resident = Some(resident);
        let changes = &self.shared.overload.changes;
        Some((self.own_work.without(resident, (changes.is_under_way(), changes.resident()), now), limit))
    }

    /// Of the worker that is least late, at the best of the last looks: where one alone is late, or all were for a moment, there is time
    /// left. A look that says nothing leaves it as it was. Workers that are stuck, or go on, are named, whether or not it has a limit.
    fn lag(&mut self, most: Option<Duration>, now: Instant) -> Option<(u64, u64)> {
        if let Some((lag, turns)) = self.watchdog.look(&self.shared.overload.ticks, now) {
            turns.into_iter().for_each(tell_of_worker);
            self.lags.rotate_left(1);
            self.lags[LAGS - 1] = lag;
        }
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Some((millis(self.lags.into_iter().min().unwrap_or_default()), millis(most?)))
    }

    /// Against what the process takes before clients wait.
    fn connections(&self, most: usize) -> Option<(u64, u64)> {
        let occupancy = &self.shared.occupancy;
        let borne = self.shared.shortage.connections_max().saturating_add(occupancy.flows.load(Relaxed) / 2);
        Some((occupancy.connections.load(Relaxed) as u64, most.min(borne) as u64))
    }
}

/// What a stage that lag asks for stops.
fn of_lag_alone(stage: Stage) -> Stage {
    if stage < Stage::ShedLowPriority { Stage::Normal } else { stage }
}

/// A change of what lag stops, if it is one.
fn refusing(Change { from, to, by }: Change) -> Option<Change> {
    let (from, to) = (of_lag_alone(from), of_lag_alone(to));
    (from != to).then_some(Change { from, to, by })
}

fn tell_of_worker(Turn { worker, is_stuck, silent }: Turn) {
    let silent_seconds = silent.as_secs_f64();
    match is_stuck {
        true => tracing::error!(
            worker,
            silent_seconds,
            "worker {worker} is stuck: it has not looked at what is due for {silent_seconds:.1} s; its clients wait, and others accept in its place"
        ),
        false => tracing::warn!(worker, silent_seconds, "worker {worker} goes on, after {silent_seconds:.1} s"),
    }
}

/// Counts a change, logs it and keeps it.
fn tell(Change { from, to, by }: Change, usage: &Usage, journal: &Journal) {
    let (used, limit) = usage.of(by).unwrap_or_default();
    let (stage, before, resource, unit) = (to.name(), from.name(), by.name(), by.unit());
    let percent = (usage.pressure(by) * 100.0).round();
    let of_it = match usage.of(by) {
        Some(_) => format!("{used} of {limit} {unit} are used, {percent} %"),
        None => format!("{resource} is not looked at any more"),
    };
    let text = format!("{of_it}: {}", to.effect());
    journal.note(&Happening { kind: "overload", to: stage, text, ..Happening::default() });
    if to > from {
        metrics::counter!(catalogue::OVERLOAD_ENTERED.name, "stage" => stage).increment(1);
        let effect = to.effect();
        tracing::warn!(stage, before, resource, used, limit, "overload: {of_it}: {effect}");
    } else {
        tracing::info!(stage, before, resource, used, limit, "less overload: {of_it}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn only_what_all_workers_are_late_for_a_while_refuses_and_refuses_alone() {
        let config = testing::config(
            "listeners: [ { name: l, address: \"127.0.0.1:0\", service: s } ]\noverload: { lag_max: 100ms, hold: 1s }\n\
             services: [ { name: s, backends: [ { id: a, address: \"127.0.0.1:9\" } ] } ]\nworkers: 2\n",
        );
        let shared = crate::proxy::shared(&config, &ringway_telemetry::Metrics::install());
        let (mut driver, mut now) = (Driver::new(Arc::clone(&shared)), ambient::now());
        let overload = config.overload.as_ref().unwrap();
        // A turn in which each worker was so late, in milliseconds; the stage that follows.
        let mut turn = |late: [u64; 2]| {
            for (worker, millis) in late.into_iter().enumerate() {
                for part in 0..5 {
                    let at = now + TURN / 5 * part;
                    shared.overload.ticks.note(worker, at - Duration::from_millis(millis), at);
                }
            }
            now += TURN;
            let mut usage = Usage::default();
            usage.set(Resource::Lag, driver.lag(overload.lag_max, now));
            driver.decide(&usage, Some(overload), now);
            assert!(!shared.overload.stops_keep_alive());
            assert_eq!(shared.overload.sheds(), shared.overload.stage() >= Stage::ShedLowPriority);
            shared.overload.stage()
        };
        for late in
            [[200, 0], [0, 900], [200, 200], [200, 200], [200, 200], [0, 200], [85, 85], [90, 90], [85, 85], [90, 90]]
        {
            assert_eq!(turn(late), Stage::Normal, "{late:?}");
        }
        let stages = [[200, 99], [99, 99], [95, 95], [92, 92], [93, 200]].map(&mut turn);
        let (shed, refuse) = (Stage::ShedLowPriority, Stage::RefuseRequests);
        assert_eq!(stages, [Stage::Normal, Stage::Normal, shed, refuse, refuse]);
        let mut after: Vec<Stage> = (0..16).map(|_| turn([0, 0])).collect();
        after.dedup();
        assert_eq!(after, [refuse, shed, Stage::Normal]);
    }
}
