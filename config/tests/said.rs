//! All that a file means, as text: what `testdata/good` keeps.

use ringway_config::{Loaded, Lookup, load_str};
use std::fmt::Write as _;

/// What is warned of, the files that it names, and what it is taken for; or why it is refused. Of edges, what is said of them is all that
/// matters.
pub(crate) fn said(name: &str, text: &str, environment: Lookup<'_>) -> String {
    let Loaded { config, warnings, files, .. } = match load_str(name, text, environment) {
        Ok(loaded) => loaded,
        Err(found) => return format!("refused\n{found}\n"),
    };
    let mut out = String::new();
    for warning in warnings {
        let _ = writeln!(out, "{warning}\n");
    }
    let _ = writeln!(out, "awaits {:?}\n", config.awaited_certificate());
    for path in config.files() {
        let _ = writeln!(out, "reads {}", path.display());
    }
    for file in config.certificates() {
        let _ = writeln!(out, "certificate {file:?}");
    }
    for file in files {
        let _ = writeln!(out, "names {:?} {:?}", file.need, file.used);
    }
    if !name.starts_with("edges") {
        let _ = writeln!(out, "\n{config:#?}");
    }
    out
}
