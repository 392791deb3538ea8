//! One change at a time: read, prepared, committed, and reported.

use super::control::Control;
use super::outcome::{Applied, LastReload, ReloadError, ReloadResult};
use super::prepare::Files;
use crate::net::tls;
use crate::snapshot::journal::{Happening, percents};
use ringway_config::Origin;
use ringway_config::model::Config;
use ringway_telemetry::catalogue;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

impl Control {
    /// Reads the source again and applies it. The outcome is logged, counted and kept for the status. Takes as long as a build
    /// does.
    pub(crate) fn reload(&self) -> (Result<Applied, ReloadError>, LastReload) {
        // Read and applied as one: of two at a time, the one that has read last is the one that holds.
        let changing = self.changing();
        let _takes_memory = self.shared.overload.changes.begin();
        self.read_again(changing)
    }

    /// As [`Control::reload`], after a change of the file at `path`, or of one that it names: unless somebody else has had it put into
    /// force meanwhile.
    pub(crate) fn follow(&self, path: &Path) {
        let changing = self.changing();
        let _takes_memory = self.shared.overload.changes.begin();
        if !self.says_what_is_in_force(path) {
            // Logged and counted inside: nobody waits for it.
            let _ = self.read_again(changing);
        }
    }

    /// Whether the file, and all that it names, are as they were when they were put into force. A file that is not the shadow's either
    /// cannot tell: nobody knows what that was.
    fn says_what_is_in_force(&self, path: &Path) -> bool {
        let snapshot = self.current.load();
        if snapshot.config.shadow.is_some() || self.state().last_reload.is_refused() {
            return false;
        }
        let Ok(bytes) = ringway_config::read_bytes(path) else { return false };
        let origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        origin.as_ref().is_some_and(|origin| origin.is_of(&bytes))
            && tls::digest(&snapshot.config) == snapshot.files_digest
    }

    fn read_again(&self, changing: MutexGuard<'_, ()>) -> (Result<Applied, ReloadError>, LastReload) {
        let outcome = self.source.load().and_then(|loaded| {
            for warning in &loaded.warnings {
                tracing::warn!(code = warning.code, line = warning.line, "{}", warning.message);
            }
            let applied = self.put(loaded.config, Some(&loaded.origin), &changing)?;
            self.show_origin(loaded.origin);
            Ok(applied)
        });
        self.source.report(outcome.as_ref().map(|_| self.current.load().agreed_digests()));
        drop(changing);
        count(ReloadResult::of(&outcome));
        for line in outcome.iter().flat_map(|applied| &applied.overridden) {
            tracing::warn!(
                "{line}: it was changed at run time, and stays so until the process ends or `ringway overrides --clear`"
            );
        }
        match &outcome {
            Ok(applied) if applied.diff.is_empty() => {
                tracing::info!(generation = applied.generation, "configuration unchanged")
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "configuration refused: what was in force stays"),
        }
        self.keep(&outcome);
        let newest = LastReload::new(&outcome);
        self.state().last_reload.handle(&newest);
        (outcome, newest)
    }

    /// Keeps the outcome in the journal, unless nothing has changed.
    fn keep(&self, outcome: &Result<Applied, ReloadError>) {
        let result = ReloadResult::of(outcome);
        let (text, changes, moved) = match outcome {
            Ok(applied) if applied.diff.is_empty() => return,
            Ok(Applied { generation, diff, moved, .. }) => {
                let revision = self.topology.get().map(|topology| topology().revision);
                let revision = revision.map(|revision| format!(", revision {revision} of the topology"));
                (
                    format!("generation {generation}{}", revision.unwrap_or_default()),
                    diff.lines().collect(),
                    percents(moved),
                )
            }
            Err(error) => (error.to_string(), Vec::new(), Vec::new()),
        };
        let to = result.name();
        self.shared.journal.note(&Happening { kind: "reload", to, text, changes, moved, ..Happening::default() });
    }

    /// Puts a configuration into force: all of it, or nothing.
    ///
    /// # Errors
    /// See [`ReloadError`]; what was in force stays, untouched.
    pub(crate) fn apply(&self, config: Config) -> Result<Applied, ReloadError> {
        self.put(config, None, &self.changing())
    }

    /// The lock is held before and after: a source reads nothing else meanwhile.
    fn put(
        &self,
        config: Config,
        origin: Option<&Origin>,
        changing: &MutexGuard<'_, ()>,
    ) -> Result<Applied, ReloadError> {
        let overrides = self.over().0.clone();
        self.put_over(config, overrides, Files::Read(origin), changing)
    }
}

fn count(result: ReloadResult) {
    metrics::counter!(catalogue::RELOADS.name, "result" => result.name()).increment(1);
    let ok = match result {
        ReloadResult::Applied | ReloadResult::Unchanged => 1.0,
        ReloadResult::Refused => 0.0,
    };
    metrics::gauge!(catalogue::RELOAD_LAST_OK.name).set(ok);
}

/// The counters that alerts are written for are there from the start.
pub(crate) fn declare_metrics() {
    for result in ReloadResult::ALL {
        metrics::counter!(catalogue::RELOADS.name, "result" => result.name()).absolute(0);
    }
    metrics::gauge!(catalogue::RELOAD_LAST_OK.name).set(1.0);
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::super::testing;
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn each_load_is_reported_once_before_the_next_with_its_outcome() {
        let (texts, events) = (Arc::new(Mutex::new(Vec::<&str>::new())), Arc::new(Mutex::new(Vec::new())));
        let (reading, loads, reports) = (Arc::clone(&texts), Arc::clone(&events), Arc::clone(&events));
        let source = Source::Joined {
            load: Box::new(move || {
                loads.lock().unwrap().push("load".to_owned());
                ringway_config::load_str("f.yaml", reading.lock().unwrap().pop().unwrap(), &|_| None)
            }),
            report: Box::new(move |outcome| {
                let rings = outcome.map(|rings| rings.len()).map_err(ToString::to_string);
                reports.lock().unwrap().push(format!("{:?}", rings.ok()));
            }),
            agreed_at: Box::new(|| None),
            before: Box::new(Vec::new),
        };
        let (control, _receivers) = testing::control(source);
        let good = "listeners: [ { name: l, address: \"127.0.0.1:0\", service: s } ]\n\
                    services: [ { name: s, balance: { hash_key: [ { path: {} } ] }, backends: [ { id: a, address: \"127.0.0.1:9\" } ] } ]\n";
        for (text, result, shown, report) in [
            (good, "applied", "applied", "Some(1)"),
            (good, "unchanged", "applied", "Some(1)"),
            ("listeners: 3\n", "refused", "refused", "None"),
            (good, "unchanged", "unchanged", "Some(1)"),
        ] {
            texts.lock().unwrap().push(text);
            let (outcome, newest) = control.reload();
            assert_eq!(outcome.is_ok(), result != "refused");
            assert_eq!(newest.json()["result"], result);
            assert_eq!(control.state().last_reload.json()["result"], shown);
            assert_eq!(std::mem::take(&mut *events.lock().unwrap()), ["load", report]);
        }
    }

    const SMALL: &str = "listeners: [ { name: l, address: \"127.0.0.1:0\", service: s } ]\n\
                         services: [ { name: s, backends: [ { id: a, address: \"127.0.0.1:9\" } ] } ]\n";

    #[tokio::test]
    async fn what_somebody_has_had_read_already_is_not_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let (path, token) = (directory.path().join("f.yaml"), directory.path().join("token"));
        let admin = format!("admin: {{ tokens: [ {{ name: t, role: read, file: {token:?} }} ] }}\n");
        let (loads, reading) = (Arc::new(Mutex::new(0)), path.clone());
        let counted = Arc::clone(&loads);
        let load = move || {
            *counted.lock().unwrap() += 1;
            ringway_config::load_file_alone(&reading)
        };
        let (control, _receivers) = testing::control(Source::Joined {
            load: Box::new(load),
            report: Box::new(|_| {}),
            agreed_at: Box::new(|| None),
            before: Box::new(Vec::new),
        });
        let loaded = |step: &dyn Fn()| {
            let before = *loads.lock().unwrap();
            step();
            *loads.lock().unwrap() - before
        };
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let follow = || control.follow(&path);
        std::fs::write(&token, "0123456789abcdef").unwrap();
        write(&format!("{admin}{SMALL}"));
        assert_eq!(loaded(&follow), 1, "nothing is in force");
        assert_eq!(loaded(&follow), 0);
        // Nothing that it means, but it is not what was read.
        write(&format!("{admin}{SMALL}# more\n"));
        assert_eq!((loaded(&follow), loaded(&follow)), (1, 0));
        assert_eq!(loaded(&|| drop(control.reload())), 1, "who asks for it gets it");
        // A file that it names.
        std::fs::write(&token, "fedcba9876543210").unwrap();
        assert_eq!((loaded(&follow), loaded(&follow)), (1, 0));
        // What is refused is read as often as it is looked at, and so is what ends the refusal.
        write("nonsense: 1");
        assert_eq!((loaded(&follow), loaded(&follow)), (1, 1));
        write(&format!("{admin}{SMALL}# more\n"));
        assert_eq!((loaded(&follow), loaded(&follow)), (1, 0));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(loaded(&follow), 1);
    }

    #[tokio::test]
    async fn a_proxy_without_a_file_refuses_to_reload() {
        let (control, _receivers) = testing::control(Source::Memory);
        assert!(matches!(control.reload().0, Err(ReloadError::NoFile)));
    }
}
