//! A member at work: what it has at hand.

use super::health::Roll;
use super::tables::Loads;
use super::views::LeaderSeen;
use crate::consensus::replica::Published;
use crate::consensus::{Node, Status};
use crate::lessor::{Lessor, PROXY_FORGET};
use crate::state::judge::{self, Guards, Judge};
use crate::state::parsed::Parsed;
use crate::state::{Command, State};
use crate::store::latency::Latency;
use crate::watch::hub::Hub;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

/// Judgements that read texts at a time: each has a core for itself.
const JUDGEMENTS_MAX: usize = 2;
/// Leaders that are remembered.
const LEADERS_MAX: usize = 32;

/// A member at work.
pub struct Plane {
    pub(super) node: Node,
    pub(super) published: watch::Receiver<Published>,
    /// Of the watch streams.
    pub hub: Hub,
    pub(super) lessor: Mutex<Option<(u64, Lessor)>>,
    pub(super) wake: Notify,
    /// The term that the lessor is of, and how many of its entries about leases have come to an end.
    pub(super) kept: watch::Sender<(u64, u64)>,
    /// When a leader was last heard of, and which.
    pub(super) leader_seen: Mutex<Option<Instant>>,
    /// Term and leader, and since when they have been known here.
    pub(super) leadership: Mutex<Leadership>,
    /// Writes that were proposed here.
    pub proposals: AtomicU64,
    /// Those of them that were refused.
    pub refusals: AtomicU64,
    /// How long what this leader proposed took, until it was committed and applied here.
    pub commits: Latency,
    /// Leaders that came after another, as seen here.
    pub leader_changes: AtomicU64,
    /// The last of them, oldest first.
    pub(super) leaders: Mutex<VecDeque<LeaderSeen>>,
    /// Times that this member led, and then had no quorum, or another leader.
    pub lapses: AtomicU64,
    /// Rollouts that have ended since this member started: committed, aborted.
    pub rollouts_over: [AtomicU64; 2],
    /// A leader has been known here.
    pub(super) led: AtomicBool,
    /// None is heard of.
    pub(super) leaderless: AtomicBool,
    /// For the clients that are served here: whether this member is of use.
    pub(super) lead: watch::Sender<Lead>,
    /// [`unix_ms`], or a simulation's.
    pub(super) wall: fn() -> u64,
    /// The lessor's time.
    pub(super) clock: fn() -> std::time::Instant,
    pub(super) judge: Arc<Judge>,
    /// For whoever judges, and the lessor.
    pub(super) parsed: Arc<Parsed>,
    /// After how long a proxy that is not heard of is forgotten.
    pub(super) forget: Duration,
    pub(super) roll: Roll,
    /// Loads of the fleet, and tables of them.
    pub loads: Loads,
    /// Places for judgements that take long, away from whoever serves; `None`: they are judged where they are asked for.
    pub(super) judgements: Option<Semaphore>,
}

pub(super) type Leadership = (Option<(u64, u64)>, Instant);

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
            lessor: Mutex::new(None),
            wake: Notify::new(),
            kept: watch::Sender::new((0, 0)),
            leader_seen: Mutex::new(None),
            leadership: Mutex::new((None, Instant::now())),
            proposals: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            commits: Latency::default(),
            leader_changes: AtomicU64::new(0),
            leaders: Mutex::default(),
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
            roll: Roll::default(),
            loads: Loads::default(),
            judgements: Some(Semaphore::new(JUDGEMENTS_MAX)),
        }
    }

    /// With other clocks, and without threads.
    #[cfg(test)]
    pub(crate) fn with_clocks(self, wall: fn() -> u64, clock: fn() -> std::time::Instant) -> Self {
        Self { wall, clock, judgements: None, parsed: Arc::new(Parsed::at_once()), ..self }
    }

    /// The time by which tables of loads age here.
    #[must_use]
    pub fn now(&self) -> std::time::Instant {
        (self.clock)()
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
    pub(crate) fn with_judge(
        self,
        judge: fn(&State, &Command) -> Result<Option<crate::state::Basis>, crate::state::Refusal>,
    ) -> Self {
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

    pub(super) fn lessor(&self) -> MutexGuard<'_, Option<(u64, Lessor)>> {
        self.lessor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since a leader with a quorum was known here; `None`: never.
    #[must_use]
    pub fn leader_age(&self) -> Option<Duration> {
        let seen = self.leader_seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map(|at| at.elapsed())
    }

    /// Since when the present leader has led, as far as it was seen here.
    #[must_use]
    pub fn led_for(&self) -> Option<Duration> {
        let (leader, since) = *self.leadership.lock().unwrap_or_else(PoisonError::into_inner);
        leader.map(|_| since.elapsed())
    }

    /// Leaders that were seen here lately, oldest first.
    #[must_use]
    pub fn leaders(&self) -> Vec<LeaderSeen> {
        self.leaders.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn note_leader(&self, seen: LeaderSeen) {
        let mut leaders = self.leaders.lock().unwrap_or_else(PoisonError::into_inner);
        if leaders.len() >= LEADERS_MAX {
            leaders.pop_front();
        }
        leaders.push_back(seen);
    }

    /// What the fleet's objects are together, or why they are no configuration. May take as long as reading them all does.
    pub async fn configuration(&self) -> Option<Arc<Result<ringway_config::Loaded, ringway_config::Diagnostics>>> {
        let (parsed, state) = (Arc::clone(&self.parsed), self.state());
        tokio::task::spawn_blocking(move || parsed.configuration(&state)).await.ok()
    }

    /// How this member stands to the leader, as it changes.
    #[must_use]
    pub fn lead_watched(&self) -> watch::Receiver<Lead> {
        self.lead.subscribe()
    }

    /// Whether this member counts, as the leader of that term, how long leases are silent.
    #[cfg(test)]
    pub(crate) fn keeps(&self, term: u64) -> bool {
        self.kept.borrow().0 == term
    }

    /// The others have removed this member.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        *self.lead.borrow() == Lead::Removed
    }
}

/// Waits for the next change. Of a member that has stopped there is none: a task that waits for nothing else waits for ever, and does not
/// ask again and again.
pub(super) async fn changed(status: &mut watch::Receiver<Status>) {
    if status.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Wall time, for people to read: nothing is decided by it.
#[must_use]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
