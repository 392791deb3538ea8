//! Listeners that are full.

use crate::common::*;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// What an HTTP/2 client with prior knowledge says first, an empty SETTINGS frame included.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A certificate for listeners, as the configuration names it.
fn certificate(directory: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    format!("{{ certificates: [ {{ certificate: \"{}\", key: \"{}\" }} ] }}", path_text(&cert), path_text(&key))
}

/// A listener of each kind with these fields, all for one backend.
struct Listeners {
    ringway: Ringway,
    http: SocketAddr,
    tls: SocketAddr,
    tcp: SocketAddr,
    _backend: Backend,
    _directory: tempfile::TempDir,
}

fn listeners(fields: &str, process: &str) -> Listeners {
    let directory = tempfile::tempdir().unwrap();
    let tls_files = certificate(directory.path());
    let backend = Backend::echo("a");
    let (http, tls, tcp) = (free_address(), free_address(), free_address());
    let text = format!(
        "workers: 2\n{process}\nadmin: {{ address: \"ADMIN\" }}\nlisteners:\n\
         \x20 - {{ name: http, address: \"{http}\", service: s{fields} }}\n\
         \x20 - {{ name: tls, address: \"{tls}\", service: s, tls: {tls_files}{fields} }}\n\
         \x20 - {{ name: tcp, address: \"{tcp}\", protocol: tcp, service: s{fields} }}\n\
         services: [ {{ name: s, backends: [ {{ id: a, address: \"{}\" }} ] }} ]\n",
        backend.address
    );
    Listeners { ringway: Ringway::start(&text), http, tls, tcp, _backend: backend, _directory: directory }
}

/// A connection that is being served.
fn held(address: SocketAddr, is_open: impl Fn() -> bool) -> TcpStream {
    let stream = send(address, b"");
    wait_for("a connection to be served", || is_open().then_some(()));
    stream
}

/// All that comes until the end of a connection, and whether that is one in peace.
fn all_of(address: SocketAddr, says: &[u8]) -> (Vec<u8>, bool) {
    let mut stream = send(address, says);
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    (bytes, end.is_ok())
}

fn connections(listeners: &Listeners, name: &str) -> f64 {
    listeners.ringway.metric(&format!("ringway_listener_connections{{listener=\"{name}\"}}"))
}

/// Whether these are frames of HTTP/2 that end with GOAWAY, ENHANCE_YOUR_CALM.
fn is_goaway(bytes: &[u8]) -> bool {
    bytes.len() == 9 + 17 && bytes[3] == 4 && bytes[9 + 3] == 7 && bytes[bytes.len() - 1] == 0xb
}

#[test]
fn full_listener_that_lets_clients_wait_is_seen_and_serves_them_in_time() {
    for (fields, process) in [(", connections_max: 1", ""), ("", "connections_max: 1")] {
        let all = listeners(fields, process);
        let metric = |name: &str| all.ringway.metric(&format!("{name}{{listener=\"http\"}}"));
        assert_eq!((metric("ringway_listener_full"), metric("ringway_listener_full_total")), (0.0, 0.0));
        let first = held(all.http, || connections(&all, "http") == 1.0);
        let waiting: Vec<TcpStream> = (0..4).map(|_| send(all.http, LAST_REQUEST)).collect();
        wait_for("the metric", || (metric("ringway_listener_full") == 1.0).then_some(()));
        assert_eq!(metric("ringway_listener_connections"), 1.0);
        assert!(metric("ringway_listener_full_total") >= 1.0);
        let listener = all.ringway.status()["listeners"][0].clone();
        assert_eq!((&listener["full"], &listener["connections"]), (&true.into(), &1.into()));
        let told = |log: &str| log.matches("clients wait in the kernel's queue until").count();
        assert_eq!(told(&all.ringway.log()), 1, "once, not for each");
        let of = if process.is_empty() { "connections_max of the listener" } else { "connections_max of the process" };
        assert!(all.ringway.log().contains(of));
        let before = metric("ringway_listener_full_seconds_total");
        assert!(before > 0.0);
        wait_for("time to pass in it", || (metric("ringway_listener_full_seconds_total") > before).then_some(()));
        // Each that goes makes room for the next.
        drop(first);
        for mut stream in waiting {
            assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);
        }
        wait_for("nobody to wait", || (metric("ringway_listener_full") == 0.0).then_some(()));
        assert_eq!(told(&all.ringway.log()), 1);
    }
}

#[test]
fn full_listener_that_rejects_says_so_in_what_its_clients_speak() {
    let all = listeners(", connections_max: 1, when_full: reject", "");
    let _held = [("http", all.http), ("tls", all.tls), ("tcp", all.tcp)]
        .map(|(name, address)| held(address, || connections(&all, name) == 1.0));
    for _ in 0..3 {
        let (bytes, in_peace) = all_of(all.http, REQUEST);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("x-ringway-reason: listener_full"), "{text}");
        assert!(in_peace && text.contains("retry-after: "));
        let (bytes, _) = all_of(all.http, PREFACE);
        assert!(is_goaway(&bytes), "{bytes:?}");
        for (address, says) in [(all.tls, &b"\x16\x03\x01"[..]), (all.tls, b""), (all.tcp, b"hello"), (all.tcp, b"")] {
            assert_eq!(all_of(address, says).0, b"", "nothing that they would understand");
        }
    }
    assert!(all.ringway.metric("ringway_rejected_requests_total{reason=\"listener_full\"}") >= 18.0);
    assert!(all.ringway.metric("ringway_listener_full_total{listener=\"tls\"}") >= 6.0);
    assert_eq!(all.ringway.metric("ringway_listener_full{listener=\"http\"}"), 0.0, "nobody waits");
    assert_eq!(all.ringway.log().matches("clients are turned away").count(), 3, "once a listener");
    // Room again.
    drop(_held);
    wait_for("a place", || (get(all.http, "/")?.status == 200).then_some(()));
}

#[test]
fn one_connection_too_many_of_an_address_is_told_so_over_http_and_closed_elsewhere() {
    let all = listeners(", connections_per_ip_max: 1", "");
    let _held = [("http", all.http), ("tls", all.tls), ("tcp", all.tcp)]
        .map(|(name, address)| held(address, || connections(&all, name) == 1.0));
    for _ in 0..3 {
        let (bytes, in_peace) = all_of(all.http, REQUEST);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.starts_with("HTTP/1.1 429 ") && text.contains("x-ringway-reason: connections_per_ip"), "{text}");
        assert!(in_peace, "the end comes after the answer");
        let (bytes, _) = all_of(all.http, PREFACE);
        assert!(is_goaway(&bytes), "{bytes:?}");
        for (address, says) in [(all.tls, &b"\x16\x03\x01"[..]), (all.tls, b""), (all.tcp, b"hello"), (all.tcp, b"")] {
            assert_eq!(all_of(address, says).0, b"", "nothing that they would understand");
        }
    }
    assert!(all.ringway.metric("ringway_rejected_requests_total{reason=\"connections_per_ip\"}") >= 18.0);
    drop(_held);
    wait_for("a place", || (get(all.http, "/")?.status == 200).then_some(()));
}

#[test]
fn answer_to_one_too_many_is_not_lost_however_late_or_long_it_asks() {
    let all = listeners(", connections_per_ip_max: 1", "");
    let _held = held(all.http, || connections(&all, "http") == 1.0);
    // A long request, in pieces: the answer may come before its end, and the end of the connection after it.
    let mut stream = send(all.http, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n");
    for _ in 0..30 {
        let _ = stream.write_all(&[b'x'; 1000]);
    }
    assert_eq!(read_answer(&mut stream, true).unwrap().status, 429);
    // One that says nothing is closed within a moment, and takes no place of the address meanwhile or later.
    let mut silent = send(all.http, b"");
    let mut bytes = Vec::new();
    assert!(silent.read_to_end(&mut bytes).is_ok() && bytes.is_empty());
    let mut gone = send(all.http, b"");
    let _ = gone.shutdown(Shutdown::Write);
    assert!(gone.read_to_end(&mut bytes).is_ok() && bytes.is_empty());
    wait_for("their places", || (connections(&all, "http") == 1.0).then_some(()));
}
