//! Backends that speak HTTP/1.1: each handles an attempt as drawn for it, and records its progress in the ledger.

use super::handing::{self, CopyFate};
use super::ledger::{self, Said};
use super::message::{Cut, Framing, Head, Reader};
use super::random::Random;
use super::world::World;
use crate::net::transport::memory::{Listener, Socket};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadHalf, WriteHalf};

/// One of those that may come before a response.
const INFORMATIONAL: &str = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
/// More of them than anybody should take.
pub(super) const INFORMATIONALS_ENDLESS: u32 = 20_000;

/// How a response goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Whole,
    /// Its connection is closed, or reset, after so many bytes of its body.
    Closed(usize),
    Reset(usize),
    /// Nothing follows so many bytes of its body.
    Silent(usize),
    /// The connection is closed, or reset, before a byte of it.
    ClosedBefore,
    ResetBefore,
    /// No response comes at all.
    Never,
    /// The bytes that come are no HTTP.
    Garbage,
    /// Informational (1xx) responses come, one after the other.
    Endless,
}

/// How a backend handles one attempt.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) wait: Duration,
    /// Informational (1xx) responses before it.
    pub(super) informationals: u32,
    pub(super) framing: Framing,
    pub(super) length: usize,
    pub(super) stride: usize,
    pub(super) pause: Duration,
    pub(super) trailers: bool,
    /// It does not wait for the request's body.
    pub(super) early: bool,
    pub(super) keep_alive: bool,
    pub(super) fate: Fate,
}

impl Reply {
    /// `faults` percent of them go wrong.
    pub(super) fn draw(random: &mut Random, faults: u64) -> Self {
        let length = match random.below(10) {
            0 => 0,
            1..5 => random.size(200),
            5..8 => random.size(16 * 1024),
            _ => random.size(150_000),
        };
        let framing = match random.below(10) {
            0..5 => Framing::Sized(length),
            5..9 => Framing::Chunked,
            _ => Framing::UntilClose,
        };
        let at = random.size(length + 1);
        let fate = if random.chance(faults) {
            random.pick(&[
                Fate::Closed(at),
                Fate::Reset(at),
                Fate::Silent(at),
                Fate::ClosedBefore,
                Fate::ResetBefore,
                Fate::Never,
                Fate::Garbage,
                Fate::Endless,
            ])
        } else {
            Fate::Whole
        };
        let slow = random.chance(20);
        Self {
            status: if random.chance(faults / 2) { random.pick(&[500, 502, 503, 404, 429]) } else { 200 },
            wait: if random.chance(30) { random.millis(800) } else { random.millis(20) },
            informationals: if random.chance(10) { random.below(3) as u32 + 1 } else { 0 },
            framing,
            length,
            stride: if slow { length / (random.size(8) + 2) + 1 } else { 64 * 1024 },
            pause: if slow { random.millis(300) } else { Duration::ZERO },
            trailers: random.chance(30),
            early: random.chance(5),
            keep_alive: random.chance(85),
            fate,
        }
    }
}

impl Reply {
    /// For the trace.
    pub(super) fn told(&self) -> String {
        let Self { status, wait, informationals, framing, length, stride, pause, trailers, early, keep_alive, fate } =
            self;
        let marks =
            [(*trailers, "trailers"), (*early, "early"), (!keep_alive, "closes"), (*informationals > 0, "interim")];
        let marks: Vec<&str> = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
        format!("{status} after {wait:?}, {framing:?} {length} by {stride} each {pause:?}, {fate:?} {marks:?}")
    }
}

/// A backend.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) service: &'static str,
    pub(super) id: String,
    pub(super) address: SocketAddr,
    /// The result of its checks.
    pub(super) well: Cell<bool>,
}

/// Serves until the world is over.
pub(super) async fn run(world: Rc<World>, backend: Rc<Backend>, listener: Listener, mut random: Random) {
    while let Ok((socket, _)) = listener.accept().await {
        let (world2, backend, random) = (Rc::clone(&world), Rc::clone(&backend), random.fork());
        world.spawn(async move { serve(&world2, &backend, socket, random).await });
    }
}

async fn serve(world: &World, backend: &Backend, socket: Socket, mut random: Random) {
    let wire = socket.wire();
    let (input, mut output) = tokio::io::split(socket);
    let mut input = Reader::new(input);
    let mut carried = 0;
    loop {
        // Now and then an idle connection is closed from this side, at its own time.
        let patience = if random.chance(20) { random.millis(2_000) } else { Duration::from_secs(3600) };
        let head = tokio::select! {
            biased;
            head = input.head() => head,
            () = tokio::time::sleep(patience), if carried > 0 && input.held() == 0 => return,
        };
        let head = match head {
            Ok(head) => head,
            Err(Cut::Malformed(what)) => {
                world.ledger().violation(&format!("{} has got what is no request: {what}", backend.id));
                return;
            }
            Err(Cut::Ended { .. }) => return,
        };
        let Some(id) = head.number("x-id") else {
            world.ledger().violation(&format!("{} has got a request without its id: {:?}", backend.id, head.first));
            return;
        };
        let exchange = Exchange { world, backend, id, head: &head, carried };
        let (of, asked) = ((&*backend.id, backend.service), (id, head.word(0)));
        let told = (head.field(handing::COPY), head.field(handing::PREVIOUS));
        if handing::handle_told(&mut world.ledger(), of, asked, told) {
            match exchange.swallow_copy(&mut input, &mut output, &mut random).await {
                After::Request => {
                    carried += 1;
                    continue;
                }
                After::Close | After::Reset => return,
            }
        }
        let place = (backend.id.clone(), wire.number());
        world.serving.borrow_mut().insert(place.clone(), (id, wire.clone()));
        let after = exchange.run(&mut input, &mut output).await;
        world.serving.borrow_mut().remove(&place);
        match after {
            After::Request => carried += 1,
            After::Close => return,
            After::Reset => return wire.end_by_reset(1),
        }
    }
}

enum After {
    Request,
    Close,
    Reset,
}

struct Exchange<'a> {
    world: &'a World,
    backend: &'a Backend,
    id: u64,
    head: &'a Head,
    /// Requests that the connection has carried before.
    carried: u32,
}

impl Exchange<'_> {
    async fn run(&self, input: &mut Reader<ReadHalf<Socket>>, output: &mut WriteHalf<Socket>) -> After {
        let Self { world, backend, id, head, .. } = *self;
        if backend.service == "shade" {
            return self.swallow(input, output).await;
        }
        let Some((number, reply)) = world.ledger().handle_head(id, &backend.id, head.word(0)) else {
            return After::Close;
        };
        if head.says("expect", "100-continue")
            && !reply.early
            && output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err()
        {
            return After::Close;
        }
        if !reply.early
            && let Err(cut) = self.read_body(input).await
        {
            world.ledger().tell(&format!("{} has half of request {id}: {cut:?}", backend.id));
            return After::Close;
        }
        tokio::time::sleep(reply.wait).await;
        match reply.fate {
            Fate::ClosedBefore | Fate::ResetBefore => {
                let stale = self.carried > 0;
                self.note(number, |made| (made.said, made.stale) = (Said::Cut, stale));
                return if reply.fate == Fate::ResetBefore { After::Reset } else { After::Close };
            }
            Fate::Never => return wait_for_end(input).await,
            Fate::Garbage => {
                self.note(number, |made| made.said = Said::Cut);
                // On a reused connection, that may be a leftover of the request before.
                let stale = self.carried > 0;
                self.note(number, |made| made.stale = stale);
                let _ = output.write_all(b"\x01\x02 garbage\r\n\r\n").await;
                return After::Close;
            }
            Fate::Endless => {
                self.note(number, |made| made.said = Said::Cut);
                return self.never_come_to_the_end(output).await;
            }
            Fate::Whole | Fate::Closed(_) | Fate::Reset(_) | Fate::Silent(_) => {}
        }
        let after = self.answer(number, &reply, input, output).await;
        if reply.early && matches!(after, After::Request) {
            // The rest of the body stands before the next request.
            return match self.read_body(input).await {
                Ok(()) => After::Request,
                Err(_) => After::Close,
            };
        }
        if reply.early && matches!(after, After::Close) {
            // It has not read all: that turns its end into a reset, which may overtake the response.
            let stale = self.carried > 0;
            self.note(number, |made| made.stale |= stale);
        }
        after
    }

    fn note(&self, number: usize, change: impl FnOnce(&mut ledger::Try)) {
        if let Some(made) = self.world.ledger().of(self.id, number) {
            change(made);
        }
    }

    async fn read_body(&self, input: &mut Reader<ReadHalf<Socket>>) -> Result<(), Cut> {
        let framing = match self.head.number("content-length") {
            Some(length) => Framing::Sized(length as usize),
            None if self.head.says("transfer-encoding", "chunked") => Framing::Chunked,
            None => Framing::None,
        };
        let mut body = Vec::new();
        let read = input.body(framing, &mut body).await;
        let wanted = self.world.ledger().records.get(&self.id).map_or(0, |record| record.body);
        let right = body.iter().enumerate().all(|(at, byte)| *byte == ledger::content(self.id, at));
        if !right || body.len() > wanted || read.is_ok() && body.len() != wanted {
            let (id, got) = (self.id, body.len());
            self.world
                .ledger()
                .violation(&format!("the body of request {id} is not what was sent: {got} of {wanted} bytes"));
        }
        if let Err(Cut::Malformed(what)) = &read {
            self.world.ledger().violation(&format!("the body of request {} is malformed: {what}", self.id));
        }
        read.map(drop)
    }

    /// Sends one informational response after the other, until it is told to stop.
    async fn never_come_to_the_end(&self, output: &mut WriteHalf<Socket>) -> After {
        for _ in 0..INFORMATIONALS_ENDLESS {
            if output.write_all(INFORMATIONAL.as_bytes()).await.is_err() {
                return After::Close;
            }
        }
        let what = format!("{INFORMATIONALS_ENDLESS} informational responses to request {} are taken", self.id);
        self.world.ledger().violation(&what);
        After::Close
    }

    /// For a service to which copies are sent.
    async fn swallow(&self, input: &mut Reader<ReadHalf<Socket>>, output: &mut WriteHalf<Socket>) -> After {
        let _ = self.read_body(input).await;
        match output.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await {
            Ok(()) => After::Request,
            Err(_) => After::Close,
        }
    }

    /// A copy of a request, whose response nobody gets.
    async fn swallow_copy(
        &self,
        input: &mut Reader<ReadHalf<Socket>>,
        output: &mut WriteHalf<Socket>,
        random: &mut Random,
    ) -> After {
        let (fate, wait) = CopyFate::draw(random, self.world.setup().faults);
        let _ = self.read_body(input).await;
        tokio::time::sleep(wait).await;
        let text: &[u8] = match fate {
            CopyFate::Answered => b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nall",
            CopyFate::Failed => b"HTTP/1.1 503 Full\r\ncontent-length: 0\r\n\r\n",
            CopyFate::Cut => b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
            CopyFate::Never => return wait_for_end(input).await,
        };
        match output.write_all(text).await {
            Ok(()) if !matches!(fate, CopyFate::Cut) => After::Request,
            _ => After::Close,
        }
    }

    async fn answer(
        &self,
        number: usize,
        reply: &Reply,
        input: &mut Reader<ReadHalf<Socket>>,
        output: &mut WriteHalf<Socket>,
    ) -> After {
        let bodiless = self.head.word(0) == "HEAD";
        let mut text = String::new();
        for _ in 0..reply.informationals {
            text.push_str(INFORMATIONAL);
        }
        text.push_str(&format!("HTTP/1.1 {} Said\r\nx-id: {}\r\nx-try: {number}\r\n", reply.status, self.id));
        let until_close = reply.framing == Framing::UntilClose;
        match reply.framing {
            Framing::Sized(length) => text.push_str(&format!("content-length: {length}\r\n")),
            Framing::Chunked => text.push_str("transfer-encoding: chunked\r\n"),
            Framing::UntilClose | Framing::None => {}
        }
        let closes = !reply.keep_alive || until_close && !bodiless;
        if closes {
            text.push_str("connection: close\r\n");
        }
        text.push_str("\r\n");
        self.note(number, |made| (made.status, made.until_close) = (reply.status, until_close));
        let cut = |after| {
            // A response with a length is complete once all of that was sent.
            let all = reply.framing == Framing::Sized(reply.length);
            self.note(number, |made| made.said = if all && made.sent == reply.length { Said::All } else { Said::Cut });
            after
        };
        if output.write_all(text.as_bytes()).await.is_err() {
            return cut(After::Close);
        }
        let fate = if bodiless { Fate::Whole } else { reply.fate };
        let end = match fate {
            Fate::Closed(at) | Fate::Reset(at) | Fate::Silent(at) => at,
            _ => reply.length,
        };
        let mut sent = 0;
        while sent < end && !bodiless {
            let count = reply.stride.min(end - sent);
            let bytes = ledger::stretch(self.id, sent, count);
            let framed = match reply.framing {
                Framing::Chunked => [format!("{count:x}\r\n").as_bytes(), &bytes, b"\r\n"].concat(),
                _ => bytes,
            };
            // Counted first: the proxy may have it before this task goes on.
            sent += count;
            self.note(number, |made| made.sent = sent);
            if output.write_all(&framed).await.is_err() {
                return cut(After::Close);
            }
            if !reply.pause.is_zero() && sent < end {
                tokio::time::sleep(reply.pause).await;
            }
        }
        match fate {
            Fate::Closed(_) => return cut(After::Close),
            Fate::Reset(_) => {
                // It may overtake all of the response.
                let stale = self.carried > 0;
                self.note(number, |made| made.stale = stale);
                return cut(After::Reset);
            }
            Fate::Silent(_) => {
                let _ = cut(After::Close);
                return wait_for_end(input).await;
            }
            _ => {}
        }
        self.note(number, |made| made.said = Said::All);
        if reply.framing == Framing::Chunked && !bodiless {
            let last: &[u8] = if reply.trailers { b"0\r\nx-sum: right\r\n\r\n" } else { b"0\r\n\r\n" };
            if output.write_all(last).await.is_err() {
                return cut(After::Close);
            }
        }
        if closes { After::Close } else { After::Request }
    }
}

/// Sends nothing more, and waits for the end.
async fn wait_for_end<R: AsyncRead + Unpin>(input: &mut Reader<R>) -> After {
    while matches!(input.more().await, Ok(true)) {}
    After::Close
}
