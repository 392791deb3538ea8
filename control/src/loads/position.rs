//! Which of two tables is the later one.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The place of a table among all: later ones are greater. Epochs rise with every restore, terms with every leader, and one leader
/// counts what it publishes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The cluster's epoch.
    pub epoch: u64,
    /// The leader's term.
    pub term: u64,
    /// Counts what this leader has published.
    pub seq: u64,
}

impl Position {
    /// Who has published it: the cluster's epoch, and the leader's term.
    #[must_use]
    pub fn leader(self) -> (u64, u64) {
        (self.epoch, self.term)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.term, self.seq)
    }
}
