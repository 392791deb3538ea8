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
    /// It has been told that lines are lost, and nothing since.
    is_bad: bool,
    /// Batches in a row that were written whole, as far as they are counted.
    good: u8,
}

impl Lost {
    pub(super) fn new(target: String) -> Self {
        Self { target, lines: 0, untold: 0, why: None, told_at: None, is_bad: false, good: 0 }
    }

    pub(super) fn add(&mut self, lines: u64, why: Option<String>) {
        self.lines += lines;
        self.untold += lines;
        self.good = 0;
        self.why = why.or(self.why.take());
    }

    /// Lines lost since the last call.
    pub(super) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.lines)
    }

    /// A batch has been written, all of it. After one that was not, the second says that it is well again, and what was lost since that was told:
    /// where nobody listens to datagrams, each first one seems to go well.
    pub(super) fn handle_whole(&mut self) {
        self.good = (self.good + 1).min(2);
        if self.good == 2 && std::mem::take(&mut self.is_bad) {
            let lines_lost = std::mem::take(&mut self.untold);
            self.why = None;
            tracing::info!(target_file = %self.target, lines_lost, "the access log is written again");
        }
    }

    pub(super) fn tell(&mut self, at_once: bool) {
        let wait = !at_once && self.told_at.is_some_and(|at| at.elapsed() < TELL_EVERY);
        if wait || (self.untold == 0 && self.why.is_none()) {
            return;
        }
        self.is_bad = true;
        let why = self.why.take().unwrap_or_default();
        tracing::error!(target_file = %self.target, lines_lost = self.untold, error = why, "the access log cannot be written");
        (self.untold, self.told_at) = (0, Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_well_again_once_two_batches_were_written_and_not_before() {
        let mut lost = Lost::new("a test".into());
        lost.handle_whole();
        assert!(!lost.is_bad, "nothing was wrong");
        lost.add(3, Some("full".into()));
        lost.tell(false);
        assert!(lost.is_bad && lost.untold == 0);
        lost.add(2, Some("full".into()));
        lost.tell(false);
        assert_eq!(lost.untold, 2, "told a moment ago");
        lost.handle_whole();
        lost.add(1, Some("full".into()));
        lost.handle_whole();
        assert!(lost.is_bad && lost.untold == 3);
        lost.handle_whole();
        assert!(!lost.is_bad && lost.untold == 0 && lost.why.is_none());
        // What is told next is of what comes next.
        lost.told_at = None;
        lost.tell(false);
        assert!(!lost.is_bad);
        assert_eq!(lost.take(), 6);
    }
}
