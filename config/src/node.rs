//! The YAML text as a tree with places. Only this file and `limits` name the YAML crate.

use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::limits;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};
use std::fmt;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
    written: Written,
}

/// What stands in the file, where YAML has made something else of it: `0x1F` is a number, and a name as well.
#[derive(Debug, Clone, PartialEq)]
enum Written {
    /// What it is says it all.
    Same,
    /// From this byte on, so many: until the text is at hand.
    At(usize, usize),
    Text(String),
}

/// What YAML knows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Place, Node)>),
}

impl Value {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl Node {
    /// A value of nobody's file.
    pub(crate) fn new(value: Value, place: Place) -> Self {
        Self { value, place, written: Written::Same }
    }

    /// A section's entry.
    pub(crate) fn entry(&self, name: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.0 == name).map(|entry| &entry.2)
    }

    /// A section's entry, to be changed.
    pub(crate) fn entry_mut(&mut self, name: &str) -> Option<&mut Self> {
        let Value::Map(entries) = &mut self.value else { return None };
        entries.iter_mut().find(|entry| entry.0 == name).map(|entry| &mut entry.2)
    }

    /// What it says, letter by letter, whatever YAML takes it for; nothing of lists, mappings and of nothing.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => match &self.written {
                Written::Text(text) => Some(text),
                Written::Same | Written::At(..) => None,
            },
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Fills in what is written where scalars are no texts.
    fn quote(&mut self, source: &str) {
        if let Written::At(begin, len) = self.written {
            let text = begin.checked_add(len).and_then(|end| source.get(begin..end)).unwrap_or_default();
            self.written = Written::Text(text.trim().to_owned());
        }
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.quote(source)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, _, value)| value.quote(source)),
            _ => {}
        }
    }

    /// Its places are places of the text with this number.
    pub(crate) fn set_text(&mut self, number: usize) {
        self.place.text = number;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.set_text(number)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, place, value)| {
                place.text = number;
                value.set_text(number);
            }),
            _ => {}
        }
    }
}

/// Parses a file's text. What the YAML crate refuses (syntax, duplicate keys, alias bombs) is one finding.
pub(crate) fn parse(text: &str) -> Result<Node, Box<Diagnostic>> {
    // Places count from behind the mark that some editors begin files with.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, limits::options()) {
        Ok(root) => {
            let mut root = node(root);
            root.quote(text);
            Ok(root)
        }
        Err(error) => {
            let place = error.location().map(place).unwrap_or_default();
            if let Some((message, help)) = limits::breached(&error) {
                return Err(Box::new(Diagnostic::new(Severity::Error, "too_large", place, message, Some(help.into()))));
            }
            let message = error.without_snippet().to_string();
            // The place stands in the finding already.
            let end = [" at line ", ", set DuplicateKeyPolicy"].iter().filter_map(|cut| message.find(cut)).min();
            let message = message[..end.unwrap_or(message.len())].trim().to_owned();
            let (code, help) = if message.contains("duplicate") {
                ("duplicate_field", Some("remove one of the two".to_owned()))
            } else if text.lines().any(|line| line.trim_start_matches(' ').starts_with('\t')) {
                ("syntax", Some("YAML is indented with spaces, not with tabs".to_owned()))
            } else if message.contains("non-finite") {
                ("syntax", Some("write it with quotation marks if it is a text".to_owned()))
            } else if let Some(address) = bare_address(text, place) {
                ("syntax", Some(format!("brackets are a list in YAML: write `\"{address}\"`, with quotation marks")))
            } else {
                ("syntax", None)
            };
            Err(Box::new(Diagnostic::new(Severity::Error, code, place, message, help)))
        }
    }
}

struct Raw(Value);

/// `[::]:8080` without quotation marks, in the line where the parser gave up or the one before.
fn bare_address(text: &str, place: Place) -> Option<&str> {
    let lines = text.lines().skip(place.line.saturating_sub(2)).take(if place.line > 1 { 2 } else { 1 });
    lines.flat_map(|line| line.match_indices('[').map(move |(at, _)| (line, at))).find_map(|(line, at)| {
        if line[..at].ends_with(['"', '\'']) {
            return None;
        }
        let inside = &line[at + 1..];
        let end = inside.find(']')?;
        inside[..end].parse::<std::net::Ipv6Addr>().ok()?;
        let port = inside[end + 1..].strip_prefix(':')?;
        let digits = port.bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0).then(|| &line[at..at + end + 3 + digits])
    })
}

fn node(raw: Spanned<Raw>) -> Node {
    // Behind an alias, what is written stands at the anchor.
    let span = raw.defined.span();
    let written = match (&raw.value.0, span.byte_offset(), span.byte_len()) {
        (Value::Bool(_) | Value::Integer(_) | Value::Float(_), Some(begin), Some(len)) => {
            Written::At(usize::try_from(begin).unwrap_or(usize::MAX), usize::try_from(len).unwrap_or_default())
        }
        _ => Written::Same,
    };
    Node { place: place(raw.referenced), value: raw.value.0, written }
}

fn place(location: Location) -> Place {
    Place {
        line: usize::try_from(location.line()).unwrap_or_default(),
        column: usize::try_from(location.column()).unwrap_or_default(),
        width: usize::try_from(location.span().len()).unwrap_or_default(),
        text: 0,
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build).map(Self)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Raw>>()? {
            list.push(node(item));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<String>, Spanned<Raw>>()? {
            map.push((key.value, place(key.referenced), node(value)));
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_say_what_is_written_whatever_they_are_taken_for() {
        let text = "\u{feff}ä: [ 0x1F, 1e3, 012, 0o17, +5, 1_000, 1.10, true, False, yes, 2026-01-02, 00:10 ] # 9\n\
                    b: &x 0x2A   # so\nc: *x\nd:\n  - 7\n  - 0b1 \ne: { f: 0x3,g: -0 }\nh: 9";
        let root = parse(text).unwrap();
        let list = |name: &str| match &root.entry(name).unwrap().value {
            Value::List(items) => items.iter().map(|item| item.text().unwrap().to_owned()).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let written = "0x1F, 1e3, 012, 0o17, +5, 1_000, 1.10, true, False, yes, 2026-01-02, 00:10";
        assert_eq!(list("ä").join(", "), written);
        assert_eq!(list("d"), ["7", "0b1"]);
        let one = |name: &str| root.entry(name).unwrap().text().unwrap().to_owned();
        assert_eq!((one("b"), one("c"), one("h")), ("0x2A".into(), "0x2A".into(), "9".into()));
        let e = root.entry("e").unwrap();
        assert_eq!((e.entry("f").unwrap().text(), e.entry("g").unwrap().text()), (Some("0x3"), Some("-0")));
        assert_eq!(parse("a: ~").unwrap().entry("a").unwrap().text(), None);
    }

    #[test]
    fn an_address_without_quotation_marks_is_found_in_the_line_and_in_the_one_before() {
        let at = |line| Place { line, ..Place::default() };
        let text = "a: 1\naddress: [::1]:80\nb: [ 1 ], c: [2001:db8::]:4430 # so\nd: \"[::]:1\"\ne: '[::]:2'\nf: [::]:\ng: [::]:x\nh: [1]:3\ni: [::";
        for (line, found) in [
            (1, None),
            (2, Some("[::1]:80")),
            (3, Some("[::1]:80")),
            (4, Some("[2001:db8::]:4430")),
            (5, None),
            (6, None),
            (7, None),
            (8, None),
            (9, None),
            (0, None),
        ] {
            assert_eq!(bare_address(text, at(line)), found, "line {line}");
        }
        assert_eq!(bare_address("x: [::]:8080", at(1)), Some("[::]:8080"));
        assert_eq!(bare_address("x: [::]:8", at(1)), Some("[::]:8"));
        assert_eq!(bare_address("a: 1\nx: [::]:8", at(1)), None, "not in the line behind");
    }

    #[test]
    fn each_kind_of_a_value_is_called_by_its_name_and_places_know_their_text() {
        let root = parse("a: ~\nb: true\nc: 1\nd: 1.5\ne: x\nf: [ y, { g: z } ]\nh: { i: [ w ] }").unwrap();
        let kind = |name: &str| root.entry(name).unwrap().value.kind();
        let kinds = ["a", "b", "c", "d", "e", "f", "h"].map(kind);
        let different: std::collections::BTreeSet<&str> = kinds.into_iter().collect();
        assert!(different.len() >= 5 && kinds.iter().all(|kind| kind.len() > 3), "{kinds:?}");
        fn texts(node: &Node, found: &mut Vec<usize>) {
            found.push(node.place.text);
            match &node.value {
                Value::List(items) => items.iter().for_each(|item| texts(item, found)),
                Value::Map(entries) => entries.iter().for_each(|(_, at, value)| {
                    found.push(at.text);
                    texts(value, found);
                }),
                _ => {}
            }
        }
        let (mut root, mut found) = (root, Vec::new());
        root.set_text(3);
        texts(&root, &mut found);
        assert_eq!(found, vec![3; 22]);
    }
}
