//! What a revision has changed, in a few lines: which fields of a backend, how many lines of a text. What the lines of a text say is for
//! those who ask for the revision: they may be secrets.

use crate::state::{Change, Key, Object, Revision, State};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// Revisions that are shown.
const REVISIONS_MAX: usize = 64;
/// Objects of one revision that are told of; how many there are more is said.
const CHANGES_MAX: usize = 12;
/// Bytes of two texts that are compared line by line, once what both begin and end with is left out.
const COMPARED_BYTES_MAX: usize = 64 << 10;
/// Longest value of a field that is shown, in characters.
const VALUE_MAX: usize = 120;

/// The last revisions, told once each.
#[derive(Default)]
pub(super) struct Differences {
    epoch: u64,
    revisions: BTreeMap<u64, Value>,
}

impl Differences {
    pub(super) fn follow(&mut self, state: &State) {
        if self.epoch != state.epoch {
            *self = Self { epoch: state.epoch, revisions: BTreeMap::new() };
        }
        let newest = state.history.iter().skip(state.history.size().saturating_sub(REVISIONS_MAX));
        for (number, revision) in newest {
            self.revisions.entry(*number).or_insert_with(|| told(*number, revision));
        }
        while self.revisions.len() > REVISIONS_MAX
            || self.revisions.last_key_value().is_some_and(|(last, _)| *last > state.revision)
        {
            self.revisions.pop_first();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&u64, &Value)> {
        self.revisions.iter()
    }
}

fn told(number: u64, revision: &Revision) -> Value {
    let mut changes: Vec<String> = revision.changes.iter().take(CHANGES_MAX).map(line).collect();
    if revision.changes.len() > CHANGES_MAX {
        changes.push(format!("and {} more", revision.changes.len() - CHANGES_MAX));
    }
    json!({
        "kind": "revision", "at": revision.at_ms as f64 / 1000.0, "to": format!("revision {number}"), "revision": number,
        "by": revision.author, "text": revision.note, "changes": changes,
    })
}

/// What has become of an object.
fn line(change: &Change) -> String {
    let key = &change.key;
    match (change.before.as_deref(), change.after.as_deref()) {
        (None, Some(Object::Backend(backend))) => format!("{key}: added, {}", backend.address),
        (None, _) => format!("{key}: added"),
        (_, None) => format!("{key}: removed"),
        (Some(before), Some(after)) => format!("{key}: {}", difference(key, before, after)),
    }
}

fn difference(key: &Key, before: &Object, after: &Object) -> String {
    match (before, after) {
        (Object::Document(before), Object::Document(after)) | (Object::Service(before), Object::Service(after)) => {
            lines(&before.text, &after.text)
        }
        (Object::Backend(before), Object::Backend(after)) => fields(&json!(before), &json!(after)),
        _ if matches!(key, Key::Certificate(_)) => "replaced".to_owned(),
        _ => "changed".to_owned(),
    }
}

fn fields(before: &Value, after: &Value) -> String {
    let empty = Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(value));
    let text = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => shortened(text),
        Some(other) => other.to_string(),
    };
    let changed = changed.map(|(name, value)| format!("{name} {} → {}", text(before.get(name)), text(Some(value))));
    let changed: Vec<String> = changed.collect();
    if changed.is_empty() { "the same".to_owned() } else { changed.join(", ") }
}

/// How many lines only one of the two texts has, wherever they stand.
fn lines(before: &str, after: &str) -> String {
    let (before, after) = apart(before, after);
    if before.len() + after.len() > COMPARED_BYTES_MAX {
        return format!("changed, {} lines or fewer", before.lines().count().max(after.lines().count()));
    }
    let mut counts: HashMap<&str, i64> = HashMap::new();
    before.lines().for_each(|line| *counts.entry(line).or_default() -= 1);
    after.lines().for_each(|line| *counts.entry(line).or_default() += 1);
    let gone: i64 = counts.values().filter(|count| **count < 0).map(|count| -count).sum();
    let new: i64 = counts.values().filter(|count| **count > 0).sum();
    match gone.max(new) {
        0 => "the same lines in another order".to_owned(),
        1 => "changed, 1 line".to_owned(),
        many => format!("changed, {many} lines"),
    }
}

/// Two texts without the whole lines that both begin with, and those that both end with.
fn apart<'t>(before: &'t str, after: &'t str) -> (&'t str, &'t str) {
    let same = before.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
    // A line's end is no part of a longer character.
    let head = before
        .as_bytes()
        .get(..same)
        .and_then(|same| same.iter().rposition(|byte| *byte == b'\n'))
        .map_or(0, |at| at + 1);
    let (before, after) = (before.get(head..).unwrap_or(before), after.get(head..).unwrap_or(after));
    let same = before.bytes().rev().zip(after.bytes().rev()).take_while(|(a, b)| a == b).count();
    let tail =
        before.as_bytes().get(before.len() - same..).and_then(|same| same.iter().position(|byte| *byte == b'\n'));
    let tail = tail.map_or(0, |at| same - at - 1);
    let cut = |text: &'t str| text.get(..text.len() - tail).unwrap_or(text);
    (cut(before), cut(after))
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(VALUE_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_of(before: Option<Value>, after: Option<Value>, key: &str) -> String {
        let object = |value: Option<Value>| value.map(|value| serde_json::from_value(value).unwrap());
        line(&Change { key: key.parse().unwrap(), before: object(before), after: object(after) })
    }

    #[test]
    fn a_change_says_which_fields_and_which_lines() {
        let backend = |weight: u32, state: &str| json!({ "backend": { "address": "10.0.0.1:80", "weight": weight, "state": state } });
        let key = "backend/s/a";
        assert_eq!(told_of(None, Some(backend(100, "ready")), key), "backend/s/a: added, 10.0.0.1:80");
        assert_eq!(
            told_of(Some(backend(100, "ready")), Some(backend(50, "drain")), key),
            "backend/s/a: state ready → drain, weight 100 → 50"
        );
        assert_eq!(told_of(Some(backend(100, "ready")), None, key), "backend/s/a: removed");
        let text = |text: &str| Some(json!({ "document": { "text": text } }));
        assert_eq!(
            told_of(text("a: 1\nb: 2\nb: 2\n"), text("a: 1\nb: 2\n  c: 3\n"), "document/main"),
            "document/main: changed, 1 line"
        );
        assert_eq!(told_of(text("a\nb\n"), text("b\na\n"), "service/s"), "service/s: the same lines in another order");
        assert_eq!(told_of(text("k: ä\nz\n"), text("k: ö\ny\nz\n"), "service/s"), "service/s: changed, 2 lines");
        let many: String = (0..10).map(|number| format!("{number}\n")).collect();
        assert!(told_of(text(""), text(&many), "document/main").ends_with("changed, 10 lines"));
        let secret = told_of(text("password: first"), text("password: second"), "document/main");
        assert!(!secret.contains("password") && !secret.contains("second"), "{secret}");
        let long = "ü\n".repeat(100_000);
        let all = told_of(text("a\nb"), text(&long), "document/main");
        assert_eq!(all, "document/main: changed, 100000 lines or fewer");
        let one = told_of(text(&long), text(&(long.clone() + "a\n")), "document/main");
        assert_eq!(one, "document/main: changed, 1 line", "what both begin with is not compared line by line");
        let zone = |zone: &str| Some(json!({ "backend": { "address": "10.0.0.1:80", "zone": zone } }));
        assert!(told_of(zone("a"), zone(&"ü".repeat(10_000)), key).len() < 400);
        let pair = |key: &str| Some(json!({ "certificate": { "certificate": "c", "key": key } }));
        assert_eq!(told_of(pair("secret"), pair("other"), "certificate/c"), "certificate/c: replaced");
    }
}
