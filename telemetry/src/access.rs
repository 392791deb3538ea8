//! The access log: a line per request, formatted by the worker, written by a thread of its own.
//!
//! Lossy: when the writer cannot keep up, whole batches of lines are dropped and counted. Traffic never waits for a disk.

use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// `name=value` pairs.
    Text,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// Batches that may wait for the writer.
const BATCHES_MAX: usize = 256;
/// A batch is handed over when it is this long, in bytes, or when the worker's timer ticks.
const BATCH_BYTES: usize = 32 * 1024;

/// A value of a line.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// Bytes of the network: escaped.
    Bytes(&'a [u8]),
    /// Our own word.
    Word(&'a str),
    /// A count.
    Number(u64),
    /// Absent.
    Nothing,
}

/// A worker's end.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    sender: SyncSender<Vec<u8>>,
    batch: Vec<u8>,
    lines: u64,
}

/// Starts a writer thread for `target`. Dropping all senders ends it; what was sent is written first.
///
/// # Errors
/// The file cannot be opened for appending.
pub fn start(target: Target) -> std::io::Result<(SyncSender<Vec<u8>>, std::thread::JoinHandle<()>)> {
    let mut file = Sink::open(target)?;
    let (sender, receiver): (_, Receiver<Vec<u8>>) = sync_channel(BATCHES_MAX);
    let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || {
        while let Ok(batch) = receiver.recv() {
            file.write(&batch);
        }
    })?;
    Ok((sender, thread))
}

/// An open target.
enum Sink {
    Stdout,
    Stderr,
    File { path: PathBuf, file: std::fs::File },
}

impl Sink {
    fn open(target: Target) -> std::io::Result<Self> {
        Ok(match target {
            Target::Stdout => Self::Stdout,
            Target::Stderr => Self::Stderr,
            Target::File(path) => Self::File { file: open(&path)?, path },
        })
    }

    fn write(&mut self, batch: &[u8]) {
        // A full disk or a closed pipe must not stop traffic: what cannot be written is lost.
        let _ = match self {
            Self::Stdout => std::io::stdout().lock().write_all(batch),
            Self::Stderr => std::io::stderr().lock().write_all(batch),
            Self::File { path, file } => {
                // Log rotation renames the file: go on in a new one.
                if !path.exists()
                    && let Ok(fresh) = open(path)
                {
                    *file = fresh;
                }
                file.write_all(batch)
            }
        };
    }
}

fn open(path: &PathBuf) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new().append(true).create(true).open(path)
}

impl AccessLog {
    /// A worker's end of a writer.
    #[must_use]
    pub fn new(format: Format, sender: SyncSender<Vec<u8>>) -> Self {
        Self { format, sender, batch: Vec::with_capacity(BATCH_BYTES + 4096), lines: 0 }
    }

    /// Adds a line. Gives how many lines were lost by it: 0 or a whole batch.
    pub fn line(&mut self, pairs: &[(&str, Value<'_>)]) -> u64 {
        match self.format {
            Format::Json => json(&mut self.batch, pairs),
            Format::Text => text(&mut self.batch, pairs),
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

fn json(out: &mut Vec<u8>, pairs: &[(&str, Value<'_>)]) {
    let mut separator = b'{';
    for (name, value) in pairs {
        out.push(separator);
        separator = b',';
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        match value {
            Value::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
            Value::Nothing => out.extend_from_slice(b"null"),
            Value::Word(word) => quoted(out, word.as_bytes()),
            Value::Bytes(bytes) => quoted(out, bytes),
        }
    }
    out.extend_from_slice(b"}\n");
}

fn text(out: &mut Vec<u8>, pairs: &[(&str, Value<'_>)]) {
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        match value {
            Value::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
            Value::Nothing => out.push(b'-'),
            Value::Word(word) => out.extend_from_slice(word.as_bytes()),
            Value::Bytes(bytes) => quoted(out, bytes),
        }
    }
    out.push(b'\n');
}

/// Bytes of the network as a JSON string: valid UTF-8 as it is, other bytes as the code points of Latin-1.
fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().bytes() {
            match character {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', character]),
                0..0x20 | 0x7f => escape(out, character),
                _ => out.push(character),
            }
        }
        chunk.invalid().iter().for_each(|&byte| escape(out, byte));
    }
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_the_network_never_break_a_line() {
        let mut out = Vec::new();
        json(&mut out, &[("a", Value::Bytes(b"x\"\\\n\xff\xc3\xa9")), ("b", Value::Number(7)), ("c", Value::Nothing)]);
        assert_eq!(String::from_utf8(out).unwrap(), "{\"a\":\"x\\\"\\\\\\u000a\\u00ff\u{e9}\",\"b\":7,\"c\":null}\n");
    }

    #[test]
    fn full_writer_loses_lines_and_says_how_many() {
        let (sender, receiver) = sync_channel(1);
        let mut log = AccessLog::new(Format::Text, sender);
        log.line(&[("a", Value::Number(1))]);
        assert_eq!(log.flush(), 0);
        log.line(&[("a", Value::Number(2))]);
        log.line(&[("a", Value::Number(3))]);
        assert_eq!(log.flush(), 2);
        assert_eq!(receiver.recv().unwrap(), b"a=1\n");
    }
}
