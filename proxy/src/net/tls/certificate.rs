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

/// The names that a certificate gives whoever shows it: DNS names, URIs, common names.
pub(crate) fn names_shown(certificate: &CertificateDer<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let mut names: Vec<String> = Vec::new();
    if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
        names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        }));
    }
    // Where there are alternative names, of whatever kind, the common name is none (RFC 6125, section 6.4.4).
    if !matches!(parsed.subject_alternative_name(), Ok(None)) {
        return names;
    }
    let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    names.extend(common.map(str::to_owned));
    names
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_name_counts_only_where_there_is_no_alternative_name() {
        let shown = |alternative: &[&str]| {
            let names: Vec<String> = alternative.iter().map(|name| (*name).to_owned()).collect();
            let mut params = rcgen::CertificateParams::new(names).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, "ops");
            let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            names_shown(certificate.der())
        };
        assert_eq!(shown(&[]), ["ops"]);
        assert_eq!(shown(&["a.example"]), ["a.example"]);
        assert_eq!(shown(&["10.0.0.1"]), [""; 0]);
    }
}
