//! A backup: the state as snapshots have it, with BLAKE3 behind it.
//!
//! Whoever has a backup may have made it: a checksum that is right says that it came as it was sent, not that any cluster was
//! ever like that. What it says is in the log for good once it is restored, so it is looked at before.

use crate::state::{
    Author, Command, DecodeError, Digest, EPOCH_MAX, EncodeError, LEASES_MAX, NAME_BYTES_MAX, OBJECTS_BYTES_MAX,
    OBJECTS_MAX, Origin, RULES, Refusal, State, TTL_MS,
};
use bytes::Bytes;

const CHECKSUM_BYTES: usize = 32;
/// Parts of a backup, each an entry of the log.
const PART_BYTES: usize = 1 << 20;
/// More ids than a cluster will ever give out.
const ID_MAX: u64 = 1 << 62;

/// A backup that is whole, and may be one.
#[derive(Debug)]
pub(crate) struct Backup {
    /// The state, encoded.
    content: Bytes,
    /// Of the content.
    pub(crate) checksum: [u8; CHECKSUM_BYTES],
    /// The state.
    pub(crate) state: State,
}

/// Why bytes are no backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Not even a checksum.
    #[error("it is too short")]
    Short,
    /// Something was lost or changed.
    #[error("its checksum is wrong")]
    Checksum,
    /// No state.
    #[error(transparent)]
    State(#[from] DecodeError),
    /// Rules that this build does not know.
    #[error("it is by rules {0}, this version knows them up to {RULES}: use a newer version")]
    Rules(u32),
    /// A state that no cluster was ever in.
    #[error("no cluster was ever like that: {0}")]
    Impossible(&'static str),
}

/// # Errors
/// See [`EncodeError`].
pub(crate) fn write(state: &State) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = state.encode()?;
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    Ok(bytes)
}

/// Looks at all of it: may take a while.
///
/// # Errors
/// See [`BackupError`].
pub(crate) fn read(bytes: &Bytes) -> Result<Backup, BackupError> {
    let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(BackupError::Short)?;
    let (content, found) = (bytes.slice(..split), &bytes[split..]);
    let checksum = *blake3::hash(&content).as_bytes();
    if found != checksum {
        return Err(BackupError::Checksum);
    }
    let state = State::decode(&content)?;
    if state.rules > RULES {
        return Err(BackupError::Rules(state.rules));
    }
    match impossible(&state) {
        Some(why) => Err(BackupError::Impossible(why)),
        None => Ok(Backup { content, checksum, state }),
    }
}

impl Backup {
    /// What brings its content to members, before [`Command::RestoreAs`] puts it into force.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Command> + '_ {
        let whole = self.checksum;
        let part = move |(number, part): (u32, &[u8])| Command::RestoreChunk { whole, number, bytes: part.to_vec() };
        (0u32..).zip(self.content.chunks(PART_BYTES)).map(part)
    }

    /// The state of new members that have restored it before they serve anybody: as if it had gone through their log. `epoch`: the
    /// least one.
    ///
    /// # Errors
    /// No epoch is left.
    pub(crate) fn first_state(&self, by: Author, epoch: u64) -> Result<State, Refusal> {
        let mut state = State::default();
        // No member leads yet that could be deposed.
        let origin = Origin { leader: 0 };
        state.apply(origin, Command::Found { cluster: self.state.cluster.clone(), epoch: 1, rules: RULES })?;
        for part in self.parts() {
            state.apply(origin, part)?;
        }
        state.apply(origin, Command::RestoreAs { by, whole: self.checksum, epoch, other_cluster: false })?;
        Ok(state)
    }
}

/// Whether a cluster may ever have been called so.
fn is_fit(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

/// What no sequence of commands leads to, and what sums and times would overflow by.
fn impossible(state: &State) -> Option<&'static str> {
    let of_then = |entry: &crate::state::Entry| entry.created <= entry.modified && entry.modified <= state.revision;
    let mut digest = Digest::default();
    let mut bytes = 0_usize;
    for (key, entry) in state.objects.iter() {
        digest.add(key, &entry.object);
        bytes = bytes.saturating_add(entry.object.weight());
    }
    let checks = [
        (is_fit(&state.cluster), "its cluster has no name"),
        ((1..EPOCH_MAX).contains(&state.epoch), "its epoch"),
        (state.revision < EPOCH_MAX, "its revision"),
        ((1..ID_MAX).contains(&state.next_id), "the next id"),
        (state.objects.size() <= OBJECTS_MAX && bytes <= OBJECTS_BYTES_MAX, "more objects than there is room for"),
        // What is counted is about right: builds may count otherwise.
        (state.objects_bytes <= 2 * OBJECTS_BYTES_MAX, "the size of its objects"),
        (state.objects.iter().all(|(key, entry)| entry.object.fits(key)), "an object of another kind than its name"),
        (state.objects.values().all(of_then), "an object that is later than the whole"),
        (digest == state.digest, "its objects are not those that its digest is of"),
        (state.history.keys().all(|revision| (1..=state.revision).contains(revision)), "a history of what is to come"),
        (
            state.leases.size() <= LEASES_MAX && state.tokens.size() <= LEASES_MAX,
            "more leases or tokens than there may be",
        ),
        (state.leases.values().all(|lease| TTL_MS.contains(&lease.ttl_ms)), "the life of a lease"),
        (state.leases.keys().all(|id| *id < state.next_id), "a lease whose id was never given out"),
    ];
    checks.into_iter().find(|(holds, _)| !holds).map(|(_, why)| why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lessor::Lessor;
    use crate::state::{Author, Command, Lease, Op, Origin, Txn};
    use std::time::{Duration, Instant};

    const ORIGIN: Origin = Origin { leader: 1 };

    fn put(id: &str, lease: Option<u64>) -> Command {
        let object = serde_json::json!({ "backend": { "address": "10.0.0.1:1", "lease": lease } });
        let op = Op::Put {
            key: format!("backend/s/{id}").parse().unwrap(),
            object: serde_json::from_value(object).unwrap(),
        };
        Command::Txn(Txn { by: Author::default(), request: None, conditions: Vec::new(), ops: vec![op], force: true })
    }

    fn founded() -> State {
        let mut state = State::default();
        state.apply(ORIGIN, Command::Found { cluster: "c".into(), epoch: 7, rules: RULES }).unwrap();
        state
    }

    fn filled() -> State {
        let mut state = founded();
        let id = state.apply(ORIGIN, Command::LeaseGrant { owner: "o".into(), ttl_ms: 10_000 }).unwrap().id;
        crate::state::judge::run(&mut state, put("a", Some(id))).unwrap();
        crate::state::judge::run(&mut state, put("b", None)).unwrap();
        state
    }

    fn seal(mut content: Vec<u8>) -> Vec<u8> {
        let checksum = blake3::hash(&content);
        content.extend_from_slice(checksum.as_bytes());
        content
    }

    /// Restored, and gone on with for a minute.
    fn live_with(content: &[u8]) {
        let mut state = founded();
        let whole = *blake3::hash(content).as_bytes();
        state.apply(ORIGIN, Command::RestoreChunk { whole, number: 0, bytes: content.to_vec() }).unwrap();
        let restore = Command::RestoreAs { by: Author::default(), whole, epoch: 9, other_cluster: true };
        state.apply(ORIGIN, restore).unwrap();
        let before = (state.epoch, state.revision);
        crate::state::judge::run(&mut state, put("late", None)).unwrap();
        assert!((state.epoch, state.revision) > before);
        let now = Instant::now();
        let mut lessor = Lessor::new(now);
        for second in 0..60 {
            for command in lessor.handle_tick(&state, 1, 1000, now + Duration::from_secs(second)) {
                let _ = state.apply(ORIGIN, command);
            }
        }
        State::decode(&state.encode().unwrap()).unwrap();
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_backup_is_found() {
        let backup = write(&filled()).unwrap();
        assert_eq!(read(&backup.clone().into()).unwrap().state, filled());
        for bit in 0..backup.len() * 8 {
            let mut bad = backup.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bad.into()).unwrap_err(), BackupError::Checksum, "bit {bit}");
        }
        for end in 0..backup.len() {
            assert!(read(&Bytes::copy_from_slice(&backup[..end])).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_cluster_lives_on_with_whatever_is_taken_for_a_backup() {
        let content = filled().encode().unwrap();
        let mut taken = 0;
        for bit in 0..content.len() * 8 {
            let mut bad = content.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(backup) = read(&seal(bad).into()) {
                taken += 1;
                live_with(&backup.content);
            }
        }
        assert!((1..content.len() * 4).contains(&taken), "{taken} of {}", content.len() * 8);
    }

    #[test]
    fn lives_that_begin_with_one_backup_give_no_id_twice() {
        let backup = read(&write(&filled()).unwrap().into()).unwrap();
        let mut given = std::collections::BTreeSet::new();
        // Seconds of birth: each life is later than the ones before, and gives out more before it is lost.
        for (life, birth) in [1_700_000_000, 1_700_000_001, 1_700_000_500, 1_700_086_400].into_iter().enumerate() {
            let mut state = backup.first_state(Author::default(), birth).unwrap();
            for _ in 0..1000 * (life + 1) {
                let id = state.apply(ORIGIN, Command::LeaseGrant { owner: "o".into(), ttl_ms: 10_000 }).unwrap().id;
                assert!(given.insert(id) && id < EPOCH_MAX, "{id} of life {life}");
                let by = Author::default();
                state.apply(ORIGIN, Command::LeaseRevoke { by, ids: vec![id] }).unwrap();
            }
            // And one that goes on from its disk.
            state.found_anew(birth).unwrap();
            let id = state.apply(ORIGIN, Command::LeaseGrant { owner: "o".into(), ttl_ms: 10_000 }).unwrap().id;
            assert!(!given.contains(&id));
        }
    }

    #[test]
    fn numbers_that_no_cluster_can_have_are_refused_with_a_checksum_that_is_right() {
        type Lie = fn(&mut State);
        let lies: [Lie; 10] = [
            |state| state.revision = u64::MAX,
            |state| state.epoch = u64::MAX,
            |state| state.epoch = EPOCH_MAX,
            |state| state.next_id = u64::MAX,
            |state| state.next_id = 1,
            |state| state.objects_bytes = usize::MAX,
            |state| state.cluster.clear(),
            |state| state.digest = Digest::default(),
            |state| state.leases.insert_mut(1, Lease { ttl_ms: u64::MAX, owner: String::new() }),
            |state| state.revision = 0,
        ];
        for (number, lie) in lies.into_iter().enumerate() {
            let mut state = filled();
            lie(&mut state);
            let read = read(&write(&state).unwrap().into()).map(drop);
            assert!(matches!(read, Err(BackupError::Impossible(_))), "{number}: {read:?}");
        }
        let mut newer = filled();
        newer.rules += 1;
        assert_eq!(read(&write(&newer).unwrap().into()).map(drop), Err(BackupError::Rules(RULES + 1)));
        live_with(&filled().encode().unwrap());
    }
}
