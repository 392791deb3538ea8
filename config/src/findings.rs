//! What is wrong, and what is named, as far as a text has been read: everything is gathered, nothing stops at the first error.

use crate::diagnostic::{At, Diagnostic, Place, Severity};
use crate::files::{FileUse, Named, NamedFile, Need, REFERENCE};
use crate::node::Node;
use std::collections::{HashMap, HashSet};

/// What has been found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) list: Vec<Diagnostic>,
    /// Services that something refers to, and that are nowhere.
    pub(crate) dangling: Vec<(Place, String)>,
    /// Nothing but the texts is looked at: what they mean must not depend on the disk of whoever checks them.
    pub(crate) detached: bool,
    /// Files that the configuration names.
    pub(crate) files: Vec<Named>,
    /// Services of which it depends on more than what is registered what comes of that: some of their backends are both written and
    /// registered, or they are nowhere yet.
    pub(crate) entangled: HashSet<String>,
    /// Sections of which a field could not be read, or is not known: what seems to be absent there may not be.
    pub(crate) lost: HashSet<Place>,
    pub(crate) helps: Helps,
}

/// The field that was meant by an unknown one, if there is one, and what to write instead.
pub(crate) type Help = (Option<String>, String);

/// What was said of unknown fields, by their section and name. Finding it out takes a look at the whole schema, and a program that writes
/// a wrong field writes it ten thousand times.
#[derive(Debug, Default)]
pub(crate) struct Helps(HashMap<(&'static str, String), Help>);

impl Helps {
    /// Those that are looked for: more than people read, whatever the file is.
    const MAX: usize = 2000;

    pub(crate) fn of(&mut self, section: &'static str, field: &str, find: impl FnOnce() -> Help) -> Help {
        let key = (section, field.to_owned());
        if let Some(known) = self.0.get(&key) {
            return known.clone();
        }
        if self.0.len() >= Self::MAX {
            return (None, "mend the first ones, which say what to write".to_owned());
        }
        self.0.entry(key).or_insert_with(find).clone()
    }
}

impl Findings {
    pub(crate) fn error(
        &mut self,
        place: Place,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        self.list.push(Diagnostic::new(Severity::Error, code, place, message.into(), help));
    }

    pub(crate) fn warning(
        &mut self,
        place: Place,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        self.list.push(Diagnostic::new(Severity::Warning, code, place, message.into(), help));
    }

    /// As [`Findings::error`], of something that a section lacks: not said where what is there could not be read.
    pub(crate) fn absent(
        &mut self,
        section: Place,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        if !self.is_lost(section) {
            self.error(section, code, message, help);
        }
    }

    /// Whether a field of the section could not be read.
    pub(crate) fn is_lost(&self, section: Place) -> bool {
        self.lost.contains(&section)
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.list.iter().any(|finding| finding.severity == Severity::Error)
    }

    pub(crate) fn wrong_type<T>(&mut self, node: &Node, wanted: &str, example: &str) -> Option<T> {
        let message = format!("expected {wanted}, found {}", node.value.kind());
        let help = format!("for example `{example}`");
        self.error(node.place, "wrong_type", message, help);
        None
    }

    fn names(&mut self, used: FileUse, need: Need) {
        self.files.push(Named { used, need });
    }

    pub(crate) fn names_pair(&mut self, certificate: &At<String>, key: &At<String>, need: Need) {
        // What the control plane has is no file yet.
        if [certificate, key].iter().any(|at| at.value.starts_with(REFERENCE)) {
            return;
        }
        let (certificate, key) = (NamedFile::new(certificate), NamedFile::new(key));
        self.names(FileUse::Pair { certificate, key }, need);
    }

    /// A file that may be absent.
    pub(crate) fn names_file(&mut self, at: Option<&At<String>>, used: fn(NamedFile) -> FileUse, need: Need) {
        if let Some(at) = at {
            self.names(used(NamedFile::new(at)), need);
        }
    }
}
