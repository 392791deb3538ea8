//! Any text that is YAML, through serde.

use super::tree::{Node, Value, Written};
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::limits;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};
use std::fmt;

/// The tree, before what is written is quoted.
pub(super) fn parse(text: &str) -> Result<Node, Box<Diagnostic>> {
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, limits::options()) {
        Ok(root) => Ok(node(root)),
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
}
