//! What an endpoint has made of bytes.

use std::collections::BTreeMap;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a stream has brought: start line and fields of its head, sorted by name; data; trailers; whether it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) head: Vec<(String, String)>,
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) ended: bool,
}

/// What an endpoint has made of its peer's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Messages that came whole.
    pub(crate) messages: BTreeMap<u32, Message>,
    /// Streams that were reset, and with which code.
    pub(crate) resets: Vec<(u32, u32)>,
    /// The code that the connection ended with.
    pub(crate) error: Option<u32>,
}

impl Seen {
    pub(crate) fn new(messages: BTreeMap<u32, Message>, output: &[u8]) -> Self {
        let (mut resets, mut error, mut rest) = (Vec::new(), None, output);
        while let Some((header, after)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            let (payload, after) = after.split_at(length.min(after.len()));
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match header[3] {
                3 => resets.push((stream, number(0))),
                7 if number(4) != 0 => error = error.or(Some(number(4))),
                _ => {}
            }
            rest = after;
        }
        resets.sort_unstable();
        let messages = messages.into_iter().filter(|(_, message)| message.ended).collect();
        Self { messages, resets, error }
    }
}

pub(crate) fn sorted(mut list: Vec<(String, String)>) -> Vec<(String, String)> {
    // By name alone: values of one name keep their order.
    list.sort_by(|one, other| one.0.cmp(&other.0));
    list
}
