//! The tables of loads that a member has, its own as the leader's or relayed, for all who watch them. A slow watcher is told what has changed
//! since it was told last, however much that is.

use super::hub::line;
use super::wire::Message;
use crate::loads::{Confirmed, Position, Tables};
use bytes::Bytes;
use ringway_ring::FRESH_MILLIS;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Lines that are kept for watchers that are told the same.
const LINES_MAX: usize = 8;

/// See the module.
#[derive(Default)]
pub struct TablesHub {
    now: watch::Sender<Arc<Tables>>,
    /// Until when the tables are known to hold.
    confirmed: Mutex<Option<Instant>>,
    /// By where they begin and end, the newest last.
    lines: Mutex<Vec<(Option<Position>, Position, Bytes)>>,
    looked: Notify,
}

impl TablesHub {
    /// For a watcher.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Tables>> {
        let receiver = self.now.subscribe();
        self.looked.notify_one();
        receiver
    }

    /// Whether anybody watches.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.now.receiver_count() > 0
    }

    /// Returns when somebody begins to watch.
    pub async fn looked(&self) {
        self.looked.notified().await;
    }

    /// The tables now.
    #[must_use]
    pub fn now(&self) -> Arc<Tables> {
        Arc::clone(&self.now.borrow())
    }

    /// The tables now; none, if nobody knows whether they hold still.
    #[must_use]
    pub fn fresh(&self, now: Instant) -> Arc<Tables> {
        let is_fresh = self.age(now).is_some_and(|age| age <= Duration::from_millis(FRESH_MILLIS));
        if is_fresh { self.now() } else { Arc::default() }
    }

    fn confirmed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it is since these tables were published, or known to hold.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.confirmed().map(|at| now.saturating_duration_since(at))
    }

    /// The tables at `position` were known to hold at this time. What is not here is not confirmed.
    pub fn confirm(&self, position: Option<Position>, at: Instant) {
        if self.now.borrow().position != position {
            return;
        }
        let mut confirmed = self.confirmed();
        *confirmed = (*confirmed).max(Some(at));
    }

    /// Shows these tables, which held at this time. Earlier ones than it has are not shown. `false`: they were not.
    pub fn show(&self, tables: Arc<Tables>, at: Instant) -> bool {
        self.now.send_if_modified(|known| {
            let is_later = tables.position > known.position;
            if is_later {
                *self.confirmed() = Some(at);
                *known = tables;
            }
            is_later
        })
    }

    /// What brings a watcher that knows `known` to `now`; nothing, if it is there.
    #[must_use]
    pub fn line(&self, known: &Tables, now: &Tables) -> Option<Bytes> {
        let position = now.position.filter(|_| known.position != now.position)?;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |(from, to, _): &&(Option<Position>, Position, Bytes)| (*from, *to) == (known.position, position);
        if let Some((.., text)) = lines.iter().find(is_it) {
            return Some(text.clone());
        }
        let text = line(&Message::Loads(now.line(Some(known))));
        if lines.len() >= LINES_MAX {
            lines.remove(0);
        }
        lines.push((known.position, position, text.clone()));
        Some(text)
    }

    /// How old is what a watcher was told last; nothing, if it is not what there is now.
    #[must_use]
    pub fn confirmation(&self, known: &Tables, now: Instant) -> Option<Bytes> {
        let position = known.position.filter(|_| self.now.borrow().position == known.position)?;
        let age_ms = u64::try_from(self.age(now)?.as_millis()).unwrap_or(u64::MAX);
        Some(line(&Message::LoadsConfirmed(Confirmed { position, age_ms })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::RingTable;
    use ringway_ring::FleetTable;

    fn tables(seq: u64, share: u16) -> Arc<Tables> {
        let position = Position { epoch: 1, term: 1, seq };
        let table = Arc::new(FleetTable { shed: vec![0, share], hot: Vec::new() });
        let ring = RingTable { revision: 1, position, table };
        Arc::new(Tables { position: Some(position), services: [("s".to_owned(), [(1, ring)].into())].into() })
    }

    fn told(known: &Tables, text: Option<Bytes>) -> Tables {
        let mut next = known.clone();
        if let Some(text) = text {
            let Ok(Message::Loads(line)) = serde_json::from_slice(&text) else { panic!("{text:?}") };
            next.take(line).unwrap();
        }
        next
    }

    #[test]
    fn every_watcher_gets_to_the_present_however_seldom_it_looks() {
        let hub = TablesHub::default();
        let at = Instant::now();
        let mut watchers = vec![Tables::default(); 5];
        for seq in 1..40 {
            assert!(hub.show(tables(seq, seq as u16), at));
            let now = hub.now();
            for (index, watcher) in watchers.iter_mut().enumerate() {
                if (seq as usize).is_multiple_of(index + 1) {
                    *watcher = told(watcher, hub.line(watcher, &now));
                    assert_eq!(
                        (watcher.position, &watcher.services["s"][&1].table),
                        (now.position, &now.services["s"][&1].table)
                    );
                    assert_eq!(hub.line(watcher, &now), None);
                }
            }
        }
        assert_eq!(hub.lines.lock().unwrap().len(), LINES_MAX);
    }

    #[test]
    fn nothing_goes_back_and_only_what_is_there_is_confirmed() {
        let hub = TablesHub::default();
        let at = Instant::now();
        let later = |seconds| at + Duration::from_secs(seconds);
        assert!(hub.age(at).is_none() && hub.confirmation(&Tables::default(), at).is_none());
        assert!(hub.show(tables(2, 1), at));
        assert!(!hub.show(tables(1, 9), later(1)) && !hub.show(tables(2, 9), later(1)));
        assert_eq!(hub.now(), tables(2, 1));
        hub.confirm(tables(1, 9).position, later(2));
        assert_eq!(hub.age(later(2)), Some(Duration::from_secs(2)));
        hub.confirm(tables(2, 1).position, later(2));
        hub.confirm(tables(2, 1).position, later(1));
        assert_eq!((hub.fresh(later(12)), hub.fresh(later(13))), (hub.now(), Arc::default()));
        let text = hub.confirmation(&tables(2, 1), later(5)).unwrap();
        let position = tables(2, 1).position.unwrap();
        let expected = Message::LoadsConfirmed(Confirmed { position, age_ms: 3_000 });
        assert_eq!(serde_json::from_slice::<Message>(&text).unwrap(), expected);
        assert_eq!(hub.confirmation(&tables(1, 9), later(5)), None, "it is told the newer ones first");
    }
}
