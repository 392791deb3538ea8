//! The chunked transfer coding (RFC 9112, 7.1), read strictly.

use crate::ParseError;
use std::ops::Range;

/// Longest chunk-size line, extensions and CR LF included, in bytes.
const SIZE_LINE_BYTES_MAX: usize = 256;
/// Longest trailer section, in bytes: as long as a head.
pub const TRAILER_BYTES_MAX: usize = 64 * 1024;
/// Extensions of all chunks of a body together, in bytes: clients do not use them, floods do.
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

    /// How many bytes of data follow at `input[at..]`, in whatever pieces, before anything else is to be told.
    pub(crate) fn data_ahead(&self, input: &[u8], mut at: usize) -> usize {
        let (mut ahead, mut data) = (self.clone(), 0);
        while let Ok(ChunkEvent::Data(range)) = ahead.next(input, &mut at) {
            data += range.len();
        }
        data
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
    // White space may stand before an extension, but not before the line's end.
    if digits == 0 || !matches!(after, b'\r' | b';' | b' ' | b'\t') {
        return Err(ParseError::ChunkSize);
    }
    let window = &input[..input.len().min(SIZE_LINE_BYTES_MAX)];
    let Some(line_end) = memchr::memchr(b'\r', window) else {
        check_extension_bytes(&window[digits..])?;
        return if window.len() == SIZE_LINE_BYTES_MAX { Err(ParseError::ChunkOverhead) } else { Ok(None) };
    };
    if parse_extensions(&input[digits..line_end]).is_none() {
        return Err(ParseError::ChunkSize);
    }
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

/// What an extension may be made of, as far as it has come: no line end hides in it.
fn check_extension_bytes(extension: &[u8]) -> Result<(), ParseError> {
    if extension.iter().all(|&byte| is_quotable(byte)) { Ok(()) } else { Err(ParseError::ChunkSize) }
}

/// `chunk-ext` (RFC 9112, 7.1.1): names, each perhaps with a token or a quoted string. `None`: it is something else.
fn parse_extensions(mut rest: &[u8]) -> Option<()> {
    while !rest.is_empty() {
        rest = skip_space(rest).strip_prefix(b";")?;
        rest = skip_token(skip_space(rest))?;
        let Some(value) = skip_space(rest).strip_prefix(b"=") else { continue };
        let value = skip_space(value);
        rest = match value.strip_prefix(b"\"") {
            Some(quoted) => skip_quoted(quoted)?,
            None => skip_token(value)?,
        };
    }
    Some(())
}

fn skip_space(bytes: &[u8]) -> &[u8] {
    let count = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &bytes[count..]
}

/// `None`: there is no token (RFC 9110, 5.6.2).
fn skip_token(bytes: &[u8]) -> Option<&[u8]> {
    let is_tchar = |byte: &&u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let count = bytes.iter().take_while(is_tchar).count();
    (count > 0).then(|| &bytes[count..])
}

/// Past the quote that ends a string (RFC 9110, 5.6.4).
fn skip_quoted(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            b'"' => return Some(&bytes[at + 1..]),
            b'\\' if is_quotable(*bytes.get(at + 1)?) => at += 2,
            byte if is_quotable(byte) => at += 1,
            _ => return None,
        }
    }
}

/// White space, what is printable, and what is not ASCII.
fn is_quotable(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

/// The trailer section's length once all of it is there.
fn trailer_len(input: &[u8]) -> Result<Option<usize>, ParseError> {
    let len = match input {
        [b'\r', b'\n', ..] => Some(2),
        _ => memchr::memmem::find(&input[..input.len().min(TRAILER_BYTES_MAX)], b"\r\n\r\n").map(|at| at + 4),
    };
    let section = &input[..len.unwrap_or(input.len().min(TRAILER_BYTES_MAX))];
    crate::framing::check_line_ends(section)?;
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
    fn extensions_are_read_as_the_rfc_writes_them() {
        for extension in [
            &b";a=\"x y\""[..],
            b";a",
            b";a=b;c",
            b" ; a = b ; c",
            b"\t;\ta\t=\t\"\"",
            b";a=\"\\\"\\\\;=\xe4\t\";b=\"c\"",
            b";a=\"0\";b=!#$%&'*+-.^_`|~",
        ] {
            let bytes = [&b"3"[..], extension, b"\r\nabc\r\n0", extension, b"\r\n\r\n"].concat();
            let whole = decode(&bytes);
            assert_eq!(whole, Ok((b"abc".to_vec(), true, bytes.len())), "{:?}", String::from_utf8_lossy(extension));
            // Whatever of it has come: nothing is wrong with that.
            (0..bytes.len()).for_each(|end| assert!(decode(&bytes[..end]).is_ok_and(|(_, over, _)| !over), "{end}"));
        }
    }

    #[test]
    fn a_quoted_string_ends_at_its_quote_and_hides_neither_quote_nor_line_end() {
        for (text, rest) in [
            (&b"a\"b"[..], Some(&b"b"[..])),
            (b"\"", Some(b"")),
            (b"\\\"x\";", Some(b";")),
            (b"\\\\\"x", Some(b"x")),
            (b"a", None),
            (b"a\\", None),
            (b"a\\\"", None),
            (b"a\n\"", None),
            (b"a\\\n\"", None),
            (b"a\\\x7f\"", None),
        ] {
            assert_eq!(skip_quoted(text), rest, "{:?}", String::from_utf8_lossy(text));
        }
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
            (b"3 ;\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a=\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;=b\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a=b c\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a;;b\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a \r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a=\"b\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a=\"b\"c\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a=b\"c\"\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a=\"b\\\r\n\"\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a=\"\n\"\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a=\"\0\"\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a=\"\x7f\"\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a@=b\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;\xe4\r\nabc\r\n", ParseError::ChunkSize),
            (b"3;a\nb\r\nabc\r\n", ParseError::ChunkSize),
            (b"00000000000000003\r\nabc\r\n", ParseError::ChunkSize),
            (b"3\r\nabcd\r\n", ParseError::ChunkEnd),
            (b"3\r\nabc\n", ParseError::ChunkEnd),
            (b"0\r\nX: y\n\r\n", ParseError::LineEnd),
        ] {
            assert_eq!(decode(input), Err(error), "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn extensions_of_all_chunks_together_have_8_kib_and_not_one_byte_more() {
        // The semicolon counts as well: a hundred bytes each.
        let chunk = format!("1;{}\r\na\r\n", "x".repeat(99));
        let whole = chunk.repeat(81);
        for (rest, expected) in [(92, Ok(82)), (93, Err(ParseError::ChunkOverhead))] {
            let body = format!("{whole}1;{}\r\na\r\n0\r\n\r\n", "x".repeat(rest - 1));
            assert_eq!(decode(body.as_bytes()).map(|(data, ..)| data.len()), expected, "{rest}");
        }
    }
}
