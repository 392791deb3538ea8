//! Frames (RFC 9113, 4 and 6): what a header and a payload must look like, and how they are written.
//!
//! What is judged here needs no more than the frame itself; what streams and windows make of it is decided elsewhere.

use crate::error::{ConnectionError, FrameError, Reason};

/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 9;
/// Largest payload that every peer takes (RFC 9113, 4.2), and the largest that we take.
pub(crate) const FRAME_BYTES: usize = 16 * 1024;
/// Largest window, and largest stream identifier.
pub(crate) const U31_MAX: u32 = u32::MAX >> 1;

/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITY: u8 = 0x20;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// Ignored (RFC 9113, 5.5).
    Unknown(u8),
}

impl Kind {
    fn from_byte(byte: u8) -> Self {
        match byte {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::Reset,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x6 => Self::Ping,
            0x7 => Self::GoAway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            other => Self::Unknown(other),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Data => 0x0,
            Self::Headers => 0x1,
            Self::Priority => 0x2,
            Self::Reset => 0x3,
            Self::Settings => 0x4,
            Self::PushPromise => 0x5,
            Self::Ping => 0x6,
            Self::GoAway => 0x7,
            Self::WindowUpdate => 0x8,
            Self::Continuation => 0x9,
            Self::Unknown(other) => other,
        }
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) length: u32,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    /// 0: the connection itself.
    pub(crate) stream: u32,
}

impl FrameHeader {
    pub(crate) fn parse(bytes: [u8; HEADER_BYTES]) -> Self {
        let [high, middle, low, kind, flags, a, b, c, d] = bytes;
        Self {
            length: u32::from_be_bytes([0, high, middle, low]),
            kind: Kind::from_byte(kind),
            flags,
            // The reserved bit is ignored (RFC 9113, 4.1).
            stream: u32::from_be_bytes([a, b, c, d]) & U31_MAX,
        }
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What the header alone tells: whether the frame may be so long, and on such a stream.
    pub(crate) fn check(&self) -> Result<(), FrameError> {
        if self.length as usize > FRAME_BYTES {
            // Most frames change what the whole connection is; the others are not worth reading to their end.
            return Err(FrameError::size("frame larger than SETTINGS_MAX_FRAME_SIZE"));
        }
        match self.kind {
            Kind::Data | Kind::Headers => {
                self.needs_stream()?;
                let least =
                    u32::from(self.has(PADDED)) + if self.kind == Kind::Headers && self.has(PRIORITY) { 5 } else { 0 };
                self.needs_length(self.length >= least)
            }
            Kind::Priority => {
                self.needs_stream()?;
                if self.length == 5 { Ok(()) } else { Err(FrameError::Stream(Reason::FrameSizeError)) }
            }
            Kind::Reset => self.needs_stream().and_then(|()| self.needs_length(self.length == 4)),
            Kind::Settings => {
                self.needs_none()?;
                self.needs_length(if self.has(ACK) { self.length == 0 } else { self.length.is_multiple_of(6) })
            }
            // Our SETTINGS forbid pushes, and a client may not push at all (RFC 9113, 8.4).
            Kind::PushPromise => Err(FrameError::protocol("PUSH_PROMISE")),
            Kind::Ping => self.needs_none().and_then(|()| self.needs_length(self.length == 8)),
            Kind::GoAway => self.needs_none().and_then(|()| self.needs_length(self.length >= 8)),
            Kind::WindowUpdate => self.needs_length(self.length == 4),
            Kind::Continuation => self.needs_stream(),
            Kind::Unknown(_) => Ok(()),
        }
    }

    fn needs_stream(&self) -> Result<(), FrameError> {
        if self.stream == 0 { Err(FrameError::protocol("frame of a stream on stream 0")) } else { Ok(()) }
    }

    fn needs_none(&self) -> Result<(), FrameError> {
        if self.stream == 0 { Ok(()) } else { Err(FrameError::protocol("frame of the connection on a stream")) }
    }

    fn needs_length(&self, fits: bool) -> Result<(), FrameError> {
        if fits { Ok(()) } else { Err(FrameError::size("frame of a wrong length")) }
    }
}

/// What HEADERS brings, out of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Headers<'b> {
    pub(crate) fragment: &'b [u8],
    /// The stream that it says it depends on.
    pub(crate) dependency: Option<u32>,
}

impl<'b> Headers<'b> {
    pub(crate) fn parse(header: &FrameHeader, payload: &'b [u8]) -> Result<Self, ConnectionError> {
        let (padding, rest) = match payload {
            [padding, rest @ ..] if header.has(PADDED) => (usize::from(*padding), rest),
            rest => (0, rest),
        };
        let (dependency, rest) = match rest {
            [a, b, c, d, _, rest @ ..] if header.has(PRIORITY) => {
                (Some(u32::from_be_bytes([*a, *b, *c, *d]) & U31_MAX), rest)
            }
            rest => (None, rest),
        };
        let Some(end) = rest.len().checked_sub(padding) else {
            return Err(ConnectionError::protocol("padding longer than the frame"));
        };
        Ok(Self { fragment: &rest[..end], dependency })
    }
}

/// The number that a payload begins with; 0 if it is too short, which [`FrameHeader::check`] has ruled out.
pub(crate) fn number(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

pub(crate) fn write_header(out: &mut Vec<u8>, length: usize, kind: Kind, flags: u8, stream: u32) {
    let [_, high, middle, low] = (length as u32).to_be_bytes();
    let [a, b, c, d] = stream.to_be_bytes();
    out.extend_from_slice(&[high, middle, low, kind.byte(), flags, a, b, c, d]);
}

/// Writes a block as HEADERS, and CONTINUATION as far as it does not fit; `prefix` comes before the block.
pub(crate) fn write_block(
    out: &mut Vec<u8>,
    prefix: &[u8],
    block: &[u8],
    stream: u32,
    ends: bool,
    frame_bytes_max: usize,
) {
    if prefix.is_empty() && block.len() <= frame_bytes_max {
        // As nearly all are.
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        write_header(out, block.len(), Kind::Headers, flags, stream);
        return out.extend_from_slice(block);
    }
    let first = block.len().min(frame_bytes_max - prefix.len());
    let whole = first == block.len();
    let flags = if ends { END_STREAM } else { 0 } | if whole { END_HEADERS } else { 0 };
    write_header(out, prefix.len() + first, Kind::Headers, flags, stream);
    out.extend_from_slice(prefix);
    out.extend_from_slice(&block[..first]);
    let mut rest = &block[first..];
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(frame_bytes_max));
        let flags = if after.is_empty() { END_HEADERS } else { 0 };
        write_header(out, piece.len(), Kind::Continuation, flags, stream);
        out.extend_from_slice(piece);
        rest = after;
    }
}

pub(crate) fn write_data(out: &mut Vec<u8>, bytes: &[u8], stream: u32, ends: bool) {
    write_header(out, bytes.len(), Kind::Data, if ends { END_STREAM } else { 0 }, stream);
    out.extend_from_slice(bytes);
}

pub(crate) fn write_reset(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    write_header(out, 4, Kind::Reset, 0, stream);
    out.extend_from_slice(&reason.code().to_be_bytes());
}

pub(crate) fn write_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    write_header(out, 4, Kind::WindowUpdate, 0, stream);
    out.extend_from_slice(&increment.to_be_bytes());
}

pub(crate) fn write_ping(out: &mut Vec<u8>, ack: bool, payload: [u8; 8]) {
    write_header(out, 8, Kind::Ping, if ack { ACK } else { 0 }, 0);
    out.extend_from_slice(&payload);
}

pub(crate) fn write_go_away(out: &mut Vec<u8>, last: u32, reason: Reason, debug: &str) {
    write_header(out, 8 + debug.len(), Kind::GoAway, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&reason.code().to_be_bytes());
    out.extend_from_slice(debug.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROTOCOL: Option<(bool, Reason)> = Some((true, Reason::ProtocolError));
    const SIZE: Option<(bool, Reason)> = Some((true, Reason::FrameSizeError));

    fn judged(kind: u8, flags: u8, stream: u32, length: u32) -> Option<(bool, Reason)> {
        let [_, a, b, c] = length.to_be_bytes();
        let [d, e, f, g] = stream.to_be_bytes();
        match FrameHeader::parse([a, b, c, kind, flags, d, e, f, g]).check() {
            Ok(()) => None,
            Err(FrameError::Connection(error)) => Some((true, error.reason)),
            Err(FrameError::Stream(reason)) => Some((false, reason)),
        }
    }

    #[test]
    fn each_frame_has_its_length_and_its_place() {
        let cases = [
            // RFC 9113, 4.2.
            (0, 0, 1, 16_384, None),
            (0, 0, 1, 16_385, SIZE),
            (0xfe, 0, 1, 16_385, SIZE),
            // 6.1 DATA.
            (0, 0, 0, 5, PROTOCOL),
            (0, PADDED, 1, 0, SIZE),
            (0, 0, 1, 0, None),
            // 6.2 HEADERS.
            (1, 0, 0, 5, PROTOCOL),
            (1, PADDED, 1, 0, SIZE),
            (1, PRIORITY, 1, 4, SIZE),
            (1, PRIORITY | PADDED, 1, 5, SIZE),
            (1, PRIORITY | PADDED, 1, 6, None),
            // 6.3 PRIORITY.
            (2, 0, 0, 5, PROTOCOL),
            (2, 0, 1, 4, Some((false, Reason::FrameSizeError))),
            (2, 0, 1, 5, None),
            // 6.4 RST_STREAM.
            (3, 0, 0, 4, PROTOCOL),
            (3, 0, 1, 3, SIZE),
            (3, 0, 1, 4, None),
            // 6.5 SETTINGS.
            (4, 0, 1, 0, PROTOCOL),
            (4, 0, 0, 5, SIZE),
            (4, 0, 0, 12, None),
            (4, ACK, 0, 6, SIZE),
            (4, ACK, 0, 0, None),
            // 6.6 PUSH_PROMISE.
            (5, 0, 1, 4, PROTOCOL),
            // 6.7 PING.
            (6, 0, 1, 8, PROTOCOL),
            (6, 0, 0, 7, SIZE),
            (6, ACK, 0, 8, None),
            // 6.8 GOAWAY.
            (7, 0, 1, 8, PROTOCOL),
            (7, 0, 0, 7, SIZE),
            (7, 0, 0, 100, None),
            // 6.9 WINDOW_UPDATE.
            (8, 0, 0, 3, SIZE),
            (8, 0, 1, 5, SIZE),
            (8, 0, 1, 4, None),
            // 6.10 CONTINUATION.
            (9, 0, 0, 5, PROTOCOL),
            (9, 0, 1, 5, None),
            // 5.5: unknown frames are ignored.
            (0xfe, 0xff, 0, 77, None),
        ];
        for (kind, flags, stream, length, expected) in cases {
            assert_eq!(judged(kind, flags, stream, length), expected, "{kind} {flags} {stream} {length}");
        }
    }

    #[test]
    fn padding_and_priority_are_taken_off_headers() {
        let header = |flags, length| FrameHeader { length, kind: Kind::Headers, flags, stream: 1 };
        let parse = |flags, payload: &'static [u8]| Headers::parse(&header(flags, payload.len() as u32), payload);
        assert_eq!(parse(0, b"abc"), Ok(Headers { fragment: b"abc", dependency: None }));
        assert_eq!(parse(PADDED, b"\x02abc"), Ok(Headers { fragment: b"a", dependency: None }));
        assert_eq!(parse(PADDED, b"\x03abc"), Ok(Headers { fragment: b"", dependency: None }));
        assert_eq!(parse(PADDED, b"\x04abc").unwrap_err().reason, Reason::ProtocolError);
        let both = parse(PADDED | PRIORITY, b"\x01\x80\0\0\x07\xffab");
        assert_eq!(both, Ok(Headers { fragment: b"a", dependency: Some(7) }));
        assert_eq!(parse(PADDED | PRIORITY, b"\x03\0\0\0\x07\xffab").unwrap_err().reason, Reason::ProtocolError);
    }

    /// Frames as they stand in bytes: header and payload.
    fn frames(mut bytes: &[u8]) -> Vec<(FrameHeader, Vec<u8>)> {
        let mut found = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk() {
            let header = FrameHeader::parse(*header);
            let (payload, rest) = rest.split_at(header.length as usize);
            found.push((header, payload.to_vec()));
            bytes = rest;
        }
        assert!(bytes.is_empty());
        found
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written(
            length in 0_u32..1 << 24, kind in any::<u8>(), flags in any::<u8>(), stream in 0..=U31_MAX, reserved: bool,
        ) {
            let mut bytes = Vec::new();
            write_header(&mut bytes, length as usize, Kind::from_byte(kind), flags, stream);
            bytes[5] |= u8::from(reserved) << 7;
            let expected = FrameHeader { length, kind: Kind::from_byte(kind), flags, stream };
            prop_assert_eq!(FrameHeader::parse(*bytes.first_chunk().unwrap()), expected);
            prop_assert_eq!(Kind::from_byte(kind).byte(), kind);
        }

        #[test]
        fn a_block_arrives_whole_however_it_is_cut(
            block in prop::collection::vec(any::<u8>(), 0..300), prefix in prop::collection::vec(any::<u8>(), 0..2),
            ends: bool, most in 2_usize..64,
        ) {
            let mut bytes = Vec::new();
            write_block(&mut bytes, &prefix, &block, 5, ends, most);
            let found = frames(&bytes);
            let last = found.len() - 1;
            for (index, (header, payload)) in found.iter().enumerate() {
                prop_assert_eq!(header.kind, if index == 0 { Kind::Headers } else { Kind::Continuation });
                prop_assert_eq!(header.has(END_HEADERS), index == last);
                prop_assert_eq!(header.has(END_STREAM), index == 0 && ends);
                prop_assert!(payload.len() <= most && header.stream == 5);
            }
            let joined: Vec<u8> = found.into_iter().flat_map(|(_, payload)| payload).collect();
            prop_assert_eq!(joined, [prefix, block].concat());
        }

        #[test]
        fn what_we_write_passes_our_own_check(code: u32, increment in 1..=U31_MAX, payload: [u8; 8]) {
            let mut bytes = Vec::new();
            write_reset(&mut bytes, 3, Reason::from_code(code));
            write_window_update(&mut bytes, 0, increment);
            write_ping(&mut bytes, true, payload);
            write_go_away(&mut bytes, 7, Reason::NoError, "why");
            write_data(&mut bytes, b"abc", 3, true);
            let found = frames(&bytes);
            prop_assert!(found.iter().all(|(header, _)| header.check().is_ok()));
            prop_assert_eq!(number(&found[0].1), code);
            prop_assert_eq!(number(&found[1].1), increment);
            prop_assert_eq!(&found[2].1, &payload);
            prop_assert_eq!(&found[3].1, b"\0\0\0\x07\0\0\0\0why");
            prop_assert!(found[4].0.has(END_STREAM));
        }
    }
}
