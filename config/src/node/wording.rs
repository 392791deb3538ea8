//! What the YAML crate finds wrong, in the words of who writes configurations: what it is, and what to write instead.

use crate::diagnostic::Place;
use std::fmt::Write;

/// Names of fields are no longer, in YAML (YAML 1.2.2 §7.4.2).
const KEY_MAX: usize = 1024;

/// The code, the message and the help, of what the crate said about a place of the text.
pub(super) fn of(said: &str, text: &str, place: Place) -> (&'static str, String, Option<String>) {
    // The place stands in the finding already.
    let end = [" at line ", ", set DuplicateKeyPolicy"].iter().filter_map(|cut| said.find(cut)).min();
    let said = said[..end.unwrap_or(said.len())].trim();
    if said.contains("duplicate") {
        return ("duplicate_field", said.to_owned(), Some("remove one of the two".to_owned()));
    }
    let (message, help) = match known(said, text, place) {
        Some((message, help)) => (message, Some(help)),
        None => (said.to_owned(), None),
    };
    // What the line tells is nearer than what the crate has made of it.
    let help = if text.lines().any(|line| line.trim_start_matches(' ').starts_with('\t')) {
        Some("YAML is indented with spaces, not with tabs".to_owned())
    } else if let Some(address) = bare_address(text, place) {
        Some(format!("brackets are a list in YAML: write `\"{address}\"`, with quotation marks"))
    } else {
        help
    };
    ("syntax", message, help)
}

/// Mistakes that have a name.
fn known(said: &str, text: &str, place: Place) -> Option<(String, String)> {
    let same = |help: &str| Some((said.to_owned(), help.to_owned()));
    let line = text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
    let rest = line.char_indices().nth(place.column.saturating_sub(1)).map_or("", |(at, _)| &line[at..]);
    let word = rest.split([' ', ',', ']', '}', '#', '\t']).next().unwrap_or_default();
    if said.contains("unknown anchor") {
        let name = word.trim_start_matches('*');
        let help = format!("`*` begins an alias in YAML: write `\"{word}\"`, with quotation marks, if it is a text");
        return Some((format!("there is no anchor `&{name}` above this"), help));
    }
    if said.contains("non-finite") {
        let message = format!("`{word}` is no number that could be reckoned with");
        return Some((message, "write it with quotation marks if it is a text".to_owned()));
    }
    if let Some(character) = said.strip_prefix("unexpected character: `").and_then(|rest| rest.strip_suffix('\'')) {
        return match character {
            "@" | "`" | "%" => {
                same(&format!("put quotation marks around a text that begins with {character:?}: `\"{word}\"`"))
            }
            _ if rest.starts_with('\0') => {
                let message = "the file has a NUL character in it".to_owned();
                Some((message, "save it as a text in UTF-8 (UTF-16 looks like this)".to_owned()))
            }
            _ => same("remove it, or put quotation marks around the text that it is in"),
        };
    }
    if said.contains("simple key expected") {
        if rest.chars().count() > KEY_MAX {
            return Some((
                format!("a field's name has more than {KEY_MAX} characters"),
                "a field is a name, a colon and a space: `name: value`".to_owned(),
            ));
        }
        let mut help = "a field is a name, a colon and a space".to_owned();
        if !word.is_empty() {
            let _ = write!(help, ": write `{}: ...`", word.trim_end_matches(':'));
        }
        return same(&help);
    }
    for (part, help) in [
        (
            "mapping values are not allowed",
            "put quotation marks around a text with `: ` in it, or write the field in a line of its own",
        ),
        ("unclosed bracket '{'", "close it with `}`"),
        ("unclosed bracket '['", "close it with `]`"),
        ("did not find expected '-'", "indent it as the other lines of its section are"),
        ("did not find expected key", "indent it as the other lines of its section are"),
        ("in multiline quoted scalar", "close the quotation marks, or indent the lines that go on"),
        ("unknown escape character", "write two backslashes for one, or take single quotation marks"),
        ("is only valid inside a block", "in brackets, values are separated by commas: `[ a, b ]`"),
    ] {
        if said.contains(part) {
            return same(help);
        }
    }
    None
}

/// `[::]:8080` without quotation marks, in the line where the parser gave up or the one before.
fn bare_address(text: &str, place: Place) -> Option<&str> {
    let lines = text.lines().skip(place.line.saturating_sub(2)).take(if place.line > 1 { 2 } else { 1 });
    lines.flat_map(|line| line.match_indices('[').map(move |(at, _)| (line, at))).find_map(|(line, at)| {
        if line[..at].ends_with(['"', '\'']) {
            return None;
        }
        let inside = &line[at + 1..];
        let end = inside.find(']')?;
        inside[..end].parse::<std::net::Ipv6Addr>().ok()?;
        let port = inside[end + 1..].strip_prefix(':')?;
        let digits = port.bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0).then(|| &line[at..at + end + 3 + digits])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_quotation_marks_is_found_in_the_line_and_in_the_one_before() {
        let at = |line| Place { line, ..Place::default() };
        let text = "a: 1\naddress: [::1]:80\nb: [ 1 ], c: [2001:db8::]:4430 # so\nd: \"[::]:1\"\ne: '[::]:2'\nf: [::]:\ng: [::]:x\nh: [1]:3\ni: [::";
        for (line, found) in [
            (1, None),
            (2, Some("[::1]:80")),
            (3, Some("[::1]:80")),
            (4, Some("[2001:db8::]:4430")),
            (5, None),
            (6, None),
            (7, None),
            (8, None),
            (9, None),
            (0, None),
        ] {
            assert_eq!(bare_address(text, at(line)), found, "line {line}");
        }
        assert_eq!(bare_address("x: [::]:8080", at(1)), Some("[::]:8080"));
        assert_eq!(bare_address("x: [::]:8", at(1)), Some("[::]:8"));
        assert_eq!(bare_address("a: 1\nx: [::]:8", at(1)), None, "not in the line behind");
    }

    #[test]
    fn what_is_often_written_wrong_is_told_with_what_to_write() {
        for (text, line, message, help) in [
            ("hosts: [*.example.com]", 1, "no anchor `&.example.com`", "write `\"*.example.com\"`"),
            ("a: 1\nb: *x # so", 2, "no anchor `&x`", "`\"*x\"`"),
            ("a: @b", 1, "unexpected character", "begins with \"@\": `\"@b\"`"),
            ("a: %b", 1, "unexpected character", "`\"%b\"`"),
            ("a: b: c", 1, "mapping values are not allowed", "quotation marks"),
            ("a: \"b\nc: d\n", 2, "multiline quoted scalar", "close the quotation marks"),
            ("a:\n  - b: 1\n   c: 2\n", 3, "expected '-'", "indent it"),
            ("a: 1\nbackends\nc: 1\n", 2, "expected ':'", "write `backends: ...`"),
            ("a: { b: 1\n", 1, "unclosed bracket", "`}`"),
            ("a: \"\\q\"", 1, "escape character", "two backslashes"),
            ("a: [\n  - b\n", 2, "only valid inside a block", "commas"),
            ("a: 1\nb: x\0y", 2, "NUL character", "UTF-8"),
            ("a: 1e400", 1, "`1e400` is no number", "quotation marks"),
            ("a: 1\na: 2", 2, "duplicate", "remove one of the two"),
            ("a:\n\tb: 1\n", 2, "", "not with tabs"),
            ("a: [::1]:80", 1, "", "`\"[::1]:80\"`"),
        ] {
            let found = *crate::node::parse(text).expect_err(text);
            assert!(found.line.abs_diff(line) <= usize::from(message.is_empty()), "{text:?}: {found}");
            assert!(found.message.contains(message), "{text:?}: {found}");
            assert!(found.help.as_ref().is_some_and(|said| said.contains(help)), "{text:?}: {found}");
        }
        let long = *crate::node::parse(&format!("a: 1\n{}: 2", "k".repeat(2000))).unwrap_err();
        assert!(long.message.contains("more than 1024 characters") && long.line == 2, "{long}");
    }
}
