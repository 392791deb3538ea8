//! SIGTERM: in-flight requests end, the process does soon after; a second signal ends it at once. Of connections whose handshake
//! has completed, none is cut.
//!
//! `RINGWAY_DRAINS=100 cargo test --release --test proxy drain:: -- --nocapture` drains that many times under load instead of five;
//! `RINGWAY_RATE=4000` is the rate of requests of the rolling restart.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test that cannot go on fails, and says where it was"
)]

pub(crate) mod load;

use crate::common::peers::{Certificates, config, service};
use crate::common::*;
use load::{Kind, Seen, Way};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn slow(millis: u64) -> Backend {
    Backend::custom(move |mut stream, _| {
        while read_request(&mut stream).is_some() {
            takes(Duration::from_millis(millis));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        }
    })
}

#[test]
fn requests_in_flight_end_and_then_the_process_does() {
    let backend = slow(700);
    let listen = free_address();
    let mut ringway = Ringway::start(&simple(listen, "", &[("a", backend.address)]));
    let mut idle = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(read_answer(&mut idle, true).unwrap().text(), "done");
    let mut busy = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for("the request to be in flight", || (ringway.status()["services"][0]["in_flight"] == 1).then_some(()));
    ringway.signal("TERM");
    // Idle connections are closed, new ones refused, readiness is withdrawn.
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    wait_for("connections to be refused", || TcpStream::connect(listen).is_err().then_some(()));
    if let Some(answer) = get(ringway.admin, "/readyz") {
        assert_eq!(answer.status, 503);
    }
    let answer = read_answer(&mut busy, true).unwrap();
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("done", Some("close")));
    let begin = Instant::now();
    assert_eq!(ringway.wait(), 0);
    assert!(begin.elapsed() < Duration::from_secs(5).mul_f64(slowness()), "it lingered for {:?}", begin.elapsed());
}

#[test]
fn drain_is_bounded_and_a_second_signal_ends_it_at_once() {
    let backend = slow(30_000);
    for second in [false, true] {
        let listen = free_address();
        let timeout = if second { "60s" } else { "500ms" };
        let config = format!("drain_timeout: {timeout}\n{}", simple(listen, "", &[("a", backend.address)]));
        let mut ringway = Ringway::start(&config);
        let _busy = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        wait_for("the request to be in flight", || (ringway.status()["services"][0]["in_flight"] == 1).then_some(()));
        ringway.signal("TERM");
        if second {
            wait_for("the drain to begin", || ringway.log().contains("draining").then_some(()));
            ringway.signal("TERM");
        }
        assert_eq!(ringway.wait(), 1);
    }
}

/// A worker that never comes back keeps nobody from ending the process, whose access log is not waited for either.
#[test]
fn a_stuck_worker_keeps_neither_the_drain_nor_a_second_signal_from_ending_the_process() {
    let backend = slow(0);
    for second in [false, true] {
        let (listen, directory) = (free_address(), tempfile::tempdir().unwrap());
        let timeout = if second { "600s" } else { "500ms" };
        let log = format!("access_log: {{ target: {:?} }}\n", directory.path().join("access.log"));
        let file = simple(listen, "", &[("a", backend.address)]);
        let mut ringway = Ringway::start(&format!("drain_timeout: {timeout}\n{log}{file}"));
        let Some(stopped) = StoppedWorker::new(&ringway, 1) else { return };
        ringway.signal("TERM");
        if second {
            wait_for("the drain to begin", || ringway.log().contains("draining").then_some(()));
            ringway.signal("TERM");
        }
        let stat = format!("/proc/{}/stat", ringway.pid());
        wait_for("the process to be over", || {
            let stat = std::fs::read_to_string(&stat).ok()?;
            // What is left of it waits for who has stopped its thread.
            stat.rsplit_once(") ")?.1.starts_with('Z').then_some(())
        });
        drop(stopped);
        assert_eq!(ringway.wait(), 1);
        assert!(ringway.log().contains("a worker is stuck"), "{}", ringway.log());
    }
}

/// Ringway before a fleet, with a listener for each protocol, and one that a reload may take away.
struct Site {
    certificates: Certificates,
    fleet: Vec<(&'static str, Backend)>,
    lines: Backend,
    web: SocketAddr,
    tls: SocketAddr,
    tcp: SocketAddr,
    other: SocketAddr,
}

impl Site {
    fn new() -> Option<Self> {
        let certificates = Certificates::new()?;
        certificates.issue("leaf", "DNS:a.test", "2");
        let lines = Backend::custom(|mut stream, _| {
            let mut line = [0; 6];
            while stream.read_exact(&mut line).and_then(|()| stream.write_all(&line)).is_ok() {}
        });
        let [web, tls, tcp, other] = [(); 4].map(|()| free_address());
        Some(Self { certificates, fleet: echoes(2), lines, web, tls, tcp, other })
    }

    fn config(&self, top: &str, with_other: bool) -> String {
        let Self { web, tls, tcp, other, .. } = self;
        let mut listeners = format!(
            "  - {{ name: web, address: \"{web}\", service: s }}\n\
             \x20 - {{ name: tls, address: \"{tls}\", service: s, tls: {{ certificates: [ {} ] }} }}\n\
             \x20 - {{ name: tcp, address: \"{tcp}\", protocol: tcp, service: lines }}\n",
            self.certificates.entry("leaf"),
        );
        if with_other {
            listeners.push_str(&format!("  - {{ name: other, address: \"{other}\", service: s }}\n"));
        }
        let services = service("s", "", &targets(&self.fleet)) + &service("lines", "", &[("l", self.lines.address)]);
        format!("{top}{}", config(&listeners, &services))
    }

    fn way(&self, address: SocketAddr, alpn: Option<&str>) -> Way {
        Way { address, tls: alpn.map(|alpn| load::tls_client(&self.certificates, alpn)) }
    }
}

fn number(variable: &str, short: usize) -> usize {
    std::env::var(variable).map_or(short, |text| text.parse().unwrap())
}

#[test]
fn no_connection_whose_handshake_completed_is_cut_by_a_drain_under_load() {
    let Some(site) = Site::new() else { return };
    for drain in 0..number("RINGWAY_DRAINS", 5) {
        let mut ringway = Ringway::start(&site.config("", true));
        let seen = Arc::new(Seen::default());
        let (plain, tls) = (site.way(site.web, None), site.way(site.tls, Some("http/1.1")));
        let (h2, tcp) = (site.way(site.tls, Some("h2")), site.way(site.tcp, None));
        let kinds = [
            (Kind::New, &plain, 6),
            (Kind::Kept, &plain, 4),
            (Kind::Http2, &plain, 2),
            (Kind::New, &tls, 3),
            (Kind::Kept, &tls, 2),
            (Kind::Http2, &h2, 2),
            (Kind::Tcp, &tcp, 4),
            (Kind::TcpKept, &tcp, 2),
        ];
        let clients: Vec<_> =
            kinds.into_iter().flat_map(|(kind, way, count)| load::start(kind, way, count, &seen)).collect();
        wait_for("load", || (seen.served.load(Ordering::SeqCst) > 300).then_some(()));
        ringway.signal("TERM");
        wait_for("new connections to end", || TcpStream::connect(site.web).is_err().then_some(()));
        seen.ending.store(true, Ordering::SeqCst);
        assert_eq!(ringway.wait(), 0);
        clients.into_iter().for_each(|client| client.join().unwrap());
        let cut = seen.cut.lock().unwrap();
        assert!(
            cut.is_empty(),
            "drain {drain}: {} served, {} cut: {cut:#?}",
            seen.served.load(Ordering::SeqCst),
            cut.len()
        );
        eprintln!("drain {drain}: {} served, none cut", seen.served.load(Ordering::SeqCst));
    }
}

#[test]
fn no_connection_whose_handshake_completed_is_cut_when_a_reload_removes_its_listener() {
    let Some(site) = Site::new() else { return };
    let ringway = Ringway::start(&site.config("", false));
    for _ in 0..3 {
        ringway.reconfigure(&site.config("", true));
        let seen = Arc::new(Seen::default());
        let plain = site.way(site.other, None);
        let kinds = [(Kind::New, 6), (Kind::Kept, 4), (Kind::Http2, 2)];
        let clients: Vec<_> =
            kinds.into_iter().flat_map(|(kind, count)| load::start(kind, &plain, count, &seen)).collect();
        wait_for("load", || (seen.served.load(Ordering::SeqCst) > 100).then_some(()));
        ringway.reconfigure(&site.config("", false));
        clients.into_iter().for_each(|client| client.join().unwrap());
        let cut = seen.cut.lock().unwrap();
        assert!(cut.is_empty(), "{} served, {} cut: {cut:#?}", seen.served.load(Ordering::SeqCst), cut.len());
    }
}

/// Clients that are connected, and have been accepted.
fn connected(ringway: &Ringway, address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let before = ringway.metric("ringway_downstream_connections ");
    let streams = (0..count).map(|_| send(address, b"")).collect();
    wait_for("connections to be accepted", || {
        (ringway.metric("ringway_downstream_connections ") >= before + count as f64).then_some(())
    });
    streams
}

#[test]
fn first_bytes_may_come_after_the_signal() {
    let Some(site) = Site::new() else { return };
    let mut ringway = Ringway::start(&site.config("drain_spread: 0\n", true));
    let mut idle: Vec<TcpStream> = (0..4).map(|_| send(site.web, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    idle.iter_mut().for_each(|stream| assert_eq!(read_answer(stream, true).unwrap().status, 200));
    let mut plain = connected(&ringway, site.web, 3);
    let secure = connected(&ringway, site.tls, 3);
    let mut lines = connected(&ringway, site.tcp, 1);
    ringway.signal("TERM");
    // By this the drain has begun in each worker.
    idle.iter_mut().for_each(|stream| assert_eq!(stream.read(&mut [0]).unwrap(), 0));
    plain.iter_mut().for_each(|stream| stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap());
    for stream in secure {
        let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
        let config = load::tls_client(&site.certificates, "http/1.1");
        let mut stream = rustls::StreamOwned::new(rustls::ClientConnection::new(config, name).unwrap(), stream);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut stream, true).expect("who was accepted is served").status, 200);
    }
    for stream in &mut plain {
        let answer = read_answer(stream, true).expect("who was accepted is served");
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    lines[0].write_all(b"hello\n").unwrap();
    lines[0].read_exact(&mut [0; 6]).unwrap();
    drop(lines);
    assert_eq!(ringway.wait(), 0);
}

/// When each connection ends, after the signal.
fn ends_of(streams: Vec<TcpStream>) -> Vec<Duration> {
    let begin = Instant::now();
    let threads: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).expect("it ends in peace");
                begin.elapsed()
            })
        })
        .collect();
    let mut ends: Vec<Duration> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    ends.sort();
    ends
}

#[test]
fn idle_connections_go_one_by_one_and_busy_ones_are_told() {
    let backend = slow(3000);
    let (web, quick) = (free_address(), echoes(1));
    let listeners = format!(
        "  - {{ name: web, address: \"{web}\", routes: [ {{ match: {{ path: /slow }}, service: slow }}, {{ service: s }} ] }}\n"
    );
    let services = service("s", "", &targets(&quick)) + &service("slow", "", &[("slow", backend.address)]);
    let mut ringway = Ringway::start(&format!("drain_spread: 6s\n{}", config(&listeners, &services)));
    let idle: Vec<TcpStream> = (0..24)
        .map(|_| {
            let mut stream = send(web, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);
            stream
        })
        .collect();
    // HTTP/2, without a request yet and with nothing to do.
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &peers::frame(4, 0, 0, &[])[..]].concat();
    let idle2: Vec<TcpStream> = (0..12)
        .map(|_| {
            let mut stream = send(web, &preface);
            // Its first frame: HTTP/2 has begun.
            stream.read_exact(&mut [0; 9]).unwrap();
            stream
        })
        .collect();
    let mut busy: Vec<TcpStream> = (0..12).map(|_| send(web, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    wait_for("requests in flight", || (ringway.status()["services"][1]["in_flight"] == 12).then_some(()));
    ringway.signal("TERM");
    let (first, second) = (std::thread::spawn(move || ends_of(idle)), std::thread::spawn(move || ends_of(idle2)));
    for stream in &mut busy {
        let answer = read_answer(stream, true).unwrap();
        assert_eq!((answer.text().as_str(), answer.header("connection")), ("done", Some("close")));
    }
    for ends in [first.join().unwrap(), second.join().unwrap()] {
        // Of so many, the middle half is spread over much more than a moment: by chance less is one in a million.
        let (early, late) = (ends[ends.len() / 4], ends[ends.len() * 3 / 4]);
        assert!(late - early > Duration::from_millis(400), "they went within {:?}: {ends:?}", late - early);
    }
    assert_eq!(ringway.wait(), 0);
}

#[test]
fn spread_of_nothing_closes_idle_connections_at_once() {
    let fleet = echoes(1);
    let listen = free_address();
    let text = format!("drain_spread: 0\ndrain_timeout: 60s\n{}", simple(listen, "", &targets(&fleet)));
    let mut ringway = Ringway::start(&text);
    let mut idle = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(read_answer(&mut idle, true).unwrap().status, 200);
    ringway.signal("TERM");
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    assert_eq!(ringway.wait(), 0);
}

#[test]
fn readiness_goes_first_and_traffic_is_served_as_before_for_the_delay() {
    let fleet = echoes(1);
    let listen = free_address();
    let text = |delay: &str| format!("drain_delay: {delay}\n{}", simple(listen, "", &targets(&fleet)));
    let mut ringway = Ringway::start(&text("60s"));
    ringway.signal("TERM");
    wait_for("readiness to be withdrawn", || (get(ringway.admin, "/readyz")?.status == 503).then_some(()));
    let mut stream = send(listen, b"");
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let answer = read_answer(&mut stream, true).unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }
    assert_eq!((get(ringway.admin, "/healthz").unwrap().status, &ringway.status()["draining"]), (200, &true.into()));
    ringway.signal("TERM");
    assert_eq!(ringway.wait(), 1, "a second signal ends it at once");
    // By itself, it ends in peace; the delay can be changed by a reload.
    let mut ringway = Ringway::start(&text("60s"));
    ringway.reconfigure(&text("100ms"));
    ringway.signal("TERM");
    assert_eq!(ringway.wait(), 0);
}

/// A real HAProxy that spreads requests over proxies, and asks their admin listeners whether they are ready.
fn haproxy(listen: SocketAddr, servers: &[(SocketAddr, SocketAddr)], directory: &std::path::Path) -> Running {
    let mut text = format!(
        "global\n  maxconn 2000\ndefaults\n  mode http\n  timeout connect 10s\n  timeout client 20s\n  timeout server 20s\n  \
         timeout check 10s\n  retries 0\nlisten web\n  bind {listen}\n  option httpchk GET /readyz\n"
    );
    for (index, (server, admin)) in servers.iter().enumerate() {
        text.push_str(&format!("  server r{index} {server} check port {} inter 100ms fall 1 rise 1\n", admin.port()));
    }
    let path = directory.join("haproxy.cfg");
    std::fs::write(&path, text).unwrap();
    let mut command = std::process::Command::new("haproxy");
    command.arg("-db").arg("-f").arg(path).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    Running(command.spawn().unwrap())
}

#[test]
fn rolling_restart_behind_a_balancer_fails_no_request() {
    let Some(()) = require("haproxy") else { return };
    let fleet = echoes(2);
    let rate = number("RINGWAY_RATE", 200);
    let servers: Vec<(SocketAddr, SocketAddr)> = (0..2).map(|_| (free_address(), free_address())).collect();
    let start = |(listen, admin): (SocketAddr, SocketAddr)| {
        Ringway::start_at(admin, &format!("drain_delay: 2s\n{}", simple(listen, "", &targets(&fleet))))
    };
    let mut proxies: Vec<Ringway> = servers.iter().map(|server| start(*server)).collect();
    let (directory, front) = (tempfile::tempdir().unwrap(), free_address());
    let _haproxy = haproxy(front, &servers, directory.path());
    wait_for("HAProxy", || (get(front, "/")?.status == 200).then_some(()));
    let seen = Arc::new(Seen::default());
    let clients = load::paced(&Way { address: front, tls: None }, rate, &seen);
    for (index, server) in servers.iter().enumerate() {
        let before = seen.served.load(Ordering::SeqCst);
        wait_for("load", || (seen.served.load(Ordering::SeqCst) > before + rate / 2).then_some(()));
        proxies[index].signal("TERM");
        assert_eq!(proxies[index].wait(), 0);
        proxies[index] = start(*server);
        wait_for("the fresh proxy to be sent requests", || {
            (proxies[index].metric("ringway_downstream_accepted_total ") > 0.0).then_some(())
        });
    }
    seen.ending.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let (served, cut) = (seen.served.load(Ordering::SeqCst), seen.cut.lock().unwrap());
    assert!(cut.is_empty(), "{served} served, {} failed: {cut:#?}", cut.len());
    eprintln!("{served} served, none failed");
}
