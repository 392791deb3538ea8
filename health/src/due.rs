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
