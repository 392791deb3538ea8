//! What a certificate says of itself.

use ringway_tls::{FileError, leaf, provider};
use rustls::pki_types::CertificateDer;
use std::path::Path;

/// The DNS names that a certificate is for, lower case.
pub(super) fn names_of(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Vec<String>, FileError> {
    let certificate = leaf(path, chain)?;
    let alternative = certificate
        .subject_alternative_name()
        .map_err(|error| FileError::Malformed { path: path.to_owned(), reason: error.to_string() })?;
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    Ok(names
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect())
}

/// SHA-256 of a certificate, in hex digits.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    use std::fmt::Write as _;
    let provider = provider();
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
