//! Heads and framing as they go on to the next hop.

use crate::framing::Encoding;
use crate::walk::Walk;
use ringway_message::{FIELDS_CEILING, Field, ParseError, may_trail};

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
    let walked = walk.fields(FIELDS_CEILING / 4, |name, _, _, value| {
        let name = name.of(section);
        if may_trail(name) && keep(name) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_message::{Limits, RequestHead};

    #[test]
    fn kept_fields_are_copied_as_they_came_and_in_order() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\nA:  1 \r\nb: 2\r\nC: 3\r\n\r\n";
        let mut head = RequestHead::default();
        assert!(crate::parse_request(text, &Limits::default(), &mut head).unwrap());
        let copied = |keep: &[&str]| {
            let mut out = Vec::new();
            copy_fields(text, &head.fields, &mut out, |field| {
                keep.iter().any(|name| field.name.of(text).eq_ignore_ascii_case(name.as_bytes()))
            });
            String::from_utf8(out).unwrap()
        };
        assert_eq!(copied(&["host", "a", "b", "c"]), "Host: a\r\nA:  1 \r\nb: 2\r\nC: 3\r\n");
        assert_eq!(copied(&["a", "c"]), "A:  1 \r\nC: 3\r\n");
        assert_eq!(copied(&["host", "b"]), "Host: a\r\nb: 2\r\n");
        assert_eq!(copied(&[]), "");
    }

    #[test]
    fn sizes_of_chunks_are_hexadecimal_without_zeros_in_front() {
        let cases =
            [(0, "0"), (1, "1"), (15, "f"), (16, "10"), (255, "ff"), (4096, "1000"), (usize::MAX, "ffffffffffffffff")];
        for (size, text) in cases {
            let mut out = Vec::new();
            chunk_size(size, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{text}\r\n"));
        }
    }

    #[test]
    fn no_data_are_no_chunk_because_that_would_be_the_last() {
        let mut out = Vec::new();
        data(b"", &mut out, Encoding::Chunked);
        assert!(out.is_empty());
        data(b"abc", &mut out, Encoding::Chunked);
        data(b"de", &mut out, Encoding::Identity);
        field(&mut out, "x-a", b"1");
        assert_eq!(out, b"3\r\nabc\r\ndex-a: 1\r\n");
    }

    #[test]
    fn trailers_that_frame_or_route_are_dropped_and_a_malformed_section_writes_nothing() {
        let of = |section: &[u8]| {
            let mut out = b"before".to_vec();
            let result = trailers(section, &mut out, |name| name != b"secret");
            (result, String::from_utf8(out).unwrap())
        };
        assert_eq!(of(b"\r\n"), (Ok(()), "before".into()));
        assert_eq!(
            of(b"x:1\r\nhost: b\r\nsecret: 2\r\ncontent-length: 3\r\ny: 4\r\n\r\n"),
            (Ok(()), "beforex: 1\r\ny: 4\r\n".into())
        );
        for section in [&b"x: 1\r\nno colon\r\n\r\n"[..], b"x: 1\r\n\r\nmore", b"x: 1\r\n"] {
            assert_eq!(of(section), (Err(ParseError::Trailer), "before".into()));
        }
    }
}
