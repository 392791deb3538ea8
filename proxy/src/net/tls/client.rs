//! TLS towards a service's backends.

use super::error::TlsError;
use super::no_verification::NoVerification;
use super::sessions::Sessions;
use ringway_config::model::UpstreamTls;
use ringway_tls::{authorities_or_public, certified, provider};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// Backends whose sessions are kept: as many as a service may have. Past that, all are forgotten.
const BACKENDS_MAX: usize = 65_535;

/// TLS towards a service's backends.
pub(crate) struct ClientTls {
    config: Arc<ClientConfig>,
    /// The same for each backend to which a connection was opened, with that one's sessions.
    backends: Mutex<HashMap<SocketAddr, Arc<ClientConfig>>>,
    /// The name that is sent and verified; the backend's address if none.
    name: Option<ServerName<'static>>,
}

impl ClientTls {
    pub(crate) fn new(tls: &UpstreamTls, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let name = tls.sni.as_ref().map(|_| server_name(tls, IpAddr::from([127, 0, 0, 1]))).transpose()?;
        Ok(Self { config: client(tls, alpn)?, backends: Mutex::default(), name })
    }

    /// For a connection to this backend. Asked once for each handshake.
    pub(crate) fn config_for(&self, backend: SocketAddr) -> Arc<ClientConfig> {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = backends.get(&backend) {
            return Arc::clone(known);
        }
        if backends.len() >= BACKENDS_MAX {
            backends.clear();
        }
        let mut own = (*self.config).clone();
        own.resumption = Resumption::store(Arc::new(Sessions::default()));
        let own = Arc::new(own);
        backends.insert(backend, Arc::clone(&own));
        own
    }

    /// Forgets the sessions with all backends but these.
    pub(crate) fn keep(&self, backends: &HashSet<SocketAddr>) {
        let mut known = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|backend, _| backends.contains(backend));
    }

    pub(crate) fn name(&self, address: IpAddr) -> ServerName<'static> {
        self.name.clone().unwrap_or_else(|| ServerName::IpAddress(address.into()))
    }
}

/// A client configuration; `alpn` names the protocols that are offered.
pub(crate) fn client(tls: &UpstreamTls, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if tls.verify {
        builder.with_root_certificates(authorities_or_public(tls.ca.as_deref())?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(NoVerification::of(&provider)))
    };
    let mut config = match &tls.own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certified = certified(certificate, key, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The name that is sent and verified.
fn server_name(tls: &UpstreamTls, address: IpAddr) -> Result<ServerName<'static>, TlsError> {
    match &tls.sni {
        Some(name) => ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name.clone())),
        None => Ok(ServerName::IpAddress(address.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::server::ServerTls;
    use super::super::testing::{Directory, handshake, listener_tls};
    use super::super::tickets::Tickets;
    use super::*;
    use std::path::Path;

    fn upstream(ca: Option<&Path>, verify: bool) -> UpstreamTls {
        UpstreamTls { sni: None, ca: ca.map(Into::into), verify, ignore_unexpected_eof: false, own: None }
    }

    #[test]
    fn a_backend_must_have_a_certificate_of_the_authority_for_the_name_unless_nothing_is_verified() {
        let directory = Directory::new();
        let (ours, key) = directory.pair("a", &["a.example"]);
        let (others, _) = directory.pair("b", &["a.example"]);
        let server = ServerTls::new("l", &listener_tls(&[(&ours, &key)]), &Tickets::default()).unwrap();
        for (ca, name, verify, works) in [
            (&ours, "a.example", true, true),
            (&ours, "b.example", true, false),
            (&others, "a.example", true, false),
            (&others, "b.example", false, true),
        ] {
            let tls =
                ClientTls::new(&UpstreamTls { sni: Some(name.into()), ..upstream(Some(ca), verify) }, &[]).unwrap();
            let name = tls.name([127, 0, 0, 1].into());
            assert_eq!(handshake(&tls.config, &server.config, name).is_ok(), works, "{ca:?} {verify}");
        }
    }

    #[test]
    fn a_backend_without_a_name_is_verified_by_its_address() {
        let tls = ClientTls::new(&upstream(None, true), &[b"h2"]).unwrap();
        let address = IpAddr::from([192, 0, 2, 7]);
        assert_eq!(tls.name(address), ServerName::IpAddress(address.into()));
        assert_eq!(tls.config.alpn_protocols, [b"h2"]);
        let wrong = UpstreamTls { sni: Some("not a name".into()), ..upstream(None, true) };
        assert!(matches!(ClientTls::new(&wrong, &[]), Err(TlsError::Name(name)) if name == "not a name"));
    }
}
