//! Why TLS cannot be set up.

use std::path::PathBuf;
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
    /// The library refuses.
    #[error("{0}")]
    Library(#[from] rustls::Error),
}
