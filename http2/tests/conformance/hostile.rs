//! Bad input, from either side: the error that the RFC names, on the stream where it may be, and what is held bounded.

use super::harness::*;
use ringway_http2::{HeadKind, Reason, Role};
use ringway_message::Method;

fn flood(peer: &Peer) -> Option<&'static str> {
    peer.error.and_then(|error| error.flood)
}

/// RFC 9113, 6.4: a stream error of a stream that was never opened is the connection's.
#[test]
fn no_idle_stream_is_reset() {
    for (bytes, reason) in [
        (frame(PRIORITY, 0, 7, &[0; 4]), Reason::FrameSizeError),
        (priority(7, 7, 255), Reason::ProtocolError),
        (priority(8, 8, 255), Reason::ProtocolError),
    ] {
        both(|peer| {
            peer.feed(&bytes);
            assert!(peer.frames(RST_STREAM).is_empty(), "{:?}", peer.sent);
            peer.assert_connection_error(reason);
        });
    }
    // A response to nothing, whatever else is wrong with it.
    let mut peer = Peer::client();
    let payload = [&priority_payload(1, 255)[..], &block(&RESPONSE)].concat();
    peer.feed(&headers(1, END_STREAM | WITH_PRIORITY, &payload));
    peer.assert_connection_error(Reason::ProtocolError);
}

#[test]
fn data_that_is_nothing_but_padding_is_empty() {
    for payload in [&b"\0"[..], &[&[255][..], &[0; 255]].concat()] {
        both(|peer| {
            let stream = peer.begin(false);
            (0..100).for_each(|_| peer.feed(&data(stream, PADDED, payload)));
            assert_eq!(peer.error, None);
            // Of a backend, ten times as much is taken.
            let more = (0..901).take_while(|_| {
                peer.feed(&data(stream, PADDED, payload));
                peer.error.is_none()
            });
            assert!([0, 900].contains(&more.count()));
            peer.assert_connection_error(Reason::EnhanceYourCalm);
            assert_eq!(flood(peer), Some("http2_empty_data_flood"));
        });
    }
}

/// RFC 9113, 5.1: frames may be under way when a stream is reset, on as many streams as there are.
#[test]
fn data_under_way_to_streams_that_we_have_reset_is_no_flood() {
    let mut peer = Peer::server();
    let streams: Vec<u32> = (0..STREAMS_MAX).map(|index| 1 + 2 * index).collect();
    for &stream in &streams {
        peer.feed(&headers(stream, 0, &block(&REQUEST)));
    }
    for &stream in &streams {
        let key = peer.key(stream);
        peer.run(|connection| connection.reset(key, Reason::InternalError));
    }
    for &stream in &streams {
        (0..650).for_each(|_| peer.feed(&data(stream, 0, &[b'x'; 100])));
        (0..650).for_each(|_| peer.feed(&data(stream, 0, b"abcde")));
        peer.feed(&data(stream, END_STREAM, b""));
    }
    peer.assert_alive();
    // The connection's window has been given back.
    peer.feed(&headers(1001, END_STREAM, &block(&REQUEST)));
    peer.assert_served(1001);
    // But not for ever.
    let tiny = data(1, 0, b"x").repeat(20_000);
    peer.feed(&tiny);
    peer.assert_connection_error(Reason::EnhanceYourCalm);
}

/// RFC 9113, 6.8.
#[test]
fn a_second_go_away_names_no_later_stream_than_the_first() {
    let mut peer = Peer::server().silent();
    peer.feed(&headers(1, 0, &block(&REQUEST)));
    peer.run(|connection| connection.go_away(false, Reason::NoError));
    peer.feed(&headers(3, END_STREAM, &block(&REQUEST)));
    peer.feed(&headers(5, END_STREAM, &block(&REQUEST)));
    peer.feed(&frame(PING, 0, 1, &[0; 8]));
    peer.assert_connection_error(Reason::ProtocolError);
    let told: Vec<u32> = peer.frames(GOAWAY).iter().map(|frame| frame.number(0)).collect();
    assert_eq!(told, [1, 1]);
    assert!(!peer.given.contains(&Given::Head(3, "POST /".into())));
}

#[test]
fn requests_after_the_last_goodbye_are_not_taken_for_ever() {
    let mut peer = Peer::server().silent();
    peer.feed(&headers(1, 0, &block(&REQUEST)));
    peer.run(|connection| connection.go_away(false, Reason::NoError));
    for index in 1..2000 {
        peer.feed(&headers(1 + 2 * index, END_STREAM, &block(&REQUEST)));
    }
    peer.assert_connection_error(Reason::EnhanceYourCalm);
}

/// RFC 9113, 8.1.1: what is wrong with one message is no other's matter, on whichever side it is.
#[test]
fn one_malformed_field_costs_nobody_else_anything() {
    for value in ["a\nb", "a\rb", "a\0b"] {
        let mut peer = Peer::client();
        let streams: Vec<u32> = (0..STREAMS_MAX).map(|_| peer.ask(Method::Post, false)).collect();
        let (bad, others) = streams.split_first().unwrap();
        for stream in others {
            peer.feed(&headers(*stream, 0, &block(&RESPONSE)));
        }
        // What the wrong block adds to the table is known afterwards.
        let wrong = [&block(&with(&RESPONSE, &[("x", value)]))[..], b"\x40\x05x-new\x01v"].concat();
        peer.feed(&headers(*bad, 0, &wrong));
        peer.assert_stream_error(*bad, Reason::ProtocolError);
        for stream in others {
            peer.feed(&data(*stream, 0, b"answer"));
            peer.feed(&headers(*stream, END_STREAM, &[0xbe]));
            assert!(peer.given.contains(&Given::Trailers(*stream, vec![("x-new".into(), "v".into())])));
            assert!(peer.given.contains(&Given::End(*stream)));
        }
        assert_eq!(peer.frames(RST_STREAM).len(), 1);

        let mut peer = Peer::server();
        for index in 0..STREAMS_MAX - 1 {
            peer.feed(&headers(1 + 2 * index, 0, &block(&REQUEST)));
        }
        let bad = 1 + 2 * STREAMS_MAX;
        peer.feed(&headers(bad, END_STREAM, &block(&with(&REQUEST, &[("x", value)]))));
        peer.assert_stream_error(bad, Reason::ProtocolError);
        for index in 0..STREAMS_MAX - 1 {
            peer.feed(&data(1 + 2 * index, END_STREAM, b"x"));
            peer.assert_served(1 + 2 * index);
        }
    }
}

/// How far a stream has come when it is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    HalfClosedRemote,
    HalfClosedLocal,
    Closed,
    ResetByPeer,
    ResetByUs,
}

const STATES: [State; 6] =
    [State::Open, State::HalfClosedRemote, State::HalfClosedLocal, State::Closed, State::ResetByPeer, State::ResetByUs];

/// A stream in that state, and whether its user still has it.
fn stream_in(peer: &mut Peer, state: State) -> u32 {
    let ends = matches!(state, State::HalfClosedRemote | State::Closed);
    let stream = peer.begin(ends);
    let key = peer.key(stream);
    if matches!(state, State::HalfClosedLocal | State::Closed) {
        if peer.role == Role::Server {
            let mut head = Vec::new();
            ringway_http2::hpack::encode::status(&mut head, 200);
            peer.run(|connection| connection.send_head(key, &head, HeadKind::Final, true)).unwrap();
        } else {
            peer.run(|connection| connection.send_data(key, b"", true)).unwrap();
        }
    }
    match state {
        State::ResetByPeer => peer.feed(&reset(stream, 8)),
        State::ResetByUs => peer.run(|connection| connection.reset(key, Reason::Cancel)),
        State::Open | State::HalfClosedRemote | State::HalfClosedLocal | State::Closed => {}
    }
    stream
}

#[test]
fn a_reset_ends_a_stream_once_in_whatever_state_it_is() {
    for role in [Role::Server, Role::Client] {
        for state in STATES {
            // By the peer, and again.
            let mut peer = Peer::new(role).silent();
            let stream = stream_in(&mut peer, state);
            let before = peer.given.iter().filter(|given| matches!(given, Given::Reset(..))).count();
            peer.feed(&reset(stream, 2));
            peer.feed(&reset(stream, 2));
            let told = peer.given.iter().filter(|given| matches!(given, Given::Reset(..))).count() - before;
            let is_live = matches!(state, State::Open | State::HalfClosedRemote | State::HalfClosedLocal);
            assert_eq!(told, usize::from(is_live), "{role:?} {state:?}");
            // RFC 9113, 5.4.2: no reset is answered with one.
            let sent = peer.frames(RST_STREAM).len();
            assert_eq!(sent, usize::from(state == State::ResetByUs), "{role:?} {state:?}");
            assert_eq!(peer.connection.streams(), 0, "{role:?} {state:?}");
            peer.assert_alive();

            // By us, and again; then its user lets go of it.
            let mut peer = Peer::new(role).silent();
            let stream = stream_in(&mut peer, state);
            let key = peer.key(stream);
            let before = peer.frames(RST_STREAM).len();
            peer.run(|connection| connection.reset(key, Reason::InternalError));
            peer.run(|connection| connection.reset(key, Reason::InternalError));
            peer.run(|connection| connection.close(key));
            peer.run(|connection| connection.close(key));
            assert_eq!(peer.frames(RST_STREAM).len() - before, usize::from(is_live), "{role:?} {state:?}");
            assert_eq!(peer.connection.streams(), 0, "{role:?} {state:?}");
            // What was under way does no harm.
            if is_live && state != State::HalfClosedRemote {
                peer.feed(&data(stream, END_STREAM, b"late"));
                peer.feed(&window_update(stream, 1));
            }
            peer.assert_alive();
        }
    }
}

/// RFC 9113, 8.5: a tunnel has no length, ends on each side by itself, and is reset like any stream.
#[test]
fn a_tunnel_goes_both_ways_until_each_has_ended() {
    let connect = [(":method", "CONNECT"), (":authority", "a.example:443")];
    let mut peer = Peer::server().silent();
    peer.feed(&headers(1, 0, &block(&connect)));
    assert!(peer.given.contains(&Given::Head(1, "CONNECT a.example:443".into())), "{:?}", peer.given);
    let key = peer.key(1);
    let mut head = Vec::new();
    ringway_http2::hpack::encode::status(&mut head, 200);
    peer.run(|connection| connection.send_head(key, &head, HeadKind::Final, false)).unwrap();
    peer.feed(&data(1, 0, b"to"));
    peer.run(|connection| connection.send_data(key, b"fro", true)).unwrap();
    peer.feed(&data(1, END_STREAM, b"more"));
    assert!(peer.given.contains(&Given::Data(1, b"more".to_vec())) && peer.given.contains(&Given::End(1)));
    assert_eq!(peer.data_sent(1), b"fro");
    peer.assert_alive();
    for wrong in [
        &[(":method", "CONNECT")][..],
        &[(":method", "CONNECT"), (":authority", "a.example")],
        &[(":method", "CONNECT"), (":authority", "a.example:0")],
        &[(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")],
        &[(":method", "CONNECT"), (":authority", "a:1"), (":scheme", "http")],
        &[(":method", "CONNECT"), (":authority", "a:1"), ("content-length", "3")],
        // It was not offered (RFC 8441, 3).
        &[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "a:1"),
            (":path", "/"),
        ],
    ] {
        let mut peer = Peer::server();
        peer.feed(&headers(1, 0, &block(wrong)));
        peer.assert_stream_error(1, Reason::ProtocolError);
    }
    // A length in the answer to CONNECT means nothing.
    let mut peer = Peer::client();
    let stream = peer.ask(Method::Connect, false);
    peer.feed(&headers(stream, 0, &block(&with(&RESPONSE, &[("content-length", "2")]))));
    peer.feed(&data(stream, END_STREAM, b"as long as it likes"));
    peer.assert_served(stream);
}

/// What nobody can say whose it is, and what is too large, is refused by its user; the stream's body is of no use, and the next is served.
#[test]
fn a_refused_head_is_answered_and_its_body_ignored() {
    let long = ("x-long", "v".repeat(120));
    for (fields, status) in [
        (block(&[REQUEST[0], REQUEST[1], REQUEST[2]]), "400"),
        (block(&with(&REQUEST[..3], &[(":authority", "u@a")])), "400"),
        ([block(&REQUEST), block(&[(long.0, &long.1)]).repeat(200)].concat(), "431"),
        ([block(&REQUEST), block(&[(long.0, &long.1)]).repeat(1000)].concat(), "431"),
    ] {
        let mut peer = Peer::server();
        let mut pieces = fields.chunks(16_384);
        let first = pieces.next().unwrap();
        let rest: Vec<&[u8]> = pieces.collect();
        peer.feed(&headers_begun(1, if rest.is_empty() { END_HEADERS } else { 0 }, first));
        for (index, piece) in rest.iter().enumerate() {
            peer.feed(&continuation(1, if index + 1 == rest.len() { END_HEADERS } else { 0 }, piece));
        }
        let answer = peer.frames(HEADERS)[0].clone();
        assert_eq!((answer.stream, answer.flags), (1, END_HEADERS | END_STREAM));
        let mut found = String::new();
        ringway_http2::hpack::Decoder::new(4096)
            .decode(&answer.payload, |field| found = String::from_utf8(field.value.to_vec()).unwrap())
            .unwrap();
        assert_eq!(found, status);
        peer.feed(&data(1, 0, b"ignored"));
        peer.feed(&headers(3, END_STREAM, &block(&REQUEST)));
        peer.assert_served(3);
    }
}

/// RFC 9110, 15.2: they are passed on. How many there may be does not depend on how their bytes come, nor on who takes them when.
#[test]
fn informational_responses_have_a_cap_that_knows_nothing_of_reads() {
    let early = |stream, link: &str| headers(stream, 0, &block(&[(":status", "103"), ("link", link)]));
    for (count, link, is_taken) in [(1, "x", true), (64, "x", true), (66, "x", false), (1000, "x", false)] {
        for at_once in [false, true] {
            let mut peer = Peer::client();
            let stream = peer.ask(Method::Post, true);
            if at_once {
                peer.feed(&early(stream, link).repeat(count));
            } else {
                (0..count).for_each(|_| peer.feed(&early(stream, link)));
            }
            peer.feed(&headers(stream, END_STREAM, &block(&RESPONSE)));
            if is_taken {
                peer.assert_served(stream);
                assert_eq!(peer.given.iter().filter(|given| matches!(given, Given::Head(..))).count(), count + 1);
            } else {
                peer.assert_stream_error(stream, Reason::EnhanceYourCalm);
            }
        }
    }
    // Long ones are fewer.
    let long = [&block(&[(":status", "103")])[..], &block(&[("link", &"x".repeat(120))]).repeat(100)].concat();
    let mut peer = Peer::client();
    let stream = peer.ask(Method::Post, true);
    peer.feed(&headers(stream, 0, &long).repeat(60));
    peer.feed(&headers(stream, END_STREAM, &block(&RESPONSE)));
    peer.assert_stream_error(stream, Reason::EnhanceYourCalm);
}
