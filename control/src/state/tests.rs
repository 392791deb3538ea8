use super::*;
use proptest::prelude::*;

const ORIGIN: Origin = Origin { leader: 1 };

fn by() -> Author {
    Author { at_ms: 5, author: "test".into(), note: String::new() }
}

fn txn(ops: Vec<Op>) -> Txn {
    Txn { by: by(), request: None, conditions: Vec::new(), ops, force: false }
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn backend(port: u16) -> Object {
    Object::Backend(serde_json::from_str(&format!("{{\"address\":\"10.0.0.1:{port}\"}}")).unwrap())
}

fn put(name: &str, object: Object) -> Op {
    Op::Put { key: key(name), object }
}

fn document(text: &str) -> Op {
    put("document/main", Object::Document(Text { text: text.into() }))
}

fn code(answer: Answer) -> String {
    answer.unwrap_err().code
}

fn fresh() -> State {
    let mut state = State::default();
    state.apply(ORIGIN, Command::Init { cluster: "c".into() }).unwrap();
    state
}

const CONFIG: &str = "services: [ { name: api, backends: [ { id: a, address: \"127.0.0.1:1\" } ] } ]";

#[test]
fn a_refused_transaction_changes_nothing() {
    let mut state = fresh();
    state.apply(ORIGIN, Command::Txn(txn(vec![put("backend/api/a", backend(1))]))).unwrap();
    let before = state.clone();
    let half = vec![put("backend/api/b", backend(2)), Op::Delete { key: key("backend/api/nobody") }];
    assert_eq!(code(state.apply(ORIGIN, Command::Txn(txn(half)))), "not_found");
    let bad = vec![document("services: [ { nme: 3 } ]")];
    let refusal = state.apply(ORIGIN, Command::Txn(txn(bad))).unwrap_err();
    assert_eq!(refusal.code, "invalid");
    assert!(refusal.findings[0].contains("control plane: document/main:1:"), "{:?}", refusal.findings);
    assert_eq!(state, before);
}

#[test]
fn compare_and_set_sees_every_change() {
    let mut state = fresh();
    let condition = |modified| vec![Condition { key: key("backend/api/a"), modified }];
    let set =
        |modified, port| Txn { conditions: condition(modified), ..txn(vec![put("backend/api/a", backend(port))]) };
    assert_eq!(state.apply(ORIGIN, Command::Txn(set(0, 1))).unwrap().revision, 1);
    assert_eq!(code(state.apply(ORIGIN, Command::Txn(set(0, 2)))), "stale");
    assert_eq!(state.apply(ORIGIN, Command::Txn(set(1, 2))).unwrap().revision, 2);
    assert_eq!(code(state.apply(ORIGIN, Command::Txn(set(1, 3)))), "stale");
    // What changes nothing is no revision.
    assert_eq!(state.apply(ORIGIN, Command::Txn(set(2, 2))).unwrap(), Applied { revision: 2, id: 0, changed: 0 });
}

#[test]
fn a_named_request_is_done_once() {
    let mut state = fresh();
    let ask = |port| Txn { request: Some("r1".into()), ..txn(vec![put("backend/api/a", backend(port))]) };
    let first = state.apply(ORIGIN, Command::Txn(ask(1))).unwrap();
    state.apply(ORIGIN, Command::Txn(txn(vec![put("backend/api/a", backend(3))]))).unwrap();
    assert_eq!(state.apply(ORIGIN, Command::Txn(ask(1))).unwrap(), first);
    assert_eq!(state.object(&key("backend/api/a")), Some(&backend(3)), "it is not done again");
    // The same name for something else, or by somebody else, is not what was asked before.
    assert_eq!(code(state.apply(ORIGIN, Command::Txn(ask(2)))), "idempotency_mismatch");
    let other = Author { author: "other".into(), ..by() };
    assert_eq!(code(state.apply(ORIGIN, Command::Txn(Txn { by: other, ..ask(1) }))), "idempotency_mismatch");
    // Not even one whose name begins alike.
    let longer = Txn { request: Some("r".into()), ..txn(vec![put("backend/api/b", backend(1))]) };
    assert_eq!(state.apply(ORIGIN, Command::Txn(longer)).unwrap().changed, 1);
}

#[test]
fn rollback_makes_objects_as_they_were() {
    let mut state = fresh();
    state.apply(ORIGIN, Command::Txn(txn(vec![document(CONFIG), put("backend/api/a", backend(1))]))).unwrap();
    let then = state.clone();
    state.apply(ORIGIN, Command::Txn(txn(vec![put("backend/api/b", backend(2))]))).unwrap();
    state.apply(ORIGIN, Command::Txn(txn(vec![put("backend/api/a", backend(9))]))).unwrap();
    state.apply(ORIGIN, Command::Txn(txn(vec![Op::Delete { key: key("document/main") }]))).unwrap();
    let done = state.apply(ORIGIN, Command::Rollback { by: by(), to: 1 }).unwrap();
    assert_eq!((done.revision, done.changed), (5, 3));
    assert_eq!(state.digest, then.digest);
    assert_eq!(state.history.get(&5).unwrap().note, "rollback to 1");
    assert_eq!(code(state.apply(ORIGIN, Command::Rollback { by: by(), to: 99 })), "unknown_revision");
}

#[test]
fn history_is_bounded_and_says_so() {
    let mut state = fresh();
    for port in 0..HISTORY_MAX as u16 + 5 {
        state.apply(ORIGIN, Command::Txn(txn(vec![put("backend/api/a", backend(port + 1))]))).unwrap();
    }
    assert_eq!(state.history.size(), HISTORY_MAX);
    assert!(state.changes_since(3).is_none());
    assert_eq!(state.changes_since(state.revision - 2).unwrap().len(), 2);
    let refusal = state.apply(ORIGIN, Command::Rollback { by: by(), to: 1 }).unwrap_err();
    assert!(refusal.message.contains("choose one from 5 to 1005"), "{}", refusal.message);
    let weight: usize = state.history.values().map(Revision::weight).sum();
    assert_eq!(weight, state.history_bytes);
}

#[test]
fn leases_end_with_what_hangs_on_them_by_their_own_leader_only() {
    let mut state = fresh();
    let grant = Command::LeaseGrant { owner: "agent".into(), ttl_ms: 5000 };
    let lease = state.apply(ORIGIN, grant).unwrap().id;
    let Object::Backend(mut with) = backend(1) else { unreachable!() };
    with.lease = Some(lease);
    state.apply(ORIGIN, Command::Txn(txn(vec![put("backend/api/a", Object::Backend(with.clone()))]))).unwrap();
    let lock = Command::LockAcquire { name: "job".into(), owner: "agent".into(), lease };
    let token = state.apply(ORIGIN, lock.clone()).unwrap().id;
    assert_eq!(state.apply(ORIGIN, lock).unwrap().id, token, "asked twice");
    let other = state.apply(ORIGIN, Command::LeaseGrant { owner: "b".into(), ttl_ms: 5000 }).unwrap().id;
    let steal = Command::LockAcquire { name: "job".into(), owner: "b".into(), lease: other };
    assert_eq!(code(state.apply(ORIGIN, steal.clone())), "locked");

    let expire = Command::LeaseExpire { leader: 1, at_ms: 9, ids: vec![lease] };
    assert_eq!(code(state.apply(Origin { leader: 2 }, expire.clone())), "deposed");
    assert_eq!(state.apply(ORIGIN, expire).unwrap().changed, 1);
    assert!(state.object(&key("backend/api/a")).is_none());
    assert!(state.apply(ORIGIN, steal).unwrap().id > token, "the fencing token rises");
    assert_eq!(code(state.apply(ORIGIN, Command::LockRelease { name: "job".into(), token })), "wrong_token");
    assert_eq!(
        code(state.apply(ORIGIN, Command::Txn(txn(vec![put("backend/api/a", Object::Backend(with))])))),
        "not_found"
    );
}

#[test]
fn accidents_are_refused_unless_forced() {
    let mut state = fresh();
    let ops = (1..=4).map(|port| put(&format!("backend/api/{port}"), backend(port))).collect();
    state.apply(ORIGIN, Command::Txn(txn(ops))).unwrap();
    let delete = |count: u16| (1..=count).map(|port| Op::Delete { key: key(&format!("backend/api/{port}")) }).collect();
    assert_eq!(code(state.apply(ORIGIN, Command::Txn(txn(delete(4))))), "guard_empty");
    assert_eq!(code(state.apply(ORIGIN, Command::Txn(txn(delete(3))))), "guard_loss");
    state.clone().apply(ORIGIN, Command::Txn(txn(delete(2)))).unwrap();
    state.apply(ORIGIN, Command::Txn(Txn { force: true, ..txn(delete(4)) })).unwrap();
}

fn rollout(state: &mut State, stages: Vec<u8>, participants: &[&str]) -> u64 {
    let policy = Policy { stages_percent: stages, ..Policy::default() };
    let participants = participants.iter().map(|&name| name.into()).collect();
    state.apply(ORIGIN, Command::RolloutStart { txn: txn(vec![document(CONFIG)]), policy, participants }).unwrap().id
}

fn vote(refusal: Option<&str>, digest: &str) -> Vote {
    Vote { refusal: refusal.map(str::to_owned), digest: digest.into(), moved_ppm: 0 }
}

fn votes(state: &mut State, id: u64, votes: &[(&str, Vote)]) {
    let votes = votes.iter().map(|(proxy, vote)| ((*proxy).to_owned(), vote.clone())).collect();
    state.apply(ORIGIN, Command::RolloutVotes { id, votes }).unwrap();
}

/// What ends a stage, and a word of the reason; all of them although the time is over.
fn harms() -> [(Observed, &'static str); 4] {
    let baked = || Observed { baked_ms: Some(60_000), ..Observed::default() };
    let straggler = Some("p: bind".into());
    [
        (Observed { cohort_ppm: 20_001, rest_ppm: 10_000, cohort_requests: 1000, ..baked() }, "failed 2.00 %"),
        (Observed { cohort_lost: 1, ..baked() }, "1 proxies that had the change are gone"),
        (Observed { stuck: Some("p: bind".into()), ..baked() }, "stuck where it goes first: p: bind"),
        (Observed { cohort_waiting: 1, straggler, waited_ms: 10_000, ..Observed::default() }, "in time, p: bind among"),
    ]
}

#[test]
fn a_rollout_holds_when_all_have_said_yes() {
    let mut state = fresh();
    let id = rollout(&mut state, vec![50], &["p", "q"]);
    assert_eq!(state.revision, 0, "nothing holds yet");
    assert_eq!(code(state.apply(ORIGIN, Command::Txn(txn(vec![document("{}")])))), "rollout_active");
    state.apply(ORIGIN, Command::Txn(txn(vec![put("backend/api/b", backend(2))]))).unwrap();
    votes(&mut state, id, &[("p", vote(None, "d")), ("stranger", vote(Some("no"), "x"))]);
    assert_eq!(state.rollout().unwrap().next(100, &Observed::default()), Step::Wait(9_900));
    votes(&mut state, id, &[("q", vote(None, "d")), ("p", vote(Some("late no"), "d"))]);
    assert_eq!(state.rollout().unwrap().next(100, &Observed::default()), Step::Advance(0));
    state.apply(ORIGIN, Command::RolloutAdvance { id, stage: 0 }).unwrap();
    assert_eq!(code(state.apply(ORIGIN, Command::RolloutAdvance { id, stage: 0 })), "wrong_stage");
    let running = state.rollout().unwrap();
    let baked = |ms| Observed { baked_ms: Some(ms), ..Observed::default() };
    assert_eq!((running.percent(), running.next(1000, &baked(1000))), (50, Step::Wait(29_000)));
    assert_eq!(running.next(30_000, &baked(30_000)), Step::Commit);
    assert_eq!(running.next(40_000, &Observed::default()), Step::Wait(10_000), "nobody has it: nothing is watched");
    for (bad, why) in harms() {
        let Step::Abort(reason) = running.next(0, &bad) else { panic!("{bad:?}") };
        assert!(reason.contains(why), "{reason}");
    }
    state.apply(ORIGIN, Command::RolloutCommit { id, at_ms: 7 }).unwrap();
    assert_eq!(state.revision, 2);
    assert!(state.object(&key("document/main")).is_some());
    assert!(state.rollout().is_none());
    assert_eq!(code(state.apply(ORIGIN, Command::RolloutAbort { id, reason: "late".into() })), "rollout_over");
}

#[test]
fn a_rollout_ends_with_the_first_no_two_digests_or_silence() {
    let cases: [(&[(&str, Vote)], &str); 3] = [
        (&[("p", vote(Some("cannot bind"), ""))], "refused by p: cannot bind"),
        (&[("p", vote(None, "x")), ("q", vote(None, "y"))], "p and q would build different rings from it"),
        (&[("p", vote(None, "x"))], "1 of 2 proxies have not said whether they can build it, q among them"),
    ];
    for (given, reason) in cases {
        let mut state = fresh();
        let id = rollout(&mut state, Vec::new(), &["p", "q"]);
        votes(&mut state, id, given);
        assert_eq!(state.rollout().unwrap().next(10_000, &Observed::default()), Step::Abort(reason.into()));
        state.apply(ORIGIN, Command::RolloutAbort { id, reason: reason.into() }).unwrap();
        assert_eq!((state.revision, state.objects.size()), (0, 0));
    }
}

#[test]
fn a_rollout_that_fits_no_more_is_aborted_by_its_commit() {
    let mut state = fresh();
    state.apply(ORIGIN, Command::Txn(txn(vec![put("backend/api/a", backend(1))]))).unwrap();
    let ops = vec![document(CONFIG), Op::Delete { key: key("backend/api/a") }];
    let start = Command::RolloutStart {
        txn: Txn { force: true, ..txn(ops) },
        policy: Policy::default(),
        participants: Vec::new(),
    };
    let id = state.apply(ORIGIN, start).unwrap().id;
    state
        .apply(ORIGIN, Command::Txn(Txn { force: true, ..txn(vec![Op::Delete { key: key("backend/api/a") }]) }))
        .unwrap();
    let before = state.digest;
    state.apply(ORIGIN, Command::RolloutCommit { id, at_ms: 1 }).unwrap();
    assert!(matches!(&state.rollouts.get(&id).unwrap().phase, Phase::Aborted(why) if why.contains("is not there")));
    assert_eq!((state.digest, state.revision), (before, 2));
}

#[test]
fn cohorts_grow_and_a_hundred_percent_is_everybody() {
    let names: Vec<String> = (0..1000).map(|index| format!("proxy-{index}")).collect();
    let of = |percent| names.iter().filter(|name| Rollout::in_cohort(7, name, percent)).collect::<Vec<_>>();
    assert_eq!((of(0).len(), of(100).len()), (0, 1000));
    assert!((60..140).contains(&of(10).len()), "{}", of(10).len());
    assert!(of(10).iter().all(|name| of(50).contains(name)));
}

#[test]
fn a_share_is_never_nobody_and_hardly_more_than_it_says() {
    let mut exact = 0;
    for id in 0..200 {
        for count in [1_usize, 3, 10, 200] {
            let mut before = 0;
            for (stage, percent) in [1_u8, 10, 50, 99, 100].into_iter().enumerate() {
                let names: Vec<String> = (0..count).map(|index| format!("edge-{index}")).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let mut state = fresh();
                rollout(&mut state, vec![1, 10, 50, 99, 100], &names);
                let mut rollout = state.rollout().unwrap().clone();
                (rollout.id, rollout.phase) = (id, Phase::Stage(stage as u32));
                let inside = names.iter().filter(|name| Rollout::in_cohort(id, name, rollout.threshold())).count();
                let wanted = (count * usize::from(percent)).div_ceil(100);
                assert!(
                    inside >= wanted && inside >= before && inside <= wanted + 12,
                    "{inside} of {count}, {percent} %"
                );
                exact += usize::from(count == 3 && inside == wanted);
                before = inside;
            }
        }
    }
    assert!(exact > 950, "{exact} of 1000: only names that fall into one hundredth come together");
}

#[test]
fn rings_are_compared_where_they_are_of_the_same_revision() {
    let cases: [(&[(&str, Vote)], bool); 4] = [
        // A backend has registered between the two.
        (&[("p", vote(None, "1.100;s=0a;")), ("q", vote(None, "1.101;s=0b;"))], true),
        (
            &[("o", vote(None, "1.100;s=0a;")), ("p", vote(None, "1.101;s=0b;")), ("q", vote(None, "1.101;s=0c;"))],
            false,
        ),
        // Older proxies do not say.
        (&[("p", vote(None, "s=0a;")), ("q", vote(None, "1.101;s=0b;"))], true),
        (&[("o", vote(None, "1.1=0a;")), ("p", vote(None, "1.1=0b;")), ("q", vote(None, "1.101;s=0b;"))], false),
    ];
    for (given, fits) in cases {
        let mut state = fresh();
        let names: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
        let id = rollout(&mut state, Vec::new(), &names);
        votes(&mut state, id, given);
        let step = state.rollout().unwrap().next(0, &Observed::default());
        assert_eq!(step == Step::Commit, fits, "{step:?}");
    }
    assert_eq!(Vote::digest(1, 100, "s=0a;"), "1.100;s=0a;");
}

#[test]
fn a_backup_comes_back_whole_in_a_new_epoch() {
    let mut state = fresh();
    state.apply(ORIGIN, Command::Txn(txn(vec![document(CONFIG), put("backend/api/a", backend(1))]))).unwrap();
    let backup = state.encode().unwrap();
    let whole = *blake3::hash(&backup).as_bytes();
    state
        .apply(ORIGIN, Command::Txn(Txn { force: true, ..txn(vec![Op::Delete { key: key("backend/api/a") }]) }))
        .unwrap();
    let restore = |state: &mut State, whole| {
        for (number, part) in backup.chunks(100).enumerate() {
            let number = u32::try_from(number).unwrap();
            state.apply(ORIGIN, Command::RestoreChunk { whole, number, bytes: part.to_vec() }).unwrap();
        }
        state.apply(ORIGIN, Command::RestoreCommit { by: by(), whole })
    };
    let before = state.clone();
    assert_eq!(code(restore(&mut state, [0; 32])), "damaged");
    assert_eq!((state.revision, state.digest), (before.revision, before.digest));
    let done = restore(&mut state, whole).unwrap();
    assert_eq!((done.revision, state.epoch), (3, 2));
    assert_eq!(state.objects, State::decode(&backup).unwrap().objects);
    // And back again: a restore is a revision like any other.
    state.apply(ORIGIN, Command::Rollback { by: by(), to: 2 }).unwrap();
    assert_eq!(state.digest, before.digest);
}

#[test]
fn an_epoch_is_raised_only_above_what_the_cluster_has_not() {
    let mut state = State::default();
    state.apply(ORIGIN, Command::Found { cluster: "c".into(), epoch: 100, rules: RULES }).unwrap();
    let raise = |seen, to| Command::RaiseEpoch { seen, to };
    assert_eq!(code(state.apply(ORIGIN, raise((100, 0), 101))), "known", "it was ahead of a member that lags");
    assert_eq!(code(state.apply(ORIGIN, raise((100, 5), 100))), "bad_epoch");
    assert_eq!(code(state.apply(ORIGIN, raise((u64::MAX, 5), u64::MAX))), "bad_epoch");
    state.apply(ORIGIN, raise((102, 5), 103)).unwrap();
    assert_eq!((state.epoch, state.revision), (103, 0));
    let mut old = fresh();
    assert_eq!(code(old.apply(ORIGIN, raise((102, 5), 103))), "unknown_rules");
}

#[test]
fn agreed_health_is_a_revision_and_only_once() {
    let mut state = fresh();
    state.apply(ORIGIN, Command::Txn(txn(vec![put("backend/api/a", backend(1))]))).unwrap();
    let agree = |down| Command::Agree { at_ms: 1, verdicts: vec![(key("backend/api/a"), down)], note: "p, q".into() };
    assert_eq!(state.apply(ORIGIN, agree(true)).unwrap(), Applied { revision: 2, id: 0, changed: 1 });
    assert_eq!(state.apply(ORIGIN, agree(true)).unwrap().changed, 0);
    let config = fleet_config(&state, |_| Default::default());
    assert!(config.backends[0].drain);
    state.apply(ORIGIN, agree(false)).unwrap();
    assert!(!fleet_config(&state, |_| Default::default()).backends[0].drain);
}

#[test]
fn keys_are_read_strictly() {
    for good in ["document/main", "backend/api/10.0.0.1:80", "service/a_b", "certificate/x"] {
        assert_eq!(key(good).to_string(), good);
    }
    for bad in [
        "",
        "document",
        "document/",
        "backend/api",
        "backend/a/b/c",
        "service/a b",
        "service/a/b",
        "other/x",
        "document/\u{e9}",
    ] {
        assert!(bad.parse::<Key>().is_err(), "{bad}");
    }
}

fn arbitrary_op() -> impl Strategy<Value = Op> {
    let name = (0..3u8, 0..4u8).prop_map(|(service, id)| key(&format!("backend/s{service}/b{id}")));
    prop_oneof![
        (name.clone(), 1..50u16).prop_map(|(key, port)| Op::Put { key, object: backend(port) }),
        name.clone().prop_map(|key| Op::Delete { key }),
        (name, 0..200u32).prop_map(|(key, weight)| Op::Backend { key, weight: Some(weight), state: None }),
        (0..3u8)
            .prop_map(|n| put(&format!("service/s{n}"), Object::Service(Text { text: format!("{{ weight: {n} }}") }))),
        (0..3u8).prop_map(|n| put(&format!("service/s{n}"), Object::Service(Text { text: "{}".into() }))),
    ]
}

proptest! {
    /// Against a naive model: a map that takes a transaction if every step is possible.
    #[test]
    fn equal_commands_make_equal_states_and_digests(txns in proptest::collection::vec(proptest::collection::vec(arbitrary_op(), 1..4), 1..30)) {
        let (mut state, mut twin) = (fresh(), fresh());
        let mut model: std::collections::BTreeMap<Key, Object> = Default::default();
        for ops in txns {
            let command = Command::Txn(Txn { force: true, ..txn(ops.clone()) });
            let encoded = postcard::to_allocvec(&command).unwrap();
            let answer = state.apply(ORIGIN, command);
            prop_assert_eq!(&answer, &twin.apply(ORIGIN, postcard::from_bytes(&encoded).unwrap()));
            if answer.is_ok() {
                for op in ops {
                    match op {
                        Op::Put { key, object } => { model.insert(key, object); }
                        Op::Delete { key } => { model.remove(&key); }
                        Op::Backend { key, weight, .. } => {
                            if let (Some(Object::Backend(backend)), Some(weight)) = (model.get_mut(&key), weight) { backend.weight = weight; }
                        }
                    }
                }
            }
            let objects: std::collections::BTreeMap<Key, Object> = state.objects.iter().map(|(key, entry)| (key.clone(), (*entry.object).clone())).collect();
            prop_assert_eq!(&objects, &model);
            let mut digest = Digest::default();
            model.iter().for_each(|(key, object)| digest.add(key, object));
            prop_assert_eq!(state.digest, digest);
            prop_assert_eq!(state.objects_bytes, model.values().map(Object::weight).sum::<usize>());
        }
        prop_assert_eq!(&state, &twin);
        prop_assert_eq!(&State::decode(&state.encode().unwrap()).unwrap(), &state);
    }

    #[test]
    fn damaged_states_are_refused_or_read_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = State::decode(&bytes);
        let mut framed = vec![1];
        framed.extend(bytes);
        let _ = State::decode(&framed);
        let _ = postcard::from_bytes::<Command>(&framed);
    }
}

/// Each costs four bytes, and a command may have two million.
#[test]
fn judgements_of_judgements_are_not_read_however_many_they_are() {
    let judged = |command| Command::Judged { basis: Basis::default(), command: Box::new(command) };
    let release = Command::LockRelease { name: "l".into(), token: 1 };
    let inner = postcard::to_allocvec(&release).unwrap();
    let once = postcard::to_allocvec(&judged(release.clone())).unwrap();
    assert_eq!(postcard::from_bytes::<Command>(&once).unwrap(), judged(release.clone()));
    let head = &once[..once.len() - inner.len()];
    for depth in [2, 100_000] {
        let deep = [&head.repeat(depth)[..], &inner].concat();
        assert!(postcard::from_bytes::<Command>(&deep).is_err(), "{depth}");
    }
    // And nothing is left of it.
    assert_eq!(postcard::from_bytes::<Command>(&once).unwrap(), judged(release));
}
