//! TLS towards clients and backends: configurations of the library, and why one cannot be made.

use ringway_config::model::{ClientCertificates, Config, ListenerTls, UpstreamTls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme, version};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;

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
    /// A key's file cannot be read.
    #[error("read the private key from {path:?}: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// A key is of no use.
    #[error("the private key in {path:?} cannot be used: {source}")]
    BadKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Another certificate's key.
    #[error("the private key in {key:?} does not belong to the certificate in {certificate:?}")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
    },
    /// A certificate that cannot be read.
    #[error("the certificate in {path:?} cannot be read: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An OCSP answer's file cannot be read.
    #[error("read the OCSP answer from {path:?}: {source}")]
    Ocsp {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An OCSP answer's file is empty.
    #[error("the OCSP answer in {path:?} is empty")]
    EmptyOcsp {
        /// The file.
        path: PathBuf,
    },
    /// The library refuses.
    #[error("{0}")]
    Library(#[from] rustls::Error),
}

/// A client configuration; `alpn` names the protocols that are offered.
fn client(tls: &UpstreamTls, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if tls.verify {
        builder.with_root_certificates(roots(tls.ca.as_deref())?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(NoVerification(Arc::clone(&provider))))
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

/// TLS towards a service's backends.
pub(crate) struct ClientTls {
    pub(crate) config: Arc<ClientConfig>,
    /// The name that is sent and verified; the backend's address if none.
    name: Option<ServerName<'static>>,
}

impl ClientTls {
    pub(crate) fn new(tls: &UpstreamTls, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let name = tls.sni.as_ref().map(|_| server_name(tls, IpAddr::from([127, 0, 0, 1]))).transpose()?;
        Ok(Self { config: client(tls, alpn)?, name })
    }

    pub(crate) fn name(&self, address: IpAddr) -> ServerName<'static> {
        self.name.clone().unwrap_or_else(|| ServerName::IpAddress(address.into()))
    }
}

/// TLS of a listener.
pub(crate) struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
    /// Field that tells backends the fingerprint of the client's certificate.
    pub(crate) header: Option<Box<str>>,
    /// What its session tickets are made by.
    pub(crate) tickets: TicketKeys,
}

/// Keys of session tickets, by listener: a reload leaves them alone, so that clients go on resuming. They rotate by
/// themselves. Other rules for clients' certificates are other tickets: a session is not carried over to stricter ones.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<HashMap<String, TicketKeys>>);

/// What makes a listener's tickets.
#[derive(Clone)]
pub(crate) struct TicketKeys {
    listener: String,
    /// The rules that they were made for, and a hash of what their file of authorities held.
    rules: (Option<ClientCertificates>, u64),
    maker: Arc<dyn ProducesTickets>,
}

impl Tickets {
    /// Those that there are, if they are for these rules, or new ones, which [`Tickets::keep`] keeps.
    fn of(&self, listener: &str, tls: &ListenerTls) -> Result<TicketKeys, TlsError> {
        let authorities = tls.client.as_ref().map(|client| std::fs::read(&client.ca).unwrap_or_default());
        let rules = (tls.client.clone(), xxhash_rust::xxh3::xxh3_64(&authorities.unwrap_or_default()));
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(listener).filter(|known| known.rules == rules) {
            Some(known) => Ok(known.clone()),
            None => Ok(TicketKeys { listener: listener.to_owned(), rules, maker: aws_lc_rs::Ticketer::new()? }),
        }
    }

    /// From now on there are these, and no others.
    pub(crate) fn keep<'a>(&self, keys: impl Iterator<Item = &'a TicketKeys>) {
        let kept = keys.map(|keys| (keys.listener.clone(), keys.clone())).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }
}

impl ServerTls {
    pub(crate) fn new(listener: &str, tls: &ListenerTls, tickets: &Tickets) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut resolver = Resolver { exact: HashMap::new(), wild: HashMap::new(), default: None };
        for files in &tls.certificates {
            let mut certified = certified(&files.certificate, &files.key, &provider)?;
            let names = names_of(&files.certificate, &certified.cert)?;
            certified.ocsp = files.ocsp.as_deref().map(staple).transpose()?;
            resolver.add(names, Arc::new(certified), tls.reject_unknown);
        }
        let versions: &[&rustls::SupportedProtocolVersion] =
            if tls.tls12 { &[&version::TLS13, &version::TLS12] } else { &[&version::TLS13] };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let builder = match &tls.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let authorities = Arc::new(roots(Some(&client.ca))?);
                let mut verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider);
                if !client.required {
                    verifier = verifier.allow_unauthenticated();
                }
                let verifier =
                    verifier.build().map_err(|error| TlsError::Library(rustls::Error::General(error.to_string())))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = tls.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tickets = tickets.of(listener, tls)?;
        config.ticketer = Arc::clone(&tickets.maker);
        // Tickets hold the session: the server keeps none.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let header = tls.client.as_ref().map(|client| client.header.as_str().into());
        Ok(Self { config: Arc::new(config), header, tickets })
    }
}

/// Why a client's handshake failed: a name for metrics, of a bounded set. Whose fault it is can mostly be told from it.
pub(crate) fn handshake_failure(error: &std::io::Error) -> &'static str {
    use rustls::{AlertDescription as Alert, CertificateError, Error, PeerIncompatible};
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "closed",
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => "reset",
            _ => "io",
        };
    };
    match error {
        Error::AlertReceived(alert) => match alert {
            Alert::UnknownCA => "alert_unknown_ca",
            Alert::BadCertificate | Alert::CertificateUnknown | Alert::UnsupportedCertificate => {
                "alert_bad_certificate"
            }
            Alert::CertificateExpired | Alert::CertificateRevoked => "alert_certificate_expired",
            Alert::ProtocolVersion => "alert_protocol_version",
            Alert::HandshakeFailure => "alert_handshake_failure",
            Alert::CloseNotify | Alert::UserCanceled => "closed",
            _ => "alert_other",
        },
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => "protocol_version",
        Error::PeerIncompatible(_) => "nothing_in_common",
        Error::NoApplicationProtocol => "no_application_protocol",
        Error::NoCertificatesPresented => "no_client_certificate",
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "client_certificate_expired"
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => "client_certificate_unknown_issuer",
        Error::InvalidCertificate(_) => "client_certificate_invalid",
        // The library's word for a name that no certificate has.
        Error::General(text) if text.starts_with("no server certificate chain resolved") => "unknown_server_name",
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::DecryptError
        | Error::PeerSentOversizedRecord => "malformed",
        _ => "other",
    }
}

/// SHA-256 of a certificate, in hex digits.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    use std::fmt::Write as _;
    let provider = aws_lc_rs::default_provider();
    let sha256 = provider.cipher_suites.iter().find_map(|suite| {
        let hash = suite.tls13()?.common.hash_provider;
        (hash.algorithm() == rustls::crypto::hash::HashAlgorithm::SHA256).then(|| hash.hash(certificate))
    });
    sha256.iter().flat_map(|digest| digest.as_ref()).fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A hash of the contents of all files that the TLS of a configuration is made of.
pub(crate) fn digest(config: &Config) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for path in config.files() {
        hash.update(path.as_os_str().as_encoded_bytes());
        // A file that is missing is found out when it is read.
        hash.update(&std::fs::read(path).unwrap_or_default());
    }
    hash.digest()
}

/// Certificates by name. Of several for one name, the first whose key the client can check.
#[derive(Debug)]
struct Resolver {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows the `*.`.
    wild: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Option<Vec<Arc<CertifiedKey>>>,
}

impl Resolver {
    fn add(&mut self, names: Vec<String>, certified: Arc<CertifiedKey>, reject_unknown: bool) {
        for name in &names {
            let list = match name.strip_prefix("*.") {
                Some(parent) => self.wild.entry(parent.to_owned()).or_default(),
                None => self.exact.entry(name.clone()).or_default(),
            };
            list.push(Arc::clone(&certified));
        }
        if !reject_unknown {
            match &mut self.default {
                // Another key for what the default is for.
                Some(list)
                    if self.exact.values().chain(self.wild.values()).any(|same| {
                        same.iter().any(|one| Arc::ptr_eq(one, &list[0]))
                            && same.iter().any(|one| Arc::ptr_eq(one, &certified))
                    }) =>
                {
                    list.push(certified)
                }
                Some(_) => {}
                None => self.default = Some(vec![certified]),
            }
        }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = hello.server_name().and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.exact.get(&name).or_else(|| self.wild.get(name.split_once('.')?.1))
        });
        let list = known.or(self.default.as_ref())?;
        let schemes = hello.signature_schemes();
        list.iter().find(|certified| certified.key.choose_scheme(schemes).is_some()).or(list.first()).cloned()
    }
}

pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |source| TlsError::Read { path: path.to_owned(), source };
    let chain = CertificateDer::pem_file_iter(path).map_err(read)?.collect::<Result<Vec<_>, _>>().map_err(read)?;
    if chain.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Key { path: path.to_owned(), source })
}

/// A certificate with its own private key.
pub(crate) fn certified(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let certificates = chain(certificate)?;
    leaf(certificate, &certificates)?;
    let signer = provider
        .key_provider
        .load_private_key(private_key(key)?)
        .map_err(|source| TlsError::BadKey { path: key.to_owned(), source })?;
    let certified = CertifiedKey::new(certificates, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => Err(TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }),
    }
}

/// An OCSP answer.
pub(crate) fn staple(path: &Path) -> Result<Vec<u8>, TlsError> {
    let staple = std::fs::read(path).map_err(|source| TlsError::Ocsp { path: path.to_owned(), source })?;
    if staple.is_empty() { Err(TlsError::EmptyOcsp { path: path.to_owned() }) } else { Ok(staple) }
}

fn leaf<'a>(path: &Path, chain: &'a [CertificateDer<'_>]) -> Result<X509Certificate<'a>, TlsError> {
    let leaf = chain.first().ok_or_else(|| TlsError::Empty { path: path.to_owned() })?;
    let parsed = x509_parser::parse_x509_certificate(leaf);
    let malformed = |reason: String| TlsError::Malformed { path: path.to_owned(), reason };
    parsed.map(|(_, certificate)| certificate).map_err(|error| malformed(error.to_string()))
}

/// The DNS names that a certificate is for, lower case.
fn names_of(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Vec<String>, TlsError> {
    let certificate = leaf(path, chain)?;
    let alternative = certificate
        .subject_alternative_name()
        .map_err(|error| TlsError::Malformed { path: path.to_owned(), reason: error.to_string() })?;
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    Ok(names
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect())
}

/// The name that is sent and verified.
fn server_name(tls: &UpstreamTls, address: IpAddr) -> Result<ServerName<'static>, TlsError> {
    match &tls.sni {
        Some(name) => ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name.clone())),
        None => Ok(ServerName::IpAddress(address.into())),
    }
}

pub(crate) fn roots(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_that_were_only_tried_displace_none() {
        let tickets = Tickets::default();
        let plain = ListenerTls {
            certificates: Vec::new(),
            tls12: true,
            alpn: Vec::new(),
            reject_unknown: false,
            client: None,
        };
        let client = ClientCertificates { ca: "/nonexistent".into(), required: true, header: "x".into() };
        let strict = ListenerTls { client: Some(client), ..plain.clone() };
        let same = |a: &TicketKeys, b: &TicketKeys| Arc::ptr_eq(&a.maker, &b.maker);
        let first = tickets.of("a", &plain).unwrap();
        tickets.keep([&first].into_iter());
        let tried = tickets.of("a", &strict).unwrap();
        assert!(!same(&first, &tried));
        assert!(same(&first, &tickets.of("a", &plain).unwrap()), "clients go on resuming");
        tickets.keep([&tried].into_iter());
        assert!(!same(&first, &tickets.of("a", &plain).unwrap()), "stricter rules end old sessions");
        tickets.keep([].into_iter());
        assert!(!same(&tried, &tickets.of("a", &strict).unwrap()), "a listener that has gone is forgotten");
    }
}
