//! The file as an operator writes it: every field once, with its meaning and its default. JSON Schema, the reference and
//! the decoder all come from here.

use crate::decode::{
    Bytes, Decode, Factor, Field, Int, Limit, List, Number, Percent, Secret, SectionReader, Shape, Share, choice,
    section,
};
use crate::diagnostic::At;
use crate::diagnostic::Place;
use crate::findings::Findings;
use crate::node::Node;
use std::time::Duration;

mod admin;
mod balance;
mod control;
mod health;
mod listener;
mod overload;
mod route;
mod service;
mod tracing;
pub(crate) use {
    admin::*, balance::*, control::*, health::*, listener::*, overload::*, route::*, service::*, tracing::*,
};

pub(crate) use crate::decode::{BLANK, SECRET, URL, Url};

/// Any number that fits 32 bits.
pub(crate) type Count = Int<0, { u32::MAX as u64 }>;
/// At least one.
type Positive = Int<1, { u32::MAX as u64 }>;

choice! {
    /// Form of an access log line.
    AccessLogFormat { "off" => Off, "json" => Json, "text" => Text, "combined" => Combined }
}
choice! {
    /// How much the metrics say of each backend.
    MetricsBackendsName { "auto" => Auto, "full" => Full, "basic" => Basic, "none" => None }
}
choice! {
    /// What a listener speaks.
    ProtocolName { "http" => Http, "tcp" => Tcp, "udp" => Udp }
}
choice! {
    /// The fields that say who the client is.
    ForwardedSourceName { "x_forwarded_for" => XForwardedFor, "forwarded" => Forwarded }
}
choice! {
    /// A version of TLS.
    TlsVersionName { "1.2" => Tls12, "1.3" => Tls13 }
}
choice! {
    /// A protocol that is offered in TLS.
    AlpnName { "h2" => H2, "http/1.1" => Http11 }
}
choice! {
    /// What a client that names a server without certificate gets.
    UnknownSniName { "default" => Default, "reject" => Reject }
}
choice! {
    /// Whether clients show certificates.
    ClientCertificateName { "required" => Required, "optional" => Optional }
}
choice! {
    /// What is spoken with backends.
    UpstreamProtocolName { "http1" => Http1, "h2" => H2 }
}
choice! {
    /// What becomes of sessions when their backend goes down.
    OnDownName { "keep" => Keep, "close" => Close }
}
choice! {
    /// What becomes of a client for whom there is no place.
    WhenFullName { "wait" => Wait, "reject" => Reject }
}
choice! {
    /// What becomes of clients that a cookie has bound to a backend that takes no new ones.
    OnDrainName { "keep" => Keep, "move" => Move }
}
choice! {
    /// Whose loads decide what is shed.
    ShedScopeName { "proxy" => Proxy, "fleet" => Fleet }
}
choice! {
    /// What is refused first under overload.
    PriorityName { "low" => Low, "default" => Default, "high" => High }
}
choice! {
    /// A PROXY header.
    ProxyHeaderName { "off" => Off, "v1" => V1, "v2" => V2 }
}
choice! {
    /// A content coding.
    CodingName { "zstd" => Zstd, "br" => Brotli, "gzip" => Gzip }
}
choice! {
    /// Order of backends for a request.
    PolicyName {
        "ring" => Ring, "maglev" => Maglev, "hrw" => Hrw, "round_robin" => RoundRobin, "random" => Random, "p2c" => P2c,
        "least_request" => LeastRequest, "peak_ewma" => PeakEwma, "first" => First
    }
}
choice! {
    /// What to do without a hash key.
    OnMissingName { "random" => Random, "round_robin" => RoundRobin, "source_ip" => SourceIp, "reject" => Reject }
}
choice! {
    /// How tightly loads are bound.
    PresetName { "strict" => Strict, "balanced" => Balanced, "affinity" => Affinity, "off" => Off }
}
choice! {
    /// What to do when every backend is full.
    AllFullName { "owner" => Owner, "least_loaded" => LeastLoaded, "queue" => Queue, "reject" => Reject }
}
choice! {
    /// What a backend is taken for until its first check has ended.
    InitialName { "up" => Up, "down" => Down }
}
choice! {
    /// What panic does with traffic.
    PanicModeName { "all" => All, "fail" => Fail }
}
choice! {
    /// `SameSite` of a cookie.
    SameSiteName { "lax" => Lax, "strict" => Strict, "none" => None }
}
choice! {
    /// What may be tried again.
    RetryOnName {
        "connect" => Connect, "reset" => Reset, "bad_answer" => BadResponse, "timeout" => Timeout,
        "gateway" => Gateway, "server_errors" => ServerErrors, "conflict" => Conflict, "throttled" => Throttled
    }
}
choice! {
    /// Whether a retry may go where the request has been.
    SameBackendName { "never" => Never, "last_resort" => LastResort, "always" => Always }
}
choice! {
    /// Statuses by name, as in `retry.on`.
    StatusesName { "gateway" => Gateway, "server_errors" => ServerErrors, "conflict" => Conflict, "throttled" => Throttled }
}
choice! {
    /// A method that changes nothing, and has no body.
    SafeMethodName { "GET" => Get, "HEAD" => Head, "OPTIONS" => Options }
}
choice! {
    /// Which outcomes count for ejection.
    OutlierOnName { "connection" => Connection, "gateway" => Gateway, "server_errors" => ServerErrors }
}

section! {
    /// A Ringway configuration.
    Root, "the configuration" {
        /// The admin listener: metrics, status, changes while it runs.
        default("{}") admin: AdminSection,
        /// Data-path threads; 0 is one per core. Needs a restart.
        default("0") workers: Int<0, 1024>,
        /// Most client connections at once, over all listeners. UDP flows are among them; where there are other listeners, half of it
        /// at most, and half of what the limit on descriptors bears.
        default("100000") connections_max: Positive,
        /// What the process stops doing as what it may use of this host comes to its end.
        default("{}") overload: OverloadSection,
        /// Backends that fail or are slow against their peers are named in the log.
        default("{}") outlier_warnings: OutlierWarningsSection,
        /// The log of requests.
        default("{}") access_log: AccessLogSection,
        /// What the admin listener's metrics hold.
        default("{}") metrics: MetricsSection,
        /// Traces of requests; absent is none.
        optional tracing: TracingSection,
        /// The zone that this proxy stands in, for services that are `zone_aware`.
        optional zone: String,
        /// Another version of this file, tried on live traffic: what it would move is counted, nothing is moved.
        optional shadow: String,
        /// On SIGTERM, `/readyz` says 503 at once, and traffic is served as before for this time: whoever balances over several
        /// proxies has it to notice. 5s is good under systemd and Kubernetes; 0 is for who has nobody in front.
        default("0") drain_delay: Duration,
        /// How long requests in flight may take to end on SIGTERM, once `drain_delay` is over.
        default("30s") drain_timeout: Duration,
        /// On SIGTERM, and for a listener that a reload removes: connections without a request close one by one, each at its own
        /// time within this one, so that clients do not all come back at once. Busy ones are told with their next response
        /// (`Connection: close`, GOAWAY). 0 closes them at once. Absent is a quarter of `drain_timeout`.
        optional drain_spread: Duration,
        /// The control plane: topology is pulled from it, and a member may run here. Absent is none: this file is all.
        optional control: ControlSection,
        /// Addresses that accept traffic. With `control`, the fleet's come on top.
        default("[]") listeners: List<ListenerSection>,
        /// Groups of backends. With `control`, the fleet's come on top.
        default("[]") services: List<ServiceSection>,
    }
}

section! {
    /// The log of requests.
    AccessLogSection, "access_log" {
        /// Form of a line: `json` is one object a line, `text` is `name=value` pairs, `combined` is the line that Apache and nginx know by
        /// this name, with times in UTC.
        default("off") format: AccessLogFormat,
        /// Fields of the object, in their order, for `json`, 128 at most; empty is the usual ones. One that a line does not have is `null`. Fields: docs/operations.md.
        default("[]") fields: List<String>,
        /// The line, for `text`; absent is the usual pairs. `{status}` is a field, `{header:NAME}` a header field of the request as the backend
        /// gets it, `{{` and `}}` are braces. Values are escaped as nginx does; outside of `"` their spaces too, and the
        /// character that follows the field. One that a line does not have is `-`.
        optional template: String,
        /// Where lines go: `stdout`, `stderr`, a file's path, or a syslog server (RFC 5424, facility `local0`): `syslog` is `/dev/log`, `syslog:PATH`
        /// another socket of this host, `syslog+udp://HOST:PORT` and `syslog+tcp://HOST:PORT` are others'. A file that is renamed is opened anew.
        default("stdout") target: String,
        /// Of what lines are written; absent is of everything.
        optional only: OnlySection,
    }
}

section! {
    /// Of what the access log has lines: of what has one of these statuses, of what has taken longer, and of a share of all the rest.
    OnlySection, "access_log.only" {
        /// Statuses (`404`), classes of them (`5xx`) and ranges (`500-503`). A client that has left has 499; sessions and flows have none.
        default("[]") status: List<String>,
        /// What has taken longer than this; absent is none for that.
        optional slower_than: Duration,
        /// Share of what is left.
        default("0%") sample: Share,
    }
}

section! {
    /// What the admin listener's metrics hold. What is counted is counted in any case; this is what a page says of it.
    MetricsSection, "metrics" {
        /// What is said of each backend: `full` is everything, about 45 series each; `basic` leaves out durations, responses by class and
        /// states, about 10 are left; `none` leaves out all that has a backend's name; `auto` is `full` up to `full_backends_max`, and
        /// `basic` beyond. How many backends are not told in full is `ringway_backends_reduced`.
        default("auto") backends: MetricsBackendsName,
        /// Up to how many backends, of all services together, `auto` is `full`.
        default("1000") full_backends_max: Count,
    }
}
