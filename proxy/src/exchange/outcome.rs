//! Outcomes of an attempt, and of an exchange.

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
    /// It is closed gracefully.
    Close,
    /// It is closed as the client has asked: behind such a request it sends none (RFC 9112, 9.6).
    CloseAsAsked,
    /// It is closed at once: the client has left, or the response must not look complete.
    Abort,
    /// It is closed after what the client still sends has been read.
    Linger,
}

/// Why an attempt ended without a response.
pub(super) enum TryError {
    /// The backend's fault: another may be tried.
    Upstream(ProxyError),
    /// The client's fault: it has left, or there is nothing to send.
    Downstream(ProxyError),
}

impl TryError {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Upstream(error) | Self::Downstream(error) => error.reason(),
        }
    }
}

/// What is reported to the passive detector about a response.
pub(super) fn outcome_of(status: u16, retry_after: Option<Duration>) -> Outcome {
    match retry_after {
        Some(wish) => Outcome::RetryAfter { status, wish },
        None => Outcome::Status(status),
    }
}

/// A time-out of the whole exchange is reported as such.
pub(super) fn timed_out(error: ProxyError, worker: &Worker, limit: Deadline) -> ProxyError {
    let is_timeout =
        matches!(error, ProxyError::ConnectTimeout | ProxyError::ResponseTimeout | ProxyError::SendTimeout);
    if is_timeout && worker.timers.now() >= limit { ProxyError::RequestTimeout } else { error }
}
