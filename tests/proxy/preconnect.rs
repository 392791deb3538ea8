//! Connections to backends that are open before a request needs one.

use crate::common::peers::{Certificates, config, service};
use crate::common::*;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// A metric of backend `a` of service `s`.
fn of_a(ringway: &Ringway, name: &str) -> f64 {
    ringway.metric(&format!("ringway_backend_{name}{{service=\"s\",backend=\"a\"}}"))
}

/// Waits until so many are open.
fn open(ringway: &Ringway, count: f64) {
    wait_for("connections to be open", || (of_a(ringway, "connections") == count).then_some(()));
}

/// Waits until all that were opened were open before a request needed them: one that a request has opened is never among those.
fn none_by_requests(ringway: &Ringway) {
    wait_for("connections that no request has opened", || {
        let ahead = of_a(ringway, "preconnects_total");
        (ahead == of_a(ringway, "connects_total")).then_some(())
    });
}

#[test]
fn a_backend_that_comes_up_has_connections_open_before_its_first_request() {
    let healthy = Arc::<AtomicBool>::default();
    let says = Arc::clone(&healthy);
    let a = scripted(move |head| {
        let status = match head.starts_with("GET /check ") && !says.load(SeqCst) {
            true => "503 Service Unavailable",
            false => "200 OK",
        };
        response(status, "", "a")
    });
    let listen = free_address();
    let text = "panic_threshold: 0\nhealth: { http: { path: /check }, interval: 100ms, fall: 1, rise: 1 }\n\
                pool: { idle_min: 3, idle_timeout: 1h }";
    let ringway = Ringway::start(&simple(listen, text, &[("a", a.address)]));
    wait_for("it to be down", || (backend_status(&ringway, "a")["state"] == "down").then_some(()));
    healthy.store(true, SeqCst);
    open(&ringway, 3.0);
    // Whichever worker has the client, it has one at least.
    assert_eq!(get(listen, "/").unwrap().status, 200);
    none_by_requests(&ringway);
}

#[test]
fn over_http2_and_tls_handshakes_are_done_before_the_first_request_too() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("inner", "DNS:inner.test", "30");
    let echo = Backend::echo("e");
    let (listen, inner) = (free_address(), free_address());
    for protocol in ["h2", "http1"] {
        let tls = certificates.entry("inner");
        let listeners = format!(
            "  - {{ name: web, address: \"{listen}\", service: s }}\n\
             \x20 - {{ name: inner, address: \"{inner}\", service: t, tls: {{ certificates: [ {tls} ] }} }}"
        );
        let more = format!("protocol: {protocol}, tls: {{ verify: false }}, pool: {{ idle_min: 2 }},");
        let services = service("s", &more, &[("a", inner)]) + &service("t", "", &[("e", echo.address)]);
        let ringway = Ringway::start(&config(&listeners, &services));
        wait_for("handshakes", || (of_a(&ringway, "preconnects_total") == 2.0).then_some(()));
        assert_eq!(get(listen, "/").unwrap().text(), "e", "{protocol}");
        none_by_requests(&ringway);
    }
}

#[test]
fn a_backend_that_refuses_is_blamed_for_nothing_and_has_its_connections_once_it_accepts() {
    let (listen, address) = (free_address(), free_address());
    let text = "pool: { idle_min: 5, idle_timeout: 1h }";
    let ringway = Ringway::start(&simple(listen, text, &[("a", address)]));
    let tried = || of_a(&ringway, "connects_total");
    wait_for("the first tries", || (tried() >= 2.0).then_some(()));
    assert_eq!(of_a(&ringway, "failures_total"), 0.0);
    assert_eq!(backend_status(&ringway, "a")["state"], "up", "no request has failed");
    // It is there again.
    let _a = Backend::on(TcpListener::bind(address).unwrap(), |stream, _| {
        let _ = std::io::copy(&mut &stream, &mut std::io::sink());
    });
    open(&ringway, 5.0);
}
