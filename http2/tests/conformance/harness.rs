//! An endpoint under test, its peer by hand, and a small user of it.

use ringway_http2::hpack::encode;
use ringway_http2::{
    Config, Connection, ConnectionError, Event, HeadKind, Memory, MemoryLimits, Reason, Role, StreamKey,
};
use ringway_message::{Field, Method, RequestHead, ResponseHead};
use std::collections::BTreeMap;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;

pub(crate) const ENABLE_PUSH: u16 = 2;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const MAX_FRAME_SIZE: u16 = 5;

/// Streams that a peer may open at the endpoint under test.
pub(crate) const STREAMS_MAX: u32 = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

/// HEADERS that are all of their block.
pub(crate) fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, block)
}

/// HEADERS whose block goes on.
pub(crate) fn headers_begun(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

pub(crate) fn continuation(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(CONTINUATION, flags, stream, block)
}

/// Dependency, and the weight as it stands on the wire.
pub(crate) fn priority(stream: u32, dependency: u32, weight: u8) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &priority_payload(dependency, weight))
}

pub(crate) fn priority_payload(dependency: u32, weight: u8) -> Vec<u8> {
    [&dependency.to_be_bytes()[..], &[weight]].concat()
}

pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(crate) fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        entries.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(crate) fn go_away(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// A block of fields; those that begin with a colon are spelled out.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for part in [name, value] {
            assert!(part.len() < 127);
            block.push(part.len() as u8);
            block.extend_from_slice(part.as_bytes());
        }
    }
    block
}

pub(crate) const REQUEST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
pub(crate) const RESPONSE: [(&str, &str); 1] = [(":status", "200")];

pub(crate) fn with<'f>(fields: &[(&'f str, &'f str)], more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    [fields, more].concat()
}

/// What the endpoint under test has given to its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Given {
    /// Method and path, or the status.
    Head(u32, String),
    Data(u32, Vec<u8>),
    Trailers(u32, Vec<(String, String)>),
    End(u32),
    Reset(u32, Reason),
}

/// The endpoint under test, seen by its peer.
pub(crate) struct Peer {
    pub(crate) role: Role,
    pub(crate) connection: Connection,
    pub(crate) error: Option<ConnectionError>,
    /// What it has sent, and nobody has looked at yet.
    pub(crate) sent: Vec<Frame>,
    pub(crate) given: Vec<Given>,
    /// A server answers with this body once a request has ended; `None`: it does not.
    pub(crate) answer: Option<Vec<u8>>,
    keys: BTreeMap<u32, StreamKey>,
    /// What is still to be sent of answers.
    bodies: BTreeMap<u32, Vec<u8>>,
    raw: Vec<u8>,
    now_millis: u64,
}

impl Peer {
    /// Nothing has been sent to it yet.
    pub(crate) fn fresh(role: Role) -> Self {
        let config = Config { streams_max: STREAMS_MAX, ..Config::new(role) };
        let connection = Connection::new(config, Memory::new(MemoryLimits::default()));
        let mut peer = Self {
            role,
            connection,
            error: None,
            sent: Vec::new(),
            given: Vec::new(),
            answer: Some(b"hello".to_vec()),
            keys: BTreeMap::new(),
            bodies: BTreeMap::new(),
            raw: Vec::new(),
            now_millis: 0,
        };
        if role == Role::Client {
            // Its preface is no frame.
            peer.collect();
            let raw = std::mem::take(&mut peer.raw);
            assert!(raw.starts_with(PREFACE));
            peer.raw = raw[PREFACE.len()..].to_vec();
        }
        peer.collect();
        peer
    }

    /// Prefaces and SETTINGS have been exchanged and acknowledged.
    pub(crate) fn new(role: Role) -> Self {
        let mut peer = Self::fresh(role);
        if role == Role::Server {
            peer.feed(PREFACE);
        }
        peer.feed(&settings(&[]));
        peer.feed(&frame(SETTINGS, ACK, 0, &[]));
        assert_eq!(peer.error, None);
        peer.sent.clear();
        peer
    }

    pub(crate) fn server() -> Self {
        Self::new(Role::Server)
    }

    pub(crate) fn client() -> Self {
        Self::new(Role::Client)
    }

    /// One that opens streams and never answers or ends them by itself.
    pub(crate) fn silent(mut self) -> Self {
        self.answer = None;
        self
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while self.error.is_none() && !rest.is_empty() {
            match self.connection.handle_bytes(rest, self.now_millis) {
                Ok(taken) => {
                    rest = &rest[taken..];
                    self.serve();
                    assert!(taken > 0 || self.connection.is_over(), "bytes are left, and nothing was taken");
                    if taken == 0 {
                        break;
                    }
                }
                Err(error) => self.error = Some(error),
            }
        }
        self.serve();
    }

    /// Hands on what has come, as a user does, until nothing more happens.
    fn serve(&mut self) {
        loop {
            self.collect();
            let Some(event) = self.connection.poll_event() else { break };
            self.handle(event);
            self.send_bodies();
        }
        self.collect();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request { key, fault } => {
                self.keys.insert(key.id(), key);
                if let Some(error) = fault {
                    let mut block = Vec::new();
                    encode::status(&mut block, if error.is_size() { 431 } else { 400 });
                    let _ = self.connection.send_head(key, &block, HeadKind::Final, true);
                    self.connection.close(key);
                    return;
                }
                let (mut head, mut arena) = (RequestHead::default(), Vec::new());
                assert!(self.connection.take_request(key, &mut head, &mut arena));
                let text = [head.method_span.of(&arena), b" ", head.target.of(&arena)].concat();
                self.given.push(Given::Head(key.id(), String::from_utf8(text).unwrap()));
            }
            Event::Response { key } => {
                let (mut head, mut arena, mut taken) = (ResponseHead::default(), Vec::new(), 0);
                while self.connection.take_response(key, &mut head, &mut arena) {
                    self.given.push(Given::Head(key.id(), head.status.to_string()));
                    taken += 1;
                }
                assert!(taken > 0, "there is one where one is told of");
            }
            Event::Data { key } => {
                let bytes = self.connection.data(key).to_vec();
                self.connection.consume(key, bytes.len());
                self.given.push(Given::Data(key.id(), bytes));
            }
            Event::Trailers { key } => {
                let (mut fields, mut arena): (Vec<Field>, _) = (Vec::new(), Vec::new());
                assert!(self.connection.take_trailers(key, &mut fields, &mut arena));
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let fields =
                    fields.iter().map(|field| (text(field.name.of(&arena)), text(field.value.of(&arena)))).collect();
                self.given.push(Given::Trailers(key.id(), fields));
            }
            Event::End { key } => {
                self.given.push(Given::End(key.id()));
                if let (Role::Server, Some(body)) = (self.role, self.answer.clone()) {
                    let mut block = Vec::new();
                    encode::status(&mut block, 200);
                    let _ = self.connection.send_head(key, &block, HeadKind::Final, body.is_empty());
                    self.bodies.insert(key.id(), body);
                }
            }
            Event::Reset { key, reason, .. } => {
                self.bodies.remove(&key.id());
                self.given.push(Given::Reset(key.id(), reason));
                self.connection.close(key);
            }
            _ => {}
        }
    }

    /// Sends what windows let it.
    fn send_bodies(&mut self) {
        let connection = &mut self.connection;
        let keys = &self.keys;
        self.bodies.retain(|id, body| {
            let key = keys[id];
            if body.is_empty() {
                connection.close(key);
                return false;
            }
            match connection.send_data(key, body, true) {
                Ok(count) => {
                    body.drain(..count);
                    if body.is_empty() {
                        connection.close(key);
                    }
                    !body.is_empty()
                }
                Err(_) => false,
            }
        });
    }

    /// Takes what it sends.
    pub(crate) fn collect(&mut self) {
        loop {
            let output = self.connection.output().to_vec();
            if output.is_empty() {
                break;
            }
            self.connection.advance_output(output.len());
            self.raw.extend(output);
        }
        if self.raw.starts_with(b"PRI") {
            return;
        }
        let mut rest = &self.raw[..];
        while let Some((header, after)) = rest.split_at_checked(9) {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            self.sent.push(Frame {
                kind: header[3],
                flags: header[4],
                stream: u32::from_be_bytes(header[5..9].try_into().unwrap()),
                payload: payload.to_vec(),
            });
            rest = after;
        }
        self.raw = rest.to_vec();
    }

    /// A client opens a stream with a request that goes on, or is all.
    pub(crate) fn ask(&mut self, method: Method, ends: bool) -> u32 {
        let mut block = Vec::new();
        let name: &[u8] = if method == Method::Head { b"HEAD" } else { b"POST" };
        encode::method(&mut block, name);
        encode::scheme(&mut block, b"http");
        encode::authority(&mut block, b"a.example", false);
        encode::path(&mut block, b"/", false);
        let key = self.connection.open(&block, ends, method).unwrap();
        self.keys.insert(key.id(), key);
        self.serve();
        key.id()
    }

    pub(crate) fn key(&self, stream: u32) -> StreamKey {
        self.keys[&stream]
    }

    /// Runs what its user does, and takes what is sent for that.
    pub(crate) fn run<T>(&mut self, action: impl FnOnce(&mut Connection) -> T) -> T {
        let done = action(&mut self.connection);
        self.serve();
        done
    }

    /// A stream on which the endpoint may still send: the peer's head has come, and its message goes on unless it `ends`.
    pub(crate) fn begin(&mut self, ends: bool) -> u32 {
        let stream = match self.role {
            Role::Server => 1,
            Role::Client => self.ask(Method::Post, false),
        };
        self.feed(&headers(stream, u8::from(ends), &self.head()));
        assert!(
            self.given.iter().any(|given| matches!(given, Given::Head(id, _) if *id == stream)),
            "{:?}",
            self.given
        );
        stream
    }

    /// A stream that the peer may send its head on.
    pub(crate) fn open(&mut self) -> u32 {
        match self.role {
            Role::Server => 1,
            Role::Client => self.ask(Method::Post, true),
        }
    }

    /// A head that is good for what the endpoint takes.
    pub(crate) fn head(&self) -> Vec<u8> {
        self.head_with(&[])
    }

    pub(crate) fn head_with(&self, more: &[(&str, &str)]) -> Vec<u8> {
        match self.role {
            Role::Server => block(&with(&REQUEST, more)),
            Role::Client => block(&with(&RESPONSE, more)),
        }
    }

    pub(crate) fn frames(&self, kind: u8) -> Vec<&Frame> {
        self.sent.iter().filter(|frame| frame.kind == kind).collect()
    }

    pub(crate) fn data_sent(&self, stream: u32) -> Vec<u8> {
        self.sent
            .iter()
            .filter(|frame| frame.kind == DATA && frame.stream == stream)
            .flat_map(|frame| frame.payload.clone())
            .collect()
    }

    /// The endpoint still serves: it answers a PING.
    #[track_caller]
    pub(crate) fn assert_alive(&mut self) {
        self.feed(&frame(PING, 0, 0, b"are you?"));
        assert_eq!(self.error, None, "{:?}", self.sent);
        let answer = Frame { kind: PING, flags: ACK, stream: 0, payload: b"are you?".to_vec() };
        assert!(self.sent.contains(&answer), "{:?}", self.sent);
        assert!(self.frames(GOAWAY).is_empty(), "{:?}", self.sent);
    }

    /// It has ended the connection with this code, and said so.
    #[track_caller]
    pub(crate) fn assert_connection_error(&mut self, reason: Reason) {
        let error = self.error.unwrap_or_else(|| panic!("no error; sent: {:?}, given: {:?}", self.sent, self.given));
        assert_eq!(error.reason, reason, "{error:?}");
        let last = self.sent.last().expect("it says why");
        assert_eq!((last.kind, last.stream, last.number(4)), (GOAWAY, 0, reason.code()), "{:?}", self.sent);
        assert!(self.connection.is_over(), "it closes once that is written");
    }

    /// It has reset this stream with this code, and serves on.
    #[track_caller]
    pub(crate) fn assert_stream_error(&mut self, stream: u32, reason: Reason) {
        assert_eq!(self.error, None, "the stream's error is not the connection's: {:?}", self.sent);
        let codes: Vec<_> = self
            .frames(RST_STREAM)
            .iter()
            .filter(|frame| frame.stream == stream)
            .map(|frame| frame.number(0))
            .collect();
        assert_eq!(codes, [reason.code()], "sent: {:?}, given: {:?}", self.sent, self.given);
        self.assert_alive();
    }

    /// Where the RFC lets an endpoint choose: the stream or the connection, with this code.
    #[track_caller]
    pub(crate) fn assert_stream_or_connection_error(&mut self, stream: u32, reason: Reason) {
        if self.error.is_some() {
            self.assert_connection_error(reason)
        } else {
            self.assert_stream_error(stream, reason)
        }
    }

    /// A message has come whole: it was given to its user, and a server has answered it.
    #[track_caller]
    pub(crate) fn assert_served(&mut self, stream: u32) {
        assert_eq!(self.error, None);
        assert!(self.given.contains(&Given::End(stream)), "given: {:?}, sent: {:?}", self.given, self.sent);
        if self.role == Role::Server {
            assert!(self.frames(HEADERS).iter().any(|frame| frame.stream == stream), "{:?}", self.sent);
        }
        self.assert_alive();
    }
}

/// Runs a test against an endpoint of each role.
#[allow(clippy::print_stdout, reason = "shown where the test fails")]
pub(crate) fn both(test: impl Fn(&mut Peer)) {
    for role in [Role::Server, Role::Client] {
        println!("{role:?}");
        test(&mut Peer::new(role));
    }
}
