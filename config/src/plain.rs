//! Texts that others wrote, made fit for a terminal: whoever may register a backend must not move an admin's cursor, set a
//! title, or show a name backwards.

use std::fmt::Write as _;
use std::io::{self, Write};

/// Whether a character does something to a terminal, or to the text around it, instead of being seen: control characters (C0,
/// DEL, C1), directions of writing, separators of lines, and what has no width.
#[must_use]
pub fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Whether a text is `.` or `..`: no path of a URL can have it as a segment, encoded or not (RFC 3986, 5.2.4).
#[must_use]
pub fn is_dots(text: &str) -> bool {
    matches!(text, "." | "..")
}

/// As JSON has it, so that what is JSON stays JSON: `\u001b`.
fn push_escape(out: &mut String, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        // Writing to a String does not fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

/// One line, of which everything is seen: a text in a table, in a sentence.
#[must_use]
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            unseen if is_unseen(unseen) => push_escape(&mut out, unseen),
            seen => out.push(seen),
        }
    }
    out
}

/// Lines, of which everything but their ends and tabs is seen.
#[must_use]
pub fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_lines(&mut out, text);
    out
}

fn push_lines(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\n' | '\t' => out.push(character),
            unseen if is_unseen(unseen) => push_escape(out, unseen),
            seen => out.push(seen),
        }
    }
}

/// What is written through it goes on as [`lines`]; bytes that are no UTF-8, as the character that stands for such.
#[derive(Debug)]
pub struct Plain<W>(W);

impl<W: Write> Plain<W> {
    /// In front of `inner`.
    pub fn new(inner: W) -> Self {
        Self(inner)
    }
}

impl Plain<io::Stdout> {
    /// Nobody else writes between.
    #[must_use]
    pub fn lock(&self) -> Plain<io::StdoutLock<'static>> {
        Plain(self.0.lock())
    }
}

impl Plain<io::Stderr> {
    /// Nobody else writes between.
    #[must_use]
    pub fn lock(&self) -> Plain<io::StderrLock<'static>> {
        Plain(self.0.lock())
    }
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            push_lines(&mut out, chunk.valid());
            if !chunk.invalid().is_empty() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.0.write_all(out.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let every: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        let mut written = Vec::new();
        write!(Plain::new(&mut written), "{every}").unwrap();
        let written = String::from_utf8(written).unwrap();
        assert!(written.chars().all(|character| matches!(character, '\n' | '\t') || !is_unseen(character)));
        assert!(line(&every).chars().all(|character| !is_unseen(character)));
        assert!(written.contains("a") && written.contains('ü') && written.contains('鍵') && written.contains('🔑'));
        assert_eq!(
            line("a\u{1b}]0;x\u{7}\r\nb\u{9b}2J\u{202e}\u{e0041}"),
            "a\\u001b]0;x\\u0007\\r\\nb\\u009b2J\\u202e\\udb40\\udc41"
        );
        let mut broken = Vec::new();
        Plain::new(&mut broken).write_all(b"a\x9b\x1bb").unwrap();
        assert_eq!(String::from_utf8(broken).unwrap(), "a\u{fffd}\\u001bb");
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({ "note": "a\u{1b}[2J\u{9b}\u{7f}\u{202e}\u{e0041}\n\"ü" });
        for text in [value.to_string(), format!("{value:#}")] {
            let mut written = Vec::new();
            Plain::new(&mut written).write_all(text.as_bytes()).unwrap();
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&written).unwrap(), value);
        }
    }

    #[test]
    fn what_is_flushed_is_flushed_behind_it() {
        let mut buffered = Plain::new(io::BufWriter::new(Vec::new()));
        buffered.write_all(b"a").unwrap();
        assert_eq!(buffered.0.get_ref(), b"");
        buffered.flush().unwrap();
        assert_eq!(buffered.0.get_ref(), b"a");
    }
}
