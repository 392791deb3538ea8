//! Permits that client connections take: of the process, of their listener, of the worker that serves them.

use crate::ambient;
use crate::overload::released;
use crate::planted::{self, Fault};
use ringway_telemetry::listener::ListenerNumbers;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two log lines which say that a listener is full.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Client connections of the process that are open, or on their way to be.
pub(crate) struct Occupancy {
    /// Over all workers: see [`ConnectionPermit`].
    pub(crate) connections: AtomicUsize,
    /// How many of them are flows of datagrams.
    pub(crate) flows: AtomicUsize,
    /// Worker by worker.
    pub(crate) open: Box<[AtomicUsize]>,
}

impl Occupancy {
    /// Of a process with so many workers: nothing is open.
    pub(crate) fn new(workers: usize) -> Self {
        let open = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        Self { connections: AtomicUsize::new(0), flows: AtomicUsize::new(0), open }
    }
}

/// The permits of a listener, over all workers.
#[derive(Default)]
pub(crate) struct ListenerPermits {
    /// What is counted of it.
    pub(crate) numbers: ListenerNumbers,
    taken: AtomicUsize,
    wait: Mutex<Wait>,
}

/// Accepted connections for which there is no permit: one a worker. More are in the kernel's queue.
#[derive(Default)]
struct Wait {
    waiting: usize,
    since: Option<Instant>,
    /// How often such a time has begun, and how long the past ones took together.
    count: u64,
    time: Duration,
    told: Option<Instant>,
}

/// How full a listener is, and has been.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fullness {
    pub(crate) taken: usize,
    pub(crate) is_full: bool,
    /// Times that it has been.
    pub(crate) count: u64,
    /// Together.
    pub(crate) time: Duration,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Process,
    Listener,
}

impl Full {
    /// The limit, as the log names it.
    pub(crate) fn limit(self) -> &'static str {
        match self {
            Self::Process => "connections_max of the process, or what its descriptors bear",
            Self::Listener => "connections_max of the listener",
        }
    }
}

impl ListenerPermits {
    /// A connection has to wait. `true` beside it: that is to be logged.
    pub(crate) fn wait(self: &Arc<Self>, now: Instant) -> (WaitingForPermit, bool) {
        let mut wait = self.lock();
        wait.waiting += 1;
        if wait.since.is_none() {
            wait.since = Some(now);
            wait.count += 1;
        }
        (WaitingForPermit(Arc::clone(self)), wait.is_to_be_told(now))
    }

    /// A connection is turned away. `true`: that is to be logged.
    pub(crate) fn turn_away(&self, now: Instant) -> bool {
        let mut wait = self.lock();
        wait.count += 1;
        wait.is_to_be_told(now)
    }

    pub(crate) fn fullness(&self, now: Instant) -> Fullness {
        let wait = self.lock();
        let running = wait.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        Fullness {
            taken: self.taken.load(Relaxed),
            is_full: wait.since.is_some(),
            count: wait.count,
            time: wait.time + running,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Wait> {
        self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    fn is_to_be_told(&mut self, now: Instant) -> bool {
        let due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
        if due {
            self.told = Some(now);
        }
        due
    }
}

/// An accepted connection waits for a permit. Dropping it ends the wait.
pub(crate) struct WaitingForPermit(Arc<ListenerPermits>);

impl Drop for WaitingForPermit {
    fn drop(&mut self) {
        let mut wait = self.0.lock();
        wait.waiting -= 1;
        if wait.waiting == 0
            && let Some(since) = wait.since.take()
        {
            wait.time += ambient::since(since);
        }
    }
}

/// One connection's permit. Dropping it returns it, wherever it is: a connection on its way to another worker has one already.
pub(crate) struct ConnectionPermit {
    occupancy: Arc<Occupancy>,
    /// Permits taken on its listener, over all workers.
    listener: Arc<ListenerPermits>,
    worker: u32,
    /// A flow of datagrams takes one descriptor, its backend's; a connection takes two.
    is_flow: bool,
}

impl ConnectionPermit {
    /// Takes a permit, if fewer are taken than the process and the listener may have.
    ///
    /// # Errors
    /// Which of them is full.
    pub(crate) fn take(
        occupancy: &Arc<Occupancy>,
        listener: &Arc<ListenerPermits>,
        worker: usize,
        process_max: usize,
        listener_max: usize,
    ) -> Result<Self, Full> {
        if !enter(&occupancy.connections, process_max) {
            return Err(Full::Process);
        }
        if !enter(&listener.taken, listener_max) {
            occupancy.connections.fetch_sub(1, Relaxed);
            return Err(Full::Listener);
        }
        occupancy.open[worker].fetch_add(1, Relaxed);
        Ok(Self {
            occupancy: Arc::clone(occupancy),
            listener: Arc::clone(listener),
            worker: worker as u32,
            is_flow: false,
        })
    }

    /// The same for a flow of datagrams, of which there may be fewer: anybody's datagram begins one.
    pub(crate) fn take_flow(
        occupancy: &Arc<Occupancy>,
        listener: &Arc<ListenerPermits>,
        worker: usize,
        (process_max, flows_max): (usize, usize),
        listener_max: usize,
    ) -> Option<Self> {
        if !enter(&occupancy.flows, flows_max) {
            return None;
        }
        let Ok(mut permit) = Self::take(occupancy, listener, worker, process_max, listener_max) else {
            occupancy.flows.fetch_sub(1, Relaxed);
            return None;
        };
        permit.is_flow = true;
        Some(permit)
    }

    /// Counts for another worker from here on, so that a burst of connections does not all go to the same one.
    pub(crate) fn move_to(&mut self, worker: usize) {
        self.occupancy.open[self.worker as usize].fetch_sub(1, Relaxed);
        self.occupancy.open[worker].fetch_add(1, Relaxed);
        self.worker = worker as u32;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if planted::is_planted(Fault::PermitLeaked) {
            return;
        }
        if self.is_flow {
            self.occupancy.flows.fetch_sub(1, Relaxed);
        }
        self.occupancy.open[self.worker as usize].fetch_sub(1, Relaxed);
        self.listener.taken.fetch_sub(1, Relaxed);
        self.occupancy.connections.fetch_sub(1, Relaxed);
        released::note();
    }
}

/// Test and count are one step: two workers that ask for the last permit must not both get it, nor both be refused.
fn enter(taken: &AtomicUsize, most: usize) -> bool {
    taken.fetch_update(Relaxed, Relaxed, |taken| (taken < most).then_some(taken + 1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_place_is_given_once_however_many_ask() {
        let taken = AtomicUsize::new(0);
        let got: usize = std::thread::scope(|scope| {
            let ask = || (0..1000).filter(|_| enter(&taken, 700)).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((got, taken.into_inner()), (700, 700));
    }

    #[test]
    fn time_that_a_listener_is_full_runs_once_however_many_wait_and_is_told_once_a_minute() {
        let places = Arc::new(ListenerPermits::default());
        let begin = ambient::now();
        let (first, told) = places.wait(begin);
        assert!(told);
        let (second, told) = places.wait(begin + Duration::from_secs(1));
        assert!(!told);
        let full = places.fullness(begin + Duration::from_secs(5));
        assert_eq!((full.is_full, full.count, full.time), (true, 1, Duration::from_secs(5)));
        drop(first);
        assert!(places.fullness(begin).is_full);
        drop(second);
        assert!(!places.fullness(begin).is_full);
        let (_again, told) = places.wait(begin + TELL_EVERY);
        assert!(told && places.fullness(begin).count == 2);
        assert!(!places.turn_away(begin + TELL_EVERY) && places.fullness(begin).count == 3);
    }
}
