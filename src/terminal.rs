//! Standard output and standard error: everything that the binary prints goes through here (`clippy.toml` sees to it), since
//! much of it was written by others.

use ringway_config::plain::Plain;
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use std::io::{self, IsTerminal, Read, Write};
use tokio::sync::mpsc;

/// The exit code where nobody reads what is printed: what a shell says of a program that SIGPIPE has ended.
pub(crate) const NOBODY_READS: u8 = 128 + 13;

/// Why nothing more can be printed: who read it has ended.
#[derive(Debug)]
struct NobodyReads;

impl std::fmt::Display for NobodyReads {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("nobody reads what is printed")
    }
}

impl std::error::Error for NobodyReads {}

/// Standard output or standard error.
pub(crate) struct Stream<W>(Plain<W>);

/// Standard output.
#[allow(clippy::disallowed_methods, reason = "this is where it is made fit for a terminal")]
pub(crate) fn stdout() -> Stream<io::Stdout> {
    Stream(Plain::new(io::stdout()))
}

/// Standard error.
#[allow(clippy::disallowed_methods, reason = "this is where it is made fit for a terminal")]
pub(crate) fn stderr() -> Stream<io::Stderr> {
    Stream(Plain::new(io::stderr()))
}

impl Stream<io::Stdout> {
    /// Nobody else writes between.
    pub(crate) fn lock(&self) -> Stream<io::StdoutLock<'static>> {
        Stream(self.0.lock())
    }
}

impl Stream<io::Stderr> {
    /// Nobody else writes between.
    pub(crate) fn lock(&self) -> Stream<io::StderrLock<'static>> {
        Stream(self.0.lock())
    }
}

impl<W: Write> Write for Stream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(of_reader)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(of_reader)
    }
}

/// A pipe that nobody reads is told from every other one that breaks.
fn of_reader(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe { io::Error::new(error.kind(), NobodyReads) } else { error }
}

/// Whether a command has ended because nobody reads what it prints.
pub(crate) fn nobody_reads(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<NobodyReads>())
    })
}

/// An error and its causes, in one line. Some errors say their cause themselves: it is said once.
pub(crate) fn once(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// A text that somebody asked for as it was written: a file or a pipe gets each byte of it, a terminal what can be seen.
#[allow(clippy::disallowed_methods, reason = "what is no terminal gets the text as it is")]
pub(crate) fn write_as_written(text: &str) -> io::Result<()> {
    let out = io::stdout();
    if out.is_terminal() {
        return stdout().write_all(text.as_bytes());
    }
    out.lock().write_all(text.as_bytes()).map_err(of_reader)
}

/// Logs: on a terminal, the subscriber escapes them itself, and colours them.
pub(crate) fn install_logs() {
    ringway_telemetry::logs::install(stderr);
}

/// Whether somebody sits before standard output and standard input.
#[allow(clippy::disallowed_methods, reason = "what it is is asked, nothing is written")]
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// Columns and rows of standard output; of what is no terminal, what `COLUMNS` says, or else many.
#[allow(clippy::disallowed_methods, reason = "how wide it is is asked, nothing is written")]
pub(crate) fn size() -> (usize, usize) {
    if let Ok(size) = termios::tcgetwinsize(io::stdout())
        && size.ws_col > 0
    {
        return (usize::from(size.ws_col), usize::from(size.ws_row));
    }
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    (columns.filter(|&columns| columns > 0).unwrap_or(200), usize::MAX)
}

/// Draws over what is there, as much as there is room for. The lines are fit for a terminal, each of them once more.
#[allow(clippy::disallowed_methods, reason = "the escapes around the lines are our own")]
pub(crate) fn draw_screen(text: &str, width: usize, height: usize) -> io::Result<()> {
    let mut screen = String::from("\x1b[H");
    for line in text.lines().take(height.saturating_sub(1)) {
        screen.push_str(&crate::table::cut(&ringway_config::plain::line(line), width));
        screen.push_str("\x1b[K\r\n");
    }
    screen.push_str("\x1b[J");
    let mut out = io::stdout().lock();
    out.write_all(screen.as_bytes())?;
    out.flush()
}

/// Keys as they are pressed. The terminal is as before once it is dropped.
pub(crate) struct Keys {
    before: Termios,
    pressed: mpsc::Receiver<u8>,
}

impl Keys {
    /// Takes standard input, a terminal, for itself.
    pub(crate) fn new() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let (sender, pressed) = mpsc::channel(16);
        // It ends with the process: a read of a terminal cannot be called off.
        std::thread::Builder::new().name("keys".into()).spawn(move || {
            for key in io::BufReader::with_capacity(1, io::stdin()).bytes() {
                if key.is_err() || sender.blocking_send(key.unwrap_or_default()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { before, pressed })
    }

    /// The next key; `None`: there will be no more.
    pub(crate) async fn next(&mut self) -> Option<u8> {
        self.pressed.recv().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // A terminal that has gone needs no more.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_cause_is_said_once() {
        let inner = anyhow::anyhow!("permission denied");
        let error = inner.context("bind to :80: permission denied").context("start");
        assert_eq!(once(&error), "start: bind to :80: permission denied");
        let error: anyhow::Result<()> = Err(io::Error::from(io::ErrorKind::NotFound)).context("read");
        assert_eq!(once(&error.unwrap_err()), "read: entity not found");
    }
}
