//! Services and their backends: keys, health, time-outs, limits.

use super::Shed;
use super::handoff::Handoff;
use super::key::{AffinityCookie, Capture, KeySource, OnMissing};
use super::upstream::{ProxyHeader, UpstreamProtocol, UpstreamTls};
use ringway_health::{CheckParams, OutlierParams, PanicMode, SlowStartParams};
use ringway_ring::{AllFull, BoundParams, ConcurrencyParams, HotParams, PolicyParams};
use std::net::SocketAddr;
use std::time::Duration;

/// A key that several backends serve for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// Its hash.
    pub hash: u64,
    /// How many backends.
    pub owners: u16,
    /// Until when.
    pub until: std::time::Instant,
}

/// A group of backends with one balancing policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// The order of backends for a request.
    pub policy: PolicyParams,
    /// What a failure counts as, for policies that go by latency.
    pub penalty: Penalty,
    /// The first source that is present gives the key. Not empty for hashing policies.
    pub hash_key: Vec<KeySource>,
    /// What to do when no source is present.
    pub on_missing: OnMissing,
    /// The bound on each backend's load, or none (`preset: off`).
    pub bound: Option<BoundParams>,
    /// What to do when every backend is at its bound, or at its `requests_max`.
    pub all_full: AllFull,
    /// For [`ringway_ring::AllFull::Queue`].
    pub queue: Queue,
    /// A cookie made by Ringway.
    pub affinity_cookie: Option<AffinityCookie>,
    /// When keys are hot, or that none are.
    pub hot_keys: Option<HotParams>,
    /// Keys that are spread over several backends for a time: no file says that, but an operator at run time.
    pub spread: Vec<Spread>,
    /// Shedding, or none.
    pub shed: Option<Shed>,
    /// What is spoken with backends.
    pub protocol: UpstreamProtocol,
    /// PINGs on connections of [`UpstreamProtocol::H2`].
    pub keepalive: Keepalive,
    /// Frames on these connections that cost more to take than to send.
    pub flood: UpstreamFlood,
    /// Under overload, where a route does not say otherwise.
    pub priority: super::Priority,
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
    /// How keys that a change moves are handed over, or that they move at once.
    pub handoff: Option<Handoff>,
    /// A drained or removed backend's share ramps to nothing over this time; zero is at once.
    pub drain_ramp: Duration,
    /// See [`ringway_health::Params::keep_clients`].
    pub keep_clients: Option<Duration>,
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
    /// Most connections over all backends, idle ones included; `u32::MAX` is no limit.
    pub connections_max: u32,
    /// Most requests that wait at once for a place or a connection; `u32::MAX` is no limit.
    pub pending_max: u32,
    /// Most retries under way at once; `u32::MAX` is no limit.
    pub retries_max: u32,
    /// A limit on each backend's requests in flight that follows its latency, or none.
    pub adaptive_concurrency: Option<ConcurrencyParams>,
    /// Limit on the rate of requests of each key, or none.
    pub rate_limit: Option<RateLimit>,
    /// Upstream keep-alive connections.
    pub pool: Pool,
    /// Not empty; ids unique within the service.
    pub backends: Vec<Backend>,
    /// Backends of the proxy's own zone come first.
    pub zone_aware: bool,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Stable identity: what is hashed, and what state hangs on.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens too: of the other family.
    pub additional_address: Option<SocketAddr>,
    /// 100 is normal; 0 drains; at most 1600.
    pub weight: u32,
    /// Takes no new keys; what it has ends in peace.
    pub drain: bool,
    /// What `drain` itself says, where `maintenance` drains as well: what somebody changes of one leaves the other.
    pub drain_written: bool,
    /// Drained, and keeps nobody whom a cookie has bound to it.
    pub maintenance: bool,
    /// Most requests (TCP: sessions) at once; `u32::MAX` is no limit.
    pub requests_max: u32,
    /// Most connections at once; `u32::MAX` is no limit.
    pub connections_max: u32,
    /// Most requests that wait at once for a connection to it; `u32::MAX` is no limit.
    pub pending_max: u32,
    /// Most retries under way at once; `u32::MAX` is no limit.
    pub retries_max: u32,
    /// 0 takes the traffic, higher ones are backups.
    pub tier: u8,
    /// The zone that it stands in.
    pub zone: Option<String>,
    /// Preference: tier, and within it the own zone first. See [`ringway_ring::MemberSpec::level`].
    pub level: u8,
}

/// What a failure counts as to a policy that goes by latency. See [`ringway_ring::Load::penalize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalty {
    /// As if it had taken so long.
    pub latency: Duration,
    /// Longest `Retry-After` for which that does not begin to fade.
    pub retry_after_max: Duration,
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
    /// Whether connections are kept from check to check.
    pub reuse_connection: bool,
    /// Checks that may be under way at once.
    pub concurrency: usize,
}

/// An agent: HAProxy's agent-check protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its port.
    pub port: u16,
    /// Its address; that of the checks if absent.
    pub address: Option<std::net::IpAddr>,
    /// From the start of a question to the start of the next.
    pub interval: Duration,
    /// How long a response may take.
    pub timeout: Duration,
    /// Sent first.
    pub send: String,
}

/// What an active check asks.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckKind {
    /// A connection opens.
    Tcp,
    /// A request gets an expected status.
    Http(HttpCheck),
    /// `grpc.health.v1.Health/Check` over HTTP/2.
    Grpc {
        /// The service that is asked for.
        service: String,
        /// `:authority`; the backend's address if absent.
        authority: Option<String>,
    },
}

/// A request whose response must have an expected status.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCheck {
    /// What is spoken.
    pub protocol: UpstreamProtocol,
    /// Method, upper case.
    pub method: String,
    /// Request target, begins with `/`.
    pub path: String,
    /// `Host`; the backend's address if absent.
    pub host: Option<String>,
    /// More fields, lower case; none of these is `host`.
    pub headers: Vec<(String, String)>,
    /// Inclusive ranges of good statuses.
    pub expect: Vec<(u16, u16)>,
    /// What the body must have somewhere.
    pub body: Option<Capture>,
    /// Field that says how many percent of its weight the backend wants; lower case.
    pub weight_header: String,
}

/// Upstream time limits. Zero is no limit where said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// To open a connection.
    pub connect: Duration,
    /// From the last byte of the request to the head of the response.
    pub response: Duration,
    /// Whole exchange, retries included; zero is no limit.
    pub request: Duration,
    /// Longest pause within a response's body, or while the backend takes the request's.
    pub body_idle: Duration,
    /// TCP and upgraded connections: no byte either way for so long; zero is no limit.
    pub idle: Duration,
    /// TCP and upgraded connections: whole life; zero is no limit.
    pub session: Duration,
    /// For how long bytes may stay unacknowledged; zero leaves that to the system.
    pub tcp_user_timeout: Duration,
}

/// PINGs on HTTP/2 connections to backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before one, while requests wait; zero is never.
    pub idle: Duration,
    /// Silence after one that ends the connection.
    pub timeout: Duration,
}

/// What a backend may send on an HTTP/2 connection of what costs more to take than to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamFlood {
    /// PINGs a second.
    pub pings_max: u32,
    /// WINDOW_UPDATE of the connection a second.
    pub window_updates_max: u32,
    /// Empty frames of data a second.
    pub empty_data_max: u32,
}

/// Bytes of bodies that a worker keeps at most, of all its requests, to send them again. See [`Retry::body_bytes_max`].
pub const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What may be tried again, each time on the next distinct backend of the key's walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first; 0 is never.
    pub attempts: u32,
    /// What is tried again.
    pub on: RetryOn,
    /// Also requests that are not idempotent, once a byte of them may have been processed.
    pub non_idempotent: bool,
    /// From the start of a try to the head of its response; zero is no limit.
    pub per_try_timeout: Duration,
    /// Retries, in percent of requests.
    pub budget_percent: u32,
    /// Retries a second that are allowed beside these.
    pub budget_min: u32,
    /// Wait before the first retry; zero is none.
    pub backoff: Duration,
    /// Whether a retry may go where the request has been.
    pub same_backend: SameBackend,
    /// Longest body that is kept, once it has been sent, to be sent again; at most [`KEPT_BYTES_MAX`].
    pub body_bytes_max: usize,
}

/// Whether a retry may go where the request has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameBackend {
    /// No.
    Never,
    /// If no other backend takes it.
    LastResort,
    /// It goes to the backend that has just failed, if that takes requests.
    Always,
}

/// Conditions of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn {
    /// Refused, or not in time.
    pub connect: bool,
    /// Closed or reset before the response.
    pub reset: bool,
    /// No HTTP, or cut off before any of it was passed on.
    pub bad_answer: bool,
    /// The response did not begin in time.
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
    /// Whether a response with this status is tried again.
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
    /// Second tries a second that are allowed beside these.
    pub budget_min: u32,
    /// Responses that do not win while the other try is under way: statuses only.
    pub non_fatal: RetryOn,
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

/// Upstream keep-alive connections of each backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Most idle ones kept, over all workers.
    pub idle_max: u32,
    /// Idle ones that are kept open, over all workers, before a request needs them.
    pub idle_min: u32,
    /// An idle one is closed after this time.
    pub idle_timeout: Duration,
    /// One that is as old takes no more requests, less what is drawn for it; zero is no limit.
    pub age_max: Duration,
    /// Requests that one carries, less what is drawn for it; `u32::MAX` is no limit.
    pub requests_max: u32,
    /// Streams at once on a connection of HTTP/2.
    pub streams_max: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_is_of_its_own_statuses() {
        let of = |on: RetryOn| (100..700).filter(|&status| on.has_status(status)).collect::<Vec<u16>>();
        let none = RetryOn::default();
        assert!(of(RetryOn { connect: true, reset: true, bad_answer: true, timeout: true, ..none }).is_empty());
        assert_eq!(of(RetryOn { gateway: true, ..none }), [502, 503, 504]);
        assert_eq!(of(RetryOn { server_errors: true, ..none }), (500..600).collect::<Vec<u16>>());
        assert_eq!(of(RetryOn { conflict: true, ..none }), [409]);
        assert_eq!(of(RetryOn { throttled: true, ..none }), [429]);
    }
}
