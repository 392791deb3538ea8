//! What `fuzz/` gives to the parsers of what members, proxies, etcd and disks give us: a function for each, which asserts what must hold
//! of whatever comes. The unit tests play the same corpora, so that a find stays found.

use crate::state::backup;
use crate::state::{Command, Origin, RULES, State};
use crate::store::record::{self, Entry, FORMAT, Identity, LogId, SnapshotMeta, Vote};
use crate::transport::{self, Rpc};
use crate::watch::view::View;
use crate::watch::wire::{Heartbeat, Message};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

const ORIGIN: Origin = Origin { leader: 1 };

/// A record with this content, whose checksum is right: damage is found before anything is parsed, a wrong peer is not.
pub(crate) fn sealed(index: u64, content: &[u8]) -> Vec<u8> {
    let body = [&[FORMAT], &index.to_le_bytes()[..], content].concat();
    [&crc32fast::hash(&body).to_le_bytes()[..], &body].concat()
}

/// What is read and written again is read as the same.
pub(crate) fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(index: u64, content: &[u8]) {
    let Ok(value) = record::decode::<T>(index, &sealed(index, content)) else { return };
    let written = record::encode(index, &value).expect("what was read can be written");
    assert_eq!(record::decode::<T>(index, &written).as_ref(), Ok(&value));
    assert!(record::decode::<T>(index.wrapping_add(1), &written).is_err(), "a record belongs to its place");
}

/// Records of the log's file.
pub fn records(bytes: &[u8]) {
    let Some((&kind, content)) = bytes.split_first() else { return };
    let index = u64::from(kind >> 3);
    match kind & 7 {
        0 => again::<Entry>(index, content),
        1 => again::<Identity>(index, content),
        2 => again::<Vote>(index, content),
        3 => again::<Option<LogId>>(index, content),
        4 => again::<SnapshotMeta>(index, content),
        5 => crate::store::fuzz_headers(index, content),
        // As it is.
        _ => assert!(record::decode::<Entry>(index, content).is_err() || content.len() > 13),
    }
}

/// Calls between members: what is taken keeps to the order that the engine takes for granted.
pub fn transport(bytes: &[u8]) {
    let Some((&kind, content)) = bytes.split_first() else { return };
    let calls = [Rpc::Append, Rpc::Vote, Rpc::PreVote, Rpc::Snapshot, Rpc::Transfer, Rpc::Ask];
    let rpc = calls[usize::from(kind) % calls.len()];
    transport::fuzz(rpc, kind >= 128, content);
    crate::plane::fuzz_ask(content);
    crate::loads::fuzz_report(content);
}

/// What a state answers to any commands: a refusal or a change, on every member the same, and what has become of it can be kept.
pub fn commands(bytes: &[u8]) {
    let mut state = State::default();
    let found = Command::Found { cluster: "c".into(), epoch: 1, rules: RULES };
    state.apply(ORIGIN, found).expect("a new cluster");
    let mut rest = bytes;
    while let Ok((command, left)) = postcard::take_from_bytes::<Command>(rest) {
        if left.len() == rest.len() {
            break;
        }
        rest = left;
        // Of rules that this build does not know: a member stops there, before it applies them.
        if let Command::Rules { version: rules } | Command::Found { rules, .. } = &command
            && *rules > RULES
        {
            break;
        }
        let mut other = state.clone();
        let answer = state.apply(ORIGIN, command.clone());
        assert_eq!(other.apply(ORIGIN, command), answer);
    }
    let kept = state.encode().expect("a state can be kept");
    let back = State::decode(&kept).expect("what was kept can be read");
    assert_eq!(back.digest, state.digest);
    assert_eq!(back.encode().expect("a state can be kept"), kept);
}

/// Snapshots and backups: one that is taken can be lived with.
pub fn states(bytes: &[u8]) {
    let _ = State::decode(bytes).map(|state| state.encode());
    let whole = [bytes, blake3::hash(bytes).as_bytes()].concat();
    let Ok(backup) = backup::read(&Bytes::from(whole)) else { return };
    let Ok(mut state) = backup.first_state(Default::default(), 5) else { return };
    assert!(state.epoch >= 5);
    let granted = state.apply(ORIGIN, Command::LeaseGrant { owner: "o".into(), ttl_ms: 10_000 });
    assert!(granted.is_ok() || !state.leases.is_empty());
    backup::write(&state).expect("a state can be kept");
}

/// Lines of the watch stream, and what a proxy tells of itself.
pub fn lines(bytes: &[u8]) {
    crate::loads::fuzz_tables(bytes.split(|byte| *byte == b'\n').filter_map(|line| {
        match serde_json::from_slice(line) {
            Ok(Message::Loads(line)) => Some(line),
            _ => None,
        }
    }));
    let mut view: Option<View> = None;
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = serde_json::from_slice::<Heartbeat>(line);
        let Ok(message) = serde_json::from_slice::<Message>(line) else { continue };
        let text = serde_json::to_vec(&message).expect("a line can be written");
        assert_eq!(serde_json::from_slice::<Message>(&text).expect("and read"), message);
        match (&mut view, message) {
            (Some(view), message) => {
                let before = view.clone();
                if view.handle(message).is_err() {
                    assert_eq!(*view, before);
                }
                if let Some(next) = view.candidate() {
                    let _ = next.fleet_config(|name| (name.into(), name.into()));
                }
            }
            (view, Message::Snapshot(snapshot)) => *view = View::from_snapshot(snapshot, None).ok(),
            _ => {}
        }
    }
}

/// etcd's messages, in frames of gRPC.
pub fn etcd(bytes: &[u8]) {
    crate::etcd::fuzz(bytes);
}

#[cfg(test)]
mod tests {
    /// Every input of a target's corpus.
    fn plays(target: &str, play: fn(&[u8])) {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let entries: Vec<_> = std::fs::read_dir(&corpus).unwrap().flatten().collect();
        assert!(!entries.is_empty());
        for entry in entries {
            play(&std::fs::read(entry.path()).unwrap());
        }
    }

    #[test]
    fn what_fuzzing_has_found_stays_found() {
        plays("records", super::records);
        plays("transport", super::transport);
        plays("commands", super::commands);
        plays("states", super::states);
        plays("lines", super::lines);
        plays("etcd", super::etcd);
    }
}
