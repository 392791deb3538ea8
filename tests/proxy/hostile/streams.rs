//! What is wrong with one stream of HTTP/2 ends that stream, on either side, and nobody else's (RFC 9113, 8.1.1).

use super::*;

/// A backend that answers each stream by what stands in its path, and takes what it is sent.
const BACKEND: &str = r#"
import threading
def serve(connection):
    config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False)
    h = h2.connection.H2Connection(config)
    h.initiate_connection()
    connection.sendall(h.data_to_send())
    paths = {}
    def answer(stream):
        path = paths.pop(stream)
        ok = [(":status", "200"), ("x-for", path)]
        if path == "/linefeed":
            h.send_headers(stream, ok + [("x-bad", "a\nb: c")], end_stream=True)
        elif path == "/name":
            h.send_headers(stream, ok + [("x bad", "a")], end_stream=True)
        elif path == "/connection":
            h.send_headers(stream, ok + [("connection", "close")], end_stream=True)
        elif path == "/pseudo":
            h.send_headers(stream, [(":status", "200"), (":status", "201")], end_stream=True)
        elif path == "/late":
            h.send_headers(stream, [("x-for", path), (":status", "200")], end_stream=True)
        elif path == "/short":
            h.send_headers(stream, ok + [("content-length", "5")])
            h.send_data(stream, b"abc", end_stream=True)
        elif path == "/long":
            h.send_headers(stream, ok + [("content-length", "2")])
            h.send_data(stream, b"abc", end_stream=True)
        elif path == "/trailers":
            h.send_headers(stream, ok)
            h.send_data(stream, b"abc")
            h.send_headers(stream, [(":status", "200")], end_stream=True)
        else:
            h.send_headers(stream, ok + [("content-length", "2")])
            h.send_data(stream, b"ok", end_stream=True)
    while data := connection.recv(65536):
        for event in h.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                paths[event.stream_id] = dict(event.headers)[":path"]
            elif isinstance(event, h2.events.DataReceived):
                h.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                answer(event.stream_id)
        connection.sendall(h.data_to_send())
host, port = sys.argv[1].rsplit(":", 1)
listener = socket.create_server((host, int(port)))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

fn backend_h2() -> (Running, std::net::SocketAddr) {
    let address = free_address();
    let script = format!("{}{BACKEND}", include_str!("../../python/h2client.py"));
    let server = Command::new("python3").args(["-c", &script]).arg(address.to_string()).spawn().unwrap();
    wait_for("the backend", || TcpStream::connect(address).ok());
    (Running(server), address)
}

#[test]
fn what_is_wrong_with_one_response_ends_no_other_of_its_connection() {
    if require_python("h2").is_none() {
        return;
    }
    let (_server, backend) = backend_h2();
    let front = free_address();
    let listeners = format!("  - {{ name: front, address: \"{front}\", service: h2 }}\n");
    let services = service("h2", "protocol: h2, retry: { attempts: 0 },", &[("x", backend)]);
    let ringway = Ringway::start(&config(&listeners, &services).replace("workers: 2", "workers: 1"));
    // Twenty POSTs under way, then one that is answered badly, then the ends of all.
    let script = r#"
client = Client(sys.argv[1])
for bad in ["linefeed", "name", "connection", "pseudo", "late", "short", "long", "trailers"]:
    posts = [client.request(method="POST", path=f"/{bad}/{number}", end=False) for number in range(20)]
    wrong = client.request(method="POST", path="/" + bad, end=False)
    client.h.send_data(wrong, b"x", end_stream=True)
    client.flush()
    assert client.pump(lambda: client.over(wrong)), bad
    said = client.streams[wrong]
    if bad in ["short", "long", "trailers"]:
        # The head may have gone on already: the rest must look cut off.
        assert said["reset"] is not None or client.status(wrong) == 502, (bad, said)
    else:
        assert client.status(wrong) == 502, (bad, said)
    for stream in posts:
        client.h.send_data(stream, b"y" * 100, end_stream=True)
    client.flush()
    assert client.pump(lambda: all(client.over(stream) for stream in posts)), bad
    assert [client.status(stream) for stream in posts] == [200] * 20, (bad, [client.streams[stream] for stream in posts])
    assert client.goaway is None
"#;
    python_h2(script, &[&front.to_string()]);
    assert_eq!(ringway.metric("ringway_backend_connects_total{service=\"h2\",backend=\"x\"}"), 1.0);
    wait_for("all to be over", || (backend_status(&ringway, "x")["in_flight"] == 0).then_some(()));
}

#[test]
fn what_is_wrong_with_one_request_ends_no_other_of_its_connection() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = scripted(|head| response("200 OK", "", head.lines().next().unwrap_or_default()));
    let (_server, over_h2) = backend_h2();
    let (plain, h2) = (free_address(), free_address());
    let listeners = format!(
        "  - {{ name: plain, address: \"{plain}\", service: plain }}\n  - {{ name: h2, address: \"{h2}\", service: h2 }}\n"
    );
    let services = service("plain", "", &[("a", backend.address)]) + &service("h2", "protocol: h2,", &[("x", over_h2)]);
    let ringway = Ringway::start(&config(&listeners, &services).replace("workers: 2", "workers: 1"));
    let script = r#"
def wrong_heads():
    post = [(":method", "POST"), (":scheme", "http"), (":path", "/wrong"), (":authority", "a.test")]
    yield "line feed", post + [("x-bad", "a\nb: c")]
    yield "nul", post + [("x-bad", "a\0b")]
    yield "carriage return", post + [("x-bad", "a\rb")]
    yield "white space", post + [("x-bad", " a")]
    yield "name with a space", post + [("x bad", "a")]
    yield "name in upper case", post + [("X-Bad", "a")]
    yield "name that is empty", post + [("", "a")]
    yield "connection", post + [("connection", "close")]
    yield "transfer-encoding", post + [("transfer-encoding", "chunked")]
    yield "te", post + [("te", "gzip")]
    yield "pseudo twice", post + [(":path", "/other")]
    yield "pseudo late", post[:3] + [("x-a", "b"), post[3]]
    yield "pseudo unknown", post + [(":other", "b")]
    yield "status", post + [(":status", "200")]
    yield "no method", post[1:]
    yield "no path", post[:2] + post[3:]
    yield "empty path", [(name, "" if name == ":path" else value) for name, value in post]
    yield "another host", post + [("host", "b.test")]
    yield "two lengths", post + [("content-length", "1"), ("content-length", "2")]
    yield "length that is none", post + [("content-length", "+1")]
for address in sys.argv[1:]:
    client = Client(address)
    for what, head in wrong_heads():
        posts = [client.request(method="POST", path=f"/{number}", end=False) for number in range(20)]
        # With a field that the table is to remember in spite of the others.
        wrong = client.h.get_next_available_stream_id()
        client.streams[wrong] = {"fields": None, "trailers": None, "data": 0, "ended": False, "reset": None}
        client.h.send_headers(wrong, head + [("x-later", "what is remembered of " + what)], end_stream=True)
        client.flush()
        assert client.pump(lambda: client.over(wrong)), (what, client.streams[wrong])
        assert client.streams[wrong]["reset"] == 1, (what, client.streams[wrong])
        for stream in posts:
            client.h.send_data(stream, b"y" * 100, end_stream=True)
        later = client.request(fields=[("x-later", "what is remembered of " + what)], path="/later")
        client.flush()
        assert client.pump(lambda: all(client.over(stream) for stream in posts + [later])), what
        assert [client.status(stream) for stream in posts + [later]] == [200] * 21, (what, client.streams)
        assert client.goaway is None, what
    # Trailers with a pseudo-field; more data than was said, and less.
    for what in ["trailers", "more", "less"]:
        fields = [("content-length", "10")] if what != "trailers" else []
        posts = [client.request(method="POST", path=f"/{number}", end=False) for number in range(20)]
        wrong = client.request(method="POST", path="/wrong", fields=fields, end=False)
        client.h.send_data(wrong, b"x" * (11 if what == "more" else 3), end_stream=what != "trailers")
        if what == "trailers":
            block = client.h.encoder.encode([(":path", "/a"), ("x-a", "b")])
            client.flush()
            client.socket.sendall(len(block).to_bytes(3, "big") + b"\x01\x05" + wrong.to_bytes(4, "big") + block)
        client.flush()
        assert client.pump(lambda: client.over(wrong)), (what, client.streams[wrong])
        assert client.streams[wrong]["reset"] == 1, (what, client.streams[wrong])
        for stream in posts:
            client.h.send_data(stream, b"y" * 100, end_stream=True)
        client.flush()
        assert client.pump(lambda: all(client.over(stream) for stream in posts)), what
        assert [client.status(stream) for stream in posts] == [200] * 20 and client.goaway is None, what
"#;
    python_h2(script, &[&plain.to_string(), &h2.to_string()]);
    for id in ["a", "x"] {
        wait_for("all to be over", || (backend_status(&ringway, id)["in_flight"] == 0).then_some(()));
    }
    assert!(backend.requests().iter().all(|head| !head.contains("/wrong")), "no malformed request goes on");
}

#[test]
fn a_head_may_come_in_twenty_pieces_and_a_long_one_is_told_so() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = scripted(|head| response("200 OK", "", &head.len().to_string()));
    let listen = free_address();
    let listeners = format!("  - {{ name: web, address: \"{listen}\", service: s }}\n");
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let script = r#"
def send(client, fields, pieces):
    client.flush()
    stream = client.request(path="/", fields=fields, flush=False)
    frames, block = client.h.data_to_send(), b""
    while frames:
        length = int.from_bytes(frames[:3], "big")
        block, frames = block + frames[9:9 + length], frames[9 + length:]
    size = -(-len(block) // (pieces + 1))
    parts = [block[at:at + size] for at in range(0, len(block), size)]
    assert len(parts) == pieces + 1
    for number, part in enumerate(parts):
        kind, flags = (9, 0) if number else (1, 1)
        flags |= 4 if number == pieces else 0
        client.socket.sendall(len(part).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + part)
    return stream
client = Client(sys.argv[1])
for pieces in [1, 5, 20]:
    stream = send(client, [(f"x-{number}", "v" * 300) for number in range(60)], pieces)
    assert client.pump(lambda: client.over(stream)) and client.status(stream) == 200, (pieces, client.streams[stream], client.goaway)
# Past the listener's limit: its stream is answered, and the connection goes on.
stream = send(client, [(f"x-{number}", "v" * 1000) for number in range(40)], 5)
assert client.pump(lambda: client.over(stream)) and client.status(stream) == 431, (client.streams[stream], client.goaway)
stream = client.request(path="/after")
assert client.pump(lambda: client.over(stream)) and client.status(stream) == 200
"#;
    python_h2(script, &[&listen.to_string()]);
    wait_for("all to be over", || (backend_status(&ringway, "a")["in_flight"] == 0).then_some(()));
}

#[test]
fn who_goes_on_after_the_goodbye_is_not_read_for_long() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let listeners = format!("  - {{ name: web, address: \"{listen}\", service: s }}\n");
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
    let mut client = send(listen, &preface);
    let pings = frame(6, 0, 0, &[0; 8]).repeat(4_000);
    let mut written = 0;
    // As fast as it is taken; what comes back is not looked at.
    while written < 256 << 20 {
        match client.write(&pings) {
            Ok(count) => written += count,
            Err(_) => break,
        }
    }
    // What is read away, and what the systems of both hold.
    assert!(written < 32 << 20, "{written} bytes were taken after the goodbye");
    assert_eq!(ringway.metric("ringway_rejected_requests_total{reason=\"http2_ping_flood\"}"), 1.0);
    assert_eq!(get(listen, "/").unwrap().status, 200);
}

#[test]
fn who_floods_is_held_and_cannot_come_again_at_once() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let listeners = format!("  - {{ name: web, address: \"{listen}\", service: s }}\n");
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
    let begin = std::time::Instant::now();
    for round in 1..=3 {
        let mut client = send(listen, &preface);
        client.write_all(&frame(6, 0, 0, &[0; 8]).repeat(500)).unwrap();
        let mut said = Vec::new();
        // It hears why at once, and of the end only later; nobody else waits for it.
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&said).contains("http2_ping_flood") {
            let count = client.read(&mut buffer).unwrap();
            assert!(count > 0, "the end before the reason: {said:?}");
            said.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(get(listen, "/").unwrap().status, 200);
        while client.read(&mut buffer).is_ok_and(|count| count > 0) {}
        // Timers are no finer than some milliseconds.
        assert!(begin.elapsed() >= std::time::Duration::from_millis(900) * round, "{:?}", begin.elapsed());
    }
    assert_eq!(ringway.metric("ringway_rejected_requests_total{reason=\"http2_ping_flood\"}"), 3.0);
}
