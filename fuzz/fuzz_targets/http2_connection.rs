#![no_main]
//! Whole connections: a peer that sends frames of all kinds, and a user that does whatever it may in between. No panic, every frame
//! sent is well formed, bounds hold, and all memory is given back.
mod http2;
use http2::{Session, frame};
use libfuzzer_sys::fuzz_target;
use ringway_http2::hpack::encode;
use ringway_http2::{HeadKind, Reason, Role};
use ringway_message::Method;

const BLOCKS: [&[u8]; 6] = [
    // Requests: GET and POST, with literals; a response; an informational one; trailers; nothing.
    b"\x82\x86\x84\x41\x01a",
    b"\x83\x86\x84\x41\x01a\x5c\x015",
    b"\x88",
    b"\x08\x03103",
    b"\x40\x01t\x01v",
    b"",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, mut rest)) = bytes.split_first() else { return };
    let role = if first & 1 == 0 { Role::Server } else { Role::Client };
    let mut session = Session::new(role);
    (session.answers, session.consumes) = (first & 2 == 0, first & 4 == 0);
    let mut head = Vec::new();
    encode::status(&mut head, 200);
    while let Some(([what, which, amount], after)) = rest.split_first_chunk::<3>() {
        rest = after;
        let stream = u32::from(which % 24);
        let key = session.keys.get(usize::from(*which) % session.keys.len().max(1)).copied();
        let size = usize::from(*amount) * 97;
        match (what % 20, key) {
            (0..=2, _) => {
                let block = BLOCKS[usize::from(*amount) % BLOCKS.len()];
                session.feed(&frame(1, amount >> 3 & 1 | 4, stream, block));
            }
            (3, _) => session.feed(&frame(1, amount & 1, stream, BLOCKS[0])),
            (4, _) => session.feed(&frame(9, amount & 4, stream, BLOCKS[4])),
            (5..=7, _) => session.feed(&frame(0, amount & 1, stream, &vec![b'd'; size])),
            (8, _) => session.feed(&frame(3, 0, stream, &[0, 0, 0, amount % 16])),
            (9, _) => session.feed(&frame(8, 0, stream, &[amount >> 5, *amount, 0, *amount])),
            (10, _) => session.feed(&frame(4, 0, 0, &[0, 1 + which % 6, amount >> 6, *amount, 0x40, *which])),
            (11, _) => session.feed(&frame(7, 0, 0, &[0, 0, 0, *which, 0, 0, 0, *amount])),
            (12, _) => session.feed(&[*what, *which, *amount]),
            (13, Some(key)) => {
                let _ = session.connection.send_head(key, &head, HeadKind::Final, amount & 1 == 1);
            }
            (14, Some(key)) => {
                let _ = session.connection.send_data(key, &vec![b'u'; size], amount & 1 == 1);
            }
            (15, Some(key)) => session.consume(key, size),
            (16, Some(key)) => session.connection.reset(key, Reason::Cancel),
            (17, Some(key)) => {
                session.connection.close(key);
                session.keys.retain(|known| *known != key);
            }
            (18, _) => match amount % 4 {
                0 => session.connection.go_away(true, Reason::NoError),
                1 => session.connection.go_away(false, Reason::NoError),
                2 => session.connection.ping(*b"12345678"),
                _ => session.connection.shrink(),
            },
            _ => session.ask(Method::Post, amount & 1 == 1),
        }
        session.serve();
    }
    if first & 8 == 0 {
        session.connection.handle_end();
        session.serve();
        assert_eq!(session.connection.streams(), 0);
    }
    session.end();
});
