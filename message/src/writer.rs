//! A head on its way out.

use crate::{Field, Span};

/// Where a line stands in the text of a [`HeadWriter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The name's bytes, in whatever case they came.
    pub name: Span,
    /// The value's bytes.
    pub value: Span,
    /// It came marked as never to be indexed (RFC 7541, 6.2.3).
    pub sensitive: bool,
}

/// A head that is being written, once for whatever version it goes out in: the text of its field lines, `name: value` CR LF, which
/// HTTP/1.1 sends as it stands, and, where that is asked for, the place of each line in it, by which HTTP/2 encodes them.
///
/// What stands before the lines (a request line, a status line) and behind them is the caller's, in the same text.
#[derive(Debug, Default)]
pub struct HeadWriter {
    text: Vec<u8>,
    lines: Vec<Line>,
    indexed: bool,
}

impl HeadWriter {
    /// Begins behind what `text` holds. `indexed`: places of lines are wanted, in `lines`, which is cleared; without that it stays
    /// as it is.
    #[must_use]
    pub fn new(text: Vec<u8>, mut lines: Vec<Line>, indexed: bool) -> Self {
        lines.clear();
        Self { text, lines, indexed }
    }

    /// The text so far.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The text, to be written on where no line is open, or within a value: see [`HeadWriter::begin`].
    pub fn text_mut(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Where the lines stand; empty if they are not indexed.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Whether places of lines are kept.
    #[must_use]
    pub fn is_indexed(&self) -> bool {
        self.indexed
    }

    /// Text and lines, to be used again.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<Line>) {
        (self.text, self.lines)
    }

    /// Adds a line.
    #[inline]
    pub fn field(&mut self, name: &str, value: &[u8]) {
        let open = self.begin(name);
        self.text.extend_from_slice(value);
        self.end(open);
    }

    /// Adds a line that HTTP/1.1 needs and HTTP/2 says otherwise, or not at all: it has no place among the lines.
    #[inline]
    pub fn hop_field(&mut self, name: &str, value: &[u8]) {
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
    }

    /// Adds a whole line, `name: value` CR LF, whose name has so many bytes; gives where its value stands.
    #[inline]
    pub fn line(&mut self, line: &[u8], name_bytes: usize) -> Span {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(line);
        let name = Span { start, end: start + name_bytes as u32 };
        let value = Span { start: name.end + 2, end: (self.text.len() as u32).saturating_sub(2).max(name.end + 2) };
        if self.indexed {
            self.lines.push(Line { name, value, sensitive: false });
        }
        value
    }

    /// Begins a line whose value is written in pieces into [`HeadWriter::text_mut`]; [`HeadWriter::end`] ends it.
    #[inline]
    pub fn begin(&mut self, name: &str) -> OpenLine {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(name.as_bytes());
        let name = Span { start, end: self.text.len() as u32 };
        self.text.extend_from_slice(b": ");
        OpenLine { name, value: self.text.len() as u32 }
    }

    /// Ends a line.
    #[inline]
    pub fn end(&mut self, line: OpenLine) {
        if self.indexed {
            let value = Span { start: line.value, end: self.text.len() as u32 };
            self.lines.push(Line { name: line.name, value, sensitive: false });
        }
        self.text.extend_from_slice(b"\r\n");
    }

    /// Copies the field lines for which `keep` holds as they were received, run by run. `bytes` are what the fields' spans point
    /// into, where field lines follow each other without gaps, each with its CR LF.
    #[inline]
    pub fn copy(&mut self, bytes: &[u8], fields: &[Field], mut keep: impl FnMut(&Field) -> bool) {
        // Neighbours that are kept are copied together: usually one or two copies in all.
        let mut run: Option<(usize, usize)> = None;
        for (index, field) in fields.iter().enumerate() {
            match (keep(field), run) {
                (true, None) => run = Some((index, index)),
                (true, Some((from, _))) => run = Some((from, index)),
                (false, Some((from, last))) => {
                    self.copy_run(bytes, &fields[from..=last]);
                    run = None;
                }
                (false, None) => {}
            }
        }
        if let Some((from, last)) = run {
            self.copy_run(bytes, &fields[from..=last]);
        }
    }

    fn copy_run(&mut self, bytes: &[u8], fields: &[Field]) {
        let (Some(first), Some(last)) = (fields.first(), fields.last()) else { return };
        let (from, to) = (first.name.start, last.value.end);
        if self.indexed {
            // All of it moves by as much.
            let base = self.text.len() as u32;
            let moved = |span: Span| Span { start: span.start - from + base, end: span.end - from + base };
            self.lines.extend(fields.iter().map(|field| Line {
                name: moved(field.name),
                value: moved(field.value),
                sensitive: field.sensitive,
            }));
        }
        self.text.extend_from_slice(bytes.get(from as usize..to as usize).unwrap_or_default());
        self.text.extend_from_slice(b"\r\n");
    }

    /// Adds whole lines of ours, each with its CR LF.
    #[inline]
    pub fn append(&mut self, lines: &[u8]) {
        if self.indexed {
            let mut at = self.text.len();
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                let text = line.strip_suffix(b"\r\n").unwrap_or(line);
                if let Some(colon) = memchr::memchr(b':', text) {
                    let value = text[colon + 1..].trim_ascii();
                    let start = at + colon + 1 + (text.len() - colon - 1 - text[colon + 1..].trim_ascii_start().len());
                    self.lines.push(Line {
                        name: Span { start: at as u32, end: (at + colon) as u32 },
                        value: Span { start: start as u32, end: (start + value.len()) as u32 },
                        sensitive: false,
                    });
                }
                at += line.len();
            }
        }
        self.text.extend_from_slice(lines);
    }

    /// Takes back all from `text_len` bytes and `lines_len` lines on.
    pub fn truncate(&mut self, text_len: usize, lines_len: usize) {
        self.text.truncate(text_len);
        self.lines.truncate(lines_len);
    }
}

/// A line whose value is being written.
#[derive(Debug)]
#[must_use]
pub struct OpenLine {
    name: Span,
    value: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FieldName;
    use proptest::prelude::*;

    /// Fields of a text of lines, as a codec finds them.
    fn fields(text: &[u8]) -> Vec<Field> {
        let mut at = 0;
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        lines
            .map(|line| {
                let body = line.strip_suffix(b"\r\n").unwrap();
                let colon = body.iter().position(|byte| *byte == b':').unwrap();
                let raw = &body[colon + 1..];
                let start = at + colon + 1 + (raw.len() - raw.trim_ascii_start().len());
                let field = Field {
                    name: Span { start: at as u32, end: (at + colon) as u32 },
                    value: Span { start: start as u32, end: (start + raw.trim_ascii().len()) as u32 },
                    kind: FieldName::classify(&body[..colon]),
                    sensitive: false,
                };
                at += line.len();
                field
            })
            .collect()
    }

    fn pairs(writer: &HeadWriter) -> Vec<(String, String)> {
        let text = |span: Span| String::from_utf8(span.of(writer.text()).to_vec()).unwrap();
        writer.lines().iter().map(|line| (text(line.name), text(line.value))).collect()
    }

    #[test]
    fn what_was_written_comes_back_to_be_used_again() {
        let mut writer = HeadWriter::new(b"GET / HTTP/1.1\r\n".to_vec(), Vec::new(), true);
        writer.field("x-a", b"1");
        writer.hop_field("te", b"trailers");
        let (text, lines) = writer.into_parts();
        assert_eq!(text, b"GET / HTTP/1.1\r\nx-a: 1\r\nte: trailers\r\n");
        let places: Vec<_> = lines.iter().map(|line| (line.name.of(&text), line.value.of(&text))).collect();
        assert_eq!(places, [(&b"x-a"[..], &b"1"[..])]);
    }

    proptest! {
        #[test]
        fn places_and_text_say_the_same_whatever_is_kept(
            lines in proptest::collection::vec(("[a-zA-Z-]{1,8}", "([!-~]([ -~]{0,8}[!-~])?)?", 0..3_usize, any::<bool>()), 0..12),
            before in "[a-z ]{0,9}",
        ) {
            let mut text = Vec::new();
            for (name, value, space, _) in &lines {
                text.extend_from_slice(format!("{name}:{}{value}\r\n", " ".repeat(*space)).as_bytes());
            }
            let fields = fields(&text);
            let mut kept = lines.iter().map(|line| line.3);
            let mut writer = HeadWriter::new(before.into_bytes(), Vec::new(), true);
            writer.field("x-first", b"1");
            writer.copy(&text, &fields, |_| kept.next().unwrap());
            let open = writer.begin("x-pieces");
            writer.text_mut().extend_from_slice(b"a, ");
            writer.text_mut().extend_from_slice(b"b");
            writer.end(open);
            let whole = writer.line(b"x-whole: c d\r\n", 7);
            prop_assert_eq!(whole.of(writer.text()), b"c d");
            writer.append(b"x-last: yes\r\nx-none: \r\n");
            let mut expected = vec![("x-first".to_owned(), "1".to_owned())];
            expected.extend(lines.iter().filter(|line| line.3).map(|line| (line.0.clone(), line.1.clone())));
            expected.push(("x-pieces".into(), "a, b".into()));
            expected.push(("x-whole".into(), "c d".into()));
            expected.push(("x-last".into(), "yes".into()));
            expected.push(("x-none".into(), String::new()));
            prop_assert_eq!(pairs(&writer), expected.clone());
            // The text alone says it too.
            let start = writer.lines()[0].name.start as usize;
            let read: Vec<(String, String)> = writer.text()[start..]
                .split_inclusive(|byte| *byte == b'\n')
                .map(|line| {
                    let line = std::str::from_utf8(line).unwrap().strip_suffix("\r\n").unwrap();
                    let (name, value) = line.split_once(':').unwrap();
                    (name.to_owned(), value.trim().to_owned())
                })
                .collect();
            prop_assert_eq!(read, expected);
        }
    }
}
