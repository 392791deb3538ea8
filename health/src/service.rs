//! All backends of a service: which are checked when, which may be ejected, and when health is ignored.

use crate::due::Due;
use crate::event::{Event, EventKind};
use crate::levels::LevelHealth;
use crate::member::{MemberKey, MemberRef, MemberState};
use crate::params::Params;
use crate::recurring::Recurring;
use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

mod ejection;
mod probes;
mod settle;
mod view;
pub use view::STATES;

/// Events that are not polled are forgotten beyond so many.
const EVENTS_MAX: usize = 10_000;

/// A member as the configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Stable identity: state hangs on it.
    pub id: &'a str,
    /// In percent.
    pub weight: u32,
    /// Whether it is being drained.
    pub drain: bool,
    /// Whether it is drained so that no client stays, whatever binds it.
    pub maintenance: bool,
    /// Tier and zone, the most preferred 0.
    pub level: u8,
}

impl<'a> Member<'a> {
    /// Of weight 100, in the first level, not draining.
    #[must_use]
    pub fn new(id: &'a str) -> Self {
        Self { id, weight: 100, drain: false, maintenance: false, level: 0 }
    }
}

/// The health of a service's backends.
#[derive(Debug)]
pub struct ServiceHealth {
    pub(crate) params: Params,
    /// Sorted by id.
    pub(crate) members: Vec<MemberState>,
    /// Checks, and questions to agents.
    pub(crate) checks: Due,
    pub(crate) questions: Due,
    /// When time alone changes something: an ejection ends, a ramp moves, clients are kept no longer.
    next_move: Option<Instant>,
    random: u64,
    started: bool,
    panic: bool,
    /// Levels of which too little is healthy.
    lacking: Vec<LevelHealth>,
    /// Shares of the levels, most preferred first.
    levels: Vec<(u8, f64)>,
    events: VecDeque<Event>,
    /// A share has changed since it was asked.
    changed: bool,
    /// The member that was looked for last: whoever goes through all of them asks for it again, or for the next.
    found: Cell<usize>,
    /// The last time it was told.
    pub(crate) now: Instant,
}

impl ServiceHealth {
    /// Without members yet. Equal seeds and equal histories give equal behaviour.
    #[must_use]
    pub fn new(params: Params, seed: u64, now: Instant) -> Self {
        Self {
            params,
            members: Vec::new(),
            checks: Due::new(|member| &mut member.check),
            questions: Due::new(|member| &mut member.agent.question),
            next_move: None,
            random: seed,
            started: false,
            panic: false,
            lacking: Vec::new(),
            levels: Vec::new(),
            events: VecDeque::new(),
            changed: true,
            found: Cell::new(0),
            now,
        }
    }

    /// Changes the parameters; states stay, schedules follow at their next turn.
    pub fn set_params(&mut self, params: Params, now: Instant) {
        self.now = now;
        let gained = self.params.check.is_none() && params.check.is_some();
        let lost = self.params.check.is_some() && params.check.is_none();
        self.params = params;
        for index in 0..self.members.len() {
            if lost {
                let member = &mut self.members[index];
                member.check = Recurring::NEVER;
                member.check_percent = 100;
                if !std::mem::replace(&mut member.check_up, true) && member.is_up() {
                    member.ramp_up(params.slow_start, now);
                }
                member.presumed_down = false;
            } else if gained {
                self.schedule_first(index);
            } else if let (Some(check), Some(next)) = (params.check, self.members[index].check.next) {
                // A shorter interval holds at once.
                let latest = now + self.members[index].check_interval(&check);
                self.members[index].check.next = Some(next.min(latest));
            }
        }
        self.follow_agent_params(now);
        self.rebuild_due();
        self.settle(now);
    }

    /// Changes the membership: remaining backends keep their state.
    pub fn set_members(&mut self, members: &[Member<'_>], now: Instant) {
        self.now = now;
        let mut regained = Vec::new();
        // Mostly nobody has come or gone.
        if !self.members.iter().map(|state| &*state.id).eq(members.iter().map(|member| member.id)) {
            let ids: HashSet<&str> = members.iter().map(|member| member.id).collect();
            self.members.retain(|state| ids.contains(&*state.id));
        }
        for member in members {
            let drain = member.drain || member.maintenance;
            let index = match self.find(member.id.into()) {
                Ok(index) => index,
                Err(index) => {
                    let mut state = MemberState::new(member.id, self.params.check.as_ref());
                    // What the fleet begins with has its share at once; what joins it later comes along the ramp.
                    if self.started && !drain && state.is_up() {
                        state.ramp_up(self.params.slow_start, now);
                    }
                    state.presumed_down = !self.started && !state.is_up();
                    state.joins = self.started && !drain;
                    self.members.insert(index, state);
                    self.schedule_first(index);
                    self.schedule_first_agent(index);
                    self.members[index].drain = drain;
                    index
                }
            };
            let state = &mut self.members[index];
            let took_none = state.weight_asked() == 0;
            (state.weight, state.level, state.maintenance) = (member.weight, member.level, member.maintenance);
            if drain && !state.drain {
                state.ramp_down(self.params.drain_ramp, now);
                state.drain = true;
                self.tell(index, EventKind::Draining);
            } else if !drain && state.drain {
                (state.drain, state.presumed_down, state.joins) = (false, false, false);
                state.ramp_up(self.params.slow_start, now);
                self.tell(index, EventKind::Undrained);
            }
            if took_none && self.members[index].weight_asked() > 0 && self.members[index].ejected_until.is_some() {
                regained.push(member.id);
            }
        }
        // Once all are known: whether one may be ejected depends on which others there are.
        for id in regained {
            if let Ok(index) = self.find(id.into()) {
                self.recount_ejection(index, now);
            }
        }
        self.started = true;
        self.rebuild_due();
        self.settle(now);
    }

    fn rebuild_due(&mut self) {
        self.checks.rebuild(&mut self.members);
        self.questions.rebuild(&mut self.members);
    }

    /// Time has passed: ejections end, ramps move.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.checks.forget_past(&mut self.members);
        self.questions.forget_past(&mut self.members);
        if self.next_move.is_none_or(|at| at > now) {
            return;
        }
        for index in 0..self.members.len() {
            if self.members[index].ejected_until.is_some_and(|until| until <= now) {
                self.members[index].return_from_ejection(now);
                self.members[index].ramp_up(self.params.slow_start, now);
                self.tell(index, EventKind::Returned);
            }
        }
        self.settle(now);
    }

    /// When [`ServiceHealth::handle_timeout`] or [`ServiceHealth::poll_probes`] has something to do next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.checks.next(), self.questions.next(), self.next_move].into_iter().flatten().min()
    }

    /// A backend whose check is due, the longest overdue first; the check counts as begun. Call until `None`.
    pub fn poll_probe(&mut self, now: Instant) -> Option<MemberKey> {
        self.now = now;
        let index = self.checks.begin(&mut self.members, now)?;
        Some(self.key(index))
    }

    /// All backends whose checks are due, likewise.
    pub fn poll_probes(&mut self, now: Instant) -> Vec<MemberKey> {
        std::iter::from_fn(|| self.poll_probe(now)).collect()
    }

    /// All backends whose agents are to be asked, likewise.
    pub fn poll_agents(&mut self, now: Instant) -> Vec<MemberKey> {
        self.now = now;
        std::iter::from_fn(|| {
            let index = self.questions.begin(&mut self.members, now)?;
            Some(self.key(index))
        })
        .collect()
    }

    /// The key of the member that has this id now.
    #[must_use]
    pub fn member_key(&self, id: &str) -> Option<MemberKey> {
        self.find(id.into()).ok().map(|index| self.key(index))
    }

    fn key(&self, index: usize) -> MemberKey {
        MemberKey { id: Arc::clone(&self.members[index].id), index }
    }

    /// What has happened since; call until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether any share has changed since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Its place; or where it would be, of one that is not there, or is another one than the key was made of.
    fn find(&self, member: MemberRef<'_>) -> Result<usize, usize> {
        let MemberRef { id, key } = member;
        let is_it = |state: &MemberState| key.is_none_or(|key| Arc::ptr_eq(&key.id, &state.id));
        if let Some(key) = key.filter(|key| self.members.get(key.index).is_some_and(is_it)) {
            return Ok(key.index);
        }
        let last = self.found.get();
        let near =
            (last..last.saturating_add(2)).find(|&index| self.members.get(index).is_some_and(|state| *state.id == *id));
        let found = match near {
            Some(index) => index,
            None => self.members.binary_search_by(|state| (*state.id).cmp(id))?,
        };
        self.found.set(found);
        if is_it(&self.members[found]) { Ok(found) } else { Err(found) }
    }

    fn tell(&mut self, index: usize, kind: EventKind) {
        self.members[index].last_change = Some((kind, self.now));
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(Event { id: self.members[index].id.to_string(), kind });
        }
    }

    /// A number from 0 to 1: SplitMix64 (Steele, Lea, Flood, 2014).
    pub(crate) fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Probe;
    use std::time::Duration;

    /// Source: the reference implementation's first numbers for the seed 1234567 (Vigna, splitmix64.c).
    #[test]
    #[allow(clippy::disallowed_methods, reason = "a time to begin with")]
    fn fractions_are_those_of_splitmix64() {
        let mut health = ServiceHealth::new(Params::default(), 1_234_567, Instant::now());
        for number in [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423] {
            assert_eq!(health.fraction(), (number >> 11) as f64 / (1_u64 << 53) as f64);
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn checked(interval: Duration) -> Params {
        let check = crate::CheckParams {
            interval,
            interval_down: interval,
            interval_transition: interval,
            jitter: 0.0,
            ..crate::CheckParams::default()
        };
        Params { check: Some(check), ..Params::default() }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a time to begin with")]
    fn a_shorter_interval_holds_at_once_and_a_longer_one_from_the_next_check_on() {
        let now = Instant::now();
        let mut health = ServiceHealth::new(checked(SECOND * 60), 1, now);
        health.set_members(&[Member::new("a")], now);
        let later = now + SECOND * 60;
        assert_eq!(health.poll_probe(later).as_deref(), Some("a"));
        health.handle_probe("a", Probe::Success, later);
        assert_eq!(health.poll_timeout(), Some(later + SECOND * 60));
        health.set_params(checked(SECOND * 2), later);
        assert_eq!(health.poll_timeout(), Some(later + SECOND * 2));
        health.set_params(checked(SECOND * 90), later);
        assert_eq!(health.poll_timeout(), Some(later + SECOND * 2));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a time to begin with")]
    fn what_is_told_of_a_member_that_has_left_says_nothing_of_the_one_that_came_under_its_id() {
        let now = Instant::now();
        let agent = crate::AgentParams { interval: SECOND, timeout: SECOND };
        let params = Params { agent: Some(agent), ..checked(SECOND) };
        let mut health = ServiceHealth::new(params, 1, now);
        health.set_members(&[Member::new("a"), Member::new("b")], now);
        let due = now + SECOND;
        let (check, question) = (health.poll_probes(due), health.poll_agents(due));
        let of_b = |keys: Vec<MemberKey>| keys.into_iter().find(|key| &**key == "b").unwrap();
        let (check, question) = (of_b(check), of_b(question));
        health.set_members(&[Member::new("a")], due);
        health.set_members(&[Member::new("a"), Member::new("b")], due);
        let next = health.poll_timeout();
        health.handle_probe(&check, Probe::Failure(crate::CheckFailure::Connect), due);
        health.handle_no_probe(&check, due);
        let down = crate::AgentReport { up: Some(false), ..crate::AgentReport::default() };
        health.handle_agent(&question, down, due);
        let view = health.view("b", due).unwrap();
        assert_eq!((view.state, view.check_failure, view.agent), ("unknown", None, "up"));
        assert_eq!(health.poll_timeout(), next, "nor does it hold up the next check");
        // One that has only moved is still meant.
        let later = due + SECOND;
        let check = of_b(health.poll_probes(later));
        health.set_members(&[Member::new("0"), Member::new("a"), Member::new("b")], later);
        health.handle_probe(&check, Probe::Failure(crate::CheckFailure::Connect), later);
        assert_eq!(health.view("b", later).unwrap().state, "down");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a time to begin with")]
    fn without_checks_a_backend_that_was_down_by_them_is_up() {
        let now = Instant::now();
        let mut health = ServiceHealth::new(checked(SECOND), 1, now);
        health.set_members(&[Member::new("a"), Member::new("b")], now);
        for round in 1..20 {
            let at = now + SECOND * round;
            while let Some(id) = health.poll_probe(at) {
                let probe = if &*id == "a" { Probe::Failure(crate::CheckFailure::Connect) } else { Probe::Success };
                health.handle_probe(&id, probe, at);
            }
        }
        let end = now + SECOND * 20;
        assert_eq!(health.share("a"), Some(0));
        health.set_params(Params::default(), end);
        assert_eq!(health.share("a"), Some(u16::MAX));
        assert_eq!(health.poll_timeout(), None, "no check is to come");
    }
}
