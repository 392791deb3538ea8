//! What rules 3 have added to rules 2: backends with two addresses. `testdata/v4` is only ever added to.

use super::v2::{Life, as_they_were};
use super::{fixture_in, key};
use ringway_control::state::{Command, Object, Op, State};
use serde_json::json;

/// The life that builds of rules 1 know, and how it goes on.
fn lived() -> Life {
    let mut life = Life::lived();
    life.tell(Command::Rules { version: 2 });
    life.tell(Command::Rules { version: 3 });
    let running = life.state.rollout().unwrap().id;
    life.tell(Command::RolloutAbort { id: running, reason: "no more".into() });
    let backend = json!({ "backend": { "address": "10.0.0.7:80", "additional_address": "[fd00::7]:80" } });
    let object: Object = serde_json::from_value(backend).unwrap();
    let put = Command::Txn(Life::of(vec![Op::Put { key: key("backend/api/dual"), object }]));
    assert_eq!(put.rules(), 3);
    life.judged(put);
    life
}

#[test]
fn commands_of_rules_3_are_read_written_and_answered_as_they_were() {
    as_they_were("v4", &lived().told);
}

#[test]
fn a_snapshot_of_format_4_is_read_and_written_as_it_was() {
    let life = lived();
    let bytes = fixture_in("v4", "state", || life.state.encode().unwrap());
    assert_eq!(bytes[0], 4);
    let kept = State::decode(&bytes).unwrap();
    assert!(kept == life.state, "the commands make another state than they did");
    assert_eq!(kept.encode().unwrap(), bytes);
    let Some(Object::Backend(dual)) = kept.object(&key("backend/api/dual")) else { panic!("it is there") };
    assert_eq!((dual.address.as_str(), dual.additional_address.as_deref()), ("10.0.0.7:80", Some("[fd00::7]:80")));
}
