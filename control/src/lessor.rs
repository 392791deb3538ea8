//! What only the leader knows, and only in memory: heartbeats of leases and of proxies. A pure machine: time is passed in,
//! and what should be proposed comes out. A new leader begins with an empty one, and grants what the log says is left of lives.

mod agreement;
mod ahead;
mod brief;
mod clock;
mod drift;
mod expiry_limiter;
mod leases;
mod load_answer;
mod load_members;
mod load_reporters;
mod load_rings;
mod load_size;
mod load_votes;
mod loads;
mod noted;
mod seen;
mod standing;
#[cfg(test)]
mod tests;
mod trust;
mod watched;

use crate::loads::{Reports, Tables};
use crate::state::parsed::Parsed;
use crate::state::{Command, Observed, Phase, State, Step, Vote};
use crate::watch::wire::{Heartbeat, ProxyEvent, ProxyView};
use ahead::Ahead;
use clock::Clock;
use expiry_limiter::ExpiryLimiter;
pub use leases::Kept;
use leases::Leases;
pub use load_answer::{LoadRefusal, LoadsAnswer};
use load_members::Members;
use loads::Loads;
use noted::Noted;
pub(crate) use seen::PROXY_TTL;
use seen::Seen;
use standing::Standing;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use watched::{Fleet, Watched};

/// How a proxy may stand.
pub(crate) const PROXY_STATES: &[&str] = &["ahead", "behind", "drifted", "offline", "stuck", "synced"];
/// And is forgotten after this, unless the member's file says otherwise.
pub(crate) const PROXY_FORGET: Duration = Duration::from_secs(3600);
/// Proxies that are remembered.
const PROXIES_MAX: usize = 20_000;

/// See the module.
pub struct Lessor {
    /// All times here but [`Seen::heard`] are by it.
    clock: Clock,
    /// When it began to lead.
    since: Instant,
    leases: Leases,
    proxies: BTreeMap<String, Seen>,
    standing: Standing,
    limiter: ExpiryLimiter,
    ahead: Ahead,
    rollout: Option<Watched>,
    votes: BTreeMap<String, Vote>,
    forget: Duration,
    noted: Noted,
    loads: Loads,
}

/// The highest epoch that live proxies have seen, as far as it can be believed.
pub(crate) fn seen_epoch(state: &State, fleet: &[ProxyView], at_ms: u64) -> u64 {
    let live = fleet.iter().filter(|proxy| proxy.state != "offline");
    live.map(|proxy| proxy.heartbeat.epoch).filter(|&epoch| ahead::is_credible(state, epoch, at_ms)).max().unwrap_or(0)
}

impl Lessor {
    /// Of a leader that begins now, and has applied all that was decided before.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            clock: Clock::new(now),
            since: now,
            leases: Leases::new(now),
            proxies: BTreeMap::new(),
            standing: Standing::default(),
            limiter: ExpiryLimiter::new(Arc::new(Parsed::at_once())),
            ahead: Ahead::default(),
            rollout: None,
            votes: BTreeMap::new(),
            forget: PROXY_FORGET,
            noted: Noted::new(now),
            loads: Loads::new(Arc::default(), now),
        }
    }

    /// Knows of the fleet's texts what others have read of them.
    #[must_use]
    pub(crate) fn with_parsed(self, parsed: Arc<Parsed>) -> Self {
        Self { limiter: ExpiryLimiter::new(parsed), ..self }
    }

    /// Forgets proxies that are not heard of for so long.
    #[must_use]
    pub(crate) fn with_forget(self, forget: Duration) -> Self {
        Self { forget, ..self }
    }

    /// Goes on from these tables of loads: what this member has relayed last.
    #[must_use]
    pub(crate) fn with_tables(self, tables: Arc<Tables>) -> Self {
        Self { loads: Loads::new(tables, self.since), ..self }
    }

    /// It leads, and hears what is said. To be called often: a time in which nobody calls counts as a lapse.
    pub fn handle_led(&mut self, now: Instant) {
        self.clock.lead(now);
    }

    /// This member does not lead for now, and hears nobody: what could not be said counts against nobody. It may lead again in
    /// the same term: what it has heard still holds.
    pub fn handle_lapse(&mut self) {
        self.clock.lapse();
    }

    /// How often, and for how long in all, nobody could be heard since it leads.
    #[must_use]
    pub fn lapses(&self) -> (u64, Duration) {
        self.clock.lapses()
    }

    /// Heartbeats of leases; those that are not there (any more) are the answer.
    pub fn handle_keep_alive(&mut self, state: &State, ids: &[u64], now: Instant) -> Kept {
        let now = self.clock.lead(now);
        self.leases.keep(state, ids, now)
    }

    /// What this leader has proposed is decided.
    pub fn handle_decided(&mut self, command: &Command) {
        if let Command::LeaseLives { lives, .. } = command {
            self.leases.decided(lives);
        }
    }

    /// A proxy's heartbeat.
    pub fn handle_heartbeat(&mut self, state: &State, name: String, heartbeat: Heartbeat, now: Instant) {
        let at = self.clock.lead(now);
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
        if let Some((what, why)) = self.loads.handle_heartbeat(&name, heartbeat.instance, heartbeat.requests) {
            self.noted.note(&name, what, why);
        }
        self.proxies.insert(name, Seen::new(heartbeat, at, now));
    }

    /// What a proxy reports of the loads that it sees. `term`: this leader's.
    pub fn handle_loads(&mut self, state: &State, reports: Reports, term: u64, now: Instant) -> LoadsAnswer {
        let now = self.clock.lead(now);
        let spoken = self.proxies.get(&reports.proxy).map(|seen| seen.heartbeat.instance);
        if spoken != Some(reports.instance) {
            let why = "no heartbeat has told of this proxy's process yet".to_owned();
            return LoadsAnswer::refused(LoadRefusal::Unknown, why);
        }
        self.loads.handle_report(reports, (state.epoch, term), state.revision, now)
    }

    /// Works out the tables of loads; `true`: others are to be published. To be called every [`ringway_ring::STEP_MILLIS`].
    pub fn step_loads(&mut self, state: &State, term: u64, now: Instant) -> bool {
        let now = self.clock.lead(now);
        let parsed = self.limiter.parsed();
        self.loads.step((state.epoch, term), &|service| Members::known(parsed, state, service), now)
    }

    /// The tables of loads, and whether there is anything to be worked out.
    #[must_use]
    pub fn tables(&self) -> (&Arc<Tables>, bool) {
        (self.loads.tables(), !self.loads.is_idle())
    }

    #[cfg(test)]
    pub(crate) fn load_reporters(&self) -> (Vec<String>, bool) {
        self.loads.reporters()
    }

    /// A proxy that ends in order is missed by nobody: it is not offline, and no rollout waits for it. `instance`: whose word it
    /// is; not taken where another process has spoken since. False: there is no such proxy.
    pub fn handle_sign_off(&mut self, state: &State, name: &str, instance: Option<u64>) -> bool {
        let spoken = self.proxies.get(name).map(|seen| seen.heartbeat.instance);
        if spoken.is_none() || instance.is_some_and(|own| spoken != Some(own)) {
            return false;
        }
        self.proxies.remove(name);
        self.loads.forget(name);
        self.noted.handle_left(name);
        self.votes.remove(name);
        if let (Some(watched), Some(rollout)) = (&mut self.rollout, state.rollout())
            && watched.id == rollout.id
            && rollout.participants.iter().any(|participant| participant == name)
        {
            watched.left.insert(name.to_owned());
        }
        true
    }

    /// Proxies that are there.
    #[must_use]
    pub fn live(&self, now: Instant) -> Vec<String> {
        let now = self.clock.read(now);
        self.proxies.iter().filter(|(_, seen)| now - seen.at < PROXY_TTL).map(|(name, _)| name.clone()).collect()
    }

    /// The fleet.
    #[must_use]
    pub fn fleet(&self, state: &State, now: Instant) -> Vec<ProxyView> {
        let time = self.clock.read(now);
        let view = |(name, standing): (&String, &'static str)| {
            let seen = self.proxies.get(name)?;
            Some(ProxyView {
                name: name.clone(),
                heartbeat: seen.heartbeat.clone(),
                age_ms: now.saturating_duration_since(seen.heard).as_millis() as u64,
                state: Cow::Borrowed(standing),
                since_ms: Some(self.noted.held(name, standing, time).as_millis() as u64),
                loads: self.loads.seen(name, time),
            })
        };
        self.noted.standings(&self.proxies, state, time).into_iter().filter_map(view).collect()
    }

    /// What has become of proxies lately, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<ProxyEvent> {
        self.noted.events()
    }

    /// Services whose backends do not expire although they are overdue, and how many of them.
    #[must_use]
    pub fn frozen(&self) -> &BTreeMap<String, usize> {
        self.limiter.frozen()
    }

    /// What should be proposed now; `leader` is this member. To be called a few times a second.
    pub fn handle_tick(&mut self, state: &State, leader: u64, at_ms: u64, now: Instant) -> Vec<Command> {
        let mut commands = self.handle_wake(state, leader, at_ms, now);
        let now = self.clock.lead(now);
        self.proxies.retain(|_, seen| now - seen.at < self.forget);
        self.loads.retain(|name| self.proxies.contains_key(name));
        self.noted.handle_tick(&self.proxies, state, at_ms, now);
        commands.extend(self.leases.follow(state, leader, now));
        commands.extend(self.expire(state, leader, at_ms, now));
        commands.extend(self.raise(state, at_ms, now));
        commands.extend(self.agree(state, at_ms, now));
        commands
    }

    /// What should be proposed because something has been said or decided: that is often, so it must cost little.
    pub fn handle_wake(&mut self, state: &State, leader: u64, at_ms: u64, now: Instant) -> Vec<Command> {
        let now = self.clock.lead(now);
        let mut commands = self.leases.revive(leader);
        commands.extend(self.rollout(state, at_ms, now));
        commands
    }

    /// An epoch above what proxies have seen of this cluster's other life.
    fn raise(&mut self, state: &State, at_ms: u64, now: Instant) -> Option<Command> {
        let live = self.proxies.iter().filter(|(_, seen)| now - seen.at < PROXY_TTL);
        self.ahead.handle(state, live.map(|(name, seen)| (name.as_str(), &seen.heartbeat)), at_ms, now)
    }

    fn expire(&mut self, state: &State, leader: u64, at_ms: u64, now: Instant) -> Option<Command> {
        let ids = self.limiter.release(state, &self.leases.overdue(), now);
        self.leases.end(&ids);
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
            // Who has left the rollout in an earlier phase has left it.
            let left = self.rollout.take().filter(|watched| watched.id == id).map(|watched| watched.left);
            let mut watched = Watched::new(rollout, &self.proxies, now);
            watched.left = left.unwrap_or_default();
            self.rollout = Some(watched);
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
        watched.left.retain(|name| !self.proxies.contains_key(name));
        let silent = |name: &&String| !rollout.votes.contains_key(*name);
        let left = watched.left.iter().filter(silent).count();
        let mut observed = Observed { left, ..Observed::default() };
        if matches!(rollout.phase, Phase::Stage(_)) {
            let fleet = Fleet { proxies: &self.proxies, since: self.since };
            watched.handle_observed(&mut observed, &fleet, rollout, now);
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
}
