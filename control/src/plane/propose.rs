//! Proposals, reads and heartbeats: they find the leader wherever they are made.

use super::at_work::{Plane, changed};
use super::error::PlaneError;
use super::lead::LOOK;
use super::questions::{Question, Reply};
use super::views::{FleetView, MemberChange};
use crate::Code;
use crate::consensus::MemberInfo;
use crate::consensus::replica::decode_answer;
use crate::lessor::PROXY_TTL;
use crate::state::judge::{self};
use crate::state::{Answer, Applied, Basis, Change, Command, Refusal, Trial, to_bytes};
use crate::watch::wire::{FleetBrief, Heartbeat};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// How long a request waits for a leader: an election takes about half of it.
const LEADER_WAIT: Duration = Duration::from_millis(1000);
/// One that was named and did not answer as such is asked again after this, or when another is named.
const LEADER_RETRY: Duration = Duration::from_millis(100);
/// How long a call to the leader may take.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(6);
/// How often a change is judged again because what it stands on has changed meanwhile.
const ATTEMPTS_MAX: usize = 10;
/// How long a rollout waits until the leader has heard of every proxy.
const FLEET_WAIT: Duration = Duration::from_secs(9);

impl Plane {
    /// Puts a command into the log, after it has been judged; on return it is applied here. Wherever the leader is, once.
    ///
    /// # Errors
    /// See [`PlaneError`].
    pub async fn propose(&self, command: &Command) -> Result<Applied, PlaneError> {
        self.proposals.fetch_add(1, Relaxed);
        let done = self.propose_judged(command).await;
        if matches!(done, Err(PlaneError::Refused(_))) {
            self.refusals.fetch_add(1, Relaxed);
        }
        done
    }

    async fn propose_judged(&self, command: &Command) -> Result<Applied, PlaneError> {
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
        let told = self.with_leader(Question::Propose(to_bytes(command)?)).await?;
        let Reply::Proposed(index, answer) = told else { return Err(PlaneError::Unknown) };
        self.applied(index).await;
        Ok(decode_answer(&answer))
    }

    /// No entry may stop the members that run the build before this one.
    pub(super) fn is_known_to_all(&self, command: &Command) -> Result<(), PlaneError> {
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

    pub(super) async fn judge_here(&self, command: &Command) -> Result<Option<Basis>, Refusal> {
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
        match self.with_leader(Question::Barrier).await? {
            Reply::Barrier(index) if self.applied(index).await => Ok(()),
            _ => Err(PlaneError::NoLeader),
        }
    }

    /// Heartbeats of leases; the answer are those that are not there.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`].
    pub async fn keep_alive(&self, ids: Vec<u64>) -> Result<Vec<u64>, PlaneError> {
        match self.with_leader(Question::KeepAlive(ids)).await? {
            Reply::Missing(ids) => Ok(ids),
            _ => Err(PlaneError::NoLeader),
        }
    }

    /// A proxy's heartbeat.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`].
    pub async fn heartbeat(&self, name: String, heartbeat: Heartbeat) -> Result<(), PlaneError> {
        self.with_leader(Question::Heartbeat(name, Box::new(heartbeat))).await.map(drop)
    }

    /// A proxy that ends in order, or is to be forgotten; `instance`: only if no other process has spoken in its name since.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`]; a refusal where it is not known.
    pub async fn sign_off(&self, name: String, instance: Option<u64>) -> Result<(), PlaneError> {
        match self.with_leader(Question::SignOff(name.clone(), instance)).await? {
            Reply::Done => Ok(()),
            Reply::Missing(_) => {
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
        match self.with_leader(Question::Fleet).await? {
            Reply::Fleet(fleet) => Ok(fleet),
            _ => Err(PlaneError::NoLeader),
        }
    }

    /// The fleet in brief. A leader of an earlier version is asked for all of it, and no rings are known then.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`].
    pub async fn brief(&self) -> Result<FleetBrief, PlaneError> {
        match self.with_leader(Question::Brief).await {
            Ok(Reply::Brief(brief)) => Ok(*brief),
            Err(PlaneError::Unknown) => {
                let fleet = self.fleet().await?;
                let kinds = vec![None; fleet.proxies.len()];
                Ok(FleetBrief {
                    proxies: fleet.proxies,
                    kinds,
                    frozen: fleet.frozen,
                    events: fleet.events,
                    ..FleetBrief::default()
                })
            }
            Ok(_) => Err(PlaneError::NoLeader),
            Err(error) => Err(error),
        }
    }

    /// An epoch that no proxy can have seen: above the cluster's, a backup's, and what live proxies report, and not before
    /// the time. The leader believes only so much, see `lessor/ahead.rs`.
    ///
    /// # Errors
    /// [`PlaneError::NoLeader`].
    pub async fn next_epoch(&self, backup: u64) -> Result<u64, PlaneError> {
        let fleet = self.fleet().await?;
        let (state, at_ms) = (self.state(), (self.wall)());
        let seen = crate::lessor::seen_epoch(&state, &fleet.proxies, at_ms);
        Ok(state.epoch.max(backup).max(seen).saturating_add(1).max(at_ms / 1000))
    }

    /// Changes which members there are.
    ///
    /// # Errors
    /// See [`PlaneError`].
    pub async fn change_members(&self, change: MemberChange) -> Result<(), PlaneError> {
        match self.with_leader(Question::Member(change)).await? {
            Reply::Done => Ok(()),
            Reply::Member(why) => Err(PlaneError::Member(why)),
            _ => Err(PlaneError::Unknown),
        }
    }

    /// Waits until an entry is applied here.
    pub(super) async fn applied(&self, index: u64) -> bool {
        let mut published = self.published.clone();
        let wait = published.wait_for(|now| now.index >= index || now.failed.is_some());
        matches!(tokio::time::timeout(ASK_TIMEOUT, wait).await, Ok(Ok(now)) if now.failed.is_none())
    }

    async fn with_leader(&self, ask: Question) -> Result<Reply, PlaneError> {
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
                None => Reply::NotLeader,
            };
            match told {
                Reply::NotLeader if began.elapsed() < LEADER_WAIT => {
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
                Reply::NotLeader => return Err(PlaneError::NoLeader),
                Reply::Unknown => return Err(PlaneError::Unknown),
                told => return Ok(told),
            }
        }
    }

    /// As [`Plane::ask`], for what may be asked again: it ends when the leader is not heard of any more.
    async fn ask_while_it_leads(&self, leader: u64, info: &MemberInfo, bytes: Vec<u8>) -> Reply {
        let mut status = self.node.watch_status();
        let lost = status.wait_for(|status| status.leader.as_ref().is_none_or(|(now, _)| *now != leader));
        tokio::select! {
            biased;
            told = self.ask(leader, info, bytes) => match told {
                Reply::Unknown => Reply::NotLeader,
                told => told,
            },
            _ = lost => Reply::NotLeader,
        }
    }

    pub(super) async fn ask(&self, leader: u64, info: &MemberInfo, bytes: Vec<u8>) -> Reply {
        match self.node.ask(leader, info, bytes, ASK_TIMEOUT).await {
            Ok(answer) => Reply::decode(&answer),
            // Never sent: as if there were no leader.
            Err(error) if error.is_unsent() => Reply::NotLeader,
            Err(_) => Reply::Unknown,
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
                let leadership = self.leadership().1;
                tokio::select! {
                    biased;
                    () = changed(&mut status) => {}
                    () = tokio::time::sleep_until((leadership + PROXY_TTL).max(Instant::now() + LOOK)) => {}
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
