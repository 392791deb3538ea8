//! What is shown of a backend.

use crate::event::{CheckFailure, EventKind};
use std::time::Duration;

/// A backend as the status shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberView {
    /// `up`, `degraded`, `down`, `unknown` (not checked yet), `ejected`, `draining`, `drained`.
    pub state: &'static str,
    /// Neither down by its checks or its agent nor ejected, whatever its operator wants of it.
    pub healthy: bool,
    /// Share of its keys that it takes, of 65535.
    pub share: u16,
    /// Failures of live traffic in a row.
    pub consecutive_failures: u32,
    /// Ejections in a row: a time of peace forgets them.
    pub ejections: u32,
    /// What is left of its ejection.
    pub ejected_for: Option<Duration>,
    /// Percent of its weight that its checks and its agent ask for.
    pub percent: u8,
    /// What its agent says: `up`, `down`, `drain`, `maintenance`; `up` without one.
    pub agent: &'static str,
    /// It takes no keys, and keeps the clients that are bound to it.
    pub keeps_clients: bool,
    /// Its last change, and how long ago that was.
    pub last_change: Option<(EventKind, Duration)>,
    /// Why its last check failed, while it is down or on the way there.
    pub check_failure: Option<CheckFailure>,
}
