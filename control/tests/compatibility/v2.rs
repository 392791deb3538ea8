//! What builds of rules 1 have written: commands and what came of them, the state as a snapshot and as a backup, records of the
//! log, a member's directory, lines to proxies. `testdata/v2` is only ever added to.
//!
//! The lists of names below are exhaustive: a variant that is new does not compile until it is in one, and the test fails
//! until there is a line of it in the fixture.

use super::{by, fixture_in, key, txn};
use ringway_control::loads::{Confirmed, Position, TableLine, TablesLine};
use ringway_control::state::{
    Answer, Author, Backend, BackendState, Basis, Command, Object, Op, Origin, Phase, Policy, Role, State, Txn, Vote,
};
use ringway_control::store::Store;
use ringway_control::store::record::{self, Entry, Identity, LogId, MemberInfo, Membership, Payload, SnapshotMeta};
use ringway_control::watch::wire::{Delta, Message, Ping, Replaced, RolloutView, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The name of each variant of an enum.
macro_rules! names {
    ($all:ident, $name:ident of $kind:ident: $($variant:ident)+) => {
        const $all: &[&str] = &[$(stringify!($variant)),+];
        fn $name(value: &$kind) -> &'static str {
            match value {
                $($kind::$variant { .. } => stringify!($variant),)+
            }
        }
    };
}

names! { COMMANDS, command_name of Command:
    Init Txn Rollback LeaseGrant LeaseRevoke LeaseExpire LockAcquire LockRelease TokenPut TokenDelete RolloutStart RolloutVotes
    RolloutAdvance RolloutCommit RolloutAbort RestoreChunk RestoreCommit Checkpoint Agree Found Rules Judged LeaseLives
    RaiseEpoch RestoreAs
}
names! { OPS, op_name of Op: Put Delete Backend }
names! { OBJECTS, object_name of Object: Document Service Certificate Backend }
names! { PHASES, phase_name of Phase: Preparing Stage Committed Aborted }
names! { BACKEND_STATES, backend_state_name of BackendState: Ready Drain Maintenance }
names! { ROLES, role_name of Role: Read Register Operate Admin }
names! { PAYLOADS, payload_name of Payload: Blank Command Membership }
names! { MESSAGES, message_name of Message: Snapshot Delta Rollout Ping Loads LoadsConfirmed }

fn complete<'a>(all: &[&str], seen: impl IntoIterator<Item = &'a str>) {
    let seen: BTreeSet<&str> = seen.into_iter().collect();
    let missing: Vec<&&str> = all.iter().filter(|name| !seen.contains(**name)).collect();
    assert!(missing.is_empty(), "the fixture has none of {missing:?}");
}

const EPOCH: u64 = 1_795_000_000;
/// Whose entries they are.
pub(super) const LEADER: u64 = 7;

/// A cluster's life: every command, those that are refused among them.
#[derive(Default)]
pub(super) struct Life {
    pub(super) state: State,
    pub(super) told: Vec<(Command, Answer)>,
}

impl Life {
    pub(super) fn tell(&mut self, command: Command) -> u64 {
        let answer = self.state.apply(Origin { leader: LEADER }, command.clone());
        let id = answer.as_ref().map_or(0, |done| done.id);
        self.told.push((command, answer));
        id
    }

    pub(super) fn judged(&mut self, command: Command) -> u64 {
        let basis =
            Basis { epoch: self.state.epoch, configured: Some(self.state.configured), lost: Some(self.state.lost) };
        self.tell(Command::Judged { basis, command: Box::new(command) })
    }

    pub(super) fn lived() -> Self {
        let mut life = Self::default();
        life.founded();
        life.restored();
        life.changed();
        life.rolled_out();
        life.left();
        life
    }

    fn founded(&mut self) {
        self.tell(Command::Found { cluster: "shop".into(), epoch: EPOCH, rules: 1 });
        self.tell(Command::Init { cluster: "other".into() });
        self.tell(Command::Rules { version: 1 });
        self.tell(Command::Txn(txn()));
        self.tell(Command::Rollback { by: by(), to: 0 });
        self.tell(Command::RolloutStart { txn: txn(), policy: Policy::default(), participants: Vec::new() });
    }

    fn restored(&mut self) {
        let backup = include_bytes!("../../testdata/v1/state").to_vec();
        let whole = *blake3::hash(&backup).as_bytes();
        self.tell(Command::RestoreCommit { by: by(), whole });
        let (first, second) = backup.split_at(500);
        self.tell(Command::RestoreChunk { whole, number: 0, bytes: first.to_vec() });
        self.tell(Command::RestoreChunk { whole, number: 2, bytes: second.to_vec() });
        self.tell(Command::RestoreChunk { whole, number: 1, bytes: second.to_vec() });
        self.tell(Command::RestoreAs { by: by(), whole, epoch: EPOCH + 5, other_cluster: false });
        // What a build of rules 0 would say.
        self.tell(Command::RestoreChunk { whole, number: 0, bytes: backup });
        self.tell(Command::RestoreCommit { by: by(), whole });
        let seen = (self.state.epoch + 7, 3);
        self.tell(Command::RaiseEpoch { seen, to: seen.0 + 1 });
        self.tell(Command::RaiseEpoch { seen, to: seen.0 + 1 });
        // A part of one that never comes to an end.
        self.tell(Command::RestoreChunk { whole: [7; 32], number: 0, bytes: vec![1, 2, 3] });
    }

    fn changed(&mut self) {
        let lease = self.tell(Command::LeaseGrant { owner: "agent (ci)".into(), ttl_ms: 86_400_000 });
        let short = self.tell(Command::LeaseGrant { owner: "short".into(), ttl_ms: 30_000 });
        let silent = self.tell(Command::LeaseGrant { owner: "silent".into(), ttl_ms: 30_000 });
        let lock = self.tell(Command::LockAcquire { name: "job".into(), owner: "agent".into(), lease });
        self.tell(Command::LockRelease { name: "job".into(), token: lock - 1 });
        self.tell(Command::LockAcquire { name: "short".into(), owner: "agent".into(), lease: short });
        for (name, role) in [("r", Role::Read), ("g", Role::Register), ("o", Role::Operate), ("a", Role::Admin)] {
            self.tell(Command::TokenPut { name: name.into(), role, hash: [9; 32], expires_at_ms: None });
        }
        self.tell(Command::TokenDelete { name: "r".into() });
        let backend = |host: u8, lease, state| Backend {
            address: format!("10.0.0.{host}:80"),
            additional_address: None,
            weight: 100,
            tier: 0,
            zone: None,
            state,
            ejected: false,
            lease,
            source: None,
        };
        let put = |name: &str, backend| Op::Put { key: key(name), object: Object::Backend(backend) };
        let mut more = txn();
        more.request = Some("request-2".into());
        more.conditions.clear();
        more.ops.retain(|op| *op.key() != key("backend/api/a"));
        more.ops.extend([
            put("backend/api/a", backend(1, Some(lease), BackendState::Ready)),
            put("backend/api/b", backend(2, None, BackendState::Ready)),
            put("backend/api/c", backend(3, Some(silent), BackendState::Maintenance)),
            Op::Backend { key: key("backend/api/b"), weight: Some(50), state: Some(BackendState::Drain) },
        ]);
        self.judged(Command::Txn(more.clone()));
        self.judged(Command::Txn(more));
        let stale = Basis { epoch: 1, configured: None, lost: None };
        self.tell(Command::Judged { basis: stale, command: Box::new(Command::Txn(Self::of(Vec::new()))) });
        let verdicts = vec![(key("backend/api/a"), true), (key("backend/api/none"), true)];
        self.tell(Command::Agree { at_ms: 2, verdicts, note: "2 of 3".into() });
        self.tell(Command::LeaseLives { leader: LEADER, lives: vec![(lease, 10_000), (short, 30_000), (77, 1)] });
        self.tell(Command::LeaseLives { leader: 2, lives: vec![(lease, 1)] });
        self.tell(Command::LeaseExpire { leader: 2, at_ms: 3, ids: vec![silent] });
        self.tell(Command::LeaseExpire { leader: LEADER, at_ms: 3, ids: vec![silent] });
        self.tell(Command::LeaseRevoke { by: by(), ids: vec![short, 78] });
    }

    pub(super) fn of(ops: Vec<Op>) -> Txn {
        Txn { by: Author::default(), request: None, conditions: Vec::new(), ops, force: true }
    }

    fn rolled_out(&mut self) {
        let object = Object::Service(ringway_control::state::Text { text: "{ name: late }".into() });
        let start = |name: &str, stages_percent: Vec<u8>| Command::RolloutStart {
            txn: Self::of(vec![Op::Put { key: key(name), object: object.clone() }]),
            policy: Policy { stages_percent, ..Policy::default() },
            participants: vec!["p1".into(), "p2".into()],
        };
        let vote =
            |refusal: Option<&str>| Vote { refusal: refusal.map(str::to_owned), digest: "d".into(), moved_ppm: 7 };
        let id = self.judged(start("service/x", vec![1, 50]));
        self.judged(start("service/y", Vec::new()));
        let votes = BTreeMap::from([("p1".into(), vote(None)), ("p9".into(), vote(None))]);
        self.tell(Command::RolloutVotes { id, votes });
        self.tell(Command::RolloutAdvance { id, stage: 0 });
        self.tell(Command::RolloutAdvance { id, stage: 2 });
        self.tell(Command::RolloutCommit { id, at_ms: 4 });
        let id = self.judged(start("service/y", Vec::new()));
        let votes = BTreeMap::from([("p2".into(), vote(Some("it does not bind")))]);
        self.tell(Command::RolloutVotes { id, votes });
        self.tell(Command::RolloutAbort { id, reason: "p2: it does not bind".into() });
        self.judged(Command::Rollback { by: by(), to: self.state.revision - 1 });
        self.judged(Command::LeaseGrant { owner: "nothing to be judged".into(), ttl_ms: 1000 });
        let kept = Op::Put { key: key("service/kept"), object };
        self.judged(Command::Txn(Self::of(vec![Op::Delete { key: key("service/late") }, kept])));
    }

    fn left(&mut self) {
        let digest = self.state.digest.to_string();
        self.tell(Command::Checkpoint { revision: self.state.revision, digest });
        // One that is under way.
        let object = Object::Document(ringway_control::state::Text { text: "services: []\n".into() });
        let txn = Self::of(vec![Op::Put { key: key("document/draft"), object }]);
        let policy = Policy { stages_percent: vec![10], ..Policy::default() };
        let id = self.judged(Command::RolloutStart { txn, policy, participants: vec!["p1".into()] });
        self.tell(Command::RolloutAdvance { id, stage: 0 });
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn fixture(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    fixture_in("v2", name, make)
}

/// Lines of words.
fn lines(name: &str, make: impl FnOnce() -> Vec<String>) -> Vec<Vec<String>> {
    lines_in("v2", name, make)
}

fn lines_in(version: &str, name: &str, make: impl FnOnce() -> Vec<String>) -> Vec<Vec<String>> {
    let text = fixture_in(version, name, || make().join("\n").into_bytes());
    let words = |line: &str| line.splitn(3, ' ').map(str::to_owned).collect();
    String::from_utf8(text).unwrap().lines().map(words).collect()
}

fn said(answer: &Answer) -> String {
    match answer {
        Ok(done) => format!("revision {} id {} changed {}", done.revision, done.id, done.changed),
        Err(refusal) => format!("refused {}", refusal.code),
    }
}

/// Commands are read, written and answered as the fixture of a version has it.
pub(super) fn as_they_were(version: &str, told: &[(Command, Answer)]) {
    let line = |(command, answer): &(Command, Answer)| {
        format!("{} {} {}", command_name(command), hex(&postcard::to_allocvec(command).unwrap()), said(answer))
    };
    let kept = lines_in(version, "commands", || told.iter().map(line).collect());
    assert_eq!(kept.len(), told.len());
    let mut state = State::default();
    for (kept, (command, answer)) in kept.iter().zip(told) {
        let bytes = unhex(&kept[1]);
        let read: Command = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(&read, command);
        assert_eq!(postcard::to_allocvec(&read).unwrap(), bytes, "{}", kept[0]);
        assert_eq!(kept[0], command_name(command));
        let again = state.apply(Origin { leader: LEADER }, read);
        assert_eq!((said(&again), said(answer)), (kept[2].clone(), kept[2].clone()), "{}", kept[0]);
    }
}

#[test]
fn every_command_of_rules_1_is_read_written_and_answered_as_it_was() {
    let life = Life::lived();
    as_they_were("v2", &life.told);
    complete(COMMANDS, life.told.iter().map(|(command, _)| command_name(command)));
    let txns = || {
        life.told.iter().filter_map(|(command, _)| match command {
            Command::Judged { command, .. } => match &**command {
                Command::Txn(txn) | Command::RolloutStart { txn, .. } => Some(txn),
                _ => None,
            },
            _ => None,
        })
    };
    complete(OPS, txns().flat_map(|txn| txn.ops.iter().map(op_name)));
    let roles = life.told.iter().filter_map(|(command, _)| match command {
        Command::TokenPut { role, .. } => Some(role_name(role)),
        _ => None,
    });
    complete(ROLES, roles);
}

#[test]
fn a_snapshot_of_format_2_is_read_and_written_as_it_was() {
    let life = Life::lived();
    let bytes = fixture("state", || life.state.encode().unwrap());
    assert_eq!(bytes[0], 2);
    let kept = State::decode(&bytes).unwrap();
    assert!(kept == life.state, "the commands make another state than they did");
    // Of the maps' order no more is fixed than that of their keys.
    assert_eq!(kept.encode().unwrap(), bytes);
    complete(OBJECTS, kept.objects.values().map(|entry| object_name(&entry.object)));
    complete(PHASES, life.phases().iter().map(phase_name));
    let states = kept.history.values().flat_map(|revision| &revision.changes).filter_map(|change| {
        match change.after.as_deref()? {
            Object::Backend(backend) => Some(backend_state_name(&backend.state)),
            _ => None,
        }
    });
    complete(BACKEND_STATES, states);
    for (what, size) in [("leases", kept.leases.size()), ("locks", kept.locks.size()), ("lives", kept.lives.size())] {
        assert!(size > 0, "there are {what} in it");
    }
    assert!(kept.rollout().is_some() && kept.rules == 1);
}

impl Life {
    /// In which any rollout ever was.
    fn phases(&self) -> Vec<Phase> {
        let mut phases = vec![Phase::Preparing];
        let mut state = State::default();
        for (command, _) in &self.told {
            let _ = state.apply(Origin { leader: LEADER }, command.clone());
            phases.extend(state.rollouts.values().map(|rollout| rollout.phase.clone()));
        }
        phases
    }
}

/// Where the snapshot of the directory stands in its log.
const SNAPSHOT_AT: u64 = 20;

fn identity() -> Identity {
    Identity { cluster: "shop".into(), node: LEADER }
}

fn log_id(index: u64) -> LogId {
    LogId { term: if index == 0 { 0 } else { 3 }, leader: if index == 0 { 0 } else { LEADER }, index }
}

fn membership() -> Membership {
    let info =
        MemberInfo { name: "m1".into(), peer_address: "127.0.0.1:9701".into(), api_address: "127.0.0.1:9700".into() };
    Membership { configs: vec![vec![LEADER]], nodes: vec![(LEADER, info)] }
}

/// As an engine makes them: the members, an entry of the new leader's, then commands.
fn entries() -> Vec<Entry> {
    let first = [Payload::Membership(membership()), Payload::Blank];
    let commands = Life::lived().told.into_iter().map(|(command, _)| postcard::to_allocvec(&command).unwrap());
    let payloads = first.into_iter().chain(commands.map(|bytes| Payload::Command(bytes.into())));
    payloads.zip(0..).map(|(payload, index)| Entry { id: log_id(index), payload }).collect()
}

fn vote() -> record::Vote {
    record::Vote { term: 3, leader: LEADER, committed: true }
}

/// A record of who was a member once, behind its length; index and state, as replicas freeze them.
fn snapshot() -> (SnapshotMeta, Vec<u8>) {
    let mut state = State::default();
    let head = record::encode(0, &(BTreeSet::from([5_u64, 6]),)).unwrap();
    let mut bytes = u32::try_from(head.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(head);
    bytes.extend(SNAPSHOT_AT.to_le_bytes());
    for (command, _) in Life::lived().told.into_iter().take(SNAPSHOT_AT as usize - 1) {
        let _ = state.apply(Origin { leader: LEADER }, command);
    }
    bytes.extend(state.encode().unwrap());
    let meta =
        SnapshotMeta { last: Some(log_id(SNAPSHOT_AT)), membership_at: Some(log_id(0)), membership: membership() };
    (meta, bytes)
}

#[test]
fn records_of_the_log_are_read_and_written_as_they_were() {
    let last = entries().len() as u64 - 1;
    let encoded = || {
        let records = entries().into_iter().map(|entry| {
            format!(
                "{} {} {}",
                payload_name(&entry.payload),
                entry.id.index,
                hex(&record::encode(entry.id.index, &entry).unwrap())
            )
        });
        let others = [
            ("Identity", 1, record::encode(1, &identity())),
            ("Vote", 2, record::encode(2, &vote())),
            ("Committed", 3, record::encode(3, &Some(log_id(last)))),
            ("Purged", 4, record::encode(4, &log_id(SNAPSHOT_AT))),
            ("Meta", 5, record::encode(5, &snapshot().0)),
        ];
        let others = others.into_iter().map(|(name, index, bytes)| format!("{name} {index} {}", hex(&bytes.unwrap())));
        records.chain(others).collect::<Vec<String>>()
    };
    let kept = lines("records", encoded);
    assert_eq!(kept.iter().map(|line| line.join(" ")).collect::<Vec<String>>(), encoded());
    for (line, entry) in kept.iter().zip(entries()) {
        assert_eq!(record::decode::<Entry>(entry.id.index, &unhex(&line[2])), Ok(entry));
    }
    let of = |name: &str| unhex(&kept.iter().find(|line| line[0] == name).unwrap()[2]);
    assert_eq!(record::decode(1, &of("Identity")), Ok(identity()));
    assert_eq!(record::decode(2, &of("Vote")), Ok(vote()));
    assert_eq!(record::decode(3, &of("Committed")), Ok(Some(log_id(last))));
    assert_eq!(record::decode(4, &of("Purged")), Ok(log_id(SNAPSHOT_AT)));
    assert_eq!(record::decode(5, &of("Meta")), Ok(snapshot().0));
    complete(PAYLOADS, kept.iter().map(|line| line[0].as_str()));
}

#[tokio::test]
async fn a_members_directory_is_opened_as_it_was_left() {
    let (meta, content) = snapshot();
    let last = entries().last().unwrap().id;
    let made = tempfile::tempdir().unwrap();
    let write = std::env::var("RINGWAY_FIXTURES").is_ok_and(|value| value == "write");
    if write {
        let store = Store::open(made.path(), &identity()).unwrap();
        store.save_vote(vote()).await.unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        store.append(entries(), done).await.unwrap();
        receiver.await.unwrap().unwrap();
        store.save_snapshot(meta.clone(), content.clone().into()).await.unwrap();
        store.purge(log_id(SNAPSHOT_AT - 5)).await.unwrap();
        store.save_committed(Some(last)).await.unwrap();
        store.close().await;
    }
    let directory = tempfile::tempdir().unwrap();
    for name in ["node.json", "raft.redb"] {
        let bytes = fixture(name, || std::fs::read(made.path().join(name)).unwrap());
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let store = Store::open(directory.path(), &identity()).unwrap();
    assert_eq!((store.vote(), store.committed(), store.last()), (Some(vote()), Some(last), Some(last)));
    assert_eq!(store.purged(), Some(log_id(SNAPSHOT_AT - 5)));
    let kept: Vec<Entry> = store.entries(.., usize::MAX).iter().map(|entry| (**entry).clone()).collect();
    assert_eq!(kept, entries().split_off(SNAPSHOT_AT as usize - 4));
    let (found, bytes) = store.snapshot().unwrap().unwrap();
    assert_eq!((found, bytes.to_vec()), (meta, content));
    store.close().await;
}

/// What a build of rules 1 tells proxies.
fn messages() -> Vec<Message> {
    let state = Life::lived().state;
    let mut before = State::default();
    before.apply(Origin { leader: LEADER }, Command::Found { cluster: "shop".into(), epoch: 1, rules: 1 }).unwrap();
    let (last, revision) = state.history.last().unwrap();
    let position = Position { epoch: 1, term: 2, seq: 3 };
    let (shed, hot) = (vec![1, 6], vec![("ffffffffffffffff".to_owned(), 2)]);
    let table = TableLine { revision: 4, members: Some(5), at: None, shed, hot };
    let rings = BTreeMap::from([("000000000000000a".to_owned(), Some(table)), ("b".to_owned(), None)]);
    let services = BTreeMap::from([("s".to_owned(), rings)]);
    vec![
        // These builds did not say when a revision was made.
        Message::Snapshot(Snapshot { at_ms: None, ..Snapshot::of(&state) }),
        Message::Delta(Delta {
            epoch: state.epoch,
            previous: last - 1,
            revision: *last,
            digest: state.digest.to_string(),
            changes: revision.changes.iter().map(Replaced::of).collect(),
            at_ms: None,
        }),
        Message::Rollout(state.rollout().map(RolloutView::of)),
        Message::Rollout(None),
        Message::Ping(Ping::of(&state, Some(12))),
        Message::Ping(Ping::of(&before, None)),
        Message::Loads(TablesLine { position, from: Some(position), services }),
        Message::LoadsConfirmed(Confirmed { position, age_ms: 7 }),
    ]
}

#[test]
fn lines_to_proxies_are_read_and_written_as_they_were() {
    let encoded = || {
        let line = |message: &Message| format!("{} {}", message_name(message), serde_json::to_string(message).unwrap());
        messages().iter().map(line).collect::<Vec<String>>()
    };
    let kept = fixture("messages", || encoded().join("\n").into_bytes());
    let kept = String::from_utf8(kept).unwrap();
    assert_eq!(kept.lines().collect::<Vec<&str>>(), encoded());
    for (line, message) in kept.lines().zip(messages()) {
        let (_, json) = line.split_once(' ').unwrap();
        assert_eq!(serde_json::from_str::<Message>(json).unwrap(), message);
    }
    complete(MESSAGES, messages().iter().map(message_name));
}
