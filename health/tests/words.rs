//! What is said of what has happened: names are labels of metrics and fields of the status, of a bounded set and one meaning each; texts
//! are what operators read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ringway_health::{Cause, CheckFailure, EventKind, Outcome};
use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

#[test]
fn failures_of_checks_are_called_as_the_documentation_has_it() {
    for (failure, name, text) in [
        (CheckFailure::Connect, "connect", "check: connect failed"),
        (
            CheckFailure::ConnectBoth([([127, 0, 0, 1], 80).into(), (Ipv6Addr::LOCALHOST, 80).into()]),
            "connect",
            "check: connect failed, to 127.0.0.1:80 and to [::1]:80",
        ),
        (CheckFailure::Timeout, "timeout", "check: timed out"),
        (CheckFailure::Status(500), "status", "check: status 500"),
        (CheckFailure::Closed, "closed", "check: connection closed"),
        (CheckFailure::Garbage, "garbage", "check: not an answer"),
        (CheckFailure::Tls, "tls", "check: TLS handshake failed"),
        (CheckFailure::Body, "body", "check: body does not match"),
        (CheckFailure::TooLong, "too_long", "check: answer is too long"),
        (CheckFailure::NotServing(2), "not_serving", "check: grpc.health.v1 status 2"),
        (CheckFailure::GrpcStatus(14), "grpc_status", "check: gRPC status 14"),
        (CheckFailure::Agent, "agent", "check: the agent says down"),
    ] {
        assert_eq!((failure.name(), failure.to_string().as_str()), (name, text));
        let down = EventKind::Down(failure);
        assert_eq!((down.name(), down.reason(), down.to_string()), ("down", name, format!("down: {text}")));
    }
}

#[test]
fn causes_of_ejections_are_called_as_the_documentation_has_it() {
    let rate = Cause::SuccessRate { rate: 40, least: 70 };
    let latency = Cause::Latency { micros: 90_500, median_micros: 12_000 };
    for (cause, name, text) in [
        (Cause::Consecutive(5), "consecutive_failures", "5 failures in a row"),
        (Cause::Local(3), "consecutive_local_failures", "3 connection failures in a row"),
        (Cause::FailurePercentage(80), "failure_percentage", "80 % of its requests failed"),
        (rate, "success_rate", "success rate 40 %, the fleet's allows 70 % at least"),
        (latency, "latency", "mean latency 90 ms, the fleet's median is 12 ms"),
        (Cause::RetryAfter, "retry_after", "it sent Retry-After"),
    ] {
        assert_eq!((cause.name(), cause.to_string().as_str()), (name, text));
        let ejected = EventKind::Ejected { cause, duration: Duration::from_millis(1500) };
        assert_eq!((ejected.name(), ejected.reason()), ("ejected", name));
        assert_eq!(ejected.to_string(), format!("ejected for 1.5 s: {text}"));
        let withheld = EventKind::EjectionWithheld(cause);
        assert_eq!((withheld.name(), withheld.reason()), ("ejection_withheld", name));
        assert_eq!(withheld.to_string(), format!("not ejected, because too few would be left: {text}"));
    }
}

#[test]
fn everything_else_that_happens_has_a_name_a_reason_and_a_text_of_its_own() {
    let events = [
        (EventKind::Up, "up", "checks"),
        (EventKind::Returned, "returned", "time_served"),
        (EventKind::ReturnedByCheck, "returned", "checks"),
        (EventKind::Reweighted(40), "reweighted", "checks"),
        (EventKind::Draining, "draining", "configuration"),
        (EventKind::Undrained, "undrained", "configuration"),
        (EventKind::ClientsMoved, "clients_moved", "drain_timeout"),
        (EventKind::PanicBegan, "panic_began", ""),
        (EventKind::PanicEnded, "panic_ended", ""),
    ];
    let texts: BTreeSet<String> = events.iter().map(|(event, ..)| event.to_string()).collect();
    assert!(texts.len() == events.len() && texts.iter().all(|text| text.len() >= 10), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("40 %")), "{texts:?}");
    for (event, name, reason) in events {
        assert_eq!((event.name(), event.reason()), (name, reason));
    }
}

#[test]
fn outcomes_tell_the_status_and_the_wish_that_they_have() {
    let wish = Duration::from_secs(7);
    assert_eq!((Outcome::Status(502).status(), Outcome::Status(502).wish()), (Some(502), Duration::ZERO));
    let asked = Outcome::RetryAfter { status: 503, wish };
    assert_eq!((asked.status(), asked.wish()), (Some(503), wish));
    for silent in [Outcome::Success, Outcome::ConnectionFailure, Outcome::ConnectTimeout, Outcome::Timeout] {
        assert_eq!((silent.status(), silent.wish()), (None, Duration::ZERO));
    }
}
