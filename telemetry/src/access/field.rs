//! Fields of a line, each with its name and its place among the values of a line whose fields are chosen.

/// A field of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub(super) name: &'static str,
    pub(super) index: usize,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $constant:ident $name:literal,)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "places of the constants of these names")]
        enum Index {
            $($constant,)*
        }

        impl Field {
            $($(#[$doc])* pub const $constant: Self = Self { name: $name, index: Index::$constant as usize };)*

            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$constant,)*];
        }
    };
}

fields! {
    /// When it ended, in milliseconds since 1970.
    TIME_MS "time_ms",
    /// The same as RFC 3339 has it.
    TIME "time",
    /// The same as Apache and nginx write it, in UTC.
    TIME_CLF "time_clf",
    /// The client, as trusted hops say.
    CLIENT "client",
    /// Who is connected.
    PEER "peer",
    /// The listener.
    LISTENER "listener",
    /// The method.
    METHOD "method",
    /// Path and query, as they came.
    TARGET "target",
    /// The target up to its query.
    PATH "path",
    /// What follows the target's `?`.
    QUERY "query",
    /// The version of HTTP that the client speaks.
    PROTOCOL "protocol",
    /// The response's status.
    STATUS "status",
    /// What a call of gRPC has come to.
    GRPC_STATUS "grpc_status",
    /// Why there was no response of a backend; how a session ended.
    REASON "reason",
    /// The place of the route among its listener's, from 1.
    ROUTE "route",
    /// The service.
    SERVICE "service",
    /// The key's hash.
    KEY_HASH "key_hash",
    /// The backend that the key belongs to.
    OWNER "owner",
    /// The backend that has responded.
    BACKEND "backend",
    /// Backends that had no room.
    SPILLS "spills",
    /// Backends that did not take the key.
    SKIPPED "skipped",
    /// Whether the key is hot.
    HOT "hot",
    /// What became of a key that is being handed over: `previous`, `copied` or `moved`.
    HANDOFF "handoff",
    /// Tries after the first.
    RETRIES "retries",
    /// Tries: one more than the retries once a backend was chosen, 0 before.
    TRIES "tries",
    /// The configuration's number.
    GENERATION "generation",
    /// Bytes of bodies, from the client.
    RECEIVED_BYTES "received_bytes",
    /// Bytes of bodies, to the client.
    SENT_BYTES "sent_bytes",
    /// How long the connect took.
    CONNECT_US "connect_us",
    /// How long the backend took to its response's head.
    UPSTREAM_HEAD_US "upstream_head_us",
    /// How long all of it took.
    DURATION_US "duration_us",
    /// The id of the client's connection.
    CONNECTION_ID "connection_id",
    /// The request's id.
    REQUEST_ID "request_id",
    /// The id of its trace.
    TRACE_ID "trace_id",
    /// The version of TLS that the client speaks.
    TLS_VERSION "tls_version",
    /// The cipher suite towards the client.
    TLS_CIPHER "tls_cipher",
    /// The server name that a client of TLS has asked for.
    SNI "sni",
}

impl Field {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.name == name)
    }
}
