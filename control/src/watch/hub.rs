//! One change, many watchers: each line is written once and shared. A slow watcher holds one place in the ring of lines;
//! when that has gone, it gets a snapshot.

use crate::consensus::replica::Published;
use crate::state::{Revision, State};
use crate::watch::wire::{Delta, Message, Replaced, RolloutView, Snapshot, made_at};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Lines that are kept for watchers that are behind.
const LINES_MAX: usize = 10_000;
/// Memory for them, in bytes.
const LINES_BYTES_MAX: usize = 32 << 20;
/// Changes within this time share a line: a storm of writes wakes ten thousand watchers so often, and no more often.
const PACE: Duration = Duration::from_millis(5);

/// See the module.
pub struct Hub {
    now: watch::Sender<Now>,
    lines: Mutex<Lines>,
}

/// What watchers wait for.
#[derive(Debug, Clone, Default)]
pub struct Now {
    /// The epoch.
    pub epoch: u64,
    /// The revision.
    pub revision: u64,
    /// The rollout's line; compared by what it says.
    pub rollout: Bytes,
    /// The state itself.
    pub state: Arc<State>,
}

#[derive(Default)]
struct Lines {
    /// In the order of their revisions, each beginning where the one before ends.
    deltas: VecDeque<(u64, u64, Bytes)>,
    bytes: usize,
    snapshot: Option<((u64, u64), Bytes)>,
}

impl Default for Hub {
    /// Empty, until [`Hub::run`].
    fn default() -> Self {
        Self { now: watch::channel(Now::default()).0, lines: Mutex::default() }
    }
}

impl Hub {
    /// For a watcher.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Now> {
        self.now.subscribe()
    }

    /// How many watch.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.now.receiver_count()
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the replica until it is gone.
    pub async fn run(&self, mut published: watch::Receiver<Published>) {
        loop {
            let state = Arc::clone(&published.borrow_and_update().state);
            self.show(&state);
            if published.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(PACE).await;
        }
    }

    fn show(&self, state: &Arc<State>) {
        let before = self.now.borrow().clone();
        let rollout = line(&Message::Rollout(state.rollout().map(RolloutView::of)));
        let moved = (state.epoch, state.revision) != (before.epoch, before.revision);
        if !moved && rollout == before.rollout {
            return;
        }
        {
            let mut lines = self.lines();
            lines.snapshot = None;
            if before.epoch != state.epoch {
                (lines.deltas, lines.bytes) = (VecDeque::new(), 0);
            } else if moved {
                match delta(state, before.revision) {
                    Some(text) => {
                        lines.bytes += text.len();
                        lines.deltas.push_back((before.revision, state.revision, text));
                    }
                    None => (lines.deltas, lines.bytes) = (VecDeque::new(), 0),
                }
                while lines.deltas.len() > LINES_MAX || lines.bytes > LINES_BYTES_MAX {
                    let Some((_, _, text)) = lines.deltas.pop_front() else { break };
                    lines.bytes -= text.len();
                }
            }
        }
        let (epoch, revision) = (state.epoch, state.revision);
        self.now.send_replace(Now { epoch, revision, rollout, state: Arc::clone(state) });
    }

    /// What brings a watcher from where it is to `now`.
    pub fn catch_up(&self, now: &Now, from: Option<(u64, u64)>) -> Vec<Bytes> {
        match from {
            Some(known) if known == (now.epoch, now.revision) => return Vec::new(),
            Some((epoch, revision)) if epoch == now.epoch && revision < now.revision => {
                let lines = self.lines();
                if let Ok(start) = lines.deltas.binary_search_by_key(&revision, |(previous, ..)| *previous) {
                    let due = lines.deltas.range(start..).take_while(|(_, revision, _)| *revision <= now.revision);
                    return due.map(|(_, _, text)| text.clone()).collect();
                }
                drop(lines);
                if let Some(text) = delta(&now.state, revision) {
                    return vec![text];
                }
            }
            _ => {}
        }
        let mut lines = self.lines();
        let key = (now.epoch, now.revision);
        if let Some((known, text)) = &lines.snapshot
            && *known == key
        {
            return vec![text.clone()];
        }
        // Rollouts have a line of their own.
        let text = line(&Message::Snapshot(Snapshot { rollout: None, ..Snapshot::of(&now.state) }));
        lines.snapshot = Some((key, text.clone()));
        vec![text]
    }
}

/// All that has changed since a revision, in one line.
fn delta(state: &State, since: u64) -> Option<Bytes> {
    let revisions: Vec<(u64, &Revision)> = state.changes_since(since)?;
    let changes: BTreeMap<_, _> = revisions
        .iter()
        .flat_map(|(_, revision)| &revision.changes)
        .map(|change| (&change.key, Replaced::of(change)))
        .collect();
    Some(line(&Message::Delta(Delta {
        epoch: state.epoch,
        previous: since,
        revision: state.revision,
        digest: state.digest.to_string(),
        changes: changes.into_values().collect(),
        at_ms: made_at(state),
    })))
}

/// A message as it is sent.
pub(crate) fn line(message: &Message) -> Bytes {
    // A line that says nothing would be taken for one that says that nothing is there.
    let mut text = serde_json::to_vec(message).expect("invariant: messages are texts and numbers under names");
    text.push(b'\n');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Author, Command, Op, Origin, Txn};
    use crate::watch::view::View;

    fn put(state: &mut State, id: u16) {
        let object = serde_json::from_str(&format!("{{\"backend\":{{\"address\":\"10.0.0.1:{id}\"}}}}")).unwrap();
        let op = Op::Put { key: format!("backend/api/{}", id % 7).parse().unwrap(), object };
        let txn = Txn { by: Author::default(), request: None, conditions: Vec::new(), ops: vec![op], force: false };
        state.apply(Origin { leader: 1 }, Command::Txn(txn)).unwrap();
    }

    #[test]
    fn every_watcher_gets_to_the_present_from_wherever_it_is() {
        let hub = Hub::default();
        let mut state = State::default();
        state.apply(Origin { leader: 1 }, Command::Init { cluster: "c".into() }).unwrap();
        hub.show(&Arc::new(state.clone()));
        let mut watchers: Vec<Option<View>> = vec![None];
        for round in 1..200_u16 {
            // Some states are shown one by one, some several at once, as the pace makes it.
            for change in 0..=(round % 3) {
                put(&mut state, round * 10 + change);
            }
            hub.show(&Arc::new(state.clone()));
            let now = hub.subscribe().borrow().clone();
            watchers.push(None);
            for (index, watcher) in watchers.iter_mut().enumerate() {
                // Watchers differ in how often they look.
                if usize::from(round) % (index % 9 + 1) != 0 {
                    continue;
                }
                for text in hub.catch_up(&now, watcher.as_ref().map(|view| (view.epoch, view.revision))) {
                    match (serde_json::from_slice(&text).unwrap(), watcher.as_mut()) {
                        (Message::Snapshot(snapshot), None) => {
                            *watcher = Some(View::from_snapshot(snapshot, None).unwrap())
                        }
                        (message, Some(view)) => drop(view.handle(message).unwrap()),
                        (message, None) => panic!("{message:?} comes first"),
                    }
                }
                let view = watcher.as_ref().unwrap();
                assert_eq!((view.revision, view.digest), (state.revision, state.digest));
            }
        }
        let now = hub.subscribe().borrow().clone();
        // A watcher that was elsewhere, at a revision in the middle of a line.
        assert_eq!(hub.catch_up(&now, Some((1, now.revision - 1))).len(), 1);
        let text = hub.catch_up(&now, Some((1, now.revision + 5)));
        assert!(text[0].starts_with(b"{\"snapshot\""), "the future is answered with the present");
    }
}
