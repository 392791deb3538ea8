//! `reuse_connection`: one connection for many checks, and none that has ended makes a check fail.

use super::*;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// One backend, checked so over kept connections.
fn config(check: &str, listen: SocketAddr, backend: SocketAddr) -> String {
    let timeout = (500.0 * slowness()) as u64;
    let health = format!(
        "panic_threshold: 0\nhealth: {{ {check}, interval: 50ms, timeout: {timeout}ms, rise: 1, fall: 1, initial: down, \
         reuse_connection: true }}"
    );
    simple(listen, &health, &[("good", backend)])
}

fn checks(ringway: &Ringway, result: &str) -> f64 {
    ringway.counter(&format!("ringway_checks_total{{service=\"s\",result=\"{result}\"}}"))
}

/// Waits for so many more checks to succeed.
fn succeed(ringway: &Ringway, count: f64) {
    let begin = checks(ringway, "success");
    wait_for("checks", || (checks(ringway, "success") >= begin + count).then_some(()));
}

/// Passes on what comes to a server, and counts connections.
fn counting(server: SocketAddr) -> Backend {
    Backend::custom(move |stream, _| {
        let Ok(behind) = TcpStream::connect(server) else { return };
        let (mut from, mut to) = (stream.try_clone().unwrap(), behind.try_clone().unwrap());
        let up = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
        let _ = std::io::copy(&mut &behind, &mut &stream);
        let _ = stream.shutdown(std::net::Shutdown::Both);
        let _ = up.join();
    })
}

#[test]
fn many_checks_go_over_one_connection_whatever_frames_their_responses() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let backend = scripted(move |_| answer.to_owned());
        let ringway = Ringway::start(&config("http: { path: /well }", free_address(), backend.address));
        succeed(&ringway, 10.0);
        assert_eq!((backend.connections.load(SeqCst), checks(&ringway, "failure")), (1, 0.0), "{answer}");
        let seen = backend.requests();
        assert!(seen.iter().all(|head| head.starts_with("GET /well ") && !head.contains("connection:")), "{seen:?}");
    }
}

#[test]
fn a_backend_that_ends_its_connections_as_it_likes_fails_no_check() {
    // After the first response, after the third; told before or not; as a server that has timed out in between.
    let after = |most: usize, fields: &'static str| {
        Backend::custom(move |mut stream, _| {
            for _ in 0..most {
                if read_request(&mut stream).is_none() {
                    return;
                }
                let _ = stream.write_all(response("200 OK", fields, "well").as_bytes());
            }
        })
    };
    let until_close = Backend::says(b"HTTP/1.1 200 OK\r\n\r\nwell");
    // It takes the request, and closes without a word.
    let silent = Backend::custom(|mut stream, _| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(response("200 OK", "", "well").as_bytes());
            let _ = read_request(&mut stream);
        }
    });
    let closing = [after(1, ""), after(1, "connection: close\r\n"), after(3, ""), until_close, silent];
    for backend in &closing {
        let ringway = Ringway::start(&config("http: { body: well }", free_address(), backend.address));
        succeed(&ringway, 10.0);
        assert_eq!(checks(&ringway, "failure"), 0.0);
        assert!(backend.connections.load(SeqCst) >= 4);
    }
}

#[test]
fn a_server_that_stops_is_down_and_another_at_its_address_gets_a_fresh_connection() {
    let Some(mut fleet) = Nginx::fleet(1) else { return };
    let counted = counting(fleet[0].address);
    let ringway = Ringway::start(&config("http: {}", free_address(), counted.address));
    succeed(&ringway, 5.0);
    assert_eq!(counted.connections.load(SeqCst), 1);
    signal(fleet[0].pid(), "STOP");
    fails_with(&ringway, "good", "check: timed out");
    state(&ringway, "good", "down");
    signal(fleet[0].pid(), "CONT");
    state(&ringway, "good", "up");
    succeed(&ringway, 3.0);
    let before = counted.connections.load(SeqCst);
    // Another one takes its place between two checks, as far as they can tell, and only its end is seen.
    fleet[0].kill();
    fleet[0].bring_back();
    state(&ringway, "good", "up");
    succeed(&ringway, 5.0);
    assert!(counted.connections.load(SeqCst) > before);
}

#[test]
fn connections_go_with_their_backend_and_with_other_settings() {
    let open = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&open);
    let backend = Backend::custom(move |mut stream, seen| {
        counter.fetch_add(1, SeqCst);
        while let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head);
            let _ = stream.write_all(response("200 OK", "", "well").as_bytes());
        }
        counter.fetch_sub(1, SeqCst);
    });
    let (listen, other) = (free_address(), Backend::echo("b"));
    let text = config("http: {}", listen, backend.address);
    let ringway = Ringway::start(&text);
    succeed(&ringway, 5.0);
    // Other backends beside it leave it as it is.
    let more = format!("{text}      - {{ id: more, address: \"{}\" }}\n", other.address);
    ringway.reconfigure(&more);
    wait_for("the other to be checked", || (!other.requests().is_empty()).then_some(()));
    succeed(&ringway, 6.0);
    assert_eq!((open.load(SeqCst), backend.connections.load(SeqCst)), (1, 1));
    // Another request is another check.
    ringway.reconfigure(&config("http: { path: /other }", listen, backend.address));
    wait_for("a fresh connection", || (backend.connections.load(SeqCst) == 2).then_some(()));
    wait_for("the former one to end", || (open.load(SeqCst) == 1).then_some(()));
    // Another address, under the same id; then the backend goes.
    ringway.reconfigure(&config("http: { path: /other }", listen, other.address));
    wait_for("its connection to end", || (open.load(SeqCst) == 0).then_some(()));
    ringway.reconfigure(&config("http: {}", listen, backend.address));
    wait_for("a connection again", || (open.load(SeqCst) == 1).then_some(()));
    ringway.reconfigure(&config("http: {}", listen, other.address).replace("id: good", "id: another"));
    wait_for("it to go with its backend", || (open.load(SeqCst) == 0).then_some(()));
    // And without kept connections, each check has its own.
    ringway.reconfigure(
        &config("http: {}", listen, backend.address).replace("reuse_connection: true", "reuse_connection: false"),
    );
    let before = backend.connections.load(SeqCst);
    wait_for("a connection for each", || (backend.connections.load(SeqCst) >= before + 5).then_some(()));
    assert!(backend.requests().last().unwrap().contains("connection: close"));
}

#[test]
fn grpc_checks_share_a_connection_with_a_real_server() {
    if require("python3").is_none() || require_python("grpc_health.v1").is_none() {
        return;
    }
    let port = free_port();
    let start = || Command::new("python3").args(["-c", GRPC_SERVER, &port.to_string()]).stderr(Stdio::null()).spawn();
    let server = Running(start().unwrap());
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    wait_for("the gRPC server", || TcpStream::connect(address).ok());
    let counted = counting(address);
    let ringway = Ringway::start(&config("grpc: { service: good.Service }", free_address(), counted.address));
    succeed(&ringway, 10.0);
    assert_eq!((counted.connections.load(SeqCst), checks(&ringway, "failure")), (1, 0.0));
    drop(server);
    state(&ringway, "good", "down");
    let _server = Running(start().unwrap());
    state(&ringway, "good", "up");
    let before = counted.connections.load(SeqCst);
    succeed(&ringway, 5.0);
    assert_eq!(counted.connections.load(SeqCst), before);
}

const TLS_SERVER: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", -1
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"well")
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

#[test]
fn other_authorities_are_asked_of_a_fresh_handshake() {
    let (Some(certificates), Some(others)) = (Certificates::new(), Certificates::new()) else { return };
    if require("python3").is_none() {
        return;
    }
    certificates.issue("one", "DNS:one.test", "2");
    let (port, ca) = (free_port(), certificates.path("trusted.pem"));
    std::fs::copy(certificates.path("ca.pem"), &ca).unwrap();
    let (certificate, key) = (certificates.text("one.pem"), certificates.text("one.key"));
    let arguments = ["-c", TLS_SERVER, &port.to_string(), &certificate, &key];
    let _server = Running(Command::new("python3").args(arguments).stderr(Stdio::null()).spawn().unwrap());
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    wait_for("the server", || TcpStream::connect(address).ok());
    let counted = counting(address);
    let check = format!("http: {{}}, tls: {{ sni: one.test, ca: \"{}\" }}", ca.display());
    let ringway = Ringway::start(&config(&check, free_address(), counted.address));
    succeed(&ringway, 10.0);
    assert_eq!(counted.connections.load(SeqCst), 1);
    std::fs::copy(others.path("ca.pem"), &ca).unwrap();
    ringway.signal("HUP");
    fails_with(&ringway, "good", "check: TLS handshake failed");
    state(&ringway, "good", "down");
}
