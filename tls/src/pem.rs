//! The files themselves, PEM.

use crate::error::{FileError, PairError};
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fs::File;
use std::io::{ErrorKind, Read, Take};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;

/// What is read of a file: all public authorities are a hundredth of it.
const BYTES_MAX: u64 = 32 << 20;

/// The implementation of cryptography, which is named everywhere: two in one build would be a panic at run time.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A file, as far as one of TLS goes: one without an end has one here.
fn open(path: &Path) -> std::io::Result<Take<File>> {
    // Whoever waits for what comes from a pipe waits for as long as others please.
    if std::fs::metadata(path)?.file_type().is_fifo() {
        return Err(std::io::Error::new(ErrorKind::InvalidInput, "it is a pipe, not a file"));
    }
    Ok(File::open(path)?.take(BYTES_MAX))
}

/// The certificates of a file, at least one.
///
/// # Errors
/// See [`FileError`].
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let read = |source| FileError::Read { path: path.to_owned(), source };
    let file = open(path).map_err(|error| read(pem::Error::Io(error)))?;
    let chain = CertificateDer::pem_reader_iter(file).collect::<Result<Vec<_>, _>>().map_err(read)?;
    if chain.is_empty() { Err(FileError::Empty { path: path.to_owned() }) } else { Ok(chain) }
}

/// The first certificate of a chain, read.
///
/// # Errors
/// [`FileError::Empty`], [`FileError::Malformed`].
pub fn leaf<'a>(path: &Path, chain: &'a [CertificateDer<'_>]) -> Result<X509Certificate<'a>, FileError> {
    let leaf = chain.first().ok_or_else(|| FileError::Empty { path: path.to_owned() })?;
    let malformed = |reason: String| FileError::Malformed { path: path.to_owned(), reason };
    let parsed = x509_parser::parse_x509_certificate(leaf);
    parsed.map(|(_, certificate)| certificate).map_err(|error| malformed(error.to_string()))
}

/// A certificate with its own private key.
///
/// # Errors
/// See [`FileError`].
pub fn certified(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, FileError> {
    let certificates = chain(certificate)?;
    leaf(certificate, &certificates)?;
    let unusable = |source| FileError::Key { path: key.to_owned(), source };
    let file = open(key).map_err(|error| unusable(pem::Error::Io(error)))?;
    let private = PrivateKeyDer::from_pem_reader(file).map_err(unusable)?;
    pair(certificates, private, provider).map_err(|error| match error {
        PairError::BadKey(source) => FileError::BadKey { path: key.to_owned(), source },
        PairError::BadCertificate(source) => {
            FileError::Malformed { path: certificate.to_owned(), reason: source.to_string() }
        }
        PairError::Mismatch => FileError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() },
    })
}

/// A chain with the private key of its first certificate.
///
/// # Errors
/// See [`PairError`].
pub fn pair(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, PairError> {
    let signer = provider.key_provider.load_private_key(key).map_err(PairError::BadKey)?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(PairError::Mismatch),
        Err(error) => Err(PairError::BadCertificate(error)),
    }
}

/// The authorities of a file, at least one.
///
/// # Errors
/// See [`FileError`].
pub fn authorities(path: &Path) -> Result<RootCertStore, FileError> {
    let mut store = RootCertStore::empty();
    for certificate in chain(path)? {
        store.add(certificate).map_err(|source| FileError::NoAuthority { path: path.to_owned(), source })?;
    }
    Ok(store)
}

/// The authorities of a file; the public ones without.
///
/// # Errors
/// See [`FileError`].
pub fn authorities_or_public(file: Option<&Path>) -> Result<RootCertStore, FileError> {
    file.map_or_else(|| Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }), authorities)
}

/// An OCSP response, to be stapled.
///
/// # Errors
/// [`FileError::Ocsp`], [`FileError::EmptyOcsp`].
pub fn staple(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut staple = Vec::new();
    let read = open(path).and_then(|mut file| file.read_to_end(&mut staple));
    let whole = read.and_then(|length| match length as u64 {
        BYTES_MAX => Err(ErrorKind::FileTooLarge.into()),
        _ => Ok(()),
    });
    whole.map_err(|source| FileError::Ocsp { path: path.to_owned(), source })?;
    if staple.is_empty() { Err(FileError::EmptyOcsp { path: path.to_owned() }) } else { Ok(staple) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn files_without_an_end_are_no_certificates_and_no_keys() {
        let endless = Path::new("/dev/zero");
        assert!(chain(endless).is_err());
        assert!(PrivateKeyDer::from_pem_reader(open(endless).unwrap()).is_err());
        assert!(matches!(staple(endless), Err(FileError::Ocsp { .. })));
    }

    #[test]
    fn a_pipe_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = chain(&pipe).unwrap_err().to_string();
        assert!(error.contains("it is a pipe, not a file"), "{error}");
    }

    struct Directory(tempfile::TempDir);

    impl Directory {
        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }

        fn pair(&self, stem: &str) -> (PathBuf, PathBuf) {
            let made = rcgen::generate_simple_self_signed([format!("{stem}.example")]).unwrap();
            let certificate = self.write(&format!("{stem}.pem"), &made.cert.pem());
            (certificate, self.write(&format!("{stem}.key"), &made.signing_key.serialize_pem()))
        }
    }

    fn pem(what: &str, body: &str) -> String {
        format!("-----BEGIN {what}-----\n{body}\n-----END {what}-----\n")
    }

    #[test]
    fn each_file_that_cannot_be_used_is_named_with_what_is_wrong_with_it() {
        let directory = Directory(tempfile::tempdir().unwrap());
        let (good, key) = directory.pair("a");
        let (_, other) = directory.pair("b");
        let empty = directory.write("empty.pem", "");
        let garbage = directory.write("garbage.pem", &pem("CERTIFICATE", "AAAA"));
        let torn = directory.write("torn.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
        let bad_key = directory.write("bad.key", &pem("PRIVATE KEY", "AAAA"));
        let missing = directory.0.path().join("missing.pem");
        assert!(certified(&good, &key, &provider()).is_ok());
        let pairs = [
            (&missing, &key, &missing, "read certificates from"),
            (&torn, &key, &torn, "read certificates from"),
            (&empty, &key, &empty, "holds no certificate"),
            (&key, &key, &key, "holds no certificate"),
            (&garbage, &key, &garbage, "cannot be read: "),
            (&good, &missing, &missing, "read the private key from"),
            (&good, &good, &good, "read the private key from"),
            (&good, &bad_key, &bad_key, "cannot be used: "),
            (&good, &other, &other, "does not belong to the certificate in"),
        ];
        let pairs = pairs
            .map(|(certificate, key, file, what)| (certified(certificate, key, &provider()).map(drop), file, what));
        let authorities = [
            (&missing, "read certificates from"),
            (&torn, "read certificates from"),
            (&empty, "holds no certificate"),
            (&garbage, "cannot be an authority: "),
        ];
        let authorities = authorities.map(|(file, what)| (authorities_or_public(Some(file)).map(drop), file, what));
        let staples = [(&missing, "read the OCSP response from"), (&empty, "is empty")];
        let staples = staples.map(|(file, what)| (staple(file).map(drop), file, what));
        for (found, file, what) in pairs.into_iter().chain(authorities).chain(staples) {
            let error = found.unwrap_err();
            assert_eq!(error.path(), file);
            let said = error.to_string();
            assert!(said.contains(&format!("{file:?}")) && said.contains(what), "{said}");
        }
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_told_from_a_key_that_is_anothers() {
        // As `openssl x509 -req` issues it without extensions: version 1, which has no names.
        let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
        let (certificate, key) = (file("version-1.pem"), file("version-1.key"));
        let error = certified(&certificate, &key, &provider()).unwrap_err();
        assert_eq!(error.path(), certificate);
        assert!(matches!(error, FileError::Malformed { .. }), "{error}");
    }

    #[test]
    fn the_public_authorities_are_trusted_where_no_file_is_named_and_nobody_else_where_one_is() {
        let directory = Directory(tempfile::tempdir().unwrap());
        let (one, two) = (directory.pair("a").0, directory.pair("b").0);
        let both = [one, two].map(|path| std::fs::read_to_string(path).unwrap()).concat();
        assert_eq!(authorities_or_public(Some(&directory.write("both.pem", &both))).unwrap().len(), 2);
        assert!(authorities_or_public(None).unwrap().len() > 2);
    }
}
