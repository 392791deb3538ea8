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

/// Bytes of the network as a JSON string: valid UTF-8 as it is, other bytes as the code points of Latin-1.
pub(super) fn push_quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().bytes() {
            match character {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', character]),
                0..0x20 | 0x7f => escape(out, character),
                _ => out.push(character),
            }
        }
        chunk.invalid().iter().for_each(|&byte| escape(out, byte));
    }
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}
