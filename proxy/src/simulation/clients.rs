//! HTTP/1.1 clients: they send requests, slowly or at once, leave in any state, and check what they get against the ledger.

use super::backends::{Fate, Reply};
use super::handing::{COPY, FORGED, KEYS, PREVIOUS};
use super::ledger::{self, Answer, Method, Record};
use super::message::{Cut, Framing, Reader};
use super::random::Random;
use super::world::{WEB, World};
use crate::net::transport::memory::{Socket, Wire};
use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

/// Longer than any wait of the configuration: a client that has heard nothing by then hears nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);
/// How long the proxy may take to close a connection that it has announced to close.
const CLOSE_TIME: Duration = Duration::from_secs(15);

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    Close,
    Reset,
    /// Its host is gone: no packet reports it.
    Silent,
}

/// A request as it is sent.
struct Ask {
    id: u64,
    method: Method,
    body: usize,
    chunked: bool,
    stride: usize,
    /// How much of its body it has begun to send.
    begun: Cell<usize>,
    pause: Duration,
    expects: bool,
    half_closes: bool,
    old: bool,
    closes: bool,
    leave: Option<(Duration, Leave)>,
}

/// Draws a request, and enters it in the ledger.
pub(super) fn draw(world: &World, random: &mut Random, service: &'static str) -> (u64, Method, usize) {
    let (faults, tries) = (world.setup().faults, world.setup().tries());
    let method = match random.below(10) {
        0..6 => Method::Get,
        6 => Method::Head,
        7 => Method::Put,
        _ => Method::Post,
    };
    let body = match (method, random.below(4)) {
        (Method::Get | Method::Head, _) | (_, 0) => 0,
        (_, 1) => random.size(100),
        (_, 2) => random.size(9_000),
        _ => random.size(120_000),
    };
    let replies: Vec<Reply> = (0..3).map(|_| Reply::draw(random, faults)).collect();
    let slow = |reply: &Reply| reply.fate != Fate::Whole || reply.early || reply.pause * 10 > Duration::from_secs(2);
    let excused = !world.setup().is_calm() || world.is_flooded() || replies.iter().any(slow);
    let record = Record {
        service,
        method,
        body,
        replies,
        tries: Vec::new(),
        copies: 0,
        tries_max: tries,
        excused,
        left: false,
        gone: false,
        ended: None,
    };
    let mut ledger = world.ledger();
    let id = ledger.records.len() as u64 + 1;
    ledger.records.insert(id, record);
    (id, method, body)
}

impl Ask {
    fn draw(world: &World, random: &mut Random) -> Self {
        let (id, method, body) = draw(world, random, "api");
        let leaving = world.setup().leaving;
        let slow = body > 0 && random.chance(25);
        let leave = random.chance(leaving).then(|| {
            let how = random.pick(&[Leave::Close, Leave::Close, Leave::Reset, Leave::Silent]);
            (random.millis(1_500), how)
        });
        let half_closes = random.chance(leaving / 3);
        if leave.is_some() || half_closes {
            // Where that is not allowed, a client that half-closes has left.
            let leaves = half_closes && !world.setup().half_close;
            if let Some(record) = world.ledger().records.get_mut(&id) {
                (record.excused, record.left) = (true, leaves);
            }
        }
        Self {
            id,
            method,
            body,
            chunked: body > 0 && random.chance(40),
            stride: if slow { body / (random.size(6) + 2) + 1 } else { 64 * 1024 },
            begun: Cell::new(0),
            pause: if slow { random.millis(400) } else { Duration::ZERO },
            expects: body > 0 && random.chance(10),
            half_closes,
            old: body == 0 && random.chance(12),
            closes: random.chance(10),
            leave,
        }
    }

    fn head(&self) -> String {
        let version = if self.old { "1.0" } else { "1.1" };
        let (name, id) = (self.method.name(), self.id);
        let mut text =
            format!("{name} /api/{id} HTTP/{version}\r\nhost: sim\r\nx-id: {id}\r\nx-key: {}\r\n", id % KEYS);
        if id % 3 == 0 {
            text.push_str(&format!("{PREVIOUS}: {FORGED}\r\n{COPY}: copy\r\n"));
        }
        match (self.chunked, self.body) {
            (true, _) => text.push_str("transfer-encoding: chunked\r\n"),
            (false, 0) if matches!(self.method, Method::Get | Method::Head) => {}
            (false, length) => text.push_str(&format!("content-length: {length}\r\n")),
        }
        if self.expects {
            text.push_str("expect: 100-continue\r\n");
        }
        if self.closes {
            text.push_str("connection: close\r\n");
        }
        text.push_str("\r\n");
        text
    }

    async fn send(&self, output: &mut WriteHalf<Socket>) -> std::io::Result<()> {
        output.write_all(self.head().as_bytes()).await?;
        let mut sent = 0;
        while sent < self.body {
            let count = self.stride.min(self.body - sent);
            self.begun.set(sent + count);
            let bytes = ledger::stretch(self.id, sent, count);
            if self.chunked {
                output.write_all(format!("{count:x}\r\n").as_bytes()).await?;
            }
            output.write_all(&bytes).await?;
            if self.chunked {
                output.write_all(b"\r\n").await?;
            }
            sent += count;
            tokio::time::sleep(self.pause).await;
        }
        if self.chunked {
            output.write_all(b"0\r\nx-sum: right\r\n\r\n").await?;
        }
        if self.half_closes {
            output.shutdown().await?;
        }
        Ok(())
    }
}

/// A client that comes again and again.
pub(super) async fn run(world: Rc<World>, number: u8, mut random: Random) {
    let mut port = 1024;
    while !world.is_over() {
        tokio::time::sleep(random.millis(700)).await;
        port += 1;
        let from = SocketAddr::from(([10, 9, 0, number], port));
        let Ok(socket) = world.network.connect_from(from, WEB.parse().unwrap()).await else { continue };
        world.ledger().tell(&format!("client {number} connects"));
        let wire = socket.wire();
        let (input, output) = tokio::io::split(socket);
        let mut connection = Connection { world: &world, wire, input: Reader::new(input), output, carried: 0 };
        let idle = random.below(3_000);
        for _ in 0..=random.below(6) {
            if !connection.ask(&mut random).await {
                break;
            }
            tokio::time::sleep(random.millis(idle)).await;
        }
    }
}

struct Connection<'a> {
    world: &'a Rc<World>,
    wire: Wire,
    input: Reader<ReadHalf<Socket>>,
    output: WriteHalf<Socket>,
    carried: u32,
}

impl Connection<'_> {
    /// One request, or several at once. `false`: the connection is of no more use.
    async fn ask(&mut self, random: &mut Random) -> bool {
        if random.chance(10) {
            return self.ask_many(random).await;
        }
        let ask = Ask::draw(self.world, random);
        if random.chance(15) {
            (self.input.stride, self.input.pause) = (random.size(20_000) + 2_000, random.millis(100));
        } else {
            (self.input.stride, self.input.pause) = (64 * 1024, Duration::ZERO);
        }
        self.world.ledger().tell(&format!("request {} is asked: {} {}", ask.id, ask.method.name(), ask.body));
        let leaves = async {
            match ask.leave {
                Some((after, how)) => {
                    tokio::time::sleep(after).await;
                    how
                }
                None => std::future::pending().await,
            }
        };
        let (mut left, mut sent) = (None, None);
        let mut answer = Answer::default();
        let got = {
            let mut sending = pin!(ask.send(&mut self.output));
            let mut receiving = pin!(receive(&mut self.input, ask.method, &mut answer, self.world));
            let (mut leaves, mut patience) = (pin!(leaves), pin!(tokio::time::sleep(PATIENCE)));
            loop {
                tokio::select! {
                    biased;
                    got = &mut receiving => break got,
                    done = &mut sending, if sent.is_none() => sent = Some(done.is_ok()),
                    how = &mut leaves => {
                        left = Some(how);
                        break Err(None);
                    }
                    () = &mut patience => break Err(None),
                }
            }
        };
        let id = ask.id;
        match (left, got) {
            (Some(how), _) => {
                self.leave(&ask, how).await;
                false
            }
            (None, Ok(keeps)) => {
                self.carried += 1;
                self.world.ledger().handle_answer(id, &answer);
                let goes_on = keeps && sent == Some(true) && !ask.half_closes && !ask.closes && !ask.old;
                if !goes_on {
                    self.expect_end(id, keeps && !ask.closes && !ask.old).await;
                }
                goes_on
            }
            (None, Err(Some(cut))) => {
                self.broken_off(id, answer, cut);
                false
            }
            (None, Err(None)) => {
                self.world.ledger().end(id, "nothing");
                self.world.ledger().violation(&format!("request {id} is never answered"));
                false
            }
        }
    }

    /// Several pipelined requests: their responses come in order.
    async fn ask_many(&mut self, random: &mut Random) -> bool {
        let mut asks: Vec<Ask> = (0..random.below(3) + 2).map(|_| Ask::draw(self.world, random)).collect();
        (self.input.stride, self.input.pause) = (64 * 1024, Duration::ZERO);
        let mut text = Vec::new();
        for ask in &mut asks {
            (ask.closes, ask.old, ask.half_closes, ask.expects, ask.chunked) = (false, false, false, false, false);
            text.extend_from_slice(ask.head().as_bytes());
            text.extend(ledger::stretch(ask.id, 0, ask.body));
        }
        let ids: Vec<u64> = asks.iter().map(|ask| ask.id).collect();
        self.world.ledger().tell(&format!("requests {ids:?} are asked at once"));
        let (output, input, world) = (&mut self.output, &mut self.input, self.world);
        let mut sending = pin!(async { output.write_all(&text).await });
        let mut written = false;
        let mut broken = None;
        for ask in &asks {
            if broken.is_some() {
                // A server that closes after one response has not read the next request.
                world.ledger().end(ask.id, "not looked at");
                continue;
            }
            let mut answer = Answer::default();
            let got = {
                let mut receiving = pin!(receive(input, ask.method, &mut answer, world));
                let mut patience = pin!(tokio::time::sleep(PATIENCE));
                loop {
                    tokio::select! {
                        biased;
                        got = &mut receiving => break got,
                        _ = &mut sending, if !written => written = true,
                        () = &mut patience => break Err(None),
                    }
                }
            };
            match got {
                Ok(keeps) => {
                    world.ledger().handle_answer(ask.id, &answer);
                    if !keeps {
                        broken = Some(ask.id);
                    }
                }
                Err(Some(cut)) => {
                    // Bytes behind the response before are lost with a reset.
                    let excused = ask.id != ids[0] || self.carried > 0;
                    broken = Some(ask.id);
                    judge_broken(world, ask.id, answer, cut, excused);
                }
                Err(None) => {
                    world.ledger().end(ask.id, "nothing");
                    world.ledger().violation(&format!("request {} is never answered", ask.id));
                    broken = Some(ask.id);
                }
            }
        }
        self.carried += 1;
        broken.is_none() && written
    }

    async fn leave(&mut self, ask: &Ask, how: Leave) {
        let id = ask.id;
        {
            let mut ledger = self.world.ledger();
            // A client that may half-close is still there, and unread input hides an end.
            let seen = match how {
                Leave::Reset => true,
                Leave::Close => !self.world.setup().half_close,
                Leave::Silent => false,
            };
            if let Some(record) = ledger.records.get_mut(&id) {
                // Once its response comes, it may have half-closed; an end that came earlier is noticed only by a write
                // to it.
                let answered = record.tries.iter().any(|made| made.status != 0);
                let seen = seen && !ask.half_closes && (how == Leave::Reset || !answered);
                // One whose request is not whole has left, however it may half-close: the rest never comes.
                let begun = ask.begun.get();
                let seen = seen || how != Leave::Silent && begun < record.body;
                (record.left, record.gone) = (true, seen && begun < 1_000);
            }
            ledger.end(id, &format!("its client leaves: {how:?}"));
        }
        match how {
            Leave::Close => {}
            Leave::Reset => self.wire.end_by_reset(0),
            Leave::Silent => {
                self.wire.silence();
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
        }
    }

    fn broken_off(&mut self, id: u64, answer: Answer, cut: Cut) {
        judge_broken(self.world, id, answer, cut, self.carried > 0);
    }

    /// The connection must end, and nothing may come before.
    async fn expect_end(&mut self, id: u64, may_stay: bool) {
        self.input.pause = Duration::ZERO;
        let held = self.input.held();
        let more = tokio::time::timeout(CLOSE_TIME, self.input.more()).await;
        let answered_twice = held > 0 || matches!(more, Ok(Ok(true)));
        if answered_twice {
            self.world.ledger().violation(&format!("more than an answer has come for request {id}"));
        }
        if more.is_err() && !may_stay {
            self.world.ledger().violation(&format!("the connection of request {id} is not closed, as was said"));
        }
    }
}

/// A response has not come to its end, or not at all. `used`: the connection had carried requests, so that it may have been closed as
/// idle just then.
pub(super) fn judge_broken(world: &World, id: u64, mut answer: Answer, cut: Cut, used: bool) {
    if let Cut::Malformed(what) = &cut {
        world.ledger().violation(&format!("the answer to request {id} is malformed: {what}"));
    }
    if answer.status != 0 {
        // A response that ends with its connection is complete if that end was a clean one.
        answer.whole = false;
        return world.ledger().handle_answer(id, &answer);
    }
    let mut ledger = world.ledger();
    ledger.end(id, &format!("no answer: {cut:?}"));
    let Some(record) = ledger.records.get(&id) else { return };
    let seen = !record.tries.is_empty();
    // A reset may overtake the rest of a response: then that was cut. A clean end without a response is for a request that was not
    // read.
    let was_cut = cut == Cut::Ended { plain: false };
    let excused = record.left || if seen { record.excused && was_cut } else { record.excused || used };
    if !excused {
        ledger.violation(&format!("request {id} is given up without a word, after {seen}"));
    }
}

/// Reads a response. `Ok`: it is complete, and whether the connection is kept.
async fn receive(
    input: &mut Reader<ReadHalf<Socket>>,
    method: Method,
    answer: &mut Answer,
    world: &World,
) -> Result<bool, Option<Cut>> {
    let head = loop {
        let head = input.head().await.map_err(Some)?;
        match head.word(1) {
            "100" | "103" => {}
            _ => break head,
        }
    };
    answer.status = head.word(1).parse().unwrap_or(0);
    answer.id = head.number("x-id");
    answer.number = head.number("x-try").map(|number| number as usize);
    answer.reason = head.field("x-ringway-reason").map(str::to_owned);
    if answer.id.is_some() == answer.reason.is_some() {
        world.ledger().violation(&format!("an answer that is nobody's, or two's: {head:?}"));
    }
    let bodiless = method == Method::Head || matches!(answer.status, 204 | 304);
    let framing = match head.number("content-length") {
        _ if bodiless => Framing::None,
        Some(length) => Framing::Sized(length as usize),
        None if head.says("transfer-encoding", "chunked") => Framing::Chunked,
        None => Framing::UntilClose,
    };
    input.body(framing, &mut answer.body).await.map_err(Some)?;
    if answer.reason.is_some() {
        answer.body.clear();
    }
    answer.whole = true;
    let old = head.word(0) == "HTTP/1.0";
    Ok(framing != Framing::UntilClose && !head.says("connection", "close") && !old)
}
