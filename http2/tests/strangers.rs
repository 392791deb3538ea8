//! Other people's clients and servers, over sockets: h2load, nghttp, curl, nginx, Python's h2, gRPC's own implementation.
//!
//! The driver is as small as one can be; where a peer is not installed, a test says so and is skipped.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "sockets, files and other programs are what it is about")]

use crate::common::has;
use ringway_http2::hpack::encode;
use ringway_http2::{Config, Connection, Event, HeadKind, Memory, MemoryLimits, Role, StreamKey};
use ringway_message::{Method, RequestHead, ResponseHead};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than anything here takes, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

/// Drives a connection until it is over. `user` hears of all events.
async fn drive(
    mut connection: Connection,
    mut stream: TcpStream,
    mut user: impl FnMut(&mut Connection, Option<Event>),
) {
    let started = tokio::time::Instant::now();
    let (mut reader, mut writer) = stream.split();
    let mut read = vec![0; 16 * 1024];
    let mut held = Vec::new();
    loop {
        while let Some(event) = connection.poll_event() {
            user(&mut connection, Some(event));
        }
        user(&mut connection, None);
        if connection.is_over() && connection.output().is_empty() {
            return;
        }
        tokio::select! {
            count = reader.read(&mut read), if held.is_empty() => match count {
                Ok(0) | Err(_) => connection.handle_end(),
                Ok(count) => held.extend_from_slice(&read[..count]),
            },
            written = writer.write(connection.output()), if !connection.output().is_empty() => match written {
                Ok(count) => connection.advance_output(count),
                Err(_) => connection.handle_end(),
            },
        }
        let now = started.elapsed().as_millis() as u64;
        // An error is told by the events that follow.
        let taken = connection.handle_bytes(&held, now).unwrap_or(held.len());
        held.drain(..taken);
    }
}

/// What is still to be sent on a stream.
enum Reply {
    Bytes { sent: usize, length: usize },
    Echo { grpc: bool, begun: bool },
}

/// Answers `/size/N` with so many bytes, and `/echo` with what it is sent, and trailers.
#[derive(Default)]
struct Server {
    replies: HashMap<StreamKey, Reply>,
}

impl Server {
    fn handle(&mut self, connection: &mut Connection, event: Event) {
        match event {
            Event::Request { key, fault: None } => self.begin(connection, key),
            Event::Request { key, .. } | Event::Reset { key, .. } => {
                self.replies.remove(&key);
                connection.close(key);
            }
            Event::Data { key } | Event::End { key } | Event::Writable { key } => self.go_on(connection, key),
            _ => {}
        }
    }

    fn begin(&mut self, connection: &mut Connection, key: StreamKey) {
        let (mut head, mut arena) = (RequestHead::default(), Vec::new());
        assert!(connection.take_request(key, &mut head, &mut arena));
        let path = String::from_utf8(head.path.of(&arena).to_vec()).unwrap();
        let grpc = head.value_of(&arena, b"content-type").is_some_and(|value| value.starts_with(b"application/grpc"));
        let mut block = Vec::new();
        if head.expect_continue {
            encode::status(&mut block, 100);
            connection.send_head(key, &block, HeadKind::Informational, false).unwrap();
            block.clear();
        }
        encode::status(&mut block, 200);
        let reply = match path.strip_prefix("/size/") {
            Some(length) => {
                encode::field(&mut block, b"content-length", length.as_bytes(), false);
                Reply::Bytes { sent: 0, length: length.parse().unwrap() }
            }
            None => Reply::Echo { grpc, begun: false },
        };
        if matches!(reply, Reply::Bytes { .. }) {
            connection.send_head(key, &block, HeadKind::Final, false).unwrap();
        }
        self.replies.insert(key, reply);
        self.go_on(connection, key);
    }

    fn go_on(&mut self, connection: &mut Connection, key: StreamKey) {
        let Some(reply) = self.replies.get_mut(&key) else { return };
        let is_done = match reply {
            Reply::Bytes { sent, length } => loop {
                let bytes: Vec<u8> = (*sent..*length).take(50_000).map(byte).collect();
                let count = connection.send_data(key, &bytes, *sent + bytes.len() == *length).unwrap();
                *sent += count;
                if count < bytes.len() || *sent == *length {
                    break *sent == *length;
                }
            },
            Reply::Echo { grpc, begun } => {
                // nghttp sends nothing more if this comes right behind the head that it waited for.
                if !*begun && (connection.data_len(key) > 0 || connection.is_received(key)) {
                    *begun = true;
                    let mut block = Vec::new();
                    encode::status(&mut block, 200);
                    let kind = if *grpc { &b"application/grpc"[..] } else { b"text/plain" };
                    encode::field(&mut block, b"content-type", kind, false);
                    // Who has cancelled meanwhile is told of by an event of its own, which is next.
                    if connection.send_head(key, &block, HeadKind::Final, false).is_err() {
                        return;
                    }
                }
                echo(connection, key, *grpc).unwrap_or(false)
            }
        };
        if is_done {
            self.replies.remove(&key);
            connection.close(key);
        }
    }
}

/// Sends what has come back. Gives whether all has; nothing of a stream that its client has reset.
fn echo(connection: &mut Connection, key: StreamKey, grpc: bool) -> Option<bool> {
    loop {
        let bytes = connection.data(key).to_vec();
        if bytes.is_empty() {
            break;
        }
        let sent = connection.send_data(key, &bytes, false).ok()?;
        connection.consume(key, sent);
        if sent < bytes.len() {
            return Some(false);
        }
    }
    if !connection.is_received(key) {
        return Some(false);
    }
    let mut block = Vec::new();
    let name = if grpc { &b"grpc-status"[..] } else { b"x-echoed" };
    encode::field(&mut block, name, b"0", false);
    connection.send_head(key, &block, HeadKind::Trailers, true).ok()?;
    Some(true)
}

/// Serves on a free port for as long as `task` runs on a thread of its own, which is given the port's address.
fn with_server<T: Send + 'static>(task: impl FnOnce(SocketAddr) -> T + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let memory = Memory::new(MemoryLimits::default());
        let kept = Rc::clone(&memory);
        let accepting = tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let config = Config { extended_connect: true, ..Config::new(Role::Server) };
                let connection = Connection::new(config, Rc::clone(&memory));
                let mut server = Server::default();
                tokio::task::spawn_local(drive(connection, stream, move |connection, event| {
                    if let Some(event) = event {
                        server.handle(connection, event);
                    }
                }));
            }
        });
        let done = tokio::task::spawn_blocking(move || task(address));
        let done = tokio::time::timeout(PATIENCE, done).await.unwrap().unwrap();
        accepting.abort();
        let _ = accepting.await;
        drop(kept);
        done
    })
}

fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let Output { status, stdout, stderr } = Command::new(program).args(arguments).output().unwrap();
    (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[test]
fn h2load_is_answered_each_time() {
    if !has("h2load", &["--version"]) {
        return;
    }
    with_server(|address| {
        for (path, count, streams) in
            [("/size/128", "5000", "50"), ("/size/0", "500", "1"), ("/size/300000", "200", "10")]
        {
            let url = format!("http://{address}{path}");
            let (good, said) = run("h2load", &["-n", count, "-c", "4", "-m", streams, &url]);
            assert!(good && said.contains(&format!("{count} succeeded, 0 failed, 0 errored")), "{said}");
        }
    });
}

#[test]
fn h2load_with_windows_of_any_size_is_answered() {
    if !has("h2load", &["--version"]) {
        return;
    }
    with_server(|address| {
        for (bits, size) in [("1", "300"), ("10", "100000"), ("16", "100000"), ("30", "100000")] {
            let url = format!("http://{address}/size/{size}");
            let (good, said) = run("h2load", &["-n", "8", "-c", "2", "-m", "4", "-w", bits, "-W", "16", &url]);
            assert!(good && said.contains("8 succeeded, 0 failed, 0 errored"), "{bits} {said}");
        }
    });
}

#[test]
fn nghttp_gets_what_it_sends() {
    if !has("nghttp", &["--version"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    let body: Vec<u8> = (0..700_000).map(|at| b'a' + byte(at) % 26).collect();
    std::fs::File::create(&file).and_then(|mut file| std::io::Write::write_all(&mut file, &body)).unwrap();
    with_server(move |address| {
        let url = format!("http://{address}/echo");
        for more in [&["-w", "20"][..], &["-w", "5"], &["--continuation"], &["-b", "100"], &["--expect-continue"]] {
            let name = file.to_string_lossy();
            let arguments = [&["-d", &name], more, &[&url]].concat();
            let output = Command::new("nghttp").args(&arguments).output().unwrap();
            assert!(output.status.success() && output.stdout == body, "{arguments:?} {}", output.stdout.len());
        }
    });
}

#[test]
fn curl_gets_and_posts() {
    if !has("curl", &["--version"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    let body: Vec<u8> = (0..3_000_000).map(|at| b'a' + byte(at) % 26).collect();
    std::fs::File::create(&file).and_then(|mut file| std::io::Write::write_all(&mut file, &body)).unwrap();
    with_server(move |address| {
        let curl = |arguments: &[&str]| {
            let common = ["-sS", "--http2-prior-knowledge", "--max-time", "60"];
            let output = Command::new("curl").args(common).args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        let url = |path: &str| format!("http://{address}{path}");
        assert_eq!(curl(&[&url("/size/5000000")]).len(), 5_000_000);
        assert_eq!(curl(&["-I", "-w", "%{http_code}", &url("/size/0")]).len().min(1), 1);
        let sent = format!("@{}", file.to_string_lossy());
        assert!(curl(&["--data-binary", &sent, &url("/echo")]) == body);
    });
}

#[test]
fn grpcs_own_client_calls_and_streams() {
    if !has("python3", &["-c", "import grpc"]) {
        return;
    }
    let script = r#"
import grpc, sys
channel = grpc.insecure_channel(sys.argv[1])
unary = channel.unary_unary("/test.Echo/Unary")
for size in (0, 1, 100, 70_000, 1_000_000):
    body = bytes(index % 251 for index in range(size))
    assert unary(body, timeout=60) == body, size
many = channel.stream_stream("/test.Echo/Stream")
sent = [bytes([index % 251]) * (index * 37 % 5000) for index in range(500)]
assert list(many(iter(sent), timeout=60)) == sent
futures = [unary.future(b"x" * 1000, timeout=60) for _ in range(300)]
assert all(future.result() == b"x" * 1000 for future in futures)
call = many(iter([b"cancelled"]), timeout=60)
call.cancel()
assert unary(b"after", timeout=60) == b"after"
print("good")
"#;
    with_server(move |address| {
        let (good, said) = run("python3", &["-c", script, &address.to_string()]);
        assert!(good && said.contains("good"), "{said}");
    });
}

/// What a client of ours has got of one response.
#[derive(Default)]
struct Got {
    statuses: Vec<u16>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    ended: bool,
    reset: bool,
}

/// Sends requests to a server, all at once as far as it lets us, each with a body. Gives what came.
fn ask(address: SocketAddr, requests: Vec<(&'static str, String, Vec<u8>)>, grpc: bool) -> Vec<Got> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = TcpStream::connect(address).await.unwrap();
        let connection = Connection::new(Config::new(Role::Client), Memory::new(MemoryLimits::default()));
        let mut client = Client { requests, grpc, ..Client::default() };
        let driving = drive(connection, stream, |connection, event| client.handle(connection, event));
        tokio::time::timeout(PATIENCE, driving).await.expect("the exchanges end");
        client.got
    })
}

#[derive(Default)]
struct Client {
    requests: Vec<(&'static str, String, Vec<u8>)>,
    grpc: bool,
    got: Vec<Got>,
    /// By stream: which request, and how much of its body was sent.
    open: HashMap<StreamKey, (usize, usize)>,
}

impl Client {
    fn handle(&mut self, connection: &mut Connection, event: Option<Event>) {
        let Some(event) = event else { return self.open_more(connection) };
        match event {
            Event::Response { key } => {
                let (mut head, mut arena) = (ResponseHead::default(), Vec::new());
                while connection.take_response(key, &mut head, &mut arena) {
                    self.of(key).statuses.push(head.status);
                }
            }
            Event::Data { key } => {
                let bytes = connection.data(key).to_vec();
                connection.consume(key, bytes.len());
                self.of(key).body.extend(bytes);
                if connection.data_len(key) > 0 {
                    self.handle(connection, Some(event));
                }
            }
            Event::Trailers { key } => {
                let (mut fields, mut arena) = (Vec::new(), Vec::new());
                assert!(connection.take_trailers(key, &mut fields, &mut arena));
                let text = |span: ringway_message::Span| String::from_utf8_lossy(span.of(&arena)).into_owned();
                self.of(key).trailers = fields.iter().map(|field| (text(field.name), text(field.value))).collect();
            }
            Event::End { key } => {
                self.of(key).ended = true;
                self.open.remove(&key);
                connection.close(key);
            }
            Event::Reset { key, .. } => {
                self.of(key).reset = true;
                self.open.remove(&key);
                connection.close(key);
            }
            Event::Writable { key } => self.send(connection, key),
            _ => {}
        }
    }

    fn of(&mut self, key: StreamKey) -> &mut Got {
        &mut self.got[self.open[&key].0]
    }

    fn open_more(&mut self, connection: &mut Connection) {
        while connection.settings_came() && connection.has_capacity() && self.got.len() < self.requests.len() {
            let (method, path, body) = &self.requests[self.got.len()];
            let mut block = Vec::new();
            encode::method(&mut block, method.as_bytes());
            encode::scheme(&mut block, b"http");
            encode::path(&mut block, path.as_bytes(), false);
            encode::authority(&mut block, b"localhost", false);
            if self.grpc {
                encode::field(&mut block, b"content-type", b"application/grpc", false);
                encode::field(&mut block, b"te", b"trailers", false);
            }
            let key = connection.open(&block, body.is_empty(), Method::parse(method.as_bytes())).unwrap();
            self.open.insert(key, (self.got.len(), 0));
            self.got.push(Got::default());
            self.send(connection, key);
        }
        if self.open.is_empty() && self.got.len() == self.requests.len() {
            connection.go_away(true, ringway_http2::Reason::NoError);
        }
    }

    fn send(&mut self, connection: &mut Connection, key: StreamKey) {
        let (which, sent) = self.open.get_mut(&key).unwrap();
        let body = &self.requests[*which].2;
        while *sent < body.len() {
            let Ok(count) = connection.send_data(key, &body[*sent..], true) else { return };
            *sent += count;
            if *sent < body.len() {
                return;
            }
        }
    }
}

/// A program that serves, ended with its value.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Below the ports that the kernel gives to whoever connects: none of them takes it meanwhile. Each call gives another.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    let candidate = |_| {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        10_000 + (first.wrapping_add(step) % 20_000) as u16
    };
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..20_000).map(candidate).find(is_free).unwrap()
}

/// Waits until somebody listens there.
fn wait_for(address: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connecting = async {
            while TcpStream::connect(address).await.is_err() {
                // Between two looks.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, connecting).await.expect("a server");
    });
}

#[test]
fn nginx_serves_us() {
    if !has("nginx", &["-v"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let port = free_port();
    let put = |name: &str, bytes: &[u8]| {
        std::fs::File::create(root.join(name))
            .and_then(|mut file| std::io::Write::write_all(&mut file, bytes))
            .unwrap();
    };
    let large: Vec<u8> = (0..4_000_000).map(byte).collect();
    put("large", &large);
    put("small", b"small");
    put("empty", b"");
    let config = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/error;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; client_body_temp_path {root}/t; proxy_temp_path {root}/t; fastcgi_temp_path {root}/t;\n\
         uwsgi_temp_path {root}/t; scgi_temp_path {root}/t; keepalive_requests 100000;\n\
         server {{ listen 127.0.0.1:{port} http2; root {root}; location /post {{ return 200 taken; }} }} }}\n",
        root = root.display()
    );
    put("nginx.conf", config.as_bytes());
    let path = root.join("nginx.conf");
    let _nginx = Running(Command::new("nginx").arg("-c").arg(&path).spawn().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for(address);
    let mut requests = vec![("GET", "/large".to_owned(), Vec::new()), ("HEAD", "/large".to_owned(), Vec::new())];
    for index in 0..300 {
        requests.push(("GET", ["/small", "/empty", "/missing"][index % 3].to_owned(), Vec::new()));
    }
    requests.push(("GET", "/large".to_owned(), Vec::new()));
    let got = ask(address, requests, false);
    assert!(got.iter().all(|got| got.ended && !got.reset));
    assert!(got[0].body == large && got[302].body == large);
    assert!(got[1].body.is_empty() && got[1].statuses == [200]);
    for (index, got) in got[2..302].iter().enumerate() {
        let expected: (&[u16], &[u8]) = [(&[200][..], &b"small"[..]), (&[200], b""), (&[404], &got.body)][index % 3];
        assert_eq!((&got.statuses[..], &got.body[..]), expected);
    }
}

#[test]
fn pythons_h2_serves_us_with_trailers_and_informational_heads() {
    if !has("python3", &["-c", "import h2"]) {
        return;
    }
    let script = r#"
import socket, sys, h2.connection, h2.config, h2.events, h2.settings
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    client, _ = server.accept()
    h = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    h.initiate_connection()
    h.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 3, h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 777})
    bodies, waiting = {}, {}
    def flush(stream):
        body = waiting[stream]
        while body:
            room = min(h.local_flow_control_window(stream), h.max_outbound_frame_size)
            if room == 0:
                break
            h.send_data(stream, body[:room])
            body = body[room:]
        waiting[stream] = body
        if not body:
            del waiting[stream]
            h.send_headers(stream, [("x-trailer", "there")], end_stream=True)
    try:
        while True:
            client.sendall(h.data_to_send())
            data = client.recv(65536)
            if not data:
                break
            for event in h.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    bodies[event.stream_id] = b""
                elif isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data
                    h.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    h.send_headers(event.stream_id, [(":status", "103"), ("link", "</a>")])
                    h.send_headers(event.stream_id, [(":status", "200")])
                    waiting[event.stream_id] = bodies.pop(event.stream_id)
                    flush(event.stream_id)
                elif isinstance(event, h2.events.WindowUpdated):
                    for stream in ([event.stream_id] if event.stream_id else list(waiting)):
                        if stream in waiting:
                            flush(stream)
    except (OSError, h2.exceptions.ProtocolError) as error:
        print(error, file=sys.stderr)
"#;
    let port = free_port();
    let _server = Running(Command::new("python3").args(["-c", script, &port.to_string()]).spawn().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for(address);
    let body = |length: usize| (0..length).map(byte).collect::<Vec<u8>>();
    let lengths = [0, 1, 776, 777, 778, 100_000, 5, 300_000, 64, 65_536];
    let requests = lengths.iter().map(|length| ("POST", "/".to_owned(), body(*length))).collect();
    let got = ask(address, requests, false);
    for (got, length) in got.iter().zip(lengths) {
        assert!(got.ended && got.body == body(length), "{length} {}", got.body.len());
        assert_eq!(got.statuses, [103, 200]);
        assert_eq!(got.trailers, [("x-trailer".to_owned(), "there".to_owned())]);
    }
}

#[test]
fn grpcs_own_server_serves_us() {
    if !has("python3", &["-c", "import grpc"]) {
        return;
    }
    let script = r#"
import grpc, sys, time
from concurrent import futures
class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Echo(),))
server.add_insecure_port("127.0.0.1:" + sys.argv[1])
server.start()
server.wait_for_termination()
"#;
    let port = free_port();
    let _server = Running(Command::new("python3").args(["-c", script, &port.to_string()]).spawn().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for(address);
    let message = |length: usize| {
        let head = [&[0][..], &(length as u32).to_be_bytes()].concat();
        head.into_iter().chain((0..length).map(byte)).collect::<Vec<u8>>()
    };
    let lengths: Vec<usize> = (0..200).map(|index| [0, 1, 1000, 50_000, 1_000_000][index % 5]).collect();
    let requests = lengths.iter().map(|length| ("POST", "/test.Echo/Unary".to_owned(), message(*length))).collect();
    let got = ask(address, requests, true);
    for (got, length) in got.iter().zip(lengths) {
        assert!(got.ended && got.body == message(length), "{length} {} {:?}", got.body.len(), got.trailers);
        assert!(got.trailers.contains(&("grpc-status".to_owned(), "0".to_owned())), "{:?}", got.trailers);
    }
}
