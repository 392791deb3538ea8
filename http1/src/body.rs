//! Where a body ends, and how its bytes go from one framing into another.

use crate::chunked::{ChunkDecoder, ChunkEvent};
use crate::framing::Encoding;
use crate::{BodyLength, ParseError, write};

/// How far a body has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// So many bytes are still to come; 0 is the end.
    Sized(u64),
    /// Chunks.
    Chunked(ChunkDecoder),
    /// Bytes until the connection ends.
    UntilClose,
}

/// What [`Body::transfer`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes of the input that are dealt with.
    pub consumed: usize,
    /// Bytes of body data among them.
    pub data: usize,
    /// Whether the body is over.
    pub done: bool,
}

impl From<BodyLength> for Body {
    fn from(length: BodyLength) -> Self {
        match length {
            BodyLength::None => Self::Sized(0),
            BodyLength::Sized(length) => Self::Sized(length),
            BodyLength::Chunked => Self::Chunked(ChunkDecoder::default()),
            BodyLength::UntilClose => Self::UntilClose,
        }
    }
}

impl Body {
    /// Whether nothing more of it will come.
    #[must_use]
    pub fn is_end(&self) -> bool {
        match self {
            Self::Sized(remaining) => *remaining == 0,
            Self::Chunked(decoder) => decoder.is_end(),
            Self::UntilClose => false,
        }
    }

    /// How many of the next `available` bytes are data that may be sent on as they stand, for bodies without framing of
    /// their own; `None` for chunked ones. Count them by [`Body::advance`] when they are sent.
    #[must_use]
    pub fn plain(&self, available: usize) -> Option<usize> {
        match self {
            Self::Sized(remaining) => Some(usize::try_from(*remaining).unwrap_or(usize::MAX).min(available)),
            Self::UntilClose => Some(available),
            Self::Chunked(_) => None,
        }
    }

    /// Counts bytes that [`Body::plain`] allowed.
    pub fn advance(&mut self, sent: usize) {
        if let Self::Sized(remaining) = self {
            *remaining = remaining.saturating_sub(sent as u64);
        }
    }

    /// Reads `input`, appends what goes on to `out` in the framing `encoding`, its end included.
    ///
    /// A body that has ended already (or never had a byte) gives nothing more.
    ///
    /// # Errors
    /// The input is malformed; what was appended before is still good, but the message must be cut off.
    pub fn transfer(&mut self, input: &[u8], out: &mut Vec<u8>, encoding: Encoding) -> Result<Progress, ParseError> {
        self.transfer_with(input, out, encoding, |_| true)
    }

    /// As [`Body::transfer`], without the trailer fields for whose names `keep` does not hold.
    ///
    /// # Errors
    /// As [`Body::transfer`].
    pub fn transfer_with(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        encoding: Encoding,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<Progress, ParseError> {
        let mut progress = Progress::default();
        if self.is_end() {
            return Ok(Progress { done: true, ..progress });
        }
        match self {
            Self::Sized(_) | Self::UntilClose => {
                let taken = self.plain(input.len()).unwrap_or_default();
                write::data(&input[..taken], out, encoding);
                self.advance(taken);
                progress = Progress { consumed: taken, data: taken, done: self.is_end() };
                if progress.done && encoding == Encoding::Chunked {
                    out.extend_from_slice(b"0\r\n\r\n");
                }
            }
            Self::Chunked(decoder) => loop {
                match decoder.next(input, &mut progress.consumed)? {
                    ChunkEvent::Data(range) => {
                        let rest = if encoding == Encoding::Chunked {
                            decoder.data_ahead(input, progress.consumed)
                        } else {
                            0
                        };
                        progress.data += range.len() + rest;
                        if rest == 0 {
                            write::data(&input[range], out, encoding);
                        } else {
                            join_chunks(decoder, input, range, rest, &mut progress.consumed, out)?;
                        }
                    }
                    ChunkEvent::End(trailer) => {
                        if encoding == Encoding::Chunked {
                            out.extend_from_slice(b"0\r\n");
                            write::trailers(&input[trailer], out, &keep)?;
                            out.extend_from_slice(b"\r\n");
                        } else {
                            write::trailers(&input[trailer], &mut Vec::new(), &keep)?;
                        }
                        progress.done = true;
                        break;
                    }
                    ChunkEvent::NeedMore => break,
                }
            },
        }
        Ok(progress)
    }

    /// Finds the next data of the body in `input`, at most one piece, for a caller that makes something else of it. Trailer fields that
    /// may be passed on are appended to `trailers`. Gives the piece's range, which is empty where there is none.
    ///
    /// # Errors
    /// As [`Body::transfer`].
    pub fn next_data(
        &mut self,
        input: &[u8],
        trailers: &mut Vec<u8>,
    ) -> Result<(std::ops::Range<usize>, Progress), ParseError> {
        let mut progress = Progress::default();
        let mut data = 0..0;
        match self {
            Self::Sized(_) | Self::UntilClose => {
                data = 0..self.plain(input.len()).unwrap_or_default();
                self.advance(data.end);
                progress.consumed = data.end;
            }
            Self::Chunked(decoder) => match decoder.next(input, &mut progress.consumed)? {
                ChunkEvent::Data(range) => data = range,
                ChunkEvent::End(trailer) => write::trailers(&input[trailer], trailers, |_| true)?,
                ChunkEvent::NeedMore => {}
            },
        }
        (progress.data, progress.done) = (data.len(), self.is_end());
        Ok((data, progress))
    }

    /// Length of all that is still to come of it, framing and trailers included, if that stands at the start of `input`.
    #[must_use]
    pub fn rest_len(&self, input: &[u8]) -> Option<usize> {
        match self {
            Self::Sized(remaining) => usize::try_from(*remaining).ok().filter(|length| *length <= input.len()),
            Self::Chunked(decoder) => {
                let (mut decoder, mut at) = (decoder.clone(), 0);
                loop {
                    match decoder.next(input, &mut at).ok()? {
                        ChunkEvent::Data(_) => {}
                        ChunkEvent::End(trailer) => {
                            return write::trailers(&input[trailer], &mut Vec::new(), |_| true).ok().map(|()| at);
                        }
                        ChunkEvent::NeedMore => return None,
                    }
                }
            }
            Self::UntilClose => None,
        }
    }

    /// What ends the message on the other side when the input's connection has ended: `Some` bytes if that was a
    /// proper end (`UntilClose`), `None` if the body was cut off.
    #[must_use]
    pub fn end_of_input(&self, encoding: Encoding) -> Option<&'static [u8]> {
        match (self, encoding) {
            (Self::UntilClose, Encoding::Chunked) => Some(b"0\r\n\r\n"),
            (Self::UntilClose, Encoding::Identity) => Some(b""),
            (Self::Sized(_) | Self::Chunked(_), _) => self.is_end().then_some(b""),
        }
    }
}

/// Writes `first` and the `rest` bytes of data that follow it as one chunk, however many they came in: each chunk costs its reader.
fn join_chunks(
    decoder: &mut ChunkDecoder,
    input: &[u8],
    first: std::ops::Range<usize>,
    rest: usize,
    consumed: &mut usize,
    out: &mut Vec<u8>,
) -> Result<(), ParseError> {
    write::chunk_size(first.len() + rest, out);
    out.extend_from_slice(&input[first]);
    let mut left = rest;
    while left > 0 {
        // The same steps once more, which have gone well.
        let ChunkEvent::Data(range) = decoder.next(input, consumed)? else { break };
        left -= range.len();
        out.extend_from_slice(&input[range]);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(body: &mut Body, input: &[u8], encoding: Encoding) -> (Progress, String) {
        let mut out = Vec::new();
        let progress = body.transfer(input, &mut out, encoding).unwrap();
        (progress, String::from_utf8(out).unwrap())
    }

    #[test]
    fn sized_body_ends_with_its_last_byte_and_leaves_what_follows() {
        let mut body = Body::from(BodyLength::Sized(5));
        assert!(!body.is_end());
        assert_eq!(
            transfer(&mut body, b"abc", Encoding::Identity),
            (Progress { consumed: 3, data: 3, done: false }, "abc".into())
        );
        assert_eq!(
            transfer(&mut body, b"deGET", Encoding::Identity),
            (Progress { consumed: 2, data: 2, done: true }, "de".into())
        );
        assert!(body.is_end());
        assert_eq!(
            transfer(&mut body, b"GET", Encoding::Identity),
            (Progress { consumed: 0, data: 0, done: true }, String::new())
        );
    }

    #[test]
    fn sized_body_becomes_chunks_with_a_last_one() {
        let mut body = Body::Sized(3);
        assert_eq!(transfer(&mut body, b"ab", Encoding::Chunked).1, "2\r\nab\r\n");
        assert_eq!(transfer(&mut body, b"c", Encoding::Chunked).1, "1\r\nc\r\n0\r\n\r\n");
        assert!(Body::from(BodyLength::None).is_end());
    }

    #[test]
    fn body_until_close_takes_all_and_never_ends_by_itself() {
        let mut body = Body::from(BodyLength::UntilClose);
        assert_eq!(body.plain(7), Some(7));
        assert_eq!(
            transfer(&mut body, b"abc", Encoding::Chunked),
            (Progress { consumed: 3, data: 3, done: false }, "3\r\nabc\r\n".into())
        );
        assert!(!body.is_end());
    }

    #[test]
    fn chunked_body_becomes_plain_bytes_and_ends_with_its_last_chunk() {
        let mut body = Body::from(BodyLength::Chunked);
        assert_eq!(body.plain(7), None);
        let input = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nGET";
        let (progress, out) = transfer(&mut body, input, Encoding::Identity);
        assert_eq!((progress.consumed, progress.data, progress.done), (input.len() - 3, 5, true));
        assert_eq!(out, "abcde");
        assert!(body.is_end());
    }

    #[test]
    fn chunks_that_are_there_together_go_on_as_one() {
        let (progress, out) =
            transfer(&mut Body::from(BodyLength::Chunked), b"3\r\nabc\r\n2\r\nde\r\n1\r\n", Encoding::Chunked);
        assert_eq!(out, "5\r\nabcde\r\n");
        assert_eq!((progress.data, progress.done), (5, false));
    }

    #[test]
    fn trailers_go_on_behind_chunks_only_and_only_those_that_are_kept() {
        let input = b"1\r\na\r\n0\r\nx-sum: 1\r\nx-other: 2\r\n\r\n";
        let with = |encoding| {
            let (mut body, mut out) = (Body::from(BodyLength::Chunked), Vec::new());
            let progress = body.transfer_with(input, &mut out, encoding, |name| name == b"x-sum").unwrap();
            assert!(progress.done && progress.consumed == input.len());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(with(Encoding::Chunked), "1\r\na\r\n0\r\nx-sum: 1\r\n\r\n");
        assert_eq!(with(Encoding::Identity), "a");
    }

    #[test]
    fn a_trailer_section_that_is_none_is_an_error_in_both_framings() {
        for encoding in [Encoding::Chunked, Encoding::Identity] {
            let mut body = Body::from(BodyLength::Chunked);
            let result = body.transfer(b"0\r\nno colon\r\n\r\n", &mut Vec::new(), encoding);
            assert!(result.is_err(), "{encoding:?}");
        }
    }

    #[test]
    fn data_are_found_piece_by_piece_with_trailers_beside_them() {
        let mut body = Body::from(BodyLength::Chunked);
        let (input, mut at, mut data, mut trailers) =
            (b"2\r\nab\r\n1\r\nc\r\n0\r\nx: y\r\n\r\n", 0, Vec::new(), Vec::new());
        while !body.is_end() {
            let (range, progress) = body.next_data(&input[at..], &mut trailers).unwrap();
            data.extend_from_slice(&input[at..][range]);
            assert!(progress.consumed > 0);
            at += progress.consumed;
        }
        assert_eq!((at, &data[..], &trailers[..]), (input.len(), &b"abc"[..], &b"x: y\r\n"[..]));
        let mut body = Body::Sized(2);
        let (range, progress) = body.next_data(b"abc", &mut trailers).unwrap();
        assert_eq!((range, progress.consumed, body.is_end()), (0..2, 2, true));
    }

    #[test]
    fn an_input_that_ends_is_an_end_only_where_the_body_has_none_of_its_own_or_has_come_to_it() {
        let mut whole = Body::from(BodyLength::Chunked);
        transfer(&mut whole, b"1\r\na\r\n0\r\n\r\n", Encoding::Identity);
        let mut cut = Body::from(BodyLength::Chunked);
        transfer(&mut cut, b"1\r\na\r\n", Encoding::Identity);
        for (body, chunked, plain) in [
            (Body::from(BodyLength::UntilClose), Some(&b"0\r\n\r\n"[..]), Some(&b""[..])),
            (Body::from(BodyLength::Sized(1)), None, None),
            (Body::from(BodyLength::Sized(0)), Some(b""), Some(b"")),
            (Body::from(BodyLength::None), Some(b""), Some(b"")),
            (whole, Some(b""), Some(b"")),
            (cut, None, None),
        ] {
            let ends = (body.end_of_input(Encoding::Chunked), body.end_of_input(Encoding::Identity));
            assert_eq!(ends, (chunked, plain), "{body:?}");
        }
    }
}
