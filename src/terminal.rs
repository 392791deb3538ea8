//! Standard output and standard error: everything that the binary prints goes through here (`clippy.toml` sees to it), since
//! much of it was written by others.

use ringway_config::plain::Plain;
use std::io::{self, IsTerminal, Write};

/// Standard output.
#[allow(clippy::disallowed_methods, reason = "this is where it is made fit for a terminal")]
pub(crate) fn stdout() -> Plain<io::Stdout> {
    Plain::new(io::stdout())
}

/// Standard error.
#[allow(clippy::disallowed_methods, reason = "this is where it is made fit for a terminal")]
pub(crate) fn stderr() -> Plain<io::Stderr> {
    Plain::new(io::stderr())
}

/// A text that somebody asked for as it was written: a file or a pipe gets each byte of it, a terminal what can be seen.
#[allow(clippy::disallowed_methods, reason = "what is no terminal gets the text as it is")]
pub(crate) fn write_as_written(text: &str) -> io::Result<()> {
    let out = io::stdout();
    if out.is_terminal() { stdout().write_all(text.as_bytes()) } else { out.lock().write_all(text.as_bytes()) }
}

/// Logs: on a terminal, the subscriber escapes them itself, and colours them.
pub(crate) fn install_logs() {
    ringway_telemetry::logs::install(stderr);
}
