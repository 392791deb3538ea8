//! What the log decides over.

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Its index in the log; grows by one, with gaps where the log had other entries than commands.
    pub index: u64,
    /// The term that it belongs to.
    pub term: u64,
    /// The member whose term it is. A deposed leader's command never carries a later leader's id.
    pub leader: u64,
}

/// Why a machine cannot go on. The member stops: skipping an entry would make its state differ from the others'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine halts: {reason}")]
pub struct Halt {
    /// For the log and the operator.
    pub reason: String,
}

/// Why a snapshot's bytes are not a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("restore the machine: {reason}")]
pub struct RestoreError {
    /// For the log and the operator.
    pub reason: String,
}

/// A state of one moment that serialises itself when it is called. A state that has no bytes is no snapshot.
pub type SnapshotWriter = Box<dyn FnOnce() -> Result<Vec<u8>, Halt> + Send>;

/// What the log decides over. Deterministic: no clock, no randomness, no floats, no order of hash maps.
pub trait Machine: Send + Sync + 'static {
    /// Applies one committed command; the answer goes to whoever proposed it here.
    ///
    /// Fails only on a command that this build does not know, which stops the member. A panic does too.
    fn apply(&mut self, at: At, command: &[u8]) -> Result<Vec<u8>, Halt>;

    /// The whole state, to be written into a snapshot. Cheap to take: it is serialised later, off the path of `apply`.
    fn freeze(&self) -> SnapshotWriter;

    /// Replaces the state by a snapshot's.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError>;
}
