//! Why a file of TLS is of no use.

use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a file of TLS is of no use.
#[derive(Debug, Error)]
pub enum FileError {
    /// A file of certificates cannot be read, or is no PEM.
    #[error("read certificates from {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// A file without a certificate.
    #[error("{path:?} holds no certificate")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A certificate that cannot be read.
    #[error("the certificate in {path:?} cannot be read: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A certificate that others cannot be checked by.
    #[error("the certificate in {path:?} cannot be an authority: {source}")]
    NoAuthority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A key's file cannot be read, or is no PEM.
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
    /// The file of an OCSP response cannot be read.
    #[error("read the OCSP response from {path:?}: {source}")]
    Ocsp {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file of an OCSP response is empty.
    #[error("the OCSP response in {path:?} is empty")]
    EmptyOcsp {
        /// The file.
        path: PathBuf,
    },
}

/// Why a certificate and a key are no pair, wherever they come from.
#[derive(Debug, Error)]
pub enum PairError {
    /// The key is of no use.
    #[error("the private key cannot be used: {0}")]
    BadKey(rustls::Error),
    /// It is another certificate's.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The certificate is of no use.
    #[error("the certificate cannot be used: {0}")]
    BadCertificate(rustls::Error),
}

impl FileError {
    /// The file that is of no use; of two that do not belong together, the key's.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::Empty { path }
            | Self::Malformed { path, .. }
            | Self::NoAuthority { path, .. }
            | Self::Key { path, .. }
            | Self::BadKey { path, .. }
            | Self::Mismatch { key: path, .. }
            | Self::Ocsp { path, .. }
            | Self::EmptyOcsp { path } => path,
        }
    }
}
