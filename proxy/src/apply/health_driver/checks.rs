//! Checks and queries of agents that are running: begun within the service's concurrency, and each with one result, whatever becomes
//! of it.

use crate::net::shortage::{Operation, Shortage};
use crate::probe::{Kept, Opened, Prober};
use crate::snapshot::Service;
use metrics::Counter;
use ringway_health::{AgentReport, MemberKey, Probe, ServiceHealth};
use ringway_telemetry::catalogue;
use ringway_telemetry::counters::Registry as Counters;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// The result of a check or of a query of an agent; `None`: it has ended without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckResult {
    Check(Option<Probe>),
    Agent(Option<AgentReport>),
}

/// A backend, and the result.
pub(super) type Finished = (MemberKey, CheckResult);

/// Reports the result of a running check once, whatever becomes of it: a backend whose check never ended would not be checked
/// again.
struct ResultGuard {
    member: MemberKey,
    results: UnboundedSender<Finished>,
    result: CheckResult,
}

impl ResultGuard {
    /// `none` is reported if the check does not come to its end.
    fn new(member: MemberKey, results: UnboundedSender<Finished>, none: CheckResult) -> Self {
        Self { member, results, result: none }
    }

    fn finish(mut self, result: CheckResult) {
        self.result = result;
    }
}

impl Drop for ResultGuard {
    fn drop(&mut self) {
        // A driver that has gone wants no results.
        let _ = self.results.send((self.member.clone(), self.result));
    }
}

/// What waits for the next check of one backend: a connection, and what has opened it.
type Rest = Arc<Mutex<Option<(Arc<Prober>, Kept)>>>;

/// The running checks of one service.
pub(super) struct Checks {
    counters: Arc<Counters>,
    shortage: Arc<Shortage>,
    concurrency: usize,
    permits: Arc<Semaphore>,
    running: JoinSet<()>,
    /// Connections that are kept from check to check, by backend.
    kept: HashMap<Box<str>, Rest>,
    /// Never more results than checks are running.
    results: (UnboundedSender<Finished>, UnboundedReceiver<Finished>),
}

impl Checks {
    pub(super) fn new(counters: Arc<Counters>, shortage: Arc<Shortage>) -> Self {
        Self {
            counters,
            shortage,
            concurrency: 1,
            permits: Arc::new(Semaphore::new(1)),
            running: JoinSet::new(),
            kept: HashMap::new(),
            results: unbounded_channel(),
        }
    }

    /// Begins a check of a backend.
    pub(super) fn begin_check(&mut self, service: &Service, member: MemberKey, now: Instant) {
        let Some((prober, address, permits)) = self.target(service, &member) else {
            // Gone since: the machine hears of it with the next membership. Nothing was sent.
            service.live.health().handle_no_probe(&member, now);
            return;
        };
        let shortage = Arc::clone(&self.shortage);
        let rest = prober.reuses_connections().then(|| self.rest(&member));
        let guard = ResultGuard::new(member, self.results.0.clone(), CheckResult::Check(None));
        self.running.spawn(async move {
            // The semaphore is never closed.
            let permit = permits.acquire().await;
            let mut opened = Opened::default();
            let kept = rest.as_ref().and_then(|rest| lock(rest).take());
            let kept = kept.filter(|(other, _)| prober.is_like(other)).map(|(_, kept)| kept);
            let probe = prober.probe(address, kept, &shortage, &mut opened).await;
            // A check that this host could not make says nothing of the backend.
            let probe = probe.inspect_err(|error| shortage.note(Operation::Check, error, address));
            guard.finish(CheckResult::Check(probe.ok()));
            drop(permit);
            match rest.filter(|_| !shortage.is_tight()) {
                None => opened.close().await,
                Some(rest) => {
                    let kept = opened.keep(&prober, address).await;
                    *lock(&rest) = kept.map(|kept| (prober, kept));
                }
            }
        });
    }

    /// Where a backend's connection is kept.
    fn rest(&mut self, member: &str) -> Rest {
        if let Some(rest) = self.kept.get(member) {
            return Arc::clone(rest);
        }
        Arc::clone(self.kept.entry(member.into()).or_default())
    }

    /// Begins a query of a backend's agent.
    pub(super) fn begin_agent(&mut self, service: &Service, member: MemberKey, now: Instant) {
        let Some((prober, address, permits)) = self.target(service, &member) else {
            service.live.health().handle_agent(&member, AgentReport::default(), now);
            return;
        };
        let shortage = Arc::clone(&self.shortage);
        let guard = ResultGuard::new(member, self.results.0.clone(), CheckResult::Agent(None));
        self.running.spawn(async move {
            let permit = permits.acquire().await;
            let mut opened = Opened::default();
            let report = prober.query_agent(address, &shortage, &mut opened).await;
            let report = report.inspect_err(|error| shortage.note(Operation::Check, error, address));
            guard.finish(CheckResult::Agent(report.ok()));
            drop(permit);
            opened.close().await;
        });
    }

    fn target(&mut self, service: &Service, member: &MemberKey) -> Option<(Arc<Prober>, SocketAddr, Arc<Semaphore>)> {
        let (prober, slot) = (service.prober.as_ref()?, service.slot_of_member(member)?);
        Some((Arc::clone(prober), service.address(slot), self.permits(prober.concurrency())))
    }

    /// Permits for checks and queries of agents, as many at once as the service is configured for.
    fn permits(&mut self, concurrency: usize) -> Arc<Semaphore> {
        if self.concurrency != concurrency {
            (self.concurrency, self.permits) = (concurrency, Arc::new(Semaphore::new(concurrency)));
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

    /// Closes the connections of backends that have gone: as soon as there are more than backends.
    fn forget_gone(&mut self, service: &Service) {
        let reuses = service.prober.as_ref().is_some_and(|prober| prober.reuses_connections());
        if self.kept.len() > if reuses { service.backends.len() } else { 0 } {
            self.kept.retain(|id, _| reuses && service.slot_of(id).is_some());
        }
    }

    /// Lets go of checks that are over, and of what was kept for backends that have gone.
    pub(super) fn reap(&mut self, service: &Service) {
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

    /// Counts results, and takes them into the health machine.
    pub(super) fn take_in(&self, health: &mut ServiceHealth, service: &str, finished: &[Finished], now: Instant) {
        let probes = finished.iter().filter_map(|(member, result)| match result {
            CheckResult::Check(probe) => probe.map(|probe| (member, probe)),
            CheckResult::Agent(_) => None,
        });
        health.handle_probes(probes, now);
        for (member, result) in finished {
            self.of(result, service).increment(1);
            match result {
                CheckResult::Check(Some(_)) => {}
                CheckResult::Check(None) => health.handle_no_probe(member, now),
                // What an agent has reported stays, as it could not be queried.
                CheckResult::Agent(report) => health.handle_agent(member, report.unwrap_or_default(), now),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ambient;
    use ringway_health::{CheckParams, Member, Params};

    /// The key of a backend of that name, which is in no service of a test.
    pub(in super::super) fn key(id: &str) -> MemberKey {
        let now = ambient::now();
        let check = CheckParams::default();
        let mut health = ServiceHealth::new(Params { check: Some(check), ..Params::default() }, 1, now);
        health.set_members(&[Member::new(id)], now);
        health.poll_probe(now + check.interval).unwrap()
    }

    #[tokio::test]
    async fn a_check_that_panics_or_is_aborted_ends_without_a_result() {
        let (sender, mut results) = unbounded_channel();
        let guard = |id: &str| ResultGuard::new(key(id), sender.clone(), CheckResult::Check(None));
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
        assert_eq!(results.recv().await, Some((key("succeeds"), CheckResult::Check(Some(Probe::Success)))));
        assert!(running.join_next().await.unwrap().unwrap_err().is_panic());
        assert_eq!(results.recv().await, Some((key("panics"), CheckResult::Check(None))));
        running.shutdown().await;
        assert_eq!(results.recv().await, Some((key("hangs"), CheckResult::Check(None))));
    }

    #[test]
    fn a_check_without_a_result_is_no_success_and_is_made_again() {
        let now = ambient::now();
        let check = CheckParams { initial: ringway_health::Initial::Down, ..CheckParams::default() };
        let mut health = ServiceHealth::new(Params { check: Some(check), ..Params::default() }, 1, now);
        health.set_members(&[Member::new("a")], now);
        let mut due = health.poll_timeout().unwrap();
        for _ in 0..5 {
            let a = health.poll_probe(due).unwrap();
            ResultCounters::default().take_in(&mut health, "s", &[(a, CheckResult::Check(None))], due);
            assert_eq!(health.view("a", due).unwrap().state, "unknown");
            let next = health.poll_timeout().unwrap();
            assert!(next > due && next <= due + check.interval);
            due = next;
        }
    }

    #[test]
    fn permits_that_are_held_count_until_the_concurrency_changes() {
        let mut checks = Checks::new(Arc::default(), Shortage::new(Arc::default()));
        let two = checks.permits(2);
        let _held = (two.try_acquire().unwrap(), two.try_acquire().unwrap());
        assert!(checks.permits(2).try_acquire().is_err());
        assert!(checks.permits(3).try_acquire().is_ok());
    }
}
