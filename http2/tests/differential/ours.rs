//! Ours, fed in pieces.

use super::seen::{Message, Seen, frame, sorted};
use super::{ASKED, HEAD, STREAMS_MAX};
use ringway_http2::hpack::encode;
use ringway_http2::{Config, Connection, Event, Memory, MemoryLimits, PREFACE, Role};
use ringway_message::{Field, FieldName, Method, RequestHead, ResponseHead};
use std::collections::BTreeMap;

pub(crate) fn fields_of(fields: &[Field], arena: &[u8]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let list = fields.iter().filter(|field| field.kind != FieldName::Host);
    sorted(list.map(|field| (text(field.name.of(arena)), text(field.value.of(arena)))).collect())
}

pub(crate) fn ours(role: Role, pieces: &[&[u8]]) -> Seen {
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

pub(crate) fn note(connection: &mut Connection, event: Event, messages: &mut BTreeMap<u32, Message>) {
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
