//! Backends with an address of each family: whichever takes a connection is taken (RFC 8305), and the backend stays one.

use crate::common::peers::{self, Certificates, config};
use crate::common::*;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// A free address of loopback, of IPv6.
fn free_six() -> SocketAddr {
    (Ipv6Addr::LOCALHOST, free_port()).into()
}

/// An address at which the kernel drops handshakes, as a black hole does, for as long as this lives.
struct Hole {
    _full: (TcpListener, Vec<TcpStream>),
    address: SocketAddr,
}

impl Hole {
    fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        socket2::SockRef::from(&listener).listen(0).unwrap();
        let mut full = Vec::new();
        // Once one is not taken, none is.
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            full.push(stream);
        }
        Self { _full: (listener, full), address }
    }
}

/// A configuration with one backend `a`, of two addresses.
fn dual(listen: SocketAddr, service: &str, address: SocketAddr, additional: SocketAddr) -> String {
    let line = format!("{{ id: a, address: \"{address}\" }}");
    let text = simple(listen, service, &[("a", address)]);
    assert!(text.contains(&line));
    text.replace(&line, &format!("{{ id: a, address: \"{address}\", additional_address: \"{additional}\" }}"))
}

fn of_a(ringway: &Ringway, name: &str) -> f64 {
    ringway.metric(&format!("ringway_backend_{name}{{service=\"s\",backend=\"a\"}}"))
}

fn by_additional(ringway: &Ringway) -> f64 {
    ringway.metric("ringway_additional_address_connects_total{service=\"s\"}")
}

/// Longer than any test may last: nothing waits for it.
const PATIENT: &str = "timeouts: { connect: 10m, request: 10m }";

#[test]
fn a_request_is_answered_where_one_address_swallows_connections_and_the_next_ones_do_not_try_it() {
    let hole = Hole::at("[::1]:0");
    let Some(four) = Nginx::fleet(1).map(|mut fleet| fleet.remove(0)) else { return };
    for (address, additional, by_second) in [(four.address, hole.address, 0.0), (hole.address, four.address, 3.0)] {
        let listen = free_address();
        // Each request has a connection of its own.
        let service = format!("{PATIENT}\npool: {{ requests_max: 1 }}");
        let ringway = Ringway::start(&dual(listen, &service, address, additional));
        assert_eq!(backend_status(&ringway, "a")["first_address"], hole.address.to_string(), "IPv6 goes first");
        for _ in 0..3 {
            assert_eq!(get(listen, "/").unwrap().status, 200);
        }
        let shown = backend_status(&ringway, "a");
        assert_eq!((&shown["address"], &shown["state"]), (&address.to_string().into(), &"up".into()));
        assert_eq!(shown["additional_address"], additional.to_string());
        assert_eq!(shown["first_address"], four.address.to_string(), "it is remembered");
        assert_eq!((of_a(&ringway, "connects_total"), of_a(&ringway, "failures_total")), (3.0, 0.0));
        wait_for("what has lost to be given up", || (of_a(&ringway, "connections") == 0.0).then_some(()));
        assert_eq!(by_additional(&ringway), by_second);
    }
}

#[test]
fn the_address_that_has_answered_goes_first_although_the_other_is_back() {
    let (listen, six, four) = (free_address(), free_six(), Backend::echo("four"));
    let service = format!("{PATIENT}\npool: {{ requests_max: 1 }}");
    let _ringway = Ringway::start(&dual(listen, &service, six, four.address));
    assert_eq!(get(listen, "/").unwrap().text(), "four", "the other is refused");
    let serve = |mut stream: TcpStream, _: &_| {
        while read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nsix");
        }
    };
    let six = Backend::on(TcpListener::bind(six).unwrap(), serve);
    for _ in 0..10 {
        assert_eq!(get(listen, "/").unwrap().text(), "four");
    }
    assert_eq!((four.connections.load(SeqCst), six.connections.load(SeqCst)), (11, 0));
}

#[test]
fn two_dead_addresses_are_one_failure_and_the_answer_that_one_has() {
    let (listen, four, six) = (free_address(), free_address(), free_six());
    let refused = |text: &str| {
        let ringway = Ringway::start(text);
        let answer = get(listen, "/").unwrap();
        let counts = ["failures_total", "connects_total"].map(|name| of_a(&ringway, name));
        let state = backend_status(&ringway, "a");
        (answer.status, answer.text(), counts, state["consecutive_failures"].clone(), state["state"].clone())
    };
    for service in ["retry: { attempts: 0 }", "retry: { attempts: 0 }\noutlier: { consecutive_failures: 2 }"] {
        let one = refused(&simple(listen, service, &[("a", four)]));
        let two = refused(&dual(listen, service, four, six));
        assert_eq!(one.2, [1.0, 1.0]);
        assert_eq!(one, two, "{service}");
    }
    // And where nobody answers at all.
    let holes = [Hole::at("127.0.0.1:0"), Hole::at("[::1]:0")];
    let service = "retry: { attempts: 0 }\ntimeouts: { connect: 300ms }";
    let one = refused(&simple(listen, service, &[("a", holes[0].address)]));
    let two = refused(&dual(listen, service, holes[0].address, holes[1].address));
    assert_eq!(one.2, [1.0, 1.0]);
    assert_eq!(one, two);
}

#[test]
fn checks_go_by_the_other_address_too_and_say_which_have_failed() {
    let (listen, four, hole) = (free_address(), Backend::echo("a"), Hole::at("[::1]:0"));
    let health = |more: &str, timeout: &str| {
        format!(
            "panic_threshold: 0\nhealth: {{ {more}, timeout: {timeout}, interval: 100ms, fall: 1, rise: 1, initial: down }}"
        )
    };
    let ringway = Ringway::start(&dual(listen, &health("http: { path: / }", "1m"), hole.address, four.address));
    wait_for("it to be up", || (backend_status(&ringway, "a")["state"] == "up").then_some(()));
    let first = backend_status(&ringway, "a")["first_address"].clone();
    assert_eq!(first, four.address.to_string(), "requests need not find it out again");
    assert_eq!(get(listen, "/").unwrap().text(), "a");
    let host = format!("host: {}", hole.address);
    assert!(
        four.requests().iter().any(|head| head.to_ascii_lowercase().contains(&host)),
        "the name is that of `address`: {host}"
    );
    let dead = free_address();
    for (address, additional) in [(dead, hole.address), (dead, free_six())] {
        ringway.reconfigure(&dual(listen, &health("tcp: {}", "300ms"), address, additional));
        let text = format!("check: connect failed, to {address} and to {additional}");
        wait_for("it to be down", || {
            let shown = backend_status(&ringway, "a");
            (shown["state"] == "down" && shown["check_failure"] == text.as_str()).then_some(())
        });
    }
}

#[test]
fn sessions_tls_http2_upgrades_and_connections_ahead_go_by_the_other_address() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("inner", "DNS:inner.test", "30");
    let echo = Backend::custom(|mut stream, seen| {
        while let Some((head, _)) = read_request(&mut stream) {
            let upgrade = head.to_ascii_lowercase().contains("upgrade: websocket");
            seen.lock().unwrap().push(head);
            if upgrade {
                let _ = stream.write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello",
                );
                return drop(stream.read(&mut [0]));
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\necho");
        }
    });
    let inner = free_address();
    let tls = certificates.entry("inner");
    let listener =
        format!("  - {{ name: inner, address: \"{inner}\", service: t, tls: {{ certificates: [ {tls} ] }} }}");
    let _inner = Ringway::start(&config(&listener, &peers::service("t", "", &[("e", echo.address)])));
    let verified = format!("tls: {{ ca: {:?}, sni: inner.test }}", certificates.text("ca.pem"));
    for refused in [true, false] {
        let hole = Hole::at("[::1]:0");
        let six = if refused { free_six() } else { hole.address };
        let listen = free_address();
        let service = |more: &str| format!("{PATIENT}\n{more}");
        for (more, to) in [
            (verified.clone(), inner),
            (format!("protocol: h2\n{verified}"), inner),
            (format!("protocol: h2\n{verified}\npool: {{ idle_min: 2 }}"), inner),
            ("pool: { idle_min: 2 }".to_owned(), echo.address),
        ] {
            let ringway = Ringway::start(&dual(listen, &service(&more), six, to));
            if more.contains("idle_min") {
                wait_for("connections ahead", || (of_a(&ringway, "preconnects_total") >= 2.0).then_some(()));
            }
            assert_eq!(get(listen, "/").unwrap().text(), "echo", "{more}");
            assert!(by_additional(&ringway) >= 1.0, "{more}");
        }
        let ringway = Ringway::start(&dual(listen, PATIENT, six, echo.address));
        let ask =
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut stream = send(listen, ask);
        let head = read_until(&mut stream, "hello");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(by_additional(&ringway), 1.0);
        drop(ringway);
        let text = dual(listen, "proxy_protocol: v1", six, echo.address)
            .replace("service: s }", "service: s, protocol: tcp }");
        let ringway = Ringway::start(&text);
        // The header is the client's, whichever address the session goes by.
        let told = || echo.requests().iter().filter(|head| head.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 ")).count();
        let before = told();
        let _client = send(listen, b"GET /relayed HTTP/1.1\r\n\r\n");
        wait_for("the session", || (told() > before).then_some(()));
        assert_eq!(by_additional(&ringway), 1.0);
    }
}

/// Reads until this has come.
fn read_until(stream: &mut TcpStream, what: &str) -> String {
    stream.set_read_timeout(Some(patience())).unwrap();
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.contains(what) && stream.read(&mut byte).is_ok_and(|count| count > 0) {
        text.push(char::from(byte[0]));
    }
    text
}

#[test]
fn datagrams_go_where_checks_have_got_through() {
    let (listen, check) = (free_address(), Backend::echo("check"));
    let four = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let text = dual(
        listen,
        "health: { http: { path: / }, port: PORT, interval: 100ms, fall: 1, rise: 1, initial: down }",
        (Ipv6Addr::LOCALHOST, four.local_addr().unwrap().port()).into(),
        four.local_addr().unwrap(),
    );
    let text = text.replace("PORT", &check.address.port().to_string());
    let ringway = Ringway::start(&text.replace("service: s }", "service: s, protocol: udp }"));
    wait_for("it to be up", || (backend_status(&ringway, "a")["state"] == "up").then_some(()));
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"hello", listen).unwrap();
    four.set_read_timeout(Some(patience())).unwrap();
    let mut bytes = [0; 16];
    assert_eq!(four.recv(&mut bytes).unwrap(), 5);
}

#[test]
fn a_reload_that_takes_an_address_away_ends_what_is_kept_to_it_and_one_that_brings_another_does_not() {
    let (listen, six) = (free_address(), free_six());
    let (one, other) = (Backend::echo("one"), Backend::echo("other"));
    let keyed = "balance: { hash_key: [ { path: {} } ] }";
    // One worker, one pool.
    let alone = |text: String| text.replace("workers: 2", "workers: 1");
    let ringway = Ringway::start(&alone(simple(listen, keyed, &[("a", one.address)])));
    let ask = || get(listen, "/").unwrap().text();
    let digest = || ringway.status()["services"][0]["ring_digest"].clone();
    assert_eq!(ask(), "one");
    let before = digest();
    assert!(before.is_string(), "{before}");
    // A second address, and then the other way round: what is open serves on.
    for (address, additional) in [(one.address, six), (six, one.address)] {
        ringway.reconfigure(&alone(dual(listen, keyed, address, additional)));
        assert_eq!((ask(), digest()), ("one".to_owned(), before.clone()));
        assert_eq!(one.connections.load(SeqCst), 1, "it has been kept: {address}");
    }
    ringway.reconfigure(&alone(dual(listen, keyed, six, other.address)));
    assert_eq!((ask(), digest()), ("other".to_owned(), before));
    assert_eq!(one.connections.load(SeqCst), 1);
}
