//! Clients and backends that speak HTTP/2, by the library, over the same networks: streams that are reset in any state, windows that
//! stay shut for a while, trailers, 1xx, refused streams, GOAWAY.

use super::backends::{Backend, Fate, INFORMATIONALS_ENDLESS, Reply};
use super::clients::{self, PATIENCE};
use super::floods;
use super::handing::{self, COPY, CopyFate, FORGED, KEYS, PREVIOUS};
use super::ledger::{self, Answer, Said};
use super::message::{Cut, Framing};
use super::random::Random;
use super::world::{WEB, World};
use crate::net::transport::memory::{Listener, Socket};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Sends bytes as the windows let it.
async fn send_all(stream: &mut SendStream<Bytes>, bytes: Vec<u8>) -> Result<(), h2::Error> {
    let mut bytes = Bytes::from(bytes);
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = poll_fn(|context| stream.poll_capacity(context)).await;
        let room = room.unwrap_or_else(|| Err(Reason::INTERNAL_ERROR.into()))?;
        stream.send_data(bytes.split_to(room.min(bytes.len())), false)?;
    }
    Ok(())
}

fn end(stream: &mut SendStream<Bytes>, trailers: bool) -> Result<(), h2::Error> {
    match trailers {
        true => stream.send_trailers(HeaderMap::from_iter([(
            http::HeaderName::from_static("x-sum"),
            HeaderValue::from_static("right"),
        )])),
        false => stream.send_data(Bytes::new(), true),
    }
}

/// Reads a body to its end; `Err`: it was cut, and that could be seen.
async fn read_all(stream: &mut RecvStream, pause: Duration, body: &mut Vec<u8>) -> Result<(), h2::Error> {
    while let Some(data) = stream.data().await {
        let data = data?;
        body.extend_from_slice(&data);
        tokio::time::sleep(pause).await;
        let _ = stream.flow_control().release_capacity(data.len());
    }
    stream.trailers().await.map(drop)
}

/// A client that comes again and again.
pub(super) async fn run(world: Rc<World>, number: u8, mut random: Random) {
    let mut port = 1024;
    while !world.is_over() {
        tokio::time::sleep(random.millis(1_500)).await;
        port += 1;
        let from = SocketAddr::from(([10, 9, 2, number], port));
        let Ok(socket) = world.network.connect_from(from, WEB.parse().expect("an address")).await else { continue };
        let wire = socket.wire();
        world.ledger().tell(&format!("client h{number} connects"));
        let window = random.pick(&[500, 4_000, 65_535, 1 << 20]);
        let builder = h2::client::Builder::new().initial_window_size(window).handshake::<_, Bytes>(socket);
        let Ok((send, connection)) = builder.await else { continue };
        let over = Rc::new(Cell::new(false));
        let ended = Rc::clone(&over);
        world.spawn(async move {
            let _ = connection.await;
            ended.set(true);
        });
        let open = Rc::new(Cell::new(0));
        for _ in 0..random.below(12) + 1 {
            let (world2, send, open2, random2) = (Rc::clone(&world), send.clone(), Rc::clone(&open), random.fork());
            open.set(open.get() + 1);
            world.spawn(async move {
                ask(&world2, send, random2).await;
                open2.set(open2.get() - 1);
            });
            tokio::time::sleep(random.millis(400)).await;
            if over.get() {
                break;
            }
        }
        if random.chance(world.setup().leaving / 2) {
            // Everything under way goes with it.
            for record in world.ledger().records.values_mut().filter(|record| record.ended.is_none()) {
                record.excused = true;
            }
            world.ledger().tell(&format!("client h{number} breaks off"));
            wire.reset();
        }
        let mut waited = 0;
        while open.get() > 0 && waited < 200 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            waited += 1;
        }
    }
}

async fn ask(world: &Rc<World>, send: SendRequest<Bytes>, mut random: Random) {
    let service = random.pick(&["api", "grpc"]);
    let Ok(mut send) = send.ready().await else { return };
    let (id, method, length) = clients::draw(world, &mut random, service);
    let leave = random.chance(world.setup().leaving).then(|| random.millis(1_500));
    if leave.is_some() {
        world.ledger().records.get_mut(&id).into_iter().for_each(|record| record.excused = true);
    }
    let path = if service == "api" { "api" } else { "h2" };
    let sized = length > 0 && random.chance(50);
    let mut request = Request::builder()
        .method(method.name())
        .uri(format!("http://sim/{path}/{id}"))
        .header("x-id", id)
        .header("x-key", id % KEYS);
    if id % 3 == 0 {
        request = request.header(PREVIOUS, FORGED).header(COPY, "copy");
    }
    if sized {
        request = request.header("content-length", length);
    }
    world.ledger().tell(&format!("request {id} is asked over HTTP/2: {} {length} of {service}", method.name()));
    let sent = send.send_request(request.body(()).expect("a request"), length == 0);
    let Ok((response, mut stream)) = sent else { return world.ledger().end(id, "not sent") };
    let (slow, trailers) = (random.chance(20), random.chance(30));
    let pause = random.millis(if slow { 300 } else { 1 });
    let slow = random.chance(15);
    let reads = random.millis(if slow { 100 } else { 1 });
    if slow {
        // With a small window, that may take longer than an exchange may.
        world.ledger().records.get_mut(&id).into_iter().for_each(|record| record.excused = true);
    }
    let mut answer = Answer::default();
    let mut left = false;
    let got = {
        let mut sending = pin!(async {
            let stride = length / 3 + 1;
            let mut at = 0;
            while at < length {
                let count = stride.min(length - at);
                send_all(&mut stream, ledger::stretch(id, at, count)).await?;
                at += count;
                tokio::time::sleep(pause).await;
            }
            if length > 0 { end(&mut stream, trailers && !sized) } else { Ok(()) }
        });
        let mut receiving = pin!(async {
            let (parts, mut body) = response.await?.into_parts();
            let field = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
            answer.status = parts.status.as_u16();
            answer.id = field("x-id").and_then(|value| value.parse().ok());
            answer.number = field("x-try").and_then(|value| value.parse().ok());
            answer.reason = field("x-ringway-reason").map(str::to_owned);
            read_all(&mut body, reads, &mut answer.body).await
        });
        let mut leaving = pin!(async {
            match leave {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        });
        let mut patience = pin!(tokio::time::sleep(PATIENCE));
        let mut sent = false;
        loop {
            tokio::select! {
                biased;
                got = &mut receiving => break Some(got),
                _ = &mut sending, if !sent => sent = true,
                () = &mut leaving => {
                    left = true;
                    break None;
                }
                () = &mut patience => break None,
            }
        }
    };
    match got {
        None if left => {
            let mut ledger = world.ledger();
            ledger.end(id, "its client resets the stream");
            if let Some(record) = ledger.records.get_mut(&id) {
                (record.left, record.gone) = (true, true);
            }
            drop(ledger);
            stream.send_reset(Reason::CANCEL);
        }
        None => {
            world.ledger().end(id, "nothing");
            world.ledger().violation(&format!("request {id} is never answered"));
        }
        Some(Ok(())) => {
            if answer.reason.is_some() {
                answer.body.clear();
            }
            answer.whole = true;
            world.ledger().handle_answer(id, &answer);
        }
        Some(Err(error)) => {
            world.ledger().tell(&format!("request {id}: {error}"));
            clients::judge_broken(world, id, answer, Cut::Ended { plain: false }, error.is_go_away() || error.is_io());
        }
    }
}

/// A backend's side.
pub(super) async fn serve_all(world: Rc<World>, backend: Rc<Backend>, listener: Listener, mut random: Random) {
    while let Ok((socket, _)) = listener.accept().await {
        let (world2, backend, random) = (Rc::clone(&world), Rc::clone(&backend), random.fork());
        world.spawn(async move { serve(world2, backend, socket, random).await });
    }
}

async fn serve(world: Rc<World>, backend: Rc<Backend>, socket: Socket, mut random: Random) {
    let wire = socket.wire();
    if random.chance(world.setup().faults / 4) {
        return floods::flood_as_backend(&world, &backend, socket, &mut random).await;
    }
    let builder = h2::server::Builder::new()
        .initial_window_size(random.pick(&[500, 2_000, 65_535]))
        .max_concurrent_streams(random.pick(&[1, 3, 100]))
        .enable_connect_protocol()
        .handshake::<_, Bytes>(socket);
    let Ok(mut connection) = builder.await else { return };
    let life = if random.chance(20) { random.below(10) } else { u64::MAX };
    let mut carried = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (world2, backend, wire) = (Rc::clone(&world), Rc::clone(&backend), wire.clone());
        let random = random.fork();
        world.spawn(async move {
            let id = request.headers().get("x-id").and_then(|value| value.to_str().ok()?.parse().ok());
            let Some(id) = id else {
                return world2.ledger().violation(&format!("{} has got a stream without an id", backend.id));
            };
            let field = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
            let (of, asked) = ((&*backend.id, backend.service), (id, request.method().as_str()));
            if handing::handle_told(&mut world2.ledger(), of, asked, (field(COPY), field(PREVIOUS))) {
                return swallow(&world2, respond, random).await;
            }
            let stream = Stream { world: &world2, backend: &backend, id, respond };
            if stream.run(request).await {
                // The connection goes, and with it all its streams.
                let mut ledger = world2.ledger();
                ledger
                    .records
                    .values_mut()
                    .filter(|record| record.ended.is_none())
                    .for_each(|record| record.excused = true);
                drop(ledger);
                world2.note_lost(&backend.id);
                wire.reset();
            }
        });
        carried += 1;
        if carried == life {
            connection.graceful_shutdown();
        }
    }
}

/// A copy of a request, whose response nobody gets.
async fn swallow(world: &World, mut respond: SendResponse<Bytes>, mut random: Random) {
    let (fate, wait) = CopyFate::draw(&mut random, world.setup().faults);
    tokio::time::sleep(wait).await;
    let status = if matches!(fate, CopyFate::Failed) { 503 } else { 200 };
    let response = Response::builder().status(status).body(()).expect("a response");
    match fate {
        CopyFate::Never => drop(poll_fn(|context| respond.poll_reset(context)).await),
        CopyFate::Cut => respond.send_reset(Reason::INTERNAL_ERROR),
        // It may have been given up meanwhile.
        CopyFate::Answered | CopyFate::Failed => drop(respond.send_response(response, true)),
    }
}

struct Stream<'a> {
    world: &'a World,
    backend: &'a Backend,
    id: u64,
    respond: SendResponse<Bytes>,
}

impl Stream<'_> {
    /// `true`: its connection must go with it.
    async fn run(mut self, request: Request<RecvStream>) -> bool {
        let (id, method) = (self.id, request.method().as_str().to_owned());
        let taken = self.world.ledger().handle_head(id, &self.backend.id, &method);
        let Some((number, reply)) = taken else { return false };
        if reply.fate == Fate::ClosedBefore {
            // Not processed.
            self.note(number, |made| (made.said, made.refused) = (Said::Cut, true));
            self.respond.send_reset(Reason::REFUSED_STREAM);
            return false;
        }
        let place = (self.backend.id.clone(), id, number);
        self.world.streams.borrow_mut().insert(place.clone());
        let result = self.serve(number, &reply, request, method == "HEAD").await;
        self.world.streams.borrow_mut().remove(&place);
        result.unwrap_or_else(|error| {
            self.world.ledger().tell(&format!("{} has done with request {id}: {error}", self.backend.id));
            self.note(number, |made| {
                if made.said == Said::Something {
                    made.said = Said::Cut;
                }
            });
            false
        })
    }

    fn note(&self, number: usize, change: impl FnOnce(&mut ledger::Try)) {
        if let Some(made) = self.world.ledger().of(self.id, number) {
            change(made);
        }
    }

    async fn serve(
        &mut self,
        number: usize,
        reply: &Reply,
        request: Request<RecvStream>,
        bodiless: bool,
    ) -> Result<bool, h2::Error> {
        let mut input = request.into_body();
        if !reply.early {
            let mut body = Vec::new();
            let read = read_all(&mut input, Duration::ZERO, &mut body).await;
            let wanted = self.world.ledger().records.get(&self.id).map_or(0, |record| record.body);
            let right = body.iter().enumerate().all(|(at, byte)| *byte == ledger::content(self.id, at));
            if !right || body.len() > wanted || read.is_ok() && body.len() != wanted {
                let (id, got) = (self.id, body.len());
                self.world
                    .ledger()
                    .violation(&format!("the body of request {id} is not what was sent: {got} of {wanted} bytes"));
            }
            read?;
        }
        let respond = &mut self.respond;
        let until = async |time: Option<Duration>, respond: &mut SendResponse<Bytes>| {
            let mut pause = pin!(tokio::time::sleep(time.unwrap_or(Duration::from_secs(3600))));
            tokio::select! {
                biased;
                reset = poll_fn(|context| respond.poll_reset(context)) => Err(h2::Error::from(reset?)),
                () = &mut pause => Ok(()),
            }
        };
        until(Some(reply.wait), respond).await?;
        match reply.fate {
            Fate::ResetBefore => {
                respond.send_reset(Reason::INTERNAL_ERROR);
                self.note(number, |made| made.said = Said::Cut);
                return Ok(false);
            }
            Fate::Never => return until(None, respond).await.map(|()| false),
            Fate::Garbage => {
                self.note(number, |made| (made.said, made.stale) = (Said::Cut, true));
                return Ok(true);
            }
            _ => {}
        }
        let informational = || Response::builder().status(103).header("link", "</x>").body(()).expect("a response");
        if reply.fate == Fate::Endless {
            self.note(number, |made| made.said = Said::Cut);
            for _ in 0..INFORMATIONALS_ENDLESS {
                self.respond.send_informational(informational())?;
                until(Some(Duration::from_millis(1)), &mut self.respond).await?;
            }
            let what = format!("{INFORMATIONALS_ENDLESS} informational responses to request {} are taken", self.id);
            self.world.ledger().violation(&what);
        }
        let respond = &mut self.respond;
        for _ in 0..reply.informationals {
            respond.send_informational(informational())?;
        }
        let mut response = Response::builder().status(reply.status).header("x-id", self.id).header("x-try", number);
        if matches!(reply.framing, Framing::Sized(_)) {
            response = response.header("content-length", reply.length);
        }
        let mut output = respond.send_response(response.body(()).expect("a response"), bodiless)?;
        self.note(number, |made| made.status = reply.status);
        self.send_body(number, reply, &mut output, bodiless).await
    }

    async fn send_body(
        &self,
        number: usize,
        reply: &Reply,
        output: &mut SendStream<Bytes>,
        bodiless: bool,
    ) -> Result<bool, h2::Error> {
        if bodiless {
            self.note(number, |made| made.said = Said::All);
            return Ok(false);
        }
        let end_at = match reply.fate {
            Fate::Closed(at) | Fate::Reset(at) | Fate::Silent(at) => at,
            _ => reply.length,
        };
        let until = async |time: Duration, output: &mut SendStream<Bytes>| {
            let mut pause = pin!(tokio::time::sleep(time));
            tokio::select! {
                biased;
                reset = poll_fn(|context| output.poll_reset(context)) => Err(h2::Error::from(reset?)),
                () = &mut pause => Ok(()),
            }
        };
        let mut sent = 0;
        while sent < end_at {
            let count = reply.stride.min(end_at - sent);
            // Counted first: the proxy may have it before this task goes on.
            sent += count;
            self.note(number, |made| made.sent = sent);
            send_all(output, ledger::stretch(self.id, sent - count, count)).await?;
            if !reply.pause.is_zero() && sent < end_at {
                until(reply.pause, output).await?;
            }
        }
        let all = reply.framing == Framing::Sized(sent);
        let said = if reply.fate == Fate::Whole || all { Said::All } else { Said::Cut };
        self.note(number, |made| made.said = said);
        match reply.fate {
            Fate::Closed(_) => output.send_reset(Reason::INTERNAL_ERROR),
            Fate::Reset(_) => output.send_reset(Reason::CANCEL),
            Fate::Silent(_) => until(Duration::from_secs(3600), output).await?,
            _ => end(output, reply.trailers)?,
        }
        Ok(false)
    }
}
