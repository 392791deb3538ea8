//! The state behind the log: applies what is committed, and shows every new state to whoever waits for it.

use crate::consensus::{At, Frozen, Halt, Machine, RestoreError};
use crate::state::{Answer, Command, Origin, Refusal, State};
use std::sync::Arc;
use tokio::sync::watch;

/// A state, and how far into the log it goes.
#[derive(Debug, Clone)]
pub struct Published {
    /// The state.
    pub state: Arc<State>,
    /// Index of the last entry in it.
    pub index: u64,
    /// Why this member must stop: it has seen what it does not know, or has gone another way than the others.
    pub failed: Option<String>,
}

/// See the module.
pub struct Replica {
    state: State,
    index: u64,
    failed: Option<String>,
    published: watch::Sender<Published>,
}

impl Replica {
    /// Without anything.
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<Published>) {
        let state = State::default();
        let first = Published { state: Arc::new(state.clone()), index: 0, failed: None };
        let (published, receiver) = watch::channel(first);
        (Self { state, index: 0, failed: None, published }, receiver)
    }

    fn publish(&self) {
        let (state, failed) = (Arc::new(self.state.clone()), self.failed.clone());
        self.published.send_replace(Published { state, index: self.index, failed });
    }

    fn run(&mut self, at: At, command: &[u8]) -> Answer {
        if let Some(failed) = &self.failed {
            return Err(Refusal { code: "stopped".into(), message: failed.clone(), findings: Vec::new() });
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
        if let Command::Checkpoint { revision, digest } = &command
            && *revision == self.state.revision
            && *digest != self.state.digest.to_string()
        {
            return Err(self.fail(format!(
                "this member's state differs from the leader's at revision {revision}: its memory or disk is faulty; wipe \
                 its directory and let it join again"
            )));
        }
        self.state.apply(Origin { leader: at.leader }, command)
    }

    fn fail(&mut self, why: String) -> Refusal {
        self.failed = Some(why.clone());
        Refusal { code: "stopped".into(), message: why, findings: Vec::new() }
    }
}

/// An answer as it crosses from the replica to whoever proposed.
pub(crate) fn decode_answer(bytes: &[u8]) -> Answer {
    postcard::from_bytes(bytes).unwrap_or_else(|error| {
        Err(Refusal {
            code: "internal".into(),
            message: format!("an answer cannot be read: {error}"),
            findings: Vec::new(),
        })
    })
}

impl Machine for Replica {
    fn apply(&mut self, at: At, command: &[u8]) -> Result<Vec<u8>, Halt> {
        let answer = self.run(at, command);
        self.index = at.index;
        self.publish();
        if let Some(reason) = self.failed.clone() {
            return Err(Halt { reason });
        }
        // Writing to memory does not fail.
        Ok(postcard::to_allocvec(&answer).unwrap_or_default())
    }

    fn freeze(&self) -> Frozen {
        let (state, index) = (self.state.clone(), self.index);
        Box::new(move || {
            let mut bytes = index.to_le_bytes().to_vec();
            bytes.extend(state.encode());
            bytes
        })
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let Some((index, state)) = bytes.split_first_chunk::<8>() else {
            return Err(RestoreError { reason: "it is too short".into() });
        };
        self.state = State::decode(state).map_err(|error| RestoreError { reason: error.to_string() })?;
        self.index = u64::from_le_bytes(*index);
        self.publish();
        Ok(())
    }
}
