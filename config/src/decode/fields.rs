//! The fields of one section, and what is said of those that are unknown, missing or in the wrong place.

use super::{Decode, Field, Shape};
use crate::diagnostic::{At, Place, closest};
use crate::findings::{Findings, Help};
use crate::node::{Node, Value};
use std::sync::OnceLock;

/// A field's name as it stands in the file: one that is a word of Rust's has a mark before it.
fn written(name: &str) -> &str {
    name.strip_prefix("r#").unwrap_or(name)
}

/// What a field is where it is not written: the text, as a user would write it, and what has been read from that.
pub(crate) type Preset<T> = Option<(&'static str, &'static OnceLock<T>)>;

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
        let names = names.iter().map(|name| written(name));
        for (name, place, _) in entries {
            if !names.clone().any(|known| known == name) {
                let (meant, help) = findings.helps.of(title, name, || unknown(name, names.clone().collect(), &shape()));
                misspelt.extend(meant);
                findings.lost.insert(node.place);
                findings.error(*place, "unknown_field", format!("unknown field `{name}` in {title}"), help);
            }
        }
        Some(Self { entries, title, place: node.place, misspelt })
    }

    fn find(&self, name: &str) -> Option<&'a Node> {
        let name = written(name);
        // `field:` with nothing behind it is the field left out.
        self.entries.iter().find(|entry| entry.0 == name && entry.2.value != Value::Null).map(|entry| &entry.2)
    }

    pub(crate) fn required<T: Decode>(&self, name: &str, _: Preset<T>, findings: &mut Findings) -> Option<At<T>> {
        match self.find(name) {
            Some(node) => T::decode(node, findings).map(|value| At { value, place: node.place }),
            // It is there, under another name, and that has been said.
            None if self.misspelt.iter().any(|meant| meant == written(name)) => None,
            None => {
                let message = format!("{} has no `{}`", self.title, written(name));
                findings.error(self.place, "missing_field", message, format!("add `{}: ...`", written(name)));
                None
            }
        }
    }

    pub(crate) fn optional<T: Decode>(
        &self,
        name: &str,
        _: Preset<T>,
        findings: &mut Findings,
    ) -> Option<Option<At<T>>> {
        match self.find(name).or_else(|| self.empty_section::<T>(name)) {
            // What cannot be read is told, and then taken for absent, so that the rest of the section is checked as well.
            Some(node) => {
                let found = T::decode(node, findings).map(|value| At { value, place: node.place });
                if found.is_none() {
                    findings.lost.insert(self.place);
                }
                Some(found)
            }
            None => Some(None),
        }
    }

    /// `tcp:` with nothing behind it is an empty section, not an absent one.
    fn empty_section<T: Decode>(&self, name: &str) -> Option<&'a Node> {
        let is_section = matches!(T::shape(), Shape::Section { .. });
        let name = written(name);
        self.entries.iter().find(|entry| is_section && entry.0 == name).map(|entry| &entry.2)
    }

    pub(crate) fn default<T: Decode>(&self, name: &str, preset: Preset<T>, findings: &mut Findings) -> Option<At<T>> {
        let given = self.find(name);
        // What cannot be read is told, and the default stands in for it, so that the rest of the section is checked.
        match given.and_then(|node| T::decode(node, findings).map(|value| At { value, place: node.place })) {
            Some(found) => Some(found),
            None => {
                if given.is_some() {
                    findings.lost.insert(self.place);
                }
                let (text, read) = preset?;
                let mut value = match read.get() {
                    Some(value) => value.clone(),
                    None => {
                        let value = decode_default::<T>(text, self.place, findings)?;
                        read.get_or_init(|| value).clone()
                    }
                };
                value.move_to(self.place);
                Some(At { value, place: self.place })
            }
        }
    }
}

/// What was meant by a name that is no field of the section, and what to write instead.
fn unknown(name: &str, names: Vec<&str>, shape: &Shape) -> Help {
    let meant = closest(name, names.iter().copied());
    let help = match (elsewhere(name, shape), meant) {
        (Some(place), _) => format!("`{name}` belongs {place}"),
        (None, Some(name)) => format!("write `{name}`"),
        (None, None) if names.is_empty() => "it has no fields: write `{}`".to_owned(),
        (None, None) => format!("its fields are `{}`", names.join("`, `")),
    };
    (meant.map(str::to_owned), help)
}

/// Defaults are written as a user would write them, and read by the same code.
fn decode_default<T: Decode>(text: &str, place: Place, findings: &mut Findings) -> Option<T> {
    let value = match text {
        "[]" => Value::List(Vec::new()),
        "{}" => Value::Map(Vec::new()),
        text => Value::Text(text.to_owned()),
    };
    T::decode(&Node::new(value, place), findings)
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

pub(super) fn list_example<T: Decode>(node: &Node) -> String {
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
