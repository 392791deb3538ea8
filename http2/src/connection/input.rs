//! What is under way in between calls: frames of which a part has come, blocks in several frames, how far goodbye was said.

use crate::frame::{FrameHeader, HEADER_BYTES};
use crate::streams::StreamKey;

/// What is to come next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    /// The preface, of which so much has come.
    Preface(usize),
    Header,
    Payload(FrameHeader),
    Data(DataFrame),
    /// So much of a frame that means nothing.
    Skip(u32),
}

/// Where in its frames the peer is.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) stage: Stage,
    pub(super) header: [u8; HEADER_BYTES],
    pub(super) header_len: usize,
    /// The beginning of a payload that comes in pieces: no more room than for what has come, and little is kept for the next.
    pub(super) payload: Vec<u8>,
}

impl Input {
    pub(super) fn new(expects_preface: bool) -> Self {
        let stage = if expects_preface { Stage::Preface(0) } else { Stage::Header };
        Self { stage, header: [0; HEADER_BYTES], header_len: 0, payload: Vec::new() }
    }

    /// The next header, once it is whole.
    pub(super) fn header(&mut self, input: &[u8], at: &mut usize) -> Option<FrameHeader> {
        if self.header_len == 0
            && let Some(header) = input[*at..].first_chunk()
        {
            *at += HEADER_BYTES;
            return Some(FrameHeader::parse(*header));
        }
        let taken = (HEADER_BYTES - self.header_len).min(input.len() - *at);
        self.header[self.header_len..self.header_len + taken].copy_from_slice(&input[*at..*at + taken]);
        self.header_len += taken;
        *at += taken;
        if self.header_len < HEADER_BYTES {
            return None;
        }
        self.header_len = 0;
        Some(FrameHeader::parse(self.header))
    }

    pub(super) fn shrink(&mut self) {
        if self.payload.is_empty() {
            self.payload = Vec::new();
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.payload.capacity()
    }
}

/// A frame of DATA that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct DataFrame {
    /// `None`: no stream gets it any more.
    pub(super) key: Option<StreamKey>,
    /// Bytes of data that are still to come, and of padding after them.
    pub(super) left: u32,
    pub(super) padding: u32,
    /// The length of the padding is still to come.
    pub(super) is_padded: bool,
    pub(super) ends: bool,
    /// How much data it brings.
    pub(super) length: u32,
}

/// A block that comes in several frames.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) ends: bool,
    pub(super) depends_on_itself: bool,
    pub(super) continuations: u32,
    pub(super) bytes: Vec<u8>,
}

impl Block {
    pub(super) fn stream(&self) -> u32 {
        self.stream
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

/// How far we have said goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// The peer has been told to open no more; those that it had under way are still taken.
    Announced,
    /// No streams are looked at past this one.
    Final(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_however_its_bytes_come() {
        let bytes = [0, 1, 2, 0, 1, 0, 0, 0, 5, 0xff];
        for pieces in [vec![9], vec![1, 8], vec![4, 4, 1], vec![1; 9], vec![8, 1]] {
            let (mut input, mut from) = (Input::new(false), 0);
            let count = pieces.len();
            for (number, piece) in pieces.into_iter().enumerate() {
                let mut at = 0;
                let header = input.header(&bytes[from..from + piece], &mut at);
                assert_eq!((at, header.is_some()), (piece, number + 1 == count));
                from += piece;
                if let Some(header) = header {
                    assert_eq!((header.length, header.stream), (258, 5));
                }
            }
            assert_eq!(input.header_len, 0, "the next begins anew");
        }
        // What follows a header is not touched.
        let (mut input, mut at) = (Input::new(true), 0);
        assert!(matches!(input.stage, Stage::Preface(0)));
        assert!(input.header(&bytes, &mut at).is_some());
        assert_eq!(at, HEADER_BYTES);
    }
}
