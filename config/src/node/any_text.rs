//! Any text that is YAML, through serde.

use super::tree::{Node, Value, Written};
use super::wording;
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
            let (code, message, help) = wording::of(&error.without_snippet().to_string(), text, place);
            Err(Box::new(Diagnostic::new(Severity::Error, code, place, message, help)))
        }
    }
}

struct Raw(Value);

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
