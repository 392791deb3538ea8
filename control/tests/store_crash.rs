//! What a disk may do to the log: lose power at any write, run full, fail, flip bits. Nothing that was acknowledged may
//! be missing afterwards, and nothing may be served that was not written.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails, and says where it was")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use crate::disk::{Disk, Fault, Random};
use bytes::Bytes;
use ringway_control::store::record::{Entry, Identity, LogId, Membership, Payload, SnapshotMeta, Vote};
use ringway_control::store::{Place, Store, StoreError};

/// No wait of these tests takes this long on any machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn identity() -> Identity {
    Identity { cluster: "crash".to_owned(), node: 7 }
}

fn id(index: u64) -> LogId {
    LogId { term: 1 + index / 50, leader: 7, index }
}

/// Entries whose content tells their index and generation: one that was cut off and written again differs.
fn entry(index: u64, generation: u64) -> Entry {
    let mut text = format!("entry {index} generation {generation} ").into_bytes();
    text.resize(40 + (index as usize * 37) % 700, b'.');
    Entry { id: id(index), payload: Payload::Command(Bytes::from(text)) }
}

fn meta(last: u64) -> SnapshotMeta {
    SnapshotMeta { last: Some(id(last)), membership_at: None, membership: Membership::default() }
}

fn content(last: u64) -> Bytes {
    Bytes::from(vec![last as u8; 1000 + (last as usize * 8191) % 600_000])
}

/// What a caller knows to be on disk, and what may be.
#[derive(Clone, Default)]
struct Model {
    /// From `first` on.
    log: Vec<Entry>,
    first: u64,
    vote: Option<Vote>,
    snapshot: Option<u64>,
}

impl Model {
    fn next(&self) -> u64 {
        self.first + self.log.len() as u64
    }
}

/// Does something random to the store; `Some` with what is true once it is on disk.
async fn step(store: &Store, model: &Model, random: &mut Random, generation: &mut u64) -> Option<Model> {
    let mut after = model.clone();
    let result = match random.below(12) {
        0..6 => {
            *generation += 1;
            let count = 1 + random.below(8);
            let entries: Vec<Entry> = (0..count).map(|i| entry(model.next() + i, *generation)).collect();
            after.log.extend(entries.iter().cloned());
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let appended = store.append(entries, Box::new(move |result| drop(sender.send(result)))).await;
            match appended {
                Ok(()) => receiver.await.unwrap(),
                Err(error) => Err(error),
            }
        }
        6 | 7 => {
            let vote =
                Vote { term: 1 + random.below(1_000_000), leader: random.below(5), committed: random.below(2) == 0 };
            after.vote = Some(vote);
            store.save_vote(vote).await
        }
        8 => {
            let keep = random.below(after.log.len() as u64 + 1);
            after.log.truncate(keep as usize);
            store.truncate(model.first + keep).await
        }
        9 => store.save_committed(Some(id(model.next()))).await,
        10 if !model.log.is_empty() && model.snapshot.is_none_or(|last| last < model.next() - 1) => {
            let last = model.next() - 1;
            after.snapshot = Some(last);
            store.save_snapshot(meta(last), content(last)).await
        }
        11 if model.snapshot.is_some_and(|last| last >= model.first && last < model.next()) => {
            let last = model.snapshot.unwrap();
            after.log.drain(..=(last - model.first) as usize);
            after.first = last + 1;
            store.purge(id(last)).await
        }
        _ => Ok(()),
    };
    result.ok().map(|()| after)
}

fn equals(store: &Store, model: &Model) -> Result<(), String> {
    let log: Vec<Entry> = store.entries(.., usize::MAX).iter().map(|entry| Entry::clone(entry)).collect();
    if log != model.log {
        let ids = |log: &[Entry]| log.iter().map(|entry| entry.id.index).collect::<Vec<_>>();
        return Err(format!("log {:?}, expected {:?}", ids(&log), ids(&model.log)));
    }
    if store.vote() != model.vote {
        return Err(format!("vote {:?}, expected {:?}", store.vote(), model.vote));
    }
    let snapshot = store.snapshot().map_err(|error| error.to_string())?;
    let expected = model.snapshot.map(|last| (meta(last), content(last)));
    if snapshot != expected {
        return Err(format!("snapshot {:?}, expected {:?}", snapshot.map(|(meta, _)| meta), model.snapshot));
    }
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs `test` for every seed; `RINGWAY_SEED` replays one, `RINGWAY_TRIALS` asks for more than `count`.
fn seeds(count: u64, test: impl Fn(u64)) {
    let count = std::env::var("RINGWAY_TRIALS").map_or(count, |count| count.parse().unwrap());
    if let Ok(seed) = std::env::var("RINGWAY_SEED") {
        return test(seed.parse().unwrap());
    }
    for seed in 0..count {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            println!("seed {seed}: replay with RINGWAY_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Steps until the disk fails, then loses power: what un-synced sectors hold is decided by the seed. The store must
/// open again and hold what was acknowledged; of the one step that was under way, all or nothing.
#[test]
fn power_loss_never_loses_what_was_acknowledged() {
    seeds(80, |seed| {
        runtime().block_on(async {
            let mut random = Random::new(seed);
            let disk = Disk::new(seed);
            let mut model = Model::default();
            let mut generation = 0;
            // More than one life: a recovered file has to be as good as a new one.
            for life in 0..3 {
                let store = Store::open_on(&identity(), life > 0, disk.clone()).unwrap();
                equals(&store, &model).unwrap_or_else(|what| panic!("life {life}: {what}"));
                disk.fail_after(5 + random.below(150), Fault::PowerLoss);
                let mut under_way = model.clone();
                while let Some(after) = {
                    // The same draw twice: what the step would have done, should it fail.
                    let mut probe = (random.clone(), generation);
                    let after = step(&store, &model, &mut random, &mut generation).await;
                    if after.is_none() {
                        let healthy = Store::open_on(&identity(), false, Disk::new(0)).unwrap();
                        copy(&healthy, &model).await;
                        under_way = step(&healthy, &model, &mut probe.0, &mut probe.1).await.unwrap();
                        healthy.close().await;
                    }
                    after
                } {
                    model = after;
                }
                let failure = tokio::time::timeout(DEADLINE, store.failed()).await.unwrap();
                assert!(matches!(*failure, StoreError::Write { .. }), "{failure}");
                store.close().await;
                disk.lose_power();
                let store = Store::open_on(&identity(), true, disk.clone());
                let store = store.unwrap_or_else(|error| panic!("life {life}: {error}"));
                if let Err(before) = equals(&store, &model) {
                    equals(&store, &under_way).unwrap_or_else(|after| panic!("life {life}: {before}; or {after}"));
                    model = under_way;
                }
                store.close().await;
            }
        });
    });
}

/// Brings a new store to a model's state.
async fn copy(store: &Store, model: &Model) {
    let purged = model.first.checked_sub(1);
    if let Some(last) = model.snapshot {
        store.save_snapshot(meta(last), content(last)).await.unwrap();
    }
    if let Some(purged) = purged {
        store.purge(id(purged)).await.unwrap();
    }
    store.append(model.log.clone(), Box::new(|_| ())).await.unwrap();
    if let Some(vote) = model.vote {
        store.save_vote(vote).await.unwrap();
    }
}

/// A full disk and a failing one stop the store; it says why, takes nothing more, and has lost nothing.
#[test]
fn a_full_or_failing_disk_stops_the_store_and_loses_nothing() {
    for fault in [Fault::Full, Fault::Broken] {
        seeds(30, |seed| {
            runtime().block_on(async {
                let mut random = Random::new(seed);
                let disk = Disk::new(seed);
                let store = Store::open_on(&identity(), false, disk.clone()).unwrap();
                disk.fail_after(random.below(80), fault);
                let (sender, acknowledged) = mpsc::channel();
                let mut next = 0;
                let failure = loop {
                    let entries: Vec<Entry> = (next..next + 3).map(|index| entry(index, 0)).collect();
                    next += 3;
                    let sender = sender.clone();
                    let done = Box::new(move |result: Result<(), Arc<StoreError>>| {
                        drop(sender.send(result.map(|()| next)));
                    });
                    if let Err(error) = store.append(entries, done).await {
                        break error;
                    }
                    tokio::task::yield_now().await;
                };
                assert!(matches!(*failure, StoreError::Write { .. }), "{failure}");
                assert!(store.save_vote(Vote { term: 1, leader: 1, committed: false }).await.is_err());
                store.close().await;
                drop(sender);
                let results: Vec<_> = acknowledged.into_iter().collect();
                let good = results.iter().take_while(|result| result.is_ok()).count();
                assert!(results[good..].iter().all(Result::is_err), "an append after a failed one was acknowledged");
                let acknowledged = results[..good].last().map_or(0, |last| *last.as_ref().unwrap());
                disk.repair();
                let store = Store::open_on(&identity(), true, disk.clone()).unwrap();
                let log = store.entries(.., usize::MAX);
                assert!(log.len() as u64 >= acknowledged, "{} entries of {acknowledged} acknowledged", log.len());
                for (index, found) in (0..).zip(&log) {
                    assert_eq!(**found, entry(index, 0));
                }
                store.close().await;
            });
        });
    }
}

/// Every sampled bit of a file that was closed in order: the store refuses to open, or what it serves is unharmed.
#[test]
fn a_flipped_bit_is_found_or_harmless() {
    let disk = Disk::new(1);
    let mut model = Model { vote: Some(Vote { term: 9, leader: 3, committed: true }), ..Model::default() };
    runtime().block_on(async {
        let store = Store::open_on(&identity(), false, disk.clone()).unwrap();
        model.log = (0..150).map(|index| entry(index, 0)).collect();
        for entries in model.log.chunks(10) {
            store.append(entries.to_vec(), Box::new(|_| ())).await.unwrap();
            store.save_vote(model.vote.unwrap()).await.unwrap();
        }
        store.save_snapshot(meta(120), content(1)).await.unwrap();
        model.snapshot = Some(120);
        store.purge(id(99)).await.unwrap();
        model.log.drain(..100);
        model.first = 100;
        store.close().await;
    });
    let image = disk.image();
    let (mut refused, mut harmless) = (0, 0);
    // The panics that the store catches would fill the log.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let seed_of = |trial: u64| Random::new(trial).below(image.len() as u64 * 8);
        let header = (0..320 * 8).step_by(3);
        let bits: Vec<u64> = header.chain((0..1500).map(seed_of)).collect();
        for bit in bits {
            let mut bytes = image.clone();
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            let opened = Store::open_on(&identity(), true, Disk::of(bytes));
            match opened {
                Err(StoreError::Corrupt { .. } | StoreError::Missing { .. }) => refused += 1,
                Err(error) => panic!("bit {bit}: {error}"),
                Ok(store) => {
                    let model = Model { snapshot: None, ..model.clone() };
                    let found = equals_log(&store, &model);
                    found.unwrap_or_else(|what| panic!("bit {bit} was served: {what}"));
                    let snapshot = store.snapshot().unwrap();
                    assert_eq!(snapshot, Some((meta(120), content(1))), "bit {bit} was served in a snapshot");
                    runtime().block_on(store.close());
                    harmless += 1;
                }
            }
        }
    }));
    std::panic::set_hook(hook);
    println!("bit flips: {refused} refused, {harmless} harmless");
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    assert!(refused > 100 && harmless > 100, "{refused} refused, {harmless} harmless");
}

fn equals_log(store: &Store, model: &Model) -> Result<(), String> {
    let log: Vec<Entry> = store.entries(.., usize::MAX).iter().map(|entry| Entry::clone(entry)).collect();
    if log != model.log || store.vote() != model.vote {
        return Err(format!("{} entries, vote {:?}", log.len(), store.vote()));
    }
    Ok(())
}

/// A file that has shrunk, or whose beginning is another's, is refused without a panic.
#[test]
fn a_cut_file_is_refused() {
    let disk = Disk::new(1);
    runtime().block_on(async {
        let store = Store::open_on(&identity(), false, disk.clone()).unwrap();
        let entries = (0..50).map(|index| entry(index, 0)).collect();
        store.append(entries, Box::new(|_| ())).await.unwrap();
        store.close().await;
    });
    let image = disk.image();
    for length in [0, 1, 100, 4096, image.len() / 2, image.len() - 1] {
        let opened = Store::open_on(&identity(), true, Disk::of(image[..length].to_vec()));
        match opened {
            Err(StoreError::Corrupt { .. } | StoreError::Missing { .. }) => {}
            other => panic!("{length} bytes: {other:?}"),
        }
    }
    let garbage = Store::open_on(&identity(), true, Disk::of(vec![0xa5; image.len()]));
    assert!(matches!(garbage, Err(StoreError::Corrupt { place: Place::File, .. })), "{garbage:?}");
}
