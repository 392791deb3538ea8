//! What is told: that something has changed if it has and not if it has not, and events, of which no more are kept than there is room for.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ringway_health::{
    AgentParams, AgentReport, Cause, CheckFailure, CheckParams, EventKind, Member, Outcome, OutlierParams, Params,
    Probe, ServiceHealth,
};
use std::time::{Duration, Instant};

const FULL: u16 = u16::MAX;
const SECOND: Duration = Duration::from_secs(1);
const DOWN: Probe = Probe::Failure(CheckFailure::Connect);

fn params() -> Params {
    Params {
        check: Some(CheckParams { rise: 1, fall: 1, jitter: 0.0, ..CheckParams::default() }),
        agent: Some(AgentParams { interval: SECOND * 5, timeout: SECOND }),
        keep_clients: Some(Duration::MAX),
        ..Params::default()
    }
}

fn start(params: Params, members: &[Member<'_>]) -> (ServiceHealth, Instant) {
    let now = Instant::now();
    let mut health = ServiceHealth::new(params, 3, now);
    health.set_members(members, now);
    assert!(health.take_changed());
    (health, now)
}

fn kinds(health: &mut ServiceHealth) -> Vec<EventKind> {
    std::iter::from_fn(|| health.poll_event()).map(|event| event.kind).collect()
}

#[test]
fn changes_are_told_once_and_nothing_is_told_where_there_is_none() {
    let members = [Member::new("a"), Member::new("b"), Member { level: 1, ..Member::new("c") }];
    let (mut health, now) = start(params(), &members);
    assert!(!health.take_changed(), "it has been told");
    // What changes nothing, whether all is worked out anew for it or not.
    health.handle_probe("a", Probe::Success, now);
    health.handle_timeout(now + SECOND);
    health.set_members(&members, now);
    health.set_params(params(), now);
    health.handle_agent("a", AgentReport::default(), now);
    assert!(!health.take_changed());
    health.handle_probe("a", Probe::Weighted(50), now);
    assert!(health.take_changed(), "a share");
    health.handle_probe("a", Probe::Weighted(50), now);
    assert!(!health.take_changed());
    health.handle_probe("a", Probe::Success, now);
    assert!(health.take_changed());
    // Not of any backend, but of the levels: half of the first is down, and then a third.
    health.handle_probe("a", DOWN, now);
    assert!(health.take_changed());
    health.set_members(&[members[0], Member { weight: 200, ..members[1] }, members[2]], now);
    assert!(health.take_changed(), "the shares of the levels");
    // It is remembered until it is told, whatever comes in between.
    health.handle_probe("a", Probe::Success, now);
    health.handle_timeout(now + SECOND);
    health.set_params(params(), now);
    assert!(health.take_changed());
}

#[test]
fn who_is_doubted_is_told_where_no_share_moves() {
    let (mut health, now) = start(Params { panic_threshold_percent: 100, ..params() }, &[Member::new("a")]);
    health.handle_probe("a", DOWN, now);
    assert!(health.is_panic() && health.share("a") == Some(FULL) && health.is_doubted("a"));
    assert!(health.take_changed());
    health.handle_timeout(now + SECOND);
    assert!(!health.take_changed());
    health.handle_probe("a", Probe::Success, now);
    assert!(!health.is_doubted("a") && health.take_changed());
}

#[test]
fn who_keeps_his_clients_no_more_is_told_where_no_share_moves() {
    let drained = [Member { drain: true, ..Member::new("a") }, Member::new("b")];
    let (mut health, now) = start(params(), &drained);
    assert!(health.keeps_clients("a"));
    health.set_members(&[Member { maintenance: true, ..Member::new("a") }, Member::new("b")], now);
    assert!(!health.keeps_clients("a") && health.take_changed());
    // Nobody's time was over, so that nothing is told of it.
    assert!(!kinds(&mut health).contains(&EventKind::ClientsMoved));
}

#[test]
fn clients_are_told_to_have_moved_when_their_time_is_over_and_for_no_other_reason() {
    let keep = Params { keep_clients: Some(SECOND * 60), ..params() };
    let (mut health, now) = start(keep, &[Member { drain: true, ..Member::new("a") }, Member::new("b")]);
    health.handle_probe("a", DOWN, now);
    health.handle_probe("a", Probe::Success, now);
    health.handle_timeout(now + SECOND * 59);
    assert_eq!(kinds(&mut health), [EventKind::Down(CheckFailure::Connect), EventKind::Up]);
    for later in [60, 61, 62] {
        health.handle_timeout(now + SECOND * later);
    }
    assert_eq!(kinds(&mut health), [EventKind::ClientsMoved], "once");
}

#[test]
fn events_that_nobody_asks_for_are_bounded_whatever_they_are_of() {
    let (mut health, now) = start(Params { panic_threshold_percent: 100, ..params() }, &[Member::new("a")]);
    // Up and down, and panic with it: four a round.
    for _ in 0..2_600 {
        health.handle_probe("a", DOWN, now);
        health.handle_probe("a", Probe::Success, now);
    }
    assert_eq!(kinds(&mut health).len(), 10_000);
    health.handle_probe("a", DOWN, now);
    assert_eq!(
        kinds(&mut health),
        [EventKind::Down(CheckFailure::Connect), EventKind::PanicBegan],
        "there is room again"
    );
    // Of a bound that is reached by one alone, too.
    let (mut health, now) = start(params(), &[Member::new("a"), Member::new("b")]);
    for round in 0..10_001_u32 {
        health.handle_probe("a", Probe::Weighted(10 + (round % 2) as u8), now);
    }
    assert_eq!(kinds(&mut health).len(), 10_000);
}

#[test]
fn a_share_of_nothing_that_ends_ends_an_ejection_that_would_not_be_allowed() {
    let outlier =
        OutlierParams { consecutive_failures: 1, max_ejection_percent: 50, jitter: 0.0, ..OutlierParams::default() };
    let none = AgentReport { percent: Some(0), ..AgentReport::default() };
    let all = AgentReport { percent: Some(100), ..AgentReport::default() };
    for by_agent in [true, false] {
        let (mut health, now) = start(Params { outlier, ..params() }, &[Member::new("a"), Member::new("b")]);
        let asks = |health: &mut ServiceHealth, nothing: bool| match (by_agent, nothing) {
            (true, _) => health.handle_agent("a", if nothing { none } else { all }, now),
            (false, _) => health.handle_probe("a", if nothing { Probe::Weighted(0) } else { Probe::Success }, now),
        };
        // It takes no keys, so that it may be ejected beside the one that does; then that one fails as well.
        asks(&mut health, true);
        health.handle_outcome("a", Outcome::Status(500), now);
        asks(&mut health, false);
        assert!(health.view("a", now).unwrap().ejected_for.is_some(), "one of two may be");
        asks(&mut health, true);
        health.handle_outcome("b", Outcome::Status(500), now);
        assert!(health.view("b", now).unwrap().ejected_for.is_none(), "it is the last one");
        // Of three, of which two may not be ejected.
        health.set_members(&[Member::new("a"), Member::new("b"), Member::new("c")], now);
        health.handle_outcome("b", Outcome::Status(500), now);
        assert!(health.view("b", now).unwrap().ejected_for.is_some());
        kinds(&mut health);
        asks(&mut health, false);
        assert!(health.view("a", now).unwrap().ejected_for.is_none(), "one of three may be, and that is the other");
        assert!(kinds(&mut health).contains(&EventKind::Returned));
        assert_eq!(["a", "b", "c"].map(|id| health.share(id).unwrap()), [FULL, 0, FULL]);
    }
}

#[test]
fn a_wish_in_vain_is_told_again_after_another_outcome() {
    let outlier = OutlierParams { retry_after_max: SECOND * 10, ..OutlierParams::default() };
    let (mut health, now) = start(Params { outlier, ..params() }, &[Member::new("a")]);
    let wish = Outcome::RetryAfter { status: 503, wish: SECOND };
    for outcome in [wish, wish, Outcome::Success, wish, wish, Outcome::Status(404), wish] {
        health.handle_outcome("a", outcome, now);
    }
    assert_eq!(kinds(&mut health), [EventKind::EjectionWithheld(Cause::RetryAfter); 3]);
}

#[test]
fn first_questions_to_agents_are_spread_over_an_interval() {
    let names: Vec<String> = (0..100).map(|index| format!("b{index}")).collect();
    let members: Vec<Member<'_>> = names.iter().map(|name| Member::new(name)).collect();
    let (mut health, now) = start(params(), &members);
    let mut asked = 0;
    for part in 1..=4 {
        let due = health.poll_agents(now + SECOND * 5 * part / 4).len();
        assert!((10..=40).contains(&due), "{due} of 100 in the quarter {part}");
        asked += due;
    }
    assert_eq!(asked, 100);
}
