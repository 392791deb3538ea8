//! HTTP/2 towards backends that go silent, refuse streams, take few of them, or say more after the body: backends written in frames.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::peers::*;
use crate::common::*;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const REFUSED_STREAM: u32 = 7;
/// `:status: 200`, in HPACK's static table.
const OK: &[u8] = &[0x88];

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// One side of an HTTP/2 connection, frame by frame.
struct Frames(TcpStream);

impl Frames {
    /// A backend's: says these settings, and how many streams it takes.
    fn serve(mut stream: TcpStream, streams_max: u32) -> Option<Self> {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        stream.read_exact(&mut [0; 24]).ok()?;
        let mut this = Self(stream);
        this.limit(streams_max);
        Some(this)
    }

    fn limit(&mut self, streams_max: u32) {
        self.send(SETTINGS, 0, 0, &[&[0, 3], &streams_max.to_be_bytes()[..]].concat());
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.0.write_all(&frame(kind, flags, stream, payload));
    }

    /// The next frame of a stream; settings and PINGs are acknowledged.
    fn next(&mut self) -> Option<Frame> {
        loop {
            let mut header = [0; 9];
            self.0.read_exact(&mut header).ok()?;
            let [high, middle, low, kind, flags, a, b, c, d] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            self.0.read_exact(&mut payload).ok()?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload),
                DATA | HEADERS | RST_STREAM => {
                    return Some(Frame { kind, flags, stream: u32::from_be_bytes([a, b, c, d]), payload });
                }
                _ => {}
            }
        }
    }

    /// The end of the next request: its stream.
    fn request(&mut self) -> Option<u32> {
        self.request_and_body().map(|(stream, _)| stream)
    }

    /// As [`Frames::request`], with the bytes of its body; one request at a time.
    fn request_and_body(&mut self) -> Option<(u32, Vec<u8>)> {
        let mut body = Vec::new();
        loop {
            let frame = self.next()?;
            if frame.kind == DATA && !frame.payload.is_empty() {
                body.extend_from_slice(&frame.payload);
                // Its window back.
                let count = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
                for stream in [0, frame.stream] {
                    self.send(WINDOW_UPDATE, 0, stream, &count);
                }
            }
            if frame.ends() {
                return Some((frame.stream, body));
            }
        }
    }

    fn answer(&mut self, stream: u32, body: &str) {
        self.send(HEADERS, END_HEADERS, stream, OK);
        self.send(DATA, END_STREAM, stream, body.as_bytes());
    }
}

/// An HTTP/2 backend that answers each request with its name.
fn h2_echo(name: &'static str) -> Backend {
    Backend::custom(move |stream, seen| {
        let Some(mut frames) = Frames::serve(stream, 100) else { return };
        while let Some(stream) = frames.request() {
            seen.lock().unwrap().push(name.to_owned());
            frames.answer(stream, name);
        }
    })
}

/// Forwards connections, until those that are open are to lose whatever is sent on them.
struct Relay {
    backend: Backend,
    dead_below: Arc<AtomicUsize>,
}

impl Relay {
    fn to(target: SocketAddr) -> Self {
        let (next, dead_below) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let dead = Arc::clone(&dead_below);
        let backend = Backend::custom(move |client, _| {
            let index = next.fetch_add(1, Ordering::SeqCst);
            let server = TcpStream::connect(target).unwrap();
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let forward = move |mut from: TcpStream, mut to: TcpStream, dead: Arc<AtomicUsize>| {
                let mut bytes = [0; 16 * 1024];
                loop {
                    let count = from.read(&mut bytes).unwrap_or(0);
                    if index < dead.load(Ordering::SeqCst) {
                        if count == 0 {
                            return;
                        }
                    } else if count == 0 || to.write_all(&bytes[..count]).is_err() {
                        let _ = to.shutdown(Shutdown::Both);
                        return;
                    }
                }
            };
            let lost = Arc::clone(&dead);
            std::thread::spawn(move || forward(from, to, lost));
            forward(server, client, Arc::clone(&dead));
        });
        Self { backend, dead_below }
    }

    /// From now on, nothing that is sent on the connections of before arrives.
    fn black_hole(&self) {
        self.dead_below.store(self.backend.connections.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// One listener, one service, one worker.
fn one_worker(listen: SocketAddr, text: &str, backends: &[(&str, SocketAddr)]) -> String {
    simple(listen, text, backends).replace("workers: 2", "workers: 1")
}

fn post(listen: SocketAddr, path: &str, body: &str) -> Answer {
    let length = body.len();
    let text = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
    read_answer(&mut send(listen, text.as_bytes()), true).unwrap()
}

#[test]
fn a_connection_that_has_gone_silent_is_left_after_one_time_out() {
    let backend = h2_echo("a");
    let relay = Relay::to(backend.address);
    let listen = free_address();
    // Neither ejection nor another backend helps.
    let text = "protocol: h2\noutlier: { consecutive_failures: 0 }\ntimeouts: { response: 1s }";
    let _ringway = Ringway::start(&one_worker(listen, text, &[("a", relay.backend.address)]));
    assert_eq!(get(listen, "/").unwrap().status, 200);
    relay.black_hole();
    let statuses: Vec<u16> = (0..20).map(|_| get(listen, "/").unwrap().status).collect();
    assert_eq!(statuses[0], 504, "{statuses:?}");
    assert!(statuses[1..].iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(relay.backend.connections.load(Ordering::SeqCst), 2);
}

#[test]
fn a_ping_finds_out_that_nobody_is_there_before_the_request_times_out() {
    let backend = h2_echo("a");
    let relay = Relay::to(backend.address);
    let listen = free_address();
    let text = "protocol: h2\nhttp2: { keepalive: { idle: 300ms, timeout: 300ms } }\ntimeouts: { response: 1h }\n\
                outlier: { consecutive_failures: 0 }";
    let ringway = Ringway::start(&one_worker(listen, text, &[("a", relay.backend.address)]));
    assert_eq!(get(listen, "/").unwrap().status, 200);
    relay.black_hole();
    // What may be sent twice is: the client sees nothing of it. What may not is a failed connection's.
    assert_eq!(get(listen, "/").unwrap().status, 200);
    relay.black_hole();
    let refused = post(listen, "/", "hi");
    assert_eq!((refused.status, refused.header("x-ringway-reason")), (502, Some("upstream_closed")));
    assert_eq!(post(listen, "/", "hi").status, 200);
    wait_for("dead connections to be closed", || (backend_status(&ringway, "a")["connections"] == 1).then_some(()));
}

#[test]
fn a_slow_backend_that_answers_pings_keeps_its_connection() {
    let pings = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pings);
    let backend = Backend::custom(move |mut stream, _| {
        stream.read_exact(&mut [0; 24]).unwrap();
        let mut frames = Frames(stream);
        frames.limit(100);
        let mut header = [0; 9];
        let mut waits = None;
        // Each request is answered after the second PING that came for it.
        while frames.0.read_exact(&mut header).is_ok() {
            let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
            frames.0.read_exact(&mut payload).unwrap();
            match (header[3], header[4] & 1) {
                (SETTINGS, 0) => frames.send(SETTINGS, ACK, 0, &[]),
                (HEADERS, _) => waits = Some((header[8], 0)),
                (PING, 0) => {
                    count.fetch_add(1, Ordering::SeqCst);
                    frames.send(PING, ACK, 0, &payload);
                    if let Some((stream, seen)) = waits.as_mut() {
                        *seen += 1;
                        if *seen == 2 {
                            frames.answer(u32::from(*stream), "slow");
                        }
                    }
                }
                _ => {}
            }
        }
    });
    let listen = free_address();
    let text = "protocol: h2\nhttp2: { keepalive: { idle: 100ms, timeout: 10s } }";
    let _ringway = Ringway::start(&one_worker(listen, text, &[("a", backend.address)]));
    for _ in 0..3 {
        assert_eq!(get(listen, "/").unwrap().text(), "slow");
    }
    assert_eq!(pings.load(Ordering::SeqCst), 6);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn pooled_http1_connections_that_have_gone_silent_cost_one_time_out_together() {
    let backend = Backend::custom(|mut stream, _| {
        while let Some((head, _)) = read_request(&mut stream) {
            if head.starts_with("GET /slow") {
                takes(Duration::from_millis(500));
            }
            if stream.write_all(response("200 OK", "", "a").as_bytes()).is_err() {
                return;
            }
        }
    });
    let relay = Relay::to(backend.address);
    let listen = free_address();
    let text = "outlier: { consecutive_failures: 0 }\ntimeouts: { response: 2s }";
    let ringway = Ringway::start(&one_worker(listen, text, &[("a", relay.backend.address)]));
    let slow: Vec<_> = (0..6).map(|_| std::thread::spawn(move || get(listen, "/slow").unwrap().status)).collect();
    assert!(slow.into_iter().all(|thread| thread.join().unwrap() == 200));
    let idle = || ringway.metric("ringway_upstream_idle_connections");
    wait_for("six pooled connections", || (idle() >= 4.0).then_some(()));
    relay.black_hole();
    let statuses: Vec<u16> = (0..10).map(|_| get(listen, "/").unwrap().status).collect();
    assert_eq!(statuses[0], 504, "{statuses:?}");
    assert!(statuses[1..].iter().all(|status| *status == 200), "{statuses:?}");
}

/// Two backends, of which the first is asked first.
fn first_of(listen: SocketAddr, a: &Backend, b: &Backend) -> String {
    let text = "protocol: h2\nbalance: { policy: first }\noutlier: { consecutive_failures: 0 }";
    one_worker(listen, text, &[("a", a.address), ("b", b.address)])
}

/// An HTTP/2 backend that answers each request with its body.
fn h2_mirror() -> Backend {
    Backend::custom(|stream, seen| {
        let Some(mut frames) = Frames::serve(stream, 100) else { return };
        while let Some((stream, body)) = frames.request_and_body() {
            let body = String::from_utf8(body).unwrap();
            seen.lock().unwrap().push(body.clone());
            frames.send(HEADERS, END_HEADERS, stream, OK);
            for piece in body.as_bytes().chunks(16 * 1024) {
                frames.send(DATA, 0, stream, piece);
            }
            frames.send(DATA, END_STREAM, stream, b"");
        }
    })
}

#[test]
fn a_refused_stream_is_tried_on_the_next_backend_whatever_the_method() {
    let refuses = Backend::custom(|stream, seen| {
        let Some(mut frames) = Frames::serve(stream, 100) else { return };
        while let Some((stream, body)) = frames.request_and_body() {
            seen.lock().unwrap().push(body.len().to_string());
            frames.send(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes());
        }
    });
    let takes = h2_mirror();
    let listen = free_address();
    let ringway = Ringway::start(&first_of(listen, &refuses, &takes));
    let answer = post(listen, "/", "hi");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
    // A body that comes in pieces after its head, with a length and in chunks.
    let long: String = ('a'..='z').cycle().take(16 * 1024).collect();
    for head in [format!("Content-Length: {}", long.len()), "Transfer-Encoding: chunked".to_owned()] {
        let mut stream = send(listen, format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n").as_bytes());
        for piece in long.as_bytes().chunks(5000) {
            if head.starts_with('T') {
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
            }
            stream.write_all(piece).unwrap();
            if head.starts_with('T') {
                stream.write_all(b"\r\n").unwrap();
            }
        }
        if head.starts_with('T') {
            stream.write_all(b"0\r\n\r\n").unwrap();
        }
        let answer = read_answer(&mut stream, true).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert_eq!(answer.text(), long);
    }
    // One that is longer than what is kept is told so.
    let answer = post(listen, "/", &long.repeat(3));
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (502, Some("stream_refused")));
    // And nobody was asked twice.
    let lengths: Vec<String> = [2, long.len(), long.len(), 3 * long.len()].map(|length| length.to_string()).into();
    assert_eq!(refuses.requests(), lengths);
    assert_eq!(takes.requests().len(), 3);
    assert_eq!(ringway.metric("ringway_retries_total{service=\"s\"}"), 3.0);
}

#[test]
fn a_call_of_grpc_that_was_refused_goes_to_the_next_backend() {
    if require("curl").is_none() {
        return;
    }
    let refuses = Backend::custom(|stream, seen| {
        let Some(mut frames) = Frames::serve(stream, 100) else { return };
        while let Some(frame) = frames.next() {
            if frame.kind == HEADERS {
                // Before its body has come.
                seen.lock().unwrap().push(String::new());
                frames.send(RST_STREAM, 0, frame.stream, &REFUSED_STREAM.to_be_bytes());
            }
        }
    });
    let takes = h2_mirror();
    let listen = free_address();
    let _ringway = Ringway::start(&first_of(listen, &refuses, &takes));
    let url = format!("http://{listen}/service/Method");
    let fields = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "content-length:"];
    for body in ["x".repeat(5), "y".repeat(9_000)] {
        let arguments = ["--http2-prior-knowledge", "--data-binary", &body, &url];
        assert_eq!(curl_body(&[&fields[..], &arguments].concat()), body);
    }
    assert_eq!(refuses.requests().len(), 2);
}

#[test]
fn goaway_says_which_requests_may_be_sent_elsewhere() {
    // Of every connection, the first request is not looked at.
    let going = Backend::custom(|stream, _| {
        let Some(mut frames) = Frames::serve(stream, 100) else { return };
        if frames.request().is_some() {
            frames.send(GOAWAY, 0, 0, &[0; 8]);
        }
    });
    let takes = h2_mirror();
    let listen = free_address();
    let ringway = Ringway::start(&first_of(listen, &going, &takes));
    let answer = post(listen, "/", "hi");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
    let connections = going.connections.load(Ordering::SeqCst);
    assert!((1..=3).contains(&connections), "{connections}");
    drop(ringway);
    // It is looked at, and the connection ends without an answer: nobody else may get it.
    let looks = Backend::custom(|stream, seen| {
        let Some(mut frames) = Frames::serve(stream, 100) else { return };
        if let Some(stream) = frames.request() {
            seen.lock().unwrap().push(String::new());
            frames.send(GOAWAY, 0, 0, &[&stream.to_be_bytes()[..], &[0; 4]].concat());
        }
    });
    let other = h2_mirror();
    let listen = free_address();
    let _ringway = Ringway::start(&first_of(listen, &looks, &other));
    assert_eq!(post(listen, "/", "hi").status, 502);
    assert_eq!((looks.requests().len(), other.requests().len()), (1, 0));
}

#[test]
fn a_post_on_a_reused_http1_connection_that_closes_is_sent_once() {
    // The second request of each connection is read, and the connection closed: it may have been processed.
    let closes = Backend::custom(|mut stream, seen| {
        for answers in [true, false] {
            let Some((head, _)) = read_request(&mut stream) else { return };
            seen.lock().unwrap().push(head);
            if answers {
                stream.write_all(response("200 OK", "", "a").as_bytes()).unwrap();
            }
        }
    });
    let other = Backend::echo("b");
    let listen = free_address();
    let text = "balance: { policy: first }\noutlier: { consecutive_failures: 0 }";
    let _ringway = Ringway::start(&one_worker(listen, text, &[("a", closes.address), ("b", other.address)]));
    assert_eq!(get(listen, "/").unwrap().status, 200);
    assert_eq!(post(listen, "/", "hi").status, 502);
    assert_eq!((closes.requests().len(), other.requests().len()), (2, 0));
}

#[test]
fn trailers_reach_the_other_side_whether_or_not_a_length_was_told() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = Backend::echo("a");
    let (h2, front, http1) = (free_address(), free_address(), free_address());
    let listeners = format!(
        "  - {{ name: front, address: \"{front}\", service: h2 }}\n  - {{ name: http1, address: \"{http1}\", service: plain }}\n"
    );
    let services = service("h2", "protocol: h2,", &[("h2", h2)]) + &service("plain", "", &[("a", backend.address)]);
    let _ringway = Ringway::start(&config(&listeners, &services).replace("workers: 2", "workers: 1"));
    let script = concat!(include_str!("../python/h2client.py"), include_str!("../python/trailers.py"));
    let addresses = [h2, front, http1].map(|address| address.to_string());
    let done = Command::new("python3").args(["-c", script]).args(addresses).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let seen = backend.requests();
    assert!(seen[0].contains("transfer-encoding: chunked") && seen[0].ends_with("abcx-sum: 1\r\n"), "{seen:?}");
}

#[test]
fn a_backend_that_takes_no_streams_is_passed_over_at_once() {
    let closed = Backend::custom(|stream, _| {
        let Some(mut frames) = Frames::serve(stream, 0) else { return };
        while let Some(stream) = frames.request() {
            frames.answer(stream, "a stream that it did not take");
        }
    });
    let takes = h2_mirror();
    let listen = free_address();
    let _ringway = Ringway::start(&first_of(listen, &closed, &takes));
    let begin = Instant::now();
    for _ in 0..10 {
        let answer = post(listen, "/", "hi");
        assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
    }
    // Not one of them has waited for a time-out.
    assert!(begin.elapsed() < Duration::from_secs(25).mul_f64(slowness()), "{:?}", begin.elapsed());
    assert!(closed.connections.load(Ordering::SeqCst) <= 10);
    // Where there is no other, that is said at once.
    let listen = free_address();
    let _ringway = Ringway::start(&one_worker(listen, "protocol: h2", &[("a", closed.address)]));
    let answer = get(listen, "/").unwrap();
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (502, Some("stream_refused")));
}

#[test]
fn a_connection_that_takes_no_more_streams_is_followed_by_another() {
    // Before each answer, the connection says that it takes no more.
    let backend = Backend::custom(|stream, _| {
        let Some(mut frames) = Frames::serve(stream, 100) else { return };
        while let Some(stream) = frames.request() {
            frames.limit(0);
            frames.answer(stream, "a");
        }
    });
    let listen = free_address();
    let _ringway = Ringway::start(&one_worker(listen, "protocol: h2", &[("a", backend.address)]));
    let begin = Instant::now();
    for _ in 0..5 {
        assert_eq!(post(listen, "/", "hi").status, 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(25).mul_f64(slowness()), "{:?}", begin.elapsed());
    assert_eq!(backend.connections.load(Ordering::SeqCst), 5);
}

#[test]
fn a_limit_that_falls_below_what_is_open_lets_that_end_and_sends_the_next_elsewhere() {
    // Of its first connection, three requests wait for the fourth, which comes on the second.
    let (gate, turn) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let opens = Arc::clone(&gate);
    let backend = Backend::custom(move |stream, seen| {
        let Some(mut frames) = Frames::serve(stream, 100) else { return };
        if turn.fetch_add(1, Ordering::SeqCst) == 0 {
            let streams: Vec<u32> = (0..3).map_while(|_| frames.request()).collect();
            frames.limit(1);
            // The acknowledgement tells that the limit is known.
            let mut header = [0; 9];
            frames.0.read_exact(&mut header).unwrap();
            seen.lock().unwrap().push(format!("{header:?}"));
            wait_for("the fourth", || (opens.load(Ordering::SeqCst) == 1).then_some(()));
            streams.into_iter().for_each(|stream| frames.answer(stream, "first"));
            let _ = frames.next();
        }
        while let Some(stream) = frames.request() {
            opens.store(1, Ordering::SeqCst);
            frames.answer(stream, "second");
        }
    });
    let listen = free_address();
    let _ringway = Ringway::start(&one_worker(listen, "protocol: h2", &[("a", backend.address)]));
    let three: Vec<_> = (0..3).map(|_| std::thread::spawn(move || post(listen, "/", "hi").text())).collect();
    wait_for("the limit to be known", || (backend.requests().len() == 1).then_some(()));
    assert_eq!(post(listen, "/", "hi").text(), "second");
    assert_eq!(gate.load(Ordering::SeqCst), 1);
    assert!(three.into_iter().all(|thread| thread.join().unwrap() == "first"));
}

#[test]
fn many_requests_at_once_get_as_many_connections_as_it_takes() {
    let backend = Backend::custom(|stream, _| {
        let Some(mut frames) = Frames::serve(stream, 1) else { return };
        while let Some(stream) = frames.request() {
            takes(Duration::from_millis(100));
            frames.answer(stream, "a");
        }
    });
    let listen = free_address();
    let _ringway = Ringway::start(&one_worker(listen, "protocol: h2", &[("a", backend.address)]));
    for _ in 0..2 {
        let many: Vec<_> = (0..20).map(|_| std::thread::spawn(move || post(listen, "/", "hi").status)).collect();
        assert!(many.into_iter().all(|thread| thread.join().unwrap() == 200));
    }
    let connections = backend.connections.load(Ordering::SeqCst);
    assert!((2..=20).contains(&connections), "{connections}");
}

#[test]
fn the_scheme_is_that_of_the_connection_to_the_backend() {
    let (Some(certificates), Some(())) = (Certificates::new(), require_python("h2")) else { return };
    certificates.issue("one", "DNS:one.test", "2");
    let script = r#"
import socket, ssl, sys, threading
import h2.config, h2.connection, h2.events
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[3], sys.argv[4])
context.set_alpn_protocols(["h2"])
def serve(connection, secure):
    if secure:
        connection = context.wrap_socket(connection, server_side=True)
    h = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    h.initiate_connection()
    connection.sendall(h.data_to_send())
    while data := connection.recv(65536):
        for event in h.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                scheme = dict(event.headers)[":scheme"]
                h.send_headers(event.stream_id, [(":status", "200"), ("x-scheme", scheme)], end_stream=True)
        connection.sendall(h.data_to_send())
def listen(address, secure):
    host, port = address.rsplit(":", 1)
    listener = socket.create_server((host, int(port)))
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0], secure), daemon=True).start()
threading.Thread(target=listen, args=(sys.argv[1], False), daemon=True).start()
listen(sys.argv[2], True)
"#;
    let (plain, secure) = (free_address(), free_address());
    let files = ["one.pem", "one.key"].map(|name| certificates.text(name));
    let addresses = [plain, secure].map(|address| address.to_string());
    let server = Command::new("python3").args(["-c", script]).args(&addresses).args(&files).spawn().unwrap();
    let _server = Running(server);
    for address in [plain, secure] {
        wait_for("the backend", || TcpStream::connect(address).ok());
    }
    let (front, over_tls) = (free_address(), free_address());
    let listeners = format!(
        "  - {{ name: plain, address: \"{front}\", service: plain }}\n  - {{ name: tls, address: \"{over_tls}\", service: tls }}\n"
    );
    let tls = format!("protocol: h2, tls: {{ ca: \"{}\", sni: one.test }},", certificates.text("ca.pem"));
    let services = service("plain", "protocol: h2,", &[("p", plain)]) + &service("tls", &tls, &[("s", secure)]);
    let _ringway = Ringway::start(&config(&listeners, &services));
    for (address, scheme) in [(front, "http"), (over_tls, "https")] {
        assert_eq!(get(address, "/").unwrap().header("x-scheme"), Some(scheme));
    }
}

/// A backend in HTTP/1.1 or HTTP/2 that answers each request, and notes the end of each connection.
fn notes_ends(protocol: &str) -> Backend {
    match protocol {
        "h2" => Backend::custom(|stream, seen| {
            let Some(mut frames) = Frames::serve(stream, 100) else { return };
            while let Some(stream) = frames.request() {
                frames.answer(stream, "a");
            }
            seen.lock().unwrap().push("end".into());
        }),
        _ => Backend::custom(|mut stream, seen| {
            while read_request(&mut stream).is_some() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na");
            }
            seen.lock().unwrap().push("end".into());
        }),
    }
}

#[test]
fn a_connection_carries_as_many_requests_as_it_may_and_is_closed_then() {
    if require("curl").is_none() {
        return;
    }
    for protocol in ["http1", "h2"] {
        let (backend, listen) = (notes_ends(protocol), free_address());
        let text = format!("protocol: {protocol}\npool: {{ requests_max: 10 }}");
        let _ringway = Ringway::start(&one_worker(listen, &text, &[("a", backend.address)]));
        let url = format!("http://{listen}/[1-100]");
        let curl = output("curl", &["-s", "-w", " %{http_code}", &url]);
        assert_eq!(String::from_utf8_lossy(&curl.stdout), "a 200".repeat(100), "{protocol}");
        // Ten each; one in a hundred has drawn nine.
        let connections = backend.connections.load(Ordering::SeqCst);
        assert!((10..=12).contains(&connections), "{protocol}: {connections}");
        wait_for("those that are full to be closed", || (backend.requests().len() + 1 >= connections).then_some(()));
    }
}

#[test]
fn a_connection_that_is_too_old_is_closed_though_nobody_asks_for_it() {
    for protocol in ["http1", "h2"] {
        let (backend, listen) = (notes_ends(protocol), free_address());
        let text = format!("protocol: {protocol}\npool: {{ age_max: 1s, idle_timeout: 1h }}");
        let _ringway = Ringway::start(&one_worker(listen, &text, &[("a", backend.address)]));
        assert_eq!(get(listen, "/").unwrap().status, 200);
        wait_for("the connection to be closed", || (backend.requests() == ["end"]).then_some(()));
    }
}

#[test]
fn a_request_outlives_the_age_of_its_connection_while_the_next_goes_on_another() {
    let (gate, turn) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let opens = Arc::clone(&gate);
    let backend = Backend::custom(move |stream, seen| {
        let Some(mut frames) = Frames::serve(stream, 100) else { return };
        let is_first = turn.fetch_add(1, Ordering::SeqCst) == 0;
        while let Some(stream) = frames.request() {
            if is_first {
                seen.lock().unwrap().push("asked".into());
                wait_for("the other to be answered", || (opens.load(Ordering::SeqCst) == 1).then_some(()));
            }
            frames.answer(stream, if is_first { "first" } else { "second" });
        }
        seen.lock().unwrap().push(if is_first { "first ended" } else { "second ended" }.into());
    });
    let listen = free_address();
    let text = "protocol: h2\npool: { age_max: 1s }";
    let _ringway = Ringway::start(&one_worker(listen, text, &[("a", backend.address)]));
    let slow = std::thread::spawn(move || get(listen, "/").unwrap().text());
    wait_for("the first request", || (backend.requests() == ["asked"]).then_some(()));
    // Nothing but its age changes meanwhile.
    takes(Duration::from_millis(1300));
    assert_eq!(get(listen, "/").unwrap().text(), "second");
    assert!(!backend.requests().iter().any(|noted| noted == "first ended"));
    gate.store(1, Ordering::SeqCst);
    assert_eq!(slow.join().unwrap(), "first");
    wait_for("its end", || backend.requests().iter().any(|noted| noted == "first ended").then_some(()));
}

/// Changes after which a connection to a backend is followed by another: the text before, and the text after.
const RENEWALS: [(&str, &str); 5] = [
    ("http2: {}", "http2: { keepalive: { idle: 7s } }"),
    ("http2: {}", "http2: { flood: { pings_max: 7 } }"),
    ("timeouts: { connect", "timeouts: { tcp_user_timeout: 7s, connect"),
    ("pool: {}", "pool: { age_max: 1s }"),
    ("pool: {}", "pool: { requests_max: 1 }"),
];

/// A service that may have one connection, and the same after a renewal.
fn of_one_connection(connect: &str, (old, new): (&str, &str), listen: SocketAddr, at: SocketAddr) -> (String, String) {
    let text = format!(
        "protocol: h2\nlimits: {{ connections_max: 1 }}\nhttp2: {{}}\npool: {{}}\ntimeouts: {{ connect: {connect} }}"
    );
    let config = one_worker(listen, &text, &[("a", at)]);
    assert!(config.contains(old));
    let renewed = config.replace(old, new);
    (config, renewed)
}

/// Puts it into force, and has every connection of before be past its time.
fn renew(ringway: &Ringway, after: &str) {
    ringway.reconfigure(after);
    if after.contains("age_max") {
        takes(Duration::from_millis(1300));
    }
}

#[test]
fn a_request_waits_for_the_end_of_a_connection_that_another_is_to_follow() {
    for renewal in RENEWALS {
        let (gate, turn) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let opens = Arc::clone(&gate);
        let backend = Backend::custom(move |stream, seen| {
            let Some(mut frames) = Frames::serve(stream, 100) else { return };
            let name = ["first", "second"][turn.fetch_add(1, Ordering::SeqCst)];
            while let Some(stream) = frames.request() {
                seen.lock().unwrap().push(name.into());
                wait_for("leave to answer", || (opens.load(Ordering::SeqCst) == 1).then_some(()));
                frames.answer(stream, name);
            }
        });
        let listen = free_address();
        let (before, after) = of_one_connection("1h", renewal, listen, backend.address);
        let ringway = Ringway::start(&before);
        let ask = || std::thread::spawn(move || get(listen, "/").unwrap().text());
        let first = ask();
        wait_for("the first request", || (backend.requests() == ["first"]).then_some(()));
        renew(&ringway, &after);
        let second = ask();
        wait_for("the second to wait", || (backend_status(&ringway, "a")["in_flight"] == 2).then_some(()));
        assert_eq!(backend_status(&ringway, "a")["connections"], 1, "{renewal:?}");
        gate.store(1, Ordering::SeqCst);
        assert_eq!((first.join().unwrap().as_str(), second.join().unwrap().as_str()), ("first", "second"));
    }
}

#[test]
fn a_connection_that_does_not_end_in_time_for_its_successor_serves_on() {
    for renewal in RENEWALS {
        // The first request is answered once the second has come, on the same connection.
        let backend = Backend::custom(|stream, seen| {
            let Some(mut frames) = Frames::serve(stream, 100) else { return };
            let Some(first) = frames.request() else { return };
            seen.lock().unwrap().push("first".into());
            let Some(second) = frames.request() else { return };
            frames.answer(second, "second");
            frames.answer(first, "first");
            let _ = frames.next();
        });
        let listen = free_address();
        let (before, after) = of_one_connection("500ms", renewal, listen, backend.address);
        let ringway = Ringway::start(&before);
        let first = std::thread::spawn(move || get(listen, "/").unwrap().text());
        wait_for("the first request", || (backend.requests() == ["first"]).then_some(()));
        renew(&ringway, &after);
        assert_eq!(get(listen, "/").unwrap().text(), "second", "{renewal:?}");
        assert_eq!(first.join().unwrap(), "first");
        assert_eq!(backend.connections.load(Ordering::SeqCst), 1, "{renewal:?}");
    }
}
