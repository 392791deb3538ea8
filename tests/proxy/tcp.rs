//! TCP listeners: bytes both ways, half-close kept, placed by source address, retried on connect; what PROXY headers tell.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn tcp(listen: SocketAddr, service: &str, backends: &[(&str, SocketAddr)]) -> String {
    simple(listen, service, backends).replace("name: web,", "name: web, protocol: tcp,")
}

/// Checks with this result; a metric that is not there yet is 0.
fn checks(ringway: &Ringway, result: &str) -> f64 {
    ringway.counter(&format!("ringway_checks_total{{service=\"s\",result=\"{result}\"}}"))
}

/// Reads to the end, then answers with its name and what it has read.
fn reader(name: &'static str) -> Backend {
    Backend::custom(move |mut stream, _| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = stream.write_all(format!("{name}:{}", bytes.len()).as_bytes());
    })
}

#[test]
fn half_close_is_kept_and_bulk_passes() {
    let backend = reader("a");
    let listen = free_address();
    let ringway = Ringway::start(&tcp(listen, "", &[("a", backend.address)]));
    for size in [0_usize, 1, 100_000, 20_000_000] {
        let mut stream = send(listen, &vec![b'x'; size]);
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("a:{size}"));
    }
    wait_for("the sessions to end", || (ringway.status()["services"][0]["in_flight"] == 0).then_some(()));
    // They have no status.
    let class = |name: &str| ringway.metric(&format!("ringway_requests_total{{service=\"s\",class=\"{name}\"}}"));
    wait_for("the sessions to be counted", || (class("session") == 4.0).then_some(()));
    assert_eq!((class("2xx"), class("none"), class("5xx")), (0.0, 0.0, 0.0));
}

#[test]
fn a_backend_that_ends_first_still_gets_what_its_client_sends_and_the_end_behind_it() {
    let (told, heard) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let backend = Backend::custom(move |mut stream, _| {
        let _ = stream.write_all(b"bye");
        let _ = stream.shutdown(Shutdown::Write);
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes).map_err(|error| error.kind());
        let _ = told.lock().map(|told| told.send((bytes.len(), ended)));
    });
    let listen = free_address();
    let _ringway = Ringway::start(&tcp(listen, "", &[("a", backend.address)]));
    for size in [0_usize, 1, 100_000, 2_000_000] {
        let mut stream = send(listen, b"");
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "bye");
        stream.write_all(&vec![b'x'; size]).unwrap();
        drop(stream);
        assert_eq!(heard.recv_timeout(Duration::from_secs(60)), Ok((size, Ok(size))));
    }
}

/// A key is a key, whatever has it: as a request's (`policies::hot_key_is_spread_and_cools_down_again`).
#[test]
fn sessions_of_a_hot_key_are_spread_over_its_owners_and_counted_as_requests_are() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let fleet = names.map(reader);
    let targets: Vec<(&str, SocketAddr)> =
        names.into_iter().zip(&fleet).map(|(name, one)| (name, one.address)).collect();
    let listen = free_address();
    let service = "balance: { hot_keys: { min_volume: 100 } }";
    let ringway = Ringway::start(&tcp(listen, service, &targets));
    let ask = || {
        let mut stream = send(listen, b"");
        stream.shutdown(Shutdown::Write).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    };
    // One address is all of the traffic.
    let mut served = std::collections::BTreeSet::new();
    wait_for("its sessions to be spread", || {
        served.extend((0..50).map(|_| ask()));
        (served.len() >= 3).then_some(())
    });
    assert!(ringway.metric("ringway_hot_requests_total{service=\"s\"}") > 0.0);
    let keyed = ringway.metric("ringway_keyed_requests_total{service=\"s\"}");
    let owned = ringway.metric("ringway_owner_served_total{service=\"s\"}");
    assert!(owned > 0.0 && owned < keyed, "{owned} of {keyed}");
}

/// They need not end for that.
#[test]
fn sessions_that_last_make_their_key_hot_and_those_of_others_stay_where_they_are() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let fleet = names.map(reader);
    let targets: Vec<(&str, SocketAddr)> =
        names.into_iter().zip(&fleet).map(|(name, one)| (name, one.address)).collect();
    let listen = free_address();
    let service = "balance: { bounded_load: { preset: off }, hot_keys: { min_volume: 40 } }";
    let ringway = Ringway::start(&tcp(listen, service, &targets));
    let from = |host: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
        socket.connect(&listen.into()).unwrap();
        TcpStream::from(socket)
    };
    // All are open until the end: fifty of one address, one of another.
    let lasting: Vec<TcpStream> = (0..50).map(|_| from(2)).collect();
    let other = from(3);
    let status = || ringway.status()["services"][0].clone();
    let in_flight = |id: &str| backend_status(&ringway, id)["in_flight"].as_u64().or_not_yet();
    wait_for("the sessions", || (names.map(in_flight).iter().sum::<u64>() == 51).then_some(()));
    // Where it takes long to open them, it is hot before the last are there, but not before forty are.
    assert_eq!(names.map(in_flight).iter().filter(|count| **count >= 40).count(), 1, "they have one owner");
    wait_for("the key to be hot", || {
        let hot = status()["hot_keys"].as_array().or_not_yet().clone();
        assert!(hot.len() <= 1, "{hot:?}");
        (hot.first()?["owners"].as_array()?.len() >= 5).then_some(())
    });
    wait_for("new ones to be spread", || {
        let fresh: Vec<TcpStream> = (0..20).map(|_| from(2)).collect();
        wait_for("them", || (names.map(in_flight).iter().sum::<u64>() == 71).then_some(()));
        let owners = names.map(in_flight).iter().filter(|count| **count > 0).count();
        drop(fresh);
        wait_for("their end", || (names.map(in_flight).iter().sum::<u64>() == 51).then_some(()));
        (owners >= 4).then_some(())
    });
    // None of the first has ended.
    drop((lasting, other));
}

#[test]
fn sessions_go_by_source_address_past_dead_backends() {
    let (a, b) = (reader("a"), reader("b"));
    let listen = free_address();
    let _ringway = Ringway::start(&tcp(listen, "", &[("a", a.address), ("b", b.address), ("dead", free_address())]));
    let mut names = std::collections::BTreeSet::new();
    for host in 1..40 {
        let from: SocketAddr = format!("127.0.0.{host}:0").parse().unwrap();
        let ask = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&from.into()).unwrap();
            socket.connect(&listen.into()).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            TcpStream::from(socket).read_to_string(&mut answer).unwrap();
            answer
        };
        let first = ask();
        assert_eq!(ask(), first, "{from}");
        names.insert(first);
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a:0", "b:0"]);
}

#[test]
fn the_shadow_of_sessions_counts_those_that_then_move() {
    let names = ["a", "b", "c", "d", "e"];
    let fleet = names.map(reader);
    let targets: Vec<(&str, SocketAddr)> =
        names.into_iter().zip(&fleet).map(|(name, one)| (name, one.address)).collect();
    let listen = free_address();
    let (old, new) = (tcp(listen, "", &targets[..4]), tcp(listen, "", &targets));
    let owners = || {
        let owner = |host: u8| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from(([127, 0, 1, host], 0)).into()).unwrap();
            socket.connect(&listen.into()).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            TcpStream::from(socket).read_to_string(&mut answer).unwrap();
            answer
        };
        (1..=100).map(owner).collect()
    };
    let (shadow, moved) = shadow_and_moves(&old, &new, owners);
    assert!(moved > 0 && moved < 60, "{moved}");
    assert_eq!((&shadow["compared"], &shadow["would_move"]), (&100.into(), &moved.into()));
}

#[test]
fn idle_session_is_timed_out() {
    let backend = reader("a");
    let listen = free_address();
    let _ringway = Ringway::start(&tcp(listen, "timeouts: { idle: 300ms }", &[("a", backend.address)]));
    let mut stream = send(listen, b"hello");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(bytes.is_empty());
}

#[test]
fn sessions_end_with_their_backend_where_that_is_wanted() {
    for close in [true, false] {
        // Two backends that hold their connections and say nothing; their checks are answered by somebody else.
        let silent = || Backend::custom(|mut stream, _| while let Ok(1..) = stream.read(&mut [0; 64]) {});
        let (first, second, checked) = (silent(), silent(), Arc::new(AtomicBool::new(true)));
        let well = Arc::clone(&checked);
        let doctor = scripted(move |head| {
            let ill = head.contains("host: first") && !well.load(Ordering::Relaxed);
            response(if ill { "503 Ill" } else { "200 OK" }, "", "")
        });
        let listen = free_address();
        let config = |on_down: &str| {
            format!(
                "workers: 1\nadmin: {{ address: \"ADMIN\" }}\n\
                 listeners: [ {{ name: raw, address: \"{listen}\", protocol: tcp, service: s }} ]\n\
                 services:\n  - name: s\n    on_down: {on_down}\n    balance: {{ policy: first }}\n\
                 \x20   health: {{ http: {{ host: first }}, port: {}, interval: 50ms, timeout: 40ms, rise: 1, fall: 1 }}\n\
                 \x20   panic_threshold: 0\n\
                 \x20   backends: [ {{ id: a, address: \"{}\" }}, {{ id: b, address: \"{}\" }} ]\n",
                doctor.address.port(),
                first.address,
                second.address
            )
        };
        let ringway = Ringway::start(&config(if close { "close" } else { "keep" }));
        let mut client = TcpStream::connect(listen).unwrap();
        client.write_all(b"x").unwrap();
        wait_for("the session", || (backend_status(&ringway, "a")["in_flight"] == 1).then_some(()));
        checked.store(false, Ordering::Relaxed);
        wait_for("the backend to be down", || (backend_status(&ringway, "a")["state"] == "down").then_some(()));
        client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let ended = match client.read(&mut [0; 1]) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        assert_eq!(ended, close);
        assert_eq!(backend_status(&ringway, "a")["in_flight"], u32::from(!close));
    }
}

/// How many of these clients are answered: all that can be, however long that takes, and then whoever else is within a moment.
fn answered(streams: &mut [TcpStream], places: usize) -> usize {
    let mut answered = vec![false; streams.len()];
    let look = |answered: &mut Vec<bool>, streams: &mut [TcpStream]| {
        for (stream, answered) in streams.iter_mut().zip(answered).filter(|(_, answered)| !**answered) {
            stream.set_read_timeout(Some(Duration::from_millis(3))).unwrap();
            *answered = stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0);
        }
    };
    let count = |answered: &[bool]| answered.iter().filter(|answered| **answered).count();
    wait_for("places to be taken", || {
        look(&mut answered, streams);
        (count(&answered) >= places).then_some(())
    });
    (0..5).for_each(|_| look(&mut answered, streams));
    count(&answered)
}

#[test]
fn connections_max_holds_over_all_workers() {
    let fleet = echoes(1);
    for (process, listener, most) in [("7", 0, 7), ("100", 3, 3), ("2", 3, 2)] {
        let (one, two) = (free_address(), free_address());
        let both = format!(
            "listeners: [ {{ name: one, address: \"{one}\", connections_max: {listener}, service: s }}, \
             {{ name: two, address: \"{two}\", service: s }} ]"
        );
        let text = simple(one, "", &targets(&fleet)).replace("workers: 2", "workers: 4");
        let line = text.lines().find(|line| line.starts_with("listeners:")).unwrap().to_owned();
        let text = |more: &str| format!("connections_max: {process}\n{more}{}", text.replace(&line, &both));
        let ringway = Ringway::start(&text(""));
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let on = |index: usize| if listener == 0 && index % 2 == 1 { two } else { one };
        let mut streams: Vec<TcpStream> = (0..24).map(|index| send(on(index), request)).collect();
        assert_eq!(answered(&mut streams, most), most, "connections_max {process}, {listener}");
        assert_eq!(ringway.metric("ringway_downstream_connections "), most as f64);
        // Places that are given back go to those who wait; a reload raises the limit.
        drop(streams);
        wait_for("all places to be free", || (ringway.metric("ringway_downstream_connections ") == 0.0).then_some(()));
        let mut streams: Vec<TcpStream> = (0..24).map(|index| send(on(index), request)).collect();
        assert_eq!(answered(&mut streams, most), most);
        let raised = text("")
            .replace("connections_max: 7", "connections_max: 9")
            .replace("connections_max: 2\n", "connections_max: 3\n");
        if raised != text("") {
            ringway.reconfigure(&raised);
            assert_eq!(answered(&mut streams, if listener == 0 { 2 } else { 1 }), if listener == 0 { 2 } else { 1 });
        }
    }
}

#[test]
fn session_ends_although_its_backend_went_down_while_it_was_being_opened() {
    // A listener whose queue is full takes no more handshakes until there is room.
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&slow).listen(0).unwrap();
    let address = slow.local_addr().unwrap();
    let fill: Vec<_> =
        (0..3).filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()).collect();
    let ill = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ill);
    let doctor = scripted(move |_| response(if seen.load(Ordering::Relaxed) { "503 Ill" } else { "200 OK" }, "", ""));
    let listen = free_address();
    let service = format!(
        "on_down: close\npanic_threshold: 0\ntimeouts: {{ connect: 60s }}\n\
         health: {{ http: {{}}, port: {}, interval: 50ms, timeout: 40ms, rise: 1, fall: 1 }}",
        doctor.address.port()
    );
    let ringway = Ringway::start(&tcp(listen, &service, &[("a", address)]));
    wait_for("the check", || (checks(&ringway, "success") > 0.0).then_some(()));
    let mut client = send(listen, b"x");
    wait_for("the session", || (backend_status(&ringway, "a")["in_flight"] == 1).then_some(()));
    ill.store(true, Ordering::Relaxed);
    wait_for("the backend to be down", || (backend_status(&ringway, "a")["state"] == "down").then_some(()));
    // Room: the handshake ends, with a backend that is down by now.
    drop(fill);
    std::thread::spawn(move || slow.incoming().flatten().collect::<Vec<_>>());
    let read = client.read(&mut [0; 1]);
    let timed_out = |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    assert!(read.as_ref().map_or_else(|error| !timed_out(error), |count| *count == 0), "{read:?}");
    wait_for("the session's end", || (backend_status(&ringway, "a")["in_flight"] == 0).then_some(()));
}

/// Notes the PROXY header (version 1 as its line, version 2 as the same line) that each connection begins with.
fn told() -> Backend {
    Backend::custom(|mut stream, seen| {
        let mut head = vec![0; 12];
        if stream.read_exact(&mut head).is_err() {
            return;
        }
        if head.starts_with(b"PROXY") {
            while head.last() != Some(&b'\n') {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            seen.lock().unwrap().push(String::from_utf8_lossy(&head).trim_end().to_owned());
            return;
        }
        head.resize(16, 0);
        if stream.read_exact(&mut head[12..]).is_err() {
            return;
        }
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
        if !head.starts_with(b"\r\n\r\n\0\r\nQUIT\n") || stream.read_exact(&mut rest).is_err() {
            return;
        }
        let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        let v4 = |at: usize| <[u8; 4]>::try_from(&rest[at..at + 4]).map(std::net::Ipv4Addr::from).unwrap();
        let v6 = |at: usize| <[u8; 16]>::try_from(&rest[at..at + 16]).map(std::net::Ipv6Addr::from).unwrap();
        let line = match (head[12], head[13]) {
            (0x21, 0x11) => format!("PROXY TCP4 {} {} {} {}", v4(0), v4(4), port(8), port(10)),
            (0x21, 0x21) => format!("PROXY TCP6 {} {} {} {}", v6(0), v6(16), port(32), port(34)),
            _ => "PROXY UNKNOWN".to_owned(),
        };
        seen.lock().unwrap().push(line);
    })
}

#[test]
fn proxy_headers_tell_where_the_client_arrived() {
    for version in ["v1", "v2"] {
        for protocol in ["tcp", "http"] {
            let backend = told();
            let port = free_port();
            let config = format!(
                "workers: 2\nadmin: {{ address: \"ADMIN\" }}\nlisteners:\n\
                 \x20 - {{ name: four, address: \"0.0.0.0:{port}\", protocol: {protocol}, service: s }}\n\
                 \x20 - {{ name: six, address: \"[::1]:{port}\", protocol: {protocol}, service: s }}\n\
                 services: [ {{ name: s, proxy_protocol: {version}, backends: [ {{ id: a, address: \"{}\" }} ] }} ]\n",
                backend.address
            );
            let _ringway = Ringway::start(&config);
            for (to, family) in [("127.0.0.1", "TCP4"), ("127.0.0.9", "TCP4"), ("::1", "TCP6")] {
                backend.seen.lock().unwrap().clear();
                let address = SocketAddr::new(to.parse().unwrap(), port);
                let client = send(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                let from = client.local_addr().unwrap();
                let line = wait_for("a header", || backend.seen.lock().unwrap().first().cloned());
                let wanted = format!("PROXY {family} {} {to} {} {port}", from.ip(), from.port());
                assert_eq!(line, wanted, "{version} {protocol}");
            }
        }
    }
}

#[test]
fn checks_that_go_elsewhere_begin_with_the_proxy_header_that_they_are_told_to() {
    for (own, wanted) in [("", false), (", proxy_protocol: v1", true), (", proxy_protocol: off", false)] {
        let (backend, doctor) = (told(), told());
        let service = format!(
            "proxy_protocol: v2\nhealth: {{ http: {{}}, port: {}, interval: 50ms{own} }}",
            doctor.address.port()
        );
        let ringway = Ringway::start(&tcp(free_address(), &service, &[("a", backend.address)]));
        wait_for("checks", || (checks(&ringway, "failure") > 1.0).then_some(()));
        let seen = doctor.requests();
        assert!(seen.iter().all(|line| line == "PROXY UNKNOWN"), "{seen:?}");
        let warned = ringway.log().contains("check_without_proxy_header");
        assert_eq!((!seen.is_empty(), warned), (wanted, own.is_empty()), "{own}");
    }
}

/// The first message of a TLS client that asks for this server.
fn client_hello(name: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let host = sized(&[&[0][..], &sized(name.as_bytes())].concat());
    let extensions = [&[0, 0][..], &sized(&host), &[0, 13], &sized(&sized(&[4, 3, 8, 4]))].concat();
    let hello = [&[3, 3][..], &[7; 32], &[0], &sized(&[0xc0, 0x2f]), &[1, 0], &sized(&extensions)].concat();
    let message = [&[1, 0][..], &sized(&hello)].concat();
    [&[0x16, 3, 1][..], &sized(&message)].concat()
}

/// Says its name to whoever says something.
fn namer(name: &'static str) -> Backend {
    Backend::custom(move |mut stream, _| {
        if stream.read(&mut [0; 1]).is_ok_and(|count| count > 0) {
            let _ = stream.write_all(name.as_bytes());
        }
    })
}

/// What a session from this address gets to hear; nothing if it is not served.
fn session(from: &str, to: SocketAddr, first: &[u8]) -> String {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patience())).unwrap();
    stream.write_all(first).unwrap();
    let mut answer = String::new();
    // A session that is refused is reset.
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn sessions_are_placed_by_every_key_that_they_can_have() {
    let fleet = ["a", "b", "c", "d"].map(|name| (name, namer(name)));
    let targets: Vec<_> = fleet.iter().map(|(name, backend)| (*name, backend.address)).collect();
    let start = |service: &str| {
        let listen = free_address();
        (Ringway::start(&tcp(listen, service, &targets)), listen)
    };
    let distinct = |answers: &[String]| {
        assert!(answers.iter().all(|answer| answer.len() == 1), "{answers:?}");
        answers.iter().collect::<std::collections::BTreeSet<_>>().len()
    };
    // Both together: the same for the same name and address, whatever else is other.
    let (ringway, listen) =
        start("balance: { hash_key: [ { all: [ { sni: {} }, { source_ip: {} } ] } ], on_missing: reject }");
    let by_name: Vec<String> =
        (0..24).map(|name| session("127.0.0.1", listen, &client_hello(&format!("{name}.test")))).collect();
    let by_address: Vec<String> =
        (1..24).map(|host| session(&format!("127.0.0.{host}"), listen, &client_hello("0.test"))).collect();
    assert!(distinct(&by_name) > 1 && distinct(&by_address) > 1, "{by_name:?} {by_address:?}");
    for (name, before) in by_name.iter().enumerate() {
        let again = session("127.0.0.1", listen, &client_hello(&format!("{name}.test")));
        assert_eq!(again, *before, "{name}");
    }
    // Who has no name has no such key.
    assert_eq!(session("127.0.0.1", listen, b"no TLS"), "");
    assert_eq!(ringway.metric("ringway_proxy_errors_total{service=\"s\",reason=\"hash_key_missing\"}"), 1.0);
    assert_eq!(ringway.metric("ringway_requests_total{service=\"s\",class=\"none\"}"), 1.0);
    // The first that is there, and what stands for none.
    let (_ringway, listen) = start("balance: { hash_key: [ { sni: {} }, { source_ip: {} } ] }");
    let same = |hosts: std::ops::Range<u8>, first: &[u8]| {
        hosts.map(|host| session(&format!("127.0.0.{host}"), listen, first)).collect::<Vec<String>>()
    };
    assert_eq!(distinct(&same(1..24, &client_hello("0.test"))), 1);
    assert!(distinct(&same(1..24, b"no TLS")) > 1);
    let (_ringway, listen) = start("balance: { hash_key: [ { sni: {} } ], on_missing: round_robin }");
    let turns: Vec<String> = (0..24).map(|_| session("127.0.0.1", listen, b"no TLS")).collect();
    assert!(distinct(&turns) > 1, "{turns:?}");
    let (_ringway, listen) = start("balance: { hash_key: [ { sni: {} } ], on_missing: source_ip }");
    let turns: Vec<String> = (0..12).map(|_| session("127.0.0.1", listen, b"no TLS")).collect();
    assert_eq!(distinct(&turns), 1, "{turns:?}");
    // Rates are of any of these keys, too.
    let (ringway, listen) = start("rate_limit: { requests: 1, per: 1h, key: [ { sni: {} } ] }");
    for name in ["a.test", "b.test"] {
        assert_eq!(session("127.0.0.1", listen, &client_hello(name)).len(), 1, "{name}");
        assert_eq!(session("127.0.0.1", listen, &client_hello(name)), "", "{name}");
    }
    assert_eq!(ringway.metric("ringway_proxy_errors_total{service=\"s\",reason=\"rate_limited\"}"), 2.0);
}
