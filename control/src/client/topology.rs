//! The topology as a proxy knows it, and how it came to know: what follows it writes here, whatever it is followed by.

use super::cache::Cache;
use super::random::Random;
use crate::watch::view::{Handled, View, ViewError};
use crate::watch::wire::Message;
use ringway_config::model::MemberUrl;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// A member that has not heard of a leader for this long, in milliseconds, is left for another that has.
const STALE_MS: u64 = 2_000;

/// What this proxy knows, and has heard.
pub(crate) struct Topology {
    cache: Cache,
    /// This proxy's name in the fleet.
    pub(super) name: String,
    pub(super) view: watch::Sender<Option<Arc<View>>>,
    state: Mutex<Progress>,
    wanted: Notify,
    /// Of this process.
    instance: u64,
}

#[derive(Default)]
pub(super) struct Progress {
    /// The member that is followed now.
    pub(super) member: Option<String>,
    /// The last word of any member.
    pub(super) heard: Option<Instant>,
    /// The topology came from the disk, and from nobody since.
    pub(super) from_disk: bool,
    /// Why there is no connection.
    pub(super) error: Option<String>,
    /// Why what was said last is no topology.
    pub(super) refused: Option<String>,
    /// The members are behind what is in force here.
    pub(super) ahead: Option<String>,
    /// Changes did not lead where the member is: the next connection asks for the whole.
    pub(super) anew: bool,
    /// Where the whole was told last because of it: what differs there still is not asked for once more.
    pub(super) told_whole: Option<(u64, u64)>,
    pub(super) reconnects: u64,
    /// The member that is worth to be followed next.
    pub(super) next: Option<usize>,
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

impl Topology {
    /// What was stored last, if anything was.
    pub(super) fn new(cache: Cache, name: String) -> Self {
        let stored = cache.load();
        let state = Progress { from_disk: stored.is_some(), ..Progress::default() };
        let (view, _) = watch::channel(stored.map(Arc::new));
        let instance = Random::new(&name).next();
        Self { cache, name, view, state: Mutex::new(state), wanted: Notify::new(), instance }
    }

    /// What this process is told apart by from others in its proxy's name; never 0.
    #[must_use]
    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// The topology as it is known, and as it changes.
    #[must_use]
    pub(crate) fn view(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.view.subscribe()
    }

    /// Where it is kept.
    #[must_use]
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How it goes.
    #[must_use]
    pub(super) fn standing(&self, source: &'static str) -> Standing {
        let state = self.state();
        let source = match (self.view.borrow().is_some(), state.from_disk) {
            (false, _) => "none",
            (true, true) => "disk",
            (true, false) => source,
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

    pub(super) fn state(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the next heartbeat at once: something has happened that the fleet waits for.
    pub(crate) fn heartbeat_now(&self) {
        self.wanted.notify_one();
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
                // The whole comes first: a heartbeat may overtake it.
                Message::Ping(_) | Message::Rollout(_) | Message::Loads(_) | Message::LoadsConfirmed(_) => Ok(None),
                Message::Delta(delta) => Err(ViewError::Gap { epoch: delta.epoch, previous: delta.previous }),
            };
        };
        let whole = match &message {
            Message::Snapshot(snapshot) => Some((snapshot.epoch, snapshot.revision, snapshot.digest.clone())),
            _ => None,
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
                    self.heartbeat_now();
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
                self.heartbeat_now();
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

    /// etcd has given a heartbeat.
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
            // What was deleted last leaves no revision behind for a reader that begins anew.
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
            self.heartbeat_now();
        }
    }

    /// A number from 0 to 1 that spreads proxies in time.
    pub(crate) fn spread(&self) -> f64 {
        Random::new(&self.name).unit()
    }

    /// Somebody waits for the next heartbeat.
    pub(crate) async fn heartbeat_wanted(&self) {
        self.wanted.notified().await;
    }
}

/// A heartbeat of a member that has lost its leader.
pub(crate) fn is_stale(message: &Message) -> bool {
    matches!(message, Message::Ping(ping) if ping.leader_age_ms.is_none_or(|age| age > STALE_MS))
}
