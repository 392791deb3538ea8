//! What a fleet has agreed on, put on top of a proxy's own file. Done on the trees, before anything is checked: the result
//! is checked as one file would be, by the same code, and findings name the text that they are in.
//!
//! Rules (docs/control-plane.md): lists of listeners and services are joined, the fleet's entry winning over the file's of
//! the same name; a registered backend joins the service that it names, winning over a written one of the same id; any
//! other section is the file's where the file has it, and the fleet's otherwise.

use crate::diagnostic::Place;
use crate::env;
use crate::files::REFERENCE;
use crate::findings::Findings;
use crate::node::{self, Node, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A text of the fleet's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetText {
    /// What findings call it.
    pub name: String,
    /// YAML.
    pub text: String,
}

/// What a fleet has agreed on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetConfig {
    /// A configuration as a file would say it, without `control`.
    pub documents: Vec<FleetText>,
    /// Services: name, and an entry of `services`, in which the name may be left out.
    pub services: Vec<(String, FleetText)>,
    /// Backends that have been registered.
    pub backends: Vec<FleetBackend>,
    /// Where the certificates stand that `control:NAME` refers to: certificate and key.
    pub certificates: BTreeMap<String, (PathBuf, PathBuf)>,
}

/// A backend that has been registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetBackend {
    /// The service that it is one of.
    pub service: String,
    /// Stable identity.
    pub id: String,
    /// IP address and port.
    pub address: String,
    /// The same, of the other family.
    pub additional_address: Option<String>,
    /// 100 is normal.
    pub weight: u32,
    /// 0 takes the traffic, higher ones are backups.
    pub tier: u8,
    /// The zone that it stands in.
    pub zone: Option<String>,
    /// Takes no new keys.
    pub drain: bool,
    /// Nobody stays on it either: it is being worked on, or the fleet has found it ill.
    pub maintenance: bool,
}

impl FleetConfig {
    /// Whether nothing differs but backends that are registered.
    #[must_use]
    pub fn has_texts_of(&self, other: &Self) -> bool {
        let Self { documents, services, backends: _, certificates } = self;
        (documents, services, certificates) == (&other.documents, &other.services, &other.certificates)
    }

    /// The name of the text that says what a service is: the first that does.
    pub(crate) fn text_of(&self, service: &str) -> Option<&str> {
        let says = |text: &&FleetText| {
            let tree = node::parse(&text.text).ok();
            let list = tree.as_ref().and_then(|tree| tree.entry("services")).map(|list| &list.value);
            let Some(Value::List(list)) = list else { return false };
            list.iter().any(|item| item.entry("name").and_then(Node::text) == Some(service))
        };
        let document = self.documents.iter().find(says);
        let own = self.services.iter().find(|(name, _)| name == service).map(|(_, text)| text);
        document.or(own).map(|text| text.name.as_str())
    }

    /// Its texts, in the order in which places count them, from 1.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &FleetText> {
        self.documents.iter().chain(self.services.iter().map(|(_, text)| text))
    }
}

/// Puts the fleet's part into a file's tree.
pub(crate) fn merge(root: &mut Node, fleet: &FleetConfig, findings: &mut Findings) {
    let Value::Map(entries) = &mut root.value else { return };
    entries.iter_mut().filter(|entry| entry.0 != "control").for_each(|(_, _, value)| refer(value, fleet, findings));
    for list in ["listeners", "services"] {
        if !entries.iter().any(|entry| entry.0 == list) {
            entries.push((list.to_owned(), root.place, Node::new(Value::List(Vec::new()), root.place)));
        }
    }
    for (index, text) in fleet.texts().enumerate() {
        let Some(mut tree) = parse(text, index + 1, findings) else { continue };
        check_references(&tree, true, findings);
        refer(&mut tree, fleet, findings);
        if index < fleet.documents.len() {
            document(root, tree, findings);
        } else {
            let name = &fleet.services[index - fleet.documents.len()].0;
            call(&mut tree, name, findings);
            join(root, "services", vec![tree], findings);
        }
    }
    register(root, &fleet.backends, findings);
}

fn parse(text: &FleetText, number: usize, findings: &mut Findings) -> Option<Node> {
    match node::parse(&text.text) {
        Ok(mut tree) => {
            tree.set_text(number);
            // A fleet agrees on values: what differs from machine to machine belongs into the machine's file.
            let mut found = Findings::default();
            env::substitute(&mut tree, &|_| None, &mut found);
            for mut finding in found.list {
                finding.message = format!("{}: the fleet's texts have no variables", finding.message);
                finding.help = Some("write the value, or move the section into the proxies' own files".to_owned());
                findings.list.push(finding);
            }
            Some(tree)
        }
        Err(mut finding) => {
            finding.text = number;
            findings.list.push(*finding);
            None
        }
    }
}

/// A text that may also be only a part of a configuration.
fn document(root: &mut Node, tree: Node, findings: &mut Findings) {
    let place = tree.place;
    let entries = match tree.value {
        Value::Map(entries) => entries,
        Value::Null => return,
        other => {
            let message = format!("expected a configuration (a mapping), found {}", other.kind());
            findings.error(place, "wrong_type", message, "begin with `listeners:` or `services:`");
            return;
        }
    };
    for (name, at, value) in entries {
        match name.as_str() {
            "listeners" | "services" => match value.value {
                Value::List(items) => join(root, &name, items, findings),
                Value::Null => {}
                other => {
                    let message = format!("expected a list, found {}", other.kind());
                    findings.error(value.place, "wrong_type", message, "for example `[ ... ]`");
                }
            },
            "control" => findings.error(
                at,
                "control_in_fleet",
                "`control` says how a proxy finds the control plane: it cannot come from there",
                "move it into the proxies' own files",
            ),
            _ => {
                let Value::Map(own) = &mut root.value else { return };
                if !own.iter().any(|entry| entry.0 == name) {
                    own.push((name, at, value));
                }
            }
        }
    }
}

/// A service that stands under a name has that name.
fn call(tree: &mut Node, name: &str, findings: &mut Findings) {
    let place = tree.place;
    if let Some(written) = tree.entry("name") {
        if written.text() != Some(name) {
            let message = format!("the service stands under {name:?}, and has another name");
            findings.error(written.place, "wrong_name", message, format!("write `name: {name}`, or leave it out"));
        }
    } else if let Value::Map(entries) = &mut tree.value {
        entries.push(("name".into(), place, Node::new(Value::Text(name.to_owned()), place)));
    }
}

/// Entries of a list, by name: the later wins over what the file says, never over what the fleet said before.
fn join(root: &mut Node, list: &str, items: Vec<Node>, findings: &mut Findings) {
    let Some(Node { value: Value::List(own), .. }) = root.entry_mut(list) else { return };
    for item in items {
        let name = item.entry("name").and_then(Node::text).map(str::to_owned);
        let same = name
            .as_deref()
            .and_then(|name| own.iter().position(|known| known.entry("name").and_then(Node::text) == Some(name)));
        match same {
            // Two of the fleet's: both stay, and the check refuses them as it would in a file.
            Some(index) if own[index].place.text == 0 => {
                let message = format!(
                    "the fleet has a {} {:?} too: the fleet's is in force",
                    &list[..list.len() - 1],
                    name.unwrap_or_default()
                );
                findings.warning(own[index].place, "fleet_wins", message, "remove it here, or rename it");
                own[index] = item;
            }
            _ => own.push(item),
        }
    }
}

/// Services that are referred to and nowhere, without backends.
pub(crate) fn await_services(root: &mut Node, wanted: &[(Place, String)], findings: &mut Findings) {
    let place = root.place;
    if root.entry("services").is_none_or(|list| list.value == Value::Null)
        && let Value::Map(entries) = &mut root.value
    {
        entries.retain(|entry| entry.0 != "services");
        entries.push(("services".into(), place, Node::new(Value::List(Vec::new()), place)));
    }
    let Some(Node { value: Value::List(services), .. }) = root.entry_mut("services") else { return };
    let mut known: Vec<&str> = Vec::new();
    for (at, name) in wanted {
        if known.contains(&name.as_str()) {
            continue;
        }
        known.push(name);
        findings.entangled.insert(name.clone());
        let message =
            format!("service {name:?} is not here yet: until the fleet has it, its requests are answered 503");
        findings.warning(*at, "awaited_service", message, "check its name, if the fleet has it under another");
        let text = Node::new(Value::Text(name.clone()), *at);
        let value = Value::Map(vec![("name".into(), *at, text)]);
        services.push(Node::new(value, *at));
    }
}

/// Backends into their services.
fn register(root: &mut Node, backends: &[FleetBackend], findings: &mut Findings) {
    let mut of: BTreeMap<&str, Vec<&FleetBackend>> = BTreeMap::new();
    for backend in backends {
        of.entry(&backend.service).or_default().push(backend);
    }
    let Some(Node { value: Value::List(services), .. }) = root.entry_mut("services") else { return };
    for service in services {
        let Some(mut registered) = service.entry("name").and_then(Node::text).and_then(|name| of.remove(name)) else {
            continue;
        };
        let place = service.place;
        if service.entry("backends").is_none_or(|list| list.value == Value::Null)
            && let Value::Map(entries) = &mut service.value
        {
            entries.retain(|entry| entry.0 != "backends");
            entries.push(("backends".into(), place, Node::new(Value::List(Vec::new()), place)));
        }
        let Some(Node { value: Value::List(list), .. }) = service.entry_mut("backends") else { continue };
        let ids: BTreeMap<String, usize> = list
            .iter()
            .enumerate()
            .filter_map(|(index, known)| known.entry("id").and_then(Node::text).map(|id| (id.to_owned(), index)))
            .collect();
        registered.sort_by(|a, b| a.id.cmp(&b.id));
        for backend in registered {
            match ids.get(&backend.id) {
                Some(&index) => {
                    findings.entangled.insert(backend.service.clone());
                    overlay(&mut list[index], backend);
                }
                None => {
                    let mut node = Node::new(Value::Map(Vec::new()), place);
                    overlay(&mut node, backend);
                    list.push(node);
                }
            }
        }
    }
    for (service, registered) in of {
        findings.warning(
            Place::default(),
            "unknown_service",
            format!("{} backends are registered for service {service:?}, which is nowhere", registered.len()),
            "add the service, or deregister them",
        );
    }
}

/// A backend that is registered and written nowhere.
pub(crate) fn registered(backend: &FleetBackend) -> Node {
    let mut node = Node::new(Value::Map(Vec::new()), Place::default());
    overlay(&mut node, backend);
    node
}

/// What is registered wins; what only a file can say (limits) stays.
fn overlay(node: &mut Node, backend: &FleetBackend) {
    let place = node.place;
    let Value::Map(entries) = &mut node.value else { return };
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    // The second address that a file may know is no second one of what is registered.
    entries.retain(|entry| entry.0 != "additional_address");
    let fields = [
        ("id", text(&backend.id)),
        ("address", text(&backend.address)),
        ("additional_address", backend.additional_address.as_deref().and_then(text)),
        ("weight", Some(Value::Integer(backend.weight.into()))),
        ("tier", Some(Value::Integer(backend.tier.into()))),
        ("drain", Some(Value::Bool(backend.drain))),
        ("maintenance", Some(Value::Bool(backend.maintenance))),
        ("zone", backend.zone.as_deref().and_then(text)),
    ];
    for (name, value) in fields {
        let Some(value) = value else { continue };
        entries.retain(|entry| entry.0 != name);
        entries.push((name.to_owned(), place, Node::new(value, place)));
    }
}

/// Finds `control:NAME` where it cannot stand: for other things than certificates and keys, in what says how the control plane is
/// found, and in a file that knows of none.
pub(crate) fn check_references(root: &Node, has_control: bool, findings: &mut Findings) {
    let Value::Map(entries) = &root.value else { return };
    for (name, _, value) in entries {
        let no_place = match name.as_str() {
            "control" => Some("it says how the control plane is found, which must be known before"),
            _ if !has_control => Some("this file has no section `control`"),
            _ => None,
        };
        check_reference(value, name, no_place, findings);
    }
}

fn check_reference(node: &Node, name: &str, no_place: Option<&str>, findings: &mut Findings) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| check_reference(item, name, no_place, findings)),
        Value::Map(entries) => {
            entries.iter().for_each(|(name, _, value)| check_reference(value, name, no_place, findings));
        }
        Value::Text(text) if text.starts_with(REFERENCE) => {
            let why = match name {
                "certificate" | "key" => no_place,
                "ca" | "ocsp" => Some("the control plane keeps certificates and their keys, nothing else"),
                _ => None,
            };
            if let Some(why) = why {
                let message = format!("`{text}` would be of the control plane's, and cannot stand here: {why}");
                findings.error(node.place, "bad_reference", message, "write the path of a file");
            }
        }
        _ => {}
    }
}

/// `control:NAME` where a certificate's or a key's path would stand.
fn refer(node: &mut Node, fleet: &FleetConfig, findings: &mut Findings) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| refer(item, fleet, findings)),
        Value::Map(entries) => {
            for (name, _, value) in entries {
                let reference = value.text().and_then(|text| text.strip_prefix(REFERENCE)).map(str::to_owned);
                let Some(wanted) = reference.filter(|_| matches!(name.as_str(), "certificate" | "key")) else {
                    refer(value, fleet, findings);
                    continue;
                };
                match fleet.certificates.get(&wanted) {
                    Some((certificate, key)) => {
                        let path = if name == "key" { key } else { certificate };
                        value.value = Value::Text(path.display().to_string());
                    }
                    None => findings.error(
                        value.place,
                        "unknown_certificate",
                        format!("the control plane has no certificate {wanted:?}"),
                        match crate::diagnostic::closest(&wanted, fleet.certificates.keys().map(String::as_str)) {
                            Some(known) => format!("write `{REFERENCE}{known}`"),
                            None => "put it there first: `ringway control certificate put`".to_owned(),
                        },
                    ),
                }
            }
        }
        _ => {}
    }
}
