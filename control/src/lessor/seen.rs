//! A proxy, as the leader hears of it.

use crate::watch::wire::Heartbeat;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// A proxy that has not been heard of for this long is offline.
pub(crate) const PROXY_TTL: Duration = Duration::from_secs(7);

/// What a proxy has said last.
pub(super) struct Seen {
    pub(super) heartbeat: Heartbeat,
    /// Of all its rings' names and digests: a thousand of them are compared by one number.
    pub(super) rings: u64,
    pub(super) at: Instant,
    /// By everybody's time, for people.
    pub(super) heard: Instant,
}

impl Seen {
    pub(super) fn new(heartbeat: Heartbeat, at: Instant, heard: Instant) -> Self {
        let mut hasher = DefaultHasher::new();
        heartbeat.rings.hash(&mut hasher);
        Self { rings: hasher.finish(), heartbeat, at, heard }
    }
}
