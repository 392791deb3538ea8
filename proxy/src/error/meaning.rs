//! What an error means for what comes next: whose fault it is, whether another backend may be tried, and how the passive detector
//! counts it.

use super::ProxyError;
use crate::planted::{self, Fault};
use ringway_config::model::RetryOn;
use ringway_health::Outcome;
use ringway_http1::{ParseError, is_response};

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Downstream,
    /// The backend's, or that of the network to it.
    Upstream,
    /// Ringway's, or its configuration's.
    Internal,
}

/// When the request may be sent to another backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryWhen {
    /// Never.
    Never,
    /// Always: nothing was sent, and nothing failed.
    Always,
    /// Nothing of it can have been processed; if the service retries on connect failures.
    Connect,
    /// If the request is idempotent, and the service retries on resets.
    Reset,
    /// The same for invalid responses.
    BadResponse,
    /// The same for time-outs.
    Timeout,
}

impl RetryWhen {
    /// Whether it may, under a service's retry conditions; `repeatable`: the request is idempotent.
    #[must_use]
    pub fn holds(self, on: &RetryOn, repeatable: bool) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Connect => on.connect,
            Self::Reset => on.reset && (repeatable || planted::is_planted(Fault::UnsafeRetry)),
            Self::BadResponse => on.bad_answer && repeatable,
            Self::Timeout => on.timeout && repeatable,
        }
    }
}

impl ProxyError {
    /// Whose fault it is.
    #[must_use]
    pub fn side(self) -> Side {
        match self {
            Self::BadRequest(_)
            | Self::PathTraversal
            | Self::BodyTooLarge
            | Self::ConnectRefused
            | Self::Expectation
            | Self::WebSocketKey
            | Self::KeyMissing
            | Self::HeadTimeout
            | Self::BodyTimeout
            | Self::RateLimited { .. }
            | Self::ClientStalled
            | Self::ClientClosed => Side::Downstream,
            Self::NoRoute
            | Self::UpgradeUnsupported
            | Self::NotSwitched
            | Self::AllFull
            | Self::QueueTimeout
            | Self::ServiceFull
            | Self::Overloaded
            | Self::Shed(_)
            | Self::ConnectionLimit
            | Self::PendingLimit
            | Self::LocalShortage
            | Self::CompressionFailed => Side::Internal,
            Self::NoBackend
            | Self::ConnectFailed
            | Self::StreamRefused
            | Self::TlsFailed
            | Self::Http2Failed
            | Self::ConnectTimeout
            | Self::UpstreamClosed
            | Self::BadResponse(_)
            | Self::UnfitResponse(_)
            | Self::UnfitStream
            | Self::TlsTruncated
            | Self::ShortResponse
            | Self::ResponseTimeout
            | Self::SendTimeout
            | Self::RequestTimeout => Side::Upstream,
        }
    }

    /// When another backend may be tried.
    #[must_use]
    pub fn retry(self) -> RetryWhen {
        match self {
            Self::ConnectFailed | Self::StreamRefused | Self::TlsFailed | Self::Http2Failed | Self::ConnectTimeout => {
                RetryWhen::Connect
            }
            Self::ConnectionLimit => RetryWhen::Always,
            Self::UpstreamClosed => RetryWhen::Reset,
            Self::BadResponse(_) | Self::ShortResponse => RetryWhen::BadResponse,
            Self::ResponseTimeout | Self::SendTimeout => RetryWhen::Timeout,
            Self::BadRequest(_)
            | Self::PathTraversal
            | Self::NoRoute
            | Self::BodyTooLarge
            | Self::ConnectRefused
            | Self::Expectation
            | Self::WebSocketKey
            | Self::UpgradeUnsupported
            | Self::NotSwitched
            | Self::KeyMissing
            | Self::HeadTimeout
            | Self::BodyTimeout
            | Self::ClientClosed
            | Self::ClientStalled
            | Self::NoBackend
            | Self::AllFull
            | Self::ServiceFull
            | Self::Overloaded
            | Self::Shed(_)
            | Self::RateLimited { .. }
            | Self::QueueTimeout
            | Self::PendingLimit
            | Self::LocalShortage
            | Self::UnfitResponse(_)
            | Self::UnfitStream
            | Self::TlsTruncated
            | Self::CompressionFailed
            | Self::RequestTimeout => RetryWhen::Never,
        }
    }

    /// Whether the client's body is still framed as it was sent, so that the part that is here may be skipped. Where the body
    /// itself is invalid, nothing behind it can be trusted.
    pub(crate) fn keeps_order(self) -> bool {
        !matches!(
            self,
            Self::BadRequest(_)
                | Self::BodyTooLarge
                | Self::BodyTimeout
                | Self::HeadTimeout
                | Self::ClientClosed
                | Self::ClientStalled
        )
    }

    /// How the passive detector counts it.
    pub(crate) fn outcome(self) -> Option<Outcome> {
        match self {
            Self::ConnectTimeout => Some(Outcome::ConnectTimeout),
            Self::ResponseTimeout | Self::SendTimeout => Some(Outcome::Timeout),
            Self::ConnectFailed
            | Self::StreamRefused
            | Self::TlsFailed
            | Self::Http2Failed
            | Self::UpstreamClosed
            | Self::BadResponse(_)
            | Self::ShortResponse => Some(Outcome::ConnectionFailure),
            // A response whose form a request can provoke says nothing about the backend. The time of the whole exchange may
            // have gone on other backends; the rest is the client's fault or ours.
            Self::UnfitResponse(_)
            | Self::UnfitStream
            // Common with many servers, or caused by another machine on the way.
            | Self::TlsTruncated
            | Self::RequestTimeout
            | Self::BadRequest(_)
            | Self::PathTraversal
            | Self::NoRoute
            | Self::BodyTooLarge
            | Self::ConnectRefused
            | Self::Expectation
            | Self::WebSocketKey

            | Self::UpgradeUnsupported
            | Self::NotSwitched
            | Self::KeyMissing
            | Self::HeadTimeout
            | Self::BodyTimeout
            | Self::ClientClosed
            | Self::ClientStalled
            | Self::NoBackend
            | Self::AllFull
            | Self::ServiceFull
            | Self::Overloaded
            | Self::Shed(_)
            | Self::RateLimited { .. }
            | Self::ConnectionLimit
            | Self::PendingLimit
            | Self::QueueTimeout
            | Self::LocalShortage
            | Self::CompressionFailed => None,
        }
    }

    /// The error for a head that could not be parsed: these bytes are no HTTP, or HTTP that is not forwarded.
    pub(crate) fn of_head(error: ParseError, bytes: &[u8]) -> Self {
        if is_response(bytes) { Self::UnfitResponse(error) } else { Self::BadResponse(error) }
    }

    /// Whether no backend has seen anything of the request, because there was no connection to send it on. Shortages of our own (no
    /// descriptor, no port) are excluded: it would be the same with the next backend.
    #[must_use]
    pub(crate) fn was_not_taken(self) -> bool {
        matches!(self, Self::ConnectFailed | Self::TlsFailed | Self::Http2Failed)
    }
}
