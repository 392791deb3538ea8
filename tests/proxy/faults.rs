//! Backends that lie, die, hang or stay silent cost one request at most, and mostly none.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::peers::*;
use crate::common::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
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
        takes(Duration::from_millis(100));
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
    let _fill: Vec<_> =
        (0..small + 2).filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()).collect();
    let good = Backend::echo("good");
    let listen = free_address();
    // Longer than a request takes that does not wait for it, however busy the machine is.
    let connect = Duration::from_millis((400.0 * slowness()) as u64);
    let service =
        format!("balance: {{ hash_key: [ {{ header: x-key }} ] }}\ntimeouts: {{ connect: {}ms }}", connect.as_millis());
    let _ringway = Ringway::start(&simple(listen, &service, &[("good", good.address), ("hole", address)]));
    let mut slow = 0;
    for key in 0..40 {
        let begin = Instant::now();
        let answer = get_with(listen, "/", &format!("X-Key: {key}\r\n")).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "good"));
        slow += usize::from(begin.elapsed() >= connect);
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
        takes(Duration::from_secs(60));
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
    let stall = |count: usize| -> Vec<_> {
        let mut stalled = (0..count).map(|_| send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).collect::<Vec<_>>();
        stalled.iter_mut().for_each(|stream| stream.read_exact(&mut [0; 1000]).unwrap());
        stalled
    };
    // What workers take for the first ones is not theirs.
    let _first = stall(8);
    let before = memory();
    let stalled = stall(20);
    // Time for more to come in than may.
    leave_time(Duration::from_millis(500));
    let grown = memory().saturating_sub(before);
    assert!(grown <= 10 * 1024, "20 stalled downloads hold {grown} KiB");
    drop(stalled);
}

/// Three backends that answer as the path says, of which the first is always asked first, and is ejected by two failures.
fn provoked(respond: fn(&str) -> String) -> (Ringway, SocketAddr, Vec<Backend>) {
    let backends: Vec<Backend> = (0..3).map(|_| scripted(respond)).collect();
    let targets: Vec<_> = ["a", "b", "c"].into_iter().zip(&backends).map(|(id, one)| (id, one.address)).collect();
    let listen = free_address();
    let service = "balance: { policy: first }\noutlier: { consecutive_failures: 2 }";
    (Ringway::start(&simple(listen, service, &targets)), listen, backends)
}

fn failures(ringway: &Ringway, id: &str) -> f64 {
    ringway.metric(&format!("ringway_backend_failures_total{{service=\"s\",backend=\"{id}\"}}"))
}

#[test]
fn bytes_after_an_answer_without_a_body_go_with_their_connection() {
    let (ringway, listen, backends) = provoked(|head| match head.split(' ').nth(1).unwrap() {
        "/204" => "HTTP/1.1 204 No Content\r\nx-is: it\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(),
        "/204-length" => "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nx-is: it\r\n\r\nhello".into(),
        "/204-chunks" => "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\nx-is: it\r\n\r\n0\r\n\r\n".into(),
        "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nx-is: it\r\n\r\nhello".into(),
        "/0" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-is: it\r\n\r\nhello".into(),
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-is: it\r\n\r\nhello".into(),
    });
    let mut count = 0;
    for (method, path) in
        [("HEAD", "/"), ("GET", "/204"), ("GET", "/204-length"), ("GET", "/204-chunks"), ("GET", "/304"), ("GET", "/0")]
    {
        // One connection of the client's: none of these bytes is taken for an answer.
        let mut stream = send(listen, b"");
        for _ in 0..5 {
            stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
            let answer = read_answer(&mut stream, method != "HEAD").unwrap();
            assert_eq!((answer.header("x-is"), answer.body.len()), (Some("it"), 0), "{method} {path}: {answer:?}");
            assert!([200, 204, 304].contains(&answer.status), "{method} {path}: {answer:?}");
            count += 1;
        }
        drop(stream);
    }
    assert_eq!(backends.iter().map(|backend| backend.requests().len()).collect::<Vec<_>>(), [count, 0, 0]);
    assert_eq!((failures(&ringway, "a"), ringway.metric("ringway_retries_total{service=\"s\"}")), (0.0, 0.0));
}

#[test]
fn what_a_request_provokes_in_the_form_of_its_answer_is_no_fault_of_a_backend() {
    let (ringway, listen, backends) = provoked(|head| match head.split(' ').nth(1).unwrap() {
        "/many" => format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(300)),
        "/long" => format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(70_000)),
        "/lengths" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n".into(),
        "/injected" => "HTTP/1.1 302 Found\r\nLocation: /\nx: y\r\nContent-Length: 0\r\n\r\n".into(),
        "/interim" => "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(40),
        _ => format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
            format!("1;{}\r\nx\r\n", "e".repeat(200)).repeat(100)
        ),
    });
    let mut count = 0;
    for path in ["/many", "/long", "/lengths", "/injected", "/interim", "/extensions"] {
        for _ in 0..4 {
            let request = format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n");
            let mut stream = send(listen, request.as_bytes());
            // An answer that goes wrong after it has begun is cut off.
            let status = read_answer(&mut stream, false).map_or(502, |answer| answer.status);
            assert!(status == 502 || status == 200 && path == "/extensions", "{path}: {status}");
            count += 1;
        }
    }
    assert_eq!(backends.iter().map(|backend| backend.requests().len()).collect::<Vec<_>>(), [count, 0, 0]);
    assert_eq!(failures(&ringway, "a"), 0.0);
    assert_eq!(backend_status(&ringway, "a")["state"], "up");
}

#[test]
fn what_is_no_http_or_is_cut_off_is_tried_elsewhere_and_counts() {
    for answer in [&b"SSH-2.0-OpenSSH_9.6\r\n\r\n"[..], b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nConte", b""] {
        let (bad, good) = (Backend::says(answer), Backend::echo("good"));
        let listen = free_address();
        let service = "balance: { policy: first }\noutlier: { consecutive_failures: 2 }";
        let ringway = Ringway::start(&simple(listen, service, &[("a", bad.address), ("b", good.address)]));
        for _ in 0..4 {
            assert_eq!(get(listen, "/").unwrap().text(), "good", "{answer:?}");
        }
        assert_eq!(failures(&ringway, "a"), 2.0, "{answer:?}");
        assert_eq!(backend_status(&ringway, "a")["state"], "ejected", "{answer:?}");
    }
}

#[test]
fn what_an_answer_has_left_on_a_connection_is_neither_the_next_answer_nor_a_failure() {
    // The body of an answer to HEAD comes when nobody waits for it any more.
    let backend = Backend::custom(|mut stream, seen| {
        let mut late = "";
        while let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head.clone());
            let answer = format!("{late}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
            late = if head.starts_with("HEAD") { "hello" } else { "" };
            if late.is_empty() {
                let _ = stream.write_all(b"fresh");
            }
        }
    });
    let listen = free_address();
    let config = simple(listen, "outlier: { consecutive_failures: 1 }", &[("a", backend.address)]);
    let ringway = Ringway::start(&config.replace("workers: 2", "workers: 1"));
    let head = || read_answer(&mut send(listen, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"), false).unwrap().status;
    for _ in 0..3 {
        assert_eq!(head(), 200);
        assert_eq!(get(listen, "/").unwrap().text(), "fresh");
    }
    // What may not be sent twice is not.
    assert_eq!(head(), 200);
    let posts = || backend.requests().iter().filter(|request| request.starts_with("POST")).count();
    let mut stream = send(listen, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!((read_answer(&mut stream, true).unwrap().status, posts()), (502, 1));
    assert_eq!(failures(&ringway, "a"), 0.0);
}

/// A backend that speaks HTTP/2, and answers every request with these frames on its stream.
fn h2_backend(answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> (Backend, &'static AtomicUsize) {
    let count: &'static AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
    let backend = Backend::custom(move |mut stream, _| {
        let mut preface = [0; 24];
        if stream.read_exact(&mut preface).is_err() || stream.write_all(&frame(4, 0, 0, &[0, 8, 0, 0, 0, 1])).is_err() {
            return;
        }
        let mut head = [0; 9];
        while stream.read_exact(&mut head).is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length as usize];
            let _ = stream.read_exact(&mut payload);
            let reply = match (head[3], head[4] & 1) {
                (1, _) => {
                    count.fetch_add(1, Ordering::SeqCst);
                    answer(id)
                }
                (4, 0) => frame(4, 1, 0, &[]),
                (6, 0) => frame(6, 1, 0, &payload),
                _ => continue,
            };
            let _ = stream.write_all(&reply);
        }
    });
    (backend, count)
}

#[test]
fn a_header_list_over_http2_that_is_too_long_is_no_fault_of_the_backend() {
    // `:status: 200`, and a field of 70,000 bytes, in as many frames as it takes (RFC 7541, 6.2.2 and 5.1).
    let (backend, seen) = h2_backend(|id| {
        let mut block = vec![0x88, 0x00, 1, b'x', 0x7f, 0xf1, 0xa1, 0x04];
        block.extend(std::iter::repeat_n(b'y', 70_000));
        let mut pieces: Vec<&[u8]> = block.chunks(16_000).collect();
        let last = pieces.pop().unwrap();
        let mut frames = frame(1, 1, id, pieces[0]);
        pieces[1..].iter().for_each(|piece| frames.extend(frame(9, 0, id, piece)));
        frames.extend(frame(9, 4, id, last));
        frames
    });
    let (other, others) = h2_backend(|id| frame(1, 5, id, &[0x88]));
    let listen = free_address();
    let service = "protocol: h2\nbalance: { policy: first }\noutlier: { consecutive_failures: 2 }";
    let ringway = Ringway::start(&simple(listen, service, &[("a", backend.address), ("b", other.address)]));
    for _ in 0..5 {
        assert_eq!(get(listen, "/").unwrap().status, 502);
    }
    assert_eq!((seen.load(Ordering::SeqCst), others.load(Ordering::SeqCst)), (5, 0));
    assert_eq!(failures(&ringway, "a"), 0.0);
}

#[test]
fn a_101_that_nobody_asked_for_opens_no_tunnel() {
    let websocket = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let ask = |listen, fields: &str| {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\ntunnel data");
        let mut stream = send(listen, bytes.as_bytes());
        read_answer(&mut stream, false).unwrap().status
    };
    for (fields, answer) in [
        ("", "Connection: upgrade\r\nUpgrade: websocket\r\n"),
        (
            "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
            "Connection: upgrade\r\nUpgrade: h2c\r\n",
        ),
        (websocket, ""),
        (websocket, "Connection: upgrade\r\n"),
        (websocket, "Connection: upgrade\r\nUpgrade: h2c\r\n"),
        (websocket, "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n"),
        (websocket, "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: other\r\n"),
        (websocket, "Connection: upgrade\r\nUpgrade: \r\n"),
    ] {
        let backend = Backend::custom(move |mut stream, seen| {
            if read_request(&mut stream).is_some() {
                let _ = write!(stream, "HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n");
                let mut rest = String::new();
                let _ = stream.read_to_string(&mut rest);
                seen.lock().unwrap().push(rest);
            }
        });
        let (ringway, listen) = one_backend("", backend.address);
        assert_eq!(ask(listen, fields), 502, "{fields:?} {answer:?}");
        // Its connection is closed, and got nothing more.
        wait_for("the connection to be closed", || (backend.requests() == [""]).then_some(()));
        assert_eq!(ringway.status()["services"][0]["in_flight"], 0);
    }
    // `:status: 101`, which HTTP/2 does not have (RFC 7541, 6.2.2; RFC 9113, 8.6): as an interim answer, and as the only one.
    for flags in [4, 5] {
        let (backend, seen) = h2_backend(move |id| frame(1, flags, id, &[0x08, 3, b'1', b'0', b'1']));
        let (ringway, listen) = one_backend("protocol: h2\ntimeouts: { response: 10s }", backend.address);
        for fields in ["", websocket] {
            assert_eq!(ask(listen, fields), 502, "{flags} {fields:?}");
        }
        assert_eq!(seen.load(Ordering::SeqCst), 2, "no other try");
        assert_eq!(ringway.status()["services"][0]["in_flight"], 0);
    }
}

#[test]
fn an_answer_without_length_ends_with_a_goodbye_in_tls_or_is_cut_off() {
    let (Some(certificates), Some(())) = (Certificates::new(), require_python("ssl")) else { return };
    certificates.issue("one", "DNS:one.test", "2");
    // Says goodbye if the path asks for it, and closes.
    let script = "import socket, ssl, sys, threading\n\
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)\n\
        context.load_cert_chain(sys.argv[2], sys.argv[3])\n\
        listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n\
        def serve(plain):\n\
        \ttry:\n\
        \t\ts = context.wrap_socket(plain, server_side=True)\n\
        \t\thead = s.recv(65536)\n\
        \t\ts.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\nhello')\n\
        \t\tif b'/polite' in head: s.unwrap()\n\
        \t\ts.close()\n\
        \texcept OSError: pass\n\
        while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()\n";
    let (backend, listen) = (free_address(), free_address());
    let [port, certificate, key] =
        [backend.port().to_string(), certificates.text("one.pem"), certificates.text("one.key")];
    let _server = Running(Command::new("python3").args(["-c", script, &port, &certificate, &key]).spawn().unwrap());
    wait_for("the backend", || TcpStream::connect(backend).ok());
    let tls = |more: &str| format!("tls: {{ sni: one.test, ca: \"{}\"{more} }}", certificates.text("ca.pem"));
    let config = simple(listen, &tls(""), &[("a", backend)]);
    let ringway = Ringway::start(&config);
    let whole = "5\r\nhello\r\n0\r\n\r\n";
    let ask =
        |path: &str| raw(listen, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    assert!(ask("/polite").ends_with(whole), "{}", ask("/polite"));
    let rude = ask("/rude");
    assert!(!rude.contains("0\r\n\r\n") || rude.starts_with("HTTP/1.1 502"), "{rude}");
    // Of HTTP/1.0, the connection's end is the answer's: it is reset.
    let mut old = send(listen, b"GET /rude HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(old.read_to_end(&mut Vec::new()).is_err());
    assert_eq!(failures(&ringway, "a"), 0.0);
    ringway.reconfigure(&simple(listen, &tls(", ignore_unexpected_eof: true"), &[("a", backend)]));
    assert!(ask("/rude").ends_with(whole) && ask("/polite").ends_with(whole));
}
