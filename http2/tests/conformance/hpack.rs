//! RFC 7541, as a connection shows it: whatever cannot be decoded ends it.

use super::harness::*;
use ringway_http2::Reason;

fn ends_the_connection(encoded: &[u8]) {
    both(|peer| {
        let stream = peer.open();
        let head = [&peer.head()[..], encoded].concat();
        peer.feed(&headers(stream, END_STREAM, &head));
        peer.assert_connection_error(Reason::CompressionError);
    });
    // And in trailers.
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&headers(stream, END_STREAM, &[&block(&[("a", "b")])[..], encoded].concat()));
        peer.assert_connection_error(Reason::CompressionError);
    });
}

/// RFC 7541, 2.3.3. h2spec hpack/2.3.3/1.
#[test]
fn an_index_past_both_tables_is_an_error() {
    ends_the_connection(&[0x80 | 70]);
}

/// RFC 7541, 2.3.3. h2spec hpack/2.3.3/2.
#[test]
fn an_index_of_a_name_past_both_tables_is_an_error() {
    ends_the_connection(b"\x7f\x07\x05empty");
}

/// RFC 7541, 4.2. h2spec hpack/4.2/1.
#[test]
fn a_table_size_update_after_a_field_is_an_error() {
    ends_the_connection(&[0x20 | 1]);
}

/// RFC 7541, 5.2. h2spec hpack/5.2/1.
#[test]
fn a_padding_of_more_than_7_bits_is_an_error() {
    ends_the_connection(b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff");
}

/// RFC 7541, 5.2. h2spec hpack/5.2/2.
#[test]
fn a_padding_of_zeros_is_an_error() {
    ends_the_connection(b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90");
}

/// RFC 7541, 5.2. h2spec hpack/5.2/3.
#[test]
fn the_end_of_string_symbol_within_a_string_is_an_error() {
    ends_the_connection(b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f");
}

/// RFC 7541, 6.1. h2spec hpack/6.1/1.
#[test]
fn index_0_is_an_error() {
    ends_the_connection(&[0x80]);
}

/// RFC 7541, 6.3. h2spec hpack/6.3/1.
#[test]
fn a_table_size_past_the_announced_one_is_an_error() {
    both(|peer| {
        let stream = peer.open();
        peer.feed(&headers(stream, END_STREAM, &[&b"\x3f\xe2\x1f"[..], &peer.head()].concat()));
        peer.assert_connection_error(Reason::CompressionError);
    });
}
