//! A field of a backend, changed in a file's text: nothing else of it, comments and layout as they were.

use crate::diagnostic::Place;
use crate::node::{self, Node, Value};
use thiserror::Error;

/// Why a text is left as it is.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum EditError {
    /// It cannot be read.
    #[error("the file cannot be read as YAML")]
    Unreadable,
    /// The backend does not stand in it.
    #[error("service {service:?} with backend {backend:?} does not stand in this file: change what it comes from")]
    Absent {
        /// The service.
        service: String,
        /// The backend's id.
        backend: String,
    },
    /// It is written so that more would change.
    #[error("backend {backend:?} is written so that more than `{field}` would change: edit the file by hand")]
    Entangled {
        /// The backend's id.
        backend: String,
        /// The field.
        field: String,
    },
}

/// Sets fields of a backend. One that is not written and is to be `false` is left out: that is what it is then.
///
/// # Errors
/// See [`EditError`]; nothing is changed.
pub fn set_backend_fields(
    text: &str,
    service: &str,
    backend: &str,
    fields: &[(&str, String)],
) -> Result<String, EditError> {
    let mut text = text.to_owned();
    for (field, value) in fields {
        text = set(&text, service, backend, field, value)?;
    }
    Ok(text)
}

fn set(text: &str, service: &str, backend: &str, field: &str, value: &str) -> Result<String, EditError> {
    let mark = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let body = &text[mark..];
    let before = node::parse(body).map_err(|_| EditError::Unreadable)?;
    let absent = || EditError::Absent { service: service.to_owned(), backend: backend.to_owned() };
    let of = find(&before, service, backend).ok_or_else(absent)?;
    let entangled = || EditError::Entangled { backend: backend.to_owned(), field: field.to_owned() };
    let edited = match of.entry(field) {
        Some(node) if node.text() == Some(value) => return Ok(text.to_owned()),
        Some(node) => replace(body, node.place, value),
        None if value == "false" => return Ok(text.to_owned()),
        None => insert(body, of, field, value),
    };
    let edited = edited.ok_or_else(entangled)?;
    // Whatever the layout was: what is read from the text now is what was read before, but for this field.
    let after = node::parse(&edited).map_err(|_| entangled())?;
    if meaning(&after, None) != meaning(&before, Some((service, backend, field, value))) {
        return Err(entangled());
    }
    Ok(format!("{}{edited}", &text[..mark]))
}

fn find<'n>(root: &'n Node, service: &str, backend: &str) -> Option<&'n Node> {
    named(named(root.entry("services"), "name", service)?.entry("backends"), "id", backend)
}

fn named<'n>(list: Option<&'n Node>, field: &str, name: &str) -> Option<&'n Node> {
    let Value::List(items) = &list?.value else { return None };
    items.iter().find(|item| item.entry(field).and_then(Node::text) == Some(name))
}

/// Where a place begins, in bytes.
fn offset(text: &str, place: Place) -> Option<usize> {
    let line = text.split_inclusive('\n').take(place.line.checked_sub(1)?).map(str::len).sum::<usize>();
    let column = text.get(line..)?.chars().take(place.column.checked_sub(1)?).map(char::len_utf8).sum::<usize>();
    Some(line + column)
}

fn end(text: &str, place: Place) -> Option<usize> {
    let begin = offset(text, place)?;
    Some(begin + text.get(begin..)?.chars().take(place.width).map(char::len_utf8).sum::<usize>())
}

fn replace(text: &str, place: Place, value: &str) -> Option<String> {
    let (begin, end) = (offset(text, place)?, end(text, place)?);
    Some(format!("{}{value}{}", text.get(..begin)?, text.get(end..)?))
}

/// Behind the backend's id: on the same line between brackets, else on a line of its own.
fn insert(text: &str, of: &Node, field: &str, value: &str) -> Option<String> {
    let Value::Map(entries) = &of.value else { return None };
    let (_, key, id) = entries.iter().find(|entry| entry.0 == "id")?;
    let end = end(text, id.place)?;
    if text.get(offset(text, of.place)?..)?.starts_with('{') {
        return Some(format!("{}, {field}: {value}{}", text.get(..end)?, text.get(end..)?));
    }
    let rest = text.get(end..)?;
    let line = rest.find('\n').map_or(text.len(), |at| end + at + 1);
    // The last line may have none.
    let ending = if text.split_inclusive('\n').next()?.ends_with("\r\n") { "\r\n" } else { "\n" };
    let before = if text[..line].ends_with('\n') { "" } else { ending };
    let indent = " ".repeat(key.column.checked_sub(1)?);
    Some(format!("{}{before}{indent}{field}: {value}{ending}{}", &text[..line], &text[line..]))
}

/// A tree without its places; `with` says what is set in it.
fn meaning(root: &Node, with: Option<(&str, &str, &str, &str)>) -> String {
    fn write(node: &Node, target: Option<(*const Node, &str, &str)>, out: &mut String) {
        match &node.value {
            Value::List(items) => {
                out.push('[');
                items.iter().for_each(|item| {
                    write(item, target, out);
                    out.push(',');
                });
                out.push(']');
            }
            Value::Map(entries) => {
                let set = target.filter(|(at, ..)| std::ptr::eq(*at, node));
                let mut parts: Vec<String> = Vec::new();
                for (name, _, value) in entries {
                    if set.is_some_and(|(_, field, _)| field == name) {
                        continue;
                    }
                    let mut part = format!("{name:?}:");
                    write(value, target, &mut part);
                    parts.push(part);
                }
                parts.extend(set.map(|(_, field, value)| format!("{field:?}:{value:?}")));
                parts.sort();
                out.push_str(&format!("{{{}}}", parts.join(",")));
            }
            Value::Null => out.push('~'),
            _ => out.push_str(&format!("{:?}", node.text().unwrap_or_default())),
        }
    }
    let target = with.and_then(|(service, backend, field, value)| {
        Some((std::ptr::from_ref(find(root, service, backend)?), field, value))
    });
    let mut out = String::new();
    write(root, target, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drained(text: &str) -> Result<String, EditError> {
        set_backend_fields(text, "s", "a", &[("drain", "true".to_owned())])
    }

    #[test]
    fn a_field_is_changed_where_it_stands_or_put_beside_the_id_and_nothing_else_is() {
        for (before, after) in [
            (
                "services: [ { name: s, backends: [ { id: a, drain: false, address: \"1\" } ] } ] # so\n",
                "services: [ { name: s, backends: [ { id: a, drain: true, address: \"1\" } ] } ] # so\n",
            ),
            (
                "services:\n  - name: s\n    backends:\n      - { id: \"a\" } # first\n      - { id: b }\n",
                "services:\n  - name: s\n    backends:\n      - { id: \"a\", drain: true } # first\n      - { id: b }\n",
            ),
            (
                "services:\n- name: s\n  backends:\n  - id: a   # ä\n    address: x\n\n  - id: b\n",
                "services:\n- name: s\n  backends:\n  - id: a   # ä\n    drain: true\n    address: x\n\n  - id: b\n",
            ),
            (
                "services:\n  - name: s\n    backends:\n      - address: x\n        id: a",
                "services:\n  - name: s\n    backends:\n      - address: x\n        id: a\n        drain: true\n",
            ),
            (
                "\u{feff}services:\r\n  - name: s\r\n    backends:\r\n      - id: a\r\n        drain: ${D:-no}\r\n",
                "\u{feff}services:\r\n  - name: s\r\n    backends:\r\n      - id: a\r\n        drain: true\r\n",
            ),
            (
                "services:\r\n  - name: s\r\n    backends:\r\n      - id: a",
                "services:\r\n  - name: s\r\n    backends:\r\n      - id: a\r\n        drain: true\r\n",
            ),
            (
                "services:\r\n  - name: s\r\n    backends:\r\n      - id: a\r\n      - id: b\r\n",
                "services:\r\n  - name: s\r\n    backends:\r\n      - id: a\r\n        drain: true\r\n      - id: b\r\n",
            ),
        ] {
            assert_eq!(drained(before).as_deref(), Ok(after));
        }
    }

    #[test]
    fn what_does_not_stand_there_or_stands_for_more_is_left_alone() {
        let absent = EditError::Absent { service: "s".into(), backend: "a".into() };
        assert_eq!(drained("services: [ { name: s, backends: [ { id: b } ] } ]"), Err(absent.clone()));
        assert_eq!(drained("control: {}\n"), Err(absent));
        assert_eq!(drained("services: ["), Err(EditError::Unreadable));
        // One text for two backends: both would be drained.
        let twice = "services:\n  - name: s\n    backends: &b [ { id: a } ]\n  - name: t\n    backends: *b\n";
        assert_eq!(drained(twice), Err(EditError::Entangled { backend: "a".into(), field: "drain".into() }));
        let plain = "services: [ { name: s, backends: [ { id: a } ] } ]";
        let ready = set_backend_fields(plain, "s", "a", &[("drain", "false".into()), ("maintenance", "false".into())]);
        assert_eq!(ready.as_deref(), Ok(plain));
    }

    proptest! {
        #[test]
        fn whatever_the_layout_one_field_changes_and_the_lines_around_it_do_not(
            flow in any::<bool>(), indent in 3_usize..8, written in prop::option::of(any::<bool>()), comment in "( #[a-zä{}:, ]{0,9})?",
            first in any::<bool>(), windows in any::<bool>(), weight in 0_u32..1601,
        ) {
            let written = written.map(|drain| format!("drain: {drain}"));
            let (pad, ending) = (" ".repeat(indent), if windows { "\r\n" } else { "\n" });
            let mut fields = vec!["id: a".to_owned(), format!("weight: {weight}")];
            fields.extend(written);
            if !first {
                fields.reverse();
            }
            let backend = if flow {
                format!("{pad}- {{ {} }}{comment}", fields.join(", "))
            } else {
                format!("{pad}- {}", fields.join(&format!("{comment}{ending}{pad}  ")))
            };
            let text = ["services:", " - name: s", "   backends:", &backend, &format!("{pad}- id: b"), ""].join(ending);
            let after = drained(&text).unwrap();
            prop_assert_eq!(meaning(&node::parse(&after).unwrap(), None), meaning(&node::parse(&text).unwrap(), Some(("s", "a", "drain", "true"))));
            // Every line of before that does not speak of it is there, in its order.
            let kept: Vec<&str> = after.split_inclusive('\n').collect();
            let mut at = 0;
            for line in text.split_inclusive('\n').filter(|line| !flow && !line.contains("drain")) {
                let found = kept[at..].iter().position(|kept| *kept == line);
                prop_assert!(found.is_some(), "{:?} in {:?}", line, after);
                at += found.unwrap() + 1;
            }
        }
    }
}
