//! How long each lease still lives. Times are the lessor's own, see [`super::clock`].
//!
//! Most leases are silent only for a moment, and what they are silent for is in the leader's memory alone. Of the others the log says
//! how much of their lives is left ([`Command::LeaseLives`]): a leader that follows begins with that, not with a full TTL,
//! or a dead lease would live for as long as leaders change more often than it is due. This is safe:
//!
//! * From the moment that such an entry is proposed, a heartbeat is answered only after another entry has said that the lease has its
//!   full TTL again. So what an answered heartbeat has promised is never less than what the log says.
//! * Only time in which this leader could hear counts as silence. Between the last entry and a new leader's beginning
//!   nothing counts.
//! * A new leader has applied the whole log before it keeps anything.
//! * Whatever the log says, a new leader grants [`BEGIN_MIN`], in which holders find it.

use crate::state::{Command, State};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::time::{Duration, Instant};

/// What a new leader grants at least, in which those find it that knew another.
const BEGIN_MIN: Duration = Duration::from_millis(1500);
/// Between two entries about one silent lease: an eighth of its life, within these.
const STEP_MIN: Duration = Duration::from_millis(500);
const STEP_MAX: Duration = Duration::from_secs(30);
/// The first entry of a leader about a lease that it has not heard; each further one after twice the time.
const FIRST_STEP: Duration = Duration::from_secs(1);
/// Leases in one entry, and entries at a time.
const ENTRY_MAX: usize = 1000;
const ENTRIES_MAX: usize = 8;

/// See the module.
pub(super) struct Leases {
    /// When this leader began.
    began: Instant,
    lives: HashMap<u64, Life>,
    /// When to look at each lease next. What has been heard of since is corrected then: a heartbeat costs no search.
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    overdue: BTreeSet<u64>,
    /// Those whose end has been proposed: nothing that is said now makes them live on.
    ending: BTreeSet<u64>,
    /// Those that were heard of although the log says that they are silent.
    reviving: BTreeSet<u64>,
    /// Leases of this epoch with lower ids are known.
    known: (u64, u64),
    /// Leases that have been looked at.
    pub(super) looks: u64,
}

#[derive(Clone, Copy)]
struct Life {
    ttl: Duration,
    deadline: Instant,
    /// Under this leader.
    heard: bool,
    /// The least of what the log may say is left.
    logged: Duration,
}

impl Life {
    fn left(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }

    fn is_whole(&self) -> bool {
        self.logged >= self.ttl
    }

    /// When the log should hear of its silence; `None`: there is nothing more to say.
    fn mark_at(&self, began: Instant) -> Option<Instant> {
        let step = (self.ttl / 8).clamp(STEP_MIN, STEP_MAX);
        // Who renews at a third, as is usual, is never in the log.
        let silent = self.logged.checked_sub(step).map(|left| {
            let left = left.min(self.ttl.mul_f64(0.6));
            self.deadline.checked_sub(left).unwrap_or(began)
        });
        if self.heard {
            return silent;
        }
        // Nothing was heard under this leader: if it is a short one like those before, only such entries make silences add up.
        let marked = self.deadline.checked_sub(self.logged).unwrap_or(began).max(began);
        let unheard = marked + FIRST_STEP.max(marked - began);
        let unheard = (unheard < self.deadline).then_some(unheard);
        silent.into_iter().chain(unheard).min()
    }

    /// When to look at it next.
    fn next(&self, began: Instant, marks: bool) -> Instant {
        let mark = self.mark_at(began).filter(|_| marks);
        mark.map_or(self.deadline, |at| at.min(self.deadline))
    }
}

/// What holders of leases are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// All but these live.
    Missing(Vec<u64>),
    /// It cannot be said before [`Command::LeaseLives`] is decided.
    Wait,
}

impl Leases {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            lives: HashMap::new(),
            queue: BinaryHeap::new(),
            overdue: BTreeSet::new(),
            ending: BTreeSet::new(),
            reviving: BTreeSet::new(),
            known: (0, 0),
            looks: 0,
        }
    }

    /// Heartbeats. One whose end is on its way through the log counts as gone: whoever was told that it lives would be told
    /// too much.
    pub(super) fn keep(&mut self, state: &State, ids: &[u64], now: Instant) -> Kept {
        let mut missing = Vec::new();
        let mut wait = false;
        for id in ids {
            let Some(lease) = state.leases.get(id).filter(|_| !self.ending.contains(id)) else {
                missing.push(*id);
                continue;
            };
            let ttl = Duration::from_millis(lease.ttl_ms);
            let logged = logged(state, *id, ttl);
            let queue = &mut self.queue;
            let life = self.lives.entry(*id).or_insert_with(|| {
                queue.push(Reverse((now, *id)));
                Life { ttl, deadline: now, heard: false, logged }
            });
            (life.deadline, life.heard) = (now + ttl, true);
            if self.overdue.remove(id) {
                self.queue.push(Reverse((now, *id)));
            }
            if !life.is_whole() {
                self.reviving.insert(*id);
                wait = true;
            }
        }
        if wait { Kept::Wait } else { Kept::Missing(missing) }
    }

    /// Takes in what has been granted since, and finds those that are due. What has not changed costs nothing.
    pub(super) fn follow(&mut self, state: &State, leader: u64, now: Instant) -> Vec<Command> {
        if self.known.0 != state.epoch {
            // After a restore, leases are others, and their ids may be lower.
            let ending = std::mem::take(&mut self.ending);
            *self = Self { ending, began: self.began, looks: self.looks, ..Self::new(now) };
            self.known = (state.epoch, 0);
        }
        for (id, lease) in state.leases.range(self.known.1..) {
            self.looks += 1;
            self.lives.entry(*id).or_insert_with(|| {
                self.queue.push(Reverse((now, *id)));
                let ttl = Duration::from_millis(lease.ttl_ms);
                let logged = logged(state, *id, ttl);
                // Granted just now or before this leader began: its life from here.
                Life { ttl, deadline: now + logged.max(BEGIN_MIN).min(ttl), heard: false, logged }
            });
        }
        self.known.1 = state.next_id;
        self.ending.retain(|id| state.leases.contains_key(id));
        self.overdue.retain(|id| state.leases.contains_key(id));
        if self.lives.len() > 2 * state.leases.size() + ENTRY_MAX {
            self.lives.retain(|id, _| state.leases.contains_key(id));
            self.queue.retain(|Reverse((_, id))| state.leases.contains_key(id));
        }
        self.look(state, leader, now)
    }

    fn look(&mut self, state: &State, leader: u64, now: Instant) -> Vec<Command> {
        let marks = state.rules >= 1;
        let mut silent = Vec::new();
        while let Some(&Reverse((at, id))) = self.queue.peek()
            && at < now
        {
            self.queue.pop();
            self.looks += 1;
            let Some(life) = self.lives.get_mut(&id) else { continue };
            if !state.leases.contains_key(&id) {
                self.lives.remove(&id);
                continue;
            }
            if now > life.deadline {
                self.overdue.insert(id);
                continue;
            }
            if marks && silent.len() < ENTRY_MAX * ENTRIES_MAX && life.mark_at(self.began).is_some_and(|at| at < now) {
                // It may be in the log from here on, whatever is heard of the proposal.
                life.logged = life.left(now);
                silent.push((id, life.logged.as_millis() as u64));
            }
            // Where there was no room for an entry, the next look is due at once.
            self.queue.push(Reverse((life.next(self.began, marks).max(now), id)));
        }
        entries(leader, &silent)
    }

    /// Those that are due.
    pub(super) fn overdue(&self) -> Vec<u64> {
        self.overdue.iter().copied().collect()
    }

    /// What is remembered of leases.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.lives.len().max(self.queue.len())
    }

    /// Their end is proposed.
    pub(super) fn end(&mut self, ids: &[u64]) {
        self.ending.extend(ids);
    }

    /// Gives back their full TTL to those that were heard of.
    pub(super) fn revive(&mut self, leader: u64) -> Vec<Command> {
        // Whoever is heard of again before it is decided is named again.
        let ids: Vec<u64> = self.reviving.iter().copied().take(ENTRY_MAX * ENTRIES_MAX).collect();
        for id in &ids {
            self.reviving.remove(id);
        }
        let whole = |id: &u64| Some((*id, self.lives.get(id)?.ttl.as_millis() as u64));
        entries(leader, &ids.iter().filter_map(whole).collect::<Vec<_>>())
    }

    /// An entry of this leader's is decided: it comes after all that was proposed before.
    pub(super) fn decided(&mut self, lives: &[(u64, u64)]) {
        for (id, left_ms) in lives {
            if let Some(life) = self.lives.get_mut(id) {
                life.logged = Duration::from_millis(*left_ms);
            }
        }
    }
}

/// What the log says is left of a life.
fn logged(state: &State, id: u64, ttl: Duration) -> Duration {
    state.lives.get(&id).map_or(ttl, |left_ms| Duration::from_millis(*left_ms))
}

fn entries(leader: u64, lives: &[(u64, u64)]) -> Vec<Command> {
    lives.chunks(ENTRY_MAX).map(|lives| Command::LeaseLives { leader, lives: lives.to_vec() }).collect()
}
