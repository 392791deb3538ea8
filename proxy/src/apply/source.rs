//! Where configurations come from, and where the outcome of each load is reported.

use super::outcome::ReloadError;
use crate::ambient;
use crate::apply::files;
use ringway_config::model::Config;
use ringway_config::{Diagnostics, Loaded};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

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
        /// When what the last `load` has brought was agreed on; `None` where it is the file that has changed.
        agreed_at: Box<dyn Fn() -> Option<SystemTime> + Send + Sync>,
        /// What had been agreed on before what the proxy starts with, newest first, as far as it is known, and when each gave way.
        before: Box<dyn Fn() -> Vec<(Config, SystemTime)> + Send + Sync>,
    },
    /// Made in memory: it cannot be reloaded from outside.
    Memory,
}

impl Source {
    /// Reads the configuration again, and the files that it names.
    pub(super) fn load(&self) -> Result<Loaded, ReloadError> {
        match self {
            Self::Memory => Err(ReloadError::NoFile),
            Self::File(path) => {
                ringway_config::load_file_again(path).and_then(files::verified).map_err(ReloadError::Invalid)
            }
            Self::Joined { load, .. } => load().map_err(ReloadError::Invalid),
        }
    }

    /// How long ago what the last load has brought was agreed on. By the clocks of two hosts: what was agreed on in the future was agreed on now.
    pub(super) fn age(&self) -> Duration {
        let agreed_at = match self {
            Self::Joined { agreed_at, .. } => agreed_at(),
            Self::File(_) | Self::Memory => None,
        };
        agreed_at.map(age_of).unwrap_or_default()
    }

    /// What was in force before what the proxy starts with, newest first, and how long ago each gave way.
    pub(super) fn before(&self) -> Vec<(Config, Duration)> {
        match self {
            Self::Joined { before, .. } => before().into_iter().map(|(config, at)| (config, age_of(at))).collect(),
            Self::File(_) | Self::Memory => Vec::new(),
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

fn age_of(at: SystemTime) -> Duration {
    ambient::time_of_day().duration_since(at).unwrap_or_default()
}
