//! Sections of health: what is asked, and what is concluded.

use super::*;

section! {
    /// Active checks: one of `http`, `grpc`, `tcp`.
    HealthSection, "health" {
        /// A request whose response must have an expected status, and perhaps body.
        optional http: HttpCheckSection,
        /// The call `grpc.health.v1.Health/Check`, over HTTP/2.
        optional grpc: GrpcCheckSection,
        /// A connection that must open; with `tls`, a handshake that must succeed.
        optional tcp: EmptySection,
        /// The check goes over TLS.
        optional tls: CheckTlsSection,
        /// An agent beside the backend that is asked as well, at its own times: HAProxy's agent-check protocol.
        optional agent: AgentSection,
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
        /// The PROXY header that a check begins with, which says that it is the proxy's own. Absent is the service's
        /// `proxy_protocol`; with a `port` or an `address` of its own, none.
        optional proxy_protocol: ProxyHeaderName,
        /// Another port than the traffic's.
        optional port: Int<1, 65535>,
        /// Another IP address than the traffic's.
        optional address: String,
        /// Whether a connection is kept for the next check of its backend, for `http` and `grpc`: half the cost. Off, since a check
        /// that connects does what a new client has to do: one on a kept connection does not see that nobody accepts any more, nor that a
        /// certificate has expired. One that has ended or breaks the protocol is replaced at once, one that is silent for half of `timeout` by
        /// a fresh one beside it: a host that has gone without a word costs that half. It goes with the backend, its address, and other settings
        /// of the check; over HTTP/2 after 64 checks too, and PINGs of the backend are answered only with the next check. None are kept while
        /// overload stops keep-alive. It takes a descriptor for each backend, and about 1 KiB, over HTTP/2 40, with TLS more. The backend has
        /// one connection of each proxy all the time: not for servers that serve one connection at a time, or have a process for each.
        default("false") reuse_connection: bool,
        /// Checks of this service that may be under way at once, and as many again of backends whose last check took all
        /// of `timeout`: those do not keep others waiting. N backends that are silent are asked in turns of N * `timeout` /
        /// `concurrency`, if that is longer than `interval`. `ringway_checks_late_total` counts checks that had to wait.
        default("256") concurrency: Int<1, 4096>,
    }
}

section! {
    /// A request whose response must have an expected status.
    HttpCheckSection, "health.http" {
        /// Path and query.
        default("/") path: Url,
        /// Method.
        default("GET") method: String,
        /// What is spoken: `http1` or `h2` (over TLS offered by ALPN, else by prior knowledge). Absent is the service's
        /// `protocol`; with a `port` of its own, `http1`.
        optional protocol: UpstreamProtocolName,
        /// Host; absent is the backend's address.
        optional host: String,
        /// More fields; those that frame messages are Ringway's own.
        default("[]") headers: List<CheckHeaderSection>,
        /// Good statuses: numbers and ranges such as `200-299`; empty is 200 to 399.
        default("[]") expect: List<String>,
        /// Text that the first 64 KiB of the body must have somewhere.
        optional body: String,
        /// Regular expression that the first 64 KiB of the body must match somewhere.
        optional body_regex: String,
        /// Field of a good response that says how many percent of its weight the backend wants now: 0 to 100.
        default("x-ringway-weight") weight_header: String,
    }
}

section! {
    /// The call `grpc.health.v1.Health/Check`, over HTTP/2: SERVING is good.
    GrpcCheckSection, "health.grpc" {
        /// The service that is asked for; absent is the server as a whole.
        optional service: String,
        /// `:authority`; absent is the backend's address.
        optional authority: String,
    }
}

section! {
    /// TLS of a check.
    CheckTlsSection, "health.tls" {
        /// Server name that is sent, and that the certificate must have; absent is the backend's address.
        optional sni: String,
        /// File of PEM certificates of authorities; absent are the public ones.
        optional ca: String,
        /// Whether the certificate must be valid.
        default("true") verify: bool,
        /// PEM file of the proxy's own certificate, for backends that ask checks for one; with `key`. Without `health.tls`, checks
        /// of the traffic's port show what the service's `tls` has.
        optional certificate: String,
        /// PEM file of its private key.
        optional key: String,
    }
}

section! {
    /// An agent: a TCP service that answers a line of words such as `up`, `75%`, `drain`, `down`.
    ///
    /// Words of one kind leave what others have said as it is, and only the agent takes back what it has said: `up` or `down`
    /// (`fail`, `failed`, `stopped`); a percentage of the weight; `ready`, `drain` (no new keys) or `maint` (no clients). Checks and
    /// agent each take a backend down alone, and both together bring it up. An agent that cannot be reached, or says nothing,
    /// changes nothing.
    AgentSection, "health.agent" {
        /// Its port.
        required port: Int<1, 65535>,
        /// Its IP address; absent is that of the checks.
        optional address: String,
        /// From the start of a question to the start of the next; absent is the checks' `interval`.
        optional interval: Duration,
        /// How long a response may take; absent is the checks' `timeout`.
        optional timeout: Duration,
        /// Text that is sent to it first.
        optional send: Secret,
    }
}

section! {
    /// A field of a check's request.
    CheckHeaderSection, "a header" {
        /// The field's name.
        required name: String,
        /// Its value.
        required value: Secret,
    }
}

section! {
    /// Ejection by live traffic.
    OutlierSection, "outlier" {
        /// What counts: `connection` failures and time-outs; also 502 to 504 (`gateway`); also every 5xx (`server_errors`). A call of
        /// gRPC counts by what its `grpc-status` means (14: 503, 4: 504, 12: 501, 2, 13 and 15: 500).
        default("server_errors") on: OutlierOnName,
        /// Failures in a row that eject; 0 is never. A connect that times out counts as that many.
        default("5") consecutive_failures: Count,
        /// If given, connection failures and time-outs are counted apart, and so many in a row eject; 0 is never.
        optional consecutive_local_failures: Count,
        /// Ejects backends that fail too large a part of their requests; absent is no such thing.
        optional failure_percentage: FailurePercentageSection,
        /// Ejects backends whose success rate is far below the others'; absent is no such thing.
        optional success_rate: SuccessRateSection,
        /// Ejects backends that are far slower than the others; absent is no such thing.
        optional latency: LatencySection,
        /// Time over which the three above are judged.
        default("10s") interval: Duration,
        /// Longest `Retry-After` of a 429 or 503, in seconds or as a date, that is obeyed, by ejection; 0 obeys none. What the
        /// status counts for, it counts for all the same.
        default("0") retry_after_max: Duration,
        /// Whether active checks that succeed `rise` times in a row end an ejection.
        default("false") return_on_check: bool,
        /// First ejection; the n-th in a row lasts n times as long.
        default("30s") base_ejection: Duration,
        /// Longest ejection, jitter included.
        default("5m") max_ejection: Duration,
        /// Ejections are lengthened by up to this share, in percent; those that could pass `max_ejection` so are shortened
        /// instead.
        default("10") jitter: Percent,
        /// Share of the backends that may be ejected at once, in percent, of those that take traffic or would if they were not
        /// ejected: not those that are drained, of weight 0, or down. One always may, if that leaves somebody; below 100,
        /// somebody is always left.
        default("20") max_ejection_percent: Percent,
    }
}

section! {
    /// Ejects backends that fail too large a part of their requests.
    FailurePercentageSection, "failure_percentage" {
        /// Percent from which it is ejected.
        default("85") threshold: Percent,
        /// Backends that must have the volume.
        default("5") min_hosts: Positive,
        /// Requests that a backend must have had in the interval.
        default("50") min_volume: Positive,
    }
}

section! {
    /// Ejects backends whose success rate is below the mean by more than a multiple of the standard deviation.
    SuccessRateSection, "success_rate" {
        /// That multiple.
        default("1.9") deviations: Number<100, 100_000>,
        /// Backends that must have the volume.
        default("5") min_hosts: Positive,
        /// Requests that a backend must have had in the interval.
        default("100") min_volume: Positive,
    }
}

section! {
    /// Ejects backends whose mean latency, to the head of the response, is above a multiple of the median.
    LatencySection, "latency" {
        /// That multiple.
        default("3.0") factor: Factor,
        /// Below this, no backend is too slow. With `hedge`, a backend that always loses is known to be as slow as `hedge.after` and a
        /// little: the detector sees that only if this is less.
        default("100ms") least: Duration,
        /// Backends that must have the volume.
        default("3") min_hosts: Positive,
        /// Requests that a backend must have had in the interval.
        default("50") min_volume: Positive,
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
