//! Lines that are put into a head that is written, and taken out of it again.

use ringway_message::{Line, Span};
use std::ops::Range;

/// Puts a line into a head, before the line at `at`, which is its end. Gives its length.
pub(super) fn add(out: &mut Vec<u8>, lines: Option<&mut Vec<Line>>, at: usize, (name, value): (&str, &str)) -> usize {
    let text = format!("{name}: {value}\r\n");
    out.splice(at..at, text.bytes());
    if let Some(lines) = lines {
        let (start, value_start) = (at as u32, (at + name.len() + 2) as u32);
        lines.push(Line {
            name: Span { start, end: start + name.len() as u32 },
            value: Span { start: value_start, end: value_start + value.len() as u32 },
            sensitive: false,
        });
    }
    text.len()
}

/// Whether a head has a line of such a name. Its first line has none.
pub(super) fn has(head: &[u8], is: impl Fn(&[u8]) -> bool) -> bool {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    let names = lines.filter_map(|line| line.iter().position(|byte| *byte == b':').map(|end| &line[..end]));
    names.into_iter().any(is)
}

/// Takes whole lines out of a head.
pub(super) fn cut(out: &mut Vec<u8>, lines: &mut Vec<Line>, authority: &mut Span, range: Range<usize>) {
    let (start, end, length) = (range.start as u32, range.end as u32, range.len() as u32);
    let shift = |span: &mut Span| {
        if span.start >= end {
            *span = Span { start: span.start - length, end: span.end - length };
        }
    };
    lines.retain(|line| line.name.start < start || line.name.start >= end);
    lines.iter_mut().for_each(|line| {
        shift(&mut line.name);
        shift(&mut line.value);
    });
    shift(authority);
    out.drain(range);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_message::HeadWriter;

    #[test]
    fn a_line_is_known_by_its_name_alone() {
        let head = b"GET /cookie: HTTP/1.1\r\nhost: a:80\r\nx-a: cookie: b\r\nCookie: c=d\r\n\r\n";
        let is = |name: &'static str| move |found: &[u8]| found.eq_ignore_ascii_case(name.as_bytes());
        assert!(has(head, is("cookie")) && has(head, is("host")) && !has(head, is("get /cookie")));
        assert!(!has(&head[..head.len() - 15], is("cookie")) && !has(b"", is("")));
    }

    #[test]
    fn a_line_that_is_put_in_and_taken_out_again_leaves_the_head_and_its_places_as_they_were() {
        let mut writer = HeadWriter::new(b"GET / HTTP/1.1\r\n".to_vec(), Vec::new(), true);
        writer.field("host", b"a");
        writer.field("accept", b"text/plain");
        writer.text_mut().extend_from_slice(b"\r\n");
        let (mut out, mut lines) = writer.into_parts();
        let head_len = out.len();
        out.extend_from_slice(b"the body");
        let (before, mut authority) = ((out.clone(), lines.clone()), Span { start: 22, end: 23 });
        assert_eq!(authority.of(&out), b"a");
        let at = head_len - 2;
        let told = add(&mut out, Some(&mut lines), at, ("x-before", "b 10.0.0.1:80"));
        assert!(out.ends_with(b"accept: text/plain\r\nx-before: b 10.0.0.1:80\r\n\r\nthe body"));
        let last = lines[2];
        assert_eq!((last.name.of(&out), last.value.of(&out)), (&b"x-before"[..], &b"b 10.0.0.1:80"[..]));
        cut(&mut out, &mut lines, &mut authority, at..at + told);
        assert_eq!((&out, &lines), (&before.0, &before.1));
        // One in the middle: places behind it follow.
        cut(&mut out, &mut lines, &mut authority, 16..25);
        assert_eq!((lines.len(), lines[0].value.of(&out)), (1, &b"text/plain"[..]));
    }
}
