//! What a target has not taken: counted, and told now and then.

use std::time::{Duration, Instant};

/// What goes wrong is logged at most this often: a full disk goes wrong with every batch.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What was lost, and when it was told.
pub(super) struct Lost {
    /// Where lines were to go.
    target: String,
    /// Since [`Lost::take`].
    lines: u64,
    /// Since it was logged.
    untold: u64,
    why: Option<String>,
    told_at: Option<Instant>,
}

impl Lost {
    pub(super) fn new(target: String) -> Self {
        Self { target, lines: 0, untold: 0, why: None, told_at: None }
    }

    pub(super) fn add(&mut self, lines: u64, why: Option<String>) {
        self.lines += lines;
        self.untold += lines;
        self.why = why.or(self.why.take());
    }

    /// Lines lost since the last call.
    pub(super) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.lines)
    }

    pub(super) fn tell(&mut self, at_once: bool) {
        let wait = !at_once && self.told_at.is_some_and(|at| at.elapsed() < TELL_EVERY);
        if wait || (self.untold == 0 && self.why.is_none()) {
            return;
        }
        let why = self.why.take().unwrap_or_default();
        tracing::error!(target_file = %self.target, lines_lost = self.untold, error = why, "the access log cannot be written");
        (self.untold, self.told_at) = (0, Some(Instant::now()));
    }
}
