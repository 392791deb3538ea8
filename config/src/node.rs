//! The YAML text as a tree with places. The one file that names the YAML crate.

use crate::diagnostic::{Diagnostic, Place, Severity};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};
use std::fmt;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
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

    /// What it says, if it is a text.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
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
    // YAML 1.2's booleans: a backend may be called `n`, and `off` is a word.
    let options = serde_yaml::options! { strict_booleans: true };
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(root) => Ok(node(root)),
        Err(error) => {
            let place = error.location().map(place).unwrap_or_default();
            let message = error.without_snippet().to_string();
            // The place stands in the finding already.
            let end = [" at line ", ", set DuplicateKeyPolicy"].iter().filter_map(|cut| message.find(cut)).min();
            let message = message[..end.unwrap_or(message.len())].trim().to_owned();
            let (code, help) = if message.contains("duplicate") {
                ("duplicate_field", Some("remove one of the two".to_owned()))
            } else if text.lines().any(|line| line.trim_start_matches(' ').starts_with('\t')) {
                ("syntax", Some("YAML is indented with spaces, not with tabs".to_owned()))
            } else {
                ("syntax", None)
            };
            Err(Box::new(Diagnostic::new(Severity::Error, code, place, message, help)))
        }
    }
}

struct Raw(Value);

fn node(raw: Spanned<Raw>) -> Node {
    Node { place: place(raw.referenced), value: raw.value.0 }
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
