//! What the log's file and the members' wire carry: structs of our own and the envelope around them.
//!
//! The engine's own types never reach a disk or a wire: its layout may change with every release of it, ours only
//! with [`FORMAT`]. `consensus/convert.rs` goes from one to the other, field by field.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The format that this build writes, and the newest that it reads.
pub const FORMAT: u8 = 1;

/// CRC-32, format, index.
const HEADER_BYTES: usize = 4 + 1 + 8;

/// A place in the log: the index, and the term and the leader that wrote it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogId {
    /// The term of the leader that appended the entry.
    pub term: u64,
    /// The leader that appended the entry.
    pub leader: u64,
    /// The position, counted from 0.
    pub index: u64,
}

/// The last vote of a member: what it must not forget, or one term could elect two leaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The term voted in.
    pub term: u64,
    /// The candidate voted for.
    pub leader: u64,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// Where a member is reached; the same on every member, since it is part of the membership.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberInfo {
    /// A name for people.
    pub name: String,
    /// `host:port` that the other members send to.
    pub peer_address: String,
    /// `host:port`, or a URL, that clients are referred to.
    pub api_address: String,
}

/// Which members vote, and which listen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// One set of voters, or two while a joint change is under way.
    pub configs: Vec<Vec<u64>>,
    /// Every voter and learner.
    pub nodes: Vec<(u64, MemberInfo)>,
}

/// What an entry is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// A new leader's first entry.
    Blank,
    /// A command for the machine.
    Command(Bytes),
    /// A change of the membership.
    Membership(Membership),
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands.
    pub id: LogId,
    /// What it says.
    pub payload: Payload,
}

/// What a snapshot stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry that the state contains.
    pub last: Option<LogId>,
    /// The entry that set the membership.
    pub membership_at: Option<LogId>,
    /// The membership at `last`.
    pub membership: Membership,
}

/// Whose log a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's name, fixed when it was initialised.
    pub cluster: String,
    /// The member, never reused.
    pub node: u64,
}

/// Why bytes are not the record that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than an envelope has.
    #[error("{0} bytes are too few for a record")]
    Short(usize),
    /// The CRC-32 does not match.
    #[error("the checksum does not match")]
    Checksum,
    /// Written by a newer build.
    #[error("format {found} is newer than the format {FORMAT} of this build")]
    Future {
        /// The record's format.
        found: u8,
    },
    /// A sound record of another place.
    #[error("the record belongs to index {found}")]
    Misplaced {
        /// The index that the record was written for.
        found: u64,
    },
    /// The checksum matches, the content does not parse.
    #[error("the content is malformed")]
    Malformed,
}

/// `crc | format | index | postcard`, integers little-endian; the CRC-32 covers all after itself.
pub fn encode<T: Serialize>(index: u64, value: &T) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&[0; 4]);
    bytes.push(FORMAT);
    bytes.extend_from_slice(&index.to_le_bytes());
    let mut bytes = postcard::to_extend(value, bytes)?;
    let crc = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// The reverse of [`encode`]. The checksum comes first: a flipped format byte is damage, not the future.
pub fn decode<T: DeserializeOwned>(index: u64, bytes: &[u8]) -> Result<T, RecordError> {
    let Some((header, content)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(RecordError::Short(bytes.len()));
    };
    let [c0, c1, c2, c3, format, i @ ..] = *header;
    if crc32fast::hash(&bytes[4..]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(RecordError::Checksum);
    }
    if format > FORMAT {
        return Err(RecordError::Future { found: format });
    }
    let found = u64::from_le_bytes(i);
    if found != index {
        return Err(RecordError::Misplaced { found });
    }
    match postcard::take_from_bytes(content) {
        Ok((value, [])) => Ok(value),
        _ => Err(RecordError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry { id: LogId { term: 3, leader: 7, index: 42 }, payload: Payload::Command(Bytes::from_static(b"set a 1")) }
    }

    #[test]
    fn a_record_comes_back_and_only_at_its_place() {
        let bytes = encode(42, &entry()).unwrap();
        assert_eq!(decode::<Entry>(42, &bytes), Ok(entry()));
        assert_eq!(decode::<Entry>(43, &bytes), Err(RecordError::Misplaced { found: 42 }));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = encode(42, &entry()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode::<Entry>(42, &bad), Err(RecordError::Checksum), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(decode::<Entry>(42, &bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn the_future_and_trailing_bytes_are_told_apart() {
        let seal = |mut bytes: Vec<u8>| {
            let crc = crc32fast::hash(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            bytes
        };
        let mut newer = encode(1, &entry()).unwrap();
        newer[4] = FORMAT + 1;
        assert_eq!(decode::<Entry>(1, &seal(newer)), Err(RecordError::Future { found: FORMAT + 1 }));
        let mut longer = encode(1, &entry()).unwrap();
        longer.push(0);
        assert_eq!(decode::<Entry>(1, &seal(longer)), Err(RecordError::Malformed));
    }
}
