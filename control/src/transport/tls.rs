//! TLS of the API and between members, from files that are read again when they change.

use arc_swap::ArcSwap;
use ringway_tls::{FileError, authorities, authorities_or_public, certified, chain, leaf, provider};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A certificate that ends within this is warned of,
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);
/// this often.
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is of no use. Boxed: it is most of what an error may be.
    #[error(transparent)]
    File(Box<FileError>),
    /// Clients cannot be checked by these authorities.
    #[error("clients cannot be checked by the authorities in {path:?}: {source}")]
    Verifier {
        /// The authorities' file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
    /// The library refuses.
    #[error(transparent)]
    Library(#[from] rustls::Error),
}

impl From<FileError> for TlsError {
    fn from(error: FileError) -> Self {
        Self::File(Box::new(error))
    }
}

impl TlsError {
    /// The file that is of no use, if it is a file.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(error) => Some(error.path()),
            Self::Verifier { path, .. } => Some(path),
            Self::Library(_) => None,
        }
    }
}

/// A configuration of TLS that may change: each new connection uses what is there then.
#[derive(Debug)]
pub struct Renewed<T>(Arc<ArcSwap<T>>);

impl<T> Clone for Renewed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> From<Arc<T>> for Renewed<T> {
    fn from(config: Arc<T>) -> Self {
        Self(Arc::new(ArcSwap::new(config)))
    }
}

impl<T> Renewed<T> {
    /// What a connection that begins now uses.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Connections from now on use this.
    pub fn renew(&self, config: Arc<T>) {
        self.0.store(config);
    }
}

/// Files, and what they looked like when they were last read. Made before they are first read: what changes in between
/// is seen as a change.
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    known: Vec<Option<Stamp>>,
}

/// Inode, size, and times of change of content and of inode in nanoseconds.
type Stamp = (u64, u64, i64, i64);

impl Files {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let known = stamps(&paths);
        Self { paths, known }
    }

    /// As [`Files::follow_any`], of certificates; of one that ends soon it is warned.
    pub(crate) async fn follow(self, certificate: PathBuf, read: impl Fn() -> Result<(), TlsError>) {
        let warn = async {
            let mut warned = None;
            loop {
                warn_of_end(&certificate, &mut warned);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::join!(warn, self.follow_any("certificates", read));
    }

    /// Calls `read` when a file has changed, for as long as it is polled. What it refuses is told once, and tried again: of
    /// a certificate and a key, one is replaced before the other.
    pub(crate) async fn follow_any<E: std::fmt::Display>(
        mut self,
        what: &'static str,
        read: impl Fn() -> Result<(), E>,
    ) {
        let mut told = String::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = stamps(&self.paths);
            if now == self.known {
                continue;
            }
            match read() {
                Ok(()) => {
                    tracing::info!(what, "files were read again");
                    self.known = now;
                    told.clear();
                }
                Err(error) => {
                    let error = error.to_string();
                    if error != told {
                        tracing::warn!(error, what, "files have changed and cannot be used: the old ones stay");
                        told = error;
                    }
                }
            }
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        let ns = |seconds: i64, ns: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(ns);
        Some((found.ino(), found.size(), ns(found.mtime(), found.mtime_nsec()), ns(found.ctime(), found.ctime_nsec())))
    };
    paths.iter().map(stamp).collect()
}

fn warn_of_end(certificate: &Path, warned: &mut Option<SystemTime>) {
    let now = SystemTime::now();
    if warned.is_some_and(|at| now.duration_since(at).is_ok_and(|since| since < WARN_EVERY)) {
        return;
    }
    // Counted from now also where all is well: the file is not read every time.
    *warned = Some(now);
    let Some(end) = not_after(certificate) else { return };
    let unix = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_secs(end).saturating_sub(unix);
    if left < SOON {
        let days = left.as_secs() / 86_400;
        tracing::warn!(certificate = %certificate.display(), days, "the certificate ends soon: replace the file");
    }
}

/// When a certificate's file ends to be valid, in seconds of Unix time.
pub(crate) fn not_after(certificate: &Path) -> Option<u64> {
    let chain = chain(certificate).ok()?;
    u64::try_from(leaf(certificate, &chain).ok()?.validity().not_after.timestamp()).ok()
}

/// For a server; `ca` is the authority of clients' certificates, which are `required` or only asked for.
///
/// # Errors
/// See [`TlsError`].
pub fn server(
    certificate: &Path,
    private_key: &Path,
    ca: Option<&Path>,
    required: bool,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let identity = certified(certificate, private_key, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(ca)?), provider);
            let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
            let failed = |source| TlsError::Verifier { path: ca.to_owned(), source };
            builder.with_client_cert_verifier(verifier.build().map_err(failed)?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// For a client; without `ca`, the public authorities.
///
/// # Errors
/// See [`TlsError`].
pub fn client(
    ca: Option<&Path>,
    identity: Option<(&Path, &Path)>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let trusted = authorities_or_public(ca)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, private_key)) => {
            let identity = certified(certificate, private_key, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}
