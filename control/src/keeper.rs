//! What only the leader knows, and only in memory: heartbeats of leases and of proxies. A pure machine: time is passed in,
//! and what should be proposed comes out. A new leader begins with an empty one, and grants everybody a whole life.

use crate::state::{Backend, Command, Errors, Key, Object, Phase, Rollout, State, Step, Vote};
use crate::wire::{Heartbeat, ProxyView};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// A proxy that has not been heard of for this long is offline.
pub(crate) const PROXY_TTL: Duration = Duration::from_secs(7);
/// And is forgotten after this.
const PROXY_FORGET: Duration = Duration::from_secs(3600);
/// Proxies that are remembered.
const PROXIES_MAX: usize = 20_000;
/// Share of a service's leased backends that may expire within [`STORM_WINDOW`], in percent; one always may.
const STORM_PERCENT: usize = 20;
const STORM_WINDOW: Duration = Duration::from_secs(10);
/// Largest share of a service's registered backends that agreed health takes out, in percent; one always may be.
const EJECTED_PERCENT_MAX: usize = 30;
/// Leases that expire in one entry of the log.
const EXPIRE_MAX: usize = 1000;

/// See the module.
pub struct Keeper {
    since: Instant,
    leases: HashMap<u64, Instant>,
    proxies: BTreeMap<String, Seen>,
    expired: HashMap<String, VecDeque<Instant>>,
    /// Leases whose end has been proposed: nothing that is said now makes them live on.
    ending: BTreeSet<u64>,
    /// Services whose backends do not expire for now: too many would at once.
    frozen: BTreeMap<String, usize>,
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
            expired: HashMap::new(),
            ending: BTreeSet::new(),
            frozen: BTreeMap::new(),
            rollout: None,
            votes: BTreeMap::new(),
        }
    }

    /// This member does not lead for now, and hears nobody: what could not be said counts against nobody.
    pub fn handle_lapse(&mut self) {
        self.leases.clear();
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

    /// Services whose backends do not expire for now, and how many of them should.
    #[must_use]
    pub fn frozen(&self) -> &BTreeMap<String, usize> {
        &self.frozen
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
        self.ending.retain(|id| state.leases.contains_key(id));
        let mut due = Vec::new();
        for (id, lease) in state.leases.iter() {
            // Seen for the first time, granted just now or before this leader began: a whole life from here.
            let deadline = *self.leases.entry(*id).or_insert(now + Duration::from_millis(lease.ttl_ms));
            if now > deadline {
                due.push(*id);
            }
        }
        self.frozen.clear();
        if due.is_empty() {
            return None;
        }
        let mut of_lease: HashMap<u64, Vec<&str>> = HashMap::new();
        let mut leased: HashMap<&str, usize> = HashMap::new();
        for (key, entry) in state.objects.iter() {
            if let (Key::Backend { service, .. }, Object::Backend(Backend { lease: Some(id), .. })) =
                (key, &*entry.object)
            {
                of_lease.entry(*id).or_default().push(service);
                *leased.entry(service).or_default() += 1;
            }
        }
        for times in self.expired.values_mut() {
            times.retain(|at| now - *at < STORM_WINDOW);
        }
        self.expired.retain(|_, times| !times.is_empty());
        // As many as there were before the first of them went.
        let all: HashMap<&str, usize> = leased
            .iter()
            .map(|(service, count)| (*service, count + self.expired.get(*service).map_or(0, VecDeque::len)))
            .collect();
        let mut ids = Vec::new();
        for id in due {
            let services = of_lease.get(&id).map(Vec::as_slice).unwrap_or_default();
            let storm = services.iter().find(|service| {
                let recent = self.expired.get(**service).map_or(0, VecDeque::len);
                let all = all.get(*service).copied().unwrap_or(0);
                recent + 1 > (all * STORM_PERCENT / 100).max(1)
            });
            match storm {
                Some(service) => *self.frozen.entry((*service).to_owned()).or_default() += 1,
                None if ids.len() < EXPIRE_MAX => {
                    for service in services {
                        self.expired.entry((*service).to_owned()).or_default().push_back(now);
                    }
                    ids.push(id);
                }
                None => {}
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{By, Op, Origin, Policy, Text, Txn};

    const ORIGIN: Origin = Origin { leader: 1 };

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    fn txn(ops: Vec<Op>) -> Txn {
        Txn { by: By::default(), request: None, conditions: Vec::new(), ops, force: true }
    }

    fn backend(lease: Option<u64>) -> Object {
        let mut backend: Backend = serde_json::from_str("{\"address\":\"10.0.0.1:1\"}").unwrap();
        backend.lease = lease;
        Object::Backend(backend)
    }

    /// A state with so many leased backends of one service.
    fn leased(count: u16) -> State {
        let mut state = State::default();
        state.apply(ORIGIN, Command::Init { cluster: "c".into() }).unwrap();
        for index in 0..count {
            let id = state.apply(ORIGIN, Command::LeaseGrant { owner: "o".into(), ttl_ms: 5000 }).unwrap().id;
            let op = Op::Put { key: key(&format!("backend/api/{index}")), object: backend(Some(id)) };
            state.apply(ORIGIN, Command::Txn(txn(vec![op]))).unwrap();
        }
        state
    }

    fn heartbeat(state: &State) -> Heartbeat {
        Heartbeat {
            version: "1".into(),
            epoch: state.epoch,
            revision: state.revision,
            digest: state.digest.to_string(),
            rings: BTreeMap::from([("api".into(), "d".into())]),
            stuck: None,
            generation: 1,
            vote: None,
            down: Vec::new(),
            requests: 0,
            failed: 0,
            canary: None,
        }
    }

    fn expired(commands: &[Command]) -> usize {
        commands.iter().map(|command| if let Command::LeaseExpire { ids, .. } = command { ids.len() } else { 0 }).sum()
    }

    #[test]
    fn a_new_leader_grants_a_whole_life_and_heartbeats_extend_it() {
        let start = Instant::now();
        let mut state = leased(1);
        let mut keeper = Keeper::new(start);
        let ms = |ms| start + Duration::from_millis(ms);
        assert_eq!(expired(&keeper.handle_tick(&state, 1, 0, ms(0))), 0);
        // Granted long after the leader began: it has its life as well.
        let late = state.apply(ORIGIN, Command::LeaseGrant { owner: "late".into(), ttl_ms: 1000 }).unwrap().id;
        assert_eq!(expired(&keeper.handle_tick(&state, 1, 0, ms(4500))), 0);
        state.apply(ORIGIN, Command::LeaseRevoke { by: By::default(), ids: vec![late] }).unwrap();
        assert_eq!(expired(&keeper.handle_tick(&state, 1, 0, ms(5000))), 0);
        assert_eq!(keeper.handle_keep_alive(&state, &[1, 99], ms(5000)), vec![99]);
        assert_eq!(expired(&keeper.handle_tick(&state, 1, 0, ms(10_000))), 0);
        let commands = keeper.handle_tick(&state, 1, 0, ms(10_001));
        assert_eq!(expired(&commands), 1);
        state.apply(ORIGIN, commands[0].clone()).unwrap();
        assert_eq!(state.objects.size(), 0);
        assert!(keeper.handle_tick(&state, 1, 0, ms(20_000)).is_empty());
    }

    #[test]
    fn a_lease_lives_from_when_it_is_granted_however_long_its_leader_leads() {
        let start = Instant::now();
        let mut state = State::default();
        let mut keeper = Keeper::new(start);
        let ms = |ms| start + Duration::from_millis(ms);
        assert!(keeper.handle_tick(&state, 1, 0, ms(60_000)).is_empty());
        state.apply(ORIGIN, Command::LeaseGrant { owner: "o".into(), ttl_ms: 1000 }).unwrap();
        assert_eq!(expired(&keeper.handle_tick(&state, 1, 0, ms(60_200))), 0);
        assert_eq!(expired(&keeper.handle_tick(&state, 1, 0, ms(61_200))), 0);
        assert_eq!(expired(&keeper.handle_tick(&state, 1, 0, ms(61_201))), 1);
    }

    #[test]
    fn a_lease_whose_end_is_proposed_is_not_said_to_live() {
        let start = Instant::now();
        let mut state = leased(1);
        let mut keeper = Keeper::new(start);
        let ms = |ms| start + Duration::from_millis(ms);
        assert!(keeper.handle_tick(&state, 1, 0, start).is_empty());
        let commands = keeper.handle_tick(&state, 1, 0, ms(5001));
        assert_eq!(expired(&commands), 1);
        // The entry may take its time: the state has the lease still.
        assert_eq!(keeper.handle_keep_alive(&state, &[1], ms(5002)), vec![1]);
        state.apply(ORIGIN, commands[0].clone()).unwrap();
        assert_eq!(keeper.handle_keep_alive(&state, &[1], ms(5300)), vec![1]);
        // One that is granted anew is another.
        let id = state.apply(ORIGIN, Command::LeaseGrant { owner: "o".into(), ttl_ms: 5000 }).unwrap().id;
        assert!(keeper.handle_keep_alive(&state, &[id], ms(5400)).is_empty());
    }

    #[test]
    fn a_storm_of_expiries_is_stopped() {
        let start = Instant::now();
        let mut state = leased(50);
        let mut keeper = Keeper::new(start);
        let mut gone = 0;
        assert!(keeper.handle_tick(&state, 1, 0, start).is_empty());
        for tick in 0..40_u64 {
            for command in keeper.handle_tick(&state, 1, 0, start + Duration::from_millis(6000 + tick * 200)) {
                gone += expired(std::slice::from_ref(&command));
                state.apply(ORIGIN, command).unwrap();
            }
        }
        assert_eq!(gone, 10, "a fifth of fifty within ten seconds");
        assert_eq!(keeper.frozen().get("api"), Some(&40));
    }

    #[test]
    fn the_fleet_is_seen_as_it_is() {
        let start = Instant::now();
        let state = leased(1);
        let mut keeper = Keeper::new(start);
        let mut tell = |name: &str, change: &dyn Fn(&mut Heartbeat), at| {
            let mut one = heartbeat(&state);
            change(&mut one);
            keeper.handle_heartbeat(&state, name.into(), one, start + Duration::from_secs(at));
        };
        tell("a", &|_| {}, 10);
        tell("b", &|_| {}, 10);
        tell("behind", &|one| one.revision = 0, 10);
        tell("drifted", &|one| one.digest = "x".into(), 10);
        tell("ring", &|one| drop(one.rings.insert("api".into(), "other".into())), 10);
        tell("stuck", &|one| one.stuck = Some("bind".into()), 10);
        tell("offline", &|_| {}, 1);
        let fleet = keeper.fleet(&state, start + Duration::from_secs(10));
        let states: Vec<(&str, &str)> = fleet.iter().map(|view| (view.name.as_str(), &*view.state)).collect();
        let wanted = [
            ("a", "synced"),
            ("b", "synced"),
            ("behind", "behind"),
            ("drifted", "drifted"),
            ("offline", "offline"),
            ("ring", "drifted"),
            ("stuck", "stuck"),
        ];
        assert_eq!(states, wanted);
        assert_eq!(keeper.live(start + Duration::from_secs(10)).len(), 6);
    }

    #[test]
    fn health_is_agreed_by_a_quorum_and_bounded() {
        let start = Instant::now();
        let mut state = leased(4);
        let mut keeper = Keeper::new(start);
        let now = start + Duration::from_secs(8);
        let all: Vec<Key> = (0..4).map(|index| key(&format!("backend/api/{index}"))).collect();
        for name in ["p", "q", "r"] {
            let down = if name == "p" { all.clone() } else { Vec::new() };
            keeper.handle_heartbeat(&state, name.into(), Heartbeat { down, ..heartbeat(&state) }, now);
        }
        keeper.handle_keep_alive(&state, &[1, 2, 3, 4], now);
        assert!(keeper.handle_tick(&state, 1, 0, now).is_empty(), "one proxy alone changes nothing for the others");
        keeper.handle_heartbeat(&state, "q".into(), Heartbeat { down: all.clone(), ..heartbeat(&state) }, now);
        let commands = keeper.handle_tick(&state, 1, 0, now);
        let Command::Agree { verdicts, .. } = &commands[0] else { panic!("{commands:?}") };
        assert_eq!(verdicts, &[(all[0].clone(), true)], "no more than a third");
        state.apply(ORIGIN, commands[0].clone()).unwrap();
        assert!(keeper.handle_tick(&state, 1, 0, now).is_empty());
        keeper.handle_heartbeat(&state, "q".into(), heartbeat(&state), now);
        let commands = keeper.handle_tick(&state, 1, 0, now);
        assert!(matches!(&commands[0], Command::Agree { verdicts, .. } if verdicts == &[(all[0].clone(), false)]));
    }

    #[test]
    fn a_rollout_is_led_from_votes_to_commit_or_back() {
        for bad in [false, true] {
            let start = Instant::now();
            let mut state = leased(1);
            let mut keeper = Keeper::new(start);
            let mut now = start + Duration::from_millis(10);
            let names: Vec<String> = (0..10).map(|index| format!("p{index}")).collect();
            for name in &names {
                keeper.handle_heartbeat(&state, name.clone(), heartbeat(&state), now);
            }
            let object = Object::Document(Text { text: "services: [ { name: api } ]".into() });
            let start = Command::RolloutStart {
                txn: txn(vec![Op::Put { key: key("document/main"), object }]),
                policy: Policy { stages_percent: vec![50], bake_ms: 1000, ..Policy::default() },
                participants: keeper.live(now),
            };
            let id = state.apply(ORIGIN, start).unwrap().id;
            let mut requests = 0;
            let mut steps = 0;
            while state.rollout().is_some() && steps < 100 {
                steps += 1;
                now += Duration::from_millis(100);
                requests += 100;
                let percent = state.rollout().map_or(0, Rollout::percent);
                for name in &names {
                    let vote = Vote { refusal: None, digest: "d".into(), moved_ppm: 0 };
                    let failed = if bad && Rollout::in_cohort(id, name, percent) { requests / 10 } else { 0 };
                    let one = Heartbeat { vote: Some((id, vote)), requests, failed, ..heartbeat(&state) };
                    keeper.handle_heartbeat(&state, name.clone(), one, now);
                }
                keeper.handle_keep_alive(&state, &[1], now);
                for command in keeper.handle_tick(&state, 1, 0, now) {
                    state.apply(ORIGIN, command).unwrap();
                }
            }
            let phase = &state.rollouts.get(&id).unwrap().phase;
            match (bad, phase) {
                (false, Phase::Committed(_)) => assert!(state.object(&key("document/main")).is_some()),
                (true, Phase::Aborted(reason)) => assert!(reason.contains("failed"), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
