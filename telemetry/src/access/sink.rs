//! Where the writer thread puts lines: follows its file when it is rotated, and never leaves half a line before another.

use super::lost::Lost;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is written to as a file is.
pub(super) enum FileTarget {
    Stdout,
    Stderr,
    File(PathBuf),
}

/// An open target.
pub(super) struct Sink {
    file: File,
    /// Where to find it again; none for standard output and error.
    path: Option<PathBuf>,
    /// The end of a line whose beginning is in the file: it goes first when there is room again. One line at most.
    unfinished: Vec<u8>,
    lost: Lost,
}

impl Sink {
    #[allow(clippy::disallowed_methods, reason = "the access log's lines are escaped as their format has it")]
    pub(super) fn open(target: FileTarget, lost: Lost) -> std::io::Result<Self> {
        // Descriptors of their own: the library's buffers would keep what a full disk has refused.
        let (file, path) = match target {
            FileTarget::Stdout => (std::io::stdout().as_fd().try_clone_to_owned()?.into(), None),
            FileTarget::Stderr => (std::io::stderr().as_fd().try_clone_to_owned()?.into(), None),
            FileTarget::File(path) => (open(&path)?, Some(path)),
        };
        Ok(Self { file, path, unfinished: Vec::new(), lost })
    }

    /// Goes on in the file that is found under the path now, if that is another one, or if it was asked for.
    pub(super) fn look(&mut self, asked: bool) {
        if let Some(path) = &self.path {
            let is_same = |found: Metadata| {
                self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
            };
            if asked || !std::fs::metadata(path).is_ok_and(is_same) {
                match open(path) {
                    Ok(fresh) => {
                        self.finish();
                        if !std::mem::take(&mut self.unfinished).is_empty() {
                            self.lost.add(1, None);
                        }
                        self.file = fresh;
                    }
                    // The old one is still better than none.
                    Err(error) => self.lost.add(0, Some(format!("open it again: {error}"))),
                }
            }
        }
        self.finish();
        self.lost.tell(false);
    }

    /// Writes whole lines. What cannot be written is lost, and counted.
    pub(super) fn write(&mut self, batch: &[u8]) {
        self.finish();
        if !self.unfinished.is_empty() {
            self.lost.add(lines(batch), None);
            return;
        }
        let (written, error) = write_some(&mut self.file, batch);
        let Some(error) = error else { return self.lost.handle_whole() };
        let rest = &batch[written..];
        let is_cut = written > 0 && batch[written - 1] != b'\n';
        let cut = if is_cut { rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1) } else { 0 };
        self.unfinished.extend_from_slice(&rest[..cut]);
        self.lost.add(lines(&rest[cut..]), Some(error.to_string()));
        self.lost.tell(false);
    }

    /// No more lines come.
    pub(super) fn end(&mut self) {
        self.finish();
        if !self.unfinished.is_empty() {
            self.lost.add(1, None);
        }
        self.lost.tell(true);
    }

    /// Lines lost since the last call.
    pub(super) fn take_lost(&mut self) -> u64 {
        self.lost.take()
    }

    /// The end of the line that has begun.
    fn finish(&mut self) {
        if !self.unfinished.is_empty() {
            let (written, error) = write_some(&mut self.file, &self.unfinished);
            self.unfinished.drain(..written);
            if let Some(error) = error {
                self.lost.add(0, Some(error.to_string()));
            }
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    std::fs::OpenOptions::new().append(true).create(true).open(path)
}

/// How many bytes were written, and why not all.
fn write_some(file: &mut File, bytes: &[u8]) -> (usize, Option<std::io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Lost {
        Lost::new("a test".into())
    }

    #[test]
    fn a_file_that_was_replaced_is_let_go_of_even_if_one_of_its_name_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut sink = Sink::open(FileTarget::File(path.clone()), lost()).unwrap();
        sink.write(b"one\n");
        // As logrotate's `create` does.
        std::fs::rename(&path, directory.path().join("log.1")).unwrap();
        std::fs::write(&path, "").unwrap();
        sink.look(false);
        sink.write(b"two\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::read_to_string(directory.path().join("log.1")).unwrap(), "one\n");
        std::fs::remove_file(&path).unwrap();
        sink.look(false);
        sink.write(b"three\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(sink.take_lost(), 0);
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_counted() {
        let mut sink = Sink::open(FileTarget::File("/dev/full".into()), lost()).unwrap();
        sink.write(b"one\ntwo\n");
        sink.write(b"three\n");
        assert_eq!((sink.take_lost(), sink.take_lost()), (3, 0));
        assert!(sink.unfinished.is_empty(), "no line has begun");
    }

    /// A pipe that is full takes a part, as a full disk does.
    #[test]
    fn a_line_that_was_cut_is_finished_before_another_begins() {
        use std::io::Read;
        let (mut reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let mut sink = Sink { file, path: None, unfinished: Vec::new(), lost: lost() };
        let line = [&[b'x'; 100_000][..], b"\n"].concat();
        let batch = [&line[..], &line].concat();
        sink.write(&batch);
        assert!(sink.take_lost() == 1 && !sink.unfinished.is_empty());
        // Still full: what comes meanwhile is lost whole.
        sink.write(b"lost\n");
        assert_eq!(sink.take_lost(), 1);
        let mut read = vec![0; 65_536];
        reader.read_exact(&mut read).unwrap();
        sink.write(b"last\n");
        assert_eq!(sink.take_lost(), 0);
        drop(sink);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        read.extend(rest);
        assert!(read == [&line[..], b"last\n"].concat(), "{} bytes", read.len());
    }
}
