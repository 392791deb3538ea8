//! Small texts: what flags mean, where something is asked for, and a question to a person.

use std::io::{BufRead, Write};

/// Where something is asked for, percent-encoded.
pub(super) fn path_of(parts: &[&str]) -> String {
    let mut path = String::new();
    for part in parts {
        path.push('/');
        for byte in part.bytes() {
            // A key's own slashes stay: they part its kind from its names.
            if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
                path.push(byte as char);
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    path
}

/// A time, as in files.
pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    // Numbers alone were seconds once, and scripts have them.
    let seconds = || text.parse().ok().map(std::time::Duration::from_secs);
    ringway_config::parse_duration(text)
        .or_else(seconds)
        .ok_or_else(|| format!("`{text}` is no time: write for example `500ms`, `30s` or `1h30m`"))
}

/// A time that members are to read.
pub(super) fn duration_text(text: &str) -> Result<String, String> {
    match ringway_config::parse_duration(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("`{text}` is no time: write for example `500ms`, `30s` or `1h30m`")),
    }
}

/// Days: `365d`, or the number alone.
pub(super) fn days(text: &str) -> Result<u64, String> {
    let days = text.strip_suffix('d').unwrap_or(text).parse().ok();
    days.filter(|days| (1..=7300).contains(days))
        .ok_or_else(|| format!("`{text}` is not 1d to 7300d: write for example `365d`"))
}

/// `yes`, from a person.
pub(super) fn confirmed(what: &str) -> anyhow::Result<bool> {
    write!(crate::terminal::stderr(), "{what}. Go on? [y/N] ")?;
    crate::terminal::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "yes"))
}
