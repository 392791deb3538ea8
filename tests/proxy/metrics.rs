//! What `/metrics` says of each backend, listener and worker, beside what clients and backends have seen.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::peers::{Certificates, config, curl_body, service};
use crate::common::*;
use crate::edges_of_balancing::limits::{Gate, gated};
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
    assert!(duration(&ringway, "c", "sum") >= 0.3);
}

#[test]
fn the_loser_of_a_hedge_has_no_class_and_its_backend_is_seen_to_be_slow() {
    let gate = Gate::default();
    let (slow, fast) = (gated("late", &gate), Backend::echo("fast"));
    let listen = free_address();
    let service = "balance: { policy: first }\nhedge: { after: 100ms, budget: 100 }";
    let ringway = Ringway::start(&simple(listen, service, &[("a", slow.address), ("b", fast.address)]));
    assert_eq!(get(listen, "/held").unwrap().text(), "fast");
    wait_for("both tries to be counted", || (responses(&ringway, "a", "none") == 1.0).then_some(()));
    assert_eq!(responses(&ringway, "b", "2xx"), 1.0);
    assert!(duration(&ringway, "a", "sum") >= 0.1, "it has taken at least as long as it was waited for");
    gate.open();
}

#[test]
fn a_copy_that_finds_its_backend_at_its_limit_of_connections_has_tried_nothing() {
    let gate = Gate::default();
    let (live, copy) = (Backend::echo("live"), gated("copy", &gate));
    let listen = free_address();
    let listeners = format!(
        "  - {{ name: web, address: \"{listen}\", routes: [ {{ service: live, mirror: {{ service: s }} }} ] }}\n"
    );
    let services = service("live", "", &[("l", live.address)])
        + &service("s", "", &[("c", copy.address)]).replace("id: c,", "id: c, connections_max: 1,");
    let ringway = Ringway::start(&config(&listeners, &services));
    assert_eq!(get(listen, "/held").unwrap().text(), "live");
    wait_for("the first copy", || (copy.requests().len() == 1).then_some(()));
    for _ in 0..2 {
        assert_eq!(get(listen, "/").unwrap().text(), "live");
    }
    let in_flight = || ringway.metric("ringway_backend_in_flight{service=\"s\",backend=\"c\"}");
    wait_for("the other copies to be given up", || (in_flight() == 1.0).then_some(()));
    gate.open();
    wait_for("the first copy's end", || (responses(&ringway, "c", "2xx") == 1.0).then_some(()));
    assert_eq!((responses(&ringway, "c", "none"), duration(&ringway, "c", "count")), (0.0, 1.0));
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

#[test]
fn a_listener_counts_its_own_connections_requests_bytes_and_handshakes() {
    let (Some(certificates), Some(())) = (Certificates::new(), require("curl")) else { return };
    certificates.issue("one", "DNS:one.test", "2");
    let backend = scripted(|head| {
        response(if head.contains("/missing") { "404 Not Found" } else { "200 OK" }, "", &"x".repeat(1_000))
    });
    let (plain, secure, datagrams) = (free_address(), free_address(), free_address());
    let listeners = format!(
        "  - {{ name: plain, address: \"{plain}\", routes: [ {{ match: {{ path_prefix: /a }}, service: s }} ] }}\n  \
         - {{ name: secure, address: \"{secure}\", service: s, tls: {{ certificates: [ {} ] }} }}\n  \
         - {{ name: datagrams, protocol: udp, address: \"{datagrams}\", service: u }}\n",
        certificates.entry("one")
    );
    let echo = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let services =
        service("s", "", &[("a", backend.address)]) + &service("u", "", &[("u", echo.local_addr().unwrap())]);
    let ringway = Ringway::start(&config(&listeners, &services));
    let of = |name: &str, listener: &str, more: &str| {
        ringway.metric(&format!("ringway_listener_{name}{{listener=\"{listener}\"{more}}}"))
    };
    for path in ["/a", "/a/missing", "/none"] {
        let _ = get(plain, path).unwrap();
    }
    let ask = |version: &str| {
        let resolve = format!("one.test:{}:127.0.0.1", secure.port());
        let url = format!("https://one.test:{}/a", secure.port());
        let said =
            curl_body(&["--resolve", &resolve, "--cacert", &certificates.text("ca.pem"), "--tls-max", version, &url]);
        assert_eq!(said.len(), 1_000);
    };
    ask("1.2");
    ask("1.3");
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"hello", datagrams).unwrap();
    echo.recv_from(&mut [0; 16]).unwrap();
    wait_for("connections to be closed", || {
        (of("closed_total", "plain", "") == 3.0 && of("closed_total", "secure", "") == 2.0).then_some(())
    });
    for (listener, accepted) in [("plain", 3.0), ("secure", 2.0), ("datagrams", 1.0)] {
        assert_eq!(of("accepted_total", listener, ""), accepted, "{listener}");
    }
    let classes = |listener: &str| {
        ["2xx", "4xx", "5xx", "none"].map(|class| of("requests_total", listener, &format!(",class=\"{class}\"")))
    };
    assert_eq!((classes("plain"), classes("secure")), ([1.0, 2.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]));
    assert!(of("sent_bytes_total", "plain", "") > 2_000.0 && of("sent_bytes_total", "secure", "") > 2_000.0);
    assert!(of("received_bytes_total", "plain", "") > 50.0);
    let handshakes = |listener: &str, version: &str, resumed: bool| {
        let labels = format!("listener=\"{listener}\",version=\"{version}\",resumed=\"{resumed}\"");
        ringway.counter(&format!("ringway_tls_handshakes_total{{{labels}}}"))
    };
    assert_eq!([handshakes("secure", "1.2", false), handshakes("secure", "1.3", false)], [1.0, 1.0]);
    assert_eq!(handshakes("secure", "1.3", true), 0.0);
    assert!(!get(ringway.admin, "/metrics").unwrap().text().contains("tls_handshakes_total{listener=\"plain\""));
}

#[test]
fn a_backend_has_one_state_at_a_time_as_the_status_names_it() {
    let fleet = echoes(3);
    let listen = free_address();
    let config = simple(listen, "health: { tcp: {}, interval: 100ms, fall: 1 }", &targets(&fleet));
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let entry =
        |index: usize, more: &str| format!("id: {}, address: \"{}\"{more} }}", fleet[index].0, fleet[index].1.address);
    let config = config.replace(&entry(1, ""), &entry(1, ", drain: true"));
    let config = config.replace(&fleet[2].1.address.to_string(), &gone.to_string());
    let ringway = Ringway::start(&config);
    let ids = [fleet[0].0, fleet[1].0, fleet[2].0];
    wait_for("the checks", || (backend_status(&ringway, ids[2])["state"] == "down").then_some(()));
    wait_for("the checks", || (backend_status(&ringway, ids[0])["state"] == "up").then_some(()));
    let text = get(ringway.admin, "/metrics").unwrap().text();
    for id in ids {
        let labels = format!("ringway_backend_state{{service=\"s\",backend=\"{id}\",state=\"");
        let states: Vec<(&str, &str)> =
            text.lines().filter_map(|line| line.strip_prefix(&*labels)?.split_once("\"} ")).collect();
        assert_eq!(states.len(), 7, "{states:?}");
        let held: Vec<&str> = states.iter().filter(|(_, held)| *held == "1").map(|(state, _)| *state).collect();
        assert_eq!(held, [backend_status(&ringway, id)["state"].as_str().unwrap()], "{id}");
    }
}

#[test]
fn what_is_said_of_each_backend_follows_the_file_and_the_number_of_backends() {
    let fleet = echoes(3);
    let listen = free_address();
    let config = |metrics: &str| format!("metrics: {{ {metrics} }}\n{}", simple(listen, "", &targets(&fleet)));
    let ringway = Ringway::start(&config("full_backends_max: 3"));
    assert_eq!(get(listen, "/").unwrap().status, 200);
    let series = || get(ringway.admin, "/metrics").unwrap().text().matches("backend=\"").count();
    let reduced = || ringway.metric("ringway_backends_reduced");
    let full = series();
    assert_eq!((reduced(), full % 3), (0.0, 0));
    let served = |name: &str| {
        let text = get(ringway.admin, "/metrics").unwrap().text();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    assert_eq!(served("ringway_backend_responses_total"), 1.0);
    ringway.reconfigure(&config("full_backends_max: 2"));
    assert_eq!(reduced(), 3.0);
    let basic = series();
    assert!((5 * 3..20 * 3).contains(&basic) && full > basic + 30 * 3, "{basic} {full}");
    assert_eq!(served("ringway_backend_requests_total"), 1.0);
    wait_for("a warning", || ringway.log().contains("there are more than 2 backends").then_some(()));
    ringway.reconfigure(&config("backends: none"));
    assert_eq!((reduced(), series()), (3.0, 0));
    ringway.reconfigure(&config("backends: full, full_backends_max: 0"));
    assert_eq!((reduced(), series()), (0.0, full));
    assert_eq!(served("ringway_backend_responses_total"), 1.0, "it has been counted all the while");
}

#[test]
fn workers_are_seen_to_be_busy_and_the_process_to_take_its_part_of_the_host() {
    let Some(()) = require("wrk") else { return };
    let fleet = echoes(1);
    let listen = free_address();
    let ringway = Ringway::start(&simple(listen, "", &targets(&fleet)).replace("workers: 2", "workers: 1"));
    let busy = || ringway.metric("ringway_worker_busy_ratio{worker=\"0\"}");
    wait_for("rest", || (busy() < 0.1).then_some(()));
    let before = ringway.metric("process_cpu_seconds_total ");
    let mut load = Running(
        std::process::Command::new("wrk")
            .args(["-d", "20", "-c", "16", "-t", "1", &format!("http://{listen}/")])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap(),
    );
    wait_for("work", || (busy() > 0.1).then_some(()));
    wait_for("processor time", || (ringway.metric("process_cpu_seconds_total ") > before).then_some(()));
    assert!(ringway.metric("process_open_fds ") > 20.0);
    let _ = load.0.kill();
    wait_for("rest again", || (busy() < 0.1).then_some(()));
    assert!(ringway.metric("process_resident_memory_bytes ") > 1e6);
    assert!(ringway.metric("process_max_fds ") > ringway.metric("process_open_fds "));
    let version = format!("ringway_build_info{{version=\"{}\",revision=\"", env!("CARGO_PKG_VERSION"));
    assert!(get(ringway.admin, "/metrics").unwrap().text().contains(&version));
}
