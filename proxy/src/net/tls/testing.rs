//! Certificates in a directory, and handshakes in memory.

use ringway_config::model::{Certificate, ListenerTls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig, ServerConnection, SignatureScheme,
    SupportedProtocolVersion, version,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that go with it.
pub(super) struct Directory(tempfile::TempDir);

impl Directory {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A certificate that has signed itself, and its key: an authority as well, of itself alone.
    pub(super) fn pair(&self, stem: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        self.pair_of(stem, names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(super) fn pair_of(
        &self,
        stem: &str,
        names: &[&str],
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let pem = self.write(&format!("{stem}.pem"), &certificate.pem());
        (pem, self.write(&format!("{stem}.key"), &key.serialize_pem()))
    }
}

pub(super) fn listener_tls(pairs: &[(&Path, &Path)]) -> ListenerTls {
    let certificate = |(certificate, key): &(&Path, &Path)| Certificate {
        certificate: certificate.to_path_buf(),
        key: key.to_path_buf(),
        ocsp: None,
    };
    ListenerTls {
        certificates: pairs.iter().map(certificate).collect(),
        tls12: true,
        alpn: Vec::new(),
        reject_unknown: false,
        client: None,
    }
}

/// Both ends of a connection whose handshake is done, or the first error of either.
pub(super) fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: ServerName<'static>,
) -> Result<(ClientConnection, ServerConnection), Error> {
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok((client, server))
}

/// A client that takes any certificate whose signature it can check.
#[derive(Debug)]
pub(super) struct AnyServer(Vec<SignatureScheme>);

impl AnyServer {
    pub(super) fn config(schemes: &[SignatureScheme]) -> Arc<ClientConfig> {
        Self::config_of(schemes, &[&version::TLS13, &version::TLS12])
    }

    pub(super) fn config_of(
        schemes: &[SignatureScheme],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap().dangerous();
        let builder = builder.with_custom_certificate_verifier(Arc::new(Self(schemes.to_vec())));
        Arc::new(builder.with_no_client_auth())
    }
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
