//! How backends are spoken with, by traffic and by checks.

/// What is spoken with backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    H2,
}

/// TLS towards backends, of traffic or of checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Server name; the backend's address if absent.
    pub sni: Option<String>,
    /// File of authorities; the public ones if absent.
    pub ca: Option<std::path::PathBuf>,
    /// Whether the certificate must be valid.
    pub verify: bool,
    /// Whether a close without `close_notify` may end a response.
    pub ignore_unexpected_eof: bool,
    /// The proxy's own certificate and key.
    pub own: Option<(std::path::PathBuf, std::path::PathBuf)>,
}

impl UpstreamTls {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &std::path::Path> {
        let own = self.own.iter().flat_map(|(certificate, key)| [certificate.as_path(), key]);
        self.ca.as_deref().into_iter().chain(own)
    }
}

/// A PROXY header. Source: HAProxy's `proxy-protocol.txt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// A line of text.
    V1,
    /// Binary, with what else is known.
    V2 {
        /// With a unique id of the client's connection.
        unique_id: bool,
    },
}
