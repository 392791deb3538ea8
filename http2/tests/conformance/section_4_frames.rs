//! RFC 9113, 4: frames.

use super::harness::*;
use ringway_http2::Reason;

/// RFC 9113, 4.1. h2spec http2/4.1/1.
#[test]
fn frames_of_unknown_types_are_ignored() {
    both(|peer| {
        peer.feed(&frame(0x16, 0, 0, &[0; 8]));
        let stream = peer.begin(false);
        peer.feed(&frame(0x16, 0xff, stream, &[0; 100]));
        peer.feed(&frame(0xff, 0, 98, b""));
        peer.feed(&data(stream, END_STREAM, b""));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 4.1. h2spec http2/4.1/2.
#[test]
fn undefined_flags_are_ignored() {
    both(|peer| {
        peer.feed(&frame(PING, 0x16, 0, b"12345678"));
        assert_eq!(peer.frames(PING)[0].flags, ACK);
        let stream = peer.begin(false);
        peer.feed(&data(stream, END_STREAM | 0x62, b"x"));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 4.1. h2spec http2/4.1/3.
#[test]
fn the_reserved_bit_is_ignored() {
    both(|peer| {
        peer.feed(&frame(PING, 0, 1 << 31, b"12345678"));
        assert_eq!(peer.frames(PING)[0].flags, ACK);
        let stream = peer.begin(false);
        peer.feed(&data(stream | 1 << 31, END_STREAM, b"x"));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 4.2. h2spec http2/4.2/1.
#[test]
fn a_data_frame_of_16_kibibytes_is_taken() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&data(stream, END_STREAM, &[b'x'; 16_384]));
        peer.assert_served(stream);
    });
}

/// RFC 9113, 4.2. h2spec http2/4.2/2.
#[test]
fn a_data_frame_past_the_announced_size_is_an_error_of_its_size() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&data(stream, END_STREAM, &[b'x'; 16_385]));
        peer.assert_stream_or_connection_error(stream, Reason::FrameSizeError);
    });
}

/// RFC 9113, 4.2. h2spec http2/4.2/3.
#[test]
fn a_headers_frame_past_the_announced_size_ends_the_connection() {
    both(|peer| {
        let stream = peer.open();
        let head = [peer.head(), block(&[("x", "y")]).repeat(4000)].concat();
        peer.feed(&headers(stream, END_STREAM, &head));
        peer.assert_connection_error(Reason::FrameSizeError);
    });
}

/// RFC 9113, 4.3. h2spec http2/4.3/1.
#[test]
fn a_block_that_cannot_be_decoded_ends_the_connection() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers(stream, END_STREAM, b"\x40"));
        peer.assert_connection_error(Reason::CompressionError);
    });
    // Wherever a block is.
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&headers(stream, END_STREAM, b"\x40"));
        peer.assert_connection_error(Reason::CompressionError);
    });
}

/// RFC 9113, 4.3. h2spec http2/4.3/2.
#[test]
fn nothing_comes_between_the_frames_of_a_block() {
    for between in [
        priority(1, 0, 255),
        frame(PING, 0, 0, &[0; 8]),
        settings(&[]),
        window_update(0, 1),
        data(1, 0, b"x"),
        reset(1, 8),
    ] {
        both(|peer| {
            let stream = peer.open();
            peer.feed(&headers_begun(stream, 0, &peer.head()));
            peer.feed(&between);
            peer.assert_connection_error(Reason::ProtocolError);
        });
    }
}

/// RFC 9113, 4.3. h2spec http2/4.3/3.
#[test]
fn no_head_of_another_stream_comes_between_the_frames_of_a_block() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers_begun(stream, 0, &peer.head()));
        peer.feed(&headers(stream + 2, END_STREAM, &peer.head()));
        peer.assert_connection_error(Reason::ProtocolError);
    });
}
