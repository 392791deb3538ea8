//! A member's disk: the log, the vote and the snapshots in one file, `raft.redb`.
//!
//! Reads come from memory, where the whole log is (snapshots keep it to some thousand entries). Writes go through one
//! thread (`store/writer.rs`): it drains its queue into one transaction, syncs it and then completes the callbacks in
//! order. The file is verified whole before anything of it is used (`store/load.rs`); what does not verify is never
//! repaired by leaving something out, since an entry that a quorum relied on could be what is left out. After an error
//! of the disk nothing is written any more and [`Store::failed`] says why: the process has to end.
//!
//! Nothing here knows the consensus engine; `consensus/log.rs` fits the two together.

mod directory;
mod error;
pub mod latency;
mod load;
mod memory;
pub mod record;
mod snapshot;
mod writer;

use crate::store::latency::Latencies;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use redb::{Database, StorageBackend};
use tokio::sync::{mpsc, oneshot, watch};

use self::directory::Directory;
pub(crate) use self::directory::hold;
/// For [`crate::fuzzing`]: the list of snapshots.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_headers(index: u64, content: &[u8]) {
    crate::fuzzing::again::<Vec<SnapshotHeader>>(index, content);
}

pub use self::error::{Place, StoreError};
pub use self::memory::Completion;
use self::memory::InMemory;
use self::record::{Entry, Identity, LogId, SnapshotMeta, Vote};
use self::snapshot::SnapshotHeader;
use self::writer::{Op, Pulse};

/// Writes that may wait for the disk; past that, `append` waits.
const QUEUE_OPS_MAX: usize = 1024;

/// A member's log, vote and snapshots. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    view: RwLock<InMemory>,
    queue: mpsc::Sender<Op>,
    saving: tokio::sync::Mutex<()>,
    failure: watch::Sender<Option<Arc<StoreError>>>,
    pulse: Arc<Pulse>,
    /// Gone once closed.
    database: Mutex<Option<Arc<Database>>>,
    /// `None`: the writer is a future of the caller's, and nothing leaves the caller's thread.
    thread: Option<Mutex<Option<std::thread::JoinHandle<()>>>>,
    /// Holds the lock until the store is closed.
    directory: Mutex<Option<Directory>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store of a member in its directory, or makes a new one where there is none.
    ///
    /// Reads and verifies the whole file: call it off the runtime's threads. Fails when another process has the
    /// directory, when it is another member's, and when a single record does not verify.
    pub fn open(directory: &Path, identity: &Identity) -> Result<Self, StoreError> {
        let mut held = Directory::lock(directory, identity)?;
        let path = directory.join("raft.redb");
        if held.has_run() && !path.exists() {
            return Err(StoreError::Missing { path });
        }
        // Certificates' keys are in it.
        directory::private_file(&path)?;
        let loaded = load::open(&path, identity, held.has_run(), |builder| builder.create(&path))?;
        held.record(identity)?;
        Self::on_thread(path, loaded, Some(held))
    }

    /// Opens a store on storage of the caller's: how tests make disks fail.
    ///
    /// `has_run` says that an empty storage is a loss and not a new member.
    pub fn open_on(identity: &Identity, has_run: bool, backend: impl StorageBackend) -> Result<Self, StoreError> {
        let path = PathBuf::from("raft.redb");
        let loaded = load::open(&path, identity, has_run, |builder| builder.create_with_backend(backend))?;
        Self::on_thread(path, loaded, None)
    }

    /// As [`Store::open_on`], without a thread: the writer is a future for the caller to run, and waits for `pace` before
    /// and after every transaction. For simulations.
    #[cfg(test)]
    pub(crate) fn open_in_turns(
        identity: &Identity,
        has_run: bool,
        backend: impl StorageBackend,
        pace: impl Fn() -> futures_util::future::BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Result<(Self, futures_util::future::BoxFuture<'static, ()>), StoreError> {
        let path = PathBuf::from("raft.redb");
        let loaded = load::open(&path, identity, has_run, |builder| builder.create_with_backend(backend))?;
        let (shared, writer, ops) = Self::parts(path, loaded, None);
        Ok((Self { shared: Arc::new(shared) }, Box::pin(writer.run_in_turns(ops, pace))))
    }

    fn on_thread(
        path: PathBuf,
        loaded: (Database, InMemory),
        directory: Option<Directory>,
    ) -> Result<Self, StoreError> {
        let (mut shared, writer, ops) = Self::parts(path, loaded, directory);
        let thread = std::thread::Builder::new()
            .name("raft-writer".to_owned())
            .spawn(move || writer.run(ops))
            .map_err(|source| StoreError::Io { action: "start the writer of", path: shared.path.clone(), source })?;
        shared.thread = Some(Mutex::new(Some(thread)));
        Ok(Self { shared: Arc::new(shared) })
    }

    fn parts(
        path: PathBuf,
        (database, view): (Database, InMemory),
        directory: Option<Directory>,
    ) -> (Shared, writer::Writer, mpsc::Receiver<Op>) {
        let (queue, ops) = mpsc::channel(QUEUE_OPS_MAX);
        let (failure, _) = watch::channel(None);
        let pulse = Arc::new(Pulse::default());
        let database = Arc::new(database);
        let writer = writer::Writer::new(path.clone(), Arc::clone(&database), failure.clone(), Arc::clone(&pulse));
        let shared = Shared {
            path,
            view: RwLock::new(view),
            queue,
            saving: tokio::sync::Mutex::new(()),
            failure,
            pulse,
            database: Mutex::new(Some(database)),
            thread: None,
            directory: Mutex::new(directory),
        };
        (shared, writer, ops)
    }

    /// Does what blocks off the runtime's threads.
    pub(crate) async fn off_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        match self.shared.thread {
            Some(_) => tokio::task::spawn_blocking(work).await.map_err(io::Error::other),
            None => Ok(work()),
        }
    }

    /// The last vote on disk.
    pub fn vote(&self) -> Option<Vote> {
        self.view().vote
    }

    /// The last known commit position; may be older than what was saved before a crash.
    pub fn committed(&self) -> Option<LogId> {
        self.view().committed
    }

    /// The last entry that was purged.
    pub fn purged(&self) -> Option<LogId> {
        self.view().purged
    }

    /// The last entry, or the last purged one where the log is empty.
    pub fn last(&self) -> Option<LogId> {
        let view = self.view();
        view.log.last_key_value().map(|(_, entry)| entry.id).or(view.purged)
    }

    /// What the newest snapshot stands for.
    pub fn snapshot_meta(&self) -> Option<SnapshotMeta> {
        self.view().snapshots.last().map(|header| header.meta.clone())
    }

    /// The entries of a range that the log has, in order, as many as fit in `bytes_max` of commands, at least one.
    pub fn entries(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> Vec<Arc<Entry>> {
        if is_empty(&range) {
            return Vec::new();
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.view().log.range(range).map(|(_, entry)| entry) {
            if let record::Payload::Command(command) = &entry.payload {
                bytes += command.len();
            }
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(Arc::clone(entry));
        }
        entries
    }

    /// Appends entries: readable on return, `done` is called once they are on disk.
    ///
    /// Waits while the queue to the disk is full.
    pub async fn append(&self, entries: Vec<Entry>, done: Completion) -> Result<(), Arc<StoreError>> {
        let mut records = Vec::with_capacity(entries.len());
        for entry in &entries {
            let place = Place::Log(entry.id.index);
            records.push((entry.id.index, encode(place, entry.id.index, entry)?));
        }
        {
            let mut view = self.view_mut();
            for entry in entries {
                let last = view.log.last_key_value().map(|(index, _)| *index).or(view.purged.map(|id| id.index));
                if let Some(last) = last.filter(|last| Some(entry.id.index) != last.checked_add(1)) {
                    return Err(Arc::new(StoreError::Hole { index: entry.id.index, last }));
                }
                view.log.insert(entry.id.index, Arc::new(entry));
            }
        }
        self.send(Op::Append { records, done }).await
    }

    /// Saves the vote; on disk on return.
    pub async fn save_vote(&self, vote: Vote) -> Result<(), Arc<StoreError>> {
        let record = encode(Place::Vote, load::VOTE.into(), &vote)?;
        self.settle(|done| Op::Meta { key: load::VOTE, record, done }).await?;
        self.view_mut().vote = Some(vote);
        Ok(())
    }

    /// Notes the commit position. Written with the next transaction, never synced for itself: the engine learns it
    /// again from its peers, and a sync for each would double the cost of a write.
    pub async fn save_committed(&self, committed: Option<LogId>) -> Result<(), Arc<StoreError>> {
        let record = encode(Place::Committed, load::COMMITTED.into(), &committed)?;
        self.view_mut().committed = committed;
        self.send(Op::Committed { record }).await
    }

    /// Removes the entries from `from` on; on disk on return.
    pub async fn truncate(&self, from: u64) -> Result<(), Arc<StoreError>> {
        self.view_mut().log.split_off(&from);
        self.settle(|done| Op::Truncate { from, done }).await
    }

    /// Removes the entries through `id`, which a snapshot contains.
    pub async fn purge(&self, id: LogId) -> Result<(), Arc<StoreError>> {
        {
            let mut view = self.view_mut();
            if view.purged >= Some(id) {
                return Ok(());
            }
            view.log = match id.index.checked_add(1) {
                Some(next) => view.log.split_off(&next),
                None => BTreeMap::new(),
            };
            view.purged = Some(id);
        }
        let record = encode(Place::Purged, load::PURGED.into(), &id)?;
        self.settle(|done| Op::Purge { through: id.index, record, done }).await
    }

    /// Saves a snapshot with its content in one transaction and keeps the one before; on disk on return.
    ///
    /// Does nothing where there is a newer one: a snapshot that was built while another was received.
    pub async fn save_snapshot(&self, meta: SnapshotMeta, content: Bytes) -> Result<(), Arc<StoreError>> {
        // One at a time: the list that is written is made from the list before.
        let _saving = self.shared.saving.lock().await;
        let headers = {
            let mut view = self.view_mut();
            if view.snapshots.last().is_some_and(|newest| newest.meta.last > meta.last) {
                return Ok(());
            }
            let number = view.next_snapshot;
            view.next_snapshot += 1;
            let mut headers = view.snapshots.clone();
            headers.push(SnapshotHeader::new(number, meta, &content));
            headers.split_off(headers.len().saturating_sub(2))
        };
        let record = encode(Place::Snapshots, load::SNAPSHOTS.into(), &headers)?;
        let written = headers.clone();
        self.settle(|done| Op::Snapshot { headers: written, record, content, done }).await?;
        self.view_mut().snapshots = headers;
        Ok(())
    }

    /// The newest snapshot, verified. Reads the disk: call it off the runtime's threads.
    pub fn snapshot(&self) -> Result<Option<(SnapshotMeta, Bytes)>, Arc<StoreError>> {
        let Some(header) = self.view().snapshots.last().cloned() else { return Ok(None) };
        let database = lock(&self.shared.database).clone().ok_or_else(|| Arc::new(StoreError::Closed))?;
        let content = snapshot::read(&database, &header);
        let content = content.map_err(|problem| Arc::new(problem.at(&self.shared.path, header.number)))?;
        Ok(Some((header.meta, content)))
    }

    /// How long the write that is under way has taken; zero when the disk is idle.
    pub fn stalled(&self) -> Duration {
        self.shared.pulse.stalled()
    }

    /// How long writes took, until they were on disk.
    #[must_use]
    pub fn writes(&self) -> Latencies {
        self.shared.pulse.writes.read()
    }

    /// What the file takes on disk, in bytes; `None`: it cannot be told.
    #[must_use]
    pub fn file_bytes(&self) -> Option<u64> {
        std::fs::metadata(&self.shared.path).ok().map(|file| file.len())
    }

    /// Resolves when a write has failed, and nothing will be written any more.
    pub async fn failed(&self) -> Arc<StoreError> {
        let mut failure = self.shared.failure.subscribe();
        // The sender lives in `self.shared`, so the wait ends by a failure only.
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            _ => Arc::new(StoreError::Closed),
        }
    }

    /// Writes what is queued, closes the file and gives the directory free. Further calls fail with `Closed`.
    pub async fn close(&self) {
        // A full queue or a writer that has ended: either way the thread's end is what counts.
        let _ = self.shared.queue.send(Op::Stop).await;
        let thread = self.shared.thread.as_ref().and_then(|thread| lock(thread).take());
        if let Some(thread) = thread {
            // A panic of the thread is caught and reported inside it.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        let database = lock(&self.shared.database).take();
        let directory = lock(&self.shared.directory).take();
        let _ = self
            .off_runtime(move || {
                drop(database);
                drop(directory);
            })
            .await;
    }

    /// Queues a write and waits until it is on disk.
    async fn settle(&self, op: impl FnOnce(Completion) -> Op) -> Result<(), Arc<StoreError>> {
        let (sender, receiver) = oneshot::channel();
        let done: Completion = Box::new(move |result| {
            // A caller that went away has no use for the answer.
            let _ = sender.send(result);
        });
        self.send(op(done)).await?;
        receiver.await.unwrap_or_else(|_| Err(self.why_closed()))
    }

    async fn send(&self, op: Op) -> Result<(), Arc<StoreError>> {
        self.shared.queue.send(op).await.map_err(|_| self.why_closed())
    }

    fn why_closed(&self) -> Arc<StoreError> {
        self.shared.failure.borrow().clone().unwrap_or_else(|| Arc::new(StoreError::Closed))
    }

    fn view(&self) -> std::sync::RwLockReadGuard<'_, InMemory> {
        self.shared.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_mut(&self) -> std::sync::RwLockWriteGuard<'_, InMemory> {
        self.shared.view.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode<T: serde::Serialize>(place: Place, index: u64, value: &T) -> Result<Vec<u8>, Arc<StoreError>> {
    record::encode(index, value).map_err(|source| Arc::new(StoreError::Encode { place, source }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `BTreeMap::range` panics on such ranges.
fn is_empty(range: &impl RangeBounds<u64>) -> bool {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    match (range.start_bound(), range.end_bound()) {
        (Included(start), Included(end)) => start > end,
        (Included(start) | Excluded(start), Excluded(end)) | (Excluded(start), Included(end)) => start >= end,
        (Unbounded, _) | (_, Unbounded) => false,
    }
}
