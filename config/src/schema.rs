//! The file as an operator writes it: every field once, with its meaning and its default. JSON Schema, the reference and
//! the decoder all come from here.

use crate::decode::{
    At, Bytes, Decode, Factor, Field, Findings, Int, List, Percent, SectionReader, Shape, choice, section,
};
use crate::diagnostic::Place;
use crate::node::Node;
use std::time::Duration;

/// Any number that fits 32 bits.
type Count = Int<0, { u32::MAX as u64 }>;
/// At least one.
type Positive = Int<1, { u32::MAX as u64 }>;

choice! {
    /// Form of an access log line.
    AccessLogFormat { "off" => Off, "json" => Json, "text" => Text }
}
choice! {
    /// What a listener speaks.
    ProtocolName { "http" => Http, "tcp" => Tcp }
}
choice! {
    /// Order of backends for a request.
    PolicyName { "ring" => Ring, "round_robin" => RoundRobin }
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
    /// Which outcomes count for ejection.
    OutlierOnName { "connection" => Connection, "gateway" => Gateway, "server_errors" => ServerErrors }
}

section! {
    /// A Ringway configuration.
    Root, "the configuration" {
        /// The admin listener: metrics, status, reload.
        default("{}") admin: AdminSection,
        /// Data-path threads; 0 is one per core. Needs a restart.
        default("0") workers: Int<0, 1024>,
        /// Most client connections at once, over all listeners.
        default("100000") connections_max: Positive,
        /// The log of requests.
        default("{}") access_log: AccessLogSection,
        /// How long requests in flight may take to end on SIGTERM.
        default("30s") drain_timeout: Duration,
        /// Addresses that accept traffic.
        required listeners: List<ListenerSection>,
        /// Groups of backends.
        required services: List<ServiceSection>,
    }
}

section! {
    /// The admin listener. Keep it on loopback: who reaches it can reload and read the configuration's state.
    AdminSection, "admin" {
        /// Whether there is one.
        default("true") enabled: bool,
        /// Where it listens. Needs a restart.
        default("127.0.0.1:9901") address: String,
    }
}

section! {
    /// The log of requests.
    AccessLogSection, "access_log" {
        /// Form of a line: `json` is one object a line, `text` is `name=value` pairs.
        default("off") format: AccessLogFormat,
        /// Where lines go: `stdout`, `stderr`, or a file's path. A file that is renamed is opened anew.
        default("stdout") target: String,
    }
}

section! {
    /// An address that accepts traffic.
    ListenerSection, "a listener" {
        /// Unique name, for logs and metrics.
        required name: String,
        /// IP address and port; `0.0.0.0:80` is all of IPv4, `[::]:80` all of IPv6.
        required address: String,
        /// What it speaks.
        default("http") protocol: ProtocolName,
        /// All traffic goes to this service: short for one route without conditions.
        optional service: String,
        /// Routing rules; the first that matches takes the request. For `http`.
        default("[]") routes: List<RouteSection>,
        /// What is believed of, and added to, the forwarding fields. For `http`.
        default("{}") forwarded: ForwardedSection,
        /// Largest request head; past it, 431. For `http`.
        default("32KiB") head_bytes_max: Bytes,
        /// Most fields in a request head; past it, 431. For `http`.
        default("100") fields_max: Int<1, 256>,
        /// Largest request body; past it, 413. Absent is no limit. For `http`.
        optional body_bytes_max: Bytes,
        /// Time limits towards clients. For `http`.
        default("{}") timeouts: ClientTimeoutsSection,
        /// Most connections at once on this listener; 0 is no limit of its own.
        default("0") connections_max: Count,
    }
}

section! {
    /// A routing rule.
    RouteSection, "a route" {
        /// Conditions; all that are given must hold. None matches everything.
        default("{}") r#match: MatchSection,
        /// The service that takes the request.
        required service: String,
    }
}

section! {
    /// Conditions of a route.
    MatchSection, "match" {
        /// Host without port: `api.example.com`, or `*.example.com` for any host below it.
        optional host: String,
        /// The whole path.
        optional path: String,
        /// The path's first segments: `/v1` matches `/v1` and `/v1/x`, not `/v10`.
        optional path_prefix: String,
        /// One method.
        optional method: String,
        /// One of several methods.
        default("[]") methods: List<String>,
        /// Fields that must be there.
        default("[]") headers: List<HeaderMatchSection>,
    }
}

section! {
    /// A field that must be there.
    HeaderMatchSection, "a header condition" {
        /// The field's name.
        required name: String,
        /// Its value; absent is any.
        optional value: String,
    }
}

section! {
    /// Whose forwarding fields are believed, and which are added.
    ForwardedSection, "forwarded" {
        /// Networks of proxies in front, for example `10.0.0.0/8`: theirs are believed and extended, others' replaced.
        default("[]") trusted: List<String>,
        /// Send `X-Forwarded-For`, `-Proto` and `-Host`.
        default("true") x_forwarded: bool,
        /// Send `Forwarded` (RFC 7239).
        default("false") forwarded: bool,
    }
}

section! {
    /// Time limits towards clients.
    ClientTimeoutsSection, "a listener's timeouts" {
        /// A connection without a request may stay this long.
        default("60s") idle: Duration,
        /// From a request head's first byte (or the accept) to its last.
        default("10s") head: Duration,
        /// Longest pause within a request's body.
        default("30s") body_idle: Duration,
    }
}

section! {
    /// A group of backends with one balancing policy.
    ServiceSection, "a service" {
        /// Unique name, for routes, logs and metrics.
        required name: String,
        /// Which backend takes a request.
        default("{}") balance: BalanceSection,
        /// Active checks; absent is none.
        optional health: HealthSection,
        /// Ejection by live traffic. Absent, only connection failures and time-outs count (`on: connection`).
        optional outlier: OutlierSection,
        /// Health is ignored while less than this share of the weight is healthy, in percent; 0 is never.
        default("50") panic_threshold: Percent,
        /// Ramp for a backend that comes up or joins; absent is none.
        optional slow_start: SlowStartSection,
        /// A drained backend's share goes to nothing over this time; 0 is at once.
        default("0") drain_ramp: Duration,
        /// Time limits towards backends.
        default("{}") timeouts: TimeoutsSection,
        /// What may be tried again, each time on the next distinct backend of the key's walk.
        default("{}") retry: RetrySection,
        /// Keep-alive connections to backends, per worker and backend.
        default("{}") pool: PoolSection,
        /// The targets.
        required backends: List<BackendSection>,
    }
}

section! {
    /// Which backend takes a request.
    BalanceSection, "balance" {
        /// `ring`: consistent hashing of a key. `round_robin`: smooth, weighted, without keys.
        default("ring") policy: PolicyName,
        /// Where the key comes from: the first that is present. Absent is the client's address.
        optional hash_key: List<KeySection>,
        /// What to do when no key is present.
        default("random") on_missing: OnMissingName,
        /// Points on the ring per 100 of weight: more give evener shares and cost 12 to 15 bytes each.
        default("256") points: Int<1, 16384>,
        /// Secret against chosen keys, the same on every proxy of a fleet; absent is none.
        optional seed: String,
        /// The bound on each backend's load.
        default("{}") bounded_load: BoundSection,
    }
}

section! {
    /// A source of the hash key: exactly one of these.
    KeySection, "a hash key" {
        /// A field's value.
        optional header: String,
        /// A cookie's value.
        optional cookie: String,
        /// The client's address, through trusted hops.
        optional source_ip: SourceIpSection,
        /// The path, without the query.
        optional path: EmptySection,
        /// Path and query, as sent.
        optional uri: EmptySection,
        /// A query parameter's value, as sent.
        optional query: String,
        /// The host, without port.
        optional host: EmptySection,
        /// The method.
        optional method: EmptySection,
        /// Several together: all must be present.
        optional all: List<KeyPartSection>,
    }
}

section! {
    /// A part of a composite key: exactly one of these.
    KeyPartSection, "a part of a hash key" {
        /// A field's value.
        optional header: String,
        /// A cookie's value.
        optional cookie: String,
        /// The client's address, through trusted hops.
        optional source_ip: SourceIpSection,
        /// The path, without the query.
        optional path: EmptySection,
        /// Path and query, as sent.
        optional uri: EmptySection,
        /// A query parameter's value, as sent.
        optional query: String,
        /// The host, without port.
        optional host: EmptySection,
        /// The method.
        optional method: EmptySection,
    }
}

section! {
    /// The client's address as a key.
    SourceIpSection, "source_ip" {
        /// Bits of an IPv4 address that count.
        default("32") v4_bits: Int<0, 32>,
        /// Bits of an IPv6 address that count.
        default("128") v6_bits: Int<0, 128>,
    }
}

section! {
    /// Nothing to set: write `{}`.
    EmptySection, "this section" {
    }
}

section! {
    /// The bound on each backend's load: `max(min_slots, ceil(factor * a + slack * sqrt(a)))` with `a` its fair share.
    BoundSection, "bounded_load" {
        /// Load factor: a backend may carry so many times its fair share.
        default("1.25") factor: Factor,
        /// Slack for noise: `strict` none, `balanced` 2, `affinity` 3 square roots of the fair share; `off` is no bound.
        default("balanced") preset: PresetName,
        /// A backend may always carry so many.
        default("1") min_slots: Positive,
        /// When every backend is full: its `owner` or the `least_loaded` takes it all the same, or it waits in a `queue`,
        /// or it is answered 503 (`reject`).
        default("owner") all_full: AllFullName,
        /// Bounds of the queue.
        default("{}") queue: QueueSection,
    }
}

section! {
    /// Bounds of the queue.
    QueueSection, "queue" {
        /// Most requests that wait at once.
        default("1024") length_max: Positive,
        /// Longest wait.
        default("1s") timeout: Duration,
    }
}

section! {
    /// Active checks: `http` or `tcp`.
    HealthSection, "health" {
        /// A request whose answer must have an expected status.
        optional http: HttpCheckSection,
        /// A connection that must open.
        optional tcp: EmptySection,
        /// From the start of a check to the start of the next.
        default("2s") interval: Duration,
        /// The same while the backend is down; absent is `interval`.
        optional interval_down: Duration,
        /// The same while a change of state is half confirmed; absent is `interval`.
        optional interval_transition: Duration,
        /// How long a check may take.
        default("1s") timeout: Duration,
        /// Successes in a row that bring a backend up.
        default("2") rise: Positive,
        /// Failures in a row that take a backend down.
        default("3") fall: Positive,
        /// Intervals are shortened by up to this share, so that checks do not fall into step.
        default("10") jitter: Int<0, 50>,
        /// What a backend is taken for until its first check has ended.
        default("up") initial: InitialName,
        /// Another port than the traffic's.
        optional port: Int<1, 65535>,
    }
}

section! {
    /// A request whose answer must have an expected status.
    HttpCheckSection, "health.http" {
        /// Path and query.
        default("/") path: String,
        /// Method.
        default("GET") method: String,
        /// Host; absent is the backend's address.
        optional host: String,
        /// More fields.
        default("[]") headers: List<CheckHeaderSection>,
        /// Good statuses: numbers and ranges such as `200-299`; empty is 200 to 399.
        default("[]") expect: List<String>,
    }
}

section! {
    /// A field of a check's request.
    CheckHeaderSection, "a header" {
        /// The field's name.
        required name: String,
        /// Its value.
        required value: String,
    }
}

section! {
    /// Ejection by live traffic.
    OutlierSection, "outlier" {
        /// What counts: `connection` failures and time-outs; also 502 to 504 (`gateway`); also every 5xx (`server_errors`).
        default("server_errors") on: OutlierOnName,
        /// Failures in a row that eject; 0 is never. A connect that times out counts as that many.
        default("5") consecutive_failures: Count,
        /// First ejection; the n-th in a row lasts n times as long.
        default("30s") base_ejection: Duration,
        /// Longest ejection.
        default("5m") max_ejection: Duration,
        /// Ejections are lengthened by up to this share, in percent.
        default("10") jitter: Percent,
        /// Share of the backends that may be ejected at once, in percent; one always may, if there are two.
        default("20") max_ejection_percent: Percent,
    }
}

section! {
    /// Ramp for a backend that comes up or joins.
    SlowStartSection, "slow_start" {
        /// From the first request to the full share.
        default("30s") window: Duration,
        /// Share at the beginning, in percent.
        default("10") initial_percent: Int<1, 100>,
    }
}

section! {
    /// Time limits towards backends.
    TimeoutsSection, "timeouts" {
        /// To open a connection.
        default("1s") connect: Duration,
        /// From the end of the request to the head of the answer.
        default("30s") response: Duration,
        /// The whole exchange, retries included; 0 is no limit.
        default("0") request: Duration,
        /// Longest pause within an answer's body, or while the backend takes the request's.
        default("30s") body_idle: Duration,
        /// TCP and WebSocket: no byte either way for so long; 0 is no limit.
        default("1h") idle: Duration,
        /// TCP and WebSocket: whole life; 0 is no limit.
        default("0") session: Duration,
    }
}

section! {
    /// What may be tried again. A failed connect always may; anything later only if the method is idempotent.
    RetrySection, "retry" {
        /// Tries after the first; 0 is never.
        default("2") attempts: Int<0, 100>,
        /// Also requests that are not idempotent, although a backend may have begun to process them.
        default("false") non_idempotent: bool,
        /// Also answers that did not begin in time.
        default("true") on_timeout: bool,
    }
}

section! {
    /// Keep-alive connections to backends, per worker and backend.
    PoolSection, "pool" {
        /// Most that are kept idle.
        default("256") idle_max: Count,
        /// An idle one is closed after this time.
        default("30s") idle_timeout: Duration,
    }
}

section! {
    /// A target.
    BackendSection, "a backend" {
        /// Stable identity, unique in the service: what is hashed, and what state hangs on. Not the address.
        required id: String,
        /// IP address and port.
        required address: String,
        /// 100 is normal, 200 gets twice as much, 0 gets nothing new.
        default("100") weight: Int<0, 1600>,
        /// Takes no new keys; what it has ends in peace.
        default("false") drain: bool,
        /// Most requests (TCP: sessions) at once; absent is no limit.
        optional requests_max: Positive,
    }
}
