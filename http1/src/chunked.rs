//! The chunked transfer coding (RFC 9112, 7.1), read strictly.

use crate::ParseError;
use std::ops::Range;

/// Longest chunk-size line, extensions and CR LF included, in bytes.
const SIZE_LINE_BYTES_MAX: usize = 256;
/// Longest trailer section, in bytes: as long as a head.
pub const TRAILER_BYTES_MAX: usize = 64 * 1024;
/// Extensions of all chunks of a body together, in bytes: nobody uses them, floods do.
const EXTENSION_BYTES_MAX: usize = 8 * 1024;

/// Finds the data in a chunked body, whatever pieces it arrives in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChunkDecoder {
    state: State,
    extension_bytes: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailer,
    End,
}

/// What the next bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkEvent {
    /// Data of the body: this range of the input.
    Data(Range<usize>),
    /// The trailer section, its last empty line included, is this range of the input; the body is over.
    End(Range<usize>),
    /// Nothing more can be told without more input.
    NeedMore,
}

impl ChunkDecoder {
    /// Whether the body is over.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Reads on at `input[*at..]` and moves `at` past what it has taken.
    ///
    /// # Errors
    /// The body is malformed and so is everything after it on the connection.
    pub fn next(&mut self, input: &[u8], at: &mut usize) -> Result<ChunkEvent, ParseError> {
        loop {
            let rest = &input[*at..];
            match self.state {
                State::Size => {
                    let Some((size, line_len, extension_bytes)) = parse_size_line(rest)? else {
                        return Ok(ChunkEvent::NeedMore);
                    };
                    self.extension_bytes += extension_bytes;
                    if self.extension_bytes > EXTENSION_BYTES_MAX {
                        return Err(ParseError::ChunkOverhead);
                    }
                    *at += line_len;
                    self.state = if size == 0 { State::Trailer } else { State::Data(size) };
                }
                State::Data(remaining) => {
                    if rest.is_empty() {
                        return Ok(ChunkEvent::NeedMore);
                    }
                    let taken = usize::try_from(remaining).unwrap_or(usize::MAX).min(rest.len());
                    let data = *at..*at + taken;
                    *at += taken;
                    self.state = match remaining - taken as u64 {
                        0 => State::DataEnd,
                        remaining => State::Data(remaining),
                    };
                    return Ok(ChunkEvent::Data(data));
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        *at += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(ChunkEvent::NeedMore),
                    _ => return Err(ParseError::ChunkEnd),
                },
                State::Trailer => {
                    let Some(len) = trailer_len(rest)? else { return Ok(ChunkEvent::NeedMore) };
                    let range = *at..*at + len;
                    *at += len;
                    self.state = State::End;
                    return Ok(ChunkEvent::End(range));
                }
                State::End => return Ok(ChunkEvent::End(*at..*at)),
            }
        }
    }
}

/// `Some((size, line length, extension bytes))` once the whole line is there.
fn parse_size_line(input: &[u8]) -> Result<Option<(u64, usize, usize)>, ParseError> {
    let digits = input.iter().take(17).take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits > 16 {
        return Err(ParseError::ChunkSize);
    }
    let Some(&after) = input.get(digits) else { return Ok(None) };
    if digits == 0 || !matches!(after, b'\r' | b';') {
        return Err(ParseError::ChunkSize);
    }
    let window = &input[..input.len().min(SIZE_LINE_BYTES_MAX)];
    let Some(line_end) = memchr::memchr(b'\r', window) else {
        // A lone `;` may still get its name.
        if window[digits..] != *b";" {
            check_extension(&window[digits..])?;
        }
        return if window.len() == SIZE_LINE_BYTES_MAX { Err(ParseError::ChunkOverhead) } else { Ok(None) };
    };
    check_extension(&input[digits..line_end])?;
    match input.get(line_end + 1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(ParseError::ChunkSize),
    }
    let size = input[..digits]
        .iter()
        .fold(0_u64, |sum, &digit| sum << 4 | u64::from((digit as char).to_digit(16).unwrap_or_default()));
    Ok(Some((size, line_end + 2, line_end - digits)))
}

/// `;name=value;…`, of printable bytes without spaces: all that anybody has been seen to send.
fn check_extension(extension: &[u8]) -> Result<(), ParseError> {
    let good = |byte: &u8| byte.is_ascii_graphic();
    if extension.iter().all(good) && extension != b";" { Ok(()) } else { Err(ParseError::ChunkSize) }
}

/// The trailer section's length once all of it is there.
fn trailer_len(input: &[u8]) -> Result<Option<usize>, ParseError> {
    let len = match input {
        [b'\r', b'\n', ..] => Some(2),
        _ => memchr::memmem::find(&input[..input.len().min(TRAILER_BYTES_MAX)], b"\r\n\r\n").map(|at| at + 4),
    };
    let section = &input[..len.unwrap_or(input.len().min(TRAILER_BYTES_MAX))];
    crate::head::check_line_ends(section)?;
    if len.is_none() && input.len() >= TRAILER_BYTES_MAX {
        return Err(ParseError::ChunkOverhead);
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8]) -> Result<(Vec<u8>, bool, usize), ParseError> {
        let (mut decoder, mut at, mut data) = (ChunkDecoder::default(), 0, Vec::new());
        loop {
            match decoder.next(input, &mut at)? {
                ChunkEvent::Data(range) => data.extend_from_slice(&input[range]),
                ChunkEvent::End(_) => return Ok((data, true, at)),
                ChunkEvent::NeedMore => return Ok((data, false, at)),
            }
        }
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(decode(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX: y\r\n\r\nnext").unwrap(), (b"abcde".to_vec(), true, 30));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for (input, error) in [
            (&b" 3\r\nabc\r\n"[..], ParseError::ChunkSize),
            (b"3 \r\nabc\r\n", ParseError::ChunkSize),
            (b"+3\r\nabc\r\n", ParseError::ChunkSize),
            (b"0x3\r\nabc\r\n", ParseError::ChunkSize),
            (b"-1\r\n", ParseError::ChunkSize),
            (b"\r\n", ParseError::ChunkSize),
            (b"3\nabc\r\n", ParseError::ChunkSize),
            (b"3;\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a b\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a\nb\r\nabc\r\n", ParseError::ChunkSize),
            (b"00000000000000003\r\nabc\r\n", ParseError::ChunkSize),
            (b"3\r\nabcd\r\n", ParseError::ChunkEnd),
            (b"3\r\nabc\n", ParseError::ChunkEnd),
            (b"0\r\nX: y\n\r\n", ParseError::LineEnd),
        ] {
            assert_eq!(decode(input), Err(error), "{:?}", String::from_utf8_lossy(input));
        }
    }
}
