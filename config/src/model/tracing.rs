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

impl Tracing {
    /// Whether the trace is one of those that are recorded: by its last 56 bits, as OpenTelemetry's consistent sampling has it
    /// ("TraceState: Probability Sampling"), so that whoever samples as many decides the same.
    #[inline]
    #[must_use]
    pub fn samples(&self, trace_id: &[u8; 16]) -> bool {
        const ALL: u64 = 1 << 56;
        let [_, _, _, _, _, _, _, _, _, low @ ..] = *trace_id;
        let chance = low.iter().fold(0_u64, |chance, byte| chance << 8 | u64::from(*byte));
        chance >= ALL - (self.sample * ALL as f64) as u64
    }
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
    fn as_many_traces_are_recorded_as_are_wanted_and_those_of_a_smaller_share_are_among_those_of_a_larger_one() {
        let tracing = |sample| Tracing {
            endpoint: TraceEndpoint::parse("http://a").unwrap(),
            sample,
            trust: Trust::All,
            query: false,
            service_name: String::new(),
            attributes: Vec::new(),
            headers: Vec::new(),
            token_file: None,
            gzip: false,
            timeout: Duration::ZERO,
            tls: None,
        };
        // The last 56 bits, evenly spread.
        let ids: Vec<[u8; 16]> =
            (0..10_000_u128).map(|index| ((1 << 127) + index * ((1 << 56) / 10_000)).to_be_bytes()).collect();
        let count = |sample| ids.iter().filter(|id| tracing(sample).samples(id)).count();
        assert_eq!((count(0.0), count(1.0)), (0, ids.len()));
        assert!((95..=105).contains(&count(0.01)), "{}", count(0.01));
        for id in &ids {
            assert!(!tracing(0.01).samples(id) || tracing(0.1).samples(id));
        }
        let (none, all) = ([[0; 16], [0xff; 16]].map(|id| tracing(0.0).samples(&id)), tracing(1.0).samples(&[0; 16]));
        assert_eq!((none, all), ([false, false], true));
        // The 56 bits of a number a third of the way up are passed over at 60 %, and taken at 70 %.
        let third = (u128::from(u64::MAX >> 8) / 3).to_be_bytes();
        assert_eq!((tracing(0.6).samples(&third), tracing(0.7).samples(&third)), (false, true));
    }

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
