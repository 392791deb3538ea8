//! The driver that gives each service's machines their time: active checks, ejections, ramps, hot keys, shedding.

use crate::ambient;
use crate::net::shortage::{Operation, Shortage};
use crate::probe::{Opened, Prober};
use crate::snapshot::health_events;
use crate::snapshot::{Current, Service, ServiceLive};
use ringway_health::{AgentReport, Probe, ServiceHealth, Window};
use ringway_ring::{FULL_SHARE, ShedController};
use ringway_telemetry::catalogue;
use ringway_telemetry::cells::{BackendTotals, Registry as Cells};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// Shortest time between two looks at what is due, and what each backend adds to it: with many, something always is due.
const COALESCE: Duration = Duration::from_millis(2);
const COALESCE_PER_BACKEND: Duration = Duration::from_micros(2);
/// Time between two looks at the hot keys, and two steps of shedding.
const CONTROL_PERIOD: Duration = Duration::from_millis(250);
/// Time between two samples of loads for shedding.
const SAMPLE_PERIOD: Duration = Duration::from_millis(50);

/// Wait before a driver that has panicked is begun anew.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// What has come of a check or of a question to an agent; `None`: it has ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Check(Option<Probe>),
    Agent(Option<AgentReport>),
}

/// A backend that has been asked, and what has come of it.
type Ended = (String, Found);

/// A check, or a question to an agent, that is under way. Whatever becomes of it, its end is told once: a backend whose check never
/// ended would not be checked again.
struct Underway {
    id: String,
    results: UnboundedSender<Ended>,
    found: Found,
}

impl Underway {
    /// `nothing` is told if it does not come to its end.
    fn new(id: String, results: UnboundedSender<Ended>, nothing: Found) -> Self {
        Self { id, results, found: nothing }
    }

    /// Ends with this result.
    fn end(mut self, found: Found) {
        self.found = found;
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        // A driver that has gone wants no results.
        let _ = self.results.send((std::mem::take(&mut self.id), self.found));
    }
}

/// What the driver of one service remembers between two looks.
struct Driver {
    live: Arc<ServiceLive>,
    cells: Arc<Cells>,
    shortage: Arc<Shortage>,
    concurrency: usize,
    permits: Arc<Semaphore>,
    running: JoinSet<()>,
    /// Where checks tell their results: never more than are running.
    results: (UnboundedSender<Ended>, UnboundedReceiver<Ended>),
    /// Numbers of the backends at the last window's end.
    totals: HashMap<String, BackendTotals>,
    next_window: Instant,
    shed: ShedController,
    next_sample: Instant,
    next_control: Instant,
    shedding: bool,
}

/// Drives one service until it is gone from the configuration. The caller owns the task.
pub(crate) async fn drive(current: Arc<Current>, live: Arc<ServiceLive>, cells: Arc<Cells>, shortage: Arc<Shortage>) {
    let begin = || drive_once(Arc::clone(&current), Arc::clone(&live), Arc::clone(&cells), Arc::clone(&shortage));
    supervise(begin, || {
        cells.note_panic();
        tracing::error!(service = %live.name, "the driver of the checks has panicked: a bug, please report it");
        // Its checks have gone with it.
        live.health().forget_probes(ambient::now());
    })
    .await;
}

/// Runs a task to its end, and again after a panic: a service whose driver is gone would keep its last state for ever.
async fn supervise<F>(begin: impl Fn() -> F, panicked: impl Fn())
where
    F: Future<Output = ()> + Send + 'static,
{
    // Owns the task: it ends with us.
    let mut running = JoinSet::new();
    loop {
        running.spawn(begin());
        match running.join_next().await {
            Some(Err(error)) if error.is_panic() => panicked(),
            Some(_) | None => return,
        }
        tokio::time::sleep(RESTART_DELAY).await;
    }
}

async fn drive_once(current: Arc<Current>, live: Arc<ServiceLive>, cells: Arc<Cells>, shortage: Arc<Shortage>) {
    let now = ambient::now();
    let mut driver = Driver {
        live,
        cells,
        shortage,
        concurrency: 1,
        permits: Arc::new(Semaphore::new(1)),
        running: JoinSet::new(),
        results: unbounded_channel(),
        totals: HashMap::new(),
        next_window: now,
        shed: ShedController::default(),
        next_sample: now,
        next_control: now,
        shedding: false,
    };
    let mut ended = Vec::new();
    loop {
        let snapshot = current.load();
        let service = snapshot.service(&driver.live.name).filter(|service| Arc::ptr_eq(&service.live, &driver.live));
        let Some(service) = service else { return };
        driver.reap();
        let next = driver.look(service, &std::mem::take(&mut ended), ambient::now());
        let coalesce = COALESCE + COALESCE_PER_BACKEND * service.backends.len() as u32;
        let sleep = async {
            match next {
                // What is due within a moment is done together.
                Some(at) => tokio::time::sleep_until(at.max(ambient::now() + coalesce).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(first) = driver.results.1.recv() => {
                // Many checks end at about the same time: the next look takes them in together.
                tokio::time::sleep(coalesce).await;
                ended.push(first);
                ended.extend(std::iter::from_fn(|| driver.results.1.try_recv().ok()));
            }
            () = sleep => {}
            () = driver.live.health_changed.notified() => {}
        }
    }
}

fn take_in(health: &mut ServiceHealth, service: &str, ended: &[Ended], now: Instant) {
    for (id, found) in ended {
        let (metric, result) = match found {
            Found::Check(Some(Probe::Success | Probe::Weighted(_))) => (catalogue::CHECKS, "success"),
            Found::Check(Some(Probe::Failure(_))) => (catalogue::CHECKS, "failure"),
            Found::Check(None) => (catalogue::CHECKS, "not_made"),
            Found::Agent(Some(report)) if *report == AgentReport::default() => (catalogue::AGENT_CHECKS, "silent"),
            Found::Agent(Some(_)) => (catalogue::AGENT_CHECKS, "answered"),
            Found::Agent(None) => (catalogue::AGENT_CHECKS, "not_made"),
        };
        metrics::counter!(metric.name, "service" => service.to_owned(), "result" => result).increment(1);
        match found {
            Found::Check(Some(probe)) => health.handle_probe(id, *probe, now),
            Found::Check(None) => health.handle_no_probe(id, now),
            // Nothing is taken back of what an agent has said because it could not be asked.
            Found::Agent(report) => health.handle_agent(id, report.unwrap_or_default(), now),
        }
    }
}

impl Driver {
    /// Takes in what has ended, and does what is due; gives when something is next.
    fn look(&mut self, service: &Arc<Service>, ended: &[Ended], now: Instant) -> Option<Instant> {
        let (next, due, agents) = {
            // Under one lock with what it changes where requests read: nobody sees the one without the other.
            let mut health = self.live.health();
            take_in(&mut health, &self.live.name, ended, now);
            health.handle_timeout(now);
            let (due, agents) = (health.poll_probes(now), health.poll_agents(now));
            // Most checks change nothing: then nothing is written where requests read.
            let events =
                if health.take_changed() { service.apply_health(&mut health) } else { Service::events(&mut health) };
            let next = health.poll_timeout();
            drop(health);
            health_events::publish(service, &events);
            (next, due, agents)
        };
        for id in due {
            self.begin_check(service, id, now);
        }
        for id in agents {
            self.begin_agent(service, id, now);
        }
        let others = [self.judge(service, now), self.sample(service, now), self.control(service, now)];
        others.into_iter().flatten().chain(next).min()
    }

    fn begin_check(&mut self, service: &Service, id: String, now: Instant) {
        let (Some(prober), Some(slot)) = (&service.prober, service.slot_of(&id)) else {
            // Gone since: the machine will hear of it with the next membership. Nobody was asked.
            self.live.health().handle_no_probe(&id, now);
            return;
        };
        let prober = Arc::clone(prober);
        let (address, permits, shortage) = (service.address(slot), self.permits(&prober), Arc::clone(&self.shortage));
        let underway = Underway::new(id, self.results.0.clone(), Found::Check(None));
        self.running.spawn(async move {
            // The semaphore is never closed.
            let permit = permits.acquire().await;
            let mut opened = Opened::default();
            let probe = prober.probe(address, &shortage, &mut opened).await;
            // A check that this host could not make says nothing of the backend.
            let probe = probe.inspect_err(|error| shortage.note(Operation::Check, error, address));
            underway.end(Found::Check(probe.ok()));
            drop(permit);
            opened.close().await;
        });
    }

    /// As a check, but for the question and what its answer means.
    fn begin_agent(&mut self, service: &Service, id: String, now: Instant) {
        let (Some(prober), Some(slot)) = (&service.prober, service.slot_of(&id)) else {
            self.live.health().handle_agent(&id, AgentReport::default(), now);
            return;
        };
        let prober = Arc::clone(prober);
        let (address, permits, shortage) = (service.address(slot), self.permits(&prober), Arc::clone(&self.shortage));
        let underway = Underway::new(id, self.results.0.clone(), Found::Agent(None));
        self.running.spawn(async move {
            let permit = permits.acquire().await;
            let mut opened = Opened::default();
            let report = prober.query_agent(address, &shortage, &mut opened).await;
            let report = report.inspect_err(|error| shortage.note(Operation::Check, error, address));
            underway.end(Found::Agent(report.ok()));
            drop(permit);
            opened.close().await;
        });
    }

    /// Leave for checks and questions to agents, as many at once as the service says.
    fn permits(&mut self, prober: &Prober) -> Arc<Semaphore> {
        let concurrency = prober.concurrency();
        if self.concurrency != concurrency {
            (self.concurrency, self.permits) = (concurrency, Arc::new(Semaphore::new(concurrency)));
        }
        Arc::clone(&self.permits)
    }

    /// Lets go of checks that are over.
    fn reap(&mut self) {
        while let Some(over) = self.running.try_join_next() {
            if over.is_err_and(|error| error.is_panic()) {
                self.cells.note_panic();
                tracing::error!(service = %self.live.name, "a check has panicked: a bug, please report it");
            }
        }
    }

    /// At the end of a window, lets the statistical detectors judge it.
    fn judge(&mut self, service: &Service, now: Instant) -> Option<Instant> {
        let params = &service.config.outlier;
        if !params.needs_windows() {
            self.totals.clear();
            return None;
        }
        if self.next_window > now {
            return Some(self.next_window);
        }
        self.next_window = now + params.interval;
        let mut windows = Vec::new();
        let mut totals = HashMap::new();
        for backend in &service.backends {
            let id = backend.config.id.as_str();
            let total = self.cells.backend_totals(&service.config.name, id);
            if let Some(before) = self.totals.get(id) {
                // Counters of a backend that was away meanwhile begin anew.
                let since = |pick: fn(&BackendTotals) -> u64| pick(&total).saturating_sub(pick(before));
                windows.push(Window {
                    id,
                    requests: since(|totals| totals.requests),
                    failures: since(|totals| totals.failures),
                    latency_micros: ringway_health::mean_latency_micros(
                        (since(|totals| totals.timed), since(|totals| totals.latency_micros)),
                        (since(|totals| totals.cut), since(|totals| totals.cut_micros)),
                    ),
                });
            }
            totals.insert(id.to_owned(), total);
        }
        let events = {
            let mut health = self.live.health();
            health.handle_windows(&windows, now);
            if health.take_changed() { service.apply_health(&mut health) } else { Service::events(&mut health) }
        };
        health_events::publish(service, &events);
        self.totals = totals;
        // An ejection may be over before the next window ends.
        self.live.health_changed.notify_one();
        Some(self.next_window)
    }

    /// Samples the loads, for shedding.
    fn sample(&mut self, service: &Service, now: Instant) -> Option<Instant> {
        if service.config.shed.is_none() {
            if std::mem::take(&mut self.shedding) {
                service.backends.iter().for_each(|backend| backend.state.load.set_shed(0));
                self.shed = ShedController::default();
            }
            return None;
        }
        if self.next_sample <= now {
            self.next_sample = now + SAMPLE_PERIOD;
            let eligible = service.backends.iter().filter_map(|backend| {
                let load = &backend.state.load;
                let share = f64::from(load.lifecycle()) / f64::from(FULL_SHARE) * f64::from(backend.config.weight);
                (share > 0.0).then(|| (backend.config.id.as_str(), load.in_flight(), share / 100.0))
            });
            self.shed.handle_sample(eligible);
        }
        Some(self.next_sample)
    }

    /// Hot keys and shedding: one step of each.
    fn control(&mut self, service: &Service, now: Instant) -> Option<Instant> {
        let (hot, shed) = (service.config.hot_keys, service.config.shed);
        if hot.is_none() && shed.is_none() {
            if !self.live.hot_table.load().is_empty() {
                self.live.hot_table.store(Arc::default());
            }
            return None;
        }
        if self.next_control > now {
            return Some(self.next_control);
        }
        self.next_control = now + CONTROL_PERIOD;
        if let Some(params) = shed {
            self.shedding = true;
            let shares: Vec<(String, u16)> =
                self.shed.step(&params).map(|(id, share)| (id.to_owned(), share)).collect();
            for (id, share) in shares {
                if let Some(slot) = service.slot_of(&id) {
                    service.backends[usize::from(slot.0)].state.load.set_shed(share);
                }
            }
        }
        if let Some(params) = hot {
            let mut keys = self.live.hot.lock().unwrap_or_else(PoisonError::into_inner);
            if keys.update(&params, service.group.eligible_members()) {
                let table = keys.keys().iter().map(|(hash, key)| (*hash, key.owners)).collect();
                self.live.hot_table.store(Arc::new(table));
            }
        }
        Some(self.next_control)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_health::{CheckParams, Member, Params};
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    #[tokio::test]
    async fn a_check_that_panics_or_is_aborted_ends_without_a_result() {
        let (sender, mut results) = unbounded_channel();
        let underway = |id: &str| Underway::new(id.to_owned(), sender.clone(), Found::Check(None));
        let mut running = JoinSet::new();
        for (id, panics) in [("panics", true), ("hangs", false)] {
            let underway = underway(id);
            running.spawn(async move {
                assert!(!panics, "as a bug would");
                std::future::pending::<()>().await;
                underway.end(Found::Check(Some(Probe::Success)));
            });
        }
        underway("answers").end(Found::Check(Some(Probe::Success)));
        assert_eq!(results.recv().await, Some(("answers".into(), Found::Check(Some(Probe::Success)))));
        assert!(running.join_next().await.unwrap().unwrap_err().is_panic());
        assert_eq!(results.recv().await, Some(("panics".into(), Found::Check(None))));
        running.shutdown().await;
        assert_eq!(results.recv().await, Some(("hangs".into(), Found::Check(None))));
    }

    #[tokio::test]
    async fn a_driver_that_panics_is_begun_anew() {
        let (begun, panics) = (Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
        let begin = || {
            let begun = Arc::clone(&begun);
            async move { assert!(begun.fetch_add(1, Relaxed) > 0, "as a bug would") }
        };
        supervise(begin, || {
            panics.fetch_add(1, Relaxed);
        })
        .await;
        assert_eq!((begun.load(Relaxed), panics.load(Relaxed)), (2, 1));
    }

    #[test]
    fn a_check_without_a_result_is_no_success_and_is_made_again() {
        let now = ambient::now();
        let check = CheckParams { initial: ringway_health::Initial::Down, ..CheckParams::default() };
        let mut health = ServiceHealth::new(Params { check: Some(check), ..Params::default() }, 1, now);
        health.set_members(&[Member::new("a")], now);
        let mut due = health.poll_timeout().unwrap();
        for _ in 0..5 {
            assert_eq!(health.poll_probe(due), Some("a".into()));
            take_in(&mut health, "s", &[("a".to_owned(), Found::Check(None))], due);
            assert_eq!(health.view("a", due).unwrap().state, "unknown");
            let next = health.poll_timeout().unwrap();
            assert!(next > due && next <= due + check.interval);
            due = next;
        }
    }
}
