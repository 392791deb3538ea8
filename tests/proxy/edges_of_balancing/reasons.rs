//! Reasons of docs/failure-modes.md that no other test has seen with its own eyes.

use crate::common::peers::{config, service};
use crate::common::*;
use std::io::{Read, Write};

fn rejected(ringway: &Ringway, reason: &str) -> f64 {
    ringway.metric(&format!("ringway_rejected_requests_total{{reason=\"{reason}\"}}"))
}

#[test]
fn what_speaks_tls_to_a_plain_port_is_told_so_in_tls() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let ringway = Ringway::start(&simple(listen, "", &[("a", backend.address)]));
    // The beginning of a ClientHello (RFC 8446, 4.1.2 and 5.1).
    let hello = [&[0x16, 3, 1, 0, 0x40, 1, 0, 0, 0x3c, 3, 3][..], &[7; 53]].concat();
    let mut answer = Vec::new();
    let _ = send(listen, &hello).read_to_end(&mut answer);
    // A fatal alert, handshake_failure (RFC 8446, 6.2).
    assert!(matches!(answer[..], [21, 3, _, 0, 2, 2, 40]), "{answer:?}");
    assert_eq!(rejected(&ringway, "tls_on_plain_port"), 1.0);
    assert!(backend.requests().is_empty());
}

#[test]
fn a_proxy_header_that_is_missing_or_malformed_ends_the_connection() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let listeners =
        format!("  - {{ name: web, address: \"{listen}\", service: s, proxy_protocol: [ 127.0.0.0/8 ] }}\n");
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for header in ["", "PROXY TCP4 127.0.0.1\r\n", "PROXY TCP9 1 2 3 4\r\n"] {
        assert_eq!(raw(listen, format!("{header}{request}").as_bytes()), "", "{header:?}");
    }
    assert_eq!(rejected(&ringway, "proxy_header"), 3.0);
    assert!(backend.requests().is_empty());
    let good = raw(listen, format!("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n{request}").as_bytes());
    assert!(good.starts_with("HTTP/1.1 200 "), "{good}");
}

#[test]
fn methods_and_expectations_that_nobody_can_meet_are_refused_by_name() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let _ringway = Ringway::start(&simple(listen, "", &[("a", backend.address)]));
    for (request, status, reason) in [
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, "connect_method_refused"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n", 417, "unknown_expectation"),
    ] {
        let answer = read_answer(&mut send(listen, request.as_bytes()), true).unwrap();
        assert_eq!((answer.status, answer.header("x-ringway-reason")), (status, Some(reason)));
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn a_backend_that_speaks_no_tls_is_passed_over_and_then_said_to_have_failed() {
    let backend = Backend::echo("a");
    // As a server without TLS answers what it does not understand.
    let plain = Backend::custom(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (inner, listen) = (free_address(), free_address());
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["b.test".to_owned()]).unwrap();
    let (certificate, key) = (directory.path().join("b.pem"), directory.path().join("b.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let listeners = format!(
        "  - {{ name: inner, address: \"{inner}\", service: plain, tls: {{ certificates: [ {{ certificate: {certificate:?}, key: {key:?} }} ] }} }}\n\
         \x20 - {{ name: web, address: \"{listen}\", service: s }}\n"
    );
    let services = |drain: &str| {
        let tls = format!("balance: {{ policy: first }}, tls: {{ ca: {certificate:?}, sni: b.test }},");
        let outer = service("s", &tls, &[("a", plain.address), ("b", inner)]);
        service("plain", "", &[("a", backend.address)]) + &outer.replace("id: b,", &format!("id: b, {drain}"))
    };
    let ringway = Ringway::start(&config(&listeners, &services("")));
    // Any method: nothing of it has been sent.
    let post = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let answer = read_answer(&mut send(listen, post.as_bytes()), true).unwrap();
    assert_eq!((answer.status, answer.text()), (200, "a".to_owned()));
    ringway.reconfigure(&config(&listeners, &services("drain: true,")));
    let answer = get(listen, "/").unwrap();
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (502, Some("upstream_tls_failed")));
    assert!(ringway.metric("ringway_backend_failures_total{service=\"s\",backend=\"a\"}") >= 2.0);
}

#[test]
fn a_backend_that_speaks_no_http2_is_passed_over_and_then_said_to_have_failed() {
    let backend = Backend::echo("a");
    // As a server of HTTP/1.1 answers what it does not understand.
    let old = Backend::custom(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (inner, listen) = (free_address(), free_address());
    let listeners = format!(
        "  - {{ name: inner, address: \"{inner}\", service: plain }}\n  - {{ name: web, address: \"{listen}\", service: s }}\n"
    );
    let services = |drain: &str| {
        let outer = service("s", "balance: { policy: first }, protocol: h2,", &[("a", old.address), ("b", inner)]);
        service("plain", "", &[("a", backend.address)]) + &outer.replace("id: b,", &format!("id: b, {drain}"))
    };
    let ringway = Ringway::start(&config(&listeners, &services("")));
    let post = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let answer = read_answer(&mut send(listen, post.as_bytes()), true).unwrap();
    assert_eq!((answer.status, answer.text()), (200, "a".to_owned()));
    ringway.reconfigure(&config(&listeners, &services("drain: true,")));
    let answer = get(listen, "/").unwrap();
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (502, Some("upstream_http2_failed")));
    assert!(ringway.metric("ringway_backend_failures_total{service=\"s\",backend=\"a\"}") >= 2.0);
}

#[test]
fn a_backend_that_does_not_take_a_request_is_given_up() {
    // It accepts, and reads nothing.
    let backend = Backend::custom(|stream, _| {
        std::thread::park();
        drop(stream);
    });
    let listen = free_address();
    let service = "timeouts: { body_idle: 300ms }\nbalance: { policy: round_robin }";
    let _ringway = Ringway::start(&simple(listen, service, &[("a", backend.address)]));
    let length = 32 << 20;
    let mut stream = send(listen, format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n").as_bytes());
    let mut upload = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let part = vec![b'x'; 64 << 10];
        // Until it is refused.
        while upload.write_all(&part).is_ok() {}
    });
    let answer = read_answer(&mut stream, true).unwrap();
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (504, Some("upstream_send_timeout")));
    let _ = stream.shutdown(std::net::Shutdown::Both);
    sender.join().unwrap();
}

#[test]
fn a_websocket_over_http2_that_its_backend_does_not_open_is_refused() {
    // It answers 200, whatever it is asked to become.
    let backend = Backend::echo("a");
    let (inner, front) = (free_address(), free_address());
    let listeners = format!(
        "  - {{ name: inner, address: \"{inner}\", service: plain }}\n\
         \x20 - {{ name: front, address: \"{front}\", service: h2 }}\n"
    );
    let services =
        service("plain", "", &[("a", backend.address)]) + &service("h2", "protocol: h2,", &[("inner", inner)]);
    let _ringway = Ringway::start(&config(&listeners, &services));
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGVzdHRlc3R0ZXN0dGVzdA==\r\n";
    // The answer is that of the inner listener, to which the outer one speaks HTTP/2.
    let answer =
        read_answer(&mut send(front, format!("GET / HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n").as_bytes()), true).unwrap();
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (502, Some("not_switched")));
    assert_eq!(backend.requests().len(), 1);
}
