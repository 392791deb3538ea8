//! Backups: a state as snapshots have it, with BLAKE3 behind it.

use crate::state::{By, Command, EncodeError, Origin, RULES, Refusal, State};

/// Bytes of the digest at the end.
const DIGEST_BYTES: usize = 32;
/// Parts of a backup, each an entry of the log.
const PART_BYTES: usize = 1 << 20;

/// A backup that is whole.
#[derive(Debug)]
pub(crate) struct Backup<'a> {
    /// The state as it was, encoded.
    content: &'a [u8],
    /// Of the content.
    pub(crate) digest: [u8; DIGEST_BYTES],
    /// The state.
    pub(crate) state: State,
}

/// This is no backup, or it is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no backup, or it is damaged: {0}")]
pub struct Damaged(String);

/// A backup of a state.
pub(crate) fn write(state: &State) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = state.encode()?;
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    Ok(bytes)
}

impl<'a> Backup<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// It is cut off, has changed since, or a later version wrote it.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let split = bytes.len().checked_sub(DIGEST_BYTES).ok_or_else(|| Damaged("it is too short".into()))?;
        let (content, found) = bytes.split_at(split);
        let digest = *blake3::hash(content).as_bytes();
        if found != digest {
            return Err(Damaged("its checksum is wrong".into()));
        }
        let state = State::decode(content).map_err(|error| Damaged(error.to_string()))?;
        Ok(Self { content, digest, state })
    }

    /// What brings its content to members, before [`Command::RestoreAs`] puts it into force.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Command> + '_ {
        let whole = self.digest;
        (0u32..).zip(self.content.chunks(PART_BYTES)).map(move |(number, part)| Command::RestoreChunk {
            whole,
            number,
            bytes: part.to_vec(),
        })
    }

    /// The state of new members that have restored it before they serve anybody: as if it had gone through their log. `epoch`: the
    /// least one.
    ///
    /// # Errors
    /// No epoch is left.
    pub(crate) fn first_state(&self, by: By, epoch: u64) -> Result<State, Refusal> {
        let mut state = State::default();
        // Nobody leads yet who could be deposed.
        let origin = Origin { leader: 0 };
        state.apply(origin, Command::Found { cluster: self.state.cluster.clone(), epoch: 1, rules: RULES })?;
        for part in self.parts() {
            state.apply(origin, part)?;
        }
        state.apply(origin, Command::RestoreAs { by, whole: self.digest, epoch, other_cluster: false })?;
        Ok(state)
    }
}
