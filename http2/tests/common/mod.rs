//! Two ends of a connection in memory, and a peer that writes its frames by hand.
#![allow(dead_code, reason = "each test file uses a part")]

use ringway_http2::hpack::encode;
use ringway_http2::{
    Config, Connection, ConnectionError, Event, HeadKind, Memory, MemoryLimits, PREFACE, Reason, Role, StreamKey,
};
use ringway_message::{Method, RequestHead, ResponseHead, Span};
use std::io::Write as _;
use std::process::Command;
use std::rc::Rc;

/// Whether somebody else's program runs here. Where it does not, the test says so, as `.ci/run` looks for it: what `eprintln!` prints, cargo
/// hides of a test that passes. CI has them all, and sets CI: there a missing one fails.
#[allow(clippy::disallowed_methods, reason = "a test says what it does not do")]
pub(crate) fn has(program: &str, arguments: &[&str]) -> bool {
    let found = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "CI has no {program} {arguments:?}");
        // Alone in its process, a test may run on the main thread.
        let test = std::env::var("NEXTEST_TEST_NAME").ok();
        let test = test.or_else(|| std::thread::current().name().map(str::to_owned)).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {program} {arguments:?} does not run here");
    }
    found
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GO_AWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        entries.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(crate) fn request_block(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    encode::method(&mut block, method.as_bytes());
    encode::scheme(&mut block, b"http");
    encode::path(&mut block, path.as_bytes(), false);
    encode::authority(&mut block, b"a.test", false);
    fields_block(&mut block, fields);
    block
}

pub(crate) fn response_block(status: u16, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    encode::status(&mut block, status);
    fields_block(&mut block, fields);
    block
}

pub(crate) fn trailer_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    fields_block(&mut block, fields);
    block
}

fn fields_block(block: &mut Vec<u8>, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        encode::field(block, name.as_bytes(), value.as_bytes(), false);
    }
}

/// One end, with what it was told.
pub(crate) struct End {
    pub(crate) connection: Connection,
    pub(crate) memory: Rc<Memory>,
    pub(crate) events: Vec<Event>,
    pub(crate) now_millis: u64,
    /// What was given and not taken yet.
    pub(crate) unread: Vec<u8>,
    pub(crate) error: Option<ConnectionError>,
}

impl End {
    pub(crate) fn new(config: Config) -> Self {
        Self::with_memory(config, Memory::new(MemoryLimits::default()))
    }

    pub(crate) fn with_memory(config: Config, memory: Rc<Memory>) -> Self {
        let connection = Connection::new(config, Rc::clone(&memory));
        Self { connection, memory, events: Vec::new(), now_millis: 1_000_000, unread: Vec::new(), error: None }
    }

    pub(crate) fn server() -> Self {
        Self::new(Config::new(Role::Server))
    }

    pub(crate) fn client() -> Self {
        Self::new(Config::new(Role::Client))
    }

    /// A server that has seen the preface and SETTINGS, and whose own have been written and acknowledged.
    pub(crate) fn started_server(config: Config, peer: &[(u16, u32)]) -> Self {
        let mut end = Self::new(config);
        end.take_output();
        end.give(&[PREFACE, &settings(peer), &frame(SETTINGS, ACK, 0, &[])].concat());
        end.take_output();
        end.events.clear();
        end
    }

    pub(crate) fn started_client(config: Config, peer: &[(u16, u32)]) -> Self {
        let mut end = Self::new(config);
        end.take_output();
        end.give(&[settings(peer), frame(SETTINGS, ACK, 0, &[])].concat());
        end.take_output();
        end.events.clear();
        end
    }

    /// Takes bytes, and what they bring.
    pub(crate) fn give(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        match self.connection.handle_bytes(&self.unread, self.now_millis) {
            Ok(taken) => drop(self.unread.drain(..taken)),
            Err(error) => {
                self.error = Some(error);
                self.unread.clear();
            }
        }
        self.poll();
    }

    pub(crate) fn poll(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.connection.poll_event()));
    }

    /// All that waits to be written.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        let bytes = self.connection.output().to_vec();
        self.connection.advance_output(bytes.len());
        self.poll();
        bytes
    }

    /// The same, as frames.
    pub(crate) fn frames(&mut self) -> Vec<Frame> {
        parse(&self.take_output())
    }

    /// Gives a request by hand, and the key that it got.
    pub(crate) fn give_request(&mut self, id: u32, method: &str, fields: &[(&str, &str)], ends: bool) -> StreamKey {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.give(&frame(HEADERS, flags, id, &request_block(method, "/", fields)));
        self.request().expect("a request")
    }

    /// The stream of the last request that came.
    pub(crate) fn request(&self) -> Option<StreamKey> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Request { key, .. } => Some(*key),
            _ => None,
        })
    }

    pub(crate) fn open(&mut self, method: &str, fields: &[(&str, &str)], ends: bool) -> StreamKey {
        let block = request_block(method, "/", fields);
        self.connection.open(&block, ends, Method::parse(method.as_bytes())).unwrap()
    }

    pub(crate) fn respond(&mut self, key: StreamKey, status: u16, fields: &[(&str, &str)], ends: bool) {
        self.connection.send_head(key, &response_block(status, fields), HeadKind::Final, ends).unwrap();
    }

    /// Takes all of a body that there is.
    pub(crate) fn drain(&mut self, key: StreamKey) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let data = self.connection.data(key);
            let count = data.len();
            if count == 0 {
                return body;
            }
            body.extend_from_slice(data);
            self.connection.consume(key, count);
        }
    }

    pub(crate) fn response(&mut self, key: StreamKey) -> Option<(u16, Vec<u8>)> {
        let (mut head, mut arena) = (ResponseHead::default(), Vec::new());
        self.connection.take_response(key, &mut head, &mut arena).then_some((head.status, arena))
    }

    pub(crate) fn request_head(&mut self, key: StreamKey) -> Option<(RequestHead, Vec<u8>)> {
        let (mut head, mut arena) = (RequestHead::default(), Vec::new());
        self.connection.take_request(key, &mut head, &mut arena).then_some((head, arena))
    }

    pub(crate) fn trailers(&mut self, key: StreamKey) -> Option<Vec<(String, String)>> {
        let (mut fields, mut arena) = (Vec::new(), Vec::new());
        let text = |span: Span, arena: &[u8]| String::from_utf8(span.of(arena).to_vec()).unwrap();
        self.connection
            .take_trailers(key, &mut fields, &mut arena)
            .then(|| fields.iter().map(|field| (text(field.name, &arena), text(field.value, &arena))).collect())
    }

    pub(crate) fn resets(&self) -> Vec<(u32, Reason)> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Reset { key, reason, .. } => Some((key.id(), *reason)),
                _ => None,
            })
            .collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn number(&self) -> u32 {
        u32::from_be_bytes(*self.payload.first_chunk().unwrap())
    }

    /// The error code of RST_STREAM or GOAWAY.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match self.kind {
            RESET => Some(Reason::from_code(self.number())),
            GO_AWAY => Some(Reason::from_code(u32::from_be_bytes(*self.payload[4..].first_chunk().unwrap()))),
            _ => None,
        }
    }
}

pub(crate) fn parse(mut bytes: &[u8]) -> Vec<Frame> {
    let mut found = Vec::new();
    bytes = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    while let Some(([a, b, c, kind, flags, stream @ ..], rest)) = bytes.split_first_chunk::<9>() {
        let (payload, rest) = rest.split_at(u32::from_be_bytes([0, *a, *b, *c]) as usize);
        found.push(Frame {
            kind: *kind,
            flags: *flags,
            stream: u32::from_be_bytes(*stream),
            payload: payload.to_vec(),
        });
        bytes = rest;
    }
    assert!(bytes.is_empty());
    found
}

/// Moves bytes both ways until none are left, in pieces of at most so many.
pub(crate) fn exchange(client: &mut End, server: &mut End, piece: usize) {
    loop {
        let moved = pass(client, server, piece) + pass(server, client, piece);
        if moved == 0 {
            return;
        }
    }
}

fn pass(from: &mut End, to: &mut End, piece: usize) -> usize {
    let count = from.connection.output().len().min(piece);
    if count > 0 {
        let bytes = from.connection.output()[..count].to_vec();
        from.connection.advance_output(count);
        to.give(&bytes);
    }
    from.poll();
    count
}
