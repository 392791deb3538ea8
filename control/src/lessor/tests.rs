//! The lessor, told and asked.

use super::*;
use crate::state::{Author, Backend, Key, Object, Op, Origin, Policy, Rollout, Text, Txn};

mod epochs;
mod lapses;
mod loads;
mod noted;

const ORIGIN: Origin = Origin { leader: 1 };

/// One that is told of every lapse, however long its steps are.
fn lessor(now: Instant) -> Lessor {
    Lessor { clock: Clock::watched(now), ..Lessor::new(now) }
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn txn(ops: Vec<Op>) -> Txn {
    Txn { by: Author::default(), request: None, conditions: Vec::new(), ops, force: true }
}

fn backend(lease: Option<u64>) -> Object {
    let mut backend: Backend = serde_json::from_str("{\"address\":\"10.0.0.1:1\"}").unwrap();
    backend.lease = lease;
    Object::Backend(backend)
}

fn put(state: &mut State, backends: &[(&str, Option<u64>)]) {
    let ops = backends.iter().map(|(name, lease)| Op::Put { key: key(name), object: backend(*lease) }).collect();
    state.apply(ORIGIN, Command::Txn(txn(ops))).unwrap();
}

fn grant(state: &mut State) -> u64 {
    state.apply(ORIGIN, Command::LeaseGrant { owner: "o".into(), ttl_ms: 5000 }).unwrap().id
}

/// Ticks five times a second from one second to another; how many leases have expired.
fn run(lessor: &mut Lessor, state: &mut State, start: Instant, seconds: std::ops::Range<u64>) -> usize {
    let mut gone = 0;
    for tick in seconds.start * 5..seconds.end * 5 {
        for command in lessor.handle_tick(state, 1, 0, start + Duration::from_millis(tick * 200)) {
            gone += expired(std::slice::from_ref(&command));
            state.apply(ORIGIN, command).unwrap();
        }
    }
    gone
}

/// A state with so many leased backends of one service.
fn leased(count: u16) -> State {
    let mut state = State::default();
    state.apply(ORIGIN, Command::Init { cluster: "c".into() }).unwrap();
    for index in 0..count {
        let id = grant(&mut state);
        put(&mut state, &[(&format!("backend/api/{index}"), Some(id))]);
    }
    state
}

fn heartbeat(state: &State) -> Heartbeat {
    Heartbeat {
        version: "1".into(),
        epoch: state.epoch,
        revision: state.revision,
        digest: state.digest.to_string(),
        rings: BTreeMap::from([("api".into(), "d".into())]),
        stuck: None,
        generation: 1,
        vote: None,
        down: Vec::new(),
        requests: 0,
        failed: 0,
        canary: None,
        instance: 7,
        cluster: String::new(),
    }
}

fn expired(commands: &[Command]) -> usize {
    commands.iter().map(|command| if let Command::LeaseExpire { ids, .. } = command { ids.len() } else { 0 }).sum()
}

#[test]
fn a_new_leader_grants_a_whole_life_and_heartbeats_extend_it() {
    let start = Instant::now();
    let mut state = leased(1);
    put(&mut state, &[("backend/api/other", None)]);
    let mut lessor = lessor(start);
    let ms = |ms| start + Duration::from_millis(ms);
    assert_eq!(expired(&lessor.handle_tick(&state, 1, 0, ms(0))), 0);
    // Granted long after the leader began: it has its life as well.
    let late = state.apply(ORIGIN, Command::LeaseGrant { owner: "late".into(), ttl_ms: 1000 }).unwrap().id;
    assert_eq!(expired(&lessor.handle_tick(&state, 1, 0, ms(4500))), 0);
    state.apply(ORIGIN, Command::LeaseRevoke { by: Author::default(), ids: vec![late] }).unwrap();
    assert_eq!(expired(&lessor.handle_tick(&state, 1, 0, ms(5000))), 0);
    assert_eq!(lessor.handle_keep_alive(&state, &[1, 99], ms(5000)), Kept::Missing(vec![99]));
    assert_eq!(expired(&lessor.handle_tick(&state, 1, 0, ms(10_000))), 0);
    let commands = lessor.handle_tick(&state, 1, 0, ms(10_001));
    assert_eq!(expired(&commands), 1);
    state.apply(ORIGIN, commands[0].clone()).unwrap();
    assert_eq!(state.objects.size(), 1);
    assert!(lessor.handle_tick(&state, 1, 0, ms(20_000)).is_empty());
}

#[test]
fn a_lease_lives_from_when_it_is_granted_however_long_its_leader_leads() {
    let start = Instant::now();
    let mut state = State::default();
    let mut lessor = lessor(start);
    let ms = |ms| start + Duration::from_millis(ms);
    assert!(lessor.handle_tick(&state, 1, 0, ms(60_000)).is_empty());
    state.apply(ORIGIN, Command::LeaseGrant { owner: "o".into(), ttl_ms: 1000 }).unwrap();
    assert_eq!(expired(&lessor.handle_tick(&state, 1, 0, ms(60_200))), 0);
    assert_eq!(expired(&lessor.handle_tick(&state, 1, 0, ms(61_200))), 0);
    assert_eq!(expired(&lessor.handle_tick(&state, 1, 0, ms(61_201))), 1);
}

#[test]
fn a_lease_whose_end_is_proposed_is_not_said_to_live() {
    let start = Instant::now();
    let mut state = leased(1);
    put(&mut state, &[("backend/api/other", None)]);
    let mut lessor = lessor(start);
    let ms = |ms| start + Duration::from_millis(ms);
    assert!(lessor.handle_tick(&state, 1, 0, start).is_empty());
    let commands = lessor.handle_tick(&state, 1, 0, ms(5001));
    assert_eq!(expired(&commands), 1);
    // The entry may take its time: the state has the lease still.
    assert_eq!(lessor.handle_keep_alive(&state, &[1], ms(5002)), Kept::Missing(vec![1]));
    state.apply(ORIGIN, commands[0].clone()).unwrap();
    assert_eq!(lessor.handle_keep_alive(&state, &[1], ms(5300)), Kept::Missing(vec![1]));
    // One that is granted anew is another.
    let id = state.apply(ORIGIN, Command::LeaseGrant { owner: "o".into(), ttl_ms: 5000 }).unwrap().id;
    assert_eq!(lessor.handle_keep_alive(&state, &[id], ms(5400)), Kept::Missing(vec![]));
}

#[test]
fn a_storm_of_expiries_is_stopped_for_as_long_as_it_lasts() {
    let start = Instant::now();
    let mut state = leased(50);
    let mut lessor = lessor(start);
    assert_eq!(run(&mut lessor, &mut state, start, 0..90), 10, "a fifth of fifty, and no other fifth later");
    assert_eq!(lessor.frozen().get("api"), Some(&40));
    // The network is back, and then a single host dies.
    let ids: Vec<u64> = state.leases.keys().copied().collect();
    let mut at = 90;
    while at < 120 {
        lessor.handle_keep_alive(&state, &ids[1..], start + Duration::from_secs(at));
        if at < 110 {
            lessor.handle_keep_alive(&state, &ids[..1], start + Duration::from_secs(at));
        }
        let gone = run(&mut lessor, &mut state, start, at..at + 3);
        assert_eq!(gone, usize::from(at == 111), "at {at}");
        at += 3;
    }
    assert!(lessor.frozen().is_empty());
}

#[test]
fn a_few_that_are_dead_go_one_after_another() {
    let start = Instant::now();
    let mut state = leased(4);
    let mut lessor = lessor(start);
    let ids: Vec<u64> = state.leases.keys().copied().collect();
    let mut gone = Vec::new();
    for second in 0..200 {
        // Two of four hosts die together.
        lessor.handle_keep_alive(&state, &ids[2..], start + Duration::from_secs(second));
        if run(&mut lessor, &mut state, start, second..second + 1) > 0 {
            gone.push(second);
        }
    }
    assert_eq!(gone.len(), 2, "{gone:?}");
    assert!((60..80).contains(&(gone[1] - gone[0])), "{gone:?}");
    assert!(lessor.frozen().is_empty());
}

#[test]
fn a_lease_counts_for_as_many_backends_as_hang_on_it() {
    let start = Instant::now();
    let mut state = leased(0);
    let many: Vec<String> = (0..10).map(|index| format!("backend/api/{index}")).collect();
    let (all, one, lock) = (grant(&mut state), grant(&mut state), grant(&mut state));
    let hang: Vec<(&str, Option<u64>)> = many.iter().map(|name| (name.as_str(), Some(all))).collect();
    put(&mut state, &hang);
    put(&mut state, &[("backend/api/single", Some(one)), ("backend/other/x", Some(all)), ("backend/other/y", None)]);
    let acquire = Command::LockAcquire { name: "job".into(), owner: "o".into(), lease: lock };
    state.apply(ORIGIN, acquire).unwrap();
    let mut lessor = lessor(start);
    assert_eq!(run(&mut lessor, &mut state, start, 0..60), 2, "ten at once are a storm, a lock is none");
    assert!(state.leases.contains_key(&all) && state.objects.size() == 12);
    assert_eq!(lessor.frozen(), &BTreeMap::from([("api".to_owned(), 10)]));
}

#[test]
fn expiry_takes_one_after_another_and_never_the_last() {
    let start = Instant::now();
    let mut state = leased(3);
    let mut lessor = lessor(start);
    // Not a storm: one falls silent every twenty seconds.
    let ids: Vec<u64> = state.leases.keys().copied().collect();
    let mut gone = 0;
    for second in 0..90 {
        let alive = &ids[(second as usize / 20).min(3)..];
        lessor.handle_keep_alive(&state, alive, start + Duration::from_secs(second));
        gone += run(&mut lessor, &mut state, start, second..second + 1);
    }
    assert_eq!((gone, state.objects.size()), (2, 1), "nobody would serve at all");
    assert_eq!(lessor.frozen().get("api"), Some(&1));
    // Its successor registers: now it may go. What does not take traffic is no successor.
    put(&mut state, &[("backend/api/drained", None)]);
    let drain = Op::Backend { key: key("backend/api/drained"), weight: Some(0), state: None };
    state.apply(ORIGIN, Command::Txn(txn(vec![drain]))).unwrap();
    assert_eq!(run(&mut lessor, &mut state, start, 90..105), 0);
    put(&mut state, &[("backend/api/next", None)]);
    assert_eq!(run(&mut lessor, &mut state, start, 105..106), 1);
}

#[test]
fn a_service_that_a_document_gives_backends_may_lose_its_registered_ones() {
    for written in [false, true] {
        let start = Instant::now();
        let mut state = leased(1);
        let backends = if written { "[ { id: x, address: \"10.0.0.9:1\" } ]" } else { "[]" };
        let object = Object::Document(Text { text: format!("services: [ {{ name: api, backends: {backends} }} ]") });
        let op = Op::Put { key: key("document/main"), object };
        state.apply(ORIGIN, Command::Txn(txn(vec![op]))).unwrap();
        let mut lessor = lessor(start);
        assert_eq!(run(&mut lessor, &mut state, start, 0..30), usize::from(written));
    }
}

/// A text of a megabyte takes a second to read: that is no tick's to do, nor every tick's.
#[test]
fn a_tick_reads_no_text_and_what_it_waits_for_is_read_once() {
    let start = Instant::now();
    let mut state = leased(1);
    let document = |weight: u32| {
        let text = format!(
            "services: [ {{ name: api, backends: [ {{ id: x, address: \"10.0.0.9:1\", weight: {weight} }} ] }} ]"
        );
        Op::Put { key: key("document/main"), object: Object::Document(Text { text }) }
    };
    state.apply(ORIGIN, Command::Txn(txn(vec![document(0)]))).unwrap();
    let parsed = Arc::new(Parsed::elsewhere());
    let mut lessor = lessor(start).with_parsed(Arc::clone(&parsed));
    assert_eq!(run(&mut lessor, &mut state, start, 0..20), 0, "nobody knows whether it has others");
    assert_eq!(parsed.reads(), 0);
    assert_eq!(lessor.frozen().get("api"), Some(&1));
    assert!(parsed.take_wanted() && !parsed.take_wanted());
    parsed.read_written(&state);
    assert_eq!(run(&mut lessor, &mut state, start, 20..30), 0, "the other takes no traffic");
    // Registered ones are none of the texts.
    put(&mut state, &[("backend/other/a", None)]);
    assert_eq!(run(&mut lessor, &mut state, start, 30..40), 0);
    assert!(!parsed.take_wanted() && parsed.reads() == 1);
    state.apply(ORIGIN, Command::Txn(txn(vec![document(1)]))).unwrap();
    assert_eq!(run(&mut lessor, &mut state, start, 40..41), 0);
    assert!(parsed.take_wanted());
    parsed.read_written(&state);
    parsed.read_written(&state);
    assert_eq!((run(&mut lessor, &mut state, start, 41..42), parsed.reads()), (1, 2));
}

#[test]
fn an_expiry_that_came_to_nothing_does_not_count() {
    let start = Instant::now();
    let mut state = leased(4);
    let mut lessor = lessor(start);
    let ids: Vec<u64> = state.leases.keys().copied().collect();
    let at = |ms| start + Duration::from_millis(ms);
    assert!(lessor.handle_tick(&state, 1, 0, at(0)).is_empty());
    lessor.handle_keep_alive(&state, &ids[1..], at(5000));
    assert_eq!(expired(&lessor.handle_tick(&state, 1, 0, at(5200))), 1, "proposed, and not decided");
    assert_eq!(run(&mut lessor, &mut state, start, 6..7), 1);
}

#[test]
fn the_fleet_is_seen_as_it_is() {
    let start = Instant::now();
    let state = leased(1);
    let mut lessor = lessor(start);
    let mut tell = |name: &str, change: &dyn Fn(&mut Heartbeat), at| {
        let mut one = heartbeat(&state);
        change(&mut one);
        lessor.handle_heartbeat(&state, name.into(), one, start + Duration::from_secs(at));
    };
    tell("offline", &|_| {}, 1);
    tell("a", &|_| {}, 10);
    tell("b", &|_| {}, 10);
    tell("behind", &|one| one.revision = 0, 10);
    tell("drifted", &|one| one.digest = "x".into(), 10);
    tell("ring", &|one| drop(one.rings.insert("api".into(), "other".into())), 10);
    tell("stuck", &|one| one.stuck = Some("bind".into()), 10);
    let fleet = lessor.fleet(&state, start + Duration::from_secs(10));
    let states: Vec<(&str, &str)> = fleet.iter().map(|view| (view.name.as_str(), &*view.state)).collect();
    let wanted = [
        ("a", "synced"),
        ("b", "synced"),
        ("behind", "behind"),
        ("drifted", "drifted"),
        ("offline", "offline"),
        ("ring", "drifted"),
        ("stuck", "stuck"),
    ];
    assert_eq!(states, wanted);
    assert_eq!(lessor.live(start + Duration::from_secs(10)).len(), 6);
}

#[test]
fn a_brief_says_once_what_many_have_and_of_a_canary_no_rings() {
    let now = Instant::now();
    let state = leased(1);
    let mut lessor = lessor(now);
    let down = key("backend/api/0");
    let one = || Heartbeat { down: vec![down.clone()], ..heartbeat(&state) };
    for number in 0..50 {
        lessor.handle_heartbeat(&state, format!("p{number}"), one(), now);
    }
    let rings = BTreeMap::from([("api".to_owned(), "new".to_owned())]);
    let canary = Heartbeat { canary: Some(3), digest: "another".into(), rings: rings.clone(), ..one() };
    lessor.handle_heartbeat(&state, "canary".into(), canary, now);
    let states =
        |lessor: &Lessor| lessor.brief(&state, now).proxies.into_iter().map(|one| one.state).collect::<Vec<_>>();
    assert_eq!(states(&lessor), vec!["synced"; 51], "a canary has what it should have");
    let brief = lessor.brief(&state, now);
    assert_eq!((brief.rings.len(), brief.kinds.iter().flatten().count()), (1, 50));
    assert_eq!(brief.down, [(down.clone(), 51)]);
    assert!(brief.proxies.iter().all(|one| one.heartbeat.rings.is_empty() && one.heartbeat.down.is_empty()));
    for number in 0..20 {
        let rings = BTreeMap::from([("api".to_owned(), number.to_string())]);
        lessor.handle_heartbeat(&state, format!("p{number}"), Heartbeat { rings, ..one() }, now);
    }
    let brief = lessor.brief(&state, now);
    assert_eq!((brief.rings.len(), brief.kinds.iter().flatten().count()), (8, 50), "it is bounded");
}

#[test]
fn health_is_agreed_by_a_quorum_and_bounded() {
    let start = Instant::now();
    let mut state = leased(4);
    let mut lessor = lessor(start);
    let now = start + Duration::from_secs(8);
    let all: Vec<Key> = (0..4).map(|index| key(&format!("backend/api/{index}"))).collect();
    for name in ["p", "q", "r"] {
        let down = if name == "p" { all.clone() } else { Vec::new() };
        lessor.handle_heartbeat(&state, name.into(), Heartbeat { down, ..heartbeat(&state) }, now);
    }
    lessor.handle_keep_alive(&state, &[1, 2, 3, 4], now);
    assert!(lessor.handle_tick(&state, 1, 0, now).is_empty(), "one proxy alone changes nothing for the others");
    lessor.handle_heartbeat(&state, "q".into(), Heartbeat { down: all.clone(), ..heartbeat(&state) }, now);
    let commands = lessor.handle_tick(&state, 1, 0, now);
    let Command::Agree { verdicts, .. } = &commands[0] else { panic!("{commands:?}") };
    assert_eq!(verdicts, &[(all[0].clone(), true)], "no more than a third");
    state.apply(ORIGIN, commands[0].clone()).unwrap();
    assert!(lessor.handle_tick(&state, 1, 0, now).is_empty());
    lessor.handle_heartbeat(&state, "q".into(), heartbeat(&state), now);
    let commands = lessor.handle_tick(&state, 1, 0, now);
    assert!(matches!(&commands[0], Command::Agree { verdicts, .. } if verdicts == &[(all[0].clone(), false)]));
}

#[test]
fn a_rollout_is_led_from_votes_to_commit_or_back() {
    for bad in [false, true] {
        let start = Instant::now();
        let mut state = leased(1);
        let mut lessor = lessor(start);
        let mut now = start + Duration::from_millis(10);
        let names: Vec<String> = (0..10).map(|index| format!("p{index}")).collect();
        for name in &names {
            lessor.handle_heartbeat(&state, name.clone(), heartbeat(&state), now);
        }
        let object = Object::Document(Text { text: "services: [ { name: api } ]".into() });
        let start = Command::RolloutStart {
            txn: txn(vec![Op::Put { key: key("document/main"), object }]),
            policy: Policy { stages_percent: vec![50], bake_ms: 1000, ..Policy::default() },
            participants: lessor.live(now),
        };
        let id = state.apply(ORIGIN, start).unwrap().id;
        let mut requests = 0;
        let mut steps = 0;
        while state.rollout().is_some() && steps < 100 {
            steps += 1;
            now += Duration::from_millis(100);
            requests += 100;
            let threshold = state.rollout().map_or(0, Rollout::threshold);
            for name in &names {
                let vote = Vote { refusal: None, digest: "d".into(), moved_ppm: 0 };
                let has = Rollout::in_cohort(id, name, threshold);
                let failed = if bad && has { requests / 10 } else { 0 };
                let canary = has.then_some(id);
                let one = Heartbeat { vote: Some((id, vote)), requests, failed, canary, ..heartbeat(&state) };
                lessor.handle_heartbeat(&state, name.clone(), one, now);
            }
            lessor.handle_keep_alive(&state, &[1], now);
            for command in lessor.handle_tick(&state, 1, 0, now) {
                state.apply(ORIGIN, command).unwrap();
            }
        }
        let phase = &state.rollouts.get(&id).unwrap().phase;
        match (bad, phase) {
            (false, Phase::Committed(_)) => assert!(state.object(&key("document/main")).is_some()),
            (true, Phase::Aborted(reason)) => assert!(reason.contains("failed"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_share_is_watched_only_while_all_of_it_is_heard() {
    // Far shorter than a proxy's silence is borne: it must be heard after it all the same.
    for bake_ms in [0, 1000, 3000] {
        let mut staged = Staged::with_bake(10, 20, bake_ms);
        let (id, dead) = (staged.id, staged.first[0].clone());
        let end = staged.run(60, &|second, name, first, one| {
            one.canary = first.then_some(id);
            if name == dead && second >= 1 {
                one.version = "silent".into();
            }
        });
        match end {
            Some((0, Phase::Committed(_))) if bake_ms == 0 => {}
            Some((7, Phase::Aborted(why))) => assert!(why.contains("1 proxies that had the change are gone"), "{why}"),
            other => panic!("{bake_ms}: {other:?}"),
        }
    }
}

/// A rollout in its first stage, which ten proxies have voted for, and those of them that go first.
struct Staged {
    state: State,
    lessor: Lessor,
    now: Instant,
    id: u64,
    names: Vec<String>,
    first: Vec<String>,
}

impl Staged {
    fn new(count: usize, percent: u8) -> Self {
        Self::with_bake(count, percent, 20_000)
    }

    fn with_bake(count: usize, percent: u8, bake_ms: u64) -> Self {
        let now = Instant::now();
        let mut state = leased(0);
        let names: Vec<String> = (0..count).map(|index| format!("p{index}")).collect();
        let object = Object::Document(Text { text: "services: [ { name: api } ]".into() });
        let command = Command::RolloutStart {
            txn: txn(vec![Op::Put { key: key("document/main"), object }]),
            policy: Policy { stages_percent: vec![percent], bake_ms, ..Policy::default() },
            participants: names.clone(),
        };
        let id = state.apply(ORIGIN, command).unwrap().id;
        state.apply(ORIGIN, Command::RolloutAdvance { id, stage: 0 }).unwrap();
        let threshold = state.rollout().unwrap().threshold();
        let first = names.iter().filter(|name| Rollout::in_cohort(id, name, threshold)).cloned().collect();
        let mut this = Self { state, lessor: lessor(now), now, id, names, first };
        this.tell(&|_, _, _| {});
        this.lessor.handle_tick(&this.state, 1, 0, this.now);
        this
    }

    /// A heartbeat of everybody, as it is after `change` of whoever goes first or does not.
    fn tell(&mut self, change: &dyn Fn(&str, bool, &mut Heartbeat)) {
        for name in &self.names {
            let mut one = heartbeat(&self.state);
            let first = self.first.contains(name);
            change(name, first, &mut one);
            if one.version != "silent" {
                self.lessor.handle_heartbeat(&self.state, name.clone(), one, self.now);
            }
        }
    }

    /// Second by second; how it has ended, and after how many.
    fn run(&mut self, seconds: u64, change: &dyn Fn(u64, &str, bool, &mut Heartbeat)) -> Option<(u64, Phase)> {
        for second in 0..seconds {
            self.tell(&|name, first, one| change(second, name, first, one));
            for command in self.lessor.handle_tick(&self.state, 1, 0, self.now) {
                self.state.apply(ORIGIN, command).unwrap();
            }
            let phase = &self.state.rollouts.get(&self.id).unwrap().phase;
            if phase.is_final() {
                return Some((second, phase.clone()));
            }
            self.now += Duration::from_secs(1);
        }
        None
    }
}

#[test]
fn a_share_that_does_not_come_into_force_ends_the_rollout() {
    let mut staged = Staged::new(10, 20);
    assert!(staged.first.len() >= 2);
    let late = staged.first[0].clone();
    let id = staged.id;
    let end = staged.run(60, &|_, name, first, one| one.canary = (first && name != late).then_some(id));
    let Some((10, Phase::Aborted(why))) = end else { panic!("{end:?}") };
    assert!(why.contains("1 of the proxies that go first have not put it into force") && why.contains(&late), "{why}");
}

#[test]
fn a_share_is_watched_from_when_all_of_it_have_the_change() {
    let mut staged = Staged::new(10, 20);
    let id = staged.id;
    let end = staged.run(60, &|second, _, first, one| one.canary = (first && second >= 5).then_some(id));
    let Some((25, Phase::Committed(_))) = end else { panic!("{end:?}") };
    // One that starts again and again is not waited for without end.
    let mut staged = Staged::new(10, 20);
    let id = staged.id;
    let end = staged.run(60, &|second, _, first, one| one.canary = (first && second % 3 > 0).then_some(id));
    assert!(matches!(end, Some((25..35, Phase::Aborted(_)))), "{end:?}");
}

#[test]
fn a_proxy_that_is_stuck_with_the_change_ends_the_rollout() {
    let mut staged = Staged::new(3, 10);
    let id = staged.id;
    let end = staged.run(60, &|second, _, first, one| {
        one.canary = first.then_some(id);
        one.stuck = (first && second == 3).then(|| "bind".into());
    });
    let Some((3, Phase::Aborted(why))) = end else { panic!("{end:?}") };
    assert!(why.ends_with(": bind"), "{why}");
    // What was there before is what the change may repair.
    let mut staged = Staged::new(3, 10);
    let id = staged.id;
    staged.lessor = lessor(staged.now);
    let end = staged.run(60, &|second, _, first, one| {
        one.canary = (first && second > 1).then_some(id);
        one.stuck = (second <= 1).then(|| "an old file".into());
    });
    let Some((22, Phase::Committed(_))) = end else { panic!("{end:?}") };
}

#[test]
fn a_new_leader_counts_from_what_it_hears_first() {
    for bad in [false, true] {
        let mut staged = Staged::new(10, 50);
        let id = staged.id;
        // Leads from here on, and has heard of nobody: the others have failed much in their lives, those that go first
        // nothing until now.
        staged.lessor = lessor(staged.now);
        let end = staged.run(60, &|second, _, first, one| {
            one.canary = first.then_some(id);
            one.requests = 1_000_000 + second * 100;
            one.failed = if first { 0 } else { 500_000 };
            one.failed += if bad && first { second * 10 } else { 0 };
        });
        match end {
            Some((1, Phase::Aborted(why))) if bad => {
                assert!(why.contains("failed 10.00 % of requests, the others 0.00 %"), "{why}");
            }
            Some((20, Phase::Committed(_))) if !bad => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_new_leader_takes_those_for_lost_that_it_never_hears_of() {
    let mut staged = Staged::new(10, 20);
    let (id, dead) = (staged.id, staged.first[0].clone());
    staged.lessor = lessor(staged.now);
    let end = staged.run(60, &|_, name, first, one| {
        one.canary = first.then_some(id);
        if name == dead {
            one.version = "silent".into();
        }
    });
    let Some((7, Phase::Aborted(why))) = end else { panic!("{end:?}") };
    assert!(why.contains("1 proxies that had the change are gone"), "{why}");
}

#[test]
fn whoever_has_the_change_counts_whatever_an_older_member_told_it() {
    let mut staged = Staged::new(10, 20);
    let id = staged.id;
    let other = staged.names.iter().find(|name| !staged.first.contains(name)).unwrap().clone();
    let end = staged.run(60, &|second, name, first, one| {
        one.canary = (first || name == other).then_some(id);
        one.requests = second * 100;
        one.failed = if name == other { second * 50 } else { 0 };
    });
    let Some((1, Phase::Aborted(why))) = end else { panic!("{end:?}") };
    assert!(why.contains("the others 0.00 %"), "{why}");
}

#[test]
fn what_could_not_be_heard_while_nobody_led_counts_against_nobody() {
    let mut staged = Staged::new(10, 20);
    let id = staged.id;
    let fine = |_, _: &str, first: bool, one: &mut Heartbeat| one.canary = first.then_some(id);
    assert_eq!(staged.run(3, &fine), None);
    staged.lessor.handle_lapse();
    staged.now += Duration::from_secs(30);
    assert!(
        staged
            .lessor
            .handle_tick(&staged.state, 1, 0, staged.now)
            .iter()
            .all(|command| { !matches!(command, Command::RolloutAbort { .. }) })
    );
}

#[test]
fn a_proxy_that_signs_off_is_missed_by_nobody_and_cannot_sign_its_successor_off() {
    let start = Instant::now();
    let state = leased(1);
    let mut lessor = lessor(start);
    let beat = |instance| Heartbeat { instance, ..heartbeat(&state) };
    lessor.handle_heartbeat(&state, "p".into(), beat(1), start);
    lessor.handle_heartbeat(&state, "p".into(), beat(2), start);
    assert!(!lessor.handle_sign_off(&state, "p", Some(1)), "another process speaks in its name");
    assert_eq!(lessor.live(start), ["p"]);
    assert!(lessor.handle_sign_off(&state, "p", Some(2)));
    assert!(lessor.fleet(&state, start + 2 * PROXY_TTL).is_empty());
    assert!(!lessor.handle_sign_off(&state, "p", Some(2)));
    // An operator forgets whoever it is.
    lessor.handle_heartbeat(&state, "q".into(), beat(0), start);
    assert!(lessor.handle_sign_off(&state, "q", None));
}

#[test]
fn proxies_are_forgotten_when_the_members_file_says() {
    let start = Instant::now();
    let state = leased(1);
    let mut lessor = lessor(start).with_forget(Duration::from_secs(30));
    lessor.handle_heartbeat(&state, "p".into(), heartbeat(&state), start);
    lessor.handle_tick(&state, 1, 0, start + Duration::from_secs(29));
    assert_eq!(lessor.fleet(&state, start + Duration::from_secs(29))[0].state, "offline");
    lessor.handle_tick(&state, 1, 0, start + Duration::from_secs(30));
    assert!(lessor.fleet(&state, start + Duration::from_secs(30)).is_empty());
}

/// A rollout over proxies `p0` to `p3`, all heard of.
fn rolled(stages_percent: Vec<u8>) -> (State, Lessor, Instant, u64) {
    let start = Instant::now();
    let mut state = leased(1);
    let mut lessor = lessor(start);
    let participants: Vec<String> = (0..4).map(|index| format!("p{index}")).collect();
    for name in &participants {
        lessor.handle_heartbeat(&state, name.clone(), heartbeat(&state), start);
    }
    let op = Op::Put { key: "service/late".parse().unwrap(), object: Object::Service(Text { text: "{}".into() }) };
    let txn = Txn { by: Author::default(), request: None, conditions: Vec::new(), ops: vec![op], force: true };
    let policy = Policy { stages_percent, ..Policy::default() };
    let id = state.apply(ORIGIN, Command::RolloutStart { txn, policy, participants }).unwrap().id;
    assert!(lessor.handle_tick(&state, 1, 0, start).is_empty());
    (state, lessor, start, id)
}

fn vote(lessor: &mut Lessor, state: &mut State, name: &str, id: u64, now: Instant) {
    let vote = Some((id, Vote { refusal: None, digest: "d".into(), moved_ppm: 0 }));
    lessor.handle_heartbeat(state, name.into(), Heartbeat { vote, ..heartbeat(state) }, now);
    for command in lessor.handle_tick(state, 1, 0, now) {
        state.apply(ORIGIN, command).unwrap();
    }
}

#[test]
fn a_rollout_does_not_wait_for_proxies_that_have_signed_off() {
    let (mut state, mut lessor, start, id) = rolled(Vec::new());
    for name in ["p0", "p1", "p2"] {
        vote(&mut lessor, &mut state, name, id, start);
    }
    assert!(lessor.handle_tick(&state, 1, 0, start).is_empty(), "p3 has not voted");
    assert!(lessor.handle_sign_off(&state, "p3", Some(7)));
    assert!(matches!(lessor.handle_tick(&state, 1, 0, start)[..], [Command::RolloutCommit { .. }]));
}

#[test]
fn a_share_that_has_signed_off_altogether_has_tried_nothing() {
    let (mut state, mut lessor, start, id) = rolled(vec![1]);
    for name in ["p0", "p1", "p2", "p3"] {
        vote(&mut lessor, &mut state, name, id, start);
    }
    for command in lessor.handle_tick(&state, 1, 0, start) {
        state.apply(ORIGIN, command).unwrap();
    }
    assert!(matches!(state.rollout().unwrap().phase, Phase::Stage(0)));
    lessor.handle_tick(&state, 1, 0, start);
    let rollout = state.rollout().unwrap().clone();
    let first: Vec<&String> =
        rollout.participants.iter().filter(|name| Rollout::in_cohort(id, name, rollout.threshold())).collect();
    for name in first {
        assert!(lessor.handle_sign_off(&state, name, Some(7)));
    }
    match &lessor.handle_tick(&state, 1, 0, start)[..] {
        [Command::RolloutAbort { reason, .. }] => assert!(reason.contains("have been stopped"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
