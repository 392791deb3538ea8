//! Agents beside the backends: what they say is apart from what checks find.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ringway_health::{
    AgentMode, AgentParams, AgentReport, CheckFailure, CheckParams, Member, Params, Probe, ServiceHealth,
};
use std::time::{Duration, Instant};

const FULL: u16 = u16::MAX;
const SECOND: Duration = Duration::from_secs(1);
const DOWN: Probe = Probe::Failure(CheckFailure::Connect);

fn params() -> Params {
    Params {
        check: Some(CheckParams { fall: 1, rise: 1, interval: SECOND * 2, jitter: 0.0, ..CheckParams::default() }),
        agent: Some(AgentParams { interval: SECOND * 5, timeout: SECOND }),
        keep_clients: Some(Duration::MAX),
        ..Params::default()
    }
}

fn start(params: Params) -> (ServiceHealth, Instant) {
    let now = Instant::now();
    let mut health = ServiceHealth::new(params, 3, now);
    health.set_members(&[Member::new("a"), Member::new("b")], now);
    (health, now)
}

fn up(up: bool) -> AgentReport {
    AgentReport { up: Some(up), ..AgentReport::default() }
}

fn percent(percent: u8) -> AgentReport {
    AgentReport { percent: Some(percent), ..AgentReport::default() }
}

fn mode(mode: AgentMode) -> AgentReport {
    AgentReport { mode: Some(mode), ..AgentReport::default() }
}

fn state(health: &ServiceHealth, now: Instant) -> (&'static str, u16) {
    let view = health.view("a", now).unwrap();
    (view.state, view.share)
}

#[test]
fn good_checks_take_nothing_back_of_what_the_agent_says_nor_does_the_agent_of_what_they_find() {
    let (mut health, now) = start(params());
    health.handle_probe("a", Probe::Success, now);
    health.handle_agent("a", percent(50), now);
    for _ in 0..5 {
        health.handle_probe("a", Probe::Success, now);
        assert_eq!(state(&health, now), ("degraded", FULL / 2));
    }
    // Of two wishes the lower holds, whoever has it.
    health.handle_probe("a", Probe::Weighted(20), now);
    assert_eq!(health.view("a", now).unwrap().percent, 20);
    health.handle_agent("a", percent(10), now);
    assert_eq!(health.view("a", now).unwrap().percent, 10);
    health.handle_probe("a", Probe::Success, now);
    assert_eq!(health.view("a", now).unwrap().percent, 10);
    // An agent that is well does not bring up whom checks have taken down, nor the other way round.
    health.handle_probe("a", DOWN, now);
    for report in [up(true), percent(100), mode(AgentMode::Ready)] {
        health.handle_agent("a", report, now);
        assert_eq!(state(&health, now), ("down", 0));
    }
    health.handle_probe("a", Probe::Success, now);
    assert_eq!(state(&health, now), ("up", FULL));
    health.handle_agent("a", up(false), now);
    for _ in 0..5 {
        health.handle_probe("a", Probe::Success, now);
        assert_eq!(state(&health, now), ("down", 0));
    }
    assert_eq!(health.view("a", now).unwrap().check_failure, Some(CheckFailure::Agent));
    health.handle_agent("a", up(true), now);
    assert_eq!(state(&health, now), ("up", FULL));
}

#[test]
fn only_the_agent_takes_back_what_it_has_said_and_each_of_its_words_by_its_kind() {
    let (mut health, now) = start(params());
    health.handle_probe("a", Probe::Success, now);
    for (report, expected) in [
        (percent(50), ("degraded", FULL / 2)),
        // Silence, and words of another kind, change nothing of it.
        (AgentReport::default(), ("degraded", FULL / 2)),
        (up(true), ("degraded", FULL / 2)),
        (mode(AgentMode::Drain), ("drained", 0)),
        (up(true), ("drained", 0)),
        (percent(80), ("drained", 0)),
        (AgentReport::default(), ("drained", 0)),
        (mode(AgentMode::Ready), ("degraded", (u32::from(FULL) * 80 / 100) as u16)),
        (up(false), ("down", 0)),
        (mode(AgentMode::Ready), ("down", 0)),
        (AgentReport::default(), ("down", 0)),
        (AgentReport { up: Some(true), percent: Some(100), mode: None }, ("up", FULL)),
    ] {
        health.handle_agent("a", report, now);
        assert_eq!(state(&health, now), expected, "after {report:?}");
    }
}

#[test]
fn words_of_an_agent_that_is_asked_no_more_hold_no_more() {
    for report in [up(false), percent(0), mode(AgentMode::Maintenance)] {
        let (mut health, now) = start(params());
        health.handle_agent("a", report, now);
        assert_eq!(health.share("a"), Some(0));
        health.set_params(Params { agent: None, ..params() }, now);
        assert_eq!(health.share("a"), Some(FULL), "{report:?}");
        assert!(health.poll_agents(now + SECOND * 60).is_empty());
        // What was under way when it went says nothing any more.
        health.handle_agent("a", report, now);
        assert_eq!(health.share("a"), Some(FULL));
    }
}

#[test]
fn agents_and_checks_have_times_of_their_own() {
    let (mut health, begin) = start(params());
    let (mut checks, mut agents) = (Vec::new(), Vec::new());
    let end = begin + SECOND * 60;
    while let Some(now) = health.poll_timeout().filter(|now| *now < end) {
        for id in health.poll_probes(now) {
            health.handle_probe(&id, Probe::Success, now);
            checks.push((id, now));
        }
        for id in health.poll_agents(now) {
            assert!(health.poll_agents(now).iter().all(|other| *other != id), "two questions at once");
            health.handle_agent(&id, AgentReport::default(), now);
            agents.push((id, now));
        }
    }
    for (times, interval) in [(&checks, 2), (&agents, 5)] {
        let mine: Vec<Instant> = times.iter().filter(|(id, _)| &**id == "a").map(|(_, at)| *at).collect();
        assert_eq!(mine.len(), 60 / interval as usize);
        assert!(mine.windows(2).all(|pair| pair[1] - pair[0] == SECOND * interval), "{interval}");
    }
    // A shorter interval holds at once.
    let shorter = AgentParams { interval: SECOND, timeout: SECOND };
    health.set_params(Params { agent: Some(shorter), ..params() }, end);
    assert_eq!(health.poll_agents(end + SECOND).len(), 2);
    // One whose end nobody tells is asked again.
    health.forget_probes(end + SECOND);
    assert_eq!(health.poll_agents(end + SECOND * 2).len(), 2);
}

#[test]
fn clients_stay_with_a_backend_that_takes_no_keys_as_long_as_it_lives_and_their_time_lasts() {
    let keep = |timeout| Params { keep_clients: timeout, ..params() };
    let drain = [Member { drain: true, ..Member::new("a") }, Member::new("b")];
    let weightless = [Member { weight: 0, ..Member::new("a") }, Member::new("b")];
    let both = [Member::new("a"), Member::new("b")];
    for members in [drain, weightless] {
        let (mut health, now) = start(keep(Some(SECOND * 60)));
        assert!(!health.keeps_clients("a"), "who takes keys needs no leave");
        health.set_members(&members, now);
        assert!(health.keeps_clients("a") && !health.keeps_clients("b"));
        assert!(health.take_changed());
        // Down by its checks, down by its agent, ejected: at once. Well again, they may come back.
        health.handle_probe("a", DOWN, now);
        assert!(!health.keeps_clients("a"));
        health.handle_probe("a", Probe::Success, now);
        assert!(health.keeps_clients("a"));
        health.handle_agent("a", up(false), now);
        assert!(!health.keeps_clients("a"));
        health.handle_agent("a", up(true), now);
        health.handle_outcome("a", ringway_health::Outcome::ConnectTimeout, now);
        assert!(!health.keeps_clients("a"));
        health.handle_timeout(now + SECOND * 40);
        assert!(health.keeps_clients("a"));
        let _ = health.take_changed();
        // The time runs from the drain, and ends by itself.
        health.poll_probes(now + SECOND * 59);
        health.poll_agents(now + SECOND * 59);
        assert_eq!(health.poll_timeout(), Some(now + SECOND * 60));
        health.handle_timeout(now + SECOND * 60);
        assert!(!health.keeps_clients("a") && health.take_changed());
        let told = std::iter::from_fn(|| health.poll_event()).filter(|event| event.kind.name() == "clients_moved");
        assert_eq!(told.count(), 1);
        // Another drain has its own time.
        health.set_members(&both, now + SECOND * 70);
        health.set_members(&members, now + SECOND * 80);
        health.handle_timeout(now + SECOND * 139);
        assert!(health.keeps_clients("a"));
        health.handle_timeout(now + SECOND * 140);
        assert!(!health.keeps_clients("a"));
    }
    let (mut health, now) = start(keep(Some(Duration::MAX)));
    health.set_members(&drain, now);
    health.handle_timeout(now + SECOND * 86_400 * 365);
    assert!(health.keeps_clients("a"), "until it is gone");
    let (mut health, now) = start(keep(None));
    health.set_members(&drain, now);
    assert!(!health.keeps_clients("a"), "not asked for");
}

#[test]
fn maintenance_keeps_no_client_whatever_says_it() {
    let (mut health, now) = start(params());
    health.set_members(&[Member { maintenance: true, ..Member::new("a") }, Member::new("b")], now);
    assert_eq!((state(&health, now), health.keeps_clients("a")), (("drained", 0), false));
    // The drain that it was forced out of has kept them until then.
    health.set_members(&[Member { drain: true, ..Member::new("a") }, Member::new("b")], now);
    assert!(health.keeps_clients("a"));
    health.set_members(&[Member { drain: true, maintenance: true, ..Member::new("a") }, Member::new("b")], now);
    assert!(!health.keeps_clients("a"));
    let (mut health, now) = start(params());
    for (said, keeps) in [(AgentMode::Drain, true), (AgentMode::Maintenance, false), (AgentMode::Ready, false)] {
        health.handle_agent("a", mode(said), now);
        assert_eq!(health.keeps_clients("a"), keeps, "{said:?}");
        assert_eq!(health.share("a") == Some(FULL), said == AgentMode::Ready);
    }
}

#[test]
fn the_status_has_the_agents_word_and_tells_degraded_backends_from_those_that_are_up() {
    let (mut health, now) = start(params());
    health.handle_probe("a", Probe::Success, now);
    let shown = |health: &ServiceHealth| {
        let view = health.view("a", now).unwrap();
        (view.agent, view.state, view.percent)
    };
    assert_eq!(shown(&health), ("up", "up", 100));
    health.handle_agent("a", percent(99), now);
    assert_eq!(shown(&health), ("up", "degraded", 99));
    health.handle_agent("a", mode(AgentMode::Drain), now);
    assert_eq!(shown(&health), ("drain", "drained", 0));
    health.handle_agent("a", mode(AgentMode::Maintenance), now);
    assert_eq!(shown(&health), ("maintenance", "drained", 0));
    health.handle_agent("a", AgentReport { mode: Some(AgentMode::Ready), ..up(false) }, now);
    assert_eq!(shown(&health).0, "down");
}
