//! The member's directory: one process at a time, one member for ever.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::record::{FORMAT, Identity};
use super::{Place, StoreError};

/// `node.json`: written once, when the member first starts.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    cluster: String,
    node: u64,
    format: u8,
}

/// The only field that every later format must keep.
#[derive(Deserialize)]
struct AnyNodeFile {
    format: u8,
}

/// A directory that this process holds; dropping it gives it free.
pub(super) struct Directory {
    path: PathBuf,
    has_run: bool,
    /// The lock is the kernel's: it goes with the process, however that ends.
    _lock: File,
}

impl Directory {
    /// Makes the directory where there is none, takes its lock and checks whose it is.
    pub(super) fn lock(path: &Path, identity: &Identity) -> Result<Self, StoreError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(|source| failed("create", path, source))?;
        let lock = hold(path)?;
        let node_path = path.join("node.json");
        let has_run = match std::fs::read(&node_path) {
            Ok(bytes) => {
                check(&node_path, &bytes, identity)?;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(source) => return Err(failed("read", &node_path, source)),
        };
        Ok(Self { path: path.to_owned(), has_run, _lock: lock })
    }

    /// Whether a member has started here before.
    pub(super) fn has_run(&self) -> bool {
        self.has_run
    }

    /// Writes `node.json` unless it is there. Comes after the log was made: a crash in between leaves a log without
    /// `node.json`, which the next start completes; the other order would look like a lost log.
    pub(super) fn record(&mut self, identity: &Identity) -> Result<(), StoreError> {
        if self.has_run {
            return Ok(());
        }
        let node = NodeFile { cluster: identity.cluster.clone(), node: identity.node, format: FORMAT };
        let temporary = self.path.join("node.json.tmp");
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(&node)?)?;
            file.sync_all()?;
            std::fs::rename(&temporary, self.path.join("node.json"))?;
            // The names of both files: a synced file whose name is lost is lost.
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| failed("write", &temporary, source))?;
        self.has_run = true;
        Ok(())
    }
}

/// Takes a directory's lock, whosever it is; dropping the file gives it free.
pub(crate) fn hold(path: &Path) -> Result<File, StoreError> {
    let lock_path = path.join("LOCK");
    let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
    let lock = lock.map_err(|source| failed("open", &lock_path, source))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: lock_path }),
        Err(TryLockError::Error(source)) => Err(failed("lock", &lock_path, source)),
    }
}

/// A file for its owner only: made so if it is not there, empty, and made so if it was not.
pub(super) fn private_file(path: &Path) -> Result<(), StoreError> {
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let private = || -> io::Result<()> {
        let file = file?;
        let mode = file.metadata()?.permissions().mode();
        if mode & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(mode & !0o077))?;
        }
        Ok(())
    };
    private().map_err(|source| failed("open", path, source))
}

fn check(path: &Path, bytes: &[u8], expected: &Identity) -> Result<(), StoreError> {
    let damaged = |error: serde_json::Error| StoreError::Corrupt {
        path: path.to_owned(),
        place: Place::Identity,
        what: error.to_string(),
    };
    let AnyNodeFile { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format > FORMAT {
        return Err(StoreError::Future { path: path.to_owned(), place: Place::Identity, found: format });
    }
    let node: NodeFile = serde_json::from_slice(bytes).map_err(damaged)?;
    let found = Identity { cluster: node.cluster, node: node.node };
    if found != *expected {
        return Err(StoreError::OtherMember {
            path: path.to_owned(),
            found: Box::new(found),
            expected: Box::new(expected.clone()),
        });
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { action, path: path.to_owned(), source }
}
