//! Why a member does not run.

use crate::api;
use crate::consensus::StartError;
use crate::http::ApiError;
use crate::transport::tls::TlsError;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a member does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Its directory is nobody's yet.
    #[error(
        "{} belongs to no cluster yet: `ringway control init` makes it the first member of a new one, `ringway control \
         join` a member of one that is there", .0.display()
    )]
    Nobody(PathBuf),
    /// Its directory is somebody's already.
    #[error("{} belongs to member {node} of cluster {cluster:?} already", path.display())]
    Somebody {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        node: u64,
        /// Of which cluster.
        cluster: String,
    },
    /// A file of its directory.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An address cannot be bound.
    #[error("bind {what} to {address}: {source}")]
    Bind {
        /// What for.
        what: &'static str,
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Tokens.
    #[error(transparent)]
    Token(#[from] api::TokenError),
    /// The log.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The first member cannot make its cluster.
    #[error("make the cluster: {0}")]
    Init(String),
    /// They are nobody's themselves.
    #[error("join: the members that were asked are in no cluster themselves")]
    NoCluster,
    /// The members that are there are of no help.
    #[error("join: {0}")]
    Join(#[from] ApiError),
}
