//! A member at work: proposals find the leader wherever they are made, reads are as fresh as they say, and whoever leads
//! keeps the heartbeats.

mod ask;
mod roll;

use self::ask::{Ask, Told, Writing};
pub(crate) use self::roll::why_silent;
pub use self::roll::{Health, MemberView, question, read_answer};
use crate::consensus::{MemberError, MemberInfo, Node, ProposeError, Proposed, Read, Role, Status};
use crate::hub::Hub;
pub use crate::judge::Guards;
use crate::judge::{self, Judge};
use crate::keeper::{Keeper, Kept, PROXY_FORGET, PROXY_TTL};
use crate::latency::Latency;
use crate::replica::{Published, decode_answer};
use crate::state::{Answer, Basis, Change, Command, Done, EncodeError, Phase, RULES, Refusal, State, Trial, to_bytes};
use crate::wire::{Heartbeat, ProxyView};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
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
/// How often a leader asks members which rules they know, as long as they may not all know the newest.
const RULES_PACE: Duration = Duration::from_millis(500);
/// Judgements that read texts at a time: each has a core for itself.
const JUDGEMENTS_MAX: usize = 2;
/// How often a change is judged again because what it stands on has changed meanwhile.
const ATTEMPTS_MAX: usize = 10;
/// How often the leader looks whether something is due.
const TICK: Duration = Duration::from_millis(200);
/// How often a member looks whether it leads: what it could not hear in between is known that exactly.
const LOOK: Duration = Duration::from_millis(50);
/// How often a member that hears of no leader asks the others whether it is still one of them, and how long each may take.
const REMOVAL_PACE: Duration = Duration::from_millis(500);
/// Revisions from one checkpoint to the next.
const CHECKPOINT_EVERY: u64 = 1000;

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
    judge: Arc<Judge>,
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

impl Plane {
    /// On a node that runs.
    #[must_use]
    pub fn new(node: Node, published: watch::Receiver<Published>) -> Self {
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
            judge: Arc::new(judge::judge),
            forget: PROXY_FORGET,
            roll: roll::Roll::default(),
            judgements: Some(Semaphore::new(JUDGEMENTS_MAX)),
        }
    }

    /// With another wall clock, and without threads.
    #[cfg(test)]
    pub(crate) fn with_wall(self, wall: fn() -> u64) -> Self {
        Self { wall, judgements: None, ..self }
    }

    /// With guards of another strength.
    #[must_use]
    pub fn with_guards(self, guards: Guards) -> Self {
        Self {
            judge: Arc::new(move |state: &State, command: &Command| judge::judge_by(state, command, guards)),
            ..self
        }
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
                Err(refusal) if matches!(refusal.code.as_str(), "moved" | "unjudged") => {}
                answer => return Ok(answer?),
            }
        }
        let message = "what it is judged by changes faster than it can be judged: nothing was changed; ask again";
        Err(Refusal { code: "busy".into(), message: message.into(), findings: Vec::new() }.into())
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
        let Some(places) = self.judgements.as_ref().filter(|_| judge::is_heavy(command)) else {
            return judge(&state, command);
        };
        let stopped = |why: String| Refusal { code: "stopped".into(), message: why, findings: Vec::new() };
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
                Err(Refusal { code: "not_found".into(), message, findings: Vec::new() }.into())
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
        let seen = crate::keeper::seen_epoch(&state, &fleet.proxies, at_ms);
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

    /// What another member asks of this one, as the leader that it takes it for.
    pub async fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let (told, writing) = match Ask::decode(bytes) {
            Some((ask, writing)) => (self.answer_here(&ask).await, writing),
            None => (Told::Unknown, Writing::Frozen),
        };
        let told = told.encode(writing);
        // An answer that cannot be written is none: whoever asked takes it for unknown.
        told.unwrap_or_else(|error| {
            tracing::error!(%error, "an answer to a member");
            Vec::new()
        })
    }

    async fn answer_here(&self, ask: &Ask) -> Told {
        match ask {
            // What is appended without a quorum may come about much later: it is not begun.
            Ask::Propose(_) | Ask::Member(_) if self.node.status().role != Role::Leader => Told::NotLeader,
            Ask::Propose(command) => match self.put(command.clone()).await {
                Ok(proposed) => {
                    // Somebody may wait for what follows from it.
                    self.wake.notify_one();
                    Told::Proposed(proposed.index, proposed.answer)
                }
                Err(error) => unproposed(&error),
            },
            Ask::Barrier => match self.node.read_barrier(Read::Index).await {
                Ok(()) => Told::Barrier(self.published.borrow().index),
                Err(error) => unproposed(&error),
            },
            Ask::KeepAlive(ids) => self.keep_alive_here(ids).await,
            Ask::Heartbeat(name, heartbeat) => {
                let told = self.kept(|keeper, state, now| {
                    keeper.handle_heartbeat(state, name.clone(), (**heartbeat).clone(), now);
                    Told::Done
                });
                if heartbeat.vote.is_some() {
                    self.wake.notify_one();
                }
                told
            }
            Ask::Fleet => self.fleet_here().map_or(Told::NotLeader, Told::Fleet),
            Ask::SignOff(name, instance) => {
                self.kept(|keeper, state, _| match keeper.handle_sign_off(state, name, *instance) {
                    true => Told::Done,
                    false => Told::Missing(Vec::new()),
                })
            }
            Ask::Rules => Told::Rules(RULES),
            Ask::Removed(node) => Told::Removed(self.node.has_removed(*node)),
            Ask::Status => Told::Status(self.view()),
            Ask::Member(change) => match self.member(change).await {
                Ok(()) => Told::Done,
                Err(MemberError::Propose(ProposeError::NotLeader { .. })) => Told::NotLeader,
                Err(error) => Told::Member(error.to_string()),
            },
        }
    }

    /// Into the log, as leader.
    async fn put(&self, command: Vec<u8>) -> Result<Proposed, ProposeError> {
        let began = Instant::now();
        let proposed = self.node.propose(command).await;
        if proposed.is_ok() {
            self.commits.observe(began.elapsed());
        }
        proposed
    }

    /// The fleet, if this member leads.
    #[must_use]
    pub fn fleet_here(&self) -> Option<FleetView> {
        match self.kept(|keeper, state, now| {
            Told::Fleet(FleetView { proxies: keeper.fleet(state, now), frozen: keeper.frozen().clone() })
        }) {
            Told::Fleet(fleet) => Some(fleet),
            _ => None,
        }
    }

    /// What has to be in the log before it may be said is waited for.
    async fn keep_alive_here(&self, ids: &[u64]) -> Told {
        let began = Instant::now();
        let mut noted = self.kept.subscribe();
        loop {
            noted.borrow_and_update();
            let mut wait = false;
            let told = self.kept(|keeper, state, now| match keeper.handle_keep_alive(state, ids, now) {
                Kept::Missing(missing) => Told::Missing(missing),
                Kept::Wait => {
                    wait = true;
                    Told::NotLeader
                }
            });
            // A lease that was granted a moment ago may not be published here yet: that it is not there is said of the whole log.
            if matches!(&told, Told::Missing(missing) if !missing.is_empty()) {
                return match self.node.read_barrier(Read::Index).await {
                    Ok(()) => self.kept(|keeper, state, now| match keeper.handle_keep_alive(state, ids, now) {
                        Kept::Missing(missing) => Told::Missing(missing),
                        Kept::Wait => Told::NotLeader,
                    }),
                    Err(error) => unproposed(&error),
                };
            }
            if !wait {
                return told;
            }
            self.wake.notify_one();
            let Some(left) = ASK_TIMEOUT.checked_sub(began.elapsed()) else { return Told::NotLeader };
            if !matches!(tokio::time::timeout(left, noted.changed()).await, Ok(Ok(()))) {
                return Told::NotLeader;
            }
        }
    }

    /// As leader, or not at all. One that was stopped and goes on is none, before it has noticed: another may lead.
    fn kept(&self, act: impl FnOnce(&mut Keeper, &State, std::time::Instant) -> Told) -> Told {
        let state = self.state();
        let status = self.node.status();
        match &mut *self.keeper() {
            Some((term, keeper)) if status.role == Role::Leader && status.term == *term => {
                act(keeper, &state, Instant::now().into_std())
            }
            _ => Told::NotLeader,
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

    async fn member(&self, change: &MemberChange) -> Result<(), MemberError> {
        match change {
            MemberChange::Join { node, info, voter, replace } => {
                let info =
                    MemberInfo { name: info.0.clone(), peer_address: info.1.clone(), api_address: info.2.clone() };
                let known = self.node.status();
                if !known.voters.iter().chain(&known.learners).any(|member| member.node == *node) {
                    self.node.add_learner(*node, info).await?;
                }
                match replace {
                    Some(old) => self.node.replace(*old, *node).await,
                    None if *voter && !known.voters.iter().any(|member| member.node == *node) => {
                        self.node.promote(*node).await
                    }
                    None => Ok(()),
                }
            }
            MemberChange::Promote(node) => self.node.promote(*node).await,
            MemberChange::Remove(node) => self.node.remove(*node).await,
            MemberChange::Transfer(to) => self.node.transfer(*to).await,
        }
    }

    /// Does what the leader has to do, while this member leads. Returns when the member must stop, with the reason.
    pub async fn run(&self) -> String {
        // Side by side: what waits for a quorum must keep nobody from seeing that there is none.
        tokio::select! {
            biased;
            () = self.hub.run(self.published.clone()) => "the state machine is gone".into(),
            failure = self.node.failed() => failure.to_string(),
            why = self.watch_failure() => why,
            never = self.watch_reign() => match never {},
            never = self.agree_on_rules() => match never {},
            never = self.watch_removal() => match never {},
            never = self.work() => match never {},
        }
    }

    async fn watch_failure(&self) -> String {
        let mut published = self.published.clone();
        match published.wait_for(|now| now.failed.is_some()).await {
            Ok(now) => now.failed.clone().unwrap_or_default(),
            Err(_) => "the state machine is gone".into(),
        }
    }

    /// Sees who leads, and has the keeper know when nobody could be heard.
    async fn watch_reign(&self) -> Infallible {
        let mut status = self.node.watch_status();
        let mut led = false;
        let mut over = self.state().rollouts.last().map_or(0, |(id, _)| *id);
        loop {
            let now = self.node.status();
            let leads = now.role == Role::Leader;
            self.note_reign(&now);
            over = self.note_rollouts(&self.state(), over);
            if std::mem::replace(&mut led, leads) && !leads {
                self.lapses.fetch_add(1, Relaxed);
                let members = self.who_answers();
                tracing::warn!(
                    term = now.term,
                    role = now.role.name(),
                    members,
                    "this member leads no more, or has no quorum"
                );
            }
            let follows = leads || (now.leader.is_some() && matches!(now.role, Role::Follower | Role::Learner));
            if follows {
                *self.leader_seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            let lead = if follows { Lead::Followed } else { Lead::Lost };
            self.lead.send_if_modified(|known| {
                // Nobody comes back under an id that was removed.
                *known != Lead::Removed && std::mem::replace(known, lead) != lead
            });
            if let Some((term, keeper)) = &mut *self.keeper() {
                match leads && *term == now.term {
                    true => keeper.handle_led(Instant::now().into_std()),
                    false => keeper.handle_lapse(),
                }
            }
            tokio::select! {
                biased;
                () = changed(&mut status) => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Finds out that this member was removed: its leader stops to speak to it, often before it has heard why.
    async fn watch_removal(&self) -> Infallible {
        let mut lead = self.lead.subscribe();
        loop {
            let _ = lead.wait_for(|lead| *lead == Lead::Lost).await;
            tokio::time::sleep(REMOVAL_PACE).await;
            if *lead.borrow() != Lead::Lost || !self.others_have_removed_it().await {
                continue;
            }
            self.lead.send_replace(Lead::Removed);
            tracing::error!(
                "this member was removed from the control plane: it serves nobody any more; end the process, or give it an empty \
                 directory and let it join anew"
            );
            return std::future::pending().await;
        }
    }

    /// One that knows is enough: what is in a member's list was decided by a quorum.
    async fn others_have_removed_it(&self) -> bool {
        let status = self.node.status();
        let Ok(question) = Ask::Removed(status.id).encode(self.state().rules) else { return false };
        for member in status.voters.iter().chain(&status.learners).filter(|member| member.node != status.id) {
            let answer = self.node.ask(member.node, &member.info, question.clone(), REMOVAL_PACE).await;
            if answer.is_ok_and(|answer| matches!(Told::decode(&answer), Told::Removed(true))) {
                return true;
            }
        }
        false
    }

    /// Proposes what is due, while this member leads.
    async fn work(&self) -> Infallible {
        let mut status = self.node.watch_status();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut checkpoint = 0;
        loop {
            let due = tokio::select! {
                biased;
                _ = tick.tick() => true,
                () = self.wake.notified() => false,
                _ = status.wait_for(|status| status.role == Role::Leader && status.term > self.kept.borrow().0) => false,
            };
            let now = self.node.status();
            if now.role != Role::Leader || !self.begin(now.term).await {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let state = self.state();
            let commands = match &mut *self.keeper() {
                Some((term, keeper)) if *term == now.term => {
                    let (at_ms, time) = ((self.wall)(), Instant::now().into_std());
                    match due {
                        true => keeper.handle_tick(&state, now.id, at_ms, time),
                        false => keeper.handle_wake(&state, now.id, at_ms, time),
                    }
                }
                _ => continue,
            };
            for command in commands {
                self.lead_in(now.term, &command).await;
            }
            if state.revision >= checkpoint + CHECKPOINT_EVERY {
                checkpoint = state.revision;
                let digest = state.digest.to_string();
                self.lead(&Command::Checkpoint { revision: state.revision, digest }).await;
            }
        }
    }

    /// A leader keeps nothing before it has applied all that was decided under those before it. `false`: it leads no more.
    async fn begin(&self, term: u64) -> bool {
        if self.kept.borrow().0 == term {
            return true;
        }
        if self.node.read_barrier(Read::Index).await.is_err() || self.node.status().term != term {
            return false;
        }
        *self.keeper() = Some((term, Keeper::new(Instant::now().into_std()).with_forget(self.forget)));
        self.kept.send_replace((term, 0));
        true
    }

    /// Since when who leads now has led, as far as it was seen here. Not to hear of it for a moment ends no reign.
    fn note_reign(&self, now: &Status) {
        let Some((node, info)) = &now.leader else {
            if let (Some((term, node)), false) = (self.reign().0, self.leaderless.swap(true, Relaxed)) {
                tracing::warn!(
                    term,
                    node,
                    "the leader is not heard of any more: an election follows, if a quorum is there"
                );
            }
            return;
        };
        let again = self.leaderless.swap(false, Relaxed);
        let leader = Some((now.term, *node));
        let mut reign = self.reign();
        if reign.0 == leader {
            if again {
                tracing::info!(term = now.term, leader = info.name, node, "the leader is heard of again");
            }
            return;
        }
        if self.led.swap(true, Relaxed) {
            self.leader_changes.fetch_add(1, Relaxed);
        }
        let (own, after) = (*node == now.id, reign.0.map(|(_, node)| node));
        tracing::info!(term = now.term, leader = info.name, node, own, ?after, "a member leads");
        *reign = (leader, Instant::now());
    }

    /// Counts rollouts after `counted` that are over; what to go on after.
    fn note_rollouts(&self, state: &State, counted: u64) -> u64 {
        let mut last = counted;
        for (id, rollout) in state.rollouts.range(counted + 1..) {
            let over = match &rollout.phase {
                Phase::Committed(_) => &self.rollouts_over[0],
                Phase::Aborted(_) => &self.rollouts_over[1],
                Phase::Preparing | Phase::Stage(_) => break,
            };
            over.fetch_add(1, Relaxed);
            last = *id;
        }
        last
    }

    fn reign(&self) -> MutexGuard<'_, Reign> {
        self.reign.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the leader has led for long enough to have heard of every proxy that lives.
    #[must_use]
    pub fn knows_fleet(&self) -> bool {
        let reign = self.reign();
        reign.0.is_some() && reign.1.elapsed() > PROXY_TTL
    }

    /// As leader, has the newest rules hold that all members know.
    async fn agree_on_rules(&self) -> Infallible {
        let mut told = String::new();
        loop {
            tokio::time::sleep(RULES_PACE).await;
            let (state, status) = (self.state(), self.node.status());
            if state.rules >= RULES || state.cluster.is_empty() || status.role != Role::Leader {
                continue;
            }
            match self.rules_of_all(&status).await {
                Ok(version) if version > state.rules => drop(self.lead(&Command::Rules { version }).await),
                Ok(_) => {}
                Err(without) if without == told => {}
                Err(without) => {
                    tracing::info!(
                        members = without,
                        rules = RULES,
                        "these members are of an earlier version, or away: until all have been upgraded, the cluster goes \
                         by the rules of that version"
                    );
                    told = without;
                }
            }
        }
    }

    /// The newest rules that every member knows, those without a vote too; or the names of those that know none.
    async fn rules_of_all(&self, status: &Status) -> Result<u32, String> {
        let others = status.voters.iter().chain(&status.learners).filter(|member| member.node != status.id);
        let mut version = RULES;
        let mut without = Vec::new();
        for member in others {
            let Ok(question) = Ask::Rules.encode(0) else { return Ok(0) };
            match self.ask(member.node, &member.info, question).await {
                Told::Rules(known) if known > 0 => version = version.min(known),
                _ => without.push(member.info.name.as_str()),
            }
        }
        if without.is_empty() { Ok(version) } else { Err(without.join(", ")) }
    }

    /// Proposes what the keeper of this term has seen: another would see something else.
    async fn lead_in(&self, term: u64, command: &Command) {
        if self.node.status().term == term && self.lead(command).await {
            match &mut *self.keeper() {
                Some((of, keeper)) if *of == term => keeper.handle_decided(command),
                _ => {}
            }
        }
        if matches!(command, Command::LeaseLives { .. }) {
            self.kept.send_modify(|(_, count)| *count += 1);
        }
    }

    /// Proposes as leader; a leader that is none any more has nothing to propose. `true`: it is decided, and applied here.
    async fn lead(&self, command: &Command) -> bool {
        let command = self.still_fits(command).await;
        if let Err(error) = self.is_known_to_all(&command) {
            tracing::error!(%error, "a leader's proposal");
            return false;
        }
        let Ok(bytes) = to_bytes(&*command) else { return false };
        match self.put(bytes).await {
            Ok(proposed) => {
                // What follows may be due at once.
                self.wake.notify_one();
                if let Err(refusal) = decode_answer(&proposed.answer) {
                    tracing::debug!(code = refusal.code, %refusal, "a leader's proposal was refused");
                    return false;
                }
                match &*command {
                    Command::RolloutAbort { id, reason } => tracing::warn!(rollout = id, reason, "rollout aborted"),
                    Command::RolloutCommit { id, .. } => tracing::info!(rollout = id, "rollout committed"),
                    Command::LeaseExpire { ids, .. } => tracing::warn!(leases = ids.len(), "leases have expired"),
                    Command::RaiseEpoch { to, .. } => tracing::warn!(epoch = to, "the epoch is raised"),
                    Command::Rules { version } => tracing::info!(rules = version, "all members know these rules"),
                    _ => {}
                }
                self.applied(proposed.index).await
            }
            Err(error) => {
                tracing::debug!(%error, "a leader's proposal came to nothing");
                false
            }
        }
    }

    /// A rollout that does not fit what has changed since it began ends here, or the leader would ask for ever.
    async fn still_fits<'a>(&self, command: &'a Command) -> Cow<'a, Command> {
        if let Command::RolloutCommit { id, .. } = command
            && self.state().rules > 0
            && let Err(refusal) = self.judge_here(command).await
        {
            let reason = format!("it does not fit what has changed meanwhile: {refusal}");
            return Cow::Owned(Command::RolloutAbort { id: *id, reason });
        }
        Cow::Borrowed(command)
    }
}

/// Waits for the next change. Of a member that has stopped there is none: who waits for nothing else waits for ever, and does not
/// ask again and again.
async fn changed(status: &mut watch::Receiver<Status>) {
    if status.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn unproposed(error: &ProposeError) -> Told {
    match error {
        ProposeError::NotLeader { .. } | ProposeError::Unavailable | ProposeError::Stopped => Told::NotLeader,
        ProposeError::TooLarge { .. } => {
            let refusal = Refusal { code: "too_large".into(), message: error.to_string(), findings: Vec::new() };
            let answer: Answer = Err(refusal);
            to_bytes(&answer).map_or(Told::Unknown, |answer| Told::Proposed(0, answer))
        }
        _ => Told::Unknown,
    }
}

/// Wall time, for people to read: nothing is decided by it.
#[must_use]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
