//! Sections of listeners: what they speak, and with which clients.

use super::*;

section! {
    /// An address that accepts traffic.
    ListenerSection, "a listener" {
        /// Unique name, for logs and metrics.
        required name: String,
        /// IP address and port; `0.0.0.0:80` is all of IPv4, `[::]:80` all of both families (`v6_only`).
        required address: String,
        /// Whether `[::]` takes IPv6 alone. Absent: where another listener, or the admin's, has an IPv4 address with the same port.
        optional v6_only: bool,
        /// What it speaks.
        default("http") protocol: ProtocolName,
        /// All traffic goes to this service: short for one route without conditions.
        optional service: String,
        /// Routing rules; the first that matches takes the request. For `tcp`, rules with `match: { host: ... }` alone: the
        /// name that a TLS client asks for (SNI), read without ending its TLS unless there is `tls`. However many there are, host
        /// and path are looked up, and the value of a field, if most of those that are left ask for one; what else they ask for is
        /// tested one by one, of those that these leave.
        default("[]") routes: List<RouteSection>,
        /// TLS towards clients; absent is none.
        optional tls: ListenerTlsSection,
        /// Flows of datagrams. For `udp`.
        default("{}") udp: UdpSection,
        /// HTTP/2 towards clients. For `http`.
        default("{}") h2: H2Section,
        /// Compression of responses; absent is none. A route's own comes first. For `http`.
        optional compress: CompressSection,
        /// Other texts for the responses that Ringway gives itself; the first that fits. For `http`.
        default("[]") errors: List<ErrorAnswerSection>,
        /// Networks of proxies that begin connections with a PROXY header (version 1 or 2), which says who the client is.
        /// Theirs must have one; others' connections are taken as they are.
        default("[]") proxy_protocol: List<String>,
        /// What is believed of, and added to, the forwarding fields. For `http`.
        default("{}") forwarded: ForwardedSection,
        /// An id for each request; absent is none. For `http`.
        optional request_id: RequestIdSection,
        /// Largest request head; past it, 431. For `http`.
        default("32KiB") head_bytes_max: Bytes,
        /// Most fields in a request head; past it, 431. For `http`.
        default("100") fields_max: Int<1, 256>,
        /// Largest request body; past it, 413. Absent is no limit. For `http`.
        optional body_bytes_max: Bytes,
        /// Whether a client of HTTP/1.1 that closes its sending side before its response begins still gets it, as from
        /// `printf ... | nc -N`. Otherwise it has left: its request is ended at once, and logged with status 499.
        default("false") allow_half_close: bool,
        /// How long connections are kept from request to request. For `http`.
        default("{}") keep_alive: KeepAliveSection,
        /// Time limits towards clients. For `http`.
        default("{}") timeouts: ClientTimeoutsSection,
        /// Most connections at once on this listener; 0 is no limit of its own.
        default("0") connections_max: Count,
        /// What becomes of a client beyond that, or beyond what the process serves at once: `wait` leaves it in the kernel's queue
        /// until there is a place (as HAProxy does), `reject` turns it away: 503 over plain HTTP, closed otherwise. For `http` and
        /// `tcp`.
        default("wait") when_full: WhenFullName,
        /// Most connections at once from one client address (IPv6: one /64); 0 is no limit. One more is told 429 over plain
        /// HTTP, and closed at once otherwise (TLS, TCP). A client in a `trusted` network is a proxy, and is not counted; one
        /// that a PROXY header names is, in place of the address that sent it.
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
    /// answers with is remembered. Later ids of a connection are encrypted: a client that changes address and id at once is placed anew.
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
        /// DER file of an OCSP response that is stapled; absent is none.
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
        /// What a client may send of what costs more to take than to send.
        default("{}") flood: FloodSection,
    }
}

section! {
    /// Frames of a client on one HTTP/2 connection that cost more to take than to send. One more than a limit, and the connection
    /// ends with GOAWAY `ENHANCE_YOUR_CALM`, and so do the streams on it. Raise what
    /// `ringway_rejected_requests_total{reason="http2_..._flood"}` shows for clients that mean no harm: mostly proxies, which
    /// carry the requests of many on one connection. Other limits hold for connections that begin after the reload.
    FloodSection, "h2.flood" {
        /// RST_STREAM a second (CVE-2023-44487): requests that a client gives up. Too low, and whoever cancels many calls at once, as at a
        /// common deadline, loses the others of the connection with them.
        /// Absent is `streams_max`, at least 100: all streams that are open may be given up at once.
        optional resets_max: Int<1, 1_000_000>,
        /// RST_STREAM in all; 0 is no limit. Too low, and long-lived connections of clients that cancel now and then end again and
        /// again.
        default("10000") resets_total_max: Count,
        /// Streams that had to be reset for what the client did, in all (CVE-2025-8671): malformed requests, and frames against the
        /// rules; 0 is no limit. Too low, and a proxy in front that passes on what one client got wrong loses the requests of all.
        default("500") malformed_total_max: Count,
        /// PINGs a second (CVE-2019-9512), beside ten for each frame of data sent to the client. Too low, and clients that measure
        /// delays, or look whether anybody is there, are cut off.
        default("100") pings_max: Int<1, 1_000_000>,
        /// WINDOW_UPDATE of the connection a second (CVE-2019-9511), beside ten for each frame of data sent to the client; of
        /// its streams together twenty times as many. Too low, and clients that announce windows long before they use them are
        /// cut off.
        default("100") window_updates_max: Int<1, 1_000_000>,
        /// Frames of data without a byte that end no stream, a second (CVE-2019-9518). Too low, and clients that flush when they
        /// have nothing to send are cut off.
        default("100") empty_data_max: Int<1, 1_000_000>,
        /// CONTINUATION frames of one head (CVE-2024-27316). Too low, and clients cannot send heads that `head_bytes_max` allows: each
        /// carries 16 KiB at most, and some send less in each.
        default("20") continuations_max: Int<1, 1024>,
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
        /// Whether a response without length is taken for whole although the backend closes without saying so in TLS
        /// (`close_notify`). Otherwise it is cut off for the client too: any machine on the way may have ended it.
        default("false") ignore_unexpected_eof: bool,
        /// PEM file of the proxy's own certificate, for backends that ask for one; with `key`.
        optional certificate: String,
        /// PEM file of its private key.
        optional key: String,
    }
}

section! {
    /// Whose forwarding fields are believed, and which are added.
    ForwardedSection, "forwarded" {
        /// Networks of proxies in front, for example `10.0.0.0/8`: theirs are believed and extended, others' replaced. An
        /// IPv4 address is the same whether it comes as one or mapped into IPv6 (`::ffff:10.0.0.1`), here and in the fields.
        default("[]") trusted: List<String>,
        /// Which of a trusted proxy's fields say who the client is and what it spoke: `x_forwarded_for` (with
        /// `X-Forwarded-Proto`), or `forwarded` (RFC 7239). Name the one that the proxies in front write themselves: the other
        /// may be the client's own word.
        default("x_forwarded_for") source: ForwardedSourceName,
        /// Send `X-Forwarded-For`, `-Proto` and `-Host`.
        default("true") x_forwarded: bool,
        /// Send `Forwarded` (RFC 7239).
        default("false") forwarded: bool,
    }
}

section! {
    /// How long clients' connections are kept. One that has reached a limit ends with its response (`Connection: close`); over HTTP/2 it
    /// gets GOAWAY, and streams that have begun end as they do.
    KeepAliveSection, "keep_alive" {
        /// Most requests on a connection; 0 is no limit.
        default("0") requests_max: Count,
        /// Age from which on a connection ends with its next response; 0 is no limit.
        default("0") age_max: Duration,
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
        /// Longest pause of a client that does not take its response. Absent is `body_idle`.
        optional write_idle: Duration,
        /// Least rate of a request's body in bytes a second, while the client is what is waited for; 0 is none. Calls of gRPC are
        /// not measured.
        default("16") read_rate_min: Count,
        /// Least rate, in bytes a second, at which a client must take a response that is there; 0 is none.
        default("16") write_rate_min: Count,
        /// Time over which these rates are measured.
        default("10s") rate_window: Duration,
        /// Longest time that a request's body may take; 0 is no limit.
        default("0") body_total: Duration,
        /// Longest time that a response may take from its head to its end, as far as the client is what is waited for; 0 is no
        /// limit.
        default("0") write_total: Duration,
    }
}
