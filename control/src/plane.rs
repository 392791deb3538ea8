//! A member at work: proposals find the leader wherever they are made, reads are as fresh as they say, and whoever leads
//! keeps the heartbeats.

mod answer;
mod ask;
mod lead;
mod roll;

use self::ask::{Ask, Told};
use self::lead::LOOK;
pub(crate) use self::roll::why_silent;
pub use self::roll::{Health, MemberView, question, read_answer};
use crate::Code;
use crate::consensus::replica::{Published, decode_answer};
use crate::consensus::{MemberInfo, Node, Status};
use crate::lessor::{Keeper, PROXY_FORGET, PROXY_TTL};
pub use crate::state::judge::Guards;
use crate::state::judge::{self, Judge};
use crate::state::parsed::Parsed;
use crate::state::{Answer, Basis, Change, Command, Done, EncodeError, Refusal, State, Trial, to_bytes};
use crate::store::latency::Latency;
use crate::watch::hub::Hub;
use crate::watch::wire::{Heartbeat, ProxyView};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

/// How long a request waits for a leader: an election takes about half of it.
const LEADER_WAIT: Duration = Duration::from_millis(1000);
/// One that was named and did not answer as such is asked again after this, or when another is named.
const LEADER_RETRY: Duration = Duration::from_millis(100);
/// How long a call to the leader may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(6);
/// Judgements that read texts at a time: each has a core for itself.
const JUDGEMENTS_MAX: usize = 2;
/// How often a change is judged again because what it stands on has changed meanwhile.
const ATTEMPTS_MAX: usize = 10;

/// How long a rollout waits until the leader has heard of every proxy.
const FLEET_WAIT: Duration = Duration::from_secs(9);

/// See the module.
pub struct Plane {
    node: Node,
    published: watch::Receiver<Published>,
    /// Of the watch streams.
    pub hub: Hub,
    keeper: Mutex<Option<(u64, Keeper)>>,
    wake: Notify,
    /// The term that the keeper is of, and how many of its entries about leases have come to an end.
    kept: watch::Sender<(u64, u64)>,
    /// When a leader was last heard of, and which.
    leader_seen: Mutex<Option<Instant>>,
    /// Term and leader, and since when they have been known here.
    reign: Mutex<Reign>,
    /// Writes that were proposed here.
    pub proposals: AtomicU64,
    /// Those of them that were refused.
    pub refusals: AtomicU64,
    /// How long what this leader proposed took, until it was committed and applied here.
    pub commits: Latency,
    /// Leaders that came after another, as seen here.
    pub leader_changes: AtomicU64,
    /// Times that this member led, and then had no quorum, or another leader.
    pub lapses: AtomicU64,
    /// Rollouts that have ended since this member started: committed, aborted.
    pub rollouts_over: [AtomicU64; 2],
    /// A leader has been known here.
    led: AtomicBool,
    /// None is heard of.
    leaderless: AtomicBool,
    /// For who is served here: whether this member is of use.
    lead: watch::Sender<Lead>,
    /// [`unix_ms`], or a simulation's.
    wall: fn() -> u64,
    /// The keeper's time.
    clock: fn() -> std::time::Instant,
    judge: Arc<Judge>,
    /// For whoever judges, and the keeper.
    parsed: Arc<Parsed>,
    /// After how long a proxy that is not heard of is forgotten.
    forget: Duration,
    roll: roll::Roll,
    /// Places for judgements that take long, away from whoever serves; `None`: they are judged where they are asked for.
    judgements: Option<Semaphore>,
}

type Reign = (Option<(u64, u64)>, Instant);

/// How a member stands to the cluster's leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// It follows one, or leads with a quorum.
    Followed,
    /// It hears of none, or leads without a quorum.
    Lost,
    /// The others have removed it: it will never follow one again.
    Removed,
}

/// Why something cannot be done.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PlaneError {
    /// Nobody leads, or nobody has a quorum. Nothing was done; ask again.
    #[error("no member leads, or it has no quorum: nothing was changed; ask again in a moment")]
    NoLeader,
    /// It was proposed, and may come about or not.
    #[error("it was proposed, and is not known to be decided: read whether it holds before asking again")]
    Unknown,
    /// The state says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The members say no.
    #[error("{0}")]
    Member(String),
    /// A fault of this program's.
    #[error("{0}")]
    Internal(String),
}

impl From<EncodeError> for PlaneError {
    fn from(error: EncodeError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// The fleet as the leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetView {
    /// By name.
    pub proxies: Vec<ProxyView>,
    /// Services whose backends do not expire although they should, because they are too many, and how many.
    pub frozen: BTreeMap<String, usize>,
}

/// A change of who the members are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum MemberChange {
    /// A new member: it follows, and votes as soon as it has caught up.
    Join {
        /// Its id, never used before.
        node: u64,
        /// Where it is reached.
        info: (String, String, String),
        /// It is to vote.
        voter: bool,
        /// The member that it takes the place of.
        replace: Option<u64>,
    },
    /// A learner is to vote.
    Promote(u64),
    /// A member goes.
    Remove(u64),
    /// Another member is to lead.
    Transfer(u64),
}

fn judge_with(guards: Guards, parsed: &Arc<Parsed>) -> Arc<Judge> {
    let parsed = Arc::clone(parsed);
    Arc::new(move |state: &State, command: &Command| judge::judge_by(state, command, guards, &parsed))
}

impl Plane {
    /// On a node that runs.
    #[must_use]
    pub fn new(node: Node, published: watch::Receiver<Published>) -> Self {
        let parsed = Arc::new(Parsed::elsewhere());
        Self {
            node,
            published,
            hub: Hub::default(),
            keeper: Mutex::new(None),
            wake: Notify::new(),
            kept: watch::Sender::new((0, 0)),
            leader_seen: Mutex::new(None),
            reign: Mutex::new((None, Instant::now())),
            proposals: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            commits: Latency::default(),
            leader_changes: AtomicU64::new(0),
            lapses: AtomicU64::new(0),
            rollouts_over: Default::default(),
            led: AtomicBool::new(false),
            leaderless: AtomicBool::new(false),
            lead: watch::Sender::new(Lead::Lost),
            wall: unix_ms,
            clock: || Instant::now().into_std(),
            judge: judge_with(Guards::default(), &parsed),
            parsed,
            forget: PROXY_FORGET,
            roll: roll::Roll::default(),
            judgements: Some(Semaphore::new(JUDGEMENTS_MAX)),
        }
    }

    /// With other clocks, and without threads.
    #[cfg(test)]
    pub(crate) fn with_clocks(self, wall: fn() -> u64, clock: fn() -> std::time::Instant) -> Self {
        Self { wall, clock, judgements: None, parsed: Arc::new(Parsed::at_once()), ..self }
    }

    /// With guards of another strength.
    #[must_use]
    pub fn with_guards(self, guards: Guards) -> Self {
        Self { judge: judge_with(guards, &self.parsed), ..self }
    }

    /// Forgets proxies that are not heard of for so long.
    #[must_use]
    pub fn with_forget(self, forget: Duration) -> Self {
        Self { forget, ..self }
    }

    /// As a build that judges otherwise.
    #[cfg(test)]
    pub(crate) fn with_judge(self, judge: fn(&State, &Command) -> Result<Option<Basis>, Refusal>) -> Self {
        Self { judge: Arc::new(judge), ..self }
    }

    /// The state as it is here.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.published.borrow().state)
    }

    /// The state as it comes.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.clone()
    }

    /// This member's view of the members.
    #[must_use]
    pub fn status(&self) -> Status {
        self.node.status()
    }

    /// The node itself.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    fn keeper(&self) -> MutexGuard<'_, Option<(u64, Keeper)>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since a leader with a quorum was known here; `None`: never.
    #[must_use]
    pub fn leader_age(&self) -> Option<Duration> {
        let seen = self.leader_seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map(|at| at.elapsed())
    }

    /// How this member stands to the leader, as it changes.
    #[must_use]
    pub fn lead_watched(&self) -> watch::Receiver<Lead> {
        self.lead.subscribe()
    }

    /// The others have removed this member.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        *self.lead.borrow() == Lead::Removed
    }

    /// Puts a command into the log, after it has been judged; on return it is applied here. Wherever the leader is, once.
    ///
    /// # Errors
    /// See [`PlaneError`].
    pub async fn propose(&self, command: &Command) -> Result<Done, PlaneError> {
        self.proposals.fetch_add(1, Relaxed);
        let done = self.propose_judged(command).await;
        if matches!(done, Err(PlaneError::Refused(_))) {
            self.refusals.fetch_add(1, Relaxed);
        }
        done
    }

    async fn propose_judged(&self, command: &Command) -> Result<Done, PlaneError> {
        for _ in 0..ATTEMPTS_MAX {
            let judged = match self.judged(command).await? {
                Some(basis) if self.state().rules > 0 => {
                    Cow::Owned(Command::Judged { basis, command: Box::new(command.clone()) })
                }
                _ => Cow::Borrowed(command),
            };
            match self.decide(&judged).await? {
                // Nothing was done.
                Err(refusal) if refusal.is(Code::Moved) || refusal.is(Code::Unjudged) => {}
                answer => return Ok(answer?),
            }
        }
        let message = "what it is judged by changes faster than it can be judged: nothing was changed; ask again";
        Err(Refusal::new(Code::Busy, message).into())
    }

    /// What a command would change, judged, of the state as it is here; nothing is proposed.
    ///
    /// # Errors
    /// Why it would be refused.
    pub async fn check(&self, command: &Command) -> Result<Vec<Change>, PlaneError> {
        self.judge_here(command).await?;
        match self.state().trial(command)? {
            Some(Trial::Change { changes, .. }) => Ok(changes),
            Some(Trial::Known) | None => Ok(Vec::new()),
        }
    }

    /// Puts a command into the log as it is.
    async fn decide(&self, command: &Command) -> Result<Answer, PlaneError> {
        self.is_known_to_all(command)?;
        let told = self.with_leader(Ask::Propose(to_bytes(command)?)).await?;
        let Told::Proposed(index, answer) = told else { return Err(PlaneError::Unknown) };
        self.applied(index).await;
        Ok(decode_answer(&answer))
    }

    /// No entry may stop the members that run the build before this one.
    fn is_known_to_all(&self, command: &Command) -> Result<(), PlaneError> {
        let state = self.state();
        let first = state.cluster.is_empty() || !matches!(command, Command::Found { .. });
        if first && command.rules() <= state.rules {
            return Ok(());
        }
        Err(PlaneError::Internal("this is not known to all members yet: upgrade them all, and ask again".into()))
    }

    /// What a judgement stands on. What this member has may be old: a refusal holds if it still is one after a barrier.
    async fn judged(&self, command: &Command) -> Result<Option<Basis>, PlaneError> {
        if let Ok(basis) = self.judge_here(command).await {
            return Ok(basis);
        }
        self.barrier().await?;
        Ok(self.judge_here(command).await?)
    }

    async fn judge_here(&self, command: &Command) -> Result<Option<Basis>, Refusal> {
        let (state, judge) = (self.state(), Arc::clone(&self.judge));
        let Some(places) = self.judgements.as_ref().filter(|_| judge::is_heavy(&state, command)) else {
            return judge(&state, command);
        };
        let stopped = |why: String| Refusal::new(Code::Stopped, why);
        let _place = places.acquire().await.map_err(|error| stopped(error.to_string()))?;
        let command = command.clone();
        // A text of a megabyte takes a second, in which others are to be served.
        tokio::task::spawn_blocking(move || judge(&state, &command))
            .await
            .map_err(|error| stopped(error.to_string()))?
    }

    /// On return, what was decided before the call is applied here: a read then is linearizable.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`].
    pub async fn barrier(&self) -> Result<(), PlaneError> {
        match self.with_leader(Ask::Barrier).await? {
            Told::Barrier(index) if self.applied(index).await => Ok(()),
            _ => Err(PlaneError::NoLeader),
        }
    }

    /// Heartbeats of leases; the answer are those that are not there.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`].
    pub async fn keep_alive(&self, ids: Vec<u64>) -> Result<Vec<u64>, PlaneError> {
        match self.with_leader(Ask::KeepAlive(ids)).await? {
            Told::Missing(ids) => Ok(ids),
            _ => Err(PlaneError::NoLeader),
        }
    }

    /// A proxy's heartbeat.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`].
    pub async fn heartbeat(&self, name: String, heartbeat: Heartbeat) -> Result<(), PlaneError> {
        self.with_leader(Ask::Heartbeat(name, Box::new(heartbeat))).await.map(drop)
    }

    /// A proxy that ends in order, or is to be forgotten; `instance`: only if no other process has spoken in its name since.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`]; a refusal where it is not known.
    pub async fn sign_off(&self, name: String, instance: Option<u64>) -> Result<(), PlaneError> {
        match self.with_leader(Ask::SignOff(name.clone(), instance)).await? {
            Told::Done => Ok(()),
            Told::Missing(_) => {
                let message = format!("there is no proxy {name}, or another process speaks in its name now");
                Err(Refusal::new(Code::NotFound, message).into())
            }
            _ => Err(PlaneError::NoLeader),
        }
    }

    /// The fleet.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`].
    pub async fn fleet(&self) -> Result<FleetView, PlaneError> {
        match self.with_leader(Ask::Fleet).await? {
            Told::Fleet(fleet) => Ok(fleet),
            _ => Err(PlaneError::NoLeader),
        }
    }

    /// An epoch that no proxy can have seen: above the cluster's, a backup's, and what live proxies report, and not before
    /// the time. The leader believes only so much, see `keeper/ahead.rs`.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`].
    pub async fn next_epoch(&self, backup: u64) -> Result<u64, PlaneError> {
        let fleet = self.fleet().await?;
        let (state, at_ms) = (self.state(), (self.wall)());
        let seen = crate::lessor::seen_epoch(&state, &fleet.proxies, at_ms);
        Ok(state.epoch.max(backup).max(seen).saturating_add(1).max(at_ms / 1000))
    }

    /// Changes who the members are.
    ///
    /// # Errors
    /// See [`PlaneError`].
    pub async fn change_members(&self, change: MemberChange) -> Result<(), PlaneError> {
        match self.with_leader(Ask::Member(change)).await? {
            Told::Done => Ok(()),
            Told::Member(why) => Err(PlaneError::Member(why)),
            _ => Err(PlaneError::Unknown),
        }
    }

    /// Waits until an entry is applied here.
    async fn applied(&self, index: u64) -> bool {
        let mut published = self.published.clone();
        let wait = published.wait_for(|now| now.index >= index || now.failed.is_some());
        matches!(tokio::time::timeout(ASK_TIMEOUT, wait).await, Ok(Ok(now)) if now.failed.is_none())
    }

    async fn with_leader(&self, ask: Ask) -> Result<Told, PlaneError> {
        let began = Instant::now();
        let mut bytes = None;
        let mut watched = self.node.watch_status();
        loop {
            // What is watched may lag behind what is read: only what changes from here on is news.
            watched.mark_unchanged();
            let status = self.node.status();
            let named = status.leads();
            let told = match status.leader {
                Some((leader, info)) if leader != status.id => {
                    let bytes = match &mut bytes {
                        Some(bytes) => bytes,
                        empty => empty.insert(ask.encode(self.state().rules)?),
                    };
                    match ask.may_be_repeated() {
                        true => self.ask_while_it_leads(leader, &info, bytes.clone()).await,
                        false => self.ask(leader, &info, bytes.clone()).await,
                    }
                }
                Some(_) => self.answer_here(&ask).await,
                None => Told::NotLeader,
            };
            match told {
                Told::NotLeader if began.elapsed() < LEADER_WAIT => {
                    let other = async {
                        loop {
                            changed(&mut watched).await;
                            if watched.borrow_and_update().leads() != named {
                                return;
                            }
                        }
                    };
                    // A leader may be named before it can answer, and a call to it may fail once.
                    let _ = tokio::time::timeout(LEADER_RETRY, other).await;
                }
                Told::NotLeader => return Err(PlaneError::NoLeader),
                Told::Unknown => return Err(PlaneError::Unknown),
                told => return Ok(told),
            }
        }
    }

    /// As [`Plane::ask`], for what may be asked again: it ends when the leader is not heard of any more.
    async fn ask_while_it_leads(&self, leader: u64, info: &MemberInfo, bytes: Vec<u8>) -> Told {
        let mut status = self.node.watch_status();
        let lost = status.wait_for(|status| status.leader.as_ref().is_none_or(|(now, _)| *now != leader));
        tokio::select! {
            biased;
            told = self.ask(leader, info, bytes) => match told {
                Told::Unknown => Told::NotLeader,
                told => told,
            },
            _ = lost => Told::NotLeader,
        }
    }

    async fn ask(&self, leader: u64, info: &MemberInfo, bytes: Vec<u8>) -> Told {
        match self.node.ask(leader, info, bytes, ASK_TIMEOUT).await {
            Ok(answer) => Told::decode(&answer),
            // Never sent: as if there were no leader.
            Err(error) if error.is_unsent() => Told::NotLeader,
            Err(_) => Told::Unknown,
        }
    }

    /// Live proxies, as the leader sees them; a leader that has just begun is given the time to hear of them.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`].
    pub async fn live_proxies(&self) -> Result<Vec<String>, PlaneError> {
        let known = async {
            let mut status = self.node.watch_status();
            while !self.knows_fleet() {
                let reign = self.reign().1;
                tokio::select! {
                    biased;
                    () = changed(&mut status) => {}
                    () = tokio::time::sleep_until((reign + PROXY_TTL).max(Instant::now() + LOOK)) => {}
                }
            }
        };
        if tokio::time::timeout(FLEET_WAIT, known).await.is_err() {
            return Err(PlaneError::NoLeader);
        }
        let fleet = self.fleet().await?;
        Ok(fleet.proxies.into_iter().filter(|proxy| proxy.state != "offline").map(|proxy| proxy.name).collect())
    }
}

/// Waits for the next change. Of a member that has stopped there is none: who waits for nothing else waits for ever, and does not
/// ask again and again.
async fn changed(status: &mut watch::Receiver<Status>) {
    if status.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Wall time, for people to read: nothing is decided by it.
#[must_use]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
