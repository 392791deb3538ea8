//! TCP listeners: bytes both ways, half-close kept, placed by source address, retried on connect.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
use common::*;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn tcp(listen: SocketAddr, service: &str, backends: &[(&str, SocketAddr)]) -> String {
    simple(listen, service, backends).replace("name: web,", "name: web, protocol: tcp,")
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
            Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
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
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
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
