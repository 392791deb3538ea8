//! A version of the configuration, ready to serve.

use super::certificates::CertificateEnd;
use super::service::Service;
use super::shadow::Shadow;
use crate::net::tls::ServerTls;
use ringway_config::model::Config;
use ringway_ring::Published;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

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
    /// TLS towards clients, listener by listener.
    pub(crate) tls: Box<[Option<Arc<ServerTls>>]>,
    /// Fields in which some listener sends clients' certificates to backends: no client may set them on any listener.
    pub(crate) identity_fields: Box<[Box<str>]>,
    /// Stamps of the files that TLS is made of.
    pub(crate) files_digest: u64,
    /// When the certificates that it uses end.
    pub(crate) certificates: Box<[CertificateEnd]>,
    /// The version whose placements are compared with these, or none.
    pub(crate) shadow: Option<Arc<Shadow>>,
}

impl Snapshot {
    /// Whether a field carries clients' certificates to backends.
    #[inline]
    pub(crate) fn is_identity(&self, name: &[u8]) -> bool {
        self.identity_fields.iter().any(|field| ringway_message::reads_as(name, field))
    }
}

/// The one pointer to the version in force.
pub type Current = Published<Snapshot>;

impl Snapshot {
    /// The digests of its rings by service; those that hash.
    pub(crate) fn ring_digests(&self) -> BTreeMap<String, u64> {
        let services = self.services.iter();
        services.filter_map(|service| Some((service.config.name.clone(), service.ring_digest()?))).collect()
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
            tls: Box::default(),
            identity_fields: Box::default(),
            files_digest: 0,
            certificates: Box::default(),
            shadow: None,
        }
    }
}
