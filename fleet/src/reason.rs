//! Why something is not in force, in a line: for statuses, heartbeats and votes.

use ringway_config::{Diagnostics, Severity};
use ringway_proxy::ReloadError;

/// Why a configuration is not in force, in a line.
pub(crate) fn reason(error: &ReloadError) -> String {
    match error {
        ReloadError::Invalid(diagnostics) => first_error(diagnostics),
        other => first_line(&other.to_string()),
    }
}

/// The findings stand in the order of the file: what comes first may be a warning, and no reason.
pub(crate) fn first_error(diagnostics: &Diagnostics) -> String {
    let error = diagnostics.0.iter().find(|finding| finding.severity == Severity::Error);
    first_line(&error.or(diagnostics.0.first()).map(ToString::to_string).unwrap_or_default())
}

fn first_line(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match lines.next().map(str::trim) {
        Some(place) if place.starts_with("-->") => format!("{first} {place}"),
        _ => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_config::FleetConfig;

    #[test]
    fn the_reason_is_the_first_error_and_no_warning() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("proxy.yaml");
        let text = "control: { members: [ \"http://127.0.0.1:1\" ], directory: d }\n\
                    listeners:\n\
                    \x20 - { name: a, address: \"127.0.0.1:0\", service: later }\n\
                    \x20 - { name: b, address: nowhere, service: later }\n";
        std::fs::write(&file, text).unwrap();
        let found = ringway_config::load_file_with(&file, &FleetConfig::default()).unwrap_err();
        assert_eq!(found.0[0].severity, Severity::Warning, "{found}");
        let told = first_error(&found);
        assert!(told.starts_with("error[") && told.contains(":4:"), "{told}");
        assert_eq!(reason(&ReloadError::Invalid(found)), told);
    }
}
