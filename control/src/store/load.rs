//! Opening the file: everything in it is verified before any of it is used.
//!
//! The database does not verify its pages when it reads them: in an experiment more than half of random bit flips in
//! a closed file came back as wrong values. So its own whole-file check runs first, and then every record of ours has
//! its checksum, its place and its neighbours looked at.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition,
};
use serde::de::DeserializeOwned;

use super::memory::InMemory;
use super::record::{self, Entry, Identity, RecordError};
use super::snapshot::{self, SNAPSHOT_TABLE, SnapshotHeader};
use super::{Place, StoreError};

/// Index to record.
pub(super) const LOG_TABLE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
/// One of the keys below to record; the key is also the index in the record's envelope.
pub(super) const META_TABLE: TableDefinition<'static, u8, &[u8]> = TableDefinition::new("meta");

pub(super) const IDENTITY: u8 = 1;
pub(super) const VOTE: u8 = 2;
pub(super) const COMMITTED: u8 = 3;
pub(super) const PURGED: u8 = 4;
pub(super) const SNAPSHOTS: u8 = 5;

/// The log lives in memory anyway; the database's cache only has to hold what a transaction touches.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Opens, checks and reads the file. `has_run`: the member has run before, so an empty file is a loss.
pub(super) fn open(
    path: &Path,
    identity: &Identity,
    has_run: bool,
    create: impl FnOnce(&Builder) -> Result<Database, DatabaseError>,
) -> Result<(Database, InMemory), StoreError> {
    let attempt = || {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let mut database = create(&builder).map_err(|error| of_open(path, error))?;
        match database.check_integrity() {
            Ok(true) => {}
            Ok(false) => return Err(damaged(path, Place::File, "the database's own check found damage")),
            Err(error) => return Err(of_open(path, error)),
        }
        let view = read(path, &database, identity, has_run)?;
        Ok((database, view))
    };
    // Damaged pages make the database panic in places; a panic here is one more way of finding them.
    catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|panic| {
        Err(damaged(path, Place::File, &format!("the database panicked: {}", message(&*panic))))
    })
}

fn read(path: &Path, database: &Database, identity: &Identity, has_run: bool) -> Result<InMemory, StoreError> {
    let broken = |error: redb::Error| damaged(path, Place::File, &error.to_string());
    let transaction = database.begin_read().map_err(|error| broken(error.into()))?;
    let tables = transaction.list_tables().map_err(|error| broken(error.into()))?.count();
    if tables == 0 {
        if has_run {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        drop(transaction);
        return create(path, database, identity);
    }
    let meta = transaction.open_table(META_TABLE).map_err(|error| broken(error.into()))?;
    let get = |key: u8| -> Result<Option<Vec<u8>>, StoreError> {
        let value = meta.get(key).map_err(|error| broken(error.into()))?;
        Ok(value.map(|value| value.value().to_vec()))
    };
    match field::<Identity>(path, Place::Identity, IDENTITY, get(IDENTITY)?)? {
        Some(found) if found == *identity => {}
        Some(found) => {
            return Err(StoreError::OtherMember {
                path: path.to_owned(),
                found: Box::new(found),
                expected: Box::new(identity.clone()),
            });
        }
        None => return Err(damaged(path, Place::Identity, "is missing")),
    }
    let mut view = InMemory {
        vote: field(path, Place::Vote, VOTE, get(VOTE)?)?,
        committed: field(path, Place::Committed, COMMITTED, get(COMMITTED)?)?.flatten(),
        purged: field(path, Place::Purged, PURGED, get(PURGED)?)?,
        ..InMemory::default()
    };
    let table = transaction.open_table(LOG_TABLE).map_err(|error| broken(error.into()))?;
    let mut log = BTreeMap::new();
    let mut next = view.purged.map_or(0, |id| id.index.saturating_add(1));
    for row in table.iter().map_err(|error| broken(error.into()))? {
        let (key, value) = row.map_err(|error| broken(error.into()))?;
        let index = key.value();
        let place = Place::Log(index);
        let entry: Entry = record::decode(index, value.value()).map_err(|error| of_record(path, place, error))?;
        if entry.id.index != index {
            return Err(damaged(path, place, "holds another entry"));
        }
        if index != next {
            return Err(damaged(path, Place::Log(next), "is missing"));
        }
        next = index.saturating_add(1);
        log.insert(index, Arc::new(entry));
    }
    view.log = log;
    let headers: Vec<SnapshotHeader> = field(path, Place::Snapshots, SNAPSHOTS, get(SNAPSHOTS)?)?.unwrap_or_default();
    view.next_snapshot = headers.last().map_or(0, |header| header.number.saturating_add(1));
    view.snapshots = usable(path, database, headers, &view)?;
    Ok(view)
}

/// The snapshots that verify. The newest that does must reach the log's beginning, or entries would be missing
/// between the two.
fn usable(
    path: &Path,
    database: &Database,
    mut headers: Vec<SnapshotHeader>,
    view: &InMemory,
) -> Result<Vec<SnapshotHeader>, StoreError> {
    let mut first_problem = None;
    while let Some(newest) = headers.last() {
        match snapshot::read(database, newest) {
            Ok(_) => break,
            Err(problem) => {
                let error = problem.at(path, newest.number);
                tracing::warn!(%error, "a snapshot does not verify");
                first_problem.get_or_insert(error);
                headers.pop();
            }
        }
    }
    let reached = headers.last().and_then(|header| header.meta.last).map(|id| id.index);
    if view.purged.map(|id| id.index) > reached {
        return Err(
            first_problem.unwrap_or_else(|| damaged(path, Place::Snapshots, "none reaches the log's beginning"))
        );
    }
    Ok(headers)
}

/// A new file: the tables, and whose it is.
fn create(path: &Path, database: &Database, identity: &Identity) -> Result<InMemory, StoreError> {
    let record = record::encode(IDENTITY.into(), identity)
        .map_err(|source| StoreError::Encode { place: Place::Identity, source })?;
    let write = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(LOG_TABLE)?;
        transaction.open_table(SNAPSHOT_TABLE)?;
        transaction.open_table(META_TABLE)?.insert(IDENTITY, record.as_slice())?;
        Ok(transaction.commit()?)
    };
    write().map_err(|source| StoreError::Write { path: path.to_owned(), source: Box::new(source) })?;
    Ok(InMemory::default())
}

fn field<T: DeserializeOwned>(
    path: &Path,
    place: Place,
    key: u8,
    bytes: Option<Vec<u8>>,
) -> Result<Option<T>, StoreError> {
    let value = bytes.map(|bytes| record::decode(key.into(), &bytes)).transpose();
    value.map_err(|error| of_record(path, place, error))
}

fn of_record(path: &Path, place: Place, error: RecordError) -> StoreError {
    match error {
        RecordError::Future { found } => StoreError::Future { path: path.to_owned(), place, found },
        error => damaged(path, place, &error.to_string()),
    }
}

/// What the database says at open: damage, or an operating system that refuses.
fn of_open(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path: path.to_owned() },
        DatabaseError::Storage(StorageError::Io(source))
            if !matches!(source.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
        {
            StoreError::Io { action: "open", path: path.to_owned(), source }
        }
        error => damaged(path, Place::File, &error.to_string()),
    }
}

fn damaged(path: &Path, place: Place, what: &str) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), place, what: what.to_owned() }
}

/// A panic's message.
pub(super) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
