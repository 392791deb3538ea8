//! Retries, their limits and their bodies.

use crate::common::*;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const BAD: &str = "503 Service Unavailable";

/// Says 503, with its name.
fn bad(name: &'static str) -> Backend {
    scripted(move |_| response(BAD, "", name))
}

/// Takes requests and closes without a word.
fn closing() -> Backend {
    Backend::custom(|mut stream, seen| {
        if let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head);
        }
    })
}

/// In the order of ids, by one worker: the first is always asked first.
fn in_order(listen: SocketAddr, service: &str, fleet: &[(&str, SocketAddr)]) -> String {
    let service = format!("balance: {{ policy: first }}\noutlier: {{ consecutive_failures: 0 }}\n{service}");
    simple(listen, &service, fleet).replace("workers: 2", "workers: 1")
}

fn retries(ringway: &Ringway) -> f64 {
    ringway.metric("ringway_retries_total{service=\"s\"}")
}

fn refused(ringway: &Ringway, limit: &str) -> f64 {
    ringway.metric(&format!("ringway_retries_refused_total{{service=\"s\",limit=\"{limit}\"}}"))
}

fn in_flight(ringway: &Ringway) -> u64 {
    ringway.status()["services"][0]["in_flight"].as_u64().unwrap()
}

#[test]
fn a_request_counts_once_against_retries_max_whatever_it_is_retried_for() {
    for (first, second) in [(bad("a"), bad("b")), (closing(), bad("b")), (bad("a"), closing()), (closing(), closing())]
    {
        let good = Backend::echo("good");
        let listen = free_address();
        let service = "retry: { on: [ gateway, reset ], attempts: 3 }\nlimits: { retries_max: 1 }";
        let fleet = [("a", first.address), ("b", second.address), ("c", good.address)];
        let ringway = Ringway::start(&in_order(listen, service, &fleet));
        for _ in 0..3 {
            assert_eq!(get(listen, "/").unwrap().text(), "good");
        }
        assert_eq!((retries(&ringway), refused(&ringway, "retries_max")), (6.0, 0.0));
    }
}

#[test]
fn a_retry_that_retries_max_refuses_is_counted_as_that_and_the_place_comes_back() {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let held = Arc::clone(&gate);
    let slow = scripted(move |head| {
        if head.starts_with("GET /held") {
            drop(held.lock());
        }
        response("200 OK", "", "slow")
    });
    let a = scripted(|head| if head.contains("/reset") { String::new() } else { response(BAD, "", "a") });
    let listen = free_address();
    let service = "retry: { on: [ gateway ] }\nlimits: { retries_max: 1 }";
    let ringway = Ringway::start(&in_order(listen, service, &[("a", a.address), ("b", slow.address)]));
    let mut first = send(listen, b"GET /held HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    wait_for("the one retry to be under way", || (slow.requests().len() == 1).then_some(()));
    for _ in 0..3 {
        assert_eq!(get(listen, "/").unwrap().text(), "a");
    }
    assert_eq!((retries(&ringway), refused(&ringway, "retries_max"), refused(&ringway, "budget")), (1.0, 3.0, 0.0));
    drop(closed);
    assert_eq!(read_answer(&mut first, true).unwrap().text(), "slow");
    wait_for("the place of the retry", || (get(listen, "/")?.text() == "slow").then_some(()));
    assert_eq!(ringway.metric("ringway_retry_budget_exhausted_total{service=\"s\"}"), 0.0);
}

#[test]
fn the_back_off_is_waited_before_every_retry_and_doubles() {
    for (first, second) in [(bad("a"), bad("b")), (closing(), closing()), (bad("a"), closing())] {
        let good = Backend::echo("good");
        let listen = free_address();
        let service = "retry: { on: [ gateway, reset ], backoff: 300ms }";
        let fleet = [("a", first.address), ("b", second.address), ("c", good.address)];
        let _ringway = Ringway::start(&in_order(listen, service, &fleet));
        let begin = Instant::now();
        assert_eq!(get(listen, "/").unwrap().text(), "good");
        // Half of 300 ms and half of 600 ms at least.
        assert!(begin.elapsed() >= Duration::from_millis(450), "{:?}", begin.elapsed());
    }
}

#[test]
fn during_the_back_off_no_place_is_held_and_the_answer_in_hand_is_not_lost() {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let held = Arc::clone(&gate);
    let b = scripted(move |_| {
        drop(held.lock());
        response("200 OK", "", "b")
    });
    let a = bad("a");
    let listen = free_address();
    let service = "retry: { on: [ gateway ], backoff: 3s }";
    let config = in_order(listen, service, &[("a", a.address), ("b", b.address)]);
    let ringway = Ringway::start(&config.replace("id: b,", "id: b, requests_max: 1,"));
    let mut first = send(listen, b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    wait_for("the first answer", || (a.requests().len() == 1).then_some(()));
    wait_for("its place to be free", || (in_flight(&ringway) == 0).then_some(()));
    assert!(b.requests().is_empty(), "the wait was over too early to be seen");
    wait_for("the retry", || (b.requests().len() == 1).then_some(()));
    // The other backend is full when the wait is over: what there is goes to the client.
    let answer = get(listen, "/2").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (503, "a"));
    assert_eq!(retries(&ringway), 1.0);
    drop(closed);
    assert_eq!(read_answer(&mut first, true).unwrap().text(), "b");
}

#[test]
fn an_answer_in_hand_is_not_held_back_for_a_retry_that_cannot_be() {
    for (what, service, alone) in [
        ("nobody else is there", "retry: { on: [ gateway ], backoff: 300s }", true),
        ("the deadline comes first", "retry: { on: [ gateway ], backoff: 300s }\ntimeouts: { request: 60s }", false),
        ("attempts are spent", "retry: { on: [ gateway ], backoff: 300s, attempts: 0 }", false),
        ("the budget is spent", "retry: { on: [ gateway ], backoff: 300s, budget: 0, budget_min: 0 }", false),
    ] {
        let (a, b) = (bad("a"), Backend::echo("b"));
        let listen = free_address();
        let both = [("a", a.address), ("b", b.address)];
        let fleet = if alone { &both[..1] } else { &both[..] };
        let ringway = Ringway::start(&in_order(listen, service, fleet));
        let answer = get(listen, "/").unwrap_or_else(|| panic!("{what}"));
        assert_eq!((answer.status, answer.text().as_str()), (503, "a"), "{what}");
        assert_eq!(retries(&ringway), 0.0, "{what}");
        assert_eq!(refused(&ringway, "budget"), f64::from(u8::from(what.starts_with("the budget"))), "{what}");
    }
}

#[test]
fn a_client_that_leaves_during_the_back_off_is_seen() {
    for a in [bad("a"), closing()] {
        let b = Backend::echo("b");
        let listen = free_address();
        let service = "retry: { on: [ gateway, reset ], backoff: 300s }\nlimits: { retries_max: 1 }";
        let ringway = Ringway::start(&in_order(listen, service, &[("a", a.address), ("b", b.address)]));
        for number in 1..=2 {
            let client = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            wait_for("the first try", || (a.requests().len() == number).then_some(()));
            wait_for("the wait", || (in_flight(&ringway) == 0).then_some(()));
            drop(client);
            let left = "ringway_proxy_errors_total{service=\"s\",reason=\"client_closed\"}";
            let page = || get(ringway.admin, "/metrics").or_not_yet().text();
            wait_for("the end", || page().contains(&format!("{left} {number}\n")).then_some(()));
        }
        // What it had of the limit has come back.
        assert_eq!(refused(&ringway, "retries_max"), 0.0);
        assert!(b.requests().is_empty());
    }
}

#[test]
fn peak_ewma_leaves_alone_a_backend_that_fails_fast() {
    let fast = |answer: &'static str| {
        Backend::custom(move |mut stream, seen| {
            while let Some((head, _)) = read_request(&mut stream) {
                seen.lock().unwrap().push(head);
                if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        })
    };
    for refusal in [
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
        // Closed without a word.
        "",
    ] {
        let refuser = fast(refusal);
        let good = |name: &'static str| {
            scripted(move |_| {
                takes(Duration::from_millis(10));
                response("200 OK", "", name)
            })
        };
        let (b, c, d) = (good("b"), good("c"), good("d"));
        let listen = free_address();
        let service = "balance: { policy: peak_ewma }\noutlier: { consecutive_failures: 0 }\nretry: { attempts: 0 }";
        let fleet = [("a", refuser.address), ("b", b.address), ("c", c.address), ("d", d.address)];
        let _ringway = Ringway::start(&simple(listen, service, &fleet));
        let bad = (0..200).filter(|_| get(listen, "/").unwrap().status != 200).count();
        assert!(bad <= 10, "{bad} of 200 for {refusal:?}");
        assert_eq!(refuser.requests().len(), bad);
    }
}

/// A body whose every part is told from the others.
fn numbered(length: usize) -> String {
    (0..)
        .map(|number| format!("{number:07},"))
        .flat_map(|text| text.into_bytes())
        .map(char::from)
        .take(length)
        .collect()
}

/// PUT of a body, in so many pieces that come one by one.
fn put(listen: SocketAddr, body: &str, chunked: bool, pieces: usize) -> Answer {
    let mut bytes = b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".to_vec();
    if chunked {
        bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in body.as_bytes().chunks(body.len().div_ceil(pieces * 20).max(8)) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    } else {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    }
    let mut pieces = bytes.chunks(bytes.len().div_ceil(pieces));
    let mut stream = send(listen, pieces.next().unwrap());
    for piece in pieces {
        takes(Duration::from_millis(2));
        let _ = stream.write_all(piece);
    }
    read_answer(&mut stream, true).unwrap()
}

/// Reads whole requests and closes without a word; or says 503.
fn reads_all(refuses: bool) -> Backend {
    Backend::custom(move |mut stream, seen| {
        while let Some((head, body)) = read_request(&mut stream) {
            seen.lock().unwrap().push(format!("{head}{}", String::from_utf8_lossy(&body)));
            if !refuses || stream.write_all(response(BAD, "", "a").as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_body_up_to_body_bytes_max_is_sent_again_however_it_came_and_a_longer_one_is_not() {
    // What is configured, what is sent, and whether it is sent again.
    for (field, length, again) in [
        ("", 10, true),
        ("", 9_000, true),
        ("", 16 * 1024, true),
        ("", 16 * 1024 + 1, false),
        ("", 200_000, false),
        (", body_bytes_max: 100KiB", 100_000, true),
        (", body_bytes_max: 4KiB", 4_096, true),
        (", body_bytes_max: 4KiB", 4_097, false),
        (", body_bytes_max: 0", 1, false),
    ] {
        for refuses in [false, true] {
            let (a, b) = (reads_all(refuses), Backend::echo("b"));
            let listen = free_address();
            let service = format!("retry: {{ on: [ reset, gateway ]{field} }}");
            let _ringway = Ringway::start(&in_order(listen, &service, &[("a", a.address), ("b", b.address)]));
            let body = numbered(length);
            for (number, (chunked, pieces)) in [(false, 1), (false, 40), (true, 1), (true, 40)].into_iter().enumerate()
            {
                let what = format!("{length} bytes{field}, chunked {chunked}, in {pieces}, refused {refuses}");
                let answer = put(listen, &body, chunked, pieces);
                let status = if again {
                    200
                } else if refuses {
                    503
                } else {
                    502
                };
                assert_eq!(answer.status, status, "{what}");
                assert!(a.requests()[number].ends_with(&format!("\r\n\r\n{body}")), "{what}");
                match again {
                    true => assert!(b.requests()[number].ends_with(&format!("\r\n\r\n{body}")), "{what}"),
                    false => assert!(b.requests().is_empty(), "{what}"),
                }
            }
        }
    }
}

#[test]
fn a_body_of_which_a_part_has_been_sent_is_sent_again_with_the_rest() {
    // Closes once it has the head and the first bytes of the body.
    let a = Backend::custom(|mut stream, seen| {
        let mut bytes = [0; 1_024];
        let mut got = Vec::new();
        while !got.windows(7).any(|window| window == b"0000100") {
            let Ok(count @ 1..) = std::io::Read::read(&mut stream, &mut bytes) else { return };
            got.extend_from_slice(&bytes[..count]);
        }
        seen.lock().unwrap().push(String::from_utf8_lossy(&got).into_owned());
    });
    let b = Backend::echo("b");
    let listen = free_address();
    let config = in_order(listen, "retry: { on: [ reset ] }", &[("a", a.address), ("b", b.address)]);
    let ringway = Ringway::start(&config);
    let body = numbered(16_000);
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut stream = send(listen, format!("{head}{}", &body[..2_000]).as_bytes());
    wait_for("the first try's end", || (a.requests().len() == 1).then_some(()));
    wait_for("the second try", || (retries(&ringway) == 1.0).then_some(()));
    stream.write_all(&body.as_bytes()[2_000..]).unwrap();
    assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);
    assert!(b.requests()[0].ends_with(&format!("\r\n\r\n{body}")));
}

#[test]
fn bodies_that_all_together_are_too_much_are_sent_but_not_sent_again() {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let held = Arc::clone(&gate);
    let a = Backend::custom(move |mut stream, seen| {
        while let Some((head, body)) = read_request(&mut stream) {
            seen.lock().unwrap().push(format!("{head}{}", body.len()));
            drop(held.lock());
            let _ = stream.write_all(response(BAD, "", "a").as_bytes());
        }
    });
    let b = Backend::echo("b");
    let listen = free_address();
    let service = "retry: { on: [ gateway ], body_bytes_max: 4MiB, budget: 100 }";
    let _ringway = Ringway::start(&in_order(listen, service, &[("a", a.address), ("b", b.address)]));
    let body = numbered(3_000_000);
    let clients: Vec<_> = (0..7)
        .map(|_| {
            let body = body.clone();
            std::thread::spawn(move || put(listen, &body, false, 1).status)
        })
        .collect();
    wait_for("all to have been sent", || (a.requests().len() == 7).then_some(()));
    drop(closed);
    let statuses: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    // Five times 3 MB fit into 16 MiB.
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5, "{statuses:?}");
    assert_eq!(put(listen, &body, false, 1).status, 200, "what was kept has been given back");
}

/// Takes no connections: its queue is full.
struct Hole {
    listener: std::net::TcpListener,
    _fill: Vec<std::net::TcpStream>,
}

impl Hole {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&listener).listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        Self { listener, _fill: (0..3).filter_map(connect).collect() }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }
}

#[test]
fn sessions_of_tcp_keep_to_the_limits_of_retries_and_wait_as_requests_do() {
    let (hole, good) = (Hole::new(), Backend::echo("good"));
    for (service, limit) in [
        ("limits: { retries_max: 0 }", "retries_max"),
        ("retry: { budget: 0, budget_min: 0 }", "budget"),
        ("limits: { retries_max: 1 }\nretry: { backoff: 1s }", ""),
    ] {
        let listen = free_address();
        let service = format!("timeouts: {{ connect: 300ms }}\n{service}");
        let fleet = [("a", hole.address()), ("b", good.address)];
        let config = in_order(listen, &service, &fleet).replace("service: s }", "protocol: tcp, service: s }");
        let ringway = Ringway::start(&config);
        let begin = Instant::now();
        let served = get(listen, "/").is_some();
        assert_eq!(served, limit.is_empty(), "{service}");
        if served {
            assert!(begin.elapsed() >= Duration::from_millis(500), "{:?}", begin.elapsed());
            // It is no retry any more once it is connected: the next may be one.
            assert!(get(listen, "/").is_some());
        } else {
            assert_eq!(refused(&ringway, limit), 1.0, "{service}");
        }
    }
}

/// Fails the first requests, so many, and serves those after.
fn fails_first(name: &'static str, times: usize, refusal: &'static str) -> Backend {
    let left = std::sync::atomic::AtomicUsize::new(times);
    let order = std::sync::atomic::Ordering::SeqCst;
    Backend::custom(move |mut stream, seen| {
        while let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head);
            let fails = left.fetch_update(order, order, |left| left.checked_sub(1)).is_ok();
            let answer = if fails { refusal.to_owned() } else { response("200 OK", "", name) };
            if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

const ONCE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

#[test]
fn a_retry_goes_where_the_request_has_been_only_if_told() {
    // How the backend fails, what is told, whether there is another, and who answers; how often each was asked.
    for (refusal, told, other, status, who, asked) in [
        (ONCE, "", false, 503, "", (1, 0)),
        ("", "", false, 502, "", (1, 0)),
        (ONCE, "same_backend: last_resort", false, 200, "a", (2, 0)),
        ("", "same_backend: last_resort", false, 200, "a", (2, 0)),
        (ONCE, "same_backend: always", false, 200, "a", (2, 0)),
        ("", "same_backend: always", false, 200, "a", (2, 0)),
        (ONCE, "", true, 200, "b", (1, 1)),
        (ONCE, "same_backend: last_resort", true, 200, "b", (1, 1)),
        ("", "same_backend: last_resort", true, 200, "b", (1, 1)),
        (ONCE, "same_backend: always", true, 200, "a", (2, 0)),
        ("", "same_backend: always", true, 200, "a", (2, 0)),
        (ONCE, "same_backend: always, attempts: 0", true, 503, "", (1, 0)),
        (ONCE, "same_backend: always, budget: 0, budget_min: 0", true, 503, "", (1, 0)),
    ] {
        let what = format!("{refusal:?} {told} {other}");
        let (a, b) = (fails_first("a", 1, refusal), Backend::echo("b"));
        let both = [("a", a.address), ("b", b.address)];
        let listen = free_address();
        let service = format!("retry: {{ on: [ gateway, reset, connect ], {told} }}").replace(",  }", " }");
        let fleet = if other { &both[..] } else { &both[..1] };
        let _ringway = Ringway::start(&in_order(listen, &service, fleet));
        let answer = get(listen, "/").unwrap();
        assert_eq!(answer.status, status, "{what}");
        assert!(status != 200 || answer.text() == who, "{what}: {}", answer.text());
        assert_eq!((a.requests().len(), b.requests().len()), asked, "{what}");
    }
}

#[test]
fn under_every_policy_the_last_resort_is_asked_again_and_attempts_hold() {
    for policy in ["ring", "maglev", "hrw", "round_robin", "random", "p2c", "least_request", "peak_ewma", "first"] {
        let fleet = [("a", fails_first("a", 2, ONCE)), ("b", fails_first("b", 2, ONCE))];
        let listen = free_address();
        let service = format!(
            "balance: {{ policy: {policy} }}\noutlier: {{ consecutive_failures: 0 }}\n\
             retry: {{ on: [ gateway ], same_backend: last_resort, attempts: 4, backoff: 10ms }}"
        );
        let ringway = Ringway::start(&simple(listen, &service, &targets(&fleet)));
        assert_eq!(get(listen, "/").unwrap().status, 200, "{policy}");
        let asked = [fleet[0].1.requests().len(), fleet[1].1.requests().len()];
        assert!(asked.iter().all(|count| *count >= 2) && asked.iter().sum::<usize>() <= 5, "{policy}: {asked:?}");
        assert_eq!(retries(&ringway) as usize + 1, asked.iter().sum::<usize>(), "{policy}");
    }
}

#[test]
fn a_backend_that_refuses_connections_is_asked_again_after_the_back_off_if_told() {
    for (protocol, told) in [("http", "last_resort"), ("http", "always"), ("tcp", "last_resort"), ("tcp", "always")] {
        let (listen, address) = (free_address(), free_address());
        let service = format!("retry: {{ same_backend: {told}, attempts: 8, backoff: 50ms }}");
        let config = in_order(listen, &service, &[("a", address)]);
        let config = config.replace("service: s }", &format!("protocol: {protocol}, service: s }}"));
        let ringway = Ringway::start(&config);
        let client = std::thread::spawn(move || get(listen, "/"));
        wait_for("a retry", || (retries(&ringway) >= 1.0).then_some(()));
        let back = Backend::on(std::net::TcpListener::bind(address).unwrap(), |mut stream, seen| {
            while let Some((head, _)) = read_request(&mut stream) {
                seen.lock().unwrap().push(head);
                let _ = stream.write_all(response("200 OK", "", "back").as_bytes());
            }
        });
        assert_eq!(client.join().unwrap().unwrap().text(), "back", "{protocol} {told}");
        assert_eq!(back.requests().len(), 1);
    }
}

#[test]
fn a_backend_at_its_retries_max_is_passed_by_for_retries_alone() {
    for third in [true, false] {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let held = Arc::clone(&gate);
        let b = scripted(move |_| {
            drop(held.lock());
            response("200 OK", "", "b")
        });
        let (a, c) =
            (scripted(|head| response(if head.contains("/ok") { "200 OK" } else { BAD }, "", "a")), Backend::echo("c"));
        let listen = free_address();
        let all = [("a", a.address), ("b", b.address), ("c", c.address)];
        let fleet = if third { &all[..] } else { &all[..2] };
        let config = in_order(listen, "retry: { on: [ gateway ] }", fleet);
        let ringway = Ringway::start(
            &config.replace("id: a,", "id: a, retries_max: 0,").replace("id: b,", "id: b, retries_max: 1,"),
        );
        let mut first = send(listen, b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        wait_for("the one retry to be under way", || (b.requests().len() == 1).then_some(()));
        for _ in 0..3 {
            let answer = get(listen, "/2").unwrap();
            let expected = if third { (200, "c") } else { (503, "a") };
            assert_eq!((answer.status, answer.text().as_str()), expected);
            // What is no retry goes where there are none to be.
            assert_eq!(get(listen, "/ok").unwrap().text(), "a");
        }
        assert_eq!(refused(&ringway, "backend_retries_max"), if third { 0.0 } else { 3.0 });
        drop(closed);
        assert_eq!(read_answer(&mut first, true).unwrap().text(), "b");
        wait_for("the place of the retry", || (get(listen, "/3")?.text() == "b").then_some(()));
    }
}

#[test]
fn a_backend_at_its_retries_max_is_passed_by_also_behind_one_that_refuses() {
    let (a, c, d) = (bad("a"), Backend::echo("c"), Backend::echo("d"));
    let refusing = free_address();
    let listen = free_address();
    let service = "balance: { policy: first }\nretry: { attempts: 3, on: [ gateway, connect ], budget_min: 100 }\n\
                   outlier: { consecutive_failures: 0 }";
    let config = simple(listen, service, &[("a", a.address), ("b", refusing), ("c", c.address), ("d", d.address)]);
    let _ringway = Ringway::start(&config.replace("id: c,", "id: c, retries_max: 0,"));
    for _ in 0..3 {
        assert_eq!(get(listen, "/").unwrap().text(), "d");
    }
    assert!(c.requests().is_empty());
}
