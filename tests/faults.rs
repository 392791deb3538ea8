//! Backends that lie, die, hang or stay silent cost one request at most, and mostly none.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
use common::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

fn one_backend(service: &str, backend: SocketAddr) -> (Ringway, SocketAddr) {
    let listen = free_address();
    (Ringway::start(&simple(listen, service, &[("a", backend)])), listen)
}

#[test]
fn lying_backend_costs_one_502_and_nothing_else() {
    let endless: &'static [u8] = Box::leak(
        format!(
            "HTTP/1.1 200 OK\r\n{}",
            "X-Filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(4_000)
        )
        .into_bytes()
        .into_boxed_slice(),
    );
    for (name, answer) in [
        ("garbage", &b"garbage garbage garbage\r\n\r\n"[..]),
        ("nothing", b""),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le"),
        ("short body", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
        ("length and coding", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("bad chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        ("status 999", b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"),
        ("unasked 101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        ("bytes after 204", b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ("endless 1xx", Box::leak("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100).into_bytes().into_boxed_slice())),
        ("endless head", endless),
    ] {
        let backend = Backend::says(answer);
        let (mut ringway, listen) = one_backend("retry: { attempts: 0 }", backend.address);
        let mut stream = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut answer = read_answer(&mut stream, true).unwrap_or_else(|| panic!("{name}: no answer"));
        while answer.status < 200 {
            answer = read_answer(&mut stream, true).unwrap_or_else(|| panic!("{name}: no answer"));
        }
        assert_eq!(answer.status, 502, "{name}: {answer:?}");
        assert!(answer.header("x-ringway-reason").is_some(), "{name}");
        assert!(ringway.is_running(), "{name}");
        assert_eq!(ringway.status()["services"][0]["in_flight"], 0, "{name}");
    }
}

#[test]
fn answer_cut_off_in_the_middle_is_seen_as_cut_off() {
    let backend = Backend::custom(|mut stream, _| {
        let _ = read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        std::thread::sleep(Duration::from_millis(100));
    });
    let (_ringway, listen) = one_backend("", backend.address);
    let mut stream = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("hello") && !text.ends_with("0\r\n\r\n"), "{text:?}");
}

#[test]
fn refused_connections_are_retried_on_the_next_of_the_walk() {
    let good = Backend::echo("good");
    let dead = free_address();
    let listen = free_address();
    let service = "balance: { hash_key: [ { header: x-key } ] }";
    let ringway = Ringway::start(&simple(listen, service, &[("dead", dead), ("good", good.address)]));
    for key in 0..50 {
        // Even a POST: nothing of it has been sent.
        let bytes =
            format!("POST / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        let answer = read_answer(&mut send(listen, bytes.as_bytes()), true).unwrap();
        assert_eq!((answer.status, answer.header("x-backend")), (200, Some("good")));
    }
    assert_eq!(good.requests().len(), 50);
    let state = &ringway.status()["services"][0]["backends"][0];
    assert_eq!(state["state"], "ejected", "{state}");
}

#[test]
fn black_holed_backend_costs_its_connect_timeout_once() {
    // A listener whose queue is full takes no more handshakes: the kernel drops them, as a black hole does.
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hole.local_addr().unwrap();
    let small = socket2_backlog(&hole);
    let _fill: Vec<_> = (0..small + 2)
        .filter_map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok())
        .collect();
    let good = Backend::echo("good");
    let listen = free_address();
    let service = "balance: { hash_key: [ { header: x-key } ] }\ntimeouts: { connect: 400ms }";
    let _ringway = Ringway::start(&simple(listen, service, &[("good", good.address), ("hole", address)]));
    let mut slow = 0;
    for key in 0..40 {
        let begin = Instant::now();
        let answer = get_with(listen, "/", &format!("X-Key: {key}\r\n")).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "good"));
        slow += usize::from(begin.elapsed() >= Duration::from_millis(400));
    }
    assert!(slow <= 1, "{slow} requests waited for the black hole");
}

/// Makes the listener's queue as short as can be.
fn socket2_backlog(listener: &TcpListener) -> usize {
    socket2::SockRef::from(listener).listen(0).unwrap();
    1
}

#[test]
fn silent_backend_is_timed_out_and_the_next_one_answers() {
    let silent = Backend::custom(|mut stream, _| {
        let _ = read_request(&mut stream);
        std::thread::sleep(Duration::from_secs(60));
    });
    let good = Backend::echo("good");
    let listen = free_address();
    let service = "balance: { hash_key: [ { header: x-key } ] }\ntimeouts: { response: 300ms }";
    let _ringway = Ringway::start(&simple(listen, service, &[("good", good.address), ("silent", silent.address)]));
    for key in 0..12 {
        let answer = get_with(listen, "/", &format!("X-Key: {key}\r\n")).unwrap();
        assert_eq!(answer.text(), "good");
    }
    // A POST may have been processed: it is not sent again.
    let mut timeouts = 0;
    for key in 0..12 {
        let bytes =
            format!("POST / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let answer = read_answer(&mut send(listen, bytes.as_bytes()), true).unwrap();
        if answer.status == 504 {
            assert_eq!(answer.header("x-ringway-reason"), Some("response_timeout"));
            timeouts += 1;
        }
    }
    assert_eq!(good.requests().iter().filter(|request| request.starts_with("POST")).count() + timeouts, 12);
}

#[test]
fn post_is_never_sent_twice() {
    // Takes the request, then resets: it may have been processed.
    let backend = Backend::custom(|mut stream, seen| {
        if let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head);
        }
    });
    let other = Backend::echo("other");
    let listen = free_address();
    let service = "balance: { hash_key: [ { header: x-key } ] }\noutlier: { consecutive_failures: 0 }";
    let _ringway = Ringway::start(&simple(listen, service, &[("resets", backend.address), ("other", other.address)]));
    for key in 0..30 {
        let bytes = format!(
            "POST /{key} HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = read_answer(&mut send(listen, bytes.as_bytes()), true).unwrap();
        assert!(matches!(answer.status, 200 | 502), "{answer:?}");
    }
    assert_eq!(backend.requests().len() + other.requests().len(), 30);
    assert!(!backend.requests().is_empty());
    // A GET is.
    for key in 0..30 {
        assert_eq!(get_with(listen, "/", &format!("X-Key: {key}\r\n")).unwrap().text(), "other");
    }
}

#[test]
fn idle_connection_that_the_backend_closes_fails_no_request() {
    // Closes each connection after one answer, without saying so.
    let backend = Backend::custom(|mut stream, _| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let (_ringway, listen) = one_backend("", backend.address);
    let mut stream = send(listen, b"");
    for _ in 0..200 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);
    }
}

#[test]
fn all_backends_down_is_answered_at_once() {
    let listen = free_address();
    let service = "health: { tcp: {}, interval: 50ms, fall: 1 }\npanic_threshold: 0";
    let ringway = Ringway::start(&simple(listen, service, &[("a", free_address()), ("b", free_address())]));
    wait_for("both to be down", || {
        let status = ringway.status();
        let down = |index: usize| status["services"][0]["backends"][index]["state"] == "down";
        (down(0) && down(1)).then_some(())
    });
    let answer = get(listen, "/").unwrap();
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (503, Some("no_backend")));
    // In panic health is ignored, and the connect tells the truth.
    let panic = Ringway::start(&simple(
        free_address(),
        "health: { tcp: {}, interval: 50ms, fall: 1 }",
        &[("a", free_address())],
    ));
    wait_for("panic", || (panic.status()["services"][0]["panic"] == true).then_some(()));
    assert_eq!(panic.metric("ringway_panic_mode{service=\"s\"}"), 1.0);
}

#[test]
fn client_that_stalls_is_timed_out() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let config = simple(listen, "", &[("a", backend.address)])
        .replace("service: s }", "service: s, timeouts: { head: 200ms, body_idle: 200ms, idle: 300ms } }");
    let ringway = Ringway::start(&config);
    // Nothing at all; half a head; half a body; nothing after an answer.
    assert_eq!(raw(listen, b""), "");
    assert!(raw(listen, b"GET / HTTP/1.1\r\nHost: a").starts_with("HTTP/1.1 408 "));
    assert!(raw(listen, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").starts_with("HTTP/1.1 408 "));
    let kept = raw(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(kept.starts_with("HTTP/1.1 200 ") && kept.ends_with('a'), "{kept}");
    wait_for("connections to be gone", || (ringway.metric("ringway_downstream_connections") == 0.0).then_some(()));
    assert_eq!(ringway.status()["services"][0]["in_flight"], 0);
}

#[test]
fn stalled_downloads_hold_no_more_than_their_buffers() {
    let backend = Backend::custom(|mut stream, _| {
        let _ = read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 209715200\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..200 {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let (ringway, listen) = one_backend("", backend.address);
    let memory = || {
        let text = std::fs::read_to_string(format!("/proc/{}/status", ringway.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = memory();
    let stalled: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.read_exact(&mut [0; 1000]).unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let grown = memory().saturating_sub(before);
    assert!(grown <= 10 * 1024, "20 stalled downloads hold {grown} KiB");
    drop(stalled);
}
