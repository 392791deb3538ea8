//! Why TLS cannot be set up.

use ringway_tls::FileError;
use thiserror::Error;

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is of no use. Boxed: it is most of what an error may be.
    #[error(transparent)]
    File(Box<FileError>),
    /// A name that no certificate can have.
    #[error("`{0}` is not a server name")]
    Name(String),
    /// The library refuses.
    #[error("{0}")]
    Library(#[from] rustls::Error),
}

impl From<FileError> for TlsError {
    fn from(error: FileError) -> Self {
        Self::File(Box::new(error))
    }
}
