//! What comes again and again at one backend: its checks, and the questions to its agent.

use std::time::Instant;

/// What is done at a backend again and again, one at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recurring {
    /// When the next begins; while one is under way, when that began.
    pub(crate) next: Option<Instant>,
    pub(crate) under_way: bool,
}

impl Recurring {
    pub(crate) const NEVER: Self = Self { next: None, under_way: false };

    /// When one is to begin.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next.filter(|_| !self.under_way)
    }
}
