//! RFC 9113, 3: starting HTTP/2.

use super::harness::*;
use ringway_http2::{Reason, Role};

/// RFC 9113, 3.4. h2spec http2/3.5/1.
#[test]
fn settings_are_the_first_frame_that_is_sent() {
    for role in [Role::Server, Role::Client] {
        let mut peer = Peer::fresh(role);
        if role == Role::Server {
            peer.feed(PREFACE);
            peer.feed(&settings(&[]));
        }
        let first = peer.sent.first().expect("something is sent");
        assert_eq!((first.kind, first.flags & ACK, first.stream), (SETTINGS, 0, 0));
    }
}

/// RFC 9113, 3.4. h2spec http2/3.5/2.
#[test]
fn a_wrong_preface_ends_the_connection() {
    for wrong in
        [&b"INVALID CONNECTION PREFACE\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", b"GET / HTTP/1.1\r\n\r\n"]
    {
        let mut peer = Peer::fresh(Role::Server);
        peer.feed(wrong);
        peer.assert_connection_error(Reason::ProtocolError);
    }
}

/// RFC 9113, 3.4: whatever the first frame is, if it is not SETTINGS. Beyond h2spec.
#[test]
fn another_first_frame_than_settings_ends_the_connection() {
    for first in
        [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, ACK, 0, &[]), window_update(0, 1), headers(1, 1, &block(&REQUEST))]
    {
        for role in [Role::Server, Role::Client] {
            let mut peer = Peer::fresh(role);
            if role == Role::Server {
                peer.feed(PREFACE);
            }
            peer.feed(&first);
            peer.assert_connection_error(Reason::ProtocolError);
        }
    }
}

/// RFC 9113, 3.4. Beyond h2spec: a connection is read as it comes.
#[test]
fn a_preface_may_come_byte_by_byte() {
    let mut peer = Peer::fresh(Role::Server);
    let bytes = [PREFACE, &settings(&[]), &headers(1, END_STREAM, &block(&REQUEST))].concat();
    for byte in bytes {
        peer.feed(&[byte]);
    }
    peer.assert_served(1);
}
