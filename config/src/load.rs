//! Texts in, a checked configuration out: of a file, of a file and a fleet's texts, of these alone.

use crate::decode::{self, Decode};
use crate::diagnostic::{self, Diagnostic, Diagnostics, Severity};
use crate::effective::Origin;
use crate::env::{self, Lookup};
use crate::files::Named;
use crate::findings::Findings;
use crate::fleet::{self, FleetBackend, FleetConfig};
use crate::limits::{self, Pipes};
use crate::{check, model, node, schema};
use std::collections::HashSet;
use std::sync::Arc;

/// What stands in place of a proxy's file where there is none.
const FLEET_ALONE: &str = "control: {}";

/// A valid file.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What it says.
    pub config: model::Config,
    /// What it says that is unlikely to be meant.
    pub warnings: Vec<Diagnostic>,
    /// Files that it names, beside those that are a part of it and have been read. Nobody has looked at them yet.
    pub files: Vec<Named>,
    /// What it was read from.
    pub origin: Origin,
}

/// Reads a file's text. `environment` answers `${NAME}`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_str(file: &str, text: &str, environment: Lookup<'_>) -> Result<Loaded, Diagnostics> {
    load_text(diagnostic::Text::new(file, text), environment, Findings::default())
}

fn load_text(
    text: diagnostic::Text<'_>,
    environment: Lookup<'_>,
    mut findings: Findings,
) -> Result<Loaded, Diagnostics> {
    let config = read(text.text, environment, &mut findings).and_then(|root| model(&root, &mut findings));
    finish(config, findings, &[text])
}

/// What came of it: places named, in the order of the texts.
fn finish(
    config: Option<model::Config>,
    findings: Findings,
    texts: &[diagnostic::Text<'_>],
) -> Result<Loaded, Diagnostics> {
    let mut files = findings.files;
    files.iter_mut().for_each(|file| file.locate(texts));
    let mut list = findings.list;
    // What stands for a variable that could not be replaced is not wrong in itself.
    let is_variable = |finding: &Diagnostic| matches!(finding.code, "bad_variable" | "unset_variable");
    let place = |finding: &Diagnostic| (finding.text, finding.line, finding.column);
    let unreplaced: HashSet<_> = list.iter().filter(|finding| is_variable(finding)).map(place).collect();
    list.retain(|finding| is_variable(finding) || !unreplaced.contains(&place(finding)));
    list.sort_by_key(|finding| (finding.text, finding.line, finding.column));
    list.dedup();
    limits::cut(&mut list);
    list.iter_mut().for_each(|finding| finding.locate(texts));
    match config {
        Some(mut config) if !list.iter().any(|finding| finding.severity == Severity::Error) => {
            config.sites().for_each(|site| site.locate(texts));
            let origin = Origin::new(texts.first().map_or("", |text| text.text));
            Ok(Loaded { config, warnings: list, files, origin })
        }
        _ => Err(Diagnostics(list)),
    }
}

/// The file's tree, variables replaced.
fn read(text: &str, environment: Lookup<'_>, findings: &mut Findings) -> Option<node::Node> {
    let mut root = match node::parse(text) {
        Ok(root) => root,
        Err(finding) => {
            findings.list.push(*finding);
            return None;
        }
    };
    if root.value == node::Value::Null {
        let first = diagnostic::Place { line: 1, column: 1, width: 1, text: 0 };
        findings.error(first, "empty_file", "the file is empty", "begin with `listeners:` and `services:`");
        return None;
    }
    env::substitute(&mut root, environment, findings);
    fleet::check_references(&root, root.entry("control").is_some(), findings);
    Some(root)
}

fn model(root: &node::Node, findings: &mut Findings) -> Option<model::Config> {
    let build = |root: &node::Node, findings: &mut Findings| {
        let root = schema::Root::decode(root, findings)?;
        check::check(&root, findings)
    };
    let mut tried = Findings { detached: findings.detached, ..Findings::default() };
    let built = build(root, &mut tried);
    // The fleet's own texts must be whole.
    tried.dangling.retain(|(place, _)| place.text == 0);
    if tried.dangling.is_empty() || root.entry("control").is_none() {
        findings.list.append(&mut tried.list);
        findings.files.append(&mut tried.files);
        return built;
    }
    // A file may refer to what the fleet has not said yet, or not any more: until it does, that is a service without
    // backends.
    let mut root = root.clone();
    fleet::await_services(&mut root, &tried.dangling, findings);
    build(&root, findings)
}

/// Reads a file, or a pipe to its end, with the process's environment.
///
/// # Errors
/// As [`load_str`]; a file that cannot be read is one finding without a place.
pub fn load_file(path: &std::path::Path) -> Result<Loaded, Diagnostics> {
    load_str(&path.display().to_string(), &read_file(path, Pipes::Read)?, &|name| std::env::var(name).ok())
}

/// As [`load_file`], of a file that is read time and again: a pipe is refused at once.
///
/// # Errors
/// As [`load_file`].
pub fn load_file_again(path: &std::path::Path) -> Result<Loaded, Diagnostics> {
    load_str(&path.display().to_string(), &read_file(path, Pipes::Refused)?, &|name| std::env::var(name).ok())
}

/// As [`load_file`], without looking at any other file that it names: for a pipeline that has none of them.
///
/// # Errors
/// As [`load_file`].
pub fn load_file_alone(path: &std::path::Path) -> Result<Loaded, Diagnostics> {
    let findings = Findings { detached: true, ..Findings::default() };
    let (file, text) = (path.display().to_string(), read_file(path, Pipes::Read)?);
    load_text(diagnostic::Text::new(&file, &text), &|name| std::env::var(name).ok(), findings)
}

/// Reads a file, with the process's environment, and puts what the fleet has agreed on on top. The rules stand in
/// docs/control-plane.md: the fleet's listeners and services win over the file's of the same name, the file's other
/// sections win over the fleet's.
///
/// # Errors
/// As [`load_file_again`]; findings name the text they are in.
pub fn load_file_with(path: &std::path::Path, fleet: &FleetConfig) -> Result<Loaded, Diagnostics> {
    load_str_with(
        &path.display().to_string(),
        &read_file(path, Pipes::Refused)?,
        &|name| std::env::var(name).ok(),
        fleet,
    )
}

/// As [`load_file_with`], of a text.
///
/// # Errors
/// As [`load_file_with`].
pub fn load_str_with(
    file: &str,
    text: &str,
    environment: Lookup<'_>,
    fleet: &FleetConfig,
) -> Result<Loaded, Diagnostics> {
    let mut loaded = join(diagnostic::Text::new(file, text), environment, fleet, Findings::default()).0?;
    loaded.origin = loaded.origin.with(&Arc::new(fleet.clone()));
    Ok(loaded)
}

/// What comes of it, and which services have backends that are both written and registered.
pub(crate) fn join(
    text: diagnostic::Text<'_>,
    environment: Lookup<'_>,
    fleet: &FleetConfig,
    mut findings: Findings,
) -> (Result<Loaded, Diagnostics>, HashSet<String>) {
    let root = read(text.text, environment, &mut findings).map(|mut root| {
        fleet::merge(&mut root, fleet, &mut findings);
        root
    });
    let config = root.and_then(|root| model(&root, &mut findings));
    let names: Vec<String> = fleet.texts().map(|text| text.name.clone()).collect();
    let fleet_texts = names.iter().zip(fleet.texts()).map(|(name, text)| diagnostic::Text::new(name, &text.text));
    let texts: Vec<diagnostic::Text<'_>> =
        std::iter::once(diagnostic::Text::new(text.file, text.text)).chain(fleet_texts).collect();
    let entangled = std::mem::take(&mut findings.entangled);
    (finish(config, findings, &texts), entangled)
}

/// Checks what a fleet is to agree on, without any proxy's file, and without looking at any other file that it names: whoever
/// checks the same texts comes to the same end. Files that error responses are read from count as empty.
///
/// # Errors
/// As [`load_file_with`].
pub fn check_fleet(fleet: &FleetConfig) -> Result<Loaded, Diagnostics> {
    let findings = Findings { detached: true, ..Findings::default() };
    join(diagnostic::Text::new("control plane", FLEET_ALONE), &|_| None, fleet, findings).0
}

/// As [`check_fleet`]; keeps the texts, for whoever asks which fields change.
///
/// # Errors
/// As [`check_fleet`].
pub fn check_fleet_with_origin(fleet: FleetConfig) -> Result<Loaded, Diagnostics> {
    let mut loaded = check_fleet(&fleet)?;
    loaded.origin = Origin::new(FLEET_ALONE).with(&Arc::new(fleet));
    Ok(loaded)
}

/// Reads a file of a directory source: a list of backends.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_backends(path: &std::path::Path) -> Result<Vec<FleetBackend>, Diagnostics> {
    let text = read_file(path, Pipes::Refused)?;
    let name = path.display().to_string();
    let mut findings = Findings::default();
    let backends = match node::parse(&text) {
        Ok(tree) => decode::List::<schema::FileBackendSection>::decode(&tree, &mut findings)
            .map(|list| check::file_backends(&list, &mut findings))
            .unwrap_or_default(),
        Err(finding) => {
            findings.list.push(*finding);
            Vec::new()
        }
    };
    if findings.has_errors() {
        limits::cut(&mut findings.list);
        let texts = [diagnostic::Text::new(&name, &text)];
        findings.list.iter_mut().for_each(|finding| finding.locate(&texts));
        return Err(Diagnostics(findings.list));
    }
    Ok(backends)
}

pub(crate) fn read_file(path: &std::path::Path, pipes: Pipes) -> Result<String, Diagnostics> {
    limits::read(path, pipes).map_err(|mut finding| {
        finding.locate(&[diagnostic::Text::new(&path.display().to_string(), "")]);
        Diagnostics(vec![*finding])
    })
}
