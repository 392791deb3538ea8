//! Connections to backends that are open before a request needs one.

use crate::common::peers::{Certificates, config, service};
use crate::common::*;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
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

#[test]
fn an_opening_ahead_gives_its_place_to_the_first_request_that_needs_it() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("inner", "DNS:inner.test", "30");
    let echo = Backend::echo("e");
    let (listen, inner) = (free_address(), free_address());
    // Whoever comes first waits for ever for the handshake.
    let relay = Backend::custom(move |mut client, seen| {
        let is_first = {
            let mut seen = seen.lock().unwrap();
            seen.push("connected".into());
            seen.len() == 1
        };
        if is_first {
            let _ = client.read_to_end(&mut Vec::new());
            return seen.lock().unwrap().push("left".into());
        }
        let mut server = TcpStream::connect(inner).unwrap();
        let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut client, &mut server);
    });
    let listeners = format!(
        "  - {{ name: web, address: \"{listen}\", service: s }}\n\
         \x20 - {{ name: inner, address: \"{inner}\", service: t, tls: {{ certificates: [ {} ] }} }}",
        certificates.entry("inner")
    );
    // Nothing but the request ends it.
    let more =
        "tls: { verify: false }, pool: { idle_min: 1 }, limits: { connections_max: 1 }, timeouts: { connect: 1h },";
    let services = service("s", more, &[("a", relay.address)]) + &service("t", "", &[("e", echo.address)]);
    let ringway = Ringway::start(&config(&listeners, &services));
    wait_for("an opening that has no end", || (relay.requests() == ["connected"]).then_some(()));
    for _ in 0..3 {
        assert_eq!(get(listen, "/").unwrap().text(), "e");
    }
    assert!(relay.requests().iter().any(|noted| noted == "left"), "{:?}", relay.requests());
    assert_eq!(of_a(&ringway, "failures_total"), 0.0);
}
