//! What is due, and is begun: times in order, so that nobody looks at the backends for which nothing is due.

use crate::member::MemberState;
use crate::recurring::Recurring;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Finds one of the recurring things of a backend.
type Of = fn(&mut MemberState) -> &mut Recurring;

/// When something is due at which backend.
///
/// Every backend at which it is to begin has an entry with its time. An entry whose backend has got another time since is forgotten once it
/// would be next; an entry is a place in the list of backends, so that all are made anew with that list.
#[derive(Debug)]
pub(crate) struct Due {
    of: Of,
    times: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl Due {
    pub(crate) fn new(of: Of) -> Self {
        Self { of, times: BinaryHeap::new() }
    }

    /// Takes in when it is due at all of these.
    pub(crate) fn rebuild(&mut self, members: &mut [MemberState]) {
        let times = members.iter_mut().enumerate();
        self.times = times.filter_map(|(index, member)| Some(Reverse(((self.of)(member).due()?, index)))).collect();
    }

    /// It is due at that time.
    pub(crate) fn schedule(&mut self, members: &mut [MemberState], index: usize, at: Instant) {
        self.times.push(Reverse((at, index)));
        self.forget_past(members);
    }

    /// Forgets times that hold no longer, as far as they would be next.
    pub(crate) fn forget_past(&mut self, members: &mut [MemberState]) {
        while let Some(&Reverse((at, index))) = self.times.peek() {
            if members.get_mut(index).is_some_and(|member| (self.of)(member).due() == Some(at)) {
                return;
            }
            self.times.pop();
        }
    }

    /// When something may be due next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.times.peek().map(|Reverse((at, _))| *at)
    }

    /// Begins what has been due for longest: gives at which backend.
    pub(crate) fn begin(&mut self, members: &mut [MemberState], now: Instant) -> Option<usize> {
        self.forget_past(members);
        let &Reverse((_, index)) = self.times.peek().filter(|Reverse((at, _))| *at <= now)?;
        self.times.pop();
        // The interval runs from here.
        *(self.of)(members.get_mut(index)?) = Recurring { next: Some(now), under_way: true };
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a time to begin with")]
    fn what_is_due_begins_the_longest_overdue_first_and_not_twice() {
        let now = Instant::now() + Duration::from_secs(100);
        let ago = |seconds| Some(now - Duration::from_secs(seconds));
        let later = now + Duration::from_nanos(1);
        let mut members: Vec<MemberState> = ["a", "b", "c", "d", "e"].map(|id| MemberState::new(id, None)).into();
        for (member, time) in members.iter_mut().zip([ago(1), ago(3), None, Some(now), Some(later)]) {
            member.check.next = time;
        }
        let mut due = Due::new(|member| &mut member.check);
        due.rebuild(&mut members);
        let mut begun =
            |members: &mut [MemberState], now| std::iter::from_fn(|| due.begin(members, now)).collect::<Vec<_>>();
        assert_eq!(begun(&mut members, now), [1, 0, 3]);
        assert!(begun(&mut members, now).is_empty(), "those that are under way do not begin again");
        assert_eq!(members[1].check.next, Some(now), "its interval runs from here");
        assert_eq!(begun(&mut members, later), [4]);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a time to begin with")]
    fn a_time_that_holds_no_longer_begins_nothing() {
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        let mut members = vec![MemberState::new("a", None)];
        members[0].check.next = Some(soon);
        let mut due = Due::new(|member| &mut member.check);
        due.rebuild(&mut members);
        members[0].check.next = Some(later);
        due.schedule(&mut members, 0, later);
        assert_eq!(due.begin(&mut members, soon), None);
        assert_eq!(due.next(), Some(later));
        assert_eq!(due.begin(&mut members, later), Some(0));
        assert_eq!(due.next(), None);
    }
}
