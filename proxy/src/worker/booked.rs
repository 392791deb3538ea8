//! Until when the time of keys is booked that are in flight. What lasts is booked once a second, not only at its end: a key is hot
//! before its sessions have ended.

use ringway_ring::Hash;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// What ends sooner is booked at its end alone.
pub(crate) const LASTING: Duration = Duration::from_secs(1);

/// A key that is in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyInFlight {
    pub(crate) hash: Hash,
    pub(crate) since: Instant,
}

/// When a worker has last booked what lasts.
#[derive(Default)]
pub(crate) struct Booked(Cell<Option<Instant>>);

impl Booked {
    /// All that lasts is booked until now.
    pub(super) fn set(&self, now: Instant) {
        self.0.set(Some(now));
    }

    /// Until when it is booked what is in flight since then; `None`: it had not lasted yet.
    pub(crate) fn until(&self, since: Instant) -> Option<Instant> {
        self.0.get().filter(|last| last.saturating_duration_since(since) >= LASTING)
    }
}
