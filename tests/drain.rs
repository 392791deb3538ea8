//! SIGTERM: in-flight requests end, the process does soon after; a second signal ends it at once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
use common::*;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

fn slow(millis: u64) -> Backend {
    Backend::custom(move |mut stream, _| {
        while read_request(&mut stream).is_some() {
            std::thread::sleep(Duration::from_millis(millis));
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
    wait_for("connections to be refused", || std::net::TcpStream::connect(listen).is_err().then_some(()));
    if let Some(answer) = get(ringway.admin, "/readyz") {
        assert_eq!(answer.status, 503);
    }
    let answer = read_answer(&mut busy, true).unwrap();
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("done", Some("close")));
    let begin = Instant::now();
    assert_eq!(ringway.wait(), 0);
    assert!(begin.elapsed() < Duration::from_secs(5), "it lingered for {:?}", begin.elapsed());
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
