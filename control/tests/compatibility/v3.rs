//! What rules 2 have added to rules 1: a rollout's own keys, and a format that builds of rules 1 do not read. `testdata/v3` is only
//! ever added to.

use super::v2::{Life, as_they_were};
use super::{fixture_in, key};
use ringway_control::state::{Command, Op, Policy, State};

/// The life that builds of rules 1 know, and how it goes on.
fn lived() -> Life {
    let mut life = Life::lived();
    life.tell(Command::Rules { version: 2 });
    life.tell(Command::Rules { version: 1 });
    let weight = |name: &str, weight| Op::Backend { key: key(name), weight: Some(weight), state: None };
    let running = life.state.rollout().unwrap().id;
    life.tell(Command::RolloutAbort { id: running, reason: "no more".into() });
    let start = Command::RolloutStart {
        txn: Life::of(vec![weight("backend/api/b", 70)]),
        policy: Policy::default(),
        participants: vec!["p1".into()],
    };
    life.judged(start);
    life.judged(Command::Txn(Life::of(vec![weight("backend/api/b", 60)])));
    life.judged(Command::Txn(Life::of(vec![weight("backend/api/a", 60)])));
    life
}

#[test]
fn commands_of_rules_2_are_read_written_and_answered_as_they_were() {
    as_they_were("v3", &lived().told);
    let code = |answer: &ringway_control::state::Answer| answer.as_ref().err().map(|refusal| refusal.code.clone());
    let codes: Vec<Option<String>> = lived().told.iter().rev().take(3).map(|(_, answer)| code(answer)).collect();
    assert_eq!(codes, [None, Some("rollout_active".to_owned()), None]);
}

#[test]
fn a_snapshot_of_format_3_is_read_and_written_as_it_was() {
    let life = lived();
    let bytes = fixture_in("v3", "state", || life.state.encode().unwrap());
    assert_eq!(bytes[0], 3);
    let kept = State::decode(&bytes).unwrap();
    assert!(kept == life.state, "the commands make another state than they did");
    assert_eq!(kept.encode().unwrap(), bytes);
}
