//! What a member asks another, as bytes.
//!
//! What the build before rules had numbers knows is written as it reads it, and never changes ([`Frozen`]). All else is JSON, where
//! fields may be added, each with a default. The two cannot be confused: a frozen question begins with its number, JSON
//! with a bracket or a quotation mark. A report of loads is bytes as they came from the proxy, after a byte that neither begins with.

use super::views::{FleetView, MemberChange, MemberView, TablesTold};
use crate::loads::{Position, ReportAnswer};
use crate::state::{EncodeError, Key, Refusal, Vote, to_bytes};
use crate::watch::wire::{FleetBrief, Heartbeat, ProxyView};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The first byte of a report of loads. To an earlier version, it is a number that no question has.
const LOADS: u8 = 0xf1;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Question {
    /// Of the leader: put this into the log.
    Propose(Vec<u8>),
    /// Of the leader: an index up to which everything is decided.
    Barrier,
    /// Of the leader: these leases live.
    KeepAlive(Vec<u64>),
    /// Of the leader: this proxy lives.
    Heartbeat(String, Box<Heartbeat>),
    /// Of the leader: the fleet.
    Fleet,
    /// Of the leader: the fleet, as a page shows it. An earlier version does not know it: see [`Question::may_be_repeated`].
    Brief,
    /// Of the leader: change which members there are.
    Member(MemberChange),
    /// Of the leader: this proxy ends in order, or is forgotten; only if it is of this instance, where one is given.
    SignOff(String, Option<u64>),
    /// Of any member: [`crate::state::RULES`].
    Rules,
    /// Of any member: whether the one with this id was removed.
    Removed(u64),
    /// Of any member: how it is.
    Status,
    /// Of the leader: a proxy's report of its loads.
    Loads(Vec<u8>),
    /// Of the leader: its tables of loads, once they are later than this, or so many milliseconds have passed.
    Tables(Option<Position>, u64),
}

/// What is said to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// Index and answer of a command.
    Proposed(u64, Vec<u8>),
    /// The index.
    Barrier(u64),
    /// Leases that are not there.
    Missing(Vec<u64>),
    /// The fleet.
    Fleet(FleetView),
    /// The fleet in brief.
    Brief(Box<FleetBrief>),
    /// It is done.
    Done,
    /// Another member leads, or none; nothing was done.
    NotLeader,
    /// It may have been done, or was not understood.
    Unknown,
    /// The members say no.
    Member(String),
    /// The rules that the member knows.
    Rules(u32),
    /// Whether it was.
    Removed(bool),
    /// How the member is.
    Status(MemberView),
    /// What the leader says to a report of loads.
    Loads(Box<ReportAnswer>),
    /// It cannot be taken.
    Refused(Refusal),
    /// The tables of loads.
    Tables(Box<TablesTold>),
}

/// How a question was written, and its answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// As the build before rules reads it.
    Frozen,
    /// JSON.
    Json,
}

impl Question {
    /// Whether it is idempotent, and an answer that is not understood means that the leader is lost.
    pub(super) fn may_be_repeated(&self) -> bool {
        match self {
            Self::Barrier
            | Self::KeepAlive(_)
            | Self::Heartbeat(..)
            | Self::Fleet
            | Self::SignOff(..)
            | Self::Rules
            | Self::Removed(_)
            | Self::Status => true,
            Self::Propose(_) | Self::Member(_) | Self::Brief | Self::Loads(_) | Self::Tables(..) => false,
        }
    }

    /// `rules`: what all members know.
    pub(super) fn encode(&self, rules: u32) -> Result<Vec<u8>, EncodeError> {
        let frozen = match self {
            // Bytes and numbers, which have no fields that could be added.
            Self::Propose(command) => Frozen::Propose(Cow::Borrowed(command)),
            Self::Barrier => Frozen::Barrier,
            Self::KeepAlive(ids) => Frozen::KeepAlive(Cow::Borrowed(ids)),
            Self::Member(change) => Frozen::Member(change.clone()),
            Self::Heartbeat(name, heartbeat) if rules == 0 => {
                Frozen::Heartbeat(name.clone(), Box::new(FrozenHeartbeat::from((**heartbeat).clone())))
            }
            Self::Fleet if rules == 0 => Frozen::Fleet,
            Self::Heartbeat(..)
            | Self::Fleet
            | Self::Brief
            | Self::SignOff(..)
            | Self::Rules
            | Self::Removed(_)
            | Self::Status
            | Self::Tables(..) => return json(self),
            Self::Loads(report) => return Ok([&[LOADS], &report[..]].concat()),
        };
        to_bytes(&frozen)
    }

    /// `None`: this build does not know it.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, Writing)> {
        if is_json(bytes) {
            return Some((serde_json::from_slice(bytes).ok()?, Writing::Json));
        }
        if let Some((&LOADS, report)) = bytes.split_first() {
            return Some((Self::Loads(report.to_vec()), Writing::Json));
        }
        let ask = match postcard::from_bytes(bytes).ok()? {
            Frozen::Propose(command) => Self::Propose(command.into_owned()),
            Frozen::Barrier => Self::Barrier,
            Frozen::KeepAlive(ids) => Self::KeepAlive(ids.into_owned()),
            Frozen::Heartbeat(name, heartbeat) => Self::Heartbeat(name, Box::new((*heartbeat).into())),
            Frozen::Fleet => Self::Fleet,
            Frozen::Member(change) => Self::Member(change),
        };
        Some((ask, Writing::Frozen))
    }
}

impl Reply {
    pub(super) fn encode(&self, writing: Writing) -> Result<Vec<u8>, EncodeError> {
        if writing == Writing::Json {
            return json(self);
        }
        let frozen = match self.clone() {
            Self::Proposed(index, answer) => FrozenReply::Proposed(index, answer),
            Self::Barrier(index) => FrozenReply::Barrier(index),
            Self::Missing(ids) => FrozenReply::Missing(ids),
            Self::Fleet(fleet) => FrozenReply::Fleet(fleet.into()),
            Self::Done => FrozenReply::Done,
            Self::NotLeader => FrozenReply::NotLeader,
            Self::Unknown
            | Self::Brief(_)
            | Self::Rules(_)
            | Self::Removed(_)
            | Self::Status(_)
            | Self::Loads(_)
            | Self::Refused(_)
            | Self::Tables(_) => FrozenReply::Unknown,
            Self::Member(why) => FrozenReply::Member(why),
        };
        to_bytes(&frozen)
    }

    /// What cannot be read is [`Reply::Unknown`].
    pub(super) fn decode(bytes: &[u8]) -> Self {
        if is_json(bytes) {
            return serde_json::from_slice(bytes).unwrap_or(Self::Unknown);
        }
        match postcard::from_bytes(bytes) {
            Ok(FrozenReply::Proposed(index, answer)) => Self::Proposed(index, answer),
            Ok(FrozenReply::Barrier(index)) => Self::Barrier(index),
            Ok(FrozenReply::Missing(ids)) => Self::Missing(ids),
            Ok(FrozenReply::Fleet(fleet)) => Self::Fleet(fleet.into()),
            Ok(FrozenReply::Done) => Self::Done,
            Ok(FrozenReply::NotLeader) => Self::NotLeader,
            Ok(FrozenReply::Member(why)) => Self::Member(why),
            Ok(FrozenReply::Unknown) | Err(_) => Self::Unknown,
        }
    }
}

/// For [`crate::fuzzing`]: what is read is read again once it is written, in its own writing.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Some((ask, writing)) = Question::decode(bytes) {
        let rules = if writing == Writing::Frozen { 0 } else { crate::state::RULES };
        let written = ask.encode(rules).expect("a question can be written");
        let (again, _) = Question::decode(&written).expect("and read");
        assert_eq!(again.encode(rules).expect("and written"), written);
    }
    let told = Reply::decode(bytes);
    let writing = if is_json(bytes) { Writing::Json } else { Writing::Frozen };
    let written = told.encode(writing).expect("an answer can be written");
    assert_eq!(Reply::decode(&written).encode(writing).expect("and again"), written);
    let _ = crate::consensus::replica::decode_answer(bytes);
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    serde_json::to_vec(value).map_err(|error| EncodeError::new(&error))
}

fn is_json(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(b'{' | b'"'))
}

/// As it was under rules 0; never changed.
#[derive(Serialize, Deserialize)]
enum Frozen<'a> {
    Propose(Cow<'a, [u8]>),
    Barrier,
    KeepAlive(Cow<'a, [u64]>),
    Heartbeat(String, Box<FrozenHeartbeat>),
    Fleet,
    Member(MemberChange),
}

/// As it was under rules 0; never changed.
#[derive(Serialize, Deserialize)]
enum FrozenReply {
    Proposed(u64, Vec<u8>),
    Barrier(u64),
    Missing(Vec<u64>),
    Fleet(FrozenFleet),
    Done,
    NotLeader,
    Unknown,
    Member(String),
}

/// As it was under rules 0; never changed.
#[derive(Serialize, Deserialize)]
struct FrozenHeartbeat {
    version: String,
    epoch: u64,
    revision: u64,
    digest: String,
    rings: BTreeMap<String, String>,
    stuck: Option<String>,
    generation: u64,
    vote: Option<(u64, Vote)>,
    down: Vec<Key>,
    requests: u64,
    failed: u64,
    canary: Option<u64>,
}

/// As it was under rules 0; never changed.
#[derive(Serialize, Deserialize)]
struct FrozenFleet {
    proxies: Vec<FrozenProxy>,
    frozen: BTreeMap<String, usize>,
}

/// As it was under rules 0; never changed.
#[derive(Serialize, Deserialize)]
struct FrozenProxy {
    name: String,
    heartbeat: FrozenHeartbeat,
    age_ms: u64,
    state: Cow<'static, str>,
}

impl From<Heartbeat> for FrozenHeartbeat {
    fn from(heartbeat: Heartbeat) -> Self {
        Self {
            version: heartbeat.version,
            epoch: heartbeat.epoch,
            revision: heartbeat.revision,
            digest: heartbeat.digest,
            rings: heartbeat.rings,
            stuck: heartbeat.stuck,
            generation: heartbeat.generation,
            vote: heartbeat.vote,
            down: heartbeat.down,
            requests: heartbeat.requests,
            failed: heartbeat.failed,
            canary: heartbeat.canary,
        }
    }
}

impl From<FrozenHeartbeat> for Heartbeat {
    fn from(frozen: FrozenHeartbeat) -> Self {
        Self {
            version: frozen.version,
            epoch: frozen.epoch,
            revision: frozen.revision,
            digest: frozen.digest,
            rings: frozen.rings,
            stuck: frozen.stuck,
            generation: frozen.generation,
            vote: frozen.vote,
            down: frozen.down,
            requests: frozen.requests,
            failed: frozen.failed,
            canary: frozen.canary,
            instance: 0,
            cluster: String::new(),
        }
    }
}

impl From<FleetView> for FrozenFleet {
    fn from(fleet: FleetView) -> Self {
        let proxy = |proxy: ProxyView| FrozenProxy {
            name: proxy.name,
            heartbeat: proxy.heartbeat.into(),
            age_ms: proxy.age_ms,
            state: proxy.state,
        };
        Self { proxies: fleet.proxies.into_iter().map(proxy).collect(), frozen: fleet.frozen }
    }
}

impl From<FrozenFleet> for FleetView {
    fn from(frozen: FrozenFleet) -> Self {
        let proxy = |proxy: FrozenProxy| ProxyView {
            name: proxy.name,
            heartbeat: proxy.heartbeat.into(),
            age_ms: proxy.age_ms,
            state: proxy.state,
            since_ms: None,
            loads: None,
        };
        Self { proxies: frozen.proxies.into_iter().map(proxy).collect(), frozen: frozen.frozen, events: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::{TableLine, TablesLine};
    use crate::watch::wire::ProxyEvent;

    fn heartbeat() -> Heartbeat {
        serde_json::from_value(serde_json::json!({
            "version": "1", "epoch": 1, "revision": 2, "digest": "d", "rings": { "s": "r" }, "stuck": null,
            "generation": 3, "vote": [4, { "refusal": "no", "digest": "v", "moved_ppm": 5 }], "down": ["backend/s/a"],
            "requests": 6, "failed": 7, "canary": 8,
        }))
        .unwrap()
    }

    fn brief() -> FleetBrief {
        let rings = BTreeMap::from([(u64::MAX, heartbeat().rings)]);
        let down = vec![("backend/s/a".parse().unwrap(), 2)];
        FleetBrief { kinds: vec![Some(u64::MAX), None], rings, down, ..FleetBrief::default() }
    }

    fn fleet() -> FleetView {
        let state = Cow::Borrowed("synced");
        let proxy =
            ProxyView { name: "p".into(), heartbeat: heartbeat(), age_ms: 9, state, since_ms: None, loads: None };
        FleetView { proxies: vec![proxy], frozen: BTreeMap::from([("s".into(), 1)]), events: Vec::new() }
    }

    #[test]
    fn what_was_added_to_the_fleet_crosses_where_it_is_known_and_is_left_out_where_it_is_not() {
        let mut told = fleet();
        told.proxies[0].since_ms = Some(5);
        told.events.push(ProxyEvent {
            number: 1,
            at_ms: 2,
            proxy: "p".into(),
            what: Cow::Borrowed("came"),
            why: "version 1".into(),
        });
        let crossed = |writing| match Reply::decode(&Reply::Fleet(told.clone()).encode(writing).unwrap()) {
            Reply::Fleet(fleet) => fleet,
            other => panic!("{other:?}"),
        };
        assert_eq!(crossed(Writing::Json), told);
        assert_eq!(crossed(Writing::Frozen), fleet());
    }

    #[test]
    fn every_question_and_answer_crosses_whole_under_any_rules() {
        let change = || MemberChange::Join {
            node: 1,
            info: ("a".into(), "b".into(), "c".into()),
            voter: true,
            replace: Some(2),
        };
        let asks = [
            Question::Propose(vec![b'{', 0, 255]),
            Question::Barrier,
            Question::KeepAlive(vec![1, 123, u64::MAX]),
            Question::Heartbeat("p".into(), Box::new(heartbeat())),
            Question::Fleet,
            Question::Brief,
            Question::Member(change()),
            Question::SignOff("p".into(), Some(u64::MAX)),
            Question::Rules,
            Question::Removed(u64::MAX),
            Question::Status,
            Question::Loads(vec![b'{', 0, 255]),
            Question::Tables(None, 5),
        ];
        for rules in [0, 1] {
            for ask in &asks {
                let bytes = ask.encode(rules).unwrap();
                let (read, _) = Question::decode(&bytes).unwrap();
                assert_eq!(format!("{read:?}"), format!("{ask:?}"));
            }
        }
        let tolds = [
            Reply::Proposed(1, vec![1, 2]),
            Reply::Barrier(123),
            Reply::Missing(vec![3]),
            Reply::Fleet(fleet()),
            Reply::Done,
            Reply::NotLeader,
            Reply::Unknown,
            Reply::Member("no".into()),
        ];
        for writing in [Writing::Frozen, Writing::Json] {
            for told in &tolds {
                let read = Reply::decode(&told.encode(writing).unwrap());
                assert_eq!(format!("{read:?}"), format!("{told:?}"));
            }
        }
    }

    /// The name of each variant: one that is new does not compile until it is here, and needs a line in the fixture then.
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
    names! { ASKS, ask_name of Question: Propose Barrier KeepAlive Heartbeat Fleet Brief Member SignOff Rules Removed Status Loads Tables }
    names! { TOLDS, told_name of Reply: Proposed Barrier Missing Fleet Brief Done NotLeader Unknown Member Rules Removed Status Loads Refused Tables }
    names! { CHANGES, change_name of MemberChange: Join Promote Remove Transfer }

    fn answer() -> ReportAnswer {
        let refused = BTreeMap::from([(String::new(), "no".to_owned())]);
        let position = Some(Position { epoch: 1, term: 2, seq: 3 });
        ReportAnswer { position, want: vec!["s".into()], refused }
    }

    fn tables() -> TablesTold {
        let position = Position { epoch: 1, term: 2, seq: 3 };
        let line = TableLine {
            revision: 4,
            members: Some(5),
            at: Some(Position { epoch: 1, term: 1, seq: 9 }),
            shed: vec![1, 6],
            hot: vec![("ffffffffffffffff".into(), 2)],
        };
        let rings = BTreeMap::from([("000000000000000a".to_owned(), Some(line)), ("b".to_owned(), None)]);
        let services = BTreeMap::from([("s".to_owned(), rings)]);
        let line = TablesLine { position, from: Some(position), services };
        TablesTold { position: Some(position), line: Some(line), age_ms: Some(7), waited_ms: Some(8) }
    }

    fn changes() -> Vec<MemberChange> {
        let info = ("m".to_owned(), "10.0.0.1:9701".to_owned(), "10.0.0.1:9700".to_owned());
        vec![
            MemberChange::Join { node: 1, info: info.clone(), voter: true, replace: Some(2) },
            MemberChange::Join { node: 1, info, voter: false, replace: None },
            MemberChange::Promote(3),
            MemberChange::Remove(u64::MAX),
            MemberChange::Transfer(4),
        ]
    }

    fn asks() -> Vec<Question> {
        let named = Heartbeat { instance: 9, cluster: "shop".into(), ..heartbeat() };
        let mut asks = vec![
            Question::Propose(vec![0, 1, 255]),
            Question::Barrier,
            Question::KeepAlive(vec![1, 123, u64::MAX]),
            Question::Heartbeat("p".into(), Box::new(named)),
            Question::Fleet,
            Question::Brief,
            Question::SignOff("p".into(), Some(u64::MAX)),
            Question::SignOff("p".into(), None),
            Question::Rules,
            Question::Removed(5),
            Question::Status,
        ];
        asks.extend(changes().into_iter().map(Question::Member));
        let known = Position { epoch: 1, term: 2, seq: 3 };
        asks.extend([Question::Loads(vec![b'{', 0, 255]), Question::Tables(Some(known), 5), Question::Tables(None, 0)]);
        asks
    }

    fn tolds() -> Vec<Reply> {
        vec![
            Reply::Proposed(1, vec![1, 2]),
            Reply::Barrier(123),
            Reply::Missing(vec![3]),
            Reply::Fleet(fleet()),
            Reply::Brief(Box::new(brief())),
            Reply::Done,
            Reply::NotLeader,
            Reply::Unknown,
            Reply::Member("no".into()),
            Reply::Rules(1),
            Reply::Removed(true),
            Reply::Status(MemberView { role: "leader".into(), term: 3, leader: Some(7), ..MemberView::default() }),
            Reply::Loads(Box::new(answer())),
            Reply::Refused(Refusal::new(crate::Code::BadBody, "no")),
            Reply::Tables(Box::new(tables())),
        ]
    }

    /// `made`, by `RINGWAY_FIXTURES=write` if there is none.
    fn fixture(name: &str, made: &[String]) -> Vec<String> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v2").join(name);
        if !path.exists() && std::env::var("RINGWAY_FIXTURES").is_ok_and(|value| value == "write") {
            std::fs::write(&path, made.join("\n")).unwrap();
        }
        std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect()
    }

    fn complete(all: &[&str], lines: &[String]) {
        for name in all {
            assert!(lines.iter().any(|line| line.split(' ').next() == Some(name)), "the fixture has no {name}");
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        match is_json(&bytes) {
            true => String::from_utf8(bytes).unwrap(),
            false => format!("{bytes:?}"),
        }
    }

    #[test]
    fn what_members_of_rules_1_say_to_each_other_is_written_and_read_as_it_was() {
        let made: Vec<String> =
            asks().iter().map(|ask| format!("{} {}", ask_name(ask), text(ask.encode(1).unwrap()))).collect();
        let kept = fixture("asks", &made);
        assert_eq!(kept, made);
        for (line, ask) in kept.iter().zip(asks()) {
            let (_, bytes) = line.split_once(' ').unwrap();
            let bytes = match bytes.starts_with('[') {
                true => serde_json::from_str(bytes).unwrap(),
                false => bytes.as_bytes().to_vec(),
            };
            assert_eq!(format!("{:?}", Question::decode(&bytes).unwrap().0), format!("{ask:?}"));
        }
        complete(ASKS, &kept);
        let made: Vec<String> = tolds()
            .iter()
            .map(|told| format!("{} {}", told_name(told), text(told.encode(Writing::Json).unwrap())))
            .collect();
        let kept = fixture("tolds", &made);
        assert_eq!(kept, made);
        for (line, told) in kept.iter().zip(tolds()) {
            let (_, bytes) = line.split_once(' ').unwrap();
            assert_eq!(format!("{:?}", Reply::decode(bytes.as_bytes())), format!("{told:?}"));
        }
        complete(TOLDS, &kept);
        let named: Vec<String> = changes().iter().map(|change| change_name(change).to_owned()).collect();
        complete(CHANGES, &named);
    }

    /// Bytes that the build before rules has written and reads.
    #[test]
    fn what_the_build_before_rules_says_is_understood_and_it_understands_the_answer() {
        assert_eq!(Question::Barrier.encode(0).unwrap(), [1]);
        assert_eq!(Question::KeepAlive(vec![5]).encode(0).unwrap(), [2, 1, 5]);
        assert_eq!(Question::Fleet.encode(0).unwrap(), [4]);
        assert_eq!(Reply::NotLeader.encode(Writing::Frozen).unwrap(), [5]);
        let bytes = Question::Heartbeat("p".into(), Box::new(heartbeat())).encode(0).unwrap();
        let expected = b"\x03\x01p\x011\x01\x02\x01d\x01\x01s\x01r\x00\x03\x01\x04\x01\x02no\x01v\x05\x01\x0bbackend/s/a\x06\x07\x01\x08";
        assert_eq!(bytes, expected);
        // To what it does not know, it says so.
        assert!(matches!(Reply::decode(&[6]), Reply::Unknown));
        assert!(postcard::from_bytes::<Frozen<'_>>(&Question::Rules.encode(0).unwrap()).is_err());
        for byte in 0..=255 {
            let report = Question::Loads(vec![byte; 20]).encode(0).unwrap();
            assert!(postcard::from_bytes::<Frozen<'_>>(&report).is_err());
        }
    }
}
