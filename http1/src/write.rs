//! Heads and framing as they go on to the next hop.

use crate::framing::Encoding;
use crate::walk::Walk;
use ringway_message::{FIELDS_CEILING, Field, ParseError};

/// Appends the field lines for which `keep` holds, as they were received, run by run.
///
/// `head` is the head's bytes, from its start to the end of its last empty line.
pub fn copy_fields(head: &[u8], fields: &[Field], out: &mut Vec<u8>, mut keep: impl FnMut(&Field) -> bool) {
    // Neighbours that are kept are copied together: usually one or two copies in all.
    let mut run_start = None;
    for field in fields {
        let start = field.name.start as usize;
        match (keep(field), run_start) {
            (true, None) => run_start = Some(start),
            (false, Some(from)) => {
                out.extend_from_slice(&head[from..start]);
                run_start = None;
            }
            _ => {}
        }
    }
    if let Some(from) = run_start {
        out.extend_from_slice(&head[from..head.len() - 2]);
    }
}

/// Appends `name: value` and CR LF.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a chunk's size line.
pub fn chunk_size(size: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(DIGITS[size >> (4 * digit) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends data of a body in the framing `encoding`; no data are no chunk, since that would be the last.
pub fn data(bytes: &[u8], out: &mut Vec<u8>, encoding: Encoding) {
    match encoding {
        Encoding::Identity => out.extend_from_slice(bytes),
        Encoding::Chunked if bytes.is_empty() => {}
        Encoding::Chunked => {
            chunk_size(bytes.len(), out);
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends the trailer fields that may be passed on and for whose names `keep` holds; `section` ends with its empty line.
pub(crate) fn trailers(section: &[u8], out: &mut Vec<u8>, keep: impl Fn(&[u8]) -> bool) -> Result<(), ParseError> {
    if section == b"\r\n" || section.is_empty() {
        return Ok(());
    }
    let (mut walk, start) = (Walk::new(section), out.len());
    let mut count = 0;
    let walked = walk.fields(FIELDS_CEILING / 4, |name, _, kind, value| {
        let name = name.of(section);
        if kind.may_trail() && keep(name) {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        count += 1;
        count
    });
    if walked.is_ok() && walk.at == section.len() {
        return Ok(());
    }
    // Of a section that is none, nothing goes on.
    out.truncate(start);
    Err(ParseError::Trailer)
}
