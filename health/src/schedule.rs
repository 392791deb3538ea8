//! Which backends are checked, and which agents are asked, when.

use crate::params::{CheckParams, Initial};
use crate::service::ServiceHealth;
use std::time::{Duration, Instant};

/// A backend that counts as down until it is checked is checked within this time.
const FIRST_CHECK: Duration = Duration::from_millis(100);

impl ServiceHealth {
    /// First checks are spread over an interval, so that they never all fall together. The caller makes the list of what is due anew.
    pub(crate) fn schedule_first(&mut self, index: usize) {
        let Some(check) = self.params.check else { return };
        let CheckParams { interval, initial, .. } = check;
        let spread = if initial == Initial::Down { interval.min(FIRST_CHECK) } else { interval };
        let offset = spread.mul_f64(self.fraction());
        self.members[index].check.next = Some(self.now + offset);
    }

    /// From one start to the next: the check's own time is part of the interval.
    pub(crate) fn schedule_next(&mut self, index: usize, check: CheckParams, now: Instant) {
        let interval = self.members[index].check_interval(&check);
        let next = self.shortened(self.members[index].check.next, interval, now);
        self.members[index].check.next = Some(next);
        self.checks.schedule(&mut self.members, index, next);
    }

    /// As the checks, the first questions to agents are spread; the caller as there.
    pub(crate) fn schedule_first_agent(&mut self, index: usize) {
        let Some(agent) = self.params.agent else { return };
        let offset = agent.interval.mul_f64(self.fraction());
        self.members[index].agent.question.next = Some(self.now + offset);
    }

    /// A question to an agent is over: the next comes after an interval.
    pub(crate) fn end_agent(&mut self, index: usize, now: Instant) {
        self.members[index].agent.question.under_way = false;
        if let Some(agent) = self.params.agent {
            let next = self.shortened(self.members[index].agent.question.next, agent.interval, now);
            self.members[index].agent.question.next = Some(next);
            self.questions.schedule(&mut self.members, index, next);
        }
    }

    /// The next time after one that began then: an interval later, less its part of the jitter.
    fn shortened(&mut self, began: Option<Instant>, interval: Duration, now: Instant) -> Instant {
        let jitter = self.params.check.map_or(0.0, |check| check.jitter);
        let shortened = interval.mul_f64(1.0 - jitter * self.fraction());
        (began.unwrap_or(now) + shortened).max(now)
    }
}
