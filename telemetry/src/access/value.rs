//! Values of a line, and how JSON has them.

/// A value of a line.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// Bytes of the network: escaped.
    Bytes(&'a [u8]),
    /// Our own word.
    Word(&'a str),
    /// A count.
    Number(u64),
    /// Absent.
    Nothing,
}

pub(super) fn push_json(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::Nothing => out.extend_from_slice(b"null"),
        Value::Word(word) => push_quoted(out, word.as_bytes()),
        Value::Bytes(bytes) => push_quoted(out, bytes),
    }
}

/// Bytes of the network as a JSON string: what is seen of valid UTF-8 as it is, other bytes as the code points of Latin-1.
pub(super) fn push_quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
                ' '..='~' => out.push(character as u8),
                character if is_unseen(character) => {
                    character.encode_utf16(&mut [0; 2]).iter().for_each(|&unit| escape(out, unit));
                }
                character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        chunk.invalid().iter().for_each(|&byte| escape(out, byte.into()));
    }
    out.push(b'"');
}

/// Whether a character does something to a terminal, or to the text around it, instead of being seen: those of `ringway_config::plain`,
/// which no line of a log may have either.
fn is_unseen(character: char) -> bool {
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

fn escape(out: &mut Vec<u8>, unit: u16) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |shift: u16| DIGITS[usize::from(unit >> shift & 15)];
    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        push_quoted(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_what_is_seen_is_not() {
        assert_eq!(quoted(b"a\xc2\x9b2J"), r#""a\u009b2J""#);
        assert_eq!(quoted(b"\xe2\x80\xa8|\xe2\x80\xa9"), r#""\u2028|\u2029""#);
        assert_eq!(quoted(b"\xe2\x80\xae"), r#""\u202e""#);
        assert_eq!(quoted("\u{e0041}".as_bytes()), r#""\udb40\udc41""#);
        assert_eq!(quoted(b"\x7f\x00"), r#""\u007f\u0000""#);
        assert_eq!(quoted("\u{e9}\u{20ac}\u{1f600}".as_bytes()), "\"\u{e9}\u{20ac}\u{1f600}\"");
    }

    #[test]
    fn every_text_is_read_back_as_it_was() {
        let every: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        let written = quoted(every.as_bytes());
        assert!(written.chars().all(|character| !is_unseen(character)));
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), every);
    }
}
