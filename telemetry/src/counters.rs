//! What the data path counts: one set of numbers per worker, each written by that worker alone.

use crate::exemplars::Exemplars;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use crate::buckets::{BUCKETS_MICROS, Measured};
pub use crate::cell::Cell;

/// Durations, counted per bucket.
#[derive(Debug, Default)]
pub struct Durations {
    /// One per bound, and one for what is longer than all.
    pub buckets: [Cell; BUCKETS_MICROS.len() + 1],
    /// Sum, in microseconds.
    pub sum_micros: Cell,
}

impl Durations {
    /// Counts one.
    #[inline]
    pub fn record(&self, duration: Duration) {
        self.count(Measured::new(duration));
    }

    /// Counts one that may be counted elsewhere too.
    #[inline]
    pub fn count(&self, measured: Measured) {
        self.buckets[measured.bucket].increment();
        self.sum_micros.add(measured.micros);
    }
}

/// How many classes requests are counted by.
pub const CLASSES: usize = 7;
/// The class of what has no status: a TCP session or a UDP flow that a backend has taken.
pub const SESSION: usize = 6;
/// Their labels.
pub const CLASS_NAMES: [&str; CLASSES] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "session"];

/// The class of a status; 0 is none.
#[inline]
#[must_use]
pub fn class_of(status: u16) -> usize {
    usize::from(status / 100).min(5)
}

/// A limit that may not allow a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryLimit {
    /// The service's `limits.retries_max`.
    Service,
    /// The budget.
    Budget,
    /// `retries_max` of each backend that was left.
    Backend,
}

impl RetryLimit {
    /// All of them, in the order of [`ServiceCounters::retries_refused`].
    pub const ALL: [Self; 3] = [Self::Service, Self::Budget, Self::Backend];

    /// Its label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "retries_max",
            Self::Budget => "budget",
            Self::Backend => "backend_retries_max",
        }
    }
}

/// One worker's numbers of a service.
#[derive(Debug, Default)]
pub struct ServiceCounters {
    /// By status class: 0 is "no response could be given", 1 to 5 the hundreds, and [`SESSION`].
    pub requests: [Cell; CLASSES],
    /// Durations of requests.
    pub durations: Durations,
    /// Traces of some of them.
    pub exemplars: Exemplars,
    /// Tries after the first.
    pub retries: Cell,
    /// Sent on because of the bound.
    pub spills: Cell,
    /// Of clients that a backend keeps although it takes nothing new.
    pub kept: Cell,
    /// Served by the key's owner.
    pub owned: Cell,
    /// Waited for room.
    pub queued: Cell,
    /// Had a key.
    pub keyed: Cell,
    /// Members that were passed over, because of the bound or of health, summed.
    pub distance: Cell,
    /// Had a hot key.
    pub hot: Cell,
    /// Retries that a limit did not allow, in the order of [`RetryLimit::ALL`].
    pub retries_refused: [Cell; RetryLimit::ALL.len()],
    /// Second tries beside the first.
    pub hedges: Cell,
    /// Of these, those whose response was taken.
    pub hedges_won: Cell,
    /// Second tries that the budget did not allow.
    pub hedges_refused: Cell,
    /// Keys being handed over: served by the backend that has had the key, the next owner getting nothing.
    pub handoff_previous: Cell,
    /// The same, and the next owner got a copy.
    pub handoff_copies: Cell,
    /// Copies of these that brought it nothing.
    pub handoff_copies_failed: Cell,
    /// Copies for which there was no place.
    pub handoff_copies_refused: Cell,
    /// Sent to the next owner, which was told of the previous one.
    pub handoff_moved: Cell,
    /// Copied for a mirror.
    pub mirrored: Cell,
    /// Were to be copied for a mirror, and were not.
    pub mirror_left_out: Cell,
    /// Placements compared with the shadow's.
    pub shadowed: Cell,
    /// Of these, those that the shadow would move.
    pub shadow_moved: Cell,
    /// Connections to its backends by their additional addresses.
    pub additional_connects: Cell,
}

impl ServiceCounters {
    /// A limit has not allowed a retry.
    pub fn refuse_retry(&self, limit: RetryLimit) {
        self.retries_refused[limit as usize].increment();
    }
}

/// One worker's numbers of a backend.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Requests sent to it.
    pub requests: Cell,
    /// Of what it has served: sent on to it because of another's bound.
    pub spills: Cell,
    /// Tries that failed.
    pub failures: Cell,
    /// Connections opened.
    pub connects: Cell,
    /// Those of them that were opened before a request needed one.
    pub preconnects: Cell,
    /// Responses that count as failures for ejection.
    pub errors: Cell,
    /// Responses whose latency was measured, and their latencies' sum.
    pub timed: Cell,
    /// In microseconds, to the head of the response.
    pub latency_micros: Cell,
    /// Tries that were given up before their response, and how long they had lasted, summed.
    pub cut: Cell,
    /// In microseconds.
    pub cut_micros: Cell,
    /// Tries that have ended, by class of their response as in [`ServiceCounters::requests`]. 0: without one, because the try failed,
    /// another was faster, or the client left.
    pub responses: [Cell; CLASSES],
    /// Their durations, from the try's start (its connection included) to the end of its response.
    pub durations: Durations,
}

impl BackendCounters {
    /// Counts a try that has ended.
    #[inline]
    pub fn count_try(&self, class: usize, measured: Measured) {
        self.responses[class].increment();
        self.durations.count(measured);
    }
}

/// A backend's numbers, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackendTotals {
    /// Requests sent to it.
    pub requests: u64,
    /// Tries that failed, and responses that count as failures for ejection.
    pub failures: u64,
    /// Responses whose latency was measured.
    pub timed: u64,
    /// Sum of their latencies, in microseconds.
    pub latency_micros: u64,
    /// Tries that were given up before their response.
    pub cut: u64,
    /// How long they had lasted, summed, in microseconds.
    pub cut_micros: u64,
}

/// One worker's numbers that belong to no service.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Bytes read from clients.
    pub received_bytes: Cell,
    /// Bytes written to clients.
    pub sent_bytes: Cell,
    /// Connections open now.
    pub connections: Cell,
    /// Connections accepted.
    pub accepted: Cell,
    /// Idle upstream connections now.
    pub upstream_idle: Cell,
    /// Pipes in use.
    pub pipes: Cell,
    /// Bytes that have gone through them.
    pub spliced_bytes: Cell,
    /// Errors of accept.
    pub accept_errors: Cell,
    /// Connections ended by a panic.
    pub panics: Cell,
    /// Access log lines lost.
    pub access_log_lost: Cell,
    /// Responses compressed.
    pub compressed: Cell,
    /// Responses that were not, because too many were.
    pub compression_skipped: Cell,
    /// Bytes before compression.
    pub compression_input: Cell,
    /// Bytes after it.
    pub compression_output: Cell,
}

type PerBackend<T> = BTreeMap<(Box<str>, Box<str>), T>;

/// All cells there are: workers put theirs in, a scrape reads them all.
#[derive(Debug, Default)]
pub struct Registry {
    workers: Mutex<Vec<Arc<WorkerCounters>>>,
    services: Mutex<BTreeMap<Box<str>, Vec<Arc<ServiceCounters>>>>,
    backends: Mutex<PerBackend<Vec<Arc<BackendCounters>>>>,
    errors: Mutex<BTreeMap<(Box<str>, &'static str), u64>>,
    shortages: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// Lines that the access log's writers have lost, beside those that workers could not hand over.
    unwritten_lines: AtomicU64,
    /// Spans by what became of them.
    pub spans: Arc<crate::traces::SpanCounts>,
    /// Panics outside workers.
    panics: AtomicU64,
}

impl Registry {
    /// A new worker's cells.
    pub fn worker(&self) -> Arc<WorkerCounters> {
        let counters = Arc::new(WorkerCounters::default());
        lock(&self.workers).push(Arc::clone(&counters));
        counters
    }

    /// A worker's cells of a service. Counters outlive reloads: the worker keeps and reuses what it got.
    pub fn service(&self, name: &str) -> Arc<ServiceCounters> {
        let counters = Arc::new(ServiceCounters::default());
        lock(&self.services).entry(name.into()).or_default().push(Arc::clone(&counters));
        counters
    }

    /// A worker's cells of a backend.
    pub fn backend(&self, service: &str, id: &str) -> Arc<BackendCounters> {
        let counters = Arc::new(BackendCounters::default());
        lock(&self.backends).entry((service.into(), id.into())).or_default().push(Arc::clone(&counters));
        counters
    }

    /// Counts a response that the proxy gave itself; `service` is empty where none was chosen. Not the hot path.
    pub fn error(&self, service: &str, reason: &'static str) {
        *lock(&self.errors).entry((service.into(), reason)).or_default() += 1;
    }

    /// Counts something that could not be done because this host is short of a resource. Not the hot path.
    pub fn shortage(&self, operation: &'static str, resource: &'static str) {
        *lock(&self.shortages).entry((operation, resource)).or_default() += 1;
    }

    /// Counts access log lines that could not be written.
    pub fn access_log_lost(&self, lines: u64) {
        self.unwritten_lines.fetch_add(lines, Relaxed);
    }

    pub(crate) fn unwritten_lines(&self) -> u64 {
        self.unwritten_lines.load(Relaxed)
    }

    /// Counts a panic outside a worker.
    pub fn note_panic(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Relaxed)
    }

    /// Forgets what is no longer in the configuration.
    pub fn retain(&self, mut service: impl FnMut(&str) -> bool, mut backend: impl FnMut(&str, &str) -> bool) {
        lock(&self.backends).retain(|(name, id), _| backend(name, id));
        lock(&self.errors).retain(|(name, _), _| name.is_empty() || service(name));
        lock(&self.services).retain(|name, _| service(name));
    }

    /// A backend's numbers, over all workers.
    #[must_use]
    pub fn backend_totals(&self, service: &str, id: &str) -> BackendTotals {
        let backends = lock(&self.backends);
        let counters = backends.get(&(Box::from(service), Box::from(id)));
        counters.into_iter().flatten().fold(BackendTotals::default(), |sum, counters| BackendTotals {
            requests: sum.requests + counters.requests.get(),
            failures: sum.failures + counters.failures.get() + counters.errors.get(),
            timed: sum.timed + counters.timed.get(),
            latency_micros: sum.latency_micros + counters.latency_micros.get(),
            cut: sum.cut + counters.cut.get(),
            cut_micros: sum.cut_micros + counters.cut_micros.get(),
        })
    }

    /// Placements compared with the shadow's, and those that it would move, over all workers.
    #[must_use]
    pub fn shadow_counts(&self, service: &str) -> (u64, u64) {
        let services = lock(&self.services);
        let counters = services.get(service);
        counters
            .into_iter()
            .flatten()
            .fold((0, 0), |(all, moved), counters| (all + counters.shadowed.get(), moved + counters.shadow_moved.get()))
    }

    /// Requests of a service that have ended, over all workers.
    #[must_use]
    pub fn service_requests(&self, service: &str) -> u64 {
        let services = lock(&self.services);
        services.get(service).into_iter().flatten().flat_map(|counters| &counters.requests).map(Cell::get).sum()
    }

    /// Requests that have ended, over all services and workers, by class as in [`ServiceCounters::requests`].
    #[must_use]
    pub fn request_totals(&self) -> [u64; CLASSES] {
        let services = lock(&self.services);
        let mut totals = [0; CLASSES];
        for counters in services.values().flatten() {
            for (total, cell) in totals.iter_mut().zip(&counters.requests) {
                *total += cell.get();
            }
        }
        totals
    }

    /// Requests a backend has got, over all workers.
    #[must_use]
    pub fn backend_requests(&self, service: &str, id: &str) -> u64 {
        let backends = lock(&self.backends);
        let counters = backends.get(&(Box::from(service), Box::from(id)));
        counters.map_or(0, |counters| counters.iter().map(|counters| counters.requests.get()).sum())
    }

    /// What a backend has served because the bound of another sent it on, over all workers.
    #[must_use]
    pub fn backend_spills(&self, service: &str, id: &str) -> u64 {
        let backends = lock(&self.backends);
        let counters = backends.get(&(Box::from(service), Box::from(id)));
        counters.map_or(0, |counters| counters.iter().map(|counters| counters.spills.get()).sum())
    }

    pub(crate) fn for_workers(&self, mut visit: impl FnMut(&[Arc<WorkerCounters>])) {
        visit(&lock(&self.workers));
    }

    pub(crate) fn for_services(&self, mut visit: impl FnMut(&str, &[Arc<ServiceCounters>])) {
        lock(&self.services).iter().for_each(|(name, counters)| visit(name, counters));
    }

    pub(crate) fn for_backends(&self, mut visit: impl FnMut(&str, &str, &[Arc<BackendCounters>])) {
        lock(&self.backends).iter().for_each(|((name, id), counters)| visit(name, id, counters));
    }

    pub(crate) fn for_shortages(&self, mut visit: impl FnMut(&'static str, &'static str, u64)) {
        lock(&self.shortages).iter().for_each(|((operation, resource), count)| visit(operation, resource, *count));
    }

    pub(crate) fn for_errors(&self, mut visit: impl FnMut(&str, &'static str, u64)) {
        lock(&self.errors).iter().for_each(|((name, reason), count)| visit(name, reason, *count));
    }
}

/// Counters stay readable after a panic elsewhere: every update of these maps is one step.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
