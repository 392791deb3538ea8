//! The state behind the log: applies what is committed, and shows every new state to whoever waits for it.

use super::replicated::{At, Halt, Machine, RestoreError, SnapshotWriter};
use crate::Code;
use crate::state::{Answer, Command, Digest, EncodeError, Origin, RULES, Refusal, State, to_bytes};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;

/// A state, and how far into the log it goes.
#[derive(Debug, Clone)]
pub struct Published {
    /// The state.
    pub state: Arc<State>,
    /// Index of the last entry in it.
    pub index: u64,
    /// Why this member must stop: it has seen what it does not know, or has diverged from the others.
    pub failed: Option<String>,
}

/// See the module.
pub struct Replica {
    state: State,
    index: u64,
    failed: Option<String>,
    /// Digests of the last revisions, as they were applied here.
    recent: VecDeque<(u64, Digest)>,
    published: watch::Sender<Published>,
}

/// Revisions that may lie between a checkpoint's making and its place in the log.
const RECENT_MAX: usize = 4096;

impl Replica {
    /// Without anything.
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<Published>) {
        let state = State::default();
        let first = Published { state: Arc::new(state.clone()), index: 0, failed: None };
        let (published, receiver) = watch::channel(first);
        (Self { state, index: 0, failed: None, recent: VecDeque::new(), published }, receiver)
    }

    fn publish(&self) {
        let (state, failed) = (Arc::new(self.state.clone()), self.failed.clone());
        self.published.send_replace(Published { state, index: self.index, failed });
    }

    fn run(&mut self, at: At, command: &[u8]) -> Answer {
        if let Some(failed) = &self.failed {
            return Err(Refusal::new(Code::Stopped, failed.clone()));
        }
        let command: Command = match postcard::from_bytes(command) {
            Ok(command) => command,
            Err(error) => {
                // Skipping it would make this member another than those that know it.
                return Err(self.fail(format!(
                    "entry {} of the log is not known to this version ({error}): install the newer one",
                    at.index
                )));
            }
        };
        if let Command::Rules { version: rules } | Command::Found { rules, .. } = &command
            && *rules > RULES
        {
            return Err(self.fail(unknown_rules(*rules, &format!("entry {} of the log", at.index))));
        }
        if let Command::Checkpoint { revision, digest } = &command
            && self.differs(*revision, digest)
        {
            return Err(self.fail(format!(
                "this member's state differs from the leader's at revision {revision}: its memory or disk is faulty; wipe \
                 its directory and let it join again"
            )));
        }
        let before = self.state.revision;
        let answer = self.state.apply(Origin { leader: at.leader }, command);
        if self.state.revision != before {
            self.recent.push_back((self.state.revision, self.state.digest));
            if self.recent.len() > RECENT_MAX {
                self.recent.pop_front();
            }
        }
        answer
    }

    /// Whether this member has diverged. The leader had applied nothing that does not stand before its checkpoint in
    /// the log: a member that has not come to the leader's revision has refused what the others took.
    fn differs(&self, revision: u64, digest: &str) -> bool {
        if revision > self.state.revision {
            return true;
        }
        let known = self.recent.binary_search_by_key(&revision, |(revision, _)| *revision);
        known.is_ok_and(|index| self.recent[index].1.to_string() != digest)
    }

    fn fail(&mut self, why: String) -> Refusal {
        self.failed = Some(why.clone());
        Refusal::new(Code::Stopped, why)
    }
}

/// A snapshot's bytes: a state, and the index of the last entry in it.
pub(crate) fn content_of(state: &State, index: u64) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = index.to_le_bytes().to_vec();
    bytes.extend(state.encode()?);
    Ok(bytes)
}

fn unknown_rules(rules: u32, place: &str) -> String {
    format!(
        "the members have agreed on rules {rules} by {place}, this version knows them up to {RULES}: install the newer one"
    )
}

fn unwritten(error: EncodeError) -> Halt {
    Halt { reason: error.to_string() }
}

/// An answer as it crosses from the replica to whoever proposed.
pub(crate) fn decode_answer(bytes: &[u8]) -> Answer {
    postcard::from_bytes(bytes)
        .unwrap_or_else(|error| Err(Refusal::new(Code::Internal, format!("an answer cannot be read: {error}"))))
}

impl Machine for Replica {
    fn apply(&mut self, at: At, command: &[u8]) -> Result<Vec<u8>, Halt> {
        let answer = self.run(at, command);
        self.index = at.index;
        self.publish();
        if let Some(reason) = self.failed.clone() {
            return Err(Halt { reason });
        }
        to_bytes(&answer).map_err(unwritten)
    }

    fn freeze(&self) -> SnapshotWriter {
        let (state, index) = (self.state.clone(), self.index);
        Box::new(move || content_of(&state, index).map_err(unwritten))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let Some((index, state)) = bytes.split_first_chunk::<8>() else {
            return Err(RestoreError { reason: "it is too short".into() });
        };
        let state = State::decode(state).map_err(|error| RestoreError { reason: error.to_string() })?;
        if state.rules > RULES {
            // As if its entries were here: to go on by other rules would be to diverge.
            return Err(RestoreError { reason: unknown_rules(state.rules, "a snapshot") });
        }
        self.state = state;
        self.index = u64::from_le_bytes(*index);
        self.recent = VecDeque::from([(self.state.revision, self.state.digest)]);
        self.publish();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Author, Op, Txn};

    fn put(replica: &mut Replica, index: u64, name: &str) {
        let object = serde_json::from_str("{\"backend\":{\"address\":\"10.0.0.1:1\"}}").unwrap();
        let op = Op::Put { key: format!("backend/s/{name}").parse().unwrap(), object };
        let txn = Txn { by: Author::default(), request: None, conditions: Vec::new(), ops: vec![op], force: false };
        apply(replica, index, &Command::Txn(txn)).unwrap();
    }

    fn apply(replica: &mut Replica, index: u64, command: &Command) -> Result<Vec<u8>, Halt> {
        replica.apply(At { index, term: 1, leader: 1 }, &postcard::to_allocvec(command).unwrap())
    }

    fn checkpoint(of: &Replica) -> Command {
        Command::Checkpoint { revision: of.state.revision, digest: of.state.digest.to_string() }
    }

    #[test]
    fn a_snapshot_of_rules_that_are_not_known_is_not_gone_on_from() {
        let mut state = State::default();
        let found = Command::Found { cluster: "c".into(), epoch: 1, rules: RULES };
        state.apply(Origin { leader: 1 }, found).unwrap();
        let (mut replica, published) = Replica::new();
        replica.restore(&content_of(&state, 5).unwrap()).unwrap();
        state.rules += 1;
        let refused = replica.restore(&content_of(&state, 6).unwrap()).unwrap_err();
        assert!(refused.reason.contains(&format!("rules {}", RULES + 1)), "{}", refused.reason);
        assert_eq!((published.borrow().index, published.borrow().state.rules), (5, RULES));
    }

    #[test]
    fn a_member_that_went_another_way_stops_at_the_next_checkpoint() {
        let (mut leader, _one) = Replica::new();
        let (mut same, _two) = Replica::new();
        let (mut behind, _three) = Replica::new();
        let (mut other, _four) = Replica::new();
        for index in 1..=10 {
            put(&mut leader, index, &format!("b{index}"));
            put(&mut same, index, &format!("b{index}"));
            // One has refused an entry that the others took; one took something else in its place.
            if index != 5 {
                put(&mut behind, index, &format!("b{index}"));
            }
            put(&mut other, index, &format!("b{}", if index == 5 { 50 } else { index }));
        }
        let taken = checkpoint(&leader);
        // More was applied between its making and its place in the log.
        for replica in [&mut leader, &mut same, &mut other] {
            put(replica, 11, "b11");
        }
        assert!(apply(&mut leader, 12, &taken).is_ok());
        assert!(apply(&mut same, 12, &taken).is_ok());
        assert!(apply(&mut behind, 12, &taken).unwrap_err().reason.contains("differs"));
        assert!(apply(&mut other, 12, &taken).unwrap_err().reason.contains("differs"));
    }
}
