//! Changes of objects, all or none, and why one does not hold.

use super::code::Code;
use super::model::{BackendState, Key, Object, RULES_TWO_ADDRESSES};
use serde::{Deserialize, Serialize};

/// Who asks, when, why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Author {
    /// Unix milliseconds, by the proposer's clock: only shown, never compared.
    pub at_ms: u64,
    /// Token, certificate or address.
    pub author: String,
    /// In the author's words.
    pub note: String,
}

/// Changes of objects, all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// Who, when, why.
    pub by: Author,
    /// A name of the request: asked again, it gets the first answer.
    pub request: Option<String>,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// In this order.
    pub ops: Vec<Op>,
    /// The guards against accidents are off.
    pub force: bool,
}

impl Txn {
    /// See [`super::Command::rules`].
    pub(super) fn rules(&self) -> u32 {
        let has_two = |op: &Op| matches!(op, Op::Put { object: Object::Backend(backend), .. } if backend.additional_address.is_some());
        if self.ops.iter().any(has_two) { RULES_TWO_ADDRESSES } else { 0 }
    }
}

/// What must be so for a transaction to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The object.
    pub key: Key,
    /// The revision that changed it last; 0: it is not there.
    pub modified: u64,
}

/// A change of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// Makes or replaces it.
    Put {
        /// Which.
        key: Key,
        /// As it is to be.
        object: Object,
    },
    /// Removes it; it must be there.
    Delete {
        /// Which.
        key: Key,
    },
    /// Changes a backend in part; it must be there.
    Backend {
        /// Which.
        key: Key,
        /// `None`: as it is.
        #[serde(default)]
        weight: Option<u32>,
        /// `None`: as it is.
        #[serde(default)]
        state: Option<BackendState>,
    },
}

impl Op {
    /// The object that it changes.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::Backend { key, .. } => key,
        }
    }
}

/// It does not; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// See [`Code`]; a later version may have others.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// The findings, where it is a configuration that is wrong: as `ringway check` prints them.
    pub findings: Vec<String>,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code.name().to_owned(), message: message.into(), findings: Vec::new() }
    }

    /// Whether this is why.
    pub(crate) fn is(&self, code: Code) -> bool {
        self.code == code.name()
    }
}
