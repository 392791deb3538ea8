//! The driver that gives each service's machines their time: active checks, ejections, ramps, hot keys, shedding.

mod checks;
mod fleet_shed;
mod load_control;
mod permits;
mod windows;

use crate::ambient;
use crate::net::shortage::Shortage;
use crate::overload::OverloadState;
use crate::snapshot::{Current, Service, ServiceLive};
use crate::snapshot::{handoff_events, health_events};
use checks::{Checks, Finished, ResultCounters};
use load_control::LoadControl;
use ringway_telemetry::counters::Registry as Counters;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use windows::Windows;

/// Shortest time between two turns, and what each backend adds to it: with many, something always is due.
const COALESCE: Duration = Duration::from_millis(2);
const COALESCE_PER_BACKEND: Duration = Duration::from_micros(2);

/// Wait before a driver that has panicked is begun anew.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// What the driver of one service remembers from turn to turn.
struct Driver {
    live: Arc<ServiceLive>,
    counters: Arc<Counters>,
    checks: Checks,
    results: ResultCounters,
    windows: Windows,
    load_control: LoadControl,
}

/// Drives one service until it is gone from the configuration. The caller owns the task.
pub(crate) async fn drive(
    current: Arc<Current>,
    live: Arc<ServiceLive>,
    counters: Arc<Counters>,
    shortage: Arc<Shortage>,
    overload: Arc<OverloadState>,
) {
    let begin = || {
        let checks = Checks::new(Arc::clone(&counters), Arc::clone(&shortage), Arc::clone(&overload));
        let driver = Driver::new(Arc::clone(&live), Arc::clone(&counters), checks, ambient::now());
        drive_once(Arc::clone(&current), driver)
    };
    supervise(begin, || {
        counters.note_panic();
        tracing::error!(service = %live.name, "the driver of the checks has panicked: a bug, please report it");
        // Its checks have gone with it.
        live.health().forget_probes(ambient::now());
    })
    .await;
}

/// Runs a task to its end, and again after a panic: a service whose driver is gone would keep its last state for ever.
pub(super) async fn supervise<F>(begin: impl Fn() -> F, panicked: impl Fn())
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

async fn drive_once(current: Arc<Current>, mut driver: Driver) {
    let mut finished = Vec::new();
    loop {
        let (next, pause) = {
            // Not held while it waits: a service that nothing is due for would keep a version alive for as long as it does not change.
            let snapshot = current.load();
            let service = snapshot.service(&driver.live.name);
            let Some(service) = service.filter(|service| Arc::ptr_eq(&service.live, &driver.live)) else { return };
            (driver.turn(service, &finished, ambient::now()), coalesce(service.backends.len()))
        };
        finished = driver.wait(next, pause).await;
    }
}

/// Shortest time between two turns.
fn coalesce(backends: usize) -> Duration {
    COALESCE + COALESCE_PER_BACKEND * u32::try_from(backends).unwrap_or(u32::MAX)
}

/// Closes windows of hand-off that are over; gives when the next one is.
fn end_handoffs(service: &Service, now: Instant) -> Option<Instant> {
    let (over, next) = service.handoff.poll(now);
    if over > 0 {
        handoff_events::over(service, over);
    }
    next
}

impl Driver {
    fn new(live: Arc<ServiceLive>, counters: Arc<Counters>, checks: Checks, now: Instant) -> Self {
        Self {
            live,
            results: ResultCounters::default(),
            checks,
            counters,
            windows: Windows::new(now),
            load_control: LoadControl::new(now),
        }
    }

    /// Takes in results, and does what is due; gives when something is next.
    fn turn(&mut self, service: &Arc<Service>, finished: &[Finished], now: Instant) -> Option<Instant> {
        self.checks.reap(service);
        let (next, due, agents) = {
            // Under one lock with what it changes where requests read: no reader sees the one without the other.
            let mut health = self.live.health();
            self.results.take_in(&mut health, service, finished, now);
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
        for member in due {
            self.checks.begin_check(service, member, now);
        }
        for member in agents {
            self.checks.begin_agent(service, member, now);
        }
        let others = [self.judge(service, now), self.load_control.poll(service, now), end_handoffs(service, now)];
        others.into_iter().flatten().chain(next).min()
    }

    /// Waits until a turn is to be taken: something is due, a check has finished, or the health machine has been changed from
    /// elsewhere. What is due or finished within a moment is done together. Gives the results that there are.
    async fn wait(&mut self, next: Option<Instant>, coalesce: Duration) -> Vec<Finished> {
        let sleep = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.max(ambient::now() + coalesce).into()).await,
                None => std::future::pending().await,
            }
        };
        let mut finished = Vec::new();
        tokio::select! {
            Some(first) = self.checks.finished() => {
                // Many checks end at about the same time.
                tokio::time::sleep(coalesce).await;
                finished.push(first);
                finished.extend(self.checks.drain_finished());
            }
            () = sleep => {}
            () = self.live.health_changed.notified() => {}
        }
        finished
    }

    /// At the end of a window, lets the statistical detectors judge it.
    fn judge(&mut self, service: &Service, now: Instant) -> Option<Instant> {
        let params = &service.config.outlier;
        if !params.needs_windows() {
            self.windows.forget();
            return None;
        }
        let totals = service.backends.iter().map(|backend| {
            let id = backend.config.id.as_str();
            (id, self.counters.backend_totals(&service.config.name, id))
        });
        let Some(windows) = self.windows.poll(totals, params.interval, now) else { return Some(self.windows.next()) };
        let events = {
            let mut health = self.live.health();
            health.handle_windows(&windows, now);
            if health.take_changed() { service.apply_health(&mut health) } else { Service::events(&mut health) }
        };
        health_events::publish(service, &events);
        // An ejection may be over before the next window ends.
        self.live.health_changed.notify_one();
        Some(self.windows.next())
    }
}

#[cfg(test)]
mod tests {
    use super::checks::tests::{asked, key};
    use super::checks::{Asked, CheckResult};
    use super::*;
    use crate::snapshot::{Registry, Snapshot};
    use ringway_health::{CheckFailure, Probe};
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    fn in_force(registry: &Registry, service: &str) -> Snapshot {
        let text = format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", service: s }} ]\nservices:\n  - name: s\n{service}\n    \
             backends: [ {{ id: a, address: \"127.0.0.1:1\" }}, {{ id: b, address: \"127.0.0.1:2\" }}, {{ id: c, address: \"127.0.0.1:3\" }} ]\n"
        );
        let loaded = ringway_config::load_str("test.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let snapshot = registry.prepare(Arc::new(loaded.config), 1, 1, ambient::now()).unwrap();
        registry.commit(&snapshot, ambient::now());
        registry.settle(&snapshot);
        snapshot
    }

    fn checks_of(counters: &Arc<Counters>) -> Checks {
        let overload = Arc::new(OverloadState::new(1, ambient::now()));
        Checks::new(Arc::clone(counters), Shortage::new(Arc::default()), overload)
    }

    fn driver(snapshot: &Snapshot, counters: &Arc<Counters>) -> Driver {
        let live = Arc::clone(&snapshot.services[0].live);
        Driver::new(live, Arc::clone(counters), checks_of(counters), ambient::now())
    }

    #[tokio::test]
    async fn a_driver_that_panics_is_begun_anew() {
        tokio::time::pause();
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

    #[tokio::test]
    async fn a_driver_that_waits_holds_no_version() {
        let registry = Registry::default();
        let current = Arc::new(Current::new(Arc::new(in_force(&registry, "    slow_start: { window: 1s }"))));
        let live = Arc::clone(&current.load().services[0].live);
        let overload = Arc::new(OverloadState::new(1, ambient::now()));
        let shortage = Shortage::new(Arc::default());
        let running = tokio::spawn(drive(Arc::clone(&current), live, Arc::default(), shortage, overload));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let first = Arc::downgrade(&current.load());
        // It is not told: nothing of its service has changed.
        current.store(Arc::new(in_force(&registry, "    slow_start: { window: 1s }")));
        assert!(first.upgrade().is_none(), "what is no longer in force is held");
        running.abort();
    }

    #[tokio::test]
    async fn each_backend_has_one_check_at_a_time_and_the_next_an_interval_behind_its_result() {
        let snapshot = in_force(&Registry::default(), "    health: { tcp: {}, interval: 10s, fall: 1 }");
        let (service, mut driver) = (&snapshot.services[0], driver(&snapshot, &Arc::default()));
        let mut now = ambient::now();
        // What is begun is not run: nothing here waits.
        while driver.checks.running() < 3 {
            now = driver.turn(service, &[], now).unwrap_or(now);
        }
        assert_eq!(driver.turn(service, &[], now), None, "nothing is due before a result");
        assert_eq!(driver.checks.running(), 3);
        let b = service.live.health().member_key("b").unwrap();
        let asked = Asked::of(service, &b).unwrap();
        let failed = (b, asked, CheckResult::Check(Some(Probe::Failure(CheckFailure::Connect))));
        let next = driver.turn(service, &[failed], now).unwrap();
        assert_eq!(driver.checks.running(), 3, "a check that has failed is not made again at once");
        assert_eq!(service.backends[1].state.load.active_fraction(), 0, "its result is in force");
        assert!(next > now && next <= now + Duration::from_secs(10), "{:?}", next - now);
        driver.turn(service, &[], next);
        assert_eq!(driver.checks.running(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_or_finished_within_a_moment_is_one_turn_and_a_change_is_one_at_once() {
        let snapshot = in_force(&Registry::default(), "");
        let mut driver = driver(&snapshot, &Arc::default());
        let (moment, later) = (Duration::from_millis(20), Duration::from_secs(60));
        let begin = ambient::now();
        // Committing it was a change.
        assert_eq!(driver.wait(None, moment).await, []);
        assert_eq!(ambient::since(begin), Duration::ZERO);
        assert_eq!(driver.wait(Some(begin), moment).await, [], "what is due already");
        assert_eq!(ambient::since(begin), moment);
        let results = driver.checks.sender();
        tokio::spawn(async move {
            for (id, after_millis) in [("a", 1_000), ("b", 15), ("c", 4), ("late", 5)] {
                tokio::time::sleep(Duration::from_millis(after_millis)).await;
                results.send((key(id), asked(), CheckResult::Check(Some(Probe::Success)))).unwrap();
            }
        });
        let ids = |finished: &[Finished]| finished.iter().map(|(member, ..)| member.to_string()).collect::<Vec<_>>();
        let (begin, next) = (ambient::now(), Some(begin + later));
        assert_eq!(ids(&driver.wait(next, moment).await), ["a", "b", "c"]);
        assert_eq!(ambient::since(begin), Duration::from_millis(1_020));
        assert_eq!(ids(&driver.wait(next, moment).await), ["late"]);
        assert_eq!(ids(&driver.wait(next, moment).await), Vec::<String>::new());
        assert_eq!(ambient::now(), next.unwrap());
    }

    #[tokio::test]
    async fn what_no_check_and_no_detector_waits_for_is_not_looked_at() {
        let snapshot = in_force(&Registry::default(), "");
        let mut driver = driver(&snapshot, &Arc::default());
        assert_eq!(driver.turn(&snapshot.services[0], &[], ambient::now()), None);
    }

    #[tokio::test]
    async fn a_backend_that_fails_through_a_window_is_ejected_at_its_end() {
        let outlier = "    outlier: { on: server_errors, consecutive_failures: 0, interval: 10s, max_ejection_percent: 50, \
                       failure_percentage: { threshold: 85, min_hosts: 3, min_volume: 50 } }";
        let snapshot = in_force(&Registry::default(), outlier);
        let counters = Arc::new(Counters::default());
        let (service, mut driver) = (&snapshot.services[0], driver(&snapshot, &counters));
        let now = ambient::now();
        let end = driver.turn(service, &[], now).unwrap();
        assert_eq!(end, now + Duration::from_secs(10));
        let counted: Vec<_> = ["a", "b", "c"].map(|id| counters.backend("s", id)).into();
        counted.iter().for_each(|counted| counted.requests.add(100));
        counted[2].errors.add(90);
        let share = || service.backends[2].state.load.active_fraction();
        driver.turn(service, &[], end - Duration::from_secs(1));
        assert!(share() > 0, "the window has not ended");
        driver.turn(service, &[], end);
        assert_eq!(share(), 0);
        assert!(service.backends[0].state.load.active_fraction() > 0);
    }

    #[test]
    fn turns_are_rarer_the_more_backends_there_are() {
        assert_eq!(coalesce(0), Duration::from_millis(2));
        assert_eq!(coalesce(10_000), Duration::from_millis(22));
    }
}
