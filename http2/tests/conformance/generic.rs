//! h2spec's `generic` group: what every endpoint must take.

use super::harness::*;
use ringway_http2::{HeadKind, Role};
use ringway_message::Method;

/// RFC 9113, 3.4. h2spec generic/1/1.
#[test]
fn a_connection_preface_is_accepted() {
    let mut peer = Peer::fresh(Role::Server);
    peer.feed(PREFACE);
    peer.feed(&settings(&[]));
    peer.assert_alive();
    let mut peer = Peer::fresh(Role::Client);
    peer.feed(&settings(&[]));
    peer.assert_alive();
}

/// RFC 9113, 5.1 and 5.3.2. h2spec generic/2/1.
#[test]
fn priority_is_accepted_on_an_idle_stream() {
    both(|peer| {
        peer.feed(&priority(1, 0, 255));
        peer.assert_alive();
    });
}

/// RFC 9113, 5.1. h2spec generic/2/2.
#[test]
fn a_window_update_is_accepted_on_a_half_closed_stream() {
    let mut peer = Peer::server();
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 0)]));
    peer.feed(&headers(1, END_STREAM, &block(&REQUEST)));
    assert_eq!(peer.data_sent(1), b"");
    peer.feed(&window_update(1, 1));
    assert_eq!(peer.data_sent(1), b"h");
    // A client whose backend has answered while the request goes on.
    let mut peer = Peer::client();
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 0)]));
    let stream = peer.begin(true);
    let key = peer.key(stream);
    assert_eq!(peer.run(|connection| connection.send_data(key, b"ab", false)), Ok(0));
    peer.feed(&window_update(stream, 1));
    assert_eq!(peer.run(|connection| connection.send_data(key, b"ab", false)), Ok(1));
    peer.assert_alive();
}

/// RFC 9113, 5.1. h2spec generic/2/3.
#[test]
fn priority_is_accepted_on_a_half_closed_stream() {
    let mut peer = Peer::server();
    peer.feed(&settings(&[(INITIAL_WINDOW_SIZE, 0)]));
    peer.feed(&headers(1, END_STREAM, &block(&REQUEST)));
    peer.feed(&priority(1, 0, 255));
    peer.feed(&window_update(1, 1));
    assert_eq!(peer.data_sent(1), b"h");
    let mut peer = Peer::client();
    let stream = peer.begin(true);
    peer.feed(&priority(stream, 0, 255));
    peer.assert_alive();
}

/// RFC 9113, 5.1. h2spec generic/2/4.
#[test]
fn a_reset_is_accepted_on_a_half_closed_stream() {
    for role in [Role::Server, Role::Client] {
        let mut peer = Peer::new(role).silent();
        let stream = peer.begin(true);
        peer.feed(&reset(stream, 8));
        assert!(peer.given.iter().any(|given| matches!(given, Given::Reset(id, _) if *id == stream)));
        peer.assert_alive();
    }
}

/// RFC 9113, 5.1. h2spec generic/2/5.
#[test]
fn priority_is_accepted_on_a_closed_stream() {
    let mut peer = Peer::server();
    peer.feed(&headers(1, END_STREAM, &block(&REQUEST)));
    peer.assert_served(1);
    peer.feed(&priority(1, 0, 255));
    peer.assert_alive();
    let mut peer = Peer::client();
    let stream = peer.open();
    peer.feed(&headers(stream, END_STREAM, &block(&RESPONSE)));
    peer.feed(&priority(stream, 0, 255));
    peer.assert_alive();
}

/// RFC 9113, 6.1. h2spec generic/3.1/1.
#[test]
fn a_data_frame_is_accepted() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&data(stream, END_STREAM, b"test"));
        assert!(peer.given.contains(&Given::Data(stream, b"test".to_vec())));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 6.1. h2spec generic/3.1/2.
#[test]
fn several_data_frames_are_accepted() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&data(stream, 0, b"te"));
        peer.feed(&data(stream, END_STREAM, b"st"));
        peer.assert_served(stream);
        let given: Vec<u8> = peer
            .given
            .iter()
            .filter_map(|given| if let Given::Data(_, bytes) = given { Some(bytes.clone()) } else { None })
            .flatten()
            .collect();
        assert_eq!(given, b"test");
    });
}

/// RFC 9113, 6.1. h2spec generic/3.1/3.
#[test]
fn a_padded_data_frame_is_accepted_and_its_padding_is_no_data() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&data(stream, END_STREAM | PADDED, b"\x06test\0\0\0\0\0\0"));
        assert!(peer.given.contains(&Given::Data(stream, b"test".to_vec())));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 6.2. h2spec generic/3.2/1.
#[test]
fn a_headers_frame_is_accepted() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers(stream, END_STREAM, &peer.head()));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 6.2. h2spec generic/3.2/2.
#[test]
fn a_padded_headers_frame_is_accepted() {
    both(|peer| {
        let stream = peer.open();
        let payload = [&[8][..], &peer.head(), &[0; 8]].concat();
        peer.feed(&headers(stream, END_STREAM | PADDED, &payload));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 6.2. h2spec generic/3.2/3.
#[test]
fn a_headers_frame_with_priority_is_accepted() {
    both(|peer| {
        let stream = peer.open();
        let payload = [&priority_payload(0, 255)[..], &peer.head()].concat();
        peer.feed(&headers(stream, END_STREAM | WITH_PRIORITY, &payload));
        peer.assert_served(stream);
    });
}

fn priority_then_headers(dependency: u32, weight: u8) {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&priority(stream, dependency, weight));
        peer.feed(&headers(stream, END_STREAM, &peer.head()));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 5.3.2 and 6.3. h2spec generic/3.3/1.
#[test]
fn the_lowest_priority_is_accepted() {
    priority_then_headers(0, 0);
}

/// RFC 9113, 5.3.2 and 6.3. h2spec generic/3.3/2.
#[test]
fn the_highest_priority_is_accepted() {
    priority_then_headers(0, 255);
}

/// RFC 9113, 5.3.2 and 6.3. h2spec generic/3.3/3.
#[test]
fn a_dependency_on_another_stream_is_accepted() {
    priority_then_headers(99, 255);
}

/// RFC 9113, 5.3.2 and 6.3. h2spec generic/3.3/4.
#[test]
fn an_exclusive_dependency_is_accepted() {
    priority_then_headers(1 << 31, 255);
}

/// RFC 9113, 5.3.2: PRIORITY opens nothing. h2spec generic/3.3/5.
#[test]
fn priority_of_an_idle_stream_closes_no_lower_one() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&priority(stream + 4, 0, 255));
        peer.feed(&headers(stream, END_STREAM, &peer.head()));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 6.4. h2spec generic/3.4/1.
#[test]
fn a_reset_is_accepted() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&reset(stream, 8));
        assert!(peer.given.iter().any(|given| matches!(given, Given::Reset(id, _) if *id == stream)));
        peer.assert_alive();
    });
}

/// RFC 9113, 6.5. h2spec generic/3.5/1.
#[test]
fn settings_are_accepted_and_acknowledged() {
    both(|peer| {
        peer.feed(&settings(&[
            (1, 4096),
            (MAX_CONCURRENT_STREAMS, 100),
            (INITIAL_WINDOW_SIZE, 65_535),
            (MAX_FRAME_SIZE, 16_384),
        ]));
        assert_eq!(peer.sent, [Frame { kind: SETTINGS, flags: ACK, stream: 0, payload: vec![] }]);
        peer.assert_alive();
    });
}

/// RFC 9113, 6.7. h2spec generic/3.7/1.
#[test]
fn a_ping_is_answered() {
    both(Peer::assert_alive);
}

/// RFC 9113, 6.8. h2spec generic/3.8/1.
#[test]
fn go_away_is_accepted_and_what_is_begun_ends_in_peace() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&go_away(stream, 0));
        peer.feed(&data(stream, END_STREAM, b"x"));
        peer.feed(&frame(PING, 0, 0, b"12345678"));
        assert_eq!(peer.error, None);
        assert!(peer.given.contains(&Given::End(stream)));
        assert_eq!(peer.frames(PING).len(), 1);
    });
}

/// RFC 9113, 6.9. h2spec generic/3.9/1.
#[test]
fn a_window_update_of_the_connection_is_accepted() {
    both(|peer| {
        peer.feed(&window_update(0, 1));
        peer.assert_alive();
    });
}

/// RFC 9113, 6.9. h2spec generic/3.9/2.
#[test]
fn a_window_update_of_a_stream_is_accepted() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&window_update(stream, 1));
        peer.feed(&data(stream, END_STREAM, b"x"));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 6.10. h2spec generic/3.10/1.
#[test]
fn a_continuation_is_accepted() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers_begun(stream, END_STREAM, &peer.head()));
        peer.feed(&continuation(stream, END_HEADERS, &block(&[("x-dummy", "1")])));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 6.10. h2spec generic/3.10/2.
#[test]
fn several_continuations_are_accepted_wherever_the_block_is_cut() {
    both(|peer| {
        let stream = peer.open();
        let whole = peer.head();
        peer.feed(&headers_begun(stream, END_STREAM, &whole[..3]));
        peer.feed(&continuation(stream, 0, &whole[3..5]));
        peer.feed(&continuation(stream, 0, &whole[5..]));
        peer.feed(&continuation(stream, END_HEADERS, &block(&[("x-dummy", "1")])));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 8.1. h2spec generic/4/1.
#[test]
fn a_get_request_is_answered() {
    let mut peer = Peer::server();
    let mut request = REQUEST;
    request[0].1 = "GET";
    peer.feed(&headers(1, END_STREAM, &block(&request)));
    peer.assert_served(1);
    assert_eq!(peer.data_sent(1), b"hello");
}

/// RFC 9113, 8.1. h2spec generic/4/2.
#[test]
fn a_head_request_is_answered() {
    let mut peer = Peer::server();
    peer.answer = Some(Vec::new());
    let mut request = REQUEST;
    request[0].1 = "HEAD";
    peer.feed(&headers(1, END_STREAM, &block(&request)));
    peer.assert_served(1);
    // A length that is only announced is no broken promise.
    let mut peer = Peer::client();
    let stream = peer.ask(Method::Head, true);
    peer.feed(&headers(stream, END_STREAM, &block(&with(&RESPONSE, &[("content-length", "5")]))));
    peer.assert_served(stream);
}

/// RFC 9113, 8.1. h2spec generic/4/3.
#[test]
fn a_post_request_is_answered() {
    let mut peer = Peer::server();
    peer.feed(&headers(1, 0, &block(&REQUEST)));
    peer.feed(&data(1, END_STREAM, b"test"));
    peer.assert_served(1);
}

/// RFC 9113, 8.1. h2spec generic/4/4.
#[test]
fn trailers_are_taken() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&data(stream, 0, b"test"));
        peer.feed(&headers(stream, END_STREAM, &block(&[("x-test", "ok")])));
        assert!(peer.given.contains(&Given::Trailers(stream, vec![("x-test".into(), "ok".into())])));
        peer.assert_served(stream);
    });
}

/// A field in one of the forms that HPACK has: it is a part of the head.
fn field_is_taken(encoded: &[u8]) {
    both(|peer| {
        let stream = peer.open();
        let head = [&peer.head()[..], encoded].concat();
        peer.feed(&headers(stream, END_STREAM, &head));
        peer.assert_served(stream);
    });
}

/// RFC 7541, 6.1. h2spec generic/5/1.
#[test]
fn an_indexed_field_is_taken() {
    field_is_taken(&[0x80 | 16]);
}

/// RFC 7541, 6.2.1. h2spec generic/5/2.
#[test]
fn a_field_to_be_indexed_is_taken_by_the_index_of_its_name() {
    field_is_taken(b"\x7a\x04test");
}

/// RFC 7541, 6.2.1. h2spec generic/5/3.
#[test]
fn a_field_to_be_indexed_is_taken_by_the_index_of_its_name_in_huffman_coding() {
    field_is_taken(b"\x7a\x83\x49\x50\x9f");
}

/// RFC 7541, 6.2.1. h2spec generic/5/4.
#[test]
fn a_field_to_be_indexed_is_taken_by_its_name() {
    field_is_taken(b"\x40\x04test\x04test");
}

/// RFC 7541, 6.2.1. h2spec generic/5/5.
#[test]
fn a_field_to_be_indexed_is_taken_by_its_name_in_huffman_coding() {
    field_is_taken(b"\x40\x83\x49\x50\x9f\x83\x49\x50\x9f");
}

/// RFC 7541, 6.2.2. h2spec generic/5/6.
#[test]
fn a_field_not_indexed_is_taken_by_the_index_of_its_name() {
    field_is_taken(b"\x0f\x2b\x04test");
}

/// RFC 7541, 6.2.2. h2spec generic/5/7.
#[test]
fn a_field_not_indexed_is_taken_by_the_index_of_its_name_in_huffman_coding() {
    field_is_taken(b"\x0f\x2b\x83\x49\x50\x9f");
}

/// RFC 7541, 6.2.2. h2spec generic/5/8.
#[test]
fn a_field_not_indexed_is_taken_by_its_name() {
    field_is_taken(b"\x00\x04test\x04test");
}

/// RFC 7541, 6.2.2. h2spec generic/5/9.
#[test]
fn a_field_not_indexed_is_taken_by_its_name_in_huffman_coding() {
    field_is_taken(b"\x00\x83\x49\x50\x9f\x83\x49\x50\x9f");
}

/// RFC 7541, 6.2.3. h2spec generic/5/10.
#[test]
fn a_field_never_indexed_is_taken_by_the_index_of_its_name() {
    field_is_taken(b"\x1f\x2b\x04test");
}

/// RFC 7541, 6.2.3. h2spec generic/5/11.
#[test]
fn a_field_never_indexed_is_taken_by_the_index_of_its_name_in_huffman_coding() {
    field_is_taken(b"\x1f\x2b\x83\x49\x50\x9f");
}

/// RFC 7541, 6.2.3. h2spec generic/5/12.
#[test]
fn a_field_never_indexed_is_taken_by_its_name() {
    field_is_taken(b"\x10\x04test\x04test");
}

/// RFC 7541, 6.2.3. h2spec generic/5/13.
#[test]
fn a_field_never_indexed_is_taken_by_its_name_in_huffman_coding() {
    field_is_taken(b"\x10\x83\x49\x50\x9f\x83\x49\x50\x9f");
}

/// RFC 7541, 6.3. h2spec generic/5/14.
#[test]
fn a_table_size_update_is_taken() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers(stream, END_STREAM, &[&b"\x3f\x61"[..], &peer.head()].concat()));
        peer.assert_served(stream);
    });
}

/// RFC 7541, 4.2. h2spec generic/5/15.
#[test]
fn several_table_size_updates_are_taken() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers(stream, END_STREAM, &[&b"\x3f\x61\x3f\xe1\x1f"[..], &peer.head()].concat()));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 8.1: before the final response. No number: h2spec's clients have none of it.
#[test]
fn informational_responses_are_given_in_their_order() {
    let mut peer = Peer::client();
    let stream = peer.ask(Method::Post, true);
    for status in ["100", "103", "103"] {
        peer.feed(&headers(stream, 0, &block(&[(":status", status)])));
    }
    peer.feed(&headers(stream, END_STREAM, &block(&RESPONSE)));
    let given: Vec<_> = ["100", "103", "103", "200"].map(|status| Given::Head(stream, status.into())).into();
    assert_eq!(peer.given[..4], given);
    let mut peer = Peer::server().silent();
    let stream = peer.begin(true);
    let key = peer.key(stream);
    let mut early = Vec::new();
    ringway_http2::hpack::encode::status(&mut early, 103);
    assert_eq!(peer.run(|connection| connection.send_head(key, &early, HeadKind::Informational, false)), Ok(()));
    assert_eq!(peer.frames(HEADERS)[0].flags & END_STREAM, 0);
}
