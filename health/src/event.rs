//! What goes in, and what comes out.

use std::fmt;
use std::time::Duration;

/// Result of an active check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// As it should be.
    Success,
    /// Not so.
    Failure(CheckFailure),
}

/// Why an active check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckFailure {
    /// The connection was refused or could not be made.
    Connect,
    /// No complete answer in time.
    Timeout,
    /// A status outside the expected ranges.
    Status(u16),
    /// The connection ended before the answer did.
    Closed,
    /// Bytes that are no answer.
    Garbage,
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("check: connect failed"),
            Self::Timeout => f.write_str("check: timed out"),
            Self::Status(status) => write!(f, "check: status {status}"),
            Self::Closed => f.write_str("check: connection closed"),
            Self::Garbage => f.write_str("check: not an answer"),
        }
    }
}

/// How a request of live traffic went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer that counts for the backend.
    Success,
    /// An answer with this status; the policy says whether it counts as a failure.
    Status(u16),
    /// Refused, reset, or garbage.
    ConnectionFailure,
    /// The connection was not made in time: nobody is there. Counts as as many failures as eject.
    ConnectTimeout,
    /// The answer did not come in time.
    Timeout,
}

/// Something that operators want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The backend; empty for what concerns the whole service.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Active checks brought it up.
    Up,
    /// Active checks took it down.
    Down(CheckFailure),
    /// Live traffic ejected it.
    Ejected {
        /// After so many failures in a row.
        failures: u32,
        /// For so long.
        duration: Duration,
    },
    /// Its ejection is over.
    Returned,
    /// It would have been ejected, but too many are.
    EjectionWithheld,
    /// It began to drain.
    Draining,
    /// It takes keys again after a drain.
    Undrained,
    /// Too few are healthy: health is ignored.
    PanicBegan,
    /// Enough are healthy again.
    PanicEnded,
}

impl EventKind {
    /// Short name: metric label, status field.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down(_) => "down",
            Self::Ejected { .. } => "ejected",
            Self::Returned => "returned",
            Self::EjectionWithheld => "ejection_withheld",
            Self::Draining => "draining",
            Self::Undrained => "undrained",
            Self::PanicBegan => "panic_began",
            Self::PanicEnded => "panic_ended",
        }
    }
}
