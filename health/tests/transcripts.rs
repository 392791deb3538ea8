//! Health as a transcript: what is told, what follows.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ringway_health::{
    Cause, CheckFailure, CheckParams, EventKind, FailurePercentageParams, Initial, Member, Outcome, OutlierOn,
    OutlierParams, PanicMode, Params, Probe, ServiceHealth, SlowStartParams, Window,
};
use std::time::{Duration, Instant};

const FULL: u16 = u16::MAX;
const SECOND: Duration = Duration::from_secs(1);
const DOWN: Probe = Probe::Failure(CheckFailure::Connect);

fn members(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("b{index}")).collect()
}

fn start(params: Params, count: usize) -> (ServiceHealth, Instant) {
    let now = Instant::now();
    let mut health = ServiceHealth::new(params, 42, now);
    set(&mut health, &members(count), &[], now);
    (health, now)
}

fn set(health: &mut ServiceHealth, ids: &[String], drained: &[&str], now: Instant) {
    let list: Vec<Member<'_>> =
        ids.iter().map(|id| Member { drain: drained.contains(&id.as_str()), ..Member::new(id) }).collect();
    health.set_members(&list, now);
}

fn events(health: &mut ServiceHealth) -> Vec<(String, &'static str)> {
    std::iter::from_fn(|| health.poll_event()).map(|event| (event.id, event.kind.name())).collect()
}

fn checks(check: CheckParams) -> Params {
    Params { check: Some(check), panic_threshold_percent: 0, ..Params::default() }
}

fn outlier(outlier: OutlierParams) -> Params {
    Params { outlier, panic_threshold_percent: 0, ..Params::default() }
}

#[test]
fn fall_failures_take_down_and_rise_successes_bring_up() {
    let (mut health, now) = start(checks(CheckParams { rise: 2, fall: 3, ..CheckParams::default() }), 2);
    health.handle_probe("b0", Probe::Success, now);
    for (probe, share) in [
        (DOWN, FULL),
        (DOWN, FULL),
        (Probe::Success, FULL),
        (DOWN, FULL),
        (DOWN, FULL),
        (DOWN, 0),
        (Probe::Success, 0),
        (DOWN, 0),
        (Probe::Success, 0),
        (Probe::Success, FULL),
    ] {
        health.handle_probe("b0", probe, now);
        assert_eq!(health.share("b0"), Some(share));
    }
    assert_eq!(events(&mut health), [("b0".into(), "down"), ("b0".into(), "up")]);
    assert_eq!(health.share("b1"), Some(FULL));
}

#[test]
fn a_check_that_ends_after_the_members_have_moved_counts_for_its_own_and_for_nobody_once_that_has_gone() {
    let check = CheckParams { interval: SECOND, ..CheckParams::default() };
    let (mut health, now) = start(checks(check), 4);
    let due = health.poll_probes(now + SECOND);
    assert_eq!(due.len(), 4);
    let (now, left) = (now + SECOND, ["b1", "b2", "c"].map(str::to_owned));
    set(&mut health, &left, &[], now);
    for key in due.iter().filter(|key| &***key != "b1") {
        health.handle_probe(key, DOWN, now);
    }
    assert_eq!(["b1", "b2", "c"].map(|id| health.share(id)), [Some(FULL), Some(0), Some(FULL)]);
    // Who is new is checked as the others are, and a check that is under way is not made twice.
    let mut again: Vec<String> = health.poll_probes(now + SECOND * 2).iter().map(|key| key.to_string()).collect();
    again.sort();
    assert_eq!(again, ["b2", "c"]);
}

#[test]
fn checks_that_end_together_are_judged_each_for_itself_and_shares_follow_from_all() {
    let params = Params { panic_threshold_percent: 60, ..checks(CheckParams { fall: 1, ..CheckParams::default() }) };
    let (mut health, now) = start(params, 4);
    health.handle_probes([("b0", DOWN), ("nobody", DOWN), ("b1", Probe::Success), ("b2", DOWN)], now);
    let told = [("b0".into(), "down"), ("b2".into(), "down"), (String::new(), "panic_began")];
    assert_eq!(events(&mut health), told);
    health.handle_probes([("b3", Probe::Success), ("b0", Probe::Success), ("b0", Probe::Success)], now);
    assert_eq!(events(&mut health), [("b0".into(), "up"), (String::new(), "panic_ended")]);
    assert_eq!(["b0", "b1", "b2", "b3"].map(|id| health.share(id)), [Some(FULL), Some(FULL), Some(0), Some(FULL)]);
}

#[test]
fn first_check_decides_alone() {
    for (initial, probe, before, after) in [(Initial::Up, DOWN, FULL, 0), (Initial::Down, Probe::Success, 0, FULL)] {
        let (mut health, now) = start(checks(CheckParams { initial, ..CheckParams::default() }), 2);
        assert_eq!(health.share("b0"), Some(before));
        health.handle_probe("b0", probe, now);
        assert_eq!(health.share("b0"), Some(after));
    }
}

#[test]
fn a_check_that_could_not_be_made_changes_nothing_but_is_made_again() {
    let check = CheckParams { interval: SECOND, jitter: 0.0, rise: 1, fall: 2, ..CheckParams::default() };
    let (mut health, _) = start(checks(check), 1);
    let first = health.poll_timeout().unwrap();
    health.handle_probe("b0", Probe::Success, first);
    health.handle_probe("b0", DOWN, first);
    let mut now = health.poll_timeout().unwrap().max(first);
    health.take_changed();
    for _ in 0..10 {
        assert_eq!(health.poll_probe(now).as_deref(), Some("b0"));
        health.handle_no_probe("b0", now);
        assert_eq!((health.share("b0"), health.take_changed()), (Some(FULL), false), "neither fall");
        now = health.poll_timeout().unwrap();
    }
    // Nor rise: the failure of before still counts.
    health.handle_probe("b0", DOWN, now);
    assert_eq!((health.share("b0"), events(&mut health)), (Some(0), vec![("b0".into(), "down")]));
    health.handle_no_probe("b0", now);
    assert_eq!(health.share("b0"), Some(0));
}

#[test]
fn checks_that_nobody_tells_of_any_more_are_made_again() {
    let check = CheckParams { interval: SECOND, jitter: 0.0, ..CheckParams::default() };
    let (mut health, now) = start(checks(check), 3);
    let later = now + SECOND;
    assert_eq!(health.poll_probes(later).len(), 3);
    assert_eq!((health.poll_probes(later + 9 * SECOND).len(), health.poll_timeout()), (0, None), "all are under way");
    health.forget_probes(later + 9 * SECOND);
    assert_eq!(health.poll_probes(later + 10 * SECOND).len(), 3);
    assert_eq!(events(&mut health), [], "and nothing is known of their backends");
}

#[test]
fn interval_follows_the_state() {
    let check = CheckParams {
        interval: SECOND * 10,
        interval_down: SECOND * 5,
        interval_transition: SECOND,
        jitter: 0.0,
        fall: 2,
        rise: 2,
        ..CheckParams::default()
    };
    let (mut health, begin) = start(checks(check), 1);
    let first = health.poll_timeout().unwrap();
    assert!(first <= begin + SECOND * 10);
    let mut now = first;
    for (probe, gap) in [
        (Probe::Success, 10),
        (Probe::Success, 10),
        (DOWN, 1),
        (DOWN, 5),
        (DOWN, 5),
        (Probe::Success, 1),
        (Probe::Success, 10),
    ] {
        assert_eq!(health.poll_probe(now).as_deref(), Some("b0"));
        assert_eq!(health.poll_probe(now), None, "one check at a time");
        // The check's own time is part of the interval.
        health.handle_probe("b0", probe, now + Duration::from_millis(300));
        assert_eq!(health.poll_timeout(), Some(now + SECOND * gap), "after {probe:?}");
        now += SECOND * gap;
    }
}

#[test]
fn jitter_only_shortens_and_first_checks_are_spread() {
    let (mut health, begin) =
        start(checks(CheckParams { interval: SECOND, jitter: 0.2, ..CheckParams::default() }), 100);
    let mut starts = Vec::new();
    let mut now = begin;
    while now < begin + SECOND {
        now += Duration::from_millis(10);
        starts.extend(std::iter::from_fn(|| health.poll_probe(now)).map(|id| (id, now)));
    }
    assert_eq!(starts.len(), 100);
    let early = starts.iter().filter(|(_, at)| *at < begin + SECOND / 2).count();
    assert!((25..75).contains(&early), "{early} of 100 in the first half");
    for (id, at) in &starts {
        health.handle_probe(id, Probe::Success, *at);
    }
    let mut next = now;
    let mut gaps = Vec::new();
    while gaps.len() < 100 {
        next += Duration::from_millis(1);
        while let Some(id) = health.poll_probe(next) {
            gaps.push(next - starts.iter().find(|(other, _)| *other == id).unwrap().1);
        }
    }
    assert!(
        gaps.iter().all(|gap| (Duration::from_millis(790)..=Duration::from_millis(1_001)).contains(gap)),
        "{gaps:?}"
    );
}

#[test]
fn consecutive_failures_eject_and_backoff_grows() {
    let params = OutlierParams {
        consecutive_failures: 3,
        base_ejection: SECOND * 10,
        max_ejection: SECOND * 25,
        jitter: 0.0,
        ..OutlierParams::default()
    };
    let (mut health, mut now) = start(outlier(params), 4);
    for seconds in [10, 20, 25, 25] {
        for _ in 0..2 {
            health.handle_outcome("b0", Outcome::Status(500), now);
        }
        assert!(health.is_suspect("b0"));
        health.handle_outcome("b0", Outcome::Success, now);
        assert!(!health.is_suspect("b0"));
        for _ in 0..2 {
            health.handle_outcome("b0", Outcome::ConnectionFailure, now);
            assert_eq!(health.share("b0"), Some(FULL));
        }
        health.handle_outcome("b0", Outcome::Timeout, now);
        assert_eq!((health.share("b0"), health.poll_timeout()), (Some(0), Some(now + SECOND * seconds)));
        now += SECOND * seconds;
        health.handle_timeout(now);
        assert_eq!(health.share("b0"), Some(FULL));
        now += SECOND;
    }
    // A long peace is forgiven.
    now += SECOND * 1000;
    for _ in 0..3 {
        health.handle_outcome("b0", Outcome::Timeout, now);
    }
    assert_eq!(health.poll_timeout(), Some(now + SECOND * 10));
}

#[test]
fn connect_timeout_ejects_at_once() {
    let (mut health, now) = start(outlier(OutlierParams { consecutive_failures: 5, ..OutlierParams::default() }), 3);
    health.handle_outcome("b1", Outcome::ConnectTimeout, now);
    assert_eq!(health.share("b1"), Some(0));
}

#[test]
fn what_counts_is_what_the_policy_says() {
    for (on, status, counts) in [
        (OutlierOn::Connection, 503, false),
        (OutlierOn::Gateway, 500, false),
        (OutlierOn::Gateway, 503, true),
        (OutlierOn::ServerErrors, 500, true),
        (OutlierOn::ServerErrors, 499, false),
    ] {
        let (mut health, now) =
            start(outlier(OutlierParams { on, consecutive_failures: 1, ..OutlierParams::default() }), 2);
        health.handle_outcome("b0", Outcome::Status(status), now);
        assert_eq!(health.share("b0") == Some(0), counts, "{on:?} {status}");
    }
}

#[test]
fn ejections_are_capped_but_one_always_may() {
    let params = OutlierParams { consecutive_failures: 1, max_ejection_percent: 20, ..OutlierParams::default() };
    for (count, expected) in [(1, 0), (2, 1), (5, 1), (10, 2), (20, 4)] {
        let (mut health, now) = start(outlier(params), count);
        for id in members(count) {
            health.handle_outcome(&id, Outcome::ConnectionFailure, now);
        }
        let ejected = members(count).iter().filter(|id| health.share(id) == Some(0)).count();
        assert_eq!(ejected, expected, "of {count}");
        let withheld = events(&mut health).iter().filter(|(_, name)| *name == "ejection_withheld").count();
        assert_eq!(withheld, count - expected);
    }
}

#[test]
fn panic_ignores_health_but_not_drains() {
    let params = Params { panic_threshold_percent: 50, ..checks(CheckParams { fall: 1, ..CheckParams::default() }) };
    let (mut health, now) = start(params, 4);
    set(&mut health, &members(4), &["b3"], now);
    health.handle_probe("b0", DOWN, now);
    assert_eq!((health.is_panic(), health.share("b0")), (false, Some(0)));
    health.handle_probe("b1", DOWN, now);
    assert_eq!((health.is_panic(), health.share("b0"), health.share("b1")), (true, Some(FULL), Some(FULL)));
    assert_eq!(health.share("b3"), Some(0), "who drains goes on draining");
    health.handle_probe("b1", Probe::Success, now);
    health.handle_probe("b1", Probe::Success, now);
    assert_eq!((health.is_panic(), health.share("b0"), health.share("b1")), (false, Some(0), Some(FULL)));
    let names: Vec<&str> = events(&mut health).iter().map(|(_, name)| *name).collect();
    assert_eq!(names, ["draining", "down", "down", "panic_began", "up", "panic_ended"]);
}

#[test]
fn slow_start_ramps_upwards_only_and_drain_downwards_only() {
    let slow = SlowStartParams { window: SECOND * 10, initial_percent: 10 };
    let params = Params {
        slow_start: Some(slow),
        drain_ramp: SECOND * 10,
        ..checks(CheckParams { rise: 1, fall: 1, ..CheckParams::default() })
    };
    let (mut health, mut now) = start(params, 2);
    assert_eq!(health.share("b0"), Some(FULL), "the first fleet has its share at once");
    health.handle_probe("b0", DOWN, now);
    health.handle_probe("b0", Probe::Success, now);
    let mut shares = vec![health.share("b0").unwrap()];
    assert!((FULL / 11..=FULL / 9).contains(&shares[0]), "{shares:?}");
    for _ in 0..100 {
        now += Duration::from_millis(100);
        health.handle_timeout(now);
        shares.push(health.share("b0").unwrap());
    }
    assert!(shares.is_sorted() && *shares.last().unwrap() == FULL, "{shares:?}");
    assert_eq!(health.share("b1"), Some(FULL));

    // Who joins later comes along the ramp; who drains goes along his.
    let mut ids = members(3);
    set(&mut health, &ids, &[], now);
    assert!(health.share("b2").unwrap() < FULL / 2);
    now += SECOND * 10;
    health.handle_timeout(now);
    assert_eq!(health.share("b2"), Some(FULL));
    set(&mut health, &ids, &["b1"], now);
    let mut shares = vec![health.share("b1").unwrap()];
    for _ in 0..100 {
        now += Duration::from_millis(100);
        health.handle_timeout(now);
        shares.push(health.share("b1").unwrap());
    }
    assert!(shares.iter().rev().is_sorted() && shares[0] > FULL / 2 && shares[100] == 0, "{shares:?}");
    assert_eq!(health.view("b1", now).unwrap().state, "drained");

    // State is carried over by id.
    health.handle_probe("b0", DOWN, now);
    ids.remove(2);
    set(&mut health, &ids, &["b1"], now);
    assert_eq!((health.share("b0"), health.share("b2")), (Some(0), None));
}

#[test]
fn reason_of_the_last_failure_is_kept_for_the_status() {
    let (mut health, now) = start(checks(CheckParams { fall: 1, ..CheckParams::default() }), 1);
    health.handle_probe("b0", Probe::Failure(CheckFailure::Status(503)), now);
    let view = health.view("b0", now).unwrap();
    assert_eq!((view.state, view.check_failure.unwrap().to_string().as_str()), ("down", "check: status 503"));
    let event = std::iter::from_fn(|| health.poll_event()).next().unwrap();
    assert_eq!(event.kind, EventKind::Down(CheckFailure::Status(503)));
}

#[test]
fn checks_may_ask_for_another_weight() {
    let (mut health, now) = start(checks(CheckParams::default()), 2);
    health.handle_probe("b0", Probe::Weighted(50), now);
    assert_eq!(health.share("b0"), Some(FULL / 2));
    assert_eq!(health.view("b0", now).unwrap().state, "degraded");
    health.handle_probe("b0", Probe::Weighted(0), now);
    assert_eq!((health.share("b0"), health.view("b0", now).unwrap().state), (Some(0), "drained"));
    // A failed check says nothing of weights; a plain success asks for all of it.
    health.handle_probe("b0", DOWN, now);
    assert_eq!(health.share("b0"), Some(0));
    health.handle_probe("b0", Probe::Success, now);
    assert_eq!(health.share("b0"), Some(FULL));
    let kinds: Vec<&str> = events(&mut health).into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["reweighted", "reweighted", "reweighted"]);
    let (change, _) = health.view("b0", now).unwrap().last_change.unwrap();
    assert_eq!(change.to_string(), "its checks ask for 100 % of its weight");
}

#[test]
fn connection_failures_are_counted_apart_if_asked() {
    let params = OutlierParams {
        on: OutlierOn::ServerErrors,
        consecutive_failures: 3,
        consecutive_local_failures: Some(2),
        ..OutlierParams::default()
    };
    let (mut health, now) = start(outlier(params), 5);
    for _ in 0..2 {
        health.handle_outcome("b0", Outcome::Status(500), now);
    }
    health.handle_outcome("b0", Outcome::ConnectionFailure, now);
    assert_eq!(health.share("b0"), Some(FULL));
    health.handle_outcome("b0", Outcome::ConnectionFailure, now);
    assert_eq!(health.share("b0"), Some(0));
    let event = std::iter::from_fn(|| health.poll_event()).last().unwrap();
    assert!(matches!(event.kind, EventKind::Ejected { cause: Cause::Local(2), .. }), "{event:?}");
    assert_eq!(event.kind.reason(), "consecutive_local_failures");
}

#[test]
fn statistics_eject_with_their_cause_and_within_the_cap() {
    let detector = FailurePercentageParams { threshold: 50, hosts_min: 3, volume_min: 10 };
    let params = OutlierParams { failure_percentage: Some(detector), ..OutlierParams::default() };
    let (mut health, now) = start(outlier(params), 5);
    let window = |id, failures| Window { id, requests: 100, failures, latency_micros: 0 };
    health.handle_windows(&[window("b0", 60), window("b1", 90), window("b2", 0), window("b3", 0)], now);
    // 20 % of five: one. The first is out, the second would be.
    assert_eq!(["b0", "b1"].map(|id| health.share(id)), [Some(0), Some(FULL)]);
    assert_eq!(events(&mut health), [("b0".into(), "ejected"), ("b1".into(), "ejection_withheld")]);
    let view = health.view("b0", now).unwrap();
    assert!(view.last_change.unwrap().0.to_string().ends_with("60 % of its requests failed"));
}

#[test]
fn retry_after_is_obeyed_up_to_its_limit() {
    let params = OutlierParams { retry_after_max: SECOND * 10, ..OutlierParams::default() };
    let (mut health, now) = start(outlier(params), 5);
    health.handle_outcome("b0", Outcome::RetryAfter { status: 429, wish: SECOND * 3600 }, now);
    assert_eq!(health.view("b0", now).unwrap().ejected_for, Some(SECOND * 10));
    health.handle_timeout(now + SECOND * 10);
    assert_eq!(health.share("b0"), Some(FULL));
    // It is no offence: a later ejection is the first.
    for _ in 0..5 {
        health.handle_outcome("b0", Outcome::ConnectionFailure, now + SECOND * 11);
    }
    assert!(health.view("b0", now + SECOND * 11).unwrap().ejected_for.unwrap() <= SECOND * 33);
    let (mut health, now) = start(outlier(OutlierParams::default()), 5);
    health.handle_outcome("b0", Outcome::RetryAfter { status: 503, wish: SECOND }, now);
    assert_eq!(health.share("b0"), Some(FULL), "not asked for");
}

#[test]
fn good_checks_end_an_ejection_if_asked() {
    for asked in [true, false] {
        let params = Params {
            outlier: OutlierParams { return_on_check: asked, ..OutlierParams::default() },
            ..checks(CheckParams { rise: 2, ..CheckParams::default() })
        };
        let (mut health, now) = start(params, 5);
        for _ in 0..3 {
            health.handle_probe("b0", Probe::Success, now);
        }
        for _ in 0..5 {
            health.handle_outcome("b0", Outcome::ConnectionFailure, now);
        }
        health.handle_probe("b0", Probe::Success, now);
        assert_eq!(health.share("b0"), Some(0));
        health.handle_probe("b0", Probe::Success, now);
        assert_eq!(health.share("b0"), Some(if asked { FULL } else { 0 }));
    }
}

#[test]
fn lower_tier_takes_over_as_the_first_fails_and_panic_waits() {
    let params = Params {
        check: Some(CheckParams::default()),
        panic_threshold_percent: 50,
        overprovisioning_percent: 140,
        ..Params::default()
    };
    let now = Instant::now();
    let mut health = ServiceHealth::new(params, 1, now);
    let member = |id, level| Member { level, ..Member::new(id) };
    health.set_members(&[member("a0", 0), member("a1", 0), member("z0", 2), member("z1", 2)], now);
    let shares = |health: &ServiceHealth| -> Vec<(u8, u32)> {
        health.level_shares().iter().map(|(level, share)| (*level, (share * 100.0).round() as u32)).collect()
    };
    assert_eq!(shares(&health), [(0, 100), (2, 0)]);
    health.handle_probe("a0", DOWN, now);
    assert_eq!(shares(&health), [(0, 70), (2, 30)]);
    assert!(!health.is_panic());
    health.handle_probe("a1", DOWN, now);
    assert_eq!(shares(&health), [(0, 0), (2, 100)]);
    assert!(!health.is_panic() && health.share("a0") == Some(0));
    // The last tier fails as well: now there is panic, and everybody is asked.
    health.handle_probe("z0", DOWN, now);
    health.handle_probe("z1", DOWN, now);
    assert!(health.is_panic());
    assert_eq!(health.share("a0"), Some(FULL));
}

#[test]
fn panic_may_refuse_instead() {
    let mut params = checks(CheckParams::default());
    (params.panic_threshold_percent, params.panic_mode) = (60, PanicMode::Fail);
    let (mut health, now) = start(params, 2);
    health.handle_probe("b0", DOWN, now);
    assert!(health.is_panic());
    assert_eq!(["b0", "b1"].map(|id| health.share(id)), [Some(0), Some(0)]);
    health.handle_probe("b0", Probe::Success, now);
    health.handle_probe("b0", Probe::Success, now);
    assert_eq!(["b0", "b1"].map(|id| health.share(id)), [Some(FULL), Some(FULL)]);
}

#[test]
fn all_due_checks_come_at_once_and_each_once() {
    let (mut health, now) = start(checks(CheckParams::default()), 50);
    let later = now + SECOND * 2;
    let mut due: Vec<String> = health.poll_probes(later).iter().map(|key| key.to_string()).collect();
    assert!(health.poll_probes(later).is_empty() && health.poll_probe(later).is_none());
    due.sort();
    let mut all = members(50);
    all.sort();
    assert_eq!(due, all);
}

#[test]
fn a_drained_backend_that_is_well_again_takes_no_keys_along_a_slow_start() {
    let params = Params {
        outlier: OutlierParams { return_on_check: true, ..OutlierParams::default() },
        slow_start: Some(SlowStartParams { window: SECOND * 60, initial_percent: 10 }),
        ..checks(CheckParams { rise: 2, ..CheckParams::default() })
    };
    let (mut health, now) = start(params, 5);
    health.handle_probe("b0", Probe::Success, now);
    for _ in 0..5 {
        health.handle_outcome("b0", Outcome::ConnectionFailure, now);
    }
    // As the fleet does with what all see down.
    set(&mut health, &members(5), &["b0"], now);
    for _ in 0..2 {
        health.handle_probe("b0", Probe::Success, now);
    }
    let view = health.view("b0", now).unwrap();
    assert!(view.healthy, "{view:?}");
    health.handle_timeout(now + SECOND * 30);
    assert_eq!(health.share("b0"), Some(0));
    // Back with all: now it begins.
    set(&mut health, &members(5), &[], now + SECOND * 30);
    health.handle_timeout(now + SECOND * 60);
    assert!(health.share("b0").unwrap() > 0);
}

#[test]
fn half_way_along_a_ramp_is_half_of_the_way_whatever_it_began_with() {
    let slow = SlowStartParams { window: SECOND * 10, initial_percent: 10 };
    let params =
        Params { slow_start: Some(slow), ..checks(CheckParams { rise: 1, fall: 1, ..CheckParams::default() }) };
    let (mut health, mut now) = start(params, 2);
    health.handle_probe("b0", DOWN, now);
    health.handle_probe("b0", Probe::Success, now);
    let first = health.share("b0").unwrap();
    now += SECOND * 5;
    health.handle_timeout(now);
    let half = health.share("b0").unwrap();
    // From a tenth to all: 55 in a hundred.
    assert!(half.abs_diff(first / 2 + FULL / 2) <= FULL / 100, "{first} {half}");
}

#[test]
fn the_next_step_of_a_ramp_is_soon_and_never_later_than_its_end() {
    let slow = SlowStartParams { window: SECOND * 10, initial_percent: 10 };
    let quiet = CheckParams { rise: 1, fall: 1, interval: SECOND * 1000, jitter: 0.0, ..CheckParams::default() };
    let (mut health, mut now) = start(Params { slow_start: Some(slow), ..checks(quiet) }, 2);
    // Those of the beginning are over.
    now += SECOND * 999;
    health.handle_timeout(now);
    while health.poll_probe(now).is_some() {}
    for id in ["b0", "b1"] {
        health.handle_probe(id, DOWN, now);
        health.handle_probe(id, Probe::Success, now);
    }
    let end = now + SECOND * 10;
    let mut steps = 0;
    while now < end {
        let next = health.poll_timeout().unwrap();
        assert!(next > now && next <= end && next <= now + SECOND, "after {steps} steps");
        now = next;
        health.handle_timeout(now);
        steps += 1;
    }
    assert!((10..=200).contains(&steps), "{steps}");
    assert_eq!(health.share("b0"), Some(FULL));
}

#[test]
fn a_failure_is_shown_before_it_takes_anybody_down_and_no_longer_than_it_lasts() {
    let (mut health, now) = start(checks(CheckParams { rise: 2, fall: 3, ..CheckParams::default() }), 1);
    let shown = |health: &ServiceHealth| {
        let view = health.view("b0", now).unwrap();
        (view.state, view.check_failure)
    };
    health.handle_probe("b0", Probe::Success, now);
    assert_eq!(shown(&health), ("up", None));
    health.handle_probe("b0", DOWN, now);
    assert_eq!(shown(&health), ("up", Some(CheckFailure::Connect)));
    health.handle_probe("b0", Probe::Success, now);
    assert_eq!(shown(&health), ("up", None));
}
