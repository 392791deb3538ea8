//! Frames and heads that are wrong.

use super::ours::ours;
use super::scripts::{REQUEST, block, start};
use super::seen::{Seen, frame};
use super::theirs::theirs;
use ringway_http2::Role;
/// What becomes of a wrong frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing: it means nothing.
    Ignored,
    /// Stream 1 is reset with this code.
    Stream(u32),
    /// The connection ends with this code.
    Connection(u32),
}

use Outcome::{Connection as Ends, Ignored, Stream as Resets};

const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

/// What is wrong, the bytes, what we make of it, and what `h2` makes of it where it departs.
type Wrong = (&'static str, Vec<u8>, Outcome, Option<Outcome>);

/// Frames that are wrong on stream 1, on which a head has come and not the end.
fn wrong_frames(role: Role) -> Vec<Wrong> {
    let head = |more: &[(&str, &str)]| block(&[start(role), more].concat());
    let mut list: Vec<Wrong> = vec![
        ("padding longer than data", frame(0, 8, 1, b"\x09data"), Ends(PROTOCOL), None),
        ("data on stream 0", frame(0, 0, 0, b"x"), Ends(PROTOCOL), None),
        ("headers on stream 0", frame(1, 4, 0, &head(&[])), Ends(PROTOCOL), None),
        ("headers shorter than padding", frame(1, 13, 1, b"\x09t"), Ends(PROTOCOL), None),
        ("trailers that end nothing", frame(1, 4, 1, &block(&[("t", "v")])), Resets(PROTOCOL), None),
        ("a field of HTTP/1 in trailers", frame(1, 5, 1, &block(&[("connection", "x")])), Resets(PROTOCOL), None),
        // RFC 9113, 8.1: h2 takes them.
        ("pseudo-fields in trailers", frame(1, 5, 1, &head(&[])), Resets(PROTOCOL), Some(Ignored)),
        // 8.1.1: a stream's error. h2 ends the connection, as the value is no HeaderValue while it is decoded.
        ("a line's end in a value", frame(1, 5, 1, &block(&[("t", "a\nb")])), Resets(PROTOCOL), Some(Ends(PROTOCOL))),
        ("upper case", frame(1, 5, 1, &block(&[("T", "a")])), Resets(PROTOCOL), Some(Ends(PROTOCOL))),
        ("an index past both tables", frame(1, 5, 1, b"\xff\x80\x01"), Ends(COMPRESSION), None),
        ("a block that is cut off", frame(1, 5, 1, b"\x00\x03a"), Ends(COMPRESSION), None),
        ("a continuation of nothing", frame(9, 4, 1, b""), Ends(PROTOCOL), None),
        ("priority on stream 0", frame(2, 0, 0, &[0; 5]), Ends(PROTOCOL), None),
        // 6.3: a stream's error.
        ("priority too short", frame(2, 0, 1, &[0; 4]), Resets(SIZE), Some(Ends(PROTOCOL))),
        ("priority on itself", frame(2, 0, 1, &[0, 0, 0, 1, 0]), Resets(PROTOCOL), None),
        ("a reset of stream 0", frame(3, 0, 0, &[0; 4]), Ends(PROTOCOL), None),
        ("a reset too short", frame(3, 0, 1, &[0; 3]), Ends(SIZE), None),
        ("a reset of an idle stream", frame(3, 0, 99, &[0; 4]), Ends(PROTOCOL), None),
        ("settings on a stream", frame(4, 0, 1, &[]), Ends(PROTOCOL), None),
        ("settings too short", frame(4, 0, 0, &[0; 5]), Ends(SIZE), None),
        ("acknowledged settings with a payload", frame(4, 1, 0, &[0; 6]), Ends(SIZE), None),
        ("settings nobody has sent, acknowledged", frame(4, 1, 0, &[]), Ends(PROTOCOL), None),
        ("push past 1", frame(4, 0, 0, &[0, 2, 0, 0, 0, 2]), Ends(PROTOCOL), None),
        // 6.5.2 names another code.
        ("a window past the largest", frame(4, 0, 0, &[0, 4, 0x80, 0, 0, 0]), Ends(FLOW), Some(Ends(PROTOCOL))),
        ("frames too small", frame(4, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]), Ends(PROTOCOL), None),
        ("ping on a stream", frame(6, 0, 1, &[0; 8]), Ends(PROTOCOL), None),
        ("ping too long", frame(6, 0, 0, &[0; 9]), Ends(SIZE), None),
        ("goodbye on a stream", frame(7, 0, 1, &[0; 8]), Ends(PROTOCOL), None),
        ("goodbye too short", frame(7, 0, 0, &[0; 7]), Ends(SIZE), None),
        ("a window update of 0", frame(8, 0, 0, &[0; 4]), Ends(PROTOCOL), None),
        // 6.9: a stream's error.
        ("a window update of 0 on a stream", frame(8, 0, 1, &[0; 4]), Resets(PROTOCOL), Some(Ends(PROTOCOL))),
        ("a window update too short", frame(8, 0, 1, &[0; 3]), Ends(SIZE), None),
        ("a window update of an idle stream", frame(8, 0, 99, &[0, 0, 0, 1]), Ends(PROTOCOL), None),
        // h2 does not look at it where nothing more is to be sent.
        (
            "a window of a stream too large",
            frame(8, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
            Resets(FLOW),
            (role == Role::Client).then_some(Ignored),
        ),
        ("a window of all too large", frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), Ends(FLOW), None),
        ("data on an idle stream", frame(0, 0, 99, b"x"), Ends(PROTOCOL), None),
        ("a frame past the largest", frame(0x20, 0, 0, &[0; 16_385]), Ends(SIZE), None),
        ("a push", frame(5, 4, 1, &[&[0, 0, 0, 2][..], &block(&REQUEST)].concat()), Ends(PROTOCOL), None),
    ];
    if role == Role::Server {
        list.extend([
            ("an even stream", frame(1, 5, 8, &head(&[])), Ends(PROTOCOL), None),
            ("a lower stream", [frame(1, 5, 9, &head(&[])), frame(1, 5, 7, &head(&[]))].concat(), Ends(PROTOCOL), None),
        ]);
    } else {
        list.push(("a response to nothing", frame(1, 5, 99, &head(&[])), Ends(PROTOCOL), None));
    }
    list
}

fn outcome(seen: &Seen) -> Outcome {
    match (seen.error, seen.resets.first()) {
        (Some(code), _) => Ends(code),
        (None, Some((1, code))) => Resets(*code),
        (None, None) => Ignored,
        (None, Some(other)) => panic!("{other:?}"),
    }
}

/// The code of a connection's error of size or of compression is another with h2 (RFC 9113, 4.2 and 4.3).
fn is_named_otherwise(ours: Outcome, theirs: Outcome) -> bool {
    matches!(ours, Ends(SIZE | COMPRESSION)) && theirs == Ends(PROTOCOL)
}

#[test]
fn a_wrong_frame_ends_what_it_ends_with_h2_wherever_it_is_cut() {
    let mut others = Vec::new();
    for role in [Role::Server, Role::Client] {
        for (name, bytes, expected, departs) in wrong_frames(role) {
            let good = frame(1, 4, 1, &block(start(role)));
            let script = [good, bytes].concat();
            assert_eq!(outcome(&ours(role, &[&script])), expected, "{role:?}: {name}");
            let theirs = outcome(&theirs(role, &script));
            if theirs != departs.unwrap_or(expected) && !is_named_otherwise(expected, theirs) {
                others.push((role, name, theirs));
            }
            for cut in 1..script.len().min(300) {
                let (one, two) = script.split_at(cut);
                assert_eq!(outcome(&ours(role, &[one, two])), expected, "{role:?}: {name}, cut at {cut}");
            }
        }
    }
    assert_eq!(others, [], "what h2 makes of it is not what is said here");
}

/// Heads that are wrong: what we make of them, and what h2 makes of them where it departs.
fn wrong_heads(role: Role) -> Vec<(&'static str, Vec<u8>, Option<Outcome>)> {
    let with = |more: &[(&str, &str)]| block(&[start(role), more].concat());
    let mut list = vec![
        ("a field of HTTP/1", with(&[("connection", "close")]), None),
        ("another", with(&[("transfer-encoding", "chunked")]), None),
        ("te", with(&[("te", "gzip")]), None),
        ("a late pseudo-field", with(&[("a", "b"), start(role)[0]]), None),
        ("a pseudo-field twice", block(&[&start(role)[..1], start(role)].concat()), None),
        ("a length that is none", with(&[("content-length", "x")]), None),
        // These end the connection with h2: it decodes names and values to types that refuse them.
        ("a line's end", with(&[("a", "b\nc")]), Some(Ends(PROTOCOL))),
        ("NUL", with(&[("a", "b\0c")]), Some(Ends(PROTOCOL))),
        ("upper case", with(&[("A", "b")]), Some(Ends(PROTOCOL))),
        ("a name that is no token", with(&[("a b", "c")]), Some(Ends(PROTOCOL))),
        ("an unknown pseudo-field", with(&[(":late", "b")]), Some(Ends(PROTOCOL))),
        // And these it takes.
        ("white space around a value", with(&[("a", " b")]), Some(Ignored)),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "0")]), Some(Ignored)),
    ];
    match role {
        Role::Server => list.extend([
            ("no method", block(&REQUEST[1..]), None),
            ("no scheme", block(&[REQUEST[0], REQUEST[2], REQUEST[3]]), None),
            ("no path", block(&REQUEST[..3]), None),
            ("an empty path", block(&[REQUEST[0], REQUEST[1], REQUEST[2], (":path", "")]), None),
            ("a status", block(&[&REQUEST[..], &[(":status", "200")]].concat()), None),
            ("a protocol without CONNECT", block(&[&[(":protocol", "x")][..], &REQUEST[..]].concat()), None),
            ("two hosts", with(&[("host", "a.example"), ("host", "a.example")]), Some(Ignored)),
            ("another host", with(&[("host", "b.example")]), Some(Ignored)),
            ("a fragment", block(&[REQUEST[0], REQUEST[1], REQUEST[2], (":path", "/a#b")]), Some(Ignored)),
        ]),
        Role::Client => list.extend([
            ("no status", block(&[("a", "b")]), None),
            ("switching protocols", block(&[(":status", "101")]), Some(Ignored)),
            ("a status out of range", block(&[(":status", "600")]), Some(Ignored)),
            ("a status of two digits", block(&[(":status", "20")]), Some(Ends(PROTOCOL))),
            ("a method", block(&[(":status", "200"), (":method", "GET")]), Some(Ignored)),
        ]),
    }
    list
}

#[test]
fn a_wrong_head_is_its_stream_s_error_and_the_next_stream_is_served() {
    let mut others = Vec::new();
    for role in [Role::Server, Role::Client] {
        for (name, head, departs) in wrong_heads(role) {
            let alone = frame(1, 4, 1, &head);
            let theirs = outcome(&theirs(role, &alone));
            if theirs != departs.unwrap_or(Resets(PROTOCOL)) {
                others.push((role, name, theirs));
            }
            let script = [&alone[..], &frame(1, 5, 3, &block(start(role)))].concat();
            for cut in 1..script.len() {
                let (one, two) = script.split_at(cut);
                let seen = ours(role, &[one, two]);
                assert_eq!(outcome(&seen), Resets(PROTOCOL), "{role:?}: {name}, cut at {cut}");
                assert!(seen.messages[&3].ended, "{role:?}: {name}, cut at {cut}");
            }
        }
    }
    assert_eq!(others, [], "what h2 makes of it is not what is said here");
}
