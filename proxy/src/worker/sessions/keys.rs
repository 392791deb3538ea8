//! The time that keys are in flight, booked while they are.

use super::Sessions;
use crate::worker::booked::{Booked, LASTING};
use std::time::Instant;

impl Sessions {
    /// Books what lasts, from the last time on; the ends book the rest. A flow counts where datagrams have passed since then: that it is
    /// kept for another one, which may never come, burdens nobody.
    pub(in crate::worker) fn book_keys(&self, booked: &Booked, now: Instant) {
        for one in &mut self.under_way.borrow_mut().entries {
            let (Some(view), Some(key)) = (&one.view, one.key) else { continue };
            if now.saturating_duration_since(key.since) < LASTING {
                continue;
            }
            let bytes = one.received_bytes + one.sent_bytes;
            if one.is_flow && std::mem::replace(&mut one.booked_bytes, bytes) == bytes {
                continue;
            }
            view.services[one.service as usize].book_key(key, now);
        }
        booked.set(now);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::super::{ConnectionEntry, SessionEntry};
    use crate::ambient;
    use crate::dispatcher::{ListenerId, ListenerPermits};
    use crate::worker::active_listener::ActiveListener;
    use crate::worker::booked::KeyInFlight;
    use crate::worker::testing::Rig;
    use crate::worker::view::View;
    use ringway_ring::hot_cost;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    const SERVICE: &str = "{ name: s, balance: { hot_keys: { half_life: 30s } }, \
                           backends: [ { id: a, address: \"10.0.0.1:80\" }, { id: b, address: \"10.0.0.2:80\" } ] }";

    struct Table {
        rig: Rig,
        view: Rc<View>,
        client: ConnectionEntry,
        begin: Instant,
    }

    impl Table {
        fn new() -> Self {
            let rig = Rig::new(SERVICE);
            let view = rig.worker.view();
            let key = ListenerId::of(&view.snapshot.config.listeners[0]);
            let listener = ActiveListener::new(key, "127.0.0.1:0".into(), Arc::<ListenerPermits>::default());
            let client = ConnectionEntry::new(&rig.worker.sessions, &listener, ([127, 0, 0, 1], 1).into());
            Self { rig, view, client, begin: ambient::now() }
        }

        fn key(&self, since_millis: u64) -> KeyInFlight {
            KeyInFlight { hash: 7, since: self.begin + Duration::from_millis(since_millis) }
        }

        fn session(&self, key: KeyInFlight) -> SessionEntry {
            let entry = SessionEntry::begin(&self.client, &self.view, 0, "tcp");
            entry.set_backend(&self.view, 0, (0, Some(key)));
            entry
        }

        /// Requests and cost that are remembered after what is in flight then has been booked.
        fn booked_at(&self, millis: u64) -> (u64, u64) {
            self.rig.worker.sessions.book_keys(&self.rig.worker.booked, self.begin + Duration::from_millis(millis));
            self.counted()
        }

        fn counted(&self) -> (u64, u64) {
            let report = self.view.services[0].live.sketch.borrow().report(0.0);
            (report.requests, report.total)
        }
    }

    /// What parts of so many milliseconds cost.
    fn cost(parts: &[u64]) -> u64 {
        parts.iter().map(|millis| u64::from(hot_cost(millis * 1_000, 30_000))).sum()
    }

    #[test]
    fn what_lasts_is_booked_while_it_does_and_its_end_books_the_rest() {
        let table = Table::new();
        let this = &table.view.services[0];
        let (first, second) = (table.key(0), table.key(2_000));
        let session = table.session(first);
        assert_eq!(table.booked_at(999), (0, 0), "it may be over in a moment");
        assert_eq!(table.booked_at(1_500), (1, cost(&[1_500])));
        let other = table.session(second);
        assert_eq!(table.booked_at(2_500), (1, cost(&[1_500, 1_000])), "the other has not lasted yet");
        this.count_rest(first, 3_000_000);
        assert_eq!(table.counted(), (1, cost(&[1_500, 1_000, 500])), "a session is one request");
        this.count_rest(second, 1_000_000);
        assert_eq!(table.counted(), (2, cost(&[1_500, 1_000, 500, 1_000])));
        drop((session, other));
        assert_eq!(table.booked_at(60_000), table.counted(), "nothing is in flight any more");
        assert_eq!(table.counted().0, 2);
    }

    #[test]
    fn what_lasts_for_half_lives_is_a_request_in_each_of_them_and_none_between_two_tries() {
        let table = Table::new();
        let session = table.session(table.key(0));
        for (seconds, requests) in [(1, 1), (29, 1), (30, 2), (59, 2), (60, 3), (180, 7)] {
            assert_eq!(table.booked_at(seconds * 1_000).0, requests, "{seconds} s");
        }
        session.leave_backend();
        let before = table.counted();
        assert_eq!(table.booked_at(300_000), before);
        session.set_backend(&table.view, 0, (1, Some(table.key(300_000))));
        assert_eq!(table.booked_at(301_000).0, before.0 + 1);
    }

    #[test]
    fn a_flow_counts_where_datagrams_pass_and_not_for_its_silence() {
        let table = Table::new();
        let flow = SessionEntry::of_flow(&table.client, &table.view, 0, (0, Some(table.key(0))));
        flow.set_bytes(10, 0);
        assert_eq!(table.booked_at(1_000), (1, cost(&[1_000])));
        assert_eq!(table.booked_at(2_000), (1, cost(&[1_000])));
        assert_eq!(table.booked_at(9_000), (1, cost(&[1_000])));
        flow.set_bytes(10, 70);
        assert_eq!(table.booked_at(10_000), (1, cost(&[1_000, 1_000])), "its silence of before is not made up for");
        table.view.services[0].count_rest(table.key(0), 10_400_000);
        assert_eq!(table.counted(), (1, cost(&[1_000, 1_000, 400])));
    }

    #[test]
    fn a_rival_that_takes_over_is_booked_as_if_it_had_been_there_from_its_beginning() {
        let table = Table::new();
        let this = &table.view.services[0];
        let rival = table.key(500);
        assert_eq!(table.booked_at(2_000), (0, 0));
        this.make_up_for(rival);
        let _session = table.session(rival);
        assert_eq!(table.booked_at(3_000), (1, cost(&[1_500, 1_000])));
        this.count_rest(rival, 2_600_000);
        assert_eq!(table.counted(), (1, cost(&[1_500, 1_000, 100])));
        // One that has not lasted when it takes over.
        this.make_up_for(table.key(2_500));
        assert_eq!(table.counted().0, 1);
    }
}
