//! Who waits for whom over HTTP/2: nobody for one that does not read, and nobody for ever.

use super::*;

#[test]
fn streams_that_are_not_read_leave_the_rest_of_a_backends_connection_to_others() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = scripted(|head| {
        let length = head.split(['/', ' ']).nth(2).and_then(|word| word.parse().ok()).unwrap_or(0);
        response("200 OK", "", &"x".repeat(length))
    });
    let (inner, front) = (free_address(), free_address());
    let listeners = format!(
        "  - {{ name: inner, address: \"{inner}\", service: plain }}\n  - {{ name: front, address: \"{front}\", service: h2 }}\n"
    );
    let services =
        service("plain", "", &[("a", backend.address)]) + &service("h2", "protocol: h2,", &[("inner", inner)]);
    let ringway = Ringway::start(&config(&listeners, &services).replace("workers: 2", "workers: 1"));
    let script = r#"
# Nothing of what they ask for may be sent to these; more than half of the connection's window lies in front of them.
held = Client(sys.argv[1], begin=False)
held.h.local_settings = h2.settings.Settings(client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
held.h.initiate_connection()
held.flush()
for _ in range(60):
    held.request(path="/8000000")
held.pump(lambda: False, 2)
other = Client(sys.argv[1])
stream = other.request(path="/8000000")
assert other.pump(lambda: other.over(stream), 60) and other.streams[stream]["data"] == 8_000_000, other.streams
"#;
    python_h2(script, &[&front.to_string()]);
    assert_eq!(ringway.metric("ringway_backend_connects_total{service=\"h2\",backend=\"inner\"}"), 1.0);
}

#[test]
fn a_client_that_reads_late_is_read_on_once_it_has() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = scripted(|head| match head.contains("/long") {
        true => response("200 OK", &format!("x-long: {}\r\n", "~".repeat(12_000)), ""),
        false => response("200 OK", "", "short"),
    });
    let listen = free_address();
    let listeners = format!("  - {{ name: web, address: \"{listen}\", service: s }}\n");
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let script = r#"
client = Client(sys.argv[1])
client.h.decoder.max_header_list_size = 10 ** 7
for _ in range(5):
    # More heads of answers than are kept for one that does not read; and the next request behind them.
    streams = [client.request(path="/long") for _ in range(60)]
    time.sleep(1)  # It does not read: time for all answers to wait.
    streams.append(client.request(path="/next"))
    assert client.pump(lambda: all(client.over(stream) for stream in streams), 30)
    assert all(client.status(stream) == 200 for stream in streams), client.streams
    client.streams.clear()
"#;
    python_h2(script, &[&listen.to_string()]);
    wait_for("all to be over", || (backend_status(&ringway, "a")["in_flight"] == 0).then_some(()));
}

#[test]
fn a_long_stream_is_told_of_a_drain_however_old_its_connection_is() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = Backend::custom(|mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        takes(patience());
    });
    let listen = free_address();
    // Its time for the first head is over long before the drain, and so is the time that it may idle.
    let listeners =
        format!("  - {{ name: web, address: \"{listen}\", service: s, timeouts: {{ head: 300ms, idle: 600ms }} }}\n");
    let text = format!("drain_timeout: 30s\n{}", config(&listeners, &service("s", "", &[("a", backend.address)])));
    let mut ringway = Ringway::start(&text);
    let script = r#"
client = Client(sys.argv[1])
stream = client.request()
assert client.pump(lambda: client.streams[stream]["data"] == 3)
assert not client.pump(lambda: client.goaway is not None or client.closed, 2), "it is served"
print("served", flush=True)
# The library takes nothing more once it has seen GOAWAY: its frame is looked for by hand.
client.socket.settimeout(20)
data = b""
def has_goaway():
    at = 0
    while len(data) >= at + 9:
        if data[at + 3] == 7:
            return True
        at += 9 + int.from_bytes(data[at:at + 3], "big")
    return False
while not has_goaway():
    more = client.socket.recv(65536)
    assert more, "the drain is told"
    data += more
client.h.reset_stream(stream, 8)
client.flush()
client.socket.close()
"#;
    let mut client = Command::new("python3")
        .args(["-c", &format!("{}{script}", include_str!("../../python/h2client.py")), &listen.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 6];
    client.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    ringway.signal("TERM");
    assert!(client.wait().unwrap().success());
    assert_eq!(ringway.wait(), 0);
}

#[test]
fn a_connection_that_has_not_asked_yet_may_idle_for_longer_than_a_head_may_take() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = scripted(|_| response("200 OK", "", "yes"));
    let listen = free_address();
    let listeners =
        format!("  - {{ name: web, address: \"{listen}\", service: s, timeouts: {{ head: 300ms, idle: 60s }} }}\n");
    let _ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let script = r#"
client = Client(sys.argv[1])
assert not client.pump(lambda: client.goaway is not None or client.closed, 2)
stream = client.request()
assert client.pump(lambda: client.over(stream)) and client.status(stream) == 200
"#;
    python_h2(script, &[&listen.to_string()]);
}

#[test]
fn a_client_that_trickles_its_body_is_told_so_in_either_version() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = Backend::custom(|mut stream, _| while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {});
    let listen = free_address();
    let listeners = format!(
        "  - {{ name: web, address: \"{listen}\", service: s, timeouts: {{ rate_window: 2s, body_idle: 60s }} }}\n"
    );
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let script = r#"
client = Client(sys.argv[1])
stream = client.request(method="POST", fields=[("content-length", "1000")], end=False)
for _ in range(40):
    client.h.send_data(stream, b"x")
    client.flush()
    if client.pump(lambda: client.status(stream), 0.5):
        break
assert client.status(stream) == 408, client.streams
"#;
    python_h2(script, &[&listen.to_string()]);
    wait_for("all to be over", || (backend_status(&ringway, "a")["in_flight"] == 0).then_some(()));
}

#[test]
fn a_tunnel_whose_client_has_gone_ends_although_its_backend_reads_nothing() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = Backend::custom(|mut stream, _| {
        let mut head = [0; 4096];
        let count = stream.read(&mut head).unwrap_or(0);
        if String::from_utf8_lossy(&head[..count]).to_ascii_lowercase().contains("upgrade: websocket") {
            let _ = stream.write_all(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: T71DLFqyO64kn9TBWmhc0Prvu0w=\r\n\r\n");
        }
        takes(patience());
    });
    let listen = free_address();
    let listeners =
        format!("  - {{ name: web, address: \"{listen}\", service: s, h2: {{ extended_connect: true }} }}\n");
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let script = r#"
for leaving in ["reset", "close"]:
    client = Client(sys.argv[1])
    stream = client.h.get_next_available_stream_id()
    client.streams[stream] = {"fields": None, "trailers": None, "data": 0, "ended": False, "reset": None}
    client.h.send_headers(stream, [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")])
    client.flush()
    assert client.pump(lambda: client.status(stream)) and client.status(stream) == 200
    # As much as anybody takes of it, and then nothing more is taken.
    while client.pump(lambda: client.h.local_flow_control_window(stream) > 0, 2):
        client.h.send_data(stream, b"x" * min(16384, client.h.local_flow_control_window(stream)))
        client.flush()
    if leaving == "reset":
        client.h.reset_stream(stream, 8)
        client.flush()
        client.pump(lambda: False, 0.5)
    else:
        client.socket.close()
"#;
    python_h2(script, &[&listen.to_string()]);
    wait_for("the tunnels to be over", || (backend_status(&ringway, "a")["in_flight"] == 0).then_some(()));
}

/// Interim answers before each answer, of so many bytes each: with all of them, more than is kept for a client that does not read.
const INTERIMS: usize = 15;
const INTERIM_BYTES: usize = 15_000;

#[test]
fn informational_responses_are_left_out_for_a_client_that_reads_none_and_the_response_comes_all_the_same() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = Backend::custom(|mut stream, seen| {
        while let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head);
            let interim = format!("HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n", "~".repeat(INTERIM_BYTES));
            let all = interim.repeat(INTERIMS) + &response("200 OK", "", "done");
            if stream.write_all(all.as_bytes()).is_err() {
                return;
            }
        }
    });
    let (inner, plain, shared) = (free_address(), free_address(), free_address());
    let listeners = format!(
        "  - {{ name: inner, address: \"{inner}\", service: plain }}\n  - {{ name: plain, address: \"{plain}\", service: plain }}\n\
         \x20 - {{ name: shared, address: \"{shared}\", service: shared }}\n"
    );
    let services =
        service("plain", "", &[("a", backend.address)]) + &service("shared", "protocol: h2,", &[("inner", inner)]);
    let ringway = Ringway::start(&config(&listeners, &services));
    // A client whose system takes little: what it does not read waits in the proxy.
    let script = r#"
def connect(address):
    host, port = address.rsplit(":", 1)
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    narrow.connect((host, int(port)))
    narrow.settimeout(60)
    return narrow

def wait():
    print("asked", flush=True)
    sys.stdin.readline()

version, address = sys.argv[1], sys.argv[2]
if version == "1":
    client = connect(address)
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    wait()
    got = b""
    while True:
        data = client.recv(65536)
        if not data:
            break
        got += data
    assert got.endswith(b"\r\n\r\ndone") and got.count(b"HTTP/1.1 200 OK") == 1, got[-200:]
    print(got.count(b"HTTP/1.1 103"))
else:
    create = socket.create_connection
    socket.create_connection = lambda to, *rest: connect("%s:%d" % to)
    client = Client(address)
    interims = 0
    take = client.take
    client.h.decoder.max_header_list_size = 10 ** 7
    streams = [client.request(path="/") for _ in range(20)]
    wait()
    count = client.h.receive_data
    def receive(data):
        global interims
        events = count(data)
        interims += sum(isinstance(event, h2.events.InformationalResponseReceived) for event in events)
        return events
    client.h.receive_data = receive
    assert client.pump(lambda: all(client.over(stream) for stream in streams), 60), client.streams
    assert all(client.status(stream) == 200 and client.streams[stream]["data"] == 4 for stream in streams), client.streams
    print(interims)
"#;
    let script = format!("{}{script}", include_str!("../../python/h2client.py"));
    // What may reach the client: what is kept for it, and what the system has taken meanwhile.
    for (version, streams, most) in [("1", 1, INTERIMS - 1), ("2", 20, 60)] {
        for (address, backends) in [(plain, &["a"][..]), (shared, &["a", "inner"])] {
            let before = backend.requests().len();
            let child = Command::new("python3")
                .args(["-c", &script, version, &address.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let mut child = Running(child.unwrap());
            wait_for("all to be asked", || (backend.requests().len() == before + streams).then_some(()));
            // Though the client reads nothing, its answers are taken from the backends to their end.
            wait_for("all answers", || {
                backends.iter().all(|id| backend_status(&ringway, id)["in_flight"] == 0).then_some(())
            });
            child.0.stdin.take().unwrap().write_all(b"\n").unwrap();
            let (mut said, mut error) = (String::new(), String::new());
            child.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            child.0.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            let interims: usize =
                said.lines().last().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{error}"));
            assert!((1..=most).contains(&interims), "HTTP/{version} by {backends:?}: {interims} interim answers");
        }
    }
}
