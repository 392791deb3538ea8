//! Files that a configuration names: which they are, what for, and where it says so. Whoever reads them tells what is wrong
//! at the place of the field that names them.

use crate::diagnostic::{At, Diagnostic, Severity, Text};
use std::path::{Path, PathBuf};

/// What stands before a certificate's name where a path to a file would stand.
pub(crate) const REFERENCE: &str = "control:";

/// A path in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// What it says.
    pub path: PathBuf,
    spot: Diagnostic,
}

/// What a file is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileUse {
    /// A certificate that is shown, and its private key.
    Pair {
        /// PEM.
        certificate: NamedFile,
        /// PEM.
        key: NamedFile,
    },
    /// Authorities that others' certificates are checked by.
    Authorities(NamedFile),
    /// An OCSP response.
    Ocsp(NamedFile),
    /// A token or a password.
    Secret(NamedFile),
    /// A bearer token: nobody but the one who has it can guess it.
    Token(NamedFile),
    /// A log that is appended to.
    Log(NamedFile),
    /// Another configuration.
    Shadow(NamedFile),
    /// A Unix socket that is made, and listened at.
    Socket(NamedFile),
}

/// When a file is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A proxy cannot serve this configuration without it.
    Serving,
    /// The control plane, a member or a proxy of it, needs it when it starts.
    Control,
    /// A process cannot start without it, and what has started has it.
    Start,
}

/// A file, its use and its need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What it is for.
    pub used: FileUse,
    /// When it is needed.
    pub need: Need,
}

impl NamedFile {
    pub(crate) fn new(at: &At<String>) -> Self {
        let spot = Diagnostic::new(Severity::Warning, "file", at.place, String::new(), None);
        Self { path: at.value.clone().into(), spot }
    }

    /// Something that is wrong with the file, told at the place of the field that names it.
    #[must_use]
    pub fn finding(&self, severity: Severity, code: &'static str, message: String, help: String) -> Diagnostic {
        let mut finding = self.spot.clone();
        (finding.severity, finding.code, finding.message, finding.help) = (severity, code, message, Some(help));
        finding
    }
}

impl AsRef<Path> for NamedFile {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Named {
    /// Fills in what only the texts know.
    pub(crate) fn locate(&mut self, texts: &[Text<'_>]) {
        match &mut self.used {
            FileUse::Pair { certificate, key } => {
                certificate.spot.locate(texts);
                key.spot.locate(texts);
            }
            FileUse::Authorities(file)
            | FileUse::Ocsp(file)
            | FileUse::Secret(file)
            | FileUse::Token(file)
            | FileUse::Log(file)
            | FileUse::Shadow(file)
            | FileUse::Socket(file) => file.spot.locate(texts),
        }
    }
}
