//! What is judged before it is proposed: whether a configuration is valid, whether an object is what its kind should be,
//! whether a change is an accident. Pure.
//!
//! Builds differ in what they refuse, and members may run two of them. So the member that is asked judges, and what it puts
//! into the log is data: every member applies it alike, whatever it would have said itself. A judgement says what it stands
//! on ([`Basis`]); if that has changed by the time the command is applied, it is judged again.

mod guards;
mod objects;
mod traffic;

pub use guards::Guards;
pub(crate) use objects::object;

use crate::state::parsed::Parsed;
use crate::state::{Answer, Basis, Command, Op, Origin, Refusal, State, Trial, is_configuration, takes_traffic};

/// Judges a command; `None`: it is none that needs it. A simulation has members that differ in this.
pub(crate) type Judge = dyn Fn(&State, &Command) -> Result<Option<Basis>, Refusal> + Send + Sync;

/// This build's judgement.
///
/// # Errors
/// Why the command is not to be proposed. Of a state that is not the latest, it may be out of date.
pub(crate) fn judge(state: &State, command: &Command) -> Result<Option<Basis>, Refusal> {
    judge_by(state, command, Guards::default(), &Parsed::at_once())
}

/// As [`judge`], with guards of another strength, and what was read before.
pub(crate) fn judge_by(
    state: &State,
    command: &Command,
    guards: Guards,
    parsed: &Parsed,
) -> Result<Option<Basis>, Refusal> {
    let mut basis = Basis { epoch: state.epoch, configured: None, lost: None };
    let (after, changes, force) = match state.trial(command)? {
        None => return Ok(None),
        Some(Trial::Known) => return Ok(Some(basis)),
        Some(Trial::Change { after, changes, force }) => (after, changes, force),
    };
    if !matches!(command, Command::RolloutCommit { .. }) {
        state.collides(&changes)?;
    }
    for change in &changes {
        let Some(object) = &change.after else { continue };
        objects::object(&after, &change.key, object)?;
        objects::draft(&after, &change.key, object)?;
        if !force {
            objects::in_time(&change.key, object, asked_at(state, command))?;
        }
    }
    if changes.iter().any(|change| is_configuration(&change.key)) {
        let now = parsed.configuration(&after);
        let now = objects::configuration(&after, &now)?;
        basis.configured = Some(state.configured);
        if !force {
            traffic::configuration((state, &after), now, &changes, guards, parsed)?;
            basis.lost = Some(state.lost);
        }
        return Ok(Some(basis));
    }
    let weight = |object: &Option<_>| object.as_deref().map_or(0, takes_traffic);
    if !force && changes.iter().any(|change| weight(&change.before) > weight(&change.after)) {
        traffic::backends(state, &after, &changes, guards, parsed)?;
        (basis.configured, basis.lost) = (Some(state.configured), Some(state.lost));
    }
    Ok(Some(basis))
}

/// When a change was asked for, in Unix milliseconds, by the clock of the member that was asked.
fn asked_at(state: &State, command: &Command) -> u64 {
    match command {
        Command::Txn(txn) | Command::RolloutStart { txn, .. } => txn.by.at_ms,
        // It was in time when it was asked for.
        Command::RolloutCommit { id, .. } => state.rollouts.get(id).map_or(0, |rollout| rollout.txn.by.at_ms),
        _ => 0,
    }
}

/// Judges a command and applies it, where there is no log.
///
/// # Errors
/// Why it does not hold; the state is as it was.
pub(crate) fn run(state: &mut State, command: Command) -> Answer {
    let command = match judge(state, &command)? {
        Some(basis) if state.rules > 0 => Command::Judged { basis, command: Box::new(command) },
        _ => command,
    };
    state.apply(Origin { leader: 0 }, command)
}

/// Whether judging a command may take long: it reads texts. What takes nothing away is judged without them.
pub(crate) fn is_heavy(state: &State, command: &Command) -> bool {
    let light = |op: &Op| match op {
        Op::Put { key, object } if !is_configuration(key) => {
            state.object(key).map_or(0, takes_traffic) <= takes_traffic(object)
        }
        Op::Put { .. } | Op::Delete { .. } | Op::Backend { .. } => false,
    };
    match command {
        Command::Txn(txn) => !txn.ops.iter().all(light),
        Command::Rollback { .. } | Command::RolloutStart { .. } | Command::RolloutCommit { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Author, Key, Object, Phase, Policy, RULES, Text, Txn};

    fn founded(rules: u32) -> State {
        let mut state = State::default();
        let first = match rules {
            0 => Command::Init { cluster: "c".into() },
            rules => Command::Found { cluster: "c".into(), epoch: 1, rules },
        };
        state.apply(Origin { leader: 1 }, first).unwrap();
        state
    }

    fn txn(ops: Vec<Op>, request: Option<&str>) -> Txn {
        let request = request.map(str::to_owned);
        Txn { by: Author::default(), request, conditions: Vec::new(), ops, force: false }
    }

    fn document(text: &str) -> Op {
        let object = Object::Document(Text { text: text.into() });
        Op::Put { key: Key::Document("main".into()), object }
    }

    fn backend(id: &str) -> Op {
        let object = serde_json::from_str("{\"backend\":{\"address\":\"10.0.0.1:1\"}}").unwrap();
        Op::Put { key: format!("backend/api/{id}").parse().unwrap(), object }
    }

    fn delete(key: &str) -> Op {
        Op::Delete { key: key.parse().unwrap() }
    }

    fn judged(basis: Basis, command: Command) -> Command {
        Command::Judged { basis, command: Box::new(command) }
    }

    /// What another build would have refused is applied as everywhere else.
    #[test]
    fn what_is_applied_is_data_under_rules_and_checked_without() {
        let bad = || Command::Txn(txn(vec![document("services: 7\n")], None));
        let mut state = founded(RULES);
        assert_eq!(judge(&state, &bad()).unwrap_err().code, "invalid", "it is refused before it is in the log");
        let basis = Basis { epoch: 1, configured: Some(state.configured), lost: None };
        let done = state.apply(Origin { leader: 1 }, judged(basis, bad())).unwrap();
        assert_eq!((done.revision, done.changed), (1, 1));
        // Nor do guards, or what an address looks like, matter to the member that applies it.
        let odd = serde_json::from_str("{\"backend\":{\"address\":\"nowhere\",\"weight\":9999}}").unwrap();
        let put = Op::Put { key: "backend/api/a".parse().unwrap(), object: odd };
        let basis = Basis { epoch: 1, ..Basis::default() };
        for ops in [vec![put], vec![delete("backend/api/a")]] {
            state.apply(Origin { leader: 1 }, judged(basis, Command::Txn(txn(ops, None)))).unwrap();
        }
        let mut old = founded(0);
        assert_eq!(old.apply(Origin { leader: 1 }, bad()).unwrap_err().code, "invalid");
        assert_eq!(old.apply(Origin { leader: 1 }, judged(basis, bad())).unwrap_err().code, "unjudged");
        assert_eq!(state.apply(Origin { leader: 1 }, bad()).unwrap_err().code, "unjudged");
    }

    #[test]
    fn nothing_new_has_a_name_that_no_path_can_have_and_what_has_can_be_deleted() {
        let mut state = founded(RULES);
        for id in [".", ".."] {
            let refusal = judge(&state, &Command::Txn(txn(vec![backend(id)], None))).unwrap_err();
            assert!(refusal.code == "bad_name" && refusal.message.contains("no path"), "{refusal:?}");
            let object = Object::Document(Text { text: "services: []\n".into() });
            let put = Op::Put { key: Key::Document(id.into()), object };
            assert_eq!(judge(&state, &Command::Txn(txn(vec![put], None))).unwrap_err().code, "bad_name");
        }
        run(&mut state, Command::Txn(txn(vec![backend("..."), backend("a..")], None))).unwrap();
        // As an earlier build has let it.
        let basis = Basis { epoch: 1, ..Basis::default() };
        state.apply(Origin { leader: 1 }, judged(basis, Command::Txn(txn(vec![backend("..")], None)))).unwrap();
        run(&mut state, Command::Txn(txn(vec![delete("backend/api/..")], None))).unwrap();
    }

    #[test]
    fn a_judgement_holds_only_for_what_it_stands_on() {
        let mut state = founded(RULES);
        run(&mut state, Command::Txn(txn(vec![backend("a"), backend("b"), backend("c"), backend("d")], None))).unwrap();
        let take = |id: &str| Command::Txn(txn(vec![delete(&format!("backend/api/{id}"))], None));
        // Each was judged as if the other were to stay.
        let basis = judge(&state, &take("a")).unwrap().unwrap();
        let other = judge(&state, &take("b")).unwrap().unwrap();
        state.apply(Origin { leader: 1 }, judged(basis, take("a"))).unwrap();
        assert_eq!(state.apply(Origin { leader: 1 }, judged(other, take("b"))).unwrap_err().code, "moved");
        // Who comes meanwhile takes nothing away.
        let basis = judge(&state, &take("b")).unwrap().unwrap();
        run(&mut state, Command::Txn(txn(vec![backend("e")], None))).unwrap();
        state.apply(Origin { leader: 1 }, judged(basis, take("b"))).unwrap();
        // Two texts that are good alone.
        let put = |name: &str| {
            let text = Text { text: format!("services: [ {{ name: {name} }} ]\n") };
            let key = Key::Document("main".into());
            Command::Txn(txn(vec![Op::Put { key, object: Object::Document(text) }], None))
        };
        let (one, two) = (judge(&state, &put("x")).unwrap().unwrap(), judge(&state, &put("y")).unwrap().unwrap());
        state.apply(Origin { leader: 1 }, judged(one, put("x"))).unwrap();
        assert_eq!(state.apply(Origin { leader: 1 }, judged(two, put("y"))).unwrap_err().code, "moved");
        let late = Basis { epoch: 0, ..judge(&state, &put("y")).unwrap().unwrap() };
        assert_eq!(
            state.apply(Origin { leader: 1 }, judged(late, put("y"))).unwrap_err().code,
            "moved",
            "another epoch"
        );
    }

    fn weight(id: &str, weight: u32) -> Op {
        Op::Backend { key: format!("backend/api/{id}").parse().unwrap(), weight: Some(weight), state: None }
    }

    /// Each was judged before the other was applied.
    #[test]
    fn a_change_and_a_rollout_of_the_same_backend_do_not_cross() {
        for rules in [1, 2] {
            let mut state = founded(rules);
            run(&mut state, Command::Txn(txn(vec![backend("a"), backend("b"), backend("c")], None))).unwrap();
            let judged_by = |state: &State, command: Command| match judge(state, &command).unwrap() {
                Some(basis) => judged(basis, command),
                None => command,
            };
            let start = |ops| Command::RolloutStart {
                txn: txn(ops, None),
                policy: Policy::default(),
                participants: Vec::new(),
            };
            let change = |op| Command::Txn(txn(vec![op], None));
            let origin = Origin { leader: 1 };
            let rollout = judged_by(&state, start(vec![weight("a", 200)]));
            let (same, other) =
                (judged_by(&state, change(weight("a", 300))), judged_by(&state, change(weight("b", 300))));
            let same_as_it_is = judged_by(&state, change(weight("a", 100)));
            // The rollout comes first.
            let mut first = state.clone();
            let id = first.apply(origin, rollout.clone()).unwrap().id;
            match rules {
                1 => assert!(first.clone().apply(origin, same.clone()).is_ok(), "members of rules 1 take it"),
                _ => assert_eq!(first.apply(origin, same.clone()).unwrap_err().code, "rollout_active"),
            }
            assert_eq!(judge(&first, &change(weight("a", 300))).unwrap_err().code, "rollout_active");
            first.apply(origin, same_as_it_is).unwrap();
            first.apply(origin, other).unwrap();
            first.apply(origin, Command::RolloutCommit { id, at_ms: 1 }).unwrap();
            assert_eq!(takes_traffic(first.object(&"backend/api/a".parse().unwrap()).unwrap()), 200);
            // The change comes first: the rollout is about what it has made.
            let mut second = state.clone();
            second.apply(origin, same).unwrap();
            second.apply(origin, rollout).unwrap();
            let changes = &second.rollout().unwrap().changes;
            assert_eq!(changes.iter().map(|change| takes_traffic(change.before.as_deref().unwrap())).max(), Some(300));
        }
    }

    #[test]
    fn a_request_that_was_answered_is_answered_again_whatever_has_moved() {
        let mut state = founded(RULES);
        let command = || Command::Txn(txn(vec![document("services: [ { name: x } ]\n")], Some("once")));
        let first = run(&mut state, command()).unwrap();
        run(&mut state, Command::Txn(txn(vec![document("services: [ { name: y } ]\n")], None))).unwrap();
        assert_eq!(run(&mut state, command()).unwrap(), first);
        let stale = judged(Basis::default(), command());
        assert_eq!(state.apply(Origin { leader: 1 }, stale).unwrap(), first);
    }

    #[test]
    fn rollouts_and_rollbacks_are_judged_alike() {
        let mut state = founded(RULES);
        run(&mut state, Command::Txn(txn(vec![document("services: [ { name: x } ]\n")], None))).unwrap();
        let start = |text: &str| Command::RolloutStart {
            txn: txn(vec![document(text)], None),
            policy: Policy::default(),
            participants: Vec::new(),
        };
        assert_eq!(run(&mut state, start("services: 7\n")).unwrap_err().code, "invalid");
        let id = run(&mut state, start("services: [ { name: y } ]\n")).unwrap().id;
        let commit = Command::RolloutCommit { id, at_ms: 1 };
        assert!(judge(&state, &commit).is_ok());
        state.apply(Origin { leader: 1 }, commit).unwrap();
        assert_eq!(state.rollouts.get(&id).unwrap().phase, Phase::Committed(2));
        let done = run(&mut state, Command::Rollback { by: Author::default(), to: 1 }).unwrap();
        assert_eq!((done.revision, done.changed), (3, 1));
        assert_eq!(
            run(&mut state, Command::Rollback { by: Author::default(), to: 99 }).unwrap_err().code,
            "unknown_revision"
        );
    }

    #[test]
    fn a_configuration_is_read_once_whoever_judges_it_and_however_often() {
        let (mut state, parsed) = (founded(RULES), Parsed::at_once());
        let mut run = |command: Command| {
            let basis = judge_by(&state, &command, Guards::default(), &parsed)?;
            let command = match (basis, &command) {
                (Some(basis), Command::Txn(_) | Command::RolloutStart { .. }) => judged(basis, command),
                _ => command,
            };
            state.apply(Origin { leader: 1 }, command).map(|done| (done, parsed.reads()))
        };
        let text = |number: u64| document(&format!("services: [ {{ name: s }}, {{ name: t{number} }} ]\n"));
        // The first has something before it, which is nothing.
        for number in 0..10 {
            let mut one = txn(vec![text(number)], None);
            one.force = number == 5;
            assert_eq!(run(Command::Txn(one)).unwrap().1, number + 2, "what was judged is what holds");
        }
        let start = Command::RolloutStart {
            txn: txn(vec![text(10)], None),
            policy: Policy::default(),
            participants: Vec::new(),
        };
        let (done, reads) = run(start).unwrap();
        assert_eq!(reads, 12);
        assert_eq!(run(Command::RolloutCommit { id: done.id, at_ms: 1 }).unwrap().1, 12);
        // What is wrong is known as well, and what registers reads nothing.
        for _ in 0..3 {
            assert_eq!(run(Command::Txn(txn(vec![document("services: 7\n")], None))).unwrap_err().code, "invalid");
        }
        assert_eq!(run(Command::Txn(txn(vec![backend("a")], None))).unwrap().1, 13);
        // Whatever takes something away is judged by what is written, once.
        for _ in 0..3 {
            let take = Command::Txn(txn(vec![delete("backend/api/a")], None));
            assert_eq!(run(take).unwrap_err().code, "guard_empty");
        }
        assert_eq!(parsed.reads(), 15, "before, and after");
    }

    #[test]
    fn only_what_takes_nothing_away_is_judged_where_others_wait() {
        let mut state = founded(RULES);
        run(&mut state, Command::Txn(txn(vec![backend("a")], None))).unwrap();
        let one = |op: Op| Command::Txn(txn(vec![op], None));
        let less = serde_json::from_str("{\"backend\":{\"address\":\"10.0.0.1:1\",\"weight\":1}}").unwrap();
        let less = Op::Put { key: "backend/api/a".parse().unwrap(), object: less };
        for light in [backend("a"), backend("b")] {
            assert!(!is_heavy(&state, &one(light)));
        }
        for heavy in [less, delete("backend/api/a"), document("services: []\n")] {
            assert!(is_heavy(&state, &one(heavy)));
        }
    }

    #[test]
    fn a_second_address_is_refused_until_all_members_know_what_it_is() {
        let object = r#"{"backend":{"address":"10.0.0.1:1","additional_address":"[fd00::1]:1"}}"#;
        let op = Op::Put { key: "backend/api/a".parse().unwrap(), object: serde_json::from_str(object).unwrap() };
        let put = Command::Txn(txn(vec![op], None));
        assert_eq!((put.rules(), judged(Basis::default(), put.clone()).rules()), (3, 3));
        assert_eq!(judged(Basis::default(), Command::Txn(txn(vec![backend("a")], None))).rules(), 1);
        for rules in 0..=RULES {
            let put = run(&mut founded(rules), put.clone()).map(drop).map_err(|refusal| refusal.code);
            assert_eq!(put, if rules < 3 { Err("unknown_rules".into()) } else { Ok(()) }, "{rules}");
        }
    }

    #[test]
    fn rules_are_raised_once_and_snapshots_are_written_as_all_members_read_them() {
        let mut state = founded(0);
        run(&mut state, Command::Txn(txn(vec![backend("a")], None))).unwrap();
        for version in 0..=RULES {
            if version > 0 {
                state.apply(Origin { leader: 1 }, Command::Rules { version }).unwrap();
                assert_eq!((state.rules, state.configured, state.lost), (version, 1, 1));
            }
            assert_eq!(u32::from(state.encode().unwrap()[0]), version + 1);
            assert_eq!(State::decode(&state.encode().unwrap()).unwrap(), state);
        }
        for version in [0, RULES] {
            assert_eq!(state.apply(Origin { leader: 1 }, Command::Rules { version }).unwrap_err().code, "known");
        }
        assert_eq!(
            state.apply(Origin { leader: 1 }, Command::Rules { version: RULES + 1 }).unwrap_err().code,
            "unknown_rules"
        );
    }
}
