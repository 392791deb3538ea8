//! What comes of a try, and of an exchange.

use crate::error::ProxyError;
use crate::net::timer::Deadline;
use crate::worker::Worker;
use ringway_health::Outcome;
use std::time::Duration;

/// What the client's connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It may carry another request.
    Request,
    /// It is closed, in peace.
    Close,
    /// It is closed at once: there is nobody there, or what he has got must not look whole.
    Abort,
    /// It is closed after what the client still sends has been read.
    Linger,
}

/// Cause a try ended without an answer.
pub(super) enum TryError {
    /// The backend's fault: another may be tried.
    Upstream(ProxyError),
    /// The client's fault: there is nobody left to answer, or nothing to send.
    Downstream(ProxyError),
}

/// What the passive detector hears of an answer.
pub(super) fn outcome_of(status: u16, retry_after: Option<Duration>) -> Outcome {
    match retry_after {
        Some(wish) => Outcome::RetryAfter { status, wish },
        None => Outcome::Status(status),
    }
}

/// A time-out that was the whole exchange's is told as that.
pub(super) fn timed_out(error: ProxyError, worker: &Worker, limit: Deadline) -> ProxyError {
    let is_timeout =
        matches!(error, ProxyError::ConnectTimeout | ProxyError::ResponseTimeout | ProxyError::SendTimeout);
    if is_timeout && worker.timers.now() >= limit { ProxyError::RequestTimeout } else { error }
}
