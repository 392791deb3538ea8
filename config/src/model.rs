//! The configuration after validation: what `schema` parses into, and all that the rest of Ringway sees.
//!
//! Nothing here is optional that "cannot be absent": defaults are filled in, names are resolved to indices, and what is
//! invalid has been refused.

mod control;

pub use control::{
    Control, DnsSource, Etcd, EtcdSource, Member, MemberTls, MemberUrl, Role, Source, SourceKind, TokenFile,
};

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use regex::bytes::Regex;
use ringway_health::{CheckParams, OutlierParams, PanicMode, SlowStartParams};
use ringway_ring::{BoundParams, HotParams, PolicyParams, ShedParams};

/// A whole configuration, valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The admin listener, or none (`admin: {enabled: false}`).
    pub admin: Option<Admin>,
    /// What concerns the process as a whole.
    pub process: Process,
    /// Where and how requests are logged.
    pub access_log: AccessLog,
    /// The zone that this proxy stands in.
    pub zone: Option<String>,
    /// A file whose placements are compared with these on live traffic.
    pub shadow: Option<std::path::PathBuf>,
    /// How long a drain may take (SIGTERM, removed listeners).
    pub drain_timeout: Duration,
    /// The control plane, or none.
    pub control: Option<Control>,
    /// Addresses that accept traffic, in file order.
    pub listeners: Vec<Listener>,
    /// Groups of backends, in file order; routes refer to them by index.
    pub services: Vec<Service>,
}

impl Config {
    /// The files that it names and whose content matters: certificates, keys, authorities.
    #[must_use]
    pub fn files(&self) -> Vec<&std::path::Path> {
        let mut files: Vec<&std::path::Path> = Vec::new();
        for tls in self.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            for one in &tls.certificates {
                files.extend([one.certificate.as_path(), &one.key]);
                files.extend(one.ocsp.as_deref());
            }
            files.extend(tls.client.as_ref().map(|client| client.ca.as_path()));
        }
        for listener in &self.listeners {
            if let Protocol::Http(http) = &listener.protocol {
                files.extend(http.errors.iter().filter_map(|answer| answer.file.as_deref()));
            }
        }
        for service in &self.services {
            if let Some(tls) = &service.tls {
                files.extend(tls.files());
            }
            let check = service.health.as_ref().and_then(|health| health.tls.as_ref());
            files.extend(check.iter().flat_map(|tls| tls.files()));
        }
        files
    }
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub address: SocketAddr,
}

/// What concerns the process as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Data-path threads; 0 is one per core. Needs a restart.
    pub workers: usize,
    /// Most client connections at once, over all listeners.
    pub connections_max: usize,
}

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Form of a line, or `Off`.
    pub format: AccessLogFormat,
    /// Where lines go.
    pub target: LogTarget,
}

/// Form of an access log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// No access log.
    Off,
    /// One JSON object a line.
    Json,
    /// One text line of `name=value` pairs.
    Text,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to; opened again when it was renamed.
    File(std::path::PathBuf),
}

/// An address that accepts traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Unique name.
    pub name: String,
    /// Where it listens; unique.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// TLS towards clients, or none.
    pub tls: Option<ListenerTls>,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<IpNet>,
    /// Most connections at once on this listener; 0 is no limit of its own.
    pub connections_max: usize,
    /// Most connections at once from one client address; 0 is no limit.
    pub connections_per_ip_max: u32,
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// Not empty; the first is the default.
    pub certificates: Vec<Certificate>,
    /// Whether version 1.2 is spoken.
    pub tls12: bool,
    /// Protocols offered, best first; empty for TCP.
    pub alpn: Vec<&'static str>,
    /// A client that names an unknown server gets an alert.
    pub reject_unknown: bool,
    /// Certificates of clients, or none.
    pub client: Option<ClientCertificates>,
}

/// A certificate, its key and its staple, by their files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// PEM, leaf first.
    pub certificate: std::path::PathBuf,
    /// PEM.
    pub key: std::path::PathBuf,
    /// DER.
    pub ocsp: Option<std::path::PathBuf>,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// File of authorities.
    pub ca: std::path::PathBuf,
    /// Whether a client must have one.
    pub required: bool,
    /// Field that tells backends its fingerprint; lower case.
    pub header: String,
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

/// What is spoken with backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    H2,
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

/// HTTP/2 towards clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct H2 {
    /// Whether it is spoken.
    pub enabled: bool,
    /// Streams open at once.
    pub streams_max: u32,
    /// RFC 8441.
    pub extended_connect: bool,
}

/// What a listener speaks.
#[derive(Debug, Clone, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1, routed request by request.
    Http(HttpListener),
    /// Bytes, one backend a connection.
    Tcp(TcpListener),
    /// Datagrams, one backend a flow.
    Udp(UdpListener),
}

/// An HTTP listener.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpListener {
    /// The first that matches takes the request.
    pub routes: Vec<Route>,
    /// What is believed of, and added to, the forwarding fields.
    pub forwarded: Forwarded,
    /// Largest request head, in bytes: past it, 431.
    pub head_bytes_max: usize,
    /// Most fields in a head: past it, 431.
    pub fields_max: usize,
    /// Largest request body, in bytes: past it, 413. `u64::MAX` is no limit.
    pub body_bytes_max: u64,
    /// Networks that may ask why a request went where it did.
    pub explain_allow: Vec<IpNet>,
    /// Client-side time limits.
    pub timeouts: ClientTimeouts,
    /// HTTP/2.
    pub h2: H2,
    /// Other texts for answers of Ringway's own.
    pub errors: Vec<ErrorAnswer>,
    /// Compression of answers.
    pub compress: Option<Box<Compress>>,
}

/// Client-side time limits of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// A connection without a request may stay this long.
    pub idle: Duration,
    /// From a head's first byte (or the accept) to its last.
    pub head: Duration,
    /// Longest pause within a body: of a client that sends, or that does not read.
    pub body_idle: Duration,
}

/// Whose forwarding fields are believed, and which are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// Networks whose `X-Forwarded-*` and `Forwarded` are believed and extended; from others they are replaced.
    pub trusted: Vec<IpNet>,
    /// Send `X-Forwarded-For`, `-Proto` and `-Host`.
    pub x_forwarded: bool,
    /// Send `Forwarded` (RFC 7239).
    pub forwarded: bool,
}

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
    /// Index into [`Config::services`]; of the first arm, if there are several.
    pub service: usize,
    /// Several services instead of one.
    pub split: Option<Split>,
    /// What else is done with its requests and answers.
    pub actions: Option<Box<Actions>>,
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
    /// Changes of the answer's fields.
    pub response: FieldEdits,
    /// Longest whole exchange; zero is no limit.
    pub timeout: Option<Duration>,
    /// Largest request body, in bytes.
    pub body_bytes_max: Option<u64>,
    /// Pages of other origins.
    pub cors: Option<Cors>,
    /// A copy of requests.
    pub mirror: Option<Mirror>,
    /// Compression of answers, instead of the listener's.
    pub compress: Option<Box<Compress>>,
}

/// Compression of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// Best first; empty is no compression.
    pub algorithms: Vec<ContentCoding>,
    /// Answers known to be shorter stay as they are.
    pub bytes_min: u64,
    /// Media types, lower case; one that ends with `/` stands for all that begin so.
    pub types: Vec<String>,
    /// Effort of gzip, 1 to 9.
    pub gzip_level: u32,
    /// Effort of brotli, 0 to 9.
    pub brotli_level: u32,
    /// Effort of zstd, 1 to 9.
    pub zstd_level: u32,
    /// Answers that a worker compresses at once.
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
    /// These.
    pub origins: Vec<String>,
    /// Lines of the answer to a preflight request, but for the origin.
    pub preflight: String,
    /// Lines of other answers, but for the origin.
    pub answer: String,
}

/// A copy of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// Index into [`Config::services`].
    pub service: usize,
    /// Of so many percent of the requests.
    pub percent: u32,
}

/// Another text for answers of Ringway's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorAnswer {
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
    pub arms: Vec<SplitArm>,
    /// Where the key comes from.
    pub key: Vec<KeySource>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitArm {
    /// Index into [`Config::services`].
    pub service: usize,
    /// Its part, relative to the others'.
    pub weight: u32,
    /// Hash of the service's name: the arm's identity, whatever its place in the list.
    pub salt: u64,
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

/// A TCP listener.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpListener {
    /// Index into [`Config::services`]: for all, or where no name of [`TcpListener::names`] matches; `None`: those are closed.
    pub service: Option<usize>,
    /// Services by the name that a TLS client asks for; not empty means that it is read.
    pub names: Vec<(HostMatch, usize)>,
}

/// A UDP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpListener {
    /// Index into [`Config::services`].
    pub service: usize,
    /// A flow ends after so long without a datagram.
    pub idle: Duration,
    /// Most flows at once.
    pub flows_max: usize,
    /// Flows are known by QUIC's connection ids.
    pub quic: Option<QuicIds>,
}

/// Connection ids of QUIC (RFC 8999).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuicIds {
    /// Length of the ids that backends give out, in bytes.
    pub length: usize,
    /// Ids that are remembered.
    pub ids_max: usize,
}

/// A group of backends with one balancing policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// The order of backends for a request.
    pub policy: PolicyParams,
    /// The first source that is present gives the key. Not empty for hashing policies.
    pub hash_key: Vec<KeySource>,
    /// What to do when no source is present.
    pub on_missing: OnMissing,
    /// The bound on each backend's load, or none (`preset: off`).
    pub bound: Option<BoundParams>,
    /// For [`ringway_ring::AllFull::Queue`].
    pub queue: Queue,
    /// A cookie made by Ringway.
    pub affinity_cookie: Option<AffinityCookie>,
    /// When keys are hot, or that none are.
    pub hot_keys: Option<HotParams>,
    /// Shedding, or none.
    pub shed: Option<ShedParams>,
    /// What is spoken with backends.
    pub protocol: UpstreamProtocol,
    /// TLS towards backends, or none.
    pub tls: Option<UpstreamTls>,
    /// Each connection begins with this, or with nothing.
    pub proxy_protocol: Option<ProxyHeader>,
    /// Active checks, or none.
    pub health: Option<HealthCheck>,
    /// Ejection by live traffic.
    pub outlier: OutlierParams,
    /// Health is ignored while less than this share of the weight is eligible, in percent; 0 is never.
    pub panic_threshold_percent: u32,
    /// What is done then.
    pub panic_mode: PanicMode,
    /// See [`ringway_health::Params::overprovisioning_percent`].
    pub overprovisioning_percent: u32,
    /// Ramp for backends that come up or join.
    pub slow_start: Option<SlowStartParams>,
    /// A drained or removed backend's share ramps to nothing over this time; zero is at once.
    pub drain_ramp: Duration,
    /// TCP sessions end when their backend goes down.
    pub close_on_down: bool,
    /// Upstream time limits.
    pub timeouts: UpstreamTimeouts,
    /// What may be tried again.
    pub retry: Retry,
    /// A second try beside the first, or none.
    pub hedge: Option<Hedge>,
    /// Most requests in flight over all backends; `u32::MAX` is no limit.
    pub requests_max: u32,
    /// Most retries under way at once; `u32::MAX` is no limit.
    pub retries_max: u32,
    /// Limit on the rate of requests of each key, or none.
    pub rate_limit: Option<RateLimit>,
    /// Upstream keep-alive connections.
    pub pool: Pool,
    /// Not empty; ids unique within the service.
    pub backends: Vec<Backend>,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Stable identity: what is hashed, and what state hangs on.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// 100 is normal; 0 drains; at most 1600.
    pub weight: u32,
    /// Takes no new keys; what it has ends in peace.
    pub drain: bool,
    /// Most requests (TCP: sessions) at once; `u32::MAX` is no limit.
    pub requests_max: u32,
    /// Most connections at once; `u32::MAX` is no limit.
    pub connections_max: u32,
    /// 0 takes the traffic, higher ones are backups.
    pub tier: u8,
    /// The zone that it stands in.
    pub zone: Option<String>,
    /// Preference: tier, and within it the own zone first. See [`ringway_ring::GroupMember::level`].
    pub level: u8,
}

/// A cookie made by Ringway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffinityCookie {
    /// Its name.
    pub name: String,
    /// `Set-Cookie` after the value: `; Path=/; HttpOnly`.
    pub attributes: String,
    /// Signs it.
    pub secret: Vec<u8>,
}

/// A regular expression with a capture group, equal to another by its text.
#[derive(Debug, Clone)]
pub struct Capture(pub Regex);

impl PartialEq for Capture {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Capture {}

/// Where a hash key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A field's value; name in lower case.
    Header(String),
    /// A cookie's value.
    Cookie(String),
    /// The server name that a TLS client asks for.
    Sni,
    /// The client's address, through trusted hops, masked to so many bits.
    SourceIp {
        /// Prefix length kept of an IPv4 address, 0 to 32.
        v4_bits: u8,
        /// Prefix length kept of an IPv6 address, 0 to 128.
        v6_bits: u8,
    },
    /// The path, without the query; so many segments of it, 0 is all.
    Path {
        /// Segments.
        depth: usize,
    },
    /// What an expression captures of another source.
    Regex(Box<Self>, Capture),
    /// Path and query, as sent.
    Uri,
    /// A query parameter's raw value.
    Query(String),
    /// The host, lower case, without port.
    Host,
    /// The method.
    Method,
    /// All of these, each present, joined by a NUL byte.
    All(Vec<Self>),
}

/// What to do when no hash key is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissing {
    /// Any backend.
    Random,
    /// The next in turn.
    RoundRobin,
    /// By the client's address.
    SourceIp,
    /// 400.
    Reject,
}

/// Bounds of the wait for a backend with room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Most requests waiting at once in the service.
    pub length_max: u32,
    /// Longest wait.
    pub timeout: Duration,
}

/// Active checks of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// Schedule and thresholds.
    pub params: CheckParams,
    /// What is asked.
    pub kind: CheckKind,
    /// Another port than the traffic's.
    pub port: Option<u16>,
    /// Another address than the traffic's.
    pub address: Option<std::net::IpAddr>,
    /// Over TLS.
    pub tls: Option<UpstreamTls>,
    /// A check begins with this PROXY header, which says that it is the proxy's own.
    pub proxy_protocol: Option<ProxyHeader>,
    /// An agent that is asked as well.
    pub agent: Option<Agent>,
    /// Checks that may be under way at once.
    pub concurrency: usize,
}

/// An agent: HAProxy's agent-check protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its port.
    pub port: u16,
    /// Sent first.
    pub send: String,
}

/// What an active check asks.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckKind {
    /// A connection opens.
    Tcp,
    /// A request gets an expected status.
    Http {
        /// Method, upper case.
        method: String,
        /// Request target, begins with `/`.
        path: String,
        /// `Host`; the backend's address if absent.
        host: Option<String>,
        /// More fields.
        headers: Vec<(String, String)>,
        /// Inclusive ranges of good statuses.
        expect: Vec<(u16, u16)>,
        /// What the body must have somewhere.
        body: Option<Capture>,
        /// Field that says how many percent of its weight the backend wants; lower case.
        weight_header: String,
    },
    /// `grpc.health.v1.Health/Check` over HTTP/2.
    Grpc {
        /// The service that is asked for.
        service: String,
        /// `:authority`; the backend's address if absent.
        authority: Option<String>,
    },
}

/// Upstream time limits. Zero is no limit where said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// To open a connection.
    pub connect: Duration,
    /// From the last byte of the request to the head of the answer.
    pub response: Duration,
    /// Whole exchange, retries included; zero is no limit.
    pub request: Duration,
    /// Longest pause within an answer's body, or while the backend takes the request's.
    pub body_idle: Duration,
    /// TCP and upgraded connections: no byte either way for so long; zero is no limit.
    pub idle: Duration,
    /// TCP and upgraded connections: whole life; zero is no limit.
    pub session: Duration,
}

/// What may be tried again, each time on the next distinct backend of the key's walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first; 0 is never.
    pub attempts: u32,
    /// What is tried again.
    pub on: RetryOn,
    /// Also requests that are not idempotent, once a byte of them may have been processed.
    pub non_idempotent: bool,
    /// From the start of a try to the head of its answer; zero is no limit.
    pub per_try_timeout: Duration,
    /// Retries, in percent of requests.
    pub budget_percent: u32,
    /// Retries a second that are allowed in any case.
    pub budget_min: u32,
    /// Wait before the first retry; zero is none.
    pub backoff: Duration,
}

/// Conditions of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn {
    /// Refused, or not in time.
    pub connect: bool,
    /// Closed or reset before the answer.
    pub reset: bool,
    /// No HTTP, or cut off before any of it was passed on.
    pub bad_answer: bool,
    /// The answer did not begin in time.
    pub timeout: bool,
    /// 502, 503, 504.
    pub gateway: bool,
    /// 500 to 599.
    pub server_errors: bool,
    /// 409.
    pub conflict: bool,
    /// 429.
    pub throttled: bool,
}

impl RetryOn {
    /// Whether an answer with this status is tried again.
    #[must_use]
    pub fn has_status(&self, status: u16) -> bool {
        match status {
            502..=504 => self.gateway || self.server_errors,
            500..=599 => self.server_errors,
            409 => self.conflict,
            429 => self.throttled,
            _ => false,
        }
    }
}

/// A second try beside the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    /// Wait before it.
    pub after: Duration,
    /// Second tries, in percent of requests.
    pub budget_percent: u32,
}

/// Limit on the rate of requests of each key.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// Time between two requests of a steady stream.
    pub interval: Duration,
    /// Requests that may come at once.
    pub burst: u32,
    /// The first source that is present is the key.
    pub key: Vec<KeySource>,
    /// Keys that are remembered.
    pub keys_max: usize,
}

/// Upstream keep-alive connections, per worker and backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Most idle ones kept.
    pub idle_max: usize,
    /// An idle one is closed after this time.
    pub idle_timeout: Duration,
}
