//! A connection: what its user sees of it.
//!
//! The parts: `receive` takes frames, `headers` and `data` what they bring to streams, `send` writes, `leave` ends connections in
//! peace and otherwise, `events` tells what came and `take` hands it over; `input` and `notices` are what a connection keeps of it in
//! between. `config` says what a connection is to be like.

mod config;
mod data;
mod events;
mod headers;
mod input;
mod leave;
mod notices;
mod receive;
mod send;
mod take;

pub use config::Config;
pub use notices::Event;
pub use send::HeadKind;

use crate::Role;
use crate::error::ConnectionError;
use crate::flood::Floods;
use crate::flow::{ReceiveWindow, SendWindow};
use crate::frame::{self, U31_MAX};
use crate::head::RequestRules;
use crate::hpack::Decoder;
use crate::output::Output;
use crate::pool::Memory;
use crate::settings::{self, Settings, WINDOW_DEFAULT};
use crate::streams::{History, StreamKey, Streams};
use input::{Block, Input, Leaving};
use notices::Notices;
use std::collections::VecDeque;
use std::rc::Rc;

/// What a client sends before its first frame (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Size of the peer's compression table: that of a peer that says nothing.
const TABLE_BYTES: u32 = 4096;

/// A head so many times as long as the limit is not decoded to its end, nor is one of so many bytes at least: its sender means harm.
const ABSURD: usize = 4;
const ABSURD_BYTES: usize = 128 * 1024;

/// One end of a connection.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    rules: RequestRules,
    memory: Rc<Memory>,
    decoder: Decoder,
    streams: Streams,
    /// Of the streams that the client opens: there are no others.
    history: History,
    peer: Settings,
    settings_came: bool,
    own: OwnSettings,
    input: Input,
    block: Option<Block>,
    output: Output,
    /// Whether the first block has been written, and the peer's table of our encoder set to nothing with it.
    prefixed: bool,
    send_window: SendWindow,
    receive_window: ReceiveWindow,
    /// By how much that has grown out of the budget.
    grown: u32,
    /// Bytes of bodies that wait to be taken.
    held: u32,
    floods: Floods,
    /// Slots of which there is news.
    ready: VecDeque<u32>,
    /// Those that have bytes to send and stand in the queue for the connection's window and room in the output.
    waiting: VecDeque<StreamKey>,
    /// Bytes that the streams which were called may send now.
    promised: usize,
    notices: Notices,
    /// Of the next stream that a client opens.
    next_id: u32,
    /// A client has wanted to open a stream when there was no room.
    wants_capacity: bool,
    leaving: Leaving,
    /// The last stream of ours that the peer looks at, once it has said so.
    peer_last: Option<u32>,
    ping: Option<[u8; 8]>,
    error: Option<ConnectionError>,
    ended: bool,
    heard: u64,
    messages: u64,
}

/// What we have said of ourselves that can change.
#[derive(Debug)]
struct OwnSettings {
    /// Window that the peer's streams may count on: a larger one from when it was told, a smaller one from when the peer has acknowledged
    /// it.
    window: u32,
    /// And as it was told last.
    window_announced: u32,
    /// It has not acknowledged the last SETTINGS.
    pending: bool,
}

impl Connection {
    /// A server expects the preface first, a client writes it. SETTINGS wait to be written at once.
    #[must_use]
    pub fn new(config: Config, memory: Rc<Memory>) -> Self {
        let is_client = config.role == Role::Client;
        let mut this = Self {
            rules: RequestRules { limits: config.head, extended_connect: config.extended_connect },
            decoder: Decoder::new(TABLE_BYTES),
            streams: Streams::default(),
            history: History::default(),
            peer: Settings::default(),
            settings_came: false,
            own: OwnSettings {
                window: WINDOW_DEFAULT.max(config.stream_window),
                window_announced: config.stream_window,
                pending: true,
            },
            input: Input::new(!is_client),
            block: None,
            output: Output::default(),
            prefixed: false,
            send_window: SendWindow::new(WINDOW_DEFAULT),
            receive_window: ReceiveWindow::new(WINDOW_DEFAULT),
            grown: 0,
            held: 0,
            floods: Floods::new(is_client, config.floods),
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            promised: 0,
            notices: Notices::default(),
            next_id: 1,
            wants_capacity: false,
            leaving: Leaving::No,
            peer_last: None,
            ping: None,
            error: None,
            ended: false,
            heard: 0,
            messages: 0,
            config,
            memory,
        };
        this.decoder.set_list_bytes_max((config.head.head_bytes_max * ABSURD).max(ABSURD_BYTES));
        this.write_start();
        this
    }

    fn write_start(&mut self) {
        let config = self.config;
        let out = self.output.buffer(&self.memory);
        let window = (settings::INITIAL_WINDOW_SIZE, config.stream_window);
        let list = (settings::HEADER_LIST_SIZE_MAX, u32::try_from(config.head.head_bytes_max).unwrap_or(u32::MAX));
        match config.role {
            Role::Client => {
                out.extend_from_slice(PREFACE);
                settings::write(out, &[(settings::ENABLE_PUSH, 0), window, list]);
            }
            Role::Server => {
                let streams = (settings::CONCURRENT_STREAMS_MAX, config.streams_max);
                let connect = (settings::ENABLE_CONNECT_PROTOCOL, 1);
                let all = [streams, window, list, connect];
                settings::write(out, if config.extended_connect { &all } else { &all[..3] });
            }
        }
        if let Some(more) = config.connection_window.checked_sub(WINDOW_DEFAULT).filter(|more| *more > 0) {
            frame::write_window_update(out, 0, more.min(U31_MAX - WINDOW_DEFAULT));
            self.receive_window = ReceiveWindow::new(config.connection_window);
        }
    }

    /// What is to be written. Ask again after each call that may have added to it.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.bytes()
    }

    /// So much of [`Connection::output`] has been written. There may be events afterwards: streams that waited for room have it.
    pub fn advance_output(&mut self, count: usize) {
        self.promised = 0;
        self.output.advance(count, &self.memory);
    }

    /// Streams of which something may still come or go.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.open()
    }

    /// How many streams the peer of a client takes at the moment, as far as its configuration lets it open them.
    #[must_use]
    pub fn streams_max(&self) -> usize {
        self.peer.concurrent_streams_max.min(self.config.streams_max) as usize
    }

    /// Whether [`Connection::open`] would open one now.
    #[must_use]
    pub fn has_capacity(&self) -> bool {
        !self.is_leaving() && self.next_id <= U31_MAX && self.streams.open() < self.streams_max()
    }

    /// How often bytes have come: a caller that remembers it knows later whether anything was heard since.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// How often a head or data have come: what allows for another PING with servers that count them.
    #[must_use]
    pub fn heard_messages(&self) -> u64 {
        self.messages
    }

    /// Whether the peer's first SETTINGS have come.
    #[must_use]
    pub fn settings_came(&self) -> bool {
        self.settings_came
    }

    /// Whether the peer takes extended CONNECT (RFC 8441, 3).
    #[must_use]
    pub fn extended_connect(&self) -> bool {
        self.peer.extended_connect
    }

    /// Why the connection has ended, if it was an error found here.
    #[must_use]
    pub fn error(&self) -> Option<ConnectionError> {
        self.error
    }

    /// Bytes of bodies that have come and were not taken.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held as usize
    }

    /// Gives back what is only of use to a busy connection. For one that rests.
    pub fn shrink(&mut self) {
        self.decoder.shrink();
        self.input.shrink();
        if self.streams.used() == 0 {
            self.streams.shrink();
            self.ready = VecDeque::new();
            self.waiting = VecDeque::new();
        }
    }

    /// About how much memory it has for itself: what lies in shared buffers is not counted.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let queues = self.ready.capacity() * size_of::<u32>() + self.waiting.capacity() * size_of::<StreamKey>();
        let block = self.block.as_ref().map_or(0, Block::memory_bytes);
        size_of::<Self>()
            + self.decoder.memory_bytes()
            + self.streams.memory_bytes()
            + self.input.memory_bytes()
            + queues
            + block
    }

    fn key(&mut self, slot: u32) -> StreamKey {
        StreamKey { slot, id: self.streams.at(slot).id }
    }

    /// There is news of a stream.
    fn tell(&mut self, slot: u32, news: u8) {
        let stream = self.streams.at(slot);
        stream.news.add(news);
        if !std::mem::replace(&mut stream.queued, true) {
            self.ready.push_back(slot);
        }
    }

    /// Both halves may be over now.
    fn settle(&mut self, slot: u32) {
        let stream = self.streams.at(slot);
        let id = stream.id;
        if stream.is_done() && self.streams.close(slot) {
            self.history.set_ended(id);
            self.handle_closed();
        }
    }

    /// One stream less is open.
    fn handle_closed(&mut self) {
        if self.wants_capacity && self.has_capacity() {
            self.wants_capacity = false;
            self.notices.tell_capacity();
        }
        if self.streams.open() == 0 && self.grown > 0 {
            self.receive_window.set_target(self.config.connection_window);
            self.memory.release_growth(self.grown as usize);
            self.grown = 0;
        }
    }

    /// Nobody needs the stream any more.
    fn free(&mut self, slot: u32) {
        let memory = &self.memory;
        let stream = self.streams.at(slot);
        self.held -= stream.body.len();
        self.floods.release_small(stream.small);
        stream.give_back(memory);
        self.streams.free(slot);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for (_, stream) in self.streams.slots() {
            stream.give_back(&self.memory);
        }
        self.memory.release_growth(self.grown as usize);
        self.output.give_back(&self.memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::MemoryLimits;

    #[test]
    fn memory_is_that_of_each_part_and_grows_with_each() {
        let mut connection = Connection::new(Config::new(Role::Server), Memory::new(MemoryLimits::default()));
        let mut before = connection.memory_bytes();
        assert!(before >= size_of::<Connection>());
        let mut grown = |connection: &Connection| {
            let now = connection.memory_bytes();
            now - std::mem::replace(&mut before, now)
        };
        connection.ready = VecDeque::with_capacity(100);
        assert_eq!(grown(&connection), 100 * size_of::<u32>());
        connection.waiting = VecDeque::with_capacity(100);
        assert_eq!(grown(&connection), 100 * size_of::<StreamKey>());
        connection.input.payload = Vec::with_capacity(100);
        assert_eq!(grown(&connection), 100);
        let bytes = Vec::with_capacity(100);
        connection.block = Some(Block { stream: 1, ends: false, depends_on_itself: false, continuations: 0, bytes });
        assert_eq!(grown(&connection), 100);
        let (streams, decoder) = (connection.streams.memory_bytes(), connection.decoder.memory_bytes());
        connection.streams.open_slot(1, 0, 0);
        assert!(connection.streams.memory_bytes() > streams);
        assert_eq!(grown(&connection), connection.streams.memory_bytes() - streams);
        connection.decoder.decode(b"\x40\x01a\x01b", |_| {}).unwrap();
        assert!(connection.decoder.memory_bytes() > decoder);
        assert_eq!(grown(&connection), connection.decoder.memory_bytes() - decoder);
    }

    #[test]
    fn a_stream_may_be_opened_while_nobody_leaves_and_there_are_numbers_and_room() {
        let client = || Connection::new(Config::new(Role::Client), Memory::new(MemoryLimits::default()));
        let mut connection = client();
        for (next_id, has) in [(1, true), (U31_MAX, true), (U31_MAX + 2, false)] {
            connection.next_id = next_id;
            assert_eq!(connection.has_capacity(), has, "{next_id}");
        }
        let mut connection = client();
        connection.peer.concurrent_streams_max = 2;
        for has in [true, false] {
            connection.streams.open_slot(connection.next_id, 0, 0);
            connection.next_id += 2;
            assert_eq!(connection.has_capacity(), has);
        }
        let mut connection = client();
        connection.go_away(false, crate::Reason::NoError);
        assert!(!connection.has_capacity());
    }
}
