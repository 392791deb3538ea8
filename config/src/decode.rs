//! From the tree to the sections of `schema`: everything that is wrong is gathered, nothing stops at the first error.

use crate::diagnostic::{At, Place, closest};
use crate::findings::Findings;
use crate::node::{Node, Value};
use std::time::Duration;

/// Something that can be read out of the tree.
pub(crate) trait Decode: Sized {
    /// `None`: it could not be, and a finding says why.
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self>;

    /// What it looks like.
    fn shape() -> Shape;
}

/// What a value looks like: JSON Schema and the reference are printed from it.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    Boolean,
    Integer { min: u64, max: u64 },
    Number { min: f64 },
    Text { kind: &'static str, pattern: Option<&'static str> },
    Choice(&'static [&'static str]),
    List(Box<Self>),
    Section { doc: &'static str, fields: fn() -> Vec<Field> },
}

/// A field of a section.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) required: bool,
    pub(crate) default: Option<&'static str>,
    pub(crate) shape: Shape,
}

/// Reads the fields of one section.
pub(crate) struct SectionReader<'a> {
    entries: &'a [(String, Place, Node)],
    title: &'static str,
    place: Place,
    /// Fields that were probably meant by names that are none.
    misspelt: Vec<String>,
}

impl<'a> SectionReader<'a> {
    /// Checks that the node is a mapping without unknown fields.
    pub(crate) fn new(
        node: &'a Node,
        title: &'static str,
        names: &[&'static str],
        shape: fn() -> Shape,
        findings: &mut Findings,
    ) -> Option<Self> {
        let entries: &[_] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => return findings.wrong_type(node, &format!("{title} (a mapping)"), &example(&shape(), node.text())),
        };
        let mut misspelt = Vec::new();
        let names: Vec<&str> = names.iter().map(|name| name.trim_start_matches("r#")).collect();
        for (name, place, _) in entries {
            if !names.contains(&name.as_str()) {
                let meant = closest(name, names.iter().copied());
                misspelt.extend(meant.map(str::to_owned));
                let help = match (elsewhere(name, &shape()), meant) {
                    (Some(place), _) => format!("`{name}` belongs {place}"),
                    (None, Some(name)) => format!("write `{name}`"),
                    (None, None) if names.is_empty() => "it has no fields: write `{}`".to_owned(),
                    (None, None) => format!("its fields are `{}`", names.join("`, `")),
                };
                findings.lost.push(node.place);
                findings.error(*place, "unknown_field", format!("unknown field `{name}` in {title}"), help);
            }
        }
        Some(Self { entries, title, place: node.place, misspelt })
    }

    fn find(&self, name: &str) -> Option<&'a Node> {
        let name = name.trim_start_matches("r#");
        // `field:` with nothing behind it is the field left out.
        self.entries.iter().find(|entry| entry.0 == name && entry.2.value != Value::Null).map(|entry| &entry.2)
    }

    pub(crate) fn required<T: Decode>(&self, name: &str, _: Option<&str>, findings: &mut Findings) -> Option<At<T>> {
        match self.find(name) {
            Some(node) => T::decode(node, findings).map(|value| At { value, place: node.place }),
            // It is there, under another name, and that has been said.
            None if self.misspelt.iter().any(|meant| meant == name.trim_start_matches("r#")) => None,
            None => {
                let message = format!("{} has no `{}`", self.title, name.trim_start_matches("r#"));
                findings.error(
                    self.place,
                    "missing_field",
                    message,
                    format!("add `{}: ...`", name.trim_start_matches("r#")),
                );
                None
            }
        }
    }

    pub(crate) fn optional<T: Decode>(
        &self,
        name: &str,
        _: Option<&str>,
        findings: &mut Findings,
    ) -> Option<Option<At<T>>> {
        match self.find(name).or_else(|| self.empty_section::<T>(name)) {
            // What cannot be read is told, and then taken for absent, so that the rest of the section is checked as well.
            Some(node) => {
                let found = T::decode(node, findings).map(|value| At { value, place: node.place });
                if found.is_none() {
                    findings.lost.push(self.place);
                }
                Some(found)
            }
            None => Some(None),
        }
    }

    /// `tcp:` with nothing behind it is an empty section, not an absent one.
    fn empty_section<T: Decode>(&self, name: &str) -> Option<&'a Node> {
        let is_section = matches!(T::shape(), Shape::Section { .. });
        let name = name.trim_start_matches("r#");
        self.entries.iter().find(|entry| is_section && entry.0 == name).map(|entry| &entry.2)
    }

    pub(crate) fn default<T: Decode>(
        &self,
        name: &str,
        default: Option<&str>,
        findings: &mut Findings,
    ) -> Option<At<T>> {
        let given = self.find(name);
        // What cannot be read is told, and the default stands in for it, so that the rest of the section is checked.
        match given.and_then(|node| T::decode(node, findings).map(|value| At { value, place: node.place })) {
            Some(found) => Some(found),
            None => {
                if given.is_some() {
                    findings.lost.push(self.place);
                }
                // Defaults are written as a user would write them, and read by the same code.
                let value = match default {
                    Some("[]") => Value::List(Vec::new()),
                    Some("{}") | None => Value::Map(Vec::new()),
                    Some(text) => Value::Text(text.to_owned()),
                };
                let node = Node::new(value, self.place);
                T::decode(&node, findings).map(|value| At { value, place: self.place })
            }
        }
    }
}

/// What might have been meant where a section should be: with its required fields, or with the first one that `text` fits.
fn example(shape: &Shape, text: Option<&str>) -> String {
    let Shape::Section { fields, .. } = shape else { return text.unwrap_or("...").to_owned() };
    let fields = fields();
    let required: Vec<&Field> = fields.iter().filter(|field| field.required).collect();
    match (&required[..], text) {
        ([only], Some(text)) => format!("{{ {}: {text} }}", only.name),
        ([], Some(text)) => match fields.iter().find(|field| matches!(field.shape, Shape::Text { .. })) {
            Some(field) => format!("{{ {}: {text} }}", field.name),
            None => "{}".to_owned(),
        },
        ([], None) => "{ field: value }".to_owned(),
        (several, _) => {
            let all: Vec<String> = several.iter().map(|field| format!("{}: ...", field.name)).collect();
            format!("{{ {} }}", all.join(", "))
        }
    }
}

fn list_example<T: Decode>(node: &Node) -> String {
    match &node.value {
        Value::Map(entries) => {
            let name = entries.first().map_or("field", |entry| entry.0.as_str());
            format!("[ {{ {name}: ... }} ]")
        }
        _ => format!("[ {} ]", example(&T::shape(), node.text())),
    }
}

/// Where a field belongs that stands in the wrong section: in one of its own sections, or at the top.
fn elsewhere(name: &str, shape: &Shape) -> Option<String> {
    let mut found = Vec::new();
    // The nearest level only, so that the most likely place is named.
    for depth in 1..=2 {
        inside(name, shape, depth, &mut Vec::new(), &mut found);
        if !found.is_empty() {
            break;
        }
    }
    if !found.is_empty() {
        return Some(format!("in {}", found.join(" or ")));
    }
    let Shape::Section { fields, .. } = crate::schema::Root::shape() else { return None };
    fields().iter().any(|field| field.name == name).then(|| "at the top of the file".to_owned())
}

fn inside(name: &str, shape: &Shape, depth: usize, path: &mut Vec<&'static str>, found: &mut Vec<String>) {
    let Shape::Section { fields, .. } = shape else { return };
    for field in fields() {
        let (section, is_list) = match &field.shape {
            Shape::List(item) => (item.as_ref(), true),
            shape => (shape, false),
        };
        let Shape::Section { fields: below, .. } = section else { continue };
        path.push(field.name);
        if depth > 1 {
            inside(name, section, depth - 1, path, found);
        } else if below().iter().any(|field| field.name == name) {
            let place = path.join(".");
            found.push(if is_list { format!("an entry of `{place}`") } else { format!("`{place}`") });
        }
        path.pop();
    }
}

/// Declares a section: struct, decoder, shape.
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        $name:ident, $title:literal {
            $( $(#[doc = $field_doc:literal])+ $kind:ident $(($default:literal))? $field:ident: $type:ty, )*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq)]
        #[allow(dead_code, reason = "not every section's place is asked for")]
        pub(crate) struct $name {
            pub(crate) place: Place,
            $( $(#[doc = $field_doc])+ pub(crate) $field: section!(@type $kind $type), )*
        }

        impl Decode for $name {
            fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
                const NAMES: &[&str] = &[$(stringify!($field)),*];
                let _reader = SectionReader::new(node, $title, NAMES, Self::shape, findings)?;
                // All fields are read before any failure ends this section.
                $( let $field = _reader.$kind::<$type>(stringify!($field), section!(@default $($default)?), findings); )*
                Some(Self { place: node.place, $( $field: $field?, )* })
            }

            fn shape() -> Shape {
                fn fields() -> Vec<Field> {
                    vec![$( Field {
                        name: stringify!($field).trim_start_matches("r#"),
                        doc: concat!($($field_doc, "\n"),+),
                        required: section!(@required $kind),
                        default: section!(@default $($default)?),
                        shape: <$type as Decode>::shape(),
                    }, )*]
                }
                Shape::Section { doc: concat!($($doc, "\n"),+), fields }
            }
        }
    };
    (@type optional $type:ty) => { Option<At<$type>> };
    (@type $kind:ident $type:ty) => { At<$type> };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
    (@required required) => { true };
    (@required $kind:ident) => { false };
}
pub(crate) use section;

/// Declares a choice between words.
macro_rules! choice {
    ($(#[doc = $doc:literal])+ $name:ident { $($word:literal => $variant:ident),+ $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($variant),+ }

        impl Decode for $name {
            fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
                const WORDS: &[&str] = &[$($word),+];
                match crate::decode::word(node, WORDS, findings)? {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }

            fn shape() -> Shape {
                Shape::Choice(&[$($word),+])
            }
        }
    };
}
pub(crate) use choice;

/// Words of other proxies for what has another name here.
const SYNONYMS: &[(&str, &str)] = &[
    ("leastconn", "least_request"),
    ("least_conn", "least_request"),
    ("least_connections", "least_request"),
    ("roundrobin", "round_robin"),
    ("round-robin", "round_robin"),
    ("rr", "round_robin"),
    ("wrr", "round_robin"),
    ("ring_hash", "ring"),
    ("consistent", "ring"),
    ("consistent_hash", "ring"),
    ("ketama", "ring"),
    ("hash", "ring"),
    ("ip_hash", "ring"),
    ("source", "ring"),
    ("uri", "ring"),
    ("rendezvous", "hrw"),
    ("two_choices", "p2c"),
    ("ewma", "peak_ewma"),
    ("https", "http"),
    ("http2", "h2"),
    ("h2c", "h2"),
    ("grpc", "h2"),
    ("http/2", "h2"),
    ("http/1.1", "http1"),
    ("tls", "tcp"),
    ("quic", "udp"),
    ("TLSv1.2", "1.2"),
    ("TLSv1.3", "1.3"),
    ("brotli", "br"),
    ("zstandard", "zstd"),
];

/// One of some words.
pub(crate) fn word<'a>(node: &'a Node, words: &[&'static str], findings: &mut Findings) -> Option<&'a str> {
    let Some(text) = node.text() else {
        return findings.wrong_type(node, &format!("one of `{}`", words.join("`, `")), words[0]);
    };
    if words.contains(&text) {
        return Some(text);
    }
    let synonym = SYNONYMS.iter().find(|(theirs, ours)| *theirs == text && words.contains(ours)).map(|(_, ours)| *ours);
    let help = match synonym.or_else(|| closest(text, words.iter().copied())) {
        Some(word) => format!("write `{word}`"),
        None => format!("write one of `{}`", words.join("`, `")),
    };
    findings.error(node.place, "unknown_choice", format!("`{text}` is not one of the choices"), help);
    None
}

impl Decode for bool {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            Value::Text(text) if text == "true" || text == "false" => Some(text == "true"),
            _ => findings.wrong_type(node, "a boolean", "true"),
        }
    }

    fn shape() -> Shape {
        Shape::Boolean
    }
}

fn integer(node: &Node, min: u64, max: u64, findings: &mut Findings) -> Option<u64> {
    let value = match &node.value {
        Value::Integer(value) => *value,
        // As a default, or out of `${...}`, a number arrives as text.
        Value::Text(text) => match text.parse() {
            Ok(value) => value,
            Err(_) => return findings.wrong_type(node, "an integer", &min.max(1).to_string()),
        },
        _ => return findings.wrong_type(node, "an integer", &min.max(1).to_string()),
    };
    if !(i128::from(min)..=i128::from(max)).contains(&value) {
        findings.error(
            node.place,
            "out_of_range",
            format!("{value} is out of range"),
            format!("write a number from {min} to {max}"),
        );
        return None;
    }
    u64::try_from(value).ok()
}

/// An integer in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Int<const MIN: u64, const MAX: u64>(pub(crate) u64);

impl<const MIN: u64, const MAX: u64> Decode for Int<MIN, MAX> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        integer(node, MIN, MAX, findings).map(Self)
    }

    fn shape() -> Shape {
        Shape::Integer { min: MIN, max: MAX }
    }
}

/// A limit that is none where it is absent: 0 is neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) u64);

impl Limit {
    const MAX: u64 = u32::MAX as u64;
}

impl Decode for Limit {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let value = integer(node, 0, Self::MAX, findings)?;
        if value == 0 {
            findings.error(
                node.place,
                "out_of_range",
                "a limit of 0 would let nothing through",
                format!("remove it, which is no limit, or write a number from 1 to {}", Self::MAX),
            );
            return None;
        }
        Some(Self(value))
    }

    fn shape() -> Shape {
        Shape::Integer { min: 1, max: Self::MAX }
    }
}

/// A load factor: a number of at least 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Factor(pub(crate) f64);

impl Decode for Factor {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let value = match &node.value {
            Value::Integer(value) => *value as f64,
            Value::Float(value) => *value,
            Value::Text(text) => match text.parse() {
                Ok(value) => value,
                Err(_) => return findings.wrong_type(node, "a number", "1.25"),
            },
            _ => return findings.wrong_type(node, "a number", "1.25"),
        };
        if !(1.0..=1000.0).contains(&value) {
            let message = format!("{value} is out of range: below 1.0 the backends together could not carry the load");
            findings.error(node.place, "out_of_range", message, "write a number from 1.0 to 1000, `1.25` is usual");
            return None;
        }
        Some(Self(value))
    }

    fn shape() -> Shape {
        Shape::Number { min: 1.0 }
    }
}

/// A number between two thousandths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number<const MIN: u64, const MAX: u64>(pub(crate) f64);

impl<const MIN: u64, const MAX: u64> Decode for Number<MIN, MAX> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let value = match &node.value {
            Value::Integer(value) => *value as f64,
            Value::Float(value) => *value,
            Value::Text(text) => match text.parse() {
                Ok(value) => value,
                Err(_) => return findings.wrong_type(node, "a number", "1.5"),
            },
            _ => return findings.wrong_type(node, "a number", "1.5"),
        };
        let (min, max) = (MIN as f64 / 1000.0, MAX as f64 / 1000.0);
        if !(min..=max).contains(&value) {
            let help = format!("write a number from {min} to {max}");
            findings.error(node.place, "out_of_range", format!("{value} is out of range"), help);
            return None;
        }
        Some(Self(value))
    }

    fn shape() -> Shape {
        Shape::Number { min: MIN as f64 / 1000.0 }
    }
}

/// A percentage: `20` or `20%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u32);

impl Decode for Percent {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let stripped = match &node.value {
            Value::Text(text) => Node::new(Value::Text(text.trim_end_matches('%').to_owned()), node.place),
            _ => node.clone(),
        };
        integer(&stripped, 0, 100, findings).map(|value| Self(value as u32))
    }

    fn shape() -> Shape {
        Shape::Integer { min: 0, max: 100 }
    }
}

impl Decode for String {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        // `id: 7` is plain enough, and `0x1F`, `1e3` and `012` are what they look like.
        match node.text() {
            Some(text) => Some(text.to_owned()),
            None => findings.wrong_type(node, "a string", "text"),
        }
    }

    fn shape() -> Shape {
        Shape::Text { kind: "string", pattern: None }
    }
}

impl Decode for Duration {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        const HELP: &str = "write for example `500ms`, `2s`, `1m30s` or `1h`";
        let text = match &node.value {
            Value::Integer(0) => return Some(Self::ZERO),
            Value::Text(text) if text == "0" => return Some(Self::ZERO),
            Value::Text(text) => text,
            Value::Integer(value) => {
                findings.error(
                    node.place,
                    "bad_duration",
                    format!("{value} has no unit"),
                    format!("write `{value}s` or `{value}ms`"),
                );
                return None;
            }
            _ => return findings.wrong_type(node, "a duration", "2s"),
        };
        let duration = parse_duration(text);
        if duration.is_none() {
            findings.error(node.place, "bad_duration", format!("`{text}` is not a duration"), HELP);
        }
        duration
    }

    fn shape() -> Shape {
        Shape::Text { kind: "duration", pattern: Some("^(0|([0-9]+(ms|s|m|h|d))+)$") }
    }
}

/// A time as [`parse_duration`] reads it: cut off to its two largest units, and below a second to milliseconds.
#[must_use]
pub fn duration_text(time: Duration) -> String {
    let seconds = time.as_secs();
    let two = |large: u64, small: u64, names: [&str; 2]| match seconds % large / small {
        0 => format!("{}{}", seconds / large, names[0]),
        rest => format!("{}{}{rest}{}", seconds / large, names[0], names[1]),
    };
    match seconds {
        0 => format!("{}ms", time.subsec_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => two(60, 1, ["m", "s"]),
        3600..86_400 => two(3600, 60, ["h", "m"]),
        _ => two(86_400, 3600, ["d", "h"]),
    }
}

/// `500ms`, `2s`, `1m30s`, `1h`, `1d`: as in files, so wherever else people write a time.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let millis = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        rest = &rest[letters..];
        // `1m1h` and `1s1s` are slips.
        if millis >= last_unit {
            return None;
        }
        last_unit = millis;
        total += Duration::from_millis(number.checked_mul(millis).filter(|&millis| millis <= 366 * 86_400_000)?);
    }
    (last_unit != u64::MAX).then_some(total)
}

/// A size in bytes: `1024`, `64KiB`, `1MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl Decode for Bytes {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let text = match &node.value {
            Value::Integer(_) => return integer(node, 0, 1 << 50, findings).map(Self),
            Value::Text(text) => text,
            _ => return findings.wrong_type(node, "a size", "64KiB"),
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let unit = match text[digits..].trim() {
            "" | "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let size = unit
            .and_then(|unit: u64| text[..digits].parse::<u64>().ok()?.checked_mul(unit))
            .filter(|&size| size <= 1 << 50);
        if size.is_none() {
            findings.error(
                node.place,
                "bad_size",
                format!("`{text}` is not a size"),
                "write for example `65536`, `64KiB` or `1MiB`",
            );
        }
        size.map(Self)
    }

    fn shape() -> Shape {
        Shape::Text { kind: "size", pattern: Some("^[0-9]+ ?(B|KiB|MiB|GiB)?$") }
    }
}

/// A list; what could not be read of it is missing, and `lost` says so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct List<T> {
    items: Vec<At<T>>,
    pub(crate) lost: bool,
}

impl<T> std::ops::Deref for List<T> {
    type Target = [At<T>];

    fn deref(&self) -> &[At<T>] {
        &self.items
    }
}

impl<T: Decode> Decode for List<T> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let Value::List(nodes) = &node.value else {
            return findings.wrong_type(node, "a list", &list_example::<T>(node));
        };
        let items: Vec<At<T>> = nodes
            .iter()
            .filter_map(|node| T::decode(node, findings).map(|value| At { value, place: node.place }))
            .collect();
        Some(Self { lost: items.len() < nodes.len(), items })
    }

    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0ms", "999ms", "1s", "59s", "1m", "1m1s", "59m59s", "1h", "1h1m", "1d", "1d1h", "365d23h"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
        for (whole, cut) in [("1s999ms", "1s"), ("1h59s", "1h"), ("1d59m", "1d")] {
            assert_eq!(duration_text(parse_duration(whole).unwrap()), cut);
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [("500ms", 500), ("2s", 2_000), ("1m30s", 90_000), ("1h", 3_600_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5", "-1s", "1.5s", "1s1m", "1 s", "99999999999999999999s", "9999d", "1µs"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
