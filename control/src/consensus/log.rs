//! The store as the engine's log.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};

use super::convert;
use super::types::{Entry, LogId, Types, Vote};
use crate::store::{Store, StoreError};

/// Of commands in one append call: half of what the receiver takes, since a call is whole entries.
const APPEND_BYTES: usize = 4 * 1024 * 1024;

/// The engine's writer and reader of the log; both are the store.
#[derive(Clone)]
pub(super) struct Log {
    pub(super) store: Store,
}

/// The engine wants an [`io::Error`] of whatever happened; the store itself tells why through `Store::failed`.
pub(super) fn failed(error: &Arc<StoreError>) -> io::Error {
    io::Error::other(Arc::clone(error))
}

impl Log {
    fn read(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> Result<Vec<Entry>, io::Error> {
        let entries = self.store.entries(range, bytes_max);
        entries.iter().map(|entry| convert::to_entry(entry).map_err(io::Error::other)).collect()
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(range, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.store.vote().map(convert::to_vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, APPEND_BYTES)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        Ok(LogState {
            last_purged_log_id: self.store.purged().map(convert::to_log_id),
            last_log_id: self.store.last().map(convert::to_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.store.save_vote(convert::vote(vote)).await.map_err(|error| failed(&error))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.store.save_committed(committed.as_ref().map(convert::log_id)).await.map_err(|error| failed(&error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.store.committed().map(convert::to_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| convert::entry(&entry)).collect();
        let done = Box::new(|result: Result<(), Arc<StoreError>>| {
            callback.io_completed(result.map_err(|error| failed(&error)));
        });
        self.store.append(entries, done).await.map_err(|error| failed(&error))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(Some(0), |last| last.index().checked_add(1));
        let Some(from) = from else { return Ok(()) };
        self.store.truncate(from).await.map_err(|error| failed(&error))
    }

    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        self.store.purge(convert::log_id(&id)).await.map_err(|error| failed(&error))
    }
}
