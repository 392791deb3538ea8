//! Clients that leave, stall or trickle: nobody works for who is gone, and nobody stays for ever.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::peers::*;
use crate::common::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A proxy that logs as JSON, and its log.
struct Logged {
    ringway: Ringway,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Logged {
    fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let ringway =
            Ringway::start(&format!("access_log: {{ format: json, target: \"{}\" }}\n{config}", file.display()));
        Self { ringway, file, _directory: directory }
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|line| serde_json::from_str(line.strip_suffix('\n')?).ok()).collect()
    }

    fn statuses(&self) -> Vec<(u64, String)> {
        let text = |line: &serde_json::Value| line["reason"].as_str().unwrap_or_default().to_owned();
        self.lines().iter().map(|line| (line["status"].as_u64().unwrap_or(0), text(line))).collect()
    }

    fn in_flight(&self) -> u64 {
        self.ringway.status()["services"][0]["in_flight"].as_u64().unwrap()
    }

    /// All that waited have left, and that is what the log says of them.
    fn all_left(&self, what: &str, count: usize) {
        wait_for(&format!("the log of who left: {what}"), || (self.lines().len() == count).then_some(()));
        let expected = vec![(499, "client_closed".to_owned()); count];
        assert_eq!(self.statuses(), expected, "{what}");
        wait_for("their places", || (self.in_flight() == 0).then_some(()));
        let failures = self.ringway.metric("ringway_backend_failures_total{service=\"s\",backend=\"a\"}");
        assert_eq!(failures, 0.0, "{what}: it is no fault of the backend's");
    }
}

/// Answers nothing; notes when its client, the proxy, has gone.
fn silent() -> Backend {
    Backend::custom(|mut stream, seen| {
        if let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head);
        }
        let _ = stream.read_to_end(&mut Vec::new());
        seen.lock().unwrap().push("gone".into());
    })
}

/// Ends a connection by a reset.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

const LONG: &str = "timeouts: { response: 300s, connect: 300s, body_idle: 300s }";

#[test]
fn a_client_that_leaves_before_its_answer_frees_its_place_at_once() {
    let get = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    let part = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf".to_owned();
    for (name, request) in [
        ("one request", get.clone()),
        ("a pipelined request behind it", format!("{get}GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("much behind it", format!("{get}{}", "x".repeat(15_000))),
        ("a body that is not whole", part),
    ] {
        for hard in [false, true] {
            let backend = silent();
            let listen = free_address();
            let proxy = Logged::start(&simple(listen, LONG, &[("a", backend.address)]));
            let clients: Vec<_> = (0..5).map(|_| send(listen, request.as_bytes())).collect();
            wait_for("requests in flight", || (proxy.in_flight() == 5).then_some(()));
            clients.into_iter().for_each(|client| if hard { reset(client) } else { drop(client) });
            proxy.all_left(name, 5);
            let gone = || backend.requests().iter().filter(|line| *line == "gone").count();
            wait_for("exchanges to be ended", || (gone() == backend.connections.load(Ordering::SeqCst)).then_some(()));
        }
    }
}

#[test]
fn a_client_that_breaks_its_request_off_once_its_answer_has_begun_frees_its_place_and_is_no_fault_of_the_backends() {
    // Begins to answer at once, and ends its answer with the request.
    let backend = Backend::custom(|mut stream, seen| {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
            head.push(byte[0]);
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\nbeginning.");
        let _ = stream.read_to_end(&mut Vec::new());
        seen.lock().unwrap().push("gone".into());
    });
    let listen = free_address();
    let service = format!("outlier: {{ consecutive_failures: 3 }}\n{LONG}");
    let config = simple(listen, &service, &[("a", backend.address)]);
    let proxy = Logged::start(&config.replace("service: s", "body_bytes_max: 1KiB, service: s"));
    let sized = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc";
    let chunked = "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let long = format!("800\r\n{}\r\n", "x".repeat(0x800));
    type Breaks<'a> = &'a dyn Fn(TcpStream) -> Option<TcpStream>;
    let says = |text: &str| {
        let text = text.to_owned();
        move |mut stream: TcpStream| {
            stream.write_all(text.as_bytes()).unwrap();
            Some(stream)
        }
    };
    let closes = |_: TcpStream| None;
    let resets = |stream: TcpStream| {
        reset(stream);
        None
    };
    let half_closes = |stream: TcpStream| {
        stream.shutdown(Shutdown::Write).unwrap();
        Some(stream)
    };
    let (spoils, passes) = (says("ZZ\r\n"), says(&long));
    let cases: [(&str, &str, Breaks<'_>, &str); 8] = [
        ("closes", sized, &closes, "client_closed"),
        ("resets", sized, &resets, "client_closed"),
        ("half-closes", sized, &half_closes, "client_closed"),
        ("closes, chunked", chunked, &closes, "client_closed"),
        ("resets, chunked", chunked, &resets, "client_closed"),
        ("half-closes, chunked", chunked, &half_closes, "client_closed"),
        ("spoils its chunks", chunked, &spoils, "chunk"),
        ("passes the limit", chunked, &passes, "body_too_large"),
    ];
    for (number, (name, request, breaks, reason)) in cases.into_iter().enumerate() {
        let mut client = send(listen, request.as_bytes());
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"beginning.") {
            client.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        let client = breaks(client);
        wait_for(&format!("the log: {name}"), || (proxy.lines().len() == number + 1).then_some(()));
        let (status, said) = proxy.statuses().pop().unwrap();
        assert!(status == 200 && said.contains(reason), "{name}: {status} {said}");
        // Half an answer looks like half of one.
        let rest = client.map(|mut client| client.read_to_end(&mut Vec::new()));
        assert!(rest.is_none_or(|rest| rest.is_err()), "{name}");
        wait_for(name, || (proxy.in_flight() == 0 && backend.requests().len() == number + 1).then_some(()));
    }
    let failures = proxy.ringway.metric("ringway_backend_failures_total{service=\"s\",backend=\"a\"}");
    assert_eq!((failures, &backend_status(&proxy.ringway, "a")["state"]), (0.0, &"up".into()));
}

#[test]
fn a_client_that_leaves_the_queue_frees_its_place_there() {
    let backend = silent();
    let listen = free_address();
    let service = format!("balance: {{ bounded_load: {{ all_full: queue, queue: {{ timeout: 300s }} }} }}\n{LONG}");
    let config = simple(listen, &service, &[("a", backend.address)]).replace("{ id:", "{ requests_max: 1, id:");
    let proxy = Logged::start(&config);
    let _first = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for("the first", || (proxy.in_flight() == 1).then_some(()));
    let waiting = || proxy.ringway.status()["services"][0]["waiting"].as_u64().unwrap();
    let queued: Vec<_> = (0..4).map(|_| send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    wait_for("others to wait", || (waiting() == 4).then_some(()));
    drop(queued);
    wait_for("the queue to be empty", || (waiting() == 0).then_some(()));
    wait_for("the log", || (proxy.lines().len() == 4).then_some(()));
    assert_eq!(proxy.statuses(), vec![(499, "client_closed".to_owned()); 4]);
    assert_eq!((proxy.in_flight(), backend.requests().len()), (1, 1));
}

#[test]
fn a_client_that_leaves_between_two_tries_or_while_one_connects_is_noticed() {
    // Between two tries, of which the first was sent.
    let rude = Backend::says(b"");
    let listen = free_address();
    let service = format!("retry: {{ backoff: 300s, attempts: 3 }}\noutlier: {{ consecutive_failures: 0 }}\n{LONG}");
    let proxy = Logged::start(&simple(listen, &service, &[("a", rude.address), ("b", rude.address)]));
    let client = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let failures =
        |id: &str| proxy.ringway.metric(&format!("ringway_backend_failures_total{{service=\"s\",backend=\"{id}\"}}"));
    wait_for("the first try", || (failures("a") + failures("b") == 1.0).then_some(()));
    drop(client);
    wait_for("the log", || (proxy.lines().len() == 1).then_some(()));
    assert_eq!(proxy.statuses(), [(499, "client_closed".to_owned())]);
    // While a connection is opened: a listener whose queue is full takes no more handshakes.
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&hole).listen(0).unwrap();
    let address = hole.local_addr().unwrap();
    let _fill: Vec<_> =
        (0..3).filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()).collect();
    let listen = free_address();
    let proxy = Logged::start(&simple(listen, LONG, &[("a", address)]));
    let client = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for("the request", || (proxy.in_flight() == 1).then_some(()));
    drop(client);
    proxy.all_left("connecting", 1);
}

#[test]
fn a_client_that_leaves_while_two_tries_race_ends_both() {
    let (a, b) = (silent(), silent());
    let listen = free_address();
    let service = format!("balance: {{ policy: first }}\nhedge: {{ after: 50ms, budget: 100 }}\n{LONG}");
    let config = simple(listen, &service, &[("a", a.address), ("b", b.address)]).replace("workers: 2", "workers: 1");
    let proxy = Logged::start(&config);
    let client = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for("both tries", || (a.requests().len() == 1 && b.requests().len() == 1).then_some(()));
    drop(client);
    proxy.all_left("hedge", 1);
    wait_for("both exchanges to end", || (a.requests().len() == 2 && b.requests().len() == 2).then_some(()));
}

#[test]
fn a_goodbye_in_tls_is_leaving_too() {
    let (Some(certificates), Some(())) = (Certificates::new(), require_python("ssl")) else { return };
    certificates.issue("one", "DNS:one.test", "2");
    let backend = silent();
    let listen = free_address();
    let listeners = format!(
        "  - {{ name: web, address: \"{listen}\", service: s, tls: {{ certificates: [ {} ] }} }}\n",
        certificates.entry("one")
    );
    let proxy =
        Logged::start(&config(&listeners, &service("s", "timeouts: { response: 300s },", &[("a", backend.address)])));
    // It says goodbye and leaves TCP open until it is told to go.
    let script = "import socket, ssl, sys\n\
        context = ssl.create_default_context(cafile=sys.argv[2])\n\
        s = context.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1]))), server_hostname='one.test')\n\
        s.sendall(b'GET / HTTP/1.1\\r\\nHost: one.test\\r\\n\\r\\n')\n\
        sys.stdin.readline()\n\
        s.settimeout(0.2)\n\
        try: s.unwrap()\n\
        except OSError: pass\n\
        sys.stdin.readline()\n";
    let mut client = Running(
        Command::new("python3")
            .args(["-c", script, &listen.port().to_string(), &certificates.text("ca.pem")])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap(),
    );
    wait_for("the request", || (proxy.in_flight() == 1).then_some(()));
    let mut input = client.0.stdin.take().unwrap();
    input.write_all(b"\n").unwrap();
    proxy.all_left("close_notify", 1);
}

/// Answers when it is told to.
fn held() -> (Backend, Arc<AtomicBool>) {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let backend = Backend::custom(move |mut stream, seen| {
        while let Some((head, body)) = read_request(&mut stream) {
            seen.lock().unwrap().push(format!("{head}{}", String::from_utf8_lossy(&body)));
            wait_for("leave to answer", || gate.load(Ordering::SeqCst).then_some(()));
            let _ = stream.write_all(response("200 OK", "", "answer").as_bytes());
        }
    });
    (backend, open)
}

#[test]
fn a_half_closed_client_gets_its_answers_where_that_is_allowed() {
    let (backend, open) = held();
    let listen = free_address();
    let config = simple(listen, LONG, &[("a", backend.address)]);
    let allowed = config.replace("service: s }", "service: s, allow_half_close: true }");
    let proxy = Logged::start(&allowed);
    let two = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let mut client = send(listen, two);
    client.shutdown(Shutdown::Write).unwrap();
    // What is cut off is not whole, whatever is allowed.
    let cut = send(listen, b"POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na");
    cut.shutdown(Shutdown::Write).unwrap();
    wait_for("the cut-off request", || (proxy.statuses() == [(499, "client_closed".to_owned())]).then_some(()));
    wait_for("the first request", || (!backend.requests().is_empty()).then_some(()));
    open.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(read_answer(&mut client, true).unwrap().text(), "answer");
    }
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    // A reload takes the leave back.
    open.store(false, Ordering::SeqCst);
    let log = format!("access_log: {{ format: json, target: \"{}\" }}\n", proxy.file.display());
    proxy.ringway.reconfigure(&format!("{log}{config}"));
    let client = send(listen, b"GET /4 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.shutdown(Shutdown::Write).unwrap();
    let line = wait_for("it to be let go", || proxy.lines().into_iter().find(|line| line["target"] == "/4"));
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_closed".into()));
}

#[test]
fn a_client_that_says_no_more_once_its_answer_has_begun_gets_all_of_it() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let backend = Backend::custom(move |mut stream, _| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            wait_for("leave to go on", || gate.load(Ordering::SeqCst).then_some(()));
            let _ = stream.write_all(b"4\r\nlast\r\n0\r\n\r\n");
            let _ = stream.read(&mut [0]);
        }
    });
    let listen = free_address();
    let proxy = Logged::start(&simple(listen, LONG, &[("a", backend.address)]));
    let begun = |request: &[u8]| {
        let mut client = send(listen, request);
        let mut head = Vec::new();
        while !head.ends_with(b"first\r\n") {
            let mut byte = [0];
            assert_eq!(client.read(&mut byte).unwrap(), 1);
            head.push(byte[0]);
        }
        client
    };
    let mut quiet = begun(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    quiet.shutdown(Shutdown::Write).unwrap();
    // A reset is noticed even while the backend says nothing, also behind what was sent ahead.
    reset(begun(b"GET /r HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
    wait_for("the reset to be noticed", || (proxy.lines().len() == 1).then_some(()));
    assert_eq!(proxy.statuses(), [(200, "client_closed".to_owned())]);
    assert_eq!(proxy.in_flight(), 1);
    open.store(true, Ordering::SeqCst);
    let mut rest = String::new();
    quiet.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "4\r\nlast\r\n0\r\n\r\n");
}

/// An answer of 60 MB, which no kernel buffers.
fn bulk() -> Backend {
    Backend::custom(|mut stream, _| {
        while read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 62914560\r\n\r\n");
            let piece = vec![b'x'; 1 << 20];
            if (0..60).any(|_| stream.write_all(&piece).is_err()) {
                return;
            }
        }
    })
}

/// A client that cannot be sent much ahead.
fn narrow(listen: std::net::SocketAddr, bytes: &[u8]) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&listen.into()).unwrap();
    let mut stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(patience())).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

fn limited(timeouts: &str, backend: &Backend) -> (Logged, std::net::SocketAddr) {
    let listen = free_address();
    let config = simple(listen, "timeouts: { body_idle: 300s }", &[("a", backend.address)]);
    let proxy = Logged::start(&config.replace("service: s }", &format!("service: s, timeouts: {{ {timeouts} }} }}")));
    (proxy, listen)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_client_that_does_not_read_is_dropped() {
    let backend = bulk();
    for timeouts in ["body_idle: 1s, idle: 1s", "write_idle: 1s", "write_total: 1s", "rate_window: 1s"] {
        let (proxy, listen) = limited(timeouts, &backend);
        let _client = narrow(listen, GET);
        wait_for("it to be dropped", || (proxy.lines().len() == 1).then_some(()));
        assert_eq!(proxy.statuses(), [(200, "client_write_timeout".to_owned())], "{timeouts}");
        wait_for("its place", || (proxy.in_flight() == 0).then_some(()));
        let failures = proxy.ringway.metric("ringway_backend_failures_total{service=\"s\",backend=\"a\"}");
        assert_eq!(failures, 0.0, "it is no fault of the backend's");
    }
    // One stream of HTTP/2, whose window stays shut: GET, http, /, and `:authority: a` (RFC 7541, appendix A).
    let (proxy, listen) = limited("body_idle: 1s", &backend);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 5, 1, &[0x82, 0x86, 0x84, 0x41, 1, b'a']));
    let mut client = send(listen, &bytes);
    wait_for("it to be dropped", || (proxy.lines().len() == 1).then_some(()));
    assert_eq!(proxy.statuses(), [(200, "client_write_timeout".to_owned())]);
    let mut head = [0; 9];
    loop {
        client.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        client.read_exact(&mut payload).unwrap();
        if (head[3], head[8]) == (3, 1) {
            break;
        }
    }
}

/// Reads this much at a time, with pauses, until the end or the other side's patience is over. Gives how much came.
fn sip(stream: &mut TcpStream, bytes: usize, until: impl Fn() -> bool) -> usize {
    let (mut space, mut total) = (vec![0; bytes], 0);
    while !until() {
        match stream.read(&mut space) {
            Ok(0) | Err(_) => break,
            Ok(count) => total += count,
        }
        takes(Duration::from_millis(20));
    }
    total
}

#[test]
fn a_client_that_reads_too_slowly_is_dropped_and_a_slow_line_is_not() {
    let backend = bulk();
    let (proxy, listen) = limited("write_idle: 300s, write_rate_min: 50000000, rate_window: 1s", &backend);
    let mut client = narrow(listen, GET);
    sip(&mut client, 1000, || !proxy.lines().is_empty());
    wait_for("it to be dropped", || (proxy.lines().len() == 1).then_some(()));
    assert_eq!(proxy.statuses(), [(200, "client_write_timeout".to_owned())]);
    // Ten kilobytes a second, while all the proxy asks for is its defaults, measured ten times as often.
    let small = scripted(|_| response("200 OK", "", &"x".repeat(40_000)));
    let (proxy, listen) = limited("write_rate_min: 16, rate_window: 1s", &small);
    let mut client = narrow(listen, GET);
    assert!(sip(&mut client, 400, || !proxy.lines().is_empty() && proxy.in_flight() == 0) > 0);
    let mut rest = vec![0; 40_000];
    let _ = client.read(&mut rest);
    assert_eq!(proxy.statuses(), [(200, String::new())]);
}

#[test]
fn a_client_that_sends_too_slowly_is_answered_408() {
    let backend = Backend::echo("a");
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n";
    let trickle = |listen, fields: &str| {
        let mut stream = send(listen, format!("{head}{fields}\r\n").as_bytes());
        let mut reader = stream.try_clone().unwrap();
        let answer = std::thread::spawn(move || read_answer(&mut reader, true));
        for _ in 0..1000 {
            if answer.is_finished() || stream.write_all(b"x").is_err() {
                break;
            }
            takes(Duration::from_millis(2));
        }
        answer.join().unwrap()
    };
    for timeouts in ["read_rate_min: 100000, rate_window: 500ms", "body_total: 500ms"] {
        let (proxy, listen) = limited(timeouts, &backend);
        let answer = trickle(listen, "").unwrap();
        assert_eq!(
            (answer.status, answer.header("x-ringway-reason")),
            (408, Some("request_body_timeout")),
            "{timeouts}"
        );
        wait_for("the log", || (proxy.statuses() == [(408, "request_body_timeout".to_owned())]).then_some(()));
    }
    // Who waits for a 100 has not begun: there, only the pause counts.
    let slow = Backend::custom(|mut stream, _| {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head);
        takes(Duration::from_millis(1500));
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        let mut body = [0; 5];
        if stream.read_exact(&mut body).is_ok() {
            let _ = stream.write_all(response("200 OK", "", "done").as_bytes());
        }
    });
    let (_proxy, listen) = limited("read_rate_min: 100000, rate_window: 300ms", &slow);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut stream = send(listen, head.as_bytes());
    assert_eq!(read_answer(&mut stream, true).unwrap().status, 100);
    stream.write_all(b"hello").unwrap();
    assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);
    // A dialogue may be slow; and what the defaults ask for, any line has.
    let (_proxy, listen) = limited("read_rate_min: 100000, rate_window: 500ms", &backend);
    assert_eq!(trickle(listen, "Content-Type: application/grpc\r\n").unwrap().status, 200);
    let (_proxy, listen) = limited("rate_window: 1s", &backend);
    assert_eq!(trickle(listen, "").unwrap().status, 200);
}
