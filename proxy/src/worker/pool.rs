//! Idle connections of one worker to one backend, last in, first out.

use crate::net::stream::Stream;
use crate::net::timer::Deadline;
use crate::snapshot::connection_slot::ConnectionSlot;
use ringway_telemetry::counters::WorkerCounters;
use std::cell::{Cell, RefCell};

/// Idle connections of one worker to one backend.
#[derive(Default)]
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
    closed: Cell<bool>,
}

struct Idle {
    stream: Stream,
    slot: ConnectionSlot,
    since: Deadline,
}

impl Pool {
    /// The connection used last that is still good.
    ///
    /// `certain`: ask the kernel too, not only the runtime's readiness, because the request must not be sent on a connection that
    /// is being closed: it could not be repeated.
    pub(crate) fn take(&self, certain: bool, counters: &WorkerCounters) -> Option<(Stream, ConnectionSlot)> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { mut stream, slot, .. }) = idle.pop() {
            counters.upstream_idle.subtract(1);
            if stream.is_reusable(certain) {
                return Some((stream, slot));
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended cleanly.
    pub(crate) fn put(
        &self,
        stream: Stream,
        slot: ConnectionSlot,
        idle_max: usize,
        now: Deadline,
        counters: &WorkerCounters,
    ) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < idle_max && !self.closed.get() {
            idle.push(Idle { stream, slot, since: now });
            counters.upstream_idle.increment();
        }
    }

    /// Closes what has been idle since before `oldest`, and what the backend has closed.
    pub(crate) fn expire(&self, oldest: Deadline, counters: &WorkerCounters) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain_mut(|idle| idle.since >= oldest && idle.stream.is_reusable(false));
        counters.upstream_idle.subtract((before - idle.len()) as u64);
    }

    /// One of them, in use since `since`, has turned out to be dead: those on which nothing was received since then are closed, so
    /// that not each of them costs a time-out.
    pub(crate) fn doubt(&self, since: Deadline, counters: &WorkerCounters) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|idle| idle.since > since);
        counters.upstream_idle.subtract((before - idle.len()) as u64);
    }

    /// Closes all, and keeps none from now on: the backend was removed from the configuration.
    pub(crate) fn close(&self, counters: &WorkerCounters) {
        self.closed.set(true);
        self.release(counters);
    }

    /// Closes the one that has been idle for longest. `false`: there is none.
    pub(crate) fn close_one(&self, counters: &WorkerCounters) -> bool {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            return false;
        }
        drop(idle.remove(0));
        counters.upstream_idle.subtract(1);
        true
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Closes all that are idle now; returns how many they were.
    pub(crate) fn release(&self, counters: &WorkerCounters) -> usize {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        counters.upstream_idle.subtract(idle.len() as u64);
        idle.len()
    }
}
