//! One end of a connection that does so many exchanges, without sockets: `exchanges SCENARIO COUNT [AT_ONCE]`, under callgrind.
//!
//! What the other end sends was written beforehand, so that what is counted is the codec of this end alone: the difference between two
//! counts, by the number of exchanges between them. Scenarios: `get` (a server, a small GET, 128 bytes of response), `grpc` (a server, a
//! unary call), `client` (a client, a small GET), `upload` (a server, 1 MB in frames of 16 KiB), `download` (a server, 1 MB), `bomb`
//! (a server, heads of 16 KiB that name one long field of the table with each byte, each refused).
#![allow(clippy::unwrap_used, reason = "an example that cannot go on ends")]

use ringway_http2::hpack::encode;
use ringway_http2::{Config, Connection, Event, HeadKind, Memory, MemoryLimits, PREFACE, Role, StreamKey};
use ringway_message::{Method, RequestHead, ResponseHead};

/// Exchanges whose frames come in one read, and go in one write, if nothing else is said.
const AT_ONCE: u32 = 8;

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A field as most clients send it: put into the table the first time, and named by its index afterwards.
fn remembered(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.extend_from_slice(&[0x40, name.len() as u8]);
    block.extend_from_slice(name);
    block.push(value.len() as u8);
    block.extend_from_slice(value);
}

/// The first block of a client, and those after it.
fn blocks(start: &[u8], fields: &[(&str, &str)]) -> (Vec<u8>, Vec<u8>) {
    let (mut first, mut next) = (start.to_vec(), start.to_vec());
    for (index, (name, value)) in fields.iter().enumerate() {
        remembered(&mut first, name.as_bytes(), value.as_bytes());
        next.push(0x80 | (62 + fields.len() - 1 - index) as u8);
    }
    (first, next)
}

#[derive(Default)]
struct Server {
    head: RequestHead,
    arena: Vec<u8>,
    block: Vec<u8>,
    done: u32,
    body: u64,
    /// Of whom more is to be sent.
    sending: Option<(StreamKey, usize)>,
}

struct Scenario {
    grpc: bool,
    response: Vec<u8>,
}

impl Server {
    fn handle(&mut self, connection: &mut Connection, scenario: &Scenario) {
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Request { key, .. } => {
                    assert!(connection.take_request(key, &mut self.head, &mut self.arena));
                    self.body += self.head.path.len() as u64;
                }
                Event::Data { key } => {
                    let count = connection.data(key).len();
                    self.body += count as u64;
                    connection.consume(key, count);
                }
                Event::End { key } => self.respond(connection, key, scenario),
                Event::Writable { key } => self.send(connection, key, scenario),
                Event::Reset { reason, .. } => panic!("{reason:?}"),
                _ => {}
            }
        }
    }

    fn respond(&mut self, connection: &mut Connection, key: StreamKey, scenario: &Scenario) {
        self.block.clear();
        encode::status(&mut self.block, 200);
        let kind = if scenario.grpc { &b"application/grpc"[..] } else { b"text/plain" };
        encode::field(&mut self.block, b"content-type", kind, false);
        if !scenario.grpc {
            encode::field(&mut self.block, b"content-length", b"128", false);
        }
        encode::field(&mut self.block, b"date", b"Sat, 28 Nov 2026 15:00:00 GMT", false);
        connection.send_head(key, &self.block, HeadKind::Final, false).unwrap();
        self.sending = Some((key, 0));
        self.send(connection, key, scenario);
    }

    fn send(&mut self, connection: &mut Connection, key: StreamKey, scenario: &Scenario) {
        let Some((_, sent)) = &mut self.sending else { return };
        *sent += connection.send_data(key, &scenario.response[*sent..], !scenario.grpc).unwrap();
        if *sent < scenario.response.len() {
            return;
        }
        if scenario.grpc {
            self.block.clear();
            encode::field(&mut self.block, b"grpc-status", b"0", false);
            encode::field(&mut self.block, b"grpc-message", b"", false);
            connection.send_head(key, &self.block, HeadKind::Trailers, true).unwrap();
        }
        connection.close(key);
        self.done += 1;
    }
}

fn serve(count: u32, at_once: u32, scenario: &Scenario, start: &[u8], fields: &[(&str, &str)], body: &[u8]) {
    // What was written beforehand asks for no windows.
    let windows = Config { stream_window: 2 << 20, connection_window: 4 << 20, ..Config::new(Role::Server) };
    let mut connection = Connection::new(windows, Memory::new(MemoryLimits::default()));
    let mut server = Server::default();
    let mut input = PREFACE.to_vec();
    frame(&mut input, 4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    frame(&mut input, 4, 1, 0, &[]);
    frame(&mut input, 8, 0, 0, &[0x7f, 0, 0, 0]);
    let (first, next) = blocks(start, fields);
    let batch = if body.len() > 1000 || scenario.response.len() > 1000 { 1 } else { at_once };
    let mut id = 1;
    let mut written = 0_u64;
    while server.done < count {
        for _ in 0..batch {
            let flags = if body.is_empty() { 5 } else { 4 };
            frame(&mut input, 1, flags, id, if id == 1 { &first } else { &next });
            for (index, piece) in body.chunks(16_384).enumerate() {
                let ends = (index + 1) * 16_384 >= body.len();
                frame(&mut input, 0, u8::from(ends), id, piece);
            }
            id += 2;
        }
        for piece in input.chunks(64 * 1024) {
            assert_eq!(connection.handle_bytes(piece, u64::from(id)), Ok(piece.len()));
            server.handle(&mut connection, scenario);
            while !connection.output().is_empty() {
                let count = connection.output().len();
                written += count as u64;
                connection.advance_output(count);
                server.handle(&mut connection, scenario);
            }
        }
        input.clear();
        if written > 1 << 30 {
            written = 0;
            frame(&mut input, 8, 0, 0, &[0x40, 0, 0, 0]);
        }
    }
    assert!(server.body > 0 && connection.error().is_none() && connection.streams() == 0);
}

fn ask(count: u32, at_once: u32) {
    let mut connection = Connection::new(Config::new(Role::Client), Memory::new(MemoryLimits::default()));
    let (first, next) =
        blocks(&[0x88], &[("content-type", "text/plain"), ("content-length", "128"), ("server", "somebody/1.0")]);
    let mut input = Vec::new();
    frame(&mut input, 4, 0, 0, &[]);
    frame(&mut input, 4, 1, 0, &[]);
    let (mut block, mut head, mut arena) = (Vec::new(), ResponseHead::default(), Vec::new());
    let (mut id, mut done) = (1, 0);
    while done < count {
        for _ in 0..at_once {
            block.clear();
            encode::method(&mut block, b"GET");
            encode::scheme(&mut block, b"http");
            encode::path(&mut block, b"/path/to/something", false);
            encode::authority(&mut block, b"backend.example:8080", false);
            encode::field(&mut block, b"user-agent", b"somebody/1.0", false);
            connection.open(&block, true, Method::Get).unwrap();
            frame(&mut input, 1, 4, id, if id == 1 { &first } else { &next });
            frame(&mut input, 0, 1, id, &[b'x'; 128]);
            id += 2;
        }
        connection.advance_output(connection.output().len());
        assert_eq!(connection.handle_bytes(&input, u64::from(id)), Ok(input.len()));
        input.clear();
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Response { key } => assert!(connection.take_response(key, &mut head, &mut arena)),
                Event::Data { key } => connection.consume(key, connection.data(key).len()),
                Event::End { key } => {
                    connection.close(key);
                    done += 1;
                }
                _ => {}
            }
        }
    }
}

fn bomb(count: u32) {
    let mut connection = Connection::new(Config::new(Role::Server), Memory::new(MemoryLimits::default()));
    let mut input = PREFACE.to_vec();
    frame(&mut input, 4, 0, 0, &[]);
    let mut first = vec![0x82, 0x86, 0x84, 0x40, 1, b'x', 0x7f, 0x81, 0x1d];
    first.extend([b'y'; 3840]);
    let (mut id, mut refused) = (1, 0);
    let mut block = Vec::new();
    while refused < count {
        block.clear();
        encode::status(&mut block, 431);
        frame(&mut input, 1, 5, id, if id == 1 { &first } else { &[0xbe; 16_384] });
        id += 2;
        assert_eq!(connection.handle_bytes(&input, u64::from(id)), Ok(input.len()));
        input.clear();
        while let Some(event) = connection.poll_event() {
            if let Event::Request { key, fault } = event {
                refused += u32::from(fault.is_some_and(|fault| fault.is_size()));
                connection.send_head(key, &block, HeadKind::Final, true).unwrap();
                connection.close(key);
            }
        }
        connection.advance_output(connection.output().len());
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let scenario = arguments.next().unwrap_or_else(|| "get".to_owned());
    let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let at_once = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(AT_ONCE);
    let small = Scenario { grpc: false, response: vec![b'x'; 128] };
    let get = [(":authority", "127.0.0.1:8080"), (":path", "/path/to/something"), ("user-agent", "h2load/1.52.0")];
    match scenario.as_str() {
        "get" => serve(count, at_once, &small, &[0x82, 0x86], &get, &[]),
        "upload" => serve(count, at_once, &small, &[0x83, 0x86], &get, &vec![7; 1_000_000]),
        "download" => {
            let large = Scenario { grpc: false, response: vec![b'x'; 1_000_000] };
            serve(count, at_once, &large, &[0x82, 0x86], &get, &[]);
        }
        "grpc" => {
            let fields = [
                (":authority", "127.0.0.1:8080"),
                (":path", "/package.Service/Method"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("user-agent", "grpc-python/1.60"),
                ("grpc-timeout", "10S"),
            ];
            let unary = Scenario { grpc: true, response: vec![b'x'; 105] };
            serve(count, at_once, &unary, &[0x83, 0x86], &fields, &[7; 105]);
        }
        "bomb" => bomb(count),
        "client" => ask(count, at_once),
        other => panic!("no scenario {other:?}"),
    }
}
