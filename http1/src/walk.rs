//! The one walk over a head: start line, field lines, empty line, each byte judged where it stands. What a field means is noted on
//! the way, and judged when the head has proved whole: an error of grammar behind it comes first.

use crate::ParseError;
use crate::framing::Noted;
use ringway_message::scan::{behind_token, behind_value, is_token_byte, usual_name_len};
use ringway_message::{FIELDS_CEILING, Field, FieldName, Limits, Span};

/// Why a walk has not come to the end of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// There is no more of it yet.
    More,
    /// It breaks a rule.
    Error(ParseError),
}

impl From<ParseError> for Stop {
    fn from(error: ParseError) -> Self {
        Self::Error(error)
    }
}

/// How far a head has been walked over that comes in pieces. Kept beside the buffer by its reader.
///
/// Only what has come since is looked at, line by line as lines end; the whole head is walked over once more when its end has come,
/// or something wrong. So a head costs no more than three walks, be it a byte at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resume {
    /// What has been looked at.
    looked: u32,
    /// Where the line begins that has not ended.
    line: u32,
    /// How many field lines have ended.
    fields: u32,
    /// Whether the start line has.
    in_fields: bool,
}

impl Resume {
    /// Nothing has come of the next head.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// So much of a head has been looked at. A connection keeps this while it idles: it is small, and of a head beyond it nothing is
    /// remembered.
    fn at(looked: usize, line: usize, fields: usize, in_fields: bool) -> Self {
        match u32::try_from(looked) {
            // A line begins, and fields have ended, before what has been looked at.
            Ok(looked) => Self { looked, line: line as u32, fields: fields as u32, in_fields },
            Err(_) => Self::default(),
        }
    }

    /// Whether what has come since the last look may change what is known. `start` walks over the start line.
    #[inline]
    pub(crate) fn is_worth_it(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
        start: impl FnOnce(&mut Walk<'_>) -> Result<(), Stop>,
    ) -> bool {
        self.looked == 0 || self.looks_on(buffer, limits, start)
    }

    #[cold]
    fn looks_on(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
        start: impl FnOnce(&mut Walk<'_>) -> Result<(), Stop>,
    ) -> bool {
        let Some(fresh) = buffer.get(self.looked as usize..) else {
            self.reset();
            return true;
        };
        if buffer.len() >= limits.head_bytes_max {
            return true;
        }
        if memchr::memchr(b'\n', fresh).is_none() {
            *self = Self::at(buffer.len(), self.line as usize, self.fields as usize, self.in_fields);
            return false;
        }
        let line = self.line as usize;
        let mut walk = Walk { at: line, line, in_fields: self.in_fields, ..Walk::new(buffer) };
        let fields_max = limits.fields_max.min(FIELDS_CEILING).saturating_sub(self.fields as usize);
        let mut count = 0;
        let result = if self.in_fields { Ok(()) } else { start(&mut walk) };
        let result = result.and_then(|()| {
            walk.fields(fields_max, |_, _, _, _| {
                count += 1;
                count
            })
        });
        let waits = result == Err(Stop::More) && !walk.bare_feed;
        if waits {
            *self = Self::at(buffer.len(), walk.line, self.fields as usize + count, walk.in_fields);
        }
        !waits
    }

    /// Remembers where a walk has stopped, if it was for want of more.
    pub(crate) fn remember(&mut self, walk: &Walk<'_>, fields: usize, waits: bool) {
        *self = if waits { Self::at(walk.buffer.len(), walk.line, fields, walk.in_fields) } else { Self::default() };
    }
}

/// Where the walk is.
#[derive(Debug)]
pub(crate) struct Walk<'b> {
    pub(crate) buffer: &'b [u8],
    pub(crate) at: usize,
    /// Where the line begins that is walked over.
    pub(crate) line: usize,
    pub(crate) in_fields: bool,
    /// A line has ended without CR: no error before the others.
    pub(crate) bare_feed: bool,
}

impl<'b> Walk<'b> {
    pub(crate) fn new(buffer: &'b [u8]) -> Self {
        Self { buffer, at: 0, line: 0, in_fields: false, bare_feed: false }
    }

    #[inline(always)]
    pub(crate) fn byte(&self, at: usize) -> Result<u8, Stop> {
        self.buffer.get(at).copied().ok_or(Stop::More)
    }

    /// The end of a line, which stands at `at`: what comes next is where it leads. Anything else is `error`, as is a CR alone.
    #[inline]
    pub(crate) fn end_line(&mut self, at: usize, error: ParseError) -> Result<(), Stop> {
        self.at = match self.byte(at)? {
            b'\r' if self.byte(at + 1)? == b'\n' => at + 2,
            b'\n' => {
                self.bare_feed = true;
                at + 1
            }
            _ => return Err(Stop::Error(error)),
        };
        self.line = self.at;
        Ok(())
    }

    /// Passes over empty lines before a start line (RFC 9112, 2.2).
    #[inline]
    pub(crate) fn empty_lines(&mut self) -> Result<(), Stop> {
        while matches!(self.byte(self.at)?, b'\r' | b'\n') {
            self.end_line(self.at, ParseError::LineEnd)?;
        }
        Ok(())
    }

    /// `HTTP/1.0` or `HTTP/1.1`; gives the last digit.
    #[inline]
    pub(crate) fn version(&mut self) -> Result<u8, Stop> {
        const PREFIX: u64 = u64::from_le_bytes(*b"HTTP/1.\0");
        let rest = &self.buffer[self.at..];
        match rest.first_chunk().map(|word| u64::from_le_bytes(*word) ^ PREFIX) {
            Some(other) if other == u64::from(b'1') << 56 || other == u64::from(b'0') << 56 => {
                self.at += 8;
                Ok((other >> 56) as u8)
            }
            None if b"HTTP/1.".starts_with(rest) => Err(Stop::More),
            _ => Err(Stop::Error(ParseError::Version)),
        }
    }

    /// Walks over field lines to the empty line behind them, and past it. `take` gets places, kind and the value's bytes, and says how many
    /// fields there are now.
    #[inline(always)]
    pub(crate) fn fields(
        &mut self,
        fields_max: usize,
        mut take: impl FnMut(Span, Span, FieldName, &'b [u8]) -> usize,
    ) -> Result<(), Stop> {
        self.in_fields = true;
        let buffer = self.buffer;
        let mut line = &buffer[self.at..];
        loop {
            let start = buffer.len() - line.len();
            let (mut name_len, mut plain) = (usual_name_len(line), true);
            if name_len == 0 {
                let (rest, is_plain) = match line {
                    [b'\r', ..] => (line, true),
                    _ => behind_token(line),
                };
                (name_len, plain) = (line.len() - rest.len(), is_plain);
                match rest {
                    [b':', ..] if name_len == 0 => return Err(Stop::Error(ParseError::FieldLine)),
                    [b':', ..] => {}
                    _ => return self.end_fields(start, name_len),
                }
            }
            let (name, rest) = line.split_at(name_len);
            // A colon, and one space nearly always.
            let mut value = match rest {
                [_, b' ', rest @ ..] | [_, rest @ ..] => rest,
                [] => rest,
            };
            if let [0..=b' ', ..] = value {
                value = behind_spaces(value);
            }
            let value_start = buffer.len() - value.len();
            let rest = behind_value(value);
            let mut value = &value[..value.len() - rest.len()];
            line = match rest {
                [b'\r', b'\n', rest @ ..] => rest,
                _ => self.end_line_otherwise(start, rest)?,
            };
            if let [.., 0..=b' '] = value {
                value = value.trim_ascii_end();
            }
            let kind = if plain { FieldName::classify_plain(name) } else { FieldName::classify(name) };
            // A field too many is told of when its line has ended.
            let (name, place) = (span(start, start + name_len), span(value_start, value_start + value.len()));
            if take(name, place, kind, value) > fields_max {
                return Err(Stop::Error(ParseError::TooManyFields));
            }
        }
    }

    /// A field line, which begins at `start`, ends with something else than CR LF. Gives the next.
    #[cold]
    fn end_line_otherwise(&mut self, start: usize, rest: &'b [u8]) -> Result<&'b [u8], Stop> {
        (self.line, self.at) = (start, self.buffer.len() - rest.len());
        self.end_line(self.at, ParseError::FieldLine)?;
        Ok(&self.buffer[self.at..])
    }

    /// What stands where a name's colon would: the empty line that ends the fields, or nothing good.
    fn end_fields(&mut self, start: usize, name_len: usize) -> Result<(), Stop> {
        (self.line, self.at) = (start, start);
        match self.byte(start + name_len)? {
            b'\r' | b'\n' if name_len == 0 => self.end_line(start, ParseError::LineEnd),
            _ => Err(Stop::Error(ParseError::FieldLine)),
        }
    }

    /// The same, into the table and what is to be judged. One loop for requests and responses.
    #[inline(never)]
    pub(crate) fn collect(&mut self, limits: &Limits, fields: &mut Vec<Field>, noted: &mut Noted) -> Result<(), Stop> {
        fields.clear();
        self.fields(limits.fields_max.min(FIELDS_CEILING), |name, value, kind, bytes| {
            if kind != FieldName::Other {
                noted.field(kind, value, bytes);
            }
            fields.push(Field { name, value, kind, sensitive: false });
            fields.len()
        })
    }

    /// What a walk comes to that has stopped: `Ok(false)`, or why not. What is wrong in a line that has ended is told at once,
    /// not when the head ends.
    #[cold]
    pub(crate) fn stopped(&self, stop: Stop, limits: &Limits) -> Result<bool, ParseError> {
        match stop {
            Stop::Error(error) => Err(error),
            Stop::More if self.buffer.len() >= limits.head_bytes_max => Err(ParseError::HeadTooLarge),
            Stop::More if self.bare_feed => Err(ParseError::LineEnd),
            Stop::More => Ok(false),
        }
    }

    /// Whether the head that has ended here keeps to its limit, and its lines to their ends.
    #[inline]
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), ParseError> {
        if self.at > limits.head_bytes_max {
            return Err(ParseError::HeadTooLarge);
        }
        if self.bare_feed { Err(ParseError::LineEnd) } else { Ok(()) }
    }
}

#[cold]
fn behind_spaces(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    value
}

/// Limits keep heads far below 4 GiB.
#[inline(always)]
pub(crate) fn span(start: usize, end: usize) -> Span {
    Span { start: start as u32, end: end as u32 }
}

/// A method: a token with a space behind it. Gives where it ends.
#[inline]
pub(crate) fn method_end(walk: &Walk<'_>) -> Result<usize, Stop> {
    let mut end = walk.at;
    while is_token_byte(walk.byte(end)?) {
        end += 1;
    }
    if end > walk.at && walk.buffer[end] == b' ' { Ok(end) } else { Err(Stop::Error(ParseError::StartLine)) }
}
