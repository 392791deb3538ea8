//! Why a member said no.

use crate::Code;
use ringway_config::plain;
use serde::{Deserialize, Serialize};

/// Why a member said no. Source: RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The answer's status.
    pub status: u16,
    /// See [`Code`]; a later version may have others.
    pub code: String,
    /// What is wrong, and what to do.
    pub detail: String,
    /// The findings, where a configuration is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

impl Problem {
    /// For a refusal.
    #[must_use]
    pub fn new(status: u16, code: Code, detail: impl Into<String>) -> Self {
        Self { status, code: code.name().to_owned(), detail: detail.into(), findings: Vec::new() }
    }

    /// Whether this is why.
    #[must_use]
    pub fn is(&self, code: Code) -> bool {
        self.code == code.name()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", plain::line(&self.detail), plain::line(&self.code))?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n\n{}", plain::lines(finding)))
    }
}
