//! Ejection: what live traffic tells of backends, and which of them may be left out for it.

use super::ServiceHealth;
use crate::event::{Cause, EventKind, Outcome, Window};
use crate::statistics;
use std::time::{Duration, Instant};

impl ServiceHealth {
    /// A request of live traffic has ended.
    pub fn handle_outcome(&mut self, id: &str, outcome: Outcome, now: Instant) {
        self.now = now;
        let Ok(index) = self.find(id.into()) else { return };
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

    /// An interval of [`crate::OutlierParams::interval`] has passed, in which the backends did this.
    pub fn handle_windows(&mut self, windows: &[Window<'_>], now: Instant) {
        self.now = now;
        // A backend that takes no keys is no measure for others, and needs no ejection: what it still gets is its sessions' alone.
        let able = |id: &str| self.find(id.into()).is_ok_and(|index| self.members[index].weight_asked() > 0);
        let judged: Vec<Window<'_>> = windows.iter().filter(|window| able(window.id)).copied().collect();
        for (id, cause) in statistics::outliers(&judged, &self.params.outlier) {
            if let Ok(index) = self.find(id.into())
                && self.members[index].ejected_until.is_none()
            {
                self.eject(index, cause, Duration::ZERO, true, now);
            }
        }
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
            // It may say so with every answer.
            if self.members[index].leave_alone_longer(wish, now) {
                self.settle(now);
            }
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
    /// bad is to give its keys to the next. What is drained or of weight 0 is no part of what the others can carry, ejected or
    /// not; what is down is none either, but comes back into its ejection, so that it counts.
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
            // It carries nothing but what has begun there: that goes elsewhere, if another backend is left.
            return left > 0;
        }
        let percent = self.params.outlier.max_ejection_percent as usize;
        // One always may, if that leaves another; all may only where that is what is written.
        percent >= 100 || left > 0 && ejected < (able * percent / 100).max(1)
    }

    /// A backend that took no keys is to take some: an ejection that would not have been allowed then ends.
    pub(super) fn recount_ejection(&mut self, index: usize, now: Instant) {
        if self.members[index].ejected_until.is_some() && !self.may_eject(index) {
            self.members[index].return_from_ejection(now);
            self.tell(index, EventKind::Returned);
        }
    }
}
