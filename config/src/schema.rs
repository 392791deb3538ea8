//! The file as an operator writes it: every field once, with its meaning and its default. JSON Schema, the reference and
//! the decoder all come from here.

use crate::decode::{
    At, Bytes, Decode, Factor, Field, Findings, Int, List, Number, Percent, SectionReader, Shape, choice, section,
};
use crate::diagnostic::Place;
use crate::node::Node;
use std::time::Duration;

mod control;
pub(crate) use control::*;

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
    ProtocolName { "http" => Http, "tcp" => Tcp, "udp" => Udp }
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
        "connect" => Connect, "reset" => Reset, "bad_answer" => BadAnswer, "timeout" => Timeout,
        "gateway" => Gateway, "server_errors" => ServerErrors, "conflict" => Conflict, "throttled" => Throttled
    }
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
        /// The zone that this proxy stands in, for services that are `zone_aware`.
        optional zone: String,
        /// Another version of this file, tried on live traffic: what it would move is counted, nothing is moved.
        optional shadow: String,
        /// How long requests in flight may take to end on SIGTERM.
        default("30s") drain_timeout: Duration,
        /// The control plane: topology is pulled from it, and a member may run here. Absent is none: this file is all.
        optional control: ControlSection,
        /// Addresses that accept traffic. With `control`, the fleet's come on top.
        default("[]") listeners: List<ListenerSection>,
        /// Groups of backends. With `control`, the fleet's come on top.
        default("[]") services: List<ServiceSection>,
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
        /// Routing rules; the first that matches takes the request. For `tcp`, rules with `match: { host: ... }` alone: the
        /// name that a TLS client asks for (SNI), read without ending its TLS unless there is `tls`.
        default("[]") routes: List<RouteSection>,
        /// TLS towards clients; absent is none.
        optional tls: ListenerTlsSection,
        /// Flows of datagrams. For `udp`.
        default("{}") udp: UdpSection,
        /// HTTP/2 towards clients. For `http`.
        default("{}") h2: H2Section,
        /// Compression of answers; absent is none. A route's own comes first. For `http`.
        optional compress: CompressSection,
        /// Other texts for the answers that Ringway gives itself; the first that fits. For `http`.
        default("[]") errors: List<ErrorAnswerSection>,
        /// Networks of proxies that begin connections with a PROXY header (version 1 or 2), which says who the client is.
        /// Theirs must have one; others' connections are taken as they are.
        default("[]") proxy_protocol: List<String>,
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
        /// Most connections at once from one client address (IPv6: one /64); 0 is no limit. A client in a `trusted` network
        /// is a proxy, and is not counted; one that a PROXY header names is, in place of who sent it.
        default("0") connections_per_ip_max: Count,
        /// Networks whose requests may ask by the field `x-ringway-explain` why they went where they did. For `http`.
        default("[]") explain_allow: List<String>,
    }
}

section! {
    /// Flows of datagrams: all of one client address and port, but for `quic_connection_id`.
    UdpSection, "udp" {
        /// A flow ends, and its client may get another backend, after this time without a datagram either way.
        default("30s") idle: Duration,
        /// Most flows at once: each takes a descriptor. One more takes the place of the oldest that
        /// was never answered; where all were, its datagrams are dropped.
        default("4096") flows_max: Positive,
        /// QUIC connections are placed by their connection ids, and found by them: a client whose address changes, but not its
        /// id, keeps its backend. Other datagrams go by their source. Absent is by the source always.
        optional quic_connection_id: QuicIdSection,
    }
}

section! {
    /// Connection ids of QUIC (RFC 8999). The key of a connection is the id that its client has chosen; the one that its backend
    /// answers with is remembered. Later ids of a connection are encrypted: who changes address and id at once is placed anew.
    QuicIdSection, "quic_connection_id" {
        /// Length of the ids that the backends give out, in bytes: 20 for nginx, 8 for many others.
        required length: Int<1, 20>,
        /// Ids that are remembered; past it, those go that were not asked for longest.
        default("65536") ids_max: Int<16, 16_777_216>,
    }
}

section! {
    /// TLS towards clients.
    ListenerTlsSection, "tls" {
        /// Certificates with their keys. Which one a client gets is decided by the name that it asks for: the exact name, then
        /// a wildcard, then the first of the list. The files are watched: a change is a reload.
        required certificates: List<CertificateSection>,
        /// The oldest version that is spoken.
        default("1.2") min_version: TlsVersionName,
        /// Protocols that are offered, best first; absent is `[ h2, http/1.1 ]`. For `http`.
        optional alpn: List<AlpnName>,
        /// What a client gets that asks for a name which no certificate has: the first certificate, or an alert.
        default("default") unknown_sni: UnknownSniName,
        /// Certificates of clients; absent, they are not asked for.
        optional client: ClientCertificateSection,
    }
}

section! {
    /// A certificate and its key.
    CertificateSection, "a certificate" {
        /// PEM file: the certificate, then the intermediate ones.
        required certificate: String,
        /// PEM file of the private key (PKCS #8, PKCS #1 or SEC1).
        required key: String,
        /// DER file of an OCSP answer that is stapled; absent is none.
        optional ocsp: String,
    }
}

section! {
    /// Certificates of clients.
    ClientCertificateSection, "tls.client" {
        /// PEM file of the authorities that may have issued them.
        required ca: String,
        /// Whether a client must have one.
        default("required") certificate: ClientCertificateName,
        /// Field in which the backend is told the certificate's SHA-256 fingerprint (64 hex digits). What clients say in
        /// a field of that name, also with `_` for `-` or in a trailer, is removed on every listener, unless the client is in
        /// `forwarded.trusted` there. For `http`.
        default("x-client-cert-sha256") header: String,
    }
}

section! {
    /// HTTP/2 towards clients: over TLS by ALPN, without TLS by prior knowledge.
    H2Section, "h2" {
        /// Whether it is spoken.
        default("true") enabled: bool,
        /// Streams that a connection may have open at once.
        default("128") streams_max: Int<1, 65536>,
        /// WebSocket over HTTP/2 (RFC 8441).
        default("true") extended_connect: bool,
    }
}

section! {
    /// TLS towards backends.
    UpstreamTlsSection, "tls" {
        /// Server name that is sent, and that the certificate must have; absent is the backend's address.
        optional sni: String,
        /// PEM file of authorities; absent are the public ones.
        optional ca: String,
        /// Whether the certificate must be valid.
        default("true") verify: bool,
        /// PEM file of the proxy's own certificate, for backends that ask for one; with `key`.
        optional certificate: String,
        /// PEM file of its private key.
        optional key: String,
    }
}

section! {
    /// A routing rule.
    RouteSection, "a route" {
        /// Conditions; all that are given must hold. None matches everything.
        default("{}") r#match: MatchSection,
        /// The service that takes the request.
        optional service: String,
        /// Several services instead of one, each with its part of the keys: a key stays in its arm.
        default("[]") split: List<SplitSection>,
        /// Where the key of a split comes from. Absent, it is the first arm's `hash_key`.
        optional split_key: List<KeySection>,
        /// An answer that sends the client elsewhere, instead of a service.
        optional redirect: RedirectSection,
        /// Another path for the backend. Keys and routes go by the client's.
        optional rewrite: RewriteSection,
        /// Changes of the request's fields on their way to the backend; after everything that Ringway adds itself.
        default("{}") request_headers: HeaderEditsSection,
        /// Changes of the answer's fields on their way to the client.
        default("{}") response_headers: HeaderEditsSection,
        /// Longest whole exchange, instead of the service's `timeouts.request`.
        optional timeout: Duration,
        /// Largest request body, instead of the listener's.
        optional body_bytes_max: Bytes,
        /// Which pages of other origins may use this route (Fetch standard, CORS protocol).
        optional cors: CorsSection,
        /// A copy of requests goes to another service as well, whose answers nobody sees.
        optional mirror: MirrorSection,
        /// Compression of answers, instead of the listener's.
        optional compress: CompressSection,
    }
}

section! {
    /// Compression of answers, for clients that accept it. Answers that are compressed already, forbid it
    /// (`Cache-Control: no-transform`), are parts of others or carry a digest of themselves go out as they are; so do those
    /// to HTTP/1.0. Beware of secrets and a client's own words in one answer (BREACH).
    CompressSection, "compress" {
        /// Codings, best first: a client's equal wishes are decided by this order. Absent is `[ zstd, br, gzip ]`; empty is no
        /// compression.
        optional algorithms: List<CodingName>,
        /// Answers known to be shorter stay as they are.
        default("1KiB") min_bytes: Bytes,
        /// Content types, without parameters; `text/*` is all that begin so. Absent is `text/*` and the usual text formats of
        /// `application`, `image/svg+xml` among them.
        optional types: List<String>,
        /// Effort of gzip.
        default("5") gzip_level: Int<1, 9>,
        /// Effort of brotli.
        default("4") br_level: Int<0, 9>,
        /// Effort of zstd.
        default("3") zstd_level: Int<1, 9>,
        /// Answers that a worker compresses at once; more go out as they are. Each takes up to 1 MiB with gzip, 2 with zstd, 4
        /// with brotli.
        default("128") responses_max: Positive,
    }
}

section! {
    /// A redirection. What is absent stays as the client wrote it.
    RedirectSection, "redirect" {
        /// 301, 302, 303, 307 or 308.
        default("308") status: Int<300, 399>,
        /// `https`, for example.
        optional scheme: String,
        /// Host without port.
        optional host: String,
        /// Port; absent with another scheme is that scheme's own.
        optional port: Int<1, 65535>,
        /// Path and query.
        optional path: String,
    }
}

section! {
    /// Another path.
    RewriteSection, "rewrite" {
        /// Takes the place of the path, or path prefix, that the route matches.
        optional prefix: String,
        /// Regular expression on the path, query included; the first match is replaced by `to`.
        optional pattern: String,
        /// What takes its place: `$1` is the first group.
        optional to: String,
    }
}

section! {
    /// Changes of fields.
    HeaderEditsSection, "headers" {
        /// Fields that replace those of the same name.
        default("[]") set: List<HeaderSection>,
        /// Fields that join those of the same name.
        default("[]") add: List<HeaderSection>,
        /// Fields that are left out.
        default("[]") remove: List<String>,
    }
}

section! {
    /// A field.
    HeaderSection, "a header" {
        /// Its name.
        required name: String,
        /// Its value.
        required value: String,
    }
}

section! {
    /// Pages of other origins.
    CorsSection, "cors" {
        /// Origins such as `https://app.example.com`; `*` is any.
        required origins: List<String>,
        /// Methods beside GET, HEAD and POST.
        default("[]") methods: List<String>,
        /// Request fields beside the harmless ones.
        default("[]") headers: List<String>,
        /// Answer fields that pages may read.
        default("[]") expose: List<String>,
        /// How long a browser may remember this.
        default("10m") max_age: Duration,
        /// Whether cookies are sent along.
        default("false") credentials: bool,
    }
}

section! {
    /// A copy of requests.
    MirrorSection, "mirror" {
        /// The service that gets it.
        required service: String,
        /// Of so many percent of the requests. Those with a body of more than 8 KiB are not copied.
        default("100") percent: Percent,
    }
}

section! {
    /// An answer of Ringway's own, in other words.
    ErrorAnswerSection, "an error answer" {
        /// Statuses: numbers and ranges such as `502-504`.
        required status: List<String>,
        /// Its content type.
        default("text/html; charset=utf-8") content_type: String,
        /// Its text.
        optional body: String,
        /// Or a file that holds it; read when the configuration is.
        optional file: String,
    }
}

section! {
    /// An arm of a split.
    SplitSection, "an arm of a split" {
        /// The service.
        required service: String,
        /// Its part, relative to the other arms'; 0 gets nothing.
        default("100") weight: Int<0, 1_000_000>,
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
        /// What is spoken with backends of `http` listeners: `h2` shares connections among requests; without `tls`, the backends
        /// must know that it is spoken.
        default("http1") protocol: UpstreamProtocolName,
        /// TLS towards backends; absent is none.
        optional tls: UpstreamTlsSection,
        /// Whether each connection to a backend begins with a PROXY header that says who the client is. A connection then
        /// carries one client's requests only.
        default("off") proxy_protocol: ProxyHeaderName,
        /// Whether the PROXY header of version 2 has a unique id of the client's connection (`PP2_TYPE_UNIQUE_ID`): the one that a
        /// header from in front has told, or one of Ringway's own, 32 hex digits. The access log has it as `connection_id`.
        default("false") proxy_protocol_unique_id: bool,
        /// Active checks; absent is none.
        optional health: HealthSection,
        /// Ejection by live traffic. Absent, only connection failures and time-outs count (`on: connection`).
        optional outlier: OutlierSection,
        /// Health is ignored while less than this share of the weight is healthy, in percent; 0 is never.
        default("50") panic_threshold: Percent,
        /// What is done then: `all` sends to every backend, healthy or not; `fail` answers 503, so that the few healthy ones
        /// are not overrun.
        default("all") panic_mode: PanicModeName,
        /// A tier (or zone) keeps all its keys as long as this many percent of its healthy weight make up its weight; what it
        /// cannot carry goes to the next.
        default("140") overprovisioning: Int<100, 1000>,
        /// Backends in this proxy's own `zone` come before the others of their tier.
        default("false") zone_aware: bool,
        /// Ramp for a backend that comes up or joins; absent is none.
        optional slow_start: SlowStartSection,
        /// A drained backend's share goes to nothing over this time; 0 is at once.
        default("0") drain_ramp: Duration,
        /// What becomes of TCP sessions when their backend fails its checks or is ejected: `keep` leaves them to
        /// their own fate, `close` ends them, so that clients connect anew, elsewhere. For `tcp` listeners.
        default("keep") on_down: OnDownName,
        /// Time limits towards backends.
        default("{}") timeouts: TimeoutsSection,
        /// What may be tried again, each time on the next distinct backend of the key's walk.
        default("{}") retry: RetrySection,
        /// A second try of a request that is slow to be answered, beside the first; absent is none.
        optional hedge: HedgeSection,
        /// Limits on the service as a whole.
        default("{}") limits: LimitsSection,
        /// Limit on the rate of requests of each key; absent is none.
        optional rate_limit: RateLimitSection,
        /// Keep-alive connections to backends, per worker and backend.
        default("{}") pool: PoolSection,
        /// The targets.
        default("[]") backends: List<BackendSection>,
    }
}

section! {
    /// Which backend takes a request.
    BalanceSection, "balance" {
        /// By key: `ring` (consistent hashing), `maglev` (evener, moves more), `hrw` (rendezvous, for up to 32 backends).
        /// Without: `round_robin` (smooth, weighted), `random`, `p2c` (less loaded of two), `least_request`, `peak_ewma`
        /// (faster of two), `first` (in the order of ids, the first with room). See docs/balancing.md.
        default("ring") policy: PolicyName,
        /// Where the key comes from: the first that is present. Absent is the client's address.
        optional hash_key: List<KeySection>,
        /// What to do when no key is present.
        default("random") on_missing: OnMissingName,
        /// Points on the ring per 100 of weight: more give evener shares and cost 12 to 15 bytes each.
        default("256") points: Int<1, 16384>,
        /// Entries of the Maglev table: a prime, 100 for each backend or more.
        default("65537") table_size: Int<2, 5_000_011>,
        /// How fast `peak_ewma` forgets a peak.
        default("10s") decay: Duration,
        /// Secret against chosen keys, the same on every proxy of a fleet; absent is none.
        optional seed: String,
        /// The bound on each backend's load.
        default("{}") bounded_load: BoundSection,
        /// A cookie that keeps a client on its backend, made by Ringway; absent is none.
        optional affinity_cookie: AffinityCookieSection,
        /// Keys with so much traffic that one backend cannot carry them are spread over several; absent is no such thing.
        optional hot_keys: HotKeysSection,
        /// Sheds a part of the keys of backends that have more than their share; absent is no such thing.
        optional shed: ShedSection,
    }
}

section! {
    /// A cookie made by Ringway. For policies by key it is the key, before any `hash_key`; for others it names the backend.
    AffinityCookieSection, "affinity_cookie" {
        /// Its name.
        default("ringway") name: String,
        /// How long a browser keeps it; 0 is until it is closed.
        default("0") ttl: Duration,
        /// Paths that it is sent for.
        default("/") path: String,
        /// Domain that it is sent to; absent is the host that set it.
        optional domain: String,
        /// Only over HTTPS.
        default("false") secure: bool,
        /// Not for scripts.
        default("true") http_only: bool,
        /// `lax`, `strict` or `none`.
        default("lax") same_site: SameSiteName,
        /// Secret that signs it, the same on every proxy of a fleet: a cookie that was not made with it is replaced.
        required secret: String,
    }
}

section! {
    /// Hot keys. Shares are in units of one backend's fair share of the requests.
    HotKeysSection, "hot_keys" {
        /// A key with more than this becomes hot, and has one backend for each such share, and one more.
        default("0.5") enter: Number<10, 1_000_000>,
        /// One with less than this is hot no more.
        default("0.35") leave: Number<10, 1_000_000>,
        /// Hot keys at most.
        default("256") keys_max: Int<1, 4096>,
        /// Requests that must have been seen before a share is believed.
        default("1000") min_volume: Positive,
    }
}

section! {
    /// Shedding: a slow controller beside the bound, which moves the same keys every time.
    ShedSection, "shed" {
        /// Mean load, in units of the mean of all, above which a backend sheds.
        default("1.2") target: Factor,
        /// Largest part of its keys that a backend sheds.
        default("90") max: Percent,
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
        optional path: PathKeySection,
        /// What a regular expression captures.
        optional regex: RegexSection,
        /// Path and query, as sent.
        optional uri: EmptySection,
        /// A query parameter's value, as sent.
        optional query: String,
        /// The host, without port.
        optional host: EmptySection,
        /// The method.
        optional method: EmptySection,
        /// The server name that a TLS client asks for.
        optional sni: EmptySection,
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
        optional path: PathKeySection,
        /// What a regular expression captures.
        optional regex: RegexSection,
        /// Path and query, as sent.
        optional uri: EmptySection,
        /// A query parameter's value, as sent.
        optional query: String,
        /// The host, without port.
        optional host: EmptySection,
        /// The method.
        optional method: EmptySection,
        /// The server name that a TLS client asks for.
        optional sni: EmptySection,
    }
}

section! {
    /// The path as a key.
    PathKeySection, "path" {
        /// So many segments of it, from the left; 0 is all.
        default("0") depth: Int<0, 64>,
    }
}

section! {
    /// The first capture of a regular expression as a key; no match is no key. Of one source, the path if none is named.
    RegexSection, "regex" {
        /// The expression, with one capture group: `^/users/([^/]+)`. It runs in time linear in the text.
        required pattern: String,
        /// Look at this field.
        optional header: String,
        /// Look at this cookie.
        optional cookie: String,
        /// Look at this query parameter.
        optional query: String,
        /// Look at the host.
        optional host: EmptySection,
        /// Look at path and query.
        optional uri: EmptySection,
        /// Look at the path.
        optional path: EmptySection,
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
    /// Active checks: one of `http`, `grpc`, `tcp`.
    HealthSection, "health" {
        /// A request whose answer must have an expected status, and perhaps body.
        optional http: HttpCheckSection,
        /// The call `grpc.health.v1.Health/Check`, over HTTP/2.
        optional grpc: GrpcCheckSection,
        /// A connection that must open; with `tls`, a handshake that must succeed.
        optional tcp: EmptySection,
        /// The check goes over TLS.
        optional tls: CheckTlsSection,
        /// An agent beside the backend that is asked as well: HAProxy's agent-check protocol.
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
        /// Another port than the traffic's.
        optional port: Int<1, 65535>,
        /// Another IP address than the traffic's.
        optional address: String,
        /// Checks of this service that may be under way at once.
        default("256") concurrency: Int<1, 4096>,
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
        /// Text that the first 64 KiB of the body must have somewhere.
        optional body: String,
        /// Regular expression that the first 64 KiB of the body must match somewhere.
        optional body_regex: String,
        /// Field of a good answer that says how many percent of its weight the backend wants now: 0 to 100.
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
    }
}

section! {
    /// An agent: a TCP service that answers a line such as `up`, `75%`, `drain`, `down`.
    AgentSection, "health.agent" {
        /// Its port.
        required port: Int<1, 65535>,
        /// Text that is sent to it first.
        optional send: String,
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
        /// If given, connection failures and time-outs are counted apart, and so many in a row eject; 0 is never.
        optional consecutive_local_failures: Count,
        /// Ejects who fails too large a part of its requests; absent is no such thing.
        optional failure_percentage: FailurePercentageSection,
        /// Ejects whose success rate is far below the others'; absent is no such thing.
        optional success_rate: SuccessRateSection,
        /// Ejects who is far slower than the others; absent is no such thing.
        optional latency: LatencySection,
        /// Time over which the three above are judged.
        default("10s") interval: Duration,
        /// Longest `Retry-After` of a 429 or 503 that is obeyed, by ejection; 0 obeys none.
        default("0") retry_after_max: Duration,
        /// Whether active checks that succeed `rise` times in a row end an ejection.
        default("false") return_on_check: bool,
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
    /// Ejects who fails too large a part of its requests.
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
    /// Ejects whose success rate is below the mean by more than a multiple of the standard deviation.
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
    /// Ejects whose mean latency, to the head of the answer, is above a multiple of the median.
    LatencySection, "latency" {
        /// That multiple.
        default("3.0") factor: Factor,
        /// Below this, nobody is too slow.
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
        /// What is tried again: `connect` failures and time-outs, `reset` before the answer, `bad_answer` (no HTTP, or cut
        /// off before it was passed on), `timeout`; and answers: `gateway` (502 to 504), `server_errors` (5xx), `conflict`
        /// (409), `throttled` (429). Absent are the first four.
        optional on: List<RetryOnName>,
        /// Also requests that are not idempotent, although a backend may have begun to process them.
        default("false") non_idempotent: bool,
        /// Also answers that did not begin in time; `false` takes `timeout` out of `on`.
        default("true") on_timeout: bool,
        /// From the start of a try to the head of its answer; then the next is tried. 0 is no limit but `timeouts`.
        default("0") per_try_timeout: Duration,
        /// Retries, in percent of the requests of the last ten seconds, per worker.
        default("20") budget: Percent,
        /// Retries a second that are allowed in any case, per worker.
        default("10") budget_min: Count,
        /// Wait before a retry, doubled for each further one, shortened at random by up to half; 0 is none.
        default("0") backoff: Duration,
    }
}

section! {
    /// A second try beside the first: the first answer that begins is taken, the other is given up. Idempotent requests only.
    HedgeSection, "hedge" {
        /// Wait before the second try.
        required after: Duration,
        /// Second tries, in percent of the requests of the last ten seconds, per worker.
        default("10") budget: Percent,
    }
}

section! {
    /// Limits on the service as a whole.
    LimitsSection, "limits" {
        /// Most requests (TCP: sessions) in flight, over all backends; past it, 503. Absent is no limit.
        optional requests_max: Positive,
        /// Most retries under way at once. Absent is no limit.
        optional retries_max: Count,
    }
}

section! {
    /// Limit on the rate of requests of each key: GCRA, in bounded memory.
    RateLimitSection, "rate_limit" {
        /// So many requests,
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
        /// Most connections at once, idle ones included; absent is no limit.
        optional connections_max: Positive,
        /// 0 takes the traffic; 1 and higher are backups, each for the tiers before it.
        default("0") tier: Int<0, 7>,
        /// The zone that it stands in.
        optional zone: String,
    }
}
