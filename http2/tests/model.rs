//! Two ends in memory against a plain model: whatever they do and however bytes are cut, each byte of each body arrives once and in order,
//! ends are seen once, limits hold, and nobody waits for ever who could go on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::{End, request_block, response_block, trailer_block};
use proptest::prelude::*;
use ringway_http2::{By, Config, Connection, Event, HeadKind, Memory, MemoryLimits, Reason, Role, StreamKey};
use ringway_message::Method;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Step {
    Open { bytes: usize, trailers: bool },
    Respond { which: usize, bytes: usize, trailers: bool, informational: u8 },
    Pass { to_server: bool, bytes: usize },
    Take { by_server: bool, which: usize, bytes: usize },
    Reset { by_server: bool, which: usize },
    Ping { by_server: bool },
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop_oneof![3 => 0_usize..200, 2 => 0_usize..40_000, 1 => 0_usize..400_000];
    let which = || 0_usize..64;
    prop_oneof![
        4 => (bytes(), any::<bool>()).prop_map(|(bytes, trailers)| Step::Open { bytes, trailers }),
        4 => (which(), bytes(), any::<bool>(), 0_u8..3).prop_map(|(which, bytes, trailers, informational)| {
            Step::Respond { which, bytes, trailers, informational }
        }),
        12 => (any::<bool>(), prop_oneof![0_usize..30, 0_usize..100_000])
            .prop_map(|(to_server, bytes)| Step::Pass { to_server, bytes }),
        6 => (any::<bool>(), which(), bytes()).prop_map(|(by_server, which, bytes)| Step::Take { by_server, which, bytes }),
        1 => (any::<bool>(), which()).prop_map(|(by_server, which)| Step::Reset { by_server, which }),
        1 => any::<bool>().prop_map(|by_server| Step::Ping { by_server }),
        1 => Just(Step::Leave),
    ]
}

/// One half of an exchange, as who sends it and who gets it know it.
#[derive(Debug, Default)]
struct Half {
    begun: bool,
    length: usize,
    sent: usize,
    trailers: bool,
    /// Told to wait, and not yet that it can go on.
    waits: bool,
    end_sent: bool,
    taken: usize,
    trailers_taken: bool,
    ends_seen: u32,
}

#[derive(Debug, Default)]
struct Exchange {
    client: Option<StreamKey>,
    server: Option<StreamKey>,
    up: Half,
    down: Half,
    heads_seen: Vec<u16>,
    informational: u8,
    /// One side has reset it.
    reset: bool,
    unprocessed: bool,
}

struct World {
    client: End,
    server: End,
    exchanges: BTreeMap<u32, Exchange>,
    left: bool,
}

fn pattern(id: u32, at: usize) -> u8 {
    (at as u32).wrapping_mul(31).wrapping_add(id.wrapping_mul(17)).wrapping_add(at as u32 >> 8) as u8
}

/// Sends what there is to be sent of one half, until told to wait.
fn send(connection: &mut Connection, key: StreamKey, half: &mut Half) {
    while half.begun && !half.end_sent && !half.waits {
        let count = (half.length - half.sent).min(70_000);
        let bytes: Vec<u8> = (half.sent..half.sent + count).map(|at| pattern(key.id(), at)).collect();
        let is_last = half.sent + count == half.length;
        let Ok(sent) = connection.send_data(key, &bytes, is_last && !half.trailers) else { return };
        half.sent += sent;
        half.waits = sent < count;
        if !half.waits && is_last {
            if half.trailers {
                connection.send_head(key, &trailer_block(&[("x-t", "1")]), HeadKind::Trailers, true).unwrap();
            }
            half.end_sent = true;
        }
    }
}

/// Takes at most so much of one half.
fn take(end: &mut End, key: StreamKey, half: &mut Half, most: usize) {
    let mut left = most;
    loop {
        let data = end.connection.data(key);
        let count = data.len().min(left);
        if count == 0 {
            break;
        }
        assert!(data[..count].iter().enumerate().all(|(index, byte)| *byte == pattern(key.id(), half.taken + index)));
        end.connection.consume(key, count);
        half.taken += count;
        left -= count;
    }
    if half.ends_seen > 0 && end.connection.data(key).is_empty() && end.trailers(key).is_some() {
        assert!(!half.trailers_taken);
        half.trailers_taken = true;
    }
}

impl World {
    fn new(client: Config, server: Config, growth: usize) -> Self {
        let memory = || Memory::new(MemoryLimits { window_growth_bytes: growth, buffers_kept: 8 });
        let client = End::with_memory(client, memory());
        let server = End::with_memory(server, memory());
        Self { client, server, exchanges: BTreeMap::new(), left: false }
    }

    fn pass(&mut self, to_server: bool, most: usize) -> usize {
        let (from, to) =
            if to_server { (&mut self.client, &mut self.server) } else { (&mut self.server, &mut self.client) };
        let count = from.connection.output().len().min(most);
        if count > 0 {
            let bytes = from.connection.output()[..count].to_vec();
            from.connection.advance_output(count);
            to.give(&bytes);
        }
        self.handle_events();
        count
    }

    fn handle_events(&mut self) {
        loop {
            self.client.poll();
            self.server.poll();
            let (client, server) = (std::mem::take(&mut self.client.events), std::mem::take(&mut self.server.events));
            if client.is_empty() && server.is_empty() {
                break;
            }
            client.into_iter().for_each(|event| self.handle(false, event));
            server.into_iter().for_each(|event| self.handle(true, event));
        }
    }

    fn handle(&mut self, at_server: bool, event: Event) {
        let end = if at_server { &mut self.server } else { &mut self.client };
        match event {
            Event::Request { key, fault } => {
                assert!(at_server && fault.is_none());
                let exchange = self.exchanges.get_mut(&key.id()).unwrap();
                assert!(exchange.server.replace(key).is_none());
                assert!(end.request_head(key).is_some());
            }
            Event::Response { key } => {
                let exchange = self.exchanges.get_mut(&key.id()).unwrap();
                while let Some((status, _)) = end.response(key) {
                    exchange.heads_seen.push(status);
                }
            }
            Event::End { key } => {
                let exchange = self.exchanges.get_mut(&key.id()).unwrap();
                let half = if at_server { &mut exchange.up } else { &mut exchange.down };
                half.ends_seen += 1;
            }
            Event::Writable { key } => {
                let exchange = self.exchanges.get_mut(&key.id()).unwrap();
                let half = if at_server { &mut exchange.down } else { &mut exchange.up };
                assert!(std::mem::take(&mut half.waits), "called without having waited");
                send(&mut end.connection, key, half);
            }
            Event::Reset { key, by, unprocessed, .. } => {
                let exchange = self.exchanges.get_mut(&key.id()).unwrap();
                assert_ne!(by, By::Local, "no end finds fault with the other");
                exchange.reset = true;
                exchange.unprocessed |= unprocessed;
            }
            Event::Data { .. } | Event::Trailers { .. } => {}
            Event::Capacity | Event::Settings | Event::GoAway { .. } | Event::Pong(_) => {}
        }
    }

    fn nth(&mut self, which: usize) -> Option<&mut Exchange> {
        let count = self.exchanges.len();
        if count == 0 { None } else { self.exchanges.values_mut().nth(which % count) }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Open { bytes, trailers } => {
                let block = request_block("POST", "/", &[]);
                let Ok(key) = self.client.connection.open(&block, false, Method::Post) else { return };
                let mut exchange = Exchange { client: Some(key), ..Exchange::default() };
                exchange.up = Half { begun: true, length: bytes, trailers, ..Half::default() };
                send(&mut self.client.connection, key, &mut exchange.up);
                self.exchanges.insert(key.id(), exchange);
            }
            Step::Respond { which, bytes, trailers, informational } => {
                let Some(exchange) = self.nth(which) else { return };
                let Some(key) = exchange.server.filter(|_| !exchange.down.begun && !exchange.reset) else { return };
                exchange.down = Half { begun: true, length: bytes, trailers, ..std::mem::take(&mut exchange.down) };
                exchange.informational = informational;
                let mut down = std::mem::take(&mut exchange.down);
                let connection = &mut self.server.connection;
                for _ in 0..informational {
                    connection.send_head(key, &response_block(103, &[]), HeadKind::Informational, false).unwrap();
                }
                connection.send_head(key, &response_block(200, &[]), HeadKind::Final, false).unwrap();
                send(connection, key, &mut down);
                self.exchanges.get_mut(&key.id()).unwrap().down = down;
            }
            Step::Pass { to_server, bytes } => drop(self.pass(to_server, bytes)),
            Step::Take { by_server, which, bytes } => self.take(by_server, which, bytes),
            Step::Reset { by_server, which } => {
                let Some(exchange) = self.nth(which) else { return };
                let key = if by_server { exchange.server } else { exchange.client };
                let Some(key) = key else { return };
                exchange.reset = true;
                let connection = if by_server { &mut self.server.connection } else { &mut self.client.connection };
                connection.reset(key, Reason::Cancel);
            }
            Step::Ping { by_server } => {
                let connection = if by_server { &mut self.server.connection } else { &mut self.client.connection };
                connection.ping(*b"are you?");
            }
            Step::Leave => {
                self.left = true;
                self.server.connection.go_away(true, Reason::NoError);
            }
        }
        self.handle_events();
    }

    fn take(&mut self, by_server: bool, which: usize, most: usize) {
        let Some(exchange) = self.nth(which) else { return };
        let mut exchange = std::mem::take(exchange);
        let key = if by_server { exchange.server } else { exchange.client };
        if let Some(key) = key {
            let end = if by_server { &mut self.server } else { &mut self.client };
            take(end, key, if by_server { &mut exchange.up } else { &mut exchange.down }, most);
        }
        *self.nth(which).unwrap() = exchange;
    }

    fn check(&self, configs: &[Config; 2]) {
        for (end, config) in [&self.client, &self.server].into_iter().zip(configs) {
            assert_eq!(end.error, None);
            assert!(end.connection.held_bytes() <= config.connection_window_max as usize);
            assert!(end.connection.streams() <= 2 * config.streams_max as usize);
        }
    }

    /// Everybody answers, takes what there is, and bytes move, until nothing moves any more.
    fn finish(&mut self) {
        loop {
            let mut moved = self.pass(true, usize::MAX) + self.pass(false, usize::MAX);
            for which in 0..self.exchanges.len() {
                self.run(&Step::Respond { which, bytes: 1000, trailers: which % 2 == 0, informational: 0 });
                let before = self.nth(which).map_or(0, |exchange| exchange.up.taken + exchange.down.taken);
                self.take(true, which, usize::MAX);
                self.take(false, which, usize::MAX);
                moved += self.nth(which).map_or(0, |exchange| exchange.up.taken + exchange.down.taken) - before;
                self.handle_events();
            }
            moved += self.client.connection.output().len() + self.server.connection.output().len();
            if moved == 0 {
                return;
            }
        }
    }

    fn check_end(&mut self) {
        for (id, exchange) in &self.exchanges {
            for half in [&exchange.up, &exchange.down] {
                assert!(half.ends_seen <= 1 && half.taken <= half.sent, "{id} {exchange:?}");
            }
            if exchange.unprocessed {
                assert!(exchange.server.is_none() && self.left || exchange.reset);
            }
            if exchange.reset {
                continue;
            }
            for half in [&exchange.up, &exchange.down] {
                let whole = half.end_sent && half.ends_seen == 1 && half.taken == half.length;
                assert!(whole, "{id} {exchange:?}");
                assert_eq!(half.trailers, half.trailers_taken, "{id} {exchange:?}");
            }
            let mut expected = vec![103; usize::from(exchange.informational)];
            expected.push(200);
            assert_eq!(exchange.heads_seen, expected);
        }
        for exchange in self.exchanges.values() {
            exchange.client.into_iter().for_each(|key| self.client.connection.close(key));
            exchange.server.into_iter().for_each(|key| self.server.connection.close(key));
        }
        for end in [&self.client, &self.server] {
            assert_eq!((end.connection.streams(), end.connection.held_bytes()), (0, 0));
            assert_eq!((end.memory.used_bytes(), end.memory.heads_waiting(), end.memory.grown_bytes()), (0, 0, 0));
        }
        if self.left {
            assert!(self.server.connection.is_over() && self.client.connection.is_over());
        }
    }
}

fn config(role: Role) -> impl Strategy<Value = Config> {
    let window = || prop_oneof![1_u32..300, 1_u32..70_000, Just(65_536_u32)];
    (window(), window(), 1_u32..8, 1_u32..200_000).prop_map(move |(stream, more, streams_max, connection)| Config {
        streams_max,
        stream_window: stream,
        stream_window_max: stream + more,
        connection_window: connection.max(65_535),
        connection_window_max: connection.max(65_535) + more,
        ..Config::new(role)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, max_shrink_time: 15_000, ..ProptestConfig::default() })]

    #[test]
    fn each_byte_arrives_once_and_nobody_waits_for_ever(
        client in config(Role::Client), server in config(Role::Server), growth in 0_usize..500_000,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(client, server, growth);
        for step in &steps {
            world.run(step);
            world.check(&[client, server]);
        }
        world.finish();
        world.check(&[client, server]);
        world.check_end();
    }
}
