//! A proxy, as the leader hears of it.

use crate::watch::wire::Heartbeat;
use std::time::{Duration, Instant};

/// A proxy that has not been heard of for this long is offline.
pub(crate) const PROXY_TTL: Duration = Duration::from_secs(7);
/// What a proxy has said last.
pub(super) struct Seen {
    pub(super) heartbeat: Heartbeat,
    pub(super) at: Instant,
    /// By everybody's time, for people.
    pub(super) heard: Instant,
}
