//! Where configurations come from, and where the outcome of each load is reported.

use super::outcome::ReloadError;
use crate::apply::files;
use ringway_config::{Diagnostics, Loaded};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Called with the outcome of a load: the digests of the rings that are in force now, or why it is refused.
type ReportOutcome = dyn Fn(Result<BTreeMap<String, u64>, &ReloadError>) + Send + Sync;

/// Where configurations come from.
pub enum Source {
    /// A file, read again on each reload.
    File(PathBuf),
    /// A file and what a fleet has agreed on, joined anew on each reload.
    Joined {
        /// Joins them.
        load: Box<dyn Fn() -> Result<Loaded, Diagnostics> + Send + Sync>,
        /// Called with the outcome of the last `load`, before there is another.
        report: Box<ReportOutcome>,
    },
    /// Made in memory: it cannot be reloaded from outside.
    Memory,
}

impl Source {
    /// Reads the configuration again, and the files that it names.
    pub(super) fn load(&self) -> Result<Loaded, ReloadError> {
        match self {
            Self::Memory => Err(ReloadError::NoFile),
            Self::File(path) => ringway_config::load_file(path).and_then(files::verified).map_err(ReloadError::Invalid),
            Self::Joined { load, .. } => load().map_err(ReloadError::Invalid),
        }
    }

    /// Reports the outcome of the last load, to a source that wants to know.
    pub(super) fn report(&self, outcome: Result<BTreeMap<String, u64>, &ReloadError>) {
        match self {
            Self::Joined { report, .. } => report(outcome),
            Self::File(_) | Self::Memory => {}
        }
    }
}
