//! RFC 9113, 5: streams.

use super::harness::*;
use ringway_http2::{Reason, Role};
use ringway_message::Method;

/// A stream that nobody has opened, and nobody has gone past.
fn idle(peer: &mut Peer) -> u32 {
    match peer.role {
        Role::Server => 1,
        Role::Client => peer.ask(Method::Post, true) + 2,
    }
}

/// RFC 9113, 5.1, idle. h2spec http2/5.1/1.
#[test]
fn data_on_an_idle_stream_ends_the_connection() {
    both(|peer| {
        let stream = idle(peer);
        peer.feed(&data(stream, END_STREAM, b"test"));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 5.1, idle. h2spec http2/5.1/2.
#[test]
fn a_reset_of_an_idle_stream_ends_the_connection() {
    both(|peer| {
        let stream = idle(peer);
        peer.feed(&reset(stream, 8));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 5.1, idle. h2spec http2/5.1/3.
#[test]
fn a_window_update_of_an_idle_stream_ends_the_connection() {
    both(|peer| {
        let stream = idle(peer);
        peer.feed(&window_update(stream, 100));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 5.1, idle. h2spec http2/5.1/4.
#[test]
fn a_continuation_of_an_idle_stream_ends_the_connection() {
    both(|peer| {
        let stream = idle(peer);
        peer.feed(&continuation(stream, END_HEADERS, &peer.head()));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 5.1, half-closed (remote). h2spec http2/5.1/5.
#[test]
fn data_after_the_end_of_a_stream_that_is_still_answered_is_its_error() {
    for role in [Role::Server, Role::Client] {
        let mut peer = Peer::new(role).silent();
        let stream = peer.begin(true);
        peer.feed(&data(stream, END_STREAM, b"test"));
        peer.assert_stream_error(stream, Reason::StreamClosed);
    }
}

/// RFC 9113, 5.1, half-closed (remote). h2spec http2/5.1/6.
#[test]
fn headers_after_the_end_of_a_stream_that_is_still_answered_are_its_error() {
    for role in [Role::Server, Role::Client] {
        let mut peer = Peer::new(role).silent();
        let stream = peer.begin(true);
        peer.feed(&headers(stream, END_STREAM, &peer.head()));
        peer.assert_stream_error(stream, Reason::StreamClosed);
    }
}

/// RFC 9113, 5.1 and 6.10. h2spec http2/5.1/7.
#[test]
fn a_continuation_after_the_end_of_a_stream_ends_the_connection() {
    for role in [Role::Server, Role::Client] {
        let mut peer = Peer::new(role).silent();
        let stream = peer.begin(true);
        peer.feed(&continuation(stream, END_HEADERS, &peer.head()));
        peer.assert_connection_error(Reason::ProtocolError);
    }
}

/// RFC 9113, 5.1, closed. h2spec http2/5.1/8.
#[test]
fn data_after_its_sender_s_reset_is_an_error_of_the_stream() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&reset(stream, 8));
        peer.feed(&data(stream, END_STREAM, b"test"));
        peer.assert_stream_error(stream, Reason::StreamClosed);
    });
}

/// RFC 9113, 5.1, closed. h2spec http2/5.1/9.
#[test]
fn headers_after_their_sender_s_reset_are_an_error_of_the_stream() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&reset(stream, 8));
        peer.feed(&headers(stream, END_STREAM, &peer.head()));
        peer.assert_stream_error(stream, Reason::StreamClosed);
    });
}

/// RFC 9113, 5.1 and 6.10. h2spec http2/5.1/10.
#[test]
fn a_continuation_after_its_sender_s_reset_ends_the_connection() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&reset(stream, 8));
        peer.feed(&continuation(stream, END_HEADERS, &peer.head()));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// A stream that has ended on both sides.
fn closed(peer: &mut Peer) -> u32 {
    let stream = peer.open();
    peer.feed(&headers(stream, END_STREAM, &peer.head()));
    peer.assert_served(stream);
    stream
}

/// RFC 9113, 5.1, closed. h2spec http2/5.1/11.
#[test]
fn data_on_a_closed_stream_is_an_error_of_its_state() {
    both(|peer| {
        let stream = closed(peer);
        peer.feed(&data(stream, END_STREAM, b"test"));
        peer.assert_stream_or_connection_error(stream, Reason::StreamClosed);
    });
}

/// RFC 9113, 5.1, closed. h2spec http2/5.1/12.
#[test]
fn headers_on_a_closed_stream_end_the_connection() {
    both(|peer| {
        let stream = closed(peer);
        peer.feed(&headers(stream, END_STREAM, &peer.head()));
        peer.assert_connection_error(Reason::StreamClosed);
    });
}

/// RFC 9113, 5.1 and 6.10. h2spec http2/5.1/13.
#[test]
fn a_continuation_on_a_closed_stream_ends_the_connection() {
    both(|peer| {
        let stream = closed(peer);
        peer.feed(&continuation(stream, END_HEADERS, &peer.head()));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 5.1, closed: they may have been on their way. Beyond h2spec.
#[test]
fn window_updates_and_resets_of_a_closed_stream_are_ignored() {
    both(|peer| {
        let stream = closed(peer);
        peer.feed(&window_update(stream, 1));
        peer.feed(&reset(stream, 8));
        peer.assert_alive();
    });
}

/// RFC 9113, 5.1, closed: what was on its way when we reset a stream is no error, is decoded, and counts against the connection's
/// window. Beyond h2spec.
#[test]
fn frames_of_a_stream_that_we_have_reset_are_ignored_and_understood() {
    both(|peer| {
        let stream = peer.begin(false);
        let key = peer.key(stream);
        peer.run(|connection| connection.reset(key, Reason::Cancel));
        assert_eq!(peer.frames(RST_STREAM).len(), 1);
        // What the block adds to the table of compression is known afterwards.
        peer.feed(&data(stream, 0, &[b'x'; 10_000]));
        peer.feed(&headers(stream, END_STREAM, b"\x40\x07x-later\x01y"));
        peer.assert_alive();
        assert_eq!(peer.frames(RST_STREAM).len(), 1, "{:?}", peer.sent);
        let next = match peer.role {
            Role::Server => stream + 2,
            Role::Client => peer.ask(Method::Post, true),
        };
        peer.feed(&headers(next, END_STREAM, &[&peer.head()[..], &[0xbe]].concat()));
        peer.assert_served(next);
    });
}

/// RFC 9113, 5.1.1. h2spec http2/5.1.1/1.
#[test]
fn a_stream_of_the_wrong_parity_ends_the_connection() {
    let mut peer = Peer::server();
    peer.feed(&headers(2, END_STREAM, &block(&REQUEST)));
    peer.assert_connection_error(Reason::ProtocolError);
    // Nor does a server open any.
    let mut peer = Peer::client();
    peer.feed(&headers(2, END_STREAM, &block(&RESPONSE)));
    peer.assert_connection_error(Reason::ProtocolError);
}

/// RFC 9113, 5.1.1. h2spec http2/5.1.1/2.
#[test]
fn a_new_stream_below_another_ends_the_connection() {
    let mut peer = Peer::server();
    peer.feed(&headers(5, END_STREAM, &block(&REQUEST)));
    peer.feed(&headers(3, END_STREAM, &block(&REQUEST)));
    let error = peer.error.expect("the connection ends");
    // Stream 3 is closed by stream 5 (5.1.1): both names of the error are right.
    assert!(matches!(error.reason, Reason::ProtocolError | Reason::StreamClosed), "{error:?}");
}

/// RFC 9113, 5.1.2. h2spec http2/5.1.2/1.
#[test]
fn streams_past_the_announced_number_are_refused_and_the_others_served() {
    let mut peer = Peer::server();
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 0)]));
    for index in 0..=STREAMS_MAX {
        peer.feed(&headers(1 + index * 2, END_STREAM, &block(&REQUEST)));
    }
    let refused = 1 + STREAMS_MAX * 2;
    peer.assert_stream_error(refused, Reason::RefusedStream);
    assert!(!peer.given.iter().any(|given| matches!(given, Given::Head(id, _) if *id == refused)));
    // Once there is room again, a next one is served.
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 100)]));
    peer.feed(&headers(refused + 2, END_STREAM, &block(&REQUEST)));
    peer.assert_served(refused + 2);
}

/// RFC 9113, 5.1.2. Beyond h2spec: a server may take fewer at any time, and none at all.
#[test]
fn a_client_opens_no_more_streams_than_its_server_takes() {
    let mut peer = Peer::client();
    peer.feed(&settings(&[(MAX_CONCURRENT_STREAMS, 2)]));
    let first = peer.ask(Method::Post, true);
    peer.ask(Method::Post, true);
    let full = |peer: &mut Peer| {
        peer.run(|connection| connection.open(&block(&REQUEST), true, Method::Post))
            .is_err_and(|error| error == ringway_http2::OpenError::Full)
    };
    assert!(full(&mut peer));
    peer.feed(&headers(first, END_STREAM, &block(&RESPONSE)));
    let key = peer.key(first);
    peer.run(|connection| connection.close(key));
    assert!(!full(&mut peer));
    peer.feed(&settings(&[(MAX_CONCURRENT_STREAMS, 0)]));
    assert!(full(&mut peer));
    peer.assert_alive();
}

/// RFC 9113, 5.3.2, and RFC 7540, 5.3.1. h2spec http2/5.3.1/1.
#[test]
fn headers_that_depend_on_their_own_stream_are_its_error() {
    both(|peer| {
        let stream = peer.open();
        let payload = [&priority_payload(stream, 255)[..], &peer.head()].concat();
        peer.feed(&headers(stream, END_STREAM | WITH_PRIORITY, &payload));
        peer.assert_stream_error(stream, Reason::ProtocolError);
    });
}

/// RFC 9113, 5.3.2, and RFC 7540, 5.3.1. h2spec http2/5.3.1/2.
#[test]
fn priority_that_depends_on_its_own_stream_is_its_error() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&priority(stream, stream, 255));
        peer.assert_stream_error(stream, Reason::ProtocolError);
    });
}

/// RFC 9113, 5.4.1. h2spec http2/5.4.1/1.
#[test]
fn the_connection_is_closed_after_an_error_of_it() {
    both(|peer| {
        peer.feed(&frame(PING, 0, 3, &[0; 8]));
        peer.assert_connection_error(Reason::ProtocolError);
        // Nothing is read any more.
        let sent = peer.sent.len();
        let _ = peer.run(|connection| connection.handle_bytes(&frame(PING, 0, 0, &[0; 8]), 0));
        assert_eq!(peer.sent.len(), sent);
    });
}

/// RFC 9113, 5.4.1. h2spec http2/5.4.1/2.
#[test]
fn go_away_names_the_last_stream_that_was_looked_at() {
    let mut peer = Peer::server();
    peer.feed(&headers(3, END_STREAM, &block(&REQUEST)));
    peer.feed(&frame(PING, 0, 5, &[0; 8]));
    peer.assert_connection_error(Reason::ProtocolError);
    assert_eq!(peer.sent.last().unwrap().number(0), 3);
    // A server has opened none.
    let mut peer = Peer::client();
    peer.ask(Method::Post, true);
    peer.feed(&frame(PING, 0, 5, &[0; 8]));
    peer.assert_connection_error(Reason::ProtocolError);
    assert_eq!(peer.sent.last().unwrap().number(0), 0);
}

/// RFC 9113, 5.5. h2spec http2/5.5/1.
#[test]
fn extensions_that_nobody_knows_are_ignored() {
    both(|peer| {
        peer.feed(&frame(0xf5, 0xff, 0, &[1; 50]));
        peer.feed(&settings(&[(0xf00d, 1)]));
        peer.assert_alive();
    });
}

/// RFC 9113, 5.5. h2spec http2/5.5/2.
#[test]
fn an_extension_s_frame_within_a_block_ends_the_connection() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers_begun(stream, 0, &peer.head()));
        peer.feed(&frame(0xf5, 0, 0, &[1; 8]));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}
