//! A YAML text as a tree with places.

use crate::diagnostic::Place;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
    pub(super) written: Written,
}

/// What stands in the file, where YAML has made something else of it: `0x1F` is a number, and a name as well.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Written {
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
    pub(super) fn quote(&mut self, source: &str) {
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
