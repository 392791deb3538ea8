//! A proxy in a fleet: its file and the control plane's topology are one configuration, and every change of either is a
//! reload. The control plane is never on the way of a request: what it says is applied, or it is not.

use anyhow::Context;
use ringway_config::model::Config;
use ringway_config::{Diagnostics, FleetConfig, Loaded, Severity};
use ringway_control::client::Client;
use ringway_control::state::{Key, Object, Rollout, Vote};
use ringway_control::watch::view::View;
use ringway_control::watch::wire::Heartbeat;
use ringway_proxy::{Handle, ReloadError, Source, TopologyStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What proxy, file and control plane have in common.
pub(crate) struct Fleet {
    file: PathBuf,
    client: Client,
    state: Mutex<State>,
}

/// A topology as this proxy takes it.
#[derive(Default)]
struct Target {
    config: FleetConfig,
    /// Services that it has a say in.
    named: BTreeSet<String>,
    /// What it was made from; none where the file is alone.
    view: Option<Arc<View>>,
    /// The rollout whose change it has before it is for all.
    canary: Option<u64>,
}

#[derive(Default)]
struct State {
    /// What is to be in force: the newest that was said, good or not.
    target: Arc<Target>,
    /// What was joined with the file last: what a reload that is under way is about.
    joined: Arc<Target>,
    /// What is in force.
    applied: Arc<Target>,
    /// The digests of the rings that came into force with it: told with it, so that nobody sees one without the other.
    rings: Option<BTreeMap<String, u64>>,
    /// Why `target` is not in force.
    stuck: Option<String>,
    /// The last vote.
    vote: Option<(u64, Vote)>,
}

/// How long a proxy that has nothing stored waits for the control plane before it starts with its file alone.
const FIRST_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// The name of a proxy that has none in its file.
fn own_name(config: &Config) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let port = config.admin.as_ref().map_or(0, |admin| admin.address.port());
    let plain: String = host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{plain}:{port}")
}

impl Fleet {
    /// For a file with a `control` section. The last good topology is taken from disk.
    pub(crate) fn new(file: PathBuf, config: &Config) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(control) = config
            .control
            .as_ref()
            .filter(|control| !control.members.is_empty() || control.embedded || control.etcd.is_some())
        else {
            return Ok(None);
        };
        let name = control.proxy.clone().unwrap_or_else(|| own_name(config));
        let client = Client::new(control, name).context("control plane")?;
        let fleet = Self { file, client, state: Mutex::default() };
        if let Some(view) = client_view(&fleet.client) {
            fleet.aim(&view);
        }
        Ok(Some(Arc::new(fleet)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, this is to be in force, with the change of a rollout in which this proxy goes first.
    fn aim(&self, view: &View) -> Arc<Target> {
        let name = self.client.name();
        // Also where the change makes no difference any more: the leader waits for everyone that goes first.
        let goes_first = view.rollout.as_ref().filter(|rollout| Rollout::in_cohort(rollout.id, name, rollout.percent));
        let canary = goes_first.map(|rollout| rollout.id);
        let view = view.in_force(name);
        if let Err(error) = self.client.cache().place_certificates(&view) {
            tracing::error!(%error, "the fleet's certificates cannot be written");
        }
        let config = self.fleet_config(&view);
        let named = fleet_services(&config);
        let target = Arc::new(Target { config, named, view: Some(Arc::new(view)), canary });
        self.state().target = Arc::clone(&target);
        target
    }

    fn fleet_config(&self, view: &View) -> FleetConfig {
        view.fleet_config_of(&self.client.place(), |name| self.client.cache().certificate(view, name))
    }

    /// File and topology, joined.
    fn load(&self) -> Result<Loaded, Diagnostics> {
        let target = {
            let mut state = self.state();
            state.joined = Arc::clone(&state.target);
            Arc::clone(&state.joined)
        };
        ringway_config::load_file_with(&self.file, &target.config).and_then(ringway_proxy::verified)
    }

    /// What has come of the last [`Fleet::load`], whoever asked for it: the control plane, a signal, a change of the file.
    fn told(&self, result: Result<BTreeMap<String, u64>, &ReloadError>) {
        let mut state = self.state();
        match result {
            Ok(rings) => {
                state.applied = Arc::clone(&state.joined);
                state.rings = Some(rings);
                // The file alone says nothing about what did not fit it.
                if state.applied.view.is_some() {
                    state.stuck = None;
                }
            }
            // A file that is wrong takes away nothing of what is in force.
            Err(_) if Arc::ptr_eq(&state.joined, &state.applied) => {}
            Err(error) => state.stuck = Some(reason(error)),
        }
        drop(state);
        // Somebody may wait to hear of it.
        self.client.hurry();
    }

    /// The first configuration. A topology from disk that does not fit the file any more is left out: the file alone
    /// serves until the control plane has said something better.
    pub(crate) async fn first(&self, alone: Loaded) -> Loaded {
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
                self.aim(&view);
            }
        }
        match self.load() {
            Ok(loaded) => {
                let mut state = self.state();
                state.applied = Arc::clone(&state.joined);
                drop(state);
                loaded
            }
            Err(diagnostics) => {
                tracing::error!(%diagnostics, "the stored topology does not fit the file: the file alone is in force");
                let mut state = self.state();
                let none = Arc::<Target>::default();
                (state.target, state.joined, state.applied) = (Arc::clone(&none), Arc::clone(&none), none);
                state.stuck = Some(first_error(&diagnostics));
                alone
            }
        }
    }

    /// The topology as it is known.
    pub(crate) fn view(&self) -> tokio::sync::watch::Receiver<Option<Arc<View>>> {
        self.client.view()
    }

    /// Where the proxy reads its configuration from.
    pub(crate) fn source(self: &Arc<Self>) -> Source {
        let (loads, hears) = (Arc::clone(self), Arc::clone(self));
        Source::Joined { load: Box::new(move || loads.load()), told: Box::new(move |result| hears.told(result)) }
    }

    /// For the status and the metrics.
    pub(crate) fn status(&self) -> TopologyStatus {
        let standing = self.client.standing();
        let state = self.state();
        let mut status = TopologyStatus {
            source: standing.source,
            proxy: self.client.name().to_owned(),
            age: standing.age,
            member: standing.member,
            error: standing.error,
            // What is no topology at all is the newest that was said.
            stuck: standing.refused.or_else(|| state.stuck.clone()),
            canary: state.applied.canary,
            ..TopologyStatus::default()
        };
        if let Some(view) = &state.applied.view {
            status.cluster = view.cluster.clone();
            (status.epoch, status.revision) = (view.epoch, view.revision);
            status.digest = view.digest.to_string();
        }
        status
    }

    /// Follows the control plane. Never returns.
    pub(crate) async fn run(self: &Arc<Self>, proxy: &Handle) {
        let first = proxy.report().rings;
        self.state().rings.get_or_insert(first);
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
                        self.state().stuck = Some("the build has ended before its time: see this proxy's log".into());
                    }
                    // Somebody may wait to hear of it.
                    self.client.hurry();
                }
                if view.changed().await.is_err() {
                    return std::future::pending::<()>().await;
                }
            }
        };
        tokio::join!(self.client.follow(), self.client.report(|| self.heartbeat(proxy)), apply);
    }

    /// Says that this process ends, in order. The control plane may be away: nobody waits long for it.
    pub(crate) async fn sign_off(&self) {
        self.client.sign_off().await;
    }

    /// Puts into force what the fleet has agreed on, and votes on what it has not yet.
    fn apply(&self, proxy: &Handle, view: &Arc<View>) {
        let target = self.aim(view);
        // What comes of it is logged and told inside. What holds for some only is not what a proxy should start from.
        if proxy.reload_blocking().is_ok()
            && target.canary.is_none()
            && let Err(error) = self.client.cache().store(view)
        {
            tracing::error!(%error, "the topology cannot be stored: without the control plane, a restart has an older one");
        }
        self.vote(proxy, view);
    }

    fn vote(&self, proxy: &Handle, view: &View) {
        let (Some(rollout), Some(candidate)) = (&view.rollout, view.candidate()) else {
            self.state().vote = None;
            return;
        };
        if self.state().vote.as_ref().is_some_and(|(id, _)| *id == rollout.id) {
            return;
        }
        let vote = match self.prepare(proxy, &candidate) {
            Ok((digest, moved)) => Vote { refusal: None, digest, moved_ppm: (moved * 1e6) as u32 },
            Err(refusal) => Vote { refusal: Some(refusal), digest: String::new(), moved_ppm: 0 },
        };
        match &vote.refusal {
            None => tracing::info!(rollout = rollout.id, moved_percent = f64::from(vote.moved_ppm) / 1e4, "prepared"),
            Some(why) => tracing::warn!(rollout = rollout.id, why, "a rollout cannot be put into force here: refused"),
        }
        self.state().vote = Some((rollout.id, vote));
    }

    /// The digest of the fleet's rings under a candidate, and what it moves.
    fn prepare(&self, proxy: &Handle, candidate: &View) -> Result<(String, f64), String> {
        let cache = self.client.cache();
        cache.place_certificates(candidate).map_err(|error| format!("certificates: {error}"))?;
        let fleet = self.fleet_config(candidate);
        let loaded = ringway_config::load_file_with(&self.file, &fleet).and_then(ringway_proxy::verified);
        let loaded = loaded.map_err(|error| first_error(&error))?;
        let named = fleet_services(&fleet);
        let prepared = proxy.prepare(loaded.config).map_err(|error| reason(&error))?;
        // Services that only this proxy's file knows are its own business.
        let rings = prepared.rings.iter().filter(|(name, _)| named.contains(name.as_str()));
        let text: String = rings.map(|(name, digest)| format!("{name}={digest:016x};")).collect();
        Ok((Vote::digest(candidate.epoch, candidate.revision, &text), prepared.moved))
    }

    fn heartbeat(&self, proxy: &Handle) -> Heartbeat {
        let report = proxy.report();
        let state = self.state();
        let named = &state.applied.named;
        let applied = state.applied.view.as_ref();
        let registered = |key: &Key| applied.is_some_and(|view| view.objects.contains_key(key));
        let down = report.down.into_iter().map(|(service, id)| Key::Backend { service, id }).filter(registered);
        Heartbeat {
            version: env!("CARGO_PKG_VERSION").into(),
            epoch: applied.map_or(0, |view| view.epoch),
            revision: applied.map_or(0, |view| view.revision),
            digest: applied.map(|view| view.digest.to_string()).unwrap_or_default(),
            rings: state
                .rings
                .iter()
                .flatten()
                .filter(|(name, _)| named.contains(name.as_str()))
                .map(|(name, digest)| (name.clone(), format!("{digest:016x}")))
                .collect::<BTreeMap<_, _>>(),
            stuck: self.client.standing().refused.or_else(|| state.stuck.clone()),
            generation: report.generation,
            vote: state.vote.clone(),
            down: down.collect(),
            requests: report.requests,
            failed: report.failed,
            canary: state.applied.canary,
            instance: self.client.instance(),
            cluster: applied.map(|view| view.cluster.clone()).unwrap_or_default(),
        }
    }
}

fn client_view(client: &Client) -> Option<Arc<View>> {
    client.view().borrow().clone()
}

/// Services whose rings are the fleet's business: those that its texts define, as far as names can be told without parsing
/// them, and those with registered backends.
fn fleet_services(fleet: &FleetConfig) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = fleet.services.iter().map(|(name, _)| name.clone()).collect();
    names.extend(fleet.backends.iter().map(|backend| backend.service.clone()));
    // A document alone, without any proxy's file: it was checked that way before it was agreed on.
    if let Ok(loaded) = ringway_config::check_fleet(fleet) {
        names.extend(loaded.config.services.into_iter().map(|service| service.name));
    }
    names
}

/// Why a configuration is not in force, in a line.
fn reason(error: &ReloadError) -> String {
    match error {
        ReloadError::Invalid(diagnostics) => first_error(diagnostics),
        other => first_line(&other.to_string()),
    }
}

/// The findings stand in the order of the file: what comes first may be a warning, and no reason.
fn first_error(diagnostics: &Diagnostics) -> String {
    let error = diagnostics.0.iter().find(|finding| finding.severity == Severity::Error);
    first_line(&error.or(diagnostics.0.first()).map(ToString::to_string).unwrap_or_default())
}

fn first_line(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match lines.next().map(str::trim) {
        Some(place) if place.starts_with("-->") => format!("{first} {place}"),
        _ => first.to_owned(),
    }
}

/// An object as a line of a table.
pub(crate) fn summary(object: &Object) -> String {
    match object {
        Object::Document(text) | Object::Service(text) => format!("{} lines", text.text.lines().count()),
        Object::Certificate(_) => "certificate and key".into(),
        Object::Backend(backend) => {
            let mut text = format!("{}, weight {}, {}", backend.address, backend.weight, backend.state.name());
            if backend.tier > 0 {
                text.push_str(&format!(", tier {}", backend.tier));
            }
            if let Some(zone) = &backend.zone {
                text.push_str(&format!(", zone {zone}"));
            }
            if backend.ejected {
                text.push_str(", ejected by the fleet");
            }
            if let Some(lease) = backend.lease {
                text.push_str(&format!(", lease {lease}"));
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_first_error_and_no_warning() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("proxy.yaml");
        let text = "control: { members: [ \"http://127.0.0.1:1\" ], directory: d }\n\
                    listeners:\n\
                    \x20 - { name: a, address: \"127.0.0.1:0\", service: later }\n\
                    \x20 - { name: b, address: nowhere, service: later }\n";
        std::fs::write(&file, text).unwrap();
        let found = ringway_config::load_file_with(&file, &FleetConfig::default()).unwrap_err();
        assert_eq!(found.0[0].severity, Severity::Warning, "{found}");
        let told = first_error(&found);
        assert!(told.starts_with("error[") && told.contains(":4:"), "{told}");
        assert_eq!(reason(&ReloadError::Invalid(found)), told);
    }
}
