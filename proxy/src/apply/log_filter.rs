//! Which lines the process's log has, changed while it runs: for a time, after which the filter of the start holds again.

use super::control::Control;
use super::log_change::LogChange;
use super::overrides::Author;
use crate::ambient;
use crate::snapshot::journal::Happening;
use ringway_telemetry::logs::{self, InForce};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Longest time for which another filter holds.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

impl Control {
    /// Puts another filter in force for a time.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub(crate) fn change_log(
        self: &Arc<Self>,
        filter: &str,
        duration: Duration,
        author: &Author,
    ) -> Result<(), String> {
        let change = logs::change(filter)?;
        let until = ambient::now() + duration;
        *self.log_change.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(LogChange { change, author: author.clone(), until });
        self.tell_log(&format!("the filter of the log is {:?} for {duration:?}", filter.trim()), &author.by);
        let this = Arc::downgrade(self);
        self.runtime.spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            // One that was changed again since holds for its own time.
            if let Some(this) = this.upgrade().filter(|_| logs::restore(Some(change))) {
                this.tell_log("the filter of the log is that of the start again: its time is over", "");
            }
        });
        Ok(())
    }

    /// Puts the filter of the start in force again.
    pub(crate) fn restore_log(&self, author: &Author) {
        if logs::restore(None) {
            self.tell_log("the filter of the log is that of the start again", &author.by);
        }
    }

    /// The filter in force, and who has changed it, if somebody has. `None`: this process has none.
    pub(crate) fn log_filter(&self) -> Option<(InForce, Option<LogChange>)> {
        let in_force = logs::in_force()?;
        let changed = self.log_change.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let changed = changed.filter(|changed| changed.change == in_force.change && in_force.filter != in_force.start);
        Some((in_force, changed))
    }

    fn tell_log(&self, text: &str, by: &str) {
        // Shown by nearly every filter: who reads the log later sees why it has other lines from here on.
        tracing::warn!(by, "{text}");
        let (text, by) = (text.to_owned(), by.to_owned());
        self.shared.journal.note(&Happening { kind: "change", to: "log", text, by, ..Happening::default() });
    }
}
