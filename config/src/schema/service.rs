//! Sections of services: what is spoken with backends, within which limits.

use super::*;

section! {
    /// A group of backends with one balancing policy.
    ServiceSection, "a service" {
        /// Unique name, for routes, logs and metrics.
        required name: String,
        /// Which backend takes a request.
        default("{}") balance: BalanceSection,
        /// What is spoken with backends of `http` listeners: `h2` shares connections among requests; without `tls`, the backends
        /// must know that it is spoken.
        default("http1") protocol: UpstreamProtocolName,
        /// HTTP/2 with backends, for `protocol: h2`.
        default("{}") http2: UpstreamHttp2Section,
        /// TLS towards backends; absent is none.
        optional tls: Box<UpstreamTlsSection>,
        /// Whether each connection to a backend begins with a PROXY header that says who the client is. A connection then
        /// carries one client's requests only.
        default("off") proxy_protocol: ProxyHeaderName,
        /// Whether the PROXY header of version 2 has a unique id of the client's connection (`PP2_TYPE_UNIQUE_ID`): the one that a
        /// header from in front has told, or one of Ringway's own, 32 hex digits. The access log has it as `connection_id`.
        default("false") proxy_protocol_unique_id: bool,
        /// Active checks; absent is none.
        optional health: Box<HealthSection>,
        /// Ejection by live traffic. Absent, only connection failures and time-outs count (`on: connection`).
        optional outlier: Box<OutlierSection>,
        /// Health is ignored while less than this share of the weight is healthy, in percent; 0 is never.
        default("50") panic_threshold: Percent,
        /// What is done then: `all` asks every backend, healthy or not, those that are healthy first, as far as their
        /// `requests_max` goes; `fail` answers 503, so that the few healthy ones are not overrun.
        default("all") panic_mode: PanicModeName,
        /// A tier (or zone) keeps all its keys as long as this many percent of its healthy weight make up its weight; what it
        /// cannot carry goes to the next.
        default("140") overprovisioning: Int<100, 1000>,
        /// Backends in this proxy's own `zone` come before the others of their tier.
        default("false") zone_aware: bool,
        /// Ramp for a backend that comes up or joins; absent is none.
        optional slow_start: Box<SlowStartSection>,
        /// Keys that a change moves are handed from their backend to the next one by one, over a time; absent, they move at once. For
        /// policies by key, with a `hash_key`, and for HTTP.
        optional handoff: Box<HandoffSection>,
        /// A drained backend's share goes to nothing over this time; 0 is at once.
        default("0") drain_ramp: Duration,
        /// How long a backend that takes no new keys (`drain`, a weight of 0) keeps the clients that an affinity cookie has bound
        /// to it; 0 is until it goes from the configuration. See `balance.affinity_cookie.on_drain`.
        default("0") drain_timeout: Duration,
        /// What becomes of TCP sessions when their backend fails its checks or is ejected: `keep` leaves them to
        /// their own fate, `close` ends them, so that clients connect anew, elsewhere. For `tcp` listeners.
        default("keep") on_down: OnDownName,
        /// Time limits towards backends.
        default("{}") timeouts: TimeoutsSection,
        /// What may be tried again, each time on the next distinct backend of the key's walk.
        default("{}") retry: RetrySection,
        /// A second try of a request that is slow to be answered, beside the first; absent is none.
        optional hedge: Box<HedgeSection>,
        /// Limits on the service as a whole.
        default("{}") limits: LimitsSection,
        /// A limit on each backend's requests in flight that follows how long its responses take, beside `requests_max`; absent is none.
        optional adaptive_concurrency: Box<AdaptiveConcurrencySection>,
        /// Limit on the rate of requests of each key; absent is none.
        optional rate_limit: Box<RateLimitSection>,
        /// What is refused first under overload (`overload.shed_low_priority`): requests, sessions and flows of services whose priority is
        /// `low`, then of those where it is `default`; `high` only with everything, from `overload.refuse_requests` on.
        default("default") priority: PriorityName,
        /// Keep-alive connections to backends, of each backend.
        default("{}") pool: PoolSection,
        /// The targets.
        default("[]") backends: List<BackendSection>,
    }
}

section! {
    /// Hand-off of keys. A backend that joins, leaves by `drain` or gets another weight takes keys over, or gives them up, and whoever gets one
    /// has nothing of it in its cache. Within the window the backend that had a key before serves it once more, while a copy of that request
    /// goes to the next one, which has the key once it has answered that. See docs/balancing.md.
    HandoffSection, "handoff" {
        /// How long a change is spread over: 5 percent of the keys that it moves may be taken over at once, all of them at its end. At most
        /// an hour.
        default("60s") window: Duration,
        /// Copies to the backends that keys move to.
        default("{}") copy: HandoffCopySection,
        /// The field in which a backend that has taken a key over is told who had it before, as `ID ADDRESS`, so that it can fetch what it lacks
        /// from there. Nobody but Ringway sets it: what clients send of this name goes to no backend.
        default("x-ringway-previous-owner") header: String,
    }
}

section! {
    /// A copy is the request's head with `x-ringway-handoff: copy`, and its response is read and thrown away.
    HandoffCopySection, "handoff.copy" {
        /// What is copied: requests without a body, of these methods, which change nothing. Absent is `GET` alone: the response to a `HEAD`
        /// brings no content.
        optional methods: List<SafeMethodName>,
        /// Of so many percent of the keys, the same ones on every proxy; the others move without a copy. 0 is none.
        default("100") percent: Percent,
        /// Copies under way at once, over all backends and workers. While there are as many, keys stay where they are.
        default("64") in_flight_max: Count,
        /// Whether copies have the client's `Authorization` and `Cookie`, and the fields that name its certificate. What is for one client
        /// alone is cached by no shared cache, as a rule.
        default("false") credentials: bool,
    }
}

section! {
    /// Time limits towards backends.
    TimeoutsSection, "timeouts" {
        /// To open a connection.
        default("1s") connect: Duration,
        /// From the end of the request to the head of the response.
        default("30s") response: Duration,
        /// The whole exchange, retries included; 0 is no limit.
        default("0") request: Duration,
        /// Longest pause within a response's body, or while the backend takes the request's.
        default("30s") body_idle: Duration,
        /// TCP and WebSocket: no byte either way for so long; 0 is no limit.
        default("1h") idle: Duration,
        /// TCP and WebSocket: whole life; 0 is no limit.
        default("0") session: Duration,
        /// How long bytes sent on any connection to a backend may stay unacknowledged, or unread by a backend that has no room for
        /// more, before the connection is given up (TCP_USER_TIMEOUT); 0 leaves that to the system, to whom it takes a quarter of
        /// an hour.
        default("1m") tcp_user_timeout: Duration,
    }
}

section! {
    /// HTTP/2 with backends.
    UpstreamHttp2Section, "http2" {
        /// How it is found out that nobody is at a connection's other end any more.
        default("{}") keepalive: KeepaliveSection,
        /// What a backend may send of what costs more to take than to send.
        default("{}") flood: UpstreamFloodSection,
    }
}

section! {
    /// Frames of a backend on one HTTP/2 connection that cost more to take than to send. One more than a limit, and the
    /// connection ends with GOAWAY `ENHANCE_YOUR_CALM`, and so do the requests of all clients on it: the defaults are ten times those of
    /// a client. `ringway_rejected_requests_total{reason="http2_..._flood"}` counts it. After a reload with other limits, new
    /// requests get new connections.
    UpstreamFloodSection, "http2.flood" {
        /// PINGs a second, beside ten for each frame of data sent to the backend.
        default("1000") pings_max: Int<1, 1_000_000>,
        /// WINDOW_UPDATE of the connection a second, beside ten for each frame of data sent to the backend; of its streams together
        /// twenty times as many.
        default("1000") window_updates_max: Int<1, 1_000_000>,
        /// Frames of data without a byte that end no stream, a second: some servers write one at each flush.
        default("1000") empty_data_max: Int<1, 1_000_000>,
    }
}

section! {
    /// PINGs on connections on which requests wait.
    KeepaliveSection, "keepalive" {
        /// One is sent when nothing has been heard for so long; 0 is never. To a backend that answers PINGs and sends nothing else,
        /// the third and later ones go every five minutes, so that none takes them for a flood.
        default("10s") idle: Duration,
        /// A connection on which nothing is heard for so long after a PING is closed, and what waits on it has failed.
        default("2s") timeout: Duration,
    }
}

section! {
    /// What may be tried again. A failed connect always may; anything later only if the method is idempotent.
    RetrySection, "retry" {
        /// Tries after the first, each on another backend (but see `same_backend`); 0 is none. Two things are no tries, because nothing was processed. A refused
        /// connect is walked past all the same. And an idempotent request that was sent on a reused connection which the backend closed
        /// without a byte of a response is sent once more on a fresh connection to the same backend.
        default("2") attempts: Int<0, 100>,
        /// What is tried again: `connect` failures and time-outs, `reset` before the response, `bad_answer` (no HTTP, or cut
        /// off before it was passed on), `timeout`; and responses: `gateway` (502 to 504), `server_errors` (5xx), `conflict`
        /// (409), `throttled` (429). Absent are the first four.
        optional on: List<RetryOnName>,
        /// Whether a retry may go where the request has been: `never`; as a `last_resort`, if no other backend takes it; or `always`, to
        /// the backend that has just failed, as long as that takes requests, as HAProxy's retries without `redispatch` do.
        default("never") same_backend: SameBackendName,
        /// Also requests that are not idempotent, although a backend may have begun to process them.
        default("false") non_idempotent: bool,
        /// Also responses that did not begin in time; `false` takes `timeout` out of `on`.
        default("true") on_timeout: bool,
        /// From the start of a try to the head of its response; then the next is tried. 0 is no limit but `timeouts`.
        default("0") per_try_timeout: Duration,
        /// Retries, in percent of the requests of the last ten seconds, per worker.
        default("20") budget: Percent,
        /// Retries a second that are allowed beside these, per worker, a second's worth at once at most.
        default("10") budget_min: Count,
        /// Wait before a retry, of a failure or of a response, doubled for each further one, shortened at random by up to half; 0 is none.
        /// The next backend is chosen after it.
        default("0") backoff: Duration,
        /// A request whose body has been sent, or a part of it, can be sent again only if the body is no longer than this: so much of it
        /// is kept until a response begins, however it came, and of all requests of a worker together 16 MiB at most. What is longer is
        /// not tried again after any of it has been sent; 0 keeps none.
        default("16KiB") body_bytes_max: Bytes,
    }
}

section! {
    /// A second try beside the first: the first response that wins is taken, the other is given up. Idempotent requests only.
    HedgeSection, "hedge" {
        /// Wait before the second try.
        required after: Duration,
        /// Second tries, in percent of the requests of the last ten seconds, per worker; 0 (and no `budget_min`) is none.
        default("10") budget: Percent,
        /// Second tries a second that are allowed beside these, per worker, a second's worth at once at most.
        default("0") budget_min: Count,
        /// Responses that do not win while the other try is under way, by the names of `retry.on`: `gateway` (502 to 504),
        /// `server_errors` (5xx), `conflict` (409), `throttled` (429). If both tries end with such, the first one's is taken. Absent are
        /// those of `retry.on`, and `gateway` and `throttled` in any case; `[]` lets whatever responses first win.
        optional non_fatal: List<StatusesName>,
    }
}

section! {
    /// Limits on the service as a whole.
    LimitsSection, "limits" {
        /// Most requests (TCP: sessions) in flight, over all backends; past it, 503. Absent is no limit.
        optional requests_max: Limit,
        /// Most connections at once, idle ones included, over all backends. Over HTTP/1.1 and TCP it also limits requests in flight:
        /// past it, they fare as when all backends are full (`all_full`). Absent is no limit.
        optional connections_max: Limit,
        /// Most requests (TCP: sessions) that wait at once, in the queue or for a connection to be opened; past it, 503. Absent is no
        /// limit.
        optional pending_max: Limit,
        /// Requests (TCP: sessions without a connection yet) that may be under way as a retry at once: each counts once, however often it
        /// is tried. Absent is no limit.
        optional retries_max: Count,
    }
}

section! {
    /// A limit on each backend's requests in flight that falls when its responses begin later than they would without a queue in it, and
    /// rises again. A request that finds a backend there fares as if `requests_max` were met. It follows the time from the end of a request
    /// to the head of its response: how long uploads and bodies take does not count. Time-outs, failed connections, and responses with
    /// 503 and 504 count as drops: more than a tenth of them lower it too. For HTTP; a request whose response has begun (a download, an
    /// open WebSocket) is none that it counts any more. Each proxy has limits of its own, and keeps them over reloads. One begins at 20, or
    /// at what is in flight when it is turned on. Where it has held requests back for long, or latency has been far above what it was, it
    /// is lowered for three windows, to see whether latency falls with it. A window lasts twice as long as a response takes, at least
    /// 100 ms, at most 5 s, and up to 5 s more where responses are few: half a minute in all where they take many seconds.
    AdaptiveConcurrencySection, "adaptive_concurrency" {
        /// It never falls below this.
        default("3") limit_min: Limit,
        /// It never rises above this.
        default("1000") limit_max: Limit,
        /// So many times the latency without a queue is borne. More keeps backends busier, less keeps latency lower.
        default("1.5") tolerance: Factor,
    }
}

section! {
    /// Limit on the rate of requests of each key: GCRA, in bounded memory. What keys have used outlives reloads that change anything but
    /// `key`: of a key that has used 30 of 100, a limit of 80 leaves 50, one of 200 leaves 170.
    RateLimitSection, "rate_limit" {
        /// So many requests (TCP: sessions, UDP: flows),
        required requests: Int<1, 1_000_000>,
        /// in this time.
        default("1s") per: Duration,
        /// Requests that may come at once after a pause; absent is `requests`.
        optional burst: Int<1, 1_000_000>,
        /// Whose rate: the first source that is present. Absent is the client's address. No source: no limit.
        optional key: List<KeySection>,
        /// Keys that are remembered; past it, the one that matters least is forgotten.
        default("65536") keys_max: Int<256, 16_777_216>,
    }
}

section! {
    /// Keep-alive connections to backends, of each backend.
    PoolSection, "pool" {
        /// Most that are kept idle over HTTP/1.1, over all workers.
        default("1024") idle_max: Count,
        /// So many idle ones are kept open to each backend that is up and takes new requests, over all workers: what is missing is opened
        /// within two seconds or so after it has come up, TLS handshake and all, before a request needs it. Those that `idle_timeout` or
        /// the backend closes are opened anew; none is while the backend is at its `connections_max`, or Ringway saves under overload.
        /// Over HTTP/2 it is how many are open, idle or not: as many as there are workers lets each have one. For HTTP; 0 is none.
        default("0") idle_min: Count,
        /// An idle one is closed after this time.
        default("30s") idle_timeout: Duration,
        /// One that is as old takes no more requests: it is closed once those that it carries are over. Up to a tenth less, drawn
        /// for each, so that not all are opened anew at once; 0 is no limit. Over HTTP/2 the next one is opened while the last
        /// streams of this one end: leave room for it in `connections_max`.
        default("0") age_max: Duration,
        /// Requests that one carries, after which it is closed; up to a tenth fewer, likewise. 0 is no limit.
        default("0") requests_max: Count,
        /// Requests at once on a connection of HTTP/2, fewer if the backend says so: a worker that needs more opens another one, while
        /// `connections_max` allows it, and requests go to the one that carries fewest. Those that were not needed for `idle_timeout`,
        /// as few as the requests were, close once theirs are over.
        default("100") streams_max: Int<1, 100>,
    }
}

section! {
    /// A target.
    BackendSection, "a backend" {
        /// Stable identity, unique in the service: what is hashed, and what state hangs on. Not the address.
        required id: String,
        /// IP address and port.
        required address: String,
        /// The same backend's address of the other family, IPv4 or IPv6, with a port: one that is tried as well where the first does not
        /// take a connection (RFC 8305, "happy eyeballs"). Of the two, IPv6 is tried first, until the other has been the one that answers;
        /// the backend stays one, with one share, one load and one health. Host, SNI and keys go by `address`.
        optional additional_address: String,
        /// 100 is normal, 200 gets twice as much, 0 gets nothing new.
        default("100") weight: Int<0, 1600>,
        /// Takes no new keys; what it has ends in peace, and clients that an affinity cookie has bound to it stay for
        /// `drain_timeout`.
        default("false") drain: bool,
        /// As `drain`, but nobody stays: clients that a cookie has bound to it go elsewhere with their next request.
        default("false") maintenance: bool,
        /// Most requests (TCP: sessions) at once; absent is no limit.
        optional requests_max: Limit,
        /// Most connections at once, idle ones included: idle ones give way. While all are in use, the backend is full. Absent is no
        /// limit. With `protocol: h2`, each worker that uses the backend needs a connection of its own, and one that only ends the
        /// streams that it carries (`pool.age_max`, the backend's goodbye) is waited for, for `timeouts.connect` at most, before the next candidate is tried.
        optional connections_max: Limit,
        /// Most requests (TCP: sessions) that wait at once for a connection to it to be opened; past it, it is full. Absent is no limit.
        optional pending_max: Limit,
        /// Most retries under way here at once: past it, retries pass it by. Absent is no limit.
        optional retries_max: Count,
        /// 0 takes the traffic; 1 and higher are backups, each for the tiers before it.
        default("0") tier: Int<0, 7>,
        /// The zone that it stands in.
        optional zone: String,
    }
}
