//! The bytes: exchanges whose frames mix.

use super::ASKED;
use super::seen::frame;
use proptest::prelude::*;
use ringway_http2::Role;

pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for part in [name, value] {
            block.push(part.len() as u8);
            block.extend_from_slice(part.as_bytes());
        }
    }
    block
}

pub(crate) const REQUEST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "a.example"), (":path", "/x?y")];

/// Fields that any message may have.
pub(crate) const FIELDS: &[&[(&str, &str)]] = &[
    &[],
    &[("a", "b")],
    &[("cookie", "x=1"), ("b", ""), ("cookie", "y=2"), ("cookie", "z=3")],
    &[("te", "trailers"), ("x_y", "1"), ("accept", "*/*")],
    &[("b", "1"), ("a", "2"), ("b", "3"), ("b", "")],
    &[("user-agent", "\u{e4} \t~")],
];

pub(crate) fn start(role: Role) -> &'static [(&'static str, &'static str)] {
    if role == Role::Server { &REQUEST } else { &[(":status", "200")] }
}

/// What is sent on one stream, frame by frame.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    /// Informational responses before.
    interim: usize,
    fields: usize,
    /// Where the block is cut into HEADERS and CONTINUATION; past its end: nowhere.
    cut: usize,
    /// Data, and the padding of its frame.
    data: Vec<(usize, Option<u8>)>,
    says_length: bool,
    /// 0: the last frame of data or the head ends it; 1: an empty one does; 2: trailers do.
    end: u8,
}

impl Exchange {
    fn frames(&self, role: Role, stream: u32) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        if role == Role::Client {
            (0..self.interim)
                .for_each(|_| frames.push(frame(1, 4, stream, &block(&[(":status", "103"), ("link", "x")]))));
        }
        let length: usize = self.data.iter().map(|(length, _)| length).sum();
        let text = length.to_string();
        let mut fields = [start(role), FIELDS[self.fields % FIELDS.len()]].concat();
        if self.says_length {
            fields.push(("content-length", &text));
        }
        let whole = block(&fields);
        let ends_at_once = u8::from(self.end == 0 && self.data.is_empty());
        match whole.split_at_checked(self.cut) {
            // One piece: nothing comes between the frames of a block.
            Some((one, two)) => frames.push([frame(1, ends_at_once, stream, one), frame(9, 4, stream, two)].concat()),
            None => frames.push(frame(1, 4 | ends_at_once, stream, &whole)),
        }
        for (index, (length, padding)) in self.data.iter().enumerate() {
            let ends = u8::from(self.end == 0 && index + 1 == self.data.len());
            let bytes = vec![b'a' + index as u8; *length];
            frames.push(match padding {
                Some(padding) => {
                    let padded = [&[*padding][..], &bytes, &vec![0; usize::from(*padding)]].concat();
                    frame(0, ends | 8, stream, &padded)
                }
                None => frame(0, ends, stream, &bytes),
            });
        }
        match self.end {
            0 => {}
            1 => frames.push(frame(0, 1, stream, b"")),
            _ => frames.push(frame(1, 5, stream, &block(&[("t", "v"), ("grpc-status", "0"), ("host", "no")]))),
        }
        frames
    }
}

pub(crate) fn exchange() -> impl Strategy<Value = Exchange> {
    let data = prop::collection::vec((0_usize..40, prop::option::weighted(0.3, 0_u8..9)), 0..4);
    (0_usize..3, 0_usize..9, 0_usize..200, data, any::<bool>(), 0_u8..3).prop_map(
        |(interim, fields, cut, data, says_length, end)| Exchange { interim, fields, cut, data, says_length, end },
    )
}

/// Frames that may come at any time.
pub(crate) fn neutral(which: usize) -> Vec<u8> {
    match which % 7 {
        0 => frame(6, 0, 0, b"12345678"),
        1 => frame(4, 0, 0, &[0, 4, 0, 0, 1, 9, 0, 99, 0, 0, 0, 0]),
        2 => frame(8, 0, 0, &[0, 0, 1, 0]),
        3 => frame(2, 0, 99, &[0, 0, 0, 7, 1]),
        4 => frame(0x20, 0xff, 3, b"unknown"),
        5 => frame(6, 1, 0, b"nobody's"),
        _ => Vec::new(),
    }
}

/// Exchanges whose frames mix, each stream's in their order, and heads in the order of streams.
pub(crate) fn mixed(role: Role, exchanges: &[Exchange], order: &[usize]) -> Vec<u8> {
    let mut left: Vec<_> = exchanges
        .iter()
        .enumerate()
        .map(|(index, exchange)| exchange.frames(role, 1 + 2 * index as u32).into_iter())
        .collect();
    let (mut bytes, mut opened) = (Vec::new(), 0);
    for step in order.iter().copied().chain(0..1000) {
        bytes.extend(neutral(step / 5));
        let index = step % left.len().max(1);
        if index > opened {
            continue;
        }
        opened = opened.max(index + 1);
        bytes.extend(left[index].next().unwrap_or_default());
        if left.iter().all(|left| left.len() == 0) {
            break;
        }
    }
    bytes
}

/// Frames, for people.
#[derive(Clone)]
pub(crate) struct Script(pub(crate) Vec<u8>);

impl std::fmt::Debug for Script {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = &self.0[..];
        while let Some((header, after)) = rest.split_first_chunk::<9>() {
            let (payload, after) = after.split_at(usize::from(header[2]) | usize::from(header[1]) << 8);
            let payload = String::from_utf8_lossy(payload);
            writeln!(out, "kind {} flags {:x} stream {}: {payload:?}", header[3], header[4], header[8])?;
            rest = after;
        }
        Ok(())
    }
}

pub(crate) fn script(role: Role) -> impl Strategy<Value = Script> {
    (prop::collection::vec(exchange(), 1..=ASKED as usize), prop::collection::vec(0_usize..40, 0..30))
        .prop_map(move |(exchanges, order)| Script(mixed(role, &exchanges, &order)))
}
