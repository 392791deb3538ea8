//! What only the leader knows, and only in memory: heartbeats of leases and of proxies. A pure machine: time is passed in,
//! and what should be proposed comes out. A new leader begins with an empty one, and grants everybody a whole life.

mod brake;
#[cfg(test)]
mod tests;

use crate::state::{Command, Key, Object, Observed, Phase, Rollout, State, Step, Vote};
use crate::wire::{Heartbeat, ProxyView};
use brake::Brake;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// A proxy that has not been heard of for this long is offline.
pub(crate) const PROXY_TTL: Duration = Duration::from_secs(7);
/// How a proxy may stand.
pub(crate) const PROXY_STATES: &[&str] = &["behind", "drifted", "offline", "stuck", "synced"];
/// And is forgotten after this.
const PROXY_FORGET: Duration = Duration::from_secs(3600);
/// Proxies that are remembered.
const PROXIES_MAX: usize = 20_000;
/// Largest share of a service's registered backends that agreed health takes out, in percent; one always may be.
const EJECTED_PERCENT_MAX: usize = 30;

/// See the module.
pub struct Keeper {
    /// When it began to lead, or to lead again.
    since: Instant,
    lapsed: bool,
    leases: HashMap<u64, Instant>,
    proxies: BTreeMap<String, Seen>,
    /// Leases whose end has been proposed: nothing that is said now makes them live on.
    ending: BTreeSet<u64>,
    brake: Brake,
    rollout: Option<Watched>,
    votes: BTreeMap<String, Vote>,
}

struct Seen {
    heartbeat: Heartbeat,
    at: Instant,
}

/// The rollout that is under way, as this leader has seen it.
struct Watched {
    id: u64,
    phase: Phase,
    entered: Instant,
    /// What each proxy said first in this phase: only what comes on top of it is the phase's.
    base: BTreeMap<String, Base>,
    /// For how long, all in all, any of the share was without the change. Counted through, or a proxy that starts again
    /// and again would be waited for without end.
    waited: Duration,
    looked: Instant,
    /// Since when all of the share have it.
    baking: Option<Instant>,
}

/// A proxy at the beginning of a phase.
struct Base {
    requests: u64,
    failed: u64,
    stuck: Option<String>,
}

impl Base {
    fn of(heartbeat: &Heartbeat) -> Self {
        Self { requests: heartbeat.requests, failed: heartbeat.failed, stuck: heartbeat.stuck.clone() }
    }
}

impl Watched {
    fn new(rollout: &Rollout, proxies: &BTreeMap<String, Seen>, now: Instant) -> Self {
        Self {
            id: rollout.id,
            phase: rollout.phase.clone(),
            entered: now,
            base: proxies.iter().map(|(name, seen)| (name.clone(), Base::of(&seen.heartbeat))).collect(),
            waited: Duration::ZERO,
            looked: now,
            baking: None,
        }
    }

    fn handle_heartbeat(&mut self, name: &str, heartbeat: &Heartbeat, before: Option<&Seen>) {
        match self.base.get_mut(name) {
            // It was restarted, and counts from nothing.
            Some(base) if before.is_some_and(|before| heartbeat.requests < before.heartbeat.requests) => {
                (base.requests, base.failed) = (0, 0);
            }
            Some(_) => {}
            None => drop(self.base.insert(name.to_owned(), Base::of(heartbeat))),
        }
    }

    /// Fills in what only passing time tells.
    fn handle_observed(&mut self, observed: &mut Observed, now: Instant) {
        if observed.cohort_waiting > 0 {
            self.waited += now - self.looked;
        }
        self.looked = now;
        let complete = observed.cohort_waiting == 0 && observed.cohort_unheard == 0;
        self.baking = complete.then(|| self.baking.unwrap_or(now));
        observed.waited_ms = self.waited.as_millis() as u64;
        observed.baked_ms = self.baking.map(|since| (now - since).as_millis() as u64);
    }
}

impl Keeper {
    /// Of a leader that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            lapsed: false,
            leases: HashMap::new(),
            proxies: BTreeMap::new(),
            ending: BTreeSet::new(),
            brake: Brake::default(),
            rollout: None,
            votes: BTreeMap::new(),
        }
    }

    /// This member does not lead for now, and hears nobody: what could not be said counts against nobody.
    pub fn handle_lapse(&mut self) {
        self.leases.clear();
        self.lapsed = true;
    }

    /// Heartbeats of leases; those that are not there (any more) are the answer. One whose end is on its way through the log
    /// counts as gone: whoever was told that it lives would be told too much.
    pub fn handle_keep_alive(&mut self, state: &State, ids: &[u64], now: Instant) -> Vec<u64> {
        let mut missing = Vec::new();
        for id in ids {
            match state.leases.get(id) {
                Some(lease) if !self.ending.contains(id) => {
                    self.leases.insert(*id, now + Duration::from_millis(lease.ttl_ms));
                }
                _ => missing.push(*id),
            }
        }
        missing
    }

    /// A proxy's heartbeat.
    pub fn handle_heartbeat(&mut self, state: &State, name: String, heartbeat: Heartbeat, now: Instant) {
        if self.proxies.len() >= PROXIES_MAX && !self.proxies.contains_key(&name) {
            return;
        }
        if let (Some((id, vote)), Some(rollout)) = (&heartbeat.vote, state.rollout())
            && *id == rollout.id
            && !rollout.votes.contains_key(&name)
            && rollout.participants.contains(&name)
        {
            self.votes.insert(name.clone(), vote.clone());
        }
        if let Some(watched) = &mut self.rollout {
            watched.handle_heartbeat(&name, &heartbeat, self.proxies.get(&name));
        }
        self.proxies.insert(name, Seen { heartbeat, at: now });
    }

    /// Proxies that are there.
    #[must_use]
    pub fn live(&self, now: Instant) -> Vec<String> {
        self.proxies.iter().filter(|(_, seen)| now - seen.at < PROXY_TTL).map(|(name, _)| name.clone()).collect()
    }

    /// The fleet.
    #[must_use]
    pub fn fleet(&self, state: &State, now: Instant) -> Vec<ProxyView> {
        let view = |(name, seen): (&String, &Seen)| {
            let age = now - seen.at;
            let heartbeat = &seen.heartbeat;
            let current = (state.epoch, state.revision);
            let standing = if age >= PROXY_TTL {
                "offline"
            } else if heartbeat.stuck.is_some() {
                "stuck"
            } else if (heartbeat.epoch, heartbeat.revision) != current {
                "behind"
            } else if heartbeat.canary.is_none() && heartbeat.digest != state.digest.to_string() {
                "drifted"
            } else {
                "synced"
            };
            ProxyView {
                name: name.clone(),
                heartbeat: heartbeat.clone(),
                age_ms: age.as_millis() as u64,
                state: Cow::Borrowed(standing),
            }
        };
        let mut fleet: Vec<ProxyView> = self.proxies.iter().map(view).collect();
        self.mark_ring_drift(&mut fleet);
        fleet
    }

    /// Proxies on one revision whose rings differ: those that are not as most are have drifted.
    fn mark_ring_drift(&self, fleet: &mut [ProxyView]) {
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        let synced = |view: &&mut ProxyView| view.state == "synced" && view.heartbeat.canary.is_none();
        for view in fleet.iter_mut().filter(|view| synced(view)) {
            for (service, digest) in &view.heartbeat.rings {
                *counts.entry((service.clone(), digest.clone())).or_default() += 1;
            }
        }
        let mut most: BTreeMap<&str, usize> = BTreeMap::new();
        for ((service, _), count) in &counts {
            let most = most.entry(service).or_default();
            *most = (*most).max(*count);
        }
        for view in fleet.iter_mut().filter(|view| synced(view)) {
            let differs = view.heartbeat.rings.iter().any(|(service, digest)| {
                let own = counts.get(&(service.clone(), digest.clone())).copied().unwrap_or(0);
                most.get(service.as_str()).is_some_and(|most| *most > own)
            });
            if differs {
                view.state = Cow::Borrowed("drifted");
            }
        }
    }

    /// Services whose backends do not expire although they are overdue, and how many of them.
    #[must_use]
    pub fn frozen(&self) -> &BTreeMap<String, usize> {
        self.brake.frozen()
    }

    /// What should be proposed now; `leader` is this member.
    pub fn handle_tick(&mut self, state: &State, leader: u64, at_ms: u64, now: Instant) -> Vec<Command> {
        if std::mem::take(&mut self.lapsed) {
            self.since = now;
            if let Some(watched) = &mut self.rollout {
                watched.looked = now;
            }
        }
        self.proxies.retain(|_, seen| now - seen.at < PROXY_FORGET);
        let mut commands = Vec::new();
        commands.extend(self.expire(state, leader, at_ms, now));
        commands.extend(self.rollout(state, at_ms, now));
        commands.extend(self.agree(state, at_ms, now));
        commands
    }

    fn expire(&mut self, state: &State, leader: u64, at_ms: u64, now: Instant) -> Option<Command> {
        self.leases.retain(|id, _| state.leases.contains_key(id));
        self.ending.retain(|id| state.leases.contains_key(id));
        let mut due = Vec::new();
        for (id, lease) in state.leases.iter() {
            // Seen for the first time, granted just now or before this leader began: a whole life from here.
            let deadline = *self.leases.entry(*id).or_insert(now + Duration::from_millis(lease.ttl_ms));
            if now > deadline {
                due.push(*id);
            }
        }
        let ids = self.brake.release(state, &due, now);
        self.ending.extend(&ids);
        (!ids.is_empty()).then_some(Command::LeaseExpire { leader, at_ms, ids })
    }

    fn rollout(&mut self, state: &State, at_ms: u64, now: Instant) -> Vec<Command> {
        let Some(rollout) = state.rollout() else {
            self.rollout = None;
            self.votes.clear();
            return Vec::new();
        };
        let id = rollout.id;
        if self.rollout.as_ref().is_none_or(|watched| watched.id != id || watched.phase != rollout.phase) {
            self.rollout = Some(Watched::new(rollout, &self.proxies, now));
        }
        let mut commands = Vec::new();
        self.votes.retain(|name, _| !rollout.votes.contains_key(name));
        if !self.votes.is_empty() {
            commands.push(Command::RolloutVotes { id, votes: std::mem::take(&mut self.votes) });
            // What they mean is seen when they are in the log.
            return commands;
        }
        let Some(mut watched) = self.rollout.take() else { return commands };
        let elapsed_ms = (now - watched.entered).as_millis() as u64;
        let mut observed = Observed::default();
        if matches!(rollout.phase, Phase::Stage(_)) {
            observed = self.observe(rollout, &watched, now);
            watched.handle_observed(&mut observed, now);
        }
        self.rollout = Some(watched);
        match rollout.next(elapsed_ms, &observed) {
            Step::Wait(_) => {}
            Step::Advance(stage) => commands.push(Command::RolloutAdvance { id, stage }),
            Step::Commit => commands.push(Command::RolloutCommit { id, at_ms }),
            Step::Abort(reason) => commands.push(Command::RolloutAbort { id, reason }),
        }
        commands
    }

    /// How the share fares that has the change, or should have.
    fn observe(&self, rollout: &Rollout, watched: &Watched, now: Instant) -> Observed {
        let threshold = rollout.threshold();
        let mut observed = Observed::default();
        for name in rollout.participants.iter().filter(|name| Rollout::in_cohort(rollout.id, name, threshold)) {
            self.observe_participant(name, watched, now, &mut observed);
        }
        self.observe_requests(watched, threshold, &mut observed);
        observed
    }

    fn observe_participant(&self, name: &str, watched: &Watched, now: Instant, observed: &mut Observed) {
        let seen = self.proxies.get(name);
        // It may have spoken to the leader before this one just now.
        if now - seen.map_or(self.since, |seen| seen.at.max(self.since)) >= PROXY_TTL {
            observed.cohort_lost += 1;
            return;
        }
        let Some(Seen { heartbeat, .. }) = seen else {
            observed.cohort_unheard += 1;
            return;
        };
        let said = || match &heartbeat.stuck {
            Some(why) => format!("{name}: {why}"),
            None => name.to_owned(),
        };
        // What it was stuck with before is no news of this change, and may be what the change is to repair.
        let before = watched.base.get(name).and_then(|base| base.stuck.as_ref());
        if heartbeat.stuck.is_some() && heartbeat.stuck.as_ref() != before {
            observed.stuck.get_or_insert_with(said);
        }
        if heartbeat.canary != Some(watched.id) {
            observed.cohort_waiting += 1;
            observed.straggler.get_or_insert_with(said);
        }
    }

    fn observe_requests(&self, watched: &Watched, threshold: u8, observed: &mut Observed) {
        let (mut cohort, mut rest, mut before) = ((0_u64, 0_u64), (0_u64, 0_u64), (0_u64, 0_u64));
        let add = |sum: &mut (u64, u64), requests: u64, failed: u64| {
            sum.0 = sum.0.saturating_add(requests);
            sum.1 = sum.1.saturating_add(failed);
        };
        for (name, Seen { heartbeat, .. }) in &self.proxies {
            let Some(base) = watched.base.get(name) else { continue };
            add(&mut before, base.requests, base.failed);
            let requests = heartbeat.requests.saturating_sub(base.requests);
            let failed = heartbeat.failed.saturating_sub(base.failed);
            if heartbeat.canary == Some(watched.id) {
                // Whatever its member told it the share is.
                add(&mut cohort, requests, failed);
            } else if !Rollout::in_cohort(watched.id, name, threshold) {
                add(&mut rest, requests, failed);
            }
        }
        if rest.0 < Rollout::REQUESTS_MIN {
            // Everybody has the change, or the others have hardly any traffic: what all did before it counts as well.
            add(&mut rest, before.0, before.1);
        }
        let ppm = |(requests, failed): (u64, u64)| {
            u32::try_from(failed.saturating_mul(1_000_000).checked_div(requests).unwrap_or(0)).unwrap_or(u32::MAX)
        };
        observed.cohort_requests = cohort.0;
        (observed.cohort_ppm, observed.rest_ppm) = (ppm(cohort), ppm(rest));
    }

    /// What a majority of the live proxies sees down is down for all; what a majority sees up, or nobody sees, is not.
    fn agree(&self, state: &State, at_ms: u64, now: Instant) -> Option<Command> {
        // A leader that has just begun has heard of few: their majority is nobody's.
        if now - self.since < PROXY_TTL {
            return None;
        }
        let live: Vec<&Seen> = self.proxies.values().filter(|seen| now - seen.at < PROXY_TTL).collect();
        let quorum = live.len() / 2 + 1;
        let mut down: BTreeMap<&Key, usize> = BTreeMap::new();
        for seen in &live {
            for key in &seen.heartbeat.down {
                *down.entry(key).or_default() += 1;
            }
        }
        let mut verdicts: Vec<(Key, bool)> = Vec::new();
        let mut taken: HashMap<&str, usize> = HashMap::new();
        let mut all: HashMap<&str, usize> = HashMap::new();
        for (key, entry) in state.objects.iter() {
            let (Key::Backend { service, .. }, Object::Backend(backend)) = (key, &*entry.object) else { continue };
            *all.entry(service).or_default() += 1;
            if backend.ejected {
                if !live.is_empty() && down.get(key).copied().unwrap_or(0) < quorum {
                    verdicts.push((key.clone(), false));
                } else {
                    *taken.entry(service).or_default() += 1;
                }
            }
        }
        // One proxy alone is no quorum: what it sees is its own.
        if live.len() > 1 {
            for (key, _) in down.iter().filter(|(_, count)| **count >= quorum) {
                let (Key::Backend { service, .. }, Some(Object::Backend(backend))) = (key, state.object(key)) else {
                    continue;
                };
                let taken = taken.entry(service).or_default();
                let most = (all.get(service.as_str()).copied().unwrap_or(0) * EJECTED_PERCENT_MAX / 100).max(1);
                if !backend.ejected && *taken < most {
                    *taken += 1;
                    verdicts.push(((*key).clone(), true));
                }
            }
        }
        let note = format!("{} of {} proxies make a quorum", quorum, live.len());
        (!verdicts.is_empty()).then_some(Command::Agree { at_ms, verdicts, note })
    }
}
