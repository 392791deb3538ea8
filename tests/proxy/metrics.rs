//! What `/metrics` says of each backend, listener and worker, beside what clients and backends have seen.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// Tries on a backend that have ended with that class.
fn responses(ringway: &Ringway, backend: &str, class: &str) -> f64 {
    ringway.metric(&format!("ringway_backend_responses_total{{service=\"s\",backend=\"{backend}\",class=\"{class}\"}}"))
}

fn duration(ringway: &Ringway, backend: &str, part: &str) -> f64 {
    ringway.metric(&format!("ringway_backend_request_duration_seconds_{part}{{service=\"s\",backend=\"{backend}\"}}"))
}

#[test]
fn each_try_counts_once_with_the_class_of_its_response_and_its_duration() {
    // The first is asked first: refused, a failure that is tried again, a response that is not.
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bad = scripted(|_| response("503 Service Unavailable", "", "no"));
    let good = scripted(|head| {
        if head.contains("/slow") {
            takes(Duration::from_millis(300));
        }
        response(if head.contains("/missing") { "404 Not Found" } else { "200 OK" }, "", "yes")
    });
    let listen = free_address();
    let service = "balance: { policy: first }\nretry: { on: [ gateway, connect ] }\n\
                   outlier: { consecutive_failures: 0 }";
    let ringway = Ringway::start(&simple(listen, service, &[("a", refused), ("b", bad.address), ("c", good.address)]));
    for (path, status) in [("/", 200), ("/missing", 404), ("/slow", 200)] {
        assert_eq!(get(listen, path).unwrap().status, status);
    }
    let classes = |backend| {
        ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "session"].map(|class| responses(&ringway, backend, class))
    };
    wait_for("all tries to be counted", || (classes("c").iter().sum::<f64>() >= 3.0).then_some(()));
    assert_eq!(classes("b"), [0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0]);
    assert_eq!(classes("c"), [0.0, 0.0, 2.0, 0.0, 1.0, 0.0, 0.0]);
    assert!(classes("a")[0] >= 1.0, "refused: {:?}", classes("a"));
    assert_eq!(classes("a")[1..].iter().sum::<f64>(), 0.0);
    for backend in ["a", "b", "c"] {
        assert_eq!(duration(&ringway, backend, "count"), classes(backend).iter().sum::<f64>());
    }
    let slow = duration(&ringway, "c", "sum");
    assert!(slow >= 0.3, "{slow}: only its own tries have been slow");
    assert!(duration(&ringway, "b", "sum") < slow);
}

#[test]
fn the_loser_of_a_hedge_has_no_class_and_its_backend_is_seen_to_be_slow() {
    let slow = scripted(|_| {
        takes(Duration::from_millis(1_500));
        response("200 OK", "", "late")
    });
    let fast = Backend::echo("fast");
    let listen = free_address();
    let service = "balance: { policy: first }\nhedge: { after: 100ms, budget: 100 }";
    let ringway = Ringway::start(&simple(listen, service, &[("a", slow.address), ("b", fast.address)]));
    assert_eq!(get(listen, "/").unwrap().text(), "fast");
    wait_for("both tries to be counted", || (responses(&ringway, "a", "none") == 1.0).then_some(()));
    assert_eq!(responses(&ringway, "b", "2xx"), 1.0);
    assert!(duration(&ringway, "a", "sum") >= 0.1, "it has taken at least as long as it was waited for");
}

#[test]
fn sessions_of_tcp_count_as_sessions_for_as_long_as_they_last() {
    let good = Backend::echo("good");
    let refused: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = free_address();
    let service = "balance: { policy: first }\noutlier: { consecutive_failures: 0 }";
    let config = simple(listen, service, &[("a", refused), ("b", good.address)]);
    let ringway = Ringway::start(&config.replace("service: s }", "protocol: tcp, service: s }"));
    assert_eq!(get(listen, "/").unwrap().text(), "good");
    wait_for("the session's end", || (responses(&ringway, "b", "session") == 1.0).then_some(()));
    assert_eq!((responses(&ringway, "a", "none"), responses(&ringway, "a", "session")), (1.0, 0.0));
    assert_eq!(duration(&ringway, "b", "count"), 1.0);
}
