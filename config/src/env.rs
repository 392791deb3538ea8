//! `${NAME}` and `${NAME:-default}` in values. Done on values, not on text: a variable cannot bring structure with it,
//! and every place in the file stays what it is.

use crate::decode::Findings;
use crate::diagnostic::Place;
use crate::node::{Node, Value};

/// Where variables come from.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces variables in all texts below a node.
pub(crate) fn substitute(node: &mut Node, lookup: Lookup<'_>, findings: &mut Findings) {
    match &mut node.value {
        Value::Text(text) if text.contains("${") => {
            if let Some(replaced) = replace(text, node.place, lookup, findings) {
                *text = replaced;
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| substitute(item, lookup, findings)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, _, value)| substitute(value, lookup, findings)),
        _ => {}
    }
}

fn replace(text: &str, place: Place, lookup: Lookup<'_>, findings: &mut Findings) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        // `$${` is `${` itself.
        if out.ends_with('$') {
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        let Some(len) = rest[at + 2..].find('}') else {
            findings.error(
                place,
                "bad_variable",
                "`${` without `}`",
                "write `${NAME}`, or `$${` for the two characters themselves",
            );
            return None;
        };
        let inside = &rest[at + 2..at + 2 + len];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_name) || name.starts_with(|c: char| c.is_ascii_digit()) {
            findings.error(
                place,
                "bad_variable",
                format!("`{name}` is not a variable's name"),
                "write `${NAME}` or `${NAME:-default}`",
            );
            return None;
        }
        match (lookup(name).filter(|value| !value.is_empty() || default.is_none()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                let help = format!("set it, or write `${{{name}:-default}}`");
                findings.error(place, "unset_variable", format!("the environment has no `{name}`"), help);
                return None;
            }
        }
        rest = &rest[at + 2 + len + 1..];
    }
    out.push_str(rest);
    Some(out)
}
