//! Memory that a change of the configuration takes while it is read and built: the process's own, for a moment, and none of its clients'. Nobody
//! is turned away for it.

use super::{memory, released};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long after a change what it took may stay with the allocator.
const SETTLE_TIME: Duration = Duration::from_secs(10);
/// Longer than that, changes that follow each other hide nothing.
const HIDDEN_MAX: Duration = Duration::from_secs(60);

/// Changes under way.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    count: AtomicU32,
    /// Resident memory in bytes when the first of them began; 0 is unknown.
    resident: AtomicU64,
}

/// One that is, as long as it lives.
pub(crate) struct ChangeUnderWay<'a>(&'a Changes);

impl Changes {
    /// One begins.
    pub(crate) fn begin(&self) -> ChangeUnderWay<'_> {
        if self.count.fetch_add(1, Relaxed) == 0 {
            self.resident.store(memory::resident(memory::read).unwrap_or_default(), Relaxed);
        }
        ChangeUnderWay(self)
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.count.load(Relaxed) > 0
    }

    /// Resident memory in bytes before the last change, or the one under way, had taken any; `None`: there has been none, or it is not known.
    pub(crate) fn resident(&self) -> Option<u64> {
        Some(self.resident.load(Relaxed)).filter(|bytes| *bytes > 0)
    }
}

impl Drop for ChangeUnderWay<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
        released::note();
    }
}

/// What memory counts as its clients', look by look.
#[derive(Debug, Default)]
pub(crate) struct OwnWork {
    /// As of the last look at which nothing was under way.
    before: Option<u64>,
    /// Since when something has been, and when it was last seen.
    hidden: Option<(Instant, Instant)>,
}

impl OwnWork {
    /// Resident memory, in bytes, without what a change takes: as long as one is under way, and until it has been given back or some time has
    /// gone by, no more than before. `changes`: whether one is under way, and resident memory before it, or the last one.
    pub(crate) fn without(&mut self, resident: u64, changes: (bool, Option<u64>), now: Instant) -> u64 {
        let (is_under_way, before_change) = changes;
        // The first look is after the change that has asked for it.
        if let (None, Some(before)) = (self.before, before_change) {
            (self.before, self.hidden) = (Some(before), Some((now, now)));
        }
        match &mut self.hidden {
            Some((_, seen)) if is_under_way => *seen = now,
            None if is_under_way && self.before.is_some() => self.hidden = Some((now, now)),
            _ => {}
        }
        let after = |at: Instant, time| now.saturating_duration_since(at) >= time;
        let is_over = |(since, seen): (Instant, Instant)| after(seen, SETTLE_TIME) || after(since, HIDDEN_MAX);
        match (self.hidden, self.before) {
            (Some(hidden), Some(before)) if resident > before && !is_over(hidden) => before,
            _ => {
                // Where changes follow each other for so long, what they take is taken.
                let goes_on = is_under_way && self.hidden.is_some_and(|hidden| !is_over(hidden));
                self.hidden = self.hidden.filter(|_| goes_on);
                self.before = Some(resident);
                resident
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;

    /// Looks: at which second, resident memory, whether a change is under way, and what counts.
    fn look(looks: &[(u64, u64, bool, u64)]) {
        let (mut own, begun) = (OwnWork::default(), ambient::now());
        for &(second, resident, is_under_way, counts) in looks {
            let now = begun + Duration::from_secs(second);
            assert_eq!(own.without(resident, (is_under_way, None), now), counts, "{second} s: {resident}");
        }
    }

    #[test]
    fn what_a_change_takes_for_a_moment_is_nobodys() {
        look(&[(0, 20, false, 20), (1, 300, true, 20), (5, 400, false, 20), (9, 22, false, 20), (15, 22, false, 22)]);
        // What is given back counts at once.
        look(&[(0, 20, false, 20), (1, 300, true, 20), (2, 18, false, 18), (3, 300, false, 300)]);
    }

    #[test]
    fn what_the_change_has_taken_that_brings_the_first_limit_is_nobodys_either() {
        let (mut own, begun) = (OwnWork::default(), ambient::now());
        for (second, resident, counts) in [(0, 300, 20), (9, 300, 20), (10, 120, 120), (11, 300, 300)] {
            assert_eq!(
                own.without(resident, (false, Some(20)), begun + Duration::from_secs(second)),
                counts,
                "{second}"
            );
        }
    }

    #[test]
    fn what_it_keeps_counts_once_it_has_settled() {
        look(&[
            (0, 20, false, 20),
            (1, 300, true, 20),
            (2, 120, false, 20),
            (10, 120, false, 20),
            (11, 120, false, 120),
        ]);
    }

    #[test]
    fn changes_that_never_end_hide_nothing_for_ever() {
        let looks: Vec<_> = (0..100).map(|second| (second, 20 + second, second > 0, 20)).collect();
        let (mut own, begun) = (OwnWork::default(), ambient::now());
        let counted: Vec<u64> = looks
            .iter()
            .map(|&(second, resident, under_way, _)| {
                own.without(resident, (under_way, None), begun + Duration::from_secs(second))
            })
            .collect();
        assert_eq!(counted[60], 20);
        assert!(counted[61] > 75, "{:?}", &counted[58..64]);
    }

    #[test]
    fn a_change_counts_itself_as_long_as_it_lives() {
        let changes = Changes::default();
        let one = changes.begin();
        let other = changes.begin();
        drop(one);
        assert!(changes.is_under_way() && changes.resident().is_some());
        drop(other);
        assert!(!changes.is_under_way() && Changes::default().resident().is_none());
    }
}
