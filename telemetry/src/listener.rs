//! What is counted of each listener: one set of numbers per worker, as in [`crate::counters`].

use crate::counters::{CLASSES, Cell};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Versions of TLS, in the order of [`ListenerCounters::handshakes`].
pub const TLS_VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// One worker's numbers of a listener.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Connections (flows) that it has served or turned away for their address.
    pub accepted: Cell,
    /// Of these, those that have ended.
    pub closed: Cell,
    /// Requests, sessions and flows that have ended, by class as in [`crate::counters::ServiceCounters::requests`].
    pub requests: [Cell; CLASSES],
    /// Bytes of them that came from clients.
    pub received_bytes: Cell,
    /// Bytes of them that went to clients.
    pub sent_bytes: Cell,
    /// TLS handshakes, by version, and whether they resumed a session.
    pub handshakes: [[Cell; 2]; TLS_VERSIONS.len()],
}

impl ListenerCounters {
    /// Counts a request, session or flow that has ended.
    #[inline]
    pub fn count(&self, class: usize, received_bytes: u64, sent_bytes: u64) {
        self.requests[class].increment();
        self.received_bytes.add(received_bytes);
        self.sent_bytes.add(sent_bytes);
    }
}

/// A listener's numbers, over all workers.
#[derive(Debug, Default)]
pub struct ListenerNumbers {
    workers: Mutex<Vec<Arc<ListenerCounters>>>,
    handshake_errors: Mutex<BTreeMap<&'static str, u64>>,
}

impl ListenerNumbers {
    /// A worker's cells, when it begins to listen.
    pub fn worker(&self) -> Arc<ListenerCounters> {
        let counters = Arc::new(ListenerCounters::default());
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counters));
        counters
    }

    /// Counts a TLS handshake that has failed. Not the hot path.
    pub fn handshake_error(&self, reason: &'static str) {
        *self.handshake_errors.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// TLS handshakes that have failed, by reason.
    #[must_use]
    pub fn handshake_errors(&self) -> BTreeMap<&'static str, u64> {
        self.handshake_errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One of the numbers.
    #[must_use]
    pub fn sum(&self, pick: impl Fn(&ListenerCounters) -> &Cell) -> u64 {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().fold(0, |sum, counters| sum.wrapping_add(pick(counters).get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_workers_are_summed() {
        let numbers = ListenerNumbers::default();
        let workers = [numbers.worker(), numbers.worker()];
        workers[0].count(2, 10, 100);
        workers[1].count(2, 1, 1_000);
        workers[1].count(5, 0, 0);
        workers[1].handshakes[1][0].increment();
        numbers.handshake_error("timeout");
        numbers.handshake_error("timeout");
        assert_eq!((numbers.sum(|one| &one.requests[2]), numbers.sum(|one| &one.requests[5])), (2, 1));
        assert_eq!((numbers.sum(|one| &one.received_bytes), numbers.sum(|one| &one.sent_bytes)), (11, 1_100));
        assert_eq!(numbers.sum(|one| &one.handshakes[1][0]), 1);
        assert_eq!(numbers.handshake_errors(), BTreeMap::from([("timeout", 2)]));
    }
}
