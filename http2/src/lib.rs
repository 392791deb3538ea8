//! stub
#![allow(missing_docs, unused_variables, dead_code, clippy::todo)]
use ringway_message::*;
use std::rc::Rc;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u32);
impl Reason {
    pub const NO_ERROR: Self = Self(0);
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const INTERNAL_ERROR: Self = Self(2);
    pub const CANCEL: Self = Self(8);
    pub const REFUSED_STREAM: Self = Self(7);
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamKey {
    slot: u32,
    id: u32,
}
impl StreamKey {
    pub fn slot(self) -> usize {
        0
    }
    pub fn id(self) -> u32 {
        0
    }
}
#[derive(Debug, Clone)]
pub struct Config {
    pub role: Role,
    pub limits: Limits,
    pub streams_max: u32,
    pub extended_connect: bool,
}
pub struct Memory;
impl Memory {
    pub fn new() -> Rc<Self> {
        todo!()
    }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Peer,
    Local,
    Connection,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Request { key: StreamKey, fault: Option<ParseError> },
    Response { key: StreamKey },
    Data { key: StreamKey },
    Trailers { key: StreamKey },
    End { key: StreamKey },
    Reset { key: StreamKey, reason: Reason, by: By, unprocessed: bool },
    Writable { key: StreamKey },
    Capacity,
    Settings,
    GoAway { reason: Reason },
    Pong([u8; 8]),
}
#[derive(Debug)]
pub struct ConnectionError {
    pub reason: Reason,
    pub flood: Option<&'static str>,
}
pub enum OpenError {
    Full,
    GoingAway,
    Exhausted,
}
pub struct Closed;
pub enum HeadKind {
    Informational,
    Final,
    Trailers,
}
pub struct Connection;
impl Connection {
    pub fn new(config: Config, memory: Rc<Memory>) -> Self {
        todo!()
    }
    pub fn handle_bytes(&mut self, input: &[u8], now_millis: u64) -> Result<usize, ConnectionError> {
        todo!()
    }
    pub fn handle_end(&mut self) {}
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }
    pub fn open(&mut self, block: &[u8], ends: bool, method: Method) -> Result<StreamKey, OpenError> {
        todo!()
    }
    pub fn take_request(&mut self, key: StreamKey, head: &mut RequestHead, arena: &mut Vec<u8>) -> bool {
        todo!()
    }
    pub fn take_response(&mut self, key: StreamKey, head: &mut ResponseHead, arena: &mut Vec<u8>) -> bool {
        todo!()
    }
    pub fn take_trailers(&mut self, key: StreamKey, fields: &mut Vec<Field>, arena: &mut Vec<u8>) -> bool {
        todo!()
    }
    pub fn has_trailers(&self, key: StreamKey) -> bool {
        todo!()
    }
    pub fn data(&self, key: StreamKey) -> &[u8] {
        todo!()
    }
    pub fn consume(&mut self, key: StreamKey, bytes: usize) {
        todo!()
    }
    pub fn is_ended(&self, key: StreamKey) -> bool {
        todo!()
    }
    pub fn is_received(&self, key: StreamKey) -> bool {
        todo!()
    }
    pub fn send_head(&mut self, key: StreamKey, block: &[u8], kind: HeadKind, ends: bool) -> Result<(), Closed> {
        todo!()
    }
    pub fn send_data(&mut self, key: StreamKey, bytes: &[u8], ends: bool) -> Result<usize, Closed> {
        todo!()
    }
    pub fn reset(&mut self, key: StreamKey, reason: Reason) {}
    pub fn close(&mut self, key: StreamKey) {}
    pub fn go_away(&mut self, graceful: bool, reason: Reason) {}
    pub fn ping(&mut self, payload: [u8; 8]) {}
    pub fn output(&self) -> &[u8] {
        todo!()
    }
    pub fn advance_output(&mut self, n: usize) {}
    pub fn is_over(&self) -> bool {
        todo!()
    }
    pub fn streams(&self) -> usize {
        todo!()
    }
    pub fn streams_max(&self) -> usize {
        todo!()
    }
    pub fn extended_connect(&self) -> bool {
        todo!()
    }
    pub fn settings_came(&self) -> bool {
        todo!()
    }
    pub fn has_data_or_heads_come(&mut self) -> bool {
        todo!()
    }
}
pub mod encode {
    pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8], sensitive: bool) {}
    pub fn status(out: &mut Vec<u8>, status: u16) {}
    pub fn method(out: &mut Vec<u8>, v: &[u8]) {}
    pub fn path(out: &mut Vec<u8>, v: &[u8]) {}
    pub fn scheme(out: &mut Vec<u8>, v: &[u8]) {}
    pub fn authority(out: &mut Vec<u8>, v: &[u8]) {}
    pub fn protocol(out: &mut Vec<u8>, v: &[u8]) {}
}
