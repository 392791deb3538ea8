//! What YAML has and a configuration has not: more documents than one, tags beside those of the core schema (YAML 1.2.2 §10.3.1), anchors
//! that stand for themselves, fields whose names are no texts. Serde's way passes over some of it in silence, and says the rest in
//! words for who writes programs.

use super::plain_text::place;
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::limits::{DEPTH_MAX, VALUES_MAX};
use serde_yaml::granit_parser::{Event, Parser, ScalarStyle, Tag};

/// What is open: a list, or a mapping of which a key comes next, or a value.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    List,
    Key,
    Value,
}

/// The first of it in the text. `None` also where the text ends to be YAML, or is too large, before there is any.
pub(super) fn find(text: &str) -> Option<Box<Diagnostic>> {
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<(Inside, usize)> = Vec::new();
    let mut documents = 0;
    for _ in 0..2 * VALUES_MAX {
        let (event, span) = parser.next_event()?.ok()?;
        let place = place(&span);
        match &event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Some(several_documents(place));
                }
            }
            Event::Alias(anchor) if open.iter().any(|(_, of)| of == anchor) => return Some(endless(place)),
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                continue;
            }
            _ if !event.is_node() => continue,
            _ => {}
        }
        if let Some(tag) = event.tag().filter(|tag| !is_known(tag)) {
            let before = span.start.byte_offset().and_then(|end| text.get(..end)).unwrap_or_default();
            return Some(unknown_tag(tag, before, place));
        }
        match open.last_mut().map(|(inside, _)| inside) {
            Some(inside @ Inside::Key) => {
                *inside = Inside::Value;
                if let Some(found) = no_name(&event, place) {
                    return Some(found);
                }
            }
            Some(inside @ Inside::Value) => *inside = Inside::Key,
            Some(Inside::List) | None => {}
        }
        match event {
            Event::SequenceStart(_, anchor, _) => open.push((Inside::List, anchor)),
            Event::MappingStart(_, anchor, _) => open.push((Inside::Key, anchor)),
            _ => {}
        }
        if open.len() > DEPTH_MAX {
            return None;
        }
    }
    None
}

/// Those that say no more than what a value is.
fn is_known(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() || matches!(tag.parts(), ("" | "!", "") | ("", "!") | ("tag:yaml.org,2002:", "binary"))
}

fn refused(code: &'static str, place: Place, message: String, help: String) -> Box<Diagnostic> {
    Box::new(Diagnostic::new(Severity::Error, code, place, message, Some(help)))
}

fn several_documents(place: Place) -> Box<Diagnostic> {
    let message = "the file has a second document: a configuration is one".to_owned();
    refused("several_documents", place, message, "remove the `---` in between, or make two files of it".to_owned())
}

fn endless(place: Place) -> Box<Diagnostic> {
    let message = "this alias stands for something that it is a part of: there would be no end of it".to_owned();
    refused("endless_alias", place, message, "write out what is meant".to_owned())
}

/// `before`: the text in front of the tagged value, whose place is at hand; the tag stands somewhere there.
fn unknown_tag(tag: &Tag, before: &str, value: Place) -> Box<Diagnostic> {
    let at = before
        .rfind(tag.suffix())
        .and_then(|suffix| before[..suffix].rfind(char::is_whitespace).map_or(Some(0), |at| Some(at + 1)));
    let at = at.map(|at| at + before[at..].find('!').unwrap_or(0)).filter(|&at| before[at..].starts_with('!'));
    let (written, place) = match at {
        Some(at) => {
            let written = before[at..].split([' ', '\n', '\r', '\t', ',', ']', '}']).next().unwrap_or_default();
            let line = before[..at].rfind('\n').map_or(0, |end| end + 1);
            let place = Place {
                line: before[..at].matches('\n').count() + 1,
                column: before[line..at].chars().count() + 1,
                width: written.chars().count(),
                text: 0,
            };
            (written.to_owned(), place)
        }
        None => (tag.original(), value),
    };
    let help = match written.to_lowercase().trim_start_matches('!') {
        "include" | "import" => "a configuration is one file: write here what the other one has",
        "env" => "write `${NAME}` for an environment variable",
        _ => "remove it, or put quotation marks around it if it begins a text",
    };
    refused("unknown_tag", place, format!("the tag `{written}` means nothing here"), help.to_owned())
}

/// What stands where a field's name belongs, and is none.
fn no_name(event: &Event<'_>, place: Place) -> Option<Box<Diagnostic>> {
    let (what, help) = match event {
        Event::MappingStart(..) => {
            ("a mapping", "if `{{ NAME }}` is from a template, fill it in first; `${NAME}` is an environment variable")
        }
        Event::SequenceStart(..) => ("a list", "write a name, as in `name: value`"),
        Event::Scalar(text, ScalarStyle::Plain, ..) if matches!(&**text, "" | "~" | "null" | "Null" | "NULL") => {
            ("nothing", "write a name, as in `name: value`, or put quotation marks around it")
        }
        _ => return None,
    };
    Some(refused("bad_field", place, format!("{what} stands where a field's name belongs"), help.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(&'static str, usize, usize)> {
        find(text).map(|found| {
            assert!(found.help.as_ref().is_some_and(|help| !help.is_empty()), "{found}");
            (found.code, found.line, found.column)
        })
    }

    #[test]
    fn what_a_configuration_has_not_is_found_where_it_stands() {
        for (text, expected) in [
            ("a: 1\n---\nb: 2\n", Some(("several_documents", 2, 1))),
            ("a: 1\n---\n", Some(("several_documents", 2, 1))),
            ("a: 1\n...\n---\nb: 1", Some(("several_documents", 3, 1))),
            ("%YAML 1.2\n---\na: 1\n...\n", None),
            ("a: !!python/object:os.system x\n", Some(("unknown_tag", 1, 4))),
            ("a:\n  - !Ref  b\n", Some(("unknown_tag", 2, 5))),
            ("é: !e x", Some(("unknown_tag", 1, 4))),
            ("a: !!set\n  b: 1\n", Some(("unknown_tag", 1, 4))),
            ("a: [x, !include b.yaml]", Some(("unknown_tag", 1, 8))),
            ("!root\na: 1", Some(("unknown_tag", 1, 1))),
            ("a: &x !y z", Some(("unknown_tag", 1, 7))),
            ("a: !<tag:example.com,2000:x> 1", Some(("unknown_tag", 1, 4))),
            ("%TAG !e! tag:example.com,2000:\n---\na: !e!x 1\n", Some(("unknown_tag", 3, 4))),
            ("!k a: 1", Some(("unknown_tag", 1, 1))),
            ("a: !!str 1\nb: !!int 2\nc: !!float 1\nd: !!bool true\ne: !!null\nf: !!map {}\ng: !!seq []\nh: ! x", None),
            ("a: !!binary aGVsbG8=", None),
            ("a: &x [ 1, *x ]", Some(("endless_alias", 1, 12))),
            ("a: &x\n  b: { c: [ *x ] }", Some(("endless_alias", 2, 13))),
            ("a: &x [ 1 ]\nb: *x\nc: &x [ *x ]", Some(("endless_alias", 3, 9))),
            ("a: &x [ 1 ]\nb: [ *x, *x ]\nc: { <<: &y { d: 1 } }\ne: { <<: *y }", None),
            ("a: {{ b }}", Some(("bad_field", 1, 5))),
            ("? [ a ]\n: 1", Some(("bad_field", 1, 3))),
            ("a: 1\n~: 2", Some(("bad_field", 2, 1))),
            ("a: { : 2 }", Some(("bad_field", 1, 6))),
            ("a: { '': 1, \"~\": 2 }", None),
            ("- a\n- { b: c }\n- - d\n", None),
            ("a: [", None),
            ("a: \t- !x", None),
            ("", None),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
        assert_eq!(find(&"[".repeat(10_000)), None);
        assert_eq!(find(&"- ".repeat(10_000)), None);
    }

    #[test]
    fn a_tag_is_told_as_it_is_written() {
        for (text, written) in [
            ("a: !!python/object:os.system x", "`!!python/object:os.system`"),
            ("a: !include x", "`!include`"),
            ("a: !!set { }", "`!!set`"),
            ("a: [!x , 1]", "`!x`"),
        ] {
            let found = find(text).unwrap();
            assert!(found.message.contains(written), "{found}");
        }
        assert!(find("a: !ENV x").unwrap().help.unwrap().contains("${NAME}"));
    }
}
