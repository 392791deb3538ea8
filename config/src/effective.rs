//! A configuration as it is in force, written out again: the texts that it was read from, joined, with every default filled in and without
//! secrets. What the schema says of a field decides about both, so that no new field is forgotten.

use crate::decode::{Decode, Field, Shape};
use crate::diagnostic::{Diagnostics, Place};
use crate::env::{self, Lookup};
use crate::findings::Findings;
use crate::fleet::{self, FleetConfig};
use crate::node::{self, Node, Value};
use crate::plain::is_unseen;
use crate::schema::{BLANK, Root, SECRET, URL};
use serde_json::{Map, json};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Words that may stand before a variable in a field's value.
const SCHEMES: &[&str] = &["Bearer ", "Basic ", "Token "];
/// Changes of fields on the way to the client, who sees them anyway.
const SEEN: &str = "response_headers";

/// The texts that a configuration was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    text: Arc<str>,
    fleet: Option<Arc<FleetConfig>>,
}

/// A value that stands in place of what the texts have.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendPatch {
    /// The service.
    pub service: String,
    /// The backend's id.
    pub backend: String,
    /// A field of the backend: `drain`, `maintenance` or `weight`.
    pub field: &'static str,
    /// As a file has it.
    pub value: String,
}

/// A configuration, written out.
#[derive(Debug)]
pub struct Effective {
    root: Out,
}

/// What is written.
#[derive(Debug)]
enum Out {
    Null,
    /// A number or a word of the schema's: as it is.
    Bare(String),
    Text(String),
    /// A text with variables, as the file has it.
    Variable(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Origin {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.into(), fleet: None }
    }

    /// Whether this is what the file says.
    #[must_use]
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        self.text.as_bytes() == bytes
    }

    /// Whether a fleet has registered this backend.
    #[must_use]
    pub fn is_registered(&self, service: &str, backend: &str) -> bool {
        let registered = self.fleet.iter().flat_map(|fleet| &fleet.backends);
        registered.into_iter().any(|known| known.service == service && known.id == backend)
    }

    /// The text of the fleet's that says what this service is, by its name. `None`: the file does.
    #[must_use]
    pub fn text_of(&self, service: &str) -> Option<&str> {
        self.fleet.as_deref()?.text_of(service)
    }

    /// The same file with what a fleet has agreed on.
    pub(crate) fn with(&self, fleet: &Arc<FleetConfig>) -> Self {
        Self { text: Arc::clone(&self.text), fleet: Some(Arc::clone(fleet)) }
    }

    /// The configuration. `environment` answers `${NAME}` as it did before.
    ///
    /// # Errors
    /// The texts are wrong: those that a configuration was read from are not.
    pub fn effective(&self, environment: Lookup<'_>, patches: &[BackendPatch]) -> Result<Effective, Diagnostics> {
        let mut root = node::parse(&self.text).map_err(|finding| Diagnostics(vec![*finding]))?;
        let mut findings = Findings::default();
        let mut written = HashMap::new();
        variables(&root, &mut written);
        env::substitute(&mut root, environment, &mut findings);
        if let Some(fleet) = &self.fleet {
            fleet::merge(&mut root, fleet, &mut findings);
        }
        patches.iter().for_each(|patch| put(&mut root, patch));
        Ok(Effective { root: Filler { hides: true, written: &written }.fill(&root, &Root::shape()) })
    }
}

/// The texts that have variables, by where they stand: what a variable brings may be nobody's business, and is another elsewhere.
fn variables(node: &Node, found: &mut HashMap<Place, String>) {
    match &node.value {
        Value::Text(text) if text.split("$${").any(|part| part.contains("${")) => {
            found.insert(node.place, text.clone());
        }
        Value::List(items) => items.iter().for_each(|item| variables(item, found)),
        Value::Map(entries) => entries.iter().for_each(|entry| variables(&entry.2, found)),
        _ => {}
    }
}

/// Whether there is nothing beside a variable's name that could be a secret.
fn is_only_a_variable(text: &str) -> bool {
    let text = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

/// Puts a value into a backend's mapping.
fn put(root: &mut Node, patch: &BackendPatch) {
    let backend = named(root.entry_mut("services"), "name", &patch.service)
        .and_then(|service| named(service.entry_mut("backends"), "id", &patch.backend));
    let Some(backend) = backend else { return };
    let place = backend.place;
    if let Value::Map(entries) = &mut backend.value {
        entries.retain(|entry| entry.0 != patch.field);
        entries.push((patch.field.to_owned(), place, Node::new(Value::Text(patch.value.clone()), place)));
    }
}

fn named<'n>(list: Option<&'n mut Node>, field: &str, name: &str) -> Option<&'n mut Node> {
    let Value::List(items) = &mut list?.value else { return None };
    items.iter_mut().find(|item| item.entry(field).and_then(Node::text) == Some(name))
}

/// Fills in what is not written.
#[derive(Clone, Copy)]
struct Filler<'w> {
    /// Whether secrets are blank.
    hides: bool,
    /// Texts with variables.
    written: &'w HashMap<Place, String>,
}

impl Filler<'_> {
    /// A value as it is by its shape.
    fn fill(&self, node: &Node, shape: &Shape) -> Out {
        match (shape, &node.value) {
            (Shape::Section { fields, .. }, Value::Map(_) | Value::Null) => self.section(node, &fields()),
            (Shape::List(item), Value::List(items)) => {
                Out::List(items.iter().map(|node| self.fill(node, item)).collect())
            }
            (shape, _) => node.text().map_or(Out::Null, |text| self.single(node.place, text, shape)),
        }
    }

    fn single(&self, place: Place, text: &str, shape: &Shape) -> Out {
        let kind = if let Shape::Text { kind, .. } = shape { *kind } else { "" };
        match (self.written.get(&place), kind) {
            (Some(written), SECRET) if is_only_a_variable(written) => Out::Variable(written.clone()),
            (_, SECRET) if self.hides => Out::Text(BLANK.to_owned()),
            // A default that stands beside a variable could be one with a query.
            (Some(written), URL) if written.contains(['?', ':']) && !is_only_a_variable(written) && self.hides => {
                Out::Text(without_query(text))
            }
            (Some(written), _) => Out::Variable(written.clone()),
            (None, URL) if self.hides => Out::Text(without_query(text)),
            (None, _) => scalar(text, shape),
        }
    }

    fn section(&self, node: &Node, fields: &[Field]) -> Out {
        let value = |field: &Field| match node.entry(field.name).filter(|node| node.value != Value::Null) {
            Some(node) => Some(Self { hides: self.hides && field.name != SEEN, ..*self }.fill(node, &field.shape)),
            None => self.absent(node, field),
        };
        Out::Map(fields.iter().filter_map(|field| Some((field.name.to_owned(), value(field)?))).collect())
    }

    /// A field that is not written, or has nothing behind its name: a section is there then, all the same.
    fn absent(&self, node: &Node, field: &Field) -> Option<Out> {
        let is_named = node.entry(field.name).is_some();
        match (field.default, &field.shape) {
            (Some("[]"), _) => Some(Out::List(Vec::new())),
            (default, Shape::Section { fields, .. }) if default == Some("{}") || is_named => {
                Some(self.section(&Node::new(Value::Null, node.place), &fields()))
            }
            (Some(text), shape) => Some(scalar(text, shape)),
            (None, _) => None,
        }
    }
}

fn without_query(text: &str) -> String {
    text.split_once('?').map_or_else(|| text.to_owned(), |(path, _)| format!("{path}?{BLANK}"))
}

fn scalar(text: &str, shape: &Shape) -> Out {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte));
    match shape {
        Shape::Boolean | Shape::Integer { .. } | Shape::Number { .. } if is_plain => Out::Bare(text.to_owned()),
        _ => Out::Text(text.to_owned()),
    }
}

impl Effective {
    /// As a file.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut out = String::new();
        if let Out::Map(entries) = &self.root {
            entries.iter().for_each(|(name, value)| entry(&mut out, 0, name, value));
        }
        out
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        json_of(&self.root)
    }
}

fn json_of(out: &Out) -> serde_json::Value {
    match out {
        Out::Null => serde_json::Value::Null,
        Out::Bare(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        Out::Text(text) | Out::Variable(text) => json!(text),
        Out::List(items) => items.iter().map(json_of).collect(),
        Out::Map(entries) => {
            let entries = entries.iter().map(|(name, value)| (name.clone(), json_of(value)));
            serde_json::Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}

fn entry(out: &mut String, depth: usize, name: &str, value: &Out) {
    // Writing to a String does not fail.
    let _ = write!(out, "{:1$}{name}:", "", depth * 2);
    match value {
        Out::Map(entries) if !entries.is_empty() => {
            out.push('\n');
            entries.iter().for_each(|(name, value)| entry(out, depth + 1, name, value));
        }
        Out::List(items) if !items.is_empty() => {
            out.push('\n');
            items.iter().for_each(|value| item(out, depth + 1, value));
        }
        value => {
            out.push(' ');
            flat(out, value);
            out.push('\n');
        }
    }
}

fn item(out: &mut String, depth: usize, value: &Out) {
    let _ = write!(out, "{:1$}-", "", depth * 2);
    match value {
        Out::Map(entries) if !entries.is_empty() => {
            let mut text = String::new();
            entries.iter().for_each(|(name, value)| entry(&mut text, depth + 1, name, value));
            out.push(' ');
            out.push_str(text.trim_start());
        }
        Out::List(items) if !items.is_empty() => {
            out.push('\n');
            items.iter().for_each(|value| item(out, depth + 1, value));
        }
        value => {
            out.push(' ');
            flat(out, value);
            out.push('\n');
        }
    }
}

/// What fits on one line.
fn flat(out: &mut String, value: &Out) {
    match value {
        Out::Null => out.push('~'),
        Out::Bare(text) => out.push_str(text),
        Out::List(_) => out.push_str("[]"),
        Out::Map(_) => out.push_str("{}"),
        Out::Text(text) => quote(out, &text.replace("${", "$${")),
        Out::Variable(text) => quote(out, text),
    }
}

/// In double quotes, of which everything is seen.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            unseen if is_unseen(unseen) => {
                let _ = write!(out, "\\U{:08x}", u32::from(unseen));
            }
            seen => out.push(seen),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_str;
    use crate::model::Config;

    fn config(text: &str) -> Config {
        load_str("t", text, &|_| None).unwrap_or_else(|found| panic!("{found}\n{text}")).config
    }

    fn written(text: &str) -> String {
        Origin::new(text).effective(&|_| None, &[]).unwrap().yaml()
    }

    const EXAMPLE: &str = include_str!("../../config.example.yaml");
    const SMALL: &str = "listeners: [ { name: l, address: \"127.0.0.1:1\", service: s } ]\n\
                         services: [ { name: s, health: { tcp: {} }, backends: [ { id: a, address: \"127.0.0.1:9\" } ] } ]\n";

    #[test]
    fn what_is_written_out_means_the_same() {
        let other = include_str!("../testdata/good/other.yaml");
        for text in [EXAMPLE, SMALL, other] {
            let again = written(text);
            assert_eq!(written(&again), again, "writing it out again changes nothing");
            let (before, after) = (config(text), config(&revealed(text)));
            assert_eq!(format!("{before:#?}"), format!("{after:#?}"));
        }
    }

    /// With its secrets: without them it means something else.
    fn revealed(text: &str) -> String {
        let mut root = node::parse(text).unwrap();
        env::substitute(&mut root, &|_| None, &mut Findings::default());
        Effective { root: Filler { hides: false, written: &HashMap::new() }.fill(&root, &Root::shape()) }.yaml()
    }

    #[test]
    fn every_field_with_a_default_is_there_and_an_absent_section_is_not() {
        let text = written(SMALL);
        for line in ["workers: 0", "drain_timeout: \"30s\"", "  anonymous:", "tcp: {}", " weight: 100"] {
            assert_eq!(text.contains(line), line != "  anonymous:", "{line}\n{text}");
        }
        let json = Origin::new(SMALL).effective(&|_| None, &[]).unwrap().json();
        assert_eq!((&json["workers"], &json["services"][0]["backends"][0]["id"]), (&json!(0), &json!("a")));
    }

    #[test]
    fn secrets_are_blank_and_texts_of_any_kind_come_through() {
        let hostile = "a\u{1b}\"\\ ${X} $${Y} \u{2028}ä: #";
        let service = "name: s, balance: { seed: topsecret, affinity_cookie: { name: c, secret: 0123456789abcdef } }, \
                       health: { http: { headers: [ { name: Authorization, value: topsecret }, { name: x-a, value: topsecret } ] } }";
        let text = SMALL.replace("name: s, health: { tcp: {} }", service);
        let text = written(&text);
        assert!(!text.contains("topsecret") && !text.contains("0123456789abcdef"), "{text}");
        let mut quoted = String::new();
        flat(&mut quoted, &Out::Text(hostile.to_owned()));
        let variable = |name: &str| Some(format!("variable {name}"));
        let mut node = node::parse(&format!("k: {quoted}\n")).unwrap();
        env::substitute(&mut node, &variable, &mut Findings::default());
        assert_eq!(node.entry("k").and_then(Node::text), Some(hostile), "{quoted}");
    }

    /// Secrets in every place that may hold one; `@` stands for them.
    const PLACES: &str = r#"
listeners:
  - name: l
    address: "127.0.0.1:1"
    routes:
      - match: { headers: [ { name: x-plain, value: "@" } ] }
        service: s
        request_headers: { set: [ { name: x-signature, value: "@" } ], add: [ { name: x-more, value: "@" } ] }
        response_headers: { set: [ { name: x-frame-options, value: DENY } ] }
      - { redirect: { path: "/else?key=@" } }
services:
  - name: s
    balance: { seed: "@", affinity_cookie: { name: c, secret: "@" } }
    health:
      http: { path: "/health?key=@", headers: [ { name: Authorization, value: "@" }, { name: x-hub, value: "@" } ] }
      agent: { port: 7, send: "@" }
    backends: [ { id: a, address: "127.0.0.1:9" } ]
tracing: { endpoint: "http://127.0.0.1:4318/v1/traces?key=@", headers: [ { name: x-honey, value: "@" } ] }
"#;

    #[test]
    fn no_place_that_may_hold_a_secret_shows_it_or_is_read_back_as_another() {
        let plain = PLACES.replace('@', "topsecret-topsecret");
        config(&plain);
        let text = written(&plain);
        let json = Origin::new(&plain).effective(&|_| None, &[]).unwrap().json().to_string();
        assert!(!text.contains("topsecret") && !json.contains("topsecret"), "{text}");
        assert!(text.contains("DENY") && text.contains("/health?"), "{text}");
        let found = load_str("t", &text, &|_| None).unwrap_err();
        assert_eq!(
            found.0.iter().map(|finding| finding.code).collect::<Vec<_>>(),
            vec!["blanked_secret"; 12],
            "{found}"
        );
        // One of them is enough.
        for one in ["balance: { seed: \"@\"", "name: Authorization, value: \"@\"", "name: c, secret: \"@\""] {
            let text = PLACES.replace(one, &one.replace('@', BLANK)).replace('@', "topsecret-topsecret");
            assert_eq!(load_str("t", &text, &|_| None).unwrap_err().0[0].code, "blanked_secret", "{one}");
        }
        let example = written(EXAMPLE);
        assert!(!example.contains("0123456789abcdef") && example.contains(BLANK), "{example}");
    }

    #[test]
    fn what_comes_of_variables_is_written_as_they_are_and_reads_back_as_the_same() {
        let environment = |name: &str| match name {
            "KEY" => Some("topsecret-topsecret".to_owned()),
            "PORT" => Some("9".to_owned()),
            _ => None,
        };
        let text = PLACES
            .replace("=@", "")
            .replace('@', "${KEY}")
            .replace("Authorization, value: \"", "Authorization, value: \"Bearer ");
        let text = text
            .replace("?key", "")
            .replace("127.0.0.1:9", "127.0.0.1:${PORT}")
            .replace("port: 7", "port: \"${PORT}\"");
        let again = Origin::new(&text).effective(&environment, &[]).unwrap().yaml();
        assert!(
            !again.contains("topsecret") && again.contains("\"Bearer ${KEY}\"") && !again.contains(BLANK),
            "{again}"
        );
        let load =
            |text: &str| load_str("t", text, &environment).unwrap_or_else(|found| panic!("{found}\n{text}")).config;
        assert_eq!(format!("{:#?}", load(&again)), format!("{:#?}", load(&text)));
        // A default, or what stands beside a variable, may be the secret itself.
        for secret in ["${KEY:-hidden}", "hidden${KEY}", "$${hidden}"] {
            let text = PLACES.replace('@', secret);
            let again = Origin::new(&text).effective(&environment, &[]).unwrap().yaml();
            assert!(!again.contains("hidden") && !again.contains("topsecret"), "{again}");
        }
    }

    #[test]
    fn a_runtime_change_stands_in_place_of_what_the_file_has() {
        let patch =
            |field, value: &str| BackendPatch { service: "s".into(), backend: "a".into(), field, value: value.into() };
        let origin = Origin::new(SMALL);
        let patched = origin.effective(&|_| None, &[patch("weight", "7"), patch("drain", "true")]).unwrap().yaml();
        let backend = &config(&patched).services[0].backends[0];
        assert_eq!((backend.weight, backend.drain), (7, true));
    }

    /// Whoever adds a field that holds a secret is told here to declare it as one.
    #[test]
    fn no_field_that_sounds_like_a_secret_is_an_ordinary_text() {
        fn walk(shape: &Shape, path: &str, found: &mut Vec<String>) {
            match shape {
                Shape::List(item) => walk(item, path, found),
                Shape::Section { fields, .. } => {
                    for field in fields() {
                        let path = format!("{path}.{}", field.name);
                        if let Shape::Text { kind, .. } = &field.shape {
                            let name = field.name;
                            let sounds = ["secret", "password", "passphrase", "token", "seed", "credential"];
                            let sounds = sounds.iter().any(|word| name.contains(word))
                                || field.doc.trim_start().to_ascii_lowercase().starts_with("secret");
                            let names_a_file = name.ends_with("_file");
                            if sounds && !names_a_file && *kind != SECRET {
                                found.push(path.clone());
                            }
                        }
                        walk(&field.shape, &path, found);
                    }
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        walk(&Root::shape(), "", &mut found);
        assert_eq!(found, [""; 0], "declare them as `Secret` in the schema");
    }
}
