//! Snapshots in the log's file: a header in the list of snapshots, the content in chunks beside the log.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use redb::{Database, ReadableDatabase as _, TableDefinition};
use serde::{Deserialize, Serialize};

use super::record::SnapshotMeta;
use super::{Place, StoreError};

/// (snapshot's number, chunk's number) to bytes.
pub(super) const SNAPSHOT_TABLE: TableDefinition<'static, (u64, u32), &[u8]> = TableDefinition::new("snapshot");

/// One value of the database: large enough to be few, small enough not to be one 80 MiB allocation of its own.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// What the list of snapshots says of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotHeader {
    pub(super) number: u64,
    pub(super) meta: SnapshotMeta,
    pub(super) bytes: u64,
    /// BLAKE3 of the content.
    pub(super) digest: [u8; 32],
}

impl SnapshotHeader {
    pub(super) fn new(number: u64, meta: SnapshotMeta, content: &[u8]) -> Self {
        Self { number, meta, bytes: content.len() as u64, digest: *blake3::hash(content).as_bytes() }
    }
}

/// Why a snapshot cannot be used.
#[derive(Debug)]
pub(super) enum Problem {
    Damaged(&'static str),
    Database(Box<redb::Error>),
}

impl<E: Into<redb::Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

impl Problem {
    pub(super) fn at(self, path: &Path, number: u64) -> StoreError {
        let what = match self {
            Self::Damaged(what) => what.to_owned(),
            Self::Database(error) => error.to_string(),
        };
        StoreError::Corrupt { path: path.to_owned(), place: Place::Snapshot(number), what }
    }
}

/// Reads and verifies a snapshot's content.
pub(super) fn read(database: &Database, header: &SnapshotHeader) -> Result<Bytes, Problem> {
    let table = database.begin_read()?.open_table(SNAPSHOT_TABLE)?;
    let mut content = BytesMut::new();
    for (expected, row) in (0u32..).zip(table.range((header.number, 0)..=(header.number, u32::MAX))?) {
        let (key, chunk) = row?;
        if key.value().1 != expected {
            return Err(Problem::Damaged("a chunk is missing"));
        }
        content.extend_from_slice(chunk.value());
        if content.len() as u64 > header.bytes {
            return Err(Problem::Damaged("it is longer than it was"));
        }
    }
    if *blake3::hash(&content).as_bytes() != header.digest {
        return Err(Problem::Damaged("the digest does not match"));
    }
    Ok(content.freeze())
}
