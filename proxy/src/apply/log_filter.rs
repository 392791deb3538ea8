//! Which lines the process's log has, changed while it runs: for a time, after which the filter of the start holds again.

use super::control::Control;
use super::log_change::LogChange;
use super::overrides::Author;
use crate::ambient;
use crate::snapshot::journal::Happening;
use ringway_telemetry::logs::{self, InForce, NewFilter};
use std::sync::{Arc, MutexGuard, PoisonError};
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
        let new = NewFilter::parse(filter)?;
        let text = format!("the filter of the log is {:?} for {duration:?}", new.text());
        let until = ambient::now() + duration;
        let change = {
            // One at a time: who has changed it belongs to what is in force.
            let mut changed = self.log_change();
            // The filter that comes may leave out the line that says so.
            tracing::warn!(by = author.by, "the filter of the log is about to be {:?} for {duration:?}", new.text());
            let change = logs::change(new)?;
            *changed = Some(LogChange { change, author: author.clone(), until });
            change
        };
        self.tell_log(&text, &author.by);
        let this = Arc::downgrade(self);
        self.runtime.spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            // One that was changed again since holds for its own time.
            if let Some(this) = this.upgrade() {
                this.take_back_log(
                    Some(change),
                    "the filter of the log is that of the start again: its time is over",
                    "",
                );
            }
        });
        Ok(())
    }

    /// Puts the filter of the start in force again.
    pub(crate) fn restore_log(&self, author: &Author) {
        self.take_back_log(None, "the filter of the log is that of the start again", &author.by);
    }

    fn take_back_log(&self, change: Option<u64>, text: &str, by: &str) {
        let is_back = {
            let _changed = self.log_change();
            if logs::is_changed(change) {
                tracing::warn!(by, "the filter of the log is about to be that of the start again");
            }
            logs::restore(change)
        };
        if is_back {
            self.tell_log(text, by);
        }
    }

    fn log_change(&self) -> MutexGuard<'_, Option<LogChange>> {
        self.log_change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The filter in force, and who has changed it, if somebody has. `None`: this process has none.
    pub(crate) fn log_filter(&self) -> Option<(InForce, Option<LogChange>)> {
        let changed = self.log_change();
        let in_force = logs::in_force()?;
        let changed = changed.clone().filter(|changed| changed.change == in_force.change);
        Some((in_force, changed))
    }

    fn tell_log(&self, text: &str, by: &str) {
        // Under the filter that holds now, too: who reads the log later sees why it has other lines from here on.
        tracing::warn!(by, "{text}");
        let (text, by) = (text.to_owned(), by.to_owned());
        self.shared.journal.note(&Happening { kind: "change", to: "log", text, by, ..Happening::default() });
    }
}
