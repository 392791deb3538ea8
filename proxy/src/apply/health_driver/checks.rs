//! Checks and queries of agents that are running: begun within the service's concurrency, and each with one result, whatever becomes
//! of it.

use super::permits::{Permits, is_late};
use crate::ambient;
use crate::net::shortage::{Operation, Shortage};
use crate::overload::OverloadState;
use crate::probe::{Opened, Prober, Target};
use crate::snapshot::{BackendState, Service, ServiceLive};
use metrics::Counter;
use ringway_health::{AgentReport, MemberKey, Probe, ServiceHealth};
use ringway_ring::Slot;
use ringway_telemetry::catalogue;
use ringway_telemetry::counters::Registry as Counters;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// The result of a check or of a query of an agent; `None`: it has ended without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckResult {
    Check(Option<Probe>),
    Agent(Option<AgentReport>),
}

/// What a check, or a query of an agent, is made of: its result says nothing of a backend at another address, nor of other settings.
#[derive(Clone)]
pub(super) struct Asked {
    target: Target,
    prober: Arc<Prober>,
    state: Arc<BackendState>,
}

impl Asked {
    /// What a backend would be asked now.
    pub(super) fn of(service: &Service, member: &MemberKey) -> Option<Self> {
        service.slot_of_member(member).and_then(|slot| Self::at(service, slot))
    }

    fn at(service: &Service, slot: Slot) -> Option<Self> {
        let backend = &service.backends[usize::from(slot.0)];
        let additional = backend.config.additional_address;
        let additional = additional.map(|address| (address, Arc::clone(&backend.state.preferences)));
        let target = Target { address: backend.config.address, additional };
        let state = Arc::clone(&backend.state);
        Some(Self { target, prober: Arc::clone(service.prober.as_ref()?), state })
    }
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        self.target == other.target && Arc::ptr_eq(&self.prober, &other.prober)
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.address.fmt(formatter)
    }
}

/// A backend, what it was asked, and the result.
pub(super) type Finished = (MemberKey, Asked, CheckResult);

/// Reports the result of a running check once, whatever becomes of it: a backend whose check never ended would not be checked
/// again.
struct ResultGuard {
    member: MemberKey,
    asked: Asked,
    results: UnboundedSender<Finished>,
    result: CheckResult,
}

impl ResultGuard {
    /// `none` is reported if the check does not come to its end.
    fn new(member: MemberKey, asked: Asked, results: UnboundedSender<Finished>, none: CheckResult) -> Self {
        Self { member, asked, results, result: none }
    }

    fn finish(mut self, result: CheckResult) {
        self.result = result;
    }
}

impl Drop for ResultGuard {
    fn drop(&mut self) {
        // A driver that has gone wants no results.
        let _ = self.results.send((self.member.clone(), self.asked.clone(), self.result));
    }
}

/// When a check was due, or a query of an agent, and how often it is.
struct Due {
    live: Arc<ServiceLive>,
    interval: Duration,
    at: Instant,
}

impl Due {
    /// It begins, having waited for a permit or not. One that is late is counted, and the first of many told of.
    fn handle_begin(&self, waited: bool, concurrency: usize, now: Instant) {
        let by = now.saturating_duration_since(self.at);
        if !waited || !is_late(by, self.interval) {
            return;
        }
        let service = &*self.live.name;
        metrics::counter!(catalogue::CHECKS_LATE.name, "service" => service.to_owned()).increment(1);
        if self.live.check_delay.handle_late(by, now) {
            tracing::warn!(
                service,
                late_seconds = by.as_secs_f64(),
                "checks begin late: {concurrency} are under way, as many as `health.concurrency` allows, those of slow backends apart"
            );
        }
    }
}

/// What waits for the next check of one backend: a connection.
type Rest = Arc<Mutex<Option<Opened>>>;

/// The running checks of one service.
pub(super) struct Checks {
    counters: Arc<Counters>,
    shortage: Arc<Shortage>,
    overload: Arc<OverloadState>,
    permits: Arc<Permits>,
    running: JoinSet<()>,
    /// Connections that are kept from check to check, by backend, and what it is asked over them.
    kept: HashMap<Box<str>, (Asked, Rest)>,
    /// The version of the service that they were kept for.
    version: Weak<Service>,
    /// Never more results than checks are running.
    results: (UnboundedSender<Finished>, UnboundedReceiver<Finished>),
}

impl Checks {
    pub(super) fn new(counters: Arc<Counters>, shortage: Arc<Shortage>, overload: Arc<OverloadState>) -> Self {
        Self {
            counters,
            shortage,
            overload,
            permits: Arc::new(Permits::new(1)),
            running: JoinSet::new(),
            kept: HashMap::new(),
            version: Weak::new(),
            results: unbounded_channel(),
        }
    }

    /// Begins a check of a backend.
    pub(super) fn begin_check(&mut self, service: &Service, member: MemberKey, now: Instant) {
        let Some(asked) = Asked::of(service, &member) else {
            // Gone since: the machine hears of it with the next membership. Nothing was sent.
            service.live.health().handle_no_probe(&member, now);
            return;
        };
        let permits = self.permits(asked.prober.concurrency());
        let due = Due { live: Arc::clone(&service.live), interval: asked.prober.interval(), at: now };
        let (shortage, overload, state) =
            (Arc::clone(&self.shortage), Arc::clone(&self.overload), Arc::clone(&asked.state));
        let rest = self.keeps(&asked.prober).then(|| self.rest(&member, &asked));
        let Asked { target, prober, .. } = asked.clone();
        let guard = ResultGuard::new(member, asked, self.results.0.clone(), CheckResult::Check(None));
        self.running.spawn(async move {
            let (permit, waited) = permits.acquire(&state.check_pace).await;
            let began = ambient::now();
            due.handle_begin(waited, permits.concurrency(), began);
            let mut opened = Opened::default();
            let kept = rest.as_ref().and_then(|rest| lock(rest).take());
            let probe = prober.probe(&target, kept, &shortage, &mut opened).await;
            state.check_pace.handle_end(ambient::since(began), prober.timeout());
            // A check that this host could not make says nothing of the backend.
            let probe = probe.inspect_err(|error| shortage.note(Operation::Check, error, target.address));
            guard.finish(CheckResult::Check(probe.ok()));
            drop(permit);
            match rest.filter(|_| !shortage.is_tight() && !overload.stops_keep_alive()) {
                None => opened.close().await,
                Some(rest) => {
                    let left = opened.keep().await.and_then(|kept| put(&rest, kept));
                    if let Some(left) = left {
                        left.close().await;
                    }
                }
            }
        });
    }

    /// Whether connections are kept now.
    fn keeps(&self, prober: &Prober) -> bool {
        prober.reuses_connections() && !self.overload.stops_keep_alive()
    }

    /// Where a backend's connection is kept.
    fn rest(&mut self, member: &str, asked: &Asked) -> Rest {
        if let Some((_, rest)) = self.kept.get(member).filter(|(kept, _)| kept == asked) {
            return Arc::clone(rest);
        }
        let rest = Rest::default();
        self.kept.insert(member.into(), (asked.clone(), Arc::clone(&rest)));
        rest
    }

    /// Begins a query of a backend's agent.
    pub(super) fn begin_agent(&mut self, service: &Service, member: MemberKey, now: Instant) {
        let Some(asked) = Asked::of(service, &member) else {
            service.live.health().handle_agent(&member, AgentReport::default(), now);
            return;
        };
        let permits = self.permits(asked.prober.concurrency());
        let due = Due { live: Arc::clone(&service.live), interval: asked.prober.agent_times().0, at: now };
        let (shortage, state) = (Arc::clone(&self.shortage), Arc::clone(&asked.state));
        let Asked { target, prober, .. } = asked.clone();
        let guard = ResultGuard::new(member, asked, self.results.0.clone(), CheckResult::Agent(None));
        self.running.spawn(async move {
            let (permit, waited) = permits.acquire(&state.agent_pace).await;
            let began = ambient::now();
            due.handle_begin(waited, permits.concurrency(), began);
            let mut opened = Opened::default();
            let report = prober.query_agent(&target, &shortage, &mut opened).await;
            state.agent_pace.handle_end(ambient::since(began), prober.agent_times().1);
            let report = report.inspect_err(|error| shortage.note(Operation::Check, error, target.address));
            guard.finish(CheckResult::Agent(report.ok()));
            drop(permit);
            opened.close().await;
        });
    }

    /// Permits for checks and queries of agents, as many at once as the service is configured for.
    fn permits(&mut self, concurrency: usize) -> Arc<Permits> {
        if self.permits.concurrency() != concurrency {
            self.permits = Arc::new(Permits::new(concurrency));
        }
        Arc::clone(&self.permits)
    }

    /// The next result.
    pub(super) async fn finished(&mut self) -> Option<Finished> {
        self.results.1.recv().await
    }

    /// The results that are there already.
    pub(super) fn drain_finished(&mut self) -> impl Iterator<Item = Finished> {
        std::iter::from_fn(|| self.results.1.try_recv().ok())
    }

    /// Closes the connections of backends that have gone, or are asked otherwise in a new version; all of them where none are kept.
    fn forget_gone(&mut self, service: &Arc<Service>) {
        if self.overload.stops_keep_alive() {
            self.kept.clear();
        }
        if self.version.as_ptr() == Arc::as_ptr(service) {
            return;
        }
        self.version = Arc::downgrade(service);
        self.kept.retain(|id, (asked, _)| {
            let now = service.slot_of(id).and_then(|slot| Asked::at(service, slot));
            now.is_some_and(|now| now == *asked)
        });
    }

    /// Lets go of checks that are over, and of what was kept for backends that have gone.
    pub(super) fn reap(&mut self, service: &Arc<Service>) {
        self.forget_gone(service);
        let service = &service.config.name;
        while let Some(over) = self.running.try_join_next() {
            if over.is_err_and(|error| error.is_panic()) {
                self.counters.note_panic();
                tracing::error!(%service, "a check has panicked: a bug, please report it");
            }
        }
    }

    /// Where running checks send their results.
    #[cfg(test)]
    pub(super) fn sender(&self) -> UnboundedSender<Finished> {
        self.results.0.clone()
    }

    /// Checks that are running, or wait for a permit.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }
}

/// Keeps a connection, unless there is one already: of a check that has begun later. Gives back what is not kept.
fn put(rest: &Mutex<Option<Opened>>, kept: Opened) -> Option<Opened> {
    let mut place = lock(rest);
    if place.is_some() {
        return Some(kept);
    }
    *place = Some(kept);
    None
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts of results: each looked up once, when there is the first of its kind.
#[derive(Default)]
pub(super) struct ResultCounters {
    success: OnceCell<Counter>,
    failure: OnceCell<Counter>,
    not_made: OnceCell<Counter>,
    agent_answered: OnceCell<Counter>,
    agent_silent: OnceCell<Counter>,
    agent_not_made: OnceCell<Counter>,
}

impl ResultCounters {
    fn of(&self, result: &CheckResult, service: &str) -> &Counter {
        let (counter, metric, label) = match result {
            CheckResult::Check(Some(Probe::Success | Probe::Weighted(_))) => {
                (&self.success, catalogue::CHECKS, "success")
            }
            CheckResult::Check(Some(Probe::Failure(_))) => (&self.failure, catalogue::CHECKS, "failure"),
            CheckResult::Check(None) => (&self.not_made, catalogue::CHECKS, "not_made"),
            CheckResult::Agent(Some(report)) if *report == AgentReport::default() => {
                (&self.agent_silent, catalogue::AGENT_CHECKS, "silent")
            }
            CheckResult::Agent(Some(_)) => (&self.agent_answered, catalogue::AGENT_CHECKS, "answered"),
            CheckResult::Agent(None) => (&self.agent_not_made, catalogue::AGENT_CHECKS, "not_made"),
        };
        counter.get_or_init(|| metrics::counter!(metric.name, "service" => service.to_owned(), "result" => label))
    }

    /// Counts results, and takes them into the health machine: those of backends that would be asked the same now.
    pub(super) fn take_in(&self, health: &mut ServiceHealth, service: &Service, finished: &[Finished], now: Instant) {
        let holds = |(member, asked, _): &Finished| Asked::of(service, member).is_some_and(|now| now == *asked);
        let probes = finished.iter().filter_map(|ended| match ended {
            (member, _, CheckResult::Check(Some(probe))) if holds(ended) => Some((member, *probe)),
            _ => None,
        });
        health.handle_probes(probes, now);
        for ended in finished {
            let (member, _, result) = ended;
            self.of(result, &service.config.name).increment(1);
            match result {
                CheckResult::Check(Some(_)) if holds(ended) => {}
                CheckResult::Check(_) => health.handle_no_probe(member, now),
                CheckResult::Agent(_) if !holds(ended) => health.handle_agent(member, AgentReport::default(), now),
                // What an agent has reported stays, as it could not be queried.
                CheckResult::Agent(report) => health.handle_agent(member, report.unwrap_or_default(), now),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::overload::Stage;
    use crate::snapshot::Pace;
    use crate::snapshot::{Registry, Snapshot};
    use ringway_health::{CheckFailure, CheckParams, Member, Params};

    /// The key of a backend of that name, which is in no service of a test.
    pub(in super::super) fn key(id: &str) -> MemberKey {
        let now = ambient::now();
        let check = CheckParams::default();
        let mut health = ServiceHealth::new(Params { check: Some(check), ..Params::default() }, 1, now);
        health.set_members(&[Member::new(id)], now);
        health.poll_probe(now + check.interval).unwrap()
    }

    /// A version of a service of one backend, in force.
    fn in_force(registry: &Registry, health: &str, port: u16) -> Snapshot {
        let text = format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", service: s }} ]\nservices:\n  - name: s\n    \
             health: {{ {health} }}\n    backends: [ {{ id: a, address: \"127.0.0.1:{port}\" }} ]\n"
        );
        let loaded = ringway_config::load_str("test.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let snapshot = registry.prepare(Arc::new(loaded.config), 1, 1, ambient::now()).unwrap();
        registry.commit(&snapshot, ambient::now());
        registry.settle(&snapshot);
        snapshot
    }

    /// What a backend of some service is asked.
    pub(in super::super) fn asked() -> Asked {
        let snapshot = in_force(&Registry::default(), "tcp: {}", 9);
        Asked::at(&snapshot.services[0], Slot(0)).unwrap()
    }

    fn checks() -> Checks {
        let overload = Arc::new(OverloadState::new(1, ambient::now()));
        Checks::new(Arc::default(), Shortage::new(Arc::default()), overload)
    }

    #[tokio::test]
    async fn a_check_that_panics_or_is_aborted_ends_without_a_result() {
        let (sender, mut results) = unbounded_channel();
        let asked = asked();
        let guard = |id: &str| ResultGuard::new(key(id), asked.clone(), sender.clone(), CheckResult::Check(None));
        let mut running = JoinSet::new();
        for (id, panics) in [("panics", true), ("hangs", false)] {
            let guard = guard(id);
            running.spawn(async move {
                assert!(!panics, "as a bug would");
                std::future::pending::<()>().await;
                guard.finish(CheckResult::Check(Some(Probe::Success)));
            });
        }
        guard("succeeds").finish(CheckResult::Check(Some(Probe::Success)));
        assert_eq!(
            results.recv().await,
            Some((key("succeeds"), asked.clone(), CheckResult::Check(Some(Probe::Success))))
        );
        assert!(running.join_next().await.unwrap().unwrap_err().is_panic());
        assert_eq!(results.recv().await, Some((key("panics"), asked.clone(), CheckResult::Check(None))));
        running.shutdown().await;
        assert_eq!(results.recv().await, Some((key("hangs"), asked, CheckResult::Check(None))));
    }

    #[test]
    fn a_check_without_a_result_is_no_success_and_is_made_again() {
        let snapshot = in_force(&Registry::default(), "tcp: {}", 9);
        let asked = Asked::at(&snapshot.services[0], Slot(0)).unwrap();
        let now = ambient::now();
        let check = CheckParams { initial: ringway_health::Initial::Down, ..CheckParams::default() };
        let mut health = ServiceHealth::new(Params { check: Some(check), ..Params::default() }, 1, now);
        health.set_members(&[Member::new("a")], now);
        let mut due = health.poll_timeout().unwrap();
        for _ in 0..5 {
            let a = health.poll_probe(due).unwrap();
            let ended = (a, asked.clone(), CheckResult::Check(None));
            ResultCounters::default().take_in(&mut health, &snapshot.services[0], &[ended], due);
            assert_eq!(health.view("a", due).unwrap().state, "unknown");
            let next = health.poll_timeout().unwrap();
            assert!(next > due && next <= due + check.interval);
            due = next;
        }
    }

    #[tokio::test]
    async fn permits_that_are_held_count_until_the_concurrency_changes() {
        let (mut checks, pace) = (checks(), Pace::default());
        let two = checks.permits(2);
        let _held = (two.acquire(&pace).await, two.acquire(&pace).await);
        let again = checks.permits(2);
        assert!(Arc::ptr_eq(&two, &again));
        assert!(tokio::time::timeout(Duration::ZERO, again.acquire(&pace)).await.is_err());
        assert!(!checks.permits(3).acquire(&pace).await.1);
    }

    /// Two silent backends and one permit: what answers is checked all the same, and who waits is told of.
    #[tokio::test(start_paused = true)]
    async fn backends_that_are_silent_keep_only_each_other_waiting() {
        let text = "listeners: [ { name: web, address: \"127.0.0.1:0\", service: s } ]\nservices:\n  - name: s\n    \
             health: { tcp: {}, interval: 1s, timeout: 1s, concurrency: 1 }\n    backends: [ \
             { id: a, address: \"127.0.0.1:9\" }, { id: b, address: \"127.0.0.1:10\" }, { id: c, address: \"127.0.0.1:11\" } ]\n";
        let loaded = ringway_config::load_str("test.yaml", text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let registry = Registry::default();
        let snapshot = registry.prepare(Arc::new(loaded.config), 1, 1, ambient::now()).unwrap();
        let (service, mut checks) = (Arc::clone(&snapshot.services[0]), checks());
        let second = Duration::from_secs(1);
        for silent in &service.backends[..2] {
            silent.state.check_pace.handle_end(second, second);
        }
        // One of them is under way.
        let permits = checks.permits(1);
        let held = permits.acquire(&service.backends[0].state.check_pace).await;
        let due = ambient::now();
        for id in ["b", "c"] {
            checks.begin_check(&service, key(id), due);
        }
        let first = checks.finished().await.unwrap();
        assert_eq!(&*first.0, "c");
        assert_eq!(service.live.check_delay.recent(ambient::now()), Duration::ZERO);
        tokio::time::advance(second).await;
        drop(held);
        assert_eq!(&*checks.finished().await.unwrap().0, "b");
        assert!(service.live.check_delay.recent(ambient::now()) >= second);
    }

    #[test]
    fn a_result_of_another_address_or_of_other_settings_says_nothing() {
        let settings = "tcp: {}, fall: 1, rise: 1";
        for (then, port, state) in
            [(settings, 9, "down"), (settings, 10, "unknown"), ("http: {}, fall: 1", 9, "unknown")]
        {
            let registry = Registry::default();
            let before = in_force(&registry, settings, 9);
            let a = before.services[0].live.health().member_key("a").unwrap();
            let asked = Asked::of(&before.services[0], &a).unwrap();
            let after = in_force(&registry, then, port);
            let mut health = after.services[0].live.health();
            let ended = (a, asked, CheckResult::Check(Some(Probe::Failure(CheckFailure::Connect))));
            let now = ambient::now();
            ResultCounters::default().take_in(&mut health, &after.services[0], &[ended], now);
            assert_eq!(health.view("a", now).unwrap().state, state, "{then} {port}");
        }
    }

    #[test]
    fn connections_are_kept_for_what_is_asked_now_and_not_while_the_process_saves() {
        let (registry, settings) = (Registry::default(), "http: {}, reuse_connection: true");
        let mut checks = checks();
        let service = |settings: &str, port: u16| Arc::clone(&in_force(&registry, settings, port).services[0]);
        let keep = |checks: &mut Checks, service: &Arc<Service>| {
            checks.forget_gone(service);
            let asked = Asked::at(service, Slot(0)).unwrap();
            assert!(checks.keeps(&asked.prober));
            *lock(&checks.rest("a", &asked)) = Some(Opened::default());
        };
        let first = service(settings, 9);
        keep(&mut checks, &first);
        checks.forget_gone(&service(&format!("{settings}, concurrency: 256"), 9));
        assert_eq!(checks.kept.len(), 1, "nothing has changed");
        for (settings, port) in [(settings, 10), ("http: { path: /b }, reuse_connection: true", 10), ("http: {}", 10)] {
            checks.forget_gone(&service(settings, port));
            assert_eq!(checks.kept.len(), 0, "{settings} {port}");
            let now = service("http: {}, reuse_connection: true", port);
            keep(&mut checks, &now);
        }
        checks.overload.publish(Stage::StopKeepAlive, true, <_>::default(), &<_>::default());
        let service = service("http: {}, reuse_connection: true", 10);
        checks.forget_gone(&service);
        assert_eq!(checks.kept.len(), 0);
        assert!(!checks.keeps(service.prober.as_ref().unwrap()));
    }

    #[test]
    fn a_check_that_ends_late_leaves_the_connection_of_a_later_one() {
        let rest = Rest::default();
        assert!(put(&rest, Opened::default()).is_none());
        assert!(put(&rest, Opened::default()).is_some());
        assert!(lock(&rest).take().is_some());
        assert!(put(&rest, Opened::default()).is_none());
    }
}
