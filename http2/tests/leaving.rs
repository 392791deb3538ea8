//! How connections end: GOAWAY both ways, PING, errors, SETTINGS that come too early or too often.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::{
    ACK, DATA, END_STREAM, End, GO_AWAY, HEADERS, PING, RESET, SETTINGS, exchange, frame, request_block, settings,
};
use ringway_http2::{By, Config, Event, OpenError, PREFACE, Reason, Role};
use ringway_message::Method;

fn server() -> End {
    End::started_server(Config::new(Role::Server), &[])
}

fn client() -> End {
    End::started_client(Config::new(Role::Client), &[])
}

fn go_away(last: u32, reason: Reason) -> Vec<u8> {
    frame(GO_AWAY, 0, 0, &[last.to_be_bytes(), reason.code().to_be_bytes()].concat())
}

#[test]
fn a_graceful_goodbye_takes_what_was_under_way_and_nothing_after() {
    let mut end = server();
    let first = end.give_request(1, "GET", &[], true);
    end.connection.go_away(true, Reason::NoError);
    end.connection.go_away(true, Reason::NoError);
    let frames = end.frames();
    assert_eq!(frames.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [GO_AWAY, PING]);
    assert_eq!((frames[0].number(), frames[0].reason()), (u32::MAX >> 1, Some(Reason::NoError)));
    // The peer had not read that yet.
    let second = end.give_request(3, "GET", &[], true);
    end.give(&frame(PING, ACK, 0, &frames[1].payload));
    let last = end.frames();
    assert_eq!((last.len(), last[0].kind, last[0].number()), (1, GO_AWAY, 3));
    // What comes now is not looked at, nor is it an error.
    end.events.clear();
    end.give(&frame(HEADERS, 4, 5, &request_block("POST", "/", &[])));
    end.give(&frame(DATA, END_STREAM, 5, b"body"));
    assert!(end.events.is_empty() && end.error.is_none() && end.frames().is_empty());
    for key in [first, second] {
        assert!(!end.connection.is_over());
        end.respond(key, 200, &[], true);
        end.connection.close(key);
    }
    assert!(end.connection.is_over());
}

#[test]
fn a_silent_peer_is_told_the_last_stream_all_the_same() {
    let mut end = server();
    end.give_request(7, "GET", &[], true);
    end.connection.go_away(true, Reason::NoError);
    end.take_output();
    end.connection.go_away(false, Reason::NoError);
    let last = end.frames();
    assert_eq!((last.len(), last[0].number(), last[0].reason()), (1, 7, Some(Reason::NoError)));
}

#[test]
fn streams_past_a_goaway_were_not_looked_at_and_the_others_go_on() {
    let mut end = client();
    let keys: Vec<_> = (0..4).map(|_| end.open("POST", &[], true)).collect();
    end.take_output();
    end.give(&go_away(u32::MAX >> 1, Reason::NoError));
    assert!(end.resets().is_empty());
    let block = request_block("GET", "/", &[]);
    assert_eq!(end.connection.open(&block, true, Method::Get), Err(OpenError::GoingAway));
    end.give(&go_away(3, Reason::NoError));
    assert!(end.events.contains(&Event::GoAway { reason: Reason::NoError, last: 3 }));
    let refused: Vec<u32> = end
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Reset { key, by: By::Peer, unprocessed: true, .. } => Some(key.id()),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [5, 7]);
    assert!(!end.connection.is_over());
    for key in &keys[..2] {
        end.give(&frame(HEADERS, 5, key.id(), &crate::common::response_block(200, &[])));
        assert_eq!(end.response(*key).unwrap().0, 200);
        end.connection.close(*key);
    }
    assert!(end.connection.is_over());
    keys[2..].iter().for_each(|key| end.connection.close(*key));
    // What it has given up it does not take back.
    end.give(&go_away(5, Reason::NoError));
    assert_eq!(end.error.unwrap().reason, Reason::ProtocolError);
}

#[test]
fn refused_streams_may_go_elsewhere_and_others_may_not() {
    let mut end = client();
    let (refused, cancelled) = (end.open("POST", &[], false), end.open("POST", &[], false));
    end.give(&frame(RESET, 0, 1, &[0, 0, 0, 7]));
    end.give(&frame(RESET, 0, 3, &[0, 0, 0, 8]));
    let told: Vec<(_, _, bool)> = end
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Reset { key, reason, unprocessed, .. } => Some((*key, *reason, *unprocessed)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(refused, Reason::RefusedStream, true), (cancelled, Reason::Cancel, false)]);
}

#[test]
fn an_error_tells_the_peer_and_each_stream_once() {
    let mut end = client();
    let keys = [end.open("GET", &[], true), end.open("GET", &[], true)];
    end.take_output();
    end.give(&frame(0x5, 4, 1, &[0, 0, 0, 2, 0x82]));
    assert_eq!(end.error.unwrap().reason, Reason::ProtocolError);
    assert_eq!(end.connection.error(), end.error);
    let last = end.frames();
    assert_eq!((last.len(), last[0].kind, last[0].reason()), (1, GO_AWAY, Some(Reason::ProtocolError)));
    let by = end.events.iter().filter(|event| matches!(event, Event::Reset { by: By::Connection, .. })).count();
    assert_eq!((by, end.connection.is_over()), (2, true));
    // Whatever comes now means nothing.
    assert_eq!(end.connection.handle_bytes(b"whatever", 0), Ok(8));
    end.connection.handle_end();
    end.poll();
    assert_eq!(end.resets().len(), 2);
    keys.iter().for_each(|key| end.connection.close(*key));
    assert!(end.frames().is_empty());
}

#[test]
fn the_preface_and_settings_come_first() {
    for (bytes, good) in [
        (&b"GET / HTTP/1.1\r\n"[..], false),
        (&PREFACE[..10], true),
        (&[PREFACE, &settings(&[])].concat(), true),
        (&[PREFACE, &frame(SETTINGS, ACK, 0, &[])].concat(), false),
        (&[PREFACE, &frame(PING, 0, 0, b"12345678")].concat(), false),
        (&[PREFACE, &frame(0xbe, 0, 0, b"")].concat(), false),
    ] {
        for piece in [1, bytes.len()] {
            let mut end = End::server();
            bytes.chunks(piece).for_each(|piece| end.give(piece));
            assert_eq!(end.error.is_none(), good, "{bytes:?}");
            assert!(good || end.error.unwrap().reason == Reason::ProtocolError);
        }
    }
    let mut end = End::client();
    end.give(&frame(HEADERS, 5, 1, &[0x88]));
    assert_eq!(end.error.unwrap().reason, Reason::ProtocolError);
}

#[test]
fn settings_are_acknowledged_each_and_acknowledgements_only_of_ours() {
    let mut end = End::server();
    end.take_output();
    end.give(&[PREFACE, &settings(&[]), &settings(&[(3, 7)])].concat());
    let frames = end.frames();
    assert_eq!(frames.iter().filter(|frame| (frame.kind, frame.flags) == (SETTINGS, ACK)).count(), 2);
    end.give(&frame(SETTINGS, ACK, 0, &[]));
    assert_eq!(end.error, None);
    end.give(&frame(SETTINGS, ACK, 0, &[]));
    assert_eq!(end.error.unwrap().reason, Reason::ProtocolError);
}

#[test]
fn pings_are_answered_and_answers_are_told() {
    let (mut client, mut server) = (End::client(), End::server());
    exchange(&mut client, &mut server, usize::MAX);
    client.events.clear();
    let heard = client.connection.heard();
    client.connection.ping(*b"12345678");
    exchange(&mut client, &mut server, 3);
    assert_eq!(client.events, [Event::Pong(*b"12345678")]);
    assert!(client.connection.heard() > heard && client.connection.heard_messages() == 0);
    // An answer to another than the last one asks nobody.
    client.events.clear();
    client.give(&frame(PING, ACK, 0, b"whatever"));
    assert!(client.events.is_empty() && client.error.is_none());
}

#[test]
fn a_client_that_says_goodbye_keeps_its_streams() {
    let (mut client, mut server) = (End::client(), End::server());
    let key = client.open("GET", &[], true);
    exchange(&mut client, &mut server, usize::MAX);
    client.connection.go_away(true, Reason::NoError);
    exchange(&mut client, &mut server, usize::MAX);
    assert!(!client.connection.is_over());
    let at = server.request().unwrap();
    server.respond(at, 200, &[], true);
    server.connection.close(at);
    exchange(&mut client, &mut server, usize::MAX);
    assert_eq!(client.response(key).unwrap().0, 200);
    assert!(client.connection.is_over());
}
