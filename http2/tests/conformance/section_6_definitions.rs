//! RFC 9113, 6: frame definitions.

use super::harness::*;
use ringway_http2::{Reason, Role};
use ringway_message::Method;

fn ends_the_connection(bytes: &[u8], reason: Reason) {
    both(|peer| {
        peer.feed(bytes);
        peer.assert_connection_error(reason);
    });
}

/// RFC 9113, 6.1. h2spec http2/6.1/1.
#[test]
fn data_of_the_connection_itself_ends_it() {
    ends_the_connection(&data(0, END_STREAM, b"test"), Reason::ProtocolError);
}

/// RFC 9113, 6.1. h2spec http2/6.1/2.
#[test]
fn data_on_a_stream_that_its_sender_has_ended_is_its_error() {
    for role in [Role::Server, Role::Client] {
        let mut peer = Peer::new(role).silent();
        let stream = peer.begin(true);
        peer.feed(&data(stream, 0, b"test"));
        peer.assert_stream_error(stream, Reason::StreamClosed);
    }
}

/// RFC 9113, 6.1. h2spec http2/6.1/3.
#[test]
fn padding_of_data_longer_than_its_frame_ends_the_connection() {
    for payload in [&b"\x06Test"[..], b"\x05Test", b"\xff", b"\x01"] {
        both(|peer| {
            let stream = peer.begin(false);
            peer.feed(&data(stream, PADDED, payload));
            peer.assert_connection_error(Reason::ProtocolError);
        });
    }
    // Padding that is all of it is none too long.
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&data(stream, PADDED | END_STREAM, b"\x04\0\0\0\0"));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 6.2. h2spec http2/6.2/1.
#[test]
fn priority_within_a_block_ends_the_connection() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers_begun(stream, 0, &peer.head()));
        peer.feed(&priority(stream, 0, 255));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 6.2. h2spec http2/6.2/2.
#[test]
fn headers_of_another_stream_within_a_block_end_the_connection() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers_begun(stream, 0, &peer.head()));
        peer.feed(&headers(stream + 2, 0, &peer.head()));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 6.2. h2spec http2/6.2/3.
#[test]
fn headers_of_the_connection_itself_end_it() {
    both(|peer| {
        peer.feed(&headers(0, END_STREAM, &peer.head()));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 6.2. h2spec http2/6.2/4.
#[test]
fn padding_of_headers_longer_than_their_frame_ends_the_connection() {
    for padding in [200, 255] {
        both(|peer| {
            let stream = peer.open();
            peer.feed(&headers(stream, END_STREAM | PADDED, &[&[padding][..], &peer.head()].concat()));
            peer.assert_connection_error(Reason::ProtocolError);
        });
    }
    // Longer than what priority leaves of it.
    both(|peer| {
        let stream = peer.open();
        let payload = [&[20][..], &priority_payload(0, 1), &[0; 19]].concat();
        peer.feed(&headers(stream, END_STREAM | PADDED | WITH_PRIORITY, &payload));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 6.3. h2spec http2/6.3/1.
#[test]
fn priority_of_the_connection_itself_ends_it() {
    ends_the_connection(&priority(0, 0, 255), Reason::ProtocolError);
}

/// RFC 9113, 6.3. h2spec http2/6.3/2.
#[test]
fn priority_of_a_wrong_length_is_an_error_of_the_stream() {
    for length in [0, 4, 6] {
        both(|peer| {
            let stream = peer.begin(false);
            peer.feed(&frame(PRIORITY, 0, stream, &vec![0; length]));
            peer.assert_stream_error(stream, Reason::FrameSizeError);
        });
    }
}

/// RFC 9113, 6.4. h2spec http2/6.4/1.
#[test]
fn a_reset_of_the_connection_itself_ends_it() {
    ends_the_connection(&reset(0, 8), Reason::ProtocolError);
}

/// RFC 9113, 6.4. h2spec http2/6.4/2.
#[test]
fn a_reset_of_a_stream_that_was_never_opened_ends_the_connection() {
    ends_the_connection(&reset(1, 8), Reason::ProtocolError);
}

/// RFC 9113, 6.4. h2spec http2/6.4/3.
#[test]
fn a_reset_of_a_wrong_length_ends_the_connection() {
    for length in [0, 3, 5] {
        both(|peer| {
            let stream = peer.begin(false);
            peer.feed(&frame(RST_STREAM, 0, stream, &vec![0; length]));
            peer.assert_connection_error(Reason::FrameSizeError);
        });
    }
}

/// RFC 9113, 6.5. h2spec http2/6.5/1.
#[test]
fn an_acknowledgement_of_settings_with_a_payload_ends_the_connection() {
    ends_the_connection(&frame(SETTINGS, ACK, 0, &[0]), Reason::FrameSizeError);
    ends_the_connection(&frame(SETTINGS, ACK, 0, &[0; 6]), Reason::FrameSizeError);
}

/// RFC 9113, 6.5. h2spec http2/6.5/2.
#[test]
fn settings_of_a_stream_end_the_connection() {
    ends_the_connection(&frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 1]), Reason::ProtocolError);
}

/// RFC 9113, 6.5. h2spec http2/6.5/3.
#[test]
fn settings_of_a_wrong_length_end_the_connection() {
    for length in [1, 3, 5, 7] {
        ends_the_connection(&frame(SETTINGS, 0, 0, &vec![0; length]), Reason::FrameSizeError);
    }
}

/// RFC 9113, 6.5.2. h2spec http2/6.5.2/1.
#[test]
fn enable_push_is_0_or_1() {
    ends_the_connection(&settings(&[(ENABLE_PUSH, 2)]), Reason::ProtocolError);
    // And from a server, 0.
    let mut peer = Peer::client();
    peer.feed(&settings(&[(ENABLE_PUSH, 1)]));
    peer.assert_connection_error(Reason::ProtocolError);
}

/// RFC 9113, 6.5.2. h2spec http2/6.5.2/2.
#[test]
fn an_initial_window_past_the_largest_ends_the_connection() {
    ends_the_connection(&settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]), Reason::FlowControlError);
}

/// RFC 9113, 6.5.2. h2spec http2/6.5.2/3.
#[test]
fn a_frame_size_below_the_least_ends_the_connection() {
    ends_the_connection(&settings(&[(MAX_FRAME_SIZE, 16_383)]), Reason::ProtocolError);
}

/// RFC 9113, 6.5.2. h2spec http2/6.5.2/4.
#[test]
fn a_frame_size_past_the_largest_ends_the_connection() {
    ends_the_connection(&settings(&[(MAX_FRAME_SIZE, 1 << 24)]), Reason::ProtocolError);
}

/// RFC 9113, 6.5.2. h2spec http2/6.5.2/5.
#[test]
fn unknown_settings_are_ignored() {
    both(|peer| {
        peer.feed(&settings(&[(0xff, 1), (0, 1), (0xffff, u32::MAX)]));
        peer.assert_alive();
    });
}

/// RFC 9113, 6.5.3. h2spec http2/6.5.3/1.
#[test]
fn settings_are_processed_in_their_order() {
    let mut peer = Peer::server();
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)]));
    peer.feed(&headers(1, END_STREAM, &block(&REQUEST)));
    assert_eq!(peer.data_sent(1), b"h");
    let mut peer = Peer::client();
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)]));
    let stream = peer.ask(Method::Post, false);
    let key = peer.key(stream);
    assert_eq!(peer.run(|connection| connection.send_data(key, b"hello", true)), Ok(1));
}

/// RFC 9113, 6.5.3. h2spec http2/6.5.3/2.
#[test]
fn settings_are_acknowledged_at_once() {
    both(|peer| {
        peer.feed(&settings(&[(1, 0)]));
        peer.feed(&settings(&[]));
        let acknowledged = Frame { kind: SETTINGS, flags: ACK, stream: 0, payload: vec![] };
        assert_eq!(peer.sent, [acknowledged.clone(), acknowledged]);
    });
}

/// RFC 9113, 6.7. h2spec http2/6.7/1.
#[test]
fn a_ping_is_answered_with_what_it_brought() {
    both(|peer| {
        peer.feed(&frame(PING, 0, 0, b"h2spec\0\xff"));
        assert_eq!(peer.sent, [Frame { kind: PING, flags: ACK, stream: 0, payload: b"h2spec\0\xff".to_vec() }]);
    });
}

/// RFC 9113, 6.7. h2spec http2/6.7/2.
#[test]
fn an_answer_to_a_ping_is_not_answered() {
    both(|peer| {
        peer.feed(&frame(PING, ACK, 0, b"invalid\0"));
        assert!(peer.sent.is_empty(), "{:?}", peer.sent);
        peer.assert_alive();
    });
}

/// RFC 9113, 6.7. h2spec http2/6.7/3.
#[test]
fn a_ping_of_a_stream_ends_the_connection() {
    ends_the_connection(&frame(PING, 0, 1, &[0; 8]), Reason::ProtocolError);
}

/// RFC 9113, 6.7. h2spec http2/6.7/4.
#[test]
fn a_ping_of_a_wrong_length_ends_the_connection() {
    for length in [0, 6, 7, 9] {
        ends_the_connection(&frame(PING, 0, 0, &vec![0; length]), Reason::FrameSizeError);
    }
}

/// RFC 9113, 6.8. h2spec http2/6.8/1.
#[test]
fn go_away_of_a_stream_ends_the_connection() {
    ends_the_connection(&frame(GOAWAY, 0, 1, &[0; 8]), Reason::ProtocolError);
}

/// RFC 9113, 6.8. Beyond h2spec.
#[test]
fn go_away_too_short_to_say_anything_ends_the_connection() {
    ends_the_connection(&frame(GOAWAY, 0, 0, &[0; 7]), Reason::FrameSizeError);
}

/// RFC 9113, 6.9. h2spec http2/6.9/1.
#[test]
fn a_window_update_of_nothing_ends_the_connection() {
    ends_the_connection(&window_update(0, 0), Reason::ProtocolError);
    // The reserved bit says nothing.
    ends_the_connection(&window_update(0, 1 << 31), Reason::ProtocolError);
}

/// RFC 9113, 6.9. h2spec http2/6.9/2.
#[test]
fn a_window_update_of_nothing_on_a_stream_is_its_error() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&window_update(stream, 0));
        peer.assert_stream_error(stream, Reason::ProtocolError);
    });
}

/// RFC 9113, 6.9. h2spec http2/6.9/3.
#[test]
fn a_window_update_of_a_wrong_length_ends_the_connection() {
    for length in [0, 3, 5] {
        ends_the_connection(&frame(WINDOW_UPDATE, 0, 0, &vec![1; length]), Reason::FrameSizeError);
        both(|peer| {
            let stream = peer.begin(false);
            peer.feed(&frame(WINDOW_UPDATE, 0, stream, &vec![1; length]));
            peer.assert_connection_error(Reason::FrameSizeError);
        });
    }
}

/// RFC 9113, 6.9.1. h2spec http2/6.9.1/1.
#[test]
fn no_more_is_sent_than_the_window_has_room_for() {
    let mut peer = Peer::server();
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 1)]));
    peer.feed(&headers(1, END_STREAM, &block(&REQUEST)));
    assert_eq!(peer.data_sent(1), b"h");
    peer.feed(&window_update(1, 3));
    assert_eq!(peer.data_sent(1), b"hell");
    peer.feed(&window_update(1, 30));
    assert_eq!(peer.data_sent(1), b"hello");
    assert_eq!(peer.sent.last().map(|frame| frame.flags), Some(END_STREAM));
}

/// RFC 9113, 6.9.1: the connection's window, which settings do not change. Beyond h2spec.
#[test]
fn no_more_is_sent_than_the_connection_s_window_has_room_for() {
    let mut peer = Peer::server();
    peer.answer = Some(vec![b'x'; 100_000]);
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 1 << 20)]));
    peer.feed(&headers(1, END_STREAM, &block(&REQUEST)));
    assert_eq!(peer.data_sent(1).len(), 65_535);
    peer.feed(&window_update(0, 10));
    assert_eq!(peer.data_sent(1).len(), 65_545);
    peer.feed(&window_update(0, 1 << 20));
    assert_eq!(peer.data_sent(1).len(), 100_000);
    assert!(peer.frames(DATA).iter().all(|frame| frame.payload.len() <= 16_384));
}

/// RFC 9113, 6.9.1. h2spec http2/6.9.1/2.
#[test]
fn a_window_of_the_connection_past_the_largest_ends_it() {
    both(|peer| {
        peer.feed(&window_update(0, u32::MAX >> 1));
        if peer.error.is_none() {
            peer.feed(&window_update(0, u32::MAX >> 1));
        }
        peer.assert_connection_error(Reason::FlowControlError);
    });
}

/// RFC 9113, 6.9.1. h2spec http2/6.9.1/3.
#[test]
fn a_window_of_a_stream_past_the_largest_is_its_error() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&window_update(stream, u32::MAX >> 1));
        peer.feed(&window_update(stream, u32::MAX >> 1));
        peer.assert_stream_error(stream, Reason::FlowControlError);
    });
}

/// RFC 9113, 6.9.1: up to the last byte it is none. Beyond h2spec.
#[test]
fn the_largest_window_is_taken() {
    both(|peer| {
        let stream = peer.begin(false);
        let rest = (u32::MAX >> 1) - 65_535;
        peer.feed(&window_update(stream, rest));
        peer.feed(&window_update(0, rest));
        peer.assert_alive();
        peer.feed(&window_update(stream, 1));
        peer.assert_stream_error(stream, Reason::FlowControlError);
        peer.feed(&window_update(0, 1));
        peer.assert_connection_error(Reason::FlowControlError);
    });
}

/// RFC 9113, 6.9.1: what was not let in. Beyond h2spec.
#[test]
fn data_past_the_window_that_we_gave_is_an_error() {
    both(|peer| {
        // Nothing is consumed: the stream's window, then the connection's.
        let stream = peer.begin(false);
        let window = 64 * 1024;
        let chunk = [b'x'; 16_384];
        let mut bytes = Vec::new();
        (0..window / chunk.len()).for_each(|_| bytes.extend(data(stream, 0, &chunk)));
        // Without a look at events, as a user that is busy.
        let taken = peer.connection.handle_bytes(&bytes, 0);
        assert!(taken.is_ok_and(|taken| taken == bytes.len()), "{taken:?}");
        let judged = peer.connection.handle_bytes(&data(stream, 0, &chunk), 0);
        peer.error = judged.err();
        peer.collect();
        let says = |frame: &&Frame| {
            frame.kind == RST_STREAM && frame.number(0) == 3 || frame.kind == GOAWAY && frame.number(4) == 3
        };
        assert!(peer.sent.iter().any(|frame| says(&frame)), "{:?}", peer.sent);
    });
}

/// RFC 9113, 6.9.2. h2spec http2/6.9.2/1.
#[test]
fn a_changed_initial_window_changes_the_windows_of_open_streams() {
    let mut peer = Peer::server();
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 0)]));
    peer.feed(&headers(1, END_STREAM, &block(&REQUEST)));
    assert_eq!(peer.data_sent(1), b"");
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 1)]));
    assert_eq!(peer.data_sent(1), b"h");
}

/// RFC 9113, 6.9.2. h2spec http2/6.9.2/2.
#[test]
fn a_window_may_be_negative() {
    let mut peer = Peer::server();
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 3)]));
    peer.feed(&headers(1, END_STREAM, &block(&REQUEST)));
    assert_eq!(peer.data_sent(1), b"hel");
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 2)]));
    peer.feed(&window_update(1, 1));
    assert_eq!(peer.data_sent(1), b"hel", "the window is 0 again");
    peer.feed(&window_update(1, 1));
    assert_eq!(peer.data_sent(1), b"hell");
}

/// RFC 9113, 6.9.2. h2spec http2/6.9.2/3.
#[test]
fn an_initial_window_that_makes_a_stream_s_too_large_ends_the_connection() {
    ends_the_connection(&settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]), Reason::FlowControlError);
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&window_update(stream, 1));
        peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, u32::MAX >> 1)]));
        peer.assert_connection_error(Reason::FlowControlError);
    });
}

/// RFC 9113, 6.10. h2spec http2/6.10/1.
#[test]
fn several_continuations_make_one_block() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers_begun(stream, END_STREAM, &peer.head()));
        peer.feed(&continuation(stream, 0, &block(&[("a", "1")])));
        peer.feed(&continuation(stream, END_HEADERS, &block(&[("b", "2")])));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 6.10. h2spec http2/6.10/2.
#[test]
fn a_block_that_a_continuation_does_not_end_goes_on_with_nothing_else() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers_begun(stream, END_STREAM, &peer.head()));
        peer.feed(&continuation(stream, 0, &block(&[("a", "1")])));
        peer.feed(&data(stream, END_STREAM, b"test"));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 6.10. h2spec http2/6.10/3.
#[test]
fn a_continuation_of_the_connection_itself_ends_it() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers_begun(stream, END_STREAM, &peer.head()));
        peer.feed(&continuation(0, END_HEADERS, b""));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 6.10. h2spec http2/6.10/4.
#[test]
fn a_continuation_after_headers_that_end_their_block_ends_the_connection() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&continuation(stream, END_HEADERS, &block(&[("a", "1")])));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 6.10. h2spec http2/6.10/5.
#[test]
fn a_continuation_after_one_that_ends_the_block_ends_the_connection() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers_begun(stream, 0, &peer.head()));
        peer.feed(&continuation(stream, END_HEADERS, &block(&[("a", "1")])));
        peer.feed(&continuation(stream, END_HEADERS, &block(&[("a", "1")])));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}

/// RFC 9113, 6.10. h2spec http2/6.10/6.
#[test]
fn a_continuation_after_data_ends_the_connection() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&data(stream, 0, b"test"));
        peer.feed(&continuation(stream, END_HEADERS, &block(&[("a", "1")])));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}
