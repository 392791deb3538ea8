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

    /// Finds the next data of the body in `input`, at most one piece, for who makes something else of it. Trailer fields that
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
