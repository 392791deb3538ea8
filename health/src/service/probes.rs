//! Results of active checks and words of agents.

use super::ServiceHealth;
use crate::agent::{AgentReport, AgentState};
use crate::event::{CheckFailure, EventKind, Probe};
use crate::member::MemberRef;
use std::time::Instant;

impl ServiceHealth {
    /// An active check has ended.
    pub fn handle_probe<'a>(&mut self, member: impl Into<MemberRef<'a>>, probe: Probe, now: Instant) {
        self.handle_probes([(member, probe)], now);
    }

    /// Active checks have ended. What follows for all shares is worked out once: that is a scan of the fleet, and when a rack goes
    /// down, each check of many changes something.
    pub fn handle_probes<'a, M: Into<MemberRef<'a>>>(
        &mut self,
        ended: impl IntoIterator<Item = (M, Probe)>,
        now: Instant,
    ) {
        self.now = now;
        let mut changed = false;
        for (member, probe) in ended {
            changed |= self.take_in_probe(member.into(), probe, now);
        }
        if changed {
            self.settle(now);
        }
    }

    /// `true`: something has changed that shares follow from. Most checks change nothing.
    fn take_in_probe(&mut self, member: MemberRef<'_>, probe: Probe, now: Instant) -> bool {
        let (Ok(index), Some(check)) = (self.find(member), self.params.check) else { return false };
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
        member.presumed_down = false;
        if self.params.outlier.return_on_check && member.ejected_until.is_some() && member.good_checks >= check.rise {
            member.return_from_ejection(now);
            member.ramp_up(self.params.slow_start, now);
            self.tell(index, EventKind::ReturnedByCheck);
            changed = true;
        }
        self.schedule_next(index, check, now);
        changed
    }

    /// An active check could not be made, for reasons that are not the backend's: that says nothing of it. The next one comes
    /// after an interval, as always.
    pub fn handle_no_probe<'a>(&mut self, member: impl Into<MemberRef<'a>>, now: Instant) {
        self.now = now;
        if let (Ok(index), Some(check)) = (self.find(member.into()), self.params.check) {
            self.members[index].check.under_way = false;
            self.schedule_next(index, check, now);
        }
    }

    /// Nobody will tell of the checks that are under way any more: they end without a result.
    pub fn forget_probes(&mut self, now: Instant) {
        self.now = now;
        for index in 0..self.members.len() {
            if std::mem::take(&mut self.members[index].check.under_way)
                && let Some(check) = self.params.check
            {
                self.schedule_next(index, check, now);
            }
            if self.members[index].agent.question.under_way {
                self.end_agent(index, now);
            }
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

    /// An agent has been asked; of one that has said nothing, the report is empty. Its words hold until it says others.
    pub fn handle_agent<'a>(&mut self, member: impl Into<MemberRef<'a>>, report: AgentReport, now: Instant) {
        self.now = now;
        let Ok(index) = self.find(member.into()) else { return };
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

    /// What follows for the agents from the parameters.
    pub(super) fn follow_agent_params(&mut self, now: Instant) {
        for index in 0..self.members.len() {
            match (self.params.agent, self.members[index].agent.question.next) {
                (None, _) => {
                    let was_down = !self.members[index].is_up();
                    self.members[index].agent = AgentState::default();
                    if was_down && self.members[index].is_up() {
                        self.members[index].ramp_up(self.params.slow_start, now);
                    }
                }
                (Some(_), None) => self.schedule_first_agent(index),
                (Some(params), Some(next)) => {
                    self.members[index].agent.question.next = Some(next.min(now + params.interval));
                }
            }
        }
    }
}
