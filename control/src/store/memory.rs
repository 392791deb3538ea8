//! What memory holds of the file, and what waits for the disk.

use super::error::StoreError;
use super::record::{Entry, LogId, Vote};
use super::snapshot::SnapshotHeader;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Called once a write is on disk, or will never be.
pub type Completion = Box<dyn FnOnce(Result<(), Arc<StoreError>>) + Send>;

/// What memory holds of the file.
#[derive(Debug, Default)]
pub(super) struct InMemory {
    pub(super) log: BTreeMap<u64, Arc<Entry>>,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// Oldest first, at most two.
    pub(super) snapshots: Vec<SnapshotHeader>,
    /// Never one that the file has seen.
    pub(super) next_snapshot: u64,
}
