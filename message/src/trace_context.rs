//! Trace context. Source: W3C, "Trace Context", <https://www.w3.org/TR/trace-context/>.

use crate::RequestHead;
use std::ops::Range;

/// Bytes of a `traceparent` of version 00.
const PARENT_BYTES: usize = 55;
/// Members that a `tracestate` may have (3.3.1).
const MEMBERS_MAX: usize = 32;
/// Of a member's key and value (3.3.2).
const PART_BYTES_MAX: usize = 256;

/// The flag that whoever calls has recorded the trace, or may have (3.2.2.5).
const SAMPLED: u8 = 1;
/// The flag that the trace's id is random (level 2, 3.2.2.5).
const RANDOM: u8 = 2;

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace's id; not all zeros.
    pub trace_id: [u8; 16],
    /// The span that a request was sent by; not all zeros.
    pub span_id: [u8; 8],
    /// Whoever sent it has recorded that span, or may have.
    pub sampled: bool,
    /// The trace's id is said to be random.
    pub random: bool,
}

impl TraceParent {
    /// Where the trace's id stands in a value of version 00.
    pub const ID: Range<usize> = 3..35;
    /// Bytes of the name in [`TraceParent::line`].
    pub const LINE_NAME_BYTES: usize = 11;

    /// Reads a value of any version; what a later one adds is passed over (4.3).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let rest = value.get(PARENT_BYTES..)?;
        let [version] = hex(&value[..2])?;
        let is_end = match version {
            0xff => return None,
            0 => rest.is_empty(),
            _ => rest.first().is_none_or(|byte| *byte == b'-'),
        };
        if !is_end || [value[2], value[35], value[52]] != [b'-'; 3] {
            return None;
        }
        let (trace_id, span_id): ([u8; 16], [u8; 8]) = (hex(&value[3..35])?, hex(&value[36..52])?);
        let [flags] = hex(&value[53..55])?;
        let is_valid = trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self { trace_id, span_id, sampled: flags & SAMPLED != 0, random: flags & RANDOM != 0 })
    }

    /// Of a request: nothing where it has none, or several, or one that is not valid.
    #[must_use]
    pub fn of(bytes: &[u8], head: &RequestHead) -> Option<Self> {
        let mut found = None;
        for field in &head.fields {
            if field.name.of(bytes).eq_ignore_ascii_case(b"traceparent") {
                if found.is_some() {
                    return None;
                }
                found = Some(field.value.of(bytes));
            }
        }
        Self::parse(found?)
    }

    /// The whole field line in version 00, with its end.
    #[inline]
    #[must_use]
    pub fn line(&self) -> [u8; 70] {
        let flags = if self.sampled { SAMPLED } else { 0 } | if self.random { RANDOM } else { 0 };
        let mut text = *b"traceparent: 00-00000000000000000000000000000000-0000000000000000-00\r\n";
        write_hex(&self.trace_id, &mut text[16..48]);
        write_hex(&self.span_id, &mut text[49..65]);
        // Below ten.
        text[67] += flags;
        text
    }

    /// Puts another span's id into the value in what [`TraceParent::line`] has written.
    #[inline]
    pub fn overwrite_span(span_id: &[u8; 8], written: &mut [u8]) {
        if let Some(place) = written.get_mut(36..52) {
            write_hex(span_id, place);
        }
    }
}

/// Whether a request has any field of trace context, valid or not. Most have none.
#[inline]
#[must_use]
pub fn has_trace_context(bytes: &[u8], head: &RequestHead) -> bool {
    head.fields.iter().any(|field| is_trace_field(field.name.of(bytes)))
}

/// Whether a field is one of trace context. Neither name has a dash that could be spelled otherwise.
#[inline]
fn is_trace_field(name: &[u8]) -> bool {
    // Its length and first letter tell nearly every other name.
    matches!(name, [b't' | b'T', ..] if name.len() == 11 || name.len() == 10)
        && (name.eq_ignore_ascii_case(b"traceparent") || name.eq_ignore_ascii_case(b"tracestate"))
}

/// Whether a request's `tracestate` may be passed on: its fields, taken together, have at most 32 members, each nothing, or a key and a
/// value (3.3.1). Otherwise all of it is to go.
#[must_use]
pub fn is_trace_state(bytes: &[u8], head: &RequestHead) -> bool {
    let mut count = 0;
    members(bytes, head).all(|member| {
        count += 1;
        count <= MEMBERS_MAX && (member.is_empty() || is_member(member))
    })
}

/// A request's `tracestate` in one line: as many of its first members as have so many bytes.
#[must_use]
pub fn trace_state(bytes: &[u8], head: &RequestHead, bytes_max: usize) -> Vec<u8> {
    let mut state = Vec::new();
    for member in members(bytes, head).filter(|member| !member.is_empty()) {
        let separator: &[u8] = if state.is_empty() { b"" } else { b"," };
        if state.len() + separator.len() + member.len() > bytes_max {
            break;
        }
        state.extend_from_slice(separator);
        state.extend_from_slice(member);
    }
    state
}

fn members<'b>(bytes: &'b [u8], head: &RequestHead) -> impl Iterator<Item = &'b [u8]> {
    let fields = head.fields.iter().filter(|field| field.name.of(bytes).eq_ignore_ascii_case(b"tracestate"));
    fields.flat_map(|field| field.value.of(bytes).split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// A key and a value (3.3.2): a key begins with a letter or a digit, and may name a tenant before `@`.
fn is_member(member: &[u8]) -> bool {
    let Some(equals) = memchr::memchr(b'=', member) else { return false };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let is_key = key.first().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit())
        && key.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(byte));
    let is_value = value.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'=');
    is_key && is_value && !value.is_empty() && key.len() <= PART_BYTES_MAX && value.len() <= PART_BYTES_MAX
}

/// Digits of lower case alone.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Two digits for each byte, four bytes at a time; what is over, of a place or of the bytes, stays as it is.
#[inline]
pub fn write_hex<const N: usize>(bytes: &[u8; N], digits: &mut [u8]) {
    // By number, not side by side: of a known length, all of it is straight code.
    for at in 0..N / 4 {
        let four = [bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]];
        if let Some(eight) = digits.get_mut(8 * at..8 * at + 8) {
            eight.copy_from_slice(&digits_of(four));
        }
    }
}

/// Each half of a byte goes into a byte of its own, in three steps of all at once; then all become digits together.
#[inline]
fn digits_of(bytes: [u8; 4]) -> [u8; 8] {
    const ALL: u64 = 0x0101_0101_0101_0101;
    let mut halves = u64::from(u32::from_be_bytes(bytes));
    halves = (halves | halves << 16) & 0x0000_ffff_0000_ffff;
    halves = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
    halves = (halves | halves << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 where it is ten or more: letters do not follow digits at once.
    let letters = (halves + 6 * ALL) >> 4 & ALL;
    (halves + u64::from(b'0') * ALL + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Field, FieldName, Span};
    use proptest::prelude::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";

    fn head(fields: &[(&str, &str)]) -> (Vec<u8>, RequestHead) {
        let (mut bytes, mut head) = (Vec::new(), RequestHead::default());
        for (name, value) in fields {
            let mut put = |text: &str| {
                let start = bytes.len() as u32;
                bytes.extend_from_slice(text.as_bytes());
                Span { start, end: bytes.len() as u32 }
            };
            let (name_at, value_at) = (put(name), put(value));
            let kind = FieldName::classify(name.as_bytes());
            head.fields.push(Field { name: name_at, value: value_at, kind, sensitive: false });
        }
        (bytes, head)
    }

    /// The cases of W3C's own tests (`test/test.py`): what is to be taken, and what begins a new trace.
    #[test]
    fn values_are_taken_as_the_tests_of_w3c_want_it() {
        let cut = "00-12345678901234567890123456789012-1234567890123456-01";
        for (value, is_valid) in [
            (cut.to_owned(), true),
            ("00-12345678901234567890123456789012-1234567890123456-00".into(), true),
            ("cc-12345678901234567890123456789012-1234567890123456-01".into(), true),
            ("cc-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like".into(), true),
            ("cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-be-like".into(), false),
            ("00-12345678901234567890123456789012-1234567890123456-01.".into(), false),
            ("00-12345678901234567890123456789012-1234567890123456-01-what".into(), false),
            ("ff-12345678901234567890123456789012-1234567890123456-01".into(), false),
            (".0-12345678901234567890123456789012-1234567890123456-01".into(), false),
            ("0.-12345678901234567890123456789012-1234567890123456-01".into(), false),
            ("0-12345678901234567890123456789012-1234567890123456-01".into(), false),
            ("000-12345678901234567890123456789012-1234567890123456-01".into(), false),
            ("00-00000000000000000000000000000000-1234567890123456-01".into(), false),
            ("00-.2345678901234567890123456789012-1234567890123456-01".into(), false),
            ("00-1234567890123456789012345678901.-1234567890123456-01".into(), false),
            ("00-ABCDEF78901234567890123456789012-1234567890123456-01".into(), false),
            ("00-1234567890123456789012345678901-1234567890123456-01".into(), false),
            ("00-123456789012345678901234567890123-1234567890123456-01".into(), false),
            ("00-12345678901234567890123456789012-0000000000000000-01".into(), false),
            ("00-12345678901234567890123456789012-.234567890123456-01".into(), false),
            ("00-12345678901234567890123456789012-123456789012345-01".into(), false),
            ("00-12345678901234567890123456789012-12345678901234567-01".into(), false),
            ("00-12345678901234567890123456789012-1234567890123456-.0".into(), false),
            ("00-12345678901234567890123456789012-1234567890123456-0.".into(), false),
            ("00-12345678901234567890123456789012-1234567890123456-1".into(), false),
            ("00-12345678901234567890123456789012-1234567890123456-001".into(), false),
            ("00-12345678901234567890123456789012_1234567890123456-01".into(), false),
            (String::new(), false),
        ] {
            assert_eq!(TraceParent::parse(value.as_bytes()).is_some(), is_valid, "{value}");
        }
    }

    #[test]
    fn two_fields_are_as_good_as_none() {
        let value = format!("00-{ID}-00f067aa0ba902b7-01");
        let (bytes, one) = head(&[("a", "b"), ("TraceParent", &value)]);
        let parent = TraceParent::of(&bytes, &one).unwrap();
        assert_eq!((parent.sampled, parent.random, parent.span_id[1]), (true, false, 0xf0));
        let (bytes, two) = head(&[("traceparent", &value), ("traceparent", &value)]);
        assert_eq!(TraceParent::of(&bytes, &two), None);
    }

    #[test]
    fn a_state_is_passed_on_within_its_limits() {
        let many = |count: usize| (0..count).map(|index| format!("k{index}=v")).collect::<Vec<_>>().join(",");
        let long = |len: usize| format!("{}=v", "k".repeat(len));
        for (values, is_good) in [
            (vec!["foo=1".to_owned()], true),
            (vec!["foo=1 , bar=2,,".into(), "fw529a3039@dt=x y".into()], true),
            (vec![String::new()], true),
            (vec![many(32)], true),
            (vec![many(33)], false),
            (vec![many(32), "foo=1".into()], false),
            (vec![",".repeat(31)], true),
            (vec![",".repeat(32)], false),
            (vec![many(30), String::new(), String::new()], true),
            (vec![many(30), ", ,".into()], false),
            (vec![long(256)], true),
            (vec![long(257)], false),
            (vec!["foo".into()], false),
            (vec!["foo=".into()], false),
            (vec!["Foo=1".into()], false),
            (vec!["foo=1=2".into()], false),
            (vec!["@foo=1".into()], false),
            (vec!["foo=\u{e9}".into()], false),
        ] {
            let fields: Vec<_> = values.iter().map(|value| ("tracestate", value.as_str())).collect();
            let (bytes, head) = head(&fields);
            assert_eq!(is_trace_state(&bytes, &head), is_good, "{values:?}");
        }
    }

    #[test]
    fn a_state_is_shortened_between_two_members() {
        let (bytes, head) = head(&[("tracestate", "a=1 ,,b=2"), ("a", "b"), ("TraceState", " c=3")]);
        for (bytes_max, state) in
            [(2, ""), (3, "a=1"), (6, "a=1"), (7, "a=1,b=2"), (11, "a=1,b=2,c=3"), (512, "a=1,b=2,c=3")]
        {
            assert_eq!(trace_state(&bytes, &head, bytes_max), state.as_bytes(), "{bytes_max}");
        }
    }

    #[test]
    fn fields_of_trace_context_are_known_however_they_are_spelled_and_no_others() {
        for (name, is_one) in [
            ("traceparent", true),
            ("TraceParent", true),
            ("tracestate", true),
            ("TRACESTATE", true),
            ("traceparens", false),
            ("tracestat", false),
            ("raceparentt", false),
            ("transform", false),
            ("", false),
        ] {
            let (bytes, head) = head(&[("host", "a"), (name, "b")]);
            assert_eq!(has_trace_context(&bytes, &head), is_one, "{name}");
        }
    }

    #[test]
    fn every_byte_has_its_two_digits() {
        for byte in 0..=255_u8 {
            let mut digits = [b'-'; 9];
            write_hex(&[byte, 0, !byte, 0xff], &mut digits[..8]);
            assert_eq!(digits, format!("{byte:02x}00{:02x}ff-", !byte).as_bytes());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace_id: [u8; 16], span_id: [u8; 8], next: [u8; 8], sampled: bool, random: bool) {
            prop_assume!(trace_id != [0; 16] && span_id != [0; 8] && next != [0; 8]);
            let parent = TraceParent { trace_id, span_id, sampled, random };
            let mut line = parent.line();
            let (name, value) = line.split_at_mut(TraceParent::LINE_NAME_BYTES + 2);
            prop_assert_eq!(&*name, b"traceparent: ");
            let (value, end) = value.split_at_mut(PARENT_BYTES);
            prop_assert_eq!(&*end, b"\r\n");
            prop_assert_eq!(TraceParent::parse(value), Some(parent));
            TraceParent::overwrite_span(&next, value);
            prop_assert_eq!(TraceParent::parse(value), Some(TraceParent { span_id: next, ..parent }));
        }

        /// Any bytes are judged without a panic, and one that is taken and written again says the same.
        #[test]
        fn any_bytes_are_judged(value in "[0-9a-f]{2}-[0-9a-fF]{31,33}-[0-9a-f]{16}-[0-9a-f]{2}.{0,3}|.{0,60}") {
            if let Some(parent) = TraceParent::parse(value.as_bytes()) {
                prop_assert_eq!(&parent.line()[16..66], &value.as_bytes()[3..53]);
            }
        }
    }
}
