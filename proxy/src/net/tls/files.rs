//! Certificates, keys, authorities and staples out of their files.

use super::certificate::leaf;
use super::error::TlsError;
use ringway_config::model::Config;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::path::Path;

/// The certificates of a file, at least one.
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

/// An OCSP response, to be stapled.
pub(crate) fn staple(path: &Path) -> Result<Vec<u8>, TlsError> {
    let staple = std::fs::read(path).map_err(|source| TlsError::Ocsp { path: path.to_owned(), source })?;
    if staple.is_empty() { Err(TlsError::EmptyOcsp { path: path.to_owned() }) } else { Ok(staple) }
}

/// The authorities of a file; the public ones without.
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

#[cfg(test)]
mod tests {
    use super::super::testing::Directory;
    use super::*;
    use rustls::crypto::aws_lc_rs;

    #[test]
    fn each_file_that_cannot_be_used_is_named_with_its_reason() {
        let directory = Directory::new();
        let (good, key) = directory.pair("a", &["a.example"]);
        let (_, other) = directory.pair("b", &["b.example"]);
        let empty = directory.write("empty.pem", "");
        let garbage = directory.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let bad_key = directory.write("bad.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        let missing = directory.path("missing.pem");
        let error =
            |certificate: &Path, key: &Path| certified(certificate, key, &aws_lc_rs::default_provider()).unwrap_err();
        assert!(certified(&good, &key, &aws_lc_rs::default_provider()).is_ok());
        for (certificate, key, expected) in [
            (&missing, &key, "Read"),
            (&empty, &key, "Empty"),
            (&garbage, &key, "Malformed"),
            (&good, &missing, "Key"),
            (&good, &bad_key, "BadKey"),
            (&good, &other, "Mismatch"),
        ] {
            let error = error(certificate, key);
            assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        }
        assert!(matches!(staple(&missing), Err(TlsError::Ocsp { path, .. }) if path == missing));
        assert!(matches!(staple(&empty), Err(TlsError::EmptyOcsp { path }) if path == empty));
        assert!(matches!(roots(Some(&empty)), Err(TlsError::Empty { path }) if path == empty));
        assert!(roots(Some(&good)).is_ok() && !roots(None).unwrap().is_empty());
    }

    #[test]
    fn a_digest_changes_with_each_file_that_is_named() {
        let directory = Directory::new();
        let (certificate, key) = directory.pair("a", &["a.example"]);
        let text = format!(
            "listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s, tls: {{ certificates: [ {{ certificate: {certificate:?}, \
             key: {key:?} }} ] }} }} ]\nservices: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
        );
        let config =
            ringway_config::load_str("t.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}")).config;
        let before = digest(&config);
        assert_eq!(before, digest(&config));
        directory.write("a.key", "another");
        let after = digest(&config);
        assert_ne!(before, after);
        std::fs::remove_file(&certificate).unwrap();
        assert_ne!(after, digest(&config));
    }
}
