//! A proxy's end: follows the topology, keeps it on disk, tells the fleet how it goes.

pub mod cache;
mod follow_etcd;
mod register_etcd;

use self::cache::Cache;
use self::follow_etcd::Follower;
use crate::etcd::{EtcdError, Store};
use crate::http::{Api, ApiError, Link};
use crate::watch::view::{Handled, View, ViewError};
use crate::watch::wire::{Heartbeat, Message};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use hyper::Method;
use ringway_config::model::{Control, MemberUrl};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// First and longest wait between two attempts; each is drawn from nothing up to it ("full jitter").
pub(crate) const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long an end waits for the control plane to hear of it.
const SIGN_OFF_MAX: Duration = Duration::from_secs(1);
/// A stream without a line for this long is dead: members send one every five seconds.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Between two heartbeats, a fifth of it drawn.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);
/// A member that has not heard of a leader for this long, in milliseconds, is left for another that has.
const STALE_MS: u64 = 2_000;
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
    cache: Cache,
    /// This proxy's name in the fleet.
    pub name: String,
    view: watch::Sender<Option<Arc<View>>>,
    state: Mutex<Progress>,
    hurry: Notify,
    /// Of this process.
    instance: u64,
}

/// Where the topology comes from.
enum Followed {
    Members(Box<Members>),
    Etcd(Box<Follower>),
}

/// Members of the control plane, and what is shown to them.
struct Members {
    settings: Control,
    api: ArcSwap<Api>,
}

impl Members {
    /// For a connection that begins now: certificates and token as their files are. What cannot be read stays as it was.
    fn renewed(&self) -> Arc<Api> {
        match Api::new(&self.settings) {
            Ok(api) => self.api.store(Arc::new(api)),
            Err(error) => tracing::warn!(%error, "towards the control plane, the old certificate or token stays"),
        }
        self.api.load_full()
    }
}

#[derive(Default)]
struct Progress {
    /// The member that is followed now.
    member: Option<String>,
    /// The last word of any member.
    heard: Option<Instant>,
    /// The topology came from the disk, and from nobody since.
    from_disk: bool,
    /// Why there is no connection.
    error: Option<String>,
    /// Why what was said last is no topology.
    refused: Option<String>,
    /// The members are behind what is in force here.
    ahead: Option<String>,
    /// Changes did not lead where the member is: the next connection asks for the whole.
    anew: bool,
    /// Where the whole was told last because of it: what differs there still is not asked for once more.
    told_whole: Option<(u64, u64)>,
    reconnects: u64,
    /// The member that is worth to be followed next.
    next: Option<usize>,
}

/// How it goes, for the status.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// `control plane`, `etcd`, `disk` or `none`.
    pub source: &'static str,
    /// The member that is followed.
    pub member: Option<String>,
    /// Since any member was heard of.
    pub age: Option<Duration>,
    /// Why there is no connection.
    pub error: Option<String>,
    /// Why what etcd says now is no topology: what it said before stays.
    pub refused: Option<String>,
    /// Connections that were begun again.
    pub reconnects: u64,
}

/// Why a line is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error(transparent)]
    View(#[from] ViewError),
    #[error("it has lost its leader: another member has one")]
    Stale,
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
            None => {
                let api = ArcSwap::from_pointee(Api::new(settings)?);
                Followed::Members(Box::new(Members { settings: settings.clone(), api }))
            }
        };
        let path = &settings.directory;
        let cache = Cache::open(path).map_err(|source| ClientError::Directory { path: path.clone(), source })?;
        let stored = cache.load();
        let state = Progress { from_disk: stored.is_some(), ..Progress::default() };
        let (view, _) = watch::channel(stored.map(Arc::new));
        let instance = Random::new(&name).next();
        Ok(Self { store, cache, name, view, state: Mutex::new(state), hurry: Notify::new(), instance })
    }

    /// What this process is told apart by from others in its proxy's name; never 0.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Says that this proxy ends, in order: it is not missed from then on. Returns within a second, whatever is said to it.
    pub async fn sign_off(&self) {
        let Followed::Members(members) = &self.store else { return };
        let path = format!("/v1/proxies/{}?instance={}", self.name, self.instance);
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

    /// The topology as it is known, and as it changes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.view.subscribe()
    }

    /// Where it is kept.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How it goes.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let state = self.state();
        let source = match (self.view.borrow().is_some(), state.from_disk) {
            (false, _) => "none",
            (true, true) => "disk",
            (true, false) => match self.store {
                Followed::Members(_) => "control plane",
                Followed::Etcd(_) => "etcd",
            },
        };
        Standing {
            source,
            member: state.member.clone(),
            age: state.heard.map(|at| at.elapsed()),
            error: state.error.clone().or_else(|| state.ahead.clone()),
            refused: state.refused.clone(),
            reconnects: state.reconnects,
        }
    }

    fn state(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the next heartbeat at once: something has happened that the fleet waits for.
    pub fn hurry(&self) {
        self.hurry.notify_one();
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
        let mut random = Random::new(&self.name);
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
            self.state().member = None;
            let Err(error) = match &self.store {
                Followed::Members(members) => self.follow_one(members, &member).await,
                // Boxed: its state is large, and nobody waits for it.
                Followed::Etcd(etcd) => Box::pin(etcd.follow(self, &member)).await.map_err(|error| error.to_string()),
            };
            {
                let mut state = self.state();
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
            let next = self.state().next.take();
            from = next.unwrap_or(from + 1);
        }
    }

    async fn follow_one(&self, members: &Members, member: &MemberUrl) -> Result<std::convert::Infallible, String> {
        let api = members.renewed();
        let mut link = api.connect(member).await.map_err(|error| error.to_string())?;
        let path = match self.position() {
            Some((epoch, revision)) => format!("/v1/watch?from={epoch}.{revision}"),
            None => "/v1/watch".to_owned(),
        };
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
        let mut look = LookAround::new(&self.name);
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
                    let message: Message = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
                    line.clear();
                    // A topology may be large: its memory is given back.
                    line.shrink_to(1 << 16);
                    if is_stale(&message)
                        && look.is_due()
                        && let Some(better) = led(&api, member).await
                    {
                        self.state().next = Some(better);
                        return Err(TakeError::Stale.to_string());
                    }
                    self.take(member, message).map_err(|error| error.to_string())?;
                }
            }
        }
    }

    /// Where a stream that begins now takes up; `None`: it is to tell the whole.
    pub(crate) fn position(&self) -> Option<(u64, u64)> {
        let anew = std::mem::take(&mut self.state().anew);
        self.view.borrow().as_ref().filter(|_| !anew).map(|view| (view.epoch, view.revision))
    }

    /// Takes a line of a member's. An error ends the stream.
    pub(crate) fn take(&self, member: &MemberUrl, message: Message) -> Result<(), TakeError> {
        // A member that has lost its leader knows less and less: it may be heard, but it does not make us younger.
        let stale = is_stale(&message);
        let next = match self.handled(message) {
            Ok(next) => next,
            Err(error) => return self.not_taken(member, error),
        };
        self.followed(member, !stale);
        {
            let mut state = self.state();
            (state.from_disk, state.ahead, state.refused) = (false, None, None);
        }
        if let Some(next) = next {
            self.view.send_replace(Some(Arc::new(next)));
        }
        Ok(())
    }

    /// The topology that a line makes; `None`: it changes nothing.
    fn handled(&self, message: Message) -> Result<Option<View>, ViewError> {
        let known = self.known();
        let Some(view) = known else {
            return match message {
                Message::Snapshot(snapshot) => Ok(Some(View::from_snapshot(snapshot, None)?)),
                // The whole comes first: a sign of life may overtake it.
                Message::Ping(_) | Message::Rollout(_) => Ok(None),
                Message::Delta(delta) => Err(ViewError::Gap { epoch: delta.epoch, previous: delta.previous }),
            };
        };
        let whole = match &message {
            Message::Snapshot(snapshot) => Some((snapshot.epoch, snapshot.revision, snapshot.digest.clone())),
            Message::Delta(_) | Message::Rollout(_) | Message::Ping(_) => None,
        };
        let mut next = (*view).clone();
        let handled = next.handle(message)?;
        if let Some((epoch, revision, digest)) = whole {
            self.state().told_whole = Some((epoch, revision));
            if next.digest.to_string() != digest {
                tracing::error!(
                    epoch,
                    revision,
                    "what the member says does not add up to its own digest, even told whole: it may be of another version"
                );
            }
        }
        Ok((handled == Handled::Changed).then_some(next))
    }

    /// What is done about a line that is not taken. An error ends the stream.
    fn not_taken(&self, member: &MemberUrl, error: ViewError) -> Result<(), TakeError> {
        let said = error.to_string();
        match &error {
            ViewError::Older { .. } | ViewError::Nothing { .. } => {
                // It stays connected: the leader hears of it by the heartbeat, and goes one epoch higher. Or what is missing comes.
                self.followed(member, false);
                let mut state = self.state();
                if state.ahead.as_ref() != Some(&said) {
                    tracing::error!(%member, error = said, "the members have less than this proxy");
                    state.ahead = Some(said);
                    drop(state);
                    self.hurry();
                }
                Ok(())
            }
            ViewError::Gap { .. } | ViewError::Digest(_) => {
                let known = self.known().map(|view| (view.epoch, view.revision));
                let mut state = self.state();
                let here = matches!((&error, known), (ViewError::Digest(at), Some((_, revision))) if *at == revision);
                if here && state.told_whole == known {
                    // Once: what was told whole at this place and differs still is another fault than a lost line.
                    let again = format!("{said}, even told whole");
                    if state.ahead.as_ref() != Some(&again) {
                        tracing::error!(%member, error = again, "the topology is not the member's");
                        state.ahead = Some(again);
                    }
                    return Ok(());
                }
                state.anew = true;
                drop(state);
                Err(error.into())
            }
            ViewError::Cluster { .. } => {
                self.state().refused = Some(said);
                self.hurry();
                Err(error.into())
            }
        }
    }

    /// A member has said something; `fresh`: not only what it knew long ago.
    fn followed(&self, member: &MemberUrl, fresh: bool) {
        let mut state = self.state();
        if state.member.is_none() {
            tracing::info!(%member, "the control plane is followed");
            state.member = Some(member.to_string());
            state.error = None;
        }
        if fresh {
            state.heard = Some(Instant::now());
        }
    }

    /// The topology that is known.
    pub(crate) fn known(&self) -> Option<Arc<View>> {
        self.view.borrow().clone()
    }

    /// etcd has given a sign of life.
    pub(crate) fn heard(&self, member: &MemberUrl) {
        self.followed(member, true);
    }

    /// etcd says this, of the cluster that is known.
    pub(crate) fn publish(&self, member: &MemberUrl, mut view: View) {
        self.followed(member, true);
        {
            let mut state = self.state();
            state.refused = None;
            state.from_disk = false;
        }
        let known = self.known();
        if let Some(known) = &known {
            // What was deleted last leaves no revision behind for who reads it anew.
            view.revision = view.revision.max(known.revision);
        }
        if known.is_none_or(|known| *known != view) {
            self.view.send_replace(Some(Arc::new(view)));
        }
    }

    /// What etcd says is no topology: what it said before stays.
    pub(crate) fn refuse(&self, member: &MemberUrl, reason: String) {
        self.heard(member);
        let mut state = self.state();
        if state.refused.as_ref() != Some(&reason) {
            tracing::error!(reason, "what etcd says is refused: what is in force stays");
            state.refused = Some(reason);
            drop(state);
            self.hurry();
        }
    }

    /// A number from 0 to 1 that spreads proxies in time.
    pub(crate) fn spread(&self) -> f64 {
        Random::new(&self.name).unit()
    }

    /// Somebody waits for the next heartbeat.
    pub(crate) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Tells the fleet how it goes, every two seconds and on [`Client::hurry`]. Never returns.
    pub async fn report(&self, heartbeat: impl Fn() -> Heartbeat) {
        match &self.store {
            Followed::Members(members) => self.report_to(members, heartbeat).await,
            Followed::Etcd(follower) => Box::pin(register_etcd::register(&follower.store, self, heartbeat)).await,
        }
    }

    async fn report_to(&self, plane: &Members, heartbeat: impl Fn() -> Heartbeat) {
        let mut random = Random::new(&self.name);
        let mut link = None;
        let mut from = 0_usize;
        let path = format!("/v1/proxies/{}", self.name);
        let members = plane.api.load().members().to_vec();
        loop {
            let wait = HEARTBEAT.mul_f64(0.8 + 0.2 * random.unit());
            // Not twice as often as every fiftieth of a second, whatever happens.
            let soonest = tokio::time::sleep(Duration::from_millis(20));
            let _ = tokio::time::timeout(wait, self.hurry.notified()).await;
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

/// A sign of life of a member that has lost its leader.
pub(crate) fn is_stale(message: &Message) -> bool {
    matches!(message, Message::Ping(ping) if ping.leader_age_ms.is_none_or(|age| age > STALE_MS))
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

/// Enough to spread proxies in time; seeded by their names and the process.
struct Random(u64);

impl Random {
    fn new(name: &str) -> Self {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), name);
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        // xorshift64*. Source: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
