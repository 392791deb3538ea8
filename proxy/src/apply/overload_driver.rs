//! The driver of overload: measures what is used, has the stage decided, tells workers and the log.

use crate::ambient;
use crate::dispatcher::Shared;
use crate::overload::memory;
use crate::overload::{Change, Resource, Stage, Stages, Turn, Usage, Watchdog};
use ringway_config::model::{Config, Overload};
use ringway_telemetry::catalogue;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Time between two looks.
const TURN: Duration = Duration::from_millis(250);
/// Turns between two looks at the cgroup, whose limit may be changed from outside.
const LIMIT_TURNS: u64 = 40;

/// Drives it until the workers have ended.
pub(crate) async fn drive(shared: Arc<Shared>) {
    for stage in &Stage::ALL[1..] {
        metrics::counter!(catalogue::OVERLOAD_ENTERED.name, "stage" => stage.name()).absolute(0);
    }
    let mut driver = Driver::new(shared);
    let mut ticker = tokio::time::interval(TURN);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while driver.has_workers() {
        ticker.tick().await;
        driver.turn(ambient::now());
    }
}

struct Driver {
    shared: Arc<Shared>,
    stages: Stages,
    watchdog: Watchdog,
    turns: u64,
    /// What the cgroup lets the process have.
    cgroup_bytes_max: Option<u64>,
}

impl Driver {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, stages: Stages::default(), watchdog: Watchdog::new(TURN), turns: 0, cgroup_bytes_max: None }
    }

    fn has_workers(&self) -> bool {
        !self.shared.commands.get().is_some_and(|commands| commands.iter().all(mpsc::UnboundedSender::is_closed))
    }

    fn turn(&mut self, now: Instant) {
        if self.turns.is_multiple_of(LIMIT_TURNS) {
            self.look_at_cgroup();
        }
        self.turns += 1;
        let snapshot = self.shared.current.load();
        let usage = self.measure(&snapshot.config, now);
        let change = self.stages.handle_usage(&usage, snapshot.config.overload.as_ref(), now);
        self.shared.overload.publish(self.stages.stage(), &usage);
        if let Some(change) = change {
            tell(change, &usage);
        }
    }

    fn look_at_cgroup(&mut self) {
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
        usage.set(Resource::Memory, self.memory(overload));
        usage.set(Resource::Connections, self.connections(config.process.connections_max));
        usage.set(Resource::Descriptors, self.shared.shortage.use_by_clients());
        usage
    }

    fn memory(&self, overload: Option<&Overload>) -> Option<(u64, u64)> {
        let limit = overload.and_then(|overload| overload.memory_bytes_max).or(self.cgroup_bytes_max)?;
        Some((memory::resident(memory::read)?, limit))
    }

    /// The longest of all workers. Those that are stuck, or go on, are named, whether or not it has a limit.
    fn lag(&mut self, most: Option<Duration>, now: Instant) -> Option<(u64, u64)> {
        let (longest, turns) = self.watchdog.look(&self.shared.overload.ticks, now)?;
        turns.into_iter().for_each(tell_of_worker);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Some((millis(longest), millis(most?)))
    }

    /// Against what the process takes before clients wait.
    fn connections(&self, most: usize) -> Option<(u64, u64)> {
        let occupancy = &self.shared.occupancy;
        let borne = self.shared.shortage.connections_max().saturating_add(occupancy.flows.load(Relaxed) / 2);
        Some((occupancy.connections.load(Relaxed) as u64, most.min(borne) as u64))
    }
}

fn tell_of_worker(Turn { worker, is_stuck, silent }: Turn) {
    let silent_seconds = silent.as_secs_f64();
    match is_stuck {
        true => tracing::error!(
            worker,
            silent_seconds,
            "worker {worker} is stuck: it has not looked at what is due for {silent_seconds:.1} s; its clients wait"
        ),
        false => tracing::warn!(worker, silent_seconds, "worker {worker} goes on, after {silent_seconds:.1} s"),
    }
}

/// Counts a change, and logs it.
fn tell(Change { from, to, by }: Change, usage: &Usage) {
    let (used, limit) = usage.of(by).unwrap_or_default();
    let (stage, before, resource, unit) = (to.name(), from.name(), by.name(), by.unit());
    let percent = (usage.pressure(by) * 100.0).round();
    if to > from {
        metrics::counter!(catalogue::OVERLOAD_ENTERED.name, "stage" => stage).increment(1);
        let effect = to.effect();
        tracing::warn!(
            stage,
            before,
            resource,
            used,
            limit,
            "overload: {used} of {limit} {unit} are used, {percent} %: {effect}"
        );
    } else {
        tracing::info!(
            stage,
            before,
            resource,
            used,
            limit,
            "less overload: {used} of {limit} {unit} are used, {percent} %"
        );
    }
}
