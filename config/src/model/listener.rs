//! Listeners: what they speak, and with which clients.

use super::networks::Networks;
use super::route::{Compress, ErrorPage, HostMatch, Route};
use super::tracing::RequestId;
use crate::diagnostic::Site;
use std::net::SocketAddr;
use std::time::Duration;

/// An address that accepts traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Unique name.
    pub name: String,
    /// Where it listens; unique.
    pub address: SocketAddr,
    /// Where the file says so.
    pub site: Site,
    /// Of an IPv6 address: it takes nothing of IPv4. `[::]` takes both without.
    pub v6_only: bool,
    /// What it speaks.
    pub protocol: Protocol,
    /// TLS towards clients, or none.
    pub tls: Option<ListenerTls>,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_protocol: Networks,
    /// Most connections at once on this listener; 0 is no limit of its own.
    pub connections_max: usize,
    /// A connection that finds no place is turned away; if not, it waits in the kernel's queue.
    pub reject_when_full: bool,
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

/// HTTP/2 towards clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct H2 {
    /// Whether it is spoken.
    pub enabled: bool,
    /// Streams open at once.
    pub streams_max: u32,
    /// RFC 8441.
    pub extended_connect: bool,
    /// Frames that cost more to take than to send.
    pub flood: Flood,
}

/// What a client may send of what costs more to take than to send; `u32::MAX` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    /// RST_STREAM a second.
    pub resets_max: u32,
    /// RST_STREAM in all.
    pub resets_total_max: u32,
    /// Streams reset for what the client did, in all.
    pub malformed_total_max: u32,
    /// PINGs a second.
    pub pings_max: u32,
    /// WINDOW_UPDATE of the connection a second.
    pub window_updates_max: u32,
    /// Empty frames of data a second.
    pub empty_data_max: u32,
    /// CONTINUATION frames of one head.
    pub continuations_max: u32,
}

/// What a listener speaks.
#[allow(clippy::large_enum_variant, reason = "one of each listener, which nobody moves")]
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
    pub explain_allow: Networks,
    /// Whether a client that sends nothing more may still wait for its response.
    pub allow_half_close: bool,
    /// How long connections are kept, where that has limits.
    pub keep_alive: Option<KeepAlive>,
    /// Client-side time limits.
    pub timeouts: ClientTimeouts,
    /// HTTP/2.
    pub h2: H2,
    /// Other texts for responses of Ringway's own.
    pub errors: Vec<ErrorPage>,
    /// Compression of responses.
    pub compress: Option<Box<Compress>>,
    /// Ids of requests, if they have any.
    pub request_id: Option<RequestId>,
}

/// How long a client's connection is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Most requests; `u32::MAX` is no limit.
    pub requests_max: u32,
    /// Age from which on it ends with its next response; `Duration::MAX` is no limit.
    pub age_max: Duration,
}

/// Client-side time limits of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientTimeouts {
    /// A connection without a request may stay this long.
    pub idle: Duration,
    /// From a head's first byte (or the accept) to its last.
    pub head: Duration,
    /// Longest pause within a request's body.
    pub body_idle: Duration,
    /// Longest pause of a client that does not take its response.
    pub write_idle: Duration,
    /// Least rate of a request's body, in bytes a second; 0 is none.
    pub read_rate_min: u32,
    /// Least rate at which a response is taken, in bytes a second; 0 is none.
    pub write_rate_min: u32,
    /// Time over which rates are measured.
    pub rate_window: Duration,
    /// Whole time of a request's body; zero is no limit.
    pub body_total: Duration,
    /// Whole time of a response's body; zero is no limit.
    pub write_total: Duration,
}

/// Whose forwarding fields are believed, and which are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// Networks whose `X-Forwarded-*` and `Forwarded` are believed and extended; from others they are replaced.
    pub trusted: Networks,
    /// Which of their fields say who the client is.
    pub source: ForwardedSource,
    /// Send `X-Forwarded-For`, `-Proto` and `-Host`.
    pub x_forwarded: bool,
    /// Send `Forwarded` (RFC 7239).
    pub forwarded: bool,
}

/// The fields that say who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedSource {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    XForwardedFor,
    /// `Forwarded`.
    Forwarded,
}

/// A TCP listener.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpListener {
    /// Index into [`super::Config::services`]: for all, or where no name of [`TcpListener::names`] matches; `None`: those are closed.
    pub service: Option<usize>,
    /// Services by the name that a TLS client asks for; not empty means that it is read.
    pub names: Vec<(HostMatch, usize)>,
}

/// A UDP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpListener {
    /// Index into [`super::Config::services`].
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
