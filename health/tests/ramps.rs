//! Who begins along a ramp and who at once, and what panic makes of ramps.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ringway_health::{
    AgentParams, AgentReport, CheckFailure, CheckParams, Initial, Member, OutlierParams, Params, Probe, ServiceHealth,
    SlowStartParams,
};
use std::time::{Duration, Instant};

const FULL: u16 = u16::MAX;
const SECOND: Duration = Duration::from_secs(1);
const DOWN: Probe = Probe::Failure(CheckFailure::Connect);
/// What a slow start begins with here.
const FIRST: u16 = FULL / 5;

fn params() -> Params {
    Params {
        check: Some(CheckParams { rise: 1, fall: 1, jitter: 0.0, ..CheckParams::default() }),
        agent: Some(AgentParams { interval: SECOND * 5, timeout: SECOND }),
        slow_start: Some(SlowStartParams { window: SECOND * 100, initial_percent: 20 }),
        drain_ramp: SECOND * 100,
        outlier: OutlierParams { consecutive_failures: 1, jitter: 0.0, ..OutlierParams::default() },
        ..Params::default()
    }
}

fn start(params: Params, members: &[Member<'_>]) -> (ServiceHealth, Instant) {
    let now = Instant::now();
    let mut health = ServiceHealth::new(params, 3, now);
    health.set_members(members, now);
    (health, now)
}

fn two() -> [Member<'static>; 2] {
    [Member::new("a"), Member::new("b")]
}

fn drained(id: &str) -> Member<'_> {
    Member { drain: true, ..Member::new(id) }
}

fn says(up: bool) -> AgentReport {
    AgentReport { up: Some(up), ..AgentReport::default() }
}

#[test]
fn checks_that_are_asked_no_more_bring_up_along_the_ramp_whom_they_alone_had_down() {
    let (mut health, now) = start(params(), &[Member::new("a"), Member::new("b"), Member::new("c")]);
    health.handle_probe("b", DOWN, now);
    health.handle_probe("c", DOWN, now);
    health.handle_agent("c", says(false), now);
    health.set_params(Params { check: None, ..params() }, now);
    // One that was up goes on, one that its agent has down as well stays so.
    assert_eq!(["a", "b", "c"].map(|id| health.share(id).unwrap()), [FULL, FIRST, 0]);
    assert!(health.poll_probes(now + SECOND * 1_000).is_empty(), "nobody is checked any more");
    health.handle_agent("c", says(true), now);
    assert_eq!(health.share("c"), Some(FIRST));
    // Checks that begin anew find nothing of what the old ones had found.
    health.set_params(params(), now);
    health.handle_timeout(now + SECOND * 100);
    assert_eq!(["a", "b", "c"].map(|id| health.share(id).unwrap()), [FULL; 3]);
    assert_eq!(health.poll_probes(now + SECOND * 100).len(), 3);
}

#[test]
fn agents_that_are_asked_no_more_leave_along_the_ramp_whom_they_alone_had_down() {
    let (mut health, now) = start(params(), &[Member::new("a"), Member::new("b"), Member::new("c")]);
    health.handle_agent("b", says(false), now);
    health.handle_agent("c", says(false), now);
    health.handle_probe("c", DOWN, now);
    health.set_params(Params { agent: None, ..params() }, now);
    assert_eq!(["a", "b", "c"].map(|id| health.share(id).unwrap()), [FULL, FIRST, 0]);
    health.handle_probe("c", Probe::Success, now);
    assert_eq!(health.share("c"), Some(FIRST));
}

#[test]
fn whoever_joins_comes_along_the_ramp_unless_he_takes_no_keys_or_the_fleet_begins_with_him() {
    let (mut health, now) = start(params(), &two());
    health.set_members(&[Member::new("a"), Member::new("b"), Member::new("c"), drained("d")], now);
    assert_eq!(["a", "b", "c", "d"].map(|id| health.share(id).unwrap()), [FULL, FULL, FIRST, 0]);
    assert_eq!(health.view("d", now).unwrap().state, "drained");
    health.handle_timeout(now + SECOND * 50);
    assert_eq!(health.share("d"), Some(0), "not half way up");
    // One that counts as down until it is checked begins with its first check, and not before.
    let unknown = CheckParams { initial: Initial::Down, rise: 1, ..CheckParams::default() };
    let (mut health, now) = start(Params { check: Some(unknown), ..params() }, &two());
    let mut members = two().to_vec();
    members.push(Member::new("c"));
    health.set_members(&members, now);
    health.handle_probe("c", Probe::Success, now + SECOND * 90);
    assert_eq!(health.share("c"), Some(FIRST));
}

/// Whoever takes a start for a comeback contradicts, for a whole window, every other proxy of its fleet.
#[test]
fn the_first_good_check_after_a_start_is_no_comeback_and_what_follows_a_failure_is_one() {
    let unknown = CheckParams { initial: Initial::Down, rise: 2, fall: 1, jitter: 0.0, ..CheckParams::default() };
    let ids = ["a", "b", "c", "d"];
    let (mut health, now) = start(Params { check: Some(unknown), ..params() }, &ids.map(Member::new));
    let share = |health: &ServiceHealth| ids.map(|id| health.share(id).unwrap());
    // One after the other, as checks come.
    health.handle_probe("a", Probe::Success, now);
    health.handle_probe("b", Probe::Success, now + SECOND);
    health.handle_probe("c", DOWN, now + SECOND);
    health.handle_no_probe("d", now + SECOND);
    assert_eq!(share(&health), [FULL, FULL, 0, 0]);
    // One was down, of the other nothing was known yet.
    for _ in 0..2 {
        health.handle_probe("c", Probe::Success, now + SECOND * 2);
    }
    health.handle_probe("d", Probe::Success, now + SECOND * 2);
    assert_eq!(share(&health), [FULL, FULL, FIRST, FULL]);
    // And from then on each of them comes back as anybody does.
    health.handle_probe("a", DOWN, now + SECOND * 3);
    for _ in 0..2 {
        health.handle_probe("a", Probe::Success, now + SECOND * 3);
    }
    assert_eq!(health.share("a"), Some(FIRST));
    // Who was drained and is not any more begins, whether it has been checked or not.
    let (mut health, now) = start(Params { check: Some(unknown), ..params() }, &[drained("a"), Member::new("b")]);
    health.set_members(&two(), now);
    health.handle_probe("a", Probe::Success, now);
    assert_eq!(health.share("a"), Some(FIRST));
}

/// What is drained has left its level as much as what is down: without the overflow, whoever is left takes it all.
#[test]
fn what_a_level_has_drained_overflows_to_the_next_along_its_ramp_and_panics_nobody() {
    let of = |level: u8, id| Member { level, ..Member::new(id) };
    let members = [of(0, "a"), of(0, "b"), of(0, "c"), of(1, "d"), of(1, "e"), of(1, "f")];
    let (mut health, now) =
        start(Params { panic_threshold_percent: 60, overprovisioning_percent: 140, ..params() }, &members);
    assert_eq!(health.level_shares(), [(0, 1.0), (1, 0.0)]);
    let leaving = members.map(|member| Member { drain: ["a", "b"].contains(&member.id), ..member });
    health.set_members(&leaving, now);
    assert_eq!(health.level_shares(), [(0, 1.0), (1, 0.0)], "they have only begun to leave");
    health.handle_timeout(now + SECOND * 50);
    let half = health.level_shares()[0].1;
    assert!((half - 1.4 * 2.0 / 3.0).abs() < 0.001, "{half}");
    health.handle_timeout(now + SECOND * 100);
    let left = health.level_shares()[0].1;
    assert!((left - 1.4 / 3.0).abs() < 0.001, "{left}");
    assert!(!health.is_panic());
    // The last of them goes down: of those that are meant to serve here, none does. The next level has all, and no panic is called for.
    health.handle_probe("c", DOWN, now + SECOND * 100);
    assert_eq!(health.level_shares(), [(0, 0.0), (1, 1.0)]);
    assert!(!health.is_panic());
    // An agent that drains its own backend says the same.
    let params = Params { overprovisioning_percent: 140, ..params() };
    let (mut health, now) = start(params, &[of(0, "a"), of(0, "b"), of(0, "c"), of(1, "d")]);
    for id in ["a", "b"] {
        health.handle_agent(
            id,
            AgentReport { mode: Some(ringway_health::AgentMode::Drain), ..AgentReport::default() },
            now,
        );
    }
    assert!((health.level_shares()[0].1 - 1.4 / 3.0).abs() < 0.001, "{:?}", health.level_shares());
    // Half of what had a tenth of its weight begins to leave: that is a twentieth of a backend.
    let tenth = || {
        let (mut health, now) = start(params, &[of(0, "a"), of(0, "b"), of(1, "c")]);
        health.handle_probe("a", Probe::Weighted(10), now);
        (health, now)
    };
    let (mut health, now) = tenth();
    health.set_members(&[Member { drain: true, ..of(0, "a") }, of(0, "b"), of(1, "c")], now);
    health.handle_timeout(now + SECOND * 100);
    assert_eq!(health.level_shares(), [(0, 1.0), (1, 0.0)], "100 of 110 are left");
    let (mut health, now) = tenth();
    health.handle_agent("a", AgentReport { percent: Some(0), ..AgentReport::default() }, now);
    assert_eq!(health.level_shares(), [(0, 1.0), (1, 0.0)]);
    // A part of a weight is a smaller weight: the level was built for that.
    let (mut health, now) = start(params, &[of(0, "a"), of(0, "b"), of(1, "c")]);
    health.handle_probe("a", Probe::Weighted(10), now);
    assert_eq!(health.level_shares(), [(0, 1.0), (1, 0.0)]);
}

/// While those who come back have hardly any keys, whoever stayed would have all of the zone's.
#[test]
fn who_comes_back_to_a_level_along_a_ramp_takes_its_part_of_the_keys_along_it_and_who_joins_takes_none_away() {
    let of = |level: u8, id| Member { level, ..Member::new(id) };
    let params = Params { overprovisioning_percent: 140, agent: None, drain_ramp: Duration::ZERO, ..params() };
    let members = [of(0, "a"), of(0, "b"), of(0, "c"), of(1, "d")];
    let drained = members.map(|member| Member { drain: ["a", "b"].contains(&member.id), ..member });
    let first = |health: &ServiceHealth| health.level_shares()[0].1;
    let near = |share: f64, wanted: f64| assert!((share - wanted).abs() < 0.001, "{share} instead of {wanted}");
    let (mut health, now) = start(params, &drained);
    near(first(&health), 1.4 / 3.0);
    health.set_members(&members, now);
    near(first(&health), 1.4 * (1.0 + 2.0 * 0.2) / 3.0);
    health.handle_timeout(now + SECOND * 100);
    near(first(&health), 1.0);
    // The same after they were down.
    for id in ["a", "b"] {
        health.handle_probe(id, DOWN, now);
    }
    near(first(&health), 1.4 / 3.0);
    for id in ["a", "b"] {
        health.handle_probe(id, Probe::Success, now);
    }
    near(first(&health), 1.4 * (1.0 + 2.0 * 0.2) / 3.0);
    // Two join one that was alone: nothing has become less, whether they are known to be up or not yet.
    for initial in [Initial::Up, Initial::Down] {
        let check = CheckParams { initial, rise: 1, fall: 1, jitter: 0.0, ..CheckParams::default() };
        let (mut health, now) = start(Params { check: Some(check), ..params }, &[of(0, "c"), of(1, "d")]);
        for id in ["c", "d"] {
            health.handle_probe(id, Probe::Success, now);
        }
        health.set_members(&members, now);
        near(first(&health), 1.0);
        for id in ["a", "b"] {
            health.handle_probe(id, Probe::Success, now);
            near(first(&health), 1.0);
        }
        health.handle_timeout(now + SECOND * 50);
        near(first(&health), 1.0);
        // One that goes down on its way had hardly come.
        health.handle_timeout(now + SECOND * 100);
        health.handle_probe("a", DOWN, now + SECOND * 100);
        near(first(&health), 1.4 * 2.0 / 3.0);
    }
}

#[test]
fn in_panic_the_unhealthy_have_all_their_keys_the_healthy_their_ramps_and_the_drained_theirs() {
    let members = [Member::new("a"), Member::new("b"), Member::new("c"), drained("d"), Member::new("e")];
    let (mut health, begin) = start(Params { panic_threshold_percent: 90, ..params() }, &members);
    // On the way up: one that is well then, and one that goes down again. On the way down: one that goes down.
    for id in ["a", "b"] {
        health.handle_probe(id, DOWN, begin);
        health.handle_probe(id, Probe::Success, begin);
    }
    let leaving = [Member::new("a"), Member::new("b"), Member::new("c"), drained("d"), drained("e")];
    health.set_members(&leaving, begin);
    let now = begin + SECOND * 50;
    for id in ["b", "c", "d", "e"] {
        health.handle_probe(id, DOWN, now);
    }
    assert!(health.is_panic());
    let share = |id| health.share(id).unwrap();
    assert!(share("a").abs_diff(FULL / 5 * 3) <= 2, "half of the way from a fifth: {}", share("a"));
    assert_eq!((share("b"), share("c")), (FULL, FULL));
    assert_eq!(share("d"), 0, "who came drained has nothing to give away");
    assert!(share("e").abs_diff(FULL / 2) <= 2, "half of the way down: {}", share("e"));
    assert!(!health.is_doubted("a") && health.is_doubted("b") && health.is_doubted("e"));
}

#[test]
fn one_level_that_could_carry_everything_panics_all_the_same_and_several_do_not() {
    let params = Params { panic_threshold_percent: 90, overprovisioning_percent: 200, slow_start: None, ..params() };
    let (mut health, now) = start(params, &two());
    health.handle_probe("a", DOWN, now);
    assert!(health.is_panic());
    let (mut health, now) = start(params, &[Member::new("a"), Member { level: 1, ..Member::new("b") }]);
    health.handle_probe("a", DOWN, now);
    assert!(!health.is_panic());
}

#[test]
fn panic_begins_below_its_threshold_and_not_at_it() {
    for (down, expected) in [(1, false), (2, false), (3, true)] {
        let ids = ["a", "b", "c", "d"];
        let (mut health, now) = start(
            Params { panic_threshold_percent: 50, ..params() },
            &ids.map(|id| Member { weight: 3, ..Member::new(id) }),
        );
        ids[..down].iter().for_each(|id| health.handle_probe(*id, DOWN, now));
        assert_eq!(health.is_panic(), expected, "{down} of four are down");
    }
    // Of weights, not of heads.
    let members = [Member { weight: 300, ..Member::new("a") }, Member::new("b"), Member::new("c")];
    for (id, expected) in [("a", true), ("b", false)] {
        let (mut health, now) = start(Params { panic_threshold_percent: 50, ..params() }, &members);
        health.handle_probe(id, DOWN, now);
        assert_eq!(health.is_panic(), expected, "{id}");
    }
}
