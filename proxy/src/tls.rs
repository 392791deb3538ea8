//! TLS towards backends: client configurations, and why one cannot be made.

use ringway_config::model::CheckTls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file of certificates cannot be read.
    #[error("read certificates from {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// A file has no certificate that can be used.
    #[error("{path:?} holds no certificate of an authority")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A name that no certificate can have.
    #[error("`{0}` is not a server name")]
    Name(String),
    /// The library refuses.
    #[error("{0}")]
    Library(#[from] rustls::Error),
}

/// A client configuration for checks; `alpn` names the protocols that are offered.
pub(crate) fn client(tls: &CheckTls, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut config = if tls.verify {
        builder.with_root_certificates(roots(tls.ca.as_deref())?).with_no_client_auth()
    } else {
        let verifier = Arc::new(NoVerification(provider));
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Whether a configuration could be made, and its name is one.
pub(crate) fn check_client(tls: &CheckTls) -> Result<(), TlsError> {
    client(tls, &[])?;
    server_name(tls, IpAddr::from([127, 0, 0, 1]))?;
    Ok(())
}

/// The name that is sent and verified.
pub(crate) fn server_name(tls: &CheckTls, address: IpAddr) -> Result<ServerName<'static>, TlsError> {
    match &tls.sni {
        Some(name) => ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name.clone())),
        None => Ok(ServerName::IpAddress(address.into())),
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    let Some(path) = file else {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(store);
    };
    let read = |source| TlsError::Read { path: path.to_owned(), source };
    for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
        store.add(certificate.map_err(read)?)?;
    }
    if store.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(store) }
}

/// Takes every certificate: `verify: false`. Signatures are still checked: the other side must hold the key.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
