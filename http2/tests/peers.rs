//! Over sockets, with clients and servers of strangers: curl, h2load and grpcio against ours as a server, nginx against ours as a client.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ringway_http2::hpack::encode;
use ringway_http2::{Config, Connection, Event, HeadKind, Memory, MemoryLimits, Role, StreamKey};
use ringway_message::{Method, RequestHead, ResponseHead};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_blocking, spawn_local};

/// What is answered to a request.
enum Job {
    /// So many bytes are left.
    Bytes(usize),
    /// What comes goes back; with these trailers.
    Echo { trailers: bool },
}

struct Server {
    connection: Connection,
    jobs: HashMap<StreamKey, Job>,
}

impl Server {
    fn handle(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Request { key, .. } => self.begin(key),
                Event::Data { key } | Event::End { key } | Event::Writable { key } => self.go_on(key),
                Event::Reset { key, .. } => {
                    self.jobs.remove(&key);
                    self.connection.close(key);
                }
                _ => {}
            }
        }
    }

    fn begin(&mut self, key: StreamKey) {
        let (mut head, mut arena) = (RequestHead::default(), Vec::new());
        assert!(self.connection.take_request(key, &mut head, &mut arena));
        let path = String::from_utf8_lossy(head.path.of(&arena)).into_owned();
        let mut block = Vec::new();
        encode::status(&mut block, 200);
        let job = match path.strip_prefix("/bytes/") {
            Some(count) => {
                encode::field(&mut block, b"content-length", count.as_bytes(), false);
                Job::Bytes(count.parse().unwrap())
            }
            None => {
                let kind = head.value_of(&arena, b"content-type").unwrap_or_default();
                encode::field(&mut block, b"content-type", kind, false);
                Job::Echo { trailers: kind.starts_with(b"application/grpc") }
            }
        };
        self.connection.send_head(key, &block, HeadKind::Final, false).unwrap();
        self.jobs.insert(key, job);
        self.go_on(key);
    }

    fn go_on(&mut self, key: StreamKey) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        let connection = &mut self.connection;
        let is_done = match job {
            Job::Bytes(left) => loop {
                let piece = [b'x'; 16_384];
                let wanted = piece.len().min(*left);
                let sent = connection.send_data(key, &piece[..wanted], wanted == *left).unwrap_or(wanted);
                *left -= sent;
                if *left == 0 || sent < wanted {
                    break *left == 0;
                }
            },
            Job::Echo { trailers } => loop {
                let piece = connection.data(key).to_vec();
                if piece.is_empty() {
                    if !connection.is_received(key) {
                        break false;
                    }
                    let mut block = Vec::new();
                    encode::field(&mut block, b"grpc-status", b"0", false);
                    let _ = match trailers {
                        true => connection.send_head(key, &block, HeadKind::Trailers, true),
                        false => connection.send_data(key, b"", true).map(|_| ()),
                    };
                    break true;
                }
                // Only what has gone on may come again.
                let sent = connection.send_data(key, &piece, false).unwrap_or(piece.len());
                connection.consume(key, sent);
                if sent < piece.len() {
                    break false;
                }
            },
        };
        if is_done {
            self.jobs.remove(&key);
            // A request whose end is still to come is let come.
            if self.connection.is_received(key) {
                self.connection.close(key);
            }
        }
    }
}

/// Reads and writes until the connection is over.
async fn drive(stream: TcpStream, mut server: Server) {
    let (mut buffer, mut rest) = (vec![0; 64 * 1024], Vec::new());
    loop {
        let writes = !server.connection.output().is_empty();
        let interest = if writes { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let ready = stream.ready(interest).await.unwrap();
        if ready.is_readable() && rest.is_empty() {
            match stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => rest.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        if !rest.is_empty() {
            let taken = server.connection.handle_bytes(&rest, 0).unwrap();
            rest.drain(..taken);
        }
        server.handle();
        if ready.is_writable() {
            match stream.try_write(server.connection.output()) {
                Ok(count) => server.connection.advance_output(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            server.handle();
        }
        if server.connection.is_over() && server.connection.output().is_empty() {
            return;
        }
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { tokio::time::timeout(Duration::from_secs(120), test).await.unwrap() })
}

/// Serves every connection that comes. Gives the address.
async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    spawn_local(async move {
        let memory = Memory::new(MemoryLimits::default());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let connection = Connection::new(Config::new(Role::Server), Rc::clone(&memory));
            spawn_local(drive(stream, Server { connection, jobs: HashMap::new() }));
        }
    });
    address
}

#[allow(clippy::disallowed_methods, reason = "a test with other programs beside it")]
fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

#[allow(clippy::print_stdout, reason = "says why nothing was tested")]
fn is_here(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("SKIPPED: {tool} is not here");
    }
    found
}

async fn output(tool: &'static str, arguments: Vec<String>) -> Output {
    let output = spawn_blocking(move || Command::new(tool).args(arguments).output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn curl_gets_and_sends_large_bodies() {
    if !is_here("curl") {
        return;
    }
    run(async {
        let address = serve().await;
        let base = ["-sS", "--http2-prior-knowledge"].map(str::to_owned).to_vec();
        let url = |path: &str| format!("http://{address}{path}");
        let told =
            ["-o", "/dev/null", "-w", "%{http_version} %{http_code} %{size_download}"].map(str::to_owned).to_vec();
        let get = output("curl", [base.clone(), told, vec![url("/bytes/20000000")]].concat()).await;
        assert_eq!(String::from_utf8_lossy(&get.stdout), "2 200 20000000");
        let file = std::env::temp_dir().join(format!("http2-peers-{}", std::process::id()));
        let body: Vec<u8> = (0..5_000_000_u32).map(|index| ((index * 7) >> 3) as u8).collect();
        write(&file, &body);
        let sends = vec!["--data-binary".to_owned(), format!("@{}", file.display()), url("/echo")];
        let echo = output("curl", [base, sends].concat()).await;
        std::fs::remove_file(&file).unwrap();
        assert!(echo.stdout == body, "{} bytes of {}", echo.stdout.len(), body.len());
    });
}

#[test]
fn h2load_is_answered_on_many_streams_at_once() {
    if !is_here("h2load") {
        return;
    }
    run(async {
        let address = serve().await;
        for (path, count) in [("/bytes/128", 4000), ("/bytes/200000", 200)] {
            let arguments = format!("-n {count} -c 4 -m 50 http://{address}{path}");
            let load = output("h2load", arguments.split(' ').map(str::to_owned).collect()).await;
            let text = String::from_utf8_lossy(&load.stdout).into_owned();
            assert!(text.contains(&format!("{count} succeeded, 0 failed, 0 errored, 0 timeout")), "{text}");
        }
    });
}

const GRPC: &str = r#"
import grpc, sys
channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.max_receive_message_length", 1 << 24)])
same = lambda message: message
unary = channel.unary_unary("/echo.Echo/Unary", request_serializer=same, response_deserializer=same)
for size in [0, 1, 100, 70000, 4000000]:
    body = bytes(i * 7 & 255 for i in range(256)) * (size // 256 + 1)
    assert unary(body[:size], metadata=(("x-key", "v" * 300),), timeout=60) == body[:size], size
calls = [unary.future(str(i).encode(), timeout=60) for i in range(300)]
assert [call.result() for call in calls] == [str(i).encode() for i in range(300)]
stream = channel.stream_stream("/echo.Echo/Stream", request_serializer=same, response_deserializer=same)
messages = [bytes([i & 255]) * i for i in range(400)]
assert list(stream(iter(messages), timeout=60)) == messages
print("good")
"#;

#[test]
fn grpcio_calls_and_streams() {
    let found = Command::new("python3").args(["-c", "import grpc"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: python3 with grpcio is not here");
        return;
    }
    run(async {
        let address = serve().await;
        let done = output("python3", vec!["-c".into(), GRPC.into(), address]).await;
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "good");
    });
}

/// Ended with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nginx_answers_many_requests_of_one_connection() {
    if !is_here("nginx") {
        return;
    }
    run(async {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let place = std::env::temp_dir().join(format!("http2-peers-nginx-{}", std::process::id()));
        std::fs::create_dir_all(place.join("logs")).unwrap();
        let body: Vec<u8> = (0..300_000_u32).map(|index| ((index * 7) >> 3) as u8).collect();
        write(&place.join("file"), &body);
        let text = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr; events {{}}
            http {{ access_log off; server {{ listen 127.0.0.1:{port} http2; root {}; http2_max_requests 100000; }} }}",
            place.display()
        );
        write(&place.join("conf"), text.as_bytes());
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(&place).arg("-c").arg(place.join("conf")).stderr(Stdio::null());
        let nginx = Process(nginx.spawn().unwrap());
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let connection = Connection::new(Config::new(Role::Client), Memory::new(MemoryLimits::default()));
        let answers = get_all(stream, connection, 60).await;
        drop(nginx);
        let _ = std::fs::remove_dir_all(&place);
        assert_eq!(answers.len(), 60);
        assert!(answers.iter().all(|(status, bytes)| *status == 200 && *bytes == body));
    });
}

/// Asks for the file so often, as many at a time as the peer takes.
async fn get_all(stream: TcpStream, mut connection: Connection, count: usize) -> Vec<(u16, Vec<u8>)> {
    let (mut asked, mut done, mut open) = (0, Vec::new(), HashMap::<StreamKey, (u16, Vec<u8>)>::new());
    let mut buffer = vec![0; 64 * 1024];
    while done.len() < count {
        while asked < count && connection.settings_came() && connection.has_capacity() {
            let mut block = Vec::new();
            encode::method(&mut block, b"GET");
            encode::scheme(&mut block, b"http");
            encode::authority(&mut block, b"a.example", false);
            encode::path(&mut block, b"/file", false);
            open.insert(connection.open(&block, true, Method::Get).unwrap(), (0, Vec::new()));
            asked += 1;
        }
        while !connection.output().is_empty() {
            stream.writable().await.unwrap();
            if let Ok(count) = stream.try_write(connection.output()) {
                connection.advance_output(count);
            }
        }
        stream.readable().await.unwrap();
        let count = match stream.try_read(&mut buffer) {
            Ok(0) => panic!("nginx has closed: {:?}", connection.error()),
            Ok(count) => count,
            Err(_) => continue,
        };
        assert_eq!(connection.handle_bytes(&buffer[..count], 0), Ok(count));
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Response { key } => {
                    let (mut head, mut arena) = (ResponseHead::default(), Vec::new());
                    while connection.take_response(key, &mut head, &mut arena) {
                        open.get_mut(&key).unwrap().0 = head.status;
                    }
                }
                Event::Data { key } => {
                    while !connection.data(key).is_empty() {
                        let piece = connection.data(key).to_vec();
                        connection.consume(key, piece.len());
                        open.get_mut(&key).unwrap().1.extend(piece);
                    }
                }
                Event::End { key } => {
                    done.push(open.remove(&key).unwrap());
                    connection.close(key);
                }
                Event::Reset { reason, .. } => panic!("{reason:?}"),
                _ => {}
            }
        }
    }
    done
}
