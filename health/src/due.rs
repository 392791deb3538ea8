//! What is due, and is begun.

use crate::member::MemberState;
use std::time::Instant;

/// Begins what is due, the longest overdue first, at most so many: gives their ids. `of` finds the time of the next one, and
/// whether one is under way.
pub(crate) fn begin(
    members: &mut [MemberState],
    now: Instant,
    most: usize,
    of: impl Fn(&mut MemberState) -> (&mut Option<Instant>, &mut bool),
) -> Vec<String> {
    let mut due: Vec<(Instant, usize)> = Vec::new();
    for (index, member) in members.iter_mut().enumerate() {
        if let (&mut Some(at), &mut false) = of(member)
            && at <= now
        {
            due.push((at, index));
        }
    }
    due.sort_unstable();
    due.truncate(most);
    let begun = due.into_iter().map(|(_, index)| {
        let (next, under_way) = of(&mut members[index]);
        // The interval runs from here.
        (*next, *under_way) = (Some(now), true);
        members[index].id.clone()
    });
    begun.collect()
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
        let mut members: Vec<MemberState> = ["a", "b", "c", "d", "e"].map(|id| MemberState::new(id, None)).into();
        let times = [ago(1), ago(3), None, Some(now), Some(now + Duration::from_nanos(1))];
        for (member, time) in members.iter_mut().zip(times) {
            member.next_check = time;
        }
        let mut due = |most| begin(&mut members, now, most, |member| (&mut member.next_check, &mut member.checking));
        assert_eq!(due(2), ["b", "a"]);
        assert_eq!(due(9), ["d"], "those that are under way do not begin again");
        assert!(due(9).is_empty());
        assert_eq!(members[1].next_check, Some(now), "its interval runs from here");
    }
}
