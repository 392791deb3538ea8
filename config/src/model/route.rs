//! Routes: what they match, and what they do.

use super::key::{AffinityCookie, Capture, KeySource};
use std::time::Duration;

/// One routing rule; every condition that is given must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Host, without port, lower case; `Suffix` for `*.example.com`.
    pub host: Option<HostMatch>,
    /// Path condition, on the path as it is sent on.
    pub path: Option<PathMatch>,
    /// Methods, upper case; empty is any.
    pub methods: Vec<String>,
    /// Fields that must be there.
    pub headers: Vec<HeaderMatch>,
    /// Index into [`super::Config::services`]; of the first split target, if there are several.
    pub service: usize,
    /// Several services instead of one.
    pub split: Option<Split>,
    /// What else is done with its requests and responses.
    pub actions: Option<Box<Actions>>,
    /// Under overload; none is that of the service that takes the request.
    pub priority: Option<Priority>,
}

/// What is refused first under overload. Source: the words are Envoy's (`RoutingPriority`), and `low` for what the SRE book calls
/// sheddable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Before all others.
    Low,
    /// Once all that is low is refused.
    Default,
    /// Only with everything.
    High,
}

impl Priority {
    /// As it is written in a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Default => "default",
            Self::High => "high",
        }
    }
}

/// What a route does beside sending on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Actions {
    /// Instead of sending on.
    pub redirect: Option<Redirect>,
    /// Another path.
    pub rewrite: Option<Rewrite>,
    /// Changes of the request's fields.
    pub request: FieldEdits,
    /// Changes of the response's fields.
    pub response: FieldEdits,
    /// Longest whole exchange; zero is no limit.
    pub timeout: Option<Duration>,
    /// Largest request body, in bytes.
    pub body_bytes_max: Option<u64>,
    /// Pages of other origins.
    pub cors: Option<Cors>,
    /// A copy of requests.
    pub mirror: Option<Mirror>,
    /// Compression of responses, instead of the listener's.
    pub compress: Option<Box<Compress>>,
}

/// Compression of responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// Best first; empty is no compression.
    pub algorithms: Vec<ContentCoding>,
    /// Responses known to be shorter stay as they are.
    pub bytes_min: u64,
    /// Media types, lower case; one that ends with `/` stands for all that begin so.
    pub types: Vec<String>,
    /// Effort of gzip, 1 to 9.
    pub gzip_level: u32,
    /// Effort of brotli, 0 to 9.
    pub brotli_level: u32,
    /// Effort of zstd, 1 to 9.
    pub zstd_level: u32,
    /// Responses that a worker compresses at once.
    pub responses_max: usize,
}

/// A content coding (RFC 9110, 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCoding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

/// A redirection; what is absent stays as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Scheme.
    pub scheme: Option<String>,
    /// Host, without port.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Path and query.
    pub path: Option<String>,
}

/// Another path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// The first bytes of the path are replaced.
    Prefix {
        /// So many.
        from_len: usize,
        /// By this.
        to: String,
    },
    /// The first match is replaced.
    Pattern(Capture, String),
}

/// Changes of fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldEdits {
    /// Names of fields that are not passed on; lower case.
    pub drop: Vec<String>,
    /// Lines that are added, each with its end.
    pub lines: String,
    /// Another `Host`.
    pub host: Option<String>,
}

/// Pages of other origins. Source: Fetch standard, CORS protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Any origin.
    pub any: bool,
    /// These, sorted.
    pub origins: Vec<String>,
    /// Lines of the response to a preflight request, but for the origin.
    pub preflight: String,
    /// Lines of other responses, but for the origin.
    pub answer: String,
}

/// A copy of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// Index into [`super::Config::services`].
    pub service: usize,
    /// Of so many percent of the requests.
    pub percent: u32,
}

/// Another text for responses of Ringway's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// Ranges of statuses, both ends included.
    pub statuses: Vec<(u16, u16)>,
    /// Its content type.
    pub content_type: String,
    /// Its text.
    pub body: Vec<u8>,
    /// The file that it came from.
    pub file: Option<std::path::PathBuf>,
}

/// Several services that share a route's keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// At least two.
    pub targets: Vec<SplitTarget>,
    /// Where the key comes from.
    pub key: Vec<KeySource>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitTarget {
    /// Index into [`super::Config::services`].
    pub service: usize,
    /// Its part, relative to the others'.
    pub weight: u32,
    /// Hash of the service's name: the target's identity, whatever its place in the list.
    pub salt: u64,
    /// The cookie that keeps a client with the target while its requests have no key: the service's own, or one made after
    /// another target's. `None` if no target has any.
    pub cookie: Option<AffinityCookie>,
}

/// Host condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMatch {
    /// The whole host.
    Exact(String),
    /// `.example.com`: any host that ends so, and has something before it.
    Suffix(String),
}

/// Path condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole segments: `/v1` matches `/v1` and `/v1/x`, not `/v10`; one that ends in `/` matches what begins so.
    Prefix(String),
}

/// Header condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Field name, lower case.
    pub name: String,
    /// The value it must have, or `None` for any.
    pub value: Option<String>,
}
