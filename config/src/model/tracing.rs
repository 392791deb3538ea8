//! What marks requests, and what is told of them: request ids, traces.

use super::{MemberUrl, UpstreamTls};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Whose word is taken about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// That of the proxies in front.
    Trusted,
    /// Everybody's.
    All,
    /// Nobody's.
    None,
}

impl Trust {
    /// Whether a peer's word is taken; `trusted`: it is one of the proxies in front.
    #[inline]
    #[must_use]
    pub fn takes(self, trusted: bool) -> bool {
        match self {
            Self::Trusted => trusted,
            Self::All => true,
            Self::None => false,
        }
    }
}

/// Ids of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    /// Lower case.
    pub header: String,
    /// Whose ids are kept.
    pub trust: Trust,
    /// Whether the response has it too.
    pub respond: bool,
}

/// Traces of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Where spans go.
    pub endpoint: TraceEndpoint,
    /// Share of the requests that are traced, where nobody has decided: 0 to 1.
    pub sample: f64,
    /// Whose decision is followed.
    pub trust: Trust,
    /// Whether spans have the query.
    pub query: bool,
    /// `service.name`.
    pub service_name: String,
    /// More attributes of this proxy.
    pub attributes: Vec<(String, String)>,
    /// Fields that the collector is sent.
    pub headers: Vec<(String, String)>,
    /// File of the bearer token.
    pub token_file: Option<PathBuf>,
    /// Whether what is sent is compressed.
    pub gzip: bool,
    /// For a batch.
    pub timeout: Duration,
    /// How the collector is checked; for `https`.
    pub tls: Option<UpstreamTls>,
}

/// The collector's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEndpoint {
    /// Scheme, host and port.
    pub server: MemberUrl,
    /// With the slash, and the query if there is one.
    pub path: String,
}

impl TraceEndpoint {
    /// Reads `http://127.0.0.1:4318` and `https://collector.example.com/v1/traces`; no user. The port of `http` is 80 then, that of
    /// `https` 443.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = if scheme == "https" { 443 } else { 80 };
        let server =
            if has_port { format!("{scheme}://{authority}") } else { format!("{scheme}://{authority}:{port}") };
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let path = match path {
            "" | "/" => "/v1/traces",
            path if path.starts_with('/') && is_plain => path,
            _ => return None,
        };
        Some(Self { server: MemberUrl::parse(&server)?, path: path.to_owned() })
    }
}

impl fmt::Display for TraceEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.server, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_the_port_of_its_scheme_and_the_path_of_traces_unless_it_says_others() {
        for (text, told) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/traces"),
            ("http://collector", "http://collector:80/v1/traces"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:443/v1/traces"),
            ("https://a.example.com/otlp/v1/traces?x=1", "https://a.example.com:443/otlp/v1/traces?x=1"),
        ] {
            assert_eq!(TraceEndpoint::parse(text).map(|endpoint| endpoint.to_string()).as_deref(), Some(told));
        }
        for bad in
            ["127.0.0.1:4318", "ftp://a:1", "http://u@a:1/", "http://a/b c", "http://a/#b", "http://a?b", "http://"]
        {
            assert_eq!(TraceEndpoint::parse(bad), None, "{bad}");
        }
    }
}
