//! RFC 9113, 7: error codes.

use super::harness::*;

/// RFC 9113, 7. h2spec http2/7/1.
#[test]
fn go_away_with_an_unknown_code_is_one_like_any() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&go_away(stream, 0xff));
        peer.feed(&data(stream, END_STREAM, b"x"));
        peer.feed(&frame(PING, 0, 0, &[0; 8]));
        assert_eq!(peer.error, None);
        assert!(peer.given.contains(&Given::End(stream)));
        assert_eq!(peer.frames(PING).len(), 1);
    });
}

/// RFC 9113, 7. h2spec http2/7/2.
#[test]
fn a_reset_with_an_unknown_code_is_one_like_any() {
    both(|peer| {
        let stream = peer.begin(false);
        peer.feed(&reset(stream, 0xff));
        assert!(
            peer.given
                .iter()
                .any(|given| matches!(given, Given::Reset(id, reason) if *id == stream && reason.code() == 0xff))
        );
        peer.assert_alive();
    });
}
