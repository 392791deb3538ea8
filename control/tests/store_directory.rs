//! Whose directory it is, and what a bad record says.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails, and says where it was")]

use std::path::Path;

use bytes::Bytes;
use redb::{Database, ReadableTable as _, TableDefinition};
use ringway_control::store::record::{self, Entry, FORMAT, Identity, LogId, Membership, Payload, SnapshotMeta};
use ringway_control::store::{Place, Store, StoreError};

type Log<'a> = redb::Table<'a, u64, &'static [u8]>;
type Damage = fn(&mut Log<'_>);

const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");

fn identity(cluster: &str, node: u64) -> Identity {
    Identity { cluster: cluster.to_owned(), node }
}

fn entry(index: u64) -> Entry {
    let id = LogId { term: 1, leader: 1, index };
    Entry { id, payload: Payload::Command(Bytes::from(format!("command {index}"))) }
}

/// A closed store with ten entries.
async fn filled(directory: &Path) {
    let store = Store::open(directory, &identity("blue", 1)).unwrap();
    store.append((0..10).map(entry).collect(), Box::new(|result| result.unwrap())).await.unwrap();
    store.close().await;
}

/// Changes the log behind the store's back.
fn tamper(directory: &Path, change: impl FnOnce(&mut Log<'_>)) {
    let database = Database::open(directory.join("raft.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&mut transaction.open_table(LOG).unwrap());
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_second_process_is_refused_and_the_next_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let first = Store::open(directory.path(), &identity("blue", 1)).unwrap();
    let second = Store::open(directory.path(), &identity("blue", 1));
    assert!(matches!(second, Err(StoreError::Locked { .. })), "{second:?}");
    first.close().await;
    Store::open(directory.path(), &identity("blue", 1)).unwrap().close().await;
}

#[tokio::test]
async fn another_clusters_or_members_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    for stranger in [identity("green", 1), identity("blue", 2)] {
        let opened = Store::open(directory.path(), &stranger);
        assert!(matches!(opened, Err(StoreError::OtherMember { .. })), "{opened:?}");
        // Nor does it help to take the file along: it knows whose it is.
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::copy(directory.path().join("raft.redb"), elsewhere.path().join("raft.redb")).unwrap();
        let opened = Store::open(elsewhere.path(), &stranger);
        assert!(matches!(opened, Err(StoreError::OtherMember { .. })), "{opened:?}");
    }
    let node: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("node.json")).unwrap()).unwrap();
    assert_eq!(node, serde_json::json!({"cluster": "blue", "node": 1, "format": 1}));
}

#[tokio::test]
async fn a_member_whose_log_is_gone_does_not_start_with_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let file = directory.path().join("raft.redb");
    std::fs::remove_file(&file).unwrap();
    let opened = Store::open(directory.path(), &identity("blue", 1));
    assert!(matches!(opened, Err(StoreError::Missing { .. })), "{opened:?}");
    std::fs::write(&file, b"").unwrap();
    let opened = Store::open(directory.path(), &identity("blue", 1));
    assert!(matches!(opened, Err(StoreError::Missing { .. })), "{opened:?}");
}

#[tokio::test]
async fn a_bad_record_is_named_with_its_file_and_the_cure() {
    let damages: [(&str, Damage); 4] = [
        ("log record 4: the checksum does not match", |log| {
            let mut bytes = record::encode(4, &entry(4)).unwrap();
            bytes[20] ^= 1;
            log.insert(4, bytes.as_slice()).unwrap();
        }),
        ("log record 4: the record belongs to index 5", |log| {
            log.insert(4, record::encode(5, &entry(5)).unwrap().as_slice()).unwrap();
        }),
        ("log record 4: is missing", |log| {
            log.remove(4).unwrap();
        }),
        ("log record 9: 3 bytes are too few", |log| {
            log.insert(9, [1, 2, 3].as_slice()).unwrap();
        }),
    ];
    for (expected, damage) in damages {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path()).await;
        tamper(directory.path(), damage);
        let error = Store::open(directory.path(), &identity("blue", 1)).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::Corrupt { place: Place::Log(4 | 9), .. }), "{error:?}");
        for part in [expected, "raft.redb", "wipe the directory and rejoin as a learner"] {
            assert!(text.contains(part), "{text:?} does not say {part:?}");
        }
        // Still refused the next time: nothing was repaired by leaving it out.
        assert_eq!(Store::open(directory.path(), &identity("blue", 1)).unwrap_err().to_string(), text);
    }
}

#[tokio::test]
async fn a_log_from_the_future_is_not_called_damaged() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    tamper(directory.path(), |log| {
        let mut bytes = record::encode(9, &entry(9)).unwrap();
        bytes[4] = FORMAT + 1;
        let crc = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        log.insert(9, bytes.as_slice()).unwrap();
    });
    let error = Store::open(directory.path(), &identity("blue", 1)).unwrap_err();
    assert!(matches!(error, StoreError::Future { place: Place::Log(9), found: 2, .. }), "{error:?}");
    assert!(error.to_string().contains("run the newer build"), "{error}");
}

#[tokio::test]
async fn entries_with_a_hole_between_them_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), &identity("blue", 1)).unwrap();
    store.append(vec![entry(0), entry(1)], Box::new(|_| ())).await.unwrap();
    let hole = store.append(vec![entry(3)], Box::new(|_| ())).await.unwrap_err();
    assert!(matches!(*hole, StoreError::Hole { index: 3, last: 1 }), "{hole}");
    store.close().await;
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), &identity("blue", 1)).unwrap();
    store.close().await;
    let error = store.append(vec![entry(0)], Box::new(|_| ())).await.unwrap_err();
    assert!(matches!(*error, StoreError::Closed), "{error}");
    assert!(store.snapshot().unwrap().is_none());
}

fn meta(last: u64) -> SnapshotMeta {
    SnapshotMeta { last: Some(entry(last).id), membership_at: None, membership: Membership::default() }
}

/// Flips a byte in the newest snapshot's last chunk.
fn harm_newest_snapshot(directory: &Path) {
    const SNAPSHOT: TableDefinition<'static, (u64, u32), &[u8]> = TableDefinition::new("snapshot");
    let database = Database::open(directory.join("raft.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(SNAPSHOT).unwrap();
        let (key, mut bytes) = {
            let (key, bytes) = table.last().unwrap().unwrap();
            (key.value(), bytes.value().to_vec())
        };
        *bytes.last_mut().unwrap() ^= 1;
        table.insert(key, bytes.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn the_snapshot_before_serves_where_the_log_reaches_back_to_it() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let open = || Store::open(directory.path(), &identity("blue", 1));
    let store = open().unwrap();
    let content = |byte: u8| Bytes::from(vec![byte; 600_000]);
    store.save_snapshot(meta(3), content(3)).await.unwrap();
    store.save_snapshot(meta(6), content(6)).await.unwrap();
    // One that was built while a newer one came in changes nothing.
    store.save_snapshot(meta(5), content(5)).await.unwrap();
    assert_eq!(store.snapshot().unwrap(), Some((meta(6), content(6))));
    store.close().await;
    harm_newest_snapshot(directory.path());
    let store = open().unwrap();
    assert_eq!(store.snapshot().unwrap(), Some((meta(3), content(3))));
    // The next one takes the place of the bad one.
    store.save_snapshot(meta(8), content(8)).await.unwrap();
    store.purge(entry(5).id).await.unwrap();
    store.close().await;
    let store = open().unwrap();
    assert_eq!(store.snapshot().unwrap(), Some((meta(8), content(8))));
    assert_eq!((store.purged(), store.last()), (Some(entry(5).id), Some(entry(9).id)));
    store.close().await;
    harm_newest_snapshot(directory.path());
    // Now entries 4 and 5 would be missing.
    let error = open().unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { place: Place::Snapshot(2), .. }), "{error:?}");
}
