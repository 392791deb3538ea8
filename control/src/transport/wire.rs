//! The bodies of the members' calls.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Rpc;
use crate::store::record::{self, Entry, LogId, RecordError, SnapshotMeta, Vote};

/// Entries from the leader; without entries, a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendCall {
    /// The leader's vote.
    pub vote: Vote,
    /// The entry before the first.
    pub previous: Option<LogId>,
    /// Consecutive, the first follows `previous`.
    pub entries: Vec<Entry>,
    /// What the leader knows to be committed.
    pub committed: Option<LogId>,
}

/// What a follower did with entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendAnswer {
    /// All are on disk.
    Done,
    /// Those through this one are on disk.
    Through(Option<LogId>),
    /// It has another entry, or none, where the call's `previous` stands.
    Conflict,
    /// It has seen a later leader.
    HigherVote(Vote),
}

/// A request for a vote, or for the promise of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteCall {
    /// What the candidate would be.
    pub vote: Vote,
    /// The end of the candidate's log.
    pub last: Option<LogId>,
    /// The old leader asked for this election, so its lease does not count against it.
    pub transfer: bool,
}

/// The answer to a request for a vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteAnswer {
    /// The voter's vote.
    pub vote: Vote,
    /// Whether it was granted.
    pub granted: bool,
    /// The end of the voter's log.
    pub last: Option<LogId>,
}

/// The head of a snapshot; its content follows on the same stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotCall {
    /// The leader's vote.
    pub vote: Vote,
    /// What the snapshot stands for.
    pub meta: SnapshotMeta,
    /// BLAKE3 of the content.
    pub digest: [u8; 32],
}

/// The answer to a snapshot, sent once it is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotAnswer {
    /// The receiver's vote; greater than the leader's where it refused.
    pub vote: Vote,
}

/// The leader asks the receiver to stand for election at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferCall {
    /// The leader's vote.
    pub from: Vote,
    /// Who should take over.
    pub to: u64,
    /// The log that it must have.
    pub last: Option<LogId>,
}

/// The answer to a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferAnswer {
    /// The election begins.
    Started,
    /// The leader is not this member's leader.
    VoteChanged {
        /// The leader's vote.
        expected: Vote,
        /// The receiver's.
        actual: Vote,
    },
    /// The log is not all on disk.
    LogBehind {
        /// The log asked for.
        expected: Option<LogId>,
        /// The log on disk.
        actual: Option<LogId>,
    },
}

/// A call as the receiver sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// See [`AppendCall`].
    Append(AppendCall),
    /// See [`VoteCall`].
    Vote(VoteCall),
    /// The same, without a vote being cast.
    PreVote(VoteCall),
    /// See [`SnapshotCall`]; the content's digest has been verified.
    Snapshot(SnapshotCall, Bytes),
    /// See [`TransferCall`].
    Transfer(TransferCall),
    /// Whatever is above consensus understands.
    Ask(Bytes),
}

/// An answer as the receiver gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `Append`.
    Append(AppendAnswer),
    /// To `Vote` and `PreVote`.
    Vote(VoteAnswer),
    /// To `Snapshot`.
    Snapshot(SnapshotAnswer),
    /// To `Transfer`.
    Transfer(TransferAnswer),
    /// To `Ask`.
    Ask(Bytes),
}

/// Parses a request's body.
pub(crate) fn parse(rpc: Rpc, body: Bytes) -> Result<Call, RecordError> {
    let index = rpc.index();
    Ok(match rpc {
        Rpc::Append => Call::Append(record::decode::<AppendCall>(index, &body)?.checked()?),
        Rpc::Vote => Call::Vote(record::decode(index, &body)?),
        Rpc::PreVote => Call::PreVote(record::decode(index, &body)?),
        Rpc::Transfer => Call::Transfer(record::decode(index, &body)?),
        Rpc::Ask => Call::Ask(record::decode(index, &body)?),
        Rpc::Snapshot => {
            let (head, content) = split(body)?;
            let head: SnapshotCall = record::decode(index, &head)?;
            if *blake3::hash(&content).as_bytes() != head.digest {
                return Err(RecordError::Checksum);
            }
            // A snapshot cannot contain what its leader has not seen; the engine would panic on it.
            let leadership = (head.vote.term, head.vote.leader);
            if head.meta.last.max(head.meta.membership_at).is_some_and(|id| (id.term, id.leader) > leadership) {
                return Err(RecordError::Malformed);
            }
            Call::Snapshot(head, content)
        }
    })
}

/// Encodes an answer.
pub(super) fn answer(rpc: Rpc, reply: &Reply) -> Result<Vec<u8>, postcard::Error> {
    let index = rpc.index();
    match reply {
        Reply::Append(answer) => record::encode(index, answer),
        Reply::Vote(answer) => record::encode(index, answer),
        Reply::Snapshot(answer) => record::encode(index, answer),
        Reply::Transfer(answer) => record::encode(index, answer),
        Reply::Ask(answer) => record::encode(index, answer),
    }
}

/// A snapshot's head with its length before it; the content is sent after it.
pub(super) fn snapshot_head(head: &SnapshotCall) -> Result<Bytes, postcard::Error> {
    let record = record::encode(Rpc::Snapshot.index(), head)?;
    let mut bytes = BytesMut::with_capacity(record.len() + 4);
    // A head holds a membership: far below 4 GiB.
    bytes.put_u32_le(u32::try_from(record.len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&record);
    Ok(bytes.freeze())
}

fn split(mut body: Bytes) -> Result<(Bytes, Bytes), RecordError> {
    let short = RecordError::Short(body.len());
    let Some(length) = body.first_chunk::<4>() else { return Err(short) };
    let end = (u32::from_le_bytes(*length) as usize).checked_add(4).filter(|end| *end <= body.len());
    let content = body.split_off(end.ok_or(short)?);
    Ok((body.split_off(4), content))
}

/// For [`crate::fuzzing`]: a body with this content, whose checksums are right unless it is taken as it is.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(rpc: Rpc, as_it_is: bool, content: &[u8]) {
    let index = rpc.index();
    let sealed = crate::fuzzing::sealed(index, content);
    let body = match rpc {
        _ if as_it_is => content.to_vec(),
        Rpc::Snapshot => {
            let Ok(mut head) = record::decode::<SnapshotCall>(index, &sealed) else { return };
            head.digest = *blake3::hash(content).as_bytes();
            [&snapshot_head(&head).expect("a head can be written"), content].concat()
        }
        Rpc::Append | Rpc::Vote | Rpc::PreVote | Rpc::Transfer | Rpc::Ask => sealed,
    };
    let Ok(call) = parse(rpc, Bytes::from(body)) else { return };
    let written = match &call {
        Call::Append(call) => record::encode(index, call),
        Call::Vote(call) | Call::PreVote(call) => record::encode(index, call),
        Call::Transfer(call) => record::encode(index, call),
        Call::Ask(bytes) => record::encode(index, bytes),
        Call::Snapshot(head, content) => snapshot_head(head).map(|head| [&head, &content[..]].concat()),
    };
    assert_eq!(parse(rpc, Bytes::from(written.expect("a call can be written"))).as_ref(), Ok(&call));
    match call {
        Call::Append(call) => {
            let ids = call.previous.into_iter().chain(call.entries.iter().map(|entry| entry.id));
            let ids: Vec<LogId> = ids.collect();
            assert!(ids.windows(2).all(|pair| pair[0] < pair[1] && pair[0].index + 1 == pair[1].index));
            assert!(ids.iter().chain(&call.committed).all(|id| id.term <= call.vote.term));
            call.entries.iter().for_each(crate::consensus::fuzz_entry);
        }
        Call::Snapshot(head, _) => assert!(head.meta.last.is_none_or(|id| id.term <= head.vote.term)),
        Call::Vote(_) | Call::PreVote(_) | Call::Transfer(_) | Call::Ask(_) => {}
    }
}

impl AppendCall {
    /// The order that the engine takes for granted.
    fn checked(self) -> Result<Self, RecordError> {
        let leadership = (self.vote.term, self.vote.leader);
        let mut previous = self.previous;
        for entry in &self.entries {
            let next = previous.map_or(Some(0), |id| id.index.checked_add(1));
            let ascends = previous.is_none_or(|id| (id.term, id.leader) <= (entry.id.term, entry.id.leader));
            if Some(entry.id.index) != next || !ascends {
                return Err(RecordError::Malformed);
            }
            previous = Some(entry.id);
        }
        if previous.max(self.committed).is_some_and(|id| (id.term, id.leader) > leadership) {
            return Err(RecordError::Malformed);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::Payload;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, leader: 1, index }
    }

    fn call(previous: Option<LogId>, ids: &[LogId]) -> AppendCall {
        let entries = ids.iter().map(|id| Entry { id: *id, payload: Payload::Blank }).collect();
        AppendCall { vote: Vote { term: 5, leader: 1, committed: true }, previous, entries, committed: None }
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        let good = call(Some(id(1, 4)), &[id(1, 5), id(2, 6)]);
        let body = Bytes::from(record::encode(Rpc::Append.index(), &good).unwrap());
        assert_eq!(parse(Rpc::Append, body), Ok(Call::Append(good)));
        let bad = [
            call(Some(id(1, 4)), &[id(1, 6)]),
            call(Some(id(2, 4)), &[id(1, 5)]),
            call(Some(id(1, 4)), &[id(6, 5)]),
            call(Some(id(1, u64::MAX)), &[id(1, 0)]),
        ];
        for bad in bad {
            let body = Bytes::from(record::encode(Rpc::Append.index(), &bad).unwrap());
            assert_eq!(parse(Rpc::Append, body), Err(RecordError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn a_snapshot_that_was_cut_or_changed_is_refused() {
        let content = Bytes::from(vec![7; 1000]);
        let head = SnapshotCall {
            vote: Vote { term: 5, leader: 1, committed: true },
            meta: SnapshotMeta::default(),
            digest: *blake3::hash(&content).as_bytes(),
        };
        let mut body = snapshot_head(&head).unwrap().to_vec();
        body.extend_from_slice(&content);
        let good = Bytes::from(body);
        assert_eq!(parse(Rpc::Snapshot, good.clone()), Ok(Call::Snapshot(head, content)));
        for end in 0..good.len() {
            assert!(parse(Rpc::Snapshot, good.slice(..end)).is_err(), "cut at {end}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(Rpc::Snapshot, Bytes::from(bad)).is_err(), "bit {bit}");
        }
    }
}
