//! Clients that are slow, greedy or mean harm, and backends that do as they like: nobody else notices.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod floods;
mod names;
mod streams;
mod waiting;

use crate::common::peers::*;
use crate::common::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Runs a script of `tests/python` to its end; it must succeed.
fn python(script: &str, arguments: &[&str]) {
    let done = Command::new("python3").args(["-c", script]).args(arguments).output().unwrap();
    let (said, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}{error}");
}

#[test]
fn a_client_that_reads_slowly_over_tls_gets_all_of_it() {
    let (Some(certificates), Some(())) = (Certificates::new(), require_python("ssl")) else { return };
    certificates.issue("one", "DNS:one.test", "2");
    // As long as the path says.
    let backend = scripted(|head| {
        let length = head.split(['/', ' ']).nth(2).and_then(|word| word.parse().ok()).unwrap_or(0);
        response("200 OK", "", &"x".repeat(length))
    });
    let listen = free_address();
    let listeners = format!(
        "  - {{ name: web, address: \"{listen}\", service: s, timeouts: {{ idle: 300ms }}, tls: {{ certificates: [ {} ] }} }}\n",
        certificates.entry("one")
    );
    let _ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let script = include_str!("../python/slow_tls_reader.py");
    python(script, &[&listen.to_string(), &certificates.text("ca.pem")]);
}

/// As [`python`], with the client of HTTP/2 at hand.
pub(crate) fn python_h2(script: &str, arguments: &[&str]) {
    python(&format!("{}{script}", include_str!("../python/h2client.py")), arguments);
}

#[test]
fn what_follows_a_tunnel_that_was_not_opened_is_no_request() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = scripted(|head| {
        match head.split(' ').nth(1) {
        Some("/denied") => response("403 Forbidden", "", "no"),
        // It has not understood the key.
        Some("/forged") => "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n".into(),
        Some("/made") => response("201 Created", "", "made"),
        _ => response("200 OK", "", "yes"),
    }
    });
    let listen = free_address();
    let routes = ["ok", "denied", "forged", "made", "smuggled", "injected"]
        .map(|path| format!("{{ match: {{ path: /{path} }}, service: s }}"))
        .join(", ");
    let listeners = format!("  - {{ name: web, address: \"{listen}\", routes: [ {routes} ] }}\n");
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    python_h2(include_str!("../python/connect_data.py"), &[&listen.to_string()]);
    wait_for("all to be over", || (backend_status(&ringway, "a")["in_flight"] == 0).then_some(()));
    let seen = backend.requests();
    assert!(seen.iter().all(|head| !head.contains("smuggled") && !head.contains("injected")), "{seen:?}");
    assert_eq!(seen.len(), 6, "{seen:?}");
}

#[test]
fn the_certificates_field_is_ringways_alone() {
    let (Some(certificates), Some(())) = (Certificates::new(), require("curl")) else { return };
    if require_python("h2").is_none() {
        return;
    }
    certificates.issue("one", "DNS:one.test,IP:127.0.0.1", "2");
    // Notes all that comes, trailers too.
    let backend = Backend::custom(|mut stream, seen| {
        let mut text = String::new();
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            text.push(char::from(byte[0]));
            let chunked = text.to_ascii_lowercase().contains("transfer-encoding: chunked");
            if text.ends_with("\r\n\r\n") && (!chunked || text.contains("\r\n0\r\n")) {
                seen.lock().unwrap().push(std::mem::take(&mut text));
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                    return;
                }
            }
        }
    });
    let (secure, plain, trusting) = (free_address(), free_address(), free_address());
    let ca = certificates.text("ca.pem");
    let listeners = format!(
        "  - {{ name: secure, address: \"{secure}\", service: s, tls: {{ certificates: [ {} ], \
         client: {{ ca: \"{ca}\", certificate: optional, header: X-Client-Cert-SHA256 }} }} }}\n\
         \x20 - {{ name: plain, address: \"{plain}\", service: s }}\n\
         \x20 - {{ name: trusting, address: \"{trusting}\", service: s, forwarded: {{ trusted: [ 127.0.0.1 ] }} }}\n",
        certificates.entry("one")
    );
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let forgeries = ["X-Client-Cert-SHA256: forged", "X_Client_Cert_SHA256: forged", "x-client_cert-sha256: forged"];
    let others = [
        "X_Forwarded_For: forged",
        "x_ringway-explain: forged",
        "X_Ringway_A_Name_Of_Some_Length: forged",
        "Transfer_Encoding: forged",
    ];
    for forgery in forgeries.iter().chain(&others) {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            assert_eq!(curl_body(&[version, "-H", forgery, &format!("http://{plain}/")]), "ok");
        }
        for version in ["--http1.1", "--http2"] {
            assert_eq!(curl_body(&[version, "--cacert", &ca, "-H", forgery, &format!("https://{secure}/")]), "ok");
        }
        let name = forgery.split(':').next().unwrap();
        let trailer = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\n0\r\n{name}: forged\r\nx-kept: kept\r\n\r\n"
        );
        assert!(raw(plain, trailer.as_bytes()).starts_with("HTTP/1.1 200"));
        assert!(raw(trusting, trailer.as_bytes()).starts_with("HTTP/1.1 200"));
        let script = "import sys\nclient = Client(sys.argv[1])\nstream = client.request(method='POST', end=False)\n\
            client.h.send_data(stream, b'ok')\n\
            client.h.send_headers(stream, [(sys.argv[2].lower(), 'forged'), ('x-kept', 'kept')], end_stream=True)\nclient.flush()\n\
            assert client.pump(lambda: client.over(stream)) and client.status(stream) == 200\n";
        python_h2(script, &[&plain.to_string(), name]);
    }
    let seen = backend.requests();
    assert!(seen.iter().all(|text| !text.contains("forged")), "{seen:?}");
    assert_eq!(seen.iter().filter(|text| text.contains("x-kept: kept")).count(), 3 * (forgeries.len() + others.len()));
    // A hop that is trusted has seen the certificate itself.
    assert_eq!(curl_body(&["-H", "X-Client-Cert-SHA256: told", &format!("http://{trusting}/")]), "ok");
    assert!(backend.requests().last().unwrap().contains("X-Client-Cert-SHA256: told"));
    drop(ringway);
}

#[test]
fn stalled_streams_hold_nobody_else_up() {
    if require_python("h2").is_none() {
        return;
    }
    // Reads no body of a request to /stuck; answers others at length or in short.
    let big = "x".repeat(2_000_000);
    let backend = Backend::custom(move |mut stream, _| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read(&mut byte), Ok(1)) {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if head.contains("/stuck") {
            takes(patience());
        }
        let mut body = vec![0; if head.starts_with("POST") { 100_000 } else { 0 }];
        let _ = stream.read_exact(&mut body);
        let body = if head.contains("/big") { &big } else { "small" };
        let _ = stream.write_all(response("200 OK", "connection: close\r\n", body).as_bytes());
    });
    let (inner, front) = (free_address(), free_address());
    let listeners = format!(
        "  - {{ name: inner, address: \"{inner}\", service: plain }}\n  - {{ name: front, address: \"{front}\", service: h2 }}\n"
    );
    let services =
        service("plain", "", &[("a", backend.address)]) + &service("h2", "protocol: h2,", &[("inner", inner)]);
    let text = config(&listeners, &services).replace("workers: 2", "workers: 1");
    let ringway = Ringway::start(&text);
    let script = r#"
stalled = Client(sys.argv[1], acknowledges=False)
streams = [stalled.request(path="/big") for _ in range(40)]
assert stalled.pump(lambda: all(stalled.status(stream) == 200 for stream in streams))
# As much as anybody lets through.
stalled.pump(lambda: False, 1)
other = Client(sys.argv[1])
stream = other.request(path="/small")
assert other.pump(lambda: other.over(stream), 10) and other.status(stream) == 200, other.streams

# The same upwards: one client's uploads, of which some are not taken.
uploads = Client(sys.argv[2])
def upload(path, length):
    stream = uploads.request(method="POST", path=path, fields=[("content-length", "100000" if path != "/stuck" else "5000000")], end=False)
    left = length
    while left:
        if not uploads.pump(lambda: uploads.h.local_flow_control_window(stream) > 0, 0.5 if path == "/stuck" else 10):
            return stream, left
        count = min(left, uploads.h.local_flow_control_window(stream), 16384)
        uploads.h.send_data(stream, b"x" * count, end_stream=count == left and path != "/stuck")
        uploads.flush()
        left -= count
    return stream, 0
for _ in range(3):
    upload("/stuck", 5_000_000)
for _ in range(20):
    upload("/stuck", 60_000)
stream, left = upload("/small", 100_000)
assert left == 0, left
assert uploads.pump(lambda: uploads.over(stream), 10) and uploads.status(stream) == 200, uploads.streams[stream]
"#;
    python_h2(script, &[&front.to_string(), &inner.to_string()]);
    assert_eq!(ringway.metric("ringway_backend_connects_total{service=\"h2\",backend=\"inner\"}"), 1.0);
}

/// A client of this kind does not let its connections end; they do all the same.
fn ends_in_spite_of(kind: &str) {
    let Some(certificates) = Certificates::new() else { return };
    if require_python("h2").is_none() {
        return;
    }
    certificates.issue("one", "DNS:one.test", "2");
    let backend = scripted(|head| {
        let length = head.split(['/', ' ']).nth(2).and_then(|word| word.parse().ok()).unwrap_or(0);
        response("200 OK", "", &"x".repeat(length))
    });
    let (plain, secure) = (free_address(), free_address());
    let listeners = format!(
        "  - {{ name: plain, address: \"{plain}\", service: s, timeouts: {{ idle: 300ms, write_idle: 2s }} }}\n\
         \x20 - {{ name: tls, address: \"{secure}\", service: s, timeouts: {{ idle: 300ms, write_idle: 2s }}, tls: {{ certificates: [ {} ] }} }}\n",
        certificates.entry("one")
    );
    let services = service("s", "timeouts: { body_idle: 500ms },", &[("a", backend.address)]);
    let ringway = Ringway::start(&config(&listeners, &services));
    let open = || ringway.metric("ringway_downstream_connections");
    let script = r#"
import ssl, threading
kind, address, ca = sys.argv[1:4]
held = []
if kind == "ping":
    # Says nothing to the PING that comes before the end.
    client = Client(address)
    stream = client.request(path="/5")
    assert client.pump(lambda: client.over(stream))
    held.append(client)
elif kind == "queue":
    # Lets everything be sent, and reads none of it.
    client = Client(address)
    client.h.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
    client.h.increment_flow_control_window(2**31 - 1 - 65535)
    client.flush()
    for _ in range(120):
        client.request(path="/65000", flush=False)
    client.flush()
    held.append(client)
else:
    context = ssl.create_default_context(cafile=ca)
    def ask(length):
        tcp = socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        host, port = address.rsplit(":", 1)
        tcp.connect((host, int(port)))
        connection = context.wrap_socket(tcp, server_hostname="one.test")
        connection.sendall(f"GET /{length} HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n".encode())
        held.append(connection)
    for length in range(2_400_000, 3_200_000, 12_000):
        ask(length)
print("sent", flush=True)
sys.stdin.read()
"#;
    let address = if kind == "tls" { secure } else { plain };
    let mut client = Command::new("python3")
        .args(["-c", &format!("{}{script}", include_str!("../python/h2client.py"))])
        .args([kind, &address.to_string(), &certificates.text("ca.pem")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 4];
    client.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    let mut client = Running(client);
    wait_for("the connections to be left", || (open() == 0.0).then_some(()));
    assert!(client.0.try_wait().unwrap().is_none(), "the client is still there");
}

#[test]
fn a_peer_that_answers_no_ping_is_left() {
    ends_in_spite_of("ping");
}

#[test]
fn a_peer_that_reads_no_queued_answers_is_left() {
    ends_in_spite_of("queue");
}

#[test]
fn a_peer_that_leaves_no_room_for_goodbye_is_left() {
    ends_in_spite_of("tls");
}

#[test]
fn what_http2_cannot_carry_is_no_fault_of_the_backends() {
    let backend = Backend::echo("a");
    let (inner, front) = (free_address(), free_address());
    let listeners = format!(
        "  - {{ name: inner, address: \"{inner}\", service: plain, h2: {{ extended_connect: false }} }}\n\
         \x20 - {{ name: front, address: \"{front}\", service: h2 }}\n"
    );
    let services = service("plain", "", &[("a", backend.address)])
        + &service("h2", "protocol: h2, outlier: { consecutive_failures: 3 },", &[("inner", inner)]);
    let ringway = Ringway::start(&config(&listeners, &services).replace("workers: 2", "workers: 1"));
    let ask = |target: &str, host: &str, fields: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        let answer = read_answer(&mut send(front, request.as_bytes()), true).unwrap();
        (answer.status, answer.header("x-ringway-reason").map(str::to_owned))
    };
    assert_eq!(ask("/", "a", "").0, 200);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGVzdHRlc3R0ZXN0dGVzdA==\r\n";
    for _ in 0..5 {
        // What HTTP/1.1 takes in targets and names of hosts, HTTP/2 carries as it stands.
        assert_eq!(ask("/a<b", "a", "").0, 200);
        assert_eq!(ask("/", "a%41", "").0, 200);
        assert_eq!(ask("/", "a", upgrade), (501, Some("upgrade_unsupported".to_owned())));
    }
    assert_eq!(ask("/", "a", "").0, 200);
    assert_eq!(ringway.metric("ringway_backend_failures_total{service=\"h2\",backend=\"inner\"}"), 0.0);
    assert_eq!(ringway.metric("ringway_backend_connects_total{service=\"h2\",backend=\"inner\"}"), 1.0);
    assert_eq!(backend_status(&ringway, "inner")["state"], "up");
}

#[test]
fn a_stream_that_a_backend_resets_costs_no_connection() {
    if require_python("h2").is_none() {
        return;
    }
    let (backend, front) = (free_address(), free_address());
    let script = r#"
import threading
def serve(connection):
    h = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    h.initiate_connection()
    connection.sendall(h.data_to_send())
    while data := connection.recv(65536):
        for event in h.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                if dict(event.headers)[":path"] == "/bad":
                    h.reset_stream(event.stream_id, 2)
                else:
                    h.send_headers(event.stream_id, [(":status", "200"), ("content-length", "0")], end_stream=True)
        connection.sendall(h.data_to_send())
host, port = sys.argv[1].rsplit(":", 1)
listener = socket.create_server((host, int(port)))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;
    let server = Command::new("python3")
        .args(["-c", &format!("{}{script}", include_str!("../python/h2client.py"))])
        .arg(backend.to_string())
        .spawn()
        .unwrap();
    let _server = Running(server);
    wait_for("the backend", || TcpStream::connect(backend).ok());
    let listeners = format!("  - {{ name: front, address: \"{front}\", service: h2 }}\n");
    let services = service("h2", "protocol: h2, retry: { attempts: 0 },", &[("x", backend)]);
    let ringway = Ringway::start(&config(&listeners, &services).replace("workers: 2", "workers: 1"));
    assert_eq!(get(front, "/good").unwrap().status, 200);
    assert_eq!(get(front, "/bad").unwrap().status, 502);
    assert_eq!(get(front, "/bad").unwrap().status, 502);
    assert_eq!(get(front, "/good").unwrap().status, 200);
    assert_eq!(ringway.metric("ringway_backend_connects_total{service=\"h2\",backend=\"x\"}"), 1.0);
}

#[test]
fn resets_and_floods_reach_no_backend_and_end_their_connection() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = scripted(|head| match head.contains("/slow") {
        true => {
            takes(std::time::Duration::from_secs(3));
            response("200 OK", "", "")
        }
        false => response("200 OK", "", &"x".repeat(3_000_000)),
    });
    let listen = free_address();
    let listeners = format!("  - {{ name: web, address: \"{listen}\", service: s }}\n");
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let script = r#"
import struct
def raw(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
address = sys.argv[1]
# Requests that are taken back at once, in bursts that no queue overflows from.
client = Client(address)
for burst in range(5):
    for _ in range(20):
        stream = client.request(path="/reset", flush=False)
        client.h.reset_stream(stream, 8)
    client.flush()
    client.pump(lambda: False, 0.3)
stream = client.request(path="/ordinary")
assert client.pump(lambda: client.over(stream)) and client.status(stream) == 200 and client.goaway is None
# More of that than anybody needs, though not so much at once.
for burst in range(400):
    for _ in range(20):
        stream = client.request(path="/reset", flush=False)
        client.h.reset_stream(stream, 8)
    try:
        client.flush()
    except OSError:
        break
    if client.pump(lambda: client.goaway is not None or client.closed, 0.01):
        break
assert client.goaway == 11, client.goaway

for name, frames in {
    "ping": raw(6, 0, 0, bytes(8)) * 1500,
    "settings": raw(4, 0, 0, b"") * 1500,
    "window": raw(8, 0, 0, bytes([0, 0, 0, 1])) * 1500,
    "empty": raw(0, 0, 1, b"") * 1500,
}.items():
    client = Client(address)
    if name == "empty":
        client.request(method="POST", path="/slow", end=False)
    try:
        client.socket.sendall(frames)
    except OSError:
        pass
    assert client.pump(lambda: client.goaway is not None), name
    assert client.goaway == 11, (name, client.goaway)

# Who takes much sends many windows.
client = Client(address)
for _ in range(3):
    stream = client.request(path="/long")
    assert client.pump(lambda: client.over(stream)) and client.streams[stream]["data"] == 3_000_000, client.streams

# A request that is cancelled while its backend works is one that was.
stream = client.request(path="/slow")
client.pump(lambda: False, 0.5)
client.h.reset_stream(stream, 8)
client.flush()
client.pump(lambda: False, 0.2)
"#;
    python_h2(script, &[&listen.to_string()]);
    assert!(backend.requests().iter().all(|head| !head.contains("/reset")), "{:?}", backend.requests().len());
    // Resets may also be too many at once for the library, which ends the connection the same way: who is first is chance.
    for reason in ["ping", "settings", "window", "empty_data"] {
        let line = format!("ringway_rejected_requests_total{{reason=\"http2_{reason}_flood\"}}");
        assert_eq!(ringway.metric(&line), 1.0, "{reason}");
    }
    let cancelled = || ringway.metric("ringway_proxy_errors_total{service=\"s\",reason=\"client_closed\"}");
    wait_for("the cancelled request to be counted", || (cancelled() >= 1.0).then_some(()));
}

#[test]
fn an_answer_that_broke_leaves_nothing_in_the_one_that_wins() {
    let wait = |millis| takes(std::time::Duration::from_millis(millis));
    let broken = Backend::custom(move |mut stream, _| {
        if read_request(&mut stream).is_some() {
            wait(1000);
            let _ =
                stream.write_all(b"HTTP/1.1 503 No\r\nx-first: 1\r\nretry-after: 9\r\ncontent-length: 10\r\n\r\nabc");
        }
    });
    let good = Backend::custom(move |mut stream, _| {
        if read_request(&mut stream).is_some() {
            wait(1000);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let listen = free_address();
    let service = "balance: { policy: first, affinity_cookie: { name: at, secret: 0123456789abcdef0123456789abcdef } }\nhedge: { after: 400ms, budget: 100 }\noutlier: { consecutive_failures: 1000 }";
    let targets = [("broken", broken.address), ("good", good.address)];
    let ringway = Ringway::start(&simple(listen, service, &targets).replace("workers: 2", "workers: 1"));
    let mut cookies = std::collections::HashSet::new();
    for _ in 0..4 {
        let answer = raw(listen, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        // A machine that stands still for a moment may see the first answer begin, and the second try given up.
        let whole = answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok");
        assert!(whole || answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert!(answer.matches("HTTP/1.1").count() == 1 && !answer.contains("x-first"), "{answer}");
        whole.then(|| {
            cookies.insert(answer.lines().find(|line| line.starts_with("set-cookie")).unwrap_or_default().to_owned())
        });
    }
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    assert!(ringway.metric("ringway_hedges_won_total{service=\"s\"}") >= 1.0);
}

#[test]
fn a_clients_deadline_is_no_fault_of_a_backend() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("one", "DNS:one.test", "2");
    let wait = |millis| takes(std::time::Duration::from_millis(millis));
    let backend = Backend::echo("a");
    let (inner, front, hedged) = (free_address(), free_address(), free_address());
    // A backend whose handshake takes its time.
    let slow = Backend::custom(move |stream, _| {
        wait(800);
        let Ok(behind) = TcpStream::connect(inner) else { return };
        let (mut from, mut to) = (stream.try_clone().unwrap(), behind.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut &behind, &mut &stream);
    });
    let silent = || Backend::custom(|mut stream, _| while read_request(&mut stream).is_some() {});
    let (first, second) = (silent(), silent());
    let listeners = format!(
        "  - {{ name: inner, address: \"{inner}\", service: plain, tls: {{ certificates: [ {} ] }} }}\n\
         \x20 - {{ name: front, address: \"{front}\", service: h2 }}\n\
         \x20 - {{ name: hedged, address: \"{hedged}\", service: hedged }}\n",
        certificates.entry("one")
    );
    let services = service("plain", "", &[("a", backend.address)])
        + &service(
            "h2",
            "protocol: h2, tls: { verify: false }, timeouts: { connect: 10s }, outlier: { consecutive_failures: 1 },",
            &[("slow", slow.address)],
        )
        + &service(
            "hedged",
            "hedge: { after: 50ms, budget: 100 }, outlier: { consecutive_failures: 1 },",
            &[("first", first.address), ("second", second.address)],
        );
    let ringway = Ringway::start(&config(&listeners, &services).replace("workers: 2", "workers: 1"));
    let hasty: Vec<_> = (0..3).map(|_| send(front, b"GET / HTTP/1.1\r\nHost: a\r\ngrpc-timeout: 1n\r\n\r\n")).collect();
    wait(20);
    assert_eq!(get(front, "/").unwrap().status, 200);
    for mut stream in hasty {
        let answer = read_answer(&mut stream, true).unwrap();
        assert_eq!((answer.status, answer.header("x-ringway-reason")), (504, Some("request_timeout")));
    }
    assert_eq!(slow.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    let answer = get_with(hedged, "/", "grpc-timeout: 500m\r\n").unwrap();
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (504, Some("request_timeout")));
    assert_eq!(ringway.metric("ringway_hedges_total{service=\"hedged\"}"), 1.0);
    // Nor of one that may not be ejected because it is the last.
    assert!(!ringway.log().contains("failures in a row"), "{}", ringway.log());
}

#[test]
fn a_stream_has_one_host_and_its_backends_grpc_status() {
    if require_python("h2").is_none() {
        return;
    }
    let backend = scripted(|_| {
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\nx-ringway-reason: theirs\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\ngrpc-status: 0\r\n\r\n"
            .to_owned()
    });
    let listen = free_address();
    let listeners = format!("  - {{ name: web, address: \"{listen}\", service: s }}\n");
    let _ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let script = r#"
client = Client(sys.argv[1])
stream = client.request([("content-type", "application/grpc"), ("te", "trailers")], method="POST")
assert client.pump(lambda: client.over(stream))
answer = client.streams[stream]
assert answer["data"] == 5 and answer["trailers"] == {"grpc-status": "0"} and "grpc-status" not in answer["fields"], answer
for hosts in (["b.test"], ["a.test", "b.test"], ["a.test", "a.test"], ["a.test:81"], [""]):
    stream = client.request([("host", host) for host in hosts], path="/differs")
    assert client.pump(lambda: client.over(stream))
    assert client.streams[stream]["reset"] == 1 and client.goaway is None, (hosts, client.streams[stream])
for hosts, authority in ((["A.test"], "a.test"), (["a.test"], None), ([], "a.test")):
    stream = client.request([("host", host) for host in hosts], path="/same", authority=authority)
    assert client.pump(lambda: client.over(stream)) and client.status(stream) == 200, (hosts, client.streams[stream])
"#;
    python_h2(script, &[&listen.to_string()]);
    let seen = backend.requests();
    assert!(seen.iter().all(|head| !head.contains("/differs") && head.matches("ost: ").count() == 2), "{seen:?}");
}

#[test]
fn connections_are_counted_for_the_client_that_a_proxy_header_names() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let listeners = format!(
        "  - {{ name: web, address: \"{listen}\", service: s, proxy_protocol: [ 127.0.0.1 ], connections_per_ip_max: 2 }}\n"
    );
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let connect = |client: &str| {
        let text = format!("PROXY TCP4 {client} 192.0.2.1 1000 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut stream = send(listen, text.as_bytes());
        let answer = read_answer(&mut stream, true).or_not_yet();
        (stream, answer.status, answer.header("x-ringway-reason").map(str::to_owned))
    };
    // Many clients behind one proxy.
    let many: Vec<_> = (1..=6).map(|host| connect(&format!("192.0.2.{host}"))).collect();
    assert!(many.iter().all(|(_, status, _)| *status == 200));
    // One client, by whichever way.
    let second = connect("192.0.2.1");
    assert_eq!(second.1, 200);
    let (_, status, reason) = connect("192.0.2.1");
    assert_eq!((status, reason.as_deref()), (429, Some("connections_per_ip")));
    drop(second);
    wait_for("a place to be free", || (connect("192.0.2.1").1 == 200).then_some(()));
    drop(many);
    wait_for("all to be gone", || (ringway.metric("ringway_downstream_connections") == 0.0).then_some(()));
}

#[test]
fn floods_that_the_library_ends_are_counted_as_floods() {
    let backend = Backend::custom(|mut stream, _| {
        // Reads heads, and no body.
        let _ = stream.read(&mut [0; 1024]);
        takes(patience());
    });
    let listen = free_address();
    let listeners = format!("  - {{ name: web, address: \"{listen}\", service: s }}\n");
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let head = [&[0x83, 0x86, 0x84, 0x41, 1][..], b"a"].concat();
    let start = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..]].concat();
    // CONTINUATION without end, each of a byte of a field's value.
    let begun = [&head[..], &[0x00, 1, b'x', 0x7f, 0xff, 0x7f]].concat();
    let continued = [frame(1, 0, 1, &begun), frame(9, 0, 1, b"y").repeat(2_000)].concat();
    // Data of a byte each.
    let tiny = [frame(1, 4, 1, &head), frame(0, 0, 1, b"z").repeat(60_000)].concat();
    for (reason, frames) in [("http2_continuation_flood", continued), ("http2_small_data_flood", tiny)] {
        let mut stream = send(listen, &[&start[..], &frames].concat());
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let line = format!("ringway_rejected_requests_total{{reason=\"{reason}\"}}");
        wait_for(reason, || {
            let text = get(ringway.admin, "/metrics")?.text();
            text.lines().any(|found| found == format!("{line} 1")).then_some(())
        });
    }
}

#[test]
fn handshakes_that_fail_are_counted_by_reason() {
    let (Some(certificates), Some(())) = (Certificates::new(), require("curl")) else { return };
    certificates.issue("one", "DNS:one.test", "2");
    let backend = Backend::echo("a");
    let listen = free_address();
    let listeners = format!(
        "  - {{ name: web, address: \"{listen}\", service: s, tls: {{ min_version: \"1.3\", unknown_sni: reject, \
         certificates: [ {} ] }} }}\n",
        certificates.entry("one")
    );
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let failed = |reason: &str| {
        let line = format!("ringway_tls_handshake_errors_total{{listener=\"web\",reason=\"{reason}\"}} 1");
        wait_for(reason, || get(ringway.admin, "/metrics")?.text().lines().any(|found| found == line).then_some(()));
    };
    let ask = |name: &str, more: &[&str]| {
        let resolve = format!("{name}:{}:127.0.0.1", listen.port());
        let url = format!("https://{name}:{}/", listen.port());
        let arguments = ["-sS", "--max-time", "10", "--resolve", &resolve, &url];
        assert!(!output("curl", &[&arguments[..], more].concat()).status.success());
    };
    ask("one.test", &[]);
    failed("alert_unknown_ca");
    ask("one.test", &["-k", "--tls-max", "1.2"]);
    failed("protocol_version");
    ask("other.test", &["-k"]);
    failed("unknown_server_name");
    let _ = raw(listen, b"\x16\x03\x01\x00\x05hello");
    failed("malformed");
    drop(send(listen, b"\x16\x03\x01"));
    failed("closed");
    assert_eq!(ringway.metric("ringway_rejected_requests_total{reason=\"tls_handshake\"}"), 5.0);
}
