//! What a source sees.

use ringway_config::FleetBackend;
use std::time::Duration;

/// What a source sees, and when it should be looked at again.
pub(super) struct Seen {
    pub(super) backends: Vec<FleetBackend>,
    pub(super) again: Duration,
}
