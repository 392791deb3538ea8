//! Who has changed the filter of the process's log, and until when.

use super::overrides::Author;
use std::time::Instant;

/// A change of the filter.
#[derive(Debug, Clone)]
pub(crate) struct LogChange {
    /// Its number.
    pub(super) change: u64,
    pub(crate) author: Author,
    pub(crate) until: Instant,
}
