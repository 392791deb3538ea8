//! What earlier builds have written, on disk and on the wire, is read by every later one. The files of `testdata` are never
//! written again; `RINGWAY_FIXTURES=write` makes those of a version that has none yet. Here: the first version, of rules 0.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod v2;
mod v3;
mod v4;

use ringway_control::client::cache::Cache;
use ringway_control::state::{
    Author, Backend, BackendState, Certificate, Command, Condition, Key, Object, Op, Origin, Policy, Role, State, Text,
    Txn, Vote,
};
use ringway_control::watch::view::View;
use ringway_control::watch::wire::{Heartbeat, Message, Snapshot};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn directory(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(version)
}

/// What the file holds; made first if there is none and that is asked for.
fn fixture_in(version: &str, name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = directory(version).join(name);
    if !path.exists() && std::env::var("RINGWAY_FIXTURES").is_ok_and(|value| value == "write") {
        std::fs::create_dir_all(directory(version)).unwrap();
        std::fs::write(&path, make()).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn fixture(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    fixture_in("v1", name, make)
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn by() -> Author {
    Author { at_ms: 1_795_000_000_000, author: "operator".into(), note: "why".into() }
}

fn backend() -> Backend {
    Backend {
        address: "10.0.0.1:8080".into(),
        additional_address: None,
        weight: 150,
        tier: 1,
        zone: Some("eu-1a".into()),
        state: BackendState::Maintenance,
        ejected: false,
        lease: Some(1),
        source: Some("dns".into()),
    }
}

fn txn() -> Txn {
    let text = Text { text: "services: [ { name: api } ]\n".into() };
    let pem = |what: &str| format!("-----BEGIN {what}-----\nAA==\n-----END {what}-----\n");
    let pair = Certificate { certificate: pem("CERTIFICATE"), key: pem("PRIVATE KEY") };
    Txn {
        by: by(),
        request: Some("request-1".into()),
        conditions: vec![Condition { key: key("document/main"), modified: 0 }],
        ops: vec![
            Op::Put { key: key("document/main"), object: Object::Document(text) },
            Op::Put { key: key("service/late"), object: Object::Service(Text { text: "{}".into() }) },
            Op::Put { key: key("certificate/web"), object: Object::Certificate(pair) },
            Op::Put { key: key("backend/api/a"), object: Object::Backend(backend()) },
            Op::Backend { key: key("backend/api/a"), weight: Some(50), state: Some(BackendState::Drain) },
        ],
        force: true,
    }
}

/// One of each, in the order in which they are declared.
fn commands() -> Vec<Command> {
    let vote = Vote { refusal: Some("no".into()), digest: "d".into(), moved_ppm: 7 };
    let delete = Op::Delete { key: key("service/late") };
    vec![
        Command::Init { cluster: "shop".into() },
        Command::LeaseGrant { owner: "agent".into(), ttl_ms: 30_000 },
        Command::Txn(txn()),
        Command::LockAcquire { name: "job".into(), owner: "agent".into(), lease: 1 },
        Command::LockRelease { name: "job".into(), token: 3 },
        Command::TokenPut {
            name: "ci".into(),
            role: Role::Operate,
            hash: [7; 32],
            expires_at_ms: Some(1_800_000_000_000),
        },
        Command::TokenDelete { name: "ci".into() },
        Command::RolloutStart {
            txn: Txn { request: None, conditions: Vec::new(), ops: vec![delete.clone()], ..txn() },
            policy: Policy { stages_percent: vec![1, 50], ..Policy::default() },
            participants: vec!["p1".into()],
        },
        Command::RolloutVotes { id: 4, votes: BTreeMap::from([("p1".into(), vote)]) },
        Command::RolloutAdvance { id: 4, stage: 0 },
        Command::RolloutAbort { id: 4, reason: "because".into() },
        Command::RolloutCommit { id: 4, at_ms: 1 },
        Command::Agree { at_ms: 2, verdicts: vec![(key("backend/api/a"), true)], note: "2 of 3".into() },
        Command::Checkpoint { revision: 2, digest: "x".into() },
        Command::Rollback { by: by(), to: 1 },
        Command::LeaseExpire { leader: 9, at_ms: 3, ids: vec![1] },
        Command::LeaseRevoke { by: by(), ids: vec![1] },
        Command::RestoreChunk { whole: [1; 32], number: 0, bytes: vec![1, 2, 3] },
        Command::RestoreCommit { by: by(), whole: [1; 32] },
    ]
}

/// The state after all of them, refused ones included.
fn state() -> State {
    let mut state = State::default();
    for command in commands() {
        // Some are meant to be refused: that is a part of what must stay.
        let _ = state.apply(Origin { leader: 1 }, command);
    }
    state
}

#[test]
fn the_log_of_version_1_is_read_and_means_the_same() {
    let bytes = fixture("commands", || postcard::to_allocvec(&commands()).unwrap());
    let read: Vec<Command> = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(read, commands());
    let mut replayed = State::default();
    for command in read {
        let _ = replayed.apply(Origin { leader: 1 }, command);
    }
    let kept = State::decode(&fixture("state", || state().encode().unwrap())).unwrap();
    assert_eq!(replayed.objects, kept.objects);
    assert_eq!((replayed.revision, replayed.digest, replayed.next_id), (kept.revision, kept.digest, kept.next_id));
    assert_eq!(replayed.history, kept.history);
    assert_eq!(replayed.rollouts, kept.rollouts);
    assert!(kept.revision >= 3 && kept.objects.size() >= 3, "there is something in it");
}

#[test]
fn the_topology_that_version_1_stored_is_read() {
    let file = fixture("topology.a", || {
        let directory = tempfile::tempdir().unwrap();
        let view = View::from_snapshot(Snapshot::of(&state()), None).unwrap();
        Cache::open(directory.path()).unwrap().store(&view).unwrap();
        std::fs::read(directory.path().join("topology.a")).unwrap()
    });
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("topology.a"), file).unwrap();
    let view = Cache::open(directory.path()).unwrap().load().unwrap();
    assert_eq!(view.cluster, "shop");
    // That build did not say when a revision was made.
    let expected = Snapshot { rollout: None, at_ms: None, ..Snapshot::of(&state()) };
    assert_eq!(view, View::from_snapshot(expected, None).unwrap());
}

#[test]
fn what_version_1_says_on_the_wire_is_understood() {
    let heartbeat = || Heartbeat {
        version: "0.1.0".into(),
        epoch: 1,
        revision: 2,
        digest: "d".into(),
        rings: BTreeMap::from([("api".into(), "r".into())]),
        stuck: Some("bind".into()),
        generation: 3,
        vote: Some((4, Vote { refusal: None, digest: "d".into(), moved_ppm: 1 })),
        down: vec![key("backend/api/a")],
        requests: 5,
        failed: 6,
        canary: Some(4),
        instance: 0,
        cluster: String::new(),
    };
    let bytes = fixture("heartbeat.json", || serde_json::to_vec(&heartbeat()).unwrap());
    assert_eq!(serde_json::from_slice::<Heartbeat>(&bytes).unwrap(), heartbeat());
    let line = fixture("snapshot.json", || serde_json::to_vec(&Message::Snapshot(Snapshot::of(&state()))).unwrap());
    let Message::Snapshot(snapshot) = serde_json::from_slice(&line).unwrap() else { panic!("another message") };
    assert_eq!(snapshot, Snapshot { at_ms: None, ..Snapshot::of(&state()) });
}
