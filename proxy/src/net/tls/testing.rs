//! Certificates in a directory, and handshakes in memory.

use super::no_verification::NoVerification;
use ringway_config::model::{Certificate, ListenerTls};
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection, SignatureScheme, SupportedProtocolVersion,
    version,
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

/// A client that takes any certificate, of a server that signs by one of these.
pub(super) fn any_server(schemes: &[SignatureScheme]) -> Arc<ClientConfig> {
    any_server_of(schemes, &[&version::TLS13, &version::TLS12])
}

pub(super) fn any_server_of(
    schemes: &[SignatureScheme],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let provider = ringway_tls::provider();
    let verifier = NoVerification::of(&provider).with_schemes(schemes);
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap().dangerous();
    Arc::new(builder.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}
