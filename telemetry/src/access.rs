//! The access log: a line per request, formatted by the worker, written by a thread of its own.
//!
//! Lossy: when the writer cannot keep up, whole batches of lines are dropped and counted, and what a full disk does not take
//! is counted as well. Traffic never waits for a disk.

mod calendar;
mod field;
mod layout;
mod lost;
mod sink;
mod syslog;
mod target;
mod value;

pub use field::Field;
pub use layout::{Layout, More, Part, Source};
use lost::Lost;
use sink::{FileTarget, Sink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use syslog::Syslog;
pub use target::{Syslog as SyslogAddress, Target};
pub use value::Value;
use value::{push_json, push_quoted};

/// Form of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object, with the fields of always.
    Json,
    /// `name=value` pairs, of the same fields.
    Text,
    /// Other fields.
    Chosen(Arc<Layout>),
}

/// Batches that may wait for the writer.
const BATCHES_MAX: usize = 256;
/// A batch is handed over when it is this long, in bytes, or when the worker's timer ticks.
const BATCH_BYTES: usize = 32 * 1024;

/// A worker's end.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    sender: SyncSender<Vec<u8>>,
    batch: Vec<u8>,
    lines: u64,
}

/// How often the file is looked at although nothing is to be written: whoever renames it may wait for its old name to be let
/// go of.
const LOOK: Duration = Duration::from_secs(1);

/// A writer thread, and what it is steered by.
#[derive(Debug)]
pub struct Writer {
    /// Takes batches of whole lines. Dropping all senders ends the thread; what was sent is written first.
    pub sender: SyncSender<Vec<u8>>,
    /// Ends when the senders are gone.
    pub thread: std::thread::JoinHandle<()>,
    /// Asks for the file to be opened again.
    pub reopen: Reopen,
}

/// Asks a writer to open its file again, whatever it looks like. A file that was renamed, removed or replaced is found out
/// without being asked.
#[derive(Debug, Clone, Default)]
pub struct Reopen(Arc<AtomicBool>);

impl Reopen {
    /// Before the next line, and within a second.
    pub fn ask(&self) {
        self.0.store(true, Relaxed);
    }
}

/// An open target.
enum Output {
    File(Sink),
    Syslog(Syslog),
}

impl Output {
    fn open(target: Target) -> std::io::Result<Self> {
        let lost = Lost::new(target.to_string());
        let file = match target {
            Target::Stdout => FileTarget::Stdout,
            Target::Stderr => FileTarget::Stderr,
            Target::File(path) => FileTarget::File(path),
            Target::Syslog(address) => return Ok(Self::Syslog(Syslog::new(address, lost))),
        };
        Ok(Self::File(Sink::open(file, lost)?))
    }

    /// Goes on in the file that has its name now.
    fn look(&mut self, asked: bool) {
        match self {
            Self::File(sink) => sink.look(asked),
            Self::Syslog(_) => {}
        }
    }

    /// Writes whole lines. What cannot be written is lost, and counted.
    fn write(&mut self, batch: &[u8]) {
        match self {
            Self::File(sink) => sink.write(batch),
            Self::Syslog(syslog) => syslog.write(batch),
        }
    }

    /// No more lines come.
    fn end(&mut self) {
        match self {
            Self::File(sink) => sink.end(),
            Self::Syslog(syslog) => syslog.lost().tell(true),
        }
    }

    /// Lines lost since the last call.
    fn take_lost(&mut self) -> u64 {
        match self {
            Self::File(sink) => sink.take_lost(),
            Self::Syslog(syslog) => syslog.lost().take(),
        }
    }
}

/// Starts a writer thread for `target`. `lost` is told how many lines could not be written, whenever some could not.
///
/// # Errors
/// The file cannot be opened for appending.
pub fn start(target: Target, lost: impl Fn(u64) + Send + 'static) -> std::io::Result<Writer> {
    let mut sink = Output::open(target)?;
    let (sender, receiver) = sync_channel::<Vec<u8>>(BATCHES_MAX);
    let reopen = Reopen::default();
    let asked = reopen.clone();
    let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || {
        loop {
            let batch = receiver.recv_timeout(LOOK);
            sink.look(asked.0.swap(false, Relaxed));
            match batch {
                Ok(batch) => sink.write(&batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            lost(sink.take_lost());
        }
        sink.end();
        lost(sink.take_lost());
    })?;
    Ok(Writer { sender, thread, reopen })
}

impl AccessLog {
    /// A worker's end of a writer.
    #[must_use]
    pub fn new(format: Format, sender: SyncSender<Vec<u8>>) -> Self {
        Self { format, sender, batch: Vec::with_capacity(BATCH_BYTES + 4096), lines: 0 }
    }

    /// Adds a line. Gives how many lines were lost by it: 0 or a whole batch. `more` is asked where fields are chosen.
    pub fn line<'v>(
        &mut self,
        pairs: impl IntoIterator<Item = (Field, Value<'v>)>,
        more: impl FnOnce() -> More<'v>,
    ) -> u64 {
        match &self.format {
            Format::Json => json(&mut self.batch, pairs),
            Format::Text => text(&mut self.batch, pairs),
            Format::Chosen(layout) => {
                let More { fields, head } = more();
                // What a line has by itself comes last: a place that is not filled takes nothing away.
                layout.write(&mut self.batch, fields.into_iter().chain(pairs), head);
            }
        }
        self.lines += 1;
        if self.batch.len() >= BATCH_BYTES { self.flush() } else { 0 }
    }

    /// Hands over what has been gathered. Gives how many lines were lost.
    pub fn flush(&mut self) -> u64 {
        if self.batch.is_empty() {
            return 0;
        }
        let lines = std::mem::take(&mut self.lines);
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_BYTES + 4096));
        match self.sender.try_send(batch) {
            Ok(()) => 0,
            Err(TrySendError::Full(mut batch) | TrySendError::Disconnected(mut batch)) => {
                batch.clear();
                self.batch = batch;
                lines
            }
        }
    }
}

fn json<'v>(out: &mut Vec<u8>, pairs: impl IntoIterator<Item = (Field, Value<'v>)>) {
    let mut separator = b'{';
    for (Field { name, .. }, value) in pairs {
        out.push(separator);
        separator = b',';
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        push_json(out, value);
    }
    out.extend_from_slice(b"}\n");
}

fn text<'v>(out: &mut Vec<u8>, pairs: impl IntoIterator<Item = (Field, Value<'v>)>) {
    for (index, (Field { name, .. }, value)) in pairs.into_iter().enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        match value {
            Value::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            Value::Nothing => out.push(b'-'),
            Value::Word(word) => out.extend_from_slice(word.as_bytes()),
            Value::Bytes(bytes) => push_quoted(out, bytes),
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Field = Field { name: "a", ..Field::STATUS };
    const B: Field = Field { name: "b", ..Field::STATUS };
    const C: Field = Field { name: "c", ..Field::STATUS };

    #[test]
    fn bytes_of_the_network_never_break_a_line() {
        let mut out = Vec::new();
        json(&mut out, [(A, Value::Bytes(b"x\"\\\n\xff\xc3\xa9")), (B, Value::Number(7)), (C, Value::Nothing)]);
        assert_eq!(String::from_utf8(out).unwrap(), "{\"a\":\"x\\\"\\\\\\u000a\\u00ff\u{e9}\",\"b\":7,\"c\":null}\n");
    }

    #[test]
    fn a_line_of_pairs_is_as_ever() {
        let mut out = Vec::new();
        let pairs = [
            (A, Value::Bytes(b"x \"\n\xff\xc3\xa9")),
            (B, Value::Number(7)),
            (C, Value::Nothing),
            (A, Value::Word("a word")),
        ];
        text(&mut out, pairs);
        assert_eq!(String::from_utf8(out).unwrap(), "a=\"x \\\"\\u000a\\u00ff\u{e9}\" b=7 c=- a=a word\n");
    }

    #[test]
    fn full_writer_loses_lines_and_says_how_many() {
        let (sender, receiver) = sync_channel(1);
        let mut log = AccessLog::new(Format::Text, sender);
        log.line([(A, Value::Number(1))], More::default);
        assert_eq!(log.flush(), 0);
        log.line([(A, Value::Number(2))], More::default);
        log.line([(A, Value::Number(3))], More::default);
        assert_eq!(log.flush(), 2);
        assert_eq!(receiver.recv().unwrap(), b"a=1\n");
    }
}
