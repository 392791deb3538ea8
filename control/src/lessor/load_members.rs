//! Which members a ring has, where proxies that name the same ring tell of different ones.

use super::load_votes::Votes;
use crate::loads::ServiceLoad;
use crate::state::State;
use crate::state::parsed::Parsed;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Others have to be told of by more proxies for so long before a ring is theirs: while a reload is on its way, counts waver.
const HELD: Duration = Duration::from_secs(2);

/// The members of a ring, in their order and with their weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Members {
    digest: u64,
    pub(super) count: usize,
}

impl Members {
    /// As a proxy tells of them.
    pub(super) fn of(service: &ServiceLoad) -> Self {
        Self { digest: service.members_digest, count: service.report.loads.len() }
    }

    /// As the topology has them in force: those of a service that the fleet's texts have, with what is registered. `None`: they are not
    /// known here, as they stand in proxies' own files, or the texts are still to be read.
    pub(super) fn known(parsed: &Parsed, state: &State, service: &str) -> Option<Self> {
        let mut members = parsed.written(state)?.members(service)?.clone();
        members.extend(state.backends(service).map(|(id, _, backend)| (id.to_owned(), backend.weight)));
        let digest = ringway_ring::members_digest(members.iter().map(|(id, weight)| (id.as_str(), *weight)), 0);
        Some(Self { digest, count: members.len() })
    }
}

/// The proxies that have a ring, by the members that it has as they say.
pub(super) type RingVotes<'r> = BTreeMap<Members, Votes<'r>>;

/// The members that a ring has now, and who contests it.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) members: Members,
    /// Others that more proxies tell of, and since when.
    contested: Option<(Members, Instant)>,
    has_moved: bool,
}

impl Settled {
    /// Of who tells of the ring first.
    pub(super) fn new(members: Members) -> Self {
        Self { members, contested: None, has_moved: false }
    }

    /// Which others it is to have: those that the topology has, where somebody tells of them; else those of most proxies; of as many, those
    /// in force. `is_new`: nothing has come of it yet.
    pub(super) fn poll(
        &mut self,
        votes: &RingVotes<'_>,
        known: impl FnOnce() -> Option<Members>,
        is_new: bool,
        now: Instant,
    ) -> Option<Members> {
        let count = |members: &Members| votes.get(members).map_or(0, Votes::count);
        let Some(most) = votes.keys().max_by_key(|members| (count(members), **members == self.members)) else {
            self.contested = None;
            return None;
        };
        if votes.len() == 1 && *most == self.members {
            self.contested = None;
            return None;
        }
        if let Some(known) = known().filter(|known| count(known) > 0) {
            self.contested = None;
            return (known != self.members).then_some(known);
        }
        if *most == self.members {
            self.contested = None;
            return None;
        }
        // Whom nobody tells of any more is missed by nobody.
        let is_free = is_new && !self.has_moved || count(&self.members) == 0;
        let since = self.contested.filter(|(other, _)| other == most).map_or(now, |(_, since)| since);
        self.contested = Some((*most, since));
        (is_free || now.saturating_duration_since(since) >= HELD).then_some(*most)
    }

    /// It has these from now on.
    pub(super) fn set(&mut self, members: Members) {
        *self = Self { has_moved: true, ..Self::new(members) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Author, Command, Op, Origin, Txn};
    use ringway_ring::{FleetParams, ShedParams};
    use std::sync::Arc;

    const A: Members = Members { digest: 1, count: 3 };
    const B: Members = Members { digest: 2, count: 3 };
    const C: Members = Members { digest: 1, count: 4 };

    fn polled(
        settled: &mut Settled,
        told: &[(Members, usize)],
        known: Option<Members>,
        now: Instant,
    ) -> Option<Members> {
        let params = Arc::new(FleetParams { shed: ShedParams { target: 1.2, share_max: 0.9 }, hot: None });
        let mut votes = RingVotes::new();
        for (members, count) in told {
            (0..*count).for_each(|_| votes.entry(*members).or_default().add(&params));
        }
        let moved = settled.poll(&votes, || known, true, now);
        moved.into_iter().for_each(|members| settled.set(members));
        moved
    }

    #[test]
    fn the_topology_decides_where_somebody_tells_of_what_it_says_and_else_most_do_after_a_while() {
        let (begin, mut settled) = (Instant::now(), Settled::new(C));
        settled.set(A);
        let at = |millis| begin + Duration::from_millis(millis);
        assert_eq!(
            polled(&mut settled, &[(A, 1), (B, 3)], Some(A), at(0)),
            None,
            "the topology's, whoever says otherwise"
        );
        assert_eq!(polled(&mut settled, &[(A, 3), (B, 1)], Some(B), at(0)), Some(B));
        assert_eq!(polled(&mut settled, &[(A, 1), (B, 1)], Some(C), at(0)), None, "nobody tells of those");
        // Most of them, once they have been that for two seconds without a break.
        assert_eq!(polled(&mut settled, &[(A, 2), (B, 1)], None, at(0)), None);
        assert_eq!(polled(&mut settled, &[(A, 2), (B, 1)], None, at(1_900)), None);
        assert_eq!(polled(&mut settled, &[(A, 2), (B, 2)], None, at(1_950)), None, "as many");
        assert_eq!(polled(&mut settled, &[(A, 2), (B, 1)], None, at(2_000)), None, "it begins anew");
        assert_eq!(polled(&mut settled, &[(A, 2), (B, 1)], None, at(4_000)), Some(A));
        // Of whom nobody tells, nobody waits for; and the same number says nothing of who they are.
        assert_eq!(polled(&mut settled, &[(C, 1)], None, at(4_000)), Some(C));
        assert_eq!(polled(&mut settled, &[], None, at(9_000)), None);
    }

    #[test]
    fn a_reload_that_rolls_over_the_fleet_moves_a_ring_once_however_counts_waver() {
        let (begin, mut settled) = (Instant::now(), Settled::new(C));
        assert_eq!(polled(&mut settled, &[(C, 1), (A, 2)], None, begin), Some(A), "nothing has come of it yet");
        let mut moves = 0;
        for step in 0..200_usize {
            // Of twenty proxies, one goes over each second, and every third step one of either side is not heard in time.
            let over = (step / 4).min(20);
            let lost = |count: usize, turn: usize| if step % 3 == turn { count.saturating_sub(1) } else { count };
            let told = [(A, lost(20 - over, 0)), (B, lost(over, 1))];
            let told: Vec<(Members, usize)> = told.into_iter().filter(|(_, count)| *count > 0).collect();
            let now = begin + Duration::from_millis(250 * step as u64);
            moves += usize::from(polled(&mut settled, &told, None, now).is_some());
        }
        assert_eq!((moves, settled.members), (1, B));
    }

    #[test]
    fn members_are_known_of_services_that_the_texts_have_with_what_is_registered() {
        let (parsed, mut state) = (Parsed::at_once(), State::default());
        let text = "services:\n  - name: api\n    backends: [ { id: b, address: \"10.0.0.1:1\", weight: 7 }, { id: a, address: \"10.0.0.2:1\" } ]\n";
        let put = |state: &mut State, key: &str, object: serde_json::Value| {
            let (key, object) = (key.parse().unwrap(), serde_json::from_value(object).unwrap());
            let (by, ops) = (Author::default(), vec![Op::Put { key, object }]);
            let txn = Txn { by, request: None, conditions: Vec::new(), ops, force: true };
            state.apply(Origin { leader: 1 }, Command::Txn(txn)).unwrap();
        };
        state.apply(Origin { leader: 1 }, Command::Init { cluster: "c".into() }).unwrap();
        put(&mut state, "document/main", serde_json::json!({ "document": { "text": text } }));
        let of = |list: &[(&str, u32)]| {
            let digest = ringway_ring::members_digest(list.iter().copied(), 0);
            Some(Members { digest, count: list.len() })
        };
        assert_eq!(Members::known(&parsed, &state, "api"), of(&[("a", 100), ("b", 7)]));
        let registered = |weight: u32| serde_json::json!({ "backend": { "address": "10.0.0.3:1", "weight": weight } });
        put(&mut state, "backend/api/b", registered(9));
        put(&mut state, "backend/api/c", registered(50));
        put(&mut state, "backend/other/x", registered(50));
        assert_eq!(Members::known(&parsed, &state, "api"), of(&[("a", 100), ("b", 9), ("c", 50)]));
        assert_eq!(Members::known(&parsed, &state, "other"), None, "it stands in proxies' own files");
    }
}
