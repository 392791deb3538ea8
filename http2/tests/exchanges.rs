//! Messages between two ends: heads, bodies, trailers, and how streams end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::{End, exchange, parse, response_block, trailer_block};
use ringway_http2::{Closed, Event, HeadKind, OpenError, Reason};
use ringway_message::Method;

fn pair() -> (End, End) {
    let (mut client, mut server) = (End::client(), End::server());
    exchange(&mut client, &mut server, usize::MAX);
    assert!(client.connection.settings_came() && server.connection.settings_came());
    client.events.clear();
    server.events.clear();
    (client, server)
}

#[test]
fn a_request_is_answered_however_the_bytes_are_cut() {
    for piece in [1, 2, 3, 7, 10, 100, usize::MAX] {
        let (mut client, mut server) = (End::client(), End::server());
        let key = client.open("POST", &[("content-length", "5"), ("x-a", "b")], false);
        assert_eq!(client.connection.send_data(key, b"hello", true), Ok(5));
        exchange(&mut client, &mut server, piece);
        let at = server.request().unwrap();
        let (head, arena) = server.request_head(at).unwrap();
        assert_eq!((head.method, head.target.of(&arena)), (Method::Post, &b"/"[..]));
        assert_eq!(head.value_of(&arena, b"x-a"), Some(&b"b"[..]));
        assert!(server.request_head(at).is_none());
        assert!(server.connection.is_received(at) && !server.connection.is_ended(at));
        assert_eq!(server.drain(at), b"hello");
        assert!(server.connection.is_ended(at));
        server.respond(at, 200, &[("x-c", "d")], false);
        assert_eq!(server.connection.send_data(at, b"world", false), Ok(5));
        let trailers = trailer_block(&[("grpc-status", "0")]);
        server.connection.send_head(at, &trailers, HeadKind::Trailers, true).unwrap();
        server.connection.close(at);
        exchange(&mut client, &mut server, piece);
        assert_eq!(client.response(key).unwrap().0, 200);
        assert_eq!(client.trailers(key), Some(vec![("grpc-status".into(), "0".into())]));
        assert_eq!(client.drain(key), b"world");
        assert!(client.connection.is_ended(key));
        let mut told = client.events.clone();
        told.retain(|event| *event != Event::Settings);
        told.dedup();
        let expected = [Event::Response { key }, Event::Data { key }, Event::Trailers { key }, Event::End { key }];
        assert_eq!(told, expected, "{piece}");
        client.connection.close(key);
        assert_eq!((client.connection.streams(), server.connection.streams()), (0, 0));
        assert_eq!((client.memory.used_bytes(), client.memory.heads_waiting()), (0, 0));
        assert!(client.resets().is_empty() && server.resets().is_empty());
    }
}

#[test]
fn informational_heads_come_in_their_order_before_the_final_one() {
    let (mut client, mut server) = pair();
    let key = client.open("POST", &[("expect", "100-continue")], false);
    exchange(&mut client, &mut server, usize::MAX);
    let at = server.request().unwrap();
    for status in [100, 103, 103] {
        let head = response_block(status, &[]);
        server.connection.send_head(at, &head, HeadKind::Informational, true).unwrap();
    }
    server.respond(at, 204, &[], true);
    // Nothing goes back to what is over.
    let head = response_block(200, &[]);
    for kind in [HeadKind::Informational, HeadKind::Final, HeadKind::Trailers] {
        assert_eq!(server.connection.send_head(at, &head, kind, true), Err(Closed));
    }
    exchange(&mut client, &mut server, usize::MAX);
    let statuses: Vec<u16> = std::iter::from_fn(|| client.response(key).map(|(status, _)| status)).collect();
    assert_eq!(statuses, [100, 103, 103, 204]);
    assert!(client.connection.is_ended(key));
    // The answer was complete: who has not sent all of the request need not.
    server.connection.close(at);
    exchange(&mut client, &mut server, usize::MAX);
    assert_eq!(client.resets(), [(1, Reason::NoError)]);
    assert_eq!(client.connection.send_data(key, b"x", true), Err(Closed));
}

#[test]
fn a_response_that_came_whole_outlives_the_reset_behind_it() {
    let (mut client, mut server) = pair();
    let key = client.open("POST", &[], false);
    exchange(&mut client, &mut server, usize::MAX);
    let at = server.request().unwrap();
    server.respond(at, 200, &[], false);
    assert_eq!(server.connection.send_data(at, b"enough", true), Ok(6));
    server.connection.close(at);
    exchange(&mut client, &mut server, usize::MAX);
    assert_eq!(client.response(key).unwrap().0, 200);
    assert_eq!(client.drain(key), b"enough");
    assert!(client.connection.is_ended(key));
    let last: Vec<&Event> = client.events.iter().rev().take(2).collect();
    assert!(matches!(last[..], [Event::Reset { reason: Reason::NoError, .. }, Event::End { .. }]), "{last:?}");
}

#[test]
fn a_stale_key_names_nothing() {
    let (mut client, mut server) = pair();
    let old = client.open("GET", &[], true);
    client.connection.close(old);
    // The slot is in use again.
    let new = client.open("GET", &[], true);
    client.connection.close(old);
    client.connection.reset(old, Reason::Cancel);
    client.connection.consume(old, 10);
    assert_eq!(client.connection.send_data(old, b"x", true), Err(Closed));
    assert!(client.connection.data(old).is_empty() && !client.connection.is_received(old));
    assert_eq!(client.connection.streams(), 1);
    exchange(&mut client, &mut server, usize::MAX);
    let at = server.request().unwrap();
    assert_eq!((at.id(), new.id()), (3, 3));
    server.respond(at, 200, &[], true);
    exchange(&mut client, &mut server, usize::MAX);
    assert_eq!(client.response(new).unwrap().0, 200);
}

#[test]
fn streams_past_what_the_peer_takes_wait_for_room() {
    let (mut client, mut server) = pair();
    client.give(&crate::common::settings(&[(3, 1)]));
    let first = client.open("GET", &[], true);
    let block = crate::common::request_block("GET", "/", &[]);
    assert_eq!(client.connection.open(&block, true, Method::Get), Err(OpenError::Full));
    client.take_output();
    client.events.clear();
    client.connection.close(first);
    client.poll();
    assert_eq!(client.events, [Event::Capacity]);
    // Down to none, and back.
    client.give(&crate::common::settings(&[(3, 0)]));
    assert_eq!(client.connection.open(&block, true, Method::Get), Err(OpenError::Full));
    assert!(!client.connection.has_capacity());
    client.events.clear();
    client.give(&crate::common::settings(&[(3, 7)]));
    assert!(client.events.contains(&Event::Capacity));
    assert!(client.connection.open(&block, true, Method::Get).is_ok());
    // A server opens none.
    assert_eq!(server.connection.open(&block, true, Method::Get), Err(OpenError::GoingAway));
}

#[test]
fn the_first_block_sets_the_table_of_the_peer_to_nothing_and_no_other_does() {
    let mut client = End::client();
    client.open("GET", &[], true);
    client.open("GET", &[], true);
    let blocks: Vec<_> =
        parse(&client.take_output()).into_iter().filter(|frame| frame.kind == crate::common::HEADERS).collect();
    assert_eq!((blocks[0].payload[0], blocks[1].payload[0]), (0x20, 0x82));
}

#[test]
fn heads_longer_than_a_frame_go_in_several() {
    let (mut client, mut server) = pair();
    let long = "v".repeat(45_000);
    let key = client.open("GET", &[("x-long", &long)], true);
    exchange(&mut client, &mut server, 1000);
    let at = server.request().unwrap();
    let (head, arena) = server.request_head(at).unwrap();
    assert_eq!(head.value_of(&arena, b"x-long").unwrap().len(), 45_000);
    server.respond(at, 200, &[("x-long", &long)], true);
    exchange(&mut client, &mut server, 1000);
    assert_eq!(client.response(key).unwrap().0, 200);
}

#[test]
fn the_end_of_the_transport_is_told_to_each_open_stream_once() {
    let (mut client, mut server) = pair();
    let keys = [client.open("GET", &[], true), client.open("GET", &[], true)];
    exchange(&mut client, &mut server, usize::MAX);
    client.connection.handle_end();
    client.connection.handle_end();
    client.poll();
    assert_eq!(client.resets().len(), 2);
    assert!(client.connection.is_over() && client.connection.streams() == 0);
    assert_eq!(client.connection.open(&[], true, Method::Get), Err(OpenError::GoingAway));
    keys.iter().for_each(|key| client.connection.close(*key));
}
