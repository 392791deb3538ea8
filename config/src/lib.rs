//! The configuration file: schema, validated model, diagnostics, diff.
//!
//! text -> tree with places (`node`) -> variables (`env`) -> sections (`decode`, `schema`) -> [`model`] (`check`).
//! Everything that is wrong is told at once, each with its place and what to write instead.

mod check;
mod decode;
mod diagnostic;
mod diff;
mod env;
pub mod model;
mod node;
mod reference;
mod schema;

use decode::{Decode, Findings};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use diff::{Diff, diff};
pub use env::Lookup;
pub use reference::{json_schema, reference};

/// A valid file.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What it says.
    pub config: model::Config,
    /// What it says that is unlikely to be meant.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a file's text. `environment` answers `${NAME}`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_str(file: &str, text: &str, environment: Lookup<'_>) -> Result<Loaded, Diagnostics> {
    let mut findings = Findings::default();
    let config = read(text, environment, &mut findings);
    let mut list = findings.list;
    list.sort_by_key(|finding| (finding.line, finding.column));
    list.dedup();
    list.iter_mut().for_each(|finding| finding.locate(file, text));
    match config {
        Some(config) if !list.iter().any(|finding| finding.severity == Severity::Error) => {
            Ok(Loaded { config, warnings: list })
        }
        _ => Err(Diagnostics(list)),
    }
}

fn read(text: &str, environment: Lookup<'_>, findings: &mut Findings) -> Option<model::Config> {
    let mut root = match node::parse(text) {
        Ok(root) => root,
        Err(finding) => {
            findings.list.push(*finding);
            return None;
        }
    };
    if root.value == node::Value::Null {
        let first = diagnostic::Place { line: 1, column: 1, width: 1 };
        findings.error(first, "empty_file", "the file is empty", "begin with `listeners:` and `services:`");
        return None;
    }
    env::substitute(&mut root, environment, findings);
    let root = schema::Root::decode(&root, findings)?;
    check::check(&root, findings)
}

/// Reads a file, with the process's environment.
///
/// # Errors
/// As [`load_str`]; a file that cannot be read is one finding without a place.
pub fn load_file(path: &std::path::Path) -> Result<Loaded, Diagnostics> {
    let file = path.display().to_string();
    let refuse = |code, message: String, help: &str| {
        let mut finding =
            Diagnostic::new(Severity::Error, code, diagnostic::Place::default(), message, Some(help.to_owned()));
        finding.locate(&file, "");
        Diagnostics(vec![finding])
    };
    let bytes = std::fs::read(path).map_err(|error| {
        refuse("unreadable_file", format!("cannot read the file: {error}"), "check its path and permissions")
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        refuse("not_utf8", format!("the file is not UTF-8: {}", error.utf8_error()), "save it as UTF-8")
    })?;
    load_str(&file, &text, &|name| std::env::var(name).ok())
}
