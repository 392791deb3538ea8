//! A span as OTLP has it, written as it goes over the wire: a worker makes no message of it, which would be a dozen allocations.
//!
//! Source: `opentelemetry/proto/trace/v1/trace.proto`; numbers of fields stand where they are written.

/// Bytes that a value has at most: clients choose some of them.
const VALUE_BYTES_MAX: usize = 1024;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// Attributes of a span, as they are encoded.
#[derive(Debug, Default, Clone)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// With room for as many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a text. Bytes of the network that are no UTF-8 are replaced; a long one is cut off.
    pub fn text(&mut self, key: &str, value: &[u8]) {
        let value = &value[..value.len().min(VALUE_BYTES_MAX)];
        if value.is_ascii() {
            return self.string(key, value);
        }
        match std::str::from_utf8(value) {
            Ok(_) => self.string(key, value),
            // Cut off within a character, or no UTF-8 at all.
            Err(error) if error.error_len().is_none() => self.string(key, &value[..error.valid_up_to()]),
            Err(_) => self.string(key, String::from_utf8_lossy(value).as_bytes()),
        }
    }

    /// Adds a word of Ringway's own; a long one is cut off.
    #[inline]
    pub fn word(&mut self, key: &str, value: &str) {
        if value.len() < VALUE_BYTES_MAX {
            self.string(key, value.as_bytes())
        } else {
            self.text(key, value.as_bytes())
        }
    }

    /// Adds all of these.
    pub fn append(&mut self, more: &Self) {
        self.0.extend_from_slice(&more.0);
    }

    /// `value` is UTF-8.
    #[inline]
    fn string(&mut self, key: &str, value: &[u8]) {
        // Up to here each length takes one byte, as that of nearly all does.
        const SHORT: usize = 0x80;
        let any = 2 + value.len();
        let length = 2 + key.len() + 2 + any;
        if length < SHORT {
            self.0.reserve(2 + length);
            self.0.extend_from_slice(&[9 << 3 | BYTES, length as u8, 1 << 3 | BYTES, key.len() as u8]);
            self.0.extend_from_slice(key.as_bytes());
            self.0.extend_from_slice(&[2 << 3 | BYTES, any as u8, 1 << 3 | BYTES, value.len() as u8]);
            self.0.extend_from_slice(value);
        } else {
            self.long_string(key, value);
        }
    }

    fn long_string(&mut self, key: &str, value: &[u8]) {
        let any = 1 + varint_len(value.len() as u64) + value.len();
        self.begin(key, any);
        // AnyValue.string_value.
        field(&mut self.0, 1, value);
    }

    /// Adds a number.
    pub fn number(&mut self, key: &str, value: u64) {
        self.begin(key, 1 + varint_len(value));
        // AnyValue.int_value.
        self.0.push(3 << 3 | VARINT);
        varint(&mut self.0, value);
    }

    /// A `KeyValue` up to the content of its value, which has `any` bytes.
    fn begin(&mut self, key: &str, any: usize) {
        let length = 1 + varint_len(key.len() as u64) + key.len() + 1 + varint_len(any as u64) + any;
        // Span.attributes.
        self.0.push(9 << 3 | BYTES);
        varint(&mut self.0, length as u64);
        field(&mut self.0, 1, key.as_bytes());
        self.0.push(2 << 3 | BYTES);
        varint(&mut self.0, any as u64);
    }
}

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Neither.
    Internal = 1,
    /// A request that is served.
    Server = 2,
    /// A request that is sent.
    Client = 3,
}

/// A span that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// The trace's id.
    pub trace_id: [u8; 16],
    /// Its own.
    pub span_id: [u8; 8],
    /// That of the one above it, and whether that is another process's.
    pub parent: Option<([u8; 8], bool)>,
    /// `tracestate`; ASCII.
    pub state: &'a [u8],
    /// Its name in pieces; ASCII, or of the configuration.
    pub name: [&'a str; 3],
    /// Which side of a call it is.
    pub kind: Kind,
    /// When it began, in nanoseconds of Unix time.
    pub start_nanos: u64,
    /// When it ended.
    pub end_nanos: u64,
    /// What else is known.
    pub attributes: &'a Attributes,
    /// It has failed.
    pub is_error: bool,
    /// The trace's id was drawn at random: `traceparent` says so too.
    pub is_random: bool,
}

/// A flag that the bit beside it says something (`SpanFlags`).
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// Flags of `traceparent`. Source: W3C Trace Context, level 2, section 3.2.2.5.
const SAMPLED: u32 = 1;
const RANDOM: u32 = 2;
/// `STATUS_CODE_ERROR` in a `Status`, field 3.
const ERROR: [u8; 4] = [15 << 3 | BYTES, 2, 3 << 3 | VARINT, 2];

impl Span<'_> {
    /// Writes it as one of `ScopeSpans.spans`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let name_len = self.name.iter().map(|part| part.len()).sum::<usize>();
        let with_tag = |length: usize| if length == 0 { 0 } else { 1 + varint_len(length as u64) + length };
        let length = (2 + 16)
            + (2 + 8)
            + with_tag(self.state.len())
            + if self.parent.is_some() { 2 + 8 } else { 0 }
            + with_tag(name_len)
            + 2
            + 2 * (1 + 8)
            + self.attributes.0.len()
            + if self.is_error { ERROR.len() } else { 0 }
            + (2 + 4);
        out.reserve(length + 8);
        out.push(2 << 3 | BYTES);
        varint(out, length as u64);
        let begin = out.len();
        out.extend_from_slice(&[1 << 3 | BYTES, 16]);
        out.extend_from_slice(&self.trace_id);
        out.extend_from_slice(&[2 << 3 | BYTES, 8]);
        out.extend_from_slice(&self.span_id);
        if !self.state.is_empty() {
            field(out, 3, self.state);
        }
        if let Some((parent, _)) = &self.parent {
            out.extend_from_slice(&[4 << 3 | BYTES, 8]);
            out.extend_from_slice(parent);
        }
        if name_len > 0 {
            out.push(5 << 3 | BYTES);
            varint(out, name_len as u64);
            self.name.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        }
        out.extend_from_slice(&[6 << 3 | VARINT, self.kind as u8]);
        out.push(7 << 3 | FIXED64);
        out.extend_from_slice(&self.start_nanos.to_le_bytes());
        out.push(8 << 3 | FIXED64);
        out.extend_from_slice(&self.end_nanos.to_le_bytes());
        out.extend_from_slice(&self.attributes.0);
        if self.is_error {
            out.extend_from_slice(&ERROR);
        }
        let is_remote = if self.parent.is_some_and(|(_, is_remote)| is_remote) { IS_REMOTE } else { 0 };
        let random = if self.is_random { RANDOM } else { 0 };
        // A number above 15 takes two bytes.
        out.extend_from_slice(&[0x80 | FIXED32, 1]);
        out.extend_from_slice(&(SAMPLED | random | HAS_IS_REMOTE | is_remote).to_le_bytes());
        debug_assert_eq!(out.len() - begin, length);
    }
}

/// A field of a length, whose number is below 16.
fn field(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    out.push(number << 3 | BYTES);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    prost::length_delimiter_len(value as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span as Message};
    use proptest::prelude::*;
    use prost::Message as _;

    fn read(spans: &[Span<'_>]) -> Vec<Message> {
        let mut out = Vec::new();
        spans.iter().for_each(|span| span.write(&mut out));
        ScopeSpans::decode(&out[..]).unwrap().spans
    }

    proptest! {
        /// Held against the messages that OpenTelemetry generates.
        #[test]
        fn what_is_written_is_what_the_official_messages_read(
            trace_id: [u8; 16], span_id: [u8; 8], parent: Option<([u8; 8], bool)>, state in "[a-z=,]{0,200}",
            name in "[A-Z]{0,8}", route in "[/a-zé]{0,200}", times: (u64, u64), is_error: bool, is_random: bool,
            texts in proptest::collection::vec(("[a-z.]{1,40}", proptest::collection::vec(any::<u8>(), 0..300)), 0..6),
            numbers in proptest::collection::vec(("[a-z.]{1,40}", any::<u64>()), 0..4),
        ) {
            let mut attributes = Attributes::default();
            texts.iter().for_each(|(key, value)| attributes.text(key, value));
            numbers.iter().for_each(|(key, value)| attributes.number(key, *value));
            let span = Span {
                trace_id, span_id, parent, state: state.as_bytes(), name: [&name, "", &route], kind: Kind::Client,
                start_nanos: times.0, end_nanos: times.1, attributes: &attributes, is_error, is_random,
            };
            let read = read(&[span, span]);
            prop_assert_eq!(read.len(), 2);
            let told = &read[1];
            prop_assert_eq!((&told.trace_id[..], &told.span_id[..]), (&trace_id[..], &span_id[..]));
            prop_assert_eq!(&told.parent_span_id[..], parent.map_or(vec![], |(id, _)| id.to_vec()));
            prop_assert_eq!((&told.trace_state, &told.name), (&state, &format!("{name}{route}")));
            prop_assert_eq!((told.start_time_unix_nano, told.end_time_unix_nano, told.kind), (times.0, times.1, 3));
            prop_assert_eq!(told.status.as_ref().map(|status| status.code), is_error.then_some(2));
            let flags = if parent.is_some_and(|(_, remote)| remote) { 0x301 } else { 0x101 };
            prop_assert_eq!(told.flags, if is_random { flags | 2 } else { flags });
            let mut expected: Vec<(String, Value)> = Vec::new();
            for (key, value) in texts {
                expected.push((key, Value::StringValue(String::from_utf8_lossy(&value).trim_end_matches('\u{fffd}').to_owned())));
            }
            expected.extend(numbers.into_iter().map(|(key, value)| (key, Value::IntValue(value as i64))));
            let told: Vec<(String, Value)> = told.attributes.iter().map(|attribute| {
                let value = match attribute.value.clone().unwrap().value.unwrap() {
                    Value::StringValue(text) => Value::StringValue(text.trim_end_matches('\u{fffd}').to_owned()),
                    value => value,
                };
                (attribute.key.clone(), value)
            }).collect();
            prop_assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_long_value_is_cut_off_between_two_characters() {
        let mut attributes = Attributes::default();
        attributes.text("k", "é".repeat(VALUE_BYTES_MAX).as_bytes());
        attributes.text("k", &[b"x", "é".repeat(VALUE_BYTES_MAX).as_bytes()].concat());
        let span = Span {
            trace_id: [1; 16],
            span_id: [1; 8],
            parent: None,
            state: b"",
            name: ["", "", ""],
            kind: Kind::Internal,
            start_nanos: 0,
            end_nanos: 0,
            attributes: &attributes,
            is_error: false,
            is_random: true,
        };
        let read = read(&[span]);
        let lengths =
            read[0].attributes.iter().map(|attribute| match attribute.value.clone().unwrap().value.unwrap() {
                Value::StringValue(text) => text.len(),
                _ => 0,
            });
        assert_eq!(lengths.collect::<Vec<_>>(), [VALUE_BYTES_MAX, VALUE_BYTES_MAX - 1]);
    }
}
