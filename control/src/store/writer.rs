//! The thread that writes: queue -> one transaction, synced before the header names it and after -> callbacks, in the
//! queue's order.
//!
//! Votes and entries take the same queue, so their order on disk is the order in which the engine asked.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use redb::{Database, WriteTransaction};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::StoreError;
use super::load::{COMMITTED, LOG_TABLE, META_TABLE, PURGED, SNAPSHOTS, message};
use super::memory::Completion;
use super::snapshot::{CHUNK_BYTES, SNAPSHOT_TABLE, SnapshotHeader};
use crate::store::latency::Latency;

/// One transaction's worth: past that the first waits for too many.
const BATCH_OPS_MAX: usize = 512;

/// What the thread is asked to write.
pub(super) enum Op {
    Append {
        records: Vec<(u64, Vec<u8>)>,
        done: Completion,
    },
    Meta {
        key: u8,
        record: Vec<u8>,
        done: Completion,
    },
    /// Goes with the next transaction that something else causes.
    Committed {
        record: Vec<u8>,
    },
    Truncate {
        from: u64,
        done: Completion,
    },
    Purge {
        through: u64,
        record: Vec<u8>,
        done: Completion,
    },
    /// `headers` are those to keep, the new one last.
    Snapshot {
        headers: Vec<SnapshotHeader>,
        record: Vec<u8>,
        content: Bytes,
        done: Completion,
    },
    Stop,
}

/// Since when the thread has been writing, and how long its writes took.
#[derive(Debug)]
pub(super) struct Pulse {
    start: Instant,
    /// Of whole transactions, synced.
    pub(super) writes: Latency,
    /// Milliseconds from `start`, plus one; 0 while idle.
    busy_since: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { start: Instant::now(), writes: Latency::default(), busy_since: AtomicU64::new(0) }
    }
}

impl Pulse {
    fn begin(&self) {
        self.busy_since.store(self.elapsed_ms() + 1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    pub(super) fn stalled(&self) -> Duration {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.elapsed_ms().saturating_sub(since - 1)),
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}

pub(super) struct Writer {
    path: PathBuf,
    database: Arc<Database>,
    failure: watch::Sender<Option<Arc<StoreError>>>,
    pulse: Arc<Pulse>,
    /// The newest commit position that no transaction has carried.
    committed: Option<Vec<u8>>,
}

impl Writer {
    pub(super) fn new(
        path: PathBuf,
        database: Arc<Database>,
        failure: watch::Sender<Option<Arc<StoreError>>>,
        pulse: Arc<Pulse>,
    ) -> Self {
        Self { path, database, failure, pulse, committed: None }
    }

    /// Until `Stop`, until every handle is gone, or until a write fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Op>) {
        let mut stop = false;
        while !stop {
            let Some(first) = queue.blocking_recv() else { break };
            let batch;
            (batch, stop) = self.gather(first, &mut queue);
            if batch.is_empty() && !stop {
                continue;
            }
            let result = self.commit(&batch);
            stop |= result.is_err();
            complete(batch, &result);
        }
        queue.close();
        // Not `try_recv`: a sender that has its place in the queue and has not put its write there yet counts too.
        while let Some(op) = queue.blocking_recv() {
            complete(vec![op], &Err(self.why_closed()));
        }
    }

    /// As [`Writer::run`], for a runtime that everything shares: a disk takes time there only in `pace`.
    #[cfg(test)]
    pub(super) async fn run_in_turns<P: Future<Output = ()>>(
        mut self,
        mut queue: mpsc::Receiver<Op>,
        pace: impl Fn() -> P,
    ) {
        let mut stop = false;
        while !stop {
            let Some(first) = queue.recv().await else { break };
            let batch;
            (batch, stop) = self.gather(first, &mut queue);
            if batch.is_empty() && !stop {
                continue;
            }
            self.pulse.begin();
            pace().await;
            let result = self.commit(&batch);
            stop |= result.is_err();
            pace().await;
            complete(batch, &result);
        }
        queue.close();
        while let Some(op) = queue.recv().await {
            complete(vec![op], &Err(self.why_closed()));
        }
    }

    /// One transaction's worth of what is queued, and whether it is the last.
    fn gather(&mut self, first: Op, queue: &mut mpsc::Receiver<Op>) -> (Vec<Op>, bool) {
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(op) = next {
            match op {
                Op::Stop => return (batch, true),
                Op::Committed { record } => self.committed = Some(record),
                op => batch.push(op),
            }
            next = if batch.len() < BATCH_OPS_MAX { queue.try_recv().ok() } else { None };
        }
        (batch, false)
    }

    fn commit(&mut self, batch: &[Op]) -> Result<(), Arc<StoreError>> {
        self.pulse.begin();
        let began = Instant::now();
        let result = self.write(batch);
        self.pulse.writes.observe(began.elapsed());
        self.pulse.end();
        // Before the callbacks: whoever hears of the failure through them finds the reason here.
        if let Err(error) = &result {
            tracing::error!(%error, "the control log cannot be written");
            self.failure.send_replace(Some(Arc::clone(error)));
        }
        result
    }

    fn why_closed(&self) -> Arc<StoreError> {
        self.failure.borrow().clone().unwrap_or_else(|| Arc::new(StoreError::Closed))
    }

    fn write(&mut self, batch: &[Op]) -> Result<(), Arc<StoreError>> {
        if batch.is_empty() && self.committed.is_none() {
            return Ok(());
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut transaction = self.database.begin_write()?;
            // With one sync, a damaged last write looks like one that a power loss cut short, and is left out without a
            // word: an acknowledged entry, or a vote. With two, what the file's header names was whole once.
            transaction.set_two_phase_commit(true);
            for op in batch {
                op.write(&transaction)?;
            }
            if let Some(record) = &self.committed {
                transaction.open_table(META_TABLE)?.insert(COMMITTED, record.as_slice())?;
            }
            transaction.commit()?;
            Ok::<(), redb::Error>(())
        }));
        let path = self.path.clone();
        match outcome {
            Ok(Ok(())) => {
                self.committed = None;
                Ok(())
            }
            Ok(Err(source)) => Err(Arc::new(StoreError::Write { path, source: Box::new(source) })),
            Err(panic) => Err(Arc::new(StoreError::Panicked { path, message: message(&*panic) })),
        }
    }
}

/// Calls whoever waits, in the queue's order.
fn complete(batch: Vec<Op>, result: &Result<(), Arc<StoreError>>) {
    for done in batch.into_iter().filter_map(Op::done) {
        done(result.clone());
    }
}

impl Op {
    fn write(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        match self {
            Self::Append { records, .. } => {
                let mut log = transaction.open_table(LOG_TABLE)?;
                for (index, record) in records {
                    log.insert(*index, record.as_slice())?;
                }
            }
            Self::Meta { key, record, .. } => {
                transaction.open_table(META_TABLE)?.insert(*key, record.as_slice())?;
            }
            Self::Truncate { from, .. } => {
                transaction.open_table(LOG_TABLE)?.retain_in(*from.., |_, _| false)?;
            }
            Self::Purge { through, record, .. } => {
                transaction.open_table(LOG_TABLE)?.retain_in(..=*through, |_, _| false)?;
                transaction.open_table(META_TABLE)?.insert(PURGED, record.as_slice())?;
            }
            Self::Snapshot { headers, record, content, .. } => {
                let mut table = transaction.open_table(SNAPSHOT_TABLE)?;
                table.retain(|(number, _), _| headers.iter().any(|header| header.number == number))?;
                if let Some(newest) = headers.last() {
                    for (chunk, bytes) in (0u32..).zip(content.chunks(CHUNK_BYTES)) {
                        table.insert((newest.number, chunk), bytes)?;
                    }
                }
                transaction.open_table(META_TABLE)?.insert(SNAPSHOTS, record.as_slice())?;
            }
            Self::Committed { .. } | Self::Stop => {}
        }
        Ok(())
    }

    fn done(self) -> Option<Completion> {
        match self {
            Self::Append { done, .. }
            | Self::Meta { done, .. }
            | Self::Truncate { done, .. }
            | Self::Purge { done, .. }
            | Self::Snapshot { done, .. } => Some(done),
            Self::Committed { .. } | Self::Stop => None,
        }
    }
}
