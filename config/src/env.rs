//! `${NAME}` and `${NAME:-default}` in values. Done on values, not on text: a variable cannot bring structure with it,
//! and every place in the file stays what it is.

use crate::diagnostic::Place;
use crate::findings::Findings;
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
        Value::Text(text) => {
            if let Some(name) = bare_name(text) {
                let message = format!("`{text}` stands for itself: no variable is replaced here");
                findings.warning(node.place, "bare_variable", message, format!("write `${{{name}}}`"));
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| substitute(item, lookup, findings)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, _, value)| substitute(value, lookup, findings)),
        _ => {}
    }
}

/// Defaults may have variables in them, with defaults of their own, and so on so deep.
const DEPTH_MAX: usize = 8;

fn replace(text: &str, place: Place, lookup: Lookup<'_>, findings: &mut Findings) -> Option<String> {
    let mut scan = Scan { rest: text, lookup };
    match scan.text(0, true) {
        Ok(replaced) => Some(replaced),
        Err((code, message, help)) => {
            findings.error(place, code, message, help);
            None
        }
    }
}

/// One pass over what is written: what a variable brings is never looked at again.
struct Scan<'a> {
    rest: &'a str,
    lookup: Lookup<'a>,
}

type Refusal = (&'static str, String, String);

impl Scan<'_> {
    /// Up to the end; in a default (`depth` above 0), up to its bracket. What is not `wanted` is read, and not asked for.
    fn text(&mut self, depth: usize, wanted: bool) -> Result<String, Refusal> {
        let mut out = String::new();
        loop {
            let ends: &[char] = if depth > 0 { &['$', '}'] } else { &['$'] };
            let Some(at) = self.rest.find(ends) else {
                if depth > 0 {
                    return Err(unclosed());
                }
                out.push_str(self.rest);
                return Ok(out);
            };
            out.push_str(&self.rest[..at]);
            self.rest = &self.rest[at..];
            if self.rest.starts_with('}') {
                return Ok(out);
            }
            if let Some(rest) = self.rest.strip_prefix("$${") {
                // `$${` is `${` itself.
                out.push_str("${");
                self.rest = rest;
            } else if let Some(rest) = self.rest.strip_prefix("${") {
                self.rest = rest;
                out.push_str(&self.variable(depth, wanted)?);
            } else {
                out.push('$');
                self.rest = &self.rest[1..];
            }
        }
    }

    /// Behind its `${`, up to behind its `}`.
    fn variable(&mut self, depth: usize, wanted: bool) -> Result<String, Refusal> {
        if depth >= DEPTH_MAX {
            let message = format!("variables in more than {DEPTH_MAX} defaults of one another");
            return Err(("bad_variable", message, "write the innermost default plainly".to_owned()));
        }
        let end = self.rest.find(['}', ':']).ok_or_else(unclosed)?;
        let (name, rest) = (&self.rest[..end], &self.rest[end..]);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let has_default = rest.starts_with(":-");
        if name.is_empty()
            || !name.chars().all(is_name)
            || name.starts_with(|c: char| c.is_ascii_digit())
            || !(has_default || rest.starts_with('}'))
        {
            let whole = &self.rest[..self.rest.find('}').ok_or_else(unclosed)?];
            let message = format!("`{whole}` is not a variable's name");
            return Err(("bad_variable", message, "write `${NAME}` or `${NAME:-default}`".to_owned()));
        }
        let value = (self.lookup)(name).filter(|value| wanted && !(has_default && value.is_empty()));
        if has_default {
            self.rest = &rest[2..];
            let default = self.text(depth + 1, wanted && value.is_none())?;
            self.rest = &self.rest[1..];
            return Ok(value.unwrap_or(default));
        }
        self.rest = &rest[1..];
        match value {
            Some(value) => Ok(value),
            None if !wanted => Ok(String::new()),
            None => {
                let help = format!("set it, or write `${{{name}:-default}}`");
                Err(("unset_variable", format!("the environment has no `{name}`"), help))
            }
        }
    }
}

fn unclosed() -> Refusal {
    let help = "write `${NAME}`, or `$${` for the two characters themselves";
    ("bad_variable", "`${` without `}`".to_owned(), help.to_owned())
}

/// A name after `$` without brackets, as shells write it: nothing is replaced there.
fn bare_name(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('$')?;
    let rest = rest.strip_prefix('(').unwrap_or(rest);
    let len =
        rest.bytes().take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_').count();
    let (name, behind) = rest.split_at(len);
    let is_name = len > 1 && name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
    (is_name && (behind.is_empty() || behind.starts_with([':', '/', '.', '-', ')']))).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "PEPPER" => Some("pa$".to_owned()),
            "SALT" => Some("{salt}".to_owned()),
            "CODE" => Some("${SALT} $${SALT}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let mut findings = Findings::default();
        replace(text, Place::default(), &lookup, &mut findings).ok_or_else(|| findings.list.remove(0).message)
    }

    #[test]
    fn what_a_variable_brings_is_never_looked_at_again() {
        for (text, meant) in [
            ("${PEPPER}${SALT}", "pa${salt}"),
            ("${PEPPER}{SALT}", "pa${SALT}"),
            ("$${SALT}", "${SALT}"),
            ("$$${SALT}", "$${SALT}"),
            ("${CODE}", "${SALT} $${SALT}"),
            ("${NOPE:-${SALT}}", "{salt}"),
            ("${NOPE:-a${ALSO_NOT:-b${PEPPER}c}d}e", "abpa$cde"),
            ("${NOPE:-$${SALT}}", "${SALT}"),
            ("${NOPE:-${CODE}}}", "${SALT} $${SALT}}"),
            ("${SALT:-${NOPE}}", "{salt}"),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY}", ""),
            ("${NOPE:-}", ""),
            ("${NOPE:-a:-b}", "a:-b"),
            ("$ $5 a$b {} }", "$ $5 a$b {} }"),
        ] {
            assert_eq!(replaced(text).as_deref(), Ok(meant), "{text}");
        }
        for text in
            ["${", "${A", "${A:-", "${NOPE:-${SALT}", "${}", "${1A}", "${A-B}", "${A:b}", "${SALT:-${a b}}", "${NOPE}"]
        {
            assert!(replaced(text).is_err(), "{text}");
        }
        assert!(replaced(&format!("{}x{}", "${NOPE:-".repeat(8), "}".repeat(8))).is_ok());
        assert!(replaced(&format!("{}x{}", "${NOPE:-".repeat(9), "}".repeat(9))).is_err());
    }

    #[test]
    fn names_without_brackets_are_known() {
        for (text, name) in [
            ("$SEED", "SEED"),
            ("$(SEED)", "SEED"),
            ("$HOST:80", "HOST"),
            ("$_A", "_A"),
            ("$A1", "A1"),
            ("$AB/x", "AB"),
            ("$AB.x", "AB"),
            ("$AB-x", "AB"),
        ] {
            assert_eq!(bare_name(text), Some(name));
        }
        for text in ["$1", "$seed", "SEED", "$SEEDs", "a$SEED", "$", "$A", "$1A", "$AB,", "${SEED}"] {
            assert_eq!(bare_name(text), None, "{text}");
        }
    }
}
