//! All backends of a service: who is checked when, who may be ejected, and when health is ignored.

use crate::agent::{AgentReport, AgentState};
use crate::due::begin;
use crate::event::{Cause, CheckFailure, Event, EventKind, Outcome, Probe, Window};
use crate::levels::{self, LevelHealth};
use crate::member::{MemberState, MemberView};
use crate::params::{PanicMode, Params};
use crate::statistics;
use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Events that nobody has asked for are forgotten beyond so many.
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
    /// Whether it is drained so that nobody stays, whatever binds him to it.
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
    random: u64,
    started: bool,
    panic: bool,
    /// Shares of the levels, most preferred first.
    levels: Vec<(u8, f64)>,
    events: VecDeque<Event>,
    /// A share has changed since it was asked.
    changed: bool,
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
            random: seed,
            started: false,
            panic: false,
            levels: Vec::new(),
            events: VecDeque::new(),
            changed: true,
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
                (member.next_check, member.checking) = (None, false);
                member.check_percent = 100;
                if !std::mem::replace(&mut member.check_up, true) && member.is_up() {
                    member.ramp_up(params.slow_start, now);
                }
            } else if gained {
                self.schedule_first(index);
            } else if let (Some(check), Some(next)) = (params.check, self.members[index].next_check) {
                // A shorter interval holds at once.
                let latest = now + self.members[index].check_interval(&check);
                self.members[index].next_check = Some(next.min(latest));
            }
        }
        self.follow_agent_params(now);
        self.settle(now);
    }

    /// Changes the membership: who stays keeps all that is known of him.
    pub fn set_members(&mut self, members: &[Member<'_>], now: Instant) {
        self.now = now;
        let ids: HashSet<&str> = members.iter().map(|member| member.id).collect();
        let mut regained = Vec::new();
        self.members.retain(|state| ids.contains(state.id.as_str()));
        for member in members {
            let drain = member.drain || member.maintenance;
            let index = match self.find(member.id) {
                Ok(index) => index,
                Err(index) => {
                    let mut state = MemberState::new(member.id, self.params.check.as_ref());
                    // What the fleet begins with has its share at once; who joins it later comes along the ramp.
                    if self.started && !drain && state.is_up() {
                        state.ramp_up(self.params.slow_start, now);
                    }
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
                state.drain = false;
                state.ramp_up(self.params.slow_start, now);
                self.tell(index, EventKind::Undrained);
            }
            if took_none && self.members[index].weight_asked() > 0 && self.members[index].ejected_until.is_some() {
                regained.push(member.id);
            }
        }
        // Once all are known: who may be ejected is a matter of who else there is.
        for id in regained {
            if let Ok(index) = self.find(id) {
                self.recount_ejection(index, now);
            }
        }
        self.started = true;
        self.settle(now);
    }

    /// An active check has ended.
    pub fn handle_probe(&mut self, id: &str, probe: Probe, now: Instant) {
        self.now = now;
        let (Ok(index), Some(check)) = (self.find(id), self.params.check) else { return };
        let before = self.standing(index);
        let failure = match probe {
            Probe::Success | Probe::Weighted(_) => None,
            Probe::Failure(failure) => Some(failure),
        };
        let member = &mut self.members[index];
        let mut changed = member.handle_probe(probe, &check);
        match probe {
            Probe::Success => member.check_percent = 100,
            Probe::Weighted(percent) => member.check_percent = percent,
            Probe::Failure(_) => {}
        }
        changed |= self.tell_standing(index, before, failure, now);
        let member = &mut self.members[index];
        if self.params.outlier.return_on_check && member.ejected_until.is_some() && member.good_checks >= check.rise {
            member.return_from_ejection(now);
            member.ramp_up(self.params.slow_start, now);
            self.tell(index, EventKind::ReturnedByCheck);
            changed = true;
        }
        self.schedule_next(index, check, now);
        // Most checks change nothing; working everything out anew for each would be a scan of the fleet a check.
        if changed {
            self.settle(now);
        }
    }

    /// An active check could not be made, for reasons that are not the backend's: that says nothing of it. The next one comes
    /// after an interval, as always.
    pub fn handle_no_probe(&mut self, id: &str, now: Instant) {
        self.now = now;
        if let (Ok(index), Some(check)) = (self.find(id), self.params.check) {
            self.members[index].checking = false;
            self.schedule_next(index, check, now);
        }
    }

    /// Nobody will tell of the checks that are under way any more: they end without a result.
    pub fn forget_probes(&mut self, now: Instant) {
        self.now = now;
        for index in 0..self.members.len() {
            if std::mem::take(&mut self.members[index].checking)
                && let Some(check) = self.params.check
            {
                self.schedule_next(index, check, now);
            }
            if self.members[index].agent.asking {
                self.end_agent(index, now);
            }
        }
    }

    /// An agent has been asked; of one that has said nothing, the report is empty. Its words hold until it says others.
    pub fn handle_agent(&mut self, id: &str, report: AgentReport, now: Instant) {
        self.now = now;
        let Ok(index) = self.find(id) else { return };
        self.end_agent(index, now);
        if self.params.agent.is_none() {
            return;
        }
        let before = self.standing(index);
        let agent = &mut self.members[index].agent;
        let mode = agent.mode;
        agent.take_in(report);
        let mut changed = agent.mode != mode;
        changed |= self.tell_standing(index, before, Some(CheckFailure::Agent), now);
        if changed {
            self.settle(now);
        }
    }

    /// Whether it is up, and which part of its weight it asks for: what checks and agent say together.
    fn standing(&self, index: usize) -> (bool, u8) {
        (self.members[index].is_up(), self.members[index].percent())
    }

    /// Tells what has become of it since it stood so. `true`: something has. `failure`: what has taken it down then.
    fn tell_standing(&mut self, index: usize, before: (bool, u8), failure: Option<CheckFailure>, now: Instant) -> bool {
        let (up, percent) = self.standing(index);
        if up != before.0 {
            match failure.filter(|_| !up) {
                Some(failure) => self.tell(index, EventKind::Down(failure)),
                None => {
                    self.members[index].ramp_up(self.params.slow_start, now);
                    self.tell(index, EventKind::Up);
                }
            }
        }
        if percent != before.1 {
            self.tell(index, EventKind::Reweighted(percent));
            if before.1 == 0 {
                self.recount_ejection(index, now);
            }
        }
        (up, percent) != before
    }

    /// What follows for the agents from the parameters.
    fn follow_agent_params(&mut self, now: Instant) {
        for index in 0..self.members.len() {
            match (self.params.agent, self.members[index].agent.next) {
                (None, _) => {
                    let was_down = !self.members[index].is_up();
                    self.members[index].agent = AgentState::default();
                    if was_down && self.members[index].is_up() {
                        self.members[index].ramp_up(self.params.slow_start, now);
                    }
                }
                (Some(_), None) => self.schedule_first_agent(index),
                (Some(params), Some(next)) => {
                    self.members[index].agent.next = Some(next.min(now + params.interval));
                }
            }
        }
    }

    /// A request of live traffic has ended.
    pub fn handle_outcome(&mut self, id: &str, outcome: Outcome, now: Instant) {
        self.now = now;
        let Ok(index) = self.find(id) else { return };
        let params = self.params.outlier;
        let (local, wish) = (outcome.is_local(), params.obeyed(outcome.wish()));
        let failed = local || outcome.status().is_some_and(|status| params.on.counts(status));
        let member = &mut self.members[index];
        if !failed {
            (member.failures, member.local_failures) = (0, 0);
        }
        member.wish_withheld &= !wish.is_zero();
        // Both are judged: the status, and then the wish, unless the status has got it as much already.
        if failed && self.count_failure(index, outcome, wish, now) {
            return;
        }
        self.leave_alone(index, wish, now);
    }

    /// Counts a failure of live traffic. `true`: it has ejected the backend, for as long as that asks for at least.
    fn count_failure(&mut self, index: usize, outcome: Outcome, wish: Duration, now: Instant) -> bool {
        let params = self.params.outlier;
        let local = outcome.is_local();
        let member = &mut self.members[index];
        let apart = params.consecutive_local_failures.filter(|_| local);
        let threshold = apart.unwrap_or(params.consecutive_failures);
        if threshold == 0 || member.ejected_until.is_some() {
            return false;
        }
        let count = if apart.is_some() { &mut member.local_failures } else { &mut member.failures };
        *count = match outcome {
            // Nobody answers there: each more that tries would wait as long.
            Outcome::ConnectTimeout => threshold.max(*count + 1),
            _ => count.saturating_add(1),
        };
        let failures = *count;
        if failures < threshold {
            return false;
        }
        let cause = if apart.is_some() { Cause::Local(failures) } else { Cause::Consecutive(failures) };
        self.eject(index, cause, wish, failures == threshold, now)
    }

    /// An interval of [`crate::OutlierParams::interval`] has passed, in which the backends did this.
    pub fn handle_windows(&mut self, windows: &[Window<'_>], now: Instant) {
        self.now = now;
        // Who takes no keys is nobody's yardstick, and needs no ejection: what it still gets is its sessions' alone.
        let able = |id: &str| self.find(id).is_ok_and(|index| self.members[index].weight_asked() > 0);
        let judged: Vec<Window<'_>> = windows.iter().filter(|window| able(window.id)).copied().collect();
        for (id, cause) in statistics::outliers(&judged, &self.params.outlier) {
            if let Ok(index) = self.find(id)
                && self.members[index].ejected_until.is_none()
            {
                self.eject(index, cause, Duration::ZERO, true, now);
            }
        }
    }

    /// Ejects a backend, unless that leaves too few; `tell`: say so then. `true`: it is ejected.
    fn eject(&mut self, index: usize, cause: Cause, wish: Duration, tell: bool, now: Instant) -> bool {
        let may = self.may_eject(index);
        if may {
            let fraction = self.fraction();
            let params = self.params.outlier;
            let duration = self.members[index].eject(&params, wish, fraction, now);
            self.tell(index, EventKind::Ejected { cause, duration });
            self.settle(now);
        } else if tell {
            self.tell(index, EventKind::EjectionWithheld(cause));
        }
        may
    }

    /// A backend has asked to be left alone.
    fn leave_alone(&mut self, index: usize, wish: Duration, now: Instant) {
        if wish.is_zero() {
            return;
        }
        if self.members[index].ejected_until.is_some() {
            self.members[index].leave_alone_longer(wish, now);
        } else if self.may_eject(index) {
            self.members[index].leave_alone(wish, now);
            self.tell(index, EventKind::Ejected { cause: Cause::RetryAfter, duration: wish });
            self.settle(now);
        } else if !std::mem::replace(&mut self.members[index].wish_withheld, true) {
            // Once: it may say so with every answer.
            self.tell(index, EventKind::EjectionWithheld(Cause::RetryAfter));
        }
    }

    /// Whether a backend that is not ejected may be.
    ///
    /// The share is of those that take traffic or would if they were not ejected, over all levels: a level whose backends are all
    /// bad is to give its keys to the next. Who is drained or of weight 0 is no part of what the others can carry, ejected or
    /// not; who is down is none either, but comes back into his ejection, so that it counts.
    fn may_eject(&self, index: usize) -> bool {
        let (mut able, mut ejected, mut left) = (0, 0, 0);
        for (at, member) in self.members.iter().enumerate().filter(|(_, member)| member.weight_asked() > 0) {
            let is_other = at != index;
            let is_ejected = is_other && member.ejected_until.is_some();
            able += usize::from(member.is_up() || !is_other);
            ejected += usize::from(is_ejected);
            left += usize::from(member.is_up() && !is_ejected && is_other);
        }
        if self.members[index].weight_asked() == 0 {
            // It carries nothing but what has begun there: that goes elsewhere, if there is anybody.
            return left > 0;
        }
        let percent = self.params.outlier.max_ejection_percent as usize;
        // One always may, if that leaves somebody; all may only where that is what is written.
        percent >= 100 || left > 0 && ejected < (able * percent / 100).max(1)
    }

    /// A backend that took no keys is to take some: an ejection that would not have been allowed then ends.
    fn recount_ejection(&mut self, index: usize, now: Instant) {
        if self.members[index].ejected_until.is_some() && !self.may_eject(index) {
            self.members[index].return_from_ejection(now);
            self.tell(index, EventKind::Returned);
        }
    }

    /// Time has passed: ejections end, ramps move.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        for index in 0..self.members.len() {
            if self.members[index].ejected_until.is_some_and(|until| until <= now) {
                self.members[index].return_from_ejection(now);
                self.members[index].ramp_up(self.params.slow_start, now);
                self.tell(index, EventKind::Returned);
            }
        }
        self.settle(now);
    }

    /// When [`ServiceHealth::handle_timeout`] or [`ServiceHealth::poll_probe`] has something to do next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.members
            .iter()
            .flat_map(|member| {
                let check = member.next_check.filter(|_| !member.checking);
                let agent = member.agent.next.filter(|_| !member.agent.asking);
                let kept = member.keeps_until(self.params.keep_clients);
                [check, agent, member.ejected_until, member.next_step(self.now), kept]
            })
            .flatten()
            .min()
    }

    /// A backend whose check is due; the check counts as begun. Call until `None`.
    pub fn poll_probe(&mut self, now: Instant) -> Option<String> {
        self.now = now;
        begin(&mut self.members, now, 1, |member| (&mut member.next_check, &mut member.checking)).pop()
    }

    /// All backends whose checks are due, the longest overdue first; the checks count as begun.
    pub fn poll_probes(&mut self, now: Instant) -> Vec<String> {
        self.now = now;
        begin(&mut self.members, now, usize::MAX, |member| (&mut member.next_check, &mut member.checking))
    }

    /// All backends whose agents are to be asked, likewise.
    pub fn poll_agents(&mut self, now: Instant) -> Vec<String> {
        self.now = now;
        begin(&mut self.members, now, usize::MAX, |member| (&mut member.agent.next, &mut member.agent.asking))
    }

    /// What has happened since; call until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether any share has changed since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Share of its keys that a backend takes now: 0 none, 65535 all.
    #[must_use]
    pub fn share(&self, id: &str) -> Option<u16> {
        self.find(id).ok().map(|index| self.members[index].share)
    }

    /// Whether a backend is unhealthy. One that has a share all the same has it in panic, and is the last to be asked.
    #[must_use]
    pub fn is_doubted(&self, id: &str) -> bool {
        self.find(id).is_ok_and(|index| self.members[index].doubted)
    }

    /// Whether a backend that takes no keys keeps the clients that are bound to it.
    #[must_use]
    pub fn keeps_clients(&self, id: &str) -> bool {
        self.find(id).is_ok_and(|index| self.members[index].keeps_clients)
    }

    /// Whether a success would now change something: its last outcome was a failure.
    #[must_use]
    pub fn is_suspect(&self, id: &str) -> bool {
        self.find(id).is_ok_and(|index| {
            let member = &self.members[index];
            member.failures > 0 || member.local_failures > 0
        })
    }

    /// Whether health is being ignored.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.panic
    }

    /// Shares of the levels that have members, most preferred first, 0 to 1.
    #[must_use]
    pub fn level_shares(&self) -> &[(u8, f64)] {
        &self.levels
    }

    /// A backend as the status shows it.
    #[must_use]
    pub fn view(&self, id: &str, now: Instant) -> Option<MemberView> {
        self.find(id).ok().map(|index| self.members[index].view(self.params.check.is_some(), now))
    }

    fn find(&self, id: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.id.as_str().cmp(id))
    }

    fn tell(&mut self, index: usize, kind: EventKind) {
        self.members[index].last_change = Some((kind, self.now));
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(Event { id: self.members[index].id.clone(), kind });
        }
    }

    /// Works out all shares, those of the levels, and whether there is panic.
    fn settle(&mut self, now: Instant) {
        let mut levels: Vec<LevelHealth> = Vec::with_capacity(1);
        for member in &mut self.members {
            member.update_share(now);
            let at = match levels.binary_search_by_key(&member.level, |level| level.level) {
                Ok(at) => at,
                Err(at) => {
                    levels.insert(at, LevelHealth { level: member.level, weight: 0, healthy: 0 });
                    at
                }
            };
            // A part of a weight that is asked for is like a smaller weight: it makes nobody less healthy.
            levels[at].weight += member.weight_asked();
            levels[at].healthy += if member.is_healthy() { member.weight_asked() } else { 0 };
        }
        let (shares, suffices) = levels::shares(&levels, self.params.overprovisioning_percent);
        let threshold = u64::from(self.params.panic_threshold_percent);
        let panics = |level: &LevelHealth| level.weight > 0 && level.healthy * 100 < threshold * level.weight;
        // Several levels that together can carry everything need no panic; one stands for itself.
        let in_panic: Vec<u8> = if levels.len() > 1 && suffices {
            Vec::new()
        } else {
            levels.iter().filter(|level| panics(level)).map(|level| level.level).collect()
        };
        let panic = !in_panic.is_empty();
        if panic != self.panic {
            self.panic = panic;
            let kind = if panic { EventKind::PanicBegan } else { EventKind::PanicEnded };
            if self.events.len() < EVENTS_MAX {
                self.events.push_back(Event { id: String::new(), kind });
            }
        }
        self.changed |= shares != self.levels;
        self.levels = shares;
        let mut outlasted = Vec::new();
        for (index, member) in self.members.iter_mut().enumerate() {
            // In panic the unhealthy take their keys back; the healthy keep their ramps, and who drains goes on draining.
            let share = match (in_panic.contains(&member.level), self.params.panic_mode) {
                (true, PanicMode::Fail) => 0,
                (true, PanicMode::All) if !member.is_healthy() => member.share_if_healthy(now),
                _ => member.own_share,
            };
            let doubted = !member.is_healthy();
            let kept = member.keeps_clients;
            let keeping_changed = member.update_keeping(self.params.keep_clients, now);
            if keeping_changed && kept && member.has_kept_long_enough(self.params.keep_clients, now) {
                outlasted.push(index);
            }
            self.changed |= share != member.share || doubted != member.doubted || keeping_changed;
            member.doubted = doubted;
            member.share = share;
        }
        for index in outlasted {
            self.tell(index, EventKind::ClientsMoved);
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

    /// Source: the reference implementation's first numbers for the seed 1234567 (Vigna, splitmix64.c).
    #[test]
    #[allow(clippy::disallowed_methods, reason = "a time to begin with")]
    fn fractions_are_those_of_splitmix64() {
        let mut health = ServiceHealth::new(Params::default(), 1_234_567, Instant::now());
        for number in [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423] {
            assert_eq!(health.fraction(), (number >> 11) as f64 / (1_u64 << 53) as f64);
        }
    }
}
