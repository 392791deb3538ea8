//! What a member's directory says of it: which one it is, of which cluster, and how it comes into it.

use super::error::RunError;
use super::swap::swap;
use crate::consensus::{Identity, StartError};
use crate::http::Api as Client;
use hyper::Method;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is to be done when the member first runs.
const PLAN_FILE: &str = "member.json";
/// Where the disk of a new cluster is written.
const FRESH: &str = "recovering";
/// Between two attempts to join.
pub(super) const JOIN_RETRY: Duration = Duration::from_millis(500);
/// How long a cluster that is joined may take to have a name.
const NAME_WAIT: Duration = Duration::from_secs(5);

/// Which member of which cluster a directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The cluster's name.
    pub cluster: String,
    /// The member's id, never given to another.
    pub node: u64,
    /// How it comes into the cluster.
    pub origin: Origin,
}

/// How a member comes into its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It is the first.
    First,
    /// It has been taken in. Removed, it does not come back by itself.
    Joined,
    /// It is the first, of a cluster that has a topology from its first moment: a backup's, or that of the disk of a member whose
    /// cluster has lost its majority. The new files are to be moved into the old ones' place.
    Founding {
        /// Directory, in the member's, that keeps the old ones.
        before: String,
    },
    /// Members that are there take it in.
    Join {
        /// API addresses.
        members: Vec<String>,
        /// File with an admin's token.
        token_file: Option<PathBuf>,
        /// File with the authorities of the API's certificates.
        ca: Option<PathBuf>,
        /// It is to vote.
        voter: bool,
        /// The member that it takes the place of.
        replace: Option<u64>,
    },
}

impl Plan {
    /// A new cluster, of which this is the first member.
    ///
    /// # Errors
    /// The directory is somebody's already, or cannot be written.
    pub fn first(directory: &Path, cluster: Option<String>) -> Result<Self, RunError> {
        Self::nobodys(directory)?;
        let cluster = cluster.unwrap_or_else(|| format!("ringway-{:08x}", random() as u32));
        Self { cluster, node: random(), origin: Origin::First }.write(directory)
    }

    /// A member of a cluster that is there, whose name its members tell.
    ///
    /// # Errors
    /// As [`Plan::first`]; nobody answers.
    pub async fn join(directory: &Path, client: &Client, origin: Origin) -> Result<Self, RunError> {
        Self::nobodys(directory)?;
        let began = Instant::now();
        let cluster = loop {
            let status = client.json(Method::GET, "/v1/status", None).await?;
            // What members call each other stays when a restore gives the cluster another name.
            let named = |field: &str| status[field].as_str().filter(|name| !name.is_empty());
            match named("cluster").and(named("identity").or(named("cluster"))) {
                Some(cluster) => break cluster.to_owned(),
                // The first member has begun a moment ago, and its cluster has no name yet.
                None if began.elapsed() < NAME_WAIT => tokio::time::sleep(JOIN_RETRY).await,
                None => return Err(RunError::NoCluster),
            }
        };
        Self { cluster, node: random(), origin }.write(directory)
    }

    /// From here on, the directory is the new member's: what is left to do is done when it starts, at the latest. `old`: whose it was.
    pub(crate) fn founding(directory: &Path, old: Option<&Self>, new: Identity, now_ms: u64) -> Result<Self, RunError> {
        let before = format!("before-recover-{now_ms}");
        let kept = directory.join(&before);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&kept)
            .map_err(|source| RunError::File { path: kept.clone(), source })?;
        if let Some(old) = old {
            old.clone().write(&kept)?;
        }
        Self { cluster: new.cluster, node: new.node, origin: Origin::Founding { before } }.write(directory)
    }

    /// What a directory holds.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(directory: &Path) -> Result<Option<Self>, RunError> {
        let path = directory.join(PLAN_FILE);
        let failed = |source| RunError::File { path: path.clone(), source };
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether a directory is nobody's yet.
    ///
    /// # Errors
    /// It is somebody's, or cannot be read.
    pub fn nobodys(directory: &Path) -> Result<(), RunError> {
        match Self::read(directory)? {
            Some(Self { node, cluster, .. }) => Err(RunError::Somebody { path: directory.to_owned(), node, cluster }),
            None => Ok(()),
        }
    }

    pub(super) fn write(self, directory: &Path) -> Result<Self, RunError> {
        let path = directory.join(PLAN_FILE);
        let failed = |source| RunError::File { path: path.clone(), source };
        // Its log will have certificates' keys in it.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let beside = directory.join("member.json.new");
        let mut file = File::create(&beside).map_err(failed)?;
        let text = serde_json::to_string_pretty(&self).map_err(|error| failed(error.into()))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&beside, &path).map_err(failed)?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(self)
    }
}

/// An empty directory, in a member's, for the disk that is to take the place of its own.
pub(crate) fn fresh_directory(directory: &Path) -> Result<PathBuf, RunError> {
    let path = directory.join(FRESH);
    match std::fs::remove_dir_all(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(RunError::File { path, source }),
        _ => Ok(path),
    }
}

/// Finishes what has come to its point of no return; anything else is left as it is.
pub(crate) fn finish_founding(directory: &Path, plan: Plan) -> Result<Plan, RunError> {
    let Origin::Founding { before } = &plan.origin else { return Ok(plan) };
    let _alone = crate::store::hold(directory).map_err(StartError::from)?;
    let (fresh, kept) = (directory.join(FRESH), directory.join(before));
    let failed = |source| RunError::File { path: fresh.clone(), source };
    swap(directory, &fresh, &kept).map_err(failed)?;
    let plan = Plan { origin: Origin::Joined, ..plan }.write(directory)?;
    // Nothing was there before a cluster that was made of a backup.
    let _ = std::fs::remove_dir(&kept);
    match std::fs::remove_dir_all(&fresh) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(failed(source)),
        _ => Ok(plan),
    }
}

/// Enough for ids that never meet.
pub(crate) fn random() -> u64 {
    // The standard library draws the keys of its hash maps from the system's randomness.
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id()) >> 1 | 1
}
