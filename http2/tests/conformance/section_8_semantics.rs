//! RFC 9113, 8: HTTP's semantics.

use super::harness::*;
use ringway_http2::{Reason, Role};
use ringway_message::Method;

/// A head that is malformed: its stream is reset, its user knows nothing of it, and the connection serves on.
fn is_malformed(head: &[u8]) {
    let mut peer = Peer::server();
    peer.feed(&headers(1, END_STREAM, head));
    peer.assert_stream_error(1, Reason::ProtocolError);
    assert!(!peer.given.iter().any(|given| matches!(given, Given::Head(..))), "{:?}", peer.given);
    // Also while its body is still to come, which is then ignored.
    let mut peer = Peer::server();
    peer.feed(&headers(1, 0, head));
    peer.feed(&data(1, END_STREAM, b"x"));
    peer.assert_stream_error(1, Reason::ProtocolError);
    peer.feed(&headers(3, END_STREAM, &block(&REQUEST)));
    peer.assert_served(3);
}

fn is_malformed_response(head: &[u8]) {
    let mut peer = Peer::client();
    let (bad, good) = (peer.ask(Method::Post, true), peer.ask(Method::Post, true));
    peer.feed(&headers(bad, END_STREAM, head));
    peer.assert_stream_error(bad, Reason::ProtocolError);
    assert!(!peer.given.iter().any(|given| matches!(given, Given::Head(..))), "{:?}", peer.given);
    assert!(peer.given.iter().any(|given| matches!(given, Given::Reset(id, _) if *id == bad)), "its user is told");
    peer.feed(&headers(good, END_STREAM, &block(&RESPONSE)));
    peer.assert_served(good);
}

fn malformed_in_both(more: &[(&str, &str)]) {
    is_malformed(&block(&with(&REQUEST, more)));
    is_malformed_response(&block(&with(&RESPONSE, more)));
}

/// RFC 9113, 8.1. h2spec http2/8.1/1.
#[test]
fn trailers_that_do_not_end_the_stream_are_its_error() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&data(stream, 0, b"test"));
        peer.feed(&headers(stream, 0, &block(&[("x-test", "ok")])));
        peer.assert_stream_error(stream, Reason::ProtocolError);
    });
}

/// RFC 9113, 8.2.1. h2spec http2/8.1.2/1.
#[test]
fn a_name_in_upper_case_is_malformed() {
    malformed_in_both(&[("X-TEST", "ok")]);
}

/// RFC 9113, 8.2.1. Beyond h2spec: what would be another line in HTTP/1.1.
#[test]
fn line_ends_and_nul_in_a_field_are_malformed() {
    for value in ["a\nb", "a\rb", "a\0b", "a\r\nx: y", " a", "a "] {
        malformed_in_both(&[("x-test", value)]);
    }
    for name in ["x\ny", "x\ry", "x\0y", "x y", "x:y", ""] {
        malformed_in_both(&[(name, "ok")]);
    }
}

/// RFC 9113, 8.3. h2spec http2/8.1.2.1/1.
#[test]
fn an_unknown_pseudo_field_is_malformed() {
    is_malformed(&block(&with(&[(":test", "ok")], &REQUEST)));
    is_malformed_response(&block(&with(&RESPONSE, &[(":test", "ok")])));
}

/// RFC 9113, 8.3. h2spec http2/8.1.2.1/2.
#[test]
fn a_pseudo_field_of_the_other_direction_is_malformed() {
    is_malformed(&block(&with(&[(":status", "200")], &REQUEST)));
    for (name, value) in REQUEST {
        is_malformed_response(&block(&with(&RESPONSE, &[(name, value)])));
    }
}

/// RFC 9113, 8.1 and 8.3. h2spec http2/8.1.2.1/3.
#[test]
fn a_pseudo_field_in_trailers_is_an_error_of_the_stream() {
    for flags in [0, END_STREAM] {
        for field in [(":method", "POST"), (":status", "200"), (":test", "x")] {
            both(|peer| {
                let stream = peer.begin(false);
                peer.feed(&data(stream, 0, b"test"));
                peer.feed(&headers(stream, flags, &block(&[field])));
                peer.assert_stream_error(stream, Reason::ProtocolError);
            });
        }
    }
}

/// RFC 9113, 8.3. h2spec http2/8.1.2.1/4.
#[test]
fn a_pseudo_field_after_others_is_malformed() {
    is_malformed(&block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        ("x-test", "ok"),
        (":path", "/"),
    ]));
    is_malformed_response(&block(&[("x-test", "ok"), (":status", "200")]));
}

/// RFC 9113, 8.2.2. h2spec http2/8.1.2.2/1.
#[test]
fn a_connection_specific_field_is_malformed() {
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        malformed_in_both(&[(name, "keep-alive")]);
    }
}

/// RFC 9113, 8.2.2. h2spec http2/8.1.2.2/2.
#[test]
fn te_says_trailers_or_is_malformed() {
    malformed_in_both(&[("trailers", "test"), ("te", "trailers, deflate")]);
    let mut peer = Peer::server();
    peer.feed(&headers(1, END_STREAM, &block(&with(&REQUEST, &[("te", "trailers")]))));
    peer.assert_served(1);
}

/// RFC 9113, 8.3.1. h2spec http2/8.1.2.3/1.
#[test]
fn an_empty_path_is_malformed() {
    let mut request = REQUEST;
    request[2].1 = "";
    is_malformed(&block(&request));
}

fn without(name: &str) -> Vec<u8> {
    let rest: Vec<_> = REQUEST.into_iter().filter(|field| field.0 != name).collect();
    block(&rest)
}

/// RFC 9113, 8.3.1. h2spec http2/8.1.2.3/2.
#[test]
fn a_request_without_a_method_is_malformed() {
    is_malformed(&without(":method"));
}

/// RFC 9113, 8.3.1. h2spec http2/8.1.2.3/3.
#[test]
fn a_request_without_a_scheme_is_malformed() {
    is_malformed(&without(":scheme"));
}

/// RFC 9113, 8.3.1. h2spec http2/8.1.2.3/4.
#[test]
fn a_request_without_a_path_is_malformed() {
    is_malformed(&without(":path"));
}

/// RFC 9113, 8.3.2: the one that a response has. Beyond h2spec.
#[test]
fn a_response_without_a_status_or_with_a_wrong_one_is_malformed() {
    is_malformed_response(&block(&[("x", "y")]));
    for status in ["", "2", "2000", "099", "600", "abc", "101"] {
        is_malformed_response(&block(&[(":status", status)]));
    }
}

fn twice(name: &str) {
    let field = *REQUEST.iter().find(|field| field.0 == name).unwrap();
    is_malformed(&block(&with(&[field], &REQUEST)));
}

/// RFC 9113, 8.3. h2spec http2/8.1.2.3/5.
#[test]
fn a_method_that_comes_twice_is_malformed() {
    twice(":method");
}

/// RFC 9113, 8.3. h2spec http2/8.1.2.3/6.
#[test]
fn a_scheme_that_comes_twice_is_malformed() {
    twice(":scheme");
}

/// RFC 9113, 8.3. h2spec http2/8.1.2.3/7.
#[test]
fn a_path_that_comes_twice_is_malformed() {
    twice(":path");
}

/// RFC 9113, 8.3. Beyond h2spec.
#[test]
fn an_authority_or_a_status_that_comes_twice_is_malformed() {
    twice(":authority");
    is_malformed_response(&block(&[(":status", "200"), (":status", "200")]));
}

/// RFC 9113, 8.1.1. h2spec http2/8.1.2.6/1.
#[test]
fn data_of_another_length_than_announced_is_an_error_of_the_stream() {
    for (length, bytes) in [("1", &b"test"[..]), ("5", b"test"), ("1", b""), ("0", b"x")] {
        both(|peer| {
            let stream = peer.open();
            peer.feed(&headers(stream, 0, &peer.head_with(&[("content-length", length)])));
            peer.feed(&data(stream, END_STREAM, bytes));
            peer.assert_stream_error(stream, Reason::ProtocolError);
            assert!(!peer.given.contains(&Given::End(stream)));
        });
    }
    // It says that something comes, and nothing does.
    malformed_whose_end_is_its_head("5");
}

fn malformed_whose_end_is_its_head(length: &str) {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers(stream, END_STREAM, &peer.head_with(&[("content-length", length)])));
        peer.assert_stream_error(stream, Reason::ProtocolError);
    });
}

/// RFC 9113, 8.1.1. h2spec http2/8.1.2.6/2.
#[test]
fn data_in_several_frames_of_another_length_than_announced_is_an_error_of_the_stream() {
    for length in ["1", "7", "9"] {
        both(|peer| {
            let stream = peer.open();
            peer.feed(&headers(stream, 0, &peer.head_with(&[("content-length", length)])));
            peer.feed(&data(stream, 0, b"test"));
            if peer.frames(RST_STREAM).is_empty() {
                peer.feed(&data(stream, END_STREAM, b"test"));
            }
            peer.assert_stream_error(stream, Reason::ProtocolError);
        });
    }
    // Trailers end it too early as well.
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers(stream, 0, &peer.head_with(&[("content-length", "9")])));
        peer.feed(&data(stream, 0, b"test"));
        peer.feed(&headers(stream, END_STREAM, &block(&[("x", "y")])));
        peer.assert_stream_error(stream, Reason::ProtocolError);
    });
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers(stream, 0, &peer.head_with(&[("content-length", "8")])));
        peer.feed(&data(stream, 0, b"test"));
        peer.feed(&data(stream, END_STREAM, b"test"));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 8.1.1: what has no body, has none. Beyond h2spec.
#[test]
fn data_after_a_head_without_a_body_is_an_error_of_the_stream() {
    for (method, status) in [(Method::Head, "200"), (Method::Post, "204"), (Method::Post, "304")] {
        let mut peer = Peer::client();
        let stream = peer.ask(method, true);
        peer.feed(&headers(stream, 0, &block(&[(":status", status)])));
        peer.feed(&data(stream, END_STREAM, b"x"));
        peer.assert_stream_error(stream, Reason::ProtocolError);
        // An empty frame that ends it is none.
        let mut peer = Peer::client();
        let stream = peer.ask(method, true);
        peer.feed(&headers(stream, 0, &block(&[(":status", status), ("content-length", "7")])));
        peer.feed(&data(stream, END_STREAM, b""));
        peer.assert_served(stream);
    }
}

/// RFC 9113, 8.1: an informational response ends nothing, and what follows it is a head. Beyond h2spec.
#[test]
fn an_informational_response_is_followed_by_a_head() {
    let mut peer = Peer::client();
    let stream = peer.ask(Method::Post, true);
    peer.feed(&headers(stream, END_STREAM, &block(&[(":status", "103")])));
    peer.assert_stream_error(stream, Reason::ProtocolError);
    let mut peer = Peer::client();
    let stream = peer.ask(Method::Post, true);
    peer.feed(&headers(stream, 0, &block(&[(":status", "103")])));
    peer.feed(&data(stream, END_STREAM, b"x"));
    peer.assert_stream_error(stream, Reason::ProtocolError);
}

/// RFC 9113, 8.1: DATA before any head. Beyond h2spec.
#[test]
fn data_before_a_response_is_an_error_of_the_stream() {
    let mut peer = Peer::client();
    let stream = peer.ask(Method::Post, true);
    peer.feed(&data(stream, 0, b"x"));
    peer.assert_stream_error(stream, Reason::ProtocolError);
}

/// RFC 9113, 8.4. h2spec http2/8.2/1.
#[test]
fn a_push_ends_the_connection() {
    let mut peer = Peer::server();
    let promise = [&3_u32.to_be_bytes()[..], &block(&REQUEST)].concat();
    peer.feed(&frame(PUSH_PROMISE, END_HEADERS, 1, &promise));
    peer.assert_connection_error(Reason::ProtocolError);
    // We have said that we take none.
    let peer = Peer::fresh(Role::Client);
    let enable_push =
        peer.sent[0].payload.chunks(6).find(|entry| entry[..2] == ENABLE_PUSH.to_be_bytes()).map(|entry| entry[5]);
    assert_eq!(enable_push, Some(0));
    let mut peer = Peer::client();
    let stream = peer.open();
    let promise = [&2_u32.to_be_bytes()[..], &block(&REQUEST)].concat();
    peer.feed(&frame(PUSH_PROMISE, END_HEADERS, stream, &promise));
    peer.assert_connection_error(Reason::ProtocolError);
}

/// RFC 9113, 8.3.1: one name for whoever looks at either. Beyond h2spec.
#[test]
fn a_host_that_is_not_the_authority_is_malformed() {
    is_malformed(&block(&with(&REQUEST, &[("host", "b.example")])));
    is_malformed(&block(&with(&REQUEST, &[("host", "a.example"), ("host", "a.example")])));
    let mut peer = Peer::server();
    peer.feed(&headers(1, END_STREAM, &block(&with(&REQUEST, &[("host", "A.example:80")]))));
    peer.assert_served(1);
}
