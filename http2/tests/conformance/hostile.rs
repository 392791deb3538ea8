//! Bad input, from either side: the error that the RFC names, on the stream where it may be, and what is held bounded.

use crate::harness::*;
use ringway_http2::Reason;

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
            peer.feed(&data(stream, PADDED, payload));
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
