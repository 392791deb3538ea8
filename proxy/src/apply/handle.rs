//! What the admin listener may ask of the control side, and no more: to read what is in force, and to reload.

use super::change::{ChangeError, Wish};
use super::control::Control;
use super::log_change::LogChange;
use super::outcome::{Applied, LastReload, ReloadError};
use super::overrides::{Author, Overrides};
use super::scrapes::Scrapes;
use super::topology::TopologyStatus;
use super::worker_asks;
use crate::ambient;
use crate::dispatcher::{Command, Fullness, ListenerPermits, SessionPage, SessionQuery, Tap, WorkerReport};
use crate::net::shortage::Shortage;
use crate::overload::OverloadState;
use crate::snapshot::Snapshot;
use crate::snapshot::journal::Journal;
use ringway_config::Effective;
use ringway_telemetry::Metrics;
use ringway_telemetry::counters::Registry as Counters;
use ringway_telemetry::logs::InForce;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// Refusals of the admin listener are logged this often.
const DENIALS_LOGGED_EVERY: Duration = Duration::from_secs(10);

/// A narrow view of the control side.
#[derive(Clone)]
pub(crate) struct ControlHandle(Arc<Control>);

impl ControlHandle {
    pub(crate) fn new(control: Arc<Control>) -> Self {
        Self(control)
    }

    /// What is in force.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.0.current.load()
    }

    /// Counters of the data path.
    pub(crate) fn counters(&self) -> &Counters {
        &self.0.metrics.counters
    }

    /// The metrics of the process.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Pages of them that are being made or sent.
    pub(crate) fn scrapes(&self) -> &Scrapes {
        &self.0.scrapes
    }

    /// What this host is short of.
    pub(crate) fn shortage(&self) -> &Shortage {
        &self.0.shared.shortage
    }

    /// What is stopped for want of something.
    pub(crate) fn overload(&self) -> &OverloadState {
        &self.0.shared.overload
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.is_draining()
    }

    pub(crate) fn workers(&self) -> usize {
        self.0.workers
    }

    pub(crate) fn uptime(&self) -> Duration {
        ambient::since(self.0.started)
    }

    /// The address that the admin listener is bound to, whatever the file says now.
    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        self.0.admin
    }

    /// The state of the topology, if there is a control plane.
    pub(crate) fn topology(&self) -> Option<TopologyStatus> {
        self.0.topology.get().map(|topology| topology())
    }

    pub(crate) fn last_reload(&self) -> LastReload {
        self.0.state().last_reload.clone()
    }

    /// What has happened lately.
    pub(crate) fn journal(&self) -> &Journal {
        &self.0.shared.journal
    }

    /// Connections of clients that are open.
    pub(crate) fn connections(&self) -> usize {
        self.0.shared.occupancy.connections.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Bound addresses by listener name.
    pub(crate) fn addresses(&self) -> HashMap<String, SocketAddr> {
        let (state, snapshot) = (self.0.state(), self.0.current.load());
        state.listeners.addresses(&snapshot.config)
    }

    /// Permits and numbers of each listener, by name.
    pub(crate) fn listener_permits(&self) -> HashMap<String, Arc<ListenerPermits>> {
        let (state, snapshot) = (self.0.state(), self.0.current.load());
        state.listeners.permits(&snapshot.config)
    }

    /// How full each listener is, by name.
    pub(crate) fn fullness(&self, now: Instant) -> HashMap<String, Fullness> {
        let (state, snapshot) = (self.0.state(), self.0.current.load());
        state.listeners.fullness(&snapshot.config, now)
    }

    /// Asks every worker what is under way there: what each has answered by then, in their order.
    pub(crate) async fn list_sessions(&self, query: &Arc<SessionQuery>, until: Instant) -> Vec<Option<SessionPage>> {
        worker_asks::ask(&self.0, 0..self.workers(), until, |reply| Command::List(Arc::clone(query), reply)).await
    }

    /// Connections that a worker has permits for: those that are open, or on their way to it.
    pub(crate) fn permits_taken(&self, worker: usize) -> usize {
        let open = self.0.shared.occupancy.open.get(worker);
        open.map_or(0, |open| open.load(std::sync::atomic::Ordering::Relaxed))
    }

    /// Asks some of them what they have, and of backends so many at most.
    pub(crate) async fn inspect(
        &self,
        workers: Range<usize>,
        rows_max: usize,
        until: Instant,
    ) -> Vec<Option<WorkerReport>> {
        worker_asks::ask(&self.0, workers, until, |reply| Command::Inspect(rows_max, reply)).await
    }

    /// Has every worker follow the requests that somebody wants to see: each says when it does, in their order.
    pub(crate) fn tap(&self, tap: &Arc<Tap>) -> Vec<oneshot::Receiver<()>> {
        self.ask_workers(|begun| Command::Tap(Arc::clone(tap), begun))
    }

    /// Has each worker tell a tap what is known of what it follows there and has not ended.
    pub(crate) fn tell_so_far(&self, tap: &Arc<Tap>) -> Vec<oneshot::Receiver<()>> {
        self.ask_workers(|told| Command::TellSoFar(Arc::clone(tap), told))
    }

    fn ask_workers(&self, command: impl Fn(oneshot::Sender<()>) -> Command) -> Vec<oneshot::Receiver<()>> {
        let ask = |commands: &UnboundedSender<Command>| {
            let (reply, replied) = oneshot::channel();
            // One that has ended has no requests, and drops the channel.
            let _ = commands.send(command(reply));
            replied
        };
        self.0.commands.iter().map(ask).collect()
    }

    /// Places of those who look at requests at once.
    pub(crate) fn tap_places(&self) -> &Arc<Semaphore> {
        &self.0.tap_places
    }

    /// A request is refused for who sends it: whether to log that, and how many have not been logged before.
    pub(crate) fn denial_due(&self) -> Option<u64> {
        let now = ambient::now();
        let mut denials = self.0.denials.lock().unwrap_or_else(PoisonError::into_inner);
        let (logged, others) = &mut *denials;
        if logged.is_some_and(|logged| now.saturating_duration_since(logged) < DENIALS_LOGGED_EVERY) {
            *others += 1;
            return None;
        }
        *logged = Some(now);
        Some(std::mem::take(others))
    }

    /// Changes something at run time. Takes as long as a build does.
    pub(crate) fn change_blocking(&self, wish: &Wish, author: &Author) -> Result<Applied, ChangeError> {
        self.0.change(wish, author)
    }

    /// The filter of the log, and who has changed it.
    pub(crate) fn log_filter(&self) -> Option<(InForce, Option<LogChange>)> {
        self.0.log_filter()
    }

    /// Puts another filter of the log in force for a time.
    pub(crate) fn change_log(&self, filter: &str, duration: Duration, author: &Author) -> Result<(), String> {
        self.0.change_log(filter, duration, author)
    }

    /// Puts that of the start in force again.
    pub(crate) fn restore_log(&self, author: &Author) {
        self.0.restore_log(author);
    }

    /// What has been changed at run time.
    pub(crate) fn overrides(&self) -> Overrides {
        self.0.over().0.clone()
    }

    /// The configuration in force, written out. `None`: it was made in memory.
    pub(crate) fn effective_blocking(&self) -> Option<Effective> {
        let (origin, overrides) = {
            let origin = self.0.origin.lock().unwrap_or_else(PoisonError::into_inner);
            (origin.clone()?, self.overrides())
        };
        origin.effective(&|name| std::env::var(name).ok(), &overrides.patches()).ok()
    }

    /// The file that is read, if it is a file alone.
    pub(crate) fn file(&self) -> Option<&std::path::Path> {
        self.0.source_file()
    }

    /// Reads the source again and applies it. Takes as long as a build does.
    pub(crate) fn reload_blocking(&self) -> (Result<Applied, ReloadError>, LastReload) {
        self.0.reload()
    }
}
