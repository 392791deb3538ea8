//! Whether a history of concurrent operations on one register could have happened one after the other.
//!
//! Just-in-time linearisation: walk the history in time, keep every configuration that explains it so far (the register's
//! value, and which operations that have not returned took effect already), and let operations take effect only when a
//! return forces them to. No configuration left is the proof that there is no order. Configurations are remembered, and
//! those that another one makes superfluous are dropped. Sources: Wing, Gong, "Testing and Verifying Concurrent Objects",
//! 1993; Lowe, "Testing for linearizability", 2017.

use std::collections::{BTreeSet, HashMap};

/// What was asked of the register, and what came of it. Values are names: each is written once at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// It read this.
    Read(u64),
    /// It wrote this, whatever was there.
    Write(u64),
    /// It found the first and wrote the second.
    Swap(u64, u64),
    /// It was refused, for it did not find this.
    Refused(u64),
}

impl Call {
    /// The register after it; `None`: it cannot happen here.
    fn step(self, value: u64) -> Option<u64> {
        match self {
            Self::Read(read) => (read == value).then_some(value),
            Self::Write(written) => Some(written),
            Self::Swap(expected, written) => (expected == value).then_some(written),
            Self::Refused(expected) => (expected != value).then_some(value),
        }
    }
}

/// An operation: it took effect once between its two times, or, if nobody knows what came of it, at most once after the
/// first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) call: Call,
    pub(crate) invoked: u64,
    /// `None`: unknown.
    pub(crate) returned: Option<u64>,
}

/// A way to explain the history so far.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    value: u64,
    /// Operations that will return, and took effect already.
    early: BTreeSet<usize>,
    /// Operations that never returned, and took effect.
    lost: BTreeSet<usize>,
}

/// Ways by what makes them comparable: of two with the same value and the same early operations, the one that has spent
/// fewer of the lost ones can do all that the other can.
#[derive(Default)]
struct Ways(HashMap<(u64, BTreeSet<usize>), Vec<BTreeSet<usize>>>);

impl Ways {
    /// `false`: another does as well.
    fn insert(&mut self, way: Way) -> bool {
        let known = self.0.entry((way.value, way.early)).or_default();
        if known.iter().any(|lost| lost.is_subset(&way.lost)) {
            return false;
        }
        known.retain(|lost| !way.lost.is_subset(lost));
        known.push(way.lost);
        true
    }

    fn into_list(self) -> Vec<Way> {
        let ways = self.0.into_iter().flat_map(|((value, early), lost)| {
            lost.into_iter().map(move |lost| Way { value, early: early.clone(), lost })
        });
        ways.collect()
    }
}

/// More ways than any honest history has: the check gives up, loudly.
const WAYS_MAX: usize = 200_000;

/// `Err` tells the operation whose return nothing explains.
pub(crate) fn check(first: u64, history: &[Operation]) -> Result<(), String> {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (index, operation) in history.iter().enumerate() {
        events.push((operation.invoked, false, index));
        events.extend(operation.returned.map(|at| (at, true, index)));
    }
    // At the same moment, calls come before returns: they may have overlapped.
    events.sort_unstable();
    let mut pending: BTreeSet<usize> = BTreeSet::new();
    let mut ways = vec![Way { value: first, early: BTreeSet::new(), lost: BTreeSet::new() }];
    for (_, is_return, index) in events {
        if !is_return {
            pending.insert(index);
            continue;
        }
        let next = explain(history, &pending, &ways, index);
        if next.is_empty() {
            let values: BTreeSet<u64> = ways.iter().map(|way| way.value).collect();
            let near: Vec<_> = pending.iter().map(|at| (history[*at].call, history[*at].returned.is_some())).collect();
            return Err(format!(
                "{:?} cannot be: the value was one of {values:?}; under way: {near:?}",
                history[index]
            ));
        }
        ways = next;
        pending.remove(&index);
    }
    Ok(())
}

/// All ways in which `index` has taken effect by now.
fn explain(history: &[Operation], pending: &BTreeSet<usize>, ways: &[Way], index: usize) -> Vec<Way> {
    let (mut seen, mut found) = (Ways::default(), Ways::default());
    let mut work: Vec<Way> = Vec::new();
    for way in ways {
        if seen.insert(way.clone()) {
            work.push(way.clone());
        }
    }
    let mut steps = 0;
    while let Some(mut way) = work.pop() {
        if way.early.remove(&index) {
            found.insert(way);
            continue;
        }
        for at in pending.iter().filter(|at| !way.early.contains(at) && !way.lost.contains(at)) {
            let Some(value) = history[*at].call.step(way.value) else { continue };
            let mut next = Way { value, ..way.clone() };
            let set = if history[*at].returned.is_some() { &mut next.early } else { &mut next.lost };
            set.insert(*at);
            if seen.insert(next.clone()) {
                work.push(next);
            }
        }
        steps += 1;
        assert!(steps < WAYS_MAX, "too many ways to explain {:?}", history[index]);
    }
    found.into_list()
}

#[cfg(test)]
mod tests {
    use super::Call::*;
    use super::*;

    fn ok(call: Call, invoked: u64, returned: u64) -> Operation {
        Operation { call, invoked, returned: Some(returned) }
    }

    fn unknown(call: Call, invoked: u64) -> Operation {
        Operation { call, invoked, returned: None }
    }

    #[test]
    fn good_histories_are_accepted() {
        for history in [
            vec![],
            vec![ok(Read(0), 1, 2), ok(Write(1), 3, 4), ok(Read(1), 5, 6)],
            // Two at once, seen in either order.
            vec![ok(Write(1), 1, 10), ok(Write(2), 2, 9), ok(Read(1), 11, 12)],
            vec![ok(Write(1), 1, 10), ok(Write(2), 2, 9), ok(Read(2), 11, 12)],
            // A read sees a write that has not returned yet, and another read does not see it yet.
            vec![ok(Write(1), 1, 10), ok(Read(1), 2, 3), ok(Swap(1, 2), 4, 5), ok(Read(2), 6, 7)],
            vec![ok(Write(1), 1, 10), ok(Read(0), 2, 3), ok(Read(1), 4, 5)],
            // Nobody knows what came of it: it did not happen, it did, it did much later.
            vec![unknown(Write(1), 1), ok(Read(0), 2, 3)],
            vec![unknown(Write(1), 1), ok(Read(1), 2, 3)],
            vec![unknown(Write(1), 1), ok(Read(0), 2, 3), ok(Write(2), 4, 5), ok(Read(1), 6, 7)],
            vec![unknown(Swap(0, 1), 1), ok(Swap(1, 2), 2, 3), ok(Read(2), 4, 5)],
            // The loser of a race is told so.
            vec![ok(Swap(0, 1), 1, 4), ok(Refused(0), 2, 5), ok(Read(1), 6, 7)],
            vec![unknown(Write(9), 1), ok(Refused(0), 2, 3), ok(Read(9), 4, 5)],
        ] {
            assert_eq!(check(0, &history), Ok(()), "{history:?}");
        }
    }

    #[test]
    fn bad_histories_are_rejected() {
        for (what, history) in [
            ("stale read", vec![ok(Write(1), 1, 2), ok(Write(2), 3, 4), ok(Read(1), 5, 6)]),
            ("read of the first value", vec![ok(Write(1), 1, 2), ok(Read(0), 3, 4)]),
            ("read of what was never written", vec![ok(Write(1), 1, 2), ok(Read(7), 3, 4)]),
            ("lost update", vec![ok(Swap(0, 1), 1, 2), ok(Swap(0, 2), 3, 4)]),
            ("two winners of one race", vec![ok(Swap(0, 1), 1, 5), ok(Swap(0, 2), 2, 6)]),
            ("lost write", vec![ok(Write(1), 1, 2), ok(Swap(1, 2), 3, 4), ok(Read(1), 5, 6)]),
            ("time runs back", vec![ok(Write(1), 1, 10), ok(Read(1), 2, 3), ok(Read(0), 4, 5)]),
            (
                "applied twice",
                vec![ok(Write(1), 1, 2), ok(Read(1), 3, 4), ok(Write(2), 5, 6), ok(Read(2), 7, 8), ok(Read(1), 9, 10)],
            ),
            ("refused without a reason", vec![ok(Write(1), 1, 2), ok(Refused(1), 3, 4)]),
            (
                "unknown, and twice",
                vec![unknown(Write(1), 1), ok(Read(1), 2, 3), ok(Write(2), 4, 5), ok(Read(2), 6, 7), ok(Read(1), 8, 9)],
            ),
            ("unknown, before it was asked", vec![ok(Read(1), 1, 2), unknown(Write(1), 3)]),
            (
                "two orders at once",
                vec![ok(Write(1), 1, 10), ok(Write(2), 2, 9), ok(Read(1), 11, 12), ok(Read(2), 13, 14)],
            ),
        ] {
            assert!(check(0, &history).is_err(), "{what} was accepted");
        }
    }

    #[test]
    fn long_histories_with_many_unknowns_are_decided() {
        let mut history = Vec::new();
        for round in 0..600_u64 {
            let at = round * 10;
            history.push(ok(Write(round + 1), at, at + 5));
            history.push(ok(Read(round + 1), at + 6, at + 7));
            if round % 40 == 0 {
                history.push(unknown(Write(1_000_000 + round), at + 1));
            }
        }
        assert_eq!(check(0, &history), Ok(()));
        history.push(ok(Read(1), 30_000, 30_001));
        assert!(check(0, &history).is_err(), "a value of long ago");
    }
}
