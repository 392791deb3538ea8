//! A proxy's end: follows the topology, keeps it on disk, tells the fleet how it goes.

pub mod cache;
mod follow_etcd;
mod loads;
mod members;
mod past;
mod random;
mod register_etcd;
mod topology;

use self::cache::Cache;
use self::follow_etcd::Follower;
pub use self::loads::FleetTables;
pub(crate) use self::loads::Loads;
use self::members::Members;
use self::random::Random;
pub use self::topology::Standing;
#[cfg(not(test))]
use self::topology::is_stale;
#[cfg(test)]
pub(crate) use self::topology::is_stale;
use self::topology::{TakeError, Topology};
use crate::etcd::{EtcdError, Store};
use crate::http::{Api, ApiError, Link};
use crate::loads::ServiceLoad;
use crate::watch::view::View;
use crate::watch::wire::{Heartbeat, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use hyper::Method;
use ringway_config::model::{Control, MemberUrl};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// First and longest wait between two attempts; each is drawn from nothing up to it ("full jitter").
pub(crate) const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long an end waits for the control plane to hear of it.
const SIGN_OFF_MAX: Duration = Duration::from_secs(1);
/// A stream without a line for this long is dead: members send one every five seconds. Less than the ten for which a table of loads is
/// fresh without a word: a member that stands still is left before what is shed by its tables fades.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(7);
/// Between two heartbeats, a fifth of it drawn.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);
/// One that has heard of a leader within this time, in milliseconds, is worth a move: less than what it is left for, or proxies would
/// go to and fro.
pub(crate) const FRESH_MS: u64 = 1_000;
/// How often the others are asked, while the member that is followed has no leader; a half of it drawn.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// How long all of them have to answer.
const LOOK_AROUND_MAX: Duration = Duration::from_secs(2);
/// Longest line: a topology.
const LINE_BYTES_MAX: usize = 256 << 20;

/// Follows the control plane for as long as it is polled.
pub struct Client {
    store: Followed,
    topology: Topology,
    loads: Loads,
}

/// Where the topology comes from.
enum Followed {
    Members(Box<Members>),
    Etcd(Box<Follower>),
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The settings are of no use.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The settings are of no use.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The directory of the last good topology.
    #[error("directory {}: {source}", path.display())]
    Directory {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Client {
    /// As a proxy's configuration says. The last good topology is read from disk.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn new(settings: &Control, name: String) -> Result<Self, ClientError> {
        let store = match &settings.etcd {
            Some(etcd) => Followed::Etcd(Box::new(Follower::new(Store::new(etcd)?))),
            None => Followed::Members(Box::new(Members::new(settings)?)),
        };
        let path = &settings.directory;
        let cache = Cache::open(path).map_err(|source| ClientError::Directory { path: path.clone(), source })?;
        Ok(Self { store, topology: Topology::new(cache, name), loads: Loads::default() })
    }

    /// This proxy's name in the fleet.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.topology.name
    }

    /// What this process is told apart by from others in its proxy's name; never 0.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.topology.instance()
    }

    /// The topology as it is known, and as it changes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.topology.view()
    }

    /// The tables of loads as they are known, and as they change; with etcd as the store, never.
    #[must_use]
    pub fn loads(&self) -> watch::Receiver<Arc<FleetTables>> {
        self.loads.subscribe()
    }

    /// Reports the loads that `take` says, four times a second, as long as it says any. It is told of which services the leader wants
    /// to know what is in force here. Never returns.
    pub async fn report_loads(&self, take: impl Fn(&BTreeSet<String>) -> Vec<ServiceLoad>) {
        match &self.store {
            Followed::Members(members) => {
                self.loads.report(members, (&self.topology.name, self.topology.instance()), take).await;
            }
            // There is no leader: every proxy balances alone.
            Followed::Etcd(_) => std::future::pending().await,
        }
    }

    /// Where it is kept.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        self.topology.cache()
    }

    /// How it goes.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.topology.standing(match self.store {
            Followed::Members(_) => "control plane",
            Followed::Etcd(_) => "etcd",
        })
    }

    /// What is known, and how: a simulation follows by itself.
    #[cfg(test)]
    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Sends the next heartbeat at once: something has happened that the fleet waits for.
    pub fn heartbeat_now(&self) {
        self.topology.heartbeat_now();
    }

    /// Says that this proxy ends, in order: it is not missed from then on. Returns within a second, whatever is said to it.
    pub async fn sign_off(&self) {
        let Followed::Members(members) = &self.store else { return };
        let path = format!("/v1/proxies/{}?instance={}", self.topology.name, self.topology.instance());
        let api = members.renewed();
        let said = tokio::time::timeout(SIGN_OFF_MAX, api.call(Method::DELETE, &path, Bytes::new())).await;
        match said
            .map_err(|_| "nobody has answered in time".to_owned())
            .map(|said| said.map_err(|error| error.to_string()))
        {
            Ok(Ok(_)) => tracing::info!("signed off from the control plane"),
            Ok(Err(why)) | Err(why) => {
                tracing::info!(why, "not signed off from the control plane: it will miss this proxy for a while")
            }
        }
    }

    /// Where the topology's texts stand, for findings: what comes before an object's name.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.store {
            Followed::Members(_) => "control plane: ".into(),
            Followed::Etcd(follower) => format!("etcd: {}", follower.store.prefix()),
        }
    }

    /// Follows the topology. Never returns.
    pub async fn follow(&self) {
        let mut wait = BACKOFF.0;
        let mut random = Random::new(&self.topology.name);
        let members = match &self.store {
            Followed::Members(members) => members.api.load().members().to_vec(),
            Followed::Etcd(follower) => follower.store.endpoints().to_vec(),
        };
        let mut from = random.below(members.len().max(1));
        loop {
            let Some(member) = members.get(from % members.len().max(1)).cloned() else {
                return std::future::pending().await;
            };
            let began = Instant::now();
            // Whoever followed before may have been dropped in the middle: a start waits for the first word only.
            self.topology.state().member = None;
            let Err(error) = match &self.store {
                Followed::Members(members) => self.follow_one(members, &member).await,
                // Boxed: its state is large, and nobody waits for it.
                Followed::Etcd(etcd) => {
                    Box::pin(etcd.follow(&self.topology, &member)).await.map_err(|error| error.to_string())
                }
            };
            {
                let mut state = self.topology.state();
                if state.error.as_ref() != Some(&error) {
                    tracing::warn!(%member, error, "the control plane cannot be followed: what is in force stays");
                }
                state.member = None;
                state.error = Some(error);
                state.reconnects += 1;
            }
            // A connection that has lasted was a good one.
            if began.elapsed() > BACKOFF.1 {
                wait = BACKOFF.0;
            }
            tokio::time::sleep(wait.mul_f64(random.unit())).await;
            wait = (wait * 2).min(BACKOFF.1);
            let next = self.topology.state().next.take();
            from = next.unwrap_or(from + 1);
        }
    }

    async fn follow_one(&self, members: &Members, member: &MemberUrl) -> Result<std::convert::Infallible, String> {
        let api = members.renewed();
        let mut link = api.connect(member).await.map_err(|error| error.to_string())?;
        let path = match self.topology.position() {
            Some((epoch, revision)) => format!("/v1/watch?loads=1&from={epoch}.{revision}"),
            None => "/v1/watch?loads=1".to_owned(),
        };
        self.loads.begin();
        let response =
            api.begin(&mut link, Method::GET, &path, Bytes::new()).await.map_err(|error| error.to_string())?;
        let status = response.status();
        if !status.is_success() {
            let body = http_body_util::Limited::new(response.into_body(), 1 << 20).collect().await;
            let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            return Err(crate::http::problem(status, &body).to_string());
        }
        let mut body = response.into_body();
        let mut line = Vec::new();
        let mut look = LookAround::new(&self.topology.name);
        loop {
            let frame =
                tokio::time::timeout(SILENCE_MAX, body.frame()).await.map_err(|_| "it has gone silent".to_owned())?;
            let frame = frame.ok_or("it has ended the stream")?.map_err(|error| error.to_string())?;
            let Some(data) = frame.data_ref() else { continue };
            for part in data.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if line.len() > LINE_BYTES_MAX {
                    return Err("its lines are too long".into());
                }
                if line.ends_with(b"\n") {
                    let message = self.loads.read(&line);
                    line.clear();
                    // A topology may be large: its memory is given back.
                    line.shrink_to(1 << 16);
                    let Some(message) = message? else { continue };
                    if is_stale(&message)
                        && look.is_due()
                        && let Some(better) = led(&api, member).await
                    {
                        self.topology.state().next = Some(better);
                        return Err(TakeError::Stale.to_string());
                    }
                    self.take(member, message)?;
                }
            }
        }
    }

    fn take(&self, member: &MemberUrl, message: Message) -> Result<(), String> {
        match message {
            Message::Loads(line) => {
                let epoch = self.topology.known().map_or(0, |view| view.epoch);
                self.loads.handle_line(line, epoch);
                Ok(())
            }
            Message::LoadsConfirmed(confirmed) => {
                self.loads.handle_confirmed(&confirmed, Instant::now());
                Ok(())
            }
            message => self.topology.take(member, message).map_err(|error| error.to_string()),
        }
    }

    /// Tells the fleet how it goes, every two seconds and on [`Client::heartbeat_now`]. Never returns.
    pub async fn report(&self, heartbeat: impl Fn() -> Heartbeat) {
        match &self.store {
            Followed::Members(members) => self.report_to(members, heartbeat).await,
            Followed::Etcd(follower) => {
                Box::pin(register_etcd::register(&follower.store, &self.topology, heartbeat)).await
            }
        }
    }

    async fn report_to(&self, plane: &Members, heartbeat: impl Fn() -> Heartbeat) {
        let mut random = Random::new(&self.topology.name);
        let mut link = None;
        let mut from = 0_usize;
        let path = format!("/v1/proxies/{}", self.topology.name);
        let members = plane.api.load().members().to_vec();
        loop {
            let wait = HEARTBEAT.mul_f64(0.8 + 0.2 * random.unit());
            // Not twice as often as every fiftieth of a second, whatever happens.
            let soonest = tokio::time::sleep(Duration::from_millis(20));
            let _ = tokio::time::timeout(wait, self.topology.heartbeat_wanted()).await;
            soonest.await;
            if members.is_empty() {
                return std::future::pending().await;
            }
            // What a member without a leader does not take, another may: all are tried before it is waited again, or a proxy would be
            // missed although most members hear it.
            for _ in 0..members.len() {
                let member = &members[from % members.len()];
                if let Some(open) = self.report_once(plane, member, link.take(), &path, &heartbeat).await {
                    link = Some(open);
                    break;
                }
                from += 1;
            }
        }
    }

    /// One heartbeat to one member, over a connection that is there or a new one; what can be used again, if it was taken.
    async fn report_once(
        &self,
        plane: &Members,
        member: &MemberUrl,
        link: Option<Link>,
        path: &str,
        heartbeat: impl Fn() -> Heartbeat,
    ) -> Option<Link> {
        let said = async {
            let mut open = match link {
                Some(open) => open,
                None => plane.renewed().connect(member).await.ok()?,
            };
            let body = serde_json::to_vec(&heartbeat()).ok()?;
            let api = plane.api.load_full();
            api.ask(&mut open, Method::PUT, path, body.into()).await.ok().map(|_| open)
        };
        // The member has no leader to tell, or does not know us, where it is none.
        tokio::time::timeout(HEARTBEAT, said).await.ok().flatten()
    }
}

/// When the others are to be asked for a leader: now and then, and not by the whole fleet at the same time.
struct LookAround {
    random: Random,
    after: Option<Instant>,
}

impl LookAround {
    fn new(name: &str) -> Self {
        Self { random: Random::new(name), after: None }
    }

    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        if self.after.is_some_and(|after| now < after) {
            return false;
        }
        self.after = Some(now + LOOK_AROUND.mul_f64(1.0 - 0.5 * self.random.unit()));
        true
    }
}

/// The place in the list of a member that has a leader; `None`: no other has, and nothing is to be gained by a move.
async fn led(api: &Api, than: &MemberUrl) -> Option<usize> {
    let others = api.members().iter().enumerate().filter(|(_, member)| *member != than);
    let ages = others.map(|(index, member)| async move {
        let mut link = api.connect(member).await.ok()?;
        let status = api.ask(&mut link, Method::GET, "/v1/status", Bytes::new()).await.ok()?;
        let status: serde_json::Value = serde_json::from_slice(&status).ok()?;
        Some((status["leader_age_ms"].as_u64()?, index))
    });
    let mut ages: futures_util::stream::FuturesUnordered<_> = ages.collect();
    let deadline = tokio::time::Instant::now() + LOOK_AROUND_MAX;
    let mut best = None;
    // The first that is fresh is as good as any: a member that hangs is not waited for.
    while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, ages.next()).await {
        best = answer.filter(|(age, _)| *age <= FRESH_MS).or(best);
        if best.is_some() {
            break;
        }
    }
    best.map(|(_, index)| index)
}
