//! How long an ejection lasts, whom it may take, and what Retry-After has to say in it.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ringway_health::{
    Cause, CheckFailure, CheckParams, EventKind, FailurePercentageParams, LatencyParams, Member, Outcome,
    OutlierParams, Params, Probe, ServiceHealth, SuccessRateParams, Window,
};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const FULL: u16 = u16::MAX;

fn params(outlier: OutlierParams) -> Params {
    Params { outlier, ..Params::default() }
}

fn start(outlier: OutlierParams, members: &[Member<'_>]) -> (ServiceHealth, Instant) {
    let now = Instant::now();
    let mut health = ServiceHealth::new(params(outlier), 7, now);
    health.set_members(members, now);
    (health, now)
}

fn named<'a>(names: &[&'a str]) -> Vec<Member<'a>> {
    names.iter().map(|name| Member::new(name)).collect()
}

fn drained(name: &str) -> Member<'_> {
    Member { drain: true, ..Member::new(name) }
}

fn ejections(health: &mut ServiceHealth) -> Vec<(String, Cause, Duration)> {
    let events = std::iter::from_fn(|| health.poll_event());
    let ejected = events.filter_map(|event| match event.kind {
        EventKind::Ejected { cause, duration } => Some((event.id, cause, duration)),
        _ => None,
    });
    ejected.collect()
}

fn is_ejected(health: &ServiceHealth, id: &str, now: Instant) -> bool {
    health.view(id, now).unwrap().ejected_for.is_some()
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn no_ejection_is_longer_than_the_longest_nor_shorter_than_jitter_allows() {
    let mut random = Random(0x5eed);
    for _ in 0..2_000 {
        let base_millis = 1 + random.below(100_000);
        let most_millis = base_millis + random.below(200_000) * random.below(2);
        let percent = random.below(101);
        let (base, most) = (Duration::from_millis(base_millis), Duration::from_millis(most_millis));
        let outlier = OutlierParams {
            consecutive_failures: 1,
            base_ejection: base,
            max_ejection: most,
            jitter: percent as f64 / 100.0,
            retry_after_max: SECOND * random.below(1_000) as u32,
            ..OutlierParams::default()
        };
        let (mut health, mut now) = start(outlier, &named(&["a", "b"]));
        for count in 1..=6_u32 {
            let outcome = match random.below(2) {
                0 => Outcome::Status(500),
                _ => Outcome::RetryAfter { status: 503, wish: SECOND * random.below(1_000) as u32 },
            };
            health.handle_outcome("a", outcome, now);
            let [(_, _, length)] = ejections(&mut health)[..] else { panic!("not ejected once") };
            assert!(length <= most, "{length:?} with {outlier:?}");
            // What of the limit jitter may take, to spread who has come to it.
            let least = base.saturating_mul(count).min(most.div_f64(1.0 + outlier.jitter));
            assert!(length + Duration::from_micros(1) >= least, "{length:?} is less than {least:?} with {outlier:?}");
            now += length;
            health.handle_timeout(now);
            assert!(!is_ejected(&health, "a", now));
        }
    }
}

#[test]
fn jitter_still_spreads_backends_that_are_ejected_for_the_longest_time() {
    for (base, jitter) in [(10, 1.0), (10, 0.1), (3, 0.5), (9, 0.2)] {
        let outlier = OutlierParams {
            consecutive_failures: 1,
            base_ejection: SECOND * base,
            max_ejection: SECOND * 10,
            jitter,
            max_ejection_percent: 99,
            ..OutlierParams::default()
        };
        let names: Vec<String> = (0..100).map(|index| format!("b{index}")).collect();
        let members: Vec<Member<'_>> = names.iter().map(|name| Member::new(name)).collect();
        let (mut health, mut now) = start(outlier, &members);
        // Until all of them have come to the limit.
        for _ in 0..5 {
            names.iter().for_each(|name| health.handle_outcome(name, Outcome::Status(500), now));
            let lengths: Vec<Duration> = ejections(&mut health).into_iter().map(|(.., length)| length).collect();
            let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
            assert_eq!(lengths.len(), 99);
            assert!(*most <= SECOND * 10);
            let spread = (*most - *least).as_secs_f64() / least.as_secs_f64();
            assert!(
                spread > jitter * 0.7 && spread <= jitter + 1e-6,
                "{spread} of {jitter}, from {least:?} to {most:?}"
            );
            now += SECOND * 10;
            health.handle_timeout(now);
        }
    }
}

#[test]
fn durations_beyond_all_measure_are_ejections_as_good_as_for_ever() {
    for jitter in [0.0, 0.5, 1.0] {
        let outlier = OutlierParams {
            consecutive_failures: 1,
            base_ejection: Duration::MAX,
            max_ejection: Duration::MAX,
            retry_after_max: Duration::MAX,
            jitter,
            ..OutlierParams::default()
        };
        for outcome in [Outcome::Status(500), Outcome::RetryAfter { status: 429, wish: Duration::MAX }] {
            let (mut health, now) = start(outlier, &named(&["a", "b"]));
            health.handle_outcome("a", outcome, now);
            health.handle_timeout(now + SECOND * 86_400 * 365);
            assert!(is_ejected(&health, "a", now));
        }
    }
}

#[test]
fn a_backend_that_cannot_take_traffic_is_no_part_of_those_that_may_be_ejected() {
    // (drained, of weight 0, down, all bad): never both of the two that take traffic, at any percentage below all.
    for kind in ["drained", "weightless", "down", "asks for nothing"] {
        for percent in [0, 10, 20, 50, 80, 99] {
            let outlier =
                OutlierParams { consecutive_failures: 1, max_ejection_percent: percent, ..OutlierParams::default() };
            let names: Vec<String> = (0..10).map(|index| format!("b{index}")).collect();
            let members = names.iter().enumerate().map(|(index, name)| Member {
                drain: kind == "drained" && index >= 2,
                weight: if kind == "weightless" && index >= 2 { 0 } else { 100 },
                ..Member::new(name)
            });
            let now = Instant::now();
            let check = CheckParams { fall: 1, ..CheckParams::default() };
            let mut health = ServiceHealth::new(Params { check: Some(check), ..params(outlier) }, 7, now);
            health.set_members(&members.collect::<Vec<_>>(), now);
            for (index, name) in names.iter().enumerate() {
                let probe = match kind {
                    "down" if index >= 2 => Probe::Failure(CheckFailure::Connect),
                    "asks for nothing" if index >= 2 => Probe::Weighted(0),
                    _ => Probe::Success,
                };
                health.handle_probe(name.as_str(), probe, now);
            }
            // Those that take nothing fail first, as they may: nobody is protected by that, and nobody exposed.
            for name in names.iter().rev() {
                health.handle_outcome(name, Outcome::ConnectTimeout, now);
            }
            let taking = names.iter().filter(|name| health.share(name).unwrap() > 0).count();
            assert!(taking >= 1, "{kind}, {percent} %: nobody is left");
        }
    }
}

#[test]
fn one_of_two_that_live_may_be_ejected_beside_eight_that_are_drained() {
    let outlier = OutlierParams { consecutive_failures: 1, max_ejection_percent: 20, ..OutlierParams::default() };
    let names: Vec<String> = (0..10).map(|index| format!("b{index}")).collect();
    let members: Vec<Member<'_>> =
        names.iter().enumerate().map(|(index, name)| Member { drain: index >= 2, ..Member::new(name) }).collect();
    let (mut health, now) = start(outlier, &members);
    // Drained ones that fail their last sessions are ejected too, and take nobody's place in that.
    for name in ["b7", "b8", "b9"] {
        health.handle_outcome(name, Outcome::Status(500), now);
        assert!(is_ejected(&health, name, now));
    }
    health.handle_outcome("b0", Outcome::Status(500), now);
    health.handle_outcome("b1", Outcome::Status(500), now);
    assert_eq!((health.share("b0"), health.share("b1")), (Some(0), Some(FULL)));
    // All come back from their drains: three of ten are ejected beside b0, and 20 % are two.
    health.set_members(&names.iter().map(|name| Member::new(name)).collect::<Vec<_>>(), now);
    let ejected = names.iter().filter(|name| is_ejected(&health, name, now)).count();
    assert_eq!(ejected, 2);
    assert!(is_ejected(&health, "b0", now), "who was ejected while it took traffic stays so");
}

#[test]
fn all_may_be_ejected_only_where_that_is_written() {
    for (percent, left) in [(99, 1), (100, 0)] {
        let outlier =
            OutlierParams { consecutive_failures: 1, max_ejection_percent: percent, ..OutlierParams::default() };
        let (mut health, now) = start(outlier, &named(&["a", "b", "c"]));
        for name in ["a", "b", "c"] {
            health.handle_outcome(name, Outcome::Status(500), now);
        }
        let taking = ["a", "b", "c"].iter().filter(|name| health.share(name).unwrap() > 0).count();
        assert_eq!(taking, left, "{percent} %");
    }
}

#[test]
fn share_that_may_be_ejected_is_of_all_tiers_and_leaves_somebody_in_any() {
    let outlier = OutlierParams { consecutive_failures: 1, max_ejection_percent: 20, ..OutlierParams::default() };
    let names: Vec<String> = (0..10).map(|index| format!("b{index}")).collect();
    let members: Vec<Member<'_>> = names
        .iter()
        .enumerate()
        .map(|(index, name)| Member { level: u8::from(index >= 2), ..Member::new(name) })
        .collect();
    let (mut health, now) = start(outlier, &members);
    for name in &names {
        health.handle_outcome(name, Outcome::Status(500), now);
    }
    // A tier that is all bad gives its keys to the next.
    let ejected: Vec<&String> = names.iter().filter(|name| is_ejected(&health, name, now)).collect();
    assert_eq!(ejected, ["b0", "b1"]);
    assert_eq!(health.level_shares(), [(0, 0.0), (1, 1.0)]);
}

#[test]
fn a_backend_that_takes_no_keys_is_no_yardstick_of_a_detector() {
    let window = |id, failures, latency_micros| Window { id, requests: 100, failures, latency_micros };
    let windows = [window("a", 90, 900_000), window("b", 0, 1_000), window("d", 0, 1_000), window("e", 0, 1_000)];
    let failing = FailurePercentageParams { threshold: 50, hosts_min: 3, volume_min: 10 };
    let slow = LatencyParams { factor: 3.0, least: Duration::ZERO, hosts_min: 3, volume_min: 10 };
    let unlike = SuccessRateParams { deviations: 0.5, hosts_min: 3, volume_min: 10 };
    for outlier in [
        OutlierParams { failure_percentage: Some(failing), ..OutlierParams::default() },
        OutlierParams { latency: Some(slow), ..OutlierParams::default() },
        OutlierParams { success_rate: Some(unlike), ..OutlierParams::default() },
    ] {
        assert!(outlier.needs_windows() && !OutlierParams::default().needs_windows());
        for (others, expected) in [
            ([Member::new("d"), Member::new("e")], true),
            ([drained("d"), drained("e")], false),
            ([drained("d"), Member { weight: 0, ..Member::new("e") }], false),
        ] {
            let (mut health, now) = start(outlier, &[named(&["a", "b"]), others.to_vec()].concat());
            health.handle_windows(&windows, now);
            assert_eq!(is_ejected(&health, "a", now), expected, "{others:?} with {outlier:?}");
        }
    }
}

#[test]
fn a_wish_shields_no_backend_from_what_its_status_counts_for() {
    let outlier = OutlierParams { consecutive_failures: 3, retry_after_max: SECOND * 10, ..OutlierParams::default() };
    for wish in [Duration::ZERO, SECOND, SECOND * 3_600] {
        let (mut health, mut now) = start(outlier, &named(&["a", "b", "c", "d", "e"]));
        let mut last = None;
        for _ in 0..3 {
            health.handle_outcome("a", Outcome::RetryAfter { status: 503, wish }, now);
            last = ejections(&mut health).pop().or(last);
            if last.as_ref().is_some_and(|(_, cause, _)| *cause != Cause::RetryAfter) {
                break;
            }
            now += SECOND * 10;
            health.handle_timeout(now);
        }
        let (_, cause, length) = last.unwrap();
        assert_eq!(cause, Cause::Consecutive(3), "asking for {wish:?} each time");
        assert!(length >= SECOND * 30);
    }
    // A success in between ends the row.
    let (mut health, mut now) = start(outlier, &named(&["a", "b", "c", "d", "e"]));
    for _ in 0..10 {
        health.handle_outcome("a", Outcome::RetryAfter { status: 503, wish: SECOND }, now);
        now += SECOND;
        health.handle_timeout(now);
        health.handle_outcome("a", Outcome::Success, now);
    }
    assert!(ejections(&mut health).iter().all(|(_, cause, length)| (*cause, *length) == (Cause::RetryAfter, SECOND)));
}

#[test]
fn wish_that_cannot_be_obeyed_counts_as_its_status_and_is_told_once() {
    let outlier = OutlierParams { consecutive_failures: 3, retry_after_max: SECOND * 10, ..OutlierParams::default() };
    for (status, failures) in [(503, 20), (429, 0)] {
        let (mut health, now) = start(outlier, &named(&["a", "b"]));
        health.handle_outcome("b", Outcome::ConnectTimeout, now);
        for _ in 0..20 {
            health.handle_outcome("a", Outcome::RetryAfter { status, wish: SECOND }, now);
        }
        assert_eq!(health.view("a", now).unwrap().consecutive_failures, failures, "{status}");
        let events = std::iter::from_fn(|| health.poll_event());
        let withheld = events.filter(|event| event.kind == EventKind::EjectionWithheld(Cause::RetryAfter)).count();
        assert_eq!(withheld, 1);
    }
}

#[test]
fn wish_and_failures_that_eject_together_last_as_long_as_the_longer() {
    let outlier = OutlierParams {
        consecutive_failures: 1,
        base_ejection: SECOND * 5,
        jitter: 0.0,
        retry_after_max: SECOND * 60,
        ..OutlierParams::default()
    };
    for (wish, expected) in [(2, 5), (20, 20), (3_600, 60)] {
        let (mut health, now) = start(outlier, &named(&["a", "b"]));
        health.handle_outcome("a", Outcome::RetryAfter { status: 503, wish: SECOND * wish }, now);
        assert_eq!(health.view("a", now).unwrap().ejected_for, Some(SECOND * expected));
    }
    // What was under way says so while it is ejected: the longer holds.
    let outlier = OutlierParams { consecutive_failures: 0, ..outlier };
    let (mut health, now) = start(outlier, &named(&["a", "b"]));
    for (wish, expected) in [(5, 5), (2, 5), (9, 9)] {
        health.handle_outcome("a", Outcome::RetryAfter { status: 429, wish: SECOND * wish }, now);
        assert_eq!(health.view("a", now).unwrap().ejected_for, Some(SECOND * expected));
    }
}

#[test]
fn tier_that_asks_for_nothing_itself_gives_its_keys_to_the_next() {
    let now = Instant::now();
    let params = Params { check: Some(CheckParams::default()), panic_threshold_percent: 50, ..Params::default() };
    let mut health = ServiceHealth::new(params, 7, now);
    let members = [Member::new("a"), Member::new("b"), Member { level: 1, ..Member::new("c") }];
    health.set_members(&members, now);
    for (probe, shares) in [(Probe::Weighted(0), [0.0, 1.0]), (Probe::Weighted(20), [1.0, 0.0])] {
        for id in ["a", "b"] {
            health.handle_probe(id, probe, now);
        }
        assert_eq!(health.level_shares().iter().map(|(_, share)| *share).collect::<Vec<_>>(), shares);
        assert!(!health.is_panic());
    }
}

#[test]
fn latency_ejects_above_the_multiple_of_the_median_and_not_at_it() {
    let slow = LatencyParams { factor: 3.0, least: Duration::ZERO, hosts_min: 3, volume_min: 10 };
    let outlier = OutlierParams { latency: Some(slow), max_ejection_percent: 100, ..OutlierParams::default() };
    for (micros, expected) in [(250_000, false), (300_000, false), (300_001, true)] {
        let ids = ["a", "b", "c", "d"];
        let (mut health, now) = start(outlier, &named(&ids));
        let took = |id| if id == "a" { micros } else { 100_000 };
        health.handle_windows(&ids.map(|id| Window { id, requests: 100, failures: 0, latency_micros: took(id) }), now);
        assert_eq!(is_ejected(&health, "a", now), expected, "{micros}");
        assert!(!is_ejected(&health, "b", now));
    }
}

#[test]
fn a_backend_that_has_failed_on_the_way_or_in_its_response_is_suspect_until_it_succeeds() {
    let outlier = OutlierParams { consecutive_local_failures: Some(5), ..OutlierParams::default() };
    for failure in [Outcome::ConnectionFailure, Outcome::Timeout, Outcome::Status(500)] {
        let (mut health, now) = start(outlier, &named(&["a", "b"]));
        assert!(!health.is_suspect("a"));
        health.handle_outcome("a", failure, now);
        assert!(health.is_suspect("a") && !health.is_suspect("b") && !health.is_suspect("c"), "{failure:?}");
        health.handle_outcome("a", Outcome::Success, now);
        assert!(!health.is_suspect("a"), "{failure:?}");
    }
}

#[test]
fn a_threshold_of_nothing_ejects_nobody_and_who_is_ejected_fails_no_further() {
    for local in [None, Some(0)] {
        let off =
            OutlierParams { consecutive_failures: 0, consecutive_local_failures: local, ..OutlierParams::default() };
        let (mut health, now) = start(off, &named(&["a", "b"]));
        for outcome in [Outcome::Status(500), Outcome::ConnectionFailure, Outcome::ConnectTimeout, Outcome::Timeout] {
            health.handle_outcome("a", outcome, now);
        }
        assert!(!is_ejected(&health, "a", now) && health.poll_event().is_none(), "{local:?}");
    }
    let outlier = OutlierParams { consecutive_failures: 2, ..OutlierParams::default() };
    let (mut health, now) = start(outlier, &named(&["a", "b"]));
    for _ in 0..9 {
        health.handle_outcome("a", Outcome::Status(500), now);
    }
    assert_eq!(ejections(&mut health).len(), 1);
    assert_eq!(health.view("a", now).unwrap().consecutive_failures, 0, "what was under way counts for nothing");
}

#[test]
fn failures_that_may_not_eject_are_counted_on_and_told_once() {
    let outlier = OutlierParams { consecutive_failures: 3, ..OutlierParams::default() };
    for (outcome, counts) in [(Outcome::ConnectTimeout, [3, 4, 5, 6]), (Outcome::ConnectionFailure, [1, 2, 3, 4])] {
        let (mut health, now) = start(outlier, &named(&["a"]));
        for count in counts {
            health.handle_outcome("a", outcome, now);
            assert_eq!(health.view("a", now).unwrap().consecutive_failures, count);
        }
        let told: Vec<EventKind> = std::iter::from_fn(|| health.poll_event()).map(|event| event.kind).collect();
        assert_eq!(told, [EventKind::EjectionWithheld(Cause::Consecutive(3))]);
    }
}

#[test]
fn a_status_that_ejects_nobody_leaves_its_wish_to_be_obeyed() {
    let outlier = OutlierParams { consecutive_failures: 3, retry_after_max: SECOND * 10, ..OutlierParams::default() };
    for status in [429, 503] {
        let (mut health, now) = start(outlier, &named(&["a", "b"]));
        health.handle_outcome("a", Outcome::RetryAfter { status, wish: SECOND * 4 }, now);
        assert_eq!(ejections(&mut health), [("a".to_owned(), Cause::RetryAfter, SECOND * 4)], "{status}");
    }
}

#[test]
fn who_is_ejected_for_failures_alone_is_a_last_resort() {
    let outlier = OutlierParams { consecutive_failures: 1, max_ejection_percent: 99, ..OutlierParams::default() };
    let check = CheckParams { rise: 1, fall: 1, ..CheckParams::default() };
    let now = Instant::now();
    let mut health = ServiceHealth::new(Params { check: Some(check), outlier, ..Params::default() }, 7, now);
    let names = ["down", "ejected", "leaves", "up"];
    let set = |health: &mut ServiceHealth, leaves: &Member<'_>| {
        health.set_members(&[Member::new("down"), Member::new("ejected"), *leaves, Member::new("up")], now);
    };
    set(&mut health, &Member::new("leaves"));
    let last = |health: &ServiceHealth| names.map(|name| health.is_last_resort(name));
    names.iter().for_each(|name| health.handle_probe(*name, Probe::Success, now));
    assert_eq!(last(&health), [false; 4], "nobody is ejected");
    for name in ["down", "ejected", "leaves"] {
        health.handle_outcome(name, Outcome::Status(500), now);
    }
    assert_eq!(last(&health), [true, true, true, false]);
    assert!(health.take_changed());
    // A check says that it is down, an operator that it is to take nothing.
    health.handle_probe("down", Probe::Failure(CheckFailure::Connect), now);
    assert!(health.take_changed() && last(&health) == [false, true, true, false], "requests hear of it");
    health.handle_probe("down", Probe::Success, now);
    assert!(health.take_changed() && last(&health)[0], "and that it is back");
    health.handle_probe("down", Probe::Failure(CheckFailure::Connect), now);
    set(&mut health, &drained("leaves"));
    assert_eq!(last(&health), [false, true, false, false]);
    // It has asked for it itself.
    let outlier = OutlierParams { consecutive_failures: 0, retry_after_max: SECOND * 60, ..OutlierParams::default() };
    let (mut health, now) = start(outlier, &named(&["a", "b"]));
    health.handle_outcome("a", Outcome::RetryAfter { status: 503, wish: SECOND }, now);
    assert!(is_ejected(&health, "a", now) && !health.is_last_resort("a"));
    // Or while it was ejected for what had failed.
    let outlier = OutlierParams { consecutive_failures: 1, ..outlier };
    let (mut health, now) = start(outlier, &named(&["a", "b"]));
    health.handle_outcome("a", Outcome::Status(503), now);
    assert!(health.is_last_resort("a"));
    health.handle_outcome("a", Outcome::RetryAfter { status: 503, wish: SECOND }, now);
    assert!(!health.is_last_resort("a"));
}
