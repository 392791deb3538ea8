//! TLS of the admin listener.

use super::error::TlsError;
use ringway_config::model::AdminTls;
use ringway_tls::{authorities, certified, provider};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;

/// TLS of the admin listener, ready to serve.
#[derive(Debug)]
pub(crate) struct AdminServer {
    pub(crate) config: Arc<ServerConfig>,
    /// Those by which certificates of clients are checked.
    authorities: Option<Arc<RootCertStore>>,
}

impl AdminServer {
    /// Whether both take the certificates of the same authorities.
    pub(crate) fn trusts_as(&self, other: &Self) -> bool {
        self.authorities.as_ref().map(|these| &these.roots) == other.authorities.as_ref().map(|those| &those.roots)
    }
}

/// One certificate; those of clients are asked for where there are authorities to check them by, and none has to be shown: who has none may
/// have a token.
pub(crate) fn admin_tls(tls: &AdminTls) -> Result<Arc<AdminServer>, TlsError> {
    let provider = provider();
    let identity = certified(&tls.certificate, &tls.key, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let authorities = tls.client_ca.as_deref().map(authorities).transpose()?.map(Arc::new);
    let builder = match &authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(authorities), provider);
            let verifier = verifier.allow_unauthenticated().build();
            let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A session that is resumed would bring along a certificate that was checked by files of before.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(AdminServer { config: Arc::new(config), authorities }))
}
