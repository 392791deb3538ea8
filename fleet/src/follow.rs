//! A proxy in a fleet: its file and the control plane's topology are one configuration, and every change of either is a
//! reload. The control plane is never on the way of a request: what it says is applied, or it is not.

use crate::course::{self, Course};
use crate::loads;
use crate::reason::{first_error, reason};
use crate::rollout::{self, Candidate, goes_first};
use crate::services::Services;
use crate::standing::HANDOFF_MAX;
use crate::standing::{Standing, Target};
use anyhow::Context;
use ringway_config::model::Config;
use ringway_config::{Diagnostics, FleetConfig, Joiner, Loaded};
use ringway_control::client::Client;
use ringway_control::state::Vote;
use ringway_control::watch::view::View;
use ringway_control::watch::wire::Heartbeat;
use ringway_proxy::{Handle, Published, ReloadError, Report, Source, TopologyStatus};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// What proxy, file and control plane have in common.
pub struct Fleet {
    file: PathBuf,
    client: Client,
    joiner: Joiner,
    services: Services,
    standing: Mutex<Standing>,
    course: Mutex<Course>,
}

/// How long a proxy that has nothing stored waits for the control plane before it starts with its file alone.
const FIRST_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// The name of a proxy that has none in its file: of its host, and of what no other proxy there has: the port of its admin listener or,
/// without one, its directory.
fn own_name(config: &Config, directory: &Path) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let plain: String = host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    match config.admin.as_ref().and_then(|admin| admin.address) {
        Some(address) => format!("{plain}:{}", address.port()),
        None => {
            let whole = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
            format!("{plain}:{:08x}", xxhash_rust::xxh3::xxh3_64(whole.as_os_str().as_encoded_bytes()) as u32)
        }
    }
}

impl Fleet {
    /// For a file with a `control` section. The last good topology is taken from disk.
    ///
    /// # Errors
    /// Settings of the control plane that are of no use.
    pub fn new(file: PathBuf, config: &Config) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(control) = config
            .control
            .as_ref()
            .filter(|control| !control.members.is_empty() || control.embedded || control.etcd.is_some())
        else {
            return Ok(None);
        };
        let name = control.proxy.clone().unwrap_or_else(|| own_name(config, &control.directory));
        let client = Client::new(control, name).context("control plane")?;
        let (joiner, services, standing, course) = <_>::default();
        let fleet = Self { file, client, joiner, services, standing, course };
        if let Some(view) = client_view(&fleet.client) {
            fleet.set_target(&view);
        }
        Ok(Some(Arc::new(fleet)))
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, this is to be in force, with the change of a rollout in which this proxy goes first.
    fn set_target(&self, view: &View) -> Arc<Target> {
        let name = self.client.name();
        let canary = goes_first(view, name);
        let view = view.in_force(name);
        if let Err(error) = self.client.cache().place_certificates(&view) {
            tracing::error!(%error, "the fleet's certificates cannot be written");
        }
        let config = Arc::new(self.fleet_config(&view));
        let named = self.services.of(&config);
        let target = Arc::new(Target { config, named, view: Some(Arc::new(view)), canary });
        self.standing().set_target(Arc::clone(&target));
        target
    }

    fn fleet_config(&self, view: &View) -> FleetConfig {
        view.fleet_config_of(&self.client.place(), |name| self.client.cache().certificate(view, name))
    }

    /// File and topology, joined.
    fn load(&self) -> Result<Loaded, Diagnostics> {
        let target = self.standing().join();
        self.joiner.load_file(&self.file, &target.config).and_then(ringway_proxy::verified)
    }

    /// What has come of the last [`Fleet::load`], whoever asked for it: the control plane, a signal, a change of the file.
    fn handle_loaded(&self, result: Result<BTreeMap<String, u64>, &ReloadError>) {
        match result {
            Ok(rings) => self.standing().handle_applied(rings),
            Err(error) => self.standing().handle_refused(|| reason(error)),
        }
        // Somebody may wait to hear of it.
        self.client.heartbeat_now();
    }

    /// The first configuration. A topology from disk that does not fit the file any more is left out: the file alone
    /// serves until the control plane has said something better.
    pub async fn first(&self, alone: Loaded) -> Loaded {
        if client_view(&self.client).is_none() {
            // Nothing is stored: half a configuration for a moment would be answers of 503 for a moment.
            let mut view = self.client.view();
            let said = view.wait_for(Option::is_some);
            tokio::select! {
                () = self.client.follow() => {}
                _ = said => {}
                () = tokio::time::sleep(FIRST_WAIT) => {
                    tracing::warn!("the control plane does not answer, and nothing is stored: the file alone is in force");
                }
            }
            if let Some(view) = client_view(&self.client) {
                self.set_target(&view);
            }
        }
        match self.load() {
            Ok(loaded) => {
                self.standing().begin();
                loaded
            }
            Err(diagnostics) => {
                tracing::error!(%diagnostics, "the stored topology does not fit the file: the file alone is in force");
                self.standing().begin_alone(first_error(&diagnostics));
                alone
            }
        }
    }

    /// The topology as it is known.
    pub fn view(&self) -> tokio::sync::watch::Receiver<Option<Arc<View>>> {
        self.client.view()
    }

    /// Where the proxy reads its configuration from.
    pub fn source(self: &Arc<Self>) -> Source {
        let (loads, hears, knows) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        let remembers = Arc::clone(self);
        Source::Joined {
            load: Box::new(move || loads.load()),
            report: Box::new(move |result| hears.handle_loaded(result)),
            agreed_at: Box::new(move || knows.standing().agreed_at()),
            before: Box::new(move || remembers.before()),
        }
    }

    /// What had been agreed on before what is in force, newest first, where that is recent and stored, and when each gave way: as far back as keys
    /// are handed over.
    fn before(&self) -> Vec<(Config, SystemTime)> {
        let now = SystemTime::now();
        let Some((view, agreed_at)) = self.standing().recent(now) else { return Vec::new() };
        let mut found = Vec::new();
        let mut longest = HANDOFF_MAX;
        for (number, (before, at)) in self.client.cache().load_before(&view).into_iter().enumerate() {
            let at = if number == 0 { agreed_at } else { at };
            if now.duration_since(at).is_ok_and(|age| age >= longest) {
                break;
            }
            let before = before.in_force(self.client.name());
            let loaded = Joiner::default().load_file(&self.file, &Arc::new(self.fleet_config(&before)));
            let Ok(loaded) = loaded else { break };
            let windows = loaded.config.services.iter().filter_map(|service| service.handoff.as_ref());
            longest = windows.map(|handoff| handoff.window).max().unwrap_or_default();
            found.push((loaded.config, at));
        }
        found
    }

    /// For the status and the metrics.
    pub fn status(&self) -> TopologyStatus {
        let heard = self.client.standing();
        let standing = self.standing();
        let mut status = TopologyStatus {
            source: heard.source,
            proxy: self.client.name().to_owned(),
            age: heard.age,
            member: heard.member,
            error: heard.error,
            // What is no topology at all is the newest that was said.
            stuck: heard.refused.or_else(|| standing.stuck().cloned()),
            canary: standing.applied().canary,
            ..TopologyStatus::default()
        };
        if let Some(view) = &standing.applied().view {
            status.cluster = view.cluster.clone();
            (status.epoch, status.revision) = (view.epoch, view.revision);
            status.digest = view.digest.to_string();
        }
        status.published = client_view(&self.client).map(|view| Published {
            epoch: view.epoch,
            revision: view.revision,
            digest: view.digest.to_string(),
        });
        status
    }

    /// Follows the control plane. Never returns.
    pub async fn run(self: &Arc<Self>, proxy: &Handle) {
        let first = proxy.report().rings;
        self.standing().note_first_rings(first);
        let mut view = self.client.view();
        let apply = async {
            loop {
                let now = view.borrow_and_update().clone();
                if let Some(now) = now {
                    // One at a time, and the newest next: what is followed and reported meanwhile does not wait for it.
                    let (fleet, proxy) = (Arc::clone(self), proxy.clone());
                    let built = tokio::task::spawn_blocking(move || fleet.apply(&proxy, &now)).await;
                    if let Err(error) = built {
                        tracing::error!(%error, "the build of a topology has ended before its time");
                        self.standing()
                            .handle_stuck("the build has ended before its time: see this proxy's log".into());
                    }
                    // Somebody may wait to hear of it.
                    self.client.heartbeat_now();
                }
                if view.changed().await.is_err() {
                    return std::future::pending::<()>().await;
                }
            }
        };
        let report_loads = self.client.report_loads(|wanted| {
            let revision = self.standing().applied().view.as_ref().map_or(0, |view| view.revision);
            loads::reports(proxy, revision, wanted)
        });
        let mut tables = self.client.loads();
        let obey = async {
            loop {
                let now = Arc::clone(&tables.borrow_and_update());
                loads::offer(proxy, &now);
                if tables.changed().await.is_err() {
                    return std::future::pending::<()>().await;
                }
            }
        };
        let report = self.client.report(|| self.heartbeat(proxy));
        tokio::join!(self.client.follow(), report, apply, report_loads, obey);
    }

    /// Says that this process ends, in order. The control plane may be away: nobody waits long for it.
    pub async fn sign_off(&self) {
        self.client.sign_off().await;
    }

    /// Puts into force what the fleet has agreed on, and votes on what it has not yet.
    fn apply(&self, proxy: &Handle, view: &Arc<View>) {
        let target = self.set_target(view);
        // What comes of it is logged and told inside. What holds for some only is not what a proxy should start from.
        if proxy.reload_blocking().is_ok()
            && target.canary.is_none()
            && let Err(error) = self.client.cache().store(view)
        {
            tracing::error!(%error, "the topology cannot be stored: without the control plane, a restart has an older one");
        }
        let canary = self.standing().applied().canary;
        let steps = self.course.lock().unwrap_or_else(PoisonError::into_inner).handle_view(view, canary);
        steps.into_iter().for_each(|step| proxy.note_rollout(step.to, step.text, step.keys));
        self.vote(proxy, view);
    }

    fn vote(&self, proxy: &Handle, view: &View) {
        let (Some(rollout), Some(candidate)) = (&view.rollout, view.candidate()) else {
            return self.standing().set_vote(None);
        };
        if !self.standing().is_unvoted(rollout.id) {
            return;
        }
        let vote = self.prepare(proxy, &candidate);
        match &vote.refusal {
            None => tracing::info!(rollout = rollout.id, moved_percent = f64::from(vote.moved_ppm) / 1e4, "prepared"),
            Some(why) => tracing::warn!(rollout = rollout.id, why, "a rollout cannot be put into force here: refused"),
        }
        let step = course::voted(rollout, &vote);
        proxy.note_rollout(step.to, step.text, step.keys);
        self.standing().set_vote(Some((rollout.id, vote)));
    }

    /// Builds a candidate, without putting it into force, and says what there is to say about it.
    fn prepare(&self, proxy: &Handle, candidate: &View) -> Vote {
        let certificates = self.client.cache().place_certificates(candidate);
        let fleet = Arc::new(self.fleet_config(candidate));
        let built = certificates.map_err(|error| format!("certificates: {error}")).and_then(|()| {
            let loaded = ringway_config::load_file_with(&self.file, &fleet).and_then(ringway_proxy::verified);
            let loaded = loaded.map_err(|error| first_error(&error))?;
            proxy.prepare(loaded.config).map_err(|error| reason(&error))
        });
        let named = self.services.of(&fleet);
        let built = built.as_ref().map_err(Clone::clone);
        rollout::vote(
            candidate,
            built.map(|built| Candidate { rings: &built.rings, named: &named, moved: built.moved }),
        )
    }

    fn heartbeat(&self, proxy: &Handle) -> Heartbeat {
        heartbeat(&self.standing, proxy.report(), || self.client.standing().refused, self.client.instance())
    }
}

/// What is in force and what was refused are told of one moment: `refused` is asked under the lock, or a refusal of before would be told
/// beside the topology that came after it.
fn heartbeat(
    standing: &Mutex<Standing>,
    report: Report,
    refused: impl FnOnce() -> Option<String>,
    instance: u64,
) -> Heartbeat {
    let standing = standing.lock().unwrap_or_else(PoisonError::into_inner);
    standing.heartbeat(report, refused(), instance)
}

fn client_view(client: &Client) -> Option<Arc<View>> {
    client.view().borrow().clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::TryLockError;

    #[test]
    fn proxies_of_one_host_have_names_of_their_own_with_and_without_a_port() {
        let of = |admin: &str, directory: &str| {
            let file = format!(
                "{admin}listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\n\
                 services: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
            );
            let loaded = ringway_config::load_str("f.yaml", &file, &|_| None).expect("a good file");
            own_name(&loaded.config, Path::new(directory))
        };
        let with_port = of("admin: { address: \"127.0.0.1:9902\" }\n", "a");
        assert!(with_port.ends_with(":9902"), "{with_port}");
        let socket = "admin: { socket: { path: /run/ringway/admin.sock } }\n";
        assert_ne!(of(socket, "a"), of(socket, "b"));
        assert_eq!(of(socket, "a"), of("admin: { enabled: false }\n", "a"));
    }

    #[test]
    fn a_heartbeat_asks_what_was_refused_while_nothing_can_come_into_force() {
        let standing = Mutex::new(Standing::default());
        let report = Report { generation: 1, rings: BTreeMap::new(), down: Vec::new(), requests: 0, failed: 0 };
        let refused = || {
            // Whoever puts a topology into force needs this lock.
            assert!(matches!(standing.try_lock(), Err(TryLockError::WouldBlock)));
            Some("no topology".to_owned())
        };
        assert_eq!(heartbeat(&standing, report, refused, 9).stuck.as_deref(), Some("no topology"));
        assert!(standing.try_lock().is_ok());
    }
}
