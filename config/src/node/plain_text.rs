//! What nearly all files are made of: one document of mappings with different keys, lists, and scalars, without anchors, aliases, tags and
//! merges. Its tree is built from the parser's events in a third of the time. Whatever else a file has in it, what is wrong with it or
//! too large, is left to the way through serde, which comes to the same tree.

use super::any_text;
use super::tree::{Node, Value, Written};
use crate::diagnostic::Place;
use crate::limits::{DEPTH_MAX, VALUES_MAX};
use serde_yaml::granit_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use std::borrow::Cow;
use std::collections::HashSet;

/// Keys of a mapping up to here are compared with each other.
const FEW_KEYS: usize = 16;

/// The tree, before what is written is quoted. `None`: there is more in it than this reads.
pub(super) fn parse(text: &str) -> Option<Node> {
    let mut events = Events { parser: Parser::new_from_str(text), values: 0 };
    while !matches!(events.next()?.0, Event::DocumentStart(..)) {}
    let (event, span) = events.next()?;
    let root = events.node(event, span, 0)?;
    let ended = matches!(events.next()?.0, Event::DocumentEnd) && matches!(events.next()?.0, Event::StreamEnd);
    ended.then_some(root)
}

struct Events<'t> {
    parser: Parser<'t, StrInput<'t>>,
    values: usize,
}

impl<'t> Events<'t> {
    fn next(&mut self) -> Option<(Event<'t>, Span)> {
        loop {
            match self.parser.next_event()?.ok()? {
                (Event::Comment(..), _) => {}
                other => return Some(other),
            }
        }
    }

    /// The node that an event begins.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Option<Node> {
        self.values += 1;
        if self.values >= VALUES_MAX - 8 || depth >= DEPTH_MAX - 2 {
            return None;
        }
        let place = place(&span);
        Some(match event {
            Event::Scalar(text, style, 0, None) => scalar(text, style, &span, place)?,
            Event::SequenceStart(_, 0, None) => Node::new(Value::List(self.items(depth)?), place),
            Event::MappingStart(_, 0, None) => Node::new(Value::Map(self.entries(depth)?), place),
            _ => return None,
        })
    }

    fn items(&mut self, depth: usize) -> Option<Vec<Node>> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Some(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn entries(&mut self, depth: usize) -> Option<Vec<(String, Place, Node)>> {
        let mut entries: Vec<(String, Place, Node)> = Vec::new();
        let mut many = HashSet::new();
        loop {
            let (key, span) = match self.next()? {
                (Event::MappingEnd, _) => return Some(entries),
                (Event::Scalar(key, style, 0, None), span) if is_text(&key, style) && key != "<<" => (key, span),
                _ => return None,
            };
            self.values += 1;
            if entries.len() == FEW_KEYS {
                many.extend(entries.iter().map(|entry| entry.0.clone()));
            }
            let is_new = match entries.len() {
                0..FEW_KEYS => entries.iter().all(|entry| entry.0 != key),
                _ => many.insert(key.clone().into_owned()),
            };
            let (event, of_value) = is_new.then(|| self.next())??;
            let value = self.node(event, of_value, depth + 1)?;
            entries.push((key.into_owned(), place(&span), value));
        }
    }
}

pub(super) fn place(span: &Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1, width: span.len(), text: 0 }
}

/// Whether YAML takes a scalar for a text: for nothing that it could be else.
fn is_text(text: &str, style: ScalarStyle) -> bool {
    if style != ScalarStyle::Plain {
        return true;
    }
    let Some(first) = text.bytes().next() else { return false };
    match first {
        b'~' => text != "~",
        // No number has anything else in it; none that is decimal has letters in it but an exponent.
        b'0'..=b'9' | b'+' | b'-' | b'.' => {
            let strange = |byte: u8| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'-' | b'.' | b'_');
            let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
            text.bytes().any(strange) || first != b'0' && matches!(unit, "s" | "ms" | "m" | "h" | "d")
        }
        _ => !["true", "false", "null"].iter().any(|word| text.eq_ignore_ascii_case(word)),
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, span: &Span, place: Place) -> Option<Node> {
    if is_text(&text, style) {
        return Some(Node::new(Value::Text(text.into_owned()), place));
    }
    let written = || {
        let (begin, end) = (span.start.byte_offset()?, span.end.byte_offset()?);
        Some(Written::At(begin, end.checked_sub(begin)?))
    };
    let is_decimal =
        text.len() <= 18 && (text == "0" || !text.starts_with('0')) && text.bytes().all(|byte| byte.is_ascii_digit());
    let (value, written) = match &*text {
        "" | "~" => (Value::Null, Written::Same),
        "true" => (Value::Bool(true), written()?),
        "false" => (Value::Bool(false), written()?),
        digits if is_decimal => (Value::Integer(digits.parse().ok()?), written()?),
        // Alone it is what it is here.
        "---" | "..." => (Value::Text(text.into_owned()), Written::Same),
        other => match any_text::parse(other).ok()?.value {
            Value::Null => (Value::Null, Written::Same),
            value @ Value::Text(_) => (value, Written::Same),
            value @ (Value::Bool(_) | Value::Integer(_) | Value::Float(_)) => (value, written()?),
            Value::List(_) | Value::Map(_) => return None,
        },
    };
    Some(Node { value, place, written })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether it was read here; then it is held to be what the other way makes of it.
    fn hold(text: &str) -> bool {
        let Some(plain) = parse(text) else { return false };
        let any = any_text::parse(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        assert_eq!(plain, any, "{text}");
        let quoted = |mut root: Node| {
            root.quote(text);
            root
        };
        assert_eq!(quoted(plain), quoted(any), "{text}");
        true
    }

    const SCALARS: [&str; 70] = [
        "a",
        "name",
        "5s",
        "250ms",
        "10m",
        "1d",
        "0s",
        "05",
        "007",
        "0",
        "1",
        "42",
        "123456789012345678",
        "1234567890123456789",
        "99999999999999999999999999999999999999999",
        "-1",
        "+5",
        "-0",
        "1_000",
        "0x1F",
        "0o17",
        "0b1",
        "0b2",
        "1e3",
        "1.5",
        "1.10",
        ".5",
        "5.",
        "-.5",
        ".inf",
        "-.inf",
        ".nan",
        "inf",
        "nan",
        "1e",
        "1e400",
        "12d3",
        "1.2.3",
        "10.0.0.1:80",
        "00:10",
        "~",
        "null",
        "Null",
        "NULL",
        "nul",
        "true",
        "True",
        "TRUE",
        "false",
        "yes",
        "off",
        "n",
        "2026-01-02",
        "/a/b",
        "*.example.com",
        "<<",
        "=",
        "\"a: 1\"",
        "\"\\u00e4\\n\"",
        "'it''s'",
        "\"\"",
        "ä€",
        "a b",
        "---",
        "...",
        "-",
        "--",
        ".",
        "+",
        "a#b",
    ];

    #[test]
    fn every_scalar_is_as_by_the_other_way() {
        for scalar in SCALARS {
            for text in [
                format!("k: {scalar}\n"),
                format!("k: {scalar} # so\nl: [ {scalar}, {{ m: {scalar} }} ]\n"),
                format!("- {scalar}\n- k:\n    - {scalar}\n"),
                format!("{scalar}: 1\nb: 2\n"),
                format!("k: [{scalar},{scalar}]"),
            ] {
                hold(&text);
            }
        }
        for text in [
            "k: 5s\n",
            "k: 1.5\n",
            "k: -1\n",
            "k: ~\n",
            "k:\nl: 1\n",
            "# so\n---\nk: [ ]\n",
            "k: |\n  a\n   b\nl: >-\n  c\n  d\n",
            // Folded once, not twice.
            "k: ~\n\n  a\nl: a\n\n  b\nm: 1\n\n  2\n",
            "~\n\na",
            "~|\n   x\n\r\na",
            "k: ~|\n   x\n\r\n  a\n",
        ] {
            assert!(hold(text), "{text}");
        }
        for text in [
            "",
            "a: &x 1\nb: *x\n",
            "a: !!str 1\n",
            "a: 1\na: 2\n",
            "a: { <<: { b: 1 } }\n",
            "a: 1\n---\nb: 2\n",
            "a: [\n",
            "k: .inf\n",
        ] {
            assert!(!hold(text), "{text}");
        }
    }

    #[test]
    fn what_people_write_is_read_here() {
        assert!(hold(include_str!("../../../config.example.yaml")));
        let entries = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/good")).unwrap();
        let files =
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "yaml"));
        let read = files.filter(|path| hold(&std::fs::read_to_string(path).unwrap()));
        assert!(read.count() >= 2);
    }

    #[test]
    fn many_keys_are_compared_as_few_are() {
        let keys = |count: usize| (0..count).map(|number| format!("k{number}: {number}\n")).collect::<String>();
        for count in [1, FEW_KEYS - 1, FEW_KEYS, FEW_KEYS + 1, 100] {
            assert!(hold(&keys(count)), "{count}");
            for twice in [0, count / 2, count - 1] {
                assert!(!hold(&format!("{}k{twice}: x\n", keys(count))), "{count}: k{twice} twice");
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Tree {
        Scalar(&'static str),
        List(Vec<Self>, bool),
        Map(Vec<(&'static str, Self)>, bool),
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let scalar = prop::sample::select(SCALARS.to_vec());
        scalar.clone().prop_map(Tree::Scalar).prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                (prop::collection::vec(inner.clone(), 0..4), any::<bool>())
                    .prop_map(|(items, flow)| Tree::List(items, flow)),
                (prop::collection::vec((scalar.clone(), inner), 0..4), any::<bool>())
                    .prop_map(|(entries, flow)| Tree::Map(entries, flow)),
            ]
        })
    }

    fn print(tree: &Tree, indent: usize, flow: bool, text: &mut String) {
        let line = |text: &mut String| text.push_str(&format!("\n{}", " ".repeat(indent)));
        match tree {
            Tree::Scalar(scalar) => text.push_str(scalar),
            Tree::List(items, as_flow) if flow || *as_flow || items.is_empty() => {
                text.push_str("[ ");
                items.iter().for_each(|item| {
                    print(item, indent, true, text);
                    text.push_str(", ");
                });
                text.push(']');
            }
            Tree::Map(entries, as_flow) if flow || *as_flow || entries.is_empty() => {
                text.push_str("{ ");
                entries.iter().for_each(|(key, value)| {
                    text.push_str(&format!("{key}: "));
                    print(value, indent, true, text);
                    text.push_str(", ");
                });
                text.push('}');
            }
            Tree::List(items, _) => items.iter().for_each(|item| {
                line(text);
                text.push_str("- ");
                print(item, indent + 2, false, text);
            }),
            Tree::Map(entries, _) => entries.iter().for_each(|(key, value)| {
                line(text);
                text.push_str(&format!("{key}: "));
                print(value, indent + 2, false, text);
            }),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_tree_is_as_by_the_other_way(tree in tree(), comment in any::<bool>()) {
            let mut text = String::new();
            print(&tree, 0, false, &mut text);
            if comment {
                text = text.replace("\n- ", "\n# so\n- ").replace(", ", ", # so\n ");
            }
            hold(&text);
        }

        #[test]
        fn any_text_is_as_by_the_other_way(
            words in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(SCALARS.to_vec()),
                    prop::sample::select(vec![
                        ": ", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", ", ", " # c\n", "&a ", "*a", "!!int ", "|\n   x\n", ">\n   y\n",
                        "---\n", "...\n", "? ", "\t", "%YAML 1.2\n", "\r\n", "'", "\"",
                    ]),
                ],
                0..24,
            ),
        ) {
            hold(&words.concat());
        }
    }
}
