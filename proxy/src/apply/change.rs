//! Runtime changes: what somebody asks for is laid over the file's configuration, which is then prepared and committed as after a reload.

use super::control::Control;
use super::outcome::{Applied, ReloadError};
use super::overrides::{Author, BackendChange, Overrides, backend_of, hashes, service_of};
use super::prepare::Files;
use crate::ambient;
use crate::snapshot::journal::{Happening, percents};
use ringway_config::Diff;
use ringway_config::model::{Config, Service, Spread};
use ringway_ring::HOT_OWNERS_MAX;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Largest weight that a file may give.
const WEIGHT_MAX: u32 = 1600;
/// Longest time for which a key is spread.
const SPREAD_TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Between two attempts to take back what is over.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wish {
    Backend {
        service: String,
        backend: String,
        change: BackendChange,
        /// Also where nothing of the service takes traffic then.
        force: bool,
    },
    Spread {
        service: String,
        hash: u64,
        owners: u16,
        duration: Duration,
    },
    /// A key that somebody has spread is spread no longer.
    EndSpread {
        service: String,
        hash: u64,
    },
    /// All back to the file.
    Clear,
}

/// Why a runtime change is not made. Nothing has changed.
#[derive(Debug, Error)]
pub(crate) enum ChangeError {
    #[error("there is no service {name:?}; there are {}", known.join(", "))]
    NoService { name: String, known: Vec<String> },
    #[error("service {service:?} has no backend {name:?}; it has {}", known.join(", "))]
    NoBackend { service: String, name: String, known: Vec<String> },
    #[error("the control plane says what backends do, here and on all other proxies: {0}")]
    Fleet(String),
    #[error("{0}")]
    Absurd(String),
    #[error("{}: to do it all the same, ask with `\"force\": true` (`--force`)", nothing_left(service))]
    NothingLeft { service: String },
    #[error(transparent)]
    Refused(#[from] ReloadError),
}

impl Control {
    /// Does what is asked for. Takes as long as a build does.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub(crate) fn change(self: &Arc<Self>, wish: &Wish, author: &Author) -> Result<Applied, ChangeError> {
        if self.topology.get().is_some() {
            return Err(ChangeError::Fleet(self.place_of(wish)));
        }
        let changing = self.changing();
        let _takes_memory = self.shared.overload.changes.begin();
        let (file, before) = self.file();
        let mut overrides = before.clone();
        self.take_in(&file, &mut overrides, wish, author)?;
        let warnings = self.without_traffic(&file, &overrides, wish)?;
        let applied = self.put_over(file, overrides, Files::Stay, &changing)?;
        drop(changing);
        let by = author.by.as_str();
        tracing::info!(by, wish = %wish.text(), generation = applied.generation, "changed at run time: after a restart, what the file says holds");
        self.watch_spreads();
        let (service, backend) = match wish {
            Wish::Backend { service, backend, .. } => (service.clone(), backend.clone()),
            Wish::Spread { service, .. } | Wish::EndSpread { service, .. } => (service.clone(), String::new()),
            Wish::Clear => Default::default(),
        };
        self.shared.journal.note(&Happening {
            kind: "change",
            to: "changed",
            service,
            backend,
            text: wish.text(),
            by: by.to_owned(),
            changes: applied.diff.changes.clone(),
            moved: percents(&applied.moved),
        });
        Ok(Applied { warnings, ..applied })
    }

    /// What does the same for a whole fleet.
    fn place_of(&self, wish: &Wish) -> String {
        let Wish::Backend { service, backend, change, .. } = wish else {
            return "there, keys are spread by `hot_keys` of the service".into();
        };
        let origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match origin {
            Some(origin) if origin.is_registered(service, backend) => command_of(service, backend, change),
            Some(origin) => match origin.text_of(service) {
                Some(text) => {
                    format!(
                        "{backend:?} is not registered, but stands in {text}: write it there (`ringway control apply`)"
                    )
                }
                None => format!("{backend:?} is not registered: write it into this proxy's own file"),
            },
            None => command_of(service, backend, change),
        }
    }

    /// What is to be said where nothing of the service takes traffic after it. Whoever takes the last one out has to mean it.
    fn without_traffic(&self, file: &Config, overrides: &Overrides, wish: &Wish) -> Result<Vec<String>, ChangeError> {
        let Wish::Backend { service: name, force, .. } = wish else { return Ok(Vec::new()) };
        let takes = |config: &Config| {
            service_of(config, name)
                .is_some_and(|service| service.backends.iter().any(|backend| backend.weight > 0 && !backend.drain))
        };
        let mut laid = file.clone();
        overrides.lay_over(&mut laid);
        if takes(&laid) {
            return Ok(Vec::new());
        }
        if !force && takes(&self.current.load().config) {
            return Err(ChangeError::NothingLeft { service: name.clone() });
        }
        Ok(vec![nothing_left(name)])
    }

    fn take_in(
        &self,
        file: &Config,
        overrides: &mut Overrides,
        wish: &Wish,
        author: &Author,
    ) -> Result<(), ChangeError> {
        match wish {
            Wish::Clear => *overrides = Overrides::default(),
            Wish::Backend { service, backend, change, .. } => {
                let service = find(file, service)?;
                let backend = backend_of(service, backend).ok_or_else(|| ChangeError::NoBackend {
                    service: service.name.clone(),
                    name: backend.clone(),
                    known: some(service.backends.iter().map(|backend| backend.id.as_str())),
                })?;
                if let Some(weight) = change.weight.flatten().filter(|weight| *weight > WEIGHT_MAX) {
                    return Err(ChangeError::Absurd(format!(
                        "weight {weight} is more than {WEIGHT_MAX}; 100 is normal"
                    )));
                }
                overrides.change(&service.name, backend, change, author);
            }
            Wish::Spread { service, hash, owners, duration } => {
                let service = find(file, service)?;
                can_spread(service, *owners, *duration)?;
                let spread = Spread { hash: *hash, owners: *owners, until: ambient::now() + *duration };
                if !overrides.spread(&service.name, spread, author) {
                    return Err(ChangeError::Absurd("too many keys are spread already".into()));
                }
            }
            Wish::EndSpread { service, hash } => {
                let name = &find(file, service)?.name;
                if !overrides.end_spread(name, *hash) {
                    return Err(ChangeError::Absurd(format!(
                        "nobody has spread the key {hash:016x} of service {name:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The configuration in force without what is laid over it, and what is.
    pub(crate) fn file(&self) -> (Config, Overrides) {
        let over = self.over();
        (over.1.restore(&self.current.load().config), over.0.clone())
    }

    /// Puts a file's configuration into force with these laid over it.
    pub(super) fn put_over(
        &self,
        mut config: Config,
        mut overrides: Overrides,
        files: Files<'_>,
        _changing: &MutexGuard<'_, ()>,
    ) -> Result<Applied, ReloadError> {
        let gone = overrides.settle(&config, ambient::now());
        let overlaid = overrides.lay_over(&mut config);
        let overridden = overlaid.differs.clone();
        let applied = match self.prepare(config, files)? {
            Some(change) => self.commit(change),
            None => Applied {
                generation: self.current.load().generation,
                diff: Diff::default(),
                moved: Vec::new(),
                overridden: Vec::new(),
                warnings: Vec::new(),
            },
        };
        *self.over() = (overrides, overlaid);
        gone.iter().for_each(|gone| tracing::warn!("{gone}"));
        Ok(Applied { overridden, ..applied })
    }

    /// Takes back what is over, when it is. One task does: it ends where a later change begins another, or nothing is left.
    fn watch_spreads(self: &Arc<Self>) {
        let mut watch = self.spread_watch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = watch.take() {
            before.abort();
        }
        let control = Arc::clone(self);
        let task = self.runtime.spawn(async move {
            loop {
                let Some(end) = control.over().0.next_end() else { return };
                tokio::time::sleep_until(end.into()).await;
                if control.is_draining() {
                    return;
                }
                let expiring = Arc::clone(&control);
                match tokio::task::spawn_blocking(move || expiring.expire(ambient::now())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "a key that is spread no longer is still named in what is in force");
                        tokio::time::sleep(AGAIN_AFTER).await;
                    }
                    Err(_) => return,
                }
            }
        });
        *watch = Some(task.abort_handle());
    }

    fn expire(&self, now: Instant) -> Result<(), ReloadError> {
        let changing = self.changing();
        let (file, overrides) = self.file();
        if overrides.next_end().is_some_and(|end| end <= now) {
            self.put_over(file, overrides, Files::Stay, &changing)?;
        }
        Ok(())
    }
}

fn nothing_left(service: &str) -> String {
    format!("no backend of service {service:?} takes traffic then: all are drained or have no weight")
}

fn find<'c>(file: &'c Config, name: &str) -> Result<&'c Service, ChangeError> {
    service_of(file, name).ok_or_else(|| ChangeError::NoService {
        name: name.to_owned(),
        known: some(file.services.iter().map(|service| service.name.as_str())),
    })
}

/// The first of many names.
fn some<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Vec<String> {
    const NAMED_MAX: usize = 20;
    let more = names.len().saturating_sub(NAMED_MAX);
    let mut named: Vec<String> = names.take(NAMED_MAX).map(str::to_owned).collect();
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    named
}

fn can_spread(service: &Service, owners: u16, duration: Duration) -> Result<(), ChangeError> {
    let most = service.backends.len().min(HOT_OWNERS_MAX);
    if !hashes(service) {
        let (name, policy) = (&service.name, service.policy.name());
        return Err(ChangeError::Absurd(format!("service {name:?} has no keys: its policy is `{policy}`")));
    }
    if !(2..=most).contains(&usize::from(owners)) {
        return Err(ChangeError::Absurd(format!("{owners} owners: a key of this service has 2 to {most}")));
    }
    if duration.is_zero() || duration > SPREAD_TIME_MAX {
        return Err(ChangeError::Absurd("a key is spread for a second to seven days".into()));
    }
    Ok(())
}

impl Wish {
    /// For the log.
    fn text(&self) -> String {
        match self {
            Self::Backend { service, backend, change, .. } => {
                fn field<T: ToString>(name: &str, change: Option<Option<T>>) -> Option<String> {
                    change.map(|value| match value {
                        Some(value) => format!(" {name}={}", value.to_string()),
                        None => format!(" {name}=as in the file"),
                    })
                }
                let fields = [
                    field("drain", change.drain),
                    field("maintenance", change.maintenance),
                    field("weight", change.weight),
                ];
                let fields: String = fields.into_iter().flatten().collect();
                format!("service {service:?}: backend {backend:?}:{fields}")
            }
            Self::Spread { service, hash, owners, duration } => {
                format!("service {service:?}: the key {hash:016x} is spread over {owners} backends for {duration:?}")
            }
            Self::EndSpread { service, hash } => {
                format!("service {service:?}: the key {hash:016x} is spread by hand no longer")
            }
            Self::Clear => "all is as in the file".into(),
        }
    }
}

/// What does the same to a backend that is registered.
fn command_of(service: &str, backend: &str, change: &BackendChange) -> String {
    let verb = match change {
        BackendChange { maintenance: Some(Some(true)), .. } => "maintenance".to_owned(),
        BackendChange { drain: Some(Some(true)), .. } => "drain".to_owned(),
        BackendChange { weight: Some(_), .. } => "weight".to_owned(),
        _ => "ready".to_owned(),
    };
    let weight = change.weight.flatten().map(|weight| format!(" {weight}")).unwrap_or_default();
    format!("`ringway control backend {verb} {service} {backend}{weight}`")
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::super::testing;
    use super::*;
    use std::sync::Mutex;
    use std::time::SystemTime;

    const FILE: &str = "listeners: [ { name: l, address: \"127.0.0.1:0\", service: s } ]\n\
                        services: [ { name: s, balance: { hash_key: [ { path: {} } ], hot_keys: { enabled: false } }, \
                        backends: [ { id: a, address: \"127.0.0.1:9\" }, \
                        { id: b, address: \"127.0.0.1:8\" } ] } ]\n";

    fn control(texts: &Arc<Mutex<String>>) -> Arc<Control> {
        let texts = Arc::clone(texts);
        let load = move || ringway_config::load_str("f.yaml", &texts.lock().unwrap(), &|_| None);
        let (control, _) = testing::control(Source::Joined {
            load: Box::new(load),
            report: Box::new(|_| {}),
            agreed_at: Box::new(|| None),
            before: Box::new(Vec::new),
        });
        control.reload().0.unwrap();
        Arc::new(control)
    }

    fn author() -> Author {
        Author { by: "ops".into(), at: SystemTime::UNIX_EPOCH }
    }

    fn weight(backend: &str, weight: u32) -> Wish {
        let change = BackendChange { weight: Some(Some(weight)), ..BackendChange::default() };
        Wish::Backend { service: "s".into(), backend: backend.into(), change, force: false }
    }

    fn weights(control: &Control) -> Vec<u32> {
        control.current.load().config.services[0].backends.iter().map(|backend| backend.weight).collect()
    }

    #[tokio::test]
    async fn a_change_outlives_reloads_and_its_report_says_what_the_file_has() {
        let texts = Arc::new(Mutex::new(FILE.to_owned()));
        let control = control(&texts);
        let applied = control.change(&weight("a", 7), &author()).unwrap();
        assert_eq!((applied.generation, weights(&control)), (2, vec![7, 100]));
        assert!(applied.diff.changes.iter().any(|line| line.contains("weight 100 -> 7")) && applied.moved.len() == 1);
        // The file says something else of it: it stands, and that is said.
        *texts.lock().unwrap() = FILE.replace("127.0.0.1:9\"", "127.0.0.1:9\", weight: 50").replace(":8", ":7");
        let reloaded = control.reload().0.unwrap();
        assert_eq!(weights(&control), [7, 100]);
        assert_eq!(reloaded.overridden, ["service \"s\": backend \"a\": weight is 7 (by ops), not 50 as in the file"]);
        // A file that is refused takes nothing away.
        *texts.lock().unwrap() = "listeners: 3\n".into();
        assert!(control.reload().0.is_err());
        assert_eq!(weights(&control), [7, 100]);
        control.change(&Wish::Clear, &author()).unwrap();
        assert_eq!((weights(&control), control.file().1), (vec![50, 100], Overrides::default()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn changes_at_once_all_hold_reloads_between_them_or_not() {
        let texts = Arc::new(Mutex::new(FILE.to_owned()));
        let control = control(&texts);
        let at_once = |wish: Option<Wish>| {
            let control = Arc::clone(&control);
            tokio::task::spawn_blocking(move || match wish {
                Some(wish) => control.change(&wish, &author()).map(drop).map_err(|error| error.to_string()),
                None => control.reload().0.map(drop).map_err(|error| error.to_string()),
            })
        };
        for round in 1..10 {
            let all = [
                at_once(Some(weight("a", round))),
                at_once(None),
                at_once(Some(weight("b", round + 100))),
                at_once(None),
            ];
            for one in all {
                one.await.unwrap().unwrap();
            }
            assert_eq!(weights(&control), [round, round + 100]);
        }
        control.begin_end();
        let late = control.change(&weight("a", 50), &author());
        assert!(matches!(late, Err(ChangeError::Refused(ReloadError::Draining))), "{late:?}");
        assert_eq!(weights(&control), [9, 109]);
    }

    #[tokio::test]
    async fn a_file_that_is_broken_just_now_stands_in_nobodys_way_and_what_was_read_of_it_stays() {
        let directory = tempfile::tempdir().unwrap();
        let [certificate, key] = ["a.pem", "a.key"].map(|name| directory.path().join(name));
        let pair = rcgen::KeyPair::generate().unwrap();
        let signed = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&pair).unwrap();
        std::fs::write(&certificate, signed.pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        let tls = format!("tls: {{ certificates: [ {{ certificate: {certificate:?}, key: {key:?} }} ] }}");
        let text = FILE.replace("service: s }", &format!("service: s, {tls} }}"));
        let control = control(&Arc::new(Mutex::new(text)));
        let before = control.current.load();
        std::fs::write(&certificate, "garbage").unwrap();
        assert_eq!(control.change(&weight("a", 7), &author()).unwrap().generation, 2);
        let after = control.current.load();
        assert!(Arc::ptr_eq(after.tls[0].as_ref().unwrap(), before.tls[0].as_ref().unwrap()));
        assert_eq!(after.files_digest, before.files_digest, "the next reload still sees that a file has changed");
        assert!(control.reload().0.is_err());
        assert_eq!(weights(&control), [7, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_key_is_spread_for_its_own_time() {
        let control = control(&Arc::new(Mutex::new(FILE.to_owned())));
        for (hash, seconds) in [(1, 60), (2, 600), (3, 60)] {
            let duration = Duration::from_secs(seconds);
            control.change(&Wish::Spread { service: "s".into(), hash, owners: 2, duration }, &author()).unwrap();
        }
        let spread = || {
            let snapshot = control.current.load();
            snapshot.config.services[0].spread.iter().map(|spread| spread.hash).collect::<Vec<_>>()
        };
        let began = ambient::now();
        for (until, left) in [(59, vec![1, 2, 3]), (62, vec![2]), (599, vec![2]), (602, vec![])] {
            tokio::time::sleep_until((began + Duration::from_secs(until)).into()).await;
            assert_eq!(spread(), left, "after {until} s");
        }
        let of = |hash| (Wish::EndSpread { service: "s".into(), hash }, Duration::from_secs(60));
        for hash in [4, 5] {
            let (_, duration) = of(hash);
            control.change(&Wish::Spread { service: "s".into(), hash, owners: 2, duration }, &author()).unwrap();
        }
        control.change(&of(4).0, &author()).unwrap();
        assert_eq!(spread(), [5], "one is taken back before its time, and no other");
        control.begin_end();
        assert!(control.spread_watch.lock().unwrap().is_none());
    }

    #[tokio::test]
    async fn the_last_backend_is_taken_out_by_who_means_it_and_is_told() {
        let control = control(&Arc::new(Mutex::new(FILE.to_owned())));
        let drain = |backend: &str, force| {
            let change = BackendChange { drain: Some(Some(true)), ..BackendChange::default() };
            Wish::Backend { service: "s".into(), backend: backend.into(), change, force }
        };
        assert_eq!(control.change(&drain("a", false), &author()).unwrap().warnings, [""; 0]);
        for wish in [drain("b", false), weight("b", 0)] {
            let refused = control.change(&wish, &author());
            assert!(matches!(refused, Err(ChangeError::NothingLeft { .. })), "{refused:?}");
        }
        assert!(!control.current.load().config.services[0].backends[1].drain);
        let applied = control.change(&drain("b", true), &author()).unwrap();
        assert!(
            applied.warnings.len() == 1 && applied.warnings[0].contains("no backend of service \"s\""),
            "{applied:?}"
        );
        // What changes nothing of that is done, and said again.
        assert_eq!(control.change(&weight("a", 7), &author()).unwrap().warnings.len(), 1);
    }

    #[tokio::test]
    async fn what_makes_no_sense_changes_nothing_and_says_what_would() {
        let control = control(&Arc::new(Mutex::new(FILE.to_owned())));
        let spread = |owners, seconds| Wish::Spread {
            service: "s".into(),
            hash: 7,
            owners,
            duration: Duration::from_secs(seconds),
        };
        let nowhere =
            Wish::Backend { service: "t".into(), backend: "a".into(), change: BackendChange::default(), force: false };
        for (wish, said) in [
            (nowhere, "there is no service \"t\"; there are s"),
            (weight("c", 1), "service \"s\" has no backend \"c\"; it has a, b"),
            (weight("a", 1601), "weight 1601 is more than 1600"),
            (spread(1, 1), "a key of this service has 2 to 2"),
            (spread(3, 1), "a key of this service has 2 to 2"),
            (spread(2, 0), "a second to seven days"),
            (spread(2, 700_000), "a second to seven days"),
            (Wish::EndSpread { service: "s".into(), hash: 7 }, "nobody has spread the key 0000000000000007"),
        ] {
            let refused = control.change(&wish, &author()).unwrap_err().to_string();
            assert!(refused.contains(said), "{refused}");
        }
        assert_eq!((control.current.load().generation, control.file().1), (1, Overrides::default()));
        control.show_topology(Box::new(Default::default));
        let drain = BackendChange { drain: Some(Some(true)), ..BackendChange::default() };
        let wish = Wish::Backend { service: "s".into(), backend: "a".into(), change: drain, force: false };
        let refused = control.change(&wish, &author()).unwrap_err().to_string();
        assert!(refused.contains("\"a\" is not registered: write it into this proxy's own file"), "{refused}");
    }

    #[tokio::test]
    async fn a_spread_key_is_taken_back_when_its_time_is_over() {
        let control = control(&Arc::new(Mutex::new(FILE.to_owned())));
        let duration = Duration::from_millis(300);
        control.change(&Wish::Spread { service: "s".into(), hash: 7, owners: 2, duration }, &author()).unwrap();
        let spread = || control.current.load().config.services[0].spread.len();
        assert_eq!(spread(), 1);
        while spread() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(control.current.load().config.services[0].hot_keys.is_none());
    }
}
