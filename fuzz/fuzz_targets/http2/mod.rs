//! A connection under test, and a user of it that checks what it is given.
#![allow(dead_code, reason = "each target needs a part of it")]

use ringway_http2::hpack::encode;
use ringway_http2::{Config, Connection, Event, HeadKind, Memory, MemoryLimits, PREFACE, Reason, Role, StreamKey};
use ringway_message::{Field, Limits, Method, RequestHead, ResponseHead, is_lower_token, is_value};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a stream has brought.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message {
    pub heads: Vec<Vec<u8>>,
    pub data: Vec<u8>,
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
    pub ended: bool,
}

pub struct Session {
    pub connection: Connection,
    pub memory: Rc<Memory>,
    role: Role,
    pub failed: Option<Reason>,
    pub messages: BTreeMap<u32, Message>,
    pub keys: Vec<StreamKey>,
    /// Streams that it has reset, with the codes.
    pub resets: Vec<(u32, u32)>,
    /// Answers to what has ended.
    pub answers: bool,
    /// Takes what comes.
    pub consumes: bool,
    written: Vec<u8>,
    preface_left: usize,
}

const HEAD: Limits = Limits { head_bytes_max: 4096, fields_max: 50 };

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

impl Session {
    /// SETTINGS have been exchanged; a client has asked for three things.
    pub fn new(role: Role) -> Self {
        let memory = Memory::new(MemoryLimits::default());
        let config = Config { head: HEAD, streams_max: 8, extended_connect: true, ..Config::new(role) };
        let mut this = Self {
            connection: Connection::new(config, Rc::clone(&memory)),
            memory,
            role,
            failed: None,
            messages: BTreeMap::new(),
            keys: Vec::new(),
            resets: Vec::new(),
            answers: false,
            consumes: true,
            written: Vec::new(),
            preface_left: if role == Role::Client { PREFACE.len() } else { 0 },
        };
        if role == Role::Server {
            this.feed(PREFACE);
        }
        this.feed(&frame(4, 0, 0, &[]));
        this.feed(&frame(4, 1, 0, &[]));
        if role == Role::Client {
            for (method, ends) in [(Method::Get, true), (Method::Post, false), (Method::Head, true)] {
                this.ask(method, ends);
            }
        }
        this
    }

    pub fn ask(&mut self, method: Method, ends: bool) {
        let mut block = Vec::new();
        encode::method(&mut block, b"GET");
        encode::scheme(&mut block, b"http");
        encode::path(&mut block, b"/", false);
        encode::authority(&mut block, b"a", false);
        if let Ok(key) = self.connection.open(&block, ends, method) {
            self.keys.push(key);
        }
        self.serve();
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while self.failed.is_none() && !rest.is_empty() {
            match self.connection.handle_bytes(rest, 0) {
                Ok(0) => break,
                Ok(taken) => rest = &rest[taken..],
                Err(error) => self.failed = Some(error.reason),
            }
            self.serve();
        }
        self.serve();
        self.check();
    }

    pub fn serve(&mut self) {
        self.write();
        while let Some(event) = self.connection.poll_event() {
            self.handle(event);
            self.write();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request { key, fault } => {
                self.keys.push(key);
                let (mut head, mut arena) = (RequestHead::default(), Vec::new());
                assert!(self.connection.take_request(key, &mut head, &mut arena));
                if fault.is_none() {
                    check_fields(&head.fields, &arena);
                    assert!(!head.method_span.is_empty() && !head.target.is_empty() && !head.authority.is_empty());
                }
                self.message(key).heads.push(arena);
            }
            Event::Response { key } => {
                let (mut head, mut arena) = (ResponseHead::default(), Vec::new());
                while self.connection.take_response(key, &mut head, &mut arena) {
                    check_fields(&head.fields, &arena);
                    assert!((100..600).contains(&head.status) && head.status != 101);
                    let arena = std::mem::take(&mut arena);
                    self.message(key).heads.push(arena);
                }
            }
            Event::Data { key } if self.consumes => self.consume(key, usize::MAX),
            Event::Trailers { key } => {
                let (mut fields, mut arena) = (Vec::new(), Vec::new());
                assert!(self.connection.take_trailers(key, &mut fields, &mut arena));
                check_fields(&fields, &arena);
                let list = fields.iter().map(|field| (field.name.of(&arena).to_vec(), field.value.of(&arena).to_vec()));
                self.message(key).trailers = list.collect();
            }
            Event::End { key } => {
                let message = self.message(key);
                assert!(!message.ended && !message.heads.is_empty());
                message.ended = true;
                if self.answers && self.role == Role::Server {
                    let mut block = Vec::new();
                    encode::status(&mut block, 200);
                    let _ = self.connection.send_head(key, &block, HeadKind::Final, false);
                    let _ = self.connection.send_data(key, b"hello", true);
                }
            }
            Event::Reset { key, .. } => {
                self.keys.retain(|known| *known != key);
                self.connection.close(key);
            }
            _ => {}
        }
    }

    pub fn consume(&mut self, key: StreamKey, most: usize) {
        let mut left = most;
        loop {
            let piece = self.connection.data(key);
            let piece = piece[..piece.len().min(left)].to_vec();
            if piece.is_empty() {
                break;
            }
            left -= piece.len();
            self.connection.consume(key, piece.len());
            self.message(key).data.extend(piece);
        }
    }

    fn message(&mut self, key: StreamKey) -> &mut Message {
        self.messages.entry(key.id()).or_default()
    }

    /// Takes what it sends: frames that are whole and well formed.
    fn write(&mut self) {
        let output = self.connection.output();
        let count = output.len();
        self.written.extend_from_slice(output);
        self.connection.advance_output(count);
        let skipped = self.preface_left.min(self.written.len());
        self.preface_left -= skipped;
        let mut rest = &self.written[skipped..];
        while let Some((header, after)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            assert!(length <= 16_384 && header[3] <= 9);
            assert!(stream < 1 << 31 && (stream == 0) != matches!(header[3], 0..=3 | 9) || header[3] == 8);
            let (payload, after) = after.split_at(length);
            if header[3] == 3 {
                self.resets.push((stream, u32::from_be_bytes(payload.try_into().expect("four bytes"))));
            }
            rest = after;
        }
        assert!(rest.is_empty(), "half a frame");
        self.written.clear();
    }

    /// Whatever comes, what it holds is bounded.
    fn check(&self) {
        assert!(self.connection.memory_bytes() < 256 * 1024, "{}", self.connection.memory_bytes());
        assert!(self.memory.used_bytes() < 4 << 20);
        if self.failed.is_some() {
            assert!(self.connection.is_over() && self.connection.streams() == 0);
        }
    }

    /// When it is gone, so is all that it held.
    pub fn end(self) {
        let Self { connection, memory, .. } = self;
        drop(connection);
        assert_eq!((memory.used_bytes(), memory.heads_waiting(), memory.grown_bytes()), (0, 0, 0));
    }
}

fn check_fields(fields: &[Field], arena: &[u8]) {
    assert!(arena.len() <= 2 * HEAD.head_bytes_max);
    for field in fields {
        assert!(is_lower_token(field.name.of(arena)) && is_value(field.value.of(arena)));
        assert!(!field.kind.is_connection_specific());
    }
}
