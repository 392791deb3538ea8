//! A version of the configuration, ready to serve.

use super::admin_access::AdminAccess;
use super::certificates::CertificateEnd;
use super::service::Service;
use super::shadow::{Shadow, agreed_of};
use crate::net::tls::{AdminServer, ServerTls};
use crate::planted::{self, Fault};
use crate::routes::{NameTable, RouteTable};
use ringway_config::model::{Config, Listener, Metrics, Protocol};
use ringway_ring::Published;
use ringway_telemetry::OfBackends;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The field that marks the copy of a request whose key is handed over.
pub(crate) const COPY_FIELD: &str = "x-ringway-handoff";

/// A version of the configuration, ready to serve.
pub struct Snapshot {
    /// Counts applied changes from 1.
    pub generation: u64,
    /// What it was built from.
    pub config: Arc<Config>,
    /// In the order of the configuration: routes refer to them by index.
    pub services: Box<[Arc<Service>]>,
    /// Their indices.
    pub(super) by_name: HashMap<Box<str>, usize>,
    /// What its requests and names are looked up in, listener by listener.
    pub(crate) tables: Box<[ListenerTable]>,
    /// TLS towards clients, listener by listener.
    pub(crate) tls: Box<[Option<Arc<ServerTls>>]>,
    /// Fields in which some listener sends clients' certificates to backends, as [`identity_fields`] has them: no client may set them
    /// on any listener.
    pub(crate) identity_fields: Box<[Box<str>]>,
    /// Fields in which some service tells backends of hand-off, likewise: no client may set them, through whatever hop.
    pub(crate) handoff_fields: Box<[Box<str>]>,
    /// Stamps of the files that TLS is made of.
    pub(crate) files_digest: u64,
    /// When the certificates that it uses end.
    pub(crate) certificates: Box<[CertificateEnd]>,
    /// The version whose placements are compared with these, or none.
    pub(crate) shadow: Option<Arc<Shadow>>,
    /// Who may ask the admin listener what. Of a version without one, as the one before has it.
    pub(crate) admin: Option<Arc<AdminAccess>>,
}

/// The fields in which listeners tell whose certificates they have seen: each once, as backends may read it, sorted.
pub(super) fn identity_fields(config: &Config) -> Box<[Box<str>]> {
    let clients = config.listeners.iter().filter_map(|listener| listener.tls.as_ref()?.client.as_ref());
    as_read(clients.map(|client| client.header.as_str()))
}

/// The fields in which services tell of hand-off, likewise.
pub(super) fn handoff_fields(config: &Config) -> Box<[Box<str>]> {
    let handoffs = config.services.iter().filter_map(|service| service.handoff.as_ref());
    as_read(handoffs.flat_map(|handoff| [handoff.header.as_str(), COPY_FIELD]))
}

fn as_read<'a>(names: impl Iterator<Item = &'a str>) -> Box<[Box<str>]> {
    let read = |name: &str| name.bytes().map(|byte| char::from(ringway_message::as_read(byte))).collect::<String>();
    let fields: BTreeSet<Box<str>> = names.map(|name| read(name).into()).collect();
    fields.into_iter().collect()
}

fn is_among(fields: &[Box<str>], name: &[u8]) -> bool {
    let reads = |field: &[u8]| field.iter().copied().cmp(name.iter().map(|byte| ringway_message::as_read(*byte)));
    fields.binary_search_by(|field| reads(field.as_bytes())).is_ok()
}

/// What a listener's clients are looked up in.
pub(crate) enum ListenerTable {
    Http(RouteTable),
    Tcp(NameTable),
    /// All go to one service.
    Udp,
}

impl ListenerTable {
    pub(crate) fn new(listener: &Listener) -> Self {
        match &listener.protocol {
            Protocol::Http(http) => Self::Http(RouteTable::new(&http.routes)),
            Protocol::Tcp(tcp) => Self::Tcp(NameTable::new(tcp.names.iter().map(|(name, _)| name))),
            Protocol::Udp(_) => Self::Udp,
        }
    }
}

impl Snapshot {
    /// Whether a field carries clients' certificates to backends.
    #[inline]
    pub(crate) fn is_identity(&self, name: &[u8]) -> bool {
        is_among(&self.identity_fields, name)
    }

    /// Whether a field tells backends of hand-off.
    #[inline]
    pub(crate) fn is_of_handoff(&self, name: &[u8]) -> bool {
        is_among(&self.handoff_fields, name) && !planted::is_planted(Fault::HandoffFieldPassed)
    }

    /// Whether a trailer may go to a backend: it says nothing that only Ringway says.
    #[inline]
    pub(crate) fn keeps_trailer(&self, name: &[u8]) -> bool {
        !self.is_identity(name) && !self.is_of_handoff(name)
    }
}

/// The one pointer to the version in force.
pub type Current = Published<Snapshot>;

impl Snapshot {
    /// TLS of the admin listener, or none.
    pub(crate) fn admin_tls(&self) -> Option<&Arc<AdminServer>> {
        self.admin.as_ref()?.tls.as_ref()
    }

    /// What a fleet compares of its rings, by service; those that hash.
    pub(crate) fn agreed_digests(&self) -> BTreeMap<String, u64> {
        let digest = |service: &Service| Some(agreed_of(&service.config, service.ring_digest()?));
        let services = self.services.iter();
        services.filter_map(|service| Some((service.config.name.clone(), digest(service)?))).collect()
    }

    /// How much the metrics say of each backend, and how many backends they do not say everything of.
    pub(crate) fn backend_metrics(&self) -> (OfBackends, usize) {
        let backends = self.services.iter().map(|service| service.backends.len()).sum();
        match self.config.metrics {
            Metrics::Full => (OfBackends::All, 0),
            Metrics::FullUpTo(most) if backends <= most => (OfBackends::All, 0),
            Metrics::FullUpTo(_) | Metrics::Basic => (OfBackends::Numbers, backends),
            Metrics::Nothing => (OfBackends::Nothing, backends),
        }
    }

    /// Index of a service.
    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.index_of(name).map(|index| &self.services[index])
    }

    /// The empty version, in force before the first one.
    pub(crate) fn empty(config: Arc<Config>) -> Self {
        Self {
            generation: 0,
            config,
            services: Box::default(),
            by_name: HashMap::new(),
            tables: Box::default(),
            tls: Box::default(),
            identity_fields: Box::default(),
            handoff_fields: Box::default(),
            files_digest: 0,
            certificates: Box::default(),
            shadow: None,
            admin: None,
        }
    }
}
