//! What a line of the access log has.

/// Names of fields that a line may have, beside header fields of the request.
pub const LOG_FIELDS: &[&str] = &[
    "time_ms",
    "time",
    "time_clf",
    "client",
    "peer",
    "listener",
    "method",
    "target",
    "path",
    "query",
    "protocol",
    "status",
    "grpc_status",
    "reason",
    "route",
    "service",
    "key_hash",
    "owner",
    "backend",
    "spills",
    "skipped",
    "hot",
    "handoff",
    "retries",
    "tries",
    "generation",
    "received_bytes",
    "sent_bytes",
    "connect_us",
    "upstream_head_us",
    "duration_us",
    "connection_id",
    "request_id",
    "trace_id",
    "tls_version",
    "tls_cipher",
    "sni",
];

/// What a line of the access log has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogLine {
    /// The fields of always.
    Usual,
    /// A JSON object with these names and values.
    Json(Vec<(String, LogSource)>),
    /// Text.
    Text(Vec<LogPart>),
}

/// Where a value of a line comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSource {
    /// One of [`LOG_FIELDS`].
    Field(&'static str),
    /// A header field of the request; in lower case.
    Header(String),
}

/// A part of a line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPart {
    /// As it is.
    Text(String),
    /// A value.
    Value(LogSource),
}
