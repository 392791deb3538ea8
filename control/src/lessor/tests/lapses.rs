//! Time in which nobody could be heard: what it moves, and what it does not.

use super::*;
use crate::state::RULES;
use proptest::prelude::*;

/// As [`leased`], under the newest rules.
fn ruled(count: u16, ttl_ms: u64) -> (State, Vec<u64>) {
    let mut state = State::default();
    state.apply(ORIGIN, Command::Found { cluster: "c".into(), epoch: 1, rules: RULES }).unwrap();
    let grant = |_| state.apply(ORIGIN, Command::LeaseGrant { owner: "o".into(), ttl_ms }).unwrap().id;
    let ids = (0..count).map(grant).collect();
    (state, ids)
}

/// Has everything decided that a lessor proposes; how many leases have ended.
fn decide(lessor: &mut Lessor, state: &mut State, commands: Vec<Command>) -> usize {
    let gone = expired(&commands);
    for command in commands {
        state.apply(ORIGIN, command.clone()).unwrap();
        lessor.handle_decided(&command);
    }
    gone
}

/// A heartbeat as the plane answers it: what must be in the log first is.
fn keep_alive(lessor: &mut Lessor, state: &mut State, id: u64, now: Instant) -> bool {
    loop {
        match lessor.handle_keep_alive(state, &[id], now) {
            Kept::Missing(missing) => return missing.is_empty(),
            Kept::Wait => {
                let commands = lessor.handle_wake(state, 1, 0, now);
                assert!(!commands.is_empty(), "it would wait for nothing");
                decide(lessor, state, commands);
            }
        }
    }
}

const TICK: Duration = Duration::from_millis(200);

#[test]
fn short_lapses_one_after_another_do_not_keep_a_dead_lease() {
    let start = Instant::now();
    let (mut state, _) = ruled(1, 5000);
    let mut lessor = Lessor::new(start);
    let mut now = start;
    let mut lost = Duration::ZERO;
    // Followers are stopped for 0.55 s every 3.75 s: a quorum is missed for a part of that.
    while !state.leases.is_empty() {
        assert!(now - start < Duration::from_secs(5) + lost + TICK * 2, "a lapse grants more than was lost");
        if (now - start).as_millis() % 3750 >= 3200 {
            lessor.handle_lapse();
            lost += Duration::from_millis(50);
        } else {
            let commands = lessor.handle_tick(&state, 1, 0, now);
            decide(&mut lessor, &mut state, commands);
        }
        now += Duration::from_millis(50);
    }
    assert!(now - start > Duration::from_secs(5));
    assert_eq!(lessor.lapses().0, 1);
}

#[test]
fn short_lapses_one_after_another_do_not_hold_up_agreed_health() {
    let start = Instant::now();
    let state = leased(4);
    let mut lessor = Lessor::new(start);
    let dead = key("backend/api/0");
    let mut now = start;
    let mut agreed = None;
    while agreed.is_none() {
        let since = now - start;
        assert!(since < Duration::from_secs(10), "{since:?}");
        if since.as_millis() % 3750 >= 3200 {
            lessor.handle_lapse();
        } else {
            for name in ["p", "q", "r"] {
                let down = vec![dead.clone()];
                lessor.handle_heartbeat(&state, name.into(), Heartbeat { down, ..heartbeat(&state) }, now);
            }
            lessor.handle_keep_alive(&state, &[1, 2, 3, 4], now);
            let commands = lessor.handle_tick(&state, 1, 0, now);
            agreed = commands.into_iter().find(|command| matches!(command, Command::Agree { .. }));
        }
        now += Duration::from_millis(50);
    }
    // Once it knows the fleet, a lapse does not make it forget: what is due comes at once.
    lessor.handle_lapse();
    now += Duration::from_secs(20);
    let commands = lessor.handle_tick(&state, 1, 0, now);
    assert!(commands.iter().any(|command| matches!(command, Command::Agree { .. })), "{commands:?}");
    assert_eq!(lessor.live(now).len(), 3, "nobody was silent in a time in which nobody could speak");
}

#[test]
fn a_leader_that_was_stopped_counts_nothing_of_that_time() {
    let start = Instant::now();
    let (mut state, ids) = ruled(1, 1000);
    let mut lessor = Lessor::new(start);
    let mut now = start;
    for _ in 0..4 {
        now += TICK;
        let commands = lessor.handle_tick(&state, 1, 0, now);
        assert_eq!(decide(&mut lessor, &mut state, commands), 0);
    }
    // Nobody has told it: it simply did not run.
    now += Duration::from_secs(60);
    let commands = lessor.handle_tick(&state, 1, 0, now);
    assert_eq!(decide(&mut lessor, &mut state, commands), 0);
    assert!(keep_alive(&mut lessor, &mut state, ids[0], now));
}

/// Leaders that lead for so long each; for how long a lease that nobody keeps alive lives.
fn life_under(reign: Duration, ttl_ms: u64) -> Duration {
    let start = Instant::now();
    let (mut state, _) = ruled(1, ttl_ms);
    let mut now = start;
    while now - start < Duration::from_millis(ttl_ms) * 20 {
        let mut lessor = Lessor::new(now);
        let end = now + reign;
        while now < end {
            let commands = lessor.handle_tick(&state, 1, 0, now);
            if decide(&mut lessor, &mut state, commands) > 0 {
                return now - start;
            }
            now += TICK;
        }
    }
    panic!("a lease of {ttl_ms} ms never ends under leaders of {reign:?}");
}

#[test]
fn a_dead_lease_ends_however_often_leaders_change() {
    for (reign_ms, ttl_ms) in [(2000, 5000), (3800, 5000), (4800, 5000), (3000, 60_000), (20_000, 60_000)] {
        let life = life_under(Duration::from_millis(reign_ms), ttl_ms);
        assert!(life >= Duration::from_millis(ttl_ms), "{reign_ms} {ttl_ms}: {life:?}");
        // What a reign has seen last and not said is lost with it, a second or a half of the reign at most.
        let most = Duration::from_millis(ttl_ms) * 5 / 2 + Duration::from_millis(reign_ms) * 2;
        assert!(life < most, "{reign_ms} {ttl_ms}: {life:?}");
    }
}

#[test]
fn a_heartbeat_is_answered_only_when_no_later_leader_can_know_less() {
    let start = Instant::now();
    let (mut state, ids) = ruled(1, 6000);
    let ms = |ms| start + Duration::from_millis(ms);
    let mut lessor = lessor(start);
    let marks = lessor.handle_tick(&state, 1, 0, ms(0));
    assert!(marks.is_empty());
    let marks = lessor.handle_tick(&state, 1, 0, ms(5000));
    let Some(Command::LeaseLives { lives, .. }) = marks.first() else { panic!("{marks:?}") };
    assert_eq!(lives, &[(ids[0], 1000)]);
    // Proposed, and not decided: it may be in the log all the same.
    assert_eq!(lessor.handle_keep_alive(&state, &ids, ms(5100)), Kept::Wait);
    state.apply(ORIGIN, marks[0].clone()).unwrap();
    assert_eq!(state.lives.get(&ids[0]), Some(&1000));
    let revived = lessor.handle_wake(&state, 1, 0, ms(5200));
    let Some(Command::LeaseLives { lives, .. }) = revived.first() else { panic!("{revived:?}") };
    assert_eq!(lives, &[(ids[0], 6000)]);
    assert_eq!(lessor.handle_keep_alive(&state, &ids, ms(5300)), Kept::Wait);
    decide(&mut lessor, &mut state, revived);
    assert!(state.lives.is_empty());
    assert_eq!(lessor.handle_keep_alive(&state, &ids, ms(5400)), Kept::Missing(vec![]));
    // What a leader knows that is none any more is not taken.
    let stale = Command::LeaseLives { leader: 2, lives: vec![(ids[0], 1)] };
    assert_eq!(state.apply(ORIGIN, stale).unwrap_err().code, "deposed");
}

#[test]
fn the_log_hears_nothing_of_leases_that_are_renewed_as_usual() {
    let start = Instant::now();
    let (mut state, ids) = ruled(100, 9000);
    let mut lessor = lessor(start);
    for tick in 1..600_u32 {
        let now = start + TICK * tick;
        // Each at a third of its life, on its own beat.
        for (index, id) in ids.iter().enumerate() {
            if (tick as usize + index).is_multiple_of(15) {
                keep_alive(&mut lessor, &mut state, *id, now);
            }
        }
        let commands = lessor.handle_tick(&state, 1, 0, now);
        assert!(tick < 16 || commands.is_empty(), "{tick}: {commands:?}");
        decide(&mut lessor, &mut state, commands);
    }
    assert!(state.lives.is_empty());
}

#[test]
fn a_tick_costs_what_is_due_and_what_is_new() {
    let start = Instant::now();
    let (mut state, ids) = ruled(20_000, 60_000);
    let mut lessor = lessor(start);
    let ms = |ms| start + Duration::from_millis(ms);
    lessor.handle_tick(&state, 1, 0, ms(0));
    lessor.handle_keep_alive(&state, &ids, ms(1));
    lessor.handle_tick(&state, 1, 0, ms(2));
    let before = (lessor.leases.looks, lessor.standing.looks);
    for tick in 0..1000 {
        state.apply(ORIGIN, Command::LeaseGrant { owner: "o".into(), ttl_ms: 60_000 }).unwrap();
        lessor.handle_wake(&state, 1, 0, ms(3 + tick));
        lessor.handle_tick(&state, 1, 0, ms(3 + tick));
    }
    let looks = lessor.leases.looks - before.0;
    assert!(looks <= 3 * 1000, "{looks} looks for a thousand grants beside 20,000 leases");
    assert_eq!(lessor.standing.looks, before.1, "objects have not changed");
}

#[test]
fn what_has_gone_is_not_remembered_for_as_long_as_it_might_have_lived() {
    let start = Instant::now();
    let (mut state, _) = ruled(0, 1000);
    let mut lessor = lessor(start);
    for tick in 0..20_000 {
        let grant = Command::LeaseGrant { owner: "o".into(), ttl_ms: 86_400_000 };
        let id = state.apply(ORIGIN, grant).unwrap().id;
        lessor.handle_keep_alive(&state, &[id], start + Duration::from_millis(tick));
        lessor.handle_tick(&state, 1, 0, start + Duration::from_millis(tick));
        state.apply(ORIGIN, Command::LeaseRevoke { by: Author::default(), ids: vec![id] }).unwrap();
    }
    assert!(lessor.leases.size() < 3000, "{}", lessor.leases.size());
}

#[test]
fn after_a_restore_every_lease_has_its_whole_life_whatever_its_number() {
    let start = Instant::now();
    let (mut state, ids) = ruled(3, 5000);
    let backup = state.encode().unwrap();
    state.apply(ORIGIN, Command::LeaseRevoke { by: Author::default(), ids: ids.clone() }).unwrap();
    let mut lessor = lessor(start);
    lessor.handle_tick(&state, 1, 0, start);
    let whole = *blake3::hash(&backup).as_bytes();
    state.apply(ORIGIN, Command::RestoreChunk { whole, number: 0, bytes: backup }).unwrap();
    state.apply(ORIGIN, Command::RestoreCommit { by: Author::default(), whole }).unwrap();
    let ms = |ms| start + Duration::from_millis(ms);
    assert_eq!(expired(&lessor.handle_tick(&state, 1, 0, ms(60_000))), 0);
    assert_eq!(expired(&lessor.handle_tick(&state, 1, 0, ms(65_000))), 0);
    assert_eq!(expired(&lessor.handle_tick(&state, 1, 0, ms(65_001))), 3);
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// It leads for so long,
    Lead(u64),
    /// or has no quorum for so long,
    Lapse(u64),
    /// or another leads from then on, after so long without any.
    Elect(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (200..6000_u64).prop_map(Event::Lead),
        3 => (50..4000_u64).prop_map(Event::Lapse),
        1 => (50..2000_u64).prop_map(Event::Elect),
    ]
}

proptest! {
    /// One holder keeps its lease alive whenever it can, within `renew` of its life; another is dead from the start.
    #[test]
    fn a_lease_that_is_heard_when_it_can_be_lives_and_one_that_is_not_ends(
        events in prop::collection::vec(event(), 1..60), ttl_ms in 2000..20_000_u64, renew in 2..9_u64,
    ) {
        let step = Duration::from_millis(50);
        let mut now = Instant::now();
        let (mut state, ids) = ruled(2, ttl_ms);
        let ttl = Duration::from_millis(ttl_ms);
        let mut lessor = Lessor::new(now);
        let (mut heard, mut promised) = (now, now + ttl);
        // Silence of the dead one that a leader has watched, in this reign and in all.
        let mut watched = Duration::ZERO;
        let (mut changed, mut lapses) = (false, 0);
        for event in events {
            lapses += 1;
            let (Event::Lead(ms) | Event::Lapse(ms) | Event::Elect(ms)) = event;
            for _ in 0..ms / 50 {
                now += step;
                match event {
                    Event::Lead(_) => {}
                    Event::Lapse(_) | Event::Elect(_) => {
                        lessor.handle_lapse();
                        continue;
                    }
                }
                watched += step;
                if now - heard >= ttl * renew as u32 / 10 {
                    let lives = keep_alive(&mut lessor, &mut state, ids[0], now);
                    prop_assert!(lives || now > promised, "it is gone {:?} before its time", promised - now);
                    (heard, promised) = (now, now + ttl);
                }
                let commands = lessor.handle_tick(&state, 1, 0, now);
                decide(&mut lessor, &mut state, commands);
                prop_assert!(state.leases.contains_key(&ids[0]) || now > promised);
                // What lies between two looks of which one led counts as lost.
                if !changed && watched > ttl + step * (3 + lapses) {
                    prop_assert!(!state.leases.contains_key(&ids[1]), "dead for {watched:?} of {ttl:?}");
                }
            }
            if matches!(event, Event::Elect(_)) {
                lessor = Lessor::new(now);
                changed = true;
            }
            if !state.leases.contains_key(&ids[0]) {
                // It was silent for longer than it may be: nobody could hear it.
                break;
            }
        }
    }
}
