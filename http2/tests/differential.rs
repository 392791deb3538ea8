//! Beside the `h2` crate, on the same bytes: the same is delivered, the same streams are reset with the same codes, and the same errors
//! end connections. Ours is fed at every split besides. Where the two differ, a test of its own says how, and why.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use ringway_http2::hpack::encode;
use ringway_http2::{Config, Connection, Event, Memory, MemoryLimits, PREFACE, Role};
use ringway_message::{Field, FieldName, Limits, Method, RequestHead, ResponseHead, may_trail};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{LocalSet, spawn_local, yield_now};

const HEAD: Limits = Limits { head_bytes_max: 16 * 1024, fields_max: 100 };
const STREAMS_MAX: u32 = 8;
/// Requests that a client has sent when its server's bytes come.
const ASKED: u32 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a stream has brought: start line and fields of its head, sorted by name; data; trailers; whether it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Message {
    head: Vec<(String, String)>,
    data: Vec<u8>,
    trailers: Vec<(String, String)>,
    ended: bool,
}

/// What an endpoint has made of its peer's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    /// Messages that came whole.
    messages: BTreeMap<u32, Message>,
    /// Streams that were reset, and with which code.
    resets: Vec<(u32, u32)>,
    /// The code that the connection ended with.
    error: Option<u32>,
}

impl Seen {
    fn new(messages: BTreeMap<u32, Message>, output: &[u8]) -> Self {
        let (mut resets, mut error, mut rest) = (Vec::new(), None, output);
        while let Some((header, after)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            let (payload, after) = after.split_at(length.min(after.len()));
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match header[3] {
                3 => resets.push((stream, number(0))),
                7 if number(4) != 0 => error = error.or(Some(number(4))),
                _ => {}
            }
            rest = after;
        }
        resets.sort_unstable();
        let messages = messages.into_iter().filter(|(_, message)| message.ended).collect();
        Self { messages, resets, error }
    }
}

fn sorted(mut list: Vec<(String, String)>) -> Vec<(String, String)> {
    // By name alone: values of one name keep their order.
    list.sort_by(|one, other| one.0.cmp(&other.0));
    list
}

// Ours.

fn fields_of(fields: &[Field], arena: &[u8]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let list = fields.iter().filter(|field| field.kind != FieldName::Host);
    sorted(list.map(|field| (text(field.name.of(arena)), text(field.value.of(arena)))).collect())
}

fn ours(role: Role, pieces: &[&[u8]]) -> Seen {
    let config = Config { head: HEAD, streams_max: STREAMS_MAX, extended_connect: true, ..Config::new(role) };
    let mut connection = Connection::new(config, Memory::new(MemoryLimits::default()));
    let (mut messages, mut output) = (BTreeMap::<u32, Message>::new(), Vec::new());
    let take = |connection: &mut Connection, output: &mut Vec<u8>| {
        let count = connection.output().len();
        output.extend_from_slice(connection.output());
        connection.advance_output(count);
    };
    let begin: &[u8] = if role == Role::Server { PREFACE } else { b"" };
    connection.handle_bytes(&[begin, &frame(4, 0, 0, &[]), &frame(4, 1, 0, &[])].concat(), 0).unwrap();
    if role == Role::Client {
        for _ in 0..ASKED {
            let mut block = Vec::new();
            encode::method(&mut block, b"GET");
            encode::scheme(&mut block, b"http");
            encode::path(&mut block, b"/", false);
            encode::authority(&mut block, b"a.example", false);
            connection.open(&block, true, Method::Get).unwrap();
        }
        take(&mut connection, &mut output);
        output.clear();
    }
    for piece in pieces {
        if connection.handle_bytes(piece, 0).is_err() {
            break;
        }
        while let Some(event) = connection.poll_event() {
            note(&mut connection, event, &mut messages);
        }
        take(&mut connection, &mut output);
    }
    while let Some(event) = connection.poll_event() {
        note(&mut connection, event, &mut messages);
    }
    take(&mut connection, &mut output);
    Seen::new(messages, &output)
}

fn note(connection: &mut Connection, event: Event, messages: &mut BTreeMap<u32, Message>) {
    match event {
        Event::Request { key, fault } => {
            let (mut head, mut arena) = (RequestHead::default(), Vec::new());
            assert!(connection.take_request(key, &mut head, &mut arena));
            let text = |span: ringway_message::Span| String::from_utf8_lossy(span.of(&arena)).into_owned();
            let start = match fault {
                Some(error) => format!("{error:?}"),
                None => format!("{} {} {}", text(head.method_span), text(head.authority), text(head.target)),
            };
            let mut list = vec![(String::new(), start)];
            list.extend(fields_of(&head.fields, &arena));
            messages.entry(key.id()).or_default().head = list;
        }
        Event::Response { key } => {
            let (mut head, mut arena) = (ResponseHead::default(), Vec::new());
            while connection.take_response(key, &mut head, &mut arena) {
                let mut list = vec![(String::new(), head.status.to_string())];
                list.extend(fields_of(&head.fields, &arena));
                messages.entry(key.id()).or_default().head.extend(list);
            }
        }
        Event::Data { key } => {
            while !connection.data(key).is_empty() {
                let piece = connection.data(key).to_vec();
                connection.consume(key, piece.len());
                messages.entry(key.id()).or_default().data.extend(piece);
            }
        }
        Event::Trailers { key } => {
            let (mut fields, mut arena) = (Vec::new(), Vec::new());
            assert!(connection.take_trailers(key, &mut fields, &mut arena));
            messages.entry(key.id()).or_default().trailers = fields_of(&fields, &arena);
        }
        Event::End { key } => messages.entry(key.id()).or_default().ended = true,
        Event::Reset { key, .. } => {
            messages.remove(&key.id());
            connection.close(key);
        }
        _ => {}
    }
}

// Theirs.

type Messages = Rc<RefCell<BTreeMap<u32, Message>>>;

fn map_of(fields: &http::HeaderMap, role: Role) -> Vec<(String, String)> {
    let mut list = Vec::new();
    for name in fields.keys().filter(|name| *name != "host") {
        let values: Vec<_> =
            fields.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        match name.as_str() {
            // RFC 9113, 8.2.3.
            "cookie" if role == Role::Server => list.push(("cookie".to_owned(), values.join("; "))),
            name => list.extend(values.into_iter().map(|value| (name.to_owned(), value))),
        }
    }
    sorted(list)
}

async fn read_body(mut body: h2::RecvStream, id: u32, messages: Messages) {
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return };
        let _ = body.flow_control().release_capacity(data.len());
        messages.borrow_mut().entry(id).or_default().data.extend_from_slice(&data);
    }
    let Ok(trailers) = body.trailers().await else { return };
    let mut messages = messages.borrow_mut();
    let message = messages.entry(id).or_default();
    if let Some(trailers) = trailers {
        message.trailers =
            map_of(&trailers, Role::Client).into_iter().filter(|(name, _)| may_trail(name.as_bytes())).collect();
    }
    message.ended = true;
}

/// Lets every task go on until none has anything to do.
async fn settle() {
    for _ in 0..300 {
        yield_now().await;
    }
}

/// Takes what is there, and waits for no more.
async fn drain(io: &mut DuplexStream) -> Vec<u8> {
    let mut output = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            biased;
            read = io.read(&mut buffer) => match read {
                Ok(count) if count > 0 => output.extend_from_slice(&buffer[..count]),
                _ => return output,
            },
            () = settle() => return output,
        }
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

fn server_of_h2(bytes: &[u8]) -> Seen {
    run(async {
        let (mut client, io) = tokio::io::duplex(1 << 20);
        let messages = Messages::default();
        let notes = Rc::clone(&messages);
        spawn_local(async move {
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(STREAMS_MAX).enable_connect_protocol();
            builder.max_header_list_size(HEAD.head_bytes_max as u32);
            let Ok(mut connection) = builder.handshake::<_, bytes::Bytes>(io).await else { return };
            let mut kept = Vec::new();
            while let Some(accepted) = connection.accept().await {
                let Ok((request, respond)) = accepted else { break };
                let id = respond.stream_id().as_u32();
                let (parts, body) = request.into_parts();
                let authority = parts.uri.authority().map_or_else(
                    || parts.headers.get("host").map(|host| host.to_str().unwrap_or_default()).unwrap_or_default(),
                    |authority| authority.as_str(),
                );
                let path = match parts.method == http::Method::CONNECT && parts.uri.path_and_query().is_none() {
                    true => authority,
                    false => parts.uri.path_and_query().map_or("", |path| path.as_str()),
                };
                let mut head = vec![(String::new(), format!("{} {authority} {path}", parts.method))];
                head.extend(map_of(&parts.headers, Role::Server));
                notes.borrow_mut().entry(id).or_default().head = head;
                // Nobody answers.
                kept.push(respond);
                spawn_local(read_body(body, id, Rc::clone(&notes)));
            }
            let _ = std::future::poll_fn(|context| connection.poll_closed(context)).await;
        });
        let begin = [PREFACE, &frame(4, 0, 0, &[]), &frame(4, 1, 0, &[])].concat();
        client.write_all(&begin).await.unwrap();
        settle().await;
        drain(&mut client).await;
        client.write_all(bytes).await.unwrap();
        settle().await;
        let output = drain(&mut client).await;
        let messages = messages.borrow().clone();
        Seen::new(messages, &output)
    })
}

fn client_of_h2(bytes: &[u8]) -> Seen {
    run(async {
        let (mut server, io) = tokio::io::duplex(1 << 20);
        server.write_all(&[frame(4, 0, 0, &[]), frame(4, 1, 0, &[])].concat()).await.unwrap();
        let (mut send, connection) =
            h2::client::Builder::new().enable_push(false).handshake::<_, bytes::Bytes>(io).await.unwrap();
        spawn_local(connection);
        let messages = Messages::default();
        let mut kept = Vec::new();
        for _ in 0..ASKED {
            let request = http::Request::get("http://a.example/").body(()).unwrap();
            let (mut response, stream) = send.send_request(request, true).unwrap();
            let id = response.stream_id().as_u32();
            kept.push(stream);
            let notes = Rc::clone(&messages);
            spawn_local(async move {
                let mut head = Vec::new();
                let answer = loop {
                    let next = std::future::poll_fn(|context| match response.poll_informational(context) {
                        Poll::Ready(Some(interim)) => Poll::Ready(interim.map(Err)),
                        Poll::Ready(None) | Poll::Pending => Pin::new(&mut response).poll(context).map_ok(Ok),
                    });
                    match next.await {
                        Ok(Ok(answer)) => break Ok(answer),
                        Ok(Err(interim)) => {
                            let interim: http::Response<()> = interim;
                            head.push((String::new(), interim.status().as_u16().to_string()));
                            head.extend(map_of(interim.headers(), Role::Client));
                        }
                        Err(error) => break Err(error),
                    }
                };
                let Ok(answer) = answer else { return };
                let (parts, body) = answer.into_parts();
                head.push((String::new(), parts.status.as_u16().to_string()));
                head.extend(map_of(&parts.headers, Role::Client));
                notes.borrow_mut().entry(id).or_default().head = head;
                read_body(body, id, notes).await;
            });
        }
        settle().await;
        drain(&mut server).await;
        server.write_all(bytes).await.unwrap();
        settle().await;
        let output = drain(&mut server).await;
        let messages = messages.borrow().clone();
        drop(kept);
        Seen::new(messages, &output)
    })
}

fn theirs(role: Role, bytes: &[u8]) -> Seen {
    match role {
        Role::Server => server_of_h2(bytes),
        Role::Client => client_of_h2(bytes),
    }
}

// The bytes.

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for part in [name, value] {
            block.push(part.len() as u8);
            block.extend_from_slice(part.as_bytes());
        }
    }
    block
}

const REQUEST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "a.example"), (":path", "/x?y")];

/// Fields that any message may have.
const FIELDS: &[&[(&str, &str)]] = &[
    &[],
    &[("a", "b")],
    &[("cookie", "x=1"), ("b", ""), ("cookie", "y=2"), ("cookie", "z=3")],
    &[("te", "trailers"), ("x_y", "1"), ("accept", "*/*")],
    &[("b", "1"), ("a", "2"), ("b", "3"), ("b", "")],
    &[("user-agent", "\u{e4} \t~")],
];

fn start(role: Role) -> &'static [(&'static str, &'static str)] {
    if role == Role::Server { &REQUEST } else { &[(":status", "200")] }
}

/// What is sent on one stream, frame by frame.
#[derive(Debug, Clone)]
struct Exchange {
    /// Informational responses before.
    interim: usize,
    fields: usize,
    /// Where the block is cut into HEADERS and CONTINUATION; past its end: nowhere.
    cut: usize,
    /// Data, and the padding of its frame.
    data: Vec<(usize, Option<u8>)>,
    says_length: bool,
    /// 0: the last frame of data or the head ends it; 1: an empty one does; 2: trailers do.
    end: u8,
}

impl Exchange {
    fn frames(&self, role: Role, stream: u32) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        if role == Role::Client {
            (0..self.interim)
                .for_each(|_| frames.push(frame(1, 4, stream, &block(&[(":status", "103"), ("link", "x")]))));
        }
        let length: usize = self.data.iter().map(|(length, _)| length).sum();
        let text = length.to_string();
        let mut fields = [start(role), FIELDS[self.fields % FIELDS.len()]].concat();
        if self.says_length {
            fields.push(("content-length", &text));
        }
        let whole = block(&fields);
        let ends_at_once = u8::from(self.end == 0 && self.data.is_empty());
        match whole.split_at_checked(self.cut) {
            // One piece: nothing comes between the frames of a block.
            Some((one, two)) => frames.push([frame(1, ends_at_once, stream, one), frame(9, 4, stream, two)].concat()),
            None => frames.push(frame(1, 4 | ends_at_once, stream, &whole)),
        }
        for (index, (length, padding)) in self.data.iter().enumerate() {
            let ends = u8::from(self.end == 0 && index + 1 == self.data.len());
            let bytes = vec![b'a' + index as u8; *length];
            frames.push(match padding {
                Some(padding) => {
                    let padded = [&[*padding][..], &bytes, &vec![0; usize::from(*padding)]].concat();
                    frame(0, ends | 8, stream, &padded)
                }
                None => frame(0, ends, stream, &bytes),
            });
        }
        match self.end {
            0 => {}
            1 => frames.push(frame(0, 1, stream, b"")),
            _ => frames.push(frame(1, 5, stream, &block(&[("t", "v"), ("grpc-status", "0"), ("host", "no")]))),
        }
        frames
    }
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let data = prop::collection::vec((0_usize..40, prop::option::weighted(0.3, 0_u8..9)), 0..4);
    (0_usize..3, 0_usize..9, 0_usize..200, data, any::<bool>(), 0_u8..3).prop_map(
        |(interim, fields, cut, data, says_length, end)| Exchange { interim, fields, cut, data, says_length, end },
    )
}

/// Frames that may come at any time.
fn neutral(which: usize) -> Vec<u8> {
    match which % 7 {
        0 => frame(6, 0, 0, b"12345678"),
        1 => frame(4, 0, 0, &[0, 4, 0, 0, 1, 9, 0, 99, 0, 0, 0, 0]),
        2 => frame(8, 0, 0, &[0, 0, 1, 0]),
        3 => frame(2, 0, 99, &[0, 0, 0, 7, 1]),
        4 => frame(0x20, 0xff, 3, b"unknown"),
        5 => frame(6, 1, 0, b"nobody's"),
        _ => Vec::new(),
    }
}

/// Exchanges whose frames mix, each stream's in their order, and heads in the order of streams.
fn mixed(role: Role, exchanges: &[Exchange], order: &[usize]) -> Vec<u8> {
    let mut left: Vec<_> = exchanges
        .iter()
        .enumerate()
        .map(|(index, exchange)| exchange.frames(role, 1 + 2 * index as u32).into_iter())
        .collect();
    let (mut bytes, mut opened) = (Vec::new(), 0);
    for step in order.iter().copied().chain(0..1000) {
        bytes.extend(neutral(step / 5));
        let index = step % left.len().max(1);
        if index > opened {
            continue;
        }
        opened = opened.max(index + 1);
        bytes.extend(left[index].next().unwrap_or_default());
        if left.iter().all(|left| left.len() == 0) {
            break;
        }
    }
    bytes
}

/// Frames, for people.
#[derive(Clone)]
struct Script(Vec<u8>);

impl std::fmt::Debug for Script {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = &self.0[..];
        while let Some((header, after)) = rest.split_first_chunk::<9>() {
            let (payload, after) = after.split_at(usize::from(header[2]) | usize::from(header[1]) << 8);
            let payload = String::from_utf8_lossy(payload);
            writeln!(out, "kind {} flags {:x} stream {}: {payload:?}", header[3], header[4], header[8])?;
            rest = after;
        }
        Ok(())
    }
}

fn script(role: Role) -> impl Strategy<Value = Script> {
    (prop::collection::vec(exchange(), 1..=ASKED as usize), prop::collection::vec(0_usize..40, 0..30))
        .prop_map(move |(exchanges, order)| Script(mixed(role, &exchanges, &order)))
}

fn agree(role: Role, script: &Script) -> Result<(), TestCaseError> {
    let (whole, theirs) = (ours(role, &[&script.0]), theirs(role, &script.0));
    prop_assert_eq!(&whole, &theirs, "ours is left");
    prop_assert_eq!((&whole.resets[..], whole.error), (&[][..], None));
    prop_assert!(!whole.messages.is_empty());
    for cut in 1..script.0.len() {
        let (one, two) = script.0.split_at(cut);
        prop_assert_eq!(&ours(role, &[one, two]), &whole, "cut at {}", cut);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_server_makes_of_a_client_s_bytes_what_h2_makes_at_every_split(script in script(Role::Server)) {
        agree(Role::Server, &script)?;
    }

    #[test]
    fn a_client_makes_of_a_server_s_bytes_what_h2_makes_at_every_split(script in script(Role::Client)) {
        agree(Role::Client, &script)?;
    }
}

/// What becomes of a wrong frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing: it means nothing.
    Ignored,
    /// Stream 1 is reset with this code.
    Stream(u32),
    /// The connection ends with this code.
    Connection(u32),
}

use Outcome::{Connection as Ends, Ignored, Stream as Resets};

const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

/// What is wrong, the bytes, what we make of it, and what `h2` makes of it where it departs.
type Wrong = (&'static str, Vec<u8>, Outcome, Option<Outcome>);

/// Frames that are wrong on stream 1, on which a head has come and not the end.
fn wrong_frames(role: Role) -> Vec<Wrong> {
    let head = |more: &[(&str, &str)]| block(&[start(role), more].concat());
    let mut list: Vec<Wrong> = vec![
        ("padding longer than data", frame(0, 8, 1, b"\x09data"), Ends(PROTOCOL), None),
        ("data on stream 0", frame(0, 0, 0, b"x"), Ends(PROTOCOL), None),
        ("headers on stream 0", frame(1, 4, 0, &head(&[])), Ends(PROTOCOL), None),
        ("headers shorter than padding", frame(1, 13, 1, b"\x09t"), Ends(PROTOCOL), None),
        ("trailers that end nothing", frame(1, 4, 1, &block(&[("t", "v")])), Resets(PROTOCOL), None),
        ("a field of HTTP/1 in trailers", frame(1, 5, 1, &block(&[("connection", "x")])), Resets(PROTOCOL), None),
        // RFC 9113, 8.1: h2 takes them.
        ("pseudo-fields in trailers", frame(1, 5, 1, &head(&[])), Resets(PROTOCOL), Some(Ignored)),
        // 8.1.1: a stream's error. h2 ends the connection, as the value is no HeaderValue while it is decoded.
        ("a line's end in a value", frame(1, 5, 1, &block(&[("t", "a\nb")])), Resets(PROTOCOL), Some(Ends(PROTOCOL))),
        ("upper case", frame(1, 5, 1, &block(&[("T", "a")])), Resets(PROTOCOL), Some(Ends(PROTOCOL))),
        ("an index past both tables", frame(1, 5, 1, b"\xff\x80\x01"), Ends(COMPRESSION), None),
        ("a block that is cut off", frame(1, 5, 1, b"\x00\x03a"), Ends(COMPRESSION), None),
        ("a continuation of nothing", frame(9, 4, 1, b""), Ends(PROTOCOL), None),
        ("priority on stream 0", frame(2, 0, 0, &[0; 5]), Ends(PROTOCOL), None),
        // 6.3: a stream's error.
        ("priority too short", frame(2, 0, 1, &[0; 4]), Resets(SIZE), Some(Ends(PROTOCOL))),
        ("priority on itself", frame(2, 0, 1, &[0, 0, 0, 1, 0]), Resets(PROTOCOL), None),
        ("a reset of stream 0", frame(3, 0, 0, &[0; 4]), Ends(PROTOCOL), None),
        ("a reset too short", frame(3, 0, 1, &[0; 3]), Ends(SIZE), None),
        ("a reset of an idle stream", frame(3, 0, 99, &[0; 4]), Ends(PROTOCOL), None),
        ("settings on a stream", frame(4, 0, 1, &[]), Ends(PROTOCOL), None),
        ("settings too short", frame(4, 0, 0, &[0; 5]), Ends(SIZE), None),
        ("acknowledged settings with a payload", frame(4, 1, 0, &[0; 6]), Ends(SIZE), None),
        ("settings nobody has sent, acknowledged", frame(4, 1, 0, &[]), Ends(PROTOCOL), None),
        ("push past 1", frame(4, 0, 0, &[0, 2, 0, 0, 0, 2]), Ends(PROTOCOL), None),
        // 6.5.2 names another code.
        ("a window past the largest", frame(4, 0, 0, &[0, 4, 0x80, 0, 0, 0]), Ends(FLOW), Some(Ends(PROTOCOL))),
        ("frames too small", frame(4, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]), Ends(PROTOCOL), None),
        ("ping on a stream", frame(6, 0, 1, &[0; 8]), Ends(PROTOCOL), None),
        ("ping too long", frame(6, 0, 0, &[0; 9]), Ends(SIZE), None),
        ("goodbye on a stream", frame(7, 0, 1, &[0; 8]), Ends(PROTOCOL), None),
        ("goodbye too short", frame(7, 0, 0, &[0; 7]), Ends(SIZE), None),
        ("a window update of 0", frame(8, 0, 0, &[0; 4]), Ends(PROTOCOL), None),
        // 6.9: a stream's error.
        ("a window update of 0 on a stream", frame(8, 0, 1, &[0; 4]), Resets(PROTOCOL), Some(Ends(PROTOCOL))),
        ("a window update too short", frame(8, 0, 1, &[0; 3]), Ends(SIZE), None),
        ("a window update of an idle stream", frame(8, 0, 99, &[0, 0, 0, 1]), Ends(PROTOCOL), None),
        // h2 does not look at it where nothing more is to be sent.
        (
            "a window of a stream too large",
            frame(8, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
            Resets(FLOW),
            (role == Role::Client).then_some(Ignored),
        ),
        ("a window of all too large", frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), Ends(FLOW), None),
        ("data on an idle stream", frame(0, 0, 99, b"x"), Ends(PROTOCOL), None),
        ("a frame past the largest", frame(0x20, 0, 0, &[0; 16_385]), Ends(SIZE), None),
        ("a push", frame(5, 4, 1, &[&[0, 0, 0, 2][..], &block(&REQUEST)].concat()), Ends(PROTOCOL), None),
    ];
    if role == Role::Server {
        list.extend([
            ("an even stream", frame(1, 5, 8, &head(&[])), Ends(PROTOCOL), None),
            ("a lower stream", [frame(1, 5, 9, &head(&[])), frame(1, 5, 7, &head(&[]))].concat(), Ends(PROTOCOL), None),
        ]);
    } else {
        list.push(("a response to nothing", frame(1, 5, 99, &head(&[])), Ends(PROTOCOL), None));
    }
    list
}

fn outcome(seen: &Seen) -> Outcome {
    match (seen.error, seen.resets.first()) {
        (Some(code), _) => Ends(code),
        (None, Some((1, code))) => Resets(*code),
        (None, None) => Ignored,
        (None, Some(other)) => panic!("{other:?}"),
    }
}

/// The code of a connection's error of size or of compression is another with h2 (RFC 9113, 4.2 and 4.3).
fn is_named_otherwise(ours: Outcome, theirs: Outcome) -> bool {
    matches!(ours, Ends(SIZE | COMPRESSION)) && theirs == Ends(PROTOCOL)
}

#[test]
fn a_wrong_frame_ends_what_it_ends_with_h2_wherever_it_is_cut() {
    let mut others = Vec::new();
    for role in [Role::Server, Role::Client] {
        for (name, bytes, expected, departs) in wrong_frames(role) {
            let good = frame(1, 4, 1, &block(start(role)));
            let script = [good, bytes].concat();
            assert_eq!(outcome(&ours(role, &[&script])), expected, "{role:?}: {name}");
            let theirs = outcome(&theirs(role, &script));
            if theirs != departs.unwrap_or(expected) && !is_named_otherwise(expected, theirs) {
                others.push((role, name, theirs));
            }
            for cut in 1..script.len().min(300) {
                let (one, two) = script.split_at(cut);
                assert_eq!(outcome(&ours(role, &[one, two])), expected, "{role:?}: {name}, cut at {cut}");
            }
        }
    }
    assert_eq!(others, [], "what h2 makes of it is not what is said here");
}

/// Heads that are wrong: what we make of them, and what h2 makes of them where it departs.
fn wrong_heads(role: Role) -> Vec<(&'static str, Vec<u8>, Option<Outcome>)> {
    let with = |more: &[(&str, &str)]| block(&[start(role), more].concat());
    let mut list = vec![
        ("a field of HTTP/1", with(&[("connection", "close")]), None),
        ("another", with(&[("transfer-encoding", "chunked")]), None),
        ("te", with(&[("te", "gzip")]), None),
        ("a late pseudo-field", with(&[("a", "b"), start(role)[0]]), None),
        ("a pseudo-field twice", block(&[&start(role)[..1], start(role)].concat()), None),
        ("a length that is none", with(&[("content-length", "x")]), None),
        // These end the connection with h2: it decodes names and values to types that refuse them.
        ("a line's end", with(&[("a", "b\nc")]), Some(Ends(PROTOCOL))),
        ("NUL", with(&[("a", "b\0c")]), Some(Ends(PROTOCOL))),
        ("upper case", with(&[("A", "b")]), Some(Ends(PROTOCOL))),
        ("a name that is no token", with(&[("a b", "c")]), Some(Ends(PROTOCOL))),
        ("an unknown pseudo-field", with(&[(":late", "b")]), Some(Ends(PROTOCOL))),
        // And these it takes.
        ("white space around a value", with(&[("a", " b")]), Some(Ignored)),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "0")]), Some(Ignored)),
    ];
    match role {
        Role::Server => list.extend([
            ("no method", block(&REQUEST[1..]), None),
            ("no scheme", block(&[REQUEST[0], REQUEST[2], REQUEST[3]]), None),
            ("no path", block(&REQUEST[..3]), None),
            ("an empty path", block(&[REQUEST[0], REQUEST[1], REQUEST[2], (":path", "")]), None),
            ("a status", block(&[&REQUEST[..], &[(":status", "200")]].concat()), None),
            ("a protocol without CONNECT", block(&[&[(":protocol", "x")][..], &REQUEST[..]].concat()), None),
            ("two hosts", with(&[("host", "a.example"), ("host", "a.example")]), Some(Ignored)),
            ("another host", with(&[("host", "b.example")]), Some(Ignored)),
            ("a fragment", block(&[REQUEST[0], REQUEST[1], REQUEST[2], (":path", "/a#b")]), Some(Ignored)),
        ]),
        Role::Client => list.extend([
            ("no status", block(&[("a", "b")]), None),
            ("switching protocols", block(&[(":status", "101")]), Some(Ignored)),
            ("a status out of range", block(&[(":status", "600")]), Some(Ignored)),
            ("a status of two digits", block(&[(":status", "20")]), Some(Ends(PROTOCOL))),
            ("a method", block(&[(":status", "200"), (":method", "GET")]), Some(Ignored)),
        ]),
    }
    list
}

#[test]
fn a_wrong_head_is_its_stream_s_error_and_the_next_stream_is_served() {
    let mut others = Vec::new();
    for role in [Role::Server, Role::Client] {
        for (name, head, departs) in wrong_heads(role) {
            let alone = frame(1, 4, 1, &head);
            let theirs = outcome(&theirs(role, &alone));
            if theirs != departs.unwrap_or(Resets(PROTOCOL)) {
                others.push((role, name, theirs));
            }
            let script = [&alone[..], &frame(1, 5, 3, &block(start(role)))].concat();
            for cut in 1..script.len() {
                let (one, two) = script.split_at(cut);
                let seen = ours(role, &[one, two]);
                assert_eq!(outcome(&seen), Resets(PROTOCOL), "{role:?}: {name}, cut at {cut}");
                assert!(seen.messages[&3].ended, "{role:?}: {name}, cut at {cut}");
            }
        }
    }
    assert_eq!(others, [], "what h2 makes of it is not what is said here");
}
