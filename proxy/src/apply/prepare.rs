//! Everything of a change that may fail. Nothing that serves is touched: a change that is dropped here has not been.

use super::access_log::{self, NewLog};
use super::control::{Control, State};
use super::exporter::{self, NewExporter};
use super::listeners::NewSockets;
use super::outcome::ReloadError;
use crate::ambient;
use crate::net::tls;
use crate::snapshot::Snapshot;
use ringway_config::model::Config;
use ringway_config::{Diagnostics, Diff, Origin, diff};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A change that is ready: what is left to do cannot fail.
pub(super) struct Change<'c> {
    /// Held from the last test of what may be bound until the change is in force.
    pub(super) state: MutexGuard<'c, State>,
    pub(super) old: Arc<Snapshot>,
    pub(super) new: Snapshot,
    pub(super) diff: Diff,
    pub(super) sockets: NewSockets,
    /// `None`: the access log stays as it is.
    pub(super) access: Option<NewLog>,
    /// `None`: the exporter of spans stays as it is.
    pub(super) exporter: Option<NewExporter>,
    /// How long ago the change was made: elsewhere, if it is a fleet's.
    pub(super) age: Duration,
    pub(super) now: Instant,
}

/// What becomes of the files that a configuration names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Files<'o> {
    /// They are read. With what the configuration was read from itself, if it was from texts.
    Read(Option<&'o Origin>),
    /// What was read of them stays in force: something else is changed.
    Stay,
}

impl Control {
    /// Gets a change ready. `None`: the configuration is in force already.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub(super) fn prepare(&self, mut config: Config, files: Files<'_>) -> Result<Option<Change<'_>>, ReloadError> {
        if self.is_draining() {
            return Err(ReloadError::Draining);
        }
        let old = self.current.load();
        let is_first = old.generation == 0;
        let same_files = files == Files::Stay || tls::digest(&config) == old.files_digest;
        // A shadow is read from a file of its own, which may have changed where this one has not.
        if *old.config == config && !is_first && (config.shadow.is_none() || files == Files::Stay) && same_files {
            return Ok(None);
        }
        if !is_first {
            memory_suffices(&old.config, &config, self.shared.overload.changes.resident())?;
        }
        config.share(&old.config);
        let mut diff = self.differences(&old.config, &config, files);
        if !is_first && !same_files {
            diff.changes.push("files changed".into());
        }
        let now = ambient::now();
        let config = Arc::new(config);
        let mut new = match files {
            Files::Read(_) => self.registry.prepare(config, old.generation + 1, self.workers, now)?,
            Files::Stay => self.registry.prepare_changed(config, &old, self.workers, now)?,
        };
        if *old.config == *new.config && !is_first && same_shadow(&old, &new) && same_files {
            return Ok(None);
        }
        // Where it listens does not change before a restart, so that somebody has to say who may ask.
        new.admin = new.admin.or_else(|| old.admin.clone());
        let section = &new.config.access_log;
        let access = if is_first || old.config.access_log != *section {
            Some(access_log::start(section, &self.metrics.counters)?)
        } else {
            None
        };
        let section = new.config.tracing.as_ref();
        // Its certificates are read when it starts.
        let is_same = exporter::is_same(old.config.tracing.as_ref(), section)
            && (same_files || section.is_none_or(|section| section.tls.is_none()));
        let exporter =
            if is_first || !is_same { Some(exporter::start(section, &self.metrics.counters)?) } else { None };
        let state = self.state();
        // It may have begun while this was built.
        if self.draining.load(Relaxed) {
            return Err(ReloadError::Draining);
        }
        let sockets = state.listeners.bind_new(&new.config, self.workers).map_err(ReloadError::Bind)?;
        // The last step that may fail, because it is the first that clients see.
        sockets.listen(&new.config).map_err(ReloadError::Bind)?;
        let age = match files {
            Files::Read(Some(_)) => self.source.age(),
            Files::Read(None) | Files::Stay => Duration::ZERO,
        };
        Ok(Some(Change { state, old, new, diff, sockets, access, exporter, age, now }))
    }

    /// What is different: by field, where the texts of both are known.
    fn differences(&self, old: &Config, new: &Config, files: Files<'_>) -> Diff {
        let before = self.origin.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (before, files) {
            (Some(before), Files::Read(Some(origin))) => {
                ringway_config::changes((old, &before), (new, origin), &|name| std::env::var(name).ok())
            }
            _ => diff(old, new),
        }
    }

    /// Whether the listeners that are not there yet could be bound.
    pub(crate) fn try_bind(&self, config: &Config) -> Result<(), ReloadError> {
        self.state().listeners.bind_new(config, self.workers).map(drop).map_err(ReloadError::Bind)
    }
}

/// A limit that is less than what the process has, before this change takes its own, would turn all clients away.
fn memory_suffices(old: &Config, new: &Config, resident: Option<u64>) -> Result<(), ReloadError> {
    let limit = |config: &Config| config.overload.as_ref().and_then(|overload| overload.memory_bytes_max);
    let (Some(overload), Some(most), Some(resident)) = (&new.overload, limit(new), resident) else { return Ok(()) };
    if limit(old) == Some(most) || resident < most {
        return Ok(());
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let message = format!(
        "`memory_max` of {:.1} MiB is less than the {:.1} MiB that this process has now: it would turn all clients away",
        mib(most),
        mib(resident)
    );
    let help =
        format!("write at least {}MiB, or remove it: then it is the limit of the cgroup", resident.div_ceil(1 << 19));
    let finding = overload.memory_site.error("out_of_range", message, &help);
    Err(ReloadError::Invalid(Diagnostics(vec![finding])))
}

fn same_shadow(old: &Snapshot, new: &Snapshot) -> bool {
    match (&old.shadow, &new.shadow) {
        (Some(old), Some(new)) => old.config == new.config,
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ports::free_port;
    use super::super::source::Source;
    use super::super::testing;
    use super::*;
    use std::net::TcpListener;

    /// A configuration with these listeners' ports, this second service and this access log.
    fn config(ports: &[u16], rest: &str) -> Config {
        let listener = |port: &u16| format!("{{ name: l{port}, address: \"127.0.0.1:{port}\", service: s }}");
        let listeners: Vec<String> = ports.iter().map(listener).collect();
        testing::config(&format!(
            "listeners: [ {} ]\nservices:\n  - {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }}\n{rest}",
            listeners.join(", ")
        ))
    }

    /// What there is to see from outside of what is in force.
    fn seen(control: &Control, config: &Config) -> String {
        let (state, snapshot) = (control.state(), control.current.load());
        let logs = control.shared.access.load().is_some();
        let bound = state.listeners.addresses(config);
        format!("{} {} {logs} {bound:?}", snapshot.generation, snapshot.services.len())
    }

    #[tokio::test]
    async fn a_change_that_fails_at_any_step_has_touched_nothing() {
        let (control, mut receivers) = testing::control(Source::Memory);
        let (first, second) = (free_port(), free_port());
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let held = taken.local_addr().unwrap().port();
        let valid = config(&[first], "access_log: { format: off }\n");
        control.apply(valid.clone()).unwrap();
        let before = seen(&control, &valid);
        receivers.iter_mut().for_each(|receiver| while receiver.try_recv().is_ok() {});
        let missing = "    tls: { ca: /nowhere/at/all.pem }\n    backends: [ { id: a, address: \"127.0.0.1:9\" } ]\n";
        for (wrong, step) in [
            (config(&[first, second], &format!("  - name: t\n{missing}")), "snapshot"),
            (config(&[first, second], "access_log: { format: json, target: /nowhere/at/all }\n"), "access log"),
            (
                config(
                    &[first, second],
                    "tracing: { endpoint: \"https://127.0.0.1:1\", tls: { ca: /nowhere/at/all.pem } }\n",
                ),
                "exporter",
            ),
            (config(&[first, second, held], ""), "bind"),
        ] {
            let refused = control.apply(wrong).unwrap_err();
            let at = match &refused {
                ReloadError::Snapshot(_) => "snapshot",
                ReloadError::AccessLog { .. } => "access log",
                ReloadError::Tracing { .. } | ReloadError::Exporter(_) => "exporter",
                ReloadError::Bind(_) => "bind",
                ReloadError::Invalid(_) | ReloadError::NoFile | ReloadError::Draining => "elsewhere",
            };
            assert_eq!(at, step, "{refused}");
            assert_eq!(seen(&control, &valid), before, "{step}");
            assert!(receivers.iter_mut().all(|receiver| receiver.try_recv().is_err()), "{step}");
            TcpListener::bind(("127.0.0.1", second)).unwrap();
        }
        control.begin_end();
        assert!(matches!(control.apply(config(&[second], "")), Err(ReloadError::Draining)));
        assert_eq!(seen(&control, &valid), before);
    }

    #[tokio::test]
    async fn clients_can_connect_as_soon_as_a_change_is_ready() {
        let (control, _receivers) = testing::control(Source::Memory);
        let port = free_port();
        let change = control.prepare(config(&[port], ""), Files::Read(None)).unwrap().unwrap();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        drop(change);
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }

    #[tokio::test]
    async fn a_change_that_is_still_built_when_draining_begins_comes_too_late() {
        let (control, _receivers) = testing::control(Source::Memory);
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("access.log");
        let change = config(&[free_port()], &format!("access_log: {{ format: json, target: {log:?} }}\n"));
        let runtime = tokio::runtime::Handle::current();
        std::thread::scope(|scope| {
            // What is ready waits for this.
            let state = control.state();
            let applied = scope.spawn(|| {
                let _runtime = runtime.enter();
                control.apply(change)
            });
            while !log.exists() {
                std::thread::yield_now();
            }
            control.begin_end();
            drop(state);
            assert!(matches!(applied.join().unwrap(), Err(ReloadError::Draining)));
        });
        assert_eq!(control.current.load().generation, 0);
    }

    #[tokio::test]
    async fn a_change_that_is_prepared_and_dropped_has_not_been() {
        let (control, mut receivers) = testing::control(Source::Memory);
        let port = free_port();
        let change = config(&[port], "");
        let before = seen(&control, &change);
        drop(control.prepare(change.clone(), Files::Read(None)).unwrap().unwrap());
        assert_eq!(seen(&control, &change), before);
        assert!(receivers.iter_mut().all(|receiver| receiver.try_recv().is_err()));
        TcpListener::bind(("127.0.0.1", port)).unwrap();
        control.try_bind(&change).unwrap();
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }

    #[tokio::test]
    async fn what_is_in_force_already_is_no_change_unless_a_file_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let shadow = directory.path().join("shadow.yaml");
        let text = |backends: &str| {
            format!(
                "listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\n\
                 services: [ {{ name: s, backends: [ {backends} ] }} ]\n"
            )
        };
        let (one, two) = ("{ id: a, address: \"127.0.0.1:9\" }", ", { id: b, address: \"127.0.0.1:10\" }");
        std::fs::write(&shadow, text(one)).unwrap();
        let (control, _receivers) = testing::control(Source::Memory);
        let config = testing::config(&format!("{}shadow: {:?}\n", text(one), shadow));
        assert_eq!(control.apply(config.clone()).unwrap().generation, 1);
        let again = control.apply(config.clone()).unwrap();
        assert_eq!((again.generation, again.diff.is_empty()), (1, true));
        std::fs::write(&shadow, text(&format!("{one}{two}"))).unwrap();
        assert_eq!(control.apply(config).unwrap().generation, 2);
    }
}
