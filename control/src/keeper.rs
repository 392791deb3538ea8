//! What only the leader knows, and only in memory: heartbeats of leases and of proxies. A pure machine: time is passed in,
//! and what should be proposed comes out. A new leader begins with an empty one, and grants everybody a whole life.

mod brake;
#[cfg(test)]
mod tests;

use crate::state::{Command, Errors, Key, Object, Phase, Rollout, State, Step, Vote};
use crate::wire::{Heartbeat, ProxyView};
use brake::Brake;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// A proxy that has not been heard of for this long is offline.
const PROXY_TTL: Duration = Duration::from_secs(7);
/// And is forgotten after this.
const PROXY_FORGET: Duration = Duration::from_secs(3600);
/// Proxies that are remembered.
const PROXIES_MAX: usize = 20_000;
/// Largest share of a service's registered backends that agreed health takes out, in percent; one always may be.
const EJECTED_PERCENT_MAX: usize = 30;

/// See the module.
pub struct Keeper {
    since: Instant,
    leases: HashMap<u64, Instant>,
    proxies: BTreeMap<String, Seen>,
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
    /// Requests and failures of each proxy when the phase was entered.
    base: BTreeMap<String, (u64, u64)>,
}

impl Keeper {
    /// Of a leader that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            leases: HashMap::new(),
            proxies: BTreeMap::new(),
            brake: Brake::default(),
            rollout: None,
            votes: BTreeMap::new(),
        }
    }

    /// Heartbeats of leases; those that are not there (any more) are the answer.
    pub fn handle_keep_alive(&mut self, state: &State, ids: &[u64], now: Instant) -> Vec<u64> {
        let mut missing = Vec::new();
        for id in ids {
            match state.leases.get(id) {
                Some(lease) => {
                    self.leases.insert(*id, now + Duration::from_millis(lease.ttl_ms));
                }
                None => missing.push(*id),
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
            && rollout.participants.contains(&name)
            && !rollout.votes.contains_key(&name)
        {
            self.votes.insert(name.clone(), vote.clone());
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
        for view in fleet.iter_mut().filter(|view| synced(view)) {
            let differs = view.heartbeat.rings.iter().any(|(service, digest)| {
                let own = counts.get(&(service.clone(), digest.clone())).copied().unwrap_or(0);
                let most = counts.iter().filter(|((of, _), _)| of == service).map(|(_, count)| *count).max();
                most.is_some_and(|most| most > own)
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
        self.proxies.retain(|_, seen| now - seen.at < PROXY_FORGET);
        let mut commands = Vec::new();
        commands.extend(self.expire(state, leader, at_ms, now));
        commands.extend(self.rollout(state, at_ms, now));
        commands.extend(self.agree(state, at_ms, now));
        commands
    }

    fn expire(&mut self, state: &State, leader: u64, at_ms: u64, now: Instant) -> Option<Command> {
        self.leases.retain(|id, _| state.leases.contains_key(id));
        let mut due = Vec::new();
        for (id, lease) in state.leases.iter() {
            // Seen for the first time, granted just now or before this leader began: a whole life from here.
            let deadline = *self.leases.entry(*id).or_insert(now + Duration::from_millis(lease.ttl_ms));
            if now > deadline {
                due.push(*id);
            }
        }
        let ids = self.brake.release(state, &due, now);
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
            let base = self.proxies.iter();
            let base =
                base.map(|(name, seen)| (name.clone(), (seen.heartbeat.requests, seen.heartbeat.failed))).collect();
            self.rollout = Some(Watched { id, phase: rollout.phase.clone(), entered: now, base });
        }
        let mut commands = Vec::new();
        self.votes.retain(|name, _| !rollout.votes.contains_key(name));
        if !self.votes.is_empty() {
            commands.push(Command::RolloutVotes { id, votes: std::mem::take(&mut self.votes) });
            // What they mean is seen when they are in the log.
            return commands;
        }
        let Some(watched) = &self.rollout else { return commands };
        let elapsed_ms = (now - watched.entered).as_millis() as u64;
        match rollout.next(elapsed_ms, self.errors(rollout, watched, now)) {
            Step::Wait(_) => {}
            Step::Advance(stage) => commands.push(Command::RolloutAdvance { id, stage }),
            Step::Commit => commands.push(Command::RolloutCommit { id, at_ms }),
            Step::Abort(reason) => commands.push(Command::RolloutAbort { id, reason }),
        }
        commands
    }

    fn errors(&self, rollout: &Rollout, watched: &Watched, now: Instant) -> Errors {
        let percent = rollout.percent();
        let (mut cohort, mut rest) = ((0_u64, 0_u64), (0_u64, 0_u64));
        let mut lost = 0;
        for (name, seen) in &self.proxies {
            let inside = Rollout::in_cohort(rollout.id, name, percent);
            let known = watched.base.get(name);
            if inside && known.is_some() && rollout.participants.contains(name) && now - seen.at >= PROXY_TTL {
                lost += 1;
            }
            // A proxy that was restarted counts from nothing.
            let (requests, failed) = known.copied().unwrap_or_default();
            let requests = seen.heartbeat.requests.checked_sub(requests).unwrap_or(seen.heartbeat.requests);
            let failed = seen.heartbeat.failed.checked_sub(failed).unwrap_or(seen.heartbeat.failed);
            let sum = if inside { &mut cohort } else { &mut rest };
            sum.0 += requests;
            sum.1 += failed;
        }
        if rest.0 == 0 {
            // Everybody has the change: what they did before it is what they are compared with.
            let (requests, failed) = watched.base.values().fold((0, 0), |sum, base| (sum.0 + base.0, sum.1 + base.1));
            rest = (requests, failed);
        }
        let ppm = |(requests, failed): (u64, u64)| {
            u32::try_from(failed.saturating_mul(1_000_000).checked_div(requests).unwrap_or(0)).unwrap_or(u32::MAX)
        };
        Errors { cohort_ppm: ppm(cohort), rest_ppm: ppm(rest), cohort_requests: cohort.0, cohort_lost: lost }
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
