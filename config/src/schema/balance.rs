//! Sections of balancing: which policy, how keys are made, how far loads may differ.

use super::*;

section! {
    /// Which backend takes a request.
    BalanceSection, "balance" {
        /// By key: `ring` (consistent hashing), `maglev` (evener, moves more), `hrw` (rendezvous, for up to 32 backends).
        /// Without: `round_robin` (smooth, weighted), `random`, `p2c` (less loaded of two), `least_request`, `peak_ewma`
        /// (faster of two), `first` (in the order of ids, the first with room). See docs/balancing.md.
        default("ring") policy: PolicyName,
        /// Where the key comes from: the first that is present. Absent is the client's address. For `tcp`, there are `source_ip`
        /// and `sni`, for `udp` there is `source_ip`, also in `all`.
        optional hash_key: List<KeySection>,
        /// What to do when no key is present: any backend, the next in turn, by the client's address, or refuse (400; a session is
        /// reset, a datagram is dropped).
        default("random") on_missing: OnMissingName,
        /// Points on the ring per 100 of weight: more give evener shares and cost 12 to 15 bytes each.
        default("256") points: Int<1, 16384>,
        /// Entries of the Maglev table: a prime, 100 for each backend or more.
        default("65537") table_size: Int<2, 5_000_011>,
        /// How fast `peak_ewma` forgets a peak.
        default("10s") decay: Duration,
        /// What a failure counts as to `peak_ewma`, if it did not take longer: a connection that fails, a time-out, a response with 429 or
        /// 5xx. It fades as a latency does: an instant refusal must not look like a fast response.
        default("5s") penalty: Duration,
        /// Longest `Retry-After` of a 429 or 503 for which the penalty does not begin to fade, at most an hour.
        default("5m") retry_after_max: Duration,
        /// Secret against chosen keys, the same on every proxy of a fleet; absent is none.
        optional seed: Secret,
        /// The bound on each backend's load.
        default("{}") bounded_load: BoundSection,
        /// A cookie that keeps a client on its backend, made by Ringway; absent is none.
        optional affinity_cookie: Box<AffinityCookieSection>,
        /// Keys with so much traffic that one backend cannot carry them are spread over several: for policies by key.
        default("{}") hot_keys: HotKeysSection,
        /// Sheds a part of the keys of backends that have more than their share; absent is no such thing.
        optional shed: Box<ShedSection>,
    }
}

section! {
    /// A cookie made by Ringway. For policies by key it is the key, before any `hash_key`; for others it names the backend.
    AffinityCookieSection, "affinity_cookie" {
        /// Its name; absent is one of the service's own, `ringway-` and eight digits. Services on one host replace each
        /// other's cookie if they share a name and a path.
        optional name: String,
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
        /// What becomes of a client whose backend is drained (or has a weight of 0) and well: `keep` lets it stay until the
        /// service's `drain_timeout`, `move` sends it elsewhere with its next request. In `maintenance`, down or ejected, a backend
        /// keeps no client.
        default("keep") on_drain: OnDrainName,
        /// Secret that signs it, the same on every proxy of a fleet: a cookie that was not made with it is replaced.
        required secret: Secret,
    }
}

section! {
    /// Hot keys: what counts is the time that a key's requests are in flight. Shares are in units of one backend's fair share of it.
    HotKeysSection, "hot_keys" {
        /// Whether they are looked for. Without, a key stays on one backend however heavy it is, but for the bound.
        default("true") enabled: bool,
        /// A key with more than this becomes hot, and has one backend for each such share, and one more.
        default("0.5") enter: Number<10, 1_000_000>,
        /// One with less than this is hot no more.
        default("0.35") leave: Number<10, 1_000_000>,
        /// Hot keys at most.
        default("256") keys_max: Int<1, 4096>,
        /// Backends that share one key at most.
        default("32") owners_max: Int<2, 32>,
        /// Requests that must be remembered before a share is believed; one that lasts counts again in each `half_life`.
        default("1000") min_volume: Positive,
        /// Time after which half of what has been counted is forgotten.
        default("30s") half_life: Duration,
    }
}

section! {
    /// Shedding: a slow controller beside the bound, which moves the same keys every time.
    ShedSection, "shed" {
        /// Mean load, in units of the mean of all, above which a backend sheds.
        default("1.2") target: Factor,
        /// Largest part of its keys that a backend sheds.
        default("90") max: Percent,
        /// Whose loads count: `proxy` is what each sees for itself; with `fleet`, the control plane's leader adds up what all proxies see, and
        /// they all shed the same keys, and know the same hot ones. Needs `control`, with members; without a word from there, as `proxy`.
        default("proxy") scope: ShedScopeName,
    }
}

section! {
    /// A source of the hash key: exactly one of these.
    KeySection, "a hash key" {
        /// A field's value; of several fields of that name, the first that is not empty.
        optional header: String,
        /// A cookie's value; of several, the first that is not empty.
        optional cookie: String,
        /// The client's address, through trusted hops.
        optional source_ip: SourceIpSection,
        /// The path, without the query.
        optional path: PathKeySection,
        /// What a regular expression captures.
        optional regex: RegexSection,
        /// Path and query, as sent.
        optional uri: EmptySection,
        /// A query parameter's value, as sent; of several, the first that is not empty.
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
        /// A field's value; of several fields of that name, the first that is not empty.
        optional header: String,
        /// A cookie's value; of several, the first that is not empty.
        optional cookie: String,
        /// The client's address, through trusted hops.
        optional source_ip: SourceIpSection,
        /// The path, without the query.
        optional path: PathKeySection,
        /// What a regular expression captures.
        optional regex: RegexSection,
        /// Path and query, as sent.
        optional uri: EmptySection,
        /// A query parameter's value, as sent; of several, the first that is not empty.
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
        /// A backend may always carry so many; absent is 2, so that two requests of one key stay together in an idle service, and 1 for
        /// `strict`.
        optional min_slots: Positive,
        /// When every backend is full, at its bound or at its `requests_max`, under any policy: its `owner` or the
        /// `least_loaded` takes it beyond the bound (never beyond `requests_max`: then it is answered 503), or it waits in
        /// a `queue`, or it is answered 503 (`reject`).
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
