//! The outcome of a change: what is in force now, or why it was refused; and the last one, as the status shows it.

use crate::ambient;
use crate::net::tls::TlsError;
use crate::snapshot::SnapshotError;
use ringway_config::{Diagnostics, Diff};
use ringway_ring::Movement;
use serde_json::{Value, json};
use std::time::UNIX_EPOCH;
use thiserror::Error;

/// A configuration that is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Its number.
    pub generation: u64,
    /// What it changed; empty if it was in force already.
    pub diff: Diff,
    /// What moved of each changed service's key space.
    pub moved: Vec<(String, Movement)>,
    /// Fields that the file has otherwise, and what was changed at run time that stands instead.
    pub overridden: Vec<String>,
    /// What is unlikely to be meant by it.
    pub warnings: Vec<String>,
}

/// Why a configuration is not applied. Nothing has changed.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error("{0}")]
    Invalid(Diagnostics),
    /// A ring cannot be built.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Addresses of listeners cannot be bound.
    #[error("{0}")]
    Bind(Diagnostics),
    /// The access log cannot be opened.
    #[error("open the access log {target}: {source}")]
    AccessLog {
        /// The file.
        target: String,
        /// Why.
        source: std::io::Error,
    },
    /// The collector of traces cannot be spoken to.
    #[error("TLS to the collector of traces, {endpoint}: {source}")]
    Tracing {
        /// Its URL.
        endpoint: String,
        /// Why.
        source: TlsError,
    },
    /// There is no thread for traces.
    #[error("start the exporter of traces: {0}")]
    Exporter(std::io::Error),
    /// This proxy was not started from a file.
    #[error("this proxy has no configuration file to reload")]
    NoFile,
    /// The proxy is ending.
    #[error("the proxy is draining")]
    Draining,
}

/// How a reload ended: the label of its metric, and the word of the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReloadResult {
    Applied,
    Unchanged,
    Refused,
}

impl ReloadResult {
    pub(crate) const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    pub(super) fn of(outcome: &Result<Applied, ReloadError>) -> Self {
        match outcome {
            Ok(applied) if applied.diff.is_empty() => Self::Unchanged,
            Ok(_) => Self::Applied,
            Err(_) => Self::Refused,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// The outcome of the last reload, as the status and the reload's own response show it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastReload {
    result: Option<ReloadResult>,
    json: Value,
}

impl LastReload {
    pub(super) fn new(outcome: &Result<Applied, ReloadError>) -> Self {
        let result = ReloadResult::of(outcome);
        let at = ambient::time_of_day().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut json = json!({ "result": result.name(), "unix_seconds": at });
        match outcome {
            Ok(applied) => {
                json["generation"] = json!(applied.generation);
                json["changes"] = json!(applied.diff.changes);
                json["needs_restart"] = json!(applied.diff.needs_restart);
                json["overridden"] = json!(applied.overridden);
                json["moved"] = applied
                    .moved
                    .iter()
                    .map(|(service, movement)| json!({ "service": service, "percent": movement.moved * 100.0 }))
                    .collect();
            }
            Err(error) => {
                json["error"] = json!(error.to_string());
                if let ReloadError::Invalid(diagnostics) | ReloadError::Bind(diagnostics) = error {
                    json["diagnostics"] = json!(diagnostics);
                }
            }
        }
        Self { result: Some(result), json }
    }

    /// Takes the newest outcome in. That nothing has changed does not hide the change before, but it ends a refusal; nor is it hidden
    /// itself where that is because what was changed at run time stands.
    pub(super) fn handle(&mut self, newest: &Self) {
        let stands = newest.json["overridden"].as_array().is_some_and(|lines| !lines.is_empty());
        let hides_nothing = newest.result == Some(ReloadResult::Unchanged) && !stands;
        if !hides_nothing || self.result != Some(ReloadResult::Applied) {
            *self = newest.clone();
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.result == Some(ReloadResult::Refused)
    }

    pub(crate) fn json(&self) -> &Value {
        &self.json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(changes: &[&str]) -> Result<Applied, ReloadError> {
        let changes = changes.iter().map(|&change| change.into()).collect();
        Ok(Applied {
            generation: 7,
            diff: Diff { changes, ..Diff::default() },
            moved: Vec::new(),
            overridden: Vec::new(),
            warnings: Vec::new(),
        })
    }

    #[test]
    fn an_unchanged_configuration_hides_no_change_and_ends_a_refusal() {
        let results = |outcomes: &[&Result<Applied, ReloadError>]| {
            let mut last = LastReload::default();
            outcomes.iter().for_each(|outcome| last.handle(&LastReload::new(outcome)));
            last.json()["result"].clone()
        };
        let (changed, unchanged, refused) = (applied(&["a listener"]), applied(&[]), Err(ReloadError::NoFile));
        assert_eq!(results(&[]), Value::Null);
        assert_eq!(results(&[&unchanged]), "unchanged");
        assert_eq!(results(&[&changed, &unchanged]), "applied");
        assert_eq!(results(&[&changed, &refused]), "refused");
        assert_eq!(results(&[&changed, &refused, &unchanged]), "unchanged");
        assert_eq!(results(&[&refused, &changed]), "applied");
    }

    #[test]
    fn a_refusal_shows_its_findings() {
        let found = ringway_config::load_str("f.yaml", "listeners: 3\n", &|_| None).unwrap_err();
        let last = LastReload::new(&Err(ReloadError::Invalid(found)));
        assert_eq!(last.json()["result"], "refused");
        assert!(last.json()["diagnostics"][0]["line"].is_u64(), "{}", last.json());
        assert!(last.json()["error"].is_string());
    }
}
