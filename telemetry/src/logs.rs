//! Structured logs: what the process did. Requests go to the access log instead.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The consensus engine tells every vote and every entry at `info`.
const DEFAULT: &str = "info,openraft=error";

/// Starts logging to standard error: text on a terminal, JSON lines elsewhere. `RINGWAY_LOG` sets the level
/// (`info` if unset, the consensus engine's errors only; the syntax of `tracing_subscriber`'s `EnvFilter`). JSON goes through
/// `json`, which leads to standard error as well: what is read with `cat` later must do nothing to a terminal either.
#[allow(
    clippy::disallowed_methods,
    reason = "the subscriber colours what it writes to a terminal, and escapes what is told"
)]
pub fn install<W>(json: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_env("RINGWAY_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    // An error means that a subscriber is installed already, as in tests with several proxies.
    let _ = if std::io::stderr().is_terminal() {
        builder.with_writer(std::io::stderr).with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_writer(json).try_init()
    };
}
