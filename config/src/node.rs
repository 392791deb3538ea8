//! The YAML text as a tree with places. Only what is below and `limits` name the YAML crate.

mod any_text;
mod plain_text;
mod tree;
mod unsupported;
mod wording;

use crate::diagnostic::Diagnostic;
pub(crate) use tree::{Node, Value};

/// Parses a file's text. What the YAML crate refuses (syntax, duplicate keys, alias bombs) is one finding.
pub(crate) fn parse(text: &str) -> Result<Node, Box<Diagnostic>> {
    // Places count from behind the mark that some editors begin files with.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut root = match plain_text::parse(text) {
        Some(root) => root,
        None => match unsupported::find(text) {
            Some(found) => return Err(found),
            None => any_text::parse(text)?,
        },
    };
    root.quote(text);
    Ok(root)
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
