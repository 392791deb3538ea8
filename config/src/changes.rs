//! Which fields have changed from one configuration to the next, by the texts that both were read from: what the checked
//! configurations tell is named by them (`diff`), and what they do not is looked for in the sections that differ, in these alone.

use crate::diff::{self, Diff, Section, UNSET, plain};
use crate::effective::{Origin, Out, Text};
use crate::env::Lookup;
use crate::model::Config;
use std::collections::BTreeMap;

/// Characters of a value that is printed; of a longer one it is said that it has changed.
const VALUE_MAX: usize = 80;

/// Bytes of texts that are parsed once more to name fields; of larger ones the sections are named.
const TEXTS_MAX: usize = 8 * 1024 * 1024;

/// Compares two configurations that were read from these texts. Secrets are compared, and never named. `environment` answers
/// `${NAME}` as it did before.
#[must_use]
pub fn changes(old: (&Config, &Origin), new: (&Config, &Origin), environment: Lookup<'_>) -> Diff {
    // Parsed once there is something to look for.
    let mut texts: Option<Option<(Text, Text)>> = None;
    diff::changes(old.0, new.0).named(|section| {
        let texts = texts.get_or_insert_with(|| {
            if old.1.len() + new.1.len() > TEXTS_MAX {
                return None;
            }
            old.1.parse(environment).ok().zip(new.1.parse(environment).ok())
        });
        texts.as_ref().map_or_else(Vec::new, |(before, after)| of_section(section, before, after))
    })
}

fn of_section(section: &Section, before: &Text, after: &Text) -> Vec<String> {
    let path = section.path.iter().map(|step| plain(step)).collect::<Vec<_>>().join(".");
    let at = |text: &Text| {
        text.at(&section.path).map(|mut out| {
            if let Out::Map(entries) = &mut out {
                entries.retain(|(name, _)| section.fields.has(name));
            }
            out
        })
    };
    let mut lines = Vec::new();
    compare(&path, at(before).as_ref(), at(after).as_ref(), &mut lines);
    lines
}

/// Names what is different below a path.
fn compare(path: &str, old: Option<&Out>, new: Option<&Out>, lines: &mut Vec<String>) {
    match (old, new) {
        (None, None) => {}
        (Some(old), Some(new)) if old == new => {}
        (Some(Out::Map(old)), Some(Out::Map(new))) => maps(path, old, new, lines),
        (Some(Out::List(old)), Some(Out::List(new))) => lists(path, old, new, lines),
        (old, new) => match (value(old), value(new)) {
            (Some(old), Some(new)) if old != new => lines.push(format!("{path} {old} -> {new}")),
            _ if old.is_none() => lines.push(format!("{path} added")),
            _ if new.is_none() => lines.push(format!("{path} removed")),
            _ => lines.push(format!("{path} changed")),
        },
    }
}

fn maps(path: &str, old: &[(String, Out)], new: &[(String, Out)], lines: &mut Vec<String>) {
    let get = |entries: &'_ [(String, Out)], name: &str| entries.iter().position(|entry| entry.0 == name);
    let gone = old.iter().filter(|(name, _)| get(new, name).is_none());
    for (name, value) in gone {
        compare(&format!("{path}.{}", plain(name)), Some(value), None, lines);
    }
    for (name, value) in new {
        let before = get(old, name).map(|at| &old[at].1);
        compare(&format!("{path}.{}", plain(name)), before, Some(value), lines);
    }
}

/// Items are the same by their names, where all have one that no other has; otherwise by their places from both ends. Places count
/// from 1, as the numbers of routes do everywhere.
fn lists(path: &str, old: &[Out], new: &[Out], lines: &mut Vec<String>) {
    if let (Some(olds), Some(news)) = (by_name(old), by_name(new)) {
        for (name, item) in &olds {
            if !news.contains_key(name) {
                compare(&format!("{path}.{}", plain(name)), Some(item), None, lines);
            }
        }
        let before = lines.len();
        for (name, item) in &news {
            compare(&format!("{path}.{}", plain(name)), olds.get(name).copied(), Some(item), lines);
        }
        if lines.len() == before && olds.len() == news.len() {
            lines.push(format!("{path} in another order"));
        }
        return;
    }
    let head = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    for at in 0..old.len().max(new.len()) {
        compare(&format!("{path}[{}]", head + at + 1), old.get(at), new.get(at), lines);
    }
}

fn by_name(items: &[Out]) -> Option<BTreeMap<&str, &Out>> {
    let name = |item: &'_ Out| match item {
        Out::Map(entries) => entries.iter().position(|(field, _)| field == "name" || field == "id"),
        _ => None,
    };
    let mut named = BTreeMap::new();
    for item in items {
        let (Some(at), Out::Map(entries)) = (name(item), item) else { return None };
        let Out::Text(name) = &entries[at].1 else { return None };
        if named.insert(name.as_str(), item).is_some() {
            return None;
        }
    }
    Some(named)
}

/// A value in a line. `None`: it is not one, is not for everybody's eyes, or is long.
fn value(out: Option<&Out>) -> Option<String> {
    let text = match out {
        None | Some(Out::Null) => return Some(UNSET.to_owned()),
        Some(Out::Bare(text)) => text.clone(),
        Some(Out::Text(text) | Out::Variable(text)) => plain(text),
        Some(Out::Secret { .. } | Out::List(_) | Out::Map(_)) => return None,
    };
    (text.chars().count() <= VALUE_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_str;

    const FILE: &str = r#"
top: 0
listeners:
  - name: web
    address: "127.0.0.1:1"
    tls: { certificates: [ { certificate: a.pem, key: a.key } ] }
    routes:
      - { match: { path: /a }, service: api }
      - { match: { path: /b }, service: api }
services:
  - name: api
    service: 0
    backends: [ { id: b3, address: "127.0.0.1:9", weight: 1 } ]
"#;

    fn environment(name: &str) -> Option<String> {
        (name == "KEY").then(|| "topsecret-of-the-environment".to_owned())
    }

    fn told(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
        let load = |text: &str| {
            let text = text.replace("top: 0\n", "").replace("    service: 0\n", "");
            load_str("t", &text, &environment).unwrap_or_else(|found| panic!("{found}\n{text}"))
        };
        let (old, new) = (load(old), load(new));
        let diff = changes((&old.config, &old.origin), (&new.config, &new.origin), &environment);
        (diff.changes, diff.needs_restart)
    }

    fn with(changes: &[(&str, &str)]) -> String {
        changes.iter().fold(FILE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        })
    }

    /// What is told of a service that has the first, then the second.
    fn of_service(old: &str, new: &str) -> Vec<String> {
        told(&with(&[("service: 0", old)]), &with(&[("service: 0", new)])).0
    }

    #[test]
    fn each_kind_of_a_change_names_its_field() {
        let health = "health: { http: { path: /up }, interval: 3s }";
        assert_eq!(of_service(health, "panic_threshold: 50"), ["services.api.health removed"]);
        assert_eq!(of_service("panic_threshold: 50", health), ["services.api.health added"]);
        assert_eq!(
            of_service(health, "health: { http: { path: /down }, interval: 4s }"),
            ["services.api.health.http.path /up -> /down", "services.api.health.interval 3s -> 4s"]
        );
        // What is written is compared with the default that stands where it is not.
        assert_eq!(of_service("panic_threshold: 50", "panic_threshold: 7"), ["services.api.panic_threshold 50 -> 7"]);
        let weighed = with(&[("weight: 1", "weight: 2")]);
        assert_eq!(told(FILE, &weighed).0, ["services.api.backends.b3.weight 1 -> 2"]);
        let certificate = with(&[("certificate: a.pem", "certificate: b.pem")]);
        assert_eq!(told(FILE, &certificate).0, ["listeners.web.tls.certificates[1].certificate a.pem -> b.pem"]);
        let route = with(&[("      - { match: { path: /a }, service: api }\n", "")]);
        assert_eq!(told(FILE, &route).0, ["listeners.web.routes[1] removed"]);
        assert_eq!(told(&route, FILE).0, ["listeners.web.routes[1] added"]);
        let long = format!("health: {{ http: {{ path: \"/{}\" }}, interval: 3s }}", "x".repeat(VALUE_MAX));
        assert_eq!(of_service(health, &long), ["services.api.health.http.path changed"]);
        let process = with(&[("top: 0", "workers: 3\ndrain_delay: 1s")]);
        let (now, after_restart) = told(FILE, &process);
        assert_eq!((now[0].as_str(), after_restart[0].as_str()), ("drain_delay 0 -> 1s", "workers 0 -> 3"));
        let admin = |text: &str| with(&[("top: 0", text)]);
        let (before, after) = (
            admin("admin: { address: \"127.0.0.1:7\" }"),
            admin("admin: { address: \"127.0.0.1:8\", hosts: [ a.test ] }"),
        );
        assert_eq!(
            told(&before, &after),
            (
                vec!["admin.hosts[1] unset -> a.test".to_owned()],
                vec!["admin.address 127.0.0.1:7 -> 127.0.0.1:8".into()]
            )
        );
    }

    #[test]
    fn secrets_are_compared_and_never_named() {
        let secret = |seed: &str, name: &str, value: &str| {
            format!(
                "balance: {{ seed: \"{seed}\" }}\n    health: {{ http: {{ path: \"/up?key={seed}\", headers: [ {{ name: {name}, value: \"{value}\" }}, {{ name: x-b, value: \"same\" }} ] }} }}"
            )
        };
        let lines =
            of_service(&secret("topsecret-1", "x-a", "topsecret-3"), &secret("topsecret-2", "x-a", "topsecret-4"));
        assert_eq!(
            lines,
            [
                "services.api.balance.seed changed",
                "services.api.health.http.path changed",
                "services.api.health.http.headers.x-a.value changed"
            ]
        );
        let lines = of_service(&secret("s", "x-a", "topsecret"), &secret("s", "x-c", "topsecret"));
        assert_eq!(
            lines,
            ["services.api.health.http.headers.x-a removed", "services.api.health.http.headers.x-c added"]
        );
        let lines = of_service(&secret("${KEY}", "x-a", "a"), &secret("topsecret", "x-a", "a"));
        assert!(!lines.is_empty() && lines.iter().all(|line| line.ends_with(" changed")), "{lines:?}");
    }

    #[test]
    fn values_of_any_kind_stay_in_their_line() {
        assert_eq!(value(Some(&Out::Text("a b\n\u{1b}[2J".into()))).unwrap(), r#""a b\n\u{1b}[2J""#);
        assert_eq!(value(Some(&Out::Text("a\"b".into()))).unwrap(), r#""a\"b""#);
        assert_eq!(value(Some(&Out::Text(String::new()))).unwrap(), r#""""#);
    }

    #[test]
    fn a_change_that_no_text_shows_names_its_section() {
        let (text, other) = (FILE.to_owned(), with(&[("weight: 1", "weight: 1")]));
        let load = |text: &str| {
            load_str("t", &text.replace("top: 0\n", "").replace("    service: 0\n", ""), &environment).unwrap()
        };
        let (old, mut new) = (load(&text), load(&other));
        let mut service = (*new.config.services[0]).clone();
        service.panic_threshold_percent = 7;
        new.config.services[0] = std::sync::Arc::new(service);
        let diff = changes((&old.config, &old.origin), (&new.config, &new.origin), &environment);
        assert_eq!(diff.changes, ["services.api changed"]);
    }

    #[test]
    fn of_large_texts_the_sections_are_named() {
        let padded = |text: &str| format!("{text}# {}\n", "x".repeat(TEXTS_MAX / 2));
        let (old, new) = (padded(FILE), padded(&with(&[("service: 0", "panic_threshold: 7")])));
        assert_eq!(told(&old, &new).0, ["services.api changed"]);
    }

    #[test]
    fn ten_thousand_services_of_which_one_has_changed_name_that_one() {
        let services = |of_last: &str| {
            let service = |index: usize| {
                let more = if index == 9_999 { of_last } else { "" };
                format!("  - {{ name: s{index}, {more} backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }}\n")
            };
            let all: String = (0..10_000).map(service).collect();
            let text = format!("listeners: [ {{ name: l, address: \"127.0.0.1:1\", service: s0 }} ]\nservices:\n{all}");
            load_str("t", &text, &environment).unwrap()
        };
        let (old, mut new) = (services(""), services("panic_threshold: 7,"));
        new.config.share(&old.config);
        let diff = changes((&old.config, &old.origin), (&new.config, &new.origin), &environment);
        assert_eq!(diff.changes, ["services.s9999.panic_threshold 50 -> 7"]);
    }
}
