//! Peers that flood: clients and backends that send what costs more to take than to send, clients that ask and never read, and
//! clients that connect and say nothing. Each is ended in time, at a cost that is bounded, and those beside it do not notice.

use super::backends::Backend;
use super::clients;
use super::handing::KEYS;
use super::ledger::Method;
use super::random::Random;
use super::world::{WEB, World};
use crate::net::transport::memory::{Socket, Wire};
use ringway_http2::{FloodLimits, PREFACE, Role};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

/// Types, flags and codes of RFC 9113.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const ENHANCE_YOUR_CALM: u32 = 11;

/// SETTINGS and frames without a meaning that a second may bring from a client; the codec's own.
const SETTINGS_MAX: u32 = 50;
const USELESS_MAX: u32 = 2_000;
/// How many times as much backends may send.
const BACKEND_TIMES: u32 = 10;
/// How long the proxy may take to end a peer that floods.
const END_TIME: Duration = Duration::from_secs(20);
/// How long it may take to give up a client that reads nothing, or says nothing: longer than any limit of the listener.
const SILENT_TIME: Duration = Duration::from_secs(40);
/// A write that takes longer has found no room.
const BLOCKED_TIME: Duration = Duration::from_secs(2);
/// Requests without a read: their responses would be several times what may wait.
const UNREAD_MAX: u32 = 60_000;
/// Of these, so many are asked at once.
const TOGETHER: u32 = 50;
/// Requests of a flood for which backends work.
const ROUTED_MAX: u32 = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    /// Requests that are given up at once (CVE-2023-44487).
    Resets,
    /// Requests that the proxy must reset (CVE-2025-8671).
    Malformed,
    Pings,
    Settings,
    Windows,
    EmptyData,
    /// Frames of a type that nobody knows.
    Useless,
    /// Frames of one head (CVE-2024-27316).
    Continuations,
}

impl Flood {
    const OF_CLIENTS: [Self; 8] = [
        Self::Resets,
        Self::Malformed,
        Self::Pings,
        Self::Settings,
        Self::Windows,
        Self::EmptyData,
        Self::Useless,
        Self::Continuations,
    ];
    const OF_BACKENDS: [Self; 3] = [Self::Pings, Self::Settings, Self::Windows];

    /// How many of them a client may send within a second, or at all.
    fn most(self) -> u32 {
        let limits = FloodLimits::new(Role::Server);
        match self {
            Self::Resets => limits.resets_max,
            Self::Malformed => limits.malformed_total_max,
            Self::Pings => limits.pings_max,
            Self::Settings => SETTINGS_MAX,
            Self::Windows => limits.window_updates_max,
            Self::EmptyData => limits.empty_data_max,
            Self::Useless => USELESS_MAX,
            Self::Continuations => limits.continuations_max,
        }
    }
}

/// What has come of a connection that floods.
#[derive(Default)]
struct Seen {
    settings: Cell<bool>,
    /// Code of GOAWAY, and what it says.
    go_away: RefCell<Option<(u32, String)>>,
    answered: RefCell<BTreeSet<u32>>,
    ended: Cell<bool>,
}

impl Seen {
    fn note_go_away(&self, payload: &[u8]) {
        let Some((code, text)) = payload.get(4..).and_then(|rest| rest.split_first_chunk()) else { return };
        self.go_away.replace(Some((u32::from_be_bytes(*code), String::from_utf8_lossy(text).into_owned())));
    }

    /// Whether it was turned away as one client too many: then GOAWAY says no more than that.
    fn was_turned_away(&self, world: &World) -> bool {
        let limits = world.setup().limits;
        let says_nothing = self.go_away.borrow().as_ref().is_some_and(|(_, text)| text.is_empty());
        limits.clients + limits.per_ip > 0 && says_nothing && !self.is_wrong()
    }

    /// Whether GOAWAY has said something else than that there was too much.
    fn is_wrong(&self) -> bool {
        self.go_away.borrow().as_ref().is_some_and(|(code, _)| *code != ENHANCE_YOUR_CALM)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut bytes = vec![(length >> 16) as u8, (length >> 8) as u8, length as u8, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A head without compression, but for the version's own table.
fn head(method: &str, path: &str, fields: &[(&str, String)]) -> Vec<u8> {
    let mut block = vec![0x86];
    let mut literal = |name: &[u8], value: &str| {
        block.extend(name);
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    };
    literal(&[2], method);
    literal(&[4], path);
    literal(&[1], "sim");
    for (name, value) in fields {
        literal(&[&[0, name.len() as u8], name.as_bytes()].concat(), value);
    }
    block
}

/// A client that floods now and then.
pub(super) async fn run(world: Rc<World>, number: u8, mut random: Random) {
    let mut count = 0;
    while !world.is_over() {
        tokio::time::sleep(random.millis(12_000)).await;
        count += 1;
        match random.below(6) {
            0 => unread(&world, number, count, &mut random).await,
            1 => say_nothing(&world, number, count, &mut random).await,
            _ => flood(&world, number, count, &mut random).await,
        }
    }
}

async fn connect(world: &World, number: u8, port: u16) -> Option<Socket> {
    let from = SocketAddr::from(([10, 9, 3, number], port));
    world.network.connect_from(from, WEB.parse().expect("an address")).await.ok()
}

/// Reads frames to the end.
async fn watch(mut input: ReadHalf<Socket>, seen: Rc<Seen>) {
    let mut head = [0; 9];
    while input.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if input.read_exact(&mut payload).await.is_err() {
            break;
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match head[3] {
            SETTINGS => seen.settings.set(true),
            HEADERS => drop(seen.answered.borrow_mut().insert(stream)),
            GOAWAY => seen.note_go_away(&payload),
            _ => {}
        }
    }
    seen.ended.set(true);
}

/// Whether it comes about in time.
async fn comes(most: Duration, what: impl Fn() -> bool) -> bool {
    let until = crate::ambient::now() + most;
    while !what() {
        if crate::ambient::now() >= until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}

/// Sends less than may be sent, and must be served; or more, and must be ended.
async fn flood(world: &Rc<World>, number: u8, count: u16, random: &mut Random) {
    let Some(socket) = connect(world, number, 1_000 + count).await else { return };
    let wire = socket.wire();
    let (input, output) = tokio::io::split(socket);
    let seen = Rc::<Seen>::default();
    world.spawn(watch(input, Rc::clone(&seen)));
    let (kind, over) = (random.pick(&Flood::OF_CLIENTS), random.chance(60));
    let name = format!("f{number}.{count}");
    let mut client = Client { world, output, next: 1, ids: Vec::new(), routed: 0 };
    let begun = client.say(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
    // It may be turned away, or wait for its turn for as long as others stay.
    if !begun || !comes(SILENT_TIME, || seen.settings.get() || seen.ended.get()).await || !seen.settings.get() {
        return;
    }
    world.ledger().tell(&format!("{name} sends {kind:?}, too many: {over}"));
    let bursts = if over { 1 } else { 2 };
    for _ in 0..bursts {
        let many = if over { kind.most() * 4 + 60 } else { kind.most() / 3 };
        let frames = client.frames(kind, many);
        let said = client.say(&frames).await;
        client.give_up();
        if !said {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    let what = if over {
        let ended = comes(END_TIME, || !wire.is_held_by_acceptor()).await;
        (!ended || seen.is_wrong()).then(|| format!("floods, and that ends {ended}, with {:?}", seen.go_away))
    } else {
        let last = client.next;
        client.say(&frame(HEADERS, END_HEADERS | END_STREAM, last, &head("HEAD", "/none", &[]))).await;
        let answered = comes(END_TIME, || seen.answered.borrow().contains(&last)).await;
        (!answered && !seen.was_turned_away(world))
            .then(|| format!("sends no more than it may, and is ended: {:?}", seen.go_away))
    };
    world.ledger().count(if over { "flood ended" } else { "flood served" });
    if let Some(what) = what {
        world.ledger().violation(&format!("{name} {what} ({kind:?})"));
    }
    if random.chance(50) {
        wire.end_by_reset(0);
    }
}

/// The side that floods.
struct Client<'a> {
    world: &'a Rc<World>,
    output: WriteHalf<Socket>,
    /// The next stream.
    next: u32,
    /// Requests that have been asked, and are given up.
    ids: Vec<u64>,
    routed: u32,
}

impl Client<'_> {
    /// `false`: the connection has ended.
    async fn say(&mut self, bytes: &[u8]) -> bool {
        let said = tokio::time::timeout(SILENT_TIME, self.output.write_all(bytes)).await;
        matches!(said, Ok(Ok(())))
    }

    fn frames(&mut self, kind: Flood, many: u32) -> Vec<u8> {
        match kind {
            Flood::Resets => (0..many).flat_map(|_| self.given_up()).collect(),
            Flood::Malformed => {
                (0..many).flat_map(|_| frame(HEADERS, END_HEADERS | END_STREAM, self.stream(), &[0x86])).collect()
            }
            Flood::Pings => frame(PING, 0, 0, &[0; 8]).repeat(many as usize),
            Flood::Settings => frame(SETTINGS, 0, 0, &[]).repeat(many as usize),
            Flood::Windows => frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(many as usize),
            Flood::Useless => frame(0xee, 0, 0, b"what").repeat(many as usize),
            Flood::EmptyData => {
                let stream = self.stream();
                let mut frames = frame(HEADERS, END_HEADERS, stream, &head("POST", "/none", &[]));
                frames.extend(frame(DATA, 0, stream, &[]).repeat(many as usize));
                frames
            }
            Flood::Continuations => {
                let stream = self.stream();
                let mut frames = frame(HEADERS, END_STREAM, stream, &head("HEAD", "/none", &[]));
                frames.extend((0..many).flat_map(|_| frame(CONTINUATION, 0, stream, &[0, 1, b'x', 1, b'y'])));
                frames.extend(frame(CONTINUATION, END_HEADERS, stream, &[]));
                frames
            }
        }
    }

    fn stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// A request and its reset. Some are for backends.
    fn given_up(&mut self) -> Vec<u8> {
        let stream = self.stream();
        self.routed += 1;
        let block = if self.routed > ROUTED_MAX || stream % 4 == 1 {
            head("GET", "/none", &[])
        } else {
            let mut random = Random::new(self.world.shared.secret ^ u64::from(stream));
            let (id, ..) = clients::draw(self.world, &mut random, "api");
            let mut ledger = self.world.ledger();
            if let Some(record) = ledger.records.get_mut(&id) {
                (record.method, record.body, record.excused) = (Method::Get, 0, true);
            }
            ledger.end(id, "it is one of a flood");
            self.ids.push(id);
            head("GET", &format!("/api/{id}"), &[("x-id", id.to_string()), ("x-key", (id % KEYS).to_string())])
        };
        let asked = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
        [asked, frame(RST_STREAM, 0, stream, &CANCEL)].concat()
    }

    /// All requests so far have been given up, or their connection has ended.
    fn give_up(&mut self) {
        let mut ledger = self.world.ledger();
        for id in self.ids.drain(..) {
            if let Some(record) = ledger.records.get_mut(&id) {
                (record.left, record.gone) = (true, true);
            }
        }
    }
}

/// Asks again and again, and reads nothing: at some point it must be heard no more, and then be ended.
async fn unread(world: &Rc<World>, number: u8, count: u16, random: &mut Random) {
    let Some(mut socket) = connect(world, number, 1_000 + count).await else { return };
    let (wire, is_http2) = (socket.wire(), random.chance(50));
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    if is_http2 && socket.write_all(&begin).await.is_err() {
        return;
    }
    let name = format!("f{number}.{count}");
    world.ledger().tell(&format!("{name} asks and does not read, over HTTP/2: {is_http2}"));
    let block = head("HEAD", "/none", &[]);
    for asked in 0..UNREAD_MAX / TOGETHER {
        let streams = (asked * TOGETHER..(asked + 1) * TOGETHER).map(|index| index * 2 + 1);
        let requests: Vec<u8> = match is_http2 {
            true => streams.flat_map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)).collect(),
            false => b"HEAD /none HTTP/1.1\r\nhost: sim\r\n\r\n".repeat(TOGETHER as usize),
        };
        match tokio::time::timeout(BLOCKED_TIME, socket.write_all(&requests)).await {
            // No more at a time than it is told that it may.
            Ok(Ok(())) => tokio::time::sleep(Duration::from_millis(1)).await,
            // It was turned away.
            Ok(Err(_)) => return world.ledger().tell(&format!("{name} is ended after {} requests", asked * TOGETHER)),
            Err(_) => {
                world.ledger().tell(&format!("{name} is heard no more after {} requests", asked * TOGETHER));
                world.ledger().count("unread");
                return expect_end(world, &wire, &format!("{name} reads nothing")).await;
            }
        }
    }
    world.ledger().violation(&format!("{name} is served {UNREAD_MAX} requests whose responses it does not read"));
}

/// Connects, and sends nothing, or half of something.
async fn say_nothing(world: &Rc<World>, number: u8, count: u16, random: &mut Random) {
    // Where few may come, others wait until these have been given up.
    let most = if world.setup().limits.clients > 0 { 3 } else { 30 };
    let mut sockets = Vec::new();
    for index in 0..random.below(most) as u16 + 1 {
        let Some(mut socket) = connect(world, number, 2_000 + count * 30 + index).await else { continue };
        let half: &[u8] = match random.below(4) {
            0 => b"",
            1 => b"GET /api/1 HTTP/1.1\r\nhost: s",
            2 => &PREFACE[..20],
            _ => b"GET /none HTTP/1.1\r\nhost: sim\r\n\r\n",
        };
        if socket.write_all(half).await.is_ok() {
            sockets.push(socket);
        }
    }
    world.ledger().tell(&format!("f{number}.{count} says nothing on {} connections", sockets.len()));
    world.ledger().count("says nothing");
    for socket in &sockets {
        expect_end(world, &socket.wire(), &format!("f{number}.{count} says nothing")).await;
    }
}

/// The proxy must give a client up.
async fn expect_end(world: &World, wire: &Wire, what: &str) {
    let address = WEB.parse().expect("an address");
    // As long as not all have been accepted, this one may be among those that wait.
    let begun = crate::ambient::now();
    loop {
        if comes(SILENT_TIME, || !wire.is_held_by_acceptor()).await {
            return;
        }
        if world.network.queued_at(address) == 0 || world.is_over() {
            let waited = crate::ambient::since(begun);
            return world.ledger().violation(&format!("{what}, and is held for {waited:?}"));
        }
    }
}

/// The side of a backend that speaks HTTP/2 and floods: the connection must be ended, and the requests on it get their errors.
pub(super) async fn flood_as_backend(world: &Rc<World>, backend: &Backend, socket: Socket, random: &mut Random) {
    let wire = socket.wire();
    let kind = random.pick(&Flood::OF_BACKENDS);
    world.ledger().tell(&format!("{} floods: {kind:?}", backend.id));
    world.ledger().count("flood of a backend");
    world.begin_flood();
    let (input, output) = tokio::io::split(socket);
    let seen = Rc::<Seen>::default();
    world.spawn(watch_from_behind_preface(input, Rc::clone(&seen)));
    let mut client = Client { world, output, next: 1, ids: Vec::new(), routed: 0 };
    let frames = client.frames(kind, kind.most() * BACKEND_TIMES * 4);
    client.say(&frame(SETTINGS, 0, 0, &[])).await;
    client.say(&frames).await;
    let ended = comes(END_TIME, || !wire.is_held_by_connector()).await;
    if !ended || seen.is_wrong() {
        let what = format!("{} floods, and that ends {ended}, with {:?} ({kind:?})", backend.id, seen.go_away);
        world.ledger().violation(&what);
    }
    world.end_flood();
}

async fn watch_from_behind_preface(mut input: ReadHalf<Socket>, seen: Rc<Seen>) {
    if input.read_exact(&mut [0; PREFACE.len()]).await.is_ok() {
        watch(input, seen).await;
    }
}
