//! The last things that have happened to this proxy: reloads, health, overload, changes at run time, rollouts. For an operator who comes late.

use crate::ambient;
use ringway_ring::Movement;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Entries that are kept.
const ENTRIES_MAX: usize = 256;
/// Lines of an entry's details, and bytes of each text: a file of ten thousand backends is one entry, and no longer than others.
const LINES_MAX: usize = 24;
const TEXT_BYTES_MAX: usize = 400;

/// What has happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Happening {
    /// `reload`, `health`, `overload`, `outlier`, `change`, `handoff` or `rollout`.
    pub(crate) kind: &'static str,
    /// What it has come to, in a word.
    pub(crate) to: &'static str,
    /// The service, if it is one's.
    pub(crate) service: String,
    /// The backend, if it is one's.
    pub(crate) backend: String,
    /// Why, or what, as a sentence.
    pub(crate) text: String,
    /// Who wanted it, if that is known.
    pub(crate) by: String,
    /// Fields that have changed, a line each.
    pub(crate) changes: Vec<String>,
    /// Services of which keys have moved, and how many in percent.
    pub(crate) moved: Vec<(String, f64)>,
}

/// The last things that have happened, numbered from 1.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    last: u64,
    entries: VecDeque<(u64, Arc<Value>)>,
}

impl Journal {
    /// Keeps what has happened now.
    pub(crate) fn note(&self, happening: &Happening) {
        let entry = Arc::new(happening.json(ambient::unix_millis()));
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.last += 1;
        let number = entries.last;
        entries.entries.push_back((number, entry));
        if entries.entries.len() > ENTRIES_MAX {
            entries.entries.pop_front();
        }
    }

    /// The entries, oldest first.
    pub(crate) fn entries(&self) -> Vec<(u64, Arc<Value>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entries.iter().cloned().collect()
    }
}

impl Happening {
    fn json(&self, unix_millis: u64) -> Value {
        let mut entry = Map::new();
        entry.insert("at".into(), json!(unix_millis as f64 / 1e3));
        for (name, text) in
            [("service", &self.service), ("backend", &self.backend), ("text", &self.text), ("by", &self.by)]
        {
            if !text.is_empty() {
                entry.insert(name.into(), json!(cut(text)));
            }
        }
        entry.insert("kind".into(), json!(self.kind));
        entry.insert("to".into(), json!(self.to));
        if !self.changes.is_empty() {
            let mut lines: Vec<String> = self.changes.iter().take(LINES_MAX).map(|line| cut(line)).collect();
            if self.changes.len() > LINES_MAX {
                lines.push(format!("and {} more", self.changes.len() - LINES_MAX));
            }
            entry.insert("changes".into(), json!(lines));
        }
        if !self.moved.is_empty() {
            let moved = self.moved.iter().take(LINES_MAX);
            let moved = moved.map(|(service, percent)| json!({ "service": service, "percent": percent }));
            entry.insert("moved".into(), moved.collect());
        }
        Value::Object(entry)
    }
}

/// What has moved of services' keys, in percent, where anything has.
pub(crate) fn percents(moved: &[(String, Movement)]) -> Vec<(String, f64)> {
    let moved = moved.iter().filter(|(_, movement)| movement.moved > 0.0);
    moved.map(|(service, movement)| (service.clone(), movement.moved * 100.0)).collect()
}

fn cut(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=TEXT_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entries_are_kept_whatever_comes_and_none_is_long() {
        let journal = Journal::default();
        for at in 0..ENTRIES_MAX + 3 {
            let changes = (0..at).map(|line| format!("{line} {}", "ü".repeat(TEXT_BYTES_MAX))).collect();
            journal.note(&Happening { kind: "reload", text: at.to_string(), changes, ..Happening::default() });
        }
        let entries = journal.entries();
        assert_eq!(entries.len(), ENTRIES_MAX);
        assert_eq!((entries[0].0, entries[0].1["text"].as_str()), (4, Some("3")));
        let last = &entries[ENTRIES_MAX - 1].1;
        assert!(last.to_string().len() < (LINES_MAX + 2) * (TEXT_BYTES_MAX + 32), "{last}");
        assert_eq!(last["changes"][LINES_MAX], format!("and {} more", ENTRIES_MAX + 2 - LINES_MAX));
        assert!(last.get("backend").is_none(), "what there is nothing to say about is left out");
    }
}
