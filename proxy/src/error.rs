//! Why a request did not get a backend's response: one type, from which what the client is told follows, and what comes next.

use crate::net::shortage::Resource;
use ringway_config::model::Priority;
use ringway_http1::ParseError;
use thiserror::Error;

mod meaning;

pub use meaning::{RetryWhen, Side};

/// Why a request ended without a backend's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// The request breaks the framing rules, or a limit.
    #[error("bad request: {0}")]
    BadRequest(ParseError),
    /// The path climbs out of the prefix that its route matches.
    #[error("path with dot segments")]
    PathTraversal,
    /// No route matches.
    #[error("no route matches")]
    NoRoute,
    /// The body is longer than the listener allows.
    #[error("request body is longer than the limit")]
    BodyTooLarge,
    /// CONNECT.
    #[error("CONNECT is refused")]
    ConnectRefused,
    /// An expectation other than 100-continue.
    #[error("unknown expectation")]
    Expectation,
    /// A WebSocket handshake without a proper key (RFC 6455, 4.2.1).
    #[error("bad WebSocket key")]
    WebSocketKey,
    /// The backend takes no WebSocket over HTTP/2 (RFC 8441).
    #[error("backend takes no upgrade over HTTP/2")]
    UpgradeUnsupported,
    /// The backend responds to a WebSocket handshake over HTTP/2 without switching: there, that would be a tunnel (RFC 8441, 5).
    #[error("backend does not switch")]
    NotSwitched,
    /// None of the hash keys is present, and the service requires one.
    #[error("no hash key in the request")]
    KeyMissing,
    /// The head did not come in time.
    #[error("request head timed out")]
    HeadTimeout,
    /// The body stalled.
    #[error("request body timed out")]
    BodyTimeout,
    /// The client left before it had its response.
    #[error("client closed the connection")]
    ClientClosed,
    /// The client read its response too slowly, or not at all.
    #[error("client does not read its response")]
    ClientStalled,
    /// No backend may take the request.
    #[error("no backend is available")]
    NoBackend,
    /// Every backend is at its cap.
    #[error("every backend is full")]
    AllFull,
    /// The service has as many requests as allowed.
    #[error("the service is full")]
    ServiceFull,
    /// The process is short of memory, or its workers of time.
    #[error("overloaded")]
    Overloaded,
    /// The same, and it was its turn to be refused among those of its priority.
    #[error("overloaded: some of its priority are refused")]
    Shed(Priority),
    /// The key has used up its rate.
    #[error("rate limit: try again in {seconds} s")]
    RateLimited {
        /// Seconds until the next one is allowed.
        seconds: u32,
    },
    /// The backend, or the service, has as many connections in use, or requests that wait for one, as allowed: as good as full.
    #[error("the backend has all the connections it may")]
    ConnectionLimit,
    /// As many requests wait for a reservation or a connection as the service allows.
    #[error("too many requests wait")]
    PendingLimit,
    /// Every backend stayed at its cap for the queue's time.
    #[error("every backend stayed full")]
    QueueTimeout,
    /// The connection could not be made because this host has run out of something: not the backend's fault.
    #[error("this host is short of descriptors, ports or memory")]
    LocalShortage,
    /// The connection was refused, or could not be made.
    #[error("connect failed")]
    ConnectFailed,
    /// The backend has refused the stream without processing it, or takes none at the moment.
    #[error("backend refuses streams")]
    StreamRefused,
    /// The TLS handshake with the backend failed.
    #[error("TLS with the backend failed")]
    TlsFailed,
    /// The backend takes connections, and does not speak HTTP/2 on them.
    #[error("backend does not speak HTTP/2")]
    Http2Failed,
    /// The connection was not made in time.
    #[error("connect timed out")]
    ConnectTimeout,
    /// The backend closed or reset before its response began.
    #[error("backend closed before it responded")]
    UpstreamClosed,
    /// The backend's bytes are not HTTP.
    #[error("no HTTP response: {0}")]
    BadResponse(ParseError),
    /// The backend's response passes a limit, or breaks the framing rules. A request can provoke that, with any backend: so it
    /// causes no other attempt, and counts against no backend.
    #[error("unfit response: {0}")]
    UnfitResponse(ParseError),
    /// The same on an HTTP/2 stream, as the codec has found.
    #[error("unfit response over HTTP/2")]
    UnfitStream,
    /// The backend announced a longer body than it sent.
    #[error("response was cut off")]
    ShortResponse,
    /// A backend's TLS connection ended without close_notify where its end was to be the response's.
    #[error("response may be cut off: TLS ended without close_notify")]
    TlsTruncated,
    /// The response did not begin in time.
    #[error("response timed out")]
    ResponseTimeout,
    /// The backend stopped taking the request.
    #[error("backend stopped reading")]
    SendTimeout,
    /// An encoder has given up, for lack of memory.
    #[error("compression failed")]
    CompressionFailed,
    /// The whole exchange took too long.
    #[error("request timed out")]
    RequestTimeout,
}

impl ProxyError {
    /// The meaning of an operating system error on the way to a backend: `otherwise`, unless it is this host's.
    pub(crate) fn of_io(error: &std::io::Error, otherwise: Self) -> Self {
        if Resource::of(error).is_some() { Self::LocalShortage } else { otherwise }
    }

    /// Status of the response.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest(error) if error.is_size() => 431,
            Self::BadRequest(_) | Self::PathTraversal | Self::WebSocketKey | Self::KeyMissing => 400,
            // No client gets it: it is for the log, where nginx has made it usual.
            Self::ClientClosed => 499,
            Self::UpgradeUnsupported => 501,
            Self::NoRoute => 404,
            Self::ConnectRefused => 405,
            Self::HeadTimeout | Self::BodyTimeout | Self::ClientStalled => 408,
            Self::BodyTooLarge => 413,
            Self::RateLimited { .. } => 429,
            Self::Expectation => 417,
            Self::ConnectFailed
            | Self::StreamRefused
            | Self::TlsFailed
            | Self::Http2Failed
            | Self::UpstreamClosed
            | Self::BadResponse(_)
            | Self::UnfitResponse(_)
            | Self::UnfitStream
            | Self::NotSwitched
            | Self::TlsTruncated
            | Self::ShortResponse => 502,
            Self::NoBackend
            | Self::AllFull
            | Self::QueueTimeout
            | Self::ServiceFull
            | Self::Overloaded
            | Self::Shed(_)
            | Self::ConnectionLimit
            | Self::PendingLimit
            | Self::LocalShortage
            | Self::CompressionFailed => 503,
            Self::ConnectTimeout | Self::ResponseTimeout | Self::SendTimeout | Self::RequestTimeout => 504,
        }
    }

    /// Stable machine-readable name: `x-ringway-reason`, access log, metric label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadRequest(error) => error.reason(),
            Self::PathTraversal => "path_traversal",
            Self::NoRoute => "no_route",
            Self::BodyTooLarge => "body_too_large",
            Self::ConnectRefused => "connect_method_refused",
            Self::Expectation => "unknown_expectation",
            Self::WebSocketKey => "bad_websocket_key",
            Self::UpgradeUnsupported => "upgrade_unsupported",
            Self::NotSwitched => "not_switched",
            Self::KeyMissing => "hash_key_missing",
            Self::HeadTimeout => "request_head_timeout",
            Self::BodyTimeout => "request_body_timeout",
            Self::ClientClosed => "client_closed",
            Self::ClientStalled => "client_write_timeout",
            Self::NoBackend => "no_backend",
            // No client sees the second: the next candidate follows.
            Self::AllFull | Self::ConnectionLimit => "all_backends_full",
            Self::QueueTimeout => "queue_timeout",
            Self::ServiceFull => "service_full",
            Self::Overloaded | Self::Shed(Priority::High) => "overloaded",
            Self::Shed(Priority::Low) => "shed_low_priority",
            Self::Shed(Priority::Default) => "shed_default_priority",
            Self::RateLimited { .. } => "rate_limited",
            Self::PendingLimit => "pending_limit",
            Self::LocalShortage => "local_shortage",
            Self::ConnectFailed => "connect_failed",
            Self::StreamRefused => "stream_refused",
            Self::TlsFailed => "upstream_tls_failed",
            Self::Http2Failed => "upstream_http2_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::UpstreamClosed => "upstream_closed",
            Self::BadResponse(_) | Self::UnfitResponse(_) | Self::UnfitStream => "bad_upstream_answer",
            Self::ShortResponse => "short_upstream_answer",
            Self::TlsTruncated => "upstream_tls_truncated",
            Self::ResponseTimeout => "response_timeout",
            Self::SendTimeout => "upstream_send_timeout",
            Self::CompressionFailed => "compression_failed",
            Self::RequestTimeout => "request_timeout",
        }
    }

    /// Reason phrase of the status line.
    #[must_use]
    pub fn phrase(self) -> &'static str {
        match self.status() {
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            413 => "Content Too Large",
            417 => "Expectation Failed",
            429 => "Too Many Requests",
            499 => "Client Closed Request",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            _ => "Gateway Timeout",
        }
    }
}
